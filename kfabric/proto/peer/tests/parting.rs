// SPDX-License-Identifier: GPL-2.0

//! What a goodbye says of the session that it ends.

use super::*;

fn ends(errno: Errno, outcome: Outcome) -> Verdict {
    Err(Failure::new(errno, outcome))
}

/// Side 1 says goodbye, and side 0 hears it: how its operations end.
fn part(pair: &mut Pair) -> Vec<(Op, Verdict)> {
    pair.peers[1].close(pair.now, Reason::Closed);
    let bye = pair.frame(1).unwrap();
    assert_eq!(bye.kind, Kind::Bye);
    pair.deliver(0, &bye).unwrap();
    pair.drain();
    let state = pair.peers[0].state();
    assert_eq!(state, State::Closed(End::Bye(Reason::Closed)));
    pair.ended(0)
}

fn bring(pair: &mut Pair) {
    let frame = pair.frame(0).unwrap();
    pair.deliver(1, &frame).unwrap();
}

#[test]
fn what_was_executed_ends_well() {
    let mut pair = Pair::new(Order::NONE);
    let wrote = pair.submit(0, write(100));
    let sent = pair.submit(0, Command::send(10));
    bring(&mut pair);
    bring(&mut pair);
    assert_eq!(part(&mut pair), [(wrote, GOOD), (sent, GOOD)]);
}

#[test]
fn what_was_not_read_was_not_executed() {
    let mut pair = Pair::new(Order::NONE);
    let wrote = pair.submit(0, write(100));
    bring(&mut pair);
    let sent = pair.submit(0, Command::send(10));
    let long = pair.submit(0, write(2 * u64::from(FRAME)));
    // They are on their way, of the long one a piece.
    while pair.frame(0).is_some_and(|h| h.kind != Kind::Write) {}
    let not = ends(Errno::ENOTCONN, Outcome::NotExecuted);
    assert_eq!(part(&mut pair), [(wrote, GOOD), (sent, not), (long, not)]);
}

#[test]
fn of_what_was_begun_nothing_is_known() {
    let unknown = ends(Errno::ENOTCONN, Outcome::Unknown);
    // One piece of two.
    let mut pair = Pair::new(Order::NONE);
    let long = pair.submit(0, write(2 * u64::from(FRAME)));
    bring(&mut pair);
    pair.frame(0).unwrap();
    assert_eq!(part(&mut pair), [(long, unknown)]);
    // Some of a payload.
    let mut pair = Pair::new(Order::NONE);
    let wrote = pair.submit(0, write(100));
    let frame = pair.frame(0).unwrap();
    let (now, link) = (pair.now, pair.links[1].unwrap());
    pair.peers[1].handle_frame(now, link, &frame).unwrap();
    assert!(pair.peers[1].is_pending() && !pair.peers[1].is_again());
    assert_eq!(part(&mut pair), [(wrote, unknown)]);
}

#[test]
fn of_what_was_begun_over_a_link_that_is_lost_nothing_is_known_either() {
    let unknown = ends(Errno::ENOTCONN, Outcome::Unknown);
    let mut pair = Pair::new(Order::NONE);
    let wrote = pair.submit(0, write(100));
    let frame = pair.frame(0).unwrap();
    let (now, link) = (pair.now, pair.links[1].unwrap());
    pair.peers[1].handle_frame(now, link, &frame).unwrap();
    pair.lose();
    pair.connect();
    assert!(!pair.peers[1].is_pending());
    // It has not come again.
    assert_eq!(part(&mut pair), [(wrote, unknown)]);
}

#[test]
fn what_comes_before_the_goodbye_is_said_is_of_the_session() {
    let mut pair = Pair::new(Order::NONE);
    assert!(pair.peers[1].has_crc());
    pair.peers[1].close(pair.now, Reason::Closed);
    // So a frame that is under way is no broken rule.
    assert!(pair.peers[1].has_crc());
    assert_eq!(pair.frame(1).map(|frame| frame.kind), Some(Kind::Bye));
    assert!(!pair.peers[1].has_crc());
}

#[test]
fn what_comes_again_is_known_to() {
    let mut pair = Pair::new(Order::NONE);
    pair.submit(0, write(100));
    pair.submit(0, write(100));
    let frame = pair.frame(0).unwrap();
    let (now, link) = (pair.now, pair.links[1].unwrap());
    pair.peers[1].handle_frame(now, link, &frame).unwrap();
    pair.lose();
    pair.connect();
    for again in [true, false] {
        // Others say what has been granted.
        while !pair.peers[1].is_pending() {
            let frame = pair.frame(0).unwrap();
            let (now, link) = (pair.now, pair.links[1].unwrap());
            pair.peers[1].handle_frame(now, link, &frame).unwrap();
        }
        assert_eq!(pair.peers[1].is_again(), again);
        let done = Executed::Done(Level::Delivered);
        assert_eq!(pair.peers[1].executed(now, done), Ok(true));
    }
}

#[test]
fn goodbye_acknowledges_nothing_that_an_unsent_reply_is_about() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Done(Level::Delivered));
    pair.answers[1].push(Executed::Failed(failed(Errno::EACCES)));
    let ops = [write(1), write(2), write(3)].map(|command| pair.submit(0, command));
    for _ in ops {
        bring(&mut pair);
    }
    let unknown = ends(Errno::ENOTCONN, Outcome::Unknown);
    let expected = [(ops[0], GOOD), (ops[1], unknown), (ops[2], unknown)];
    assert_eq!(part(&mut pair), expected);
}

#[test]
fn goodbye_is_not_believed_while_a_reply_is_missing() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Failed(failed(Errno::EACCES)));
    let refused = pair.submit(0, write(1));
    bring(&mut pair);
    assert_eq!(pair.frame(1).map(|h| h.kind), Some(Kind::Done));
    // That is lost with its link, and would be said again.
    pair.lose();
    pair.connect();
    let unknown = ends(Errno::ENOTCONN, Outcome::Unknown);
    assert_eq!(part(&mut pair), [(refused, unknown)]);
}

#[test]
fn numbers_that_can_not_be_are_not_believed() {
    let mut pair = Pair::new(Order::NONE);
    let wrote = pair.submit(0, write(100));
    let sent = pair.frame(0).unwrap().seq;
    let unknown = ends(Errno::ENOTCONN, Outcome::Unknown);
    for begun in [sent + 1, sent.wrapping_sub(2), sent ^ (1 << 31)] {
        let mut pair = Pair::new(Order::NONE);
        let op = pair.submit(0, write(100));
        pair.frame(0).unwrap();
        let mut bye = Header::new(Kind::Bye);
        (bye.code, bye.data) = (Reason::Closed as u16, begun.into());
        pair.deliver(0, &bye).unwrap();
        assert_eq!(pair.ended(0), [(op, unknown)], "{begun}");
    }
    // What was not sent can't be acknowledged.
    let mut bye = Header::new(Kind::Bye);
    (bye.code, bye.ack) = (Reason::Closed as u16, sent + 1);
    assert_eq!(pair.deliver(0, &bye), Err(Violation::Acknowledged));
    pair.drain();
    assert_eq!(
        pair.ended(0),
        [(wrote, ends(Errno::EPROTO, Outcome::Unknown))]
    );
}

#[test]
fn goodbye_in_place_of_an_answer_has_no_checksum() {
    let mut pair = Pair::new(Order::NONE);
    let op = pair.submit(0, write(100));
    pair.frame(0).unwrap();
    pair.lose();
    pair.now += 10 * MS;
    pair.peers[0].handle_timeout(pair.now);
    let link = pair.peers[0].link().unwrap();
    pair.peers[0].link_up(link);
    pair.links[0] = Some(link);
    pair.peers[0].poll_hello(&mut [0; MAX]).unwrap();
    let mut bye = Header::new(Kind::Bye);
    bye.code = Reason::NoEndpoint as u16;
    // The session that would be resumed has checksums.
    let read = Header::parse(&bye.emit(false), FRAME, pair.peers[0].has_crc());
    assert_eq!(read, Ok(bye));
    pair.deliver(0, &bye).unwrap();
    let unknown = ends(Errno::ENOTCONN, Outcome::Unknown);
    assert_eq!(pair.ended(0), [(op, unknown)]);
}
