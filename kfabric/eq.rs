// SPDX-License-Identifier: GPL-2.0

//! Event queues: what happens to connections.
//!
//! An event is an operation that nobody posted: each object that is bound to a queue keeps slots
//! for all events that it may cause, and an event goes through its slot as a completion goes
//! through that of its post. So a queue needs no memory of its own and can't overrun, and reading,
//! waiting and the callback are those of a completion queue (`cq.rs`).
//!
//! Locks: those of a completion queue, and of slots. See Documentation/connections.rst. Source:
//! fi_eq(3).

use crate::av::Name;
use crate::cm::{ConnectionRequest, PrivateData};
use crate::cq::{self, Bound, Notify, Queue};
use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use crate::mr::Access;
use crate::op::{Buffer, Kind, Op, Options, Origin, Poster, Request};
use crate::stats::Stats;
use crate::sys::slot::Pool;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;
use kernel::time::{msecs_to_jiffies, Msecs};

/// What happened to a connection. Its end is named by its number: `Endpoint::id`.
pub enum Event {
    /// A peer wants to be connected; dropping the request rejects it. Source: FI_CONNREQ.
    ConnectionRequest(ConnectionRequest),
    /// An endpoint is connected. Source: FI_CONNECTED.
    Connected {
        /// The endpoint.
        endpoint: u64,
        /// What the peer sent with its accept; empty where this end has accepted.
        data: PrivateData,
    },
    /// An endpoint could not be connected, and never will be.
    Refused {
        /// The endpoint.
        endpoint: u64,
        /// `ECONNREFUSED`: rejected, or nobody listens, or its backlog is full. `EHOSTUNREACH`:
        /// nobody has the name. `ETIMEDOUT`: no answer came. `ENOBUFS`, `ENOMEM`: the provider talks
        /// to as many peers as it can, or has no room for what is to be said. `ENODEV`: the domain has ended.
        error: Error,
        /// What the peer sent with its reject.
        data: PrivateData,
    },
    /// A connection has ended, and so have the operations of this end. Source: FI_SHUTDOWN.
    Shutdown {
        /// The endpoint.
        endpoint: u64,
    },
}

/// What a consumer wants to be told of an event queue.
pub trait Callback: Send + Sync + 'static {
    /// The queue has events. As [`cq::Callback::ready`]: softirq context, may post and read, may
    /// reject requests, never sleeps.
    fn ready(&self, events: &Reader<'_>);
}

impl<F: Fn(&Reader<'_>) + Send + Sync + 'static> Callback for F {
    fn ready(&self, events: &Reader<'_>) {
        self(events)
    }
}

struct Untyped(Arc<dyn Callback>);

impl Notify for Untyped {
    fn fire(&self, queue: &Arc<Queue>) {
        self.0.ready(&Reader(cq::Reader::new(queue)))
    }
}

/// The reading side of an event queue, as its callback sees it.
pub struct Reader<'a>(cq::Reader<'a, Event>);

impl Reader<'_> {
    /// Takes the oldest event; finding none arms the callback. As [`cq::Reader::read`].
    pub fn read(&self) -> Option<Event> {
        self.0.read().map(|event| event.context)
    }

    /// Has the callback called again. As [`cq::Reader::again`].
    pub fn again(&self) {
        self.0.again()
    }
}

static NEXT_ID: Atomic<u64> = Atomic::new(1);

/// A queue of events.
///
/// Dropping it ends the callback and drops what nobody read, which rejects requests. Process
/// context, may sleep.
pub struct EventQueue {
    _file: debugfs::File,
    queue: Arc<Queue>,
    domain: Child,
}

impl EventQueue {
    /// How many events an endpoint may cause: connected or refused, and shut down.
    pub const PER_ENDPOINT: usize = 2;

    /// Makes a queue for at most `size` events, with an optional callback.
    ///
    /// Each endpoint bound to it takes [`EventQueue::PER_ENDPOINT`] of them, each passive endpoint
    /// its backlog. May sleep. Source: fi_eq_open(3).
    ///
    /// # Errors
    /// - `EINVAL`: `size` is 0.
    /// - `ENODEV`: the domain has ended.
    /// - `ENOMEM`.
    pub fn new(domain: &Domain, size: usize, callback: Option<Arc<dyn Callback>>) -> Result<Self> {
        if size == 0 {
            return Err(EINVAL);
        }
        let callback = match callback {
            Some(callback) => Some(Arc::new(Untyped(callback), GFP_KERNEL)? as Arc<dyn Notify>),
            None => None,
        };
        let child = domain.child(Class::EventQueue)?;
        let queue = Queue::new(size, callback)?;
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Ok(EventQueue {
            _file: debugfs::file(domain.dir(), fmt!("eq-{id}"), Shown::Queue(queue.clone()))?,
            queue,
            domain: child,
        })
    }

    /// Takes the oldest event; finding none arms the callback.
    ///
    /// Never sleeps; process or softirq context. Source: fi_eq_read(3).
    pub fn read(&self) -> Option<Event> {
        Reader(cq::Reader::new(&self.queue)).read()
    }

    /// Waits until there is an event, at most `timeout` milliseconds.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// - `ETIMEDOUT`: there was none.
    /// - `ERESTARTSYS`: a signal came first.
    pub fn wait(&self, timeout: Msecs) -> Result {
        self.queue.wait(msecs_to_jiffies(timeout)).map(|_| ())
    }

    /// Waits for an event and takes it. As [`EventQueue::wait`]. Source: fi_eq_sread(3).
    pub fn read_wait(&self, timeout: Msecs) -> Result<Event> {
        self.queue.read_wait(timeout, || self.read())
    }

    /// How many events it may hold.
    pub fn size(&self) -> usize {
        self.queue.size()
    }

    /// Closes the queue. Events that nobody read are dropped: requests are rejected.
    ///
    /// Sleeps; process context. No callback runs afterwards.
    ///
    /// # Errors
    /// - `EBUSY`, and the queue again: something is bound to it.
    pub fn close(self) -> Result<(), (Error, Self)> {
        match self.queue.is_bound() {
            true => Err((EBUSY, self)),
            false => Ok(()),
        }
    }

    pub(crate) fn domain(&self) -> &Child {
        &self.domain
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        self.queue.shut();
    }
}

/// An object's share of an event queue: room for each event that it may cause.
///
/// Dropped in process context.
pub(crate) struct Source {
    id: u64,
    pool: Pool<Event>,
    bound: Bound,
}

impl Source {
    /// Reserves room for `events` events of the object with this number. May sleep. `ENOSPC`: the
    /// queue is too small for them.
    pub(crate) fn new(eq: &EventQueue, id: u64, events: usize) -> Result<Arc<Self>> {
        Self::of(&eq.queue, id, events)
    }

    fn of(queue: &Arc<Queue>, id: u64, events: usize) -> Result<Arc<Self>> {
        let bound = Bound::new(queue, events, None)?;
        let stats = Arc::new(Stats::default(), GFP_KERNEL)?;
        let origin = Origin::new(
            Poster::first(id),
            queue.clone(),
            stats,
            None,
            None,
            None,
            events,
        )?;
        let pool = Pool::new(events, |index| Op::idle(&origin, index))?;
        Ok(Arc::new(Source { id, pool, bound }, GFP_KERNEL)?)
    }

    /// Puts an event into the queue; gives it back if more happened than was reserved for. Where the
    /// consumer has dropped the queue nobody will read it: it is dropped, which rejects a request.
    ///
    /// Never sleeps; any context but hardirq. No lock of the object is held.
    pub(crate) fn tell(&self, event: Event) -> Result<(), Event> {
        let Some(mut slot) = self.pool.take() else {
            return Err(event);
        };
        slot.op().fill(Request {
            tags: None,
            exposes: Access::NONE,
            kind: Kind::Recv,
            options: Options::default(),
            peer: Name::NONE,
            peer_context: 0,
            remote: None,
            atomic: None,
            buffer: Buffer::empty(),
        });
        slot.arm(event).announce();
        // One that the queue's end has missed sees that end here.
        if self.bound.queue().is_shut() {
            self.withdraw();
        }
        Ok(())
    }

    /// Takes back what nobody has read. Never sleeps; any context but hardirq.
    pub(crate) fn withdraw(&self) {
        drop(self.bound.queue().withdraw(self.id));
    }
}

/// A queue of one object, for tests.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing {
    use super::*;

    // In the order in which they go.
    pub(crate) struct Desk {
        pub(crate) source: Arc<Source>,
        queue: Arc<Queue>,
    }

    impl Desk {
        pub(crate) fn new(id: u64, events: usize) -> Result<Self> {
            let queue = Queue::new(events, None)?;
            let source = Source::of(&queue, id, events)?;
            Ok(Desk { source, queue })
        }

        pub(crate) fn read(&self) -> Option<Event> {
            Reader(cq::Reader::new(&self.queue)).read()
        }
    }

    impl Drop for Desk {
        fn drop(&mut self) {
            self.queue.shut();
        }
    }
}

#[kunit_tests(kfabric_eq)]
mod tests {
    use super::*;

    fn ended(endpoint: u64) -> Event {
        Event::Shutdown { endpoint }
    }

    fn read(queue: &Arc<Queue>) -> Option<u64> {
        match Reader(cq::Reader::new(queue)).read() {
            Some(Event::Shutdown { endpoint }) => Some(endpoint),
            _ => None,
        }
    }

    #[test]
    fn events_beyond_the_reserved_come_back() -> Result {
        let queue = Queue::new(3, None)?;
        let (one, two) = (Source::of(&queue, 1, 2)?, Source::of(&queue, 2, 1)?);
        assert_eq!(Source::of(&queue, 3, 1).err(), Some(ENOSPC));
        assert!(one.tell(ended(1)).is_ok() && one.tell(ended(1)).is_ok());
        assert!(matches!(
            one.tell(ended(7)),
            Err(Event::Shutdown { endpoint: 7 })
        ));
        // One object's events take nothing of another's room.
        assert!(two.tell(ended(2)).is_ok());
        assert_eq!(read(&queue), Some(1));
        assert!(one.tell(ended(1)).is_ok());
        for expected in [Some(1), Some(2), Some(1), None] {
            assert_eq!(read(&queue), expected);
        }
        Ok(())
    }

    #[test]
    fn nothing_is_left_where_nobody_reads() -> Result {
        let queue = Queue::new(1, None)?;
        let source = Source::of(&queue, 1, 1)?;
        queue.shut();
        // Its one slot is free each time.
        for _ in 0..3 {
            assert!(source.tell(ended(1)).is_ok());
            assert_eq!(read(&queue), None);
        }
        Ok(())
    }

    #[test]
    fn object_takes_back_its_own_events_only() -> Result {
        let queue = Queue::new(4, None)?;
        let (one, two) = (Source::of(&queue, 1, 2)?, Source::of(&queue, 2, 2)?);
        for source in [&one, &two, &one, &two] {
            assert!(source.tell(ended(source.id)).is_ok());
        }
        one.withdraw();
        for expected in [Some(2), Some(2), None] {
            assert_eq!(read(&queue), expected);
        }
        drop((one, two));
        assert!(!queue.is_bound());
        Ok(())
    }
}
