// SPDX-License-Identifier: GPL-2.0
// error: E0277

//! Posts reach a provider's endpoint from several CPUs at once.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;
use kfabric::provider;

struct Port {
    #[cfg(twin)]
    posts: kernel::sync::atomic::Atomic<u64>,
    #[cfg(not(twin))]
    posts: core::cell::Cell<u64>,
}

#[vtable]
impl provider::Endpoint for Port {
    fn name(&self) -> Name {
        let _ = &self.posts;
        Name::NONE
    }

    fn shutdown(&self, _error: Error) {}
}

struct Module;

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Module)
    }
}

module! {
    type: Module,
    name: "provider_endpoint_not_sync",
    authors: ["The kfabric developers"],
    description: "A test that must not compile",
    license: "GPL",
}
