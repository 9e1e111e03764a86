// SPDX-License-Identifier: GPL-2.0

//! Discovery: what can be had, and what is wanted.
//!
//! Source: fi_getinfo(3).

use crate::av::Name;
use crate::domain::Domain;
use crate::fabric::Fabric;
use crate::provider::registry;
use core::ops::{BitAnd, BitOr, BitOrAssign};
use kernel::fmt;
use kernel::prelude::*;

pub use crate::proto::order::{Effect, Order};
pub use crate::sys::net::Namespace;

/// A set of capabilities.
///
/// Which ones an [`Info`] has follows from what its provider implements
/// ([`crate::provider::Endpoint`]), so that none is advertised that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps(u64);

impl Caps {
    /// None.
    pub const NONE: Caps = Caps(0);
    /// Messages: send and receive. Source: FI_MSG.
    pub const MSG: Caps = Caps(1 << 0);
    /// Reads from regions of peers. Source: FI_READ, FI_REMOTE_READ.
    pub const READ: Caps = Caps(1 << 1);
    /// Writes to regions of peers. Source: FI_WRITE, FI_REMOTE_WRITE.
    pub const WRITE: Caps = Caps(1 << 2);
    /// Reads and writes. Source: FI_RMA.
    pub const RMA: Caps = Caps(Self::READ.0 | Self::WRITE.0);
    /// Writes and commits carry 64 bits of data for the peer's completion queue.
    ///
    /// They consume a receive there. Messages may always carry them. Source: FI_REMOTE_CQ_DATA,
    /// FI_RX_CQ_DATA.
    pub const REMOTE_CQ_DATA: Caps = Caps(1 << 3);
    /// Persistent regions, writes at level committed, and commits of a range.
    ///
    /// Source: FI_RMA_PMEM, FI_COMMIT_COMPLETE.
    pub const COMMIT: Caps = Caps(1 << 4);
    /// Atomics on regions of peers. Source: FI_ATOMIC, FI_REMOTE_READ, FI_REMOTE_WRITE.
    pub const ATOMIC: Caps = Caps(1 << 5);
    /// Posts with a fence ([`Options::fence`](crate::op::Options)): only where it is asked for,
    /// since each post is counted then. Source: FI_FENCE.
    pub const FENCE: Caps = Caps(1 << 6);
    /// Regions whose bytes are stored around the cache
    /// ([`Attributes::uncached`](crate::mr::Attributes)).
    pub const UNCACHED: Caps = Caps(1 << 7);
    /// Memory of devices that are not on the memory bus, in messages and RMA, on either side
    /// ([`Memory::device`](crate::memory::Memory::device)). Source: FI_HMEM.
    pub const HMEM: Caps = Caps(1 << 8);
    /// Messages with tags, and receives that choose among them. Source: FI_TAGGED.
    pub const TAGGED: Caps = Caps(1 << 9);
    /// Receives that take the messages of one peer. Source: FI_DIRECTED_RECV.
    pub const DIRECTED_RECV: Caps = Caps(1 << 10);
    /// Receives that take several messages in one buffer. Source: FI_MULTI_RECV.
    pub const MULTI_RECV: Caps = Caps(1 << 11);

    /// What an info has only if it is asked for, since it costs something. Source: secondary
    /// capabilities of fi_getinfo(3).
    const ON_REQUEST: Caps = Caps::FENCE;

    const NAMES: [(Caps, &'static str); 12] = [
        (Caps::MSG, "msg"),
        (Caps::READ, "read"),
        (Caps::WRITE, "write"),
        (Caps::REMOTE_CQ_DATA, "remote_cq_data"),
        (Caps::COMMIT, "commit"),
        (Caps::ATOMIC, "atomic"),
        (Caps::FENCE, "fence"),
        (Caps::UNCACHED, "uncached"),
        (Caps::HMEM, "hmem"),
        (Caps::TAGGED, "tagged"),
        (Caps::DIRECTED_RECV, "directed_recv"),
        (Caps::MULTI_RECV, "multi_recv"),
    ];

    /// Whether each capability of `needed` is in the set.
    pub const fn contains(self, needed: Caps) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// Those of both sets, for constants; else `|`.
    pub const fn union(self, other: Caps) -> Caps {
        Caps(self.0 | other.0)
    }

    /// Those that are not in `other`.
    pub const fn without(self, other: Caps) -> Caps {
        Caps(self.0 & !other.0)
    }

    /// As bits.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl BitOr for Caps {
    type Output = Caps;

    fn bitor(self, other: Caps) -> Caps {
        Caps(self.0 | other.0)
    }
}

impl BitAnd for Caps {
    type Output = Caps;

    fn bitand(self, other: Caps) -> Caps {
        Caps(self.0 & other.0)
    }
}

impl BitOrAssign for Caps {
    fn bitor_assign(&mut self, other: Caps) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (cap, name) in Caps::NAMES {
            if self.contains(cap) {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

/// A short name, kept by value: what it names may go at any time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label {
    len: u8,
    bytes: [u8; Label::MAX],
}

impl Label {
    /// The longest label, in bytes.
    pub const MAX: usize = 31;

    /// The label that reads `text`. `ENAMETOOLONG`: longer than [`Label::MAX`]; `EINVAL`: empty.
    pub fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(EINVAL);
        }
        let mut label = Label {
            len: text.len().min(Label::MAX) as u8,
            bytes: [0; Label::MAX],
        };
        label
            .bytes
            .get_mut(..text.len())
            .ok_or(ENAMETOOLONG)?
            .copy_from_slice(text.as_bytes());
        Ok(label)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.len))
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .unwrap_or("?")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How endpoints of a kind talk to peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointType {
    /// Reliable datagrams: to any peer, without a connection. Source: FI_EP_RDM.
    #[default]
    Rdm,
    /// Reliable, to the one peer of a connection. The core offers it beside [`EndpointType::Rdm`]
    /// where the provider brings connection messages. Source: FI_EP_MSG.
    Msg,
}

/// What a domain's endpoints can do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, write or read, in bytes.
    pub max_msg_size: usize,
    /// The most sends, reads, writes and commits in flight on an endpoint.
    pub tx_size: usize,
    /// The most posted receives of an endpoint.
    pub rx_size: usize,
    /// The most bytes that an operation takes a copy of at its post
    /// ([`Endpoint::inject`](crate::endpoint::Endpoint::inject)); at most
    /// [`INJECT_SIZE`](crate::op::INJECT_SIZE).
    pub inject_size: usize,
}

/// Who does the atomics on a region: peers' and its owner's alike, for two agents lose updates of
/// each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtomicAgent {
    /// The CPUs of the region's host.
    #[default]
    Cpus,
}

/// Something that can be had: a provider's domain and what its endpoints can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The provider.
    pub provider: Label,
    /// The fabric: endpoints of one fabric reach each other.
    pub fabric: Label,
    /// The domain: the device, in most cases.
    pub domain: Label,
    /// What it can do.
    pub caps: Caps,
    /// Its endpoints' type.
    pub endpoint_type: EndpointType,
    /// The network namespace that it is in; a local fabric is in that of the host.
    pub net: Namespace,
    /// What its endpoints keep in order; an offer: what they can.
    pub order: Order,
    /// Who does the atomics on its regions, if there are any.
    pub atomics: AtomicAgent,
    /// How far it goes. What a consumer wants less of, it may lower before opening an endpoint.
    pub limits: Limits,
}

impl Info {
    /// Whether both are infos of one domain.
    pub(crate) fn is_same_domain(&self, other: &Info) -> bool {
        self.provider == other.provider
            && self.fabric == other.fabric
            && self.domain == other.domain
            && self.net == other.net
    }
}

/// What a consumer wants; by default anything.
#[derive(Clone, Copy, Default)]
pub struct Hints<'a> {
    /// These capabilities at least.
    pub caps: Caps,
    /// What is to be kept in order, at least; the info has just that. Source: msg_order.
    pub order: Order,
    /// This type of endpoint.
    pub endpoint_type: Option<EndpointType>,
    /// This provider.
    pub provider: Option<&'a str>,
    /// This fabric.
    pub fabric: Option<&'a str>,
    /// This domain.
    pub domain: Option<&'a str>,
    /// In this network namespace.
    pub net: Option<Namespace>,
    /// Of this very fabric, which is open. Source: fabric of fi_fabric_attr.
    pub opened_fabric: Option<&'a Fabric>,
    /// Of this very domain, which is open. Source: domain of fi_domain_attr.
    pub opened_domain: Option<&'a Domain>,
    /// Whose endpoints can have a peer of this name; it need not exist yet. Source: dest_addr.
    pub peer: Option<&'a Name>,
    /// Messages of at least this many bytes.
    pub max_msg_size: usize,
    /// At least this many operations in flight. The info's limit is lowered to it, if not 0.
    pub tx_size: usize,
    /// At least this many posted receives. The info's limit is lowered to it, if not 0.
    pub rx_size: usize,
    /// At least this many bytes injected.
    pub inject_size: usize,
}

impl Hints<'_> {
    /// The part of `info` that is wanted; `None` if it lacks something.
    fn narrow(&self, info: &Info) -> Option<Info> {
        let named =
            |wanted: Option<&str>, label: &Label| wanted.is_none_or(|w| w == label.as_str());
        let limit = |wanted: usize, most: usize| match wanted {
            0 => Some(most),
            _ if wanted <= most => Some(wanted),
            _ => None,
        };
        if !(info.caps.contains(self.caps)
            && info.order.contains(self.order)
            && self
                .endpoint_type
                .is_none_or(|wanted| wanted == info.endpoint_type)
            && named(self.provider, &info.provider)
            && named(self.fabric, &info.fabric)
            && named(self.domain, &info.domain)
            && self.net.is_none_or(|wanted| wanted == info.net)
            && self.max_msg_size <= info.limits.max_msg_size
            && self.inject_size <= info.limits.inject_size)
        {
            return None;
        }
        if self.opened_fabric.is_some_and(|fabric| !fabric.is_of(info))
            || self.opened_domain.is_some_and(|domain| !domain.is_of(info))
        {
            return None;
        }
        Some(Info {
            caps: info.caps.without(Caps::ON_REQUEST.without(self.caps)),
            order: self.order,
            limits: Limits {
                tx_size: limit(self.tx_size, info.limits.tx_size)?,
                rx_size: limit(self.rx_size, info.limits.rx_size)?,
                ..info.limits
            },
            ..*info
        })
    }
}

/// Lists what can be had, in the order of registration.
///
/// Sleeps; process context.
///
/// # Errors
/// - `ENODATA`: nothing fits.
/// - `ENOMEM`.
///
/// Source: fi_getinfo(3).
pub fn getinfo(hints: &Hints<'_>) -> Result<KVec<Info>> {
    let mut found = KVec::new();
    registry::offers(|entry, info| {
        let reached = hints.peer.is_none_or(|peer| entry.reaches(info, peer));
        let ours = hints.opened_fabric.is_none_or(|fabric| fabric.is_by(entry))
            && hints.opened_domain.is_none_or(|domain| domain.is_by(entry));
        if !(reached && ours) {
            return Ok(());
        }
        if let Some(info) = hints.narrow(info) {
            found.push(info, GFP_KERNEL)?;
        }
        Ok(())
    })?;
    if found.is_empty() {
        return Err(ENODATA);
    }
    Ok(found)
}

#[kunit_tests(kfabric_info)]
mod tests {
    use super::*;
    use crate::provider::registry::Registration;
    use crate::provider::testing::{Desk, Keeper, Opened};
    use kernel::module::this_module;

    fn info() -> Result<Info> {
        Ok(Info {
            provider: Label::new("one")?,
            fabric: Label::new("fabric")?,
            domain: Label::new("domain")?,
            caps: Caps::MSG | Caps::RMA,
            endpoint_type: EndpointType::Rdm,
            net: Namespace::initial(),
            order: Order::WAW,
            atomics: AtomicAgent::Cpus,
            limits: Limits {
                max_msg_size: 4096,
                tx_size: 64,
                rx_size: 32,
                inject_size: 16,
            },
        })
    }

    fn fits(hints: Hints<'_>) -> Result<bool> {
        Ok(hints.narrow(&info()?).is_some())
    }

    #[test]
    fn hints_without_wishes_accept_all() -> Result {
        assert!(fits(Hints::default())?);
        Ok(())
    }

    #[test]
    fn each_wish_refuses_what_lacks_it() -> Result {
        let none = Hints::default();
        for (caps, expected) in [
            (Caps::MSG, true),
            (Caps::RMA, true),
            (Caps::MSG | Caps::RMA, true),
            (Caps::COMMIT, false),
            (Caps::MSG | Caps::COMMIT, false),
        ] {
            assert_eq!(fits(Hints { caps, ..none })?, expected);
        }
        for (size, expected) in [(0, true), (4096, true), (4097, false)] {
            let max_msg_size = size;
            assert_eq!(
                fits(Hints {
                    max_msg_size,
                    ..none
                })?,
                expected
            );
        }
        for (inject_size, expected) in [(0, true), (16, true), (17, false)] {
            let hints = Hints {
                inject_size,
                ..none
            };
            assert_eq!(fits(hints)?, expected);
        }
        for (tx_size, expected) in [(1, true), (64, true), (65, false)] {
            assert_eq!(fits(Hints { tx_size, ..none })?, expected);
        }
        for (rx_size, expected) in [(1, true), (32, true), (33, false)] {
            assert_eq!(fits(Hints { rx_size, ..none })?, expected);
        }
        for (name, expected) in [("one", true), ("on", false), ("one2", false)] {
            let provider = Some(name);
            assert_eq!(fits(Hints { provider, ..none })?, expected);
        }
        assert!(!fits(Hints {
            fabric: Some("domain"),
            ..none
        })?);
        assert!(!fits(Hints {
            domain: Some("fabric"),
            ..none
        })?);
        Ok(())
    }

    #[test]
    fn limits_are_lowered_to_what_is_wanted() -> Result {
        let hints = Hints {
            tx_size: 8,
            ..Hints::default()
        };
        let narrowed = hints.narrow(&info()?).ok_or(EINVAL)?;
        assert_eq!(narrowed.limits.tx_size, 8);
        assert_eq!(narrowed.limits.rx_size, 32);
        Ok(())
    }

    #[test]
    fn label_has_a_longest() -> Result {
        assert_eq!(Label::new("").err(), Some(EINVAL));
        let longest = "0123456789012345678901234567890";
        assert_eq!(Label::new(longest)?.as_str(), longest);
        assert_eq!(
            Label::new("01234567890123456789012345678901").err(),
            Some(ENAMETOOLONG)
        );
        Ok(())
    }

    #[test]
    fn names_and_objects_of_others_are_not_to_be_had() -> Result {
        let Opened {
            domain,
            fabric,
            registration,
            ..
        } = Opened::new()?;
        let (ours, theirs) = (Name::new(b"keeper")?, Name::new(b"stranger")?);
        let to = |peer| Hints {
            peer: Some(peer),
            ..Hints::default()
        };
        assert_eq!(getinfo(&to(&ours))?.len(), 1);
        assert_eq!(getinfo(&to(&theirs)).err(), Some(ENODATA));
        let of_fabric = Hints {
            opened_fabric: Some(&fabric),
            ..Hints::default()
        };
        let of_domain = Hints {
            opened_domain: Some(&domain),
            ..Hints::default()
        };
        assert_eq!(getinfo(&of_fabric)?.len(), 1);
        assert_eq!(getinfo(&of_domain)?.len(), 1);
        // Of a provider that is gone nothing is to be had, nor of its successor.
        drop(registration);
        let desk = Desk::new()?;
        let successor = Registration::new(this_module::<crate::Core>(), Keeper(desk))?;
        assert_eq!(getinfo(&Hints::default())?.len(), 1);
        assert_eq!(getinfo(&of_fabric).err(), Some(ENODATA));
        assert_eq!(getinfo(&of_domain).err(), Some(ENODATA));
        drop(successor);
        Ok(())
    }
}
