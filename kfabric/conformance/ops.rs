// SPDX-License-Identifier: GPL-2.0

//! Operations of A on B's regions, posted and waited for, and what may be said of how they ended.

use crate::peer::Region;
use crate::rig::Rig;
use crate::{check, check_eq};
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::prelude::*;

/// The context of the operations here.
pub(crate) const CONTEXT: u64 = 0x1234_5678_9abc_def0;

impl Rig {
    /// Writes `local` to `remote` and waits for the end of it.
    pub(crate) fn write(
        &self,
        local: impl Into<Buffer>,
        remote: RemoteSlice,
        options: Options,
    ) -> Result<Completion<u64>> {
        self.a
            .ep
            .write(local, self.to_b, remote, options, CONTEXT)?;
        self.ended(Kind::Write)
    }

    /// Writes `local` to `remote`, waits for the end of it, and fails unless it went well.
    #[track_caller]
    pub(crate) fn written(
        &self,
        local: impl Into<Buffer>,
        remote: RemoteSlice,
        options: Options,
    ) -> Result {
        check_eq!(error(&self.write(local, remote, options)?), None);
        Ok(())
    }

    /// Reads `remote` into `local` and waits for the end of it.
    pub(crate) fn read(
        &self,
        local: impl Into<Buffer>,
        remote: RemoteSlice,
    ) -> Result<Completion<u64>> {
        self.a
            .ep
            .read(local, self.to_b, remote, Options::default(), CONTEXT)?;
        self.ended(Kind::Read)
    }

    /// Commits `remote` and waits for the end of it.
    pub(crate) fn commit(&self, remote: RemoteSlice) -> Result<Completion<u64>> {
        self.a
            .ep
            .commit(self.to_b, remote, Options::default(), CONTEXT)?;
        self.ended(Kind::Commit)
    }

    /// The completion of A's only operation in flight.
    fn ended(&self, kind: Kind) -> Result<Completion<u64>> {
        let done = self.a.next()?;
        check_eq!(done.kind, kind);
        check_eq!(done.context, CONTEXT);
        check!(self.a.cq.read().is_none());
        Ok(done)
    }

    /// Registers `len` bytes from `offset` of a persistent device at B, and tells A.
    pub(crate) fn persistent(
        &self,
        device: &Arc<Pmem>,
        offset: u64,
        len: usize,
    ) -> Result<(Region, RemoteRegion)> {
        let access = Access::READ_WRITE;
        let region = self.b.register_persistent(device, offset, len, access)?;
        let remote = RemoteRegion::parse(&region.descriptor()?)?;
        Ok((region, remote))
    }
}

/// Opens the guest's persistent memory.
pub(crate) fn pmem() -> Result<Arc<Pmem>> {
    Pmem::open(c"/dev/pmem0")
}

/// A level for a write, and no data.
pub(crate) fn level(level: Level) -> Options {
    Options {
        level,
        ..Options::default()
    }
}

/// Data for the peer of a write at the default level.
pub(crate) fn data(data: u64) -> Options {
    Options {
        data: Some(data),
        ..Options::default()
    }
}

/// How many bytes an operation took, and the level that it reached.
pub(crate) fn reached<C>(done: &Completion<C>) -> Result<(usize, Level), Failure> {
    done.result.map(|success| (success.len, success.level))
}

/// The error of a completion; `None` if it went well.
pub(crate) fn error<C>(done: &Completion<C>) -> Option<Error> {
    done.result.err().map(|failure| failure.error)
}

/// Fails unless the operation failed with `expected` and had no effect.
#[track_caller]
pub(crate) fn check_not_executed(done: Completion<u64>, expected: Error) -> Result<Buffer> {
    check_eq!(
        done.result,
        Err(Failure {
            error: expected,
            provider: done.result.err().map_or(0, |failure| failure.provider),
            outcome: Outcome::NotExecuted,
            level: None,
        })
    );
    Ok(done.buffer)
}

/// Fails unless the post was refused with `expected` and everything came back; gives the buffer.
#[track_caller]
pub(crate) fn check_refused<T>(
    posted: Result<T, Refused<u64>>,
    expected: Error,
    context: u64,
) -> Result<Buffer> {
    let Err(refused) = posted else {
        pr_err!("# the post was taken, not refused with {expected:?}\n");
        return Err(EINVAL);
    };
    check_eq!(refused.error, expected);
    check_eq!(refused.context, context);
    Ok(refused.buffer)
}

/// Fails unless all bytes of `region` are `value`.
#[track_caller]
pub(crate) fn check_filled(region: &Region, value: u8) -> Result {
    check_filled_at(region, 0, region.len(), value)
}

/// Fails unless `len` bytes from `offset` of `region` are `value`.
#[track_caller]
pub(crate) fn check_filled_at(region: &Region, offset: usize, len: usize, value: u8) -> Result {
    check!(region.holds(offset, len, |_, found| found == value)?);
    Ok(())
}

/// Sets all bytes of `region` to `value`.
pub(crate) fn fill(region: &Region, value: u8) -> Result {
    region.fill(value)
}

/// Fails unless all bytes of a buffer that came back are `value`.
#[track_caller]
pub(crate) fn check_buffer_filled(buffer: Buffer, value: u8) -> Result {
    let memory = buffer.into_memory().map_err(|_| EINVAL)?;
    let bytes = memory.as_slice().ok_or(EINVAL)?;
    check!(bytes.iter().all(|byte| *byte == value));
    Ok(())
}
