// SPDX-License-Identifier: GPL-2.0
// error: E0624

//! A provider reads what was posted; it does not change it.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::op::Operation;
use kfabric::prelude::*;

fn change(mut op: Operation) -> u64 {
    #[cfg(twin)]
    return (&mut op).endpoint();
    #[cfg(not(twin))]
    return op.op().endpoint();
}
