// SPDX-License-Identifier: GPL-2.0

//! Copies: from one memory in the fabric's hands to another, and out of pieces and into them.

use super::{Exposed, Kind};
use crate::sys::copy::Window;
use kernel::{prelude::*, sync::Arc};

/// How many bytes of the stack what overlaps itself by less goes through.
const ROOM: usize = 256;

impl Exposed {
    /// Copies `len` bytes from `src_offset` of `src` to `dst_offset` of `dst`, which may overlap.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds on either side; nothing is copied.
    /// - `ENODEV`: the persistent device of either side is gone; nothing is copied.
    /// - `EIO`: the device of `src` has a medium error there; some bytes may be copied.
    // Not inlined into other modules, which do not see what it calls.
    #[inline(never)]
    pub fn copy(
        dst: &Exposed,
        dst_offset: usize,
        src: &Exposed,
        src_offset: usize,
        len: usize,
    ) -> Result {
        Self::copy_here(dst, dst_offset, src, src_offset, len)
    }

    /// As [`Exposed::copy`], inlined.
    #[inline(always)]
    pub(crate) fn copy_here(
        dst: &Exposed,
        dst_offset: usize,
        src: &Exposed,
        src_offset: usize,
        len: usize,
    ) -> Result {
        match (&dst.kind, &src.kind) {
            (Kind::Volatile(to), Kind::Volatile(from)) if !dst.uncached => Window::copy_here(
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
        match (&dst.kind, &src.kind) {
            (Kind::Pieces(_) | Kind::Device(_), _) | (_, Kind::Pieces(_) | Kind::Device(_)) => {
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
        // Towards the end of the same bytes, the last of them first, by no more than they move: so
        // none is overwritten before it was copied. By less than there is room for: through that.
        let (step, through) = match Self::ahead(dst, dst_offset, src, src_offset) {
            Some(shift) if shift > 0 => (shift.max(ROOM), shift < ROOM),
            _ => (len, false),
        };
        let mut left = len;
        loop {
            let part = left.min(step);
            left -= part;
            let (to, from) = (dst_offset + left, src_offset + left);
            match through {
                true => Self::copy_through(dst, to, src, from, part)?,
                false => Self::copy_ascending(dst, to, src, from, part)?,
            }
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// Copies at most [`ROOM`] bytes, all of which are read before any is written.
    fn copy_through(
        dst: &Exposed,
        dst_offset: usize,
        src: &Exposed,
        src_offset: usize,
        len: usize,
    ) -> Result {
        let mut room = [0; ROOM];
        let room = room.get_mut(..len).ok_or(EINVAL)?;
        src.each(src_offset, len, |at, from| read(from, at, room))?;
        dst.each(dst_offset, len, |at, to| write(to, at, room))
    }

    /// How far `dst` is towards the end, if both are of the same bytes: of one memory, or of ranges
    /// of one device. No other memory that is copied in parts has bytes in common.
    fn ahead(dst: &Exposed, dst_offset: usize, src: &Exposed, src_offset: usize) -> Option<usize> {
        match (&dst.kind, &src.kind) {
            (Kind::Device(to), Kind::Device(from)) if Arc::ptr_eq(&to.device, &from.device) => {
                (to.offset + dst_offset).checked_sub(from.offset + src_offset)
            }
            _ if core::ptr::eq(dst, src) => dst_offset.checked_sub(src_offset),
            _ => None,
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
}

/// Copies the bytes of a window to where they belong, `at` of `to`.
pub(super) fn read(window: Window<'_>, at: usize, to: &mut [u8]) -> Result {
    let end = at + window.len();
    window.read(to.get_mut(at..end).ok_or(EINVAL)?)
}

/// Copies the bytes that belong to a window there, from `at` of `from`.
pub(super) fn write(window: Window<'_>, at: usize, from: &[u8]) -> Result {
    let end = at + window.len();
    window.write(from.get(at..end).ok_or(EINVAL)?)
}

#[kunit_tests(kfabric_memory_copy)]
mod tests {
    use super::super::testing::*;
    use super::super::Memory;
    use super::*;

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
}
