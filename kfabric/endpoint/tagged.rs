// SPDX-License-Identifier: GPL-2.0

//! Tagged messages, and tagged RMA: into or out of the receive that a peer has posted under a tag. Source:
//! fi_tagged(3).

use super::post::Wanted;
use super::side::{Receives, Transmits};
use super::Endpoint;
use crate::av::Address;
use crate::mr::Access;
use crate::op::{Buffer, Kind, Level, OpId, Options, Refused};
use crate::proto::tag::Tags;
use kernel::prelude::*;

impl<C: Send + 'static, S: Transmits<C>> Endpoint<C, S> {
    /// Sends the bytes of `buffer` to a peer under a tag, and completes when they are in the buffer of a
    /// receive that takes that tag.
    ///
    /// As [`Endpoint::send`] but for that; any of the 64 bits may be set.
    ///
    /// # Errors
    /// - `EOPNOTSUPP`: also if the endpoint was not enabled for
    ///   [`Caps::TAGGED`](crate::info::Caps::TAGGED).
    ///
    /// Source: fi_tsend(3), and fi_tsenddata(3) with [`Options::data`].
    #[inline]
    pub fn tsend(
        &self,
        buffer: impl Into<Buffer>,
        to: Address,
        tag: u64,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let buffer = buffer.into();
        let checked = self.check_message(buffer.len());
        self.message(checked, buffer, &[], (to, Some(tag), options), context)
    }

    /// Sends a copy of `bytes` to a peer under a tag; they are the caller's again at once.
    ///
    /// As [`Endpoint::inject`] and [`Endpoint::tsend`]. Source: fi_tinject(3).
    pub fn tinject(
        &self,
        bytes: &[u8],
        to: Address,
        tag: u64,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let (checked, buffer) = (
            self.check_injection(bytes.len()),
            Buffer::injected(bytes.len()),
        );
        self.message(checked, buffer, bytes, (to, Some(tag), options), context)
    }
}

impl<C: Send + 'static, S: Transmits<C>> Endpoint<C, S> {
    /// Writes the bytes of `buffer` into the buffer of the receive that a peer has posted under `tag`, from its first
    /// byte on, and consumes that receive.
    ///
    /// It is that which a message of this tag would go to, of those that expose their buffers to writes
    /// ([`Endpoint::trecv_rma`]). Unlike a message it waits for none. The receive may be longer. Remote CQ data come
    /// with its completion. Never sleeps; process or softirq context. At most
    /// [`Limits::max_msg_size`](crate::info::Limits) bytes.
    ///
    /// # Errors
    /// As [`Endpoint::tsend`], and
    /// - `EOPNOTSUPP`: also if the endpoint was not enabled for [`Caps::WRITE`](crate::info::Caps::WRITE); level
    ///   committed.
    ///
    /// Those of the completion: `ENOENT`: no such receive is posted. `EMSGSIZE`: it is too short, and has completed with
    /// that, too. `EHOSTUNREACH`: no such peer, or it closed. `ENODEV`, `EIO`: of the memory of a device.
    ///
    /// Source: FI_TAGGED of fi_getinfo(3), with fi_writemsg(3) and a tag in place of the key.
    pub fn twrite(
        &self,
        buffer: impl Into<Buffer>,
        to: Address,
        tag: u64,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        self.tagged_rma(Kind::Write, buffer.into(), (to, tag, options), context)
    }

    /// Reads the first bytes of the buffer of the receive that a peer has posted under `tag` into `buffer`, as many as
    /// that takes, and consumes that receive.
    ///
    /// As [`Endpoint::twrite`], with [`Caps::READ`](crate::info::Caps::READ).
    ///
    /// # Errors
    /// - `EINVAL`: also for remote CQ data, which a read does not carry.
    pub fn tread(
        &self,
        buffer: impl Into<Buffer>,
        to: Address,
        tag: u64,
        options: Options,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        self.tagged_rma(Kind::Read, buffer.into(), (to, tag, options), context)
    }

    fn tagged_rma(
        &self,
        kind: Kind,
        buffer: Buffer,
        (to, tag, options): (Address, u64, Options),
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let checked = match options.level {
            // What a receive's buffer is, who posts does not know.
            Level::Committed => Err(EOPNOTSUPP),
            _ if kind == Kind::Read && options.data.is_some() => Err(EINVAL),
            _ => self.check_message(buffer.len()),
        };
        let wanted = Wanted {
            kind,
            to,
            options,
            remote: None,
            atomic: None,
            tag: Some(tag),
        };
        self.transmit(checked, wanted, buffer, &[], context)
    }
}

impl<C: Send + 'static, S: Receives<C>> Endpoint<C, S> {
    /// Posts a buffer under a tag that a peer's write ([`Endpoint::twrite`]) or read ([`Endpoint::tread`]) consumes, as
    /// far as `access` says, or a message.
    ///
    /// As [`Endpoint::trecv_from`] but for that; `from` may be [`Address::UNSPECIFIED`]. **With [`Access::READ`] peers
    /// get what is in the buffer.** Its completion is of [`Kind::RemoteWrite`] or [`Kind::RemoteRead`] with a tag, or,
    /// if a message came, of [`Kind::Recv`]; of a read when the peer has all bytes.
    ///
    /// # Errors
    /// As [`Endpoint::trecv_from`], and
    /// - `EINVAL`: other rights than to read and to write.
    ///
    /// Those of the completion: `EMSGSIZE`: what came was longer than the buffer. Others: the peer, or its link, went
    /// in the midst.
    pub fn trecv_rma(
        &self,
        buffer: impl Into<Buffer>,
        from: Address,
        (tag, ignore): (u64, u64),
        access: Access,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let buffer = buffer.into();
        if !Access::READ_WRITE.contains(access) {
            return self.refuse_receive(EINVAL, buffer, context);
        }
        let tags = (Some(Tags::new(tag, ignore)), access);
        self.receive(buffer, from, tags, context)
    }

    /// Receives a message into `buffer` whose tag is `tag` in all bits that are not set in `ignore`.
    ///
    /// Of the messages that it takes it gets the one that came first, and a message goes to the receive
    /// that was posted first of those that take it. Untagged messages, and the remote CQ data of writes,
    /// are for [`Endpoint::recv`]. The completion tells the tag of the message. Never sleeps; process or
    /// softirq context. Steps: the receives and messages of that tag which wait; if `ignore` is not 0,
    /// all tagged messages that wait.
    ///
    /// # Errors
    /// As [`Endpoint::recv`], and
    /// - `EOPNOTSUPP`: also if the endpoint was not enabled for
    ///   [`Caps::TAGGED`](crate::info::Caps::TAGGED).
    ///
    /// Source: fi_trecv(3).
    #[inline]
    pub fn trecv(
        &self,
        buffer: impl Into<Buffer>,
        tag: u64,
        ignore: u64,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let tags = (Some(Tags::new(tag, ignore)), Access::NONE);
        self.receive(buffer.into(), Address::UNSPECIFIED, tags, context)
    }

    /// Receives a message with such a tag of one peer.
    ///
    /// As [`Endpoint::trecv`] and [`Endpoint::recv_from`].
    #[inline]
    pub fn trecv_from(
        &self,
        buffer: impl Into<Buffer>,
        from: Address,
        tag: u64,
        ignore: u64,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let tags = (Some(Tags::new(tag, ignore)), Access::NONE);
        self.receive(buffer.into(), from, tags, context)
    }
}

#[kunit_tests(kfabric_endpoint_tagged)]
mod tests {
    use super::*;
    use crate::cq::CompletionQueue;
    use crate::info::Caps;
    use crate::provider::testing::{Bench, Desk};

    #[test]
    fn each_family_of_messages_needs_its_own_capability() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        let cq = CompletionQueue::<u64>::new(&bench.opened.domain, 16, None)?;
        let refused = Some(EOPNOTSUPP);
        for (caps, untagged, tagged) in [
            (Caps::MSG, None, refused),
            (Caps::TAGGED, refused, None),
            (Caps::MSG | Caps::TAGGED, None, None),
        ] {
            let mut info = Desk::info()?;
            info.caps = caps;
            let builder = Endpoint::builder(&bench.opened.domain, &info);
            let ep = builder.cq(&cq).av(&bench.av).enable()?;
            let empty = Buffer::empty;
            for (posted, expected) in [
                (ep.send(empty(), to, Options::NONE, 1), untagged),
                (ep.inject(&[], to, Options::NONE, 1), untagged),
                (ep.recv(empty(), 1), untagged),
                (ep.tsend(empty(), to, 7, Options::NONE, 1), tagged),
                (ep.tinject(&[], to, 7, Options::NONE, 1), tagged),
                (ep.trecv(empty(), 7, 0, 1), tagged),
            ] {
                assert_eq!(posted.err().map(Error::from), expected);
            }
        }
        Ok(())
    }

    #[test]
    fn operation_that_meets_nothing_tells_its_own_tag() -> Result {
        let bench = Bench::new()?;
        let (ep, to) = (&bench.ep, bench.peer()?);
        ep.tsend(Buffer::empty(), to, u64::MAX, Options::NONE, 1)?;
        let sent = bench.opened.desk.take().pop().ok_or(EINVAL)?;
        assert_eq!(sent.tag(), Some(u64::MAX));
        drop(sent);
        ep.send(Buffer::empty(), to, Options::NONE, 2)?;
        drop(bench.opened.desk.take());
        let receive = ep.trecv(Buffer::empty(), 5, 0xff, 3)?;
        ep.cancel(receive)?;
        let receive = ep.recv(Buffer::empty(), 4)?;
        ep.cancel(receive)?;
        for (kind, context, tag) in [
            (Kind::Send, 1, Some(u64::MAX)),
            (Kind::Send, 2, None),
            (Kind::Recv, 3, Some(5)),
            (Kind::Recv, 4, None),
        ] {
            let done = bench.cq.read().ok_or(EINVAL)?;
            assert_eq!((done.kind, done.context, done.tag), (kind, context, tag));
        }
        Ok(())
    }
}
