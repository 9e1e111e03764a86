// SPDX-License-Identifier: GPL-2.0

//! Coverage: what is committed was written back and flushed before its completion.

use crate::bench::{finish, zeroed, Act, Bench, DELAY, LEN};
use crate::{cases, ensure};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    committed_ranges_are_covered,
    long_commit_is_covered_to_its_end,
    completion_waits_for_write_back_and_flush,
    remote_data_arrives_after_durability,
}

/// Offsets around the borders of words, lines and pages, with lengths around theirs.
fn committed_ranges_are_covered(bench: &mut Bench) -> Result {
    bench.reset(0)?;
    for line in [0, 64, 4096, 8192] {
        for offset in [0, 1, 7, 8, 9, 63, 64 - 13, 65 - 13, 50 - 13] {
            for len in [1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 4095, 4097] {
                let start = line + offset;
                bench.act_covered(Act::Write(Level::Committed), start..start + len)?;
                bench.act(Act::Write(Level::Delivered), start..start + len)?;
                bench.act_covered(Act::Commit, start..start + len)?;
            }
        }
    }
    for range in [0..LEN, LEN - 1..LEN, 0..1] {
        bench.act_covered(Act::Write(Level::Committed), range.clone())?;
        bench.act_covered(Act::Commit, range)?;
    }
    Ok(())
}

/// A commit that is written back in parts: the window is in the last of them.
fn long_commit_is_covered_to_its_end(bench: &mut Bench) -> Result {
    bench.reset(0)?;
    let long = RemoteRegion::parse(&bench.long.descriptor()?)?;
    for short in [0, 1, 63, 64, 65] {
        let commit = long.slice(short, long.len() - short)?;
        bench.act(Act::Write(Level::Delivered), 0..LEN)?;
        bench.drain()?;
        let posted = bench
            .initiator
            .commit(bench.peer, commit, Options::default(), 0);
        posted.map_err(|refused| refused.error)?;
        let _ = bench.finish()?;
        ensure!(
            bench.observe(&(0..LEN))?,
            "the end of a long commit was not durable"
        );
    }
    Ok(())
}

/// The primitives are held up, so that a completion that does not wait for them is seen.
fn completion_waits_for_write_back_and_flush(bench: &mut Bench) -> Result {
    bench.reset(DELAY)?;
    for _ in 0..200 {
        let range = bench.range(0..LEN);
        bench.act_covered(Act::Write(Level::Committed), range.clone())?;
        bench.act_covered(Act::Commit, range)?;
    }
    Ok(())
}

/// The remote CQ data of a committed write arrives at the peer when the bytes are durable.
fn remote_data_arrives_after_durability(bench: &mut Bench) -> Result {
    bench.reset(DELAY)?;
    for i in 0..200 {
        let range = bench.range(0..LEN);
        let mut bytes = zeroed(range.len())?;
        bench.rng.fill(&mut bytes);
        bench.drain()?;

        bench
            .target
            .recv(Buffer::empty(), 0)
            .map_err(|refused| refused.error)?;
        let remote = bench.remote.slice(range.start as u64, range.len() as u64)?;
        let options = Options {
            level: Level::Committed,
            data: Some(i),
            ..Options::default()
        };
        let local = Memory::from_vec(bytes);
        bench
            .initiator
            .write(local, bench.peer, remote, options, 0)
            .map_err(|refused| refused.error)?;

        let arrived = finish(&bench.target_cq)?;
        let durable = bench.observe(&range)?;
        let _ = bench.finish()?;
        let data = arrived.result.ok().and_then(|success| success.data);
        ensure!(data == Some(i), "data {data:?} arrived instead of {i}");
        ensure!(
            durable,
            "the data of {range:?} arrived before its bytes were durable"
        );
    }
    Ok(())
}
