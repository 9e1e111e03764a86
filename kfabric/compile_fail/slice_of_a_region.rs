// SPDX-License-Identifier: GPL-2.0
// error: E0599

//! What peers may write to is never a slice.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn look(region: &MemoryRegion) -> Result<u8> {
    #[cfg(twin)]
    {
        let mut byte = [0];
        region.read_at(0, &mut byte)?;
        Ok(byte[0])
    }
    #[cfg(not(twin))]
    {
        region
            .as_slice()
            .and_then(|bytes| bytes.first().copied())
            .ok_or(EINVAL)
    }
}
