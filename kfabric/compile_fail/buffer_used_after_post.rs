// SPDX-License-Identifier: GPL-2.0
// error: E0382

//! What is posted belongs to the operation until it completes.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn post(ep: &Endpoint<u64>, to: Address, memory: Memory) -> Result<usize> {
    #[cfg(twin)]
    let len = memory.len();
    ep.send(memory, to, Options::default(), 1)?;
    #[cfg(not(twin))]
    let len = memory.len();
    Ok(len)
}
