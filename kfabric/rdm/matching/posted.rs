// SPDX-License-Identifier: GPL-2.0

//! Receives that wait for a message.
//!
//! A message goes to the receive that was posted first, of those that take it. What it costs to find
//! that one:
//!
//! | receive | is kept | a message looks at |
//! |---|---|---|
//! | untagged | in one chain | the first |
//! | of one tag | in chains by the tag | those of its tag, and the few of others in the same chain |
//! | of several tags (some bits ignored) | in one chain | each, up to the first that takes it |

use super::buckets::Buckets;
use crate::op::{Chain, Op, OpId, Operation};
use kernel::prelude::*;

/// Receives that wait for a message.
pub(super) struct Posted {
    untagged: Chain,
    /// Of one tag.
    exact: Buckets,
    /// Of several.
    masked: Chain,
    /// The place of the next.
    turn: u64,
}

/// Which chain a receive is in.
enum Place {
    Untagged,
    Exact(u64),
    Masked,
}

fn place(receive: &Op) -> Place {
    match receive.tags() {
        None => Place::Untagged,
        Some(tags) if tags.is_one() => Place::Exact(tags.tag()),
        Some(_) => Place::Masked,
    }
}

/// Whether a receive takes an arrival.
#[inline]
pub(super) fn takes(receive: &Op, arrival: &Op) -> bool {
    match (receive.tags(), arrival.tag()) {
        (None, None) => true,
        (Some(tags), Some(tag)) => tags.contains(tag),
        _ => false,
    }
}

impl Posted {
    /// For so many. Sleeps. `ENOMEM`.
    pub(super) fn new(receives: usize) -> Result<Self> {
        Ok(Posted {
            untagged: Chain::new(),
            exact: Buckets::new(receives)?,
            masked: Chain::new(),
            turn: 0,
        })
    }

    /// Takes a receive that is later than all others.
    #[inline]
    pub(super) fn push(&mut self, mut receive: Operation) {
        receive.op().set_turn(self.turn);
        self.turn = self.turn.wrapping_add(1);
        match place(&receive) {
            Place::Untagged => self.untagged.push(receive),
            Place::Exact(tag) => self.exact.push(tag, receive),
            Place::Masked => self.masked.push(receive),
        }
    }

    /// Takes one back into the place that it had. Steps: those that wait beside it.
    pub(super) fn put_back(&mut self, receive: Operation) {
        match place(&receive) {
            Place::Untagged => insert(&mut self.untagged, receive),
            Place::Exact(tag) => self.exact.put(tag, |chain| insert(chain, receive)),
            Place::Masked => insert(&mut self.masked, receive),
        }
    }

    /// Takes out the first that takes an arrival.
    #[inline]
    pub(super) fn take_for(&mut self, arrival: &Op) -> Option<Operation> {
        let Some(tag) = arrival.tag() else {
            return self.untagged.pop();
        };
        let is = |receive: &Op| takes(receive, arrival);
        let masked = match self.masked.is_empty() {
            true => None,
            false => self.masked.iter().find(|op| is(op)).map(Op::turn),
        };
        let Some(masked) = masked else {
            return self.exact.find(tag, is);
        };
        // Whichever was posted first.
        let exact = self.exact.iter(tag).find(|op| is(op)).map(Op::turn);
        match exact {
            Some(exact) if exact < masked => self.exact.find(tag, is),
            _ => self.masked.find(is),
        }
    }

    /// Takes out that one. Steps: all.
    pub(super) fn find(&mut self, id: OpId) -> Option<Operation> {
        let is = |op: &Op| op.id() == id;
        let found = self.untagged.find(is).or_else(|| self.masked.find(is));
        found.or_else(|| self.exact.find_any(is))
    }

    /// Takes all out.
    pub(super) fn take(&mut self) -> Chain {
        let mut all = self.untagged.take();
        let mut masked = self.masked.take();
        while let Some(op) = masked.pop() {
            all.push(op);
        }
        self.exact.extract(|_| true, &mut all);
        all
    }
}

/// Puts a receive before the first in a chain that was posted after it.
fn insert(chain: &mut Chain, receive: Operation) {
    let turn = receive.turn();
    let mut later = chain.extract(|op| op.turn() > turn);
    chain.push(receive);
    while let Some(op) = later.pop() {
        chain.push(op);
    }
}
