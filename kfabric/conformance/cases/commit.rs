// SPDX-License-Identifier: GPL-2.0

//! Durability: writes at level committed, commits of a range, and what refuses them.
//!
//! That committed bytes survive a power cut is shown by kfi_powercut; here is what a consumer sees.

use crate::close::closed;
use crate::forge::Forgery;
use crate::ops::{
    check_filled, check_filled_at, check_not_executed, check_refused, fill, level, pmem, reached,
};
use crate::rig::{check_buffer, check_region, pattern, timeout, Rig, DEPTH};
use crate::rng::Rng;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    write_completes_at_the_level_that_was_asked_for [connected]: Caps::COMMIT,
    commit_of_a_range_completes_committed [connected]: Caps::COMMIT,
    commit_takes_any_offset_length_and_alignment [connected]: Caps::COMMIT,
    commit_may_be_longer_than_a_message [connected]: Caps::COMMIT,
    many_commits_in_flight_complete_once_each [connected]: Caps::COMMIT,
    commit_of_a_volatile_region_is_refused_at_post [connected]: Caps::COMMIT,
    commit_of_a_volatile_region_is_refused_by_the_target [connected]: Caps::COMMIT,
    commit_beyond_the_region_is_refused_by_the_target [connected]: Caps::COMMIT,
    commit_without_the_right_to_write_is_refused [connected]: Caps::COMMIT,
    data_of_a_committed_write_comes_after_durability [connected]: Caps::COMMIT,
    persistent_region_says_so_to_its_peers [connected]: Caps::COMMIT,
    owner_commits_its_own_region [connected]: Caps::COMMIT,
    committed_bytes_are_there_when_the_device_is_opened_again [connected]: Caps::COMMIT,
    overlapping_persistent_regions_share_their_bytes [connected]: Caps::COMMIT,
    persistent_device_has_one_user: Caps::COMMIT,
    persistent_memory_lies_within_its_device: Caps::COMMIT,
}

/// The data of a write.
const DATA: u64 = 0xfeed_face_dead_beef;

fn write_completes_at_the_level_that_was_asked_for(info: &Info, seed: u64) -> Result {
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.persistent(&device, 4096, 100_000)?;
    for wanted in [Level::Transmit, Level::Delivered, Level::Committed] {
        for (offset, len) in [(0, 1), (63, 2), (4095, 4098), (5, 90_000)] {
            fill(&region, 0)?;
            let slice = remote.slice(offset as u64, len as u64)?;
            let done = rig.write(pattern(len, seed)?, slice, level(wanted))?;
            check_eq!(done.result.map(|success| success.len), Ok(len));
            check!(done.result.is_ok_and(|success| success.level >= wanted));
            if wanted >= Level::Delivered {
                check_filled_at(&region, 0, offset, 0)?;
                check_region(&region, offset, len, seed)?;
                check_filled_at(&region, offset + len, 100_000 - offset - len, 0)?;
            }
        }
    }
    drop(region);
    rig.close()
}

fn commit_of_a_range_completes_committed(info: &Info, seed: u64) -> Result {
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.persistent(&device, 0, 10_000)?;
    let all = remote.slice(0, 10_000)?;
    rig.written(pattern(10_000, seed)?, all, level(Level::Delivered))?;
    let done = rig.commit(remote.slice(100, 5000)?)?;
    check_eq!(done.result.map(|success| success.len), Ok(5000));
    check_eq!(
        done.result.map(|success| success.level),
        Ok(Level::Committed)
    );
    check_eq!(done.result.map(|success| success.data), Ok(None));
    check!(done.buffer.is_empty());
    // A commit changes no byte.
    check_region(&region, 0, 10_000, seed)?;
    drop(region);
    rig.close()
}

fn commit_takes_any_offset_length_and_alignment(info: &Info, seed: u64) -> Result {
    const SIZE: usize = 70_000;
    let device = pmem()?;
    let rig = Rig::new(info)?;
    // The region itself begins in the middle of a line.
    let (region, remote) = rig.persistent(&device, 12_345, SIZE)?;
    let mut ranges = KVec::new();
    for edge in [0, 1, 8, 63, 64, 65, 4095, 4096, 4097, SIZE - 1, SIZE] {
        for len in [0, 1, 7, 63, 64, 65, 4096, 4097] {
            if edge + len <= SIZE {
                ranges.push((edge, len), GFP_KERNEL)?;
            }
        }
    }
    ranges.push((0, SIZE), GFP_KERNEL)?;
    let mut rng = Rng::new(seed);
    for _ in 0..30 {
        let offset = rng.below(SIZE);
        ranges.push((offset, rng.below(SIZE - offset)), GFP_KERNEL)?;
    }
    for &(offset, len) in &ranges {
        let slice = remote.slice(offset as u64, len as u64)?;
        let done = rig.commit(slice)?;
        check_eq!(reached(&done), Ok((len, Level::Committed)));
        let done = rig.write(pattern(len, seed)?, slice, level(Level::Committed))?;
        check_eq!(reached(&done), Ok((len, Level::Committed)));
        check_region(&region, offset, len, seed)?;
    }
    drop(region);
    rig.close()
}

fn commit_may_be_longer_than_a_message(info: &Info, seed: u64) -> Result {
    const SIZE: usize = 3 << 20;
    let device = pmem()?;
    let mut info = *info;
    info.limits.max_msg_size = 4096;
    let rig = Rig::new(&info)?;
    let (region, remote) = rig.persistent(&device, 1, SIZE)?;
    for at in [0, 4096, SIZE - 4096] {
        let slice = remote.slice(at as u64, 4096)?;
        rig.written(pattern(4096, seed)?, slice, level(Level::Delivered))?;
    }
    let done = rig.commit(remote.slice(0, SIZE as u64)?)?;
    check_eq!(reached(&done), Ok((SIZE, Level::Committed)));
    for at in [0, 4096, SIZE - 4096] {
        check_region(&region, at, 4096, seed)?;
    }
    drop(region);
    rig.close()
}

fn many_commits_in_flight_complete_once_each(info: &Info, seed: u64) -> Result {
    const LEN: usize = 200;
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.persistent(&device, 0, DEPTH * LEN)?;
    for n in 0..DEPTH {
        let slice = remote.slice((n * LEN) as u64, LEN as u64)?;
        if n % 3 == 0 {
            rig.a
                .ep
                .commit(rig.to_b, slice, Options::default(), n as u64)?;
        } else {
            let memory = pattern(LEN, seed + n as u64)?;
            rig.a
                .ep
                .write(memory, rig.to_b, slice, level(Level::Committed), n as u64)?;
        }
    }
    let mut seen = [0; DEPTH];
    for _ in 0..DEPTH {
        let done = rig.a.next()?;
        check_eq!(reached(&done), Ok((LEN, Level::Committed)));
        let n = done.context as usize;
        *seen.get_mut(n).ok_or(EINVAL)? += 1;
        if n % 3 == 0 {
            check_eq!(done.kind, Kind::Commit);
        } else {
            check_eq!(done.kind, Kind::Write);
            check_region(&region, n * LEN, LEN, seed + n as u64)?;
        }
    }
    check!(seen.iter().all(|times| *times == 1));
    check!(rig.a.cq.read().is_none());
    drop(region);
    rig.close()
}

fn commit_of_a_volatile_region_is_refused_at_post(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::READ_WRITE)?;
    let slice = remote.slice(0, 64)?;
    check!(!slice.is_persistent());
    let local = pattern(64, seed)?;
    let posted = rig
        .a
        .ep
        .write(local, rig.to_b, slice, level(Level::Committed), 1);
    check_buffer(check_refused(posted, EOPNOTSUPP, 1)?, 64, seed)?;
    check_refused(
        rig.a.ep.commit(rig.to_b, slice, Options::default(), 2),
        EOPNOTSUPP,
        2,
    )?;
    check!(rig.a.cq.read().is_none());
    check_filled(&region, 0)?;
    drop(region);
    rig.close()
}

fn commit_of_a_volatile_region_is_refused_by_the_target(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, _) = rig.region(40_000, Access::READ_WRITE)?;
    let remote = Forgery::of(&region)?.persistent().remote()?;
    for len in [1, 64, 40_000] {
        let slice = remote.slice(0, len as u64)?;
        let done = rig.write(pattern(len, seed)?, slice, level(Level::Committed))?;
        check_buffer(check_not_executed(done, EOPNOTSUPP)?, len, seed)?;
        check_not_executed(rig.commit(slice)?, EOPNOTSUPP)?;
    }
    check_filled(&region, 0)?;
    drop(region);
    rig.close()
}

fn commit_beyond_the_region_is_refused_by_the_target(info: &Info, seed: u64) -> Result {
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let (region, _) = rig.persistent(&device, 4096, 1000)?;
    let (beside, _) = rig.persistent(&device, 5096, 1000)?;
    fill(&region, 0)?;
    fill(&beside, 0)?;
    let remote = Forgery::of(&region)?.len(u64::MAX).remote()?;
    for (offset, len) in [(0, 1001), (999, 2), (1000, 1), (1001, 0), (1 << 40, 8)] {
        let slice = remote.slice(offset, len)?;
        check_not_executed(rig.commit(slice)?, ERANGE)?;
        let local = pattern(len as usize, seed)?;
        let done = rig.write(local, slice, level(Level::Committed))?;
        check_buffer(check_not_executed(done, ERANGE)?, len as usize, seed)?;
    }
    // No sum of offset and length comes round again.
    check_not_executed(rig.commit(remote.slice(8, u64::MAX - 8)?)?, ERANGE)?;
    check_filled(&region, 0)?;
    check_filled(&beside, 0)?;
    drop((region, beside));
    rig.close()
}

fn commit_without_the_right_to_write_is_refused(info: &Info, _seed: u64) -> Result {
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let region = rig.b.register_persistent(&device, 0, 4096, Access::READ)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    check_refused(
        rig.a
            .ep
            .commit(rig.to_b, remote.slice(0, 64)?, Options::default(), 1),
        EACCES,
        1,
    )?;
    let forged = Forgery::of(&region)?.access(Access::READ_WRITE).remote()?;
    check_not_executed(rig.commit(forged.slice(0, 64)?)?, EACCES)?;
    drop(region);
    rig.close()
}

fn data_of_a_committed_write_comes_after_durability(info: &Info, seed: u64) -> Result {
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.persistent(&device, 0, 100_000)?;
    let options = Options {
        level: Level::Committed,
        data: Some(DATA),
        ..Options::default()
    };
    for len in [0, 1, 100, 16_385, 100_000] {
        fill(&region, 0)?;
        rig.b.recv(Buffer::empty(), 7)?;
        let slice = remote.slice(0, len as u64)?;
        rig.a
            .ep
            .write(pattern(len, seed)?, rig.to_b, slice, options, 8)?;
        let told = rig.b.next()?;
        check_eq!(told.kind, Kind::RemoteWrite);
        check_eq!(told.context, 7);
        check_eq!(
            told.result.map(|success| (success.data, success.level)),
            Ok((Some(DATA), Level::Committed))
        );
        check_region(&region, 0, len, seed)?;
        let done = rig.a.next()?;
        check_eq!(reached(&done), Ok((len, Level::Committed)));
    }
    drop(region);
    rig.close()
}

fn persistent_region_says_so_to_its_peers(info: &Info, _seed: u64) -> Result {
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.persistent(&device, 1, 99)?;
    check!(region.is_persistent());
    check_eq!((region.len(), remote.len()), (99, 99));
    check_eq!(remote.access(), Access::READ_WRITE);
    check!(remote.slice(0, 1)?.is_persistent());
    let persistence = remote.persistence().ok_or(EINVAL)?;
    check_eq!(persistence.commit(), 1);
    check!(persistence.tear() >= 8 && persistence.line() >= persistence.tear());

    let (ordinary, remote) = rig.region(99, Access::READ_WRITE)?;
    check!(!ordinary.is_persistent());
    check!(remote.persistence().is_none());
    check!(!remote.slice(0, 1)?.is_persistent());
    drop((region, ordinary));
    rig.close()
}

fn owner_commits_its_own_region(info: &Info, seed: u64) -> Result {
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let (region, _) = rig.persistent(&device, 77, 10_000)?;
    let bytes = pattern(10_000, seed)?;
    region.write_at(0, bytes.as_slice().ok_or(EINVAL)?)?;
    for (offset, len) in [(0, 10_000), (0, 0), (1, 1), (9_999, 1), (10_000, 0)] {
        region.commit(offset, len)?;
    }
    for (offset, len) in [(0, 10_001), (10_000, 1), (10_001, 0), (usize::MAX, 2)] {
        check_eq!(region.commit(offset, len), Err(EINVAL));
    }
    check_region(&region, 0, 10_000, seed)?;
    let (ordinary, _) = rig.region(64, Access::NONE | Access::WRITE)?;
    check_eq!(ordinary.commit(0, 64), Err(EOPNOTSUPP));
    drop((region, ordinary));
    rig.close()
}

fn committed_bytes_are_there_when_the_device_is_opened_again(info: &Info, seed: u64) -> Result {
    const OFFSET: u64 = 1_000_001;
    let rig = Rig::new(info)?;
    let device = pmem()?;
    let (region, remote) = rig.persistent(&device, OFFSET, 50_000)?;
    let all = remote.slice(0, 50_000)?;
    rig.written(pattern(50_000, seed)?, all, level(Level::Committed))?;
    drop(closed(region.close_wait(timeout()))?);
    drop(device);

    let device = pmem()?;
    let memory = Memory::persistent(&device, OFFSET, 50_000)?;
    check!(memory.as_slice().is_none());
    let region = rig.b.register(memory, Access::READ)?;
    check_region(&region, 0, 50_000, seed)?;
    drop(region);
    rig.close()
}

fn overlapping_persistent_regions_share_their_bytes(info: &Info, seed: u64) -> Result {
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let (one, _) = rig.persistent(&device, 0, 10_000)?;
    let (other, remote) = rig.persistent(&device, 5_000, 10_000)?;
    fill(&one, 0)?;
    let slice = remote.slice(0, 10_000)?;
    rig.written(pattern(10_000, seed)?, slice, level(Level::Committed))?;
    check_filled_at(&one, 0, 5_000, 0)?;
    check_region(&one, 5_000, 5_000, seed)?;
    check_region(&other, 0, 10_000, seed)?;
    // The memory of one comes back while the other is in use.
    drop(closed(one.close())?);
    check_region(&other, 0, 10_000, seed)?;
    drop(other);
    rig.close()
}

fn persistent_device_has_one_user(_info: &Info, _seed: u64) -> Result {
    let device = pmem()?;
    check_eq!(pmem().err(), Some(EBUSY));
    let memory = Memory::persistent(&device, 0, 64)?;
    drop(device);
    // The memory is a use of it, too.
    check_eq!(pmem().err(), Some(EBUSY));
    drop(memory);
    drop(pmem()?);
    check_eq!(Pmem::open(c"/dev/no-such-device").err(), Some(ENOENT));
    check_eq!(Pmem::open(c"/dev/null").err(), Some(ENOTBLK));
    Ok(())
}

fn persistent_memory_lies_within_its_device(_info: &Info, _seed: u64) -> Result {
    let device = pmem()?;
    let size = device.len();
    check!(size > 0 && !device.is_empty() && !device.is_gone());
    for (offset, len) in [
        (size, 1),
        (size - 1, 2),
        (u64::MAX, 1),
        (u64::MAX, 2),
        (0, 0),
        (5, 0),
    ] {
        check_eq!(Memory::persistent(&device, offset, len).err(), Some(EINVAL));
    }
    let last = Memory::persistent(&device, size - 1, 1)?;
    check_eq!((last.len(), last.is_persistent()), (1, true));
    Ok(())
}
