// SPDX-License-Identifier: GPL-2.0

//! Which operations of an endpoint are with its engine, and which of them are to be cancelled: so
//! that a cancel can be answered at once, whoever has the operation.
//!
//! A word for each slot: how often the slot was used, and two marks. No locks.

use crate::op::{Kind, Op, OpId, Operation, Status};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};

/// The operation is here.
const HERE: u64 = 1 << 0;
/// Its consumer wants it to be cancelled.
const UNWANTED: u64 = 1 << 1;
/// It can be: it is a message. What else is under way has its effect.
const MESSAGE: u64 = 1 << 2;
const MARKS: u32 = 3;

/// Which operations are here.
pub(super) struct Outstanding(KVVec<Atomic<u64>>);

/// The word of a message that is here and wanted.
fn message(id: OpId) -> u64 {
    id.use_count << MARKS | HERE | MESSAGE
}

impl Outstanding {
    /// For so many slots. Sleeps. `ENOMEM`.
    pub(super) fn new(slots: usize) -> Result<Self> {
        let mut words = KVVec::with_capacity(slots, GFP_KERNEL)?;
        for _ in 0..slots {
            words.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Outstanding(words))
    }

    fn word(&self, id: OpId) -> Option<&Atomic<u64>> {
        self.0.get(id.index as usize)
    }

    /// Notes that it is here.
    pub(super) fn enter(&self, op: &Op) {
        if let Some(word) = self.word(op.id()) {
            let mark = match op.kind() {
                Kind::Send => MESSAGE,
                _ => 0,
            };
            word.store(message(op.id()) & !MESSAGE | mark, Relaxed);
        }
    }

    /// Notes that it is not here any more.
    pub(super) fn leave(&self, op: &Op) {
        if let Some(word) = self.word(op.id()) {
            word.store(0, Relaxed);
        }
    }

    /// Notes that it is not wanted; `false`: it is no message that is here.
    pub(super) fn cancel(&self, id: OpId) -> bool {
        let here = message(id);
        self.word(id)
            .is_some_and(|word| word.cmpxchg(here, here | UNWANTED, Full).is_ok())
    }

    /// Whether it is here and not wanted.
    pub(super) fn is_unwanted(&self, id: OpId) -> bool {
        self.word(id)
            .is_some_and(|word| word.load(Relaxed) == message(id) | UNWANTED)
    }

    /// Ends one that was here.
    pub(super) fn end(&self, op: Operation, status: Status) {
        self.leave(&op);
        op.complete(status);
    }
}

#[kunit_tests(kfabric_rdm_outstanding)]
mod tests {
    use super::*;
    use crate::op::testing::{done, Bench};
    use crate::op::Buffer;

    #[test]
    fn what_is_here_can_be_cancelled_once() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let outstanding = Outstanding::new(1)?;
        let (id, op) = bench.post(Kind::Send, Buffer::empty(), 0)?;
        assert!(!outstanding.cancel(id));
        outstanding.enter(&op);
        assert!(!outstanding.is_unwanted(id));
        assert!(outstanding.cancel(id) && outstanding.is_unwanted(id));
        assert!(!outstanding.cancel(id));
        outstanding.end(op, done(0));
        assert!(!outstanding.cancel(id) && !outstanding.is_unwanted(id));
        drop(bench.read());
        // The slot is used again: the old number does not name it.
        let (next, op) = bench.post(Kind::Send, Buffer::empty(), 0)?;
        outstanding.enter(&op);
        assert!(!outstanding.cancel(id) && !outstanding.is_unwanted(next));
        outstanding.end(op, done(0));
        Ok(())
    }
}
