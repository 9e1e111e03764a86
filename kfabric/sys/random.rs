// SPDX-License-Identifier: GPL-2.0

//! Random numbers that nobody can guess.

use kernel::bindings;

/// 32 random bits. Any context.
pub fn u32() -> u32 {
    // SAFETY: No requirements.
    unsafe { bindings::get_random_u32() }
}

/// 64 random bits. Any context.
pub fn u64() -> u64 {
    // SAFETY: No requirements.
    unsafe { bindings::get_random_u64() }
}
