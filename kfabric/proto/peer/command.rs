// SPDX-License-Identifier: GPL-2.0

//! What an initiator asks for.

use super::super::atomic::{Action, Datatype};
use super::super::order::Effect;
use super::super::wire::{Flags, Level, MAX_ANNOUNCEMENT};

/// Numbers an operation of this side: its index, which is that of the engine's own table, and which
/// use of the index it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Op(pub(super) u32);

impl Op {
    /// The index, below the size of the table.
    pub const fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The region of this key.
    Key(u64),
    /// The buffer of the receive that was posted under this tag.
    Tag(u64),
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A message, with a tag or without.
    Send {
        /// The tag.
        tag: Option<u64>,
    },
    /// A write; `commit`: at level committed.
    Write {
        /// Where to.
        target: Target,
        /// From which byte on.
        offset: u64,
        /// Whether it is made durable.
        commit: bool,
    },
    /// A range is made durable.
    Commit {
        /// Of which region.
        key: u64,
        /// From which byte on.
        offset: u64,
    },
    /// A read.
    Read {
        /// Where from.
        target: Target,
        /// From which byte on.
        offset: u64,
    },
    /// Words are changed at once.
    Atomic {
        /// Of which region.
        key: u64,
        /// From which byte on.
        offset: u64,
        /// What is done to each.
        action: Action,
        /// What they are.
        datatype: Datatype,
        /// Whether they are made durable.
        commit: bool,
    },
    /// What a device of the link calls a key; opaque.
    Announce {
        /// Which.
        key: u64,
    },
    /// What was announced is void.
    Withdraw {
        /// Which.
        key: u64,
    },
}

/// An operation, as it is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// What.
    pub what: What,
    /// Bytes of the message, or of the peer's range.
    pub len: u64,
    /// Remote CQ data; of messages, writes and commits.
    pub data: Option<u64>,
    /// The receive context of the peer that messages, remote CQ data and tagged accesses go to.
    pub context: u16,
}

impl Command {
    /// A message of `len` bytes to context 0.
    pub const fn send(len: u64) -> Command {
        Command {
            what: What::Send { tag: None },
            len,
            data: None,
            context: 0,
        }
    }

    /// What order sees of it.
    pub(super) const fn effect(&self) -> Option<Effect> {
        match self.what {
            What::Send { .. } => Some(Effect::Send),
            What::Read { .. } => Some(Effect::Read),
            What::Write { .. } | What::Commit { .. } | What::Atomic { .. } => Some(Effect::Write),
            What::Announce { .. } | What::Withdraw { .. } => None,
        }
    }

    /// Whether it may have to wait for a receive of the peer, so that it needs credit and can be
    /// cancelled.
    pub(super) const fn meets_a_receive(&self) -> bool {
        match self.what {
            What::Send { .. } => true,
            What::Write { .. } | What::Commit { .. } => self.data.is_some(),
            _ => false,
        }
    }

    /// Whether it is for a receive of the peer, but waits for none.
    pub(super) const fn is_tagged_access(&self) -> bool {
        let (What::Write { target, .. } | What::Read { target, .. }) = self.what else {
            return false;
        };
        matches!(target, Target::Tag(_))
    }

    /// Whether a reply ends it, and no acknowledgement.
    pub(super) const fn is_answered(&self) -> bool {
        match self.what {
            What::Commit { .. } | What::Read { .. } => true,
            What::Write { commit, .. } => commit,
            What::Atomic { action, commit, .. } => commit || action.fetches(),
            _ => false,
        }
    }

    /// The level that it reaches if it goes well.
    pub(super) const fn level(&self) -> Level {
        match self.what {
            What::Commit { .. }
            | What::Write { commit: true, .. }
            | What::Atomic { commit: true, .. } => Level::Committed,
            _ => Level::Delivered,
        }
    }

    /// Whether it can be posted at all.
    pub(super) const fn is_sound(&self) -> bool {
        match self.what {
            What::Send { .. } => true,
            What::Write { offset, .. } | What::Commit { offset, .. } => {
                offset.checked_add(self.len).is_some()
            }
            What::Read { offset, .. } => {
                self.data.is_none() && offset.checked_add(self.len).is_some()
            }
            What::Atomic {
                offset, datatype, ..
            } => {
                let size = datatype.size() as u64;
                self.data.is_none()
                    && self.len > 0
                    && self.len % size == 0
                    && offset % size == 0
                    && offset.checked_add(self.len).is_some()
            }
            What::Announce { .. } => {
                self.data.is_none() && self.len > 0 && self.len <= MAX_ANNOUNCEMENT as u64
            }
            What::Withdraw { .. } => self.data.is_none() && self.len == 0,
        }
    }

    /// `key` and the flag of a frame about a target.
    pub(super) const fn target(&self) -> (u64, Flags) {
        match self.what {
            What::Send { tag: Some(tag) } => (tag, Flags::TAGGED),
            What::Send { tag: None } => (0, Flags::NONE),
            What::Write { target, .. } | What::Read { target, .. } => match target {
                Target::Key(key) => (key, Flags::NONE),
                Target::Tag(tag) => (tag, Flags::TAGGED),
            },
            What::Commit { key, .. }
            | What::Atomic { key, .. }
            | What::Announce { key }
            | What::Withdraw { key } => (key, Flags::NONE),
        }
    }
}
