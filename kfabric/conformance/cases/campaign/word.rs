// SPDX-License-Identifier: GPL-2.0

//! The word that a burst's atomics change, and what a permitted order of them makes of it.

use super::lane::{Lane, State};
use super::BURST;
use kfabric::prelude::*;

/// What an atomic does to a word, with its tag as the operand.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Add,
    FetchAdd,
    Swap { if_is: u64 },
}

impl Form {
    pub(super) fn action(self) -> AtomicAction {
        match self {
            Form::Add => AtomicAction::update(AtomicOp::Sum, Datatype::U64),
            Form::FetchAdd => AtomicAction::fetch(AtomicOp::Sum, Datatype::U64),
            Form::Swap { .. } => AtomicAction::compare(Datatype::U64),
        }
    }

    /// What it makes of a word.
    fn apply(self, word: u64, operand: u64) -> u64 {
        match self {
            Form::Add | Form::FetchAdd => word.wrapping_add(operand),
            Form::Swap { if_is } if if_is == word => operand,
            Form::Swap { .. } => word,
        }
    }
}

/// The atomics of a burst.
pub(super) struct Atomics<'a> {
    pub(super) lane: &'a Lane,
    pub(super) order: Order,
    /// What each has fetched, if it did, and went well.
    pub(super) fetched: [Option<u64>; BURST],
}

impl Atomics<'_> {
    /// Whether they make `last` of `word`, in some order that is permitted: each of those that went
    /// well once, and each that is in doubt once or never.
    pub(super) fn lead(&self, word: u64, last: u64) -> bool {
        let is_one = |n: &usize| {
            let op = &self.lane.planned[*n];
            op.kind == Kind::Atomic && matches!(op.state, State::Ended(true) | State::Doubtful)
        };
        let all = (0..self.lane.planned.len()).filter(is_one);
        self.lead_from(all.fold(0, |all, n| all | 1 << n), word, last)
    }

    /// The same for those in `left`, a bit each.
    fn lead_from(&self, left: usize, word: u64, last: u64) -> bool {
        if left == 0 {
            return word == last;
        }
        let is_left = |n: &usize| left & 1 << n != 0;
        (0..BURST).filter(is_left).any(|n| {
            let (op, others) = (&self.lane.planned[n], left & !(1 << n));
            let is_before = |other| self.lane.is_before(self.order, other, n);
            let waits = (0..BURST).filter(is_left).any(is_before);
            let saw = self.fetched[n].is_none_or(|fetched| fetched == word);
            let goes = !waits && saw;
            goes && self.lead_from(others, op.form.apply(word, op.tag), last)
                || op.state == State::Doubtful && self.lead_from(others, word, last)
        })
    }
}
