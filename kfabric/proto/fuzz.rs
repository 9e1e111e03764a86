// SPDX-License-Identifier: GPL-2.0

//! What is done with bytes that nobody can answer for: each target is a function that must not panic.
//!
//! The fuzzer (`scripts/fuzz`) calls them with what it makes up, guided by what is reached; the
//! tests here with the files of `corpus/`, a folder for each target, and at random.
//! `KFABRIC_CORPUS=write` makes those files anew that `compose` knows to make; what was found is
//! kept beside them under a name of its own.
//!
//! | file | noun |
//! |---|---|
//! | `bytes` | bytes that are read |
//! | `compose` | what the corpus begins with |
//! | `greeting` | a session under hellos |
//! | `script` | a machine under a script |

mod bytes;
#[cfg(test)]
mod compose;
mod greeting;
mod script;

use super::wire::hello::Name;

/// What is fuzzed.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The name of its folder of the corpus.
    pub(crate) name: &'static str,
    /// What it does with bytes; a panic is a finding.
    pub(crate) run: fn(&[u8]),
}

/// All of them.
pub(crate) const TARGETS: [Target; 5] = [
    Target {
        name: "frame",
        run: bytes::frame,
    },
    Target {
        name: "session",
        run: greeting::run,
    },
    Target {
        name: "peer",
        run: |bytes| script::run(bytes, &mut script::Reached::default()),
    },
    Target {
        name: "faults",
        run: bytes::faults,
    },
    Target {
        name: "descriptor",
        run: bytes::descriptor,
    },
];

#[cfg(test)]
mod tests;
