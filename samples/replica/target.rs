// SPDX-License-Identifier: GPL-2.0

//! The peer: persistent memory that others may write, read and commit.
//!
//! It has a fabric, a domain and an endpoint of its own, as on another machine. What the writing
//! side learns of it are bytes: a name and a descriptor.

use super::{
    card::Card,
    config::Settings,
    link::{closed, limited},
};
use kernel::prelude::*;
use kfabric::prelude::*;

/// How many milliseconds the close of a region waits for a peer's access.
const CLOSE_TIMEOUT: u32 = 1000;

/// Memory of a device, open to peers.
pub(crate) struct Target {
    // In the order in which they are closed.
    endpoint: Endpoint<()>,
    region: MemoryRegion,
    cq: CompletionQueue<()>,
    av: AddressVector,
    domain: Domain,
    fabric: Fabric,
}

impl Target {
    /// Opens the device of `settings` to peers.
    ///
    /// # Errors
    /// - `ENOSPC`: the device is smaller than the replica.
    /// - Those of [`Pmem::open`], and of the fabric's objects.
    #[inline(never)]
    pub(crate) fn open(label: &CStr, settings: &Settings, info: &Info) -> Result<Self> {
        let device = Pmem::open(&settings.device)?;
        if settings.size > device.len() {
            let (size, len) = (settings.size, device.len());
            pr_err!("{label}: size {size}: the device has {len} bytes\n");
            return Err(ENOSPC);
        }
        let memory = Memory::persistent(&device, 0, settings.size.try_into()?)?;

        let info = limited(info, 1);
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let region = domain
            .register(memory, Access::READ_WRITE)
            .map_err(|(error, _)| error)?;
        let av = AddressVector::new(&domain)?;
        let cq = CompletionQueue::new(&domain, 2, None)?;
        let endpoint = Endpoint::builder(&domain, &info).cq(&cq).av(&av).enable()?;
        Ok(Self {
            endpoint,
            region,
            cq,
            av,
            domain,
            fabric,
        })
    }

    /// Returns what a peer has to know.
    pub(crate) fn card(&self) -> Result<Card> {
        Ok(Card::new(self.endpoint.name(), self.region.descriptor()?))
    }

    /// Closes it; the device is free afterwards.
    #[inline(never)]
    pub(crate) fn close(self, label: &CStr) {
        closed(label, "the peer's endpoint", || self.endpoint.close());
        // A peer's access may be just ending.
        let close = || self.region.close_wait(CLOSE_TIMEOUT).map(drop);
        closed(label, "the peer's region", close);
        closed(label, "the peer's queue", || self.cq.close());
        closed(label, "the peer's addresses", || self.av.close());
        closed(label, "the peer's domain", || self.domain.close());
        closed(label, "the peer's fabric", || self.fabric.close());
    }
}
