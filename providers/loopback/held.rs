// SPDX-License-Identifier: GPL-2.0

//! What has taken effect, or has met its receive, and completes after others.

use kfabric::op::{Operation, Status};
use kfabric::provider::faults::Faults;
use kfabric::provider::Match;

/// How many may be held back at once.
const PLACES: usize = 8;
/// While how many others are executed, each at most.
const TURNS: u8 = 8;

/// What is yet to complete.
pub(crate) enum Late {
    /// An operation, and how it went.
    Ended(Operation, Status),
    /// A message that is copied then.
    Met(Match),
}

impl Late {
    fn complete(self) {
        match self {
            Late::Ended(op, status) => op.complete(status),
            Late::Met(pair) => pair.execute(),
        }
    }
}

/// What a worker holds back. It must let go of all of it before it returns.
pub(crate) struct Held([Option<Waiting>; PLACES]);

struct Waiting {
    late: Late,
    /// How many others were executed meanwhile.
    turns: u8,
}

/// Which places are taken: a bit each.
#[derive(Clone, Copy)]
pub(crate) struct Taken(u8);

impl Held {
    pub(crate) fn new() -> Self {
        Held([const { None }; PLACES])
    }

    /// Which are held now.
    pub(crate) fn taken(&self) -> Taken {
        let bits = self.0.iter().enumerate();
        Taken(bits.fold(0, |taken, (n, place)| {
            taken | u8::from(place.is_some()) << n
        }))
    }

    /// Holds something back, if `faults` say so and there is a place; else it completes at once.
    pub(crate) fn put(&mut self, late: Late, faults: &Faults) {
        match self.0.iter_mut().find(|place| place.is_none()) {
            Some(place) if faults.hold() => *place = Some(Waiting { late, turns: 0 }),
            _ => late.complete(),
        }
    }

    /// Completes those of `taken` that `faults` hold back no longer; without any, all.
    pub(crate) fn release(&mut self, taken: Taken, faults: Option<&Faults>) {
        for (n, place) in self.0.iter_mut().enumerate() {
            if taken.0 & 1 << n == 0 {
                continue;
            }
            match place {
                Some(waiting) if waiting.turns + 1 < TURNS && faults.is_some_and(Faults::hold) => {
                    waiting.turns += 1;
                }
                place => {
                    if let Some(waiting) = place.take() {
                        waiting.late.complete();
                    }
                }
            }
        }
    }
}
