// SPDX-License-Identifier: GPL-2.0

//! Regions of memory from each source, on both sides.

use crate::bar::Bound;
use crate::check_eq;
use crate::close::closed;
use crate::ops::error;
use crate::peer::Region;
use crate::rig::{register, timeout, Rig};
use crate::source::{made_of, SOURCES};
use kernel::prelude::*;
use kfabric::prelude::*;

/// Memory of each source at A, and as much of the same at B.
pub(super) struct Sources(KVec<(Region, Region, RemoteRegion)>);

impl Sources {
    /// Registers `len` bytes of each: of `device`, if there is one, and stored around the cache,
    /// if the domain does so.
    pub(super) fn new(info: &Info, rig: &Rig, device: Option<&Bound>, len: usize) -> Result<Self> {
        let mut all = KVec::new();
        let mut add = |near: Memory, far: Memory, uncached| {
            let attributes = RegionAttributes {
                access: Access::READ_WRITE,
                uncached,
                ..RegionAttributes::default()
            };
            let local = register(&rig.a.domain, near, Access::NONE)?;
            let region = rig.b.register(far, attributes)?;
            let remote = RemoteRegion::parse(&region.descriptor()?)?;
            Ok::<_, Error>(all.push((local, region, remote), GFP_KERNEL)?)
        };
        for source in SOURCES {
            add(made_of(source, len)?, made_of(source, len)?, false)?;
        }
        if info.caps.contains(Caps::UNCACHED) {
            add(Memory::zeroed(len)?, Memory::zeroed(len)?, true)?;
        }
        if let Some(device) = device {
            let at = |offset| Memory::device(device.memory(), offset, len);
            add(at(0)?, at(len as u64)?, false)?;
        }
        Ok(Sources(all))
    }

    /// Writes and reads `len` bytes between each pair.
    pub(super) fn run(&self, rig: &Rig, len: usize) -> Result {
        for (local, _, remote) in &self.0 {
            let slice = remote.slice(0, len as u64)?;
            rig.written(local.slice(0, len)?, slice, Options::NONE)?;
            check_eq!(error(&rig.read(local.slice(0, len)?, slice)?), None);
        }
        Ok(())
    }

    pub(super) fn close(self) -> Result {
        for (local, region, _) in self.0 {
            drop(closed(local.close_wait(timeout()))?);
            drop(closed(region.close_wait(timeout()))?);
        }
        Ok(())
    }
}
