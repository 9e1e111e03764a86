// SPDX-License-Identifier: GPL-2.0

//! A range of a device: what memory is made of that belongs to a device.

use kernel::{prelude::*, sync::Arc};

/// A range of a device.
///
/// # Invariants
///
/// `offset + len` does not overflow, and is at most the length of `device`.
pub(super) struct Range<D> {
    pub(super) device: Arc<D>,
    pub(super) offset: usize,
    pub(super) len: usize,
}

impl<D> Range<D> {
    /// Makes the range of `len` bytes from `offset` of a device of `size` bytes.
    ///
    /// # Errors
    /// - `EINVAL`: no bytes, or some beyond the end of the device.
    pub(super) fn new(device: &Arc<D>, size: u64, offset: u64, len: usize) -> Result<Self> {
        if len == 0 || offset.checked_add(len as u64).ok_or(EINVAL)? > size {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked; the length of a device that is mapped fits a usize.
        Ok(Range {
            device: device.clone(),
            offset: offset as usize,
            len,
        })
    }

    /// Returns where `len` bytes from `offset` of the range are on the device.
    pub(super) fn locate(&self, offset: usize, len: usize) -> Result<usize> {
        if offset.checked_add(len).ok_or(EINVAL)? > self.len {
            return Err(EINVAL);
        }
        Ok(self.offset + offset)
    }
}
