// SPDX-License-Identifier: GPL-2.0

//! Durability: what makes bytes survive a power cut.
//!
//! Bytes that the CPU or a device stored in persistent memory may still be in a cache, in lines that
//! leave it in any order or not at all. They are durable once
//! 1. every cache line that covers them was written back,
//! 2. the write-backs were fenced, and
//! 3. the device flushed what it buffers itself, where it does.
//!
//! The granularity is one byte: a line that is half in the range is written back as a whole, which
//! makes more durable than was asked for and never less. Bytes beside the range promise nothing.

#![deny(unsafe_code)]

use crate::sys::{around, pmem::Pmem};
use kernel::prelude::*;

/// The smallest range that can be committed, and what its bounds must be a multiple of, in bytes.
pub const GRANULARITY: usize = 1;

/// Makes `len` bytes from `offset` of `device` durable; without bytes, just flushes the device.
///
/// Process context, may sleep. What is stored meanwhile may be durable afterwards, or not.
///
/// # Errors
/// - `EINVAL`: out of bounds.
/// - `ENODEV`: the device is gone, and nothing is known of the bytes.
/// - `EIO` and others of the device: the flush failed, and the bytes may not be durable.
///
/// Source: arch/x86/lib/usercopy_64.c (`clean_cache_range()` rounds to lines), `pmem_wmb()`.
pub(crate) fn commit(device: &Pmem, offset: usize, len: usize) -> Result {
    device.write_back(offset, len)?;
    device.flush()
}

/// As [`commit`], for bytes that were all stored around the cache: no line is to be written back.
///
/// Whoever stored them has fenced them as well, on the CPU that did; what is left is the device.
pub(crate) fn commit_uncached(device: &Pmem, offset: usize, len: usize) -> Result {
    device.check(offset, len)?;
    around::fence();
    device.flush()
}

#[kunit_tests(kfabric_durable)]
mod tests {
    use super::*;
    use crate::sys::pmem::testing::Device;

    const LEN: usize = 4096;

    #[test]
    fn what_is_committed_lies_within_the_device() -> Result {
        let device = Device::new(LEN)?;
        for (offset, len, expected) in [
            (0, 0, Ok(())),
            (0, LEN, Ok(())),
            (LEN - 1, 1, Ok(())),
            (LEN, 0, Ok(())),
            (0, LEN + 1, Err(EINVAL)),
            (LEN, 1, Err(EINVAL)),
            (LEN + 1, 0, Err(EINVAL)),
            (1, usize::MAX, Err(EINVAL)),
        ] {
            assert_eq!(commit(&device, offset, len), expected);
            assert_eq!(commit_uncached(&device, offset, len), expected);
        }
        Ok(())
    }

    #[test]
    fn nothing_is_committed_on_an_unbound_device() -> Result {
        let device = Device::new(LEN)?;
        device.unbind();
        for (offset, len) in [(0, LEN), (LEN - 1, 1), (0, 0), (LEN, 0)] {
            assert_eq!(commit(&device, offset, len), Err(ENODEV));
            assert_eq!(commit_uncached(&device, offset, len), Err(ENODEV));
        }
        Ok(())
    }
}
