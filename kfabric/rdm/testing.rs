// SPDX-License-Identifier: GPL-2.0

//! Engines over links in memory, for tests.
//!
//! | file | noun |
//! |---|---|
//! | `bench` | a provider with a net, and what stands on it |
//! | `fault` | what is to happen to what one side sends over a link |
//! | `gate` | where workers of one side wait, while a test keeps it shut |
//! | `host` | where links begin and end |
//! | `kept` | the holds of links on what they have not copied |
//! | `meter` | how far the frames have come that one side sends |
//! | `net` | the hosts, and the links between them |
//! | `pattern` | bytes that are known again |
//! | `script` | a peer that a test plays itself |
//! | `side` | an endpoint in a domain of its own |
//! | `tally` | what is counted of a net |
//! | `wire` | a link, and what a test does to it |
//!
//! A host holds the net; the net holds the hosts' doors and the wires, and those hold the tally only.
//! So all of it goes with its users, also when a test fails.

use super::timeouts::Timeouts;
use kernel::prelude::*;
use kernel::time::delay::fsleep;
use kernel::time::{Delta, Instant, Monotonic};

mod bench;
mod fault;
mod gate;
mod host;
mod kept;
mod meter;
mod net;
mod pattern;
mod script;
mod side;
mod tally;
mod wire;

pub(super) use bench::Bench;
pub(super) use fault::{Act, Fault, Place};
pub(super) use kept::Keep;
pub(super) use net::Refusal;
pub(super) use pattern::{brings, is_pattern, pattern};
pub(super) use script::{name, Script};
pub(super) use side::Side;
pub(super) use wire::CAPACITY;

const MS: u64 = 1_000_000;

/// How long a test waits for what is to come, in milliseconds: a task that waits for a minute counts
/// as hung, and one waits for each test.
pub(super) const PATIENCE_MS: u32 = 30_000;

/// The addresses of the first two domains that are opened.
pub(super) const A: u8 = b'a';
pub(super) const B: u8 = b'b';

/// Bytes of a message that goes whole, of one that is asked for, and of one that goes in pieces.
pub(super) const SMALL: usize = 100;
pub(super) const LARGE: usize = 9000;
pub(super) const HUGE: usize = 250_000;

/// Links are made anew soon, and nobody is given up, however slow the machine is.
pub(super) const SOON: Timeouts = Timeouts {
    ping: 2000 * MS,
    dead: 60_000 * MS,
    dial: 60_000 * MS,
    resume: 60_000 * MS,
    backoff: (MS, 20 * MS),
    stranger: 60_000 * MS,
    hurry: 60_000 * MS,
    settle: 2000 * MS,
};

/// As [`SOON`], and nobody is asked whether it is there: nothing wakes a worker but what there is to do.
pub(super) const STILL: Timeouts = Timeouts {
    ping: 60_000 * MS,
    ..SOON
};

/// Nobody is waited for long; long enough for who is there, though the machine has much else to do.
pub(super) const SHORT: Timeouts = Timeouts {
    ping: 1000 * MS,
    dead: 2000 * MS,
    dial: 1000 * MS,
    resume: 2000 * MS,
    backoff: (MS, 20 * MS),
    stranger: 500 * MS,
    hurry: 500 * MS,
    settle: 500 * MS,
};

/// Waits, with a bound, until something is so; says where it never was.
#[track_caller]
pub(super) fn until(mut is: impl FnMut() -> bool) -> Result {
    let begin = Instant::<Monotonic>::now();
    while !is() {
        if begin.elapsed() > Delta::from_millis(PATIENCE_MS.into()) {
            check(false)?;
        }
        pause(1);
    }
    Ok(())
}

/// Lets some milliseconds go by.
pub(super) fn pause(millis: i64) {
    fsleep(Delta::from_millis(millis));
}

/// Fails, and says where, unless something is so.
#[track_caller]
pub(super) fn check(is: bool) -> Result {
    if is {
        return Ok(());
    }
    let at = core::panic::Location::caller();
    pr_err!("check failed: {}:{}\n", at.file(), at.line());
    Err(EINVAL)
}
