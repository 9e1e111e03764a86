// SPDX-License-Identifier: GPL-2.0

//! Endpoints: where operations are posted.
//!
//! | file | noun |
//! |---|---|
//! | `builder` | what an endpoint is made from |
//! | `scalable` | endpoints with several contexts |
//! | `side` | what it is posted to by: a transmit context, a receive context, or both |
//! | `whole` | what its contexts share |
//! | `live` | the part of it that its domain's end reaches |
//! | `reach` | whom it can reach |
//! | `direction` | the slots of a context, and where they complete |
//! | `post` | the way of a post |
//! | `msg` | messages |
//! | `tagged` | messages with tags |
//! | `multi` | receives of several messages |
//! | `rma` | reads, writes and commits of a peer's regions |
//! | `atomic` | atomics on a peer's regions |
//! | `connect` | connecting to the one peer |
//!
//! An endpoint is built with its queues and its address vector, and enabled in one step: its
//! slots are reserved then, and no post allocates.
//!
//! **Closing.** Posts run in an RCU read section. A close marks the endpoint, waits for the posts
//! under way, has the provider complete what it holds, and waits, with a bound, until each
//! operation is in its completion queue.
//!
//! Source: fi_endpoint(3).

use crate::av::Name;
use crate::cntr::Chosen;
use crate::domain::Domain;
use crate::info::{Info, Limits};
use crate::op::{Failure, OpId};
use crate::provider::Cancelled;
use core::marker::PhantomData;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{rcu, Arc};
use kernel::time::delay::fsleep;
use kernel::time::{Delta, Instant, Monotonic};
use side::{Both, Side};
use whole::Whole;

mod atomic;
mod builder;
mod connect;
mod direction;
mod live;
mod msg;
mod multi;
mod post;
mod reach;
mod rma;
mod scalable;
mod side;
mod tagged;
mod whole;

pub use builder::Builder;
pub(crate) use live::Live;
pub use multi::MIN_MULTI_RECV;
pub use scalable::{ContextBuilder, RxContext, ScalableBuilder, ScalableEndpoint, TxContext};

/// How long a close waits for operations that a provider holds, in milliseconds.
pub const CLOSE_TIMEOUT_MS: u32 = 10_000;

static NEXT_ID: Atomic<u64> = Atomic::new(1);

/// A number for an endpoint, passive or not; never 0.
pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Relaxed)
}

/// An enabled endpoint, or one context of a scalable one ([`TxContext`], [`RxContext`]); its operations carry
/// contexts of type `C`.
///
/// Posts may be made from several CPUs at once. Dropping it closes it, as [`Endpoint::close`]
/// does: process context, sleeps.
pub struct Endpoint<C: Send + 'static, S: Side = Both<C>> {
    side: S,
    live: Arc<Live>,
    // Last: it holds the provider's module.
    whole: Arc<Whole>,
    _contexts: PhantomData<fn(C) -> C>,
}

impl<C: Send + 'static> Endpoint<C> {
    /// Begins an endpoint of `info` in `domain`.
    pub fn builder<'a>(domain: &'a Domain, info: &'a Info) -> Builder<'a, C> {
        Builder {
            domain,
            info,
            tx: None,
            rx: None,
            av: None,
            counters: Chosen::default(),
            eq: None,
            min_multi_recv: MIN_MULTI_RECV,
        }
    }
}

impl<C: Send + 'static, S: Side> Endpoint<C, S> {
    /// What is posted to by that side.
    fn of(side: S, whole: &Arc<Whole>) -> Self {
        Endpoint {
            side,
            live: whole.live.clone(),
            whole: whole.clone(),
            _contexts: PhantomData,
        }
    }

    /// The name by which peers reach it: of a context, that of its endpoint. Source: fi_getname(3).
    pub fn name(&self) -> Name {
        self.live.transport.name()
    }

    /// The limits that it was enabled with.
    pub fn limits(&self) -> Limits {
        self.whole.base.limits
    }

    /// Cancels an operation that has not met its peer yet.
    ///
    /// Never sleeps; any context but hardirq. Steps: the operations that wait beside it; of one that is not found,
    /// the peers of the endpoint besides, or where memory is the link, all that waits on the host.
    ///
    /// # Errors
    /// - `ENOENT`: it is under way, has ended, never was, or is of another context; it completes, or has
    ///   completed, as it would have.
    ///
    /// `Ok` means that its completion, with `ECANCELED`, is in the queue, or will be when the peer,
    /// which may have to be asked, has let go of it; if it has not, it completes as it would have.
    /// Source: fi_cancel(3).
    pub fn cancel(&self, id: OpId) -> Result {
        if id.poster.endpoint != self.live.port.id() {
            return Err(ENOENT);
        }
        let posts = rcu::read_lock();
        let ended = match self.side.recall(&self.whole, id) {
            Cancelled::Back(op) => {
                op.complete(Err(Failure::not_executed(ECANCELED)));
                Ok(())
            }
            Cancelled::Asked => Ok(()),
            Cancelled::No => Err(ENOENT),
        };
        drop(posts);
        ended
    }

    /// The part of it that its domain's end reaches.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// How many operations are in flight.
    fn in_flight(&self) -> u64 {
        let (tx, rx) = self.side.in_flight();
        tx + rx
    }

    /// Ends it; `false` if operations are left after so many milliseconds.
    fn end(&self, timeout: u32) -> bool {
        self.side.stop(&self.whole);
        let begin = Instant::<Monotonic>::now();
        loop {
            if self.in_flight() == 0 {
                return true;
            }
            if begin.elapsed() > Delta::from_millis(timeout.into()) {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
        pr_err!(
            "{}: endpoint {}: the provider still holds {} sends, writes, reads or commits and {} \
             receives, {} ms after its end\n",
            self.whole.base.domain.entry().label,
            self.live.port.id(),
            self.side.in_flight().0,
            self.side.in_flight().1,
            timeout
        );
        false
    }

    /// Closes the endpoint: what is in flight completes with `ECANCELED`.
    ///
    /// Of a transmit context that has not met its peer; what has completes as it would have. Of a receive context
    /// that is posted, and what waits for it fails at its sender; a receive whose message is coming in completes.
    ///
    /// When it returns, each operation's completion is in its queue. Sleeps; process context: as
    /// long as the provider takes for what it is executing, a commit for example, and at most
    /// [`CLOSE_TIMEOUT_MS`] more for a provider that keeps operations.
    ///
    /// # Errors
    /// - `ETIMEDOUT`, and the endpoint again: the provider has not given back all operations; a
    ///   line in the log says how many. No memory was released. Dropping the endpoint then waits
    ///   for them without a bound.
    pub fn close(self) -> Result<(), (Error, Self)> {
        if self.end(CLOSE_TIMEOUT_MS) {
            Ok(())
        } else {
            Err((ETIMEDOUT, self))
        }
    }
}

impl<C: Send + 'static, S: Side> Drop for Endpoint<C, S> {
    fn drop(&mut self) {
        // Without a bound: an operation that a provider keeps refers to the consumer's code, which
        // may go when this returns. Each round says what it waits for.
        while !self.end(CLOSE_TIMEOUT_MS) {}
    }
}

#[kunit_tests(kfabric_endpoint)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::op::{Buffer, Kind, Options};
    use crate::provider::registry::unplug;
    use crate::provider::testing::{Bench, Opened};

    #[test]
    fn close_waits_for_what_the_provider_keeps() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        bench.opened.desk.stubborn.store(true, Relaxed);
        bench
            .ep
            .send(Memory::zeroed(5)?, to, Options::default(), 1)?;
        assert!(!bench.ep.end(20));
        assert_eq!(bench.ep.in_flight(), 1);
        assert!(bench.ended().is_none());
        let refused = bench
            .ep
            .send(Buffer::empty(), to, Options::default(), 2)
            .err()
            .map(Error::from);
        assert_eq!(refused, Some(ECANCELED));
        drop(bench.opened.desk.take());
        assert!(bench.ep.end(20));
        assert_eq!(
            bench.ended(),
            Some((Kind::Send, 1, Err(Failure::unknown(ECANCELED))))
        );
        // Once, however often it was ended.
        assert_eq!(bench.opened.desk.shutdowns.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn provider_that_goes_ends_its_endpoints() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        bench.ep.send(Buffer::empty(), to, Options::default(), 1)?;
        bench.ep.recv(Buffer::empty(), 2)?;
        unplug("kunit")?;
        for (kind, context) in [(Kind::Recv, 2), (Kind::Send, 1)] {
            let gone = Err(Failure::not_executed(ENODEV));
            assert_eq!(bench.ended(), Some((kind, context, gone)));
        }
        assert_eq!(
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), 3)
                .err()
                .map(Error::from),
            Some(ENODEV)
        );
        assert_eq!(
            bench.ep.recv(Buffer::empty(), 3).err().map(Error::from),
            Some(ENODEV)
        );
        let Opened {
            domain,
            fabric,
            registration: _registration,
            ..
        } = bench.opened;
        assert_eq!(domain.close().err().map(|(error, _)| error), Some(EBUSY));
        assert!(bench.ep.close().is_ok());
        assert_eq!(fabric.close().err().map(|(error, _)| error), Some(EBUSY));
        Ok(())
    }
}
