// SPDX-License-Identifier: GPL-2.0

//! The slots of a context.

use crate::cntr::Counters;
use crate::cq::{Bound, CompletionQueue, Hands};
use crate::op::{Op, Origin, Poster, Shares};
use crate::rdm::fence::Fence;
use crate::stats::Stats;
use crate::sys::slot::Pool;
use kernel::prelude::*;
use kernel::sync::Arc;

/// The slots of a context, and where they complete.
pub(super) struct Direction<C: Send + 'static> {
    pub(super) pool: Pool<C>,
    pub(super) origin: Arc<Origin>,
    _bound: Bound,
}

impl<C: Send + 'static> Direction<C> {
    pub(super) fn new(
        poster: Poster,
        (cq, hands): (&CompletionQueue<C>, &Arc<Hands>),
        counters: Option<Arc<Counters>>,
        fence: Option<Arc<Fence>>,
        shares: Option<Arc<Shares>>,
        slots: usize,
    ) -> Result<Self> {
        let bound = Bound::new(cq.queue(), slots, Some(hands))?;
        let stats = Arc::new(Stats::default(), GFP_KERNEL)?;
        let queue = cq.queue().clone();
        let origin = Origin::new(poster, queue, stats, counters, fence, shares, slots)?;
        Ok(Direction {
            pool: Pool::new(slots, |index| Op::idle(&origin, index))?,
            origin,
            _bound: bound,
        })
    }
}
