// SPDX-License-Identifier: GPL-2.0

//! How an operation ends: what its completion promises, or how it failed.

use kernel::prelude::*;

/// What a completion promises of the bytes; each level includes those before it.
///
/// Source: FI_TRANSMIT_COMPLETE, FI_DELIVERY_COMPLETE and FI_COMMIT_COMPLETE of fi_endpoint(3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The local buffer may be used again, and the transport will deliver.
    Transmit,
    /// The bytes are visible at the peer.
    #[default]
    Delivered,
    /// The bytes are durable at the peer: no power cut loses them.
    Committed,
}

/// What became of an operation that failed, as far as anybody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It had no effect at the peer.
    NotExecuted,
    /// It had its effect, in full; what failed came later.
    Executed,
    /// It had none, some or all of its effect.
    Unknown,
}

/// How an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub error: Error,
    /// The provider's own code; 0 where it has none.
    pub provider: i32,
    /// What became of the operation.
    pub outcome: Outcome,
    /// The level that was reached nevertheless.
    pub level: Option<Level>,
}

impl Failure {
    /// A failure without any effect at the peer.
    pub const fn not_executed(error: Error) -> Self {
        Failure {
            error,
            provider: 0,
            outcome: Outcome::NotExecuted,
            level: None,
        }
    }

    /// A failure in the midst of the work.
    pub const fn unknown(error: Error) -> Self {
        Failure {
            error,
            provider: 0,
            outcome: Outcome::Unknown,
            level: None,
        }
    }

    /// A failure after `level` was reached.
    pub const fn after(level: Level, error: Error) -> Self {
        Failure {
            error,
            provider: 0,
            outcome: Outcome::Executed,
            level: Some(level),
        }
    }
}

/// How an operation went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success {
    /// How many bytes were moved or made durable.
    pub len: usize,
    /// The remote CQ data that arrived, for a receive.
    pub data: Option<u64>,
    /// The level that was reached; at least the one that was asked for.
    pub level: Level,
}

/// How an operation ended.
pub type Status = core::result::Result<Success, Failure>;
