// SPDX-License-Identifier: GPL-2.0

//! Posts that say that another follows at once, which it may or may not.

use crate::close::closed;
use crate::ops::check_refused;
use crate::rig::{cancel, check_buffer, check_region, ended, pattern, timeout, Rig, DEPTH};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    post_that_nothing_follows_completes [connected]: Caps::MSG.union(Caps::RMA),
    post_that_a_refused_one_follows_completes [connected]: Caps::MSG.union(Caps::RMA),
    posts_that_follow_each_other_arrive_in_order [connected]: Caps::MSG => Order::SAS,
    post_that_says_more_is_cancelled [connected]: Caps::MSG,
    posts_that_say_more_end_with_either_endpoint [connected]: Caps::MSG,
}

const MORE: Options = Options {
    more: true,
    ..Options::NONE
};

/// Posts the n-th kind of operation of A, of 8 bytes; `slice` is of B's region.
fn post(rig: &Rig, n: usize, slice: RemoteSlice, seed: u64) -> Result<Kind> {
    let (ep, to) = (&rig.a.ep, rig.to_b);
    let memory = pattern(8, seed)?;
    let bytes = memory.as_slice().ok_or(EINVAL)?;
    let (posted, kind) = match n {
        0 => (ep.inject(bytes, to, MORE, 1), Kind::Send),
        1 => (ep.inject_write(bytes, to, slice, MORE, 1), Kind::Write),
        2 => (ep.send(memory, to, MORE, 1), Kind::Send),
        3 => (ep.write(memory, to, slice, MORE, 1), Kind::Write),
        _ => (ep.read(Memory::zeroed(8)?, to, slice, MORE, 1), Kind::Read),
    };
    posted?;
    Ok(kind)
}

/// How many kinds of operations [`post`] knows.
const KINDS: usize = 5;

/// Posts one of each kind, has `then` do something, and fails unless it completes.
fn each_completes(info: &Info, seed: u64, then: impl Fn(&Rig) -> Result) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(8, Access::READ_WRITE)?;
    let slice = remote.slice(0, 8)?;
    for n in 0..KINDS {
        // A read brings what the write before it has left.
        let seed = seed + (n as u64).min(3);
        rig.b.recv(Memory::zeroed(8)?, 9)?;
        let kind = post(&rig, n, slice, seed)?;
        then(&rig)?;
        let done = rig.a.next_unaided()?;
        check_eq!(ended(&done), (kind, 1, Ok(8)));
        match kind {
            Kind::Send => {
                let received = rig.b.next()?;
                check_eq!(ended(&received), (Kind::Recv, 9, Ok(8)));
                check_buffer(received.buffer, 8, seed)?;
                continue;
            }
            Kind::Write => check_region(&region, 0, 8, seed)?,
            _ => check_buffer(done.buffer, 8, seed)?,
        }
        // The receive is for another.
        rig.a.ep.inject(&[], rig.to_b, Options::NONE, 2)?;
        check_eq!(ended(&rig.a.next()?), (Kind::Send, 2, Ok(0)));
        check_eq!(ended(&rig.b.next()?), (Kind::Recv, 9, Ok(0)));
        rig.quiet()?;
    }
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn post_that_nothing_follows_completes(info: &Info, seed: u64) -> Result {
    each_completes(info, seed, |_| Ok(()))
}

fn post_that_a_refused_one_follows_completes(info: &Info, seed: u64) -> Result {
    let bytes = KVVec::from_elem(0, info.limits.inject_size + 1, GFP_KERNEL)?;
    each_completes(info, seed, |rig| {
        let refused = rig.a.ep.inject(&bytes, rig.to_b, Options::NONE, 3);
        check_eq!(check_refused(refused, EMSGSIZE, 3)?.len(), 0);
        Ok(())
    })
}

fn posts_that_follow_each_other_arrive_in_order(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for n in 0..DEPTH {
        rig.b.recv(Memory::zeroed(n)?, n as u64)?;
    }
    for n in 0..DEPTH {
        let options = Options {
            more: n + 1 < DEPTH,
            ..Options::NONE
        };
        let bytes = pattern(n, seed + n as u64)?;
        rig.a.ep.send(bytes, rig.to_b, options, n as u64)?;
    }
    for (n, done) in rig.b.gather(DEPTH)?.into_iter().enumerate() {
        check_eq!(ended(&done), (Kind::Recv, n as u64, Ok(n)));
        check_buffer(done.buffer, n, seed + n as u64)?;
    }
    for (n, done) in rig.a.gather(DEPTH)?.iter().enumerate() {
        check_eq!(ended(done), (Kind::Send, n as u64, Ok(n)));
    }
    rig.close()
}

fn post_that_says_more_is_cancelled(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for n in 0..20 {
        // Nobody receives it, and whether it has left by then or not, nothing else ends it.
        let id = rig.a.ep.send(pattern(8, seed)?, rig.to_b, MORE, n)?;
        cancel(&rig.a.ep, id)?;
        let done = rig.a.next()?;
        check_eq!(ended(&done), (Kind::Send, n, Err(ECANCELED)));
        check_buffer(done.buffer, 8, seed)?;
    }
    rig.quiet()?;
    rig.close()
}

fn posts_that_say_more_end_with_either_endpoint(info: &Info, seed: u64) -> Result {
    for of_a in [true, false] {
        let rig = Rig::new(info)?;
        for n in 0..DEPTH as u64 {
            rig.a.ep.send(pattern(8, seed)?, rig.to_b, MORE, n)?;
        }
        let ended = |done: Completion<u64>| {
            check!(done.kind == Kind::Send && done.result.is_err());
            check_buffer(done.buffer, 8, seed)
        };
        rig.ends_with_an_endpoint(of_a, DEPTH, ended, || Ok(()))?;
    }
    Ok(())
}
