// SPDX-License-Identifier: GPL-2.0

//! How an operation ended at the target, as numbers of the wire.

use super::Malformed;

/// The errors that an operation may end with; Linux's numbers of asm-generic.
///
/// Any other number in a frame is a protocol error: a peer can't make a completion say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs)] // they are errno(3)'s
pub enum Errno {
    ENOENT = 2,
    EIO = 5,
    ENOMEM = 12,
    EACCES = 13,
    ENODEV = 19,
    EINVAL = 22,
    ERANGE = 34,
    EPROTO = 71,
    EBADMSG = 74,
    EMSGSIZE = 90,
    EOPNOTSUPP = 95,
    ECONNABORTED = 103,
    ECONNRESET = 104,
    ENOBUFS = 105,
    ENOTCONN = 107,
    ETIMEDOUT = 110,
    ECONNREFUSED = 111,
    EHOSTUNREACH = 113,
    ECANCELED = 125,
    EKEYREJECTED = 129,
}

impl Errno {
    /// All of them.
    pub const ALL: [Errno; 20] = [
        Errno::ENOENT,
        Errno::EIO,
        Errno::ENOMEM,
        Errno::EACCES,
        Errno::ENODEV,
        Errno::EINVAL,
        Errno::ERANGE,
        Errno::EPROTO,
        Errno::EBADMSG,
        Errno::EMSGSIZE,
        Errno::EOPNOTSUPP,
        Errno::ECONNABORTED,
        Errno::ECONNRESET,
        Errno::ENOBUFS,
        Errno::ENOTCONN,
        Errno::ETIMEDOUT,
        Errno::ECONNREFUSED,
        Errno::EHOSTUNREACH,
        Errno::ECANCELED,
        Errno::EKEYREJECTED,
    ];

    /// The error of that number.
    pub fn from_code(code: u16) -> Option<Errno> {
        Errno::ALL.into_iter().find(|&errno| errno as u16 == code)
    }
}

/// What is true of the bytes at the target; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// They are visible.
    Delivered = 1,
    /// They are durable.
    Committed = 2,
}

/// What became of an operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It had no effect.
    NotExecuted = 0,
    /// It had its whole effect; what failed came later.
    Executed = 1,
    /// None, some or all of it.
    Unknown = 2,
}

/// How an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub errno: Errno,
    /// What became of it.
    pub outcome: Outcome,
    /// The level that was reached nevertheless.
    pub level: Option<Level>,
}

impl Failure {
    /// A failure that reached no level.
    pub const fn new(errno: Errno, outcome: Outcome) -> Failure {
        Failure {
            errno,
            outcome,
            level: None,
        }
    }
}

/// How it ended: the level reached, or why not.
pub type Verdict = Result<Level, Failure>;

/// `code` and `data` of a frame that says `verdict`.
pub fn emit(verdict: Verdict) -> (u16, u64) {
    match verdict {
        Ok(level) => (0, level as u64 | ((Outcome::Executed as u64) << 8)),
        Err(failure) => {
            let level = failure.level.map_or(0, |level| level as u64);
            (
                failure.errno as u16,
                level | ((failure.outcome as u64) << 8),
            )
        }
    }
}

/// The verdict of a frame with these fields.
pub fn parse(code: u16, data: u64) -> Result<Verdict, Malformed> {
    let level = match data & 0xff {
        0 => None,
        1 => Some(Level::Delivered),
        2 => Some(Level::Committed),
        _ => return Err(Malformed::Verdict),
    };
    let outcome = match data >> 8 {
        0 => Outcome::NotExecuted,
        1 => Outcome::Executed,
        2 => Outcome::Unknown,
        _ => return Err(Malformed::Verdict),
    };
    match (code, level, outcome) {
        (0, Some(level), Outcome::Executed) => Ok(Ok(level)),
        // What had no effect can't have reached a level.
        (0, ..) | (_, Some(_), Outcome::NotExecuted) => Err(Malformed::Verdict),
        (code, level, outcome) => Ok(Err(Failure {
            errno: Errno::from_code(code).ok_or(Malformed::Verdict)?,
            outcome,
            level,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_is_read_as_it_was_written() {
        for level in [Level::Delivered, Level::Committed] {
            let (code, data) = emit(Ok(level));
            assert_eq!(parse(code, data), Ok(Ok(level)));
        }
        for errno in Errno::ALL {
            for outcome in [Outcome::NotExecuted, Outcome::Executed, Outcome::Unknown] {
                for level in [None, Some(Level::Delivered)] {
                    let failure = Failure {
                        errno,
                        outcome,
                        level,
                    };
                    let (code, data) = emit(Err(failure));
                    let impossible = outcome == Outcome::NotExecuted && level.is_some();
                    let expected = if impossible {
                        Err(Malformed::Verdict)
                    } else {
                        Ok(Err(failure))
                    };
                    assert_eq!(parse(code, data), expected);
                }
            }
        }
    }

    #[test]
    fn success_is_executed_at_a_level() {
        for (data, good) in [(0x101, true), (0x102, true), (0x100, false), (0x103, false)] {
            assert_eq!(parse(0, data).is_ok(), good, "{data:#x}");
        }
        for data in [0x001, 0x201, 0x301, 0x1_0101, 1 << 63] {
            assert_eq!(parse(0, data), Err(Malformed::Verdict), "{data:#x}");
        }
    }

    #[test]
    fn only_errors_of_the_list_come_through() {
        let known = (1..=u16::MAX)
            .filter(|&code| parse(code, 0).is_ok())
            .count();
        assert_eq!(known, Errno::ALL.len());
        for code in [1, 4, 512, 4096] {
            assert_eq!(parse(code, 0), Err(Malformed::Verdict), "{code}");
        }
    }
}
