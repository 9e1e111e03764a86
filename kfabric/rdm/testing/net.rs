// SPDX-License-Identifier: GPL-2.0

//! A net in memory: hosts with addresses of one byte, and the links between them.
//!
//! Locks: `state` is taken before those of doors and wires.

use super::super::link::Link;
use super::fault::Fault;
use super::gate::{Gate, Shut};
use super::host::{Door, Host};
use super::kept::{Keep, Keeping, Kept};
use super::tally::Tally;
use super::wire::Wire;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};

/// What a test sees of the net, and tells it.
#[pin_data]
pub(crate) struct Net {
    #[pin]
    state: Mutex<State>,
    dials: Atomic<i32>,
    tally: Arc<Tally>,
    kept: Arc<Kept>,
    gate: Arc<Gate>,
}

struct State {
    doors: KVec<Arc<Door>>,
    wires: KVec<Arc<Wire>>,
    /// Of the links that are made from now on, until it has happened once; after so many others.
    fault: Option<(Fault, i32)>,
    refusal: Option<Refusal>,
    held: bool,
    /// Whether frames are to carry checksums.
    sums: bool,
}

/// How dials are refused.
#[derive(Clone, Copy)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// Whether the dial itself says so, or the link that it made.
    pub(crate) at_once: bool,
    /// How many are refused.
    pub(crate) count: usize,
}

impl Net {
    pub(super) fn new() -> Result<Arc<Self>> {
        let state = State {
            doors: KVec::new(),
            wires: KVec::new(),
            fault: None,
            refusal: None,
            held: false,
            sums: false,
        };
        let (tally, kept, gate) = (Tally::new()?, Kept::new()?, Gate::new()?);
        Arc::pin_init(
            pin_init!(Net {
                state <- new_mutex!(state, "kfi_kunit_net"),
                dials: Atomic::new(0),
                tally,
                kept,
                gate,
            }),
            GFP_KERNEL,
        )
    }

    /// A new host of that address.
    pub(crate) fn host(self: &Arc<Self>, address: u8) -> Result<Arc<Host>> {
        let host = Arc::new(Host::new(self, address)?, GFP_KERNEL)?;
        let door = host.door().clone();
        self.state.lock().doors.push(door, GFP_KERNEL)?;
        Ok(host)
    }

    /// Links come to a host no more.
    pub(super) fn forget(&self, door: &Arc<Door>) {
        let mut state = self.state.lock();
        state.doors.retain(|other| !Arc::ptr_eq(other, door));
    }

    /// Makes a link from one address to another.
    pub(super) fn dial(&self, from: u8, to: u8) -> Result<Arc<dyn Link>> {
        self.dials.add(1, Relaxed);
        let mut state = self.state.lock();
        let refusal = state.next_refusal();
        if let Some(Refusal {
            error,
            at_once: true,
            ..
        }) = refusal
        {
            return Err(error);
        }
        let door = state.doors.iter().find(|door| door.is_of(to)).cloned();
        let refused = match (refusal, &door) {
            (Some(refusal), _) => Some(refusal.error),
            (None, None) => Some(ECONNREFUSED),
            (None, Some(_)) => None,
        };
        let ours = (&self.tally, &self.kept, &self.gate);
        let (wire, [near, far]) = Wire::new(ours, [from, to], refused, state.fault)?;
        wire.hold(state.held);
        state.wires.retain(|wire| wire.is_live());
        state.wires.push(wire, GFP_KERNEL)?;
        drop(state);
        if let (None, Some(door)) = (refused, door) {
            door.arrive(far)?;
        }
        Ok(near)
    }

    /// The links between two that are of use.
    pub(crate) fn between(&self, one: u8, other: u8) -> Result<KVec<Arc<Wire>>> {
        let mut found = KVec::new();
        for wire in &self.state.lock().wires {
            if wire.joins(one, other) && wire.is_live() {
                found.push(wire.clone(), GFP_KERNEL)?;
            }
        }
        Ok(found)
    }

    /// Breaks all links.
    pub(crate) fn cut(&self) {
        let wires = core::mem::take(&mut self.state.lock().wires);
        for wire in &wires {
            wire.cut();
        }
    }

    /// Has `fault` happen, once, to one of the links that are made from now on.
    pub(crate) fn plan(&self, fault: Fault) {
        self.state.lock().fault = Some((fault, self.hits()));
    }

    /// Refuses dials; `None`: no more.
    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        self.state.lock().refusal = refusal;
    }

    /// Has frames carry checksums, between peers that meet from now on.
    pub(crate) fn sum(&self) {
        self.state.lock().sums = true;
    }

    /// Whether frames are to carry checksums.
    pub(super) fn has_sums(&self) -> bool {
        self.state.lock().sums
    }

    /// Wakes nobody, until it is told to again.
    pub(crate) fn hold(&self, held: bool) {
        let mut state = self.state.lock();
        state.held = held;
        for wire in &state.wires {
            wire.hold(held);
        }
    }

    /// Has links keep what they need not copy.
    pub(crate) fn keep(&self, keep: Keep) -> Keeping {
        Keeping::new(&self.kept, keep)
    }

    /// Has workers wait that hand something of that side to a link.
    pub(crate) fn shut(&self, side: u8) -> Shut {
        Shut::new(&self.gate, side)
    }

    /// Whether hosts see no dials, for now.
    pub(crate) fn keep_back(&self, keeps_back: bool) {
        for door in &self.state.lock().doors {
            door.keep_back(keeps_back);
        }
    }

    /// How many dials there were.
    pub(crate) fn dials(&self) -> i32 {
        self.dials.load(Relaxed)
    }

    /// How many faults have happened.
    pub(crate) fn hits(&self) -> i32 {
        self.tally.hits()
    }

    /// How many hosts and ends of links exist.
    pub(crate) fn alive(&self) -> i32 {
        self.tally.alive()
    }

    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }
}

impl State {
    /// How the next dial is refused, if it is.
    fn next_refusal(&mut self) -> Option<Refusal> {
        let refusal = self.refusal?;
        self.refusal = (refusal.count > 1).then_some(Refusal {
            count: refusal.count - 1,
            ..refusal
        });
        Some(refusal)
    }
}
