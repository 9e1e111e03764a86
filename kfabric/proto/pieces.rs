// SPDX-License-Identifier: GPL-2.0

//! Bytes in pieces: which piece holds which of them.
//!
//! Pieces are told by their ends: how many bytes there are up to the end of each, in ascending
//! order. The bytes are counted through, as if they were in one piece.

use core::ops::Range;

/// Bytes that are in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which piece.
    pub piece: usize,
    /// The first of them, counted from the start of the piece.
    pub skip: usize,
    /// How many of the range are before them.
    pub at: usize,
    /// How many they are; never 0.
    pub len: usize,
}

/// The runs that a range of bytes falls into, in ascending order.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    ends: &'a [usize],
    piece: usize,
    range: Range<usize>,
    offset: usize,
}

impl<'a> Runs<'a> {
    /// Those of `len` bytes from `offset`; `None` if there are no such bytes.
    ///
    /// No bytes are there wherever `offset` is at most the number of all. Takes as many steps as
    /// `ends` has bits in its length.
    pub fn new(ends: &'a [usize], offset: usize, len: usize) -> Option<Runs<'a>> {
        let end = offset.checked_add(len)?;
        if end > ends.last().copied().unwrap_or(0) {
            return None;
        }
        Some(Runs {
            ends,
            piece: ends.partition_point(|end| *end <= offset),
            range: offset..end,
            offset,
        })
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        while !self.range.is_empty() {
            let piece = self.piece;
            let start = match piece.checked_sub(1) {
                Some(before) => *self.ends.get(before)?,
                None => 0,
            };
            let end = self.range.end.min(*self.ends.get(piece)?);
            let from = self.range.start;
            self.piece += 1;
            // A piece without bytes has no run.
            if end > from {
                self.range.start = end;
                return Some(Run {
                    piece,
                    skip: from - start,
                    at: from - self.offset,
                    len: end - from,
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::rng;
    use super::*;

    fn runs(
        ends: &[usize],
        offset: usize,
        len: usize,
    ) -> Option<Vec<(usize, usize, usize, usize)>> {
        let runs = Runs::new(ends, offset, len)?;
        Some(
            runs.map(|run| (run.piece, run.skip, run.at, run.len))
                .collect(),
        )
    }

    #[test]
    fn range_that_reaches_beyond_the_last_piece_has_no_runs() {
        const MAX: usize = usize::MAX;
        let ends = [3, 3, 10];
        for (offset, len, inside) in [
            (0, 0, true),
            (0, 10, true),
            (0, 11, false),
            (9, 1, true),
            (9, 2, false),
            (10, 0, true),
            (10, 1, false),
            (11, 0, false),
            (1, MAX, false),
            (MAX, 1, false),
        ] {
            assert_eq!(
                Runs::new(&ends, offset, len).is_some(),
                inside,
                "{offset} {len}"
            );
        }
        assert_eq!(runs(&[], 0, 0), Some(vec![]));
        assert_eq!(runs(&[], 0, 1), None);
        assert_eq!(runs(&[0, 0], 0, 1), None);
    }

    #[test]
    fn range_is_cut_where_pieces_meet_and_nowhere_else() {
        let ends = [3, 4, 4, 10];
        for (offset, len, expected) in [
            (0, 3, vec![(0, 0, 0, 3)]),
            (0, 4, vec![(0, 0, 0, 3), (1, 0, 3, 1)]),
            (2, 2, vec![(0, 2, 0, 1), (1, 0, 1, 1)]),
            (3, 1, vec![(1, 0, 0, 1)]),
            (3, 2, vec![(1, 0, 0, 1), (3, 0, 1, 1)]),
            (4, 6, vec![(3, 0, 0, 6)]),
            (9, 1, vec![(3, 5, 0, 1)]),
            (1, 9, vec![(0, 1, 0, 2), (1, 0, 2, 1), (3, 0, 3, 6)]),
            (4, 0, vec![]),
        ] {
            assert_eq!(runs(&ends, offset, len), Some(expected), "{offset} {len}");
        }
        // Pieces without bytes at either end.
        assert_eq!(runs(&[0, 2, 2], 0, 2), Some(vec![(1, 0, 0, 2)]));
    }

    #[test]
    fn bytes_of_random_pieces_are_those_of_a_flat_copy() {
        let mut rng = rng();
        for _ in 0..2000 {
            let pieces: Vec<Vec<u8>> = (0..rng.below(20))
                .map(|_| {
                    let mut piece = vec![0; [0, 1, 7, 64][rng.below(4) as usize]];
                    rng.fill(&mut piece);
                    piece
                })
                .collect();
            let flat = pieces.concat();
            let mut end = 0;
            let ends: Vec<usize> = pieces
                .iter()
                .map(|piece| {
                    end += piece.len();
                    end
                })
                .collect();
            let offset = rng.below(flat.len() as u64 + 1) as usize;
            let len = rng.below((flat.len() - offset) as u64 + 1) as usize;
            let mut copied = Vec::new();
            for run in Runs::new(&ends, offset, len).unwrap() {
                assert_eq!(run.at, copied.len());
                assert!(run.len > 0);
                copied.extend_from_slice(&pieces[run.piece][run.skip..run.skip + run.len]);
            }
            assert_eq!(copied, flat[offset..offset + len]);
        }
    }
}
