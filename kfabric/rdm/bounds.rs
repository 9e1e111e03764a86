// SPDX-License-Identifier: GPL-2.0

//! How much an endpoint over links keeps of its peers.

use kernel::prelude::*;

/// How many of what; each of one transmit context of an endpoint.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Links. Beyond them, those are closed that nobody has used for longest.
    pub(super) links: usize,
    /// Peers with a session: each holds half a megabyte. Beyond them, others wait.
    pub(super) sessions: usize,
    /// Peers without one, of which is remembered what must be.
    pub(super) past: usize,
}

impl Bounds {
    /// Those of every domain, but in tests: of the parameters of the module. `EINVAL`: one can't be; a line in the
    /// log says so.
    pub(super) fn configured() -> Result<Self> {
        use crate::module_parameters::{links, sessions};
        Self::of(links.value(), sessions.value())
    }

    fn of(links: u32, sessions: u32) -> Result<Self> {
        if sessions == 0 {
            pr_err!("sessions=0: 1 or more is wanted, or no peer is reached\n");
            return Err(EINVAL);
        }
        Ok(Bounds {
            links: links as usize,
            sessions: sessions as usize,
            past: 1 << 17,
        })
    }
}

#[kunit_tests(kfabric_rdm_bounds)]
mod tests {
    use super::*;

    #[test]
    fn some_peer_must_have_a_session_none_a_link_that_stays() -> Result {
        assert_eq!(Bounds::of(256, 0).err(), Some(EINVAL));
        let least = Bounds::of(0, 1)?;
        assert_eq!((least.links, least.sessions), (0, 1));
        Ok(())
    }
}
