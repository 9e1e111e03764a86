// SPDX-License-Identifier: GPL-2.0

//! A crew: threads that do one job together.

use kernel::impl_has_work;
use kernel::new_work;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::workqueue::{Work, WorkItem};
use kfabric::prelude::*;

/// What the threads do.
pub(crate) trait Job: Send + Sync + 'static {
    /// What thread number `thread` does.
    fn run(&self, thread: usize) -> Result;
}

impl<F: Fn(usize) -> Result + Send + Sync + 'static> Job for F {
    fn run(&self, thread: usize) -> Result {
        self(thread)
    }
}

/// Threads at work.
pub(crate) struct Crew<J: Job> {
    members: KVec<Arc<Member<J>>>,
    queue: WorkQueue,
}

#[pin_data]
struct Member<J: Job> {
    job: Arc<J>,
    number: usize,
    /// The errno of its result.
    errno: Atomic<i32>,
    has_ended: Atomic<bool>,
    #[pin]
    work: Work<Member<J>>,
}

impl_has_work! {
    impl{J: Job} HasWork<Self> for Member<J> { self.work }
}

impl<J: Job> WorkItem for Member<J> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if let Err(error) = this.job.run(this.number) {
            this.errno.store(error.to_errno(), Relaxed);
        }
        this.has_ended.store(true, Relaxed);
    }
}

impl<J: Job> Crew<J> {
    /// Starts `threads` threads, which may run on any CPU.
    pub(crate) fn start(threads: usize, job: Arc<J>) -> Result<Self> {
        let mut crew = Crew {
            members: KVec::with_capacity(threads, GFP_KERNEL)?,
            queue: WorkQueue::unlisted(c"kfi_conformance")?,
        };
        for number in 0..threads {
            let job = job.clone();
            let member = Arc::pin_init(
                pin_init!(Member {
                    job,
                    number,
                    errno: Atomic::new(0),
                    has_ended: Atomic::new(false),
                    work <- new_work!("kfi_conformance"),
                }),
                GFP_KERNEL,
            )?;
            crew.members.push(member.clone(), GFP_KERNEL)?;
            crew.queue.enqueue(member);
        }
        Ok(crew)
    }

    /// Waits until all have done their job; the error of one, if any failed.
    pub(crate) fn join(self) -> Result {
        let Crew { members, queue } = self;
        // The kernel takes one long wait for a hang.
        for member in &members {
            while !member.has_ended.load(Relaxed) {
                fsleep(Delta::from_millis(1));
            }
        }
        drop(queue); // waits
        for member in &members {
            match member.errno.load(Relaxed) {
                0 => {}
                errno => return Err(Error::from_errno(errno)),
            }
        }
        Ok(())
    }
}
