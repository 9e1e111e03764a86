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
