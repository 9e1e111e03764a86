// SPDX-License-Identifier: GPL-2.0

//! The context that the caller runs in.

use super::bindings;

/// Whether this runs in a softirq: a bottom half, a tasklet, a soft timer.
///
/// False in process context, also where bottom halves are disabled. Any context.
pub fn in_softirq() -> bool {
    // SAFETY: It reads the caller's own preemption count, in any context.
    unsafe { bindings::kfi_in_softirq() }
}
