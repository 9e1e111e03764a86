// SPDX-License-Identifier: GPL-2.0

//! The directory: which endpoint has which name.
//!
//! A name is a place in the directory and a random incarnation, so that the name of a closed
//! endpoint never reaches its successor in the same place.
//!
//! Locks: `places` is a leaf lock, interrupts disabled.

use crate::endpoint::Endpoint;
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};
use kfabric::av::Name;
use kfabric::provider::random;

/// The endpoints that can be reached.
#[pin_data]
pub(crate) struct Directory {
    #[pin]
    places: SpinLockIrq<KVVec<Place>>,
}

struct Place {
    incarnation: u64,
    endpoint: Option<Arc<Endpoint>>,
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
        pin_init!(Directory {
            places <- new_spinlock_irq!(KVVec::new(), "kfi_loopback_directory"),
        })
    }

    /// Reserves a place. May sleep. `ENOMEM`; `ENOSPC`: all 2^32 are taken.
    pub(crate) fn reserve(&self) -> Result<Position> {
        let incarnation = random::u64() | 1; // 0 is a free place
        loop {
            let mut places = self.places.lock();
            if let Some(place) = places.iter().position(|place| place.incarnation == 0) {
                places[place].incarnation = incarnation;
                return Ok(Position {
                    place: place as u32,
                    incarnation,
                });
            }
            let larger = places.len().max(8).checked_mul(2).ok_or(ENOSPC)?;
            drop(places);
            if larger > u32::MAX as usize {
                return Err(ENOSPC);
            }
            let mut grown = KVVec::with_capacity(larger, GFP_KERNEL)?;
            let mut places = self.places.lock();
            if places.len() < larger {
                for place in places.drain_all() {
                    let _ = grown.push_within_capacity(place);
                }
                while grown.len() < larger {
                    let _ = grown.push_within_capacity(Place {
                        incarnation: 0,
                        endpoint: None,
                    });
                }
                core::mem::swap(&mut *places, &mut grown);
            }
            drop(places);
            drop(grown);
        }
    }

    /// Makes the endpoint in a reserved place reachable.
    pub(crate) fn enter(&self, position: Position, endpoint: Arc<Endpoint>) {
        let mut places = self.places.lock();
        if let Some(place) = places.get_mut(position.place as usize) {
            place.endpoint = Some(endpoint);
        }
    }

    /// Gives a place up.
    pub(crate) fn leave(&self, position: Position) {
        let mut places = self.places.lock();
        let left = places.get_mut(position.place as usize).and_then(|place| {
            place.incarnation = 0;
            place.endpoint.take()
        });
        drop(places);
        drop(left);
    }

    /// The endpoint of a name. Any context but hardirq.
    #[inline]
    pub(crate) fn lookup(&self, name: &Name) -> Option<Arc<Endpoint>> {
        let position = Position::parse(name)?;
        let places = self.places.lock();
        let place = places.get(position.place as usize)?;
        if place.incarnation != position.incarnation {
            return None;
        }
        place.endpoint.clone()
    }

    /// The reachable endpoint of the lowest place that is at least `from`, and that place.
    pub(crate) fn next(&self, from: usize) -> Option<(usize, Arc<Endpoint>)> {
        let places = self.places.lock();
        let rest = places.iter().enumerate().skip(from);
        rest.filter_map(|(at, place)| Some((at, place.endpoint.clone()?)))
            .next()
    }
}
