// SPDX-License-Identifier: GPL-2.0

//! What a peer's descriptor tells.

use super::{Access, RemoteSlice};
use crate::proto::descriptor::{Descriptor, Persistence};
use crate::proto::range::Range;
use kernel::prelude::*;

/// A peer's region, as its descriptor tells. What it tells is checked again by the peer.
#[derive(Clone, Copy)]
pub struct RemoteRegion {
    descriptor: Descriptor,
}

impl RemoteRegion {
    /// Reads what a peer sent. `EBADMSG`: not a descriptor of a version that is known here.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Descriptor::parse(bytes)
            .map(|descriptor| RemoteRegion { descriptor })
            .map_err(|_| EBADMSG)
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.descriptor.len()
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What peers may do to it.
    pub fn access(&self) -> Access {
        self.descriptor.access()
    }

    /// How it is persistent: granularity and flush method; `None` if it is volatile.
    pub fn persistence(&self) -> Option<Persistence> {
        self.descriptor.persistence()
    }

    /// `len` bytes from `offset`. `EINVAL`: out of the region.
    pub fn slice(&self, offset: u64, len: u64) -> Result<RemoteSlice> {
        let range = Range::new(offset, len);
        if !range.within(self.descriptor.len()) {
            return Err(EINVAL);
        }
        Ok(RemoteSlice {
            key: self.descriptor.key(),
            range,
            access: self.descriptor.access(),
            persistent: self.descriptor.persistence().is_some(),
        })
    }
}

#[kunit_tests(kfabric_mr_remote)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::mr::MemoryRegion;
    use crate::provider::testing::Opened;

    const LEN: usize = 64;

    fn register(opened: &Opened, access: Access) -> Result<MemoryRegion> {
        let registered = opened.domain.register(Memory::zeroed(LEN)?, access);
        registered.map_err(|(error, _)| error)
    }

    #[test]
    fn peers_are_told_what_they_may_do() -> Result {
        let opened = Opened::new()?;
        for access in [Access::READ, Access::WRITE, Access::READ_WRITE] {
            let region = register(&opened, access)?;
            let told = RemoteRegion::parse(&region.descriptor()?)?;
            assert_eq!((told.len(), told.access()), (LEN as u64, access));
            let slice = told.slice(0, 1)?;
            assert!(told.persistence().is_none() && !slice.is_persistent());
            assert_eq!((slice.key(), slice.access()), (region.key, access));
        }
        let local = register(&opened, Access::NONE)?;
        assert_eq!(local.descriptor(), Err(EACCES));
        assert_eq!(RemoteRegion::parse(&[]).err(), Some(EBADMSG));
        Ok(())
    }
}
