// SPDX-License-Identifier: GPL-2.0

//! A value under a stamp, which is read without a lock while others replace it.
//!
//! A stamp names one use of the place: it is never given to two values. So a reader needs no second
//! try: it looks at the stamp, copies the value, and looks again. If the stamp is not the one that it
//! wants, before or after, that use is over.

use super::once;
use core::array;
use core::cell::UnsafeCell;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed, Release};

/// The stamp while a value is written.
const BUSY: u64 = u64::MAX;

/// A place for `N` words of value under a stamp, which is any number but `u64::MAX`.
///
/// # Invariants
///
/// Who has changed `stamp` to `BUSY` is the only one to write `words`, until it changes it again.
pub(crate) struct Stamped<const N: usize> {
    stamp: Atomic<u64>,
    words: [UnsafeCell<u64>; N],
}

// SAFETY: By the invariant one writes at a time. Whoever reads meanwhile does so by volatile loads of
// words, which in the kernel's memory model is no data race, and does not use what it read.
unsafe impl<const N: usize> Sync for Stamped<N> {}

impl<const N: usize> Stamped<N> {
    /// A place of no value, under `stamp`.
    pub(crate) const fn new(stamp: u64) -> Self {
        Stamped {
            stamp: Atomic::new(stamp),
            words: [const { UnsafeCell::new(0) }; N],
        }
    }

    /// The present stamp. Any context.
    #[inline]
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp.load(Relaxed)
    }

    /// The value, if it is that of `stamp`. Never waits; any context.
    #[inline]
    pub(crate) fn read(&self, stamp: u64) -> Option<[u64; N]> {
        if once::acquire(&self.stamp) != stamp {
            return None;
        }
        let words = array::from_fn(|at| {
            // SAFETY: The word is there as long as `self`.
            unsafe { self.words[at].get().read_volatile() }
        });
        // If one of these is of a later use, so is the stamp that is loaded next.
        once::barrier_of_loads();
        (once::read(&self.stamp) == stamp).then_some(words)
    }

    /// Puts a value under stamp `to` in the place of that under `from`; `false`: that is not there.
    ///
    /// Any context.
    pub(crate) fn write(&self, from: u64, to: u64, words: [u64; N]) -> bool {
        // Full: who reads one of the words that follow finds that `from` is gone.
        if self.stamp.cmpxchg(from, BUSY, Full).is_err() {
            return false;
        }
        for (word, value) in self.words.iter().zip(words) {
            // SAFETY: The word is there as long as `self`; by the invariant nobody else writes it.
            unsafe { word.get().write_volatile(value) };
        }
        self.stamp.store(to, Release);
        true
    }

    /// Puts the value under another stamp; `false`: it is not under `from`. Any context.
    pub(crate) fn restamp(&self, from: u64, to: u64) -> bool {
        self.stamp.cmpxchg(from, to, Full).is_ok()
    }
}

#[kunit_tests(kfabric_stamp)]
mod tests {
    use super::*;

    #[test]
    fn value_is_read_under_its_own_stamp_alone() {
        let place = Stamped::<2>::new(7);
        assert_eq!(place.read(7), Some([0, 0]));
        assert!(place.write(7, 8, [1, 2]));
        assert_eq!((place.read(7), place.read(8)), (None, Some([1, 2])));
        // The value is another's.
        assert!(!place.write(7, 9, [3, 4]) && !place.restamp(7, 9));
        assert_eq!((place.read(8), place.stamp()), (Some([1, 2]), 8));
        assert!(place.restamp(8, 9));
        assert_eq!((place.read(8), place.read(9)), (None, Some([1, 2])));
    }

    #[test]
    fn value_that_is_being_written_is_nobodys() {
        let place = Stamped::<1>::new(1);
        assert!(place.restamp(1, BUSY));
        assert_eq!(place.read(1), None);
        assert!(!place.write(1, 2, [1]) && !place.restamp(1, 2));
    }
}
