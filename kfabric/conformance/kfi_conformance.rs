// SPDX-License-Identifier: GPL-2.0

//! The conformance suite: what every provider must do, whatever it is made of.
//!
//! Loaded, it runs each case on each registered provider and prints KTAP in the log, the cases
//! named `conformance.<provider>.<case>`. A case knows no provider by name; one that needs a
//! capability that a provider does not advertise is skipped there.
//!
//! With `campaign=` it runs random operations instead, for a provider that injects faults; see
//! Documentation/faults.rst.
//!
//! The cases that unplug a provider run one at a time, when `unplug=` asks for them: the provider's
//! module must be loaded again afterwards.
//!
//! | file | noun |
//! |---|---|
//! | `runner` | runs cases and prints how they ended |
//! | `rig` | a pair of connected endpoints with all that they need |
//! | `peer` | end B of a rig, here or on another host |
//! | `ops` | operations of A on B's regions, and how they ended |
//! | `bar` | the driver of a device that lends its memory |
//! | `close` | closes that must succeed, and those that must be refused |
//! | `forge` | descriptors that lie |
//! | `crew` | threads that do one job |
//! | `rng` | numbers that follow from a seed |
//! | `soft` | jobs in softirq context |
//! | `steps` | what a script has done, one at a time |
//! | `wishes` | hints for what an info is of |
//! | `cases/*` | the cases, by what they are about |

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;

mod bar;
mod cases;
mod close;
mod crew;
mod forge;
mod ops;
mod peer;
mod rig;
mod rng;
mod runner;
mod soft;
mod source;
mod steps;
mod wishes;

module! {
    type: Conformance,
    name: "kfi_conformance",
    authors: ["The kfabric developers"],
    description: "kfabric conformance suite",
    license: "GPL",
    params: {
        seed: u64 {
            default: 0,
            description: "Seed of the random cases; 0 chooses one",
        },
        timeout: u32 {
            default: 20_000,
            description: "How long a case waits for a completion, in milliseconds",
        },
        seconds: u64 {
            default: 30,
            description: "How long the case under load runs",
        },
        effort: u32 {
            default: 100,
            description: "How often cases try what needs some luck, in percent of what is usual",
        },
        first: usize {
            default: 1,
            description: "The number of the first case that is run, from 1",
        },
        last: usize {
            default: 1_000_000,
            description: "The number of the last case that is run",
        },
        every: usize {
            default: 1,
            description: "Runs one of so many cases only, from the first on",
        },
        large: bool {
            default: true,
            description: "Runs the cases that need a gibibyte of memory, or a large device, too",
        },
        connected: bool {
            default: true,
            description: "Runs what connected endpoints do as datagram endpoints do with those, too",
        },
        unplug: usize {
            default: 0,
            description: "Runs only this one of the cases that unplug the provider, from 1",
        },
        net: bool {
            default: false,
            description: "Runs in the network namespace of the task that loads it, and not in the initial one",
        },
        order: bool {
            default: false,
            description: "Runs only the cases about order and fences, for a provider that reorders the rest",
        },
        campaign: u64 {
            default: 0,
            description: "Runs so many random operations instead; with unplug=1, until somebody unplugs the provider",
        },
        steps: bool {
            default: false,
            description: "Runs no case, but the steps that are asked for in /dev/kfi_conformance",
        },
    },
}

struct Conformance {
    _steps: Option<steps::Steps>,
}

impl kernel::Module for Conformance {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        if module_parameters::steps.value() {
            return Ok(Conformance {
                _steps: Some(steps::Steps::new()?),
            });
        }
        let seed = module_parameters::seed.value();
        let unplug = module_parameters::unplug.value();
        if module_parameters::campaign.value() > 0 {
            let case = cases::CAMPAIGN.get(unplug..=unplug).ok_or(ENOENT)?;
            runner::run(&[case], seed)?;
            return Ok(Conformance { _steps: None });
        }
        if module_parameters::order.value() {
            runner::run(cases::ORDER, seed)?;
            return Ok(Conformance { _steps: None });
        }
        match unplug.checked_sub(1) {
            None if module_parameters::large.value() => runner::run(cases::ALL, seed)?,
            None => runner::run(cases::all_but_large(), seed)?,
            Some(n) => runner::run(&[cases::UNPLUG.get(n..=n).ok_or(ENOENT)?], seed)?,
        }
        Ok(Conformance { _steps: None })
    }
}
