// SPDX-License-Identifier: GPL-2.0

//! Operations of the peer that are under way here.
//!
//! Each is stood for by an operation of this host, its proxy: so the port checks, matches, counts and
//! refuses it as it does those of any provider.

use super::super::{engine, link, verdict};
use super::talk::Talk;
use super::Peer;
use crate::av::Name;
use crate::cq::Queue;
use crate::mr::{Access, RemoteSlice};
use crate::op::{
    AtomicAction, Buffer, Failure, Kind, Level, Op, OpId, Operation, Options, Origin, Poster,
    Request, Status, Success,
};
use crate::proto::peer::incoming::Token;
use crate::proto::session;
use crate::proto::tag::Tags;
use crate::proto::wire;
use crate::provider::Match;
use crate::stats::Stats;
use crate::sys::slot::Pool;
use kernel::prelude::*;
use kernel::sync::Arc;

/// An operation of the peer.
pub(super) struct Guest {
    pub(super) token: Token,
    pub(super) state: State,
}

/// How far it is.
pub(super) enum State {
    /// A write whose pieces come. The region is sought for each, so that no peer keeps its owner from
    /// closing it, and none reaches what is closed.
    Write(Operation),
    /// A read whose bytes are being sent, likewise.
    Source(Operation),
    /// An atomic's result is being sent.
    Fetched(KVVec<u8>),
    /// It waits for a receive.
    Waiting { proxy: OpId, held: Held },
    /// Its bytes come into a receive, which it has met.
    Receiving {
        proxy: Operation,
        receive: Operation,
    },
    /// The bytes of a receive are being sent, for a tagged read.
    Lending {
        proxy: Operation,
        receive: Operation,
    },
}

/// The bytes of what waits.
pub(super) enum Held {
    /// They are at the peer, or there are none.
    Afar,
    Here(KVVec<u8>),
    /// They came, and there was no memory for them.
    Lost(Error),
}

/// What a proxy is made of.
pub(super) struct Wish {
    pub(super) kind: Kind,
    pub(super) level: Level,
    pub(super) data: Option<u64>,
    pub(super) remote: Option<RemoteSlice>,
    pub(super) atomic: Option<AtomicAction>,
    pub(super) tag: Option<u64>,
    /// The receive context that it is for.
    pub(super) context: u16,
    pub(super) len: usize,
}

/// The proxies of a peer's operations: as many as it may have outstanding.
pub(super) struct Proxies {
    pool: Pool<Token>,
    /// Where those come back that others have ended.
    queue: Arc<Queue>,
    size: usize,
    name: Name,
}

impl Proxies {
    /// For so many operations of the peer that has this name and, in this lane, this number. Sleeps. `ENOMEM`.
    pub(super) fn new(name: &Name, number: u64, lane: usize, size: usize) -> Result<Self> {
        let queue = Queue::new(size, None)?;
        queue.bind(size)?;
        let stats = Arc::new(Stats::default(), GFP_KERNEL)?;
        let poster = Poster {
            endpoint: number,
            context: u16::try_from(lane)?,
        };
        let origin = Origin::new(poster, queue.clone(), stats, None, None, None, size)?;
        // Messages are of the peer, by whichever of its lanes they come.
        let (_, whole) = link::lane_of(name).ok_or(EINVAL)?;
        origin.set_name(&whole);
        Ok(Proxies {
            pool: Pool::new(size, |index| Op::idle(&origin, index))?,
            queue,
            size,
            name: *name,
        })
    }

    /// One for an operation of the peer. `ENOBUFS`: all are taken, by what has ended and is not
    /// let go of.
    pub(super) fn take(&self, token: Token, wish: Wish) -> Result<Operation> {
        let mut slot = self.pool.take().ok_or(ENOBUFS)?;
        slot.op().fill(Request {
            kind: wish.kind,
            options: Options {
                level: wish.level,
                data: wish.data,
                ..Options::NONE
            },
            peer: self.name,
            peer_context: wish.context,
            remote: wish.remote,
            atomic: wish.atomic,
            tags: wish.tag.map(Tags::one),
            exposes: Access::NONE,
            buffer: Buffer::afar(wish.len),
        });
        Ok(slot.arm(token))
    }

    /// One that others have ended, and how.
    pub(super) fn ended(&self) -> Option<(Token, Status)> {
        loop {
            let op = self.queue.pop()?;
            let status = *op.status();
            // A proxy's context is a token: see `take`.
            if let Ok((_slot, token)) = op.claim::<Token>() {
                return Some((token, status));
            }
        }
    }
}

/// Ends a proxy that nobody is to be told of.
pub(super) fn let_go(mut proxy: Operation) {
    proxy.refused();
    drop(proxy.claim::<Token>());
}

/// A proxy, and what it stands for.
pub(super) fn tokened(proxy: Operation) -> Option<(Operation, Token)> {
    let (slot, token) = proxy.claim::<Token>().ok()?;
    Some((slot.arm(token), token))
}

impl Drop for Proxies {
    fn drop(&mut self) {
        // What others still have goes, once they have ended it.
        self.queue.shut();
        self.queue.unbind(self.size);
    }
}

impl State {
    /// Lets go of it, since the peer, or the talk with it, has ended with `error`.
    pub(super) fn end(self, engine: &engine::Shared, error: Error) {
        match self {
            State::Write(proxy) | State::Source(proxy) => let_go(proxy),
            State::Fetched(_) => {}
            State::Waiting { proxy, .. } => {
                if let Some(op) = engine.port().recall(|op| op.id() == proxy) {
                    let_go(op);
                }
            }
            State::Receiving { proxy, receive } | State::Lending { proxy, receive } => {
                let_go(proxy);
                receive.complete(Err(Failure::unknown(error)));
            }
        }
    }
}

impl Talk {
    /// Takes what was ended by others than the worker.
    pub(super) fn take_ended(&mut self) {
        while let Some((token, status)) = self.proxies.ended() {
            // Its place is gone if the peer has withdrawn it meanwhile.
            drop(self.take_guest(token));
            self.machine.reply(token, verdict::told(&status));
        }
    }

    /// Notes an operation of the peer.
    pub(super) fn put_guest(&mut self, token: Token, state: State) {
        if let Some(place) = self.guests.get_mut(token.index()) {
            *place = Some(Guest { token, state });
        }
    }

    /// The operation of the peer that has this token, to go on with it.
    pub(super) fn take_guest(&mut self, token: Token) -> Option<Guest> {
        let place = self.guests.get_mut(token.index())?;
        match place {
            Some(guest) if guest.token == token => place.take(),
            _ => None,
        }
    }

    /// The operation of the peer that has this token.
    pub(super) fn guest(&self, token: Token) -> Option<&State> {
        let guest = self.guests.get(token.index())?.as_ref()?;
        (guest.token == token).then_some(&guest.state)
    }

    /// What waited has met a receive.
    pub(super) fn met(&mut self, peer: &Arc<Peer>, pair: Match) {
        if !pair.brings_bytes() {
            // The notice of a write, or a message that is too long: both sides end, see `take_ended`.
            return pair.execute();
        }
        let (proxy, receive) = pair.into_parts();
        let Some((proxy, token)) = tokened(proxy) else {
            return receive.complete(Err(Failure::unknown(EPROTO)));
        };
        let held = match self.take_guest(token).map(|guest| guest.state) {
            Some(State::Waiting { held, .. }) => held,
            // The peer has gone meanwhile: the receive is for another.
            _ => {
                let_go(proxy);
                return peer.engine.put_back(receive);
            }
        };
        let status = match held {
            Held::Here(bytes) => deliver(&proxy, receive, &bytes),
            Held::Lost(error) => {
                receive.complete(Err(Failure::unknown(error)));
                Err(Failure::not_executed(error))
            }
            Held::Afar => {
                self.put_guest(token, State::Receiving { proxy, receive });
                if !self.machine.reply(token, Ok(wire::Level::Delivered)) {
                    self.end_guest(peer, token);
                }
                return;
            }
        };
        let_go(proxy);
        self.machine.reply(token, verdict::told(&status));
    }

    /// The machine needs an operation of the peer no more: the peer has what it has read, or the session is over.
    pub(super) fn released(&mut self, peer: &Arc<Peer>, token: Token) {
        let is_over = matches!(self.machine.state(), session::State::Closed(_));
        match self.take_guest(token).map(|guest| guest.state) {
            Some(State::Lending { proxy, receive }) if !is_over => {
                // The peer knows: it has all bytes.
                let _ = self.end_tagged(peer, proxy, receive, Ok(()));
            }
            Some(state) => self.end_state(peer, state),
            None => {}
        }
    }

    /// Ends a tagged write or read of the peer, and the receive that it has consumed; how it went, for the peer.
    pub(super) fn end_tagged(
        &self,
        peer: &Peer,
        proxy: Operation,
        receive: Operation,
        moved: Result,
    ) -> Status {
        let (here, there) = peer.engine.port().end_tagged(&proxy, moved);
        receive.complete(here);
        let_go(proxy);
        there
    }

    /// Lets go of an operation of the peer.
    pub(super) fn end_guest(&mut self, peer: &Arc<Peer>, token: Token) {
        if let Some(guest) = self.take_guest(token) {
            self.end_state(peer, guest.state);
        }
    }

    fn end_state(&self, peer: &Peer, state: State) {
        let lost = || peer.engine.port().lost();
        state.end(&peer.engine, self.closing.unwrap_or_else(lost));
    }
}

/// Puts all bytes of a message into its receive, and completes that; how it went, for the sender.
pub(super) fn deliver(arrival: &Op, receive: Operation, bytes: &[u8]) -> Status {
    finish(arrival, receive, |receive| receive.write_local(0, bytes))
}

/// Completes the receive of a message whose bytes `place` puts there, or has put there.
pub(super) fn finish(
    arrival: &Op,
    receive: Operation,
    place: impl FnOnce(&Op) -> Result,
) -> Status {
    let (len, level) = (arrival.len(), Level::Delivered);
    let status = |data| match place_status(len, &receive) {
        Some(failure) => Err(failure),
        None => Ok(Success { len, data, level }),
    };
    let (here, there) = (status(arrival.data()), status(None));
    if here.is_err() {
        receive.complete(here);
        return there;
    }
    match place(&receive) {
        Ok(()) => {
            receive.complete(here);
            there
        }
        Err(error) => {
            receive.complete(Err(Failure::unknown(error)));
            Err(Failure::unknown(error))
        }
    }
}

/// Why a message of `len` bytes can't go into a receive.
fn place_status(len: usize, receive: &Op) -> Option<Failure> {
    (len > receive.len()).then_some(Failure::not_executed(EMSGSIZE))
}
