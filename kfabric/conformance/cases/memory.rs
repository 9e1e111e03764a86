// SPDX-License-Identifier: GPL-2.0

//! What memory is made of: vectors, parts of pages, scatterlists, persistent ranges.

use crate::close::{closed, given_back};
use crate::ops::{check_filled_at, check_refused, error, fill, pmem, reached};
use crate::peer::Region;
use crate::rig::{byte, check_region, ended, pattern, register, timeout, Rig};
use crate::rng::Rng;
use crate::source::{folio, made_of, of_vecs, patterned, vecs, SOURCES};
use crate::{cases, check, check_eq};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    each_source_is_sent_and_received [connected]: Caps::MSG,
    each_source_is_written_from [connected]: Caps::WRITE,
    each_source_is_read_into [connected]: Caps::READ,
    each_source_is_a_region [connected]: Caps::RMA,
    region_in_pieces_is_a_local_buffer [connected]: Caps::RMA,
    pieces_come_back_as_they_went [connected]: Caps::RMA.union(Caps::MSG),
    pieces_are_at_most_256 [connected]: Caps::WRITE,
    pieces_without_bytes_are_passed_over [connected]: Caps::RMA,
    pieces_of_one_byte_are_put_together [connected]: Caps::RMA,
    write_touches_no_piece_beside_it [connected]: Caps::WRITE,
    any_split_meets_any_other [connected]: Caps::RMA.union(Caps::MSG),
    message_longer_than_all_pieces_is_not_moved [connected]: Caps::MSG,
    region_in_pieces_copies_onto_itself: Caps::RMA,
    pieces_for_atomics_are_whole_words [connected]: Caps::ATOMIC,
    atomics_reach_each_piece [connected]: Caps::ATOMIC,
    pieces_are_persistent_nowhere [connected]: Caps::RMA.union(Caps::COMMIT),
    persistent_memory_meets_pieces [connected]: Caps::RMA.union(Caps::COMMIT).union(Caps::MSG),
}

/// Lengths that are copied in a post, and by a worker.
const LENGTHS: [usize; 4] = [1, 100, 12_345, 100_000];

/// Fails unless the bytes of a pattern are at `from` of `memory`.
#[track_caller]
fn check_memory(memory: &Memory, from: usize, len: usize, seed: u64) -> Result {
    let mut found = KVVec::zeroed(len, GFP_KERNEL)?;
    memory.read_at(from, &mut found)?;
    check!(found
        .iter()
        .enumerate()
        .all(|(at, found)| *found == byte(at, seed)));
    Ok(())
}

/// The memory of a buffer that came back.
fn memory_of(buffer: Buffer) -> Result<Memory> {
    buffer.into_memory().map_err(|_| EINVAL)
}

/// Registers memory at B, and tells A.
fn region_of(rig: &Rig, memory: Memory, access: Access) -> Result<(Region, RemoteRegion)> {
    let region = rig.b.register(memory, access)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    Ok((region, remote))
}

fn each_source_is_sent_and_received(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for from in SOURCES {
        for to in SOURCES {
            for len in LENGTHS {
                rig.b.recv(made_of(to, len)?, 1)?;
                let sent = patterned(from, len, seed)?;
                rig.a.ep.send(sent, rig.to_b, Options::NONE, 2)?;
                let received = rig.b.next()?;
                check_eq!(ended(&received), (Kind::Recv, 1, Ok(len)));
                check_memory(&memory_of(received.buffer)?, 0, len, seed)?;
                check_eq!(ended(&rig.a.next()?), (Kind::Send, 2, Ok(len)));
            }
        }
    }
    rig.close()
}

fn each_source_is_written_from(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(200_000, Access::WRITE)?;
    for source in SOURCES {
        for len in LENGTHS {
            fill(&region, 0xa5)?;
            let slice = remote.slice(333, len as u64)?;
            let done = rig.write(patterned(source, len, seed)?, slice, Options::NONE)?;
            check_eq!(reached(&done), Ok((len, Level::Delivered)));
            check_region(&region, 333, len, seed)?;
            check_filled_at(&region, 0, 333, 0xa5)?;
            check_filled_at(&region, 333 + len, 1000, 0xa5)?;
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn each_source_is_read_into(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = region_of(&rig, pattern(100_000, seed)?, Access::READ)?;
    for source in SOURCES {
        for len in LENGTHS {
            let done = rig.read(made_of(source, len)?, remote.slice(0, len as u64)?)?;
            check_eq!(reached(&done), Ok((len, Level::Delivered)));
            check_memory(&memory_of(done.buffer)?, 0, len, seed)?;
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn each_source_is_a_region(info: &Info, seed: u64) -> Result {
    const SIZE: usize = 50_000;
    let rig = Rig::new(info)?;
    for target in SOURCES {
        let (region, remote) = region_of(&rig, made_of(target, SIZE)?, Access::READ_WRITE)?;
        check_eq!(region.len(), SIZE);
        for source in SOURCES {
            for (offset, len) in [(0, SIZE), (1, 7), (95, 10), (4000, 20_000), (SIZE - 1, 1)] {
                let seed = seed ^ (offset + len) as u64;
                let slice = remote.slice(offset as u64, len as u64)?;
                rig.written(patterned(source, len, seed)?, slice, Options::NONE)?;
                check_region(&region, offset, len, seed)?;
                let done = rig.read(made_of(source, len)?, slice)?;
                check_eq!(error(&done), None);
                check_memory(&memory_of(done.buffer)?, 0, len, seed)?;
            }
        }
        let memory = closed(region.close_wait(timeout()))?;
        check_eq!(memory.len(), SIZE);
    }
    rig.close()
}

fn region_in_pieces_is_a_local_buffer(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(10_000, Access::READ_WRITE)?;
    for source in SOURCES {
        let memory = patterned(source, 10_000, seed)?;
        let local = register(&rig.a.domain, memory, Access::NONE)?;
        rig.written(
            local.slice(0, 10_000)?,
            remote.slice(0, 10_000)?,
            Options::NONE,
        )?;
        check_region(&region, 0, 10_000, seed)?;
        fill(&local, 0)?;
        let done = rig.read(local.slice(3, 9_000)?, remote.slice(0, 9_000)?)?;
        check_eq!(error(&done), None);
        drop(done);
        check_region(&local, 3, 9_000, seed)?;
        check_filled_at(&local, 0, 3, 0)?;
        check_filled_at(&local, 9_003, 997, 0)?;
        drop(closed(local.close())?);
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// Where the bytes of vectors are.
fn places(vecs: &KVec<KVVec<u8>>) -> Result<KVec<(usize, usize, usize)>> {
    let mut places = KVec::new();
    for vec in vecs {
        let place = (vec.as_ptr().addr(), vec.len(), vec.capacity());
        places.push(place, GFP_KERNEL)?;
    }
    Ok(places)
}

fn pieces_come_back_as_they_went(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(600, Access::READ_WRITE)?;
    let slice = remote.slice(0, 600)?;

    let given = vecs([100, 0, 200, 300].into_iter())?;
    let expected = places(&given)?;
    let done = rig.write(closed(Memory::from_vecs(given))?, slice, Options::NONE)?;
    let Ok(back) = memory_of(done.buffer)?.into_vecs() else {
        return Err(EINVAL);
    };
    check!(*places(&back)? == *expected);

    let mut parts = KVec::new();
    for (offset, len) in [(0, 100), (3996, 100), (5, 400)] {
        let folio = folio(0)?;
        parts.push(BioVec { folio, offset, len }, GFP_KERNEL)?;
    }
    let mut expected = KVec::new();
    for part in &parts {
        let part = (part.folio.first(), part.offset, part.len);
        expected.push(part, GFP_KERNEL)?;
    }
    let done = rig.read(closed(Memory::from_bio_vecs(parts))?, slice)?;
    let Ok(back) = memory_of(done.buffer)?.into_bio_vecs() else {
        return Err(EINVAL);
    };
    check_eq!(back.len(), expected.len());
    for (part, expected) in back.iter().zip(&expected) {
        check!((part.folio.first(), part.offset, part.len) == *expected);
    }

    let mut folios = KVVec::new();
    for _ in 0..2 {
        folios.push(folio(0)?, GFP_KERNEL)?;
    }
    let expected = [folios[0].first(), folios[1].first()];
    let list = closed(ScatterList::new(folios, 4000, 600, PAGE_SIZE as u32))?;
    check_eq!((list.entries(), list.len()), (2, 600));
    let memory = closed(Memory::from_scatterlist(list))?;
    // Refused, too.
    let posted = rig
        .a
        .ep
        .send(memory, Address::from_raw(u64::MAX), Options::NONE, 1);
    let memory = memory_of(check_refused(posted, EHOSTUNREACH, 1)?)?;
    let local = register(&rig.a.domain, memory, Access::NONE)?;
    let memory = closed(local.close())?;
    let Err(memory) = memory.into_vecs() else {
        return Err(EINVAL);
    };
    let Ok(list) = memory.into_scatterlist() else {
        return Err(EINVAL);
    };
    let back = list.into_folios();
    check!([back[0].first(), back[1].first()] == expected);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn pieces_are_at_most_256(info: &Info, seed: u64) -> Result {
    check_eq!(Memory::MAX_SEGMENTS, 256);
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(256 * PAGE_SIZE, Access::READ_WRITE)?;
    let writes = |mut memory: Memory, seed| {
        let len = memory.len();
        memory.write_at(0, pattern(len, seed)?.as_slice().ok_or(EINVAL)?)?;
        rig.written(memory, remote.slice(0, len as u64)?, Options::NONE)?;
        check_region(&region, 0, len, seed)
    };
    for count in [1, 255, 256] {
        let memory = closed(Memory::from_vecs(vecs((0..count).map(|_| 3))?))?;
        check_eq!(memory.len(), 3 * count);
        writes(memory, seed ^ count as u64)?;
    }
    let vecs = given_back(Memory::from_vecs(vecs((0..257).map(|_| 3))?), EINVAL)?;
    check_eq!(vecs.len(), 257);
    for (count, good) in [(256, true), (257, false)] {
        let (mut parts, mut folios) = (KVec::new(), KVVec::new());
        for _ in 0..count {
            let (offset, len, folio) = (1, 3, folio(0)?);
            parts.push(BioVec { folio, offset, len }, GFP_KERNEL)?;
            folios.push(self::folio(0)?, GFP_KERNEL)?;
        }
        let list = ScatterList::new(folios, 0, count * PAGE_SIZE, PAGE_SIZE as u32);
        let list = closed(list)?;
        check_eq!(list.entries(), count);
        if good {
            let memory = closed(Memory::from_bio_vecs(parts))?;
            check_eq!(memory.len(), 3 * count);
            writes(memory, !seed)?;
            let memory = closed(Memory::from_scatterlist(list))?;
            check_eq!(memory.len(), count * PAGE_SIZE);
            writes(memory, seed)?;
        } else {
            check_eq!(
                given_back(Memory::from_bio_vecs(parts), EINVAL)?.len(),
                count
            );
            let list = given_back(Memory::from_scatterlist(list), EINVAL)?;
            check_eq!(list.into_folios().len(), count);
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn pieces_without_bytes_are_passed_over(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let lens = [0, 5, 0, 0, 7, 0];
    let (region, remote) = region_of(&rig, of_vecs(&lens)?, Access::READ_WRITE)?;
    let mut local = of_vecs(&[0, 0, 1, 0, 11, 0])?;
    local.write_at(0, pattern(12, seed)?.as_slice().ok_or(EINVAL)?)?;
    rig.written(local, remote.slice(0, 12)?, Options::NONE)?;
    check_region(&region, 0, 12, seed)?;
    rig.written(of_vecs(&[0, 0])?, remote.slice(12, 0)?, Options::NONE)?;
    rig.written(of_vecs(&[])?, remote.slice(5, 0)?, Options::NONE)?;
    // Memory of no bytes at all is no region.
    let refused = rig
        .b
        .here()?
        .domain
        .register(of_vecs(&[0, 0])?, Access::READ);
    check_eq!(given_back(refused, EINVAL)?.len(), 0);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn pieces_of_one_byte_are_put_together(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = region_of(&rig, of_vecs(&[1; 256])?, Access::READ_WRITE)?;
    for (offset, len) in [(0, 256), (1, 254), (255, 1), (17, 3)] {
        let mut local = of_vecs(&[1; 256][..len])?;
        let bytes = pattern(len, seed)?;
        local.write_at(0, bytes.as_slice().ok_or(EINVAL)?)?;
        let slice = remote.slice(offset, len as u64)?;
        rig.written(local, slice, Options::NONE)?;
        check_region(&region, offset as usize, len, seed)?;
        let done = rig.read(of_vecs(&[1; 256][..len])?, slice)?;
        check_memory(&memory_of(done.buffer)?, 0, len, seed)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn write_touches_no_piece_beside_it(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let lens = [64, 1, 63, 4096, 100];
    let size: usize = lens.iter().sum();
    let (region, remote) = region_of(&rig, of_vecs(&lens)?, Access::WRITE)?;
    let mut ends = 0;
    for len in lens {
        ends += len;
        // Around the end of each piece.
        for (from, to) in [(1, 0), (0, 1), (1, 1), (20, 20)] {
            let Some(range) = ends.checked_sub(from).filter(|_| ends + to <= size) else {
                continue;
            };
            fill(&region, 0xa5)?;
            let slice = remote.slice(range as u64, (from + to) as u64)?;
            rig.written(pattern(from + to, seed)?, slice, Options::NONE)?;
            check_filled_at(&region, 0, range, 0xa5)?;
            check_region(&region, range, from + to, seed)?;
            check_filled_at(&region, ends + to, size - ends - to, 0xa5)?;
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// Memory of random pieces: `len` bytes of value 0.
fn random_pieces(rng: &mut Rng, len: usize) -> Result<Memory> {
    let (mut lens, mut left) = (KVec::new(), len);
    while left > 0 && lens.len() < 255 {
        let piece = [0, 1, 3, 8, 100, 5000][rng.below(6)].min(left);
        lens.push(piece, GFP_KERNEL)?;
        left -= piece;
    }
    lens.push(left, GFP_KERNEL)?;
    of_vecs(&lens)
}

fn any_split_meets_any_other(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let mut rng = Rng::new(seed);
    let size = 60_000;
    let target = random_pieces(&mut rng, size)?;
    let (region, remote) = region_of(&rig, target, Access::READ_WRITE)?;
    for _ in 0..50 {
        let len = rng.below(20_000);
        let at = rng.below(size - len);
        let slice = remote.slice(at as u64, len as u64)?;
        let skip = rng.below(100);
        let seed = rng.next();
        let mut local = random_pieces(&mut rng, len + 200)?;
        local.write_at(skip, pattern(len, seed)?.as_slice().ok_or(EINVAL)?)?;
        let Ok(part) = Buffer::from(local).range(skip, len) else {
            return Err(EINVAL);
        };
        rig.written(part, slice, Options::NONE)?;
        check_region(&region, at, len, seed)?;
        let room = Buffer::from(random_pieces(&mut rng, len + 200)?);
        let Ok(part) = room.range(skip, len) else {
            return Err(EINVAL);
        };
        let back = memory_of(rig.read(part, slice)?.buffer)?;
        check_memory(&back, skip, len, seed)?;
        // And as a message, from what was read.
        rig.b.recv(random_pieces(&mut rng, len)?, 1)?;
        let Ok(part) = Buffer::from(back).range(skip, len) else {
            return Err(EINVAL);
        };
        rig.a.ep.send(part, rig.to_b, Options::NONE, 2)?;
        let received = rig.b.next()?;
        check_eq!(ended(&received), (Kind::Recv, 1, Ok(len)));
        check_memory(&memory_of(received.buffer)?, 0, len, seed)?;
        check_eq!(ended(&rig.a.next()?), (Kind::Send, 2, Ok(len)));
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn message_longer_than_all_pieces_is_not_moved(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for (len, good) in [(29, true), (30, true), (31, false)] {
        rig.b.recv(of_vecs(&[10, 0, 20])?, 1)?;
        rig.a
            .ep
            .send(pattern(len, seed)?, rig.to_b, Options::NONE, 2)?;
        let received = rig.b.next()?;
        let how = if good { Ok(len) } else { Err(EMSGSIZE) };
        check_eq!(ended(&received), (Kind::Recv, 1, how));
        check_eq!(ended(&rig.a.next()?), (Kind::Send, 2, how));
        let memory = memory_of(received.buffer)?;
        if good {
            check_memory(&memory, 0, len, seed)?;
        } else {
            let mut found = [1; 30];
            memory.read_at(0, &mut found)?;
            check_eq!(found, [0; 30]);
        }
    }
    rig.close()
}

fn region_in_pieces_copies_onto_itself(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let to_itself = rig.a.av.insert(&rig.a.ep.name())?;
    let lens = [7, 100, 1, 3, 889];
    let region = register(&rig.a.domain, of_vecs(&lens)?, Access::READ_WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    for (to, from, len) in [
        (0, 1, 999),
        (1, 0, 999),
        (300, 0, 700),
        (0, 300, 700),
        (5, 5, 900),
    ] {
        region.write_at(from, pattern(len, seed)?.as_slice().ok_or(EINVAL)?)?;
        let (local, slice) = (region.slice(from, len)?, remote.slice(to, len as u64)?);
        rig.a.ep.write(local, to_itself, slice, Options::NONE, 1)?;
        check_eq!(ended(&rig.a.next()?), (Kind::Write, 1, Ok(len)));
        check_region(&region, to as usize, len, seed)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn pieces_for_atomics_are_whole_words(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let access = Access::ATOMIC;
    for (lens, good) in [
        (&[8, 16, 0, 8][..], true),
        (&[8, 12, 4], false),
        (&[7, 1], false),
        (&[16, 1], false),
    ] {
        let registered = rig.b.here()?.domain.register(of_vecs(lens)?, access);
        match good {
            true => drop(closed(closed(registered)?.close())?),
            false => {
                let memory = given_back(registered, EINVAL)?;
                check_eq!(memory.len(), lens.iter().sum());
            }
        }
    }
    for (offset, len, good) in [(0, 8, true), (4088, 8, true), (4, 8, false), (8, 4, false)] {
        let mut parts = KVec::new();
        let folio = folio(0)?;
        parts.push(BioVec { folio, offset, len }, GFP_KERNEL)?;
        let memory = closed(Memory::from_bio_vecs(parts))?;
        let registered = rig.b.here()?.domain.register(memory, access);
        check_eq!(registered.is_ok(), good);
    }
    rig.close()
}

fn atomics_reach_each_piece(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let target = of_vecs(&[8, 16, 0, 8])?;
    let (region, remote) = region_of(&rig, target, Access::ATOMIC | Access::READ_WRITE)?;
    let sum = AtomicAction::fetch(AtomicOp::Sum, Datatype::U64);
    // Operands, and room for what was there, cut in odd places.
    let mut local = of_vecs(&[3, 30, 31])?;
    for word in 0..4u64 {
        region.store_u64(word as usize * 8, 10 * word)?;
        local.write_at(word as usize * 8, &(word + 1).to_ne_bytes())?;
    }
    let slice = remote.slice(0, 32)?;
    rig.a
        .ep
        .atomic(local, rig.to_b, slice, sum, Options::NONE, 1)?;
    let done = rig.a.next()?;
    check_eq!(ended(&done), (Kind::Atomic, 1, Ok(32)));
    let local = memory_of(done.buffer)?;
    for word in 0..4u64 {
        let mut was = [0; 8];
        local.read_at(32 + word as usize * 8, &mut was)?;
        check_eq!(u64::from_ne_bytes(was), 10 * word);
        check_eq!(region.load_u64(word as usize * 8)?, 11 * word + 1);
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn pieces_are_persistent_nowhere(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for source in SOURCES {
        let memory = made_of(source, 100)?;
        check!(!memory.is_persistent());
        let (region, remote) = region_of(&rig, memory, Access::READ_WRITE)?;
        check_eq!(region.commit(0, 100), Err(EOPNOTSUPP));
        let posted = rig
            .a
            .ep
            .commit(rig.to_b, remote.slice(0, 1)?, Options::NONE, 1);
        drop(check_refused(posted, EOPNOTSUPP, 1)?);
        drop(closed(region.close_wait(timeout()))?);
    }
    rig.close()
}

fn persistent_memory_meets_pieces(info: &Info, seed: u64) -> Result {
    const LEN: usize = 30_000;
    let rig = Rig::new(info)?;
    let device = pmem()?;
    let (region, remote) = rig.persistent(&device, 123, LEN)?;
    // A uses the same device.
    region.here()?;
    let slice = remote.slice(0, LEN as u64)?;
    let committed = Options {
        level: Level::Committed,
        ..Options::NONE
    };
    for (n, source) in SOURCES.into_iter().enumerate() {
        let seed = seed ^ n as u64;
        // To the medium and from it, from the peer's side and from its own.
        let done = rig.write(patterned(source, LEN, seed)?, slice, committed)?;
        check_eq!(reached(&done), Ok((LEN, Level::Committed)));
        let done = rig.read(made_of(source, LEN)?, slice)?;
        check_memory(&memory_of(done.buffer)?, 0, LEN, seed)?;

        let (volatile, place) = region_of(&rig, made_of(source, LEN)?, Access::READ_WRITE)?;
        let range = Memory::persistent(&device, 123, LEN)?;
        let done = rig.write(range, place.slice(0, LEN as u64)?, Options::NONE)?;
        check_eq!(reached(&done), Ok((LEN, Level::Delivered)));
        check_region(&volatile, 0, LEN, seed)?;
        volatile.write_at(0, pattern(LEN, !seed)?.as_slice().ok_or(EINVAL)?)?;
        let range = Memory::persistent(&device, 123, LEN)?;
        let done = rig.read(range, place.slice(0, LEN as u64)?)?;
        check_eq!(error(&done), None);
        check_region(&region, 0, LEN, !seed)?;
        drop(closed(volatile.close_wait(timeout()))?);

        // As the buffer of a message, on either side.
        let range = || Memory::persistent(&device, 123, LEN);
        let passes = |from: Memory, to: Memory| {
            rig.b.recv(to, 1)?;
            rig.a.ep.send(from, rig.to_b, Options::NONE, 2)?;
            let received = rig.b.next()?;
            check_eq!(ended(&received), (Kind::Recv, 1, Ok(LEN)));
            check_eq!(ended(&rig.a.next()?), (Kind::Send, 2, Ok(LEN)));
            memory_of(received.buffer)
        };
        check_memory(&passes(range()?, made_of(source, LEN)?)?, 0, LEN, !seed)?;
        drop(passes(patterned(source, LEN, seed)?, range()?)?);
        check_region(&region, 0, LEN, seed)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}
