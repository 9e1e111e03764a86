// SPDX-License-Identifier: GPL-2.0

//! Contexts: what is legal in softirq context and with interrupts disabled.

use crate::close::closed;
use crate::ops::data;
use crate::peer::Region;
use crate::rig::{
    check_buffer, check_region, count, ended, pattern, timeout, until, with_sizes, End, Rig, DEPTH,
};
use crate::soft::{in_bottom_half, in_timer};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};
use kfabric::prelude::*;

cases! {
    messages_pass_in_a_bottom_half: Caps::MSG => Order::SAS,
    messages_pass_in_a_timer: Caps::MSG => Order::SAS,
    writes_and_reads_pass_in_a_bottom_half: Caps::RMA => Order::RAW,
    writes_and_reads_pass_in_a_timer: Caps::RMA => Order::RAW,
    receives_of_every_kind_pass_in_a_bottom_half: EVERY => Order::SAS,
    full_endpoint_refuses_in_a_bottom_half: Caps::MSG => Order::SAS,
    cancel_is_done_in_a_timer: Caps::MSG,
    posts_and_reads_pass_with_interrupts_disabled: Caps::MSG,
    callback_reads_and_answers: Caps::MSG,
}

const EVERY: Caps = Caps::MSG
    .union(Caps::TAGGED)
    .union(Caps::DIRECTED_RECV)
    .union(Caps::MULTI_RECV);

/// A pair, and which of some operations were told of.
struct Passing {
    /// `None` once it is closed.
    rig: Option<Rig>,
    seed: u64,
    /// How often each receive has completed: a byte for each.
    received: Atomic<u64>,
}

/// Lengths of messages that are copied in a post, and by a worker.
const MESSAGES: [usize; 7] = [0, 1, 100, 4096, 16384, 16385, 65536];
/// Likewise, of writes and reads.
const RANGES: [usize; 4] = [1, 100, 16384, LONGEST];
const LONGEST: usize = 65536;
/// Where the contexts of reads begin.
const READS: u64 = 100;
/// How often the messages pass.
const TIMES: usize = 5;

impl Passing {
    fn new(info: &Info, seed: u64) -> Result<Arc<Self>> {
        let passing = Passing {
            rig: Some(Rig::new(info)?),
            seed,
            received: Atomic::new(0),
        };
        Ok(Arc::new(passing, GFP_KERNEL)?)
    }

    fn rig(&self) -> Result<&Rig> {
        self.rig.as_ref().ok_or(EINVAL)
    }

    /// Registers what the longest range needs.
    fn region(&self) -> Result<(Region, RemoteRegion)> {
        self.rig()?.region(LONGEST, Access::READ_WRITE)
    }

    /// What is to be received into, and what is to be sent.
    fn messages(&self) -> Result<KVec<(Memory, Memory)>> {
        let mut buffers = KVec::new();
        for (n, len) in (0..).zip(MESSAGES) {
            let from = pattern(len, self.seed + n)?;
            buffers.push((Memory::zeroed(len)?, from), GFP_KERNEL)?;
        }
        Ok(buffers)
    }

    /// Posts all messages, and reads all that a consumer can.
    fn pass_messages(&self, buffers: KVec<(Memory, Memory)>) -> Result {
        let rig = self.rig()?;
        for (n, (to, from)) in (0..).zip(buffers) {
            rig.b.recv(to, n)?;
            rig.a.ep.send(from, rig.to_b, data(n + 7), n)?;
        }
        // Long ones are moved elsewhere: these are read by whoever waits for them.
        while let Some(done) = rig.b.poll()? {
            self.receive(done)?;
        }
        Ok(())
    }

    /// Fails unless it is a receive that was not told of, of the message that was sent to it.
    fn receive(&self, done: Completion<u64>) -> Result {
        let n = done.context;
        let len = *MESSAGES.get(n as usize).ok_or(EINVAL)?;
        check_eq!(ended(&done), (Kind::Recv, n, Ok(len)));
        check_eq!(done.result.map(|success| success.data), Ok(Some(n + 7)));
        check_buffer(done.buffer, len, self.seed + n)?;
        let before = self.received.fetch_add(1 << (8 * n), Relaxed);
        check_eq!(before >> (8 * n) & 0xff, 0);
        Ok(())
    }

    /// Waits until each message was sent and received, once and whole.
    fn settle_messages(&self) -> Result {
        let rig = self.rig()?;
        let all = (0..MESSAGES.len()).fold(0, |all, n| all | 1 << (8 * n));
        while self.received.load(Relaxed) != all {
            self.receive(rig.b.next()?)?;
        }
        self.received.store(0, Relaxed);
        let sent = rig.a.gather(MESSAGES.len())?;
        for (n, (done, len)) in (0..).zip(sent.into_iter().zip(MESSAGES)) {
            check_eq!(ended(&done), (Kind::Send, n, Ok(len)));
            check_buffer(done.buffer, len, self.seed + n)?;
        }
        rig.quiet()
    }

    /// What is to be written, and what is to be read into.
    fn ranges(&self) -> Result<KVec<(Memory, Memory)>> {
        let mut buffers = KVec::new();
        for len in RANGES {
            let from = pattern(len, self.seed)?;
            buffers.push((from, Memory::zeroed(len)?), GFP_KERNEL)?;
        }
        Ok(buffers)
    }

    /// Writes each range, and reads what was written.
    fn pass_ranges(&self, remote: RemoteRegion, buffers: KVec<(Memory, Memory)>) -> Result {
        let (rig, options) = (self.rig()?, Options::default());
        for (n, (from, to)) in (0..).zip(buffers) {
            let slice = remote.slice(0, from.len() as u64)?;
            rig.a.ep.write(from, rig.to_b, slice, options, n)?;
            rig.a.ep.read(to, rig.to_b, slice, options, READS + n)?;
        }
        Ok(())
    }

    /// Waits until each range was written and read, once and whole.
    fn settle_ranges(&self) -> Result {
        let rig = self.rig()?;
        let mut all = rig.a.gather(2 * RANGES.len())?.into_iter();
        for (kind, first) in [(Kind::Write, 0), (Kind::Read, READS)] {
            for (n, len) in (first..).zip(RANGES) {
                let done = all.next().ok_or(EINVAL)?;
                check_eq!(ended(&done), (kind, n, Ok(len)));
                check_buffer(done.buffer, len, self.seed)?;
            }
        }
        rig.quiet()
    }
}

/// Closes the pair, which no job has any more.
fn close(passing: Arc<Passing>) -> Result {
    let mut passing = Arc::into_unique_or_drop(passing).ok_or(EBUSY)?;
    let rig = passing.as_mut().get_mut().rig.take();
    rig.map_or(Err(EINVAL), Rig::close)
}

fn messages_pass_in_a_bottom_half(info: &Info, seed: u64) -> Result {
    let passing = Passing::new(info, seed)?;
    for _ in 0..TIMES {
        let (job, buffers) = (passing.clone(), passing.messages()?);
        in_bottom_half(move || job.pass_messages(buffers))?;
        passing.settle_messages()?;
    }
    close(passing)
}

fn messages_pass_in_a_timer(info: &Info, seed: u64) -> Result {
    let passing = Passing::new(info, seed)?;
    for _ in 0..TIMES {
        let (job, buffers) = (passing.clone(), passing.messages()?);
        in_timer(move || job.pass_messages(buffers))?;
        passing.settle_messages()?;
    }
    close(passing)
}

fn receives_of_every_kind_pass_in_a_bottom_half(info: &Info, seed: u64) -> Result {
    let passing = Passing::new(info, seed)?;
    let len = MIN_MULTI_RECV + 1000;
    let region = passing
        .rig()?
        .b
        .register(Memory::zeroed(len)?, Access::NONE)?;
    for _ in 0..TIMES {
        let (job, slice) = (passing.clone(), region.slice(0, len)?);
        let (tagged, directed) = (Memory::zeroed(100)?, Memory::zeroed(100)?);
        let mut messages = KVec::new();
        for n in 0..4 {
            messages.push(pattern(100, seed + n)?, GFP_KERNEL)?;
        }
        in_bottom_half(move || {
            let (rig, none) = (job.rig()?, Options::default());
            rig.b.trecv(tagged, 7, 0, 0)?;
            rig.b.recv_from(directed, rig.to_a, 1)?;
            rig.b.here()?.ep.recv_multi(slice, 2, 2)?;
            // The first is tagged; the others take the receives that take them in their order.
            for (n, message) in (0..).zip(messages) {
                match n {
                    0 => rig.a.ep.tsend(message, rig.to_b, 7, none, n)?,
                    _ => rig.a.ep.send(message, rig.to_b, none, n)?,
                };
            }
            Ok(())
        })?;
        let rig = passing.rig()?;
        let mut parts = KVec::new();
        for (done, context) in rig.b.gather(4)?.into_iter().zip([0, 1, 2, 2]) {
            check_eq!(ended(&done), (Kind::Recv, context, Ok(100)));
            match done.part {
                Some(part) => parts.push((part.offset, part.released), GFP_KERNEL)?,
                None => check_buffer(done.buffer, 100, seed + context)?,
            }
        }
        check_eq!(parts.len(), 2);
        check!(parts.contains(&(0, false)) && parts.contains(&(100, true)));
        check_region(&region, 0, 100, seed + 2)?;
        check_region(&region, 100, 100, seed + 3)?;
        for (done, context) in rig.a.gather(4)?.into_iter().zip(0..) {
            check_eq!(ended(&done), (Kind::Send, context, Ok(100)));
        }
        rig.quiet()?;
    }
    drop(closed(region.close_wait(timeout()))?);
    close(passing)
}

fn writes_and_reads_pass_in_a_bottom_half(info: &Info, seed: u64) -> Result {
    let passing = Passing::new(info, seed)?;
    let (region, remote) = passing.region()?;
    let (job, buffers) = (passing.clone(), passing.ranges()?);
    in_bottom_half(move || job.pass_ranges(remote, buffers))?;
    passing.settle_ranges()?;
    check_region(&region, 0, LONGEST, seed)?;
    drop(closed(region.close_wait(timeout()))?);
    close(passing)
}

fn writes_and_reads_pass_in_a_timer(info: &Info, seed: u64) -> Result {
    let passing = Passing::new(info, seed)?;
    let (region, remote) = passing.region()?;
    let (job, buffers) = (passing.clone(), passing.ranges()?);
    in_timer(move || job.pass_ranges(remote, buffers))?;
    passing.settle_ranges()?;
    check_region(&region, 0, LONGEST, seed)?;
    drop(closed(region.close_wait(timeout()))?);
    close(passing)
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
        rig.b.recv(Memory::zeroed(10)?, context)?;
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
        check_eq!(job.a.ep.cancel(receive), Err(ENOENT));
        check_eq!(job.a.ep.cancel(send), Err(ENOENT));
        Ok(())
    })?;
    // The peer may have been asked for the message.
    let both = rig.a.gather(2)?;
    check_eq!(ended(&both[0]), (Kind::Send, 1, Err(ECANCELED)));
    check_eq!(ended(&both[1]), (Kind::Recv, 2, Err(ECANCELED)));
    rig.quiet()
}

fn posts_and_reads_pass_with_interrupts_disabled(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
    let (to, from) = (Memory::zeroed(100)?, pattern(100, seed)?);
    let locked = lock.lock();
    let received = rig.b.recv(to, 1);
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
