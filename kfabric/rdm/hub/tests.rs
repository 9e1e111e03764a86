// SPDX-License-Identifier: GPL-2.0

//! Strangers at the hub of a domain.

use kernel::prelude::*;

#[kunit_tests(kfabric_rdm_hub)]
mod hub {
    use super::super::super::testing::{check, name, pattern, pause, until, Bench, Script, Side};
    use super::super::super::testing::{A, SHORT, SOON};
    use super::super::super::timeouts::Timeouts;
    use super::super::STRANGERS;
    use crate::op::{Kind, Options, Outcome};
    use crate::proto::wire::{self, crc, hello, Header, Kind as Frame, Reason};
    use kernel::prelude::*;
    use kernel::time::{Delta, Instant, Monotonic};

    /// An address that no domain has.
    const X: u8 = b'x';

    fn stranger(bench: &Bench, to: &Side) -> Result<Script> {
        Script::dial(&bench.net, name(X, 1)?, &to.ep.name())
    }

    #[test]
    fn stranger_who_says_anything_else_is_sent_away() -> Result {
        let bench = Bench::new(SOON)?;
        let a = bench.side()?;
        let good = stranger(&bench, &a)?.hello(&a.ep.name(), 7, 1)?;
        let mut room = [0; hello::MAX];
        let len = good.emit(&mut room);
        let mut header = Header::new(Frame::Hello);
        (header.len, header.payload_crc) = (len as u32, crc::of(&[&room[..len]]));
        let head = header.emit(false);
        let mut damaged = room;
        damaged[20] ^= 1;
        let mut ping = Header::new(Frame::Ping);
        ping.seq = 0;
        let says: [&[&[u8]]; 5] = [
            &[&[0xff; wire::SIZE]],
            &[&[0; wire::SIZE]],
            &[&head, &damaged[..len]],
            &[&ping.emit(false)],
            &[&[0xa5; 4000]],
        ];
        for (n, words) in (1..).zip(says) {
            let stranger = stranger(&bench, &a)?;
            for word in words {
                stranger.say_bytes(word)?;
            }
            stranger.hears_the_end()?;
            check(a.violations() == n)?;
        }
        // One who goes in the midst of its hello has done nothing wrong: that is how a link breaks.
        let gone = stranger(&bench, &a)?;
        gone.say_bytes(&head)?;
        gone.say_bytes(&room[..10])?;
        drop(gone);
        // The host, and the ends of who was sent away are gone.
        until(|| bench.net.alive() == 1)?;
        // Who says the same in small pieces is let in.
        let slow = stranger(&bench, &a)?;
        for bytes in Iterator::chain(head.chunks(7), room[..len].chunks(7)) {
            slow.say_bytes(bytes)?;
        }
        check(slow.hear()?.0.kind == Frame::Hello && a.violations() == 5)?;
        drop((slow, a));
        bench.close()
    }

    #[test]
    fn stranger_who_is_silent_is_sent_away_in_time() -> Result {
        let bench = Bench::new(SHORT)?;
        let a = bench.side()?;
        let silent = stranger(&bench, &a)?;
        let half = stranger(&bench, &a)?;
        half.say_bytes(&[1, 1, 0, 0])?;
        silent.hears_the_end()?;
        half.hears_the_end()?;
        until(|| a.violations() == 2)?;
        // Nothing but the test's own ends, and the host.
        until(|| bench.net.alive() == 3)?;
        drop((silent, half, a));
        bench.close()
    }

    #[test]
    fn domain_that_ends_closes_its_links_and_no_others() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        let c = bench.side()?;
        let (c_knows_b, b_knows_a) = (c.av.insert(&b.ep.name())?, b.av.insert(&a.ep.name())?);
        a.reaches(&b, to_b)?;
        c.reaches(&b, c_knows_b)?;
        let stranger = stranger(&bench, &a)?;
        b.send(b_knows_a, 1)?;
        a.send(to_b, 2)?;
        a.domain.unplug()?;
        stranger.hears_the_end()?;
        b.failed(Kind::Send, 1, EHOSTUNREACH)?;
        a.failed(Kind::Send, 2, ENODEV)?;
        b.send(b_knows_a, 3)?;
        b.failed(Kind::Send, 3, EHOSTUNREACH)?;
        c.reaches(&b, c_knows_b)?;
        drop((stranger, a, b, c));
        bench.close()
    }

    #[test]
    fn hello_for_nobody_is_told_so() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b) = (bench.side()?, bench.side()?);
        let stranger = stranger(&bench, &a)?;
        stranger.greet(&stranger.hello(&name(A, 1)?, 7, 1)?)?;
        let (bye, _) = stranger.hear()?;
        check(bye.kind == Frame::Bye && bye.code == Reason::NoEndpoint as u16)?;
        stranger.hears_the_end()?;
        check(a.peers().nobodys.value() == 1)?;
        // So is an endpoint.
        let nobody = b.av.insert(&name(A, 1)?)?;
        b.ep.send(pattern(8, 1)?, nobody, Options::NONE, 1)?;
        let done = b.next()?;
        let failure = done.result.err().ok_or(EINVAL)?;
        check(failure.error == EHOSTUNREACH && failure.outcome == Outcome::NotExecuted)?;
        drop((stranger, a, b));
        bench.close()
    }

    #[test]
    fn strangers_beyond_the_bound_are_sent_away() -> Result {
        const STAY: u64 = 3_000_000_000;
        let bench = Bench::new(Timeouts {
            stranger: STAY,
            ..SOON
        })?;
        let (a, b) = (bench.side()?, bench.side()?);
        let begin = Instant::<Monotonic>::now();
        // A slow machine may need so long that they have had their time.
        let is_fair = || a.violations() == 0 || begin.elapsed() >= Delta::from_nanos(STAY as i64);
        let mut strangers = KVec::new();
        for _ in 0..STRANGERS {
            strangers.push(stranger(&bench, &a)?, GFP_KERNEL)?;
        }
        pause(100);
        check(is_fair())?;
        // One for whom there is no room has done nothing wrong.
        let late = stranger(&bench, &a)?;
        late.hears_the_end()?;
        check(is_fair())?;
        // A peer comes in once they have had their time.
        let to_a = b.av.insert(&a.ep.name())?;
        b.reaches(&a, to_a)?;
        for stranger in &strangers {
            stranger.hears_the_end()?;
        }
        drop((late, strangers, a, b));
        bench.close()
    }

    #[test]
    fn silent_strangers_do_not_keep_others_out() -> Result {
        let bench = Bench::new(Timeouts {
            hurry: 100_000_000,
            ..SOON
        })?;
        let (a, b) = (bench.side()?, bench.side()?);
        let mut strangers = KVec::new();
        for _ in 0..STRANGERS {
            strangers.push(stranger(&bench, &a)?, GFP_KERNEL)?;
        }
        pause(150);
        // They have a minute, but not if somebody else comes.
        check(bench.net.between(X, A)?.len() == STRANGERS)?;
        let to_a = b.av.insert(&a.ep.name())?;
        b.reaches(&a, to_a)?;
        check(bench.net.between(X, A)?.len() == STRANGERS - 1)?;
        check(a.peers().hurried.value() == 1 && a.violations() == 0)?;
        if let Ok(first) = strangers.remove(0) {
            first.hears_the_end()?;
        }
        drop((strangers, a, b));
        bench.close()
    }

    #[test]
    fn domain_lets_go_of_strangers_when_it_closes() -> Result {
        let bench = Bench::new(SOON)?;
        let a = bench.side()?;
        let silent = stranger(&bench, &a)?;
        pause(20);
        drop(a);
        silent.hears_the_end()?;
        drop(silent);
        bench.close()
    }
}
