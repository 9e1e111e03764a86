// SPDX-License-Identifier: GPL-2.0

//! The longest operation, which needs a gibibyte of memory, and the longest region, of a whole device:
//! see the module parameter `large`.

use crate::close::closed;
use crate::forge::Forgery;
use crate::ops::{check_not_executed, level, pmem, reached};
use crate::rig::{check_buffer, check_region, ended, pattern, register, timeout, Rig};
use crate::source::of_vecs;
use crate::{cases, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    gibibyte_in_256_pieces_is_one_operation: Caps::RMA.union(Caps::MSG),
    whole_device_is_one_region_up_to_its_last_byte: Caps::RMA.union(Caps::COMMIT),
}

/// It is moved within one region, so that no second gibibyte is needed: up by a write, and down again
/// by a message. What is looked at lies around each border of two pieces.
fn gibibyte_in_256_pieces_is_one_operation(info: &Info, seed: u64) -> Result {
    const PIECE: usize = 4 << 20;
    const SHIFT: usize = 12_345;
    const AROUND: usize = 100;
    let len = (Memory::MAX_SEGMENTS * PIECE).min(info.limits.max_msg_size);
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
