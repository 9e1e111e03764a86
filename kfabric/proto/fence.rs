// SPDX-License-Identifier: GPL-2.0

//! Fences: which operations wait until others to the same peer have completed.
//!
//! An operation with a fence waits until every operation that was posted before it to its peer has
//! completed, and those posted after it to that peer wait behind it. Other peers don't wait. The
//! table counts, by peer, what is in flight and what waits; the operations themselves, in the
//! order of their posts, are the caller's.
//!
//! It allocates nothing: storage is handed in, and has a place for each operation that may be in
//! flight or wait, so that it does not lack one as long as none is counted that has ended. Source: FI_FENCE of
//! fi_endpoint(3).

use core::ops::DerefMut;

/// No place.
const NONE: u32 = u32::MAX;

/// What is known of a peer, while something is in flight to it or waits.
#[derive(Clone, Copy)]
pub struct Place<K> {
    peer: Option<K>,
    /// The first place of the peers whose hash is this place's number.
    first: u32,
    /// The next of those peers, or the next free place.
    next: u32,
    in_flight: u32,
    waiting: u32,
}

impl<K> Place<K> {
    /// A place that nobody has.
    pub const fn vacant() -> Self {
        Place {
            peer: None,
            first: NONE,
            next: NONE,
            in_flight: 0,
            waiting: 0,
        }
    }
}

/// Where an operation's peer is counted, until it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

impl Ticket {
    /// The number of its peer's place: below that of places, and no other peer's meanwhile.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What becomes of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It goes at once; [`Fences::end`] when it has completed.
    Go(Ticket),
    /// It waits behind those that wait already; [`Fences::release`] lets it go.
    Wait(Ticket),
}

/// The table.
pub struct Fences<S> {
    places: S,
    free: u32,
}

impl<K: Copy + Eq, S: DerefMut<Target = [Place<K>]>> Fences<S> {
    /// A table without peers, for as many operations as there are places, at most 2^32 - 1.
    pub fn new(mut places: S) -> Self {
        let len = places.len().min(NONE as usize) as u32;
        for (at, place) in places.iter_mut().enumerate() {
            *place = Place::vacant();
            place.next = if at as u32 + 1 < len {
                at as u32 + 1
            } else {
                NONE
            };
        }
        let free = if len == 0 { NONE } else { 0 };
        Fences { places, free }
    }

    fn place(&mut self, at: u32) -> Option<&mut Place<K>> {
        self.places.get_mut(at as usize)
    }

    /// Where `peer` is counted; a new place if it is not yet.
    fn find(&mut self, peer: &K, hash: u64) -> Option<u32> {
        let bucket = (hash % self.places.len().max(1) as u64) as u32;
        let first = self.place(bucket)?.first;
        let mut at = first;
        while let Some(place) = self.place(at) {
            if place.peer.as_ref() == Some(peer) {
                return Some(at);
            }
            at = place.next;
        }
        let at = self.free;
        let place = self.place(at)?;
        let free = core::mem::replace(&mut place.next, first);
        place.peer = Some(*peer);
        self.free = free;
        self.place(bucket)?.first = at;
        Some(at)
    }

    /// Counts an operation to `peer`, whose hash is `hash`; `fence`: it has one.
    ///
    /// `None` if more are counted than there are places.
    pub fn post(&mut self, peer: &K, hash: u64, fence: bool) -> Option<Posted> {
        let at = self.find(peer, hash)?;
        let place = self.place(at)?;
        if place.waiting > 0 || fence && place.in_flight > 0 {
            place.waiting += 1;
            Some(Posted::Wait(Ticket(at)))
        } else {
            place.in_flight += 1;
            Some(Posted::Go(Ticket(at)))
        }
    }

    /// Uncounts an operation that went and has completed; `hash` is that of its peer.
    ///
    /// Whether some of its peer wait, for which [`Fences::release`] may be asked now.
    pub fn end(&mut self, ticket: Ticket, hash: u64) -> bool {
        let Some(place) = self.place(ticket.0) else {
            return false;
        };
        place.in_flight = place.in_flight.saturating_sub(1);
        let waits = place.waiting > 0;
        self.forget(ticket, hash);
        waits
    }

    /// Whether the one that has waited longest at its peer, which has a fence or not, goes now.
    pub fn release(&mut self, ticket: Ticket, fence: bool) -> bool {
        let Some(place) = self.place(ticket.0) else {
            return false;
        };
        if place.waiting == 0 || fence && place.in_flight > 0 {
            return false;
        }
        place.waiting -= 1;
        place.in_flight += 1;
        true
    }

    /// Uncounts an operation that waited, and was taken out.
    pub fn withdraw(&mut self, ticket: Ticket, hash: u64) {
        if let Some(place) = self.place(ticket.0) {
            place.waiting = place.waiting.saturating_sub(1);
        }
        self.forget(ticket, hash);
    }

    /// Gives up the place of a peer for which nothing is counted.
    fn forget(&mut self, ticket: Ticket, hash: u64) {
        let bucket = (hash % self.places.len().max(1) as u64) as usize;
        let Some(&Place {
            peer: Some(_),
            next,
            in_flight: 0,
            waiting: 0,
            ..
        }) = self.places.get(ticket.0 as usize)
        else {
            return;
        };
        let mut at = self.places.get(bucket).map_or(NONE, |place| place.first);
        if at == ticket.0 {
            self.places[bucket].first = next;
        } else {
            while let Some(place) = self.place(at) {
                if place.next == ticket.0 {
                    place.next = next;
                    break;
                }
                at = place.next;
            }
        }
        let free = core::mem::replace(&mut self.free, ticket.0);
        if let Some(place) = self.place(ticket.0) {
            place.peer = None;
            place.next = free;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::rng;
    use super::*;
    use std::collections::VecDeque;

    fn fences(len: usize) -> Fences<Vec<Place<u8>>> {
        Fences::new(vec![Place::vacant(); len])
    }

    fn go(posted: Option<Posted>) -> Ticket {
        match posted {
            Some(Posted::Go(ticket)) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn wait(posted: Option<Posted>) -> Ticket {
        match posted {
            Some(Posted::Wait(ticket)) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fence_waits_for_its_own_peer_alone() {
        let mut fences = fences(8);
        let first = go(fences.post(&1, 1, false));
        let second = go(fences.post(&1, 1, false));
        assert_eq!(first, second);
        let fenced = wait(fences.post(&1, 1, true));
        // What follows waits behind it, other peers do not.
        let behind = wait(fences.post(&1, 1, false));
        go(fences.post(&2, 2, true));
        assert!(fences.end(first, 1));
        assert!(!fences.release(fenced, true));
        assert!(fences.end(second, 1));
        assert!(fences.release(fenced, true));
        assert!(fences.release(behind, false));
        assert!(!fences.release(behind, false));
    }

    #[test]
    fn second_fence_waits_for_the_first() {
        let mut fences = fences(8);
        let first = go(fences.post(&1, 1, true));
        let second = wait(fences.post(&1, 1, true));
        let third = wait(fences.post(&1, 1, true));
        assert!(fences.end(first, 1));
        assert!(fences.release(second, true));
        assert!(!fences.release(third, true));
        assert!(fences.end(second, 1));
        assert!(fences.release(third, true));
        assert!(!fences.end(third, 1));
    }

    #[test]
    fn table_has_a_place_for_each_operation_and_no_more() {
        let mut fences = fences(3);
        // All in one bucket.
        let tickets = [1, 2, 3].map(|peer| go(fences.post(&peer, 0, false)));
        assert_eq!(fences.post(&4, 0, false), None);
        assert!(!fences.end(tickets[1], 0));
        let fourth = go(fences.post(&4, 0, false));
        assert_eq!(fourth, tickets[1]);
        assert_eq!(go(fences.post(&1, 0, false)), tickets[0]);
        let mut none = Fences::new(Vec::<Place<u8>>::new());
        assert_eq!(none.post(&1, 0, false), None);
    }

    #[test]
    fn withdrawn_operation_holds_nobody_up() {
        let mut fences = fences(4);
        let first = go(fences.post(&1, 1, false));
        let fenced = wait(fences.post(&1, 1, true));
        let behind = wait(fences.post(&1, 1, false));
        fences.withdraw(fenced, 1);
        assert!(fences.release(behind, false));
        fences.end(first, 1);
        fences.end(behind, 1);
        go(fences.post(&1, 1, true));
    }

    /// Against a list of all operations, searched in full.
    #[test]
    fn table_agrees_with_a_full_search() {
        #[derive(Clone, Copy)]
        struct Op {
            peer: u8,
            fence: bool,
            ticket: Ticket,
            went: bool,
        }
        let mut rng = rng();
        let mut fences = fences(16);
        let mut ops: VecDeque<Op> = VecDeque::new();
        let hash = |peer: u8| u64::from(peer % 3);
        for _ in 0..20_000 {
            let may = |ops: &VecDeque<Op>, at: usize| {
                let op = ops[at];
                let mut before = ops.iter().take(at).filter(|other| other.peer == op.peer);
                if op.fence {
                    before.next().is_none()
                } else {
                    !before.any(|other| !other.went)
                }
            };
            if ops.len() < 16 && rng.below(2) == 0 {
                let (peer, fence) = (rng.below(6) as u8, rng.below(4) == 0);
                let posted = fences.post(&peer, hash(peer), fence).unwrap();
                let (Posted::Go(ticket) | Posted::Wait(ticket)) = posted;
                let went = matches!(posted, Posted::Go(_));
                ops.push_back(Op {
                    peer,
                    fence,
                    ticket,
                    went,
                });
                assert_eq!(went, may(&ops, ops.len() - 1));
            } else if !ops.is_empty() {
                let at = rng.below(ops.len() as u64) as usize;
                let op = ops.remove(at).unwrap();
                if op.went {
                    fences.end(op.ticket, hash(op.peer));
                } else {
                    fences.withdraw(op.ticket, hash(op.peer));
                }
                // Those of the peer that wait, in their order.
                for at in 0..ops.len() {
                    if ops[at].peer == op.peer && !ops[at].went {
                        let goes = fences.release(ops[at].ticket, ops[at].fence);
                        assert_eq!(goes, may(&ops, at));
                        if !goes {
                            break;
                        }
                        ops[at].went = true;
                    }
                }
            }
        }
    }
}
