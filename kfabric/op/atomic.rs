// SPDX-License-Identifier: GPL-2.0

//! What is done to the words of a region.

pub use crate::proto::atomic::{Action, AtomicOp, Datatype};

/// What an atomic does to each word of a range, and what the words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicAction {
    /// What is done.
    pub action: Action,
    /// To which words.
    pub datatype: Datatype,
}

impl AtomicAction {
    /// Changes words.
    pub const fn update(op: AtomicOp, datatype: Datatype) -> Self {
        let action = Action::Update(op);
        AtomicAction { action, datatype }
    }

    /// Changes words, and fetches what they were.
    pub const fn fetch(op: AtomicOp, datatype: Datatype) -> Self {
        let action = Action::Fetch(op);
        AtomicAction { action, datatype }
    }

    /// Compares words and swaps those that are equal, and fetches what all were.
    pub const fn compare(datatype: Datatype) -> Self {
        let action = Action::Compare;
        AtomicAction { action, datatype }
    }

    /// What a word becomes.
    pub(crate) fn apply(self, word: u64, operand: u64, comparand: u64) -> u64 {
        self.action.apply(self.datatype, word, operand, comparand)
    }
}
