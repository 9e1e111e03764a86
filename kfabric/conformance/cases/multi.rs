// SPDX-License-Identifier: GPL-2.0

//! Receives that take several messages in one buffer.

use crate::close::{busy, closed};
use crate::ops::{check_refused, data, error};
use crate::peer::Region;
use crate::rig::{
    check_region, count, ended, pattern, register, timeout, with_sizes, Base, Counted, End, Rig,
    DEPTH,
};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::Acquire;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

cases! {
    messages_stand_behind_each_other: MULTI => Order::SAS,
    multi_receive_ends_below_the_least_space: MULTI => Order::SAS,
    least_space_has_a_default: MULTI => Order::SAS,
    multi_receive_ends_after_so_many_messages: MULTI => Order::SAS,
    messages_that_wait_fill_a_multi_receive: MULTI => Order::SAS,
    many_messages_that_wait_fill_a_multi_receive: MULTI => Order::SAS,
    message_longer_than_the_space_fails_and_takes_none: MULTI => Order::SAS,
    next_multi_receive_takes_what_the_first_does_not: MULTI => Order::SAS,
    long_messages_end_before_their_buffer_comes_back: MULTI,
    part_of_a_multi_receive_can_be_sent_on: MULTI,
    multi_receive_takes_its_peers_messages: MULTI.union(Caps::DIRECTED_RECV),
    multi_receive_takes_what_its_peer_sent_among_others: MULTI.union(Caps::DIRECTED_RECV) => Order::SAS,
    data_of_a_write_takes_no_space: MULTI.union(Caps::REMOTE_CQ_DATA),
    cancelled_multi_receive_gives_its_buffer_back: MULTI,
    closed_endpoint_gives_the_buffer_of_a_multi_receive_back: MULTI,
    slots_of_a_multi_receive_come_back: MULTI,
    multi_receive_that_can_not_be_is_refused: MULTI,
}

const MULTI: Caps = Caps::MSG.union(Caps::MULTI_RECV);

/// A sender, and a receiver with an endpoint of its own least space and a region.
// In the order in which they must be closed.
struct Host {
    ep: Endpoint<u64>,
    region: Region,
    base: Base,
    a: KBox<End>,
    /// The receiver, as A knows it.
    to: Address,
    /// A, as the receiver knows it.
    from: Address,
}

impl Host {
    /// With a region of `len` bytes of value 0, and the default least space if `least` is none.
    fn new(info: &Info, len: usize, least: Option<usize>) -> Result<Self> {
        let a = End::new(info, None)?;
        let info = with_sizes(info, DEPTH, DEPTH);
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let cq = CompletionQueue::new(&domain, 2 * DEPTH, None)?;
        let av = AddressVector::new(&domain)?;
        let builder = Endpoint::builder(&domain, &info).cq(&cq).av(&av);
        let builder = match least {
            Some(least) => builder.min_multi_recv(least),
            None => builder,
        };
        let ep = builder.enable()?;
        Ok(Host {
            to: a.av.insert(&ep.name())?,
            from: av.insert(&a.ep.name())?,
            region: register(&domain, Memory::zeroed(len)?, Access::NONE)?,
            ep,
            base: Base {
                av,
                cq,
                eq: None,
                domain,
                fabric,
            },
            a,
        })
    }

    /// Posts a receive of so many messages into some bytes of the region.
    fn post(&self, (offset, len): (usize, usize), messages: usize, context: u64) -> Result<OpId> {
        let slice = self.region.slice(offset, len)?;
        Ok(self.ep.recv_multi(slice, messages, context)?)
    }

    /// Has A send a pattern.
    fn send(&self, len: usize, seed: u64, context: u64) -> Result {
        let (memory, options) = (pattern(len, seed)?, Options::default());
        self.a.ep.send(memory, self.to, options, context)?;
        Ok(())
    }

    fn next(&self) -> Result<Completion<u64>> {
        self.base.cq.read_wait(timeout())
    }

    /// Fails unless A has next sent a message, with that result.
    #[track_caller]
    fn sent(&self, how: Result<usize>) -> Result {
        check_eq!(
            self.a
                .next()?
                .result
                .map(|success| success.len)
                .map_err(|failure| failure.error),
            how
        );
        Ok(())
    }

    /// Fails unless a message of a pattern has come next, with this context, at `at` of a receive into
    /// `posted` of the region, which it ends or not.
    #[track_caller]
    fn received(
        &self,
        context: u64,
        posted: (usize, usize),
        (at, len, seed): (usize, usize, u64),
        released: bool,
    ) -> Result {
        let done = self.next()?;
        check_eq!(ended(&done), (Kind::Recv, context, Ok(len)));
        let offset = at;
        check_eq!(done.part, Some(Part { offset, released }));
        // The buffer is all that was posted, or the bytes of the message.
        let expected = if released {
            posted
        } else {
            (posted.0 + at, len)
        };
        check_eq!((done.buffer.offset(), done.buffer.len()), expected);
        check_region(&self.region, posted.0 + at, len, seed)?;
        check!(done.buffer.into_slice().is_ok());
        Ok(())
    }

    fn quiet(&self) -> Result {
        check!(self.base.cq.read().is_none());
        check!(self.a.cq.read().is_none());
        Ok(())
    }

    fn close(self) -> Result {
        self.quiet()?;
        closed(self.ep.close())?;
        check!(self.base.cq.read().is_none());
        drop(closed(self.region.close_wait(timeout()))?);
        self.base.close()?;
        self.a.close()
    }
}

fn messages_stand_behind_each_other(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 1100, Some(100))?;
    let posted = (50, 1000);
    for _ in 0..2 {
        host.post(posted, 20, 7)?;
        let mut at = 0;
        // Of no length, and of any alignment.
        for len in [100, 1, 0, 399, 400] {
            host.send(len, seed + at as u64, 1)?;
            let released = at + len == 900;
            check!(!released || len == 400);
            // Exactly the least space is left before the last.
            host.received(7, posted, (at, len, seed + at as u64), false)?;
            host.sent(Ok(len))?;
            at += len;
        }
        host.send(1, seed, 1)?;
        host.received(7, posted, (900, 1, seed), true)?;
        host.sent(Ok(1))?;
    }
    host.close()
}

fn multi_receive_ends_below_the_least_space(info: &Info, seed: u64) -> Result {
    for (least, first, ends) in [
        (100, 900, false),
        (100, 901, true),
        (1, 999, false),
        (1, 1000, true),
        (0, 999, false),
        (0, 1000, true),
        (1000, 0, false),
        (1000, 1, true),
        (1001, 0, true),
    ] {
        let host = Host::new(info, 1000, Some(least))?;
        host.post((0, 1000), 8, 1)?;
        host.send(first, seed, 1)?;
        host.received(1, (0, 1000), (0, first, seed), ends)?;
        host.sent(Ok(first))?;
        if !ends {
            let rest = 1000 - first;
            host.send(rest, seed + 1, 1)?;
            host.received(1, (0, 1000), (first, rest, seed + 1), true)?;
            host.sent(Ok(rest))?;
        }
        host.close()?;
    }
    Ok(())
}

fn least_space_has_a_default(info: &Info, seed: u64) -> Result {
    let len = MIN_MULTI_RECV + 100;
    let host = Host::new(info, len, None)?;
    host.post((0, len), 8, 1)?;
    for (at, bytes, ends) in [(0, 100, false), (100, 1, true)] {
        host.send(bytes, seed, 1)?;
        host.received(1, (0, len), (at, bytes, seed), ends)?;
        host.sent(Ok(bytes))?;
    }
    host.close()
}

fn multi_receive_ends_after_so_many_messages(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 1000, Some(1))?;
    for messages in [1, 2, 5, DEPTH] {
        host.post((0, 1000), messages, 1)?;
        for n in 0..messages {
            let (len, last) = (n % 3, n + 1 == messages);
            let at = (0..n).map(|n| n % 3).sum();
            host.send(len, seed, 1)?;
            host.received(1, (0, 1000), (at, len, seed), last)?;
            host.sent(Ok(len))?;
        }
        host.quiet()?;
    }
    host.close()
}

fn messages_that_wait_fill_a_multi_receive(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 100_000, Some(10_000))?;
    for first in [0, 3] {
        // Some are here already, others come.
        let lens = [100, 20_000, 0, 9000, 30_000, 25_000, 10_000];
        for (n, len) in lens.into_iter().take(7 - first).enumerate() {
            host.send(len, seed + n as u64, n as u64)?;
        }
        host.post((0, 100_000), 20, 5)?;
        for (n, len) in lens.into_iter().enumerate().skip(7 - first) {
            host.send(len, seed + n as u64, n as u64)?;
        }
        // They stand in the order in which they came, but end in any.
        let mut seen = 0;
        for n in 0..7 {
            let done = host.next()?;
            let part = done.part.ok_or(EINVAL)?;
            let which = (0..7).find(|n| {
                part.offset == lens.iter().take(*n).sum::<usize>()
                    && done.result.map(|success| success.len) == Ok(lens[*n])
            });
            let which = which.ok_or(EINVAL)?;
            check_eq!(part.released, which == 6);
            // Nothing comes after the buffer.
            check!(!part.released || n == 6);
            check_eq!(done.context, 5);
            check_region(&host.region, part.offset, lens[which], seed + which as u64)?;
            seen |= 1 << which;
        }
        check_eq!(seen, 0x7f);
        for done in host.a.gather(7)? {
            check_eq!(error(&done), None);
        }
    }
    host.close()
}

/// More than the post of the receive may move itself.
fn many_messages_that_wait_fill_a_multi_receive(info: &Info, seed: u64) -> Result {
    const LEN: usize = 3000;
    let host = Host::new(info, DEPTH * LEN, Some(LEN))?;
    for n in 0..DEPTH {
        host.send(LEN, seed + n as u64, n as u64)?;
    }
    host.post((0, DEPTH * LEN), DEPTH, 5)?;
    let (mut released, mut sum) = (0, 0);
    for _ in 0..DEPTH {
        let done = host.next()?;
        check_eq!(ended(&done), (Kind::Recv, 5, Ok(LEN)));
        let part = done.part.ok_or(EINVAL)?;
        let nth = part.offset / LEN;
        check_eq!(part.offset % LEN, 0);
        check_region(&host.region, part.offset, LEN, seed + nth as u64)?;
        released += usize::from(part.released);
        sum += nth;
    }
    check_eq!((released, sum), (1, DEPTH * (DEPTH - 1) / 2));
    for done in host.a.gather(DEPTH)? {
        check_eq!(error(&done), None);
    }
    host.quiet()?;
    host.close()
}

fn message_longer_than_the_space_fails_and_takes_none(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 1000, Some(10))?;
    for long in [501, 60_000] {
        host.post((0, 1000), 4, 1)?;
        host.send(500, seed, 1)?;
        host.received(1, (0, 1000), (0, 500, seed), false)?;
        host.sent(Ok(500))?;
        host.send(long, seed, 1)?;
        let done = host.next()?;
        check_eq!(ended(&done), (Kind::Recv, 1, Err(EMSGSIZE)));
        let (offset, released) = (500, false);
        check_eq!(done.part, Some(Part { offset, released }));
        drop(done);
        host.sent(Err(EMSGSIZE))?;
        host.send(400, seed + 1, 1)?;
        host.received(1, (0, 1000), (500, 400, seed + 1), false)?;
        host.sent(Ok(400))?;
        // Also the last may be too long, and brings the buffer back.
        host.send(long, seed, 1)?;
        let done = host.next()?;
        check_eq!(ended(&done), (Kind::Recv, 1, Err(EMSGSIZE)));
        let (offset, released) = (900, true);
        check_eq!(done.part, Some(Part { offset, released }));
        check_eq!((done.buffer.offset(), done.buffer.len()), (0, 1000));
        host.sent(Err(EMSGSIZE))?;
    }
    host.close()
}

fn next_multi_receive_takes_what_the_first_does_not(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 3000, Some(200))?;
    host.post((0, 1000), 8, 1)?;
    host.ep.recv(host.region.slice(1000, 1000)?, 2)?;
    host.post((2000, 1000), 8, 3)?;
    let (first, one, next) = ((0, 1000), (1000, 1000), (2000, 1000));
    for (context, posted, at, len, ends) in [
        (1, first, 0, 700, false),
        (1, first, 700, 200, true),
        (2, one, 0, 300, true),
        (3, next, 0, 300, false),
        (3, next, 300, 600, true),
    ] {
        host.send(len, seed + at as u64, 9)?;
        if context == 2 {
            let done = host.next()?;
            check_eq!((ended(&done), done.part), ((Kind::Recv, 2, Ok(len)), None));
            check_eq!((done.buffer.offset(), done.buffer.len()), posted);
            check_region(&host.region, posted.0, len, seed)?;
        } else {
            host.received(context, posted, (at, len, seed + at as u64), ends)?;
        }
        host.sent(Ok(len))?;
    }
    host.close()
}

fn long_messages_end_before_their_buffer_comes_back(info: &Info, seed: u64) -> Result {
    const LEN: usize = 1 << 20;
    // There is room for the longest until the buffer comes back, in whatever order they are offered.
    const LONGEST: usize = 100_000;
    let host = Host::new(info, LEN, Some(LONGEST))?;
    for _ in 0..3 {
        host.post((0, LEN), DEPTH, 1)?;
        // Short ones may overtake long ones, and the last be a short one.
        let mut sent = 0;
        let mut released = false;
        let mut ends: usize = 0;
        while !released {
            while sent < 8 + ends && sent < DEPTH {
                let len = [LONGEST, 1, 20_000, 65_536][sent % 4];
                host.send(len, seed + sent as u64, sent as u64)?;
                sent += 1;
            }
            let done = host.next()?;
            let part = done.part.ok_or(EINVAL)?;
            check_eq!(error(&done), None);
            ends += 1;
            released = part.released;
            if released {
                check_eq!((done.buffer.offset(), done.buffer.len()), (0, LEN));
            }
        }
        // All that were taken have ended: what comes now is not of this receive.
        check!(host.base.cq.read().is_none());
        // The others wait for the next.
        host.ep.recv(Memory::zeroed(0)?, 2)?;
        for _ in ends..sent {
            host.ep.recv(Memory::zeroed(LONGEST)?, 3)?;
        }
        let mut left = sent - ends + 1;
        host.send(0, seed, 99)?;
        while left > 0 {
            drop(host.next()?);
            left -= 1;
        }
        drop(host.a.gather(sent + 1)?);
    }
    host.close()
}

fn part_of_a_multi_receive_can_be_sent_on(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 1000, Some(1))?;
    let to_a = host.from;
    host.post((0, 1000), 4, 1)?;
    host.send(300, seed, 1)?;
    let done = host.next()?;
    host.sent(Ok(300))?;
    host.a.ep.recv(Memory::zeroed(300)?, 5)?;
    host.ep.send(done.buffer, to_a, Options::default(), 2)?;
    check_eq!(error(&host.next()?), None);
    let back = host.a.next()?;
    check_eq!(ended(&back), (Kind::Recv, 5, Ok(300)));
    crate::rig::check_buffer(back.buffer, 300, seed)?;
    // The receive goes on meanwhile.
    host.send(700, seed + 1, 1)?;
    host.received(1, (0, 1000), (300, 700, seed + 1), true)?;
    host.sent(Ok(700))?;
    host.close()
}

fn multi_receive_takes_its_peers_messages(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 1000, Some(500))?;
    let other = End::new(info, None)?;
    let to = other.av.insert(&host.ep.name())?;
    let slice = host.region.slice(0, 1000)?;
    host.ep.recv_multi_from(slice, host.from, 8, 1)?;
    // Those of others wait.
    other
        .ep
        .send(pattern(10, seed + 5)?, to, Options::default(), 1)?;
    for (at, len, ends) in [(0, 400, false), (400, 101, true)] {
        host.send(len, seed, 1)?;
        host.received(1, (0, 1000), (at, len, seed), ends)?;
        host.sent(Ok(len))?;
    }
    host.post((0, 1000), 1, 2)?;
    host.received(2, (0, 1000), (0, 10, seed + 5), true)?;
    check_eq!(error(&other.next()?), None);
    other.close()?;
    host.close()
}

fn multi_receive_takes_what_its_peer_sent_among_others(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 1000, Some(500))?;
    let other = End::new(info, None)?;
    let to = other.av.insert(&host.ep.name())?;
    for (n, len) in [(0, 400), (1, 101)] {
        other
            .ep
            .send(pattern(10, seed + n)?, to, Options::default(), n)?;
        host.send(len, seed, 1)?;
    }
    fsleep(Delta::from_millis(50));
    let slice = host.region.slice(0, 1000)?;
    host.ep.recv_multi_from(slice, host.from, 8, 1)?;
    for (at, len, ends) in [(0, 400, false), (400, 101, true)] {
        host.received(1, (0, 1000), (at, len, seed), ends)?;
        host.sent(Ok(len))?;
    }
    // Those of the other are there yet, in their order.
    host.post((0, 1000), 2, 2)?;
    for (at, n) in [(0, 0), (10, 1)] {
        host.received(2, (0, 1000), (at, 10, seed + n), n == 1)?;
        check_eq!(error(&other.next()?), None);
    }
    other.close()?;
    host.close()
}

fn data_of_a_write_takes_no_space(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 1000, Some(100))?;
    let target = register(&host.base.domain, Memory::zeroed(64)?, Access::WRITE)?;
    let slice = RemoteRegion::parse(&target.descriptor()?)?.slice(0, 64)?;
    host.post((0, 1000), 4, 1)?;
    host.send(500, seed, 1)?;
    host.received(1, (0, 1000), (0, 500, seed), false)?;
    host.sent(Ok(500))?;
    for (messages, released) in [(2, false), (4, true)] {
        host.a
            .ep
            .write(pattern(64, seed)?, host.to, slice, data(messages), 2)?;
        let told = host.next()?;
        check_eq!(ended(&told), (Kind::RemoteWrite, 1, Ok(64)));
        check_eq!(told.result.map(|success| success.data), Ok(Some(messages)));
        let offset = if released { 800 } else { 500 };
        check_eq!(told.part, Some(Part { offset, released }));
        let whole = if released { 1000 } else { 0 };
        check_eq!(told.buffer.len(), whole);
        check_eq!(error(&host.a.next()?), None);
        if !released {
            host.send(300, seed + 1, 1)?;
            host.received(1, (0, 1000), (500, 300, seed + 1), false)?;
            host.sent(Ok(300))?;
        }
    }
    drop(closed(target.close_wait(timeout()))?);
    host.close()
}

fn cancelled_multi_receive_gives_its_buffer_back(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 1000, Some(100))?;
    for messages in [0, 2] {
        let id = host.post((0, 1000), 8, 1)?;
        for n in 0..messages {
            host.send(100, seed, 1)?;
            host.received(1, (0, 1000), (n * 100, 100, seed), false)?;
            host.sent(Ok(100))?;
        }
        host.ep.cancel(id)?;
        let done = host.next()?;
        check_eq!(ended(&done), (Kind::Recv, 1, Err(ECANCELED)));
        let (offset, released) = (messages * 100, true);
        check_eq!(done.part, Some(Part { offset, released }));
        check_eq!((done.buffer.offset(), done.buffer.len()), (0, 1000));
        check_eq!(host.ep.cancel(id).err(), Some(ENOENT));
        // What comes now is for another, which has all slots to itself.
        host.send(100, seed, 2)?;
        host.post((0, 1000), DEPTH, 3)?;
        host.received(3, (0, 1000), (0, 100, seed), false)?;
        host.sent(Ok(100))?;
        host.send(900, seed, 2)?;
        host.received(3, (0, 1000), (100, 900, seed), true)?;
        host.sent(Ok(900))?;
        check_eq!(host.ep.cancel(id).err(), Some(ENOENT));
    }
    host.close()
}

fn closed_endpoint_gives_the_buffer_of_a_multi_receive_back(info: &Info, seed: u64) -> Result {
    let host = Host::new(info, 2000, Some(100))?;
    host.post((0, 1000), 8, 1)?;
    host.post((1000, 1000), 8, 2)?;
    host.send(100, seed, 1)?;
    let first = host.next()?;
    check_eq!(ended(&first), (Kind::Recv, 1, Ok(100)));
    host.sent(Ok(100))?;
    let Host {
        ep,
        region,
        base,
        a,
        ..
    } = host;
    closed(ep.close())?;
    for (context, posted, filled) in [(1, (0, 1000), 100), (2, (1000, 1000), 0)] {
        let done = base.cq.read().ok_or(ENOENT)?;
        check_eq!(ended(&done), (Kind::Recv, context, Err(ECANCELED)));
        let (offset, released) = (filled, true);
        check_eq!(done.part, Some(Part { offset, released }));
        check_eq!((done.buffer.offset(), done.buffer.len()), posted);
    }
    check!(base.cq.read().is_none());
    // The slice of a message keeps the region.
    let region = busy(region.close())?;
    drop(first);
    drop(closed(region.close())?);
    base.close()?;
    a.close()
}

fn slots_of_a_multi_receive_come_back(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let contexts = count()?;
    let cq = CompletionQueue::<Shared>::new(&rig.b.here()?.domain, 9, None)?;
    let info = with_sizes(info, 1, 8);
    let builder = Endpoint::builder(&rig.b.here()?.domain, &info);
    let ep = builder
        .cq(&cq)
        .av(&rig.b.here()?.av)
        .min_multi_recv(10)
        .enable()?;
    let to = rig.a.av.insert(&ep.name())?;
    let region = rig.b.register(Memory::zeroed(100)?, Access::NONE)?;
    for round in 0..20 {
        let posted = ep.recv_multi(region.slice(0, 100)?, 6, Shared::new(&contexts)?);
        posted.map_err(|refused| refused.error)?;
        check_eq!(contexts.load(Acquire), 1);
        // Two slots are left; one more message than that can't be received at once.
        let refused = ep.recv_multi(region.slice(0, 100)?, 3, Shared::new(&contexts)?);
        let Err(refused) = refused else {
            return Err(EINVAL);
        };
        check_eq!((refused.error, refused.buffer.len()), (EAGAIN, 100));
        drop(refused);
        // It ends after the second: three slots are not needed.
        for len in [50, 41] {
            rig.a
                .ep
                .send(pattern(len, seed)?, to, Options::default(), round)?;
            check_eq!(error(&rig.a.next()?), None);
            let done = cq.read_wait(timeout())?;
            check_eq!(done.part.map(|part| part.released), Some(len == 41));
        }
        check_eq!(contexts.load(Acquire), 0);
    }
    closed(ep.close())?;
    closed(cq.close())?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

/// A context that is counted once, however many clones there are.
#[derive(Clone)]
struct Shared {
    _counted: kernel::sync::Arc<Counted>,
}

impl Shared {
    fn new(contexts: &kernel::sync::Arc<kernel::sync::atomic::Atomic<i32>>) -> Result<Self> {
        let counted = kernel::sync::Arc::new(Counted::new(contexts), GFP_KERNEL)?;
        Ok(Shared { _counted: counted })
    }
}

fn multi_receive_that_can_not_be_is_refused(info: &Info, _seed: u64) -> Result {
    let host = Host::new(info, 100, None)?;
    let slice = || host.region.slice(0, 100);
    // Owned memory could not be read before it comes back.
    let posted = host.ep.recv_multi(Memory::zeroed(100)?, 2, 1);
    check!(check_refused(posted, EINVAL, 1)?.into_memory().is_ok());
    check_refused(host.ep.recv_multi(Buffer::empty(), 2, 1), EINVAL, 1)?;
    for messages in [0, DEPTH + 1, usize::MAX] {
        let posted = host.ep.recv_multi(slice()?, messages, 1);
        check_eq!(check_refused(posted, EINVAL, 1)?.len(), 100);
    }
    let nobody = Address::from_raw(u64::MAX - 1);
    check_refused(
        host.ep.recv_multi_from(slice()?, nobody, 2, 1),
        EHOSTUNREACH,
        1,
    )?;
    // Of an endpoint that was not enabled for it, and of another domain.
    let cq = CompletionQueue::<u64>::new(&host.base.domain, 4, None)?;
    let narrow = Info {
        caps: Caps::MSG,
        ..with_sizes(info, 2, 2)
    };
    let builder = Endpoint::builder(&host.base.domain, &narrow);
    let ep = builder.cq(&cq).av(&host.base.av).enable()?;
    check_refused(ep.recv_multi(slice()?, 2, 1), EOPNOTSUPP, 1)?;
    closed(ep.close())?;
    closed(cq.close())?;
    check_refused(host.a.ep.recv_multi(slice()?, 2, 1), EINVAL, 1)?;
    host.close()
}
