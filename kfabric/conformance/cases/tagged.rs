// SPDX-License-Identifier: GPL-2.0

//! Tagged messages: which receive takes which.

use crate::close::closed;
use crate::ops::{check_buffer_filled, check_refused, data, error, CONTEXT};
use crate::rig::{cancel, check_buffer, ended, pattern, timeout, with_sizes, End, Rig, DEPTH};
use crate::wishes::domain_of;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    tagged_message_meets_the_receive_of_its_tag [connected]: Caps::TAGGED,
    ignored_bits_of_a_tag_are_not_compared [connected]: Caps::TAGGED,
    tagged_and_untagged_messages_never_meet [connected]: BOTH => Order::SAS,
    tagged_messages_meet_receives_in_the_order_of_both [connected]: Caps::TAGGED => Order::SAS,
    tagged_message_takes_the_receive_that_was_posted_first [connected]: Caps::TAGGED,
    receive_of_any_tag_takes_what_came_first [connected]: Caps::TAGGED => Order::SAS,
    tagged_messages_wait_for_receives_of_their_own [connected]: Caps::TAGGED,
    many_tags_pass_side_by_side [connected]: Caps::TAGGED,
    tagged_message_fits_up_to_the_last_byte [connected]: Caps::TAGGED,
    tagged_message_carries_64_bits [connected]: Caps::TAGGED,
    tagged_injection_arrives_up_to_the_limit [connected]: Caps::TAGGED,
    cancelled_tagged_receive_takes_nothing [connected]: Caps::TAGGED,
    cancelled_tagged_message_meets_nothing [connected]: Caps::TAGGED,
    tagged_message_reaches_its_own_endpoint: Caps::TAGGED,
    fence_waits_for_a_tagged_message [connected]: Caps::TAGGED.union(Caps::FENCE),
    data_of_a_write_takes_no_tagged_receive [connected]: BOTH.union(Caps::REMOTE_CQ_DATA),
    tagged_operations_end_when_their_peer_closes: Caps::TAGGED,
    tagged_message_ends_with_its_own_endpoint: Caps::TAGGED,
    endpoint_without_tags_refuses_them: BOTH,
}

const BOTH: Caps = Caps::MSG.union(Caps::TAGGED);

/// Tags at the edges of narrower fields.
const TAGS: [u64; 7] = [
    0,
    1,
    0xffff_ffff,
    1 << 32,
    1 << 63,
    0x0123_4567_89ab_cdef,
    u64::MAX,
];

/// All bits.
const ANY: u64 = u64::MAX;

impl Rig {
    /// Sends a pattern of `len` bytes from A to B under a tag.
    fn tsend(&self, len: usize, seed: u64, tag: u64, context: u64) -> Result<OpId> {
        let (memory, options) = (pattern(len, seed)?, Options::default());
        Ok(self.a.ep.tsend(memory, self.to_b, tag, options, context)?)
    }

    /// Fails unless B has next received a message into a receive, under a tag; gives its buffer.
    #[track_caller]
    fn received(&self, context: u64, tag: u64, len: usize) -> Result<Buffer> {
        let done = self.b.next()?;
        check_eq!(ended(&done), (Kind::Recv, context, Ok(len)));
        check_eq!(done.tag, Some(tag));
        Ok(done.buffer)
    }

    /// Fails unless A has next sent a message under a tag.
    #[track_caller]
    fn sent(&self, context: u64, tag: u64, len: usize) -> Result {
        let done = self.a.next()?;
        check_eq!(ended(&done), (Kind::Send, context, Ok(len)));
        check_eq!(done.tag, Some(tag));
        Ok(())
    }
}

fn tagged_message_meets_the_receive_of_its_tag(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [0, 1, 100, 16_385, 100_000] {
        // All receives are there, and none takes what is another's.
        for (n, tag) in (0..).zip(TAGS) {
            rig.b.trecv(Memory::zeroed(len)?, tag, 0, n)?;
        }
        for (at, tag) in TAGS.into_iter().enumerate().rev() {
            let n = at as u64;
            rig.tsend(len, seed + n, tag, 100 + n)?;
            let buffer = rig.received(n, tag, len)?;
            check_buffer(buffer, len, seed + n)?;
            rig.sent(100 + n, tag, len)?;
        }
    }
    rig.quiet()?;
    rig.close()
}

fn ignored_bits_of_a_tag_are_not_compared(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for (tag, ignore, sent, takes) in [
        (0xab00, 0xff, 0xab00, true),
        (0xab00, 0xff, 0xabff, true),
        (0xab12, 0xff, 0xab34, true),
        (0xab00, 0xff, 0xaa00, false),
        (0xab00, 0xff, 1 << 63 | 0xab00, false),
        (5, ANY, u64::MAX, true),
        (1 << 63, ANY >> 1, u64::MAX, true),
        (1 << 63, ANY >> 1, ANY >> 1, false),
        (7, 1 << 40, 7 | 1 << 40, true),
        (7, 1 << 40, 7 | 1 << 41, false),
    ] {
        rig.b.trecv(Memory::zeroed(8)?, tag, ignore, 1)?;
        rig.tsend(8, seed, sent, 2)?;
        if !takes {
            // It is for another, which is posted later.
            rig.b.trecv(Memory::zeroed(8)?, sent, 0, 3)?;
            check_buffer(rig.received(3, sent, 8)?, 8, seed)?;
            rig.sent(2, sent, 8)?;
            rig.tsend(8, seed, tag, 2)?;
        }
        let sent = if takes { sent } else { tag };
        check_buffer(rig.received(1, sent, 8)?, 8, seed)?;
        rig.sent(2, sent, 8)?;
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_and_untagged_messages_never_meet(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let options = Options::default();
    for first in [true, false] {
        // The receives of both kinds wait, or the messages do.
        if first {
            rig.b.trecv(Memory::zeroed(10)?, 0, ANY, 1)?;
            rig.b.recv(Memory::zeroed(10)?, 2)?;
        }
        rig.a.ep.send(pattern(10, seed)?, rig.to_b, options, 3)?;
        rig.tsend(9, seed + 1, 0, 4)?;
        if !first {
            rig.b.trecv(Memory::zeroed(10)?, 0, ANY, 1)?;
            check_buffer(rig.received(1, 0, 9)?, 9, seed + 1)?;
            rig.b.recv(Memory::zeroed(10)?, 2)?;
        }
        for done in rig.b.gather(if first { 2 } else { 1 })? {
            let (len, tag, seed) = match done.context {
                1 => (9, Some(0), seed + 1),
                _ => (10, None, seed),
            };
            check_eq!(ended(&done), (Kind::Recv, done.context, Ok(len)));
            check_eq!(done.tag, tag);
            check_buffer(done.buffer, len, seed)?;
        }
        for (done, tag) in rig.a.gather(2)?.iter().zip([None, Some(0)]) {
            check_eq!((error(done), done.tag), (None, tag));
        }
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_messages_meet_receives_in_the_order_of_both(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let options = Options::default();
    for first in [0, 1, 7, 16] {
        for context in 0..first {
            rig.b.trecv(Memory::zeroed(100)?, 5, 0, context)?;
        }
        for context in 0..16 {
            let memory = pattern(context as usize, seed)?;
            rig.a.ep.tsend(memory, rig.to_b, 5, options, context)?;
        }
        for context in first..16 {
            rig.b.trecv(Memory::zeroed(100)?, 5, 0, context)?;
        }
        rig.passed_in_order(16)?;
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_message_takes_the_receive_that_was_posted_first(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    // Of one tag, of some, of all: each may come before each.
    let receives = [(5, 0), (0, 0xf), (0, ANY), (5, 0), (4, 1), (5, 0)];
    for shift in 0..receives.len() {
        let order = || (0..receives.len()).map(|n| (n + shift) % receives.len());
        for n in order() {
            let (tag, ignore) = receives[n];
            rig.b.trecv(Memory::zeroed(10)?, tag, ignore, n as u64)?;
        }
        for n in order() {
            rig.tsend(10, seed, 5, 9)?;
            check_buffer(rig.received(n as u64, 5, 10)?, 10, seed)?;
            rig.sent(9, 5, 10)?;
        }
    }
    rig.quiet()?;
    rig.close()
}

fn receive_of_any_tag_takes_what_came_first(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let tags = [9, 3, 1 << 40, 3, 77, 9];
    for len in [10, 20_000] {
        for (n, tag) in (0..).zip(tags) {
            rig.tsend(len, seed + n, tag, n)?;
        }
        // From the middle, the first of its tag.
        rig.b.trecv(Memory::zeroed(len)?, 3, 0, 50)?;
        check_buffer(rig.received(50, 3, len)?, len, seed + 1)?;
        rig.sent(1, 3, len)?;
        for n in [0, 2, 3, 4, 5] {
            let tag = tags[n as usize];
            rig.b.trecv(Memory::zeroed(len)?, 0, ANY, 60 + n)?;
            check_buffer(rig.received(60 + n, tag, len)?, len, seed + n)?;
            rig.sent(n, tag, len)?;
        }
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_messages_wait_for_receives_of_their_own(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [0, 100, 20_000] {
        for tag in 0..32 {
            rig.tsend(len, seed + tag, tag << 32, tag)?;
        }
        for tag in (0..32).rev() {
            rig.b.trecv(Memory::zeroed(len)?, tag << 32, 0, tag)?;
            check_buffer(rig.received(tag, tag << 32, len)?, len, seed + tag)?;
            rig.sent(tag, tag << 32, len)?;
        }
    }
    rig.quiet()?;
    rig.close()
}

fn many_tags_pass_side_by_side(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let count = DEPTH as u64;
    let len = |n: u64| [1, 100, 9000, 20_000][n as usize % 4];
    // No order is kept: so each must be found by its tag alone.
    for n in 0..count / 2 {
        let n = n * 29 % count;
        rig.b.trecv(Memory::zeroed(len(n))?, n, 0, n)?;
    }
    for n in 0..count {
        let n = n * 37 % count;
        rig.tsend(len(n), seed + n, n, n)?;
    }
    for n in count / 2..count {
        let n = n * 29 % count;
        rig.b.trecv(Memory::zeroed(len(n))?, n, 0, n)?;
    }
    for (n, done) in (0..).zip(rig.b.gather(DEPTH)?) {
        check_eq!(ended(&done), (Kind::Recv, n, Ok(len(n))));
        check_eq!(done.tag, Some(n));
        check_buffer(done.buffer, len(n), seed + n)?;
    }
    for (n, done) in (0..).zip(rig.a.gather(DEPTH)?) {
        check_eq!(ended(&done), (Kind::Send, n, Ok(len(n))));
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_message_fits_up_to_the_last_byte(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for (room, first) in [1, 4096, 65_536]
        .into_iter()
        .flat_map(|room| [(room, true), (room, false)])
    {
        for (len, fits) in [(room - 1, true), (room, true), (room + 1, false)] {
            let expected = if fits { Ok(len) } else { Err(EMSGSIZE) };
            if first {
                rig.b.trecv(Memory::zeroed(room)?, 6, 1, 2)?;
            }
            rig.tsend(len, seed, 7, 1)?;
            if !first {
                rig.b.trecv(Memory::zeroed(room)?, 7, 0, 2)?;
            }
            let (received, sent) = (rig.b.next()?, rig.a.next()?);
            check_eq!(ended(&received), (Kind::Recv, 2, expected));
            check_eq!(ended(&sent), (Kind::Send, 1, expected));
            // Also of one that was too long it is known which it was.
            check_eq!((received.tag, sent.tag), (Some(7), Some(7)));
            match fits {
                true => check_buffer(received.buffer, len, seed)?,
                false => check_buffer_filled(received.buffer, 0)?,
            }
        }
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_message_carries_64_bits(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for (len, (tag, value)) in [0, 5, 20_000].into_iter().flat_map(|len| {
        TAGS.into_iter()
            .zip([0, 1, u64::MAX, 1 << 32, seed])
            .map(move |it| (len, it))
    }) {
        rig.b.trecv(Memory::zeroed(len)?, tag, 0, 1)?;
        rig.a
            .ep
            .tsend(pattern(len, seed)?, rig.to_b, tag, data(value), 2)?;
        let received = rig.b.next()?;
        check_eq!(received.result.map(|success| success.data), Ok(Some(value)));
        check_eq!(received.tag, Some(tag));
        check_buffer(received.buffer, len, seed)?;
        check_eq!(rig.a.next()?.result.map(|success| success.data), Ok(None));
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_injection_arrives_up_to_the_limit(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let most = info.limits.inject_size;
    let all = pattern(most + 1, seed)?;
    let all = all.as_slice().ok_or(EINVAL)?;
    for len in [0, 1, most, most + 1] {
        let posted = rig.a.ep.tinject(&all[..len], rig.to_b, 3, data(seed), 1);
        if len > most {
            check_eq!(check_refused(posted, EMSGSIZE, 1)?.len(), 0);
            continue;
        }
        posted?;
        rig.b.trecv(Memory::zeroed(len + 3)?, 3, 0, 2)?;
        check_buffer(rig.received(2, 3, len)?, len, seed)?;
        rig.sent(1, 3, len)?;
    }
    rig.quiet()?;
    rig.close()
}

fn cancelled_tagged_receive_takes_nothing(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for ignore in [0, 0xff] {
        let mut ids = KVec::new();
        for context in 0..3 {
            let id = rig.b.trecv(Memory::zeroed(10)?, 5, ignore, context)?;
            ids.push(id, GFP_KERNEL)?;
        }
        for context in [1, 0] {
            rig.b.cancel(ids[context])?;
            let done = rig.b.next()?;
            check_eq!(ended(&done), (Kind::Recv, context as u64, Err(ECANCELED)));
            check_eq!(done.tag, Some(5));
            check_buffer_filled(done.buffer, 0)?;
            check_eq!(rig.b.cancel(ids[context]).err(), Some(ENOENT));
        }
        rig.tsend(10, seed, 5, 9)?;
        check_buffer(rig.received(2, 5, 10)?, 10, seed)?;
        rig.sent(9, 5, 10)?;
        check_eq!(rig.b.cancel(ids[2]).err(), Some(ENOENT));
    }
    rig.quiet()?;
    rig.close()
}

fn cancelled_tagged_message_meets_nothing(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [10, 20_000] {
        let first = rig.tsend(len, seed, 5, 1)?;
        rig.tsend(len, seed + 1, 5, 2)?;
        cancel(&rig.a.ep, first)?;
        let done = rig.a.next()?;
        check_eq!(ended(&done), (Kind::Send, 1, Err(ECANCELED)));
        check_eq!(done.tag, Some(5));
        check_buffer(done.buffer, len, seed)?;
        rig.b.trecv(Memory::zeroed(len)?, 5, 0, 3)?;
        check_buffer(rig.received(3, 5, len)?, len, seed + 1)?;
        rig.sent(2, 5, len)?;
    }
    rig.quiet()?;
    rig.close()
}

fn tagged_message_reaches_its_own_endpoint(info: &Info, seed: u64) -> Result {
    let end = End::new(info, None)?;
    let own = end.av.insert(&end.ep.name())?;
    for (len, first) in [(0, true), (10, false), (50_000, true), (50_000, false)] {
        if first {
            end.ep.trecv(Memory::zeroed(len)?, 8, 7, 1)?;
        }
        end.ep
            .tsend(pattern(len, seed)?, own, 9, Options::default(), 2)?;
        if !first {
            end.ep.trecv(Memory::zeroed(len)?, 8, 7, 1)?;
        }
        for _ in 0..2 {
            let done = end.next()?;
            check_eq!(done.result.map(|success| success.len), Ok(len));
            check_eq!(done.tag, Some(9));
            check_buffer(done.buffer, len, seed)?;
        }
    }
    check!(end.cq.read().is_none());
    end.close()
}

fn fence_waits_for_a_tagged_message(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let fence = Options {
        fence: true,
        ..Options::NONE
    };
    rig.b.trecv(Memory::zeroed(10)?, 2, 0, 3)?;
    rig.tsend(10, seed, 1, 1)?;
    let memory = pattern(10, seed + 1)?;
    rig.a.ep.tsend(memory, rig.to_b, 2, fence, 2)?;
    // It has a receive, and waits for the one before it.
    check_eq!(rig.b.wait(20).err(), Some(ETIMEDOUT));
    rig.b.trecv(Memory::zeroed(10)?, 1, 0, 4)?;
    check_buffer(rig.received(4, 1, 10)?, 10, seed)?;
    check_buffer(rig.received(3, 2, 10)?, 10, seed + 1)?;
    rig.sent(1, 1, 10)?;
    rig.sent(2, 2, 10)?;
    rig.quiet()?;
    rig.close()
}

fn data_of_a_write_takes_no_tagged_receive(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::WRITE)?;
    rig.b.trecv(Memory::zeroed(64)?, 0, ANY, 1)?;
    let slice = remote.slice(0, 64)?;
    rig.a
        .ep
        .write(pattern(64, seed)?, rig.to_b, slice, data(5), CONTEXT)?;
    check_eq!(rig.b.wait(20).err(), Some(ETIMEDOUT));
    rig.b.recv(Buffer::empty(), 2)?;
    let told = rig.b.next()?;
    check_eq!(ended(&told), (Kind::RemoteWrite, 2, Ok(64)));
    check_eq!(told.tag, None);
    check_eq!(error(&rig.a.next()?), None);
    rig.tsend(64, seed, 1, 3)?;
    check_buffer(rig.received(1, 1, 64)?, 64, seed)?;
    rig.sent(3, 1, 64)?;
    rig.quiet()?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn tagged_operations_end_when_their_peer_closes(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for n in 0..8 {
        rig.tsend([10, 20_000][n as usize % 2], seed, n, n)?;
    }
    // They have come, in whatever order, when one of them is received.
    rig.b.trecv(Memory::zeroed(20_000)?, 8, 7, 9)?;
    rig.tsend(10, seed, 15, 8)?;
    drop(rig.b.next()?);
    for (n, (tag, ignore)) in (0..).zip([(100, 0), (100, 7), (1 << 60, ANY >> 8)]) {
        rig.b.trecv(pattern(10, seed)?, tag, ignore, n)?;
    }
    let Rig { a, b, to_b, .. } = rig;
    let left = b.close_endpoint()?;
    for n in 0..3 {
        let done = left.poll()?.ok_or(ENOENT)?;
        check_eq!((done.kind, error(&done)), (Kind::Recv, Some(ECANCELED)));
        check!(done.context < 3 && n < 3);
        check_buffer(done.buffer, 10, seed)?;
    }
    check!(left.poll()?.is_none());
    for done in a.gather(9)? {
        let expected = if done.context == 8 {
            None
        } else {
            Some(EHOSTUNREACH)
        };
        check_eq!(error(&done), expected);
    }
    a.ep.tsend(pattern(10, seed)?, to_b, 1, Options::default(), 1)?;
    check_eq!(a.next()?.result, Err(Failure::not_executed(EHOSTUNREACH)));
    left.close()?;
    a.close()
}

fn tagged_message_ends_with_its_own_endpoint(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for n in 0..8 {
        rig.tsend([10, 20_000][n as usize % 2], seed, n, n)?;
    }
    let Rig { a, b, .. } = rig;
    let (ep, base) = a.split();
    closed(ep.close())?;
    for _ in 0..8 {
        let done = base.cq.read().ok_or(ENOENT)?;
        check_eq!((done.kind, error(&done)), (Kind::Send, Some(ECANCELED)));
    }
    // A receive that comes now is not for them.
    let receive = b.trecv(Memory::zeroed(20_000)?, 0, ANY, 1)?;
    check!(b.poll()?.is_none());
    b.cancel(receive)?;
    check_eq!(ended(&b.next()?), (Kind::Recv, 1, Err(ECANCELED)));
    base.close()?;
    b.close()
}

fn endpoint_without_tags_refuses_them(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cq = CompletionQueue::<u64>::new(&rig.a.domain, 4, None)?;
    let (to, options) = (rig.to_b, Options::default());
    for (caps, untagged, tagged) in [
        (Caps::MSG, None, Some(EOPNOTSUPP)),
        (Caps::TAGGED, Some(EOPNOTSUPP), None),
    ] {
        let narrow = Info {
            caps,
            ..with_sizes(info, 2, 2)
        };
        let ep = rig.a.endpoint(&narrow, &cq)?;
        for (posted, expected) in [
            (ep.send(Buffer::empty(), to, options, 1), untagged),
            (ep.recv(Buffer::empty(), 1), untagged),
            (ep.tsend(Buffer::empty(), to, 1, options, 1), tagged),
            (ep.trecv(Buffer::empty(), 1, 0, 1), tagged),
        ] {
            check_eq!(posted.err().map(|refused| refused.error), expected);
        }
        closed(ep.close())?;
        while cq.read().is_some() {}
    }
    closed(cq.close())?;
    // Who asks for tags gets them.
    let hints = Hints {
        caps: Caps::TAGGED,
        ..domain_of(info)
    };
    check!(getinfo(&hints)?
        .iter()
        .all(|info| info.caps.contains(Caps::TAGGED)));
    rig.close()
}
