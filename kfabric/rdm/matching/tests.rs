// SPDX-License-Identifier: GPL-2.0

//! Which receive takes which arrival, and how both end.

use kernel::prelude::*;

#[kunit_tests(kfabric_matching)]
mod matching {
    use super::super::*;
    use crate::av::Name;
    use crate::memory::Memory;
    use crate::mr::{Access, MemoryRegion};
    use crate::op::testing::{request, Bench};
    use crate::op::{Buffer, Request, Status};
    use crate::proto::tag::Tags;
    use crate::provider::testing::Opened;

    /// A side with slots of its own.
    struct Side(Bench<u64>);

    impl Side {
        fn new() -> Result<Self> {
            Ok(Side(Bench::new(8, None)?))
        }

        fn op(&self, kind: Kind, len: usize, context: u64) -> Result<Operation> {
            Ok(self.0.post(kind, Memory::zeroed(len)?.into(), context)?.1)
        }

        fn ended(&self) -> Option<(u64, Status)> {
            self.0.read().map(|done| (done.context, done.result))
        }
    }

    fn success(len: usize) -> Status {
        Ok(Success {
            len,
            data: None,
            level: Level::Delivered,
        })
    }

    fn matching() -> Result<Pin<KBox<Matching>>> {
        KBox::pin_init(Matching::new(8)?, GFP_KERNEL)
    }

    #[test]
    fn first_comes_first_on_both_sides() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        for context in 0..2 {
            assert!(matching.offer(tx.op(Kind::Send, 4, context)?).is_none());
        }
        for context in 0..2 {
            matching
                .post(rx.op(Kind::Recv, 4, context)?)
                .ok_or(EINVAL)?
                .execute();
            assert_eq!(tx.ended(), Some((context, success(4))));
            assert_eq!(rx.ended(), Some((context, success(4))));
        }
        for context in 0..2 {
            assert!(matching.post(rx.op(Kind::Recv, 4, context)?).is_none());
        }
        for context in 0..2 {
            matching
                .offer(tx.op(Kind::Send, 4, context)?)
                .ok_or(EINVAL)?
                .execute();
            assert_eq!(tx.ended(), Some((context, success(4))));
            assert_eq!(rx.ended(), Some((context, success(4))));
        }
        Ok(())
    }

    #[test]
    fn message_beyond_the_receive_moves_nothing() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        for (len, good) in [(3, true), (4, true), (5, false)] {
            assert!(matching.post(rx.op(Kind::Recv, 4, 1)?).is_none());
            let pair = matching.offer(tx.op(Kind::Send, len, 2)?).ok_or(EINVAL)?;
            assert_eq!(pair.len(), len);
            pair.execute();
            let expected = match good {
                true => success(len),
                false => Err(Failure::not_executed(EMSGSIZE)),
            };
            assert_eq!(rx.ended(), Some((1, expected)));
            assert_eq!(tx.ended(), Some((2, expected)));
        }
        Ok(())
    }

    #[test]
    fn cancel_and_withdraw_take_what_waits() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        let receive = rx.op(Kind::Recv, 4, 1)?;
        let id = receive.id();
        assert!(matching.post(receive).is_none());
        assert!(matching.cancel(tx.op(Kind::Send, 0, 9)?.id()).is_none());
        assert!(tx.ended().is_some());
        drop(matching.cancel(id));
        assert_eq!(rx.ended(), Some((1, Err(Failure::unknown(ECANCELED)))));
        assert!(matching.cancel(id).is_none());
        for context in 0..3 {
            assert!(matching
                .offer(tx.op(Kind::Send, context as usize, context)?)
                .is_none());
        }
        drop(matching.withdraw(|op| op.len() == 1));
        assert_eq!(tx.ended().map(|(context, _)| context), Some(1));
        for context in [0, 2] {
            matching
                .post(rx.op(Kind::Recv, 4, 7)?)
                .ok_or(EINVAL)?
                .execute();
            assert_eq!(tx.ended(), Some((context, success(context as usize))));
        }
        Ok(())
    }

    #[test]
    fn receive_that_is_put_back_is_the_first() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        for context in 0..2 {
            assert!(matching.post(rx.op(Kind::Recv, 4, context)?).is_none());
        }
        let pair = matching.offer(tx.op(Kind::Send, 4, 5)?).ok_or(EINVAL)?;
        let (arrival, receive) = pair.into_parts();
        drop(arrival);
        assert!(tx.ended().is_some());
        assert!(matching.put_back(receive).is_empty());
        for context in 0..2 {
            matching
                .offer(tx.op(Kind::Send, 4, 6)?)
                .ok_or(EINVAL)?
                .execute();
            assert_eq!(rx.ended(), Some((context, success(4))));
            assert!(tx.ended().is_some());
        }
        // What waits is met at once.
        let receive = rx.op(Kind::Recv, 4, 7)?;
        assert!(matching.offer(tx.op(Kind::Send, 4, 6)?).is_none());
        let mut pairs = matching.put_back(receive);
        let (arrival, receive) = (pairs.pop().ok_or(EINVAL)?, pairs.pop().ok_or(EINVAL)?);
        Match::from_parts(arrival, receive).execute();
        assert_eq!(rx.ended(), Some((7, success(4))));
        matching.close(ECANCELED, EHOSTUNREACH);
        assert!(matching.put_back(rx.op(Kind::Recv, 4, 8)?).is_empty());
        let ended = Err(Failure::not_executed(ECANCELED));
        assert_eq!(rx.ended(), Some((8, ended)));
        Ok(())
    }

    #[test]
    fn close_ends_both_sides() -> Result {
        for (error, lost) in [
            (ECANCELED, EHOSTUNREACH),
            (ECANCELED, ENOTCONN),
            (ENODEV, ENODEV),
        ] {
            let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
            assert!(matching.offer(tx.op(Kind::Send, 4, 1)?).is_none());
            assert!(matching.offer(tx.op(Kind::Write, 4, 2)?).is_none());
            matching.close(error, lost);
            // The write is placed already.
            assert_eq!(tx.ended(), Some((1, Err(Failure::not_executed(lost)))));
            let placed = Failure::after(Level::Delivered, lost);
            assert_eq!(tx.ended(), Some((2, Err(placed))));
            // What comes too late finds the same.
            assert!(matching.offer(tx.op(Kind::Send, 4, 3)?).is_none());
            assert_eq!(tx.ended(), Some((3, Err(Failure::not_executed(lost)))));
            assert!(matching.offer(tx.op(Kind::Write, 4, 5)?).is_none());
            assert_eq!(tx.ended(), Some((5, Err(placed))));
            assert!(matching.post(rx.op(Kind::Recv, 4, 4)?).is_none());
            assert_eq!(rx.ended(), Some((4, Err(Failure::not_executed(error)))));
        }
        let (matching, rx) = (matching()?, Side::new()?);
        assert!(matching.post(rx.op(Kind::Recv, 4, 1)?).is_none());
        matching.close(ECANCELED, EHOSTUNREACH);
        assert_eq!(rx.ended(), Some((1, Err(Failure::not_executed(ECANCELED)))));
        assert!(rx.ended().is_none());
        Ok(())
    }

    #[test]
    fn pair_that_fails_tells_each_side_its_own() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        assert!(matching.post(rx.op(Kind::Recv, 4, 1)?).is_none());
        matching
            .offer(tx.op(Kind::Send, 4, 2)?)
            .ok_or(EINVAL)?
            .fail(ECANCELED, ENOTCONN);
        assert_eq!(rx.ended(), Some((1, Err(Failure::not_executed(ECANCELED)))));
        assert_eq!(tx.ended(), Some((2, Err(Failure::not_executed(ENOTCONN)))));
        Ok(())
    }

    #[test]
    fn notice_of_a_write_leaves_the_receive_untouched() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        let empty = rx.0.post(Kind::Recv, Buffer::empty(), 1)?.1;
        assert!(matching.post(empty).is_none());
        let pair = matching.offer(tx.op(Kind::Write, 100, 2)?).ok_or(EINVAL)?;
        assert!(pair.is_empty());
        pair.execute();
        assert_eq!(rx.ended(), Some((1, success(100))));
        assert_eq!(tx.ended(), Some((2, success(100))));
        Ok(())
    }
    impl Side {
        /// A tagged operation without bytes.
        fn tagged(&self, kind: Kind, tags: Tags, context: u64) -> Result<Operation> {
            let request = Request {
                tags: Some(tags),
                ..request(kind)
            };
            Ok(self.0.post_request(request, context)?.1)
        }

        /// A message under that tag.
        fn message(&self, tag: u64, context: u64) -> Result<Operation> {
            self.tagged(Kind::Send, Tags::one(tag), context)
        }

        /// The contexts and the tags of all that have ended, each of which must have gone so.
        fn all_ended(&self, expected: Status) -> Result<KVec<(u64, Option<u64>)>> {
            let mut all = KVec::new();
            while let Some(done) = self.0.read() {
                assert_eq!(done.result, expected);
                all.push((done.context, done.tag), GFP_KERNEL)?;
            }
            Ok(all)
        }
    }

    #[test]
    fn tagged_and_untagged_never_meet() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        let any = Tags::new(0, u64::MAX);
        // The receives wait for the others.
        assert!(matching.post(rx.tagged(Kind::Recv, any, 1)?).is_none());
        assert!(matching.offer(tx.op(Kind::Send, 0, 2)?).is_none());
        assert!(matching.offer(tx.op(Kind::Write, 0, 3)?).is_none());
        matching.offer(tx.message(0, 4)?).ok_or(EINVAL)?.execute();
        assert_eq!(rx.all_ended(success(0))?[..], [(1, Some(0))]);
        assert_eq!(tx.all_ended(success(0))?[..], [(4, Some(0))]);
        // The messages wait for the others.
        assert!(matching.post(rx.tagged(Kind::Recv, any, 5)?).is_none());
        for context in [6, 7] {
            let receive = rx.op(Kind::Recv, 0, context)?;
            matching.post(receive).ok_or(EINVAL)?.execute();
        }
        assert_eq!(rx.all_ended(success(0))?[..], [(6, None), (7, None)]);
        assert_eq!(tx.all_ended(success(0))?[..], [(2, None), (3, None)]);
        assert!(matching.post(rx.op(Kind::Recv, 0, 8)?).is_none());
        matching.offer(tx.message(9, 9)?).ok_or(EINVAL)?.execute();
        assert_eq!(rx.all_ended(success(0))?[..], [(5, Some(9))]);
        Ok(())
    }

    #[test]
    fn message_goes_to_the_first_receive_that_takes_it() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        let receives = [(6, 0), (5, 0), (4, 1), (0, u64::MAX), (5, 0), (6, 0)];
        for (context, (tag, ignore)) in (0..).zip(receives) {
            let tags = Tags::new(tag, ignore);
            let receive = rx.tagged(Kind::Recv, tags, context)?;
            assert!(matching.post(receive).is_none());
        }
        for (tag, expected) in [(5, 1), (5, 2), (7, 3), (5, 4), (6, 0), (6, 5)] {
            matching.offer(tx.message(tag, 9)?).ok_or(EINVAL)?.execute();
            assert_eq!(rx.all_ended(success(0))?[..], [(expected, Some(tag))]);
            drop(tx.0.read());
        }
        assert!(matching.offer(tx.message(6, 9)?).is_none());
        Ok(())
    }

    #[test]
    fn receive_gets_the_first_message_that_it_takes() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        for (context, tag) in (0..).zip([8, 5, 1 << 63, 5, 9, 4]) {
            assert!(matching.offer(tx.message(tag, context)?).is_none());
        }
        for (tag, ignore, expected) in [
            (5, 0, Some(1)),
            (7, 0, None),
            (4, 1, Some(3)),
            (0, u64::MAX >> 1, Some(0)),
            (9, 1 << 63, Some(4)),
            (0, u64::MAX, Some(2)),
            (0, u64::MAX, Some(5)),
            (0, u64::MAX, None),
        ] {
            let receive = rx.tagged(Kind::Recv, Tags::new(tag, ignore), 7)?;
            let pair = matching.post(receive);
            assert_eq!(pair.is_some(), expected.is_some());
            if let (Some(pair), Some(expected)) = (pair, expected) {
                pair.execute();
                assert_eq!(tx.ended().map(|(context, _)| context), Some(expected));
                drop(rx.0.read());
            }
        }
        Ok(())
    }

    #[test]
    fn tagged_receive_that_is_put_back_has_its_place_again() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        for ignore in [0, 1] {
            for context in 0..3 {
                let receive = rx.tagged(Kind::Recv, Tags::new(4, ignore), context)?;
                assert!(matching.post(receive).is_none());
            }
            // Two at a time, in either order.
            for swap in [false, true] {
                let mut receives = Chain::new();
                for _ in 0..2 {
                    let pair = matching.offer(tx.message(4, 5)?).ok_or(EINVAL)?;
                    let (arrival, receive) = pair.into_parts();
                    drop(arrival);
                    receives.push(receive);
                }
                let (first, second) = (receives.pop(), receives.pop());
                let order = if swap {
                    [second, first]
                } else {
                    [first, second]
                };
                for receive in order.into_iter().flatten() {
                    assert!(matching.put_back(receive).is_empty());
                }
            }
            for context in 0..3 {
                matching.offer(tx.message(4, 5)?).ok_or(EINVAL)?.execute();
                assert_eq!(rx.all_ended(success(0))?[..], [(context, Some(4))]);
            }
            while tx.0.read().is_some() {}
        }
        // What it told meanwhile is forgotten.
        let receive = rx.tagged(Kind::Recv, Tags::new(4, 1), 6)?;
        let id = receive.id();
        assert!(matching.post(receive).is_none());
        let pair = matching.offer(tx.message(5, 5)?).ok_or(EINVAL)?;
        let (arrival, receive) = pair.into_parts();
        assert_eq!(receive.tag(), Some(5));
        drop(arrival);
        assert!(matching.put_back(receive).is_empty());
        drop(matching.cancel(id));
        let cancelled = Err(Failure::unknown(ECANCELED));
        assert_eq!(rx.all_ended(cancelled)?[..], [(6, Some(4))]);
        Ok(())
    }

    #[test]
    fn whatever_waits_can_be_taken_out() -> Result {
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        let post = |context| {
            let receive = match context {
                0 => rx.op(Kind::Recv, 0, context),
                1 => rx.tagged(Kind::Recv, Tags::one(7), context),
                _ => rx.tagged(Kind::Recv, Tags::new(7, 1), context),
            }?;
            let id = receive.id();
            assert!(matching.post(receive).is_none());
            Ok::<_, Error>(id)
        };
        let cancelled = Err(Failure::unknown(ECANCELED));
        for context in 0..3 {
            let id = post(context)?;
            drop(matching.cancel(id));
            assert_eq!(rx.ended(), Some((context, cancelled)));
            assert!(matching.cancel(id).is_none());
        }
        for (context, tag) in (0..).zip([1, 2, 1 << 40, 3]) {
            assert!(matching.offer(tx.message(tag, context)?).is_none());
        }
        drop(matching.recall(|op| op.tag() == Some(1 << 40)));
        assert_eq!(tx.ended(), Some((2, cancelled)));
        drop(matching.withdraw(|op| op.tag() != Some(3)));
        assert_eq!(tx.all_ended(cancelled)?.len(), 2);
        // The close gets the rest.
        for context in 0..3 {
            post(context)?;
        }
        matching.close(ECANCELED, EHOSTUNREACH);
        let closed = |error| Err(Failure::not_executed(error));
        assert_eq!(rx.all_ended(closed(ECANCELED))?.len(), 3);
        assert_eq!(tx.ended(), Some((3, closed(EHOSTUNREACH))));
        assert!(matching.offer(tx.message(7, 4)?).is_none());
        assert_eq!(tx.ended(), Some((4, closed(EHOSTUNREACH))));
        Ok(())
    }

    #[test]
    fn receives_of_peers_in_one_chain_are_told_apart() -> Result {
        // There are two chains, and three peers.
        let matching = KBox::pin_init(Matching::new(1)?, GFP_KERNEL)?;
        let rx = Side::new()?;
        let names: [&[u8]; 3] = [b"one", b"other", b"third"];
        for (context, name) in (0..).zip(names) {
            let request = Request {
                peer: Name::new(name)?,
                ..request(Kind::Recv)
            };
            let receive = rx.0.post_request(request, context)?.1;
            assert!(matching.post(receive).is_none());
        }
        // Last first: then each meets a chain that has what is for those before it.
        for context in [2, 1, 0] {
            let sender = Side(Bench::named(names[context as usize], 8, None)?);
            let pair = matching.offer(sender.op(Kind::Send, 0, 9)?).ok_or(EINVAL)?;
            pair.execute();
            assert_eq!(rx.ended(), Some((context, success(0))));
            assert_eq!(sender.ended(), Some((9, success(0))));
        }
        Ok(())
    }

    #[test]
    fn receive_of_a_peer_takes_that_peers_messages() -> Result {
        let (matching, rx) = (matching()?, Side::new()?);
        let names: [&[u8]; 2] = [b"one", b"other"];
        let senders = [
            Side(Bench::named(names[0], 8, None)?),
            Side(Bench::named(names[1], 8, None)?),
        ];
        let from = |peer: Option<usize>, tags, context| {
            let request = Request {
                peer: match peer {
                    Some(peer) => Name::new(names[peer])?,
                    None => Name::NONE,
                },
                tags,
                ..request(Kind::Recv)
            };
            Ok::<_, Error>(rx.0.post_request(request, context)?.1)
        };
        let message = |peer: usize, tag| {
            let sender: &Side = &senders[peer];
            match tag {
                Some(tag) => sender.message(tag, 9),
                None => sender.op(Kind::Send, 0, 9),
            }
        };
        for tag in [None, Some(5)] {
            // The receives wait: each message goes to the first that is for its sender.
            for (context, peer) in (0..).zip([Some(1), None, Some(0), Some(0), None]) {
                let receive = from(peer, tag.map(Tags::one), context)?;
                assert!(matching.post(receive).is_none());
            }
            for (peer, expected) in [(0, 1), (1, 0), (0, 2), (1, 4), (0, 3)] {
                let pair = matching.offer(message(peer, tag)?).ok_or(EINVAL)?;
                pair.execute();
                assert_eq!(rx.all_ended(success(0))?[..], [(expected, tag)]);
                drop(senders[peer].0.read());
            }
            // The messages wait.
            for peer in [0, 1, 0] {
                assert!(matching.offer(message(peer, tag)?).is_none());
            }
            let masked = tag.map(|tag| Tags::new(tag, 7));
            for (peer, tags) in [(1, tag.map(Tags::one)), (0, masked), (0, masked)] {
                let pair = matching.post(from(Some(peer), tags, 6)?).ok_or(EINVAL)?;
                pair.execute();
                assert_eq!(senders[peer].ended(), Some((9, success(0))));
                drop(rx.0.read());
            }
        }
        // Whichever was posted before, whether it ignores bits or not.
        let masked = Some(Tags::new(0, u64::MAX));
        for (context, tags) in [(1, masked), (2, Some(Tags::one(5)))] {
            assert!(matching.post(from(Some(0), tags, context)?).is_none());
        }
        assert!(matching.offer(message(1, Some(5))?).is_none());
        for context in [1, 2] {
            let pair = matching.offer(message(0, Some(5))?).ok_or(EINVAL)?;
            pair.execute();
            assert_eq!(rx.all_ended(success(0))?[..], [(context, Some(5))]);
        }
        // It is found again, whatever is done to it.
        let receive = from(Some(1), None, 7)?;
        let id = receive.id();
        assert!(matching.post(receive).is_none());
        drop(matching.cancel(id));
        assert!(matching.post(from(Some(1), None, 8)?).is_none());
        matching.close(ECANCELED, EHOSTUNREACH);
        assert_eq!(rx.ended().map(|(context, _)| context), Some(7));
        assert_eq!(rx.ended(), Some((8, Err(Failure::not_executed(ECANCELED)))));
        Ok(())
    }

    /// A receive of so many messages into 100 bytes, which ends with less than 10.
    fn several(
        rx: &Side,
        region: &MemoryRegion,
        messages: usize,
        context: u64,
    ) -> Result<Operation> {
        let request = Request {
            buffer: region.slice(20, 100)?.into(),
            ..request(Kind::Recv)
        };
        Ok(rx.0.post_multi(request, (messages, 10), context)?.1)
    }

    /// What has ended next: how, where the message was, and whether the buffer has come back.
    fn told(rx: &Side) -> Option<(Status, usize, bool)> {
        let done = rx.0.read()?;
        let part = done.part?;
        let whole = (done.buffer.offset(), done.buffer.len()) == (20, 100);
        assert_eq!(whole, part.released);
        Some((done.result, part.offset, part.released))
    }

    fn region(opened: &Opened) -> Result<MemoryRegion> {
        let memory = Memory::zeroed(200)?;
        let registered = opened.domain.register(memory, Access::NONE);
        registered.map_err(|(error, _)| error)
    }

    #[test]
    fn messages_fill_a_receive_of_several() -> Result {
        let opened = Opened::new()?;
        let region = region(&opened)?;
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        // By space, by number, and by both.
        for (messages, lens) in [(6, &[50, 0, 40, 1][..]), (3, &[1, 2, 3]), (2, &[90, 10])] {
            for waits in [false, true] {
                let receive = several(&rx, &region, messages, 1)?;
                let mut pairs = Chain::new();
                if waits {
                    for len in lens {
                        assert!(matching.offer(tx.op(Kind::Send, *len, 2)?).is_none());
                    }
                    pairs = matching.post_multi(receive);
                } else {
                    assert!(matching.post_multi(receive).is_empty());
                    for len in lens {
                        let pair = matching.offer(tx.op(Kind::Send, *len, 2)?).ok_or(EINVAL)?;
                        push_pair(&mut pairs, pair);
                    }
                }
                assert_eq!(pairs.len(), 2 * lens.len());
                let mut at = 0;
                for (n, len) in lens.iter().enumerate() {
                    let (arrival, receive) =
                        (pairs.pop().ok_or(EINVAL)?, pairs.pop().ok_or(EINVAL)?);
                    Match::from_parts(arrival, receive).execute();
                    let last = n + 1 == lens.len();
                    assert_eq!(told(&rx), Some((success(*len), at, last)));
                    assert_eq!(tx.ended(), Some((2, success(*len))));
                    at += len;
                }
                assert!(rx.0.read().is_none());
                assert_eq!(rx.0.origin.in_flight(), 0);
                // It takes no more.
                assert!(matching.offer(tx.op(Kind::Send, 0, 3)?).is_none());
                drop(matching.recall(|_| true));
                drop(tx.0.read());
            }
        }
        Ok(())
    }

    #[test]
    fn buffer_comes_back_after_all_its_messages() -> Result {
        let opened = Opened::new()?;
        let region = region(&opened)?;
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        let receive = several(&rx, &region, 4, 1)?;
        let id = receive.id();
        assert!(matching.post_multi(receive).is_empty());
        let meet = |len| {
            let pair = matching.offer(tx.op(Kind::Send, len, 2)?);
            pair.ok_or(EINVAL)
        };
        let (first, second, last) = (meet(30)?, meet(30)?, meet(31)?);
        last.execute();
        assert!(rx.0.read().is_none());
        first.execute();
        assert_eq!(told(&rx), Some((success(30), 0, false)));
        assert!(rx.0.read().is_none());
        second.execute();
        assert_eq!(told(&rx), Some((success(30), 30, false)));
        assert_eq!(told(&rx), Some((success(31), 60, true)));
        assert!(matching.cancel(id).is_none());
        // A cancelled one waits for them, too.
        let receive = several(&rx, &region, 4, 1)?;
        let id = receive.id();
        assert!(matching.post_multi(receive).is_empty());
        let first = meet(30)?;
        drop(matching.cancel(id).ok_or(EINVAL)?);
        assert!(rx.0.read().is_none());
        first.execute();
        assert_eq!(told(&rx), Some((success(30), 0, false)));
        let cancelled = Err(Failure::unknown(ECANCELED));
        assert_eq!(told(&rx), Some((cancelled, 30, true)));
        // All slots are free again, so that none was lost.
        let all = several(&rx, &region, 8, 1)?;
        assert!(several(&rx, &region, 1, 1).is_err());
        drop(all);
        assert_eq!(told(&rx), Some((cancelled, 0, true)));
        assert_eq!(rx.0.origin.in_flight(), 0);
        Ok(())
    }

    #[test]
    fn message_that_does_not_fit_takes_no_space() -> Result {
        let opened = Opened::new()?;
        let region = region(&opened)?;
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        assert!(matching.post_multi(several(&rx, &region, 4, 1)?).is_empty());
        let long = Err(Failure::not_executed(EMSGSIZE));
        for (len, expected, at, last) in [
            (60, success(60), 0, false),
            (41, long, 60, false),
            (30, success(30), 60, false),
            (11, long, 90, true),
        ] {
            let pair = matching.offer(tx.op(Kind::Send, len, 2)?).ok_or(EINVAL)?;
            pair.execute();
            assert_eq!(told(&rx), Some((expected, at, last)));
            assert_eq!(tx.ended(), Some((2, expected)));
        }
        Ok(())
    }

    #[test]
    fn part_that_is_put_back_ends_unseen() -> Result {
        let opened = Opened::new()?;
        let region = region(&opened)?;
        let (matching, tx, rx) = (matching()?, Side::new()?, Side::new()?);
        assert!(matching.post_multi(several(&rx, &region, 4, 1)?).is_empty());
        let meet = |len| {
            let pair = matching.offer(tx.op(Kind::Send, len, 2)?);
            let (arrival, receive) = pair.ok_or(EINVAL)?.into_parts();
            drop(arrival);
            drop(tx.0.read());
            Ok::<_, Error>(receive)
        };
        assert!(matching.put_back(meet(40)?).is_empty());
        assert!(rx.0.read().is_none());
        assert_eq!(rx.0.origin.in_flight(), 1);
        // The last is the receive itself: it waits for another, which finds what it would have found.
        let last = meet(51)?;
        assert!(matching.offer(tx.op(Kind::Send, 20, 3)?).is_none());
        let mut pairs = matching.put_back(last);
        let (arrival, receive) = (pairs.pop().ok_or(EINVAL)?, pairs.pop().ok_or(EINVAL)?);
        assert!(pairs.is_empty());
        Match::from_parts(arrival, receive).execute();
        assert_eq!(told(&rx), Some((success(20), 40, false)));
        assert!(matching.put_back(meet(31)?).is_empty());
        matching.close(ENODEV, ENODEV);
        let gone = Err(Failure::not_executed(ENODEV));
        assert_eq!(told(&rx), Some((gone, 60, true)));
        assert_eq!(rx.0.origin.in_flight(), 0);
        Ok(())
    }
}
