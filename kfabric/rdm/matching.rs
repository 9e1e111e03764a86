// SPDX-License-Identifier: GPL-2.0

//! Posted receives, and the operations of peers that wait for one.
//!
//! What arrives while no receive is posted waits in its sender's slot, with its sender's buffer:
//! so it costs this side nothing, and is bounded by the slots of the senders. First come, first
//! served, on both sides.
//!
//! Locks: `state` is a leaf lock, interrupts disabled; nothing completes with it held.

use crate::op::{Chain, Failure, Kind, Level, Op, OpId, Operation, Success};
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, SpinLockIrq};

/// The receiving side of an endpoint.
#[pin_data]
pub(crate) struct Matching {
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    /// Receives that wait for an arrival.
    posted: Chain,
    /// Arrivals that wait for a receive.
    waiting: Chain,
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
    pub(crate) fn new() -> impl PinInit<Self> {
        let state = State {
            posted: Chain::new(),
            waiting: Chain::new(),
            closed: None,
        };
        pin_init!(Matching {
            state <- new_spinlock_irq!(state, "kfi_matching"),
        })
    }

    /// Takes a posted receive; gives the pair if something waits for it.
    pub(crate) fn post(&self, receive: Operation) -> Option<Match> {
        let mut state = self.state.lock();
        if let Some(Closed { error, .. }) = state.closed {
            drop(state);
            receive.complete(Err(Failure::not_executed(error)));
            return None;
        }
        match state.waiting.pop() {
            Some(arrival) => Some(Match { arrival, receive }),
            None => {
                state.posted.push(receive);
                None
            }
        }
    }

    /// Takes a receive back that has met an arrival which is gone, before all that are posted; gives the
    /// pair if something waits for it.
    pub(crate) fn put_back(&self, receive: Operation) -> Option<Match> {
        let mut state = self.state.lock();
        if let Some(Closed { error, .. }) = state.closed {
            drop(state);
            receive.complete(Err(Failure::not_executed(error)));
            return None;
        }
        match state.waiting.pop() {
            Some(arrival) => Some(Match { arrival, receive }),
            None => {
                state.posted.push_front(receive);
                None
            }
        }
    }

    /// Takes an arrival; gives the pair if a receive waits for it.
    pub(crate) fn offer(&self, arrival: Operation) -> Option<Match> {
        let mut state = self.state.lock();
        if let Some(Closed { lost, .. }) = state.closed {
            drop(state);
            arrival.give_up(lost);
            return None;
        }
        match state.posted.pop() {
            Some(receive) => Some(Match { arrival, receive }),
            None => {
                state.waiting.push(arrival);
                None
            }
        }
    }

    /// Takes a posted receive out again.
    pub(crate) fn cancel(&self, id: OpId) -> Option<Operation> {
        self.state.lock().posted.find(|op| op.id() == id)
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
        let (mut posted, mut waiting) = (state.posted.take(), state.waiting.take());
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

/// A receive, and what it receives.
#[must_use = "both complete with ECANCELED when it is dropped"]
pub struct Match {
    arrival: Operation,
    receive: Operation,
}

impl Match {
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
        } = self;
        let (len, data) = (arrival.len(), arrival.data());
        let level = arrival.level().max(Level::Delivered);
        let moved = match arrival.kind() {
            Kind::Send if len > receive.len() => Err(Failure::not_executed(EMSGSIZE)),
            Kind::Send => copy(&receive, &arrival).map_err(Failure::unknown),
            _ => {
                receive.op().consume();
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
        Match { arrival, receive }
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

#[kunit_tests(kfabric_matching)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::op::testing::Bench;
    use crate::op::{Buffer, Level, Status};

    /// A side with slots of its own.
    struct Side(Bench<u64>);

    impl Side {
        fn new() -> Result<Self> {
            Ok(Side(Bench::new(8, None)?))
        }

        fn op(&self, kind: Kind, len: usize, context: u64) -> Result<Operation> {
            Ok(self.0.post(kind, Memory::zeroed(len)?.into(), context)?.1)
        }

        fn ended(&self) -> Option<(u64, Status)> {
            self.0.read().map(|done| (done.context, done.result))
        }
    }

    fn success(len: usize) -> Status {
        Ok(Success {
            len,
            data: None,
            level: Level::Delivered,
        })
    }

    fn matching() -> Result<Pin<KBox<Matching>>> {
        KBox::pin_init(Matching::new(), GFP_KERNEL)
    }

    #[test]
    fn first_comes_first_on_both_sides() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        for context in 0..2 {
            assert!(matching.offer(tx.op(Kind::Send, 4, context)?).is_none());
        }
        for context in 0..2 {
            matching
                .post(rx.op(Kind::Recv, 4, context)?)
                .ok_or(EINVAL)?
                .execute();
            assert_eq!(tx.ended(), Some((context, success(4))));
            assert_eq!(rx.ended(), Some((context, success(4))));
        }
        for context in 0..2 {
            assert!(matching.post(rx.op(Kind::Recv, 4, context)?).is_none());
        }
        for context in 0..2 {
            matching
                .offer(tx.op(Kind::Send, 4, context)?)
                .ok_or(EINVAL)?
                .execute();
            assert_eq!(tx.ended(), Some((context, success(4))));
            assert_eq!(rx.ended(), Some((context, success(4))));
        }
        Ok(())
    }

    #[test]
    fn message_beyond_the_receive_moves_nothing() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        for (len, good) in [(3, true), (4, true), (5, false)] {
            assert!(matching.post(rx.op(Kind::Recv, 4, 1)?).is_none());
            let pair = matching.offer(tx.op(Kind::Send, len, 2)?).ok_or(EINVAL)?;
            assert_eq!(pair.len(), len);
            pair.execute();
            let expected = match good {
                true => success(len),
                false => Err(Failure::not_executed(EMSGSIZE)),
            };
            assert_eq!(rx.ended(), Some((1, expected)));
            assert_eq!(tx.ended(), Some((2, expected)));
        }
        Ok(())
    }

    #[test]
    fn cancel_and_withdraw_take_what_waits() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        let receive = rx.op(Kind::Recv, 4, 1)?;
        let id = receive.id();
        assert!(matching.post(receive).is_none());
        assert!(matching.cancel(tx.op(Kind::Send, 0, 9)?.id()).is_none());
        assert!(tx.ended().is_some());
        drop(matching.cancel(id));
        assert_eq!(rx.ended(), Some((1, Err(Failure::unknown(ECANCELED)))));
        assert!(matching.cancel(id).is_none());
        for context in 0..3 {
            assert!(matching
                .offer(tx.op(Kind::Send, context as usize, context)?)
                .is_none());
        }
        drop(matching.withdraw(|op| op.len() == 1));
        assert_eq!(tx.ended().map(|(context, _)| context), Some(1));
        for context in [0, 2] {
            matching
                .post(rx.op(Kind::Recv, 4, 7)?)
                .ok_or(EINVAL)?
                .execute();
            assert_eq!(tx.ended(), Some((context, success(context as usize))));
        }
        Ok(())
    }

    #[test]
    fn receive_that_is_put_back_is_the_first() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        for context in 0..2 {
            assert!(matching.post(rx.op(Kind::Recv, 4, context)?).is_none());
        }
        let pair = matching.offer(tx.op(Kind::Send, 4, 5)?).ok_or(EINVAL)?;
        let (arrival, receive) = pair.into_parts();
        drop(arrival);
        assert!(tx.ended().is_some());
        assert!(matching.put_back(receive).is_none());
        for context in 0..2 {
            matching
                .offer(tx.op(Kind::Send, 4, 6)?)
                .ok_or(EINVAL)?
                .execute();
            assert_eq!(rx.ended(), Some((context, success(4))));
            assert!(tx.ended().is_some());
        }
        // What waits is met at once.
        let receive = rx.op(Kind::Recv, 4, 7)?;
        assert!(matching.offer(tx.op(Kind::Send, 4, 6)?).is_none());
        matching.put_back(receive).ok_or(EINVAL)?.execute();
        assert_eq!(rx.ended(), Some((7, success(4))));
        matching.close(ECANCELED, EHOSTUNREACH);
        assert!(matching.put_back(rx.op(Kind::Recv, 4, 8)?).is_none());
        let ended = Err(Failure::not_executed(ECANCELED));
        assert_eq!(rx.ended(), Some((8, ended)));
        Ok(())
    }

    #[test]
    fn close_ends_both_sides() -> Result {
        for (error, lost) in [
            (ECANCELED, EHOSTUNREACH),
            (ECANCELED, ENOTCONN),
            (ENODEV, ENODEV),
        ] {
            let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
            assert!(matching.offer(tx.op(Kind::Send, 4, 1)?).is_none());
            assert!(matching.offer(tx.op(Kind::Write, 4, 2)?).is_none());
            matching.close(error, lost);
            // The write is placed already.
            assert_eq!(tx.ended(), Some((1, Err(Failure::not_executed(lost)))));
            let placed = Failure::after(Level::Delivered, lost);
            assert_eq!(tx.ended(), Some((2, Err(placed))));
            // What comes too late finds the same.
            assert!(matching.offer(tx.op(Kind::Send, 4, 3)?).is_none());
            assert_eq!(tx.ended(), Some((3, Err(Failure::not_executed(lost)))));
            assert!(matching.offer(tx.op(Kind::Write, 4, 5)?).is_none());
            assert_eq!(tx.ended(), Some((5, Err(placed))));
            assert!(matching.post(rx.op(Kind::Recv, 4, 4)?).is_none());
            assert_eq!(rx.ended(), Some((4, Err(Failure::not_executed(error)))));
        }
        let (matching, rx) = (matching()?, Side::new()?);
        assert!(matching.post(rx.op(Kind::Recv, 4, 1)?).is_none());
        matching.close(ECANCELED, EHOSTUNREACH);
        assert_eq!(rx.ended(), Some((1, Err(Failure::not_executed(ECANCELED)))));
        assert!(rx.ended().is_none());
        Ok(())
    }

    #[test]
    fn pair_that_fails_tells_each_side_its_own() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        assert!(matching.post(rx.op(Kind::Recv, 4, 1)?).is_none());
        matching
            .offer(tx.op(Kind::Send, 4, 2)?)
            .ok_or(EINVAL)?
            .fail(ECANCELED, ENOTCONN);
        assert_eq!(rx.ended(), Some((1, Err(Failure::not_executed(ECANCELED)))));
        assert_eq!(tx.ended(), Some((2, Err(Failure::not_executed(ENOTCONN)))));
        Ok(())
    }

    #[test]
    fn notice_of_a_write_leaves_the_receive_untouched() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        let empty = rx.0.post(Kind::Recv, Buffer::empty(), 1)?.1;
        assert!(matching.post(empty).is_none());
        let pair = matching.offer(tx.op(Kind::Write, 100, 2)?).ok_or(EINVAL)?;
        assert!(pair.is_empty());
        pair.execute();
        assert_eq!(rx.ended(), Some((1, success(100))));
        assert_eq!(tx.ended(), Some((2, success(100))));
        Ok(())
    }
}
