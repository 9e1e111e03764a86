// SPDX-License-Identifier: GPL-2.0

//! Which bytes must be in every image that a power cut could leave.
//!
//! The other half of the [power-cut model](super::powercut): tests enter what was committed and
//! what was written since, and have images checked. For each byte the ledger accepts
//! - the committed value, if nothing else was written since;
//! - the committed or the written value, if one other value was written since;
//! - anything, if two or more were, or if the byte was never committed.
//!
//! The last is looser than it could be; [`Ledger::exact`] shows how much of a check is exact.

use super::powercut::Misfit;
use super::range::Range;
use core::ops::DerefMut;

/// Any value is accepted.
const ANY: u8 = 0;
/// The committed value only.
const COMMITTED: u8 = 1;
/// The committed value or the newer one.
const EITHER: u8 = 2;

/// A byte that was promised and is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Where it is in the image.
    pub offset: u64,
    /// The value that was committed.
    pub expected: u8,
    /// What the image holds instead; `None`: the image ends before.
    pub found: Option<u8>,
}

/// What is known of each byte, in storage that is handed in.
///
/// # Invariants
///
/// The three are equally long. Where `state` is `EITHER`, `newer` is a value written since and
/// differs from `committed`.
#[derive(Debug)]
pub struct Ledger<S> {
    committed: S,
    newer: S,
    state: S,
}

impl<S> Ledger<S>
where
    S: DerefMut<Target = [u8]>,
{
    /// Nothing is committed yet. Enter the first image as committed if it is known to be durable.
    ///
    /// Each of the three is as long as the image; what is in them does not matter.
    ///
    /// # Errors
    ///
    /// [`Misfit::Length`]: they are not equally long.
    pub fn new(committed: S, newer: S, mut state: S) -> Result<Self, Misfit> {
        if newer.len() != committed.len() || state.len() != committed.len() {
            return Err(Misfit::Length);
        }
        state.fill(ANY);
        Ok(Ledger {
            committed,
            newer,
            state,
        })
    }

    /// From now on `contents` are durable at `offset`, and nothing was written there since.
    ///
    /// If something was, as when operations overlap, enter that as [written](Ledger::written)
    /// again, afterwards.
    ///
    /// # Errors
    ///
    /// [`Misfit::Range`]: not within the image; nothing is entered.
    pub fn committed(&mut self, offset: u64, contents: &[u8]) -> Result<(), Misfit> {
        let bytes = self.indices(offset, contents)?;
        self.committed[bytes.clone()].copy_from_slice(contents);
        self.state[bytes].fill(COMMITTED);
        Ok(())
    }

    /// `contents` were or are being written at `offset`, and not committed: these bytes may be as
    /// before or as now.
    ///
    /// Enter it before the first byte is stored.
    ///
    /// # Errors
    ///
    /// [`Misfit::Range`]: not within the image; nothing is entered.
    pub fn written(&mut self, offset: u64, contents: &[u8]) -> Result<(), Misfit> {
        let bytes = self.indices(offset, contents)?;
        for (at, &byte) in bytes.zip(contents) {
            let known = self.committed[at] == byte;
            match self.state[at] {
                COMMITTED if !known => {
                    self.newer[at] = byte;
                    self.state[at] = EITHER;
                }
                EITHER if !known && self.newer[at] != byte => self.state[at] = ANY,
                _ => {}
            }
        }
        Ok(())
    }

    /// Nothing is known of `range` any more: something was written that cannot be told.
    ///
    /// # Errors
    ///
    /// [`Misfit::Range`]: not within the image; nothing is forgotten.
    pub fn forget(&mut self, range: Range) -> Result<(), Misfit> {
        let bytes = range.indices(self.state.len()).ok_or(Misfit::Range)?;
        self.state[bytes].fill(ANY);
        Ok(())
    }

    /// Compares `image` with what is known.
    ///
    /// Bytes after the last known one are not looked at.
    ///
    /// # Errors
    ///
    /// [`Lost`]: the first byte that is not one of the accepted values.
    pub fn check(&self, image: &[u8]) -> Result<(), Lost> {
        for (at, &state) in self.state.iter().enumerate() {
            let expected = self.committed[at];
            let found = image.get(at).copied();
            let accepted = match state {
                COMMITTED => found == Some(expected),
                EITHER => found == Some(expected) || found == Some(self.newer[at]),
                _ => true,
            };
            if !accepted {
                return Err(Lost {
                    offset: at as u64,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// How many bytes accept a single value.
    pub fn exact(&self) -> usize {
        let exact = self.state.iter().filter(|&&state| state == COMMITTED);
        exact.count()
    }

    fn indices(&self, offset: u64, contents: &[u8]) -> Result<core::ops::Range<usize>, Misfit> {
        Range::new(offset, contents.len() as u64)
            .indices(self.state.len())
            .ok_or(Misfit::Range)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use std::collections::HashSet;

    fn ledger(len: usize) -> Ledger<Vec<u8>> {
        Ledger::new(vec![0xee; len], vec![0xee; len], vec![0xee; len]).unwrap()
    }

    /// The values that the ledger accepts for byte 0 of 1.
    fn accepted(ledger: &Ledger<Vec<u8>>) -> Vec<u8> {
        (0..=u8::MAX)
            .filter(|&byte| ledger.check(&[byte]).is_ok())
            .collect()
    }

    #[test]
    fn byte_never_committed_may_be_anything() {
        let mut ledger = ledger(1);
        assert_eq!(accepted(&ledger).len(), 256);
        ledger.written(0, &[5]).unwrap();
        assert_eq!(accepted(&ledger).len(), 256);
        assert_eq!(ledger.check(&[]), Ok(()));
        assert_eq!(ledger.exact(), 0);
    }

    #[test]
    fn storage_brings_nothing_along() {
        for left in 0..4 {
            let ledger = Ledger::new(vec![left], vec![left], vec![left]).unwrap();
            assert_eq!(accepted(&ledger).len(), 256, "{left}");
        }
    }

    #[test]
    fn committed_byte_accepts_itself_only() {
        let mut ledger = ledger(1);
        ledger.committed(0, &[5]).unwrap();
        assert_eq!(accepted(&ledger), [5]);
        ledger.committed(0, &[6]).unwrap();
        assert_eq!(accepted(&ledger), [6]);
        assert_eq!(ledger.exact(), 1);
    }

    #[test]
    fn written_since_accepts_old_and_new() {
        let mut ledger = ledger(1);
        ledger.committed(0, &[5]).unwrap();
        ledger.written(0, &[7]).unwrap();
        assert_eq!(accepted(&ledger), [5, 7]);
        assert_eq!(ledger.exact(), 0);
        // Neither the same again nor the committed value again makes it looser.
        ledger.written(0, &[7]).unwrap();
        ledger.written(0, &[5]).unwrap();
        ledger.written(0, &[7]).unwrap();
        assert_eq!(accepted(&ledger), [5, 7]);
        ledger.written(0, &[8]).unwrap();
        assert_eq!(accepted(&ledger).len(), 256);
    }

    #[test]
    fn writing_the_committed_value_changes_nothing() {
        let mut ledger = ledger(1);
        ledger.committed(0, &[5]).unwrap();
        ledger.written(0, &[5]).unwrap();
        assert_eq!(accepted(&ledger), [5]);
    }

    #[test]
    fn commit_settles_what_was_written() {
        for values in [&[7][..], &[7, 8], &[7, 8, 9]] {
            let mut ledger = ledger(1);
            ledger.committed(0, &[5]).unwrap();
            for &value in values {
                ledger.written(0, &[value]).unwrap();
            }
            ledger.committed(0, &[7]).unwrap();
            assert_eq!(accepted(&ledger), [7]);
            ledger.written(0, &[1]).unwrap();
            assert_eq!(accepted(&ledger), [1, 7]);
        }
    }

    #[test]
    fn forgotten_byte_may_be_anything_until_committed() {
        let mut ledger = ledger(1);
        ledger.committed(0, &[5]).unwrap();
        ledger.forget(Range::new(0, 1)).unwrap();
        ledger.written(0, &[6]).unwrap();
        assert_eq!(accepted(&ledger).len(), 256);
        ledger.committed(0, &[6]).unwrap();
        assert_eq!(accepted(&ledger), [6]);
    }

    #[test]
    fn first_lost_byte_is_named() {
        let mut ledger = ledger(8);
        ledger.committed(2, &[1, 2, 3]).unwrap();
        let lost = |offset, expected, found| {
            Err(Lost {
                offset,
                expected,
                found,
            })
        };
        assert_eq!(ledger.check(&[9, 9, 1, 2, 3, 9, 9, 9]), Ok(()));
        assert_eq!(ledger.check(&[9, 9, 1, 0, 0, 9, 9, 9]), lost(3, 2, Some(0)));
        assert_eq!(ledger.check(&[9, 9, 0, 2, 3, 9, 9, 9]), lost(2, 1, Some(0)));
        assert_eq!(ledger.check(&[9, 9, 1, 2]), lost(4, 3, None));
        assert_eq!(ledger.check(&[9, 9, 1, 2, 3]), Ok(()));
        assert_eq!(ledger.check(&[9, 9, 1, 2, 3, 0, 0, 0, 0]), Ok(()));
        // The committed value is the one expected, also where two are accepted.
        ledger.written(2, &[7]).unwrap();
        assert_eq!(ledger.check(&[9, 9, 8, 2, 3]), lost(2, 1, Some(8)));
    }

    #[test]
    fn entries_touch_their_range_only() {
        let mut ledger = ledger(6);
        ledger.committed(0, &[1; 6]).unwrap();
        ledger.committed(1, &[2, 2]).unwrap();
        ledger.written(3, &[3]).unwrap();
        ledger.forget(Range::new(4, 1)).unwrap();
        assert_eq!(ledger.exact(), 4);
        assert_eq!(ledger.check(&[1, 2, 2, 3, 9, 1]), Ok(()));
        assert_eq!(ledger.check(&[1, 2, 2, 1, 0, 1]), Ok(()));
        for at in [0, 1, 2, 3, 5] {
            let mut image = [1, 2, 2, 3, 9, 1];
            image[at] = 8;
            assert_eq!(ledger.check(&image).unwrap_err().offset, at as u64);
        }
    }

    #[test]
    fn misfits_are_refused() {
        let make = |a, b, c| Ledger::new(vec![0; a], vec![0; b], vec![0; c]).map(|_| ());
        assert_eq!(make(4, 4, 4), Ok(()));
        assert_eq!(make(4, 3, 4), Err(Misfit::Length));
        assert_eq!(make(4, 4, 5), Err(Misfit::Length));
        let mut ledger = ledger(4);
        ledger.committed(0, &[1; 4]).unwrap();
        for (offset, len) in [(0, 5), (4, 1), (5, 0), (u64::MAX, 1)] {
            let contents = vec![2; len];
            assert_eq!(ledger.committed(offset, &contents), Err(Misfit::Range));
            assert_eq!(ledger.written(offset, &contents), Err(Misfit::Range));
            let range = Range::new(offset, len as u64);
            assert_eq!(ledger.forget(range), Err(Misfit::Range));
        }
        ledger.written(4, &[]).unwrap();
        assert_eq!(ledger.check(&[1; 4]), Ok(()));
        assert_eq!(ledger.exact(), 4);
    }

    #[test]
    fn random_entries_agree_with_sets_of_values() {
        const LEN: usize = 40;
        let mut rng = testing::rng();
        for _ in 0..200 {
            let mut ledger = ledger(LEN);
            // What each byte may be; None: anything.
            let mut model: Vec<Option<HashSet<u8>>> = vec![None; LEN];
            for _ in 0..30 {
                let offset = rng.below(LEN as u64);
                let bytes = offset as usize..LEN.min((offset + rng.below(12)) as usize);
                let contents: Vec<u8> = bytes.clone().map(|_| rng.below(4) as u8).collect();
                let commit = rng.one_in(3);
                if commit {
                    ledger.committed(offset, &contents).unwrap();
                } else {
                    ledger.written(offset, &contents).unwrap();
                }
                for (at, byte) in bytes.zip(contents) {
                    if commit {
                        model[at] = Some(HashSet::from([byte]));
                    } else if let Some(values) = &mut model[at] {
                        values.insert(byte);
                        if values.len() > 2 {
                            model[at] = None;
                        }
                    }
                }
            }
            let image: Vec<u8> = (0..LEN).map(|_| rng.below(5) as u8).collect();
            let bad = |at: usize| model[at].as_ref().is_some_and(|v| !v.contains(&image[at]));
            let first = (0..LEN).find(|&at| bad(at)).map(|at| at as u64);
            assert_eq!(ledger.check(&image).err().map(|lost| lost.offset), first);
            let exact = model.iter().flatten().filter(|v| v.len() == 1).count();
            assert_eq!(ledger.exact(), exact);
        }
    }
}
