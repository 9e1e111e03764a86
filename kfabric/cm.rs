// SPDX-License-Identifier: GPL-2.0

//! Connections: how two endpoints of type MSG become each other's only peer, and cease to be it.
//!
//! | file | noun |
//! |---|---|
//! | `connection` | the connection of an endpoint: how far it is, and with whom |
//! | `ending` | the end of an endpoint that is under way |
//! | `letter` | what one end says to the other, as bytes |
//! | `listener` | the requests that wait at a passive endpoint |
//! | `message` | what one end says to the other |
//! | `passive` | passive endpoints: names that peers connect to |
//! | `private_data` | bytes of the consumer that go with a message |
//! | `request` | a peer's wish to be connected |
//! | `role` | what a port takes, and from whom |
//! | `testing` | a provider for tests of connections |
//!
//! A connected endpoint is a datagram endpoint that has one peer: what it posts goes there, and
//! its port takes operations from nobody else. A provider supplies the way a [`Message`] reaches a
//! name ([`crate::provider::Endpoint::tell`]), and nothing else.
//!
//! A message is sent and heard in an RCU read section, so that the end of either side waits for it:
//! events come in their order, and none comes after a close.
//!
//! Locks: `kfi_cm` and `kfi_listener` are leaf locks, interrupts disabled; nothing is told or sent
//! with one held. See Documentation/connections.rst. Source: fi_cm(3).

use crate::provider::Port;
use kernel::prelude::*;
use message::Says;

mod connection;
mod ending;
pub(crate) mod letter;
mod listener;
mod message;
mod passive;
mod private_data;
mod request;
mod role;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing;

pub(crate) use connection::{Connection, Open};
pub(crate) use ending::Ending;
pub(crate) use listener::Listener;
pub use message::Message;
pub use passive::PassiveEndpoint;
pub use private_data::PrivateData;
pub use request::ConnectionRequest;
pub(crate) use role::Role;

impl Port {
    /// Hears a connection message that was brought here.
    ///
    /// Never sleeps; any context but hardirq, in an RCU read section.
    ///
    /// # Errors
    /// - `ECONNREFUSED`: nobody listens here, or as many requests wait as may; or the domain has ended.
    /// - `ECONNABORTED`: whoever requested does not wait for an answer any more.
    pub fn hear(&self, message: &Message) -> Result {
        // What ends with it tells its consumer so, and not that a peer, which may be one of those,
        // is through with it.
        if self.domain().life().alive().is_err() {
            return Err(ECONNREFUSED);
        }
        match (self.role(), message.says) {
            (Role::Listener(listener), Says::Request) => listener.request(self.id(), message),
            (Role::Connection(it), Says::Accept | Says::Reject(_)) => it.answered(message),
            (Role::Connection(it), Says::Shutdown) => {
                it.hung_up(message);
                Ok(())
            }
            _ => Err(ECONNREFUSED),
        }
    }

    /// Learns that a connection message of this port, which was on its way, reached nobody.
    ///
    /// For providers whose [`tell`](crate::provider::Endpoint::tell) does not know at once. Context as
    /// of [`Port::hear`].
    pub(crate) fn unheard(&self, message: &Message, error: Error) {
        if let Role::Connection(it) = self.role() {
            it.unheard(message, error);
        }
    }

    /// Learns that the peer with this number has ended the connection, or can't be reached any more, if
    /// it is that of this port. Context as of [`Port::hear`].
    pub(crate) fn peer_is_gone(&self, number: u64) {
        if let Role::Connection(it) = self.role() {
            it.peer_is_gone(number);
        }
    }
}
