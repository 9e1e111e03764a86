// SPDX-License-Identifier: GPL-2.0

//! What every reliable-datagram endpoint needs beyond moving bytes, written once.
//!
//! | file | noun |
//! |---|---|
//! | `atomic` | a peer's atomics on a region |
//! | `fence` | what waits until operations before it have completed |
//! | [`link`] | the way of bytes to a peer, which a provider supplies |
//! | [`matching`] | posted receives, and what arrived before them |
//! | [`target`] | a peer's access to a region: checked, placed, made durable |

mod atomic;
pub(crate) mod fence;
pub mod link;
pub mod matching;
pub mod target;
