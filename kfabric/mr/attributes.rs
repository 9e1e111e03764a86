// SPDX-License-Identifier: GPL-2.0

//! What memory is registered for.

use super::Access;

/// What memory is registered for.
///
/// An [`Access`] is one without hints.
///
/// Source: `struct fi_mr_attr` of fi_mr(3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// What peers may do to it.
    pub access: Access,
    /// A hint that its bytes are not going to be read soon: whatever is stored in the region, by
    /// peers, by its owner or by a receive, goes around the cache.
    ///
    /// So it displaces nothing there, and a commit has nothing to write back. Needs
    /// [`Caps::UNCACHED`](crate::info::Caps::UNCACHED).
    pub uncached: bool,
    /// Its bytes must last: for volatile memory `EINVAL`. Without it, a region is what its memory is.
    ///
    /// Source: FI_RMA_PMEM of fi_mr(3).
    pub persistent: bool,
}

impl From<Access> for Attributes {
    fn from(access: Access) -> Self {
        Attributes {
            access,
            ..Attributes::default()
        }
    }
}
