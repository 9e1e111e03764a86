// SPDX-License-Identifier: GPL-2.0

//! The end of an endpoint that is under way: what its peers and its consumer are told.

use super::connection::{refused, Open, Phase};
use super::message::{send, Says};
use super::{listener, PrivateData};
use crate::av::Name;
use crate::eq::Event;
use crate::provider::{AnyEndpoint, Port};
use kernel::prelude::*;

/// The end of an endpoint that is under way.
pub(crate) enum Ending {
    Datagrams,
    Connection {
        open: Open,
        id: u64,
        phase: Phase,
        peer: Name,
        hung_up: bool,
    },
    Listener(Option<listener::Ended>),
}

impl Ending {
    pub(super) fn of_connection(ended: Option<(Open, Phase, Name, bool)>, id: u64) -> Self {
        match ended {
            None => Ending::Datagrams,
            Some((open, phase, peer, hung_up)) => Ending::Connection {
                open,
                id,
                phase,
                peer,
                hung_up,
            },
        }
    }

    /// Tells the peers, unless the provider is gone. Nothing is heard any more.
    pub(crate) fn tell(&self, port: &Port, transport: &dyn AnyEndpoint, error: Error) {
        if error == ENODEV {
            return;
        }
        match self {
            Ending::Connection {
                phase: Phase::Connected,
                peer,
                hung_up: false,
                ..
            } => {
                let says = Says::Shutdown;
                // If there is no such peer any more, it knows.
                let _ = send(port.id(), transport, peer, says, 0, PrivateData::NONE);
            }
            Ending::Listener(Some(ended)) => ended.reject(port.id(), transport),
            _ => {}
        }
    }

    /// Tells the consumer. No operation of the endpoint is with its provider any more.
    pub(crate) fn finish(self, error: Error) {
        match self {
            Ending::Connection {
                open, id, phase, ..
            } => {
                let event = match phase {
                    Phase::Connected => Event::Shutdown { endpoint: id },
                    Phase::Connecting => refused(id, error, PrivateData::NONE),
                    Phase::Idle | Phase::Ended => return,
                };
                // There is room for it: an endpoint ends once.
                let _ = open.source.tell(event);
            }
            Ending::Listener(Some(ended)) => ended.finish(),
            _ => {}
        }
    }
}
