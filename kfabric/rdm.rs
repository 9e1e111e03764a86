// SPDX-License-Identifier: GPL-2.0

//! What every reliable-datagram endpoint needs beyond moving bytes, written once.
//!
//! | file | noun |
//! |---|---|
//! | `atomic` | a peer's atomics on a region |
//! | `bounds` | how much such an endpoint keeps of its peers |
//! | `engine` | an endpoint of a provider that has links and nothing more |
//! | `fence` | what waits until operations before it have completed |
//! | `hub` | a domain of such endpoints, and the links that peers make to it |
//! | [`link`] | what such a provider supplies |
//! | [`matching`] | posted receives, and what arrived before them |
//! | `outstanding` | which operations are with such an endpoint |
//! | `peer` | a peer of such an endpoint |
//! | [`target`] | a peer's access to a region: checked, placed, made durable |
//! | `timeouts` | how long the engine waits for what |
//! | `verdict` | how operations end, between the objects' terms and those of the wire |

mod atomic;
mod bounds;
mod engine;
pub(crate) mod fence;
mod hub;
pub mod link;
pub mod matching;
mod outstanding;
mod peer;
pub mod target;
#[cfg(CONFIG_KUNIT = "y")]
mod testing;
mod timeouts;
mod verdict;

pub use engine::Engine;
pub use hub::Domain;

/// Refuses parameters of the module that can't be. `EINVAL`, with a line in the log.
pub(crate) fn check_parameters() -> kernel::error::Result {
    let bounds = bounds::Bounds::configured();
    bounds.and(timeouts::Timeouts::configured()).map(drop)
}
