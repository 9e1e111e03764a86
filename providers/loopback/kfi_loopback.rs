// SPDX-License-Identifier: GPL-2.0

//! The loopback provider: endpoints of one host, and memory for a wire.
//!
//! The reference for other providers: it checks as if the peer were far away, copies once, and
//! completes. Small operations are executed in the context of the post, large ones and commits by
//! the endpoint's worker; all of them, while faults are injected.
//!
//! | file | noun |
//! |---|---|
//! | `directory` | which endpoint has which name |
//! | `endpoint` | an endpoint |
//! | `worker` | what an endpoint does not execute in a post |

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::av::Name;
use kfabric::info::{AtomicAgent, EndpointType, Info, Label, Limits, Namespace, Order};
use kfabric::op::INJECT_SIZE;
use kfabric::provider::faults::Faults;
use kfabric::provider::registry::Registration;
use kfabric::provider::work::WorkQueue;
use kfabric::provider::{self, Plug, Port, Provider};

mod directory;
mod endpoint;
mod worker;

use directory::{Directory, Position};
use endpoint::Endpoint;

module! {
    type: Module,
    name: "kfi_loopback",
    authors: ["The kfabric developers"],
    description: "kfabric provider: loopback",
    license: "GPL",
    alias: ["kfi-provider-loopback"],
}

/// The most operations in flight on an endpoint, in each direction.
const SIZE: usize = 4096;

/// The longest operation: what the longest slice of memory may hold.
const MAX_MSG_SIZE: usize = 1 << 30;

/// The one fabric of this host.
struct Loopback {
    directory: Arc<Directory>,
    workers: Arc<WorkQueue>,
    faults: Arc<Faults>,
}

impl Loopback {
    fn new() -> Result<Self> {
        Ok(Loopback {
            directory: Arc::pin_init(Directory::new(), GFP_KERNEL)?,
            workers: Arc::new(WorkQueue::new(c"kfi_loopback")?, GFP_KERNEL)?,
            faults: Faults::new()?,
        })
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        // When the module goes, none of its text runs any more, whoever else has the queue.
        self.workers.drain();
    }
}

#[vtable]
impl Provider for Loopback {
    const NAME: &'static str = "loopback";
    type Domain = Domain;

    fn offers(&self, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        offer(&Info {
            provider: Label::new(Self::NAME)?,
            fabric: Label::new("loopback")?,
            domain: Label::new("lo")?,
            caps: provider::caps::<Endpoint>(),
            endpoint_type: EndpointType::Rdm,
            net: Namespace::initial(),
            order: Order::STRICT,
            atomics: AtomicAgent::Cpus,
            limits: Limits {
                max_msg_size: MAX_MSG_SIZE,
                tx_size: SIZE,
                rx_size: SIZE,
                inject_size: INJECT_SIZE,
            },
            source: None,
            peer: None,
        })
    }

    fn reaches(&self, _info: &Info, peer: &Name) -> bool {
        Position::parse(peer).is_some()
    }

    fn open(&self, _info: &Info, _plug: Plug) -> Result<Arc<Domain>> {
        let domain = Domain {
            directory: self.directory.clone(),
            workers: self.workers.clone(),
            faults: Faults::like(&self.faults)?,
        };
        Ok(Arc::new(domain, GFP_KERNEL)?)
    }

    fn faults(&self) -> Option<Arc<Faults>> {
        Some(self.faults.clone())
    }
}

/// A domain: the way to the others, and what goes wrong on it.
struct Domain {
    directory: Arc<Directory>,
    workers: Arc<WorkQueue>,
    faults: Arc<Faults>,
}

impl provider::Domain for Domain {
    type Endpoint = Endpoint;

    fn endpoint(&self, port: Arc<Port>, info: &Info) -> Result<Arc<Endpoint>> {
        Endpoint::new(self, port, info.order)
    }

    fn faults(&self) -> Option<Arc<Faults>> {
        Some(self.faults.clone())
    }
}

struct Module {
    _registration: Registration,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Module {
            _registration: Registration::new(module, Loopback::new()?)?,
        })
    }
}
