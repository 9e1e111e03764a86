// SPDX-License-Identifier: GPL-2.0

//! Fences.

use crate::close::closed;
use crate::ops::{check_filled, check_not_executed, check_refused, error, level, pmem};
use crate::rig::{check_region, ended, pattern, timeout, End, Rig};
use crate::wishes::domain_of;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

const ALL: Caps = Caps::FENCE.union(Caps::MSG).union(Caps::RMA);

cases! {
    fences_are_to_be_asked_for: ALL,
    fence_waits_for_what_was_posted_before [connected]: ALL,
    fence_does_not_wait_for_other_peers: ALL,
    what_follows_a_fence_waits_behind_it [connected]: ALL,
    fence_with_nothing_before_it_goes_at_once [connected]: ALL,
    fenced_writes_take_effect_one_after_another [connected]: ALL,
    fence_waits_for_durability [connected]: ALL.union(Caps::COMMIT),
    cancelled_fence_lets_the_others_go [connected]: ALL,
    close_ends_what_waits_at_a_fence: ALL,
    failure_before_a_fence_lets_it_go [connected]: ALL,
    slots_are_used_up_by_what_waits_too [connected]: ALL,
}

const FENCE: Options = Options {
    fence: true,
    ..Options::NONE
};

fn fences_are_to_be_asked_for(info: &Info, _seed: u64) -> Result {
    let hints = Hints {
        endpoint_type: Some(info.endpoint_type),
        ..domain_of(info)
    };
    for unasked in getinfo(&hints)? {
        check!(!unasked.caps.contains(Caps::FENCE));
        let rig = Rig::new(&unasked)?;
        let posted = rig.a.ep.send(Buffer::empty(), rig.to_b, FENCE, 1);
        drop(check_refused(posted, EOPNOTSUPP, 1)?);
        rig.close()?;
    }
    Ok(())
}

fn fence_waits_for_what_was_posted_before(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    // Nobody receives it yet.
    rig.a
        .ep
        .send(pattern(8, seed)?, rig.to_b, Options::NONE, 1)?;
    let slice = remote.slice(0, 100)?;
    rig.a
        .ep
        .write(pattern(100, seed)?, rig.to_b, slice, FENCE, 2)?;
    fsleep(Delta::from_millis(20));
    check_filled(&region, 0)?;
    rig.quiet()?;
    rig.b.recv(Memory::zeroed(8)?, 3)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Send, 1, Ok(8)));
    check_eq!(ended(&rig.a.next()?), (Kind::Write, 2, Ok(100)));
    check_region(&region, 0, 100, seed)?;
    drop(rig.b.next()?);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn fence_does_not_wait_for_other_peers(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let other = End::new(info, None)?;
    let to_other = rig.a.av.insert(&other.ep.name())?;
    let (region, remote) = rig.region(100, Access::WRITE)?;
    rig.a
        .ep
        .send(pattern(8, seed)?, to_other, Options::NONE, 1)?;
    let slice = remote.slice(0, 100)?;
    rig.a
        .ep
        .write(pattern(100, seed)?, rig.to_b, slice, FENCE, 2)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Write, 2, Ok(100)));
    other.ep.recv(Memory::zeroed(8)?, 3)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Send, 1, Ok(8)));
    drop(other.next()?);
    drop(closed(region.close_wait(timeout()))?);
    other.close()?;
    rig.close()
}

fn what_follows_a_fence_waits_behind_it(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    rig.a
        .ep
        .send(pattern(8, seed)?, rig.to_b, Options::NONE, 1)?;
    rig.a.ep.send(Buffer::empty(), rig.to_b, FENCE, 2)?;
    let slice = remote.slice(0, 100)?;
    rig.a
        .ep
        .write(pattern(100, seed)?, rig.to_b, slice, Options::NONE, 3)?;
    fsleep(Delta::from_millis(20));
    check_filled(&region, 0)?;
    rig.b.recv(Memory::zeroed(8)?, 4)?;
    rig.b.recv(Buffer::empty(), 5)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Send, 1, Ok(8)));
    // The fenced one and what waited behind it, in any order.
    let (one, two) = (rig.a.next()?, rig.a.next()?);
    check_eq!(one.context + two.context, 5);
    check_eq!((error(&one), error(&two)), (None, None));
    check_region(&region, 0, 100, seed)?;
    check_eq!(ended(&rig.b.next()?), (Kind::Recv, 4, Ok(8)));
    check_eq!(ended(&rig.b.next()?), (Kind::Recv, 5, Ok(0)));
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn fence_with_nothing_before_it_goes_at_once(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    for n in 0..100 {
        rig.written(pattern(100, seed + n)?, remote.slice(0, 100)?, FENCE)?;
        check_region(&region, 0, 100, seed + n)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn fenced_writes_take_effect_one_after_another(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100_000, Access::READ_WRITE)?;
    for n in 0..20 {
        // A long one is for a worker, a short one is done in the post.
        for (len, context) in [(100_000, 1), (50, 2), (100_000, 3), (70, 4)] {
            let slice = remote.slice(0, len as u64)?;
            let bytes = pattern(len, seed + n + context)?;
            rig.a.ep.write(bytes, rig.to_b, slice, FENCE, context)?;
        }
        for context in 1..5 {
            let done = rig.a.next()?;
            check_eq!((done.context, error(&done)), (context, None));
        }
        check_region(&region, 0, 70, seed + n + 4)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn fence_waits_for_durability(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let device = pmem()?;
    let (region, remote) = rig.persistent(&device, 0, 4096)?;
    let slice = remote.slice(0, 100)?;
    for n in 0..20 {
        let durable = level(Level::Committed);
        rig.a
            .ep
            .write(pattern(100, seed + n)?, rig.to_b, slice, durable, 1)?;
        rig.a.ep.send(Buffer::empty(), rig.to_b, FENCE, 2)?;
        rig.b.recv(Buffer::empty(), 3)?;
        // The message says that the write is durable.
        drop(rig.b.next()?);
        let done = rig.a.next()?;
        check_eq!(
            done.result.map(|success| success.level),
            Ok(Level::Committed)
        );
        check_eq!(ended(&rig.a.next()?), (Kind::Send, 2, Ok(0)));
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn cancelled_fence_lets_the_others_go(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    let slice = remote.slice(0, 100)?;
    rig.a.ep.send(Buffer::empty(), rig.to_b, Options::NONE, 1)?;
    let fenced = rig.a.ep.send(Buffer::empty(), rig.to_b, FENCE, 2)?;
    rig.a
        .ep
        .write(pattern(100, seed)?, rig.to_b, slice, Options::NONE, 3)?;
    rig.quiet()?;
    rig.a.ep.cancel(fenced)?;
    check_eq!(rig.a.ep.cancel(fenced), Err(ENOENT));
    // It no longer stands before the write.
    let mut cancelled = 0;
    for _ in 0..2 {
        let done = rig.a.next()?;
        match done.context {
            2 => {
                cancelled += 1;
                drop(check_not_executed(done, ECANCELED)?);
            }
            _ => check_eq!(ended(&done), (Kind::Write, 3, Ok(100))),
        }
    }
    check_eq!(cancelled, 1);
    check_region(&region, 0, 100, seed)?;
    rig.b.recv(Buffer::empty(), 4)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Send, 1, Ok(0)));
    drop(rig.b.next()?);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn close_ends_what_waits_at_a_fence(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    let slice = remote.slice(0, 100)?;
    rig.a.ep.send(Buffer::empty(), rig.to_b, Options::NONE, 1)?;
    rig.a
        .ep
        .write(pattern(100, seed)?, rig.to_b, slice, FENCE, 2)?;
    rig.a
        .ep
        .write(pattern(100, seed)?, rig.to_b, slice, Options::NONE, 3)?;
    let (ep, base) = rig.a.split();
    closed(ep.close())?;
    let mut seen = 0;
    while let Some(done) = base.cq.read() {
        seen |= 1 << done.context;
        drop(check_not_executed(done, ECANCELED)?);
    }
    check_eq!(seen, 0b1110);
    check_filled(&region, 0)?;
    drop(closed(region.close_wait(timeout()))?);
    base.close()?;
    rig.b.close()
}

fn failure_before_a_fence_lets_it_go(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    let (gone, nowhere) = rig.region(100_000, Access::READ_WRITE)?;
    drop(closed(gone.close())?);
    let (slice, nowhere) = (remote.slice(0, 100)?, nowhere.slice(0, 100_000)?);
    for n in 0..20 {
        rig.a.ep.write(
            Memory::zeroed(100_000)?,
            rig.to_b,
            nowhere,
            Options::NONE,
            1,
        )?;
        rig.a
            .ep
            .write(pattern(100, seed + n)?, rig.to_b, slice, FENCE, 2)?;
        let done = rig.a.next()?;
        check_eq!((done.context, error(&done)), (1, Some(EKEYREJECTED)));
        check_eq!(ended(&rig.a.next()?), (Kind::Write, 2, Ok(100)));
        check_region(&region, 0, 100, seed + n)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn slots_are_used_up_by_what_waits_too(info: &Info, _seed: u64) -> Result {
    let rig = Rig::sized(info, 4)?;
    rig.a.ep.send(Buffer::empty(), rig.to_b, Options::NONE, 0)?;
    for context in 1..4 {
        rig.a.ep.send(Buffer::empty(), rig.to_b, FENCE, context)?;
    }
    let posted = rig.a.ep.send(Buffer::empty(), rig.to_b, FENCE, 9);
    drop(check_refused(posted, EAGAIN, 9)?);
    for context in 0..4 {
        rig.b.recv(Buffer::empty(), context)?;
        check_eq!(ended(&rig.a.next()?), (Kind::Send, context, Ok(0)));
        check_eq!(ended(&rig.b.next()?), (Kind::Recv, context, Ok(0)));
    }
    rig.quiet()?;
    rig.close()
}
