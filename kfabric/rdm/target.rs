// SPDX-License-Identifier: GPL-2.0

//! The target's side of RMA: a peer's access to a region, checked, placed and made durable.
//!
//! Whatever the initiator checked is checked again: it may be wrong, late or hostile. A peer learns
//! one error for any wrong key; this host's counters tell them apart.

use super::atomic;
use crate::memory::Exposed;
use crate::mr::{Access, Region, RemoteSlice};
use crate::op::{Failure, Kind, Level, Op, Operation, Status, Success};
use crate::proto::key::{Key, Refusal};
use crate::provider::Port;
use crate::stats::{Count, TargetStats};
use crate::sys::lease::Lease;
use crate::trace;
use kernel::prelude::*;
use kernel::sync::rcu::Guard;

impl Port {
    /// Carries out a peer's write, read or commit on this endpoint's domain.
    ///
    /// Returns how it went, for the initiator's completion. Sleeps if the operation commits, see
    /// [`Op::needs_process_context`]; else any context but hardirq.
    pub fn access(&self, op: &Op) -> Status {
        let find = |key| self.domain().keys().lookup(key);
        let status = match op.kind() {
            Kind::Write => self.carry_out(op, Access::WRITE, find, |to, at| op.copy_out(to, at)),
            Kind::Read => self.carry_out(op, Access::READ, find, |from, at| op.copy_in(from, at)),
            Kind::Atomic => self.carry_out(op, Access::ATOMIC, find, |words, at| {
                atomic::execute(words, at, op)
            }),
            _ => self.carry_out(op, Access::WRITE, find, |_, _| Ok(())),
        };
        self.count_access(op, &status);
        status
    }

    /// As [`Port::access`], but in a read section already, as a post is. `EINVAL`: the operation needs
    /// process context.
    pub fn access_in(&self, op: &Op, section: &Guard) -> Status {
        if op.needs_process_context() {
            // It would sleep, in the section.
            pr_err!("a provider carried out a commit in a read section\n");
            return Err(Failure::not_executed(EINVAL));
        }
        let find = |key| self.domain().keys().lookup_in(key, section);
        let status = match op.kind() {
            Kind::Write => {
                self.carry_out(op, Access::WRITE, find, |to, at| op.copy_out_here(to, at))
            }
            Kind::Read => {
                self.carry_out(op, Access::READ, find, |from, at| op.copy_in_here(from, at))
            }
            _ => return self.access(op),
        };
        self.count_access(op, &status);
        status
    }

    /// Carries out a peer's tagged write or read; `done` completes the receive that it consumes, and
    /// then the operation. A receive that is too short completes before.
    ///
    /// Never sleeps; any context but hardirq.
    pub fn execute_tagged(&self, op: Operation, mut done: impl FnMut(Operation, Status)) {
        let receive = match self.claim(&op) {
            Ok(receive) => receive,
            Err(failure) => return done(op, Err(failure)),
        };
        let moved = match (op.kind(), receive.buffer().memory()) {
            (_, None) => Ok(()), // no bytes
            (Kind::Write, Some(to)) => op.copy_out(to, receive.buffer().offset()),
            (_, Some(from)) => op.copy_in(from, receive.buffer().offset()),
        };
        let status = self.end_tagged(&op, moved);
        done(receive, status.0);
        done(op, status.1);
    }

    /// Takes the receive that a peer's tagged write or read goes into or out of: the first that was posted for it.
    /// Then, once, [`Port::end_tagged`]. Any context but hardirq.
    ///
    /// Nothing is executed if it fails, with
    /// - `ENOENT`: no receive under that tag exposes its buffer to it.
    /// - `EMSGSIZE`: the buffer is too short; the receive completes with that as well.
    /// - `EINVAL`: no such receive context.
    /// - `EHOSTUNREACH`: the peer is not the one that is connected.
    pub(super) fn claim(&self, op: &Op) -> Result<Operation, Failure> {
        let admitted = self
            .check_sender(op)
            .and_then(|()| self.check_context(op))
            .map_err(Failure::not_executed)?;
        let stats = self.domain().target_stats();
        let Some(receive) = admitted.claim(op) else {
            return Err(self.refuse(op, ENOENT, &stats.no_receive));
        };
        if op.len() > receive.len() {
            let failure = self.refuse(op, EMSGSIZE, &stats.out_of_range);
            receive.complete(Err(failure));
            return Err(failure);
        }
        Ok(receive)
    }

    /// Counts a tagged write or read whose bytes were moved, or could not be; how its receive and it have ended.
    pub(super) fn end_tagged(&self, op: &Op, moved: Result) -> (Status, Status) {
        let stats = self.domain().target_stats();
        let (len, level) = (op.len(), Level::Delivered);
        let status = |data| {
            moved.map_err(Failure::unknown)?;
            Ok(Success { len, data, level })
        };
        let (here, there) = (status(op.data()), status(None));
        match moved {
            Ok(()) => stats.executed.add(1),
            Err(ENODEV) => stats.device_gone.add(1),
            Err(_) => {}
        }
        self.count_access(op, &there);
        (here, there)
    }

    /// Counts an access for who wants to know of it.
    #[inline(always)]
    fn count_access(&self, op: &Op, status: &Status) {
        if let Some(counters) = self.counters() {
            counters.count_access(op, status);
        }
    }

    /// Checks an access that needs this right, does to the memory what it does, and makes it durable
    /// if it is to be.
    // Inlined for each kind of operation, so that none asks again which one it is.
    #[inline(always)]
    fn carry_out(
        &self,
        op: &Op,
        needed: Access,
        find: impl FnOnce(Key) -> Result<Lease<Region>, Refusal>,
        place: impl FnOnce(&Exposed, usize) -> Result,
    ) -> Status {
        let (remote, region) = self.admit(op, needed, find)?;
        let placed = place(region.memory(), remote.offset() as usize);
        self.placed(op, remote, &region, placed)
    }

    /// Checks an access that needs this right; gives its range, and the region.
    #[inline(always)]
    fn admit<'a>(
        &self,
        op: &'a Op,
        needed: Access,
        find: impl FnOnce(Key) -> Result<Lease<Region>, Refusal>,
    ) -> Result<(&'a RemoteSlice, Lease<Region>), Failure> {
        let Some(remote) = op.remote() else {
            return Err(Failure::not_executed(EINVAL));
        };
        let stats = self.domain().target_stats();
        self.check_sender(op).map_err(Failure::not_executed)?;
        if op.notifies() {
            self.check_context(op).map_err(Failure::not_executed)?;
        }
        let region = match find(remote.key()) {
            Ok(region) => region,
            Err(refusal) => {
                return Err(self.refuse(op, EKEYREJECTED, count(stats, refusal)));
            }
        };
        let memory = region.memory();
        let (error, count) = if !region.access().contains(needed) {
            (EACCES, &stats.no_right)
        } else if !remote.range().within(memory.len() as u64) || remote.len() != op.len() as u64 {
            (ERANGE, &stats.out_of_range)
        } else if needed == Access::ATOMIC && !is_aligned(op, remote) {
            (EINVAL, &stats.misaligned)
        } else if op.level() == Level::Committed && !memory.is_persistent() {
            (EOPNOTSUPP, &stats.volatile)
        } else {
            return Ok((remote, region));
        };
        region.note_refusal();
        Err(self.refuse(op, error, count))
    }

    /// Says how an access went whose bytes are placed, or could not be; makes them durable if they
    /// are to be.
    #[inline(always)]
    fn placed(&self, op: &Op, remote: &RemoteSlice, region: &Region, placed: Result) -> Status {
        let stats = self.domain().target_stats();
        placed.map_err(|error| {
            if error == ENODEV {
                stats.device_gone.add(1);
            }
            Failure::unknown(error)
        })?;
        if op.level() == Level::Committed {
            self.commit(op, remote, region)?;
        }
        stats.executed.add(1);
        Ok(Success {
            len: remote.len() as usize,
            data: None,
            level: op.level().max(Level::Delivered),
        })
    }

    /// The region of a peer's access whose bytes come or go in pieces, if it may: for each piece.
    ///
    /// Then, once, [`Port::end_access`]. Any context but hardirq.
    pub(super) fn admit_piece(&self, op: &Op) -> Result<Lease<Region>, Failure> {
        let needed = match op.kind() {
            Kind::Read => Access::READ,
            Kind::Atomic => Access::ATOMIC,
            _ => Access::WRITE,
        };
        let find = |key| self.domain().keys().lookup(key);
        let admitted = self.admit(op, needed, find);
        admitted.map(|(_, region)| region)
    }

    /// Ends an access whose bytes are in the region, or could not be placed there. Sleeps if the
    /// operation commits; else any context but hardirq.
    pub(super) fn end_access(&self, op: &Op, region: &Region, placed: Result) -> Status {
        let Some(remote) = op.remote() else {
            return Err(Failure::not_executed(EINVAL));
        };
        let status = self.placed(op, remote, region, placed);
        self.count_access(op, &status);
        status
    }

    /// Makes the bytes of an access durable.
    #[inline(never)]
    fn commit(&self, op: &Op, remote: &RemoteSlice, region: &Region) -> Result<(), Failure> {
        let offset = remote.offset() as usize;
        let committed = region.memory().commit(offset, op.len());
        committed.map_err(|error| match error {
            // With the device went what was delivered.
            ENODEV => Failure::unknown(error),
            _ => Failure::after(Level::Delivered, error),
        })?;
        self.domain().target_stats().committed.add(op.len() as u64);
        region.note_commit(op.len());
        trace::commit(self.id(), op, remote);
        Ok(())
    }

    /// Counts and tells a refusal.
    #[cold]
    #[inline(never)]
    fn refuse(&self, op: &Op, error: Error, refusals: &Count) -> Failure {
        refusals.add(1);
        trace::refuse(self.id(), op, error);
        Failure::not_executed(error)
    }
}

impl Op {
    /// Whether [`Port::access`] sleeps for it.
    #[inline]
    pub fn needs_process_context(&self) -> bool {
        self.level() == Level::Committed
    }
}

/// Whether the first word of an atomic is aligned in the region.
fn is_aligned(op: &Op, remote: &RemoteSlice) -> bool {
    op.atomic()
        .is_some_and(|atomic| remote.is_aligned(atomic.datatype.size()))
}

/// Which count a wrong key adds to.
fn count(stats: &TargetStats, refusal: Refusal) -> &Count {
    match refusal {
        Refusal::Unknown => &stats.unknown_key,
        Refusal::Stale => &stats.stale_key,
        Refusal::Guess => &stats.guessed_key,
    }
}

#[kunit_tests(kfabric_target)]
mod tests {
    use super::*;
    use crate::cm::Role;
    use crate::domain::{Class, Domain};
    use crate::fabric::Fabric;
    use crate::memory::Memory;
    use crate::mr::{MemoryRegion, RemoteRegion};
    use crate::op::testing::{request, Bench};
    use crate::op::{Buffer, Options, Request};
    use crate::proto::descriptor::{Descriptor, Flush, Persistence};
    use crate::provider::registry::Registration;
    use crate::provider::testing::{Desk, Keeper};
    use kernel::module::this_module;
    use kernel::sync::Arc;

    const LEN: usize = 64;

    /// A region of 64 bytes of value 0, and a port of its domain.
    // In the order in which they go.
    struct Target {
        region: MemoryRegion,
        port: Arc<Port>,
        bench: Bench<u64>,
        _domain: Domain,
        _fabric: Fabric,
        _registration: Registration,
    }

    impl Target {
        fn new(access: Access) -> Result<Self> {
            let info = Desk::info()?;
            let registration =
                Registration::new(this_module::<crate::Core>(), Keeper(Desk::new()?))?;
            let fabric = Fabric::open(&info)?;
            let domain = fabric.domain(&info)?;
            let registered = domain.register(Memory::zeroed(LEN)?, access);
            Ok(Target {
                region: registered.map_err(|(error, _)| error)?,
                port: Port::new(
                    7,
                    domain.child(Class::Endpoint)?.core().clone(),
                    None,
                    Role::Datagrams,
                    1,
                    (1, 1),
                )?,
                bench: Bench::new(1, None)?,
                _domain: domain,
                _fabric: fabric,
                _registration: registration,
            })
        }

        /// The region's descriptor, after a peer's forgery.
        fn forged(
            &self,
            forge: impl Fn(&Descriptor) -> Option<Descriptor>,
        ) -> Result<RemoteRegion> {
            let told = Descriptor::parse(&self.region.descriptor()?).map_err(|_| EINVAL)?;
            RemoteRegion::parse(&forge(&told).ok_or(EINVAL)?.emit())
        }

        /// What the peer's operation on `len` bytes from `offset` ends with.
        fn access(
            &self,
            kind: Kind,
            level: Level,
            remote: &RemoteRegion,
            (offset, len): (u64, usize),
        ) -> Result<Status> {
            let mut bytes = Memory::zeroed(len)?;
            bytes.as_mut_slice().ok_or(EINVAL)?.fill(0xa5);
            let request = Request {
                options: Options {
                    level,
                    ..Options::default()
                },
                remote: Some(remote.slice(offset, len as u64)?),
                buffer: Buffer::from(bytes),
                ..request(kind)
            };
            let (_, op): (_, Operation) = self.bench.post_request(request, 0)?;
            let status = self.port.access(&op);
            drop(op);
            drop(self.bench.read());
            Ok(status)
        }

        /// How many bytes of the region were written.
        fn written(&self) -> Result<usize> {
            let mut bytes = [0; LEN];
            self.region.read_at(0, &mut bytes)?;
            Ok(bytes.iter().filter(|byte| **byte == 0xa5).count())
        }
    }

    fn refused(error: Error) -> Status {
        Err(Failure::not_executed(error))
    }

    #[test]
    fn allowed_access_is_carried_out_and_counted() -> Result {
        let target = Target::new(Access::READ_WRITE)?;
        let honest = target.forged(|told| Some(*told))?;
        let whole = (0, LEN);
        let status = target.access(Kind::Write, Level::Transmit, &honest, whole)?;
        let done = Success {
            len: LEN,
            data: None,
            level: Level::Delivered,
        };
        assert_eq!(status, Ok(done));
        assert_eq!(target.written()?, LEN);
        assert!(target
            .access(Kind::Read, Level::Delivered, &honest, whole)?
            .is_ok());
        assert_eq!(target.port.domain().target_stats().executed.value(), 2);
        Ok(())
    }

    #[test]
    fn lies_about_length_rights_and_persistence_are_refused() -> Result {
        let target = Target::new(Access::READ)?;
        let stats = || target.port.domain().target_stats();
        let more_rights = target.forged(|told| {
            Descriptor::new(told.key(), told.len(), Access::READ_WRITE, None).ok()
        })?;
        let (kind, level) = (Kind::Write, Level::Delivered);
        let status = target.access(kind, level, &more_rights, (0, LEN))?;
        assert_eq!((status, stats().no_right.value()), (refused(EACCES), 1));
        drop(target);

        let target = Target::new(Access::WRITE)?;
        let stats = || target.port.domain().target_stats();
        let longer = target
            .forged(|told| Descriptor::new(told.key(), u64::MAX, told.access(), None).ok())?;
        for at in [(1, LEN), (LEN as u64, 1), (0, LEN + 1), (u64::MAX - 1, 1)] {
            assert_eq!(target.access(kind, level, &longer, at)?, refused(ERANGE));
        }
        assert_eq!(stats().out_of_range.value(), 4);
        assert!(target
            .access(kind, level, &longer, (LEN as u64, 0))?
            .is_ok());

        let persistent = target.forged(|told| {
            let persistence = Persistence::byte_granular(Flush::Responder);
            Descriptor::new(told.key(), told.len(), told.access(), Some(persistence)).ok()
        })?;
        for kind in [Kind::Write, Kind::Commit] {
            let at = (0, if kind == Kind::Write { LEN } else { 0 });
            let status = target.access(kind, Level::Committed, &persistent, at)?;
            assert_eq!(status, refused(EOPNOTSUPP));
        }
        assert_eq!((stats().volatile.value(), target.written()?), (2, 0));
        Ok(())
    }

    #[test]
    fn every_wrong_key_is_one_error_and_its_own_count() -> Result {
        let mut target = Target::new(Access::WRITE)?;
        let forge = |target: &Target, bits: u64| {
            target.forged(|told| {
                let key = crate::proto::key::Key::from_raw(told.key().raw() ^ bits);
                Descriptor::new(key, told.len(), told.access(), None).ok()
            })
        };
        // Another index; a wrong random part.
        for bits in [1 << 19, 1 << 63] {
            let remote = forge(&target, bits)?;
            let status = target.access(Kind::Write, Level::Delivered, &remote, (0, LEN))?;
            assert_eq!(status, refused(EKEYREJECTED));
        }
        let closed = forge(&target, 0)?;
        let another = target._domain.register(Memory::zeroed(LEN)?, Access::WRITE);
        target.region = another.map_err(|(error, _)| error)?;
        let status = target.access(Kind::Write, Level::Delivered, &closed, (0, LEN))?;
        assert_eq!(status, refused(EKEYREJECTED));
        let stats = target.port.domain().target_stats();
        let counts = (&stats.unknown_key, &stats.guessed_key, &stats.stale_key);
        assert_eq!(
            (counts.0.value(), counts.1.value(), counts.2.value()),
            (1, 1, 1)
        );
        assert_eq!((target.written()?, stats.executed.value()), (0, 0));
        Ok(())
    }
}
