// SPDX-License-Identifier: GPL-2.0

//! What RMA is aimed at.

use super::Access;
use crate::proto::key::Key;
use crate::proto::range::Range;

/// Bytes of a peer's region: what RMA is aimed at.
#[derive(Clone, Copy)]
pub struct RemoteSlice {
    pub(super) key: Key,
    pub(super) range: Range,
    pub(super) access: Access,
    pub(super) persistent: bool,
}

impl RemoteSlice {
    /// What a peer's operation is aimed at, here: whether it may be, is found where it acts.
    pub(crate) fn asked(key: Key, range: Range) -> Self {
        RemoteSlice {
            key,
            range,
            access: Access::NONE,
            persistent: false,
        }
    }

    /// The first byte, counted from the region's start.
    pub fn offset(&self) -> u64 {
        self.range.offset
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.range.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether its bytes can be made durable.
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Whether its first word of `size` bytes, a power of 2, is aligned in the region.
    #[inline(always)]
    pub(crate) fn is_aligned(&self, size: usize) -> bool {
        self.range.offset.trailing_zeros() >= size.trailing_zeros()
    }

    #[inline]
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    #[inline]
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    #[inline]
    pub(crate) fn access(&self) -> Access {
        self.access
    }
}
