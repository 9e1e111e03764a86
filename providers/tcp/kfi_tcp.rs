// SPDX-License-Identifier: GPL-2.0

//! The tcp provider: links over the kernel's TCP sockets.
//!
//! | file | noun |
//! |---|---|
//! | `address` | where a peer listens, and the bytes that say so |
//! | `door` | the kernel's sockets, by door.c |
//! | `links` | the links of a domain, and one of them |
//!
//! Parameters of the module: `address`, where it listens and peers reach this host, and `port`.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::info::Namespace;

mod address;
#[allow(unsafe_code)]
mod door;
mod links;

use links::Tcp;

module! {
    type: Module,
    name: "kfi_tcp",
    authors: ["The kfabric developers"],
    description: "kfabric provider: tcp",
    license: "GPL",
    alias: ["kfi-provider-tcp"],
}

struct Module {
    _links: Tcp,
    /// After all sockets.
    _lingering: door::Lingering,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let lingering = door::Lingering::start()?;
        let links = Tcp::open(Namespace::initial(), door::configured()?)?;
        pr_info!("listening at {}\n", links.local());
        Ok(Module {
            _links: links,
            _lingering: lingering,
        })
    }
}
