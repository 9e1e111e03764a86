// SPDX-License-Identifier: GPL-2.0

//! Endpoints: where operations are posted.
//!
//! | file | noun |
//! |---|---|
//! | `atomic` | atomics on a peer's regions |
//! | `connect` | connecting to the one peer |
//! | `msg` | messages |
//! | `rma` | reads, writes and commits of a peer's regions |
//!
//! An endpoint is built with its queues and its address vector, and enabled in one step: its
//! slots are reserved then, and no post allocates.
//!
//! **Closing.** Posts run in an RCU read section. A close marks the endpoint, waits for the posts
//! under way, has the provider complete what it holds, and waits, with a bound, until each
//! operation is in its completion queue.
//!
//! Locks: `shut` is a mutex, taken under no other. Source: fi_endpoint(3).

use crate::av::{self, Address, AddressVector, Name};
use crate::cm::{self, Connection, ConnectionRequest, PrivateData, Role};
use crate::cntr::{self, Chosen, Counter, Counters, Counts};
use crate::cq::{CompletionQueue, Queue};
use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use crate::eq::{EventQueue, Source};
use crate::info::{Caps, EndpointType, Info, Limits};
use crate::op::{
    Buffer, Failure, Op, OpId, Operation, Options, Origin, Refused, Request, INJECT_SIZE,
};
use crate::provider::{AnyEndpoint, Port, Rejected};
use crate::rdm::fence::Fence;
use crate::stats::Stats;
use crate::sys::once;
use crate::sys::slot::{Pool, Slot};
use crate::sys::work;
use crate::trace;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::sync::{new_mutex, rcu, Arc, Mutex, UniqueArc};
use kernel::time::delay::fsleep;
use kernel::time::{Delta, Instant, Monotonic, Msecs};
use kernel::workqueue::{self, impl_has_work, new_work, Work, WorkItem};

mod atomic;
mod connect;
mod msg;
mod rma;

/// How long a close waits for operations that a provider holds, in milliseconds.
pub const CLOSE_TIMEOUT_MS: u32 = 10_000;

static NEXT_ID: Atomic<u64> = Atomic::new(1);

/// A number for an endpoint, passive or not; never 0.
pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Relaxed)
}

/// The part of an endpoint that its provider's end reaches.
#[pin_data]
pub(crate) struct Live {
    port: Arc<Port>,
    transport: Arc<dyn AnyEndpoint>,
    /// Where posts may have fences.
    fence: Option<Arc<Fence>>,
    /// 0, or the errno that posts are refused with.
    closed: Atomic<i32>,
    /// Whether the shutdown is through.
    #[pin]
    shut: Mutex<bool>,
    /// Ends the endpoint when its peer has ended the connection.
    #[pin]
    work: Work<Live>,
}

impl_has_work! {
    impl HasWork<Self> for Live { self.work }
}

impl WorkItem for Live {
    type Pointer = Arc<Live>;

    fn run(this: Arc<Live>) {
        this.shutdown(ENOTCONN);
    }
}

impl Live {
    /// Opens the provider's endpoint.
    // Not generic, and never inlined, since lockdep wants one address of the lock's name.
    #[inline(never)]
    pub(crate) fn open(
        domain: &Child,
        port: Arc<Port>,
        fence: Option<Arc<Fence>>,
        info: &Info,
    ) -> Result<Arc<Self>> {
        // Before the transport, which only a `Live` can end.
        let room = UniqueArc::new_uninit(GFP_KERNEL)?;
        let transport = domain.provider().endpoint(port.clone(), info)?;
        let live = room.pin_init_with(pin_init!(Live {
            port,
            transport,
            fence,
            closed: Atomic::new(0),
            shut <- new_mutex!(false, "kfi_shut"),
            work <- new_work!("kfi_hang_up"),
        }));
        match live {
            Ok(live) => Ok(live.into()),
            Err(never) => match never {},
        }
    }

    /// Hands a post to the provider, or has it wait for those before it.
    #[inline]
    fn submit(&self, op: Operation) -> Result<(), Rejected> {
        match &self.fence {
            None => self.execute(op),
            Some(fence) => match fence.admit(op) {
                Some(op) => self.execute(op),
                None => Ok(()),
            },
        }
    }

    /// Hands an operation to the provider.
    #[inline]
    pub(crate) fn execute(&self, op: Operation) -> Result<(), Rejected> {
        self.transport.post(op)
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

    /// See [`Endpoint::connect`].
    fn connect(&self, to: &Name, data: PrivateData, timeout: Msecs) -> Result {
        let connection = self.connection()?;
        self.refusal().map_or(Ok(()), Err)?;
        connection.connect(&*self.transport, to, data, timeout)
    }

    /// See [`Endpoint::accept`].
    fn accept(
        &self,
        request: ConnectionRequest,
        data: PrivateData,
    ) -> Result<(), (Error, ConnectionRequest)> {
        match (self.connection(), self.refusal()) {
            (Ok(connection), None) => request.accept(connection, &*self.transport, data),
            (Err(error), _) | (_, Some(error)) => Err((error, request)),
        }
    }

    /// See [`Endpoint::shutdown`].
    fn disconnect(&self) -> Result {
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
        let _ = workqueue::system_unbound().enqueue(self.clone());
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

    /// Refuses posts and completes all that is in flight, with `error`. Once; others wait for it.
    ///
    /// Sleeps; process context.
    pub(crate) fn shutdown(&self, error: Error) {
        let mut shut = self.shut.lock();
        if *shut {
            return;
        }
        let ending = self.port.role().begin_end();
        self.refuse(error);
        // Afterwards no post is under way that has not seen it, and no connection message.
        rcu::synchronize_rcu();
        // First, so that a peer knows why what it sends goes nowhere.
        ending.tell(&self.port, &*self.transport, error);
        if let Some(fence) = &self.fence {
            fence.close(error);
        }
        let lost = match self.port.role() {
            Role::Datagrams => EHOSTUNREACH,
            _ => ENOTCONN,
        };
        self.port.matching().close(error, lost);
        self.transport.shutdown(error);
        ending.finish(error);
        *shut = true;
    }
}

/// An endpoint's hold on a queue's room.
pub(crate) struct Bound {
    queue: Arc<Queue>,
    slots: usize,
}

impl Bound {
    pub(crate) fn new(queue: &Arc<Queue>, slots: usize) -> Result<Self> {
        queue.bind(slots)?;
        Ok(Bound {
            queue: queue.clone(),
            slots,
        })
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.queue.unbind(self.slots);
    }
}

/// An endpoint's hold on an address vector.
struct Peers(Arc<av::Table>);

impl Peers {
    fn new(table: &Arc<av::Table>) -> Self {
        table.bind();
        Peers(table.clone())
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.0.unbind();
    }
}

/// Whom an endpoint can reach.
enum Reach {
    /// Those in an address vector.
    Peers(Peers),
    /// The peer of a connection.
    Peer {
        connection: Arc<Connection>,
        /// The owner of the room for its events.
        events: Arc<Source>,
    },
}

impl Reach {
    /// Checks that what an endpoint of this type needs was given, and all is of one domain.
    #[inline(never)]
    fn new(
        domain: &Child,
        info: &Info,
        id: u64,
        av: Option<&AddressVector>,
        eq: Option<&EventQueue>,
    ) -> Result<Self> {
        let here = |other: &Child| Arc::ptr_eq(other.core(), domain.core());
        match (info.endpoint_type, av, eq) {
            (EndpointType::Rdm, Some(av), None) if here(av.domain()) => {
                Ok(Reach::Peers(Peers::new(av.table())))
            }
            (EndpointType::Msg, None, Some(eq)) if here(eq.domain()) => Ok(Reach::Peer {
                events: Source::new(eq, id, EventQueue::PER_ENDPOINT)?,
                connection: Connection::new(id)?,
            }),
            _ => Err(EINVAL),
        }
    }

    /// What the port takes.
    fn role(&self) -> Role {
        match self {
            Reach::Peers(_) => Role::Datagrams,
            Reach::Peer { connection, .. } => Role::Connection(connection.clone()),
        }
    }

    /// Begins; `EOPNOTSUPP`: the provider brings no connection messages.
    #[inline(never)]
    fn open(&self, live: &Arc<Live>) -> Result {
        if let Reach::Peer { connection, events } = self {
            if !live.transport.connects() {
                return Err(EOPNOTSUPP);
            }
            connection.open(cm::Open {
                source: events.clone(),
                live: live.clone(),
            });
        }
        Ok(())
    }

    /// Takes back what the connection might still do. The endpoint has been shut down.
    #[inline(never)]
    fn close(&self, live: &Arc<Live>) {
        if let Reach::Peer { connection, events } = self {
            connection.stop();
            work::cancel(live);
            events.withdraw();
        }
    }
}

/// One direction of an endpoint: its slots, and where they complete.
struct Direction<C: Send + 'static> {
    pool: Pool<C>,
    origin: Arc<Origin>,
    _bound: Bound,
}

impl<C: Send + 'static> Direction<C> {
    fn new(
        endpoint: u64,
        cq: &CompletionQueue<C>,
        counters: Option<Arc<Counters>>,
        fence: Option<Arc<Fence>>,
        slots: usize,
    ) -> Result<Self> {
        let bound = Bound::new(cq.queue(), slots)?;
        let stats = Arc::new(Stats::default(), GFP_KERNEL)?;
        let queue = cq.queue().clone();
        let origin = Origin::new(endpoint, queue, stats, counters, fence, slots)?;
        Ok(Direction {
            pool: Pool::new(slots, |index| Op::idle(&origin, index))?,
            origin,
            _bound: bound,
        })
    }
}

/// A post that has begun.
struct Posting<C: Send + 'static> {
    slot: Slot<C>,
    /// Until the provider has taken it or handed it back.
    section: rcu::Guard,
}

/// What an endpoint is made from.
#[must_use = "nothing is opened before `enable`"]
pub struct Builder<'a, C: Send + 'static> {
    domain: &'a Domain,
    info: &'a Info,
    tx: Option<&'a CompletionQueue<C>>,
    rx: Option<&'a CompletionQueue<C>>,
    av: Option<&'a AddressVector>,
    counters: Chosen<'a>,
    eq: Option<&'a EventQueue>,
}

impl<'a, C: Send + 'static> Builder<'a, C> {
    /// The queue for all completions.
    pub fn cq(self, cq: &'a CompletionQueue<C>) -> Self {
        self.tx_cq(cq).rx_cq(cq)
    }

    /// The queue for completions of sends, reads, writes and commits.
    pub fn tx_cq(mut self, cq: &'a CompletionQueue<C>) -> Self {
        self.tx = Some(cq);
        self
    }

    /// The queue for completions of receives.
    pub fn rx_cq(mut self, cq: &'a CompletionQueue<C>) -> Self {
        self.rx = Some(cq);
        self
    }

    /// The addresses of the peers, for an endpoint of type [`EndpointType::Rdm`].
    pub fn av(mut self, av: &'a AddressVector) -> Self {
        self.av = Some(av);
        self
    }

    /// The counter for operations of these kinds; for each, the last that was chosen.
    ///
    /// It counts what ends, also what leaves no completion, and no later than the completion is in
    /// its queue. Source: fi_ep_bind() in fi_endpoint(3).
    pub fn counter(mut self, counts: Counts, cntr: &'a Counter) -> Self {
        for kind in counts.kinds() {
            self.counters[kind] = Some(cntr);
        }
        self
    }

    /// Where events of the connection go, for an endpoint of type [`EndpointType::Msg`].
    pub fn eq(mut self, eq: &'a EventQueue) -> Self {
        self.eq = Some(eq);
        self
    }

    /// Opens the endpoint and reserves its slots: `tx_size` and `rx_size` of the info's limits.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// - `EINVAL`: a queue is missing, or what the endpoint's type needs: an address vector or an
    ///   event queue, and not both; one of them, or a counter, is of another domain; a limit is 0, or beyond what
    ///   the domain offers; the info is of another domain.
    /// - `ENOSPC`: a completion queue is too small for the slots bound to it, or the event queue.
    /// - `EOPNOTSUPP`: the info advertises what the provider's endpoints can't do.
    /// - `ENODEV`: the provider is gone.
    /// - `ENOMEM`.
    ///
    /// Source: fi_enable(3).
    pub fn enable(self) -> Result<Endpoint<C>> {
        let (Some(tx), Some(rx)) = (self.tx, self.rx) else {
            return Err(EINVAL);
        };
        let limits = self.info.limits;
        if limits.tx_size == 0 || limits.rx_size == 0 {
            return Err(EINVAL);
        }
        let domain = self.domain.child(Class::Endpoint)?;
        domain.check(self.info)?;
        let here = |other: &Child| Arc::ptr_eq(other.core(), domain.core());
        if !(here(tx.domain()) && here(rx.domain())) {
            return Err(EINVAL);
        }
        let bound = cntr::Bound::new(&self.counters, domain.core())?;
        let counters = bound.as_ref().map(|bound| bound.counters().clone());
        let id = next_id();
        let reach = Reach::new(&domain, self.info, id, self.av, self.eq)?;
        let fence = match self.info.caps.contains(Caps::FENCE) {
            true => Some(Fence::new(limits.tx_size)?),
            false => None,
        };
        let tx = Direction::new(id, tx, counters.clone(), fence.clone(), limits.tx_size)?;
        let rx = Direction::new(id, rx, counters.clone(), None, limits.rx_size)?;
        let dir = debugfs::dir(self.domain.dir(), fmt!("endpoint-{id}"))?;
        let files = [
            debugfs::file(&dir, fmt!("tx"), Shown::Direction(tx.origin.clone()))?,
            debugfs::file(&dir, fmt!("rx"), Shown::Direction(rx.origin.clone()))?,
        ];
        let port = Port::new(id, domain.core().clone(), counters, reach.role())?;
        let live = Live::open(&domain, port, fence.clone(), self.info)?;
        let endpoint = Endpoint {
            _files: files,
            live,
            tx,
            rx,
            reach,
            limits,
            fences: fence.is_some(),
            _counters: bound,
            domain,
        };
        if !endpoint.live.transport.caps().contains(self.info.caps) {
            return Err(EOPNOTSUPP);
        }
        if let Some(fence) = &fence {
            fence.open(&endpoint.live);
        }
        endpoint.reach.open(&endpoint.live)?;
        endpoint.domain.entry().enlist(&endpoint.live)?;
        Ok(endpoint)
    }
}

/// An enabled endpoint; its operations carry contexts of type `C`.
///
/// Posts may be made from several CPUs at once. Dropping it closes it, as [`Endpoint::close`]
/// does: process context, sleeps.
pub struct Endpoint<C: Send + 'static> {
    _files: [debugfs::File; 2],
    live: Arc<Live>,
    tx: Direction<C>,
    rx: Direction<C>,
    reach: Reach,
    limits: Limits,
    /// Whether posts may have fences.
    fences: bool,
    _counters: Option<cntr::Bound>,
    // Last: it holds the provider's module.
    domain: Child,
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
        }
    }

    /// The name by which peers reach it. Source: fi_getname(3).
    pub fn name(&self) -> Name {
        self.live.transport.name()
    }

    /// The limits that it was enabled with.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Cancels an operation that has not met its peer yet.
    ///
    /// Never sleeps; any context but hardirq. Takes as many steps as operations wait beside it.
    ///
    /// # Errors
    /// - `ENOENT`: it is under way, has ended, or never was; it completes, or has completed, as
    ///   it would have.
    ///
    /// `Ok` means that its completion, with `ECANCELED`, is in the queue. Source: fi_cancel(3).
    pub fn cancel(&self, id: OpId) -> Result {
        if id.endpoint != self.live.port.id() {
            return Err(ENOENT);
        }
        let posts = rcu::read_lock();
        let op = if id.receive {
            self.live.port.matching().cancel(id)
        } else {
            let fence = self.live.fence.as_ref();
            fence
                .and_then(|fence| fence.cancel(id))
                .or_else(|| self.live.transport.cancel(id))
        };
        let ended = match op {
            Some(op) => {
                op.complete(Err(Failure::not_executed(ECANCELED)));
                Ok(())
            }
            None => Err(ENOENT),
        };
        drop(posts);
        ended
    }

    /// Begins a post: the closed and the full endpoint refuse it.
    #[inline(always)]
    fn begin(&self, direction: &Direction<C>) -> Result<Posting<C>> {
        let section = rcu::read_lock();
        if let Some(error) = self.live.refusal() {
            return Err(error);
        }
        Ok(Posting {
            slot: direction.pool.take().ok_or(EAGAIN)?,
            section,
        })
    }

    /// Posts a request to the provider, or a receive to the port.
    // Inlined, so that the request is written into its slot and nowhere else.
    #[inline(always)]
    fn post(
        &self,
        posting: Posting<C>,
        request: Request,
        context: C,
        execute: impl FnOnce(&Live, Operation) -> Result<(), Rejected>,
    ) -> Result<OpId, Refused<C>> {
        let Posting { mut slot, section } = posting;
        let id = slot.op().fill(request);
        let op = slot.arm(context);
        trace::post(&op);
        let taken = execute(&self.live, op);
        drop(section);
        match taken {
            Ok(()) => Ok(id),
            Err(Rejected { op, error }) => Self::give_back(op, error, id),
        }
    }

    /// The most bytes that a post takes a copy of.
    fn inject_size(&self) -> usize {
        self.limits.inject_size.min(INJECT_SIZE)
    }

    /// Posts a request for as many bytes as `bytes`, which its slot takes a copy of; or refuses it.
    fn post_injected(
        &self,
        request: Result<Request>,
        bytes: &[u8],
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let begun = request.and_then(|request| Ok((request, self.begin(&self.tx)?)));
        let (request, posting) = match begun {
            Ok(begun) => begun,
            Err(error) => return Self::refuse(&self.tx, error, Buffer::empty(), context),
        };
        let posted = self.post(posting, request, context, |live, mut op| {
            op.op().inject(bytes);
            live.submit(op)
        });
        posted.map_err(|refused| Refused {
            buffer: refused.buffer.returned(),
            ..refused
        })
    }

    /// Turns an operation that the provider handed back into a refusal.
    #[cold]
    fn give_back(mut op: Operation, error: Error, id: OpId) -> Result<OpId, Refused<C>> {
        if op.id() != id {
            // Not what was posted: the provider's error. What was posted is still with it, and this
            // one ends here.
            pr_err!("a provider handed back another operation than was posted\n");
            drop(op);
            return Ok(id);
        }
        op.refused();
        match op.claim::<C>() {
            Ok((mut slot, context)) => {
                let (_, buffer, _) = slot.op().finish();
                Err(Refused {
                    error,
                    buffer,
                    context,
                })
            }
            // An operation's number names its endpoint, whose contexts are of type `C`.
            Err(_) => Ok(id),
        }
    }

    /// Refuses what has no slot.
    #[cold]
    fn refuse(
        direction: &Direction<C>,
        error: Error,
        buffer: Buffer,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        direction.origin.stats.refused(1);
        Err(Refused {
            error,
            buffer,
            context,
        })
    }

    /// The peer behind an address, if an operation with these options may go to it.
    ///
    /// # Errors
    /// - `EHOSTUNREACH`: there is none.
    /// - `ENOTCONN`: the endpoint is to be connected first.
    /// - `EOPNOTSUPP`: a fence, and the endpoint was not enabled for them.
    /// - `EINVAL`: silent, with owned memory.
    #[inline(always)]
    fn peer(&self, address: Address, options: &Options, buffer: &Buffer) -> Result<Name> {
        if options.fence && !self.fences {
            return Err(EOPNOTSUPP);
        }
        if options.silent && buffer.is_owned() {
            return Err(EINVAL);
        }
        match &self.reach {
            Reach::Peers(peers) => peers.0.name(address).ok_or(EHOSTUNREACH),
            Reach::Peer { connection, .. } => match address {
                Address::PEER => match connection.peer() {
                    Some(peer) => Ok(peer),
                    None => Err(self.live.refusal().unwrap_or(ENOTCONN)),
                },
                _ => Err(EHOSTUNREACH),
            },
        }
    }

    /// The part of it that its provider's end reaches.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// How many operations are in flight.
    fn in_flight(&self) -> u64 {
        self.tx.origin.in_flight() + self.rx.origin.in_flight()
    }

    /// Ends it; `false` if operations are left after so many milliseconds.
    fn end(&self, timeout: u32) -> bool {
        self.live.shutdown(ECANCELED);
        self.domain.entry().delist(&self.live);
        self.reach.close(&self.live);
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
            self.domain.entry().label,
            self.live.port.id(),
            self.tx.origin.in_flight(),
            self.rx.origin.in_flight(),
            timeout
        );
        false
    }

    /// Closes the endpoint: what is in flight completes with `ECANCELED`.
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

impl<C: Send + 'static> Drop for Endpoint<C> {
    fn drop(&mut self) {
        // Without a bound: an operation that a provider keeps refers to the consumer's code, which
        // may go when this returns. Each round says what it waits for.
        while !self.end(CLOSE_TIMEOUT_MS) {}
    }
}

#[kunit_tests(kfabric_endpoint)]
mod tests {
    use super::*;
    use crate::info::Caps;
    use crate::memory::Memory;
    use crate::op::{Kind, Level, Success};
    use crate::provider::registry::unplug;
    use crate::provider::testing::{Bench, Desk, Opened};

    #[test]
    fn post_that_the_provider_hands_back_is_as_it_was() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        bench.opened.desk.reject.store(EAGAIN.to_errno(), Relaxed);
        // More often than there are slots.
        for context in 0..10 {
            let Err(refused) = bench
                .ep
                .send(Memory::zeroed(5)?, to, Options::default(), context)
            else {
                return Err(EINVAL);
            };
            assert_eq!((refused.error, refused.context), (EAGAIN, context));
            assert!(refused
                .buffer
                .into_memory()
                .is_ok_and(|memory| memory.len() == 5));
        }
        assert_eq!(bench.ep.in_flight(), 0);
        assert!(bench.ended().is_none());
        Ok(())
    }

    #[test]
    fn post_that_the_provider_lacks_is_refused() -> Result {
        let bench = Bench::new()?;
        let mut info = Desk::info()?;
        assert_eq!(info.caps, Caps::MSG);
        info.caps = Caps::MSG | Caps::READ;
        let ep = Endpoint::<u64>::builder(&bench.opened.domain, &info)
            .cq(&bench.cq)
            .av(&bench.av);
        assert_eq!(ep.enable().err(), Some(ENOSPC));
        let cq = CompletionQueue::<u64>::new(&bench.opened.domain, 8, None)?;
        let ep = Endpoint::<u64>::builder(&bench.opened.domain, &info)
            .cq(&cq)
            .av(&bench.av);
        assert_eq!(ep.enable().err(), Some(EOPNOTSUPP));
        // The provider's endpoint, which was made already, was ended.
        assert_eq!(bench.opened.desk.shutdowns.load(Relaxed), 1);
        assert!(cq.close().is_ok());
        Ok(())
    }

    #[test]
    fn full_endpoint_counts_each_direction() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        for context in 0..4 {
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), context)?;
            bench.ep.recv(Buffer::empty(), context)?;
        }
        assert_eq!(
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), 4)
                .err()
                .map(Error::from),
            Some(EAGAIN)
        );
        assert_eq!(
            bench.ep.recv(Buffer::empty(), 4).err().map(Error::from),
            Some(EAGAIN)
        );
        assert_eq!(bench.ep.in_flight(), 8);
        let op = bench.opened.desk.take().pop().ok_or(EINVAL)?;
        op.complete(Ok(Success {
            len: 0,
            data: None,
            level: Level::Delivered,
        }));
        // Completed, but not read: the slot is still taken.
        assert_eq!(
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), 4)
                .err()
                .map(Error::from),
            Some(EAGAIN)
        );
        assert!(bench.ended().is_some());
        bench.ep.send(Buffer::empty(), to, Options::default(), 4)?;
        Ok(())
    }

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
