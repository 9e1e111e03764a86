// SPDX-License-Identifier: GPL-2.0

//! Writes and reads that are for a receive of the peer.

use super::*;

/// A write into, or a read out of, the receive of tag 7 in a context.
fn tagged(what: What, len: u64, context: u16) -> Command {
    Command {
        what,
        len,
        data: None,
        context,
    }
}

const WRITE: What = What::Write {
    target: Target::Tag(7),
    offset: 0,
    commit: false,
};

const READ: What = What::Read {
    target: Target::Tag(7),
    offset: 0,
};

#[test]
fn tagged_access_says_its_tag_and_context_in_each_piece() {
    let mut pair = Pair::new(Order::NONE);
    let frame = u64::from(pair.peers[0].limits().unwrap().frame);
    let wrote = pair.submit(0, tagged(WRITE, 2 * frame, 1));
    let read = pair.submit(0, tagged(READ, 10, 1));
    pair.run();
    let mut ended = pair.ended(0);
    ended.sort_by_key(|(op, _)| op.index());
    assert_eq!(ended, [(wrote, GOOD), (read, GOOD)]);
    let mut seen = 0;
    for action in &pair.actions[1] {
        if let Action::Write {
            target, context, ..
        }
        | Action::Read {
            target, context, ..
        } = *action
        {
            assert_eq!((target, context), (Target::Tag(7), 1));
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
    // None waits, and so none needs credit.
    assert!(!pair.kinds(1).contains(&Kind::Parked));
}

#[test]
fn tagged_access_to_a_context_that_the_peer_has_not_is_an_error() {
    for what in [WRITE, READ] {
        let mut pair = Pair::new(Order::NONE);
        let contexts = pair.peers[0].limits().unwrap().contexts;
        let last = pair.submit(0, tagged(what, 10, contexts - 1));
        let beyond = pair.submit(0, tagged(what, 10, contexts));
        pair.settle();
        let mut ended = pair.ended(0);
        ended.sort_by_key(|(op, _)| op.index());
        assert_eq!(ended, [(last, GOOD), (beyond, Err(failed(Errno::EINVAL)))]);
    }
}

#[test]
fn tagged_write_with_data_takes_credit_and_gives_it_back() {
    let mut pair = Pair::new(Order::NONE);
    for n in 0..500 {
        let command = Command {
            data: Some(n),
            ..tagged(WRITE, 10, 0)
        };
        let op = pair.submit(0, command);
        pair.run();
        assert_eq!(pair.ended(0), [(op, GOOD)], "{n}");
        pair.settle();
        pair.forget();
    }
    assert!(pair.peers.iter().all(Peer::is_quiet));
}
