// SPDX-License-Identifier: GPL-2.0

//! Engines over links in memory, for tests.
//!
//! | file | noun |
//! |---|---|
//! | `net` | hosts, and the links between them |
//! | `script` | a peer that a test plays itself |
//! | `wire` | a link, and what a test does to it |

use super::hub::{Domain as LinkDomain, Hub};
use super::link::address_of;
use super::timeouts::Timeouts;
use super::Engine;
use crate::av::{Address, AddressVector, Name};
use crate::cq::{Completion, CompletionQueue};
use crate::domain;
use crate::endpoint::Endpoint;
use crate::fabric::Fabric;
use crate::info::{AtomicAgent, EndpointType, Info, Label, Limits, Namespace, Order};
use crate::memory::Memory;
use crate::mr::{Access, MemoryRegion, RemoteRegion};
use crate::op::{Buffer, Kind, Status, INJECT_SIZE};
use crate::provider::registry::Registration;
use crate::provider::{caps, Provider};
use crate::sys::work::WorkQueue;
use kernel::module::this_module;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::time::delay::fsleep;
use kernel::time::{Delta, Instant, Monotonic};

pub(crate) mod net;
pub(crate) mod script;
pub(crate) mod wire;

pub(crate) use net::{Net, Refusal};
pub(crate) use wire::{Act, Fault, Place};

const MS: u64 = 1_000_000;

/// How long a test waits for what is to come, in milliseconds.
pub(crate) const PATIENCE_MS: u32 = 20_000;

/// The addresses of the first two domains that are opened.
pub(crate) const A: u8 = b'a';
pub(crate) const B: u8 = b'b';

/// Links are made anew soon; all else as ever.
pub(crate) const SOON: Timeouts = Timeouts {
    backoff: (MS, 20 * MS),
    ..Timeouts::DEFAULT
};

/// Nobody is waited for long.
pub(crate) const SHORT: Timeouts = Timeouts {
    ping: 200 * MS,
    dead: 600 * MS,
    dial: 300 * MS,
    resume: 500 * MS,
    backoff: (MS, 20 * MS),
    stranger: 200 * MS,
    settle: 200 * MS,
};

/// Waits, with a bound, until something is so.
pub(crate) fn until(mut is: impl FnMut() -> bool) -> Result {
    let begin = Instant::<Monotonic>::now();
    while !is() {
        if begin.elapsed() > Delta::from_millis(PATIENCE_MS.into()) {
            return Err(ETIMEDOUT);
        }
        fsleep(Delta::from_millis(1));
    }
    Ok(())
}

/// Lets some milliseconds go by.
pub(crate) fn pause(millis: i64) {
    fsleep(Delta::from_millis(millis));
}

/// Fails, and says where, unless something is so.
#[track_caller]
pub(crate) fn check(is: bool) -> Result {
    if is {
        return Ok(());
    }
    let at = core::panic::Location::caller();
    pr_err!("check failed: {}:{}\n", at.file(), at.line());
    Err(EINVAL)
}

/// A provider that has a net in memory.
struct Wires {
    net: Arc<Net>,
    workers: Arc<WorkQueue>,
    timeouts: Timeouts,
    order: Order,
    hubs: Arc<Hubs>,
}

/// The hubs of its domains, in the order of their addresses.
#[pin_data]
struct Hubs {
    #[pin]
    hubs: Mutex<KVec<Arc<Hub>>>,
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
            tx_size: 256,
            rx_size: 256,
            inject_size: INJECT_SIZE,
        },
    })
}

impl Provider for Wires {
    const NAME: &'static str = "kunit-links";
    type Domain = LinkDomain;

    fn offers(&self, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        offer(&info(self.order)?)
    }

    fn reaches(&self, _info: &Info, peer: &Name) -> bool {
        address_of(peer).is_some()
    }

    fn open(&self, _info: &Info) -> Result<Arc<LinkDomain>> {
        let mut hubs = self.hubs.hubs.lock();
        let host = self.net.host(A + hubs.len() as u8)?;
        let domain = LinkDomain::with_timeouts(host, self.workers.clone(), self.timeouts)?;
        hubs.push(domain.hub().clone(), GFP_KERNEL)?;
        Ok(domain)
    }
}

/// An endpoint in a domain of its own.
// In the order in which they go.
pub(crate) struct Side {
    pub(crate) ep: Endpoint<u64>,
    pub(crate) av: AddressVector,
    pub(crate) cq: CompletionQueue<u64>,
    pub(crate) domain: domain::Domain,
    pub(crate) hub: Arc<Hub>,
}

/// How an operation ended: what it was, its context, and how.
pub(crate) type Ended = (Kind, u64, Status);

impl Side {
    /// The next completion.
    pub(crate) fn next(&self) -> Result<Completion<u64>> {
        self.cq.read_wait(PATIENCE_MS)
    }

    /// How the next so many operations ended, in the order of their contexts.
    pub(crate) fn gather(&self, count: usize) -> Result<KVVec<Ended>> {
        let mut all = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            let done = self.next()?;
            let ended = (done.kind, done.context, done.result);
            // Sorted in, since objtool does not understand the sorting of core.
            let at = all.partition_point(|(_, context, _): &Ended| *context <= done.context);
            all.insert_within_capacity(at, ended).map_err(|_| ENOSPC)?;
        }
        Ok(all)
    }

    /// The next completion is that one, and went well.
    #[track_caller]
    pub(crate) fn went_well(&self, kind: Kind, context: u64) -> Result<Buffer> {
        let done = self.next()?;
        let well = done.kind == kind && done.context == context && done.result.is_ok();
        if !well {
            pr_err!("{:?} {} {:?}\n", done.kind, done.context, done.result);
        }
        check(well)?;
        Ok(done.buffer)
    }

    /// The next completion is that one, and failed with that error.
    #[track_caller]
    pub(crate) fn failed(&self, kind: Kind, context: u64, error: Error) -> Result {
        let done = self.next()?;
        let so = done.kind == kind
            && done.context == context
            && matches!(done.result, Err(failure) if failure.error == error);
        if !so {
            pr_err!("{:?} {} {:?}\n", done.kind, done.context, done.result);
        }
        check(so)
    }

    /// Registers memory of value 0, and says how peers see it.
    pub(crate) fn region(&self, len: usize) -> Result<(MemoryRegion, RemoteRegion)> {
        let region = self.domain.register(Memory::zeroed(len)?, Access::ALL);
        let region = region.map_err(|(error, _)| error)?;
        let remote = RemoteRegion::parse(&region.descriptor()?)?;
        Ok((region, remote))
    }

    /// How often peers have broken a rule.
    pub(crate) fn violations(&self) -> u64 {
        self.hub.violations()
    }
}

/// Memory whose bytes differ from place to place and from seed to seed.
pub(crate) fn pattern(len: usize, seed: u64) -> Result<Memory> {
    let mut vec = KVVec::with_capacity(len, GFP_KERNEL)?;
    for at in 0..len {
        vec.push(byte(at, seed), GFP_KERNEL)?;
    }
    Ok(Memory::from_vec(vec))
}

fn byte(at: usize, seed: u64) -> u8 {
    (at as u64)
        .wrapping_mul(31)
        .wrapping_add(seed.wrapping_mul(97)) as u8
}

/// Whether those bytes are what `pattern` makes.
pub(crate) fn is_pattern(bytes: &[u8], seed: u64) -> bool {
    let mut all = bytes.iter().enumerate();
    all.all(|(at, found)| *found == byte(at, seed))
}

/// A net, and what stands on it.
// In the order in which they go.
pub(crate) struct Bench {
    fabric: Fabric,
    registration: Registration,
    hubs: Arc<Hubs>,
    pub(crate) net: Arc<Net>,
    workers: Arc<WorkQueue>,
    info: Info,
}

impl Bench {
    pub(crate) fn new(timeouts: Timeouts) -> Result<Self> {
        Self::with_order(timeouts, Order::NONE)
    }

    pub(crate) fn with_order(timeouts: Timeouts, order: Order) -> Result<Self> {
        let net = Net::new()?;
        let workers = Arc::new(WorkQueue::new(c"kfi_kunit_links")?, GFP_KERNEL)?;
        let hubs = pin_init!(Hubs {
            hubs <- new_mutex!(KVec::new(), "kfi_kunit_hubs"),
        });
        let hubs = Arc::pin_init(hubs, GFP_KERNEL)?;
        let wires = Wires {
            net: net.clone(),
            workers: workers.clone(),
            timeouts,
            order,
            hubs: hubs.clone(),
        };
        let info = info(order)?;
        let registration = Registration::new(this_module::<crate::Core>(), wires)?;
        Ok(Bench {
            fabric: Fabric::open(&info)?,
            registration,
            hubs,
            net,
            workers,
            info,
        })
    }

    /// An endpoint in the next domain: its address is one more than that of the one before.
    pub(crate) fn side(&self) -> Result<Side> {
        let domain = self.fabric.domain(&self.info)?;
        let hubs = self.hubs.hubs.lock();
        let hub = hubs.last().ok_or(ENODATA)?.clone();
        drop(hubs);
        let cq = CompletionQueue::new(&domain, 512, None)?;
        let av = AddressVector::new(&domain)?;
        let builder = Endpoint::builder(&domain, &self.info);
        Ok(Side {
            ep: builder.cq(&cq).av(&av).enable()?,
            av,
            cq,
            domain,
            hub,
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
            hubs,
            net,
            workers,
            ..
        } = self;
        drop(fabric);
        drop(registration);
        drop(hubs);
        workers.drain();
        until(|| net.alive() == 0)
    }
}
