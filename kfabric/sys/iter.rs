// SPDX-License-Identifier: GPL-2.0

//! Iterators of the kernel's over bytes: what is sent from them, and received into them, is copied once.
//!
//! Source: include/linux/uio.h, rust/kernel/iov.rs.

use super::copy::Window;
use core::{
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr::NonNull,
};
use kernel::{
    bindings,
    iov::{IovIterDest, IovIterSource},
    page::PAGE_SIZE,
    prelude::*,
};

/// The most segments of one iterator. Who has more goes over them part by part.
const MAX: usize = 16;

/// The most bytes of one segment, so that their sum fits what the kernel counts with.
const LONGEST: usize = 1 << 24;

/// Bytes for one iterator, in one segment that is mapped.
///
/// # Invariants
///
/// For `'a` the bytes of `of` are readable. Others may write to them at any moment, and [`Segment::dest`] may be called:
/// then they are writable, and no reference to them exists but the one that is borrowed for `'a`. Or nobody writes to
/// them, and [`Segment::source`] alone is called, in this file.
pub(crate) struct Segment<'a> {
    of: bindings::kvec,
    bytes: PhantomData<&'a ()>,
}

impl<'a> Segment<'a> {
    /// The first of `len` bytes at an address.
    ///
    /// # Safety
    ///
    /// As of [`Segments::add_mapped`].
    unsafe fn new(at: NonNull<u8>, len: usize) -> Self {
        // INVARIANT: By the caller's word.
        Segment {
            of: bindings::kvec {
                iov_base: at.as_ptr().cast(),
                iov_len: len.min(LONGEST),
            },
            bytes: PhantomData,
        }
    }

    /// The first bytes of a window; `None`: they are stored and loaded in a way that an iterator does not know.
    pub(crate) fn of_window(window: Window<'a>) -> Option<Self> {
        // SAFETY: By the window's invariant its bytes are there for `'a`.
        let segment = unsafe { Self::new(window.start(), window.len()) };
        window.is_plain().then_some(segment)
    }

    /// Calls `f` with an iterator that stores to the bytes.
    pub(crate) fn dest<R>(&self, f: impl FnOnce(&mut IovIterDest<'_>) -> R) -> R {
        // SAFETY: It is one segment of that length, borrowed until the call of `f` has returned.
        let iter = unsafe { over_mapped(bindings::ITER_DEST, &self.of, 1, self.of.iov_len) };
        // SAFETY: Just set up to store; the bytes are there by the type invariant.
        unsafe { store(iter, f) }
    }

    /// Calls `f` with an iterator that loads from the bytes.
    pub(crate) fn source<R>(&self, f: impl FnOnce(&mut IovIterSource<'_>) -> R) -> R {
        // SAFETY: As in `dest`.
        let iter = unsafe { over_mapped(bindings::ITER_SOURCE, &self.of, 1, self.of.iov_len) };
        // SAFETY: Just set up to load; the bytes are there by the type invariant.
        unsafe { load(iter, f) }
    }
}

/// Bytes for one iterator: segments that are mapped, or parts of pages.
///
/// # Invariants
///
/// The first `count` segments of `of` were written, are, for `'a`, readable, and have `len` bytes. Others may write to them at any
/// moment, and [`Segments::dest`] may be called: then they are writable, and no reference to them exists but the one
/// that is borrowed for `'a`. Or nobody writes to them, and [`Segments::source`] alone is called, in this file.
pub(crate) struct Segments<'a> {
    of: Of,
    count: usize,
    len: usize,
    bytes: PhantomData<&'a ()>,
}

/// What segments are.
// On the stack, for one call: a box would be allocated for each. Nothing is written before it is used.
#[allow(clippy::large_enum_variant)]
enum Of {
    Mapped([MaybeUninit<bindings::kvec>; MAX]),
    Pages([MaybeUninit<bindings::bio_vec>; MAX]),
}

impl<'a> Segments<'a> {
    /// None yet, of those that are mapped.
    pub(super) fn mapped() -> Self {
        // INVARIANT: There is none.
        Self::none(Of::Mapped([const { MaybeUninit::uninit() }; MAX]))
    }

    /// None yet, of those that are in pages.
    pub(super) fn pages() -> Self {
        // INVARIANT: There is none.
        Self::none(Of::Pages([const { MaybeUninit::uninit() }; MAX]))
    }

    fn none(of: Of) -> Self {
        Segments {
            of,
            count: 0,
            len: 0,
            bytes: PhantomData,
        }
    }

    /// Adds `len` bytes at an address, or the first of them; whether there is room for what follows.
    ///
    /// # Safety
    ///
    /// For `'a` they are mapped and readable; and writable, with no reference to them, unless
    /// [`Segments::source`] alone is called.
    pub(super) unsafe fn add_mapped(&mut self, at: NonNull<u8>, len: usize) -> bool {
        let Of::Mapped(segments) = &mut self.of else {
            return false;
        };
        let Some(segment) = segments.get_mut(self.count) else {
            return false;
        };
        let part = len.min(LONGEST);
        segment.write(bindings::kvec {
            iov_base: at.as_ptr().cast(),
            iov_len: part,
        });
        // INVARIANT: By the caller's word.
        self.count += 1;
        self.len += part;
        part == len && self.count < MAX
    }

    /// Adds `len` bytes from `offset` on, counted from the start of `page`, or the first of them; whether there
    /// is room for what follows.
    ///
    /// # Safety
    ///
    /// For `'a` they are in pages that follow `page`, and no reference to them exists.
    pub(super) unsafe fn add_pages(
        &mut self,
        page: NonNull<bindings::page>,
        offset: usize,
        len: usize,
    ) -> bool {
        let Of::Pages(segments) = &mut self.of else {
            return false;
        };
        let Some(segment) = segments.get_mut(self.count) else {
            return false;
        };
        let part = len.min(LONGEST);
        segment.write(bindings::bio_vec {
            // SAFETY: By the caller's word the page that the first byte is in follows.
            bv_page: unsafe { page.as_ptr().add(offset / PAGE_SIZE) },
            bv_len: part as u32,
            bv_offset: (offset % PAGE_SIZE) as u32,
        });
        // INVARIANT: By the caller's word.
        self.count += 1;
        self.len += part;
        part == len && self.count < MAX
    }

    /// Sets up an iterator of that direction. It must not outlive `self`.
    fn iter(&self, direction: u32) -> bindings::iov_iter {
        match &self.of {
            // SAFETY: By the type invariant; who calls this keeps the iterator no longer than `self`.
            Of::Mapped(segments) => unsafe {
                over_mapped(direction, segments.as_ptr().cast(), self.count, self.len)
            },
            Of::Pages(segments) => {
                let mut iter = MaybeUninit::<bindings::iov_iter>::uninit();
                // SAFETY: `iter` is to be filled; by the type invariant there are `count` segments.
                unsafe {
                    bindings::iov_iter_bvec(
                        iter.as_mut_ptr(),
                        direction,
                        segments.as_ptr().cast(),
                        self.count,
                        self.len,
                    )
                };
                // SAFETY: Just filled.
                unsafe { iter.assume_init() }
            }
        }
    }

    /// Calls `f` with an iterator that stores to the bytes.
    pub(crate) fn dest<R>(&self, f: impl FnOnce(&mut IovIterDest<'_>) -> R) -> R {
        let iter = self.iter(bindings::ITER_DEST);
        // SAFETY: Just set up to store; the bytes are there by the type invariant.
        unsafe { store(iter, f) }
    }

    /// Calls `f` with an iterator that loads from the bytes.
    pub(crate) fn source<R>(&self, f: impl FnOnce(&mut IovIterSource<'_>) -> R) -> R {
        let iter = self.iter(bindings::ITER_SOURCE);
        // SAFETY: Just set up to load; the bytes are there by the type invariant.
        unsafe { load(iter, f) }
    }
}

/// Sets up an iterator of that direction.
///
/// # Safety
///
/// There are `count` segments of `len` bytes; the iterator does not outlive them.
unsafe fn over_mapped(
    direction: u32,
    segments: *const bindings::kvec,
    count: usize,
    len: usize,
) -> bindings::iov_iter {
    let mut iter = MaybeUninit::<bindings::iov_iter>::uninit();
    // SAFETY: `iter` is to be filled; the segments are there by the caller's word.
    unsafe { bindings::iov_iter_kvec(iter.as_mut_ptr(), direction, segments, count, len) };
    // SAFETY: Just filled.
    unsafe { iter.assume_init() }
}

/// Calls `f` with an iterator that stores.
///
/// # Safety
///
/// `iter` was just set up to store, and during the call its bytes are writable, with no reference to them.
unsafe fn store<R>(iter: bindings::iov_iter, f: impl FnOnce(&mut IovIterDest<'_>) -> R) -> R {
    let mut iter = ManuallyDrop::new(iter);
    // SAFETY: By the caller's word; it is used by `f` alone. C copies to the bytes, which takes the race with others.
    f(unsafe { IovIterDest::from_raw(&raw mut *iter) })
}

/// Calls `f` with an iterator that loads.
///
/// # Safety
///
/// `iter` was just set up to load, and its bytes are there during the call.
unsafe fn load<R>(iter: bindings::iov_iter, f: impl FnOnce(&mut IovIterSource<'_>) -> R) -> R {
    let mut iter = ManuallyDrop::new(iter);
    // SAFETY: As in `store`, but that it loads.
    f(unsafe { IovIterSource::from_raw(&raw mut *iter) })
}

/// Calls `f` with an iterator that stores to `bytes`.
pub(crate) fn dest<R>(bytes: &mut [u8], f: impl FnOnce(&mut IovIterDest<'_>) -> R) -> R {
    let len = bytes.len();
    // SAFETY: They are borrowed by the call, and not used until the segment is gone.
    unsafe { Segment::new(NonNull::from(bytes).cast(), len) }.dest(f)
}

/// Calls `f` with an iterator that loads from `bytes`.
pub(crate) fn source<R>(bytes: &[u8], f: impl FnOnce(&mut IovIterSource<'_>) -> R) -> R {
    // SAFETY: They are borrowed by the call, and only read: no iterator that stores is made of them.
    unsafe { Segment::new(NonNull::from(bytes).cast(), bytes.len()) }.source(f)
}

#[kunit_tests(kfabric_iter)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_stored_and_loaded_in_their_order() {
        let mut bytes = [0; 10];
        let stored = dest(&mut bytes[1..9], |iter| {
            assert_eq!(iter.len(), 8);
            iter.copy_to_iter(&[1, 2, 3]) + iter.copy_to_iter(&[4, 5, 6, 7, 8, 9])
        });
        assert_eq!((stored, bytes), (8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 0]));
        let mut seen = [0; 4];
        let loaded = source(&bytes[2..5], |iter| iter.copy_from_iter(&mut seen));
        assert_eq!((loaded, seen), (3, [2, 3, 4, 0]));
    }

    #[test]
    fn segments_end_with_their_room() {
        let mut bytes = [0u8; 2 * MAX];
        let start = NonNull::from(&mut bytes).cast::<u8>();
        let mut segments = Segments::mapped();
        for at in 0..MAX {
            // SAFETY: Inside of `bytes`, which is not used meanwhile.
            let there_is_room = unsafe { segments.add_mapped(start.add(2 * at), 1) };
            assert_eq!(there_is_room, at + 1 < MAX);
        }
        // SAFETY: As above.
        assert!(!unsafe { segments.add_mapped(start, 1) });
        assert_eq!(segments.dest(|iter| iter.copy_to_iter(&[7; 2 * MAX])), MAX);
        assert!((0..2 * MAX).all(|at| bytes[at] == if at % 2 == 0 { 7 } else { 0 }));
    }
}
