// SPDX-License-Identifier: GPL-2.0

//! Arrivals that wait for a receive.
//!
//! A receive gets the arrival that came first, of those that it takes. An untagged one looks at the
//! first, or, if it is of one peer, at those before the peer's; one of one tag at those of that tag and
//! the few of others in the same chain; one that ignores bits of its tag at all tagged ones.

use super::buckets::Buckets;
use super::posted::{needed, takes};
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

    /// Takes out all that a receive takes, in one pass, and its parts for them; if those are fewer by one, the
    /// last arrival is for the receive itself.
    pub(super) fn take_all_for(&mut self, receive: &mut Op) -> (Chain, Chain) {
        let mut parts = Chain::new();
        if receive.tags().is_some() {
            // It takes one.
            let mut arrivals = Chain::new();
            if let Some(arrival) = self.take_for(receive) {
                arrivals.push(arrival);
            }
            return (arrivals, parts);
        }
        let mut is_full = false;
        let arrivals = self.untagged.extract_until(|arrival| {
            if is_full {
                return None;
            }
            let taken = takes(receive, arrival);
            if taken {
                match receive.carve(needed(arrival)) {
                    Some(part) => parts.push(part),
                    None => is_full = true,
                }
            }
            Some(taken)
        });
        (arrivals, parts)
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

#[kunit_tests(kfabric_matching_waiting)]
mod tests {
    use super::*;
    use crate::av::Name;
    use crate::op::testing::{request, Bench};
    use crate::op::{Kind, OpId, Request};
    use crate::proto::tag::Tags;

    /// Two who send, and one who receives.
    struct Rig {
        senders: [Bench<u64>; 2],
        rx: Bench<u64>,
    }

    impl Rig {
        const NAMES: [&'static [u8]; 2] = [b"one", b"other"];

        fn new() -> Result<Self> {
            let sender = |n: usize| Bench::named(Self::NAMES[n], 8, None);
            Ok(Rig {
                senders: [sender(0)?, sender(1)?],
                rx: Bench::new(1, None)?,
            })
        }

        /// Has arrivals of these senders and tags wait; gives their numbers.
        fn arrive(
            &self,
            waiting: &mut Waiting,
            arrivals: &[(usize, Option<u64>)],
        ) -> Result<KVec<OpId>> {
            let mut ids = KVec::new();
            for (from, tag) in arrivals {
                let request = Request {
                    tags: tag.map(Tags::one),
                    ..request(Kind::Send)
                };
                let (id, op) = self.senders[*from].post_request(request, 0)?;
                ids.push(id, GFP_KERNEL)?;
                waiting.push(op);
            }
            Ok(ids)
        }

        /// What a receive of a peer, or of everybody, gets.
        fn taken(
            &self,
            waiting: &mut Waiting,
            peer: Option<usize>,
            tags: Option<Tags>,
        ) -> Result<Option<OpId>> {
            let request = Request {
                peer: match peer {
                    Some(peer) => Name::new(Self::NAMES[peer])?,
                    None => Name::NONE,
                },
                tags,
                ..request(Kind::Recv)
            };
            let (_, receive) = self.rx.post_request(request, 0)?;
            let taken = waiting.take_for(&receive).map(|op| op.id());
            drop(receive);
            drop(self.rx.read());
            Ok(taken)
        }
    }

    #[test]
    fn untagged_receive_gets_the_first_of_its_peer() -> Result {
        let (rig, mut waiting) = (Rig::new()?, Waiting::new(4)?);
        let arrivals = [(1, Some(5)), (0, None), (1, None), (0, None), (1, None)];
        let ids = rig.arrive(&mut waiting, &arrivals)?;
        for (peer, expected) in [
            (Some(1), Some(ids[2])),
            (None, Some(ids[1])),
            (Some(1), Some(ids[4])),
            (Some(1), None),
            (None, Some(ids[3])),
            (None, None),
        ] {
            assert_eq!(rig.taken(&mut waiting, peer, None)?, expected);
        }
        Ok(())
    }

    #[test]
    fn receive_of_one_tag_gets_the_first_of_that() -> Result {
        // All tags are in two chains.
        let (rig, mut waiting) = (Rig::new()?, Waiting::new(1)?);
        let arrivals = [1, 2, 3, 4, 3].map(|tag| (0, Some(tag)));
        let ids = rig.arrive(&mut waiting, &arrivals)?;
        for (peer, tag, expected) in [
            (None, 3, Some(ids[2])),
            (None, 5, None),
            (Some(1), 3, None),
            (Some(0), 3, Some(ids[4])),
            (None, 3, None),
            (None, 1, Some(ids[0])),
        ] {
            let tags = Some(Tags::one(tag));
            assert_eq!(rig.taken(&mut waiting, peer, tags)?, expected);
        }
        Ok(())
    }

    #[test]
    fn receive_of_many_tags_gets_what_came_first_of_all_chains() -> Result {
        let (rig, mut waiting) = (Rig::new()?, Waiting::new(256)?);
        let arrivals = [
            (0, None),
            (1, Some(u64::MAX)),
            (0, Some(9)),
            (1, Some(0)),
            (0, Some(u64::MAX)),
            (0, Some(8)),
        ];
        let ids = rig.arrive(&mut waiting, &arrivals)?;
        let all = Tags::new(0, u64::MAX);
        for (peer, tags, expected) in [
            (None, Tags::new(0, 7), Some(ids[3])),
            (None, Tags::new(16, 7), None),
            (None, Tags::new(8, 1), Some(ids[2])),
            (Some(0), all, Some(ids[4])),
            (None, all, Some(ids[1])),
            (Some(1), all, None),
            (None, all, Some(ids[5])),
            (None, all, None),
        ] {
            assert_eq!(rig.taken(&mut waiting, peer, Some(tags))?, expected);
        }
        // The one without a tag still waits.
        assert_eq!(rig.taken(&mut waiting, None, None)?, Some(ids[0]));
        Ok(())
    }

    #[test]
    fn whoever_is_sought_is_found_and_the_others_wait_on() -> Result {
        let (rig, mut waiting) = (Rig::new()?, Waiting::new(4)?);
        let arrivals = [(0, Some(5)), (0, None), (1, Some(6)), (1, None)];
        let ids = rig.arrive(&mut waiting, &arrivals)?;
        for (sought, found) in [(2, true), (2, false), (1, true)] {
            let id = ids[sought];
            let op = waiting.find(|op| op.id() == id);
            assert_eq!(op.map(|op| op.id()), found.then_some(id));
        }
        // The untagged ones are looked at first.
        assert!(waiting.find(|_| true).is_some_and(|op| op.id() == ids[3]));
        let more = rig.arrive(&mut waiting, &[(1, None), (1, Some(7))])?;
        let mut taken = waiting.extract(|op| op.id() != ids[0]);
        for id in &more {
            assert!(taken.pop().is_some_and(|op| op.id() == *id));
        }
        assert!(taken.is_empty());
        assert_eq!(waiting.extract(|_| true).len(), 1);
        assert!(waiting.find(|_| true).is_none() && waiting.extract(|_| true).is_empty());
        Ok(())
    }
}
