// SPDX-License-Identifier: GPL-2.0

//! How long the engine waits, in nanoseconds: for peers, and for those that may become some.

use core::ops::RangeInclusive;

use kernel::prelude::*;

const MS: u64 = 1_000_000;

/// What `resume` may be, in milliseconds. A link that breaks is made again within a second, if it can be made.
const RESUME: RangeInclusive<u32> = 1000..=600_000;

/// How long the engine waits.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    /// After how long without a word a peer is asked whether it is there.
    pub(super) ping: u64,
    /// After how long without a word a link is dead.
    pub(super) dead: u64,
    /// How long a link may take to be made and to be greeted.
    pub(super) dial: u64,
    /// How long a session without a link is remembered, and operations wait for the first one.
    pub(super) resume: u64,
    /// Before the next link is made: first, and at most.
    pub(super) backoff: (u64, u64),
    /// How long a stranger has to say who it is.
    pub(super) stranger: u64,
    /// How long one has who keeps others out meanwhile.
    pub(super) hurry: u64,
    /// How long a close waits for the peers to say what became of what is under way: for all of them.
    pub(super) settle: u64,
}

impl Timeouts {
    /// Those of every domain, but in tests: what the parameters of the module don't say is fixed.
    pub(super) fn configured() -> Self {
        Timeouts {
            resume: u64::from(crate::module_parameters::resume_ms.value()) * MS,
            ..Timeouts::DEFAULT
        }
    }

    /// Refuses parameters that can't be. `EINVAL`, with a line in the log.
    pub(super) fn check() -> Result {
        let resume = crate::module_parameters::resume_ms.value();
        if !RESUME.contains(&resume) {
            let (least, most) = RESUME.into_inner();
            pr_err!("resume_ms={resume}: {least} to {most} is wanted\n");
            return Err(EINVAL);
        }
        Ok(())
    }

    const DEFAULT: Timeouts = Timeouts {
        ping: 2000 * MS,
        dead: 10_000 * MS,
        dial: 3000 * MS,
        resume: 4000 * MS,
        backoff: (10 * MS, 500 * MS),
        stranger: 3000 * MS,
        hurry: 500 * MS,
        settle: 1000 * MS,
    };
}
