// SPDX-License-Identifier: GPL-2.0

//! Fences of an endpoint: what waits until operations before it have completed.
//!
//! The rule is that of `proto/fence.rs`. What waits has its slot, and completes as any other when
//! the endpoint is closed.
//!
//! Locks: `state` is a leaf lock, interrupts disabled; nothing is executed or completes with it
//! held.

use crate::av::Name;
use crate::endpoint::Live;
use crate::op::{Chain, Failure, OpId, Operation};
use crate::proto::fence::{Fences, Place, Posted, Ticket};
use crate::provider::Rejected;
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, rcu, Arc, SpinLockIrq};

/// What an endpoint with fences knows of what it has posted.
#[pin_data]
pub(crate) struct Fence {
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    table: Fences<KVVec<Place<Name>>>,
    /// What waits, in the order of the posts.
    waiting: Chain,
    /// What waits no more, and is to be executed.
    ready: Chain,
    /// Whether somebody is executing what is ready.
    draining: bool,
    /// Through what operations are executed; `None` before the endpoint is enabled, and once it is
    /// closed.
    live: Option<Arc<Live>>,
}

impl State {
    /// Makes ready what may go at `ticket`'s peer.
    fn release(&mut self, ticket: Ticket) {
        loop {
            let (table, mut first) = (&mut self.table, true);
            let op = self.waiting.find(|op| {
                op.ticket() == Some(ticket)
                    && core::mem::take(&mut first)
                    && table.release(ticket, op.options().fence)
            });
            match op {
                Some(op) => self.ready.push(op),
                None => return,
            }
        }
    }
}

impl Fence {
    /// For at most `slots` operations. May sleep. `ENOMEM`.
    pub(crate) fn new(slots: usize) -> Result<Arc<Self>> {
        let mut places = KVVec::with_capacity(slots, GFP_KERNEL)?;
        for _ in 0..slots {
            places.push(Place::vacant(), GFP_KERNEL)?;
        }
        let state = State {
            table: Fences::new(places),
            waiting: Chain::new(),
            ready: Chain::new(),
            draining: false,
            live: None,
        };
        Arc::pin_init(
            pin_init!(Fence {
                state <- new_spinlock_irq!(state, "kfi_fence"),
            }),
            GFP_KERNEL,
        )
    }

    /// Begins: operations that waited are executed through `live`.
    pub(crate) fn open(&self, live: &Arc<Live>) {
        self.state.lock().live = Some(live.clone());
    }

    /// Counts a post; gives it back if it need not wait.
    pub(crate) fn admit(&self, mut op: Operation) -> Option<Operation> {
        let (peer, hash) = (*op.peer(), op.peer().hash());
        let mut state = self.state.lock();
        if state.live.is_none() {
            // Closed a moment ago; what it is given to says so.
            return Some(op);
        }
        match state.table.post(&peer, hash, op.options().fence) {
            Some(Posted::Wait(ticket)) => {
                op.op().set_ticket(Some(ticket));
                state.waiting.push(op);
                None
            }
            Some(Posted::Go(ticket)) => {
                op.op().set_ticket(Some(ticket));
                if state.draining || !state.ready.is_empty() {
                    // Somebody is just executing what was posted before, and takes this on: the
                    // endpoint may have an order.
                    state.ready.push(op);
                    return None;
                }
                Some(op)
            }
            // There is a place for each slot.
            None => Some(op),
        }
    }

    /// Uncounts an operation that went, and has completed or was handed back.
    ///
    /// Executes what waited for it: any context but hardirq.
    pub(crate) fn ended(&self, ticket: Ticket, hash: u64) {
        let mut state = self.state.lock();
        if !state.table.end(ticket, hash) {
            return;
        }
        state.release(ticket);
        drop(state);
        self.drain();
    }

    /// Executes what is ready.
    fn drain(&self) {
        let mut state = self.state.lock();
        // What is executed may complete at once, and come here again.
        if core::mem::replace(&mut state.draining, true) {
            return;
        }
        while let Some(op) = state.ready.pop() {
            let live = state.live.clone();
            drop(state);
            execute(live.as_deref(), op);
            state = self.state.lock();
        }
        state.draining = false;
    }

    /// Takes an operation out again that waits.
    pub(crate) fn cancel(&self, id: OpId) -> Option<Operation> {
        let mut state = self.state.lock();
        let mut op = state.waiting.find(|op| op.id() == id)?;
        if let Some(ticket) = op.ticket() {
            state.table.withdraw(ticket, op.peer().hash());
            op.op().set_ticket(None);
            // A fence may have gone from before others.
            state.release(ticket);
        }
        drop(state);
        self.drain();
        Some(op)
    }

    /// Ends it: what waits completes with `error`. Process context; no post is under way.
    pub(crate) fn close(&self, error: Error) {
        let mut state = self.state.lock();
        let live = state.live.take();
        let (mut waiting, mut ready) = (state.waiting.take(), state.ready.take());
        // Here, for the last operation that refers to this may go in a context that can't free it.
        let empty = Fences::new(KVVec::new());
        let table = core::mem::replace(&mut state.table, empty);
        drop(state);
        drop((live, table));
        for chain in [&mut ready, &mut waiting] {
            while let Some(mut op) = chain.pop() {
                op.op().set_ticket(None);
                op.complete(Err(Failure::not_executed(error)));
            }
        }
    }
}

/// Executes an operation that has waited. What can't be refused any more completes with an error.
fn execute(live: Option<&Live>, op: Operation) {
    let posts = rcu::read_lock();
    let refused = match live {
        Some(live) => match live.refusal() {
            None => live.execute(op, &posts),
            Some(error) => Err(Rejected { op, error }),
        },
        None => Err(Rejected {
            op,
            error: ECANCELED,
        }),
    };
    drop(posts);
    if let Err(Rejected { op, error }) = refused {
        op.complete(Err(Failure::not_executed(error)));
    }
}
