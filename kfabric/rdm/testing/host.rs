// SPDX-License-Identifier: GPL-2.0

//! A host: where links begin and end.

use super::super::link::{Link, Links, Wake};
use super::net::Net;
use super::tally::Counted;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

/// A host, in the net until it is closed or dropped.
pub(crate) struct Host {
    net: Arc<Net>,
    door: Arc<Door>,
    _counted: Counted,
}

/// Where links come in.
#[pin_data]
pub(super) struct Door {
    address: [u8; 1],
    #[pin]
    state: Mutex<State>,
}

struct State {
    links: KVec<Arc<dyn Link>>,
    waker: Option<Arc<dyn Wake>>,
    /// Whether the links are not seen, for now.
    keeps_back: bool,
    closed: bool,
}

impl Host {
    /// A host of `net`; [`Net::host`] lets the others know of it.
    pub(super) fn new(net: &Arc<Net>, address: u8) -> Result<Self> {
        let state = State {
            links: KVec::new(),
            waker: None,
            keeps_back: false,
            closed: false,
        };
        let door = pin_init!(Door {
            address: [address],
            state <- new_mutex!(state, "kfi_kunit_door"),
        });
        Ok(Host {
            net: net.clone(),
            door: Arc::pin_init(door, GFP_KERNEL)?,
            _counted: Counted::new(net.tally()),
        })
    }

    pub(super) fn door(&self) -> &Arc<Door> {
        &self.door
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.close();
    }
}

impl Links for Host {
    fn address(&self) -> &[u8] {
        &self.door.address
    }

    fn has_sums(&self) -> bool {
        self.net.has_sums()
    }

    fn dial(&self, address: &[u8]) -> Result<Arc<dyn Link>> {
        match (address, self.door.address) {
            ([to], [from]) => self.net.dial(from, *to),
            _ => Err(EINVAL),
        }
    }

    fn accept(&self) -> Result<Arc<dyn Link>> {
        let mut state = self.door.state.lock();
        match (state.closed, state.keeps_back) {
            (true, _) => Err(EINVAL),
            (_, true) => Err(EAGAIN),
            _ => state.links.remove(0).map_err(|_| EAGAIN),
        }
    }

    fn attach(&self, waker: Arc<dyn Wake>) {
        self.door.state.lock().waker = Some(waker);
    }

    fn close(&self) {
        self.net.forget(&self.door);
        let mut state = self.door.state.lock();
        state.closed = true;
        let (links, waker) = (core::mem::take(&mut state.links), state.waker.take());
        drop(state);
        drop((links, waker));
    }
}

impl Door {
    pub(super) fn is_of(&self, address: u8) -> bool {
        self.address == [address]
    }

    /// A link has come.
    pub(super) fn arrive(&self, link: Arc<dyn Link>) -> Result {
        let mut state = self.state.lock();
        if !state.closed {
            state.links.push(link, GFP_KERNEL)?;
            state.wake();
        }
        Ok(())
    }

    /// Whether links that come are not seen, for now.
    pub(super) fn keep_back(&self, keeps_back: bool) {
        let mut state = self.state.lock();
        state.keeps_back = keeps_back;
        state.wake();
    }
}

impl State {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}
