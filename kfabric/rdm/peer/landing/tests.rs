// SPDX-License-Identifier: GPL-2.0

//! Payloads that land where they belong, and those that must not.

use super::super::super::testing::{
    brings, check, is_pattern, name, pattern, until, Bench, Script, Side, HUGE, LARGE, PATIENCE_MS,
    SOON,
};
use super::SHORTEST;
use crate::memory::{BioVec, Folio, Memory};
use crate::mr::{Access, Attributes, RemoteRegion};
use crate::op::{Kind, Options};
use crate::proto::wire::{Flags, Header, Kind as Frame};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// An address that no domain has.
const X: u8 = b'x';

/// Memory of `len` bytes of value 0 in many pieces of all kinds of lengths.
fn vecs(len: usize) -> Result<Memory> {
    let mut vecs = KVec::new();
    let (mut left, mut next) = (len, 0);
    while left > 0 {
        let part = left.min([1, 7, 300, 0, 4096, 13, 40_000][next % 7]);
        vecs.push(KVVec::zeroed(part, GFP_KERNEL)?, GFP_KERNEL)?;
        (left, next) = (left - part, next + 1);
    }
    Memory::from_vecs(vecs).map_err(|(error, _)| error)
}

/// The same in pages, of each of which the first bytes are left out.
fn pages(len: usize) -> Result<Memory> {
    let mut parts = KVec::new();
    let mut left = len;
    while left > 0 {
        let part = left.min(PAGE_SIZE - 100);
        let folio = Folio::zeroed(0)?;
        let (offset, len) = (100, part);
        parts.push(BioVec { folio, offset, len }, GFP_KERNEL)?;
        left -= part;
    }
    Memory::from_bio_vecs(parts).map_err(|(error, _)| error)
}

/// Whether these bytes of a memory are those of a pattern, and all others 0.
fn has(memory: &Memory, from: usize, len: usize, seed: u64) -> Result<bool> {
    let mut all = KVVec::zeroed(memory.len(), GFP_KERNEL)?;
    memory.read_at(0, &mut all)?;
    let (before, rest) = all.split_at(from);
    let (bytes, after) = rest.split_at(len);
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    Ok(is_pattern(bytes, seed) && is_zero(before) && is_zero(after))
}

/// Bytes of frames that the side has placed, and gathered, so far.
fn counts(side: &Side) -> Result<(u64, u64)> {
    let domain = side.domain.child(crate::domain::Class::Endpoint)?;
    let stats = domain.target_stats();
    Ok((stats.placed.value(), stats.gathered.value()))
}

/// Writes `len` bytes to `at` of a region of that memory, and reads them from there: the bytes are placed, and
/// gathered, as `direct` says.
fn to_and_from(
    memory: Memory,
    uncached: bool,
    at: usize,
    len: usize,
    direct: (bool, bool),
) -> Result {
    let bench = Bench::new(SOON)?;
    let (a, b, to_b, _) = bench.pair()?;
    let access = Access::READ_WRITE;
    let attributes = Attributes {
        access,
        uncached,
        ..Attributes::default()
    };
    let region = b.domain.register(memory, attributes);
    let region = region.map_err(|(error, _)| error)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    let slice = remote.slice(at as u64, len as u64)?;
    a.ep.write(pattern(len, 3)?, to_b, slice, Options::NONE, 1)?;
    a.went_well(Kind::Write, 1)?;
    a.ep.read(Memory::zeroed(len)?, to_b, slice, Options::NONE, 2)?;
    check(brings(a.went_well(Kind::Read, 2)?, 3))?;
    let all = |is: bool| if is { len as u64 } else { 0 };
    // They are counted after they have left, and so maybe after all is done.
    until(|| counts(&b).is_ok_and(|counts| counts == (all(direct.0), all(direct.1))))?;
    // The initiator has vectors.
    let is_long = len >= SHORTEST as usize;
    until(|| counts(&a).is_ok_and(|counts| counts == (all(is_long), all(is_long))))?;
    let memory = region.close_wait(PATIENCE_MS).map_err(|(error, _)| error)?;
    check(has(&memory, at, len, 3)?)?;
    drop((a, b));
    bench.close()
}

#[kunit_tests(kfabric_rdm_landing)]
mod landing {
    use super::*;

    #[test]
    fn long_payloads_go_straight_from_memory_to_memory_and_short_ones_do_not() -> Result {
        let shortest = SHORTEST as usize;
        for (len, long) in [
            (shortest - 1, false),
            (shortest, true),
            (LARGE, true),
            (HUGE, true),
        ] {
            to_and_from(Memory::zeroed(len + 100)?, false, 77, len, (long, long))?;
        }
        Ok(())
    }

    #[test]
    fn memory_in_pieces_gets_what_comes_and_gives_what_goes() -> Result {
        let long = 40_000;
        for memory in [vecs(long + 100)?, pages(long + 100)?] {
            to_and_from(memory, false, 55, long, (true, true))?;
        }
        Ok(())
    }

    #[test]
    fn memory_that_is_to_be_in_no_cache_is_stored_to_as_it_wants() -> Result {
        for memory in [Memory::zeroed(HUGE)?, vecs(HUGE)?] {
            match to_and_from(memory, true, 0, HUGE, (false, true)) {
                // The architecture has no such stores.
                Ok(()) | Err(EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[test]
    fn long_message_goes_straight_into_its_receive() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        b.ep.recv(vecs(HUGE + 9)?, 1)?;
        a.ep.send(pattern(HUGE, 5)?, to_b, Options::NONE, 2)?;
        let buffer = b.went_well(Kind::Recv, 1)?;
        a.went_well(Kind::Send, 2)?;
        let memory = buffer.into_memory().map_err(|_| EINVAL)?;
        check(has(&memory, 0, HUGE, 5)?)?;
        let all = HUGE as u64;
        check((counts(&a)?, counts(&b)?) == ((0, all), (all, 0)))?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn region_that_is_closed_in_the_midst_of_a_payload_gets_no_more_of_it() -> Result {
        const LEN: usize = 40_000;
        let bench = Bench::new(SOON)?;
        let a = bench.side()?;
        let (region, remote) = a.region(LEN)?;
        let payload = pattern(LEN, 7)?;
        let payload = payload.as_slice().ok_or(EINVAL)?;
        let script = Script::dial(&bench.net, name(X, 1)?, &a.ep.name())?;
        script.meet(&a.ep.name())?;
        let mut header = Header::new(Frame::Write);
        header.flags = Flags::FIRST | Flags::LAST;
        (header.seq, header.key) = (1, remote.slice(0, 0)?.key().raw());
        (header.len, header.total) = (LEN as u32, LEN as u64);
        script.say_bytes(&header.emit(false))?;
        let (first, rest) = payload.split_at(LEN / 2);
        script.say_bytes(first)?;
        until(|| counts(&a).is_ok_and(|(placed, _)| placed == first.len() as u64))?;
        // The peer says nothing more, and keeps nobody.
        let memory = region.close().map_err(|(error, _)| error)?;
        script.say_bytes(rest)?;
        let (done, _) = script.await_kind(Frame::Done)?;
        check(i32::from(done.code) == -EKEYREJECTED.to_errno())?;
        // What became of it is unknown: some of it is there.
        check(done.data >> 8 & 3 == 2)?;
        check(has(&memory, 0, first.len(), 7)?)?;
        // The next frame is understood.
        a.ep.recv(Memory::zeroed(8)?, 9)?;
        let mut header = Header::new(Frame::Send);
        (header.seq, header.ack, header.op) = (2, done.seq, 1);
        (header.context, header.total) = (1, 8);
        script.say(&header, &[0; 8])?;
        a.went_well(Kind::Recv, 9)?;
        drop((script, a));
        bench.close()
    }

    #[test]
    fn region_that_is_closed_in_the_midst_of_a_read_gives_no_more_of_it() -> Result {
        const LEN: usize = 40_000;
        let bench = Bench::new(SOON)?;
        let a = bench.side()?;
        let (region, remote) = a.region(LEN)?;
        let script = Script::dial(&bench.net, name(X, 1)?, &a.ep.name())?;
        script.meet(&a.ep.name())?;
        let mut header = Header::new(Frame::Read);
        (header.seq, header.key) = (1, remote.slice(0, 0)?.key().raw());
        header.total = LEN as u64;
        script.say(&header, &[])?;
        // The link is full then, in the midst of a payload.
        until(|| counts(&a).is_ok_and(|(_, gathered)| gathered > SHORTEST.into()))?;
        region.close().map_err(|(error, _)| error)?;
        script.hears_the_end()?;
        check(a.violations() == 0)?;
        drop((script, a));
        bench.close()
    }
}
