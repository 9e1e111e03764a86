// SPDX-License-Identifier: GPL-2.0

//! A gate before the links: what one side hands to them waits there, with the worker that does, while a test keeps it
//! shut.

use super::{pause, until};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

/// Shut for nobody.
const OPEN: i32 = -1;

/// The gate.
pub(super) struct Gate {
    /// The address of the side that it is shut for.
    side: Atomic<i32>,
    /// How many workers have come to it while it was shut.
    came: Atomic<i32>,
}

impl Gate {
    pub(super) fn new() -> Result<Arc<Self>> {
        let gate = Gate {
            side: Atomic::new(OPEN),
            came: Atomic::new(0),
        };
        Ok(Arc::new(gate, GFP_KERNEL)?)
    }

    /// Lets a side through, once it may. Sleeps.
    pub(super) fn pass(&self, side: u8) {
        let is_shut = || self.side.load(Relaxed) == i32::from(side);
        if !is_shut() {
            return;
        }
        self.came.add(1, Relaxed);
        while is_shut() {
            pause(1);
        }
    }
}

/// Keeps it shut for one side until it is dropped.
pub(crate) struct Shut(Arc<Gate>);

impl Shut {
    pub(super) fn new(gate: &Arc<Gate>, side: u8) -> Self {
        gate.came.store(0, Relaxed);
        gate.side.store(side.into(), Relaxed);
        Shut(gate.clone())
    }

    /// Waits until a worker of that side waits there.
    #[track_caller]
    pub(crate) fn await_worker(&self) -> Result {
        until(|| self.0.came.load(Relaxed) > 0)
    }
}

impl Drop for Shut {
    /// Also when a test fails: its endpoints wait for their workers.
    fn drop(&mut self) {
        self.0.side.store(OPEN, Relaxed);
    }
}
