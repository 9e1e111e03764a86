// SPDX-License-Identifier: GPL-2.0

//! Operations of the peer, for which this side is the target.

use super::super::chain::{Chain, Linked, Links};
use super::super::flow::Amount;
use super::super::violation::Violation;
use super::super::wire::verdict::Verdict;
use super::super::wire::{Failure, Flags, Header, Kind};
use core::ops::DerefMut;

/// Names an operation of the peer. Of no use after [`Event::Released`](super::Event::Released), or
/// after its end was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub(super) op: u32,
    pub(super) epoch: u32,
}

impl Token {
    /// The index, below the number of operations that the peer may have outstanding.
    pub const fn index(self) -> usize {
        (self.op & 0xffff) as usize
    }
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// None is here.
    Free,
    /// Some pieces of a write have come.
    Pieces,
    /// It waits for a receive, or for what takes time.
    Waiting,
    /// The pieces of a message were asked for.
    Receiving,
    /// All of them have come, and its end takes time.
    Placed,
    /// Pieces of a read are to be sent.
    Reading,
    /// Its last reply is to be sent, or to be acknowledged.
    Closing,
    /// It has ended, and nobody has been told.
    Released,
}

/// What is to be said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Parked,
    Cts,
    Done(Verdict),
    /// What the words were.
    Fetched,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Nothing,
    Urgent,
    Replies,
    Streams,
    Released,
}

/// A place of the table.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    pub(super) op: u32,
    epoch: u32,
    pub(super) stage: Stage,
    pub(super) kind: Kind,
    pub(super) flags: Flags,
    pub(super) key: u64,
    pub(super) context: u16,
    /// What it has of the context's credit.
    pub(super) credit: Amount,
    /// The byte that the next piece begins with, in or out.
    pub(super) next: u64,
    /// The byte after the last.
    pub(super) end: u64,
    /// Bytes of the whole.
    pub(super) total: u64,
    /// It was refused: what is still under way is dropped.
    pub(super) failure: Option<Failure>,
    /// An atomic: whether it brings back what the words were.
    pub(super) fetches: bool,
    reply: Reply,
    /// The frame that an urgent reply is about.
    about: u32,
    /// The reply that ends it was sent.
    last_sent: bool,
    /// Its replies that are not acknowledged.
    frames: u32,
    links: Links,
    chain: In,
}

impl Incoming {
    /// A place that nobody has.
    pub const fn vacant() -> Self {
        Incoming {
            op: 0,
            epoch: 0,
            stage: Stage::Free,
            kind: Kind::Nop,
            flags: Flags::NONE,
            key: 0,
            context: 0,
            credit: Amount::new(0, 0),
            next: 0,
            end: 0,
            total: 0,
            failure: None,
            fetches: false,
            reply: Reply::Parked,
            about: 0,
            last_sent: false,
            frames: 0,
            links: Links::new(),
            chain: In::Nothing,
        }
    }

    /// Whether the peer has acknowledged all that was to be said about it.
    pub(super) const fn is_heard(&self) -> bool {
        self.frames == 0 && matches!(self.chain, In::Nothing)
    }

    /// Whether what still comes of it is dropped.
    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Whether the engine keeps something until the last reply is acknowledged.
    const fn is_kept(&self) -> bool {
        matches!(self.kind, Kind::Read) || self.fetches
    }
}

impl Linked for Incoming {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Targets<T> {
    slots: T,
    limit: u16,
    /// Replies about frames whose acknowledgement would say otherwise, in the order of the frames.
    urgent: Chain,
    /// The others.
    replies: Chain,
    streams: Chain,
    released: Chain,
    used: u32,
    epoch: u32,
}

impl<T: DerefMut<Target = [Incoming]>> Targets<T> {
    /// Places for `limit` operations; the slice has so many.
    pub(super) fn new(mut slots: T, limit: u16) -> Self {
        slots.iter_mut().for_each(|slot| *slot = Incoming::vacant());
        Targets {
            slots,
            limit,
            urgent: Chain::new(),
            replies: Chain::new(),
            streams: Chain::new(),
            released: Chain::new(),
            used: 0,
            epoch: 0,
        }
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn token(&self, op: u32) -> Token {
        Token {
            op,
            epoch: self.epoch,
        }
    }

    pub(super) fn at(&mut self, at: u32) -> Option<&mut Incoming> {
        self.slots.get_mut(at as usize)
    }

    /// The place that a frame is about.
    ///
    /// # Errors
    ///
    /// [`Violation::Index`].
    pub(super) fn index(&self, h: &Header) -> Result<u32, Violation> {
        let at = h.op & 0xffff;
        if at < u32::from(self.limit) && (at as usize) < self.slots.len() {
            Ok(at)
        } else {
            Err(Violation::Index)
        }
    }

    /// The place that a new operation may have.
    ///
    /// # Errors
    ///
    /// [`Violation::Busy`]: another has it, whose end is not acknowledged.
    pub(super) fn vacancy(&mut self, h: &Header) -> Result<u32, Violation> {
        let at = self.index(h)?;
        match self.at(at) {
            Some(place) if place.stage == Stage::Free => Ok(at),
            _ => Err(Violation::Busy),
        }
    }

    /// The operation that a frame is about, if it is there.
    pub(super) fn about(&mut self, h: &Header) -> Result<Option<&mut Incoming>, Violation> {
        let at = self.index(h)?;
        let place = self.at(at);
        Ok(place.filter(|place| {
            place.op == h.op && !matches!(place.stage, Stage::Free | Stage::Released)
        }))
    }

    /// The place of a token that still names something.
    pub(super) fn find(&mut self, token: Token) -> Option<u32> {
        let at = token.op & 0xffff;
        let epoch = self.epoch;
        let place = self.at(at)?;
        let lives = !matches!(place.stage, Stage::Free | Stage::Released);
        (lives && token.epoch == epoch && place.op == token.op).then_some(at)
    }

    /// Gives a new operation its place.
    pub(super) fn occupy(&mut self, at: u32, h: &Header, stage: Stage, credit: Amount) {
        let epoch = self.epoch;
        if let Some(place) = self.at(at) {
            *place = Incoming {
                op: h.op,
                epoch,
                stage,
                kind: h.kind,
                flags: h.flags,
                key: h.key,
                context: h.context,
                credit,
                total: h.total,
                ..Incoming::vacant()
            };
            self.used += 1;
        }
    }

    /// Gives the place up. Nothing of it is to be sent.
    pub(super) fn vacate(&mut self, at: u32) {
        self.unlink(at);
        if let Some(place) = self.at(at) {
            place.stage = Stage::Free;
            self.used = self.used.saturating_sub(1);
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(place) = self.slots.get_mut(at as usize) else {
            return;
        };
        match core::mem::replace(&mut place.chain, In::Nothing) {
            In::Nothing => (),
            In::Urgent => self.urgent.remove(&mut self.slots, at),
            In::Replies => self.replies.remove(&mut self.slots, at),
            In::Streams => self.streams.remove(&mut self.slots, at),
            In::Released => self.released.remove(&mut self.slots, at),
        }
    }

    /// Something is to be said about it; `about`: before frame number `about` is acknowledged.
    ///
    /// What was to be said before, and was not, needs no saying any more: the place in the order is
    /// the same.
    pub(super) fn say(&mut self, at: u32, reply: Reply, about: Option<u32>) {
        let Some(place) = self.at(at) else { return };
        place.reply = reply;
        match (place.chain, about) {
            (In::Urgent, _) | (In::Replies, None) => return,
            _ => self.unlink(at),
        }
        let Some(place) = self.slots.get_mut(at as usize) else {
            return;
        };
        if let Some(about) = about {
            place.about = about;
            place.chain = In::Urgent;
            self.urgent.push(&mut self.slots, at);
        } else {
            place.chain = In::Replies;
            self.replies.push(&mut self.slots, at);
        }
    }

    /// It ends so.
    pub(super) fn finish(&mut self, at: u32, verdict: Verdict, about: Option<u32>) {
        let Some(place) = self.at(at) else { return };
        place.stage = Stage::Closing;
        place.failure = verdict.err();
        let reply = if place.fetches && verdict.is_ok() {
            Reply::Fetched
        } else {
            Reply::Done(verdict)
        };
        self.say(at, reply, about);
    }

    /// Pieces of a read are to be sent.
    pub(super) fn stream(&mut self, at: u32) {
        self.unlink(at);
        if let Some(place) = self.at(at) {
            place.stage = Stage::Reading;
            place.chain = In::Streams;
            self.streams.push(&mut self.slots, at);
        }
    }

    /// Whether something is to be said about one.
    pub(super) fn has_replies(&self) -> bool {
        !(self.urgent.is_empty() && self.replies.is_empty())
    }

    /// The number of the last frame that may be acknowledged, if a reply about a later one is not
    /// sent.
    pub(super) fn unsaid(&mut self) -> Option<u32> {
        let first = self.urgent.head()?;
        self.at(first).map(|place| place.about.wrapping_sub(1))
    }

    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// The next reply, which is sent now, and the number of the last frame that it may acknowledge,
    /// if that is not the last that was executed: another reply follows.
    pub(super) fn next_reply(&mut self) -> Option<(u32, Reply, Option<u32>)> {
        let urgent = self.urgent.pop(&mut self.slots);
        let at = urgent.or_else(|| self.replies.pop(&mut self.slots))?;
        let next = self.unsaid();
        let place = self.at(at)?;
        place.chain = In::Nothing;
        place.frames += 1;
        place.last_sent |= place.stage == Stage::Closing;
        Some((at, place.reply, next))
    }

    /// The read whose turn it is, and what is sent of it now, at most `limit` bytes: the first
    /// byte, how many, and whether they are the last.
    pub(super) fn next_piece(&mut self, limit: u32) -> Option<(u32, u64, u32, bool)> {
        let at = self.streams.pop(&mut self.slots)?;
        let place = self.at(at)?;
        place.chain = In::Nothing;
        let offset = place.next;
        let len = u64::from(limit).min(place.total.saturating_sub(offset));
        place.next = offset + len;
        place.frames += 1;
        let last = place.next == place.total;
        if last {
            place.stage = Stage::Closing;
            place.last_sent = true;
        } else {
            self.stream(at);
        }
        Some((at, offset, len as u32, last))
    }

    /// A reply about it is acknowledged.
    pub(super) fn acknowledged(&mut self, at: u32, op: u32) {
        let Some(place) = self.at(at) else { return };
        if place.op != op || matches!(place.stage, Stage::Free | Stage::Released) {
            return;
        }
        place.frames = place.frames.saturating_sub(1);
        if place.frames == 0 && place.last_sent {
            if place.is_kept() {
                self.release(at);
            } else {
                self.vacate(at);
            }
        }
    }

    fn release(&mut self, at: u32) {
        self.unlink(at);
        if let Some(place) = self.at(at) {
            place.stage = Stage::Released;
            place.chain = In::Released;
            self.released.push(&mut self.slots, at);
        }
    }

    pub(super) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// The session is over: nothing of it is of use.
    pub(super) fn release_all(&mut self) {
        for at in 0..self.slots.len() as u32 {
            let stage = self.at(at).map(|place| place.stage);
            match stage {
                Some(Stage::Free | Stage::Released) | None => (),
                Some(_) => self.release(at),
            }
        }
    }

    /// The next session begins: tokens of the one before name nothing.
    pub(super) fn next_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// One that is released. Its index is free from now on.
    pub(super) fn poll_released(&mut self) -> Option<Token> {
        let at = self.released.pop(&mut self.slots)?;
        let place = self.at(at)?;
        place.chain = In::Nothing;
        place.stage = Stage::Free;
        let token = Token {
            op: place.op,
            epoch: place.epoch,
        };
        self.used = self.used.saturating_sub(1);
        Some(token)
    }
}
