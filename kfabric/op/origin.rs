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

#[kunit_tests(kfabric_op_origin)]
mod tests {
    use super::*;
    use crate::cntr::{self, Chosen, Counter};
    use crate::debugfs::Shown;
    use crate::domain::{Class, Domain};
    use crate::op::testing::{done, Bench};
    use crate::op::{Buffer, Kind};
    use crate::provider::testing::{Desk, Opened};
    use kernel::str::CString;

    /// An origin of nobody yet, whose operations complete at the bench.
    fn origin(bench: &Bench<u64>, counters: Option<Arc<Counters>>) -> Result<Arc<Origin>> {
        let stats = Arc::new(Stats::default(), GFP_KERNEL)?;
        let (poster, queue) = (Poster::first(7), bench.queue.clone());
        Origin::new(poster, queue, stats, counters, None, None, 4)
    }

    #[test]
    fn uses_of_two_origins_are_far_apart() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let (first, second) = (origin(&bench, None)?, origin(&bench, None)?);
        let (first, second) = (first.first_use(), second.first_use());
        assert_eq!((first % (1 << USES), second % (1 << USES)), (0, 0));
        assert!(second >= first + (1 << USES));
        Ok(())
    }

    #[test]
    fn name_is_that_which_was_noted_first() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let origin = origin(&bench, None)?;
        assert!(origin.name().is_none());
        for name in [b"first", b"other"] {
            origin.set_name(&Name::new(name)?);
            assert!(origin
                .name()
                .is_some_and(|name| name.as_bytes() == b"first"));
        }
        Ok(())
    }

    #[test]
    fn end_of_its_own_domain_explains_a_loss() -> Result {
        let (bench, opened) = (Bench::<u64>::new(1, None)?, Opened::new()?);
        let another = opened.fabric.domain(&Desk::info()?)?;
        let life = |domain: &Domain| Ok::<_, Error>(domain.child(Class::Counter)?.life().clone());
        let (own, anothers) = (life(&opened.domain)?, life(&another)?);
        let (origin, nobodys) = (origin(&bench, None)?, origin(&bench, None)?);
        assert!(!origin.explains_loss());
        origin.set_domain(&own);
        another.unplug()?;
        assert!(!origin.explains_loss());
        // It is of one domain for good.
        origin.set_domain(&anothers);
        assert!(!origin.explains_loss());
        opened.domain.unplug()?;
        assert!(origin.explains_loss() && !nobodys.explains_loss());
        Ok(())
    }

    #[test]
    fn operation_is_in_flight_until_it_is_in_its_queue() -> Result {
        let bench = Bench::<u64>::new(4, None)?;
        let shown = || CString::try_from_fmt(fmt!("{}", Shown::Direction(bench.origin.clone())));
        let says = |last: &[u8]| Ok::<_, Error>(shown()?.to_bytes().ends_with(last));
        assert!(says(b"\nin_flight 0\nsize 4\n")?);
        let (_, first) = bench.post(Kind::Recv, Buffer::empty(), 1)?;
        let (_, mut second) = bench.post(Kind::Recv, Buffer::empty(), 2)?;
        assert_eq!(bench.origin.in_flight(), 2);
        first.complete(done(0));
        // Nobody has read it.
        assert_eq!(bench.origin.in_flight(), 1);
        assert!(says(b"\nin_flight 1\nsize 4\n")?);
        second.refused();
        assert_eq!(bench.origin.in_flight(), 0);
        drop(second.claim::<u64>());
        Ok(())
    }

    #[test]
    fn end_is_counted_where_somebody_counts() -> Result {
        let (bench, opened) = (Bench::<u64>::new(1, None)?, Opened::new()?);
        let cntr = Counter::new(&opened.domain, None)?;
        let mut chosen = Chosen::default();
        for kind in Counts::SEND.kinds() {
            chosen[kind] = Some(&cntr);
        }
        let core = opened.domain.child(Class::Counter)?.core().clone();
        let bound = cntr::Bound::new(&chosen, &core)?.ok_or(EINVAL)?;
        let counted = origin(&bench, Some(bound.counters().clone()))?;
        let uncounted = origin(&bench, None)?;
        for (counts, well, expected) in [
            (Counts::SEND, true, (1, 0)),
            (Counts::SEND, false, (1, 1)),
            (Counts::RECV, true, (1, 1)),
            (Counts::NONE, false, (1, 1)),
        ] {
            counted.count(counts, well);
            uncounted.count(counts, well);
            assert_eq!((cntr.value(), cntr.errors()), expected);
        }
        Ok(())
    }
}
