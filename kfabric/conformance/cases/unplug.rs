// SPDX-License-Identifier: GPL-2.0

//! Unplugging: what consumers see when a provider ends under them.
//!
//! Each case leaves the provider unplugged, so each needs a provider of its own: see the module
//! parameter `unplug`, which numbers them as they stand here. The suite 45-lifecycle knows them in
//! this order.
//!
//! | file | noun |
//! |---|---|
//! | `domain` | the end of a domain alone |

use super::cm::Connected;
use crate::close::{busy, closed, given_back};
use crate::crew::Crew;
use crate::ops::{check_refused, data, error, level, pmem};
use crate::peer::Region;
use crate::rig::{
    check_buffer, check_region, pattern, register, timeout, until, with_sizes, Base, End, Rig,
    DEPTH,
};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

pub(super) mod domain;

cases! {
    unplugged_operations_complete_with_errors: ALL,
    unplugged_handles_stay_valid_and_refuse: ALL,
    unplug_under_load_loses_no_operation: ALL,
    unplug_while_others_open_and_close: ALL,
    unplug_tells_by_the_callback: ALL,
    unplug_ends_waits_by_what_it_counts: ALL,
    unplug_ends_connections: Caps::MSG,
    unplug_ends_receives_of_every_kind: Caps::TAGGED.union(Caps::DIRECTED_RECV).union(Caps::MULTI_RECV),
}

const ALL: Caps = Caps::COMMIT.union(Caps::RMA).union(Caps::REMOTE_CQ_DATA);

/// Whether a completion says that: whichever of the two ends went first.
fn gone(error: Option<Error>) -> bool {
    error == Some(ENODEV)
}

fn unplugged_operations_complete_with_errors(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(1 << 20, Access::READ_WRITE)?;
    // A's receives wait for messages, its messages and notices for receives of B.
    for n in 0..DEPTH as u64 {
        rig.a.ep.recv(pattern(100, seed + n)?, n)?;
    }
    for n in 0..DEPTH as u64 {
        let memory = pattern(100, seed + n)?;
        if n % 2 == 0 {
            rig.a.ep.send(memory, rig.to_b, Options::default(), n)?;
        } else {
            let slice = remote.slice(0, 100)?;
            rig.a.ep.write(memory, rig.to_b, slice, data(n), n)?;
        }
    }
    // B's reads may be through before the end, or not.
    let myself = rig.b.insert(&rig.b.name())?;
    for n in 0..8 {
        let slice = remote.slice(0, 1 << 20)?;
        rig.b.here()?.ep.read(
            Memory::zeroed(1 << 20)?,
            myself,
            slice,
            Options::default(),
            n,
        )?;
    }
    unplug(info.provider.as_str())?;

    let (mut receives, mut others) = ([0; DEPTH], [0; DEPTH]);
    for _ in 0..2 * DEPTH {
        // They are in the queue when `unplug` returns.
        let done = rig.a.cq.read().ok_or(ENOENT)?;
        let n = done.context as usize;
        match done.kind {
            Kind::Recv => {
                check_eq!(error(&done), Some(ENODEV));
                *receives.get_mut(n).ok_or(EINVAL)? += 1;
            }
            _ => {
                check!(gone(error(&done)));
                let placed = (Outcome::Executed, Some(Level::Delivered));
                let failure = done.result.err().ok_or(EINVAL)?;
                check_eq!(
                    (failure.outcome, failure.level) == placed,
                    done.kind == Kind::Write
                );
                *others.get_mut(n).ok_or(EINVAL)? += 1;
            }
        }
        check_buffer(done.buffer, 100, seed + done.context)?;
    }
    for times in [receives, others] {
        check!(times.iter().all(|times| *times == 1));
    }
    for _ in 0..8 {
        let done = rig.b.poll()?.ok_or(ENOENT)?;
        check!(error(&done).is_none() || gone(error(&done)));
    }
    check!(rig.a.cq.read().is_none() && rig.b.poll()?.is_none());
    drop(region);
    rig.close()
}

fn unplugged_handles_stay_valid_and_refuse(info: &Info, seed: u64) -> Result {
    let name = info.provider.as_str();
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(1000, Access::READ_WRITE)?;
    let slice = remote.slice(0, 1000)?;
    rig.written(pattern(1000, seed)?, slice, Options::default())?;
    let (a_name, b_name) = (rig.a.ep.name(), rig.b.name());
    let id = rig.a.ep.recv(Buffer::empty(), 1)?;
    unplug(name)?;
    check_eq!(error(&rig.a.cq.read().ok_or(ENOENT)?), Some(ENODEV));

    // Nothing is posted any more, and what was to be posted comes back.
    let Rig { a, b, to_b, .. } = rig;
    let posted =
        a.ep.write(pattern(1000, seed)?, to_b, slice, Options::default(), 2);
    check_buffer(check_refused(posted, ENODEV, 2)?, 1000, seed)?;
    let posted =
        a.ep.read(pattern(1000, seed)?, to_b, slice, Options::default(), 3);
    check_buffer(check_refused(posted, ENODEV, 3)?, 1000, seed)?;
    let posted = a.ep.send(pattern(10, seed)?, to_b, Options::default(), 4);
    check_buffer(check_refused(posted, ENODEV, 4)?, 10, seed)?;
    let posted = a.ep.recv(pattern(10, seed)?, 5);
    check_buffer(check_refused(posted, ENODEV, 5)?, 10, seed)?;
    let device = pmem()?;
    check_eq!(a.ep.cancel(id).err(), Some(ENOENT));

    // Nothing is opened any more.
    check_eq!(unplug(name).err(), Some(ENODEV));
    check_eq!(Fabric::open(info).err(), Some(ENODEV));
    check_eq!(a.fabric.domain(info).err(), Some(ENODEV));
    check_eq!(
        CompletionQueue::<u64>::new(&a.domain, 1, None).err(),
        Some(ENODEV)
    );
    check_eq!(AddressVector::new(&a.domain).err(), Some(ENODEV));
    for memory in [pattern(64, seed)?, Memory::persistent(&device, 0, 64)?] {
        let (len, persistent) = (memory.len(), memory.is_persistent());
        let memory = given_back(a.domain.register(memory, Access::READ), ENODEV)?;
        check_eq!((memory.len(), memory.is_persistent()), (len, persistent));
    }
    let offered = getinfo(&Hints {
        provider: Some(name),
        ..Hints::default()
    });
    check_eq!(offered.err(), Some(ENODATA));

    // What was opened before can be asked and used up.
    check!(a.ep.name() == a_name && b.name() == b_name);
    check!(a.av.lookup(to_b) == Some(b_name));
    a.av.remove(to_b)?;
    check_eq!(a.cq.wait(1).err(), Some(ETIMEDOUT));
    check_region(&region, 0, 1000, seed)?;
    let memory = closed(region.close_wait(timeout()))?;
    check!(memory.as_slice() == pattern(1000, seed)?.as_slice());
    // Out of order as ever.
    let (ep, base) = a.split();
    let base = Base {
        fabric: busy(base.fabric.close())?,
        ..base
    };
    closed(ep.close())?;
    base.close()?;
    b.close()
}

/// A pair under load by one thread, until its posts are refused.
struct Pair {
    rig: Rig,
    lasting: RemoteRegion,
    volatile: RemoteRegion,
    regions: [Region; 2],
    posted: Atomic<u64>,
    completed: Atomic<u64>,
}

impl Pair {
    fn new(info: &Info, device: &Arc<Pmem>, number: usize) -> Result<Self> {
        let rig = Rig::new(info)?;
        let (region, volatile) = rig.region(100_000, Access::READ_WRITE)?;
        let offset = number as u64 * 100_000;
        let (persistent, lasting) = rig.persistent(device, offset, 100_000)?;
        Ok(Pair {
            rig,
            lasting,
            volatile,
            regions: [region, persistent],
            posted: Atomic::new(0),
            completed: Atomic::new(0),
        })
    }

    /// Posts operation number `n`; `Ok(false)` when the provider is gone.
    fn post(&self, n: u64) -> Result<bool> {
        let (rig, len) = (&self.rig, [1, 1000, 20_000, 100_000][n as usize % 4]);
        let end = if n % 6 == 5 { rig.b.here()? } else { &rig.a };
        let memory = Memory::zeroed(len)?;
        let (volatile, lasting) = (
            self.volatile.slice(0, len as u64)?,
            self.lasting.slice(0, len as u64)?,
        );
        let posted = match n % 6 {
            0 => end.ep.write(memory, rig.to_b, volatile, data(n), n),
            1 => end
                .ep
                .read(memory, rig.to_b, volatile, Options::default(), n),
            2 => end
                .ep
                .write(memory, rig.to_b, lasting, level(Level::Committed), n),
            3 => end.ep.commit(rig.to_b, lasting, Options::default(), n),
            4 => end.ep.send(memory, rig.to_b, Options::default(), n),
            _ => end.ep.recv(memory, n),
        };
        match posted {
            Ok(_) => self.posted.add(1, Relaxed),
            Err(refused) => match refused.error {
                EAGAIN => {}
                ENODEV => return Ok(false),
                other => return Err(other),
            },
        }
        Ok(true)
    }

    fn drain(&self) -> Result {
        for end in [&self.rig.a, self.rig.b.here()?] {
            while let Some(done) = end.cq.read() {
                let error = error(&done);
                // EMSGSIZE: a long message met a short receive.
                check!(error.is_none() || error == Some(EMSGSIZE) || gone(error));
                self.completed.add(1, Relaxed);
            }
        }
        Ok(())
    }

    fn run(&self) -> Result {
        let mut n = 0;
        while self.post(n)? {
            n += 1;
            if n % 16 == 0 {
                self.drain()?;
            }
        }
        Ok(())
    }
}

fn unplug_under_load_loses_no_operation(info: &Info, _seed: u64) -> Result {
    const THREADS: usize = 4;
    let device = pmem()?;
    let mut pairs = KVec::new();
    for n in 0..THREADS {
        pairs.push(Pair::new(info, &device, n)?, GFP_KERNEL)?;
    }
    let pairs = Arc::new(pairs, GFP_KERNEL)?;
    let theirs = pairs.clone();
    let job = move |thread: usize| theirs[thread].run();
    let crew = Crew::start(THREADS, Arc::new(job, GFP_KERNEL)?)?;
    let loaded = until(|| pairs.iter().all(|pair| pair.completed.load(Relaxed) > 200));
    unplug(info.provider.as_str())?;
    crew.join()?;
    loaded?;
    for pair in pairs.iter() {
        pair.drain()?;
        let counts = (pair.posted.load(Relaxed), pair.completed.load(Relaxed));
        check_eq!(counts.0, counts.1);
    }
    let Some(mut pairs) = Arc::into_unique_or_drop(pairs) else {
        check!(false);
        return Err(EINVAL);
    };
    for pair in core::mem::take(pairs.as_mut().get_mut()) {
        let Pair { rig, regions, .. } = pair;
        for region in regions {
            drop(closed(region.close_wait(timeout()))?);
        }
        rig.close()?;
    }
    Ok(())
}

fn unplug_while_others_open_and_close(info: &Info, seed: u64) -> Result {
    const THREADS: usize = 4;
    let opened = Arc::new(Atomic::<u64>::new(0), GFP_KERNEL)?;
    let (info, count) = (*info, opened.clone());
    // Opens, uses and closes, until something says that the provider is gone.
    let job = move |_: usize| -> Result {
        loop {
            match once(&info, seed) {
                Ok(()) => count.add(1, Relaxed),
                Err(ENODEV) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    fn once(info: &Info, seed: u64) -> Result {
        let end = End::sized(info, 8, None)?;
        let region = register(&end.domain, pattern(100, seed)?, Access::READ)?;
        let slice = RemoteRegion::parse(&region.descriptor()?)?.slice(0, 100)?;
        let myself = end.av.insert(&end.ep.name())?;
        end.ep
            .read(Memory::zeroed(100)?, myself, slice, Options::default(), 1)?;
        let done = end.cq.read_wait(timeout())?;
        match error(&done) {
            None => check_buffer(done.buffer, 100, seed)?,
            // It is just going.
            error => check!(gone(error)),
        }
        drop(closed(region.close_wait(timeout()))?);
        end.close()
    }
    let crew = Crew::start(THREADS, Arc::new(job, GFP_KERNEL)?)?;
    let used = until(|| opened.load(Relaxed) >= 25);
    unplug(info.provider.as_str())?;
    crew.join()?;
    used
}

fn unplug_tells_by_the_callback(info: &Info, _seed: u64) -> Result {
    let seen = Arc::new(Atomic::<u64>::new(0), GFP_KERNEL)?;
    let count = seen.clone();
    let callback = move |cq: &Reader<'_, u64>| {
        while let Some(done) = cq.read() {
            if error(&done) == Some(ENODEV) {
                count.add(1, Relaxed);
            }
        }
    };
    let end = End::new(info, Some(Arc::new(callback, GFP_KERNEL)?))?;
    for n in 0..DEPTH as u64 {
        end.ep.recv(Buffer::empty(), n)?;
    }
    unplug(info.provider.as_str())?;
    until(|| seen.load(Relaxed) >= DEPTH as u64)?;
    check_eq!(seen.load(Relaxed), DEPTH as u64);
    end.close()
}

fn unplug_ends_waits_by_what_it_counts(info: &Info, _seed: u64) -> Result {
    let (ep, base) = End::new(info, None)?.split();
    let Base {
        av,
        cq,
        domain,
        fabric,
        ..
    } = base;
    closed(ep.close())?;
    let (recv, send) = (Counter::new(&domain, None)?, Counter::new(&domain, None)?);
    let recv = Arc::new(recv, GFP_KERNEL)?;
    let small = with_sizes(info, DEPTH, DEPTH);
    let builder = Endpoint::builder(&domain, &small).cq(&cq).av(&av);
    let builder = builder.counter(Counts::RECV, &recv);
    let ep = builder.counter(Counts::SEND, &send).enable()?;
    for n in 0..DEPTH as u64 {
        ep.recv(Buffer::empty(), n)?;
    }
    // A wait that begins only after the end does not see it. Who is about to wait does so in time,
    // unless it is held up just there: one of several must not be.
    const WAITERS: u64 = 4;
    let (begun, told) = (
        Arc::new(Atomic::<u64>::new(0), GFP_KERNEL)?,
        Arc::new(Atomic::<u64>::new(0), GFP_KERNEL)?,
    );
    let (waiter, begins, tells) = (recv.clone(), begun.clone(), told.clone());
    let job = move |_: usize| {
        begins.add(1, Relaxed);
        match waiter.wait(1, 5000) {
            Err(EIO) => tells.add(1, Relaxed),
            other => check_eq!(other, Err(ETIMEDOUT)),
        }
        Ok(())
    };
    let crew = Crew::start(WAITERS as usize, Arc::new(job, GFP_KERNEL)?)?;
    until(|| begun.load(Relaxed) == WAITERS)?;
    fsleep(Delta::from_millis(500));
    unplug(info.provider.as_str())?;
    crew.join()?;
    check!(told.load(Relaxed) > 0);
    check_eq!((recv.value(), recv.errors()), (0, DEPTH as u64));
    // Where nothing was in flight a wait goes on, and what is there counts on.
    check_eq!((send.value(), send.errors()), (0, 0));
    check_eq!(send.wait(1, 10), Err(ETIMEDOUT));
    send.add(1);
    send.wait(1, 0)?;
    check_eq!(Counter::new(&domain, None).err(), Some(ENODEV));
    closed(ep.close())?;
    closed(send.close())?;
    drop(recv);
    closed(av.close())?;
    closed(cq.close())?;
    closed(domain.close())?;
    closed(fabric.close())
}

fn unplug_ends_connections(info: &Info, seed: u64) -> Result {
    let info = Info {
        endpoint_type: EndpointType::Msg,
        ..*info
    };
    let pair = Connected::new(&info)?;
    for n in 0..8 {
        pair.at_a.recv(pattern(100, seed)?, n)?;
    }
    let late = pair.a.endpoint()?;
    unplug(info.provider.as_str())?;
    for n in 0..8 {
        let done = pair.a.cq.read().ok_or(ENOENT)?;
        check_eq!((done.context, error(&done)), (n, Some(ENODEV)));
    }
    // Each end learns it from its own provider.
    pair.a.shut_down(&pair.at_a)?;
    pair.b.shut_down(&pair.at_b)?;
    for ep in [&pair.at_a, &pair.at_b, &late] {
        let posted = ep.send(pattern(9, seed)?, Address::PEER, Options::default(), 1);
        check_refused(posted, ENODEV, 1)?;
    }
    check_eq!(
        late.connect(&pair.at_b.name(), PrivateData::NONE, 1).err(),
        Some(ENODEV)
    );
    pair.a.quiet()?;
    pair.b.quiet()?;
    let Connected { a, b, at_a, at_b } = pair;
    for ep in [at_a, at_b, late] {
        closed(ep.close())?;
    }
    a.close()?;
    b.close()
}

fn unplug_ends_receives_of_every_kind(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let region = rig.b.register(Memory::zeroed(4000)?, Access::NONE)?;
    for n in 0..4 {
        rig.b.trecv(pattern(100, seed)?, n, 0, 3 * n)?;
        rig.b.recv_from(pattern(100, seed)?, rig.to_a, 3 * n + 1)?;
        let slice = region.slice(1000 * n as usize, 1000)?;
        rig.b.here()?.ep.recv_multi(slice, 4, 3 * n + 2)?;
        // Under a tag that nobody asks for.
        let (memory, none) = (pattern(100, seed)?, Options::default());
        rig.a.ep.tsend(memory, rig.to_b, 100, none, n)?;
    }
    unplug(info.provider.as_str())?;
    let mut seen = 0;
    for _ in 0..12 {
        let done = rig.b.poll()?.ok_or(ENOENT)?;
        check_eq!((done.kind, error(&done)), (Kind::Recv, Some(ENODEV)));
        seen |= 1 << done.context;
        match done.context % 3 {
            2 => {
                let (offset, released) = (0, true);
                check_eq!(done.part, Some(Part { offset, released }));
                check_eq!(done.buffer.len(), 1000);
            }
            _ => check_buffer(done.buffer, 100, seed)?,
        }
    }
    check_eq!(seen, 0xfff);
    for n in 0..4 {
        let done = rig.a.cq.read().ok_or(ENOENT)?;
        check_eq!(done.context, n);
        check!(gone(error(&done)));
        check_buffer(done.buffer, 100, seed)?;
    }
    check!(rig.a.cq.read().is_none() && rig.b.poll()?.is_none());
    drop(closed(region.close())?);
    rig.close()
}
