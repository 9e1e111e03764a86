// SPDX-License-Identifier: GPL-2.0

//! Discovery: what can be had. What is wanted is in `hints`.
//!
//! Source: fi_getinfo(3).

use crate::av::Name;
use core::ops::{BitAnd, BitOr, BitOrAssign};
use kernel::fmt;
use kernel::prelude::*;

mod hints;

pub use crate::proto::order::{Effect, Order};
pub use crate::sys::net::Namespace;
pub use hints::{getinfo, Hints, Place};

/// A set of capabilities.
///
/// Which ones an [`Info`] has follows from what its provider implements
/// ([`crate::provider::Endpoint`]), so that none is advertised that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps(u64);

/// Makes capabilities, each with its bit and its word, and what must know all of them.
macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $word:literal;)*) => {
        impl Caps {
            $($(#[$doc])* pub const $name: Caps = Caps(1 << $bit);)*

            /// Each there is.
            pub const ALL: Caps = Caps($(1 << $bit)|*);

            const NAMES: &[(Caps, &'static str)] = &[$((Caps::$name, $word)),*];
        }
    };
}

capabilities! {
    /// Messages: send and receive. Source: FI_MSG.
    MSG = 0, "msg";
    /// Reads from regions of peers. Source: FI_READ, FI_REMOTE_READ.
    READ = 1, "read";
    /// Writes to regions of peers. Source: FI_WRITE, FI_REMOTE_WRITE.
    WRITE = 2, "write";
    /// Writes and commits carry 64 bits of data for the peer's completion queue.
    ///
    /// They consume a receive there. Messages may always carry them. Source: FI_REMOTE_CQ_DATA,
    /// FI_RX_CQ_DATA.
    REMOTE_CQ_DATA = 3, "remote_cq_data";
    /// Persistent regions, writes at level committed, and commits of a range.
    ///
    /// Source: FI_RMA_PMEM, FI_COMMIT_COMPLETE.
    COMMIT = 4, "commit";
    /// Atomics on regions of peers. Source: FI_ATOMIC, FI_REMOTE_READ, FI_REMOTE_WRITE.
    ATOMIC = 5, "atomic";
    /// Posts with a fence ([`Options::fence`](crate::op::Options)): only where it is asked for,
    /// since each post is counted then. Source: FI_FENCE.
    FENCE = 6, "fence";
    /// Regions whose bytes are stored around the cache
    /// ([`Attributes::uncached`](crate::mr::Attributes)).
    UNCACHED = 7, "uncached";
    /// Memory of devices that are not on the memory bus, in messages and RMA, on either side
    /// ([`Memory::device`](crate::memory::Memory::device)). Source: FI_HMEM.
    HMEM = 8, "hmem";
    /// Messages with tags, and receives that choose among them. Source: FI_TAGGED.
    TAGGED = 9, "tagged";
    /// Receives that take the messages of one peer. Source: FI_DIRECTED_RECV.
    DIRECTED_RECV = 10, "directed_recv";
    /// Receives that take several messages in one buffer. Source: FI_MULTI_RECV.
    MULTI_RECV = 11, "multi_recv";
    /// Nodes and services as text, in place of names ([`Place::Service`]). Source: fi_av_insertsvc()
    /// in fi_av(3).
    SERVICE = 12, "service";
    /// Messages to one receive context of a peer that has several
    /// ([`Address::rx_context`](crate::av::Address::rx_context)). Source: FI_NAMED_RX_CTX.
    NAMED_RX_CTX = 13, "named_rx_ctx";
}

impl Caps {
    /// None.
    pub const NONE: Caps = Caps(0);
    /// Reads and writes. Source: FI_RMA.
    pub const RMA: Caps = Caps(Self::READ.0 | Self::WRITE.0);

    /// What an info has only if it is asked for, since it costs something. Source: secondary
    /// capabilities of fi_getinfo(3).
    const ON_REQUEST: Caps = Caps::FENCE;

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

    /// Its capabilities, one by one.
    pub fn each(self) -> impl Iterator<Item = Caps> {
        let caps = Caps::NAMES.iter().map(|(cap, _)| *cap);
        caps.filter(move |cap| self.contains(*cap))
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
            if self.contains(*cap) {
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

/// The most contexts that an endpoint may have, of each kind.
pub const MAX_CONTEXTS: usize = 64;

/// What a domain's endpoints can do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, write or read, in bytes.
    pub max_msg_size: usize,
    /// The longest vector of words that an atomic changes, in bytes. Source: count of
    /// fi_query_atomic() in fi_atomic(3).
    pub max_atomic_size: usize,
    /// The most sends, reads, writes and commits in flight on an endpoint, or on a transmit context.
    pub tx_size: usize,
    /// The most posted receives of an endpoint, or of a receive context.
    pub rx_size: usize,
    /// The transmit contexts of a scalable endpoint: at most [`MAX_CONTEXTS`]. Source: max_ep_tx_ctx of
    /// fi_domain(3), tx_ctx_cnt of fi_endpoint(3).
    pub tx_contexts: usize,
    /// Its receive contexts, likewise.
    pub rx_contexts: usize,
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
    /// Where its endpoints are, or are to be; `None`: the provider's endpoints have no such place.
    ///
    /// A domain that is opened with it is there, and no other place can be had in it. An endpoint
    /// may be opened without one. Source: src_addr.
    pub source: Option<Name>,
    /// The peer that was asked for. Nothing that is opened heeds it. Source: dest_addr.
    pub peer: Option<Name>,
}

impl Info {
    /// The same with so many contexts.
    pub(crate) fn with_contexts(&self, tx_contexts: usize, rx_contexts: usize) -> Self {
        let limits = Limits {
            tx_contexts,
            rx_contexts,
            ..self.limits
        };
        Info { limits, ..*self }
    }

    /// Whether both are infos of one domain.
    pub(crate) fn is_same_domain(&self, other: &Info) -> bool {
        self.provider == other.provider
            && self.fabric == other.fabric
            && self.domain == other.domain
            && self.net == other.net
    }
}

#[kunit_tests(kfabric_info)]
mod tests {
    use super::*;

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
}
