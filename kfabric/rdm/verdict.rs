// SPDX-License-Identifier: GPL-2.0

//! How operations end, between the objects' terms and those of the wire.

use crate::op::{Failure, Level, Outcome, Status, Success};
use crate::proto::wire::{self, verdict::Verdict, Errno};
use kernel::prelude::*;

/// For a peer: how what it asked for has ended.
pub(super) fn told(status: &Status) -> Verdict {
    match status {
        Ok(success) => Ok(level_told(success.level)),
        Err(failure) => Err(failure_told(failure)),
    }
}

/// For a peer: how what it asked for has failed. An errno that the wire has no number for is `EIO`.
pub(super) fn failure_told(failure: &Failure) -> wire::Failure {
    let number = failure.error.to_errno().unsigned_abs();
    let errno = u16::try_from(number).ok().and_then(Errno::from_code);
    wire::Failure {
        errno: errno.unwrap_or(Errno::EIO),
        outcome: match failure.outcome {
            Outcome::NotExecuted => wire::Outcome::NotExecuted,
            Outcome::Executed => wire::Outcome::Executed,
            Outcome::Unknown => wire::Outcome::Unknown,
        },
        level: failure.level.map(level_told),
    }
}

fn level_told(level: Level) -> wire::Level {
    match level {
        Level::Transmit | Level::Delivered => wire::Level::Delivered,
        Level::Committed => wire::Level::Committed,
    }
}

/// For the consumer: how an operation of `len` bytes has ended at a peer.
pub(super) fn heard(verdict: Verdict, len: usize) -> Status {
    match verdict {
        Ok(level) => Ok(Success {
            len,
            data: None,
            level: level_heard(level),
        }),
        Err(failure) => Err(Failure {
            error: error(failure.errno),
            provider: 0,
            outcome: match failure.outcome {
                wire::Outcome::NotExecuted => Outcome::NotExecuted,
                wire::Outcome::Executed => Outcome::Executed,
                wire::Outcome::Unknown => Outcome::Unknown,
            },
            level: failure.level.map(level_heard),
        }),
    }
}

fn level_heard(level: wire::Level) -> Level {
    match level {
        wire::Level::Delivered => Level::Delivered,
        wire::Level::Committed => Level::Committed,
    }
}

/// The error of a number of the wire.
pub(super) fn error(errno: Errno) -> Error {
    Error::from_errno(-i32::from(errno as u16))
}

#[kunit_tests(kfabric_rdm_verdict)]
mod tests {
    use super::*;

    #[test]
    fn end_is_heard_as_it_was_told() {
        let levels = [Level::Delivered, Level::Committed];
        let outcomes = [Outcome::NotExecuted, Outcome::Executed, Outcome::Unknown];
        for level in levels {
            let success = Success {
                len: 7,
                data: None,
                level,
            };
            assert_eq!(heard(told(&Ok(success)), 7), Ok(success));
        }
        for outcome in outcomes {
            for level in [None, Some(levels[0]), Some(levels[1])] {
                for error in [EHOSTUNREACH, EMSGSIZE, ECANCELED] {
                    let failure = Failure {
                        error,
                        provider: 0,
                        outcome,
                        level,
                    };
                    assert_eq!(heard(told(&Err(failure)), 7), Err(failure));
                }
            }
        }
    }

    #[test]
    fn error_without_a_number_on_the_wire_is_eio() {
        let strange = Error::from_errno(-4000);
        let heard = heard(told(&Err(Failure::unknown(strange))), 0);
        assert_eq!(heard, Err(Failure::unknown(EIO)));
    }
}
