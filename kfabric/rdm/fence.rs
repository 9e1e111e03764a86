// SPDX-License-Identifier: GPL-2.0

//! Fences of an endpoint: what waits until operations before it have completed.
//!
//! The rule is that of `proto/fence.rs`. What waits has its slot, and completes as any other when
//! the endpoint is closed.
//!
//! What goes is executed as a post is: in an RCU read section, from its leaving the table until the
//! provider has taken it or handed it back. The endpoint is only borrowed in that section, and taken
//! back after a grace period: so nobody else can be the last to use it, where it can't be ended.
//!
//! Who ends what others wait for executes them, but only so many: it may be in a softirq, and others go on posting. A
//! work item does the rest.
//!
//! Locks: `state` is a leaf lock, interrupts disabled; nothing is executed, completes or is freed
//! with it held.

use crate::av::Name;
use crate::endpoint::Live;
use crate::op::{Chain, Failure, OpId, Operation};
use crate::proto::fence::{Fences, Place, Posted, Ticket};
use crate::provider::Rejected;
use crate::sys::rcu::Place as Borrowed;
use crate::sys::work;
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, rcu, Arc, SpinLockIrq};
use kernel::workqueue::{self, impl_has_work, new_work, Work, WorkItem};

/// How many are executed in one go: each may copy as much as a post does.
const BUDGET: usize = 16;

/// How many are made ready in one go, with interrupts disabled.
const RELEASED: usize = 64;

/// Places beyond the slots: for operations that were handed over, whose slots may be others' by now, and are not
/// uncounted yet. Each is one that somebody is just completing.
const SPARE: usize = 16;

/// What an endpoint with fences knows of what it has posted.
#[pin_data]
pub(crate) struct Fence {
    /// Through what operations are executed; none before the endpoint is enabled, and once it is
    /// closed.
    live: Borrowed<Live>,
    #[pin]
    state: SpinLockIrq<State>,
    #[pin]
    work: Work<Fence>,
}

impl_has_work! {
    impl HasWork<Self> for Fence { self.work }
}

impl WorkItem for Fence {
    type Pointer = Arc<Fence>;

    fn run(this: Arc<Fence>) {
        this.execute_some();
    }
}

struct State {
    table: Fences<KVVec<Place<Name>>>,
    /// What waits at each peer, by the number of its place, in the order of the posts.
    waiting: KVVec<Chain>,
    /// What waits no more, and is to be executed.
    ready: Chain,
    /// Whether somebody is executing what is ready.
    draining: bool,
    /// Whether posts are counted: the endpoint is enabled, and not closed.
    open: bool,
}

impl State {
    /// Makes ready what may go at `ticket`'s peer, but only so many; whether there may be more.
    fn release(&mut self, ticket: Ticket) -> bool {
        let Some(waiting) = self.waiting.get_mut(ticket.index()) else {
            return false;
        };
        for _ in 0..RELEASED {
            let fence = waiting.iter().next().map(|op| op.options().fence);
            if !fence.is_some_and(|fence| self.table.release(ticket, fence)) {
                return false;
            }
            if let Some(op) = waiting.pop() {
                self.ready.push(op);
            }
        }
        true
    }

    /// Takes an operation out that waits, and what it was counted by. Steps: all before it.
    fn find(&mut self, id: OpId) -> Option<(Operation, Option<Ticket>)> {
        let mut chains = self.waiting.iter_mut();
        let op = chains.find_map(|chain| chain.find(|op| op.id() == id))?;
        let ticket = op.ticket();
        Some((self.uncounted(op), ticket))
    }

    /// Takes all out that wait at a place.
    fn take(&mut self, place: usize) -> Chain {
        let mut taken = Chain::new();
        while let Some(op) = self.waiting.get_mut(place).and_then(Chain::pop) {
            taken.push(self.uncounted(op));
        }
        taken
    }

    /// An operation that was to go, and does not.
    fn uncounted(&mut self, mut op: Operation) -> Operation {
        if let Some(ticket) = op.ticket() {
            self.table.withdraw(ticket, op.peer().hash());
            op.op().set_ticket(None);
        }
        op
    }
}

impl Fence {
    /// For at most `slots` operations. May sleep. `ENOMEM`.
    pub(crate) fn new(slots: usize) -> Result<Arc<Self>> {
        let count = slots + SPARE;
        let mut places = KVVec::with_capacity(count, GFP_KERNEL)?;
        let mut waiting = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            places.push(Place::vacant(), GFP_KERNEL)?;
            waiting.push(Chain::new(), GFP_KERNEL)?;
        }
        let state = State {
            table: Fences::new(places),
            waiting,
            ready: Chain::new(),
            draining: false,
            open: false,
        };
        Arc::pin_init(
            pin_init!(Fence {
                live: Borrowed::empty(),
                state <- new_spinlock_irq!(state, "kfi_fence"),
                work <- new_work!("kfi_fence"),
            }),
            GFP_KERNEL,
        )
    }

    /// Begins: operations that waited are executed through `live`. Once.
    pub(crate) fn open(&self, live: &Arc<Live>) {
        self.live.put(live.clone());
        self.state.lock().open = true;
    }

    /// Counts a post; gives it back if it need not wait.
    ///
    /// `EAGAIN`: there is no place to count it; one comes with a completion that is under way.
    pub(crate) fn admit(&self, mut op: Operation) -> Result<Option<Operation>, Rejected> {
        let (peer, hash) = (*op.peer(), op.peer().hash());
        let mut state = self.state.lock();
        if !state.open {
            // Closed a moment ago; what it is given to says so.
            return Ok(Some(op));
        }
        match state.table.post(&peer, hash, op.options().fence) {
            Some(Posted::Wait(ticket)) => {
                op.op().set_ticket(Some(ticket));
                match state.waiting.get_mut(ticket.index()) {
                    Some(waiting) => waiting.push(op),
                    // There is a chain for each place.
                    None => {
                        state.table.withdraw(ticket, hash);
                        op.op().set_ticket(None);
                        return Err(Rejected { op, error: EINVAL });
                    }
                }
                Ok(None)
            }
            Some(Posted::Go(ticket)) => {
                op.op().set_ticket(Some(ticket));
                if state.draining || !state.ready.is_empty() {
                    // Somebody is just executing what was posted before, and takes this on: the
                    // endpoint may have an order.
                    state.ready.push(op);
                    return Ok(None);
                }
                Ok(Some(op))
            }
            // There is a place for each slot, and for some that are just handed over.
            None => Err(Rejected { op, error: EAGAIN }),
        }
    }

    /// Hands an operation over that went and has completed, and uncounts it; then executes what waited for it: any
    /// context but hardirq.
    ///
    /// In this order, so that no completion of what a fence has held back comes before it.
    pub(crate) fn end(self: &Arc<Self>, ticket: Ticket, hash: u64, hand_over: impl FnOnce()) {
        hand_over();
        self.ended(ticket, hash);
    }

    /// Uncounts an operation that went, and has completed or was handed back.
    ///
    /// Executes what waited for it: any context but hardirq.
    pub(crate) fn ended(self: &Arc<Self>, ticket: Ticket, hash: u64) {
        if self.state.lock().table.end(ticket, hash) {
            self.go_on(ticket);
        }
    }

    /// Executes what may go at `ticket`'s peer now. The lock is let go of now and then: others take their turn.
    fn go_on(self: &Arc<Self>, ticket: Ticket) {
        while self.state.lock().release(ticket) {}
        self.drain();
    }

    /// Executes what is ready, or has it executed.
    fn drain(self: &Arc<Self>) {
        // What is executed may complete at once, and come here again.
        if !core::mem::replace(&mut self.state.lock().draining, true) {
            self.execute_some();
        }
    }

    /// Executes some of what is ready, of whoever drains, and leaves the rest to the work item.
    fn execute_some(self: &Arc<Self>) {
        for _ in 0..BUDGET {
            if !self.execute_next() {
                return;
            }
        }
        // It is not queued: only who drains does so.
        let _ = workqueue::system_bh().enqueue(self.clone());
    }

    /// Executes the first of what is ready; `false` if there is none, and nobody drains any more.
    fn execute_next(&self) -> bool {
        // The end of the endpoint waits for it, as for a post.
        let section = rcu::read_lock();
        let mut state = self.state.lock();
        let Some(op) = state.ready.pop() else {
            state.draining = false;
            return false;
        };
        drop(state);
        let refused = match self.live.get(&section) {
            Some(live) => match live.refusal() {
                None => live.execute(op, &section),
                Some(error) => Err(Rejected { op, error }),
            },
            None => Err(Rejected {
                op,
                error: ECANCELED,
            }),
        };
        drop(section);
        // What can't be refused any more completes with an error.
        if let Err(Rejected { op, error }) = refused {
            op.complete(Err(Failure::not_executed(error)));
        }
        true
    }

    /// Takes an operation out again that waits.
    pub(crate) fn cancel(self: &Arc<Self>, id: OpId) -> Option<Operation> {
        let mut state = self.state.lock();
        let (op, ticket) = state.find(id)?;
        drop(state);
        if let Some(ticket) = ticket {
            // A fence may have gone from before others.
            self.go_on(ticket);
        }
        Some(op)
    }

    /// Completes with `error` what waits, of one who posts no more. Sleeps; process context.
    ///
    /// All that waits at a place in one step: what is behind a fence that ends is not to go instead.
    pub(crate) fn quit(&self, error: Error) {
        let places = self.state.lock().waiting.len();
        for at in 0..places {
            let mut waiting = self.state.lock().take(at);
            while let Some(op) = waiting.pop() {
                op.complete(Err(Failure::not_executed(error)));
            }
        }
    }

    /// Ends it: what waits completes with `error`. Sleeps; process context; no post is under way.
    pub(crate) fn close(self: &Arc<Self>, error: Error) {
        let mut state = self.state.lock();
        state.open = false;
        let mut ready = state.ready.take();
        let mut waiting = core::mem::replace(&mut state.waiting, KVVec::new());
        // Here, for the last operation that refers to this may go in a context that can't free it.
        let empty = Fences::new(KVVec::new());
        let table = core::mem::replace(&mut state.table, empty);
        drop(state);
        // Afterwards nobody executes anything any more.
        work::cancel(self);
        drop((self.live.take(), table));
        for chain in Iterator::chain(core::iter::once(&mut ready), &mut waiting) {
            while let Some(mut op) = chain.pop() {
                op.op().set_ticket(None);
                op.complete(Err(Failure::not_executed(error)));
            }
        }
    }
}

#[kunit_tests(kfabric_fence)]
mod tests {
    use super::*;
    use crate::op::testing::{request, Bench};
    use crate::op::{Kind, Level, Options, Request, Status, Success};
    use crate::provider::testing;
    use kernel::sync::atomic::Relaxed;
    use kernel::time::delay::fsleep;
    use kernel::time::Delta;

    /// A fence before an endpoint whose provider keeps what it gets.
    // In the order in which they go.
    struct Rig {
        fence: Arc<Fence>,
        slots: Bench<u64>,
        keeper: testing::Bench,
    }

    impl Rig {
        fn new() -> Result<Self> {
            Self::with(8)
        }

        /// With so many slots.
        fn with(slots: usize) -> Result<Self> {
            let rig = Rig {
                fence: Fence::new(slots)?,
                slots: Bench::new(slots, None)?,
                keeper: testing::Bench::new()?,
            };
            rig.fence.open(rig.keeper.ep.live());
            Ok(rig)
        }

        /// Posts the operation of this number, as an endpoint does.
        fn post(&self, number: u64, peer: &[u8], fence: bool) -> Result<OpId> {
            let options = Options {
                fence,
                ..Options::default()
            };
            let request = Request {
                options,
                peer: Name::new(peer)?,
                ..request(Kind::Send)
            };
            let (id, op) = self.slots.post_request(request, number)?;
            if let Some(op) = self.fence.admit(op).map_err(|rejected| rejected.error)? {
                let taken = self.keeper.ep.live().execute(op, &rcu::read_lock());
                taken.map_err(|rejected| rejected.error)?;
            }
            Ok(id)
        }

        /// Takes what the provider got since it was asked last.
        fn arrived(&self) -> Chain {
            self.keeper.opened.desk.take()
        }

        /// How many the provider has.
        fn kept(&self) -> Result<usize> {
            let mut arrived = self.arrived();
            let len = arrived.len();
            while let Some(op) = arrived.pop() {
                let again = self.keeper.ep.live().execute(op, &rcu::read_lock());
                again.map_err(|rejected| rejected.error)?;
            }
            Ok(len)
        }

        /// Completes an operation that the provider got, and lets those go that waited for it.
        fn complete(&self, op: Operation) {
            self.complete_and(op, || {});
        }

        /// As [`Rig::complete`], and does something once it can be read.
        fn complete_and(&self, mut op: Operation, f: impl FnOnce()) {
            let (ticket, hash) = (op.ticket(), op.peer().hash());
            op.op().set_ticket(None);
            let hand_over = || {
                op.complete(success());
                f();
            };
            match ticket {
                Some(ticket) => self.fence.end(ticket, hash, hand_over),
                None => hand_over(),
            }
        }

        /// Completes what the provider gets, in that order, until nothing comes any more.
        fn complete_all(&self) {
            while let Some(op) = self.next() {
                self.complete(op);
            }
        }

        /// Takes the first of what the provider has.
        fn next(&self) -> Option<Operation> {
            let mut arrived = self.arrived();
            let first = arrived.pop();
            while let Some(op) = arrived.pop() {
                // It was taken before, so it is again.
                let _ = self.keeper.ep.live().execute(op, &rcu::read_lock());
            }
            first
        }

        /// The numbers of those that have ended, and how.
        fn ended(&self) -> Option<(u64, Status)> {
            self.slots.read().map(|done| (done.context, done.result))
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            self.complete_all();
            self.fence.close(ECANCELED);
        }
    }

    fn success() -> Status {
        Ok(Success {
            len: 0,
            data: None,
            level: Level::Delivered,
        })
    }

    fn failure(error: Error) -> Status {
        Err(Failure::not_executed(error))
    }

    #[test]
    fn what_is_behind_a_fence_ends_with_it_when_its_poster_quits() -> Result {
        let rig = Rig::new()?;
        for (number, peer, fence) in [
            (0, b"a", false),
            (1, b"a", true),
            (2, b"a", false),
            (3, b"b", false),
            (4, b"b", true),
            (5, b"b", true),
        ] {
            rig.post(number, peer, fence)?;
        }
        assert_eq!(rig.kept()?, 2);
        rig.fence.quit(ECANCELED);
        let mut ended = 0;
        while let Some((number, how)) = rig.ended() {
            assert_eq!(how, failure(ECANCELED));
            ended |= 1_u32 << number;
        }
        assert_eq!((ended, rig.kept()?), (0b11_0110, 2));
        // What went before completes, and nothing comes after it.
        rig.complete_all();
        assert_eq!(rig.ended(), Some((0, success())));
        assert_eq!(rig.ended(), Some((3, success())));
        assert_eq!(rig.ended(), None);
        // It can be used on.
        rig.post(6, b"a", true)?;
        assert_eq!(rig.kept()?, 1);
        Ok(())
    }

    #[test]
    fn fenced_operation_waits_for_those_before_it_to_its_peer() -> Result {
        let rig = Rig::new()?;
        rig.post(0, b"a", false)?;
        rig.post(1, b"a", false)?;
        let fenced = rig.post(2, b"a", true)?;
        let behind = rig.post(3, b"a", false)?;
        // Another peer is not waited for, nor does it wait.
        let other = rig.post(4, b"b", true)?;
        let mut arrived = rig.arrived();
        assert_eq!(arrived.len(), 3);
        let (first, second) = (arrived.pop().ok_or(EINVAL)?, arrived.pop().ok_or(EINVAL)?);
        let other_op = arrived.pop().ok_or(EINVAL)?;
        assert!(other_op.id() == other);
        rig.complete(first);
        rig.complete(other_op);
        assert!(rig.arrived().is_empty());
        rig.complete(second);
        // In the order of the posts.
        let mut arrived = rig.arrived();
        for id in [fenced, behind] {
            let op = arrived.pop().ok_or(EINVAL)?;
            assert!(op.id() == id);
            rig.complete(op);
        }
        assert!(arrived.is_empty());
        for number in [0, 4, 1, 2, 3] {
            assert_eq!(rig.ended(), Some((number, success())));
        }
        Ok(())
    }

    #[test]
    fn slot_that_is_used_again_at_once_is_counted() -> Result {
        let rig = Rig::with(2)?;
        rig.post(0, b"a", false)?;
        rig.post(1, b"b", false)?;
        let mut posted = Err(EINVAL);
        let first = rig.next().ok_or(EINVAL)?;
        rig.complete_and(first, || {
            assert_eq!(rig.ended(), Some((0, success())));
            posted = rig.post(2, b"c", false);
        });
        posted?;
        let second = rig.next().ok_or(EINVAL)?;
        assert_eq!(second.peer(), &Name::new(b"b")?);
        rig.complete(second);
        assert_eq!(rig.ended(), Some((1, success())));
        rig.post(3, b"c", true)?;
        // It waits for that one.
        assert_eq!(rig.kept()?, 1);
        rig.complete_all();
        for number in [2, 3] {
            assert_eq!(rig.ended(), Some((number, success())));
        }
        Ok(())
    }

    #[test]
    fn fence_waits_for_what_is_just_handed_over() -> Result {
        let rig = Rig::new()?;
        rig.post(0, b"a", false)?;
        let (mut posted, mut waits) = (Err(EINVAL), false);
        let first = rig.next().ok_or(EINVAL)?;
        rig.complete_and(first, || {
            posted = rig.post(1, b"a", true);
            waits = rig.arrived().is_empty();
        });
        posted?;
        assert!(waits);
        rig.complete_all();
        for number in [0, 1] {
            assert_eq!(rig.ended(), Some((number, success())));
        }
        Ok(())
    }

    #[test]
    fn more_than_go_at_once_all_go() -> Result {
        const COUNT: u64 = 3 * BUDGET as u64;
        let rig = Rig::with(1 + COUNT as usize)?;
        rig.post(0, b"a", false)?;
        rig.post(1, b"a", true)?;
        for number in 2..=COUNT {
            rig.post(number, b"a", false)?;
        }
        let first = rig.next().ok_or(EINVAL)?;
        // The fence goes, and with it those behind it: some now, the others soon.
        rig.complete(first);
        assert_eq!(rig.ended(), Some((0, success())));
        let mut arrived = Chain::new();
        for _ in 0..10_000 {
            let mut some = rig.arrived();
            while let Some(op) = some.pop() {
                arrived.push(op);
            }
            if arrived.len() as u64 == COUNT {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
        // In the order of the posts.
        for number in 1..=COUNT {
            rig.complete(arrived.pop().ok_or(EINVAL)?);
            assert_eq!(rig.ended(), Some((number, success())));
        }
        assert!(arrived.is_empty() && rig.ended().is_none());
        Ok(())
    }

    #[test]
    fn fence_that_is_cancelled_lets_those_behind_it_go() -> Result {
        let rig = Rig::new()?;
        rig.post(0, b"a", false)?;
        let fenced = rig.post(1, b"a", true)?;
        rig.post(2, b"a", false)?;
        assert_eq!(rig.kept()?, 1);
        let op = rig.fence.cancel(fenced).ok_or(ENOENT)?;
        assert!(op.ticket().is_none());
        op.complete(failure(ECANCELED));
        assert!(rig.fence.cancel(fenced).is_none());
        assert_eq!(rig.kept()?, 2);
        rig.complete_all();
        for (number, status) in [(1, failure(ECANCELED)), (0, success()), (2, success())] {
            assert_eq!(rig.ended(), Some((number, status)));
        }
        // Those are not counted any more.
        rig.post(3, b"a", true)?;
        assert_eq!(rig.kept()?, 1);
        Ok(())
    }

    #[test]
    fn refusal_of_what_has_waited_is_its_completion() -> Result {
        let rig = Rig::new()?;
        rig.post(0, b"a", false)?;
        rig.post(1, b"a", true)?;
        rig.post(2, b"a", false)?;
        let first = rig.arrived().pop().ok_or(EINVAL)?;
        rig.keeper
            .opened
            .desk
            .reject
            .store(EAGAIN.to_errno(), Relaxed);
        rig.complete(first);
        assert!(rig.arrived().is_empty());
        assert_eq!(rig.ended(), Some((0, success())));
        for number in [1, 2] {
            assert_eq!(rig.ended(), Some((number, failure(EAGAIN))));
        }
        assert!(rig.ended().is_none());
        Ok(())
    }

    #[test]
    fn what_goes_after_the_mark_of_a_close_has_its_reason() -> Result {
        let rig = Rig::new()?;
        rig.post(0, b"a", false)?;
        rig.post(1, b"a", true)?;
        let first = rig.arrived().pop().ok_or(EINVAL)?;
        rig.keeper.ep.live().refuse(ENODEV);
        rig.complete(first);
        assert!(rig.arrived().is_empty());
        assert_eq!(rig.ended(), Some((0, success())));
        assert_eq!(rig.ended(), Some((1, failure(ENODEV))));
        Ok(())
    }

    #[test]
    fn close_ends_what_waits_and_counts_no_more() -> Result {
        let rig = Rig::new()?;
        rig.post(0, b"a", false)?;
        for number in 1..3 {
            rig.post(number, b"a", true)?;
        }
        rig.fence.close(ECANCELED);
        for number in 1..3 {
            assert_eq!(rig.ended(), Some((number, failure(ECANCELED))));
        }
        assert!(rig.ended().is_none());
        // What is in flight ends without it, and what is posted passes.
        rig.complete_all();
        assert_eq!(rig.ended(), Some((0, success())));
        for number in 3..5 {
            rig.post(number, b"a", true)?;
        }
        assert_eq!(rig.arrived().len(), 2);
        // Again: nothing is left to end. The endpoint was let go of.
        rig.fence.close(ECANCELED);
        assert!(rig.fence.live.take().is_none());
        Ok(())
    }
}
