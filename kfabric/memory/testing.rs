// SPDX-License-Identifier: GPL-2.0

//! What the tests of memory have in common.

use super::Memory;
use kernel::prelude::*;

pub(super) const MAX: usize = usize::MAX;

/// Offsets and lengths against 64 bytes, and whether they are inside.
pub(super) const BOUNDS: [(usize, usize, bool); 12] = [
    (0, 0, true),
    (0, 64, true),
    (0, 65, false),
    (1, 63, true),
    (1, 64, false),
    (63, 1, true),
    (63, 2, false),
    (64, 0, true),
    (64, 1, false),
    (65, 0, false),
    (MAX, 0, false),
    (MAX, 2, false),
];

/// Memory whose bytes count through.
pub(super) fn counting(len: usize) -> Result<Memory> {
    let mut vec = KVVec::with_capacity(len, GFP_KERNEL)?;
    for i in 0..len {
        vec.push(i as u8, GFP_KERNEL)?;
    }
    Ok(Memory::from_vec(vec))
}

/// Whether something was refused with that error.
pub(super) fn refused<T>(result: Result<T>, error: Error) -> bool {
    matches!(result, Err(e) if e == error)
}

/// Vectors of these lengths, whose bytes count through.
pub(super) fn vecs(lens: &[usize]) -> Result<KVec<KVVec<u8>>> {
    let (mut vecs, mut next) = (KVec::new(), 0usize);
    for len in lens {
        let mut vec = KVVec::with_capacity(*len, GFP_KERNEL)?;
        for _ in 0..*len {
            vec.push(next as u8, GFP_KERNEL)?;
            next += 1;
        }
        vecs.push(vec, GFP_KERNEL)?;
    }
    Ok(vecs)
}

/// Memory of vectors of these lengths, whose bytes count through.
pub(super) fn in_pieces(lens: &[usize]) -> Result<Memory> {
    Memory::from_vecs(vecs(lens)?).map_err(|(error, _)| error)
}
