// SPDX-License-Identifier: GPL-2.0

//! Passive endpoints: names that peers connect to. Source: fi_passive_ep(3), fi_listen(3).

use super::{listener, Listener, Role};
use crate::av::Name;
use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use crate::endpoint::{self, Live};
use crate::eq::{EventQueue, Source};
use crate::info::{EndpointType, Info};
use crate::provider::Port;
use kernel::prelude::*;
use kernel::sync::Arc;

/// An endpoint that is connected to, and moves nothing itself.
///
/// Dropping it closes it, as [`PassiveEndpoint::close`] does: process context, sleeps.
pub struct PassiveEndpoint {
    _file: debugfs::File,
    live: Arc<Live>,
    id: u64,
    // The owner of the room for its events.
    _source: Arc<Source>,
    // Last: it holds the provider's module.
    domain: Child,
}

impl PassiveEndpoint {
    /// Opens a passive endpoint and listens: requests come to `eq`.
    ///
    /// At most `backlog` requests wait for an answer, read or not; one more is refused. Sleeps;
    /// process context.
    ///
    /// # Errors
    /// - `EINVAL`: `backlog` is 0; `eq` or `info` is of another domain; `info` is not of type
    ///   [`EndpointType::Msg`].
    /// - `ENOSPC`: `eq` is too small for what is bound to it.
    /// - `EADDRINUSE`: the info's source is a service, and another endpoint has its name.
    /// - `EOPNOTSUPP`: the provider brings no connection messages.
    /// - `ENODEV`: the domain has ended.
    /// - `ENOMEM`.
    ///
    /// Source: fi_passive_ep(3), fi_listen(3).
    pub fn listen(domain: &Domain, info: &Info, eq: &EventQueue, backlog: usize) -> Result<Self> {
        let child = domain.child(Class::PassiveEndpoint)?;
        child.check(info)?;
        if backlog == 0 || info.endpoint_type != EndpointType::Msg || !child.is_beside(eq.domain())
        {
            return Err(EINVAL);
        }
        let id = endpoint::next_id();
        let source = Source::new(eq, id, backlog)?;
        let listener = Listener::new(backlog)?;
        let shown = Shown::Listener(listener.clone());
        let file = debugfs::file(domain.dir(), fmt!("passive-{id}"), shown)?;
        let port = Port::new(
            id,
            child.core().clone(),
            None,
            Role::Listener(listener.clone()),
            0,
            (1, 1),
        )?;
        let opening = domain.opening()?;
        let live = Live::open(&opening, port, KVec::new(), info)?;
        let passive = PassiveEndpoint {
            _file: file,
            live,
            id,
            _source: source.clone(),
            domain: child,
        };
        if !passive.live.transport().connects() {
            return Err(EOPNOTSUPP);
        }
        listener.open(listener::Open {
            source,
            live: passive.live.clone(),
        });
        opening.enlist(&passive.live)?;
        Ok(passive)
    }

    /// The name to connect to. Source: fi_getname(3).
    pub fn name(&self) -> Name {
        self.live.transport().name()
    }

    /// Its number: that of [`ConnectionRequest::listener`](super::ConnectionRequest::listener).
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Closes it: each request that is not answered is rejected, read or not.
    ///
    /// Connections that were accepted stay. Sleeps; process context.
    ///
    /// # Errors
    /// None so far: what comes from it, a request, does not hold it. It gives what every close
    /// gives, so that consumers need not tell objects apart.
    pub fn close(self) -> Result<(), (Error, Self)> {
        Ok(())
    }
}

impl Drop for PassiveEndpoint {
    fn drop(&mut self) {
        self.live.shutdown(ECANCELED);
        self.domain.life().delist(&self.live);
    }
}

#[kunit_tests(kfabric_cm_passive)]
mod tests {
    use super::*;
    use crate::cm::testing::{info, request, Bench};
    use crate::eq::Event;

    #[test]
    fn listener_needs_what_it_is_to_tell_of() -> Result {
        let bench = Bench::new()?;
        let (msg, rdm) = (info(EndpointType::Msg)?, info(EndpointType::Rdm)?);
        let room = bench.eq.size() - EventQueue::PER_ENDPOINT;
        for (info, backlog, expected) in [
            (&msg, 0, Some(EINVAL)),
            (&rdm, 1, Some(EINVAL)),
            (&msg, room + 1, Some(ENOSPC)),
            (&msg, room, None),
        ] {
            let listener = PassiveEndpoint::listen(&bench.domain, info, &bench.eq, backlog);
            assert_eq!(listener.err(), expected);
        }
        Ok(())
    }

    #[test]
    fn provider_without_messages_has_no_listener() -> Result {
        use crate::provider::testing::{Desk, Opened};

        let opened = Opened::new()?;
        let mut info = Desk::info()?;
        info.endpoint_type = EndpointType::Msg;
        let eq = EventQueue::new(&opened.domain, 1, None)?;
        let listener = PassiveEndpoint::listen(&opened.domain, &info, &eq, 1);
        assert_eq!(listener.err(), Some(EOPNOTSUPP));
        // The provider's endpoint, which was made already, was ended.
        assert_eq!(opened.desk.shutdowns.load(kernel::sync::atomic::Relaxed), 1);
        Ok(())
    }

    #[test]
    fn request_names_the_endpoint_that_it_reached() -> Result {
        let bench = Bench::new()?;
        let info = info(EndpointType::Msg)?;
        let one = PassiveEndpoint::listen(&bench.domain, &info, &bench.eq, 1)?;
        let two = PassiveEndpoint::listen(&bench.domain, &info, &bench.eq, 1)?;
        for listener in [&two, &one] {
            bench.wire.bring(listener.id(), &request(5))?;
            let Some(Event::ConnectionRequest(request)) = bench.eq.read() else {
                return Err(ENOENT);
            };
            assert_eq!(request.listener(), listener.id());
        }
        Ok(())
    }

    #[test]
    fn close_rejects_what_waits() -> Result {
        let bench = Bench::new()?;
        let info = info(EndpointType::Msg)?;
        let listener = PassiveEndpoint::listen(&bench.domain, &info, &bench.eq, 2)?;
        let id = listener.id();
        for cookie in [5, 6] {
            bench.wire.bring(id, &request(cookie))?;
        }
        let held = bench.eq.read();
        assert!(held.is_some());
        assert!(listener.close().is_ok());
        for cookie in [5, 6] {
            let told = bench.wire.next().map(|(_, message)| message.cookie);
            assert_eq!(told, Some(cookie));
        }
        assert!(bench.eq.read().is_none());
        assert_eq!(bench.wire.bring(id, &request(7)), Err(EHOSTUNREACH));
        drop(held);
        assert!(bench.wire.next().is_none());
        Ok(())
    }

    #[test]
    fn end_of_the_domain_rejects_what_waits() -> Result {
        let bench = Bench::new()?;
        let info = info(EndpointType::Msg)?;
        let listener = PassiveEndpoint::listen(&bench.domain, &info, &bench.eq, 1)?;
        let id = listener.id();
        bench.wire.bring(id, &request(5))?;
        let port = bench.wire.port(id).ok_or(ENOENT)?;
        bench.domain.unplug()?;
        let told = bench.wire.next().map(|(_, message)| message.cookie);
        assert_eq!(told, Some(5));
        // What ends with it hears nothing of the others that do.
        let posts = kernel::sync::rcu::read_lock();
        assert_eq!(port.hear(&request(6)), Err(ECONNREFUSED));
        drop(posts);
        let again = PassiveEndpoint::listen(&bench.domain, &info, &bench.eq, 1);
        assert_eq!(again.err(), Some(ENODEV));
        assert!(bench.eq.read().is_none());
        Ok(())
    }
}
