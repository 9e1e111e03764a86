// SPDX-License-Identifier: GPL-2.0

//! Domains: one device's endpoints, regions, queues, counters and address vectors.
//!
//! | file | noun |
//! |---|---|
//! | `life` | whether it has ended, and the endpoints that end with it |
//!
//! Source: fi_domain(3).

use crate::av::Name;
use crate::debugfs::{self, Shown, Unplugs};
use crate::fabric;
use crate::info::{Caps, Info, Namespace};
use crate::keys::Keys;
use crate::memory::Memory;
use crate::mr::{Attributes, MemoryRegion};
use crate::provider::registry::Entry;
use crate::stats::{PeerStats, TargetStats};
use core::array;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::Arc;

mod life;

pub use life::Plug;
pub(crate) use life::{Life, Opening};

/// What is opened in a domain.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Class {
    Region,
    Endpoint,
    CompletionQueue,
    AddressVector,
    Counter,
    EventQueue,
    PassiveEndpoint,
}

/// The names of the classes, in their order.
const CLASSES: [&str; 7] = [
    "regions",
    "endpoints",
    "completion_queues",
    "address_vectors",
    "counters",
    "event_queues",
    "passive_endpoints",
];

static NEXT_ID: Atomic<u64> = Atomic::new(1);

/// What a domain shares with what is opened in it.
#[pin_data]
pub(crate) struct Core {
    life: Arc<Life>,
    #[pin]
    keys: Keys,
    target_stats: TargetStats,
    peer_stats: PeerStats,
    children: [Atomic<i32>; CLASSES.len()],
    /// What the provider offered when the domain was opened, in the place that was asked for.
    offer: Info,
    // Last: it holds the provider's module. Not counted as a use of the fabric, since a peer's
    // access may keep this for a moment after the domain was closed.
    fabric: Arc<fabric::Core>,
}

impl Core {
    /// Its number; no other domain ever has it.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.life.id()
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn target_stats(&self) -> &TargetStats {
        &self.target_stats
    }

    pub(crate) fn peer_stats(&self) -> &PeerStats {
        &self.peer_stats
    }

    /// Whether it has ended, and the endpoints that end with it.
    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.life
    }

    pub(crate) fn entry(&self) -> &Entry {
        self.fabric.entry()
    }

    /// The name of a peer, from text. Sleeps; process context.
    ///
    /// # Errors
    /// As [`AddressVector::insert_service`](crate::av::AddressVector::insert_service).
    pub(crate) fn resolve(&self, node: &str, service: &str) -> Result<Name> {
        self.life.alive()?;
        let provider = self.entry().provider();
        let name = provider.resolve(&self.offer, Some(node), Some(service))?;
        match provider.reaches(&self.offer, &name) {
            true => Ok(name),
            false => Err(EINVAL),
        }
    }

    /// How many of a class are open.
    fn children(&self, class: usize) -> u64 {
        self.children[class].load(Acquire).max(0) as u64
    }

    /// Writes whether it can be used.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debugfs::rows(f, &[("gone", u64::from(self.life.alive().is_err()))])
    }

    /// Writes how many of each class are open.
    pub(crate) fn show_objects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debugfs::rows(
            f,
            &array::from_fn::<_, { CLASSES.len() }, _>(|i| (CLASSES[i], self.children(i))),
        )
    }

    /// Whether endpoints of `info` can be opened here.
    ///
    /// # Errors
    /// - `EINVAL`: it is of another domain, or of another place; or its limits or its order are beyond
    ///   what is offered.
    /// - `EOPNOTSUPP`: its capabilities are.
    pub(crate) fn check(&self, info: &Info) -> Result {
        let (most, wanted) = (&self.offer.limits, &info.limits);
        if !self.offer.is_same_domain(info)
            || info.source.is_some() && info.source != self.offer.source
            || wanted.max_msg_size > most.max_msg_size
            || wanted.max_atomic_size > most.max_atomic_size
            || wanted.tx_size > most.tx_size
            || wanted.rx_size > most.rx_size
            || wanted.tx_contexts > most.tx_contexts
            || wanted.rx_contexts > most.rx_contexts
            || wanted.inject_size > most.inject_size
            || !self.offer.order.contains(info.order)
        {
            return Err(EINVAL);
        }
        match self.offer.caps.contains(info.caps) {
            true => Ok(()),
            false => Err(EOPNOTSUPP),
        }
    }
}

/// The use of a domain, by its handle and by what is opened in it. The last of them drops it, in
/// process context, which sleeps.
struct Use {
    core: Arc<Core>,
    _fabric: fabric::Child,
}

impl Drop for Use {
    fn drop(&mut self) {
        self.core.entry().delist(&self.core.life);
        self.core.life.close();
    }
}

/// The hold on a domain by something that was opened in it.
pub(crate) struct Child {
    // First: once nothing is counted any more, nothing but the handle uses the domain.
    domain: Arc<Use>,
    _counted: Counted,
}

impl Child {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.domain.core
    }

    /// Whether both are holds on one domain.
    pub(crate) fn is_beside(&self, other: &Child) -> bool {
        Arc::ptr_eq(&self.domain, &other.domain)
    }
}

impl core::ops::Deref for Child {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.domain.core
    }
}

/// One that is open, as its class counts it.
struct Counted {
    core: Arc<Core>,
    class: Class,
}

impl Counted {
    fn new(core: &Arc<Core>, class: Class) -> Self {
        core.children[class as usize].add(1, Relaxed);
        Counted {
            core: core.clone(),
            class,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.core.children[self.class as usize].fetch_sub(1, Release);
    }
}

/// An open domain. Dropping it may sleep.
pub struct Domain {
    _files: [debugfs::File; 4],
    _faults: Option<debugfs::File>,
    dir: debugfs::Dir,
    // Last: it holds the provider's module.
    domain: Arc<Use>,
}

impl Domain {
    pub(crate) fn open(fabric: fabric::Child, info: &Info) -> Result<Self> {
        let mut offer = fabric
            .entry()
            .offer(info.net, |offer| offer.is_same_domain(info))?;
        let provider = fabric.entry().provider();
        if let Some(wanted) = info.source.filter(|_| info.source != offer.source) {
            offer.source = Some(provider.source(&offer, &wanted)?);
        }
        let at = Info {
            source: offer.source,
            ..*info
        };
        let uncounted = fabric.core().clone();
        let id = NEXT_ID.fetch_add(1, Relaxed);
        let life = Life::new(id, fabric.entry().label)?;
        let core = Arc::pin_init(
            pin_init!(Core {
                life,
                keys <- Keys::new(),
                target_stats: TargetStats::default(),
                peer_stats: PeerStats::default(),
                children: array::from_fn(|_| Atomic::new(0)),
                offer,
                fabric: uncounted,
            }),
            GFP_KERNEL,
        )?;
        let domain = Use {
            core: core.clone(),
            _fabric: fabric,
        };
        let domain = Arc::new(domain, GFP_KERNEL)?;
        // First, so that one whose device vanishes, or whose provider does, ends, however far it is.
        core.entry().enlist(&core.life)?;
        let plug = Plug(core.life.clone());
        let mut faults = None;
        core.life.begin(|| {
            let device = core.entry().provider().open(&at, plug)?;
            faults = device.faults();
            Ok(device)
        })?;
        let dir = debugfs::dir(&core.entry().dir()?, fmt!("domain-{id}"))?;
        let faults = debugfs::faults(&dir, faults, Unplugs::Domain(core.clone()))?;
        Ok(Domain {
            _files: [
                debugfs::file(&dir, fmt!("state"), Shown::Domain(core.clone()))?,
                debugfs::file(&dir, fmt!("objects"), Shown::Objects(core.clone()))?,
                debugfs::file(&dir, fmt!("target"), Shown::Target(core.clone()))?,
                debugfs::file(&dir, fmt!("peers"), Shown::Peers(core.clone()))?,
            ],
            _faults: faults,
            dir,
            domain,
        })
    }

    /// What is counted of its peers.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn peer_stats(&self) -> &PeerStats {
        self.core().peer_stats()
    }

    fn core(&self) -> &Arc<Core> {
        &self.domain.core
    }

    /// Its directory, for the files of what is opened in it.
    pub(crate) fn dir(&self) -> &debugfs::Dir {
        &self.dir
    }

    /// A hold on the domain, for something that is opened in it.
    pub(crate) fn child(&self, class: Class) -> Result<Child> {
        self.core().life.alive()?;
        Ok(Child {
            domain: self.domain.clone(),
            _counted: Counted::new(self.core(), class),
        })
    }

    /// Keeps it from ending while an endpoint is opened in it. Sleeps. `ENODEV`: it has ended.
    pub(crate) fn opening(&self) -> Result<Opening<'_>> {
        self.core().life.opening()
    }

    /// Whether `info` is one of it, and it has not ended.
    pub(crate) fn is_of(&self, info: &Info) -> bool {
        let core = self.core();
        core.life.alive().is_ok() && core.offer.is_same_domain(info)
    }

    /// The network namespace that it is in.
    pub(crate) fn net(&self) -> Namespace {
        self.core().offer.net
    }

    /// Where its endpoints are.
    pub(crate) fn source(&self) -> Option<Name> {
        self.core().offer.source
    }

    /// Whether it is that provider's.
    pub(crate) fn is_by(&self, entry: &Entry) -> bool {
        core::ptr::eq(self.core().entry(), entry)
    }

    /// What the provider offered when the domain was opened.
    pub(crate) fn caps(&self) -> Caps {
        self.core().offer.caps
    }

    /// Registers memory, for peers with an [`Access`](crate::mr::Access), or with hints as well.
    /// See [`MemoryRegion`]; on failure the memory comes back.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// - `EINVAL`: it is empty; or volatile, and the attributes ask for what lasts; or peers may do atomics, and it does not begin at a multiple of 8
    ///   bytes, or is in pieces that do not all begin and end at one.
    /// - `EOPNOTSUPP`: a hint that the domain does not know ([`Caps::UNCACHED`]); a device's own
    ///   memory where it does not know that ([`Caps::HMEM`]), or for atomics of peers.
    /// - `ENODEV`: the domain has ended; or the device is gone that the memory is on.
    /// - `ENOSPC`: no more keys in this domain.
    /// - `ENOMEM`.
    ///
    /// Source: fi_mr_reg(3).
    pub fn register(
        &self,
        memory: Memory,
        attributes: impl Into<Attributes>,
    ) -> Result<MemoryRegion, (Error, Memory)> {
        MemoryRegion::register(self, memory, attributes.into())
    }

    /// Ends the domain, and no other, as if its device were pulled.
    ///
    /// Operations in flight complete with `ENODEV`; posts and opens give `ENODEV` from then on. What is
    /// open in it stays valid, and is closed as ever. Peers in other domains find its endpoints closed.
    /// The provider goes on, with its other domains and with those that are opened later.
    ///
    /// Sleeps; process context. It may be called while others post, open and close.
    ///
    /// # Errors
    /// - `ENODEV`: it has ended already, by now.
    pub fn unplug(&self) -> Result {
        match self.core().life.unplug() {
            true => Ok(()),
            false => Err(ENODEV),
        }
    }

    /// Closes the domain.
    ///
    /// # Errors
    /// - `EBUSY`, and the domain again: something that was opened in it is open.
    pub fn close(self) -> Result<(), (Error, Self)> {
        if (0..CLASSES.len()).any(|class| self.core().children(class) > 0) {
            return Err((EBUSY, self));
        }
        Ok(())
    }
}

#[kunit_tests(kfabric_domain)]
mod tests {
    use super::*;
    use crate::info::{Label, Limits};
    use crate::provider::registry::unplug;
    use crate::provider::testing::{Desk, Opened};
    use kernel::str::CString;

    const ALL: [Class; CLASSES.len()] = [
        Class::Region,
        Class::Endpoint,
        Class::CompletionQueue,
        Class::AddressVector,
        Class::Counter,
        Class::EventQueue,
        Class::PassiveEndpoint,
    ];

    fn objects(domain: &Domain) -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", Shown::Objects(domain.core().clone())))
    }

    #[test]
    fn domain_closes_after_all_that_is_in_it() -> Result {
        let opened = Opened::new()?;
        let mut domain = opened.domain;
        for class in ALL {
            let child = domain.child(class)?;
            let Err((EBUSY, again)) = domain.close() else {
                return Err(EINVAL);
            };
            domain = again;
            drop(child);
        }
        assert!(domain.close().is_ok());
        Ok(())
    }

    #[test]
    fn what_is_open_is_shown_by_class() -> Result {
        let opened = Opened::new()?;
        let mut children = KVec::new();
        for (n, class) in (1..).zip(ALL) {
            for _ in 0..n {
                children.push(opened.domain.child(class)?, GFP_KERNEL)?;
            }
        }
        let expected = c"regions 1\nendpoints 2\ncompletion_queues 3\naddress_vectors 4\n\
            counters 5\nevent_queues 6\npassive_endpoints 7\n";
        assert!(*objects(&opened.domain)? == *expected);
        drop(children);
        let expected = c"regions 0\nendpoints 0\ncompletion_queues 0\naddress_vectors 0\n\
            counters 0\nevent_queues 0\npassive_endpoints 0\n";
        assert!(*objects(&opened.domain)? == *expected);
        Ok(())
    }

    #[test]
    fn endpoints_stay_within_what_is_offered() -> Result {
        let opened = Opened::new()?;
        let info = Desk::info()?;
        let check = |max_msg_size, max_atomic_size, tx_size, rx_size, inject_size| {
            let limits = Limits {
                max_msg_size,
                max_atomic_size,
                tx_size,
                rx_size,
                inject_size,
                ..info.limits
            };
            opened.domain.core().check(&Info { limits, ..info })
        };
        for (msg, atomic, tx, rx, inject, expected) in [
            (100, 40, 4, 4, 16, Ok(())),
            (0, 0, 0, 0, 0, Ok(())),
            (101, 40, 4, 4, 16, Err(EINVAL)),
            (100, 41, 4, 4, 16, Err(EINVAL)),
            (100, 40, 5, 4, 16, Err(EINVAL)),
            (100, 40, 4, 5, 16, Err(EINVAL)),
            (100, 40, 4, 4, 17, Err(EINVAL)),
            (usize::MAX, 0, 1, 1, 0, Err(EINVAL)),
        ] {
            assert_eq!(check(msg, atomic, tx, rx, inject), expected);
        }
        for (tx_contexts, rx_contexts, expected) in
            [(4, 4, Ok(())), (5, 4, Err(EINVAL)), (4, 5, Err(EINVAL))]
        {
            let limits = Limits {
                tx_contexts,
                rx_contexts,
                ..info.limits
            };
            let checked = opened.domain.core().check(&Info { limits, ..info });
            assert_eq!(checked, expected);
        }
        for (caps, expected) in [
            (Caps::NONE, Ok(())),
            (info.caps, Ok(())),
            (info.caps | Caps::FENCE, Ok(())),
            (info.caps | Caps::WRITE, Err(EOPNOTSUPP)),
        ] {
            assert_eq!(opened.domain.core().check(&Info { caps, ..info }), expected);
        }
        let domain = Label::new("domai")?;
        let other = Info { domain, ..info };
        assert_eq!(opened.domain.core().check(&other), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn nothing_is_opened_once_the_provider_has_gone() -> Result {
        let opened = Opened::new()?;
        unplug("kunit")?;
        for class in ALL {
            assert_eq!(opened.domain.child(class).err(), Some(ENODEV));
        }
        // Nor counted.
        assert!(opened.domain.close().is_ok());
        Ok(())
    }
}
