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
    /// Those of every domain, but in tests: of the parameters of the module. `EINVAL`: one can't be; a line in the
    /// log says so.
    pub(super) fn configured() -> Result<Self> {
        Self::of(crate::module_parameters::resume_ms.value())
    }

    fn of(resume: u32) -> Result<Self> {
        if !RESUME.contains(&resume) {
            let (least, most) = RESUME.into_inner();
            pr_err!("resume_ms={resume}: {least} to {most} is wanted\n");
            return Err(EINVAL);
        }
        Ok(Timeouts {
            resume: u64::from(resume) * MS,
            ..Timeouts::DEFAULT
        })
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

#[kunit_tests(kfabric_rdm_timeouts)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_waited_for_a_second_to_ten_minutes() -> Result {
        for (resume, is_so) in [
            (0, false),
            (999, false),
            (1000, true),
            (600_000, true),
            (600_001, false),
        ] {
            let timeouts = Timeouts::of(resume);
            assert_eq!(timeouts.is_ok(), is_so);
            if let Ok(timeouts) = timeouts {
                assert_eq!(timeouts.resume, u64::from(resume) * 1_000_000);
            }
        }
        Ok(())
    }
}
