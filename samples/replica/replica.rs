// SPDX-License-Identifier: GPL-2.0

//! The device: a file of fixed size whose bytes are in a peer's persistent memory.
//!
//! A write is copied into a buffer of a small pool, posted, and returned from; what the RMA write
//! brings comes later. A sync waits for the writes before it and commits what they wrote. A read
//! waits for the writes before it that touch the same bytes, and then asks the peer.
//!
//! # Locks
//!
//! `state` is the only one. Operations are posted and completions taken under it, so that they
//! have one order; nothing sleeps under it. Copies from and to users are done without it.

use super::{
    errors::Errors,
    extents::Extents,
    link::{Done, Link, Refusal},
    slots::{Busy, Kind, Reading, Slots, Taken, Ticket},
};
use kernel::{
    iov::{IovIterDest, IovIterSource},
    new_condvar, new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{Atomic, Relaxed},
        CondVar, Mutex,
    },
};
use kfabric::prelude::*;

/// How many buffers there are, and so how many reads and writes can be under way.
pub(crate) const BUFFERS: usize = 16;
/// How many bytes a buffer holds.
pub(crate) const BUFFER_SIZE: usize = 64 << 10;
/// How many commits can be under way.
pub(crate) const COMMITS: usize = 16;
/// How many reads one call keeps under way.
const AHEAD: usize = 4;
/// How many dirty extents are told apart.
const EXTENTS: usize = 64;

/// What an operation is, as its completion says.
#[derive(Debug)]
pub(crate) enum Token {
    /// An RMA write from, or an RMA read into, the buffer of this place.
    Transfer(Ticket),
    /// A commit that is noted in this place.
    Commit(usize),
}

/// What a replica did so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Statistics {
    pub(crate) writes: u64,
    pub(crate) written: u64,
    pub(crate) reads: u64,
    pub(crate) read: u64,
    pub(crate) commits: u64,
    pub(crate) errors: u64,
}

struct State {
    slots: Slots<Memory>,
    commits: [Option<Busy>; COMMITS],
    /// The number of the next operation.
    next: u64,
    dirty: Extents,
    errors: Errors,
    statistics: Statistics,
    /// Whether somebody waits at the completion queue; the others wait for `changed`.
    waiting: bool,
    /// Whether the device is going away.
    stopped: bool,
}

impl State {
    /// Whether a write, or a commit, that has a number below `before` is under way in `extent`.
    fn busy(&self, kind: Kind, extent: Extent, before: u64) -> bool {
        Iterator::chain(self.slots.busy(), self.commits.iter().flatten()).any(|busy| {
            busy.kind == kind
                && busy.number < before
                && busy.extent.start < extent.end
                && extent.start < busy.extent.end
        })
    }

    /// Returns what to note of an operation that is being posted.
    fn begin(&mut self, kind: Kind, extent: Extent) -> Busy {
        let number = self.next;
        self.next += 1;
        Busy {
            kind,
            number,
            extent,
        }
    }

    /// Posts a write or a read. If it can't, says why and gives the buffer back, unless the fabric
    /// has lost it.
    fn post(
        &mut self,
        link: &Link,
        kind: Kind,
        taken: Taken<Memory>,
        extent: Extent,
    ) -> Result<Option<Reading>, (Error, Option<Taken<Memory>>)> {
        let busy = self.begin(kind, extent);
        let (ticket, buffer, reading) = self.slots.begin(taken, busy);
        let posted = match kind {
            Kind::Read => link.read(buffer, extent, ticket),
            _ => link.write(buffer, extent, ticket),
        };
        match posted {
            Ok(()) => Ok(reading),
            Err(Refusal {
                error,
                ticket,
                buffer,
            }) => {
                let back = ticket.and_then(|ticket| self.slots.refuse(ticket, reading, buffer));
                Err((error, back))
            }
        }
    }

    /// Notes an error that its cause has not waited for.
    fn fail(&mut self, name: &CStr, what: &str, extent: Extent, error: Error) {
        self.statistics.errors += 1;
        if self.errors.add() && !self.stopped {
            let Extent { start, end } = extent;
            pr_err!(
                "{name}: {what} of bytes {start} to {end} failed: {error:?}; fsync will say so\n"
            );
        }
    }
}

/// One replica.
#[pin_data]
pub(crate) struct Replica {
    name: CString,
    size: u64,
    /// There until it is closed.
    link: Option<KBox<Link>>,
    #[pin]
    state: Mutex<State>,
    #[pin]
    changed: CondVar,
}

/// What a replica's open file knows: how many late errors it was told of.
pub(crate) struct File(Atomic<u64>);

impl Replica {
    /// Creates a replica of `size` bytes at the other end of `link`.
    #[inline(never)]
    pub(crate) fn new(name: CString, link: KBox<Link>, size: u64) -> Result<Pin<KBox<Self>>> {
        let slots = Slots::new(BUFFERS, || Memory::zeroed(BUFFER_SIZE))?;
        let state = State {
            slots,
            commits: [None; COMMITS],
            next: 0,
            dirty: Extents::new(EXTENTS)?,
            errors: Errors::default(),
            statistics: Statistics::default(),
            waiting: false,
            stopped: false,
        };
        KBox::try_pin_init(
            try_pin_init!(Self {
                name,
                size,
                link: Some(link),
                state <- new_mutex!(state, "kfi_replica::state"),
                changed <- new_condvar!("kfi_replica::changed"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns what was done so far.
    pub(crate) fn statistics(&self) -> Statistics {
        self.state.lock().statistics
    }

    /// Makes every call that waits, and every later one, fail with ENODEV.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Closes the link.
    pub(crate) fn close(mut self: Pin<KBox<Self>>) {
        if let Some(link) = self.as_mut().project().link.take() {
            Link::close(link, &self.name);
        }
    }

    fn link(&self) -> Result<&Link> {
        self.link.as_deref().ok_or(ENODEV)
    }

    /// Takes what has completed.
    fn reap(&self, state: &mut State) -> Result {
        let link = self.link()?;
        let mut any = false;
        while let Some(done) = link.reap() {
            self.finish(state, done);
            any = true;
        }
        if any {
            self.changed.notify_all();
        }
        Ok(())
    }

    fn finish(&self, state: &mut State, done: Done) {
        match done.token {
            Token::Transfer(ticket) => {
                let ended = state.slots.end(ticket, done.buffer, done.result);
                let Some(busy) = ended.filter(|busy| busy.kind == Kind::Write) else {
                    return;
                };
                match done.result {
                    Ok(()) => {
                        state.statistics.writes += 1;
                        state.statistics.written += busy.extent.end - busy.extent.start;
                        state.dirty.insert(busy.extent);
                    }
                    Err(error) => state.fail(&self.name, "a write", busy.extent, error),
                }
            }
            Token::Commit(index) => {
                let Some(busy) = state.commits[index].take() else {
                    return;
                };
                match done.result {
                    Ok(()) => state.statistics.commits += 1,
                    Err(error) => {
                        // They are not durable: another sync may try again.
                        state.dirty.insert(busy.extent);
                        state.fail(&self.name, "the commit", busy.extent, error);
                    }
                }
            }
        }
    }

    /// Waits until `ready` returns something.
    ///
    /// One of those who wait takes the completions, for all.
    ///
    /// # Errors
    /// - `ENODEV`: the device is going away.
    /// - `ERESTARTSYS`: a signal came.
    fn wait<R>(&self, mut ready: impl FnMut(&mut State) -> Option<R>) -> Result<R> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return Err(ENODEV);
            }
            if !state.waiting {
                self.reap(&mut state)?;
            }
            if let Some(result) = ready(&mut state) {
                return Ok(result);
            }
            if state.waiting {
                if self.changed.wait_interruptible(&mut state) {
                    return Err(ERESTARTSYS);
                }
                continue;
            }
            state.waiting = true;
            drop(state);
            let waited = self.link().and_then(Link::wait);
            state = self.state.lock();
            state.waiting = false;
            self.changed.notify_all();
            waited?;
        }
    }

    /// Waits for a free buffer.
    fn take(&self) -> Result<Taken<Memory>> {
        self.wait(|state| state.slots.take())
    }

    /// Gives a buffer back that was taken.
    fn put(&self, taken: Taken<Memory>) {
        self.state.lock().slots.put(taken);
        self.changed.notify_all();
    }

    /// Posts a write or a read; the buffer is free again if it can't.
    fn post(&self, kind: Kind, taken: Taken<Memory>, extent: Extent) -> Result<Option<Reading>> {
        let mut unposted = Some(taken);
        let mut limit = None;
        let posted = self.link().and_then(|link| {
            self.wait(|state| {
                // Writes that come later need not be waited for.
                let before = *limit.get_or_insert(state.next);
                if state.busy(Kind::Write, extent, before) {
                    return None;
                }
                let (error, back) = match state.post(link, kind, unposted.take()?, extent) {
                    Ok(reading) => return Some(Ok(reading)),
                    Err(refused) => refused,
                };
                unposted = back;
                // A full queue is tried again, as long as there is something to post.
                (error != EAGAIN || unposted.is_none()).then_some(Err(EIO))
            })?
        });
        if let Some(taken) = unposted {
            self.put(taken);
        }
        posted
    }

    /// Writes one buffer full at most.
    fn write_some(&self, pos: u64, from: &mut IovIterSource<'_>) -> Result<usize> {
        let mut taken = self.take()?;
        let room = usize::try_from(self.size - pos).unwrap_or(usize::MAX);
        let len = from.len().min(BUFFER_SIZE).min(room);
        let bytes = taken.buffer.as_mut_slice();
        let bytes = bytes.and_then(|bytes| bytes.get_mut(..len));
        let filled = bytes.map_or(0, |bytes| from.copy_from_iter(bytes));
        if filled == 0 {
            self.put(taken);
            return Err(EFAULT);
        }
        let end = pos + filled as u64;
        self.post(Kind::Write, taken, Extent { start: pos, end })?;
        Ok(filled)
    }

    /// Posts a read of one buffer at most, unless it would have to wait for a buffer while the
    /// caller has some already: callers that wait for each other would wait for ever.
    fn read_ahead(&self, pos: u64, len: usize, wait: bool) -> Result<Option<Read<'_>>> {
        let taken = if wait {
            Some(self.take()?)
        } else {
            self.state.lock().slots.take()
        };
        let Some(taken) = taken else {
            return Ok(None);
        };
        let len = len.min(BUFFER_SIZE);
        let end = pos + len as u64;
        let reading = self.post(Kind::Read, taken, Extent { start: pos, end })?;
        Ok(Some(Read {
            replica: self,
            reading,
            len,
        }))
    }

    /// Commits what is dirty in `extent`; errors are noted, and end it.
    fn commit(&self, extent: Extent) -> Result {
        let link = self.link()?;
        let mut errors = None;
        self.wait(|state| {
            // What fails is dirty again, and another fsync's to try.
            let errors = *errors.get_or_insert(state.errors.count());
            while errors == state.errors.count() {
                let Some(dirty) = state.dirty.take(extent) else {
                    break;
                };
                let posted = match state.commits.iter().position(Option::is_none) {
                    Some(index) => link.commit(dirty, Token::Commit(index)).map(|()| index),
                    None => Err(EAGAIN),
                };
                match posted {
                    Ok(index) => state.commits[index] = Some(state.begin(Kind::Commit, dirty)),
                    Err(error) => {
                        state.dirty.insert(dirty);
                        if error == EAGAIN {
                            return None;
                        }
                        state.fail(&self.name, "the commit", dirty, error);
                    }
                }
            }
            Some(())
        })
    }

    /// Waits for the operations of `kind` in `extent` that are under way.
    fn settle(&self, kind: Kind, extent: Extent) -> Result {
        let mut limit = None;
        self.wait(|state| {
            let before = *limit.get_or_insert(state.next);
            (!state.busy(kind, extent, before)).then_some(())
        })
    }
}

/// A read under way; dropping it lets go of it.
struct Read<'a> {
    replica: &'a Replica,
    /// There until it has ended.
    reading: Option<Reading>,
    len: usize,
}

impl Read<'_> {
    /// Waits for the read and copies what it brought.
    fn end(mut self, to: &mut IovIterDest<'_>) -> Result<usize> {
        let replica = self.replica;
        let fetched = replica.wait(|state| match state.slots.fetch(self.reading.take()?) {
            Ok(fetched) => Some(fetched),
            Err(reading) => {
                self.reading = Some(reading);
                None
            }
        })?;
        let Ok(taken) = fetched else {
            // Its buffer is free.
            replica.changed.notify_all();
            return Err(EIO);
        };
        let bytes = taken.buffer.as_slice();
        let bytes = bytes.and_then(|bytes| bytes.get(..self.len));
        let copied = bytes.map_or(0, |bytes| to.copy_to_iter(bytes));
        let mut state = replica.state.lock();
        state.statistics.reads += 1;
        state.statistics.read += copied as u64;
        drop(state);
        replica.put(taken);
        Ok(copied)
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        if let Some(reading) = self.reading.take() {
            self.replica.state.lock().slots.abandon(reading);
            self.replica.changed.notify_all();
        }
    }
}

/// A replica as a device of the system.
pub(crate) struct Device(pub(crate) Pin<KBox<Replica>>);

#[vtable]
impl CharDevice for Device {
    type File = File;

    fn open(&self) -> Result<File> {
        let state = self.0.state.lock();
        if state.stopped {
            return Err(ENODEV);
        }
        Ok(File(Atomic::new(state.errors.open())))
    }

    fn size(&self) -> u64 {
        self.0.size
    }

    fn read(&self, _file: &File, pos: u64, to: &mut IovIterDest<'_>) -> Result<usize> {
        let replica = &self.0;
        let left = usize::try_from(replica.size.saturating_sub(pos)).unwrap_or(usize::MAX);
        let len = to.len().min(left);

        // The reads under way, a ring; all of `pos` to `pos + posted` is asked for.
        let mut ahead = [const { None }; AHEAD];
        let (mut posted, mut copied, mut error) = (0, 0, None);
        let (mut first, mut count) = (0, 0);
        while copied < len && error.is_none() {
            while posted < len && count < AHEAD {
                match replica.read_ahead(pos + posted as u64, len - posted, count == 0) {
                    Ok(Some(read)) => {
                        posted += read.len;
                        ahead[(first + count) % AHEAD] = Some(read);
                        count += 1;
                    }
                    Ok(None) => break,
                    Err(e) => {
                        error = Some(e);
                        break;
                    }
                }
            }
            let Some(read) = ahead[first].take() else {
                break;
            };
            first = (first + 1) % AHEAD;
            count -= 1;
            let some = read.len;
            match read.end(to) {
                Ok(n) => {
                    copied += n;
                    if n < some {
                        error = Some(EFAULT);
                    }
                }
                Err(e) => error = Some(e),
            }
        }
        match error {
            Some(error) if copied == 0 => Err(error),
            _ => Ok(copied),
        }
    }

    fn write(&self, _file: &File, pos: u64, from: &mut IovIterSource<'_>) -> Result<usize> {
        let replica = &self.0;
        let mut written = 0;
        while !from.is_empty() {
            let at = pos.saturating_add(written as u64);
            let some = if at < replica.size {
                replica.write_some(at, from)
            } else {
                Err(ENOSPC)
            };
            match some {
                Ok(n) => written += n,
                Err(error) if written == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(written)
    }

    fn fsync(&self, file: &File, extent: Extent, _datasync: bool) -> Result {
        let replica = &self.0;
        let before = replica.state.lock().errors.count();
        replica.settle(Kind::Write, extent)?;
        replica.commit(extent)?;
        replica.settle(Kind::Commit, extent)?;

        let mut state = replica.state.lock();
        if let Some(told) = state.errors.tell(file.0.load(Relaxed)) {
            file.0.store(told, Relaxed);
            return Err(EIO);
        }
        // The file was told, by another call that waited for the same; it does not hold for this
        // one any less.
        if state.errors.count() != before {
            return Err(EIO);
        }
        Ok(())
    }
}
