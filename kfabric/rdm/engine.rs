// SPDX-License-Identifier: GPL-2.0

//! The engine: an endpoint of a provider that has links, and nothing more.
//!
//! It knows who is meant by a post, and has a worker for each peer ([`super::peer`]). What an
//! endpoint posts to itself it carries out alone.
//!
//! Each transmit context has a **lane**: peers, sessions and locks of its own. Who makes a session says its lane in
//! its name ([`link::in_lane`]), and the session is in the lane of that index at the peer, too, or in one of those
//! before, if it has fewer. Whom a message there is for is said by the message.
//!
//! | file | noun |
//! |---|---|
//! | `crowd` | peers that are too many |
//!
//! Locks: `table` is taken before the inbox of a peer, interrupts disabled; nothing else but those of the work queue
//! and of completion queues, see [`Peer`], under it.

use super::hub::Hub;
use super::link::{self, Link};
use super::outstanding::Outstanding;
use super::peer::{Peer, LIMITS};
use super::timeouts::Timeouts;
use crate::av::Name;
use crate::cm::Message;
use crate::info::{Info, Order};
use crate::op::{Chain, Failure, Kind, Op, OpId, Operation};
use crate::proto::session::past::Past;
use crate::proto::violation::Violation;
use crate::proto::wire::{Hello, Reason};
use crate::provider::work::{self, WorkQueue};
use crate::provider::{self, Cancelled, Match, Port, Rejected};
use crate::stats::{PeerStats, TargetStats};
use crate::sys::work::cancel_delayed;
use crate::sys::{random, reclaim};
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNode, RBTreeNodeReservation};
use kernel::sync::atomic::Atomic;
use kernel::sync::rcu::{self, Guard};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::workqueue::{
    impl_has_delayed_work, impl_has_work, new_delayed_work, new_work, DelayedWork, Work, WorkItem,
};

mod crowd;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;

pub(super) use crowd::Open;

/// The number of the work that looks again whether there are too many peers.
const LATE: u64 = 1;

/// How many connection messages may wait for their peers to be made.
const LETTERS: usize = 8;

/// An endpoint over links: its lanes, one at least.
pub struct Engine(KVec<Arc<Shared>>);

/// What the workers of the peers of a lane share.
#[pin_data]
pub(super) struct Shared {
    hub: Arc<Hub>,
    port: Arc<Port>,
    /// The endpoint's.
    name: Name,
    /// That by which the lane makes sessions.
    own_name: Name,
    lane: usize,
    /// How many there are.
    lanes: usize,
    order: Order,
    #[pin]
    table: SpinLockIrq<Table>,
    outstanding: Outstanding,
    /// How many links there are.
    open: Atomic<i32>,
    #[pin]
    work: Work<Shared>,
    #[pin]
    late: DelayedWork<Shared, LATE>,
}

struct Table {
    peers: RBTree<Name, Arc<Peer>>,
    /// How many they are.
    known: usize,
    /// What is remembered of others.
    past: RBTree<Name, Past>,
    /// How many those are.
    remembered: usize,
    /// Whether some of the peers may have become idle.
    has_idle: bool,
    /// Since when somebody waits for a session, and none has ended.
    waits_since: Option<u64>,
    /// Operations for whom there is no peer yet.
    strangers: Chain,
    /// Operations for this endpoint.
    own: Chain,
    /// Those that have met a receive; each is followed by it.
    own_pairs: Chain,
    /// Connection messages for whom there is no peer yet.
    letters: KVec<(Name, Message)>,
    /// Why nothing is taken any more.
    closed: Option<Error>,
}

impl_has_work! {
    impl HasWork<Self> for Shared { self.work }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self, 1> for Shared { self.late }
}

impl WorkItem for Shared {
    type Pointer = Arc<Shared>;

    fn run(this: Arc<Shared>) {
        let mut is_full = false;
        loop {
            let mut table = this.table.lock();
            let pair = table.own_pairs.pop().zip(table.own_pairs.pop());
            let own = match pair {
                Some(_) => None,
                None => table.own.pop(),
            };
            let name = match table.letters.first() {
                _ if is_full => None,
                Some((name, _)) => Some(*name),
                None => table.strangers.iter().next().map(|op| *op.peer()),
            };
            drop(table);
            match (pair, own, name) {
                (Some((arrival, receive)), ..) => Match::from_parts(arrival, receive).execute(),
                (_, Some(op), _) => this.execute(op),
                (_, None, Some(name)) => is_full = !reclaim::without_io(|| this.meet(&name)),
                (None, None, None) => break,
            }
        }
        reclaim::without_io(|| this.tidy());
    }
}

impl Table {
    /// Looks at the first peer after that of a name, or of all.
    fn after<T>(&self, name: Option<&Name>, look: impl FnOnce(&Arc<Peer>) -> T) -> Option<T> {
        let Some(name) = name else {
            return self.peers.cursor_front().map(|at| look(at.current().1));
        };
        let at = self.peers.cursor_lower_bound(name)?;
        match at.current().0 == name {
            true => at.peek_next().map(|(_, peer)| look(peer)),
            // It has gone meanwhile.
            false => Some(look(at.current().1)),
        }
    }

    /// Takes out the operations that wait for the peer of that name.
    fn waiting_for(&mut self, name: &Name) -> Chain {
        self.strangers.extract(|op| op.peer() == name)
    }

    /// Takes out the first connection message that waits, of those to `to`, or of all.
    fn next_letter(&mut self, to: Option<&Name>) -> Option<Message> {
        let mut all = self.letters.iter();
        let at = all.position(|(name, _)| to.is_none_or(|to| to == name))?;
        self.letters.remove(at).ok().map(|(_, letter)| letter)
    }

    /// Remembers that of a peer, in `room`. If there are as many as may be, the next one by its name is not
    /// remembered any more: most likely it is of the same host.
    fn remember(
        &mut self,
        room: RBTreeNodeReservation<Name, Past>,
        name: &Name,
        past: Past,
        most: usize,
    ) {
        if self.remembered >= most {
            let next = match self.past.cursor_lower_bound(name) {
                Some(at) => Some(*at.current().0),
                None => self.past.cursor_front().map(|at| *at.current().0),
            };
            if let Some(next) = next {
                self.recall_past(&next);
            }
        }
        let before = self.past.insert(room.into_node(*name, past));
        self.remembered += usize::from(before.is_none());
    }

    /// Remembers no more what it did of a peer.
    fn recall_past(&mut self, name: &Name) {
        self.remembered -= usize::from(self.past.remove(name).is_some());
    }
}

impl Engine {
    /// The longest message, write or read, in bytes: what a provider with links offers.
    pub const MAX_MSG_SIZE: usize = LIMITS.message as usize;

    /// The longest vector of an atomic, in bytes. Operands and comparands come in one frame, so that
    /// the peer does all of them or none.
    pub const MAX_ATOMIC_SIZE: usize = LIMITS.frame as usize / 2;

    /// An endpoint of a domain. Sleeps. `EADDRINUSE`: it is to be a service that is there; `ENOMEM`.
    pub(super) fn new(hub: &Arc<Hub>, port: Arc<Port>, info: &Info) -> Result<Arc<Self>> {
        let name = hub.new_name(&port, info)?;
        let count = port.tx_contexts();
        let mut lanes = KVec::with_capacity(count, GFP_KERNEL)?;
        for lane in 0..count {
            let lane = Shared::new(hub, &port, info, name, (lane, count))?;
            lanes.push(lane, GFP_KERNEL)?;
        }
        let engine = Arc::new(Engine(lanes), GFP_KERNEL)?;
        for lane in &engine.0 {
            if let Err(error) = hub.enter(lane.clone()) {
                for lane in &engine.0 {
                    hub.leave(lane);
                }
                return Err(error);
            }
        }
        Ok(engine)
    }

    /// The lane of a transmit context, or of a session; each has one.
    fn lane(&self, index: usize) -> Result<&Arc<Shared>> {
        self.0.get(index).ok_or(EINVAL)
    }

    /// Leaves an operation to the lane of its context.
    fn post(&self, op: Operation) -> Result<(), Rejected> {
        match self.lane(op.own_context()) {
            Ok(lane) => {
                lane.post(op);
                Ok(())
            }
            Err(error) => Err(Rejected { op, error }),
        }
    }
}

impl Shared {
    /// One of so many lanes of an endpoint.
    fn new(
        hub: &Arc<Hub>,
        port: &Arc<Port>,
        info: &Info,
        name: Name,
        (lane, lanes): (usize, usize),
    ) -> Result<Arc<Self>> {
        let table = Table {
            peers: RBTree::new(),
            known: 0,
            past: RBTree::new(),
            remembered: 0,
            has_idle: false,
            waits_since: None,
            strangers: Chain::new(),
            own: Chain::new(),
            own_pairs: Chain::new(),
            letters: KVec::with_capacity(LETTERS, GFP_KERNEL)?,
            closed: None,
        };
        let own_name = link::in_lane(&name, lane)?;
        Arc::pin_init(
            try_pin_init!(Shared {
                hub: hub.clone(),
                port: port.clone(),
                name,
                own_name,
                lane,
                lanes,
                order: info.order,
                table <- new_spinlock_irq!(table, "kfi_peers"),
                outstanding: Outstanding::new(info.limits.tx_size)?,
                open: Atomic::new(0),
                work <- new_work!("kfi_engine"),
                late <- new_delayed_work!("kfi_engine_late"),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// By which name the lane makes sessions: no other lane has it.
    pub(super) fn own_name(&self) -> &Name {
        &self.own_name
    }

    /// By which name that peer knows it: a lane of the peer's that has made the session knows the endpoint's.
    pub(super) fn name_for(&self, peer: &Name) -> &Name {
        match link::lane_of(peer) {
            Some((1.., _)) => &self.name,
            _ => &self.own_name,
        }
    }

    /// Which lane it is: that of the sessions of its peers.
    pub(super) fn lane(&self) -> usize {
        self.lane
    }

    /// Whether a session with the endpoint of that name is for this lane, of who says that it is `who`.
    pub(super) fn takes(&self, wanted: &Name, who: &Name) -> bool {
        let lane = link::lane_of(who).map_or(0, |(lane, _)| lane);
        *wanted == self.name && lane.checked_rem(self.lanes) == Some(self.lane)
    }

    /// What is not to be overtaken.
    pub(super) fn order(&self) -> Order {
        self.order
    }

    /// The core's side.
    pub(super) fn port(&self) -> &Port {
        &self.port
    }

    /// Where work is queued.
    pub(super) fn workers(&self) -> &WorkQueue {
        self.hub.workers()
    }

    /// Nanoseconds of a clock that does not go back.
    pub(super) fn now(&self) -> u64 {
        self.hub.now()
    }

    /// How long it waits for what.
    pub(super) fn timeouts(&self) -> &Timeouts {
        self.hub.timeouts()
    }

    /// Whether frames are to carry checksums.
    pub(super) fn has_sums(&self) -> bool {
        self.hub.has_sums()
    }

    /// Begins to make a link to a peer.
    pub(super) fn dial(&self, name: &Name) -> Result<Arc<dyn Link>> {
        let (address, _) = link::parts(name).ok_or(EINVAL)?;
        self.hub.dial(address)
    }

    /// Counts what a peer has done that it may not.
    pub(super) fn count(&self, violation: Violation) {
        self.stats().violations.add(violation);
    }

    /// What is counted of its domain.
    pub(super) fn stats(&self) -> &TargetStats {
        self.port.domain().target_stats()
    }

    /// What is counted of the peers of its domain.
    pub(super) fn peer_stats(&self) -> &PeerStats {
        self.port.domain().peer_stats()
    }

    /// Which of its operations are here.
    pub(super) fn outstanding(&self) -> &Outstanding {
        &self.outstanding
    }

    /// Completes operations that have not begun.
    pub(super) fn end_all(&self, ops: &mut Chain, error: Error) {
        while let Some(op) = ops.pop() {
            self.outstanding.end(op, Err(Failure::not_executed(error)));
        }
    }

    /// Takes an operation. Any context but hardirq.
    fn post(self: &Arc<Self>, op: Operation) {
        let mut table = self.table.lock();
        if let Some(error) = table.closed {
            drop(table);
            return op.complete(Err(Failure::not_executed(error)));
        }
        self.outstanding.enter(&op);
        if *op.peer() == self.name {
            table.own.push(op);
        } else if let Some(peer) = table.peers.get(op.peer()) {
            // Under the lock, so that it is not forgotten meanwhile; likewise below.
            let mut one = Chain::new();
            one.push(op);
            return peer.post(one);
        } else {
            table.strangers.push(op);
        }
        // Under the lock, as is the mark of a close: none is queued after its flush.
        self.hub.workers().enqueue(self.clone());
    }

    /// Carries out what the endpoint has posted to itself. Sleeps.
    fn execute(&self, op: Operation) {
        self.outstanding.leave(&op);
        if op.is_tagged_rma() {
            return self.port.execute_tagged(op, Operation::complete);
        }
        if op.kind() != Kind::Send {
            match self.port.access(&op) {
                Ok(_) if op.notifies() => {}
                status => return op.complete(status),
            }
        }
        if let Some(pair) = self.port.offer(op) {
            pair.execute();
        }
    }

    /// Has a receive whose message is gone wait for another. Any context but hardirq.
    pub(super) fn put_back(self: &Arc<Self>, receive: Operation) {
        let matching = self.port.matching(receive.own_context());
        let mut pairs = matching.map_or(Chain::new(), |matching| matching.put_back(receive));
        while let Some((arrival, receive)) = pairs.pop().zip(pairs.pop()) {
            self.matched(Match::from_parts(arrival, receive));
        }
    }

    /// Leaves a message that has met a receive to the worker of its peer. Any context but hardirq.
    fn matched(self: &Arc<Self>, pair: Match) {
        let sender = *pair.arrival().peer();
        if sender == self.name {
            // In the context of whoever has posted the receive: long ones are not for that.
            return self.met(pair);
        }
        let table = self.table.lock();
        // One that is closed completes it, which is not done with the table locked.
        match table.peers.get(&sender) {
            Some(peer) if table.closed.is_none() => peer.met(pair),
            _ => {
                drop(table);
                pair.fail(ECANCELED, self.port.lost());
            }
        }
    }

    /// Leaves a message to itself that has met a receive to the worker. Any context but hardirq.
    fn met(self: &Arc<Self>, pair: Match) {
        let mut table = self.table.lock();
        if let Some(error) = table.closed {
            drop(table);
            return pair.fail(error, self.port.lost());
        }
        let (arrival, receive) = pair.into_parts();
        table.own_pairs.push(arrival);
        table.own_pairs.push(receive);
        self.hub.workers().enqueue(self.clone());
    }

    /// Makes a peer for what waits for it; `false`: it waits on, since there are as many as may be. Sleeps.
    fn meet(self: &Arc<Self>, name: &Name) -> bool {
        let error = match self.peer(name) {
            Ok(_) => return true,
            Err(EAGAIN) => {
                self.wait_for_room();
                return false;
            }
            Err(error) => error,
        };
        let mut ops = self.table.lock().waiting_for(name);
        self.end_all(&mut ops, error);
        self.unheard(Some(name), error);
        true
    }

    /// Tells of connection messages that were not heard: those that wait to `to`, or all. Any context but hardirq.
    fn unheard(&self, to: Option<&Name>, error: Error) {
        // Not of those that come meanwhile.
        for _ in 0..LETTERS {
            let Some(letter) = self.table.lock().next_letter(to) else {
                break;
            };
            let section = rcu::read_lock();
            self.port.unheard(&letter, error);
            drop(section);
        }
    }

    /// Takes a connection message. Any context but hardirq.
    fn tell(self: &Arc<Self>, to: &Name, message: &Message) -> Result {
        let mut table = self.table.lock();
        if table.closed.is_some() {
            return Err(ECANCELED);
        }
        if let Some(peer) = table.peers.get(to) {
            return peer.tell(message);
        }
        link::parts(to).ok_or(EHOSTUNREACH)?;
        table
            .letters
            .push_within_capacity((*to, *message))
            .map_err(|_| EAGAIN)?;
        self.hub.workers().enqueue(self.clone());
        Ok(())
    }

    /// The peer of that name; a new one, if there is none. Sleeps.
    ///
    /// # Errors
    /// - `EHOSTUNREACH`: it is no name of another endpoint.
    /// - `EAGAIN`: as many peers have a session as may.
    /// - `ECANCELED`: the endpoint is closed.
    /// - `ENOMEM`.
    fn peer(self: &Arc<Self>, name: &Name) -> Result<Arc<Peer>> {
        let (_, whole) = link::lane_of(name).ok_or(EHOSTUNREACH)?;
        if whole == self.name {
            return Err(EHOSTUNREACH);
        }
        loop {
            let table = self.table.lock();
            if let Some(peer) = table.peers.get(name) {
                return Ok(peer.clone());
            }
            if table.known >= self.hub.bounds().sessions {
                return Err(EAGAIN);
            }
            let past = table.past.get(name).copied();
            drop(table);
            let peer = Peer::new(self, name, past.unwrap_or(Past::new(random::u64())))?;
            let node = RBTreeNode::new(*name, peer.clone(), GFP_KERNEL)?;
            let mut table = self.table.lock();
            if let Some(error) = table.closed {
                return Err(error);
            }
            if let Some(other) = table.peers.get(name) {
                return Ok(other.clone());
            }
            if table.past.get(name).copied() != past {
                // It was here meanwhile, and has gone again.
                continue;
            }
            table.recall_past(name);
            table.peers.insert(node);
            table.known += 1;
            // With the table's lock held, so that nothing that is posted later overtakes it.
            while let Some(letter) = table.next_letter(Some(name)) {
                // It has just been made, and has room for as many.
                let _ = peer.tell(&letter);
            }
            peer.post(table.waiting_for(name));
            // What has waited for it waits no more, whatever it says that follows.
            peer.queue();
            // Before another may go in its place; likewise where it is forgotten.
            self.peer_stats().made.add(1);
            return Ok(peer);
        }
    }

    /// Takes a link that a peer has made. Sleeps.
    pub(super) fn greet(self: &Arc<Self>, link: Arc<dyn Link>, hello: Hello) {
        let name = Name::new(hello.from.as_bytes());
        let mut link = link;
        loop {
            let peer = match name.and_then(|name| self.peer(&name)) {
                Ok(peer) => peer,
                // Who finds the link closed comes again soon.
                Err(EAGAIN) if self.ask_to_rest(|| 1) => return link.close(false),
                Err(EAGAIN) => {
                    self.peer_stats().refused.add(1);
                    super::peer::part(&*link, Reason::Busy);
                    return link.close(true);
                }
                Err(_) => return link.close(false),
            };
            match peer.greet(link, hello) {
                Ok(()) => return,
                Err(back) if self.table.lock().closed.is_some() => return back.close(false),
                // It was forgotten just now.
                Err(back) => link = back,
            }
        }
    }

    /// The peers, one after another. Steps: their number. Sleeps: whoever has a peer last ends its work items.
    fn each_peer<T>(&self, mut f: impl FnMut(&Arc<Peer>) -> Option<T>) -> Option<T> {
        let mut next = self.table.lock().after(None, Arc::clone);
        while let Some(peer) = next {
            if let Some(found) = f(&peer) {
                return Some(found);
            }
            next = self.table.lock().after(Some(peer.name()), Arc::clone);
        }
        None
    }

    /// As [`Shared::each_peer`], where nobody may sleep: with the table locked while `f` looks at one.
    fn peek_at_peers<T>(&self, mut f: impl FnMut(&Arc<Peer>) -> Option<T>) -> Option<T> {
        let mut last = None;
        loop {
            let table = self.table.lock();
            let seen = table.after(last.as_ref(), |peer| (*peer.name(), f(peer)));
            let (name, found) = seen?;
            if found.is_some() {
                return found;
            }
            last = Some(name);
        }
    }

    /// Takes out an operation that no peer's worker has seen.
    fn recall(&self, id: OpId) -> Option<Operation> {
        let is = |op: &Op| op.id() == id;
        let mut table = self.table.lock();
        let op = table.strangers.find(is).or_else(|| table.own.find(is));
        drop(table);
        // What waits for a receive of this very endpoint.
        op.or_else(|| self.port.recall(|op| is(op) && !op.notifies()))
            .or_else(|| self.peek_at_peers(|peer| peer.recall(id)))
            .inspect(|op| self.outstanding.leave(op))
    }

    /// Ends what is posted, as far as it has not met its peer. Sleeps.
    fn quit(self: &Arc<Self>) {
        let mut table = self.table.lock();
        let (mut strangers, mut own) = (table.strangers.take(), table.own.take());
        drop(table);
        self.end_all(&mut strangers, ECANCELED);
        self.end_all(&mut own, ECANCELED);
        // What it was just doing has been left to a peer, or to the port.
        work::flush(&self.work);
        let id = self.port.id();
        let is = |op: &Op| op.endpoint() == id && op.own_context() == self.lane;
        let mut waiting = self.port.withdraw(is);
        while let Some(op) = waiting.pop() {
            op.give_up(ECANCELED);
        }
        self.each_peer(|peer| {
            peer.quit();
            None::<()>
        });
    }

    /// Begins the end: nobody finds it any more, and what has not begun ends with `error`. Sleeps.
    fn begin_close(self: &Arc<Self>, error: Error) {
        self.hub.leave(self);
        let mut table = self.table.lock();
        table.closed = Some(error);
        let (mut strangers, mut own) = (table.strangers.take(), table.own.take());
        let mut pairs = table.own_pairs.take();
        drop(table);
        self.end_all(&mut strangers, error);
        self.end_all(&mut own, error);
        while let Some((arrival, receive)) = pairs.pop().zip(pairs.pop()) {
            Match::from_parts(arrival, receive).fail(error, self.port.lost());
        }
        cancel_delayed::<_, LATE>(self);
        work::flush(&self.work);
        self.each_peer(|peer| {
            peer.begin_close(error);
            None::<()>
        });
    }

    /// Goes on with what is under way; whether nothing is any more. Sleeps, but not for a peer.
    fn settle(&self) -> bool {
        let mut settled = true;
        self.each_peer(|peer| {
            settled &= peer.settle();
            None::<()>
        });
        settled
    }

    /// Ends everything, after [`Shared::begin_close`]. Sleeps.
    fn close(&self, error: Error) {
        let peers = core::mem::replace(&mut self.table.lock().peers, RBTree::new());
        for peer in peers.values() {
            peer.close(error);
        }
    }
}

#[vtable]
impl provider::Endpoint for Engine {
    fn name(&self) -> Name {
        // Each has one.
        self.0.first().map_or(Name::NONE, |lane| lane.name)
    }

    fn send(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
        self.post(op)
    }

    fn write(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
        self.post(op)
    }

    fn read(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
        self.post(op)
    }

    fn commit(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
        self.post(op)
    }

    fn atomic(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
        self.post(op)
    }

    fn matched(&self, pair: Match) {
        match self.lane(pair.arrival().own_context()) {
            Ok(lane) => lane.matched(pair),
            Err(error) => pair.fail(error, error),
        }
    }

    fn cancel(&self, id: OpId) -> Cancelled {
        let Ok(lane) = self.lane(id.context()) else {
            return Cancelled::No;
        };
        if let Some(op) = lane.recall(id) {
            return Cancelled::Back(op);
        }
        if !lane.outstanding.cancel(id) {
            return Cancelled::No;
        }
        let _: Option<()> = lane.peek_at_peers(|peer| {
            peer.cancel();
            None
        });
        Cancelled::Asked
    }

    fn tell(&self, to: &Name, message: &Message) -> Result {
        self.lane(0)?.tell(to, message)
    }

    fn quit(&self, context: usize) {
        if let Ok(lane) = self.lane(context) {
            lane.quit();
        }
    }

    fn shutdown(&self, error: Error) {
        let lanes = || self.0.iter();
        lanes().for_each(|lane| lane.begin_close(error));
        let Some(first) = lanes().next() else { return };
        let begin = first.now();
        while !lanes().fold(true, |all, lane| lane.settle() && all) {
            if first.now() - begin > first.timeouts().settle {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
        lanes().for_each(|lane| lane.close(error));
    }
}
