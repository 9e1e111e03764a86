// SPDX-License-Identifier: GPL-2.0

//! Memory in the fabric's hands.

use super::{copy, Kind, Memory};
use crate::{
    durable,
    proto::atomic::Datatype,
    sys::{
        copy::{SharedBytes, Window, Word},
        iter::Segment,
        pmem::Pmem,
    },
};
use core::mem::size_of;
use kernel::{
    iov::{IovIterDest, IovIterSource},
    prelude::*,
    sync::Arc,
};

/// Memory in the fabric's hands: anybody may write to it at any moment.
///
/// All methods but [`Exposed::commit`] may be called in any context, from any number of tasks at
/// once, and it may be dropped in any but NMI. Bytes that somebody writes at the same time arrive
/// old or new.
pub struct Exposed {
    pub(super) kind: Kind<SharedBytes>,
    /// Whether what is stored stays in no cache.
    pub(super) uncached: bool,
}

impl Exposed {
    pub(super) fn new(kind: Kind<SharedBytes>) -> Exposed {
        Exposed {
            kind,
            uncached: false,
        }
    }

    /// The same memory, all of whose stores go around the cache.
    ///
    /// What was stored before is none of them.
    pub(crate) fn uncached(self) -> Exposed {
        Exposed {
            uncached: true,
            ..self
        }
    }

    /// Returns whether its stores go around the cache.
    pub fn is_uncached(&self) -> bool {
        self.uncached
    }

    /// Gives the memory back to its owner, whom nobody disturbs any more.
    ///
    /// Devices must have stopped writing to it before.
    pub(crate) fn into_memory(self) -> Memory {
        Memory(match self.kind {
            Kind::Volatile(bytes) => Kind::Volatile(bytes.into_vec()),
            Kind::Pieces(pieces) => Kind::Pieces(pieces),
            Kind::Persistent(range) => Kind::Persistent(range),
            Kind::Device(range) => Kind::Device(range),
        })
    }

    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        match &self.kind {
            Kind::Volatile(bytes) => bytes.len(),
            Kind::Pieces(pieces) => pieces.len(),
            Kind::Persistent(range) => range.len,
            Kind::Device(range) => range.len,
        }
    }

    /// Returns whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether it is persistent.
    pub fn is_persistent(&self) -> bool {
        matches!(self.kind, Kind::Persistent(_))
    }

    /// Returns whether it is a device's own memory.
    pub fn is_device(&self) -> bool {
        matches!(self.kind, Kind::Device(_))
    }

    /// Returns the device that persistent memory is on.
    pub fn device(&self) -> Option<&Arc<Pmem>> {
        match &self.kind {
            Kind::Volatile(_) | Kind::Pieces(_) | Kind::Device(_) => None,
            Kind::Persistent(range) => Some(&range.device),
        }
    }

    /// The window, which knows how its bytes are stored.
    #[inline]
    fn marked<'a>(&self, window: Window<'a>) -> Window<'a> {
        if self.uncached {
            window.around()
        } else {
            window
        }
    }

    /// Calls `f` with a window on `len` bytes from `offset`, which must be in one piece.
    pub(super) fn with<T>(
        &self,
        offset: usize,
        len: usize,
        f: impl FnOnce(Window<'_>) -> Result<T>,
    ) -> Result<T> {
        match &self.kind {
            Kind::Volatile(bytes) => f(self.marked(bytes.window().sub(offset, len)?)),
            Kind::Pieces(pieces) => pieces.with(offset, len, |window| f(self.marked(window))),
            Kind::Persistent(range) => range.with(offset, len, |window| f(self.marked(window))),
            Kind::Device(range) => range.with(offset, len, |window| f(self.marked(window))),
        }
    }

    /// Calls `f` with windows on `len` bytes from `offset`, in ascending order: each with how many
    /// bytes were before it.
    pub(super) fn each(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(usize, Window<'_>) -> Result,
    ) -> Result {
        match &self.kind {
            Kind::Pieces(pieces) => {
                pieces.each(offset, len, |before, window| f(before, self.marked(window)))
            }
            Kind::Device(range) => {
                range.each(offset, len, |before, window| f(before, self.marked(window)))
            }
            _ => self.with(offset, len, |window| f(0, window)),
        }
    }

    /// Copies the bytes from `offset` to `to`.
    ///
    /// # Errors
    /// As [`Memory::read_at`].
    pub fn read_at(&self, offset: usize, to: &mut [u8]) -> Result {
        match &self.kind {
            Kind::Pieces(_) | Kind::Device(_) => {
                self.each(offset, to.len(), |at, window| copy::read(window, at, to))
            }
            _ => self.with(offset, to.len(), |window| window.read(to)),
        }
    }

    /// Copies `from` to the bytes from `offset`. Durable only after a commit.
    ///
    /// # Errors
    /// As [`Memory::write_at`].
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result {
        match &self.kind {
            Kind::Pieces(_) | Kind::Device(_) => self.each(offset, from.len(), |at, window| {
                copy::write(window, at, from)
            }),
            _ => self.with(offset, from.len(), |window| window.write(from)),
        }
    }

    /// Calls `f` with an iterator that stores to the bytes from `offset` on: `len` of them, or the first, if they are
    /// in many pieces. Durable only after a commit.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `ENODEV`: the device is gone.
    /// - `EOPNOTSUPP`: no iterator stores as this memory wants it: a device's own, or one that is to be in no
    ///   cache. [`Exposed::write_at`] does.
    pub(crate) fn dest<R>(
        &self,
        offset: usize,
        len: usize,
        f: impl FnOnce(&mut IovIterDest<'_>) -> R,
    ) -> Result<R> {
        match &self.kind {
            Kind::Pieces(_) if self.uncached => Err(EOPNOTSUPP),
            Kind::Pieces(pieces) => pieces.with_segments(offset, len, |segments| segments.dest(f)),
            Kind::Device(_) => Err(EOPNOTSUPP),
            Kind::Volatile(_) | Kind::Persistent(_) => self.with(offset, len, |window| {
                Ok(Segment::of_window(window).ok_or(EOPNOTSUPP)?.dest(f))
            }),
        }
    }

    /// Calls `f` with an iterator that loads the bytes from `offset` on: `len` of them, or the first, if they are in
    /// many pieces.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `EOPNOTSUPP`: no iterator loads them: a device's own, or those of a medium, whose errors are to be
    ///   caught. [`Exposed::read_at`] does.
    pub(crate) fn source<R>(
        &self,
        offset: usize,
        len: usize,
        f: impl FnOnce(&mut IovIterSource<'_>) -> R,
    ) -> Result<R> {
        match &self.kind {
            Kind::Volatile(bytes) => Segment::of_window(bytes.window().sub(offset, len)?)
                .map(|segment| segment.source(f))
                .ok_or(EOPNOTSUPP),
            Kind::Pieces(pieces) => {
                pieces.with_segments(offset, len, |segments| segments.source(f))
            }
            Kind::Persistent(_) | Kind::Device(_) => Err(EOPNOTSUPP),
        }
    }

    /// Whether [`Exposed::source`] loads its bytes, which then can't fail but by bounds.
    pub(crate) fn has_source(&self) -> bool {
        matches!(self.kind, Kind::Volatile(_) | Kind::Pieces(_))
    }

    /// Loads the word at `offset` at once, in the CPU's byte order; an acquire.
    ///
    /// A peer's copy may tear it, another store of a word of that size does not.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds, not aligned to the word's size, or in two pieces.
    /// - `ENODEV`: the device is gone.
    /// - `EOPNOTSUPP`: it is in a device that is not on the memory bus.
    pub fn load<T: Word>(&self, offset: usize) -> Result<T> {
        self.with(offset, size_of::<T>(), |window| window.load(0))
    }

    /// Stores the word at `offset` at once, in the CPU's byte order; a release.
    ///
    /// # Errors
    /// As [`Exposed::load`].
    pub fn store<T: Word>(&self, offset: usize, value: T) -> Result {
        self.with(offset, size_of::<T>(), |window| window.store(0, value))
    }

    /// Loads 64 bits; see [`Exposed::load`].
    pub fn load_u64(&self, offset: usize) -> Result<u64> {
        self.load(offset)
    }

    /// Stores 64 bits; see [`Exposed::store`].
    pub fn store_u64(&self, offset: usize, value: u64) -> Result {
        self.store(offset, value)
    }

    /// Changes the word of `datatype` at `offset` at once; returns what it was. A full barrier.
    ///
    /// A peer's copy may tear it, another atomic comes before or after it.
    ///
    /// # Errors
    /// As [`Exposed::load`].
    pub(crate) fn update(
        &self,
        offset: usize,
        datatype: Datatype,
        change: impl FnMut(u64) -> u64,
    ) -> Result<u64> {
        self.with(offset, datatype.size(), |window| {
            window.update(0, datatype, change)
        })
    }

    /// Reads a number of `size` bytes, at most 8, of any alignment, in the CPU's byte order.
    ///
    /// As [`Exposed::read_at`]; `EINVAL` also for more bytes.
    pub(crate) fn number_at(&self, offset: usize, size: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read_at(offset, bytes.get_mut(low_bytes(size)?).ok_or(EINVAL)?)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Writes the low `size` bytes of a number. As [`Exposed::number_at`].
    pub(crate) fn set_number_at(&self, offset: usize, size: usize, value: u64) -> Result {
        let bytes = value.to_ne_bytes();
        self.write_at(offset, bytes.get(low_bytes(size)?).ok_or(EINVAL)?)
    }

    /// Makes `len` bytes from `offset` durable; without bytes, just flushes the device.
    ///
    /// Process context, may sleep. Any offset and length do.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `EOPNOTSUPP`: the memory is volatile, or a device's.
    /// - `ENODEV`: the device is gone, and nothing is known of the bytes.
    /// - `EIO` and others of the device: the bytes may not be durable.
    pub fn commit(&self, offset: usize, len: usize) -> Result {
        match &self.kind {
            Kind::Volatile(_) | Kind::Pieces(_) | Kind::Device(_) => Err(EOPNOTSUPP),
            Kind::Persistent(range) => {
                let offset = range.locate(offset, len)?;
                match self.uncached {
                    true => durable::commit_uncached(&range.device, offset, len),
                    false => durable::commit(&range.device, offset, len),
                }
            }
        }
    }
}

/// Where the low `size` bytes of 64 bits are in memory. `EINVAL`: there are not so many.
fn low_bytes(size: usize) -> Result<core::ops::Range<usize>> {
    let high = size_of::<u64>().checked_sub(size).ok_or(EINVAL)?;
    Ok(match cfg!(target_endian = "big") {
        true => high..size_of::<u64>(),
        false => 0..size,
    })
}

#[kunit_tests(kfabric_exposed)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn exposed_memory_refuses_what_is_out_of_bounds() -> Result {
        let memory = Memory::zeroed(64)?.expose();
        let other = Memory::zeroed(128)?.expose();
        let mut buffer = [0; 65];

        for (offset, len, inside) in BOUNDS {
            let part = &mut buffer[..len];
            assert_eq!(memory.read_at(offset, part).is_ok(), inside);
            assert_eq!(memory.write_at(offset, part).is_ok(), inside);
            assert_eq!(
                Exposed::copy(&memory, offset, &other, 0, len).is_ok(),
                inside
            );
            assert_eq!(
                Exposed::copy(&other, 0, &memory, offset, len).is_ok(),
                inside
            );
            if !inside {
                assert!(refused(
                    Exposed::copy(&memory, offset, &other, 0, len),
                    EINVAL
                ));
                assert!(refused(
                    Exposed::copy(&other, 0, &memory, offset, len),
                    EINVAL
                ));
            }
        }
        assert!(refused(Exposed::copy(&memory, 1, &other, 1, MAX), EINVAL));
        Ok(())
    }

    #[test]
    fn a_write_changes_its_bytes_and_no_other() -> Result {
        for (offset, len) in [(0, 1), (0, 64), (1, 7), (13, 21), (63, 1), (64, 0)] {
            let memory = counting(64)?.expose();
            memory.write_at(offset, &[0xee; 64][..len])?;

            let memory = memory.into_memory();
            for (i, byte) in memory.as_slice().ok_or(EINVAL)?.iter().enumerate() {
                let written = (offset..offset + len).contains(&i);
                assert_eq!(*byte, if written { 0xee } else { i as u8 });
            }
        }
        Ok(())
    }

    #[test]
    fn words_are_aligned_and_inside_or_refused() -> Result {
        fn check<T: Word + PartialEq>(value: T, bytes: &[u8]) -> Result {
            let size = size_of::<T>();
            let memory = Memory::zeroed(64)?.expose();

            for offset in 0..70 {
                let good = offset % size == 0 && offset + size <= 64;
                assert_eq!(memory.store(offset, value).is_ok(), good);
                assert_eq!(memory.load::<T>(offset).is_ok(), good);
                if good {
                    let mut seen = [0; 8];
                    memory.read_at(offset, &mut seen[..size])?;
                    assert_eq!(&seen[..size], bytes);
                    assert!(memory.load::<T>(offset)? == value);
                }
            }
            assert!(refused(memory.load::<T>(MAX - size + 1), EINVAL));
            assert!(refused(memory.store(MAX - size + 1, value), EINVAL));
            Ok(())
        }

        check(0xf1u8, &0xf1u8.to_ne_bytes())?;
        check(0xf1e2u16, &0xf1e2u16.to_ne_bytes())?;
        check(0xf1e2_d3c4u32, &0xf1e2_d3c4u32.to_ne_bytes())?;
        check(
            0xf1e2_d3c4_b5a6_9788u64,
            &0xf1e2_d3c4_b5a6_9788u64.to_ne_bytes(),
        )
    }

    #[test]
    fn numbers_are_words_of_the_cpu_at_any_place() -> Result {
        const VALUE: u64 = 0xf1e2_d3c4_b5a6_9788;
        let words: [&[u8]; 4] = [
            &(VALUE as u8).to_ne_bytes(),
            &(VALUE as u16).to_ne_bytes(),
            &(VALUE as u32).to_ne_bytes(),
            &VALUE.to_ne_bytes(),
        ];
        for bytes in words {
            let (memory, size) = (Memory::zeroed(64)?.expose(), bytes.len());
            for offset in [0, 3, 64 - size] {
                memory.set_number_at(offset, size, VALUE)?;
                let mut seen = [0; 8];
                memory.read_at(offset, &mut seen[..size])?;
                assert_eq!(&seen[..size], bytes);
                assert_eq!(
                    memory.number_at(offset, size)?,
                    VALUE & u64::MAX >> (64 - 8 * size)
                );
            }
            assert!(refused(memory.number_at(65 - size, size), EINVAL));
            assert!(refused(memory.set_number_at(65 - size, size, 0), EINVAL));
        }
        let memory = Memory::zeroed(64)?.expose();
        assert!(refused(memory.number_at(0, 9), EINVAL));
        assert!(refused(memory.set_number_at(0, 9, 0), EINVAL));
        // An atomic of peers sees the number that its owner stored.
        memory.store(8, 0xf1e2u16)?;
        assert_eq!(memory.number_at(8, 2)?, 0xf1e2);
        Ok(())
    }

    #[test]
    fn a_commit_of_volatile_memory_is_refused() -> Result {
        let memory = Memory::zeroed(64)?.expose();

        assert!(memory.device().is_none());
        for (offset, len) in [(0, 0), (0, 64), (64, 1)] {
            assert!(refused(memory.commit(offset, len), EOPNOTSUPP));
        }
        Ok(())
    }

    #[test]
    fn memory_of_any_kind_goes_where_nobody_may_sleep() -> Result {
        use crate::memory::{BioVec, Folio, ScatterList};
        use kernel::page::PAGE_SIZE;
        use kernel::sync::rcu;

        // Longer than kmalloc() has.
        const LONG: usize = 8 << 20;
        let (mut parts, mut folios) = (KVec::new(), KVVec::with_capacity(LONG / 8, GFP_KERNEL)?);
        for _ in 0..2 {
            parts.push(
                BioVec {
                    folio: Folio::zeroed(1)?,
                    offset: 0,
                    len: 100,
                },
                GFP_KERNEL,
            )?;
            folios.push(Folio::zeroed(0)?, GFP_KERNEL)?;
        }
        let mut vecs = KVec::new();
        for len in [1, LONG, 0] {
            vecs.push(KVVec::zeroed(len, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let list = ScatterList::new(folios, 0, 2 * PAGE_SIZE, u32::MAX);
        let list = list.map_err(|(error, _)| error)?;
        for memory in [
            Memory::zeroed(LONG)?,
            Memory::zeroed(1)?,
            Memory::from_vecs(vecs).map_err(|(error, _)| error)?,
            Memory::from_bio_vecs(parts).map_err(|(error, _)| error)?,
            Memory::from_scatterlist(list).map_err(|(error, _)| error)?,
        ] {
            let memory = memory.expose();
            // As a post that ends the last operation on it.
            let section = rcu::read_lock();
            drop(memory);
            drop(section);
        }
        Ok(())
    }

    #[test]
    fn pieces_refuse_what_is_out_of_bounds() -> Result {
        let mut owned = in_pieces(&[0, 1, 0, 30, 33, 0])?;
        let mut buffer = [0; 65];
        for (offset, len, inside) in BOUNDS {
            let part = &mut buffer[..len];
            assert_eq!(owned.read_at(offset, part).is_ok(), inside);
            assert_eq!(owned.write_at(offset, part).is_ok(), inside);
        }
        let (memory, other) = (owned.expose(), Memory::zeroed(128)?.expose());
        for (offset, len, inside) in BOUNDS {
            let part = &mut buffer[..len];
            assert_eq!(memory.read_at(offset, part).is_ok(), inside);
            assert_eq!(memory.write_at(offset, part).is_ok(), inside);
            let copied = [
                Exposed::copy(&memory, offset, &other, 0, len),
                Exposed::copy(&other, 0, &memory, offset, len),
                Exposed::copy(&memory, offset, &memory, 0, len),
            ];
            assert!(copied.iter().all(|copied| copied.is_ok() == inside));
        }
        assert!(refused(Exposed::copy(&memory, 1, &other, 1, MAX), EINVAL));
        Ok(())
    }

    #[test]
    fn words_in_two_pieces_are_refused() -> Result {
        let memory = in_pieces(&[16, 4, 12])?.expose();
        for (offset, good) in [(0, true), (8, true), (16, false), (24, false)] {
            assert_eq!(memory.load_u64(offset).is_ok(), good);
            assert_eq!(memory.store_u64(offset, 1).is_ok(), good);
        }
        Ok(())
    }
}
