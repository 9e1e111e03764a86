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

    /// The same, of the messages of one peer: as [`Endpoint::recv_multi`] and [`Endpoint::recv_from`]. Steps: also
    /// the messages of others that wait before the peer's last.
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

#[kunit_tests(kfabric_endpoint_multi)]
mod tests {
    use super::*;
    use crate::cq::CompletionQueue;
    use crate::info::{Caps, Info};
    use crate::memory::Memory;
    use crate::mr::{Access, MemoryRegion};
    use crate::op::{testing as slots, Failure, Kind, Part};
    use crate::provider::testing::{Bench, Desk};
    use kernel::sync::Arc;

    fn region(bench: &Bench, len: usize) -> Result<MemoryRegion> {
        let memory = Memory::zeroed(len)?;
        let registered = bench.opened.domain.register(memory, Access::NONE);
        registered.map_err(|(error, _)| error)
    }

    /// How a receive is refused: why, and the length of the buffer and the context that come back.
    fn refused(posted: Result<OpId, Refused<u64>>) -> Option<(Error, usize, u64)> {
        let refused = posted.err()?;
        Some((refused.error, refused.buffer.len(), refused.context))
    }

    #[test]
    fn receive_that_is_refused_comes_back_and_holds_no_slot() -> Result {
        let bench = Bench::new()?;
        let region = region(&bench, 64)?;
        let slice = || region.slice(1, 60);
        // There are 4 slots.
        for messages in [0, 5, usize::MAX] {
            let posted = bench.ep.recv_multi(slice()?, messages, 9);
            assert_eq!(refused(posted), Some((EINVAL, 60, 9)));
        }
        let posted = bench.ep.recv_multi(Memory::zeroed(5)?, 1, 9);
        assert_eq!(refused(posted), Some((EINVAL, 5, 9)));
        let posted = bench.ep.recv_multi(Buffer::empty(), 1, 9);
        assert_eq!(refused(posted), Some((EINVAL, 0, 9)));
        let nobody = Address::from_raw(0);
        let posted = bench.ep.recv_multi_from(slice()?, nobody, 4, 9);
        assert_eq!(refused(posted), Some((EHOSTUNREACH, 60, 9)));
        // Half of the slots are taken: those that it found are free again.
        for context in 0..2 {
            bench.ep.recv(Buffer::empty(), context)?;
        }
        for messages in [3, 4] {
            let posted = bench.ep.recv_multi(slice()?, messages, 9);
            assert_eq!(refused(posted), Some((EAGAIN, 60, 9)));
        }
        assert_eq!(bench.ep.in_flight(), 2);
        let peer = bench.peer()?;
        assert!(bench.ep.recv_multi_from(slice()?, peer, 2, 9).is_ok());
        let posted = bench.ep.recv_multi(slice()?, 1, 9);
        assert_eq!(refused(posted), Some((EAGAIN, 60, 9)));
        assert!(bench.ended().is_none());
        Ok(())
    }

    #[test]
    fn endpoint_must_be_enabled_for_it() -> Result {
        let bench = Bench::new()?;
        let region = region(&bench, 64)?;
        let cq = CompletionQueue::<u64>::new(&bench.opened.domain, 8, None)?;
        for (caps, expected) in [
            (Caps::MSG, Some(EOPNOTSUPP)),
            (Caps::MULTI_RECV, Some(EOPNOTSUPP)),
            (Caps::MSG | Caps::MULTI_RECV, None),
        ] {
            let info = Info {
                caps,
                ..Desk::info()?
            };
            let builder = Endpoint::builder(&bench.opened.domain, &info);
            let ep = builder.cq(&cq).av(&bench.av).enable()?;
            let posted = ep.recv_multi(region.slice(0, 64)?, 1, 9);
            assert_eq!(posted.err().map(Error::from), expected);
        }
        Ok(())
    }

    #[test]
    fn least_space_is_what_was_chosen_or_the_default() -> Result {
        let bench = Bench::new()?;
        let region = region(&bench, 2 * MIN_MULTI_RECV)?;
        let peer = slots::Bench::<u64>::new(1, None)?;
        let (domain, info) = (&bench.opened.domain, Desk::info()?);
        let cq = CompletionQueue::<u64>::new(domain, 8, None)?;
        for (chosen, least) in [(None, MIN_MULTI_RECV), (Some(10), 10), (Some(0), 1)] {
            let mut builder = Endpoint::builder(domain, &info).cq(&cq).av(&bench.av);
            if let Some(least) = chosen {
                builder = builder.min_multi_recv(least);
            }
            let ep = builder.enable()?;
            let len = region.slice(0, 2 * MIN_MULTI_RECV)?.len();
            ep.recv_multi(region.slice(0, len)?, 4, 9)?;
            // As much as it can be without the receive's end, and then a byte.
            for (bytes, offset, released) in [(len - least, 0, false), (1, len - least, true)] {
                let buffer = Memory::zeroed(bytes)?.into();
                let (_, arrival) = peer.post(Kind::Send, buffer, 0)?;
                ep.live.port.offer(arrival).ok_or(ENOENT)?.execute();
                drop(peer.read());
                let done = cq.read().ok_or(ENOENT)?;
                assert_eq!(done.part, Some(Part { offset, released }));
            }
            assert!(cq.read().is_none());
        }
        Ok(())
    }

    #[test]
    fn clones_of_the_context_go_with_the_last_completion() -> Result {
        let bench = Bench::new()?;
        let region = region(&bench, 64)?;
        let info = Desk::info()?;
        let cq = CompletionQueue::<Arc<u64>>::new(&bench.opened.domain, 8, None)?;
        let builder = Endpoint::builder(&bench.opened.domain, &info);
        let ep = builder.cq(&cq).av(&bench.av).enable()?;
        let context = Arc::new(9, GFP_KERNEL)?;
        let id = ep.recv_multi(region.slice(0, 64)?, 4, context.clone())?;
        assert!(Arc::into_unique_or_drop(context.clone()).is_none());
        ep.cancel(id)?;
        let done = cq.read().ok_or(ENOENT)?;
        assert_eq!(done.result, Err(Failure::not_executed(ECANCELED)));
        let told = Part {
            offset: 0,
            released: true,
        };
        assert_eq!((done.part, done.buffer.len()), (Some(told), 64));
        assert!(Arc::ptr_eq(&done.context, &context) && cq.read().is_none());
        drop(done);
        assert!(Arc::into_unique_or_drop(context).is_some());
        // All slots are free, and the region can be reclaimed.
        assert_eq!(ep.in_flight(), 0);
        assert!(region.close().is_ok());
        Ok(())
    }
}
