// SPDX-License-Identifier: GPL-2.0

//! A region that is registered as uncached: nothing is left to write back, and still nothing is
//! durable before the fence.

use crate::bench::{attributes, check, in_window, zeroed, Act, Bench, AT, LEN, REGION, WINDOW};
use crate::{cases, ensure};
use core::ops::Range as Span;
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    uncached_commit_has_nothing_to_write_back,
    uncached_words_are_settled_at_once,
    uncached_receive_and_vectors_go_around_the_cache,
    uncached_volatile_region_is_stored_around_the_cache,
    registration_as_uncached_writes_back_what_was_cached,
    uncached_bytes_without_a_commit_can_be_lost,
    cut_of_an_uncached_region_loses_no_committed_byte,
}

impl Bench {
    /// Fails unless what was done since the last drain went around the cache, and committed bytes
    /// were flushed. A worker may have copied it in parts.
    fn went_around(&mut self, what: &str, range: &Span<usize>) -> Result {
        let flushed = self.observe(range)?;
        ensure!(
            self.write_backs == 0,
            "{what} of {range:?}: {} write-backs",
            self.write_backs
        );
        ensure!(
            range.is_empty() || self.arounds > 0,
            "{what} of {range:?} was not stored around the cache"
        );
        ensure!(!flushed, "{what} of {range:?} was flushed");
        Ok(())
    }
}

/// Offsets around the borders of words, lines and pages, with lengths around theirs: a commit finds
/// all lines written, and flushes.
fn uncached_commit_has_nothing_to_write_back(bench: &mut Bench) -> Result {
    bench.reset(0)?;
    for line in [0, 64, 4096] {
        for offset in [0, 1, 3, 7, 8, 63, 64 - 13, 65 - 13] {
            for len in [1, 3, 4, 7, 8, 9, 31, 32, 63, 64, 65, 129, 4097] {
                let range = line + offset..line + offset + len;
                bench.act_covered(Act::Write(Level::Committed), range.clone())?;
                ensure!(
                    bench.write_backs == 0 && bench.arounds > 0,
                    "committed write of {range:?}: {} write-backs, {} stores around the cache",
                    bench.write_backs,
                    bench.arounds
                );
                bench.act(Act::Write(Level::Delivered), range.clone())?;
                // Covered by the write, whose bytes are with the memory; the commit flushes.
                bench.act(Act::Commit, range.clone())?;
                ensure!(
                    bench.write_backs == 0,
                    "commit of {range:?}: {} write-backs",
                    bench.write_backs
                );
                let place = in_window(&range);
                ensure!(
                    bench.model.durable()[place.clone()] == bench.shadow[place],
                    "commit of {range:?} completed before its bytes were durable"
                );
            }
        }
    }
    bench.cut()
}

/// Words that are stored or changed at once are in the cache for a moment: they are written back.
fn uncached_words_are_settled_at_once(bench: &mut Bench) -> Result {
    bench.reset(0)?;
    let sum = AtomicAction::update(AtomicOp::Sum, Datatype::U64);
    // The region begins within a word.
    let first = REGION.start.next_multiple_of(8) - REGION.start;
    for n in 0..16 {
        let at = first + n * 40;
        bench.drain()?;
        bench.region.store_u64(at, n as u64)?;
        bench.observe(&(0..0))?;
        ensure!(bench.write_backs == 1, "a stored word was not written back");
        let _ = bench.region.atomic(at, sum, 5, 0)?;
        bench.observe(&(0..0))?;
        ensure!(
            bench.write_backs == 2,
            "a changed word was not written back"
        );
        bench.region.commit(at, 8)?;
        bench.observe(&(0..0))?;
        ensure!(bench.write_backs == 2, "a commit wrote words back");
        let place = in_window(&(at..at + 8));
        ensure!(
            bench.model.durable()[place] == (n as u64 + 5).to_ne_bytes(),
            "a committed word is not durable"
        );
    }
    Ok(())
}

/// A message that is received into it, injected bytes, and vectors of buffers.
fn uncached_receive_and_vectors_go_around_the_cache(bench: &mut Bench) -> Result {
    bench.reset(0)?;
    for (from, len) in [(0, 1), (5, 64), (100, 1000), (3, 10_000)] {
        let range = from..from + len;
        bench.drain()?;
        let slice = bench.region.slice(from, len)?;
        let received = bench.target.recv(slice, 0);
        received.map_err(|refused| refused.error)?;
        let sent = bench
            .initiator
            .send(Memory::zeroed(len)?, bench.peer, Options::default(), 0);
        sent.map_err(|refused| refused.error)?;
        drop(crate::bench::finish(&bench.target_cq)?);
        let _ = bench.finish()?;
        bench.went_around("a message", &range)?;

        let mut vecs = KVec::new();
        for part in [len / 3, len - len / 3] {
            vecs.push(zeroed(part)?, GFP_KERNEL)?;
        }
        let local = Memory::from_vecs(vecs).map_err(|(error, _)| error)?;
        bench.drain()?;
        let remote = bench.remote.slice(from as u64, len as u64)?;
        let written = bench
            .initiator
            .write(local, bench.peer, remote, Options::default(), 0);
        written.map_err(|refused| refused.error)?;
        let _ = bench.finish()?;
        bench.went_around("a vector", &range)?;

        bench.drain()?;
        bench.region.write_at(from, &zeroed(len)?)?;
        bench.went_around("its owner's copy", &range)?;
    }
    let remote = bench.remote.slice(77, 21)?;
    bench.drain()?;
    let injected =
        bench
            .initiator
            .inject_write(&[7; 21], bench.peer, remote, Options::default(), 0);
    injected.map_err(|refused| refused.error)?;
    let _ = bench.finish()?;
    bench.went_around("injected bytes", &(77..98))
}

/// The hint is for volatile memory too; without it, nothing goes around the cache.
fn uncached_volatile_region_is_stored_around_the_cache(bench: &mut Bench) -> Result {
    for uncached in [true, false] {
        let memory = Memory::zeroed(5000)?;
        let region = bench.domain.register(memory, attributes(uncached));
        let region = region.map_err(|(error, _)| error)?;
        ensure!(
            region.is_uncached() == uncached,
            "the region forgets its hint"
        );
        let remote = RemoteRegion::parse(&region.descriptor()?)?.slice(1, 4999)?;
        bench.drain()?;
        bench.probe.watch(0, u64::MAX, 0);
        let local = Memory::zeroed(4999)?;
        let written = bench
            .initiator
            .write(local, bench.peer, remote, Options::default(), 0);
        written.map_err(|refused| refused.error)?;
        let _ = bench.finish()?;
        let mut around = 0;
        while let Some(event) = bench.probe.take(&mut bench.lines)? {
            if let crate::sys::Event::Around { len, .. } = event {
                around += len;
            }
        }
        bench.probe.watch(bench.base, WINDOW as u64, 0);
        let expected = if uncached { 4999 } else { 0 };
        ensure!(around == expected, "{around} bytes around the cache");
        drop(region.close());
    }
    Ok(())
}

/// What its owner stored before has to be committed as well.
fn registration_as_uncached_writes_back_what_was_cached(bench: &mut Bench) -> Result {
    bench.reset(0)?;
    let mut memory = Memory::persistent(bench.pmem(), AT + 640, 1000)?;
    memory.write_at(0, &[0x5a; 1000])?;
    bench.observe(&(0..0))?;
    let region = bench.domain.register(memory, attributes(true));
    let region = region.map_err(|(error, _)| error)?;
    region.commit(0, 1000)?;
    bench.observe(&(0..0))?;
    ensure!(
        bench.model.durable()[640..1640] == [0x5a; 1000],
        "bytes that were cached before the registration are not durable"
    );
    drop(region.close());
    Ok(())
}

/// The model has teeth: what went around the cache and was not fenced is lost in some cuts.
fn uncached_bytes_without_a_commit_can_be_lost(bench: &mut Bench) -> Result {
    let mut lost = 0;
    bench.reset(0)?;
    bench.act(Act::Write(Level::Delivered), 100..200)?;
    bench.window.read_at(0, &mut bench.current)?;
    for _ in 0..200 {
        bench
            .model
            .cut(&mut bench.rng, &bench.current, &mut bench.image)
            .map_err(|_| EINVAL)?;
        check("an image", &bench.ledger, &bench.image)?;
        let place = in_window(&(100..200));
        lost += usize::from(bench.image[place.clone()] != bench.shadow[place]);
    }
    ensure!(lost > 0, "an uncached write survived each of 200 cuts");
    Ok(())
}

/// Random operations, each alone; the power is cut after each.
fn cut_of_an_uncached_region_loses_no_committed_byte(bench: &mut Bench) -> Result {
    bench.reset(0)?;
    for _ in 0..bench.cuts / 4 {
        let (act, range) = (bench.random_act(), bench.range(0..LEN));
        bench.act(act, range)?;
        ensure!(bench.write_backs == 0, "{act:?} wrote lines back");
        bench.cut()?;
    }
    ensure!(bench.ledger.exact() > 0, "at the end no byte was committed");
    Ok(())
}
