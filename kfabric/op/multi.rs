// SPDX-License-Identifier: GPL-2.0

//! Receives that take several messages, one behind another in one buffer.
//!
//! Such a receive is one operation, which owns the buffer, and has spare ones with it, with contexts of
//! their own: each but the last message is taken by a spare one, as a part of it, with the bytes of
//! the buffer that are its own. The last is taken by the receive itself, which then gives the buffer
//! back.

use super::{Chain, Op, Operation};

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
