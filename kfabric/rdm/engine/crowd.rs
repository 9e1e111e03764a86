// SPDX-License-Identifier: GPL-2.0

//! Peers that are too many: which of them go, and what is remembered of them.
//!
//! A link that nobody has used for long is closed, with its session, when an endpoint has more than it may
//! ([`Bounds::links`]), or somebody waits for a session and there are as many as may be ([`Bounds::sessions`]). A
//! peer without a session goes with its memory, and leaves what must be remembered.
//!
//! [`Bounds::links`]: super::super::bounds::Bounds::links
//! [`Bounds::sessions`]: super::super::bounds::Bounds::sessions

use super::super::peer::{Peer, Usage};
use super::{Shared, LATE};
use crate::cm::Role;
use kernel::prelude::*;
use kernel::rbtree::RBTreeNodeReservation;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;
use kernel::workqueue::WorkItem;

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

/// How long nobody has used a link that is closed for being idle, at least: what has just been made, or answered,
/// may be about to be used. How often it is looked whether one is idle, if there are too many. In milliseconds.
const GRACE_MS: u32 = 50;

const MS: u64 = 1_000_000;

/// How many links are closed in one go.
const AT_ONCE: usize = 64;

/// A link of a peer, which is counted as long as this lives.
pub(in super::super) struct Open(Arc<Shared>);

impl Open {
    pub(in super::super) fn new(engine: &Arc<Shared>) -> Self {
        engine.open.add(1, Relaxed);
        if engine.excess() > 0 {
            engine.tidy_soon(false);
        }
        Open(engine.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.add(-1, Relaxed);
    }
}

impl WorkItem<LATE> for Shared {
    type Pointer = Arc<Shared>;

    /// It is time to look again.
    fn run(this: Arc<Shared>) {
        this.tidy_soon(false);
    }
}

impl Shared {
    /// Has the worker see to it that there are no more peers and links than may be; `has_idle`: one has just become
    /// idle. Any context but hardirq.
    pub(in super::super) fn tidy_soon(self: &Arc<Self>, has_idle: bool) {
        let mut table = self.table.lock();
        table.has_idle |= has_idle;
        if table.closed.is_none() {
            self.hub.workers().enqueue(self.clone());
        }
    }

    /// How many links there are too many. A connection keeps its own: it is to learn of its peer's end.
    fn excess(&self) -> usize {
        let open = self.open.load(Relaxed).max(0) as usize;
        match self.port.role() {
            Role::Connection(_) => 0,
            _ => open.saturating_sub(self.hub.bounds().links),
        }
    }

    /// Notes that somebody waits for a session. Any context but hardirq.
    pub(super) fn wait_for_room(&self) {
        let now = self.now();
        self.table.lock().waits_since.get_or_insert(now);
    }

    /// Has peers go that are too many. Sleeps.
    pub(super) fn tidy(self: &Arc<Self>) {
        if core::mem::take(&mut self.table.lock().has_idle) {
            self.forget_idle();
        }
        self.give_up_waiting();
        let table = self.table.lock();
        let waiting = match table.waits_since {
            // Some may be for the same peer: then more room is made than they need.
            Some(_) => table.strangers.iter().take(AT_ONCE).count() + table.letters.len(),
            None => 0,
        };
        drop(table);
        let wanted = || self.excess().max(waiting);
        if wanted() > 0 {
            self.ask_to_rest(wanted);
            let table = self.table.lock();
            if table.closed.is_none() {
                let workers = self.hub.workers();
                workers.enqueue_delayed::<_, LATE>(self.clone(), GRACE_MS);
            }
        }
    }

    /// Ends what has waited for a session for too long, since no peer is idle.
    fn give_up_waiting(&self) {
        let now = self.now();
        let mut table = self.table.lock();
        if table.strangers.is_empty() && table.letters.is_empty() {
            table.waits_since = None;
        }
        let since = table.waits_since;
        if since.is_none_or(|since| now - since < self.timeouts().resume) {
            return;
        }
        table.waits_since = None;
        let mut strangers = table.strangers.take();
        drop(table);
        self.end_all(&mut strangers, ENOBUFS);
        self.unheard(None, ENOBUFS);
    }

    /// Asks the peers whose links were not used for longest for the end of their sessions, so that `wanted` of them
    /// end; whether any does, or may soon. Sleeps.
    pub(super) fn ask_to_rest(&self, wanted: impl Fn() -> usize) -> bool {
        let most = wanted().min(AT_ONCE);
        let (now, mut resting, mut is_young) = (self.now(), 0, false);
        let Ok(mut idlest) = KVec::<(u64, Arc<Peer>)>::with_capacity(most, GFP_KERNEL) else {
            return false;
        };
        self.each_peer(|peer| {
            match peer.usage() {
                Usage::Busy => {}
                Usage::Rests => resting += 1,
                Usage::Idle(since) if now.saturating_sub(since) < u64::from(GRACE_MS) * MS => {
                    is_young = true;
                }
                Usage::Idle(since) => {
                    let at = idlest.partition_point(|(other, _)| *other <= since);
                    if idlest.len() == most && at < most {
                        drop(idlest.pop());
                    }
                    // There is room, or it is not one of them.
                    let _ = idlest.insert_within_capacity(at, (since, peer.clone()));
                }
            }
            None::<()>
        });
        // One of those that rest may have ended meanwhile, and is wanted no more.
        let wanted = wanted().min(most);
        for (_, peer) in idlest.iter().take(wanted.saturating_sub(resting)) {
            peer.rest();
        }
        resting > 0 || is_young || !idlest.is_empty()
    }

    /// Forgets the peers without a session, of which nothing is under way, but for what must be remembered. Sleeps.
    fn forget_idle(self: &Arc<Self>) {
        self.each_peer(|peer| {
            if !peer.is_idle() {
                return None::<()>;
            }
            let Ok(room) = RBTreeNodeReservation::new(GFP_KERNEL) else {
                return None;
            };
            let mut table = self.table.lock();
            // Not one that a close, or somebody else who forgets, has taken meanwhile.
            let is_there = table.peers.get(peer.name()).is_some();
            let past = match is_there {
                true => peer.let_go(),
                false => None,
            };
            let past = past?;
            let node = table.peers.remove_node(peer.name());
            table.known -= usize::from(node.is_some());
            // Whoever waits has room now.
            table.waits_since = None;
            if past.is_known() {
                table.remember(room, peer.name(), past, self.hub.bounds().past);
            }
            if table.closed.is_none() && !(table.strangers.is_empty() && table.letters.is_empty()) {
                self.hub.workers().enqueue(self.clone());
            }
            self.peer_stats().forgotten.add(1);
            drop(table);
            drop(node);
            peer.forget();
            None
        });
    }
}
