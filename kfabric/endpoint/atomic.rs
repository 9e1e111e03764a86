// SPDX-License-Identifier: GPL-2.0

//! Atomics on peers' regions. Source: fi_atomic(3).

use super::post::Wanted;
use super::Endpoint;
use crate::av::Address;
use crate::mr::{Access, RemoteSlice};
use crate::op::{AtomicAction, Buffer, Kind, Level, OpId, Options, Refused};
use kernel::prelude::*;

impl<C: Send + 'static> Endpoint<C> {
    /// Changes each word of `remote` as `atomic` says, each at once; a vector of them is not.
    ///
    /// `local` holds one after another a vector of operands, then, to compare, one of comparands,
    /// then, to fetch, room for one of what the words were: each as long as `remote`, of any
    /// alignment. Words are in the CPU's byte order, and aligned in the region to their size. No
    /// other atomic, from here, from a peer or by the region's owner, comes between; a write does.
    ///
    /// Never sleeps; process or softirq context. At most
    /// [`Limits::max_msg_size`](crate::info::Limits) bytes of `local`.
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
    /// - `ECANCELED`, `ENODEV`: the endpoint is closed; the provider is gone.
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
        let whole = remote.len() == (words * size) as u64 && remote.is_aligned(size);
        if !whole || options.data.is_some() {
            return Err(EINVAL);
        }
        if len > self.limits.max_msg_size {
            return Err(EMSGSIZE);
        }
        if options.level == Level::Committed && !remote.is_persistent() {
            return Err(EOPNOTSUPP);
        }
        Ok(())
    }
}
