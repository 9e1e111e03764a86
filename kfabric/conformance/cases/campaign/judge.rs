// SPDX-License-Identifier: GPL-2.0

//! Whether what a burst has read, and what it leaves, is what a permitted order of it gives.

use super::lane::{Lane, Planned, State};
use super::word::Atomics;
use super::{fill, manner, Campaign, ALL_LANES, BURST, LANES, LASTING, LONGEST, VOLATILE, WORDS};
use crate::check;
use crate::rng::mix;
use kernel::prelude::*;
use kfabric::prelude::*;

impl Campaign {
    /// Looks at what a burst has read, and at what it leaves.
    pub(super) fn judge(&mut self, number: usize) -> Result {
        let (order, _) = manner(number / LANES);
        let lane = &mut self.lanes[number];
        for op in lane.planned.iter_mut() {
            if op.state == State::Posted {
                self.counts.silent += 1;
                op.state = State::Ended(true);
            }
        }
        let lane = &self.lanes[number];
        let (len, target) = (lane.len, &self.stations[lane.to]);
        let region = if lane.lasting { LASTING } else { VOLATILE };
        let (written, found) = self.scratch.split_at_mut(BURST);
        for (n, op) in lane.planned.iter().enumerate() {
            if !matches!(op.state, State::Doubtful | State::Ended(true)) {
                continue;
            }
            if op.kind == Kind::Write {
                fill(&mut written[n][..len], op.tag);
            }
            if op.is_told() {
                match op.state {
                    State::Doubtful => self.counts.doubtful += 1,
                    _ => {
                        self.counts.sent += 1;
                        self.balance = self.balance.wrapping_add(mix(op.tag));
                    }
                }
            }
        }
        let regions = target.regions.len();
        let known = &mut self.known[lane.to * regions + region][number * LONGEST..][..len];
        let found = &mut found[0][..len];
        let local = &self.sides[number / LANES % 2].local;
        let mut fetched = [None; BURST];
        for (n, op) in lane.planned.iter().enumerate() {
            let at = (number * BURST + n) * LONGEST;
            match op.kind {
                _ if op.state != State::Ended(true) => {}
                Kind::Read => {
                    local.read_at(at, found)?;
                    seen(lane, order, Some(n), known, written, found)?;
                }
                Kind::Atomic => {
                    // Into the last of its vectors.
                    let action = op.form.action().action;
                    let at = at + (action.vectors() - 1) * 8;
                    fetched[n] = action.fetches().then(|| local.load_u64(at)).transpose()?;
                }
                _ => {}
            }
        }
        target.regions[region].read_at(number * LONGEST, found)?;
        let last = seen(lane, order, None, known, written, found)?;
        let latest = lane.planned.iter().rposition(Planned::has_written);
        self.counts.overtaken += u64::from(last.is_some() && last != latest);
        known.copy_from_slice(found);
        let word = &mut self.words[lane.to * ALL_LANES + number];
        let last = target.regions[WORDS].load_u64(number * 8)?;
        let atomics = Atomics {
            lane,
            order,
            fetched,
        };
        if !atomics.lead(*word, last) {
            pr_err!("# {order:?}: no order of the atomics leads from {word:#x} to {last:#x}\n");
            for (n, op) in lane.planned.iter().enumerate() {
                let (kind, fetched) = (op.kind.name(), fetched[n]);
                pr_err!(
                    "#   {n}: {kind} {:?}, {:#x}, fetched {fetched:#x?}\n",
                    op.options,
                    op.tag
                );
            }
            return Err(EINVAL);
        }
        *word = last;
        self.lanes[number].planned.clear();
        Ok(())
    }

    /// Looks at what a burst leaves that the end of the provider has cut short.
    ///
    /// All that was posted has ended: what is silent and was not told of went well.
    pub(super) fn judge_rest(&mut self, number: usize) -> Result {
        let planned = &mut self.lanes[number].planned;
        for op in planned.iter_mut() {
            if op.state == State::Fresh {
                op.state = State::Ended(false);
            }
            check!(op.state != State::Posted || op.options.silent);
        }
        self.judge(number)
    }
}

/// Which write's bytes were found, if they are one's; fails unless each byte may be what it is.
fn seen(
    lane: &Lane,
    order: Order,
    by: Option<usize>,
    known: &[u8],
    written: &[KVVec<u8>],
    found: &[u8],
) -> Result<Option<usize>> {
    let may_show =
        |from: usize| lane.planned[from].may_have_written() && lane.may_show(order, Some(from), by);
    let count = lane.planned.len();
    if let Some(from) = (0..count).find(|n| may_show(*n) && written[*n][..found.len()] == *found) {
        return Ok(Some(from));
    }
    let before = lane.may_show(order, None, by);
    if before && known == found {
        return Ok(None);
    }
    // Copies that nothing keeps apart may have met in the range.
    for (at, byte) in found.iter().enumerate() {
        let same = |n: usize| may_show(n) && written[n][at] == *byte;
        let as_before = before && known[at] == *byte;
        if !as_before && !(0..count).any(same) {
            let known = usize::from(known[at] == *byte);
            let by = by.map_or(BURST, |by| by);
            pr_err!(
                "# {order:?}: byte {at} of {}, seen by {by}: old {known}\n",
                found.len()
            );
            for (n, op) in lane.planned.iter().enumerate() {
                pr_err!(
                    "#   {n}: {} {:?}, well {}, its byte {}\n",
                    op.kind.name(),
                    op.options,
                    u8::from(op.state == State::Ended(true)),
                    u8::from(op.kind == Kind::Write && written[n][at] == *byte)
                );
            }
            return Err(EINVAL);
        }
    }
    Ok(None)
}
