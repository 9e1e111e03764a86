// SPDX-License-Identifier: GPL-2.0

//! The frame that goes next.
//!
//! First what is to be sent again, then replies, which must be sequenced before anything else that
//! is new; then what keeps the peer going; then pieces of reads, pieces of what was begun, and what
//! is begun, in turns.

use super::super::flow::Amount;
use super::super::order::Effect;
use super::super::wire::hello::MAX;
use super::super::wire::{code_of, crc, operands, verdict};
use super::super::wire::{Errno, Failure, Flags, Header, Kind, Level, Outcome};
use super::command::{Op, What};
use super::incoming::{Reply, Token};
use super::outgoing::{Cancel, State};
use super::{Peer, Storage};

/// Among how many, the oldest, one is sought that may begin. Those that wait for nothing but credit
/// are not among them.
const WINDOW: usize = 32;

/// What a frame is made of again.
#[derive(Clone, Copy, Debug)]
pub enum Frame {
    /// Of an operation of this side.
    Request {
        /// Its place.
        at: u16,
        /// What it says.
        kind: Kind,
        /// Where its payload begins in the operation's buffer.
        offset: u64,
        /// Bytes of payload.
        len: u32,
        /// First and last.
        flags: Flags,
    },
    /// A reply without payload.
    Reply {
        /// The place of the peer's operation.
        at: u16,
        /// Its number.
        op: u32,
        /// PARKED, CTS or DONE.
        kind: Kind,
        /// The errno.
        code: u16,
        /// Level and outcome.
        data: u64,
        /// Bytes.
        total: u64,
    },
    /// A piece of a read.
    Piece {
        /// The place of the peer's operation.
        at: u16,
        /// Its number.
        op: u32,
        /// The first byte.
        offset: u64,
        /// Bytes of payload.
        len: u32,
        /// Bytes of the whole.
        total: u64,
    },
    /// What an atomic fetched.
    Fetched {
        /// The place of the peer's operation.
        at: u16,
        /// Its number.
        op: u32,
        /// Bytes of payload.
        len: u32,
        /// Whether the words are durable.
        commit: bool,
    },
}

/// Where a payload comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// There is none.
    None,
    /// From the buffer of an operation of this side. Of an atomic: its operands.
    Local {
        /// Which.
        op: Op,
        /// The first byte.
        offset: u64,
    },
    /// From what an operation of the peer reads.
    Source {
        /// Which.
        token: Token,
        /// The first byte, counted from where the read begins.
        offset: u64,
    },
    /// What an atomic of the peer fetched.
    Fetched {
        /// Which.
        token: Token,
    },
}

/// A frame.
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    /// Its header.
    pub header: Header,
    /// Where `header.len` bytes of payload come from.
    pub payload: Payload,
    /// Whether it has checksums; `payload_crc` is to be filled in then.
    pub crc: bool,
}

impl<S: Storage> Peer<S> {
    /// The hello that begins a link, before any other frame: the header, with its checksum, and how
    /// many bytes of `out` are the payload.
    pub fn poll_hello(&mut self, out: &mut [u8; MAX]) -> Option<(Header, usize)> {
        let hello = self.session.take_hello()?;
        let len = hello.emit(out);
        let mut header = Header::new(Kind::Hello);
        header.len = len as u32;
        header.payload_crc = crc::of(&[out.get(..len)?]);
        Some((header, len))
    }

    /// The next frame for the link in use, which must be sent before the next is asked for, or the
    /// link be lost.
    pub fn poll_transmit(&mut self, now: u64) -> Option<Transmit> {
        self.settle_rest(now);
        if let Some(reason) = self.session.take_bye(now) {
            let mut header = Header::new(Kind::Bye);
            let farewell = core::mem::take(&mut self.farewell);
            header.code = reason as u16;
            (header.seq, header.ack) = (farewell.seq, farewell.ack);
            header.data = farewell.begun.into();
            return Some(Transmit {
                crc: farewell.crc,
                ..bare(header)
            });
        }
        if !self.session.is_open() || self.session.owes_hello() {
            return None;
        }
        let mut transmit = self.next(now)?;
        transmit.crc = self.session.has_crc();
        let header = &mut transmit.header;
        if header.kind.is_sequenced() && !header.kind.is_reply() && self.falls_quiet() {
            header.flags |= Flags::ACK_NOW;
        }
        Some(transmit)
    }

    /// Whether nothing more is sent before the peer acknowledges.
    fn falls_quiet(&mut self) -> bool {
        let more = self.ops.has_active()
            || self.ops.has_queued()
            || self.credits.has_ready()
            || self.targets.has_streams();
        !self.ring.has_again() && (!more || !self.ring.has_room())
    }

    fn next(&mut self, now: u64) -> Option<Transmit> {
        if let Some((seq, ack, frame)) = self.ring.again() {
            // With the acknowledgement that it had: replies may have been sequenced after it, about
            // what was executed since.
            return Some(self.make(seq, ack, frame));
        }
        if let Some(transmit) = self.reply_frame(now) {
            return Some(transmit);
        }
        if let Some((context, granted)) = self.grants.tell() {
            let mut header = self.unsequenced(now, Kind::Grant);
            header.context = context;
            (header.total, header.data) = (granted.bytes, granted.messages.into());
            return Some(bare(header));
        }
        if self.take_rest() {
            return Some(bare(self.unsequenced(now, Kind::Idle)));
        }
        if self.session.take_pong() {
            return Some(bare(self.unsequenced(now, Kind::Pong)));
        }
        if self.session.take_ping() {
            return Some(bare(self.unsequenced(now, Kind::Ping)));
        }
        for _ in 0..3 {
            if !self.ring.has_room() {
                break;
            }
            self.turn = (self.turn + 1) % 3;
            let transmit = match self.turn {
                0 => self.stream_frame(now),
                1 => self.active_frame(now),
                _ => self.first_frame(now),
            };
            if transmit.is_some() {
                return transmit;
            }
        }
        if let Some(transmit) = self.reply_frame(now) {
            return Some(transmit);
        }
        if self.session.acks().are_due(now) {
            return Some(bare(self.unsequenced(now, Kind::Ack)));
        }
        None
    }

    fn unsequenced(&mut self, now: u64, kind: Kind) -> Header {
        self.session.acks().say(now);
        let mut header = Header::new(kind);
        (header.seq, header.ack) = (self.ring.last(), self.session.executed());
        header
    }

    /// Gives a new frame its number; a reply with what it may acknowledge, if not everything.
    fn sequence(&mut self, now: u64, frame: Frame, reply: Option<Option<u32>>) -> Option<Transmit> {
        if self.ring.is_empty() {
            self.waits = now;
        }
        self.stir();
        let limit = reply.flatten();
        let ack = limit.unwrap_or(self.session.executed());
        let seq = self.ring.push(frame, ack, reply.is_some())?;
        if limit.is_none() {
            self.session.acks().ride(now);
        }
        Some(self.make(seq, ack, frame))
    }

    fn reply_frame(&mut self, now: u64) -> Option<Transmit> {
        let (at, reply, ack) = self.targets.next_reply()?;
        let place = self.targets.at(at)?;
        let (op, total) = (place.op, place.total);
        let commit = place.flags.contains(Flags::COMMIT);
        let at = at as u16;
        let plain = |kind| Frame::Reply {
            at,
            op,
            kind,
            code: 0,
            data: 0,
            total: 0,
        };
        let frame = match reply {
            Reply::Parked => plain(Kind::Parked),
            Reply::Cts => plain(Kind::Cts),
            Reply::Done(verdict) => {
                let (code, data) = verdict::emit(verdict);
                Frame::Reply {
                    at,
                    op,
                    kind: Kind::Done,
                    code,
                    data,
                    total: if verdict.is_ok() { total } else { 0 },
                }
            }
            Reply::Fetched => Frame::Fetched {
                at,
                op,
                // It fitted a frame when the operands came.
                len: total as u32,
                commit,
            },
        };
        self.sequence(now, frame, Some(ack))
    }

    /// A piece of a read.
    fn stream_frame(&mut self, now: u64) -> Option<Transmit> {
        let limit = self.session.limits()?.frame;
        let (at, offset, len, _) = self.targets.next_piece(limit)?;
        let place = self.targets.at(at)?;
        let frame = Frame::Piece {
            at: at as u16,
            op: place.op,
            offset,
            len,
            total: place.total,
        };
        self.sequence(now, frame, None)
    }

    /// A piece of what was begun, or what withdraws it.
    fn active_frame(&mut self, now: u64) -> Option<Transmit> {
        let at = self.ops.next_active()?;
        let op = self.ops.at(at)?;
        if op.cancel == Cancel::Wanted && op.state != State::Active {
            op.cancel = Cancel::Sent;
            let frame = Frame::Request {
                at: at as u16,
                kind: Kind::Cancel,
                offset: 0,
                len: 0,
                flags: Flags::NONE,
            };
            self.ops.sent(at);
            return self.sequence(now, frame, None);
        }
        if op.state != State::Active {
            return None;
        }
        self.request_frame(now, at)
    }

    /// The first frame of the oldest that may begin.
    fn first_frame(&mut self, now: u64) -> Option<Transmit> {
        let limits = self.session.limits()?;
        while let Some((context, at)) = self.credits.pop_ready() {
            let amount = need(&self.ops.at(at)?.command, limits.eager);
            if self.credits.resume(context, amount) {
                self.ops.unpark(at, &mut self.credits);
                self.ops.begin(at);
                return self.request_frame(now, at);
            }
        }
        self.credits.search();
        // Effects of those that wait before it.
        let mut ahead = [false; 3];
        let mut next = self.ops.queued(None);
        let mut seen = 0;
        while seen < WINDOW {
            let at = next?;
            seen += 1;
            next = self.ops.queued(Some(at));
            let command = self.ops.at(at)?.command;
            let effect = command.effect();
            let unpassed = self.ops.unpassed();
            let order = self.order;
            let holds = |effect, earlier: Effect| {
                order.holds(effect, earlier)
                    && (ahead[earlier as usize] || unpassed[earlier as usize] > 0)
            };
            let waits = effect.is_some_and(|effect| {
                holds(effect, Effect::Read)
                    || holds(effect, Effect::Write)
                    || holds(effect, Effect::Send)
            });
            let fits = match command.what {
                What::Send { .. } => command.len <= limits.message,
                What::Atomic { action, .. } => {
                    let sent = command.len.saturating_mul(operands(action));
                    sent <= limits.frame.into() && command.len <= self.own_limits().frame.into()
                }
                _ => true,
            };
            let meets = command.meets_a_receive();
            let context = command.context;
            let named = meets || command.is_tagged_access();
            let known = !named || (self.credits.knows(context) && context < limits.contexts);
            let possible = fits && known;
            if !waits && !possible {
                let errno = if known {
                    Errno::EMSGSIZE
                } else {
                    Errno::EINVAL
                };
                let failure = Failure::new(errno, Outcome::NotExecuted);
                self.ops.end(at, Err(failure));
                continue;
            }
            let goes = if waits {
                false
            } else if meets {
                let amount = need(&command, limits.eager);
                self.credits.take(context, amount)
            } else {
                true
            };
            if goes {
                self.ops.begin(at);
                return self.request_frame(now, at);
            }
            let Some(effect) = effect else { continue };
            // If it holds up nothing but its context, it needs not be looked at until that has
            // credit. Each is put aside once, so that the search is short.
            let holds_up = [Effect::Read, Effect::Write, Effect::Send]
                .iter()
                .any(|&later| order.holds(later, effect));
            if !waits && !holds_up && self.ops.park(at, &mut self.credits) {
                seen -= 1;
                continue;
            }
            ahead[effect as usize] = true;
            if meets {
                self.credits.hold(context);
            }
        }
        None
    }

    /// The next frame of an operation that has one.
    fn request_frame(&mut self, now: u64, at: u32) -> Option<Transmit> {
        let limits = self.session.limits()?;
        let op = self.ops.at(at)?;
        let command = op.command;
        let left = command.len.saturating_sub(op.sent);
        let offset = op.sent;
        let piece = left.min(limits.frame.into()) as u32;
        let last = u64::from(piece) == left;
        let (kind, len, flags, passes) = match command.what {
            What::Send { .. } if op.asked => (Kind::Data, piece, Flags::LAST.when(last), false),
            What::Send { .. } if command.len <= limits.eager.into() => {
                (Kind::Send, piece, Flags::NONE, true)
            }
            What::Send { .. } => (Kind::Rts, 0, Flags::NONE, true),
            What::Write { .. } => {
                let flags = Flags::FIRST.when(offset == 0) | Flags::LAST.when(last);
                (Kind::Write, piece, flags, last)
            }
            What::Commit { .. } => (Kind::Commit, 0, Flags::NONE, true),
            What::Read { .. } => (Kind::Read, 0, Flags::NONE, false),
            What::Atomic { action, .. } => {
                let len = command.len.saturating_mul(operands(action));
                (Kind::Atomic, len as u32, Flags::NONE, true)
            }
            What::Announce { .. } => (Kind::Announce, piece, Flags::NONE, true),
            What::Withdraw { .. } => (Kind::Withdraw, 0, Flags::NONE, true),
        };
        let more = matches!(kind, Kind::Data | Kind::Write) && !last;
        if matches!(kind, Kind::Data | Kind::Write) {
            op.sent += u64::from(len);
        }
        op.state = if more {
            State::Active
        } else if kind == Kind::Rts || command.is_answered() {
            State::Replying
        } else {
            State::Acking
        };
        if more {
            self.ops.activate(at);
        }
        if passes {
            self.ops.pass(at);
        }
        self.ops.sent(at);
        let frame = Frame::Request {
            at: at as u16,
            kind,
            offset,
            len,
            flags,
        };
        self.sequence(now, frame, None)
    }

    /// Makes a frame, or makes it again.
    fn make(&mut self, seq: u32, ack: u32, frame: Frame) -> Transmit {
        let mut header = Header::new(Kind::Nop);
        (header.seq, header.ack) = (seq, ack);
        let h = &mut header;
        let payload = match frame {
            Frame::Request {
                at,
                kind,
                offset,
                len,
                flags,
            } => {
                (h.kind, h.len, h.flags) = (kind, len, flags);
                h.op = self.ops.wire_number(at.into());
                if let (Some(op), true) = (self.ops.at(at.into()), kind != Kind::Cancel) {
                    describe(h, &op.command, offset);
                }
                Payload::Local {
                    op: Op(h.op),
                    offset,
                }
            }
            Frame::Reply {
                op,
                kind,
                code,
                data,
                total,
                ..
            } => {
                (h.kind, h.op, h.code) = (kind, op, code);
                (h.data, h.total) = (data, total);
                Payload::None
            }
            Frame::Piece {
                at,
                op,
                offset,
                len,
                total,
            } => {
                let last = offset + u64::from(len) == total;
                let place = self.targets.at(at.into());
                let failure = place.filter(|p| p.op == op).and_then(|p| p.failure);
                match failure {
                    None => {
                        (h.kind, h.op, h.len) = (Kind::ReadData, op, len);
                        (h.offset, h.total) = (offset, total);
                        h.flags = Flags::LAST.when(last);
                        let token = self.targets.token(op);
                        Payload::Source { token, offset }
                    }
                    // The source is gone. The peer did not execute this frame, so it may be
                    // another one now: the end, in place of the last.
                    Some(failure) if last => {
                        (h.kind, h.op) = (Kind::Done, op);
                        (h.code, h.data) = verdict::emit(Err(failure));
                        Payload::None
                    }
                    Some(_) => Payload::None,
                }
            }
            Frame::Fetched {
                op, len, commit, ..
            } => {
                (h.kind, h.op, h.len) = (Kind::AtomicData, op, len);
                h.total = len.into();
                h.flags = Flags::COMMIT.when(commit);
                let token = self.targets.token(op);
                Payload::Fetched { token }
            }
        };
        let payload = if header.len == 0 {
            Payload::None
        } else {
            payload
        };
        Transmit {
            header,
            payload,
            crc: false,
        }
    }
}

/// What a message, or remote CQ data, takes of its context's credit.
fn need(command: &super::Command, eager: u32) -> Amount {
    let bytes = match command.what {
        What::Send { .. } if command.len <= eager.into() => command.len,
        _ => 0,
    };
    Amount::new(1, bytes)
}

/// Fills in what a frame says of its operation.
fn describe(h: &mut Header, command: &super::Command, sent: u64) {
    let (key, tagged) = command.target();
    let data = match (h.kind, command.data) {
        (Kind::Data, _) | (_, None) => None,
        (Kind::Write, data) if h.flags.contains(Flags::LAST) => data,
        (Kind::Write, _) => None,
        (_, data) => data,
    };
    if h.kind != Kind::Data {
        h.key = key;
        h.flags |= tagged;
    }
    if let Some(data) = data {
        h.data = data;
        h.flags |= Flags::DATA;
    }
    let is_message = matches!(h.kind, Kind::Send | Kind::Rts);
    if is_message || data.is_some() || command.is_tagged_access() {
        h.context = command.context;
    }
    h.total = command.len;
    match command.what {
        What::Send { .. } if h.kind == Kind::Data => h.offset = sent,
        What::Write { offset, commit, .. } => {
            h.offset = offset + sent;
            h.flags |= Flags::COMMIT.when(commit);
        }
        What::Commit { offset, .. } | What::Read { offset, .. } => h.offset = offset,
        What::Atomic {
            offset,
            action,
            datatype,
            commit,
            ..
        } => {
            h.offset = offset;
            h.code = code_of(action, datatype);
            h.flags |= Flags::COMMIT.when(commit);
        }
        What::Announce { .. } | What::Withdraw { .. } => h.total = 0,
        What::Send { .. } => (),
    }
}

/// A frame without payload.
fn bare(header: Header) -> Transmit {
    Transmit {
        header,
        payload: Payload::None,
        crc: false,
    }
}

/// The level that a piece of data says.
pub(super) const fn level(flags: Flags) -> Level {
    if flags.contains(Flags::COMMIT) {
        Level::Committed
    } else {
        Level::Delivered
    }
}
