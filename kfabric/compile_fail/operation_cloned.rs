// SPDX-License-Identifier: GPL-2.0
// error: E0599

//! An operation has one owner, so it completes once.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::op::Operation;
use kfabric::prelude::*;

fn copy(op: Operation) -> (Option<Operation>, Option<Operation>) {
    #[cfg(twin)]
    return (Some(op), None);
    #[cfg(not(twin))]
    return (Some(op.clone()), Some(op));
}
