// SPDX-License-Identifier: GPL-2.0

//! Sessions that end since nobody uses them.

use super::*;

/// `side` asks for the end; what it says.
fn ask(pair: &mut Pair, side: usize) -> Header {
    assert!(pair.peers[side].rest(pair.now));
    let question = pair.frame(side).unwrap();
    assert_eq!(question.kind, Kind::Idle);
    question
}

/// How sessions ended, by what each side was told.
fn over(pair: &Pair, side: usize) -> Vec<End> {
    let events = pair.events[side].iter();
    let ends = events.filter_map(|event| match event {
        Event::Over(end) => Some(*end),
        _ => None,
    });
    ends.collect()
}

fn states(pair: &Pair) -> [State; 2] {
    [pair.peers[0].state(), pair.peers[1].state()]
}

const RESTED: [State; 2] = [State::Closed(End::Idle); 2];

#[test]
fn session_that_nobody_uses_ends_when_one_side_asks() {
    let mut pair = Pair::new(Order::NONE);
    pair.submit(0, Command::send(10));
    pair.settle();
    pair.forget();
    let question = ask(&mut pair, 0);
    assert!(pair.frame(0).is_none());
    pair.deliver(1, &question).unwrap();
    let bye = pair.frame(1).unwrap();
    assert_eq!((bye.kind, bye.code), (Kind::Bye, Reason::Idle as u16));
    pair.deliver(0, &bye).unwrap();
    pair.run();
    assert_eq!(states(&pair), RESTED);
    for side in 0..2 {
        assert_eq!(over(&pair, side), [End::Idle]);
        assert_eq!(pair.peers[side].link(), None);
    }
    // Who was not the last to speak says nothing more, and both links are closed.
    assert_eq!(pair.kinds(0), [Kind::Idle]);
    let closed = |event: &Event| matches!(event, Event::CloseLink(_));
    assert!(pair.events.iter().all(|events| events.iter().any(closed)));
    // Either may begin another, at once: the other needs not have.
    pair.peers[0].reopen(pair.now);
    let op = pair.submit(0, Command::send(10));
    pair.now += 10 * MS;
    pair.connect();
    pair.run();
    assert_eq!(pair.ended(0), [(op, GOOD)]);
}

#[test]
fn what_is_outstanding_on_either_side_keeps_the_session() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Waits);
    let parked = pair.submit(0, Command::send(10));
    assert!(!pair.peers[0].rest(pair.now));
    pair.settle();
    // It waits for a receive.
    assert!(!pair.peers[0].rest(pair.now) && !pair.peers[1].rest(pair.now));
    assert!(pair.peers[1].reply(pair.token(1, 0), GOOD));
    assert!(!pair.peers[1].rest(pair.now));
    pair.settle();
    assert_eq!(pair.ended(0), [(parked, GOOD)]);
    assert!(pair.peers[0].rest(pair.now) && pair.peers[1].rest(pair.now));
}

#[test]
fn frame_whose_payload_is_coming_keeps_the_session() {
    let mut pair = Pair::new(Order::NONE);
    pair.submit(0, write(100));
    let frame = pair.frame(0).unwrap();
    let (now, link) = (pair.now, pair.links[1].unwrap());
    pair.peers[1].handle_frame(now, link, &frame).unwrap();
    assert!(pair.peers[1].is_quiet() && !pair.peers[1].rest(now));
}

#[test]
fn nothing_is_submitted_while_the_answer_is_awaited() {
    let mut pair = Pair::new(Order::NONE);
    ask(&mut pair, 0);
    assert!(pair.peers[0].rests() && !pair.peers[0].has_room());
    let posted = pair.peers[0].submit(pair.now, Command::send(1));
    assert_eq!(posted, Err(Refused::Full));
    // Nor is it asked twice.
    assert!(pair.peers[0].rest(pair.now) && pair.frame(0).is_none());
}

#[test]
fn message_that_crosses_the_question_goes_on_with_the_session() {
    let mut pair = Pair::new(Order::NONE);
    let op = pair.submit(1, Command::send(10));
    let message = pair.frame(1).unwrap();
    let question = ask(&mut pair, 0);
    pair.deliver(1, &question).unwrap();
    assert!(pair.frame(1).is_none());
    pair.deliver(0, &message).unwrap();
    // It may be used again, whatever the other still thinks.
    assert!(!pair.peers[0].rests());
    // Nor does the other end it once it has nothing outstanding.
    pair.settle();
    assert_eq!(states(&pair), [State::Open; 2]);
    let other = pair.submit(0, Command::send(10));
    pair.settle();
    pair.settle();
    assert_eq!(states(&pair), [State::Open; 2]);
    assert_eq!(pair.ended(1), [(op, GOOD)]);
    assert_eq!(pair.ended(0), [(other, GOOD)]);
}

#[test]
fn question_meets_what_was_posted_and_not_sent() {
    let mut pair = Pair::new(Order::NONE);
    let question = ask(&mut pair, 0);
    let op = pair.submit(1, Command::send(10));
    pair.deliver(1, &question).unwrap();
    pair.settle();
    pair.settle();
    assert_eq!(states(&pair), [State::Open; 2]);
    assert_eq!(pair.ended(1), [(op, GOOD)]);
    // What is withdrawn before it is sent leaves nothing that stands against the end.
    pair.forget();
    let question = ask(&mut pair, 0);
    let op = pair.submit(1, Command::send(10));
    pair.deliver(1, &question).unwrap();
    assert_eq!(pair.peers[1].cancel(op), Cancelled::Ended);
    pair.drain();
    pair.run();
    assert_eq!(states(&pair), RESTED);
}

#[test]
fn both_may_ask() {
    let mut pair = Pair::new(Order::NONE);
    let questions = [ask(&mut pair, 0), ask(&mut pair, 1)];
    pair.deliver(0, &questions[1]).unwrap();
    pair.deliver(1, &questions[0]).unwrap();
    // Neither reads what the other says now.
    for side in 0..2 {
        let bye = pair.peers[side].poll_transmit(pair.now).unwrap().header;
        assert_eq!((bye.kind, bye.code), (Kind::Bye, Reason::Idle as u16));
    }
    pair.drain();
    assert_eq!(states(&pair), RESTED);
    assert!((0..2).all(|side| over(&pair, side) == [End::Idle]));
}

#[test]
fn question_without_an_answer_costs_the_link_and_not_the_session() {
    let mut pair = Pair::new(Order::NONE);
    let link = pair.links[0].unwrap();
    ask(&mut pair, 0);
    assert_eq!(pair.peers[0].deadline(), Some(pair.now + 50 * MS));
    pair.peers[0].handle_timeout(pair.now + 50 * MS - 1);
    assert_eq!(pair.peers[0].link(), Some(link));
    pair.now += 50 * MS;
    pair.peers[0].handle_timeout(pair.now);
    assert_eq!(pair.peers[0].poll_event(), Some(Event::CloseLink(link)));
    assert_eq!(pair.peers[0].state(), State::Lost);
    pair.connect();
    assert!(over(&pair, 0).is_empty() && pair.peers[0].has_room());
    let op = pair.submit(0, Command::send(10));
    pair.run();
    assert_eq!(pair.ended(0), [(op, GOOD)]);
}

#[test]
fn answer_that_is_lost_was_given() {
    let mut pair = Pair::new(Order::NONE);
    let question = ask(&mut pair, 0);
    pair.deliver(1, &question).unwrap();
    pair.frame(1).unwrap();
    pair.drain();
    pair.links[1] = None;
    let (now, link) = (pair.now, pair.links[0].unwrap());
    pair.peers[0].link_lost(now, link);
    assert!(pair.peers[0].rests());
    pair.connect();
    // That the other has forgotten the session is no restart.
    assert_eq!(over(&pair, 0), [End::Idle]);
    assert_eq!(states(&pair), [State::Open; 2]);
    let op = pair.submit(0, Command::send(10));
    pair.run();
    assert_eq!(pair.ended(0), [(op, GOOD)]);
}

#[test]
fn goodbye_that_was_not_asked_for_is_one_as_any_other() {
    let mut pair = Pair::new(Order::NONE);
    let op = pair.submit(0, Command::send(10));
    pair.frame(0).unwrap();
    let mut bye = Header::new(Kind::Bye);
    bye.code = Reason::Idle as u16;
    pair.deliver(0, &bye).unwrap();
    assert_eq!(over(&pair, 0), [End::Bye(Reason::Idle)]);
    assert_eq!(pair.ended(0), [(op, Err(failed(Errno::ENOTCONN)))]);
}
