// SPDX-License-Identifier: GPL-2.0

//! What is told of a region in its file.

use super::region::Region;
use super::Access;
use crate::debugfs;
use crate::proto::descriptor::{Flush, Persistence};
use crate::proto::key::Key;
use crate::stats::Count;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

/// What is told of a region in its file. Nothing in it keeps the region, or gives its key away.
pub(crate) struct Sheet {
    len: usize,
    access: Access,
    uncached: bool,
    device: bool,
    persistence: Option<Persistence>,
    /// Index and generation of the key; 0 without one.
    pub(super) key: Atomic<u64>,
    /// Accesses of peers that were refused, of those that had the key.
    pub(super) refused: Count,
    /// Bytes that peers have had made durable.
    pub(super) committed: Count,
}

impl Sheet {
    pub(super) fn new(region: &Region) -> Self {
        Sheet {
            len: region.memory.len(),
            access: region.access,
            uncached: region.memory.is_uncached(),
            device: region.memory.is_device(),
            persistence: region.persistence(),
            key: Atomic::new(Self::shown(region.key())),
            refused: Count::default(),
            committed: Count::default(),
        }
    }

    pub(super) fn shown(key: Key) -> u64 {
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
            ("refused", self.refused.value()),
            ("committed_bytes", self.committed.value()),
        ];
        debugfs::rows(f, &rows)
    }
}

#[kunit_tests(kfabric_mr_sheet)]
mod tests {
    use super::super::MemoryRegion;
    use super::*;
    use crate::debugfs::Shown;
    use crate::memory::Memory;
    use crate::provider::testing::Opened;
    use crate::sys::pmem::testing::Device;
    use kernel::str::CString;

    /// What the region's file shows.
    fn file(region: &MemoryRegion) -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", Shown::Region(region.sheet.clone())))
    }

    #[test]
    fn file_tells_the_state_and_not_the_key() -> Result {
        let opened = Opened::new()?;
        let registered = opened.domain.register(Memory::zeroed(64)?, Access::READ);
        let first = registered.map_err(|(error, _)| error)?;
        let shows = |region: &MemoryRegion, rest: &str, key: (u32, u32), counts: (u64, u64)| {
            let expected = CString::try_from_fmt(fmt!(
                "{rest}key_index {}\nkey_generation {}\nrefused {}\ncommitted_bytes {}\n",
                key.0,
                key.1,
                counts.0,
                counts.1
            ))?;
            assert!(*file(region)? == *expected);
            Ok::<_, Error>(())
        };
        let generation = |region: &MemoryRegion| region.sheet.key.load(Relaxed) as u32;
        let volatile =
            "len 64\nremote_read 1\nremote_write 0\nuncached 0\ndevice 0\npersistent 0\n\
            flush_responder 0\n";
        shows(&first, volatile, (0, generation(&first)), (0, 0))?;

        let device = Device::new(4096)?;
        let memory = Memory::persistent(&device, 0, 4096)?;
        let registered = opened.domain.register(memory, Access::WRITE);
        let second = registered.map_err(|(error, _)| error)?;
        let lasting = "len 4096\nremote_read 0\nremote_write 1\nuncached 0\ndevice 0\n\
            persistent 1\nflush_responder 1\n";
        shows(&second, lasting, (1, generation(&second)), (0, 0))?;
        // What peers have done with one is that one's.
        let region = second.region()?;
        region.note_refusal();
        region.note_refusal();
        region.note_commit(100);
        region.note_commit(23);
        shows(&second, lasting, (1, generation(&second)), (2, 123))?;
        shows(&first, volatile, (0, generation(&first)), (0, 0))?;

        // One whose close found it in use has no key any more.
        let _slice = first.slice(0, 1)?;
        let Err((EBUSY, first)) = first.close() else {
            return Err(EINVAL);
        };
        shows(&first, volatile, (0, 0), (0, 0))
    }
}
