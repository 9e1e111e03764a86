// SPDX-License-Identifier: GPL-2.0

//! Address vectors, addresses and names.

use crate::close::{busy, closed};
use crate::crew::Crew;
use crate::ops::check_refused;
use crate::rig::{check_buffer, ended, pattern, timeout, with_sizes, Base, End, Rig};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::Arc;
use kfabric::prelude::*;

cases! {
    name_has_bounds: Caps::NONE,
    address_leads_to_its_name: Caps::NONE,
    removed_address_is_refused: Caps::MSG,
    address_of_a_reused_entry_is_another: Caps::MSG,
    address_that_nobody_gave_out_is_refused: Caps::MSG,
    name_may_have_two_addresses: Caps::MSG,
    operation_under_way_outlives_its_address: Caps::MSG,
    endpoints_share_an_address_vector: Caps::MSG,
    address_leads_to_its_own_name_while_others_take_its_place: Caps::NONE,
}

fn name_has_bounds(_info: &Info, _seed: u64) -> Result {
    let bytes = [7; Name::MAX + 1];
    check_eq!(Name::new(&[]).err(), Some(EINVAL));
    check_eq!(Name::new(&bytes).err(), Some(EINVAL));
    for len in [1, Name::MAX] {
        check_eq!(Name::new(&bytes[..len])?.as_bytes().len(), len);
    }
    check!(Name::new(&[1])? != Name::new(&[1, 0])?);
    Ok(())
}

fn address_leads_to_its_name(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let mut known = KVVec::new();
    for number in 0..1000u32 {
        let name = Name::new(&number.to_le_bytes())?;
        let address = end.av.insert(&name)?;
        check!(known.iter().all(|(_, other)| *other != address));
        known.push((name, address), GFP_KERNEL)?;
    }
    for (name, address) in &known {
        check!(end.av.lookup(*address) == Some(*name));
        check!(end.av.lookup(Address::from_raw(address.raw())) == Some(*name));
        check_eq!(address.raw() >> 56, 0);
    }
    end.close()
}

fn removed_address_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    rig.a.av.remove(rig.to_b)?;
    check!(rig.a.av.lookup(rig.to_b).is_none());
    check_eq!(rig.a.av.remove(rig.to_b), Err(ENOENT));
    let posted = rig
        .a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 7);
    check_buffer(check_refused(posted, EHOSTUNREACH, 7)?, 10, seed)?;
    rig.quiet()?;
    rig.close()
}

fn address_of_a_reused_entry_is_another(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    rig.b.recv(Memory::zeroed(10)?, 1)?;
    let name = rig.b.name();
    let mut stale = KVVec::new();
    let mut current = rig.to_b;
    for _ in 0..50 {
        rig.a.av.remove(current)?;
        stale.push(current, GFP_KERNEL)?;
        current = rig.a.av.insert(&name)?;
        check!(stale.iter().all(|old| *old != current));
    }
    for old in &stale {
        check!(rig.a.av.lookup(*old).is_none());
        check_eq!(rig.a.av.remove(*old), Err(ENOENT));
        let posted = rig
            .a
            .ep
            .send(pattern(10, seed)?, *old, Options::default(), 2);
        check_refused(posted, EHOSTUNREACH, 2)?;
    }
    rig.quiet()?;
    rig.a
        .ep
        .send(pattern(10, seed)?, current, Options::default(), 3)?;
    rig.passed(1, 3, Ok(10))?;
    rig.close()
}

fn address_that_nobody_gave_out_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let real = rig.to_b.raw();
    for raw in [
        real + 1,
        real + (1 << 31),
        real + (1 << 32),
        real | 1 << 55,
        real | 1 << 56,
        u64::MAX,
    ] {
        let address = Address::from_raw(raw);
        check!(rig.a.av.lookup(address).is_none());
        check_eq!(rig.a.av.remove(address), Err(ENOENT));
        let posted = rig
            .a
            .ep
            .send(pattern(10, seed)?, address, Options::default(), 1);
        check_refused(posted, EHOSTUNREACH, 1)?;
    }
    check!(rig.a.av.lookup(rig.to_b).is_some());
    rig.quiet()?;
    rig.close()
}

fn name_may_have_two_addresses(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let again = rig.a.av.insert(&rig.b.name())?;
    check!(again != rig.to_b);
    rig.a.av.remove(rig.to_b)?;
    rig.b.recv(Memory::zeroed(10)?, 1)?;
    rig.a
        .ep
        .send(pattern(10, seed)?, again, Options::default(), 2)?;
    rig.passed(1, 2, Ok(10))?;
    rig.close()
}

fn operation_under_way_outlives_its_address(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    rig.a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 1)?;
    rig.a.av.remove(rig.to_b)?;
    rig.b.recv(Memory::zeroed(10)?, 2)?;
    rig.passed(2, 1, Ok(10))?;
    rig.close()
}

fn endpoints_share_an_address_vector(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let small = with_sizes(info, 1, 1);
    let cq = CompletionQueue::<u64>::new(&rig.a.domain, 2, None)?;
    let ep = rig.a.endpoint(&small, &cq)?;
    rig.b.recv(Memory::zeroed(10)?, 1)?;
    ep.send(pattern(10, seed)?, rig.to_b, Options::default(), 2)?;
    check_eq!(ended(&rig.b.next()?), (Kind::Recv, 1, Ok(10)));
    check_eq!(ended(&cq.read_wait(timeout())?), (Kind::Send, 2, Ok(10)));
    let Rig { a, b, .. } = rig;
    let (own, base) = a.split();
    closed(own.close())?;
    // One endpoint is left, so the vector stays.
    let av = busy(base.av.close())?;
    closed(ep.close())?;
    closed(cq.close())?;
    Base { av, ..base }.close()?;
    b.close()
}

/// An entry that is used again and again while another thread looks at it.
struct Churn {
    end: KBox<End>,
    /// The address in use, and in its upper 8 bits what its name consists of.
    current: Atomic<u64>,
    stop: Atomic<bool>,
    found: Atomic<u64>,
    gone: Atomic<u64>,
}

impl Churn {
    fn name(byte: u8) -> Result<Name> {
        Name::new(&[byte; Name::MAX])
    }

    fn look(&self) -> Result {
        while !self.stop.load(Relaxed) {
            let current = self.current.load(Acquire);
            let address = Address::from_raw(current & (1 << 56) - 1);
            match self.end.av.lookup(address) {
                Some(name) => {
                    check!(name == Self::name((current >> 56) as u8)?);
                    self.found.add(1, Relaxed);
                }
                None => self.gone.add(1, Relaxed),
            }
        }
        Ok(())
    }

    fn churn(&self) -> Result {
        let mut address = self.end.av.insert(&Self::name(0)?)?;
        for round in 1..2_000_000u32 {
            self.end.av.remove(address)?;
            let byte = round as u8;
            address = self.end.av.insert(&Self::name(byte)?)?;
            let current = u64::from(byte) << 56 | address.raw();
            self.current.store(current, Release);
            let seen = self.found.load(Relaxed) > 0 && self.gone.load(Relaxed) > 0;
            if seen && round > 50_000 || self.stop.load(Relaxed) {
                break;
            }
        }
        check!(self.found.load(Relaxed) > 0 && self.gone.load(Relaxed) > 0);
        Ok(())
    }
}

fn address_leads_to_its_own_name_while_others_take_its_place(info: &Info, _seed: u64) -> Result {
    let churn = Churn {
        end: End::new(info, None)?,
        current: Atomic::new(0),
        stop: Atomic::new(false),
        found: Atomic::new(0),
        gone: Atomic::new(0),
    };
    let churn = Arc::new(churn, GFP_KERNEL)?;
    let looker = churn.clone();
    let look = move |_| {
        looker
            .look()
            .inspect_err(|_| looker.stop.store(true, Relaxed))
    };
    let crew = Crew::start(1, Arc::new(look, GFP_KERNEL)?)?;
    let churned = churn.churn();
    churn.stop.store(true, Relaxed);
    crew.join()?;
    churned
}
