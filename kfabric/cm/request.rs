// SPDX-License-Identifier: GPL-2.0

//! A peer's wish to be connected.

use super::{Connection, Listener, PrivateData};
use crate::provider::AnyEndpoint;
use kernel::prelude::*;
use kernel::sync::Arc;

/// A peer's wish to be connected; dropping it rejects it.
///
/// It waits for an answer as long as its passive endpoint is open: the close of that rejects it too.
/// May be read, rejected and dropped in any context but hardirq.
#[must_use = "dropping it rejects the peer"]
pub struct ConnectionRequest {
    pub(super) listener: Arc<Listener>,
    pub(super) id: u64,
    pub(super) ticket: u64,
    pub(super) data: PrivateData,
}

impl ConnectionRequest {
    /// The number of the passive endpoint that it reached.
    pub fn listener(&self) -> u64 {
        self.id
    }

    /// What the peer sent with it.
    pub fn data(&self) -> &[u8] {
        self.data.as_bytes()
    }

    /// Rejects it, and sends `data` to the peer. Never sleeps; any context but hardirq.
    ///
    /// Source: fi_reject(3).
    pub fn reject(self, data: PrivateData) {
        self.listener.reject(self.id, self.ticket, data);
    }

    /// Connects an endpoint to the peer. Errors: `ECONNABORTED`, and those of
    /// [`Connection::accept`].
    pub(crate) fn accept(
        self,
        connection: &Connection,
        transport: &dyn AnyEndpoint,
        data: PrivateData,
    ) -> Result<(), (Error, Self)> {
        // Not before the endpoint is known to be idle: else it may have another.
        if let Err(error) = connection.check_idle() {
            return Err((error, self));
        }
        let Some(waiting) = self.listener.take(self.ticket) else {
            return Err((ECONNABORTED, self));
        };
        connection
            .accept(transport, &waiting.from, waiting.cookie, data)
            .map_err(|error| (error, self))
    }
}

impl Drop for ConnectionRequest {
    fn drop(&mut self) {
        self.listener
            .reject(self.id, self.ticket, PrivateData::NONE);
    }
}
