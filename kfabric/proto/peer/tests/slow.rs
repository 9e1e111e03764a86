// SPDX-License-Identifier: GPL-2.0

//! Payloads that take long to arrive.

use super::*;

/// Brings what `side` has to say, and `false` if that is nothing.
fn one_frame(pair: &mut Pair, side: usize) -> bool {
    let Some(header) = pair.frame(side) else {
        return false;
    };
    pair.deliver(1 - side, &header).unwrap();
    true
}

/// A write has begun to come; its payload does not get on for a while.
fn begun(pair: &mut Pair) -> Op {
    let op = pair.submit(0, write(100));
    let frame = pair.frame(0).unwrap();
    let link = pair.links[1].unwrap();
    let action = pair.peers[1].handle_frame(pair.now, link, &frame).unwrap();
    assert!(matches!(action, Action::Write { .. }));
    op
}

#[test]
fn payload_may_take_longer_than_the_dead_interval() {
    let mut pair = Pair::new(Order::NONE);
    let op = begun(&mut pair);
    let links = pair.links;
    let mut pings = 0;
    for _ in 0..20 {
        pair.now += 50 * MS;
        pair.peers[1].heard(pair.now, links[1].unwrap());
        for side in 0..2 {
            pair.peers[side].handle_timeout(pair.now);
        }
        // The sender's link is busy with the payload: only the receiver is heard.
        while one_frame(&mut pair, 1) {
            pings += 1;
        }
        pair.drain();
        assert_eq!([pair.peers[0].link(), pair.peers[1].link()], links);
    }
    assert!(pings >= 5, "{pings}");
    let done = Executed::Done(Level::Delivered);
    assert_eq!(pair.peers[1].executed(pair.now, done), Ok(true));
    pair.settle();
    assert_eq!(pair.ended(0), [(op, GOOD)]);
}

#[test]
fn payload_that_does_not_get_on_ends_its_link() {
    let mut pair = Pair::new(Order::NONE);
    begun(&mut pair);
    let link = pair.links[1].unwrap();
    pair.peers[1].heard(pair.now + 10 * MS, link);
    pair.peers[1].handle_timeout(pair.now + 310 * MS - 1);
    assert_eq!(pair.peers[1].link(), Some(link));
    pair.peers[1].handle_timeout(pair.now + 310 * MS);
    assert_ne!(pair.peers[1].link(), Some(link));
    assert!(!pair.peers[1].is_pending());
}
