// SPDX-License-Identifier: GPL-2.0

//! The sides of an endpoint: a transmit context, a receive context, or one of each.
//!
//! An [`Endpoint`](super::Endpoint) is posted to by its sides, and closed by them. The traits are sealed.

use super::direction::Direction;
use super::whole::{Base, Taken, Whole};
use crate::cntr::{self, Counters};
use crate::cq::CompletionQueue;
use crate::debugfs::{self, Shown};
use crate::info::Caps;
use crate::op::{OpId, Operation, Shares};
use crate::provider::Cancelled;
use crate::rdm::fence::Fence;
use crate::rdm::matching::Matching;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

/// What an endpoint is made of.
pub trait Side: Send + Sync {
    /// How many operations are in flight: of those that transmit, and of receives.
    fn in_flight(&self) -> (u64, u64);

    /// Ends what can be ended of it at once. Sleeps.
    fn stop(&self, whole: &Whole);

    /// Takes an operation out again.
    fn recall(&self, whole: &Whole, id: OpId) -> Cancelled;

    /// Notes who posts by it, before anything is posted.
    fn attach(&self, whole: &Whole);
}

/// A side that operations for peers are posted to.
pub trait Transmits<C: Send + 'static>: Side {
    /// The transmit context.
    fn tx(&self) -> &Tx<C>;
}

/// A side that receives are posted to.
pub trait Receives<C: Send + 'static>: Side {
    /// The receive context.
    fn rx(&self) -> &Rx<C>;
}

/// A transmit context.
pub struct Tx<C: Send + 'static> {
    _file: debugfs::File,
    pub(super) direction: Direction<C>,
    pub(super) fence: Option<Arc<Fence>>,
    index: u16,
    _own: Option<KBox<Own>>,
}

/// A receive context.
pub struct Rx<C: Send + 'static> {
    _file: debugfs::File,
    pub(super) direction: Direction<C>,
    pub(super) matching: Arc<Matching>,
    pub(super) min_multi_recv: usize,
    index: u16,
    _own: Option<KBox<Own>>,
}

/// One of each: an endpoint that is not scalable.
pub struct Both<C: Send + 'static> {
    pub(super) tx: Tx<C>,
    pub(super) rx: Rx<C>,
}

/// What a context of a scalable endpoint has, and that of another endpoint shares.
#[derive(Default)]
pub(super) struct Own {
    pub(super) counters: Option<cntr::Bound>,
    pub(super) taken: Option<Taken>,
}

impl Own {
    /// For as long as the context is open.
    fn kept(self) -> Result<Option<KBox<Self>>> {
        match self.taken {
            Some(_) => Ok(Some(KBox::new(self, GFP_KERNEL)?)),
            None => Ok(None),
        }
    }

    /// Who counts, and what the context is called.
    fn parts(
        &self,
        base: &Base,
        kind: &'static str,
        index: u16,
    ) -> Result<(Option<Arc<Counters>>, CString)> {
        let bound = match self.taken {
            Some(_) => &self.counters,
            None => &base.counters,
        };
        let name = match self.taken {
            Some(_) => CString::try_from_fmt(fmt!("{kind}-{index}"))?,
            None => CString::try_from_fmt(fmt!("{kind}"))?,
        };
        Ok((bound.as_ref().map(|bound| bound.counters().clone()), name))
    }
}

impl<C: Send + 'static> Tx<C> {
    /// Reserves its slots. Sleeps. `EINVAL`: the queue is of another domain; `ENOSPC`: it is too small. `ENOMEM`.
    pub(super) fn new(base: &Base, index: u16, cq: &CompletionQueue<C>, own: Own) -> Result<Self> {
        base.check_queue(cq)?;
        let (counters, name) = own.parts(base, "tx", index)?;
        let fence = base.fences.get(usize::from(index)).cloned();
        let slots = base.limits.tx_size;
        let direction =
            Direction::new(base.poster(index), cq, counters, fence.clone(), None, slots)?;
        let shown = Shown::Direction(direction.origin.clone());
        Ok(Tx {
            _file: debugfs::File::new(&name, &base.dir, shown)?,
            direction,
            fence,
            index,
            _own: own.kept()?,
        })
    }
}

impl<C: Send + 'static> Rx<C> {
    /// As [`Tx::new`].
    #[inline(never)]
    pub(super) fn new(
        base: &Base,
        index: u16,
        cq: &CompletionQueue<C>,
        min_multi_recv: usize,
        own: Own,
    ) -> Result<Self> {
        base.check_queue(cq)?;
        let (counters, name) = own.parts(base, "rx", index)?;
        let slots = base.limits.rx_size;
        let shares = match base.caps.contains(Caps::MULTI_RECV) {
            true => Some(Shares::new(slots)?),
            false => None,
        };
        let direction = Direction::new(base.poster(index), cq, counters, None, shares, slots)?;
        let shown = Shown::Direction(direction.origin.clone());
        Ok(Rx {
            _file: debugfs::File::new(&name, &base.dir, shown)?,
            direction,
            matching: base.port.matching(index.into()).ok_or(EINVAL)?.clone(),
            min_multi_recv,
            index,
            _own: own.kept()?,
        })
    }
}

/// Whether an operation was posted by that context.
fn is_of(id: OpId, receive: bool, index: u16) -> bool {
    id.receive == receive && id.poster.context == index
}

impl<C: Send + 'static> Side for Tx<C> {
    fn in_flight(&self) -> (u64, u64) {
        (self.direction.origin.in_flight(), 0)
    }

    fn stop(&self, whole: &Whole) {
        if let Some(fence) = &self.fence {
            fence.quit(ECANCELED);
        }
        whole.live.transport.quit(self.index.into());
    }

    fn recall(&self, whole: &Whole, id: OpId) -> Cancelled {
        if !is_of(id, false, self.index) {
            return Cancelled::No;
        }
        match self.fence.as_ref().and_then(|fence| fence.cancel(id)) {
            Some(op) => Cancelled::Back(op),
            None => whole.live.transport.cancel(id),
        }
    }

    fn attach(&self, whole: &Whole) {
        whole.adopt(&self.direction.origin);
    }
}

impl<C: Send + 'static> Side for Rx<C> {
    fn in_flight(&self) -> (u64, u64) {
        (0, self.direction.origin.in_flight())
    }

    fn stop(&self, whole: &Whole) {
        self.matching.close(ECANCELED, whole.live.port.lost());
    }

    fn recall(&self, _whole: &Whole, id: OpId) -> Cancelled {
        let op: Option<Operation> = match is_of(id, true, self.index) {
            true => self.matching.cancel(id),
            false => None,
        };
        op.into()
    }

    fn attach(&self, whole: &Whole) {
        whole.adopt(&self.direction.origin);
    }
}

impl<C: Send + 'static> Side for Both<C> {
    fn in_flight(&self) -> (u64, u64) {
        (self.tx.in_flight().0, self.rx.in_flight().1)
    }

    fn stop(&self, whole: &Whole) {
        whole.end();
    }

    fn recall(&self, whole: &Whole, id: OpId) -> Cancelled {
        match id.receive {
            true => self.rx.recall(whole, id),
            false => self.tx.recall(whole, id),
        }
    }

    fn attach(&self, whole: &Whole) {
        self.tx.attach(whole);
        self.rx.attach(whole);
    }
}

impl<C: Send + 'static> Transmits<C> for Tx<C> {
    #[inline(always)]
    fn tx(&self) -> &Tx<C> {
        self
    }
}

impl<C: Send + 'static> Transmits<C> for Both<C> {
    #[inline(always)]
    fn tx(&self) -> &Tx<C> {
        &self.tx
    }
}

impl<C: Send + 'static> Receives<C> for Rx<C> {
    #[inline(always)]
    fn rx(&self) -> &Rx<C> {
        self
    }
}

impl<C: Send + 'static> Receives<C> for Both<C> {
    #[inline(always)]
    fn rx(&self) -> &Rx<C> {
        &self.rx
    }
}
