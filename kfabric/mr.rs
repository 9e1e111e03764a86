// SPDX-License-Identifier: GPL-2.0

//! Memory regions: memory that peers may use, what they are told of it, and slices of it.
//!
//! The local side and the remote side are different types: a [`LocalSlice`] gives access to bytes
//! of this host, a [`RemoteSlice`] names bytes of a peer. See Documentation/memory.rst and
//! Documentation/keys.rst. Source: fi_mr(3).

use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use crate::info::Caps;
use crate::memory::{Exposed, Memory};
use crate::op::AtomicAction;
use crate::proto::descriptor::{self, Descriptor, Flush, Persistence};
use crate::proto::key::Key;
use crate::proto::range::Range;
use crate::sys::lease::{Lease, Owner};
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{rcu, Arc};

pub use crate::proto::access::Access;

static NEXT_ID: Atomic<u64> = Atomic::new(1);

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
    /// [`Caps::UNCACHED`].
    pub uncached: bool,
}

impl From<Access> for Attributes {
    fn from(access: Access) -> Self {
        Attributes {
            access,
            uncached: false,
        }
    }
}

/// What a key stands for: the memory and the rights of peers.
pub(crate) struct Region {
    memory: Exposed,
    access: Access,
    key: Key,
}

impl Region {
    /// What stands behind `key`, which nobody else has.
    pub(crate) fn new(memory: Memory, attributes: impl Into<Attributes>, key: Key) -> Self {
        let Attributes { access, uncached } = attributes.into();
        let memory = memory.expose();
        Region {
            memory: if uncached { memory.uncached() } else { memory },
            access,
            key,
        }
    }

    /// The key under which it is, or was, found.
    #[inline]
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    #[inline]
    pub(crate) fn memory(&self) -> &Exposed {
        &self.memory
    }

    #[inline]
    pub(crate) fn access(&self) -> Access {
        self.access
    }

    /// How its bytes become durable, if they do.
    fn persistence(&self) -> Option<Persistence> {
        self.memory
            .is_persistent()
            .then(|| Persistence::byte_granular(Flush::Responder))
    }
}

/// What is told of a region in its file. Nothing in it keeps the region, or gives its key away.
pub(crate) struct Sheet {
    len: usize,
    access: Access,
    uncached: bool,
    device: bool,
    persistence: Option<Persistence>,
    /// Index and generation of the key; 0 without one.
    key: Atomic<u64>,
}

impl Sheet {
    fn new(region: &Region) -> Self {
        Sheet {
            len: region.memory.len(),
            access: region.access,
            uncached: region.memory.is_uncached(),
            device: region.memory.is_device(),
            persistence: region.persistence(),
            key: Atomic::new(Self::shown(region.key)),
        }
    }

    fn shown(key: Key) -> u64 {
        u64::from(key.index()) << 32 | u64::from(key.generation())
    }

    /// Writes what it tells.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.load(Relaxed);
        let flush = self.persistence.map(|persistence| persistence.flush());
        let rows = [
            ("len", self.len as u64),
            ("remote_read", u64::from(self.access.contains(Access::READ))),
            (
                "remote_write",
                u64::from(self.access.contains(Access::WRITE)),
            ),
            ("uncached", u64::from(self.uncached)),
            ("device", u64::from(self.device)),
            ("persistent", u64::from(self.persistence.is_some())),
            (
                "flush_responder",
                u64::from(flush == Some(Flush::Responder)),
            ),
            ("key_index", key >> 32),
            ("key_generation", u64::from(key as u32)),
        ];
        debugfs::rows(f, &rows)
    }
}

/// Registered memory. Its owner gets the memory back from [`MemoryRegion::close`].
///
/// Dropped, it withdraws its key, and the memory is freed when nothing uses it any more: process
/// context, may sleep.
#[must_use = "dropping a region withdraws it from its peers"]
pub struct MemoryRegion {
    _file: debugfs::File,
    sheet: Arc<Sheet>,
    // Before `domain`, so that no memory outlives the provider's module.
    region: Option<Owner<Region>>,
    key: Key,
    domain: Child,
}

impl MemoryRegion {
    /// Registers `memory`, for peers with access; none means local use only.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// The memory comes back with
    /// - `EINVAL`: it is empty; or peers may do atomics, and it does not begin at a multiple of 8
    ///   bytes, or is in pieces that do not all begin and end at one.
    /// - `EOPNOTSUPP`: a hint that the domain does not know; a device's own memory where it does not
    ///   know that ([`Caps::HMEM`]), or for atomics of peers.
    /// - `ENODEV`: the provider is gone, or the device that the memory is on.
    /// - `ENOSPC`: no more keys in this domain.
    /// - `ENOMEM`.
    pub(crate) fn register(
        domain: &Domain,
        memory: Memory,
        attributes: Attributes,
    ) -> Result<Self, (Error, Memory)> {
        let Attributes { access, uncached } = attributes;
        if memory.is_empty() {
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
        let region = Region::new(memory, attributes, key);
        let failed = |error, region: Region| {
            child.keys().remove(key);
            Err((error, region.memory.into_memory()))
        };
        let (sheet, file) = match Self::sheet(domain, &region) {
            Ok(made) => made,
            Err(error) => return failed(error, region),
        };
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
        if let Some(Err(owner)) = self.region.take().map(Owner::reclaim) {
            // A peer's access is under way in a post, which must not be the one to free memory.
            rcu::synchronize_rcu();
            drop(owner);
        }
    }
}

/// Bytes of a region of this host, for operations: the local descriptor.
///
/// While it exists the region can't be reclaimed.
pub struct LocalSlice {
    region: Lease<Region>,
    offset: usize,
    len: usize,
}

impl LocalSlice {
    /// The first byte, counted from the region's start.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn memory(&self) -> &Exposed {
        &self.region.memory
    }
}

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

/// Bytes of a peer's region: what RMA is aimed at.
#[derive(Clone, Copy)]
pub struct RemoteSlice {
    key: Key,
    range: Range,
    access: Access,
    persistent: bool,
}

impl RemoteSlice {
    /// The first byte, counted from the region's start.
    pub fn offset(&self) -> u64 {
        self.range.offset
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.range.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether its bytes can be made durable.
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Whether its first word of `size` bytes is aligned in the region.
    pub(crate) fn is_aligned(&self, size: usize) -> bool {
        self.range.offset % size as u64 == 0
    }

    #[inline]
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    #[inline]
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    #[inline]
    pub(crate) fn access(&self) -> Access {
        self.access
    }
}

#[kunit_tests(kfabric_mr)]
mod tests {
    use super::*;
    use crate::proto::key::Refusal;
    use crate::provider::registry::unplug;
    use crate::provider::testing::Opened;
    use crate::sys::pmem::testing::Device;
    use kernel::str::CString;

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

    /// What the region's file shows.
    fn file(region: &MemoryRegion) -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", Shown::Region(region.sheet.clone())))
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

    #[test]
    fn persistent_region_is_committed_until_its_device_is_unbound() -> Result {
        let opened = Opened::new()?;
        let device = Device::new(4096)?;
        let memory = Memory::persistent(&device, 1, LEN)?;
        let registered = opened.domain.register_persistent(memory, Access::READ);
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

    #[test]
    fn file_tells_the_state_and_not_the_key() -> Result {
        let opened = Opened::new()?;
        let first = register(&opened, Access::READ)?;
        let expected =
            c"len 64\nremote_read 1\nremote_write 0\nuncached 0\ndevice 0\npersistent 0\n\
            flush_responder 0\nkey_index 0\nkey_generation 1\n";
        assert!(*file(&first)? == *expected);

        let device = Device::new(4096)?;
        let memory = Memory::persistent(&device, 0, 4096)?;
        let registered = opened.domain.register(memory, Access::WRITE);
        let second = registered.map_err(|(error, _)| error)?;
        let expected =
            c"len 4096\nremote_read 0\nremote_write 1\nuncached 0\ndevice 0\npersistent 1\n\
            flush_responder 1\nkey_index 1\nkey_generation 1\n";
        assert!(*file(&second)? == *expected);

        // One whose close found it in use has no key any more.
        let _slice = first.slice(0, 1)?;
        let Err((EBUSY, first)) = first.close() else {
            return Err(EINVAL);
        };
        let expected =
            c"len 64\nremote_read 1\nremote_write 0\nuncached 0\ndevice 0\npersistent 0\n\
            flush_responder 0\nkey_index 0\nkey_generation 0\n";
        assert!(*file(&first)? == *expected);
        Ok(())
    }
}
