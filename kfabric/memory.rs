// SPDX-License-Identifier: GPL-2.0

//! Memory: what a consumer hands to an operation or registers, and gets back.
//!
//! A [`Memory`] belongs to the consumer alone, and reads as a slice where it is volatile. Handed to
//! the fabric it becomes an [`Exposed`], which peers and operations write to at any moment: from
//! then on its bytes are copied, or loaded and stored as words, and no slice of them exists until
//! the fabric gives it back.

#![deny(unsafe_code)]

use crate::{
    durable,
    proto::atomic::Datatype,
    sys::{
        copy::{SharedBytes, Window, Word},
        pieces::{self, Pieces},
        pmem::Pmem,
    },
};
use core::mem::size_of;
use kernel::{prelude::*, sync::Arc};

pub use crate::sys::pieces::{BioVec, ScatterList};

/// Memory that its owner alone touches; `'static`, so it can be moved into an operation.
///
/// It is volatile, in one piece or in several, or a range of a persistent device. Persistent ranges may overlap: their bytes are
/// then shared, as those of a file that is opened twice.
///
/// Dropping it frees volatile memory, which `kvfree()` does in an interrupt or where the caller may
/// sleep, and not under a spinlock.
pub struct Memory(Kind<KVVec<u8>>);

/// Memory in the fabric's hands: anybody may write to it at any moment.
///
/// All methods but [`Exposed::commit`] may be called in any context, from any number of tasks at
/// once. Bytes that somebody writes at the same time arrive old or new.
pub struct Exposed(Kind<SharedBytes>);

enum Kind<V> {
    Volatile(V),
    Pieces(KBox<Pieces>),
    Persistent(Range),
}

/// A range of a persistent device.
///
/// # Invariants
///
/// `offset + len` does not overflow, and is at most the length of `device`.
struct Range {
    device: Arc<Pmem>,
    offset: usize,
    len: usize,
}

impl Range {
    /// Returns where `len` bytes from `offset` of the range are on the device.
    fn locate(&self, offset: usize, len: usize) -> Result<usize> {
        if offset.checked_add(len).ok_or(EINVAL)? > self.len {
            return Err(EINVAL);
        }
        Ok(self.offset + offset)
    }

    /// Calls `f` with a window on `len` bytes from `offset` of the range.
    fn with<T>(
        &self,
        offset: usize,
        len: usize,
        f: impl FnOnce(Window<'_>) -> Result<T>,
    ) -> Result<T> {
        let offset = self.locate(offset, len)?;
        let access = self.device.access()?;

        f(access.window().sub(offset, len)?)
    }
}

impl Memory {
    /// The most pieces of one memory. Source: iov_limit of fi_endpoint(3).
    pub const MAX_SEGMENTS: usize = pieces::MAX;

    /// Allocates `len` volatile bytes of value 0.
    ///
    /// May sleep. No bytes is a length as any other; at most 2 GiB - 1 are to be had in one piece.
    ///
    /// # Errors
    /// - `ENOMEM`: out of memory.
    pub fn zeroed(len: usize) -> Result<Memory> {
        Ok(Memory::from_vec(KVVec::zeroed(
            len,
            GFP_KERNEL | __GFP_NOWARN,
        )?))
    }

    /// Takes the bytes of `vec`, as they are.
    pub fn from_vec(vec: KVVec<u8>) -> Memory {
        Memory(Kind::Volatile(vec))
    }

    /// Gives memory of one vector back; any other comes back in `Err`.
    pub fn into_vec(self) -> Result<KVVec<u8>, Memory> {
        match self.0 {
            Kind::Volatile(vec) => Ok(vec),
            kind => Err(Memory(kind)),
        }
    }

    /// Takes the bytes of several vectors, one after another; any of them may be empty.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// The vectors come back with
    /// - `EINVAL`: more than [`Memory::MAX_SEGMENTS`].
    /// - `ENOMEM`.
    ///
    /// Source: `struct kvec`; fi_msg(3), fi_rma(3): vectors of buffers.
    pub fn from_vecs(vecs: KVec<KVVec<u8>>) -> Result<Memory, (Error, KVec<KVVec<u8>>)> {
        Ok(Memory(Kind::Pieces(Pieces::new(vecs)?)))
    }

    /// Gives memory of several vectors back; any other comes back in `Err`.
    pub fn into_vecs(self) -> Result<KVec<KVVec<u8>>, Memory> {
        self.into_origin()
    }

    /// Takes parts of pages, one after another; any of them may be empty.
    ///
    /// As [`Memory::from_vecs`].
    ///
    /// # Errors
    /// - `EINVAL`: also if some bytes are not in their page.
    pub fn from_pages(pages: KVec<BioVec>) -> Result<Memory, (Error, KVec<BioVec>)> {
        Ok(Memory(Kind::Pieces(Pieces::new(pages)?)))
    }

    /// Gives memory of parts of pages back; any other comes back in `Err`.
    pub fn into_pages(self) -> Result<KVec<BioVec>, Memory> {
        self.into_origin()
    }

    /// Takes the bytes of a scatterlist. As [`Memory::from_vecs`]; a segment is an entry.
    pub fn from_scatterlist(list: ScatterList) -> Result<Memory, (Error, ScatterList)> {
        Ok(Memory(Kind::Pieces(Pieces::new(list)?)))
    }

    /// Gives memory of a scatterlist back; any other comes back in `Err`.
    pub fn into_scatterlist(self) -> Result<ScatterList, Memory> {
        self.into_origin()
    }

    fn into_origin<O: pieces::Origin>(self) -> Result<O, Memory> {
        match self.0 {
            Kind::Pieces(pieces) => {
                Pieces::into_origin(pieces).map_err(|pieces| Memory(Kind::Pieces(pieces)))
            }
            kind => Err(Memory(kind)),
        }
    }

    /// Takes `len` bytes from `offset` of a persistent device.
    ///
    /// Any offset and length do: nothing has to be aligned. Touches no byte.
    ///
    /// # Errors
    /// - `EINVAL`: no bytes, or some beyond the end of the device.
    /// - `ENODEV`: the device is gone.
    pub fn persistent(device: &Arc<Pmem>, offset: u64, len: usize) -> Result<Memory> {
        if len == 0 || offset.checked_add(len as u64).ok_or(EINVAL)? > device.len() {
            return Err(EINVAL);
        }
        if device.is_gone() {
            return Err(ENODEV);
        }
        // INVARIANT: Just checked; the length of a device that is mapped fits a usize.
        Ok(Memory(Kind::Persistent(Range {
            device: device.clone(),
            offset: offset as usize,
            len,
        })))
    }

    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Volatile(vec) => vec.len(),
            Kind::Pieces(pieces) => pieces.len(),
            Kind::Persistent(range) => range.len,
        }
    }

    /// Returns whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether it is persistent.
    pub fn is_persistent(&self) -> bool {
        matches!(self.0, Kind::Persistent(_))
    }

    /// Whether no word of `size` bytes at a multiple of `size` is misaligned, or in two pieces.
    ///
    /// On a device, whose pages are aligned, its offset counts.
    pub(crate) fn is_aligned(&self, size: usize) -> bool {
        match &self.0 {
            Kind::Volatile(vec) => vec.as_ptr().addr() % size == 0,
            Kind::Pieces(pieces) => pieces.are_aligned(size),
            Kind::Persistent(range) => range.offset % size == 0,
        }
    }

    /// Returns the bytes of volatile memory in one piece; `None` for memory in several, and for
    /// persistent memory, which may vanish.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Volatile(vec) => Some(vec),
            Kind::Pieces(_) | Kind::Persistent(_) => None,
        }
    }

    /// As [`Memory::as_slice`], to write.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        match &mut self.0 {
            Kind::Volatile(vec) => Some(vec),
            Kind::Pieces(_) | Kind::Persistent(_) => None,
        }
    }

    /// Copies the bytes from `offset` to `to`; any context.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `ENODEV`: the persistent device is gone.
    /// - `EIO`: the persistent device has a medium error there; `to` may be written in part.
    pub fn read_at(&self, offset: usize, to: &mut [u8]) -> Result {
        match &self.0 {
            Kind::Volatile(vec) => {
                let end = offset.checked_add(to.len()).ok_or(EINVAL)?;
                to.copy_from_slice(vec.get(offset..end).ok_or(EINVAL)?);
                Ok(())
            }
            Kind::Pieces(pieces) => read(pieces, offset, to),
            Kind::Persistent(range) => range.with(offset, to.len(), |window| window.read(to)),
        }
    }

    /// Copies `from` to the bytes from `offset`; any context. Durable only after a commit.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `ENODEV`: the persistent device is gone.
    pub fn write_at(&mut self, offset: usize, from: &[u8]) -> Result {
        match &mut self.0 {
            Kind::Volatile(vec) => {
                let end = offset.checked_add(from.len()).ok_or(EINVAL)?;
                vec.get_mut(offset..end)
                    .ok_or(EINVAL)?
                    .copy_from_slice(from);
                Ok(())
            }
            Kind::Pieces(pieces) => write(pieces, offset, from),
            Kind::Persistent(range) => range.with(offset, from.len(), |window| window.write(from)),
        }
    }

    /// Puts the memory into the fabric's hands.
    pub(crate) fn expose(self) -> Exposed {
        Exposed(match self.0 {
            Kind::Volatile(vec) => Kind::Volatile(SharedBytes::new(vec)),
            Kind::Pieces(pieces) => Kind::Pieces(pieces),
            Kind::Persistent(range) => Kind::Persistent(range),
        })
    }
}

impl Exposed {
    /// Gives the memory back to its owner, whom nobody disturbs any more.
    ///
    /// Devices must have stopped writing to it before.
    pub(crate) fn into_memory(self) -> Memory {
        Memory(match self.0 {
            Kind::Volatile(bytes) => Kind::Volatile(bytes.into_vec()),
            Kind::Pieces(pieces) => Kind::Pieces(pieces),
            Kind::Persistent(range) => Kind::Persistent(range),
        })
    }

    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Volatile(bytes) => bytes.len(),
            Kind::Pieces(pieces) => pieces.len(),
            Kind::Persistent(range) => range.len,
        }
    }

    /// Returns whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether it is persistent.
    pub fn is_persistent(&self) -> bool {
        matches!(self.0, Kind::Persistent(_))
    }

    /// Returns the device that persistent memory is on.
    pub fn device(&self) -> Option<&Arc<Pmem>> {
        match &self.0 {
            Kind::Volatile(_) | Kind::Pieces(_) => None,
            Kind::Persistent(range) => Some(&range.device),
        }
    }

    /// Calls `f` with a window on `len` bytes from `offset`, which must be in one piece.
    fn with<T>(
        &self,
        offset: usize,
        len: usize,
        f: impl FnOnce(Window<'_>) -> Result<T>,
    ) -> Result<T> {
        match &self.0 {
            Kind::Volatile(bytes) => f(bytes.window().sub(offset, len)?),
            Kind::Pieces(pieces) => pieces.with(offset, len, f),
            Kind::Persistent(range) => range.with(offset, len, f),
        }
    }

    /// Calls `f` with windows on `len` bytes from `offset`, in ascending order: each with how many
    /// bytes were before it.
    fn each(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(usize, Window<'_>) -> Result,
    ) -> Result {
        match &self.0 {
            Kind::Pieces(pieces) => pieces.each(offset, len, f),
            _ => self.with(offset, len, |window| f(0, window)),
        }
    }

    /// Copies the bytes from `offset` to `to`.
    ///
    /// # Errors
    /// As [`Memory::read_at`].
    pub fn read_at(&self, offset: usize, to: &mut [u8]) -> Result {
        match &self.0 {
            Kind::Pieces(pieces) => read(pieces, offset, to),
            _ => self.with(offset, to.len(), |window| window.read(to)),
        }
    }

    /// Copies `from` to the bytes from `offset`. Durable only after a commit.
    ///
    /// # Errors
    /// As [`Memory::write_at`].
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result {
        match &self.0 {
            Kind::Pieces(pieces) => write(pieces, offset, from),
            _ => self.with(offset, from.len(), |window| window.write(from)),
        }
    }

    /// Loads the word at `offset` at once, in the CPU's byte order; an acquire.
    ///
    /// A peer's copy may tear it, another store of a word of that size does not.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds, not aligned to the word's size, or in two pieces.
    /// - `ENODEV`: the persistent device is gone.
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

    /// Reads a number of `size` bytes, at most 8, of any alignment. As [`Exposed::read_at`].
    pub(crate) fn number_at(&self, offset: usize, size: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read_at(offset, bytes.get_mut(..size).ok_or(EINVAL)?)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a number of `size` bytes. As [`Exposed::number_at`].
    pub(crate) fn set_number_at(&self, offset: usize, size: usize, value: u64) -> Result {
        let bytes = value.to_le_bytes();
        self.write_at(offset, bytes.get(..size).ok_or(EINVAL)?)
    }

    /// Copies `len` bytes from `src_offset` of `src` to `dst_offset` of `dst`, which may overlap.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds on either side; nothing is copied.
    /// - `ENODEV`: the persistent device of either side is gone; nothing is copied.
    /// - `EIO`: the device of `src` has a medium error there; some bytes may be copied.
    #[inline]
    pub fn copy(
        dst: &Exposed,
        dst_offset: usize,
        src: &Exposed,
        src_offset: usize,
        len: usize,
    ) -> Result {
        match (&dst.0, &src.0) {
            (Kind::Volatile(to), Kind::Volatile(from)) => Window::copy(
                to.window().sub(dst_offset, len)?,
                from.window().sub(src_offset, len)?,
            ),
            _ => Self::copy_any(dst, dst_offset, src, src_offset, len),
        }
    }

    /// As [`Exposed::copy`], between memories of any kind.
    #[inline(never)]
    fn copy_any(
        dst: &Exposed,
        dst_offset: usize,
        src: &Exposed,
        src_offset: usize,
        len: usize,
    ) -> Result {
        match (&dst.0, &src.0) {
            (Kind::Pieces(_), _) | (_, Kind::Pieces(_)) => {
                Self::copy_pieces(dst, dst_offset, src, src_offset, len)
            }
            _ => dst.with(dst_offset, len, |to| {
                src.with(src_offset, len, |from| Window::copy(to, from))
            }),
        }
    }

    /// As [`Exposed::copy`], where one side at least is in pieces.
    // Not inlined into the path of memory in one piece.
    #[inline(never)]
    fn copy_pieces(
        dst: &Exposed,
        dst_offset: usize,
        src: &Exposed,
        src_offset: usize,
        len: usize,
    ) -> Result {
        for (memory, offset) in [(dst, dst_offset), (src, src_offset)] {
            if offset.checked_add(len).is_none_or(|end| end > memory.len()) {
                return Err(EINVAL);
            }
        }
        // Towards the end of the same memory, the last bytes first, by no more than they move: so
        // none is overwritten before it was copied. No other memory in pieces has them in common.
        let step = match dst_offset.checked_sub(src_offset) {
            Some(step) if step > 0 && core::ptr::eq(dst, src) => step,
            _ => len,
        };
        let mut left = len;
        loop {
            let part = left.min(step);
            left -= part;
            let (to, from) = (dst_offset + left, src_offset + left);
            Self::copy_ascending(dst, to, src, from, part)?;
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// Copies piece by piece. Persistent memory is accessed once, so that it does not go meanwhile.
    fn copy_ascending(
        dst: &Exposed,
        dst_offset: usize,
        src: &Exposed,
        src_offset: usize,
        len: usize,
    ) -> Result {
        if src.is_persistent() {
            src.each(src_offset, len, |before, from| {
                dst.each(dst_offset + before, from.len(), |at, to| {
                    Window::copy(to, from.sub(at, to.len())?)
                })
            })
        } else {
            dst.each(dst_offset, len, |before, to| {
                src.each(src_offset + before, to.len(), |at, from| {
                    Window::copy(to.sub(at, from.len())?, from)
                })
            })
        }
    }

    /// Makes `len` bytes from `offset` durable; without bytes, just flushes the device.
    ///
    /// Process context, may sleep. Any offset and length do.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `EOPNOTSUPP`: the memory is volatile.
    /// - `ENODEV`: the device is gone, and nothing is known of the bytes.
    /// - `EIO` and others of the device: the bytes may not be durable.
    pub fn commit(&self, offset: usize, len: usize) -> Result {
        match &self.0 {
            Kind::Volatile(_) | Kind::Pieces(_) => Err(EOPNOTSUPP),
            Kind::Persistent(range) => {
                durable::commit(&range.device, range.locate(offset, len)?, len)
            }
        }
    }
}

/// Copies bytes out of pieces.
fn read(pieces: &Pieces, offset: usize, to: &mut [u8]) -> Result {
    pieces.each(offset, to.len(), |at, window| {
        let end = at + window.len();
        window.read(to.get_mut(at..end).ok_or(EINVAL)?)
    })
}

/// Copies bytes into pieces.
fn write(pieces: &Pieces, offset: usize, from: &[u8]) -> Result {
    pieces.each(offset, from.len(), |at, window| {
        let end = at + window.len();
        window.write(from.get(at..end).ok_or(EINVAL)?)
    })
}

#[kunit_tests(kfabric_memory)]
mod tests {
    use super::*;

    const MAX: usize = usize::MAX;

    /// Offsets and lengths against 64 bytes, and whether they are inside.
    const BOUNDS: [(usize, usize, bool); 12] = [
        (0, 0, true),
        (0, 64, true),
        (0, 65, false),
        (1, 63, true),
        (1, 64, false),
        (63, 1, true),
        (63, 2, false),
        (64, 0, true),
        (64, 1, false),
        (65, 0, false),
        (MAX, 0, false),
        (MAX, 2, false),
    ];

    fn counting(len: usize) -> Result<Memory> {
        let mut vec = KVVec::with_capacity(len, GFP_KERNEL)?;
        for i in 0..len {
            vec.push(i as u8, GFP_KERNEL)?;
        }
        Ok(Memory::from_vec(vec))
    }

    fn refused<T>(result: Result<T>, error: Error) -> bool {
        matches!(result, Err(e) if e == error)
    }

    #[test]
    fn zeroed_memory_is_zero_and_as_long_as_asked() -> Result {
        for len in [0, 1, 7, 4096, 4097, 1 << 20] {
            let memory = Memory::zeroed(len)?;
            assert_eq!(memory.len(), len);
            assert_eq!(memory.is_empty(), len == 0);
            assert!(!memory.is_persistent());
            assert!(memory.as_slice().ok_or(EINVAL)?.iter().all(|b| *b == 0));
        }
        Ok(())
    }

    #[test]
    fn more_memory_than_one_piece_can_be_is_enomem() {
        assert!(refused(Memory::zeroed(1 << 31), ENOMEM));
        assert!(refused(Memory::zeroed(MAX), ENOMEM));
    }

    #[test]
    fn a_vector_comes_back_as_it_went() -> Result {
        let memory = counting(100)?.expose().into_memory();
        let vec = memory.into_vec().map_err(|_| EINVAL)?;
        assert_eq!(vec.len(), 100);
        assert!(vec.iter().enumerate().all(|(i, b)| *b == i as u8));

        let empty = Memory::zeroed(0)?.expose().into_memory();
        assert!(empty.is_empty());
        Ok(())
    }

    #[test]
    fn owned_memory_refuses_what_is_out_of_bounds() -> Result {
        let mut memory = Memory::zeroed(64)?;
        let mut buffer = [0; 65];

        for (offset, len, inside) in BOUNDS {
            let part = &mut buffer[..len];
            assert_eq!(memory.read_at(offset, part).is_ok(), inside);
            assert_eq!(memory.write_at(offset, part).is_ok(), inside);
            if !inside {
                assert!(refused(memory.read_at(offset, part), EINVAL));
                assert!(refused(memory.write_at(offset, part), EINVAL));
            }
        }
        Ok(())
    }

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
    fn a_copy_may_overlap_either_way() -> Result {
        for (to, from, len) in [(0, 1, 63), (1, 0, 63), (8, 0, 56), (0, 8, 56), (5, 5, 20)] {
            let memory = counting(64)?.expose();
            Exposed::copy(&memory, to, &memory, from, len)?;

            let mut copied = [0; 64];
            memory.read_at(to, &mut copied[..len])?;
            for (i, byte) in copied[..len].iter().enumerate() {
                assert_eq!(*byte, (from + i) as u8);
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
    fn a_commit_of_volatile_memory_is_refused() -> Result {
        let memory = Memory::zeroed(64)?.expose();

        assert!(memory.device().is_none());
        for (offset, len) in [(0, 0), (0, 64), (64, 1)] {
            assert!(refused(memory.commit(offset, len), EOPNOTSUPP));
        }
        Ok(())
    }

    /// Vectors of these lengths, whose bytes count through.
    fn vecs(lens: &[usize]) -> Result<KVec<KVVec<u8>>> {
        let (mut vecs, mut next) = (KVec::new(), 0usize);
        for len in lens {
            let mut vec = KVVec::with_capacity(*len, GFP_KERNEL)?;
            for _ in 0..*len {
                vec.push(next as u8, GFP_KERNEL)?;
                next += 1;
            }
            vecs.push(vec, GFP_KERNEL)?;
        }
        Ok(vecs)
    }

    fn in_pieces(lens: &[usize]) -> Result<Memory> {
        Memory::from_vecs(vecs(lens)?).map_err(|(error, _)| error)
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
    fn copies_between_random_pieces_are_those_of_flat_memory() -> Result {
        use crate::proto::rng::Rng;
        let seed = crate::sys::random::u64();
        pr_info!("# seed {seed}\n");
        let mut rng = Rng::new(seed);
        let mut seen = [
            KVVec::zeroed(900, GFP_KERNEL)?,
            KVVec::<u8>::zeroed(900, GFP_KERNEL)?,
        ];
        for _ in 0..200 {
            let mut lens = || {
                let mut lens = [0; 9];
                for len in &mut lens {
                    *len = [0, 1, 2, 7, 8, 100][rng.below(6) as usize];
                }
                lens
            };
            let (a, b) = (in_pieces(&lens())?.expose(), in_pieces(&lens())?.expose());
            let flat = Memory::zeroed(b.len())?.expose();
            let most = a.len().min(b.len());
            let len = rng.below(most as u64 + 1) as usize;
            let from = rng.below((a.len() - len) as u64 + 1) as usize;
            let to = rng.below((b.len() - len) as u64 + 1) as usize;
            // In pieces on both sides, on one, on the other; and the same with bytes beside.
            Exposed::copy(&flat, 0, &b, 0, b.len())?;
            Exposed::copy(&flat, to, &a, from, len)?;
            Exposed::copy(&b, to, &a, from, len)?;
            flat.read_at(0, &mut seen[0][..b.len()])?;
            b.read_at(0, &mut seen[1][..b.len()])?;
            assert!(seen[0][..b.len()] == seen[1][..b.len()]);
            for (i, byte) in seen[1][to..to + len].iter().enumerate() {
                assert!(*byte == (from + i) as u8);
            }
            // Onto itself.
            let to = rng.below((a.len() - len) as u64 + 1) as usize;
            Exposed::copy(&a, to, &a, from, len)?;
            a.read_at(to, &mut seen[0][..len])?;
            for (i, byte) in seen[0][..len].iter().enumerate() {
                assert!(*byte == (from + i) as u8);
            }
        }
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

    #[test]
    fn pieces_are_aligned_if_each_of_them_is() -> Result {
        for (lens, aligned) in [
            (&[8, 16, 8][..], true),
            (&[8, 0, 8], true),
            (&[8, 4, 8], false),
            (&[8, 8, 4], false),
            (&[1], false),
            (&[], true),
        ] {
            assert_eq!(in_pieces(lens)?.is_aligned(8), aligned);
        }
        let page = || kernel::page::Page::alloc_page(GFP_KERNEL | __GFP_ZERO);
        for (offset, len, aligned) in [(8, 8, true), (4, 8, false), (8, 12, false)] {
            let mut pages = KVec::new();
            let page = page()?;
            pages.push(BioVec { page, offset, len }, GFP_KERNEL)?;
            let memory = Memory::from_pages(pages).map_err(|(error, _)| error)?;
            assert_eq!(memory.is_aligned(8), aligned);
        }
        Ok(())
    }

    #[test]
    fn memory_in_pieces_has_a_most_of_them_and_comes_back() -> Result {
        for (count, good) in [(0, true), (1, true), (256, true), (257, false)] {
            let made = Memory::from_vecs(vecs(&[1; 257][..count])?);
            let vecs = match made {
                Ok(memory) => {
                    assert!(good && memory.len() == count && memory.as_slice().is_none());
                    let memory = memory.expose().into_memory();
                    memory.into_vecs().map_err(|_| EINVAL)?
                }
                Err((error, vecs)) => {
                    assert!(!good && error == EINVAL);
                    vecs
                }
            };
            assert_eq!(vecs.len(), count);
            for (i, vec) in vecs.iter().enumerate() {
                assert_eq!(**vec, [i as u8]);
            }
        }
        let Err(memory) = in_pieces(&[3, 4])?.into_vec() else {
            return Err(EINVAL);
        };
        assert!(memory.into_pages().is_err_and(|memory| memory.len() == 7));
        Ok(())
    }

    #[test]
    fn part_of_a_page_lies_in_it() -> Result {
        const PAGE: usize = kernel::page::PAGE_SIZE;
        for (offset, len, good) in [
            (0, PAGE, true),
            (0, PAGE + 1, false),
            (1, PAGE, false),
            (PAGE, 0, true),
            (PAGE, 1, false),
            (PAGE + 1, 0, false),
            (1, MAX, false),
        ] {
            let page = kernel::page::Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?;
            let mut pages = KVec::new();
            pages.push(BioVec { page, offset, len }, GFP_KERNEL)?;
            match Memory::from_pages(pages) {
                Ok(memory) => assert!(good && memory.len() == len),
                Err((error, pages)) => assert!(!good && error == EINVAL && pages.len() == 1),
            }
        }
        Ok(())
    }
}
