// SPDX-License-Identifier: GPL-2.0

//! What a counter counts.

use core::ops::{BitOr, BitOrAssign};
use kernel::prelude::*;

/// A set of what an endpoint's counter counts; empty by default.
///
/// Source: the flags of a counter's fi_ep_bind() in fi_endpoint(3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts(u8);

impl Counts {
    /// Nothing.
    pub const NONE: Counts = Counts(0);
    /// Messages that were sent. Source: FI_SEND.
    pub const SEND: Counts = Counts(1 << 0);
    /// Messages that were received, and receives that failed.
    ///
    /// Not the receives that a write's remote CQ data consumed: the write is counted as
    /// [`Counts::REMOTE_WRITE`]. Source: FI_RECV.
    pub const RECV: Counts = Counts(1 << 1);
    /// Reads, and atomics that fetch. Source: FI_READ.
    pub const READ: Counts = Counts(1 << 2);
    /// Writes, and atomics that do not fetch. Source: FI_WRITE.
    pub const WRITE: Counts = Counts(1 << 3);
    /// Commits of a range. A write at level committed is a write.
    pub const COMMIT: Counts = Counts(1 << 4);
    /// Peers' reads, and atomics that fetch, which were carried out through this endpoint.
    ///
    /// Source: FI_REMOTE_READ.
    pub const REMOTE_READ: Counts = Counts(1 << 5);
    /// Peers' writes, and atomics that do not fetch, which were carried out through this endpoint.
    ///
    /// Source: FI_REMOTE_WRITE.
    pub const REMOTE_WRITE: Counts = Counts(1 << 6);

    /// How many there are.
    pub(crate) const KINDS: usize = 7;

    /// Whether each of `others` is in the set.
    pub const fn contains(self, others: Counts) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those of both sets, for constants; else `|`.
    pub const fn union(self, other: Counts) -> Counts {
        Counts(self.0 | other.0)
    }

    /// The numbers of those in the set.
    pub(crate) fn kinds(self) -> impl Iterator<Item = usize> {
        (0..Self::KINDS).filter(move |kind| self.0 & 1 << kind != 0)
    }

    /// The number of the only one in the set; `None` if it is empty.
    #[inline]
    pub(crate) const fn kind(self) -> Option<usize> {
        match self.0 {
            0 => None,
            bits => Some(bits.trailing_zeros() as usize),
        }
    }
}

impl BitOr for Counts {
    type Output = Counts;

    fn bitor(self, other: Counts) -> Counts {
        self.union(other)
    }
}

impl BitOrAssign for Counts {
    fn bitor_assign(&mut self, other: Counts) {
        *self = self.union(other);
    }
}

#[kunit_tests(kfabric_cntr_counts)]
mod tests {
    use super::*;

    const ALL: [Counts; Counts::KINDS] = [
        Counts::SEND,
        Counts::RECV,
        Counts::READ,
        Counts::WRITE,
        Counts::COMMIT,
        Counts::REMOTE_READ,
        Counts::REMOTE_WRITE,
    ];

    #[test]
    fn each_kind_has_a_number_of_its_own() {
        for (n, counts) in (0..).zip(ALL) {
            assert_eq!(counts.kind(), Some(n));
            assert!(counts.kinds().eq([n]));
            for (other, more) in (0..).zip(ALL) {
                assert_eq!(counts.contains(more), other == n);
            }
        }
        assert_eq!(Counts::NONE.kind(), None);
        assert_eq!(Counts::NONE.kinds().count(), 0);
    }

    #[test]
    fn set_has_what_was_put_in_and_nothing_else() {
        let both = Counts::READ | Counts::REMOTE_WRITE;
        assert!(both.kinds().eq([2, 6]));
        assert!(both.contains(Counts::READ) && both.contains(both));
        assert!(both.contains(Counts::NONE) && Counts::NONE.contains(Counts::NONE));
        // Each of several, not one of them.
        assert!(!both.contains(Counts::READ | Counts::SEND));
        assert!(!Counts::READ.contains(both));
        let mut all = Counts::default();
        for counts in ALL {
            assert!(!all.contains(counts));
            all |= counts;
        }
        assert!(all.kinds().eq(0..Counts::KINDS));
        assert_eq!(all.union(both), all);
        assert_eq!(Counts::NONE | Counts::NONE, Counts::NONE);
    }
}
