// SPDX-License-Identifier: GPL-2.0

//! A provider that has a net in memory, and what stands on it.

use super::super::bounds::Bounds;
use super::super::hub::Domain;
use super::super::link::{address_of, source_of};
use super::super::timeouts::Timeouts;
use super::super::Engine;
use super::net::Net;
use super::{until, Side, A};
use crate::av::{Address, AddressVector, Name};
use crate::cq::CompletionQueue;
use crate::endpoint::Endpoint;
use crate::fabric::Fabric;
use crate::info::{AtomicAgent, EndpointType, Info, Label, Limits, Namespace, Order};
use crate::op::INJECT_SIZE;
use crate::provider::registry::Registration;
use crate::provider::{caps, Plug, Provider};
use crate::sys::work::WorkQueue;
use kernel::module::this_module;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

/// No test but those of the bounds has so many.
const ROOMY: Bounds = Bounds {
    links: 256,
    sessions: 512,
    past: 1024,
};

/// The provider.
struct Wires {
    net: Arc<Net>,
    workers: Arc<WorkQueue>,
    timeouts: Timeouts,
    bounds: Bounds,
    order: Order,
    /// How many domains were opened.
    opened: Atomic<i32>,
}

fn info(order: Order) -> Result<Info> {
    Ok(Info {
        provider: Label::new(Wires::NAME)?,
        fabric: Label::new("fabric")?,
        domain: Label::new("domain")?,
        caps: caps::<Engine>(),
        endpoint_type: EndpointType::Rdm,
        net: Namespace::initial(),
        order,
        atomics: AtomicAgent::Cpus,
        limits: Limits {
            max_msg_size: 1 << 20,
            max_atomic_size: Engine::MAX_ATOMIC_SIZE,
            tx_size: 256,
            rx_size: 256,
            tx_contexts: 4,
            rx_contexts: 4,
            inject_size: INJECT_SIZE,
        },
        source: None,
        peer: None,
    })
}

#[vtable]
impl Provider for Wires {
    const NAME: &'static str = "kunit-links";
    type Domain = Domain;

    fn offers(&self, _net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        offer(&info(self.order)?)
    }

    fn reaches(&self, _info: &Info, peer: &Name) -> bool {
        address_of(peer).is_some()
    }

    fn source(&self, _info: &Info, source: &Name) -> Result<Name> {
        source_of(source).map(|_| *source).ok_or(EADDRNOTAVAIL)
    }

    fn open(&self, _info: &Info, _plug: Plug) -> Result<Arc<Domain>> {
        let host = self.net.host(A + self.opened.fetch_add(1, Relaxed) as u8)?;
        Domain::with(host, self.workers.clone(), self.timeouts, self.bounds)
    }
}

/// The provider, registered, and its fabric.
// In the order in which they go.
pub(crate) struct Bench {
    fabric: Fabric,
    registration: Registration,
    pub(crate) net: Arc<Net>,
    workers: Arc<WorkQueue>,
    pub(crate) info: Info,
}

impl Bench {
    pub(crate) fn new(timeouts: Timeouts) -> Result<Self> {
        Self::with_order(timeouts, Order::NONE)
    }

    pub(crate) fn with_order(timeouts: Timeouts, order: Order) -> Result<Self> {
        Self::with(timeouts, order, ROOMY)
    }

    /// Whose endpoints keep little of their peers.
    pub(crate) fn with_bounds(timeouts: Timeouts, bounds: Bounds) -> Result<Self> {
        Self::with(timeouts, Order::NONE, bounds)
    }

    fn with(timeouts: Timeouts, order: Order, bounds: Bounds) -> Result<Self> {
        let net = Net::new()?;
        let workers = Arc::new(WorkQueue::unlisted(c"kfi_kunit_links")?, GFP_KERNEL)?;
        let wires = Wires {
            net: net.clone(),
            workers: workers.clone(),
            timeouts,
            bounds,
            order,
            opened: Atomic::new(0),
        };
        let info = info(order)?;
        let registration = Registration::new(this_module::<crate::Core>(), wires)?;
        Ok(Bench {
            fabric: Fabric::open(&info)?,
            registration,
            net,
            workers,
            info,
        })
    }

    /// An endpoint in the next domain: its address is one more than that of the one before.
    pub(crate) fn side(&self) -> Result<Side> {
        self.side_of(&self.info)
    }

    /// As [`Bench::side`], of an info that says more.
    pub(crate) fn side_of(&self, info: &Info) -> Result<Side> {
        let domain = self.fabric.domain(info)?;
        let cq = CompletionQueue::new(&domain, 512, None)?;
        let av = AddressVector::new(&domain)?;
        let builder = Endpoint::builder(&domain, info);
        Ok(Side {
            ep: builder.cq(&cq).av(&av).enable()?,
            av,
            cq,
            domain,
        })
    }

    /// Two of them, and how they know each other.
    pub(crate) fn pair(&self) -> Result<(Side, Side, Address, Address)> {
        let (a, b) = (self.side()?, self.side()?);
        let to_b = a.av.insert(&b.ep.name())?;
        let to_a = b.av.insert(&a.ep.name())?;
        Ok((a, b, to_b, to_a))
    }

    /// Ends it; nothing of it may be left: no host, so no domain and no peer, and no link.
    pub(crate) fn close(self) -> Result {
        let Bench {
            fabric,
            registration,
            net,
            workers,
            ..
        } = self;
        drop(fabric);
        drop(registration);
        workers.drain();
        until(|| net.alive() == 0)
    }
}
