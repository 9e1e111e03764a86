// SPDX-License-Identifier: GPL-2.0

//! Engines over links in memory that may keep little of their peers.

use kernel::prelude::*;

#[kunit_tests(kfabric_rdm_crowd)]
mod crowd {
    use super::super::super::super::bounds::Bounds;
    use super::super::super::super::testing::{brings, check, pause, until, Bench, Side};
    use super::super::super::super::testing::{A, B, SHORT, SMALL, SOON};
    use super::super::GRACE_MS;
    use crate::av::{Address, Name, ENTRY};
    use crate::memory::Memory;
    use crate::op::{Kind, Outcome};
    use crate::proto::session::past::Past;
    use kernel::prelude::*;

    const ROOMY: Bounds = Bounds {
        links: 100,
        sessions: 100,
        past: 100,
    };

    /// An endpoint, and others that it knows, at the addresses after its own.
    fn among(bench: &Bench, count: usize) -> Result<(Side, KVec<(Side, Address)>)> {
        let a = bench.side()?;
        let mut others = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            let side = bench.side()?;
            let to = a.av.insert(&side.ep.name())?;
            others.push((side, to), GFP_KERNEL)?;
        }
        Ok((a, others))
    }

    /// How many links there are between the first domain and the n-th after it.
    fn links(bench: &Bench, nth: usize) -> usize {
        let wires = bench.net.between(A, A + nth as u8);
        wires.map_or(usize::MAX, |wires| wires.len())
    }

    fn all_links(bench: &Bench, count: usize) -> usize {
        (1..=count).map(|nth| links(bench, nth)).sum()
    }

    /// Whether a side has forgotten all its peers, and so many of them at least: a dial that is late may make one once
    /// more, for a moment.
    fn has_forgotten(side: &Side, least: u64) -> bool {
        let forgotten = side.peers().forgotten.value();
        forgotten >= least && forgotten == side.peers().made.value()
    }

    /// Until a link counts as idle.
    fn grow_old() {
        pause(i64::from(GRACE_MS) + 20);
    }

    #[test]
    fn links_beyond_the_bound_are_closed_and_made_again() -> Result {
        const OTHERS: usize = 6;
        let bench = Bench::with_bounds(
            SOON,
            Bounds {
                links: 2,
                past: 3,
                ..ROOMY
            },
        )?;
        let (a, others) = among(&bench, OTHERS)?;
        for _ in 0..3 {
            for (side, to) in &others {
                a.reaches(side, *to)?;
            }
            // One more may go, if one has just ended while those that may go were sought.
            until(|| all_links(&bench, OTHERS) <= 2)?;
        }
        until(|| a.peers().forgotten.value() + 2 >= a.peers().made.value())?;
        check(a.peers().idle.value() >= 3 * OTHERS as u64 - 4)?;
        // The others are told, and forget as well.
        let idle = || others.iter().map(|(side, _)| side.peers().idle.value());
        until(|| idle().sum::<u64>() == a.peers().idle.value())?;
        // They may begin as well.
        for (side, _) in &others {
            let to_a = side.av.insert(&a.ep.name())?;
            side.reaches(&a, to_a)?;
        }
        let all = others.iter().map(|(side, _)| side);
        check(Iterator::chain(all, [&a]).all(|side| side.violations() == 0))?;
        drop((a, others));
        bench.close()
    }

    #[test]
    fn link_that_was_not_used_for_longest_goes() -> Result {
        let bench = Bench::with_bounds(SOON, Bounds { links: 3, ..ROOMY })?;
        let (a, others) = among(&bench, 4)?;
        for nth in [0, 1, 2, 0] {
            let (side, to) = &others[nth];
            a.reaches(side, *to)?;
            grow_old();
        }
        let (side, to) = &others[3];
        a.reaches(side, *to)?;
        until(|| all_links(&bench, 4) == 3)?;
        check((links(&bench, 2), links(&bench, 4)) == (0, 1))?;
        drop((a, others));
        bench.close()
    }

    #[test]
    fn link_with_something_outstanding_stays() -> Result {
        let bench = Bench::with_bounds(SOON, Bounds { links: 0, ..ROOMY })?;
        let (a, b, to_b, _) = bench.pair()?;
        a.send(to_b, 1)?;
        pause(6 * i64::from(GRACE_MS));
        check(bench.net.dials() == 1 && links(&bench, 1) == 1)?;
        check(a.peers().idle.value() == 0 && b.peers().idle.value() == 0)?;
        b.ep.recv(Memory::zeroed(SMALL)?, 2)?;
        a.went_well(Kind::Send, 1)?;
        check(brings(b.went_well(Kind::Recv, 2)?, 1))?;
        until(|| links(&bench, 1) == 0)?;
        // Nothing is left at either.
        until(|| [&a, &b].iter().all(|side| has_forgotten(side, 1)))?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn session_that_both_use_while_it_is_closed_loses_nothing() -> Result {
        const ROUNDS: u64 = 40;
        let bench = Bench::with_bounds(SOON, Bounds { links: 0, ..ROOMY })?;
        let (a, b, to_b, to_a) = bench.pair()?;
        for round in 0..ROUNDS {
            // Around the moment at which both ask for the end.
            pause(i64::from(GRACE_MS) - 10 + round as i64 % 20);
            for (side, to) in [(&a, to_b), (&b, to_a)] {
                side.ep.recv(Memory::zeroed(SMALL)?, 2 * round)?;
                side.send(to, 2 * round + 1)?;
            }
            for side in [&a, &b] {
                for (nth, (_, context, status)) in side.gather(2)?.iter().enumerate() {
                    check(*context == 2 * round + nth as u64 && status.is_ok())?;
                }
            }
        }
        check(a.peers().idle.value() > ROUNDS / 10)?;
        check(a.violations() == 0 && b.violations() == 0)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn who_finds_no_session_waits_for_one() -> Result {
        const OTHERS: usize = 6;
        let bench = Bench::with_bounds(
            SOON,
            Bounds {
                sessions: 2,
                ..ROOMY
            },
        )?;
        let (a, others) = among(&bench, OTHERS)?;
        for (side, to) in &others {
            side.ep.recv(Memory::zeroed(SMALL)?, 1)?;
            a.send(*to, 2)?;
        }
        for (_, _, status) in &a.gather(OTHERS)? {
            check(status.is_ok())?;
        }
        for (side, _) in &others {
            check(brings(side.went_well(Kind::Recv, 1)?, 2))?;
        }
        // So do those who come: they find the link closed, and come again.
        for (side, _) in &others {
            let to_a = side.av.insert(&a.ep.name())?;
            side.reaches(&a, to_a)?;
        }
        check(a.peers().made.value() - a.peers().forgotten.value() <= 2)?;
        drop((a, others));
        bench.close()
    }

    #[test]
    fn who_finds_no_session_that_could_end_is_told_so() -> Result {
        let bench = Bench::with_bounds(
            SHORT,
            Bounds {
                sessions: 1,
                ..ROOMY
            },
        )?;
        let (a, b, to_b, to_a) = bench.pair()?;
        let c = bench.side()?;
        let (a_knows_c, c_knows_b) = (a.av.insert(&c.ep.name())?, c.av.insert(&b.ep.name())?);
        b.reaches(&a, to_a)?;
        // No receive is there for it.
        a.send(to_b, 1)?;
        grow_old();
        c.send(c_knows_b, 1)?;
        c.failed(Kind::Send, 1, EHOSTUNREACH)?;
        check(b.peers().refused.value() == 1)?;
        a.send(a_knows_c, 2)?;
        let done = a.next()?;
        let failure = done.result.err().ok_or(EINVAL)?;
        check(done.context == 2 && failure.error == ENOBUFS)?;
        check(failure.outcome == Outcome::NotExecuted)?;
        b.ep.recv(Memory::zeroed(SMALL)?, 3)?;
        a.went_well(Kind::Send, 1)?;
        b.went_well(Kind::Recv, 3)?;
        a.reaches(&c, a_knows_c)?;
        c.reaches(&b, c_knows_b)?;
        drop((a, b, c));
        bench.close()
    }

    #[test]
    fn peer_that_was_forgotten_is_a_small_record() -> Result {
        // A node of the tree: three words, the key, and the value; memory comes in powers of two.
        const RECORD: usize = 3 * size_of::<usize>() + size_of::<Name>() + size_of::<Past>();
        pr_info!(
            "an idle peer: {} bytes of {}, and {}\n",
            RECORD,
            RECORD.next_power_of_two(),
            ENTRY
        );
        check(RECORD.next_power_of_two() + ENTRY <= 256)?;
        let bench = Bench::with_bounds(SOON, Bounds { links: 0, ..ROOMY })?;
        let (a, b, to_b, _) = bench.pair()?;
        for round in 1..4 {
            a.reaches(&b, to_b)?;
            until(|| [&a, &b].iter().all(|side| has_forgotten(side, round)))?;
            // The ends of the link went with it: the hosts are left.
            until(|| bench.net.alive() == 2)?;
        }
        check(bench.net.between(A, B)?.is_empty())?;
        drop((a, b));
        bench.close()
    }
}
