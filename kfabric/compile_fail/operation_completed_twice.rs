// SPDX-License-Identifier: GPL-2.0
// error: E0382

//! To complete an operation is to give it away.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::op::{Failure, Operation};
use kfabric::prelude::*;

fn end(op: Operation) {
    #[cfg(not(twin))]
    op.complete(Err(Failure::not_executed(EIO)));
    op.complete(Err(Failure::not_executed(EIO)));
}
