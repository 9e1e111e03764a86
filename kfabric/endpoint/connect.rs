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
    /// - `EOPNOTSUPP`: it is of another type.
    /// - `ENOTCONN`, `ECANCELED`, `ENODEV`: it was shut down; it is closed; the provider is gone.
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
    ///   not wait any more. The request is of no use; the endpoint can be connected to another.
    /// - Those of [`Endpoint::connect`], `EALREADY` also while it accepts another; the request still
    ///   waits.
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
