// SPDX-License-Identifier: GPL-2.0

//! Posted receives, and the operations of peers that wait for one.
//!
//! What arrives while no receive is posted waits in its sender's slot, with its sender's buffer:
//! so it costs this side nothing, and is bounded by the slots of the senders. First come, first
//! served, on both sides, among those that fit each other: a tagged receive takes messages with a tag
//! of its own, an untagged one those without, and one of a peer that peer's only.
//!
//! | file | noun |
//! |---|---|
//! | `posted` | receives that wait for a message, and what it costs to find one |
//! | `waiting` | arrivals that wait for a receive, likewise |
//! | `buckets` | chains by a number, for both |
//!
//! Locks: `state` is a leaf lock, interrupts disabled; nothing completes with it held.

use crate::op::{Chain, Failure, Kind, Level, Op, OpId, Operation, Success};
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, SpinLockIrq};

mod buckets;
mod posted;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;
mod waiting;
use posted::Posted;
use waiting::Waiting;

/// The receiving side of a receive context.
#[pin_data]
pub(crate) struct Matching {
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    posted: Posted,
    waiting: Waiting,
    /// Why nothing is taken any more.
    closed: Option<Closed>,
}

/// How an endpoint has ended.
#[derive(Clone, Copy)]
struct Closed {
    /// What its receives complete with.
    error: Error,
    /// What peers' operations complete with that wait for a receive, or come too late.
    lost: Error,
}

impl Matching {
    /// For so many posted receives. Sleeps. `ENOMEM`.
    pub(crate) fn new(receives: usize) -> Result<impl PinInit<Self>> {
        let state = State {
            posted: Posted::new(receives)?,
            waiting: Waiting::new(receives)?,
            closed: None,
        };
        Ok(pin_init!(Matching {
            state <- new_spinlock_irq!(state, "kfi_matching"),
        }))
    }

    /// Goes on after a close. Any context but hardirq.
    pub(crate) fn open(&self) {
        self.state.lock().closed = None;
    }

    /// Takes a posted receive; gives the pair if something waits for it.
    pub(crate) fn post(&self, receive: Operation) -> Option<Match> {
        let mut state = self.state.lock();
        if let Some(Closed { error, .. }) = state.closed {
            drop(state);
            receive.complete(Err(Failure::not_executed(error)));
            return None;
        }
        match state.waiting.take_for(&receive) {
            Some(arrival) => Some(Match::new(arrival, receive)),
            None => {
                state.posted.push(receive);
                None
            }
        }
    }

    /// Takes a posted receive of several messages; gives all pairs that it makes with what waits, each
    /// arrival followed by the receive or its part. Steps: those, and, of one peer, what others have sent between.
    pub(crate) fn post_multi(&self, receive: Operation) -> Chain {
        self.place(receive, Posted::push)
    }

    /// Takes a receive back that has met an arrival which is gone, into the place that it had; gives the
    /// pairs that it makes with what waits, likewise.
    pub(crate) fn put_back(&self, receive: Operation) -> Chain {
        match receive.take_back() {
            Some(receive) => self.place(receive, Posted::put_back),
            None => Chain::new(),
        }
    }

    /// Pairs a receive with what waits, in one step, so that nothing overtakes that, and then has it wait.
    fn place(&self, mut receive: Operation, wait: impl FnOnce(&mut Posted, Operation)) -> Chain {
        let mut pairs = Chain::new();
        let mut state = self.state.lock();
        if let Some(Closed { error, .. }) = state.closed {
            drop(state);
            receive.complete(Err(Failure::not_executed(error)));
            return pairs;
        }
        let (mut arrivals, mut parts) = state.waiting.take_all_for(receive.op());
        while let Some(arrival) = arrivals.pop() {
            match parts.pop() {
                Some(part) => push_pair(&mut pairs, Match::new(arrival, part)),
                None => {
                    push_pair(&mut pairs, Match::new(arrival, receive));
                    return pairs;
                }
            }
        }
        wait(&mut state.posted, receive);
        pairs
    }

    /// Takes an arrival; gives the pair if a receive waits for it.
    pub(crate) fn offer(&self, arrival: Operation) -> Option<Match> {
        let mut state = self.state.lock();
        if let Some(Closed { lost, .. }) = state.closed {
            drop(state);
            arrival.give_up(lost);
            return None;
        }
        match state.posted.take_for(&arrival) {
            Some(receive) => Some(Match::new(arrival, receive)),
            None => {
                state.waiting.push(arrival);
                None
            }
        }
    }

    /// Takes out the receive that a tagged write or read consumes, if one waits for it.
    pub(crate) fn claim(&self, arrival: &Op) -> Option<Operation> {
        let mut receive = self.state.lock().posted.take_for(arrival)?;
        receive.op().set_tag(arrival.tag());
        receive.op().consume(arrival.kind());
        Some(receive)
    }

    /// Takes a posted receive out again.
    pub(crate) fn cancel(&self, id: OpId) -> Option<Operation> {
        self.state.lock().posted.find(id)
    }

    /// Takes one arrival out again that its sender cancels.
    pub(crate) fn recall(&self, which: impl FnMut(&Op) -> bool) -> Option<Operation> {
        self.state.lock().waiting.find(which)
    }

    /// Takes arrivals out again that their sender gives up.
    pub(crate) fn withdraw(&self, which: impl FnMut(&Op) -> bool) -> Chain {
        self.state.lock().waiting.extract(which)
    }

    /// Ends it: what is posted completes with `error`, and what waits, or arrives later, with
    /// `lost`, see [`Port::lost`](crate::provider::Port::lost).
    pub(crate) fn close(&self, error: Error, lost: Error) {
        let mut state = self.state.lock();
        state.closed = Some(Closed { error, lost });
        let (mut posted, mut waiting) = (state.posted.take(), state.waiting.extract(|_| true));
        drop(state);
        while let Some(receive) = posted.pop() {
            receive.complete(Err(Failure::not_executed(error)));
        }
        while let Some(arrival) = waiting.pop() {
            arrival.give_up(lost);
        }
    }
}

impl Operation {
    /// Ends an arrival that met no receive. A write or commit that waits for one is done already.
    pub fn give_up(self, error: Error) {
        let failure = match self.kind() {
            Kind::Write | Kind::Commit => Failure::after(self.level(), error),
            _ => Failure::not_executed(error),
        };
        self.complete(Err(failure));
    }
}

fn push_pair(pairs: &mut Chain, pair: Match) {
    let (arrival, receive) = pair.into_parts();
    pairs.push(arrival);
    pairs.push(receive);
}

/// A receive, and what it receives.
#[must_use = "both complete with ECANCELED when it is dropped"]
pub struct Match {
    arrival: Operation,
    receive: Operation,
    later: bool,
}

impl Match {
    /// A receive that takes an arrival.
    fn new(arrival: Operation, mut receive: Operation) -> Self {
        receive.op().set_tag(arrival.tag());
        Self::from_parts(arrival, receive)
    }

    /// Has it left to a worker: whoever posted the receive has moved enough.
    pub(crate) fn later(self) -> Self {
        Match {
            later: true,
            ..self
        }
    }

    /// Whether a provider that has a worker is to leave it to that, however short it is: the post that made this match
    /// made many.
    pub fn is_for_later(&self) -> bool {
        self.later
    }

    /// How many bytes are to be moved.
    pub fn len(&self) -> usize {
        match self.arrival.kind() {
            Kind::Send => self.arrival.len(),
            _ => 0,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its bytes are still to come, from a peer: [`Match::execute`] would not find them.
    pub(crate) fn brings_bytes(&self) -> bool {
        self.arrival.kind() == Kind::Send && self.arrival.len() <= self.receive.len()
    }

    /// Which receive context of its endpoint the receive was posted by.
    pub fn context(&self) -> usize {
        self.receive.own_context()
    }

    /// The arrival.
    pub(crate) fn arrival(&self) -> &Op {
        &self.arrival
    }

    /// Moves the bytes and completes both, at the level that the sender asked for.
    ///
    /// A message that is longer than the receive's buffer is not moved at all: both complete with
    /// `EMSGSIZE`. Never sleeps.
    pub fn execute(self) {
        let Match {
            arrival,
            mut receive,
            later: _,
        } = self;
        let (len, data) = (arrival.len(), arrival.data());
        let level = arrival.level().max(Level::Delivered);
        let moved = match arrival.kind() {
            Kind::Send if len > receive.len() => Err(Failure::not_executed(EMSGSIZE)),
            Kind::Send => copy(&receive, &arrival).map_err(Failure::unknown),
            _ => {
                receive.op().consume(arrival.kind());
                Ok(())
            }
        };
        let ends = match moved {
            Ok(()) => (
                Ok(Success { len, data, level }),
                Ok(Success {
                    len,
                    data: None,
                    level,
                }),
            ),
            Err(failure) => (Err(failure), Err(failure)),
        };
        receive.complete(ends.0);
        arrival.complete(ends.1);
    }

    /// Ends both unexecuted, since the receiving endpoint closes with `error`: the arrival with
    /// `lost`, see [`Port::lost`](crate::provider::Port::lost).
    pub fn fail(self, error: Error, lost: Error) {
        self.receive.complete(Err(Failure::not_executed(error)));
        self.arrival.give_up(lost);
    }

    /// Takes the pair apart, to be queued: the arrival and its receive.
    pub fn into_parts(self) -> (Operation, Operation) {
        (self.arrival, self.receive)
    }

    /// The pair again.
    pub fn from_parts(arrival: Operation, receive: Operation) -> Self {
        Match {
            arrival,
            receive,
            later: false,
        }
    }
}

/// Copies a message from the sender's buffer to the receiver's.
#[inline]
fn copy(receive: &Op, send: &Op) -> Result {
    match receive.buffer().memory() {
        Some(to) => send.copy_out(to, receive.buffer().offset()),
        None => Ok(()), // no bytes
    }
}
