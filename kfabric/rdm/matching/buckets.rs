// SPDX-License-Identifier: GPL-2.0

//! Chains by a number: those of one number are in one chain, in their order.

use crate::op::{Chain, Op, Operation};
use crate::sys::random;
use kernel::prelude::*;

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
        // The upper bits depend on all of the number's.
        (number.wrapping_mul(self.factor) >> (u64::BITS - bits)) as usize
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
