// SPDX-License-Identifier: GPL-2.0

//! The frame that comes: its header and its payload.

use super::super::link::Link;
use super::ahead::Ahead;
use super::landing::Landing;
use super::talk::{Talk, LIMITS};
use super::Peer;
use crate::proto::peer::Action;
use crate::proto::violation::Violation;
use crate::proto::wire::{self, Header, Hello, Malformed};
use crate::sys::crc;
use crate::sys::slot::put_into_idle;
use kernel::prelude::*;
use kernel::sync::Arc;

/// The frame that is being received.
pub(super) struct Reception {
    header: [u8; wire::SIZE],
    /// Bytes of the header and the payload that are here.
    have: usize,
    frame: Option<Frame>,
    payload: KVVec<u8>,
    ahead: Ahead,
}

/// A frame whose header is here.
struct Frame {
    header: Header,
    /// What it asks for; `None`: it is a hello.
    action: Option<Action>,
    landing: Landing,
}

impl Reception {
    pub(super) fn new() -> Result<Self> {
        Ok(Reception {
            header: [0; wire::SIZE],
            have: 0,
            frame: None,
            payload: KVVec::zeroed(LIMITS.frame as usize, GFP_KERNEL)?,
            ahead: Ahead::new()?,
        })
    }

    /// Forgets the frame that had begun, with its link.
    pub(super) fn reset(&mut self) {
        self.have = 0;
        self.ahead.clear();
        if let Some(frame) = self.frame.take() {
            frame.landing.forget();
        }
    }

    /// Where the next bytes go; `None`: all of the part that comes is here.
    fn room(&mut self) -> Option<&mut [u8]> {
        let room = match &self.frame {
            None => self.header.get_mut(self.have..),
            Some(frame) => self.payload.get_mut(self.have..frame.header.len as usize),
        };
        room.filter(|room| !room.is_empty())
    }
}

/// Why nothing more is received for now.
enum Stop {
    /// Nothing is there.
    Empty,
    /// The link is broken, or the peer has broken a rule.
    Lost,
}

impl Talk {
    /// Receives what is there; whether there may be more at once.
    pub(super) fn receive(&mut self, peer: &Arc<Peer>, now: u64, budget: usize) -> bool {
        for _ in 0..budget {
            match self.receive_one(peer, now) {
                Ok(()) => {}
                Err(Stop::Empty) => return false,
                Err(Stop::Lost) => {
                    self.events(peer, now);
                    return true;
                }
            }
        }
        true
    }

    /// Receives a frame, and does what it asks for.
    fn receive_one(&mut self, peer: &Arc<Peer>, now: u64) -> Result<(), Stop> {
        loop {
            self.gather(peer, now)?;
            if let Some(frame) = self.reception.frame.take() {
                self.reception.have = 0;
                return self.payload_is_here(peer, now, frame);
            }
            self.reception.have = 0;
            let frame = self.header_is_here(peer, now)?;
            match frame {
                Some(frame) => self.reception.frame = Some(frame),
                None => return Ok(()),
            }
        }
    }

    /// Reads until the part that comes is here.
    fn gather(&mut self, peer: &Arc<Peer>, now: u64) -> Result<(), Stop> {
        let Some(current) = self.link.take_if(|current| current.up) else {
            return Err(Stop::Empty);
        };
        // Both taken out, so that the rest can be changed meanwhile.
        let mut ahead = core::mem::take(&mut self.reception.ahead);
        let done = loop {
            match self.gather_some(peer, &*current.link, &mut ahead) {
                Ok(Some(len @ 1..)) => {
                    self.reception.have += len;
                    self.machine.heard(now, current.id);
                }
                Ok(Some(0)) => break Err(ECONNRESET),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        put_into_idle(&mut self.reception.ahead, ahead);
        self.link = Some(current);
        done.map_err(|error| match error {
            EAGAIN => Stop::Empty,
            _ => {
                self.lose(now);
                Stop::Lost
            }
        })
    }

    /// Reads some of it, and says how many bytes, as [`Link::receive`] does; `None`: all of it is here.
    fn gather_some(
        &mut self,
        peer: &Arc<Peer>,
        link: &dyn Link,
        ahead: &mut Ahead,
    ) -> Result<Option<usize>> {
        loop {
            let landed = match &self.reception.frame {
                Some(Frame {
                    header,
                    action: Some(action),
                    landing,
                }) => self.land(
                    peer,
                    |into| ahead.receive(link, into),
                    (header, action, landing),
                    self.reception.have,
                ),
                _ => Ok(None),
            };
            match landed {
                Ok(Some(received)) => {
                    let placed = received.unwrap_or(0) as u64;
                    peer.engine.stats().placed.add(placed);
                    return received.map(Some);
                }
                Ok(None) => {
                    let Some(room) = self.reception.room() else {
                        return Ok(None);
                    };
                    return ahead.receive_bytes(link, room).map(Some);
                }
                Err(turn) => {
                    if let Some(frame) = &mut self.reception.frame {
                        frame.landing.turn(turn);
                    }
                }
            }
        }
    }

    /// A header is here; the frame, if its payload is awaited.
    fn header_is_here(&mut self, peer: &Arc<Peer>, now: u64) -> Result<Option<Frame>, Stop> {
        let crc = self.machine.has_crc();
        let parsed = Header::parse(&self.reception.header, LIMITS.frame, crc);
        let header = parsed.map_err(|malformed| self.broke(peer, now, malformed.into()))?;
        self.reception.ahead.expect(header.len);
        if header.kind == wire::Kind::Hello {
            return Ok(Some(Frame {
                header,
                action: None,
                landing: Landing::buffer(),
            }));
        }
        let Some(id) = self.link.as_ref().map(|current| current.id) else {
            return Err(Stop::Lost);
        };
        loop {
            let action = self.machine.handle_frame(now, id, &header);
            match action.map_err(|violation| self.blame(peer, violation))? {
                Action::Nothing => return Ok(None),
                Action::Events => self.events(peer, now),
                action => {
                    let landing = self.landing(&header, &action);
                    return Ok(Some(Frame {
                        header,
                        action: Some(action),
                        landing,
                    }));
                }
            }
        }
    }

    /// The machine has found that the peer broke a rule.
    fn blame(&mut self, peer: &Arc<Peer>, violation: Violation) -> Stop {
        peer.engine.count(violation);
        Stop::Lost
    }

    /// The peer broke a rule before the machine could see it.
    fn broke(&mut self, peer: &Arc<Peer>, now: u64, violation: Violation) -> Stop {
        self.machine.fail(now, violation);
        self.blame(peer, violation)
    }

    /// All of a frame is here.
    fn payload_is_here(&mut self, peer: &Arc<Peer>, now: u64, frame: Frame) -> Result<(), Stop> {
        // Taken out, so that the rest can be changed meanwhile.
        let payload = core::mem::replace(&mut self.reception.payload, KVVec::new());
        let done = match payload.get(..frame.header.len as usize) {
            Some(bytes) => self.carry_out(peer, now, frame, bytes),
            None => Err(Stop::Lost),
        };
        put_into_idle(&mut self.reception.payload, payload);
        done
    }

    fn carry_out(
        &mut self,
        peer: &Arc<Peer>,
        now: u64,
        frame: Frame,
        bytes: &[u8],
    ) -> Result<(), Stop> {
        let hello = frame.action.is_none();
        if (hello || self.machine.has_crc()) && crc::of(bytes) != frame.header.payload_crc {
            return Err(self.broke(peer, now, Malformed::Checksum.into()));
        }
        let Some(action) = frame.action else {
            return self.greeting(peer, now, bytes);
        };
        let how = self.execute(peer, &action, frame.landing, bytes);
        self.machine
            .executed(now, how)
            .map_err(|violation| self.blame(peer, violation))?;
        Ok(())
    }

    /// The peer's answer to a hello.
    #[inline(never)]
    fn greeting(&mut self, peer: &Arc<Peer>, now: u64, bytes: &[u8]) -> Result<(), Stop> {
        let hello =
            Hello::parse(bytes).map_err(|malformed| self.broke(peer, now, malformed.into()))?;
        let Some(id) = self.link.as_ref().map(|current| current.id) else {
            return Err(Stop::Lost);
        };
        let greeted = self.machine.greeted(now, id, &hello);
        greeted.map_err(|violation| {
            let stop = self.blame(peer, violation);
            // A hello that fits nothing leaves the machine as it was; the link is of no use.
            if self.machine.link() == Some(id) {
                self.lose(now);
            }
            stop
        })
    }
}
