// SPDX-License-Identifier: GPL-2.0
// error: E0382

//! A closed endpoint takes no posts.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn close(ep: Endpoint<u64>) -> Result<Name> {
    #[cfg(twin)]
    let name = ep.name();
    ep.close().map_err(|(e, _)| e)?;
    #[cfg(not(twin))]
    let name = ep.name();
    Ok(name)
}
