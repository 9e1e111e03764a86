// SPDX-License-Identifier: GPL-2.0

//! Memory: what a consumer hands to an operation or registers, and gets back.
//!
//! A [`Memory`] belongs to the consumer alone, and reads as a slice where it is volatile. Handed to
//! the fabric it becomes an [`Exposed`], which peers and operations write to at any moment: from
//! then on its bytes are copied, or loaded and stored as words, and no slice of them exists until
//! the fabric gives it back.
//!
//! | file | noun |
//! |---|---|
//! | `exposed` | memory in the fabric's hands |
//! | `copy` | copies between two of them, out of pieces and into them |
//! | `range` | a range of a device, of one of the two kinds: |
//! | `persistent` | on a persistent device |
//! | `device` | in a device that is not on the memory bus |

#![deny(unsafe_code)]

use crate::sys::{
    bar::DeviceMemory,
    copy::SharedBytes,
    pieces::{self, Pieces},
    pmem::Pmem,
};
use kernel::{prelude::*, sync::Arc};
use range::Range;

mod copy;
mod device;
mod exposed;
mod persistent;
mod range;
#[cfg(CONFIG_KUNIT = "y")]
mod testing;

pub use crate::sys::folio::Folio;
pub use crate::sys::pieces::{BioVec, ScatterList};
pub use exposed::Exposed;

/// Memory that its owner alone touches; `'static`, so it can be moved into an operation.
///
/// It is volatile, in one piece or in several, or a range of a persistent device, or of a device's own
/// memory. Ranges may overlap: their bytes are then shared, as those of a file that is opened twice.
///
/// Dropping it frees volatile memory, which for one vector `kvfree()` does: in an interrupt or where
/// the caller may sleep, and not under a spinlock. What the fabric holds of it goes anywhere.
pub struct Memory(Kind<KVVec<u8>>);

/// What memory is made of; `V` holds volatile bytes in one piece.
enum Kind<V> {
    Volatile(V),
    Pieces(KBox<Pieces>),
    Persistent(Range<Pmem>),
    Device(Range<DeviceMemory>),
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

    /// Takes parts of folios, one after another; any of them may be empty.
    ///
    /// As [`Memory::from_vecs`].
    ///
    /// # Errors
    /// - `EINVAL`: also if some bytes are not in their folio.
    pub fn from_bio_vecs(parts: KVec<BioVec>) -> Result<Memory, (Error, KVec<BioVec>)> {
        Ok(Memory(Kind::Pieces(Pieces::new(parts)?)))
    }

    /// Gives memory of parts of folios back; any other comes back in `Err`.
    pub fn into_bio_vecs(self) -> Result<KVec<BioVec>, Memory> {
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
        let range = Range::new(device, device.len(), offset, len)?;
        if device.is_gone() {
            return Err(ENODEV);
        }
        Ok(Memory(Kind::Persistent(range)))
    }

    /// Takes `len` bytes from `offset` of a device's own memory: of a BAR that its driver lends.
    ///
    /// Any offset and length do. Nothing in it is done at once, and none of it is durable: words,
    /// atomics and commits are refused with `EOPNOTSUPP`.
    ///
    /// # Errors
    /// - `EINVAL`: no bytes, or some beyond the end.
    /// - `ENODEV`: the device is gone.
    ///
    /// Source: FI_HMEM of fi_getinfo(3).
    pub fn device(device: &Arc<DeviceMemory>, offset: u64, len: usize) -> Result<Memory> {
        let range = Range::new(device, device.len(), offset, len)?;
        if device.is_gone() {
            return Err(ENODEV);
        }
        Ok(Memory(Kind::Device(range)))
    }

    /// Returns whether it is a device's own memory.
    pub fn is_device(&self) -> bool {
        matches!(self.0, Kind::Device(_))
    }

    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Volatile(vec) => vec.len(),
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
            Kind::Device(range) => range.offset % size == 0,
        }
    }

    /// Returns the bytes of volatile memory in one piece; `None` for memory in several, and for
    /// that of a device, which may vanish.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Volatile(vec) => Some(vec),
            Kind::Pieces(_) | Kind::Persistent(_) | Kind::Device(_) => None,
        }
    }

    /// As [`Memory::as_slice`], to write.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        match &mut self.0 {
            Kind::Volatile(vec) => Some(vec),
            Kind::Pieces(_) | Kind::Persistent(_) | Kind::Device(_) => None,
        }
    }

    /// Copies the bytes from `offset` to `to`; any context.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `ENODEV`: the device is gone.
    /// - `EIO`: the persistent device has a medium error there; `to` may be written in part.
    pub fn read_at(&self, offset: usize, to: &mut [u8]) -> Result {
        match &self.0 {
            Kind::Volatile(vec) => {
                let end = offset.checked_add(to.len()).ok_or(EINVAL)?;
                to.copy_from_slice(vec.get(offset..end).ok_or(EINVAL)?);
                Ok(())
            }
            Kind::Pieces(pieces) => {
                pieces.each(offset, to.len(), |at, window| copy::read(window, at, to))
            }
            Kind::Persistent(range) => range.with(offset, to.len(), |window| window.read(to)),
            Kind::Device(range) => {
                range.each(offset, to.len(), |at, window| copy::read(window, at, to))
            }
        }
    }

    /// Copies `from` to the bytes from `offset`; any context. Durable only after a commit.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `ENODEV`: the device is gone.
    pub fn write_at(&mut self, offset: usize, from: &[u8]) -> Result {
        match &mut self.0 {
            Kind::Volatile(vec) => {
                let end = offset.checked_add(from.len()).ok_or(EINVAL)?;
                vec.get_mut(offset..end)
                    .ok_or(EINVAL)?
                    .copy_from_slice(from);
                Ok(())
            }
            Kind::Pieces(pieces) => pieces.each(offset, from.len(), |at, window| {
                copy::write(window, at, from)
            }),
            Kind::Persistent(range) => range.with(offset, from.len(), |window| window.write(from)),
            Kind::Device(range) => range.each(offset, from.len(), |at, window| {
                copy::write(window, at, from)
            }),
        }
    }

    /// Puts the memory into the fabric's hands.
    pub(crate) fn expose(self) -> Exposed {
        Exposed::new(match self.0 {
            Kind::Volatile(vec) => Kind::Volatile(SharedBytes::new(vec)),
            Kind::Pieces(pieces) => Kind::Pieces(pieces),
            Kind::Persistent(range) => Kind::Persistent(range),
            Kind::Device(range) => Kind::Device(range),
        })
    }

    /// Writes back what the caches hold of persistent bytes; process context, may sleep.
    pub(crate) fn write_back(&self) -> Result {
        match &self.0 {
            Kind::Volatile(_) | Kind::Pieces(_) | Kind::Device(_) => Ok(()),
            Kind::Persistent(range) => range.device.write_back(range.offset, range.len),
        }
    }
}

#[kunit_tests(kfabric_memory)]
mod tests {
    use super::testing::*;
    use super::*;

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
        for (offset, len, aligned) in [(8, 8, true), (4, 8, false), (8, 12, false)] {
            let mut parts = KVec::new();
            let folio = Folio::zeroed(0)?;
            parts.push(BioVec { folio, offset, len }, GFP_KERNEL)?;
            let memory = Memory::from_bio_vecs(parts).map_err(|(error, _)| error)?;
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
        assert!(memory
            .into_bio_vecs()
            .is_err_and(|memory| memory.len() == 7));
        Ok(())
    }

    #[test]
    fn part_of_a_folio_lies_in_it() -> Result {
        const PAGE: usize = kernel::page::PAGE_SIZE;
        for (order, offset, len, good) in [
            (0, 0, PAGE, true),
            (0, 0, PAGE + 1, false),
            (0, 1, PAGE, false),
            (0, PAGE, 0, true),
            (0, PAGE, 1, false),
            (0, PAGE + 1, 0, false),
            (0, 1, MAX, false),
            (2, 0, 4 * PAGE, true),
            (2, 3 * PAGE - 1, PAGE + 1, true),
            (2, 3 * PAGE - 1, PAGE + 2, false),
            (2, 4 * PAGE, 1, false),
        ] {
            let folio = Folio::zeroed(order)?;
            let mut parts = KVec::new();
            parts.push(BioVec { folio, offset, len }, GFP_KERNEL)?;
            match Memory::from_bio_vecs(parts) {
                Ok(memory) => assert!(good && memory.len() == len),
                Err((error, parts)) => assert!(!good && error == EINVAL && parts.len() == 1),
            }
        }
        Ok(())
    }
}
