// SPDX-License-Identifier: GPL-2.0

//! Messages.

use crate::close::{busy, closed};
use crate::ops::check_refused;
use crate::rig::{
    byte, cancel, check_buffer, ended, pattern, register, timeout, End, Rig, A_FEW_LEFT,
};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    message_arrives_whole [connected]: Caps::MSG,
    message_waits_for_its_receive [connected]: Caps::MSG => Order::SAS,
    message_fits_up_to_the_last_byte [connected]: Caps::MSG,
    message_longer_than_the_receive_fails_on_both_sides [connected]: Caps::MSG,
    empty_message_meets_an_empty_receive [connected]: Caps::MSG,
    messages_meet_receives_in_the_order_of_both [connected]: Caps::MSG => Order::SAS,
    messages_of_two_senders_each_keep_their_order: Caps::MSG => Order::SAS,
    message_carries_64_bits [connected]: Caps::MSG,
    message_beyond_the_longest_is_refused [connected]: Caps::MSG,
    message_reaches_its_own_endpoint: Caps::MSG,
    long_messages_pass_side_by_side [connected]: Caps::MSG => Order::SAS,
    message_to_a_closed_endpoint_fails: Caps::MSG,
    message_to_a_name_that_nobody_has_fails: Caps::MSG,
    old_name_does_not_reach_the_successor: Caps::MSG,
    slices_of_regions_are_buffers [connected]: Caps::MSG,
    part_of_a_buffer_is_moved [connected]: Caps::MSG,
    range_of_a_buffer_stays_within_it: Caps::NONE,
}

/// Sizes around the limits that providers have: lines, pages, inline copies.
const SIZES: [usize; 13] = [
    1,
    7,
    63,
    64,
    65,
    4095,
    4096,
    4097,
    16384,
    16385,
    65536,
    A_FEW_LEFT,
    1 << 20,
];

fn message_arrives_whole(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in SIZES {
        let receive = rig.b.recv(Memory::zeroed(len + 1)?, 1)?;
        let send = rig
            .a
            .ep
            .send(pattern(len, seed)?, rig.to_b, Options::default(), 2)?;
        check!(receive.here() != Some(send));
        let received = rig.b.next()?;
        check_eq!(received.kind, Kind::Recv);
        check_eq!(received.context, 1);
        check_eq!(received.result.map(|success| success.len), Ok(len));
        check_buffer(received.buffer, len, seed)?;
        let sent = rig.a.next()?;
        check_eq!(sent.kind, Kind::Send);
        check_eq!(sent.context, 2);
        check!(sent.result.is_ok());
        check_buffer(sent.buffer, len, seed)?;
    }
    check!(rig.a.cq.read().is_none() && rig.b.poll()?.is_none());
    rig.close()
}

fn message_waits_for_its_receive(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for context in 0..4 {
        rig.a.ep.send(
            pattern(100, seed + context)?,
            rig.to_b,
            Options::default(),
            context,
        )?;
    }
    check!(rig.a.cq.read().is_none());
    for context in 0..4 {
        rig.b.recv(Memory::zeroed(100)?, context)?;
        let received = rig.b.next()?;
        check_eq!(received.context, context);
        check_buffer(received.buffer, 100, seed + context)?;
        let sent = rig.a.next()?;
        check_eq!(sent.context, context);
        check!(sent.result.is_ok());
    }
    rig.close()
}

fn message_longer_than_the_receive_fails_on_both_sides(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    rig.b.recv(Memory::zeroed(99)?, 1)?;
    rig.a
        .ep
        .send(pattern(100, seed)?, rig.to_b, Options::default(), 2)?;
    let (received, sent) = (rig.b.next()?, rig.a.next()?);
    check_eq!(
        received.result.map_err(|failure| failure.error),
        Err(EMSGSIZE)
    );
    check_eq!(sent.result.map_err(|failure| failure.error), Err(EMSGSIZE));
    let untouched = received.buffer.into_memory().map_err(|_| EINVAL)?;
    check!(untouched
        .as_slice()
        .is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)));
    rig.close()
}

fn message_fits_up_to_the_last_byte(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for room in [1, 64, 4096, 65536] {
        for (len, fits) in [(room - 1, true), (room, true), (room + 1, false)] {
            let expected = if fits { Ok(len) } else { Err(EMSGSIZE) };
            rig.a
                .ep
                .send(pattern(len, seed)?, rig.to_b, Options::default(), 1)?;
            rig.b.recv(Memory::zeroed(room)?, 2)?;
            let (received, sent) = (rig.b.next()?, rig.a.next()?);
            check_eq!(ended(&received), (Kind::Recv, 2, expected));
            check_eq!(ended(&sent), (Kind::Send, 1, expected));
            check_buffer(sent.buffer, len, seed)?;
        }
    }
    rig.quiet()?;
    rig.close()
}

fn empty_message_meets_an_empty_receive(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    rig.a
        .ep
        .send(Buffer::empty(), rig.to_b, Options::default(), 1)?;
    rig.b.recv(Buffer::empty(), 2)?;
    rig.b.recv(Memory::zeroed(8)?, 3)?;
    rig.a
        .ep
        .send(Memory::zeroed(0)?, rig.to_b, Options::default(), 4)?;
    for (all, kind, empty, owned) in [
        (rig.b.gather(2)?, Kind::Recv, 2, 3),
        (rig.a.gather(2)?, Kind::Send, 1, 4),
    ] {
        for (context, done) in [empty, owned].into_iter().zip(all) {
            check_eq!(ended(&done), (kind, context, Ok(0)));
            check_eq!(done.buffer.into_memory().is_ok(), context == owned);
        }
    }
    rig.b.recv(Buffer::empty(), 5)?;
    rig.a
        .ep
        .send(pattern(1, 0)?, rig.to_b, Options::default(), 6)?;
    rig.passed(5, 6, Err(EMSGSIZE))?;
    rig.quiet()?;
    rig.close()
}

fn messages_meet_receives_in_the_order_of_both(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    // Some receives are posted before, some after; the lengths tell the messages apart.
    for first in [0, 1, 7, 16] {
        for context in 0..first {
            rig.b.recv(Memory::zeroed(100)?, context)?;
        }
        for context in 0..16 {
            rig.a.ep.send(
                pattern(context as usize, seed)?,
                rig.to_b,
                Options::default(),
                context,
            )?;
        }
        for context in first..16 {
            rig.b.recv(Memory::zeroed(100)?, context)?;
        }
        rig.passed_in_order(16)?;
    }
    rig.quiet()?;
    rig.close()
}

fn messages_of_two_senders_each_keep_their_order(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let other = End::new(info, None)?;
    let from_other = other.av.insert(&rig.b.name())?;
    for number in 0..16 {
        rig.a.ep.send(
            pattern(9, seed)?,
            rig.to_b,
            crate::ops::data(number),
            number,
        )?;
        other.ep.send(
            pattern(9, seed)?,
            from_other,
            crate::ops::data(100 + number),
            number,
        )?;
    }
    let mut next = [0, 100];
    for context in 0..32 {
        rig.b.recv(Memory::zeroed(9)?, context)?;
        let received = rig.b.next()?;
        check_eq!(received.context, context);
        let data = received
            .result
            .ok()
            .and_then(|success| success.data)
            .ok_or(EINVAL)?;
        let next = &mut next[usize::from(data >= 100)];
        check_eq!(data, *next);
        *next += 1;
    }
    for sender in [&rig.a, &other] {
        for (number, sent) in (0..).zip(sender.gather(16)?) {
            check_eq!(ended(&sent), (Kind::Send, number, Ok(9)));
        }
    }
    rig.quiet()?;
    other.close()?;
    rig.close()
}

fn message_carries_64_bits(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let values = [
        Some(0),
        None,
        Some(1),
        Some(u64::MAX),
        Some(1 << 32),
        None,
        Some(seed),
    ];
    for (len, data) in [0, 5, 20_000]
        .into_iter()
        .flat_map(|len| values.map(|data| (len, data)))
    {
        rig.b.recv(Memory::zeroed(len)?, 1)?;
        match data {
            Some(data) => {
                rig.a
                    .ep
                    .send(pattern(len, seed)?, rig.to_b, crate::ops::data(data), 2)?
            }
            None => rig
                .a
                .ep
                .send(pattern(len, seed)?, rig.to_b, Options::default(), 2)?,
        };
        let (received, sent) = (rig.b.next()?, rig.a.next()?);
        check_eq!(received.result.map(|success| success.data), Ok(data));
        check_eq!(sent.result.map(|success| success.data), Ok(None));
        check_buffer(received.buffer, len, seed)?;
    }
    rig.quiet()?;
    rig.close()
}

fn message_beyond_the_longest_is_refused(info: &Info, seed: u64) -> Result {
    let mut info = *info;
    info.limits.max_msg_size = 100;
    let rig = Rig::new(&info)?;
    check_eq!(rig.a.ep.limits().max_msg_size, 100);
    rig.b.recv(Memory::zeroed(200)?, 1)?;
    let posted = rig
        .a
        .ep
        .send(pattern(101, seed)?, rig.to_b, Options::default(), 2);
    let refused = check_refused(posted, EMSGSIZE, 2)?;
    // What came back is as it was, and a part of it is short enough.
    let part = refused.range(0, 100).map_err(|_| EINVAL)?;
    rig.a.ep.send(part, rig.to_b, Options::default(), 2)?;
    check_eq!(ended(&rig.b.next()?), (Kind::Recv, 1, Ok(100)));
    let sent = rig.a.next()?;
    check_eq!(ended(&sent), (Kind::Send, 2, Ok(100)));
    check_buffer(sent.buffer, 101, seed)?;
    rig.quiet()?;
    rig.close()
}

fn message_reaches_its_own_endpoint(info: &Info, seed: u64) -> Result {
    let end = End::new(info, None)?;
    let own = end.av.insert(&end.ep.name())?;
    for len in [0, 10, 50_000] {
        end.ep.recv(Memory::zeroed(len)?, 1)?;
        end.ep
            .send(pattern(len, seed)?, own, Options::default(), 2)?;
        for _ in 0..2 {
            let done = end.next()?;
            check_eq!(done.result.map(|success| success.len), Ok(len));
            check_buffer(done.buffer, len, seed)?;
        }
    }
    check!(end.cq.read().is_none());
    end.close()
}

fn long_messages_pass_side_by_side(info: &Info, seed: u64) -> Result {
    const LEN: usize = 70_000;
    let rig = Rig::new(info)?;
    for context in 0..8 {
        rig.b.recv(Memory::zeroed(LEN)?, context)?;
        rig.a.ep.recv(Memory::zeroed(LEN)?, context)?;
    }
    for context in 0..8 {
        rig.a.ep.send(
            pattern(LEN, seed + context)?,
            rig.to_b,
            Options::default(),
            100 + context,
        )?;
        rig.b.send(
            pattern(LEN, seed + 50 + context)?,
            rig.to_a,
            Options::default(),
            100 + context,
        )?;
    }
    for (all, peers_seed) in [(rig.a.gather(16)?, seed + 50), (rig.b.gather(16)?, seed)] {
        let mut seen = 0;
        for done in all {
            check_eq!(done.result.map(|success| success.len), Ok(LEN));
            check_eq!(done.kind == Kind::Send, done.context >= 100);
            seen |= 1u64 << (done.context % 100 + 8 * u64::from(done.context >= 100));
            if done.kind == Kind::Recv {
                check_buffer(done.buffer, LEN, peers_seed + done.context)?;
            }
        }
        check_eq!(seen, 0xffff);
    }
    rig.quiet()?;
    rig.close()
}

fn message_to_a_closed_endpoint_fails(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let Rig { a, b, to_b, .. } = rig;
    b.close()?;
    for len in [0, 10, 50_000] {
        a.ep.send(pattern(len, seed)?, to_b, Options::default(), 1)?;
        let sent = a.next()?;
        check_eq!(sent.result, Err(Failure::not_executed(EHOSTUNREACH)));
        check_buffer(sent.buffer, len, seed)?;
    }
    check!(a.cq.read().is_none());
    a.close()
}

fn message_to_a_name_that_nobody_has_fails(info: &Info, seed: u64) -> Result {
    let a = End::new(info, None)?;
    let mut bytes = [0; Name::MAX];
    for (at, place) in bytes.iter_mut().enumerate() {
        *place = byte(at, seed);
    }
    for len in 1..=Name::MAX {
        let to = a.av.insert(&Name::new(&bytes[..len])?)?;
        a.ep.send(pattern(10, seed)?, to, Options::default(), 1)?;
        check_eq!(a.next()?.result, Err(Failure::not_executed(EHOSTUNREACH)));
    }
    a.close()
}

fn old_name_does_not_reach_the_successor(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let Rig { a, b, to_b, .. } = rig;
    // Its successors are on this host.
    let b = b.into_here()?;
    for _ in 0..8 {
        b.ep.recv(Memory::zeroed(10)?, 1)?;
    }
    let name = b.ep.name();
    b.close()?;
    for _ in 0..4 {
        let successor = End::new(info, None)?;
        check!(successor.ep.name() != name);
        successor.ep.recv(Memory::zeroed(10)?, 2)?;
        a.ep.send(pattern(10, seed)?, to_b, Options::default(), 1)?;
        check_eq!(ended(&a.next()?), (Kind::Send, 1, Err(EHOSTUNREACH)));
        check!(successor.cq.read().is_none());
        successor.close()?;
    }
    a.close()
}

fn slices_of_regions_are_buffers(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let from = register(&rig.a.domain, pattern(50_000, seed)?, Access::NONE)?;
    let to = rig.b.register(Memory::zeroed(50_000)?, Access::NONE)?;
    for (offset, len) in [(0, 50_000), (3, 100), (49_999, 1), (50_000, 0)] {
        rig.b.recv(to.slice(offset, len)?, 1)?;
        rig.a
            .ep
            .send(from.slice(offset, len)?, rig.to_b, Options::default(), 2)?;
        let (received, sent) = (rig.b.next()?, rig.a.next()?);
        check_eq!(ended(&received), (Kind::Recv, 1, Ok(len)));
        check_eq!(ended(&sent), (Kind::Send, 2, Ok(len)));
        let slice = received.buffer.into_slice().map_err(|_| EINVAL)?;
        check_eq!((slice.offset(), slice.len()), (offset, len));
    }
    check_eq!(from.slice(1, 50_000).err(), Some(EINVAL));
    let memory = closed(to.close())?;
    check_buffer(memory.into(), 50_000, seed)?;
    // A slice that is in an operation keeps its region.
    let waiting = rig
        .a
        .ep
        .send(from.slice(0, 1)?, rig.to_b, Options::default(), 3)?;
    let from = busy(from.close())?;
    cancel(&rig.a.ep, waiting)?;
    drop(rig.a.next()?);
    closed(from.close())?;
    rig.close()
}

fn part_of_a_buffer_is_moved(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let to = Buffer::from(Memory::zeroed(300)?);
    rig.b.recv(to.range(100, 50).map_err(|_| EINVAL)?, 1)?;
    let from = Buffer::from(pattern(300, seed)?);
    rig.a.ep.send(
        from.range(7, 50).map_err(|_| EINVAL)?,
        rig.to_b,
        Options::default(),
        2,
    )?;
    let (received, sent) = (rig.b.next()?, rig.a.next()?);
    check_eq!(ended(&received), (Kind::Recv, 1, Ok(50)));
    check_eq!(ended(&sent), (Kind::Send, 2, Ok(50)));
    check_eq!((received.buffer.offset(), received.buffer.len()), (100, 50));
    let memory = received.buffer.into_memory().map_err(|_| EINVAL)?;
    for (at, found) in memory.as_slice().ok_or(EINVAL)?.iter().enumerate() {
        let inside = (100..150).contains(&at);
        check_eq!(*found, if inside { byte(at - 93, seed) } else { 0 });
    }
    rig.close()
}

fn range_of_a_buffer_stays_within_it(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let ranges = [
        (0, 0, true),
        (0, 100, true),
        (99, 1, true),
        (100, 0, true),
        (100, 1, false),
        (101, 0, false),
        (0, 101, false),
        (1, usize::MAX, false),
        (usize::MAX, 1, false),
        (usize::MAX, usize::MAX, false),
    ];
    let region = register(&end.domain, Memory::zeroed(300)?, Access::NONE)?;
    // Of a slice the range is counted from the region's start.
    let mut slice = Buffer::from(region.slice(50, 100)?);
    let mut owned = Buffer::from(Memory::zeroed(100)?);
    for (offset, len, fits) in ranges {
        owned = match owned.range(offset, len) {
            Ok(buffer) => {
                check!(fits);
                check_eq!((buffer.offset(), buffer.len()), (offset, len));
                buffer
            }
            Err(buffer) => {
                check!(!fits);
                buffer
            }
        };
        slice = match slice.range(offset.saturating_add(50), len) {
            Ok(buffer) => {
                check!(fits);
                check_eq!((buffer.offset(), buffer.len()), (offset + 50, len));
                buffer
            }
            Err(buffer) => {
                check!(!fits);
                buffer
            }
        };
    }
    for (offset, len) in [(49, 1), (0, 0), (149, 2), (151, 0)] {
        slice = match slice.range(offset, len) {
            Ok(_) => return Err(EINVAL),
            Err(buffer) => buffer,
        };
    }
    drop(slice);
    check!(Buffer::empty().range(0, 0).is_ok());
    check!(Buffer::empty().range(0, 1).is_err());
    check!(Buffer::empty().range(1, 0).is_err());
    closed(region.close_wait(timeout()))?;
    end.close()
}
