// SPDX-License-Identifier: GPL-2.0

//! The counters of an endpoint.

use super::{Core, Counter, Counts};
use crate::domain;
use crate::op::{Kind, Op, Outcome, Status};
use kernel::prelude::*;
use kernel::sync::Arc;

/// The counter that a consumer chose for each kind of operation.
pub(crate) type Chosen<'a> = [Option<&'a Counter>; Counts::KINDS];

/// The counter of each kind of operation, for those that count.
pub(crate) struct Counters([Option<Arc<Core>>; Counts::KINDS]);

impl Counters {
    /// Counts how an operation ended. Any context but hardirq.
    #[inline]
    pub(crate) fn count(&self, counts: Counts, well: bool) {
        let cntr = counts.kind().and_then(|kind| self.0.get(kind)?.as_ref());
        match (cntr, well) {
            (Some(cntr), true) => cntr.add(1),
            (Some(cntr), false) => cntr.add_errors(1),
            (None, _) => {}
        }
    }

    /// Counts a peer's access, unless it was refused: nothing that a peer may try at will ends a
    /// wait here.
    pub(crate) fn count_access(&self, op: &Op, status: &Status) {
        match status {
            Ok(_) => self.count(op.counts_remotely(), true),
            Err(failure) if failure.outcome == Outcome::NotExecuted => {}
            Err(_) => self.count(op.counts_remotely(), false),
        }
    }
}

/// An endpoint's hold on its counters: they are not closed meanwhile.
pub(crate) struct Bound(Arc<Counters>);

impl Bound {
    /// Takes hold of what was chosen; `None` if nothing was. May sleep.
    ///
    /// # Errors
    /// - `EINVAL`: a counter is of another domain.
    /// - `ENOMEM`.
    // Not generic, as the endpoint is: once, in the core.
    #[inline(never)]
    pub(crate) fn new(chosen: &Chosen<'_>, domain: &Arc<domain::Core>) -> Result<Option<Self>> {
        let mut all = chosen.iter().flatten();
        if !all.all(|cntr| Arc::ptr_eq(cntr.domain.core(), domain)) {
            return Err(EINVAL);
        }
        if chosen.iter().all(Option::is_none) {
            return Ok(None);
        }
        let counters = Arc::new(
            Counters(chosen.map(|cntr| cntr.map(|cntr| cntr.core.clone()))),
            GFP_KERNEL,
        )?;
        for cntr in counters.0.iter().flatten() {
            cntr.bind();
        }
        Ok(Some(Bound(counters)))
    }

    /// Them, for whoever counts.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        for cntr in self.0 .0.iter().flatten() {
            cntr.unbind();
        }
    }
}

impl Op {
    /// As what its end is counted; once a receive has been consumed by a write or a read, as nothing.
    pub(crate) fn counts(&self) -> Counts {
        match self.kind() {
            Kind::Send => Counts::SEND,
            Kind::Recv if !self.is_consumed() => Counts::RECV,
            Kind::Recv | Kind::RemoteWrite | Kind::RemoteRead => Counts::NONE,
            Kind::Read => Counts::READ,
            Kind::Write => Counts::WRITE,
            Kind::Commit => Counts::COMMIT,
            Kind::Atomic if self.fetches() => Counts::READ,
            Kind::Atomic => Counts::WRITE,
        }
    }

    /// As what it is counted where it is carried out; a commit, which brings no bytes, as nothing.
    fn counts_remotely(&self) -> Counts {
        match self.counts() {
            Counts::READ => Counts::REMOTE_READ,
            Counts::WRITE => Counts::REMOTE_WRITE,
            _ => Counts::NONE,
        }
    }

    /// Whether it is an atomic that brings what was there.
    fn fetches(&self) -> bool {
        self.atomic().is_some_and(|atomic| atomic.action.fetches())
    }
}

#[kunit_tests(kfabric_cntr_bound)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::op::testing::{self, request};
    use crate::op::{AtomicAction, AtomicOp, Datatype, Failure, Level, Request, Success};
    use crate::provider::testing::{Bench, Desk, Opened};

    const ALL: [Counts; Counts::KINDS] = [
        Counts::SEND,
        Counts::RECV,
        Counts::READ,
        Counts::WRITE,
        Counts::COMMIT,
        Counts::REMOTE_READ,
        Counts::REMOTE_WRITE,
    ];

    const DONE: Status = Ok(Success {
        len: 0,
        data: None,
        level: Level::Delivered,
    });

    #[test]
    fn each_operation_is_counted_as_one_thing_here_and_there() -> Result {
        let bench = testing::Bench::<u64>::new(1, None)?;
        let (op, datatype) = (AtomicOp::Sum, Datatype::U64);
        let none = Counts::NONE;
        for (kind, atomic, here, there) in [
            (Kind::Send, None, Counts::SEND, none),
            (Kind::Recv, None, Counts::RECV, none),
            (Kind::Read, None, Counts::READ, Counts::REMOTE_READ),
            (Kind::Write, None, Counts::WRITE, Counts::REMOTE_WRITE),
            (Kind::Commit, None, Counts::COMMIT, none),
            (
                Kind::Atomic,
                Some(AtomicAction::update(op, datatype)),
                Counts::WRITE,
                Counts::REMOTE_WRITE,
            ),
            (
                Kind::Atomic,
                Some(AtomicAction::fetch(op, datatype)),
                Counts::READ,
                Counts::REMOTE_READ,
            ),
            (
                Kind::Atomic,
                Some(AtomicAction::compare(datatype)),
                Counts::READ,
                Counts::REMOTE_READ,
            ),
        ] {
            let request = Request {
                atomic,
                ..request(kind)
            };
            let (_, mut op) = bench.post_request(request, 0)?;
            assert_eq!((op.counts(), op.counts_remotely()), (here, there));
            op.op().consume(Kind::Write);
            let message = kind == Kind::Recv;
            assert_eq!(op.counts(), if message { none } else { here });
            drop(op);
            drop(bench.read());
        }
        Ok(())
    }

    #[test]
    fn each_kind_has_the_counter_that_was_chosen_last() -> Result {
        let opened = Opened::new()?;
        let core = opened.domain.child(domain::Class::Counter)?.core().clone();
        let (first, second) = (
            Counter::new(&opened.domain, None)?,
            Counter::new(&opened.domain, None)?,
        );
        let mut chosen = [Some(&first); Counts::KINDS];
        for kind in (Counts::READ | Counts::REMOTE_WRITE).kinds() {
            chosen[kind] = Some(&second);
        }
        chosen[0] = None;
        let bound = Bound::new(&chosen, &core)?.ok_or(EINVAL)?;
        for (n, counts) in (0..).zip(ALL) {
            assert_eq!(counts.kind(), Some(n));
            assert!(counts.kinds().eq([n]));
            bound.counters().count(counts, true);
        }
        bound.counters().count(Counts::NONE, true);
        assert_eq!((first.value(), second.value()), (4, 2));
        let first = first.close().err().ok_or(EINVAL)?.1;
        drop(bound);
        assert!(first.close().is_ok() && second.close().is_ok());
        assert!(Bound::new(&[None; Counts::KINDS], &core)?.is_none());
        Ok(())
    }

    #[test]
    fn access_that_was_refused_counts_nothing() -> Result {
        let opened = Opened::new()?;
        let core = opened.domain.child(domain::Class::Counter)?.core().clone();
        let cntr = Counter::new(&opened.domain, None)?;
        let bound = Bound::new(&[Some(&cntr); Counts::KINDS], &core)?.ok_or(EINVAL)?;
        let bench = testing::Bench::<u64>::new(1, None)?;
        let (_, op) = bench.post_request(request(Kind::Write), 0)?;
        for (status, expected) in [
            (Err(Failure::not_executed(EACCES)), (0, 0)),
            (DONE, (1, 0)),
            (Err(Failure::unknown(EIO)), (1, 1)),
            (Err(Failure::after(Level::Delivered, EIO)), (1, 2)),
        ] {
            bound.counters().count_access(&op, &status);
            assert_eq!((cntr.value(), cntr.errors()), expected);
        }
        Ok(())
    }

    #[test]
    fn post_that_is_handed_back_counts_nothing() -> Result {
        use kernel::sync::atomic::Relaxed;
        let bench = Bench::new()?;
        let (domain, info) = (&bench.opened.domain, Desk::info()?);
        let cq = crate::cq::CompletionQueue::<u64>::new(domain, 8, None)?;
        let cntr = Counter::new(domain, None)?;
        let builder = Endpoint::builder(domain, &info).cq(&cq).av(&bench.av);
        let ep = builder.counter(Counts::SEND, &cntr).enable()?;
        let to = bench.peer()?;
        let send = || ep.send(crate::op::Buffer::empty(), to, Default::default(), 1);
        bench.opened.desk.reject.store(EAGAIN.to_errno(), Relaxed);
        assert!(send().is_err());
        assert_eq!((cntr.value(), cntr.errors()), (0, 0));
        bench.opened.desk.reject.store(0, Relaxed);
        send()?;
        assert_eq!((cntr.value(), cntr.errors()), (0, 0));
        let op = bench.opened.desk.take().pop().ok_or(EINVAL)?;
        op.complete(DONE);
        assert_eq!((cntr.value(), cntr.errors()), (1, 0));
        // Less than what was asked for is no success.
        send()?;
        let less = Success {
            len: 0,
            data: None,
            level: Level::Transmit,
        };
        let op = bench.opened.desk.take().pop().ok_or(EINVAL)?;
        op.complete(Ok(less));
        assert_eq!((cntr.value(), cntr.errors()), (1, 1));
        // What the provider drops, and what the close ends.
        send()?;
        drop(bench.opened.desk.take());
        assert_eq!((cntr.value(), cntr.errors()), (1, 2));
        send()?;
        assert!(ep.close().is_ok());
        assert_eq!((cntr.value(), cntr.errors()), (1, 3));
        assert!(cntr.close().is_ok());
        Ok(())
    }
}
