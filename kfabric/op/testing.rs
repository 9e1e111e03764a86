// SPDX-License-Identifier: GPL-2.0

//! Operations of no endpoint, for tests.

use super::{
    Buffer, Chain, Kind, Level, Op, OpId, Operation, Options, Origin, Poster, Request, Shares,
    Status, Success,
};
use crate::av::Name;
use crate::cq::{Completion, Notify, Queue, Reader};
use crate::mr::Access;
use crate::stats::Stats;
use crate::sys::slot::Pool;
use kernel::prelude::*;
use kernel::sync::atomic::{self, Relaxed, Release};
use kernel::sync::Arc;

/// How an operation went well that moved so many bytes.
pub(crate) fn done(len: usize) -> Status {
    Ok(Success {
        len,
        data: None,
        level: Level::Delivered,
    })
}

/// A request to nobody, of no bytes, without options.
pub(crate) fn request(kind: Kind) -> Request {
    Request {
        kind,
        options: Options::default(),
        peer: Name::NONE,
        peer_context: 0,
        remote: None,
        atomic: None,
        tags: None,
        exposes: Access::NONE,
        buffer: Buffer::empty(),
    }
}

/// A context that is counted while it exists.
pub(crate) struct Counted(Arc<atomic::Atomic<i32>>);

impl Counted {
    pub(crate) fn new(count: &Arc<atomic::Atomic<i32>>) -> Self {
        count.add(1, Relaxed);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Release);
    }
}

/// Slots, and the queue where they complete.
pub(crate) struct Bench<C: Send + 'static> {
    pub(crate) queue: Arc<Queue>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) pool: Pool<C>,
}

impl<C: Send + 'static> Drop for Bench<C> {
    fn drop(&mut self) {
        self.queue.shut();
    }
}

impl<C: Send + 'static> Bench<C> {
    pub(crate) fn new(slots: usize, callback: Option<Arc<dyn Notify>>) -> Result<Self> {
        Self::named(b"bench", slots, callback)
    }

    /// The same, of an endpoint of that name.
    pub(crate) fn named(
        name: &[u8],
        slots: usize,
        callback: Option<Arc<dyn Notify>>,
    ) -> Result<Self> {
        let queue = Queue::new(slots, callback)?;
        let stats = Arc::new(Stats::default(), GFP_KERNEL)?;
        let shares = Some(Shares::new(slots)?);
        let origin = Origin::new(
            Poster::first(7),
            queue.clone(),
            stats,
            None,
            None,
            shares,
            slots,
        )?;
        origin.set_name(&Name::new(name)?);
        Ok(Bench {
            pool: Pool::new(slots, |index| Op::idle(&origin, index))?,
            queue,
            origin,
        })
    }

    /// Posts to nobody: the operation is the caller's. `EAGAIN`: no slot is free.
    pub(crate) fn post(&self, kind: Kind, buffer: Buffer, context: C) -> Result<(OpId, Operation)> {
        let request = Request {
            buffer,
            ..request(kind)
        };
        self.post_request(request, context)
    }

    /// The same with all of a request.
    pub(crate) fn post_request(&self, request: Request, context: C) -> Result<(OpId, Operation)> {
        let mut slot = self.pool.take().ok_or(EAGAIN)?;
        slot.op().fill(request);
        let id = slot.op().id();
        Ok((id, slot.arm(context)))
    }

    /// The same of a receive of several messages, all with one context.
    pub(crate) fn post_multi(
        &self,
        request: Request,
        (messages, least): (usize, usize),
        context: C,
    ) -> Result<(OpId, Operation)>
    where
        C: Clone,
    {
        let mut spares = Chain::new();
        for _ in 1..messages {
            let mut slot = self.pool.take().ok_or(EAGAIN)?;
            slot.op().reserve();
            spares.push(slot.arm(context.clone()));
        }
        let (id, mut op) = self.post_request(request, context)?;
        op.op().take_several(spares, least);
        Ok((id, op))
    }

    pub(crate) fn read(&self) -> Option<Completion<C>> {
        Reader::new(&self.queue).read()
    }
}
