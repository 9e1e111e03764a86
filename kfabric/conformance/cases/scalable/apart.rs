// SPDX-License-Identifier: GPL-2.0

//! What contexts do not share: queues, order, credits, receives, counters.

use super::{with_contexts, Many, Pair, COUNT, DEPTH, NAMED};
use crate::close::closed;
use crate::crew::Crew;
use crate::ops::error;
use crate::rig::{check_buffer, ended, pattern, register, timeout, tries, until};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::prelude::*;

cases! {
    each_context_completes_in_its_own_queue: NAMED,
    messages_of_a_context_keep_their_order: NAMED => Order::SAS,
    starved_context_starves_none_of_its_siblings: NAMED.union(Caps::RMA),
    starved_contexts_leave_each_other_room: NAMED,
    directed_receive_takes_the_messages_of_all_contexts_of_a_peer:
        NAMED.union(Caps::DIRECTED_RECV),
    receive_of_several_messages_is_of_its_context: NAMED.union(Caps::MULTI_RECV),
    operation_is_cancelled_at_its_own_context: NAMED,
    contexts_count_for_themselves: NAMED,
    contexts_pass_messages_side_by_side: NAMED,
}

fn each_context_completes_in_its_own_queue(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    for len in [100, 20_000] {
        for tx in 0..COUNT {
            for rx in 0..COUNT {
                pair.passes(tx, rx, len, seed + (tx * COUNT + rx) as u64)?;
                pair.a.quiet()?;
                pair.b.quiet()?;
            }
        }
    }
    pair.close()
}

fn messages_of_a_context_keep_their_order(info: &Info, _seed: u64) -> Result {
    let pair = Pair::new(info)?;
    let count = tries(60);
    for rx in 0..COUNT {
        for n in 0..count {
            pair.b.recv(rx, 20_000, n)?;
        }
    }
    for n in 0..count {
        for (tx, rx) in (0..COUNT).zip([1, 2, 0]) {
            let len = [7, 20_000, 300][n as usize % 3];
            pair.a.send(tx, pair.to(rx)?, len, n)?;
        }
    }
    for (tx, rx) in (0..COUNT).zip([1, 2, 0]) {
        // The long ones may complete later.
        for _ in 0..count {
            let done = pair.b.rx_cq[rx].read_wait(timeout())?;
            let len = [7, 20_000, 300][done.context as usize % 3];
            check_eq!(ended(&done).2, Ok(len));
            let n = done.context;
            check_buffer(done.buffer, len, n)?;
            check_eq!(error(&pair.a.tx_cq[tx].read_wait(timeout())?), None);
        }
    }
    pair.close()
}

/// As many messages as a transmit context may have in flight but a few, of `len` bytes, to a context of B that
/// nobody receives from; their number.
fn starve(pair: &Pair, tx: usize, rx: usize, len: usize, count: usize) -> Result<u64> {
    for n in 0..count {
        pair.a.send(tx, pair.to(rx)?, len, n as u64)?;
    }
    Ok(count as u64)
}

/// Receives all that waits for a context of B; each is there once.
fn feed(pair: &Pair, tx: usize, rx: usize, len: usize, count: u64) -> Result {
    let mut seen = KVVec::from_elem(0u8, count as usize, GFP_KERNEL)?;
    for n in 0..count {
        pair.b.recv(rx, len, n)?;
        check_eq!(
            ended(&pair.b.rx_cq[rx].read_wait(timeout())?),
            (Kind::Recv, n, Ok(len))
        );
        let done = pair.a.tx_cq[tx].read_wait(timeout())?;
        check_eq!(error(&done), None);
        seen[done.context as usize] += 1;
    }
    check!(seen.iter().all(|times| *times == 1));
    Ok(())
}

fn starved_context_starves_none_of_its_siblings(info: &Info, seed: u64) -> Result {
    for len in [16, 8_000, 20_000] {
        let pair = Pair::new(info)?;
        let region = register(&pair.b.domain, pattern(100, seed)?, Access::READ)?;
        let remote = RemoteRegion::parse(&region.descriptor()?)?;
        // Of the same transmit context, and before there was anything else.
        let count = starve(&pair, 0, 0, len, DEPTH - 8)?;
        for n in 0..tries(40) {
            pair.passes(0, 1, 100, n)?;
            pair.passes(0, 2, 20_000, n)?;
            pair.passes(1, 1, 100, n)?;
        }
        let slice = remote.slice(0, 100)?;
        pair.a.tx[0].read(
            Memory::zeroed(100)?,
            pair.to_b,
            slice,
            Options::default(),
            7,
        )?;
        let done = pair.a.tx_cq[0].read_wait(timeout())?;
        check_eq!(ended(&done), (Kind::Read, 7, Ok(100)));
        feed(&pair, 0, 0, len, count)?;
        drop(closed(region.close_wait(timeout()))?);
        pair.close()?;
    }
    Ok(())
}

fn starved_contexts_leave_each_other_room(info: &Info, _seed: u64) -> Result {
    let pair = Pair::new(info)?;
    // All but one, one after another.
    let first = starve(&pair, 0, 0, 8_000, DEPTH / 2 - 4)?;
    let second = starve(&pair, 0, 2, 16, DEPTH / 2 - 4)?;
    for n in 0..tries(40) {
        pair.passes(0, 1, 100, n)?;
    }
    feed(&pair, 0, 2, 16, second)?;
    feed(&pair, 0, 0, 8_000, first)?;
    pair.close()
}

fn directed_receive_takes_the_messages_of_all_contexts_of_a_peer(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    let other = Many::new(info)?;
    let from_a = pair.b.av.insert(&pair.a.endpoint.name())?;
    let to_b = other.av.insert(&pair.b.endpoint.name())?;
    // Another's waits, and is passed over.
    other.send(1, to_b.rx_context(1)?, 100, seed)?;
    for tx in 0..COUNT {
        pair.b.rx[1].recv_from(Memory::zeroed(100)?, from_a, tx as u64)?;
        pair.a.send(tx, pair.to(1)?, 100, seed + 1)?;
        pair.b.received(1, tx as u64, 100, seed + 1)?;
        pair.a.sent(tx, seed + 1, Ok(100))?;
    }
    // Which of its receive contexts the address names does not matter.
    let named = from_a.rx_context(COUNT - 1)?;
    pair.b.rx[1].recv_from(Memory::zeroed(100)?, named, 8)?;
    pair.a.send(0, pair.to(1)?, 100, seed + 2)?;
    pair.b.received(1, 8, 100, seed + 2)?;
    pair.a.sent(0, seed + 2, Ok(100))?;
    pair.b.recv(1, 100, 9)?;
    pair.b.received(1, 9, 100, seed)?;
    other.sent(1, seed, Ok(100))?;
    other.close()?;
    pair.close()
}

fn receive_of_several_messages_is_of_its_context(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    let region = register(&pair.b.domain, Memory::zeroed(1000)?, Access::NONE)?;
    pair.b.rx[2].recv_multi(region.slice(0, 1000)?, 3, 5)?;
    pair.b.recv(1, 100, 6)?;
    for (n, rx) in [(0, 2), (1, 1), (2, 2), (3, 2)] {
        pair.a.send(0, pair.to(rx)?, 100, seed + n)?;
        pair.a.sent(0, seed + n, Ok(100))?;
    }
    pair.b.received(1, 6, 100, seed + 1)?;
    for n in 0..3 {
        let done = pair.b.rx_cq[2].read_wait(timeout())?;
        check_eq!(ended(&done), (Kind::Recv, 5, Ok(100)));
        check_eq!(done.part.map(|part| part.released), Some(n == 2));
    }
    drop(closed(region.close_wait(timeout()))?);
    pair.close()
}

fn operation_is_cancelled_at_its_own_context(info: &Info, seed: u64) -> Result {
    let pair = Pair::new(info)?;
    let receive = pair.b.recv(0, 100, 1)?;
    let sibling = pair.b.recv(1, 100, 2)?;
    check_eq!(pair.b.rx[1].cancel(receive), Err(ENOENT));
    check_eq!(pair.b.tx[0].cancel(receive), Err(ENOENT));
    pair.b.rx[0].cancel(receive)?;
    let done = pair.b.rx_cq[0].read().ok_or(EINVAL)?;
    check_eq!(ended(&done), (Kind::Recv, 1, Err(ECANCELED)));
    // Messages wait for receives, one of each context.
    for tx in 0..2 {
        let message = pair.a.send(tx, pair.to(2)?, 100, seed)?;
        check_eq!(pair.a.tx[1 - tx].cancel(message), Err(ENOENT));
        check_eq!(pair.a.rx[tx].cancel(message), Err(ENOENT));
        until(|| pair.a.tx[tx].cancel(message) != Err(ENOENT))?;
        pair.a.sent(tx, seed, Err(ECANCELED))?;
    }
    pair.b.rx[1].cancel(sibling)?;
    let done = pair.b.rx_cq[1].read().ok_or(EINVAL)?;
    check_eq!(ended(&done), (Kind::Recv, 2, Err(ECANCELED)));
    pair.close()
}

fn contexts_count_for_themselves(info: &Info, _seed: u64) -> Result {
    let (a, info) = (Many::new(info)?, with_contexts(info, 2, 2));
    let fabric = Fabric::open(&info)?;
    let domain = fabric.domain(&info)?;
    let av = AddressVector::new(&domain)?;
    let cq = CompletionQueue::<u64>::new(&domain, 4 * DEPTH, None)?;
    let counters = [(); 4].map(|()| Counter::new(&domain, None));
    let [Ok(sends), Ok(first), Ok(second), Ok(remote)] = &counters else {
        return Err(ENOMEM);
    };
    let builder = || ScalableEndpoint::builder(&domain, &info).av(&av);
    let wrong = builder().counter(Counts::SEND, remote).open();
    check_eq!(wrong.err(), Some(EINVAL));
    let endpoint = builder().counter(Counts::REMOTE_WRITE, remote).open()?;
    let tx = || endpoint.tx_context::<u64>(0).cq(&cq);
    let wrong = tx().counter(Counts::RECV, sends).enable();
    check_eq!(wrong.err(), Some(EINVAL));
    let tx = tx().counter(Counts::SEND, sends).enable()?;
    let rx = |index| endpoint.rx_context::<u64>(index).cq(&cq);
    let wrong = rx(0).counter(Counts::SEND, first).enable();
    check_eq!(wrong.err(), Some(EINVAL));
    let rx0 = rx(0).counter(Counts::RECV, first).enable()?;
    let rx1 = rx(1).counter(Counts::RECV, second).enable()?;
    let (own, to) = (av.insert(&endpoint.name())?, a.av.insert(&endpoint.name())?);
    for n in 0..5 {
        let (rx, index) = if n < 3 { (&rx1, 1) } else { (&rx0, 0) };
        rx.recv(Memory::zeroed(8)?, n)?;
        if n % 2 == 0 {
            a.send(0, to.rx_context(index)?, 8, n)?;
            a.sent(0, n, Ok(8))?;
        } else {
            tx.send(
                pattern(8, n)?,
                own.rx_context(index)?,
                Options::default(),
                n,
            )?;
            check_eq!(error(&cq.read_wait(timeout())?), None);
        }
        check_eq!(error(&cq.read_wait(timeout())?), None);
    }
    check_eq!((sends.value(), first.value(), second.value()), (2, 2, 3));
    check_eq!(remote.value(), 0);
    closed(tx.close())?;
    closed(rx0.close())?;
    closed(rx1.close())?;
    closed(endpoint.close())?;
    for cntr in counters {
        closed(cntr?.close())?;
    }
    closed(av.close())?;
    closed(cq.close())?;
    closed(domain.close())?;
    closed(fabric.close())?;
    a.close()
}

/// How many messages each context passes side by side with the others.
const PASSES: u64 = 300;

fn contexts_pass_messages_side_by_side(info: &Info, _seed: u64) -> Result {
    let pair = Arc::new(Pair::new(info)?, GFP_KERNEL)?;
    let job = {
        let pair = pair.clone();
        move |thread: usize| {
            for n in 0..tries(PASSES) {
                let len = [0, 100, 9_000, 20_000][(n % 4) as usize];
                pair.passes(thread, thread, len, n)?;
            }
            Ok(())
        }
    };
    Crew::start(COUNT, Arc::new(job, GFP_KERNEL)?)?.join()?;
    match Arc::into_unique_or_drop(pair) {
        Some(_) => Ok(()),
        None => Err(EBUSY),
    }
}
