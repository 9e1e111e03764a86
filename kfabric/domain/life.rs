// SPDX-License-Identifier: GPL-2.0

//! The life of a domain: whether it has ended, and the endpoints that end with it.
//!
//! Whatever ends a domain, its device, somebody who unplugs it, or the end of its provider, does it
//! by [`Life::end`]. See Documentation/contexts.rst.
//!
//! Locks: `device` is a mutex, held by who opens an endpoint and by who ends the domain; inside it
//! `endpoints`, a mutex, and what the shutdown of an endpoint takes.

use crate::endpoint::Live;
use crate::info::Label;
use crate::provider::AnyDomain;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::barrier::{smp_mb, Read};
use kernel::sync::lock::mutex::MutexBackend;
use kernel::sync::lock::Guard;
use kernel::sync::{new_mutex, Arc, Mutex};

/// The life of a domain: whether it has ended, and the endpoints that end with it.
#[pin_data]
pub(crate) struct Life {
    id: u64,
    /// Whose domain it is.
    provider: Label,
    gone: Atomic<bool>,
    /// The provider's side; `None` before there is one, and once it has ended.
    #[pin]
    device: Mutex<Option<Arc<dyn AnyDomain>>>,
    /// The endpoints that are open.
    #[pin]
    endpoints: Mutex<KVec<Arc<Live>>>,
}

impl Life {
    /// That of the domain with this number, of that provider. Sleeps. `ENOMEM`.
    pub(super) fn new(id: u64, provider: Label) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Life {
                id,
                provider,
                gone: Atomic::new(false),
                device <- new_mutex!(None, "kfi_domain"),
                endpoints <- new_mutex!(KVec::new(), "kfi_endpoints"),
            }),
            GFP_KERNEL,
        )
    }

    /// The domain's number.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether the domain can still be used. `ENODEV`: it has ended.
    pub(crate) fn alive(&self) -> Result {
        match self.gone.load(Acquire) {
            true => Err(ENODEV),
            false => Ok(()),
        }
    }

    /// Whether the domain has ended, for one who has just seen that an endpoint is not there.
    ///
    /// If that was of this domain, it has. Any context.
    pub(crate) fn explains_loss(&self) -> bool {
        // After the look at the endpoint, which has told nothing that this could depend on.
        smp_mb(Read);
        self.alive().is_err()
    }

    /// Begins: the provider opens its side. Who ends the domain waits for that, and so for what its device is
    /// needed for. Sleeps. `ENODEV`: it has ended already; others of `open`.
    pub(super) fn begin(&self, open: impl FnOnce() -> Result<Arc<dyn AnyDomain>>) -> Result {
        let mut device = self.device.lock();
        self.alive()?;
        *device = Some(open()?);
        Ok(())
    }

    /// Whether an end would wait, as for an endpoint that is just opened.
    #[cfg(CONFIG_KUNIT = "y")]
    fn holds_up_an_end(&self) -> bool {
        self.device.try_lock().is_none()
    }

    /// Keeps the domain from ending while an endpoint is opened. Sleeps. `ENODEV`: it has ended.
    pub(crate) fn opening(&self) -> Result<Opening<'_>> {
        let device = self.device.lock();
        self.alive()?;
        Ok(Opening { life: self, device })
    }

    /// Takes a closed endpoint out. Sleeps.
    pub(crate) fn delist(&self, endpoint: &Arc<Live>) {
        let mut gone = None;
        let mut endpoints = self.endpoints.lock();
        if let Some(at) = endpoints
            .iter()
            .position(|other| Arc::ptr_eq(other, endpoint))
        {
            gone = endpoints.remove(at).ok();
        }
        drop(endpoints);
        drop(gone);
    }

    /// Refuses whatever is new, of the domain and of its endpoints; whether nobody has before.
    ///
    /// Where several end, all refuse before the first is shut down: so none finds another gone that
    /// was its peer just now. Sleeps; process context.
    pub(crate) fn refuse(&self) -> bool {
        let device = self.device.lock();
        let first = self.alive().is_ok();
        // Nobody is just opening an endpoint.
        self.gone.store(true, Release);
        for endpoint in self.endpoints.lock().iter() {
            endpoint.refuse(ENODEV);
        }
        drop(device);
        first
    }

    /// Ends the domain: all that is in flight on its endpoints completes with `ENODEV`, and the
    /// provider's side is let go of. Once, others wait for it; whether nobody has begun it before.
    ///
    /// Sleeps; process context.
    pub(crate) fn end(&self) -> bool {
        let first = self.refuse();
        let mut device = self.device.lock();
        loop {
            let Some(endpoint) = self.endpoints.lock().pop() else {
                break;
            };
            endpoint.shutdown(ENODEV);
        }
        // Under the lock: others find it gone.
        drop(device.take());
        first
    }

    /// Ends the domain alone, and says so in the log. As [`Life::end`].
    pub(crate) fn unplug(&self) -> bool {
        let first = self.end();
        if first {
            pr_info!("{}: domain {} unplugged\n", self.provider, self.id);
        }
        first
    }

    /// Lets go of the provider's side, since nothing of the domain is open any more: it has ended, and no
    /// [`Plug`] ends it again. Sleeps.
    pub(super) fn close(&self) {
        let mut device = self.device.lock();
        self.gone.store(true, Release);
        drop(device.take());
    }
}

/// A domain in which an endpoint is being opened: it does not end meanwhile.
pub(crate) struct Opening<'a> {
    life: &'a Life,
    device: Guard<'a, Option<Arc<dyn AnyDomain>>, MutexBackend>,
}

impl Opening<'_> {
    /// The provider's side.
    pub(crate) fn device(&self) -> Result<&dyn AnyDomain> {
        self.device.as_deref().ok_or(ENODEV)
    }

    /// Adds an endpoint, which is open now, to those that end with the domain. `ENOMEM`.
    pub(crate) fn enlist(self, endpoint: &Arc<Live>) -> Result {
        let mut endpoints = self.life.endpoints.lock();
        Ok(endpoints.push(endpoint.clone(), GFP_KERNEL)?)
    }
}

/// By which a provider ends a domain of its own whose device has vanished.
///
/// It keeps nothing of the domain, of the fabric or of the provider's module.
#[derive(Clone)]
pub struct Plug(pub(super) Arc<Life>);

impl Plug {
    /// Ends the domain alone, as [`Domain::unplug`](super::Domain::unplug) does: the provider, and its
    /// other domains, go on.
    ///
    /// When it returns, each endpoint of the domain has been shut down, the provider's
    /// [`Domain`](crate::provider::Domain) was let go of, and no other endpoint is opened in it.
    /// Often, if need be: then it waits for the first, and does nothing.
    ///
    /// Sleeps; process context. Not from a method of the provider, its domain or its endpoints, and
    /// with no lock held that one of them takes.
    pub fn unplug(&self) {
        self.0.unplug();
    }

    /// Whether it would wait.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn holds_up_an_end(&self) -> bool {
        self.0.holds_up_an_end()
    }
}

#[kunit_tests(kfabric_domain_life)]
mod tests {
    use super::*;
    use crate::fabric::Fabric;
    use crate::memory::Memory;
    use crate::op::testing::{done, Bench as Slots};
    use crate::op::{Buffer, Failure, Kind, Options};
    use crate::provider::registry::{unplug, Registration};
    use crate::provider::testing::{Bench, Desk, Keeper, Opened, Other};
    use kernel::module::this_module;
    use kernel::sync::atomic::Relaxed;

    fn refused<T>(posted: Result<T, crate::op::Refused<u64>>) -> Option<Error> {
        posted.err().map(Error::from)
    }

    #[test]
    fn domain_ends_alone() -> Result {
        let bench = Bench::new()?;
        let other = Other::new(&bench.opened)?;
        let to = bench.peer()?;
        bench
            .ep
            .send(Memory::zeroed(5)?, to, Options::default(), 1)?;
        bench.ep.recv(Buffer::empty(), 2)?;
        other.ep.recv(Buffer::empty(), 3)?;
        assert_eq!(bench.opened.domain.unplug(), Ok(()));
        for (kind, context) in [(Kind::Recv, 2), (Kind::Send, 1)] {
            let gone = Err(Failure::not_executed(ENODEV));
            assert_eq!(bench.ended(), Some((kind, context, gone)));
        }
        let posted = bench.ep.send(Buffer::empty(), to, Options::default(), 4);
        assert_eq!(refused(posted), Some(ENODEV));
        assert_eq!(refused(bench.ep.recv(Buffer::empty(), 5)), Some(ENODEV));
        // The other goes on, and so does the provider.
        assert!(other.cq.read().is_none());
        assert!(other.ep.recv(Buffer::empty(), 6).is_ok());
        assert!(Other::new(&bench.opened).is_ok());
        assert_eq!(bench.opened.desk.shutdowns.load(Relaxed), 2);
        assert_eq!(bench.opened.domain.unplug(), Err(ENODEV));
        assert_eq!(bench.opened.desk.shutdowns.load(Relaxed), 2);
        // The end of the provider ends those that are left.
        unplug("kunit")?;
        assert_eq!(other.domain.unplug(), Err(ENODEV));
        assert_eq!(other.cq.read().map(|done| done.context), Some(3));
        assert_eq!(other.cq.read().map(|done| done.context), Some(6));
        Ok(())
    }

    #[test]
    fn end_lets_go_of_the_providers_side() -> Result {
        let bench = Bench::new()?;
        let desk = bench.opened.desk.clone();
        let other = Other::new(&bench.opened)?;
        assert_eq!(desk.domains.load(Relaxed), 2);
        bench.opened.domain.unplug()?;
        assert_eq!(desk.domains.load(Relaxed), 1);
        // So does the last use of a domain that has not ended.
        let Other { ep, av, cq, domain } = other;
        drop((domain, av, cq));
        assert_eq!(desk.domains.load(Relaxed), 1);
        drop(ep);
        assert_eq!(desk.domains.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn plug_ends_its_domain_however_often() -> Result {
        let bench = Bench::new()?;
        let (desk, to) = (bench.opened.desk.clone(), bench.peer()?);
        let plug = desk.plug()?;
        let other = Other::new(&bench.opened)?;
        bench.ep.send(Buffer::empty(), to, Options::default(), 1)?;
        for _ in 0..2 {
            plug.unplug();
            assert_eq!(desk.shutdowns.load(Relaxed), 1);
        }
        assert!(bench.ended().is_some() && bench.ended().is_none());
        assert_eq!(bench.opened.domain.unplug(), Err(ENODEV));
        assert!(other.ep.recv(Buffer::empty(), 1).is_ok());
        // Of a domain that is closed it holds nothing.
        let plug = desk.plug()?;
        drop(other);
        assert_eq!(desk.domains.load(Relaxed), 0);
        plug.unplug();
        Ok(())
    }

    #[test]
    fn device_stays_while_its_domain_is_opened() -> Result {
        let opened = Opened::new()?;
        let info = Desk::info()?;
        assert!(opened.desk.held.load(Relaxed));
        opened.desk.held.store(false, Relaxed);
        let domain = opened.fabric.domain(&info)?;
        assert!(opened.desk.held.load(Relaxed));
        assert_eq!(opened.desk.domains.load(Relaxed), 2);
        let plug = opened.desk.plug()?;
        assert!(!plug.holds_up_an_end());
        plug.unplug();
        assert_eq!(opened.desk.domains.load(Relaxed), 1);
        assert_eq!(domain.core().life().alive(), Err(ENODEV));
        // Nor is the provider asked for what has ended before.
        let life = Life::new(1, Label::new("kunit")?)?;
        assert!(life.refuse());
        assert_eq!(life.begin(|| Err(EIO)), Err(ENODEV));
        Ok(())
    }

    #[test]
    fn closed_domain_is_not_unplugged() -> Result {
        let opened = Opened::new()?;
        let domain = opened.fabric.domain(&Desk::info()?)?;
        let life = domain.core().life().clone();
        drop(domain);
        assert!(life.alive().is_err() && !life.unplug());
        Ok(())
    }

    #[test]
    fn endpoint_is_opened_before_the_end_or_not_at_all() -> Result {
        let opened = Opened::new()?;
        let life = opened.domain.core().life();
        let opening = life.opening()?;
        assert!(life.device.try_lock().is_none());
        drop(opening);
        assert!(life.refuse() && !life.refuse());
        assert_eq!(life.opening().err(), Some(ENODEV));
        // Who has only refused has ended nothing yet.
        assert_eq!(opened.desk.domains.load(Relaxed), 1);
        life.end();
        assert_eq!(opened.desk.domains.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn lost_peer_is_no_reason_for_who_has_ended() -> Result {
        let life = Life::new(1, Label::new("kunit")?)?;
        let (here, afar) = (Slots::<u64>::new(4, None)?, Slots::<u64>::new(4, None)?);
        here.origin.set_domain(&life);
        let all = [EHOSTUNREACH, ENOTCONN, ECANCELED, EIO];
        for ended in [false, true] {
            if ended {
                life.end();
            }
            for error in all {
                let failure = Failure::unknown(error);
                let mut told = failure;
                if ended && matches!(error, EHOSTUNREACH | ENOTCONN) {
                    told.error = ENODEV;
                }
                for (slots, expected) in [(&here, told), (&afar, failure)] {
                    let (_, op) = slots.post(Kind::Send, Buffer::empty(), 1)?;
                    op.complete(Err(failure));
                    assert_eq!(slots.read().map(|done| done.result), Some(Err(expected)));
                }
            }
            let (_, op) = here.post(Kind::Send, Buffer::empty(), 1)?;
            op.complete(done(0));
            assert_eq!(here.read().map(|read| read.result), Some(done(0)));
        }
        Ok(())
    }

    #[test]
    fn close_amid_the_end_says_that_the_device_has_gone() -> Result {
        let bench = Bench::new()?;
        bench.ep.recv(Buffer::empty(), 1)?;
        bench.opened.domain.core().life().refuse();
        bench.ep.live().shutdown(ECANCELED);
        let gone = Err(Failure::not_executed(ENODEV));
        assert_eq!(bench.ended(), Some((Kind::Recv, 1, gone)));
        Ok(())
    }

    #[test]
    fn provider_that_unregisters_ends_its_domains() -> Result {
        let (desk, info) = (Desk::new()?, Desk::info()?);
        let registration = Registration::new(this_module::<crate::Core>(), Keeper(desk.clone()))?;
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        drop(registration);
        assert_eq!(
            (domain.unplug(), desk.domains.load(Relaxed)),
            (Err(ENODEV), 0)
        );
        Ok(())
    }
}
