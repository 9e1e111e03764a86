// SPDX-License-Identifier: GPL-2.0

//! Folios: pages that follow each other and are had as one.

use super::bindings as door;
use core::ptr::NonNull;
use kernel::alloc::AllocError;
use kernel::bindings;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// Pages of memory that belong to whoever has this: 2^order of them, one after another.
///
/// Dropped in any context but NMI. Source: `struct folio`, include/linux/mm_types.h.
///
/// # Invariants
///
/// `first` is the first page of a folio of `1 << order` pages, and this holds a reference to it.
pub struct Folio {
    first: NonNull<bindings::page>,
    order: u32,
}

// SAFETY: A reference to a folio may be given up by any thread.
unsafe impl Send for Folio {}
// SAFETY: A shared folio tells numbers only.
unsafe impl Sync for Folio {}

impl Folio {
    /// Allocates one of `1 << order` pages, whose bytes are 0.
    ///
    /// Sleeps; process context. The greatest order is the kernel's `MAX_PAGE_ORDER`: 10 for pages of
    /// 4 KiB, which is 4 MiB.
    pub fn zeroed(order: u32) -> Result<Folio, AllocError> {
        // SAFETY: It reads a constant.
        if order > unsafe { door::kfi_folio_max_order() } {
            return Err(AllocError);
        }
        // SAFETY: The order is one that there is.
        let first = unsafe { door::kfi_folio_zalloc(order) };
        // INVARIANT: Just allocated.
        let first = NonNull::new(first).ok_or(AllocError)?;
        Ok(Folio { first, order })
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        1 << self.order
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.pages() * PAGE_SIZE
    }

    /// Whether it has none; never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The first page, which is there as long as this; the others follow it.
    pub fn first(&self) -> NonNull<bindings::page> {
        self.first
    }
}

impl Drop for Folio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this has a reference, which is not used any more.
        unsafe { door::kfi_folio_put(self.first.as_ptr()) };
    }
}

#[kunit_tests(kfabric_folio)]
mod tests {
    use super::*;

    #[test]
    fn folio_is_as_long_as_its_order_says() -> Result {
        for order in 0..5 {
            let folio = Folio::zeroed(order)?;
            assert_eq!(
                (folio.pages(), folio.len()),
                (1 << order, PAGE_SIZE << order)
            );
        }
        Ok(())
    }

    #[test]
    fn folio_beyond_the_greatest_is_not_to_be_had() {
        // SAFETY: It reads a constant.
        let most = unsafe { door::kfi_folio_max_order() };
        for order in [most + 1, 31, 32, 64, u32::MAX] {
            assert!(Folio::zeroed(order).is_err());
        }
    }
}
