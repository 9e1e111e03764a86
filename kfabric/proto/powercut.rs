// SPDX-License-Identifier: GPL-2.0

//! Which images a power cut could leave.
//!
//! The model of memory whose caches lose their content: there is a **current** image, what the
//! CPUs see, and a **durable** one, what would survive. Between them:
//!
//! - A store changes the current image only.
//! - A write-back captures the lines that it covers. They are *pending*: on their way.
//! - A store around the cache is pending as well, its own bytes and no others of their lines.
//! - A fence makes what is pending durable, with the content that was captured. A store to the
//!   same line after its write-back may have come in time or not: it counts as volatile.
//! - A cache may evict a line at any time, unasked: at a cut, anything not durable may survive.
//! - A line arrives in words of 8 bytes: at a cut, each word of a line that differs is, on its
//!   own, old or new. No word is ever torn itself.
//!
//! So what must survive is what was written back *and* fenced; everything else survives by luck,
//! and [`PowerCut::cut`] plays the luck from a seed.
//!
//! Not modelled: which CPU fences (every fence here orders the write-backs of all), and the time
//! it takes. The current image is not kept: each call is handed a snapshot, because live memory
//! changes under a reader and is no `&[u8]`. A value that was overwritten before any call saw it
//! can't survive in the model, though it could in a cache: call [`PowerCut::evict`] between
//! operations to let such values survive too.
//!
//! Source: SNIA NVM Programming Model; Intel SDM volume 2, CLWB.

use super::range::Range;
use super::rng::Rng;
use core::ops::DerefMut;

/// Bytes of a line, the unit of a write-back.
pub const LINE: usize = 64;
/// Bytes of a word, which is old or new but never both.
pub const WORD: usize = 8;

/// Why a call was refused; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// A slice has not the length that it must have.
    Length,
    /// A range is not within the image, or not of whole lines where it must be.
    Range,
}

/// How many lines an image of `len` bytes has; the last may be a part of one.
pub const fn lines(len: usize) -> usize {
    len.div_ceil(LINE)
}

/// The durable image and what is on its way to it.
///
/// # Invariants
///
/// `durable` and `captured` are equally long, `pending` has an element for each of their lines.
/// Where it is not 0, the line in `captured` awaits a fence; all such lines are in `span`.
#[derive(Debug)]
pub struct PowerCut<S> {
    durable: S,
    captured: S,
    pending: S,
    span: core::ops::Range<usize>,
}

/// What a line does at a cut.
#[derive(Clone, Copy)]
enum Luck {
    Old,
    New,
    Torn,
}

impl<S> PowerCut<S>
where
    S: DerefMut<Target = [u8]>,
{
    /// Starts with `durable` as it is handed in. Its first byte starts a line.
    ///
    /// # Errors
    ///
    /// [`Misfit::Length`]: `captured` is not as long as `durable`, or `pending` has not one byte
    /// for each of the [`lines`].
    pub fn new(durable: S, captured: S, mut pending: S) -> Result<Self, Misfit> {
        if captured.len() != durable.len() || pending.len() != lines(durable.len()) {
            return Err(Misfit::Length);
        }
        pending.fill(0);
        Ok(PowerCut {
            durable,
            captured,
            pending,
            span: 0..0,
        })
    }

    /// What survives a cut in any case: the image if nothing else does.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// Writes back the lines that cover `range`, with their content in `current`, the whole image.
    ///
    /// An empty range has none.
    ///
    /// # Errors
    ///
    /// - [`Misfit::Length`]: `current` is not as long as the image.
    /// - [`Misfit::Range`]: `range` is not within the image.
    pub fn write_back(&mut self, range: Range, current: &[u8]) -> Result<(), Misfit> {
        self.same_length(current)?;
        let covered = self.covered(range)?;
        let at = covered.start as u64;
        self.write_back_lines(at, &current[covered])
    }

    /// Writes back whole lines, from offset `at` on, of which a snapshot is in `contents`.
    ///
    /// # Errors
    ///
    /// [`Misfit::Range`]: they are not within the image, or start or end within a line; the last
    /// line ends with the image.
    pub fn write_back_lines(&mut self, at: u64, contents: &[u8]) -> Result<(), Misfit> {
        let range = Range::new(at, contents.len() as u64);
        let covered = range.indices(self.durable.len()).ok_or(Misfit::Range)?;
        if covered != self.covered(range)? {
            return Err(Misfit::Range);
        }
        if covered.is_empty() {
            return Ok(());
        }
        let marked = covered.start / LINE..lines(covered.end);
        self.captured[covered].copy_from_slice(contents);
        self.mark(marked);
        Ok(())
    }

    /// Stores `bytes` at `at` around the cache: they await a fence, and no other of their lines does.
    ///
    /// # Errors
    ///
    /// [`Misfit::Range`]: they are not within the image.
    pub fn store_around(&mut self, at: u64, bytes: &[u8]) -> Result<(), Misfit> {
        let range = Range::new(at, bytes.len() as u64);
        let stored = range.indices(self.durable.len()).ok_or(Misfit::Range)?;
        let covered = self.covered(range)?;
        if covered.is_empty() {
            return Ok(());
        }
        let marked = covered.start / LINE..lines(covered.end);
        for line in marked.clone() {
            if self.pending[line] == 0 {
                let beside = self.bytes_of(line);
                self.captured[beside.clone()].copy_from_slice(&self.durable[beside]);
            }
        }
        self.captured[stored].copy_from_slice(bytes);
        self.mark(marked);
        Ok(())
    }

    /// Has lines await a fence.
    fn mark(&mut self, marked: core::ops::Range<usize>) {
        self.pending[marked.clone()].fill(1);
        self.span = if self.span.is_empty() {
            marked
        } else {
            self.span.start.min(marked.start)..self.span.end.max(marked.end)
        };
    }

    /// Makes what is pending durable.
    pub fn fence(&mut self) {
        for line in self.span.clone() {
            if self.pending[line] != 0 {
                self.pending[line] = 0;
                let bytes = self.bytes_of(line);
                self.durable[bytes.clone()].copy_from_slice(&self.captured[bytes]);
            }
        }
        self.span = 0..0;
    }

    /// Makes some lines durable as they are in `current`, as a cache may at any time.
    ///
    /// One line in 8 on average.
    ///
    /// # Errors
    ///
    /// [`Misfit::Length`]: `current` is not as long as the image.
    pub fn evict(&mut self, rng: &mut Rng, current: &[u8]) -> Result<(), Misfit> {
        self.same_length(current)?;
        for line in 0..self.pending.len() {
            if rng.one_in(8) {
                let bytes = self.bytes_of(line);
                // The write-back of an older content can't arrive after the newer one.
                self.captured[bytes.clone()].copy_from_slice(&current[bytes.clone()]);
                self.durable[bytes.clone()].copy_from_slice(&current[bytes]);
            }
        }
        Ok(())
    }

    /// Puts into `out` one image that a cut at this moment could leave; `rng` decides which.
    ///
    /// Every possible image can come out: each word is taken from the durable image, from what is
    /// pending, or from `current`. A line is left alone, survives whole or is torn, so that rules
    /// about the order of lines are tried as often as those about words.
    ///
    /// The model itself does not change: any number of cuts may be tried at one moment.
    ///
    /// # Errors
    ///
    /// [`Misfit::Length`]: `current` or `out` is not as long as the image.
    pub fn cut(&self, rng: &mut Rng, current: &[u8], out: &mut [u8]) -> Result<(), Misfit> {
        self.same_length(current)?;
        self.same_length(out)?;
        for line in 0..self.pending.len() {
            let luck = match rng.below(4) {
                0 => Luck::Old,
                1 => Luck::New,
                _ => Luck::Torn,
            };
            let bytes = self.bytes_of(line);
            // The same source for the whole line, unless it is torn.
            let mut source = self.newer(line, rng, current);
            for start in bytes.clone().step_by(WORD) {
                let word = start..bytes.end.min(start + WORD);
                let image: &[u8] = match luck {
                    Luck::Old => &self.durable,
                    Luck::New => source,
                    Luck::Torn if rng.one_in(2) => &self.durable,
                    Luck::Torn => {
                        source = self.newer(line, rng, current);
                        source
                    }
                };
                out[word.clone()].copy_from_slice(&image[word]);
            }
        }
        Ok(())
    }

    /// Goes on after a cut that left `image`: it is durable, and nothing is pending.
    ///
    /// # Errors
    ///
    /// [`Misfit::Length`]: `image` is not as long as the image.
    pub fn restart(&mut self, image: &[u8]) -> Result<(), Misfit> {
        self.same_length(image)?;
        self.durable.copy_from_slice(image);
        self.pending.fill(0);
        self.span = 0..0;
        Ok(())
    }

    /// An image that may have replaced the durable one in this line.
    fn newer<'a>(&'a self, line: usize, rng: &mut Rng, current: &'a [u8]) -> &'a [u8] {
        if self.pending[line] != 0 && rng.one_in(2) {
            &self.captured
        } else {
            current
        }
    }

    fn same_length(&self, image: &[u8]) -> Result<(), Misfit> {
        if image.len() == self.durable.len() {
            Ok(())
        } else {
            Err(Misfit::Length)
        }
    }

    /// The bytes of one line.
    fn bytes_of(&self, line: usize) -> core::ops::Range<usize> {
        line * LINE..self.durable.len().min((line + 1) * LINE)
    }

    /// The bytes of all lines that `range` touches.
    fn covered(&self, range: Range) -> Result<core::ops::Range<usize>, Misfit> {
        let size = self.durable.len();
        let asked = range.indices(size).ok_or(Misfit::Range)?;
        if asked.is_empty() {
            return Ok(asked);
        }
        let start = asked.start - asked.start % LINE;
        Ok(start..size.min(lines(asked.end) * LINE))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Ledger;
    use super::super::testing;
    use super::*;
    use std::collections::HashSet;

    const LEN: usize = 4 * LINE;

    fn model(durable: &[u8]) -> PowerCut<Vec<u8>> {
        let len = durable.len();
        PowerCut::new(durable.to_vec(), vec![0xee; len], vec![0xee; lines(len)]).unwrap()
    }

    fn cut(model: &PowerCut<Vec<u8>>, rng: &mut Rng, current: &[u8]) -> Vec<u8> {
        let mut out = vec![0xdd; current.len()];
        model.cut(rng, current, &mut out).unwrap();
        out
    }

    /// Every image that 20,000 cuts leave.
    fn all(model: &PowerCut<Vec<u8>>, current: &[u8]) -> HashSet<Vec<u8>> {
        let mut rng = testing::rng();
        (0..20_000).map(|_| cut(model, &mut rng, current)).collect()
    }

    fn r(offset: u64, len: u64) -> Range {
        Range::new(offset, len)
    }

    #[test]
    fn equal_images_leave_themselves() {
        let image: Vec<u8> = (0..LEN).map(|i| i as u8).collect();
        assert_eq!(all(&model(&image), &image), HashSet::from([image]));
    }

    #[test]
    fn store_without_write_back_may_survive_or_not() {
        let model = model(&[0; LEN]);
        let mut current = vec![0; LEN];
        current[70] = 1;
        let images = all(&model, &current);
        assert_eq!(images, HashSet::from([vec![0; LEN], current]));
    }

    #[test]
    fn words_survive_each_on_its_own() {
        let model = model(&[0; LEN]);
        // Two words of one line and one of another: eight images.
        let at = [0, 56, 64];
        let mut current = vec![0; LEN];
        at.iter().for_each(|&at| current[at..at + WORD].fill(0x11));
        let images = all(&model, &current);
        assert_eq!(images.len(), 8);
        for image in images {
            for (i, word) in image.chunks(WORD).enumerate() {
                let old = word == [0; WORD];
                let new = at.contains(&(i * WORD)) && word == [0x11; WORD];
                assert!(old || new, "word {i} is {word:x?}");
            }
        }
    }

    #[test]
    fn word_is_never_torn() {
        let model = model(&[0; LEN]);
        let current = [0xff; LEN];
        for image in all(&model, &current) {
            assert!(image
                .chunks(WORD)
                .all(|word| word == [0; WORD] || word == [0xff; WORD]));
        }
    }

    #[test]
    fn nothing_and_everything_are_among_the_images() {
        let model = model(&[0; LEN]);
        let current = [0xff; LEN];
        let images = all(&model, &current);
        assert!(images.contains(&vec![0; LEN]));
        assert!(images.contains(&vec![0xff; LEN]));
    }

    #[test]
    fn write_back_without_a_fence_promises_nothing() {
        let mut model = model(&[0; LEN]);
        let current = [1; LEN];
        model.write_back(r(0, LEN as u64), &current).unwrap();
        assert_eq!(model.durable(), [0; LEN]);
        assert!(all(&model, &current).contains(&vec![0; LEN]));
    }

    #[test]
    fn fence_without_a_write_back_promises_nothing() {
        let mut model = model(&[0; LEN]);
        model.fence();
        assert_eq!(model.durable(), [0; LEN]);
        assert!(all(&model, &[1; LEN]).contains(&vec![0; LEN]));
    }

    #[test]
    fn written_back_and_fenced_survives_always() {
        let mut model = model(&[0; LEN]);
        let mut current = vec![0; LEN];
        current[60..70].fill(7);
        model.write_back(r(60, 10), &current).unwrap();
        model.fence();
        assert_eq!(all(&model, &current), HashSet::from([current]));
    }

    #[test]
    fn write_back_covers_whole_lines_and_no_other() {
        let table: &[((u64, u64), core::ops::Range<usize>)] = &[
            ((0, 1), 0..64),
            ((0, 64), 0..64),
            ((0, 65), 0..128),
            ((63, 1), 0..64),
            ((63, 2), 0..128),
            ((64, 1), 64..128),
            ((127, 66), 64..256),
            ((255, 1), 192..256),
            ((0, 0), 0..0),
            ((100, 0), 0..0),
            ((256, 0), 0..0),
        ];
        for ((offset, len), durable) in table {
            let mut model = model(&[0; LEN]);
            model.write_back(r(*offset, *len), &[1; LEN]).unwrap();
            model.fence();
            for (i, &byte) in model.durable().iter().enumerate() {
                assert_eq!(byte == 1, durable.contains(&i), "{offset}+{len} at {i}");
            }
        }
    }

    #[test]
    fn fence_makes_durable_what_was_captured_not_what_came_later() {
        let mut model = model(&[0; LEN]);
        model.write_back(r(0, 8), &[1; LEN]).unwrap();
        model.fence();
        model.write_back(r(0, 8), &[2; LEN]).unwrap();
        // The store of 3 comes between the write-back and its fence.
        let mut current = [1; LEN];
        current[..LINE].fill(3);
        model.fence();
        assert_eq!(model.durable()[..LINE], [2; LINE]);
        let words: HashSet<u8> = all(&model, &current).iter().map(|i| i[0]).collect();
        assert_eq!(words, HashSet::from([2, 3]));
    }

    #[test]
    fn pending_word_may_be_old_captured_or_current() {
        let mut model = model(&[0; 2 * WORD]);
        model.write_back(r(0, 1), &[1; 2 * WORD]).unwrap();
        let images = all(&model, &[2; 2 * WORD]);
        let pairs: HashSet<_> = images.iter().map(|i| (i[0], i[WORD])).collect();
        let expected = (0..3).flat_map(|a| (0..3).map(move |b| (a, b)));
        assert_eq!(pairs, expected.collect());
    }

    #[test]
    fn store_around_the_cache_makes_its_own_bytes_durable() {
        for (at, len) in [
            (0, 1),
            (60, 10),
            (64, 64),
            (63, 130),
            (255, 1),
            (7, 0),
            (256, 0),
        ] {
            let mut model = model(&[0; LEN]);
            model.store_around(at as u64, &vec![1; len]).unwrap();
            assert_eq!(model.durable(), [0; LEN]);
            model.fence();
            for (i, &byte) in model.durable().iter().enumerate() {
                assert_eq!(byte == 1, (at..at + len).contains(&i), "{at}+{len} at {i}");
            }
        }
    }

    #[test]
    fn store_around_the_cache_may_be_lost_before_its_fence() {
        let mut model = model(&[0; WORD]);
        model.store_around(0, &[1; WORD]).unwrap();
        let images = all(&model, &[1; WORD]);
        assert_eq!(images, HashSet::from([vec![0; WORD], vec![1; WORD]]));
    }

    #[test]
    fn store_around_the_cache_joins_what_its_line_awaits() {
        let mut model = model(&[0; LEN]);
        model.write_back(r(0, 1), &[1; LEN]).unwrap();
        model.store_around(8, &[2; 8]).unwrap();
        model.fence();
        assert_eq!(model.durable()[..8], [1; 8]);
        assert_eq!(model.durable()[8..16], [2; 8]);
        assert_eq!(model.durable()[16..LINE], [1; LINE - 16]);
        // What was pending once is forgotten.
        model.restart(&[5; LEN]).unwrap();
        model.store_around(0, &[6]).unwrap();
        model.fence();
        assert_eq!(model.durable()[..2], [6, 5]);
        for (at, len) in [(256, 1), (0, 257), (u64::MAX, 2)] {
            let stored = model.store_around(at, &vec![0; len]);
            assert_eq!(stored, Err(Misfit::Range));
        }
    }

    #[test]
    fn second_write_back_replaces_the_first() {
        let mut model = model(&[0; LEN]);
        model.write_back(r(0, 1), &[1; LEN]).unwrap();
        model.write_back(r(0, 1), &[2; LEN]).unwrap();
        model.fence();
        assert_eq!(model.durable()[0], 2);
    }

    #[test]
    fn second_fence_has_nothing_to_do() {
        let mut model = model(&[0; LEN]);
        model.write_back(r(0, 1), &[1; LEN]).unwrap();
        model.fence();
        model.restart(&[5; LEN]).unwrap();
        model.fence();
        assert_eq!(model.durable(), [5; LEN]);
    }

    #[test]
    fn far_lines_are_fenced_together() {
        for order in [[0, 3], [3, 0], [1, 2], [2, 1]] {
            let mut model = model(&[0; LEN]);
            for line in order {
                model.write_back(r(line * 64 + 5, 1), &[1; LEN]).unwrap();
            }
            model.fence();
            for line in 0..4 {
                let expected = u8::from(order.contains(&(line as u64)));
                assert_eq!(model.durable()[line * LINE], expected, "{order:?}");
            }
        }
    }

    #[test]
    fn restart_forgets_what_was_pending() {
        let mut model = model(&[0; LEN]);
        model.write_back(r(0, LEN as u64), &[1; LEN]).unwrap();
        model.restart(&[2; LEN]).unwrap();
        assert_eq!(all(&model, &[2; LEN]), HashSet::from([vec![2; LEN]]));
        model.write_back(r(64, 1), &[3; LEN]).unwrap();
        model.fence();
        assert_eq!(model.durable()[..LINE], [2; LINE]);
        assert_eq!(model.durable()[LINE..2 * LINE], [3; LINE]);
        assert_eq!(model.durable()[2 * LINE..], [2; 2 * LINE]);
    }

    #[test]
    fn image_may_end_within_a_line_and_within_a_word() {
        for len in [0, 1, 7, 9, 63, 65, 100, 127] {
            let mut model = model(&vec![0; len]);
            let current = vec![1; len];
            let images = all(&model, &current);
            for image in &images {
                assert!(image.chunks(WORD).all(|w| w.iter().all(|b| b == &w[0])));
            }
            assert!(images.contains(&current));
            if len > 0 {
                model.write_back(r(len as u64 - 1, 1), &current).unwrap();
                model.fence();
                let (before, last) = model.durable().split_at((len - 1) / LINE * LINE);
                assert!(before.iter().all(|&b| b == 0) && last.iter().all(|&b| b == 1));
            }
        }
    }

    #[test]
    fn misfits_are_refused_and_change_nothing() {
        let make = |captured: usize, pending: usize| {
            PowerCut::new(vec![0; 65], vec![0; captured], vec![0; pending]).map(|_| ())
        };
        assert_eq!(make(65, 2), Ok(()));
        assert_eq!(make(64, 2), Err(Misfit::Length));
        assert_eq!(make(66, 2), Err(Misfit::Length));
        assert_eq!(make(65, 1), Err(Misfit::Length));
        assert_eq!(make(65, 3), Err(Misfit::Length));

        let mut model = model(&[0; LEN]);
        let mut rng = Rng::new(0);
        let (long, short) = ([1; LEN + 1], [1; LEN - 1]);
        for image in [&long[..], &short[..]] {
            let mut out = image.to_vec();
            assert_eq!(model.write_back(r(0, 1), image), Err(Misfit::Length));
            assert_eq!(model.evict(&mut rng, image), Err(Misfit::Length));
            assert_eq!(model.restart(image), Err(Misfit::Length));
            let cut = model.cut(&mut rng, image, &mut [0; LEN]);
            assert_eq!(cut, Err(Misfit::Length));
            let cut = model.cut(&mut rng, &[0; LEN], &mut out);
            assert_eq!(cut, Err(Misfit::Length));
        }
        for range in [r(0, 257), r(256, 1), r(257, 0), r(u64::MAX, 2)] {
            assert_eq!(model.write_back(range, &[1; LEN]), Err(Misfit::Range));
        }
        for (at, len) in [(1, 64), (0, 63), (64, 65), (256, 64), (u64::MAX, 1)] {
            let lines = model.write_back_lines(at, &vec![1; len]);
            assert_eq!(lines, Err(Misfit::Range), "{at}+{len}");
        }
        model.fence();
        assert_eq!(model.durable(), [0; LEN]);
    }

    #[test]
    fn lines_are_written_back_from_their_own_snapshot() {
        let mut model = model(&[0; 100]);
        model.write_back_lines(0, &[1; 64]).unwrap();
        model.write_back_lines(64, &[2; 36]).unwrap();
        model.write_back_lines(64, &[]).unwrap();
        model.fence();
        assert_eq!(model.durable()[..64], [1; 64]);
        assert_eq!(model.durable()[64..], [2; 36]);
    }

    #[test]
    fn eviction_lets_an_overwritten_value_survive() {
        let mut rng = testing::rng();
        let mut survived = HashSet::new();
        for _ in 0..2000 {
            let mut model = model(&[0; LINE]);
            model.evict(&mut rng, &[1; LINE]).unwrap();
            survived.insert(cut(&model, &mut rng, &[2; LINE])[0]);
        }
        assert_eq!(survived, HashSet::from([0, 1, 2]));
    }

    #[test]
    fn eviction_takes_few_lines_and_whole_ones() {
        let mut rng = testing::rng();
        let mut model = model(&[0; 1000 * LINE]);
        model.evict(&mut rng, &[1; 1000 * LINE]).unwrap();
        let evicted = model.durable().chunks(LINE).filter(|line| line[0] == 1);
        let evicted = evicted.inspect(|line| assert_eq!(line, &[1; LINE])).count();
        assert!((60..200).contains(&evicted), "{evicted} of 1000");
    }

    #[test]
    fn fence_never_goes_back_behind_an_eviction() {
        let mut rng = testing::rng();
        let mut seen = HashSet::new();
        for _ in 0..200 {
            let mut model = model(&[0; LINE]);
            model.write_back(r(0, 1), &[1; LINE]).unwrap();
            model.evict(&mut rng, &[2; LINE]).unwrap();
            let evicted = model.durable()[0] == 2;
            model.fence();
            assert_eq!(model.durable()[0], if evicted { 2 } else { 1 });
            seen.insert(evicted);
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn equal_seeds_cut_equally() {
        let model = model(&[0; LEN]);
        let run = |seed| {
            let mut rng = Rng::new(seed);
            let cuts: Vec<_> = (0..10).map(|_| cut(&model, &mut rng, &[1; LEN])).collect();
            cuts
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    /// Which step of a correct commit is left out.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Mistake {
        None,
        NoWriteBack,
        NoFence,
        FenceFirst,
        LastLineForgotten,
        FirstLineForgotten,
    }

    /// Writes and commits at random with a cut after each operation; how many cuts lost a byte.
    fn lost_cuts(rng: &mut Rng, mistake: Mistake) -> usize {
        const SIZE: usize = 16 * LINE;
        let mut model = model(&[0; SIZE]);
        let mut ledger = Ledger::new(vec![0; SIZE], vec![0; SIZE], vec![0; SIZE]).unwrap();
        ledger.committed(0, &[0; SIZE]).unwrap();
        let mut current = vec![0; SIZE];
        let mut lost = 0;
        for _ in 0..300 {
            let offset = rng.below(SIZE as u64 - 1);
            let len = 1 + rng.below((SIZE as u64 - offset).min(300));
            let range = r(offset, len);
            let bytes = range.indices(SIZE).unwrap();
            if rng.one_in(2) {
                rng.fill(&mut current[bytes.clone()]);
                ledger.written(offset, &current[bytes]).unwrap();
            } else {
                let flushed = match mistake {
                    Mistake::NoWriteBack => r(offset, 0),
                    Mistake::LastLineForgotten => r(offset, (len - 1) / 64 * 64),
                    Mistake::FirstLineForgotten if len > 64 => r(offset + 64, len - 64),
                    Mistake::FirstLineForgotten => r(offset, 0),
                    _ => range,
                };
                if mistake == Mistake::FenceFirst {
                    model.fence();
                }
                model.write_back(flushed, &current).unwrap();
                if !matches!(mistake, Mistake::NoFence | Mistake::FenceFirst) {
                    model.fence();
                }
                ledger.committed(offset, &current[bytes]).unwrap();
            }
            if rng.one_in(4) {
                model.evict(rng, &current).unwrap();
            }
            let image = cut(&model, rng, &current);
            lost += usize::from(ledger.check(&image).is_err());
            lost += usize::from(ledger.check(model.durable()).is_err());
            assert_eq!(ledger.check(&current), Ok(()));
        }
        lost
    }

    #[test]
    fn correct_commits_lose_no_byte_in_thousands_of_cuts() {
        let mut rng = testing::rng();
        for _ in 0..20 {
            assert_eq!(lost_cuts(&mut rng, Mistake::None), 0);
        }
    }

    #[test]
    fn every_mistake_in_a_commit_is_seen() {
        let mut rng = testing::rng();
        for mistake in [
            Mistake::NoWriteBack,
            Mistake::NoFence,
            Mistake::FenceFirst,
            Mistake::LastLineForgotten,
            Mistake::FirstLineForgotten,
        ] {
            let lost = lost_cuts(&mut rng, mistake);
            assert!(lost > 10, "{mistake:?} lost a byte in {lost} cuts only");
        }
    }
}
