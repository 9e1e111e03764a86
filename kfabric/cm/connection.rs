// SPDX-License-Identifier: GPL-2.0

//! The connection of an endpoint: how far it is, and with whom.
//!
//! Locks: `state` is a leaf lock, interrupts disabled; nothing is told or sent with it held.

use super::message::{send, Party, Says};
use super::{Message, PrivateData};
use crate::av::Name;
use crate::endpoint::Live;
use crate::eq::{Event, Source};
use crate::provider::AnyEndpoint;
use kernel::impl_has_hr_timer;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::lock::spinlock::SpinLockIrqBackend;
use kernel::sync::lock::Guard;
use kernel::sync::{new_spinlock_irq, rcu, Arc, ArcBorrow, SpinLockIrq};
use kernel::time::hrtimer::{
    ArcHrTimerHandle, HrTimer, HrTimerCallback, HrTimerCallbackContext, HrTimerPointer,
    HrTimerRestart, RelativeSoftMode,
};
use kernel::time::{Delta, Monotonic, Msecs};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Connecting,
    Connected,
    /// It could not be connected, or has ended.
    Ended,
}

/// The connection of an endpoint: one in its life.
#[pin_data]
pub(crate) struct Connection {
    /// Its endpoint's number.
    pub(super) id: u64,
    /// The number of the peer's endpoint, whose operations are taken; 0 before there is one.
    pub(super) peer: Atomic<u64>,
    #[pin]
    state: SpinLockIrq<State>,
    #[pin]
    timer: HrTimer<Self>,
}

struct State {
    phase: Phase,
    /// The peer, once connected.
    peer: Name,
    cookie: u64,
    /// Whether the peer has ended it.
    hung_up: bool,
    /// `None` before the endpoint is enabled, and once its end has begun.
    open: Option<Open>,
    /// Bounds the wait for an answer; refers to the connection until [`Connection::stop`].
    timeout: Option<ArcHrTimerHandle<Connection>>,
}

/// Where a connection is told of, and what ends with it.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) source: Arc<Source>,
    pub(crate) live: Arc<Live>,
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Connection {
        mode: RelativeSoftMode<Monotonic>, field: self.timer
    }
}

impl HrTimerCallback for Connection {
    type Pointer<'a> = Arc<Self>;

    fn run(this: ArcBorrow<'_, Self>, _: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        let posts = rcu::read_lock();
        this.fail(ETIMEDOUT, PrivateData::NONE);
        drop(posts);
        HrTimerRestart::NoRestart
    }
}

impl Connection {
    /// A connection of the endpoint with this number. May sleep. `ENOMEM`.
    pub(crate) fn new(id: u64) -> Result<Arc<Self>> {
        let state = State {
            phase: Phase::Idle,
            peer: Name::NONE,
            cookie: 0,
            hung_up: false,
            open: None,
            timeout: None,
        };
        Arc::pin_init(
            pin_init!(Connection {
                id,
                peer: Atomic::new(0),
                state <- new_spinlock_irq!(state, "kfi_cm"),
                timer <- HrTimer::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Begins: the endpoint is enabled.
    pub(crate) fn open(&self, open: Open) {
        self.state.lock().open = Some(open);
    }

    /// The peer; `None` before the endpoint has been connected. Any context but hardirq.
    #[inline]
    pub(crate) fn peer(&self) -> Option<Name> {
        let state = self.state.lock();
        (state.peer != Name::NONE).then_some(state.peer)
    }

    /// Whether it is connected, as far as this end knows.
    pub(crate) fn is_connected(&self) -> bool {
        let state = self.state.lock();
        state.phase == Phase::Connected && state.open.is_some()
    }

    /// Whether it can be connected. Errors: as [`Connection::leave_idle`].
    pub(super) fn check_idle(&self) -> Result {
        self.leave_idle(Phase::Idle).map(|_| ())
    }

    /// Leaves [`Phase::Idle`]. `EALREADY`, `EISCONN`: it has; `ENOTCONN`: the endpoint is closed.
    fn leave_idle(&self, to: Phase) -> Result<Guarded<'_>> {
        let mut state = self.state.lock();
        if state.open.is_none() {
            return Err(ENOTCONN);
        }
        match state.phase {
            Phase::Idle => state.phase = to,
            Phase::Connecting => return Err(EALREADY),
            Phase::Connected | Phase::Ended => return Err(EISCONN),
        }
        Ok(state)
    }

    /// Requests a connection; how it ends is an event.
    ///
    /// Process context. Errors: as [`Connection::leave_idle`].
    pub(crate) fn connect(
        self: &Arc<Self>,
        transport: &dyn AnyEndpoint,
        to: &Name,
        data: PrivateData,
        timeout: Msecs,
    ) -> Result {
        let cookie = crate::sys::random::u64();
        let posts = rcu::read_lock();
        self.leave_idle(Phase::Connecting)?.cookie = cookie;
        let timer = self.clone().start(Delta::from_millis(timeout.into()));
        self.state.lock().timeout = Some(timer);
        if let Err(error) = send(self.id, transport, to, Says::Request, cookie, data) {
            self.fail(error, PrivateData::NONE);
        }
        drop(posts);
        Ok(())
    }

    /// Becomes the peer of who requested, and answers.
    ///
    /// # Errors
    /// As [`Connection::leave_idle`]; `ECONNABORTED`: it does not wait any more, and the endpoint
    /// can't be connected.
    pub(super) fn accept(
        &self,
        transport: &dyn AnyEndpoint,
        from: &Party,
        cookie: u64,
        data: PrivateData,
    ) -> Result {
        // The end of this endpoint waits for it, and tells the peer, and the consumer, after it.
        let posts = rcu::read_lock();
        let mut state = self.leave_idle(Phase::Connected)?;
        state.peer = from.name;
        let source = state.open.as_ref().map(|open| open.source.clone());
        drop(state);
        // Before the answer: then the peer may post.
        self.peer.store(from.number, Relaxed);
        let answered = send(self.id, transport, &from.name, Says::Accept, cookie, data);
        if answered.is_err() {
            let mut state = self.state.lock();
            state.phase = Phase::Ended;
            state.peer = Name::NONE;
            drop(state);
            self.peer.store(0, Relaxed);
        } else if let Some(source) = source {
            let _ = source.tell(Event::Connected {
                endpoint: self.id,
                data: PrivateData::NONE,
            });
        }
        drop(posts);
        answered.map_err(|_| ECONNABORTED)
    }

    /// Hears the answer to a request.
    pub(super) fn answered(&self, message: &Message) -> Result {
        let mut state = self.state.lock();
        if state.phase != Phase::Connecting || state.cookie != message.cookie {
            return Err(ECONNABORTED);
        }
        let Some(open) = state.open.clone() else {
            return Err(ECONNABORTED);
        };
        let event = match message.says {
            Says::Reject(error) => {
                state.phase = Phase::Ended;
                refused(self.id, error, message.data)
            }
            _ => {
                state.phase = Phase::Connected;
                state.peer = message.from.name;
                self.peer.store(message.from.number, Relaxed);
                Event::Connected {
                    endpoint: self.id,
                    data: message.data,
                }
            }
        };
        drop(state);
        let _ = open.source.tell(event);
        Ok(())
    }

    /// Ends an attempt that nobody has answered. In an RCU read section.
    fn fail(&self, error: Error, data: PrivateData) {
        let mut state = self.state.lock();
        if state.phase != Phase::Connecting {
            return;
        }
        let Some(open) = state.open.clone() else {
            return; // its end tells
        };
        state.phase = Phase::Ended;
        drop(state);
        let _ = open.source.tell(refused(self.id, error, data));
    }

    /// Hears that the peer has ended it: a work item ends the endpoint.
    pub(super) fn hung_up(&self, message: &Message) {
        let mut state = self.state.lock();
        let known = self.peer.load(Relaxed) == message.from.number;
        if state.phase != Phase::Connected || state.hung_up || !known {
            return;
        }
        state.hung_up = true;
        let open = state.open.clone();
        drop(state);
        if let Some(open) = open {
            open.live.hang_up();
        }
    }

    /// Begins its end: nothing is heard any more. Once; `None` later.
    pub(super) fn begin_end(&self) -> Option<(Open, Phase, Name, bool)> {
        let mut state = self.state.lock();
        let open = state.open.take()?;
        Some((open, state.phase, state.peer, state.hung_up))
    }

    /// Stops the timer. Sleeps; process context.
    pub(crate) fn stop(&self) {
        let timeout = self.state.lock().timeout.take();
        drop(timeout);
    }
}

/// The state of a connection, locked.
type Guarded<'a> = Guard<'a, State, SpinLockIrqBackend>;

/// The event that an endpoint could not be connected.
pub(super) fn refused(endpoint: u64, error: Error, data: PrivateData) -> Event {
    Event::Refused {
        endpoint,
        error,
        data,
    }
}

#[kunit_tests(kfabric_cm_connection)]
mod tests {
    use super::*;
    use crate::eq::testing::Desk;
    use crate::provider::testing;

    /// Has the provider's messages go nowhere.
    const MUTE: Result = Err(EOPNOTSUPP);

    /// A connection, open; its events, and the endpoint that would end with it.
    // In the order in which they go.
    struct Rig {
        connection: Arc<Connection>,
        desk: Desk,
        bench: testing::Bench,
    }

    impl Rig {
        fn new() -> Result<Self> {
            let (desk, bench) = (Desk::new(7, 2)?, testing::Bench::new()?);
            let connection = Connection::new(7)?;
            connection.open(Open {
                source: desk.source.clone(),
                live: bench.ep.live().clone(),
            });
            Ok(Rig {
                connection,
                desk,
                bench,
            })
        }

        /// Waits for an answer, as after a request that was sent.
        fn asked(&self, cookie: u64) -> Result {
            self.connection.leave_idle(Phase::Connecting)?.cookie = cookie;
            Ok(())
        }

        fn hear(&self, says: Says, cookie: u64, number: u64) -> Result {
            let name = self.bench.ep.name();
            let message = Message {
                from: Party { name, number },
                says,
                cookie,
                data: PrivateData::NONE,
            };
            match says {
                Says::Shutdown => {
                    self.connection.hung_up(&message);
                    Ok(())
                }
                _ => self.connection.answered(&message),
            }
        }

        fn phase(&self) -> Phase {
            self.connection.state.lock().phase
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            drop(self.connection.begin_end());
            self.connection.stop();
        }
    }

    #[test]
    fn answer_is_of_who_was_asked() -> Result {
        let rig = Rig::new()?;
        // Nobody was asked.
        assert_eq!(rig.hear(Says::Accept, 0, 3), Err(ECONNABORTED));
        rig.asked(5)?;
        for says in [Says::Accept, Says::Reject(ECONNREFUSED)] {
            assert_eq!(rig.hear(says, 6, 3), Err(ECONNABORTED));
        }
        assert!(rig.desk.read().is_none() && rig.connection.peer().is_none());
        rig.hear(Says::Accept, 5, 3)?;
        assert!(matches!(
            rig.desk.read(),
            Some(Event::Connected { endpoint: 7, .. })
        ));
        assert!(rig.connection.peer() == Some(rig.bench.ep.name()));
        // Once.
        assert_eq!(rig.hear(Says::Accept, 5, 4), Err(ECONNABORTED));
        assert_eq!(rig.connection.peer.load(Relaxed), 3);
        Ok(())
    }

    #[test]
    fn attempt_fails_once() -> Result {
        let rig = Rig::new()?;
        rig.connection.fail(ETIMEDOUT, PrivateData::NONE);
        assert!(rig.desk.read().is_none());
        rig.asked(5)?;
        rig.connection.fail(ETIMEDOUT, PrivateData::NONE);
        rig.connection.fail(EHOSTUNREACH, PrivateData::NONE);
        assert!(matches!(
            rig.desk.read(),
            Some(Event::Refused {
                endpoint: 7,
                error: ETIMEDOUT,
                ..
            })
        ));
        assert!(rig.desk.read().is_none());
        // The answer comes too late.
        assert_eq!(rig.hear(Says::Accept, 5, 3), Err(ECONNABORTED));
        assert_eq!(rig.asked(6), Err(EISCONN));
        Ok(())
    }

    #[test]
    fn request_that_reaches_nobody_fails_at_once() -> Result {
        let rig = Rig::new()?;
        let (to, live) = (rig.bench.ep.name(), rig.bench.ep.live());
        let none = PrivateData::NONE;
        rig.connection
            .connect(live.transport(), &to, none, 10_000)?;
        assert!(matches!(
            rig.desk.read(),
            Some(Event::Refused { error, .. }) if Err(error) == MUTE
        ));
        assert_eq!(rig.phase(), Phase::Ended);
        Ok(())
    }

    #[test]
    fn accept_that_reaches_nobody_connects_nothing() -> Result {
        let rig = Rig::new()?;
        let live = rig.bench.ep.live();
        let name = rig.bench.ep.name();
        let from = Party { name, number: 3 };
        let answered = rig
            .connection
            .accept(live.transport(), &from, 5, PrivateData::NONE);
        assert_eq!(answered, Err(ECONNABORTED));
        assert!(rig.desk.read().is_none() && rig.connection.peer().is_none());
        assert_eq!(rig.connection.peer.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn only_the_peer_hangs_up() -> Result {
        let rig = Rig::new()?;
        let refusal = || rig.bench.ep.live().refusal();
        rig.hear(Says::Shutdown, 0, 3)?;
        rig.asked(5)?;
        rig.hear(Says::Shutdown, 0, 3)?;
        rig.hear(Says::Accept, 5, 3)?;
        rig.hear(Says::Shutdown, 0, 4)?;
        assert_eq!(refusal(), None);
        rig.hear(Says::Shutdown, 0, 3)?;
        assert_eq!(refusal(), Some(ENOTCONN));
        Ok(())
    }
}
