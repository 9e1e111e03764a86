// SPDX-License-Identifier: GPL-2.0

//! The door to C: every raw kernel interface that kfabric uses, wrapped safely, one noun a file.

#![allow(unsafe_code)]

/// What bindgen made of `sys.h`.
#[allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unused_imports
)]
pub(crate) mod bindings {
    use kernel::bindings::*;
    use kernel::ffi;
    include!(env!("KFABRIC_BINDINGS"));
}

pub(crate) mod around;
pub mod autoload;
pub mod bar;
pub mod chardev;
pub mod chunks;
pub mod context;
pub mod copy;
pub(crate) mod crc;
pub(crate) mod debugfs;
pub mod folio;
pub(crate) mod global;
pub(crate) mod iter;
pub(crate) mod kvfree;
pub(crate) mod lease;
pub(crate) mod module;
pub mod net;
pub(crate) mod once;
pub mod pieces;
pub mod pmem;
pub mod random;
pub mod rcu;
pub(crate) mod reclaim;
pub mod shelf;
pub mod slot;
pub(crate) mod stamp;
pub(crate) mod trace;
pub mod work;
