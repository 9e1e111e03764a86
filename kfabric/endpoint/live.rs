// SPDX-License-Identifier: GPL-2.0

//! The part of an endpoint that its domain's end reaches.
//!
//! Locks: `shut` is a mutex, taken under no other but that of who ends the domain, or opens the endpoint.

use crate::av::{Address, Name};
use crate::cm::{Connection, ConnectionRequest, PrivateData, Role};
use crate::domain::Opening;
use crate::info::Info;
use crate::op::Operation;
use crate::provider::{AnyEndpoint, Port, Rejected};
use crate::rdm::fence::Fence;
use crate::sys::once;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full};
use kernel::sync::rcu::Guard;
use kernel::sync::{new_mutex, rcu, Arc, Mutex, UniqueArc};
use kernel::time::Msecs;
use kernel::workqueue::{self, impl_has_work, new_work, Work, WorkItem};

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
    pub(super) fn disconnect(&self) -> Result {
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

    /// Refuses posts and completes all that is in flight, with `error`, or with `ENODEV` if its domain
    /// is ending. Once; others wait for it.
    ///
    /// Sleeps; process context.
    pub(crate) fn shutdown(&self, error: Error) {
        let mut shut = self.shut.lock();
        if *shut {
            return;
        }
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
        *shut = true;
    }
}
