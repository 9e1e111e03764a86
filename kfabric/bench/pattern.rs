// SPDX-License-Identifier: GPL-2.0

//! The pattern that buffers are filled with: numbers of 8 bytes.

use crate::word::number;
use core::ops::RangeFrom;

const WORD: usize = size_of::<u64>();

/// The numbers of buffer `which` of the measurement `seed`; those of no two are the same.
fn numbers(which: usize, seed: u64) -> RangeFrom<u64> {
    seed << 48 | (which as u64) << 32..
}

pub(crate) fn fill(bytes: &mut [u8], which: usize, seed: u64) {
    for (to, number) in bytes.chunks_exact_mut(WORD).zip(numbers(which, seed)) {
        to.copy_from_slice(&number.to_le_bytes());
    }
}

pub(crate) fn is_of(bytes: &[u8], which: usize, seed: u64) -> bool {
    let words = bytes.chunks_exact(WORD);
    let mut pairs = words.zip(numbers(which, seed));
    pairs.all(|(bytes, number)| bytes == number.to_le_bytes())
}

/// Whether they are those of some buffer of that measurement.
pub(crate) fn is_of_any(bytes: &[u8], seed: u64) -> bool {
    let first = bytes.get(..WORD).and_then(|first| number(first).ok());
    first.is_some_and(|first| is_of(bytes, (first >> 32 & 0xffff) as usize, seed))
}
