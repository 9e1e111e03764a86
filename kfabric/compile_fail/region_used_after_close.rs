// SPDX-License-Identifier: GPL-2.0
// error: E0382

//! A closed region is gone.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn close(region: MemoryRegion) -> Result<usize> {
    #[cfg(twin)]
    let len = region.len();
    let memory = region.close().map_err(|(e, _)| e)?;
    #[cfg(not(twin))]
    let len = region.len();
    drop(memory);
    Ok(len)
}
