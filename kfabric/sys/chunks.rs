// SPDX-License-Identifier: GPL-2.0

//! A table that grows and whose entries never move, so that it is read without a lock.
//!
//! It stands in chunks, each twice as long as the one before it. A chunk is allocated when it is
//! first needed, made known once, and stays for the life of the table. What an entry holds, and who
//! may change it when, is the entry's own affair.

use super::rcu;
use core::ptr;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Release};
use kernel::sync::SetOnce;
use kernel::time::delay::fsleep;
use kernel::time::Delta;

/// How many entries the first chunk has, as a power of 2.
const FIRST_BITS: u32 = 6;
const FIRST: u64 = 1 << FIRST_BITS;
const CHUNKS: usize = 26;

/// How many entries there can be: 2^32, but for the first chunk's.
const MAX: u64 = FIRST * ((1 << CHUNKS) - 1);

/// Which chunk an entry is in, and where there.
///
/// Chunk `n` has `FIRST << n` entries. So counted from `FIRST`, an entry's number has as its highest
/// bit that of its chunk's length, and below it the place there.
#[inline]
fn locate(index: u32) -> (usize, usize) {
    let number = u64::from(index) + FIRST;
    // At least `FIRST` already: the compiler sees from it that it is not 0.
    let bits = (number | FIRST).ilog2();
    ((bits - FIRST_BITS) as usize, (number ^ 1 << bits) as usize)
}

/// The table.
///
/// # Invariants
///
/// A pointer in `firsts` is null, or that to the entries of the chunk of that number in `chunks`, of
/// which there are `FIRST << number`.
pub struct Chunks<T> {
    firsts: [Atomic<*mut T>; CHUNKS],
    chunks: [SetOnce<KVVec<T>>; CHUNKS],
}

impl<T> Chunks<T> {
    /// A table that reaches nowhere.
    pub const fn new() -> Self {
        Chunks {
            firsts: [const { Atomic::new(ptr::null_mut()) }; CHUNKS],
            chunks: [const { SetOnce::new() }; CHUNKS],
        }
    }

    /// An entry; `None`: the table does not reach so far. Constant time; any context.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        // Most tables are small.
        let (chunk, at) = match u64::from(index) < FIRST {
            true => (0, index as usize),
            false => locate(index),
        };
        let first = rcu::dereference(self.firsts.get(chunk)?);
        if first.is_null() {
            return None;
        }
        // SAFETY: By the invariant it points at so many entries that `at` is one, see `locate`. They
        // stay as they are in their vector, which is changed no more, while the table is borrowed.
        Some(unsafe { &*first.add(at) })
    }
}

impl<T: Default> Chunks<T> {
    /// Grows the table until it reaches `index`. May sleep; several may do so at once.
    ///
    /// # Errors
    /// - `ENOSPC`: no table reaches so far.
    /// - `ENOMEM`.
    pub fn reach(&self, index: u32) -> Result {
        if u64::from(index) >= MAX {
            return Err(ENOSPC);
        }
        let chunks = self.chunks.iter().zip(&self.firsts).enumerate();
        for (number, (chunk, first)) in chunks.take(locate(index).0 + 1) {
            while chunk.as_ref().is_none() {
                let len = (FIRST as usize) << number;
                let mut entries = KVVec::with_capacity(len, GFP_KERNEL)?;
                while entries.len() < len {
                    entries.push(T::default(), GFP_KERNEL)?;
                }
                // If another was faster, this one goes, and the other's is just being put there.
                if !chunk.populate(entries) {
                    fsleep(Delta::from_micros(10));
                }
            }
            if let Some(entries) = chunk.as_ref() {
                // INVARIANT: All of the chunk are there. Who is slower stores the same again.
                first.store(entries.as_ptr().cast_mut(), Release);
            }
        }
        Ok(())
    }
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[kunit_tests(kfabric_chunks)]
mod tests {
    use super::*;
    use kernel::sync::atomic::Relaxed;

    struct Entry(Atomic<u32>);

    impl Default for Entry {
        fn default() -> Self {
            Entry(Atomic::new(0))
        }
    }

    #[test]
    fn chunks_follow_each_other() {
        let first = FIRST as u32;
        for (index, place) in [
            (0, (0, 0)),
            (first - 1, (0, 63)),
            (first, (1, 0)),
            (3 * first - 1, (1, 127)),
            (3 * first, (2, 0)),
            (7 * first - 1, (2, 255)),
            (7 * first, (3, 0)),
            (MAX as u32 - 1, (CHUNKS - 1, (1 << 31) - 1)),
            (MAX as u32, (CHUNKS, 0)),
        ] {
            assert_eq!(locate(index), place);
        }
    }

    #[test]
    fn entry_stays_where_it_is_while_the_table_grows() -> Result {
        let table: Chunks<Entry> = Chunks::new();
        assert!(table.get(0).is_none());
        table.reach(0)?;
        assert!(table.get(FIRST as u32 - 1).is_some() && table.get(FIRST as u32).is_none());
        let mut known = KVVec::new();
        for index in 0..10 * FIRST as u32 {
            table.reach(index)?;
            let entry = table.get(index).ok_or(EINVAL)?;
            // Nobody else's.
            assert_eq!(entry.0.load(Relaxed), 0);
            entry.0.store(index + 1, Relaxed);
            known.push(entry, GFP_KERNEL)?;
        }
        for (index, entry) in (0..).zip(&known) {
            assert!(table.get(index).is_some_and(|found| ptr::eq(found, *entry)));
            assert_eq!(entry.0.load(Relaxed), index + 1);
        }
        // It reaches to the end of a chunk.
        assert!(table.get(15 * FIRST as u32 - 1).is_some());
        assert!(table.get(15 * FIRST as u32).is_none());
        Ok(())
    }

    #[test]
    fn no_table_reaches_beyond_its_last_chunk() {
        let table: Chunks<Entry> = Chunks::new();
        for index in [MAX as u32, u32::MAX] {
            assert!(table.get(index).is_none());
            assert_eq!(table.reach(index), Err(ENOSPC));
        }
        assert!(table.get(0).is_none());
    }
}
