// SPDX-License-Identifier: GPL-2.0
// error: unused_must_use

//! A completion holds what was posted, for somebody to take.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn reap(cq: &CompletionQueue<u64>) -> Result<Option<Buffer>> {
    #[cfg(twin)]
    return Ok(Some(cq.read_wait(1000)?.buffer));
    #[cfg(not(twin))]
    {
        cq.read_wait(1000)?;
        Ok(None)
    }
}
