// SPDX-License-Identifier: GPL-2.0

//! Reads, writes and commits of peers' regions. Source: fi_rma(3).

use super::post::Wanted;
use super::side::Transmits;
use super::Endpoint;
use crate::av::Address;
use crate::mr::{Access, RemoteSlice};
use crate::op::{Buffer, Kind, Level, OpId, Options, Refused};
use kernel::prelude::*;

impl<C: Send + 'static, S: Transmits<C>> Endpoint<C, S> {
    /// Writes the bytes of `local` to `remote`, a range of equal length of a peer's region.
    ///
    /// Never sleeps; process or softirq context. At most
    /// [`Limits::max_msg_size`](crate::info::Limits) bytes.
    ///
    /// # Errors
    /// - `EAGAIN`: no free slot; read the queue, then try again.
    /// - `EINVAL`: the lengths differ; the buffer is of a region of another domain; or silent, with
    ///   owned memory.
    /// - `EMSGSIZE`: too many bytes.
    /// - `EACCES`: peers may not write to the region.
    /// - `EOPNOTSUPP`: level committed, and the region is volatile; no such operation here; a fence
    ///   or a device's own memory, and the endpoint was not enabled for it.
    /// - `EHOSTUNREACH`: `to` is not in the address vector.
    /// - `ECANCELED`, `ENODEV`: the endpoint is closed; the domain has ended.
    ///
    /// Those of the completion: `EKEYREJECTED`: the region is closed, or never was. `ERANGE`,
    /// `EACCES`, `EOPNOTSUPP`: the peer's own check of range, right and persistence.
    /// `EHOSTUNREACH`: no such peer, or it closed. `ENODEV`, `EIO`: of the persistent memory.
    #[inline]
    pub fn write(
        &self,
        local: impl Into<Buffer>,
        to: Address,
        remote: RemoteSlice,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        self.rma(Kind::Write, options, local.into(), to, remote, context)
    }

    /// Writes a copy of `bytes`, which are the caller's again at once.
    ///
    /// As [`Endpoint::write`] but for that; no memory is needed or allocated, and the completion
    /// brings none back. It may be silent. At most
    /// [`Limits::inject_size`](crate::info::Limits) bytes.
    ///
    /// # Errors
    /// - `EMSGSIZE`: too many bytes.
    ///
    /// Source: fi_inject_write(3).
    pub fn inject_write(
        &self,
        bytes: &[u8],
        to: Address,
        remote: RemoteSlice,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let buffer = Buffer::injected(bytes.len());
        let checked = match bytes.len() > self.inject_size() {
            true => Err(EMSGSIZE),
            false => self.check(Kind::Write, &options, bytes.len(), &remote),
        };
        let wanted = Wanted {
            kind: Kind::Write,
            to,
            options,
            remote: Some(remote),
            atomic: None,
            tag: None,
        };
        self.transmit(checked, wanted, buffer, bytes, context)
    }

    /// Reads `remote` into `local`. As [`Endpoint::write`].
    ///
    /// # Errors
    /// - `EACCES`: peers may not read.
    /// - `EINVAL`: also for level committed, and for remote CQ data, which a read does not carry.
    #[inline]
    pub fn read(
        &self,
        local: impl Into<Buffer>,
        to: Address,
        remote: RemoteSlice,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        self.rma(Kind::Read, options, local.into(), to, remote, context)
    }

    /// Makes `remote` durable: all bytes in it that were visible when it was posted.
    ///
    /// As [`Endpoint::write`]. The range may have any length; the level is always committed.
    #[inline]
    pub fn commit(
        &self,
        to: Address,
        remote: RemoteSlice,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let options = Options {
            level: Level::Committed,
            ..options
        };
        self.rma(Kind::Commit, options, Buffer::empty(), to, remote, context)
    }

    #[inline(always)]
    fn rma(
        &self,
        kind: Kind,
        options: Options,
        buffer: Buffer,
        to: Address,
        remote: RemoteSlice,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let checked = self.check(kind, &options, buffer.len(), &remote);
        let wanted = Wanted {
            kind,
            to,
            options,
            remote: Some(remote),
            atomic: None,
            tag: None,
        };
        self.transmit(checked, wanted, buffer, &[], context)
    }

    /// What the region's descriptor already forbids. The peer checks again.
    #[inline(always)]
    fn check(&self, kind: Kind, options: &Options, len: usize, remote: &RemoteSlice) -> Result {
        let needed = match kind {
            Kind::Read => Access::READ,
            _ => Access::WRITE,
        };
        if !remote.access().contains(needed) {
            return Err(EACCES);
        }
        let commits = options.level == Level::Committed;
        if kind == Kind::Read && (commits || options.data.is_some()) {
            return Err(EINVAL);
        }
        if commits && !remote.is_persistent() {
            return Err(EOPNOTSUPP);
        }
        if kind == Kind::Commit {
            return Ok(());
        }
        if remote.len() != len as u64 {
            return Err(EINVAL);
        }
        if len > self.whole.base.limits.max_msg_size {
            return Err(EMSGSIZE);
        }
        Ok(())
    }
}

#[kunit_tests(kfabric_endpoint_rma)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::mr::RemoteRegion;
    use crate::proto::descriptor::{Descriptor, Flush, Persistence};
    use crate::proto::key::Key;
    use crate::provider::testing::Bench;

    /// A slice of a peer's region of 1000 bytes.
    fn slice(access: Access, persistent: bool, len: u64) -> Result<RemoteSlice> {
        let persistence = persistent.then(|| Persistence::byte_granular(Flush::Responder));
        let told = Descriptor::new(Key::from_raw(1), 1000, access, persistence);
        RemoteRegion::parse(&told.map_err(|_| EINVAL)?.emit())?.slice(0, len)
    }

    #[test]
    fn descriptor_forbids_before_a_peer_is_asked() -> Result {
        use Kind::{Commit, Read, Write};
        use Level::{Committed, Delivered, Transmit};
        let bench = Bench::new()?;
        let (r, w, rw) = (Access::READ, Access::WRITE, Access::READ_WRITE);
        // The operation, on how many bytes of its own; the region's rights, whether it is
        // persistent, and the slice's length.
        for (kind, level, len, access, persistent, remote, expected) in [
            (Write, Delivered, 5, w, false, 5, Ok(())),
            (Write, Delivered, 5, rw, false, 5, Ok(())),
            (Write, Delivered, 5, r, false, 5, Err(EACCES)),
            (Read, Delivered, 5, r, false, 5, Ok(())),
            (Read, Delivered, 5, rw, false, 5, Ok(())),
            (Read, Delivered, 5, w, false, 5, Err(EACCES)),
            (Commit, Committed, 0, w, true, 5, Ok(())),
            (Commit, Committed, 0, r, true, 5, Err(EACCES)),
            // Durable are bytes of persistent memory only.
            (Write, Committed, 5, w, true, 5, Ok(())),
            (Write, Committed, 5, w, false, 5, Err(EOPNOTSUPP)),
            (Write, Transmit, 5, w, false, 5, Ok(())),
            (Commit, Committed, 0, w, false, 5, Err(EOPNOTSUPP)),
            // Both sides are of one length, a message's at most, but for a commit.
            (Write, Delivered, 5, w, false, 6, Err(EINVAL)),
            (Write, Delivered, 5, w, false, 4, Err(EINVAL)),
            (Read, Delivered, 0, r, false, 1, Err(EINVAL)),
            (Write, Delivered, 0, w, false, 0, Ok(())),
            (Write, Delivered, 100, w, false, 100, Ok(())),
            (Write, Delivered, 101, w, false, 101, Err(EMSGSIZE)),
            (Read, Delivered, 101, r, false, 101, Err(EMSGSIZE)),
            (Commit, Committed, 0, w, true, 1000, Ok(())),
            (Read, Committed, 5, r, true, 5, Err(EINVAL)),
        ] {
            let slice = slice(access, persistent, remote)?;
            let options = Options {
                level,
                ..Options::default()
            };
            let checked = bench.ep.check(kind, &options, len, &slice);
            assert_eq!(checked, expected);
            // A read carries no data.
            let data = Options {
                data: Some(1),
                ..options
            };
            let carried = match kind {
                Read => expected.and(Err(EINVAL)),
                _ => expected,
            };
            let checked = bench.ep.check(kind, &data, len, &slice);
            assert_eq!(checked.is_ok(), carried.is_ok());
        }
        Ok(())
    }

    #[test]
    fn what_is_refused_comes_back_and_takes_no_slot() -> Result {
        let bench = Bench::new()?;
        let (to, options) = (bench.peer()?, Options::default());
        let slice = slice(Access::READ, false, 5)?;
        let nobody = Address::from_raw(u64::MAX);
        // The provider of the test does not read.
        for (to, write, error) in [
            (to, true, EACCES),
            (nobody, true, EACCES),
            (nobody, false, EOPNOTSUPP),
            (to, false, EOPNOTSUPP),
        ] {
            let local = Memory::zeroed(5)?;
            let posted = match write {
                true => bench.ep.write(local, to, slice, options, 9),
                false => bench.ep.read(local, to, slice, Options::default(), 9),
            };
            let refused = posted.err();
            let refused = refused.map(|it| (it.error, it.buffer.len(), it.context));
            assert_eq!(refused, Some((error, 5, 9)));
        }
        assert_eq!(bench.ep.in_flight(), 0);
        Ok(())
    }
}
