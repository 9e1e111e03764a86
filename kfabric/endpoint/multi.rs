// SPDX-License-Identifier: GPL-2.0

//! Receives of several messages. Source: FI_MULTI_RECV of fi_msg(3).

use super::side::Receives;
use super::Endpoint;
use crate::av::Address;
use crate::op::{Buffer, OpId, Refused};
use kernel::prelude::*;

/// How much space a receive of several messages must have left to take another, unless
/// [`Builder::min_multi_recv`](super::Builder::min_multi_recv) says otherwise: in bytes.
pub const MIN_MULTI_RECV: usize = 4096;

impl<C: Clone + Send + 'static, S: Receives<C>> Endpoint<C, S> {
    /// Receives messages without tags into `buffer`, one behind another, until less space is left than
    /// [`Builder::min_multi_recv`](super::Builder::min_multi_recv), or so many have come.
    ///
    /// The buffer is a slice of a region. It moves in, and comes back with exactly one completion:
    /// the last, which says so ([`Part::released`](crate::op::Part)), and which also is that of the last
    /// message. Each other message has a completion before it, with a clone of the context and, as its
    /// buffer, the slice of just its bytes: they can be read through the region at once, or be
    /// sent on. Until it is dropped the region can't be reclaimed.
    ///
    /// Each message takes a slot, which is reserved here: so `messages` of
    /// [`Limits::rx_size`](crate::info::Limits) are. Slots and clones that were not needed are let go of
    /// with the last completion, in the context of whoever completes it: the context must be one that may
    /// be dropped there.
    ///
    /// A message that is longer than the space left fails on both sides with `EMSGSIZE`; it takes no
    /// space, and the receive goes on. So the least space should be that of the longest message. The remote
    /// CQ data of a write count as a message without bytes. A message that is lost on its way leaves
    /// its space unused, or completes with an error.
    ///
    /// A cancel ends the receive: its completion, with `ECANCELED` and the buffer, comes after those of
    /// the messages that it has met. So does a close.
    ///
    /// Never sleeps; process or softirq context. Steps: `messages`.
    ///
    /// # Errors
    /// As [`Endpoint::recv`], and
    /// - `EINVAL`: the buffer is no slice of a region; `messages` is 0, or more than there are slots.
    /// - `EAGAIN`: fewer slots are free.
    /// - `EOPNOTSUPP`: also if the endpoint was not enabled for
    ///   [`Caps::MULTI_RECV`](crate::info::Caps::MULTI_RECV).
    pub fn recv_multi(
        &self,
        buffer: impl Into<Buffer>,
        messages: usize,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        self.receive_several(buffer.into(), Address::UNSPECIFIED, messages, context)
    }

    /// The same, of the messages of one peer: as [`Endpoint::recv_multi`] and [`Endpoint::recv_from`].
    pub fn recv_multi_from(
        &self,
        buffer: impl Into<Buffer>,
        from: Address,
        messages: usize,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        self.receive_several(buffer.into(), from, messages, context)
    }
}
