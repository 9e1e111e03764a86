// SPDX-License-Identifier: GPL-2.0

//! Work items: what `kernel::workqueue` lacks.

use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::workqueue::{HasWork, RawWorkItem, Work, WorkItem};

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

/// A work queue of one's own, so that no work item runs a module's text after it is gone.
///
/// Concurrency-managed, usable in memory reclaim. Dropping it waits for its items.
pub struct WorkQueue(core::ptr::NonNull<bindings::workqueue_struct>);

// SAFETY: Work queues may be used from any thread.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Makes a work queue. May sleep. `ENOMEM`.
    pub fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name is a C string; the format takes it as its only argument.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_MEM_RECLAIM,
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
