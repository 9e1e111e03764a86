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

#[kunit_tests(kfabric_cm)]
mod tests {
    use super::testing::{accept, info, request, said, there, Bench, PEER};
    use super::*;
    use crate::eq::Event;
    use crate::info::EndpointType;
    use kernel::sync::rcu;

    /// How long nobody answers, in milliseconds: longer than a test takes.
    const LONG: u32 = 60_000;

    /// Asks the peer; gives the request.
    fn asked(bench: &Bench) -> Result<Message> {
        bench.ep.connect(&there(), PrivateData::NONE, LONG)?;
        Ok(bench.wire.next().ok_or(ENOENT)?.1)
    }

    /// Has a port learn something, as a provider does.
    fn learn(bench: &Bench, learns: impl FnOnce(&Port)) -> Result {
        let port = bench.wire.port(bench.ep.id()).ok_or(ENOENT)?;
        let posts = rcu::read_lock();
        learns(&port);
        drop(posts);
        Ok(())
    }

    #[test]
    fn port_hears_what_is_for_one_of_its_role() -> Result {
        let (bench, info) = (Bench::new()?, info(EndpointType::Msg)?);
        let listener = PassiveEndpoint::listen(&bench.domain, &info, &bench.eq, 1)?;
        let (listens, connects) = (listener.id(), bench.ep.id());
        for says in [Says::Accept, Says::Reject(EACCES), Says::Shutdown] {
            let heard = bench.wire.bring(listens, &said(says, 5));
            assert_eq!(heard, Err(ECONNREFUSED));
        }
        let heard = bench.wire.bring(connects, &request(5));
        assert_eq!(heard, Err(ECONNREFUSED));
        // Nobody waits for those, and whoever is not connected can't be shut down.
        for says in [Says::Accept, Says::Reject(EACCES)] {
            let heard = bench.wire.bring(connects, &said(says, 5));
            assert_eq!(heard, Err(ECONNABORTED));
        }
        bench.wire.bring(connects, &said(Says::Shutdown, 5))?;
        assert_eq!(bench.ep.live().refusal(), None);
        assert!(bench.eq.read().is_none());
        bench.wire.bring(listens, &request(5))?;
        assert!(matches!(bench.eq.read(), Some(Event::ConnectionRequest(_))));
        Ok(())
    }

    #[test]
    fn nothing_is_heard_once_the_domain_has_ended() -> Result {
        let (bench, info) = (Bench::new()?, info(EndpointType::Msg)?);
        let listener = PassiveEndpoint::listen(&bench.domain, &info, &bench.eq, 1)?;
        let asks = asked(&bench)?;
        let ports = [listener.id(), bench.ep.id()].map(|id| bench.wire.port(id));
        bench.domain.unplug()?;
        while bench.eq.read().is_some() {}
        for port in ports.iter().flatten() {
            for message in [&request(6), &accept(&asks), &said(Says::Shutdown, 0)] {
                let posts = rcu::read_lock();
                let heard = port.hear(message);
                drop(posts);
                assert_eq!(heard, Err(ECONNREFUSED));
            }
        }
        assert!(ports.iter().all(Option::is_some) && bench.eq.read().is_none());
        Ok(())
    }

    #[test]
    fn request_that_reached_nobody_fails_and_another_does_not() -> Result {
        let bench = Bench::new()?;
        let asks = asked(&bench)?;
        let mut former = asks;
        former.cookie = asks.cookie.wrapping_add(1);
        learn(&bench, |port| port.unheard(&former, EHOSTUNREACH))?;
        assert!(bench.eq.read().is_none());
        learn(&bench, |port| port.unheard(&asks, EHOSTUNREACH))?;
        assert!(matches!(
            bench.eq.read(),
            Some(Event::Refused {
                error: EHOSTUNREACH,
                ..
            })
        ));
        learn(&bench, |port| port.unheard(&asks, EHOSTUNREACH))?;
        assert!(bench.eq.read().is_none());
        Ok(())
    }

    #[test]
    fn endpoint_ends_with_its_own_peer() -> Result {
        let bench = Bench::new()?;
        let refusal = || bench.ep.live().refusal();
        learn(&bench, |port| port.peer_is_gone(PEER))?;
        let asks = asked(&bench)?;
        bench.wire.bring(bench.ep.id(), &accept(&asks))?;
        learn(&bench, |port| port.peer_is_gone(PEER + 1))?;
        assert_eq!(refusal(), None);
        learn(&bench, |port| port.peer_is_gone(PEER))?;
        assert_eq!(refusal(), Some(ENOTCONN));
        Ok(())
    }
}
