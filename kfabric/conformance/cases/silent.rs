// SPDX-License-Identifier: GPL-2.0

//! Operations that leave no completion if they go well.

use crate::close::closed;
use crate::ops::{check_not_executed, check_refused};
use crate::rig::{
    byte, check_buffer, check_region, count, ended, pattern, placed, register, timeout, until,
    with_sizes, Counted, Rig, DEPTH,
};
use crate::{cases, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::Acquire;
use kfabric::prelude::*;

cases! {
    silent_write_takes_effect_without_a_completion [connected]: Caps::RMA,
    silent_message_arrives_without_a_completion [connected]: Caps::MSG,
    silent_operation_that_fails_is_told [connected]: Caps::RMA,
    silent_operation_with_owned_memory_is_refused [connected]: Caps::RMA.union(Caps::MSG),
    silent_operations_give_their_slots_back [connected]: Caps::RMA,
    context_of_a_silent_operation_is_dropped: Caps::RMA,
    region_lent_to_a_silent_operation_comes_back [connected]: Caps::RMA,
    region_may_be_dropped_under_a_silent_message [connected]: Caps::MSG,
}

const SILENT: Options = Options {
    level: Level::Delivered,
    data: None,
    fence: false,
    silent: true,
    more: false,
};

/// Lengths that are copied in a post, and by a worker.
const LENGTHS: [usize; 3] = [0, 100, 200_000];

fn silent_write_takes_effect_without_a_completion(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(200_000, Access::READ_WRITE)?;
    let local = register(&rig.a.domain, pattern(200_000, seed)?, Access::NONE)?;
    for len in LENGTHS {
        let (from, to) = (local.slice(0, len)?, remote.slice(0, len as u64)?);
        rig.a.ep.write(from, rig.to_b, to, SILENT, 1)?;
        placed(&region, len, seed)?;
    }
    rig.quiet()?;
    // The slices, and what the target holds, have gone with their operations.
    let (ep, base) = rig.a.split();
    closed(ep.close())?;
    check_eq!(base.cq.read().is_none(), true);
    drop(closed(local.close())?);
    drop(closed(region.close_wait(timeout()))?);
    base.close()?;
    rig.b.close()
}

fn silent_message_arrives_without_a_completion(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let local = register(&rig.a.domain, pattern(200_000, seed)?, Access::NONE)?;
    for len in LENGTHS {
        rig.b.recv(Memory::zeroed(len)?, 1)?;
        rig.a.ep.send(local.slice(0, len)?, rig.to_b, SILENT, 2)?;
        let received = rig.b.next()?;
        check_eq!(ended(&received), (Kind::Recv, 1, Ok(len)));
        check_buffer(received.buffer, len, seed)?;
    }
    let (ep, base) = rig.a.split();
    closed(ep.close())?;
    check_eq!(base.cq.read().is_none(), true);
    drop(closed(local.close())?);
    base.close()?;
    rig.b.close()
}

fn silent_operation_that_fails_is_told(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    drop(closed(region.close_wait(timeout()))?);
    rig.a
        .ep
        .write(Buffer::empty(), rig.to_b, remote.slice(0, 0)?, SILENT, 5)?;
    let done = rig.a.next()?;
    check_eq!((done.kind, done.context), (Kind::Write, 5));
    drop(check_not_executed(done, EKEYREJECTED)?);
    rig.close()
}

fn silent_operation_with_owned_memory_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    let slice = remote.slice(0, 100)?;
    let posted = rig
        .a
        .ep
        .write(pattern(100, seed)?, rig.to_b, slice, SILENT, 1);
    check_buffer(check_refused(posted, EINVAL, 1)?, 100, seed)?;
    let posted = rig
        .a
        .ep
        .read(pattern(100, seed)?, rig.to_b, slice, SILENT, 2);
    check_buffer(check_refused(posted, EINVAL, 2)?, 100, seed)?;
    let posted = rig.a.ep.send(pattern(100, seed)?, rig.to_b, SILENT, 3);
    check_buffer(check_refused(posted, EINVAL, 3)?, 100, seed)?;
    rig.quiet()?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn silent_operations_give_their_slots_back(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    let local = register(&rig.a.domain, Memory::zeroed(100)?, Access::NONE)?;
    // Nobody reads the queue.
    for n in 0..10 * DEPTH as u64 {
        until(|| {
            let (Ok(from), Ok(to)) = (local.slice(0, 100), remote.slice(0, 100)) else {
                return false;
            };
            rig.a.ep.write(from, rig.to_b, to, SILENT, n).is_ok()
        })?;
    }
    rig.quiet()?;
    // The last ones may be under way: the close ends them.
    let (ep, base) = rig.a.split();
    closed(ep.close())?;
    drop(closed(local.close())?);
    drop(closed(region.close_wait(timeout()))?);
    base.close()?;
    rig.b.close()
}

fn context_of_a_silent_operation_is_dropped(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    let contexts = count()?;
    let cq = CompletionQueue::<Counted>::new(&rig.a.domain, 8, None)?;
    let ep = rig.a.endpoint(&with_sizes(info, 4, 4), &cq)?;
    for _ in 0..10 {
        let slice = remote.slice(0, 0)?;
        let context = Counted::new(&contexts);
        let posted = ep.write(Buffer::empty(), rig.to_b, slice, SILENT, context);
        posted.map_err(|refused| refused.error)?;
        until(|| contexts.load(Acquire) == 0)?;
    }
    check_eq!(cq.read().is_none(), true);
    closed(ep.close())?;
    closed(cq.close())?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn region_lent_to_a_silent_operation_comes_back(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(200_000, Access::READ_WRITE)?;
    let local = register(&rig.a.domain, pattern(200_000, seed)?, Access::NONE)?;
    let (from, to) = (local.slice(0, 200_000)?, remote.slice(0, 200_000)?);
    rig.a.ep.write(from, rig.to_b, to, SILENT, 1)?;
    // EBUSY until the operation has let go of it.
    let memory = closed(local.close_wait(timeout()))?;
    check_eq!(memory.len(), 200_000);
    check_region(&region, 0, 200_000, seed)?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn region_may_be_dropped_under_a_silent_message(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    // Longer than kmalloc() has: so it is of vmalloc(), which must not be freed in a post.
    const LONG: usize = 8 << 20;
    for len in LENGTHS {
        let mut whole = KVVec::zeroed(LONG, GFP_KERNEL)?;
        for (at, to) in whole[..len].iter_mut().enumerate() {
            *to = byte(at, seed);
        }
        let mut vecs = KVec::new();
        vecs.push(KVVec::from_elem(byte(0, seed), 1, GFP_KERNEL)?, GFP_KERNEL)?;
        vecs.push(KVVec::zeroed(LONG, GFP_KERNEL)?, GFP_KERNEL)?;
        let pieces = Memory::from_vecs(vecs).map_err(|(error, _)| error)?;
        for (memory, len) in [(Memory::from_vec(whole), len), (pieces, len.min(1))] {
            let region = register(&rig.a.domain, memory, Access::NONE)?;
            rig.a.ep.send(region.slice(0, len)?, rig.to_b, SILENT, 2)?;
            // The message, which waits for a receive, has the last use of it, and gives that up in
            // the post of the receive.
            drop(region);
            rig.b.recv(Memory::zeroed(len)?, 1)?;
            let received = rig.b.next()?;
            check_eq!(ended(&received), (Kind::Recv, 1, Ok(len)));
            check_buffer(received.buffer, len, seed)?;
        }
    }
    rig.quiet()?;
    rig.close()
}
