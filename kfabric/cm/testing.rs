// SPDX-License-Identifier: GPL-2.0

//! A provider for tests of connections: what it is to bring to a peer, the test reads, and what the
//! peer says, the test has it bring.

use super::message::{Message, Party, Says};
use super::PrivateData;
use crate::av::Name;
use crate::cq::CompletionQueue;
use crate::domain;
use crate::endpoint;
use crate::eq::EventQueue;
use crate::fabric::Fabric;
use crate::info::{AtomicAgent, Caps, EndpointType, Info, Label, Limits, Namespace, Order};
use crate::op::{Chain, Failure, Operation};
use crate::provider::registry::Registration;
use crate::provider::{caps, Domain, Endpoint, Plug, Port, Provider, Rejected};
use kernel::module::this_module;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::rcu::Guard;
use kernel::sync::{new_spinlock_irq, rcu, Arc, SpinLockIrq};

/// How many messages and ports a wire has room for.
const ROOM: usize = 8;

/// The number of the peer's endpoint.
pub(crate) const PEER: u64 = 3;

/// The name of the peer.
pub(crate) fn there() -> Name {
    Name::new(b"there").unwrap_or(Name::NONE)
}

/// A message of the peer.
pub(super) fn said(says: Says, cookie: u64) -> Message {
    Message {
        from: Party {
            name: there(),
            number: PEER,
        },
        says,
        cookie,
        data: PrivateData::NONE,
    }
}

/// The peer's request, with that random number.
pub(crate) fn request(cookie: u64) -> Message {
    said(Says::Request, cookie)
}

/// The peer's consent to a request.
pub(crate) fn accept(request: &Message) -> Message {
    said(Says::Accept, request.cookie)
}

/// What a test sees of the provider, and tells it.
#[pin_data]
pub(crate) struct Wire {
    /// Messages that were to be brought somewhere, the oldest first.
    #[pin]
    told: SpinLockIrq<KVec<(Name, Message)>>,
    #[pin]
    ports: SpinLockIrq<KVec<Arc<Port>>>,
    #[pin]
    kept: SpinLockIrq<Chain>,
    /// The errno that telling ends with, or 0.
    pub(crate) error: Atomic<i32>,
}

impl Wire {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let told = KVec::with_capacity(ROOM, GFP_KERNEL)?;
        let ports = KVec::with_capacity(ROOM, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Wire {
                told <- new_spinlock_irq!(told),
                ports <- new_spinlock_irq!(ports),
                kept <- new_spinlock_irq!(Chain::new()),
                error: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// The oldest message that nobody has looked at, and whom it was for.
    pub(crate) fn next(&self) -> Option<(Name, Message)> {
        self.told.lock().remove(0).ok()
    }

    /// The port of the endpoint of that number.
    pub(crate) fn port(&self, id: u64) -> Option<Arc<Port>> {
        let ports = self.ports.lock();
        ports.iter().find(|port| port.id() == id).cloned()
    }

    /// Brings a message to the endpoint of that number.
    pub(crate) fn bring(&self, id: u64, message: &Message) -> Result {
        let port = self.port(id).ok_or(EHOSTUNREACH)?;
        let posts = rcu::read_lock();
        let heard = port.hear(message);
        drop(posts);
        heard
    }
}

/// The provider, its domain and its endpoints, the last with their numbers.
pub(crate) struct Crier(pub(crate) Arc<Wire>, pub(crate) u64);

#[vtable]
impl Provider for Crier {
    const NAME: &'static str = "kunit-cm";
    type Domain = Crier;

    fn offers(&self, _net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        offer(&info(EndpointType::Rdm)?)
    }

    fn reaches(&self, _info: &Info, peer: &Name) -> bool {
        *peer == there()
    }

    fn open(&self, _info: &Info, _plug: Plug) -> Result<Arc<Crier>> {
        Ok(Arc::new(Crier(self.0.clone(), 0), GFP_KERNEL)?)
    }
}

impl Domain for Crier {
    type Endpoint = Crier;

    fn endpoint(&self, port: Arc<Port>, _info: &Info) -> Result<Arc<Crier>> {
        let crier = Arc::new(Crier(self.0.clone(), port.id()), GFP_KERNEL)?;
        let added = self.0.ports.lock().push_within_capacity(port);
        added.map_err(|_| ENOSPC)?;
        Ok(crier)
    }
}

#[vtable]
impl Endpoint for Crier {
    // It stores nothing: so it advertises none of what the CPUs can do.
    const STORED_BY_DEVICE: bool = true;

    fn name(&self) -> Name {
        Name::new(b"here").unwrap_or(Name::NONE)
    }

    fn send(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
        self.0.kept.lock().push(op);
        Ok(())
    }

    fn tell(&self, to: &Name, message: &Message) -> Result {
        let mut told = self.0.told.lock();
        told.push_within_capacity((*to, *message))
            .map_err(|_| ENOSPC)?;
        match self.0.error.load(Relaxed) {
            0 => Ok(()),
            errno => Err(kernel::error::Error::from_errno(errno)),
        }
    }

    fn shutdown(&self, error: Error) {
        let mut ports = self.0.ports.lock();
        let at = ports.iter().position(|port| port.id() == self.1);
        let port = at.map(|at| ports.remove(at));
        drop(ports);
        drop(port);
        let mut kept = self.0.kept.lock().take();
        while let Some(op) = kept.pop() {
            op.complete(Err(Failure::not_executed(error)));
        }
    }
}

/// What the provider offers, for endpoints of that type.
pub(crate) fn info(endpoint_type: EndpointType) -> Result<Info> {
    Ok(Info {
        provider: Label::new(Crier::NAME)?,
        fabric: Label::new("fabric")?,
        domain: Label::new("domain")?,
        // Fences were not asked for, and there is one receive context.
        caps: caps::<Crier>().without(Caps::FENCE.union(Caps::NAMED_RX_CTX)),
        endpoint_type,
        net: Namespace::initial(),
        order: Order::NONE,
        atomics: AtomicAgent::Cpus,
        limits: Limits {
            max_msg_size: 100,
            max_atomic_size: 40,
            tx_size: 2,
            rx_size: 2,
            tx_contexts: 1,
            rx_contexts: 1,
            inject_size: 16,
        },
        source: None,
        peer: None,
    })
}

/// The provider, registered, and an endpoint of it that is to be connected.
// In the order in which they go.
pub(crate) struct Bench {
    pub(crate) ep: endpoint::Endpoint<u64>,
    pub(crate) eq: EventQueue,
    pub(crate) cq: CompletionQueue<u64>,
    pub(crate) domain: domain::Domain,
    _fabric: Fabric,
    pub(crate) wire: Arc<Wire>,
    _registration: Registration,
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        let (wire, info) = (Wire::new()?, info(EndpointType::Msg)?);
        let crier = Crier(wire.clone(), 0);
        let registration = Registration::new(this_module::<crate::Core>(), crier)?;
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let cq = CompletionQueue::new(&domain, 8, None)?;
        let eq = EventQueue::new(&domain, 8, None)?;
        let builder = endpoint::Endpoint::builder(&domain, &info);
        Ok(Bench {
            ep: builder.cq(&cq).eq(&eq).enable()?,
            eq,
            cq,
            domain,
            _fabric: fabric,
            wire,
            _registration: registration,
        })
    }
}
