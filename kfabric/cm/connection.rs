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
    /// It waits for the answer to its request.
    Connecting,
    /// It is about to answer a request.
    Accepting,
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

    /// Leaves [`Phase::Idle`]. `EALREADY`, `EISCONN`: it has; `ENOTCONN`: the endpoint is closed.
    fn leave_idle(&self, to: Phase) -> Result<Guarded<'_>> {
        let mut state = self.state.lock();
        if state.open.is_none() {
            return Err(ENOTCONN);
        }
        match state.phase {
            Phase::Idle => state.phase = to,
            Phase::Connecting | Phase::Accepting => return Err(EALREADY),
            Phase::Connected | Phase::Ended => return Err(EISCONN),
        }
        Ok(state)
    }

    /// Requests a connection; how it ends is an event.
    ///
    /// Process context. Errors: as [`Connection::leave_idle`]; `EAGAIN`: there is no room for the
    /// request now, and it is idle.
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
        let sent = send(self.id, transport, to, Says::Request, cookie, data);
        match sent {
            Err(error) if error != EAGAIN => self.fail(error, PrivateData::NONE),
            _ => (),
        }
        drop(posts);
        match sent {
            Err(EAGAIN) => self.unask(),
            _ => Ok(()),
        }
    }

    /// Has it idle again, since its request is not on its way. Process context; sleeps.
    fn unask(&self) -> Result {
        // No timer of this request ends the next.
        self.stop();
        let mut state = self.state.lock();
        // Else an event has said how it ended, or its end says so.
        if state.phase != Phase::Connecting || state.open.is_none() {
            return Ok(());
        }
        state.phase = Phase::Idle;
        Err(EAGAIN)
    }

    /// Leaves [`Phase::Idle`], to answer a request: then no other can be taken, or made.
    ///
    /// Never sleeps; any context but hardirq. Errors: as [`Connection::leave_idle`].
    pub(super) fn begin_accept(&self) -> Result<Accepting<'_>> {
        let posts = rcu::read_lock();
        let state = self.leave_idle(Phase::Accepting)?;
        let source = state.open.as_ref().map(|open| open.source.clone());
        drop(state);
        Ok(Accepting {
            connection: self,
            source,
            _posts: posts,
        })
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

    /// Learns that what it said reached nobody who waits for it. In an RCU read section.
    pub(super) fn unheard(&self, message: &Message, error: Error) {
        match message.says {
            Says::Request if self.state.lock().cookie == message.cookie => {
                self.fail(error, PrivateData::NONE)
            }
            // It was taken for connected: the peer does not know of it.
            Says::Accept => self.peer_is_gone(self.peer.load(Relaxed)),
            Says::Request | Says::Reject(_) | Says::Shutdown => {}
        }
    }

    /// Hears that the peer has ended it: a work item ends the endpoint.
    pub(super) fn hung_up(&self, message: &Message) {
        self.peer_is_gone(message.from.number);
    }

    /// Learns that the peer of that number is through with it, as [`Connection::hung_up`].
    pub(super) fn peer_is_gone(&self, number: u64) {
        let mut state = self.state.lock();
        let known = self.peer.load(Relaxed) == number;
        // The peer may be through with it before this end has noted that its answer went well.
        if !matches!(state.phase, Phase::Connected | Phase::Accepting) || state.hung_up || !known {
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
    ///
    /// What was under way may still change how far it is, for a grace period.
    pub(super) fn begin_end(&self) -> Option<Open> {
        self.state.lock().open.take()
    }

    /// How far it is.
    pub(super) fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// The peer, if it is connected and has not ended the connection itself.
    pub(super) fn left_behind(&self) -> Option<Name> {
        let state = self.state.lock();
        (state.phase == Phase::Connected && !state.hung_up).then_some(state.peer)
    }

    /// Stops the timer. Sleeps; process context.
    pub(crate) fn stop(&self) {
        let timeout = self.state.lock().timeout.take();
        drop(timeout);
    }
}

/// An endpoint that is about to accept; idle again when this is dropped, unless it has answered.
#[must_use = "the endpoint is idle again when it is dropped"]
pub(super) struct Accepting<'a> {
    connection: &'a Connection,
    source: Option<Arc<Source>>,
    /// The end of the endpoint waits for it: so it tells the peer and the consumer of what came of
    /// it.
    _posts: rcu::Guard,
}

impl Accepting<'_> {
    /// Becomes the peer of who requested, tells it so, and then the consumer. Never sleeps.
    ///
    /// # Errors
    /// With each, the endpoint is idle again.
    /// - `ECONNABORTED`: it does not wait any more.
    /// - `EAGAIN`: there is no room for the answer now, and it was not told.
    pub(super) fn answer(
        self,
        transport: &dyn AnyEndpoint,
        from: &Party,
        cookie: u64,
        data: PrivateData,
    ) -> Result {
        let it = self.connection;
        // Before the answer: with it the peer may post, and who hears from it may answer.
        it.state.lock().peer = from.name;
        it.peer.store(from.number, Relaxed);
        send(it.id, transport, &from.name, Says::Accept, cookie, data).map_err(
            |error| match error {
                EAGAIN => EAGAIN,
                _ => ECONNABORTED,
            },
        )?;
        it.state.lock().phase = Phase::Connected;
        if let Some(source) = &self.source {
            let _ = source.tell(Event::Connected {
                endpoint: it.id,
                data: PrivateData::NONE,
            });
        }
        Ok(())
    }
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        let it = self.connection;
        let mut state = it.state.lock();
        if state.phase == Phase::Accepting {
            state.phase = Phase::Idle;
            state.peer = Name::NONE;
            it.peer.store(0, Relaxed);
        }
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
    use crate::cm::testing::{said, there, Bench, PEER};
    use crate::cm::Role;
    use crate::eq::testing::Desk;

    /// A connection, open; its events, and the endpoint that would end with it.
    // In the order in which they go.
    struct Rig {
        connection: Arc<Connection>,
        desk: Desk,
        bench: Bench,
    }

    impl Rig {
        fn new() -> Result<Self> {
            let (desk, bench) = (Desk::new(7, 2)?, Bench::new()?);
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

        /// Has telling end with that from now on.
        fn mute(&self, error: Error) {
            self.bench.wire.error.store(error.to_errno(), Relaxed);
        }

        /// Waits for an answer, as after a request that was sent.
        fn asked(&self, cookie: u64) -> Result {
            self.connection.leave_idle(Phase::Connecting)?.cookie = cookie;
            Ok(())
        }

        fn answer(&self, accepting: Accepting<'_>, cookie: u64) -> Result {
            let (from, none) = (said(Says::Request, cookie).from, PrivateData::NONE);
            accepting.answer(self.bench.ep.live().transport(), &from, cookie, none)
        }

        fn hear(&self, says: Says, cookie: u64, number: u64) -> Result {
            let mut message = said(says, cookie);
            message.from.number = number;
            match says {
                Says::Shutdown => {
                    self.connection.hung_up(&message);
                    Ok(())
                }
                _ => self.connection.answered(&message),
            }
        }

        fn is_idle(&self) -> bool {
            let nobody = self.connection.peer().is_none();
            let admits_nobody = self.connection.peer.load(Relaxed) == 0;
            self.connection.phase() == Phase::Idle && nobody && admits_nobody
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
        assert_eq!(rig.hear(Says::Accept, 0, PEER), Err(ECONNABORTED));
        rig.asked(5)?;
        for says in [Says::Accept, Says::Reject(ECONNREFUSED)] {
            assert_eq!(rig.hear(says, 6, PEER), Err(ECONNABORTED));
        }
        assert!(rig.desk.read().is_none() && rig.connection.peer().is_none());
        rig.hear(Says::Accept, 5, PEER)?;
        assert!(matches!(
            rig.desk.read(),
            Some(Event::Connected { endpoint: 7, .. })
        ));
        assert!(rig.connection.peer() == Some(there()));
        // Once.
        assert_eq!(rig.hear(Says::Accept, 5, PEER + 1), Err(ECONNABORTED));
        assert_eq!(rig.connection.peer.load(Relaxed), PEER);
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
        assert_eq!(rig.hear(Says::Accept, 5, PEER), Err(ECONNABORTED));
        assert_eq!(rig.asked(6), Err(EISCONN));
        Ok(())
    }

    #[test]
    fn request_that_reaches_nobody_fails_at_once() -> Result {
        let rig = Rig::new()?;
        let (to, live) = (there(), rig.bench.ep.live());
        let none = PrivateData::NONE;
        rig.mute(EHOSTUNREACH);
        rig.connection
            .connect(live.transport(), &to, none, 10_000)?;
        assert!(matches!(
            rig.desk.read(),
            Some(Event::Refused {
                error: EHOSTUNREACH,
                ..
            })
        ));
        assert_eq!(rig.connection.phase(), Phase::Ended);
        Ok(())
    }

    #[test]
    fn request_that_there_is_no_room_for_can_be_made_again() -> Result {
        let rig = Rig::new()?;
        let (to, none) = (there(), PrivateData::NONE);
        let connect = || {
            let transport = rig.bench.ep.live().transport();
            rig.connection.connect(transport, &to, none, 10_000)
        };
        rig.mute(EAGAIN);
        assert_eq!((connect(), connect()), (Err(EAGAIN), Err(EAGAIN)));
        assert!(rig.is_idle() && rig.desk.read().is_none());
        assert!(rig.connection.state.lock().timeout.is_none());
        // What ended it meanwhile has been told, or will be.
        rig.asked(5)?;
        rig.connection.fail(ETIMEDOUT, none);
        assert_eq!(rig.connection.unask(), Ok(()));
        assert_eq!(rig.connection.phase(), Phase::Ended);
        Ok(())
    }

    #[test]
    fn endpoint_accepts_one_request_at_a_time() -> Result {
        let rig = Rig::new()?;
        let accepting = rig.connection.begin_accept()?;
        assert_eq!(rig.connection.begin_accept().err(), Some(EALREADY));
        assert_eq!(rig.asked(5), Err(EALREADY));
        // It has no peer before the answer is on its way.
        assert!(!rig.connection.is_connected() && rig.connection.peer().is_none());
        drop(accepting);
        assert!(rig.is_idle());
        rig.asked(5)?;
        assert_eq!(rig.connection.begin_accept().err(), Some(EALREADY));
        Ok(())
    }

    #[test]
    fn accept_tells_the_peer_and_then_the_consumer() -> Result {
        let rig = Rig::new()?;
        rig.answer(rig.connection.begin_accept()?, 5)?;
        let (to, message) = rig.bench.wire.next().ok_or(ENOENT)?;
        assert!(to == there() && message.says == Says::Accept);
        assert_eq!((message.cookie, message.from.number), (5, 7));
        assert!(matches!(
            rig.desk.read(),
            Some(Event::Connected { endpoint: 7, .. })
        ));
        assert!(rig.connection.is_connected() && rig.connection.peer() == Some(there()));
        assert_eq!(rig.connection.peer.load(Relaxed), PEER);
        assert_eq!(rig.connection.begin_accept().err(), Some(EISCONN));
        Ok(())
    }

    #[test]
    fn accept_that_reaches_nobody_leaves_it_idle() -> Result {
        let rig = Rig::new()?;
        for (error, says) in [(EHOSTUNREACH, ECONNABORTED), (EAGAIN, EAGAIN)] {
            rig.mute(error);
            let answered = rig.answer(rig.connection.begin_accept()?, 5);
            assert_eq!(answered, Err(says));
            assert!(rig.desk.read().is_none() && rig.is_idle());
        }
        Ok(())
    }

    #[test]
    fn end_amid_an_accept_tells_of_what_came_of_it() -> Result {
        for error in [None, Some(ECONNABORTED)] {
            let rig = Rig::new()?;
            let accepting = rig.connection.begin_accept()?;
            let ending = Role::Connection(rig.connection.clone()).begin_end();
            if let Some(error) = error {
                rig.mute(error);
            }
            assert_eq!(rig.answer(accepting, 5).err(), error);
            assert!(rig.bench.wire.next().is_some());
            // Here a grace period has passed.
            let live = rig.bench.ep.live();
            let port = rig.bench.wire.port(rig.bench.ep.id()).ok_or(ENOENT)?;
            ending.tell(&port, live.transport());
            ending.finish(ECANCELED);
            let told = rig.bench.wire.next().map(|(_, message)| message.says);
            assert!(told == error.is_none().then_some(Says::Shutdown));
            if error.is_none() {
                assert!(matches!(rig.desk.read(), Some(Event::Connected { .. })));
                assert!(matches!(rig.desk.read(), Some(Event::Shutdown { .. })));
            }
            // An endpoint that was never connected has nothing to be shut down.
            assert!(rig.desk.read().is_none());
            assert_eq!(rig.connection.begin_accept().err(), Some(ENOTCONN));
        }
        Ok(())
    }

    #[test]
    fn only_the_peer_hangs_up() -> Result {
        let rig = Rig::new()?;
        let refusal = || rig.bench.ep.live().refusal();
        rig.hear(Says::Shutdown, 0, PEER)?;
        rig.asked(5)?;
        rig.hear(Says::Shutdown, 0, PEER)?;
        rig.hear(Says::Accept, 5, PEER)?;
        rig.hear(Says::Shutdown, 0, PEER + 1)?;
        assert_eq!(refusal(), None);
        rig.hear(Says::Shutdown, 0, PEER)?;
        assert_eq!(refusal(), Some(ENOTCONN));
        Ok(())
    }

    #[test]
    fn peer_that_hangs_up_amid_the_accept_is_heard() -> Result {
        let rig = Rig::new()?;
        let accepting = rig.connection.begin_accept()?;
        // As `answer` does before it tells the peer.
        rig.connection.peer.store(PEER, Relaxed);
        rig.hear(Says::Shutdown, 0, PEER)?;
        assert_eq!(rig.bench.ep.live().refusal(), Some(ENOTCONN));
        rig.answer(accepting, 5)?;
        // It knows.
        assert!(rig.connection.left_behind().is_none());
        Ok(())
    }
}
