// SPDX-License-Identifier: GPL-2.0

//! `/dev/kfi_replicaN`: a file whose bytes are in a peer's persistent memory.
//!
//! A first consumer of kfabric, and a template for others: it uses the kernel crate and
//! [`kfabric::prelude`], and contains no `unsafe`.
//!
//! - `config`: what the administrator sees, in configfs.
//! - `replica`: the device: writes, reads, and what a sync has to wait for.
//! - `link`: the fabric objects of the writing side.
//! - `target`: those of the peer, which lives in this module too: on this host, or another.
//! - `card`: what the writing side has to know of the peer.
//! - `slots`, `extents`, `errors`: the bookkeeping, without any I/O.
//!
//! What a user may rely on: a write that was followed by a successful `fsync(2)` is durable at the
//! peer; a read sees every write before it; an error that comes after its write has returned is
//! reported by fsync, once to each open file. Close does not sync. Everything else is as with a
//! block device of that size.

#![deny(unsafe_code, unused_must_use)]

use kernel::{configfs, prelude::*};

mod card;
mod config;
mod errors;
mod extents;
mod link;
mod replica;
mod slots;
mod target;

module! {
    type: Module,
    name: "kfi_replica",
    authors: ["The kfabric developers"],
    description: "A file in a peer's persistent memory",
    license: "GPL",
}

#[pin_data]
struct Module {
    #[pin]
    config: configfs::Subsystem<config::Root>,
}

impl kernel::InPlaceModule for Module {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            config <- config::Root::register(),
        })
    }
}
