// SPDX-License-Identifier: GPL-2.0

//! The frames that go: made one after another, and handed to the link as it takes them.
//!
//! Several small ones leave together. A frame that was made is sent before the next one, or the
//! link is lost.

use super::super::link::Link;
use super::super::verdict;
use super::guest::State;
use super::talk::{Talk, LIMITS};
use super::Peer;
use crate::op::Failure;
use crate::proto::peer::incoming::Token;
use crate::proto::peer::{Payload, Transmit};
use crate::proto::wire::hello::MAX;
use crate::proto::wire::{self, crc, Header, Kind, Reason};
use kernel::prelude::*;
use kernel::sync::Arc;

/// Bytes of small frames that leave together.
const SMALL: usize = 32 << 10;

/// Bytes of frames that wait for the link: small ones, and one of the longest.
const ROOM: usize = SMALL + wire::SIZE + LIMITS.frame as usize;

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
    /// Those before it were taken by the link.
    from: usize,
}

impl Transmission {
    pub(super) fn new() -> Result<Self> {
        Ok(Transmission {
            bytes: KVVec::with_capacity(ROOM, GFP_KERNEL)?,
            from: 0,
        })
    }

    /// Forgets what was to be sent, with its link.
    pub(super) fn reset(&mut self) {
        self.bytes.clear();
        self.from = 0;
    }

    /// Whether the link has taken all.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether any other frame finds room.
    fn has_room(&self) -> bool {
        self.bytes.len() <= SMALL
    }

    /// Adds a frame whose payload `fill` puts there.
    fn push(
        &mut self,
        header: &Header,
        crc: bool,
        fill: impl FnOnce(&mut [u8]) -> Result,
    ) -> Result {
        let (at, len) = (self.bytes.len(), header.len as usize);
        let start = at + wire::SIZE;
        self.bytes.resize(start + len, 0, GFP_KERNEL)?;
        let (head, payload) = self.bytes.split_at_mut(start);
        if let Err(error) = fill(payload) {
            self.bytes.truncate(at);
            return Err(error);
        }
        let mut header = *header;
        if crc {
            header.payload_crc = crc::of(&[payload]);
        }
        head.get_mut(at..)
            .ok_or(EINVAL)?
            .copy_from_slice(&header.emit(crc));
        Ok(())
    }

    /// Hands over what waits. `EAGAIN`: the link takes no more; others: it is broken.
    pub(super) fn flush(&mut self, link: &dyn Link) -> Result {
        while let Some(rest) = self.bytes.get(self.from..).filter(|rest| !rest.is_empty()) {
            self.from += link.send(rest, false)?;
        }
        self.reset();
        Ok(())
    }
}

impl Talk {
    /// Sends what there is to send, as long as the link takes it; whether it is to be asked again at
    /// once.
    pub(super) fn transmit(&mut self, peer: &Arc<Peer>, now: u64, budget: usize) -> bool {
        for _ in 0..budget {
            let Some(current) = self.link.as_ref().filter(|current| current.up) else {
                return false;
            };
            let link = current.link.clone();
            match self.transmission.flush(&*link) {
                Ok(()) => {}
                Err(EAGAIN) => return false,
                Err(_) => {
                    // The peer may have said why.
                    while self.receive(peer, now, budget) {}
                    if self.link.is_some() {
                        self.lose(now);
                    }
                    return true;
                }
            }
            let id = current.id;
            if let Err(lost) = self.fill(peer, now) {
                // What was made of it has a number already.
                match lost {
                    Lost::Local => self.machine.fail_source(now),
                    Lost::Source(token, error) => {
                        let failure = Failure::unknown(error);
                        self.machine
                            .reply(token, Err(verdict::failure_told(&failure)));
                        self.lose(now);
                    }
                }
                self.events(peer, now);
                return true;
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

    /// Makes frames, until there is no room or nothing to be said.
    fn fill(&mut self, peer: &Peer, now: u64) -> Result<(), Lost> {
        let mut room = [0; MAX];
        if let Some((header, len)) = self.machine.poll_hello(&mut room) {
            let pushed = self.transmission.push(&header, false, |to| {
                to.copy_from_slice(room.get(..len).ok_or(EINVAL)?);
                Ok(())
            });
            pushed.map_err(|_| Lost::Local)?;
        }
        while self.transmission.has_room() {
            let Some(transmit) = self.machine.poll_transmit(now) else {
                break;
            };
            self.push(peer, &transmit)
                .map_err(|error| match transmit.payload {
                    Payload::Source { token, .. } => Lost::Source(token, error),
                    _ => Lost::Local,
                })?;
        }
        Ok(())
    }

    /// Adds a frame of the machine's.
    fn push(&mut self, peer: &Peer, transmit: &Transmit) -> Result {
        // Taken out, so that the rest can be asked for the bytes.
        let mut out = core::mem::replace(
            &mut self.transmission,
            Transmission {
                bytes: KVVec::new(),
                from: 0,
            },
        );
        let pushed = out.push(&transmit.header, transmit.crc, |to| {
            self.load(peer, &transmit.payload, to)
        });
        self.transmission = out;
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
            Payload::Source { token, offset } => match self.guest(token) {
                Some(State::Source(proxy)) => {
                    let region = peer.engine.port().admit_piece(proxy);
                    let region = region.map_err(|failure| failure.error)?;
                    let start = proxy.remote().ok_or(EINVAL)?.offset();
                    let at = start.checked_add(offset).ok_or(EINVAL)?;
                    region.memory().read_at(at as usize, to)
                }
                _ => Err(EINVAL),
            },
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

/// Says goodbye over a link that is not used.
pub(in super::super) fn part(link: &dyn Link, reason: Reason) {
    let mut header = Header::new(Kind::Bye);
    header.code = reason as u16;
    // It is a courtesy: who does not hear it finds the link closed.
    let _ = link.send(&header.emit(false), false);
}
