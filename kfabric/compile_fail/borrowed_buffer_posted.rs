// SPDX-License-Identifier: GPL-2.0
// error: E0277

//! A buffer is owned: a borrow could end before the operation.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn post(ep: &Endpoint<u64>, to: Address) -> Result {
    #[cfg(twin)]
    let bytes = Memory::zeroed(64)?;
    #[cfg(not(twin))]
    let bytes = &[0u8; 64][..];
    ep.send(bytes, to, Options::default(), 1)?;
    Ok(())
}
