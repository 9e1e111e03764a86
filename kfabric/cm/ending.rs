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
