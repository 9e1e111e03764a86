// SPDX-License-Identifier: GPL-2.0

//! A provider from outside the tree, as small as one can be: messages, and nothing else.
//!
//! `scripts/test.d/45-lifecycle` builds it as it should be, for another provider ABI, against another
//! core, and one that never answers: it makes the sources of the others, and `Kbuild` beside this
//! file names them all.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kernel::sync::rcu::{self, Guard};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};
use kfabric::av::Name;
use kfabric::info::{AtomicAgent, EndpointType, Info, Label, Limits, Namespace, Order};
use kfabric::op::{Failure, OpId, Operation, INJECT_SIZE};
use kfabric::provider::registry::{self, Registration};
use kfabric::provider::{self, Cancelled, Plug, Port, Provider, Rejected};

module! {
    type: Module,
    name: "kfi_outside",
    authors: ["The kfabric developers"],
    description: "kfabric provider from outside the tree",
    license: "GPL",
}

/// The most endpoints at a time.
const ENDPOINTS: usize = 64;

type Endpoints = [Option<Arc<Endpoint>>; ENDPOINTS];

/// All endpoints: each is found by its number.
#[pin_data]
struct Shared {
    #[pin]
    endpoints: SpinLockIrq<Endpoints>,
}

impl Shared {
    fn find(&self, name: &Name) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.lock();
        let found = endpoints.iter().flatten();
        found.into_iter().find(|it| it.name == *name).cloned()
    }

    fn at(&self, place: usize) -> Option<Arc<Endpoint>> {
        self.endpoints.lock().get(place).cloned().flatten()
    }
}

struct Outside(Arc<Shared>);

#[vtable]
impl Provider for Outside {
    const NAME: &'static str = "outside";
    type Domain = Domain;

    fn offers(&self, _net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        offer(&Info {
            provider: Label::new(Self::NAME)?,
            fabric: Label::new("outside")?,
            domain: Label::new("out")?,
            caps: provider::caps::<Endpoint>(),
            endpoint_type: EndpointType::Rdm,
            net: Namespace::initial(),
            order: Order::NONE,
            atomics: AtomicAgent::Cpus,
            limits: Limits {
                max_msg_size: 1 << 30,
                max_atomic_size: 0,
                tx_size: 4096,
                rx_size: 4096,
                tx_contexts: 1,
                rx_contexts: 1,
                inject_size: INJECT_SIZE,
            },
            source: None,
            peer: None,
        })
    }

    fn reaches(&self, _info: &Info, peer: &Name) -> bool {
        peer.as_bytes().len() == 8
    }

    fn open(&self, _info: &Info, _plug: Plug) -> Result<Arc<Domain>> {
        Ok(Arc::new(Domain(self.0.clone()), GFP_KERNEL)?)
    }
}

struct Domain(Arc<Shared>);

impl provider::Domain for Domain {
    type Endpoint = Endpoint;

    fn endpoint(&self, port: Arc<Port>, _info: &Info) -> Result<Arc<Endpoint>> {
        let endpoint = Endpoint {
            shared: self.0.clone(),
            name: Name::new(&port.id().to_le_bytes())?,
            port,
        };
        let endpoint = Arc::new(endpoint, GFP_KERNEL)?;
        let mut endpoints = self.0.endpoints.lock();
        let free = endpoints.iter_mut().find(|place| place.is_none());
        *free.ok_or(ENOSPC)? = Some(endpoint.clone());
        Ok(endpoint)
    }
}

struct Endpoint {
    shared: Arc<Shared>,
    name: Name,
    port: Arc<Port>,
}

impl Endpoint {
    /// All endpoints that can be reached.
    fn peers(&self) -> impl Iterator<Item = Arc<Endpoint>> + '_ {
        (0..ENDPOINTS).filter_map(|place| self.shared.at(place))
    }
}

#[vtable]
impl provider::Endpoint for Endpoint {
    fn name(&self) -> Name {
        self.name
    }

    fn send(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
        let Some(peer) = self.shared.find(op.peer()) else {
            op.complete(Err(Failure::not_executed(EHOSTUNREACH)));
            return Ok(());
        };
        if let Some(pair) = peer.port.offer(op) {
            provider::Endpoint::matched(&*peer, pair);
        }
        Ok(())
    }

    fn cancel(&self, id: OpId) -> Cancelled {
        self.peers()
            .find_map(|peer| peer.port.recall(|op| op.id() == id))
            .into()
    }

    fn shutdown(&self, error: Error) {
        let mut left = None;
        let mut endpoints = self.shared.endpoints.lock();
        for place in endpoints.iter_mut() {
            if place.as_ref().is_some_and(|it| it.name == self.name) {
                left = place.take();
            }
        }
        drop(endpoints);
        // Peers that found it meanwhile are through with it: what they post runs under RCU.
        rcu::synchronize_rcu();
        drop(left);
        for peer in self.peers() {
            let mut waiting = peer.port.withdraw(|op| op.endpoint() == self.port.id());
            while let Some(op) = waiting.pop() {
                op.give_up(error);
            }
        }
    }
}

/// What an honest provider says of itself is what it was built against: `Registration::new`.
fn register(module: &'static ThisModule, outside: Outside) -> Result<Registration> {
    if cfg!(kfi_wrong_abi) {
        let (abi, identity) = (registry::ABI + 1, registry::IDENTITY);
        let outside = Arc::new(outside, GFP_KERNEL)?;
        registry::register(Outside::NAME, abi, identity, module, outside)
    } else if cfg!(kfi_wrong_identity) {
        let outside = Arc::new(outside, GFP_KERNEL)?;
        registry::register(
            Outside::NAME,
            registry::ABI,
            "0123456789abcdef",
            module,
            outside,
        )
    } else {
        Registration::new(module, outside)
    }
}

struct Module {
    _registration: Registration,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let shared = Arc::pin_init(
            pin_init!(Shared {
                endpoints <- new_spinlock_irq!([const { None }; ENDPOINTS], "kfi_outside"),
            }),
            GFP_KERNEL,
        )?;
        Ok(Module {
            _registration: register(module, Outside(shared))?,
        })
    }
}
