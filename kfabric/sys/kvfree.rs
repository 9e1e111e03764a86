// SPDX-License-Identifier: GPL-2.0

//! Freeing vectors where nobody may sleep.
//!
//! What the fabric holds may go anywhere: the last use of a region can be that of a silent message,
//! which ends in the post of its receiver. The drop of a vector calls `kvfree()`, and for a long one
//! `vfree()`, which sleeps wherever it is not called in an interrupt.
//!
//! Source: kvfree_atomic() in mm/slub.c, vfree_atomic() in mm/vmalloc.c.

use core::mem::{size_of, take};
use core::ops::Deref;
use kernel::{bindings, prelude::*};

/// Drops what is in `vec`, and frees its room. Any context but NMI, also with a spinlock held.
///
/// What is in it must be fit for that context. The room of a long vector is freed soon, by a work
/// item of the kernel.
pub(super) fn free<T>(mut vec: KVVec<T>) {
    vec.clear();
    let (ptr, _, cap) = vec.into_raw_parts();
    // Else there is no room, and the pointer is dangling.
    if cap > 0 && size_of::<T>() > 0 {
        // SAFETY: The room of a `KVVec` is of krealloc() or vrealloc(), which this frees; it was
        // the vector's own, and the vector is gone.
        unsafe { bindings::kvfree_atomic(ptr.cast_const().cast()) };
    }
}

/// The elements of a vector, which are dropped, and their room freed, as by [`free`].
pub(crate) struct Anywhere<T>(KVVec<T>);

impl<T> From<KVVec<T>> for Anywhere<T> {
    fn from(vec: KVVec<T>) -> Self {
        Anywhere(vec)
    }
}

impl<T> Deref for Anywhere<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> Drop for Anywhere<T> {
    fn drop(&mut self) {
        free(take(&mut self.0));
    }
}

#[kunit_tests(kfabric_kvfree)]
mod tests {
    use super::*;
    use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};

    /// Does something with a spinlock held and interrupts disabled.
    fn atomically(act: impl FnOnce()) -> Result {
        let lock: Pin<KBox<SpinLockIrq<()>>> =
            KBox::pin_init(new_spinlock_irq!((), "kfabric_kvfree"), GFP_KERNEL)?;
        let guard = lock.lock();
        act();
        drop(guard);
        Ok(())
    }

    #[test]
    fn vector_of_any_length_is_freed_where_nobody_may_sleep() -> Result {
        // The longest is longer than kmalloc() has, so it is vmalloc()'s.
        for len in [0, 1, 4096, 8 << 20] {
            let vec = KVVec::<u8>::zeroed(len, GFP_KERNEL)?;
            atomically(|| free(vec))?;
        }
        // Room, and nothing in it.
        let vec = KVVec::<u64>::with_capacity(1 << 20, GFP_KERNEL)?;
        atomically(|| free(vec))
    }

    #[test]
    fn what_is_in_a_vector_is_dropped_once() -> Result {
        let value = Arc::new(7, GFP_KERNEL)?;
        let mut vec = KVVec::new();
        for _ in 0..3 {
            vec.push(value.clone(), GFP_KERNEL)?;
        }
        atomically(|| free(vec))?;
        assert_eq!(*value, 7);
        assert!(Arc::into_unique_or_drop(value).is_some());
        // What has no size needs no room.
        let mut vec = KVVec::new();
        vec.push((), GFP_KERNEL)?;
        atomically(|| free(vec))
    }
}
