// SPDX-License-Identifier: GPL-2.0

//! Writes and reads of regions.

use crate::close::closed;
use crate::crew::Crew;
use crate::ops::{
    check_buffer_filled, check_filled, check_filled_at, check_refused, error, fill, level, reached,
    CONTEXT,
};
use crate::rig::{
    check_buffer, check_region, pattern, register, timeout, tries, End, Rig, A_FEW_LEFT, DEPTH,
};
use crate::rng::Rng;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

cases! {
    write_lands_where_it_was_aimed [connected]: Caps::WRITE,
    write_touches_no_byte_beside_it [connected]: Caps::WRITE,
    write_takes_any_part_of_its_buffer [connected]: Caps::WRITE,
    read_brings_what_is_there [connected]: Caps::READ,
    read_fills_its_part_of_the_buffer_and_no_other [connected]: Caps::READ,
    operation_without_bytes_completes [connected]: Caps::RMA,
    lengths_that_differ_are_refused_at_post [connected]: Caps::RMA,
    right_that_the_descriptor_lacks_is_refused_at_post [connected]: Caps::RMA,
    longest_operation_is_the_limit [connected]: Caps::RMA,
    unknown_address_is_refused_at_post: Caps::RMA,
    closed_peer_is_unreachable: Caps::RMA,
    close_under_the_writes_of_a_peer_is_not_refused: Caps::RMA,
    slices_of_regions_are_local_buffers [connected]: Caps::RMA,
    endpoint_reaches_its_own_regions: Caps::RMA,
    each_level_is_reached_or_passed [connected]: Caps::WRITE,
    every_write_in_flight_completes_once [connected]: Caps::WRITE,
    random_reads_see_random_writes [connected]: Caps::RMA,
}

/// Lengths around the limits that providers have: lines, pages, inline copies.
const LENGTHS: [usize; 11] = [
    1,
    7,
    64,
    65,
    4095,
    4097,
    16384,
    16385,
    65537,
    A_FEW_LEFT,
    1 << 20,
];

fn write_lands_where_it_was_aimed(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(1 << 20, Access::WRITE)?;
    for (offset, len) in [
        (0, 1),
        (1, 63),
        (4095, 2),
        (5, 16385),
        (100_000, 900_000),
        (777, A_FEW_LEFT),
        (1 << 20, 0),
    ] {
        let slice = remote.slice(offset as u64, len as u64)?;
        let done = rig.write(pattern(len, seed)?, slice, Options::default())?;
        check_eq!(reached(&done), Ok((len, Level::Delivered)));
        check_eq!(done.result.map(|success| success.data), Ok(None));
        check_buffer(done.buffer, len, seed)?;
        check_region(&region, offset, len, seed)?;
    }
    drop(region);
    rig.close()
}

fn write_touches_no_byte_beside_it(info: &Info, seed: u64) -> Result {
    const SIZE: usize = 40_000;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(SIZE, Access::WRITE)?;
    for (offset, len) in [
        (0, 1),
        (1, 1),
        (63, 2),
        (4096, 4096),
        (4095, 4098),
        (100, 16385),
        (SIZE - 1, 1),
    ] {
        fill(&region, 0xa5)?;
        let slice = remote.slice(offset as u64, len as u64)?;
        rig.written(pattern(len, seed)?, slice, Options::default())?;
        check_filled_at(&region, 0, offset, 0xa5)?;
        check_region(&region, offset, len, seed)?;
        check_filled_at(&region, offset + len, SIZE - offset - len, 0xa5)?;
    }
    drop(region);
    rig.close()
}

fn write_takes_any_part_of_its_buffer(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(40_000, Access::WRITE)?;
    for (skip, len) in [(0, 1), (1, 100), (7, 16385), (20_000, 20_000)] {
        let mut bytes = pattern(40_000, !seed)?;
        bytes.write_at(skip, pattern(len, seed)?.as_slice().ok_or(EINVAL)?)?;
        let buffer = Buffer::from(bytes).range(skip, len).map_err(|_| EINVAL)?;
        check_eq!((buffer.offset(), buffer.len()), (skip, len));
        let done = rig.write(buffer, remote.slice(3, len as u64)?, Options::default())?;
        check_eq!(done.result.map(|success| success.len), Ok(len));
        check_eq!((done.buffer.offset(), done.buffer.len()), (skip, len));
        check_region(&region, 3, len, seed)?;
    }
    drop(region);
    rig.close()
}

fn read_brings_what_is_there(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let region = rig.b.register(pattern(1 << 20, seed)?, Access::READ)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    for len in LENGTHS {
        let done = rig.read(Memory::zeroed(len)?, remote.slice(0, len as u64)?)?;
        check_eq!(reached(&done), Ok((len, Level::Delivered)));
        check_buffer(done.buffer, len, seed)?;
    }
    check_region(&region, 0, 1 << 20, seed)?;
    drop(region);
    rig.close()
}

fn read_fills_its_part_of_the_buffer_and_no_other(info: &Info, seed: u64) -> Result {
    const SIZE: usize = 40_000;
    let rig = Rig::new(info)?;
    let region = rig.b.register(pattern(SIZE, seed)?, Access::READ)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    for (skip, len) in [
        (0, 1),
        (1, 63),
        (4095, 2),
        (100, 16385),
        (SIZE - 1, 1),
        (SIZE, 0),
    ] {
        let buffer = Buffer::from(Memory::zeroed(SIZE)?)
            .range(skip, len)
            .map_err(|_| EINVAL)?;
        let done = rig.read(buffer, remote.slice(0, len as u64)?)?;
        check_eq!(done.result.map(|success| success.len), Ok(len));
        let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
        let bytes = memory.as_slice().ok_or(EINVAL)?;
        check!(bytes[..skip].iter().all(|byte| *byte == 0));
        check!(bytes[skip + len..].iter().all(|byte| *byte == 0));
        let expected = pattern(len, seed)?;
        check!(Some(&bytes[skip..skip + len]) == expected.as_slice());
    }
    drop(region);
    rig.close()
}

fn operation_without_bytes_completes(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    for offset in [0, 1, 99, 100] {
        let slice = remote.slice(offset, 0)?;
        let done = rig.write(Buffer::empty(), slice, Options::default())?;
        check_eq!(done.result.map(|success| success.len), Ok(0));
        let done = rig.read(Memory::zeroed(0)?, slice)?;
        check_eq!(done.result.map(|success| success.len), Ok(0));
    }
    check_filled(&region, 0)?;
    drop(region);
    rig.close()
}

fn lengths_that_differ_are_refused_at_post(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    for (local, at_peer) in [(0, 1), (1, 0), (10, 9), (10, 11), (101, 100)] {
        let slice = remote.slice(0, at_peer)?;
        let posted = rig.a.ep.write(
            pattern(local, seed)?,
            rig.to_b,
            slice,
            Options::default(),
            1,
        );
        check_buffer(check_refused(posted, EINVAL, 1)?, local, seed)?;
        let posted = rig.a.ep.read(
            Memory::zeroed(local)?,
            rig.to_b,
            slice,
            Options::default(),
            2,
        );
        check_eq!(check_refused(posted, EINVAL, 2)?.len(), local);
    }
    check!(rig.a.cq.read().is_none());
    check_filled(&region, 0)?;
    drop(region);
    rig.close()
}

fn right_that_the_descriptor_lacks_is_refused_at_post(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (read_only, remote) = rig.region(64, Access::READ)?;
    let slice = remote.slice(0, 64)?;
    let posted = rig
        .a
        .ep
        .write(pattern(64, seed)?, rig.to_b, slice, Options::default(), 1);
    check_buffer(check_refused(posted, EACCES, 1)?, 64, seed)?;
    check_refused(
        rig.a.ep.commit(rig.to_b, slice, Options::default(), 2),
        EACCES,
        2,
    )?;
    check_filled(&read_only, 0)?;

    let (write_only, remote) = rig.region(64, Access::WRITE)?;
    let posted = rig.a.ep.read(
        Memory::zeroed(64)?,
        rig.to_b,
        remote.slice(0, 64)?,
        Options::default(),
        3,
    );
    check_refused(posted, EACCES, 3)?;
    check!(rig.a.cq.read().is_none());
    drop((read_only, write_only));
    rig.close()
}

fn longest_operation_is_the_limit(info: &Info, seed: u64) -> Result {
    const MAX: usize = 10_000;
    let mut info = *info;
    info.limits.max_msg_size = MAX;
    let rig = Rig::new(&info)?;
    check_eq!(rig.a.ep.limits().max_msg_size, MAX);
    let (region, remote) = rig.region(MAX + 1, Access::READ_WRITE)?;
    let (most, more) = (
        remote.slice(0, MAX as u64)?,
        remote.slice(0, MAX as u64 + 1)?,
    );

    rig.written(pattern(MAX, seed)?, most, Options::default())?;
    check_region(&region, 0, MAX, seed)?;
    let done = rig.read(Memory::zeroed(MAX)?, most)?;
    check_buffer(done.buffer, MAX, seed)?;

    let long = pattern(MAX + 1, seed)?;
    let posted = rig.a.ep.write(long, rig.to_b, more, Options::default(), 1);
    check_buffer(check_refused(posted, EMSGSIZE, 1)?, MAX + 1, seed)?;
    let posted = rig.a.ep.read(
        Memory::zeroed(MAX + 1)?,
        rig.to_b,
        more,
        Options::default(),
        2,
    );
    check_buffer_filled(check_refused(posted, EMSGSIZE, 2)?, 0)?;
    drop(region);
    rig.close()
}

fn unknown_address_is_refused_at_post(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::READ_WRITE)?;
    let slice = remote.slice(0, 64)?;
    let removed = rig.a.av.insert(&rig.b.name())?;
    rig.a.av.remove(removed)?;
    for address in [removed, Address::from_raw(u64::MAX), Address::from_raw(77)] {
        let posted = rig
            .a
            .ep
            .write(pattern(64, seed)?, address, slice, Options::default(), 1);
        check_buffer(check_refused(posted, EHOSTUNREACH, 1)?, 64, seed)?;
        check_refused(
            rig.a
                .ep
                .read(Memory::zeroed(64)?, address, slice, Options::default(), 2),
            EHOSTUNREACH,
            2,
        )?;
    }
    check_filled(&region, 0)?;
    drop(region);
    rig.close()
}

fn closed_peer_is_unreachable(info: &Info, seed: u64) -> Result {
    let Rig { a, b, to_b, .. } = Rig::new(info)?;
    let region = b.register(Memory::zeroed(40_000)?, Access::READ_WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    let _left = b.close_endpoint()?;
    for len in [1, 100, 40_000] {
        let slice = remote.slice(0, len as u64)?;
        a.ep.write(pattern(len, seed)?, to_b, slice, Options::default(), 1)?;
        let done = a.next()?;
        check_eq!(error(&done), Some(EHOSTUNREACH));
        check_buffer(done.buffer, len, seed)?;
        a.ep.read(Memory::zeroed(len)?, to_b, slice, Options::default(), 2)?;
        check_eq!(error(&a.next()?), Some(EHOSTUNREACH));
    }
    check_filled(&region, 0)?;
    drop(region);
    a.close()
}

fn close_under_the_writes_of_a_peer_is_not_refused(info: &Info, _seed: u64) -> Result {
    // Long, so that one is under way when the peer closes.
    const LEN: usize = 200_000;
    let a = Arc::new(End::new(info, None)?, GFP_KERNEL)?;
    for _ in 0..tries(25) {
        let b = End::new(info, None)?;
        let region = register(&b.domain, Memory::zeroed(LEN)?, Access::WRITE)?;
        let slice = RemoteRegion::parse(&region.descriptor()?)?.slice(0, LEN as u64)?;
        let to_b = a.av.insert(&b.ep.name())?;
        // Writes until the peer is gone.
        let writer = a.clone();
        let job = move |_: usize| -> Result {
            let mut buffer = Buffer::from(Memory::zeroed(LEN)?);
            loop {
                let options = Options::default();
                writer.ep.write(buffer, to_b, slice, options, 1)?;
                let done = writer.next()?;
                let error = error(&done);
                buffer = done.buffer;
                match error {
                    None | Some(EKEYREJECTED) => {}
                    other => {
                        check_eq!(other, Some(EHOSTUNREACH));
                        return Ok(());
                    }
                }
            }
        };
        let crew = Crew::start(1, Arc::new(job, GFP_KERNEL)?)?;
        fsleep(Delta::from_micros(300));
        drop(region);
        b.close()?;
        crew.join()?;
        a.av.remove(to_b)?;
    }
    let Some(mut a) = Arc::into_unique_or_drop(a) else {
        check!(false);
        return Err(EINVAL);
    };
    check!(a.as_mut().get_mut().cq.read().is_none());
    Ok(())
}

fn slices_of_regions_are_local_buffers(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(50_000, Access::READ_WRITE)?;
    let local = register(&rig.a.domain, pattern(50_000, seed)?, Access::NONE)?;
    let done = rig.write(
        local.slice(100, 40_000)?,
        remote.slice(1, 40_000)?,
        Options::default(),
    )?;
    check_eq!(done.result.map(|success| success.len), Ok(40_000));
    let slice = done.buffer.into_slice().map_err(|_| EINVAL)?;
    check_eq!((slice.offset(), slice.len()), (100, 40_000));
    for at in [0, 1, 16_384, 39_999] {
        let (mut there, mut here) = ([0], [0]);
        region.read_at(1 + at, &mut there)?;
        local.read_at(100 + at, &mut here)?;
        check_eq!(there, here);
    }

    fill(&local, 0)?;
    let done = rig.read(slice, remote.slice(1, 40_000)?)?;
    check_eq!(error(&done), None);
    drop(done);
    check_filled_at(&local, 0, 100, 0)?;
    check_filled_at(&local, 40_100, 50_000 - 40_100, 0)?;
    let back = closed(local.close())?;
    let (found, expected) = (back.as_slice().ok_or(EINVAL)?, pattern(50_000, seed)?);
    check!(Some(&found[100..40_100]) == expected.as_slice().map(|bytes| &bytes[100..40_100]));
    drop(region);
    rig.close()
}

fn endpoint_reaches_its_own_regions(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let myself = rig.a.av.insert(&rig.a.ep.name())?;
    let region = register(&rig.a.domain, pattern(40_000, seed)?, Access::READ_WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    for len in [10, 20_000] {
        let slice = remote.slice(0, len as u64)?;
        rig.a
            .ep
            .read(Memory::zeroed(len)?, myself, slice, Options::default(), 1)?;
        check_buffer(rig.a.next()?.buffer, len, seed)?;
        // Onto itself, from a slice of the same region.
        rig.a
            .ep
            .write(region.slice(0, len)?, myself, slice, Options::default(), 2)?;
        check_eq!(error(&rig.a.next()?), None);
        check_region(&region, 0, 40_000, seed)?;
    }
    drop(region);
    rig.close()
}

fn each_level_is_reached_or_passed(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(20_000, Access::WRITE)?;
    for wanted in [Level::Transmit, Level::Delivered] {
        for len in [1, 20_000] {
            let done = rig.write(
                pattern(len, seed)?,
                remote.slice(0, len as u64)?,
                level(wanted),
            )?;
            check!(done.result.is_ok_and(|success| success.level >= wanted));
            // Nothing is durable in volatile memory.
            check!(done
                .result
                .is_ok_and(|success| success.level < Level::Committed));
            if wanted == Level::Delivered {
                check_region(&region, 0, len, seed)?;
            }
        }
    }
    drop(region);
    rig.close()
}

fn every_write_in_flight_completes_once(info: &Info, seed: u64) -> Result {
    const LEN: usize = 100;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(DEPTH * LEN, Access::WRITE)?;
    for _ in 0..4 {
        for n in 0..DEPTH {
            let slice = remote.slice((n * LEN) as u64, LEN as u64)?;
            let memory = pattern(LEN, seed + n as u64)?;
            rig.a
                .ep
                .write(memory, rig.to_b, slice, Options::default(), n as u64)?;
        }
        // Each slot is taken until its completion is read.
        let slice = remote.slice(0, LEN as u64)?;
        let posted = rig.a.ep.write(
            pattern(LEN, !seed)?,
            rig.to_b,
            slice,
            Options::default(),
            CONTEXT,
        );
        check_buffer(check_refused(posted, EAGAIN, CONTEXT)?, LEN, !seed)?;
        let mut seen = [0; DEPTH];
        for _ in 0..DEPTH {
            let done = rig.a.next()?;
            check_eq!(error(&done), None);
            *seen.get_mut(done.context as usize).ok_or(EINVAL)? += 1;
            check_buffer(done.buffer, LEN, seed + done.context)?;
        }
        check!(seen.iter().all(|times| *times == 1));
        check!(rig.a.cq.read().is_none());
        for n in 0..DEPTH {
            check_region(&region, n * LEN, LEN, seed + n as u64)?;
        }
        fill(&region, 0)?;
    }
    drop(region);
    rig.close()
}

fn random_reads_see_random_writes(info: &Info, seed: u64) -> Result {
    const SIZE: usize = 100_000;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(SIZE, Access::READ_WRITE)?;
    let mut expected = Memory::zeroed(SIZE)?;
    let mut rng = Rng::new(seed);
    for round in 0..60 {
        let offset = rng.below(SIZE);
        let longest = [100, 5000, SIZE][rng.below(3)];
        let len = rng.below((SIZE - offset).min(longest)) + 1;
        let bytes = pattern(len, seed + round)?;
        expected.write_at(offset, bytes.as_slice().ok_or(EINVAL)?)?;
        let slice = remote.slice(offset as u64, len as u64)?;
        rig.written(bytes, slice, Options::default())?;

        let offset = rng.below(SIZE);
        let len = rng.below((SIZE - offset).min(5000)) + 1;
        let done = rig.read(
            Memory::zeroed(len)?,
            remote.slice(offset as u64, len as u64)?,
        )?;
        check_eq!(done.result.map(|success| success.len), Ok(len));
        let found = done.buffer.into_memory().map_err(|_| EINVAL)?;
        let right = expected
            .as_slice()
            .and_then(|bytes| bytes.get(offset..offset + len));
        check!(found.as_slice() == right);
    }
    let found = closed(region.close_wait(timeout()))?;
    check!(found.as_slice() == expected.as_slice());
    rig.close()
}
