// SPDX-License-Identifier: GPL-2.0

//! The part of an endpoint that its domain's end reaches.
//!
//! Locks: `shut` is a mutex, taken under no other but that of who ends the domain, or opens the endpoint.

use super::CLOSE_TIMEOUT_MS;
use crate::av::{Address, Name};
use crate::cm::{Connection, ConnectionRequest, PrivateData, Role};
use crate::domain::Opening;
use crate::info::Info;
use crate::op::Operation;
use crate::provider::{AnyEndpoint, Port, Rejected};
use crate::rdm::fence::Fence;
use crate::sys::once;
use crate::sys::work::cancel_delayed;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::sync::rcu::Guard;
use kernel::sync::{new_mutex, rcu, Arc, Mutex, UniqueArc};
use kernel::time::{msecs_to_jiffies, Msecs};
use kernel::workqueue::{
    self, impl_has_delayed_work, impl_has_work, new_delayed_work, new_work, DelayedWork, Work,
    WorkItem,
};

/// The number of the work that says that an end takes long.
const SLOW: u64 = 1;

/// The part of an endpoint that its domain's end reaches.
#[pin_data]
pub(crate) struct Live {
    pub(super) port: Arc<Port>,
    pub(super) transport: Arc<dyn AnyEndpoint>,
    /// Where posts may have fences, by transmit context.
    fences: KVec<Arc<Fence>>,
    /// 0, or the errno that posts are refused with.
    closed: Atomic<i32>,
    /// Whether the shutdown is through.
    #[pin]
    shut: Mutex<bool>,
    /// Ends the endpoint when its peer has ended the connection.
    #[pin]
    work: Work<Live>,
    /// Says, as long as an end goes on, what it waits for.
    #[pin]
    slow: DelayedWork<Live, SLOW>,
    /// How often it has.
    said: Atomic<u32>,
}

impl_has_work! {
    impl HasWork<Self> for Live { self.work }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self, SLOW> for Live { self.slow }
}

impl WorkItem for Live {
    type Pointer = Arc<Live>;

    fn run(this: Arc<Live>) {
        this.shutdown(ENOTCONN);
    }
}

impl WorkItem<SLOW> for Live {
    type Pointer = Arc<Live>;

    fn run(this: Arc<Live>) {
        let rounds = this.said.fetch_add(1, Relaxed) + 1;
        pr_err!(
            "{}: endpoint {}: its end waits for what the provider is executing, {} ms so far\n",
            this.port.domain().entry().label,
            this.port.id(),
            rounds.saturating_mul(CLOSE_TIMEOUT_MS)
        );
        this.watch(CLOSE_TIMEOUT_MS);
    }
}

impl Live {
    /// Opens the provider's endpoint.
    // Not generic, and never inlined, since lockdep wants one address of the lock's name.
    #[inline(never)]
    pub(crate) fn open(
        opening: &Opening<'_>,
        port: Arc<Port>,
        fences: KVec<Arc<Fence>>,
        info: &Info,
    ) -> Result<Arc<Self>> {
        // Before the transport, which only a `Live` can end.
        let room = UniqueArc::new_uninit(GFP_KERNEL)?;
        let transport = opening.device()?.endpoint(port.clone(), info)?;
        let live = room.pin_init_with(pin_init!(Live {
            port,
            transport,
            fences,
            closed: Atomic::new(0),
            shut <- new_mutex!(false, "kfi_shut"),
            work <- new_work!("kfi_hang_up"),
            slow <- new_delayed_work!("kfi_slow_end"),
            said: Atomic::new(0),
        }));
        match live {
            Ok(live) => Ok(live.into()),
            Err(never) => match never {},
        }
    }

    /// Hands a post to the provider, or, where there are fences, has it wait for those before it.
    #[inline]
    pub(super) fn submit(
        &self,
        op: Operation,
        fence: &Option<Arc<Fence>>,
        section: &Guard,
    ) -> Result<(), Rejected> {
        match fence {
            None => self.execute(op, section),
            Some(fence) => match fence.admit(op)? {
                Some(op) => self.execute(op, section),
                None => Ok(()),
            },
        }
    }

    /// Hands an operation to the provider.
    #[inline]
    pub(crate) fn execute(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        self.transport.post(op, section)
    }

    /// The provider's side.
    pub(crate) fn transport(&self) -> &dyn AnyEndpoint {
        &*self.transport
    }

    /// The connection, if it is to have one. `EOPNOTSUPP`: it is not.
    fn connection(&self) -> Result<&Arc<Connection>> {
        match self.port.role() {
            Role::Connection(connection) => Ok(connection),
            _ => Err(EOPNOTSUPP),
        }
    }

    /// The peer of its connection, if that is who is meant.
    // Not inlined into each post: it takes a lock.
    #[inline(never)]
    pub(super) fn connected_peer(&self, connection: &Connection, address: Address) -> Result<Name> {
        match address {
            Address::PEER => match connection.peer() {
                Some(peer) => Ok(peer),
                None => Err(self.refusal().unwrap_or(ENOTCONN)),
            },
            _ => Err(EHOSTUNREACH),
        }
    }

    /// See [`Endpoint::connect`].
    pub(super) fn connect(&self, to: &Name, data: PrivateData, timeout: Msecs) -> Result {
        let connection = self.connection()?;
        self.refusal().map_or(Ok(()), Err)?;
        let asked = connection.connect(&*self.transport, to, data, timeout);
        asked.map_err(|error| self.reason(error))
    }

    /// Why a connection that has ended meanwhile has, if that is what the error says.
    fn reason(&self, error: Error) -> Error {
        match error {
            ENOTCONN => self.refusal().unwrap_or(ENOTCONN),
            _ => error,
        }
    }

    /// See [`Endpoint::accept`].
    pub(super) fn accept(
        &self,
        request: ConnectionRequest,
        data: PrivateData,
    ) -> Result<(), (Error, ConnectionRequest)> {
        match (self.connection(), self.refusal()) {
            (Ok(connection), None) => request
                .accept(connection, &*self.transport, data)
                .map_err(|(error, request)| (self.reason(error), request)),
            (Err(error), _) | (_, Some(error)) => Err((error, request)),
        }
    }

    /// See [`Endpoint::shutdown`].
    pub(super) fn disconnect(self: &Arc<Self>) -> Result {
        if !self.connection()?.is_connected() {
            return Err(self.refusal().unwrap_or(ENOTCONN));
        }
        self.shutdown(ENOTCONN);
        Ok(())
    }

    /// Has a work item end it, since the peer has ended the connection.
    pub(crate) fn hang_up(self: &Arc<Self>) {
        self.refuse(ENOTCONN);
        // If it is queued already, that will do.
        let _ = workqueue::system_unbound().enqueue::<_, 0>(self.clone());
    }

    /// Why posts are refused; `None` if they are not.
    #[inline]
    pub(crate) fn refusal(&self) -> Option<Error> {
        // A post that sees it too late is waited for, see `shutdown`.
        match once::read(&self.closed) {
            0 => None,
            errno => Some(Error::from_errno(errno)),
        }
    }

    /// Refuses posts from now on, with `error`; the first reason stays.
    pub(crate) fn refuse(&self, error: Error) {
        let _ = self.closed.cmpxchg(0, error.to_errno(), Full);
    }

    /// Refuses posts and completes all that is in flight, with `error`, or with `ENODEV` if its domain
    /// is ending. Once; others wait for it.
    ///
    /// Sleeps; process context.
    /// As long as the provider takes for what it is executing, which is not interrupted: a commit of a
    /// large region, for example. Each [`CLOSE_TIMEOUT_MS`] a line in the log says so.
    pub(crate) fn shutdown(self: &Arc<Self>, error: Error) {
        let mut shut = self.shut.lock();
        if *shut {
            return;
        }
        self.watch(CLOSE_TIMEOUT_MS);
        // Before the connection ends: who finds that it has finds the reason.
        self.refuse(error);
        let error = match self.refusal() {
            Some(ENODEV) => ENODEV,
            _ => error,
        };
        let ending = self.port.role().begin_end();
        // Afterwards no post is under way that has not seen it, and no connection message.
        rcu::synchronize_rcu();
        // First, so that a peer knows why what it sends goes nowhere.
        ending.tell(&self.port, &*self.transport);
        for fence in &self.fences {
            fence.close(error);
        }
        for matching in self.port.matchings() {
            matching.close(error, self.port.lost());
        }
        self.transport.shutdown(error);
        ending.finish(error);
        cancel_delayed::<_, SLOW>(self);
        *shut = true;
    }

    /// Has it be said in so many milliseconds that the end still goes on.
    fn watch(self: &Arc<Self>, delay: Msecs) {
        // While it is being cancelled, it is not to come again.
        let _ = workqueue::system_unbound()
            .enqueue_delayed::<_, SLOW>(self.clone(), msecs_to_jiffies(delay));
    }
}

#[kunit_tests(kfabric_endpoint_live)]
mod tests {
    use super::*;
    use crate::cm::testing::{accept, there, Bench as Connected};
    use crate::cq::CompletionQueue;
    use crate::endpoint::Endpoint;
    use crate::info::Caps;
    use crate::op::{testing as slots, Buffer, Failure, Kind, Options};
    use crate::provider::testing::{Bench, Desk};
    use crate::sys::work;
    use kernel::time::delay::fsleep;
    use kernel::time::Delta;

    /// How long nobody answers, in milliseconds: longer than a test takes.
    const LONG: Msecs = 60_000;

    fn shutdowns(bench: &Bench) -> i32 {
        bench.opened.desk.shutdowns.load(Relaxed)
    }

    #[test]
    fn end_that_takes_long_is_said_until_it_is_through() -> Result {
        let bench = Bench::new()?;
        let live = bench.ep.live();
        live.watch(1);
        while live.said.load(Relaxed) == 0 {
            fsleep(Delta::from_millis(1));
        }
        // It waits to come again, for longer than a test.
        live.shutdown(ECANCELED);
        let said = live.said.load(Relaxed);
        live.watch(1);
        cancel_delayed::<_, SLOW>(live);
        let later = live.said.load(Relaxed);
        fsleep(Delta::from_millis(20));
        assert!(live.said.load(Relaxed) == later && later <= said + 1);
        Ok(())
    }

    #[test]
    fn first_reason_to_refuse_stays() -> Result {
        let bench = Bench::new()?;
        let (to, live) = (bench.peer()?, bench.ep.live());
        assert_eq!(live.refusal(), None);
        for error in [ENOTCONN, ENODEV, ECANCELED] {
            live.refuse(error);
            assert_eq!(live.refusal(), Some(ENOTCONN));
        }
        for posted in [
            bench.ep.send(Buffer::empty(), to, Options::NONE, 1),
            bench.ep.recv(Buffer::empty(), 1),
        ] {
            assert_eq!(posted.err().map(Error::from), Some(ENOTCONN));
        }
        // Nothing has ended by that.
        assert_eq!(shutdowns(&bench), 0);
        Ok(())
    }

    #[test]
    fn what_is_in_flight_ends_with_the_reason_of_the_end() -> Result {
        for (refused, end, ended, refusal) in [
            (None, ECANCELED, ECANCELED, ECANCELED),
            (None, ENODEV, ENODEV, ENODEV),
            // The end of the domain explains it, whoever else ends it.
            (Some(ENODEV), ECANCELED, ENODEV, ENODEV),
            (Some(ENOTCONN), ECANCELED, ECANCELED, ENOTCONN),
            (Some(ECANCELED), ENODEV, ENODEV, ECANCELED),
        ] {
            let (bench, peer) = (Bench::new()?, slots::Bench::<u64>::new(1, None)?);
            let (to, live) = (bench.peer()?, bench.ep.live());
            bench.ep.send(Buffer::empty(), to, Options::NONE, 1)?;
            let (_, arrival) = peer.post(Kind::Send, Buffer::empty(), 2)?;
            assert!(live.port.offer(arrival).is_none());
            if let Some(error) = refused {
                live.refuse(error);
            }
            live.shutdown(end);
            let status = Err(Failure::not_executed(ended));
            assert_eq!(bench.ended(), Some((Kind::Send, 1, status)));
            let lost = Err(Failure::not_executed(EHOSTUNREACH));
            assert_eq!(peer.read().map(|done| done.result), Some(lost));
            assert_eq!(live.refusal(), Some(refusal));
        }
        Ok(())
    }

    #[test]
    fn endpoint_is_shut_down_once() -> Result {
        let (bench, peer) = (Bench::new()?, slots::Bench::<u64>::new(1, None)?);
        let live = bench.ep.live();
        bench.ep.recv(Buffer::empty(), 1)?;
        for error in [ENOTCONN, ENODEV, ECANCELED] {
            live.shutdown(error);
            assert_eq!((shutdowns(&bench), live.refusal()), (1, Some(ENOTCONN)));
        }
        let status = Err(Failure::not_executed(ENOTCONN));
        assert_eq!(bench.ended(), Some((Kind::Recv, 1, status)));
        assert!(bench.ended().is_none());
        // What comes later finds nobody.
        let (_, arrival) = peer.post(Kind::Send, Buffer::empty(), 2)?;
        assert!(live.port.offer(arrival).is_none());
        assert!(peer.read().is_some());
        Ok(())
    }

    #[test]
    fn what_waits_behind_a_fence_ends_with_its_endpoint() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        let mut info = Desk::info()?;
        info.caps |= Caps::FENCE;
        let cq = CompletionQueue::<u64>::new(&bench.opened.domain, 8, None)?;
        let builder = Endpoint::builder(&bench.opened.domain, &info);
        let ep = builder.cq(&cq).av(&bench.av).enable()?;
        let fenced = Options {
            fence: true,
            ..Options::NONE
        };
        ep.send(Buffer::empty(), to, Options::NONE, 1)?;
        ep.send(Buffer::empty(), to, fenced, 2)?;
        let mut kept = bench.opened.desk.take();
        assert_eq!(kept.len(), 1);
        ep.live().shutdown(ENODEV);
        let ended = || cq.read().map(|done| (done.context, done.result));
        assert_eq!(ended(), Some((2, Err(Failure::not_executed(ENODEV)))));
        assert!(ended().is_none());
        // What the provider still has lets nobody go when it ends.
        kept.pop().ok_or(ENOENT)?.complete(slots::done(0));
        assert_eq!(ended(), Some((1, slots::done(0))));
        assert!(bench.opened.desk.take().is_empty());
        Ok(())
    }

    #[test]
    fn peer_is_there_once_it_is_connected() -> Result {
        let bench = Connected::new()?;
        let live = bench.ep.live();
        let peer = |address| live.connected_peer(live.connection()?, address);
        for address in [Address::from_raw(0), Address::UNSPECIFIED] {
            assert_eq!(peer(address).err(), Some(EHOSTUNREACH));
        }
        assert_eq!(peer(Address::PEER).err(), Some(ENOTCONN));
        live.connect(&there(), PrivateData::NONE, LONG)?;
        let (_, asks) = bench.wire.next().ok_or(ENOENT)?;
        assert_eq!(peer(Address::PEER).err(), Some(ENOTCONN));
        bench.wire.bring(bench.ep.id(), &accept(&asks))?;
        assert!(peer(Address::PEER)? == there());
        assert_eq!(peer(Address::UNSPECIFIED).err(), Some(EHOSTUNREACH));
        Ok(())
    }

    #[test]
    fn end_of_a_connection_has_its_reason() -> Result {
        let bench = Connected::new()?;
        let live = bench.ep.live();
        assert_eq!(live.reason(ENOTCONN), ENOTCONN);
        live.refuse(ENODEV);
        assert_eq!(
            (live.reason(ENOTCONN), live.reason(EAGAIN)),
            (ENODEV, EAGAIN)
        );
        let connected = live.connect(&there(), PrivateData::NONE, LONG);
        assert_eq!((connected, live.disconnect()), (Err(ENODEV), Err(ENODEV)));
        let peer = live.connected_peer(live.connection()?, Address::PEER);
        assert_eq!(peer.err(), Some(ENODEV));
        // Nobody was asked.
        assert!(bench.wire.next().is_none());
        Ok(())
    }

    #[test]
    fn endpoint_that_is_hung_up_refuses_at_once_and_ends_soon() -> Result {
        let bench = Bench::new()?;
        let live = bench.ep.live();
        bench.ep.recv(Buffer::empty(), 1)?;
        for _ in 0..2 {
            live.hang_up();
            assert_eq!(live.refusal(), Some(ENOTCONN));
            work::flush(&live.work);
            assert!(*live.shut.lock());
            assert_eq!(shutdowns(&bench), 1);
        }
        let status = Err(Failure::not_executed(ENOTCONN));
        assert_eq!(bench.ended(), Some((Kind::Recv, 1, status)));
        Ok(())
    }
}
