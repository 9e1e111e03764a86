// SPDX-License-Identifier: GPL-2.0

//! Loads and stores of atomics in place, for the path of an operation.
//!
//! The kernel crate's own are calls of C functions, which cost a handful of instructions where the
//! access is one, and registers around the call.

use kernel::sync::atomic::{Atomic, AtomicType};

/// As `load(Relaxed)`, which is C's `READ_ONCE()`.
#[inline(always)]
pub(crate) fn read<T: AtomicType>(atomic: &Atomic<T>) -> T {
    // SAFETY: The pointer is that of `atomic`, valid and aligned. A volatile load of a word is
    // `READ_ONCE()`, which in the kernel's memory model does not race with atomics.
    unsafe { atomic.as_ptr().read_volatile() }
}

/// As `store(Relaxed)`, which is C's `WRITE_ONCE()`.
#[inline(always)]
pub(crate) fn write<T: AtomicType>(atomic: &Atomic<T>, value: T) {
    // SAFETY: As in `read`; a volatile store of a word is `WRITE_ONCE()`.
    unsafe { atomic.as_ptr().write_volatile(value) };
}
