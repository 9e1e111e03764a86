// SPDX-License-Identifier: GPL-2.0

//! Operations: what was posted, what it holds, how it ends.
//!
//! An operation is a preallocated slot (`sys/slot.rs`). It is filled when it is posted, is owned
//! by one place at a time, and completes exactly once. See Documentation/completions.rst.
//!
//! | file | noun |
//! |---|---|
//! | `kind` | what an operation does |
//! | `options` | how it is to be done |
//! | `buffer` | its local side |
//! | `atomic` | what is done to words |
//! | `request` | what is posted: all of that |
//! | `multi` | a receive that takes several messages |
//! | `shares` | who still uses its buffer |
//! | `refused` | a post that was refused |
//! | `id` | its number |
//! | `origin` | where it comes from and returns to |
//! | `status` | how it ends |
//! | `end` | the way to its queue |

use crate::av::Name;
use crate::cq::Queue;
use crate::info::Effect;
use crate::memory::Exposed;
use crate::mr::{Access, RemoteSlice};
use crate::proto::fence::Ticket;
use crate::proto::tag::Tags;
use crate::sys::slot;
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::prelude::*;
use kernel::sync::Arc;

mod atomic;
mod buffer;
mod end;
mod id;
mod kind;
pub(crate) mod multi;
mod options;
mod origin;
mod refused;
mod request;
mod shares;
mod status;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;

pub use crate::sys::slot::{Chain, Hold, Operation};
pub use atomic::{Action, AtomicAction, AtomicOp, Datatype};
pub use buffer::Buffer;
pub use id::OpId;
pub use kind::Kind;
use multi::Multi;
pub use multi::Part;
pub use options::Options;
pub(crate) use origin::{Origin, Poster};
pub use refused::Refused;
pub(crate) use request::Request;
pub(crate) use shares::Shares;
pub use status::{Failure, Level, Outcome, Status, Success};

/// The most bytes that an operation holds itself, so that nobody's memory is needed.
///
/// An [`Info`](crate::info::Info) may offer less. Source: inject_size of fi_endpoint(3).
pub const INJECT_SIZE: usize = 64;

/// A posted operation, as whoever executes it sees it.
pub struct Op {
    origin: Arc<Origin>,
    kind: Kind,
    options: Options,
    index: u32,
    use_count: u64,
    peer: Name,
    peer_context: u16,
    remote: Option<RemoteSlice>,
    atomic: Option<AtomicAction>,
    /// Of a message its tag, of a receive those that it takes.
    tags: Option<Tags>,
    /// The tag that its completion tells, if it is tagged.
    tag: u64,
    /// Of a tagged receive, whether a peer's tagged write or read may consume it.
    exposes: Access,
    /// Its place among those that wait for a message, or for a receive.
    turn: u64,
    buffer: Buffer,
    /// The bytes that were injected, if the buffer says so.
    injected: [u8; INJECT_SIZE],
    /// How it is involved with a receive of several messages.
    multi: Multi,
    /// A receive: as what it is told of, if not a message consumed it.
    consumed: Option<Kind>,
    /// Where fences count it.
    ticket: Option<Ticket>,
    /// How it has ended; before it has, nothing.
    status: Status,
    ended: bool,
}

impl Op {
    /// An idle operation, for a slot.
    pub(crate) fn idle(origin: &Arc<Origin>, index: u32) -> Self {
        Op {
            origin: origin.clone(),
            kind: Kind::Send,
            options: Options::default(),
            index,
            use_count: origin.first_use(),
            peer: Name::NONE,
            peer_context: 0,
            remote: None,
            atomic: None,
            tags: None,
            tag: 0,
            exposes: Access::NONE,
            turn: 0,
            buffer: Buffer::empty(),
            injected: [0; INJECT_SIZE],
            multi: Multi::No,
            consumed: None,
            ticket: None,
            status: Err(Failure::unknown(ECANCELED)),
            ended: false,
        }
    }

    /// Takes over what is posted, and counts it; gives the slot's index, and how often it was used.
    #[inline(always)]
    pub(crate) fn fill(&mut self, request: Request) -> (u32, u64) {
        self.kind = request.kind;
        self.options = request.options;
        self.peer = request.peer;
        self.peer_context = request.peer_context;
        self.remote = request.remote;
        self.atomic = request.atomic;
        self.tags = request.tags;
        self.exposes = request.exposes;
        if let Some(tags) = request.tags {
            self.tag = tags.tag();
        }
        slot::put_into_idle(&mut self.buffer, request.buffer);
        self.consumed = None;
        self.ended = false;
        self.use_count = self.use_count.wrapping_add(1);
        self.origin.stats.posted(self.len());
        (self.index, self.use_count)
    }

    /// Becomes a receive of nothing, which may become a part of another ([`Op::become_part`]), or go back
    /// unused.
    pub(crate) fn reserve(&mut self) {
        self.kind = Kind::Recv;
        self.options = Options::NONE;
        self.peer = Name::NONE;
        self.remote = None;
        self.atomic = None;
        self.tags = None;
        self.exposes = Access::NONE;
        slot::put_into_idle(&mut self.buffer, Buffer::empty());
        self.consumed = None;
        self.ended = false;
        self.use_count = self.use_count.wrapping_add(1);
    }

    /// Becomes a part of the receive of that index, from the `offset` of its buffer, and counts as posted.
    fn become_part(&mut self, of: u32, offset: usize, buffer: Buffer) {
        self.multi = Multi::Part { of, offset };
        self.buffer = buffer;
        // Its bytes are counted with the whole.
        self.origin.stats.posted(0);
    }

    /// Takes a copy of the bytes that were posted as [`Buffer::injected`], which are as many.
    #[inline]
    pub(crate) fn inject(&mut self, bytes: &[u8]) {
        if let Some(room) = self.injected.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    /// Lets go of what is still held, for the next use of the slot.
    pub(crate) fn reset(&mut self) {
        self.buffer = Buffer::empty();
        self.multi = Multi::No;
    }

    /// What it does.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How it is to be done.
    #[inline]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What it is, as far as order goes; a receive is none.
    pub fn effect(&self) -> Option<Effect> {
        match self.kind {
            Kind::Send => Some(Effect::Send),
            Kind::Read => Some(Effect::Read),
            Kind::Write | Kind::Commit | Kind::Atomic => Some(Effect::Write),
            Kind::Recv | Kind::RemoteWrite | Kind::RemoteRead => None,
        }
    }

    /// The level that its completion must reach.
    #[inline]
    pub fn level(&self) -> Level {
        self.options.level
    }

    /// Its number.
    pub fn id(&self) -> OpId {
        OpId {
            poster: self.origin.poster,
            receive: self.kind == Kind::Recv,
            index: self.index,
            use_count: self.use_count,
        }
    }

    /// The endpoint that posted it.
    #[inline]
    pub fn endpoint(&self) -> u64 {
        self.origin.poster.endpoint
    }

    /// Who has posted it.
    #[inline]
    pub(crate) fn poster(&self) -> Poster {
        self.origin.poster
    }

    /// Which of its endpoint's contexts has posted it: of a receive, which receive context; of all else, which
    /// transmit context. Of an endpoint that is not scalable, 0.
    #[inline]
    pub fn own_context(&self) -> usize {
        self.origin.poster.context.into()
    }

    /// The receive context of the peer that a message, or the remote CQ data of a write, is for. A provider
    /// brings it to the peer's port, with the rest.
    #[inline]
    pub fn peer_context(&self) -> usize {
        self.peer_context.into()
    }

    /// The peer's name. Of a receive: whose messages it takes; [`Name::NONE`] if it takes everybody's.
    #[inline]
    pub fn peer(&self) -> &Name {
        &self.peer
    }

    /// By which name its peers know the endpoint that posted it.
    pub(crate) fn sender(&self) -> &Name {
        self.origin.name().unwrap_or(&Name::NONE)
    }

    /// The range of the peer's region, for RMA and commit.
    #[inline]
    pub fn remote(&self) -> Option<&RemoteSlice> {
        self.remote.as_ref()
    }

    /// What is done to the words, for atomics.
    #[inline]
    pub fn atomic(&self) -> Option<AtomicAction> {
        self.atomic
    }

    /// Of a tagged message its tag; of a tagged receive that of the message that it has met, or, before
    /// it has, its own. A provider brings that of a message to the peer's port, with the rest of it.
    #[inline]
    pub fn tag(&self) -> Option<u64> {
        self.tags.map(|_| self.tag)
    }

    /// Whether it is a write into, or a read out of, a receive that the peer has posted under a tag.
    #[inline]
    pub fn is_tagged_rma(&self) -> bool {
        self.tags.is_some() && matches!(self.kind, Kind::Write | Kind::Read)
    }

    /// The tags that a receive takes; `None`: untagged messages.
    #[inline]
    pub(crate) fn tags(&self) -> Option<Tags> {
        self.tags
    }

    /// Of a receive, whether a peer's tagged write or read may consume it.
    pub(crate) fn exposes(&self) -> Access {
        self.exposes
    }

    /// Notes the tag of the message that a receive has met, or takes that back.
    #[inline]
    pub(crate) fn set_tag(&mut self, tag: Option<u64>) {
        if let (Some(tags), tag) = (self.tags, tag) {
            self.tag = tag.unwrap_or(tags.tag());
        }
    }

    /// Its place among those that wait where it does.
    #[inline]
    pub(crate) fn turn(&self) -> u64 {
        self.turn
    }

    /// Gives it a place.
    #[inline]
    pub(crate) fn set_turn(&mut self, turn: u64) {
        self.turn = turn;
    }

    /// The remote CQ data that goes with it.
    #[inline]
    pub fn data(&self) -> Option<u64> {
        self.options.data
    }

    /// Sets the remote CQ data, and the receive context that they are for, of an operation that stands for a
    /// peer's.
    pub(crate) fn set_data(&mut self, context: u16, data: u64) {
        self.options.data = Some(data);
        self.peer_context = context;
    }

    /// Counts that its peer has no such receive context.
    pub(crate) fn count_stray(&self) {
        self.origin.stats.no_context();
    }

    /// The local side.
    #[inline]
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Copies its local bytes, wherever they are, to those from `offset` of `to`.
    ///
    /// Any context but hardirq. For operations that bring bytes to a peer.
    ///
    /// # Errors
    /// - `EINVAL`: out of the bounds of `to`.
    /// - `ENODEV`, `EIO`: of persistent memory; some bytes may be copied.
    // Not inlined into other modules, which do not see what it calls.
    #[inline(never)]
    pub fn copy_out(&self, to: &Exposed, offset: usize) -> Result {
        self.copy_out_here(to, offset)
    }

    /// As [`Op::copy_out`], inlined.
    #[inline(always)]
    pub(crate) fn copy_out_here(&self, to: &Exposed, offset: usize) -> Result {
        let (at, len) = (self.buffer.offset(), self.buffer.len());
        match self.buffer.memory() {
            Some(from) => Exposed::copy_here(to, offset, from, at, len),
            None if self.buffer.is_injected() => {
                to.write_at(offset, self.injected.get(..len).ok_or(EINVAL)?)
            }
            None => Ok(()), // no bytes
        }
    }

    /// Copies those from `offset` of `from` to its local bytes.
    ///
    /// For operations that bring bytes of a peer here; the errors are as of [`Op::copy_out`].
    #[inline(never)]
    pub fn copy_in(&self, from: &Exposed, offset: usize) -> Result {
        self.copy_in_here(from, offset)
    }

    /// As [`Op::copy_in`], inlined.
    #[inline(always)]
    pub(crate) fn copy_in_here(&self, from: &Exposed, offset: usize) -> Result {
        let (at, len) = (self.buffer.offset(), self.buffer.len());
        match self.buffer.memory() {
            Some(to) => Exposed::copy_here(to, at, from, offset, len),
            None => Ok(()), // no bytes
        }
    }

    /// Copies its local bytes from byte `at` on to `to`. Context and errors: as of [`Op::copy_out`].
    pub(crate) fn read_local(&self, at: usize, to: &mut [u8]) -> Result {
        let end = at.checked_add(to.len()).ok_or(EINVAL)?;
        match self.buffer.memory() {
            _ if end > self.buffer.len() => Err(EINVAL),
            Some(from) => from.read_at(self.buffer.offset() + at, to),
            None => {
                to.copy_from_slice(self.injected.get(at..end).ok_or(EINVAL)?);
                Ok(())
            }
        }
    }

    /// Copies `from` to its local bytes from byte `at` on. Context and errors: as of [`Op::copy_in`].
    pub(crate) fn write_local(&self, at: usize, from: &[u8]) -> Result {
        let end = at.checked_add(from.len()).ok_or(EINVAL)?;
        match self.buffer.memory() {
            _ if from.is_empty() => Ok(()),
            Some(to) if end <= self.buffer.len() => to.write_at(self.buffer.offset() + at, from),
            _ => Err(EINVAL),
        }
    }

    /// As [`Exposed::dest`], on `len` of its local bytes from byte `at` on, or the first of them; where it has none,
    /// `EINVAL`.
    pub(crate) fn local_dest<R>(
        &self,
        at: usize,
        len: usize,
        f: impl FnOnce(&mut IovIterDest<'_>) -> R,
    ) -> Result<R> {
        let (memory, at) = self.local(at, len)?;
        memory.dest(at, len, f)
    }

    /// As [`Exposed::source`], likewise.
    pub(crate) fn local_source<R>(
        &self,
        at: usize,
        len: usize,
        f: impl FnOnce(&mut IovIterSource<'_>) -> R,
    ) -> Result<R> {
        let (memory, at) = self.local(at, len)?;
        memory.source(at, len, f)
    }

    /// Where `len` of its local bytes are, from byte `at` on. `EINVAL`: it has none there.
    fn local(&self, at: usize, len: usize) -> Result<(&Exposed, usize)> {
        let end = at.checked_add(len).ok_or(EINVAL)?;
        let memory = self.buffer.memory().ok_or(EINVAL)?;
        match end <= self.buffer.len() {
            true => Ok((memory, self.buffer.offset() + at)),
            false => Err(EINVAL),
        }
    }

    /// How many bytes it moves, changes, or makes durable: those of the peer, where it has no local
    /// ones, or more.
    #[inline]
    pub fn len(&self) -> usize {
        match (self.kind, &self.remote) {
            (Kind::Commit | Kind::Atomic, Some(remote)) => remote.len() as usize,
            _ => self.buffer.len(),
        }
    }

    /// Whether it moves none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where fences count it.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    /// Notes where fences count it, or that they don't any more.
    pub(crate) fn set_ticket(&mut self, ticket: Option<Ticket>) {
        self.ticket = ticket;
    }

    /// Marks a receive as consumed by a peer's write, commit or read.
    pub(crate) fn consume(&mut self, by: Kind) {
        self.consumed = Some(match by {
            Kind::Read => Kind::RemoteRead,
            _ => Kind::RemoteWrite,
        });
    }

    /// Whether anything but a message consumed it.
    pub(crate) fn is_consumed(&self) -> bool {
        self.consumed.is_some()
    }

    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        self.ended
    }

    /// Ends it like this.
    #[inline]
    fn end(&mut self, status: Status) {
        self.status = status;
        self.ended = true;
    }

    /// Where it completes.
    #[inline]
    pub(crate) fn origin_queue(&self) -> &Arc<Queue> {
        &self.origin.queue
    }

    /// Where it came from.
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Counts how it ended. The caller holds the lock of the queue.
    #[inline]
    pub(crate) fn count_end(&self) {
        self.origin.stats.ended(self.is_success());
    }

    /// Whether it has ended well.
    #[inline]
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_ok()
    }

    /// How it has ended.
    #[inline]
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// Makes a failure of a success of less than was asked for, which is never weakened silently.
    ///
    /// It is the provider's error.
    #[cold]
    fn weakened(&mut self) {
        if let Ok(success) = self.status {
            self.status = Err(Failure::after(success.level, EPROTO));
        }
    }

    /// As what it is told of: a receive that a write consumed is that write.
    #[inline(always)]
    pub(crate) fn told_kind(&self) -> Kind {
        self.consumed.unwrap_or(self.kind)
    }

    /// Takes out what goes back to the consumer: nothing of what was injected.
    #[inline(always)]
    pub(crate) fn take_buffer(&mut self) -> Buffer {
        match self.buffer.is_injected() {
            true => Buffer::empty(),
            false => self.buffer.take(),
        }
    }
}
