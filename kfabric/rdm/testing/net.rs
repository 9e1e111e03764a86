// SPDX-License-Identifier: GPL-2.0

//! A net in memory: hosts with addresses of one byte, and the links between them.

use super::super::link::{Link, Links, Wake};
use super::wire::{Fault, Wire};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};

/// How many bytes of a direction a link holds.
const CAPACITY: usize = 5000;

/// What a test sees of the net, and tells it.
#[pin_data]
pub(crate) struct Net {
    #[pin]
    state: Mutex<State>,
    /// Hosts and ends of links that exist.
    alive: Atomic<i32>,
    dials: Atomic<i32>,
    hits: Atomic<i32>,
}

struct State {
    hosts: KVec<Arc<Host>>,
    wires: KVec<Arc<Wire>>,
    /// Of the links that are made from now on, until it has happened once; after so many others.
    fault: Option<(Fault, i32)>,
    refusal: Option<Refusal>,
    held: bool,
    /// Whether dials wait at their hosts, unseen.
    backlog: bool,
}

/// How dials are refused.
#[derive(Clone, Copy)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// Whether the dial itself says so, or the link that it made.
    pub(crate) at_once: bool,
    /// How many are refused.
    pub(crate) count: usize,
}

impl Net {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let state = State {
            hosts: KVec::new(),
            wires: KVec::new(),
            fault: None,
            refusal: None,
            held: false,
            backlog: false,
        };
        Arc::pin_init(
            pin_init!(Net {
                state <- new_mutex!(state, "kfi_kunit_net"),
                alive: Atomic::new(0),
                dials: Atomic::new(0),
                hits: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// A host of that address.
    pub(crate) fn host(self: &Arc<Self>, address: u8) -> Result<Arc<Host>> {
        let host = Arc::pin_init(
            pin_init!(Host {
                net: Counted::new(self),
                address: [address],
                door <- new_mutex!(
                    Door {
                        links: KVec::new(),
                        waker: None,
                        closed: false,
                    },
                    "kfi_kunit_door"
                ),
            }),
            GFP_KERNEL,
        )?;
        self.state.lock().hosts.push(host.clone(), GFP_KERNEL)?;
        Ok(host)
    }

    /// Makes a link from one address to another.
    pub(crate) fn dial(self: &Arc<Self>, from: u8, to: u8) -> Result<Arc<dyn Link>> {
        self.dials.add(1, Relaxed);
        let mut state = self.state.lock();
        let refusal = state.refusal;
        if let Some(Refusal { count, .. }) = &mut state.refusal {
            *count -= 1;
            if *count == 0 {
                state.refusal = None;
            }
        }
        if let Some(Refusal {
            error,
            at_once: true,
            ..
        }) = refusal
        {
            return Err(error);
        }
        let host = state.hosts.iter().find(|host| host.address == [to]);
        let host = host.cloned();
        let fault = state.fault;
        drop(state);
        let refused = match (refusal, &host) {
            (Some(refusal), _) => Some(refusal.error),
            (None, None) => Some(ECONNREFUSED),
            (None, Some(_)) => None,
        };
        let (wire, [near, far]) = Wire::new(self, [from, to], CAPACITY, refused, fault)?;
        let mut state = self.state.lock();
        state.wires.retain(|wire| wire.is_live());
        state.wires.push(wire, GFP_KERNEL)?;
        drop(state);
        match (refused, host) {
            (None, Some(host)) => host.arrive(far)?,
            _ => drop(far),
        }
        Ok(near)
    }

    /// The links between two that are of use.
    pub(crate) fn between(&self, one: u8, other: u8) -> Result<KVec<Arc<Wire>>> {
        let mut found = KVec::new();
        for wire in &self.state.lock().wires {
            if wire.joins(one, other) && wire.is_live() {
                found.push(wire.clone(), GFP_KERNEL)?;
            }
        }
        Ok(found)
    }

    /// Breaks all links.
    pub(crate) fn cut(&self) {
        let mut wires = core::mem::take(&mut self.state.lock().wires);
        for wire in &mut wires {
            wire.cut();
        }
    }

    /// Has `fault` happen, once, to one of the links that are made from now on.
    pub(crate) fn plan(&self, fault: Fault) {
        self.state.lock().fault = Some((fault, self.hits()));
    }

    /// Refuses dials; `None`: no more.
    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        self.state.lock().refusal = refusal;
    }

    /// Wakes nobody, until it is told to again.
    pub(crate) fn hold(&self, held: bool) {
        let mut state = self.state.lock();
        state.held = held;
        for wire in &state.wires {
            wire.hold(held);
        }
    }

    /// Whether hosts see no dials, for now.
    pub(crate) fn keep_back(&self, backlog: bool) {
        let mut state = self.state.lock();
        state.backlog = backlog;
        for host in &state.hosts {
            host.wake();
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.state.lock().held
    }

    /// How many dials there were.
    pub(crate) fn dials(&self) -> i32 {
        self.dials.load(Relaxed)
    }

    /// How many faults have happened.
    pub(crate) fn hits(&self) -> i32 {
        self.hits.load(Relaxed)
    }

    /// A fault happens, if it is the next after so many; whether it is.
    pub(super) fn hit(&self, after: i32) -> bool {
        self.hits.cmpxchg(after, after + 1, Relaxed).is_ok()
    }

    /// How many hosts and ends of links exist.
    pub(crate) fn alive(&self) -> i32 {
        self.alive.load(Relaxed)
    }
}

/// The net, for what is counted there while it exists.
pub(super) struct Counted(Arc<Net>);

impl Counted {
    pub(super) fn new(net: &Arc<Net>) -> Self {
        net.alive.add(1, Relaxed);
        Counted(net.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.alive.add(-1, Relaxed);
    }
}

/// A host.
#[pin_data]
pub(crate) struct Host {
    net: Counted,
    address: [u8; 1],
    #[pin]
    door: Mutex<Door>,
}

struct Door {
    links: KVec<Arc<dyn Link>>,
    waker: Option<Arc<dyn Wake>>,
    closed: bool,
}

impl Host {
    /// A link has come.
    fn arrive(&self, link: Arc<dyn Link>) -> Result {
        let mut door = self.door.lock();
        if !door.closed {
            door.links.push(link, GFP_KERNEL)?;
        }
        drop(door);
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Some(waker) = &self.door.lock().waker {
            waker.wake();
        }
    }
}

impl Links for Host {
    fn address(&self) -> &[u8] {
        &self.address
    }

    fn dial(&self, address: &[u8]) -> Result<Arc<dyn Link>> {
        match address {
            [to] => self.net.0.dial(self.address[0], *to),
            _ => Err(EINVAL),
        }
    }

    fn accept(&self) -> Result<Arc<dyn Link>> {
        if self.net.0.state.lock().backlog {
            return Err(EAGAIN);
        }
        let mut door = self.door.lock();
        match door.closed {
            true => Err(EINVAL),
            false => door.links.remove(0).map_err(|_| EAGAIN),
        }
    }

    fn attach(&self, waker: Arc<dyn Wake>) {
        self.door.lock().waker = Some(waker);
    }

    fn close(&self) {
        let mut door = self.door.lock();
        door.closed = true;
        let (links, waker) = (core::mem::take(&mut door.links), door.waker.take());
        drop(door);
        drop((links, waker));
        let mut state = self.net.0.state.lock();
        state.hosts.retain(|host| host.address != self.address);
    }
}
