// SPDX-License-Identifier: GPL-2.0

//! What passes over connections, and what does not.

use super::host::{begin, connect, send, Connected, Host};
use crate::close::closed;
use crate::ops::{check_not_executed, check_refused, data, error};
use crate::rig::{check_buffer, check_region, ended, pattern, register, End};
use crate::{cases, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! { EndpointType::Msg;
    post_before_it_is_connected_is_refused: Caps::MSG,
    receive_before_it_is_connected_is_taken: Caps::MSG,
    message_passes_over_a_connection: Caps::MSG,
    tagged_messages_pass_over_a_connection: Caps::TAGGED,
    receives_of_the_peer_take_its_messages: DIRECTED,
    several_messages_fill_one_receive_of_a_connection: MULTI => Order::SAS,
    data_of_64_bits_passes_over_a_connection: Caps::REMOTE_CQ_DATA,
    region_is_written_and_read_over_a_connection: Caps::RMA,
    atomic_passes_over_a_connection: Caps::ATOMIC,
    connected_endpoint_has_one_address: Caps::MSG,
    stranger_is_refused: Caps::RMA.union(Caps::MSG),
    two_connections_of_one_pair_are_apart: Caps::MSG,
}

const DIRECTED: Caps = Caps::MSG.union(Caps::TAGGED).union(Caps::DIRECTED_RECV);
const MULTI: Caps = Caps::MSG.union(Caps::MULTI_RECV);

fn post_before_it_is_connected_is_refused(info: &Info, seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let (at_a, at_b) = (a.endpoint()?, b.endpoint()?);
    for (n, ep) in (0..).zip([&at_a, &at_b]) {
        let posted = send(ep, pattern(100, seed)?, n);
        check_buffer(check_refused(posted, ENOTCONN, n)?, 100, seed)?;
    }
    begin(&at_a, &listener)?;
    let posted = send(&at_a, pattern(100, seed)?, 3);
    check_buffer(check_refused(posted, ENOTCONN, 3)?, 100, seed)?;
    closed(at_b.accept(b.request()?, PrivateData::NONE))?;
    a.connected(&at_a)?;
    for ep in [&at_a, &at_b] {
        send(ep, pattern(100, seed)?, 4)?;
    }
    closed(listener.close())?;
    drop((at_a, at_b));
    for host in [&a, &b] {
        check_eq!(host.next()?.context, 4);
        host.quiet()?;
    }
    a.close()?;
    b.close()
}

fn receive_before_it_is_connected_is_taken(info: &Info, seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let (at_a, at_b) = (a.endpoint()?, b.endpoint()?);
    at_a.recv(Memory::zeroed(100)?, 1)?;
    at_b.recv(Memory::zeroed(100)?, 1)?;
    begin(&at_a, &listener)?;
    closed(at_b.accept(b.request()?, PrivateData::NONE))?;
    // Connected when `accept` has returned, and on the other side with the event.
    send(&at_b, pattern(100, seed)?, 2)?;
    a.connected(&at_a)?;
    send(&at_a, pattern(100, seed)?, 2)?;
    for host in [&a, &b] {
        for _ in 0..2 {
            let done = host.next()?;
            check_eq!(error(&done), None);
            if done.kind == Kind::Recv {
                check_buffer(done.buffer, 100, seed)?;
            }
        }
    }
    closed(listener.close())?;
    let pair = Connected { a, b, at_a, at_b };
    pair.close()
}

fn message_passes_over_a_connection(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    for (from, to, sender, receiver) in [
        (&pair.at_a, &pair.at_b, &pair.a, &pair.b),
        (&pair.at_b, &pair.at_a, &pair.b, &pair.a),
    ] {
        for len in [0, 1, 100, 100_000] {
            to.recv(Memory::zeroed(len)?, 1)?;
            send(from, pattern(len, seed)?, 2)?;
            check_eq!(ended(&sender.next()?), (Kind::Send, 2, Ok(len)));
            let done = receiver.next()?;
            check_eq!(ended(&done), (Kind::Recv, 1, Ok(len)));
            check_buffer(done.buffer, len, seed)?;
        }
    }
    pair.close()
}

fn tagged_messages_pass_over_a_connection(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    let none = Options::default();
    for len in [0, 100, 100_000] {
        for tag in [1, 2] {
            let memory = pattern(len, seed + tag)?;
            pair.at_a.tsend(memory, Address::PEER, tag, none, tag)?;
        }
        // The one that was sent last is asked for first.
        for tag in [2, 1] {
            pair.at_b.trecv(Memory::zeroed(len)?, tag, 0, tag)?;
            let done = pair.b.next()?;
            check_eq!(ended(&done), (Kind::Recv, tag, Ok(len)));
            check_eq!(done.tag, Some(tag));
            check_buffer(done.buffer, len, seed + tag)?;
        }
        pair.a.sent(&[1, 2], len)?;
    }
    pair.close()
}

fn receives_of_the_peer_take_its_messages(info: &Info, seed: u64) -> Result {
    let (host, none) = (Host::new(info)?, Options::default());
    let ep = host.endpoint()?;
    let posted = ep.recv_from(pattern(9, seed)?, Address::PEER, 1);
    check_buffer(check_refused(posted, ENOTCONN, 1)?, 9, seed)?;
    closed(ep.close())?;
    host.close()?;

    let pair = Connected::new(info)?;
    let peer = Address::PEER;
    pair.at_b.recv_from(Memory::zeroed(100)?, peer, 1)?;
    pair.at_b.trecv_from(Memory::zeroed(100)?, peer, 7, 0, 2)?;
    pair.at_a.tsend(pattern(100, seed + 2)?, peer, 7, none, 2)?;
    let done = pair.b.next()?;
    check_eq!(ended(&done), (Kind::Recv, 2, Ok(100)));
    check_buffer(done.buffer, 100, seed + 2)?;
    send(&pair.at_a, pattern(100, seed + 1)?, 1)?;
    let done = pair.b.next()?;
    check_eq!(ended(&done), (Kind::Recv, 1, Ok(100)));
    check_buffer(done.buffer, 100, seed + 1)?;
    pair.a.sent(&[1, 2], 100)?;
    pair.close()
}

fn several_messages_fill_one_receive_of_a_connection(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    let len = MIN_MULTI_RECV + 1000;
    let region = register(&pair.b.domain, Memory::zeroed(len)?, Access::NONE)?;
    pair.at_b.recv_multi(region.slice(0, len)?, 3, 1)?;
    for (n, offset) in (0..).zip([0, 100, 200]) {
        send(&pair.at_a, pattern(100, seed + n)?, 2)?;
        let done = pair.b.next()?;
        check_eq!(ended(&done), (Kind::Recv, 1, Ok(100)));
        let released = n == 2;
        check_eq!(done.part, Some(Part { offset, released }));
        check_region(&region, offset, 100, seed + n)?;
        pair.a.sent(&[2], 100)?;
    }
    pair.b.quiet()?;
    drop(closed(region.close())?);
    pair.close()
}

fn data_of_64_bits_passes_over_a_connection(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    let region = register(&pair.b.domain, Memory::zeroed(64)?, Access::WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?.slice(0, 64)?;
    for value in [0, seed, u64::MAX] {
        let peer = Address::PEER;
        pair.at_b.recv(Memory::zeroed(64)?, 1)?;
        pair.at_a.send(pattern(64, seed)?, peer, data(value), 2)?;
        let done = pair.b.next()?;
        check_eq!(done.kind, Kind::Recv);
        check_eq!(done.result.map(|it| it.data), Ok(Some(value)));
        check_eq!(error(&pair.a.next()?), None);
        pair.at_b.recv(Buffer::empty(), 3)?;
        let local = pattern(64, seed)?;
        pair.at_a.write(local, peer, remote, data(value), 4)?;
        let done = pair.b.next()?;
        check_eq!(done.kind, Kind::RemoteWrite);
        check_eq!(done.result.map(|it| it.data), Ok(Some(value)));
        check_eq!(error(&pair.a.next()?), None);
    }
    drop(region);
    pair.close()
}

fn region_is_written_and_read_over_a_connection(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    for len in [1, 100, 100_000] {
        let memory = Memory::zeroed(len)?;
        let region = register(&pair.b.domain, memory, Access::READ_WRITE)?;
        let remote = RemoteRegion::parse(&region.descriptor()?)?.slice(0, len as u64)?;
        let (peer, options) = (Address::PEER, Options::default());
        pair.at_a
            .write(pattern(len, seed)?, peer, remote, options, 1)?;
        check_eq!(ended(&pair.a.next()?), (Kind::Write, 1, Ok(len)));
        check_region(&region, 0, len, seed)?;
        pair.at_a
            .read(Memory::zeroed(len)?, peer, remote, options, 2)?;
        let done = pair.a.next()?;
        check_eq!(ended(&done), (Kind::Read, 2, Ok(len)));
        check_buffer(done.buffer, len, seed)?;
    }
    pair.b.quiet()?;
    pair.close()
}

fn atomic_passes_over_a_connection(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    let access = Access::ATOMIC | Access::READ_WRITE;
    let region = register(&pair.b.domain, Memory::zeroed(8)?, access)?;
    region.store_u64(0, seed)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?.slice(0, 8)?;
    let sum = AtomicAction::update(AtomicOp::Sum, Datatype::U64);
    let mut operand = KVVec::new();
    operand.extend_from_slice(&5u64.to_ne_bytes(), GFP_KERNEL)?;
    let (peer, options) = (Address::PEER, Options::default());
    let local = Memory::from_vec(operand);
    pair.at_a.atomic(local, peer, remote, sum, options, 1)?;
    check_eq!(ended(&pair.a.next()?), (Kind::Atomic, 1, Ok(8)));
    check_eq!(region.load_u64(0)?, seed.wrapping_add(5));
    drop(region);
    pair.close()
}

fn connected_endpoint_has_one_address(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    for raw in [0, 1, u64::MAX] {
        let to = Address::from_raw(raw);
        let posted = pair.at_a.send(pattern(9, seed)?, to, Options::default(), 1);
        check_refused(posted, EHOSTUNREACH, 1)?;
    }
    // And an endpoint of datagrams has none of this kind.
    let datagrams = Info {
        endpoint_type: EndpointType::Rdm,
        ..*info
    };
    let end = End::new(&datagrams, None)?;
    end.av.insert(&pair.at_a.name())?;
    check_refused(send(&end.ep, pattern(9, seed)?, 1), EHOSTUNREACH, 1)?;
    end.close()?;
    pair.close()
}

fn stranger_is_refused(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    let region = register(&pair.b.domain, Memory::zeroed(64)?, Access::READ_WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?.slice(0, 64)?;
    pair.at_b.recv(Memory::zeroed(64)?, 1)?;
    let listener = pair.b.listen(1)?;
    let datagrams = Info {
        endpoint_type: EndpointType::Rdm,
        ..*info
    };
    let stranger = End::new(&datagrams, None)?;
    for name in [pair.at_b.name(), listener.name()] {
        let (to, options) = (stranger.av.insert(&name)?, Options::default());
        let ep = &stranger.ep;
        ep.send(pattern(64, seed)?, to, options, 1)?;
        check_not_executed(stranger.next()?, EHOSTUNREACH)?;
        ep.write(pattern(64, seed)?, to, remote, options, 2)?;
        check_not_executed(stranger.next()?, EHOSTUNREACH)?;
        ep.read(pattern(64, seed)?, to, remote, options, 3)?;
        let buffer = check_not_executed(stranger.next()?, EHOSTUNREACH)?;
        check_buffer(buffer, 64, seed)?;
    }
    crate::ops::check_filled(&region, 0)?;
    // The receive is still the peer's.
    pair.b.quiet()?;
    send(&pair.at_a, pattern(64, seed)?, 4)?;
    let done = pair.b.next()?;
    check_eq!(ended(&done), (Kind::Recv, 1, Ok(64)));
    check_buffer(done.buffer, 64, seed)?;
    stranger.close()?;
    closed(listener.close())?;
    drop(region);
    pair.close()
}

fn two_connections_of_one_pair_are_apart(info: &Info, seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let (one_a, one_b) = connect(&a, &b, &listener)?;
    let (two_a, two_b) = connect(&a, &b, &listener)?;
    closed(listener.close())?;
    one_b.recv(Memory::zeroed(100)?, 1)?;
    two_b.recv(Memory::zeroed(100)?, 2)?;
    send(&two_a, pattern(100, seed)?, 20)?;
    check_eq!(ended(&b.next()?), (Kind::Recv, 2, Ok(100)));
    send(&one_a, pattern(100, seed)?, 10)?;
    check_eq!(ended(&b.next()?), (Kind::Recv, 1, Ok(100)));
    // The end of one is not that of the other.
    one_a.shutdown()?;
    a.shut_down(&one_a)?;
    b.shut_down(&one_b)?;
    two_b.recv(Memory::zeroed(100)?, 3)?;
    send(&two_a, pattern(100, seed)?, 30)?;
    check_eq!(ended(&b.next()?), (Kind::Recv, 3, Ok(100)));
    a.eq.read().map_or(Ok(()), |_| Err(EINVAL))?;
    drop((one_a, one_b, two_a, two_b));
    a.close()?;
    b.close()
}
