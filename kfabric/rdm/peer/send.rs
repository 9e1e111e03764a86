// SPDX-License-Identifier: GPL-2.0

//! The frames that go: made one after another, and handed to the link as it takes them.
//!
//! Several small ones leave together. A long payload does not go through the buffer: the link takes it from the
//! memory that it is in, when there is room, which is sought and checked anew for each part. If it is of an operation
//! of this side, the link may leave it there: it gets a hold on the operation, which completes after that is dropped. A
//! frame that was made is sent before the next one, or the link is lost.

use super::super::link::{Hold, IovIterSource, Link};
use super::super::verdict;
use super::guest::State;
use super::landing::SHORTEST;
use super::talk::{Talk, LIMITS};
use super::Peer;
use crate::memory::Exposed;
use crate::mr::Region;
use crate::op::{Failure, Operation};
use crate::proto::peer::incoming::Token;
use crate::proto::peer::{Payload, Transmit};
use crate::proto::wire::hello::MAX;
use crate::proto::wire::{self, Header, Kind, Reason};
use crate::sys::crc;
use crate::sys::lease::Lease;
use crate::sys::slot::put_into_idle;
use kernel::prelude::*;
use kernel::sync::Arc;

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

/// Bytes of small frames that leave together.
const SMALL: usize = 32 << 10;

/// Bytes of frames that wait for the link: small ones, and one of the longest.
const ROOM: usize = SMALL + wire::SIZE + LIMITS.frame as usize;

/// The shortest payload that the link may leave where it is. Each costs a notice, counts in its pages and a packet of its
/// own, whatever its length. Zero copy pays from about 10 KiB on, says msg_zerocopy.rst of the kernel; here it was not
/// measured.
pub(super) const SHORTEST_SPLICED: usize = 16 << 10;

/// Bytes of a frame that can't be had any more.
enum Lost {
    /// Of an operation of this side.
    Local,
    /// Of a region that the peer reads.
    Source(Token, Error),
}

/// The frames that are being sent.
pub(super) struct Transmission {
    bytes: KVVec<u8>,
    /// Frames are in the first so many of them.
    len: usize,
    /// Those before it were taken by the link.
    from: usize,
    /// The payload of the last of them, if it is not among them.
    tail: Option<Tail>,
}

/// A payload that the link takes from where it is.
#[derive(Clone, Copy)]
struct Tail {
    payload: Payload,
    len: usize,
    /// So many bytes were taken by the link.
    sent: usize,
}

/// Why not all was handed over.
enum Unsent {
    /// The link takes no more, or is broken.
    Link(Error),
    /// Bytes of the tail can't be had.
    Lost(Lost),
}

impl Transmission {
    pub(super) fn new() -> Result<Self> {
        Ok(Transmission {
            bytes: KVVec::zeroed(ROOM, GFP_KERNEL)?,
            ..Transmission::none()
        })
    }

    /// One without room.
    fn none() -> Self {
        Transmission {
            bytes: KVVec::new(),
            len: 0,
            from: 0,
            tail: None,
        }
    }

    /// Forgets what was to be sent, with its link.
    pub(super) fn reset(&mut self) {
        (self.len, self.from) = (0, 0);
        self.tail = None;
    }

    /// Whether the link has taken all.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether any other frame finds room.
    fn has_room(&self) -> bool {
        self.len <= SMALL && self.tail.is_none()
    }

    /// Adds a frame whose payload `fill` puts there.
    fn push(
        &mut self,
        header: &Header,
        crc: bool,
        fill: impl FnOnce(&mut [u8]) -> Result,
    ) -> Result {
        let len = header.len as usize;
        let room = self.bytes.get_mut(self.len..).ok_or(EINVAL)?;
        let (head, rest) = room.split_at_mut_checked(wire::SIZE).ok_or(EINVAL)?;
        let payload = rest.get_mut(..len).ok_or(EINVAL)?;
        fill(payload)?;
        let mut header = *header;
        if crc {
            header.payload_crc = crc::of(payload);
        }
        head.copy_from_slice(&header.emit(crc));
        self.len += wire::SIZE + len;
        Ok(())
    }

    /// Adds the header of a frame whose payload follows from where it is.
    fn push_tail(&mut self, header: &Header, payload: Payload) -> Result {
        let end = self.len + wire::SIZE;
        let head = self.bytes.get_mut(self.len..end).ok_or(EINVAL)?;
        head.copy_from_slice(&header.emit(false));
        self.len = end;
        self.tail = Some(Tail {
            payload,
            len: header.len as usize,
            sent: 0,
        });
        Ok(())
    }

    /// Hands over what waits in the buffer. `EAGAIN`: the link takes no more; others: it is broken.
    fn flush_bytes(&mut self, link: &dyn Link) -> Result {
        let more = self.tail.is_some();
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        while let Some(rest) = bytes.get(self.from..).filter(|rest| !rest.is_empty()) {
            self.from += link.send_bytes(rest, more)?;
        }
        Ok(())
    }
}

impl Talk {
    /// Sends what there is to send, as long as the link takes it; whether it is to be asked again at
    /// once.
    pub(super) fn transmit(&mut self, peer: &Arc<Peer>, now: u64, budget: usize) -> bool {
        let mut was_asked = false;
        for _ in 0..budget {
            let Some(current) = self.link.as_ref().filter(|current| current.up) else {
                return false;
            };
            let (id, link) = (current.id, current.link.clone());
            match self.flush(peer, &*link) {
                Ok(()) => {}
                Err(Unsent::Link(EAGAIN)) => return false,
                Err(Unsent::Lost(lost)) => {
                    // A part of the frame has gone: nothing else may follow it.
                    self.lose(now);
                    self.tell_lost(peer, now, lost);
                    self.events(peer, now);
                    return true;
                }
                Err(Unsent::Link(_)) => {
                    // The peer may have said why.
                    while self.receive(peer, now, budget) {}
                    if self.link.is_some() {
                        self.lose(now);
                    }
                    return true;
                }
            }
            if was_asked {
                return false;
            }
            match self.fill(peer, now) {
                Ok(all) => was_asked = all,
                Err(lost) => {
                    // What was made of it has a number already.
                    let links_too = matches!(lost, Lost::Source(..));
                    self.tell_lost(peer, now, lost);
                    if links_too {
                        self.lose(now);
                    }
                    self.events(peer, now);
                    return true;
                }
            }
            if self.transmission.is_empty() {
                return false;
            }
            if self.machine.link() != Some(id) {
                // What was made last was a goodbye: the event closes the link, after it.
                return true;
            }
        }
        true
    }

    /// Has the machine know that bytes of a frame can't be had any more.
    fn tell_lost(&mut self, peer: &Peer, now: u64, lost: Lost) {
        match lost {
            Lost::Local => self.machine.fail_source(now),
            Lost::Source(token, error) => {
                let failure = Failure::unknown(error);
                let failure = Err(verdict::failure_told(&failure));
                self.machine.reply(token, failure);
                if let Some(State::Lending { .. }) = self.guest(token) {
                    let state = self.take_guest(token).map(|guest| guest.state);
                    if let Some(State::Lending { proxy, receive }) = state {
                        // The peer is told already.
                        let _ = self.end_tagged(peer, proxy, receive, Err(error));
                    }
                }
            }
        }
    }

    /// Hands over what waits.
    fn flush(&mut self, peer: &Peer, link: &dyn Link) -> Result<(), Unsent> {
        self.transmission.flush_bytes(link).map_err(Unsent::Link)?;
        while let Some(tail) = self.transmission.tail.filter(|tail| tail.sent < tail.len) {
            if !self.is_there(&tail.payload) {
                // It has ended meanwhile, and half a frame has gone: the link is of no more use.
                return Err(Unsent::Link(ECANCELED));
            }
            let (sent, stays) = self
                .hand_over(peer, &tail, link)
                .map_err(|error| Unsent::Lost(lost(&tail.payload, error)))?
                .map_err(Unsent::Link)?;
            let stats = peer.engine.stats();
            stats.gathered.add(sent as u64);
            if stays {
                stats.spliced.add(sent as u64);
            }
            if let Some(tail) = &mut self.transmission.tail {
                tail.sent += sent;
            }
        }
        self.transmission.reset();
        Ok(())
    }

    /// Whether the operation that a payload is of has not ended.
    fn is_there(&self, payload: &Payload) -> bool {
        match *payload {
            Payload::Local { op, .. } => self.posted(op).is_some(),
            Payload::Source { token, .. } => matches!(
                self.guest(token),
                Some(State::Source(_) | State::Lending { .. })
            ),
            _ => true,
        }
    }

    /// Hands over what waits, over a link that is not used any more; whether all of it went.
    pub(super) fn flush_last(&mut self, peer: &Peer, link: &dyn Link) -> bool {
        self.flush(peer, link).is_ok()
    }

    /// Hands the first bytes of a tail over that were not sent, and says what the link said: how many it has taken,
    /// and whether they stay where they are.
    fn hand_over(
        &self,
        peer: &Peer,
        tail: &Tail,
        link: &dyn Link,
    ) -> Result<Result<(usize, bool)>> {
        let left = tail.len - tail.sent;
        if let Some((op, offset)) = self.local(&tail.payload) {
            let hold = (tail.len >= SHORTEST_SPLICED).then(|| op.hold());
            return op.local_source(offset as usize + tail.sent, left, |from| {
                send(link, from, left, hold)
            });
        }
        match tail.payload {
            // Not spliced: a peer that takes nothing would keep the region from being closed.
            Payload::Source { token, offset } => {
                let (region, at) = self.source(peer, token, offset)?;
                region
                    .memory()
                    .source(at + tail.sent, left, |from| send(link, from, left, None))
            }
            _ => Err(EINVAL),
        }
    }

    /// Whether the link can take the payload of a frame from where it is.
    fn is_gathered(&self, peer: &Peer, transmit: &Transmit) -> Result<bool> {
        // A checksum goes before the bytes, which may change meanwhile.
        if transmit.header.len < SHORTEST || transmit.crc {
            return Ok(false);
        }
        if let Some((op, _)) = self.local(&transmit.payload) {
            return Ok(op.buffer().memory().is_some_and(Exposed::has_source));
        }
        Ok(match transmit.payload {
            Payload::Source { token, offset } => {
                let (region, _) = self.source(peer, token, offset)?;
                region.memory().has_source()
            }
            _ => false,
        })
    }

    /// The operation in whose buffer a payload is, and where: one that was posted here, or the receive that a tagged
    /// read consumes.
    fn local(&self, payload: &Payload) -> Option<(&Operation, u64)> {
        match *payload {
            Payload::Local { op, offset } => Some((self.posted(op)?, offset)),
            Payload::Source { token, offset } => match self.guest(token)? {
                State::Lending { receive, .. } => Some((receive, offset)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The region that the peer reads, and where in it.
    fn source(&self, peer: &Peer, token: Token, offset: u64) -> Result<(Lease<Region>, usize)> {
        let Some(State::Source(proxy)) = self.guest(token) else {
            return Err(EINVAL);
        };
        let region = peer.engine.port().admit_piece(proxy);
        let region = region.map_err(|failure| failure.error)?;
        let start = proxy.remote().ok_or(EINVAL)?.offset();
        let at = start.checked_add(offset).ok_or(EINVAL)?;
        Ok((region, at as usize))
    }

    /// Makes frames, until there is no room, or nothing to be said: whether that.
    fn fill(&mut self, peer: &Peer, now: u64) -> Result<bool, Lost> {
        if self.machine.owes_hello() {
            self.push_hello().map_err(|_| Lost::Local)?;
        }
        while self.transmission.has_room() {
            let Some(transmit) = self.machine.poll_transmit(now) else {
                return Ok(true);
            };
            self.push(peer, &transmit)
                .map_err(|error| lost(&transmit.payload, error))?;
        }
        Ok(false)
    }

    /// Adds the frame that begins a link.
    #[cold]
    #[inline(never)]
    fn push_hello(&mut self) -> Result {
        let mut room = [0; MAX];
        let (header, len) = self.machine.poll_hello(&mut room).ok_or(EINVAL)?;
        self.transmission.push(&header, false, |to| {
            to.copy_from_slice(room.get(..len).ok_or(EINVAL)?);
            Ok(())
        })
    }

    /// Adds a frame of the machine's.
    fn push(&mut self, peer: &Peer, transmit: &Transmit) -> Result {
        if self.is_gathered(peer, transmit)? {
            return self
                .transmission
                .push_tail(&transmit.header, transmit.payload);
        }
        // Taken out, so that the rest can be asked for the bytes.
        let mut out = core::mem::replace(&mut self.transmission, Transmission::none());
        let pushed = out.push(&transmit.header, transmit.crc, |to| {
            self.load(peer, &transmit.payload, to)
        });
        put_into_idle(&mut self.transmission, out);
        pushed
    }

    /// Brings the payload of a frame.
    fn load(&self, peer: &Peer, payload: &Payload, to: &mut [u8]) -> Result {
        match *payload {
            Payload::None => Ok(()),
            Payload::Local { op, offset } => match self.letter(op) {
                // It fits a frame.
                Some(message) => {
                    let (bytes, _) = message.emit();
                    to.copy_from_slice(bytes.get(..to.len()).ok_or(EINVAL)?);
                    Ok(())
                }
                None => {
                    let op = self.posted(op).ok_or(EINVAL)?;
                    op.read_local(offset as usize, to)
                }
            },
            Payload::Source { token, offset } => {
                if let Some((op, offset)) = self.local(payload) {
                    return op.read_local(offset as usize, to);
                }
                let (region, at) = self.source(peer, token, offset)?;
                region.memory().read_at(at, to)
            }
            Payload::Fetched { token } => match self.guest(token) {
                Some(State::Fetched(words)) => {
                    to.copy_from_slice(words.get(..to.len()).ok_or(EINVAL)?);
                    Ok(())
                }
                _ => Err(EINVAL),
            },
        }
    }
}

/// Sends the first of `left` bytes; how many, and whether the link leaves them where they are, for which it has the
/// hold.
fn send(
    link: &dyn Link,
    from: &mut IovIterSource<'_>,
    left: usize,
    hold: Option<Hold>,
) -> Result<(usize, bool)> {
    let more = from.len() < left;
    if let Some(hold) = hold {
        if let Some(sent) = link.splice(from, more, hold)? {
            return Ok((sent, true));
        }
    }
    Ok((link.send(from, more)?, false))
}

/// What is lost with bytes of a payload that can't be had.
fn lost(payload: &Payload, error: Error) -> Lost {
    match *payload {
        Payload::Source { token, .. } => Lost::Source(token, error),
        _ => Lost::Local,
    }
}

/// Says goodbye over a link that is not used.
pub(in super::super) fn part(link: &dyn Link, reason: Reason) {
    let mut header = Header::new(Kind::Bye);
    header.code = reason as u16;
    // It is a courtesy: who does not hear it finds the link closed.
    let _ = link.send_bytes(&header.emit(false), false);
}
