// SPDX-License-Identifier: GPL-2.0

//! Whom an endpoint can reach.

use super::live::Live;
use crate::av::{AddressVector, Peers};
use crate::cm::{self, Connection, Role};
use crate::domain::Child;
use crate::eq::{EventQueue, Source};
use crate::info::{EndpointType, Info};
use crate::sys::work;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Whom an endpoint can reach.
pub(super) enum Reach {
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
    pub(super) fn new(
        domain: &Child,
        info: &Info,
        id: u64,
        av: Option<&AddressVector>,
        eq: Option<&EventQueue>,
    ) -> Result<Self> {
        match (info.endpoint_type, av, eq) {
            (EndpointType::Rdm, Some(av), None) if domain.is_beside(av.domain()) => {
                Ok(Reach::Peers(Peers::new(av.table())))
            }
            (EndpointType::Msg, None, Some(eq)) if domain.is_beside(eq.domain()) => {
                Ok(Reach::Peer {
                    events: Source::new(eq, id, EventQueue::PER_ENDPOINT)?,
                    connection: Connection::new(id)?,
                })
            }
            _ => Err(EINVAL),
        }
    }

    /// What the port takes.
    pub(super) fn role(&self) -> Role {
        match self {
            Reach::Peers(_) => Role::Datagrams,
            Reach::Peer { connection, .. } => Role::Connection(connection.clone()),
        }
    }

    /// Begins; `EOPNOTSUPP`: the provider brings no connection messages.
    #[inline(never)]
    pub(super) fn open(&self, live: &Arc<Live>) -> Result {
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
    pub(super) fn close(&self, live: &Arc<Live>) {
        if let Reach::Peer { connection, events } = self {
            connection.stop();
            work::cancel(live);
            events.withdraw();
        }
    }
}

#[kunit_tests(kfabric_endpoint_reach)]
mod tests {
    use super::*;
    use crate::cm::testing::{self as cm, there, Bench as Connected};
    use crate::cm::PrivateData;
    use crate::domain::Class;
    use crate::eq::Event;
    use crate::provider::testing::{Bench, Desk, Opened};

    /// How long nobody answers, in milliseconds: longer than a test takes.
    const LONG: u32 = 60_000;

    fn info(endpoint_type: EndpointType) -> Result<Info> {
        Ok(Info {
            endpoint_type,
            ..Desk::info()?
        })
    }

    #[test]
    fn endpoint_has_what_its_type_needs_and_no_more() -> Result {
        use EndpointType::{Msg, Rdm};
        let opened = Opened::new()?;
        let another = opened.fabric.domain(&Desk::info()?)?;
        let domain = opened.domain.child(Class::Endpoint)?;
        let avs = [
            AddressVector::new(&opened.domain)?,
            AddressVector::new(&another)?,
        ];
        let eqs = [
            EventQueue::new(&opened.domain, 8, None)?,
            EventQueue::new(&another, 8, None)?,
        ];
        let (own_av, own_eq) = (Some(&avs[0]), Some(&eqs[0]));
        let (other_av, other_eq) = (Some(&avs[1]), Some(&eqs[1]));
        for (endpoint_type, av, eq, good) in [
            (Rdm, own_av, None, true),
            (Rdm, other_av, None, false),
            (Rdm, None, None, false),
            (Rdm, None, own_eq, false),
            (Rdm, own_av, own_eq, false),
            (Msg, None, own_eq, true),
            (Msg, None, other_eq, false),
            (Msg, None, None, false),
            (Msg, own_av, None, false),
            (Msg, own_av, own_eq, false),
        ] {
            match Reach::new(&domain, &info(endpoint_type)?, 7, av, eq) {
                Ok(reach) => {
                    let datagrams = matches!(reach.role(), Role::Datagrams);
                    let connection = matches!(reach.role(), Role::Connection(_));
                    let expected = (endpoint_type == Rdm, endpoint_type == Msg);
                    assert!(good && (datagrams, connection) == expected);
                }
                Err(error) => assert_eq!((good, error), (false, EINVAL)),
            }
        }
        // Nothing is held by what is not.
        assert!(avs.into_iter().all(|av| av.close().is_ok()));
        assert!(eqs.into_iter().all(|eq| eq.close().is_ok()));
        Ok(())
    }

    #[test]
    fn what_it_needs_is_held_while_it_is() -> Result {
        let opened = Opened::new()?;
        let domain = opened.domain.child(Class::Endpoint)?;
        let av = AddressVector::new(&opened.domain)?;
        let peers = Reach::new(&domain, &info(EndpointType::Rdm)?, 7, Some(&av), None)?;
        let Err((EBUSY, av)) = av.close() else {
            return Err(EINVAL);
        };
        drop(peers);
        assert!(av.close().is_ok());
        // Room for the events of one endpoint, and not of two.
        let eq = EventQueue::new(&opened.domain, 2 * EventQueue::PER_ENDPOINT - 1, None)?;
        let info = info(EndpointType::Msg)?;
        let connected = || Reach::new(&domain, &info, 7, None, Some(&eq));
        for _ in 0..2 {
            let first = connected()?;
            assert_eq!(connected().err(), Some(ENOSPC));
            drop(first);
        }
        let first = connected()?;
        let Err((EBUSY, eq)) = eq.close() else {
            return Err(EINVAL);
        };
        drop(first);
        assert!(eq.close().is_ok());
        Ok(())
    }

    #[test]
    fn provider_without_connection_messages_has_no_connections() -> Result {
        let bench = Bench::new()?;
        let domain = bench.opened.domain.child(Class::Endpoint)?;
        let eq = EventQueue::new(&bench.opened.domain, 8, None)?;
        let live = bench.ep.live();
        let reach = Reach::new(&domain, &info(EndpointType::Msg)?, 7, None, Some(&eq))?;
        assert_eq!(reach.open(live), Err(EOPNOTSUPP));
        let Reach::Peer { connection, .. } = &reach else {
            return Err(EINVAL);
        };
        let asked = connection.connect(live.transport(), &there(), PrivateData::NONE, LONG);
        assert_eq!(asked, Err(ENOTCONN));
        // It sends datagrams.
        let av = Some(&bench.av);
        let reach = Reach::new(&domain, &info(EndpointType::Rdm)?, 7, av, None)?;
        assert_eq!(reach.open(live), Ok(()));
        reach.close(live);
        Ok(())
    }

    #[test]
    fn close_takes_back_the_timer_and_what_nobody_has_read() -> Result {
        let bench = Connected::new()?;
        let domain = bench.domain.child(Class::Endpoint)?;
        let info = cm::info(EndpointType::Msg)?;
        let reach = Reach::new(&domain, &info, 7, None, Some(&bench.eq))?;
        let live = bench.ep.live();
        reach.open(live)?;
        let Reach::Peer { connection, events } = &reach else {
            return Err(EINVAL);
        };
        connection.connect(live.transport(), &there(), PrivateData::NONE, LONG)?;
        assert!(bench.wire.next().is_some());
        for endpoint in [7, 7] {
            assert!(events.tell(Event::Shutdown { endpoint }).is_ok());
        }
        assert!(bench.eq.read().is_some());
        drop(reach.role().begin_end());
        reach.close(live);
        assert!(bench.eq.read().is_none());
        let Reach::Peer { connection, .. } = reach else {
            return Err(EINVAL);
        };
        // A timer would have it still.
        assert!(Arc::into_unique_or_drop(connection).is_some());
        Ok(())
    }
}
