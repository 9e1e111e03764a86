// SPDX-License-Identifier: GPL-2.0

//! Connections: how they begin, what passes over them, and how they end.

use crate::close::{busy, closed, given_back};
use crate::ops::{check_not_executed, check_refused, data, error};
use crate::rig::{
    check_buffer, check_region, count, ended, pattern, register, timeout, until, with_sizes, End,
    DEPTH,
};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Relaxed};
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
    post_before_it_is_connected_is_refused: Caps::MSG,
    receive_before_it_is_connected_is_taken: Caps::MSG,
    message_passes_over_a_connection: Caps::MSG,
    data_of_64_bits_passes_over_a_connection: Caps::REMOTE_CQ_DATA,
    region_is_written_and_read_over_a_connection: Caps::RMA,
    atomic_passes_over_a_connection: Caps::ATOMIC,
    connected_endpoint_has_one_address: Caps::MSG,
    shutdown_ends_what_is_in_flight_on_both_sides: Caps::MSG,
    shutdown_of_both_at_once_ends_each_once: Caps::MSG,
    close_is_a_shutdown_for_the_peer: Caps::MSG => Order::SAS,
    stranger_is_refused: Caps::RMA.union(Caps::MSG),
    two_connections_of_one_pair_are_apart: Caps::MSG,
    event_queue_keeps_its_bound: Caps::NONE,
    closed_endpoint_causes_no_event: Caps::NONE,
    events_call_back: Caps::NONE,
}

/// What the endpoints of one side stand on.
// In the order in which they must be closed.
pub(super) struct Host {
    pub(super) eq: EventQueue,
    pub(super) cq: CompletionQueue<u64>,
    domain: Domain,
    fabric: Fabric,
    info: Info,
}

impl Host {
    /// With room for the events and the operations of a few endpoints.
    pub(super) fn new(info: &Info) -> Result<Self> {
        Self::sized(info, 16, None)
    }

    fn sized(info: &Info, events: usize, callback: Option<Arc<dyn EventCallback>>) -> Result<Self> {
        let info = with_sizes(info, DEPTH, DEPTH);
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        Ok(Host {
            eq: EventQueue::new(&domain, events, callback)?,
            cq: CompletionQueue::new(&domain, 8 * DEPTH, None)?,
            domain,
            fabric,
            info,
        })
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint<u64>> {
        let builder = Endpoint::builder(&self.domain, &self.info);
        builder.cq(&self.cq).eq(&self.eq).enable()
    }

    fn listen(&self, backlog: usize) -> Result<PassiveEndpoint> {
        PassiveEndpoint::listen(&self.domain, &self.info, &self.eq, backlog)
    }

    /// The next event.
    fn event(&self) -> Result<Event> {
        self.eq.read_wait(timeout())
    }

    /// The request that is the next event.
    #[track_caller]
    fn request(&self) -> Result<ConnectionRequest> {
        match self.event()? {
            Event::ConnectionRequest(request) => Ok(request),
            _ => failed("a request"),
        }
    }

    /// Fails unless the next event is that `ep` is connected; gives what the peer sent.
    #[track_caller]
    fn connected(&self, ep: &Endpoint<u64>) -> Result<PrivateData> {
        match self.event()? {
            Event::Connected { endpoint, data } if endpoint == ep.id() => Ok(data),
            _ => failed("connected"),
        }
    }

    /// Fails unless the next event is that `ep` could not be connected; gives why.
    #[track_caller]
    fn refused(&self, ep: &Endpoint<u64>) -> Result<(Error, PrivateData)> {
        match self.event()? {
            Event::Refused {
                endpoint,
                error,
                data,
            } if endpoint == ep.id() => Ok((error, data)),
            _ => failed("refused"),
        }
    }

    /// Fails unless the next event is that the connection of `ep` has ended.
    #[track_caller]
    pub(super) fn shut_down(&self, ep: &Endpoint<u64>) -> Result {
        match self.event()? {
            Event::Shutdown { endpoint } if endpoint == ep.id() => Ok(()),
            _ => failed("shut down"),
        }
    }

    /// Fails unless no event is left.
    #[track_caller]
    pub(super) fn quiet(&self) -> Result {
        check!(self.eq.read().is_none());
        check!(self.cq.read().is_none());
        Ok(())
    }

    fn next(&self) -> Result<Completion<u64>> {
        self.cq.read_wait(timeout())
    }

    /// Closes all of it, in order; fails if anything refuses.
    pub(super) fn close(self) -> Result {
        closed(self.cq.close())?;
        closed(self.eq.close())?;
        closed(self.domain.close())?;
        closed(self.fabric.close())
    }
}

/// Says where another event was expected.
#[track_caller]
fn failed<T>(expected: &str) -> Result<T> {
    let at = core::panic::Location::caller();
    pr_err!(
        "# {}:{}: the event is not: {expected}\n",
        at.file(),
        at.line()
    );
    Err(EINVAL)
}

/// Two hosts, and an endpoint of each, connected to the other's.
pub(super) struct Connected {
    pub(super) a: Host,
    pub(super) b: Host,
    pub(super) at_a: Endpoint<u64>,
    pub(super) at_b: Endpoint<u64>,
}

impl Connected {
    pub(super) fn new(info: &Info) -> Result<Self> {
        let (a, b) = (Host::new(info)?, Host::new(info)?);
        let listener = b.listen(1)?;
        let (at_a, at_b) = connect(&a, &b, &listener)?;
        Ok(Connected { a, b, at_a, at_b })
    }

    fn close(self) -> Result {
        closed(self.at_a.close())?;
        closed(self.at_b.close())?;
        self.a.close()?;
        self.b.close()
    }
}

/// Connects a new endpoint of `a` to a new one of `b`.
fn connect(
    a: &Host,
    b: &Host,
    listener: &PassiveEndpoint,
) -> Result<(Endpoint<u64>, Endpoint<u64>)> {
    let (at_a, at_b) = (a.endpoint()?, b.endpoint()?);
    begin(&at_a, listener)?;
    closed(at_b.accept(b.request()?, PrivateData::NONE))?;
    b.connected(&at_b)?;
    a.connected(&at_a)?;
    Ok((at_a, at_b))
}

fn begin(ep: &Endpoint<u64>, listener: &PassiveEndpoint) -> Result {
    ep.connect(&listener.name(), PrivateData::NONE, timeout())
}

fn send(ep: &Endpoint<u64>, memory: Memory, context: u64) -> Result<OpId, Refused<u64>> {
    ep.send(memory, Address::PEER, Options::default(), context)
}

fn connections_are_offered_beside_datagrams(info: &Info, _seed: u64) -> Result {
    let of_domain = Hints {
        provider: Some(info.provider.as_str()),
        fabric: Some(info.fabric.as_str()),
        domain: Some(info.domain.as_str()),
        net: Some(info.net),
        ..Hints::default()
    };
    let found = getinfo(&of_domain)?;
    check_eq!(found.len(), 2);
    // Who does not ask gets datagrams.
    check_eq!(found[0].endpoint_type, EndpointType::Rdm);
    let connections = Info {
        endpoint_type: EndpointType::Msg,
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
    listener.close();
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
    listener.close();
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
    listener.close();
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
    listener.close();
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
    check_eq!(a.refused(&third)?.0, ECONNREFUSED);
    a.quiet()?;
    let at_b = b.endpoint()?;
    closed(at_b.accept(held, PrivateData::NONE))?;
    a.connected(&first)?;
    drop((first, second, third));
    listener.close();
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
    listener.close();
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
    listener.close();
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
    let eps = [a.endpoint()?, a.endpoint()?, a.endpoint()?];
    for ep in &eps {
        begin(ep, &listener)?;
    }
    let held = b.request()?;
    a.quiet()?;
    listener.close();
    for ep in &eps {
        check_eq!(a.refused(ep)?.0, ECONNREFUSED);
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
    let begin = Instant::<Monotonic>::now();
    at_a.connect(&listener.name(), PrivateData::NONE, 50)?;
    let request = b.request()?;
    check_eq!(a.refused(&at_a)?.0, ETIMEDOUT);
    check!(begin.elapsed() >= Delta::from_millis(50));
    // The answer comes too late.
    let at_b = b.endpoint()?;
    drop(given_back(
        at_b.accept(request, PrivateData::NONE),
        ECONNABORTED,
    )?);
    let posted = send(&at_b, Memory::zeroed(5)?, 1);
    check_refused(posted, ENOTCONN, 1)?;
    a.quiet()?;
    b.quiet()?;
    drop((at_a, at_b));
    listener.close();
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
    listener.close();
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
    listener.close();
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
    listener.close();
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

/// Fails unless those operations, and no others, have completed, each once, as those do that end
/// with a connection.
fn ended_with_it(host: &Host, posted: u64, seed: u64) -> Result {
    let mut times = [0; 2 * DEPTH];
    for _ in 0..posted {
        let done = host.next()?;
        *times.get_mut(done.context as usize).ok_or(EINVAL)? += 1;
        // The last when it met the peer's end before its own.
        check!(matches!(
            error(&done),
            Some(ENOTCONN | ECANCELED | EHOSTUNREACH)
        ));
        check_buffer(done.buffer, 100, seed)?;
    }
    check!(times[..posted as usize].iter().all(|times| *times == 1));
    check!(host.cq.read().is_none());
    Ok(())
}

fn shutdown_ends_what_is_in_flight_on_both_sides(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    // B's messages wait for receives of A, and its receives for messages.
    for n in 0..8 {
        send(&pair.at_b, pattern(100, seed)?, n)?;
    }
    pair.at_a.shutdown()?;
    pair.a.shut_down(&pair.at_a)?;
    pair.b.shut_down(&pair.at_b)?;
    ended_with_it(&pair.a, 0, seed)?;
    ended_with_it(&pair.b, 8, seed)?;
    for ep in [&pair.at_a, &pair.at_b] {
        check_refused(send(ep, pattern(9, seed)?, 1), ENOTCONN, 1)?;
        check_refused(ep.recv(Buffer::empty(), 1), ENOTCONN, 1)?;
    }
    pair.a.quiet()?;
    pair.b.quiet()?;
    pair.close()?;

    // Those of the side that ends it, and receives of both.
    let pair = Connected::new(info)?;
    for n in 0..8 {
        pair.at_b.recv(pattern(100, seed)?, n)?;
    }
    pair.at_b.shutdown()?;
    // They are in the queue when it returns, and so is the event.
    check!(matches!(pair.b.eq.read(), Some(Event::Shutdown { .. })));
    ended_with_it(&pair.b, 8, seed)?;
    pair.a.shut_down(&pair.at_a)?;
    pair.close()?;

    let pair = Connected::new(info)?;
    for n in 0..8 {
        send(&pair.at_a, pattern(100, seed)?, n)?;
        pair.at_a.recv(pattern(100, seed)?, 8 + n)?;
    }
    pair.at_a.shutdown()?;
    pair.a.shut_down(&pair.at_a)?;
    ended_with_it(&pair.a, 16, seed)?;
    pair.b.shut_down(&pair.at_b)?;
    // The messages are not there any more.
    check_refused(pair.at_b.recv(Buffer::empty(), 1), ENOTCONN, 1)?;
    pair.b.quiet()?;
    pair.close()
}

fn shutdown_of_both_at_once_ends_each_once(info: &Info, seed: u64) -> Result {
    for _ in 0..4 {
        let pair = Connected::new(info)?;
        for n in 0..8 {
            send(&pair.at_a, pattern(100, seed)?, n)?;
            send(&pair.at_b, pattern(100, seed)?, n)?;
        }
        let Connected { a, b, at_a, at_b } = pair;
        let (at_a, at_b) = (Arc::new(at_a, GFP_KERNEL)?, Arc::new(at_b, GFP_KERNEL)?);
        let both = [at_a.clone(), at_b.clone()];
        let job = move |thread: usize| match both[thread].shutdown() {
            // The peer was faster.
            Err(ENOTCONN) => Ok(()),
            result => result,
        };
        crate::crew::Crew::start(2, Arc::new(job, GFP_KERNEL)?)?.join()?;
        a.shut_down(&at_a)?;
        b.shut_down(&at_b)?;
        ended_with_it(&a, 8, seed)?;
        ended_with_it(&b, 8, seed)?;
        a.quiet()?;
        b.quiet()?;
        drop((at_a, at_b));
        a.close()?;
        b.close()?;
    }
    Ok(())
}

fn close_is_a_shutdown_for_the_peer(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    for n in 0..8 {
        pair.at_b.recv(pattern(100, seed)?, n)?;
        send(&pair.at_b, pattern(100, seed)?, 8 + n)?;
    }
    let Connected { a, b, at_a, at_b } = pair;
    at_a.recv(pattern(100, seed)?, 7).map(|_| ()).ok();
    // It has met the first message.
    drop(a.next()?);
    closed(at_a.close())?;
    b.shut_down(&at_b)?;
    let mut times = [0; 16];
    for _ in 0..16 {
        let done = b.next()?;
        times[done.context as usize] += 1;
        let met = done.context == 8;
        check_eq!(error(&done).is_none(), met);
    }
    check!(times.iter().all(|times| *times == 1));
    // Of its own end a closed endpoint says nothing.
    a.quiet()?;
    b.quiet()?;
    closed(at_b.close())?;
    a.close()?;
    b.close()
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
    listener.close();
    drop(region);
    pair.close()
}

fn two_connections_of_one_pair_are_apart(info: &Info, seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let (one_a, one_b) = connect(&a, &b, &listener)?;
    let (two_a, two_b) = connect(&a, &b, &listener)?;
    listener.close();
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

fn event_queue_keeps_its_bound(info: &Info, _seed: u64) -> Result {
    // Room for a listener with a backlog of 2, and one endpoint.
    let b = Host::sized(info, 2 + EventQueue::PER_ENDPOINT, None)?;
    check_eq!(b.eq.size(), 4);
    check_eq!(b.listen(5).err(), Some(ENOSPC));
    let listener = b.listen(2)?;
    let ep = b.endpoint()?;
    check_eq!(b.endpoint().err(), Some(ENOSPC));
    check_eq!(b.listen(1).err(), Some(ENOSPC));
    let Host {
        eq,
        cq,
        domain,
        fabric,
        info,
    } = b;
    let eq = busy(eq.close())?;
    let b = Host {
        eq,
        cq,
        domain,
        fabric,
        info,
    };
    closed(ep.close())?;
    // Its room is there again.
    let ep = b.endpoint()?;
    closed(ep.close())?;
    listener.close();
    b.close()
}

fn closed_endpoint_causes_no_event(info: &Info, _seed: u64) -> Result {
    let pair = Connected::new(info)?;
    let Connected { a, b, at_a, at_b } = pair;
    // An event that nobody has read goes with its endpoint.
    at_a.shutdown()?;
    until(|| b.eq.wait(0).is_ok())?;
    closed(at_a.close())?;
    closed(at_b.close())?;
    a.quiet()?;
    b.quiet()?;
    // So does a request.
    let listener = b.listen(1)?;
    let ep = a.endpoint()?;
    begin(&ep, &listener)?;
    closed(ep.close())?;
    a.quiet()?;
    listener.close();
    b.quiet()?;
    a.close()?;
    b.close()
}

fn events_call_back(info: &Info, _seed: u64) -> Result {
    let calls = count()?;
    let counted = calls.clone();
    let callback = move |events: &EventReader<'_>| {
        while let Some(event) = events.read() {
            drop(event);
            counted.add(1, Relaxed);
        }
    };
    let callback = Arc::new(callback, GFP_KERNEL)?;
    let (a, b) = (Host::sized(info, 4, Some(callback))?, Host::new(info)?);
    let listener = b.listen(1)?;
    let (at_a, at_b) = (a.endpoint()?, b.endpoint()?);
    check_eq!(calls.load(Acquire), 0);
    begin(&at_a, &listener)?;
    closed(at_b.accept(b.request()?, PrivateData::NONE))?;
    until(|| calls.load(Acquire) == 1)?;
    closed(at_b.close())?;
    until(|| calls.load(Acquire) == 2)?;
    closed(at_a.close())?;
    listener.close();
    a.close()?;
    check_eq!(calls.load(Acquire), 2);
    b.close()
}
