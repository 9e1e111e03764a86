// SPDX-License-Identifier: GPL-2.0
// error: unused_must_use

//! A refused post gives back what it was given, for somebody to take.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn post(ep: &Endpoint<u64>, to: Address, memory: Memory) -> Option<Buffer> {
    #[cfg(twin)]
    return ep
        .send(memory, to, Options::default(), 1)
        .err()
        .map(|refused| refused.buffer);
    #[cfg(not(twin))]
    {
        ep.send(memory, to, Options::default(), 1);
        None
    }
}
