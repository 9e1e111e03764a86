// SPDX-License-Identifier: GPL-2.0

//! Passive endpoints: names that peers connect to.
//!
//! A request stands in its listener's list until it is answered: accepted, rejected, dropped, or
//! rejected by the close of the listener. The list is the backlog.
//!
//! Locks: `state` is a leaf lock, interrupts disabled; nothing is told or sent with it held. Source:
//! fi_passive_ep(3), fi_listen(3).

use super::{send, Connection, Message, Party, PrivateData, Role, Says};
use crate::av::Name;
use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use crate::endpoint::{self, Live};
use crate::eq::{Event, EventQueue, Source};
use crate::info::{EndpointType, Info};
use crate::provider::{AnyEndpoint, Port};
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, rcu, Arc, SpinLockIrq};

/// A peer's wish to be connected; dropping it rejects it.
///
/// It waits for an answer as long as its passive endpoint is open: the close of that rejects it too.
/// May be read, rejected and dropped in any context but hardirq.
#[must_use = "dropping it rejects the peer"]
pub struct ConnectionRequest {
    listener: Arc<Listener>,
    id: u64,
    ticket: u64,
    data: PrivateData,
}

impl ConnectionRequest {
    /// The number of the passive endpoint that it reached.
    pub fn listener(&self) -> u64 {
        self.id
    }

    /// What the peer sent with it.
    pub fn data(&self) -> &[u8] {
        self.data.as_bytes()
    }

    /// Rejects it, and sends `data` to the peer. Never sleeps; any context but hardirq.
    ///
    /// Source: fi_reject(3).
    pub fn reject(self, data: PrivateData) {
        self.listener.reject(self.id, self.ticket, data);
    }

    /// Connects an endpoint to the peer. Errors: `ECONNABORTED`, and those of
    /// [`Connection::accept`].
    pub(crate) fn accept(
        self,
        connection: &Connection,
        transport: &dyn AnyEndpoint,
        data: PrivateData,
    ) -> Result<(), (Error, Self)> {
        // Not before the endpoint is known to be idle: else it may have another.
        if let Err(error) = connection.check_idle() {
            return Err((error, self));
        }
        let Some(waiting) = self.listener.take(self.ticket) else {
            return Err((ECONNABORTED, self));
        };
        connection
            .accept(transport, &waiting.from, waiting.cookie, data)
            .map_err(|error| (error, self))
    }
}

impl Drop for ConnectionRequest {
    fn drop(&mut self) {
        self.listener
            .reject(self.id, self.ticket, PrivateData::NONE);
    }
}

/// A request that is not answered yet.
struct Waiting {
    ticket: u64,
    from: Party,
    cookie: u64,
}

/// What a passive endpoint shares with its requests.
#[pin_data]
pub(crate) struct Listener {
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    /// `None` before it listens, and once its end has begun.
    open: Option<Open>,
    waiting: KVec<Waiting>,
    /// How many may wait.
    backlog: usize,
    requests: u64,
    refused: u64,
}

/// Where a listener tells of requests, and the way to who sent them.
#[derive(Clone)]
struct Open {
    source: Arc<Source>,
    live: Arc<Live>,
}

/// A listener that hears nothing any more.
pub(crate) struct Ended {
    open: Open,
    waiting: KVec<Waiting>,
}

impl Ended {
    /// Rejects what waits.
    pub(crate) fn reject(&self, number: u64, transport: &dyn AnyEndpoint) {
        for it in &self.waiting {
            let says = Says::Reject(ECONNREFUSED);
            // If nobody waits for the answer, nobody misses it.
            let _ = send(
                number,
                transport,
                &it.from.name,
                says,
                it.cookie,
                PrivateData::NONE,
            );
        }
    }

    /// Takes back the requests that nobody has read.
    pub(crate) fn finish(self) {
        self.open.source.withdraw();
    }
}

impl Listener {
    fn new(backlog: usize) -> Result<Arc<Self>> {
        let state = State {
            open: None,
            waiting: KVec::with_capacity(backlog, GFP_KERNEL)?,
            backlog,
            requests: 0,
            refused: 0,
        };
        Arc::pin_init(
            pin_init!(Listener {
                state <- new_spinlock_irq!(state, "kfi_listener"),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes a peer's request. In an RCU read section. `ECONNREFUSED`: there is no room, or it is
    /// closed.
    pub(super) fn request(self: &Arc<Self>, id: u64, message: &Message) -> Result {
        let mut state = self.state.lock();
        let Some(open) = state.open.clone() else {
            return Err(ECONNREFUSED);
        };
        state.requests += 1;
        let ticket = state.requests;
        let waiting = Waiting {
            ticket,
            from: message.from,
            cookie: message.cookie,
        };
        // There is room for the backlog, and no more.
        if state.waiting.push_within_capacity(waiting).is_err() {
            state.refused += 1;
            return Err(ECONNREFUSED);
        }
        drop(state);
        let request = ConnectionRequest {
            listener: self.clone(),
            id,
            ticket,
            data: message.data,
        };
        // There is room: each unread event is one that waits.
        let told = open.source.tell(Event::ConnectionRequest(request));
        // Else the request is dropped here, which rejects it.
        drop(told);
        Ok(())
    }

    /// Takes a request to be answered; `None` if it has been.
    fn take(&self, ticket: u64) -> Option<Waiting> {
        let mut state = self.state.lock();
        let at = state.waiting.iter().position(|it| it.ticket == ticket)?;
        state.waiting.remove(at).ok()
    }

    /// Rejects a request, unless it has been answered.
    fn reject(&self, number: u64, ticket: u64, data: PrivateData) {
        // The end of the listener waits for it, and drops the last reference to the provider's.
        let posts = rcu::read_lock();
        let live = self
            .state
            .lock()
            .open
            .as_ref()
            .map(|open| open.live.clone());
        if let Some((live, it)) = live.and_then(|live| Some((live, self.take(ticket)?))) {
            let says = Says::Reject(ECONNREFUSED);
            // If nobody waits for the answer, nobody misses it.
            let transport = live.transport();
            let _ = send(number, transport, &it.from.name, says, it.cookie, data);
        }
        drop(posts);
    }

    /// Begins its end: it hears nothing any more. Once; `None` later.
    pub(super) fn begin_end(&self) -> Option<Ended> {
        let mut state = self.state.lock();
        let open = state.open.take()?;
        let waiting = core::mem::take(&mut state.waiting);
        Some(Ended { open, waiting })
    }

    /// Writes what it counts.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let rows = [
            ("backlog", state.backlog as u64),
            ("waiting", state.waiting.len() as u64),
            ("requests", state.requests),
            ("refused", state.refused),
        ];
        drop(state);
        debugfs::rows(f, &rows)
    }
}

/// An endpoint that is connected to, and moves nothing itself.
///
/// Dropping it closes it, as [`PassiveEndpoint::close`] does: process context, sleeps.
pub struct PassiveEndpoint {
    _file: debugfs::File,
    live: Arc<Live>,
    id: u64,
    // The owner of the room for its events.
    _source: Arc<Source>,
    // Last: it holds the provider's module.
    domain: Child,
}

impl PassiveEndpoint {
    /// Opens a passive endpoint and listens: requests come to `eq`.
    ///
    /// At most `backlog` requests wait for an answer, read or not; one more is refused. Sleeps;
    /// process context.
    ///
    /// # Errors
    /// - `EINVAL`: `backlog` is 0; `eq` or `info` is of another domain; `info` is not of type
    ///   [`EndpointType::Msg`].
    /// - `ENOSPC`: `eq` is too small for what is bound to it.
    /// - `EOPNOTSUPP`: the provider brings no connection messages.
    /// - `ENODEV`: the provider is gone.
    /// - `ENOMEM`.
    ///
    /// Source: fi_passive_ep(3), fi_listen(3).
    pub fn listen(domain: &Domain, info: &Info, eq: &EventQueue, backlog: usize) -> Result<Self> {
        let child = domain.child(Class::PassiveEndpoint)?;
        child.check(info)?;
        if backlog == 0
            || info.endpoint_type != EndpointType::Msg
            || !Arc::ptr_eq(eq.domain().core(), child.core())
        {
            return Err(EINVAL);
        }
        let id = endpoint::next_id();
        let source = Source::new(eq, id, backlog)?;
        let listener = Listener::new(backlog)?;
        let shown = Shown::Listener(listener.clone());
        let file = debugfs::file(domain.dir(), fmt!("passive-{id}"), shown)?;
        let port = Port::new(
            id,
            child.core().clone(),
            None,
            Role::Listener(listener.clone()),
        )?;
        let live = Live::open(&child, port, None, info)?;
        let passive = PassiveEndpoint {
            _file: file,
            live,
            id,
            _source: source.clone(),
            domain: child,
        };
        if !passive.live.transport().connects() {
            return Err(EOPNOTSUPP);
        }
        listener.state.lock().open = Some(Open {
            source,
            live: passive.live.clone(),
        });
        passive.domain.entry().enlist(&passive.live)?;
        Ok(passive)
    }

    /// The name to connect to. Source: fi_getname(3).
    pub fn name(&self) -> Name {
        self.live.transport().name()
    }

    /// Its number: that of [`ConnectionRequest::listener`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Closes it: each request that is not answered is rejected, read or not. Sleeps; process
    /// context. Connections that were accepted stay.
    pub fn close(self) {}
}

impl Drop for PassiveEndpoint {
    fn drop(&mut self) {
        self.live.shutdown(ECANCELED);
        self.domain.entry().delist(&self.live);
    }
}
