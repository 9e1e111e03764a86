// SPDX-License-Identifier: GPL-2.0

//! Which operations are counted, and by whom.

use super::side::{both, Side};
use crate::close::closed;
use crate::ops::{data, error, pmem};
use crate::rig::{timeout, Rig};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    each_kind_is_counted_by_its_counter: ALL,
    atomics_count_by_whether_they_fetch: Caps::ATOMIC,
    data_of_a_write_is_no_message: Caps::REMOTE_CQ_DATA,
    tagged_access_is_no_message: Caps::TAGGED.union(Caps::RMA),
    accesses_of_peers_are_counted_at_their_target: Caps::RMA.union(Caps::ATOMIC),
    access_that_is_refused_counts_at_its_initiator_only: Caps::RMA,
}

const ALL: Caps = Caps::MSG.union(Caps::RMA).union(Caps::COMMIT);

/// An atomic, the length of its local buffer, and whether it brings what was there.
const ATOMICS: [(AtomicAction, usize, bool); 3] = [
    (AtomicAction::update(AtomicOp::Sum, Datatype::U64), 8, false),
    (AtomicAction::fetch(AtomicOp::Sum, Datatype::U64), 16, true),
    (AtomicAction::compare(Datatype::U64), 24, true),
];

fn each_kind_is_counted_by_its_counter(info: &Info, _seed: u64) -> Result {
    let (rig, device) = (Rig::new(info)?, pmem()?);
    let (region, remote) = rig.persistent(&device, 0, 1000)?;
    let (slice, myself) = (remote.slice(0, 1000)?, rig.to_b);
    let mut cntrs = KVec::new();
    for _ in 0..5 {
        cntrs.push(Counter::new(&rig.a.domain, None)?, GFP_KERNEL)?;
    }
    let [send, recv, read, write, commit] = &cntrs[..] else {
        return Err(EINVAL);
    };
    let side = Side::new(
        &rig.a,
        info,
        &[
            (Counts::SEND, send),
            (Counts::RECV, recv),
            (Counts::READ, read),
            (Counts::WRITE, write),
            (Counts::COMMIT, commit),
        ],
    )?;
    let counted = || cntrs.iter().map(both);
    side.send(&rig, 10)?;
    check!(counted().eq([(1, 0), (0, 0), (0, 0), (0, 0), (0, 0)]));
    for _ in 0..2 {
        side.recv(&rig, 10)?;
    }
    check!(counted().eq([(1, 0), (2, 0), (0, 0), (0, 0), (0, 0)]));
    for _ in 0..3 {
        let room = Memory::zeroed(1000)?;
        side.ep.read(room, myself, slice, Options::default(), 1)?;
        side.ends(Kind::Read, None)?;
    }
    check!(counted().eq([(1, 0), (2, 0), (3, 0), (0, 0), (0, 0)]));
    // A write is a write at each level.
    for level in [Level::Transmit, Level::Delivered, Level::Committed] {
        side.write(&rig, slice, crate::ops::level(level))?;
    }
    check!(counted().eq([(1, 0), (2, 0), (3, 0), (3, 0), (0, 0)]));
    side.ep.commit(myself, slice, Options::default(), 1)?;
    side.ends(Kind::Commit, None)?;
    check!(counted().eq([(1, 0), (2, 0), (3, 0), (3, 0), (1, 0)]));
    side.close()?;
    for cntr in cntrs {
        closed(cntr.close())?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn atomics_count_by_whether_they_fetch(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::ALL)?;
    let (read, write) = (
        Counter::new(&rig.a.domain, None)?,
        Counter::new(&rig.a.domain, None)?,
    );
    let counters = [(Counts::READ, &read), (Counts::WRITE, &write)];
    let side = Side::new(&rig.a, info, &counters)?;
    let slice = remote.slice(0, 8)?;
    for (action, len, fetches) in ATOMICS {
        let before = (read.value(), write.value());
        let (zeros, options) = (Memory::zeroed(len)?, Options::default());
        side.ep.atomic(zeros, rig.to_b, slice, action, options, 1)?;
        side.ends(Kind::Atomic, None)?;
        let expected = match fetches {
            true => (before.0 + 1, before.1),
            false => (before.0, before.1 + 1),
        };
        check_eq!((read.value(), write.value()), expected);
    }
    side.close()?;
    drop(closed(region.close_wait(timeout()))?);
    closed(read.close())?;
    closed(write.close())?;
    rig.close()
}

fn data_of_a_write_is_no_message(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::WRITE)?;
    let (recv, write) = (
        Counter::new(&rig.b.here()?.domain, None)?,
        Counter::new(&rig.b.here()?.domain, None)?,
    );
    let counters = [(Counts::RECV, &recv), (Counts::REMOTE_WRITE, &write)];
    let side = Side::new(rig.b.here()?, info, &counters)?;
    let to = rig.a.av.insert(&side.ep.name())?;
    side.ep.recv(Buffer::empty(), 1)?;
    let zeros = Memory::zeroed(100)?;
    rig.a
        .ep
        .write(zeros, to, remote.slice(0, 100)?, data(7), 2)?;
    side.ends(Kind::RemoteWrite, None)?;
    check_eq!(error(&rig.a.next()?), None);
    check_eq!((both(&recv), both(&write)), ((0, 0), (1, 0)));
    // Those of a message are.
    side.ep.recv(Buffer::empty(), 1)?;
    rig.a.ep.send(Buffer::empty(), to, data(7), 2)?;
    side.ends(Kind::Recv, None)?;
    check_eq!(error(&rig.a.next()?), None);
    check_eq!((both(&recv), both(&write)), ((1, 0), (1, 0)));
    side.close()?;
    drop(closed(region.close_wait(timeout()))?);
    closed(recv.close())?;
    closed(write.close())?;
    rig.close()
}

fn tagged_access_is_no_message(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let mut cntrs = KVec::new();
    let (at_a, at_b) = (&rig.a.domain, &rig.b.here()?.domain);
    for domain in [at_a, at_a, at_b, at_b, at_b] {
        cntrs.push(Counter::new(domain, None)?, GFP_KERNEL)?;
    }
    let [write, read, recv, remote_write, remote_read] = &cntrs[..] else {
        return Err(EINVAL);
    };
    let a = Side::new(
        &rig.a,
        info,
        &[(Counts::WRITE, write), (Counts::READ, read)],
    )?;
    let b = Side::new(
        rig.b.here()?,
        info,
        &[
            (Counts::RECV, recv),
            (Counts::REMOTE_WRITE, remote_write),
            (Counts::REMOTE_READ, remote_read),
        ],
    )?;
    let to = rig.a.av.insert(&b.ep.name())?;
    let (options, from) = (Options::default(), Address::UNSPECIFIED);
    let expect = |values: [u64; 5]| cntrs.iter().map(both).eq(values.map(|value| (value, 0)));
    for n in 1..4 {
        for (tag, access) in [(5, Access::WRITE), (6, Access::READ)] {
            let zeros = Memory::zeroed(10)?;
            b.ep.trecv_rma(zeros, from, (tag, 0), access, 1)?;
        }
        a.ep.twrite(Memory::zeroed(10)?, to, 5, options, 2)?;
        a.ends(Kind::Write, None)?;
        b.ends(Kind::RemoteWrite, None)?;
        check!(expect([n, n - 1, 0, n, n - 1]));
        a.ep.tread(Memory::zeroed(10)?, to, 6, options, 2)?;
        a.ends(Kind::Read, None)?;
        b.ends(Kind::RemoteRead, None)?;
        check!(expect([n, n, 0, n, n]));
    }
    a.close()?;
    b.close()?;
    for cntr in cntrs {
        closed(cntr.close())?;
    }
    rig.close()
}

fn accesses_of_peers_are_counted_at_their_target(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(50_000, Access::ALL)?;
    let (read, write) = (
        Counter::new(&rig.b.here()?.domain, None)?,
        Counter::new(&rig.b.here()?.domain, None)?,
    );
    let counters = [(Counts::REMOTE_READ, &read), (Counts::REMOTE_WRITE, &write)];
    let side = Side::new(rig.b.here()?, info, &counters)?;
    let to = rig.a.av.insert(&side.ep.name())?;
    let (ep, options) = (&rig.a.ep, Options::default());
    let ends = || -> Result {
        check_eq!(error(&rig.a.next()?), None);
        Ok(())
    };
    for len in [0, 8, 50_000] {
        let slice = remote.slice(0, len)?;
        ep.write(Memory::zeroed(len as usize)?, to, slice, options, 1)?;
        ends()?;
        for _ in 0..2 {
            ep.read(Memory::zeroed(len as usize)?, to, slice, options, 1)?;
            ends()?;
        }
    }
    check_eq!((both(&read), both(&write)), ((6, 0), (3, 0)));
    let slice = remote.slice(0, 8)?;
    for (action, len, _) in ATOMICS {
        ep.atomic(Memory::zeroed(len)?, to, slice, action, options, 1)?;
        ends()?;
    }
    check_eq!((both(&read), both(&write)), ((8, 0), (4, 0)));
    // Not those through another endpoint, nor one's own.
    ep.write(Memory::zeroed(8)?, rig.to_b, slice, options, 1)?;
    ends()?;
    let to_b = rig.b.insert(&rig.b.name())?;
    side.ep.write(Memory::zeroed(8)?, to_b, slice, options, 1)?;
    side.ends(Kind::Write, None)?;
    check_eq!((both(&read), both(&write)), ((8, 0), (4, 0)));
    side.close()?;
    drop(closed(region.close_wait(timeout()))?);
    closed(read.close())?;
    closed(write.close())?;
    rig.close()
}

fn access_that_is_refused_counts_at_its_initiator_only(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    let (tried, suffered) = (
        Counter::new(&rig.a.domain, None)?,
        Counter::new(&rig.b.here()?.domain, None)?,
    );
    let initiator = Side::new(&rig.a, info, &[(Counts::READ | Counts::WRITE, &tried)])?;
    let kinds = Counts::REMOTE_READ | Counts::REMOTE_WRITE;
    let target = Side::new(rig.b.here()?, info, &[(kinds, &suffered)])?;
    let to = rig.a.av.insert(&target.ep.name())?;
    drop(closed(region.close_wait(timeout()))?);
    let (slice, options) = (remote.slice(0, 100)?, Options::default());
    let zeros = || Memory::zeroed(100);
    initiator.ep.write(zeros()?, to, slice, options, 1)?;
    initiator.ends(Kind::Write, Some(EKEYREJECTED))?;
    initiator.ep.read(zeros()?, to, slice, options, 1)?;
    initiator.ends(Kind::Read, Some(EKEYREJECTED))?;
    check_eq!((both(&tried), both(&suffered)), ((0, 2), (0, 0)));
    initiator.close()?;
    target.close()?;
    closed(tried.close())?;
    closed(suffered.close())?;
    rig.close()
}
