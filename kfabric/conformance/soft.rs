// SPDX-License-Identifier: GPL-2.0

//! Jobs in softirq context: in a bottom half, and in a timer.

use kernel::impl_has_hr_timer;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::{new_spinlock_irq, Arc, ArcBorrow, Completion, SpinLockIrq};
use kernel::time::hrtimer::{
    HrTimer, HrTimerCallback, HrTimerCallbackContext, HrTimerPointer, HrTimerRestart,
    RelativeSoftMode,
};
use kernel::time::{Delta, Monotonic};
use kernel::workqueue;
use kfabric::prelude::in_softirq;

/// A job that may be awaited.
#[pin_data]
pub(crate) struct Job {
    errno: Atomic<i32>,
    #[pin]
    done: Completion,
}

impl Job {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Job {
                errno: Atomic::new(0),
                done <- Completion::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Runs what is to be done, drops it, and tells whoever waits.
    fn run(&self, work: impl FnOnce() -> Result) {
        let result = if in_softirq() { work() } else { Err(EPERM) };
        self.errno
            .store(result.map_or_else(Error::to_errno, |()| 0), Release);
        self.done.complete_all();
    }

    /// Waits for the job's end, and gives its result.
    pub(crate) fn wait(&self) -> Result {
        self.done.wait_for_completion();
        match self.errno.load(Acquire) {
            0 => Ok(()),
            errno => Err(Error::from_errno(errno)),
        }
    }
}

/// Begins a job in a bottom half, on this CPU or another.
pub(crate) fn spawn(work: impl FnOnce() -> Result + Send + 'static) -> Result<Arc<Job>> {
    let job = Job::new()?;
    let started = job.clone();
    workqueue::system_bh().try_spawn(GFP_KERNEL, move || started.run(work))?;
    Ok(job)
}

/// Does a job in a bottom half.
pub(crate) fn in_bottom_half(work: impl FnOnce() -> Result + Send + 'static) -> Result {
    spawn(work)?.wait()
}

/// A timer whose callback is a job.
#[pin_data]
struct Timer<F: FnOnce() -> Result + Send + 'static> {
    #[pin]
    timer: HrTimer<Self>,
    #[pin]
    work: SpinLockIrq<Option<KBox<F>>>,
    job: Arc<Job>,
}

impl<F: FnOnce() -> Result + Send + 'static> HrTimerCallback for Timer<F> {
    type Pointer<'a> = Arc<Self>;

    fn run(this: ArcBorrow<'_, Self>, _: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        let work = this.work.lock().take();
        if let Some(work) = work {
            this.job.run(KBox::into_inner(work));
        }
        HrTimerRestart::NoRestart
    }
}

impl_has_hr_timer! {
    impl{F: FnOnce() -> Result + Send + 'static} HasHrTimer<Self> for Timer<F> {
        mode: RelativeSoftMode<Monotonic>, field: self.timer
    }
}

/// Does a job in the callback of a timer that fires in softirq context.
pub(crate) fn in_timer<F: FnOnce() -> Result + Send + 'static>(work: F) -> Result {
    let timer = Arc::pin_init(
        try_pin_init!(Timer {
            timer <- HrTimer::new(),
            work <- new_spinlock_irq!(Some(KBox::new(work, GFP_KERNEL)?)),
            job: Job::new()?,
        }? Error),
        GFP_KERNEL,
    )?;
    let handle = timer.clone().start(Delta::from_micros(100));
    let result = timer.job.wait();
    drop(handle);
    result
}
