// SPDX-License-Identifier: GPL-2.0

//! Who still uses the buffers of receives of several messages: such a receive completes after all
//! its messages.
//!
//! Locks: `ended` is a leaf lock, interrupts disabled.

use super::{Chain, Operation};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};

/// The shares in the receives of several messages of one endpoint.
#[pin_data]
pub(crate) struct Shares {
    /// For each slot: how many of its messages are under way, and one more until it has ended itself.
    counts: KVVec<Atomic<i32>>,
    /// Those that have ended before their messages.
    #[pin]
    ended: SpinLockIrq<Chain>,
}

impl Shares {
    /// For so many slots. Sleeps. `ENOMEM`.
    pub(crate) fn new(slots: usize) -> Result<Arc<Self>> {
        let mut counts = KVVec::with_capacity(slots, GFP_KERNEL)?;
        for _ in 0..slots {
            counts.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Arc::pin_init(
            pin_init!(Shares {
                counts,
                ended <- new_spinlock_irq!(Chain::new(), "kfi_shares"),
            }),
            GFP_KERNEL,
        )
    }

    fn count(&self, index: u32) -> Option<&Atomic<i32>> {
        self.counts.get(index as usize)
    }

    /// A receive is posted.
    pub(super) fn begin(&self, index: u32) {
        if let Some(count) = self.count(index) {
            count.store(1, Relaxed);
        }
    }

    /// A message of it begins.
    pub(super) fn add(&self, index: u32) {
        if let Some(count) = self.count(index) {
            count.add(1, Relaxed);
        }
    }

    /// A receive has ended, and takes no more messages: it is handed over when the last has ended.
    pub(super) fn end(&self, receive: Operation) {
        let index = receive.index;
        // The messages only become fewer.
        if self
            .count(index)
            .is_none_or(|count| count.load(Acquire) == 1)
        {
            return receive.hand_over();
        }
        self.ended.lock().push(receive);
        self.put(index);
    }

    /// A message of it has ended, or the receive itself.
    pub(super) fn put(&self, index: u32) {
        let last = self
            .count(index)
            .is_some_and(|count| count.fetch_sub(1, Full) == 1);
        if last {
            let receive = self.ended.lock().find(|op| op.index == index);
            if let Some(receive) = receive {
                receive.hand_over();
            }
        }
    }
}
