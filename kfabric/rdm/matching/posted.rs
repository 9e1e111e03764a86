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

#[kunit_tests(kfabric_matching_posted)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::op::testing::{request, Bench};
    use crate::op::{Buffer, Request};

    /// One who receives, and two who send.
    struct Rig {
        rx: Bench<u64>,
        senders: [Bench<u64>; 2],
    }

    /// A receive that takes the untagged messages of everybody.
    const ANY: (Option<usize>, Option<Tags>) = (None, None);

    impl Rig {
        const NAMES: [&'static [u8]; 2] = [b"one", b"other"];

        fn new() -> Result<Self> {
            let sender = |n: usize| Bench::named(Self::NAMES[n], 4, None);
            Ok(Rig {
                rx: Bench::new(12, None)?,
                senders: [sender(0)?, sender(1)?],
            })
        }

        fn receive(&self, (peer, tags): (Option<usize>, Option<Tags>)) -> Result<Operation> {
            let request = Request {
                peer: match peer {
                    Some(peer) => Name::new(Self::NAMES[peer])?,
                    None => Name::NONE,
                },
                tags,
                ..request(Kind::Recv)
            };
            Ok(self.rx.post_request(request, 0)?.1)
        }

        fn message(&self, from: usize, tag: Option<u64>) -> Result<Operation> {
            let request = Request {
                tags: tag.map(Tags::one),
                ..request(Kind::Send)
            };
            Ok(self.senders[from].post_request(request, 0)?.1)
        }
    }

    /// Receives of each kind.
    fn kinds() -> [(Option<usize>, Option<Tags>); 6] {
        [
            ANY,
            (None, Some(Tags::one(5))),
            (Some(0), None),
            (Some(0), Some(Tags::one(5))),
            (None, Some(Tags::new(4, 1))),
            (Some(0), Some(Tags::new(4, 1))),
        ]
    }

    #[test]
    fn receive_is_kept_where_its_messages_look() -> Result {
        let rig = Rig::new()?;
        let [any, exact, directed, both, masked, masked_of_one] = kinds();
        assert!(matches!(place(&*rig.receive(any)?), Place::Untagged));
        assert!(matches!(place(&*rig.receive(exact)?), Place::Exact(5)));
        for masked in [masked, masked_of_one] {
            assert!(matches!(place(&*rig.receive(masked)?), Place::Masked));
        }
        let sender = Name::new(Rig::NAMES[0])?;
        for (receive, tag) in [(directed, None), (both, Some(5))] {
            let expected = number(&sender, tag);
            let place = place(&*rig.receive(receive)?);
            assert!(matches!(place, Place::Directed(number) if number == expected));
        }
        Ok(())
    }

    #[test]
    fn receive_takes_what_it_was_posted_for() -> Result {
        let rig = Rig::new()?;
        // By who sends, and under which tag.
        let messages = [
            (0, None),
            (1, None),
            (0, Some(5)),
            (1, Some(5)),
            (0, Some(4)),
            (0, Some(6)),
        ];
        let expected = [
            [true, true, false, false, false, false],
            [false, false, true, true, false, false],
            [true, false, false, false, false, false],
            [false, false, true, false, false, false],
            [false, false, true, true, true, false],
            [false, false, true, false, true, false],
        ];
        for (receive, row) in kinds().into_iter().zip(expected) {
            let receive = rig.receive(receive)?;
            for ((from, tag), taken) in messages.into_iter().zip(row) {
                let arrival = rig.message(from, tag)?;
                assert_eq!(takes(&receive, &arrival), taken);
                drop(arrival);
                drop(rig.senders[from].read());
            }
            drop(receive);
            drop(rig.rx.read());
        }
        Ok(())
    }

    #[test]
    fn only_a_message_needs_room() -> Result {
        let rig = Rig::new()?;
        for (kind, room) in [(Kind::Send, 9), (Kind::Write, 0), (Kind::Commit, 0)] {
            let buffer = Buffer::from(Memory::zeroed(9)?);
            let (_, arrival) = rig.senders[0].post(kind, buffer, 0)?;
            assert_eq!(needed(&arrival), room);
        }
        Ok(())
    }

    /// Each message finds the first, in whichever order receives of all kinds were posted.
    #[test]
    fn first_of_all_kinds_is_taken() -> Result {
        let rig = Rig::new()?;
        for (tag, begin) in [
            (None, 0),
            (None, 1),
            (Some(5), 0),
            (Some(5), 1),
            (Some(5), 2),
            (Some(5), 3),
        ] {
            let takers = kinds()
                .into_iter()
                .filter(|(_, tags)| tags.is_some() == tag.is_some());
            let count = takers.clone().count();
            let (mut posted, mut ids) = (Posted::new(4)?, KVec::new());
            for kind in takers.cycle().skip(begin).take(count) {
                let receive = rig.receive(kind)?;
                ids.push(receive.id(), GFP_KERNEL)?;
                posted.push(receive);
            }
            let message = rig.message(0, tag)?;
            for id in &ids {
                let taken = posted.take_for(&message).ok_or(ENOENT)?;
                assert_eq!(taken.id(), *id);
            }
            assert!(posted.take_for(&message).is_none());
            drop(message);
            for bench in [&rig.rx, &rig.senders[0]] {
                while bench.read().is_some() {}
            }
        }
        Ok(())
    }

    #[test]
    fn receive_that_is_put_back_is_before_those_that_were_later() -> Result {
        let rig = Rig::new()?;
        for kind in kinds() {
            let tag = kind.1.map(|_| 5);
            for last_first in [false, true] {
                let (mut posted, mut ids) = (Posted::new(4)?, KVec::new());
                for _ in 0..4 {
                    let receive = rig.receive(kind)?;
                    ids.push(receive.id(), GFP_KERNEL)?;
                    posted.push(receive);
                }
                let message = rig.message(0, tag)?;
                let first = posted.take_for(&message).ok_or(ENOENT)?;
                let second = posted.take_for(&message).ok_or(ENOENT)?;
                let order = match last_first {
                    true => [second, first],
                    false => [first, second],
                };
                for receive in order {
                    posted.put_back(receive);
                }
                for id in &ids {
                    let taken = posted.take_for(&message).ok_or(ENOENT)?;
                    assert_eq!(taken.id(), *id);
                }
                drop(message);
                for bench in [&rig.rx, &rig.senders[0]] {
                    while bench.read().is_some() {}
                }
            }
        }
        Ok(())
    }

    #[test]
    fn each_is_found_by_its_number_and_all_are_taken_out() -> Result {
        let rig = Rig::new()?;
        let mut posted = Posted::new(4)?;
        let mut ids = KVec::new();
        for kind in [kinds(), kinds()].into_iter().flatten() {
            let receive = rig.receive(kind)?;
            ids.push(receive.id(), GFP_KERNEL)?;
            posted.push(receive);
        }
        for id in &ids[..6] {
            assert!(posted.find(*id).is_some_and(|found| found.id() == *id));
            assert!(posted.find(*id).is_none());
        }
        let all = posted.take();
        assert_eq!(all.len(), 6);
        assert!(ids[6..]
            .iter()
            .all(|id| all.iter().any(|op| op.id() == *id)));
        assert!(posted.take().is_empty() && posted.find(ids[6]).is_none());
        for tag in [None, Some(5)] {
            assert!(posted.take_for(&*rig.message(0, tag)?).is_none());
        }
        Ok(())
    }
}
