// SPDX-License-Identifier: GPL-2.0

//! The pure parts: rules and state machines without kernel and without I/O.
//!
//! Everything here uses `core` only: no allocation, no clock, no lock, no `unsafe`. Storage is
//! handed in, time and randomness are arguments. So the same files are compiled into kfabric.ko
//! and, by plain cargo (`Cargo.toml` beside this file), into tests on the host. Paths to each
//! other start with `super::`, never with `crate::`.
//!
//! Nothing here sleeps, and everything may be called from any context; what is shared between
//! CPUs is locked by the caller. Nothing here panics on what a peer sent.
//!
//! | file | noun |
//! |---|---|
//! | [`access`] | what a peer may do to a region |
//! | [`atomic`] | what is done to a word at once |
//! | [`order`] | which operations overtake each other |
//! | [`pieces`] | which piece of memory holds which bytes |
//! | [`range`] | an offset and a length, with checked arithmetic |
//! | [`faults`] | what is done to operations where faults are injected |
//! | [`fence`] | which operations wait until others have completed |
//! | [`key`] | remote keys, and the table that gives them out |
//! | [`descriptor`] | what a region tells its peers, as bytes |
//! | [`coverage`] | a set of ranges: which bytes were written back |
//! | [`powercut`] | which images a power cut could leave |
//! | [`ledger`] | which bytes must be in every such image |
//! | [`rng`] | numbers that a seed determines |
//! | [`chain`] | a queue through the elements of a slice |
//! | [`flow`] | how much a peer may send that meets no receive |
//! | [`peer`] | everything that two sides want of each other |
//! | [`tag`] | which tags a receive takes |
//! | [`session`] | who talks to whom, over one link after another |
//! | [`violation`] | what a peer may not do |
//! | [`wire`] | a frame, as bytes |

#![deny(unsafe_code)]

pub mod access;
pub mod atomic;
pub mod chain;
pub mod coverage;
pub mod descriptor;
pub mod faults;
pub mod fence;
pub mod flow;
pub mod key;
pub mod ledger;
pub mod order;
pub mod peer;
pub mod pieces;
pub mod powercut;
pub mod range;
pub mod rng;
pub mod session;
pub mod tag;
pub mod violation;
pub mod wire;

// The fuzzer's crate, scripts/fuzzer, is built with `--cfg fuzzing`.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod testing;
