// SPDX-License-Identifier: GPL-2.0

//! Atomics on peers' regions. Source: fi_atomic(3).

use super::post::Wanted;
use super::side::Transmits;
use super::Endpoint;
use crate::av::Address;
use crate::mr::{Access, RemoteSlice};
use crate::op::{AtomicAction, Buffer, Kind, Level, OpId, Options, Refused};
use kernel::prelude::*;

impl<C: Send + 'static, S: Transmits<C>> Endpoint<C, S> {
    /// Changes each word of `remote` as `atomic` says, each at once; a vector of them is not.
    ///
    /// `local` holds one after another a vector of operands, then, to compare, one of comparands,
    /// then, to fetch, room for one of what the words were: each as long as `remote`, of any
    /// alignment. Words are in the CPU's byte order, and aligned in the region to their size. No
    /// other atomic, from here, from a peer or by the region's owner, comes between; a write does.
    ///
    /// Never sleeps; process or softirq context. At most
    /// [`Limits::max_atomic_size`](crate::info::Limits) bytes of `remote`.
    ///
    /// # Errors
    /// - `EAGAIN`: no free slot; read the queue, then try again.
    /// - `EINVAL`: `local` is not of that length, `remote` is not aligned or not of whole words, or
    ///   there is remote CQ data, which an atomic does not carry; the buffer is of a region of
    ///   another domain; or silent, with owned memory.
    /// - `EMSGSIZE`: too many bytes.
    /// - `EACCES`: peers may not do atomics on the region.
    /// - `EOPNOTSUPP`: level committed, and the region is volatile; no atomics here; a fence or a
    ///   device's own memory, and the endpoint was not enabled for it.
    /// - `EHOSTUNREACH`: `to` is not in the address vector.
    /// - `ECANCELED`, `ENODEV`: the endpoint is closed; the domain has ended.
    ///
    /// Those of the completion are those of [`Endpoint::write`].
    ///
    /// Source: fi_atomicmsg(3), fi_fetch_atomicmsg(3), fi_compare_atomicmsg(3).
    pub fn atomic(
        &self,
        local: impl Into<Buffer>,
        to: Address,
        remote: RemoteSlice,
        atomic: AtomicAction,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let buffer = local.into();
        let checked = self.check_atomic(buffer.len(), &remote, atomic, &options);
        let wanted = Wanted {
            kind: Kind::Atomic,
            to,
            options,
            remote: Some(remote),
            atomic: Some(atomic),
            tag: None,
        };
        self.transmit(checked, wanted, buffer, &[], context)
    }

    /// What can be known here. The peer checks again.
    fn check_atomic(
        &self,
        len: usize,
        remote: &RemoteSlice,
        atomic: AtomicAction,
        options: &Options,
    ) -> Result {
        let AtomicAction { action, datatype } = atomic;
        if !remote.access().contains(Access::ATOMIC) {
            return Err(EACCES);
        }
        let size = datatype.size();
        let words = action.words(datatype, len).ok_or(EINVAL)?;
        let vector = words * size;
        let whole = remote.len() == vector as u64 && remote.is_aligned(size);
        if !whole || options.data.is_some() {
            return Err(EINVAL);
        }
        if vector > self.whole.base.limits.max_atomic_size {
            return Err(EMSGSIZE);
        }
        if options.level == Level::Committed && !remote.is_persistent() {
            return Err(EOPNOTSUPP);
        }
        Ok(())
    }
}

#[kunit_tests(kfabric_endpoint_atomic)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::mr::RemoteRegion;
    use crate::op::{AtomicOp, Datatype};
    use crate::proto::descriptor::{Descriptor, Flush, Persistence};
    use crate::proto::key::Key;
    use crate::provider::testing::Bench;

    const SUM: AtomicAction = AtomicAction::update(AtomicOp::Sum, Datatype::U32);
    const FETCH: AtomicAction = AtomicAction::fetch(AtomicOp::Sum, Datatype::U32);
    const COMPARE: AtomicAction = AtomicAction::compare(Datatype::U32);
    const BYTES: AtomicAction = AtomicAction::update(AtomicOp::Sum, Datatype::U8);

    /// What a peer's region of 1000 bytes is told as.
    fn region(access: Access, persistent: bool) -> Result<RemoteRegion> {
        let persistence = persistent.then(|| Persistence::byte_granular(Flush::Responder));
        let told = Descriptor::new(Key::from_raw(1), 1000, access, persistence);
        RemoteRegion::parse(&told.map_err(|_| EINVAL)?.emit())
    }

    #[test]
    fn both_sides_are_of_whole_aligned_words() -> Result {
        let bench = Bench::new()?;
        let region = region(Access::ALL, false)?;
        // What is done, with how many bytes here, to which there.
        for (atomic, len, offset, remote, expected) in [
            (SUM, 8, 0, 8, Ok(())),
            (FETCH, 16, 0, 8, Ok(())),
            (COMPARE, 24, 0, 8, Ok(())),
            // The vectors are as long as the range.
            (SUM, 16, 0, 8, Err(EINVAL)),
            (FETCH, 8, 0, 8, Err(EINVAL)),
            (COMPARE, 16, 0, 8, Err(EINVAL)),
            (SUM, 8, 0, 12, Err(EINVAL)),
            // Whole words, and at least one.
            (SUM, 7, 0, 7, Err(EINVAL)),
            (FETCH, 12, 0, 6, Err(EINVAL)),
            (SUM, 0, 0, 0, Err(EINVAL)),
            // Aligned to their own size.
            (SUM, 4, 4, 4, Ok(())),
            (SUM, 4, 2, 4, Err(EINVAL)),
            (BYTES, 3, 997, 3, Ok(())),
            // So long at most, each vector.
            (SUM, 40, 0, 40, Ok(())),
            (SUM, 44, 0, 44, Err(EMSGSIZE)),
            (BYTES, 41, 0, 41, Err(EMSGSIZE)),
            (FETCH, 80, 0, 40, Ok(())),
            (FETCH, 88, 0, 44, Err(EMSGSIZE)),
            (COMPARE, 120, 0, 40, Ok(())),
            (COMPARE, 132, 0, 44, Err(EMSGSIZE)),
        ] {
            let remote = region.slice(offset, remote)?;
            let checked = |options: &Options| bench.ep.check_atomic(len, &remote, atomic, options);
            assert_eq!(checked(&Options::default()), expected);
            // It carries no data, whatever else is wrong.
            let data = Options {
                data: Some(1),
                ..Options::default()
            };
            assert_eq!(checked(&data), Err(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn descriptor_forbids_atomics_before_a_peer_is_asked() -> Result {
        use Level::{Committed, Delivered, Transmit};
        let bench = Bench::new()?;
        let atomics = Access::ATOMIC;
        for (access, persistent, level, expected) in [
            (atomics, false, Delivered, Ok(())),
            (Access::ALL, false, Transmit, Ok(())),
            // To write is not enough.
            (Access::READ_WRITE, false, Delivered, Err(EACCES)),
            (atomics, false, Committed, Err(EOPNOTSUPP)),
            (atomics, true, Committed, Ok(())),
            (Access::READ_WRITE, true, Committed, Err(EACCES)),
        ] {
            let remote = region(access, persistent)?.slice(0, 4)?;
            let options = Options {
                level,
                ..Options::default()
            };
            let checked = bench.ep.check_atomic(4, &remote, SUM, &options);
            assert_eq!(checked, expected);
        }
        Ok(())
    }

    #[test]
    fn refused_atomic_comes_back_and_takes_no_slot() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        let nobody = Address::from_raw(u64::MAX);
        let forbidden = region(Access::READ_WRITE, false)?.slice(0, 4)?;
        let remote = region(Access::ATOMIC, false)?.slice(0, 4)?;
        // The provider of the test does no atomics.
        for (to, remote, error) in [
            (to, forbidden, EACCES),
            (nobody, remote, EOPNOTSUPP),
            (to, remote, EOPNOTSUPP),
        ] {
            let (local, options) = (Memory::zeroed(4)?, Options::default());
            let refused = bench.ep.atomic(local, to, remote, SUM, options, 9).err();
            let refused = refused.map(|it| (it.error, it.buffer.len(), it.context));
            assert_eq!(refused, Some((error, 4, 9)));
        }
        assert_eq!(bench.ep.in_flight(), 0);
        Ok(())
    }
}
