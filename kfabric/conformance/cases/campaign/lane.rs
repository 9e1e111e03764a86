// SPDX-License-Identifier: GPL-2.0

//! A lane of a station, and the burst that it has posted.

use super::word::Form;
use crate::rng::Rng;
use kernel::prelude::*;
use kfabric::prelude::*;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Fresh,
    Posted,
    /// Whether it went well; if not, it has done nothing.
    Ended(bool),
    /// It failed, and may have done all, some or nothing.
    Doubtful,
}

/// One operation of a burst.
#[derive(Clone, Copy)]
pub(super) struct Planned {
    pub(super) kind: Kind,
    pub(super) options: Options,
    pub(super) tag: u64,
    /// Whether a copy of its bytes is posted.
    pub(super) injected: bool,
    /// Whether it is a message with a tag.
    pub(super) tagged: bool,
    /// What it does, if it is an atomic.
    pub(super) form: Form,
    pub(super) state: State,
}

impl Planned {
    pub(super) fn effect(&self) -> Effect {
        match self.kind {
            Kind::Read => Effect::Read,
            Kind::Send => Effect::Send,
            _ => Effect::Write,
        }
    }

    /// Whether it has written the range.
    pub(super) fn has_written(&self) -> bool {
        self.kind == Kind::Write && self.state == State::Ended(true)
    }

    /// Whether its bytes may be in the range.
    pub(super) fn may_have_written(&self) -> bool {
        self.has_written() || (self.kind == Kind::Write && self.state == State::Doubtful)
    }

    /// Whether its peer is told of it.
    pub(super) fn is_told(&self) -> bool {
        self.kind == Kind::Send || self.options.data.is_some()
    }
}

/// A burst, all of it to one range.
pub(super) struct Lane {
    pub(super) rng: Rng,
    pub(super) serial: u32,
    /// Empty between bursts.
    pub(super) planned: KVec<Planned>,
    pub(super) to: usize,
    pub(super) lasting: bool,
    pub(super) len: usize,
}

impl Lane {
    /// Whether the order, or a fence, has `earlier` come before `later`, both of this burst.
    pub(super) fn is_before(&self, order: Order, earlier: usize, later: usize) -> bool {
        // What waits because of a fence is in no order with the fence itself.
        let fenced = || {
            let between = &self.planned[earlier + 1..=later];
            between.iter().any(|op| op.options.fence)
        };
        earlier < later
            && (order.holds(self.planned[later].effect(), self.planned[earlier].effect())
                || fenced())
    }

    /// Whether what write `from` has written, or what was there before the burst, may be seen: by
    /// the read `by`, or after the burst.
    pub(super) fn may_show(&self, order: Order, from: Option<usize>, by: Option<usize>) -> bool {
        let unseen = by
            .zip(from)
            .is_some_and(|(by, from)| self.is_before(order, by, from));
        let hidden = (0..self.planned.len()).any(|other| {
            self.planned[other].has_written()
                && Some(other) != from
                && from.is_none_or(|from| self.is_before(order, from, other))
                && by.is_none_or(|by| self.is_before(order, other, by))
        });
        !unseen && !hidden
    }

    /// Whether all have ended, well or not.
    pub(super) fn has_ended(&self) -> bool {
        // The last, with a fence, tells of those that are silent and say nothing.
        let silent = |op: &Planned| op.options.silent && op.state == State::Posted;
        let last = self.planned.last();
        let ended = |op: &Planned| matches!(op.state, State::Ended(_) | State::Doubtful);
        last.is_some_and(ended) && self.planned.iter().all(|op| ended(op) || silent(op))
    }
}
