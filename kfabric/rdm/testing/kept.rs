// SPDX-License-Identifier: GPL-2.0

//! The holds of links on what they have not copied, as if its bytes were still in a queue somewhere.
//!
//! Locks: none is taken under `state`; holds are dropped without it.

use super::super::link::Hold;
use kernel::prelude::*;
use kernel::sync::{new_spinlock, Arc, SpinLock};

/// How many there are at most: what is handed over then is copied.
const ROOM: usize = 256;

/// What links keep of that which could stay where it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing: they copy it.
    Nothing,
    /// Until one of them is closed, or breaks.
    UntilClosed,
    /// Until the test says so.
    UntilTold,
}

/// Has them keep it, until it is dropped: with what it waits for.
pub(crate) struct Keeping(Arc<Kept>);

impl Keeping {
    pub(super) fn new(kept: &Arc<Kept>, keep: Keep) -> Self {
        kept.set(keep);
        Keeping(kept.clone())
    }

    /// What is kept from now on.
    pub(crate) fn set(&self, keep: Keep) {
        self.0.set(keep);
    }

    /// How many holds there are.
    pub(crate) fn count(&self) -> usize {
        self.0.state.lock().holds.len()
    }

    /// Has all be dropped.
    pub(crate) fn release(&self) {
        self.0.release();
    }
}

impl Drop for Keeping {
    /// Also when a test fails: its endpoints wait for their operations.
    fn drop(&mut self) {
        self.0.set(Keep::Nothing);
        self.0.release();
    }
}

/// They.
#[pin_data]
pub(super) struct Kept {
    #[pin]
    state: SpinLock<State>,
}

struct State {
    keep: Keep,
    holds: KVec<Hold>,
    /// For the next ones, when those go.
    spare: KVec<Hold>,
}

impl Kept {
    pub(super) fn new() -> Result<Arc<Self>> {
        let state = State {
            keep: Keep::Nothing,
            holds: KVec::with_capacity(ROOM, GFP_KERNEL)?,
            spare: KVec::with_capacity(ROOM, GFP_KERNEL)?,
        };
        Arc::pin_init(
            pin_init!(Kept {
                state <- new_spinlock!(state, "kfi_kunit_kept"),
            }),
            GFP_KERNEL,
        )
    }

    fn set(&self, keep: Keep) {
        self.state.lock().keep = keep;
    }

    /// Whether another one is kept.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.keep != Keep::Nothing && state.holds.len() < ROOM
    }

    /// Keeps one, if there is still room.
    pub(super) fn put(&self, hold: Hold) {
        let mut state = self.state.lock();
        let late = match state.keep {
            Keep::Nothing => Some(hold),
            _ => {
                let full = state.holds.push_within_capacity(hold);
                full.err().map(|full| full.0)
            }
        };
        drop(state);
        drop(late);
    }

    /// A link is closed, or broken.
    pub(super) fn closed(&self) {
        if self.state.lock().keep == Keep::UntilClosed {
            self.release();
        }
    }

    /// Drops all. Once at a time.
    fn release(&self) {
        let mut state = self.state.lock();
        let spare = core::mem::take(&mut state.spare);
        let mut holds = core::mem::replace(&mut state.holds, spare);
        drop(state);
        holds.clear();
        self.state.lock().spare = holds;
    }
}
