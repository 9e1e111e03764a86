// SPDX-License-Identifier: GPL-2.0

//! What a port takes, and from whom.

use super::{Connection, Ending, Listener};
use crate::op::Op;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;

/// What a port takes, and from whom.
pub(crate) enum Role {
    /// Operations of everybody.
    Datagrams,
    /// Those of one peer.
    Connection(Arc<Connection>),
    /// None: connection requests only.
    Listener(Arc<Listener>),
}

impl Role {
    /// Whether an operation may act here.
    #[inline]
    pub(crate) fn admits(&self, op: &Op) -> bool {
        match self {
            Role::Datagrams => true,
            Role::Connection(connection) => connection.peer.load(Relaxed) == op.endpoint(),
            Role::Listener(_) => false,
        }
    }

    /// Begins the end of its endpoint: it hears nothing any more.
    pub(crate) fn begin_end(&self) -> Ending {
        match self {
            Role::Datagrams => Ending::Silent,
            Role::Connection(connection) => match connection.begin_end() {
                Some(open) => Ending::Connection {
                    open,
                    connection: connection.clone(),
                },
                None => Ending::Silent,
            },
            Role::Listener(listener) => match listener.begin_end() {
                Some(ended) => Ending::Listener(ended),
                None => Ending::Silent,
            },
        }
    }
}

#[kunit_tests(kfabric_cm_role)]
mod tests {
    use super::*;
    use crate::op::testing::{request, Bench};
    use crate::op::Kind;

    #[test]
    fn port_takes_operations_of_the_peer_only() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let (_, op) = bench.post_request(request(Kind::Send), 0)?;
        let connection = Connection::new(7)?;
        let role = Role::Connection(connection.clone());
        assert!(Role::Datagrams.admits(&op) && !role.admits(&op));
        connection.peer.store(op.endpoint(), Relaxed);
        assert!(role.admits(&op));
        connection.peer.store(op.endpoint() + 1, Relaxed);
        assert!(!role.admits(&op));
        Ok(())
    }
}
