// SPDX-License-Identifier: GPL-2.0

//! Hints: what is wanted, and what there is of it.
//!
//! Source: fi_getinfo(3).

use super::{Caps, EndpointType, Info, Label, Limits, Namespace, Order};
use crate::av::Name;
use crate::domain::Domain;
use crate::fabric::Fabric;
use crate::provider::registry::{self, Entry};
use kernel::prelude::*;

/// A place that endpoints have, or are to have.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// By its name, in the provider's format.
    Name(&'a Name),
    /// By text, which the provider understands if it has [`Caps::SERVICE`]. Which text that is, its
    /// page says: names of hosts are looked up by none. Source: node, service.
    Service {
        /// The node; `None`: the provider's own choice, for a source.
        node: Option<&'a str>,
        /// The service there; `None`: any, for a source.
        service: Option<&'a str>,
    },
}

impl<'a> From<&'a Name> for Place<'a> {
    fn from(name: &'a Name) -> Self {
        Place::Name(name)
    }
}

impl Place<'_> {
    /// Its name, in the words of the provider of `info`.
    fn name(&self, entry: &Entry, info: &Info) -> Result<Name> {
        match *self {
            Place::Name(name) => Ok(*name),
            Place::Service { node, service } => entry.provider().resolve(info, node, service),
        }
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
    /// In this network namespace; `None`: in that of `opened_domain`, else in the initial one.
    pub net: Option<Namespace>,
    /// Of this very fabric, which is open. Source: fabric of fi_fabric_attr.
    pub opened_fabric: Option<&'a Fabric>,
    /// Of this very domain, which is open. Source: domain of fi_domain_attr.
    pub opened_domain: Option<&'a Domain>,
    /// Whose endpoints are in this place. Source: src_addr, FI_SOURCE.
    pub source: Option<Place<'a>>,
    /// Whose endpoints can have a peer in this place; it need not exist yet. Source: dest_addr, node,
    /// service.
    pub peer: Option<Place<'a>>,
    /// Messages of at least this many bytes.
    pub max_msg_size: usize,
    /// Atomics on vectors of at least this many bytes.
    pub max_atomic_size: usize,
    /// At least this many operations in flight. The info's limit is lowered to it, if not 0.
    pub tx_size: usize,
    /// At least this many posted receives. The info's limit is lowered to it, if not 0.
    pub rx_size: usize,
    /// At least this many transmit contexts of a scalable endpoint. The info's limit is lowered to it, if not 0.
    /// Source: tx_ctx_cnt of fi_endpoint(3).
    pub tx_contexts: usize,
    /// At least this many receive contexts. The info's limit is lowered to it, if not 0.
    pub rx_contexts: usize,
    /// At least this many bytes injected.
    pub inject_size: usize,
}

impl Hints<'_> {
    /// The network namespace that is meant.
    fn net(&self) -> Namespace {
        let opened = self.opened_domain.map(Domain::net);
        self.net.or(opened).unwrap_or_else(Namespace::initial)
    }

    /// The part of `info`, of the namespace that is meant, which is wanted; `None` if it lacks something.
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
            && self.max_msg_size <= info.limits.max_msg_size
            && self.max_atomic_size <= info.limits.max_atomic_size
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
                tx_contexts: limit(self.tx_contexts, info.limits.tx_contexts)?,
                rx_contexts: limit(self.rx_contexts, info.limits.rx_contexts)?,
                ..info.limits
            },
            ..*info
        })
    }

    /// Refuses what says nothing. `EINVAL`: a source without node and service, a peer without a node.
    fn check(&self) -> Result {
        let says_nothing = |place, needs_node| match place {
            Some(Place::Service { node, service }) => {
                node.is_none() && (service.is_none() || needs_node)
            }
            _ => false,
        };
        match says_nothing(self.source, false) || says_nothing(self.peer, true) {
            true => Err(EINVAL),
            false => Ok(()),
        }
    }

    /// `info` with the places that are wanted.
    ///
    /// # Errors
    /// `EINVAL`: text that the provider does not understand. `ENOMEM`. Others: a place is not to be had.
    fn place(&self, entry: &Entry, info: Info) -> Result<Info> {
        let mut info = info;
        if let Some(domain) = self.opened_domain {
            info.source = domain.source();
        }
        if let Some(place) = &self.source {
            let wanted = place.name(entry, &info)?;
            let source = entry.provider().source(&info, &wanted)?;
            if self.opened_domain.is_some() && info.source != Some(source) {
                return Err(EADDRNOTAVAIL);
            }
            info.source = Some(source);
        }
        if let Some(place) = &self.peer {
            let peer = place.name(entry, &info)?;
            if !entry.reaches(&info, &peer) {
                return Err(EHOSTUNREACH);
            }
            info.peer = Some(peer);
        }
        Ok(info)
    }
}

/// Lists what can be had, in the order of registration.
///
/// Sleeps; process context.
///
/// # Errors
/// - `ENODATA`: nothing fits.
/// - `EINVAL`: the text of a place says nothing, or nothing else fits and some provider does not
///   understand it.
/// - `ENOMEM`.
///
/// Source: fi_getinfo(3).
pub fn getinfo(hints: &Hints<'_>) -> Result<KVec<Info>> {
    hints.check()?;
    let mut found = KVec::new();
    let mut malformed = false;
    registry::offers(hints.net(), |entry, info| {
        let ours = hints.opened_fabric.is_none_or(|fabric| fabric.is_by(entry))
            && hints.opened_domain.is_none_or(|domain| domain.is_by(entry));
        let Some(info) = hints.narrow(info).filter(|_| ours) else {
            return Ok(());
        };
        match hints.place(entry, info) {
            Ok(info) => found.push(info, GFP_KERNEL)?,
            Err(ENOMEM) => return Err(ENOMEM),
            Err(EINVAL) => malformed = true,
            Err(_) => {}
        }
        Ok(())
    })?;
    match found.is_empty() {
        true if malformed => Err(EINVAL),
        true => Err(ENODATA),
        false => Ok(found),
    }
}

#[kunit_tests(kfabric_info_hints)]
mod tests {
    use super::*;
    use crate::info::AtomicAgent;
    use crate::provider::registry::Registration;
    use crate::provider::testing;
    use crate::provider::testing::{Desk, Keeper, Opened};
    use crate::provider::{Plug, Provider};
    use kernel::module::this_module;
    use kernel::sync::Arc;

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
                max_atomic_size: 512,
                tx_size: 64,
                rx_size: 32,
                tx_contexts: 3,
                rx_contexts: 5,
                inject_size: 16,
            },
            source: None,
            peer: None,
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
        for (max_atomic_size, expected) in [(0, true), (512, true), (513, false)] {
            let hints = Hints {
                max_atomic_size,
                ..none
            };
            assert_eq!(fits(hints)?, expected);
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
        let limits = |tx_contexts, rx_contexts| {
            let hints = Hints {
                tx_contexts,
                rx_contexts,
                ..Hints::default()
            };
            let limits = hints.narrow(&info()?).map(|info| info.limits);
            let counts = limits.map(|limits| (limits.tx_contexts, limits.rx_contexts));
            Ok::<_, Error>(counts)
        };
        assert_eq!(limits(0, 0)?, Some((3, 5)));
        assert_eq!(limits(2, 1)?, Some((2, 1)));
        assert_eq!(limits(4, 1)?, None);
        assert_eq!(limits(3, 6)?, None);
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
            peer: Some(Place::Name(peer)),
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
        let offered = getinfo(&of_domain)?;
        assert_eq!(offered.len(), 1);
        // Nor what the same provider offers beside them.
        let another = Label::new("another")?;
        let beside = Info {
            domain: another,
            ..offered[0]
        };
        assert!(of_fabric.narrow(&beside).is_some());
        assert!(of_domain.narrow(&beside).is_none());
        let beside = Info {
            fabric: another,
            ..offered[0]
        };
        assert!(of_fabric.narrow(&beside).is_none());
        assert!(of_domain.narrow(&beside).is_none());
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

    /// A provider with places: one that is taken by words, and one that is left open.
    struct Signpost;

    impl Signpost {
        fn name(text: &str) -> Result<Name> {
            Name::new(text.as_bytes())
        }
    }

    #[vtable]
    impl Provider for Signpost {
        const NAME: &'static str = "kunit-places";
        type Domain = testing::Room;

        fn offers(&self, net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
            offer(&Info {
                net,
                caps: Desk::info()?.caps | Caps::SERVICE,
                source: Some(Self::name("anywhere")?),
                ..Desk::info()?
            })
        }

        fn reaches(&self, info: &Info, peer: &Name) -> bool {
            // Nobody reaches itself.
            peer.as_bytes().starts_with(b"a") && info.source != Some(*peer)
        }

        fn resolve(&self, _info: &Info, node: Option<&str>, service: Option<&str>) -> Result<Name> {
            match (node, service) {
                (Some("far"), _) => Err(ENXIO),
                (Some(node), _) if node.starts_with('a') => Self::name(node),
                (None, Some("open")) => Self::name("an open one"),
                _ => Err(EINVAL),
            }
        }

        fn source(&self, _info: &Info, source: &Name) -> Result<Name> {
            match source.as_bytes() {
                b"anywhere" | b"at home" => Ok(*source),
                b"an open one" => Self::name("at home"),
                _ => Err(EADDRNOTAVAIL),
            }
        }

        fn open(&self, info: &Info, plug: Plug) -> Result<Arc<testing::Room>> {
            // It is told where, whatever the consumer has said.
            match info.source {
                Some(source) if source.as_bytes() == b"at home" => {}
                Some(source) if source.as_bytes() == b"anywhere" => {}
                _ => return Err(EIO),
            }
            Provider::open(&Keeper(Desk::new()?), info, plug)
        }
    }

    #[test]
    fn what_is_of_another_namespace_is_not_offered() -> Result {
        let desk = Keeper(Desk::new()?);
        let _local = Registration::new(this_module::<crate::Core>(), desk)?;
        let _wide = Registration::new(this_module::<crate::Core>(), Signpost)?;
        let everywhere = getinfo(&Hints::default())?;
        assert_eq!(everywhere.len(), 2);
        assert!(everywhere
            .iter()
            .all(|info| info.net == Namespace::initial()));
        let apart = getinfo(&Hints {
            net: Some(Namespace::NONE),
            ..Hints::default()
        })?;
        assert_eq!(apart.len(), 1);
        let info = apart[0];
        assert!(info.net == Namespace::NONE && info.provider.as_str() == Signpost::NAME);

        // A domain is in one of them, and so is what is found by it.
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let hints = Hints {
            opened_domain: Some(&domain),
            ..Hints::default()
        };
        assert_eq!(getinfo(&hints)?[..], [info]);
        let elsewhere = Hints {
            net: Some(Namespace::initial()),
            ..hints
        };
        assert_eq!(getinfo(&elsewhere).err(), Some(ENODATA));
        let moved = Info {
            net: Namespace::NONE,
            ..everywhere[0]
        };
        assert_eq!(Fabric::open(&moved).err(), Some(ENODEV));
        drop((domain, fabric));
        Ok(())
    }

    fn service<'a>(node: &'a str, service: &'a str) -> Option<Place<'a>> {
        let some = |text: &'a str| (!text.is_empty()).then_some(text);
        let (node, service) = (some(node), some(service));
        Some(Place::Service { node, service })
    }

    /// What a source, and a peer, give: the error, or what the one info has.
    fn found(source: Option<Place<'_>>, peer: Option<Place<'_>>) -> Result<[Option<Name>; 2]> {
        let found = getinfo(&Hints {
            source,
            peer,
            ..Hints::default()
        })?;
        match &found[..] {
            [info] => Ok([info.source, info.peer]),
            _ => Err(E2BIG),
        }
    }

    #[test]
    fn place_is_had_or_nothing_is() -> Result {
        let name = Signpost::name;
        let _registration = Registration::new(this_module::<crate::Core>(), Signpost)?;
        let (anywhere, home, away) = (name("anywhere")?, name("at home")?, name("away")?);
        assert_eq!(found(None, None), Ok([Some(anywhere), None]));
        for (source, expected) in [
            (Some(Place::Name(&home)), Ok(home)),
            (Some(Place::Name(&anywhere)), Ok(anywhere)),
            (Some(Place::Name(&away)), Err(ENODATA)),
            (service("at home", ""), Ok(home)),
            (service("at home", "x"), Ok(home)),
            (service("", "open"), Ok(home)),
            (service("away", ""), Err(ENODATA)),
            (service("far", ""), Err(ENODATA)),
            (service("nonsense", ""), Err(EINVAL)),
            (service("", "nonsense"), Err(EINVAL)),
            (service("", ""), Err(EINVAL)),
        ] {
            assert_eq!(found(source, None), expected.map(|at| [Some(at), None]));
        }
        for (peer, expected) in [
            (Some(Place::Name(&away)), Ok(away)),
            (Some(Place::Name(&anywhere)), Err(ENODATA)),
            (service("away", "x"), Ok(away)),
            (service("anywhere", "x"), Err(ENODATA)),
            (service("far", "x"), Err(ENODATA)),
            (service("nonsense", "x"), Err(EINVAL)),
            // A peer is on a node.
            (service("", "open"), Err(EINVAL)),
        ] {
            let expected = expected.map(|peer| [Some(anywhere), Some(peer)]);
            assert_eq!(found(None, peer), expected);
        }
        // The peer is looked at from the place that is asked for.
        let (from_home, to_home) = (Some(Place::Name(&home)), service("at home", "x"));
        assert_eq!(found(None, to_home), Ok([Some(anywhere), Some(home)]));
        assert_eq!(found(from_home, to_home), Err(ENODATA));
        Ok(())
    }

    #[test]
    fn nonsense_does_not_hide_what_others_understand() -> Result {
        let _opened = Opened::new()?;
        let keeper = Name::new(b"keeper")?;
        // It has no places, but its endpoints have names.
        assert_eq!(found(Some(Place::Name(&keeper)), None), Err(ENODATA));
        assert_eq!(found(service("nonsense", ""), None), Err(ENODATA));
        assert_eq!(found(None, service("nonsense", "x")), Err(ENODATA));
        let _registration = Registration::new(this_module::<crate::Core>(), Signpost)?;
        assert_eq!(found(service("nonsense", ""), None), Err(EINVAL));
        let only = |provider| {
            let found = getinfo(&Hints {
                provider: Some(provider),
                source: service("nonsense", ""),
                ..Hints::default()
            });
            found.err()
        };
        // Who is not wanted is not asked.
        assert_eq!(only("kunit"), Some(ENODATA));
        assert_eq!(only("kunit-places"), Some(EINVAL));
        Ok(())
    }

    #[test]
    fn domain_is_in_the_place_of_its_info() -> Result {
        let _registration = Registration::new(this_module::<crate::Core>(), Signpost)?;
        let offered = getinfo(&Hints::default())?;
        let info = offered.first().ok_or(ENOENT)?;
        let fabric = Fabric::open(info)?;
        let [home, open, away] = ["at home", "an open one", "away"].map(Signpost::name);
        let (home, open, away) = (home?, open?, away?);
        for (source, expected) in [
            (None, info.source),
            (info.source, info.source),
            (Some(home), Some(home)),
            (Some(open), Some(home)),
        ] {
            let domain = fabric.domain(&Info { source, ..*info })?;
            assert_eq!(domain.source(), expected);
            let hints = Hints {
                opened_domain: Some(&domain),
                ..Hints::default()
            };
            let of_domain = getinfo(&hints)?;
            assert!(of_domain.iter().all(|found| found.source == expected));
            for (place, is_had) in [(home, expected == Some(home)), (away, false)] {
                let source = Some(Place::Name(&place));
                let found = getinfo(&Hints { source, ..hints });
                assert_eq!(found.err(), (!is_had).then_some(ENODATA));
            }
        }
        let source = Some(away);
        let opened = fabric.domain(&Info { source, ..*info });
        assert_eq!(opened.err(), Some(EADDRNOTAVAIL));
        Ok(())
    }
}
