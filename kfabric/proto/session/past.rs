// SPDX-License-Identifier: GPL-2.0

//! What is remembered of sessions that are over: so that nothing of them is taken for the one that goes on, and
//! none of them for a new one.

use super::super::wire::hello::Hello;

/// How far below the latest incarnation of a peer those are that it has left.
const LEFT: u64 = 1 << 16;

/// What is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// That of this side, for the session that goes on or the next.
    incarnation: u64,
    /// The last incarnation of the peer that there was a session with, or 0.
    latest: u64,
    /// The one before that, or 0.
    former: u64,
    /// That of the link that was opened last.
    generation: u32,
    /// The last that a dial of this side said.
    dials: u32,
    /// Dials of the peer's latest incarnation that say no more than this are late.
    late: u32,
}

impl Past {
    /// Nothing was before. `incarnation` is random.
    pub fn new(incarnation: u64) -> Past {
        Past {
            incarnation: incarnation.max(1),
            latest: 0,
            former: 0,
            generation: 0,
            dials: 0,
            late: 0,
        }
    }

    /// Whether the peer was ever told the incarnation of this side, or has told its own. If not, there is nothing
    /// to be remembered.
    pub fn is_known(&self) -> bool {
        self.latest != 0 || self.dials != 0
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether a hello is of an incarnation that the peer has left, and so of a link that was late.
    ///
    /// Those of an endpoint count up: one a little below the latest was left before there was a
    /// session with it.
    pub(super) fn is_stale(&self, hello: &Hello) -> bool {
        let below = self.latest.wrapping_sub(hello.incarnation);
        let left = self.latest != 0 && (1..=LEFT).contains(&below);
        left || (self.former != 0 && hello.incarnation == self.former)
    }

    /// Whether a dial of the latest incarnation is late, since the peer has made another link since, or has taken
    /// ours: also if that session is over.
    pub(super) fn is_late(&self, hello: &Hello) -> bool {
        self.latest == hello.incarnation && !is_later(hello.generation, self.late)
    }

    /// Whether a hello may be the answer to the last dial.
    pub(super) fn is_answer(&self, hello: &Hello) -> bool {
        is_later(hello.generation, self.generation)
    }

    /// The peer is in that incarnation.
    pub(super) fn meet(&mut self, incarnation: u64) {
        // Also if the session with the latest is over.
        if self.latest != incarnation {
            self.former = core::mem::replace(&mut self.latest, incarnation);
        }
    }

    /// A link of the peer is taken, whose hello said `generation`.
    pub(super) fn accept(&mut self, generation: u32) {
        self.generation = later(generation, self.next_generation());
        self.late = generation;
    }

    /// The answer to a dial said `generation`.
    pub(super) fn answered(&mut self, generation: u32) {
        (self.generation, self.late) = (generation, generation);
    }

    /// What a dial says.
    pub(super) fn dial(&mut self) -> u32 {
        self.dials = self.next_generation();
        self.dials
    }

    /// This side gives its session up, and its incarnation.
    pub(super) fn leave(&mut self) {
        self.incarnation = self.incarnation.wrapping_add(1).max(1);
    }

    /// One more than this side knows of or has said.
    fn next_generation(&self) -> u32 {
        later(self.generation, self.dials).wrapping_add(1)
    }
}

/// Whether `a` is after `b`.
fn is_later(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 1 << 31
}

/// The later of both.
fn later(a: u32, b: u32) -> u32 {
    if is_later(a, b) {
        a
    } else {
        b
    }
}
