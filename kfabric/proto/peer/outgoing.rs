// SPDX-License-Identifier: GPL-2.0

//! Operations of this side, from their post to their end.

use super::super::chain::{Chain, Linked, Links};
use super::super::flow::{Credit, Credits};
use super::super::wire::hello::MIN_OPS;
use super::super::wire::verdict::Verdict;
use super::super::wire::{Errno, Failure, Outcome};
use super::command::{Command, Op};
use core::ops::DerefMut;

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// None is here.
    Free,
    /// No frame of it was sent.
    Queued,
    /// It has pieces to send.
    Active,
    /// All was sent; the acknowledgement ends it.
    Acking,
    /// All was sent; a reply ends it, or CTS asks for its pieces.
    Replying,
    /// It waits for a receive of the peer; DONE ends it.
    Parked,
    /// Its end is known, but some of its frames are not acknowledged.
    Ending(Verdict),
    /// Nobody has been told yet.
    Ended(Verdict),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Nothing,
    Free,
    Queue,
    /// Of its context, until there is credit.
    Parked,
    Active,
    Ended,
}

/// Whether it is to be withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    No,
    Wanted,
    Sent,
}

/// A place of the table.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    pub(super) command: Command,
    pub(super) state: State,
    pub(super) cancel: Cancel,
    /// Bytes that were sent, of what goes in pieces.
    pub(super) sent: u64,
    /// Bytes that were received, of a read.
    pub(super) received: u64,
    /// CTS has come.
    pub(super) asked: bool,
    /// What went wrong here, while the peer did well.
    pub(super) failure: Option<Failure>,
    generation: u16,
    links: Links,
    chain: In,
    /// Its frames that are not acknowledged.
    frames: u32,
    /// The peer has ended the session, and never began it.
    unbegun: bool,
    /// It counts among those that later ones may have to wait for.
    unpassed: bool,
}

impl Outgoing {
    /// A place that nobody has.
    pub const fn vacant() -> Self {
        Outgoing {
            command: Command::send(0),
            state: State::Free,
            cancel: Cancel::No,
            sent: 0,
            received: 0,
            asked: false,
            failure: None,
            generation: 0,
            links: Links::new(),
            chain: In::Nothing,
            frames: 0,
            unbegun: false,
            unpassed: false,
        }
    }
}

impl Linked for Outgoing {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// The table.
///
/// # Invariants
///
/// Each place is in the chain that its `chain` names. Those in `queue` are queued, in the order of
/// their posts, but for those that wait for nothing but credit, which are in the chains of
/// `Credits`; those in `active` have a frame to send.
#[derive(Debug)]
pub(super) struct Ops<T> {
    slots: T,
    free: Chain,
    queue: Chain,
    active: Chain,
    ended: Chain,
    /// Places below this may be used.
    usable: u32,
    used: u32,
    /// By effect: how many were begun, and hold up what must not overtake them.
    unpassed: [u32; 3],
}

impl<T: DerefMut<Target = [Outgoing]>> Ops<T> {
    pub(super) fn new(mut slots: T) -> Self {
        slots.iter_mut().for_each(|slot| *slot = Outgoing::vacant());
        let mut ops = Ops {
            slots,
            free: Chain::new(),
            queue: Chain::new(),
            active: Chain::new(),
            ended: Chain::new(),
            usable: 0,
            used: 0,
            unpassed: [0; 3],
        };
        ops.limit(MIN_OPS);
        ops
    }

    /// The peer allows so many.
    pub(super) fn limit(&mut self, ops: u16) {
        self.usable = self.slots.len().min(usize::from(ops)) as u32;
        while let Some(at) = self.free.pop(&mut self.slots) {
            self.set_chain(at, In::Nothing);
        }
        for at in 0..self.usable {
            if self.at(at).is_some_and(|op| op.state == State::Free) {
                self.set_chain(at, In::Free);
                self.free.push(&mut self.slots, at);
            }
        }
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn at(&mut self, at: u32) -> Option<&mut Outgoing> {
        self.slots.get_mut(at as usize)
    }

    fn set_chain(&mut self, at: u32, chain: In) {
        if let Some(op) = self.at(at) {
            op.chain = chain;
        }
    }

    fn number(&self, at: u32) -> Op {
        let generation = self.slots.get(at as usize).map_or(0, |op| op.generation);
        Op((u32::from(generation) << 16) | (at & 0xffff))
    }

    /// The operation of that number, as it stands in frames.
    pub(super) fn wire_number(&self, at: u32) -> u32 {
        self.number(at).0
    }

    /// The place of an operation that has not ended.
    pub(super) fn find(&self, number: u32) -> Option<u32> {
        let at = number & 0xffff;
        let op = self.slots.get(at as usize)?;
        let lives = !matches!(op.state, State::Free | State::Ended(_) | State::Ending(_));
        (lives && self.number(at).0 == number).then_some(at)
    }

    /// Whether there is a place for a new one.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Queues a new one; `None`: there is no place.
    pub(super) fn post(&mut self, command: Command) -> Option<Op> {
        let at = self.free.pop(&mut self.slots)?;
        let op = self.at(at)?;
        *op = Outgoing {
            command,
            state: State::Queued,
            chain: In::Queue,
            generation: op.generation,
            ..Outgoing::vacant()
        };
        self.queue.push(&mut self.slots, at);
        self.used += 1;
        Some(self.number(at))
    }

    /// The first that is queued, or the one after.
    pub(super) fn queued(&mut self, after: Option<u32>) -> Option<u32> {
        match after {
            None => self.queue.head(),
            Some(at) => self.queue.after(&mut self.slots, at),
        }
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Has one that is queued wait for credit of its context, if it may; whether it does.
    pub(super) fn park<C>(&mut self, at: u32, credits: &mut Credits<C>) -> bool
    where
        C: DerefMut<Target = [Credit]>,
    {
        let Some(context) = self.at(at).map(|op| op.command.context) else {
            return false;
        };
        if !credits.is_open_to(context) {
            return false;
        }
        self.unlink(at);
        credits.park(context, &mut self.slots, at);
        self.set_chain(at, In::Parked);
        true
    }

    /// Has one wait no more, if it waits for credit.
    pub(super) fn unpark<C>(&mut self, at: u32, credits: &mut Credits<C>)
    where
        C: DerefMut<Target = [Credit]>,
    {
        let Some(op) = self.slots.get_mut(at as usize) else {
            return;
        };
        if op.chain == In::Parked {
            op.chain = In::Nothing;
            let context = op.command.context;
            credits.unpark(context, &mut self.slots, at);
        }
    }

    /// Takes it out of its chain.
    fn unlink(&mut self, at: u32) {
        let Some(op) = self.slots.get_mut(at as usize) else {
            return;
        };
        match core::mem::replace(&mut op.chain, In::Nothing) {
            // Of a session that is over: the chain is forgotten with it. Else see `Ops::unpark`.
            In::Nothing | In::Parked => (),
            In::Free => self.free.remove(&mut self.slots, at),
            In::Queue => self.queue.remove(&mut self.slots, at),
            In::Active => self.active.remove(&mut self.slots, at),
            In::Ended => self.ended.remove(&mut self.slots, at),
        }
    }

    /// Begins one that was queued.
    pub(super) fn begin(&mut self, at: u32) {
        self.unlink(at);
        if let Some(op) = self.at(at) {
            op.unpassed = true;
            if let Some(effect) = op.command.effect() {
                self.unpassed[effect as usize] += 1;
            }
        }
    }

    /// It holds up nobody any more.
    pub(super) fn pass(&mut self, at: u32) {
        let Some(op) = self.at(at) else { return };
        if core::mem::replace(&mut op.unpassed, false) {
            if let Some(effect) = op.command.effect() {
                let count = &mut self.unpassed[effect as usize];
                *count = count.saturating_sub(1);
            }
        }
    }

    /// By effect, how many hold up what must not overtake them.
    pub(super) fn unpassed(&self) -> [u32; 3] {
        self.unpassed
    }

    /// It has frames to send, and waits for its turn.
    pub(super) fn activate(&mut self, at: u32) {
        self.unlink(at);
        self.set_chain(at, In::Active);
        self.active.push(&mut self.slots, at);
    }

    /// The one whose turn it is.
    pub(super) fn next_active(&mut self) -> Option<u32> {
        let at = self.active.pop(&mut self.slots)?;
        self.set_chain(at, In::Nothing);
        Some(at)
    }

    /// A frame of it was sent.
    pub(super) fn sent(&mut self, at: u32) {
        if let Some(op) = self.at(at) {
            op.frames += 1;
        }
    }

    /// A frame of it is acknowledged.
    pub(super) fn acknowledged(&mut self, at: u32) {
        let Some(op) = self.at(at) else { return };
        op.frames = op.frames.saturating_sub(1);
        if op.frames > 0 {
            return;
        }
        match op.state {
            // An acknowledged frame has been executed well, unless a reply about it was sequenced
            // before the acknowledgement.
            State::Acking => {
                let level = op.command.level();
                self.finish(at, Ok(level));
            }
            State::Ending(verdict) => self.finish(at, verdict),
            _ => (),
        }
    }

    /// Its end is known. Its buffer may have to be sent again until all is acknowledged.
    pub(super) fn end(&mut self, at: u32, verdict: Verdict) {
        self.unlink(at);
        let Some(op) = self.at(at) else { return };
        let verdict = match (verdict, op.failure) {
            (Ok(_), Some(failure)) => Err(failure),
            (verdict, _) => verdict,
        };
        if op.frames > 0 {
            op.state = State::Ending(verdict);
            self.pass(at);
        } else {
            self.finish(at, verdict);
        }
    }

    fn finish(&mut self, at: u32, verdict: Verdict) {
        self.pass(at);
        self.unlink(at);
        if let Some(op) = self.at(at) {
            op.state = State::Ended(verdict);
            op.chain = In::Ended;
            op.frames = 0;
            self.ended.push(&mut self.slots, at);
        }
    }

    /// The peer never began one, and never will.
    pub(super) fn not_begun(&mut self, at: u32) {
        if let Some(op) = self.at(at) {
            op.unbegun = true;
        }
    }

    /// The session is over: so is each operation.
    pub(super) fn end_all(&mut self, errno: Errno) {
        for at in 0..self.slots.len() as u32 {
            let Some(op) = self.at(at) else { return };
            let verdict = match op.state {
                State::Free | State::Ended(_) => continue,
                State::Ending(verdict) => verdict,
                State::Queued => Err(Failure::new(errno, Outcome::NotExecuted)),
                _ if op.unbegun => Err(Failure::new(errno, Outcome::NotExecuted)),
                _ => Err(Failure::new(errno, Outcome::Unknown)),
            };
            self.finish(at, verdict);
        }
    }

    /// One that has ended. Its number is free from now on.
    pub(super) fn poll_ended(&mut self) -> Option<(Op, Command, Verdict)> {
        let at = self.ended.pop(&mut self.slots)?;
        let number = self.number(at);
        let usable = at < self.usable;
        let op = self.at(at)?;
        let State::Ended(verdict) = op.state else {
            return None;
        };
        let command = op.command;
        op.state = State::Free;
        op.generation = op.generation.wrapping_add(1);
        op.chain = if usable { In::Free } else { In::Nothing };
        if usable {
            self.free.push(&mut self.slots, at);
        }
        self.used = self.used.saturating_sub(1);
        Some((number, command, verdict))
    }
}
