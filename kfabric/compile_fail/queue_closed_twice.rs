// SPDX-License-Identifier: GPL-2.0
// error: E0382

//! An object is closed once; it comes back if the close is refused.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn close(cq: CompletionQueue<u64>) -> Result {
    #[cfg(twin)]
    let Err((_, cq)) = cq.close() else {
        return Ok(());
    };
    #[cfg(not(twin))]
    cq.close().map_err(|(e, _)| e)?;
    cq.close().map_err(|(e, _)| e)
}
