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
