// SPDX-License-Identifier: GPL-2.0

//! An offset and a length, with checked arithmetic.
//!
//! The numbers may come from a peer: every combination is legal here, none wraps around.

/// `len` bytes from `offset` on.
///
/// Any pair of numbers; ask [`Range::within`] before using it on memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub len: u64,
}

impl Range {
    /// `len` bytes from `offset` on.
    pub const fn new(offset: u64, len: u64) -> Range {
        Range { offset, len }
    }

    /// Whether no byte is in it.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The offset after the last byte; `None` if it does not fit 64 bits.
    pub const fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    /// Whether an access to this range stays within `size` bytes.
    ///
    /// An empty range is within if its offset is: at `size` it is, at `size + 1` it is not.
    pub const fn within(self, size: u64) -> bool {
        match self.end() {
            Some(end) => end <= size,
            None => false,
        }
    }

    /// Whether each byte of `other` is in this range.
    ///
    /// An empty `other` has none, so it is contained in every range. False if either end does not
    /// fit 64 bits.
    pub const fn contains(self, other: Range) -> bool {
        match (self.end(), other.end()) {
            (Some(end), Some(other_end)) => {
                other.is_empty() || (self.offset <= other.offset && other_end <= end)
            }
            _ => false,
        }
    }

    /// The range counted from `base` bytes further down; `None` if its end does not fit 64 bits.
    pub const fn shifted(self, base: u64) -> Option<Range> {
        match self.offset.checked_add(base) {
            Some(offset) if offset.checked_add(self.len).is_some() => {
                Some(Range::new(offset, self.len))
            }
            _ => None,
        }
    }

    /// The whole lines that hold this range: the smallest range around it with both ends at
    /// multiples of `line`.
    ///
    /// An empty range has no lines: the answer is empty too. `None` if `line` is no power of two,
    /// or if the end of the last line does not fit 64 bits.
    pub const fn lines(self, line: u64) -> Option<Range> {
        if !line.is_power_of_two() {
            return None;
        }
        let first = self.offset & !(line - 1);
        if self.is_empty() {
            return Some(Range::new(first, 0));
        }
        match self.end() {
            Some(end) => match end.checked_next_multiple_of(line) {
                Some(end) => Some(Range::new(first, end - first)),
                None => None,
            },
            None => None,
        }
    }

    /// The range as indices into a slice of `size` elements; `None` if it is not within.
    pub fn indices(self, size: usize) -> Option<core::ops::Range<usize>> {
        if !self.within(size as u64) {
            return None;
        }
        // Both fit: they are at most `size`.
        let start = self.offset as usize;
        Some(start..start + self.len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    const MAX: u64 = u64::MAX;

    #[test]
    fn within_holds_up_to_the_last_byte_and_no_further() {
        let table = [
            // offset, len, size, within
            (0, 0, 0, true),
            (0, 1, 0, false),
            (1, 0, 0, false),
            (0, 100, 100, true),
            (0, 101, 100, false),
            (1, 99, 100, true),
            (1, 100, 100, false),
            (99, 1, 100, true),
            (99, 2, 100, false),
            (100, 0, 100, true),
            (100, 1, 100, false),
            (101, 0, 100, false),
            (MAX, 0, 100, false),
            (MAX, 0, MAX, true),
            (MAX, 1, MAX, false),
            (MAX, 1, 0, false),
            (MAX, 2, 1, false),
            (1, MAX, 100, false),
            (1, MAX, MAX, false),
            (0, MAX, MAX, true),
            (MAX, MAX, MAX, false),
            (MAX - 1, 1, MAX, true),
            (1 << 63, 1 << 63, 0, false),
            (1 << 63, 1 << 63, MAX, false),
        ];
        for (offset, len, size, expected) in table {
            let range = Range::new(offset, len);
            assert_eq!(range.within(size), expected, "{range:?} in {size}");
        }
    }

    #[test]
    fn end_says_when_it_does_not_fit() {
        assert_eq!(Range::new(3, 4).end(), Some(7));
        assert_eq!(Range::new(MAX, 0).end(), Some(MAX));
        assert_eq!(Range::new(MAX, 1).end(), None);
        assert_eq!(Range::new(1, MAX - 1).end(), Some(MAX));
        assert_eq!(Range::new(1, MAX).end(), None);
    }

    #[test]
    fn contains_compares_both_ends() {
        let outer = Range::new(10, 10);
        let table = [
            (10, 10, true),
            (10, 11, false),
            (9, 10, false),
            (9, 11, false),
            (11, 9, true),
            (11, 10, false),
            (19, 1, true),
            (20, 1, false),
            (0, 5, false),
            (20, 0, true),
            (5, 0, true),
            (MAX, 0, true),
            (MAX, 1, false),
            (10, MAX, false),
        ];
        for (offset, len, expected) in table {
            let inner = Range::new(offset, len);
            assert_eq!(outer.contains(inner), expected, "{inner:?}");
        }
        assert!(!Range::new(MAX, 1).contains(Range::new(MAX, 1)));
        assert!(Range::new(0, 0).contains(Range::new(7, 0)));
        assert!(!Range::new(7, 0).contains(Range::new(7, 1)));
    }

    #[test]
    fn shifted_never_wraps() {
        let table = [
            (5, 3, 10, Some((15, 3))),
            (0, 1, MAX, None),
            (0, 0, MAX, Some((MAX, 0))),
            (1, 0, MAX, None),
            (0, 1, MAX - 1, Some((MAX - 1, 1))),
            (0, 2, MAX - 1, None),
            (MAX, 1, 0, None),
        ];
        for (offset, len, base, expected) in table {
            let expected = expected.map(|(offset, len)| Range::new(offset, len));
            assert_eq!(Range::new(offset, len).shifted(base), expected);
        }
    }

    #[test]
    fn lines_cover_the_range_and_not_one_more() {
        let table = [
            // offset, len, first byte, bytes
            (0, 1, 0, 64),
            (0, 64, 0, 64),
            (0, 65, 0, 128),
            (63, 1, 0, 64),
            (63, 2, 0, 128),
            (64, 1, 64, 64),
            (1, 64, 0, 128),
            (65, 62, 64, 64),
            (65, 63, 64, 64),
            (65, 64, 64, 128),
            (0, 0, 0, 0),
            (100, 0, 64, 0),
        ];
        for (offset, len, first, bytes) in table {
            let lines = Range::new(offset, len).lines(64);
            assert_eq!(lines, Some(Range::new(first, bytes)), "{offset}+{len}");
        }
    }

    #[test]
    fn lines_refuse_what_cannot_be_said() {
        // The last line ends at 2^64.
        assert_eq!(Range::new(MAX - 1, 1).lines(64), None);
        assert_eq!(Range::new(MAX - 64, 2).lines(64), None);
        assert_eq!(
            Range::new(MAX - 64, 1).lines(64),
            Some(Range::new(MAX - 127, 64))
        );
        assert_eq!(Range::new(5, MAX).lines(64), None);
        for line in [0, 3, 65, MAX] {
            assert_eq!(Range::new(0, 1).lines(line), None, "line {line}");
        }
        assert_eq!(Range::new(7, 9).lines(1), Some(Range::new(7, 9)));
    }

    #[test]
    fn random_lines_are_the_smallest_that_cover() {
        let mut rng = testing::rng();
        for _ in 0..10_000 {
            let line = 1 << rng.below(13);
            let range = Range::new(rng.below(1 << 40), 1 + rng.below(1 << 20));
            let lines = range.lines(line).unwrap();
            assert!(lines.contains(range));
            assert_eq!((lines.offset % line, lines.len % line), (0, 0));
            assert!(range.offset - lines.offset < line);
            assert!(lines.end().unwrap() - range.end().unwrap() < line);
        }
    }

    #[test]
    fn indices_exist_only_within() {
        assert_eq!(Range::new(2, 3).indices(5), Some(2..5));
        assert_eq!(Range::new(2, 4).indices(5), None);
        assert_eq!(Range::new(5, 0).indices(5), Some(5..5));
        assert_eq!(Range::new(6, 0).indices(5), None);
        assert_eq!(Range::new(MAX, 2).indices(5), None);
    }
}
