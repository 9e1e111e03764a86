// SPDX-License-Identifier: GPL-2.0

//! Stores around the cache: after each of them nothing of it is in a cache.
//!
//! The processor's stores that bypass the cache (MOVNTI) take whole, aligned words; what is not, a
//! word that is changed at once, and bytes whose source may fail, are stored in the cache, and their
//! lines are written back before the call returns. A fence ends each of them.
//!
//! Source: `__memcpy_flushcache()` in arch/x86/lib/usercopy_64.c; Intel SDM volume 1, 10.4.6.2.

use super::bindings as door;
use core::ffi::c_void;
use kernel::prelude::*;

/// Whether stores can go around the cache on this kernel.
// Not inlined into providers, which do not see the C side.
#[inline(never)]
pub(crate) fn is_possible() -> bool {
    // SAFETY: A constant of the C side.
    unsafe { door::kfi_around_possible }
}

/// Waits for the stores around the cache of this CPU; any context.
pub(crate) fn fence() {
    // SAFETY: Always safe to call.
    unsafe { door::kfi_around_fence() };
}

/// Copies bytes, which may overlap, around the cache.
///
/// # Safety
///
/// `len` bytes are mapped from `dst` and from `src` on, and no reference to those of `dst` exists.
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: As the caller guarantees; C takes the race with other writers.
    unsafe { door::kfi_copy_around(dst.cast::<c_void>(), src.cast::<c_void>(), len) };
}

/// Writes back the lines of bytes that were stored in the cache.
///
/// # Safety
///
/// `len` bytes are mapped from `ptr` on.
pub(super) unsafe fn settle(ptr: *mut u8, len: usize) {
    // SAFETY: As the caller guarantees.
    unsafe { door::kfi_pmem_write_back(ptr.cast::<c_void>(), len) };
}

#[kunit_tests(kfabric_sys_around)]
mod tests {
    use super::*;
    use crate::sys::copy::{SharedBytes, Window};

    /// Lines of the cache, and some bytes more.
    const LEN: usize = 4 * 64 + 9;

    fn counting() -> Result<KVVec<u8>> {
        let mut bytes = KVVec::with_capacity(LEN, GFP_KERNEL)?;
        for i in 0..LEN {
            bytes.push((i % 251) as u8, GFP_KERNEL)?;
        }
        Ok(bytes)
    }

    /// Places and lengths at and beside the bounds of words and of lines.
    const PLACES: [(usize, usize, usize); 12] = [
        (0, 0, 0),
        (0, 128, 64),
        (1, 130, 1),
        (7, 128, 8),
        (8, 129, 63),
        (63, 190, 65),
        (64, 192, 64),
        (3, 200, LEN - 200),
        // Onto themselves, either way.
        (0, 1, 200),
        (1, 0, 200),
        (65, 1, 130),
        (9, 73, 130),
    ];

    #[test]
    fn bytes_go_around_the_cache_as_they_are_and_no_others_change() -> Result {
        for (to, from, len) in PLACES {
            let mut expected = counting()?;
            expected.copy_within(from..from + len, to);
            let bytes = SharedBytes::new(counting()?);
            let (dst, src) = (bytes.window().sub(to, len)?, bytes.window().sub(from, len)?);
            Window::copy(dst.around(), src)?;
            assert!(bytes.into_vec()[..] == expected[..]);
            // From a slice they go the same way.
            let bytes = SharedBytes::new(counting()?);
            let from = &counting()?[from..from + len];
            bytes.window().sub(to, len)?.around().write(from)?;
            assert!(bytes.into_vec()[..] == expected[..]);
        }
        Ok(())
    }

    #[test]
    fn word_that_is_settled_is_what_was_stored() -> Result {
        let bytes = SharedBytes::new(counting()?);
        let window = bytes.window().around();
        window.store::<u64>(64, 0x1122_3344_5566_7788)?;
        window.store::<u8>(LEN - 1, 0xa5)?;
        assert_eq!(window.load::<u64>(64)?, 0x1122_3344_5566_7788);
        for (offset, len) in [(0, 0), (0, LEN), (63, 2), (LEN, 0)] {
            bytes.window().sub(offset, len)?.around().settle();
        }
        fence();
        let mut expected = counting()?;
        expected[64..72].copy_from_slice(&0x1122_3344_5566_7788_u64.to_ne_bytes());
        expected[LEN - 1] = 0xa5;
        assert!(bytes.into_vec()[..] == expected[..]);
        Ok(())
    }
}
