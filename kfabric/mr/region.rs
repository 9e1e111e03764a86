// SPDX-License-Identifier: GPL-2.0

//! What a key stands for.

use super::sheet::Sheet;
use super::{Access, Attributes};
use crate::memory::{Exposed, Memory};
use crate::proto::descriptor::{Flush, Persistence};
use crate::proto::key::Key;
use kernel::prelude::*;
use kernel::sync::Arc;

/// What a key stands for: the memory and the rights of peers.
pub(crate) struct Region {
    pub(super) memory: Exposed,
    pub(super) access: Access,
    key: Key,
    /// The number of its domain.
    pub(super) domain: u64,
    /// Where it is shown, once it is.
    pub(super) sheet: Option<Arc<Sheet>>,
}

impl Region {
    /// What stands behind `key`, which nobody else in this domain has.
    pub(crate) fn new(
        memory: Memory,
        attributes: impl Into<Attributes>,
        key: Key,
        domain: u64,
    ) -> Self {
        let Attributes {
            access, uncached, ..
        } = attributes.into();
        let memory = memory.expose();
        Region {
            memory: if uncached { memory.uncached() } else { memory },
            access,
            key,
            domain,
            sheet: None,
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

    /// Notes that an access of a peer was refused.
    pub(crate) fn note_refusal(&self) {
        if let Some(sheet) = &self.sheet {
            sheet.refused.add(1);
        }
    }

    /// Notes that a peer has had so many bytes made durable.
    pub(crate) fn note_commit(&self, len: usize) {
        if let Some(sheet) = &self.sheet {
            sheet.committed.add(len as u64);
        }
    }

    /// How its bytes become durable, if they do.
    pub(super) fn persistence(&self) -> Option<Persistence> {
        self.memory
            .is_persistent()
            .then(|| Persistence::byte_granular(Flush::Responder))
    }
}

#[kunit_tests(kfabric_mr_region)]
mod tests {
    use super::*;
    use crate::sys::bar::testing::lender;
    use crate::sys::pmem::testing::Device;

    /// The number of the domain.
    const DOMAIN: u64 = 5;

    fn region(memory: Memory, attributes: impl Into<Attributes>) -> Region {
        Region::new(memory, attributes, Key::from_raw(7), DOMAIN)
    }

    #[test]
    fn region_is_what_was_registered() -> Result {
        for access in [Access::NONE, Access::READ, Access::READ_WRITE] {
            for uncached in [false, true] {
                let attributes = Attributes {
                    access,
                    uncached,
                    ..Attributes::default()
                };
                let region = region(Memory::zeroed(64)?, attributes);
                assert_eq!((region.access(), region.domain), (access, DOMAIN));
                assert!(region.key() == Key::from_raw(7));
                assert_eq!(region.memory().len(), 64);
                assert_eq!(region.memory().is_uncached(), uncached);
            }
            // Who asks for rights alone gives no hint.
            let region = region(Memory::zeroed(64)?, access);
            assert_eq!(region.access(), access);
            assert!(!region.memory().is_uncached());
        }
        Ok(())
    }

    #[test]
    fn only_what_lasts_is_told_to_be_persistent() -> Result {
        let lender = lender(4096)?;
        for uncached in [false, true] {
            let attributes = Attributes {
                access: Access::WRITE,
                uncached,
                ..Attributes::default()
            };
            for memory in [Memory::zeroed(64)?, Memory::device(lender.memory(), 0, 64)?] {
                assert!(region(memory, attributes).persistence().is_none());
            }
            let device = Device::new(4096)?;
            let lasting = region(Memory::persistent(&device, 0, 64)?, attributes);
            // The host that owns it makes it durable, to the byte.
            let told = Some(Persistence::byte_granular(Flush::Responder));
            assert_eq!(lasting.persistence(), told);
            // What is asked of it once its device has gone is refused, and not done by halves.
            device.unbind();
            assert_eq!(lasting.persistence(), told);
        }
        Ok(())
    }
}
