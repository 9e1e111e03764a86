// SPDX-License-Identifier: GPL-2.0
// error: E0308

//! A queue gives back contexts of the type that its endpoints carry.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

#[cfg(twin)]
type Other = u64;
#[cfg(not(twin))]
type Other = u32;

fn open(domain: &Domain, info: &Info, cq: &CompletionQueue<Other>) -> Result {
    let _builder = Endpoint::<u64>::builder(domain, info).cq(cq);
    Ok(())
}
