// SPDX-License-Identifier: GPL-2.0
// error: E0308

//! What names bytes of this host does not name bytes of a peer.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn write(ep: &Endpoint<u64>, to: Address, local: LocalSlice, remote: Slice) -> Result {
    ep.write(local, to, remote, Options::default(), 1)?;
    Ok(())
}

#[cfg(twin)]
type Slice = RemoteSlice;
#[cfg(not(twin))]
type Slice = LocalSlice;
