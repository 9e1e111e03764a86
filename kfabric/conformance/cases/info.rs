// SPDX-License-Identifier: GPL-2.0

//! Discovery: hints, infos, and what they promise.

use crate::close::closed;
use crate::rig::{pattern, End, Rig};
use crate::runner::all_caps;
use crate::wishes::{domain_of, like};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    info_fits_its_own_wishes: Caps::NONE,
    each_wish_refuses_what_lacks_it: Caps::NONE,
    limits_are_lowered_to_what_is_wanted: Caps::NONE,
    provider_that_does_not_exist_is_not_opened: Caps::NONE,
    domain_that_is_not_offered_is_not_opened: Caps::NONE,
    fabric_opens_no_domain_of_another: Caps::NONE,
    each_capability_is_there: Caps::NONE,
    opened_objects_give_their_own_infos: Caps::NONE,
    peers_of_the_provider_are_reached: Caps::NONE,
}

/// Hints that name all that an info has.
fn wishes(info: &Info) -> Hints<'_> {
    Hints {
        max_msg_size: info.limits.max_msg_size,
        max_atomic_size: info.limits.max_atomic_size,
        tx_size: info.limits.tx_size,
        rx_size: info.limits.rx_size,
        inject_size: info.limits.inject_size,
        ..like(info)
    }
}

fn opened_objects_give_their_own_infos(info: &Info, _seed: u64) -> Result {
    let fabric = Fabric::open(info)?;
    let domain = fabric.domain(info)?;
    let by_fabric = getinfo(&Hints {
        opened_fabric: Some(&fabric),
        net: Some(info.net),
        ..Hints::default()
    })?;
    check!(by_fabric.iter().any(|found| found == info));
    check!(by_fabric.iter().all(|found| found.fabric == info.fabric));
    let by_domain = getinfo(&Hints {
        opened_domain: Some(&domain),
        ..Hints::default()
    })?;
    check!(by_domain.iter().any(|found| found == info));
    check!(by_domain.iter().all(|found| found.domain == info.domain));
    // The object, and not what is named besides.
    let other = getinfo(&Hints {
        opened_domain: Some(&domain),
        provider: Some("nosuch"),
        ..Hints::default()
    });
    check_eq!(other.err(), Some(ENODATA));
    closed(domain.close())?;
    closed(fabric.close())
}

fn peers_of_the_provider_are_reached(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let name = rig.b.name();
    let hints = Hints {
        peer: Some(Place::Name(&name)),
        ..domain_of(info)
    };
    let expected = Info {
        peer: Some(name),
        ..*info
    };
    check!(getinfo(&hints)?.contains(&expected));
    let Rig { a, b, .. } = rig;
    let left = b.close_endpoint()?;
    // It need not exist.
    check!(getinfo(&hints)?.contains(&expected));
    left.close()?;
    a.close()
}

fn info_fits_its_own_wishes(info: &Info, _seed: u64) -> Result {
    let found = getinfo(&wishes(info))?;
    check!(found.iter().all(|found| *found == *info));
    check_eq!(found.len(), 1);
    let anything = Hints {
        net: Some(info.net),
        ..Hints::default()
    };
    check!(getinfo(&anything)?.contains(info));
    Ok(())
}

fn each_wish_refuses_what_lacks_it(info: &Info, _seed: u64) -> Result {
    let all = wishes(info);
    let limits = info.limits;
    // Some of it only when it is asked for.
    let had = all_caps(info);
    let refused = [
        Hints {
            provider: Some("nosuch"),
            ..all
        },
        Hints {
            fabric: Some("nosuch"),
            ..all
        },
        Hints {
            domain: Some("nosuch"),
            ..all
        },
        Hints {
            provider: Some(""),
            ..all
        },
        Hints {
            max_msg_size: limits.max_msg_size + 1,
            ..all
        },
        Hints {
            max_atomic_size: limits.max_atomic_size + 1,
            ..all
        },
        Hints {
            tx_size: limits.tx_size + 1,
            ..all
        },
        Hints {
            rx_size: limits.rx_size + 1,
            ..all
        },
        Hints {
            inject_size: limits.inject_size + 1,
            ..all
        },
    ];
    for hints in &refused {
        check_eq!(getinfo(hints).err(), Some(ENODATA));
    }
    // What is wanted of what there is: neither more nor less of it comes.
    let there_is = getinfo(&domain_of(info))?;
    let is_there = |wanted: &dyn Fn(&Info) -> bool| there_is.iter().any(wanted);
    for caps in Caps::ALL.each() {
        let found = getinfo(&Hints { caps, ..all });
        check_eq!(found.is_ok(), had.contains(caps));
        check!(found.map_or(true, |found| found.iter().all(|it| it.caps.contains(caps))));
    }
    for endpoint_type in [EndpointType::Rdm, EndpointType::Msg] {
        let found = getinfo(&Hints {
            endpoint_type: Some(endpoint_type),
            ..domain_of(info)
        });
        let is_of = |it: &Info| it.endpoint_type == endpoint_type;
        check_eq!(found.is_ok(), is_there(&is_of));
        check!(found.map_or(true, |found| found.iter().all(is_of)));
    }
    for net in [Namespace::initial(), Namespace::current()] {
        let found = getinfo(&Hints {
            net: Some(net),
            ..domain_of(info)
        });
        check!(net != info.net || found.is_ok());
        check!(found.map_or(true, |found| found.iter().all(|it| it.net == net)));
    }
    Ok(())
}

fn limits_are_lowered_to_what_is_wanted(info: &Info, _seed: u64) -> Result {
    let hints = Hints {
        tx_size: 3,
        rx_size: 5,
        ..wishes(info)
    };
    let found = getinfo(&hints)?;
    let lowered = found.first().ok_or(EINVAL)?;
    check_eq!((lowered.limits.tx_size, lowered.limits.rx_size), (3, 5));
    check_eq!(lowered.limits.max_msg_size, info.limits.max_msg_size);
    // Those that cost nothing are what there is, and so are capabilities.
    let hints = Hints {
        caps: Caps::MSG & info.caps,
        max_msg_size: 1,
        inject_size: 1.min(info.limits.inject_size),
        ..domain_of(info)
    };
    let raised = *getinfo(&hints)?.first().ok_or(EINVAL)?;
    check_eq!(raised.limits.max_msg_size, info.limits.max_msg_size);
    check_eq!(raised.limits.inject_size, info.limits.inject_size);
    check_eq!(raised.caps & info.caps, info.caps);
    let fabric = Fabric::open(lowered)?;
    let domain = fabric.domain(lowered)?;
    let cq = CompletionQueue::<u64>::new(&domain, 8, None)?;
    let av = AddressVector::new(&domain)?;
    let ep = Endpoint::builder(&domain, lowered)
        .cq(&cq)
        .av(&av)
        .enable()?;
    // It has one context of each kind.
    let limits = Limits {
        tx_contexts: 1,
        rx_contexts: 1,
        ..lowered.limits
    };
    check_eq!(ep.limits(), limits);
    for number in 0..5 {
        ep.recv(Buffer::empty(), number)?;
    }
    check_eq!(
        ep.recv(Buffer::empty(), 5).err().map(Error::from),
        Some(EAGAIN)
    );
    Ok(())
}

fn provider_that_does_not_exist_is_not_opened(info: &Info, _seed: u64) -> Result {
    let nobodys = Info {
        provider: Label::new("nosuch")?,
        ..*info
    };
    check_eq!(Fabric::open(&nobodys).err(), Some(ENODEV));
    let fabric = Fabric::open(info)?;
    check_eq!(fabric.domain(&nobodys).err(), Some(EINVAL));
    closed(fabric.close())
}

fn domain_that_is_not_offered_is_not_opened(info: &Info, _seed: u64) -> Result {
    let fabric = Fabric::open(info)?;
    let nobodys = Info {
        domain: Label::new("nosuch")?,
        ..*info
    };
    check_eq!(fabric.domain(&nobodys).err(), Some(ENODEV));
    // What failed holds nothing.
    closed(fabric.close())
}

fn fabric_opens_no_domain_of_another(info: &Info, _seed: u64) -> Result {
    let fabric = Fabric::open(info)?;
    let others = Info {
        fabric: Label::new("nosuch")?,
        ..*info
    };
    check_eq!(fabric.domain(&others).err(), Some(EINVAL));
    closed(fabric.close())
}

/// What the provider does when it is asked for each capability, advertised or not.
fn each_capability_is_there(info: &Info, seed: u64) -> Result {
    let has = |cap| info.caps.contains(cap);
    let done = |posted: core::result::Result<OpId, Refused<u64>>, end: &End| match posted {
        Ok(_) => Ok::<_, Error>(end.next()?.result.map_err(|failure| failure.error)),
        Err(refused) => Ok(Err(refused.error)),
    };
    let rig = Rig::new(info)?;
    let region = rig
        .b
        .register(Memory::zeroed(64)?, Access::READ | Access::WRITE)?;
    let remote = RemoteRegion::parse(&region.descriptor()?)?.slice(0, 64)?;
    for cap in [Caps::MSG, Caps::READ, Caps::WRITE, Caps::REMOTE_CQ_DATA] {
        rig.b.recv(Memory::zeroed(64)?, 1)?;
        let bytes = pattern(64, seed)?;
        let data = Options {
            data: Some(seed),
            ..Options::default()
        };
        let posted = match cap {
            Caps::MSG => rig.a.ep.send(bytes, rig.to_b, Options::default(), 2),
            Caps::READ => rig
                .a
                .ep
                .read(bytes, rig.to_b, remote, Options::default(), 2),
            Caps::WRITE => rig
                .a
                .ep
                .write(bytes, rig.to_b, remote, Options::default(), 2),
            _ => rig.a.ep.write(bytes, rig.to_b, remote, data, 2),
        };
        let expected = if has(cap) { Ok(64) } else { Err(EOPNOTSUPP) };
        check_eq!(done(posted, &rig.a)?.map(|success| success.len), expected);
    }
    // Of volatile memory nobody makes a promise.
    check_eq!(
        done(
            rig.a.ep.commit(rig.to_b, remote, Options::default(), 2),
            &rig.a
        )?
        .err(),
        Some(EOPNOTSUPP)
    );
    drop(region);
    rig.close()
}
