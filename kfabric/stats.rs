// SPDX-License-Identifier: GPL-2.0

//! Statistics: what each object counts.

use crate::debugfs;
use crate::proto::violation::Violation;
use crate::sys::once;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed};

/// A count that only grows.
pub(crate) struct Count(Atomic<u64>);

impl Default for Count {
    fn default() -> Self {
        Count(Atomic::new(0))
    }
}

impl Count {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        once::add(&self.0, n);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A count that is added to under a lock, and read without.
#[derive(Default)]
struct Tally(Count);

impl Tally {
    /// The caller holds the lock that guards it: no locked instruction is needed.
    #[inline]
    fn add(&self, n: u64) {
        let count = &self.0 .0;
        once::release(count, once::read(count).wrapping_add(n));
    }

    fn value(&self) -> u64 {
        self.0 .0.load(Acquire)
    }
}

/// What an endpoint counts in one direction.
#[derive(Default)]
pub(crate) struct Stats {
    posted: Count,
    bytes: Count,
    // Under the lock of the queue.
    succeeded: Tally,
    failed: Tally,
    /// Of those posted: handed back by the provider.
    handed_back: Count,
    /// Refused before they had a slot.
    refused: Count,
    /// Of those that failed: for a receive context that the peer does not have.
    no_context: Count,
}

impl Stats {
    /// Counts a post.
    #[inline]
    pub(crate) fn posted(&self, len: usize) {
        self.posted.add(1);
        self.bytes.add(len as u64);
    }

    /// Counts a completion; the lock of the queue is held.
    #[inline]
    pub(crate) fn ended(&self, well: bool) {
        match well {
            true => self.succeeded.add(1),
            false => self.failed.add(1),
        }
    }

    pub(crate) fn handed_back(&self) {
        self.handed_back.add(1);
    }

    pub(crate) fn refused(&self, n: u64) {
        self.refused.add(n);
    }

    pub(crate) fn no_context(&self) {
        self.no_context.add(1);
    }

    /// How many operations were posted and have not ended; never too few.
    pub(crate) fn in_flight(&self) -> u64 {
        // What ended is read first: it was posted before.
        let ended = self.succeeded.value() + self.failed.value() + self.handed_back.value();
        self.posted.value().saturating_sub(ended)
    }

    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("posted", self.posted.value()),
            ("bytes", self.bytes.value()),
            ("refused", self.refused.value() + self.handed_back.value()),
            ("succeeded", self.succeeded.value()),
            ("failed", self.failed.value()),
            ("no_context", self.no_context.value()),
        ];
        debugfs::rows(f, &rows)
    }
}

/// What a domain counts of what its peers try.
#[derive(Default)]
pub(crate) struct TargetStats {
    /// Accesses that were carried out.
    pub(crate) executed: Count,
    /// Keys that were never given out.
    pub(crate) unknown_key: Count,
    /// Keys of closed regions.
    pub(crate) stale_key: Count,
    /// Keys with a wrong random part.
    pub(crate) guessed_key: Count,
    /// Ranges that leave the region.
    pub(crate) out_of_range: Count,
    /// Accesses without the right to them.
    pub(crate) no_right: Count,
    /// Tagged writes and reads for which no receive was posted.
    pub(crate) no_receive: Count,
    /// Atomics on words that are not aligned.
    pub(crate) misaligned: Count,
    /// Commits of volatile regions.
    pub(crate) volatile: Count,
    /// Accesses that met memory of a device that is gone, on either side.
    pub(crate) device_gone: Count,
    /// Operations of others than the peer of a connected endpoint, or on a passive one.
    pub(crate) strangers: Count,
    /// Bytes made durable.
    pub(crate) committed: Count,
    /// Bytes that a link has put where they belong.
    pub(crate) placed: Count,
    /// Bytes that a link has taken from where they are.
    pub(crate) gathered: Count,
    /// Of those, bytes that it has left there for the network.
    pub(crate) spliced: Count,
    /// What peers did that the protocol forbids.
    pub(crate) violations: Violations,
}

/// What a domain over links counts of its peers, and of those that may become some.
#[derive(Default)]
pub(crate) struct PeerStats {
    /// Links over which frames have flowed.
    pub(crate) links: Count,
    /// Sessions that were ended since nobody used them.
    pub(crate) idle: Count,
    /// Peers that memory was taken for.
    pub(crate) made: Count,
    /// Of which nothing was kept but what must be remembered.
    pub(crate) forgotten: Count,
    /// Those that were told that there are too many.
    pub(crate) refused: Count,
    /// Links that were closed unheard, since there were too many whose peers are not known.
    pub(crate) strangers: Count,
    /// Those that were closed for another one, since they had said nothing for long.
    pub(crate) hurried: Count,
    /// Those that were for an endpoint that is not there.
    pub(crate) nobodys: Count,
}

impl PeerStats {
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("links", self.links.value()),
            ("idle_sessions", self.idle.value()),
            ("peers_made", self.made.value()),
            ("peers_forgotten", self.forgotten.value()),
            ("peers_refused", self.refused.value()),
            ("links_unheard", self.strangers.value()),
            ("links_silent", self.hurried.value()),
            ("links_for_nobody", self.nobodys.value()),
        ];
        debugfs::rows(f, &rows)
    }
}

/// Counts of violations, each under its name.
pub(crate) struct Violations([Count; Violation::COUNT]);

impl Default for Violations {
    fn default() -> Self {
        Violations(core::array::from_fn(|_| Count::default()))
    }
}

impl Violations {
    pub(crate) fn add(&self, violation: Violation) {
        if let Some(count) = self.0.get(violation.index()) {
            count.add(1);
        }
    }

    /// How many there were.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(Count::value).sum()
    }

    /// Writes how many there were, and of what kinds.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debugfs::rows(f, &[("violations", self.total())])?;
        for (count, violation) in self.0.iter().zip(Violation::all()) {
            if count.value() > 0 {
                writeln!(f, "violation_{} {}", violation.name(), count.value())?;
            }
        }
        Ok(())
    }
}

impl TargetStats {
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("executed", self.executed.value()),
            ("unknown_key", self.unknown_key.value()),
            ("stale_key", self.stale_key.value()),
            ("guessed_key", self.guessed_key.value()),
            ("out_of_range", self.out_of_range.value()),
            ("no_right", self.no_right.value()),
            ("no_receive", self.no_receive.value()),
            ("misaligned", self.misaligned.value()),
            ("volatile", self.volatile.value()),
            ("device_gone", self.device_gone.value()),
            ("strangers", self.strangers.value()),
            ("committed_bytes", self.committed.value()),
            ("placed_bytes", self.placed.value()),
            ("gathered_bytes", self.gathered.value()),
            ("spliced_bytes", self.spliced.value()),
        ];
        debugfs::rows(f, &rows)?;
        self.violations.show(f)
    }
}

#[kunit_tests(kfabric_stats)]
mod tests {
    use super::*;
    use kernel::str::CString;

    struct Shown<F>(F);

    impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }

    fn text(show: impl Fn(&mut fmt::Formatter<'_>) -> fmt::Result) -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", Shown(show)))
    }

    #[test]
    fn each_post_and_each_end_is_counted_in_its_row() -> Result {
        let stats = Stats::default();
        for len in [0, 1, 100] {
            stats.posted(len);
        }
        stats.refused(4);
        assert_eq!(stats.in_flight(), 3);
        stats.ended(true);
        stats.ended(false);
        assert_eq!(stats.in_flight(), 1);
        stats.handed_back();
        assert_eq!(stats.in_flight(), 0);
        stats.no_context();
        let expected = c"posted 3\nbytes 101\nrefused 5\nsucceeded 1\nfailed 1\nno_context 1\n";
        assert!(*text(|f| stats.show(f))? == *expected);
        Ok(())
    }

    #[test]
    fn what_becomes_of_peers_has_its_rows() -> Result {
        let stats = PeerStats::default();
        for (n, count) in (1..).zip([
            &stats.links,
            &stats.idle,
            &stats.made,
            &stats.forgotten,
            &stats.refused,
            &stats.strangers,
            &stats.hurried,
            &stats.nobodys,
        ]) {
            count.add(n);
        }
        let expected = c"links 1\nidle_sessions 2\npeers_made 3\npeers_forgotten 4\n\
            peers_refused 5\nlinks_unheard 6\nlinks_silent 7\nlinks_for_nobody 8\n";
        assert!(*text(|f| stats.show(f))? == *expected);
        Ok(())
    }

    #[test]
    fn each_refusal_of_a_target_has_its_row() -> Result {
        let stats = TargetStats::default();
        for (n, count) in (1..).zip([
            &stats.executed,
            &stats.unknown_key,
            &stats.stale_key,
            &stats.guessed_key,
            &stats.out_of_range,
            &stats.no_right,
            &stats.no_receive,
            &stats.misaligned,
            &stats.volatile,
            &stats.device_gone,
            &stats.strangers,
            &stats.committed,
            &stats.placed,
            &stats.gathered,
            &stats.spliced,
        ]) {
            count.add(n);
        }
        let expected = c"executed 1\nunknown_key 2\nstale_key 3\nguessed_key 4\n\
            out_of_range 5\nno_right 6\nno_receive 7\nmisaligned 8\nvolatile 9\ndevice_gone 10\n\
            strangers 11\ncommitted_bytes 12\nplaced_bytes 13\ngathered_bytes 14\n\
            spliced_bytes 15\nviolations 0\n";
        assert!(*text(|f| stats.show(f))? == *expected);
        Ok(())
    }
}
