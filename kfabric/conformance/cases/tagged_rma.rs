// SPDX-License-Identifier: GPL-2.0

//! Tagged RMA: writes into and reads out of receives that a peer has posted under a tag.

use crate::close::closed;
use crate::ops::{check_refused, data, error, level};
use crate::peer::Posted;
use crate::rig::{check_buffer, ended, pattern, with_sizes, End, Rig, DEPTH};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    tagged_write_goes_into_the_receive_of_its_tag [connected]: WRITE,
    tagged_read_takes_the_bytes_of_the_receive_of_its_tag [connected]: READ,
    tagged_access_leaves_the_rest_of_a_receive [connected]: BOTH,
    tagged_access_takes_the_receive_that_was_posted_first [connected]: BOTH,
    tagged_access_waits_for_no_receive [connected]: BOTH,
    tagged_access_needs_a_receive_that_exposes_its_buffer [connected]: BOTH,
    message_takes_a_receive_that_exposes_its_buffer [connected]: BOTH,
    tagged_access_that_is_too_long_fails_on_both_sides [connected]: BOTH,
    tagged_write_brings_remote_cq_data [connected]: WRITE.union(Caps::REMOTE_CQ_DATA),
    tagged_access_takes_the_receives_for_its_sender: BOTH.union(Caps::DIRECTED_RECV),
    many_tagged_accesses_pass_side_by_side [connected]: BOTH,
    tagged_accesses_of_many_bytes_pass_both_ways [connected]: BOTH,
    fence_waits_for_a_tagged_access [connected]: BOTH.union(Caps::FENCE),
    tagged_access_reaches_its_own_endpoint: BOTH,
    tagged_access_is_for_one_context: BOTH.union(Caps::NAMED_RX_CTX),
    cancelled_receive_is_not_exposed_any_more [connected]: BOTH,
    tagged_access_that_can_not_be_is_refused: BOTH.union(Caps::REMOTE_CQ_DATA),
    endpoint_without_its_capabilities_refuses_tagged_access: BOTH,
}

const WRITE: Caps = Caps::TAGGED.union(Caps::WRITE);
const READ: Caps = Caps::TAGGED.union(Caps::READ);
const BOTH: Caps = WRITE.union(READ);

/// All bits.
const ANY: u64 = u64::MAX;

const LENS: [usize; 7] = [0, 1, 100, 4096, 16_385, 100_000, 300_001];

impl Rig {
    /// Writes a pattern of `len` bytes from A into a receive of B.
    fn twrite(&self, len: usize, seed: u64, tag: u64, context: u64) -> Result<OpId> {
        let (memory, options) = (pattern(len, seed)?, Options::default());
        Ok(self.a.ep.twrite(memory, self.to_b, tag, options, context)?)
    }

    /// Reads `len` bytes from a receive of B.
    fn tread(&self, len: usize, tag: u64, context: u64) -> Result<OpId> {
        let (memory, options) = (Memory::zeroed(len)?, Options::default());
        Ok(self.a.ep.tread(memory, self.to_b, tag, options, context)?)
    }

    /// Has B post a buffer that a write of A may consume.
    fn open_to_write(&self, len: usize, tag: u64, context: u64) -> Result<Posted> {
        let (memory, from) = (Memory::zeroed(len)?, Address::UNSPECIFIED);
        Ok(self
            .b
            .trecv_rma(memory, from, (tag, 0), Access::WRITE, context)?)
    }

    /// Has B post a pattern that a read of A may consume.
    fn open_to_read(&self, len: usize, seed: u64, tag: u64, context: u64) -> Result<Posted> {
        let (memory, from) = (pattern(len, seed)?, Address::UNSPECIFIED);
        Ok(self
            .b
            .trecv_rma(memory, from, (tag, 0), Access::READ, context)?)
    }
}

/// Fails unless it is the completion of that, under a tag; gives its buffer.
#[track_caller]
fn completes(
    done: Completion<u64>,
    expected: (Kind, u64, Result<usize>),
    tag: u64,
) -> Result<Buffer> {
    check_eq!(ended(&done), expected);
    check_eq!(done.tag, Some(tag));
    Ok(done.buffer)
}

fn tagged_write_goes_into_the_receive_of_its_tag(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in LENS {
        for tag in [1, ANY, 1 << 40] {
            rig.open_to_write(len, tag, tag)?;
        }
        for (n, tag) in (0..).zip([1 << 40, 1, ANY]) {
            rig.twrite(len, seed + n, tag, n)?;
            let into = completes(rig.b.next()?, (Kind::RemoteWrite, tag, Ok(len)), tag)?;
            check_buffer(into, len, seed + n)?;
            let from = completes(rig.a.next()?, (Kind::Write, n, Ok(len)), tag)?;
            check_buffer(from, len, seed + n)?;
        }
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_read_takes_the_bytes_of_the_receive_of_its_tag(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in LENS {
        for (n, tag) in (0..).zip([1, ANY, 1 << 40]) {
            rig.open_to_read(len, seed + n, tag, tag)?;
        }
        for (n, tag) in [(2, 1 << 40), (0, 1), (1, ANY)] {
            rig.tread(len, tag, n)?;
            let from = completes(rig.b.next()?, (Kind::RemoteRead, tag, Ok(len)), tag)?;
            check_buffer(from, len, seed + n)?;
            let into = completes(rig.a.next()?, (Kind::Read, n, Ok(len)), tag)?;
            check_buffer(into, len, seed + n)?;
        }
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_access_leaves_the_rest_of_a_receive(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for (len, whole) in [(0, 1), (99, 100), (5000, 70_000), (100_000, 100_001)] {
        rig.open_to_write(whole, 5, 1)?;
        rig.twrite(len, seed, 5, 2)?;
        let into = completes(rig.b.next()?, (Kind::RemoteWrite, 1, Ok(len)), 5)?;
        let memory = into.into_memory().map_err(|_| EINVAL)?;
        let bytes = memory.as_slice().ok_or(EINVAL)?;
        check_eq!(bytes.len(), whole);
        check!(bytes[len..].iter().all(|byte| *byte == 0));
        check_buffer(memory.into(), len, seed)?;
        check_buffer(
            completes(rig.a.next()?, (Kind::Write, 2, Ok(len)), 5)?,
            len,
            seed,
        )?;
        // A read takes the first bytes.
        rig.open_to_read(whole, seed, 5, 1)?;
        rig.tread(len, 5, 2)?;
        check_buffer(
            completes(rig.b.next()?, (Kind::RemoteRead, 1, Ok(len)), 5)?,
            whole,
            seed,
        )?;
        check_buffer(
            completes(rig.a.next()?, (Kind::Read, 2, Ok(len)), 5)?,
            len,
            seed,
        )?;
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_access_takes_the_receive_that_was_posted_first(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    // Of one tag, of some, of all.
    let receives = [(5, 0), (0, 0xf), (0, ANY), (5, 0), (4, 1)];
    for (n, tags) in (0..).zip(receives) {
        let (memory, from) = (Memory::zeroed(10)?, Address::UNSPECIFIED);
        rig.b.trecv_rma(memory, from, tags, Access::READ_WRITE, n)?;
    }
    for n in 0..receives.len() as u64 {
        let (here, there) = match n % 2 {
            0 => {
                rig.twrite(10, seed, 5, 9)?;
                (Kind::Write, Kind::RemoteWrite)
            }
            _ => {
                rig.tread(10, 5, 9)?;
                (Kind::Read, Kind::RemoteRead)
            }
        };
        drop(completes(rig.b.next()?, (there, n, Ok(10)), 5)?);
        drop(completes(rig.a.next()?, (here, 9, Ok(10)), 5)?);
    }
    rig.quiet()?;
    rig.close()
}

/// Fails unless a write and a read of A find no receive.
#[track_caller]
fn find_none(rig: &Rig, tag: u64) -> Result {
    rig.twrite(10, 1, tag, 1)?;
    rig.tread(10, tag, 2)?;
    for done in rig.a.gather(2)? {
        let failure = done.result.err().ok_or(EINVAL)?;
        check_eq!(
            (failure.error, failure.outcome),
            (ENOENT, Outcome::NotExecuted)
        );
    }
    Ok(())
}

fn tagged_access_waits_for_no_receive(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    find_none(&rig, 5)?;
    // Also one that comes at once.
    rig.open_to_write(10, 5, 3)?;
    rig.open_to_read(10, seed, 6, 4)?;
    find_none(&rig, 7)?;
    rig.twrite(10, seed, 5, 1)?;
    check_buffer(
        completes(rig.b.next()?, (Kind::RemoteWrite, 3, Ok(10)), 5)?,
        10,
        seed,
    )?;
    rig.tread(10, 6, 2)?;
    drop(completes(rig.b.next()?, (Kind::RemoteRead, 4, Ok(10)), 6)?);
    check_eq!(rig.a.gather(2)?.iter().filter_map(error).count(), 0);
    find_none(&rig, 5)?;
    find_none(&rig, 6)?;
    rig.quiet()?;
    rig.close()
}

fn tagged_access_needs_a_receive_that_exposes_its_buffer(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    // Those of messages, and those of the other right, are passed over.
    rig.b.trecv(Memory::zeroed(10)?, 5, 0, 1)?;
    find_none(&rig, 5)?;
    rig.open_to_read(10, seed, 5, 2)?;
    rig.twrite(10, seed, 5, 8)?;
    check_eq!(error(&rig.a.next()?), Some(ENOENT));
    rig.open_to_write(10, 5, 3)?;
    rig.twrite(10, seed + 1, 5, 8)?;
    check_buffer(
        completes(rig.b.next()?, (Kind::RemoteWrite, 3, Ok(10)), 5)?,
        10,
        seed + 1,
    )?;
    rig.tread(10, 5, 9)?;
    drop(completes(rig.b.next()?, (Kind::RemoteRead, 2, Ok(10)), 5)?);
    check_eq!(rig.a.gather(2)?.iter().filter_map(error).count(), 0);
    // The first is as it was.
    let options = Options::default();
    rig.a.ep.tsend(pattern(7, seed)?, rig.to_b, 5, options, 4)?;
    check_buffer(
        completes(rig.b.next()?, (Kind::Recv, 1, Ok(7)), 5)?,
        7,
        seed,
    )?;
    drop(completes(rig.a.next()?, (Kind::Send, 4, Ok(7)), 5)?);
    rig.quiet()?;
    rig.close()
}

fn message_takes_a_receive_that_exposes_its_buffer(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [0, 100, 100_000] {
        rig.open_to_write(len, 5, 1)?;
        let options = Options::default();
        rig.a
            .ep
            .tsend(pattern(len, seed)?, rig.to_b, 5, options, 2)?;
        check_buffer(
            completes(rig.b.next()?, (Kind::Recv, 1, Ok(len)), 5)?,
            len,
            seed,
        )?;
        drop(completes(rig.a.next()?, (Kind::Send, 2, Ok(len)), 5)?);
        // Also one that has waited.
        rig.a
            .ep
            .tsend(pattern(len, seed)?, rig.to_b, 6, options, 2)?;
        rig.open_to_read(len, seed + 1, 6, 3)?;
        check_buffer(
            completes(rig.b.next()?, (Kind::Recv, 3, Ok(len)), 6)?,
            len,
            seed,
        )?;
        drop(completes(rig.a.next()?, (Kind::Send, 2, Ok(len)), 6)?);
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_access_that_is_too_long_fails_on_both_sides(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for (len, room) in [(1, 0), (101, 100), (100_000, 99_999)] {
        for reads in [false, true] {
            let kinds = match reads {
                false => {
                    rig.open_to_write(room, 5, 1)?;
                    rig.twrite(len, seed, 5, 2)?;
                    (Kind::Write, Kind::RemoteWrite)
                }
                true => {
                    rig.open_to_read(room, seed, 5, 1)?;
                    rig.tread(len, 5, 2)?;
                    (Kind::Read, Kind::RemoteRead)
                }
            };
            drop(completes(rig.b.next()?, (kinds.1, 1, Err(EMSGSIZE)), 5)?);
            let done = rig.a.next()?;
            check_eq!(ended(&done), (kinds.0, 2, Err(EMSGSIZE)));
            let outcome = done.result.map_err(|failure| failure.outcome);
            check_eq!(outcome.err(), Some(Outcome::NotExecuted));
        }
    }
    // The next one meets nothing of it.
    find_none(&rig, 5)?;
    rig.quiet()?;
    rig.close()
}

/// The remote CQ data that came.
fn brought(done: &Completion<u64>) -> Option<u64> {
    done.result.ok().and_then(|success| success.data)
}

fn tagged_write_brings_remote_cq_data(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for (n, len) in (0..).zip(LENS) {
        // A receive of messages takes none of it.
        let untouched = rig.b.trecv(Memory::zeroed(1)?, 6, 0, 9)?;
        rig.open_to_write(len, 5, 1)?;
        let memory = pattern(len, seed)?;
        rig.a.ep.twrite(memory, rig.to_b, 5, data(ANY - n), 2)?;
        let done = rig.b.next()?;
        check_eq!(ended(&done), (Kind::RemoteWrite, 1, Ok(len)));
        check_eq!((brought(&done), done.tag), (Some(ANY - n), Some(5)));
        check_buffer(done.buffer, len, seed)?;
        let sent = rig.a.next()?;
        check_eq!(ended(&sent), (Kind::Write, 2, Ok(len)));
        check_eq!(brought(&sent), None);
        rig.b.take_back(untouched)?;
        check_eq!(error(&rig.b.next()?), Some(ECANCELED));
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_access_takes_the_receives_for_its_sender(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let other = End::new(info, None)?;
    let (from, to_b) = (
        rig.b.insert(&other.ep.name())?,
        other.av.insert(&rig.b.name())?,
    );
    let post = |from, context| -> Result {
        let memory = pattern(10, seed)?;
        rig.b
            .trecv_rma(memory, from, (5, 0), Access::READ_WRITE, context)?;
        Ok(())
    };
    post(from, 1)?;
    find_none(&rig, 5)?;
    post(rig.to_a, 2)?;
    rig.tread(10, 5, 3)?;
    drop(completes(rig.b.next()?, (Kind::RemoteRead, 2, Ok(10)), 5)?);
    check_buffer(
        completes(rig.a.next()?, (Kind::Read, 3, Ok(10)), 5)?,
        10,
        seed,
    )?;
    let options = Options::default();
    other
        .ep
        .twrite(pattern(10, seed + 1)?, to_b, 5, options, 4)?;
    check_buffer(
        completes(rig.b.next()?, (Kind::RemoteWrite, 1, Ok(10)), 5)?,
        10,
        seed + 1,
    )?;
    drop(completes(other.next()?, (Kind::Write, 4, Ok(10)), 5)?);
    rig.quiet()?;
    other.close()?;
    rig.close()
}

fn many_tagged_accesses_pass_side_by_side(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let len = |n: u64| (n as usize * 997) % 20_000;
    for round in 0..4 {
        for n in 0..DEPTH as u64 {
            match n % 2 {
                0 => rig.open_to_write(len(n), n, n)?,
                _ => rig.open_to_read(len(n), seed + n, n, n)?,
            };
        }
        // In another order, so that each seeks its own.
        for n in (0..DEPTH as u64).map(|n| (n * 37 + round) % DEPTH as u64) {
            match n % 2 {
                0 => rig.twrite(len(n), seed + n, n, n)?,
                _ => rig.tread(len(n), n, n)?,
            };
        }
        let (a, b) = (rig.a.gather(DEPTH)?, rig.b.gather(DEPTH)?);
        for (end, write, read) in [
            (a, Kind::Write, Kind::Read),
            (b, Kind::RemoteWrite, Kind::RemoteRead),
        ] {
            for (n, done) in (0..).zip(end) {
                let kind = if n % 2 == 0 { write } else { read };
                check_eq!(ended(&done), (kind, n, Ok(len(n))));
                check_eq!(done.tag, Some(n));
                check_buffer(done.buffer, len(n), seed + n)?;
            }
        }
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_accesses_of_many_bytes_pass_both_ways(info: &Info, seed: u64) -> Result {
    const LEN: usize = 1 << 20;
    let rig = Rig::new(info)?;
    for round in 0..2 {
        for n in 0..4 {
            rig.open_to_write(LEN, n, n)?;
            rig.open_to_read(LEN, seed + n, 4 + n, 4 + n)?;
        }
        for n in 0..4 {
            rig.twrite(LEN, seed + round + n, n, n)?;
            rig.tread(LEN, 4 + n, 4 + n)?;
        }
        let (a, b) = (rig.a.gather(8)?, rig.b.gather(8)?);
        for done in Iterator::chain(a.into_iter(), b) {
            check_eq!(done.result.map(|success| success.len).ok(), Some(LEN));
            let seed = match done.context {
                n @ 0..4 => seed + round + n,
                n => seed + n - 4,
            };
            check_buffer(done.buffer, LEN, seed)?;
        }
    }
    rig.quiet()?;
    rig.close()
}

fn fence_waits_for_a_tagged_access(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let fence = Options {
        fence: true,
        ..Options::default()
    };
    for n in 0..20 {
        rig.open_to_write(100_000, 5, 1)?;
        rig.open_to_read(100_000, seed + n, 6, 2)?;
        rig.open_to_write(1, 7, 3)?;
        rig.twrite(100_000, seed, 5, 1)?;
        rig.tread(100_000, 6, 2)?;
        rig.a.ep.twrite(pattern(1, seed)?, rig.to_b, 7, fence, 3)?;
        let mut ends = [0; 3];
        for end in &mut ends {
            let done = rig.a.next()?;
            check_eq!(error(&done), None);
            *end = done.context;
        }
        check_eq!(ends[2], 3);
        check_eq!(rig.b.gather(3)?.iter().filter_map(error).count(), 0);
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_access_reaches_its_own_endpoint(info: &Info, seed: u64) -> Result {
    let end = End::new(info, None)?;
    let (to, options) = (end.av.insert(&end.ep.name())?, Options::default());
    for len in [0, 100, 100_000] {
        let from = Address::UNSPECIFIED;
        let both = Access::READ_WRITE;
        end.ep
            .trecv_rma(Memory::zeroed(len)?, from, (5, 0), both, 1)?;
        end.ep.twrite(pattern(len, seed)?, to, 5, options, 2)?;
        end.ep
            .trecv_rma(pattern(len, seed)?, from, (6, 0), both, 3)?;
        end.ep.tread(Memory::zeroed(len)?, to, 6, options, 4)?;
        let kinds = [Kind::RemoteWrite, Kind::Write, Kind::RemoteRead, Kind::Read];
        for (done, kind) in end.gather(4)?.into_iter().zip(kinds) {
            check_eq!(ended(&done), (kind, done.context, Ok(len)));
            check_buffer(done.buffer, len, seed)?;
        }
        end.ep.twrite(pattern(len, seed)?, to, 5, options, 2)?;
        check_eq!(error(&end.next()?), Some(ENOENT));
    }
    end.close()
}

fn tagged_access_is_for_one_context(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    // An endpoint has one; a post to another of its contexts finds none.
    rig.open_to_write(10, 5, 1)?;
    rig.open_to_read(10, seed, 5, 2)?;
    let (other, options) = (rig.to_b.rx_context(1)?, Options::default());
    rig.a.ep.twrite(pattern(10, seed)?, other, 5, options, 3)?;
    rig.a.ep.tread(Memory::zeroed(10)?, other, 5, options, 4)?;
    for done in rig.a.gather(2)? {
        check_eq!(error(&done), Some(EINVAL));
    }
    let first = rig.to_b.rx_context(0)?;
    rig.a.ep.twrite(pattern(10, seed)?, first, 5, options, 3)?;
    check_buffer(
        completes(rig.b.next()?, (Kind::RemoteWrite, 1, Ok(10)), 5)?,
        10,
        seed,
    )?;
    rig.a.ep.tread(Memory::zeroed(10)?, first, 5, options, 4)?;
    drop(completes(rig.b.next()?, (Kind::RemoteRead, 2, Ok(10)), 5)?);
    check_eq!(rig.a.gather(2)?.iter().filter_map(error).count(), 0);
    rig.quiet()?;
    rig.close()
}

fn cancelled_receive_is_not_exposed_any_more(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [10, 100_000] {
        let write = rig.open_to_write(len, 5, 1)?;
        let read = rig.open_to_read(len, seed, 5, 2)?;
        for (id, context) in [(write, 1), (read, 2)] {
            rig.b.take_back(id)?;
            let done = rig.b.next()?;
            check_eq!(ended(&done), (Kind::Recv, context, Err(ECANCELED)));
        }
        find_none(&rig, 5)?;
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_access_that_can_not_be_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let default = Options::default();
    let committed = level(Level::Committed);
    let memory = || pattern(5, seed);
    let (ep, to) = (&rig.a.ep, rig.to_b);
    drop(check_refused(
        ep.twrite(memory()?, to, 5, committed, 1),
        EOPNOTSUPP,
        1,
    )?);
    drop(check_refused(
        ep.tread(memory()?, to, 5, committed, 1),
        EOPNOTSUPP,
        1,
    )?);
    drop(check_refused(
        ep.tread(memory()?, to, 5, data(1), 1),
        EINVAL,
        1,
    )?);
    let nobody = Address::from_raw(ANY >> 8);
    drop(check_refused(
        ep.twrite(memory()?, nobody, 5, default, 1),
        EHOSTUNREACH,
        1,
    )?);
    let wrong = Access::READ | Access::ATOMIC;
    let from = Address::UNSPECIFIED;
    drop(check_refused(
        ep.trecv_rma(memory()?, from, (5, 0), wrong, 1),
        EINVAL,
        1,
    )?);
    rig.quiet()?;
    rig.close()
}

fn endpoint_without_its_capabilities_refuses_tagged_access(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (options, from) = (Options::default(), Address::UNSPECIFIED);
    for (caps, writes, reads, receives) in [
        (Caps::WRITE | Caps::READ, false, false, false),
        (Caps::TAGGED, false, false, true),
        (WRITE, true, false, true),
        (READ, false, true, true),
    ] {
        let wanted = Info { caps, ..*info };
        let cq = CompletionQueue::<u64>::new(&rig.a.domain, 2 * DEPTH, None)?;
        let ep = rig.a.endpoint(&with_sizes(&wanted, DEPTH, DEPTH), &cq)?;
        let memory = || pattern(5, seed);
        let posts = [
            (ep.twrite(memory()?, rig.to_b, 5, options, 1), writes),
            (ep.tread(memory()?, rig.to_b, 5, options, 1), reads),
            (
                ep.trecv_rma(memory()?, from, (5, 0), Access::READ, 1),
                receives,
            ),
        ];
        for (posted, may) in posts {
            match may {
                true => {
                    posted?;
                }
                false => drop(check_refused(posted, EOPNOTSUPP, 1)?),
            }
        }
        closed(ep.close())?;
        while cq.read().is_some() {}
        closed(cq.close())?;
    }
    rig.close()
}
