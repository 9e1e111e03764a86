// SPDX-License-Identifier: GPL-2.0

//! The longest operation, which needs a gibibyte of memory: see the module parameter `large`.

use crate::close::closed;
use crate::rig::{check_region, ended, pattern, register, timeout, Rig};
use crate::source::of_vecs;
use crate::{cases, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    gibibyte_in_256_pieces_is_one_operation: Caps::RMA.union(Caps::MSG),
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
