// SPDX-License-Identifier: GPL-2.0

//! Atomics on peers' regions. Source: fi_atomic(3).

use super::Endpoint;
use crate::av::Address;
use crate::mr::{Access, RemoteSlice};
use crate::op::{AtomicAction, Buffer, Kind, Level, OpId, Options, Refused, Request};
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
    ///   there is remote CQ data, which an atomic does not carry.
    /// - `EMSGSIZE`: too many bytes.
    /// - `EACCES`: peers may not do atomics on the region.
    /// - `EOPNOTSUPP`: level committed, and the region is volatile; or no atomics here.
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
        let begun = self
            .check_atomic(buffer.len(), &remote, atomic, &options)
            .and_then(|()| self.peer(to, &options, &buffer))
            .and_then(|peer| Ok((peer, self.begin(&self.tx)?)));
        let (peer, posting) = match begun {
            Ok(begun) => begun,
            Err(error) => return Self::refuse(&self.tx, error, buffer, context),
        };
        let request = Request {
            kind: Kind::Atomic,
            options,
            peer,
            remote: Some(remote),
            atomic: Some(atomic),
            buffer,
        };
        self.post(posting, request, context, |live, op| live.submit(op))
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
        let aligned = remote.offset() % size as u64 == 0;
        if remote.len() != (words * size) as u64 || !aligned || options.data.is_some() {
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
