// SPDX-License-Identifier: GPL-2.0

//! The directory: which endpoint has which name.
//!
//! A name is a place in the directory and a random incarnation, so that the name of a closed
//! endpoint never reaches its successor in the same place; or it is that of a service, which stays
//! while endpoints come and go there, one at a time, of the domain that has claimed it.
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
    /// By the number of the service.
    services: Chunks<Place<Endpoint>>,
    #[pin]
    free: Mutex<Free>,
}

/// The places without an endpoint, and the services that are claimed.
struct Free {
    /// Those that endpoints have left; there is room for all.
    left: KVVec<u32>,
    /// The first that was never used.
    fresh: u32,
    services: KVec<Service>,
}

/// A service that a domain has claimed, and whether an endpoint is there.
struct Service {
    number: u16,
    taken: bool,
}

impl Free {
    fn service(&mut self, number: u16) -> Option<&mut Service> {
        self.services.iter_mut().find(|it| it.number == number)
    }
}

/// The claim of a domain on a service, until it is dropped, which sleeps.
pub(crate) struct Claim {
    directory: Arc<Directory>,
    number: u16,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut free = self.directory.free.lock();
        free.services.retain(|it| it.number != self.number);
    }
}

/// What a name says: where to look for an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    place: u32,
    incarnation: u64,
}

/// Where an endpoint is in the directory: under its name; and its place among all, which is that of the name unless
/// that is a service's.
#[derive(Clone, Copy)]
pub(crate) struct Seat {
    pub(crate) position: Position,
    place: u32,
}

impl Position {
    const LEN: usize = size_of::<u32>() + size_of::<u64>();

    /// Marks the place of a service, in the low bits of which is its number. None is of number 0: that
    /// is any place of this host.
    const SERVICE: u32 = 1 << 31;

    /// That of a service; of number 0, any.
    pub(crate) fn of_service(number: u16) -> Self {
        Position {
            place: Self::SERVICE | u32::from(number),
            incarnation: 0,
        }
    }

    /// The service whose it is.
    #[inline]
    pub(crate) fn service(self) -> Option<u16> {
        match self.place & Self::SERVICE {
            0 => None,
            // An incarnation is random: of a service it is 0.
            _ if self.incarnation != 0 => None,
            _ => u16::try_from(self.place ^ Self::SERVICE).ok(),
        }
    }

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
            services: KVec::new(),
        };
        pin_init!(Directory {
            places: Chunks::new(),
            services: Chunks::new(),
            free <- new_mutex!(free, "kfi_loopback_directory"),
        })
    }

    /// Claims a service for a domain. Sleeps. `EADDRINUSE`: another has it. `ENOMEM`.
    pub(crate) fn claim(self: &Arc<Self>, number: u16) -> Result<Claim> {
        self.services.reach(number.into())?;
        let mut free = self.free.lock();
        if free.service(number).is_some() {
            return Err(EADDRINUSE);
        }
        let taken = false;
        free.services.push(Service { number, taken }, GFP_KERNEL)?;
        drop(free);
        Ok(Claim {
            directory: self.clone(),
            number,
        })
    }

    /// Reserves a place, under a name of its own or that of a service that the domain has claimed. Sleeps.
    ///
    /// # Errors
    /// `EADDRINUSE`: another is at the service. `ENOMEM`; `ENOSPC`: all of 2^31 places are taken.
    pub(crate) fn reserve(&self, service: Option<u16>) -> Result<Seat> {
        let incarnation = random::u64();
        let mut free = self.free.lock();
        if let Some(number) = service {
            if free.service(number).ok_or(ENODEV)?.taken {
                return Err(EADDRINUSE);
            }
        }
        let place = match free.left.pop() {
            Some(place) => place,
            None => {
                let fresh = free.fresh;
                if fresh & Position::SERVICE != 0 {
                    return Err(ENOSPC);
                }
                self.places.reach(fresh)?;
                free.left.reserve(fresh as usize + 1, GFP_KERNEL)?;
                free.fresh += 1;
                fresh
            }
        };
        let position = match service {
            None => Position { place, incarnation },
            Some(number) => {
                if let Some(service) = free.service(number) {
                    service.taken = true;
                }
                Position::of_service(number)
            }
        };
        Ok(Seat { position, place })
    }

    /// Makes the endpoint reachable, in the place that it has reserved.
    pub(crate) fn enter(&self, endpoint: Arc<Endpoint>) {
        let Seat { position, place } = endpoint.seat();
        if position.place != place {
            if let Some(service) = self.place(position.place) {
                service.put(endpoint.clone());
            }
        }
        if let Some(place) = self.places.get(place) {
            place.put(endpoint);
        }
    }

    #[inline(always)]
    fn place(&self, place: u32) -> Option<&Place<Endpoint>> {
        match place & Position::SERVICE {
            0 => self.places.get(place),
            _ => self.services.get(place ^ Position::SERVICE),
        }
    }

    /// Gives a place up, when nobody uses the endpoint any more that was found there. Sleeps.
    pub(crate) fn leave(&self, Seat { position, place }: Seat) {
        if position.place != place {
            drop(self.place(position.place).and_then(Place::take));
        }
        drop(self.places.get(place).and_then(Place::take));
        let mut free = self.free.lock();
        let service = position.service();
        if let Some(service) = service.and_then(|number| free.service(number)) {
            service.taken = false;
        }
        // There is room.
        let _ = free.left.push_within_capacity(place);
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
        let endpoint = self.place(position.place)?.get(section)?;
        // The place may be a successor's, and a name made up: it has a service by its own place as well.
        (endpoint.seat().position == position).then_some(endpoint)
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
