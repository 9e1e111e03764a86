// SPDX-License-Identifier: GPL-2.0

//! The rig: two endpoints in domains of their own, each with a queue and the other's address; or,
//! if the info is of connected endpoints, connected.

use crate::close::closed;
use crate::peer::{self, Left, Peer, Region};
use crate::{check, check_eq, module_parameters};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed, Release};
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::{Delta, Instant, Monotonic};
use kfabric::prelude::*;

/// How long a case waits for a completion, in milliseconds.
pub(crate) fn timeout() -> u32 {
    module_parameters::timeout.value()
}

/// How often something is done that needs some luck to meet what it is after: `times`, or as much less
/// as the module's parameter says.
pub(crate) fn tries(times: u64) -> u64 {
    (times * u64::from(module_parameters::effort.value()) / 100).max(1)
}

/// A length of which a few bytes are left wherever a provider cuts it, at some power of two or thrice that.
pub(crate) const A_FEW_LEFT: usize = (192 << 10) + 5;

/// How many operations an endpoint of a rig has in flight at most, in each direction.
pub(crate) const DEPTH: usize = 64;

/// One end, with completions that carry numbers.
// In the order in which they must be closed.
pub(crate) struct End {
    pub(crate) ep: Endpoint<u64>,
    pub(crate) av: AddressVector,
    pub(crate) cq: CompletionQueue<u64>,
    /// Of an endpoint that is to be connected.
    pub(crate) eq: Option<EventQueue>,
    pub(crate) domain: Domain,
    pub(crate) fabric: Fabric,
}

impl End {
    /// In a box, since a case has several copies of it in its frame else, and little stack.
    pub(crate) fn new(info: &Info, callback: Option<Arc<dyn Callback<u64>>>) -> Result<KBox<Self>> {
        Self::sized(info, DEPTH, callback)
    }

    /// For a case. `EXDEV`: it is to be about two hosts, and begins with an end that is of no rig.
    pub(crate) fn sized(
        info: &Info,
        depth: usize,
        callback: Option<Arc<dyn Callback<u64>>>,
    ) -> Result<KBox<Self>> {
        peer::may_be_here()?;
        Self::open(info, depth, callback)
    }

    #[inline(never)]
    pub(crate) fn open(
        info: &Info,
        depth: usize,
        callback: Option<Arc<dyn Callback<u64>>>,
    ) -> Result<KBox<Self>> {
        let info = with_sizes(info, depth, depth);
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let cq = CompletionQueue::new(&domain, 2 * depth, callback)?;
        let av = AddressVector::new(&domain)?;
        let builder = Endpoint::builder(&domain, &info).cq(&cq);
        let (eq, ep) = match info.endpoint_type {
            EndpointType::Rdm => (None, builder.av(&av).enable()?),
            EndpointType::Msg => {
                // Room for a request, too.
                let eq = EventQueue::new(&domain, EventQueue::PER_ENDPOINT + 1, None)?;
                let ep = builder.eq(&eq).enable()?;
                (Some(eq), ep)
            }
            _ => return Err(EOPNOTSUPP),
        };
        let base = Base {
            av,
            cq,
            eq,
            domain,
            fabric,
        };
        base.under(ep)
    }

    /// The next completion, whatever it says.
    pub(crate) fn next(&self) -> Result<Completion<u64>> {
        self.cq.read_wait(timeout())
    }

    /// The next completion, for which nobody waits at the queue: who does may bring it about.
    pub(crate) fn next_unaided(&self) -> Result<Completion<u64>> {
        let mut next = None;
        until(|| {
            next = self.cq.read();
            next.is_some()
        })?;
        next.ok_or(ENOENT)
    }

    /// Posts a receive.
    pub(crate) fn receive(
        &self,
        buffer: Buffer,
        how: Receive,
        context: u64,
    ) -> Result<OpId, Refused<u64>> {
        let (ep, anybody) = (&self.ep, Address::UNSPECIFIED);
        match (how.tags, how.access, how.from) {
            (None, _, None) => ep.recv(buffer, context),
            (None, _, Some(from)) => ep.recv_from(buffer, from, context),
            (Some((tag, ignore)), None, None) => ep.trecv(buffer, tag, ignore, context),
            (Some((tag, ignore)), None, Some(from)) => {
                ep.trecv_from(buffer, from, tag, ignore, context)
            }
            (Some(tags), Some(access), from) => {
                ep.trecv_rma(buffer, from.unwrap_or(anybody), tags, access, context)
            }
        }
    }

    /// Waits until its endpoint is connected.
    pub(crate) fn connected(&self) -> Result {
        let event = self.eq.as_ref().ok_or(EINVAL)?.read_wait(timeout())?;
        check!(matches!(event, Event::Connected { endpoint, .. } if endpoint == self.ep.id()));
        Ok(())
    }

    /// Connects its endpoint to that of `to`.
    #[inline(never)]
    pub(crate) fn connect(&self, to: &End, info: &Info) -> Result {
        let (here, there) = (self.eq.as_ref(), to.eq.as_ref());
        let (here, there) = here.zip(there).ok_or(EINVAL)?;
        let listener = PassiveEndpoint::listen(&to.domain, info, there, 1)?;
        join((here, &self.ep), (there, &to.ep), &listener)
    }

    /// The next so many completions, sorted by their contexts: operations end in any order.
    pub(crate) fn gather(&self, count: usize) -> Result<KVVec<Completion<u64>>> {
        gather(count, || self.next())
    }

    /// Another endpoint in its domain, with its addresses and a queue of its own.
    pub(crate) fn endpoint<C: Send + 'static>(
        &self,
        info: &Info,
        cq: &CompletionQueue<C>,
    ) -> Result<Endpoint<C>> {
        let builder = Endpoint::builder(&self.domain, info);
        builder.cq(cq).av(&self.av).enable()
    }

    /// The endpoint, and what it stands on.
    #[inline(never)]
    pub(crate) fn split(self: KBox<Self>) -> (Endpoint<u64>, Base) {
        let end = KBox::into_inner(self);
        let base = Base {
            av: end.av,
            cq: end.cq,
            eq: end.eq,
            domain: end.domain,
            fabric: end.fabric,
        };
        (end.ep, base)
    }

    /// Closes all of it, in order; fails if anything refuses.
    #[inline(never)]
    pub(crate) fn close(self: KBox<Self>) -> Result {
        let (ep, base) = self.split();
        closed(ep.close())?;
        base.close()
    }
}

/// So many completions, sorted by their contexts.
pub(crate) fn gather(
    count: usize,
    next: impl Fn() -> Result<Completion<u64>>,
) -> Result<KVVec<Completion<u64>>> {
    let mut all = KVVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        all.push(next()?, GFP_KERNEL)?;
    }
    all.sort_unstable_by_key(|done| done.context);
    Ok(all)
}

/// What a receive takes.
#[derive(Clone, Copy)]
pub(crate) struct Receive {
    /// Whose messages; `None`: a receive that says nothing of that.
    pub(crate) from: Option<Address>,
    /// Tagged ones: the tag, and the bits of it that are ignored.
    pub(crate) tags: Option<(u64, u64)>,
    /// Tagged RMA, too.
    pub(crate) access: Option<Access>,
}

impl Receive {
    /// Anybody's messages without a tag.
    pub(crate) const ANY: Receive = Receive {
        from: None,
        tags: None,
        access: None,
    };
}

/// What an end's endpoint stands on.
// In the order in which they must be closed.
pub(crate) struct Base {
    pub(crate) av: AddressVector,
    pub(crate) cq: CompletionQueue<u64>,
    pub(crate) eq: Option<EventQueue>,
    pub(crate) domain: Domain,
    pub(crate) fabric: Fabric,
}

impl Base {
    /// An end of it and an endpoint that stands on it.
    pub(crate) fn under(self, ep: Endpoint<u64>) -> Result<KBox<End>> {
        let end = End {
            ep,
            av: self.av,
            cq: self.cq,
            eq: self.eq,
            domain: self.domain,
            fabric: self.fabric,
        };
        Ok(KBox::new(end, GFP_KERNEL)?)
    }

    /// Closes all of it, in order; fails if anything refuses.
    pub(crate) fn close(self) -> Result {
        closed(self.av.close())?;
        closed(self.cq.close())?;
        if let Some(eq) = self.eq {
            closed(eq.close())?;
        }
        closed(self.domain.close())?;
        closed(self.fabric.close())
    }
}

/// An info of an endpoint that holds so many operations.
pub(crate) fn with_sizes(info: &Info, tx_size: usize, rx_size: usize) -> Info {
    let limits = Limits {
        tx_size,
        rx_size,
        ..info.limits
    };
    Info { limits, ..*info }
}

/// Connects an endpoint to another, whose listener this is; each with its queue, which has no other events.
#[inline(never)]
pub(crate) fn join(
    (events, asking): (&EventQueue, &Endpoint<u64>),
    (heard, hearing): (&EventQueue, &Endpoint<u64>),
    listener: &PassiveEndpoint,
) -> Result {
    asking.connect(&listener.name(), PrivateData::NONE, timeout())?;
    let Event::ConnectionRequest(request) = heard.read_wait(timeout())? else {
        return Err(EINVAL);
    };
    closed(hearing.accept(request, PrivateData::NONE))?;
    for (queue, ep) in [(heard, hearing), (events, asking)] {
        let event = queue.read_wait(timeout())?;
        check!(matches!(event, Event::Connected { endpoint, .. } if endpoint == ep.id()));
    }
    Ok(())
}

/// Two ends that know each other.
pub(crate) struct Rig {
    pub(crate) a: KBox<End>,
    pub(crate) b: Peer,
    /// B, as A knows it.
    pub(crate) to_b: Address,
    /// A, as B knows it.
    pub(crate) to_a: Address,
}

impl Rig {
    pub(crate) fn new(info: &Info) -> Result<Self> {
        Self::sized(info, DEPTH)
    }

    pub(crate) fn sized(info: &Info, depth: usize) -> Result<Self> {
        let (a, b) = (End::open(info, depth, None)?, Peer::new(info, depth)?);
        let (to_b, to_a) = match info.endpoint_type {
            EndpointType::Rdm => (a.av.insert(&b.name())?, b.insert(&a.ep.name())?),
            EndpointType::Msg => {
                b.accept(&a, info)?;
                (Address::PEER, Address::PEER)
            }
            _ => return Err(EOPNOTSUPP),
        };
        Ok(Rig { a, b, to_b, to_a })
    }

    /// Registers `len` bytes of value 0 at B, and tells A.
    pub(crate) fn region(&self, len: usize, access: Access) -> Result<(Region, RemoteRegion)> {
        let region = self.b.register(Memory::zeroed(len)?, access)?;
        let remote = RemoteRegion::parse(&region.descriptor()?)?;
        Ok((region, remote))
    }

    /// Fails unless a message of A to B is what both complete next, so.
    #[track_caller]
    pub(crate) fn passed(&self, received: u64, sent: u64, how: Result<usize>) -> Result {
        check_eq!(ended(&self.b.next()?), (Kind::Recv, received, how));
        check_eq!(ended(&self.a.next()?), (Kind::Send, sent, how));
        Ok(())
    }

    /// Fails unless so many messages of A to B complete next, in any order, and the n-th, of n
    /// bytes, has met the n-th receive.
    #[track_caller]
    pub(crate) fn passed_in_order(&self, count: usize) -> Result {
        for (all, kind) in [
            (self.b.gather(count)?, Kind::Recv),
            (self.a.gather(count)?, Kind::Send),
        ] {
            for (n, done) in all.iter().enumerate() {
                check_eq!(ended(done), (kind, n as u64, Ok(n)));
            }
        }
        Ok(())
    }

    /// Closes an endpoint, A's or B's, with so many operations of A in flight, and calls `ended` with each
    /// completion of them; `then` before all else is closed.
    ///
    /// Fails unless each ends once, well, or with what the end of an endpoint ends operations with.
    pub(crate) fn ends_with_an_endpoint(
        self,
        of_a: bool,
        count: usize,
        mut ended: impl FnMut(Completion<u64>) -> Result,
        then: impl FnOnce() -> Result,
    ) -> Result {
        let is_connected = self.a.eq.is_some();
        let (ep_a, base_a) = self.a.split();
        let (mut ep_a, mut b, mut left) = (Some(ep_a), Some(self.b), None);
        // First one endpoint, afterwards the other.
        let mut close = |is_a: bool| -> Result {
            match is_a {
                true => ep_a.take().map_or(Ok(()), |ep| closed(ep.close())),
                false => {
                    left = b.take().map(Peer::close_endpoint).transpose()?;
                    Ok(())
                }
            }
        };
        close(of_a)?;
        let mut seen = KVVec::from_elem(false, count, GFP_KERNEL)?;
        for _ in 0..count {
            let done = base_a.cq.read_wait(timeout())?;
            let place = seen.get_mut(done.context as usize).ok_or(EINVAL)?;
            check!(!core::mem::replace(place, true));
            if let Err(failure) = &done.result {
                check!(match (of_a, is_connected) {
                    // Those that wait at the peer's end are lost with the connection.
                    (true, true) => matches!(failure.error, ECANCELED | ENOTCONN),
                    (true, false) => failure.error == ECANCELED,
                    (false, true) => failure.error == ENOTCONN,
                    (false, false) => failure.error == EHOSTUNREACH,
                });
                // Of a write whose data waits for a receive, the bytes are there.
                check!(failure.outcome != Outcome::Executed || done.kind == Kind::Write);
            }
            ended(done)?;
        }
        close(!of_a)?;
        check!(base_a.cq.read().is_none());
        then()?;
        base_a.close()?;
        left.map_or(Ok(()), Left::close)
    }

    /// Fails unless no completion is left.
    #[track_caller]
    pub(crate) fn quiet(&self) -> Result {
        check!(self.a.cq.read().is_none());
        check!(self.b.poll()?.is_none());
        Ok(())
    }

    pub(crate) fn close(self) -> Result {
        self.a.close()?;
        self.b.close()
    }
}

/// What ended, with which context, and how: the number of bytes or the error.
pub(crate) fn ended<C: Copy>(done: &Completion<C>) -> (Kind, C, Result<usize>) {
    let result = done.result.map(|success| success.len);
    (
        done.kind,
        done.context,
        result.map_err(|failure| failure.error),
    )
}

/// Waits, with a bound, until something is so.
pub(crate) fn until(mut is: impl FnMut() -> bool) -> Result {
    for _ in 0..timeout() {
        if is() {
            return Ok(());
        }
        fsleep(Delta::from_millis(1));
    }
    Err(ETIMEDOUT)
}

/// Cancels an operation that nothing ends by itself.
///
/// With a bound, since it may be on its way to where it waits, and not to be had for a moment.
pub(crate) fn cancel(ep: &Endpoint<u64>, id: OpId) -> Result {
    until(|| ep.cancel(id) != Err(ENOENT))
}

/// Waits, with a bound, until the bytes of a pattern are at the start of `region`.
///
/// What wrote them may still be about to say so, and hold the region.
pub(crate) fn placed(region: &Region, len: usize, seed: u64) -> Result {
    let (mut found, expected) = (Memory::zeroed(len)?, pattern(len, seed)?);
    let bytes = found.as_mut_slice().ok_or(EINVAL)?;
    until(|| region.read_at(0, bytes).is_ok() && Some(&*bytes) == expected.as_slice())
}

/// Fails unless a wait for nothing ends with `ETIMEDOUT`, and not before its time.
///
/// It counts ticks, which come late on a busy machine and then many at once, so that any one wait may
/// be shorter than its time: of some, one must not be.
#[track_caller]
pub(crate) fn lasts(millis: u32, wait: impl Fn() -> Result) -> Result {
    let mut longest = Delta::from_millis(0);
    // The tick that has begun counts as one.
    let least = Delta::from_millis(i64::from(millis) - 20);
    for _ in 0..20 {
        let begin = Instant::<Monotonic>::now();
        check_eq!(wait(), Err(ETIMEDOUT));
        longest = longest.max(begin.elapsed());
        if longest >= least {
            return Ok(());
        }
    }
    check!(longest >= least);
    Ok(())
}

/// Whether a callback is called inside what one thread is doing, and not beside it.
pub(crate) struct Inside {
    /// The thread, while it is at it.
    thread: Atomic<i32>,
    calls: Atomic<i32>,
}

impl Inside {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let inside = Inside {
            thread: Atomic::new(NOBODY),
            calls: Atomic::new(0),
        };
        Ok(Arc::new(inside, GFP_KERNEL)?)
    }

    /// Does something, in a context in which no softirq runs on this CPU.
    pub(crate) fn watch<T>(&self, act: impl FnOnce() -> T) -> T {
        self.thread.store(current!().pid(), Relaxed);
        let done = act();
        self.thread.store(NOBODY, Relaxed);
        done
    }

    /// Notes that the callback was called.
    ///
    /// On another CPU it finds another thread running.
    pub(crate) fn call(&self) {
        let inside = self.thread.load(Relaxed) == current!().pid();
        self.calls.add(i32::from(inside), Relaxed);
    }

    /// How often it was called inside.
    pub(crate) fn calls(&self) -> i32 {
        self.calls.load(Relaxed)
    }
}

/// No thread's number.
const NOBODY: i32 = -1;

/// A context that is counted while it exists.
pub(crate) struct Counted(Arc<Atomic<i32>>);

impl Counted {
    pub(crate) fn new(count: &Arc<Atomic<i32>>) -> Self {
        count.add(1, Relaxed);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Release);
    }
}

/// A count, for what happens in other contexts.
pub(crate) fn count() -> Result<Arc<Atomic<i32>>> {
    Ok(Arc::new(Atomic::new(0), GFP_KERNEL)?)
}

/// Registers memory, forgetting it on failure.
pub(crate) fn register(
    domain: &Domain,
    memory: Memory,
    attributes: impl Into<RegionAttributes>,
) -> Result<Region> {
    closed(domain.register(memory, attributes)).map(Region::Here)
}

/// Memory with a pattern that differs from place to place and from seed to seed.
pub(crate) fn pattern(len: usize, seed: u64) -> Result<Memory> {
    let mut bytes = KVVec::from_elem(0, len, GFP_KERNEL)?;
    for (at, place) in bytes.iter_mut().enumerate() {
        *place = byte(at, seed);
    }
    Ok(Memory::from_vec(bytes))
}

/// The byte at a place of a pattern.
pub(crate) fn byte(at: usize, seed: u64) -> u8 {
    let word = (at as u64 / 7)
        .wrapping_add(seed)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word >> (at % 7 * 8)) as u8
}

/// Fails unless the bytes of a pattern are in `region`, `from` there.
#[track_caller]
pub(crate) fn check_region(region: &Region, from: usize, len: usize, seed: u64) -> Result {
    check!(region.holds(from, len, |at, found| found == byte(at, seed))?);
    Ok(())
}

/// Fails unless the bytes of a pattern are at the start of a buffer that came back.
#[track_caller]
pub(crate) fn check_buffer(buffer: Buffer, len: usize, seed: u64) -> Result {
    let memory = buffer.into_memory().map_err(|_| EINVAL)?;
    let bytes = memory.as_slice().ok_or(EINVAL)?;
    check!(bytes.len() >= len);
    for (at, found) in bytes[..len].iter().enumerate() {
        check!(*found == byte(at, seed));
    }
    Ok(())
}
