// SPDX-License-Identifier: GPL-2.0

//! The tcp provider: links over the kernel's TCP sockets.
//!
//! | file | noun |
//! |---|---|
//! | `address` | where a peer listens, and the bytes that say so |
//! | `door` | the kernel's sockets, by door.c |
//! | `links` | the links of a domain, and one of them |
//! | `text` | a node and a service, in words |
//!
//! Parameters of the module: `address`, where it listens and peers reach this host, and `port`, which
//! door.c has; `crc`, whether frames carry checksums.

#![deny(unsafe_code, unused_must_use)]

use core::net::SocketAddr;
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::av::Name;
use kfabric::info::{
    AtomicAgent, Caps, EndpointType, Info, Label, Limits, Namespace, Order, MAX_CONTEXTS,
};
use kfabric::op::INJECT_SIZE;
use kfabric::provider::registry::Registration;
use kfabric::provider::work::WorkQueue;
use kfabric::provider::{self, link, Engine, LinkDomain, Plug, Provider};

mod address;
#[allow(unsafe_code)]
mod door;
mod links;
mod text;

use address::{Address, Spot};
use door::Net;
use links::Tcp;

module! {
    type: Module,
    name: "kfi_tcp",
    authors: ["The kfabric developers"],
    description: "kfabric provider: tcp",
    license: "GPL",
    alias: ["kfi-provider-tcp"],
    params: {
        crc: bool {
            default: false,
            description: "Frames carry checksums (CRC32C), where the peer's do, too",
        },
    },
}

/// The most operations in flight on an endpoint, in each direction.
const SIZE: usize = 4096;

/// The sockets of this host.
struct Sockets {
    workers: Arc<WorkQueue>,
    at: SocketAddr,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // When the module goes, none of its text runs any more, whoever else has the queue.
        self.workers.drain();
    }
}

impl Sockets {
    /// Where domains of an info listen.
    fn spot(&self, info: &Info) -> SocketAddr {
        let source = info.source.as_ref().and_then(link::source_of);
        let spot = source.and_then(|(address, _)| Spot::parse(address).ok());
        spot.map_or(self.at, |spot| spot.addr())
    }
}

#[vtable]
impl Provider for Sockets {
    const NAME: &'static str = "tcp";
    type Domain = LinkDomain;

    fn offers(&self, net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        offer(&Info {
            provider: Label::new(Self::NAME)?,
            fabric: Label::new("tcp")?,
            domain: Label::new("tcp")?,
            caps: provider::caps::<Engine>() | Caps::SERVICE,
            endpoint_type: EndpointType::Rdm,
            net,
            order: Order::STRICT,
            atomics: AtomicAgent::Cpus,
            limits: Limits {
                max_msg_size: Engine::MAX_MSG_SIZE,
                max_atomic_size: Engine::MAX_ATOMIC_SIZE,
                tx_size: SIZE,
                rx_size: SIZE,
                tx_contexts: MAX_CONTEXTS,
                rx_contexts: MAX_CONTEXTS,
                inject_size: INJECT_SIZE,
            },
            source: Spot::new(self.at).and_then(anywhere_at).ok(),
            peer: None,
        })
    }

    fn reaches(&self, info: &Info, peer: &Name) -> bool {
        let address = link::address_of(peer).and_then(|bytes| Address::parse(bytes).ok());
        address.is_some_and(|address| address.is_like(&self.spot(info)))
    }

    fn resolve(&self, info: &Info, node: Option<&str>, service: Option<&str>) -> Result<Name> {
        let port = service.map_or(Ok(0), provider::text::service)?;
        let mut addr = match node {
            Some(node) => {
                let net = Net::find(info.net)?;
                text::node(node, |name| net.interface(name))?
            }
            None => self.at,
        };
        addr.set_port(port);
        let spot = Spot::new(addr)?;
        match port {
            0 => anywhere_at(spot),
            _ => link::service_at(spot.emit().as_slice()),
        }
    }

    fn source(&self, info: &Info, source: &Name) -> Result<Name> {
        let (address, is_service) = link::source_of(source).ok_or(EADDRNOTAVAIL)?;
        let spot = Spot::parse(address).map_err(|_| EADDRNOTAVAIL)?;
        let spot = spot.or(self.at)?;
        if is_service && spot.addr().port() == 0 {
            return Err(EADDRNOTAVAIL);
        }
        let net = Net::find(info.net).map_err(|_| EADDRNOTAVAIL)?;
        net.has(spot.addr()).map_err(|error| match error {
            ENOMEM => ENOMEM,
            _ => EADDRNOTAVAIL,
        })?;
        match is_service {
            true => link::service_at(spot.emit().as_slice()),
            false => anywhere_at(spot),
        }
    }

    fn open(&self, info: &Info, _plug: Plug) -> Result<Arc<LinkDomain>> {
        let links = Tcp::open(info.net, self.spot(info), module_parameters::crc.value())?;
        pr_info!("a domain listens at {}\n", links.local());
        LinkDomain::new(Arc::new(links, GFP_KERNEL)?, self.workers.clone())
    }
}

/// The place of domains that listen at `spot`.
fn anywhere_at(spot: Spot) -> Result<Name> {
    link::anywhere_at(spot.emit().as_slice())
}

struct Module {
    _registration: Registration,
    /// After all sockets.
    _lingering: door::Lingering,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let lingering = door::Lingering::start()?;
        let sockets = Sockets {
            workers: Arc::new(WorkQueue::new(c"kfi_tcp")?, GFP_KERNEL)?,
            at: door::configured()?,
        };
        Ok(Module {
            _registration: Registration::new(module, sockets)?,
            _lingering: lingering,
        })
    }
}
