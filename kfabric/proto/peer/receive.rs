// SPDX-License-Identifier: GPL-2.0

//! The frame that has come: what it means, and whether it may be.

use super::super::atomic;
use super::super::flow::Amount;
use super::super::range::Range;
use super::super::session::{End, LinkId};
use super::super::violation::Violation;
use super::super::wire::verdict;
use super::super::wire::{atomic_code, Failure, Flags, Header, Kind, Level, Reason};
use super::command::{Op, Target, What};
use super::incoming::{Reply, Stage, Token};
use super::outgoing::State;
use super::transmit::level;
use super::{Peer, Storage};

/// A frame whose payload is awaited, or what it asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    header: Header,
    /// Its payload is of no use.
    drop: bool,
    /// It was asked for before, over a link that was lost.
    again: bool,
}

/// What is to be done with a frame. Then [`Peer::executed`], but after the first two.
///
/// Tokens name operations of the peer, and an index of which there is one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing; there is no payload.
    Nothing,
    /// Events come first: take them, then hand in the same header again.
    Events,
    /// The payload is to be read and dropped.
    Discard,
    /// A message. Its payload goes to a receive (`Done`), or is held (`Waits`).
    Message {
        /// Which.
        token: Token,
        /// To which receive context.
        context: u16,
        /// Its tag.
        tag: Option<u64>,
        /// Its remote CQ data.
        data: Option<u64>,
        /// Its bytes.
        len: u32,
    },
    /// A message is announced. `Done`: a receive has met it, and it may come.
    Offer {
        /// Which.
        token: Token,
        /// To which receive context.
        context: u16,
        /// Its tag.
        tag: Option<u64>,
        /// Its remote CQ data.
        data: Option<u64>,
        /// Its bytes.
        len: u64,
    },
    /// A piece of a message that was announced. `Done` of the last one completes its receive.
    Piece {
        /// Which.
        token: Token,
        /// Where the piece begins in the message.
        offset: u64,
        /// Its bytes.
        len: u32,
        /// Whether it is the last.
        last: bool,
    },
    /// A piece of a write. With the first, the whole range is to be checked.
    Write {
        /// Which.
        token: Token,
        /// To what.
        target: Target,
        /// If that is a tag, of which receive context.
        context: u16,
        /// The range of this piece.
        piece: Range,
        /// The whole range; with the first piece and the last.
        whole: Option<Range>,
        /// Whether it is the first.
        first: bool,
        /// Whether it is the last: `Done` or `Waits` is about all of it.
        last: bool,
        /// Whether all of it is to be durable.
        commit: bool,
        /// Remote CQ data, and the receive context it goes to, with the last piece.
        data: Option<(u16, u64)>,
    },
    /// A range is to be made durable.
    Commit {
        /// Which.
        token: Token,
        /// Of which region.
        key: u64,
        /// Which range.
        range: Range,
        /// Remote CQ data, and the receive context it goes to.
        data: Option<(u16, u64)>,
    },
    /// A range is to be read. `Done`: it may be sent, and stays as it is until it is released.
    Read {
        /// Which.
        token: Token,
        /// From what.
        target: Target,
        /// If that is a tag, of which receive context.
        context: u16,
        /// Which range.
        range: Range,
    },
    /// Words are to be changed. `Done` or the reply: what they were is kept until it is released.
    Atomic {
        /// Which.
        token: Token,
        /// Of which region.
        key: u64,
        /// Where.
        range: Range,
        /// What is done.
        action: atomic::Action,
        /// To what.
        datatype: atomic::Datatype,
        /// Whether it is to be durable.
        commit: bool,
        /// Bytes of the operands.
        len: u32,
    },
    /// What waits for a receive is to be withdrawn. `Failed`: it was, with that; else it was not.
    Withdrawn {
        /// Which.
        token: Token,
    },
    /// What a device calls a key.
    Announce {
        /// Which operation.
        token: Token,
        /// The key.
        key: u64,
        /// Bytes of what it says.
        len: u32,
    },
    /// What was announced is void.
    Withdraw {
        /// Which operation.
        token: Token,
        /// The key.
        key: u64,
    },
    /// A piece of what was read.
    ReadData {
        /// By which operation.
        op: Op,
        /// Where the piece begins in the read.
        offset: u64,
        /// Its bytes.
        len: u32,
    },
    /// What the words were.
    AtomicData {
        /// By which operation.
        op: Op,
        /// Its bytes.
        len: u32,
    },
}

/// How an action went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executed {
    /// Well. The level counts where a commit was asked for.
    Done(Level),
    /// Well so far, but its end is told later by [`Peer::reply`]. Not for pieces but the last, and
    /// only for what meets a receive, or is committed, or brings something back.
    Waits,
    /// It failed.
    Failed(Failure),
}

impl<S: Storage> Peer<S> {
    /// A frame has come over `link`, but its payload may not have.
    ///
    /// # Errors
    ///
    /// The peer or the link broke a rule. The link is lost or the session has ended already.
    pub fn handle_frame(
        &mut self,
        now: u64,
        link: LinkId,
        header: &Header,
    ) -> Result<Action, Violation> {
        if self.session.link() != Some(link) || self.session.is_parting() {
            return Ok(discard(header));
        }
        self.pending = None;
        let action = self.frame(now, header);
        action.inspect_err(|&violation| self.fail(now, violation))
    }

    /// What was asked for is done. `false`: the link was lost meanwhile, and it must not have been.
    ///
    /// # Errors
    ///
    /// As those of [`Peer::handle_frame`].
    pub fn executed(&mut self, now: u64, how: Executed) -> Result<bool, Violation> {
        let Some(pending) = self.pending.take() else {
            return Ok(false);
        };
        let executed = self.execute(now, &pending, how);
        executed
            .map(|()| true)
            .inspect_err(|&violation| self.fail(now, violation))
    }

    /// Whether an action is asked for, and its link still there.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether what is asked for was asked for before, over a link that was lost: some of its payload may be in
    /// its place.
    pub fn is_again(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.again)
    }

    fn frame(&mut self, now: u64, h: &Header) -> Result<Action, Violation> {
        // Who is not let in may be told why, in place of the answer.
        let refused = self.session.is_greeting() && h.kind == Kind::Bye;
        if !(self.session.is_open() || refused) || h.kind == Kind::Hello {
            return Err(Violation::Unexpected);
        }
        self.session.hear(now);
        if !h.kind.is_sequenced() {
            self.unsequenced_frame(now, h)?;
            return Ok(Action::Nothing);
        }
        if !self.session.is_next(h.seq)? {
            self.session.acks().owe(now, h.len);
            return Ok(discard(h));
        }
        self.wake();
        if !h.kind.is_reply() {
            self.acknowledge(now, h.ack)?;
        }
        if self.targets.has_released() {
            return Ok(Action::Events);
        }
        let action = self.meaning(h)?;
        let drop = action == Action::Discard;
        let again = self.begun == Some(h.seq);
        let pending = Pending {
            header: *h,
            drop,
            again,
        };
        if action == Action::Nothing || (drop && h.len == 0) {
            self.execute(now, &pending, Executed::Done(Level::Delivered))?;
            return Ok(Action::Nothing);
        }
        self.begun = Some(h.seq);
        self.pending = Some(pending);
        Ok(action)
    }

    fn unsequenced_frame(&mut self, now: u64, h: &Header) -> Result<(), Violation> {
        if h.kind != Kind::Bye {
            // First: what it acknowledges may be what a lost reply is about.
            self.session.has(h.seq)?;
            self.acknowledge(now, h.ack)?;
        }
        match h.kind {
            Kind::Ping => {
                self.session.pinged();
                Ok(())
            }
            Kind::Idle => {
                self.asked_to_rest();
                Ok(())
            }
            Kind::Grant => {
                let contexts = self.session.limits().map_or(0, |limits| limits.contexts);
                if h.context >= contexts {
                    return Err(Violation::Context);
                }
                let granted = Amount::new(h.data as u32, h.total);
                self.credits.grant(h.context, granted)
            }
            Kind::Bye if self.rests() && h.code == Reason::Idle as u16 => {
                self.rested(now);
                Ok(())
            }
            Kind::Bye => {
                // In place of an answer it is about no session.
                if self.session.is_open() {
                    // Nothing is believed to have gone well while a reply is missing.
                    if self.session.has(h.seq).is_ok() {
                        self.acknowledge(now, h.ack)?;
                    }
                    self.not_begun_after(h.data as u32);
                }
                let reason = Reason::from_code(h.code).unwrap_or(Reason::Closed);
                self.end(now, End::Bye(reason));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What a new sequenced frame asks for.
    fn meaning(&mut self, h: &Header) -> Result<Action, Violation> {
        let token = self.targets.token(h.op);
        let limits = *self.own_limits();
        let data = h.flags.contains(Flags::DATA);
        let tag = h.flags.contains(Flags::TAGGED).then_some(h.key);
        let target = tag.map_or(Target::Key(h.key), Target::Tag);
        let range = Range::new(h.offset, h.total);
        let last = h.flags.contains(Flags::LAST);
        match h.kind {
            Kind::Send | Kind::Rts => {
                self.targets.vacancy(h)?;
                let longest = match h.kind {
                    Kind::Send => limits.eager.into(),
                    _ => limits.message,
                };
                if h.total > longest {
                    return Err(Violation::Long);
                }
                self.grants.check(h.context, credit(h))?;
                let (context, data) = (h.context, data.then_some(h.data));
                Ok(match h.kind {
                    Kind::Send => Action::Message {
                        token,
                        context,
                        tag,
                        data,
                        len: h.len,
                    },
                    _ => Action::Offer {
                        token,
                        context,
                        tag,
                        data,
                        len: h.total,
                    },
                })
            }
            Kind::Data => {
                match self.targets.about(h)? {
                    Some(place) if place.has_failed() => Ok(Action::Discard),
                    // It acknowledges the CTS that asked for it, so none of our frames is about
                    // this operation any more when the last piece gives its place up.
                    Some(place)
                        if place.stage == Stage::Receiving
                            && place.is_heard()
                            && (h.offset, h.total) == (place.next, place.total) =>
                    {
                        Ok(Action::Piece {
                            token,
                            offset: h.offset,
                            len: h.len,
                            last,
                        })
                    }
                    _ => Err(Violation::Piece),
                }
            }
            Kind::Write => self.write(h, token, target),
            Kind::Commit => {
                self.targets.vacancy(h)?;
                if data {
                    self.grants.check(h.context, credit(h))?;
                }
                Ok(Action::Commit {
                    token,
                    key: h.key,
                    range,
                    data: data.then_some((h.context, h.data)),
                })
            }
            Kind::Read => {
                self.targets.vacancy(h)?;
                Ok(Action::Read {
                    token,
                    target,
                    context: h.context,
                    range,
                })
            }
            Kind::Atomic => {
                self.targets.vacancy(h)?;
                let (action, datatype) =
                    atomic_code(h.code).ok_or(super::super::wire::Malformed::Atomic)?;
                let takes = self.session.limits().map_or(0, |limits| limits.frame);
                if action.fetches() && h.total > takes.into() {
                    return Err(Violation::Long);
                }
                Ok(Action::Atomic {
                    token,
                    key: h.key,
                    range,
                    action,
                    datatype,
                    commit: h.flags.contains(Flags::COMMIT),
                    len: h.len,
                })
            }
            Kind::Cancel => Ok(match self.targets.about(h)? {
                Some(place) if place.stage == Stage::Waiting => match place.kind {
                    Kind::Send | Kind::Rts => Action::Withdrawn { token },
                    _ if place.flags.contains(Flags::DATA) => Action::Withdrawn { token },
                    _ => Action::Nothing,
                },
                // A receive has met it meanwhile.
                _ => Action::Nothing,
            }),
            Kind::Announce => {
                self.targets.vacancy(h)?;
                let (key, len) = (h.key, h.len);
                Ok(Action::Announce { token, key, len })
            }
            Kind::Withdraw => {
                self.targets.vacancy(h)?;
                Ok(Action::Withdraw { token, key: h.key })
            }
            _ => self.reply_meaning(h),
        }
    }

    /// A piece of a write.
    fn write(&mut self, h: &Header, token: Token, target: Target) -> Result<Action, Violation> {
        let first = h.flags.contains(Flags::FIRST);
        let last = h.flags.contains(Flags::LAST);
        let len = u64::from(h.len);
        let data = h.flags.contains(Flags::DATA);
        if data {
            // Also if it is dropped: it takes its credit, see [`Peer::drop_request`].
            self.grants.check(h.context, credit(h))?;
        }
        if first {
            self.targets.vacancy(h)?;
        } else {
            let same = Flags::TAGGED | Flags::COMMIT;
            match self.targets.about(h)? {
                Some(place) if place.has_failed() => return Ok(Action::Discard),
                Some(place)
                    if place.stage == Stage::Pieces
                        && (h.key, h.offset, h.total) == (place.key, place.next, place.total)
                        && h.flags.bits() & same.bits() == place.flags.bits() & same.bits()
                        && h.offset + len <= place.end
                        && last == (h.offset + len == place.end) => {}
                _ => return Err(Violation::Piece),
            }
        }
        let whole = match (first, last) {
            (true, _) => Some(Range::new(h.offset, h.total)),
            (_, true) => Some(Range::new(
                (h.offset + len).saturating_sub(h.total),
                h.total,
            )),
            _ => None,
        };
        Ok(Action::Write {
            token,
            target,
            context: h.context,
            piece: Range::new(h.offset, len),
            whole,
            first,
            last,
            commit: h.flags.contains(Flags::COMMIT),
            data: data.then_some((h.context, h.data)),
        })
    }

    /// What a reply asks for. Those without payload are executed at once.
    fn reply_meaning(&mut self, h: &Header) -> Result<Action, Violation> {
        if h.kind == Kind::Nop {
            return Ok(Action::Nothing);
        }
        let at = self.ops.find(h.op).ok_or(Violation::Reply)?;
        let op = self.ops.at(at).ok_or(Violation::Reply)?;
        let fits = match (h.kind, op.state) {
            // Nothing else waits for one. Of a message that was asked for, the last piece may.
            (Kind::Parked, State::Acking) => op.command.meets_a_receive(),
            (Kind::Cts, State::Replying) => {
                matches!(op.command.what, What::Send { .. }) && !op.asked
            }
            (Kind::Done, State::Queued) => false,
            (Kind::Done, state) => match verdict::parse(h.code, h.data)? {
                Err(_) => true,
                // What brings something back does not end without it; nor does a write of which
                // pieces are to come, or a message that was not asked for.
                Ok(level) => {
                    let asked = op.asked || !matches!(op.command.what, What::Send { .. });
                    h.total == op.command.len
                        && level >= op.command.level()
                        && !matches!(op.command.what, What::Read { .. })
                        && !op.command.what.fetches()
                        && state != State::Active
                        && (asked || state != State::Replying)
                }
            },
            (Kind::ReadData, State::Replying) => {
                matches!(op.command.what, What::Read { .. })
                    && (h.offset, h.total) == (op.received, op.command.len)
            }
            (Kind::AtomicData, State::Replying) => {
                op.command.what.fetches()
                    && h.total == op.command.len
                    && level(h.flags) == op.command.level()
            }
            _ => false,
        };
        if !fits {
            return Err(Violation::Reply);
        }
        let failed = op.failure.is_some();
        Ok(match h.kind {
            Kind::ReadData | Kind::AtomicData if failed => Action::Discard,
            Kind::ReadData => Action::ReadData {
                op: Op(h.op),
                offset: h.offset,
                len: h.len,
            },
            Kind::AtomicData => Action::AtomicData {
                op: Op(h.op),
                len: h.len,
            },
            _ => Action::Nothing,
        })
    }

    /// Takes in that a frame was executed so.
    fn execute(&mut self, now: u64, pending: &Pending, how: Executed) -> Result<(), Violation> {
        let h = &pending.header;
        self.session
            .execute(now, h.len, h.flags.contains(Flags::ACK_NOW));
        if h.kind.is_reply() {
            self.execute_reply(h, how);
            // Only now: it may acknowledge what the reply is about.
            return self.acknowledge(now, h.ack);
        }
        if pending.drop {
            self.drop_request(h);
        } else {
            self.execute_request(h, how);
        }
        Ok(())
    }

    /// A piece of what has failed. The last one of a write with remote CQ data takes its credit
    /// nevertheless; if it is never sent, its sender takes it back.
    fn drop_request(&mut self, h: &Header) {
        if h.kind == Kind::Write && h.flags.contains(Flags::DATA) {
            self.grants.take(h.context, credit(h));
            self.grants.give_back(h.context, credit(h));
        }
    }

    fn execute_reply(&mut self, h: &Header, how: Executed) {
        let Some(at) = self.ops.find(h.op) else {
            return;
        };
        let Some(op) = self.ops.at(at) else { return };
        if let Executed::Failed(failure) = how {
            op.failure.get_or_insert(failure);
        }
        match h.kind {
            Kind::Parked => op.state = State::Parked,
            Kind::Cts => {
                op.asked = true;
                op.state = State::Active;
                self.ops.activate(at);
            }
            Kind::Done => {
                let unsent =
                    op.state == State::Active && matches!(op.command.what, What::Write { .. });
                if unsent && op.command.meets_a_receive() {
                    // The piece that would have taken it at the peer is never sent.
                    let context = op.command.context;
                    self.credits.take_back(context, Amount::new(1, 0));
                }
                if let Ok(verdict) = verdict::parse(h.code, h.data) {
                    self.ops.end(at, verdict);
                }
            }
            Kind::ReadData => {
                op.received += u64::from(h.len);
                if h.flags.contains(Flags::LAST) {
                    self.ops.end(at, Ok(Level::Delivered));
                }
            }
            Kind::AtomicData => self.ops.end(at, Ok(level(h.flags))),
            _ => (),
        }
    }

    fn execute_request(&mut self, h: &Header, how: Executed) {
        let at = h.op & 0xffff;
        let first = h.kind != Kind::Write || h.flags.contains(Flags::FIRST);
        let last = h.kind != Kind::Write || h.flags.contains(Flags::LAST);
        let begins = first && h.kind != Kind::Data;
        match self.targets.at(at) {
            // The engine has failed it since the frame came: its end is to be told already.
            Some(place) if !begins && place.has_failed() => {
                return self.drop_request(h);
            }
            _ => (),
        }
        match h.kind {
            Kind::Cancel => {
                let waits = self
                    .targets
                    .at(at)
                    .is_some_and(|p| p.stage == Stage::Waiting);
                if let (Executed::Failed(failure), true) = (how, waits) {
                    self.resolve(at, Err(failure), None);
                }
                return;
            }
            Kind::Data => {
                if let Some(place) = self.targets.at(at) {
                    place.next += u64::from(h.len);
                }
                if h.flags.contains(Flags::LAST) || matches!(how, Executed::Failed(_)) {
                    self.conclude(at, h, how, false);
                }
                return;
            }
            _ => (),
        }
        if first {
            self.targets.occupy(at, h, Stage::Pieces, Amount::default());
            if let Some(place) = self.targets.at(at) {
                place.fetches = h.kind == Kind::Atomic
                    && atomic_code(h.code).is_some_and(|(action, _)| action.fetches());
                if h.kind == Kind::Write {
                    place.next = h.offset;
                    // Checked by the header for a first piece.
                    place.end = h.offset.saturating_add(h.total);
                }
            }
        }
        if let Some(place) = self.targets.at(at) {
            if h.kind == Kind::Write {
                place.next = place.next.saturating_add(h.len.into());
            }
            if last {
                // Of a write, remote CQ data come with the last piece.
                (place.flags, place.context) = (h.flags, h.context);
            }
        }
        let meets = matches!(h.kind, Kind::Send | Kind::Rts) || h.flags.contains(Flags::DATA);
        if meets {
            self.grants.take(h.context, credit(h));
            if let Some(place) = self.targets.at(at) {
                place.credit = credit(h);
            }
        }
        if last || matches!(how, Executed::Failed(_)) {
            self.conclude(at, h, how, meets);
        }
    }

    /// All of an operation of the peer is there, or it has failed.
    fn conclude(&mut self, at: u32, h: &Header, how: Executed, meets: bool) {
        let Some(place) = self.targets.at(at) else {
            return;
        };
        let answered = place.fetches
            || place.flags.contains(Flags::COMMIT)
            || matches!(h.kind, Kind::Commit | Kind::Read | Kind::Rts);
        let about = Some(h.seq);
        match how {
            Executed::Waits => {
                // All of a message that was asked for is there: it is not asked for again.
                place.stage = match h.kind {
                    Kind::Data => Stage::Placed,
                    _ => Stage::Waiting,
                };
                if !answered {
                    self.targets.say(at, Reply::Parked, about);
                }
            }
            Executed::Done(level) if answered => {
                let verdict = Ok(level);
                self.resolve(at, verdict, about);
            }
            Executed::Done(_) => {
                let credit = place.credit;
                if meets {
                    self.grants.give_back(h.context, credit);
                }
                self.targets.vacate(at);
            }
            Executed::Failed(failure) => self.resolve(at, Err(failure), about),
        }
    }
}

/// What a frame takes of its context's credit.
fn credit(h: &Header) -> Amount {
    match h.kind {
        Kind::Send => Amount::new(1, h.len.into()),
        _ => Amount::new(1, 0),
    }
}

/// A frame of no use.
fn discard(h: &Header) -> Action {
    if h.len == 0 {
        Action::Nothing
    } else {
        Action::Discard
    }
}
