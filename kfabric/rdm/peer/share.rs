// SPDX-License-Identifier: GPL-2.0

//! Messages that wait for a place in the machine, by the receive context of the peer that they are for.
//!
//! A message that meets no receive keeps its place until it does. So that a context which nobody receives from
//! leaves places to the others, half of them are divided evenly among the contexts; the other half is for whoever
//! comes. Contexts take turns.

use crate::info::MAX_CONTEXTS;
use crate::op::{Chain, Op, Operation};
use kernel::prelude::*;

/// Messages that wait for a place, and how many have one.
pub(super) struct Share {
    contexts: KVVec<Context>,
    /// The one whose turn it is.
    turn: usize,
    waiting: usize,
    /// Contexts from this one on were never used.
    used: usize,
}

/// Of one receive context of the peer.
struct Context {
    waiting: Chain,
    /// How many have a place.
    placed: usize,
}

/// How many places there are for messages, and among how many contexts they are divided.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) all: usize,
    pub(super) contexts: usize,
}

impl Places {
    /// How many are kept for each context: with fewer than two of them for each, one.
    fn own(self) -> usize {
        (self.all / 2 / self.contexts.max(1)).max(1)
    }

    /// How many are for whoever comes.
    fn common(self) -> usize {
        self.all.saturating_sub(self.own() * self.contexts.max(1))
    }
}

impl Share {
    /// Nothing waits. Sleeps. `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        // The last is for all that the peer can't have: what is for those does not wait.
        let mut contexts = KVVec::with_capacity(MAX_CONTEXTS + 1, GFP_KERNEL)?;
        for _ in 0..=MAX_CONTEXTS {
            let context = Context {
                waiting: Chain::new(),
                placed: 0,
            };
            contexts.push(context, GFP_KERNEL)?;
        }
        Ok(Share {
            contexts,
            turn: 0,
            waiting: 0,
            used: 0,
        })
    }

    fn context(&mut self, op: &Op) -> Option<&mut Context> {
        self.contexts.get_mut(op.peer_context().min(MAX_CONTEXTS))
    }

    /// Takes a message that waits behind all others for the same context.
    pub(super) fn push(&mut self, op: Operation) {
        self.used = self.used.max(op.peer_context().min(MAX_CONTEXTS) + 1);
        if let Some(context) = self.context(&op) {
            context.waiting.push(op);
            self.waiting += 1;
        }
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The context whose message goes next; `None`: none may.
    fn next(&self, places: Places) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let beyond = |context: &Context| context.placed.saturating_sub(places.own());
        let used = self.contexts.get(..self.used)?;
        let taken: usize = used.iter().map(beyond).sum();
        let may = |context: &Context| context.placed < places.own() || taken < places.common();
        let turn = self.turn.min(used.len());
        Iterator::chain(turn..used.len(), 0..turn).find(|at| {
            let context = used.get(*at);
            context.is_some_and(|context| !context.waiting.is_empty() && may(context))
        })
    }

    /// Whether one may go.
    pub(super) fn has_next(&self, places: Places) -> bool {
        self.next(places).is_some()
    }

    /// Takes out the one that goes next.
    pub(super) fn pop(&mut self, places: Places) -> Option<Operation> {
        let at = self.next(places)?;
        let op = self.contexts.get_mut(at)?.waiting.pop()?;
        self.turn = at + 1;
        self.waiting -= 1;
        Some(op)
    }

    /// One has got a place.
    pub(super) fn placed(&mut self, op: &Op) {
        if let Some(context) = self.context(op) {
            context.placed += 1;
        }
    }

    /// One has left its place.
    pub(super) fn left(&mut self, op: &Op) {
        if let Some(context) = self.context(op) {
            context.placed = context.placed.saturating_sub(1);
        }
    }

    /// Takes all out that wait and `is` accepts.
    pub(super) fn extract(&mut self, mut is: impl FnMut(&Op) -> bool) -> Chain {
        let mut all = Chain::new();
        for context in self.contexts.iter_mut() {
            let mut some = context.waiting.extract(&mut is);
            while let Some(op) = some.pop() {
                self.waiting -= 1;
                all.push(op);
            }
        }
        all
    }
}

#[kunit_tests(kfabric_rdm_peer_share)]
mod tests {
    use super::*;
    use crate::op::testing::{done, request, Bench};
    use crate::op::{Kind, Request};

    /// Has so many messages for a context wait.
    fn wait(share: &mut Share, bench: &Bench<u64>, context: u16, count: usize) -> Result {
        for _ in 0..count {
            let request = Request {
                peer_context: context,
                ..request(Kind::Send)
            };
            share.push(bench.post_request(request, context.into())?.1);
        }
        Ok(())
    }

    /// Places all that may go; gives how many of each context went.
    fn place(share: &mut Share, places: Places, gone: &mut Chain) -> [usize; 4] {
        let mut counts = [0; 4];
        while let Some(op) = share.pop(places) {
            share.placed(&op);
            counts[op.peer_context().min(3)] += 1;
            gone.push(op);
        }
        counts
    }

    fn end(share: &mut Share, gone: &mut Chain) {
        while let Some(op) = gone.pop() {
            share.left(&op);
            op.complete(done(0));
        }
    }

    #[test]
    fn one_context_may_have_all_places() -> Result {
        let bench = Bench::<u64>::new(16, None)?;
        let (mut share, mut gone) = (Share::new()?, Chain::new());
        wait(&mut share, &bench, 0, 13)?;
        let places = Places {
            all: 12,
            contexts: 1,
        };
        assert_eq!(place(&mut share, places, &mut gone), [12, 0, 0, 0]);
        assert!(!share.is_empty() && !share.has_next(places));
        let op = gone.pop().ok_or(EINVAL)?;
        share.left(&op);
        op.complete(done(0));
        assert_eq!(place(&mut share, places, &mut gone), [1, 0, 0, 0]);
        end(&mut share, &mut gone);
        assert!(share.is_empty());
        Ok(())
    }

    #[test]
    fn starved_contexts_leave_each_other_its_own() -> Result {
        let bench = Bench::<u64>::new(64, None)?;
        let (mut share, mut gone) = (Share::new()?, Chain::new());
        let places = Places {
            all: 24,
            contexts: 3,
        };
        // Twelve common ones, and four of its own.
        wait(&mut share, &bench, 0, 20)?;
        assert_eq!(place(&mut share, places, &mut gone), [16, 0, 0, 0]);
        wait(&mut share, &bench, 1, 6)?;
        assert_eq!(place(&mut share, places, &mut gone), [0, 4, 0, 0]);
        wait(&mut share, &bench, 2, 6)?;
        assert_eq!(place(&mut share, places, &mut gone), [0, 0, 4, 0]);
        assert!(!share.has_next(places));
        // What is left goes in turns, once there is room.
        end(&mut share, &mut gone);
        assert_eq!(place(&mut share, places, &mut gone), [4, 2, 2, 0]);
        end(&mut share, &mut gone);
        Ok(())
    }

    #[test]
    fn each_of_many_contexts_has_one_place() -> Result {
        let bench = Bench::<u64>::new(8, None)?;
        let (mut share, mut gone) = (Share::new()?, Chain::new());
        let places = Places {
            all: 12,
            contexts: MAX_CONTEXTS,
        };
        for context in 0..3 {
            wait(&mut share, &bench, context, 2)?;
        }
        assert_eq!(place(&mut share, places, &mut gone), [1, 1, 1, 0]);
        let mut left = share.extract(|op| op.peer_context() == 1);
        assert_eq!(left.len(), 1);
        end(&mut share, &mut left);
        end(&mut share, &mut gone);
        let mut left = share.extract(|_| true);
        assert!(left.len() == 2 && share.is_empty());
        end(&mut share, &mut left);
        Ok(())
    }

    #[test]
    fn context_that_no_peer_has_is_one_beyond_all() -> Result {
        let bench = Bench::<u64>::new(2, None)?;
        let (mut share, mut gone) = (Share::new()?, Chain::new());
        wait(&mut share, &bench, MAX_CONTEXTS as u16, 1)?;
        wait(&mut share, &bench, u16::MAX, 1)?;
        let places = Places {
            all: 12,
            contexts: 2,
        };
        assert_eq!(place(&mut share, places, &mut gone), [0, 0, 0, 2]);
        end(&mut share, &mut gone);
        Ok(())
    }
}
