// SPDX-License-Identifier: GPL-2.0

//! A link in memory: two ends, joined by pipes that hold so many bytes, and what a test does to it.
//!
//! Locks: `state` is taken under no spinlock, and wakers are woken with it held.

use super::super::link::{Hold, IovIterDest, IovIterSource, Link, Wake};
use super::gate::Gate;
use super::kept::Kept;
use super::meter::Meter;
use super::tally::{Counted, Tally};
use super::{Act, Fault};
use kernel::prelude::*;
use kernel::sync::{new_spinlock, Arc, SpinLock};

/// How many bytes of a direction a link holds.
pub(crate) const CAPACITY: usize = 5000;

/// Both ends.
#[pin_data]
pub(crate) struct Wire {
    tally: Arc<Tally>,
    kept: Arc<Kept>,
    gate: Arc<Gate>,
    /// The addresses of the sides: of who dialled, and of the other.
    names: [u8; 2],
    #[pin]
    state: SpinLock<State>,
}

struct State {
    sides: [Side; 2],
    /// Why it can't be made, if that is told late.
    refused: Option<Error>,
    broken: bool,
    mute: bool,
    /// Whether wakers are not woken, for now.
    held: bool,
    /// They are again when this side has found nothing so often.
    misses: Option<(usize, u32)>,
    /// After how many others it happens.
    fault: Option<(Fault, i32)>,
}

struct Side {
    /// What it has sent, and the other has not received.
    bytes: KVVec<u8>,
    /// Room for what it just sends.
    room: KVVec<u8>,
    meter: Meter,
    /// How often it has sent something.
    sends: usize,
    waker: Option<Arc<dyn Wake>>,
    /// It would have been woken.
    due: bool,
    closed: bool,
    /// It was told that there is no room.
    waits: bool,
    flip: bool,
}

impl State {
    fn wake(&mut self, side: usize) {
        let Some(side) = self.sides.get_mut(side) else {
            return;
        };
        match (&side.waker, self.held) {
            (_, true) => side.due = true,
            (Some(waker), false) => waker.wake(),
            (None, false) => {}
        }
    }

    fn hold(&mut self, held: bool) {
        self.held = held;
        for side in 0..2 {
            if !held && core::mem::take(&mut self.sides[side].due) {
                self.wake(side);
            }
        }
    }

    /// A side has found nothing.
    fn missed(&mut self, side: usize) {
        match &mut self.misses {
            Some((of, left)) if *of == side && *left > 1 => *left -= 1,
            Some((of, _)) if *of == side => {
                self.misses = None;
                self.hold(false);
            }
            _ => {}
        }
    }

    fn break_off(&mut self) {
        self.broken = true;
        self.wake(0);
        self.wake(1);
    }
}

impl Wire {
    /// A wire, and both its ends. `refused`: it can't be made, which is told late.
    pub(super) fn new(
        (tally, kept, gate): (&Arc<Tally>, &Arc<Kept>, &Arc<Gate>),
        names: [u8; 2],
        refused: Option<Error>,
        fault: Option<(Fault, i32)>,
    ) -> Result<(Arc<Self>, [Arc<End>; 2])> {
        let side = || -> Result<Side> {
            Ok(Side {
                bytes: KVVec::with_capacity(CAPACITY, GFP_KERNEL)?,
                room: KVVec::from_elem(0, CAPACITY, GFP_KERNEL)?,
                meter: Meter::default(),
                sends: 0,
                waker: None,
                due: false,
                closed: false,
                waits: false,
                flip: false,
            })
        };
        let state = State {
            sides: [side()?, side()?],
            refused,
            broken: false,
            mute: false,
            held: false,
            misses: None,
            fault,
        };
        let wire = Arc::pin_init(
            pin_init!(Wire {
                tally: tally.clone(),
                kept: kept.clone(),
                gate: gate.clone(),
                names,
                state <- new_spinlock!(state, "kfi_kunit_wire"),
            }),
            GFP_KERNEL,
        )?;
        let end = |side| -> Result<Arc<End>> {
            let (wire, _counted) = (wire.clone(), Counted::new(tally));
            Ok(Arc::new(
                End {
                    wire,
                    side,
                    _counted,
                },
                GFP_KERNEL,
            )?)
        };
        let ends = [end(0)?, end(1)?];
        Ok((wire, ends))
    }

    /// Breaks it: both sides are told, and what was not received is lost.
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock();
        for side in &mut state.sides {
            side.bytes.clear();
        }
        state.break_off();
        drop(state);
        self.kept.closed();
    }

    /// Has `fault` happen; its frames are those that the side sends from now on.
    pub(crate) fn inject(&self, mut fault: Fault) {
        let mut state = self.state.lock();
        if let Some(side) = self.side_of(fault.from) {
            fault.frame += state.sides[side].meter.next_frame();
        }
        state.fault = Some((fault, self.tally.hits()));
    }

    /// Wakes nobody from now on, or those again that were to be woken meanwhile.
    pub(super) fn hold(&self, held: bool) {
        self.state.lock().hold(held);
    }

    /// Wakes nobody from now on, until the side of that address has found nothing so many times.
    pub(crate) fn hold_until_missed(&self, name: u8, times: u32) {
        let mut state = self.state.lock();
        state.misses = self.side_of(name).map(|side| (side, times));
        state.hold(true);
    }

    /// Whether it is of use.
    pub(crate) fn is_live(&self) -> bool {
        let state = self.state.lock();
        !state.broken && state.refused.is_none() && !state.sides.iter().any(|side| side.closed)
    }

    /// How often the side of that address has sent something.
    pub(crate) fn sends_of(&self, name: u8) -> usize {
        let state = self.state.lock();
        self.side_of(name).map_or(0, |side| state.sides[side].sends)
    }

    /// Whether it joins these two.
    pub(crate) fn joins(&self, one: u8, other: u8) -> bool {
        self.names == [one, other] || self.names == [other, one]
    }

    fn side_of(&self, name: u8) -> Option<usize> {
        self.names.iter().position(|other| *other == name)
    }

    /// Puts bytes of a side into its pipe.
    fn put_from(&self, state: &mut State, at: usize, from: &mut IovIterSource<'_>) -> usize {
        // Taken out, so that the rest can be changed meanwhile.
        let mut room = core::mem::replace(&mut state.sides[at].room, KVVec::new());
        let len = CAPACITY - state.sides[at].bytes.len();
        let len = from.copy_from_iter(&mut room[..len]);
        let taken = self.put(state, at, &room[..len]);
        state.sides[at].room = room;
        taken
    }

    /// Puts bytes of a side into its pipe, which has room for them.
    fn put(&self, state: &mut State, at: usize, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let side = &mut state.sides[at];
            let fault = state.fault;
            let here = fault.filter(|(fault, after)| {
                self.side_of(fault.from) == Some(at)
                    && side.meter.is_at(fault.frame, fault.place)
                    && self.tally.hit(*after)
            });
            if let Some((fault, _)) = here {
                state.fault = None;
                match fault.act {
                    Act::Cut => {
                        state.sides[1 - at].bytes.clear();
                        state.break_off();
                        return taken;
                    }
                    Act::End => {
                        side.closed = true;
                        state.wake(0);
                        state.wake(1);
                        return taken;
                    }
                    Act::Flip => side.flip = true,
                    Act::Mute => {
                        state.mute = true;
                        return bytes.len();
                    }
                }
            }
            let side = &mut state.sides[at];
            side.meter.settle();
            let rest = &bytes[taken..];
            if rest.is_empty() {
                return taken;
            }
            let stride = &rest[..side.meter.stride(rest.len())];
            let from = side.bytes.len();
            // It has the capacity, so that nothing is allocated.
            if side.bytes.extend_from_slice(stride, GFP_ATOMIC).is_err() {
                return taken;
            }
            if core::mem::take(&mut side.flip) {
                side.bytes[from] ^= 0x10;
            }
            side.meter.pass(stride);
            taken += stride.len();
        }
    }
}

/// One end.
pub(crate) struct End {
    wire: Arc<Wire>,
    side: usize,
    _counted: Counted,
}

impl End {
    /// Takes the waker out, to be dropped without the lock.
    fn shut(&self, gently: bool) -> Option<Arc<dyn Wake>> {
        let mut state = self.wire.state.lock();
        let waker = state.sides[self.side].waker.take();
        if core::mem::replace(&mut state.sides[self.side].closed, true) {
            return waker;
        }
        state.sides[1 - self.side].bytes.clear();
        if !gently {
            state.sides[self.side].bytes.clear();
            state.broken = true;
        }
        state.wake(1 - self.side);
        waker
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close(false);
    }
}

impl Link for End {
    fn attach(&self, waker: Arc<dyn Wake>) {
        let mut state = self.wire.state.lock();
        let before = match state.sides[self.side].closed {
            true => Some(waker),
            false => state.sides[self.side].waker.replace(waker),
        };
        drop(state);
        drop(before);
    }

    fn is_up(&self) -> Result<bool> {
        let state = self.wire.state.lock();
        match state.refused {
            Some(error) => Err(error),
            None if state.broken => Err(ECONNRESET),
            None => Ok(true),
        }
    }

    fn send(&self, from: &mut IovIterSource<'_>, _more: bool) -> Result<usize> {
        self.wire.gate.pass(self.wire.names[self.side]);
        let mut state = self.wire.state.lock();
        let state = &mut *state;
        if state.broken || state.sides[self.side].closed {
            return Err(ECONNRESET);
        }
        if state.mute {
            return Ok(from.len());
        }
        if state.sides[1 - self.side].closed {
            return Err(EPIPE);
        }
        if state.sides[self.side].bytes.len() == CAPACITY {
            state.sides[self.side].waits = true;
            return Err(EAGAIN);
        }
        match self.wire.put_from(state, self.side, from) {
            0 => Err(ECONNRESET),
            taken => {
                state.sides[self.side].sends += 1;
                state.wake(1 - self.side);
                Ok(taken)
            }
        }
    }

    /// It copies them, but keeps the hold.
    fn splice(
        &self,
        from: &mut IovIterSource<'_>,
        more: bool,
        hold: Hold,
    ) -> Result<Option<usize>> {
        if !self.wire.kept.has_room() {
            return Ok(None);
        }
        let sent = self.send(from, more)?;
        self.wire.kept.put(hold);
        Ok(Some(sent))
    }

    fn receive(&self, into: &mut IovIterDest<'_>) -> Result<usize> {
        let mut state = self.wire.state.lock();
        if state.sides[self.side].closed {
            return Err(ENOTCONN);
        }
        let from = &mut state.sides[1 - self.side];
        let (len, have) = (into.copy_to_iter(&from.bytes), from.bytes.len());
        if len > 0 {
            from.bytes.copy_within(len.., 0);
            from.bytes.truncate(have - len);
            if core::mem::take(&mut from.waits) {
                state.wake(1 - self.side);
            }
            return Ok(len);
        }
        match (state.broken, state.mute, state.sides[1 - self.side].closed) {
            (true, ..) => Err(ECONNRESET),
            (_, true, _) | (_, _, false) => {
                state.missed(self.side);
                Err(EAGAIN)
            }
            _ => Ok(0),
        }
    }

    fn close(&self, gently: bool) {
        let waker = self.shut(gently);
        drop(waker);
        self.wire.kept.closed();
    }
}
