// SPDX-License-Identifier: GPL-2.0

//! Counters: what they count, waiting for a value, and the callback.

use crate::close::{busy, closed};
use crate::crew::Crew;
use crate::ops::{data, error, pmem};
use crate::rig::{
    count, lasts, pattern, register, timeout, until, with_sizes, Counted, End, Inside, Rig, DEPTH,
};
use crate::soft::spawn;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

cases! {
    counter_counts_what_it_is_told: Caps::NONE,
    wait_for_a_count_ends_at_its_time: Caps::NONE,
    counts_of_many_contexts_lose_none: Caps::NONE,
    each_kind_is_counted_by_its_counter: ALL,
    atomics_count_by_whether_they_fetch: Caps::ATOMIC,
    data_of_a_write_is_no_message: Caps::REMOTE_CQ_DATA,
    failure_counts_as_an_error: Caps::RMA.union(Caps::MSG),
    post_that_is_refused_is_not_counted: Caps::MSG,
    count_comes_no_later_than_the_completion: Caps::RMA,
    silent_operations_are_counted_when_they_have_let_go: Caps::RMA,
    endpoints_share_a_counter: Caps::MSG,
    accesses_of_peers_are_counted_at_their_target: Caps::RMA.union(Caps::ATOMIC),
    access_that_is_refused_counts_at_its_initiator_only: Caps::RMA,
    close_of_an_endpoint_counts_what_it_cancels: Caps::MSG,
    wait_for_a_count_ends_with_an_operation: Caps::RMA,
    wait_for_a_count_ends_with_an_error: Caps::MSG,
    threshold_fires_once_and_is_armed_again: Caps::MSG,
    callback_of_a_counter_posts_the_next: Caps::RMA,
    callback_of_a_counter_is_never_called_inside_a_post: Caps::MSG,
    callback_of_a_counter_does_not_come_after_the_close: Caps::MSG,
    counter_in_use_is_not_closed: Caps::MSG,
    counter_dropped_before_its_endpoint_counts_on: Caps::MSG,
    counter_of_another_domain_is_refused: Caps::NONE,
}

const ALL: Caps = Caps::MSG.union(Caps::RMA).union(Caps::COMMIT);

/// How long a case waits for what must not happen.
const QUIET: Delta = Delta::from_millis(30);

const SILENT: Options = Options {
    level: Level::Delivered,
    data: None,
    fence: false,
    silent: true,
    more: false,
};

/// Value and errors.
fn both(cntr: &Counter) -> (u64, u64) {
    (cntr.value(), cntr.errors())
}

/// An endpoint that is counted, with a queue of its own, beside that of an end.
// In the order in which they must be closed.
struct Side {
    ep: Endpoint<u64>,
    cq: CompletionQueue<u64>,
}

impl Side {
    fn new(end: &End, info: &Info, counters: &[(Counts, &Counter)]) -> Result<Self> {
        let info = with_sizes(info, DEPTH, DEPTH);
        let cq = CompletionQueue::new(&end.domain, 2 * DEPTH, None)?;
        let mut builder = Endpoint::builder(&end.domain, &info).cq(&cq).av(&end.av);
        for (counts, cntr) in counters {
            builder = builder.counter(*counts, cntr);
        }
        Ok(Side {
            ep: builder.enable()?,
            cq,
        })
    }

    /// Fails unless that is what completes next.
    #[track_caller]
    fn ends(&self, kind: Kind, expected: Option<Error>) -> Result {
        let done = self.cq.read_wait(timeout())?;
        check_eq!((done.kind, error(&done)), (kind, expected));
        Ok(())
    }

    /// Sends so many bytes to the pair's B, which receives at most 10.
    fn send(&self, rig: &Rig, len: usize) -> Result {
        let expected = (len > 10).then_some(EMSGSIZE);
        rig.b.ep.recv(Memory::zeroed(10)?, 1)?;
        self.ep
            .send(Memory::zeroed(len)?, rig.to_b, Options::default(), 1)?;
        self.ends(Kind::Send, expected)?;
        check_eq!(error(&rig.b.next()?), expected);
        Ok(())
    }

    /// Receives so many bytes of the pair's B, 10 at most.
    fn recv(&self, rig: &Rig, len: usize) -> Result {
        let expected = (len > 10).then_some(EMSGSIZE);
        let to = rig.b.av.insert(&self.ep.name())?;
        self.ep.recv(Memory::zeroed(10)?, 1)?;
        rig.b
            .ep
            .send(Memory::zeroed(len)?, to, Options::default(), 1)?;
        self.ends(Kind::Recv, expected)?;
        check_eq!(error(&rig.b.next()?), expected);
        rig.b.av.remove(to)
    }

    /// Writes zeros.
    fn write(&self, rig: &Rig, slice: RemoteSlice, options: Options) -> Result {
        let zeros = Memory::zeroed(slice.len() as usize)?;
        self.ep.write(zeros, rig.to_b, slice, options, 1)?;
        self.ends(Kind::Write, None)
    }

    fn close(self) -> Result {
        closed(self.ep.close())?;
        closed(self.cq.close())
    }
}

fn counter_counts_what_it_is_told(info: &Info, _seed: u64) -> Result {
    let end = End::new(info, None)?;
    let (cntr, other) = (
        Counter::new(&end.domain, None)?,
        Counter::new(&end.domain, None)?,
    );
    check_eq!(both(&cntr), (0, 0));
    cntr.wait(0, 0)?;
    cntr.add(5);
    cntr.add_errors(2);
    check_eq!(both(&cntr), (5, 2));
    cntr.set(3);
    check_eq!(both(&cntr), (3, 2));
    cntr.wait(3, 0)?;
    // Beyond the greatest value it goes on at 0.
    cntr.set(u64::MAX);
    cntr.wait(u64::MAX, 0)?;
    cntr.add(2);
    check_eq!(both(&cntr), (1, 2));
    check_eq!(cntr.wait(2, 0), Err(ETIMEDOUT));
    cntr.add_errors(u64::MAX);
    check_eq!(both(&cntr), (1, 1));
    check_eq!(both(&other), (0, 0));
    // There is nobody to tell.
    check_eq!(cntr.notify_at(0), Err(EINVAL));
    closed(cntr.close())?;
    closed(other.close())?;
    end.close()
}

fn wait_for_a_count_ends_at_its_time(info: &Info, _seed: u64) -> Result {
    const MILLIS: u32 = 200;
    let end = End::new(info, None)?;
    let cntr = Counter::new(&end.domain, None)?;
    cntr.add(9);
    cntr.add_errors(1);
    check_eq!(cntr.wait(10, 0), Err(ETIMEDOUT));
    lasts(MILLIS, || cntr.wait(10, MILLIS))?;
    closed(cntr.close())?;
    end.close()
}

fn counts_of_many_contexts_lose_none(info: &Info, _seed: u64) -> Result {
    const MANY: u64 = 2000;
    const THREADS: usize = 3;
    let end = End::new(info, None)?;
    let cntr = Arc::new(Counter::new(&end.domain, None)?, GFP_KERNEL)?;
    let mut jobs = KVec::new();
    let theirs = cntr.clone();
    let job = move |_: usize| {
        for _ in 0..MANY {
            theirs.add(1);
            theirs.add_errors(2);
        }
        Ok(())
    };
    let job = Arc::new(job, GFP_KERNEL)?;
    for _ in 0..THREADS {
        let job = job.clone();
        jobs.push(spawn(move || job(0))?, GFP_KERNEL)?;
    }
    let crew = Crew::start(THREADS, job)?;
    let total = 2 * THREADS as u64 * MANY;
    // What is counted meanwhile as an error ends a wait.
    let waited = loop {
        match cntr.wait(total, timeout()) {
            Err(EIO) => {}
            ended => break ended,
        }
    };
    check_eq!(waited, Ok(()));
    crew.join()?;
    for job in jobs {
        job.wait()?;
    }
    check_eq!(both(&cntr), (total, 2 * total));
    drop(cntr);
    end.close()
}

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
    drop(closed(region.close())?);
    rig.close()
}

/// An atomic, the length of its local buffer, and whether it brings what was there.
const ATOMICS: [(AtomicAction, usize, bool); 3] = [
    (AtomicAction::update(AtomicOp::Sum, Datatype::U64), 8, false),
    (AtomicAction::fetch(AtomicOp::Sum, Datatype::U64), 16, true),
    (AtomicAction::compare(Datatype::U64), 24, true),
];

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
    drop(closed(region.close())?);
    closed(read.close())?;
    closed(write.close())?;
    rig.close()
}

fn data_of_a_write_is_no_message(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::WRITE)?;
    let (recv, write) = (
        Counter::new(&rig.b.domain, None)?,
        Counter::new(&rig.b.domain, None)?,
    );
    let counters = [(Counts::RECV, &recv), (Counts::REMOTE_WRITE, &write)];
    let side = Side::new(&rig.b, info, &counters)?;
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
    drop(closed(region.close())?);
    closed(recv.close())?;
    closed(write.close())?;
    rig.close()
}

fn failure_counts_as_an_error(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::WRITE)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let kinds = Counts::SEND | Counts::RECV | Counts::WRITE;
    let side = Side::new(&rig.a, info, &[(kinds, &cntr)])?;
    side.send(&rig, 11)?;
    check_eq!(both(&cntr), (0, 1));
    side.recv(&rig, 11)?;
    check_eq!(both(&cntr), (0, 2));
    drop(closed(region.close())?);
    for (errors, options) in [(3, Options::default()), (4, SILENT)] {
        let slice = remote.slice(0, 0)?;
        side.ep
            .write(Buffer::empty(), rig.to_b, slice, options, 1)?;
        side.ends(Kind::Write, Some(EKEYREJECTED))?;
        check_eq!(both(&cntr), (0, errors));
    }
    side.send(&rig, 10)?;
    check_eq!(both(&cntr), (1, 4));
    side.close()?;
    closed(cntr.close())?;
    rig.close()
}

fn post_that_is_refused_is_not_counted(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let kinds = Counts::SEND | Counts::RECV;
    let side = Side::new(&rig.a, info, &[(kinds, &cntr)])?;
    let nobody = Address::from_raw(u64::MAX);
    let options = Options::default();
    check!(side.ep.send(Buffer::empty(), nobody, options, 1).is_err());
    let mut last = None;
    for n in 0..DEPTH as u64 {
        last = Some(side.ep.recv(Buffer::empty(), n)?);
    }
    check!(side.ep.recv(Buffer::empty(), 1).is_err());
    // Nor what is in flight.
    check_eq!(both(&cntr), (0, 0));
    side.ep.cancel(last.ok_or(EINVAL)?)?;
    check_eq!(both(&cntr), (0, 1));
    side.close()?;
    check_eq!(both(&cntr), (0, DEPTH as u64));
    closed(cntr.close())?;
    rig.close()
}

fn count_comes_no_later_than_the_completion(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(50_000, Access::WRITE)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::WRITE, &cntr)])?;
    let mut completed = 0;
    for _ in 0..10 {
        for n in 0..16 {
            let len = if n % 2 == 0 { 50_000 } else { 50 };
            let (zeros, slice) = (Memory::zeroed(len)?, remote.slice(0, len as u64)?);
            side.ep
                .write(zeros, rig.to_b, slice, Options::default(), n)?;
        }
        for _ in 0..16 {
            // Without a sleep, so that nobody is given the time to count.
            let done = loop {
                match side.cq.read() {
                    Some(done) => break done,
                    None => side.cq.wait(timeout())?,
                }
            };
            let counted = cntr.value();
            completed += 1;
            check_eq!(error(&done), None);
            check!(counted >= completed);
        }
    }
    check_eq!(both(&cntr), (completed, 0));
    side.close()?;
    drop(closed(region.close())?);
    closed(cntr.close())?;
    rig.close()
}

fn silent_operations_are_counted_when_they_have_let_go(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(50_000, Access::WRITE)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::WRITE, &cntr)])?;
    for round in 1..=5 {
        let local = register(&rig.a.domain, pattern(50_000, seed)?, Access::NONE)?;
        // As many as there are slots, each time: all are free again.
        for n in 0..DEPTH {
            let len = if n % 2 == 0 { 50_000 } else { 50 };
            let (from, to) = (local.slice(0, len)?, remote.slice(0, len as u64)?);
            side.ep.write(from, rig.to_b, to, SILENT, 1)?;
        }
        cntr.wait(round * DEPTH as u64, timeout())?;
        check_eq!(both(&cntr), (round * DEPTH as u64, 0));
        // And no slice is left.
        drop(closed(local.close())?);
        check!(side.cq.read().is_none());
    }
    side.close()?;
    drop(closed(region.close())?);
    closed(cntr.close())?;
    rig.close()
}

fn endpoints_share_a_counter(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let first = Side::new(&rig.a, info, &[(Counts::SEND | Counts::RECV, &cntr)])?;
    let second = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    for n in 0..5 {
        first.send(&rig, 10)?;
        check_eq!(cntr.value(), 3 * n + 1);
        second.send(&rig, 10)?;
        check_eq!(cntr.value(), 3 * n + 2);
        first.recv(&rig, 10)?;
        check_eq!(cntr.value(), 3 * n + 3);
        second.recv(&rig, 10)?;
        check_eq!(cntr.value(), 3 * n + 3);
    }
    first.close()?;
    let cntr = busy(cntr.close())?;
    second.close()?;
    closed(cntr.close())?;
    rig.close()
}

fn accesses_of_peers_are_counted_at_their_target(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(50_000, Access::ALL)?;
    let (read, write) = (
        Counter::new(&rig.b.domain, None)?,
        Counter::new(&rig.b.domain, None)?,
    );
    let counters = [(Counts::REMOTE_READ, &read), (Counts::REMOTE_WRITE, &write)];
    let side = Side::new(&rig.b, info, &counters)?;
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
    let to_b = rig.b.av.insert(&rig.b.ep.name())?;
    side.ep.write(Memory::zeroed(8)?, to_b, slice, options, 1)?;
    side.ends(Kind::Write, None)?;
    check_eq!((both(&read), both(&write)), ((8, 0), (4, 0)));
    side.close()?;
    drop(closed(region.close())?);
    closed(read.close())?;
    closed(write.close())?;
    rig.close()
}

fn access_that_is_refused_counts_at_its_initiator_only(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::READ_WRITE)?;
    let (tried, suffered) = (
        Counter::new(&rig.a.domain, None)?,
        Counter::new(&rig.b.domain, None)?,
    );
    let initiator = Side::new(&rig.a, info, &[(Counts::READ | Counts::WRITE, &tried)])?;
    let kinds = Counts::REMOTE_READ | Counts::REMOTE_WRITE;
    let target = Side::new(&rig.b, info, &[(kinds, &suffered)])?;
    let to = rig.a.av.insert(&target.ep.name())?;
    drop(closed(region.close())?);
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

fn close_of_an_endpoint_counts_what_it_cancels(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (send, recv) = (
        Counter::new(&rig.a.domain, None)?,
        Counter::new(&rig.a.domain, None)?,
    );
    let counters = [(Counts::SEND, &send), (Counts::RECV, &recv)];
    let side = Side::new(&rig.a, info, &counters)?;
    for n in 0..10 {
        side.ep.recv(Buffer::empty(), n)?;
    }
    for n in 0..7 {
        // Nobody receives them.
        let options = Options::default();
        side.ep.send(Buffer::empty(), rig.to_b, options, n)?;
    }
    check_eq!((both(&send), both(&recv)), ((0, 0), (0, 0)));
    // The completions are not read.
    let Side { ep, cq } = side;
    closed(ep.close())?;
    check_eq!((both(&send), both(&recv)), ((0, 7), (0, 10)));
    closed(send.close())?;
    closed(recv.close())?;
    closed(cq.close())?;
    rig.close()
}

fn wait_for_a_count_ends_with_an_operation(info: &Info, _seed: u64) -> Result {
    const ROUNDS: u64 = 20;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(50_000, Access::WRITE)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::WRITE, &cntr)])?;
    let side = Arc::new(side, GFP_KERNEL)?;
    for round in 0..ROUNDS {
        let len = if round % 2 == 0 { 50_000 } else { 50 };
        let (writer, to) = (side.clone(), rig.to_b);
        let (zeros, slice) = (Memory::zeroed(len)?, remote.slice(0, len as u64)?);
        let job = spawn(move || {
            writer.ep.write(zeros, to, slice, Options::default(), 1)?;
            Ok(())
        })?;
        cntr.wait(round + 1, timeout())?;
        // A wait takes nothing.
        cntr.wait(round + 1, 0)?;
        check_eq!(both(&cntr), (round + 1, 0));
        job.wait()?;
        side.ends(Kind::Write, None)?;
    }
    drop(side);
    drop(closed(region.close())?);
    closed(cntr.close())?;
    rig.close()
}

/// What a wait for 1 ends with, while somebody does something soon afterwards.
fn wait_while(
    cntr: &Counter,
    mut job: impl FnMut() -> Result<Arc<dyn Fn() -> Result + Send + Sync>>,
) -> Result<Result> {
    for millis in [50, 500, 5000] {
        let act = job()?;
        let late = move |_: usize| {
            fsleep(Delta::from_millis(millis));
            act()
        };
        let errors = cntr.errors();
        let crew = Crew::start(1, Arc::new(late, GFP_KERNEL)?)?;
        // Else the error was there before the wait began.
        let before = cntr.errors() == errors;
        let waited = cntr.wait(1, 2 * millis as u32 + 1000);
        crew.join()?;
        if before && waited != Err(ETIMEDOUT) {
            return Ok(waited);
        }
    }
    Err(ETIMEDOUT)
}

fn wait_for_a_count_ends_with_an_error(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    let side = Arc::new(side, GFP_KERNEL)?;
    let too_long = || -> Result<Arc<dyn Fn() -> Result + Send + Sync>> {
        rig.b.ep.recv(Memory::zeroed(10)?, 1)?;
        let (sender, to) = (side.clone(), rig.to_b);
        let send = move || {
            sender
                .ep
                .send(Memory::zeroed(11)?, to, Options::default(), 1)?;
            Ok(())
        };
        Ok(Arc::new(send, GFP_KERNEL)?)
    };
    check_eq!(wait_while(&cntr, too_long)?, Err(EIO));
    check_eq!(cntr.value(), 0);
    // It has been told; the next one waits.
    check!(cntr.errors() > 0);
    check_eq!(cntr.wait(1, 10), Err(ETIMEDOUT));
    // The value comes first.
    cntr.add(1);
    cntr.wait(1, 0)?;
    let side = Arc::into_unique_or_drop(side).ok_or(EBUSY)?;
    drop(side);
    closed(cntr.close())?;
    rig.close()
}

fn threshold_fires_once_and_is_armed_again(info: &Info, _seed: u64) -> Result {
    let (fired, soft) = (count()?, count()?);
    let (calls, in_soft) = (fired.clone(), soft.clone());
    let callback = move |cntr: &Reading<'_>| {
        in_soft.add(i32::from(in_softirq()), Relaxed);
        calls.add(if cntr.value() >= 3 { 1 } else { 1000 }, Relaxed);
    };
    let fires = |times| -> Result {
        until(|| fired.load(Acquire) >= times)?;
        fsleep(QUIET);
        check_eq!(fired.load(Acquire), times);
        Ok(())
    };
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let side = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    // Not armed yet.
    side.send(&rig, 1)?;
    fires(0)?;
    cntr.notify_at(3)?;
    side.send(&rig, 1)?;
    // A failure is no success.
    side.send(&rig, 11)?;
    fires(0)?;
    side.send(&rig, 1)?;
    fires(1)?;
    side.send(&rig, 1)?;
    fires(1)?;
    // At once, if it is reached.
    cntr.notify_at(4)?;
    fires(2)?;
    side.send(&rig, 1)?;
    fires(2)?;
    cntr.notify_at(7)?;
    side.send(&rig, 1)?;
    fires(2)?;
    // What a consumer adds counts as well.
    cntr.add(100);
    fires(3)?;
    check_eq!(soft.load(Acquire), 3);
    side.close()?;
    closed(cntr.close())?;
    rig.close()
}

/// What the callback posts on.
struct Target {
    ep: Endpoint<u64>,
    to: Address,
    slice: RemoteSlice,
}

fn callback_of_a_counter_posts_the_next(info: &Info, _seed: u64) -> Result {
    const ROUNDS: u64 = 100;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::WRITE)?;
    let target = Arc::pin_init(new_spinlock_irq!(None::<Target>), GFP_KERNEL)?;
    let (posts, failed) = (target.clone(), count()?);
    let failures = failed.clone();
    // Each count has the next operation posted; the queue stays empty.
    let callback = move |cntr: &Reading<'_>| {
        let (value, target) = (cntr.value(), posts.lock());
        let Some(target) = target.as_ref().filter(|_| value < ROUNDS) else {
            return;
        };
        let armed = cntr.notify_at(value + 1);
        let posted = target
            .ep
            .write(Buffer::empty(), target.to, target.slice, SILENT, 1);
        if armed.is_err() || posted.is_err() {
            failures.add(1, Relaxed);
        }
    };
    let cntr = Counter::new(&rig.a.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let Side { ep, cq } = Side::new(&rig.a, info, &[(Counts::WRITE, &cntr)])?;
    let (to, slice) = (rig.to_b, remote.slice(0, 0)?);
    *target.lock() = Some(Target { ep, to, slice });
    cntr.notify_at(0)?;
    cntr.wait(ROUNDS, timeout())?;
    check_eq!((both(&cntr), failed.load(Acquire)), ((ROUNDS, 0), 0));
    check!(cq.read().is_none());
    let target = target.lock().take();
    closed(target.ok_or(EINVAL)?.ep.close())?;
    closed(cq.close())?;
    closed(cntr.close())?;
    drop(closed(region.close())?);
    rig.close()
}

fn callback_of_a_counter_is_never_called_inside_a_post(info: &Info, _seed: u64) -> Result {
    let (fired, inside) = (count()?, Inside::new()?);
    let (calls, watched) = (fired.clone(), inside.clone());
    let callback = move |_: &Reading<'_>| {
        watched.call();
        calls.add(1, Relaxed);
    };
    let end = End::new(info, None)?;
    let cntr = Counter::new(&end.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let side = Side::new(&end, info, &[(Counts::SEND, &cntr)])?;
    let own = end.av.insert(&side.ep.name())?;
    let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
    for round in 1..=10 {
        let before = fired.load(Acquire);
        let options = Options::default();
        // No softirq runs on this CPU while interrupts are disabled: what fires here does so inside.
        let locked = lock.lock();
        let posted = inside.watch(|| {
            cntr.notify_at(round).is_ok()
                && side.ep.recv(Buffer::empty(), 1).is_ok()
                && side.ep.send(Buffer::empty(), own, options, 2).is_ok()
        });
        drop(locked);
        check!(posted);
        check_eq!((round, inside.calls()), (round, 0));
        until(|| fired.load(Acquire) > before)?;
        for _ in 0..2 {
            check_eq!(error(&side.cq.read_wait(timeout())?), None);
        }
    }
    side.close()?;
    closed(cntr.close())?;
    end.close()
}

fn callback_of_a_counter_does_not_come_after_the_close(info: &Info, _seed: u64) -> Result {
    for _ in 0..20 {
        // `held` is dropped with the callback.
        let (fired, held) = (count()?, count()?);
        let (calls, token) = (fired.clone(), Counted::new(&held));
        let callback = move |_: &Reading<'_>| {
            let _ = &token;
            calls.add(1, Relaxed);
        };
        let end = End::new(info, None)?;
        let cntr = Counter::new(&end.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
        let side = Side::new(&end, info, &[(Counts::SEND, &cntr)])?;
        let own = end.av.insert(&side.ep.name())?;
        cntr.notify_at(1)?;
        side.ep.recv(Buffer::empty(), 1)?;
        // It fires the callback, if that comes in time.
        side.ep.send(Buffer::empty(), own, Options::default(), 1)?;
        side.close()?;
        closed(cntr.close())?;
        let before = fired.load(Acquire);
        check_eq!(held.load(Acquire), 0);
        fsleep(Delta::from_millis(2));
        check_eq!(fired.load(Acquire), before);
        end.close()?;
    }
    Ok(())
}

fn counter_in_use_is_not_closed(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    let cntr = busy(cntr.close())?;
    // Nor was it harmed.
    side.send(&rig, 1)?;
    check_eq!(both(&cntr), (1, 0));
    side.close()?;
    let Rig { a, b, .. } = rig;
    let (ep, base) = a.split();
    closed(ep.close())?;
    closed(base.av.close())?;
    closed(base.cq.close())?;
    // The counter is what is left.
    let domain = busy(base.domain.close())?;
    closed(cntr.close())?;
    closed(domain.close())?;
    closed(base.fabric.close())?;
    b.close()
}

fn counter_dropped_before_its_endpoint_counts_on(info: &Info, _seed: u64) -> Result {
    let fired = count()?;
    let calls = fired.clone();
    let callback = move |_: &Reading<'_>| calls.add(1, Relaxed);
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let side = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    cntr.notify_at(1)?;
    drop(cntr);
    side.send(&rig, 1)?;
    side.send(&rig, 11)?;
    fsleep(Delta::from_millis(2));
    check_eq!(fired.load(Acquire), 0);
    side.close()?;
    rig.close()
}

fn counter_of_another_domain_is_refused(info: &Info, _seed: u64) -> Result {
    let (a, b) = (End::new(info, None)?, End::new(info, None)?);
    let (own, foreign) = (
        Counter::new(&a.domain, None)?,
        Counter::new(&b.domain, None)?,
    );
    let counters = [(Counts::SEND, &own), (Counts::REMOTE_READ, &foreign)];
    check_eq!(Side::new(&a, info, &counters).err(), Some(EINVAL));
    // Nothing was bound.
    closed(own.close())?;
    closed(foreign.close())?;
    a.close()?;
    b.close()
}
