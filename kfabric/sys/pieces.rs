// SPDX-License-Identifier: GPL-2.0

//! Volatile memory in pieces: vectors, parts of pages, a scatterlist.
//!
//! Whatever the pieces are made of, where they are is written down once, when the memory is taken
//! over, so that a copy looks nothing up and allocates nothing. Memory that a C caller only lends,
//! as an array of `struct kvec` or `struct bio_vec` or as a `struct sg_table`, will be one more
//! `Origin` here, made by an unsafe constructor that has its caller promise what an origin keeps.

use super::{
    bindings as door,
    copy::{Source, Window},
    folio::Folio,
    iter::Segments,
    kvfree,
};
use crate::proto::pieces::Runs;
use core::ptr::{self, NonNull};
use kernel::{bindings, error::to_result, page::PAGE_SIZE, prelude::*};

/// The most pieces that a memory may be made of.
pub(crate) const MAX: usize = 256;

/// Bytes of a folio that belongs to whoever has this. Source: `struct bio_vec`.
pub struct BioVec {
    /// The folio.
    pub folio: Folio,
    /// The first byte, counted from the start of the folio.
    pub offset: usize,
    /// How many bytes.
    pub len: usize,
}

/// A scatterlist of folios that belong to it.
///
/// For the CPU: no device has mapped it. Source: `struct sg_table`.
///
/// # Invariants
///
/// `table` was filled by `sg_alloc_table_from_pages_segment()`, and its entries are bytes of
/// `folios`.
pub struct ScatterList {
    table: bindings::sg_table,
    folios: KVVec<Folio>,
    len: usize,
}

// SAFETY: The table is owned and, after its making, only read; folios may move between threads.
unsafe impl Send for ScatterList {}
// SAFETY: As above; a shared list tells numbers only.
unsafe impl Sync for ScatterList {}

impl ScatterList {
    /// Makes a scatterlist of the `len` bytes from `offset` of the first folio on.
    ///
    /// Pages that follow each other in physical memory become one entry, of at most `longest`
    /// bytes. Sleeps; process context.
    ///
    /// # Errors
    /// The folios come back with
    /// - `EINVAL`: `offset` is not in the first page, the last byte is not in the last folio, there
    ///   is none, or `longest` is less than a page.
    /// - `ENOMEM`.
    pub fn new(
        folios: KVVec<Folio>,
        offset: usize,
        len: usize,
        longest: u32,
    ) -> Result<ScatterList, (Error, KVVec<Folio>)> {
        match Self::table(&folios, offset, len, longest) {
            // INVARIANT: Just filled, with entries for pages of `folios`, which do not move.
            Ok(table) => Ok(ScatterList { table, folios, len }),
            Err(error) => Err((error, folios)),
        }
    }

    fn table(
        folios: &KVVec<Folio>,
        offset: usize,
        len: usize,
        longest: u32,
    ) -> Result<bindings::sg_table> {
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        if offset >= PAGE_SIZE || len == 0 || (longest as usize) < PAGE_SIZE {
            return Err(EINVAL);
        }
        let all: usize = folios.iter().map(Folio::pages).sum();
        let count = end.div_ceil(PAGE_SIZE);
        let spare = all.checked_sub(count).ok_or(EINVAL)?;
        if folios.last().is_none_or(|last| spare >= last.pages()) {
            return Err(EINVAL);
        }
        let mut array = KVVec::with_capacity(all, GFP_KERNEL | __GFP_NOWARN)?;
        for folio in folios {
            for page in 0..folio.pages() {
                array.push(folio.first().as_ptr().wrapping_add(page), GFP_KERNEL)?;
            }
        }
        let count = count.try_into()?;
        let mut table = bindings::sg_table::default();
        // SAFETY: `array` holds at least `count` valid pages, and the bytes begin in the first and end
        // in the last of those; `table` is to be filled.
        to_result(unsafe {
            bindings::sg_alloc_table_from_pages_segment(
                &mut table,
                array.as_mut_ptr(),
                count,
                offset as u32,
                len,
                longest,
                bindings::GFP_KERNEL,
            )
        })?;
        Ok(table)
    }

    /// How many entries it has.
    pub fn entries(&self) -> usize {
        self.table.orig_nents as usize
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none; never, since such a list is refused.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the folios back.
    pub fn into_folios(mut self) -> KVVec<Folio> {
        core::mem::replace(&mut self.folios, KVVec::new())
    }
}

impl Drop for ScatterList {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it was filled, and nobody uses it any more. Its entries are
        // in pages, or of kmalloc().
        unsafe { bindings::sg_free_table(&mut self.table) };
        kvfree::free(core::mem::replace(&mut self.folios, KVVec::new()));
    }
}

/// What pieces are made of. Nobody touches it until it is given back.
pub(crate) enum Store {
    Vecs(KVec<KVVec<u8>>),
    Pages(KVec<BioVec>),
    Table(ScatterList),
}

/// Where a piece is.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// At an address.
    Mapped(NonNull<u8>),
    /// In pages that follow each other, from a byte on that is counted from the first.
    Pages(NonNull<bindings::page>, usize),
}

/// What memory can be made of that is in pieces.
///
/// # Safety
///
/// The bytes that [`Origin::list`] tells are there, stay where they are when the value moves, and
/// nobody else uses them, as long as the value is not touched.
pub(crate) unsafe trait Origin: Sized {
    /// How many pieces there are.
    fn count(&self) -> usize;

    /// Calls `add` with the place of each piece, and how many bytes are there, in their order.
    fn list(&mut self, add: impl FnMut(Place, usize) -> Result) -> Result;

    /// Puts it away.
    fn store(self) -> Store;

    /// Takes it out, if it is that.
    fn take(store: Store) -> Result<Self, Store>;
}

// SAFETY: A vector owns its bytes and points at them.
unsafe impl Origin for KVec<KVVec<u8>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn list(&mut self, mut add: impl FnMut(Place, usize) -> Result) -> Result {
        for vec in self {
            // An empty vector's pointer is dangling, and never null.
            let ptr = NonNull::new(vec.as_mut_ptr()).ok_or(EINVAL)?;
            add(Place::Mapped(ptr), vec.len())?;
        }
        Ok(())
    }

    fn store(self) -> Store {
        Store::Vecs(self)
    }

    fn take(store: Store) -> Result<Self, Store> {
        match store {
            Store::Vecs(vecs) => Ok(vecs),
            other => Err(other),
        }
    }
}

// SAFETY: A folio is owned and pointed at; that the bytes are in it is checked.
unsafe impl Origin for KVec<BioVec> {
    fn count(&self) -> usize {
        self.len()
    }

    fn list(&mut self, mut add: impl FnMut(Place, usize) -> Result) -> Result {
        for BioVec { folio, offset, len } in self {
            if offset.checked_add(*len).is_none_or(|end| end > folio.len()) {
                return Err(EINVAL);
            }
            add(Place::Pages(folio.first(), *offset), *len)?;
        }
        Ok(())
    }

    fn store(self) -> Store {
        Store::Pages(self)
    }

    fn take(store: Store) -> Result<Self, Store> {
        match store {
            Store::Pages(pages) => Ok(pages),
            other => Err(other),
        }
    }
}

// SAFETY: By its invariant the list's entries are bytes of the folios that it owns and points at.
unsafe impl Origin for ScatterList {
    fn count(&self) -> usize {
        self.entries()
    }

    fn list(&mut self, mut add: impl FnMut(Place, usize) -> Result) -> Result {
        let none = door::kfi_piece {
            page: ptr::null_mut(),
            offset: 0,
            len: 0,
        };
        let mut pieces = KVec::from_elem(none, self.entries(), GFP_KERNEL)?;
        let table = ptr::from_ref(&self.table);
        // SAFETY: By the type invariant the table was filled, and there is room for each entry.
        unsafe { door::kfi_pieces_of_table(table.cast(), pieces.as_mut_ptr()) };
        for piece in &pieces {
            let page = NonNull::new(piece.page).ok_or(EINVAL)?;
            add(Place::Pages(page, piece.offset), piece.len)?;
        }
        Ok(())
    }

    fn store(self) -> Store {
        Store::Table(self)
    }

    fn take(store: Store) -> Result<Self, Store> {
        match store {
            Store::Table(table) => Ok(table),
            other => Err(other),
        }
    }
}

/// Volatile memory in pieces that others may write at any moment. Dropped in any context but NMI.
///
/// # Invariants
///
/// - There are as many `places` as `ends`, which ascend; a piece is as long as its end is beyond
///   the end before it.
/// - The bytes at each place belong to `store` and stay there as long as it is not touched. No
///   reference to them is formed, since `store` is handed out by value only.
pub(crate) struct Pieces {
    ends: KVec<usize>,
    places: KVec<Place>,
    store: Store,
}

// SAFETY: What is in the store may move between threads, and the places point into it.
unsafe impl Send for Pieces {}
// SAFETY: Shared pieces give out windows only, which allow concurrent use.
unsafe impl Sync for Pieces {}

impl Pieces {
    /// Takes over what memory is made of, and writes down where it is; gives it back on failure.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// - `EINVAL`: more than [`MAX`] pieces, or one that is not in its folio.
    /// - `ENOMEM`.
    pub(crate) fn new<O: Origin>(mut origin: O) -> Result<KBox<Pieces>, (Error, O)> {
        let (ends, places) = match Self::find(&mut origin) {
            Ok(found) => found,
            Err(error) => return Err((error, origin)),
        };
        let Ok(room) = KBox::<Pieces>::new_uninit(GFP_KERNEL) else {
            return Err((ENOMEM, origin));
        };
        // INVARIANT: `find` has listed the pieces, which stay where they are when `origin` moves.
        let pieces = Pieces {
            ends,
            places,
            store: origin.store(),
        };
        Ok(KBox::write(room, pieces))
    }

    /// Lists the ends and places of the pieces.
    fn find<O: Origin>(origin: &mut O) -> Result<(KVec<usize>, KVec<Place>)> {
        let count = origin.count();
        if count > MAX {
            return Err(EINVAL);
        }
        let mut ends = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut places = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut total = 0usize;
        origin.list(|place, len| {
            total = total.checked_add(len).ok_or(EINVAL)?;
            ends.push(total, GFP_KERNEL)?;
            places.push(place, GFP_KERNEL)?;
            Ok(())
        })?;
        Ok((ends, places))
    }

    /// Gives back what the memory is made of, if it is an `O`: nobody else may write to it any more.
    pub(crate) fn into_origin<O: Origin>(mut this: KBox<Self>) -> Result<O, KBox<Self>> {
        // Without places: then it does not matter what is stored.
        let nothing = (KVec::new(), KVec::new(), Store::Vecs(KVec::new()));
        let ends = core::mem::replace(&mut this.ends, nothing.0);
        let places = core::mem::replace(&mut this.places, nothing.1);
        match O::take(core::mem::replace(&mut this.store, nothing.2)) {
            Ok(origin) => Ok(origin),
            Err(store) => {
                // INVARIANT: As it was.
                (this.ends, this.places, this.store) = (ends, places, store);
                Err(this)
            }
        }
    }

    /// Returns how many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether each piece that has bytes begins and ends at a multiple of `size`.
    pub(crate) fn are_aligned(&self, size: usize) -> bool {
        let mut start = 0;
        self.ends.iter().zip(&self.places).all(|(end, place)| {
            let len = end - start;
            start = *end;
            let from = match place {
                Place::Mapped(ptr) => ptr.addr().get(),
                Place::Pages(_, offset) => *offset,
            };
            len == 0 || (from % size == 0 && len % size == 0)
        })
    }

    /// Calls `f` with windows on `len` bytes from `offset`, in ascending order: each with how many
    /// bytes were before it. Any context.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds; `f` is not called.
    /// - those of `f`, which is not called again.
    #[inline]
    pub(crate) fn each(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(usize, Window<'_>) -> Result,
    ) -> Result {
        for run in Runs::new(&self.ends, offset, len).ok_or(EINVAL)? {
            match self.places.get(run.piece).ok_or(EINVAL)? {
                Place::Mapped(ptr) => {
                    // SAFETY: By the type invariant the run is in the bytes of the piece.
                    let start = unsafe { ptr.add(run.skip) };
                    // SAFETY: So are its bytes, which are there as long as `self`, and to which no
                    // reference exists.
                    let window = unsafe { Window::new(start, run.len, Source::Memory) };
                    f(run.at, window)?;
                }
                Place::Pages(page, start) => {
                    let mut done = 0;
                    while done < run.len {
                        let from = start + run.skip + done;
                        let part = (run.len - done).min(PAGE_SIZE - from % PAGE_SIZE);
                        // SAFETY: By the type invariant `from` is in the pages of the piece, and
                        // `part` bytes on from there are in the same page.
                        let mapped = unsafe { Mapped::new(*page, from, part) };
                        f(run.at + done, mapped.window())?;
                        done += part;
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `f` with the first of `len` bytes from `offset` on, for an iterator. Any context.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    pub(crate) fn with_segments<R>(
        &self,
        offset: usize,
        len: usize,
        f: impl FnOnce(&Segments<'_>) -> R,
    ) -> Result<R> {
        let mut segments = match self.places.first() {
            Some(Place::Pages(..)) => Segments::pages(),
            _ => Segments::mapped(),
        };
        for run in Runs::new(&self.ends, offset, len).ok_or(EINVAL)? {
            let there_is_room = match self.places.get(run.piece).ok_or(EINVAL)? {
                // SAFETY: By the type invariant the run is in the bytes of the piece, which are there as long as
                // `self`, and to which no reference exists.
                Place::Mapped(ptr) => unsafe { segments.add_mapped(ptr.add(run.skip), run.len) },
                // SAFETY: As above: the run is in the pages of the piece.
                Place::Pages(page, start) => unsafe {
                    segments.add_pages(*page, start + run.skip, run.len)
                },
            };
            if !there_is_room {
                break;
            }
        }
        Ok(f(&segments))
    }

    /// Calls `f` with a window on `len` bytes from `offset`, which must be in one piece. Any context.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds; in several pieces or pages; or no bytes.
    /// - those of `f`.
    pub(crate) fn with<T>(
        &self,
        offset: usize,
        len: usize,
        f: impl FnOnce(Window<'_>) -> Result<T>,
    ) -> Result<T> {
        let (mut f, mut given) = (Some(f), Err(EINVAL));
        self.each(offset, len, |_, window| {
            let f = f.take().filter(|_| window.len() == len).ok_or(EINVAL)?;
            given = f(window);
            Ok(())
        })?;
        given
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        // As `SharedBytes`. A table sees to its own; the other vectors are of kmalloc().
        if let Store::Vecs(vecs) = &mut self.store {
            for vec in vecs {
                kvfree::free(core::mem::replace(vec, KVVec::new()));
            }
        }
    }
}

/// Bytes of one page, mapped for the CPU that uses this.
///
/// # Invariants
///
/// `len` bytes from `ptr` are mapped by `kfi_piece_map()`, and no reference to them exists.
struct Mapped {
    ptr: NonNull<u8>,
    len: usize,
}

impl Mapped {
    /// Maps `len` bytes from `offset`, counted from the start of `page`.
    ///
    /// # Safety
    ///
    /// The bytes are in one page, which follows `page` by as many pages as are before `offset`, is
    /// there as long as the result, and has no reference to it. What is mapped last goes first.
    unsafe fn new(page: NonNull<bindings::page>, offset: usize, len: usize) -> Mapped {
        // SAFETY: By the caller's word.
        let ptr = unsafe { door::kfi_piece_map(page.as_ptr(), offset) };
        // INVARIANT: Just mapped, up to the end of the page at least.
        Mapped {
            // SAFETY: A mapping is never null.
            ptr: unsafe { NonNull::new_unchecked(ptr.cast()) },
            len,
        }
    }

    fn window(&self) -> Window<'_> {
        // SAFETY: By the type invariant, as long as `self`, which the window borrows.
        unsafe { Window::new(self.ptr, self.len, Source::Memory) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is mapped; it was the last mapping that is still there,
        // for it lived in `Pieces::each` only, and what was mapped inside is gone.
        unsafe { bindings::kunmap_local(self.ptr.as_ptr().cast()) };
    }
}

#[kunit_tests(kfabric_pieces)]
mod tests {
    use super::*;

    /// Folios of those orders, whose bytes are all 0.
    fn folios(orders: &[u32]) -> Result<KVVec<Folio>> {
        let mut folios = KVVec::new();
        for order in orders {
            folios.push(Folio::zeroed(*order)?, GFP_KERNEL)?;
        }
        Ok(folios)
    }

    /// Why a scatterlist of two folios is not to be had.
    fn refusal(orders: [u32; 2], offset: usize, len: usize, longest: u32) -> Result<Option<Error>> {
        let refused = ScatterList::new(folios(&orders)?, offset, len, longest).err();
        Ok(refused.map(|(error, folios)| {
            assert_eq!(folios.len(), 2);
            error
        }))
    }

    #[test]
    fn scatterlist_begins_in_its_first_page_and_ends_in_its_last_folio() -> Result {
        const P: usize = PAGE_SIZE;
        for (offset, len, good) in [
            (0, 2 * P, true),
            (0, P + 1, true),
            (0, P, false),
            (0, 2 * P + 1, false),
            (1, 2 * P - 1, true),
            (1, 2 * P, false),
            (P - 1, 2, true),
            (P - 1, 1, false),
            (P, 1, false),
            (0, 0, false),
            (1, usize::MAX, false),
        ] {
            let expected = if good { None } else { Some(EINVAL) };
            assert_eq!(refusal([0, 0], offset, len, u32::MAX)?, expected);
        }
        assert_eq!(refusal([0, 0], 0, 2 * P, P as u32)?, None);
        assert_eq!(refusal([0, 0], 0, 2 * P, P as u32 - 1)?, Some(EINVAL));
        // Of two and four pages.
        for (offset, len, good) in [
            (0, 6 * P, true),
            (0, 6 * P + 1, false),
            (P - 1, 5 * P + 1, true),
            (P, 5 * P, false),
            (0, 2 * P + 1, true),
            (0, 2 * P, false),
        ] {
            let expected = if good { None } else { Some(EINVAL) };
            assert_eq!(refusal([1, 2], offset, len, u32::MAX)?, expected);
        }
        Ok(())
    }

    #[test]
    fn windows_of_pages_end_where_pages_do() -> Result {
        let list = ScatterList::new(folios(&[0, 1, 0])?, 100, 3 * PAGE_SIZE, u32::MAX);
        let list = list.map_err(|(error, _)| error)?;
        let pieces = Pieces::new(list).map_err(|(error, _)| error)?;
        let mut seen = 0;
        pieces.each(10, 3 * PAGE_SIZE - 20, |at, window| {
            assert_eq!(at, seen);
            let from = (110 + at) % PAGE_SIZE;
            assert!(from + window.len() <= PAGE_SIZE);
            seen += window.len();
            Ok(())
        })?;
        assert_eq!(seen, 3 * PAGE_SIZE - 20);
        // The entries of a scatterlist are its own; the folios come back with it.
        let Ok(list) = Pieces::into_origin::<ScatterList>(pieces) else {
            return Err(EINVAL);
        };
        assert_eq!((list.len(), list.into_folios().len()), (3 * PAGE_SIZE, 3));
        Ok(())
    }

    #[test]
    fn origin_of_another_kind_is_not_given_back() -> Result {
        let mut vecs = KVec::new();
        vecs.push(KVVec::from_elem(7u8, 10, GFP_KERNEL)?, GFP_KERNEL)?;
        let pieces = Pieces::new(vecs).map_err(|(error, _)| error)?;
        let Err(pieces) = Pieces::into_origin::<ScatterList>(pieces) else {
            return Err(EINVAL);
        };
        // It is as it was.
        assert_eq!(pieces.len(), 10);
        let mut byte = [0];
        pieces.with(9, 1, |window| window.read(&mut byte))?;
        assert_eq!(byte, [7]);
        let vecs = Pieces::into_origin::<KVec<KVVec<u8>>>(pieces);
        assert!(vecs.is_ok_and(|vecs| vecs.len() == 1));
        Ok(())
    }
}
