// SPDX-License-Identifier: GPL-2.0

//! Peers over links in memory that fail.

use super::super::testing::{brings, check, is_pattern, pattern, Bench, Side, SMALL};
use crate::av::Address;
use crate::memory::Memory;
use crate::mr::{MemoryRegion, RemoteRegion};
use crate::op::{Action, AtomicAction, AtomicOp, Buffer, Datatype, Kind, Options};
use kernel::prelude::*;

/// Where in a region the writes go; the words of the atomics are before, and the reads come from
/// behind.
const WRITTEN: usize = 64;

const ADD: AtomicAction = AtomicAction {
    action: Action::Update(AtomicOp::Sum),
    datatype: Datatype::U64,
};
const FETCH: AtomicAction = AtomicAction {
    action: Action::Fetch(AtomicOp::Sum),
    datatype: Datatype::U64,
};

/// One side, and what the other may do to it.
struct Half {
    side: Side,
    to: Address,
    region: MemoryRegion,
    remote: RemoteRegion,
    /// Bytes of what is long.
    long: usize,
}

impl Half {
    fn new(side: Side, to: Address, long: usize) -> Result<Self> {
        let (region, remote) = side.region(WRITTEN + 2 * long)?;
        let source = pattern(long, 1000)?;
        region.write_at(WRITTEN + long, source.as_slice().ok_or(EINVAL)?)?;
        Ok(Half {
            side,
            to,
            region,
            remote,
            long,
        })
    }

    /// Has a message go to the other side.
    fn reaches(&self, other: &Half) -> Result {
        self.side.reaches(&other.side, self.to)
    }

    /// Posts one of each kind to the other side, which the n-th round tells from those of others.
    fn post(&self, other: &Half, round: u64) -> Result {
        let (ep, to, none, long) = (&self.side.ep, self.to, Options::NONE, self.long);
        ep.recv(Memory::zeroed(long)?, 0)?;
        ep.recv(Memory::zeroed(long)?, 1)?;
        ep.recv(Buffer::empty(), 2)?;
        let slice = |at: usize, len: usize| other.remote.slice(at as u64, len as u64);
        ep.send(pattern(SMALL, round)?, to, none, 10)?;
        ep.send(pattern(self.long, round)?, to, none, 11)?;
        let noted = Options {
            data: Some(round),
            ..none
        };
        ep.write(
            pattern(self.long, round)?,
            to,
            slice(WRITTEN, long)?,
            noted,
            12,
        )?;
        ep.read(
            Memory::zeroed(long)?,
            to,
            slice(WRITTEN + long, long)?,
            none,
            13,
        )?;
        let mut words = [0; 16];
        words[0] = 1;
        let mut operand = Memory::zeroed(8)?;
        operand.write_at(0, &words[..8])?;
        ep.atomic(operand, to, slice(0, 8)?, ADD, none, 14)?;
        let mut operand = Memory::zeroed(16)?;
        operand.write_at(0, &words)?;
        ep.atomic(operand, to, slice(8, 8)?, FETCH, none, 15)?;
        Ok(())
    }

    /// Each of them has ended once, and well, and so have the other side's here.
    fn ended(&self, round: u64) -> Result {
        let mut seen = 0;
        for _ in 0..9 {
            let done = self.side.next()?;
            if done.result.is_err() {
                pr_err!("{:?} {} {:?}\n", done.kind, done.context, done.result);
            }
            let success = done.result.map_err(|failure| failure.error)?;
            check(seen & 1 << done.context == 0)?;
            seen |= 1 << done.context;
            let bytes = done.buffer.into_memory();
            let bytes = bytes.as_ref().ok().and_then(|memory| memory.as_slice());
            match (done.kind, done.context) {
                // What comes in is met in the order in which it comes, which is not that of the posts.
                (Kind::Recv, _) => match (success.len, success.data) {
                    (len, None) if len == SMALL || len == self.long => {
                        let bytes = bytes.and_then(|bytes| bytes.get(..success.len));
                        check(is_pattern(bytes.ok_or(ENODATA)?, round))?;
                    }
                    (_, data) => check(data == Some(round))?,
                },
                (Kind::Read, 13) => check(is_pattern(bytes.ok_or(ENODATA)?, 1000))?,
                (Kind::Atomic, 15) => {
                    let word = bytes.and_then(|bytes| bytes.get(8..16)).ok_or(ENODATA)?;
                    check(word.first_chunk() == Some(&round.to_le_bytes()))?;
                }
                _ => {}
            }
        }
        check(self.side.cq.read().is_none())
    }

    /// What the other side has done here is right, and was done once a round.
    fn is_right(&self, rounds: u64) -> Result {
        check(self.region.load_u64(0)? == rounds)?;
        check(self.region.load_u64(8)? == rounds)?;
        let mut bytes = KVVec::from_elem(0, self.long, GFP_KERNEL)?;
        self.region.read_at(WRITTEN, &mut bytes)?;
        check(is_pattern(&bytes, rounds - 1))
    }
}

/// Two that may do everything to each other.
fn halves(bench: &Bench, long: usize) -> Result<(Half, Half)> {
    let (a, b, to_b, to_a) = bench.pair()?;
    Ok((Half::new(a, to_b, long)?, Half::new(b, to_a, long)?))
}

#[kunit_tests(kfabric_rdm_peer)]
mod peer {
    use super::super::super::link::Links;
    use super::super::super::testing::{name, pause, until, Script};
    use super::super::super::testing::{Act, Fault, Place, Refusal};
    use super::super::super::testing::{
        A, B, CAPACITY, HUGE, LARGE, PATIENCE_MS, SHORT, SOON, STILL,
    };
    use super::*;
    use crate::info::Order;
    use crate::op::Outcome;
    use crate::proto::wire::{Header, Hello, Kind as Frame, Reason};
    use crate::sys::random;
    use core::ops::Range;

    /// An address that no domain has.
    const X: u8 = b'x';

    const MORE: Options = Options {
        more: true,
        ..Options::NONE
    };

    /// Every other one of those frames, from the first or the second on: a run has half of them, since each costs
    /// a second, and the simulation of the protocol's machine has all.
    fn every_other(frames: &Range<usize>) -> impl Iterator<Item = usize> {
        let skipped = random::u64() as usize % 2;
        pr_info!("frames from {} on\n", frames.start + skipped);
        frames.clone().skip(skipped).step_by(2)
    }

    /// Has `act` happen at a place of such frames of a link in the midst of everything, both ways.
    fn goes_on_after(
        order: Order,
        act: Act,
        place: Place,
        frames: Range<usize>,
        long: usize,
    ) -> Result {
        let bench = Bench::with_order(SOON, order)?;
        let (a, b) = halves(&bench, long)?;
        let mut round = 0;
        for from in [A, B] {
            for frame in every_other(&frames) {
                bench.net.plan(Fault {
                    from,
                    frame,
                    place,
                    act,
                });
                bench.net.cut();
                a.post(&b, round)?;
                b.post(&a, round)?;
                a.ended(round)?;
                b.ended(round)?;
                a.is_right(round + 1)?;
                b.is_right(round + 1)?;
                round += 1;
            }
        }
        // Not each link has as many frames: it depends on which go together.
        pr_info!("{} faults in {} rounds\n", bench.net.hits(), round);
        check(2 * bench.net.hits() as u64 > round)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn session_goes_on_over_links_that_break_between_frames() -> Result {
        goes_on_after(Order::NONE, Act::Cut, Place::Start, 0..14, LARGE)
    }

    #[test]
    fn session_goes_on_over_links_that_break_in_headers() -> Result {
        goes_on_after(Order::NONE, Act::Cut, Place::Header, 0..14, LARGE)
    }

    #[test]
    fn session_goes_on_over_links_that_break_in_payloads() -> Result {
        goes_on_after(Order::NONE, Act::Cut, Place::Payload, 0..14, LARGE)
    }

    #[test]
    fn session_goes_on_over_links_that_end_in_payloads() -> Result {
        goes_on_after(Order::STRICT, Act::End, Place::Payload, 0..12, LARGE)
    }

    #[test]
    fn session_goes_on_in_the_midst_of_pieces() -> Result {
        goes_on_after(Order::NONE, Act::Cut, Place::Payload, 2..5, HUGE)
    }

    #[test]
    fn late_wakes_lose_nothing() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b) = halves(&bench, LARGE)?;
        for round in 0..5 {
            bench.net.hold(true);
            a.post(&b, round)?;
            b.post(&a, round)?;
            pause(20);
            bench.net.hold(false);
            a.ended(round)?;
            b.ended(round)?;
        }
        drop((a, b));
        bench.close()
    }

    #[test]
    fn session_that_is_not_resumed_in_time_ends_everything() -> Result {
        let bench = Bench::new(SHORT)?;
        let (a, b) = halves(&bench, HUGE)?;
        a.reaches(&b)?;
        // One that waits at B for a receive, and meets it in time.
        a.side.send(a.to, 0)?;
        pause(50);
        b.side.ep.recv(Memory::zeroed(HUGE)?, 5)?;
        b.side.went_well(Kind::Recv, 5)?;
        a.side.went_well(Kind::Send, 0)?;
        bench.net.refuse(Some(Refusal {
            error: ECONNREFUSED,
            at_once: false,
            count: usize::MAX,
        }));
        let wires = bench.net.between(A, B)?;
        for wire in &wires {
            wire.inject(Fault {
                from: A,
                frame: 3,
                place: Place::Payload,
                act: Act::Cut,
            });
        }
        b.side.ep.recv(Memory::zeroed(HUGE)?, 6)?;
        let (none, ep) = (Options::NONE, &a.side.ep);
        let sent = || wires.first().map_or(0, |wire| wire.sends_of(A));
        let before = sent();
        ep.send(pattern(HUGE, 2)?, a.to, none, 1)?;
        // It is announced before there is anything else to be sent.
        until(|| sent() > before)?;
        let slice = |at: usize| b.remote.slice(at as u64, HUGE as u64);
        ep.write(pattern(HUGE, 2)?, a.to, slice(WRITTEN)?, none, 2)?;
        let from = slice(WRITTEN + HUGE)?;
        ep.read(Memory::zeroed(HUGE)?, a.to, from, none, 3)?;
        for (_, _, status) in &a.side.gather(3)? {
            check(matches!(status, Err(failure) if failure.error == ETIMEDOUT))?;
        }
        let done = b.side.next()?;
        check(done.kind == Kind::Recv && done.context == 6 && done.result.is_err())?;
        // Nothing of the peer's is in use any more.
        b.region
            .close_wait(PATIENCE_MS)
            .map_err(|(error, _)| error)?;
        a.region
            .close_wait(PATIENCE_MS)
            .map_err(|(error, _)| error)?;
        bench.net.refuse(None);
        // A receive that is posted now waits for what comes now.
        let (a, b) = (
            Half::new(a.side, a.to, LARGE)?,
            Half::new(b.side, b.to, LARGE)?,
        );
        a.reaches(&b)?;
        b.reaches(&a)?;
        check(a.side.cq.read().is_none() && b.side.cq.read().is_none())?;
        check(bench.net.hits() == 1)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn message_that_waits_goes_with_its_session() -> Result {
        let bench = Bench::new(SHORT)?;
        let (a, b) = halves(&bench, LARGE)?;
        a.reaches(&b)?;
        for (context, len) in [(0, SMALL), (1, LARGE)] {
            let message = pattern(len, context)?;
            a.side.ep.send(message, a.to, Options::NONE, context)?;
        }
        pause(50);
        bench.net.refuse(Some(Refusal {
            error: EHOSTUNREACH,
            at_once: true,
            count: usize::MAX,
        }));
        bench.net.cut();
        for (_, _, status) in &a.side.gather(2)? {
            let failure = status.err().ok_or(EINVAL)?;
            check(failure.error == ETIMEDOUT && failure.outcome == Outcome::Unknown)?;
        }
        // B gives the session up on its own. What is posted after that is of another.
        b.side.send(b.to, 2)?;
        check(b.side.next()?.result.is_err())?;
        b.side.send(b.to, 3)?;
        b.side.failed(Kind::Send, 3, EHOSTUNREACH)?;
        bench.net.refuse(None);
        a.reaches(&b)?;
        drop((a, b));
        bench.close()
    }

    /// What a peer says that it may not, and its payload.
    type Breach = (&'static str, Frame, fn(&mut Header), usize);

    const BREACHES: [Breach; 9] = [
        (
            "acknowledges what was not sent",
            Frame::Ack,
            |h| h.ack = 99,
            0,
        ),
        (
            "grants credit of no context",
            Frame::Grant,
            |h| h.context = 7,
            0,
        ),
        (
            "ends nothing",
            Frame::Done,
            |h| (h.seq, h.op, h.data) = (1, 5, 0x101),
            0,
        ),
        (
            "has too many operations",
            Frame::Send,
            |h| (h.seq, h.op, h.total) = (1, 128, 8),
            8,
        ),
        (
            "sends to no context",
            Frame::Send,
            |h| (h.seq, h.context, h.total) = (1, 2, 8),
            8,
        ),
        (
            "sends too much at once",
            Frame::Send,
            |h| (h.seq, h.total) = (1, 8193),
            8193,
        ),
        (
            "sends what was not asked for",
            Frame::Data,
            |h| (h.seq, h.total) = (1, 8),
            8,
        ),
        (
            "is not consistent",
            Frame::Send,
            |h| (h.seq, h.total) = (1, 9),
            8,
        ),
        ("says what has no meaning", Frame::Ack, |h| h.key = 1, 0),
    ];

    #[test]
    fn peer_that_breaks_a_rule_is_ended_alone() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b) = halves(&bench, LARGE)?;
        a.reaches(&b)?;
        // Something that is under way with another.
        a.side
            .ep
            .send(pattern(SMALL, 3)?, a.to, Options::NONE, 800)?;
        for (n, (what, kind, breach, len)) in (0..).zip(BREACHES) {
            // No endpoint has the number 0.
            let x = name(X, n + 1)?;
            let script = Script::dial(&bench.net, x, &a.side.ep.name())?;
            script.meet(&a.side.ep.name())?;
            let to_x = a.side.av.insert(&x)?;
            a.side.ep.send(pattern(SMALL, n)?, to_x, Options::NONE, n)?;
            let (_, bytes) = script.await_kind(Frame::Send)?;
            check(is_pattern(&bytes, n))?;
            pr_info!("peer that {}\n", what);
            let mut header = Header::new(kind);
            breach(&mut header);
            // It may be sent away before it has said all.
            let payload = KVVec::from_elem(0, len, GFP_KERNEL)?;
            let _ = script.say(&header, &payload);
            let done = a.side.next()?;
            let failure = done.result.err().ok_or(EINVAL)?;
            check(done.context == n && failure.error == EPROTO)?;
            check(failure.outcome == Outcome::Unknown)?;
            check(a.side.violations() == n + 1)?;
            let (bye, _) = script.await_kind(Frame::Bye)?;
            check(bye.code == Reason::Protocol as u16)?;
            script.hears_the_end()?;
        }
        check(a.side.cq.read().is_none() && b.side.violations() == 0)?;
        b.side.ep.recv(Memory::zeroed(SMALL)?, 801)?;
        b.side.went_well(Kind::Recv, 801)?;
        a.side.went_well(Kind::Send, 800)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn frame_that_is_missing_costs_the_link_alone() -> Result {
        let bench = Bench::new(SOON)?;
        let a = bench.side()?;
        let host = bench.net.host(X)?;
        let x = name(X, 1)?;
        let script = Script::dial(&bench.net, x, &a.ep.name())?;
        script.meet(&a.ep.name())?;
        let to_x = a.av.insert(&x)?;
        a.ep.send(pattern(SMALL, 1)?, to_x, Options::NONE, 1)?;
        script.await_kind(Frame::Send)?;
        let mut header = Header::new(Frame::Send);
        (header.seq, header.total) = (2, 8);
        // It may be sent away before it has said all.
        let _ = script.say(&header, &[0; 8]);
        script.hears_the_end()?;
        drop(script);
        check(a.violations() == 1)?;
        // It comes again, and the session goes on.
        let script = Script::accept(&*host, x)?;
        let (_, bytes) = script.hear()?;
        let hello = Hello::parse(&bytes).map_err(|_| EBADMSG)?;
        check(hello.expects == 77 && hello.last == 0)?;
        let mut answer = script.hello(&a.ep.name(), 77, hello.generation)?;
        (answer.expects, answer.last) = (hello.incarnation, 1);
        script.greet(&answer)?;
        let mut header = Header::new(Frame::Ack);
        header.ack = 1;
        script.say(&header, &[])?;
        a.went_well(Kind::Send, 1)?;
        host.close();
        drop((script, host, a));
        bench.close()
    }

    #[test]
    fn hello_that_is_damaged_costs_the_link_alone() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b) = halves(&bench, LARGE)?;
        for (round, (from, place)) in [(A, Place::Header), (A, Place::Payload), (B, Place::Payload)]
            .iter()
            .enumerate()
        {
            bench.net.plan(Fault {
                from: *from,
                frame: 0,
                place: *place,
                act: Act::Flip,
            });
            bench.net.cut();
            a.reaches(&b)?;
            b.reaches(&a)?;
            check(bench.net.hits() == round as i32 + 1)?;
        }
        drop((a, b));
        bench.close()
    }

    #[test]
    fn frame_with_sums_that_is_damaged_costs_the_link_alone() -> Result {
        let bench = Bench::new(SOON)?;
        bench.net.sum();
        let (a, b) = halves(&bench, LARGE)?;
        let mut round = 0;
        for from in [A, B] {
            for place in [Place::Header, Place::Payload] {
                // Behind the hello.
                for frame in every_other(&(1..5)) {
                    // It may happen at once.
                    let hits = bench.net.hits();
                    bench.net.plan(Fault {
                        from,
                        frame,
                        place,
                        act: Act::Flip,
                    });
                    bench.net.cut();
                    // As many rounds as it takes to have such a frame.
                    while bench.net.hits() == hits {
                        a.post(&b, round)?;
                        b.post(&a, round)?;
                        a.ended(round)?;
                        b.ended(round)?;
                        round += 1;
                    }
                    // Over another link, or, if it was the last, over the next.
                    a.reaches(&b)?;
                    b.reaches(&a)?;
                }
            }
        }
        a.is_right(round)?;
        b.is_right(round)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn messages_that_nobody_receives_hinder_nothing_else() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b) = halves(&bench, LARGE)?;
        let (c, none) = (bench.side()?, Options::NONE);
        const MESSAGES: u64 = 200;
        for n in 0..MESSAGES {
            a.side.ep.send(pattern(3 * SMALL, n)?, a.to, none, n)?;
        }
        // By the same peer, and by another.
        let slice = b.remote.slice(WRITTEN as u64, LARGE as u64)?;
        a.side
            .ep
            .write(pattern(LARGE, 5)?, a.to, slice, none, 500)?;
        a.side.went_well(Kind::Write, 500)?;
        a.side
            .ep
            .read(Memory::zeroed(LARGE)?, a.to, slice, none, 501)?;
        check(brings(a.side.went_well(Kind::Read, 501)?, 5))?;
        let to_b = c.av.insert(&b.side.ep.name())?;
        c.ep.write(pattern(LARGE, 6)?, to_b, slice, none, 502)?;
        c.went_well(Kind::Write, 502)?;
        // In their order, once they are wanted.
        for n in 0..MESSAGES {
            b.side.ep.recv(Memory::zeroed(3 * SMALL)?, n)?;
        }
        for _ in 0..MESSAGES {
            let done = b.side.next()?;
            check(done.result.is_ok() && brings(done.buffer, done.context))?;
        }
        for (_, _, status) in &a.side.gather(MESSAGES as usize)? {
            check(status.is_ok())?;
        }
        drop((a, b, c));
        bench.close()
    }

    #[test]
    fn cancel_that_comes_too_late_changes_nothing() -> Result {
        let bench = Bench::new(SOON)?;
        let a = bench.side()?;
        let x = name(X, 1)?;
        let script = Script::dial(&bench.net, x, &a.ep.name())?;
        script.meet(&a.ep.name())?;
        let to_x = a.av.insert(&x)?;
        let id = a.ep.send(pattern(SMALL, 1)?, to_x, Options::NONE, 1)?;
        let (send, _) = script.await_kind(Frame::Send)?;
        // It has met a receive, and the peer has not said so yet.
        a.ep.cancel(id)?;
        let (cancel, _) = script.await_kind(Frame::Cancel)?;
        check(cancel.op == send.op && a.cq.read().is_none())?;
        let mut header = Header::new(Frame::Ack);
        header.ack = cancel.seq;
        script.say(&header, &[])?;
        a.went_well(Kind::Send, 1)?;
        check(a.ep.cancel(id) == Err(ENOENT))?;
        drop((script, a));
        bench.close()
    }

    /// How often a side has handed something to the only link of two.
    fn sends(bench: &Bench, from: u8) -> Result<usize> {
        let wires = bench.net.between(A, B)?;
        check(wires.len() == 1)?;
        Ok(wires.first().map_or(0, |wire| wire.sends_of(from)))
    }

    /// Sends so many small messages, each of which but the last says that more follows; how often the link
    /// was handed something.
    fn burst(bench: &Bench, a: &Half, b: &Half, count: usize) -> Result<usize> {
        for n in 0..count as u64 {
            b.side.ep.recv(Memory::zeroed(SMALL)?, n)?;
        }
        let before = sends(bench, A)?;
        for n in 1..=count {
            let options = Options {
                more: n < count,
                ..Options::NONE
            };
            a.side.ep.send(pattern(SMALL, 1)?, a.to, options, 0)?;
        }
        for _ in 0..count {
            b.side.next()?.result.map_err(|failure| failure.error)?;
            a.side.next()?.result.map_err(|failure| failure.error)?;
        }
        Ok(sends(bench, A)? - before)
    }

    #[test]
    fn posts_that_say_that_more_follows_leave_together() -> Result {
        let bench = Bench::new(STILL)?;
        let (a, b) = halves(&bench, LARGE)?;
        a.reaches(&b)?;
        b.reaches(&a)?;
        let sends = burst(&bench, &a, &b, 24)?;
        pr_info!("24 messages in {sends} segments\n");
        check(3 * sends <= 24)?;
        // Nothing follows the last one, and it goes.
        b.side.ep.recv(Memory::zeroed(SMALL)?, 1)?;
        a.side.ep.send(pattern(SMALL, 1)?, a.to, MORE, 2)?;
        b.side.went_well(Kind::Recv, 1)?;
        a.side.went_well(Kind::Send, 2)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn post_that_nothing_follows_leaves_though_nobody_waits() -> Result {
        let bench = Bench::new(STILL)?;
        let (a, b) = halves(&bench, LARGE)?;
        a.reaches(&b)?;
        b.reaches(&a)?;
        // By the timer, which fires soon where a turn was not long ago, or else by the work.
        for n in 0..24 {
            if n % 4 == 3 {
                pause(70);
            }
            b.side.ep.recv(Memory::zeroed(SMALL)?, n)?;
            a.side.ep.send(pattern(SMALL, n)?, a.to, MORE, n)?;
            for (side, kind) in [(&b.side, Kind::Recv), (&a.side, Kind::Send)] {
                let mut done = None;
                until(|| {
                    done = side.cq.read();
                    done.is_some()
                })?;
                check(done.is_some_and(|done| done.kind == kind && done.result.is_ok()))?;
            }
        }
        drop((a, b));
        bench.close()
    }

    #[test]
    fn post_that_is_held_back_ends_with_its_cancel_or_its_endpoint() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b) = halves(&bench, LARGE)?;
        a.reaches(&b)?;
        b.reaches(&a)?;
        // No receive is posted: whether it has left meanwhile or not, nothing else ends it.
        for n in 0..20 {
            let id = a.side.ep.send(pattern(SMALL, 1)?, a.to, MORE, n)?;
            if n % 2 == 0 {
                pause(3);
            }
            until(|| a.side.ep.cancel(id) != Err(ENOENT))?;
            a.side.failed(Kind::Send, n, ECANCELED)?;
        }
        a.side.ep.send(pattern(SMALL, 1)?, a.to, MORE, 20)?;
        let Half { side, region, .. } = a;
        let Side { ep, av, cq, domain } = side;
        check(ep.close().is_ok())?;
        let done = cq.read().ok_or(ENOENT)?;
        check(done.context == 20 && cq.read().is_none())?;
        check(matches!(done.result, Err(failure) if failure.error == ECANCELED))?;
        drop((cq, av, region, domain, b));
        bench.close()
    }

    #[test]
    fn messages_leave_together_while_the_link_is_full() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b) = halves(&bench, LARGE)?;
        a.reaches(&b)?;
        b.reaches(&a)?;
        // They have room beside what is left of a write that is somewhat longer than the link holds: where they
        // have none, it depends on the steps in which the other side makes some.
        const COUNT: usize = 30;
        const FULL: usize = CAPACITY + 200;
        for n in 0..COUNT as u64 {
            b.side.ep.recv(Memory::zeroed(SMALL)?, n)?;
        }
        // B does not see what has come, and a write fills the link, before there are messages.
        bench.net.hold(true);
        let target = b.remote.slice(WRITTEN as u64, FULL as u64)?;
        let bytes = pattern(FULL, 1)?;
        let full = sends(&bench, A)?;
        a.side.ep.write(bytes, a.to, target, Options::NONE, 0)?;
        until(|| sends(&bench, A).is_ok_and(|sends| sends > full))?;
        let before = sends(&bench, A)?;
        for _ in 0..COUNT {
            a.side.ep.send(pattern(SMALL, 1)?, a.to, Options::NONE, 0)?;
        }
        bench.net.hold(false);
        for _ in 0..COUNT {
            b.side.next()?.result.map_err(|failure| failure.error)?;
            a.side.next()?.result.map_err(|failure| failure.error)?;
        }
        a.side.next()?.result.map_err(|failure| failure.error)?;
        let sends = sends(&bench, A)? - before;
        pr_info!("{COUNT} messages in {sends} segments\n");
        check(3 * sends <= COUNT)?;
        drop((a, b));
        bench.close()
    }

    #[test]
    fn links_are_made_when_something_is_posted_and_not_before() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b) = halves(&bench, LARGE)?;
        pause(20);
        check(bench.net.dials() == 0)?;
        a.reaches(&b)?;
        b.reaches(&a)?;
        check(bench.net.dials() == 1)?;
        until(|| bench.net.between(A, B).is_ok_and(|wires| wires.len() == 1))?;
        drop((a, b));
        bench.close()
    }
}
