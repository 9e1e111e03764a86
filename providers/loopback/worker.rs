// SPDX-License-Identifier: GPL-2.0

//! The worker of a context of an endpoint: what must not, or should not, run in the context of a post.
//!
//! Commits sleep, and long copies would keep a softirq. The worker executes in the order of the
//! posts; what is executed in posts may overtake it, unless the endpoint was asked for an order:
//! then posts come here as long as it is busy. While faults are injected all posts and all matched
//! messages come here, and the worker delays, chooses and fails as they say, and lets completions
//! overtake each other.
//!
//! What waits for an endpoint's worker is queued with its lock held, and refused once it is closed:
//! so when [`Worker::close`] has flushed the work item, none is left, and none comes. A worker does
//! not own the work queue, since the last to own it would wait for itself.
//!
//! Locks: `queue` is a leaf lock, interrupts disabled, but for the work queue's own; nothing
//! executes with it held.

use crate::directory::Directory;
use crate::endpoint::execute_long;
use crate::held::{Held, Late};
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};
use kfabric::info::Order;
use kfabric::op::{Chain, Failure, OpId, Operation};
use kfabric::provider::faults::{Faults, Next};
use kfabric::provider::work::{self, WorkQueue};
use kfabric::provider::{Match, Port};

/// A work item, and what waits for it.
#[pin_data]
pub(crate) struct Worker {
    directory: Arc<Directory>,
    /// That of its endpoint.
    port: Arc<Port>,
    faults: Arc<Faults>,
    order: Order,
    #[pin]
    queue: SpinLockIrq<Queue>,
    #[pin]
    work: Work<Worker>,
}

struct Queue {
    operations: Chain,
    /// Matched messages: each arrival is followed by its receive.
    pairs: Chain,
    /// Whether one of `operations` is just being executed.
    executing: bool,
    /// Why nothing is taken any more.
    closed: Option<Error>,
}

impl_has_work! {
    impl HasWork<Self> for Worker { self.work }
}

impl WorkItem for Worker {
    type Pointer = Arc<Worker>;

    fn run(this: Arc<Worker>) {
        let mut held = Held::new();
        loop {
            let next = this.next();
            let mut queue = this.queue.lock();
            // None that came just now: its turn has not been decided. It has queued the work again.
            let op =
                next.and_then(|next| this.faults.take(&next, this.order, &mut queue.operations));
            queue.executing = op.is_some();
            let mut pairs = queue.pairs.take();
            drop(queue);
            let idle = op.is_none() && pairs.is_empty();
            let before = held.taken();
            match op {
                Some((op, Some(error))) => op.complete(Err(Failure::not_executed(error))),
                Some((op, None)) => {
                    execute_long(&this.directory, &this.port, op, |op, status| {
                        held.put(Late::Ended(op, status), &this.faults)
                    });
                }
                None => {}
            }
            // All of them: none of a peer's waits for more than one delay.
            while let Some((arrival, receive)) = pairs.pop().zip(pairs.pop()) {
                let pair = Match::from_parts(arrival, receive);
                held.put(Late::Met(pair), &this.faults);
            }
            held.release(before, (!idle).then_some(&*this.faults));
            if idle {
                return;
            }
        }
    }
}

impl Worker {
    pub(crate) fn new(
        directory: Arc<Directory>,
        port: Arc<Port>,
        faults: Arc<Faults>,
        order: Order,
    ) -> Result<Arc<Self>> {
        let queue = Queue {
            operations: Chain::new(),
            pairs: Chain::new(),
            executing: false,
            closed: None,
        };
        Arc::pin_init(
            pin_init!(Worker {
                directory,
                port,
                faults,
                order,
                queue <- new_spinlock_irq!(queue, "kfi_loopback_queue"),
                work <- new_work!("kfi_loopback"),
            }),
            GFP_KERNEL,
        )
    }

    /// What is done to the operation that goes next, after its delay; `None` if none waits. Sleeps.
    ///
    /// What waits can be cancelled meanwhile, or the endpoint closed; then its turn is that of who is next.
    fn next(&self) -> Option<Next> {
        if self.queue.lock().operations.is_empty() {
            return None;
        }
        let next = self.faults.next();
        if next.delay_us() > 0 {
            fsleep(Delta::from_micros(next.delay_us().into()));
        }
        Some(next)
    }

    /// Whether an operation waits or is being executed. Any context but hardirq.
    pub(crate) fn is_busy(&self) -> bool {
        let queue = self.queue.lock();
        queue.executing || !queue.operations.is_empty()
    }

    /// Leaves an operation to the worker. Any context but hardirq.
    pub(crate) fn push(self: &Arc<Self>, workers: &WorkQueue, op: Operation) {
        let mut queue = self.queue.lock();
        if let Some(error) = queue.closed {
            drop(queue);
            return op.complete(Err(Failure::not_executed(error)));
        }
        queue.operations.push(op);
        // Under the lock, as is the mark of a close: none is queued after its flush.
        workers.enqueue(self.clone());
    }

    /// Leaves a matched message to the worker. Any context but hardirq.
    pub(crate) fn push_pair(self: &Arc<Self>, workers: &WorkQueue, pair: Match) {
        let mut queue = self.queue.lock();
        if let Some(error) = queue.closed {
            drop(queue);
            return pair.fail(error, self.port.lost());
        }
        let (arrival, receive) = pair.into_parts();
        queue.pairs.push(arrival);
        queue.pairs.push(receive);
        // As above. The caller may be the worker of a peer, for which no close waits.
        workers.enqueue(self.clone());
    }

    /// Takes an operation out again that has not begun.
    pub(crate) fn recall(&self, id: OpId) -> Option<Operation> {
        self.queue.lock().operations.find(|op| op.id() == id)
    }

    /// Completes the operations that wait with `error`. What is being executed completes soon; it is not waited for,
    /// since messages may keep the worker busy for as long as they come.
    pub(crate) fn quit(&self, error: Error) {
        let mut operations = self.queue.lock().operations.take();
        while let Some(op) = operations.pop() {
            op.complete(Err(Failure::not_executed(error)));
        }
    }

    /// Completes what waits with `error`, and waits for what is being executed. Sleeps.
    pub(crate) fn close(&self, error: Error) {
        let mut queue = self.queue.lock();
        queue.closed = Some(error);
        let (mut operations, mut pairs) = (queue.operations.take(), queue.pairs.take());
        drop(queue);
        while let Some(op) = operations.pop() {
            op.complete(Err(Failure::not_executed(error)));
        }
        while let Some((arrival, receive)) = pairs.pop().zip(pairs.pop()) {
            Match::from_parts(arrival, receive).fail(error, self.port.lost());
        }
        work::flush(&self.work);
    }
}
