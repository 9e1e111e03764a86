// SPDX-License-Identifier: GPL-2.0

//! A value with one owner, who gets it back when nobody uses it any more.
//!
//! [`kernel::sync::Arc`] forgets who the owner is: its value can't be had back without losing the
//! handle when there is another. An [`Owner`] lends [`Lease`]s, which may outlive it, and
//! [`Owner::reclaim`] returns the value or, while a lease is out, the owner.

use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::atomic::Full;
use kernel::sync::Refcount;

struct Inner<T> {
    /// The owner and the leases. It saturates: leases that are forgotten in numbers leak the value,
    /// and never free it early.
    users: Refcount,
    value: T,
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

/// Drops a use of `inner`, and the value with the last.
fn put<T>(inner: NonNull<Inner<T>>) {
    // SAFETY: The caller's use is counted until here.
    let users = unsafe { &inner.as_ref().users };
    if users.dec_and_test() {
        // SAFETY: It came from a `KBox`, and that was the last use.
        drop(unsafe { KBox::from_raw(inner.as_ptr()) });
    }
}

impl<T> Owner<T> {
    /// Allocates room for `value`; gives it back if there is none. May sleep.
    pub(crate) fn new(value: T) -> Result<Self, T> {
        let Ok(room) = KBox::<Inner<T>>::new_uninit(GFP_KERNEL) else {
            return Err(value);
        };
        let inner = KBox::write(
            room,
            Inner {
                users: Refcount::new(1),
                value,
            },
        );
        Ok(Owner(NonNull::from(KBox::leak(inner))))
    }

    /// Lends the value. Any context.
    pub(crate) fn lease(&self) -> Lease<T> {
        lend(self.0)
    }

    /// The value, if no lease is out; else the owner again. Any context.
    pub(crate) fn reclaim(self) -> Result<T, Self> {
        // SAFETY: The owner's use is counted.
        let users = unsafe { &self.0.as_ref().users };
        if users.as_atomic().cmpxchg(1, 0, Full).is_err() {
            return Err(self);
        }
        let inner = self.0;
        core::mem::forget(self);
        // SAFETY: It came from a `KBox`, and the owner was the only user, so nobody can make
        // another lease.
        let inner = unsafe { KBox::from_raw(inner.as_ptr()) };
        Ok(KBox::into_inner(inner).value)
    }
}

fn lend<T>(inner: NonNull<Inner<T>>) -> Lease<T> {
    // SAFETY: The caller's own use is counted meanwhile.
    unsafe { inner.as_ref() }.users.inc();
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
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: The lease's use is counted.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        put(self.0);
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        put(self.0);
    }
}

#[kunit_tests(kfabric_lease)]
mod tests {
    use super::*;

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
}
