// SPDX-License-Identifier: GPL-2.0

//! What is posted to a peer: it waits for the machine to have room, and ends.

use super::super::verdict;
use super::share::Places;
use super::talk::{Talk, LETTERS, MESSAGES, OPS};
use super::Peer;
use crate::cm::Message;
use crate::info::MAX_CONTEXTS;
use crate::op::{Failure, Kind, Level, Op, Operation};
use crate::proto::peer::command::{self, Command, Target, What as Does};
use crate::proto::peer::{Cancelled, Refused};
use crate::proto::wire::hello::MIN_OPS;
use crate::proto::wire::verdict::Verdict;
use crate::proto::wire::Errno;
use kernel::prelude::*;
use kernel::sync::{rcu, Arc};

/// What was posted, and the machine knows of.
pub(super) struct Posted {
    pub(super) number: command::Op,
    pub(super) what: What,
}

/// What was posted.
pub(super) enum What {
    Operation(Operation),
    Letter(KBox<Message>),
}

impl Talk {
    /// Hands operations to the machine, as long as it takes them.
    pub(super) fn submit(&mut self, peer: &Arc<Peer>, now: u64) {
        if self.machine.link().is_none() || self.has_queued() {
            self.begin_anew(peer, now);
        }
        while self.machine.has_room() {
            let Some(op) = self.next_post() else { break };
            if let Err(error) = probe(&op) {
                let status = Err(Failure::not_executed(error));
                peer.engine.outstanding().end(op, status);
                continue;
            }
            match self.machine.submit(now, command(&op)) {
                Ok(number) => {
                    if meets_a_receive(&op) {
                        self.messages.placed(&op);
                    }
                    self.put_posted(number, What::Operation(op));
                }
                Err(Refused::Closed) => {
                    let lost = peer.engine.port().lost();
                    let status = Err(Failure::not_executed(lost));
                    peer.engine.outstanding().end(op, status);
                }
                // Not full: there was room. It is none of those that the core lets pass.
                Err(Refused::Full | Refused::Unsound) => {
                    let status = Err(Failure::not_executed(EINVAL));
                    peer.engine.outstanding().end(op, status);
                }
            }
        }
        // It may have a link to make at once.
        self.machine.handle_timeout(now);
    }

    /// Whether operations wait for the machine to have room.
    pub(super) fn has_queued(&self) -> bool {
        !(self.queued.is_empty() && self.messages.is_empty())
    }

    /// The places that messages may have: they leave some for what waits for no receive of the peer.
    fn places(&self) -> Places {
        let limits = self.machine.limits();
        let all = limits.map_or(MIN_OPS, |limits| limits.ops);
        let all = usize::from(all).min(OPS);
        let contexts = limits.map_or(1, |limits| limits.contexts.saturating_sub(MESSAGES));
        Places {
            all: all - all / 4,
            contexts: usize::from(contexts).min(MAX_CONTEXTS),
        }
    }

    /// Whether the next operation for the machine is a message; `None`: it may have none.
    pub(super) fn next_is_message(&self) -> Option<bool> {
        let may = self.messages.has_next(self.places());
        match (may, !self.queued.is_empty()) {
            (true, true) => Some(self.turn),
            (true, false) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// The next operation for the machine.
    fn next_post(&mut self) -> Option<Operation> {
        let is_message = self.next_is_message()?;
        self.turn = !is_message;
        match is_message {
            true => self.messages.pop(self.places()),
            false => self.queued.pop(),
        }
    }

    /// An operation of this side has ended.
    pub(super) fn ended(
        &mut self,
        peer: &Arc<Peer>,
        number: command::Op,
        command: &Command,
        verdict: Verdict,
    ) {
        let place = self.posted.get_mut(number.index());
        let op = match place.and_then(Option::take).map(|posted| posted.what) {
            Some(What::Operation(op)) => op,
            Some(What::Letter(message)) => return letter_ended(peer, &message, verdict),
            None => return,
        };
        let meets = meets_a_receive(&op);
        if meets {
            self.messages.left(&op);
        }
        if (meets || op.is_tagged_rma()) && self.is_astray(command, verdict) {
            op.count_stray();
        }
        let mut status = verdict::heard(verdict, command.len as usize);
        if let Err(failure) = &mut status {
            failure.error = match (failure.error, self.closing) {
                (ECANCELED, Some(error)) => error,
                // The peer, or its endpoint, is not there any more.
                (ENOTCONN, _) => peer.engine.port().lost(),
                (error, _) => error,
            };
        }
        peer.engine.outstanding().end(op, status);
    }

    /// Whether an operation has failed since the peer does not have the receive context that it is for.
    fn is_astray(&self, command: &Command, verdict: Verdict) -> bool {
        let contexts = self.machine.limits().map(|limits| limits.contexts);
        let known = contexts.is_none_or(|contexts| command.context < contexts);
        !known && verdict.is_err_and(|failure| failure.errno == Errno::EINVAL)
    }

    /// The operation of this side that has this number.
    pub(super) fn posted(&self, number: command::Op) -> Option<&Operation> {
        let posted = self.posted.get(number.index())?.as_ref()?;
        match &posted.what {
            What::Operation(op) if posted.number == number => Some(op),
            _ => None,
        }
    }

    /// The connection message of this side that has this number.
    pub(super) fn letter(&self, number: command::Op) -> Option<&Message> {
        let posted = self.posted.get(number.index())?.as_ref()?;
        match &posted.what {
            What::Letter(message) if posted.number == number => Some(message),
            _ => None,
        }
    }

    fn put_posted(&mut self, number: command::Op, what: What) {
        if let Some(place) = self.posted.get_mut(number.index()) {
            *place = Some(Posted { number, what });
        }
    }

    /// Hands a connection message to the machine.
    pub(super) fn write_letter(&mut self, peer: &Arc<Peer>, now: u64, message: Message) {
        let command = Command {
            context: LETTERS,
            ..Command::send(message.emit().1 as u64)
        };
        let kept = KBox::new(message, GFP_KERNEL);
        let submitted = match &kept {
            Ok(_) if self.machine.has_room() => self.machine.submit(now, command).ok(),
            _ => None,
        };
        match (submitted, kept) {
            (Some(number), Ok(message)) => self.put_posted(number, What::Letter(message)),
            (_, Err(_)) => unheard(peer, &message, ENOMEM),
            (None, Ok(_)) => unheard(peer, &message, ENOBUFS),
        }
    }

    /// Cancels what the consumer wants to be cancelled.
    pub(super) fn cancel(&mut self, peer: &Arc<Peer>) {
        let outstanding = peer.engine.outstanding();
        let unwanted = |op: &Op| outstanding.is_unwanted(op.id());
        peer.engine
            .end_all(&mut self.queued.extract(unwanted), ECANCELED);
        peer.engine
            .end_all(&mut self.messages.extract(unwanted), ECANCELED);
        for posted in self.posted.iter().flatten() {
            let What::Operation(op) = &posted.what else {
                continue;
            };
            if unwanted(op) {
                // What can't be withdrawn any more ends as it would have.
                let (Cancelled::Ended | Cancelled::Asked | Cancelled::No) =
                    self.machine.cancel(posted.number);
            }
        }
    }

    /// Ends what has not begun, with `error`, and has what waits for a receive of the peer withdrawn.
    pub(super) fn quit(&mut self, peer: &Arc<Peer>, error: Error) {
        peer.engine.end_all(&mut self.queued, error);
        peer.engine
            .end_all(&mut self.messages.extract(|_| true), error);
        for posted in self.posted.iter().flatten() {
            if let What::Operation(_) = posted.what {
                let (Cancelled::Ended | Cancelled::Asked | Cancelled::No) =
                    self.machine.cancel(posted.number);
            }
        }
    }
}

/// A connection message has reached the peer, or has not.
fn letter_ended(peer: &Arc<Peer>, message: &Message, verdict: Verdict) {
    if let Err(failure) = verdict {
        let error = match verdict::error(failure.errno) {
            ENOTCONN | ECONNRESET | EPROTO => EHOSTUNREACH,
            error => error,
        };
        unheard(peer, message, error);
    }
}

fn unheard(peer: &Arc<Peer>, message: &Message, error: Error) {
    let section = rcu::read_lock();
    peer.engine.port().unheard(message, error);
    drop(section);
}

/// Whether an operation may have to wait for a receive of the peer.
pub(super) fn meets_a_receive(op: &Op) -> bool {
    op.kind() == Kind::Send || op.notifies()
}

/// Whether the bytes that an operation brings can be had: a device may have gone.
fn probe(op: &Op) -> Result {
    let brings = matches!(op.kind(), Kind::Send | Kind::Write | Kind::Atomic);
    let may_go = op
        .buffer()
        .memory()
        .is_some_and(|memory| memory.is_device() || memory.is_persistent());
    match brings && may_go && !op.buffer().is_empty() {
        true => op.read_local(0, &mut [0]),
        false => Ok(()),
    }
}

/// What the machine is told of a post.
fn command(op: &Op) -> Command {
    let (key, offset) = op
        .remote()
        .map_or((0, 0), |remote| (remote.key().raw(), remote.offset()));
    let commit = op.level() == Level::Committed;
    let target = match (op.remote(), op.tag()) {
        (None, Some(tag)) => Target::Tag(tag),
        _ => Target::Key(key),
    };
    let what = match (op.kind(), op.atomic()) {
        (Kind::Write, _) => Does::Write {
            target,
            offset,
            commit,
        },
        (Kind::Read, _) => Does::Read { target, offset },
        (Kind::Commit, _) => Does::Commit { key, offset },
        (Kind::Atomic, Some(atomic)) => Does::Atomic {
            key,
            offset,
            action: atomic.action,
            datatype: atomic.datatype,
            commit,
        },
        _ => Does::Send { tag: op.tag() },
    };
    Command {
        what,
        len: op.len() as u64,
        data: op.data(),
        // Those of an address have fewer bits.
        context: MESSAGES.saturating_add(op.peer_context() as u16),
    }
}
