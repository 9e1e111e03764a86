// SPDX-License-Identifier: GPL-2.0

//! Engines over links in memory: how they are met, and how they end.

use kernel::prelude::*;

mod lanes;

#[kunit_tests(kfabric_rdm_engine)]
mod engine {
    use super::super::super::link::{address_of, anywhere_at, service_at, source_of, MAX_ADDRESS};
    use super::super::super::testing::{brings, check, pattern, pause, until, Bench, Side};
    use super::super::super::testing::{Act, Fault, Place, Refusal};
    use super::super::super::testing::{A, B, HUGE, LARGE, PATIENCE_MS, SHORT, SMALL, SOON, STILL};
    use super::super::super::timeouts::Timeouts;
    use crate::av::{Address, Name};
    use crate::cm::{PassiveEndpoint, PrivateData};
    use crate::cq::CompletionQueue;
    use crate::endpoint::Endpoint;
    use crate::eq::{Event, EventQueue};
    use crate::info::{EndpointType, Info};
    use crate::memory::Memory;
    use crate::op::{Buffer, Kind, Options, Outcome};
    use kernel::prelude::*;
    use kernel::time::{Delta, Instant, Monotonic};

    /// Whether something took less time than that.
    fn is_within(begin: &Instant<Monotonic>, millis: i64) -> bool {
        begin.elapsed() < Delta::from_millis(millis)
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
                    a.send(to_b, n as u64)?;
                }
                for (at, ended) in a.gather(MESSAGES)?.iter().enumerate() {
                    let (kind, context, status) = ended;
                    let failure = status.err().ok_or(EINVAL)?;
                    check(*kind == Kind::Send && *context == at as u64)?;
                    check(failure.error == EHOSTUNREACH)?;
                    check(failure.outcome == Outcome::NotExecuted)?;
                }
                check(is_within(&begin, 10_000))?;
            }
        }
        bench.net.refuse(None);
        a.reaches(&b, to_b)?;
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
                a.reaches(&b, to_b)?;
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
        a.send(to_b, 1)?;
        let done = a.next()?;
        let failure = done.result.err().ok_or(EINVAL)?;
        check(failure.error == EHOSTUNREACH && failure.outcome == Outcome::NotExecuted)?;
        bench.net.keep_back(false);
        // Whichever is greeted first: the dial that was kept back, or the next.
        a.reaches(&b, to_b)?;
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
            a.send(to_b, 1)?;
            b.send(to_a, 1)?;
            until(|| bench.net.dials() >= dials + 2)?;
            bench.net.keep_back(false);
            for side in [&a, &b] {
                for (at, (_, context, status)) in side.gather(2)?.iter().enumerate() {
                    check(*context == at as u64 && status.is_ok())?;
                }
            }
            let links = || bench.net.between(A, B).map_or(0, |wires| wires.len());
            until(|| links() == 1)?;
            // One each, and one more by a side that got no time to greet in time.
            if round == 0 {
                check(bench.net.dials() <= 3)?;
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
        a.reaches(&b, to_b)?;
        b.reaches(&a, to_a)?;
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
            a.reaches(&b, to_b)?;
        }
        // Before there is a link.
        bench.net.keep_back(true);
        bench.net.cut();
        let id = a.ep.send(pattern(SMALL, 1)?, to_b, Options::NONE, 2)?;
        pause(20);
        a.ep.cancel(id)?;
        a.failed(Kind::Send, 2, ECANCELED)?;
        bench.net.keep_back(false);
        a.reaches(&b, to_b)?;
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
        a.reaches(&b, to_b)?;
        b.reaches(&a, to_a)?;
        let (region, remote) = b.region(HUGE)?;
        let none = Options::NONE;
        // They wait at B for receives, and for credit.
        const MESSAGES: u64 = 150;
        for n in 0..MESSAGES {
            a.send(to_b, n)?;
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
        let Side { ep, av, cq, domain } = a;
        check(ep.close().is_ok())?;
        pr_info!(
            "{:?}: closed in {} us\n",
            link,
            begin.elapsed().as_nanos() / 1000
        );
        check(is_within(&begin, 20_000))?;
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
        let done = b.next()?;
        check(done.kind == Kind::Send && done.context == 1)?;
        region.close_wait(20_000).map_err(|(error, _)| error)?;
        // The first may still end with the session, of which messages wait here until its end has been
        // gone through; what is posted then is of another one.
        for context in [2, 4] {
            b.send(to_a, context)?;
            b.failed(Kind::Send, context, EHOSTUNREACH)?;
        }
        b.ep.recv(Buffer::empty(), 3)?;
        pause(20);
        check(b.cq.read().is_none())?;
        drop((av, cq, domain, b));
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
    fn close_waits_for_what_the_peer_says() -> Result {
        let bench = Bench::new(Timeouts {
            // The peer answers in that time, however slow the machine is.
            settle: 20_000_000_000,
            ..STILL
        })?;
        let (a, b, to_b, _) = bench.pair()?;
        a.reaches(&b, to_b)?;
        // It waits there for a receive.
        a.send(to_b, 1)?;
        pause(20);
        for wire in &bench.net.between(A, B)? {
            wire.hold_until_missed(A, 5);
        }
        check(a.ep.close().is_ok())?;
        let done = a.cq.read().ok_or(ENODATA)?;
        let failure = done.result.err().ok_or(EINVAL)?;
        check(done.context == 1 && failure.error == ECANCELED)?;
        check(failure.outcome == Outcome::NotExecuted)?;
        drop((a.av, a.cq, a.domain, b));
        bench.close()
    }

    #[test]
    fn receive_that_has_begun_ends_with_the_close() -> Result {
        let bench = Bench::new(Timeouts {
            // B looks for A then. It asks whether it is there after a longer time than this takes: that
            // would be a frame more.
            dead: 3_000_000_000,
            ..SOON
        })?;
        let (a, b, to_b, to_a) = bench.pair()?;
        a.reaches(&b, to_b)?;
        b.reaches(&a, to_a)?;
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
        drop((a.av, a.cq, a.domain, b));
        bench.close()
    }

    #[test]
    fn peer_that_closes_ends_what_is_for_it() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        a.reaches(&b, to_b)?;
        let dials = bench.net.dials();
        a.send(to_b, 1)?;
        a.ep.send(pattern(LARGE, 1)?, to_b, Options::NONE, 2)?;
        pause(20);
        check(b.ep.close().is_ok())?;
        for (_, _, status) in &a.gather(2)? {
            check(matches!(status, Err(failure) if failure.error == EHOSTUNREACH))?;
        }
        // It has said so itself, and is not looked for.
        check(bench.net.dials() == dials)?;
        // Its domain is there, and says that the endpoint is not.
        let begin = Instant::<Monotonic>::now();
        a.send(to_b, 3)?;
        a.failed(Kind::Send, 3, EHOSTUNREACH)?;
        check(is_within(&begin, 10_000))?;
        drop((a, b.av, b.cq, b.domain));
        bench.close()
    }
    /// A connected endpoint, and what it stands on.
    // In the order in which they go.
    struct Connected {
        ep: Endpoint<u64>,
        cq: CompletionQueue<u64>,
        eq: EventQueue,
    }

    impl Connected {
        fn new(side: &Side, info: &Info) -> Result<Self> {
            let cq = CompletionQueue::new(&side.domain, 512, None)?;
            let eq = EventQueue::new(&side.domain, 8, None)?;
            let builder = Endpoint::builder(&side.domain, info);
            let ep = builder.cq(&cq).eq(&eq).enable()?;
            Ok(Connected { ep, cq, eq })
        }

        fn event(&self) -> Result<Event> {
            self.eq.read_wait(PATIENCE_MS)
        }
    }

    #[test]
    fn service_has_one_endpoint_at_a_time() -> Result {
        let bench = Bench::new(SOON)?;
        let a = bench.side()?;
        let name = service_at(&[B])?;
        let info = Info {
            source: Some(name),
            ..bench.info
        };
        let Side { ep, av, cq, domain } = bench.side_of(&info)?;
        check(ep.name() == name)?;
        let other = CompletionQueue::new(&domain, 512, None)?;
        let enable = |info: &Info, cq: &CompletionQueue<u64>| {
            let builder = Endpoint::builder(&domain, info);
            builder.cq(cq).av(&av).enable()
        };
        check(enable(&info, &other).err() == Some(EADDRINUSE))?;
        let msg = Info {
            endpoint_type: EndpointType::Msg,
            ..info
        };
        let eq = EventQueue::new(&domain, 8, None)?;
        let listen = || PassiveEndpoint::listen(&domain, &msg, &eq, 1);
        check(listen().err() == Some(EADDRINUSE))?;
        // Who asks for no place has a name of its own, and so has who connects.
        let source = None;
        let beside = enable(&Info { source, ..info }, &other)?;
        check(beside.name() != name)?;
        check(beside.close().is_ok())?;
        let connecting = Endpoint::<u64>::builder(&domain, &msg);
        let connecting = connecting.cq(&other).eq(&eq).enable()?;
        check(connecting.name() != name)?;
        check(connecting.close().is_ok())?;
        let to_b = a.av.insert(&name)?;
        let b = Side { ep, av, cq, domain };
        a.reaches(&b, to_b)?;
        drop((other, eq, a, b));
        bench.close()
    }

    #[test]
    fn successor_of_a_service_is_reached_by_its_name() -> Result {
        let bench = Bench::new(SOON)?;
        let a = bench.side()?;
        let info = Info {
            source: Some(service_at(&[B])?),
            ..bench.info
        };
        let mut b = bench.side_of(&info)?;
        let to_b = a.av.insert(&b.ep.name())?;
        for _ in 0..5 {
            a.reaches(&b, to_b)?;
            // What comes after the end is for nobody, until there is another.
            let Side { ep, av, cq, domain } = b;
            check(ep.close().is_ok())?;
            a.send(to_b, 1)?;
            a.failed(Kind::Send, 1, EHOSTUNREACH)?;
            let builder = Endpoint::builder(&domain, &info);
            let ep = builder.cq(&cq).av(&av).enable()?;
            b = Side { ep, av, cq, domain };
        }
        a.reaches(&b, to_b)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn place_is_of_an_address_alone() -> Result {
        let longest = [7; MAX_ADDRESS + 1];
        for len in [1, MAX_ADDRESS] {
            let (any, one) = (anywhere_at(&longest[..len])?, service_at(&longest[..len])?);
            check(source_of(&any) == Some((&longest[..len], false)))?;
            check(source_of(&one) == Some((&longest[..len], true)))?;
            // A peer is somebody.
            check(address_of(&any).is_none())?;
            check(address_of(&one) == Some(&longest[..len]))?;
        }
        for address in [&[][..], &longest] {
            check(anywhere_at(address).is_err() && service_at(address).is_err())?;
        }
        for bytes in [&[1][..], &[0; 8], &[7, 2, 0, 0, 0, 0, 0, 0, 0]] {
            check(source_of(&Name::new(bytes)?).is_none())?;
        }
        Ok(())
    }

    #[test]
    fn connection_is_made_carries_messages_and_ends() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        let info = Info {
            endpoint_type: EndpointType::Msg,
            ..bench.info
        };
        let (at_a, at_b) = (Connected::new(&a, &info)?, Connected::new(&b, &info)?);
        let listener = PassiveEndpoint::listen(&b.domain, &info, &at_b.eq, 1)?;
        let none = PrivateData::NONE;
        at_a.ep.connect(&listener.name(), none, PATIENCE_MS)?;
        let Event::ConnectionRequest(request) = at_b.event()? else {
            return Err(EINVAL);
        };
        let accepted = at_b.ep.accept(request, none);
        accepted.map_err(|(error, _)| error)?;
        for end in [&at_a, &at_b] {
            let event = end.event()?;
            check(matches!(event, Event::Connected { endpoint, .. } if endpoint == end.ep.id()))?;
        }
        for (from, to) in [(&at_a, &at_b), (&at_b, &at_a)] {
            to.ep.recv(Memory::zeroed(HUGE)?, 1)?;
            let message = pattern(HUGE, 2)?;
            from.ep.send(message, Address::PEER, Options::NONE, 2)?;
            check(brings(to.cq.read_wait(PATIENCE_MS)?.buffer, 2))?;
            check(from.cq.read_wait(PATIENCE_MS)?.result.is_ok())?;
        }
        check(at_a.ep.close().is_ok())?;
        let event = at_b.event()?;
        check(matches!(event, Event::Shutdown { endpoint } if endpoint == at_b.ep.id()))?;
        // Others are not touched by it.
        a.reaches(&b, to_b)?;
        drop((at_a.cq, at_a.eq, listener, at_b, a, b));
        bench.close()
    }
}
