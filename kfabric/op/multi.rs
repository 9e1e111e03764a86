// SPDX-License-Identifier: GPL-2.0

//! Receives that take several messages, one behind another in one buffer.
//!
//! Such a receive is one operation, which owns the buffer, and has spare ones with it, with contexts of
//! their own: each but the last message is taken by a spare one, as a part of it, with the bytes of
//! the buffer that are its own. The last is taken by the receive itself, which then gives the buffer
//! back.

use super::{Chain, Op, Operation};
use kernel::prelude::*;

/// What a completion of a receive of several messages tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where the message begins, counted from the first byte of the buffer that was posted.
    pub offset: usize,
    /// Whether the receive has ended, and all of its buffer has come back with this completion, which is
    /// the last. Source: FI_MULTI_RECV of fi_cq(3).
    pub released: bool,
}

/// How an operation is involved with such a receive.
pub(super) enum Multi {
    /// Not at all.
    No,
    /// It is one.
    Whole(Whole),
    /// It takes a message of the one that has this index.
    Part { of: u32, offset: usize },
}

/// A receive of several messages.
pub(super) struct Whole {
    /// For all messages but the last.
    spares: Chain,
    /// The part of the buffer that was posted.
    start: usize,
    len: usize,
    /// How much of it is taken.
    filled: usize,
    /// It ends when less than this is left.
    least: usize,
}

impl Op {
    /// Becomes a receive of several messages, until fewer than `least` bytes of its buffer are left: of one
    /// more than there are spare operations at most.
    pub(crate) fn take_several(&mut self, spares: Chain, least: usize) {
        self.multi = Multi::Whole(Whole {
            spares,
            start: self.buffer.offset(),
            len: self.buffer.len(),
            filled: 0,
            least: least.max(1),
        });
        if let Some(shares) = self.origin.shares() {
            shares.begin(self.index);
        }
    }

    /// The operation that takes an arrival, if it is not this receive itself: which then is to be taken
    /// out of where it waits.
    #[inline(always)]
    pub(crate) fn carve(&mut self, needed: usize) -> Option<Operation> {
        match self.multi {
            Multi::Whole(_) => self.carve_part(needed),
            _ => None,
        }
    }

    #[inline(never)]
    fn carve_part(&mut self, needed: usize) -> Option<Operation> {
        let Multi::Whole(whole) = &mut self.multi else {
            return None;
        };
        let space = whole.len - whole.filled;
        let (offset, at) = (whole.filled, whole.start + whole.filled);
        // What does not fit takes nothing, and fails as it does with any receive.
        let (taken, room) = match needed <= space {
            true => (needed, needed),
            false => (0, space),
        };
        let part = match space - taken < whole.least {
            true => None,
            false => whole.spares.pop(),
        };
        let Some(mut part) = part else {
            self.buffer.narrow(at, room);
            return None;
        };
        whole.filled += taken;
        let buffer = self.buffer.part(at, room);
        part.op().become_part(self.index, offset, buffer);
        if let Some(shares) = self.origin.shares() {
            shares.add(self.index);
        }
        Some(part)
    }

    /// Whether it has to do with a receive of several messages.
    #[inline(always)]
    pub(super) fn is_multi(&self) -> bool {
        !matches!(self.multi, Multi::No)
    }

    /// The index of the receive that it is a part of.
    pub(super) fn part_of(&self) -> Option<u32> {
        match self.multi {
            Multi::Part { of, .. } => Some(of),
            _ => None,
        }
    }

    /// Gives a receive of several messages the whole of its buffer again.
    pub(super) fn widen(&mut self) {
        if let Multi::Whole(whole) = &self.multi {
            self.buffer.narrow(whole.start, whole.len);
        }
    }

    /// Lets go of the spare operations that were not needed. Their contexts are dropped here.
    pub(super) fn drop_spares(&mut self) {
        if let Multi::Whole(whole) = &mut self.multi {
            dissolve(&mut whole.spares);
        }
    }

    /// What its completion tells of the receive; then it is none any more.
    #[inline(always)]
    pub(crate) fn take_part(&mut self) -> Option<Part> {
        match self.multi {
            Multi::No => None,
            _ => self.take_some_part(),
        }
    }

    #[inline(never)]
    fn take_some_part(&mut self) -> Option<Part> {
        match core::mem::replace(&mut self.multi, Multi::No) {
            Multi::No => None,
            Multi::Whole(whole) => Some(Part {
                offset: whole.filled,
                released: true,
            }),
            Multi::Part { offset, .. } => Some(Part {
                offset,
                released: false,
            }),
        }
    }
}

/// Puts spare operations back that were not needed, without completions.
pub(crate) fn dissolve(spares: &mut Chain) {
    while let Some(spare) = spares.pop() {
        spare.dissolve();
    }
}

#[kunit_tests(kfabric_op_multi)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::mr::{Access, MemoryRegion};
    use crate::op::testing::{done, request, Bench, Counted};
    use crate::op::{Buffer, Kind, Request};
    use crate::provider::testing::Opened;
    use kernel::sync::atomic::{Atomic, Relaxed};
    use kernel::sync::Arc;

    /// Receives into the 100 bytes from the 20th of a region.
    // In the order in which they go.
    struct Rig {
        bench: Bench<u64>,
        region: MemoryRegion,
        _opened: Opened,
    }

    impl Rig {
        fn new(slots: usize) -> Result<Self> {
            let opened = Opened::new()?;
            let registered = opened.domain.register(Memory::zeroed(200)?, Access::NONE);
            Ok(Rig {
                bench: Bench::new(slots, None)?,
                region: registered.map_err(|(error, _)| error)?,
                _opened: opened,
            })
        }

        fn request(&self) -> Result<Request> {
            Ok(Request {
                buffer: self.region.slice(20, 100)?.into(),
                ..request(Kind::Recv)
            })
        }

        /// Of so many messages, until fewer than `least` bytes are left.
        fn several(&self, messages: usize, least: usize) -> Result<Operation> {
            let request = self.request()?;
            Ok(self.bench.post_multi(request, (messages, least), 1)?.1)
        }

        /// What has ended next: where its bytes are, and what it tells of the receive.
        fn ended(&self) -> Option<((usize, usize), Option<Part>)> {
            let done = self.bench.read()?;
            Some(((done.buffer.offset(), done.buffer.len()), done.part))
        }

        fn forget_ended(&self) {
            while self.bench.read().is_some() {}
        }
    }

    /// Where the bytes of an operation are.
    fn place(op: &Op) -> (usize, usize) {
        (op.buffer().offset(), op.buffer().len())
    }

    #[test]
    fn messages_lie_one_behind_another() -> Result {
        let rig = Rig::new(4)?;
        let mut receive = rig.several(4, 10)?;
        for (needed, at) in [(30, 0), (0, 30), (1, 30)] {
            let part = receive.op().carve(needed).ok_or(EINVAL)?;
            assert_eq!(place(&part), (20 + at, needed));
            assert_eq!(part.part_of(), Some(receive.index));
            part.complete(done(needed));
            let told = Part {
                offset: at,
                released: false,
            };
            assert_eq!(rig.ended(), Some(((20 + at, needed), Some(told))));
        }
        // No operation is left but itself, which then gives all of the buffer back.
        assert!(receive.op().carve(40).is_none());
        assert_eq!(place(&receive), (51, 40));
        receive.complete(done(40));
        let told = Part {
            offset: 31,
            released: true,
        };
        assert_eq!(rig.ended(), Some(((20, 100), Some(told))));
        assert!(rig.ended().is_none());
        assert_eq!(rig.bench.origin.in_flight(), 0);
        Ok(())
    }

    #[test]
    fn receive_ends_when_less_than_the_least_space_is_left() -> Result {
        let rig = Rig::new(3)?;
        for (least, needed, ends) in [
            (10, 90, false),
            (10, 91, true),
            (1, 99, false),
            (1, 100, true),
            // A receive without space takes nothing.
            (0, 99, false),
            (0, 100, true),
            (100, 0, false),
            (100, 1, true),
            (101, 0, true),
            (usize::MAX, 0, true),
        ] {
            let mut receive = rig.several(3, least)?;
            let part = receive.op().carve(needed);
            assert_eq!(part.is_none(), ends);
            let taker: &Op = part.as_ref().map_or(&receive, |part| part);
            assert_eq!(place(taker), (20, needed));
            drop((part, receive));
            rig.forget_ended();
        }
        Ok(())
    }

    #[test]
    fn message_that_does_not_fit_meets_all_that_is_left_and_takes_none() -> Result {
        let rig = Rig::new(8)?;
        let mut receive = rig.several(8, 10)?;
        for (needed, found) in [
            (101, (20, 100)),
            (usize::MAX, (20, 100)),
            (60, (20, 60)),
            (41, (80, 40)),
            (30, (80, 30)),
            (11, (110, 10)),
        ] {
            let part = receive.op().carve(needed).ok_or(EINVAL)?;
            assert_eq!(place(&part), found);
            drop(part);
        }
        // As the last, too.
        drop(receive.op().carve(0).ok_or(EINVAL)?);
        assert!(receive.op().carve(11).is_none());
        assert_eq!(place(&receive), (110, 10));
        drop(receive);
        rig.forget_ended();
        Ok(())
    }

    #[test]
    fn operation_of_one_message_has_no_parts() -> Result {
        let rig = Rig::new(3)?;
        let (_, mut single) = rig.bench.post_request(rig.request()?, 1)?;
        let mut receive = rig.several(2, 10)?;
        let mut part = receive.op().carve(30).ok_or(EINVAL)?;
        for op in [&mut single, &mut part] {
            let before = place(op);
            assert!(op.op().carve(0).is_none());
            op.op().widen();
            op.op().drop_spares();
            assert_eq!(place(op), before);
        }
        assert!(!single.is_multi() && single.part_of().is_none());
        assert!(single.op().take_part().is_none());
        assert!(part.is_multi() && receive.is_multi() && receive.part_of().is_none());
        drop((part, receive, single));
        rig.forget_ended();
        Ok(())
    }

    #[test]
    fn what_is_told_is_told_once_and_not_of_the_next_use() -> Result {
        let rig = Rig::new(2)?;
        let mut receive = rig.several(2, 10)?;
        drop(receive.op().carve(30).ok_or(EINVAL)?);
        let told = Part {
            offset: 30,
            released: true,
        };
        assert_eq!(receive.op().take_part(), Some(told));
        assert!(receive.op().take_part().is_none() && !receive.is_multi());
        drop(receive);
        rig.forget_ended();
        for _ in 0..2 {
            drop(rig.bench.post(Kind::Recv, Buffer::empty(), 1)?);
        }
        while let Some((_, part)) = rig.ended() {
            assert!(part.is_none());
        }
        Ok(())
    }

    #[test]
    fn spares_that_are_not_needed_go_when_the_receive_has_ended() -> Result {
        let rig = Rig::new(4)?;
        let mut receive = rig.several(4, 10)?;
        let part = receive.op().carve(30).ok_or(EINVAL)?;
        assert!(rig.bench.pool.take().is_none());
        receive.complete(done(0));
        // It waits for its message itself, but holds no slot for others.
        assert!(rig.ended().is_none());
        let free = [rig.bench.pool.take(), rig.bench.pool.take()];
        assert!(free.iter().all(Option::is_some) && rig.bench.pool.take().is_none());
        drop(free);
        part.complete(done(30));
        assert!(rig.ended().is_some() && rig.ended().is_some() && rig.ended().is_none());
        assert_eq!(rig.bench.origin.in_flight(), 0);
        Ok(())
    }

    #[test]
    fn spares_are_dissolved_without_a_completion() -> Result {
        let contexts = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let bench = Bench::<Counted>::new(3, None)?;
        let mut spares = Chain::new();
        for _ in 0..3 {
            let mut slot = bench.pool.take().ok_or(EAGAIN)?;
            slot.op().reserve();
            spares.push(slot.arm(Counted::new(&contexts)));
        }
        assert_eq!((contexts.load(Relaxed), bench.origin.in_flight()), (3, 0));
        dissolve(&mut spares);
        assert_eq!((contexts.load(Relaxed), bench.origin.in_flight()), (0, 0));
        assert!(spares.is_empty() && bench.read().is_none());
        dissolve(&mut spares);
        let all = [bench.pool.take(), bench.pool.take(), bench.pool.take()];
        assert!(all.iter().all(Option::is_some));
        Ok(())
    }
}
