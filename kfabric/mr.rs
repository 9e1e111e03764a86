// SPDX-License-Identifier: GPL-2.0

//! Memory regions: memory that peers may use, what they are told of it, and slices of it.
//!
//! The local side and the remote side are different types: a [`LocalSlice`] gives access to bytes
//! of this host, a [`RemoteSlice`] names bytes of a peer. See Documentation/memory.rst and
//! Documentation/keys.rst.
//!
//! | file | noun |
//! |---|---|
//! | `attributes` | what memory is registered for |
//! | `region` | what a key stands for |
//! | `sheet` | what is told of a region in its file |
//! | `local` | bytes of a region of this host |
//! | `remote` | a peer's region, as its descriptor tells |
//! | `target` | bytes of a peer's region |
//!
//! Source: fi_mr(3).

use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use crate::info::Caps;
use crate::memory::Memory;
use crate::op::AtomicAction;
use crate::proto::descriptor::{self, Descriptor};
use crate::proto::key::Key;
use crate::proto::range::Range;
use crate::sys::lease::Owner;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::{Delta, Instant, Monotonic, Msecs};

mod attributes;
mod local;
mod region;
mod remote;
mod sheet;
mod target;

pub use crate::proto::access::Access;
pub use attributes::Attributes;
pub use local::LocalSlice;
pub(crate) use region::Region;
pub use remote::RemoteRegion;
pub(crate) use sheet::Sheet;
pub use target::RemoteSlice;

static NEXT_ID: Atomic<u64> = Atomic::new(1);

/// Registered memory. Its owner gets the memory back from [`MemoryRegion::close`].
///
/// Dropped, it withdraws its key, and the memory is freed when nothing uses it any more: process
/// context, may sleep.
#[must_use = "dropping a region withdraws it from its peers"]
pub struct MemoryRegion {
    _file: debugfs::File,
    sheet: Arc<Sheet>,
    // Before `domain`, in whose table of keys it is.
    region: Option<Owner<Region>>,
    key: Key,
    domain: Child,
}

impl MemoryRegion {
    /// Registers `memory`; see [`Domain::register`].
    pub(crate) fn register(
        domain: &Domain,
        memory: Memory,
        attributes: Attributes,
    ) -> Result<Self, (Error, Memory)> {
        let Attributes {
            access,
            uncached,
            persistent,
        } = attributes;
        if memory.is_empty() || persistent && !memory.is_persistent() {
            return Err((EINVAL, memory));
        }
        if memory.is_device()
            && (access.contains(Access::ATOMIC) || !domain.caps().contains(Caps::HMEM))
        {
            return Err((EOPNOTSUPP, memory));
        }
        if access.contains(Access::ATOMIC) && !memory.is_aligned(size_of::<u64>()) {
            return Err((EINVAL, memory));
        }
        if uncached && !domain.caps().contains(Caps::UNCACHED) {
            return Err((EOPNOTSUPP, memory));
        }
        let child = match domain.child(Class::Region) {
            Ok(child) => child,
            Err(error) => return Err((error, memory)),
        };
        // What its owner stored before: a commit of the region will not look for it.
        if uncached {
            if let Err(error) = memory.write_back() {
                return Err((error, memory));
            }
        }
        let key = match child.keys().reserve() {
            Ok(key) => key,
            Err(error) => return Err((error, memory)),
        };
        let mut region = Region::new(memory, attributes, key, child.id());
        let failed = |error, region: Region| {
            child.keys().remove(key);
            Err((error, region.memory.into_memory()))
        };
        let (sheet, file) = match Self::sheet(domain, &region) {
            Ok(made) => made,
            Err(error) => return failed(error, region),
        };
        region.sheet = Some(sheet.clone());
        let owner = match Owner::new(region) {
            Ok(owner) => owner,
            Err(region) => return failed(ENOMEM, region),
        };
        child.keys().open(owner.lease());
        Ok(MemoryRegion {
            _file: file,
            sheet,
            region: Some(owner),
            key,
            domain: child,
        })
    }

    /// What the region is shown by, and its file.
    fn sheet(domain: &Domain, region: &Region) -> Result<(Arc<Sheet>, debugfs::File)> {
        let sheet = Arc::new(Sheet::new(region), GFP_KERNEL)?;
        let id = NEXT_ID.fetch_add(1, Relaxed);
        let shown = Shown::Region(sheet.clone());
        let file = debugfs::file(domain.dir(), fmt!("region-{id}"), shown)?;
        Ok((sheet, file))
    }

    fn region(&self) -> Result<&Owner<Region>> {
        // `None` only while it is being closed.
        self.region.as_ref().ok_or(ENODEV)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.region().map_or(0, |region| region.memory.len())
    }

    /// Whether it has no byte; never, since such memory is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its bytes survive a power cut, once committed.
    pub fn is_persistent(&self) -> bool {
        self.region()
            .is_ok_and(|region| region.memory.is_persistent())
    }

    /// Whether it is a device's own memory.
    pub fn is_device(&self) -> bool {
        self.region().is_ok_and(|region| region.memory.is_device())
    }

    /// Whether what is stored in it goes around the cache.
    pub fn is_uncached(&self) -> bool {
        self.region()
            .is_ok_and(|region| region.memory.is_uncached())
    }

    /// What peers need to know to use it: to be sent to them by any means.
    ///
    /// # Errors
    /// - `EACCES`: no peer has a right to it.
    /// - `ESTALE`: a close was tried, and its key is dead.
    pub fn descriptor(&self) -> Result<[u8; descriptor::SIZE]> {
        let region = self.region()?;
        if self.key == Key::NONE {
            return Err(ESTALE);
        }
        Descriptor::new(
            self.key,
            region.memory.len() as u64,
            region.access,
            region.persistence(),
        )
        .map(|descriptor| descriptor.emit())
        .map_err(|_| EACCES)
    }

    /// `len` bytes from `offset`, for local use in operations. `EINVAL`: out of the region.
    pub fn slice(&self, offset: usize, len: usize) -> Result<LocalSlice> {
        let region = self.region()?;
        if !Range::new(offset as u64, len as u64).within(region.memory.len() as u64) {
            return Err(EINVAL);
        }
        Ok(LocalSlice {
            region: region.lease(),
            offset,
            len,
        })
    }

    /// Copies bytes out; what peers write meanwhile arrives old or new. Any context but hardirq.
    ///
    /// # Errors
    /// - `EINVAL`: out of the region.
    /// - `ENODEV`: the device that it is on is gone.
    pub fn read_at(&self, offset: usize, to: &mut [u8]) -> Result {
        self.region()?.memory.read_at(offset, to)
    }

    /// Copies bytes in. As [`MemoryRegion::read_at`].
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result {
        self.region()?.memory.write_at(offset, from)
    }

    /// Reads 64 bits in one piece. As [`MemoryRegion::read_at`]; `EINVAL` also if not aligned,
    /// `EOPNOTSUPP` in a device's own memory.
    pub fn load_u64(&self, offset: usize) -> Result<u64> {
        self.region()?.memory.load_u64(offset)
    }

    /// Writes 64 bits in one piece. As [`MemoryRegion::load_u64`].
    pub fn store_u64(&self, offset: usize, value: u64) -> Result {
        self.region()?.memory.store_u64(offset, value)
    }

    /// Does an atomic to the word at `offset`; returns what it was. As [`MemoryRegion::load_u64`].
    ///
    /// In one order with those of peers. `operand` and `comparand` have the word's bits; only
    /// [`Action::Compare`](crate::op::Action) looks at the latter.
    pub fn atomic(
        &self,
        offset: usize,
        atomic: AtomicAction,
        operand: u64,
        comparand: u64,
    ) -> Result<u64> {
        let change = |word| atomic.apply(word, operand, comparand);
        self.region()?
            .memory
            .update(offset, atomic.datatype, change)
    }

    /// Makes a range durable from this side. Sleeps; process context.
    ///
    /// # Errors
    /// - `EINVAL`: out of the region.
    /// - `EOPNOTSUPP`: the region is volatile, or a device's own memory.
    /// - `ENODEV`: the device is gone.
    /// - `EIO`: the device failed to flush.
    pub fn commit(&self, offset: usize, len: usize) -> Result {
        self.region()?.memory.commit(offset, len)
    }

    /// Withdraws the region and gives its memory back. Sleeps; process context.
    ///
    /// From the first call on, whatever it returns, the key is dead and peers are refused.
    ///
    /// # Errors
    /// - `EBUSY`, and the region again: slices of it exist, in operations or elsewhere, or a
    ///   peer's access is just under way. Try again when they have completed.
    pub fn close(mut self) -> Result<Memory, (Error, Self)> {
        self.retire();
        match self.region.take().map(Owner::reclaim) {
            Some(Ok(region)) => Ok(region.memory.into_memory()),
            Some(Err(owner)) => {
                self.region = Some(owner);
                Err((EBUSY, self))
            }
            None => Err((ENODEV, self)),
        }
    }

    /// As [`MemoryRegion::close`], but waits until nothing uses the region, at most `timeout`
    /// milliseconds.
    ///
    /// For whoever has read the completions of all operations, while a peer's last access is just
    /// ending. It looks each millisecond. Sleeps; process context.
    ///
    /// # Errors
    /// - `EBUSY`, and the region again: it is still used.
    pub fn close_wait(self, timeout: Msecs) -> Result<Memory, (Error, Self)> {
        let (begin, timeout) = (
            Instant::<Monotonic>::now(),
            Delta::from_millis(timeout.into()),
        );
        let mut open = self;
        loop {
            open = match open.close() {
                Err((EBUSY, region)) if begin.elapsed() < timeout => region,
                closed => return closed,
            };
            fsleep(Delta::from_millis(1));
        }
    }

    /// Takes the key out of use, once.
    fn retire(&mut self) {
        let key = core::mem::replace(&mut self.key, Key::NONE);
        if key != Key::NONE {
            self.domain.keys().remove(key);
            self.sheet.key.store(Sheet::shown(Key::NONE), Relaxed);
        }
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        self.retire();
        // The memory goes with the last access that is under way, or the last slice.
        drop(self.region.take());
    }
}

#[kunit_tests(kfabric_mr)]
mod tests {
    use super::*;
    use crate::proto::key::Refusal;
    use crate::provider::registry::unplug;
    use crate::provider::testing::Opened;
    use crate::sys::pmem::testing::Device;

    const LEN: usize = 64;
    const MAX: u64 = u64::MAX;

    /// Offsets and lengths against a region, and whether they are inside.
    const BOUNDS: [(u64, u64, bool); 11] = [
        (0, 0, true),
        (0, 64, true),
        (0, 65, false),
        (1, 63, true),
        (1, 64, false),
        (63, 1, true),
        (64, 0, true),
        (64, 1, false),
        (65, 0, false),
        (1, MAX, false),
        (MAX, 1, false),
    ];

    fn register(opened: &Opened, access: Access) -> Result<MemoryRegion> {
        let registered = opened.domain.register(Memory::zeroed(LEN)?, access);
        registered.map_err(|(error, _)| error)
    }

    #[test]
    fn memory_that_is_not_registered_comes_back() -> Result {
        let opened = Opened::new()?;
        let refused = opened.domain.register(Memory::zeroed(0)?, Access::READ);
        assert!(matches!(refused, Err((EINVAL, memory)) if memory.is_empty()));
        unplug("kunit")?;
        let refused = opened.domain.register(Memory::zeroed(LEN)?, Access::READ);
        assert!(matches!(refused, Err((ENODEV, memory)) if memory.len() == LEN));
        Ok(())
    }

    #[test]
    fn hint_that_the_domain_does_not_know_is_refused() -> Result {
        let opened = Opened::new()?;
        let attributes = Attributes {
            access: Access::READ,
            uncached: true,
            ..Attributes::default()
        };
        let refused = opened.domain.register(Memory::zeroed(LEN)?, attributes);
        assert!(matches!(refused, Err((EOPNOTSUPP, memory)) if memory.len() == LEN));
        Ok(())
    }

    #[test]
    fn memory_comes_back_once_no_slice_is_left() -> Result {
        let opened = Opened::new()?;
        let mut region = register(&opened, Access::READ)?;
        region.write_at(3, &[0xa5])?;
        let slices = [region.slice(0, LEN)?, region.slice(LEN, 0)?];
        for slice in slices {
            let Err((EBUSY, again)) = region.close() else {
                return Err(EINVAL);
            };
            region = again;
            drop(slice);
        }
        let memory = region.close().map_err(|(error, _)| error)?;
        let bytes = memory.as_slice().ok_or(EINVAL)?;
        assert_eq!(bytes.iter().position(|byte| *byte == 0xa5), Some(3));
        assert!(opened.domain.close().is_ok());
        Ok(())
    }

    #[test]
    fn close_waits_for_a_slice_as_long_as_it_is_told() -> Result {
        let opened = Opened::new()?;
        let region = register(&opened, Access::READ)?;
        let slice = region.slice(0, 1)?;
        let begin = Instant::<Monotonic>::now();
        let Err((EBUSY, region)) = region.close_wait(5) else {
            return Err(EINVAL);
        };
        assert!(begin.elapsed() >= Delta::from_millis(5));
        drop(slice);
        assert!(region.close_wait(0).is_ok_and(|memory| memory.len() == LEN));
        Ok(())
    }

    #[test]
    fn first_close_withdraws_the_key_for_good() -> Result {
        let opened = Opened::new()?;
        let region = register(&opened, Access::READ)?;
        let (key, slice) = (region.key, region.slice(0, 1)?);
        assert!(region.domain.keys().lookup(key).is_ok());
        let Err((EBUSY, region)) = region.close() else {
            return Err(EINVAL);
        };
        let found = region.domain.keys().lookup(key).map(|_| ());
        assert_eq!(found, Err(Refusal::Stale));
        assert_eq!(region.descriptor(), Err(ESTALE));
        // Its owner may use it still.
        region.write_at(0, &[1])?;
        drop(slice);
        assert!(region.close().is_ok());
        Ok(())
    }

    #[test]
    fn dropped_region_leaves_its_memory_to_its_slices() -> Result {
        let opened = Opened::new()?;
        let region = register(&opened, Access::READ)?;
        let (key, core) = (region.key, region.domain.core().clone());
        region.write_at(0, &[0xa5])?;
        let slice = region.slice(0, 1)?;
        drop(region);
        let found = core.keys().lookup(key).map(|_| ());
        assert_eq!(found, Err(Refusal::Stale));
        let mut byte = [0];
        slice.memory().read_at(0, &mut byte)?;
        assert_eq!(byte, [0xa5]);
        Ok(())
    }

    #[test]
    fn slices_lie_within_their_region() -> Result {
        let opened = Opened::new()?;
        let region = register(&opened, Access::READ_WRITE)?;
        let remote = RemoteRegion::parse(&region.descriptor()?)?;
        for (offset, len, inside) in BOUNDS {
            let local = region.slice(offset as usize, len as usize);
            let local = local.map(|slice| (slice.offset() as u64, slice.len() as u64));
            let remote = remote.slice(offset, len);
            let remote = remote.map(|slice| (slice.offset(), slice.len()));
            let expected = if inside {
                Ok((offset, len))
            } else {
                Err(EINVAL)
            };
            assert_eq!((local, remote), (expected, expected));
        }
        Ok(())
    }

    #[test]
    fn persistent_region_is_committed_until_its_device_is_unbound() -> Result {
        let opened = Opened::new()?;
        let device = Device::new(4096)?;
        let memory = Memory::persistent(&device, 1, LEN)?;
        let attributes = Attributes {
            access: Access::READ,
            persistent: true,
            ..Attributes::default()
        };
        let registered = opened.domain.register(memory, attributes);
        let region = registered.map_err(|(error, _)| error)?;
        let told = RemoteRegion::parse(&region.descriptor()?)?;
        assert!(region.is_persistent() && told.slice(0, 1)?.is_persistent());
        for (offset, len, inside) in BOUNDS {
            let expected = if inside { Ok(()) } else { Err(EINVAL) };
            assert_eq!(region.commit(offset as usize, len as usize), expected);
        }
        device.unbind();
        for (offset, len) in [(0, LEN), (0, 0), (LEN, 0)] {
            assert_eq!(region.commit(offset, len), Err(ENODEV));
        }
        assert_eq!(region.load_u64(7), Err(ENODEV));
        Ok(())
    }
}
