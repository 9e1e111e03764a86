// SPDX-License-Identifier: GPL-2.0

//! Bytes that differ from place to place and from seed to seed, and so are known again.

use crate::memory::Memory;
use crate::op::Buffer;
use kernel::prelude::*;

/// Memory of such bytes.
pub(crate) fn pattern(len: usize, seed: u64) -> Result<Memory> {
    let mut vec = KVVec::with_capacity(len, GFP_KERNEL)?;
    for at in 0..len {
        vec.push(byte(at, seed), GFP_KERNEL)?;
    }
    Ok(Memory::from_vec(vec))
}

/// Whether those bytes are what [`pattern`] makes.
pub(crate) fn is_pattern(bytes: &[u8], seed: u64) -> bool {
    let mut all = bytes.iter().enumerate();
    all.all(|(at, found)| *found == byte(at, seed))
}

/// Whether the memory that has come back is.
pub(crate) fn brings(buffer: Buffer, seed: u64) -> bool {
    let memory = buffer.into_memory().ok();
    let bytes = memory.as_ref().and_then(|memory| memory.as_slice());
    bytes.is_some_and(|bytes| is_pattern(bytes, seed))
}

fn byte(at: usize, seed: u64) -> u8 {
    (at as u64)
        .wrapping_mul(31)
        .wrapping_add(seed.wrapping_mul(97)) as u8
}
