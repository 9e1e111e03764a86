// SPDX-License-Identifier: GPL-2.0

//! Tracepoints: whether one is enabled, and its call.
//!
//! The test is a static branch, so that a tracepoint that is off costs one instruction and its
//! arguments are not made. It is inlined into providers; what follows it is not.
//!
//! Source: `kernel::tracepoint::declare_trace`, which only knows tracepoints of `kernel::bindings`.

use super::bindings as door;
use crate::op::{Kind, Level};

pub(crate) use door::kfi_trace_op as Op;

// What trace.h names must be what is meant here.
const _: () = {
    assert!(Kind::Send as u32 == door::KFI_TRACE_SEND);
    assert!(Kind::Recv as u32 == door::KFI_TRACE_RECV);
    assert!(Kind::Write as u32 == door::KFI_TRACE_WRITE);
    assert!(Kind::Read as u32 == door::KFI_TRACE_READ);
    assert!(Kind::Commit as u32 == door::KFI_TRACE_COMMIT);
    assert!(Kind::Atomic as u32 == door::KFI_TRACE_ATOMIC);
    assert!(Level::Transmit as u32 == door::KFI_TRACE_TRANSMIT);
    assert!(Level::Delivered as u32 == door::KFI_TRACE_DELIVERED);
    assert!(Level::Committed as u32 == door::KFI_TRACE_COMMITTED);
};

/// Declares a tracepoint: a test whether it is on, and the call that is made then.
macro_rules! tracepoint {
    ($(#[$doc:meta])* $enabled:ident, $key:ident, $call:ident => $c:ident($($arg:ident: $type:ty),*)) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $enabled() -> bool {
            #[cfg(CONFIG_TRACEPOINTS)]
            // SAFETY: A tracepoint's key may be read at any time.
            unsafe {
                kernel::jump_label::static_branch_unlikely!(
                    door::$key,
                    kernel::bindings::tracepoint,
                    key
                )
            }
            #[cfg(not(CONFIG_TRACEPOINTS))]
            false
        }

        /// Calls it. Any context.
        pub(crate) fn $call(op: &Op, $($arg: $type),*) {
            #[cfg(CONFIG_TRACEPOINTS)]
            // SAFETY: The probes read `op` while they run, and keep nothing.
            unsafe {
                door::$c(op, $($arg),*)
            };
            #[cfg(not(CONFIG_TRACEPOINTS))]
            let _ = (op, $($arg),*);
        }
    };
}

tracepoint! {
    /// Whether posts are traced.
    post_enabled, __tracepoint_kfi_post, post => rust_do_trace_kfi_post(len: u64, level: u32)
}
tracepoint! {
    /// Whether successful completions are traced.
    complete_enabled, __tracepoint_kfi_complete,
    complete => rust_do_trace_kfi_complete(len: u64, level: u32)
}
tracepoint! {
    /// Whether failures and refusals are traced.
    error_enabled, __tracepoint_kfi_error,
    error => rust_do_trace_kfi_error(len: u64, target: u64, error: i32, provider: i32)
}
tracepoint! {
    /// Whether commits at the target are traced.
    commit_enabled, __tracepoint_kfi_commit,
    commit => rust_do_trace_kfi_commit(len: u64, target: u64, offset: u64)
}
