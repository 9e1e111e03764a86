// SPDX-License-Identifier: GPL-2.0

//! Chains by a number: those of one number are in one chain, in their order.

use crate::op::{Chain, Op, Operation};
use crate::sys::random;
use kernel::prelude::*;

/// Source: GOLDEN_RATIO_64, include/linux/hash.h.
const GOLDEN_RATIO: u64 = 0x61c8_8646_80b5_83eb;

/// The most chains.
const MOST: usize = 256;

/// Chains by a number.
pub(super) struct Buckets {
    /// A power of two, at least two.
    chains: KVVec<Chain>,
    /// How many operations are in them.
    len: usize,
    /// What a number is multiplied by: peers, who choose tags, can't know which are in one chain. Odd.
    factor: u64,
}

impl Buckets {
    /// For about so many operations: then a chain has few of other numbers. Sleeps. `ENOMEM`.
    pub(super) fn new(operations: usize) -> Result<Self> {
        let count = operations.clamp(2, MOST).next_power_of_two();
        let mut chains = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            chains.push(Chain::new(), GFP_KERNEL)?;
        }
        Ok(Buckets {
            chains,
            len: 0,
            factor: random::u64() | 1,
        })
    }

    /// The chain of a number.
    fn at(&self, number: u64) -> usize {
        let bits = self.chains.len().ilog2();
        // By the factor alone, numbers beside each other would be in a few chains for some factors.
        let mixed = number.wrapping_mul(self.factor);
        // The upper bits depend on all of the number's.
        ((mixed ^ mixed >> 32).wrapping_mul(GOLDEN_RATIO) >> (u64::BITS - bits)) as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Those in the chain of a number, in their order: those of that number, and some others.
    pub(super) fn iter(&self, number: u64) -> impl Iterator<Item = &Op> {
        self.chains[self.at(number)].iter()
    }

    /// All, chain by chain.
    pub(super) fn iter_all(&self) -> impl Iterator<Item = &Op> {
        // Most endpoints have none.
        let chains = if self.is_empty() {
            &[][..]
        } else {
            &self.chains
        };
        chains.iter().flat_map(Chain::iter)
    }

    /// Appends one of a number.
    pub(super) fn push(&mut self, number: u64, op: Operation) {
        let at = self.at(number);
        self.chains[at].push(op);
        self.len += 1;
    }

    /// Calls `f` with the chain of a number, to which it adds as many as it says.
    pub(super) fn put(&mut self, number: u64, f: impl FnOnce(&mut Chain)) {
        let at = self.at(number);
        let before = self.chains[at].len();
        f(&mut self.chains[at]);
        self.len += self.chains[at].len() - before;
    }

    /// The first in the chain of a number that `is` accepts, for a change. Steps: those before it.
    pub(super) fn find_mut(&mut self, number: u64, is: impl FnMut(&Op) -> bool) -> Option<&mut Op> {
        let at = self.at(number);
        self.chains[at].find_mut(is)
    }

    /// Takes out the first in the chain of a number that `is` accepts. Steps: those before it.
    pub(super) fn find(&mut self, number: u64, is: impl FnMut(&Op) -> bool) -> Option<Operation> {
        let at = self.at(number);
        let found = self.chains[at].find(is)?;
        self.len -= 1;
        Some(found)
    }

    /// Takes out one that `is` accepts, wherever it is. Steps: all.
    pub(super) fn find_any(&mut self, mut is: impl FnMut(&Op) -> bool) -> Option<Operation> {
        if self.is_empty() {
            return None;
        }
        let found = self
            .chains
            .iter_mut()
            .find_map(|chain| chain.find(&mut is))?;
        self.len -= 1;
        Some(found)
    }

    /// Takes all out that `is` accepts, and puts them into `to`. Steps: all.
    pub(super) fn extract(&mut self, mut is: impl FnMut(&Op) -> bool, to: &mut Chain) {
        if self.is_empty() {
            return;
        }
        for chain in self.chains.iter_mut() {
            let mut taken = chain.extract(&mut is);
            self.len -= taken.len();
            while let Some(op) = taken.pop() {
                to.push(op);
            }
        }
    }
}

#[kunit_tests(kfabric_matching_buckets)]
mod tests {
    use super::*;
    use crate::op::testing::{request, Bench};
    use crate::op::{Kind, Request};
    use crate::proto::tag::Tags;

    /// An operation of that number, which is its tag.
    fn op(bench: &Bench<u64>, number: u64) -> Result<Operation> {
        let request = Request {
            tags: Some(Tags::one(number)),
            ..request(Kind::Send)
        };
        Ok(bench.post_request(request, number)?.1)
    }

    fn is(number: u64) -> impl Fn(&Op) -> bool + Copy {
        move |op| op.tag() == Some(number)
    }

    /// Some that share a chain, of which the first has the number 0.
    fn neighbours(buckets: &Buckets) -> [u64; 3] {
        let mut all = (0..).filter(|number| buckets.at(*number) == buckets.at(0));
        [(); 3].map(|()| all.next().unwrap_or(0))
    }

    #[test]
    fn chains_are_bounded_and_every_number_has_one() -> Result {
        for (operations, chains) in [
            (0, 2),
            (1, 2),
            (2, 2),
            (3, 4),
            (4, 4),
            (5, 8),
            (MOST, MOST),
            (MOST + 1, MOST),
            (usize::MAX, MOST),
        ] {
            let buckets = Buckets::new(operations)?;
            assert_eq!(buckets.chains.len(), chains);
            for number in [0, 1, u64::MAX, 1 << 63, 0x9e37_79b9_7f4a_7c15] {
                assert!(buckets.at(number) < chains);
            }
            // Numbers beside each other are not in a few. With 64 for each chain none is left out by chance.
            let numbers = 64 * MOST as u64;
            let used = (0..chains).filter(|at| (0..numbers).any(|n| buckets.at(n) == *at));
            assert_eq!(used.count(), chains);
        }
        Ok(())
    }

    #[test]
    fn those_of_one_number_keep_their_order_among_others() -> Result {
        let bench = Bench::<u64>::new(8, None)?;
        let mut buckets = Buckets::new(4)?;
        let [a, b, c] = neighbours(&buckets);
        let mut ids = KVec::new();
        for number in [a, b, a, b] {
            let op = op(&bench, number)?;
            ids.push(op.id(), GFP_KERNEL)?;
            buckets.push(number, op);
        }
        assert!(buckets.iter(a).map(Op::id).eq(ids.iter().copied()));
        assert!(buckets.find(c, is(c)).is_none() && buckets.find_mut(c, is(c)).is_none());
        for (number, id) in [(b, ids[1]), (a, ids[0]), (a, ids[2]), (b, ids[3])] {
            let seen = buckets.find_mut(number, is(number)).map(|op| op.id());
            assert_eq!(seen, Some(id));
            // Whoever looks takes nothing.
            let found = buckets.find(number, is(number)).ok_or(ENOENT)?;
            assert_eq!(found.id(), id);
        }
        assert!(buckets.is_empty() && buckets.find(a, is(a)).is_none());
        Ok(())
    }

    #[test]
    fn it_is_empty_once_all_have_been_taken_out_whichever_way() -> Result {
        let bench = Bench::<u64>::new(8, None)?;
        let mut buckets = Buckets::new(4)?;
        for way in 0..4 {
            assert!(buckets.is_empty() && buckets.iter_all().next().is_none());
            buckets.push(1, op(&bench, 1)?);
            let (first, second) = (op(&bench, 2)?, op(&bench, 2)?);
            buckets.put(2, |chain| {
                chain.push(first);
                chain.push(second);
            });
            assert_eq!((buckets.len, buckets.iter_all().count()), (3, 3));
            buckets.put(2, |chain| assert!(chain.len() >= 2));
            assert_eq!(buckets.len, 3);
            let mut taken = Chain::new();
            match way {
                0 => {
                    for number in [2, 1, 2] {
                        taken.push(buckets.find(number, is(number)).ok_or(ENOENT)?);
                    }
                }
                1 => {
                    for number in [2, 1, 2] {
                        taken.push(buckets.find_any(is(number)).ok_or(ENOENT)?);
                    }
                }
                2 => buckets.extract(|_| true, &mut taken),
                _ => {
                    // In parts; what is not meant stays, and what was taken before, too.
                    buckets.extract(is(2), &mut taken);
                    assert_eq!((buckets.len, taken.len()), (1, 2));
                    buckets.extract(is(2), &mut taken);
                    assert_eq!((buckets.len, taken.len()), (1, 2));
                    assert!(buckets.find_any(is(2)).is_none() && !buckets.is_empty());
                    buckets.extract(is(1), &mut taken);
                }
            }
            assert_eq!((buckets.len, taken.len()), (0, 3));
            assert!(buckets.find_any(|_| true).is_none());
            buckets.extract(|_| true, &mut taken);
            assert_eq!(taken.len(), 3);
            drop(taken);
            while bench.read().is_some() {}
        }
        Ok(())
    }
}
