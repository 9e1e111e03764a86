// SPDX-License-Identifier: GPL-2.0

//! Hints at registration: what is stored in an uncached region is what was sent, and nothing else.
//!
//! That it goes around the cache is shown by kfi_powercut; here is what a consumer sees.

use crate::close::{closed, given_back};
use crate::ops::{check_filled_at, fill, level, pmem, reached};
use crate::peer::Region;
use crate::rig::{byte, check_buffer, check_region, ended, pattern, timeout, Rig, DEPTH};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    uncached_region_tells_that_it_is: Caps::UNCACHED,
    uncached_region_without_bytes_or_alignment_is_refused: Caps::UNCACHED.union(Caps::ATOMIC),
    uncached_region_takes_writes_and_gives_reads: Caps::UNCACHED.union(Caps::RMA),
    uncached_region_takes_messages: Caps::UNCACHED.union(Caps::MSG),
    uncached_region_takes_atomics: Caps::UNCACHED.union(Caps::ATOMIC),
    uncached_region_copies_onto_itself: Caps::UNCACHED.union(Caps::RMA),
    uncached_persistent_region_is_committed: Caps::UNCACHED.union(Caps::RMA).union(Caps::COMMIT),
    uncached_region_is_closed_under_load: Caps::UNCACHED.union(Caps::RMA).union(Caps::COMMIT),
    writes_to_an_uncached_region_end_with_either_endpoint:
        Caps::UNCACHED.union(Caps::RMA).union(Caps::COMMIT),
}

/// Uncached, for peers with `access`.
fn uncached(access: Access) -> RegionAttributes {
    RegionAttributes {
        access,
        uncached: true,
        ..RegionAttributes::default()
    }
}

/// Registers memory as uncached at B, and tells A.
fn uncached_at(rig: &Rig, memory: Memory) -> Result<(Region, RemoteRegion)> {
    let region = rig.b.register(memory, uncached(Access::ALL))?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    Ok((region, remote))
}

fn uncached_region_tells_that_it_is(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, _) = uncached_at(&rig, Memory::zeroed(64)?)?;
    check!(region.is_uncached());
    let memory = closed(region.close_wait(timeout()))?;
    // The hint was the region's: the memory has none.
    let region = rig.b.register(memory, Access::READ)?;
    check!(!region.is_uncached());
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn uncached_region_without_bytes_or_alignment_is_refused(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let refused = rig
        .b
        .here()?
        .domain
        .register(Memory::zeroed(0)?, uncached(Access::READ));
    check!(given_back(refused, EINVAL)?.is_empty());
    let mut vecs = KVec::new();
    for len in [4, 12] {
        vecs.push(KVVec::zeroed(len, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    let refused = rig
        .b
        .here()?
        .domain
        .register(closed(Memory::from_vecs(vecs))?, uncached(Access::ALL));
    check_eq!(given_back(refused, EINVAL)?.len(), 16);
    rig.close()
}

/// Around the borders of words and lines, in the post and by a worker, whole or injected.
fn uncached_region_takes_writes_and_gives_reads(info: &Info, seed: u64) -> Result {
    const LEN: usize = 100_000;
    let rig = Rig::new(info)?;
    let (region, remote) = uncached_at(&rig, Memory::zeroed(LEN)?)?;
    for offset in [0, 1, 3, 4, 7, 8, 63, 64, 4095] {
        for len in [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 31, 33, 64, 65, 4097, 50_000] {
            fill(&region, 0xee)?;
            let slice = remote.slice(offset as u64, len as u64)?;
            rig.written(pattern(len, seed)?, slice, Options::NONE)?;
            check_filled_at(&region, 0, offset, 0xee)?;
            check_region(&region, offset, len, seed)?;
            check_filled_at(&region, offset + len, (LEN - offset - len).min(200), 0xee)?;
            let done = rig.read(Memory::zeroed(len)?, slice)?;
            crate::rig::check_buffer(done.buffer, len, seed)?;
        }
    }
    let bytes = pattern(21, !seed)?;
    let bytes = bytes.as_slice().ok_or(EINVAL)?;
    let slice = remote.slice(5, 21)?;
    rig.a
        .ep
        .inject_write(bytes, rig.to_b, slice, Options::NONE, 1)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Write, 1, Ok(21)));
    check_region(&region, 5, 21, !seed)?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn uncached_region_takes_messages(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, _) = uncached_at(&rig, Memory::zeroed(60_000)?)?;
    for (offset, len) in [(0, 0), (1, 1), (7, 100), (64, 4096), (3, 50_000)] {
        fill(&region, 0)?;
        rig.b.recv(region.slice(offset, len)?, 1)?;
        rig.a
            .ep
            .send(pattern(len, seed)?, rig.to_b, Options::NONE, 2)?;
        rig.passed(1, 2, Ok(len))?;
        check_region(&region, offset, len, seed)?;
        check_filled_at(&region, offset + len, 100, 0)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn uncached_region_takes_atomics(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = uncached_at(&rig, Memory::zeroed(64)?)?;
    let sum = AtomicAction::update(AtomicOp::Sum, Datatype::U64);
    for n in 1..=8u64 {
        let mut local = Memory::zeroed(64)?;
        for word in local.as_mut_slice().ok_or(EINVAL)?.chunks_mut(8) {
            word.copy_from_slice(&n.to_ne_bytes());
        }
        let slice = remote.slice(0, 64)?;
        rig.a
            .ep
            .atomic(local, rig.to_b, slice, sum, Options::NONE, 1)?;
        check_eq!(ended(&rig.a.next()?), (Kind::Atomic, 1, Ok(64)));
    }
    region.store_u64(8, 7)?;
    check_eq!(region.atomic(8, sum, 1, 0)?, 7);
    for word in 0..8 {
        let expected = if word == 1 { 8 } else { 36 };
        check_eq!(region.load_u64(word * 8)?, expected);
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// Overlapping, either way.
fn uncached_region_copies_onto_itself(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = uncached_at(&rig, Memory::zeroed(5000)?)?;
    let bytes = pattern(4000, seed)?;
    for (from, to) in [(0, 1), (1, 0), (0, 100), (100, 0), (3, 3), (999, 8)] {
        region.write_at(from, bytes.as_slice().ok_or(EINVAL)?)?;
        // A's own domain does not have the region: B writes to itself.
        let to_itself = rig.b.insert(&rig.b.name())?;
        let (local, slice) = (region.slice(from, 4000)?, remote.slice(to, 4000)?);
        rig.b
            .here()?
            .ep
            .write(local, to_itself, slice, Options::NONE, 1)?;
        check_eq!(ended(&rig.b.next()?), (Kind::Write, 1, Ok(4000)));
        check_region(&region, to as usize, 4000, seed)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn uncached_persistent_region_is_committed(info: &Info, seed: u64) -> Result {
    const LEN: usize = 30_000;
    let rig = Rig::new(info)?;
    let device = pmem()?;
    let access = uncached(Access::ALL);
    let region = rig.b.register_persistent(&device, 8, LEN, access)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    check!(region.is_persistent() && region.is_uncached());
    for (offset, len) in [(0, 0), (0, LEN), (1, 1), (63, 20_000)] {
        fill(&region, 0)?;
        let slice = remote.slice(offset as u64, len as u64)?;
        let done = rig.write(pattern(len, seed)?, slice, level(Level::Committed))?;
        check_eq!(reached(&done), Ok((len, Level::Committed)));
        check_region(&region, offset, len, seed)?;
        let done = rig.commit(slice)?;
        check_eq!(reached(&done), Ok((len, Level::Committed)));
        check_eq!(region.commit(offset, len), Ok(()));
    }
    check_eq!(region.commit(0, LEN + 1), Err(EINVAL));
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// How many bytes each write is long: longer than what is done in a post, or in one frame.
const LONG: usize = 150_000;

/// Posts as many writes as may be in flight to an uncached persistent region at B, every other of them committed.
fn write_to_uncached(rig: &Rig, seed: u64) -> Result<Region> {
    let access = uncached(Access::ALL);
    let region = rig.b.register_persistent(&pmem()?, 4104, LONG, access)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    let slice = remote.slice(0, LONG as u64)?;
    region.write_at(LONG - 1, &[!byte(LONG - 1, seed)])?;
    // To make them takes longer than to write them.
    let mut buffers = KVec::new();
    for _ in 0..DEPTH {
        buffers.push(pattern(LONG, seed)?, GFP_KERNEL)?;
    }
    for (context, bytes) in (0..).zip(buffers) {
        let options = match context % 2 {
            0 => level(Level::Committed),
            _ => Options::NONE,
        };
        rig.a.ep.write(bytes, rig.to_b, slice, options, context)?;
    }
    Ok(region)
}

fn uncached_region_is_closed_under_load(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let region = write_to_uncached(&rig, seed)?;
    // Some have been executed by then.
    rig.a.cq.wait(timeout())?;
    let memory = closed(region.close_wait(timeout()))?;
    let mut well = 0;
    for (n, done) in rig.a.gather(DEPTH)?.into_iter().enumerate() {
        check_eq!((done.kind, done.context), (Kind::Write, n as u64));
        match done.result {
            Ok(success) => {
                check_eq!(success.len, LONG);
                well += 1;
            }
            Err(failure) => check_eq!(failure.error, EKEYREJECTED),
        }
        check_buffer(done.buffer, LONG, seed)?;
    }
    check!(well > 0);
    pr_info!("# {well} of {DEPTH} writes were before the close\n");
    rig.quiet()?;
    // Each has the same bytes, and one at least was written in full.
    let mut last = [0];
    memory.read_at(LONG - 1, &mut last)?;
    check_eq!(last[0], byte(LONG - 1, seed));
    rig.close()
}

fn writes_to_an_uncached_region_end_with_either_endpoint(info: &Info, seed: u64) -> Result {
    for of_a in [true, false] {
        let rig = Rig::new(info)?;
        let region = write_to_uncached(&rig, seed)?;
        let mut well = false;
        let ended = |done: Completion<u64>| {
            check_eq!(done.kind, Kind::Write);
            well |= done.result.is_ok();
            check_buffer(done.buffer, LONG, seed)
        };
        let mut last = [0];
        let look = || {
            region.read_at(LONG - 1, &mut last)?;
            drop(closed(region.close_wait(timeout()))?);
            Ok(())
        };
        rig.ends_with_an_endpoint(of_a, DEPTH, ended, look)?;
        check!(!well || last[0] == byte(LONG - 1, seed));
    }
    Ok(())
}
