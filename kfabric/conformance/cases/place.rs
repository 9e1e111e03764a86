// SPDX-License-Identifier: GPL-2.0

//! Places: sources that are asked for, and peers that are named by node and service.

use crate::close::{busy, closed};
use crate::peer::Peer;
use crate::rig::{ended, pattern, with_sizes, End, Rig, DEPTH};
use crate::wishes::like;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    own_source_given_back_finds_it_again: Caps::NONE,
    foreign_source_is_not_to_be_had: Caps::NONE,
    text_that_is_not_understood_is_refused: Caps::NONE,
    service_that_was_inserted_is_reached: Caps::SERVICE.union(Caps::MSG),
    service_in_use_is_refused: Caps::SERVICE,
    service_is_reached_again_after_its_endpoint: Caps::SERVICE.union(Caps::MSG),
    domain_keeps_its_source: Caps::SERVICE,
    listener_of_a_service_has_its_name: Caps::SERVICE,
}

/// Nodes of this host: a provider that has services understands one of them, at least. Where one
/// understands none, its host goes by another word, which belongs here.
const NODES: &[&str] = &["127.0.0.1", "::1", "lo"];

/// Nodes that are not this host. Source: RFC 5737, RFC 3849; not those that guests have.
const FOREIGN: &[&str] = &["203.0.113.7", "198.51.100.1", "2001:db8:ffff::7"];

/// Text that says no place anywhere.
const NONSENSE: &[&str] = &[
    "",
    " ",
    "%",
    "\0",
    "no such node",
    "256.256.256.256",
    "127.0.0.1 ",
    ":::",
    "127.0.0.1\0",
    "::ffff:127.0.0.1",
    "65536:1",
    "\u{1F980}",
];

/// A service, as text.
struct Service {
    digits: [u8; 5],
}

impl Service {
    /// One that nobody is likely to have; another one each time.
    fn new() -> Self {
        let mut number = 20_000 + random() % 12_000;
        let mut digits = [0; 5];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        Service { digits }
    }

    fn text(&self) -> &str {
        core::str::from_utf8(&self.digits).unwrap_or("")
    }
}

/// `info`, at a place that text says. `ENODATA`: not to be had; `EINVAL`: not understood.
fn at(info: &Info, node: &str, service: Option<&str>) -> Result<Info> {
    let node = Some(node);
    let found = getinfo(&Hints {
        source: Some(Place::Service { node, service }),
        ..like(info)
    })?;
    match &found[..] {
        [found] => Ok(*found),
        _ => Err(E2BIG),
    }
}

/// Does something for each node that the provider has; fails if it has none.
fn each_node(info: &Info, act: impl Fn(&str) -> Result) -> Result {
    let mut had = 0;
    for node in NODES {
        match at(info, node, None) {
            Ok(_) => {
                act(node).inspect_err(|_| pr_err!("# at {node}\n"))?;
                had += 1;
            }
            Err(error) => check!(error == ENODATA || error == EINVAL),
        }
    }
    check!(had > 0);
    Ok(())
}

/// An end at a service of `node`, and what the service is called.
fn serving(info: &Info, node: &str) -> Result<(KBox<End>, Info, Service)> {
    loop {
        let service = Service::new();
        let there = at(info, node, Some(service.text()))?;
        match End::new(&there, None) {
            // Some other program has it.
            Err(EADDRINUSE) => {}
            end => return Ok((end?, there, service)),
        }
    }
}

fn own_source_given_back_finds_it_again(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let name = end.ep.name();
    let hinted = |place| {
        getinfo(&Hints {
            source: Some(Place::Name(place)),
            ..like(info)
        })
    };
    match info.source {
        Some(source) => {
            check_eq!(hinted(&source)?.len(), 1);
            check_eq!(hinted(&source)?[0], *info);
            let again = End::new(&hinted(&source)?[0], None)?;
            check!(again.ep.name() != name);
            again.close()?;
        }
        // Nor is its own name a place where the provider knows none.
        None => check_eq!(hinted(&name).err(), Some(ENODATA)),
    }
    end.close()
}

fn foreign_source_is_not_to_be_had(info: &Info, _seed: u64) -> Result {
    let fabric = Fabric::open(info)?;
    for len in 1..=Name::MAX {
        for byte in [0, 1, 4, 6, 0xff] {
            let name = Name::new(&[byte; Name::MAX][..len])?;
            let hints = Hints {
                source: Some(Place::Name(&name)),
                ..like(info)
            };
            check_eq!(getinfo(&hints).err(), Some(ENODATA));
            let source = Some(name);
            let opened = fabric.domain(&Info { source, ..*info });
            check_eq!(opened.err(), Some(EADDRNOTAVAIL));
        }
    }
    for node in FOREIGN {
        for service in [None, Some("4791")] {
            let found = at(info, node, service);
            // No place of this host; or nothing that it understands.
            check!(matches!(found, Err(ENODATA | EINVAL)));
        }
    }
    closed(fabric.close())
}

fn text_that_is_not_understood_is_refused(info: &Info, _seed: u64) -> Result {
    let has = info.caps.contains(Caps::SERVICE);
    let (found, inserted) = match has {
        true => (EINVAL, EINVAL),
        false => (ENODATA, EOPNOTSUPP),
    };
    let end = End::new(info, None)?;
    let long = KVVec::from_elem(b'1', 1 << 16, GFP_KERNEL)?;
    let long = core::str::from_utf8(&long).map_err(|_| EINVAL)?;
    let nodes = Iterator::chain(NONSENSE.iter(), [&long]).map(|node| (*node, "4791"));
    let services = [
        "", " ", "-1", "+1", "4791 ", "65536", "0x10", "\0", "4791\0", long,
    ];
    let services = services.map(|service| (NODES[0], service));
    for (node, service) in Iterator::chain(nodes, services) {
        check_eq!(at(info, node, Some(service)).err(), Some(found));
        let peer = getinfo(&Hints {
            peer: Some(Place::Service {
                node: Some(node),
                service: Some(service),
            }),
            ..like(info)
        });
        check_eq!(peer.err(), Some(found));
        check_eq!(end.av.insert_service(node, service).err(), Some(inserted));
    }
    // Whoever is asked: they say nothing.
    for (source, peer) in [(true, false), (false, true), (true, true)] {
        let nothing = Some(Place::Service {
            node: None,
            service: None,
        });
        let hints = Hints {
            source: nothing.filter(|_| source),
            peer: nothing.filter(|_| peer),
            ..like(info)
        };
        check_eq!(getinfo(&hints).err(), Some(EINVAL));
    }
    let peer = Some(Place::Service {
        node: None,
        service: Some("4791"),
    });
    let hints = Hints { peer, ..like(info) };
    check_eq!(getinfo(&hints).err(), Some(EINVAL));
    end.close()
}

fn service_that_was_inserted_is_reached(info: &Info, seed: u64) -> Result {
    each_node(info, |node| {
        let (b, there, service) = serving(info, node)?;
        let name = b.ep.name();
        check_eq!(there.source, Some(name));
        let a = End::new(&at(info, node, None)?, None)?;
        let to_b = a.av.insert_service(node, service.text())?;
        check_eq!(a.av.lookup(to_b), Some(name));
        // As every name, it may be there twice.
        let again = a.av.insert_service(node, service.text())?;
        check!(again != to_b);
        a.av.remove(again)?;
        check_eq!(a.av.lookup(to_b), Some(name));
        let peer = getinfo(&Hints {
            source: at(info, node, None)?.source.as_ref().map(Place::Name),
            peer: Some(Place::Service {
                node: Some(node),
                service: Some(service.text()),
            }),
            ..like(info)
        })?;
        check!(peer.iter().all(|found| found.peer == Some(name)));
        let to_a = b.av.insert(&a.ep.name())?;
        let b = Peer::Here(b);
        let rig = Rig { a, b, to_b, to_a };
        rig.b.recv(Memory::zeroed(10)?, 1)?;
        let message = pattern(10, seed)?;
        rig.a.ep.send(message, to_b, Options::NONE, 2)?;
        rig.passed(1, 2, Ok(10))?;
        rig.a.ep.recv(Memory::zeroed(10)?, 3)?;
        let message = pattern(10, seed)?;
        rig.b.send(message, to_a, Options::NONE, 4)?;
        check_eq!(ended(&rig.a.next()?), (Kind::Recv, 3, Ok(10)));
        check_eq!(ended(&rig.b.next()?), (Kind::Send, 4, Ok(10)));
        rig.close()
    })
}

fn service_in_use_is_refused(info: &Info, _seed: u64) -> Result {
    each_node(info, |node| {
        let (end, there, _) = serving(info, node)?;
        let there = with_sizes(&there, DEPTH, DEPTH);
        // Whether somebody has it shows when it is opened.
        let fabric = Fabric::open(&there)?;
        check_eq!(fabric.domain(&there).err(), Some(EADDRINUSE));
        let cq = CompletionQueue::<u64>::new(&end.domain, 2 * DEPTH, None)?;
        check_eq!(end.endpoint(&there, &cq).err(), Some(EADDRINUSE));
        // Another one of its domain asks for no place.
        let source = None;
        let beside = end.endpoint(&Info { source, ..there }, &cq)?;
        check!(beside.name() != end.ep.name());
        closed(beside.close())?;
        let (ep, base) = end.split();
        let name = ep.name();
        closed(ep.close())?;
        let builder = Endpoint::builder(&base.domain, &there);
        let successor = builder.cq(&cq).av(&base.av).enable()?;
        check_eq!(successor.name(), name);
        closed(successor.close())?;
        closed(cq.close())?;
        base.close()?;
        let domain = fabric.domain(&there)?;
        closed(domain.close())?;
        closed(fabric.close())
    })
}

/// Under the same name, with nothing left of the former.
fn service_is_reached_again_after_its_endpoint(info: &Info, seed: u64) -> Result {
    each_node(info, |node| {
        let (mut b, there, service) = serving(info, node)?;
        let there = with_sizes(&there, DEPTH, DEPTH);
        let a = End::new(&at(info, node, None)?, None)?;
        let to_b = a.av.insert_service(node, service.text())?;
        for round in 0..3 {
            b.ep.recv(Memory::zeroed(10)?, round)?;
            a.ep.send(pattern(10, seed)?, to_b, Options::NONE, round)?;
            check_eq!(ended(&b.next()?), (Kind::Recv, round, Ok(10)));
            check_eq!(ended(&a.next()?), (Kind::Send, round, Ok(10)));
            let (ep, base) = b.split();
            closed(ep.close())?;
            a.ep.send(pattern(10, seed)?, to_b, Options::NONE, round)?;
            let lost = Err(EHOSTUNREACH);
            check_eq!(ended(&a.next()?), (Kind::Send, round, lost));
            let builder = Endpoint::builder(&base.domain, &there);
            let ep = builder.cq(&base.cq).av(&base.av).enable()?;
            b = base.under(ep)?;
        }
        a.close()?;
        b.close()
    })
}

fn domain_keeps_its_source(info: &Info, _seed: u64) -> Result {
    each_node(info, |node| {
        let (end, there, _) = serving(info, node)?;
        let of_domain = Hints {
            opened_domain: Some(&end.domain),
            ..like(info)
        };
        check!(getinfo(&of_domain)?.iter().all(|found| *found == there));
        let elsewhere = at(info, node, Some(Service::new().text()))?;
        check!(elsewhere.source != there.source);
        let source = elsewhere.source.as_ref().map(Place::Name);
        let found = getinfo(&Hints {
            source,
            ..of_domain
        });
        check_eq!(found.err(), Some(ENODATA));
        // Nor has an endpoint another place than its domain.
        let elsewhere = with_sizes(&elsewhere, DEPTH, DEPTH);
        let cq = CompletionQueue::<u64>::new(&end.domain, 2 * DEPTH, None)?;
        check_eq!(end.endpoint(&elsewhere, &cq).err(), Some(EINVAL));
        closed(cq.close())?;
        // The peer of an info is no matter of those that are opened with it.
        let (ep, base) = end.split();
        let name = ep.name();
        closed(ep.close())?;
        let mut there = with_sizes(&there, DEPTH, DEPTH);
        there.peer = Some(name);
        let builder = Endpoint::builder(&base.domain, &there);
        let ep = builder.cq(&base.cq).av(&base.av).enable()?;
        check_eq!(ep.name(), name);
        let domain = busy(base.domain.close())?;
        closed(ep.close())?;
        closed(base.av.close())?;
        closed(base.cq.close())?;
        closed(domain.close())?;
        closed(base.fabric.close())
    })
}

fn listener_of_a_service_has_its_name(info: &Info, _seed: u64) -> Result {
    let endpoint_type = EndpointType::Msg;
    let msg = Info {
        endpoint_type,
        ..*info
    };
    if getinfo(&like(&msg)).is_err() {
        // It has no connections.
        return Ok(());
    }
    each_node(info, |node| {
        let (end, there, _) = serving(info, node)?;
        let there = Info {
            endpoint_type,
            ..with_sizes(&there, DEPTH, DEPTH)
        };
        let eq = EventQueue::new(&end.domain, 8, None)?;
        let listen = || PassiveEndpoint::listen(&end.domain, &there, &eq, 1);
        check_eq!(listen().err(), Some(EADDRINUSE));
        let (ep, base) = end.split();
        let name = ep.name();
        closed(ep.close())?;
        let listener = PassiveEndpoint::listen(&base.domain, &there, &eq, 1)?;
        check_eq!(listener.name(), name);
        // Who connects is nobody's service.
        let builder = Endpoint::builder(&base.domain, &there);
        let connecting = builder.cq(&base.cq).eq(&eq).enable()?;
        check!(connecting.name() != name);
        closed(connecting.close())?;
        closed(listener.close())?;
        closed(eq.close())?;
        base.close()
    })
}
