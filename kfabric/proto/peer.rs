// SPDX-License-Identifier: GPL-2.0

//! One peer: everything that this side and another want of each other, as one machine.
//!
//! It does no I/O. The engine makes links, moves payloads and knows memory; the machine says what
//! frames mean and what comes next. See Documentation/wire.rst for the rules. Whoever uses it has
//! one lock for all of it, and goes on like this:
//!
//! ```text
//! a post            submit(now, command)            then transmit
//! a frame           handle_frame(now, link, header) an Action: what to do with the payload
//!                   do it, executed(now, how)       in one critical section, then transmit
//! a part of one     heard(now, link)
//! what took longer  reply(token, how)               then transmit
//! transmit          poll_hello, poll_transmit until None, as long as the link takes frames
//! a link            link_up, link_lost, greeted, accept
//! time              deadline(), handle_timeout(now) then transmit
//! after each        poll_event until None
//! ```
//!
//! What an [`Action`] asks for must not be done if the link is lost before it is: the frame comes
//! again. So who has to sleep for it answers [`Executed::Waits`] and calls [`Peer::reply`] later.
//!
//! # Why a side can always execute the next frame
//!
//! Executing one takes room for at most one more reply. Each operation of the peer has at most two
//! that are not acknowledged: PARKED or CTS, then DONE or what it fetched; its place is free for
//! another only when both are. There are at most as many places as this side's hello tells, and the
//! ring keeps room for twice as many replies, which nothing else may take. Pieces of reads go out
//! while there is other room, and hold up no frame that comes in. Acknowledgements take no room. So
//! neither side waits for the other before it executes what has come, and each frame that was sent
//! is acknowledged sooner or later, which makes room for the others.
//!
//! | file | noun |
//! |---|---|
//! | [`command`] | what an initiator asks for |
//! | [`outgoing`] | operations of this side |
//! | [`incoming`] | operations of the peer |
//! | [`transmit`] | the frame that goes next |
//! | [`receive`] | the frame that has come |
//! | `rest` | the end of a session that nobody uses |

pub mod command;
pub mod incoming;
pub mod outgoing;
pub mod receive;
mod rest;
pub mod transmit;

use super::flow::{Amount, Credit, Credits, Grant, Grants};
use super::order::Order;
use super::session::past::Past;
use super::session::ring::{Ring, Sent};
use super::session::{self, Accept, End, LinkId, Met, Session, State};
use super::violation::Violation;
use super::wire::hello::{Hello, Limits, MIN_OPS};
use super::wire::verdict::Verdict;
use super::wire::{Errno, Failure, Outcome, Reason};
use command::{Command, Op, What};
use core::ops::DerefMut;
use incoming::{Incoming, Stage, Targets, Token};
use outgoing::{Cancel, Ops, Outgoing};
use receive::Pending;
use rest::Rest;
use transmit::Frame;

pub use receive::{Action, Executed};
pub use transmit::{Payload, Transmit};

/// What slices are made of: vectors, boxes, borrowed ones.
pub trait Storage {
    /// A slice of elements.
    type Of<T>: DerefMut<Target = [T]>;
}

/// The storage of a machine.
pub struct Parts<S: Storage> {
    /// Operations of this side: so many may be outstanding, at most 65,535.
    pub ops: S::Of<Outgoing>,
    /// Operations of the peer: as many as this side's hello tells.
    pub incoming: S::Of<Incoming>,
    /// Frames that are not acknowledged: twice as many as `incoming`, and some for requests.
    pub sent: S::Of<Sent<Frame>>,
    /// Receive contexts of this side: as many as its hello tells.
    pub grants: S::Of<Grant>,
    /// Receive contexts of the peer that this side sends to.
    pub credits: S::Of<Credit>,
}

/// What the engine decides once.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of the session.
    pub session: session::Settings,
    /// What a context holds that met no receive.
    pub window: Amount,
    /// What must not overtake what.
    pub order: Order,
}

/// Why a post was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// All places are taken, or the end of the session is asked for: later.
    Full,
    /// The session is closed.
    Closed,
    /// There is no such operation.
    Unsound,
}

/// What becomes of a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It has ended, not executed; the event comes.
    Ended,
    /// The peer is asked. How it ends, its event tells.
    Asked,
    /// It has ended, or can't be withdrawn any more.
    No,
}

/// What the engine is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link is to be made; then [`Peer::link_up`] or [`Peer::link_lost`].
    Dial(LinkId),
    /// A link is to be closed, after what was given out for it.
    CloseLink(LinkId),
    /// Frames flow; `fresh`: in a session that begins.
    Opened {
        /// Whether nothing was before.
        fresh: bool,
    },
    /// An operation of this side has ended, and its buffer is not needed any more.
    Ended {
        /// Which. Its index is free.
        op: Op,
        /// What it was.
        command: Command,
        /// How.
        verdict: Verdict,
    },
    /// Nothing of an operation of the peer is needed any more: a read's source, what an atomic
    /// fetched; at the end of a session, whatever is left.
    Released(Token),
    /// The session is over. What was in flight has ended.
    Over(End),
}

/// What a goodbye says of the session that it ends.
#[derive(Clone, Copy, Debug, Default)]
struct Farewell {
    /// The last frame that was sent.
    seq: u32,
    /// The last that has been executed, so that no reply about one before is missing.
    ack: u32,
    /// The last that was begun to be executed.
    begun: u32,
    /// Whether the session has checksums.
    crc: bool,
}

/// The machine.
pub struct Peer<S: Storage> {
    session: Session,
    ring: Ring<S::Of<Sent<Frame>>>,
    grants: Grants<S::Of<Grant>>,
    credits: Credits<S::Of<Credit>>,
    ops: Ops<S::Of<Outgoing>>,
    targets: Targets<S::Of<Incoming>>,
    order: Order,
    pending: Option<Pending>,
    /// The last frame whose payload was asked for: some of it may be in its place, whatever became of its link.
    begun: Option<u32>,
    turn: u8,
    /// Since when the oldest frame waits to be acknowledged.
    waits: u64,
    opened: Option<bool>,
    over: Option<End>,
    rest: Rest,
    farewell: Farewell,
}

impl<S: Storage> Peer<S> {
    /// A machine without a session, after what was before.
    ///
    /// `None`: the storage is not what the limits need.
    #[inline(never)]
    pub fn new(settings: Settings, past: Past, parts: Parts<S>) -> Option<Self> {
        let limits = settings.session.limits;
        let replies = 2 * usize::from(limits.ops);
        if !limits.are_sound()
            || parts.incoming.len() < usize::from(limits.ops)
            || parts.grants.len() != usize::from(limits.contexts)
            || parts.sent.len() < replies + 2
            || parts.ops.len() > usize::from(u16::MAX)
        {
            return None;
        }
        Some(Peer {
            session: Session::new(settings.session, past),
            ring: Ring::new(parts.sent, replies as u32, 0),
            grants: Grants::new(parts.grants, settings.window, limits.eager),
            credits: Credits::new(parts.credits),
            ops: Ops::new(parts.ops),
            targets: Targets::new(parts.incoming, limits.ops),
            order: settings.order,
            pending: None,
            begun: None,
            turn: 0,
            waits: 0,
            opened: None,
            over: None,
            rest: Rest::default(),
            farewell: Farewell::default(),
        })
    }

    /// Has sequences begin after `start`, so that tests see them wrap around.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, start: u32) {
        self.session.start_at(start);
        self.ring.clear(start);
    }

    /// Of each context: what was received, and what was used at the peer.
    #[cfg(test)]
    pub(super) fn credit(&self) -> (Vec<Amount>, Vec<Amount>) {
        (self.grants.received(), self.credits.used())
    }

    /// What the session is in.
    pub fn state(&self) -> State {
        self.session.state()
    }

    /// The link in use. Any other of this peer is to be closed.
    pub fn link(&self) -> Option<LinkId> {
        self.session.link()
    }

    /// Whether frames that come have checksums, but hellos, which always have.
    pub fn has_crc(&self) -> bool {
        self.session.has_crc()
    }

    /// Whether [`Peer::poll_hello`] gives one.
    pub fn owes_hello(&self) -> bool {
        self.session.owes_hello()
    }

    /// What is to be remembered of the peer while there is no machine for it.
    pub fn past(&self) -> &Past {
        self.session.past()
    }

    /// What this side takes.
    pub fn own_limits(&self) -> &Limits {
        &self.session.settings().limits
    }

    /// What the peer takes, while there is a session.
    pub fn limits(&self) -> Option<Limits> {
        self.session.limits()
    }

    /// How far both sides' frames are: what changes when the session is used.
    pub fn how_far(&self) -> (u32, u32) {
        (self.session.executed(), self.ring.last())
    }

    /// Whether nothing is outstanding on either side, as far as this one knows.
    pub fn is_quiet(&self) -> bool {
        self.ops.used() == 0 && self.targets.used() == 0 && self.ring.is_empty()
    }

    /// Whether it is known how all operations of this side have ended, and all that is to be said of
    /// those of the peer was given out.
    pub fn is_settled(&self) -> bool {
        self.ops.used() == 0 && !self.targets.has_replies()
    }

    /// How many operations of this side, and of the peer, have not ended.
    pub fn outstanding(&self) -> (u32, u32) {
        (self.ops.used(), self.targets.used())
    }

    /// Whether [`Peer::submit`] has a place for another operation.
    pub fn has_room(&self) -> bool {
        self.ops.has_room() && !self.rests()
    }

    /// Posts an operation.
    ///
    /// # Errors
    ///
    /// Why it is refused; no event comes then.
    pub fn submit(&mut self, now: u64, command: Command) -> Result<Op, Refused> {
        if let State::Closed(_) = self.session.state() {
            return Err(Refused::Closed);
        }
        if !command.is_sound() {
            return Err(Refused::Unsound);
        }
        if self.rests() {
            return Err(Refused::Full);
        }
        let op = self.ops.post(command).ok_or(Refused::Full)?;
        self.session.want(now);
        Ok(op)
    }

    /// Withdraws a message, or remote CQ data, if no receive has met it.
    pub fn cancel(&mut self, op: Op) -> Cancelled {
        let Some(at) = self.ops.find(op.0) else {
            return Cancelled::No;
        };
        let Some(place) = self.ops.at(at) else {
            return Cancelled::No;
        };
        use outgoing::State;
        match place.state {
            State::Queued => {
                self.ops.unpark(at, &mut self.credits);
                let failure = Failure::new(Errno::ECANCELED, Outcome::NotExecuted);
                self.ops.end(at, Err(failure));
                Cancelled::Ended
            }
            State::Acking | State::Replying | State::Parked
                if place.command.meets_a_receive() && !place.asked =>
            {
                if place.cancel == Cancel::No {
                    place.cancel = Cancel::Wanted;
                    self.ops.activate(at);
                }
                Cancelled::Asked
            }
            _ => Cancelled::No,
        }
    }

    /// Says how an operation of the peer went for which [`Executed::Waits`] was said, or that one
    /// which goes on has failed. For a message that was offered, `Ok` asks for it; for a read, `Ok`
    /// sends it. Whether it was still there.
    ///
    /// If the source of a read fails when some of it was sent, the link is to be lost too: what was
    /// given out and not sent is made anew, without the source.
    pub fn reply(&mut self, token: Token, verdict: Verdict) -> bool {
        let Some(at) = self.targets.find(token) else {
            return false;
        };
        let Some(place) = self.targets.at(at) else {
            return false;
        };
        match (place.stage, verdict) {
            (Stage::Waiting, verdict) => {
                self.resolve(at, verdict, None);
                true
            }
            (Stage::Placed, verdict) => {
                self.targets.finish(at, verdict, None);
                true
            }
            (Stage::Pieces | Stage::Receiving | Stage::Reading, Err(_)) => {
                // The pieces that follow are dropped, and none of them is executed well.
                let about = self.session.executed().wrapping_add(1);
                self.targets.finish(at, verdict, Some(about));
                true
            }
            (Stage::Closing, Err(failure)) if place.kind == super::wire::Kind::Read => {
                place.failure.get_or_insert(failure);
                true
            }
            _ => false,
        }
    }

    /// What waited does not; `about`: the frame that is answered by that, if it is the last one.
    fn resolve(&mut self, at: u32, verdict: Verdict, about: Option<u32>) {
        use super::wire::Kind;
        let Some(place) = self.targets.at(at) else {
            return;
        };
        let (kind, context) = (place.kind, place.context);
        let credit = core::mem::take(&mut place.credit);
        self.grants.give_back(context, credit);
        match (kind, verdict) {
            (Kind::Rts, Ok(_)) => {
                if let Some(place) = self.targets.at(at) {
                    place.stage = Stage::Receiving;
                }
                self.targets.say(at, incoming::Reply::Cts, None);
            }
            (Kind::Read, Ok(_)) => self.targets.stream(at),
            _ => self.targets.finish(at, verdict, about),
        }
    }

    /// The link that was asked for is made.
    pub fn link_up(&mut self, link: LinkId) {
        self.session.link_up(link);
    }

    /// A link could not be made, or is gone.
    pub fn link_lost(&mut self, now: u64, link: LinkId) {
        if self.session.link_lost(now, link) {
            self.pending = None;
        }
    }

    /// The host of the peer says that nobody listens there, in answer to a dial. Without a session,
    /// none is waited for.
    pub fn refused(&mut self, now: u64) {
        if self.session.limits().is_none() {
            self.end(now, End::Timeout { never: true });
        }
    }

    /// The answer of the peer on a link that was made here.
    ///
    /// # Errors
    ///
    /// What is wrong with it; the link is lost, and the session over if it is the peer of that.
    pub fn greeted(&mut self, now: u64, link: LinkId, hello: &Hello) -> Result<(), Violation> {
        let met = self.session.greeted(now, link, hello);
        let met = met.and_then(|met| self.meet(met));
        met.inspect_err(|&violation| {
            if self.session.link() == Some(link) {
                self.misgreeted(now, violation);
            }
        })
    }

    /// A peer has made a link and said hello.
    ///
    /// # Errors
    ///
    /// What is wrong with it; the link is to be closed. If it is the peer of the session, that is
    /// over.
    pub fn accept(&mut self, now: u64, hello: &Hello) -> Result<Accept, Violation> {
        let accept = self.session.accept(now, hello);
        let met = accept.and_then(|accept| {
            if let Accept::Take(_, met) = accept {
                self.pending = None;
                self.meet(met)?;
            }
            Ok(accept)
        });
        met.inspect_err(|&violation| self.misgreeted(now, violation))
    }

    /// A hello broke a rule. One that can't go on with the session never will.
    fn misgreeted(&mut self, now: u64, violation: Violation) {
        self.lose(now);
        if matches!(violation, Violation::Limits | Violation::Resumed) {
            self.end(now, End::Violated);
        }
    }

    /// What a hello means for what is in flight.
    fn meet(&mut self, met: Met) -> Result<(), Violation> {
        let limits = self.session.limits();
        // A peer that was asked for the end and has forgotten the session has agreed.
        let rested = core::mem::take(&mut self.rest).is_asked_for();
        if met.fresh {
            if met.ended {
                self.finish_all(Errno::ECONNRESET);
                self.over = Some(if rested { End::Idle } else { End::Restarted });
            }
            self.targets.next_epoch();
            self.ops.limit(limits.map_or(0, |limits| limits.ops));
        }
        self.ring.resume(met.last)?;
        self.grants.repeat();
        self.opened = Some(met.fresh);
        Ok(())
    }

    /// Ends all that is in flight, and forgets what was sent.
    fn finish_all(&mut self, errno: Errno) {
        self.pending = None;
        self.begun = None;
        self.ops.end_all(errno);
        // What the next peer allows is not known.
        self.ops.limit(MIN_OPS);
        self.targets.release_all();
        self.ring.clear(self.session.start());
        self.grants.clear();
        self.credits.clear();
    }

    /// Loses the link in use; the session goes on.
    fn lose(&mut self, now: u64) {
        self.pending = None;
        self.session.abandon(now);
    }

    fn end(&mut self, now: u64, end: End) {
        // Of what is over already, only what this side decides changes anything: who is let in.
        if matches!(self.session.state(), State::Closed(_)) && !matches!(end, End::Closed(_)) {
            return;
        }
        let errno = match end {
            // Nothing is in flight then.
            End::Bye(_) | End::Idle => Errno::ENOTCONN,
            End::Closed(Reason::DeviceGone) => Errno::ENODEV,
            End::Closed(_) => Errno::ECANCELED,
            End::Restarted => Errno::ECONNRESET,
            End::Timeout { never: true } => Errno::EHOSTUNREACH,
            End::Timeout { never: false } => Errno::ETIMEDOUT,
            End::Violated => Errno::EPROTO,
        };
        if self.session.is_open() {
            self.farewell = self.farewell();
        }
        self.finish_all(errno);
        self.session.end(now, end);
        self.rest = Rest::default();
        self.opened = None;
        self.over = Some(end);
    }

    /// What a goodbye would say now.
    fn farewell(&mut self) -> Farewell {
        let executed = self.session.executed();
        let next = executed.wrapping_add(1);
        Farewell {
            seq: self.ring.last(),
            ack: self.targets.unsaid().unwrap_or(executed),
            begun: match self.begun == Some(next) {
                true => next,
                false => executed,
            },
            crc: self.session.has_crc(),
        }
    }

    /// Takes in that the peer, which ends the session, has begun no frame after number `begun`.
    fn not_begun_after(&mut self, begun: u32) {
        let mut seq = self.ring.last();
        // It can't have begun fewer than it has acknowledged, or more than were sent.
        if seq.wrapping_sub(begun) > self.ring.len() {
            return;
        }
        while let Some(frame) = self.ring.find(seq).filter(|_| seq != begun) {
            match frame {
                Frame::Request {
                    at, kind, flags, ..
                } if kind.begins(flags) => self.ops.not_begun(at.into()),
                _ => (),
            }
            seq = seq.wrapping_sub(1);
        }
    }

    /// Ends the session, and tells the peer. Nothing is posted or accepted until
    /// [`Peer::reopen`].
    pub fn close(&mut self, now: u64, reason: Reason) {
        match self.session.state() {
            State::Closed(End::Closed(_)) => (),
            _ => self.end(now, End::Closed(reason)),
        }
    }

    /// The bytes of a frame that was given out can't be had any more: it can't be made, nor taken
    /// back, so the session ends.
    pub fn fail_source(&mut self, now: u64) {
        self.end(now, End::Closed(Reason::DeviceGone));
    }

    /// After the end of a session, others may begin.
    pub fn reopen(&mut self, now: u64) {
        self.session.reopen(now);
    }

    /// A frame broke a rule: its link is lost, or the session ends. For frames that could not be
    /// read; the others are seen by [`Peer::handle_frame`].
    pub fn fail(&mut self, now: u64, violation: Violation) {
        if self.session.is_parting() {
            // The goodbye is still to be said, and nothing is read any more.
        } else if violation.is_of_link() {
            self.lose(now);
        } else {
            self.end(now, End::Violated);
        }
    }

    /// Bytes of a frame have come over `link`, but not all of it: a sign of life.
    pub fn heard(&mut self, now: u64, link: LinkId) {
        if self.session.link() == Some(link) && self.session.is_open() {
            self.session.sense(now);
        }
    }

    /// When [`Peer::handle_timeout`] has something to do. What waits for a link to take frames is
    /// not in it.
    pub fn deadline(&self) -> Option<u64> {
        let session = self.session.deadline(self.waits());
        match (session, self.rest_until()) {
            (Some(session), Some(rest)) => Some(session.min(rest)),
            (session, rest) => session.or(rest),
        }
    }

    fn waits(&self) -> Option<u64> {
        (!self.ring.is_empty()).then_some(self.waits)
    }

    /// Does what time asks for.
    pub fn handle_timeout(&mut self, now: u64) {
        let before = self.session.link();
        if self.rest_until().is_some_and(|until| until <= now) {
            self.session.abandon(now);
        }
        if let Some(end) = self.session.handle_timeout(now, self.waits()) {
            self.end(now, end);
        }
        if self.session.link() != before {
            self.pending = None;
        }
    }

    /// What the engine is to know next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.poll_event_but_dial()
            .or_else(|| self.session.take_dial().map(Event::Dial))
    }

    /// Whether a link is to be made, which [`Peer::poll_event`] says last.
    pub fn wants_link(&self) -> bool {
        self.session.wants_link()
    }

    /// As [`Peer::poll_event`], but that a link is to be made is left for later.
    pub fn poll_event_but_dial(&mut self) -> Option<Event> {
        if let Some(link) = self.session.take_abandoned() {
            return Some(Event::CloseLink(link));
        }
        if let Some((op, command, verdict)) = self.ops.poll_ended() {
            return Some(Event::Ended {
                op,
                command,
                verdict,
            });
        }
        if let Some(token) = self.targets.poll_released() {
            return Some(Event::Released(token));
        }
        if let Some(end) = self.over.take() {
            return Some(Event::Over(end));
        }
        if let Some(fresh) = self.opened.take() {
            return Some(Event::Opened { fresh });
        }
        None
    }

    /// Takes in that the peer acknowledged all up to `ack`.
    fn acknowledge(&mut self, now: u64, ack: u32) -> Result<(), Violation> {
        let news = self.ring.acknowledge(ack)?;
        if news {
            self.waits = now;
        }
        while let Some(frame) = self.ring.pop() {
            match frame {
                Frame::Request { at, .. } => self.ops.acknowledged(at.into()),
                Frame::Reply { at, op, .. }
                | Frame::Piece { at, op, .. }
                | Frame::Fetched { at, op, .. } => self.targets.acknowledged(at.into(), op),
            }
        }
        if news || self.ring.is_empty() {
            self.session.progress();
        }
        Ok(())
    }
}

impl What {
    /// Whether the peer sends what it was told to bring.
    pub(super) const fn fetches(&self) -> bool {
        match self {
            What::Atomic { action, .. } => action.fetches(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
