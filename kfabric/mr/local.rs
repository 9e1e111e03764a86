// SPDX-License-Identifier: GPL-2.0

//! The local descriptor.

use super::region::Region;
use crate::memory::Exposed;
use crate::sys::lease::Lease;

/// Bytes of a region of this host, for operations: the local descriptor.
///
/// While it exists the region can't be reclaimed.
pub struct LocalSlice {
    pub(super) region: Lease<Region>,
    pub(super) offset: usize,
    pub(super) len: usize,
}

impl LocalSlice {
    /// The first byte, counted from the region's start.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes from `offset` of its region, which lie within it.
    pub(crate) fn part(&self, offset: usize, len: usize) -> LocalSlice {
        LocalSlice {
            region: self.region.clone(),
            offset,
            len,
        }
    }

    /// The number of its region's domain.
    #[inline]
    pub(crate) fn domain(&self) -> u64 {
        self.region.domain
    }

    #[inline]
    pub(crate) fn memory(&self) -> &Exposed {
        &self.region.memory
    }
}
