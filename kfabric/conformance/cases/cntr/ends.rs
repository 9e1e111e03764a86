// SPDX-License-Identifier: GPL-2.0

//! When an operation is counted, and as what.

use super::side::{both, Side, SILENT};
use crate::close::{busy, closed};
use crate::ops::error;
use crate::rig::{pattern, register, timeout, Rig, DEPTH};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    failure_counts_as_an_error: Caps::RMA.union(Caps::MSG),
    post_that_is_refused_is_not_counted: Caps::MSG,
    count_comes_no_later_than_the_completion: Caps::RMA,
    silent_operations_are_counted_when_they_have_let_go: Caps::RMA,
    endpoints_share_a_counter: Caps::MSG,
    close_of_an_endpoint_counts_what_it_cancels: Caps::MSG,
}

fn failure_counts_as_an_error(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::WRITE)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let kinds = Counts::SEND | Counts::RECV | Counts::WRITE;
    let side = Side::new(&rig.a, info, &[(kinds, &cntr)])?;
    side.send(&rig, 11)?;
    check_eq!(both(&cntr), (0, 1));
    side.recv(&rig, 11)?;
    check_eq!(both(&cntr), (0, 2));
    drop(closed(region.close_wait(timeout()))?);
    for (errors, options) in [(3, Options::default()), (4, SILENT)] {
        let slice = remote.slice(0, 0)?;
        side.ep
            .write(Buffer::empty(), rig.to_b, slice, options, 1)?;
        side.ends(Kind::Write, Some(EKEYREJECTED))?;
        check_eq!(both(&cntr), (0, errors));
    }
    side.send(&rig, 10)?;
    check_eq!(both(&cntr), (1, 4));
    side.close()?;
    closed(cntr.close())?;
    rig.close()
}

fn post_that_is_refused_is_not_counted(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let kinds = Counts::SEND | Counts::RECV;
    let side = Side::new(&rig.a, info, &[(kinds, &cntr)])?;
    let nobody = Address::from_raw(u64::MAX);
    let options = Options::default();
    check!(side.ep.send(Buffer::empty(), nobody, options, 1).is_err());
    let mut last = None;
    for n in 0..DEPTH as u64 {
        last = Some(side.ep.recv(Buffer::empty(), n)?);
    }
    check!(side.ep.recv(Buffer::empty(), 1).is_err());
    // Nor what is in flight.
    check_eq!(both(&cntr), (0, 0));
    side.ep.cancel(last.ok_or(EINVAL)?)?;
    check_eq!(both(&cntr), (0, 1));
    side.close()?;
    check_eq!(both(&cntr), (0, DEPTH as u64));
    closed(cntr.close())?;
    rig.close()
}

fn count_comes_no_later_than_the_completion(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(50_000, Access::WRITE)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::WRITE, &cntr)])?;
    let mut completed = 0;
    for _ in 0..10 {
        for n in 0..16 {
            let len = if n % 2 == 0 { 50_000 } else { 50 };
            let (zeros, slice) = (Memory::zeroed(len)?, remote.slice(0, len as u64)?);
            side.ep
                .write(zeros, rig.to_b, slice, Options::default(), n)?;
        }
        for _ in 0..16 {
            // Without a sleep, so that nobody is given the time to count.
            let done = loop {
                match side.cq.read() {
                    Some(done) => break done,
                    None => side.cq.wait(timeout())?,
                }
            };
            let counted = cntr.value();
            completed += 1;
            check_eq!(error(&done), None);
            check!(counted >= completed);
        }
    }
    check_eq!(both(&cntr), (completed, 0));
    side.close()?;
    drop(closed(region.close_wait(timeout()))?);
    closed(cntr.close())?;
    rig.close()
}

fn silent_operations_are_counted_when_they_have_let_go(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(50_000, Access::WRITE)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::WRITE, &cntr)])?;
    for round in 1..=5 {
        let local = register(&rig.a.domain, pattern(50_000, seed)?, Access::NONE)?;
        // As many as there are slots, each time: all are free again.
        for n in 0..DEPTH {
            let len = if n % 2 == 0 { 50_000 } else { 50 };
            let (from, to) = (local.slice(0, len)?, remote.slice(0, len as u64)?);
            side.ep.write(from, rig.to_b, to, SILENT, 1)?;
        }
        cntr.wait(round * DEPTH as u64, timeout())?;
        check_eq!(both(&cntr), (round * DEPTH as u64, 0));
        // And no slice is left.
        drop(closed(local.close())?);
        check!(side.cq.read().is_none());
    }
    side.close()?;
    drop(closed(region.close_wait(timeout()))?);
    closed(cntr.close())?;
    rig.close()
}

fn endpoints_share_a_counter(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let first = Side::new(&rig.a, info, &[(Counts::SEND | Counts::RECV, &cntr)])?;
    let second = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    for n in 0..5 {
        first.send(&rig, 10)?;
        check_eq!(cntr.value(), 3 * n + 1);
        second.send(&rig, 10)?;
        check_eq!(cntr.value(), 3 * n + 2);
        first.recv(&rig, 10)?;
        check_eq!(cntr.value(), 3 * n + 3);
        second.recv(&rig, 10)?;
        check_eq!(cntr.value(), 3 * n + 3);
    }
    first.close()?;
    let cntr = busy(cntr.close())?;
    second.close()?;
    closed(cntr.close())?;
    rig.close()
}

fn close_of_an_endpoint_counts_what_it_cancels(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (send, recv) = (
        Counter::new(&rig.a.domain, None)?,
        Counter::new(&rig.a.domain, None)?,
    );
    let counters = [(Counts::SEND, &send), (Counts::RECV, &recv)];
    let side = Side::new(&rig.a, info, &counters)?;
    for n in 0..10 {
        side.ep.recv(Buffer::empty(), n)?;
    }
    for n in 0..7 {
        // Nobody receives them.
        let options = Options::default();
        side.ep.send(Buffer::empty(), rig.to_b, options, n)?;
    }
    check_eq!((both(&send), both(&recv)), ((0, 0), (0, 0)));
    // The completions are not read.
    let Side { ep, cq } = side;
    closed(ep.close())?;
    check_eq!((both(&send), both(&recv)), ((0, 7), (0, 10)));
    closed(send.close())?;
    closed(recv.close())?;
    closed(cq.close())?;
    rig.close()
}
