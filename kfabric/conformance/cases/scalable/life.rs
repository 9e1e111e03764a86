// SPDX-License-Identifier: GPL-2.0

//! Contexts are opened and closed.

use super::{with_contexts, Many, Pair, COUNT, DEPTH, NAMED};
use crate::close::{busy, closed};
use crate::ops::{check_refused, error};
use crate::rig::{ended, pattern, timeout};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    contexts_are_as_many_as_were_asked_for: NAMED,
    context_is_opened_once_at_a_time: NAMED,
    endpoint_is_busy_while_a_context_is_open: NAMED,
    closed_transmit_context_ends_what_waits: NAMED,
    closed_receive_context_ends_what_waits: NAMED,
    contexts_end_with_their_domain: NAMED,
}

fn contexts_are_as_many_as_were_asked_for(info: &Info, _seed: u64) -> Result {
    let ask = |tx_contexts, rx_contexts| {
        let hints = Hints {
            caps: NAMED,
            provider: Some(info.provider.as_str()),
            endpoint_type: Some(EndpointType::Rdm),
            tx_contexts,
            rx_contexts,
            ..Hints::default()
        };
        let found = getinfo(&hints)?;
        let limits = found.first().ok_or(EINVAL)?.limits;
        Ok((limits.tx_contexts, limits.rx_contexts))
    };
    let (most_tx, most_rx) = ask(0, 0)?;
    check!((COUNT..=MAX_CONTEXTS).contains(&most_tx));
    check!((COUNT..=MAX_CONTEXTS).contains(&most_rx));
    check_eq!(ask(COUNT, 1), Ok((COUNT, 1)));
    check_eq!(ask(most_tx, most_rx), Ok((most_tx, most_rx)));
    check_eq!(ask(most_tx + 1, 1), Err(ENODATA));
    check_eq!(ask(1, most_rx + 1), Err(ENODATA));
    // Connected endpoints have one of each.
    let connected = getinfo(&Hints {
        provider: Some(info.provider.as_str()),
        endpoint_type: Some(EndpointType::Msg),
        ..Hints::default()
    });
    if let Ok(connected) = connected {
        let info = connected.first().ok_or(EINVAL)?;
        check_eq!((info.limits.tx_contexts, info.limits.rx_contexts), (1, 1));
        check!(!info.caps.contains(Caps::NAMED_RX_CTX));
    }
    let fabric = Fabric::open(info)?;
    let domain = fabric.domain(info)?;
    let av = AddressVector::new(&domain)?;
    for (tx, rx, good) in [
        (0, 1, false),
        (1, 0, false),
        (most_tx + 1, 1, false),
        (1, most_rx + 1, false),
        (2, 1, true),
    ] {
        let info = with_contexts(info, tx, rx);
        let opened = ScalableEndpoint::builder(&domain, &info).av(&av).open();
        match opened {
            Ok(endpoint) => {
                check!(good && endpoint.limits() == info.limits);
                closed(endpoint.close())?;
            }
            Err(error) => check!(!good && error == EINVAL),
        }
    }
    closed(av.close())?;
    closed(domain.close())?;
    closed(fabric.close())
}

fn context_is_opened_once_at_a_time(info: &Info, _seed: u64) -> Result {
    let mut many = Many::new(info)?;
    let cq = CompletionQueue::<u64>::new(&many.domain, DEPTH, None)?;
    for (index, expected) in [(0, EBUSY), (COUNT, EINVAL), (usize::MAX, EINVAL)] {
        let tx = many.endpoint.tx_context(index).cq(&cq).enable();
        check_eq!(tx.err(), Some(expected));
        let rx = many.endpoint.rx_context(index).cq(&cq).enable();
        check_eq!(rx.err(), Some(expected));
    }
    // Without a queue.
    let last = many.tx.pop().ok_or(EINVAL)?;
    closed(last.close())?;
    let none = many.endpoint.tx_context::<u64>(COUNT - 1).enable();
    check_eq!(none.err(), Some(EINVAL));
    let small = CompletionQueue::<u64>::new(&many.domain, DEPTH - 1, None)?;
    let tx = many.endpoint.tx_context(COUNT - 1).cq(&small).enable();
    check_eq!(tx.err(), Some(ENOSPC));
    // What failed has not taken it.
    let again = many.endpoint.tx_context(COUNT - 1).cq(&cq).enable()?;
    check!(again.name() == many.endpoint.name());
    closed(again.close())?;
    closed(cq.close())?;
    closed(small.close())?;
    many.close()
}

fn endpoint_is_busy_while_a_context_is_open(info: &Info, _seed: u64) -> Result {
    let info = with_contexts(info, 1, 1);
    let fabric = Fabric::open(&info)?;
    let domain = fabric.domain(&info)?;
    let av = AddressVector::new(&domain)?;
    let cq = CompletionQueue::<u64>::new(&domain, 2 * DEPTH, None)?;
    let endpoint = ScalableEndpoint::builder(&domain, &info).av(&av).open()?;
    let tx = endpoint.tx_context(0).cq(&cq).enable()?;
    let endpoint = busy(endpoint.close())?;
    let rx = endpoint.rx_context(0).cq(&cq).enable()?;
    closed(tx.close())?;
    let endpoint = busy(endpoint.close())?;
    let cq = busy(cq.close())?;
    let av = busy(av.close())?;
    // Dropped, it stays for its context.
    drop(endpoint);
    let av = busy(av.close())?;
    let domain = busy(domain.close())?;
    rx.recv(Memory::zeroed(8)?, 1)?;
    closed(rx.close())?;
    check_eq!(
        ended(&cq.read().ok_or(EINVAL)?),
        (Kind::Recv, 1, Err(ECANCELED))
    );
    closed(av.close())?;
    closed(cq.close())?;
    closed(domain.close())?;
    closed(fabric.close())
}

fn closed_transmit_context_ends_what_waits(info: &Info, seed: u64) -> Result {
    for len in [100, 20_000] {
        let mut pair = Pair::new(info)?;
        for index in [COUNT - 1, COUNT - 2] {
            // More than can be under way.
            for n in 0..200 {
                pair.a.send(index, pair.to(1)?, len, n)?;
            }
            pair.a.send(0, pair.to(1)?, len, seed)?;
            let tx = pair.a.tx.pop().ok_or(EINVAL)?;
            closed(tx.close())?;
            let mut seen = [0u8; 200];
            for _ in 0..200 {
                let done = pair.a.tx_cq[index].read().ok_or(EINVAL)?;
                check_eq!(error(&done), Some(ECANCELED));
                seen[done.context as usize] += 1;
            }
            check!(seen.iter().all(|times| *times == 1));
            // Those of the others are as they were.
            pair.b.recv(1, len, 2)?;
            pair.b.received(1, 2, len, seed)?;
            pair.a.sent(0, seed, Ok(len))?;
            // It can be opened again.
            let again = pair.a.endpoint.tx_context(index);
            let again = again.cq(&pair.a.tx_cq[index]).enable()?;
            pair.b.recv(2, len, 3)?;
            again.send(pattern(len, seed)?, pair.to(2)?, Options::default(), 4)?;
            pair.b.received(2, 3, len, seed)?;
            pair.a.sent(index, 4, Ok(len))?;
            closed(again.close())?;
        }
        pair.close()?;
    }
    Ok(())
}

fn closed_receive_context_ends_what_waits(info: &Info, seed: u64) -> Result {
    for len in [100, 20_000] {
        let mut pair = Pair::new(info)?;
        let last = COUNT - 1;
        for n in 0..4 {
            pair.b.recv(last, len, n)?;
        }
        pair.b.recv(1, len, 7)?;
        let rx = pair.b.rx.pop().ok_or(EINVAL)?;
        closed(rx.close())?;
        for n in 0..4 {
            let done = pair.b.rx_cq[last].read().ok_or(EINVAL)?;
            check_eq!(ended(&done), (Kind::Recv, n, Err(ECANCELED)));
        }
        // What is sent there now finds nobody; its siblings do.
        pair.a.send(0, pair.to(last)?, len, seed)?;
        pair.a.sent(0, seed, Err(EHOSTUNREACH))?;
        pair.a.send(0, pair.to(1)?, len, seed)?;
        pair.b.received(1, 7, len, seed)?;
        pair.a.sent(0, seed, Ok(len))?;
        // What waits for it when it closes, too.
        let open = |pair: &Pair| {
            let rx = pair.b.endpoint.rx_context(last);
            rx.cq(&pair.b.rx_cq[last]).enable()
        };
        let rx = open(&pair)?;
        for n in 0..10 {
            pair.a.send(1, pair.to(last)?, len, n)?;
        }
        rx.recv(Memory::zeroed(len)?, 5)?;
        let done = pair.b.rx_cq[last].read_wait(timeout())?;
        check_eq!(ended(&done), (Kind::Recv, 5, Ok(len)));
        check_eq!(error(&pair.a.tx_cq[1].read_wait(timeout())?), None);
        closed(rx.close())?;
        for _ in 0..9 {
            let done = pair.a.tx_cq[1].read_wait(timeout())?;
            check_eq!(error(&done), Some(EHOSTUNREACH));
        }
        let rx = open(&pair)?;
        rx.recv(Memory::zeroed(len)?, 6)?;
        pair.a.send(1, pair.to(last)?, len, seed)?;
        pair.b.received(last, 6, len, seed)?;
        pair.a.sent(1, seed, Ok(len))?;
        closed(rx.close())?;
        pair.close()?;
    }
    Ok(())
}

fn contexts_end_with_their_domain(info: &Info, _seed: u64) -> Result {
    let pair = Pair::new(info)?;
    for index in 0..COUNT {
        for n in 0..150 {
            // Nobody receives those, and nobody sends these.
            pair.a.send(index, pair.to(index)?, 20_000, n)?;
            pair.a.recv(index, 100, n)?;
        }
    }
    pair.a.domain.unplug()?;
    for cq in pair.a.queues() {
        for _ in 0..150 {
            check_eq!(error(&cq.read_wait(timeout())?), Some(ENODEV));
        }
    }
    for index in 0..COUNT {
        let refused = pair.a.tx[index].send(Memory::zeroed(8)?, pair.to_b, Options::default(), 1);
        drop(check_refused(refused, ENODEV, 1)?);
        let refused = pair.a.rx[index].recv(Memory::zeroed(8)?, 1);
        drop(check_refused(refused, ENODEV, 1)?);
    }
    pair.close()
}
