// SPDX-License-Identifier: GPL-2.0

//! A provider for tests: it sends, and keeps each operation until the test takes it.

use super::registry::Registration;
use super::*;
use crate::av::{Address, AddressVector};
use crate::cq::CompletionQueue;
use crate::endpoint;
use crate::fabric::Fabric;
use crate::info::{AtomicAgent, EndpointType, Label, Limits, Namespace, Order};
use crate::op::{Chain, Failure, Status};
use kernel::module::this_module;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock_irq, SpinLockIrq};

/// What a test sees of the provider, and tells it.
#[pin_data]
pub(crate) struct Desk {
    #[pin]
    kept: SpinLockIrq<Chain>,
    /// The errno that posts are handed back with, or 0.
    pub(crate) reject: Atomic<i32>,
    /// Whether a shutdown leaves what is kept.
    pub(crate) stubborn: Atomic<bool>,
    /// How many shutdowns there were.
    pub(crate) shutdowns: Atomic<i32>,
    /// How many domains there are.
    pub(crate) domains: Atomic<i32>,
    /// What ends the domain that was opened last.
    #[pin]
    plug: SpinLockIrq<Option<Plug>>,
    /// Whether a domain could not end while it was opened last.
    pub(crate) held: Atomic<bool>,
}

impl Desk {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Desk {
                kept <- new_spinlock_irq!(Chain::new()),
                reject: Atomic::new(0),
                stubborn: Atomic::new(false),
                shutdowns: Atomic::new(0),
                domains: Atomic::new(0),
                plug <- new_spinlock_irq!(None),
                held: Atomic::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes all that is kept.
    pub(crate) fn take(&self) -> Chain {
        self.kept.lock().take()
    }

    /// What ends the domain that was opened last.
    pub(crate) fn plug(&self) -> Result<Plug> {
        self.plug.lock().clone().ok_or(ENOENT)
    }

    /// What the provider offers.
    pub(crate) fn info() -> Result<Info> {
        Ok(Info {
            provider: Label::new(Keeper::NAME)?,
            fabric: Label::new("fabric")?,
            domain: Label::new("domain")?,
            // Fences were not asked for.
            caps: caps::<Keeper>().without(Caps::FENCE),
            endpoint_type: EndpointType::Rdm,
            net: Namespace::initial(),
            order: Order::NONE,
            atomics: AtomicAgent::Cpus,
            limits: Limits {
                max_msg_size: 100,
                max_atomic_size: 40,
                tx_size: 4,
                rx_size: 4,
                tx_contexts: 4,
                rx_contexts: 4,
                inject_size: 16,
            },
            source: None,
            peer: None,
        })
    }
}

/// The provider, and its endpoints.
pub(crate) struct Keeper(pub(crate) Arc<Desk>);

#[vtable]
impl Provider for Keeper {
    const NAME: &'static str = "kunit";
    type Domain = Room;

    fn offers(&self, _net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        offer(&Info {
            caps: caps::<Keeper>(),
            ..Desk::info()?
        })
    }

    fn reaches(&self, _info: &Info, peer: &Name) -> bool {
        peer.as_bytes() == b"keeper"
    }

    fn open(&self, _info: &Info, plug: Plug) -> Result<Arc<Room>> {
        self.0.held.store(plug.holds_up_an_end(), Relaxed);
        let before = self.0.plug.lock().replace(plug);
        drop(before);
        self.0.domains.add(1, Relaxed);
        Ok(Arc::new(Room(self.0.clone()), GFP_KERNEL)?)
    }
}

/// Its domain.
pub(crate) struct Room(Arc<Desk>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.domains.fetch_sub(1, Relaxed);
    }
}

impl Domain for Room {
    type Endpoint = Keeper;

    fn endpoint(&self, _port: Arc<Port>, _info: &Info) -> Result<Arc<Keeper>> {
        Ok(Arc::new(Keeper(self.0.clone()), GFP_KERNEL)?)
    }
}

#[vtable]
impl Endpoint for Keeper {
    // It stores nothing: so it advertises none of what the CPUs can do.
    const STORED_BY_DEVICE: bool = true;

    fn name(&self) -> Name {
        Name::new(b"keeper").unwrap_or(Name::NONE)
    }

    fn send(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
        match self.0.reject.load(Relaxed) {
            0 => self.0.kept.lock().push(op),
            errno => {
                let error = kernel::error::Error::from_errno(errno);
                return Err(Rejected { op, error });
            }
        }
        Ok(())
    }

    fn shutdown(&self, error: Error) {
        self.0.shutdowns.add(1, Relaxed);
        if !self.0.stubborn.load(Relaxed) {
            let mut kept = self.0.take();
            while let Some(op) = kept.pop() {
                op.complete(Err(Failure::not_executed(error)));
            }
        }
    }
}

/// The provider, registered, and its domain, opened.
// In the order in which they go.
pub(crate) struct Opened {
    pub(crate) domain: domain::Domain,
    pub(crate) fabric: Fabric,
    pub(crate) desk: Arc<Desk>,
    pub(crate) registration: Registration,
}

impl Opened {
    pub(crate) fn new() -> Result<Self> {
        let (desk, info) = (Desk::new()?, Desk::info()?);
        let registration = Registration::new(this_module::<crate::Core>(), Keeper(desk.clone()))?;
        let fabric = Fabric::open(&info)?;
        Ok(Opened {
            domain: fabric.domain(&info)?,
            fabric,
            desk,
            registration,
        })
    }
}

/// An endpoint in a domain of its own.
// In the order in which they go.
pub(crate) struct Other {
    pub(crate) ep: endpoint::Endpoint<u64>,
    pub(crate) av: AddressVector,
    pub(crate) cq: CompletionQueue<u64>,
    pub(crate) domain: domain::Domain,
}

impl Other {
    pub(crate) fn new(opened: &Opened) -> Result<Self> {
        let info = Desk::info()?;
        let domain = opened.fabric.domain(&info)?;
        let cq = CompletionQueue::new(&domain, 8, None)?;
        let av = AddressVector::new(&domain)?;
        let builder = endpoint::Endpoint::builder(&domain, &info);
        Ok(Other {
            ep: builder.cq(&cq).av(&av).enable()?,
            av,
            cq,
            domain,
        })
    }
}

/// An endpoint of it.
// In the order in which they go.
pub(crate) struct Bench {
    pub(crate) ep: endpoint::Endpoint<u64>,
    pub(crate) av: AddressVector,
    pub(crate) cq: CompletionQueue<u64>,
    pub(crate) opened: Opened,
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        let (opened, info) = (Opened::new()?, Desk::info()?);
        let cq = CompletionQueue::new(&opened.domain, 8, None)?;
        let av = AddressVector::new(&opened.domain)?;
        let builder = endpoint::Endpoint::builder(&opened.domain, &info);
        Ok(Bench {
            ep: builder.cq(&cq).av(&av).enable()?,
            av,
            cq,
            opened,
        })
    }

    pub(crate) fn peer(&self) -> Result<Address> {
        self.av.insert(&self.ep.name())
    }

    pub(crate) fn ended(&self) -> Option<(Kind, u64, Status)> {
        self.cq
            .read()
            .map(|done| (done.kind, done.context, done.result))
    }
}
