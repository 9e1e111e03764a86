// SPDX-License-Identifier: GPL-2.0

//! A place for an [`Arc`] that is read without a lock, and without counting a use.
//!
//! Who reads it does so in an RCU read section, which borrows the value. Who takes the value out
//! waits for the sections that may have seen it.

use core::marker::PhantomData;
use core::ptr;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full};
use kernel::sync::rcu::{self, Guard};
use kernel::sync::{Arc, ArcBorrow};

/// A pointer that was stored as a release, to be looked at. Any context.
///
/// What is behind it is seen as it was then, or later: the address depends on what was loaded.
///
/// Source: `rcu_dereference()` of include/linux/rcupdate.h.
// Without a call of the kernel's helpers, which an `Atomic` makes for each load.
#[inline]
pub(super) fn dereference<T>(pointer: &Atomic<*mut T>) -> *mut T {
    // SAFETY: It is there and aligned, and all others load and store it as an atomic, too.
    unsafe { pointer.as_ptr().read_volatile() }
}

/// A place for an [`Arc`], or for none.
///
/// # Invariants
///
/// `value` is null, or comes from [`Arc::into_raw`]; that use of the `Arc` is the place's, and is given
/// up only after `value` has been changed and a grace period has passed, or when the place goes.
pub struct Place<T: Send + Sync + 'static> {
    value: Atomic<*mut T>,
    _owns: PhantomData<Arc<T>>,
}

impl<T: Send + Sync + 'static> Place<T> {
    /// An empty place.
    pub const fn empty() -> Self {
        Place {
            value: Atomic::new(ptr::null_mut()),
            _owns: PhantomData,
        }
    }

    /// What is in it; it stays while the section lasts. Never waits; any context.
    #[inline]
    pub fn get<'a>(&'a self, _section: &'a Guard) -> Option<ArcBorrow<'a, T>> {
        let value = dereference(&self.value);
        if value.is_null() {
            return None;
        }
        // SAFETY: By the invariant it is of an `Arc` of which the place has a use, which is not given
        // up before the section has ended, nor while the place is borrowed.
        Some(unsafe { ArcBorrow::from_raw(value) })
    }

    /// Puts `value` into it. What was there is dropped: then it sleeps, as [`Place::take`].
    pub fn put(&self, value: Arc<T>) {
        let value = Arc::into_raw(value).cast_mut();
        Self::let_go(self.value.xchg(value, Full));
    }

    /// Empties it, and gives what was there when no reader of the place uses it any more.
    ///
    /// Sleeps, unless it is empty: process context, not in a read section.
    pub fn take(&self) -> Option<Arc<T>> {
        Self::let_go(self.value.xchg(ptr::null_mut(), Full))
    }

    /// Gives what was in the place, after a grace period.
    fn let_go(value: *mut T) -> Option<Arc<T>> {
        if value.is_null() {
            return None;
        }
        rcu::synchronize_rcu();
        // SAFETY: By the invariant it comes from `Arc::into_raw`. The caller has just taken it out of
        // the place, so this use is given up once, and the readers that saw it there have ended.
        Some(unsafe { Arc::from_raw(value) })
    }
}

impl<T: Send + Sync + 'static> Default for Place<T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T: Send + Sync + 'static> Drop for Place<T> {
    fn drop(&mut self) {
        let value = *self.value.get_mut();
        if !value.is_null() {
            // SAFETY: As in `let_go`; a reader would borrow the place.
            drop(unsafe { Arc::from_raw(value) });
        }
    }
}

#[kunit_tests(kfabric_rcu)]
mod tests {
    use super::*;
    use kernel::sync::atomic::{Acquire, Relaxed, Release};
    use kernel::time::delay::udelay;
    use kernel::time::Delta;
    use kernel::workqueue::{self, impl_has_work, new_work, Work, WorkItem};

    #[test]
    fn what_is_put_is_found_until_it_is_taken() -> Result {
        let place = Place::empty();
        let section = rcu::read_lock();
        assert!(place.get(&section).is_none());
        drop(section);
        assert!(place.take().is_none());
        let value = Arc::new(7, GFP_KERNEL)?;
        place.put(value.clone());
        let section = rcu::read_lock();
        assert_eq!(place.get(&section).map(|found| *found), Some(7));
        drop(section);
        assert!(place
            .take()
            .is_some_and(|taken| Arc::ptr_eq(&taken, &value)));
        assert!(place.take().is_none());
        // The place has given its use up.
        assert!(Arc::into_unique_or_drop(value).is_some());
        Ok(())
    }

    #[test]
    fn place_that_goes_or_is_used_again_lets_go_of_what_was_in_it() -> Result {
        let (first, second) = (Arc::new(1, GFP_KERNEL)?, Arc::new(2, GFP_KERNEL)?);
        let place = Place::empty();
        place.put(first.clone());
        place.put(second.clone());
        assert!(Arc::into_unique_or_drop(first).is_some());
        drop(place);
        assert!(Arc::into_unique_or_drop(second).is_some());
        Ok(())
    }

    /// Empties a place from another thread.
    #[pin_data]
    struct Taker {
        place: Place<u32>,
        /// 1 once it has begun, 2 once it has the value.
        step: Atomic<u32>,
        #[pin]
        work: Work<Taker>,
    }

    impl_has_work! {
        impl HasWork<Self> for Taker { self.work }
    }

    impl WorkItem for Taker {
        type Pointer = Arc<Taker>;

        fn run(this: Arc<Taker>) {
            this.step.store(1, Release);
            drop(this.place.take());
            this.step.store(2, Release);
        }
    }

    #[test]
    fn taking_waits_for_the_section_that_found_it() -> Result {
        let taker = Arc::pin_init(
            pin_init!(Taker {
                place: Place::empty(),
                step: Atomic::new(0),
                work <- new_work!("kfabric_rcu"),
            }),
            GFP_KERNEL,
        )?;
        taker.place.put(Arc::new(7, GFP_KERNEL)?);
        let section = rcu::read_lock();
        let found = taker.place.get(&section).ok_or(EINVAL)?;
        let _ = workqueue::system_unbound().enqueue(taker.clone());
        // For a while: on one CPU it may not even begin.
        for _ in 0..1000 {
            udelay(Delta::from_micros(50));
            if taker.place.get(&section).is_none() {
                assert_eq!((taker.step.load(Acquire), *found), (1, 7));
            }
        }
        drop(section);
        crate::sys::work::flush(&taker.work);
        assert_eq!(taker.step.load(Relaxed), 2);
        Ok(())
    }
}
