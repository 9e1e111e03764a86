// SPDX-License-Identifier: GPL-2.0

//! Endpoints: what they are made of, how many operations they hold, cancel and close.

use crate::close::closed;
use crate::ops::{check_refused, data};
use crate::peer::Posted;
use crate::rig::{
    cancel, check_buffer, count, ended, pattern, register, timeout, until, with_sizes, Counted,
    End, Rig, DEPTH,
};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::Acquire;
use kfabric::prelude::*;

cases! {
    endpoint_wants_queues_and_addresses: Caps::NONE,
    limit_of_nothing_is_refused: Caps::NONE,
    limit_beyond_the_offer_is_refused: Caps::NONE,
    endpoint_does_what_its_info_has_and_no_more: Caps::MSG.union(Caps::RMA),
    each_capability_can_be_left_out: LEFT_OUT,
    slice_of_another_domain_is_refused: Caps::MSG.union(Caps::RMA),
    queue_too_small_for_the_slots_is_refused: Caps::NONE,
    names_of_endpoints_differ: Caps::NONE,
    directions_complete_in_queues_of_their_own: Caps::MSG,
    many_endpoints_share_a_queue: Caps::MSG,
    full_endpoint_gives_everything_back: Caps::MSG => Order::SAS,
    four_thousand_operations_each_complete_once: Caps::MSG => Order::SAS,
    cancel_takes_a_posted_receive_back: Caps::MSG,
    cancel_takes_a_waiting_message_back: Caps::MSG,
    cancel_leaves_the_others_in_order: Caps::MSG => Order::SAS,
    cancel_of_what_has_ended_finds_nothing: Caps::MSG,
    cancel_of_anothers_operation_finds_nothing: Caps::MSG,
    close_gives_posted_receives_back: Caps::MSG,
    close_gives_waiting_messages_back: Caps::MSG.union(Caps::TAGGED),
    close_fails_the_messages_of_peers: Caps::MSG,
    close_of_either_end_while_bytes_move_completes_all_once: Caps::MSG,
    close_tells_a_placed_write_from_others: Caps::REMOTE_CQ_DATA,
    dropped_endpoint_is_closed: Caps::MSG => Order::SAS,
    closed_endpoint_leaves_its_completions: Caps::MSG,
}

const LEFT_OUT: Caps = Caps::MSG
    .union(Caps::TAGGED)
    .union(Caps::RMA)
    .union(Caps::ATOMIC)
    .union(Caps::REMOTE_CQ_DATA)
    .union(Caps::FENCE)
    .union(Caps::DIRECTED_RECV)
    .union(Caps::MULTI_RECV);

fn endpoint_wants_queues_and_addresses(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let small = with_sizes(info, 1, 1);
    let cq = CompletionQueue::<u64>::new(&end.domain, 2, None)?;
    let builder = || Endpoint::<u64>::builder(&end.domain, &small);
    check_eq!(builder().enable().err(), Some(EINVAL));
    check_eq!(builder().cq(&cq).enable().err(), Some(EINVAL));
    check_eq!(builder().av(&end.av).enable().err(), Some(EINVAL));
    check_eq!(
        builder().tx_cq(&cq).av(&end.av).enable().err(),
        Some(EINVAL)
    );
    check_eq!(
        builder().rx_cq(&cq).av(&end.av).enable().err(),
        Some(EINVAL)
    );
    let ep = builder().tx_cq(&cq).rx_cq(&cq).av(&end.av).enable()?;
    // It has one context of each kind.
    let limits = Limits {
        tx_contexts: 1,
        rx_contexts: 1,
        ..small.limits
    };
    check_eq!(ep.limits(), limits);
    closed(ep.close())?;
    closed(cq.close())?;
    end.close()
}

fn limit_of_nothing_is_refused(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let cq = CompletionQueue::<u64>::new(&end.domain, 8, None)?;
    for (tx_size, rx_size, good) in [(0, 0, false), (0, 1, false), (1, 0, false), (1, 1, true)] {
        let info = with_sizes(info, tx_size, rx_size);
        let made = end.endpoint(&info, &cq);
        check_eq!(made.err(), if good { None } else { Some(EINVAL) });
    }
    closed(cq.close())?;
    end.close()
}

fn limit_beyond_the_offer_is_refused(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let most = info.limits;
    let cq = CompletionQueue::<u64>::new(&end.domain, most.tx_size + most.rx_size + 1, None)?;
    let wanted = [
        (Limits { ..most }, true),
        (
            Limits {
                tx_size: most.tx_size + 1,
                ..most
            },
            false,
        ),
        (
            Limits {
                rx_size: most.rx_size + 1,
                ..most
            },
            false,
        ),
        (
            Limits {
                max_msg_size: most.max_msg_size + 1,
                ..most
            },
            false,
        ),
        (
            Limits {
                max_atomic_size: most.max_atomic_size + 1,
                ..most
            },
            false,
        ),
        (
            Limits {
                inject_size: most.inject_size + 1,
                ..most
            },
            false,
        ),
        (
            Limits {
                max_msg_size: 0,
                ..most
            },
            true,
        ),
    ];
    for (limits, good) in wanted {
        let info = Info { limits, ..*info };
        let made = end.endpoint(&info, &cq);
        check_eq!(made.err(), if good { None } else { Some(EINVAL) });
    }
    closed(cq.close())?;
    end.close()
}

fn endpoint_does_what_its_info_has_and_no_more(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::READ_WRITE)?;
    let slice = remote.slice(0, 8)?;
    let cq = CompletionQueue::<u64>::new(&rig.a.domain, 4, None)?;
    let caps = [Caps::MSG, Caps::READ, Caps::WRITE];
    for has in caps {
        let limited = Info {
            caps: has,
            ..with_sizes(info, 2, 2)
        };
        let ep = rig.a.endpoint(&limited, &cq)?;
        for cap in caps {
            let (local, options) = (pattern(8, seed)?, Options::NONE);
            let posted = match cap {
                Caps::MSG => ep.send(local, rig.to_b, options, 1),
                Caps::READ => ep.read(local, rig.to_b, slice, options, 1),
                _ => ep.write(local, rig.to_b, slice, options, 1),
            };
            if cap != has {
                check_buffer(check_refused(posted, EOPNOTSUPP, 1)?, 8, seed)?;
                continue;
            }
            posted?;
            if cap == Caps::MSG {
                rig.b.recv(Memory::zeroed(8)?, 2)?;
                check_eq!(ended(&rig.b.next()?), (Kind::Recv, 2, Ok(8)));
            }
            check_eq!(cq.read_wait(timeout())?.result.map(|done| done.len), Ok(8));
        }
        if has != Caps::MSG {
            let posted = ep.recv(pattern(8, seed)?, 3);
            check_buffer(check_refused(posted, EOPNOTSUPP, 3)?, 8, seed)?;
        }
        closed(ep.close())?;
    }
    closed(cq.close())?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn each_capability_can_be_left_out(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ALL)?;
    let (slice, cq) = (
        remote.slice(0, 8)?,
        CompletionQueue::<u64>::new(&rig.a.domain, 16, None)?,
    );
    let fence = Options {
        fence: true,
        ..Options::NONE
    };
    let sum = AtomicAction::update(AtomicOp::Sum, Datatype::U64);
    let local = || pattern(8, seed);
    let shared = register(&rig.a.domain, Memory::zeroed(8)?, Access::NONE)?;
    // What each post needs, and what is left out for it.
    let needs = [
        (Caps::NONE, Caps::MSG),
        (Caps::NONE, Caps::TAGGED),
        (Caps::NONE, Caps::READ),
        (Caps::NONE, Caps::WRITE),
        (Caps::NONE, Caps::ATOMIC),
        (Caps::WRITE, Caps::REMOTE_CQ_DATA),
        (Caps::READ, Caps::FENCE),
        (Caps::MSG, Caps::DIRECTED_RECV),
        (Caps::MSG, Caps::MULTI_RECV),
    ];
    for (_, left_out) in needs {
        let limited = Info {
            caps: info.caps.without(left_out),
            ..with_sizes(info, 8, 8)
        };
        let ep = rig.a.endpoint(&limited, &cq)?;
        let mut posted = 0;
        for (n, (more, cap)) in needs.into_iter().enumerate() {
            let post = match n {
                0 => ep.send(local()?, rig.to_b, Options::NONE, 1),
                1 => ep.tsend(local()?, rig.to_b, seed, Options::NONE, 1),
                2 => ep.read(local()?, rig.to_b, slice, Options::NONE, 1),
                3 => ep.write(local()?, rig.to_b, slice, Options::NONE, 1),
                4 => ep.atomic(local()?, rig.to_b, slice, sum, Options::NONE, 1),
                5 => ep.write(local()?, rig.to_b, slice, data(seed), 1),
                6 => ep.read(local()?, rig.to_b, slice, fence, 1),
                7 => ep.recv_from(local()?, rig.to_b, 1),
                _ => ep.recv_multi(shared.slice(0, 8)?, 1, 1),
            };
            if limited.caps.contains(more | cap) {
                post?;
                posted += 1;
            } else {
                drop(check_refused(post, EOPNOTSUPP, 1)?);
            }
        }
        // What waits for a receive of B, or for a message, ends here.
        closed(ep.close())?;
        for _ in 0..posted {
            drop(cq.read().ok_or(ENOENT)?);
        }
        check!(cq.read().is_none());
    }
    closed(cq.close())?;
    drop(closed(shared.close_wait(timeout()))?);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn slice_of_another_domain_is_refused(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::READ_WRITE)?;
    let to = remote.slice(0, 8)?;
    let (ep, options) = (&rig.a.ep, Options::NONE);
    // It is B's, and so are its bytes.
    let slice = || region.slice(0, 8);
    for posted in [
        ep.send(slice()?, rig.to_b, options, 1),
        ep.write(slice()?, rig.to_b, to, options, 1),
        ep.read(slice()?, rig.to_b, to, options, 1),
        ep.recv(slice()?, 1),
    ] {
        check!(check_refused(posted, EINVAL, 1)?.into_slice().is_ok());
    }
    rig.quiet()?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn queue_too_small_for_the_slots_is_refused(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let info = with_sizes(info, 3, 4);
    let small = CompletionQueue::<u64>::new(&end.domain, 6, None)?;
    let exact = CompletionQueue::<u64>::new(&end.domain, 7, None)?;
    let enable = |cq| end.endpoint(&info, cq);
    check_eq!(enable(&small).err(), Some(ENOSPC));
    let first = enable(&exact)?;
    check_eq!(enable(&exact).err(), Some(ENOSPC));
    // The room comes back, from what was refused and from what was closed.
    closed(first.close())?;
    closed(enable(&exact)?.close())?;
    let split = Endpoint::builder(&end.domain, &info)
        .tx_cq(&small)
        .rx_cq(&exact)
        .av(&end.av);
    closed(split.enable()?.close())?;
    closed(small.close())?;
    closed(exact.close())?;
    end.close()
}

fn names_of_endpoints_differ(info: &Info, _seed: u64) -> Result {
    let mut ends = KVVec::new();
    for _ in 0..20 {
        let end = End::sized(info, 1, None)?;
        check!(!end.ep.name().as_bytes().is_empty());
        check!(end.ep.name() == end.ep.name());
        check!(ends
            .iter()
            .all(|other: &KBox<End>| other.ep.name() != end.ep.name()));
        ends.push(end, GFP_KERNEL)?;
    }
    Ok(())
}

fn directions_complete_in_queues_of_their_own(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let small = with_sizes(info, 1, 2);
    let tx = CompletionQueue::<u64>::new(&rig.a.domain, 1, None)?;
    let rx = CompletionQueue::<u64>::new(&rig.a.domain, 2, None)?;
    let ep = Endpoint::builder(&rig.a.domain, &small)
        .tx_cq(&tx)
        .rx_cq(&rx);
    let ep = ep.av(&rig.a.av).enable()?;
    let own = rig.a.av.insert(&ep.name())?;
    ep.recv(Memory::zeroed(10)?, 1)?;
    ep.send(pattern(10, seed)?, own, Options::default(), 2)?;
    check_eq!(ended(&tx.read_wait(timeout())?), (Kind::Send, 2, Ok(10)));
    check_eq!(ended(&rx.read_wait(timeout())?), (Kind::Recv, 1, Ok(10)));
    check!(tx.read().is_none() && rx.read().is_none());
    closed(ep.close())?;
    closed(tx.close())?;
    closed(rx.close())?;
    rig.close()
}

fn many_endpoints_share_a_queue(info: &Info, seed: u64) -> Result {
    const MANY: usize = 32;
    let a = End::new(info, None)?;
    let small = with_sizes(info, 1, 1);
    let cq = CompletionQueue::<u64>::new(&a.domain, 2 * MANY, None)?;
    let mut endpoints = KVVec::new();
    for number in 0..MANY {
        let ep = a.endpoint(&small, &cq)?;
        ep.recv(Memory::zeroed(100)?, number as u64)?;
        let to = a.av.insert(&ep.name())?;
        endpoints.push((ep, to), GFP_KERNEL)?;
    }
    check_eq!(a.endpoint(&small, &cq).err(), Some(ENOSPC));
    for (number, (ep, _)) in endpoints.iter().enumerate() {
        let (_, next) = &endpoints[(number + 1) % MANY];
        ep.send(
            pattern(number, seed)?,
            *next,
            Options::default(),
            (MANY + number) as u64,
        )?;
    }
    let mut seen = 0u64;
    for _ in 0..2 * MANY {
        let done = cq.read_wait(timeout())?;
        let number = done.context as usize;
        let sender = if done.kind == Kind::Send {
            number - MANY
        } else {
            (number + MANY - 1) % MANY
        };
        check_eq!(done.result.map(|success| success.len), Ok(sender));
        check!(seen & 1 << number == 0);
        seen |= 1 << number;
    }
    check!(cq.read().is_none());
    check_eq!(seen, u64::MAX);
    for (ep, _) in endpoints {
        closed(ep.close())?;
    }
    closed(cq.close())?;
    a.close()
}

fn full_endpoint_gives_everything_back(info: &Info, seed: u64) -> Result {
    let rig = Rig::sized(info, 3)?;
    for context in 0..3 {
        rig.a
            .ep
            .send(pattern(10, seed)?, rig.to_b, Options::default(), context)?;
        rig.a.ep.recv(Memory::zeroed(10)?, context)?;
    }
    for _ in 0..2 {
        let posted = rig
            .a
            .ep
            .send(pattern(10, seed + 1)?, rig.to_b, Options::default(), 77);
        check_buffer(check_refused(posted, EAGAIN, 77)?, 10, seed + 1)?;
        let posted = rig.a.ep.recv(pattern(9, seed)?, 78);
        check_buffer(check_refused(posted, EAGAIN, 78)?, 9, seed)?;
    }
    // A slot is free again when its completion has been read, and not before.
    rig.b.recv(Memory::zeroed(10)?, 9)?;
    check_eq!(ended(&rig.b.next()?), (Kind::Recv, 9, Ok(10)));
    rig.a.cq.wait(timeout())?;
    let posted = rig
        .a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 3);
    let buffer = check_refused(posted, EAGAIN, 3)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Send, 0, Ok(10)));
    rig.a.ep.send(buffer, rig.to_b, Options::default(), 3)?;
    for context in 1..4 {
        rig.b.recv(Memory::zeroed(10)?, context)?;
        rig.passed(context, context, Ok(10))?;
    }
    rig.quiet()?;
    rig.close()
}

fn four_thousand_operations_each_complete_once(info: &Info, seed: u64) -> Result {
    const MANY: usize = 4096;
    check!(info.limits.tx_size >= MANY && info.limits.rx_size >= MANY);
    let rig = Rig::sized(info, MANY)?;
    // To ask for each from afar takes minutes.
    rig.b.here()?;
    for number in 0..MANY as u64 {
        rig.a
            .ep
            .send(pattern(8, seed + number)?, rig.to_b, data(number), number)?;
    }
    let posted = rig
        .a
        .ep
        .send(pattern(8, seed)?, rig.to_b, Options::default(), 7);
    check_buffer(check_refused(posted, EAGAIN, 7)?, 8, seed)?;
    check!(rig.a.cq.read().is_none());
    for number in 0..MANY as u64 {
        rig.b.recv(Memory::zeroed(8)?, number)?;
    }
    let mut sent = KVVec::from_elem(0u8, MANY, GFP_KERNEL)?;
    let mut received = KVVec::from_elem(0u8, MANY, GFP_KERNEL)?;
    for _ in 0..MANY {
        let done = rig.a.next()?;
        check_eq!(done.result.map(|success| success.len), Ok(8));
        *sent.get_mut(done.context as usize).ok_or(EINVAL)? += 1;
        let done = rig.b.next()?;
        check_eq!(
            done.result.map(|success| success.data),
            Ok(Some(done.context))
        );
        check_buffer(done.buffer, 8, seed + done.context)?;
        *received.get_mut(done.context as usize).ok_or(EINVAL)? += 1;
    }
    check!(sent.iter().all(|count| *count == 1));
    check!(received.iter().all(|count| *count == 1));
    rig.quiet()?;
    // As many posted receives, which the close gives back.
    for number in 0..MANY as u64 {
        rig.b.recv(Buffer::empty(), number)?;
    }
    check_eq!(
        rig.b.recv(Buffer::empty(), 0).err().map(Error::from),
        Some(EAGAIN)
    );
    let Rig { a, b, .. } = rig;
    let left = b.close_endpoint()?;
    for number in 0..MANY as u64 {
        check_eq!(
            left.poll()?.map(|done| ended(&done)),
            Some((Kind::Recv, number, Err(ECANCELED)))
        );
    }
    check!(left.poll()?.is_none());
    a.close()
}

fn cancel_takes_a_posted_receive_back(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let first = rig.b.recv(pattern(20, seed)?, 1)?;
    rig.b.recv(Memory::zeroed(10)?, 2)?;
    rig.b.cancel(first)?;
    // Its completion is in the queue when cancel returns.
    let done = rig.b.poll()?.ok_or(EINVAL)?;
    check_eq!((done.kind, done.context), (Kind::Recv, 1));
    check_eq!(done.result, Err(Failure::not_executed(ECANCELED)));
    check_buffer(done.buffer, 20, seed)?;
    check_eq!(rig.b.cancel(first), Err(ENOENT));
    rig.a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 3)?;
    rig.passed(2, 3, Ok(10))?;
    rig.quiet()?;
    rig.close()
}

fn cancel_takes_a_waiting_message_back(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let first = rig
        .a
        .ep
        .send(pattern(20, seed)?, rig.to_b, Options::default(), 1)?;
    rig.a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 2)?;
    cancel(&rig.a.ep, first)?;
    let done = rig.a.next()?;
    check_eq!((done.kind, done.context), (Kind::Send, 1));
    check_eq!(done.result, Err(Failure::not_executed(ECANCELED)));
    check_buffer(done.buffer, 20, seed)?;
    check_eq!(rig.a.ep.cancel(first), Err(ENOENT));
    rig.b.recv(Memory::zeroed(10)?, 3)?;
    rig.passed(3, 2, Ok(10))?;
    rig.quiet()?;
    rig.close()
}

fn cancel_leaves_the_others_in_order(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let mut receives = KVec::new();
    for context in 0..10 {
        receives.push(rig.b.recv(Memory::zeroed(10)?, context)?, GFP_KERNEL)?;
    }
    for gone in [0, 4, 9] {
        rig.b.cancel(receives[gone])?;
        check_eq!(
            ended(&rig.b.next()?),
            (Kind::Recv, gone as u64, Err(ECANCELED))
        );
    }
    for context in [1, 2, 3, 5, 6, 7, 8] {
        rig.a
            .ep
            .send(pattern(10, seed)?, rig.to_b, Options::default(), context)?;
        rig.passed(context, context, Ok(10))?;
    }
    let mut sends = KVec::new();
    for context in 0..10 {
        sends.push(
            rig.a
                .ep
                .send(pattern(10, seed)?, rig.to_b, Options::default(), context)?,
            GFP_KERNEL,
        )?;
    }
    for gone in [9, 5, 0] {
        cancel(&rig.a.ep, sends[gone])?;
        check_eq!(
            ended(&rig.a.next()?),
            (Kind::Send, gone as u64, Err(ECANCELED))
        );
    }
    for context in [1, 2, 3, 4, 6, 7, 8] {
        rig.b.recv(Memory::zeroed(10)?, context)?;
        rig.passed(context, context, Ok(10))?;
    }
    rig.quiet()?;
    rig.close()
}

fn cancel_of_what_has_ended_finds_nothing(info: &Info, seed: u64) -> Result {
    // One slot in each direction, so that each post uses it again.
    let rig = Rig::sized(info, 1)?;
    let mut old: Option<(OpId, Posted)> = None;
    for context in 0..3 {
        let receive = rig.b.recv(Memory::zeroed(10)?, context)?;
        if let Some((send, receive)) = old {
            check_eq!(rig.b.cancel(receive), Err(ENOENT));
            check_eq!(rig.a.ep.cancel(send), Err(ENOENT));
        }
        let send = rig
            .a
            .ep
            .send(pattern(10, seed)?, rig.to_b, Options::default(), context)?;
        // Both have ended, or will very soon, and nobody has read the completions.
        rig.a.cq.wait(timeout())?;
        rig.b.wait(timeout())?;
        check_eq!(rig.a.ep.cancel(send), Err(ENOENT));
        check_eq!(rig.b.cancel(receive), Err(ENOENT));
        rig.passed(context, context, Ok(10))?;
        check_eq!(rig.a.ep.cancel(send), Err(ENOENT));
        check_eq!(rig.b.cancel(receive), Err(ENOENT));
        old = Some((send, receive));
    }
    // The slot is used by a message that waits: the old number does not name it.
    let (old, _) = old.ok_or(EINVAL)?;
    let waiting = rig
        .a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 9)?;
    check_eq!(rig.a.ep.cancel(old), Err(ENOENT));
    check!(rig.a.cq.read().is_none());
    cancel(&rig.a.ep, waiting)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Send, 9, Err(ECANCELED)));
    rig.quiet()?;
    rig.close()
}

fn cancel_of_anothers_operation_finds_nothing(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    // The first operations of each: alike in all but the endpoint.
    let receive_a = rig.a.ep.recv(Memory::zeroed(10)?, 1)?;
    let b = rig.b.here()?;
    let receive_b = b.ep.recv(Memory::zeroed(10)?, 2)?;
    check!(receive_a != receive_b);
    check_eq!(rig.a.ep.cancel(receive_b), Err(ENOENT));
    check_eq!(b.ep.cancel(receive_a), Err(ENOENT));
    rig.quiet()?;
    rig.a.ep.cancel(receive_a)?;
    b.ep.cancel(receive_b)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Recv, 1, Err(ECANCELED)));
    check_eq!(ended(&rig.b.next()?), (Kind::Recv, 2, Err(ECANCELED)));
    let send_a = rig
        .a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 3)?;
    let send_b =
        b.ep.send(pattern(10, seed)?, rig.to_a, Options::default(), 4)?;
    check!(send_a != send_b);
    check_eq!(rig.a.ep.cancel(send_b), Err(ENOENT));
    check_eq!(b.ep.cancel(send_a), Err(ENOENT));
    rig.quiet()?;
    cancel(&rig.a.ep, send_a)?;
    cancel(&b.ep, send_b)?;
    check_eq!(ended(&rig.a.next()?), (Kind::Send, 3, Err(ECANCELED)));
    check_eq!(ended(&rig.b.next()?), (Kind::Send, 4, Err(ECANCELED)));
    rig.quiet()?;
    rig.close()
}

/// As many messages of A as there is room for, for which B has no receive.
fn fill_with_messages(rig: &Rig, seed: u64) -> Result {
    for context in 0..DEPTH as u64 {
        let bytes = pattern(20, seed + context)?;
        rig.a
            .ep
            .send(bytes, rig.to_b, Options::default(), context)?;
    }
    Ok(())
}

/// As [`fill_with_messages`]; all but the last have had the time to come to B, where they wait: a tagged one that
/// was sent after them has.
fn fill_and_wait(rig: &Rig, seed: u64) -> Result {
    let (tag, last) = (7, DEPTH as u64 - 1);
    for context in 0..last {
        let bytes = pattern(20, seed + context)?;
        rig.a.ep.send(bytes, rig.to_b, Options::NONE, context)?;
    }
    rig.b.trecv(Memory::zeroed(20)?, tag, 0, 1)?;
    let bytes = pattern(20, seed)?;
    rig.a.ep.tsend(bytes, rig.to_b, tag, Options::NONE, last)?;
    rig.passed(1, last, Ok(20))?;
    let bytes = pattern(20, seed + last)?;
    rig.a.ep.send(bytes, rig.to_b, Options::NONE, last)?;
    Ok(())
}

/// Fails unless as many operations ended, with that error, each once and with its buffer.
#[track_caller]
fn check_ended(
    next: impl Fn() -> Result<Completion<u64>>,
    kind: Kind,
    error: Error,
    seed: u64,
) -> Result {
    let mut times = [0; DEPTH];
    for _ in 0..DEPTH {
        let done = next()?;
        check_eq!(done.kind, kind);
        let failure = done.result.err().ok_or(EINVAL)?;
        check_eq!(failure.error, error);
        // What was on its way to a peer that closes may have reached it.
        let may = error == EHOSTUNREACH && failure.outcome == Outcome::Unknown;
        check!(failure.outcome == Outcome::NotExecuted || may);
        *times.get_mut(done.context as usize).ok_or(EINVAL)? += 1;
        check_buffer(done.buffer, 20, seed + done.context)?;
    }
    check!(times.iter().all(|times| *times == 1));
    Ok(())
}

fn close_gives_posted_receives_back(info: &Info, seed: u64) -> Result {
    let end = End::new(info, None)?;
    for context in 0..DEPTH as u64 {
        end.ep.recv(pattern(20, seed + context)?, context)?;
    }
    let (ep, base) = end.split();
    closed(ep.close())?;
    check_ended(|| base.cq.read().ok_or(EINVAL), Kind::Recv, ECANCELED, seed)?;
    check!(base.cq.read().is_none());
    base.close()
}

fn close_gives_waiting_messages_back(info: &Info, seed: u64) -> Result {
    for fill in [fill_with_messages, fill_and_wait] {
        let rig = Rig::new(info)?;
        fill(&rig, seed)?;
        let Rig { a, b, .. } = rig;
        let (ep, base) = a.split();
        closed(ep.close())?;
        check_ended(|| base.cq.read().ok_or(EINVAL), Kind::Send, ECANCELED, seed)?;
        check!(base.cq.read().is_none());
        base.close()?;
        // Nothing of it is left at the peer.
        b.recv(Memory::zeroed(20)?, 1)?;
        check!(b.poll()?.is_none());
        b.close()?;
    }
    Ok(())
}

fn close_fails_the_messages_of_peers(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    fill_with_messages(&rig, seed)?;
    let Rig { a, b, .. } = rig;
    b.close()?;
    check_ended(|| a.next(), Kind::Send, EHOSTUNREACH, seed)?;
    check!(a.cq.read().is_none());
    a.close()
}

fn close_of_either_end_while_bytes_move_completes_all_once(info: &Info, seed: u64) -> Result {
    const LEN: usize = 1 << 20;
    const MANY: u64 = 16;
    for receiver_first in [true, false] {
        let rig = Rig::new(info)?;
        for context in 0..MANY {
            rig.b.recv(Memory::zeroed(LEN)?, context)?;
            let bytes = pattern(LEN, seed)?;
            rig.a.ep.send(bytes, rig.to_b, data(context), context)?;
        }
        let Rig { a, b, .. } = rig;
        let ((ep_a, base_a), (ep_b, base_b)) = (a.split(), b.into_here()?.split());
        let (first, second) = if receiver_first {
            (ep_b, ep_a)
        } else {
            (ep_a, ep_b)
        };
        closed(first.close())?;
        closed(second.close())?;
        let mut moved = [0u64; 2];
        for (side, cq) in [&base_a.cq, &base_b.cq].into_iter().enumerate() {
            let mut seen = 0u64;
            for _ in 0..MANY {
                let done = cq.read().ok_or(EINVAL)?;
                check!(seen & 1 << done.context == 0);
                seen |= 1 << done.context;
                check_eq!(done.buffer.len(), LEN);
                match done.result {
                    Ok(success) => {
                        check_eq!(success.len, LEN);
                        // Which message it is, on both sides.
                        moved[side] |= 1 << success.data.unwrap_or(done.context);
                        check_buffer(done.buffer, LEN, seed)?;
                    }
                    Err(failure) => {
                        let error = failure.error;
                        check!(error == ECANCELED || error == EHOSTUNREACH);
                        check!(failure.outcome != Outcome::Executed);
                    }
                }
            }
            check!(cq.read().is_none());
        }
        // What the sender knows to be delivered has been received.
        check_eq!(moved[0] & !moved[1], 0);
    }
    Ok(())
}

fn close_tells_a_placed_write_from_others(info: &Info, seed: u64) -> Result {
    for sender_closes in [true, false] {
        let rig = Rig::new(info)?;
        let (region, remote) = rig.region(64, Access::WRITE)?;
        let slice = remote.slice(0, 64)?;
        rig.a
            .ep
            .write(pattern(64, seed)?, rig.to_b, slice, data(seed), 1)?;
        until(|| region.load_u64(56).is_ok_and(|word| word != 0))?;
        let Rig { a, b, .. } = rig;
        let (ep_a, base_a) = a.split();
        let expected = if sender_closes {
            closed(ep_a.close())?;
            ECANCELED
        } else {
            drop(b.close_endpoint()?);
            EHOSTUNREACH
        };
        let done = base_a.cq.read_wait(timeout())?;
        check_eq!(done.result, Err(Failure::after(Level::Delivered, expected)));
        drop(region);
    }
    Ok(())
}

fn dropped_endpoint_is_closed(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let Rig { a, b, to_b, .. } = rig;
    let b = b.into_here()?;
    b.ep.recv(Memory::zeroed(10)?, 1)?;
    a.ep.send(pattern(10, seed)?, to_b, Options::default(), 2)?;
    a.ep.send(pattern(10, seed)?, to_b, Options::default(), 3)?;
    let (ep, base) = b.split();
    base.cq.wait(timeout())?;
    drop(ep);
    check_eq!(
        base.cq.read().map(|done| ended(&done)),
        Some((Kind::Recv, 1, Ok(10)))
    );
    check!(base.cq.read().is_none());
    let sent = a.gather(2)?;
    check_eq!(ended(&sent[0]), (Kind::Send, 2, Ok(10)));
    check_eq!(ended(&sent[1]), (Kind::Send, 3, Err(EHOSTUNREACH)));
    base.close()?;
    a.close()
}

fn closed_endpoint_leaves_its_completions(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let contexts = count()?;
    let small = with_sizes(info, 1, 4);
    let cq = CompletionQueue::<Counted>::new(&end.domain, 5, None)?;
    for round in 0..3 {
        let ep = end.endpoint(&small, &cq)?;
        for _ in 0..4 {
            ep.recv(Memory::zeroed(round)?, Counted::new(&contexts))?;
        }
        closed(ep.close())?;
    }
    // Three times as many as the queue's size: it takes what was reserved one after another.
    check_eq!(contexts.load(Acquire), 12);
    for left in (0..12).rev() {
        let done = cq.read().ok_or(EINVAL)?;
        check_eq!(done.buffer.len(), (11 - left) as usize / 4);
        drop(done);
        check_eq!(contexts.load(Acquire), left);
    }
    check!(cq.read().is_none());
    closed(cq.close())?;
    end.close()
}
