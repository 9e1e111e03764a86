// SPDX-License-Identifier: GPL-2.0
// error: E0451

//! A range of a peer comes from the descriptor that the peer gave.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn forge(known: RemoteSlice, region: &RemoteRegion) -> Result<RemoteSlice> {
    #[cfg(twin)]
    {
        let _ = known;
        region.slice(0, region.len())
    }
    #[cfg(not(twin))]
    {
        let _ = region;
        Ok(RemoteSlice {
            persistent: true,
            ..known
        })
    }
}
