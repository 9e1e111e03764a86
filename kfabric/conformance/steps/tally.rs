// SPDX-License-Identifier: GPL-2.0

//! A tally: an endpoint with counters and fences, which is its own peer.

use super::{variant, LENGTHS, LONG};
use crate::close::closed;
use crate::ops::error;
use crate::peer::Region;
use crate::rig::{count, register, timeout, until, with_sizes, Base};
use crate::{check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;
use kfabric::prelude::*;

/// How many operations it has in flight at most, in each direction.
const DEPTH: usize = 8;

/// The most bytes of its atomics.
const FEW: usize = 800;

const FENCE: Options = Options {
    fence: true,
    ..Options::NONE
};

const SILENT: Options = Options {
    silent: true,
    ..Options::NONE
};

/// What it does itself, and what is done to it.
const OWN: Counts = Counts::SEND
    .union(Counts::RECV)
    .union(Counts::READ)
    .union(Counts::WRITE);
const PEERS: Counts = Counts::REMOTE_READ.union(Counts::REMOTE_WRITE);

// In the order in which they must be closed.
pub(super) struct Tally {
    ep: Endpoint<u64>,
    myself: Address,
    own: Counter,
    peers: Counter,
    /// How often the counter of its own operations has called.
    called: Arc<Atomic<i32>>,
    /// Words that it writes and changes.
    words: Region,
    remote: RemoteRegion,
    /// What its operations have of their own: three vectors.
    local: Region,
    base: Base,
}

impl Tally {
    /// `None` where the provider lacks something of it.
    // In a frame of its own, which is gone when others stand on the stack.
    #[inline(never)]
    pub(super) fn new(info: &Info) -> Result<Option<KBox<Self>>> {
        let caps = Caps::MSG | Caps::RMA | Caps::ATOMIC | Caps::FENCE;
        let Some(info) = variant(info, EndpointType::Rdm, caps)? else {
            return Ok(None);
        };
        let info = with_sizes(&info, DEPTH, DEPTH);
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let cq = CompletionQueue::new(&domain, 2 * DEPTH, None)?;
        let av = AddressVector::new(&domain)?;
        let base = Base {
            av,
            cq,
            eq: None,
            domain,
            fabric,
        };
        let local = register(&base.domain, Memory::zeroed(3 * LONG)?, Access::NONE)?;
        let words = register(&base.domain, Memory::zeroed(LONG)?, Access::ALL)?;
        let called = count()?;
        let calls = called.clone();
        let callback = move |_: &Reading<'_>| {
            calls.add(1, Relaxed);
        };
        let own = Counter::new(&base.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
        let peers = Counter::new(&base.domain, None)?;
        let builder = Endpoint::builder(&base.domain, &info);
        let builder = builder.counter(OWN, &own).counter(PEERS, &peers);
        let ep = builder.cq(&base.cq).av(&base.av).enable()?;
        let tally = Tally {
            myself: base.av.insert(&ep.name())?,
            remote: RemoteRegion::parse(&words.descriptor()?)?,
            ep,
            own,
            peers,
            called,
            words,
            local,
            base,
        };
        Ok(Some(KBox::new(tally, GFP_KERNEL)?))
    }

    /// Posts operations that are fenced, silent, atomic, or several of these, and waits by what is
    /// counted.
    pub(super) fn run(&self) -> Result {
        for len in LENGTHS {
            // Whole words.
            self.round(len.next_multiple_of(8).max(8))?;
        }
        Ok(())
    }

    fn round(&self, len: usize) -> Result {
        let (ep, to) = (&self.ep, self.myself);
        let remote = self.remote.slice(0, len as u64)?;
        let local = |vectors: usize| self.local.slice(0, vectors * len);
        let (own, peers, called) = (
            self.own.value(),
            self.peers.value(),
            self.called.load(Relaxed),
        );
        self.own.notify_at(own + 11)?;

        // Nothing tells of them but the counter, and the receive.
        ep.recv(local(1)?, 1)?;
        ep.send(local(1)?, to, SILENT, 2)?;
        self.next(&[1])?;
        ep.write(local(1)?, to, remote, SILENT, 3)?;
        self.own.wait(own + 3, timeout())?;

        // A message that nobody receives holds up what is fenced, and what comes after that.
        ep.send(local(1)?, to, Options::NONE, 4)?;
        ep.write(local(1)?, to, remote, FENCE, 5)?;
        ep.write(local(1)?, to, remote, SILENT, 6)?;
        ep.read(local(1)?, to, remote, FENCE, 7)?;
        check!(self.base.cq.read().is_none());
        ep.recv(local(1)?, 8)?;
        self.next(&[4, 5, 7, 8])?;

        // No more words than that: each is done on its own.
        let len = len.min(FEW);
        let remote = self.remote.slice(0, len as u64)?;
        let local = |vectors: usize| self.local.slice(0, vectors * len);
        let sum = AtomicAction::update(AtomicOp::Sum, Datatype::U64);
        ep.atomic(local(1)?, to, remote, sum, SILENT, 9)?;
        let sum = AtomicAction::fetch(AtomicOp::Sum, Datatype::U64);
        ep.atomic(local(2)?, to, remote, sum, FENCE, 10)?;
        let swap = AtomicAction::compare(Datatype::U64);
        ep.atomic(local(3)?, to, remote, swap, Options::NONE, 11)?;
        self.next(&[10, 11])?;

        self.own.wait(own + 11, timeout())?;
        until(|| self.called.load(Relaxed) > called)?;
        check_eq!(self.own.value(), own + 11);
        check_eq!(self.peers.value(), peers + 7);
        check_eq!((self.own.errors(), self.peers.errors()), (0, 0));
        check!(self.base.cq.read().is_none());
        Ok(())
    }

    /// Fails unless those with these contexts complete next, in any order, and well.
    fn next(&self, contexts: &[u64]) -> Result {
        let mut left = contexts.iter().fold(0_u64, |all, it| all | 1 << it);
        for _ in contexts {
            let done = self.base.cq.read_wait(timeout())?;
            check_eq!(error(&done), None);
            check!(left & 1 << done.context != 0);
            left &= !(1 << done.context);
        }
        Ok(())
    }

    /// Closes all of it, in order; fails if anything refuses.
    #[inline(never)]
    pub(super) fn close(tally: KBox<Self>) -> Result {
        let tally = KBox::into_inner(tally);
        closed(tally.ep.close())?;
        closed(tally.own.close())?;
        closed(tally.peers.close())?;
        for region in [tally.words, tally.local] {
            drop(closed(region.close())?);
        }
        tally.base.close()
    }
}
