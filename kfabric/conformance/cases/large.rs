// SPDX-License-Identifier: GPL-2.0

//! The longest operation, which needs a gibibyte of memory, and the longest region, of a whole device:
//! see the module parameter `large`.

use crate::close::closed;
use crate::forge::Forgery;
use crate::ops::{check_not_executed, level, pmem, reached};
use crate::rig::{byte, check_buffer, check_region, ended, pattern, register, timeout, Rig};
use crate::source::{folio, of_vecs};
use crate::{cases, check, check_eq};
use kernel::page::PAGE_SHIFT;
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    gibibyte_in_256_pieces_is_one_operation: Caps::RMA.union(Caps::MSG),
    gibibyte_of_folios_is_committed_and_read_back: Caps::RMA.union(Caps::COMMIT),
    gibibyte_of_a_scatterlist_is_one_message: Caps::MSG.union(Caps::COMMIT),
    whole_device_is_one_region_up_to_its_last_byte: Caps::RMA.union(Caps::COMMIT),
}

/// It is moved within one region, so that no second gibibyte is needed: up by a write, and down again
/// by a message. What is looked at lies around each border of two pieces.
fn gibibyte_in_256_pieces_is_one_operation(info: &Info, seed: u64) -> Result {
    const PIECE: usize = 1 << FOLIO;
    const SHIFT: usize = SKEW as usize;
    let len = moved(info, usize::MAX);
    let rig = Rig::new(info)?;
    let to_itself = rig.a.av.insert(&rig.a.ep.name())?;
    let mut lens = [PIECE; Memory::MAX_SEGMENTS];
    lens[Memory::MAX_SEGMENTS - 1] += SHIFT;
    let region = register(&rig.a.domain, of_vecs(&lens)?, Access::READ_WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    let borders = || (AROUND..len - AROUND).step_by(PIECE - AROUND);
    let (down, up) = (|| region.slice(0, len), || region.slice(SHIFT, len));
    let is_at = |shift| {
        borders().try_for_each(|at| check_region(&region, at + shift, AROUND, seed ^ at as u64))
    };

    for at in borders() {
        let bytes = pattern(AROUND, seed ^ at as u64)?;
        region.write_at(at, bytes.as_slice().ok_or(EINVAL)?)?;
    }
    let slice = remote.slice(SHIFT as u64, len as u64)?;
    rig.a
        .ep
        .write(down()?, to_itself, slice, Options::NONE, 1)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Write, 1, Ok(len)));
    is_at(SHIFT)?;
    rig.a.ep.recv(down()?, 2)?;
    rig.a.ep.send(up()?, to_itself, Options::NONE, 2)?;
    for _ in 0..2 {
        let (_, context, result) = ended(&rig.a.next()?);
        check_eq!((context, result), (2, Ok(len)));
    }
    is_at(0)?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// How many bytes are looked at, around each border of two folios.
const AROUND: usize = 100;
/// How long a folio is, or another piece, by its binary logarithm.
const FOLIO: usize = 22;

/// As many as a memory may be made of.
fn folios() -> Result<KVVec<Folio>> {
    let mut folios = KVVec::new();
    for _ in 0..Memory::MAX_SEGMENTS {
        folios.push(folio((FOLIO - PAGE_SHIFT) as u32)?, GFP_KERNEL)?;
    }
    Ok(folios)
}

/// Where the borders are in `len` bytes of them, and the ends: the first byte that is looked at.
fn borders(len: usize) -> impl Iterator<Item = usize> {
    let inner = (1 << FOLIO..len).step_by(1 << FOLIO);
    let inner = inner.map(|at| at - AROUND / 2);
    // None of them overlaps the last.
    let inner = inner.filter(move |at| at + 2 * AROUND <= len);
    Iterator::chain(inner, [0, len - AROUND])
}

/// Memory that gets a pattern there, in its first `len` bytes.
fn marked(mut memory: Memory, len: usize, seed: u64) -> Result<Memory> {
    for at in borders(len) {
        let bytes = pattern(AROUND, seed ^ at as u64)?;
        memory.write_at(at, bytes.as_slice().ok_or(EINVAL)?)?;
    }
    Ok(memory)
}

/// Fails unless memory has that pattern there.
fn check_marks(memory: &Memory, len: usize, seed: u64) -> Result {
    let mut bytes = [0; AROUND];
    for at in borders(len) {
        memory.read_at(at, &mut bytes)?;
        let is_there = |(n, found): (usize, &u8)| *found == byte(n, seed ^ at as u64);
        check!(bytes.iter().enumerate().all(is_there));
    }
    Ok(())
}

/// How far what is moved is moved, or where a device is written to: so that nothing is aligned as pieces are.
const SKEW: u64 = 12_345;

/// How many bytes are moved: of as many pieces as a memory may have, all there are, or for which there is room, or
/// that the provider moves at once.
fn moved(info: &Info, room: usize) -> usize {
    let (pieces, most) = (Memory::MAX_SEGMENTS, info.limits.max_msg_size);
    let len = (pieces << FOLIO).min(room).min(most);
    pr_info!("# {len} bytes in {pieces} pieces\n");
    len
}

/// The same from or to a device.
fn moved_by(info: &Info, device: &Pmem) -> usize {
    moved(info, device.len().saturating_sub(SKEW) as usize)
}

/// The first `len` bytes of memory that gets a pattern.
fn first(len: usize, memory: Memory, seed: u64) -> Result<Buffer> {
    let buffer = Buffer::from(marked(memory, len, seed)?);
    buffer.range(0, len).map_err(|_| EINVAL)
}

fn gibibyte_of_folios_is_committed_and_read_back(info: &Info, seed: u64) -> Result {
    let (rig, device) = (Rig::new(info)?, pmem()?);
    let mut parts = KVec::new();
    for folio in folios()? {
        let (offset, len) = (0, folio.len());
        parts.push(BioVec { folio, offset, len }, GFP_KERNEL)?;
    }
    let len = moved_by(info, &device);
    let memory = closed(Memory::from_bio_vecs(parts))?;
    let (region, remote) = rig.persistent(&device, SKEW, len)?;
    let slice = remote.slice(0, len as u64)?;
    let done = rig.write(first(len, memory, seed)?, slice, level(Level::Committed))?;
    check_eq!(reached(&done), Ok((len, Level::Committed)));
    for at in borders(len) {
        check_region(&region, at, AROUND, seed ^ at as u64)?;
    }
    let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
    check_marks(&memory, len, seed)?;
    let done = rig.read(first(len, memory, !seed)?, slice)?;
    check_eq!(reached(&done), Ok((len, Level::Delivered)));
    check_marks(&done.buffer.into_memory().map_err(|_| EINVAL)?, len, seed)?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// Into persistent memory, which has what the case above has left, and out of it.
fn gibibyte_of_a_scatterlist_is_one_message(info: &Info, seed: u64) -> Result {
    let (rig, device, seed) = (Rig::new(info)?, pmem()?, seed.rotate_left(17) ^ 0xe7);
    let pieces = Memory::MAX_SEGMENTS;
    let list = closed(ScatterList::new(folios()?, 0, pieces << FOLIO, 1 << FOLIO))?;
    // However they lie: an entry is no longer than one of them.
    check_eq!(list.entries(), pieces);
    let memory = closed(Memory::from_scatterlist(list))?;
    let len = moved_by(info, &device);
    let persistent = || Memory::persistent(&device, SKEW, len);
    rig.b.recv(persistent()?, 1)?;
    let (to, none) = (rig.to_b, Options::NONE);
    rig.a.ep.send(first(len, memory, seed)?, to, none, 2)?;
    let sent = rig.a.next()?;
    check_eq!(ended(&sent), (Kind::Send, 2, Ok(len)));
    let received = rig.b.next()?;
    check_eq!(ended(&received), (Kind::Recv, 1, Ok(len)));
    check_marks(
        &received.buffer.into_memory().map_err(|_| EINVAL)?,
        len,
        seed,
    )?;
    let memory = sent.buffer.into_memory().map_err(|_| EINVAL)?;
    rig.b.recv(first(len, memory, !seed)?, 3)?;
    rig.a.ep.send(persistent()?, to, none, 4)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Send, 4, Ok(len)));
    let received = rig.b.next()?;
    check_eq!(ended(&received), (Kind::Recv, 3, Ok(len)));
    check_marks(
        &received.buffer.into_memory().map_err(|_| EINVAL)?,
        len,
        seed,
    )?;
    rig.close()
}

/// What is looked at lies behind each power of two that an offset of too few bits would fold, and around
/// it, as far as there is that much: the log tells how much.
fn whole_device_is_one_region_up_to_its_last_byte(info: &Info, seed: u64) -> Result {
    /// Longer than what is done in a post, or in one frame.
    const LEN: u64 = 100_003;
    let device = pmem()?;
    let size = device.len();
    pr_info!("# a region of {size} bytes\n");
    let rig = Rig::new(info)?;
    let (region, remote) = rig.persistent(&device, 0, size as usize)?;
    check_eq!((region.len() as u64, remote.len()), (size, size));

    let behind = |power: u64| [(1 << power) - 77, (1 << power) + 1_234_567];
    let offsets = || {
        let folded = [31, 32].into_iter().flat_map(behind);
        let all = Iterator::chain([1_234_567, size - LEN].into_iter(), folded);
        all.filter(|at| at + LEN <= size)
    };
    let pattern_of = |at: u64| pattern(LEN as usize, seed ^ at);
    for (n, at) in offsets().enumerate() {
        let slice = remote.slice(at, LEN)?;
        let committed = Ok((LEN as usize, Level::Committed));
        if n % 2 == 0 {
            let done = rig.write(pattern_of(at)?, slice, level(Level::Committed))?;
            check_eq!(reached(&done), committed);
        } else {
            rig.written(pattern_of(at)?, slice, Options::NONE)?;
            check_eq!(reached(&rig.commit(slice)?), committed);
        }
    }
    // When all are there: one that went to the place of another is seen.
    for at in offsets() {
        let read = rig.read(Memory::zeroed(LEN as usize)?, remote.slice(at, LEN)?)?;
        check_buffer(read.buffer, LEN as usize, seed ^ at)?;
        check_region(&region, at as usize, LEN as usize, seed ^ at)?;
    }

    check_eq!(remote.slice(size - LEN + 1, LEN).err(), Some(EINVAL));
    let longer = Forgery::of(&region)?.len(size + 1).remote()?;
    let slice = longer.slice(size - LEN + 1, LEN)?;
    let none = Memory::zeroed(LEN as usize)?;
    check_not_executed(rig.write(none, slice, Options::NONE)?, ERANGE)?;
    check_not_executed(rig.commit(slice)?, ERANGE)?;
    let end = (size - LEN) as usize;
    check_region(&region, end, LEN as usize, seed ^ end as u64)?;
    let beyond = Memory::persistent(&device, 0, size as usize + 1);
    check_eq!(beyond.err(), Some(EINVAL));
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}
