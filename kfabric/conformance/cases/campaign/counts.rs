// SPDX-License-Identifier: GPL-2.0

//! What a campaign counts, and tells at its end.

use kernel::prelude::*;
use kernel::time::{Instant, Monotonic};

#[derive(Default)]
pub(super) struct Counts {
    pub(super) posted: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    /// The smallest and the largest errno of those that failed, 0 if none has.
    pub(super) errors: (i32, i32),
    pub(super) refused: u64,
    pub(super) silent: u64,
    pub(super) overtaken: u64,
    /// Messages and notices of writes.
    pub(super) sent: u64,
    pub(super) arrived: u64,
    /// Messages and notices that may have arrived, or not.
    pub(super) doubtful: u64,
}

impl Counts {
    /// Those of another task, too.
    pub(super) fn add(&mut self, other: &Counts) {
        self.posted += other.posted;
        self.completed += other.completed;
        self.failed += other.failed;
        self.refused += other.refused;
        self.silent += other.silent;
        self.overtaken += other.overtaken;
        self.sent += other.sent;
        self.arrived += other.arrived;
        self.doubtful += other.doubtful;
        self.note_errors(other.errors);
    }

    pub(super) fn note_errors(&mut self, (least, most): (i32, i32)) {
        self.errors = match (self.errors, least) {
            ((0, _), _) => (least, most),
            (errors, 0) => errors,
            (errors, _) => (errors.0.min(least), errors.1.max(most)),
        };
    }

    pub(super) fn tell(&self, begin: Instant<Monotonic>) {
        pr_info!(
            "# campaign: {} operations, {} failed, {} posts refused, {} overtaken, {} silent, \
             {} messages and notices, {} in doubt; errors {} to {}\n",
            self.posted,
            self.failed,
            self.refused,
            self.overtaken,
            self.silent,
            self.sent,
            self.doubtful,
            self.errors.0,
            self.errors.1
        );
        pr_info!("# campaign: {} ms\n", begin.elapsed().as_millis());
    }
}
