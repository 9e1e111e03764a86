// SPDX-License-Identifier: GPL-2.0

//! A post: its way from the consumer to the provider or to the port.

use super::direction::Direction;
use super::live::Live;
use super::reach::Reach;
use super::side::{Receives, Side, Transmits};
use super::Endpoint;
use crate::av::{Address, Name};
use crate::info::Caps;
use crate::memory::Exposed;
use crate::mr::{Access, RemoteSlice};
use crate::op::multi::dissolve;
use crate::op::{
    AtomicAction, Buffer, Chain, Kind, Level, OpId, Operation, Options, Refused, Request,
    INJECT_SIZE,
};
use crate::proto::tag::Tags;
use crate::provider::{Match, Rejected};
use crate::sys::slot::Slot;
use crate::trace;
use kernel::prelude::*;
use kernel::sync::rcu::{self, Guard};

/// How much of what waits a post of a receive of several messages moves itself, in bytes: the provider's worker takes
/// the rest, since the post may be in a softirq.
#[derive(Default)]
struct Burst(usize);

impl Burst {
    const MOST: usize = 64 << 10;
    /// What a message costs at least.
    const LEAST: usize = 2 << 10;

    /// Whether the post moves a message of `len` bytes, too.
    fn takes(&mut self, len: usize) -> bool {
        self.0 = self.0.saturating_add(len.max(Self::LEAST));
        self.0 <= Self::MOST
    }
}

/// What is wanted of a peer.
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) to: Address,
    pub(super) options: Options,
    pub(super) remote: Option<RemoteSlice>,
    pub(super) atomic: Option<AtomicAction>,
    /// The tag of a message.
    pub(super) tag: Option<u64>,
}

/// A post that has begun.
struct Posting<C: Send + 'static> {
    slot: Slot<C>,
    /// Until the provider has taken it or handed it back.
    section: Guard,
}

/// What an endpoint must have been enabled for, so that it does such an operation.
#[inline(always)]
fn needs(kind: Kind, options: &Options, tagged: bool) -> Caps {
    let mut needs = match kind {
        Kind::Send | Kind::Recv if tagged => Caps::TAGGED,
        Kind::Send | Kind::Recv | Kind::RemoteWrite | Kind::RemoteRead => Caps::MSG,
        Kind::Write => Caps::WRITE,
        Kind::Read => Caps::READ,
        Kind::Commit => Caps::COMMIT,
        Kind::Atomic => Caps::ATOMIC,
    };
    if tagged {
        needs |= Caps::TAGGED;
    }
    if options.level == Level::Committed {
        needs |= Caps::COMMIT;
    }
    if matches!(kind, Kind::Write | Kind::Commit) && options.data.is_some() {
        needs |= Caps::REMOTE_CQ_DATA;
    }
    if options.fence {
        needs |= Caps::FENCE;
    }
    needs
}

impl<C: Send + 'static, S: Side> Endpoint<C, S> {
    /// Begins a post: the closed and the full endpoint refuse it.
    #[inline(always)]
    fn begin(&self, direction: &Direction<C>) -> Result<Posting<C>> {
        let section = rcu::read_lock();
        if let Some(error) = self.live.refusal() {
            return Err(error);
        }
        Ok(Posting {
            slot: direction.pool.take().ok_or(EAGAIN)?,
            section,
        })
    }

    /// Posts a request to the provider, or a receive to the port.
    // Inlined, so that the request is written into its slot and nowhere else.
    #[inline(always)]
    fn post(
        &self,
        posting: Posting<C>,
        request: Request,
        bytes: &[u8],
        context: C,
        execute: impl FnOnce(&Live, Operation, &Guard) -> Result<(), Rejected>,
    ) -> Result<OpId, Refused<C>> {
        let Posting { mut slot, section } = posting;
        let receive = request.kind == Kind::Recv;
        let (index, use_count) = slot.op().fill(request);
        let poster = slot.op().poster();
        slot.op().inject(bytes);
        let op = slot.arm(context);
        trace::post(&op);
        let taken = execute(&self.live, op, &section);
        drop(section);
        let id = OpId {
            poster,
            receive,
            index,
            use_count,
        };
        match taken {
            Ok(()) => Ok(id),
            Err(Rejected { op, error }) => Self::give_back(op, error, id),
        }
    }

    /// Turns an operation that the provider handed back into a refusal.
    #[cold]
    fn give_back(mut op: Operation, error: Error, id: OpId) -> Result<OpId, Refused<C>> {
        if op.id() != id {
            // Not what was posted: the provider's error. What was posted is still with it, and this
            // one ends here.
            pr_err!("a provider handed back another operation than was posted\n");
            drop(op);
            return Ok(id);
        }
        op.refused();
        match op.claim::<C>() {
            Ok((mut slot, context)) => {
                let buffer = slot.op().take_buffer();
                Err(Refused {
                    error,
                    buffer,
                    context,
                })
            }
            // An operation's number names its endpoint, whose contexts are of type `C`.
            Err(_) => Ok(id),
        }
    }

    /// Refuses what has no slot.
    #[cold]
    fn refuse(
        direction: &Direction<C>,
        error: Error,
        buffer: Buffer,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        direction.origin.stats.refused(1);
        Err(Refused {
            error,
            buffer,
            context,
        })
    }

    /// Whether the endpoint does such operations, with such a local side.
    ///
    /// # Errors
    /// - `EOPNOTSUPP`: it was not enabled for them, or not for a device's own memory.
    /// - `EINVAL`: silent, with owned memory; a slice of a region of another domain.
    #[inline(always)]
    fn allows(&self, kind: Kind, options: &Options, tagged: bool, buffer: &Buffer) -> Result {
        let mut needs = needs(kind, options, tagged);
        if let Some(slice) = buffer.slice() {
            if slice.domain() != self.whole.base.domain.id() {
                return Err(EINVAL);
            }
        } else if options.silent && buffer.memory().is_some() {
            return Err(EINVAL);
        }
        if buffer.memory().is_some_and(Exposed::is_device) {
            needs |= Caps::HMEM;
        }
        match self.whole.base.caps.contains(needs) {
            true => Ok(()),
            false => Err(EOPNOTSUPP),
        }
    }

    /// Whose messages a receive takes.
    ///
    /// # Errors
    /// - `EOPNOTSUPP`: the endpoint was not enabled for telling peers apart.
    /// - Those of [`Endpoint::peer`].
    #[inline(always)]
    fn source(&self, from: Address) -> Result<Name> {
        match from {
            Address::UNSPECIFIED => Ok(Name::NONE),
            _ if !self.whole.base.caps.contains(Caps::DIRECTED_RECV) => Err(EOPNOTSUPP),
            from => self.peer(from),
        }
    }

    /// The peer behind an address.
    ///
    /// # Errors
    /// - `EHOSTUNREACH`: there is none.
    /// - `ENOTCONN`: the endpoint is to be connected first.
    #[inline(always)]
    fn peer(&self, address: Address) -> Result<Name> {
        match &self.whole.base.reach {
            Reach::Peers(peers) => peers.name(address).ok_or(EHOSTUNREACH),
            Reach::Peer { connection, .. } => self.live.connected_peer(connection, address),
        }
    }
}

impl<C: Send + 'static, S: Transmits<C>> Endpoint<C, S> {
    /// Posts an operation for a peer, or refuses it: for what was `checked` already, or here.
    ///
    /// `bytes` are those of an injected buffer, of which the slot takes a copy.
    // Inlined into each kind of post, for which much of it is known.
    #[inline(always)]
    pub(super) fn transmit(
        &self,
        checked: Result,
        wanted: Wanted,
        buffer: Buffer,
        bytes: &[u8],
        context: C,
    ) -> Result<OpId, Refused<C>> {
        // Step by step, without a value that holds what several of them give: it would be copied.
        let tx = self.side.tx();
        let refuse = |error, buffer: Buffer, context| {
            Self::refuse(&tx.direction, error, buffer.returned(), context)
        };
        if let Err(error) = checked {
            return refuse(error, buffer, context);
        }
        if let Err(error) = self.allows(wanted.kind, &wanted.options, wanted.tag.is_some(), &buffer)
        {
            return refuse(error, buffer, context);
        }
        let posting = match self.begin(&tx.direction) {
            Ok(posting) => posting,
            Err(error) => return refuse(error, buffer, context),
        };
        // After the slot was taken: so the name goes there straight.
        let peer = match self.peer(wanted.to) {
            Ok(peer) => peer,
            Err(error) => return refuse(error, buffer, context),
        };
        let peer_context = wanted.to.context();
        if peer_context != 0 && !self.whole.base.caps.contains(Caps::NAMED_RX_CTX) {
            return refuse(EOPNOTSUPP, buffer, context);
        }
        let request = Request {
            kind: wanted.kind,
            options: wanted.options,
            peer,
            peer_context,
            remote: wanted.remote,
            atomic: wanted.atomic,
            tags: wanted.tag.map(Tags::one),
            exposes: Access::NONE,
            buffer,
        };
        self.post(posting, request, bytes, context, |live, op, section| {
            live.submit(op, &tx.fence, section)
        })
    }

    /// The most bytes that a post takes a copy of.
    pub(super) fn inject_size(&self) -> usize {
        let most = self
            .whole
            .base
            .limits
            .inject_size
            .min(self.whole.base.limits.max_msg_size);
        most.min(INJECT_SIZE)
    }
}

impl<C: Send + 'static, S: Receives<C>> Endpoint<C, S> {
    /// Posts a receive of messages of a peer, or of everybody, with these tags or untagged, or refuses it; one with
    /// tags may be for tagged writes and reads, too, as far as it `exposes` the buffer to them.
    #[inline(always)]
    pub(super) fn receive(
        &self,
        buffer: Buffer,
        from: Address,
        (tags, exposes): (Option<Tags>, Access),
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let rx = self.side.rx();
        let begun = self
            .allows(Kind::Recv, &Options::NONE, tags.is_some(), &buffer)
            .and_then(|()| self.begin(&rx.direction));
        let posting = match begun {
            Ok(posting) => posting,
            Err(error) => return Self::refuse(&rx.direction, error, buffer, context),
        };
        let peer = match self.source(from) {
            Ok(peer) => peer,
            Err(error) => return Self::refuse(&rx.direction, error, buffer, context),
        };
        let request = Request {
            kind: Kind::Recv,
            options: Options::NONE,
            peer,
            peer_context: 0,
            remote: None,
            atomic: None,
            tags,
            exposes,
            buffer,
        };
        self.post(posting, request, &[], context, |live, op, _| {
            if let Some(pair) = rx.matching.post(op) {
                live.transport().matched(pair);
            }
            Ok(())
        })
    }

    /// Refuses a receive that can't be.
    pub(super) fn refuse_receive(
        &self,
        error: Error,
        buffer: Buffer,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        Self::refuse(&self.side.rx().direction, error, buffer, context)
    }

    /// Posts a receive of at most so many messages of a peer, or of everybody, or refuses it.
    pub(super) fn receive_several(
        &self,
        buffer: Buffer,
        from: Address,
        messages: usize,
        context: C,
    ) -> Result<OpId, Refused<C>>
    where
        C: Clone,
    {
        let rx = self.side.rx();
        let begun = self.begin_several(&buffer, from, messages, &context);
        let (Posting { mut slot, section }, peer, spares) = match begun {
            Ok(begun) => begun,
            Err(error) => return Self::refuse(&rx.direction, error, buffer, context),
        };
        let (index, use_count) = slot.op().fill(Request {
            kind: Kind::Recv,
            options: Options::NONE,
            peer,
            peer_context: 0,
            remote: None,
            atomic: None,
            tags: None,
            exposes: Access::NONE,
            buffer,
        });
        slot.op().take_several(spares, rx.min_multi_recv);
        let op = slot.arm(context);
        trace::post(&op);
        let mut pairs = rx.matching.post_multi(op);
        let mut burst = Burst::default();
        while let Some((arrival, receive)) = pairs.pop().zip(pairs.pop()) {
            let mut pair = Match::from_parts(arrival, receive);
            if !burst.takes(pair.len()) {
                pair = pair.later();
            }
            self.live.transport().matched(pair);
        }
        drop(section);
        Ok(OpId {
            poster: rx.direction.origin.poster,
            receive: true,
            index,
            use_count,
        })
    }

    /// What a receive of several messages needs: a slot for each, and whose they are.
    fn begin_several(
        &self,
        buffer: &Buffer,
        from: Address,
        messages: usize,
        context: &C,
    ) -> Result<(Posting<C>, Name, Chain)>
    where
        C: Clone,
    {
        if !(1..=self.whole.base.limits.rx_size).contains(&messages) || buffer.slice().is_none() {
            return Err(EINVAL);
        }
        self.allows(Kind::Recv, &Options::NONE, false, buffer)?;
        if !self.whole.base.caps.contains(Caps::MULTI_RECV) {
            return Err(EOPNOTSUPP);
        }
        let rx = self.side.rx();
        let posting = self.begin(&rx.direction)?;
        let peer = self.source(from)?;
        let mut spares = Chain::new();
        for _ in 1..messages {
            let Some(mut slot) = rx.direction.pool.take() else {
                dissolve(&mut spares);
                return Err(EAGAIN);
            };
            slot.op().reserve();
            spares.push(slot.arm(context.clone()));
        }
        Ok((posting, peer, spares))
    }
}

#[kunit_tests(kfabric_endpoint_post)]
mod tests {
    use super::*;
    use crate::cq::CompletionQueue;
    use crate::info::Info;
    use crate::memory::Memory;
    use crate::mr::Access;
    use crate::op::Success;
    use crate::provider::testing::{Bench, Desk, Opened};
    use crate::sys::bar;
    use kernel::sync::atomic::Relaxed;

    #[test]
    fn each_operation_needs_what_it_asks_for() {
        let (write, msg) = (Caps::WRITE, Caps::MSG);
        let (commit, data) = (Caps::COMMIT, Caps::REMOTE_CQ_DATA);
        use Level::{Committed, Delivered, Transmit};
        for (kind, level, carried, needed) in [
            (Kind::Send, Delivered, None, msg),
            (Kind::Send, Delivered, Some(1), msg),
            (Kind::Recv, Delivered, None, msg),
            (Kind::Read, Delivered, None, Caps::READ),
            (Kind::Write, Transmit, None, write),
            (Kind::Write, Delivered, None, write),
            (Kind::Write, Committed, None, write | commit),
            (Kind::Write, Delivered, Some(1), write | data),
            (Kind::Commit, Committed, None, commit),
            (Kind::Commit, Committed, Some(1), commit | data),
            (Kind::Atomic, Delivered, None, Caps::ATOMIC),
            (Kind::Atomic, Committed, None, Caps::ATOMIC | commit),
        ] {
            let options = Options {
                level,
                data: carried,
                ..Options::NONE
            };
            assert_eq!(needs(kind, &options, false), needed);
            let fence = Options {
                fence: true,
                ..options
            };
            assert_eq!(needs(kind, &fence, false), needed | Caps::FENCE);
        }
        for kind in [Kind::Send, Kind::Recv] {
            assert_eq!(needs(kind, &Options::NONE, true), Caps::TAGGED);
        }
        for (kind, untagged) in [(Kind::Write, Caps::WRITE), (Kind::Read, Caps::READ)] {
            assert_eq!(needs(kind, &Options::NONE, true), untagged | Caps::TAGGED);
        }
    }

    #[test]
    fn post_moves_so_many_bytes_or_messages_and_no_more() {
        let taken = |len| {
            let mut burst = Burst::default();
            (0..1000).filter(|_| burst.takes(len)).count()
        };
        for (len, count) in [
            (0, 32),
            (2 << 10, 32),
            ((2 << 10) + 1, 31),
            (16 << 10, 4),
            (64 << 10, 1),
            ((64 << 10) + 1, 0),
            (usize::MAX, 0),
        ] {
            assert_eq!(taken(len), count);
        }
    }

    /// Why a send of `buffer` and a receive into another are refused.
    fn refusals(
        ep: &Endpoint<u64>,
        to: Address,
        buffer: impl Fn() -> Result<Buffer>,
    ) -> Result<[Option<Error>; 2]> {
        let posts = [
            ep.send(buffer()?, to, Options::NONE, 1),
            ep.recv(buffer()?, 2),
        ];
        Ok(posts.map(|post| post.err().map(Error::from)))
    }

    #[test]
    fn endpoint_does_what_it_was_enabled_for() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        let cq = CompletionQueue::<u64>::new(&bench.opened.domain, 16, None)?;
        let enabled = |caps| {
            let info = Info {
                caps,
                ..Desk::info()?
            };
            let builder = Endpoint::builder(&bench.opened.domain, &info);
            builder.cq(&cq).av(&bench.av).enable()
        };
        let nothing = || Ok(Buffer::empty());
        let refused = [Some(EOPNOTSUPP); 2];
        assert_eq!(refusals(&enabled(Caps::NONE)?, to, nothing)?, refused);
        assert_eq!(refusals(&enabled(Caps::MSG)?, to, nothing)?, [None; 2]);
        let fence = Options {
            fence: true,
            ..Options::NONE
        };
        let posted = bench.ep.send(Buffer::empty(), to, fence, 3);
        assert_eq!(posted.err().map(Error::from), Some(EOPNOTSUPP));
        let fences = enabled(Caps::MSG | Caps::FENCE)?;
        assert!(fences.send(Buffer::empty(), to, fence, 3).is_ok());
        Ok(())
    }

    #[test]
    fn memory_of_a_device_is_refused_where_the_provider_does_not_know_it() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        let lender = bar::testing::lender(64)?;
        let buffer = || Ok(Memory::device(lender.memory(), 0, 5)?.into());
        let refused = [Some(EOPNOTSUPP); 2];
        assert_eq!(refusals(&bench.ep, to, buffer)?, refused);
        assert_eq!(bench.ep.in_flight(), 0);
        Ok(())
    }

    #[test]
    fn slice_of_a_region_of_another_domain_is_refused() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        let Opened { domain, fabric, .. } = &bench.opened;
        let another = fabric.domain(&Desk::info()?)?;
        let expected = [(domain, [None; 2]), (&another, [Some(EINVAL); 2])];
        for (domain, expected) in expected {
            let registered = domain.register(Memory::zeroed(64)?, Access::NONE);
            let region = registered.map_err(|(error, _)| error)?;
            let buffer = || Ok(region.slice(0, 5)?.into());
            assert_eq!(refusals(&bench.ep, to, buffer)?, expected);
        }
        Ok(())
    }

    #[test]
    fn post_that_the_provider_hands_back_is_as_it_was() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        bench.opened.desk.reject.store(EAGAIN.to_errno(), Relaxed);
        // More often than there are slots.
        for context in 0..10 {
            let Err(refused) = bench
                .ep
                .send(Memory::zeroed(5)?, to, Options::default(), context)
            else {
                return Err(EINVAL);
            };
            assert_eq!((refused.error, refused.context), (EAGAIN, context));
            assert!(refused
                .buffer
                .into_memory()
                .is_ok_and(|memory| memory.len() == 5));
        }
        assert_eq!(bench.ep.in_flight(), 0);
        assert!(bench.ended().is_none());
        Ok(())
    }

    #[test]
    fn full_endpoint_counts_each_direction() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        for context in 0..4 {
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), context)?;
            bench.ep.recv(Buffer::empty(), context)?;
        }
        assert_eq!(
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), 4)
                .err()
                .map(Error::from),
            Some(EAGAIN)
        );
        assert_eq!(
            bench.ep.recv(Buffer::empty(), 4).err().map(Error::from),
            Some(EAGAIN)
        );
        assert_eq!(bench.ep.in_flight(), 8);
        let op = bench.opened.desk.take().pop().ok_or(EINVAL)?;
        op.complete(Ok(Success {
            len: 0,
            data: None,
            level: Level::Delivered,
        }));
        // Completed, but not read: the slot is still taken.
        assert_eq!(
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), 4)
                .err()
                .map(Error::from),
            Some(EAGAIN)
        );
        assert!(bench.ended().is_some());
        bench.ep.send(Buffer::empty(), to, Options::default(), 4)?;
        Ok(())
    }
}
