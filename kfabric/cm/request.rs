// SPDX-License-Identifier: GPL-2.0

//! A peer's wish to be connected.

use super::{Connection, Listener, PrivateData};
use crate::provider::AnyEndpoint;
use kernel::prelude::*;
use kernel::sync::Arc;

/// A peer's wish to be connected; dropping it rejects it.
///
/// It waits for an answer as long as its passive endpoint is open: the close of that rejects it
/// too. May be read, rejected and dropped in any context but hardirq.
#[must_use = "dropping it rejects the peer"]
pub struct ConnectionRequest {
    pub(super) listener: Arc<Listener>,
    pub(super) id: u64,
    pub(super) ticket: u64,
    pub(super) data: PrivateData,
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

    /// Connects an endpoint to the peer.
    ///
    /// # Errors
    /// - `EALREADY`, `EISCONN`, `ENOTCONN`: as [`Connection::begin_accept`]; it still waits.
    /// - `EAGAIN`: there is no room for the answer now; it still waits, and the endpoint is idle.
    /// - `ECONNABORTED`: it does not wait any more, or the peer does not. The endpoint is idle.
    pub(crate) fn accept(
        self,
        connection: &Connection,
        transport: &dyn AnyEndpoint,
        data: PrivateData,
    ) -> Result<(), (Error, Self)> {
        // First the endpoint, then the request: who has taken it must answer it.
        let accepting = match connection.begin_accept() {
            Ok(accepting) => accepting,
            Err(error) => return Err((error, self)),
        };
        let Some(waiting) = self.listener.waiting(self.ticket) else {
            return Err((ECONNABORTED, self));
        };
        match accepting.answer(transport, &waiting.from, waiting.cookie, data) {
            Err(EAGAIN) if self.listener.waiting(self.ticket).is_some() => Err((EAGAIN, self)),
            // The listener has closed meanwhile, and rejected it.
            Err(EAGAIN) => Err((ECONNABORTED, self)),
            done => {
                self.listener.take(self.ticket);
                done.map_err(|error| (error, self))
            }
        }
    }
}

impl Drop for ConnectionRequest {
    fn drop(&mut self) {
        self.listener
            .reject(self.id, self.ticket, PrivateData::NONE);
    }
}

#[kunit_tests(kfabric_cm_request)]
mod tests {
    use super::*;
    use crate::cm::connection::{self, Phase};
    use crate::cm::listener;
    use crate::cm::message::Says;
    use crate::cm::testing::{request, there, Bench};
    use crate::eq::testing::Desk;
    use crate::eq::Event;
    use kernel::sync::atomic::Relaxed;

    /// A listener, and a connection that may accept what reaches it.
    // In the order in which they go.
    struct Rig {
        listener: Arc<Listener>,
        connection: Arc<Connection>,
        desk: Desk,
        bench: Bench,
    }

    impl Rig {
        fn new() -> Result<Self> {
            let (desk, bench) = (Desk::new(7, 4)?, Bench::new()?);
            let (listener, connection) = (Listener::new(2)?, Connection::new(8)?);
            let (source, live) = (desk.source.clone(), bench.ep.live().clone());
            listener.open(listener::Open {
                source: source.clone(),
                live: live.clone(),
            });
            connection.open(connection::Open { source, live });
            Ok(Rig {
                listener,
                connection,
                desk,
                bench,
            })
        }

        /// A request that has come, with that random number.
        fn asks(&self, cookie: u64) -> Result<ConnectionRequest> {
            self.listener.request(7, &request(cookie))?;
            match self.desk.read() {
                Some(Event::ConnectionRequest(request)) => Ok(request),
                _ => Err(ENOENT),
            }
        }

        fn accept(&self, request: ConnectionRequest) -> Result<(), (Error, ConnectionRequest)> {
            let transport = self.bench.ep.live().transport();
            request.accept(&self.connection, transport, PrivateData::NONE)
        }

        /// What the peer was told next, and in answer to what.
        fn told(&self) -> Option<(Says, u64)> {
            let (to, message) = self.bench.wire.next()?;
            (to == there()).then_some((message.says, message.cookie))
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            drop(self.listener.begin_end());
            drop(self.connection.begin_end());
        }
    }

    #[test]
    fn request_waits_while_the_endpoint_is_busy() -> Result {
        let rig = Rig::new()?;
        let request = rig.asks(5)?;
        // Another is being accepted: one that turns out to be of no use.
        let other = rig.connection.begin_accept()?;
        let (error, request) = rig.accept(request).err().ok_or(EINVAL)?;
        assert_eq!(error, EALREADY);
        assert!(rig.told().is_none());
        drop(other);
        assert!(rig.accept(request).is_ok());
        assert!(rig.told() == Some((Says::Accept, 5)));
        assert!(rig.told().is_none());
        Ok(())
    }

    #[test]
    fn request_that_can_not_be_accepted_is_rejected_in_the_end() -> Result {
        let rig = Rig::new()?;
        let request = rig.asks(5)?;
        // The endpoint ends before it has left idle.
        drop(rig.connection.begin_end());
        let (error, request) = rig.accept(request).err().ok_or(EINVAL)?;
        assert_eq!(error, ENOTCONN);
        assert!(rig.told().is_none());
        drop(request);
        assert!(rig.told() == Some((Says::Reject(ECONNREFUSED), 5)));
        Ok(())
    }

    #[test]
    fn request_that_does_not_wait_leaves_the_endpoint_idle() -> Result {
        let rig = Rig::new()?;
        let request = rig.asks(5)?;
        drop(rig.listener.begin_end());
        let (error, request) = rig.accept(request).err().ok_or(EINVAL)?;
        assert_eq!(error, ECONNABORTED);
        assert_eq!(rig.connection.phase(), Phase::Idle);
        drop(request);
        assert!(rig.told().is_none());
        Ok(())
    }

    #[test]
    fn request_whose_answer_has_no_room_still_waits() -> Result {
        let rig = Rig::new()?;
        let (request, other) = (rig.asks(5)?, rig.asks(6)?);
        rig.bench.wire.error.store(EAGAIN.to_errno(), Relaxed);
        let (error, request) = rig.accept(request).err().ok_or(EINVAL)?;
        assert_eq!((error, rig.connection.phase()), (EAGAIN, Phase::Idle));
        rig.bench.wire.error.store(0, Relaxed);
        // In its place, which is nobody else's.
        assert!(rig.asks(8).is_err());
        drop(other);
        while rig.bench.wire.next().is_some() {}
        assert!(rig.accept(request).is_ok());
        assert!(rig.told() == Some((Says::Accept, 5)));
        Ok(())
    }

    #[test]
    fn request_is_answered_once() -> Result {
        let rig = Rig::new()?;
        rig.asks(5)?.reject(PrivateData::new(b"no")?);
        let (_, message) = rig.bench.wire.next().ok_or(ENOENT)?;
        assert!(message.says == Says::Reject(ECONNREFUSED) && message.cookie == 5);
        assert_eq!(message.data.as_bytes(), b"no");
        drop(rig.asks(6)?);
        assert!(rig.told() == Some((Says::Reject(ECONNREFUSED), 6)));
        // Nobody hears the answer: but it was one.
        rig.bench.wire.error.store(EHOSTUNREACH.to_errno(), Relaxed);
        let request = rig.asks(7)?;
        let (error, request) = rig.accept(request).err().ok_or(EINVAL)?;
        assert_eq!(error, ECONNABORTED);
        assert!(rig.told() == Some((Says::Accept, 7)));
        drop(request);
        assert!(rig.told().is_none());
        Ok(())
    }
}
