// SPDX-License-Identifier: GPL-2.0

//! Verifies that what the fabric calls committed survives a power cut, on real persistent memory.
//!
//! Two views of the same operations, posted through the consumers' own interface on every provider
//! that has commit:
//! - **Coverage.** Probes on the kernel's write-back primitive and on the device's flush compare
//!   address and length with each committed range: it is covered, and flushed, before its
//!   completion. The probes hold the primitives up, so that who completes early is caught.
//! - **Cuts.** What was written back feeds a model of memory whose caches lose their content
//!   (`kfabric::proto::powercut`). After operations the power is cut, thousands of times, each with
//!   its own luck, and every byte that was committed must be in every image.
//!
//! | file | noun |
//! |---|---|
//! | `bench` | two endpoints, a region, and all that watches what is done to it |
//! | `coverage`, `cuts`, `uncached`, `unbind` | the cases |
//! | `sys` | the door to the probes |
//!
//! Loading the module runs the tests and prints KTAP to the kernel's log. It needs `/dev/pmem0` in
//! fsdax mode, of which it overwrites `WINDOW` bytes from `AT` on. `seed=` repeats a run. With
//! `unbind=1` it waits, under load, for the device's driver to be unbound, and tests what becomes of
//! the operations.

#![deny(unsafe_code, unused_must_use)]

use bench::Bench;
use kernel::prelude::*;
use kfabric::prelude::*;
use kfabric::proto::rng::Rng;

mod bench;
mod coverage;
mod cuts;
#[allow(unsafe_code)] // the door to the probes, which are set in C
mod sys;
mod unbind;
mod uncached;

module! {
    type: Module,
    name: "kfi_powercut",
    authors: ["The kfabric developers"],
    description: "Tests that committed bytes survive a power cut",
    license: "GPL",
    params: {
        seed: u64 {
            default: 0,
            description: "Seed of the random tests; 0: a new one, printed",
        },
        cuts: u32 {
            default: 2000,
            description: "Cuts between operations; half as many again amid them",
        },
        unbind: bool {
            default: false,
            description: "Instead work until somebody unbinds the device from its driver",
        },
    },
}

/// A failed expectation; the log says which.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            ::kernel::prelude::pr_err!("# {}\n", ::kernel::prelude::fmt!($($message)*));
            return Err(::kernel::prelude::EBADE);
        }
    };
}

/// A case: its name, a sentence, and what runs it.
type Case = (&'static str, fn(&mut Bench) -> Result);

/// Cases, and whether the region that they are about is uncached.
type Group = (&'static [Case], bool);

/// The cases of each group, one after another.
fn each(
    groups: &[Group],
) -> impl Iterator<Item = (&'static str, fn(&mut Bench) -> Result, bool)> + '_ {
    let cases = |(group, uncached): &Group| {
        let uncached = *uncached;
        group
            .iter()
            .map(move |(name, case)| (*name, *case, uncached))
    };
    groups.iter().flat_map(cases)
}

/// Makes `CASES` of functions.
#[macro_export]
macro_rules! cases {
    ($($run:ident,)*) => {
        pub(crate) const CASES: &[$crate::Case] = &[$((::core::stringify!($run), $run)),*];
    };
}

/// Runs the cases on each provider.
fn run(cases: &[Group], infos: &[Info], seed: u64, cuts: u32) {
    let total: usize = cases.iter().map(|(group, _)| group.len()).sum();
    pr_info!("KTAP version 1\n");
    pr_info!("1..{}\n", infos.len() * total);
    pr_info!("# seed {seed}\n");
    let mut number = 0;
    for info in infos {
        for (name, case, uncached) in each(cases) {
            number += 1;
            if uncached && !info.caps.contains(Caps::UNCACHED) {
                let provider = info.provider;
                pr_info!("ok {number} - powercut.{provider}.{name} # SKIP needs uncached\n");
                continue;
            }
            let rng = Rng::new(seed ^ number);
            let result =
                Bench::new(info, rng, cuts, uncached).and_then(|mut bench| case(&mut bench));
            let provider = info.provider;
            match result {
                Ok(()) => pr_info!("ok {number} - powercut.{provider}.{name}\n"),
                Err(error) => {
                    pr_info!("# {error:?}; the seed is {seed}\n");
                    pr_info!("not ok {number} - powercut.{provider}.{name}\n");
                }
            }
        }
    }
}

struct Module;

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let hints = Hints {
            caps: Caps::RMA | Caps::COMMIT | Caps::REMOTE_CQ_DATA,
            endpoint_type: Some(EndpointType::Rdm),
            ..Hints::default()
        };
        let infos = getinfo(&hints)?;
        let seed = match module_parameters::seed.value() {
            0 => random(),
            seed => seed,
        };

        let cases: &[Group] = match module_parameters::unbind.value() {
            true => &[(unbind::CASES, false)],
            false => &[
                (coverage::CASES, false),
                (cuts::CASES, false),
                (uncached::CASES, true),
            ],
        };
        run(cases, &infos, seed, module_parameters::cuts.value());
        Ok(Module)
    }
}
