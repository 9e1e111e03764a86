// SPDX-License-Identifier: GPL-2.0

//! The fuzzer: libFuzzer's `main`, and the targets of `kfabric/proto/fuzz.rs`. See `scripts/fuzz`.
//!
//! `KFABRIC_FUZZ` names the target. One more, `planted`, panics by itself, so that it is seen that
//! findings are found; it is no part of what is fuzzed.

#![no_main]
#![deny(unsafe_code)]

#[allow(dead_code, unused_imports)] // what only others use
#[path = "../../kfabric/proto/mod.rs"]
mod proto;

#[allow(unsafe_code)]
mod door;

use proto::fuzz::TARGETS;
use std::sync::OnceLock;

/// Runs the target with what the fuzzer has made up. Panics if that breaks something, and if there is
/// no such target.
fn run(bytes: &[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("KFABRIC_FUZZ").unwrap_or_default();
        let known = TARGETS.iter().find(|target| target.name == name);
        match known {
            Some(target) => target.run,
            None if name == "planted" => planted,
            None => {
                let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
                eprintln!(
                    "no target {name}: KFABRIC_FUZZ is one of {}",
                    names.join(" ")
                );
                std::process::exit(2);
            }
        }
    });
    target(bytes);
}

/// Found only by one who sees which bytes lead further.
fn planted(bytes: &[u8]) {
    if let [b'k', b'f', b'i', b'!', ..] = bytes {
        panic!("planted");
    }
}
