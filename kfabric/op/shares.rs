// SPDX-License-Identifier: GPL-2.0

//! Who still uses the buffers of receives of several messages: such a receive completes after all
//! its messages.
//!
//! Locks: `ended` is a leaf lock, interrupts disabled.

use super::{Chain, Operation};
use crate::sys::kvfree::Anywhere;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};

/// The shares in the receives of several messages of one endpoint.
///
/// The last use may be that of a completion which is read with a spinlock held.
#[pin_data]
pub(crate) struct Shares {
    /// For each slot: how many of its messages are under way, and one more until it has ended itself.
    counts: Anywhere<Atomic<i32>>,
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
                counts: Anywhere::from(counts),
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

#[kunit_tests(kfabric_op_shares)]
mod tests {
    use super::*;
    use crate::op::testing::{done, Bench};
    use crate::op::{Buffer, Kind};

    /// A receive that has begun to take messages, as it is when it has ended.
    fn receive(bench: &Bench<u64>, shares: &Shares, context: u64) -> Result<Operation> {
        let (_, mut op) = bench.post(Kind::Recv, Buffer::empty(), context)?;
        op.op().end(done(0));
        shares.begin(op.index);
        Ok(op)
    }

    fn ended(bench: &Bench<u64>) -> Option<u64> {
        bench.read().map(|done| done.context)
    }

    #[test]
    fn receive_ends_with_the_last_of_itself_and_its_messages() -> Result {
        let (bench, shares) = (Bench::new(1, None)?, Shares::new(1)?);
        for messages in 0..4 {
            for earlier in 0..=messages {
                let op = receive(&bench, &shares, 5)?;
                let index = op.index;
                for _ in 0..messages {
                    shares.add(index);
                }
                for _ in 0..earlier {
                    shares.put(index);
                }
                assert_eq!(ended(&bench), None);
                shares.end(op);
                for _ in earlier..messages {
                    assert_eq!(ended(&bench), None);
                    shares.put(index);
                }
                assert_eq!(ended(&bench), Some(5));
                assert_eq!(ended(&bench), None);
            }
        }
        assert_eq!(bench.origin.in_flight(), 0);
        Ok(())
    }

    #[test]
    fn last_use_may_end_where_nobody_may_sleep() -> Result {
        // So many that their room is vmalloc()'s.
        let shares = Shares::new(2 << 20)?;
        let lock: Pin<KBox<SpinLockIrq<()>>> =
            KBox::pin_init(new_spinlock_irq!((), "kfabric_op_shares"), GFP_KERNEL)?;
        let guard = lock.lock();
        drop(shares);
        drop(guard);
        Ok(())
    }

    #[test]
    fn each_receive_waits_for_messages_of_its_own() -> Result {
        let (bench, shares) = (Bench::new(3, None)?, Shares::new(3)?);
        let mut indices = [0; 3];
        for (context, index) in (0..).zip(&mut indices) {
            let op = receive(&bench, &shares, context)?;
            *index = op.index;
            shares.add(*index);
            shares.add(*index);
            shares.end(op);
        }
        for index in indices {
            shares.put(index);
        }
        assert_eq!(ended(&bench), None);
        for context in [1, 2, 0] {
            shares.put(indices[context as usize]);
            assert_eq!(ended(&bench), Some(context));
            assert_eq!(ended(&bench), None);
        }
        Ok(())
    }

    #[test]
    fn slot_without_a_share_waits_for_nobody() -> Result {
        let (bench, shares) = (Bench::new(2, None)?, Shares::new(1)?);
        let ops = [receive(&bench, &shares, 0)?, receive(&bench, &shares, 1)?];
        for (context, op) in (0..).zip(ops) {
            let index = op.index;
            shares.add(index);
            shares.end(op);
            let waits = index == 0;
            assert_eq!(ended(&bench), (!waits).then_some(context));
            shares.put(index);
            assert_eq!(ended(&bench), waits.then_some(context));
        }
        assert!(Shares::new(0)?.count(0).is_none());
        Ok(())
    }
}
