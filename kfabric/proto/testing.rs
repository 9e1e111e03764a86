// SPDX-License-Identifier: GPL-2.0

//! What the host tests share: a seed that is new on every run, and printed.

use super::rng::Rng;
use std::hash::{BuildHasher, RandomState};

/// A generator with a fresh seed, or with the one in `KFABRIC_SEED` to repeat a failure.
///
/// libtest shows the line when the test fails.
pub(super) fn rng() -> Rng {
    let seed = match std::env::var("KFABRIC_SEED") {
        Ok(text) => text.parse().expect("KFABRIC_SEED is a decimal u64"),
        Err(_) => RandomState::new().hash_one(0),
    };
    println!("repeat with KFABRIC_SEED={seed}");
    Rng::new(seed)
}
