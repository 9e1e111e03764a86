// SPDX-License-Identifier: GPL-2.0

//! Network namespaces.

use super::bindings;

/// A network namespace, by its cookie: a number that is never given out again.
///
/// It names the namespace and does not keep it; one that is gone is found nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace(u64);

impl Namespace {
    /// The initial one, of the host. Any context.
    pub fn initial() -> Self {
        // SAFETY: No requirements.
        Namespace(unsafe { bindings::kfi_net_initial() })
    }

    /// The current task's. Process context.
    pub fn current() -> Self {
        // SAFETY: No requirements.
        Namespace(unsafe { bindings::kfi_net_current() })
    }

    /// One that never is.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) const NONE: Self = Namespace(u64::MAX);

    /// Its cookie.
    pub const fn cookie(self) -> u64 {
        self.0
    }
}
