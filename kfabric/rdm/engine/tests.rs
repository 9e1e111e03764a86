// SPDX-License-Identifier: GPL-2.0

//! Engines over links in memory: how they are met, and how they end.

use super::super::testing::{check, pattern, Bench, Side};
use crate::av::Address;
use crate::op::Options;
use kernel::prelude::*;
use kernel::time::{Delta, Instant, Monotonic};

/// Bytes of a message that goes whole, of one that is asked for, and of one that goes in pieces.
const SMALL: usize = 100;
const LARGE: usize = 9000;
const HUGE: usize = 250_000;

/// Whether something took less time than that.
fn is_within(begin: &Instant<Monotonic>, millis: i64) -> bool {
    begin.elapsed() < Delta::from_millis(millis)
}

/// Sends a small message.
fn send(from: &Side, to: Address, context: u64) -> Result {
    let message = pattern(SMALL, context)?;
    from.ep.send(message, to, Options::NONE, context)?;
    Ok(())
}

#[kunit_tests(kfabric_rdm_engine)]
mod engine {
    use super::super::super::testing::{is_pattern, A, B, SHORT, SOON};
    use super::super::super::testing::{pause, until, Act, Fault, Place, Refusal};
    use super::super::super::timeouts::Timeouts;
    use super::*;
    use crate::memory::Memory;
    use crate::op::{Buffer, Kind, Outcome};

    /// Has a message go from one side to another.
    fn works(from: &Side, to: &Side, address: Address) -> Result {
        to.ep.recv(Memory::zeroed(SMALL)?, 900)?;
        send(from, address, 901)?;
        let memory = to.went_well(Kind::Recv, 900)?.into_memory();
        let memory = memory.map_err(|_| EINVAL)?;
        check(is_pattern(memory.as_slice().ok_or(EINVAL)?, 901))?;
        from.went_well(Kind::Send, 901)?;
        Ok(())
    }

    #[test]
    fn peer_that_is_known_not_to_be_there_is_not_waited_for() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        const MESSAGES: usize = 40;
        for error in [ECONNREFUSED, EHOSTUNREACH, ENETUNREACH] {
            for at_once in [false, true] {
                let count = usize::MAX;
                bench.net.refuse(Some(Refusal {
                    error,
                    at_once,
                    count,
                }));
                let begin = Instant::<Monotonic>::now();
                for n in 0..MESSAGES {
                    send(&a, to_b, n as u64)?;
                }
                for (at, ended) in a.gather(MESSAGES)?.iter().enumerate() {
                    let (kind, context, status) = ended;
                    let failure = status.err().ok_or(EINVAL)?;
                    check(*kind == Kind::Send && *context == at as u64)?;
                    check(failure.error == EHOSTUNREACH)?;
                    check(failure.outcome == Outcome::NotExecuted)?;
                }
                check(is_within(&begin, 3000))?;
            }
        }
        bench.net.refuse(None);
        works(&a, &b, to_b)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn dial_that_may_go_well_later_is_tried_again() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        for error in [EAGAIN, ENOMEM, ENOBUFS, ETIMEDOUT] {
            for at_once in [false, true] {
                bench.net.refuse(Some(Refusal {
                    error,
                    at_once,
                    count: 3,
                }));
                let dials = bench.net.dials();
                bench.net.cut();
                works(&a, &b, to_b)?;
                check(bench.net.dials() >= dials + 4)?;
            }
        }
        drop((a, b));
        bench.close()
    }

    #[test]
    fn peer_that_never_answers_is_given_up() -> Result {
        let bench = Bench::new(SHORT)?;
        let (a, b, to_b, _) = bench.pair()?;
        bench.net.keep_back(true);
        send(&a, to_b, 1)?;
        let done = a.next()?;
        let failure = done.result.err().ok_or(EINVAL)?;
        check(failure.error == EHOSTUNREACH && failure.outcome == Outcome::NotExecuted)?;
        bench.net.keep_back(false);
        works(&a, &b, to_b)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn of_two_that_dial_at_once_one_link_stays() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, to_a) = bench.pair()?;
        for round in 0..20 {
            for side in [&a, &b] {
                side.ep.recv(Memory::zeroed(SMALL)?, 0)?;
            }
            bench.net.keep_back(true);
            let dials = bench.net.dials();
            bench.net.cut();
            send(&a, to_b, 1)?;
            send(&b, to_a, 1)?;
            until(|| bench.net.dials() >= dials + 2)?;
            bench.net.keep_back(false);
            for side in [&a, &b] {
                for (at, (_, context, status)) in side.gather(2)?.iter().enumerate() {
                    check(*context == at as u64 && status.is_ok())?;
                }
            }
            let links = || bench.net.between(A, B).map_or(0, |wires| wires.len());
            until(|| links() == 1)?;
            if round == 0 {
                check(bench.net.dials() == 2)?;
            }
            check(links() == 1)?;
        }
        check(a.violations() == 0 && b.violations() == 0)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn message_that_waits_at_its_peer_is_taken_back() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, to_a) = bench.pair()?;
        works(&a, &b, to_b)?;
        works(&b, &a, to_a)?;
        for len in [0, SMALL, LARGE] {
            let message = pattern(len, 1)?;
            let id = a.ep.send(message, to_b, Options::NONE, 1)?;
            pause(20);
            a.ep.cancel(id)?;
            let done = a.next()?;
            let failure = done.result.err().ok_or(EINVAL)?;
            check(failure.error == ECANCELED && failure.outcome == Outcome::NotExecuted)?;
            check(a.ep.cancel(id) == Err(ENOENT))?;
            // Nothing of it is left there.
            works(&a, &b, to_b)?;
        }
        // Before there is a link.
        bench.net.keep_back(true);
        bench.net.cut();
        let id = a.ep.send(pattern(SMALL, 1)?, to_b, Options::NONE, 2)?;
        pause(20);
        a.ep.cancel(id)?;
        a.failed(Kind::Send, 2, ECANCELED)?;
        bench.net.keep_back(false);
        works(&a, &b, to_b)?;
        check(a.cq.read().is_none() && b.cq.read().is_none())?;
        drop((a, b));
        bench.close()
    }

    /// What becomes of the link before a side closes that has much under way over it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Link {
        Live,
        Mute,
        Cut,
        /// It is there, but nobody is woken.
        Deaf,
    }

    fn closes_in_time(link: Link) -> Result {
        let bench = Bench::new(Timeouts {
            // The peer can answer in that time, if anybody can.
            settle: 2_000_000_000,
            ..match link {
                Link::Live => SOON,
                _ => SHORT,
            }
        })?;
        let (a, b, to_b, to_a) = bench.pair()?;
        works(&a, &b, to_b)?;
        works(&b, &a, to_a)?;
        let (region, remote) = b.region(HUGE)?;
        let none = Options::NONE;
        // They wait at B for receives, and for credit.
        const MESSAGES: u64 = 150;
        for n in 0..MESSAGES {
            send(&a, to_b, n)?;
        }
        pause(50);
        // A message comes in, of which the last piece stays away.
        let act = match link {
            Link::Mute => Some(Act::Mute),
            Link::Cut => Some(Act::Cut),
            Link::Live | Link::Deaf => None,
        };
        for wire in &bench.net.between(A, B)? {
            if let Some(act) = act {
                wire.inject(Fault {
                    from: B,
                    frame: 3,
                    place: Place::Payload,
                    act,
                });
            }
        }
        if link == Link::Cut {
            bench.net.refuse(Some(Refusal {
                error: ECONNREFUSED,
                at_once: false,
                count: usize::MAX,
            }));
        }
        a.ep.recv(Memory::zeroed(HUGE)?, 1000)?;
        a.ep.recv(Buffer::empty(), 1001)?;
        b.ep.send(pattern(HUGE, 5)?, to_a, none, 1)?;
        let slice = remote.slice(0, HUGE as u64)?;
        a.ep.write(pattern(HUGE, 5)?, to_b, slice, none, 1002)?;
        a.ep.read(Memory::zeroed(HUGE)?, to_b, slice, none, 1003)?;
        match link {
            Link::Deaf => bench.net.hold(true),
            Link::Live => pause(1),
            _ => until(|| bench.net.hits() == 1)?,
        }
        let begin = Instant::<Monotonic>::now();
        let Side {
            ep,
            av,
            cq,
            domain,
            hub,
        } = a;
        check(ep.close().is_ok())?;
        pr_info!(
            "{:?}: closed in {} us\n",
            link,
            begin.elapsed().as_nanos() / 1000
        );
        check(is_within(&begin, 5000))?;
        let mut ended = [false; 1004];
        while let Some(done) = cq.read() {
            let place = ended.get_mut(done.context as usize).ok_or(EINVAL)?;
            check(!core::mem::replace(place, true))?;
            match (done.result, done.context) {
                // Those that nobody took; what became of those is known if the peer could say so.
                (Err(failure), 0..MESSAGES) => {
                    check(failure.error == ECANCELED)?;
                    let known = failure.outcome == Outcome::NotExecuted;
                    check(known || link != Link::Live)?;
                }
                (Err(failure), _) => check(failure.error == ECANCELED)?,
                (Ok(_), 0..MESSAGES | 1001) => check(false)?,
                (Ok(_), _) => {}
            }
        }
        let all = Iterator::chain(ended[..MESSAGES as usize].iter(), &ended[1000..]);
        for ended in all {
            check(*ended)?;
        }
        bench.net.hold(false);
        bench.net.refuse(None);
        // The other side learns of it, or finds nobody, or gives up; nothing holds its region.
        pause(1000);
        let done = b.next()?;
        check(done.kind == Kind::Send && done.context == 1)?;
        region.close_wait(20_000).map_err(|(error, _)| error)?;
        b.ep.recv(Buffer::empty(), 2)?;
        pause(20);
        check(b.cq.read().is_none())?;
        drop((av, cq, domain, hub, b));
        bench.close()
    }

    #[test]
    fn close_ends_everything_over_a_link_that_lives() -> Result {
        closes_in_time(Link::Live)
    }

    #[test]
    fn close_ends_everything_over_a_link_that_is_mute() -> Result {
        closes_in_time(Link::Mute)
    }

    #[test]
    fn close_ends_everything_over_a_link_that_broke() -> Result {
        closes_in_time(Link::Cut)
    }

    #[test]
    fn close_ends_everything_over_a_link_that_wakes_nobody() -> Result {
        closes_in_time(Link::Deaf)
    }

    #[test]
    fn receive_that_has_begun_ends_with_the_close() -> Result {
        let bench = Bench::new(SHORT)?;
        let (a, b, to_b, to_a) = bench.pair()?;
        works(&a, &b, to_b)?;
        works(&b, &a, to_a)?;
        pause(20);
        for wire in &bench.net.between(A, B)? {
            // After the announcement, in the midst of the pieces.
            wire.inject(Fault {
                from: B,
                frame: 2,
                place: Place::Payload,
                act: Act::Mute,
            });
        }
        a.ep.recv(Memory::zeroed(HUGE)?, 1)?;
        b.ep.send(pattern(HUGE, 5)?, to_a, Options::NONE, 2)?;
        until(|| bench.net.hits() == 1)?;
        check(a.cq.read().is_none())?;
        check(a.ep.close().is_ok())?;
        let done = a.cq.read().ok_or(ENODATA)?;
        let failure = done.result.err().ok_or(EINVAL)?;
        check(done.context == 1 && failure.error == ECANCELED)?;
        check(failure.outcome == Outcome::Unknown && a.cq.read().is_none())?;
        check(b.next()?.result.is_err())?;
        drop((a.av, a.cq, a.domain, a.hub, b));
        bench.close()
    }

    #[test]
    fn peer_that_closes_ends_what_is_for_it() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        works(&a, &b, to_b)?;
        send(&a, to_b, 1)?;
        a.ep.send(pattern(LARGE, 1)?, to_b, Options::NONE, 2)?;
        pause(20);
        check(b.ep.close().is_ok())?;
        for (_, _, status) in &a.gather(2)? {
            check(matches!(status, Err(failure) if failure.error == EHOSTUNREACH))?;
        }
        // Its domain is there, and says that the endpoint is not.
        let begin = Instant::<Monotonic>::now();
        send(&a, to_b, 3)?;
        a.failed(Kind::Send, 3, EHOSTUNREACH)?;
        check(is_within(&begin, 3000))?;
        drop((a, b.av, b.cq, b.domain, b.hub));
        bench.close()
    }
}
