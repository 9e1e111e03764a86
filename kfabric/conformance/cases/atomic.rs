// SPDX-License-Identifier: GPL-2.0

//! Atomics on regions of peers.

use crate::close::{closed, given_back};
use crate::crew::Crew;
use crate::ops::{check_filled, check_not_executed, check_refused, error, level, pmem, reached};
use crate::peer::Region;
use crate::rig::{byte, check_region, pattern, register, timeout, tries, End, Rig, DEPTH};
use crate::rng::Rng;
use crate::{cases, check, check_eq};
use core::cell::Cell;
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::prelude::*;

cases! {
    atomic_changes_its_word_and_no_other [connected]: Caps::ATOMIC,
    each_operation_does_what_it_says [connected]: Caps::ATOMIC,
    fetch_brings_what_was_there [connected]: Caps::ATOMIC,
    compare_swaps_what_is_equal [connected]: Caps::ATOMIC,
    vector_of_words_is_changed_word_by_word [connected]: Caps::ATOMIC,
    operands_need_no_alignment [connected]: Caps::ATOMIC,
    slices_of_regions_hold_operands_and_results [connected]: Caps::ATOMIC,
    words_that_are_not_aligned_are_refused [connected]: Caps::ATOMIC,
    buffer_of_another_length_is_refused [connected]: Caps::ATOMIC,
    atomic_without_the_right_is_refused_at_post [connected]: Caps::ATOMIC,
    right_to_write_is_not_the_right_to_atomics [connected]: Caps::ATOMIC.union(Caps::WRITE),
    longest_vector_is_changed_and_no_longer_one [connected]: Caps::ATOMIC,
    data_with_an_atomic_is_refused [connected]: Caps::ATOMIC,
    region_that_begins_unaligned_takes_no_atomics: Caps::ATOMIC.union(Caps::COMMIT),
    atomic_on_a_closed_region_is_refused [connected]: Caps::ATOMIC,
    committed_atomic_is_for_persistent_words [connected]: Caps::ATOMIC.union(Caps::COMMIT),
    sums_of_many_lose_none: Caps::ATOMIC,
    owner_and_peers_share_a_lock: Caps::ATOMIC,
    every_atomic_in_flight_completes_once [connected]: Caps::ATOMIC,
    atomics_end_with_either_endpoint [connected]: Caps::ATOMIC,
}

const SUM: AtomicAction = AtomicAction::update(AtomicOp::Sum, Datatype::U64);
const FETCH_ADD: AtomicAction = AtomicAction::fetch(AtomicOp::Sum, Datatype::U64);

/// A buffer of words, each of the datatype's size.
fn words(datatype: Datatype, values: &[u64]) -> Result<Memory> {
    let size = datatype.size();
    let mut bytes = KVVec::with_capacity(values.len() * size, GFP_KERNEL)?;
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes()[..size], GFP_KERNEL)?;
    }
    Ok(Memory::from_vec(bytes))
}

/// The words of a buffer.
fn values(datatype: Datatype, buffer: Buffer) -> Result<KVec<u64>> {
    let memory = buffer.into_memory().map_err(|_| EINVAL)?;
    let mut values = KVec::new();
    for bytes in memory
        .as_slice()
        .ok_or(EINVAL)?
        .chunks_exact(datatype.size())
    {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        values.push(u64::from_le_bytes(word), GFP_KERNEL)?;
    }
    Ok(values)
}

/// The word at an offset of a region, whatever its size.
fn word(region: &Region, offset: usize, datatype: Datatype) -> Result<u64> {
    let mut word = [0; 8];
    region.read_at(offset, &mut word[..datatype.size()])?;
    Ok(u64::from_le_bytes(word))
}

impl Rig {
    /// Does an atomic of A on B's words, and waits for the end of it.
    fn atomic(
        &self,
        local: impl Into<Buffer>,
        remote: RemoteSlice,
        action: AtomicAction,
    ) -> Result<Completion<u64>> {
        let options = Options::default();
        let posted = self
            .a
            .ep
            .atomic(local, self.to_b, remote, action, options, 7);
        posted?;
        let done = self.a.next()?;
        check_eq!((done.kind, done.context), (Kind::Atomic, 7));
        Ok(done)
    }
}

fn atomic_changes_its_word_and_no_other(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::ATOMIC)?;
    for datatype in Datatype::ALL {
        let size = datatype.size();
        for at in [0, size, 64 - size] {
            let action = AtomicAction::update(AtomicOp::Write, datatype);
            let slice = remote.slice(at as u64, size as u64)?;
            let done = rig.atomic(words(datatype, &[u64::MAX])?, slice, action)?;
            check_eq!(reached(&done), Ok((size, Level::Delivered)));
            // The operand comes back as it was.
            check_eq!(values(datatype, done.buffer)?.len(), 1);
            check_eq!(word(&region, at, datatype)?, u64::MAX >> (64 - 8 * size));
            let zeros = rig.atomic(words(datatype, &[0])?, slice, action)?;
            check_eq!(error(&zeros), None);
            check_filled(&region, 0)?;
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn each_operation_does_what_it_says(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ATOMIC)?;
    for datatype in Datatype::ALL {
        let all = u64::MAX >> (64 - 8 * datatype.size());
        let (least, greatest) = match datatype.is_signed() {
            // All bits are -1.
            true => (all, 5),
            false => (5, all),
        };
        for (op, before, operand, after) in [
            (AtomicOp::Write, 5, 9, 9),
            (AtomicOp::Sum, all, 2, 1),
            (AtomicOp::Min, 5, all, least),
            (AtomicOp::Min, all, 5, least),
            (AtomicOp::Max, 5, all, greatest),
            (AtomicOp::Max, all, 5, greatest),
            (AtomicOp::And, 0b1100, 0b1010, 0b1000),
            (AtomicOp::Or, 0b1100, 0b1010, 0b1110),
            (AtomicOp::Xor, 0b1100, 0b1010, 0b0110),
        ] {
            let slice = remote.slice(0, datatype.size() as u64)?;
            region.store_u64(0, before)?;
            let action = AtomicAction::update(op, datatype);
            let done = rig.atomic(words(datatype, &[operand])?, slice, action)?;
            check_eq!(error(&done), None);
            check_eq!(word(&region, 0, datatype)?, after);
            // The owner's own is the same.
            region.store_u64(0, before)?;
            check_eq!(region.atomic(0, action, operand, 0)?, before);
            check_eq!(word(&region, 0, datatype)?, after);
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn fetch_brings_what_was_there(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::ATOMIC)?;
    region.store_u64(8, 40)?;
    let slice = remote.slice(8, 8)?;
    for (before, after) in [(40, 42), (42, 44)] {
        let local = words(Datatype::U64, &[2, u64::MAX])?;
        let done = rig.atomic(local, slice, FETCH_ADD)?;
        check_eq!(reached(&done), Ok((8, Level::Delivered)));
        check_eq!(&values(Datatype::U64, done.buffer)?[..], &[2, before][..]);
        check_eq!(region.load_u64(8)?, after);
    }
    check_eq!(region.load_u64(0)?, 0);
    check_eq!(region.load_u64(16)?, 0);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn compare_swaps_what_is_equal(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::ATOMIC)?;
    for datatype in Datatype::ALL {
        let slice = remote.slice(16, datatype.size() as u64)?;
        let action = AtomicAction::compare(datatype);
        region.store_u64(16, 5)?;
        // The operand, the comparand, what was there, what is there.
        for (operand, comparand, before, after) in [(7, 6, 5, 5), (7, 5, 5, 7), (0, 7, 7, 0)] {
            let local = words(datatype, &[operand, comparand, 99])?;
            let done = rig.atomic(local, slice, action)?;
            check_eq!(error(&done), None);
            let found = values(datatype, done.buffer)?;
            check_eq!(&found[..], &[operand, comparand, before][..]);
            check_eq!(word(&region, 16, datatype)?, after);
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn vector_of_words_is_changed_word_by_word(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let mut rng = Rng::new(seed);
    // Short, and long enough for a worker.
    for count in [1, 2, 100, 5000] {
        let (region, remote) = rig.region(8 * count, Access::ATOMIC)?;
        let mut local = KVec::new();
        let mut expected = KVec::new();
        for n in 0..count {
            let (before, operand) = (rng.next(), rng.next());
            region.store_u64(8 * n, before)?;
            local.push(operand, GFP_KERNEL)?;
            expected.push((before, before.wrapping_add(operand)), GFP_KERNEL)?;
        }
        for _ in 0..count {
            local.push(0, GFP_KERNEL)?;
        }
        let slice = remote.slice(0, 8 * count as u64)?;
        let done = rig.atomic(words(Datatype::U64, &local)?, slice, FETCH_ADD)?;
        check_eq!(reached(&done), Ok((8 * count, Level::Delivered)));
        let found = values(Datatype::U64, done.buffer)?;
        for (n, (before, after)) in expected.iter().enumerate() {
            check_eq!(found[count + n], *before);
            check_eq!(region.load_u64(8 * n)?, *after);
        }
        drop(closed(region.close_wait(timeout()))?);
    }
    rig.close()
}

fn operands_need_no_alignment(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ATOMIC)?;
    for offset in 0..9 {
        let mut memory = Memory::zeroed(40)?;
        memory.write_at(offset, &3u64.to_le_bytes())?;
        let part = Buffer::from(memory).range(offset, 16).map_err(|_| EINVAL)?;
        let done = rig.atomic(part, remote.slice(0, 8)?, FETCH_ADD)?;
        check_eq!(error(&done), None);
        let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
        let mut fetched = [0; 8];
        memory.read_at(offset + 8, &mut fetched)?;
        check_eq!(u64::from_le_bytes(fetched), 3 * offset as u64);
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn slices_of_regions_hold_operands_and_results(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ATOMIC)?;
    let local = register(&rig.a.domain, Memory::zeroed(64)?, Access::NONE)?;
    region.store_u64(0, 5)?;
    local.store_u64(8, 6)?;
    let done = rig.atomic(local.slice(8, 16)?, remote.slice(0, 8)?, FETCH_ADD)?;
    check_eq!(error(&done), None);
    drop(done);
    check_eq!((local.load_u64(8)?, local.load_u64(16)?), (6, 5));
    check_eq!((local.load_u64(0)?, local.load_u64(24)?), (0, 0));
    check_eq!(region.load_u64(0)?, 11);
    drop(closed(local.close())?);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn words_that_are_not_aligned_are_refused(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::ATOMIC)?;
    for datatype in Datatype::ALL {
        let size = datatype.size();
        for at in 1..size {
            let slice = remote.slice(at as u64, size as u64)?;
            let local = words(datatype, &[1])?;
            let action = AtomicAction::update(AtomicOp::Sum, datatype);
            let options = Options::default();
            let posted = rig.a.ep.atomic(local, rig.to_b, slice, action, options, 3);
            drop(check_refused(posted, EINVAL, 3)?);
            check_eq!(region.atomic(at, action, 1, 0), Err(EINVAL));
        }
    }
    check_filled(&region, 0)?;
    rig.quiet()?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn buffer_of_another_length_is_refused(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::ATOMIC)?;
    let compare = AtomicAction::compare(Datatype::U64);
    // The buffer's length, the words', and what is done.
    for (len, remote_len, action) in [
        (0, 0, SUM),
        (8, 16, SUM),
        (16, 8, SUM),
        (7, 8, SUM),
        (8, 7, SUM),
        (8, 8, FETCH_ADD),
        (24, 8, FETCH_ADD),
        (16, 8, compare),
        (32, 8, compare),
    ] {
        let slice = remote.slice(0, remote_len)?;
        let options = Options::default();
        let local = Memory::zeroed(len)?;
        let posted = rig.a.ep.atomic(local, rig.to_b, slice, action, options, 3);
        check_eq!(check_refused(posted, EINVAL, 3)?.len(), len);
    }
    rig.quiet()?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn longest_vector_is_changed_and_no_longer_one(info: &Info, seed: u64) -> Result {
    let most = info.limits.max_atomic_size;
    check!(most >= 16);
    longest_vector(&Rig::new(info)?, most, seed)?;
    // An endpoint may be opened for less.
    let mut short = *info;
    let less = most / 16 * 8;
    short.limits.max_atomic_size = less;
    longest_vector(&Rig::new(&short)?, less, seed)
}

/// Each form of an atomic on vectors of `most` bytes, each filled otherwise, and on one word more.
fn longest_vector(rig: &Rig, most: usize, seed: u64) -> Result {
    check_eq!(rig.a.ep.limits().max_atomic_size, most);
    let forms = [
        AtomicAction::update(AtomicOp::Write, Datatype::U64),
        AtomicAction::fetch(AtomicOp::Write, Datatype::U64),
        AtomicAction::compare(Datatype::U64),
    ];
    let (region, remote) = rig.region(most + 8, Access::ATOMIC)?;
    let vectors = |form: AtomicAction, len| form.action.vectors() * len;
    for (seed, form) in (seed..).zip(forms) {
        let local = Buffer::from(pattern(vectors(form, most + 8), seed)?);
        let slice = remote.slice(0, most as u64 + 8)?;
        let posted = rig
            .a
            .ep
            .atomic(local, rig.to_b, slice, form, Options::default(), 1);
        check_eq!(
            check_refused(posted, EMSGSIZE, 1)?.len(),
            vectors(form, most + 8)
        );
        check!(rig.a.cq.read().is_none());
        let mut was = KVVec::from_elem(0, most, GFP_KERNEL)?;
        region.read_at(0, &mut was)?;
        let mut local = KVVec::new();
        for at in 0..most {
            local.push(byte(at, seed), GFP_KERNEL)?;
        }
        if matches!(form.action, Action::Compare) {
            local.extend_from_slice(&was, GFP_KERNEL)?;
        }
        local.resize(vectors(form, most), 0xee, GFP_KERNEL)?;
        let slice = remote.slice(0, most as u64)?;
        let done = rig.atomic(Memory::from_vec(local), slice, form)?;
        check_eq!(reached(&done), Ok((most, Level::Delivered)));
        let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
        let local = memory.as_slice().ok_or(EINVAL)?;
        let fetched = local.rchunks_exact(most).next().ok_or(EINVAL)?;
        check!(!form.action.fetches() || *fetched == was[..]);
        check_region(&region, 0, most, seed)?;
        // The word behind them has not changed.
        check_eq!(word(&region, most, Datatype::U64)?, 0);
    }
    drop(closed(region.close_wait(timeout()))?);
    Ok(())
}

fn atomic_without_the_right_is_refused_at_post(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for access in [Access::READ, Access::WRITE, Access::READ_WRITE] {
        let (region, remote) = rig.region(8, access)?;
        let (slice, options) = (remote.slice(0, 8)?, Options::default());
        let local = words(Datatype::U64, &[1])?;
        let posted = rig.a.ep.atomic(local, rig.to_b, slice, SUM, options, 3);
        drop(check_refused(posted, EACCES, 3)?);
        check_filled(&region, 0)?;
        drop(closed(region.close_wait(timeout()))?);
    }
    rig.close()
}

fn right_to_write_is_not_the_right_to_atomics(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ATOMIC)?;
    let (slice, options) = (remote.slice(0, 8)?, Options::default());
    let posted = rig
        .a
        .ep
        .write(Memory::zeroed(8)?, rig.to_b, slice, options, 3);
    drop(check_refused(posted, EACCES, 3)?);
    drop(closed(region.close_wait(timeout()))?);
    let (region, remote) = rig.region(8, Access::ALL)?;
    let slice = remote.slice(0, 8)?;
    rig.written(words(Datatype::U64, &[4])?, slice, Options::default())?;
    let done = rig.atomic(words(Datatype::U64, &[1])?, slice, SUM)?;
    check_eq!(error(&done), None);
    check_eq!(region.load_u64(0)?, 5);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn data_with_an_atomic_is_refused(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ATOMIC)?;
    let (slice, options) = (remote.slice(0, 8)?, crate::ops::data(1));
    let local = words(Datatype::U64, &[1])?;
    let posted = rig.a.ep.atomic(local, rig.to_b, slice, SUM, options, 3);
    drop(check_refused(posted, EINVAL, 3)?);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn region_that_begins_unaligned_takes_no_atomics(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let device = pmem()?;
    for offset in [1, 4, 12_345] {
        let memory = Memory::persistent(&device, offset, 64)?;
        let refused = end.domain.register(memory, Access::ALL);
        let memory = given_back(refused, EINVAL)?;
        // Without that right it is as good as any.
        let region = register(&end.domain, memory, Access::READ_WRITE)?;
        drop(closed(region.close_wait(timeout()))?);
    }
    let memory = Memory::persistent(&device, 8, 64)?;
    drop(closed(register(&end.domain, memory, Access::ALL)?.close())?);
    end.close()
}

fn atomic_on_a_closed_region_is_refused(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ATOMIC)?;
    let memory = closed(region.close_wait(timeout()))?;
    let done = rig.atomic(words(Datatype::U64, &[1])?, remote.slice(0, 8)?, SUM)?;
    let buffer = check_not_executed(done, EKEYREJECTED)?;
    check_eq!(&values(Datatype::U64, buffer)?[..], &[1][..]);
    check!(memory.as_slice().is_some_and(|bytes| bytes == [0; 8]));
    rig.close()
}

fn committed_atomic_is_for_persistent_words(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ATOMIC)?;
    let options = level(Level::Committed);
    let local = words(Datatype::U64, &[1])?;
    let posted = rig
        .a
        .ep
        .atomic(local, rig.to_b, remote.slice(0, 8)?, SUM, options, 3);
    drop(check_refused(posted, EOPNOTSUPP, 3)?);
    drop(closed(region.close_wait(timeout()))?);

    let device = pmem()?;
    let region = rig
        .b
        .register_persistent(&device, 4096, 4096, Access::ALL)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    region.store_u64(4088, 41)?;
    let local = words(Datatype::U64, &[1, 0])?;
    rig.a.ep.atomic(
        local,
        rig.to_b,
        remote.slice(4088, 8)?,
        FETCH_ADD,
        options,
        3,
    )?;
    let done = rig.a.next()?;
    check_eq!(reached(&done), Ok((8, Level::Committed)));
    check_eq!(&values(Datatype::U64, done.buffer)?[..], &[1, 41][..]);
    check_eq!(region.load_u64(4088)?, 42);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// Threads of the cases below.
const THREADS: usize = 4;
fn sums_of_many_lose_none(info: &Info, _seed: u64) -> Result {
    // How often each of them does an atomic.
    let times = tries(1000);
    let rig = Rig::new(info)?;
    for datatype in [Datatype::U8, Datatype::U16, Datatype::I32, Datatype::U64] {
        let (region, remote) = rig.region(16, Access::ATOMIC)?;
        let descriptor = region.descriptor()?;
        let (info, name) = (*info, rig.b.name());
        let action = AtomicAction::update(AtomicOp::Sum, datatype);
        let peer = move |_thread: usize| -> Result {
            let end = End::new(&info, None)?;
            let to = end.av.insert(&name)?;
            let remote = RemoteRegion::parse(&descriptor)?;
            let slice = remote.slice(8, datatype.size() as u64)?;
            let mut local: Buffer = words(datatype, &[1])?.into();
            for n in 0..times {
                end.ep
                    .atomic(local, to, slice, action, Options::default(), n)?;
                let done = end.next()?;
                check_eq!((done.context, error(&done)), (n, None));
                local = done.buffer;
            }
            end.close()
        };
        let crew = Crew::start(THREADS, Arc::new(peer, GFP_KERNEL)?)?;
        // The owner adds, too.
        for _ in 0..times {
            region.atomic(8, action, 1, 0)?;
        }
        crew.join()?;
        let all = u64::MAX >> (64 - 8 * datatype.size());
        let sum = (THREADS as u64 + 1) * times;
        check_eq!(word(&region, 8, datatype)?, sum & all);
        // What does not fit the word is carried nowhere.
        check_eq!(region.load_u64(0)?, 0);
        check_eq!(region.load_u64(8)? & !all, 0);
        check_eq!(remote.len(), 16);
        drop(closed(region.close_wait(timeout()))?);
    }
    rig.close()
}

fn owner_and_peers_share_a_lock(info: &Info, _seed: u64) -> Result {
    let times = tries(50);
    let rig = Rig::new(info)?;
    // A lock, and what it guards: changed by a write that is no atomic.
    let (region, _remote) = rig.region(16, Access::ALL)?;
    let (info, name, descriptor) = (*info, rig.b.name(), region.descriptor()?);
    let swap = AtomicAction::compare(Datatype::U64);
    let peer = move |thread: usize| -> Result {
        let end = End::new(&info, None)?;
        let to = end.av.insert(&name)?;
        let remote = RemoteRegion::parse(&descriptor)?;
        let (lock, guarded) = (remote.slice(0, 8)?, remote.slice(8, 8)?);
        let none = Options::default();
        let mine = thread as u64 + 1;
        let cas = |operand: u64, comparand: u64| -> Result<u64> {
            let local = words(Datatype::U64, &[operand, comparand, 0])?;
            end.ep.atomic(local, to, lock, swap, none, 0)?;
            let done = end.next()?;
            check_eq!(error(&done), None);
            Ok(values(Datatype::U64, done.buffer)?[2])
        };
        for _ in 0..times {
            while cas(mine, 0)? != 0 {
                kernel::time::delay::fsleep(kernel::time::Delta::from_micros(10));
            }
            end.ep.read(Memory::zeroed(8)?, to, guarded, none, 1)?;
            let seen = values(Datatype::U64, end.next()?.buffer)?[0];
            let next = words(Datatype::U64, &[seen + 1])?;
            end.ep.write(next, to, guarded, none, 2)?;
            check_eq!(error(&end.next()?), None);
            check_eq!(cas(0, mine)?, mine);
        }
        end.close()
    };
    let crew = Crew::start(THREADS, Arc::new(peer, GFP_KERNEL)?)?;
    let mine = u64::MAX;
    for _ in 0..times {
        while region.atomic(0, swap, mine, 0)? != 0 {
            kernel::time::delay::fsleep(kernel::time::Delta::from_micros(10));
        }
        region.store_u64(8, region.load_u64(8)? + 1)?;
        check_eq!(region.atomic(0, swap, 0, mine)?, mine);
    }
    crew.join()?;
    check_eq!(region.load_u64(8)?, times * (THREADS as u64 + 1));
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn every_atomic_in_flight_completes_once(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ATOMIC)?;
    let slice = remote.slice(0, 8)?;
    let mut posted = 0;
    let mut ended = KVec::from_elem(false, 500, GFP_KERNEL)?;
    while posted < ended.len() {
        let local = words(Datatype::U64, &[1])?;
        let options = Options::default();
        match rig
            .a
            .ep
            .atomic(local, rig.to_b, slice, SUM, options, posted as u64)
        {
            Ok(_) => posted += 1,
            Err(refused) => {
                check_eq!(refused.error, EAGAIN);
                let done = rig.a.next()?;
                check!(!core::mem::replace(&mut ended[done.context as usize], true));
            }
        }
    }
    while ended.iter().any(|ended| !*ended) {
        let done = rig.a.next()?;
        check_eq!(error(&done), None);
        check!(!core::mem::replace(&mut ended[done.context as usize], true));
    }
    rig.quiet()?;
    check_eq!(region.load_u64(0)?, posted as u64);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// Each adds to all words, so that some are under way when the endpoint closes.
fn atomics_end_with_either_endpoint(info: &Info, _seed: u64) -> Result {
    let count = info.limits.max_atomic_size / 8;
    for of_a in [true, false] {
        let rig = Rig::new(info)?;
        let (region, remote) = rig.region(8 * count, Access::ATOMIC)?;
        let slice = remote.slice(0, remote.len())?;
        let ones = KVVec::from_elem(1, count, GFP_KERNEL)?;
        for context in 0..DEPTH as u64 {
            let local = words(Datatype::U64, &ones)?;
            rig.a
                .ep
                .atomic(local, rig.to_b, slice, SUM, Options::NONE, context)?;
        }
        let (mut done, mut doubtful) = (0, 0);
        let ended = |it: Completion<u64>| {
            check_eq!((it.kind, it.buffer.len()), (Kind::Atomic, 8 * count));
            match it.result {
                Ok(_) => done += 1,
                Err(failure) => doubtful += u64::from(failure.outcome == Outcome::Unknown),
            }
            Ok(())
        };
        let (first, last) = (Cell::new(0), Cell::new(0));
        let look = || {
            first.set(region.load_u64(0)?);
            last.set(region.load_u64(8 * (count - 1))?);
            drop(closed(region.close_wait(timeout()))?);
            Ok(())
        };
        rig.ends_with_an_endpoint(of_a, DEPTH, ended, look)?;
        // What was said to be done was, and what was said not to be was not.
        for word in [first.get(), last.get()] {
            check!((done..=done + doubtful).contains(&word));
        }
    }
    Ok(())
}
