// SPDX-License-Identifier: GPL-2.0
// error: unsafe_code

//! No consumer needs unsafe code.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn look(region: &MemoryRegion) -> Result<u64> {
    #[cfg(twin)]
    return region.load_u64(0);
    #[cfg(not(twin))]
    // SAFETY: None, which is the point.
    return Ok(unsafe { core::ptr::from_ref(region).cast::<u64>().read() });
}
