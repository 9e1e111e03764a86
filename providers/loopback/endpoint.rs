// SPDX-License-Identifier: GPL-2.0

//! Endpoints: each executes its own operations on its peers' ports.

use crate::directory::{Directory, Seat};
use crate::worker::Worker;
use crate::{service_of, Domain};
use kernel::prelude::*;
use kernel::sync::rcu::{self, Guard};
use kernel::sync::Arc;
use kfabric::av::Name;
use kfabric::info::Info;
use kfabric::op::{Failure, Kind, Op, OpId, Operation, Status};
use kfabric::provider::faults::Faults;
use kfabric::provider::work::WorkQueue;
use kfabric::provider::{self, Cancelled, Match, Message, Port, Rejected};

/// Up to this many bytes are copied in the context of the post: about as long as it takes to wake
/// the worker.
const INLINE: usize = 16 * 1024;

/// A loopback endpoint.
pub(crate) struct Endpoint {
    directory: Arc<Directory>,
    port: Arc<Port>,
    seat: Seat,
    /// One for each context: for what a transmit context does not execute in its posts, and for long messages that
    /// have met a receive of a receive context.
    workers: KVec<Arc<Worker>>,
    queue: Arc<WorkQueue>,
    faults: Arc<Faults>,
    /// Whether anything is to be kept in order: then nothing overtakes what the worker has.
    ordered: bool,
}

impl Endpoint {
    /// Makes an endpoint that peers can reach. May sleep.
    ///
    /// `EADDRINUSE`: another is at the service that the info asks for.
    pub(crate) fn new(domain: &Domain, port: Arc<Port>, info: &Info) -> Result<Arc<Self>> {
        let order = info.order;
        let (directory, faults) = (&domain.directory, &domain.faults);
        let contexts = port.tx_contexts().max(port.rx_contexts());
        let mut workers = KVec::with_capacity(contexts, GFP_KERNEL)?;
        for _ in 0..contexts {
            let worker = Worker::new(directory.clone(), port.clone(), faults.clone(), order)?;
            workers.push(worker, GFP_KERNEL)?;
        }
        let service = info.source.as_ref().and_then(service_of);
        let seat = directory.reserve(service.filter(|_| port.serves()))?;
        let endpoint = Endpoint {
            directory: directory.clone(),
            port,
            seat,
            workers,
            queue: domain.workers.clone(),
            faults: faults.clone(),
            ordered: !order.is_none(),
        };
        let endpoint = Arc::new(endpoint, GFP_KERNEL).inspect_err(|_| directory.leave(seat))?;
        directory.enter(endpoint.clone());
        Ok(endpoint)
    }

    /// Where it is in the directory.
    #[inline]
    pub(crate) fn seat(&self) -> Seat {
        self.seat
    }

    /// Executes an operation here and now, or leaves it to the worker.
    #[inline(always)]
    fn post(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        // Where a message is copied is decided when it has met its receive.
        let long = op.kind() != Kind::Send && op.buffer().len() > INLINE;
        if long || op.needs_process_context() || self.ordered || self.faults.are_on() {
            return self.post_in_turn(op, long, section);
        }
        execute(&self.directory, &self.port, op, section);
        Ok(())
    }

    /// The worker of a context; each has one.
    fn worker(&self, context: usize) -> Result<&Arc<Worker>> {
        self.workers.get(context).ok_or(EINVAL)
    }

    /// Refuses an operation, has it wait its turn, or finds that nothing is before it.
    #[inline(never)]
    fn post_in_turn(&self, op: Operation, long: bool, section: &Guard) -> Result<(), Rejected> {
        let faulty = self.faults.are_on();
        if faulty && self.faults.refuse() {
            return Err(Rejected { op, error: EAGAIN });
        }
        let worker = match self.worker(op.own_context()) {
            Ok(worker) => worker,
            Err(error) => return Err(Rejected { op, error }),
        };
        let waits = self.ordered && worker.is_busy();
        if long || op.needs_process_context() || faulty || waits {
            worker.push(&self.queue, op);
        } else {
            execute(&self.directory, &self.port, op, section);
        }
        Ok(())
    }

    /// Executes a peer's operation here, by its access if it has one, which `done` then completes.
    #[inline(always)]
    fn execute(
        &self,
        op: Operation,
        access: impl FnOnce(&Port, &Op) -> Status,
        mut done: impl FnMut(Operation, Status),
    ) {
        if op.kind() == Kind::Send {
            return self.offer(op);
        }
        if op.is_tagged_rma() {
            return self.port.execute_tagged(op, done);
        }
        match access(&self.port, &op) {
            Ok(_) if op.notifies() => self.offer(op),
            status => done(op, status),
        }
    }

    /// Offers a message, or the notice of a write, to the receives that are posted here.
    fn offer(&self, arrival: Operation) {
        if let Some(pair) = self.port.offer(arrival) {
            provider::Endpoint::matched(self, pair);
        }
    }

    /// Ends what it has posted, of which `is` says so, and which waits for a receive of a peer.
    fn withdraw(&self, error: Error, is: impl Fn(&Op) -> bool) {
        for peer in self.peers() {
            let mine = |op: &Op| op.endpoint() == self.port.id() && is(op);
            let mut waiting = peer.port.withdraw(mine);
            while let Some(op) = waiting.pop() {
                op.give_up(error);
            }
        }
    }

    /// All endpoints that can be reached, one after another.
    fn peers(&self) -> impl Iterator<Item = Arc<Endpoint>> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let (place, peer) = self.directory.next(from)?;
            from = place + 1;
            Some(peer)
        })
    }
}

/// Executes an operation of `port` on its peer's, in the read section of its post: one that is short.
// Inlined into the post, whose last act it is.
#[inline(always)]
fn execute(directory: &Directory, port: &Port, op: Operation, section: &Guard) {
    match directory.find(op.peer(), section) {
        Some(peer) => {
            let access = |port: &Port, op: &Op| port.access_in(op, section);
            peer.execute(op, access, Operation::complete);
        }
        None => unreachable(port, op),
    }
}

/// Executes any operation of `port` on its peer's; `done` completes it, and a receive that it consumes, unless it
/// is a message.
///
/// Process context; sleeps if the operation does.
pub(crate) fn execute_long(
    directory: &Directory,
    port: &Port,
    op: Operation,
    done: impl FnMut(Operation, Status),
) {
    match directory.lookup(op.peer()) {
        Some(peer) => peer.execute(op, Port::access, done),
        None => unreachable(port, op),
    }
}

/// Ends an operation of `port` on a peer that is not there, or not any more.
#[cold]
fn unreachable(port: &Port, op: Operation) {
    op.complete(Err(Failure::not_executed(port.lost())));
}

#[vtable]
impl provider::Endpoint for Endpoint {
    fn name(&self) -> Name {
        self.seat.position.name()
    }

    fn send(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        self.post(op, section)
    }

    #[inline(always)]
    fn write(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        self.post(op, section)
    }

    #[inline(always)]
    fn read(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        self.post(op, section)
    }

    fn commit(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        self.post(op, section)
    }

    fn atomic(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        self.post(op, section)
    }

    fn matched(&self, pair: Match) {
        match self.worker(pair.context()) {
            Ok(worker) if pair.len() > INLINE || pair.is_for_later() || self.faults.are_on() => {
                worker.push_pair(&self.queue, pair);
            }
            _ => pair.execute(),
        }
    }

    fn cancel(&self, id: OpId) -> Cancelled {
        // A write that waits for a receive is past it: its bytes are at the peer already.
        let waits = |op: &Op| op.id() == id && !op.notifies();
        let worker = self.worker(id.context()).ok();
        let op = worker.and_then(|worker| worker.recall(id));
        op.or_else(|| self.peers().find_map(|peer| peer.port.recall(waits)))
            .into()
    }

    fn tell(&self, to: &Name, message: &Message) -> Result {
        let section = rcu::read_lock();
        let peer = self.directory.find(to, &section);
        peer.ok_or(EHOSTUNREACH)?.port.hear(message)
    }

    fn quit(&self, context: usize) {
        if let Ok(worker) = self.worker(context) {
            worker.quit(ECANCELED);
        }
        self.withdraw(ECANCELED, |op| op.own_context() == context);
    }

    fn shutdown(&self, error: Error) {
        // Posts of peers have let go of it when this returns: none of them frees it.
        self.directory.leave(self.seat);
        for worker in &self.workers {
            worker.close(error);
        }
        self.withdraw(error, |_| true);
    }
}
