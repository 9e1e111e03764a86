// SPDX-License-Identifier: GPL-2.0

//! The end of an operation: from its status to its queue.

use super::{Failure, Level, Operation, Status, Success};
use crate::cntr::Counts;
use crate::trace;
use kernel::prelude::*;

impl Operation {
    /// Ends the operation: it goes to its completion queue, or, while somebody has a [`Hold`] on it, afterwards.
    ///
    /// Never sleeps; any context but hardirq, and without a lock that the consumer's callback or
    /// post could take.
    ///
    /// [`Hold`]: super::Hold
    #[inline]
    pub fn complete(self, status: Status) {
        match self.is_held() {
            false => self.complete_now(status),
            true => self.complete_later(status),
        }
    }

    /// Leaves it to the last hold to complete it.
    #[cold]
    fn complete_later(mut self, status: Status) {
        self.op().end(status);
        if let Some(op) = self.leave_to_holds() {
            op.released();
        }
    }

    /// Completes one that was left to its holds, of which none is left.
    pub(crate) fn released(self) {
        let status = *self.status();
        self.complete_now(status);
    }

    #[inline]
    fn complete_now(mut self, mut status: Status) {
        if let Err(failure) = &mut status {
            self.explain(failure);
        }
        let weaker = matches!(&status, Ok(success) if success.level < self.options.level);
        self.op().end(status);
        if weaker {
            self.op().weakened();
        }
        trace::complete(&self);
        if self.is_multi() {
            return self.deliver_multi();
        }
        match self.ticket {
            Some(_) => self.deliver_fenced(),
            None => self.hand_over(),
        }
    }

    /// Says `ENODEV` of one whose peer is lost, if its own domain has ended: that is why, or would have
    /// ended it a moment later.
    #[cold]
    fn explain(&self, failure: &mut Failure) {
        let lost = matches!(failure.error, EHOSTUNREACH | ENOTCONN);
        if lost && self.origin.explains_loss() {
            failure.error = ENODEV;
        }
    }

    /// Lets those go, afterwards, that waited for it.
    #[cold]
    fn deliver_fenced(mut self) {
        let fence = self.origin.fence.clone();
        let (ticket, hash) = (self.op().ticket.take(), self.peer.hash());
        match (fence, ticket) {
            (Some(fence), Some(ticket)) => fence.end(ticket, hash, || self.hand_over()),
            _ => self.hand_over(),
        }
    }

    /// Hands over a part of a receive of several messages, or such a receive after all its parts.
    #[inline(never)]
    fn deliver_multi(mut self) {
        let Some(shares) = self.origin.shares().cloned() else {
            return self.hand_over();
        };
        match self.part_of() {
            Some(whole) => {
                self.hand_over();
                shares.put(whole);
            }
            None => {
                self.op().widen();
                self.op().drop_spares();
                shares.end(self);
            }
        }
    }

    /// Puts a spare operation back that was not needed: it has never been posted.
    pub(crate) fn dissolve(mut self) {
        self.op().ended = true;
        drop(self);
    }

    /// Takes back a receive whose message is gone, for others: it gets all of its buffer again. `None`:
    /// it was a part of a receive, which goes on without it.
    pub(crate) fn take_back(mut self) -> Option<Operation> {
        self.op().set_tag(None);
        self.op().widen();
        let (Some(whole), Some(shares)) = (self.part_of(), self.origin.shares().cloned()) else {
            return Some(self);
        };
        self.refused();
        self.dissolve();
        shares.put(whole);
        None
    }

    /// Counts it, and puts it into its queue, unless nobody wants to see it.
    #[inline]
    pub(super) fn hand_over(self) {
        if self.options.silent && self.is_success() {
            return self.hand_over_silently();
        }
        if self.origin.counters.is_some() {
            // Before it can be read.
            self.count();
        }
        self.deliver();
    }

    /// Counts one whose completion nobody wants to see.
    #[inline(never)]
    fn hand_over_silently(self) {
        let counts = match self.origin.counters {
            Some(_) => self.counts(),
            None => Counts::NONE,
        };
        self.origin.queue.clone().pass(self, counts);
    }

    /// Counts how it ended, for its counter.
    #[inline(never)]
    fn count(&self) {
        self.origin.count(self.counts(), self.is_success());
    }

    /// Ends an operation that was not posted, but carries an event.
    pub(crate) fn announce(mut self) {
        self.op().end(Ok(Success {
            len: 0,
            data: None,
            level: Level::Delivered,
        }));
        self.deliver();
    }

    /// Ends the operation that somebody dropped.
    pub(crate) fn abandon(self) {
        self.complete(Err(Failure::unknown(ECANCELED)));
    }

    /// Counts one that a provider handed back: it is not in flight any more.
    #[cold]
    pub(crate) fn refused(&mut self) {
        self.origin.stats.handed_back();
        if let (Some(fence), Some(ticket)) = (self.origin.fence.clone(), self.op().ticket.take()) {
            fence.ended(ticket, self.peer.hash());
        }
    }
}

#[kunit_tests(kfabric_op_end)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::op::testing::{done, request, Bench};
    use crate::op::{Buffer, Kind, Options, Request};

    #[test]
    fn completion_brings_back_what_was_posted() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let (id, op) = bench.post(Kind::Send, Memory::zeroed(5)?.into(), 9)?;
        assert!(op.id() == id && op.endpoint() == 7 && op.len() == 5 && !op.is_complete());
        assert_eq!(bench.origin.in_flight(), 1);
        op.complete(done(5));
        assert_eq!(bench.origin.in_flight(), 0);
        let read = bench.read().ok_or(EINVAL)?;
        assert_eq!(
            (read.kind, read.context, read.result),
            (Kind::Send, 9, done(5))
        );
        assert!(read
            .buffer
            .into_memory()
            .is_ok_and(|memory| memory.len() == 5));
        assert!(bench.read().is_none());
        Ok(())
    }

    #[test]
    fn dropped_operation_completes_as_cancelled() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        drop(bench.post(Kind::Write, Buffer::empty(), 9)?);
        let read = bench.read().ok_or(EINVAL)?;
        assert_eq!(read.result, Err(Failure::unknown(ECANCELED)));
        assert!(bench.read().is_none());
        assert_eq!(bench.origin.in_flight(), 0);
        Ok(())
    }

    #[test]
    fn completion_below_the_level_that_was_asked_for_is_a_failure() -> Result {
        use Level::{Committed, Delivered, Transmit};
        let bench = Bench::<u64>::new(1, None)?;
        for asked in [Transmit, Delivered, Committed] {
            for level in [Transmit, Delivered, Committed] {
                let options = Options {
                    level: asked,
                    ..Options::default()
                };
                let request = Request {
                    options,
                    ..request(Kind::Write)
                };
                let (_, op) = bench.post_request(request, 0)?;
                let (len, data) = (0, None);
                let success = Success { len, data, level };
                op.complete(Ok(success));
                let expected = match level >= asked {
                    true => Ok(success),
                    false => Err(Failure::after(level, EPROTO)),
                };
                assert_eq!(bench.read().map(|done| done.result), Some(expected));
            }
        }
        Ok(())
    }

    #[test]
    fn refusal_is_not_in_flight() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let (_, mut op) = bench.post(Kind::Send, Memory::zeroed(5)?.into(), 9)?;
        op.refused();
        assert_eq!(bench.origin.in_flight(), 0);
        let Ok((mut slot, context)) = op.claim::<u64>() else {
            return Err(EINVAL);
        };
        let buffer = slot.op().take_buffer();
        assert_eq!((context, buffer.len()), (9, 5));
        drop(slot);
        assert!(bench.read().is_none());
        drop(bench.post(Kind::Send, Buffer::empty(), 1)?);
        Ok(())
    }
}
