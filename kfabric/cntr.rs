// SPDX-License-Identifier: GPL-2.0

//! Counters: how much went well, and how much failed.
//!
//! | file | noun |
//! |---|---|
//! | `bound` | the counters of an endpoint |
//! | `counts` | what a counter counts |
//!
//! Endpoints and consumers add to a counter, and wait for a value. It counts in atomics of its own,
//! since endpoints of several queues may share it, and takes its lock only if somebody waits for
//! what has just been reached: `watched` is the lowest value that anybody waits for. Who counts adds
//! first and looks at it then; who begins to wait sets it first and looks at the value then. Both
//! steps are fully ordered, so one of the two sees the other.
//!
//! **Callback.** [`Counter::notify_at`] arms it. It fires once when the value reaches the threshold,
//! in softirq context (a BH work item), never from inside a post, never twice at once, and never
//! after [`Counter::close`].
//!
//! Locks: `state` and `callback` are leaf locks, interrupts disabled. See
//! Documentation/contexts.rst and counters.rst. Source: fi_cntr(3).

use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use crate::sys::work;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};
use kernel::sync::{
    new_condvar, new_spinlock_irq, Arc, CondVar, CondVarTimeoutResult, SpinLockIrq,
};
use kernel::time::{msecs_to_jiffies, Msecs};
use kernel::workqueue::{self, impl_has_work, new_work, Work, WorkItem};

mod bound;
mod counts;

pub(crate) use bound::{Bound, Chosen, Counters};
pub use counts::Counts;

/// What a consumer wants to be told of a counter.
pub trait Threshold: Send + Sync + 'static {
    /// The counter has reached the threshold that was armed.
    ///
    /// Softirq context: must not sleep. May post, and arm the next threshold: a higher one than the
    /// value, since softirqs are not to run without a bound. Never close.
    fn reached(&self, cntr: &Reading<'_>);
}

impl<F: Fn(&Reading<'_>) + Send + Sync + 'static> Threshold for F {
    fn reached(&self, cntr: &Reading<'_>) {
        self(cntr)
    }
}

/// A counter, as its callback sees it.
pub struct Reading<'a>(&'a Arc<Core>);

impl Reading<'_> {
    /// As [`Counter::value`].
    pub fn value(&self) -> u64 {
        self.0.value()
    }

    /// As [`Counter::errors`].
    pub fn errors(&self) -> u64 {
        self.0.errors()
    }

    /// As [`Counter::notify_at`]. `EINVAL`: the counter is being closed.
    pub fn notify_at(&self, threshold: u64) -> Result {
        self.0.notify_at(threshold)
    }
}

/// What a counter shares with the endpoints bound to it.
#[pin_data]
pub(crate) struct Core {
    value: Atomic<u64>,
    errors: Atomic<u64>,
    /// Nobody waits for a value below this one. Written with the lock held.
    watched: Atomic<u64>,
    /// How many wait. Written with the lock held.
    waiters: Atomic<u32>,
    /// How many kinds of operations of endpoints it counts.
    bound: Atomic<i32>,
    #[pin]
    state: SpinLockIrq<State>,
    #[pin]
    callback: SpinLockIrq<Option<Arc<dyn Threshold>>>,
    #[pin]
    arrival: CondVar,
    #[pin]
    work: Work<Core>,
}

struct State {
    /// Which value fires the callback.
    armed: Option<u64>,
    /// Whether there is a callback.
    notifies: bool,
    /// How often it was called.
    called: u64,
}

/// Nobody waits.
const NOBODY: u64 = u64::MAX;

static NEXT_ID: Atomic<u64> = Atomic::new(1);

impl_has_work! {
    impl HasWork<Self> for Core { self.work }
}

impl WorkItem for Core {
    type Pointer = Arc<Core>;

    fn run(this: Arc<Core>) {
        let callback = this.callback.lock().clone();
        if let Some(callback) = callback {
            this.state.lock().called += 1;
            callback.reached(&Reading(&this));
        }
    }
}

impl Core {
    fn new(callback: Option<Arc<dyn Threshold>>) -> Result<Arc<Self>> {
        let state = State {
            armed: None,
            notifies: callback.is_some(),
            called: 0,
        };
        Arc::pin_init(
            pin_init!(Core {
                value: Atomic::new(0),
                errors: Atomic::new(0),
                watched: Atomic::new(NOBODY),
                waiters: Atomic::new(0),
                bound: Atomic::new(0),
                state <- new_spinlock_irq!(state, "kfi_cntr"),
                callback <- new_spinlock_irq!(callback, "kfi_cntr_callback"),
                arrival <- new_condvar!("kfi_cntr_arrival"),
                work <- new_work!("kfi_cntr_callback"),
            }),
            GFP_KERNEL,
        )
    }

    fn value(&self) -> u64 {
        self.value.load(Acquire)
    }

    fn errors(&self) -> u64 {
        self.errors.load(Acquire)
    }

    #[inline]
    fn add(self: &Arc<Self>, n: u64) {
        let value = self.value.fetch_add(n, Full).wrapping_add(n);
        self.look(value);
    }

    fn set(self: &Arc<Self>, value: u64) {
        self.value.xchg(value, Full);
        self.look(value);
    }

    fn add_errors(&self, n: u64) {
        self.errors.fetch_add(n, Full);
        if self.waiters.load(Relaxed) > 0 {
            // Under the lock: whoever has looked at the errors sleeps by now.
            let state = self.state.lock();
            self.arrival.notify_all();
            drop(state);
        }
    }

    /// Tells those who wait for a value that has been reached.
    #[inline]
    fn look(self: &Arc<Self>, value: u64) {
        if value >= self.watched.load(Relaxed) {
            self.tell(value);
        }
    }

    #[cold]
    fn tell(self: &Arc<Self>, value: u64) {
        let mut state = self.state.lock();
        if state.armed.is_some_and(|threshold| value >= threshold) {
            state.armed = None;
            // Under the lock, so that none is queued after `shut` has cancelled the work item. A
            // refusal means that it is queued already: one call tells of both.
            let _ = workqueue::system_bh().enqueue(self.clone());
        }
        // Those who wait for more set it again before they sleep.
        self.watched.xchg(state.armed.unwrap_or(NOBODY), Full);
        self.arrival.notify_all();
    }

    /// Sees to it that whoever reaches `threshold` looks here. The caller holds the lock.
    fn watch(&self, threshold: u64) {
        let watched = self.watched.load(Relaxed);
        self.watched.xchg(watched.min(threshold), Full);
    }

    fn notify_at(self: &Arc<Self>, threshold: u64) -> Result {
        let mut state = self.state.lock();
        if !state.notifies {
            return Err(EINVAL);
        }
        state.armed = Some(threshold);
        self.watch(threshold);
        drop(state);
        self.look(self.value());
        Ok(())
    }

    fn wait(&self, threshold: u64, timeout: Msecs) -> Result {
        let before = self.errors();
        if self.value() >= threshold {
            return Ok(());
        }
        let mut left = msecs_to_jiffies(timeout);
        let mut state = self.state.lock();
        self.waiters.fetch_add(1, Full);
        let waited = loop {
            self.watch(threshold);
            if self.value() >= threshold {
                break Ok(());
            }
            if self.errors() != before {
                break Err(EIO);
            }
            if left == 0 {
                break Err(ETIMEDOUT);
            }
            left = match self.arrival.wait_interruptible_timeout(&mut state, left) {
                CondVarTimeoutResult::Woken { jiffies } => jiffies,
                CondVarTimeoutResult::Timeout => 0,
                CondVarTimeoutResult::Signal { .. } => break Err(ERESTARTSYS),
            };
        };
        self.waiters.fetch_sub(1, Relaxed);
        drop(state);
        waited
    }

    fn bind(&self) {
        self.bound.add(1, Relaxed);
    }

    fn unbind(&self) {
        self.bound.fetch_sub(1, Full);
    }

    /// Writes what it counts.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = self.state.lock().called;
        let rows = [
            ("value", self.value()),
            ("errors", self.errors()),
            ("bound", self.bound.load(Relaxed).max(0) as u64),
            ("callbacks", called),
            ("waiters", self.waiters.load(Relaxed).into()),
        ];
        debugfs::rows(f, &rows)
    }

    /// Ends the callback.
    fn shut(self: &Arc<Self>) {
        // Kept until the work item is through, so that the last reference to the consumer's
        // callback is dropped here, in process context.
        let callback = self.callback.lock().take();
        let mut state = self.state.lock();
        state.armed = None;
        state.notifies = false;
        drop(state);
        work::cancel(self);
        drop(callback);
    }
}

/// A counter: of what endpoints do, or of anything.
///
/// Dropping it ends the callback; but see [`Counter::close`], which refuses rather than to cut
/// endpoints off. Process context, may sleep.
pub struct Counter {
    _file: debugfs::File,
    core: Arc<Core>,
    domain: Child,
}

impl Counter {
    /// Makes a counter of value 0, with an optional callback, not armed.
    ///
    /// May sleep. Source: fi_cntr_open(3).
    ///
    /// # Errors
    /// - `ENODEV`: the domain has ended.
    /// - `ENOMEM`.
    pub fn new(domain: &Domain, callback: Option<Arc<dyn Threshold>>) -> Result<Self> {
        let child = domain.child(Class::Counter)?;
        let core = Core::new(callback)?;
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Ok(Counter {
            _file: debugfs::file(
                domain.dir(),
                fmt!("cntr-{id}"),
                Shown::Counter(core.clone()),
            )?,
            core,
            domain: child,
        })
    }

    /// How much went well.
    ///
    /// What an operation did before it was counted is visible to whoever has read its count. Never
    /// sleeps; any context but hardirq. Source: fi_cntr_read(3).
    pub fn value(&self) -> u64 {
        self.core.value()
    }

    /// How much failed. As [`Counter::value`]. Source: fi_cntr_readerr(3).
    pub fn errors(&self) -> u64 {
        self.core.errors()
    }

    /// Adds `n` to the value, which goes on at 0 beyond its greatest.
    ///
    /// Never sleeps; any context but hardirq. Source: fi_cntr_add(3).
    pub fn add(&self, n: u64) {
        self.core.add(n);
    }

    /// Adds `n` to the errors. As [`Counter::add`]. Source: fi_cntr_adderr(3).
    pub fn add_errors(&self, n: u64) {
        self.core.add_errors(n);
    }

    /// Sets the value. As [`Counter::add`]. Source: fi_cntr_set(3).
    ///
    /// Who waits for a value that it takes back may see it or not.
    pub fn set(&self, value: u64) {
        self.core.set(value);
    }

    /// Waits until the value is at least `threshold`, at most `timeout` milliseconds.
    ///
    /// Sleeps; process context. Source: fi_cntr_wait(3).
    ///
    /// # Errors
    /// - `EIO`: the errors grew meanwhile. Those from before the call don't end it. Source:
    ///   FI_EAVAIL.
    /// - `ETIMEDOUT`: it did not come so far.
    /// - `ERESTARTSYS`: a signal came first.
    pub fn wait(&self, threshold: u64, timeout: Msecs) -> Result {
        self.core.wait(threshold, timeout)
    }

    /// Has the callback called, once, when the value is at least `threshold`.
    ///
    /// Soon, if it is already. Replaces the threshold that was armed before; if that was reached, and
    /// the callback has not begun yet, one call tells of both. Never sleeps; any context but hardirq.
    ///
    /// # Errors
    /// - `EINVAL`: the counter has no callback.
    pub fn notify_at(&self, threshold: u64) -> Result {
        self.core.notify_at(threshold)
    }

    /// Closes the counter. No callback runs afterwards.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// - `EBUSY`, and the counter again: endpoints are bound to it.
    pub fn close(self) -> Result<(), (Error, Self)> {
        if self.core.bound.load(Acquire) > 0 {
            return Err((EBUSY, self));
        }
        Ok(())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.core.shut();
    }
}

#[kunit_tests(kfabric_cntr)]
mod tests {
    use super::*;
    use kernel::str::CString;
    use kernel::time::delay::fsleep;
    use kernel::time::Delta;

    struct Calls(Atomic<u64>);

    impl Threshold for Calls {
        fn reached(&self, cntr: &Reading<'_>) {
            let value = cntr.value().wrapping_mul(100);
            self.0.fetch_add(value.wrapping_add(1), Full);
        }
    }

    /// Counts its calls, and a hundred for each unit of the value that it saw.
    fn calls() -> Result<Arc<Calls>> {
        Ok(Arc::new(Calls(Atomic::new(0)), GFP_KERNEL)?)
    }

    #[test]
    fn value_and_errors_are_counted_apart_and_wrap() -> Result {
        let cntr = Core::new(None)?;
        cntr.add(0);
        assert_eq!((cntr.value(), cntr.errors()), (0, 0));
        cntr.add(3);
        cntr.add_errors(2);
        assert_eq!((cntr.value(), cntr.errors()), (3, 2));
        cntr.set(u64::MAX);
        assert_eq!((cntr.value(), cntr.errors()), (u64::MAX, 2));
        cntr.add(2);
        cntr.add_errors(u64::MAX);
        assert_eq!((cntr.value(), cntr.errors()), (1, 1));
        Ok(())
    }

    #[test]
    fn wait_ends_at_its_threshold_or_its_time() -> Result {
        let cntr = Core::new(None)?;
        cntr.wait(0, 0)?;
        assert_eq!(cntr.wait(1, 0), Err(ETIMEDOUT));
        assert_eq!(cntr.wait(1, 2), Err(ETIMEDOUT));
        cntr.add(5);
        cntr.wait(5, 0)?;
        cntr.wait(4, 1000)?;
        assert_eq!(cntr.wait(6, 2), Err(ETIMEDOUT));
        // Errors from before don't end it.
        cntr.add_errors(1);
        cntr.wait(5, 0)?;
        assert_eq!(cntr.wait(6, 2), Err(ETIMEDOUT));
        assert_eq!(cntr.waiters.load(Relaxed), 0);
        Ok(())
    }

    /// Counts once somebody waits: first what is not enough to end a wait for 10, then what does.
    #[pin_data]
    struct Later {
        cntr: Arc<Core>,
        errors: u64,
        #[pin]
        work: Work<Later>,
    }

    impl_has_work! {
        impl HasWork<Self> for Later { self.work }
    }

    impl WorkItem for Later {
        type Pointer = Arc<Later>;

        fn run(this: Arc<Later>) {
            while this.cntr.waiters.load(Relaxed) == 0 {
                fsleep(Delta::from_millis(1));
            }
            this.cntr.add(9);
            match this.errors {
                0 => this.cntr.add(1),
                errors => this.cntr.add_errors(errors),
            }
        }
    }

    #[test]
    fn wait_is_ended_by_what_others_count() -> Result {
        for (errors, expected) in [(0, Ok(())), (1, Err(EIO))] {
            let cntr = Core::new(None)?;
            let counted = cntr.clone();
            let later = Arc::pin_init(
                pin_init!(Later {
                    cntr: counted,
                    errors,
                    work <- new_work!("kfi_cntr_test"),
                }),
                GFP_KERNEL,
            )?;
            let _ = workqueue::system().enqueue(later.clone());
            assert_eq!(cntr.wait(10, 10_000), expected);
            work::flush(&later.work);
        }
        Ok(())
    }

    #[test]
    fn callback_comes_once_for_each_time_it_is_armed() -> Result {
        let calls = calls()?;
        let cntr = Core::new(Some(calls.clone()))?;
        let called = || {
            work::flush(&cntr.work);
            calls.0.xchg(0, Full)
        };
        cntr.add(7);
        assert_eq!(called(), 0);
        cntr.notify_at(10)?;
        cntr.add(2);
        assert_eq!(called(), 0);
        cntr.add(1);
        assert_eq!(called(), 1001);
        cntr.add(1);
        assert_eq!(called(), 0);
        // At once, if it is reached already.
        cntr.notify_at(0)?;
        assert_eq!(called(), 1101);
        // The last threshold is the one that counts.
        cntr.notify_at(12)?;
        cntr.notify_at(13)?;
        cntr.add(1);
        assert_eq!(called(), 0);
        cntr.set(13);
        assert_eq!(called(), 1301);
        // The greatest value may be waited for.
        cntr.notify_at(u64::MAX)?;
        cntr.set(u64::MAX - 1);
        assert_eq!(called(), 0);
        cntr.notify_at(1000)?;
        called();
        cntr.notify_at(u64::MAX)?;
        cntr.set(0);
        cntr.set(u64::MAX);
        assert_ne!(called(), 0);
        cntr.shut();
        Ok(())
    }

    #[test]
    fn waits_and_a_callback_have_thresholds_of_their_own() -> Result {
        let calls = calls()?;
        let cntr = Core::new(Some(calls.clone()))?;
        cntr.notify_at(5)?;
        assert_eq!(cntr.wait(3, 1), Err(ETIMEDOUT));
        cntr.add(3);
        assert_eq!(cntr.wait(9, 1), Err(ETIMEDOUT));
        work::flush(&cntr.work);
        assert_eq!(calls.0.load(Relaxed), 0);
        cntr.add(2);
        work::flush(&cntr.work);
        assert_eq!(calls.0.load(Relaxed), 501);
        cntr.shut();
        Ok(())
    }

    #[test]
    fn callback_does_not_come_after_the_end() -> Result {
        let calls = calls()?;
        let cntr = Core::new(Some(calls.clone()))?;
        cntr.notify_at(1)?;
        cntr.shut();
        cntr.add(1);
        assert_eq!(cntr.notify_at(0), Err(EINVAL));
        work::flush(&cntr.work);
        assert_eq!(calls.0.load(Relaxed), 0);
        assert!(cntr.callback.lock().is_none());
        assert_eq!(Core::new(None)?.notify_at(0), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn counter_shows_what_it_counts() -> Result {
        let cntr = Core::new(None)?;
        cntr.add(5);
        cntr.add_errors(3);
        cntr.bind();
        let shown = CString::try_from_fmt(fmt!("{}", Shown::Counter(cntr)))?;
        assert!(*shown == *c"value 5\nerrors 3\nbound 1\ncallbacks 0\nwaiters 0\n");
        Ok(())
    }
}
