// SPDX-License-Identifier: GPL-2.0

//! Completion queues.
//!
//! A queue holds the completed operations themselves, chained: so it needs no memory of its own
//! and can't overrun, and the slots bound to it may be at most as many as its size.
//!
//! **Callback.** It is armed when the queue is made, fires once when a completion arrives, and is
//! armed again by the read that finds the queue empty: "is it empty" and "arm" are one step under
//! the queue's lock, so no completion is missed. It runs in softirq context (a BH work item),
//! never from inside a post, never twice at once, and never after [`CompletionQueue::close`].
//!
//! Locks: `state` and `callback` are leaf locks, interrupts disabled. See
//! Documentation/contexts.rst. Source: fi_cq(3).

use crate::cntr::Counts;
use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use crate::op::{Buffer, Chain, Kind, Operation, Part, Status};
use crate::sys::work;
use core::marker::PhantomData;
use core::num::NonZero;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{
    new_condvar, new_spinlock_irq, Arc, CondVar, CondVarTimeoutResult, SpinLockIrq,
};
use kernel::time::{msecs_to_jiffies, Instant, Jiffies, Monotonic, Msecs};
use kernel::workqueue::{self, impl_has_work, new_work, Work, WorkItem};

mod bound;
mod hand;

pub(crate) use bound::Bound;
use hand::Hand;
pub(crate) use hand::{Hands, Turns};

/// What a consumer wants to be told of a completion queue.
pub trait Callback<C: Send + 'static>: Send + Sync + 'static {
    /// The queue has completions.
    ///
    /// Softirq context: must not sleep. May post and read, never close. Read until the queue is
    /// empty, or have somebody else do so: until then the callback does not fire again, unless it
    /// asks for it, see [`Reader::again`].
    fn ready(&self, completions: &Reader<'_, C>);
}

impl<C: Send + 'static, F: Fn(&Reader<'_, C>) + Send + Sync + 'static> Callback<C> for F {
    fn ready(&self, completions: &Reader<'_, C>) {
        self(completions)
    }
}

/// A [`Callback`] without its contexts' type.
pub(crate) trait Notify: Send + Sync {
    fn fire(&self, queue: &Arc<Queue>);
}

struct Typed<C: Send + 'static>(Arc<dyn Callback<C>>);

impl<C: Send + 'static> Notify for Typed<C> {
    fn fire(&self, queue: &Arc<Queue>) {
        self.0.ready(&Reader::new(queue))
    }
}

/// The part of a completion queue that does not know the contexts' type.
#[pin_data]
pub(crate) struct Queue {
    size: usize,
    /// Whether there is a callback.
    notifies: bool,
    #[pin]
    state: SpinLockIrq<State>,
    #[pin]
    callback: SpinLockIrq<Option<Arc<dyn Notify>>>,
    #[pin]
    arrival: CondVar,
    /// How many threads wait, or take turns.
    present: Atomic<i32>,
    #[pin]
    work: Work<Queue>,
}

struct State {
    done: Chain,
    /// Slots that endpoints have bound.
    bound: usize,
    /// Whether the next completion fires the callback.
    armed: bool,
    waiters: usize,
    hand: Hand,
    /// Whether the consumer has dropped the queue, and nobody will read.
    shut: bool,
    /// How many completions have come.
    arrived: u64,
    /// How often the callback was called.
    called: u64,
}

static NEXT_ID: Atomic<u64> = Atomic::new(1);

impl_has_work! {
    impl HasWork<Self> for Queue { self.work }
}

impl WorkItem for Queue {
    type Pointer = Arc<Queue>;

    fn run(this: Arc<Queue>) {
        let callback = this.callback.lock().clone();
        if let Some(callback) = callback {
            this.state.lock().called += 1;
            callback.fire(&this);
        }
    }
}

impl Queue {
    pub(crate) fn new(size: usize, callback: Option<Arc<dyn Notify>>) -> Result<Arc<Self>> {
        let notifies = callback.is_some();
        let state = State {
            done: Chain::new(),
            bound: 0,
            armed: notifies,
            waiters: 0,
            hand: Hand::default(),
            shut: false,
            arrived: 0,
            called: 0,
        };
        Arc::pin_init(
            pin_init!(Queue {
                size,
                notifies,
                state <- new_spinlock_irq!(state, "kfi_cq"),
                callback <- new_spinlock_irq!(callback, "kfi_cq_callback"),
                arrival <- new_condvar!("kfi_cq_arrival"),
                present: Atomic::new(0),
                work <- new_work!("kfi_cq_callback"),
            }),
            GFP_KERNEL,
        )
    }

    /// Reserves room for `slots` operations. `ENOSPC`: the queue is too small for them.
    pub(crate) fn bind(&self, slots: usize) -> Result {
        let mut state = self.state.lock();
        let bound = state.bound.checked_add(slots).ok_or(ENOSPC)?;
        if bound > self.size {
            return Err(ENOSPC);
        }
        state.bound = bound;
        Ok(())
    }

    /// Gives up what [`Queue::bind`] reserved.
    ///
    /// Process context. With the last, a queue that its consumer has dropped lets go of what nobody
    /// will read.
    pub(crate) fn unbind(&self, slots: usize) {
        let mut state = self.state.lock();
        state.bound -= slots;
        let unread = match state.shut && state.bound == 0 {
            true => state.done.take(),
            false => Chain::new(),
        };
        drop(state);
        drop(unread);
    }

    /// Takes a completed operation.
    #[inline]
    pub(crate) fn push(self: &Arc<Self>, op: Operation) {
        let mut state = self.state.lock();
        if state.shut && state.bound == 0 {
            drop(state);
            // Its endpoint did not close in time.
            return self.clone().pass(op, Counts::NONE);
        }
        // Counted under the lock: a close that sees none in flight finds each completion here.
        op.count_end();
        state.done.push(op);
        state.arrived = state.arrived.wrapping_add(1);
        let fire = core::mem::replace(&mut state.armed, false);
        if state.waiters > 0 {
            self.arrival.notify_all();
        }
        if fire {
            // Under the lock, so that none is queued after `shut` has flushed the work item. A
            // refusal means that it is queued already and will see this completion.
            let _ = workqueue::system_bh().enqueue(self.clone());
        }
    }

    /// Drops a completed operation that nobody is to see, and has it counted.
    ///
    /// While it counts as in flight: its context's code, and its counters, may go afterwards. Who
    /// sees the count finds its slot free and its buffer let go of.
    pub(crate) fn pass(self: Arc<Self>, op: Operation, counts: Counts) {
        let (origin, well) = (op.origin().clone(), op.is_success());
        drop(op);
        origin.count(counts, well);
        let state = self.state.lock();
        origin.stats.ended(well);
        drop(state);
    }

    /// Takes out what an endpoint's operations have left here.
    pub(crate) fn withdraw(&self, endpoint: u64) -> Chain {
        let mut state = self.state.lock();
        state.done.extract(|op| op.endpoint() == endpoint)
    }

    /// Whether anything is bound to it.
    pub(crate) fn is_bound(&self) -> bool {
        self.state.lock().bound > 0
    }

    /// Whether its consumer has dropped it, and nobody will read.
    pub(crate) fn is_shut(&self) -> bool {
        self.state.lock().shut
    }

    /// How many operations may be in flight.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Has the callback called again, though no completion need have come.
    fn again(self: &Arc<Self>) {
        let state = self.state.lock();
        if self.notifies && !state.shut {
            // Under the lock, as in `push`.
            let _ = workqueue::system_bh().enqueue(self.clone());
        }
    }

    /// Takes out the first; arms the callback if there is none.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Operation> {
        let mut state = self.state.lock();
        let op = state.done.pop();
        if op.is_none() {
            state.armed = self.notifies && !state.shut;
        }
        op
    }

    /// Waits at most `left` jiffies, and takes turns meanwhile; returns how many are left.
    pub(crate) fn wait(&self, left: Jiffies) -> Result<Jiffies> {
        self.present.add(1, Relaxed);
        let waited = self.wait_or_help(left);
        self.present.add(-1, Relaxed);
        waited
    }

    fn wait_or_help(&self, mut left: Jiffies) -> Result<Jiffies> {
        // What turns have taken beyond whole jiffies, in nanoseconds.
        let mut spent = 0;
        let mut state = self.state.lock();
        let waited = loop {
            if !state.done.is_empty() {
                break Ok(left);
            }
            // Turns may come without an end.
            let may_help = left > 0 && !current!().signal_pending();
            if let Some(turns) = state.hand.begin_if(may_help) {
                drop(state);
                let begin = Instant::<Monotonic>::now();
                self.help(turns);
                spent += begin.elapsed().as_nanos().max(0) as u64;
                if spent >= SHORTEST_JIFFY {
                    left = left.saturating_sub((spent / jiffy()) as Jiffies);
                    spent %= jiffy();
                }
                state = self.state.lock();
                continue;
            }
            state.waiters += 1;
            let woken = self.arrival.wait_interruptible_timeout(&mut state, left);
            state.waiters -= 1;
            match woken {
                CondVarTimeoutResult::Woken { jiffies } => left = jiffies,
                CondVarTimeoutResult::Timeout if state.done.is_empty() => break Err(ETIMEDOUT),
                CondVarTimeoutResult::Timeout => left = 0,
                CondVarTimeoutResult::Signal { .. } => break Err(ERESTARTSYS),
            }
        };
        // What was to be done next is nobody's here any more.
        let turns = state.hand.take();
        drop(state);
        if let Some(turns) = turns {
            turns.call();
        }
        waited
    }

    /// Waits at most `timeout` milliseconds for what `read` takes from it. Errors: as
    /// [`Queue::wait`].
    pub(crate) fn read_wait<T>(&self, timeout: Msecs, read: impl Fn() -> Option<T>) -> Result<T> {
        let mut left = msecs_to_jiffies(timeout);
        loop {
            left = self.wait(left)?;
            // Another reader may have been faster.
            if let Some(taken) = read() {
                return Ok(taken);
            }
        }
    }

    /// Writes what it counts.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let rows = [
            ("size", self.size as u64),
            ("bound", state.bound as u64),
            ("arrived", state.arrived),
            ("unread", state.done.len() as u64),
            ("callbacks", state.called),
            ("waiters", state.waiters as u64),
        ];
        drop(state);
        debugfs::rows(f, &rows)
    }

    /// Ends the callback and drops what nobody read.
    pub(crate) fn shut(self: &Arc<Self>) {
        // Kept until the work item is through, so that the last reference to the consumer's
        // callback is dropped here, in process context.
        let callback = self.callback.lock().take();
        let mut state = self.state.lock();
        state.armed = false;
        state.shut = true;
        let (unread, turns) = (state.done.take(), state.hand.take());
        drop(state);
        drop(turns);
        work::cancel(self);
        drop(callback);
        drop(unread);
    }
}

/// The shortest jiffy that there is, in nanoseconds: a call of the kernel tells how long this one's are.
const SHORTEST_JIFFY: u64 = 1_000_000;

/// A jiffy, in nanoseconds.
fn jiffy() -> NonZero<u64> {
    const SECOND_MS: Msecs = 1000;
    let least = |number| NonZero::new(number).unwrap_or(NonZero::<u64>::MIN);
    least(1_000_000_000 / least(msecs_to_jiffies(SECOND_MS) as u64))
}

/// What a completion tells, with everything that the operation held.
#[must_use = "it holds the operation's buffer and context"]
pub struct Completion<C> {
    /// What completed.
    pub kind: Kind,
    /// The consumer's context.
    pub context: C,
    /// The local side.
    pub buffer: Buffer,
    /// The tag, of a tagged operation: of a receive that of the message that it met, or, if it met
    /// none, its own. Source: fi_cq_tagged_entry of fi_cq(3).
    pub tag: Option<u64>,
    /// How it went.
    pub result: Status,
    /// Of a receive of several messages: where the message is, and whether the buffer has come back.
    pub part: Option<Part>,
}

/// The reading side of a completion queue, as its callback sees it.
pub struct Reader<'a, C: Send + 'static> {
    queue: &'a Arc<Queue>,
    _contexts: PhantomData<fn(C) -> C>,
}

impl<'a, C: Send + 'static> Reader<'a, C> {
    pub(crate) fn new(queue: &'a Arc<Queue>) -> Self {
        Reader {
            queue,
            _contexts: PhantomData,
        }
    }

    /// Has the callback called again soon, once it has returned.
    ///
    /// For one that has done its fill and leaves completions in the queue: softirqs are not to run
    /// without a bound, and a callback that posts may never find the queue empty. Never sleeps; any
    /// context but hardirq. Source: the budget of `ib_poll_handler()`, drivers/infiniband/core/cq.c.
    pub fn again(&self) {
        self.queue.again();
    }

    /// Takes the oldest completion; finding none arms the callback.
    ///
    /// Never sleeps; process or softirq context. Several readers may read at once, and each
    /// completion goes to one of them.
    #[inline]
    pub fn read(&self) -> Option<Completion<C>> {
        let op = self.queue.pop()?;
        let (mut slot, context) = match op.claim::<C>() {
            Ok(claimed) => claimed,
            Err(foreign) => {
                // Only an `Endpoint<C>` can be bound to a `CompletionQueue<C>`.
                pr_err!("cq: an operation of another context type was dropped\n");
                drop(foreign);
                return None;
            }
        };
        // One by one, so that each goes where it is returned, and nowhere before.
        Some(Completion {
            kind: slot.op().told_kind(),
            context,
            buffer: slot.op().take_buffer(),
            tag: slot.op().tag(),
            result: *slot.op().status(),
            part: slot.op().take_part(),
        })
    }
}

/// A completion queue for operations with contexts of type `C`.
///
/// Dropping it ends the callback; but see [`CompletionQueue::close`], which refuses rather than to
/// cut endpoints off. Process context, may sleep.
pub struct CompletionQueue<C: Send + 'static> {
    _file: debugfs::File,
    queue: Arc<Queue>,
    domain: Child,
    _contexts: PhantomData<fn(C) -> C>,
}

impl<C: Send + 'static> CompletionQueue<C> {
    /// Makes a queue for at most `size` operations in flight, with an optional callback.
    ///
    /// May sleep. Source: fi_cq_open(3).
    ///
    /// # Errors
    /// - `EINVAL`: `size` is 0.
    /// - `ENODEV`: the domain has ended.
    /// - `ENOMEM`.
    pub fn new(
        domain: &Domain,
        size: usize,
        callback: Option<Arc<dyn Callback<C>>>,
    ) -> Result<Self> {
        if size == 0 {
            return Err(EINVAL);
        }
        let callback = match callback {
            Some(callback) => Some(Arc::new(Typed(callback), GFP_KERNEL)? as Arc<dyn Notify>),
            None => None,
        };
        let child = domain.child(Class::CompletionQueue)?;
        let queue = Queue::new(size, callback)?;
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Ok(CompletionQueue {
            _file: debugfs::file(domain.dir(), fmt!("cq-{id}"), Shown::Queue(queue.clone()))?,
            domain: child,
            queue,
            _contexts: PhantomData,
        })
    }

    /// Takes the oldest completion, see [`Reader::read`].
    #[inline]
    pub fn read(&self) -> Option<Completion<C>> {
        Reader::new(&self.queue).read()
    }

    /// Waits until there is a completion, at most `timeout` milliseconds.
    ///
    /// Sleeps; process context. Meanwhile it does what a worker would do for the endpoints that are bound to the
    /// queue, if they are over links: it may take longer by what it was just doing for a peer, which may be a commit of
    /// what that has written, and is not interrupted there. What it drops on the way, the contexts of operations that
    /// are silent, may not take a lock that the caller holds.
    ///
    /// # Errors
    /// - `ETIMEDOUT`: there was none.
    /// - `ERESTARTSYS`: a signal came first.
    pub fn wait(&self, timeout: Msecs) -> Result {
        self.queue.wait(msecs_to_jiffies(timeout)).map(|_| ())
    }

    /// Waits for a completion and takes it. As [`CompletionQueue::wait`].
    pub fn read_wait(&self, timeout: Msecs) -> Result<Completion<C>> {
        self.queue.read_wait(timeout, || self.read())
    }

    /// How many operations may be in flight.
    pub fn size(&self) -> usize {
        self.queue.size
    }

    /// Closes the queue. Completions that nobody read are dropped with what they hold.
    ///
    /// Sleeps; process context. No callback runs afterwards.
    ///
    /// # Errors
    /// - `EBUSY`, and the queue again: endpoints are bound to it.
    pub fn close(self) -> Result<(), (Error, Self)> {
        if self.queue.is_bound() {
            return Err((EBUSY, self));
        }
        Ok(())
    }

    pub(crate) fn domain(&self) -> &Child {
        &self.domain
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl<C: Send + 'static> Drop for CompletionQueue<C> {
    fn drop(&mut self) {
        self.queue.shut();
    }
}

#[kunit_tests(kfabric_cq)]
mod tests {
    use super::*;
    use crate::op::testing::Bench;
    use kernel::sync::atomic::{Atomic, Relaxed};

    fn fail(op: Operation) {
        op.complete(Err(crate::op::Failure::not_executed(EIO)));
    }

    #[test]
    fn room_is_bounded() -> Result {
        let queue = Queue::new(10, None)?;
        queue.bind(4)?;
        queue.bind(6)?;
        assert_eq!(queue.bind(1), Err(ENOSPC));
        assert_eq!(queue.bind(usize::MAX), Err(ENOSPC));
        queue.bind(0)?;
        queue.unbind(4);
        assert_eq!(queue.bind(5), Err(ENOSPC));
        queue.bind(4)?;
        Ok(())
    }

    #[test]
    fn completions_are_read_in_order() -> Result {
        let bench = Bench::<u64>::new(4, None)?;
        let (_, first) = bench.post(Kind::Recv, Buffer::empty(), 1)?;
        let (_, second) = bench.post(Kind::Send, Buffer::empty(), 2)?;
        fail(second);
        fail(first);
        assert_eq!(
            bench.read().map(|done| (done.kind, done.context)),
            Some((Kind::Send, 2))
        );
        assert_eq!(
            bench.read().map(|done| (done.kind, done.context)),
            Some((Kind::Recv, 1))
        );
        assert!(bench.read().is_none());
        Ok(())
    }

    #[test]
    fn wait_takes_nothing() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        assert_eq!(bench.queue.wait(0), Err(ETIMEDOUT));
        assert_eq!(bench.queue.wait(2), Err(ETIMEDOUT));
        fail(bench.post(Kind::Recv, Buffer::empty(), 1)?.1);
        bench.queue.wait(0)?;
        bench.queue.wait(0)?;
        assert!(bench.read().is_some());
        assert_eq!(bench.queue.wait(0), Err(ETIMEDOUT));
        Ok(())
    }

    #[test]
    fn reader_that_was_too_late_waits_for_the_next() -> Result {
        let bench = Bench::<u64>::new(2, None)?;
        fail(bench.post(Kind::Recv, Buffer::empty(), 1)?.1);
        fail(bench.post(Kind::Recv, Buffer::empty(), 2)?.1);
        let late = core::cell::Cell::new(true);
        let taken = bench.queue.read_wait(2, || {
            let taken = bench.read().map(|done| done.context);
            // Another reader has taken the first.
            taken.filter(|_| !late.replace(false))
        });
        assert_eq!(taken, Ok(2));
        let none = bench.queue.read_wait(2, || bench.read());
        assert_eq!(none.err(), Some(ETIMEDOUT));
        Ok(())
    }

    #[test]
    fn completion_of_another_context_type_is_no_completion() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        fail(bench.post(Kind::Recv, Buffer::empty(), 1)?.1);
        assert!(Reader::<u32>::new(&bench.queue).read().is_none());
        // Its slot is free again.
        drop(bench.post(Kind::Recv, Buffer::empty(), 2)?);
        Ok(())
    }

    #[test]
    fn queue_that_is_shut_drops_what_nobody_read() -> Result {
        let contexts = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let bench = Bench::<crate::op::testing::Counted>::new(2, None)?;
        bench.queue.bind(2)?;
        for _ in 0..2 {
            let context = crate::op::testing::Counted::new(&contexts);
            fail(bench.post(Kind::Recv, Buffer::empty(), context)?.1);
        }
        assert_eq!(contexts.load(Relaxed), 2);
        bench.queue.shut();
        assert_eq!(contexts.load(Relaxed), 0);
        // What completes later goes with the endpoint.
        let context = crate::op::testing::Counted::new(&contexts);
        fail(bench.post(Kind::Recv, Buffer::empty(), context)?.1);
        bench.queue.unbind(2);
        assert_eq!(contexts.load(Relaxed), 0);
        Ok(())
    }

    struct Calls(Atomic<i32>);

    impl Notify for Calls {
        fn fire(&self, _queue: &Arc<Queue>) {
            self.0.add(1, Relaxed);
        }
    }

    #[test]
    fn callback_is_armed_by_the_read_that_finds_nothing() -> Result {
        let calls = Arc::new(Calls(Atomic::new(0)), GFP_KERNEL)?;
        let bench = Bench::<u64>::new(4, Some(calls.clone()))?;
        let arrive = || -> Result<i32> {
            fail(bench.post(Kind::Recv, Buffer::empty(), 1)?.1);
            work::flush(&bench.queue.work);
            Ok(calls.0.load(Relaxed))
        };
        assert_eq!(arrive()?, 1);
        assert_eq!(arrive()?, 1);
        assert!(bench.read().is_some());
        assert_eq!(arrive()?, 1);
        while bench.read().is_some() {}
        assert_eq!(arrive()?, 2);
        while bench.read().is_some() {}
        bench.queue.shut();
        assert_eq!(arrive()?, 2);
        assert!(bench.queue.callback.lock().is_none());
        bench.queue.unbind(0);
        Ok(())
    }
}
