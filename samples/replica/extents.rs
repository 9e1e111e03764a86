// SPDX-License-Identifier: GPL-2.0

//! What was written and is not durable yet: a few extents, sorted, never touching each other.

use kernel::prelude::*;
use kfabric::prelude::Extent;

/// A bounded set of bytes.
///
/// When it is full it grows by what lies between two neighbours: bytes that need not be in it do
/// no harm, bytes that are missing would.
pub(crate) struct Extents {
    list: KVec<Extent>,
    limit: usize,
}

impl Extents {
    /// Creates an empty set of at most `limit` extents, which must not be 0.
    pub(crate) fn new(limit: usize) -> Result<Self> {
        // One more, for the moment between an insertion and what makes up for it.
        let list = KVec::with_capacity(limit + 1, GFP_KERNEL)?;
        Ok(Self { list, limit })
    }

    /// Adds the bytes of `new`. Never allocates.
    pub(crate) fn insert(&mut self, mut new: Extent) {
        if new.start >= new.end {
            return;
        }
        self.list.retain(|old| {
            let apart = old.end < new.start || new.end < old.start;
            if !apart {
                new.start = new.start.min(old.start);
                new.end = new.end.max(old.end);
            }
            apart
        });
        let at = self.list.iter().take_while(|e| e.start < new.start).count();
        // There is always room: `limit` were there at most.
        if self.list.insert_within_capacity(at, new).is_ok() && self.list.len() > self.limit {
            self.join_nearest();
        }
    }

    /// Joins the two neighbours with the smallest gap.
    fn join_nearest(&mut self) {
        let gaps = self.list.windows(2).map(|pair| pair[1].start - pair[0].end);
        let Some((at, _)) = gaps.enumerate().min_by_key(|(_, gap)| *gap) else {
            return;
        };
        self.list[at].end = self.list[at + 1].end;
        let _ = self.list.remove(at + 1);
    }

    /// Takes one extent out that has a byte in common with `range`.
    pub(crate) fn take(&mut self, range: Extent) -> Option<Extent> {
        let at = self
            .list
            .iter()
            .position(|e| e.start < range.end && range.start < e.end)?;
        self.list.remove(at).ok()
    }
}

#[kunit_tests(kfi_replica_extents)]
mod tests {
    use super::*;

    const ALL: Extent = Extent {
        start: 0,
        end: u64::MAX,
    };

    fn set(limit: usize, extents: &[(u64, u64)]) -> Result<Extents> {
        let mut set = Extents::new(limit)?;
        for &(start, end) in extents {
            set.insert(Extent { start, end });
        }
        Ok(set)
    }

    fn holds(set: &Extents, expected: &[(u64, u64)]) -> bool {
        let extents = set.list.iter().map(|e| (e.start, e.end));
        extents.eq(expected.iter().copied())
    }

    #[test]
    fn extents_that_touch_become_one() -> Result {
        let cases: [(&[(u64, u64)], &[(u64, u64)]); 9] = [
            (&[], &[]),
            (&[(5, 5)], &[]),
            (&[(0, 4), (8, 12)], &[(0, 4), (8, 12)]),
            (&[(8, 12), (0, 4)], &[(0, 4), (8, 12)]),
            (&[(0, 4), (4, 8)], &[(0, 8)]),
            (&[(0, 4), (5, 8)], &[(0, 4), (5, 8)]),
            (&[(0, 4), (8, 12), (3, 9)], &[(0, 12)]),
            (&[(2, 3), (4, 5), (6, 7), (0, 9)], &[(0, 9)]),
            (&[(0, 9), (3, 4)], &[(0, 9)]),
        ];
        for (inserted, expected) in cases {
            assert!(holds(&set(8, inserted)?, expected));
        }
        Ok(())
    }

    #[test]
    fn full_set_joins_the_nearest_and_loses_nothing() -> Result {
        let full = [(0, 1), (10, 11), (13, 14)];
        assert!(holds(&set(3, &full)?, &full));
        let mut more = set(3, &full)?;
        more.insert(Extent { start: 30, end: 31 });
        assert!(holds(&more, &[(0, 1), (10, 14), (30, 31)]));
        more.insert(Extent { start: 33, end: 34 });
        assert!(holds(&more, &[(0, 1), (10, 14), (30, 34)]));
        Ok(())
    }

    #[test]
    fn only_what_is_in_range_is_taken() -> Result {
        let mut set = set(8, &[(0, 4), (8, 12)])?;
        assert!(set.take(Extent { start: 4, end: 8 }).is_none());
        assert_eq!(
            set.take(Extent { start: 3, end: 5 }).map(|e| e.end),
            Some(4)
        );
        assert_eq!(set.take(ALL).map(|e| e.start), Some(8));
        assert!(set.take(ALL).is_none());
        Ok(())
    }

    #[test]
    fn random_extents_cover_what_a_bitmap_does() -> Result {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..200 {
            let mut set = Extents::new(64)?;
            let mut bits = 0u64;
            for _ in 0..20 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let (start, len) = (seed % 60, seed >> 32 & 3);
                set.insert(Extent {
                    start,
                    end: start + len,
                });
                bits |= ((1 << len) - 1) << start;
            }
            let mut seen = 0u64;
            while let Some(Extent { start, end }) = set.take(ALL) {
                let these = ((1u64 << (end - start)) - 1) << start;
                assert_eq!(seen & these, 0);
                seen |= these;
            }
            assert_eq!(seen, bits);
        }
        Ok(())
    }
}
