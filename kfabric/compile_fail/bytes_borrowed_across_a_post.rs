// SPDX-License-Identifier: GPL-2.0
// error: E0505

//! No slice of a buffer lives on while the fabric has it.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn post(ep: &Endpoint<u64>, to: Address, memory: Memory) -> Result<usize> {
    let bytes = memory.as_slice().unwrap_or(&[]);
    #[cfg(twin)]
    let len = bytes.len();
    ep.send(memory, to, Options::default(), 1)?;
    #[cfg(not(twin))]
    let len = bytes.len();
    Ok(len)
}
