// SPDX-License-Identifier: GPL-2.0

//! What a frame of the peer asks for, and how it is done.

use super::super::{atomic, verdict};
use super::guest::{deliver, finish, let_go, Held, State, Wish};
use super::landing::{Landing, Payload};
use super::talk::{Talk, LETTERS, MESSAGES};
use super::Peer;
use crate::cm::Message;
use crate::memory::Exposed;
use crate::mr::{Region, RemoteSlice};
use crate::op::{AtomicAction, Failure, Kind, Level, OpId, Operation, Status};
use crate::proto::key::Key;
use crate::proto::peer::command::Target;
use crate::proto::peer::incoming::Token;
use crate::proto::peer::{Action, Executed};
use crate::proto::range::Range;
use crate::proto::wire;
use kernel::prelude::*;
use kernel::sync::{rcu, Arc};

impl Talk {
    /// Does what a frame asks for.
    pub(super) fn execute(
        &mut self,
        peer: &Arc<Peer>,
        action: &Action,
        landing: Landing,
        bytes: &[u8],
    ) -> Executed {
        let (payload, proxy) = landing.into_payload(bytes);
        let bytes = payload.bytes();
        match *action {
            Action::Nothing | Action::Events | Action::Discard => done(),
            Action::Message { context, .. } if context == LETTERS => read_letter(peer, bytes),
            Action::Offer { context, .. } if context == LETTERS => {
                failed(&Failure::not_executed(EMSGSIZE))
            }
            Action::Message {
                token,
                tag,
                data,
                len,
                context,
            } => {
                let wish = message(tag, data, len.into(), context);
                self.message(peer, token, wish, Some(bytes))
            }
            Action::Offer {
                token,
                tag,
                data,
                len,
                context,
            } => self.message(peer, token, message(tag, data, len, context), None),
            Action::Piece {
                token,
                offset,
                last,
                ..
            } => self.piece(peer, token, offset, last, &payload),
            Action::Write {
                token,
                target: Target::Tag(tag),
                context,
                piece,
                whole,
                first,
                last,
                commit,
                data,
            } => {
                if let (true, Some(whole)) = (first, whole) {
                    let wish = tagged(Kind::Write, commit, tag, context, whole);
                    match self.claim(peer, token, wish) {
                        Ok((proxy, receive)) => {
                            self.put_guest(token, State::Receiving { proxy, receive });
                        }
                        Err(failure) => return failed(&failure),
                    }
                }
                if let (true, Some((context, data))) = (last, data) {
                    self.note_data(token, consumers(context), data);
                }
                self.piece(peer, token, piece.offset, last, &payload)
            }
            Action::Write {
                token,
                target,
                context: _,
                piece,
                whole,
                first,
                last,
                commit,
                data,
            } => {
                if let Some(proxy) = proxy {
                    self.put_guest(token, State::Write(proxy));
                } else if let (true, Some(whole), Payload::Here(_)) = (first, whole, &payload) {
                    let wish = access(Kind::Write, commit, None, target, whole);
                    match wish.and_then(|wish| self.stand_in(token, wish)) {
                        Ok(proxy) => self.put_guest(token, State::Write(proxy)),
                        Err(failure) => return failed(&self.at_the_first(failure)),
                    }
                }
                self.write(peer, token, piece, last.then_some(data), &payload)
            }
            Action::Commit {
                token,
                key,
                range,
                data,
            } => {
                let wish = access(Kind::Commit, true, data, Target::Key(key), range);
                self.carried_out(peer, token, wish, |_| Ok(()))
            }
            Action::Read {
                token,
                target: Target::Tag(tag),
                context,
                range,
            } => self.lend(peer, token, tagged(Kind::Read, false, tag, context, range)),
            Action::Read {
                token,
                target,
                range,
                ..
            } => self.read(peer, token, access(Kind::Read, false, None, target, range)),
            Action::Atomic {
                token,
                key,
                range,
                action,
                datatype,
                commit,
                ..
            } => {
                let mut wish = access(Kind::Atomic, commit, None, Target::Key(key), range);
                let atomic = AtomicAction { action, datatype };
                if let Ok(wish) = &mut wish {
                    wish.atomic = Some(atomic);
                }
                self.atomic(peer, token, wish, atomic, bytes)
            }
            Action::Withdrawn { token } => self.withdraw(peer, token),
            Action::Announce { .. } | Action::Withdraw { .. } => {
                failed(&Failure::not_executed(EOPNOTSUPP))
            }
            Action::ReadData { op, offset, .. } => match self.posted(op) {
                Some(op) => stored(payload.store(|bytes| op.write_local(offset as usize, bytes))),
                None => done(),
            },
            Action::AtomicData { op, .. } => match self.posted(op) {
                Some(op) => {
                    let vectors = op.atomic().map_or(1, |atomic| atomic.action.vectors());
                    stored(op.write_local((vectors - 1) * op.len(), bytes))
                }
                None => done(),
            },
        }
    }

    /// A message has come, with its bytes or without.
    fn message(
        &mut self,
        peer: &Arc<Peer>,
        token: Token,
        wish: Wish,
        bytes: Option<&[u8]>,
    ) -> Executed {
        let proxy = match self.proxies.take(token, wish) {
            Ok(proxy) => proxy,
            Err(error) => return failed(&Failure::not_executed(error)),
        };
        let id = proxy.id();
        let Some(pair) = peer.engine.port().offer(proxy) else {
            return self.waits(token, id, bytes);
        };
        if !pair.brings_bytes() {
            pair.execute();
            return self.ended_at_once(token).unwrap_or(Executed::Waits);
        }
        let (proxy, receive) = pair.into_parts();
        match bytes {
            Some(bytes) => {
                let status = deliver(&proxy, receive, bytes);
                let_go(proxy);
                executed(&status)
            }
            None => {
                self.put_guest(token, State::Receiving { proxy, receive });
                done()
            }
        }
    }

    /// What was offered waits for a receive, or was refused. If a receive has met it meanwhile, this
    /// worker learns of it later, and finds the bytes then.
    fn waits(&mut self, token: Token, proxy: OpId, bytes: Option<&[u8]>) -> Executed {
        if let Some(executed) = self.ended_at_once(token) {
            return executed;
        }
        let held = match bytes.map(copy_of) {
            None => Held::Afar,
            // The window bounds it.
            Some(Ok(bytes)) => Held::Here(bytes),
            Some(Err(error)) => Held::Lost(error),
        };
        self.put_guest(token, State::Waiting { proxy, held });
        Executed::Waits
    }

    /// Whether the port has ended a proxy that it was just offered, and how.
    fn ended_at_once(&mut self, token: Token) -> Option<Executed> {
        let mut found = None;
        while let Some((ended, status)) = self.proxies.ended() {
            if ended == token {
                found = Some(executed(&status));
            } else {
                drop(self.take_guest(ended));
                self.machine.reply(ended, verdict::told(&status));
            }
        }
        found
    }

    /// A piece of a message has come that was asked for.
    fn piece(
        &mut self,
        peer: &Peer,
        token: Token,
        offset: u64,
        last: bool,
        payload: &Payload<'_>,
    ) -> Executed {
        let Some(State::Receiving { receive, .. }) = self.guest(token) else {
            return failed(&Failure::unknown(ECANCELED));
        };
        let placed = payload.store(|bytes| receive.write_local(offset as usize, bytes));
        if placed.is_ok() && !last {
            return done();
        }
        match self.take_guest(token).map(|guest| guest.state) {
            Some(State::Receiving { proxy, receive }) if proxy.is_tagged_rma() => {
                executed(&self.end_tagged(peer, proxy, receive, placed))
            }
            Some(State::Receiving { proxy, receive }) => {
                let status = finish(&proxy, receive, |_| placed);
                let_go(proxy);
                executed(&status)
            }
            _ => failed(&Failure::unknown(ECANCELED)),
        }
    }

    /// Takes the receive that a tagged write or read goes into or out of, and a proxy of that.
    fn claim(
        &self,
        peer: &Peer,
        token: Token,
        wish: Result<Wish, Failure>,
    ) -> Result<(Operation, Operation), Failure> {
        let proxy = self.stand_in(token, wish?)?;
        match peer.engine.port().claim(&proxy) {
            Ok(receive) => Ok((proxy, receive)),
            Err(failure) => {
                let_go(proxy);
                Err(failure)
            }
        }
    }

    /// Notes the remote CQ data of a tagged write, for its receive.
    fn note_data(&mut self, token: Token, context: u16, data: u64) {
        if let Some(mut guest) = self.take_guest(token) {
            if let State::Receiving { proxy, .. } = &mut guest.state {
                proxy.op().set_data(context, data);
            }
            self.put_guest(token, guest.state);
        }
    }

    /// A tagged read may begin.
    fn lend(&mut self, peer: &Peer, token: Token, wish: Result<Wish, Failure>) -> Executed {
        let (proxy, receive) = match self.claim(peer, token, wish) {
            Ok(claimed) => claimed,
            Err(failure) => return failed(&failure),
        };
        // As of a region's: see `read`.
        let (mut first, some) = ([0; 1], proxy.len().min(1));
        if let Err(error) = receive.read_local(0, &mut first[..some]) {
            return executed(&self.end_tagged(peer, proxy, receive, Err(error)));
        }
        self.put_guest(token, State::Lending { proxy, receive });
        done()
    }

    /// A proxy for an operation of the peer.
    pub(super) fn stand_in(&self, token: Token, wish: Wish) -> Result<Operation, Failure> {
        let proxy = self.proxies.take(token, wish);
        proxy.map_err(Failure::not_executed)
    }

    /// Carries out an access that has no pieces: `act` does to the region what it does.
    fn carried_out(
        &mut self,
        peer: &Arc<Peer>,
        token: Token,
        wish: Result<Wish, Failure>,
        act: impl FnOnce(&Exposed) -> Result,
    ) -> Executed {
        let proxy = match wish.and_then(|wish| self.stand_in(token, wish)) {
            Ok(proxy) => proxy,
            Err(failure) => return failed(&failure),
        };
        match peer.engine.port().admit_piece(&proxy) {
            Ok(region) => {
                let acted = act(region.memory());
                self.end(peer, token, proxy, &region, acted)
            }
            Err(failure) => {
                let_go(proxy);
                failed(&failure)
            }
        }
    }

    /// A piece of a write has come; `last`: with the last one, the remote CQ data, if there are some.
    fn write(
        &mut self,
        peer: &Arc<Peer>,
        token: Token,
        piece: Range,
        last: Option<Option<(u16, u64)>>,
        payload: &Payload<'_>,
    ) -> Executed {
        let proxy = match (self.take_guest(token).map(|guest| guest.state), payload) {
            (Some(State::Write(proxy)), Payload::Refused(failure)) => {
                let_go(proxy);
                return failed(failure);
            }
            (_, Payload::Refused(failure)) => return failed(failure),
            (Some(State::Write(proxy)), _) => proxy,
            _ => return failed(&Failure::unknown(ECANCELED)),
        };
        let mut proxy = proxy;
        let region = match peer.engine.port().admit_piece(&proxy) {
            Ok(region) => region,
            Err(failure) => {
                let first = proxy.remote().map(|remote| remote.offset()) == Some(piece.offset);
                let_go(proxy);
                // A region that is closed meanwhile has some of the bytes.
                return failed(&match first && matches!(payload, Payload::Here(_)) {
                    true => self.at_the_first(failure),
                    false => Failure::unknown(failure.error),
                });
            }
        };
        let placed = payload.store(|bytes| region.memory().write_at(piece.offset as usize, bytes));
        match last {
            None if placed.is_ok() => {
                self.put_guest(token, State::Write(proxy));
                return done();
            }
            Some(Some((context, data))) => proxy.op().set_data(consumers(context), data),
            _ => {}
        }
        self.end(peer, token, proxy, &region, placed)
    }

    /// Ends an access whose bytes are placed, or could not be.
    fn end(
        &mut self,
        peer: &Arc<Peer>,
        token: Token,
        proxy: Operation,
        region: &Region,
        placed: Result,
    ) -> Executed {
        let status = peer.engine.port().end_access(&proxy, region, placed);
        if status.is_err() || !proxy.notifies() {
            let_go(proxy);
            return executed(&status);
        }
        self.notify(peer, token, proxy, &status)
    }

    /// Tells a receive of a write.
    fn notify(
        &mut self,
        peer: &Arc<Peer>,
        token: Token,
        proxy: Operation,
        status: &Status,
    ) -> Executed {
        let id = proxy.id();
        match peer.engine.port().offer(proxy) {
            Some(pair) => {
                pair.execute();
                self.ended_at_once(token)
                    .unwrap_or_else(|| executed(status))
            }
            None => match self.ended_at_once(token) {
                Some(executed) => executed,
                None => {
                    let held = Held::Afar;
                    self.put_guest(token, State::Waiting { proxy: id, held });
                    Executed::Waits
                }
            },
        }
    }

    /// A read may begin.
    fn read(&mut self, peer: &Arc<Peer>, token: Token, wish: Result<Wish, Failure>) -> Executed {
        let proxy = match wish.and_then(|wish| self.stand_in(token, wish)) {
            Ok(proxy) => proxy,
            Err(failure) => return failed(&failure),
        };
        let port = peer.engine.port();
        let status = port.admit_piece(&proxy).and_then(|region| {
            // A device that has gone is found now, and not when the bytes are sent.
            let (mut first, some) = ([0; 1], proxy.len().min(1));
            let at = proxy.remote().map_or(0, |remote| remote.offset());
            let probed = region.memory().read_at(at as usize, &mut first[..some]);
            port.end_access(&proxy, &region, probed)
        });
        match status {
            Ok(_) => self.put_guest(token, State::Source(proxy)),
            Err(_) => let_go(proxy),
        }
        executed(&status)
    }

    /// Changes words.
    fn atomic(
        &mut self,
        peer: &Arc<Peer>,
        token: Token,
        wish: Result<Wish, Failure>,
        atomic: AtomicAction,
        bytes: &[u8],
    ) -> Executed {
        let range = match &wish {
            Ok(Wish {
                remote: Some(remote),
                ..
            }) => (remote.offset() as usize, remote.len() as usize),
            _ => (0, 0),
        };
        let mut fetched = KVVec::new();
        // What it was has to stay until the peer has it, beyond the frame that asked for it.
        if atomic.action.fetches() && fetched.resize(range.1, 0, GFP_KERNEL).is_err() {
            return failed(&Failure::not_executed(ENOMEM));
        }
        let how = self.carried_out(peer, token, wish, |target| {
            atomic::execute_for_peer(target, range, atomic, bytes, &mut fetched)
        });
        if let (true, Executed::Done(_)) = (atomic.action.fetches(), how) {
            self.put_guest(token, State::Fetched(fetched));
        }
        how
    }

    /// The peer cancels what waits for a receive.
    fn withdraw(&mut self, peer: &Arc<Peer>, token: Token) -> Executed {
        let Some(State::Waiting { proxy, .. }) = self.guest(token) else {
            return done();
        };
        let proxy = *proxy;
        match peer.engine.port().recall(|op| op.id() == proxy) {
            Some(op) => {
                let level = op.level();
                let failure = match op.kind() {
                    Kind::Send => Failure::not_executed(ECANCELED),
                    _ => Failure::after(level, ECANCELED),
                };
                let_go(op);
                drop(self.take_guest(token));
                failed(&failure)
            }
            // A receive has met it.
            None => done(),
        }
    }
}

/// A connection message has come.
fn read_letter(peer: &Arc<Peer>, bytes: &[u8]) -> Executed {
    let heard = Message::parse(bytes, peer.name, peer.number).and_then(|message| {
        let section = rcu::read_lock();
        let heard = peer.engine.port().hear(&message);
        drop(section);
        heard
    });
    match heard {
        Ok(()) => done(),
        Err(error) => failed(&Failure::not_executed(error)),
    }
}

/// Which of the consumer's contexts a context of the wire is; that of connection messages is none, and so beyond
/// all of them.
fn consumers(context: u16) -> u16 {
    context.wrapping_sub(MESSAGES)
}

/// The proxy of a message.
fn message(tag: Option<u64>, data: Option<u64>, len: u64, context: u16) -> Wish {
    Wish {
        kind: Kind::Send,
        level: Level::Delivered,
        data,
        remote: None,
        atomic: None,
        tag,
        context: consumers(context),
        len: len as usize,
    }
}

/// The proxy of a tagged write or read: from the first byte of its receive on.
fn tagged(kind: Kind, commit: bool, tag: u64, context: u16, range: Range) -> Result<Wish, Failure> {
    let len = usize::try_from(range.len).map_err(|_| Failure::not_executed(ERANGE))?;
    match (commit, range.offset) {
        (true, _) => Err(Failure::not_executed(EOPNOTSUPP)),
        (_, 1..) => Err(Failure::not_executed(EINVAL)),
        _ => Ok(Wish {
            kind,
            ..message(Some(tag), None, len as u64, context)
        }),
    }
}

/// The proxy of an access to a region.
pub(super) fn access(
    kind: Kind,
    commit: bool,
    data: Option<(u16, u64)>,
    target: Target,
    range: Range,
) -> Result<Wish, Failure> {
    let Target::Key(key) = target else {
        return Err(Failure::not_executed(EOPNOTSUPP));
    };
    let len = usize::try_from(range.len).map_err(|_| Failure::not_executed(ERANGE))?;
    Ok(Wish {
        kind,
        level: if commit {
            Level::Committed
        } else {
            Level::Delivered
        },
        data: data.map(|(_, data)| data),
        context: data.map_or(0, |(context, _)| consumers(context)),
        remote: Some(RemoteSlice::asked(Key::from_raw(key), range)),
        atomic: None,
        tag: None,
        len,
    })
}

/// A vector with the same bytes. `ENOMEM`.
fn copy_of(bytes: &[u8]) -> Result<KVVec<u8>> {
    let mut copy = KVVec::with_capacity(bytes.len(), GFP_KERNEL)?;
    copy.extend_from_slice(bytes, GFP_KERNEL)?;
    Ok(copy)
}

/// Well.
fn done() -> Executed {
    Executed::Done(wire::Level::Delivered)
}

fn failed(failure: &Failure) -> Executed {
    Executed::Failed(verdict::failure_told(failure))
}

/// As an operation ended.
fn executed(status: &Status) -> Executed {
    match verdict::told(status) {
        Ok(level) => Executed::Done(level),
        Err(failure) => Executed::Failed(failure),
    }
}

/// As what came for an operation of this side was stored.
fn stored(stored: Result) -> Executed {
    match stored {
        Ok(()) => done(),
        Err(error) => failed(&Failure::unknown(error)),
    }
}
