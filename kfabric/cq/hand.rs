// SPDX-License-Identifier: GPL-2.0

//! What threads do that wait at a completion queue: turns which else a worker would take.
//!
//! Between two hosts a switch of task costs more than what is done for a short message. Who waits for a completion has
//! been given the CPU, or would be next, and brings the completion about itself: progress is made by who waits for it,
//! as with FI_PROGRESS_MANUAL of fi_domain(3). Nobody has to: where none waits, a worker takes the turn. That a post's
//! own context goes on as far as the socket is what nvme_tcp_queue_request() of the kernel does, too.
//!
//! Locks: `queues` is taken before the locks of queues.

use super::Queue;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};

/// What something has to do has turns.
pub(crate) trait Turns: Send + Sync {
    /// Does what there is to do now; whether there is more at once. Process context, may sleep.
    fn take_turn(self: Arc<Self>) -> bool;

    /// Has somebody take a turn soon. Any context but hardirq.
    fn call(self: Arc<Self>);
}

/// What the threads that wait at a queue have to do.
#[derive(Default)]
pub(super) struct Hand {
    /// A turn for the next of them.
    next: Option<Arc<dyn Turns>>,
    /// Nothing has called for it but what was set aside.
    is_aside: bool,
    /// Whose turn one of them takes.
    taken: Option<usize>,
    /// It was called meanwhile.
    again: bool,
}

/// What is told from others by it: as long as it exists, nothing else has it.
fn identity<T: Turns + ?Sized>(turns: &Arc<T>) -> usize {
    Arc::as_ptr(turns).cast::<()>().addr()
}

impl Hand {
    /// Takes out the next turn.
    pub(super) fn take(&mut self) -> Option<Arc<dyn Turns>> {
        self.is_aside = false;
        self.next.take()
    }

    /// Takes out the next turn, which is taken now, if it may be.
    pub(super) fn begin_if(&mut self, may: bool) -> Option<Arc<dyn Turns>> {
        let next = match may {
            true => self.take()?,
            false => return None,
        };
        // Of several that are taken at once one is noted: who calls another is told to seek a worker.
        self.taken.get_or_insert(identity(&next));
        Some(next)
    }

    /// A turn has ended, and there may be more at once. Gives back what was called meanwhile, and can't be next.
    pub(super) fn end(&mut self, turns: Arc<dyn Turns>, more: bool) -> (Arc<dyn Turns>, bool) {
        let mut is_called = more;
        if self.taken == Some(identity(&turns)) {
            is_called |= self.again;
            (self.taken, self.again) = (None, false);
        }
        if is_called && self.next.is_none() {
            self.next = Some(turns.clone());
            is_called = false;
        }
        (turns, is_called)
    }

    /// Takes a turn for one of so many that wait, or for who takes such a turn just now; whether it does.
    fn lend<T: Turns + 'static>(&mut self, turns: &Arc<T>, waiters: usize) -> bool {
        let who = Some(identity(turns));
        if self.taken == who {
            self.again = true;
            return true;
        }
        if waiters == 0 {
            return false;
        }
        let is_next = match &self.next {
            Some(next) => Some(identity(next)) == who,
            None => {
                self.next = Some(turns.clone());
                true
            }
        };
        self.is_aside &= !is_next;
        is_next
    }
}

impl Queue {
    /// Has who takes a turn of that just now take another; whether one does. Any context but hardirq.
    fn call_again<T: Turns + 'static>(&self, turns: &Arc<T>) -> bool {
        self.state.lock().hand.lend(turns, 0)
    }

    /// Has one that waits here take a turn; whether one does. Any context but hardirq.
    fn lend<T: Turns + 'static>(&self, turns: &Arc<T>) -> bool {
        let mut state = self.state.lock();
        let waiters = state.waiters;
        let lent = state.hand.lend(turns, waiters);
        if lent && waiters > 0 {
            self.arrival.notify_one();
        }
        lent
    }

    /// Has who comes next to wait here take a turn, if nobody does and none is there for who comes; until then it may
    /// be called off, see [`Queue::call_off`]. Any context but hardirq.
    pub(crate) fn set_aside<T: Turns + 'static>(&self, turns: &Arc<T>) {
        let mut state = self.state.lock();
        if state.waiters == 0 && state.hand.next.is_none() {
            state.hand.next = Some(turns.clone());
            state.hand.is_aside = true;
        }
    }

    /// Nobody needs to take a turn any more that was set aside. Any context but hardirq.
    pub(crate) fn call_off<T: Turns + 'static>(&self, turns: &Arc<T>) {
        let mut state = self.state.lock();
        let is_next = matches!(&state.hand.next, Some(next) if identity(next) == identity(turns));
        let next = match is_next && state.hand.is_aside {
            true => state.hand.take(),
            false => None,
        };
        drop(state);
        drop(next);
    }

    /// Takes a turn, and those that it asks for while no completion is here. Sleeps.
    pub(super) fn help(&self, turns: Arc<dyn Turns>) {
        let more = turns.clone().take_turn();
        let (turns, is_called) = self.state.lock().hand.end(turns, more);
        if is_called {
            turns.call();
        }
    }
}

/// The queues at which threads wait that may take turns for one endpoint.
#[pin_data]
pub(crate) struct Hands {
    #[pin]
    queues: SpinLockIrq<KVec<Where>>,
}

/// One of them.
struct Where {
    queue: Arc<Queue>,
    /// How many contexts of the endpoint are bound to it.
    contexts: usize,
}

impl Hands {
    /// Of at most so many queues. Sleeps. `ENOMEM`.
    pub(crate) fn new(queues: usize) -> Result<Arc<Self>> {
        let queues = KVec::with_capacity(queues, GFP_KERNEL)?;
        let hands = pin_init!(Hands {
            queues <- new_spinlock_irq!(queues, "kfi_hands"),
        });
        Arc::pin_init(hands, GFP_KERNEL)
    }

    /// Has one that waits at one of them take a turn; whether one does. Any context but hardirq.
    pub(crate) fn lend<T: Turns + 'static>(&self, turns: &Arc<T>) -> bool {
        let queues = self.queues.lock();
        let present = || {
            let all = queues.iter().map(|one| &one.queue);
            all.filter(|queue| queue.present.load(Relaxed) > 0)
        };
        let mut some = present();
        match (some.next(), some.next()) {
            (None, _) => false,
            (Some(only), None) => only.lend(turns),
            // Who takes such a turn first: another would wait for it.
            _ => {
                present().any(|queue| queue.call_again(turns))
                    || present().any(|queue| queue.lend(turns))
            }
        }
    }
}

/// A queue among them, until it is dropped.
pub(super) struct Joined {
    hands: Arc<Hands>,
    queue: Arc<Queue>,
}

impl Joined {
    pub(super) fn new(hands: &Arc<Hands>, queue: &Arc<Queue>) -> Self {
        let mut queues = hands.queues.lock();
        match queues.iter_mut().find(|one| Arc::ptr_eq(&one.queue, queue)) {
            Some(one) => one.contexts += 1,
            None => {
                let (queue, contexts) = (queue.clone(), 1);
                // One that finds no room is waited at, but no turn taken there.
                let _ = queues.push_within_capacity(Where { queue, contexts });
            }
        }
        drop(queues);
        Joined {
            hands: hands.clone(),
            queue: queue.clone(),
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut queues = self.hands.queues.lock();
        let mut all = queues.iter_mut().enumerate();
        let found = all.find(|(_, one)| Arc::ptr_eq(&one.queue, &self.queue));
        let emptied = found.and_then(|(at, one)| {
            one.contexts -= 1;
            (one.contexts == 0).then_some(at)
        });
        let gone = emptied.and_then(|at| queues.remove(at).ok());
        drop(queues);
        drop(gone);
    }
}

#[kunit_tests(kfabric_cq_hand)]
mod tests {
    use super::*;
    use crate::op::testing::{done, Bench};
    use crate::op::{Buffer, Kind, Operation};
    use kernel::sync::atomic::Atomic;
    use kernel::sync::{new_mutex, Mutex};
    use kernel::time::delay::fsleep;
    use kernel::time::{Delta, Instant, Monotonic};
    use kernel::workqueue;

    /// How long what is to come is waited for, in jiffies.
    const LONG: usize = 10_000;

    /// What counts its turns.
    #[pin_data]
    struct Counted {
        taken: Atomic<i32>,
        called: Atomic<i32>,
        /// How often there is more at once.
        more: Atomic<i32>,
        /// Where it is called in the midst of its first turn.
        queue: Option<Arc<Queue>>,
        /// What ends with a turn, and with which.
        #[pin]
        ends: Mutex<Option<(Operation, i32)>>,
    }

    impl Turns for Counted {
        fn take_turn(self: Arc<Self>) -> bool {
            let nth = self.taken.fetch_add(1, Relaxed);
            if nth == 0 {
                let lent = self.queue.as_ref().map(|queue| queue.lend(&self));
                self.called.add(i32::from(lent == Some(false)), Relaxed);
            }
            let ends = self.ends.lock().take_if(|(_, with)| *with == nth);
            if let Some((op, _)) = ends {
                // It may.
                fsleep(Delta::from_millis(1));
                op.complete(done(0));
            }
            self.more.fetch_add(-1, Relaxed) > 0
        }

        fn call(self: Arc<Self>) {
            self.called.add(1, Relaxed);
        }
    }

    fn counted(
        more: i32,
        queue: Option<&Arc<Queue>>,
        ends: Option<(Operation, i32)>,
    ) -> Result<Arc<Counted>> {
        let queue = queue.cloned();
        let counted = pin_init!(Counted {
            taken: Atomic::new(0),
            called: Atomic::new(0),
            more: Atomic::new(more),
            queue,
            ends <- new_mutex!(ends, "kfi_kunit_ends"),
        });
        Arc::pin_init(counted, GFP_KERNEL)
    }

    /// How often its turn was taken, and how often somebody was called.
    fn counts(counted: &Counted) -> (i32, i32) {
        (counted.taken.load(Relaxed), counted.called.load(Relaxed))
    }

    #[test]
    fn turn_that_is_set_aside_is_for_who_comes_to_wait() -> Result {
        let queue = Queue::new(1, None)?;
        let (one, other) = (counted(0, None, None)?, counted(0, None, None)?);
        assert!(!queue.lend(&one));
        queue.set_aside(&one);
        queue.set_aside(&other);
        queue.call_off(&other);
        assert_eq!(queue.wait(2), Err(ETIMEDOUT));
        assert_eq!((counts(&one), counts(&other)), ((1, 0), (0, 0)));
        queue.set_aside(&one);
        queue.call_off(&one);
        assert_eq!(queue.wait(2), Err(ETIMEDOUT));
        assert_eq!(counts(&one), (1, 0));
        // Who can't wait leaves it to others.
        queue.set_aside(&one);
        assert_eq!(queue.wait(0), Err(ETIMEDOUT));
        assert_eq!(counts(&one), (1, 1));
        // Nothing is kept of what nobody does.
        queue.set_aside(&one);
        queue.shut();
        assert_eq!(counts(&one), (1, 1));
        assert!(Arc::into_unique_or_drop(one).is_some());
        Ok(())
    }

    #[test]
    fn turns_go_on_until_a_completion_is_here() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let queue = &bench.queue;
        // It is called in the midst of the first turn, which says that there is no more.
        for (more, with, counts_then) in [(0, 1, (2, 0)), (2, 2, (3, 0)), (5, 0, (1, 1))] {
            let (_, op) = bench.post(Kind::Send, Buffer::empty(), 1)?;
            let item = counted(more, Some(queue), Some((op, with)))?;
            queue.set_aside(&item);
            queue.wait(LONG)?;
            // What is left is for others.
            assert_eq!(counts(&item), counts_then);
            assert!(bench.read().is_some());
        }
        Ok(())
    }

    #[test]
    fn call_for_one_of_two_that_are_taken_at_once_is_heard() -> Result {
        let (one, other) = (counted(0, None, None)?, counted(0, None, None)?);
        let mut hand = Hand::default();
        assert!(hand.begin_if(true).is_none());
        assert!(hand.lend(&one, 1) && hand.begin_if(false).is_none());
        let first = hand.begin_if(true).ok_or(EINVAL)?;
        assert!(hand.lend(&one, 0) && !hand.lend(&other, 0));
        assert!(hand.lend(&other, 1));
        let second = hand.begin_if(true).ok_or(EINVAL)?;
        assert!(!hand.lend(&other, 0));
        assert!(!hand.end(second, false).1 && hand.take().is_none());
        assert!(!hand.end(first, false).1);
        let next = hand.take().ok_or(EINVAL)?;
        assert_eq!(identity(&next), identity(&one));
        assert!(!hand.lend(&one, 0));
        Ok(())
    }

    #[test]
    fn turn_that_was_called_for_is_not_called_off() -> Result {
        let queue = Queue::new(1, None)?;
        let item = counted(0, None, None)?;
        queue.set_aside(&item);
        let turns = queue.state.lock().hand.begin_if(true).ok_or(EINVAL)?;
        assert!(queue.lend(&item));
        assert!(!queue.state.lock().hand.end(turns, false).1);
        queue.call_off(&item);
        assert_eq!(queue.wait(0), Err(ETIMEDOUT));
        assert_eq!(counts(&item), (0, 1));
        Ok(())
    }

    #[test]
    fn turns_without_an_end_do_not_take_longer_than_the_wait() -> Result {
        let queue = Queue::new(1, None)?;
        let endless = counted(i32::MAX, None, None)?;
        queue.set_aside(&endless);
        let begin = Instant::<Monotonic>::now();
        assert_eq!(queue.wait(20), Err(ETIMEDOUT));
        // Nor is the wait over early, however short they are.
        assert!(begin.elapsed() >= Delta::from_nanos(19 * super::super::jiffy().get() as i64));
        let (taken, called) = counts(&endless);
        assert!(taken > 0 && called == 1);
        Ok(())
    }

    #[test]
    fn who_waits_takes_turns_of_the_endpoints_of_its_queue() -> Result {
        let benches = [Bench::<u64>::new(1, None)?, Bench::new(1, None)?];
        let hands = Hands::new(2)?;
        let joined = [
            Joined::new(&hands, &benches[0].queue),
            Joined::new(&hands, &benches[1].queue),
        ];
        let (_, op) = benches[1].post(Kind::Send, Buffer::empty(), 1)?;
        let brings = counted(0, None, Some((op, 0)))?;
        assert!(!hands.lend(&brings));
        let (ended, queue) = (
            Arc::new(Atomic::new(0), GFP_KERNEL)?,
            benches[1].queue.clone(),
        );
        let waited = ended.clone();
        workqueue::system().try_spawn(GFP_KERNEL, move || {
            let is_well = queue.wait(LONG).is_ok();
            drop(queue);
            waited.store(1 + i32::from(is_well), Relaxed);
        })?;
        while !hands.lend(&brings) && ended.load(Relaxed) == 0 {
            fsleep(Delta::from_millis(1));
        }
        while ended.load(Relaxed) == 0 {
            fsleep(Delta::from_millis(1));
        }
        assert_eq!((ended.load(Relaxed), counts(&brings)), (2, (1, 0)));
        drop(joined);
        assert!(!hands.lend(&brings));
        Ok(())
    }
}
