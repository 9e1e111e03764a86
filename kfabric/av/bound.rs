// SPDX-License-Identifier: GPL-2.0

//! The hold of an endpoint on its address vector.

use super::{Address, Name, Table};
use kernel::sync::Arc;

/// An endpoint's hold on an address vector.
pub(crate) struct Peers(Arc<Table>);

impl Peers {
    pub(crate) fn new(table: &Arc<Table>) -> Self {
        table.bind();
        Peers(table.clone())
    }

    /// The name behind `address`. Never waits; any context.
    #[inline]
    pub(crate) fn name(&self, address: Address) -> Option<Name> {
        self.0.name(address)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.0.unbind();
    }
}
