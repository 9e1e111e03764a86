// SPDX-License-Identifier: GPL-2.0

//! Messages. Source: fi_msg(3).

use super::post::Wanted;
use super::side::{Receives, Transmits};
use super::Endpoint;
use crate::av::Address;
use crate::mr::Access;
use crate::op::{Buffer, Kind, Level, OpId, Options, Refused};
use kernel::prelude::*;

impl<C: Send + 'static, S: Transmits<C>> Endpoint<C, S> {
    /// Sends a copy of `bytes`, which are the caller's again at once.
    ///
    /// As [`Endpoint::send`] but for that; no memory is needed or allocated, and the completion
    /// brings none back. It may be silent. At most
    /// [`Limits::inject_size`](crate::info::Limits) bytes.
    ///
    /// # Errors
    /// - `EMSGSIZE`: too many bytes; a message's own limit holds as well.
    ///
    /// Source: fi_inject(3), FI_INJECT of fi_sendmsg(3).
    pub fn inject(
        &self,
        bytes: &[u8],
        to: Address,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let checked = self.check_injection(bytes.len());
        let buffer = Buffer::injected(bytes.len());
        self.message(checked, buffer, bytes, (to, None, options), context)
    }

    /// Sends the bytes of `buffer` to a peer, and completes when they are in its receive buffer.
    ///
    /// Waits, in its slot, for a receive there. Never sleeps; process or softirq context. At most
    /// [`Limits::max_msg_size`](crate::info::Limits) bytes.
    ///
    /// # Errors
    /// - `EAGAIN`: no free slot; read the queue, then try again.
    /// - `EMSGSIZE`: too many bytes.
    /// - `EHOSTUNREACH`: `to` is not in the address vector.
    /// - `EOPNOTSUPP`: no messages here; level committed, which a message never reaches; a fence,
    ///   a device's own memory, or a receive context of the peer but the first, and the endpoint was not enabled
    ///   for it.
    /// - `EINVAL`: the buffer is of a region of another domain; or silent, with owned memory.
    /// - `ECANCELED`, `ENODEV`: the endpoint is closed; the domain has ended.
    ///
    /// Those of the completion: `EHOSTUNREACH`: no such peer, or it closed. `EMSGSIZE`: longer
    /// than the peer's buffer; nothing was moved. `EINVAL`: the peer has no receive context of that index.
    #[inline]
    pub fn send(
        &self,
        buffer: impl Into<Buffer>,
        to: Address,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let buffer = buffer.into();
        let checked = self.check_message(buffer.len());
        self.message(checked, buffer, &[], (to, None, options), context)
    }

    /// Whether a message of so many injected bytes may be sent.
    #[inline(always)]
    pub(super) fn check_injection(&self, len: usize) -> Result {
        match len > self.inject_size() {
            true => Err(EMSGSIZE),
            false => Ok(()),
        }
    }

    /// Whether a message of so many bytes may be sent.
    #[inline(always)]
    pub(super) fn check_message(&self, len: usize) -> Result {
        match len > self.whole.base.limits.max_msg_size {
            true => Err(EMSGSIZE),
            false => Ok(()),
        }
    }

    /// Posts a message, with a tag or without.
    #[inline(always)]
    pub(super) fn message(
        &self,
        checked: Result,
        buffer: Buffer,
        bytes: &[u8],
        (to, tag, options): (Address, Option<u64>, Options),
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let checked = match options.level {
            Level::Committed => checked.and(Err(EOPNOTSUPP)),
            _ => checked,
        };
        let wanted = Wanted {
            kind: Kind::Send,
            to,
            options,
            remote: None,
            atomic: None,
            tag,
        };
        self.transmit(checked, wanted, buffer, bytes, context)
    }
}

impl<C: Send + 'static, S: Receives<C>> Endpoint<C, S> {
    /// Receives a message without a tag into `buffer`, or the remote CQ data of a write.
    ///
    /// Messages meet receives in the order of both. A write's data leaves the buffer untouched,
    /// which may be empty. Never sleeps; process or softirq context.
    ///
    /// # Errors
    /// - `EAGAIN`: no free slot.
    /// - `EOPNOTSUPP`: no messages here; or a device's own memory, and the endpoint was not enabled
    ///   for it.
    /// - `EINVAL`: the buffer is of a region of another domain.
    /// - `ECANCELED`, `ENODEV`: the endpoint is closed; the domain has ended.
    ///
    /// Those of the completion: `EMSGSIZE`: the message was longer than the buffer.
    #[inline]
    pub fn recv(&self, buffer: impl Into<Buffer>, context: C) -> Result<OpId, Refused<C>> {
        let untagged = (None, Access::NONE);
        self.receive(buffer.into(), Address::UNSPECIFIED, untagged, context)
    }

    /// Receives a message without a tag, or the remote CQ data of a write, of one peer.
    ///
    /// As [`Endpoint::recv`] but for that; with [`Address::UNSPECIFIED`] it takes everybody's. A message
    /// goes to the receive that was posted first of those that take it. The peer is the one that has
    /// the address at the post. Steps: if messages wait, those of others before the first of the peer.
    ///
    /// # Errors
    /// As [`Endpoint::recv`], and
    /// - `EHOSTUNREACH`: `from` is not in the address vector.
    /// - `ENOTCONN`: the endpoint is to be connected first.
    /// - `EOPNOTSUPP`: also if the endpoint was not enabled for
    ///   [`Caps::DIRECTED_RECV`](crate::info::Caps::DIRECTED_RECV).
    ///
    /// Source: `src_addr` of fi_recv(3), FI_DIRECTED_RECV of fi_getinfo(3).
    #[inline]
    pub fn recv_from(
        &self,
        buffer: impl Into<Buffer>,
        from: Address,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        self.receive(buffer.into(), from, (None, Access::NONE), context)
    }
}

#[kunit_tests(kfabric_endpoint_msg)]
mod tests {
    use super::*;
    use crate::cq::CompletionQueue;
    use crate::memory::Memory;
    use crate::op::Op;
    use crate::provider::testing::{Bench, Desk};

    #[test]
    fn message_has_a_longest() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        for (len, expected) in [(0, None), (100, None), (101, Some(EMSGSIZE))] {
            let refused = bench
                .ep
                .send(Memory::zeroed(len)?, to, Options::default(), 1)
                .err();
            let refused = refused.map(|refused| (refused.error, refused.buffer.len()));
            assert_eq!(refused, expected.map(|error| (error, len)));
        }
        // What was refused has taken no slot.
        assert_eq!(bench.ep.in_flight(), 2);
        Ok(())
    }

    #[test]
    fn injection_is_bounded_by_the_longest_message_too() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        let cq = CompletionQueue::<u64>::new(&bench.opened.domain, 16, None)?;
        for (max_msg_size, inject_size, most) in [(8, 16, 8), (100, 7, 7), (100, 16, 16)] {
            let mut info = Desk::info()?;
            info.limits.max_msg_size = max_msg_size;
            info.limits.inject_size = inject_size;
            let builder = Endpoint::builder(&bench.opened.domain, &info);
            let ep = builder.cq(&cq).av(&bench.av).enable()?;
            let inject = |len: usize| ep.inject(&[0; 17][..len], to, Options::NONE, 1).err();
            assert!(inject(most).is_none());
            assert_eq!(inject(most + 1).map(Error::from), Some(EMSGSIZE));
        }
        Ok(())
    }

    #[test]
    fn message_goes_to_a_peer_that_is_known() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        bench.av.remove(to)?;
        for address in [to, Address::from_raw(u64::MAX)] {
            let refused = bench
                .ep
                .send(Memory::zeroed(5)?, address, Options::default(), 9)
                .err();
            let refused = refused.map(|refused| (refused.error, refused.context));
            assert_eq!(refused, Some((EHOSTUNREACH, 9)));
        }
        Ok(())
    }

    #[test]
    fn provider_gets_what_was_posted() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        bench
            .ep
            .send(Memory::zeroed(5)?, to, Options::default(), 1)?;
        bench.ep.send(
            Buffer::empty(),
            to,
            Options {
                data: Some(7),
                ..Options::default()
            },
            2,
        )?;
        let mut kept = bench.opened.desk.take();
        for (data, len) in [(None, 5), (Some(7), 0)] {
            let op = kept.pop().ok_or(EINVAL)?;
            let op: &Op = &op;
            assert_eq!((op.kind(), op.level()), (Kind::Send, Level::Delivered));
            assert_eq!((op.data(), op.len()), (data, len));
            assert!(*op.peer() == bench.ep.name() && op.remote().is_none());
        }
        assert!(kept.pop().is_none());
        Ok(())
    }

    #[test]
    fn receive_waits_at_the_port_and_not_at_the_provider() -> Result {
        let bench = Bench::new()?;
        let id = bench.ep.recv(Memory::zeroed(5)?, 1)?;
        assert!(bench.opened.desk.take().pop().is_none());
        bench.ep.cancel(id)?;
        assert!(matches!(bench.ended(), Some((Kind::Recv, 1, Err(_)))));
        Ok(())
    }
}
