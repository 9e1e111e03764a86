// SPDX-License-Identifier: GPL-2.0

//! Where the payload of a frame lands: in the peer's buffer, or, if it is long, where it belongs.
//!
//! Nothing is held while the rest of a payload is awaited: what the link puts bytes into is sought and checked anew
//! for each part that has come, as the region of a write is by its key. So a peer that stops in the midst keeps
//! nobody from closing a region, and none of its bytes gets into one that is closed. What can't be placed any more
//! is read and dropped, and the operation fails.

use super::super::link::IovIterDest;
use super::execute::access;
use super::guest::{let_go, State};
use super::talk::Talk;
use super::Peer;
use crate::op::{Failure, Kind, Operation};
use crate::proto::peer::command::Target;
use crate::proto::peer::Action;
use crate::proto::range::Range;
use crate::proto::wire::Header;
use kernel::prelude::*;
use kernel::sync::Arc;

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

/// The shortest payload that does not go through the buffer. To seek its place and to set up an iterator costs
/// about as much as to copy some hundred bytes, once for each part that comes; a page is well beyond that, and
/// what is shorter mostly comes with others.
pub(super) const SHORTEST: u32 = 4096;

/// Where a payload lands.
pub(super) struct Landing {
    way: Way,
    /// What stands for a write of which this is the first piece.
    ///
    /// Not with the others before all of the frame is here: if its link is lost, the frame comes again.
    proxy: Option<Operation>,
}

enum Way {
    /// In the buffer.
    Buffer,
    /// Where it belongs.
    Memory,
    /// Nowhere, since it may not, or not any more.
    Refused(Failure),
    /// Nowhere, since the memory can't be had.
    Failed(Error),
}

/// A payload that is here.
pub(super) enum Payload<'a> {
    /// In the buffer.
    Here(&'a [u8]),
    /// Where it belongs.
    Placed,
    /// It was dropped: it may not be placed, or not any more.
    Refused(Failure),
    /// It was dropped, all or in part: the memory could not be had.
    Failed(Error),
}

impl Landing {
    fn new(way: Way) -> Self {
        Landing { way, proxy: None }
    }

    /// In the buffer.
    pub(super) fn buffer() -> Self {
        Self::new(Way::Buffer)
    }

    /// What has come, in the buffer `bytes` if that is where it went; and the proxy.
    pub(super) fn into_payload(self, bytes: &[u8]) -> (Payload<'_>, Option<Operation>) {
        let payload = match self.way {
            Way::Buffer => Payload::Here(bytes),
            Way::Memory => Payload::Placed,
            Way::Refused(failure) => Payload::Refused(failure),
            Way::Failed(error) => Payload::Failed(error),
        };
        (payload, self.proxy)
    }

    /// Forgets it, with its link.
    pub(super) fn forget(self) {
        if let Some(proxy) = self.proxy {
            let_go(proxy);
        }
    }

    /// As a part has found that it can't be placed.
    pub(super) fn turn(&mut self, to: Turn) {
        self.way = to.0;
    }
}

/// Another way for what follows.
pub(super) struct Turn(Way);

impl<'a> Payload<'a> {
    /// The bytes, of a frame whose payload always goes through the buffer.
    pub(super) fn bytes(&self) -> &'a [u8] {
        match *self {
            Payload::Here(bytes) => bytes,
            _ => &[],
        }
    }

    /// Has `store` put it where it belongs, unless it is there.
    pub(super) fn store(&self, store: impl FnOnce(&[u8]) -> Result) -> Result {
        match self {
            Payload::Here(bytes) => store(bytes),
            Payload::Placed => Ok(()),
            Payload::Refused(failure) => Err(failure.error),
            Payload::Failed(error) => Err(*error),
        }
    }
}

impl Talk {
    /// Where the payload of a frame is to land.
    pub(super) fn landing(&self, header: &Header, action: &Action) -> Landing {
        // A checksum is compared before anything is placed.
        if header.len < SHORTEST || self.machine.has_crc() {
            return Landing::buffer();
        }
        match *action {
            // It consumes a receive, and so not before all of the frame is here.
            Action::Write {
                target: Target::Tag(_),
                first: true,
                ..
            } => Landing::buffer(),
            Action::Write {
                token,
                target,
                whole: Some(whole),
                first: true,
                commit,
                ..
            } => {
                let wish = access(Kind::Write, commit, None, target, whole);
                match wish.and_then(|wish| self.stand_in(token, wish)) {
                    Ok(proxy) => Landing {
                        way: Way::Memory,
                        proxy: Some(proxy),
                    },
                    Err(failure) => Landing::new(Way::Refused(self.at_the_first(failure))),
                }
            }
            Action::Write { .. } | Action::Piece { .. } | Action::ReadData { .. } => {
                Landing::new(Way::Memory)
            }
            _ => Landing::buffer(),
        }
    }

    /// A failure of a frame of which no byte has come: over this link. If it has come before, some may be in the
    /// region.
    pub(super) fn at_the_first(&self, failure: Failure) -> Failure {
        match self.machine.is_again() {
            true => Failure::unknown(failure.error),
            false => failure,
        }
    }

    /// Has `receive` put a part of the payload of a frame, of which `have` bytes are here, to where it belongs, and
    /// gives what that says; `None`: it goes through the buffer.
    pub(super) fn land(
        &self,
        peer: &Arc<Peer>,
        receive: impl FnOnce(&mut IovIterDest<'_>) -> Result<usize>,
        (header, action, landing): (&Header, &Action, &Landing),
        have: usize,
    ) -> Result<Option<Result<usize>>, Turn> {
        let left = header.len as usize - have;
        if left == 0 || !matches!(landing.way, Way::Memory) {
            return Ok(None);
        }
        let refused = |failure| Turn(Way::Refused(failure));
        let received = match *action {
            Action::Write {
                token,
                target: Target::Tag(_),
                piece: Range { offset, .. },
                ..
            }
            | Action::Piece { token, offset, .. } => match self.guest(token) {
                Some(State::Receiving { receive: op, .. }) => {
                    op.local_dest(offset as usize + have, left, receive)
                }
                _ => return Err(refused(Failure::unknown(ECANCELED))),
            },
            Action::Write {
                token,
                piece,
                first,
                ..
            } => {
                let proxy = match (&landing.proxy, self.guest(token)) {
                    (Some(proxy), _) | (None, Some(State::Write(proxy))) => proxy,
                    _ => return Err(refused(Failure::unknown(ECANCELED))),
                };
                let region = peer.engine.port().admit_piece(proxy);
                let region = region.map_err(|failure| match first && have == 0 {
                    true => refused(self.at_the_first(failure)),
                    // A region that is closed meanwhile has some of the bytes.
                    false => refused(Failure::unknown(failure.error)),
                })?;
                let at = piece.offset as usize + have;
                region.memory().dest(at, left, receive)
            }
            Action::ReadData { op, offset, .. } => match self.posted(op) {
                Some(op) => op.local_dest(offset as usize + have, left, receive),
                None => return Err(refused(Failure::unknown(ECANCELED))),
            },
            _ => return Ok(None),
        };
        match received {
            Ok(received) => Ok(Some(received)),
            // It says so of all its bytes, and so before the first.
            Err(EOPNOTSUPP) => Err(Turn(Way::Buffer)),
            Err(error) => Err(Turn(Way::Failed(error))),
        }
    }
}
