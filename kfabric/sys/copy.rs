// SPDX-License-Identifier: GPL-2.0

//! Bytes that others may write at any moment.
//!
//! Neither type here ever forms a reference to the bytes: they are copied in C, where a race is
//! merely unordered, or read and written one word at a time, atomically.

use super::{around, bar, bindings, kvfree};
use crate::proto::atomic::Datatype;
use core::{marker::PhantomData, mem::size_of, ptr::NonNull};
use kernel::{
    prelude::*,
    sync::atomic::{atomic_load, atomic_store, cmpxchg, Acquire, Full, Release},
};

/// Volatile memory that others may write at any moment. Dropped in any context but NMI.
///
/// # Invariants
///
/// `ptr`, `len` and `cap` are the raw parts of a `KVVec<u8>` that this value owns.
pub(crate) struct SharedBytes {
    ptr: NonNull<u8>,
    len: usize,
    cap: usize,
}

// SAFETY: The memory is owned, and may be freed by any task.
unsafe impl Send for SharedBytes {}
// SAFETY: A shared `SharedBytes` gives out windows only, which allow concurrent use.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// Takes the bytes of `vec`; its spare capacity is kept but not reachable.
    pub(crate) fn new(vec: KVVec<u8>) -> SharedBytes {
        let (ptr, len, cap) = vec.into_raw_parts();

        // INVARIANT: These are the raw parts, and `vec` is gone.
        SharedBytes {
            // SAFETY: The pointer of a vector is never null, an empty vector's is dangling.
            ptr: unsafe { NonNull::new_unchecked(ptr) },
            len,
            cap,
        }
    }

    /// Gives the memory back as an ordinary vector: nobody else may write to it any more.
    pub(crate) fn into_vec(self) -> KVVec<u8> {
        let this = core::mem::ManuallyDrop::new(self);

        // SAFETY: By the type invariant these are the raw parts of a vector, owned by `self`, which
        // is not dropped. Having `self` by value means that no window is left, for windows borrow
        // it.
        unsafe { KVVec::from_raw_parts(this.ptr.as_ptr(), this.len, this.cap) }
    }

    /// Returns how many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns a window on all bytes.
    #[inline(always)]
    pub(crate) fn window(&self) -> Window<'_> {
        // SAFETY: By the type invariant the vector's bytes are there as long as `self`, which the
        // window borrows. Nobody forms a reference to them in that time, since `into_vec` takes
        // `self`.
        unsafe { Window::new(self.ptr, self.len, Source::Memory) }
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        // SAFETY: By the type invariant these are the raw parts of a vector that `self` owns and
        // does not use again.
        let vec = unsafe { KVVec::from_raw_parts(self.ptr.as_ptr(), self.len, self.cap) };
        // The last use of a region may end in a post, which must not sleep.
        kvfree::free(vec);
    }
}

/// Where the bytes of a window are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// In ordinary memory.
    Memory,
    /// On a medium whose errors are to be caught when it is read.
    Medium,
    /// In a device: I/O memory.
    Device,
}

/// Where what is stored through a window may stay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stores {
    /// In the cache.
    Cached,
    /// In no cache: see [`around`].
    Around,
}

/// Bytes that are there for `'a` and that others may write meanwhile.
///
/// # Invariants
///
/// `len` bytes from `ptr` are mapped, readable and writable for `'a`, as I/O memory if `source` is
/// [`Source::Device`], and no reference to any of them exists in that time.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    ptr: NonNull<u8>,
    len: usize,
    source: Source,
    stores: Stores,
    bytes: PhantomData<&'a SharedBytes>,
}

impl<'a> Window<'a> {
    /// Opens a window on `len` bytes from `ptr`.
    ///
    /// # Safety
    ///
    /// For `'a`, the bytes are mapped, readable and writable, of the kind that `source` tells, and no
    /// reference to them exists.
    pub(super) unsafe fn new(ptr: NonNull<u8>, len: usize, source: Source) -> Window<'a> {
        // INVARIANT: As the caller guarantees.
        Window {
            ptr,
            len,
            source,
            stores: Stores::Cached,
            bytes: PhantomData,
        }
    }

    /// Returns the window on `len` bytes from `offset`.
    ///
    /// # Errors
    /// - `EINVAL`: there are no such bytes.
    #[inline(always)]
    pub(crate) fn sub(self, offset: usize, len: usize) -> Result<Window<'a>> {
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        if end > self.len {
            return Err(EINVAL);
        }
        // INVARIANT: A part of the bytes of `self`, which are there for the same time.
        Ok(Window {
            // SAFETY: `offset` is at most `self.len`, so the result is inside or at the end of the
            // bytes.
            ptr: unsafe { self.ptr.add(offset) },
            len,
            ..self
        })
    }

    /// Returns the same window, whose stores leave nothing in a cache.
    pub(crate) fn around(self) -> Window<'a> {
        // INVARIANT: The bytes of `self`.
        Window {
            stores: Stores::Around,
            ..self
        }
    }

    /// Returns the address of the first byte.
    pub(super) fn as_ptr(self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Returns how many bytes there are.
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Returns the address of the first byte.
    pub(super) fn start(self) -> NonNull<u8> {
        self.ptr
    }

    /// Returns where they are.
    pub(super) fn source(self) -> Source {
        self.source
    }

    /// Returns whether they are stored as any bytes of memory are.
    pub(super) fn is_plain(self) -> bool {
        self.source != Source::Device && self.stores == Stores::Cached
    }

    /// Returns whether some byte is in both.
    fn overlaps(self, other: Window<'_>) -> bool {
        let (a, b) = (self.ptr.addr().get(), other.ptr.addr().get());

        a < b + other.len && b < a + self.len
    }

    /// Copies `src` to `dst`, which may overlap; any context.
    ///
    /// Bytes that somebody writes at the same time arrive old or new.
    ///
    /// # Errors
    /// - `EINVAL`: the lengths differ.
    /// - `EIO`: the medium under `src` has an error; some bytes at the start may be copied.
    pub(crate) fn copy(dst: Window<'_>, src: Window<'_>) -> Result {
        Window::copy_here(dst, src)
    }

    /// As [`Window::copy`], inlined: of two windows that are known to be on ordinary memory, one call
    /// is left.
    #[inline(always)]
    pub(crate) fn copy_here(dst: Window<'_>, src: Window<'_>) -> Result {
        if dst.len != src.len {
            return Err(EINVAL);
        }
        let (to, from) = (dst.as_ptr().cast(), src.as_ptr().cast());

        if dst.source == Source::Device || src.source == Source::Device {
            return bar::copy(dst, src);
        }
        if dst.stores == Stores::Around && src.source == Source::Memory {
            // SAFETY: By the type invariants `len` bytes are mapped on both sides, and no reference
            // to them exists.
            unsafe { around::copy(dst.as_ptr(), src.as_ptr(), src.len) };
            return Ok(());
        }
        let copied = if src.source == Source::Medium && !src.overlaps(dst) {
            // SAFETY: By the type invariants `len` bytes are mapped on both sides, and they do not
            // overlap. No reference to them exists, and C takes the race with other writers.
            match unsafe { bindings::kfi_copy_from_medium(to, from, src.len) } {
                0 => Ok(()),
                _ => Err(EIO),
            }
        } else {
            // SAFETY: By the type invariants `len` bytes are mapped on both sides. No reference to
            // them exists, and C takes the race with other writers.
            unsafe { bindings::kfi_copy(to, from, src.len) };
            Ok(())
        };
        dst.settle();
        copied
    }

    /// Takes what was just stored in the cache out of it, if it must not stay there.
    #[inline]
    pub(super) fn settle(self) {
        if self.stores == Stores::Around {
            // SAFETY: By the type invariant the bytes are mapped.
            unsafe { around::settle(self.as_ptr(), self.len) };
        }
    }

    /// Copies all bytes to `to`; any context.
    ///
    /// # Errors
    /// As [`Window::copy`].
    pub(crate) fn read(self, to: &mut [u8]) -> Result {
        let len = to.len();
        // SAFETY: The slice is mapped for the call, and borrowed mutably by it, so that nobody else
        // has a reference; its own is not used until the window is gone.
        let dst = unsafe { Window::new(NonNull::from(to).cast(), len, Source::Memory) };

        Window::copy(dst, self)
    }

    /// Copies all of `from` here; any context.
    ///
    /// # Errors
    /// - `EINVAL`: the lengths differ.
    pub(crate) fn write(self, from: &[u8]) -> Result {
        if from.len() != self.len {
            return Err(EINVAL);
        }
        if self.source == Source::Device {
            // SAFETY: The slice is mapped for the call; the window is only read from.
            let src =
                unsafe { Window::new(NonNull::from(from).cast(), from.len(), Source::Memory) };
            return bar::copy(self, src);
        }
        if self.stores == Stores::Around {
            // SAFETY: By the type invariant `len` bytes are mapped here, and no reference to them
            // exists; `from` has as many and is only read.
            unsafe { around::copy(self.as_ptr(), from.as_ptr(), self.len) };
            return Ok(());
        }
        // SAFETY: By the type invariant `len` bytes are mapped here; `from` has as many and is only
        // read. No reference to the bytes here exists, and C takes the race with other writers.
        unsafe { bindings::kfi_copy(self.as_ptr().cast(), from.as_ptr().cast(), self.len) };
        Ok(())
    }

    /// Returns the address of the word at `offset`.
    fn word<T: Word>(self, offset: usize) -> Result<*mut T> {
        let ptr = self.sub(offset, size_of::<T>())?.as_ptr();

        if self.source == Source::Device {
            return Err(EOPNOTSUPP);
        }
        if ptr.addr() % size_of::<T>() != 0 {
            return Err(EINVAL);
        }
        Ok(ptr.cast())
    }

    /// As [`Window::word`], of a word that is about to be loaded: no instruction that loads at once
    /// survives an error of a medium, so it is read before by one that does.
    fn loadable<T: Word>(self, offset: usize) -> Result<*mut T> {
        let ptr = self.word::<T>(offset)?;

        if self.source == Source::Medium {
            self.sub(offset, size_of::<T>())?
                .read(&mut [0; 8][..size_of::<T>()])?;
        }
        Ok(ptr)
    }

    /// Loads the word at `offset` at once; what was written before it is seen afterwards.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds, or not aligned to the word's size.
    /// - `EIO`: the medium has an error there.
    /// - `EOPNOTSUPP`: in a device, which promises nothing to be done at once.
    pub(crate) fn load<T: Word>(self, offset: usize) -> Result<T> {
        let ptr = self.loadable::<T>(offset)?;

        // SAFETY: `ptr` is mapped by the type invariant, and aligned.
        Ok(unsafe { T::load(ptr) })
    }

    /// Stores the word at `offset` at once; who sees it also sees what was written before.
    ///
    /// # Errors
    /// As [`Window::load`], but `EIO`.
    pub(crate) fn store<T: Word>(self, offset: usize, value: T) -> Result {
        let ptr = self.word::<T>(offset)?;

        // SAFETY: `ptr` is mapped by the type invariant, and aligned.
        unsafe { T::store(ptr, value) };
        self.sub(offset, size_of::<T>())?.settle();
        Ok(())
    }
}

impl Window<'_> {
    /// Changes the word of `datatype` at `offset` at once; returns what it was.
    ///
    /// What was written before is seen by whoever sees the change, and the other way round.
    ///
    /// # Errors
    /// As [`Window::load`].
    pub(crate) fn update(
        self,
        offset: usize,
        datatype: Datatype,
        change: impl FnMut(u64) -> u64,
    ) -> Result<u64> {
        match datatype.size() {
            1 => self.update_word::<u8>(offset, change),
            2 => self.update_word::<u16>(offset, change),
            4 => self.update_word::<u32>(offset, change),
            _ => self.update_word::<u64>(offset, change),
        }
    }

    fn update_word<T: Word>(
        self,
        offset: usize,
        mut change: impl FnMut(u64) -> u64,
    ) -> Result<u64> {
        let ptr = self.loadable::<T>(offset)?;
        // SAFETY: `ptr` is mapped by the type invariant, and aligned.
        let mut word = unsafe { T::load(ptr) };
        loop {
            let new = T::from_bits(change(word.bits()));
            // SAFETY: As above.
            match unsafe { T::replace(ptr, word, new) } {
                Ok(()) => {
                    self.sub(offset, size_of::<T>())?.settle();
                    return Ok(word.bits());
                }
                Err(found) => word = found,
            }
        }
    }
}

/// A word that is loaded and stored at once: `u8`, `u16`, `u32` or `u64`.
pub trait Word: private::Cell + Copy {}

mod private {
    /// How the kernel's atomics, which know small words with a sign only, load and store a word.
    pub trait Cell: Sized {
        /// Loads with acquire order.
        ///
        /// # Safety
        ///
        /// `ptr` is mapped and aligned to the word's size.
        unsafe fn load(ptr: *mut Self) -> Self;

        /// Stores with release order.
        ///
        /// # Safety
        ///
        /// As for [`Cell::load`].
        unsafe fn store(ptr: *mut Self, value: Self);

        /// Replaces `old` by `new` in full order, or tells what is there.
        ///
        /// # Safety
        ///
        /// As for [`Cell::load`].
        unsafe fn replace(ptr: *mut Self, old: Self, new: Self) -> Result<(), Self>;

        /// The word as the low bits of a number, the others 0.
        fn bits(self) -> u64;

        /// The word of the low bits of a number.
        fn from_bits(bits: u64) -> Self;
    }
}

macro_rules! words {
    ($($word:ty as $cell:ty),*) => {$(
        impl Word for $word {}
        impl private::Cell for $word {
            unsafe fn load(ptr: *mut $word) -> $word {
                // SAFETY: `ptr` is mapped and aligned, as the caller guarantees. Others write words
                // atomically, or copy in C, where the race may tear the word and nothing else.
                unsafe { atomic_load(ptr.cast::<$cell>(), Acquire) as $word }
            }

            unsafe fn store(ptr: *mut $word, value: $word) {
                // SAFETY: As for the load.
                unsafe { atomic_store(ptr.cast::<$cell>(), value as $cell, Release) }
            }

            unsafe fn replace(ptr: *mut $word, old: $word, new: $word) -> Result<(), $word> {
                let (old, new) = (old as $cell, new as $cell);
                // SAFETY: As for the load.
                unsafe { cmpxchg(ptr.cast::<$cell>(), old, new, Full) }
                    .map(|_| ())
                    .map_err(|found| found as $word)
            }

            fn bits(self) -> u64 {
                u64::from(self)
            }

            fn from_bits(bits: u64) -> $word {
                bits as $word
            }
        }
    )*};
}

words!(u8 as i8, u16 as i16, u32 as i32, u64 as i64);

#[kunit_tests(kfabric_copy)]
mod tests {
    use super::*;

    fn shared(bytes: &[u8]) -> Result<SharedBytes> {
        let mut vec = KVVec::with_capacity(bytes.len(), GFP_KERNEL)?;
        vec.extend_from_slice(bytes, GFP_KERNEL)?;
        Ok(SharedBytes::new(vec))
    }

    #[test]
    fn windows_overlap_if_a_byte_is_in_both() -> Result {
        let bytes = shared(&[0; 32])?;
        let part = |offset, len| bytes.window().sub(offset, len);
        for (offset, len, overlap) in [
            (0, 8, false),
            (0, 9, true),
            (8, 8, true),
            (10, 2, true),
            (15, 1, true),
            (15, 17, true),
            (16, 1, false),
            (16, 16, false),
            (0, 32, true),
        ] {
            let (one, other) = (part(8, 8)?, part(offset, len)?);
            assert_eq!(
                (one.overlaps(other), other.overlaps(one)),
                (overlap, overlap)
            );
        }
        Ok(())
    }

    #[test]
    fn copy_is_of_equal_lengths() -> Result {
        let (from, to) = (shared(&[1; 8])?, shared(&[0; 8])?);
        for (len, room) in [(8, 7), (7, 8), (0, 1), (1, 0)] {
            let (src, dst) = (from.window().sub(0, len)?, to.window().sub(0, room)?);
            assert_eq!(Window::copy(dst, src), Err(EINVAL));
            assert_eq!(src.read(&mut [0; 8][..room]), Err(EINVAL));
            assert_eq!(dst.write(&[1; 8][..len]), Err(EINVAL));
        }
        assert!(to.into_vec().iter().all(|byte| *byte == 0));
        Ok(())
    }

    #[test]
    fn medium_is_copied_as_memory_is() -> Result {
        let bytes = shared(&[1, 2, 3, 4, 5, 6, 7, 8])?;
        let medium = Window {
            source: Source::Medium,
            ..bytes.window()
        };
        let mut seen = [0; 8];
        medium.read(&mut seen)?;
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8]);
        // Overlapping, either way.
        Window::copy(medium.sub(1, 4)?, medium.sub(0, 4)?)?;
        Window::copy(medium.sub(4, 3)?, medium.sub(5, 3)?)?;
        medium.read(&mut seen)?;
        assert_eq!(seen, [1, 1, 2, 3, 6, 7, 8, 8]);
        Ok(())
    }

    #[test]
    fn words_of_a_medium_are_as_those_of_memory() -> Result {
        let mut vec = KVVec::with_capacity(16, GFP_KERNEL)?;
        vec.extend_from_slice(
            &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 4, 5],
            GFP_KERNEL,
        )?;
        let bytes = SharedBytes::new(vec);
        let medium = Window {
            source: Source::Medium,
            ..bytes.window()
        };
        assert_eq!((medium.load::<u64>(0)?, medium.load::<u32>(8)?), (1, 2));
        assert_eq!((medium.load::<u16>(12)?, medium.load::<u8>(15)?), (3, 5));
        assert_eq!(medium.update(8, Datatype::U32, |word| word + 5)?, 2);
        assert_eq!(medium.update(15, Datatype::U8, |word| word + 1)?, 5);
        assert_eq!((medium.load::<u32>(8)?, medium.load::<u8>(15)?), (7, 6));
        for offset in [9, 12, 16] {
            assert_eq!(medium.load::<u64>(offset), Err(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn vector_comes_back_with_its_room() -> Result {
        let mut vec = KVVec::with_capacity(100, GFP_KERNEL)?;
        vec.push(7, GFP_KERNEL)?;
        let room = vec.capacity();
        let vec = SharedBytes::new(vec).into_vec();
        assert_eq!((vec.len(), vec.capacity()), (1, room));
        Ok(())
    }
}
