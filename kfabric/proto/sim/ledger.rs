// SPDX-License-Identifier: GPL-2.0

//! What was posted in a world, and what became of it: the judge.

use super::super::wire::verdict::Verdict;
use super::super::wire::{Errno, Level, Outcome};

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Message,
    Write,
    Commit,
    Read,
    Atomic,
    Announce,
}

/// An operation, by its serial number.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) sort: Sort,
    pub(super) len: u64,
    /// Remote CQ data, and the receive context that these or the message go to.
    pub(super) data: Option<u64>,
    pub(super) context: u16,
    /// The level that was asked for, and no more is reached.
    pub(super) level: Level,
    /// The target refuses it.
    pub(super) refused: bool,
    /// The target fails it midway, or its receive or source fails.
    pub(super) fails: bool,
    pub(super) cancelled: bool,
    /// How often it had its whole effect.
    pub(super) executed: u32,
    /// Bytes that were placed, or received.
    pub(super) moved: u64,
    /// What an atomic found.
    pub(super) found: u64,
    pub(super) ended: u32,
    pub(super) verdict: Option<Verdict>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) entries: Vec<Entry>,
    /// Whether sessions may end.
    pub(super) disruptive: bool,
}

/// What byte `at` of an operation's bytes is.
pub(super) fn byte(serial: u64, at: u64) -> u8 {
    let mixed = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (mixed as u8) ^ (at as u8).wrapping_mul(31) ^ ((at >> 8) as u8).wrapping_mul(7)
}

/// Bytes of an operation.
pub(super) fn bytes(serial: u64, offset: u64, len: u32) -> Vec<u8> {
    (offset..offset + u64::from(len))
        .map(|at| byte(serial, at))
        .collect()
}

impl Ledger {
    pub(super) fn post(&mut self, entry: Entry) -> u64 {
        self.entries.push(entry);
        self.entries.len() as u64 - 1
    }

    pub(super) fn at(&mut self, serial: u64) -> &mut Entry {
        &mut self.entries[serial as usize]
    }

    /// Bytes of a piece have come to where they belong.
    pub(super) fn place(&mut self, serial: u64, offset: u64, payload: &[u8]) {
        let entry = self.at(serial);
        assert_eq!(
            entry.moved, offset,
            "piece of {serial} twice, or out of order: {entry:?}"
        );
        entry.moved += payload.len() as u64;
        for (at, &found) in payload.iter().enumerate() {
            let expected = byte(serial, offset + at as u64);
            assert_eq!(found, expected, "byte {at} after {offset} of {serial}");
        }
    }

    /// What comes with it is what was posted.
    pub(super) fn compare(&mut self, serial: u64, context: u16, data: Option<u64>) {
        let entry = self.at(serial);
        assert_eq!((context, data), (entry.context, entry.data), "{serial}");
    }

    /// Whether it is to be durable is what was posted.
    pub(super) fn compare_level(&mut self, serial: u64, commit: bool) {
        let level = self.at(serial).level;
        assert_eq!(commit, level == Level::Committed, "level of {serial}");
    }

    /// It had its effect.
    pub(super) fn execute(&mut self, serial: u64) {
        let entry = self.at(serial);
        entry.executed += 1;
        assert_eq!(entry.executed, 1, "{serial} was executed again: {entry:?}");
        if entry.sort != Sort::Read && entry.sort != Sort::Commit {
            assert_eq!(entry.moved, entry.len, "{serial} lacks bytes");
        }
        if let Some(Err(failure)) = entry.verdict {
            let denied = failure.outcome == Outcome::NotExecuted;
            assert!(!denied, "{serial} is executed after all: {entry:?}");
        }
    }

    /// Its initiator was told how it ended.
    pub(super) fn end(&mut self, serial: u64, verdict: Verdict) {
        let disruptive = self.disruptive;
        let entry = self.at(serial);
        entry.ended += 1;
        entry.verdict = Some(verdict);
        assert_eq!(entry.ended, 1, "{serial} ended again: {entry:?}");
        match verdict {
            Ok(level) => {
                assert_eq!(level, entry.level, "{serial}: {entry:?}");
                assert_eq!(entry.executed, 1, "{serial} is said to be done: {entry:?}");
                assert!(!entry.refused, "{serial} was refused: {entry:?}");
                if entry.sort == Sort::Read {
                    assert_eq!(entry.moved, entry.len, "{serial} lacks bytes");
                }
            }
            Err(failure) => {
                let expected = match failure.errno {
                    Errno::EACCES | Errno::EMSGSIZE => entry.refused,
                    Errno::EIO | Errno::ENODEV => entry.fails,
                    Errno::ECANCELED => entry.cancelled || disruptive,
                    _ => disruptive,
                };
                assert!(expected, "{serial}: {entry:?}");
                match failure.outcome {
                    Outcome::NotExecuted => assert_eq!(entry.executed, 0, "{serial}: {entry:?}"),
                    Outcome::Executed => {
                        assert_eq!(entry.executed, 1, "{serial}: {entry:?}");
                        // Of what is withdrawn.
                        assert_eq!(failure.level, Some(Level::Delivered), "{serial}");
                    }
                    Outcome::Unknown => (),
                }
            }
        }
    }

    /// The process that posted it is gone.
    pub(super) fn bury(&mut self, serial: u64) {
        let entry = self.at(serial);
        entry.ended += 1;
        assert_eq!(entry.ended, 1, "{serial} ended before: {entry:?}");
    }

    /// At the end, each has ended once.
    pub(super) fn close(&self) {
        for (serial, entry) in self.entries.iter().enumerate() {
            assert_eq!(entry.ended, 1, "{serial} never ended: {entry:?}");
        }
    }
}
