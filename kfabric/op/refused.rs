// SPDX-License-Identifier: GPL-2.0

//! A post that was refused.

use super::Buffer;
use kernel::prelude::*;

/// A post that was refused: nothing happens, and everything is here again.
#[must_use = "it holds the buffer and the context that were to be posted"]
pub struct Refused<C> {
    /// The reason.
    pub error: Error,
    /// The local side.
    pub buffer: Buffer,
    /// The consumer's context.
    pub context: C,
}

impl<C> From<Refused<C>> for Error {
    fn from(refused: Refused<C>) -> Error {
        refused.error
    }
}
