// SPDX-License-Identifier: GPL-2.0
// error: E0277

//! What names bytes of a peer gives no access to bytes of this host.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn write(ep: &Endpoint<u64>, to: Address, local: Slice, remote: RemoteSlice) -> Result {
    ep.write(local, to, remote, Options::default(), 1)?;
    Ok(())
}

#[cfg(twin)]
type Slice = LocalSlice;
#[cfg(not(twin))]
type Slice = RemoteSlice;
