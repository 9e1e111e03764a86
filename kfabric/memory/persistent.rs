// SPDX-License-Identifier: GPL-2.0

//! A range of a persistent device: the kind of memory that survives.

use crate::sys::{copy::Window, pmem::Pmem};
use kernel::{prelude::*, sync::Arc};

/// A range of a persistent device.
///
/// # Invariants
///
/// `offset + len` does not overflow, and is at most the length of `device`.
pub(super) struct Range {
    pub(super) device: Arc<Pmem>,
    pub(super) offset: usize,
    pub(super) len: usize,
}

impl Range {
    /// Returns where `len` bytes from `offset` of the range are on the device.
    pub(super) fn locate(&self, offset: usize, len: usize) -> Result<usize> {
        if offset.checked_add(len).ok_or(EINVAL)? > self.len {
            return Err(EINVAL);
        }
        Ok(self.offset + offset)
    }

    /// Calls `f` with a window on `len` bytes from `offset` of the range.
    pub(super) fn with<T>(
        &self,
        offset: usize,
        len: usize,
        f: impl FnOnce(Window<'_>) -> Result<T>,
    ) -> Result<T> {
        let offset = self.locate(offset, len)?;
        let access = self.device.access()?;

        f(access.window().sub(offset, len)?)
    }
}
