// SPDX-License-Identifier: GPL-2.0

//! The local side of an operation.

use crate::memory::{Exposed, Memory};
use crate::mr::LocalSlice;
use kernel::prelude::*;

/// The local side of an operation: owned memory, or a slice of a region, or nothing.
///
/// It moves into the operation, and back with the completion or the refusal. A post uses
/// [`Buffer::len`] bytes from [`Buffer::offset`].
#[derive(Default)]
pub struct Buffer {
    source: Source,
    offset: usize,
    len: usize,
}

#[derive(Default)]
enum Source {
    #[default]
    Empty,
    Owned(Exposed),
    Region(LocalSlice),
    /// Bytes that the operation itself holds.
    Injected,
    /// Bytes of a peer that are not here, or not with the operation.
    Afar,
}

impl From<Memory> for Buffer {
    fn from(memory: Memory) -> Self {
        Buffer {
            offset: 0,
            len: memory.len(),
            source: Source::Owned(memory.expose()),
        }
    }
}

impl From<LocalSlice> for Buffer {
    fn from(slice: LocalSlice) -> Self {
        Buffer {
            offset: slice.offset(),
            len: slice.len(),
            source: Source::Region(slice),
        }
    }
}

impl Buffer {
    /// No bytes: for messages without any.
    pub fn empty() -> Self {
        Self::default()
    }

    /// `len` bytes that are copied into the operation itself.
    pub(crate) fn injected(len: usize) -> Self {
        Buffer {
            source: Source::Injected,
            offset: 0,
            len,
        }
    }

    /// `len` bytes that are the peer's, of an operation that stands for one of it.
    pub(crate) fn afar(len: usize) -> Self {
        Buffer {
            source: Source::Afar,
            offset: 0,
            len,
        }
    }

    /// What comes back with a completion or a refusal: nothing of what was injected.
    #[inline]
    pub(crate) fn returned(self) -> Self {
        match self.source {
            Source::Injected => Buffer::empty(),
            _ => self,
        }
    }

    /// Takes out what it holds; what is left is good for nothing but to be replaced or dropped.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Self {
        Buffer {
            source: core::mem::take(&mut self.source),
            offset: self.offset,
            len: self.len,
        }
    }

    /// Whether its bytes are in the operation itself.
    #[inline]
    pub(crate) fn is_injected(&self) -> bool {
        matches!(self.source, Source::Injected)
    }

    /// The same memory, of which `len` bytes from `offset` are used, counted from its start
    /// (for a region's slice: from the region's).
    ///
    /// The range must lie within the memory (within the slice): else the buffer comes back.
    pub fn range(mut self, offset: usize, len: usize) -> Result<Self, Self> {
        let (start, size) = match &self.source {
            Source::Empty | Source::Injected | Source::Afar => (0, 0),
            Source::Owned(memory) => (0, memory.len()),
            Source::Region(slice) => (slice.offset(), slice.len()),
        };
        let fits = offset
            .checked_sub(start)
            .and_then(|skip| size.checked_sub(skip))
            .is_some_and(|room| len <= room);
        if !fits {
            return Err(self);
        }
        self.offset = offset;
        self.len = len;
        Ok(self)
    }

    /// `len` bytes from `offset` of its slice of a region, which lie within it; nothing of any other.
    pub(super) fn part(&self, offset: usize, len: usize) -> Self {
        match &self.source {
            Source::Region(slice) => Buffer::from(slice.part(offset, len)),
            _ => Buffer::empty(),
        }
    }

    /// Uses other bytes of the same memory, which lie within it.
    pub(super) fn narrow(&mut self, offset: usize, len: usize) {
        (self.offset, self.len) = (offset, len);
    }

    /// The first used byte.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How many bytes are used.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The owned memory; the buffer again, if it is a region's slice or empty.
    pub fn into_memory(self) -> Result<Memory, Self> {
        match self.source {
            Source::Owned(memory) => Ok(memory.into_memory()),
            source => Err(Buffer { source, ..self }),
        }
    }

    /// The region's slice; the buffer again, if it is owned memory or empty.
    pub fn into_slice(self) -> Result<LocalSlice, Self> {
        match self.source {
            Source::Region(slice) => Ok(slice),
            source => Err(Buffer { source, ..self }),
        }
    }

    /// The region's slice, if it is one.
    #[inline]
    pub(crate) fn slice(&self) -> Option<&LocalSlice> {
        match &self.source {
            Source::Region(slice) => Some(slice),
            _ => None,
        }
    }

    /// The memory, for whoever moves bytes; `None` if there is none.
    #[inline]
    pub(crate) fn memory(&self) -> Option<&Exposed> {
        match &self.source {
            Source::Empty | Source::Injected | Source::Afar => None,
            Source::Owned(memory) => Some(memory),
            Source::Region(slice) => Some(slice.memory()),
        }
    }
}

#[kunit_tests(kfabric_op_buffer)]
mod tests {
    use super::*;
    use crate::mr::Access;
    use crate::provider::testing::Opened;

    const MAX: usize = usize::MAX;

    #[test]
    fn range_lies_within_owned_memory() -> Result {
        for (offset, len, inside) in [
            (0, 0, true),
            (0, 64, true),
            (0, 65, false),
            (1, 63, true),
            (1, 64, false),
            (64, 0, true),
            (65, 0, false),
            (1, MAX, false),
            (MAX, 1, false),
        ] {
            let ranged = Buffer::from(Memory::zeroed(64)?).range(offset, len);
            let (expected, buffer) = match ranged {
                Ok(buffer) => ((true, offset, len), buffer),
                // As it was.
                Err(buffer) => ((false, 0, 64), buffer),
            };
            assert_eq!((inside, buffer.offset(), buffer.len()), expected);
            assert!(buffer.into_memory().is_ok_and(|memory| memory.len() == 64));
        }
        Ok(())
    }

    #[test]
    fn range_of_a_slice_counts_from_the_start_of_its_region() -> Result {
        let opened = Opened::new()?;
        let registered = opened.domain.register(Memory::zeroed(64)?, Access::NONE);
        let region = registered.map_err(|(error, _)| error)?;
        for (offset, len, inside) in [
            (10, 20, true),
            (10, 0, true),
            (29, 1, true),
            (30, 0, true),
            (9, 1, false),
            (0, 0, false),
            (10, 21, false),
            (29, 2, false),
            (31, 0, false),
            (11, MAX, false),
        ] {
            let ranged = Buffer::from(region.slice(10, 20)?).range(offset, len);
            let (expected, buffer) = match ranged {
                Ok(buffer) => ((true, offset, len), buffer),
                Err(buffer) => ((false, 10, 20), buffer),
            };
            assert_eq!((inside, buffer.offset(), buffer.len()), expected);
            let slice = buffer.into_slice();
            assert!(slice.is_ok_and(|slice| (slice.offset(), slice.len()) == (10, 20)));
        }
        Ok(())
    }

    #[test]
    fn buffer_gives_back_what_it_was_made_from() -> Result {
        let empty = Buffer::empty();
        assert!(empty.is_empty() && empty.memory().is_none());
        assert!(Buffer::empty().range(0, 0).is_ok());
        assert!(Buffer::empty().range(0, 1).is_err());
        assert!(empty.into_memory().is_err());
        let owned = Buffer::from(Memory::zeroed(5)?);
        let Err(owned) = owned.into_slice() else {
            return Err(EINVAL);
        };
        assert!(owned.memory().is_some_and(|memory| memory.len() == 5));
        assert!(owned.into_memory().is_ok());
        Ok(())
    }
}
