// SPDX-License-Identifier: GPL-2.0

//! Receives that wait for a message.
//!
//! A message goes to the receive that was posted first, of those that take it. What it costs to find
//! that one:
//!
//! | receive | is kept | a message looks at |
//! |---|---|---|
//! | untagged | in one chain | the first |
//! | of one peer, untagged or of one tag | in chains by the peer and the tag | those of its sender and tag, and the few of others in the same chain |
//! | of one tag | in chains by the tag | those of its tag, and the few of others in the same chain |
//! | of several tags (some bits ignored), also of one peer | in one chain | each, up to the first that takes it |

use super::buckets::Buckets;
use crate::av::Name;
use crate::mr::Access;
use crate::op::{Chain, Kind, Op, OpId, Operation};
use crate::proto::tag::Tags;
use kernel::prelude::*;

/// Receives that wait for a message.
pub(super) struct Posted {
    /// Untagged, of everybody.
    untagged: Chain,
    /// Of one tag and everybody.
    exact: Buckets,
    /// Of one peer, untagged or of one tag.
    directed: Buckets,
    /// Of several.
    masked: Chain,
    /// The place of the next.
    turn: u64,
}

/// Which chain a receive is in.
#[derive(Clone, Copy)]
enum Place {
    Untagged,
    Exact(u64),
    Directed(u64),
    Masked,
}

fn place(receive: &Op) -> Place {
    match (receive.tags(), *receive.peer() == Name::NONE) {
        (Some(tags), _) if !tags.is_one() => Place::Masked,
        (None, true) => Place::Untagged,
        (Some(tags), true) => Place::Exact(tags.tag()),
        (tags, false) => Place::Directed(number(receive.peer(), tags.map(Tags::tag))),
    }
}

/// The number under which receives of one peer are found, of one tag or untagged.
fn number(peer: &Name, tag: Option<u64>) -> u64 {
    peer.hash() ^ tag.unwrap_or(0)
}

/// Whether a receive takes an arrival.
#[inline]
pub(super) fn takes(receive: &Op, arrival: &Op) -> bool {
    if *receive.peer() != Name::NONE && receive.peer() != arrival.sender() {
        return false;
    }
    match (receive.tags(), arrival.tag()) {
        (None, None) => true,
        (Some(tags), Some(tag)) => tags.contains(tag) && admits(receive, arrival),
        _ => false,
    }
}

/// Whether a tagged receive has the right that a tagged write or read needs.
#[inline]
fn admits(receive: &Op, arrival: &Op) -> bool {
    match arrival.kind() {
        Kind::Write => receive.exposes().contains(Access::WRITE),
        Kind::Read => receive.exposes().contains(Access::READ),
        _ => true,
    }
}

/// How many bytes an arrival needs in a receive.
#[inline]
pub(super) fn needed(arrival: &Op) -> usize {
    match arrival.kind() {
        Kind::Send => arrival.len(),
        _ => 0,
    }
}

impl Posted {
    /// For so many. Sleeps. `ENOMEM`.
    pub(super) fn new(receives: usize) -> Result<Self> {
        Ok(Posted {
            untagged: Chain::new(),
            exact: Buckets::new(receives)?,
            directed: Buckets::new(receives)?,
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
            Place::Directed(number) => self.directed.push(number, receive),
            Place::Masked => self.masked.push(receive),
        }
    }

    /// Takes one back into the place that it had. Steps: those that wait beside it.
    pub(super) fn put_back(&mut self, receive: Operation) {
        match place(&receive) {
            Place::Untagged => insert(&mut self.untagged, receive),
            Place::Exact(tag) => self.exact.put(tag, |chain| insert(chain, receive)),
            Place::Directed(number) => self.directed.put(number, |chain| insert(chain, receive)),
            Place::Masked => insert(&mut self.masked, receive),
        }
    }

    /// Takes out the first that takes an arrival, or, of one that takes several, the part for it.
    #[inline]
    pub(super) fn take_for(&mut self, arrival: &Op) -> Option<Operation> {
        let tag = arrival.tag();
        let common = match tag {
            None => Place::Untagged,
            Some(tag) => Place::Exact(tag),
        };
        // No others can take it, in most cases.
        match self.directed.is_empty() && (tag.is_none() || self.masked.is_empty()) {
            true => self.take_at(common, arrival),
            false => self.take_first(common, arrival),
        }
    }

    /// As [`Posted::take_for`], if there are others than the common ones.
    #[inline(never)]
    fn take_first(&mut self, common: Place, arrival: &Op) -> Option<Operation> {
        let is = |receive: &Op| takes(receive, arrival);
        let directed = Place::Directed(number(arrival.sender(), arrival.tag()));
        let mut first = None;
        for place in [common, directed, Place::Masked] {
            // Whichever was posted first.
            if let Some(turn) = self.turn_at(place, is) {
                if first.is_none_or(|(earliest, _)| turn < earliest) {
                    first = Some((turn, place));
                }
            }
        }
        let (_, place) = first?;
        self.take_at(place, arrival)
    }

    /// The turn of the first in a place that `is` accepts.
    fn turn_at(&self, place: Place, is: impl Fn(&Op) -> bool) -> Option<u64> {
        let found = match place {
            Place::Untagged => self.untagged.iter().find(|op| is(op)),
            Place::Exact(tag) => self.exact.iter(tag).find(|op| is(op)),
            Place::Directed(number) => self.directed.iter(number).find(|op| is(op)),
            Place::Masked => self.masked.iter().find(|op| is(op)),
        };
        found.map(Op::turn)
    }

    /// Takes out the first in a place that takes an arrival, or its part for that.
    #[inline]
    fn take_at(&mut self, place: Place, arrival: &Op) -> Option<Operation> {
        let is = |receive: &Op| takes(receive, arrival);
        match place {
            // All of them take any.
            Place::Untagged => match self.untagged.find_mut(|_| true)?.carve(needed(arrival)) {
                Some(part) => Some(part),
                None => self.untagged.pop(),
            },
            Place::Exact(tag) => self.exact.find(tag, is),
            Place::Directed(number) => {
                let first = self.directed.find_mut(number, is)?;
                match first.carve(needed(arrival)) {
                    Some(part) => Some(part),
                    None => self.directed.find(number, is),
                }
            }
            Place::Masked => self.masked.find(is),
        }
    }

    /// Takes out that one. Steps: all.
    pub(super) fn find(&mut self, id: OpId) -> Option<Operation> {
        let is = |op: &Op| op.id() == id;
        let found = self.untagged.find(is).or_else(|| self.masked.find(is));
        let found = found.or_else(|| self.exact.find_any(is));
        found.or_else(|| self.directed.find_any(is))
    }

    /// Takes all out.
    pub(super) fn take(&mut self) -> Chain {
        let mut all = self.untagged.take();
        let mut masked = self.masked.take();
        while let Some(op) = masked.pop() {
            all.push(op);
        }
        self.exact.extract(|_| true, &mut all);
        self.directed.extract(|_| true, &mut all);
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
