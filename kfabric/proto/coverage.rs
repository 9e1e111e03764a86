// SPDX-License-Identifier: GPL-2.0

//! A set of ranges: which bytes were written back.
//!
//! Tests record each range that the kernel wrote back and ask whether a committed range lies in
//! their union. It errs in one direction only: a range that found no storage is missing, so the
//! answer may be a wrong "no", never a wrong "yes"; and [`Coverage::lost`] counts it.

use super::range::Range;
use core::ops::DerefMut;

/// Why a range was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRecorded {
    /// The storage is used up; hand in more, or [clear](Coverage::clear) more often.
    Full,
    /// The range ends beyond 64 bits.
    Range,
}

/// A set of bytes, kept as ranges in storage that is handed in.
///
/// # Invariants
///
/// The first `count` ranges are in order, not empty, end within 64 bits, and neither overlap nor
/// touch each other.
#[derive(Debug)]
pub struct Coverage<S> {
    ranges: S,
    count: usize,
    lost: u64,
}

impl<S> Coverage<S>
where
    S: DerefMut<Target = [Range]>,
{
    /// An empty set; it holds as many separate ranges as `storage` has elements.
    pub const fn new(storage: S) -> Self {
        Coverage {
            ranges: storage,
            count: 0,
            lost: 0,
        }
    }

    /// Adds the bytes of `range`, merged with what they overlap or touch.
    ///
    /// An empty range adds nothing. Takes time in proportion to the separate ranges.
    ///
    /// # Errors
    ///
    /// The set is as before, and [`Coverage::lost`] counts one more:
    /// - [`NotRecorded::Full`]: the range is separate and there is no storage for one more.
    /// - [`NotRecorded::Range`]: its end does not fit 64 bits.
    pub fn insert(&mut self, range: Range) -> Result<(), NotRecorded> {
        let recorded = self.try_insert(range);
        if recorded.is_err() {
            self.lost += 1;
        }
        recorded
    }

    /// Whether each byte of `range` is in the set; true if it has none.
    pub fn covers(&self, range: Range) -> bool {
        if range.is_empty() {
            return true;
        }
        // Ranges that touch are merged, so a covered range lies in a single one: the last that
        // starts no later.
        let ranges = self.ranges();
        let after = ranges.partition_point(|known| known.offset <= range.offset);
        match after.checked_sub(1).and_then(|at| ranges.get(at)) {
            Some(known) => known.contains(range),
            None => false,
        }
    }

    /// The separate ranges, in order.
    pub fn ranges(&self) -> &[Range] {
        self.ranges.get(..self.count).unwrap_or(&[])
    }

    /// How many inserts failed since the last clear; while it is not 0, a "no" proves nothing.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Empties the set and the count of lost ranges.
    pub fn clear(&mut self) {
        self.count = 0;
        self.lost = 0;
    }

    fn try_insert(&mut self, range: Range) -> Result<(), NotRecorded> {
        let mut start = range.offset;
        let mut end = range.end().ok_or(NotRecorded::Range)?;
        if range.is_empty() {
            return Ok(());
        }
        // From `first` up to `after` stand those that overlap or touch the new one.
        let ranges = self.ranges();
        let ends = |known: &Range| known.offset + known.len;
        let first = ranges.partition_point(|known| ends(known) < start);
        let after = ranges.partition_point(|known| known.offset <= end);
        let merged = ranges.get(first..after).unwrap_or(&[]);
        if let (Some(low), Some(high)) = (merged.first(), merged.last()) {
            start = start.min(low.offset);
            end = end.max(ends(high));
        } else if self.count == self.ranges.len() {
            return Err(NotRecorded::Full);
        }
        // One range stands for those merged; what comes after them moves up or down to it.
        let removed = merged.len();
        let (ranges, count) = (&mut *self.ranges, self.count);
        if removed == 0 {
            ranges.copy_within(after..count, after + 1);
        } else {
            ranges.copy_within(after..count, first + 1);
        }
        ranges[first] = Range::new(start, end - start);
        self.count = count + 1 - removed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn coverage(len: usize) -> Coverage<Vec<Range>> {
        Coverage::new(vec![Range::default(); len])
    }

    fn r(offset: u64, len: u64) -> Range {
        Range::new(offset, len)
    }

    #[test]
    fn covers_what_was_inserted_and_no_byte_more() {
        let mut set = coverage(4);
        set.insert(r(64, 64)).unwrap();
        let table = [
            (64, 64, true),
            (64, 65, false),
            (63, 1, false),
            (63, 65, false),
            (127, 1, true),
            (128, 1, false),
            (0, 1, false),
            (70, 10, true),
            (0, 0, true),
            (500, 0, true),
            (u64::MAX, 2, false),
            (64, u64::MAX, false),
        ];
        for (offset, len, expected) in table {
            assert_eq!(set.covers(r(offset, len)), expected, "{offset}+{len}");
        }
    }

    #[test]
    fn empty_set_covers_no_byte() {
        let set = coverage(0);
        assert!(!set.covers(r(0, 1)));
        assert!(set.covers(r(0, 0)));
    }

    #[test]
    fn neighbours_merge_and_a_gap_of_one_byte_stays() {
        type Pairs = &'static [(u64, u64)];
        let table: &[(Pairs, Pairs)] = &[
            (&[(0, 64), (64, 64)], &[(0, 128)]),
            (&[(64, 64), (0, 64)], &[(0, 128)]),
            (&[(0, 63), (64, 64)], &[(0, 63), (64, 64)]),
            (&[(64, 64), (0, 63)], &[(0, 63), (64, 64)]),
            (&[(0, 100), (50, 100)], &[(0, 150)]),
            (&[(50, 100), (0, 100)], &[(0, 150)]),
            (&[(0, 100), (20, 10)], &[(0, 100)]),
            (&[(20, 10), (0, 100)], &[(0, 100)]),
            (&[(20, 10), (20, 20)], &[(20, 20)]),
            (
                &[(0, 10), (20, 10), (40, 10)],
                &[(0, 10), (20, 10), (40, 10)],
            ),
            (
                &[(40, 10), (0, 10), (20, 10)],
                &[(0, 10), (20, 10), (40, 10)],
            ),
            (
                &[(0, 10), (20, 10), (40, 10), (10, 10)],
                &[(0, 30), (40, 10)],
            ),
            (&[(0, 10), (20, 10), (40, 10), (5, 40)], &[(0, 50)]),
            (
                &[(0, 10), (20, 10), (40, 10), (15, 10)],
                &[(0, 10), (15, 15), (40, 10)],
            ),
            (&[(10, 10), (30, 10), (0, 50)], &[(0, 50)]),
            (&[(5, 0)], &[]),
            (&[(u64::MAX - 1, 1), (0, 1)], &[(0, 1), (u64::MAX - 1, 1)]),
        ];
        for (inserted, expected) in table {
            let mut set = coverage(4);
            for &(offset, len) in *inserted {
                set.insert(r(offset, len)).unwrap();
            }
            let expected: Vec<_> = expected.iter().map(|&(o, l)| r(o, l)).collect();
            assert_eq!(set.ranges(), expected, "{inserted:?}");
        }
    }

    #[test]
    fn range_over_a_seam_is_covered() {
        let mut set = coverage(2);
        set.insert(r(0, 64)).unwrap();
        set.insert(r(64, 64)).unwrap();
        assert!(set.covers(r(60, 8)));
    }

    #[test]
    fn full_storage_is_reported_and_nothing_is_lost_of_the_rest() {
        let mut set = coverage(2);
        set.insert(r(0, 10)).unwrap();
        set.insert(r(20, 10)).unwrap();
        assert_eq!(set.insert(r(40, 10)), Err(NotRecorded::Full));
        assert_eq!(set.insert(r(12, 2)), Err(NotRecorded::Full));
        assert_eq!(set.lost(), 2);
        assert_eq!(set.ranges(), [r(0, 10), r(20, 10)]);
        assert!(!set.covers(r(40, 10)));
        // What merges needs no storage.
        set.insert(r(30, 5)).unwrap();
        set.insert(r(5, 2)).unwrap();
        assert_eq!(set.ranges(), [r(0, 10), r(20, 15)]);
        set.insert(r(10, 10)).unwrap();
        set.insert(r(40, 10)).unwrap();
        assert_eq!(set.ranges(), [r(0, 35), r(40, 10)]);
        assert_eq!(set.lost(), 2);
    }

    #[test]
    fn storage_of_none_reports_the_first_range() {
        let mut set = coverage(0);
        assert_eq!(set.insert(r(0, 1)), Err(NotRecorded::Full));
        assert_eq!(set.insert(r(0, 0)), Ok(()));
        assert_eq!(set.lost(), 1);
    }

    #[test]
    fn range_beyond_64_bits_is_reported() {
        let mut set = coverage(2);
        assert_eq!(set.insert(r(u64::MAX, 1)), Err(NotRecorded::Range));
        assert_eq!(set.insert(r(1, u64::MAX)), Err(NotRecorded::Range));
        assert_eq!((set.lost(), set.ranges()), (2, &[][..]));
        set.insert(r(0, u64::MAX)).unwrap();
        assert!(set.covers(r(u64::MAX - 1, 1)));
    }

    #[test]
    fn clear_forgets_everything() {
        let mut set = coverage(1);
        set.insert(r(0, 64)).unwrap();
        set.insert(r(100, 64)).unwrap_err();
        set.clear();
        assert!(!set.covers(r(0, 1)));
        assert_eq!((set.lost(), set.ranges()), (0, &[][..]));
        set.insert(r(100, 64)).unwrap();
    }

    #[test]
    fn random_sets_agree_with_a_bitmap() {
        const SIZE: u64 = 256;
        let mut rng = testing::rng();
        for _ in 0..500 {
            let mut set = coverage(rng.below(20) as usize);
            let mut bitmap = [false; SIZE as usize];
            for _ in 0..rng.below(40) {
                let offset = rng.below(SIZE);
                let range = r(offset, rng.below((SIZE - offset).min(24) + 1));
                if set.insert(range).is_ok() {
                    bitmap[range.indices(SIZE as usize).unwrap()].fill(true);
                }
                let ranges = set.ranges();
                assert!(ranges.iter().all(|known| !known.is_empty()));
                assert!(ranges
                    .windows(2)
                    .all(|pair| pair[0].end().unwrap() < pair[1].offset));
                let bytes: u64 = ranges.iter().map(|known| known.len).sum();
                assert_eq!(bytes, bitmap.iter().filter(|&&bit| bit).count() as u64);
            }
            for offset in 0..SIZE {
                for len in 0..(SIZE - offset).min(40) {
                    let bits = &bitmap[r(offset, len).indices(SIZE as usize).unwrap()];
                    let expected = bits.iter().all(|&bit| bit);
                    assert_eq!(set.covers(r(offset, len)), expected, "{offset}+{len}");
                }
            }
        }
    }
}
