// SPDX-License-Identifier: GPL-2.0

//! Connecting endpoints of type MSG. Source: fi_cm(3).

use super::Endpoint;
use crate::av::Name;
use crate::cm::{ConnectionRequest, PrivateData};
use kernel::prelude::*;
use kernel::time::Msecs;

impl<C: Send + 'static> Endpoint<C> {
    /// Its number: that of its events.
    pub fn id(&self) -> u64 {
        self.live.port.id()
    }

    /// Asks the passive endpoint of that name for a connection.
    ///
    /// Once in an endpoint's life. How it ends is an event: [`Connected`](crate::eq::Event) or
    /// `Refused`, the latter with `ETIMEDOUT` if there is no answer within `timeout` milliseconds.
    /// Receives may be posted before. Process context.
    ///
    /// # Errors
    /// - `EALREADY`, `EISCONN`: it is connecting; it has been connected, or refused.
    /// - `EAGAIN`: the provider has no room for the request now; it may be made again.
    /// - `EOPNOTSUPP`: it is of another type.
    /// - `ENOTCONN`, `ECANCELED`, `ENODEV`: it was shut down; it is closed; the domain has ended.
    ///
    /// Source: fi_connect(3).
    pub fn connect(&self, to: &Name, data: PrivateData, timeout: Msecs) -> Result {
        self.live.connect(to, data, timeout)
    }

    /// Becomes the peer of who sent `request`, and sends it `data`.
    ///
    /// When it returns, the endpoint is connected; the event says so too. Process context.
    ///
    /// # Errors
    /// With each, the request comes back.
    /// - `ECONNABORTED`: the request was rejected by the close of its listener, or the peer does
    ///   not wait any more. The request is of no use; the endpoint can be connected to another. Of a
    ///   peer on another host that is not known at once: then the endpoint is connected, and shut down
    ///   as soon as it is known.
    /// - Those of [`Endpoint::connect`], `EALREADY` also while it accepts another; the request
    ///   still waits.
    ///
    /// Source: fi_accept(3).
    pub fn accept(
        &self,
        request: ConnectionRequest,
        data: PrivateData,
    ) -> Result<(), (Error, ConnectionRequest)> {
        self.live.accept(request, data)
    }

    /// Ends the connection: operations in flight complete with `ENOTCONN`, at the peer too.
    ///
    /// Both sides get the event `Shutdown`, this one before it returns. Sleeps; process context.
    ///
    /// # Errors
    /// - `ENOTCONN`: it is not connected.
    /// - `EOPNOTSUPP`: it is of another type.
    ///
    /// Source: fi_shutdown(3).
    pub fn shutdown(&self) -> Result {
        self.live.disconnect()
    }
}

#[kunit_tests(kfabric_endpoint_connect)]
mod tests {
    use super::*;
    use crate::av::Address;
    use crate::cm::testing::{accept, info, request, there, Bench};
    use crate::cm::PassiveEndpoint;
    use crate::eq::Event;
    use crate::info::EndpointType;
    use crate::op::{Buffer, Options};
    use crate::provider::{registry::unplug, testing};
    use kernel::sync::atomic::Relaxed;

    /// How long nobody answers, in milliseconds: longer than a test takes.
    const LONG: Msecs = 60_000;

    fn connect(bench: &Bench) -> Result {
        bench.ep.connect(&there(), PrivateData::NONE, LONG)
    }

    /// A passive endpoint, and a request that has come to it.
    fn asked(bench: &Bench) -> Result<(PassiveEndpoint, ConnectionRequest)> {
        let info = info(EndpointType::Msg)?;
        let listener = PassiveEndpoint::listen(&bench.domain, &info, &bench.eq, 1)?;
        bench.wire.bring(listener.id(), &request(5))?;
        match bench.eq.read() {
            Some(Event::ConnectionRequest(request)) => Ok((listener, request)),
            _ => Err(ENOENT),
        }
    }

    /// Accepts what must be refused; gives why, and the request.
    fn refused(bench: &Bench, request: ConnectionRequest) -> Result<(Error, ConnectionRequest)> {
        let accepted = bench.ep.accept(request, PrivateData::NONE);
        accepted.err().ok_or(EINVAL)
    }

    /// How a message to the peer is refused.
    fn send(bench: &Bench) -> Option<Error> {
        let sent = bench
            .ep
            .send(Buffer::empty(), Address::PEER, Options::default(), 1);
        sent.err().map(Error::from)
    }

    #[test]
    fn endpoint_of_datagrams_has_no_connection() -> Result {
        let (bench, datagrams) = (Bench::new()?, testing::Bench::new()?);
        let (_listener, request) = asked(&bench)?;
        let ep = &datagrams.ep;
        let asks = ep.connect(&there(), PrivateData::NONE, LONG);
        assert_eq!(asks, Err(EOPNOTSUPP));
        assert_eq!(ep.shutdown(), Err(EOPNOTSUPP));
        let accepted = ep.accept(request, PrivateData::NONE);
        assert_eq!(accepted.err().map(|(error, _)| error), Some(EOPNOTSUPP));
        Ok(())
    }

    #[test]
    fn endpoint_connects_once() -> Result {
        let bench = Bench::new()?;
        assert_eq!(bench.ep.shutdown(), Err(ENOTCONN));
        connect(&bench)?;
        let (to, asks) = bench.wire.next().ok_or(ENOENT)?;
        assert!(to == there());
        assert_eq!(connect(&bench), Err(EALREADY));
        assert_eq!(
            (send(&bench), bench.ep.shutdown()),
            (Some(ENOTCONN), Err(ENOTCONN))
        );
        bench.wire.bring(bench.ep.id(), &accept(&asks))?;
        assert!(matches!(
            bench.eq.read(),
            Some(Event::Connected { endpoint, .. }) if endpoint == bench.ep.id()
        ));
        assert_eq!((connect(&bench), send(&bench)), (Err(EISCONN), None));
        // Nobody was asked twice.
        assert!(bench.wire.next().is_none());
        Ok(())
    }

    #[test]
    fn shutdown_completes_what_is_in_flight_and_tells_both() -> Result {
        let bench = Bench::new()?;
        connect(&bench)?;
        let (_, asks) = bench.wire.next().ok_or(ENOENT)?;
        bench.wire.bring(bench.ep.id(), &accept(&asks))?;
        assert!(bench.eq.read().is_some());
        assert_eq!(send(&bench), None);
        bench.ep.shutdown()?;
        let done = bench.cq.read().ok_or(ENOENT)?;
        assert_eq!(
            done.result.err().map(|failure| failure.error),
            Some(ENOTCONN)
        );
        assert!(matches!(bench.eq.read(), Some(Event::Shutdown { .. })));
        assert!(bench.wire.next().is_some());
        // Once.
        assert_eq!(bench.ep.shutdown(), Err(ENOTCONN));
        assert_eq!(
            (connect(&bench), send(&bench)),
            (Err(ENOTCONN), Some(ENOTCONN))
        );
        assert!(bench.eq.read().is_none() && bench.wire.next().is_none());
        Ok(())
    }

    #[test]
    fn request_that_is_not_accepted_comes_back_and_waits() -> Result {
        let bench = Bench::new()?;
        let (_listener, request) = asked(&bench)?;
        connect(&bench)?;
        assert!(bench.wire.next().is_some());
        let (error, request) = refused(&bench, request)?;
        assert_eq!(error, EALREADY);
        unplug("kunit-cm")?;
        let (error, request) = refused(&bench, request)?;
        assert_eq!((error, connect(&bench)), (ENODEV, Err(ENODEV)));
        drop(request);
        Ok(())
    }

    #[test]
    fn accept_that_nobody_hears_leaves_the_endpoint_as_it_was() -> Result {
        let bench = Bench::new()?;
        let (listener, request) = asked(&bench)?;
        bench.wire.error.store(ECONNABORTED.to_errno(), Relaxed);
        let (error, request) = refused(&bench, request)?;
        assert_eq!((error, send(&bench)), (ECONNABORTED, Some(ENOTCONN)));
        bench.wire.error.store(0, Relaxed);
        // The request is of no use, and the endpoint is.
        let (error, request) = refused(&bench, request)?;
        assert_eq!(error, ECONNABORTED);
        drop((listener, request));
        let (_listener, request) = asked(&bench)?;
        assert!(bench.ep.accept(request, PrivateData::NONE).is_ok());
        assert_eq!(send(&bench), None);
        Ok(())
    }
}
