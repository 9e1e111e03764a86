// SPDX-License-Identifier: GPL-2.0

//! What a key stands for.

use super::{Access, Attributes};
use crate::memory::{Exposed, Memory};
use crate::proto::descriptor::{Flush, Persistence};
use crate::proto::key::Key;

/// What a key stands for: the memory and the rights of peers.
pub(crate) struct Region {
    pub(super) memory: Exposed,
    pub(super) access: Access,
    key: Key,
    /// The number of its domain.
    pub(super) domain: u64,
}

impl Region {
    /// What stands behind `key`, which nobody else in this domain has.
    pub(crate) fn new(
        memory: Memory,
        attributes: impl Into<Attributes>,
        key: Key,
        domain: u64,
    ) -> Self {
        let Attributes { access, uncached } = attributes.into();
        let memory = memory.expose();
        Region {
            memory: if uncached { memory.uncached() } else { memory },
            access,
            key,
            domain,
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
    pub(super) fn persistence(&self) -> Option<Persistence> {
        self.memory
            .is_persistent()
            .then(|| Persistence::byte_granular(Flush::Responder))
    }
}
