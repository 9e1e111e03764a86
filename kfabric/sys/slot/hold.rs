// SPDX-License-Identifier: GPL-2.0

//! A hold on an operation: it has its bytes in use, and does not complete before the hold is dropped.
//!
//! The cell counts its holds, so that none is allocated. An operation that ends while there are some is left to them:
//! the last one completes it.

use super::{Header, Operation};
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};

/// Added to the count when the operation has ended and is left to the holds. More holds than that there are never:
/// each is somebody's, with some memory of its own.
const LEFT: i32 = 1 << 30;

/// The count of a cell.
///
/// # Safety
///
/// The cell is taken, and stays so for `'a`.
#[inline]
unsafe fn holds<'a>(header: NonNull<Header>) -> &'a Atomic<i32> {
    // SAFETY: By the caller's word the cell is there; whoever owns it touches this field by atomics alone.
    unsafe { &(*header.as_ptr()).holds }
}

/// Keeps an operation from completing, and so its memory from being given back.
///
/// Dropped in any context but hardirq: it may complete the operation, as [`Operation::complete`] does.
///
/// # Invariants
///
/// `header` is that of a taken cell, which counts this hold: until it is dropped, the operation does not complete, and
/// so the cell stays taken.
#[must_use = "what is not held may be given back"]
pub struct Hold {
    header: NonNull<Header>,
}

// SAFETY: A hold touches the count alone; the last one owns the operation, which is `Send`.
unsafe impl Send for Hold {}
// SAFETY: A shared hold gives nothing.
unsafe impl Sync for Hold {}

impl Hold {
    /// It, as a word for C, which says what operation it is on: those of one have the same.
    pub fn into_raw(self) -> NonNull<c_void> {
        let raw = self.header.cast();
        core::mem::forget(self);
        raw
    }

    /// It again.
    ///
    /// # Safety
    ///
    /// `raw` is from [`Hold::into_raw`], once for each.
    pub unsafe fn from_raw(raw: NonNull<c_void>) -> Self {
        // INVARIANT: By the caller's word.
        Hold { header: raw.cast() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // SAFETY: By the invariant.
        let holds = unsafe { holds(self.header) };
        // Release: what was done under it comes before the completion. Acquire: of the other holds, too.
        if holds.fetch_sub(1, Full) != LEFT + 1 {
            return;
        }
        // For the next use of the cell, which others see no sooner than the operation.
        holds.store(0, Relaxed);
        let op = Operation {
            header: self.header,
        };
        op.released();
    }
}

impl Operation {
    /// A hold on it. From now on [`Operation::complete`] alone may end it.
    #[inline]
    pub(crate) fn hold(&self) -> Hold {
        // SAFETY: An operation owns its cell.
        unsafe { holds(self.header) }.add(1, Relaxed);
        // INVARIANT: Just counted.
        Hold {
            header: self.header,
        }
    }

    /// Whether there are holds on it. Who has the operation alone makes some, so `false` stays true.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        // SAFETY: An operation owns its cell. Acquire: what was done under the holds came before.
        unsafe { holds(self.header) }.load(Acquire) != 0
    }

    /// Leaves it to the last of its holds; `Some`: that was dropped meanwhile.
    pub(crate) fn leave_to_holds(self) -> Option<Operation> {
        let header = self.header;
        core::mem::forget(self);
        // SAFETY: The operation owned its cell. From here on it is the last hold's, if there is one.
        let holds = unsafe { holds(header) };
        if holds.fetch_add(LEFT, Full) != 0 {
            return None;
        }
        holds.store(0, Relaxed);
        Some(Operation { header })
    }
}

#[kunit_tests(kfabric_hold)]
mod tests {
    use super::*;
    use crate::op::testing::{done, Bench, Counted};
    use crate::op::{Buffer, Kind};
    use kernel::sync::Arc;

    #[test]
    fn operation_completes_with_its_last_hold_and_as_it_ended() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        for round in 0..3 {
            let (_, op) = bench.post(Kind::Send, Buffer::empty(), round)?;
            let (one, other) = (op.hold(), op.hold());
            drop(op.hold());
            op.complete(done(round as usize));
            assert!(bench.read().is_none());
            drop(other);
            assert!(bench.read().is_none());
            // The slot is in use.
            assert!(bench.pool.take().is_none());
            drop(one);
            let completion = bench.read().ok_or(EINVAL)?;
            assert_eq!(completion.context, round);
            assert_eq!(completion.result, done(round as usize));
            assert!(bench.read().is_none());
        }
        Ok(())
    }

    #[test]
    fn operation_whose_holds_are_gone_completes_at_once() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        for round in 0..2 {
            let (_, op) = bench.post(Kind::Send, Buffer::empty(), round)?;
            drop((op.hold(), op.hold()));
            assert!(!op.is_held());
            op.complete(done(0));
            assert!(bench.read().is_some());
        }
        Ok(())
    }

    #[test]
    fn dropped_operation_is_held_too() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let (_, op) = bench.post(Kind::Send, Buffer::empty(), 5)?;
        let hold = op.hold();
        drop(op);
        assert!(bench.read().is_none());
        drop(hold);
        let completion = bench.read().ok_or(EINVAL)?;
        assert!(completion
            .result
            .is_err_and(|failure| failure.error == ECANCELED));
        Ok(())
    }

    #[test]
    fn hold_outlives_the_pool_and_the_queue() -> Result {
        let contexts = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let bench = Bench::<Counted>::new(2, None)?;
        let (_, op) = bench.post(Kind::Send, Buffer::empty(), Counted::new(&contexts))?;
        let raw = op.hold().into_raw();
        op.complete(done(0));
        drop(bench);
        assert_eq!(contexts.load(Relaxed), 1);
        // SAFETY: Of the hold above, once.
        drop(unsafe { Hold::from_raw(raw) });
        assert_eq!(contexts.load(Relaxed), 0);
        Ok(())
    }
}
