// SPDX-License-Identifier: GPL-2.0

//! The counter itself: its value, and its end.

use super::side::{both, Side};
use crate::close::{busy, closed};
use crate::crew::Crew;
use crate::rig::{count, timeout, End, Rig};
use crate::soft::spawn;
use crate::{cases, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Relaxed};
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

cases! {
    counter_counts_what_it_is_told: Caps::NONE,
    counts_of_many_contexts_lose_none: Caps::NONE,
    counter_in_use_is_not_closed: Caps::MSG,
    counter_dropped_before_its_endpoint_counts_on: Caps::MSG,
    counter_of_another_domain_is_refused: Caps::NONE,
}

fn counter_counts_what_it_is_told(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let (cntr, other) = (
        Counter::new(&end.domain, None)?,
        Counter::new(&end.domain, None)?,
    );
    check_eq!(both(&cntr), (0, 0));
    cntr.wait(0, 0)?;
    cntr.add(5);
    cntr.add_errors(2);
    check_eq!(both(&cntr), (5, 2));
    cntr.set(3);
    check_eq!(both(&cntr), (3, 2));
    cntr.wait(3, 0)?;
    // Beyond the greatest value it goes on at 0.
    cntr.set(u64::MAX);
    cntr.wait(u64::MAX, 0)?;
    cntr.add(2);
    check_eq!(both(&cntr), (1, 2));
    check_eq!(cntr.wait(2, 0), Err(ETIMEDOUT));
    cntr.add_errors(u64::MAX);
    check_eq!(both(&cntr), (1, 1));
    check_eq!(both(&other), (0, 0));
    // There is nobody to tell.
    check_eq!(cntr.notify_at(0), Err(EINVAL));
    closed(cntr.close())?;
    closed(other.close())?;
    end.close()
}

fn counts_of_many_contexts_lose_none(info: &Info, _seed: u64) -> Result {
    const MANY: u64 = 2000;
    const THREADS: usize = 3;
    let end = End::new(info, None)?;
    let cntr = Arc::new(Counter::new(&end.domain, None)?, GFP_KERNEL)?;
    let mut jobs = KVec::new();
    let theirs = cntr.clone();
    let job = move |_: usize| {
        for _ in 0..MANY {
            theirs.add(1);
            theirs.add_errors(2);
        }
        Ok(())
    };
    let job = Arc::new(job, GFP_KERNEL)?;
    for _ in 0..THREADS {
        let job = job.clone();
        jobs.push(spawn(move || job(0))?, GFP_KERNEL)?;
    }
    let crew = Crew::start(THREADS, job)?;
    let total = 2 * THREADS as u64 * MANY;
    // What is counted meanwhile as an error ends a wait.
    let waited = loop {
        match cntr.wait(total, timeout()) {
            Err(EIO) => {}
            ended => break ended,
        }
    };
    check_eq!(waited, Ok(()));
    crew.join()?;
    for job in jobs {
        job.wait()?;
    }
    check_eq!(both(&cntr), (total, 2 * total));
    drop(cntr);
    end.close()
}

fn counter_in_use_is_not_closed(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    let cntr = busy(cntr.close())?;
    // Nor was it harmed.
    side.send(&rig, 1)?;
    check_eq!(both(&cntr), (1, 0));
    side.close()?;
    let Rig { a, b, .. } = rig;
    let (ep, base) = a.split();
    closed(ep.close())?;
    closed(base.av.close())?;
    closed(base.cq.close())?;
    // The counter is what is left.
    let domain = busy(base.domain.close())?;
    closed(cntr.close())?;
    closed(domain.close())?;
    closed(base.fabric.close())?;
    b.close()
}

fn counter_dropped_before_its_endpoint_counts_on(info: &Info, _seed: u64) -> Result {
    let fired = count()?;
    let calls = fired.clone();
    let callback = move |_: &Reading<'_>| calls.add(1, Relaxed);
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let side = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    cntr.notify_at(1)?;
    drop(cntr);
    side.send(&rig, 1)?;
    side.send(&rig, 11)?;
    fsleep(Delta::from_millis(2));
    check_eq!(fired.load(Acquire), 0);
    side.close()?;
    rig.close()
}

fn counter_of_another_domain_is_refused(info: &Info, _seed: u64) -> Result {
    let (a, b) = (End::new(info, None)?, End::new(info, None)?);
    let (own, foreign) = (
        Counter::new(&a.domain, None)?,
        Counter::new(&b.domain, None)?,
    );
    let counters = [(Counts::SEND, &own), (Counts::REMOTE_READ, &foreign)];
    check_eq!(Side::new(&a, info, &counters).err(), Some(EINVAL));
    // Nothing was bound.
    closed(own.close())?;
    closed(foreign.close())?;
    a.close()?;
    b.close()
}
