// SPDX-License-Identifier: GPL-2.0

//! A shelf: one value that a callback without a state of its own leaves for others.

use core::ptr;
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Full},
};

/// A place for one value, for a `static`.
///
/// # Invariants
///
/// The pointer is null, or that of a `KBox<T>` which belongs to the shelf.
pub struct Shelf<T: Send>(Atomic<*mut T>);

// SAFETY: A shared shelf only moves values from one task to another.
unsafe impl<T: Send> Sync for Shelf<T> {}

impl<T: Send> Shelf<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Shelf(Atomic::new(ptr::null_mut()))
    }

    /// Puts `value` there; gives what was there before. May sleep. `ENOMEM`.
    pub fn put(&self, value: T) -> Result<Option<T>> {
        let value = KBox::into_raw(KBox::new(value, GFP_KERNEL)?);
        Ok(Self::own(self.0.xchg(value, Full)))
    }

    /// Takes what is there. Whoever uses a shelf empties it, since a `static` is never dropped.
    pub fn take(&self) -> Option<T> {
        Self::own(self.0.xchg(ptr::null_mut(), Full))
    }

    fn own(value: *mut T) -> Option<T> {
        if value.is_null() {
            return None;
        }
        // SAFETY: By the type invariant it is that of a box, which the exchange took from the shelf.
        Some(KBox::into_inner(unsafe { KBox::from_raw(value) }))
    }
}

impl<T: Send> Default for Shelf<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[kunit_tests(kfabric_shelf)]
mod tests {
    use super::*;

    #[test]
    fn shelf_has_the_last_that_was_put_there() -> Result {
        let shelf = Shelf::new();
        assert_eq!(shelf.take(), None);
        assert_eq!(shelf.put(1)?, None);
        // It comes back, and is not lost.
        assert_eq!(shelf.put(2)?, Some(1));
        assert_eq!(shelf.take(), Some(2));
        assert_eq!(shelf.take(), None);
        assert_eq!(shelf.put(3)?, None);
        assert_eq!(shelf.take(), Some(3));
        Ok(())
    }
}
