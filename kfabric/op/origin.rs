// SPDX-License-Identifier: GPL-2.0

//! Where operations come from and return to.

use super::shares::Shares;
use crate::av::Name;
use crate::cntr::{Counters, Counts};
use crate::cq::Queue;
use crate::debugfs;
use crate::domain::Life;
use crate::rdm::fence::Fence;
use crate::stats::Stats;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, SetOnce};

/// Who posts: one of an endpoint's contexts, of those that transmit or of those that receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Poster {
    pub(crate) endpoint: u64,
    pub(crate) context: u16,
}

impl Poster {
    /// The first context of an endpoint, which each has.
    pub(crate) const fn first(endpoint: u64) -> Self {
        Poster {
            endpoint,
            context: 0,
        }
    }
}

/// Where the operations of one context of an endpoint come from and return to.
pub(crate) struct Origin {
    /// Whose they are.
    pub(crate) poster: Poster,
    /// By which name its peers know it; before it has one, nothing is posted.
    name: SetOnce<Name>,
    /// Which domain the endpoint is of; those of a peer have none here.
    domain: SetOnce<Arc<Life>>,
    /// Where they complete.
    pub(crate) queue: Arc<Queue>,
    /// Where they are counted.
    pub(crate) stats: Arc<Stats>,
    /// Who else counts them.
    pub(super) counters: Option<Arc<Counters>>,
    /// What they wait for, where posts may have fences.
    pub(super) fence: Option<Arc<Fence>>,
    /// Who uses the buffers of receives of several messages, where there are such.
    shares: Option<Arc<Shares>>,
    /// How many slots there are.
    size: usize,
    /// From what on the uses of a slot are counted: no other origin has the same, so that a number of an operation
    /// does not name one of a context that was closed and opened again.
    first_use: u64,
}

/// How many uses of a slot an origin may count, as a power of two.
const USES: u32 = 32;

static NEXT: Atomic<u64> = Atomic::new(0);

impl Origin {
    pub(crate) fn new(
        poster: Poster,
        queue: Arc<Queue>,
        stats: Arc<Stats>,
        counters: Option<Arc<Counters>>,
        fence: Option<Arc<Fence>>,
        shares: Option<Arc<Shares>>,
        size: usize,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Origin {
                poster,
                name: SetOnce::new(),
                domain: SetOnce::new(),
                queue,
                stats,
                counters,
                fence,
                shares,
                size,
                first_use: NEXT.fetch_add(1, Relaxed) << USES,
            },
            GFP_KERNEL,
        )?)
    }

    /// Notes by which name its peers know the endpoint. Once.
    pub(crate) fn set_name(&self, name: &Name) {
        self.name.populate(*name);
    }

    /// Notes which domain the endpoint is of. Once, before anything is posted.
    pub(crate) fn set_domain(&self, life: &Arc<Life>) {
        self.domain.populate(life.clone());
    }

    /// Whether an operation has lost its peer because its own domain has ended.
    pub(super) fn explains_loss(&self) -> bool {
        self.domain
            .as_ref()
            .is_some_and(|life| life.explains_loss())
    }

    /// From what on the uses of a slot are counted.
    pub(super) fn first_use(&self) -> u64 {
        self.first_use
    }

    /// By which name its peers know the endpoint.
    pub(crate) fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// Who uses the buffers of receives of several messages.
    pub(super) fn shares(&self) -> Option<&Arc<Shares>> {
        self.shares.as_ref()
    }

    /// Counts how one ended, for its counter if it has one.
    #[inline]
    pub(crate) fn count(&self, counts: Counts, well: bool) {
        if let Some(counters) = &self.counters {
            counters.count(counts, well);
        }
    }

    /// How many operations have been posted and are not in the completion queue yet.
    pub(crate) fn in_flight(&self) -> u64 {
        self.stats.in_flight()
    }

    /// Writes what it counts.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats.show(f)?;
        let rows = [("in_flight", self.in_flight()), ("size", self.size as u64)];
        debugfs::rows(f, &rows)
    }
}
