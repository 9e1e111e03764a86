// SPDX-License-Identifier: GPL-2.0

//! Named receive contexts: what is for one arrives there.

use super::{with_contexts, Many, Pair, COUNT, DEPTH, NAMED};
use crate::close::closed;
use crate::ops::{check_filled, check_not_executed, check_refused, data};
use crate::rig::{check_buffer, check_region, ended, pattern, register, timeout, with_sizes, Rig};
use crate::{cases, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    message_arrives_at_the_context_that_it_names: NAMED,
    tagged_message_arrives_at_the_context_that_it_names: NAMED.union(Caps::TAGGED),
    address_of_a_peer_names_its_first_context: NAMED,
    message_waits_for_a_receive_of_its_context: NAMED,
    message_waits_for_a_context_that_is_not_open_yet: NAMED,
    data_of_a_write_arrive_at_the_context_that_is_named: NAMED.union(Caps::REMOTE_CQ_DATA),
    scalable_endpoint_reaches_its_own_contexts: NAMED,
    context_that_a_peer_does_not_have_is_an_error: NAMED,
    write_for_a_context_that_is_not_there_is_not_executed: NAMED.union(Caps::REMOTE_CQ_DATA),
    endpoint_without_named_contexts_refuses_all_but_the_first: NAMED,
}

fn message_arrives_at_the_context_that_it_names(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    for len in [0, 100, 20_000] {
        for rx in 0..COUNT {
            pair.b.recv(rx, len, rx as u64)?;
        }
        for rx in [1, 2, 0] {
            let n = seed + rx as u64;
            pair.a.send(0, pair.to(rx)?, len, n)?;
            pair.b.received(rx, rx as u64, len, n)?;
            pair.a.sent(0, n, Ok(len))?;
        }
    }
    pair.close()
}

fn tagged_message_arrives_at_the_context_that_it_names(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    for len in [0, 100, 20_000] {
        for rx in &pair.b.rx {
            rx.trecv(Memory::zeroed(len)?, 7, 0, 1)?;
        }
        for rx in [2, 0, 1] {
            let n = seed + rx as u64;
            let (memory, options) = (pattern(len, n)?, Options::default());
            pair.a.tx[1].tsend(memory, pair.to(rx)?, 7, options, n)?;
            pair.b.received(rx, 1, len, n)?;
            pair.a.sent(1, n, Ok(len))?;
        }
    }
    pair.close()
}

fn address_of_a_peer_names_its_first_context(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    check_eq!(pair.to(0), Ok(pair.to_b));
    pair.b.recv(0, 100, 1)?;
    pair.b.recv(1, 100, 1)?;
    pair.a.send(2, pair.to_b, 100, seed)?;
    pair.b.received(0, 1, 100, seed)?;
    pair.a.sent(2, seed, Ok(100))?;
    pair.a.send(2, pair.to(1)?, 100, seed)?;
    pair.b.received(1, 1, 100, seed)?;
    pair.a.sent(2, seed, Ok(100))?;
    // An endpoint that is not scalable has the first, and is reached by both.
    let rig = Rig::new(info)?;
    for to in [rig.to_b, rig.to_b.rx_context(0)?] {
        rig.b.recv(Memory::zeroed(100)?, 1)?;
        rig.a
            .ep
            .send(pattern(100, seed)?, to, Options::default(), 2)?;
        rig.passed(1, 2, Ok(100))?;
    }
    rig.close()?;
    pair.close()
}

fn message_waits_for_a_receive_of_its_context(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    for len in [0, 100, 20_000] {
        for rx in 0..COUNT {
            pair.a.send(0, pair.to(rx)?, len, seed + rx as u64)?;
        }
        for rx in [2, 1, 0] {
            pair.b.recv(rx, len, 5)?;
            pair.b.received(rx, 5, len, seed + rx as u64)?;
            pair.a.sent(0, seed + rx as u64, Ok(len))?;
            pair.b.quiet()?;
        }
    }
    pair.close()
}

fn message_waits_for_a_context_that_is_not_open_yet(info: &Info, seed: u64) -> Result {
    let a = Many::new(info)?;
    let info = with_contexts(info, 1, 2);
    let fabric = Fabric::open(&info)?;
    let domain = fabric.domain(&info)?;
    let av = AddressVector::new(&domain)?;
    let cq = CompletionQueue::<u64>::new(&domain, DEPTH, None)?;
    let endpoint = ScalableEndpoint::builder(&domain, &info).av(&av).open()?;
    let to = a.av.insert(&endpoint.name())?.rx_context(1)?;
    a.send(0, to, 100, seed)?;
    let rx = endpoint.rx_context(1).cq(&cq).enable()?;
    rx.recv(Memory::zeroed(100)?, 1)?;
    let done = cq.read_wait(timeout())?;
    check_eq!(ended(&done), (Kind::Recv, 1, Ok(100)));
    check_buffer(done.buffer, 100, seed)?;
    a.sent(0, seed, Ok(100))?;
    closed(rx.close())?;
    closed(endpoint.close())?;
    closed(av.close())?;
    closed(cq.close())?;
    closed(domain.close())?;
    closed(fabric.close())?;
    a.close()
}

fn data_of_a_write_arrive_at_the_context_that_is_named(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    let region = register(&pair.b.domain, Memory::zeroed(20_000)?, Access::WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    for len in [1, 100, 20_000] {
        let slice = remote.slice(0, len as u64)?;
        for rx in [1, 2, 0] {
            for context in &pair.b.rx {
                context.recv(Memory::zeroed(0)?, 3)?;
            }
            pair.a.tx[rx].write(pattern(len, seed)?, pair.to(rx)?, slice, data(seed), 4)?;
            let done = pair.b.rx_cq[rx].read_wait(timeout())?;
            check_eq!((done.kind, done.context), (Kind::RemoteWrite, 3));
            check_eq!(done.result.map(|done| done.data), Ok(Some(seed)));
            let done = pair.a.tx_cq[rx].read_wait(timeout())?;
            check_eq!(ended(&done), (Kind::Write, 4, Ok(len)));
            // The others are still posted.
            for other in (0..COUNT).filter(|other| *other != rx) {
                pair.a.send(0, pair.to(other)?, 0, 5)?;
                pair.b.received(other, 3, 0, 5)?;
                pair.a.sent(0, 5, Ok(0))?;
            }
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    pair.close()
}

fn scalable_endpoint_reaches_its_own_contexts(info: &Info, seed: u64) -> Result {
    let many = Many::new(info)?;
    let own = many.av.insert(&many.endpoint.name())?;
    for len in [0, 100, 20_000] {
        for (tx, rx) in [(0, 0), (0, 2), (1, 1), (2, 0)] {
            many.recv(rx, len, 1)?;
            many.send(tx, own.rx_context(rx)?, len, seed)?;
            many.received(rx, 1, len, seed)?;
            many.sent(tx, seed, Ok(len))?;
        }
    }
    many.close()
}

fn context_that_a_peer_does_not_have_is_an_error(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    let rig = Rig::new(info)?;
    for to in [COUNT, MAX_CONTEXTS, 127] {
        for len in [0, 100, 20_000] {
            pair.a.send(1, pair.to(to)?, len, seed)?;
            let done = pair.a.tx_cq[1].read_wait(timeout())?;
            check_buffer(check_not_executed(done, EINVAL)?, len, seed)?;
        }
    }
    check_eq!(pair.to(128), Err(EINVAL));
    // Those of an endpoint that is not scalable end where the first does.
    for _ in 0..2 {
        let (memory, options) = (pattern(100, seed)?, Options::default());
        rig.a
            .ep
            .send(memory, rig.to_b.rx_context(1)?, options, seed)?;
        check_buffer(check_not_executed(rig.a.next()?, EINVAL)?, 100, seed)?;
        // It has harmed nobody.
        rig.b.recv(Memory::zeroed(100)?, 1)?;
        rig.a.ep.send(pattern(100, seed)?, rig.to_b, options, 2)?;
        rig.passed(1, 2, Ok(100))?;
    }
    pair.passes(1, COUNT - 1, 100, seed)?;
    // Nor one of one's own.
    let own = pair.a.av.insert(&pair.a.endpoint.name())?;
    pair.a.send(0, own.rx_context(COUNT)?, 100, seed)?;
    let done = pair.a.tx_cq[0].read_wait(timeout())?;
    check_buffer(check_not_executed(done, EINVAL)?, 100, seed)?;
    rig.close()?;
    pair.close()
}

fn write_for_a_context_that_is_not_there_is_not_executed(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    let region = register(&pair.b.domain, Memory::zeroed(20_000)?, Access::WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?;
    let nowhere = pair.to(COUNT)?;
    for len in [100, 20_000] {
        let slice = remote.slice(0, len as u64)?;
        pair.a.tx[0].write(pattern(len, seed)?, nowhere, slice, data(seed), 4)?;
        let done = pair.a.tx_cq[0].read_wait(timeout())?;
        check_buffer(check_not_executed(done, EINVAL)?, len, seed)?;
    }
    check_filled(&region, 0)?;
    // Without data it meets no receive, so it is nobody's.
    let slice = remote.slice(0, 100)?;
    pair.a.tx[0].write(pattern(100, seed)?, nowhere, slice, Options::default(), 4)?;
    let done = pair.a.tx_cq[0].read_wait(timeout())?;
    check_eq!(ended(&done), (Kind::Write, 4, Ok(100)));
    check_region(&region, 0, 100, seed)?;
    drop(closed(region.close_wait(timeout()))?);
    pair.close()
}

fn endpoint_without_named_contexts_refuses_all_but_the_first(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cq = CompletionQueue::<u64>::new(&rig.a.domain, 4, None)?;
    let limited = Info {
        caps: info.caps.without(Caps::NAMED_RX_CTX),
        ..with_sizes(info, 2, 2)
    };
    let ep = rig.a.endpoint(&limited, &cq)?;
    let named = rig.to_b.rx_context(1)?;
    let refused = ep.send(pattern(8, seed)?, named, Options::default(), 1);
    check_buffer(check_refused(refused, EOPNOTSUPP, 1)?, 8, seed)?;
    rig.b.recv(Memory::zeroed(8)?, 2)?;
    ep.send(pattern(8, seed)?, rig.to_b, Options::default(), 3)?;
    check_eq!(ended(&cq.read_wait(timeout())?), (Kind::Send, 3, Ok(8)));
    check_eq!(ended(&rig.b.next()?), (Kind::Recv, 2, Ok(8)));
    // A receive context of nobody's is no address at all.
    let nobody = Address::from_raw(u64::MAX >> 7);
    let refused = ep.send(pattern(8, seed)?, nobody, Options::default(), 1);
    check_buffer(check_refused(refused, EHOSTUNREACH, 1)?, 8, seed)?;
    closed(ep.close())?;
    closed(cq.close())?;
    rig.close()
}
