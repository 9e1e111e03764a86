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
    /// Those of every domain, but in tests: of the parameters of the module.
    pub(super) fn configured() -> Self {
        let of = |value: u32| value as usize;
        Bounds {
            links: of(crate::module_parameters::links.value()),
            sessions: of(crate::module_parameters::sessions.value()),
            past: 1 << 17,
        }
    }

    /// Refuses parameters that can't be. `EINVAL`, with a line in the log.
    pub(super) fn check() -> Result {
        if crate::module_parameters::sessions.value() == 0 {
            pr_err!("sessions=0: no peer could be reached: at least 1 is wanted\n");
            return Err(EINVAL);
        }
        Ok(())
    }
}
