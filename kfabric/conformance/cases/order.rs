// SPDX-License-Identifier: GPL-2.0

//! Order, where it is asked for.

use crate::close::closed;
use crate::ops::{error, level, pmem};
use crate::peer::Region;
use crate::rig::{check_buffer, check_region, ended, pattern, timeout, tries, Rig, DEPTH};
use crate::wishes::domain_of;
use crate::{cases, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    order_is_what_was_asked_for: Caps::NONE,
    write_after_write_wins [connected]: Caps::RMA => Order::WAW,
    write_after_a_commit_wins [connected]: Caps::RMA.union(Caps::COMMIT) => Order::WAW,
    read_after_write_sees_it [connected]: Caps::RMA => Order::RAW,
    read_before_a_write_does_not_see_it [connected]: Caps::RMA => Order::WAR,
    messages_arrive_in_the_order_of_their_posts [connected]: Caps::MSG => Order::SAS,
    message_after_a_write_finds_its_bytes [connected]: Caps::RMA.union(Caps::MSG) => Order::SAW,
    atomic_after_a_write_finds_its_bytes [connected]: Caps::RMA.union(Caps::ATOMIC) => Order::WAW,
    atomics_are_done_in_the_order_of_their_posts [connected]: Caps::ATOMIC => Order::WAW,
    write_after_an_atomic_wins [connected]: Caps::RMA.union(Caps::ATOMIC) => Order::WAW,
    read_after_an_atomic_sees_it [connected]: Caps::RMA.union(Caps::ATOMIC) => Order::RAW,
    read_after_a_read_takes_the_next_receive [connected]: TAGGED => Order::RAR,
    read_after_a_message_takes_the_next_receive [connected]: TAGGED => Order::RAS,
    write_after_a_message_takes_the_next_receive [connected]: TAGGED => Order::WAS,
    message_after_a_read_takes_the_next_receive [connected]: TAGGED => Order::SAR,
    strict_order_keeps_everything [connected]: Caps::RMA.union(Caps::MSG) => Order::STRICT,
}

/// By tagged RMA reads and writes meet receives, as messages do, and so show their order.
const TAGGED: Caps = Caps::TAGGED.union(Caps::RMA);
const TAG: u64 = 5;

/// Long enough for a worker, where a provider has one.
const LONG: usize = 200_000;
/// How often, since an overtaking may need some luck.
fn rounds() -> u64 {
    tries(30)
}

fn order_is_what_was_asked_for(info: &Info, _seed: u64) -> Result {
    check_eq!(info.order, Order::NONE);
    for order in [
        Order::RAW,
        Order::SAS,
        Order::WAW | Order::SAW,
        Order::STRICT,
    ] {
        let hints = Hints {
            order,
            endpoint_type: Some(info.endpoint_type),
            ..domain_of(info)
        };
        match getinfo(&hints) {
            Ok(found) => {
                for found in &found {
                    check_eq!(found.order, order);
                    Rig::new(found)?.close()?;
                }
            }
            Err(error) => check_eq!(error, ENODATA),
        }
    }
    Ok(())
}

impl Rig {
    /// Posts a write of A and does not wait.
    fn begin(&self, len: usize, seed: u64, slice: RemoteSlice, options: Options) -> Result {
        let bytes = pattern(len, seed)?;
        self.a.ep.write(bytes, self.to_b, slice, options, seed)?;
        Ok(())
    }

    /// Waits for so many completions of A, all good.
    fn all_well(&self, count: usize) -> Result {
        for _ in 0..count {
            check_eq!(error(&self.a.next()?), None);
        }
        Ok(())
    }
}

fn write_after_write_wins(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(LONG, Access::READ_WRITE)?;
    for n in 0..rounds() {
        let none = Options::default();
        for (len, by) in [(LONG, 0), (500, 1), (LONG, 2), (70, 3)] {
            rig.begin(len, seed + 4 * n + by, remote.slice(0, len as u64)?, none)?;
        }
        rig.all_well(4)?;
        check_region(&region, 0, 70, seed + 4 * n + 3)?;
        let rest = &mut [0; 1];
        region.read_at(70, rest)?;
        check_eq!(rest[0], crate::rig::byte(70, seed + 4 * n + 2));
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn write_after_a_commit_wins(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let device = pmem()?;
    let (region, remote) = rig.persistent(&device, 0, 4096)?;
    let slice = remote.slice(0, 100)?;
    for n in 0..rounds() {
        rig.begin(100, seed + 2 * n, slice, level(Level::Committed))?;
        rig.begin(100, seed + 2 * n + 1, slice, Options::default())?;
        rig.all_well(2)?;
        check_region(&region, 0, 100, seed + 2 * n + 1)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn read_after_write_sees_it(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(LONG, Access::READ_WRITE)?;
    let none = Options::default();
    for n in 0..rounds() {
        rig.begin(LONG, seed + n, remote.slice(0, LONG as u64)?, none)?;
        let slice = remote.slice(0, 100)?;
        rig.a
            .ep
            .read(Memory::zeroed(100)?, rig.to_b, slice, none, 1)?;
        for _ in 0..2 {
            let done = rig.a.next()?;
            check_eq!(error(&done), None);
            if done.kind == Kind::Read {
                check_buffer(done.buffer, 100, seed + n)?;
            }
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn read_before_a_write_does_not_see_it(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(LONG, Access::READ_WRITE)?;
    let (none, all) = (Options::default(), remote.slice(0, LONG as u64)?);
    for n in 0..rounds() {
        rig.begin(LONG, seed + 2 * n, all, none)?;
        rig.all_well(1)?;
        rig.a
            .ep
            .read(Memory::zeroed(LONG)?, rig.to_b, all, none, 1)?;
        rig.begin(
            100,
            seed + 2 * n + 1,
            remote.slice(LONG as u64 - 100, 100)?,
            none,
        )?;
        for _ in 0..2 {
            let done = rig.a.next()?;
            check_eq!(error(&done), None);
            if done.kind == Kind::Read {
                check_buffer(done.buffer, LONG, seed + 2 * n)?;
            }
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn messages_arrive_in_the_order_of_their_posts(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let lens = [LONG, 10, 0, 20_000, 1];
    for n in 0..rounds() {
        // Half of the receives are there before, and half come after.
        for (at, len) in lens.iter().enumerate() {
            if at % 2 == 0 {
                rig.b.recv(Memory::zeroed(LONG)?, at as u64)?;
            }
            let bytes = pattern(*len, seed + n)?;
            let told = crate::ops::data(at as u64);
            rig.a.ep.send(bytes, rig.to_b, told, at as u64)?;
        }
        for at in [1, 3] {
            rig.b.recv(Memory::zeroed(LONG)?, at)?;
        }
        // The receives were posted as 0, 2, 4, 1, 3, and meet the messages in that order.
        for _ in 0..lens.len() {
            let done = rig.b.next()?;
            let met = [0, 2, 4, 1, 3]
                .iter()
                .position(|context| *context == done.context);
            let told = done.result.map(|success| success.data);
            check_eq!(told, Ok(met.map(|at| at as u64)));
        }
        rig.all_well(lens.len())?;
    }
    rig.close()
}

fn message_after_a_write_finds_its_bytes(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(LONG, Access::READ_WRITE)?;
    let none = Options::default();
    for n in 0..rounds() {
        rig.b.recv(Buffer::empty(), 1)?;
        rig.begin(LONG, seed + n, remote.slice(0, LONG as u64)?, none)?;
        rig.a.ep.send(Buffer::empty(), rig.to_b, none, 2)?;
        check_eq!(ended(&rig.b.next()?), (Kind::Recv, 1, Ok(0)));
        check_region(&region, 0, LONG, seed + n)?;
        rig.all_well(2)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn atomic_after_a_write_finds_its_bytes(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(LONG, Access::ALL)?;
    let none = Options::default();
    let swap = AtomicAction::fetch(AtomicOp::Write, Datatype::U8);
    for n in 0..rounds() {
        rig.begin(LONG, seed + n, remote.slice(0, LONG as u64)?, none)?;
        let last = LONG - 1;
        let word = remote.slice(last as u64, 1)?;
        rig.a
            .ep
            .atomic(Memory::zeroed(2)?, rig.to_b, word, swap, none, 1)?;
        for _ in 0..2 {
            let done = rig.a.next()?;
            check_eq!(error(&done), None);
            if done.kind == Kind::Atomic {
                let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
                let fetched = memory.as_slice().map(|bytes| bytes[1]);
                check_eq!(fetched, Some(crate::rig::byte(last, seed + n)));
            }
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// A vector as long as may be is added to, and one of one word, in turns: each fetches of the first word how
/// many were before it.
fn atomics_are_done_in_the_order_of_their_posts(info: &Info, _seed: u64) -> Result {
    let (rig, most) = (Rig::new(info)?, info.limits.max_atomic_size);
    let (region, remote) = rig.region(most, Access::ATOMIC)?;
    let sum = AtomicAction::fetch(AtomicOp::Sum, Datatype::U64);
    let (mut turn, mut times) = (0, [0; DEPTH]);
    for n in 0..tries(3) {
        for context in 0..DEPTH as u64 {
            let len = if (n + context) % 2 == 0 { most } else { 8 };
            let mut local = Memory::zeroed(2 * len)?;
            local.write_at(0, &1_u64.to_le_bytes())?;
            let slice = remote.slice(0, len as u64)?;
            rig.a
                .ep
                .atomic(local, rig.to_b, slice, sum, Options::NONE, context)?;
        }
        for _ in 0..DEPTH {
            let done = rig.a.next()?;
            check_eq!(error(&done), None);
            let place = times.get_mut(done.context as usize).ok_or(EINVAL)?;
            *place += 1;
            check_eq!(*place, n + 1);
            let before = turn + done.context;
            let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
            let mut fetched = [0; 8];
            memory.read_at(memory.len() / 2, &mut fetched)?;
            check_eq!(u64::from_le_bytes(fetched), before);
        }
        turn += DEPTH as u64;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// The words of an atomic that is as long as may be, and what is done to the last of them afterwards.
fn after_an_atomic(
    info: &Info,
    then: impl Fn(&Rig, RemoteSlice, u64) -> Result,
    check: impl Fn(Completion<u64>, &Region, u64) -> Result,
) -> Result {
    let (rig, most) = (Rig::new(info)?, info.limits.max_atomic_size);
    let (region, remote) = rig.region(most, Access::ALL)?;
    let put = AtomicAction::update(AtomicOp::Write, Datatype::U64);
    let last = most as u64 - 8;
    for n in 1..=rounds() {
        let mut operands = Memory::zeroed(most)?;
        operands.write_at(last as usize, &n.to_le_bytes())?;
        let slice = remote.slice(0, most as u64)?;
        rig.a
            .ep
            .atomic(operands, rig.to_b, slice, put, Options::NONE, 1)?;
        then(&rig, remote.slice(last, 8)?, n)?;
        let (one, other) = (rig.a.next()?, rig.a.next()?);
        check_eq!((error(&one), error(&other)), (None, None));
        let done = if one.context == 2 { one } else { other };
        check_eq!(done.context, 2);
        check(done, &region, n)?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn write_after_an_atomic_wins(info: &Info, seed: u64) -> Result {
    after_an_atomic(
        info,
        |rig, slice, n| {
            let bytes = pattern(8, seed + n)?;
            rig.a.ep.write(bytes, rig.to_b, slice, Options::NONE, 2)?;
            Ok(())
        },
        |_, region, n| check_region(region, region.len() - 8, 8, seed + n),
    )
}

fn read_after_an_atomic_sees_it(info: &Info, _seed: u64) -> Result {
    after_an_atomic(
        info,
        |rig, slice, _| {
            let room = Memory::zeroed(8)?;
            rig.a.ep.read(room, rig.to_b, slice, Options::NONE, 2)?;
            Ok(())
        },
        |done, _, n| {
            let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
            let expected = n.to_le_bytes();
            check_eq!(memory.as_slice(), Some(&expected[..]));
            Ok(())
        },
    )
}

/// Posts one, and another of the same tag, and fails unless each consumes the receive of its turn.
fn keep_their_order(info: &Info, seed: u64, kinds: [Kind; 2]) -> Result {
    let rig = Rig::new(info)?;
    let none = Options::default();
    for n in 0..rounds() {
        // The one that is short would be done before the other.
        let lens = [[LONG, 10], [10, LONG], [20_000, 10]][n as usize % 3];
        for context in [1, 2] {
            let (memory, from) = (pattern(LONG, seed)?, Address::UNSPECIFIED);
            rig.b
                .trecv_rma(memory, from, (TAG, 0), Access::READ_WRITE, context)?;
        }
        for (kind, len) in kinds.into_iter().zip(lens) {
            let (ep, memory) = (&rig.a.ep, pattern(len, seed)?);
            match kind {
                Kind::Send => ep.tsend(memory, rig.to_b, TAG, none, 3)?,
                Kind::Write => ep.twrite(memory, rig.to_b, TAG, none, 3)?,
                _ => ep.tread(memory, rig.to_b, TAG, none, 3)?,
            };
        }
        let met = rig.b.gather(2)?;
        for ((context, done), (kind, len)) in (1..).zip(&met).zip(kinds.into_iter().zip(lens)) {
            let there = match kind {
                Kind::Send => Kind::Recv,
                Kind::Write => Kind::RemoteWrite,
                _ => Kind::RemoteRead,
            };
            check_eq!(ended(done), (there, context, Ok(len)));
        }
        rig.all_well(2)?;
    }
    rig.quiet()?;
    rig.close()
}

fn read_after_a_read_takes_the_next_receive(info: &Info, seed: u64) -> Result {
    keep_their_order(info, seed, [Kind::Read, Kind::Read])
}

fn read_after_a_message_takes_the_next_receive(info: &Info, seed: u64) -> Result {
    keep_their_order(info, seed, [Kind::Send, Kind::Read])
}

fn write_after_a_message_takes_the_next_receive(info: &Info, seed: u64) -> Result {
    keep_their_order(info, seed, [Kind::Send, Kind::Write])
}

fn message_after_a_read_takes_the_next_receive(info: &Info, seed: u64) -> Result {
    keep_their_order(info, seed, [Kind::Read, Kind::Send])
}

fn strict_order_keeps_everything(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(LONG, Access::READ_WRITE)?;
    let (none, all) = (Options::default(), remote.slice(0, LONG as u64)?);
    for n in 0..rounds() {
        rig.begin(LONG, seed + 2 * n, all, none)?;
        rig.a
            .ep
            .read(Memory::zeroed(LONG)?, rig.to_b, all, none, 1)?;
        rig.begin(50, seed + 2 * n + 1, remote.slice(0, 50)?, none)?;
        rig.a.ep.send(Buffer::empty(), rig.to_b, none, 2)?;
        rig.b.recv(Buffer::empty(), 3)?;
        drop(rig.b.next()?);
        check_region(&region, 0, 50, seed + 2 * n + 1)?;
        for _ in 0..4 {
            let done = rig.a.next()?;
            check_eq!(error(&done), None);
            if done.kind == Kind::Read {
                check_buffer(done.buffer, LONG, seed + 2 * n)?;
            }
        }
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}
