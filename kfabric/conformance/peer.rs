// SPDX-License-Identifier: GPL-2.0

//! The peer of a rig: its end B, here or on another host.
//!
//! Where another host serves, each rig has its B there, as long as a case asks of it only what can be
//! asked from afar; for the rest both ends must be here, and the case is skipped: `EXDEV`. What is asked
//! goes over an endpoint of its own, so that the suite needs nothing but the provider that it tests.
//!
//! | file | noun |
//! |---|---|
//! | `line` | asks the other host |
//! | `region` | a region here, or there |
//! | `servant` | does what is asked for |
//! | `words` | what is said, as bytes |

use crate::close::closed;
use crate::rig::{timeout, until, Base, End, Receive};
use crate::wishes::service_of;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, SetOnce};
use kernel::time::{Instant, Monotonic};
use kfabric::prelude::*;

mod line;
mod region;
mod servant;
mod words;

use line::{Line, Verb};
use words::{Carried, Ended};

pub(crate) use region::Region;
pub(crate) use servant::serve;

/// Who serves on the other host.
struct Host {
    /// What the lines to it are made from.
    info: Info,
    name: Name,
}

/// The other host, if there is one.
static HOST: SetOnce<Host> = SetOnce::new();

/// How many rigs of this case have their peer there.
static RIGS: Atomic<usize> = Atomic::new(0);

/// From now on rigs have their peers at another host, which serves there. `EBUSY`: they have already;
/// `EHOSTUNREACH`: nobody serves there.
pub(crate) fn settle(provider: &str, node: &str, service: &str) -> Result {
    let info = service_of(provider, None)?;
    let end = End::open(&info, 1, None)?;
    let address = end.av.insert_service(node, service)?;
    let name = end.av.lookup(address).ok_or(ENOENT)?;
    // It is there, and answers.
    drop(Line::new(&info, &name)?);
    match HOST.populate(Host { info, name }) {
        true => Ok(()),
        false => Err(EBUSY),
    }
}

/// Tells the other host that this was all.
pub(crate) fn finish() -> Result {
    let host = HOST.as_ref().ok_or(ENOTCONN)?;
    Line::new(&host.info, &host.name)?.finish()
}

/// What is tested against the other host, if there is one.
pub(crate) fn tested() -> Option<&'static Info> {
    HOST.as_ref().map(|host| &host.info)
}

/// Runs a case of which some rigs are to have their peers at the other host, if there is one. `EXDEV`: none had.
pub(crate) fn between(run: impl FnOnce() -> Result) -> Result {
    RIGS.store(0, Relaxed);
    let ended = run();
    match HOST.as_ref() {
        Some(_) if ended.is_ok() && RIGS.load(Relaxed) == 0 => Err(EXDEV),
        _ => ended,
    }
}

/// Fails with `EXDEV` if this case is to be about two hosts, and has had none so far.
pub(crate) fn may_be_here() -> Result {
    match HOST.as_ref() {
        Some(_) if RIGS.load(Relaxed) == 0 => Err(EXDEV),
        _ => Ok(()),
    }
}

/// End B of a rig.
pub(crate) enum Peer {
    Here(KBox<End>),
    There(There),
}

/// One on the other host.
pub(crate) struct There {
    line: Arc<Line>,
    /// Its name, or that at which it listens.
    name: Name,
}

/// What a post at a peer is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    Here(OpId),
    There(usize),
}

impl Posted {
    /// What it is known by here, if it was posted here.
    pub(crate) fn here(self) -> Option<OpId> {
        match self {
            Posted::Here(id) => Some(id),
            Posted::There(_) => None,
        }
    }
}

/// How long the other host waits for a completion before it can be asked for other things, in milliseconds.
const PATIENCE: u32 = 20;

impl Peer {
    /// Opens one, at the other host if there is one.
    #[inline(never)]
    pub(crate) fn new(info: &Info, depth: usize) -> Result<Self> {
        let Some(host) = HOST.as_ref() else {
            return Ok(Peer::Here(End::open(info, depth, None)?));
        };
        let line = Line::new(&host.info, &host.name)?;
        let limits = crate::rig::with_sizes(info, depth, depth).limits;
        let words = (info.endpoint_type, info.caps, info.order, limits);
        let name = line.ask(Verb::Open, words)?;
        RIGS.add(1, Relaxed);
        Ok(Peer::There(There { line, name }))
    }

    /// The end, for what can't be asked from afar. `EXDEV`: it is not here.
    pub(crate) fn here(&self) -> Result<&KBox<End>> {
        match self {
            Peer::Here(end) => Ok(end),
            Peer::There(_) => Err(EXDEV),
        }
    }

    /// The end itself, likewise.
    pub(crate) fn into_here(self) -> Result<KBox<End>> {
        match self {
            Peer::Here(end) => Ok(end),
            Peer::There(_) => Err(EXDEV),
        }
    }

    /// Has `end` connect to it.
    pub(crate) fn accept(&self, end: &End, info: &Info) -> Result {
        match self {
            Peer::Here(peer) => end.connect(peer, info),
            Peer::There(there) => {
                end.ep.connect(&there.name, PrivateData::NONE, timeout())?;
                there.line.ask::<()>(Verb::Accept, ())?;
                end.connected()
            }
        }
    }

    pub(crate) fn name(&self) -> Name {
        match self {
            Peer::Here(end) => end.ep.name(),
            Peer::There(there) => there.name,
        }
    }

    pub(crate) fn insert(&self, name: &Name) -> Result<Address> {
        match self {
            Peer::Here(end) => end.av.insert(name),
            Peer::There(there) => there.line.ask(Verb::Insert, *name),
        }
    }

    pub(crate) fn remove(&self, address: Address) -> Result {
        match self {
            Peer::Here(end) => end.av.remove(address),
            Peer::There(there) => there.line.ask(Verb::Remove, address),
        }
    }

    pub(crate) fn recv(
        &self,
        buffer: impl Into<Buffer>,
        context: u64,
    ) -> Result<Posted, Refused<u64>> {
        self.receive(buffer.into(), Receive::ANY, context)
    }

    pub(crate) fn recv_from(
        &self,
        buffer: impl Into<Buffer>,
        from: Address,
        context: u64,
    ) -> Result<Posted, Refused<u64>> {
        let how = Receive {
            from: Some(from),
            ..Receive::ANY
        };
        self.receive(buffer.into(), how, context)
    }

    pub(crate) fn trecv(
        &self,
        buffer: impl Into<Buffer>,
        tag: u64,
        ignore: u64,
        context: u64,
    ) -> Result<Posted, Refused<u64>> {
        let how = Receive {
            tags: Some((tag, ignore)),
            ..Receive::ANY
        };
        self.receive(buffer.into(), how, context)
    }

    pub(crate) fn trecv_from(
        &self,
        buffer: impl Into<Buffer>,
        from: Address,
        tag: u64,
        ignore: u64,
        context: u64,
    ) -> Result<Posted, Refused<u64>> {
        let how = Receive {
            from: Some(from),
            tags: Some((tag, ignore)),
            access: None,
        };
        self.receive(buffer.into(), how, context)
    }

    pub(crate) fn trecv_rma(
        &self,
        buffer: impl Into<Buffer>,
        from: Address,
        tags: (u64, u64),
        access: Access,
        context: u64,
    ) -> Result<Posted, Refused<u64>> {
        let how = Receive {
            from: Some(from),
            tags: Some(tags),
            access: Some(access),
        };
        self.receive(buffer.into(), how, context)
    }

    fn receive(&self, buffer: Buffer, how: Receive, context: u64) -> Result<Posted, Refused<u64>> {
        match self {
            Peer::Here(end) => end.receive(buffer, how, context).map(Posted::Here),
            Peer::There(there) => there.post(buffer, context, |carried| {
                there.line.ask(Verb::Receive, (carried, how, context))
            }),
        }
    }

    pub(crate) fn send(
        &self,
        buffer: impl Into<Buffer>,
        to: Address,
        options: Options,
        context: u64,
    ) -> Result<Posted, Refused<u64>> {
        match self {
            Peer::Here(end) => end.ep.send(buffer, to, options, context).map(Posted::Here),
            Peer::There(there) => there.post(buffer.into(), context, |carried| {
                there.line.ask(Verb::Send, (carried, to, options, context))
            }),
        }
    }

    pub(crate) fn cancel(&self, posted: Posted) -> Result {
        match (self, posted) {
            (Peer::Here(end), Posted::Here(id)) => end.ep.cancel(id),
            (Peer::There(there), Posted::There(number)) => there.line.ask(Verb::Cancel, number),
            _ => Err(EINVAL),
        }
    }

    /// Cancels an operation that nothing ends by itself, as [`crate::rig::cancel`].
    pub(crate) fn take_back(&self, posted: Posted) -> Result {
        until(|| self.cancel(posted) != Err(ENOENT))
    }

    /// The next completion, if there is one. Fails only if the other host can't be asked.
    pub(crate) fn poll(&self) -> Result<Option<Completion<u64>>> {
        match self {
            Peer::Here(end) => Ok(end.cq.read()),
            Peer::There(there) => there.poll(),
        }
    }

    /// The next completion, whatever it says.
    pub(crate) fn next(&self) -> Result<Completion<u64>> {
        self.next_within(timeout())
    }

    pub(crate) fn next_within(&self, millis: u32) -> Result<Completion<u64>> {
        match self {
            Peer::Here(end) => end.cq.read_wait(millis),
            Peer::There(there) => there.next_within(millis),
        }
    }

    /// Waits until there is a completion.
    pub(crate) fn wait(&self, millis: u32) -> Result {
        match self {
            Peer::Here(end) => end.cq.wait(millis),
            Peer::There(there) => patiently(millis, |millis| there.line.ask(Verb::Wait, millis)),
        }
    }

    /// The next so many completions, sorted by their contexts: operations end in any order.
    pub(crate) fn gather(&self, count: usize) -> Result<KVVec<Completion<u64>>> {
        crate::rig::gather(count, || self.next())
    }

    /// Registers memory, forgetting it on failure.
    pub(crate) fn register(
        &self,
        memory: Memory,
        attributes: impl Into<RegionAttributes>,
    ) -> Result<Region> {
        match self {
            Peer::Here(end) => crate::rig::register(&end.domain, memory, attributes),
            Peer::There(there) => {
                let bytes = memory.into_vec().map_err(|_| EXDEV)?;
                there.registered(Verb::Register, (bytes, attributes.into()))
            }
        }
    }

    /// Registers `len` bytes from `offset` of the persistent memory of its host: here, of `device`.
    pub(crate) fn register_persistent(
        &self,
        device: &Arc<Pmem>,
        offset: u64,
        len: usize,
        attributes: impl Into<RegionAttributes>,
    ) -> Result<Region> {
        match self {
            Peer::Here(_) => self.register(Memory::persistent(device, offset, len)?, attributes),
            Peer::There(there) => {
                there.registered(Verb::RegisterPersistent, (offset, len, attributes.into()))
            }
        }
    }

    /// Closes the endpoint: what it left can be read.
    pub(crate) fn close_endpoint(self) -> Result<Left> {
        match self {
            Peer::Here(end) => {
                let (ep, base) = end.split();
                closed(ep.close())?;
                Ok(Left::Here(base))
            }
            Peer::There(there) => {
                there.line.ask::<()>(Verb::CloseEndpoint, ())?;
                Ok(Left::There(there))
            }
        }
    }

    /// Closes all of it, in order; fails if anything refuses.
    pub(crate) fn close(self) -> Result {
        match self {
            Peer::Here(end) => end.close(),
            Peer::There(there) => there.line.ask(Verb::Close, ()),
        }
    }
}

impl There {
    /// Posts a copy of a buffer; what was to be posted comes back if that is refused.
    fn post(
        &self,
        buffer: Buffer,
        context: u64,
        ask: impl FnOnce(Carried) -> Result<usize>,
    ) -> Result<Posted, Refused<u64>> {
        let (carried, buffer) = Carried::copy(buffer);
        match carried.and_then(ask) {
            Ok(number) => Ok(Posted::There(number)),
            Err(error) => Err(Refused {
                error,
                buffer,
                context,
            }),
        }
    }

    fn poll(&self) -> Result<Option<Completion<u64>>> {
        let ended: Option<Ended> = self.line.ask(Verb::Poll, ())?;
        ended.map(Ended::into_completion).transpose()
    }

    fn next_within(&self, millis: u32) -> Result<Completion<u64>> {
        let next = |millis| self.line.ask::<Ended>(Verb::Next, millis);
        patiently(millis, next)?.into_completion()
    }

    fn registered(&self, verb: Verb, words: impl words::Word) -> Result<Region> {
        let traits = self.line.ask(verb, words)?;
        Ok(Region::there(self.line.clone(), traits))
    }
}

/// Asks again and again for what may take `millis`, so that the other host can be asked for other things meanwhile.
fn patiently<T>(millis: u32, ask: impl Fn(u32) -> Result<T>) -> Result<T> {
    let begin = Instant::<Monotonic>::now();
    loop {
        match ask(PATIENCE.min(millis)) {
            Err(ETIMEDOUT) if begin.elapsed().as_millis() < millis.into() => {}
            answer => return answer,
        }
    }
}

/// What is left of a peer whose endpoint is closed.
pub(crate) enum Left {
    Here(Base),
    There(There),
}

impl Left {
    /// The next completion, if there is one.
    pub(crate) fn poll(&self) -> Result<Option<Completion<u64>>> {
        match self {
            Left::Here(base) => Ok(base.cq.read()),
            Left::There(there) => there.poll(),
        }
    }

    /// Closes it, in order; fails if anything refuses.
    pub(crate) fn close(self) -> Result {
        match self {
            Left::Here(base) => base.close(),
            Left::There(there) => there.line.ask(Verb::Close, ()),
        }
    }
}
