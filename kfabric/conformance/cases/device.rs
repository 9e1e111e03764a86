// SPDX-License-Identifier: GPL-2.0

//! Memory of a device that is not on the memory bus: a PCI BAR.

use crate::bar::Bound;
use crate::close::{closed, given_back};
use crate::crew::Crew;
use crate::ops::{check_filled_at, check_refused, error, fill};
use crate::peer::Region;
use crate::rig::{
    check_buffer, check_region, ended, pattern, register, timeout, until, with_sizes, Rig,
};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

cases! {
    device_memory_is_a_region: Caps::HMEM.union(Caps::RMA),
    device_memory_is_a_local_buffer: Caps::HMEM.union(Caps::RMA).union(Caps::MSG),
    device_memory_needs_its_capability: Caps::HMEM.union(Caps::WRITE).union(Caps::MSG),
    device_memory_lies_within_its_device: Caps::HMEM,
    device_memory_takes_no_atomics: Caps::HMEM.union(Caps::ATOMIC),
    device_memory_is_not_committed: Caps::HMEM.union(Caps::COMMIT),
    device_memory_moves_onto_itself: Caps::HMEM.union(Caps::RMA),
    removed_device_is_enodev: Caps::HMEM.union(Caps::RMA).union(Caps::MSG),
    device_is_removed_under_load: Caps::HMEM.union(Caps::RMA),
    device_memory_is_what_the_host_finds: Caps::HMEM.union(Caps::RMA).union(Caps::MSG),
}

/// The bytes from here on are for the host to find.
const HOST: u64 = 512 << 10;

/// Registers `len` bytes from `offset` of the device at B, and tells A.
fn region_on(
    rig: &Rig,
    device: &Arc<DeviceMemory>,
    offset: u64,
    len: usize,
) -> Result<(Region, RemoteRegion)> {
    let memory = Memory::device(device, offset, len)?;
    let region = rig.b.register(memory, Access::READ_WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    Ok((region, remote))
}

/// Written to, read from and injected into, in the post and by a worker, at any alignment.
fn device_memory_is_a_region(info: &Info, seed: u64) -> Result {
    const LEN: usize = 200_001;
    let (device, rig) = (Bound::new()?, Rig::new(info)?);
    let (region, remote) = region_on(&rig, device.memory(), 3, LEN)?;
    check!(region.here()?.is_device() && !region.is_persistent());
    for (offset, len) in [
        (0, 0),
        (0, 1),
        (1, 1),
        (2, 3),
        (61, 9),
        (4093, 4100),
        (5, 150_000),
        (0, LEN),
        (LEN, 0),
    ] {
        fill(&region, 0xee)?;
        let slice = remote.slice(offset as u64, len as u64)?;
        rig.written(pattern(len, seed)?, slice, Options::NONE)?;
        check_filled_at(&region, 0, offset, 0xee)?;
        check_region(&region, offset, len, seed)?;
        check_filled_at(&region, offset + len, (LEN - offset - len).min(300), 0xee)?;
        let done = rig.read(Memory::zeroed(len)?, slice)?;
        check_eq!(error(&done), None);
        check_buffer(done.buffer, len, seed)?;
    }
    let slice = remote.slice(7, 21)?;
    rig.a
        .ep
        .inject_write(&[0x77; 21], rig.to_b, slice, Options::NONE, 1)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Write, 1, Ok(21)));
    check_filled_at(&region, 7, 21, 0x77)?;
    check!(closed(region.close_wait(timeout()))?.is_device());
    rig.close()
}

/// Sent, received into, written from and read into: owned, and as slices of a region.
fn device_memory_is_a_local_buffer(info: &Info, seed: u64) -> Result {
    let (device, rig) = (Bound::new()?, Rig::new(info)?);
    let (region, remote) = rig.region(100_000, Access::READ_WRITE)?;
    for (n, len) in [1, 1000, 90_001].into_iter().enumerate() {
        let seed = seed ^ n as u64;
        let at = |from| Memory::device(device.memory(), from, len);
        let mut bytes = at(1)?;
        bytes.write_at(0, pattern(len, seed)?.as_slice().ok_or(EINVAL)?)?;
        let local = rig.b.register(at(100_001)?, Access::NONE)?;

        rig.b.recv(local.slice(0, len)?, 1)?;
        rig.a.ep.send(bytes, rig.to_b, Options::NONE, 2)?;
        rig.passed(1, 2, Ok(len))?;
        check_region(&local, 0, len, seed)?;

        let slice = remote.slice(1, len as u64)?;
        rig.written(at(100_001)?, slice, Options::NONE)?;
        check_region(&region, 1, len, seed)?;
        let done = rig.read(at(200_000)?, slice)?;
        check_eq!(error(&done), None);
        let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
        let read = rig.b.register(memory, Access::NONE)?;
        check_region(&read, 0, len, seed)?;
        drop(closed(read.close())?);
        drop(closed(local.close())?);
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn device_memory_needs_its_capability(info: &Info, _seed: u64) -> Result {
    let (device, rig) = (Bound::new()?, Rig::new(info)?);
    let (region, remote) = rig.region(8, Access::WRITE)?;
    let slice = remote.slice(0, 8)?;
    let cq = CompletionQueue::<u64>::new(&rig.a.domain, 4, None)?;
    let without = Info {
        caps: info.caps.without(Caps::HMEM),
        ..with_sizes(info, 2, 2)
    };
    let ep = rig.a.endpoint(&without, &cq)?;
    let local = || Memory::device(device.memory(), 0, 8);
    for posted in [
        ep.send(local()?, rig.to_b, Options::NONE, 1),
        ep.write(local()?, rig.to_b, slice, Options::NONE, 1),
        ep.recv(local()?, 1),
    ] {
        let memory = check_refused(posted, EOPNOTSUPP, 1)?.into_memory();
        check!(memory.is_ok_and(|memory| memory.is_device()));
    }
    // Nor a slice of it, though the domain has taken it as a region.
    let own = register(&rig.a.domain, local()?, Access::NONE)?;
    for posted in [
        ep.send(own.slice(0, 8)?, rig.to_b, Options::NONE, 1),
        ep.write(own.slice(0, 8)?, rig.to_b, slice, Options::NONE, 1),
        ep.recv(own.slice(0, 8)?, 1),
    ] {
        drop(check_refused(posted, EOPNOTSUPP, 1)?);
    }
    drop(closed(own.close())?);
    closed(ep.close())?;
    closed(cq.close())?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn device_memory_lies_within_its_device(_info: &Info, _seed: u64) -> Result {
    let device = Bound::new()?;
    let memory = device.memory();
    let len = memory.len();
    check_eq!(len, 1 << 20);
    for (offset, bytes, good) in [
        (0, len as usize, true),
        (0, len as usize + 1, false),
        (len - 1, 1, true),
        (len - 1, 2, false),
        (len, 1, false),
        (0, 0, false),
        (u64::MAX, 1, false),
    ] {
        let made = Memory::device(memory, offset, bytes).map(|memory| memory.len());
        check_eq!(made, if good { Ok(bytes) } else { Err(EINVAL) });
    }
    Ok(())
}

fn device_memory_takes_no_atomics(info: &Info, _seed: u64) -> Result {
    let (device, rig) = (Bound::new()?, Rig::new(info)?);
    for access in [Access::ATOMIC, Access::ALL] {
        let memory = Memory::device(device.memory(), 0, 64)?;
        let refused = rig.b.here()?.domain.register(memory, access);
        check!(given_back(refused, EOPNOTSUPP)?.is_device());
    }
    let (region, _) = region_on(&rig, device.memory(), 0, 64)?;
    let sum = AtomicAction::update(AtomicOp::Sum, Datatype::U64);
    check_eq!(region.atomic(0, sum, 1, 0), Err(EOPNOTSUPP));
    check_eq!(region.load_u64(0), Err(EOPNOTSUPP));
    check_eq!(region.store_u64(0, 1), Err(EOPNOTSUPP));
    // Operands may come from there.
    let (words, remote) = rig.region(8, Access::ALL)?;
    let mut operand = Memory::device(device.memory(), 8, 8)?;
    operand.write_at(0, &5u64.to_ne_bytes())?;
    let slice = remote.slice(0, 8)?;
    rig.a
        .ep
        .atomic(operand, rig.to_b, slice, sum, Options::NONE, 1)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Atomic, 1, Ok(8)));
    check_eq!(words.load_u64(0)?, 5);
    drop(closed(words.close())?);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn device_memory_is_not_committed(info: &Info, _seed: u64) -> Result {
    let (device, rig) = (Bound::new()?, Rig::new(info)?);
    let (region, remote) = region_on(&rig, device.memory(), 0, 64)?;
    check_eq!(region.commit(0, 64), Err(EOPNOTSUPP));
    check!(remote.persistence().is_none());
    let posted = rig
        .a
        .ep
        .commit(rig.to_b, remote.slice(0, 1)?, Options::NONE, 1);
    drop(check_refused(posted, EOPNOTSUPP, 1)?);
    let memory = Memory::device(device.memory(), 0, 64)?;
    let lasting = RegionAttributes {
        access: Access::READ,
        persistent: true,
        ..RegionAttributes::default()
    };
    let refused = rig.b.here()?.domain.register(memory, lasting);
    check_eq!(given_back(refused, EINVAL)?.len(), 64);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// From one range to another of the same device, which overlap, either way: as long as it is moved in
/// one piece, which no provider has to do.
fn device_memory_moves_onto_itself(info: &Info, seed: u64) -> Result {
    const LEN: usize = 90_000;
    let (device, rig) = (Bound::new()?, Rig::new(info)?);
    for (from, to) in [(0, 1000), (1000, 0), (0, 70_000), (70_000, 0), (5, 5)] {
        let (region, remote) = region_on(&rig, device.memory(), to, LEN)?;
        let mut bytes = Memory::device(device.memory(), from, LEN)?;
        bytes.write_at(0, pattern(LEN, seed)?.as_slice().ok_or(EINVAL)?)?;
        rig.written(bytes, remote.slice(0, LEN as u64)?, Options::NONE)?;
        check_region(&region, 0, LEN, seed)?;
        drop(closed(region.close_wait(timeout()))?);
    }
    rig.close()
}

/// A region and buffers outlive their device; what is done to them fails, and faults nowhere.
fn removed_device_is_enodev(info: &Info, _seed: u64) -> Result {
    let (device, rig) = (Bound::new()?, Rig::new(info)?);
    let memory = device.memory().clone();
    let (region, remote) = region_on(&rig, &memory, 0, 100_000)?;
    let (other, place) = rig.region(100_000, Access::READ_WRITE)?;
    let waiting = region.slice(100, 64)?;
    rig.b.recv(waiting, 1)?;
    let mut owned = Memory::device(&memory, 0, 64)?;
    drop(device);
    check!(memory.is_gone());
    for len in [1, 64, 100_000] {
        let slice = remote.slice(0, len as u64)?;
        check_eq!(
            error(&rig.write(Memory::zeroed(len)?, slice, Options::NONE)?),
            Some(ENODEV)
        );
        check_eq!(error(&rig.read(Memory::zeroed(len)?, slice)?), Some(ENODEV));
    }
    // The message meets a receive in memory that is gone: both ends are told.
    rig.a
        .ep
        .send(Memory::zeroed(64)?, rig.to_b, Options::NONE, 2)?;
    rig.passed(1, 2, Err(ENODEV))?;
    let mut byte = [0];
    check_eq!(owned.read_at(0, &mut byte), Err(ENODEV));
    check_eq!(owned.write_at(0, &byte), Err(ENODEV));
    check_eq!(region.write_at(0, &byte), Err(ENODEV));
    let slice = place.slice(0, 64)?;
    check_eq!(
        error(&rig.write(owned, slice, Options::NONE)?),
        Some(ENODEV)
    );
    check_eq!(Memory::device(&memory, 0, 1).err(), Some(ENODEV));
    // Bound again it is another loan: the old region stays dead.
    let device = Bound::new()?;
    check_eq!(region.write_at(0, &byte), Err(ENODEV));
    let (again, _) = region_on(&rig, device.memory(), 0, 64)?;
    again.write_at(0, &byte)?;
    drop(closed(again.close())?);
    // Closed after its device went.
    drop(closed(region.close_wait(timeout()))?);
    drop(closed(other.close())?);
    rig.close()
}

/// Writes and reads are under way on several CPUs when the driver goes: each ends, well or in ENODEV.
fn device_is_removed_under_load(info: &Info, _seed: u64) -> Result {
    const LEN: usize = 100_000;
    let (device, rig) = (Bound::new()?, Rig::new(info)?);
    let (region, remote) = region_on(&rig, device.memory(), 0, LEN)?;
    let (written, failed) = (
        Arc::new(Atomic::new(0u64), GFP_KERNEL)?,
        device.memory().clone(),
    );
    let (counted, gone) = (written.clone(), failed);
    let region = Arc::new(region, GFP_KERNEL)?;
    let owner = region.clone();
    // The owner's copies, on other CPUs, beside the operations of A.
    let crew = Crew::start(
        2,
        Arc::new(
            move |thread: usize| {
                let bytes = KVVec::from_elem(thread as u8, LEN, GFP_KERNEL)?;
                loop {
                    match owner.write_at(0, &bytes) {
                        Ok(()) => counted.add(1, Relaxed),
                        Err(ENODEV) if gone.is_gone() => return Ok(()),
                        Err(error) => return Err(error),
                    }
                }
            },
            GFP_KERNEL,
        )?,
    )?;
    let (mut device, mut seen) = (Some(device), 0);
    let slice = remote.slice(0, LEN as u64)?;
    for round in 0..1000 {
        let done = rig.write(Memory::zeroed(LEN)?, slice, Options::NONE)?;
        match error(&done) {
            None => check!(device.is_some()),
            Some(failure) => {
                check_eq!(failure, ENODEV);
                seen += 1;
            }
        }
        if round >= 5 && done_enough(&done.result, seen) {
            break;
        }
        if round == 5 {
            // The owner is at it, too, whatever else this machine does.
            until(|| written.load(Relaxed) > 0)?;
            // While the operation just posted is under way at a worker.
            rig.a
                .ep
                .write(Memory::zeroed(LEN)?, rig.to_b, slice, Options::NONE, 9)?;
            drop(device.take());
            let last = rig.a.next()?;
            check!(matches!(error(&last), None | Some(ENODEV)));
        }
    }
    check_eq!(seen, 3);
    crew.join()?;
    check!(written.load(Relaxed) > 0);
    fsleep(Delta::from_millis(1));
    drop(region);
    rig.close()
}

/// Whether enough operations were seen to fail.
fn done_enough<T>(result: &Result<T, Failure>, seen: usize) -> bool {
    result.is_err() && seen == 3
}

/// What scripts/test.d/30-conformance looks for in the file behind the BAR.
fn device_memory_is_what_the_host_finds(info: &Info, _seed: u64) -> Result {
    let (device, rig) = (Bound::new()?, Rig::new(info)?);
    let counting = |len: usize, step: usize| -> Result<Memory> {
        let mut bytes = KVVec::with_capacity(len, GFP_KERNEL)?;
        for at in 0..len {
            bytes.push((at * step + 1) as u8, GFP_KERNEL)?;
        }
        Ok(Memory::from_vec(bytes))
    };
    let (region, remote) = region_on(&rig, device.memory(), HOST, 256 << 10)?;
    fill(&region, 0)?;
    rig.written(
        counting(10_000, 7)?,
        remote.slice(4099, 10_000)?,
        Options::NONE,
    )?;
    rig.b.recv(region.slice(32_769, 3000)?, 1)?;
    rig.a
        .ep
        .send(counting(3000, 5)?, rig.to_b, Options::NONE, 2)?;
    rig.passed(1, 2, Ok(3000))?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}
