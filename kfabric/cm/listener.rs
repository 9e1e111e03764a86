// SPDX-License-Identifier: GPL-2.0

//! The requests that wait at a passive endpoint.
//!
//! A request stands in its listener's list until it is answered: accepted, rejected, dropped, or
//! rejected by the close of the listener. The list is the backlog. Who accepts keeps the request's place until the
//! answer has gone: if it can't go now, the request waits again, and if the listener closes meanwhile, it is rejected
//! as all others are. Of two answers the peer takes the first.
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
#[derive(Clone, Copy)]
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

    /// A request that is to be answered; `None` if it has been.
    pub(super) fn waiting(&self, ticket: u64) -> Option<Waiting> {
        let state = self.state.lock();
        state.waiting.iter().find(|it| it.ticket == ticket).copied()
    }

    /// Takes a request out that is answered; `None` if it has been.
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

#[kunit_tests(kfabric_cm_listener)]
mod tests {
    use super::*;
    use crate::cm::testing::{request, there, Bench};
    use crate::eq::testing::Desk;

    /// A listener with a backlog of 2, its events, and the way to who sent requests.
    // In the order in which they go.
    struct Rig {
        listener: Arc<Listener>,
        desk: Desk,
        bench: Bench,
    }

    impl Rig {
        fn new() -> Result<Self> {
            let (desk, bench) = (Desk::new(7, 2)?, Bench::new()?);
            let listener = Listener::new(2)?;
            listener.open(Open {
                source: desk.source.clone(),
                live: bench.ep.live().clone(),
            });
            Ok(Rig {
                listener,
                desk,
                bench,
            })
        }

        fn asks(&self, cookie: u64) -> Result {
            self.listener.request(7, &request(cookie))
        }

        /// The random number of the request that was rejected next.
        fn rejected(&self) -> Option<u64> {
            let (to, message) = self.bench.wire.next()?;
            let rejects = message.says == Says::Reject(ECONNREFUSED) && to == there();
            rejects.then_some(message.cookie)
        }

        /// Requests that wait, that came, and that were refused.
        fn counts(&self) -> (usize, u64, u64) {
            let state = self.listener.state.lock();
            (state.waiting.len(), state.requests, state.refused)
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            drop(self.listener.begin_end());
        }
    }

    #[test]
    fn request_beyond_the_backlog_is_refused() -> Result {
        let rig = Rig::new()?;
        rig.asks(5)?;
        rig.asks(6)?;
        assert_eq!(rig.asks(7), Err(ECONNREFUSED));
        assert_eq!(rig.counts(), (2, 3, 1));
        // One that was read still waits.
        let first = rig.desk.read();
        assert!(matches!(first, Some(Event::ConnectionRequest(_))));
        assert_eq!(rig.asks(8), Err(ECONNREFUSED));
        // It is the last word to who is refused: no message goes there.
        assert!(rig.rejected().is_none());
        drop(first);
        assert_eq!(rig.rejected(), Some(5));
        rig.asks(9)?;
        assert_eq!(rig.counts(), (2, 5, 2));
        Ok(())
    }

    #[test]
    fn request_is_taken_once() -> Result {
        let rig = Rig::new()?;
        rig.asks(5)?;
        rig.asks(6)?;
        // They are numbered as they come.
        let second = rig.listener.take(2).ok_or(ENOENT)?;
        assert!(second.cookie == 6 && second.from.name == there());
        assert!(rig.listener.take(2).is_none());
        // What was taken is answered by who took it.
        rig.listener.reject(7, 2, PrivateData::NONE);
        assert!(rig.rejected().is_none());
        rig.listener.reject(7, 1, PrivateData::NONE);
        assert_eq!(rig.rejected(), Some(5));
        assert_eq!(rig.counts(), (0, 2, 0));
        Ok(())
    }

    #[test]
    fn listener_that_is_not_open_hears_nothing() -> Result {
        let listener = Listener::new(2)?;
        assert_eq!(listener.request(7, &request(5)), Err(ECONNREFUSED));
        assert!(listener.begin_end().is_none());
        Ok(())
    }

    #[test]
    fn end_rejects_what_waits_and_takes_back_what_nobody_read() -> Result {
        let rig = Rig::new()?;
        rig.asks(5)?;
        rig.asks(6)?;
        let held = rig.desk.read();
        let ended = rig.listener.begin_end().ok_or(ENOENT)?;
        assert!(rig.listener.begin_end().is_none());
        assert_eq!(rig.asks(7), Err(ECONNREFUSED));
        ended.reject(7, rig.bench.ep.live().transport());
        assert_eq!(rig.rejected(), Some(5));
        assert_eq!(rig.rejected(), Some(6));
        ended.finish();
        assert!(rig.desk.read().is_none());
        // Whoever holds one has nothing to reject any more.
        drop(held);
        assert!(rig.rejected().is_none());
        Ok(())
    }

    #[test]
    fn request_that_there_is_no_room_to_tell_of_is_rejected() -> Result {
        let rig = Rig::new()?;
        for _ in 0..2 {
            assert!(rig
                .desk
                .source
                .tell(Event::Shutdown { endpoint: 7 })
                .is_ok());
        }
        rig.asks(5)?;
        assert_eq!(rig.rejected(), Some(5));
        assert_eq!(rig.counts(), (0, 1, 0));
        Ok(())
    }
}
