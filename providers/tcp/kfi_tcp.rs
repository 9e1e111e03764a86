// SPDX-License-Identifier: GPL-2.0

//! The tcp provider: links over the kernel's TCP sockets.
//!
//! | file | noun |
//! |---|---|
//! | `address` | where a peer listens, and the bytes that say so |
//! | `door` | the kernel's sockets, by door.c |
//! | `links` | the links of a domain, and one of them |
//!
//! Parameters of the module: `address`, where it listens and peers reach this host, and `port`.

#![deny(unsafe_code, unused_must_use)]

use core::net::SocketAddr;
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::av::Name;
use kfabric::info::{AtomicAgent, EndpointType, Info, Label, Limits, Namespace, Order};
use kfabric::op::INJECT_SIZE;
use kfabric::provider::registry::Registration;
use kfabric::provider::work::WorkQueue;
use kfabric::provider::{self, link, Engine, LinkDomain, Plug, Provider};

mod address;
#[allow(unsafe_code)]
mod door;
mod links;

use address::Address;
use links::Tcp;

module! {
    type: Module,
    name: "kfi_tcp",
    authors: ["The kfabric developers"],
    description: "kfabric provider: tcp",
    license: "GPL",
    alias: ["kfi-provider-tcp"],
}

/// The most operations in flight on an endpoint, in each direction.
const SIZE: usize = 4096;

/// The longest operation: what the longest slice of memory may hold.
const MAX_MSG_SIZE: usize = 1 << 30;

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

impl Provider for Sockets {
    const NAME: &'static str = "tcp";
    type Domain = LinkDomain;

    fn offers(&self, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        offer(&Info {
            provider: Label::new(Self::NAME)?,
            fabric: Label::new("tcp")?,
            domain: Label::new("tcp")?,
            caps: provider::caps::<Engine>(),
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
        })
    }

    fn reaches(&self, _info: &Info, peer: &Name) -> bool {
        link::address_of(peer).is_some_and(|address| Address::parse(address).is_ok())
    }

    fn open(&self, info: &Info, _plug: Plug) -> Result<Arc<LinkDomain>> {
        let links = Tcp::open(info.net, self.at)?;
        pr_info!("a domain listens at {}\n", links.local());
        LinkDomain::new(Arc::new(links, GFP_KERNEL)?, self.workers.clone())
    }
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
