// SPDX-License-Identifier: GPL-2.0

//! Memory regions: registered, described, sliced, and given back.

use crate::close::{busy, closed, given_back};
use crate::ops::{check_filled, check_filled_at, check_not_executed, error, fill, pmem, CONTEXT};
use crate::rig::{check_buffer, check_region, pattern, register, Rig};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    empty_memory_is_refused_and_comes_back: Caps::RMA,
    persistent_registration_of_volatile_memory_is_refused: Caps::COMMIT,
    registered_memory_comes_back_by_value: Caps::NONE,
    persistent_memory_comes_back_by_value: Caps::COMMIT,
    region_with_a_slice_stays_open: Caps::NONE,
    region_in_an_operation_stays_open: Caps::MSG,
    refused_close_has_killed_the_key: Caps::RMA,
    region_dropped_in_flight_lives_until_the_end_of_it: Caps::MSG,
    slice_lies_within_its_region: Caps::NONE,
    remote_slice_lies_within_its_region: Caps::RMA,
    buffer_range_lies_within_its_memory: Caps::NONE,
    region_bytes_are_within_bounds: Caps::NONE,
    words_are_aligned_and_inside: Caps::NONE,
    words_are_what_peers_see: Caps::RMA,
    local_region_has_no_descriptor: Caps::NONE,
    descriptor_tells_length_and_rights: Caps::RMA,
    malformed_descriptor_is_refused: Caps::RMA,
    domain_with_a_region_stays_open: Caps::NONE,
}

fn empty_memory_is_refused_and_comes_back(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let registered = rig
        .b
        .here()?
        .domain
        .register(Memory::zeroed(0)?, Access::READ);
    let memory = given_back(registered, EINVAL)?;
    check!(memory.is_empty());
    // It has not left anything open.
    rig.close()
}

fn persistent_registration_of_volatile_memory_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let lasting = RegionAttributes {
        access: Access::WRITE,
        persistent: true,
        ..RegionAttributes::default()
    };
    let registered = rig.b.here()?.domain.register(pattern(100, seed)?, lasting);
    let memory = given_back(registered, EINVAL)?;
    check!(memory.as_slice() == pattern(100, seed)?.as_slice());
    let persistent = Memory::persistent(&pmem()?, 0, 4096)?;
    let region = closed(rig.b.here()?.domain.register(persistent, lasting))?;
    check!(region.is_persistent());
    closed(region.close())?;
    rig.close()
}

fn registered_memory_comes_back_by_value(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [1, 63, 4096, 100_001] {
        for access in [
            Access::NONE,
            Access::READ,
            Access::WRITE,
            Access::READ_WRITE,
        ] {
            let mut bytes = pattern(len, seed)?;
            let place = bytes.as_mut_slice().map(|bytes| bytes.as_ptr());
            let region = rig.b.register(bytes, access)?;
            check_eq!((region.len(), region.here()?.is_empty()), (len, false));
            let back = closed(region.close())?;
            // The very same memory, and nothing of it changed.
            check_eq!(back.as_slice().map(|bytes| bytes.as_ptr()), place);
            check!(back.as_slice() == pattern(len, seed)?.as_slice());
        }
    }
    rig.close()
}

fn persistent_memory_comes_back_by_value(info: &Info, seed: u64) -> Result {
    let device = pmem()?;
    let rig = Rig::new(info)?;
    let mut memory = Memory::persistent(&device, 999, 10_000)?;
    memory.write_at(0, pattern(10_000, seed)?.as_slice().ok_or(EINVAL)?)?;
    let region = rig.b.register(memory, Access::READ_WRITE)?;
    let slice = region.slice(0, 1)?;
    let region = busy(region.close())?;
    drop(slice);
    let memory = closed(region.close())?;
    check_eq!((memory.len(), memory.is_persistent()), (10_000, true));
    let region = rig.b.register(memory, Access::READ)?;
    check_region(&region, 0, 10_000, seed)?;
    drop(region);
    rig.close()
}

fn region_with_a_slice_stays_open(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let mut region = rig.b.register(pattern(100, seed)?, Access::READ_WRITE)?;
    let (one, other) = (region.slice(0, 100)?, region.slice(100, 0)?);
    for slice in [one, other] {
        let again = busy(region.close())?;
        // What came back is still a region.
        check_eq!(again.len(), 100);
        check_region(&again, 0, 100, seed)?;
        region = again;
        drop(slice);
    }
    let memory = closed(region.close())?;
    check!(memory.as_slice() == pattern(100, seed)?.as_slice());
    rig.close()
}

fn region_in_an_operation_stays_open(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let region = rig.b.register(Memory::zeroed(100)?, Access::NONE)?;
    rig.b.recv(region.slice(10, 50)?, 1)?;
    let region = busy(region.close())?;
    rig.a
        .ep
        .send(pattern(50, seed)?, rig.to_b, Options::default(), 2)?;
    let received = rig.b.next()?;
    // The completion holds the slice.
    let region = busy(region.close())?;
    drop(received);
    check_eq!(error(&rig.a.next()?), None);
    check_filled_at(&region, 0, 10, 0)?;
    check_region(&region, 10, 50, seed)?;
    check_filled_at(&region, 60, 40, 0)?;
    check_eq!(closed(region.close())?.len(), 100);
    rig.close()
}

fn refused_close_has_killed_the_key(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::READ_WRITE)?;
    let hold = region.slice(0, 64)?;
    let region = busy(region.close())?;
    let done = rig.write(pattern(64, seed)?, remote.slice(0, 64)?, Options::default())?;
    check_not_executed(done, EKEYREJECTED)?;
    // Nor is a peer told of it any more.
    check_eq!(region.descriptor().err(), Some(ESTALE));
    check_filled(&region, 0)?;
    drop(hold);
    drop(closed(region.close())?);
    rig.close()
}

fn region_dropped_in_flight_lives_until_the_end_of_it(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [100, 40_000] {
        let target = rig.b.register(Memory::zeroed(len)?, Access::NONE)?;
        let source = register(&rig.a.domain, pattern(len, seed)?, Access::NONE)?;
        rig.b.recv(target.slice(0, len)?, 1)?;
        drop(target);
        rig.a
            .ep
            .send(source.slice(0, len)?, rig.to_b, Options::default(), 2)?;
        drop(source);
        let (received, sent) = (rig.b.next()?, rig.a.next()?);
        check_eq!(received.result.map(|success| success.len), Ok(len));
        check_eq!(error(&sent), None);
        // What arrived is sent back, to be looked at.
        rig.a.ep.recv(Memory::zeroed(len)?, 3)?;
        rig.b
            .send(received.buffer, rig.to_a, Options::default(), 4)?;
        check_buffer(rig.a.next()?.buffer, len, seed)?;
        check_eq!(error(&rig.b.next()?), None);
    }
    rig.close()
}

/// Offsets and lengths against 64 bytes, and whether they are inside.
const BOUNDS: [(usize, usize, bool); 12] = [
    (0, 0, true),
    (0, 64, true),
    (0, 65, false),
    (1, 63, true),
    (1, 64, false),
    (63, 1, true),
    (63, 2, false),
    (64, 0, true),
    (64, 1, false),
    (65, 0, false),
    (usize::MAX, 0, false),
    (usize::MAX, 2, false),
];

fn slice_lies_within_its_region(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, _) = rig.region(64, Access::READ)?;
    region.here()?;
    for (offset, len, inside) in BOUNDS {
        let sliced = region.slice(offset, len);
        let found = sliced.map(|slice| (slice.offset(), slice.len(), slice.is_empty()));
        check_eq!(
            found,
            inside.then_some((offset, len, len == 0)).ok_or(EINVAL)
        );
    }
    drop(region);
    rig.close()
}

fn remote_slice_lies_within_its_region(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::READ)?;
    for (offset, len, inside) in BOUNDS {
        let (offset, len) = (offset as u64, len as u64);
        let sliced = remote.slice(offset, len);
        let found = sliced.map(|slice| (slice.offset(), slice.len(), slice.is_empty()));
        check_eq!(
            found,
            inside.then_some((offset, len, len == 0)).ok_or(EINVAL)
        );
    }
    drop(region);
    rig.close()
}

fn buffer_range_lies_within_its_memory(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    // A slice that begins and ends inside its region, which starts to count at the region.
    let (region, _) = rig.region(164, Access::READ)?;
    for (offset, len, inside) in BOUNDS {
        let owned = Buffer::from(Memory::zeroed(64)?).range(offset, len);
        check_eq!(owned.is_ok(), inside);
        if let Err(whole) = owned {
            check_eq!((whole.offset(), whole.len()), (0, 64));
        }
        if let Some(at) = offset.checked_add(50) {
            let slice = Buffer::from(region.slice(50, 64)?).range(at, len);
            check_eq!(slice.is_ok(), inside);
            if let Err(whole) = slice {
                check_eq!((whole.offset(), whole.len()), (50, 64));
            }
        }
    }
    check!(Buffer::from(region.slice(50, 64)?).range(49, 1).is_err());
    check!(Buffer::from(region.slice(50, 64)?).range(0, 0).is_err());
    check!(Buffer::empty().range(0, 0).is_ok());
    check!(Buffer::empty().range(0, 1).is_err());
    drop(region);
    rig.close()
}

fn region_bytes_are_within_bounds(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, _) = rig.region(64, Access::READ)?;
    let mut bytes = [7; 65];
    for (offset, len, inside) in BOUNDS {
        let part = &mut bytes[..len];
        let expected = if inside { Ok(()) } else { Err(EINVAL) };
        check_eq!(region.read_at(offset, part), expected);
        check_eq!(region.write_at(offset, part), expected);
    }
    drop(region);
    rig.close()
}

fn words_are_aligned_and_inside(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, _) = rig.region(64, Access::READ)?;
    for n in 0..72 {
        let offset = [usize::MAX - 7, usize::MAX]
            .get(n)
            .copied()
            .unwrap_or(n.wrapping_sub(2));
        let good = offset % 8 == 0 && offset <= 56;
        let expected = if good { Ok(()) } else { Err(EINVAL) };
        check_eq!(region.store_u64(offset, 0x0123_4567_89ab_cdef), expected);
        check_eq!(region.load_u64(offset).map(|_| ()), expected);
    }
    for offset in (0..64).step_by(8) {
        check_eq!(region.load_u64(offset), Ok(0x0123_4567_89ab_cdef));
        let mut bytes = [0; 8];
        region.read_at(offset, &mut bytes)?;
        check_eq!(bytes, 0x0123_4567_89ab_cdefu64.to_ne_bytes());
    }
    drop(region);
    rig.close()
}

fn words_are_what_peers_see(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::READ_WRITE)?;
    region.store_u64(8, seed)?;
    let done = rig.read(Memory::zeroed(8)?, remote.slice(8, 8)?)?;
    let found = done.buffer.into_memory().map_err(|_| EINVAL)?;
    check!(found.as_slice() == Some(&seed.to_ne_bytes()));

    let mut word = Memory::zeroed(8)?;
    word.write_at(0, &(!seed).to_ne_bytes())?;
    rig.written(word, remote.slice(16, 8)?, Options::default())?;
    check_eq!(region.load_u64(16), Ok(!seed));
    check_eq!((region.load_u64(8), region.load_u64(24)), (Ok(seed), Ok(0)));
    drop(region);
    rig.close()
}

fn local_region_has_no_descriptor(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = (
        rig.b.register(Memory::zeroed(64)?, Access::NONE)?,
        rig.region(64, Access::READ)?,
    );
    check_eq!(region.descriptor().err(), Some(EACCES));
    drop((region, remote));
    rig.close()
}

fn descriptor_tells_length_and_rights(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [1, 100, 5000] {
        for access in [Access::READ, Access::WRITE, Access::READ_WRITE] {
            let (region, remote) = rig.region(len, access)?;
            check_eq!((remote.len(), remote.is_empty()), (len as u64, false));
            check_eq!(remote.access(), access);
            check!(region.descriptor()? == region.descriptor()?);
            drop(region);
        }
    }
    rig.close()
}

fn malformed_descriptor_is_refused(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, _) = rig.region(64, Access::READ_WRITE)?;
    let good = region.descriptor()?;
    check!(RemoteRegion::parse(&good).is_ok());
    for len in 0..good.len() {
        check_eq!(RemoteRegion::parse(&good[..len]).err(), Some(EBADMSG));
    }
    let mut long = [0; 33];
    long[..32].copy_from_slice(&good);
    check_eq!(RemoteRegion::parse(&long).err(), Some(EBADMSG));
    for version in (0..=u8::MAX).filter(|version| *version != good[0]) {
        let mut other = good;
        other[0] = version;
        check_eq!(RemoteRegion::parse(&other).err(), Some(EBADMSG));
    }
    let mut keyless = good;
    keyless[8..16].fill(0);
    check_eq!(RemoteRegion::parse(&keyless).err(), Some(EBADMSG));
    drop(region);
    rig.close()
}

fn domain_with_a_region_stays_open(info: &Info, seed: u64) -> Result {
    let fabric = Fabric::open(info)?;
    let domain = fabric.domain(info)?;
    let region = register(&domain, pattern(64, seed ^ CONTEXT)?, Access::READ)?;
    fill(&region, 1)?;
    let domain = busy(domain.close())?;
    check_filled(&region, 1)?;
    drop(region);
    closed(domain.close())?;
    closed(fabric.close())
}
