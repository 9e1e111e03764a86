// SPDX-License-Identifier: GPL-2.0

//! Objects that are made to be counted: a script traces the allocations meanwhile.

use crate::rig::Rig;
use kernel::prelude::*;
use kfabric::prelude::*;

/// The length of a region, which is counted with it.
const REGION: usize = 64;

/// An object, closed when it is dropped.
#[allow(dead_code)] // it is held, and that is all
pub(crate) enum Kept {
    Endpoint(Endpoint<usize>),
    Regions(KVec<MemoryRegion>),
    Addresses(AddressVector),
}

impl Kept {
    /// An endpoint with `slots` slots in each direction. Sleeps.
    pub(crate) fn endpoint(rig: &Rig, slots: usize) -> Result<Self> {
        let mut info = rig.info;
        info.limits.tx_size = slots;
        info.limits.rx_size = slots;
        let builder = Endpoint::builder(&rig.domain, &info);
        Ok(Kept::Endpoint(builder.cq(&rig.cq).av(&rig.av).enable()?))
    }

    /// So many regions, of [`REGION`] bytes. Sleeps.
    pub(crate) fn regions(rig: &Rig, many: usize) -> Result<Self> {
        let mut regions = KVec::with_capacity(many, GFP_KERNEL)?;
        for _ in 0..many {
            let registered = rig
                .domain
                .register(Memory::zeroed(REGION)?, Access::READ_WRITE);
            regions.push(registered.map_err(|(error, _memory)| error)?, GFP_KERNEL)?;
        }
        Ok(Kept::Regions(regions))
    }

    /// An address vector with `entries` entries. Sleeps.
    pub(crate) fn addresses(rig: &Rig, entries: usize) -> Result<Self> {
        let av = AddressVector::new(&rig.domain)?;
        for _ in 0..entries {
            av.insert(&rig.b.name())?;
        }
        Ok(Kept::Addresses(av))
    }
}
