// SPDX-License-Identifier: GPL-2.0

//! Buffers that their owner uses again as soon as they are back.
//!
//! What a peer gets is what they held when they were posted: nobody reads them any more when their operation has
//! completed, however often a network sends it.

use crate::close::closed;
use crate::rig::{check_buffer, check_region, ended, pattern, timeout, Rig, DEPTH};
use crate::source::{patterned, spoilt, Source, SOURCES};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    buffer_of_a_write_may_be_changed_when_it_is_back [connected]: Caps::WRITE,
    buffer_of_a_message_may_be_changed_when_it_is_back [connected]: Caps::MSG,
    buffer_of_what_a_close_ends_may_be_changed_when_it_is_back: Caps::RMA,
}

/// Bytes of an operation: more than one frame of an engine has.
const LEN: usize = 150_000;

/// How often each buffer is used.
const ROUNDS: u64 = 3;

/// Memory of all sources in turn, with a pattern in it.
fn filled(n: u64, seed: u64) -> Result<Memory> {
    patterned(SOURCES[n as usize % SOURCES.len()], LEN, seed)
}

fn buffer_of_a_write_may_be_changed_when_it_is_back(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let most = DEPTH.min(8) as u64;
    let (region, remote) = rig.region(most as usize * LEN, Access::WRITE)?;
    let slice = |n: u64| remote.slice(n * LEN as u64, LEN as u64);
    let seed_of = |n: u64, round: u64| seed ^ (round << 32 | n);
    for n in 0..most {
        let memory = filled(n, seed_of(n, 0))?;
        rig.a
            .ep
            .write(memory, rig.to_b, slice(n)?, Options::NONE, n)?;
    }
    let mut round = [0; 8];
    for _ in 0..most * ROUNDS {
        let done = rig.a.next()?;
        let (kind, n, result) = ended(&done);
        check_eq!((kind, result), (Kind::Write, Ok(LEN)));
        let mut memory = spoilt(done.buffer)?;
        let (at, round) = (n as usize * LEN, &mut round[n as usize]);
        check_region(&region, at, LEN, seed_of(n, *round))?;
        *round += 1;
        if *round < ROUNDS {
            let next = pattern(LEN, seed_of(n, *round))?;
            memory.write_at(0, next.as_slice().ok_or(EINVAL)?)?;
            rig.a
                .ep
                .write(memory, rig.to_b, slice(n)?, Options::NONE, n)?;
        }
    }
    for n in 0..most {
        check_region(&region, n as usize * LEN, LEN, seed_of(n, ROUNDS - 1))?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn buffer_of_a_message_may_be_changed_when_it_is_back(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for n in 0..2 * SOURCES.len() as u64 {
        rig.b.recv(Memory::zeroed(LEN)?, n)?;
        rig.a
            .ep
            .send(filled(n, seed ^ n)?, rig.to_b, Options::NONE, n)?;
        let sent = rig.a.next()?;
        check_eq!(ended(&sent), (Kind::Send, n, Ok(LEN)));
        drop(spoilt(sent.buffer)?);
        let received = rig.b.next()?;
        check_eq!(ended(&received), (Kind::Recv, n, Ok(LEN)));
        check_buffer(received.buffer, LEN, seed ^ n)?;
    }
    rig.close()
}

/// Of what the close has ended, the region has the pattern or what was there before, and nothing later.
fn buffer_of_what_a_close_ends_may_be_changed_when_it_is_back(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let most = DEPTH.min(8) as u64;
    let (region, remote) = rig.region(most as usize * LEN, Access::WRITE)?;
    for n in 0..most {
        let slice = remote.slice(n * LEN as u64, LEN as u64)?;
        let memory = patterned(Source::Table, LEN, seed ^ n)?;
        rig.a.ep.write(memory, rig.to_b, slice, Options::NONE, n)?;
    }
    let Rig { a, b, .. } = rig;
    let (ep, base) = a.split();
    closed(ep.close())?;
    let mut kept = KVec::new();
    while let Some(done) = base.cq.read() {
        check!(matches!(done.kind, Kind::Write));
        kept.push(spoilt(done.buffer)?, GFP_KERNEL)?;
    }
    check_eq!(kept.len(), most as usize);
    // What is under way is placed, or never.
    let left = b.close_endpoint()?;
    let mut found = KVVec::zeroed(LEN, GFP_KERNEL)?;
    for n in 0..most {
        let wanted = pattern(LEN, seed ^ n)?;
        let wanted = wanted.as_slice().ok_or(EINVAL)?;
        region.read_at(n as usize * LEN, &mut found)?;
        let mut both = found.iter().zip(wanted);
        check!(both.all(|(found, wanted)| *found == 0 || found == wanted));
    }
    drop(closed(region.close_wait(timeout()))?);
    base.close()?;
    left.close()
}
