// SPDX-License-Identifier: GPL-2.0

//! Connected endpoints that are counted.

use super::super::cm::{begin, Host};
use super::side::both;
use crate::close::closed;
use crate::ops::error;
use crate::rig::{join, register, timeout};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! { EndpointType::Msg;
    each_kind_over_a_connection_is_counted_on_its_side: Caps::MSG.union(Caps::RMA).union(Caps::ATOMIC),
    shutdown_counts_what_it_ends: Caps::MSG,
    endpoint_that_never_connects_counts_its_receives: Caps::MSG,
}

/// Kinds of operations, each with a counter of its own.
const KINDS: [Counts; 6] = [
    Counts::SEND,
    Counts::RECV,
    Counts::READ,
    Counts::WRITE,
    Counts::REMOTE_READ,
    Counts::REMOTE_WRITE,
];

/// A counter of a host for each kind.
fn counters(host: &Host) -> Result<KVec<Counter>> {
    let mut counters = KVec::new();
    for _ in KINDS {
        counters.push(Counter::new(&host.domain, None)?, GFP_KERNEL)?;
    }
    Ok(counters)
}

fn counted<'a>(host: &'a Host, counters: &'a [Counter]) -> Result<Endpoint<u64>> {
    let mut builder = Endpoint::builder(&host.domain, &host.info)
        .cq(&host.cq)
        .eq(&host.eq);
    for (counts, counter) in KINDS.into_iter().zip(counters) {
        builder = builder.counter(counts, counter);
    }
    builder.enable()
}

/// Values and errors of each.
fn values(counters: &[Counter]) -> [(u64, u64); KINDS.len()] {
    core::array::from_fn(|n| counters.get(n).map_or((0, 0), both))
}

fn close_all(counters: KVec<Counter>) -> Result {
    for counter in counters {
        closed(counter.close())?;
    }
    Ok(())
}

fn each_kind_over_a_connection_is_counted_on_its_side(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let (by_a, by_b) = (counters(&a)?, counters(&b)?);
    let (at_a, at_b) = (counted(&a, &by_a)?, counted(&b, &by_b)?);
    join((&a.eq, &at_a), (&b.eq, &at_b), &b.listen(1)?)?;
    let region = register(&b.domain, Memory::zeroed(64)?, Access::ALL)?;
    let slice = RemoteRegion::parse(&region.descriptor()?)?.slice(0, 8)?;
    let (to, options) = (Address::PEER, Options::NONE);
    let done = |host: &Host| {
        let done = host.next()?;
        check_eq!(error(&done), None);
        Ok(())
    };
    for _ in 0..2 {
        at_b.recv(Memory::zeroed(8)?, 1)?;
        at_a.send(Memory::zeroed(8)?, to, options, 1)?;
        done(&b)?;
        done(&a)?;
    }
    at_a.recv(Memory::zeroed(8)?, 1)?;
    at_b.send(Memory::zeroed(8)?, to, options, 1)?;
    done(&a)?;
    done(&b)?;
    for _ in 0..3 {
        at_a.read(Memory::zeroed(8)?, to, slice, options, 1)?;
        done(&a)?;
    }
    at_a.write(Memory::zeroed(8)?, to, slice, options, 1)?;
    done(&a)?;
    let fetch = AtomicAction::fetch(AtomicOp::Sum, Datatype::U64);
    at_a.atomic(Memory::zeroed(16)?, to, slice, fetch, options, 1)?;
    done(&a)?;
    check_eq!(
        values(&by_a),
        [(2, 0), (1, 0), (4, 0), (1, 0), (0, 0), (0, 0)]
    );
    check_eq!(
        values(&by_b),
        [(1, 0), (2, 0), (0, 0), (0, 0), (4, 0), (1, 0)]
    );
    closed(at_a.close())?;
    closed(at_b.close())?;
    close_all(by_a)?;
    close_all(by_b)?;
    drop(closed(region.close_wait(timeout()))?);
    a.close()?;
    b.close()
}

fn shutdown_counts_what_it_ends(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let (by_a, by_b) = (counters(&a)?, counters(&b)?);
    let (at_a, at_b) = (counted(&a, &by_a)?, counted(&b, &by_b)?);
    join((&a.eq, &at_a), (&b.eq, &at_b), &b.listen(1)?)?;
    for n in 0..5 {
        at_b.recv(Memory::zeroed(8)?, n)?;
    }
    for n in 0..3 {
        // Nobody receives them.
        at_b.send(Memory::zeroed(8)?, Address::PEER, Options::NONE, n)?;
    }
    check_eq!(values(&by_b)[..2], [(0, 0), (0, 0)]);
    at_a.shutdown()?;
    for _ in 0..8 {
        check_eq!(error(&b.next()?), Some(ENOTCONN));
    }
    let ended = [(0, 3), (0, 5)];
    check_eq!(values(&by_b)[..2], ended);
    // What is refused is not counted.
    check!(at_b.recv(Buffer::empty(), 1).is_err());
    let sent = at_b.send(Buffer::empty(), Address::PEER, Options::NONE, 1);
    check!(sent.is_err());
    check_eq!(values(&by_b)[..2], ended);
    check_eq!(values(&by_a), [(0, 0); KINDS.len()]);
    closed(at_a.close())?;
    closed(at_b.close())?;
    close_all(by_a)?;
    close_all(by_b)?;
    a.close()?;
    b.close()
}

fn endpoint_that_never_connects_counts_its_receives(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let by_a = counters(&a)?;
    let at_a = counted(&a, &by_a)?;
    for n in 0..4 {
        at_a.recv(Memory::zeroed(8)?, n)?;
    }
    let listener = b.listen(1)?;
    begin(&at_a, &listener)?;
    drop(b.request()?);
    check_eq!(a.refused(&at_a)?.0, ECONNREFUSED);
    closed(at_a.close())?;
    check_eq!(values(&by_a)[..2], [(0, 0), (0, 4)]);
    close_all(by_a)?;
    closed(listener.close())?;
    a.close()?;
    b.close()
}
