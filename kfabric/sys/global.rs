// SPDX-License-Identifier: GPL-2.0

//! The globals of the core, each under a lock: the registry's list, the directory in debugfs, and
//! the queue of what is done later.

use crate::provider::registry::Entry;
use crate::sys::debugfs::Dir;
use crate::sys::work::WorkQueue;
use kernel::prelude::*;
use kernel::sync::{Arc, GlobalGuard};

kernel::sync::global_lock! {
    // SAFETY: `init` is called in the module's init, before anything else of the core.
    pub(crate) unsafe(uninit) static REGISTRY: Mutex<KVec<Arc<Entry>>> = KVec::new();
}

kernel::sync::global_lock! {
    // SAFETY: As above.
    pub(crate) unsafe(uninit) static DEBUGFS: Mutex<Option<Dir>> = None;
}

kernel::sync::global_lock! {
    // SAFETY: As above.
    pub(crate) unsafe(uninit) static CHORES: Mutex<Option<WorkQueue>> = None;
}

/// Makes the locks usable. Called once, first, when the module is loaded.
pub(crate) fn init() {
    // SAFETY: Called exactly once, by the module's init.
    unsafe { REGISTRY.init() };
    // SAFETY: As above.
    unsafe { DEBUGFS.init() };
    // SAFETY: As above.
    unsafe { CHORES.init() };
}

/// Locks the registry. Sleeps; process context.
pub(crate) fn registry() -> GlobalGuard<REGISTRY> {
    REGISTRY.lock()
}

/// Locks the directory in debugfs. Sleeps; process context; may be nested in the registry's lock.
pub(crate) fn debugfs() -> GlobalGuard<DEBUGFS> {
    DEBUGFS.lock()
}

/// Locks the queue of what is done later. Sleeps; process context; taken under no other lock.
pub(crate) fn chores() -> GlobalGuard<CHORES> {
    CHORES.lock()
}
