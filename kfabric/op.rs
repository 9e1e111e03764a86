// SPDX-License-Identifier: GPL-2.0

//! Operations: what was posted, what it holds, how it ends.
//!
//! An operation is a preallocated slot (`sys/slot.rs`). It is filled when it is posted, is owned
//! by one place at a time, and completes exactly once. See Documentation/completions.rst.
//!
//! | file | noun |
//! |---|---|
//! | `atomic` | what is done to words |
//! | `buffer` | the local side of an operation |
//! | `options` | how an operation is to be done |
//! | `status` | how an operation ends |

use crate::av::Name;
use crate::cntr::{Counters, Counts};
use crate::cq::Queue;
use crate::debugfs;
use crate::info::Effect;
use crate::memory::Exposed;
use crate::mr::RemoteSlice;
use crate::proto::fence::Ticket;
use crate::rdm::fence::Fence;
use crate::stats::Stats;
use crate::sys::slot;
use crate::trace;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::Arc;

mod atomic;
mod buffer;
mod options;
mod status;

pub use crate::sys::slot::{Chain, Operation};
pub use atomic::{Action, AtomicAction, AtomicOp, Datatype};
pub use buffer::Buffer;
pub use options::Options;
pub use status::{Failure, Level, Outcome, Status, Success};

/// The most bytes that an operation holds itself, so that nobody's memory is needed.
///
/// An [`Info`](crate::info::Info) may offer less. Source: inject_size of fi_endpoint(3).
pub const INJECT_SIZE: usize = 64;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Sends a message. Source: fi_msg(3).
    Send,
    /// Receives a message, or the remote CQ data of a write.
    Recv,
    /// Writes to a peer's region. Source: fi_rma(3).
    Write,
    /// Reads from a peer's region.
    Read,
    /// Makes a range of a peer's region durable.
    Commit,
    /// Changes words of a peer's region, each at once. Source: fi_atomic(3).
    Atomic,
    /// A completion only: a receive that a peer's write or commit with remote CQ data consumed. Its
    /// length is theirs; the receive's buffer is untouched. Source: FI_REMOTE_WRITE of fi_cq(3).
    RemoteWrite,
}

impl Kind {
    /// The name in statistics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Send => "send",
            Kind::Recv => "recv",
            Kind::Write => "write",
            Kind::Read => "read",
            Kind::Commit => "commit",
            Kind::Atomic => "atomic",
            Kind::RemoteWrite => "remote_write",
        }
    }
}

/// Names an operation in flight, for [`Endpoint::cancel`](crate::endpoint::Endpoint::cancel).
///
/// A number of an operation that has ended names nothing, also after its slot has been used again,
/// and at another endpoint it names nothing either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId {
    pub(crate) endpoint: u64,
    pub(crate) receive: bool,
    pub(crate) index: u32,
    pub(crate) use_count: u64,
}

/// Where the operations of one direction of an endpoint come from and return to.
pub(crate) struct Origin {
    /// Which endpoint.
    pub(crate) endpoint: u64,
    /// Where they complete.
    pub(crate) queue: Arc<Queue>,
    /// Where they are counted.
    pub(crate) stats: Arc<Stats>,
    /// Who else counts them.
    counters: Option<Arc<Counters>>,
    /// What they wait for, where posts may have fences.
    fence: Option<Arc<Fence>>,
    /// How many slots there are.
    size: usize,
}

impl Origin {
    pub(crate) fn new(
        endpoint: u64,
        queue: Arc<Queue>,
        stats: Arc<Stats>,
        counters: Option<Arc<Counters>>,
        fence: Option<Arc<Fence>>,
        size: usize,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Origin {
                endpoint,
                queue,
                stats,
                counters,
                fence,
                size,
            },
            GFP_KERNEL,
        )?)
    }

    /// Counts how one ended, for its counter if it has one.
    #[inline]
    pub(crate) fn count(&self, counts: Counts, well: bool) {
        if let Some(counters) = &self.counters {
            counters.count(counts, well);
        }
    }

    /// How many operations have been posted and are not in the completion queue yet.
    pub(crate) fn in_flight(&self) -> u64 {
        self.stats.in_flight()
    }

    /// Writes what it counts.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats.show(f)?;
        let rows = [("in_flight", self.in_flight()), ("size", self.size as u64)];
        debugfs::rows(f, &rows)
    }
}

/// A posted operation, as whoever executes it sees it.
pub struct Op {
    origin: Arc<Origin>,
    kind: Kind,
    options: Options,
    index: u32,
    use_count: u64,
    peer: Name,
    remote: Option<RemoteSlice>,
    atomic: Option<AtomicAction>,
    buffer: Buffer,
    /// The bytes that were injected, if the buffer says so.
    injected: [u8; INJECT_SIZE],
    /// A receive: whether a write consumed it.
    consumed: bool,
    /// Where fences count it.
    ticket: Option<Ticket>,
    /// How it has ended; before it has, nothing.
    status: Status,
    ended: bool,
}

impl Op {
    /// An idle operation, for a slot.
    pub(crate) fn idle(origin: &Arc<Origin>, index: u32) -> Self {
        Op {
            origin: origin.clone(),
            kind: Kind::Send,
            options: Options::default(),
            index,
            use_count: 0,
            peer: Name::NONE,
            remote: None,
            atomic: None,
            buffer: Buffer::empty(),
            injected: [0; INJECT_SIZE],
            consumed: false,
            ticket: None,
            status: Err(Failure::unknown(ECANCELED)),
            ended: false,
        }
    }

    /// Takes over what is posted, and counts it.
    #[inline(always)]
    pub(crate) fn fill(&mut self, request: Request) -> OpId {
        self.kind = request.kind;
        self.options = request.options;
        self.peer = request.peer;
        self.remote = request.remote;
        self.atomic = request.atomic;
        slot::put_into_idle(&mut self.buffer, request.buffer);
        self.consumed = false;
        self.ended = false;
        self.use_count = self.use_count.wrapping_add(1);
        self.origin.stats.posted(self.len());
        self.id()
    }

    /// Takes a copy of the bytes that were posted as [`Buffer::injected`], which are as many.
    #[inline]
    pub(crate) fn inject(&mut self, bytes: &[u8]) {
        if let Some(room) = self.injected.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    /// Lets go of what is still held, for the next use of the slot.
    pub(crate) fn reset(&mut self) {
        self.buffer = Buffer::empty();
    }

    /// What it does.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How it is to be done.
    #[inline]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What it is, as far as order goes; a receive is none.
    pub fn effect(&self) -> Option<Effect> {
        match self.kind {
            Kind::Send => Some(Effect::Send),
            Kind::Read => Some(Effect::Read),
            Kind::Write | Kind::Commit | Kind::Atomic => Some(Effect::Write),
            Kind::Recv | Kind::RemoteWrite => None,
        }
    }

    /// The level that its completion must reach.
    #[inline]
    pub fn level(&self) -> Level {
        self.options.level
    }

    /// Its number.
    pub fn id(&self) -> OpId {
        OpId {
            endpoint: self.origin.endpoint,
            receive: self.kind == Kind::Recv,
            index: self.index,
            use_count: self.use_count,
        }
    }

    /// The endpoint that posted it.
    #[inline]
    pub fn endpoint(&self) -> u64 {
        self.origin.endpoint
    }

    /// The peer's name; [`Name::NONE`] for a receive.
    #[inline]
    pub fn peer(&self) -> &Name {
        &self.peer
    }

    /// The range of the peer's region, for RMA and commit.
    #[inline]
    pub fn remote(&self) -> Option<&RemoteSlice> {
        self.remote.as_ref()
    }

    /// What is done to the words, for atomics.
    #[inline]
    pub fn atomic(&self) -> Option<AtomicAction> {
        self.atomic
    }

    /// The remote CQ data that goes with it.
    #[inline]
    pub fn data(&self) -> Option<u64> {
        self.options.data
    }

    /// The local side.
    #[inline]
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Copies its local bytes, wherever they are, to those from `offset` of `to`.
    ///
    /// Any context but hardirq. For operations that bring bytes to a peer.
    ///
    /// # Errors
    /// - `EINVAL`: out of the bounds of `to`.
    /// - `ENODEV`, `EIO`: of persistent memory; some bytes may be copied.
    #[inline]
    pub fn copy_out(&self, to: &Exposed, offset: usize) -> Result {
        let (at, len) = (self.buffer.offset(), self.buffer.len());
        match self.buffer.memory() {
            Some(from) => Exposed::copy(to, offset, from, at, len),
            None if self.buffer.is_injected() => {
                to.write_at(offset, self.injected.get(..len).ok_or(EINVAL)?)
            }
            None => Ok(()), // no bytes
        }
    }

    /// Copies those from `offset` of `from` to its local bytes.
    ///
    /// For operations that bring bytes of a peer here; the errors are as of [`Op::copy_out`].
    #[inline]
    pub fn copy_in(&self, from: &Exposed, offset: usize) -> Result {
        let (at, len) = (self.buffer.offset(), self.buffer.len());
        match self.buffer.memory() {
            Some(to) => Exposed::copy(to, at, from, offset, len),
            None => Ok(()), // no bytes
        }
    }

    /// How many bytes it moves, changes, or makes durable: those of the peer, where it has no local
    /// ones, or more.
    #[inline]
    pub fn len(&self) -> usize {
        match (self.kind, &self.remote) {
            (Kind::Commit | Kind::Atomic, Some(remote)) => remote.len() as usize,
            _ => self.buffer.len(),
        }
    }

    /// Whether it moves none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where fences count it.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    /// Notes where fences count it, or that they don't any more.
    pub(crate) fn set_ticket(&mut self, ticket: Option<Ticket>) {
        self.ticket = ticket;
    }

    /// Marks a receive as consumed by a write.
    pub(crate) fn consume(&mut self) {
        self.consumed = true;
    }

    /// Whether a write consumed it.
    pub(crate) fn is_consumed(&self) -> bool {
        self.consumed
    }

    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        self.ended
    }

    /// Ends it like this.
    #[inline]
    fn end(&mut self, status: Status) {
        self.status = status;
        self.ended = true;
    }

    /// Where it completes.
    #[inline]
    pub(crate) fn origin_queue(&self) -> &Arc<Queue> {
        &self.origin.queue
    }

    /// Where it came from.
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Counts how it ended. The caller holds the lock of the queue.
    #[inline]
    pub(crate) fn count_end(&self) {
        self.origin.stats.ended(self.is_success());
    }

    /// Whether it has ended well.
    #[inline]
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_ok()
    }

    /// How it has ended.
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// Makes a failure of a success of less than was asked for, which is never weakened silently.
    ///
    /// It is the provider's error.
    #[cold]
    fn weakened(&mut self) {
        if let Ok(success) = self.status {
            self.status = Err(Failure::after(success.level, EPROTO));
        }
    }

    /// Takes out what the completion tells.
    #[inline(always)]
    pub(crate) fn finish(&mut self) -> (Kind, Buffer, Status) {
        let kind = match self.consumed {
            true => Kind::RemoteWrite,
            false => self.kind,
        };
        if self.buffer.is_injected() {
            // Nothing of it comes back.
            self.buffer = Buffer::empty();
        }
        (kind, core::mem::take(&mut self.buffer), self.status)
    }
}

/// What is posted.
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) options: Options,
    pub(crate) peer: Name,
    pub(crate) remote: Option<RemoteSlice>,
    pub(crate) atomic: Option<AtomicAction>,
    pub(crate) buffer: Buffer,
}

impl Operation {
    /// Ends the operation: it goes to its completion queue.
    ///
    /// Never sleeps; any context but hardirq, and without a lock that the consumer's callback or
    /// post could take.
    #[inline]
    pub fn complete(mut self, status: Status) {
        let weaker = matches!(&status, Ok(success) if success.level < self.options.level);
        self.op().end(status);
        if weaker {
            self.op().weakened();
        }
        trace::complete(&self);
        match self.ticket {
            Some(_) => self.deliver_fenced(),
            None => self.hand_over(),
        }
    }

    /// Lets those go, afterwards, that waited for it.
    #[cold]
    fn deliver_fenced(mut self) {
        let fence = self.origin.fence.clone();
        let (ticket, hash) = (self.op().ticket.take(), self.peer.hash());
        self.hand_over();
        if let (Some(fence), Some(ticket)) = (fence, ticket) {
            fence.ended(ticket, hash);
        }
    }

    /// Counts it, and puts it into its queue, unless nobody wants to see it.
    #[inline]
    fn hand_over(self) {
        if self.options.silent && self.is_success() {
            return self.hand_over_silently();
        }
        if self.origin.counters.is_some() {
            // Before it can be read.
            self.count();
        }
        self.deliver();
    }

    /// Counts one whose completion nobody wants to see.
    #[inline(never)]
    fn hand_over_silently(self) {
        let counts = match self.origin.counters {
            Some(_) => self.counts(),
            None => Counts::NONE,
        };
        self.origin.queue.clone().pass(self, counts);
    }

    /// Counts how it ended, for its counter.
    #[inline(never)]
    fn count(&self) {
        self.origin.count(self.counts(), self.is_success());
    }

    /// Ends an operation that was not posted, but carries an event.
    pub(crate) fn announce(mut self) {
        self.op().end(Ok(Success {
            len: 0,
            data: None,
            level: Level::Delivered,
        }));
        self.deliver();
    }

    /// Ends the operation that somebody dropped.
    pub(crate) fn abandon(self) {
        self.complete(Err(Failure::unknown(ECANCELED)));
    }

    /// Counts one that a provider handed back: it is not in flight any more.
    #[cold]
    pub(crate) fn refused(&mut self) {
        self.origin.stats.handed_back();
        if let (Some(fence), Some(ticket)) = (self.origin.fence.clone(), self.op().ticket.take()) {
            fence.ended(ticket, self.peer.hash());
        }
    }
}

/// A post that was refused: nothing happens, and everything is here again.
#[must_use = "it holds the buffer and the context that were to be posted"]
pub struct Refused<C> {
    /// The reason.
    pub error: Error,
    /// The local side.
    pub buffer: Buffer,
    /// The consumer's context.
    pub context: C,
}

impl<C> From<Refused<C>> for Error {
    fn from(refused: Refused<C>) -> Error {
        refused.error
    }
}

/// Operations of no endpoint, for tests.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing {
    use super::*;
    use crate::cq::{Completion, Notify, Reader};
    use crate::sys::slot::Pool;
    use kernel::sync::atomic::{self, Relaxed, Release};

    /// A request to nobody, of no bytes, without options.
    pub(crate) fn request(kind: Kind) -> Request {
        Request {
            kind,
            options: Options::default(),
            peer: Name::NONE,
            remote: None,
            atomic: None,
            buffer: Buffer::empty(),
        }
    }

    /// A context that is counted while it exists.
    pub(crate) struct Counted(Arc<atomic::Atomic<i32>>);

    impl Counted {
        pub(crate) fn new(count: &Arc<atomic::Atomic<i32>>) -> Self {
            count.add(1, Relaxed);
            Counted(count.clone())
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Release);
        }
    }

    /// Slots, and the queue where they complete.
    pub(crate) struct Bench<C: Send + 'static> {
        pub(crate) queue: Arc<Queue>,
        pub(crate) origin: Arc<Origin>,
        pub(crate) pool: Pool<C>,
    }

    impl<C: Send + 'static> Drop for Bench<C> {
        fn drop(&mut self) {
            self.queue.shut();
        }
    }

    impl<C: Send + 'static> Bench<C> {
        pub(crate) fn new(slots: usize, callback: Option<Arc<dyn Notify>>) -> Result<Self> {
            let queue = Queue::new(slots, callback)?;
            let stats = Arc::new(Stats::default(), GFP_KERNEL)?;
            let origin = Origin::new(7, queue.clone(), stats, None, None, slots)?;
            Ok(Bench {
                pool: Pool::new(slots, |index| Op::idle(&origin, index))?,
                queue,
                origin,
            })
        }

        /// Posts to nobody: the operation is the caller's. `EAGAIN`: no slot is free.
        pub(crate) fn post(
            &self,
            kind: Kind,
            buffer: Buffer,
            context: C,
        ) -> Result<(OpId, Operation)> {
            let request = Request {
                buffer,
                ..request(kind)
            };
            self.post_request(request, context)
        }

        /// The same with all of a request.
        pub(crate) fn post_request(
            &self,
            request: Request,
            context: C,
        ) -> Result<(OpId, Operation)> {
            let mut slot = self.pool.take().ok_or(EAGAIN)?;
            let id = slot.op().fill(request);
            Ok((id, slot.arm(context)))
        }

        pub(crate) fn read(&self) -> Option<Completion<C>> {
            Reader::new(&self.queue).read()
        }
    }
}

#[kunit_tests(kfabric_op)]
mod tests {
    use super::testing::{request, Bench};
    use super::*;
    use crate::memory::Memory;

    fn done(len: usize) -> Status {
        Ok(Success {
            len,
            data: None,
            level: Level::Delivered,
        })
    }

    #[test]
    fn completion_brings_back_what_was_posted() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let (id, op) = bench.post(Kind::Send, Memory::zeroed(5)?.into(), 9)?;
        assert!(op.id() == id && op.endpoint() == 7 && op.len() == 5 && !op.is_complete());
        assert_eq!(bench.origin.in_flight(), 1);
        op.complete(done(5));
        assert_eq!(bench.origin.in_flight(), 0);
        let read = bench.read().ok_or(EINVAL)?;
        assert_eq!(
            (read.kind, read.context, read.result),
            (Kind::Send, 9, done(5))
        );
        assert!(read
            .buffer
            .into_memory()
            .is_ok_and(|memory| memory.len() == 5));
        assert!(bench.read().is_none());
        Ok(())
    }

    #[test]
    fn dropped_operation_completes_as_cancelled() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        drop(bench.post(Kind::Write, Buffer::empty(), 9)?);
        let read = bench.read().ok_or(EINVAL)?;
        assert_eq!(read.result, Err(Failure::unknown(ECANCELED)));
        assert!(bench.read().is_none());
        assert_eq!(bench.origin.in_flight(), 0);
        Ok(())
    }

    #[test]
    fn completion_below_the_level_that_was_asked_for_is_a_failure() -> Result {
        use Level::{Committed, Delivered, Transmit};
        let bench = Bench::<u64>::new(1, None)?;
        for asked in [Transmit, Delivered, Committed] {
            for level in [Transmit, Delivered, Committed] {
                let options = Options {
                    level: asked,
                    ..Options::default()
                };
                let request = Request {
                    options,
                    ..request(Kind::Write)
                };
                let (_, op) = bench.post_request(request, 0)?;
                let (len, data) = (0, None);
                let success = Success { len, data, level };
                op.complete(Ok(success));
                let expected = match level >= asked {
                    true => Ok(success),
                    false => Err(Failure::after(level, EPROTO)),
                };
                assert_eq!(bench.read().map(|done| done.result), Some(expected));
            }
        }
        Ok(())
    }

    #[test]
    fn number_names_one_use_of_one_slot() -> Result {
        let (bench, other) = (Bench::<u64>::new(2, None)?, Bench::<u64>::new(1, None)?);
        let (first, op) = bench.post(Kind::Recv, Buffer::empty(), 1)?;
        let (second, _waits) = bench.post(Kind::Recv, Buffer::empty(), 2)?;
        assert!(first != second);
        op.complete(done(0));
        drop(bench.read());
        let (again, op) = bench.post(Kind::Recv, Buffer::empty(), 3)?;
        assert!(again != first && again.index == first.index);
        op.complete(done(0));
        drop(bench.read());
        let (send, _op) = bench.post(Kind::Send, Buffer::empty(), 4)?;
        assert!(!send.receive && again.receive);
        // All alike but the endpoint.
        let (mut anothers, _op) = other.post(Kind::Recv, Buffer::empty(), 1)?;
        anothers.endpoint = 8;
        assert!(anothers != first);
        Ok(())
    }

    #[test]
    fn refusal_is_not_in_flight() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let (_, mut op) = bench.post(Kind::Send, Memory::zeroed(5)?.into(), 9)?;
        op.refused();
        assert_eq!(bench.origin.in_flight(), 0);
        let Ok((mut slot, context)) = op.claim::<u64>() else {
            return Err(EINVAL);
        };
        let (_, buffer, _) = slot.op().finish();
        assert_eq!((context, buffer.len()), (9, 5));
        drop(slot);
        assert!(bench.read().is_none());
        drop(bench.post(Kind::Send, Buffer::empty(), 1)?);
        Ok(())
    }
}
