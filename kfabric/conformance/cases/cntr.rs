// SPDX-License-Identifier: GPL-2.0

//! Counters: what they count, waiting for a value, and the callback.
//!
//! | file | noun |
//! |---|---|
//! | `callback` | the callback, and the value that it is called at |
//! | `connected` | connected endpoints that are counted |
//! | `ends` | when an operation is counted, and as what |
//! | `kinds` | which operations are counted, and by whom |
//! | `object` | the counter itself: its value, and its end |
//! | `side` | an endpoint that is counted |
//! | `wait` | waiting for a value |

pub(super) mod callback;
pub(super) mod connected;
pub(super) mod ends;
pub(super) mod kinds;
pub(super) mod object;
mod side;
pub(super) mod wait;
