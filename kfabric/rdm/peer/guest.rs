// SPDX-License-Identifier: GPL-2.0

//! Operations of the peer that are under way here.
//!
//! Each is stood for by an operation of this host, its proxy: so the port checks, matches, counts and
//! refuses it as it does those of any provider.

use super::super::{engine, link};
use crate::av::Name;
use crate::cq::Queue;
use crate::mr::{Access, RemoteSlice};
use crate::op::{
    AtomicAction, Buffer, Failure, Kind, Level, Op, OpId, Operation, Options, Origin, Poster,
    Request, Status,
};
use crate::proto::peer::incoming::Token;
use crate::proto::tag::Tags;
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
