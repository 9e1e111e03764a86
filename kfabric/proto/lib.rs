// SPDX-License-Identifier: GPL-2.0

//! Root of the host crate: the same files as `crate::proto` in kfabric.ko, and nothing else.

#![cfg_attr(not(test), no_std)]

#[path = "mod.rs"]
mod proto;

pub use proto::*;
