// SPDX-License-Identifier: GPL-2.0

//! The end of a domain alone: what its consumer sees, and that others go on.
//!
//! The provider is there afterwards, so these run with all the other cases.

use crate::cases::cm::{self, Connected};
use crate::close::{closed, given_back};
use crate::crew::Crew;
use crate::ops::{check_refused, error};
use crate::rig::{
    check_buffer, check_region, ended, pattern, register, timeout, tries, until, End, Rig, DEPTH,
};
use crate::wishes::domain_of;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;
use kfabric::prelude::*;

cases! {
    ended_domain_completes_each_operation_once: Caps::MSG,
    peers_find_the_endpoints_of_an_ended_domain_closed: Caps::MSG,
    ended_domain_reads_and_writes_nothing_more: Caps::MSG.union(Caps::RMA),
    other_domains_go_on_when_one_ends: Caps::MSG,
    ended_domain_opens_nothing_and_a_new_one_does: Caps::MSG,
    domain_is_ended_once: Caps::MSG,
    domain_that_ends_under_load_loses_no_operation: Caps::MSG,
    domain_ends_while_others_open_and_close_in_it: Caps::MSG,
}

/// The same of connections.
pub(crate) mod connections {
    use super::{ended_domain_ends_its_connections, ended_domain_rejects_the_requests_that_wait};
    use crate::cases;
    use kfabric::prelude::*;

    cases! { EndpointType::Msg;
        ended_domain_ends_its_connections: Caps::MSG,
        ended_domain_rejects_the_requests_that_wait: Caps::MSG,
    }
}

/// Passes a message of `len` bytes, whose context is `n` on both sides.
#[track_caller]
fn passes(from: &End, to: Address, at: &End, n: u64) -> Result {
    at.ep.recv(Memory::zeroed(100)?, n)?;
    from.ep.send(pattern(100, n)?, to, Options::default(), n)?;
    let (sent, received) = (from.next()?, at.next()?);
    check_eq!(ended(&sent), (Kind::Send, n, Ok(100)));
    check_eq!(ended(&received), (Kind::Recv, n, Ok(100)));
    check_buffer(received.buffer, 100, n)
}

fn ended_domain_completes_each_operation_once(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    // Receives wait for messages, and messages for receives: of another domain, and of this one.
    let small = crate::rig::with_sizes(info, DEPTH, DEPTH);
    let cq = CompletionQueue::<u64>::new(&rig.a.domain, 2 * DEPTH, None)?;
    let beside = rig.a.endpoint(&small, &cq)?;
    let to_beside = rig.a.av.insert(&beside.name())?;
    let total = DEPTH as u64;
    for n in 0..total {
        let to = if n % 2 == 0 { rig.to_b } else { to_beside };
        let (memory, none) = (pattern(100, seed + n)?, Options::default());
        rig.a.ep.recv(pattern(100, seed + n)?, n)?;
        rig.a.ep.send(memory, to, none, total + n)?;
    }
    rig.a.domain.unplug()?;

    let mut times = [0; 2 * DEPTH];
    for _ in 0..2 * DEPTH {
        // They are in the queue when `unplug` returns.
        let done = rig.a.cq.read().ok_or(ENOENT)?;
        *times.get_mut(done.context as usize).ok_or(EINVAL)? += 1;
        check_eq!(error(&done), Some(ENODEV));
        check_eq!(done.kind == Kind::Recv, done.context < total);
        check_buffer(done.buffer, 100, seed + done.context % total)?;
    }
    check!(times.iter().all(|times| *times == 1));
    check!(rig.a.cq.read().is_none() && cq.read().is_none());
    // Nothing of it is left at the peer.
    rig.b.recv(pattern(100, seed)?, 1)?;
    check!(rig.b.poll()?.is_none());
    closed(beside.close())?;
    closed(cq.close())?;
    rig.close()
}

fn peers_find_the_endpoints_of_an_ended_domain_closed(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for n in 0..8 {
        let (memory, none) = (pattern(100, seed + n)?, Options::default());
        rig.b.send(memory, rig.to_a, none, n)?;
    }
    // So that they wait there, wherever that is.
    passes(&rig.a, rig.to_b, rig.b.here()?, 100)?;
    rig.a.domain.unplug()?;
    let mut seen = 0;
    for _ in 0..8 {
        let done = rig.b.next()?;
        seen |= 1 << done.context;
        check_eq!((done.kind, error(&done)), (Kind::Send, Some(EHOSTUNREACH)));
        check_buffer(done.buffer, 100, seed + done.context)?;
    }
    check_eq!(seen, 0xff);
    // And those that come later.
    for len in [0, 10, 50_000] {
        let (memory, none) = (pattern(len, seed)?, Options::default());
        rig.b.send(memory, rig.to_a, none, 9)?;
        let sent = rig.b.next()?;
        check_eq!(sent.result, Err(Failure::not_executed(EHOSTUNREACH)));
        check_buffer(sent.buffer, len, seed)?;
    }
    rig.quiet()?;
    rig.close()
}

fn ended_domain_reads_and_writes_nothing_more(info: &Info, seed: u64) -> Result {
    const LEN: usize = 1 << 20;
    const MANY: u64 = 8;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(LEN, Access::READ_WRITE)?;
    let slice = remote.slice(0, LEN as u64)?;
    for n in 0..MANY {
        let (bytes, none) = (pattern(LEN, seed)?, Options::default());
        match n % 2 {
            0 => rig.a.ep.write(bytes, rig.to_b, slice, none, n)?,
            _ => rig.a.ep.read(bytes, rig.to_b, slice, none, n)?,
        };
    }
    rig.a.domain.unplug()?;
    // They may be through before the end, or not.
    let mut seen = 0;
    for done in rig.a.gather(MANY as usize)?.iter() {
        seen |= 1 << done.context;
        check!(matches!(error(done), None | Some(ENODEV)));
    }
    check_eq!(seen, (1 << MANY) - 1);
    let posted = rig.a.ep.write(
        pattern(10, seed)?,
        rig.to_b,
        remote.slice(0, 10)?,
        Options::default(),
        1,
    );
    check_buffer(check_refused(posted, ENODEV, 1)?, 10, seed)?;
    let posted = rig.a.ep.read(
        pattern(10, seed)?,
        rig.to_b,
        remote.slice(0, 10)?,
        Options::default(),
        2,
    );
    check_buffer(check_refused(posted, ENODEV, 2)?, 10, seed)?;
    rig.quiet()?;
    // Nor is anything read or written in it, whoever has its keys.
    let own = given_back(
        rig.a.domain.register(pattern(64, seed)?, Access::READ),
        ENODEV,
    )?;
    check_eq!(own.len(), 64);
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn other_domains_go_on_when_one_ends(info: &Info, _seed: u64) -> Result {
    let (rig, others) = (Rig::new(info)?, Arc::new(Rig::new(info)?, GFP_KERNEL)?);
    let rounds = Arc::new(Atomic::<u64>::new(0), GFP_KERNEL)?;
    let stop = Arc::new(Atomic::<bool>::new(false), GFP_KERNEL)?;
    let (theirs, count, stops) = (others.clone(), rounds.clone(), stop.clone());
    let job = move |_: usize| -> Result {
        while !stops.load(Relaxed) {
            passes(&theirs.a, theirs.to_b, theirs.b.here()?, 1)?;
            count.add(1, Relaxed);
        }
        Ok(())
    };
    passes(&rig.a, rig.to_b, rig.b.here()?, 1)?;
    let crew = Crew::start(1, Arc::new(job, GFP_KERNEL)?)?;
    let begun = until(|| rounds.load(Relaxed) > 10);
    let unplugged = rig.a.domain.unplug();
    let before = rounds.load(Relaxed);
    let gone_on = until(|| rounds.load(Relaxed) > before + 10);
    stop.store(true, Relaxed);
    crew.join()?;
    begun?;
    unplugged?;
    gone_on?;
    // What was its peer is one of others.
    let to_b = others.a.av.insert(&rig.b.name())?;
    passes(&others.a, to_b, rig.b.here()?, 2)?;
    let to_others = rig.b.insert(&others.a.ep.name())?;
    passes(rig.b.here()?, to_others, &others.a, 3)?;
    rig.quiet()?;
    others.quiet()?;
    rig.close()
}

fn ended_domain_opens_nothing_and_a_new_one_does(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let region = register(&rig.a.domain, pattern(1000, seed)?, Access::NONE)?;
    let (a_name, b_name) = (rig.a.ep.name(), rig.b.name());
    let id = rig.a.ep.recv(Buffer::empty(), 1)?;
    rig.a.domain.unplug()?;
    check_eq!(error(&rig.a.cq.read().ok_or(ENOENT)?), Some(ENODEV));

    // Nothing is posted any more, and what was to be posted comes back.
    let (a, none) = (&rig.a, Options::default());
    let posted = a.ep.send(pattern(10, seed)?, rig.to_b, none, 2);
    check_buffer(check_refused(posted, ENODEV, 2)?, 10, seed)?;
    let posted = a.ep.recv(pattern(10, seed)?, 3);
    check_buffer(check_refused(posted, ENODEV, 3)?, 10, seed)?;
    check_eq!(a.ep.cancel(id).err(), Some(ENOENT));

    // Nothing is opened any more.
    let gone = Some(ENODEV);
    check_eq!(CompletionQueue::<u64>::new(&a.domain, 1, None).err(), gone);
    check_eq!(AddressVector::new(&a.domain).err(), gone);
    check_eq!(Counter::new(&a.domain, None).err(), gone);
    check_eq!(EventQueue::new(&a.domain, 1, None).err(), gone);
    check_eq!(a.endpoint(info, &a.cq).err(), gone);
    if info.caps.contains(Caps::SERVICE) {
        check_eq!(a.av.insert_service("lo", "4791").err(), gone);
    }
    let memory = given_back(a.domain.register(pattern(64, seed)?, Access::NONE), ENODEV)?;
    check_eq!(memory.len(), 64);

    // What was opened before can be asked and used up.
    check!(a.ep.name() == a_name && a.av.lookup(rig.to_b) == Some(b_name));
    check_region(&region, 0, 1000, seed)?;
    let memory = closed(region.close_wait(timeout()))?;
    check!(memory.as_slice() == pattern(1000, seed)?.as_slice());

    // Nothing is to be had of that very domain. The fabric, the provider and the name are there as before.
    let of_it = Hints {
        opened_domain: Some(&a.domain),
        ..Hints::default()
    };
    check_eq!(getinfo(&of_it).err(), Some(ENODATA));
    let of_its_fabric = Hints {
        opened_fabric: Some(&a.fabric),
        ..domain_of(info)
    };
    check!(!getinfo(&of_its_fabric)?.is_empty());
    check!(!getinfo(&domain_of(info))?.is_empty());
    let domain = a.fabric.domain(info)?;
    closed(domain.close())?;
    let new = End::new(info, None)?;
    let (to_b, to_new) = (new.av.insert(&b_name)?, rig.b.insert(&new.ep.name())?);
    passes(&new, to_b, rig.b.here()?, 4)?;
    passes(rig.b.here()?, to_new, &new, 5)?;
    rig.quiet()?;
    new.close()?;
    rig.close()
}

fn domain_is_ended_once(info: &Info, seed: u64) -> Result {
    const THREADS: usize = 4;
    let end = Arc::new(End::new(info, None)?, GFP_KERNEL)?;
    for n in 0..DEPTH as u64 {
        end.ep.recv(pattern(10, seed)?, n)?;
    }
    let firsts = Arc::new(Atomic::<u64>::new(0), GFP_KERNEL)?;
    let (theirs, first) = (end.clone(), firsts.clone());
    let job = move |_: usize| -> Result {
        match theirs.domain.unplug() {
            Ok(()) => first.add(1, Relaxed),
            Err(error) => check_eq!(error, ENODEV),
        }
        // Whoever was first, it has ended when any returns.
        check!(theirs.cq.read().is_some());
        check_refused(theirs.ep.recv(Buffer::empty(), 1), ENODEV, 1)?;
        Ok(())
    };
    Crew::start(THREADS, Arc::new(job, GFP_KERNEL)?)?.join()?;
    check_eq!(firsts.load(Relaxed), 1);
    check_eq!(end.domain.unplug().err(), Some(ENODEV));
    for _ in THREADS..DEPTH {
        check_eq!(error(&end.cq.read().ok_or(ENOENT)?), Some(ENODEV));
    }
    check!(end.cq.read().is_none());
    // One that nothing is open in.
    let domain = end.fabric.domain(info)?;
    domain.unplug()?;
    closed(domain.close())
}

/// What one thread has posted and what has completed, at both ends.
struct Load {
    rig: Rig,
    posted: [Atomic<u64>; 2],
    completed: [Atomic<u64>; 2],
}

impl Load {
    fn new(info: &Info) -> Result<Self> {
        let zeros = || [Atomic::new(0), Atomic::new(0)];
        Ok(Load {
            rig: Rig::new(info)?,
            posted: zeros(),
            completed: zeros(),
        })
    }

    fn drain(&self, side: usize) -> Result {
        let end = [&self.rig.a, self.rig.b.here()?][side];
        while let Some(done) = end.cq.read() {
            match error(&done) {
                None => {}
                // Of this end, and of its peer.
                error => check_eq!(error, Some([ENODEV, EHOSTUNREACH][side])),
            }
            self.completed[side].add(1, Relaxed);
        }
        Ok(())
    }

    /// Posts at both ends until the first refuses.
    fn run(&self) -> Result {
        let (rig, none) = (&self.rig, Options::default());
        for n in 0.. {
            let (len, side) = ([1, 1000, 20_000][n as usize % 3], n as usize / 2 % 2);
            let (end, to) = [(&rig.a, rig.to_b), (rig.b.here()?, rig.to_a)][side];
            let memory = Memory::zeroed(20_000)?;
            let posted = match n % 2 {
                0 => end.ep.recv(memory, n),
                _ => end.ep.send(Memory::zeroed(len)?, to, none, n),
            };
            match posted.map_err(|refused| refused.error) {
                Ok(_) => self.posted[side].add(1, Relaxed),
                Err(EAGAIN) => {}
                Err(error) => {
                    check_eq!((side, error), (0, ENODEV));
                    return Ok(());
                }
            }
            if n % 16 == 0 {
                self.drain(0)?;
                self.drain(1)?;
            }
        }
        Ok(())
    }

    /// Fails unless each that was posted has completed, but for receives of the peer.
    fn check(&self) -> Result {
        self.drain(0)?;
        check_eq!(
            self.completed[0].load(Relaxed),
            self.posted[0].load(Relaxed)
        );
        Ok(())
    }
}

fn domain_that_ends_under_load_loses_no_operation(info: &Info, _seed: u64) -> Result {
    const THREADS: usize = 2;
    let mut loads = KVec::new();
    for _ in 0..THREADS {
        loads.push(Load::new(info)?, GFP_KERNEL)?;
    }
    let loads = Arc::new(loads, GFP_KERNEL)?;
    let theirs = loads.clone();
    let job = move |thread: usize| theirs[thread].run();
    let crew = Crew::start(THREADS, Arc::new(job, GFP_KERNEL)?)?;
    let moved = |load: &Load| load.completed[0].load(Relaxed) > 100;
    let loaded = until(|| loads.iter().all(moved));
    for load in loads.iter() {
        load.rig.a.domain.unplug()?;
    }
    crew.join()?;
    loaded?;
    for load in loads.iter() {
        load.check()?;
    }
    let Some(mut loads) = Arc::into_unique_or_drop(loads) else {
        check!(false);
        return Err(EINVAL);
    };
    for load in core::mem::take(loads.as_mut().get_mut()) {
        load.rig.close()?;
    }
    Ok(())
}

fn domain_ends_while_others_open_and_close_in_it(info: &Info, seed: u64) -> Result {
    const THREADS: usize = 2;
    for _ in 0..tries(4) {
        let end = Arc::new(End::new(info, None)?, GFP_KERNEL)?;
        let opened = Arc::new(Atomic::<u64>::new(0), GFP_KERNEL)?;
        let (theirs, count, info) = (end.clone(), opened.clone(), *info);
        // Opens, uses and closes, until something says that the domain has ended.
        let job = move |_: usize| -> Result {
            loop {
                match once(&theirs, &info, seed) {
                    Ok(()) => count.add(1, Relaxed),
                    Err(ENODEV) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        fn once(end: &End, info: &Info, seed: u64) -> Result {
            let info = crate::rig::with_sizes(info, 4, 4);
            let cq = CompletionQueue::<u64>::new(&end.domain, 8, None)?;
            let ep = end.endpoint(&info, &cq)?;
            ep.recv(pattern(100, seed)?, 1).map_err(Error::from)?;
            closed(ep.close())?;
            let done = cq.read().ok_or(ENOENT)?;
            // It is just going.
            check!(matches!(error(&done), Some(ECANCELED | ENODEV)));
            check_buffer(done.buffer, 100, seed)?;
            closed(cq.close())
        }
        let crew = Crew::start(THREADS, Arc::new(job, GFP_KERNEL)?)?;
        let used = until(|| opened.load(Relaxed) >= 5);
        let unplugged = end.domain.unplug();
        crew.join()?;
        used?;
        unplugged?;
    }
    Ok(())
}

fn ended_domain_ends_its_connections(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    let late = pair.a.endpoint()?;
    for n in 0..8 {
        pair.at_a.recv(pattern(100, seed)?, n)?;
        cm::send(&pair.at_b, pattern(100, seed)?, n)?;
    }
    for _ in 0..8 {
        check_eq!(error(&pair.b.next()?), None);
        check_eq!(error(&pair.a.next()?), None);
    }
    for n in 0..8 {
        pair.at_a.recv(pattern(100, seed)?, n)?;
        pair.at_b.recv(pattern(100, seed)?, n)?;
    }
    pair.a.domain.unplug()?;
    for n in 0..8 {
        let done = pair.a.cq.read().ok_or(ENOENT)?;
        check_eq!((done.context, error(&done)), (n, Some(ENODEV)));
    }
    pair.a.shut_down(&pair.at_a)?;
    for ep in [&pair.at_a, &late] {
        check_refused(cm::send(ep, pattern(9, seed)?, 1), ENODEV, 1)?;
    }
    let connected = late.connect(&pair.at_b.name(), PrivateData::NONE, 1);
    check_eq!(connected.err(), Some(ENODEV));
    // The peer finds it closed, and its domain goes on.
    pair.b.shut_down(&pair.at_b)?;
    for _ in 0..8 {
        check_eq!(error(&pair.b.next()?), Some(ENOTCONN));
    }
    check_refused(cm::send(&pair.at_b, pattern(9, seed)?, 1), ENOTCONN, 1)?;
    pair.a.quiet()?;
    pair.b.quiet()?;
    closed(pair.b.endpoint()?.close())?;
    check_eq!(pair.a.endpoint().err(), Some(ENODEV));
    closed(late.close())?;
    pair.close()
}

fn ended_domain_rejects_the_requests_that_wait(info: &Info, _seed: u64) -> Result {
    let (a, b) = (cm::Host::new(info)?, cm::Host::new(info)?);
    let listener = a.listen(2)?;
    let (asks, late) = (b.endpoint()?, b.endpoint()?);
    cm::begin(&asks, &listener)?;
    let request = a.request()?;
    a.domain.unplug()?;
    check_eq!(b.refused(&asks)?.0, ECONNREFUSED);
    drop(request);
    cm::begin(&late, &listener)?;
    let refused = b.refused(&late)?.0;
    check!(matches!(refused, EHOSTUNREACH | ECONNREFUSED));
    check_eq!(a.listen(1).err(), Some(ENODEV));
    a.quiet()?;
    b.quiet()?;
    for ep in [asks, late] {
        closed(ep.close())?;
    }
    closed(listener.close())?;
    a.close()?;
    b.close()
}
