// SPDX-License-Identifier: GPL-2.0
// error: E0521

//! A context outlives whoever posted it.

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;
use kfabric::prelude::*;

fn post(ep: &Endpoint<&'static u32>, to: Address, context: Context<'_>) -> Result {
    ep.send(Buffer::empty(), to, Options::default(), context.0)?;
    Ok(())
}

#[cfg(twin)]
struct Context<'a>(&'static u32, core::marker::PhantomData<&'a u32>);
#[cfg(not(twin))]
struct Context<'a>(&'a u32);
