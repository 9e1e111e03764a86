// SPDX-License-Identifier: GPL-2.0

//! How connections begin, and how they do not.

use super::host::{begin, connect, failed, send, Connected, Host};
use crate::close::{closed, given_back};
use crate::ops::{check_refused, error};
use crate::rig::{timeout, End};
use crate::wishes::domain_of;
use crate::{cases, check, check_eq, module_parameters};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{Delta, Instant, Monotonic};
use kfabric::prelude::*;

cases! { EndpointType::Msg;
    connections_are_offered_beside_datagrams: Caps::NONE,
    connect_carries_data_both_ways: Caps::NONE,
    private_data_has_a_longest: Caps::NONE,
    reject_carries_data: Caps::NONE,
    dropped_request_is_rejected: Caps::NONE,
    request_rejected_by_a_callback_is_rejected: Caps::NONE,
    request_beyond_the_backlog_is_refused: Caps::NONE,
    answered_request_makes_room_for_another: Caps::NONE,
    name_that_nobody_has_is_unreachable: Caps::NONE,
    endpoint_that_does_not_listen_refuses: Caps::NONE,
    closed_listener_refuses: Caps::NONE,
    closing_listener_rejects_what_waits: Caps::NONE,
    request_without_an_answer_times_out: Caps::NONE,
    endpoint_connects_once: Caps::NONE,
    endpoint_needs_what_its_type_needs: Caps::NONE,
    listener_outlives_many_clients: Caps::NONE,
}

fn connections_are_offered_beside_datagrams(info: &Info, _seed: u64) -> Result {
    let of_domain = domain_of(info);
    let found = getinfo(&of_domain)?;
    check_eq!(found.len(), 2);
    // Who does not ask gets datagrams.
    check_eq!(found[0].endpoint_type, EndpointType::Rdm);
    // Which have one context of each kind.
    let connections = Info {
        endpoint_type: EndpointType::Msg,
        caps: found[0].caps.without(Caps::NAMED_RX_CTX),
        limits: Limits {
            tx_contexts: 1,
            rx_contexts: 1,
            ..found[0].limits
        },
        ..found[0]
    };
    check_eq!(found[1], connections);
    for endpoint_type in [EndpointType::Rdm, EndpointType::Msg] {
        let found = getinfo(&Hints {
            endpoint_type: Some(endpoint_type),
            ..of_domain
        })?;
        check_eq!(found.len(), 1);
        check_eq!(found[0].endpoint_type, endpoint_type);
    }
    Ok(())
}

fn connect_carries_data_both_ways(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let longest = [7; PrivateData::MAX];
    for (asked, answered) in [
        (&b""[..], &b""[..]),
        (b"may I?", b"you may"),
        (&longest, &longest),
    ] {
        let (at_a, at_b) = (a.endpoint()?, b.endpoint()?);
        at_a.connect(&listener.name(), PrivateData::new(asked)?, timeout())?;
        let request = b.request()?;
        check_eq!(request.listener(), listener.id());
        check_eq!(request.data(), asked);
        closed(at_b.accept(request, PrivateData::new(answered)?))?;
        check!(a.connected(&at_a)?.as_bytes() == answered);
        check!(b.connected(&at_b)?.as_bytes().is_empty());
        closed(at_a.close())?;
        b.shut_down(&at_b)?;
        closed(at_b.close())?;
    }
    a.quiet()?;
    b.quiet()?;
    closed(listener.close())?;
    a.close()?;
    b.close()
}

fn private_data_has_a_longest(_info: &Info, _seed: u64) -> Result {
    let bytes = [7; PrivateData::MAX + 1];
    for len in [0, 1, PrivateData::MAX] {
        check_eq!(PrivateData::new(&bytes[..len])?.as_bytes().len(), len);
    }
    check_eq!(PrivateData::new(&bytes).err(), Some(EINVAL));
    Ok(())
}

fn reject_carries_data(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let at_a = a.endpoint()?;
    begin(&at_a, &listener)?;
    b.request()?.reject(PrivateData::new(b"not you")?);
    let (why, said) = a.refused(&at_a)?;
    check_eq!((why, said.as_bytes()), (ECONNREFUSED, &b"not you"[..]));
    // Nothing more comes of it.
    let posted = send(&at_a, Memory::zeroed(5)?, 1);
    check_refused(posted, ENOTCONN, 1)?;
    check_eq!(at_a.shutdown().err(), Some(ENOTCONN));
    a.quiet()?;
    b.quiet()?;
    closed(at_a.close())?;
    closed(listener.close())?;
    a.close()?;
    b.close()
}

fn dropped_request_is_rejected(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let at_a = a.endpoint()?;
    begin(&at_a, &listener)?;
    let request = b.request()?;
    check!(a.eq.read().is_none());
    drop(request);
    let (why, said) = a.refused(&at_a)?;
    check_eq!((why, said.as_bytes()), (ECONNREFUSED, &b""[..]));
    closed(at_a.close())?;
    closed(listener.close())?;
    a.close()?;
    b.close()
}

fn request_rejected_by_a_callback_is_rejected(info: &Info, _seed: u64) -> Result {
    let callback = |events: &EventReader<'_>| {
        while let Some(event) = events.read() {
            if let Event::ConnectionRequest(request) = event {
                match request.data() {
                    [] => drop(request),
                    _ => request.reject(PrivateData::NONE),
                }
            }
        }
    };
    let callback = Arc::new(callback, GFP_KERNEL)?;
    let (a, b) = (Host::new(info)?, Host::sized(info, 4, Some(callback))?);
    let listener = b.listen(2)?;
    for asked in [&b""[..], b"reject me"] {
        let at_a = a.endpoint()?;
        at_a.connect(&listener.name(), PrivateData::new(asked)?, timeout())?;
        check_eq!(a.refused(&at_a)?.0, ECONNREFUSED);
        closed(at_a.close())?;
    }
    closed(listener.close())?;
    a.close()?;
    b.close()
}

fn request_beyond_the_backlog_is_refused(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(2)?;
    let first = a.endpoint()?;
    begin(&first, &listener)?;
    // One that was read still waits for its answer.
    let held = b.request()?;
    let second = a.endpoint()?;
    begin(&second, &listener)?;
    let third = a.endpoint()?;
    begin(&third, &listener)?;
    // Either: they are peers of their own, and may overtake each other.
    match a.event()? {
        Event::Refused {
            endpoint, error, ..
        } => {
            check_eq!(error, ECONNREFUSED);
            check!(endpoint == second.id() || endpoint == third.id());
        }
        _ => return failed("refused"),
    }
    a.quiet()?;
    let at_b = b.endpoint()?;
    closed(at_b.accept(held, PrivateData::NONE))?;
    a.connected(&first)?;
    drop((first, second, third));
    closed(listener.close())?;
    drop(at_b);
    a.close()?;
    b.close()
}

fn answered_request_makes_room_for_another(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    for _ in 0..3 {
        let at_a = a.endpoint()?;
        begin(&at_a, &listener)?;
        drop(b.request()?);
        check_eq!(a.refused(&at_a)?.0, ECONNREFUSED);
        drop(connect(&a, &b, &listener)?);
        while a.eq.read().is_some() || b.eq.read().is_some() {}
    }
    closed(listener.close())?;
    a.close()?;
    b.close()
}

fn name_that_nobody_has_is_unreachable(info: &Info, _seed: u64) -> Result {
    let a = Host::new(info)?;
    let gone = a.endpoint()?;
    let nobody = gone.name();
    closed(gone.close())?;
    for name in [nobody, Name::new(b"nobody")?] {
        let ep = a.endpoint()?;
        ep.connect(&name, PrivateData::NONE, timeout())?;
        check_eq!(a.refused(&ep)?.0, EHOSTUNREACH);
        closed(ep.close())?;
    }
    a.close()
}

fn endpoint_that_does_not_listen_refuses(info: &Info, _seed: u64) -> Result {
    let a = Host::new(info)?;
    let datagrams = End::new(
        &Info {
            endpoint_type: EndpointType::Rdm,
            ..*info
        },
        None,
    )?;
    let idle = a.endpoint()?;
    for name in [datagrams.ep.name(), idle.name()] {
        let ep = a.endpoint()?;
        ep.connect(&name, PrivateData::NONE, timeout())?;
        check_eq!(a.refused(&ep)?.0, ECONNREFUSED);
        closed(ep.close())?;
    }
    closed(idle.close())?;
    datagrams.close()?;
    a.close()
}

fn closed_listener_refuses(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let name = listener.name();
    let (at_a, at_b) = connect(&a, &b, &listener)?;
    closed(listener.close())?;
    let late = a.endpoint()?;
    late.connect(&name, PrivateData::NONE, timeout())?;
    check!(matches!(a.refused(&late)?.0, ECONNREFUSED | EHOSTUNREACH));
    // What was accepted stays connected.
    at_b.recv(Memory::zeroed(5)?, 1)?;
    send(&at_a, Memory::zeroed(5)?, 2)?;
    check_eq!(error(&b.next()?), None);
    closed(late.close())?;
    let pair = Connected { a, b, at_a, at_b };
    pair.close()
}

fn closing_listener_rejects_what_waits(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(3)?;
    let eps = [a.endpoint()?, a.endpoint()?, a.endpoint()?, a.endpoint()?];
    for ep in &eps {
        begin(ep, &listener)?;
    }
    // Each is refused once; in any order, since they are peers of their own.
    let mut seen = [false; 4];
    let mut refused = || {
        let Event::Refused {
            endpoint, error, ..
        } = a.event()?
        else {
            return failed("refused");
        };
        check_eq!(error, ECONNREFUSED);
        let at = eps.iter().position(|ep| ep.id() == endpoint);
        let seen = seen.get_mut(at.ok_or(EINVAL)?).ok_or(EINVAL)?;
        check!(!core::mem::replace(seen, true));
        Ok(())
    };
    // One finds no room: so the others have come, and wait.
    refused()?;
    let held = b.request()?;
    a.quiet()?;
    closed(listener.close())?;
    for _ in 1..eps.len() {
        refused()?;
    }
    // Those that nobody read are gone, and the other is of no use.
    b.quiet()?;
    let at_b = b.endpoint()?;
    let held = given_back(at_b.accept(held, PrivateData::NONE), ECONNABORTED)?;
    drop(held);
    a.quiet()?;
    b.quiet()?;
    drop((eps, at_b));
    a.close()?;
    b.close()
}

fn request_without_an_answer_times_out(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let at_a = a.endpoint()?;
    let asked = Instant::<Monotonic>::now();
    at_a.connect(&listener.name(), PrivateData::NONE, 50)?;
    let request = b.request()?;
    check_eq!(a.refused(&at_a)?.0, ETIMEDOUT);
    check!(asked.elapsed() >= Delta::from_millis(50));
    // The answer comes too late.
    let mut at_b = b.endpoint()?;
    match at_b.accept(request, PrivateData::NONE) {
        Err((error, request)) => {
            check_eq!(error, ECONNABORTED);
            drop(request);
            let posted = send(&at_b, Memory::zeroed(5)?, 1);
            check_refused(posted, ENOTCONN, 1)?;
        }
        // Where the peer is far away that is not known at once.
        Ok(()) => {
            b.connected(&at_b)?;
            b.shut_down(&at_b)?;
            closed(at_b.close())?;
            at_b = b.endpoint()?;
        }
    }
    a.quiet()?;
    b.quiet()?;
    // It has cost the endpoint, if it was not connected, nothing.
    let other = a.endpoint()?;
    begin(&other, &listener)?;
    closed(at_b.accept(b.request()?, PrivateData::NONE))?;
    a.connected(&other)?;
    b.connected(&at_b)?;
    drop((at_a, at_b, other));
    closed(listener.close())?;
    a.close()?;
    b.close()
}

fn endpoint_connects_once(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(2)?;
    let (at_a, at_b) = (a.endpoint()?, b.endpoint()?);
    check_eq!(at_a.shutdown().err(), Some(ENOTCONN));
    begin(&at_a, &listener)?;
    check_eq!(begin(&at_a, &listener).err(), Some(EALREADY));
    let request = b.request()?;
    // One that can't be accepted still waits.
    let request = given_back(at_a.accept(request, PrivateData::NONE), EALREADY)?;
    closed(at_b.accept(request, PrivateData::NONE))?;
    a.connected(&at_a)?;
    b.connected(&at_b)?;
    for ep in [&at_a, &at_b] {
        check_eq!(begin(ep, &listener).err(), Some(EISCONN));
    }
    at_a.shutdown()?;
    check!(begin(&at_a, &listener).is_err());
    check_eq!(at_a.shutdown().err(), Some(ENOTCONN));
    a.shut_down(&at_a)?;
    b.shut_down(&at_b)?;
    a.quiet()?;
    b.quiet()?;
    closed(listener.close())?;
    let pair = Connected { a, b, at_a, at_b };
    pair.close()
}

fn endpoint_needs_what_its_type_needs(info: &Info, _seed: u64) -> Result {
    let (a, other) = (Host::new(info)?, Host::new(info)?);
    let datagrams = Info {
        endpoint_type: EndpointType::Rdm,
        ..a.info
    };
    let av = AddressVector::new(&a.domain)?;
    let builder = |info| Endpoint::builder(&a.domain, info).cq(&a.cq);
    for builder in [
        builder(&a.info),
        builder(&a.info).av(&av),
        builder(&a.info).av(&av).eq(&a.eq),
        builder(&a.info).eq(&other.eq),
        builder(&datagrams),
        builder(&datagrams).eq(&a.eq),
        builder(&datagrams).av(&av).eq(&a.eq),
    ] {
        check_eq!(builder.enable().err(), Some(EINVAL));
    }
    for (info, eq, backlog) in [
        (&a.info, &a.eq, 0),
        (&a.info, &other.eq, 1),
        (&datagrams, &a.eq, 1),
    ] {
        let listener = PassiveEndpoint::listen(&a.domain, info, eq, backlog);
        check_eq!(listener.err(), Some(EINVAL));
    }
    check_eq!(EventQueue::new(&a.domain, 0, None).err(), Some(EINVAL));
    let ep = builder(&datagrams).av(&av).enable()?;
    let to = a.endpoint()?;
    for result in [
        ep.connect(&to.name(), PrivateData::NONE, timeout()),
        ep.shutdown(),
    ] {
        check_eq!(result.err(), Some(EOPNOTSUPP));
    }
    drop((ep, to));
    closed(av.close())?;
    a.close()?;
    other.close()
}

/// More, one after another, than a provider must know at once, if there is time for that.
fn listener_outlives_many_clients(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let clients = if module_parameters::large.value() {
        520
    } else {
        40
    };
    for _ in 0..clients {
        let (at_a, at_b) = connect(&a, &b, &listener)?;
        closed(at_a.close())?;
        b.shut_down(&at_b)?;
        closed(at_b.close())?;
    }
    closed(listener.close())?;
    a.close()?;
    b.close()
}
