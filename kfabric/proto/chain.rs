// SPDX-License-Identifier: GPL-2.0

//! A queue through the elements of a slice.
//!
//! An element is in one chain at most, and can be taken out of its middle. Nothing is allocated.
//! An index that is out of range is taken for the end.

/// No element.
const NONE: u32 = u32::MAX;

/// What an element knows of its neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    before: u32,
    after: u32,
}

impl Links {
    /// Those of an element that is in no chain.
    pub const fn new() -> Links {
        Links {
            before: NONE,
            after: NONE,
        }
    }
}

impl Default for Links {
    fn default() -> Self {
        Links::new()
    }
}

/// An element.
pub trait Linked {
    /// What it knows of its neighbours; for the chain alone.
    fn links(&mut self) -> &mut Links;
}

/// The queue. The slice is handed in with each call, and must be the same.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    head: u32,
    tail: u32,
}

impl Chain {
    /// Without elements.
    pub const fn new() -> Chain {
        Chain {
            head: NONE,
            tail: NONE,
        }
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// The first.
    pub const fn head(&self) -> Option<u32> {
        if self.head == NONE {
            None
        } else {
            Some(self.head)
        }
    }

    /// The one after `at`.
    pub fn after<T: Linked>(&self, slots: &mut [T], at: u32) -> Option<u32> {
        let after = slots.get_mut(at as usize)?.links().after;
        (after != NONE).then_some(after)
    }

    /// Appends an element that is in no chain.
    pub fn push<T: Linked>(&mut self, slots: &mut [T], at: u32) {
        let Some(slot) = slots.get_mut(at as usize) else {
            return;
        };
        *slot.links() = Links {
            before: self.tail,
            after: NONE,
        };
        match slots.get_mut(self.tail as usize) {
            Some(tail) => tail.links().after = at,
            None => self.head = at,
        }
        self.tail = at;
    }

    /// Takes out an element that is in this chain.
    pub fn remove<T: Linked>(&mut self, slots: &mut [T], at: u32) {
        let Some(slot) = slots.get_mut(at as usize) else {
            return;
        };
        let Links { before, after } = core::mem::take(slot.links());
        match slots.get_mut(before as usize) {
            Some(before) => before.links().after = after,
            None => self.head = after,
        }
        match slots.get_mut(after as usize) {
            Some(after) => after.links().before = before,
            None => self.tail = before,
        }
    }

    /// Takes out the first.
    pub fn pop<T: Linked>(&mut self, slots: &mut [T]) -> Option<u32> {
        let head = self.head()?;
        self.remove(slots, head);
        Some(head)
    }
}

impl Default for Chain {
    fn default() -> Self {
        Chain::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::rng;
    use super::*;
    use std::collections::VecDeque;

    impl Linked for Links {
        fn links(&mut self) -> &mut Links {
            self
        }
    }

    #[test]
    fn chain_agrees_with_a_list() {
        let mut rng = rng();
        let mut slots = [Links::new(); 8];
        let mut chain = Chain::new();
        let mut list = VecDeque::new();
        for _ in 0..20_000 {
            let at = rng.below(8) as u32;
            match (list.iter().position(|&other| other == at), rng.below(3)) {
                (None, _) => {
                    chain.push(&mut slots, at);
                    list.push_back(at);
                }
                (Some(_), 0) => assert_eq!(chain.pop(&mut slots), list.pop_front()),
                (Some(position), _) => {
                    chain.remove(&mut slots, at);
                    list.remove(position);
                }
            }
            let mut found = VecDeque::new();
            let mut next = chain.head();
            while let Some(at) = next {
                found.push_back(at);
                next = chain.after(&mut slots, at);
            }
            assert_eq!(found, list);
            assert_eq!(chain.is_empty(), list.is_empty());
        }
    }

    #[test]
    fn index_out_of_range_changes_nothing() {
        let mut slots = [Links::new(); 2];
        let mut chain = Chain::new();
        chain.push(&mut slots, 2);
        chain.remove(&mut slots, 7);
        assert_eq!(chain.pop(&mut slots), None);
        assert_eq!(chain.after(&mut slots, 9), None);
    }
}
