// SPDX-License-Identifier: GPL-2.0

//! Work items: what `kernel::workqueue` lacks.

use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{msecs_to_jiffies, Msecs};
use kernel::workqueue::{HasDelayedWork, HasWork, RawDelayedWorkItem, RawWorkItem, Work, WorkItem};

/// Waits until `work` neither runs nor waits to run. Sleeps; process context, not from the work.
pub fn flush<T: ?Sized>(work: &Work<T>) {
    // SAFETY: `work` is initialised, since a reference to it exists, and stays so meanwhile.
    unsafe { bindings::flush_work(Work::raw_get(work)) };
}

/// Cancels `item`'s work, and waits until it does not run. Sleeps; process context, not from the work.
///
/// Unlike [`flush`] it may be called from work queues that are used in memory reclaim, whatever queue
/// the work is on.
pub(crate) fn cancel<T>(item: &Arc<T>)
where
    T: HasWork<T> + WorkItem<Pointer = Arc<T>>,
{
    let raw = Arc::as_ptr(item).cast_mut();
    // SAFETY: It points at a valid `T`, since a reference to it exists.
    let work = unsafe { T::raw_get_work(raw) };
    // SAFETY: The work is initialised, as part of a valid `T`, and stays so meanwhile.
    let pending = unsafe { bindings::cancel_work_sync(Work::raw_get(work)) };
    if pending {
        // SAFETY: Queueing turned an `Arc<T>` into a raw pointer, which the work would have turned
        // back; it will not run any more.
        drop(unsafe { Arc::from_raw(raw.cast_const()) });
    }
}

/// As [`cancel`], of the delayed work of `item` that has this number.
pub(crate) fn cancel_delayed<T, const ID: u64>(item: &Arc<T>)
where
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    let raw = Arc::as_ptr(item).cast_mut();
    // SAFETY: As in `cancel`.
    let work = unsafe { T::raw_get_work(raw) };
    // SAFETY: The work is initialised, as part of a valid `T`, and stays so meanwhile; it is that of a delayed work.
    let pending = unsafe {
        bindings::cancel_delayed_work_sync(kernel::container_of!(
            Work::raw_get(work),
            bindings::delayed_work,
            work
        ))
    };
    if pending {
        // SAFETY: As in `cancel`.
        drop(unsafe { Arc::from_raw(raw.cast_const()) });
    }
}

/// Calls off the delayed work of `item` that has this number, if it has not begun. Any context but hardirq, with a
/// reference to the item beside the work's.
pub(crate) fn call_off_delayed<T, const ID: u64>(item: &Arc<T>)
where
    T: HasDelayedWork<T, ID> + WorkItem<ID, Pointer = Arc<T>>,
{
    let raw = Arc::as_ptr(item).cast_mut();
    // SAFETY: As in `cancel`.
    let work = unsafe { T::raw_get_work(raw) };
    // SAFETY: As in `cancel_delayed`.
    let pending = unsafe {
        bindings::cancel_delayed_work(kernel::container_of!(
            Work::raw_get(work),
            bindings::delayed_work,
            work
        ))
    };
    if pending {
        // SAFETY: As in `cancel`.
        drop(unsafe { Arc::from_raw(raw.cast_const()) });
    }
}

/// A work queue of one's own, so that no work item runs a module's text after it is gone.
///
/// Concurrency-managed, usable in memory reclaim. Dropping it waits for its items.
///
/// Where its items run is the kernel's policy for unbound work queues, and the only one that kfabric has:
/// close to who queued them, on a CPU that shares its last-level cache, and so on its NUMA node. Source:
/// Documentation/core-api/workqueue.rst of the kernel.
pub struct WorkQueue(core::ptr::NonNull<bindings::workqueue_struct>);

// SAFETY: Work queues may be used from any thread.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Makes a work queue that an administrator can place: /sys/devices/virtual/workqueue/NAME. May sleep.
    ///
    /// `ENOMEM`: or there is one of that name.
    pub fn new(name: &'static CStr) -> Result<Self> {
        Self::with_flags(name, bindings::wq_flags_WQ_SYSFS)
    }

    /// Makes one that sysfs does not show: of which there may be several. May sleep. `ENOMEM`.
    pub fn unlisted(name: &'static CStr) -> Result<Self> {
        Self::with_flags(name, 0)
    }

    fn with_flags(name: &'static CStr, flags: bindings::wq_flags) -> Result<Self> {
        // SAFETY: The name is a C string; the format takes it as its only argument.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_MEM_RECLAIM | flags,
                0,
                name.as_char_ptr(),
            )
        };
        Ok(WorkQueue(core::ptr::NonNull::new(queue).ok_or(ENOMEM)?))
    }

    /// Queues `item`; `false` if it is queued already. Any context.
    pub fn enqueue<T>(&self, item: Arc<T>) -> bool
    where
        Arc<T>: RawWorkItem<0, EnqueueOutput = core::result::Result<(), Arc<T>>> + Send + 'static,
    {
        // SAFETY: The work queue lives as long as `self`.
        let queue = unsafe { kernel::workqueue::Queue::from_raw(self.0.as_ptr()) };
        queue.enqueue(item).is_ok()
    }

    /// Queues the delayed work of `item` that has this number, in so many milliseconds and at most two ticks more;
    /// `false` if it waits already. Any context.
    pub(crate) fn enqueue_delayed<T, const ID: u64>(&self, item: Arc<T>, delay: Msecs) -> bool
    where
        T: WorkItem<ID, Pointer = Arc<T>>,
        Arc<T>: RawDelayedWorkItem<ID, EnqueueOutput = core::result::Result<(), Arc<T>>>
            + Send
            + 'static,
    {
        // SAFETY: The work queue lives as long as `self`.
        let queue = unsafe { kernel::workqueue::Queue::from_raw(self.0.as_ptr()) };
        queue.enqueue_delayed(item, msecs_to_jiffies(delay)).is_ok()
    }

    /// Waits until no item is left; none but items may queue meanwhile. Sleeps; process context, not
    /// from an item.
    pub fn drain(&self) {
        // SAFETY: The work queue lives as long as `self`.
        unsafe { bindings::drain_workqueue(self.0.as_ptr()) };
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: It was made by `new`, and nobody else can queue to it any more.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

#[kunit_tests(kfabric_work)]
mod tests {
    use super::*;
    use kernel::sync::atomic::{Atomic, Relaxed};
    use kernel::sync::Completion;
    use kernel::time::delay::fsleep;
    use kernel::time::Delta;
    use kernel::workqueue::{
        self, impl_has_delayed_work, impl_has_work, new_delayed_work, new_work, DelayedWork,
    };

    /// Where an item waits until it may go on.
    #[pin_data]
    struct Gate {
        #[pin]
        begun: Completion,
        #[pin]
        may: Completion,
    }

    #[pin_data]
    struct Item {
        gate: Option<Arc<Gate>>,
        runs: Atomic<i32>,
        #[pin]
        work: Work<Item>,
    }

    impl_has_work! {
        impl HasWork<Self> for Item { self.work }
    }

    impl WorkItem for Item {
        type Pointer = Arc<Item>;

        fn run(this: Arc<Item>) {
            if let Some(gate) = &this.gate {
                gate.begun.complete_all();
                gate.may.wait_for_completion();
            }
            this.runs.add(1, Relaxed);
        }
    }

    #[pin_data]
    struct Late {
        runs: Atomic<i32>,
        #[pin]
        work: DelayedWork<Late>,
    }

    impl_has_delayed_work! {
        impl HasDelayedWork<Self> for Late { self.work }
    }

    impl WorkItem for Late {
        type Pointer = Arc<Late>;

        fn run(this: Arc<Late>) {
            this.runs.add(1, Relaxed);
        }
    }

    fn gate() -> Result<Arc<Gate>> {
        Arc::pin_init(
            pin_init!(Gate {
                begun <- Completion::new(),
                may <- Completion::new(),
            }),
            GFP_KERNEL,
        )
    }

    fn item(gate: Option<Arc<Gate>>) -> Result<Arc<Item>> {
        Arc::pin_init(
            pin_init!(Item {
                gate,
                runs: Atomic::new(0),
                work <- new_work!("kfi_kunit"),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether it waits to run.
    fn is_pending(item: &Item) -> bool {
        // SAFETY: The work is initialised, as part of a valid item.
        let raw = unsafe { Work::raw_get(&item.work) };
        // SAFETY: It is there as long as the item; a volatile load of a word is `READ_ONCE()`.
        let data = unsafe { (&raw const (*raw).data.counter).read_volatile() };
        // WORK_STRUCT_PENDING_BIT of linux/workqueue.h.
        data & 1 != 0
    }

    /// Whether nobody else has a reference to it.
    fn is_alone(item: Arc<Item>) -> bool {
        Arc::into_unique_or_drop(item).is_some()
    }

    #[test]
    fn queue_runs_what_it_holds_before_it_goes() -> Result {
        let queue = WorkQueue::unlisted(c"kfi_kunit")?;
        let items = [item(None)?, item(None)?, item(None)?];
        for item in &items {
            assert!(queue.enqueue(item.clone()));
        }
        drop(queue);
        for item in items {
            assert_eq!(item.runs.load(Relaxed), 1);
            assert!(is_alone(item));
        }
        Ok(())
    }

    #[test]
    fn item_that_waits_to_run_is_queued_once() -> Result {
        let queue = WorkQueue::unlisted(c"kfi_kunit")?;
        let gate = gate()?;
        let item = item(Some(gate.clone()))?;
        assert!(queue.enqueue(item.clone()));
        gate.begun.wait_for_completion();
        // It runs; so it may wait to run again, but not twice.
        assert!(queue.enqueue(item.clone()));
        assert!(!queue.enqueue(item.clone()));
        gate.may.complete_all();
        flush(&item.work);
        assert_eq!(item.runs.load(Relaxed), 2);
        drop(queue);
        assert!(is_alone(item));
        Ok(())
    }

    #[test]
    fn delayed_item_that_is_called_off_is_let_go_of() -> Result {
        let queue = WorkQueue::unlisted(c"kfi_kunit")?;
        let late = Arc::pin_init(
            pin_init!(Late {
                runs: Atomic::new(0),
                work <- new_delayed_work!("kfi_kunit_late"),
            }),
            GFP_KERNEL,
        )?;
        call_off_delayed::<_, 0>(&late);
        assert!(queue.enqueue_delayed(late.clone(), 60_000));
        assert!(!queue.enqueue_delayed(late.clone(), 60_000));
        call_off_delayed::<_, 0>(&late);
        // It may wait again, and run then.
        assert!(queue.enqueue_delayed(late.clone(), 0));
        while late.runs.load(Relaxed) == 0 {
            fsleep(Delta::from_millis(1));
        }
        call_off_delayed::<_, 0>(&late);
        drop(queue);
        assert_eq!(late.runs.load(Relaxed), 1);
        assert!(Arc::into_unique_or_drop(late).is_some());
        Ok(())
    }

    #[test]
    fn cancelled_item_does_not_run_and_is_let_go_of() -> Result {
        let queue = WorkQueue::unlisted(c"kfi_kunit")?;
        // Nothing to cancel.
        let idle = item(None)?;
        cancel(&idle);
        assert!(is_alone(idle));
        // One that runs, and waits to run again: the first run is waited for, the second is not.
        let gate = gate()?;
        let item = item(Some(gate.clone()))?;
        assert!(queue.enqueue(item.clone()));
        gate.begun.wait_for_completion();
        assert!(queue.enqueue(item.clone()));
        // Opens the gate once the second run has been called off.
        let waiting = item.clone();
        workqueue::system().try_spawn(GFP_KERNEL, move || {
            while is_pending(&waiting) {
                fsleep(Delta::from_millis(1));
            }
            drop(waiting);
            gate.may.complete_all();
        })?;
        cancel(&item);
        drop(queue);
        assert_eq!(item.runs.load(Relaxed), 1);
        assert!(is_alone(item));
        Ok(())
    }
}
