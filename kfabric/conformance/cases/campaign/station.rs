// SPDX-License-Identifier: GPL-2.0

//! A station: an endpoint, and what peers may touch of it; and the domain that some of them share.

use super::{ALL, ALL_LANES, BURST, DATAGRAMS, LANES, LONGEST, RECEIVES, STATIONS};
use crate::close::closed;
use crate::peer::Region;
use crate::rig::{register, timeout, with_sizes};
use crate::runner::asked_for;
use crate::source::{made_of, of_vecs, Source};
use kernel::prelude::*;
use kfabric::prelude::*;

/// Of how many pieces each side's bytes are.
const PIECES: usize = 160;

/// What each station keeps in order, and whether it has fences.
pub(super) fn manner(station: usize) -> (Order, bool) {
    let rma = Order::WAW | Order::RAW | Order::WAR;
    [
        (Order::NONE, false),
        (rma, true),
        (Order::STRICT, false),
        (Order::NONE, true),
        (Order::NONE, true),
        (rma, false),
    ][station]
}

/// The type of a station's endpoint.
pub(super) fn endpoint_type(station: usize) -> EndpointType {
    match station < DATAGRAMS {
        true => EndpointType::Rdm,
        false => EndpointType::Msg,
    }
}

/// A domain, and what its stations share.
// In the order in which they must be closed.
pub(super) struct Side {
    pub(super) local: Region,
    pub(super) receive: Region,
    pub(super) av: AddressVector,
    pub(super) cq: CompletionQueue<u64>,
    pub(super) eq: EventQueue,
    pub(super) domain: Domain,
    pub(super) fabric: Fabric,
}

impl Side {
    pub(super) fn new(info: &Info) -> Result<Self> {
        let fabric = Fabric::open(info)?;
        let domain = fabric.domain(info)?;
        // Most ranges begin in one piece and end in another, but a word that is fetched is in one.
        let local = of_vecs(&[ALL_LANES * BURST * LONGEST / PIECES; PIECES])?;
        let receive = made_of(Source::Vecs, STATIONS * RECEIVES * LONGEST)?;
        Ok(Side {
            local: register(&domain, local, Access::NONE)?,
            receive: register(&domain, receive, Access::NONE)?,
            av: AddressVector::new(&domain)?,
            cq: CompletionQueue::new(&domain, STATIONS / 2 * (LANES * BURST + RECEIVES), None)?,
            // Of the one that is connected, and of a request for it.
            eq: EventQueue::new(&domain, EventQueue::PER_ENDPOINT + 1, None)?,
            domain,
            fabric,
        })
    }

    pub(super) fn close(self) -> Result {
        for region in [self.local, self.receive] {
            drop(closed(region.close_wait(timeout()))?);
        }
        closed(self.av.close())?;
        closed(self.cq.close())?;
        closed(self.eq.close())?;
        closed(self.domain.close())?;
        closed(self.fabric.close())
    }
}

/// An endpoint, what peers may touch of it, and what it knows of them.
pub(super) struct Station {
    /// `None` once it is closed.
    pub(super) ep: Option<Endpoint<u64>>,
    /// Volatile, the words, and persistent where there is such memory.
    pub(super) regions: KVec<Region>,
    pub(super) peers: KVec<Address>,
    /// Which receives are posted.
    pub(super) receives: [bool; RECEIVES],
}

impl Station {
    pub(super) fn ep(&self) -> Result<&Endpoint<u64>> {
        self.ep.as_ref().ok_or(EBADF)
    }
}

pub(super) const VOLATILE: usize = 0;
pub(super) const WORDS: usize = 1;
pub(super) const LASTING: usize = 2;

/// Opens the endpoint of a station.
#[inline(never)]
pub(super) fn open(info: &Info, side: &Side, station: usize) -> Result<Endpoint<u64>> {
    let (order, fences) = manner(station);
    let mut caps = info.caps & ALL.union(Caps::COMMIT);
    if fences {
        caps |= Caps::FENCE;
    }
    let endpoints = endpoint_type(station);
    let info = asked_for(info, endpoints, caps, order).ok_or(ENODATA)?;
    let info = with_sizes(&info, LANES * BURST, RECEIVES);
    let builder = Endpoint::builder(&side.domain, &info).cq(&side.cq);
    match endpoints {
        EndpointType::Msg => builder.eq(&side.eq).enable(),
        _ => builder.av(&side.av).enable(),
    }
}
