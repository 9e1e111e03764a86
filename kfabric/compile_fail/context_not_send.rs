// SPDX-License-Identifier: GPL-2.0
// error: E0277

//! A context is given back wherever the queue is read.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

#[cfg(twin)]
type Context = usize;
#[cfg(not(twin))]
type Context = *mut u8;

fn close(cq: CompletionQueue<Context>) {
    drop(cq);
}
