// SPDX-License-Identifier: GPL-2.0

//! Contexts: what is legal in softirq context and with interrupts disabled.

use crate::close::closed;
use crate::rig::{
    check_buffer, check_region, count, ended, pattern, until, with_sizes, End, Rig, DEPTH,
};
use crate::soft::{in_bottom_half, in_timer};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};
use kfabric::prelude::*;

cases! {
    messages_pass_in_a_bottom_half: Caps::MSG => Order::SAS,
    messages_pass_in_a_timer: Caps::MSG => Order::SAS,
    writes_and_reads_pass_in_a_bottom_half: Caps::RMA,
    writes_and_reads_pass_in_a_timer: Caps::RMA,
    full_endpoint_refuses_in_a_bottom_half: Caps::MSG => Order::SAS,
    cancel_is_done_in_a_timer: Caps::MSG,
    posts_and_reads_pass_with_interrupts_disabled: Caps::MSG,
    callback_reads_and_answers: Caps::MSG,
}

/// Posts and reads all that a consumer can, with lengths inline and not.
fn pass_messages(rig: &Rig, buffers: KVec<(usize, Memory, Memory)>) -> Result {
    for (len, to, from) in buffers {
        rig.b.ep.recv(to, 1)?;
        rig.a
            .ep
            .send(from, rig.to_b, crate::ops::data(len as u64), 2)?;
    }
    // Long ones are moved elsewhere: these are read by whoever waits for them.
    while let Some(done) = rig.b.cq.read() {
        let success = done.result.map_err(|failure| failure.error)?;
        check_eq!(success.data, Some(success.len as u64));
        check_eq!((done.kind, done.context), (Kind::Recv, 1));
    }
    Ok(())
}

fn message_buffers(seed: u64) -> Result<KVec<(usize, Memory, Memory)>> {
    let mut buffers = KVec::new();
    for len in [0, 1, 100, 4096, 16384, 16385, 65536] {
        buffers.push((len, Memory::zeroed(len)?, pattern(len, seed)?), GFP_KERNEL)?;
    }
    Ok(buffers)
}

fn messages_pass_in_a_bottom_half(info: &Info, seed: u64) -> Result {
    let rig = Arc::new(Rig::new(info)?, GFP_KERNEL)?;
    for _ in 0..5 {
        let (job, buffers) = (rig.clone(), message_buffers(seed)?);
        in_bottom_half(move || pass_messages(&job, buffers))?;
        settle(&rig, 7)?;
    }
    Ok(())
}

fn messages_pass_in_a_timer(info: &Info, seed: u64) -> Result {
    let rig = Arc::new(Rig::new(info)?, GFP_KERNEL)?;
    for _ in 0..5 {
        let (job, buffers) = (rig.clone(), message_buffers(seed)?);
        in_timer(move || pass_messages(&job, buffers))?;
        settle(&rig, 7)?;
    }
    Ok(())
}

/// Waits for the completions of A, and for those of B that nobody has read.
fn settle(rig: &Rig, sent: usize) -> Result {
    for _ in 0..sent {
        let done = rig.a.next()?;
        check_eq!(done.context, 2);
        check!(done.result.is_ok());
    }
    while let Some(done) = rig.b.cq.read() {
        check!(done.result.is_ok());
    }
    Ok(())
}

/// Writes and reads a region, short and long.
fn pass_rma(rig: &Rig, remote: RemoteRegion, buffers: KVec<(Memory, Memory)>) -> Result {
    for (from, to) in buffers {
        let slice = remote.slice(0, from.len() as u64)?;
        rig.a
            .ep
            .write(from, rig.to_b, slice, Options::default(), 2)?;
        rig.a.ep.read(to, rig.to_b, slice, Options::default(), 2)?;
    }
    Ok(())
}

fn writes_and_reads_pass_in_a_bottom_half(info: &Info, seed: u64) -> Result {
    let rig = Arc::new(Rig::new(info)?, GFP_KERNEL)?;
    let (region, remote) = rig.region(65536, Access::READ | Access::WRITE)?;
    let (job, buffers) = (rig.clone(), rma_buffers(seed)?);
    in_bottom_half(move || pass_rma(&job, remote, buffers))?;
    settle(&rig, 8)?;
    check_region(&region, 0, 65536, seed)
}

fn writes_and_reads_pass_in_a_timer(info: &Info, seed: u64) -> Result {
    let rig = Arc::new(Rig::new(info)?, GFP_KERNEL)?;
    let (region, remote) = rig.region(65536, Access::READ | Access::WRITE)?;
    let (job, buffers) = (rig.clone(), rma_buffers(seed)?);
    in_timer(move || pass_rma(&job, remote, buffers))?;
    settle(&rig, 8)?;
    check_region(&region, 0, 65536, seed)
}

fn rma_buffers(seed: u64) -> Result<KVec<(Memory, Memory)>> {
    let mut buffers = KVec::new();
    for len in [1, 100, 16384, 65536] {
        buffers.push((pattern(len, seed)?, Memory::zeroed(len)?), GFP_KERNEL)?;
    }
    Ok(buffers)
}

fn full_endpoint_refuses_in_a_bottom_half(info: &Info, seed: u64) -> Result {
    let rig = Arc::new(Rig::sized(info, 4)?, GFP_KERNEL)?;
    let mut buffers = KVec::new();
    for _ in 0..5 {
        buffers.push(pattern(10, seed)?, GFP_KERNEL)?;
    }
    let job = rig.clone();
    in_bottom_half(move || {
        for (number, bytes) in buffers.into_iter().enumerate() {
            match job
                .a
                .ep
                .send(bytes, job.to_b, Options::default(), number as u64)
            {
                Ok(_) => check!(number < 4),
                Err(refused) => {
                    check_eq!((refused.error, refused.context), (EAGAIN, 4));
                    check_eq!(number, 4);
                    check_eq!(refused.buffer.len(), 10);
                }
            }
        }
        Ok(())
    })?;
    for context in 0..4 {
        rig.b.ep.recv(Memory::zeroed(10)?, context)?;
        rig.passed(context, context, Ok(10))?;
    }
    rig.quiet()
}

fn cancel_is_done_in_a_timer(info: &Info, seed: u64) -> Result {
    let rig = Arc::new(Rig::new(info)?, GFP_KERNEL)?;
    let send = rig
        .a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 1)?;
    let receive = rig.a.ep.recv(Memory::zeroed(10)?, 2)?;
    // The message may be on its way to where it waits, and not to be had for a moment.
    until(|| {
        let job = rig.clone();
        in_timer(move || job.a.ep.cancel(send)) != Err(ENOENT)
    })?;
    let job = rig.clone();
    in_timer(move || {
        job.a.ep.cancel(receive)?;
        check_eq!(job.a.ep.cancel(send), Err(ENOENT));
        check_eq!(
            job.a.cq.read().map(|done| ended(&done)),
            Some((Kind::Send, 1, Err(ECANCELED)))
        );
        check_eq!(
            job.a.cq.read().map(|done| ended(&done)),
            Some((Kind::Recv, 2, Err(ECANCELED)))
        );
        check!(job.a.cq.read().is_none());
        Ok(())
    })?;
    rig.quiet()
}

fn posts_and_reads_pass_with_interrupts_disabled(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
    let (to, from) = (Memory::zeroed(100)?, pattern(100, seed)?);
    let locked = lock.lock();
    let received = rig.b.ep.recv(to, 1);
    let sent = rig.a.ep.send(from, rig.to_b, Options::default(), 2);
    let cancelled = rig
        .a
        .ep
        .recv(Buffer::empty(), 3)
        .map(|id| rig.a.ep.cancel(id));
    let first = rig.a.cq.read();
    drop(locked);
    received?;
    sent?;
    cancelled??;
    let first = match first {
        Some(first) => first,
        None => rig.a.next()?,
    };
    let second = rig.a.next()?;
    check_eq!(first.context + second.context, 5);
    check_eq!(ended(&rig.b.next()?), (Kind::Recv, 1, Ok(100)));
    rig.quiet()?;
    rig.close()
}

/// What a callback answers from: the endpoint is made after it.
#[pin_data]
struct Echo {
    #[pin]
    end: SpinLockIrq<Option<(Endpoint<u64>, Address)>>,
}

fn callback_reads_and_answers(info: &Info, seed: u64) -> Result {
    const ROUNDS: u64 = 100;
    let echo = Arc::pin_init(
        pin_init!(Echo { end <- new_spinlock_irq!(None) }),
        GFP_KERNEL,
    )?;
    let (answered, wrong) = (count()?, count()?);
    let callback = {
        let (echo, answered, wrong) = (echo.clone(), answered.clone(), wrong.clone());
        move |completions: &Reader<'_, u64>| {
            // Held, so that whoever takes the endpoint away closes it, and no callback does.
            let end = echo.end.lock();
            let Some((ep, to)) = end.as_ref() else {
                return;
            };
            while let Some(done) = completions.read() {
                let good = match (done.kind, done.result) {
                    // The bytes go back in the buffer that they came in.
                    (Kind::Recv, Ok(_)) => ep
                        .send(done.buffer, *to, Options::default(), done.context)
                        .is_ok(),
                    // And the buffer is posted again.
                    (Kind::Send, Ok(_)) => {
                        answered.add(1, Relaxed);
                        ep.recv(done.buffer, done.context).is_ok()
                    }
                    (_, Err(failure)) => failure.error == ECANCELED,
                    _ => false,
                };
                wrong.add(i32::from(!good), Relaxed);
            }
        }
    };
    let a = End::new(info, None)?;
    let cq =
        CompletionQueue::<u64>::new(&a.domain, 2 * DEPTH, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let small = with_sizes(info, DEPTH, DEPTH);
    let ep = a.endpoint(&small, &cq)?;
    let to_echo = a.av.insert(&ep.name())?;
    let to_a = a.av.insert(&a.ep.name())?;
    for context in 0..4 {
        ep.recv(Memory::zeroed(100)?, context)?;
    }
    *echo.end.lock() = Some((ep, to_a));
    for round in 0..ROUNDS {
        a.ep.recv(Memory::zeroed(100)?, 1)?;
        a.ep.send(pattern(100, seed + round)?, to_echo, Options::default(), 2)?;
        for _ in 0..2 {
            let done = a.next()?;
            check_eq!(done.result.map(|success| success.len), Ok(100));
            check_buffer(done.buffer, 100, seed + round)?;
        }
    }
    until(|| answered.load(Acquire) == ROUNDS as i32)?;
    check_eq!(wrong.load(Acquire), 0);
    let held = echo.end.lock().take();
    let (ep, _) = held.ok_or(EINVAL)?;
    closed(ep.close())?;
    closed(cq.close())?;
    a.close()
}
