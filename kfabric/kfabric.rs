// SPDX-License-Identifier: GPL-2.0

//! kfabric: an in-kernel fabric framework, the kernel-mode counterpart of libfabric.
//!
//! | layer | files | what it is |
//! |---|---|---|
//! | consumers | [`prelude`] | what they see |
//! | objects | [`info`], [`fabric`], [`domain`], [`mr`], [`memory`] | discovery, what is opened |
//! | | [`endpoint`], [`cm`], [`av`], [`cq`], [`eq`], [`cntr`], [`op`] | the ways of operations |
//! | engine | [`rdm`] | what every reliable-datagram endpoint needs, written once |
//! | protocol | [`proto`] | pure rules and state machines: no kernel, no I/O |
//! | seam | [`provider`] | what a provider implements, and the registry |
//! | doors | [`sys`] | raw kernel interfaces, wrapped safely |
//!
//! `unsafe` is in the doors only. Contexts, locks, ownership and completions are described in
//! Documentation/.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;

pub mod av;
pub mod cm;
pub mod cntr;
pub mod cq;
mod debugfs;
pub mod domain;
pub mod durable;
pub mod endpoint;
pub mod eq;
pub mod fabric;
pub mod info;
mod keys;
pub mod memory;
pub mod mr;
pub mod op;
pub mod prelude;
#[path = "proto/mod.rs"]
pub mod proto;
pub mod provider;
pub mod rdm;
mod stats;
pub mod sys;
mod trace;

module! {
    type: Core,
    name: "kfabric",
    authors: ["The kfabric developers"],
    description: "In-kernel fabric framework",
    license: "GPL",
    params: {
        links: u32 {
            default: 256,
            description: "Links of an endpoint, beyond which idle ones are closed",
        },
        sessions: u32 {
            default: 512,
            description: "Peers of an endpoint that may have a session at a time; each holds 0.5 MB",
        },
        resume_ms: u32 {
            default: 4000,
            description: "How long operations wait for a peer that is not reached, in ms, 1000 to 600000",
        },
    },
}

/// The module. Public, since `#[vtable]` names it as the owner of what the core implements.
#[doc(hidden)]
pub struct Core {
    _debugfs: debugfs::Root,
    _chores: provider::registry::Chores,
    _pmem: sys::pmem::Service,
}

impl kernel::Module for Core {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        rdm::check_parameters()?;
        sys::global::init();
        Ok(Core {
            _debugfs: debugfs::Root::new()?,
            _chores: provider::registry::Chores::start()?,
            _pmem: sys::pmem::Service::start()?,
        })
    }
}
