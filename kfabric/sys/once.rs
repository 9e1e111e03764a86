// SPDX-License-Identifier: GPL-2.0

//! Accesses to atomics in place, for the path of an operation.
//!
//! The kernel crate's own are calls of C functions, which cost a handful of instructions where the
//! access is one, and registers around the call. Those of `core` are inlined, and are the processor's
//! own instructions as well: so both kinds may be used on one word. An order promises here what it
//! does there; `Full`, which `core` does not have, is not offered.

use core::sync::atomic::{fence, AtomicU64, Ordering};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, AtomicType};
use kernel::sync::Refcount;

/// As `load(Relaxed)`, which is C's `READ_ONCE()`.
#[inline(always)]
pub(crate) fn read<T: AtomicType>(atomic: &Atomic<T>) -> T {
    // SAFETY: The pointer is that of `atomic`, valid and aligned. A volatile load of a word is
    // `READ_ONCE()`, which in the kernel's memory model does not race with atomics.
    unsafe { atomic.as_ptr().read_volatile() }
}

/// As `store(Relaxed)`, which is C's `WRITE_ONCE()`.
#[inline(always)]
pub(crate) fn write<T: AtomicType>(atomic: &Atomic<T>, value: T) {
    // SAFETY: As in `read`; a volatile store of a word is `WRITE_ONCE()`.
    unsafe { atomic.as_ptr().write_volatile(value) };
}

/// As `load(Acquire)`.
#[inline(always)]
pub(crate) fn acquire<T: AtomicType>(atomic: &Atomic<T>) -> T {
    let value = read(atomic);
    fence(Ordering::Acquire);
    value
}

/// As `store(Release)`.
#[inline(always)]
pub(crate) fn release<T: AtomicType>(atomic: &Atomic<T>, value: T) {
    fence(Ordering::Release);
    write(atomic, value);
}

/// What is loaded before it is loaded before all that follows: C's `smp_rmb()`.
#[inline(always)]
pub(crate) fn barrier_of_loads() {
    fence(Ordering::Acquire);
}

/// The same word, for `core`.
#[inline(always)]
fn word(atomic: &Atomic<u64>) -> &AtomicU64 {
    // SAFETY: The pointer is that of `atomic`, valid and aligned for its life, and all others access
    // the word by atomic instructions, too.
    unsafe { AtomicU64::from_ptr(atomic.as_ptr()) }
}

/// As `add(_, Relaxed)`.
#[inline(always)]
pub(crate) fn add(atomic: &Atomic<u64>, n: u64) {
    word(atomic).fetch_add(n, Ordering::Relaxed);
}

/// As `cmpxchg(_, _, Acquire)`.
#[inline(always)]
pub(crate) fn replace_acquire(atomic: &Atomic<u64>, old: u64, new: u64) -> Result<u64, u64> {
    word(atomic).compare_exchange(old, new, Ordering::Acquire, Ordering::Relaxed)
}

/// As `cmpxchg(_, _, Release)`.
#[inline(always)]
pub(crate) fn replace_release(atomic: &Atomic<u64>, old: u64, new: u64) -> Result<u64, u64> {
    word(atomic).compare_exchange(old, new, Ordering::Release, Ordering::Relaxed)
}

/// Counts one use more or less of what is used `from` times, in one step; `false`: not counted.
///
/// For counts that are neither at their end nor saturated: what it does not count, C's functions for
/// a `refcount_t` must. It orders as those do: giving up a use is a release, taking one is nothing.
#[inline(always)]
fn recount(users: &Refcount, from: i32, to: i32) -> bool {
    let word = users.as_atomic().as_ptr();
    // SAFETY: As in `word`.
    let word = unsafe { core::sync::atomic::AtomicI32::from_ptr(word) };
    let order = match to > from {
        true => Ordering::Relaxed,
        false => Ordering::Release,
    };
    word.compare_exchange(from, to, order, Ordering::Relaxed)
        .is_ok()
}

/// Counts one use more, if there is one and not very many; `false`: not counted.
#[inline(always)]
pub(crate) fn use_again(users: &Refcount) -> bool {
    let now = read(users.as_atomic());
    now > 0 && now < i32::MAX && recount(users, now, now + 1)
}

/// Counts one use less, if it is not the last; `false`: not counted.
#[inline(always)]
pub(crate) fn use_less(users: &Refcount) -> bool {
    let now = read(users.as_atomic());
    now > 1 && recount(users, now, now - 1)
}

#[kunit_tests(kfabric_once)]
mod tests {
    use super::*;

    #[test]
    fn word_is_added_to_and_replaced_as_by_the_kernel() {
        let word = Atomic::new(5u64);
        add(&word, 2);
        assert_eq!((read(&word), acquire(&word)), (7, 7));
        assert_eq!(replace_acquire(&word, 6, 1), Err(7));
        assert_eq!(replace_acquire(&word, 7, 1), Ok(7));
        assert_eq!(replace_release(&word, 7, 2), Err(1));
        assert_eq!(replace_release(&word, 1, 2), Ok(1));
        release(&word, u64::MAX);
        add(&word, 1);
        assert_eq!(read(&word), 0);
    }

    #[test]
    fn first_and_last_use_and_saturation_are_left_to_the_kernel() {
        for (from, more, less) in [
            (0, false, false),
            (1, true, false),
            (2, true, true),
            (i32::MAX - 1, true, true),
            (i32::MAX, false, true),
            (-1, false, false),
            (i32::MIN / 2, false, false),
        ] {
            let users = Refcount::new(1);
            write(users.as_atomic(), from);
            assert_eq!(use_again(&users), more);
            assert_eq!(read(users.as_atomic()), from + i32::from(more));
            write(users.as_atomic(), from);
            assert_eq!(use_less(&users), less);
            assert_eq!(read(users.as_atomic()), from - i32::from(less));
        }
    }
}
