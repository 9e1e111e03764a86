// SPDX-License-Identifier: GPL-2.0

//! Allocations of those that memory may have to be freed through.

use super::bindings;

/// Does `f`, none of whose allocations begins I/O: that may be what it carries. Process context.
pub(crate) fn without_io<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: It marks the current task, in process context.
    let flags = unsafe { bindings::kfi_noio_save() };
    let done = f();
    // SAFETY: The flags are those of the call above, by the same task; such scopes nest.
    unsafe { bindings::kfi_noio_restore(flags) };
    done
}
