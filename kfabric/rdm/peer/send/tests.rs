// SPDX-License-Identifier: GPL-2.0

//! Payloads that links leave where they are.

use super::super::super::testing::{
    brings, check, is_pattern, pattern, pause, until, Act, Bench, Fault, Keep, Place, Side, A,
    HUGE, SMALL, SOON,
};
use super::SHORTEST_SPLICED;
use crate::memory::Memory;
use crate::mr::MemoryRegion;
use crate::op::{Kind, Options};
use kernel::prelude::*;

/// Bytes of frames that the side has gathered, and those of them that stayed where they are, so far.
fn counts(side: &Side) -> Result<(u64, u64)> {
    let domain = side.domain.child(crate::domain::Class::Endpoint)?;
    let stats = domain.target_stats();
    Ok((stats.gathered.value(), stats.spliced.value()))
}

/// Waits until those are the counts: what a link has taken is counted afterwards.
fn counted(side: &Side, expected: (u64, u64)) -> Result {
    until(|| counts(side) == Ok(expected))
}

/// Waits until a region has the bytes of a pattern, and nothing else.
fn await_pattern(region: &MemoryRegion, len: usize, seed: u64) -> Result {
    let mut bytes = KVVec::zeroed(len, GFP_KERNEL)?;
    until(|| region.read_at(0, &mut bytes).is_ok() && is_pattern(&bytes, seed))
}

/// Nothing completes for some time.
fn nothing_completes(side: &Side) -> Result {
    pause(50);
    check(side.cq.read().is_none())
}

#[kunit_tests(kfabric_rdm_splice)]
mod splice {
    use super::*;

    #[test]
    fn operation_that_is_acknowledged_waits_for_the_holds_of_the_link() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        let (region, remote) = b.region(HUGE)?;
        let kept = bench.net.keep(Keep::UntilTold);
        let slice = remote.slice(0, HUGE as u64)?;
        a.ep.write(pattern(HUGE, 3)?, to_b, slice, Options::NONE, 1)?;
        await_pattern(&region, HUGE, 3)?;
        // What came afterwards has been acknowledged, and is not held.
        a.reaches(&b, to_b)?;
        nothing_completes(&a)?;
        kept.release();
        check(brings(a.went_well(Kind::Write, 1)?, 3))?;
        nothing_completes(&a)?;
        counted(&a, (HUGE as u64, HUGE as u64))?;
        drop((kept, region, a, b));
        bench.close()
    }

    #[test]
    fn long_message_waits_for_the_holds_of_the_link() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        let kept = bench.net.keep(Keep::UntilTold);
        b.ep.recv(Memory::zeroed(HUGE)?, 1)?;
        a.ep.send(pattern(HUGE, 4)?, to_b, Options::NONE, 2)?;
        check(brings(b.went_well(Kind::Recv, 1)?, 4))?;
        nothing_completes(&a)?;
        kept.release();
        check(brings(a.went_well(Kind::Send, 2)?, 4))?;
        drop((kept, a, b));
        bench.close()
    }

    #[test]
    fn operation_waits_for_the_holds_of_a_link_that_is_lost_and_of_the_next() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        let (region, remote) = b.region(HUGE)?;
        let kept = bench.net.keep(Keep::UntilTold);
        // In the midst of its first piece, after the hello.
        bench.net.plan(Fault {
            from: A,
            frame: 1,
            place: Place::Payload,
            act: Act::Cut,
        });
        let slice = remote.slice(0, HUGE as u64)?;
        a.ep.write(pattern(HUGE, 5)?, to_b, slice, Options::NONE, 1)?;
        await_pattern(&region, HUGE, 5)?;
        a.reaches(&b, to_b)?;
        check(bench.net.hits() == 1 && bench.net.dials() >= 2)?;
        nothing_completes(&a)?;
        kept.release();
        check(brings(a.went_well(Kind::Write, 1)?, 5))?;
        nothing_completes(&a)?;
        drop((kept, region, a, b));
        bench.close()
    }

    #[test]
    fn operation_that_fails_waits_for_the_holds_of_the_link() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        let (region, remote) = b.region(HUGE)?;
        a.reaches(&b, to_b)?;
        let kept = bench.net.keep(Keep::UntilTold);
        bench.net.hold(true);
        let slice = remote.slice(0, HUGE as u64)?;
        a.ep.write(pattern(HUGE, 6)?, to_b, slice, Options::NONE, 1)?;
        until(|| kept.count() > 0)?;
        // It says goodbye.
        drop((region, b));
        bench.net.hold(false);
        nothing_completes(&a)?;
        // Who came later is told.
        a.send(to_b, 2)?;
        a.failed(Kind::Send, 2, EHOSTUNREACH)?;
        nothing_completes(&a)?;
        kept.release();
        a.failed(Kind::Write, 1, EHOSTUNREACH)?;
        nothing_completes(&a)?;
        drop((kept, a));
        bench.close()
    }

    #[test]
    fn close_ends_what_only_a_link_has_held() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        let (region, remote) = b.region(HUGE)?;
        a.reaches(&b, to_b)?;
        let kept = bench.net.keep(Keep::UntilClosed);
        bench.net.hold(true);
        let slice = remote.slice(0, HUGE as u64)?;
        a.ep.write(pattern(HUGE, 7)?, to_b, slice, Options::NONE, 1)?;
        until(|| kept.count() > 0)?;
        check(a.cq.read().is_none())?;
        let Side { ep, av, cq, domain } = a;
        ep.close().map_err(|(error, _)| error)?;
        check(kept.count() == 0)?;
        let done = cq.read().ok_or(ENODATA)?;
        check(done.result.is_err_and(|failure| failure.error == ECANCELED))?;
        check(brings(done.buffer, 7))?;
        check(cq.read().is_none())?;
        bench.net.hold(false);
        drop((kept, region, b, av, cq, domain));
        bench.close()
    }

    #[test]
    fn what_is_short_or_read_by_a_peer_or_finds_no_room_is_copied() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, to_a) = bench.pair()?;
        let (region, remote) = b.region(HUGE)?;
        let kept = bench.net.keep(Keep::UntilTold);
        let short = SHORTEST_SPLICED - 1;
        let slice = remote.slice(0, short as u64)?;
        a.ep.write(pattern(short, 1)?, to_b, slice, Options::NONE, 1)?;
        a.went_well(Kind::Write, 1)?;
        counted(&a, (short as u64, 0))?;
        // What is read of this side is its region's.
        let (of_a, to_read) = a.region(HUGE)?;
        let slice = to_read.slice(0, HUGE as u64)?;
        b.ep.read(Memory::zeroed(HUGE)?, to_a, slice, Options::NONE, 2)?;
        b.went_well(Kind::Read, 2)?;
        counted(&a, ((short + HUGE) as u64, 0))?;
        of_a.close().map_err(|(error, _)| error)?;
        // A link that keeps nothing.
        kept.set(Keep::Nothing);
        let slice = remote.slice(0, HUGE as u64)?;
        a.ep.write(pattern(HUGE, 3)?, to_b, slice, Options::NONE, 3)?;
        a.went_well(Kind::Write, 3)?;
        counted(&a, ((short + 2 * HUGE) as u64, 0))?;
        // The shortest that is not copied.
        kept.set(Keep::UntilTold);
        let slice = remote.slice(0, SHORTEST_SPLICED as u64)?;
        let shortest = pattern(SHORTEST_SPLICED, 4)?;
        a.ep.write(shortest, to_b, slice, Options::NONE, 4)?;
        await_pattern(&region, SHORTEST_SPLICED, 4)?;
        nothing_completes(&a)?;
        kept.release();
        a.went_well(Kind::Write, 4)?;
        check(counts(&a)?.1 == SHORTEST_SPLICED as u64)?;
        // Messages that are short go before it, and are not held.
        check(SMALL < SHORTEST_SPLICED)?;
        drop((kept, region, a, b));
        bench.close()
    }
}
