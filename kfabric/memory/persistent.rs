// SPDX-License-Identifier: GPL-2.0

//! A range of a persistent device: the kind of memory that survives.

use super::range::Range;
use crate::sys::{copy::Window, pmem::Pmem};
use kernel::prelude::*;

impl Range<Pmem> {
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
