// SPDX-License-Identifier: GPL-2.0

//! The requests that wait at a passive endpoint.
//!
//! A request stands in its listener's list until it is answered: accepted, rejected, dropped, or
//! rejected by the close of the listener. The list is the backlog.
//!
//! Locks: `state` is a leaf lock, interrupts disabled; nothing is told or sent with it held.

use super::message::{send, Party, Says};
use super::{ConnectionRequest, Message, PrivateData};
use crate::debugfs;
use crate::endpoint::Live;
use crate::eq::{Event, Source};
use crate::provider::AnyEndpoint;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, rcu, Arc, SpinLockIrq};

/// A request that is not answered yet.
pub(super) struct Waiting {
    ticket: u64,
    pub(super) from: Party,
    pub(super) cookie: u64,
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
pub(super) struct Open {
    pub(super) source: Arc<Source>,
    pub(super) live: Arc<Live>,
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
    pub(super) fn new(backlog: usize) -> Result<Arc<Self>> {
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

    /// Begins to listen.
    pub(super) fn open(&self, open: Open) {
        self.state.lock().open = Some(open);
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
    pub(super) fn take(&self, ticket: u64) -> Option<Waiting> {
        let mut state = self.state.lock();
        let at = state.waiting.iter().position(|it| it.ticket == ticket)?;
        state.waiting.remove(at).ok()
    }

    /// Rejects a request, unless it has been answered.
    pub(super) fn reject(&self, number: u64, ticket: u64, data: PrivateData) {
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
