// SPDX-License-Identifier: GPL-2.0

//! A value with one owner, who gets it back when nobody uses it any more.
//!
//! [`kernel::sync::Arc`] forgets who the owner is: its value can't be had back without losing the
//! handle when there is another. An [`Owner`] lends [`Lease`]s, which may outlive it, and
//! [`Owner::reclaim`] returns the value or, while a lease is out, the owner.
//!
//! In an [`Offer`] a value is found without a lock. Who finds it counts a use of it, and may come too
//! late: then the count has gone to zero, and what is left is the memory of the count, which is freed
//! after a grace period.

use super::{bindings as door, once, rcu};
use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full};
use kernel::sync::rcu::Guard;
use kernel::sync::Refcount;
use kernel::types::Opaque;

/// # Invariants
///
/// It was allocated as a `KBox`. `value` is there while `users` is not zero, which it never leaves.
/// The allocation is there until a grace period after that.
#[repr(C)]
struct Inner<T> {
    /// First: the allocation is freed by it.
    lent: Opaque<door::kfi_lent>,
    /// The owner, the leases, and the offers. It saturates: leases that are forgotten in numbers leak
    /// the value, and never free it early.
    users: Refcount,
    value: UnsafeCell<ManuallyDrop<T>>,
}

/// The owner of a lent value.
pub(crate) struct Owner<T>(NonNull<Inner<T>>);

/// The use of a lent value; keeps it alive.
pub(crate) struct Lease<T>(NonNull<Inner<T>>);

// SAFETY: An owner gives `&T` and, in the end, `T`, from any thread.
unsafe impl<T: Send + Sync> Send for Owner<T> {}
// SAFETY: A shared owner gives `&T` and leases.
unsafe impl<T: Send + Sync> Sync for Owner<T> {}
// SAFETY: A lease gives `&T`, and the last one drops `T`.
unsafe impl<T: Send + Sync> Send for Lease<T> {}
// SAFETY: A shared lease gives `&T` and leases.
unsafe impl<T: Send + Sync> Sync for Lease<T> {}

/// The count of `inner`.
///
/// # Safety
///
/// `inner` is used, or was seen in an offer in a read section that lasts for `'a`.
#[inline]
unsafe fn users<'a, T>(inner: NonNull<Inner<T>>) -> &'a Refcount {
    // SAFETY: By the caller's word, and the invariant of `Inner`, the allocation is there. Only the
    // count is borrowed, since the value may go meanwhile.
    unsafe { &(*inner.as_ptr()).users }
}

/// Drops a use of `inner`, and the value with the last.
#[inline]
fn put<T>(inner: NonNull<Inner<T>>) {
    // SAFETY: The caller's use is counted until here.
    if !once::use_less(unsafe { users(inner) }) {
        put_last(inner);
    }
}

/// Drops a use of `inner` that may be the last.
#[cold]
#[inline(never)]
fn put_last<T>(inner: NonNull<Inner<T>>) {
    // SAFETY: The caller's use is counted until here.
    if unsafe { users(inner) }.dec_and_test() {
        // SAFETY: That was the last use, and there will be no other.
        drop(unsafe { retire(inner) });
    }
}

/// Takes the value out, and has the rest freed.
///
/// # Safety
///
/// The caller has just made the count zero.
unsafe fn retire<T>(inner: NonNull<Inner<T>>) -> T {
    // SAFETY: The allocation is there, and nobody but the caller comes to the value any more.
    let value = unsafe { ManuallyDrop::take(&mut *(*inner.as_ptr()).value.get()) };
    // SAFETY: It begins with its head; nobody but readers of an offer look at it, and those only
    // until the end of their section.
    unsafe { free(inner.cast()) };
    value
}

/// Has the kernel free an allocation after a grace period.
///
/// # Safety
///
/// It is a `KBox`'s and begins with `lent`, and only read sections that have begun use it.
// Not generic: it is called from other modules, which don't see what it calls.
#[inline(never)]
unsafe fn free(lent: NonNull<door::kfi_lent>) {
    // SAFETY: By the caller's word.
    unsafe { door::kfi_lent_free(lent.as_ptr()) };
}

impl<T> Owner<T> {
    /// Allocates room for `value`; gives it back if there is none. May sleep.
    pub(crate) fn new(value: T) -> Result<Self, T> {
        let Ok(room) = KBox::<Inner<T>>::new_uninit(GFP_KERNEL) else {
            return Err(value);
        };
        let inner = Inner {
            lent: Opaque::uninit(),
            users: Refcount::new(1),
            value: UnsafeCell::new(ManuallyDrop::new(value)),
        };
        Ok(Owner(NonNull::from(KBox::leak(KBox::write(room, inner)))))
    }

    /// Lends the value. Any context.
    pub(crate) fn lease(&self) -> Lease<T> {
        lend(self.0)
    }

    /// The value, if no lease is out; else the owner again. Any context.
    pub(crate) fn reclaim(self) -> Result<T, Self> {
        // SAFETY: The owner's use is counted.
        let users = unsafe { users(self.0) };
        if users.as_atomic().cmpxchg(1, 0, Full).is_err() {
            return Err(self);
        }
        let inner = self.0;
        core::mem::forget(self);
        // SAFETY: The count was just made zero.
        Ok(unsafe { retire(inner) })
    }
}

fn lend<T>(inner: NonNull<Inner<T>>) -> Lease<T> {
    // SAFETY: The caller's own use is counted meanwhile.
    unsafe { users(inner) }.inc();
    Lease(inner)
}

impl<T> Clone for Lease<T> {
    fn clone(&self) -> Self {
        lend(self.0)
    }
}

impl<T> Deref for Owner<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The owner's use is counted.
        unsafe { &*self.0.as_ref().value.get() }
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: The lease's use is counted.
        unsafe { &*self.0.as_ref().value.get() }
    }
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        put(self.0);
    }
}

impl<T> Drop for Lease<T> {
    #[inline]
    fn drop(&mut self) {
        put(self.0);
    }
}

/// Where a value is found without a lock, until it is withdrawn.
///
/// # Invariants
///
/// `value` is null, or that of a lease which is the offer's.
pub(crate) struct Offer<T>(Atomic<*mut Inner<T>>);

// SAFETY: A shared offer gives leases, and takes them.
unsafe impl<T: Send + Sync> Sync for Offer<T> {}
// SAFETY: An offer is a lease, or none.
unsafe impl<T: Send + Sync> Send for Offer<T> {}

impl<T> Offer<T> {
    /// Offers nothing.
    pub(crate) const fn none() -> Self {
        Offer(Atomic::new(ptr::null_mut()))
    }

    /// Offers `lease`, instead of what was offered. Any context, if that was nothing.
    pub(crate) fn open(&self, lease: Lease<T>) {
        let inner = lease.0.as_ptr();
        core::mem::forget(lease);
        drop(Self::lease_of(self.0.xchg(inner, Full)));
    }

    /// Offers nothing any more; gives what was offered. Any context.
    ///
    /// Who found it before has a lease of it, or is just about to take one, in a read section; or comes
    /// too late, when all uses have been given up.
    pub(crate) fn withdraw(&self) -> Option<Lease<T>> {
        Self::lease_of(self.0.xchg(ptr::null_mut(), Full))
    }

    /// A lease of what is offered. Never waits; any context.
    #[inline]
    pub(crate) fn lease(&self, section: &Guard) -> Option<Lease<T>> {
        try_lend(NonNull::new(rcu::dereference(&self.0))?, section)
    }

    fn lease_of(inner: *mut Inner<T>) -> Option<Lease<T>> {
        NonNull::new(inner).map(Lease)
    }
}

/// A lease of what was seen in an offer in this section; `None` if all uses were given up since.
#[inline]
fn try_lend<T>(inner: NonNull<Inner<T>>, _section: &Guard) -> Option<Lease<T>> {
    // SAFETY: It was seen in this read section.
    let users = unsafe { users(inner) };
    // SAFETY: A `Refcount` is a `refcount_t`, which is there for the whole section.
    let try_last = || unsafe { door::kfi_lent_use(ptr::from_ref(users).cast_mut().cast()) };
    let used = once::use_again(users) || try_last();
    // Not made unless it was counted: a lease that goes gives its use up.
    used.then(|| Lease(inner))
}

impl<T> Default for Offer<T> {
    fn default() -> Self {
        Self::none()
    }
}

impl<T> Drop for Offer<T> {
    fn drop(&mut self) {
        drop(self.withdraw());
    }
}

#[kunit_tests(kfabric_lease)]
mod tests {
    use super::*;
    use kernel::sync::rcu;

    #[test]
    fn reclaim_waits_for_the_last_lease() {
        let owner = Owner::new(7u32).ok().unwrap();
        let lease = owner.lease();
        let again = lease.clone();
        let owner = owner.reclaim().err().unwrap();
        drop(lease);
        let owner = owner.reclaim().err().unwrap();
        drop(again);
        assert_eq!(owner.reclaim().ok(), Some(7));
    }

    #[test]
    fn lease_outlives_its_owner() {
        let owner = Owner::new(7u32).ok().unwrap();
        let lease = owner.lease();
        drop(owner);
        assert_eq!(*lease, 7);
    }

    #[test]
    fn offer_leads_to_its_value_until_it_is_withdrawn() {
        let owner = Owner::new(7u32).ok().unwrap();
        let offer = Offer::none();
        let section = rcu::read_lock();
        assert!(offer.lease(&section).is_none());
        offer.open(owner.lease());
        let found = offer.lease(&section);
        assert_eq!(found.as_deref(), Some(&7));
        drop(section);
        let owner = owner.reclaim().err().unwrap();
        drop(found);
        // The offer itself is a use.
        let owner = owner.reclaim().err().unwrap();
        drop(offer.withdraw());
        assert!(offer.lease(&rcu::read_lock()).is_none());
        assert_eq!(owner.reclaim().ok(), Some(7));
    }

    #[test]
    fn offer_that_goes_gives_its_use_up() {
        let owner = Owner::new(7u32).ok().unwrap();
        let offer = Offer::none();
        offer.open(owner.lease());
        offer.open(owner.lease());
        drop(offer);
        assert_eq!(owner.reclaim().ok(), Some(7));
    }

    #[test]
    fn who_comes_after_the_last_use_gets_none() {
        let owner = Owner::new(7u32).ok().unwrap();
        let section = rcu::read_lock();
        let seen = owner.0;
        assert_eq!(try_lend(seen, &section).as_deref(), Some(&7));
        assert_eq!(owner.reclaim().ok(), Some(7));
        // What has been seen is there until the section ends, and is nobody's.
        assert!(try_lend(seen, &section).is_none());
        drop(section);

        let owner = Owner::new(8u32).ok().unwrap();
        let section = rcu::read_lock();
        let seen = owner.0;
        drop(owner);
        assert!(try_lend(seen, &section).is_none());
        drop(section);
    }
}
