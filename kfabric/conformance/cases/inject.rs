// SPDX-License-Identifier: GPL-2.0

//! Bytes that a post takes a copy of.

use crate::close::closed;
use crate::ops::{check_buffer_filled, check_filled_at, check_refused, fill};
use crate::rig::{
    check_buffer, check_region, count, ended, pattern, timeout, until, with_sizes, Counted, Rig,
    DEPTH,
};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::Acquire;
use kfabric::prelude::*;

cases! {
    injected_bytes_arrive_up_to_the_limit [connected]: Caps::MSG.union(Caps::RMA),
    injection_is_no_longer_than_a_message: Caps::MSG.union(Caps::WRITE),
    injected_bytes_may_be_overwritten_at_once [connected]: Caps::MSG.union(Caps::WRITE) => Order::SAS,
    injected_bytes_need_no_completion [connected]: Caps::MSG.union(Caps::WRITE),
    injection_without_a_slot_is_refused: Caps::MSG => Order::SAS,
    refused_injection_has_no_effect [connected]: Caps::MSG.union(Caps::RMA),
    injections_end_with_either_endpoint [connected]: Caps::MSG.union(Caps::WRITE).union(Caps::REMOTE_CQ_DATA),
}

fn injected_bytes_arrive_up_to_the_limit(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let most = info.limits.inject_size;
    let (region, remote) = rig.region(most + 2, Access::READ_WRITE)?;
    let all = pattern(most + 1, seed)?;
    let all = all.as_slice().ok_or(EINVAL)?;
    for len in [0, 1, most, most + 1] {
        let (bytes, slice) = (&all[..len], remote.slice(1, len as u64)?);
        fill(&region, 0xa5)?;
        let posted = rig
            .a
            .ep
            .inject_write(bytes, rig.to_b, slice, Options::NONE, 1);
        if len > most {
            check_eq!(check_refused(posted, EMSGSIZE, 1)?.len(), 0);
            let posted = rig.a.ep.inject(bytes, rig.to_b, Options::NONE, 2);
            check_eq!(check_refused(posted, EMSGSIZE, 2)?.len(), 0);
            continue;
        }
        posted?;
        let written = rig.a.next()?;
        check_eq!(ended(&written), (Kind::Write, 1, Ok(len)));
        // Nothing comes back, for nothing was taken.
        check!(written.buffer.is_empty() && written.buffer.into_memory().is_err());
        check_filled_at(&region, 0, 1, 0xa5)?;
        check_region(&region, 1, len, seed)?;
        check_filled_at(&region, 1 + len, 1, 0xa5)?;
        rig.b.recv(Memory::zeroed(len + 3)?, 3)?;
        rig.a.ep.inject(bytes, rig.to_b, Options::NONE, 2)?;
        let received = rig.b.next()?;
        check_eq!(ended(&received), (Kind::Recv, 3, Ok(len)));
        check_buffer(received.buffer, len, seed)?;
        check_eq!(ended(&rig.a.next()?), (Kind::Send, 2, Ok(len)));
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn injection_is_no_longer_than_a_message(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let most = info.limits.inject_size / 2;
    let (region, remote) = rig.region(most + 1, Access::READ_WRITE)?;
    let cq = CompletionQueue::<u64>::new(&rig.a.domain, 4, None)?;
    let mut short = with_sizes(info, 2, 2);
    short.limits.max_msg_size = most;
    let ep = rig.a.endpoint(&short, &cq)?;
    let all = pattern(most + 1, seed)?;
    let all = all.as_slice().ok_or(EINVAL)?;
    for len in [most, most + 1] {
        let (bytes, slice) = (&all[..len], remote.slice(0, len as u64)?);
        let written = ep.inject_write(bytes, rig.to_b, slice, Options::NONE, 1);
        if len > most {
            check_eq!(check_refused(written, EMSGSIZE, 1)?.len(), 0);
            let sent = ep.inject(bytes, rig.to_b, Options::NONE, 2);
            check_eq!(check_refused(sent, EMSGSIZE, 2)?.len(), 0);
            continue;
        }
        written?;
        check_eq!(ended(&cq.read_wait(timeout())?), (Kind::Write, 1, Ok(len)));
        check_region(&region, 0, len, seed)?;
        rig.b.recv(Memory::zeroed(len)?, 3)?;
        ep.inject(bytes, rig.to_b, Options::NONE, 2)?;
        check_eq!(ended(&cq.read_wait(timeout())?), (Kind::Send, 2, Ok(len)));
        check_buffer(rig.b.next()?.buffer, len, seed)?;
    }
    closed(ep.close())?;
    closed(cq.close())?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn injected_bytes_may_be_overwritten_at_once(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(32 * 8, Access::READ_WRITE)?;
    let mut bytes = [0; 8];
    // Messages wait in their slots, each with bytes of its own.
    for n in 0..32u8 {
        bytes.fill(n);
        rig.a.ep.inject(&bytes, rig.to_b, Options::NONE, n.into())?;
        let slice = remote.slice(u64::from(n) * 8, 8)?;
        rig.a
            .ep
            .inject_write(&bytes, rig.to_b, slice, Options::NONE, 99)?;
        bytes.fill(0xff);
        check_eq!(ended(&rig.a.next()?), (Kind::Write, 99, Ok(8)));
    }
    for n in 0..32u8 {
        check_filled_at(&region, usize::from(n) * 8, 8, n)?;
        rig.b.recv(Memory::zeroed(8)?, 1)?;
        let received = rig.b.next()?;
        check_eq!(ended(&received), (Kind::Recv, 1, Ok(8)));
        check_buffer_filled(received.buffer, n)?;
        check_eq!(ended(&rig.a.next()?), (Kind::Send, n.into(), Ok(8)));
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn injected_bytes_need_no_completion(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::READ_WRITE)?;
    let silent = Options {
        silent: true,
        ..Options::NONE
    };
    let slice = remote.slice(0, 8)?;
    for n in 0..200u64 {
        let bytes = n.to_ne_bytes();
        // Nobody reads the queue of A.
        until(|| {
            let posted = rig.a.ep.inject_write(&bytes, rig.to_b, slice, silent, n);
            posted.is_ok()
        })?;
        until(|| region.load_u64(0) == Ok(n))?;
        rig.b.recv(Memory::zeroed(8)?, n)?;
        rig.a.ep.inject(&bytes, rig.to_b, silent, n)?;
        let received = rig.b.next()?;
        check_eq!(ended(&received), (Kind::Recv, n, Ok(8)));
        let memory = received.buffer.into_memory().map_err(|_| EINVAL)?;
        check!(memory.as_slice() == Some(&bytes));
    }
    rig.quiet()?;
    // The last ones may be about to end: the close waits for them.
    let (ep, base) = rig.a.split();
    closed(ep.close())?;
    drop(closed(region.close_wait(timeout()))?);
    base.close()?;
    rig.b.close()
}

fn injection_without_a_slot_is_refused(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let contexts = count()?;
    let cq = CompletionQueue::<Counted>::new(&rig.a.domain, 5, None)?;
    let ep = rig.a.endpoint(&with_sizes(info, 4, 1), &cq)?;
    for n in 0..4u8 {
        let posted = ep.inject(&[n; 5], rig.to_b, Options::NONE, Counted::new(&contexts));
        posted.map_err(|refused| refused.error)?;
    }
    let Err(refused) = ep.inject(&[9; 5], rig.to_b, Options::NONE, Counted::new(&contexts)) else {
        return Err(EINVAL);
    };
    check_eq!((refused.error, refused.buffer.len()), (EAGAIN, 0));
    check_eq!(contexts.load(Acquire), 5);
    drop(refused);
    check_eq!(contexts.load(Acquire), 4);
    // What was taken is whole, and a slot that comes back is good again.
    for n in [0, 1, 2, 3, 8u8] {
        if n == 8 {
            let posted = ep.inject(&[n; 3], rig.to_b, Options::NONE, Counted::new(&contexts));
            posted.map_err(|refused| refused.error)?;
        }
        let len = if n == 8 { 3 } else { 5 };
        rig.b.recv(Memory::zeroed(len)?, 1)?;
        let received = rig.b.next()?;
        check_eq!(ended(&received), (Kind::Recv, 1, Ok(len)));
        check_buffer_filled(received.buffer, n)?;
        let done = cq.read_wait(timeout())?;
        check_eq!(done.result.map(|success| success.len), Ok(len));
    }
    check_eq!(contexts.load(Acquire), 0);
    closed(ep.close())?;
    closed(cq.close())?;
    rig.close()
}

fn refused_injection_has_no_effect(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::READ)?;
    let (ep, bytes) = (&rig.a.ep, [1; 8]);
    let nobody = Address::from_raw(u64::MAX);
    let slice = remote.slice(0, 8)?;
    let committed = Options {
        level: Level::Committed,
        ..Options::NONE
    };
    for (posted, expected) in [
        (ep.inject(&bytes, nobody, Options::NONE, 1), EHOSTUNREACH),
        (ep.inject(&bytes, rig.to_b, committed, 1), EOPNOTSUPP),
        (
            ep.inject_write(&bytes, rig.to_b, slice, Options::NONE, 1),
            EACCES,
        ),
    ] {
        check_eq!(check_refused(posted, expected, 1)?.len(), 0);
    }
    drop(closed(region.close_wait(timeout()))?);
    let (region, remote) = rig.region(8, Access::READ_WRITE)?;
    let slice = remote.slice(0, 8)?;
    for (bytes, to, options, expected) in [
        (&bytes[..7], rig.to_b, Options::NONE, EINVAL),
        (&bytes, nobody, Options::NONE, EHOSTUNREACH),
        (&bytes, rig.to_b, committed, EOPNOTSUPP),
    ] {
        let posted = ep.inject_write(bytes, to, slice, options, 1);
        check_eq!(check_refused(posted, expected, 1)?.len(), 0);
    }
    check_filled_at(&region, 0, 8, 0)?;
    rig.quiet()?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// Messages for which there is no receive, writes, and writes whose data wait for one. Those that are silent fail, and
/// so they are told of, too.
fn injections_end_with_either_endpoint(info: &Info, seed: u64) -> Result {
    let len = info.limits.inject_size.min(8);
    let bytes = pattern(len, seed)?;
    let bytes = bytes.as_slice().ok_or(EINVAL)?;
    for of_a in [true, false] {
        let rig = Rig::new(info)?;
        let (region, remote) = rig.region(len, Access::WRITE)?;
        let slice = remote.slice(0, len as u64)?;
        for context in 0..DEPTH as u64 {
            let options = Options {
                silent: context % 4 == 0,
                data: (context % 4 == 1).then_some(context),
                ..Options::NONE
            };
            let (ep, to) = (&rig.a.ep, rig.to_b);
            match context % 2 {
                0 => ep.inject(bytes, to, options, context)?,
                _ => ep.inject_write(bytes, to, slice, options, context)?,
            };
        }
        let mut written = false;
        let ended = |done: Completion<u64>| {
            check!(done.buffer.is_empty());
            match done.context % 4 {
                3 => {
                    check_eq!(done.kind, Kind::Write);
                    written |= done.result.is_ok();
                }
                1 => check!(done.kind == Kind::Write && done.result.is_err()),
                _ => check!(done.kind == Kind::Send && done.result.is_err()),
            }
            Ok(())
        };
        let mut found = [0; 8];
        let look = || {
            region.read_at(0, &mut found[..len])?;
            closed(region.close_wait(timeout())).map(drop)
        };
        rig.ends_with_an_endpoint(of_a, DEPTH, ended, look)?;
        check!(!written || found[..len] == *bytes);
    }
    Ok(())
}
