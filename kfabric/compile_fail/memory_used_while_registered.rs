// SPDX-License-Identifier: GPL-2.0
// error: E0382

//! Registered memory comes back from the region, and from nowhere else.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn register(domain: &Domain, mut memory: Memory) -> Result {
    #[cfg(twin)]
    memory.write_at(0, &[1])?;
    let region = domain.register(memory, Access::WRITE).map_err(|(e, _)| e)?;
    #[cfg(not(twin))]
    memory.write_at(0, &[1])?;
    drop(region);
    Ok(())
}
