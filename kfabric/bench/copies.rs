// SPDX-License-Identifier: GPL-2.0

//! Plain copies: what any transport costs at the least.

use core::hint::black_box;
use kernel::prelude::*;
use kfabric::prelude::*;

/// Pairs of buffers, and how many of their bytes are copied.
pub(crate) struct Copies {
    from: KVec<Memory>,
    to: KVec<Memory>,
    len: usize,
}

impl Copies {
    pub(crate) fn new(from: KVec<Memory>, to: KVec<Memory>, len: usize) -> Self {
        Copies { from, to, len }
    }

    /// The bytes of each pair.
    #[inline(always)]
    pub(crate) fn pairs(&mut self) -> impl Iterator<Item = (&mut [u8], &[u8])> {
        let len = self.len;
        let pairs = self.to.iter_mut().zip(&self.from);
        pairs.filter_map(move |(to, from)| {
            let (to, from) = (to.as_mut_slice()?, from.as_slice()?);
            Some((to.get_mut(..len)?, from.get(..len)?))
        })
    }

    /// Copies each pair once.
    #[inline]
    pub(crate) fn round(&mut self) {
        self.pairs().for_each(|(to, from)| copy(to, from));
    }
}

/// One `memcpy()`, which the compiler must not leave out.
#[inline(always)]
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    black_box(to).copy_from_slice(black_box(from));
}
