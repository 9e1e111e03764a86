// SPDX-License-Identifier: GPL-2.0

//! Arrivals that wait for a receive.
//!
//! A receive gets the arrival that came first, of those that it takes. An untagged one looks at the
//! first, or, if it is of one peer, at those before the peer's; one of one tag at those of that tag and
//! the few of others in the same chain; one that ignores bits of its tag at all tagged ones.

use super::buckets::Buckets;
use super::posted::takes;
use crate::op::{Chain, Op, Operation};
use kernel::prelude::*;

/// Arrivals that wait for a receive.
pub(super) struct Waiting {
    untagged: Chain,
    tagged: Buckets,
    /// The place of the next.
    turn: u64,
}

impl Waiting {
    /// As many as receives, in most cases. Sleeps. `ENOMEM`.
    pub(super) fn new(receives: usize) -> Result<Self> {
        Ok(Waiting {
            untagged: Chain::new(),
            tagged: Buckets::new(receives)?,
            turn: 0,
        })
    }

    /// Takes an arrival that came after all others.
    #[inline]
    pub(super) fn push(&mut self, mut arrival: Operation) {
        arrival.op().set_turn(self.turn);
        self.turn = self.turn.wrapping_add(1);
        match arrival.tag() {
            None => self.untagged.push(arrival),
            Some(tag) => self.tagged.push(tag, arrival),
        }
    }

    /// Takes out the first that a receive takes.
    #[inline]
    pub(super) fn take_for(&mut self, receive: &Op) -> Option<Operation> {
        let is = |arrival: &Op| takes(receive, arrival);
        let Some(tags) = receive.tags() else {
            return self.untagged.find(is);
        };
        if tags.is_one() {
            return self.tagged.find(tags.tag(), is);
        }
        let all = self.tagged.iter_all().filter(|op| is(op));
        let first = all.map(|op| (op.turn(), op.tag())).min()?;
        let tag = first.1?;
        self.tagged.find(tag, |op| op.turn() == first.0)
    }

    /// Takes out the first that `is` accepts: of the untagged ones, else of the tagged. Steps: all.
    pub(super) fn find(&mut self, mut is: impl FnMut(&Op) -> bool) -> Option<Operation> {
        let found = self.untagged.find(&mut is);
        found.or_else(|| self.tagged.find_any(is))
    }

    /// Takes all out that `is` accepts. Steps: all.
    pub(super) fn extract(&mut self, mut is: impl FnMut(&Op) -> bool) -> Chain {
        let mut taken = self.untagged.extract(&mut is);
        self.tagged.extract(is, &mut taken);
        taken
    }
}
