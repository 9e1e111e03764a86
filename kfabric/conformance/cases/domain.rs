// SPDX-License-Identifier: GPL-2.0

//! Fabrics and domains: what is opened in what, and the order of closing.

use crate::close::{busy, closed};
use crate::rig::{ended, pattern, register, timeout, tries, until, with_sizes, Base, Rig};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    endpoint_takes_what_is_of_its_own_domain_only: Caps::NONE,
    fabric_with_an_open_domain_is_not_closed: Caps::NONE,
    domain_with_something_open_is_not_closed: Caps::NONE,
    queue_and_vector_in_use_are_not_closed: Caps::MSG,
    objects_outlive_dropped_handles: Caps::MSG,
    domains_are_opened_again_and_again: Caps::MSG,
    close_is_not_held_up_by_a_peers_access: Caps::WRITE,
}

fn fabric_with_an_open_domain_is_not_closed(info: &Info, _seed: u64) -> Result {
    let fabric = Fabric::open(info)?;
    let first = fabric.domain(info)?;
    let fabric = busy(fabric.close())?;
    let second = fabric.domain(info)?;
    closed(first.close())?;
    let fabric = busy(fabric.close())?;
    drop(second);
    closed(fabric.close())
}

fn domain_with_something_open_is_not_closed(info: &Info, _seed: u64) -> Result {
    let info = with_sizes(info, 1, 1);
    let fabric = Fabric::open(&info)?;
    let domain = fabric.domain(&info)?;

    let cq = CompletionQueue::<u64>::new(&domain, 2, None)?;
    let domain = busy(domain.close())?;
    let av = AddressVector::new(&domain)?;
    let ep = Endpoint::builder(&domain, &info).cq(&cq).av(&av).enable()?;
    let region = register(&domain, Memory::zeroed(1)?, Access::NONE)?;

    let domain = busy(domain.close())?;
    closed(ep.close())?;
    let domain = busy(domain.close())?;
    closed(cq.close())?;
    let domain = busy(domain.close())?;
    closed(av.close())?;
    let domain = busy(domain.close())?;
    closed(region.close_wait(timeout()))?;
    closed(domain.close())?;
    closed(fabric.close())
}

fn queue_and_vector_in_use_are_not_closed(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (ep, base) = rig.a.split();
    let base = Base {
        av: busy(base.av.close())?,
        cq: busy(base.cq.close())?,
        domain: busy(base.domain.close())?,
        fabric: busy(base.fabric.close())?,
        ..base
    };
    let a = base.under(ep)?;
    let rig = Rig { a, ..rig };
    // All of it works as before.
    rig.b.recv(Memory::zeroed(10)?, 1)?;
    rig.a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 2)?;
    rig.passed(1, 2, Ok(10))?;
    rig.close()
}

fn objects_outlive_dropped_handles(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let Rig { a, b, to_b, .. } = rig;
    let (ep, base) = a.split();
    let Base {
        av,
        cq,
        domain,
        fabric,
        ..
    } = base;
    let region = register(&domain, pattern(10, seed)?, Access::NONE)?;
    drop(fabric);
    drop(domain);
    drop(av);
    b.recv(Memory::zeroed(10)?, 1)?;
    ep.send(region.slice(0, 10)?, to_b, Options::default(), 2)?;
    check_eq!(ended(&b.next()?), (Kind::Recv, 1, Ok(10)));
    check_eq!(ended(&cq.read_wait(timeout())?), (Kind::Send, 2, Ok(10)));
    closed(ep.close())?;
    closed(cq.close())?;
    drop(region);
    b.close()
}

fn domains_are_opened_again_and_again(info: &Info, seed: u64) -> Result {
    for round in 0..tries(20) {
        let rig = Rig::sized(info, 1)?;
        rig.b.recv(Memory::zeroed(10)?, round)?;
        rig.a
            .ep
            .send(pattern(10, seed)?, rig.to_b, Options::default(), round)?;
        rig.passed(round, round, Ok(10))?;
        rig.close()?;
    }
    Ok(())
}

fn close_is_not_held_up_by_a_peers_access(info: &Info, _seed: u64) -> Result {
    const LEN: usize = 64 << 20;
    let len = LEN.min(info.limits.max_msg_size);
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(len, Access::WRITE)?;
    let mut ones = Memory::zeroed(len)?;
    ones.as_mut_slice().ok_or(EINVAL)?.fill(1);
    rig.a.ep.write(
        ones,
        rig.to_b,
        remote.slice(0, len as u64)?,
        Options::default(),
        1,
    )?;
    // The write has begun, and is far from its end.
    until(|| region.load_u64(0).is_ok_and(|word| word != 0))?;
    let Rig { a, b, .. } = rig;
    drop(region);
    b.close()?;
    let done = a.next()?;
    check_eq!((done.kind, done.context), (Kind::Write, 1));
    check!(a.cq.read().is_none());
    a.close()
}

fn endpoint_takes_what_is_of_its_own_domain_only(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let small = with_sizes(info, 1, 1);
    let queue = |domain| CompletionQueue::<u64>::new(domain, 2, None);
    let (own, foreign) = (queue(&rig.a.domain)?, queue(&rig.b.here()?.domain)?);
    let builder = || Endpoint::<u64>::builder(&rig.a.domain, &small);
    for (tx, rx, av, error) in [
        (&own, &own, &rig.a.av, None),
        (&foreign, &own, &rig.a.av, Some(EINVAL)),
        (&own, &foreign, &rig.a.av, Some(EINVAL)),
        (&own, &own, &rig.b.here()?.av, Some(EINVAL)),
    ] {
        let made = builder().tx_cq(tx).rx_cq(rx).av(av).enable();
        check_eq!(made.err(), error);
    }
    closed(own.close())?;
    closed(foreign.close())?;
    rig.close()
}
