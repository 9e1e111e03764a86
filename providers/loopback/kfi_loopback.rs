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
//! | `held` | what completes after others, while faults are injected |
//! | `worker` | what an endpoint does not execute in a post |

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::av::Name;
use kfabric::info::{
    AtomicAgent, Caps, EndpointType, Info, Label, Limits, Namespace, Order, MAX_CONTEXTS,
};
use kfabric::op::INJECT_SIZE;
use kfabric::provider::faults::Faults;
use kfabric::provider::registry::Registration;
use kfabric::provider::work::WorkQueue;
use kfabric::provider::{self, Plug, Port, Provider};

mod directory;
mod endpoint;
mod held;
mod worker;

use directory::{Claim, Directory, Position};
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

/// What this host is called, where a place is text.
const NODE: &str = "lo";

/// The number of no service: an endpoint is anywhere.
const ANY: u16 = 0;

/// The longest operation: what the longest slice of memory may hold.
const MAX_MSG_SIZE: usize = 1 << 30;

/// The longest vector of an atomic, which a worker does in one go.
const MAX_ATOMIC_SIZE: usize = 64 << 10;

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

    fn offers(&self, _net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        offer(&Info {
            provider: Label::new(Self::NAME)?,
            fabric: Label::new("loopback")?,
            domain: Label::new("lo")?,
            caps: provider::caps::<Endpoint>() | Caps::SERVICE,
            endpoint_type: EndpointType::Rdm,
            net: Namespace::initial(),
            order: Order::STRICT,
            atomics: AtomicAgent::Cpus,
            limits: Limits {
                max_msg_size: MAX_MSG_SIZE,
                max_atomic_size: MAX_ATOMIC_SIZE,
                tx_size: SIZE,
                rx_size: SIZE,
                tx_contexts: MAX_CONTEXTS,
                rx_contexts: MAX_CONTEXTS,
                inject_size: INJECT_SIZE,
            },
            source: Some(Position::of_service(ANY).name()),
            peer: None,
        })
    }

    fn reaches(&self, _info: &Info, peer: &Name) -> bool {
        Position::parse(peer).is_some_and(|position| position.service() != Some(ANY))
    }

    fn resolve(&self, _info: &Info, node: Option<&str>, service: Option<&str>) -> Result<Name> {
        if node.is_some_and(|node| node != NODE) {
            return Err(EINVAL);
        }
        let number = service.map_or(Ok(ANY), provider::text::service)?;
        Ok(Position::of_service(number).name())
    }

    fn source(&self, _info: &Info, source: &Name) -> Result<Name> {
        // An endpoint has its own name from the directory alone.
        let service = Position::parse(source).and_then(Position::service);
        service.map(|_| *source).ok_or(EADDRNOTAVAIL)
    }

    fn open(&self, info: &Info, _plug: Plug) -> Result<Arc<Domain>> {
        let service = info.source.as_ref().and_then(service_of);
        let claim = service.map(|number| self.directory.claim(number));
        let domain = Domain {
            _claim: claim.transpose()?,
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
    /// If its endpoint is at a service.
    _claim: Option<Claim>,
    directory: Arc<Directory>,
    workers: Arc<WorkQueue>,
    faults: Arc<Faults>,
}

impl provider::Domain for Domain {
    type Endpoint = Endpoint;

    fn endpoint(&self, port: Arc<Port>, info: &Info) -> Result<Arc<Endpoint>> {
        Endpoint::new(self, port, info)
    }

    fn faults(&self) -> Option<Arc<Faults>> {
        Some(self.faults.clone())
    }
}

/// The service that a source names.
fn service_of(source: &Name) -> Option<u16> {
    let service = Position::parse(source).and_then(Position::service);
    service.filter(|number| *number != ANY)
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
