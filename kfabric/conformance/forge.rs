// SPDX-License-Identifier: GPL-2.0

//! Descriptors that lie: of another length, right, persistence or key than the region's own.
//!
//! They pass the initiator's check, so that what refuses them is the target.

use crate::peer::Region;
use kernel::prelude::*;
use kfabric::prelude::*;

/// Where a descriptor says what; see `kfabric/proto/descriptor.rs`.
const RIGHTS: usize = 1;
const FLAGS: usize = 2;
const FLUSH: usize = 3;
const TEAR: usize = 5;
const LINE: usize = 6;
const KEY: usize = 8;
const LEN: usize = 16;

/// A region's descriptor, to be changed.
pub(crate) struct Forgery([u8; 32]);

impl Forgery {
    /// Begins with the truth.
    pub(crate) fn of(region: &Region) -> Result<Self> {
        Ok(Forgery(region.descriptor()?))
    }

    /// Claims these rights.
    pub(crate) fn access(mut self, access: Access) -> Self {
        self.0[RIGHTS] = access.bits();
        self
    }

    /// Claims this length.
    pub(crate) fn len(mut self, len: u64) -> Self {
        self.0[LEN..][..8].copy_from_slice(&len.to_le_bytes());
        self
    }

    /// Claims that the region is persistent.
    pub(crate) fn persistent(mut self) -> Self {
        self.0[FLAGS] = 1;
        self.0[FLUSH] = 1;
        self.0[TEAR] = 3;
        self.0[LINE] = 6;
        self
    }

    /// Claims this key.
    pub(crate) fn key(mut self, key: u64) -> Self {
        self.0[KEY..][..8].copy_from_slice(&key.to_le_bytes());
        self
    }

    /// As a peer would read it.
    pub(crate) fn remote(&self) -> Result<RemoteRegion> {
        RemoteRegion::parse(&self.0)
    }
}

/// The key that a region's descriptor tells.
pub(crate) fn key(region: &Region) -> Result<u64> {
    let mut key = [0; 8];
    key.copy_from_slice(&region.descriptor()?[KEY..][..8]);
    Ok(u64::from_le_bytes(key))
}
