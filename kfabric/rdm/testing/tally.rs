// SPDX-License-Identifier: GPL-2.0

//! What is counted of a net: apart from it, so that what is counted need not hold it.

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

/// The counts.
pub(super) struct Tally {
    /// Hosts and ends of links that exist.
    alive: Atomic<i32>,
    /// Faults that have happened.
    hits: Atomic<i32>,
}

impl Tally {
    pub(super) fn new() -> Result<Arc<Self>> {
        let tally = Tally {
            alive: Atomic::new(0),
            hits: Atomic::new(0),
        };
        Ok(Arc::new(tally, GFP_KERNEL)?)
    }

    pub(super) fn alive(&self) -> i32 {
        self.alive.load(Relaxed)
    }

    pub(super) fn hits(&self) -> i32 {
        self.hits.load(Relaxed)
    }

    /// A fault happens, if it is the next after so many; whether it is.
    pub(super) fn hit(&self, after: i32) -> bool {
        self.hits.cmpxchg(after, after + 1, Relaxed).is_ok()
    }
}

/// One that is alive while it exists.
pub(super) struct Counted(Arc<Tally>);

impl Counted {
    pub(super) fn new(tally: &Arc<Tally>) -> Self {
        tally.alive.add(1, Relaxed);
        Counted(tally.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.alive.add(-1, Relaxed);
    }
}
