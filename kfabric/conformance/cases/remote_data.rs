// SPDX-License-Identifier: GPL-2.0

//! Remote CQ data: 64 bits that a message or a write carries into the peer's completion queue.

use crate::close::closed;
use crate::ops::{check_buffer_filled, data, error, CONTEXT};
use crate::rig::{check_buffer, check_region, pattern, placed, timeout, Rig, DEPTH};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    data_has_64_bits [connected]: Caps::REMOTE_CQ_DATA,
    data_of_a_write_consumes_a_receive_and_leaves_its_buffer [connected]: Caps::REMOTE_CQ_DATA,
    write_without_data_consumes_no_receive [connected]: Caps::REMOTE_CQ_DATA,
    data_of_a_write_without_bytes_arrives [connected]: Caps::REMOTE_CQ_DATA,
    bytes_are_there_when_the_data_arrives [connected]: Caps::REMOTE_CQ_DATA,
    data_waits_for_a_receive [connected]: Caps::REMOTE_CQ_DATA,
    data_of_many_writes_arrives_once_each [connected]: Caps::REMOTE_CQ_DATA,
    waiting_write_ends_when_its_peer_closes: Caps::REMOTE_CQ_DATA,
    waiting_write_ends_when_its_own_endpoint_closes: Caps::REMOTE_CQ_DATA,
    waiting_write_is_past_cancelling [connected]: Caps::REMOTE_CQ_DATA,
}

/// Values at the edges of narrower fields.
const VALUES: [u64; 9] = [
    0,
    1,
    0xff,
    0xffff_ffff,
    0x1_0000_0000,
    0x8000_0000,
    0x8000_0000_0000_0000,
    0x0123_4567_89ab_cdef,
    u64::MAX,
];

fn data_has_64_bits(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::WRITE)?;
    for value in VALUES {
        rig.b.recv(Buffer::empty(), 1)?;
        let done = rig.write(pattern(64, seed)?, remote.slice(0, 64)?, data(value))?;
        // It is the peer's, not the writer's.
        check_eq!(done.result.map(|success| success.data), Ok(None));
        check_eq!(
            rig.b.next()?.result.map(|success| success.data),
            Ok(Some(value))
        );

        rig.b.recv(Memory::zeroed(10)?, 2)?;
        rig.a
            .ep
            .send(pattern(10, seed)?, rig.to_b, crate::ops::data(value), 3)?;
        let received = rig.b.next()?;
        check_eq!(
            received.result.map(|success| (success.data, success.len)),
            Ok((Some(value), 10))
        );
        check_buffer(received.buffer, 10, seed)?;
        check_eq!(rig.a.next()?.result.map(|success| success.data), Ok(None));
    }
    drop(region);
    rig.close()
}

fn data_of_a_write_consumes_a_receive_and_leaves_its_buffer(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(40_000, Access::WRITE)?;
    for len in [1, 100, 40_000] {
        for context in [10, 11] {
            rig.b.recv(Memory::zeroed(64)?, context)?;
        }
        let slice = remote.slice(0, len as u64)?;
        rig.written(pattern(len, seed)?, slice, data(5))?;
        let told = rig.b.next()?;
        check_eq!((told.kind, told.context), (Kind::RemoteWrite, 10));
        check_eq!(
            told.result.map(|success| (success.data, success.len)),
            Ok((Some(5), len))
        );
        check_buffer_filled(told.buffer, 0)?;
        // One, not two.
        check!(rig.b.poll()?.is_none());
        rig.a
            .ep
            .send(pattern(64, seed)?, rig.to_b, Options::default(), CONTEXT)?;
        let received = rig.b.next()?;
        check_eq!(received.context, 11);
        check_eq!(received.result.map(|success| success.data), Ok(None));
        check_buffer(received.buffer, 64, seed)?;
        check_eq!(error(&rig.a.next()?), None);
    }
    drop(region);
    rig.close()
}

fn write_without_data_consumes_no_receive(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(40_000, Access::WRITE)?;
    let receive = rig.b.recv(Memory::zeroed(64)?, 1)?;
    for len in [1, 100, 40_000] {
        let slice = remote.slice(0, len as u64)?;
        rig.written(pattern(len, seed)?, slice, Options::default())?;
        check!(rig.b.poll()?.is_none());
    }
    rig.b.cancel(receive)?;
    check_eq!(error(&rig.b.next()?), Some(ECANCELED));
    drop(region);
    rig.close()
}

fn data_of_a_write_without_bytes_arrives(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::WRITE)?;
    rig.b.recv(Buffer::empty(), 1)?;
    rig.written(Buffer::empty(), remote.slice(64, 0)?, data(seed))?;
    check_eq!(
        rig.b
            .next()?
            .result
            .map(|success| (success.data, success.len)),
        Ok((Some(seed), 0))
    );
    drop(region);
    rig.close()
}

fn bytes_are_there_when_the_data_arrives(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100_000, Access::WRITE)?;
    for round in 0..30 {
        let len = [8, 1000, 16_385, 100_000][round % 4];
        rig.b.recv(Buffer::empty(), 1)?;
        let slice = remote.slice(0, len as u64)?;
        let memory = pattern(len, seed + round as u64)?;
        rig.a
            .ep
            .write(memory, rig.to_b, slice, data(round as u64), CONTEXT)?;
        // B alone is asked: its completion must be enough.
        let told = rig.b.next()?;
        check_eq!(
            told.result.map(|success| success.data),
            Ok(Some(round as u64))
        );
        check_region(&region, 0, len, seed + round as u64)?;
        check_eq!(error(&rig.a.next()?), None);
    }
    drop(region);
    rig.close()
}

fn data_waits_for_a_receive(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(40_000, Access::WRITE)?;
    for (n, len) in [10, 40_000].into_iter().enumerate() {
        let slice = remote.slice(0, len as u64)?;
        rig.a.ep.write(
            pattern(len, seed)?,
            rig.to_b,
            slice,
            data(n as u64),
            CONTEXT,
        )?;
        check_eq!(rig.b.wait(20).err(), Some(ETIMEDOUT));
        rig.b.recv(Buffer::empty(), 1)?;
        check_eq!(
            rig.b.next()?.result.map(|success| success.data),
            Ok(Some(n as u64))
        );
        check_eq!(rig.a.next()?.result.map(|success| success.len), Ok(len));
        check_region(&region, 0, len, seed)?;
    }
    drop(region);
    rig.close()
}

fn data_of_many_writes_arrives_once_each(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(40_000, Access::WRITE)?;
    // Half of the receives are there before the writes, half come after them.
    for n in 0..DEPTH / 2 {
        rig.b.recv(Buffer::empty(), n as u64)?;
    }
    for n in 0..DEPTH {
        let len = [8, 20_000][n % 2];
        let slice = remote.slice(0, len as u64)?;
        rig.a.ep.write(
            pattern(len, seed)?,
            rig.to_b,
            slice,
            data(n as u64),
            n as u64,
        )?;
    }
    for n in DEPTH / 2..DEPTH {
        rig.b.recv(Buffer::empty(), n as u64)?;
    }
    let (mut values, mut receives, mut writes) = ([0; DEPTH], [0; DEPTH], [0; DEPTH]);
    for _ in 0..DEPTH {
        let told = rig.b.next()?;
        let value = told
            .result
            .map_err(|failure| failure.error)?
            .data
            .ok_or(EINVAL)?;
        *values.get_mut(value as usize).ok_or(EINVAL)? += 1;
        *receives.get_mut(told.context as usize).ok_or(EINVAL)? += 1;
        let done = rig.a.next()?;
        check_eq!(error(&done), None);
        *writes.get_mut(done.context as usize).ok_or(EINVAL)? += 1;
    }
    for times in [values, receives, writes] {
        check!(times.iter().all(|times| *times == 1));
    }
    check!(rig.a.cq.read().is_none() && rig.b.poll()?.is_none());
    drop(region);
    rig.close()
}

/// What a write tells whose bytes are placed and whose data never met a receive.
fn check_placed(done: Completion<u64>, error: Error) -> Result {
    let Err(failure) = done.result else {
        check!(done.result.is_err());
        return Err(EINVAL);
    };
    check_eq!(failure.error, error);
    check_eq!(
        (failure.outcome, failure.level),
        (Outcome::Executed, Some(Level::Delivered))
    );
    Ok(())
}

fn waiting_write_ends_when_its_peer_closes(info: &Info, seed: u64) -> Result {
    let Rig { a, b, to_b, .. } = Rig::new(info)?;
    let region = b.register(Memory::zeroed(100)?, Access::WRITE)?;
    let slice = RemoteRegion::parse(&region.descriptor()?)?.slice(0, 100)?;
    a.ep.write(pattern(100, seed)?, to_b, slice, data(1), CONTEXT)?;
    placed(&region, 100, seed)?;
    check_eq!(b.wait(20).err(), Some(ETIMEDOUT));
    let left = b.close_endpoint()?;
    check_placed(a.next()?, EHOSTUNREACH)?;
    check_region(&region, 0, 100, seed)?;
    check!(a.cq.read().is_none() && left.poll()?.is_none());
    drop(region);
    a.close()
}

fn waiting_write_ends_when_its_own_endpoint_closes(info: &Info, seed: u64) -> Result {
    let Rig { a, b, to_b, .. } = Rig::new(info)?;
    let region = b.register(Memory::zeroed(100)?, Access::WRITE)?;
    let slice = RemoteRegion::parse(&region.descriptor()?)?.slice(0, 100)?;
    a.ep.write(pattern(100, seed)?, to_b, slice, data(1), CONTEXT)?;
    placed(&region, 100, seed)?;
    check_eq!(b.wait(20).err(), Some(ETIMEDOUT));
    let (ep, base) = a.split();
    closed(ep.close())?;
    check_placed(base.cq.read_wait(timeout())?, ECANCELED)?;
    check_region(&region, 0, 100, seed)?;
    // A receive that comes now is not for it.
    let receive = b.recv(Buffer::empty(), 2)?;
    check!(b.poll()?.is_none());
    b.cancel(receive)?;
    check_eq!(error(&b.next()?), Some(ECANCELED));
    drop(region);
    b.close()
}

fn waiting_write_is_past_cancelling(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::WRITE)?;
    let slice = remote.slice(0, 100)?;
    let id = rig
        .a
        .ep
        .write(pattern(100, seed)?, rig.to_b, slice, data(1), CONTEXT)?;
    placed(&region, 100, seed)?;
    check_eq!(rig.b.wait(20).err(), Some(ETIMEDOUT));
    // Its bytes are there: no cancel can say that it was not executed.
    check_eq!(rig.a.ep.cancel(id).err(), Some(ENOENT));
    rig.b.recv(Buffer::empty(), 2)?;
    check_eq!(
        rig.b.next()?.result.map(|success| success.data),
        Ok(Some(1))
    );
    check_eq!(error(&rig.a.next()?), None);
    drop(region);
    rig.close()
}
