// SPDX-License-Identifier: GPL-2.0

//! Completion queues: reading, waiting, closing, and the callback.

use crate::close::{busy, closed};
use crate::rig::{
    count, ended, lasts, pattern, timeout, tries, until, with_sizes, Counted, End, Inside, Rig,
};
use crate::soft::spawn;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

cases! {
    queue_of_nothing_is_refused: Caps::NONE,
    empty_queue_gives_nothing: Caps::NONE,
    wait_ends_at_its_time: Caps::NONE,
    wait_ends_with_a_completion: Caps::MSG,
    each_completion_goes_to_one_reader: Caps::MSG,
    unread_completions_go_with_the_queue: Caps::MSG,
    queue_dropped_before_its_endpoint_keeps_nothing: Caps::MSG,
    last_completion_of_a_closed_endpoint_is_read_in_a_lock: Caps::MSG,
    callback_fires_once_until_the_queue_was_found_empty: Caps::MSG,
    callback_is_never_called_inside_a_post: Caps::MSG,
    callback_does_not_come_after_the_close: Caps::MSG,
    callback_does_not_run_twice_at_once: Caps::MSG,
    callback_that_leaves_some_may_ask_to_be_called_again: Caps::MSG,
}

/// How long a case waits for what must not happen.
const QUIET: Delta = Delta::from_millis(30);

fn queue_of_nothing_is_refused(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    check_eq!(
        CompletionQueue::<u64>::new(&end.domain, 0, None).err(),
        Some(EINVAL)
    );
    for size in [1, 7, usize::MAX] {
        let cq = CompletionQueue::<u64>::new(&end.domain, size, None)?;
        check_eq!(cq.size(), size);
        closed(cq.close())?;
    }
    end.close()
}

fn empty_queue_gives_nothing(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    for _ in 0..3 {
        check!(end.cq.read().is_none());
    }
    end.ep.recv(Memory::zeroed(1)?, 1)?;
    check!(end.cq.read().is_none());
    check_eq!(end.cq.wait(0), Err(ETIMEDOUT));
    end.close()
}

fn wait_ends_at_its_time(info: &Info, _seed: u64) -> Result {
    const MILLIS: u32 = 200;
    let end = End::new(info, None)?;
    check_eq!(end.cq.wait(0), Err(ETIMEDOUT));
    let waits: [fn(&CompletionQueue<u64>) -> Result; 2] =
        [|cq| cq.wait(MILLIS), |cq| cq.read_wait(MILLIS).map(drop)];
    for wait in waits {
        lasts(MILLIS, || wait(&end.cq))?;
    }
    end.close()
}

fn wait_ends_with_a_completion(info: &Info, seed: u64) -> Result {
    let rig = Arc::new(Rig::new(info)?, GFP_KERNEL)?;
    for _ in 0..5 {
        rig.b.recv(Memory::zeroed(10)?, 1)?;
        let (sender, bytes) = (rig.clone(), pattern(10, seed)?);
        let job = spawn(move || {
            sender
                .a
                .ep
                .send(bytes, sender.to_b, Options::default(), 2)?;
            Ok(())
        })?;
        rig.b.wait(timeout())?;
        // A wait takes nothing.
        rig.b.wait(0)?;
        check_eq!(
            rig.b.poll()?.map(|done| ended(&done)),
            Some((Kind::Recv, 1, Ok(10)))
        );
        check_eq!(ended(&rig.a.next()?), (Kind::Send, 2, Ok(10)));
        job.wait()?;
    }
    rig.quiet()
}

fn each_completion_goes_to_one_reader(info: &Info, seed: u64) -> Result {
    const MANY: u64 = 512;
    const READERS: usize = 3;
    let rig = Arc::new(Rig::sized(info, MANY as usize)?, GFP_KERNEL)?;
    let (sum, read) = (count()?, count()?);
    let mut jobs = KVec::new();
    for _ in 0..READERS {
        let (rig, sum, read) = (rig.clone(), sum.clone(), read.clone());
        let job = move || {
            // Softirqs must end: what is left is read below.
            for _ in 0..200 {
                while let Some(done) = rig.b.poll()? {
                    check!(done.result.is_ok());
                    sum.add(done.context as i32, Relaxed);
                    read.add(1, Relaxed);
                }
                core::hint::spin_loop();
            }
            Ok(())
        };
        jobs.push(spawn(job)?, GFP_KERNEL)?;
    }
    for context in 0..MANY {
        rig.b.recv(Memory::zeroed(1)?, context)?;
        rig.a
            .ep
            .send(pattern(1, seed)?, rig.to_b, Options::default(), context)?;
    }
    for job in jobs {
        job.wait()?;
    }
    until(|| {
        while let Ok(Some(done)) = rig.b.poll() {
            sum.add(done.context as i32, Relaxed);
            read.add(1, Relaxed);
        }
        read.load(Acquire) >= MANY as i32
    })?;
    check_eq!(read.load(Acquire), MANY as i32);
    check_eq!(sum.load(Acquire), (MANY * (MANY - 1) / 2) as i32);
    check!(rig.b.poll()?.is_none());
    Ok(())
}

/// A queue and an endpoint whose contexts are counted.
struct Counting {
    ep: Endpoint<Counted>,
    cq: CompletionQueue<Counted>,
    contexts: Arc<Atomic<i32>>,
}

impl Counting {
    fn new(end: &End, info: &Info) -> Result<Self> {
        let info = with_sizes(info, 4, 4);
        let cq = CompletionQueue::new(&end.domain, 8, None)?;
        Ok(Counting {
            ep: end.endpoint(&info, &cq)?,
            cq,
            contexts: count()?,
        })
    }
}

fn unread_completions_go_with_the_queue(info: &Info, seed: u64) -> Result {
    let end = End::new(info, None)?;
    let Counting { ep, cq, contexts } = Counting::new(&end, info)?;
    let own = end.av.insert(&ep.name())?;
    for _ in 0..2 {
        ep.recv(Memory::zeroed(10)?, Counted::new(&contexts))?;
        ep.send(
            pattern(10, seed)?,
            own,
            Options::default(),
            Counted::new(&contexts),
        )?;
    }
    ep.recv(Memory::zeroed(10)?, Counted::new(&contexts))?;
    check_eq!(contexts.load(Acquire), 5);
    let cq = busy(cq.close())?;
    closed(ep.close())?;
    check_eq!(contexts.load(Acquire), 5);
    drop(cq.read());
    check_eq!(contexts.load(Acquire), 4);
    closed(cq.close())?;
    check_eq!(contexts.load(Acquire), 0);
    end.close()
}

fn queue_dropped_before_its_endpoint_keeps_nothing(info: &Info, seed: u64) -> Result {
    let end = End::new(info, None)?;
    let Counting { ep, cq, contexts } = Counting::new(&end, info)?;
    let own = end.av.insert(&ep.name())?;
    for _ in 0..2 {
        let receive = ep.recv(Memory::zeroed(10)?, Counted::new(&contexts))?;
        ep.cancel(receive)?;
    }
    ep.recv(Memory::zeroed(10)?, Counted::new(&contexts))?;
    ep.send(
        pattern(10, seed)?,
        end.av.insert(&end.ep.name())?,
        Options::default(),
        Counted::new(&contexts),
    )?;
    drop(cq);
    // What had completed is gone; what completes from now on goes with the endpoint.
    until(|| contexts.load(Acquire) == 2)?;
    ep.send(
        pattern(10, seed)?,
        own,
        Options::default(),
        Counted::new(&contexts),
    )?;
    closed(ep.close())?;
    check_eq!(contexts.load(Acquire), 0);
    end.close()
}

fn last_completion_of_a_closed_endpoint_is_read_in_a_lock(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let mut info = *info;
    info.limits.tx_size = 1;
    let cq = CompletionQueue::<u64>::new(&end.domain, 1 + info.limits.rx_size, None)?;
    let ep = end.endpoint(&info, &cq)?;
    ep.recv(Buffer::empty(), 1)?;
    closed(ep.close())?;
    // The operation is the last thing that is left of the endpoint.
    let lock = KBox::pin_init(new_spinlock_irq!(0u64), GFP_KERNEL)?;
    let mut locked = lock.lock();
    *locked = cq.read().map_or(0, |done| done.context);
    let context = *locked;
    drop(locked);
    check_eq!(context, 1);
    closed(cq.close())?;
    end.close()
}

fn callback_fires_once_until_the_queue_was_found_empty(info: &Info, seed: u64) -> Result {
    let (fired, soft) = (count()?, count()?);
    let (calls, in_soft) = (fired.clone(), soft.clone());
    let callback = Arc::new(
        move |_: &Reader<'_, u64>| {
            in_soft.add(i32::from(in_softirq()), Relaxed);
            calls.add(1, Relaxed);
        },
        GFP_KERNEL,
    )?;
    let a = End::new(info, None)?;
    let b = End::new(info, Some(callback))?;
    let to_b = a.av.insert(&b.ep.name())?;
    let send = || -> Result {
        b.ep.recv(Memory::zeroed(1)?, 1)?;
        a.ep.send(pattern(1, seed)?, to_b, Options::default(), 2)?;
        check_eq!(ended(&a.next()?), (Kind::Send, 2, Ok(1)));
        Ok(())
    };
    let fires = |times| -> Result {
        until(|| fired.load(Acquire) >= times)?;
        fsleep(QUIET);
        check_eq!(fired.load(Acquire), times);
        Ok(())
    };
    // Armed from the start, by nobody's read.
    fires(0)?;
    send()?;
    fires(1)?;
    for _ in 0..3 {
        send()?;
    }
    fires(1)?;
    // A read that finds something arms nothing, nor does a wait.
    drop(b.next()?);
    b.cq.wait(timeout())?;
    send()?;
    fires(1)?;
    for _ in 0..4 {
        drop(b.next()?);
    }
    // Nor does the last.
    send()?;
    fires(1)?;
    drop(b.next()?);
    check!(b.cq.read().is_none());
    fires(1)?;
    send()?;
    fires(2)?;
    drop(b.next()?);
    check!(b.cq.read().is_none() && b.cq.read().is_none());
    send()?;
    fires(3)?;
    check_eq!(soft.load(Acquire), 3);
    a.close()?;
    b.close()
}

fn callback_is_never_called_inside_a_post(info: &Info, seed: u64) -> Result {
    let (fired, inside) = (count()?, Inside::new()?);
    let (calls, watched) = (fired.clone(), inside.clone());
    let callback = Arc::new(
        move |completions: &Reader<'_, u64>| {
            watched.call();
            calls.add(1, Relaxed);
            while completions.read().is_some() {}
        },
        GFP_KERNEL,
    )?;
    let end = End::new(info, Some(callback))?;
    let own = end.av.insert(&end.ep.name())?;
    let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
    for round in 1..=10 {
        let (to, from) = (Memory::zeroed(10)?, pattern(10, seed)?);
        let before = fired.load(Acquire);
        // No softirq runs on this CPU while interrupts are disabled: what fires here does so inside.
        let locked = lock.lock();
        let posted = inside.watch(|| {
            end.ep.recv(to, 1).is_ok() && end.ep.send(from, own, Options::default(), 2).is_ok()
        });
        drop(locked);
        check!(posted);
        check_eq!((round, inside.calls()), (round, 0));
        until(|| fired.load(Acquire) > before)?;
        until(|| end.cq.wait(0) == Err(ETIMEDOUT))?;
    }
    end.close()
}

fn callback_does_not_come_after_the_close(info: &Info, _seed: u64) -> Result {
    for _ in 0..tries(20) {
        let fired = count()?;
        // Dropped with the callback.
        let held = count()?;
        let (calls, token) = (fired.clone(), Counted::new(&held));
        let callback = Arc::new(
            move |_: &Reader<'_, u64>| {
                let _ = &token;
                calls.add(1, Relaxed);
            },
            GFP_KERNEL,
        )?;
        let end = End::new(info, Some(callback))?;
        end.ep.recv(Buffer::empty(), 1)?;
        let (ep, base) = end.split();
        // The completion of the receive fires it, if it comes in time.
        closed(ep.close())?;
        closed(base.cq.close())?;
        let before = fired.load(Acquire);
        check_eq!(held.load(Acquire), 0);
        fsleep(Delta::from_millis(2));
        check_eq!(fired.load(Acquire), before);
    }
    Ok(())
}

fn callback_does_not_run_twice_at_once(info: &Info, seed: u64) -> Result {
    let (inside, twice, fired) = (count()?, count()?, count()?);
    let (entered, overlaps, calls) = (inside.clone(), twice.clone(), fired.clone());
    let callback = Arc::new(
        move |completions: &Reader<'_, u64>| {
            overlaps.add(entered.load(Acquire), Relaxed);
            entered.add(1, Relaxed);
            calls.add(1, Relaxed);
            // Armed again at once, while this is still running.
            while completions.read().is_some() {}
            kernel::time::delay::udelay(Delta::from_micros(50));
            entered.fetch_sub(1, Relaxed);
        },
        GFP_KERNEL,
    )?;
    let a = Arc::new(End::new(info, None)?, GFP_KERNEL)?;
    let b = Arc::new(End::new(info, Some(callback))?, GFP_KERNEL)?;
    let to_b = a.av.insert(&b.ep.name())?;
    for round in 0..50 {
        // The callback may lag, but not by more than there are slots.
        if round % 10 == 0 {
            until(|| b.cq.wait(0) == Err(ETIMEDOUT))?;
        }
        let mut jobs = KVec::new();
        for _ in 0..2 {
            let (a, b, to, from) = (a.clone(), b.clone(), Memory::zeroed(1)?, pattern(1, seed)?);
            let job = move || {
                b.ep.recv(to, 1)?;
                a.ep.send(from, to_b, Options::default(), 2)?;
                Ok(())
            };
            jobs.push(spawn(job)?, GFP_KERNEL)?;
        }
        b.ep.recv(Memory::zeroed(1)?, 1)?;
        a.ep.send(pattern(1, seed)?, to_b, Options::default(), 2)?;
        for job in jobs {
            job.wait()?;
        }
        for _ in 0..3 {
            check_eq!(ended(&a.next()?), (Kind::Send, 2, Ok(1)));
        }
    }
    until(|| b.cq.wait(0) == Err(ETIMEDOUT) && inside.load(Acquire) == 0)?;
    check!(fired.load(Acquire) > 0);
    check_eq!(twice.load(Acquire), 0);
    Ok(())
}

fn callback_that_leaves_some_may_ask_to_be_called_again(info: &Info, seed: u64) -> Result {
    const MESSAGES: i32 = 5;
    let (fired, read) = (count()?, count()?);
    let (calls, taken) = (fired.clone(), read.clone());
    let callback = Arc::new(
        move |completions: &Reader<'_, u64>| {
            calls.add(1, Relaxed);
            if completions.read().is_some() {
                taken.add(1, Relaxed);
                completions.again();
            }
        },
        GFP_KERNEL,
    )?;
    let a = End::new(info, None)?;
    let b = End::new(info, Some(callback))?;
    let to_b = a.av.insert(&b.ep.name())?;
    for context in 0..MESSAGES {
        b.ep.recv(Memory::zeroed(1)?, context as u64)?;
        a.ep.send(pattern(1, seed)?, to_b, Options::default(), context as u64)?;
    }
    // One each, and the one that finds nothing: nobody else reads.
    until(|| read.load(Acquire) == MESSAGES && fired.load(Acquire) > MESSAGES)?;
    fsleep(QUIET);
    check_eq!(read.load(Acquire), MESSAGES);
    a.close()?;
    b.close()
}
