// SPDX-License-Identifier: GPL-2.0

//! The registry: which providers there are.
//!
//! A provider that was built against another core is refused: nothing else would notice, since
//! modules carry no symbol versions on most kernels. Each open fabric holds a reference to its
//! provider's module, so a provider in use can't be unloaded; [`unplug`] ends it nevertheless, as
//! the loss of its hardware does: it ends each of its domains, and it is found no more.
//!
//! Locks: the registry's mutex; inside it, that of debugfs's root, or an entry's `dir`. An entry's
//! `domains` mutex is taken under no other, and no other under it. See Documentation/contexts.rst.

use super::{AnyProvider, Provider};
use crate::av::Name;
use crate::debugfs::{self, Shown, Unplugs};
use crate::domain::Life;
use crate::info::{Caps, EndpointType, Info, Label, Namespace};
use crate::sys::work::WorkQueue;
use crate::sys::{global, module};
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};

/// The number of the seam; it changes with each change of what providers see.
pub const ABI: u32 = 6;

/// What this core was built from: its sources, the kernel and its configuration, the compiler and its flags.
///
/// A constant of the crate's metadata: in a provider it says what that was built against.
pub const IDENTITY: &str = env!("KFABRIC_IDENTITY");

static NEXT_NUMBER: Atomic<u64> = Atomic::new(1);

/// A registered provider.
#[pin_data]
pub(crate) struct Entry {
    pub(crate) label: Label,
    /// Which registration it is: a successor of the same name has another.
    number: u64,
    provider: Arc<dyn AnyProvider>,
    owner: module::Owner,
    gone: Atomic<bool>,
    /// How many fabrics are open.
    pub(crate) fabrics: Atomic<i32>,
    /// Its directory, while it is registered: the entry itself may be dropped in any context.
    #[pin]
    dir: Mutex<Option<debugfs::Dir>>,
    /// The domains that are open.
    #[pin]
    domains: Mutex<KVec<Arc<Life>>>,
}

impl Entry {
    /// Whether the provider can still be used. `ENODEV`: it is gone.
    pub(crate) fn alive(&self) -> Result {
        if self.gone.load(Acquire) {
            return Err(ENODEV);
        }
        Ok(())
    }

    /// Its directory in debugfs. Sleeps. `ENODEV`: it is not registered any more.
    pub(crate) fn dir(&self) -> Result<debugfs::Dir> {
        self.dir.lock().clone().ok_or(ENODEV)
    }

    /// Writes how it is used.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("fabrics", self.fabrics.load(Relaxed).max(0) as u64),
            ("gone", u64::from(self.gone.load(Relaxed))),
        ];
        debugfs::rows(f, &rows)
    }

    /// The provider.
    pub(crate) fn provider(&self) -> &dyn AnyProvider {
        &*self.provider
    }

    /// What the provider offers in a network namespace, under its own name, and no more than it
    /// implements; after each domain's datagram endpoints, those that connect.
    fn offers(&self, net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        let implemented = self.provider.caps();
        self.provider.offers(net, &mut |info| {
            if info.net != net {
                return Ok(());
            }
            let mut caps = info.caps & implemented;
            if info.limits.rx_contexts < 2 {
                // There is none to be named.
                caps = caps.without(Caps::NAMED_RX_CTX);
            }
            let info = Info {
                provider: self.label,
                caps,
                ..*info
            };
            offer(&info)?;
            if self.provider.connects() {
                offer(&Info {
                    endpoint_type: EndpointType::Msg,
                    caps: info.caps.without(Caps::NAMED_RX_CTX),
                    ..info.with_contexts(1, 1)
                })?;
            }
            Ok(())
        })
    }

    /// Whether endpoints of `info` can have a peer of that name.
    pub(crate) fn reaches(&self, info: &Info, peer: &Name) -> bool {
        self.provider().reaches(info, peer)
    }

    /// The first info that is offered in that namespace, and wanted. `ENODEV`: there is none.
    pub(crate) fn offer(&self, net: Namespace, wanted: impl Fn(&Info) -> bool) -> Result<Info> {
        let mut found = None;
        self.offers(net, &mut |info| {
            if found.is_none() && wanted(info) {
                found = Some(*info);
            }
            Ok(())
        })?;
        found.ok_or(ENODEV)
    }

    /// Adds a domain to those that end with the provider. `ENODEV`: it has ended.
    pub(crate) fn enlist(&self, domain: &Arc<Life>) -> Result {
        let mut domains = self.domains.lock();
        // Under the lock: `end` sets it first and then looks for domains.
        self.alive()?;
        domains.push(domain.clone(), GFP_KERNEL)?;
        Ok(())
    }

    /// Takes a domain out that nobody uses any more.
    pub(crate) fn delist(&self, domain: &Arc<Life>) {
        let mut domains = self.domains.lock();
        domains.retain(|other| !Arc::ptr_eq(other, domain));
    }

    /// The open domain that has the lowest number of those that are meant.
    fn domain(&self, which: impl Fn(u64) -> bool) -> Option<Arc<Life>> {
        let domains = self.domains.lock();
        let meant = domains.iter().filter(|domain| which(domain.id()));
        meant.min_by_key(|domain| domain.id()).cloned()
    }

    /// The open domains, one after another; a domain has a greater number than those before it.
    fn each_domain(&self) -> impl Iterator<Item = Arc<Life>> + '_ {
        let mut last = 0;
        core::iter::from_fn(move || {
            let domain = self.domain(|id| id > last)?;
            last = domain.id();
            Some(domain)
        })
    }

    /// Ends every domain, and refuses new ones.
    fn end(&self) {
        self.gone.store(true, Release);
        // All refuse first, so that none finds another gone that was its peer just now.
        self.each_domain().for_each(|domain| {
            domain.refuse();
        });
        self.each_domain().for_each(|domain| {
            domain.end();
        });
    }
}

/// A provider's registration; ends with it.
///
/// Kept in the provider's module object, so that it is dropped when the module is unloaded. Then,
/// and on [`unplug`], operations in flight complete with `ENODEV`; what consumers hold stays valid
/// and refuses.
#[must_use = "a dropped registration unregisters the provider"]
pub struct Registration {
    _file: debugfs::File,
    _faults: Option<debugfs::File>,
    entry: Arc<Entry>,
}

impl Registration {
    /// Registers `provider`, whose code is in `module`. Sleeps; process context.
    ///
    /// It must be the last step of the module's init that can fail: a module whose init fails is
    /// freed without waiting for those who have found the provider meanwhile.
    ///
    /// # Errors
    /// - `ENOEXEC`: it was built against another core; build it again.
    /// - `EEXIST`: a provider of this name is registered.
    /// - `ENAMETOOLONG`, `EINVAL`: the name, see [`Label::new`].
    /// - `ENOMEM`.
    // Generic, hence compiled into the provider: there `ABI` and `IDENTITY` are those that it was
    // built against.
    pub fn new<P: Provider>(module: &'static ThisModule, provider: P) -> Result<Self> {
        let provider = Arc::new(provider, GFP_KERNEL)?;
        register(P::NAME, ABI, IDENTITY, module, provider)
    }
}

/// Registers a provider that says what it was built against.
#[inline(never)]
pub fn register(
    name: &str,
    abi: u32,
    identity: &str,
    module: &'static ThisModule,
    provider: Arc<impl Provider>,
) -> Result<Registration> {
    check(name, abi, identity)?;
    add(name, module, provider)
}

/// Compares what a provider was built against with this core.
#[inline(never)]
pub(crate) fn check(name: &str, abi: u32, identity: &str) -> Result {
    if abi != ABI {
        pr_err!("{name}: built for provider ABI {abi}, this kfabric has {ABI}: build it again\n");
        return Err(ENOEXEC);
    }
    if identity != core_identity() {
        pr_err!(
            "{name}: built against kfabric {identity}, this one is {}: build it again\n",
            core_identity()
        );
        return Err(ENOEXEC);
    }
    Ok(())
}

/// The identity of the core that runs; a function, so that no other crate inlines its own.
#[inline(never)]
pub fn core_identity() -> &'static str {
    IDENTITY
}

#[inline(never)]
fn add(
    name: &str,
    module: &'static ThisModule,
    provider: Arc<dyn AnyProvider>,
) -> Result<Registration> {
    let entry = Arc::pin_init(
        try_pin_init!(Entry {
            label: Label::new(name)?,
            number: NEXT_NUMBER.fetch_add(1, Relaxed),
            provider,
            owner: module::Owner::new(module),
            gone: Atomic::new(false),
            fabrics: Atomic::new(0),
            dir <- new_mutex!(None, "kfi_dir"),
            domains <- new_mutex!(KVec::new(), "kfi_domains"),
        }? Error),
        GFP_KERNEL,
    )?;
    let mut registry = global::registry();
    if registry.iter().any(|other| other.label == entry.label) {
        pr_err!("{name}: a provider of this name is registered already\n");
        return Err(EEXIST);
    }
    // After the check, since debugfs shows no second directory of one name. That of a provider
    // which has ended, but is still in use, has another by now.
    let dir = debugfs::provider(&entry.label)?;
    let file = debugfs::file(&dir, fmt!("state"), Shown::Provider(entry.clone()))?;
    let faults = entry.provider.faults();
    let faults = debugfs::faults(&dir, faults, Unplugs::Provider(entry.clone()))?;
    *entry.dir.lock() = Some(dir);
    registry.push(entry.clone(), GFP_KERNEL)?;
    drop(registry);
    pr_info!("{name}: registered\n");
    Ok(Registration {
        _file: file,
        _faults: faults,
        entry,
    })
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut registry = global::registry();
        registry.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
        if registry.is_empty() {
            // A static is never dropped, so its room would be lost when the core goes.
            *registry = KVec::new();
        }
        let dir = self.entry.dir.lock().take();
        if let Some(dir) = &dir {
            // Before the lock goes, and another of this name comes.
            debugfs::retire(dir, &self.entry.label);
        }
        drop(registry);
        drop(dir);
        self.entry.end();
        pr_info!("{}: unregistered\n", self.entry.label);
    }
}

/// Calls `offer` with all that can be had. Sleeps; process context.
///
/// Fails only as `offer` does: a provider that can't say what it has is left out, with a line in
/// the log.
pub(crate) fn offers(net: Namespace, mut offer: impl FnMut(&Entry, &Info) -> Result) -> Result {
    let registry = global::registry();
    for entry in registry.iter().filter(|entry| entry.alive().is_ok()) {
        let mut refused = None;
        let offered = entry.offers(net, &mut |info| {
            offer(entry, info).inspect_err(|e| refused = Some(*e))
        });
        match (offered, refused) {
            (_, Some(error)) => return Err(error),
            (Err(error), None) => pr_err!("{}: offers nothing: {error:?}\n", entry.label),
            (Ok(()), None) => {}
        }
    }
    Ok(())
}

/// A provider that was found, and a reference to its module.
// In the order in which they go: the entry's drop may run the module's code.
pub(crate) struct Found {
    pub(crate) entry: Arc<Entry>,
    pub(crate) module: module::Reference,
}

/// Finds a provider and takes a reference to its module. `ENODEV`: there is none of this name.
pub(crate) fn find(label: &Label) -> Result<Found> {
    find_which(|entry| entry.label == *label)
}

fn find_which(which: impl Fn(&Entry) -> bool) -> Result<Found> {
    let registry = global::registry();
    let entry = registry
        .iter()
        .find(|entry| which(entry) && entry.alive().is_ok())
        .ok_or(ENODEV)?;
    let module = entry.owner.get(&registry)?;
    Ok(Found {
        entry: entry.clone(),
        module,
    })
}

/// Ends a provider as if its hardware were pulled, until its module is loaded again.
///
/// Operations in flight complete with `ENODEV`; posts and opens give `ENODEV` from then on.
/// Sleeps; process context.
///
/// # Errors
/// - `ENODEV`: there is none of this name.
pub fn unplug(name: &str) -> Result {
    find(&Label::new(name)?)?.unplug();
    Ok(())
}

impl Found {
    /// See [`unplug`].
    fn unplug(self) {
        self.entry.end();
        pr_info!("{}: unplugged\n", self.entry.label);
    }
}

/// Keeps the queue of what the core does later, on behalf of others.
pub(crate) struct Chores(());

impl Chores {
    /// Starts it. Process context, once. `ENOMEM`.
    pub(crate) fn start() -> Result<Self> {
        *global::chores() = Some(WorkQueue::new(c"kfabric")?);
        Ok(Chores(()))
    }
}

impl Drop for Chores {
    fn drop(&mut self) {
        let queue = global::chores().take();
        drop(queue); // waits
    }
}

/// A provider that is to end, or one of its domains.
///
/// By its number: it holds nothing of the provider, whose module can be unloaded meanwhile, and
/// means no successor of the same name.
#[pin_data]
struct Unplugging {
    number: u64,
    /// The number of the domain; `None`: the provider is meant.
    domain: Option<u64>,
    #[pin]
    work: Work<Unplugging>,
}

impl_has_work! {
    impl HasWork<Self> for Unplugging { self.work }
}

impl WorkItem for Unplugging {
    type Pointer = Arc<Unplugging>;

    fn run(this: Arc<Unplugging>) {
        this.end();
    }
}

impl Unplugging {
    fn of(entry: &Entry, domain: Option<u64>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Unplugging {
                number: entry.number,
                domain,
                work <- new_work!("kfi_unplug"),
            }),
            GFP_KERNEL,
        )
    }

    /// Unplugs it, unless it has gone by itself. Sleeps; process context.
    fn end(&self) {
        let Ok(found) = find_which(|entry| entry.number == self.number) else {
            return;
        };
        let Some(number) = self.domain else {
            return found.unplug();
        };
        if let Some(domain) = found.entry.domain(|id| id == number) {
            domain.unplug();
        }
    }
}

impl Entry {
    /// As [`unplug`], soon: for those who may hold up what that waits for.
    ///
    /// May sleep. `ENODEV`: it is gone. `ENOMEM`.
    pub(crate) fn unplug_soon(&self) -> Result {
        self.unplugging(None)
    }

    /// The same for a domain of it alone.
    pub(crate) fn unplug_domain_soon(&self, domain: &Life) -> Result {
        domain.alive()?;
        self.unplugging(Some(domain.id()))
    }

    fn unplugging(&self, domain: Option<u64>) -> Result {
        self.alive()?;
        let item = Unplugging::of(self, domain)?;
        if let Some(queue) = global::chores().as_ref() {
            queue.enqueue(item);
        }
        Ok(())
    }
}

#[kunit_tests(kfabric_registry)]
mod tests {
    use super::*;
    use crate::provider::testing::{Desk, Keeper, Opened};
    use kernel::module::this_module;
    use kernel::time::delay::fsleep;
    use kernel::time::Delta;

    #[test]
    fn provider_of_another_core_is_refused() {
        assert!(check("kunit", ABI, IDENTITY).is_ok());
        assert_eq!(check("kunit", ABI + 1, IDENTITY), Err(ENOEXEC));
        assert_eq!(check("kunit", ABI - 1, IDENTITY), Err(ENOEXEC));
        assert_eq!(check("kunit", ABI, ""), Err(ENOEXEC));
        assert_eq!(check("kunit", ABI, "0123456789abcdef"), Err(ENOEXEC));
        assert_eq!(IDENTITY, core_identity());
    }

    #[test]
    fn name_is_registered_once() -> Result {
        let info = Desk::info()?;
        let keeper = || Ok::<_, Error>(Keeper(Desk::new()?));
        assert_eq!(find(&info.provider).map(|_| ()), Err(ENODEV));
        let first = Registration::new(this_module::<crate::Core>(), keeper()?)?;
        assert!(find(&info.provider).is_ok());
        assert_eq!(
            Registration::new(this_module::<crate::Core>(), keeper()?).err(),
            Some(EEXIST)
        );
        // The refused one took nothing with it.
        assert!(find(&info.provider).is_ok());
        drop(first);
        assert_eq!(find(&info.provider).map(|_| ()), Err(ENODEV));
        drop(Registration::new(this_module::<crate::Core>(), keeper()?)?);
        Ok(())
    }

    #[test]
    fn name_has_a_longest() -> Result {
        let provider = Arc::new(Keeper(Desk::new()?), GFP_KERNEL)?;
        let long = "01234567890123456789012345678901";
        assert_eq!(
            add(long, this_module::<crate::Core>(), provider.clone()).err(),
            Some(ENAMETOOLONG)
        );
        assert_eq!(
            add("", this_module::<crate::Core>(), provider.clone()).err(),
            Some(EINVAL)
        );
        drop(add(&long[1..], this_module::<crate::Core>(), provider)?);
        Ok(())
    }

    #[test]
    fn unplugged_provider_is_not_found() -> Result {
        let info = Desk::info()?;
        assert_eq!(unplug("kunit"), Err(ENODEV));
        let registration = Registration::new(this_module::<crate::Core>(), Keeper(Desk::new()?))?;
        let found = find(&info.provider)?;
        assert!(found
            .entry
            .offer(info.net, |offer| offer.is_same_domain(&info))
            .is_ok());
        assert_eq!(found.entry.offer(info.net, |_| false).err(), Some(ENODEV));
        unplug("kunit")?;
        assert_eq!(found.entry.alive(), Err(ENODEV));
        assert_eq!(find(&info.provider).map(|_| ()), Err(ENODEV));
        assert_eq!(unplug("kunit"), Err(ENODEV));
        drop(found);
        drop(registration);
        Ok(())
    }

    #[test]
    fn unplugging_that_comes_late_ends_no_successor() -> Result {
        let info = Desk::info()?;
        let register = || Registration::new(this_module::<crate::Core>(), Keeper(Desk::new()?));
        let first = register()?;
        let unplugging = Unplugging::of(&find(&info.provider)?.entry, None)?;
        drop(first);
        let second = register()?;
        unplugging.end();
        let found = find(&info.provider)?;
        Unplugging::of(&found.entry, None)?.end();
        assert_eq!(found.entry.alive(), Err(ENODEV));
        // Once more, and what is gone can't be asked for it.
        Unplugging::of(&found.entry, None)?.end();
        assert_eq!(found.entry.unplug_soon(), Err(ENODEV));
        drop(found);
        drop(second);
        Ok(())
    }

    #[test]
    fn domain_is_unplugged_soon_and_alone() -> Result {
        let opened = Opened::new()?;
        let entry = find(&Desk::info()?.provider)?.entry;
        let life = entry.each_domain().next().ok_or(ENOENT)?;
        let other = opened.fabric.domain(&Desk::info()?)?;
        entry.unplug_domain_soon(&life)?;
        while life.alive().is_ok() {
            fsleep(Delta::from_millis(1));
        }
        assert_eq!(entry.unplug_domain_soon(&life), Err(ENODEV));
        assert_eq!(entry.alive(), Ok(()));
        // One that comes late finds nobody, and ends no other.
        let late = entry.each_domain().last().ok_or(ENOENT)?;
        let unplugging = Unplugging::of(&entry, Some(late.id()))?;
        drop(other);
        let other = opened.fabric.domain(&Desk::info()?)?;
        unplugging.end();
        assert!(other.unplug().is_ok());
        drop(opened.domain);
        drop(other);
        assert!(entry.each_domain().next().is_none());
        Ok(())
    }
}
