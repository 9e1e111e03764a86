// SPDX-License-Identifier: GPL-2.0

//! The end of an endpoint that is under way: what its peers and its consumer are told.

use super::connection::{refused, Connection, Open, Phase};
use super::message::{send, Says};
use super::{listener, PrivateData};
use crate::eq::Event;
use crate::provider::{AnyEndpoint, Port};
use kernel::prelude::*;
use kernel::sync::Arc;

/// The end of an endpoint that is under way.
pub(crate) enum Ending {
    /// There is nobody to tell, or it has been begun before.
    Silent,
    Connection {
        open: Open,
        connection: Arc<Connection>,
    },
    Listener(listener::Ended),
}

impl Ending {
    /// Tells the peers; those that end as well hear nothing. Nothing is heard any more: a grace period
    /// has passed since it was begun.
    pub(crate) fn tell(&self, port: &Port, transport: &dyn AnyEndpoint) {
        match self {
            Ending::Silent => {}
            Ending::Connection { connection, .. } => {
                if let Some(peer) = &connection.left_behind() {
                    let says = Says::Shutdown;
                    // If there is no such peer any more, it knows.
                    let _ = send(port.id(), transport, peer, says, 0, PrivateData::NONE);
                }
            }
            Ending::Listener(ended) => ended.reject(port.id(), transport),
        }
    }

    /// Tells the consumer. No operation of the endpoint is with its provider any more.
    pub(crate) fn finish(self, error: Error) {
        match self {
            Ending::Silent => {}
            Ending::Connection { open, connection } => {
                let id = connection.id;
                let event = match connection.phase() {
                    Phase::Connected => Event::Shutdown { endpoint: id },
                    Phase::Connecting => refused(id, error, PrivateData::NONE),
                    Phase::Idle | Phase::Accepting | Phase::Ended => return,
                };
                // There is room for it: an endpoint ends once.
                let _ = open.source.tell(event);
            }
            Ending::Listener(ended) => ended.finish(),
        }
    }
}

#[kunit_tests(kfabric_cm_ending)]
mod tests {
    use super::*;
    use crate::cm::testing::{accept, request, said, there, Bench, PEER};
    use crate::cm::{Listener, Role};
    use crate::eq::testing::Desk;
    use kernel::sync::atomic::Relaxed;

    /// How long nobody answers, in milliseconds: longer than a test takes.
    const LONG: u32 = 60_000;

    /// A connection, open; its events, and the endpoint that would end with it.
    // In the order in which they go.
    struct Rig {
        connection: Arc<Connection>,
        desk: Desk,
        /// That of the endpoint, which an end takes out of the provider.
        port: Arc<Port>,
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
                port: bench.wire.port(bench.ep.id()).ok_or(ENOENT)?,
                bench,
            })
        }

        /// Brings it so far.
        fn reach(&self, phase: Phase) -> Result {
            if phase == Phase::Idle {
                return Ok(());
            }
            let (to, transport) = (there(), self.bench.ep.live().transport());
            self.connection
                .connect(transport, &to, PrivateData::NONE, LONG)?;
            let (_, asks) = self.bench.wire.next().ok_or(ENOENT)?;
            let answer = match phase {
                Phase::Connected => accept(&asks),
                Phase::Ended => said(Says::Reject(EACCES), asks.cookie),
                _ => return Ok(()),
            };
            self.connection.answered(&answer)?;
            self.desk.read().map(drop).ok_or(ENOENT)
        }

        fn begin_end(&self) -> Ending {
            Role::Connection(self.connection.clone()).begin_end()
        }

        /// Ends it as an endpoint does; gives what the peer was told.
        fn end(&self, ending: Ending, error: Error) -> Result<Option<Says>> {
            ending.tell(&self.port, self.bench.ep.live().transport());
            // First the peer, then the consumer.
            assert!(self.desk.read().is_none());
            ending.finish(error);
            let Some((to, message)) = self.bench.wire.next() else {
                return Ok(None);
            };
            assert!(to == there() && message.from.number == self.port.id());
            assert!(self.bench.wire.next().is_none());
            Ok(Some(message.says))
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            drop(self.begin_end());
            self.connection.stop();
        }
    }

    #[test]
    fn each_side_is_told_what_it_does_not_know() -> Result {
        for (phase, tells) in [
            (Phase::Idle, false),
            (Phase::Connecting, false),
            (Phase::Connected, true),
            (Phase::Ended, false),
        ] {
            let rig = Rig::new()?;
            rig.reach(phase)?;
            assert_eq!(rig.connection.phase(), phase);
            let told = rig.end(rig.begin_end(), ENODEV)?;
            assert!(told == tells.then_some(Says::Shutdown));
            let event = rig.desk.read();
            assert!(match phase {
                Phase::Connected => matches!(event, Some(Event::Shutdown { endpoint: 7 })),
                Phase::Connecting => matches!(
                    event,
                    Some(Event::Refused {
                        endpoint: 7,
                        error: ENODEV,
                        ..
                    })
                ),
                _ => event.is_none(),
            });
            assert!(rig.desk.read().is_none());
        }
        Ok(())
    }

    #[test]
    fn peer_that_has_ended_it_hears_nothing() -> Result {
        let rig = Rig::new()?;
        rig.reach(Phase::Connected)?;
        rig.connection.peer_is_gone(PEER);
        assert!(rig.end(rig.begin_end(), ENOTCONN)?.is_none());
        assert!(matches!(rig.desk.read(), Some(Event::Shutdown { .. })));
        Ok(())
    }

    #[test]
    fn peer_that_is_not_there_keeps_nobody_from_being_told() -> Result {
        for error in [EHOSTUNREACH, EAGAIN] {
            let rig = Rig::new()?;
            rig.reach(Phase::Connected)?;
            rig.bench.wire.error.store(error.to_errno(), Relaxed);
            assert!(rig.end(rig.begin_end(), ECANCELED)? == Some(Says::Shutdown));
            assert!(matches!(rig.desk.read(), Some(Event::Shutdown { .. })));
        }
        Ok(())
    }

    #[test]
    fn end_is_begun_once() -> Result {
        let rig = Rig::new()?;
        rig.reach(Phase::Connected)?;
        let (first, second) = (rig.begin_end(), rig.begin_end());
        assert!(matches!(second, Ending::Silent));
        assert!(rig.end(second, ECANCELED)?.is_none() && rig.desk.read().is_none());
        assert!(rig.end(first, ECANCELED)?.is_some() && rig.desk.read().is_some());
        // Datagrams have nobody to tell.
        assert!(matches!(Role::Datagrams.begin_end(), Ending::Silent));
        Ok(())
    }

    #[test]
    fn listener_rejects_who_waits_and_takes_back_what_nobody_has_read() -> Result {
        let rig = Rig::new()?;
        let listener = Listener::new(2)?;
        listener.open(listener::Open {
            source: rig.desk.source.clone(),
            live: rig.bench.ep.live().clone(),
        });
        listener.request(7, &request(5))?;
        let role = Role::Listener(listener.clone());
        let ending = role.begin_end();
        assert!(matches!(role.begin_end(), Ending::Silent));
        assert_eq!(listener.request(7, &request(6)), Err(ECONNREFUSED));
        ending.tell(&rig.port, rig.bench.ep.live().transport());
        let (to, message) = rig.bench.wire.next().ok_or(ENOENT)?;
        assert!(to == there() && message.says == Says::Reject(ECONNREFUSED));
        assert_eq!((message.cookie, message.from.number), (5, rig.port.id()));
        ending.finish(ECANCELED);
        assert!(rig.desk.read().is_none() && rig.bench.wire.next().is_none());
        Ok(())
    }
}
