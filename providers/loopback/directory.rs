// SPDX-License-Identifier: GPL-2.0

//! The directory: which endpoint has which name.
//!
//! A name is a place in the directory and a random incarnation, so that the name of a closed
//! endpoint never reaches its successor in the same place.
//!
//! A look-up takes no lock: who makes it is in an RCU read section, in which the endpoint that it
//! finds stays. An endpoint that leaves waits for those.
//!
//! Locks: `free` is a mutex; no other lock of kfabric is taken under it.

use crate::endpoint::Endpoint;
use kernel::prelude::*;
use kernel::sync::rcu::{self, Guard};
use kernel::sync::{new_mutex, Arc, ArcBorrow, Mutex};
use kfabric::av::Name;
use kfabric::provider::rcu::Place;
use kfabric::provider::{random, Chunks};

/// The endpoints that can be reached.
#[pin_data]
pub(crate) struct Directory {
    places: Chunks<Place<Endpoint>>,
    #[pin]
    free: Mutex<Free>,
}

/// The places without an endpoint.
struct Free {
    /// Those that endpoints have left; there is room for all.
    left: KVVec<u32>,
    /// The first that was never used.
    fresh: u32,
}

/// Where an endpoint stands in the directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    place: u32,
    incarnation: u64,
}

impl Position {
    const LEN: usize = size_of::<u32>() + size_of::<u64>();

    /// As an endpoint's name.
    pub(crate) fn name(self) -> Name {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.place.to_le_bytes());
        bytes[4..].copy_from_slice(&self.incarnation.to_le_bytes());
        Name::new(&bytes).unwrap_or(Name::NONE)
    }

    /// From a name; `None` if it is none of this provider.
    pub(crate) fn parse(name: &Name) -> Option<Self> {
        let (place, incarnation) = name.as_bytes().split_at_checked(4)?;
        Some(Position {
            place: u32::from_le_bytes(place.try_into().ok()?),
            incarnation: u64::from_le_bytes(incarnation.try_into().ok()?),
        })
    }
}

impl Directory {
    pub(crate) fn new() -> impl PinInit<Self> {
        let free = Free {
            left: KVVec::new(),
            fresh: 0,
        };
        pin_init!(Directory {
            places: Chunks::new(),
            free <- new_mutex!(free, "kfi_loopback_directory"),
        })
    }

    /// Reserves a place. Sleeps. `ENOMEM`; `ENOSPC`: all of nearly 2^32 are taken.
    pub(crate) fn reserve(&self) -> Result<Position> {
        let incarnation = random::u64();
        let mut free = self.free.lock();
        let place = match free.left.pop() {
            Some(place) => place,
            None => {
                let fresh = free.fresh;
                self.places.reach(fresh)?;
                free.left.reserve(fresh as usize + 1, GFP_KERNEL)?;
                free.fresh += 1;
                fresh
            }
        };
        Ok(Position { place, incarnation })
    }

    /// Makes the endpoint reachable, in the place that it has reserved.
    pub(crate) fn enter(&self, endpoint: Arc<Endpoint>) {
        if let Some(place) = self.places.get(endpoint.position().place) {
            place.put(endpoint);
        }
    }

    /// Gives a place up, when nobody uses the endpoint any more that was found there. Sleeps.
    pub(crate) fn leave(&self, position: Position) {
        let left = self.places.get(position.place).and_then(Place::take);
        drop(left);
        // There is room.
        let _ = self.free.lock().left.push_within_capacity(position.place);
    }

    /// The endpoint of a name, as long as the section lasts. Never waits; any context.
    // Inlined into the post, and so into few others.
    #[inline(always)]
    pub(crate) fn find<'a>(
        &'a self,
        name: &Name,
        section: &'a Guard,
    ) -> Option<ArcBorrow<'a, Endpoint>> {
        let position = Position::parse(name)?;
        let endpoint = self.places.get(position.place)?.get(section)?;
        // The place may be a successor's.
        (endpoint.position().incarnation == position.incarnation).then_some(endpoint)
    }

    /// The endpoint of a name. Never waits; any context but hardirq.
    pub(crate) fn lookup(&self, name: &Name) -> Option<Arc<Endpoint>> {
        let section = rcu::read_lock();
        self.find(name, &section).map(Arc::from)
    }

    /// The reachable endpoint of the lowest place that is at least `from`, and that place.
    pub(crate) fn next(&self, from: u32) -> Option<(u32, Arc<Endpoint>)> {
        let section = rcu::read_lock();
        let rest = (from..).map_while(|at| Some((at, self.places.get(at)?)));
        rest.filter_map(|(at, place)| Some((at, place.get(&section)?.into())))
            .next()
    }
}
