// SPDX-License-Identifier: GPL-2.0

//! Remote keys, and the table that gives them out.
//!
//! A key names a region to peers. It says three things:
//!
//! | bits | field | why |
//! |---|---|---|
//! | 0 to 19 | index | finds the entry without a search |
//! | 20 to 35 | generation | tells the uses of the entry apart, so that a key dies with its region |
//! | 36 to 63 | random | makes a key unguessable, anew for each use |
//!
//! The first generation of an entry is random as well. So a peer that never had a key of that entry
//! has 44 bits to guess, and one that had an earlier one 28.
//!
//! Generations are 1 to 65,535, in a ring: so no key is 0, and [`Key::NONE`] is free to mean "none". An
//! entry that has been round the ring is retired for good rather than started over: **a closed region's
//! key never reaches new memory.** Freed entries wait in a queue and the one that has been free the
//! longest goes first, which spreads the uses evenly. 2^20 entries of 65,535 uses each are enough
//! for a thousand registrations a second over two years; after that, [`Full::Exhausted`].
//!
//! **A peer learns nothing from a refusal.** The table tells them apart ([`Refusal`]) for the
//! counters of this host; on the wire there is one error for all. A peer that could tell a wrong
//! generation from a wrong random part could search them one after the other.
//!
//! The table allocates nothing: it is handed storage in parts, each allocated outside the caller's lock,
//! as in `drivers/android/binder/range_alloc`. Nothing moves when it grows, so that takes constant time:
//!
//! ```text
//! loop {
//!     let room = table.lock().room();              // ask before
//!     if let Room::Grow(len) = room {
//!         let new = allocate(len)?;                // may sleep: no lock held
//!         let unused = table.lock().extend(new);
//!         drop(unused);                            // if another was faster
//!     }
//!     match table.lock().insert(random, region) {  // another may have taken the room
//!         Err(Full::NeedStorage(back)) => region = back,
//!         done => return done,
//!     }
//! }
//! ```

use core::cmp::Ordering;
use core::fmt;
use core::ops::DerefMut;

/// How many bits of a key are its index.
pub const INDEX_BITS: u32 = 20;
/// How many bits of a key are its generation.
pub const GENERATION_BITS: u32 = 16;
/// How many bits of a key are random.
pub const RANDOM_BITS: u32 = 28;

/// How many entries a table has at most.
pub const MAX_ENTRIES: usize = 1 << INDEX_BITS;
/// The largest generation, and how many an entry has; it is retired afterwards.
pub const MAX_GENERATION: u32 = (1 << GENERATION_BITS) - 1;

/// The fewest entries that [`Room::Grow`] asks for.
const MIN_ENTRIES: usize = 64;
/// How many parts a table's storage has at most: as many as [`Room::Grow`] ever asks for.
const MAX_PARTS: usize = 1 + (MAX_ENTRIES / MIN_ENTRIES).ilog2() as usize;

const _: () = assert!(INDEX_BITS + GENERATION_BITS + RANDOM_BITS == u64::BITS);

/// A remote key.
///
/// Whoever knows it may use the region within its rights: `Debug` hides the random part, so that
/// no log gives it away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// Not a key; no table gives it out.
    pub const NONE: Key = Key(0);

    /// The key as it stands in a descriptor or a frame.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// What a peer sent as a key: any value at all.
    pub const fn from_raw(raw: u64) -> Key {
        Key(raw)
    }

    /// Makes the key of a use; the bits of `random` that do not fit are left out.
    const fn new(index: u32, generation: u32, random: u64) -> Key {
        let random = random & ((1 << RANDOM_BITS) - 1);
        let generation = (generation as u64) << INDEX_BITS;
        let random = random << (INDEX_BITS + GENERATION_BITS);
        Key(index as u64 | generation | random)
    }

    /// Which entry of the table it is of.
    pub const fn index(self) -> u32 {
        self.0 as u32 & ((1 << INDEX_BITS) - 1)
    }

    /// Which use of the entry it is of; 0 for [`Key::NONE`].
    pub const fn generation(self) -> u32 {
        (self.0 >> INDEX_BITS) as u32 & MAX_GENERATION
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}.{})", self.index(), self.generation())
    }
}

/// Why a table does not know a key; for local counters, never for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The index or the generation was never given out.
    Unknown,
    /// The region of that generation is closed: an old key, or its reuse.
    Stale,
    /// The random part is wrong: somebody guesses.
    Guess,
}

/// Why a value was not taken; gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full<T> {
    /// Larger storage helps, see [`KeyTable::room`].
    NeedStorage(T),
    /// Nothing helps but to remove another: all [`MAX_ENTRIES`] are in use or retired.
    Exhausted(T),
}

impl<T> Full<T> {
    /// The value that was not taken.
    pub fn into_value(self) -> T {
        match self {
            Full::NeedStorage(value) | Full::Exhausted(value) => value,
        }
    }
}

/// Whether the next insert finds room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It does.
    Ready,
    /// Storage of at least this many entries is needed.
    Grow(usize),
    /// No storage helps, see [`Full::Exhausted`].
    Exhausted,
}

/// An element of a table's storage.
///
/// # Invariants
///
/// `key` is the last key given out for this entry; it names `value` if there is one. `first` is the
/// generation of its first. `next` is the next entry in the queue of free ones, or `NIL`.
#[derive(Debug)]
pub struct Entry<T> {
    key: Key,
    next: u32,
    first: u16,
    value: Option<T>,
}

const NIL: u32 = u32::MAX;

impl<T> Entry<T> {
    /// An entry to fill new storage with.
    pub const fn vacant() -> Entry<T> {
        Entry {
            key: Key::NONE,
            next: NIL,
            first: 0,
            value: None,
        }
    }

    /// How many uses of this entry came before that of `key`, whose generation is not 0.
    fn uses_before(&self, key: Key) -> u32 {
        (key.generation() + MAX_GENERATION - u32::from(self.first)) % MAX_GENERATION
    }

    /// Whether its present use is the last that it has.
    fn is_spent(&self) -> bool {
        self.uses_before(self.key) == MAX_GENERATION - 1
    }

    /// Why `key`, which has this entry's index, does not name a value.
    fn refuse(&self, key: Key) -> Refusal {
        if key.generation() == 0 {
            return Refusal::Unknown;
        }
        match self.uses_before(key).cmp(&self.uses_before(self.key)) {
            Ordering::Greater => Refusal::Unknown,
            Ordering::Less => Refusal::Stale,
            Ordering::Equal if key == self.key => Refusal::Stale,
            Ordering::Equal => Refusal::Guess,
        }
    }
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self::vacant()
    }
}

/// The values that peers may name, each under its key.
///
/// All but [`KeyTable::iter`] take constant time. A part of the storage is anything that is a slice of
/// [`Entry`]: a vector, a box, a borrowed slice.
///
/// # Invariants
///
/// `parts` are filled from the first on, and `capacity` counts their entries, up to [`MAX_ENTRIES`].
/// Entries from `fresh` on were never given out. Those below are in use, in the queue from `head`
/// to `tail`, or retired; `used` and `retired` count them.
#[derive(Debug)]
pub struct KeyTable<S> {
    parts: [Option<S>; MAX_PARTS],
    capacity: u32,
    fresh: u32,
    head: u32,
    tail: u32,
    used: u32,
    retired: u32,
}

impl<S, T> KeyTable<S>
where
    S: DerefMut<Target = [Entry<T>]>,
{
    /// An empty table without storage.
    ///
    /// Keys of another table do not carry over: one table serves one domain for its whole life.
    pub const fn new() -> Self {
        KeyTable {
            parts: [const { None }; MAX_PARTS],
            capacity: 0,
            fresh: 0,
            head: NIL,
            tail: NIL,
            used: 0,
            retired: 0,
        }
    }

    /// How many values are in the table.
    pub fn len(&self) -> usize {
        self.used as usize
    }

    /// Whether no value is in the table.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// How many entries will never be used again.
    pub fn retired(&self) -> usize {
        self.retired as usize
    }

    /// How many entries the storage offers.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Whether the next [`KeyTable::insert`] finds room, and how much storage it needs if not.
    pub fn room(&self) -> Room {
        let capacity = self.capacity();
        if self.head != NIL || self.fresh < self.capacity {
            Room::Ready
        } else if capacity < MAX_ENTRIES && self.parts.iter().any(Option::is_none) {
            // As much again.
            Room::Grow(capacity.max(MIN_ENTRIES).min(MAX_ENTRIES - capacity))
        } else {
            Room::Exhausted
        }
    }

    /// Adds storage, all of whose entries are vacant.
    ///
    /// # Errors
    ///
    /// `part` itself, if the table has room without it: another was faster; or if nothing helps.
    pub fn extend(&mut self, part: S) -> Result<(), S> {
        let Room::Grow(_) = self.room() else {
            return Err(part);
        };
        match self.parts.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                let capacity = self.capacity as usize + part.len();
                self.capacity = capacity.min(MAX_ENTRIES) as u32;
                *place = Some(part);
                Ok(())
            }
            None => Err(part),
        }
    }

    /// Takes `value` and gives it a key that no value had before.
    ///
    /// `random` must be unpredictable to peers; its lower 44 bits are used.
    ///
    /// # Errors
    ///
    /// - [`Full::NeedStorage`]: extend the storage, then repeat.
    /// - [`Full::Exhausted`]: the table is as large as it gets.
    pub fn insert(&mut self, random: u64, value: T) -> Result<Key, Full<T>> {
        match self.room() {
            Room::Ready => {}
            Room::Grow(_) => return Err(Full::NeedStorage(value)),
            Room::Exhausted => return Err(Full::Exhausted(value)),
        }
        // An entry never used has been free the longest of all.
        let reuse = self.fresh >= self.capacity;
        let index = if reuse { self.head } else { self.fresh };
        let Some(entry) = self.entry_mut(index) else {
            return Err(Full::NeedStorage(value));
        };
        let generation = if reuse {
            entry.key.generation() % MAX_GENERATION + 1
        } else {
            let random = (random >> RANDOM_BITS) as u32 & MAX_GENERATION;
            entry.first = (random % MAX_GENERATION + 1) as u16;
            u32::from(entry.first)
        };
        let key = Key::new(index, generation, random);
        entry.key = key;
        entry.value = Some(value);
        let next = core::mem::replace(&mut entry.next, NIL);
        if !reuse {
            self.fresh += 1;
        } else {
            self.head = next;
            if self.head == NIL {
                self.tail = NIL;
            }
        }
        self.used += 1;
        Ok(key)
    }

    /// The value that `key` names.
    ///
    /// # Errors
    ///
    /// Why there is none, for the counters. The peer is told only that there is none.
    pub fn get(&self, key: Key) -> Result<&T, Refusal> {
        let entry = self.entry(key.index()).ok_or(Refusal::Unknown)?;
        match &entry.value {
            // The whole key at once: no part is right on its own.
            Some(value) if entry.key == key => Ok(value),
            _ => Err(entry.refuse(key)),
        }
    }

    /// Gives back the value that `key` names; from now on the key is [`Refusal::Stale`].
    ///
    /// `None` if it names none, as [`KeyTable::get`] says.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key).ok()?;
        let index = key.index();
        let entry = self.entry_mut(index)?;
        let value = entry.value.take()?;
        let spent = entry.is_spent();
        self.used -= 1;
        if spent {
            self.retired += 1;
            return Some(value);
        }
        match self.entry_mut(self.tail) {
            Some(last) => last.next = index,
            None => self.head = index,
        }
        self.tail = index;
        Some(value)
    }

    /// The values with their keys, in no useful order.
    pub fn iter<'a>(&'a self) -> impl Iterator<Item = (Key, &'a T)>
    where
        T: 'a,
    {
        let entries = self.parts.iter().flatten().flat_map(|part| part.iter());
        let used = entries.take(self.fresh as usize);
        used.filter_map(|entry| Some((entry.key, entry.value.as_ref()?)))
    }

    /// The entry of an index that was given out.
    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        if index >= self.fresh {
            return None;
        }
        let (part, at) = self.place(index)?;
        self.parts.get(part)?.as_ref()?.get(at)
    }

    /// The entry of any index that there is storage for.
    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let (part, at) = self.place(index)?;
        self.parts.get_mut(part)?.as_mut()?.get_mut(at)
    }

    /// Which part of the storage an index is in, and where in it. Steps: at most [`MAX_PARTS`].
    fn place(&self, index: u32) -> Option<(usize, usize)> {
        let mut at = index as usize;
        for (n, part) in self.parts.iter().flatten().enumerate() {
            if at < part.len() {
                return Some((n, at));
            }
            at -= part.len();
        }
        None
    }
}

impl<S, T> Default for KeyTable<S>
where
    S: DerefMut<Target = [Entry<T>]>,
{
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use std::collections::{HashMap, HashSet};

    type Table<T> = KeyTable<Vec<Entry<T>>>;

    fn storage<T>(len: usize) -> Vec<Entry<T>> {
        (0..len).map(|_| Entry::vacant()).collect()
    }

    fn table<T>(len: usize) -> Table<T> {
        let mut table = KeyTable::new();
        assert!(len == 0 || table.extend(storage(len)).is_ok());
        table
    }

    #[test]
    fn key_gives_its_value_and_no_other() {
        let mut table = table(3);
        let keys: Vec<_> = (0..3).map(|i| table.insert(i, i * 10).unwrap()).collect();
        for (i, &key) in keys.iter().enumerate() {
            assert_eq!(table.get(key), Ok(&(i as u64 * 10)));
        }
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn key_survives_the_wire() {
        let mut table = table(1);
        let key = table.insert(0x0abc_def1, ()).unwrap();
        assert_eq!(Key::from_raw(key.raw()), key);
        assert_eq!(key.raw(), (0xabc_def1 << 36) | (1 << 20));
    }

    #[test]
    fn each_refusal_is_told_apart() {
        let mut table = table(8);
        let first = table.insert(0x111, 'a').unwrap();
        let closed = table.insert(0x222, 'b').unwrap();
        table.remove(closed);
        let flip = |key: Key, bit: u32| Key::from_raw(key.raw() ^ (1 << bit));
        let stale_guess = flip(closed, 63);
        let cases = [
            ("none", Key::NONE, Refusal::Unknown),
            ("an index never used", Key::new(2, 1, 0), Refusal::Unknown),
            (
                "an index beyond storage",
                Key::new(8, 1, 0),
                Refusal::Unknown,
            ),
            (
                "the largest index",
                Key::new((1 << INDEX_BITS) - 1, 1, 0x111),
                Refusal::Unknown,
            ),
            ("all ones", Key::from_raw(u64::MAX), Refusal::Unknown),
            ("generation 0", Key::new(0, 0, 0x111), Refusal::Unknown),
            (
                "the next generation",
                Key::new(0, 2, 0x111),
                Refusal::Unknown,
            ),
            ("a closed region", closed, Refusal::Stale),
            ("lowest random bit", flip(first, 36), Refusal::Guess),
            ("highest random bit", flip(first, 63), Refusal::Guess),
            ("a guess at a closed region", stale_guess, Refusal::Guess),
        ];
        for (what, key, refusal) in cases {
            assert_eq!(table.get(key), Err(refusal), "{what}");
            assert_eq!(table.remove(key), None, "{what}");
        }
        assert_eq!(table.get(first), Ok(&'a'));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn every_single_bit_flip_is_refused() {
        let mut table = table(4);
        let keys: Vec<_> = (0..4).map(|i| table.insert(i * 7, i).unwrap()).collect();
        for key in keys {
            for bit in 0..64 {
                assert!(
                    table.get(Key::from_raw(key.raw() ^ (1 << bit))).is_err(),
                    "{bit}"
                );
            }
        }
    }

    #[test]
    fn closed_key_stays_dead_when_its_entry_is_reused() {
        let mut table = table(1);
        // The same random part every time: the generation alone must keep them apart.
        let first = table.insert(5, 'a').unwrap();
        assert_eq!(table.remove(first), Some('a'));
        assert_eq!(table.get(first), Err(Refusal::Stale));
        let second = table.insert(5, 'b').unwrap();
        assert_eq!(second.index(), first.index());
        assert_eq!(table.get(first), Err(Refusal::Stale));
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Ok(&'b'));
    }

    #[test]
    fn removed_twice_gives_once() {
        let mut table = table(2);
        let key = table.insert(0, 'a').unwrap();
        assert_eq!(table.remove(key), Some('a'));
        assert_eq!(table.remove(key), None);
        assert!(table.is_empty());
        // A second remove that freed the entry again would give one entry to two values.
        let (b, c) = (table.insert(0, 'b').unwrap(), table.insert(0, 'c').unwrap());
        assert_eq!((table.get(b), table.get(c)), (Ok(&'b'), Ok(&'c')));
    }

    #[test]
    fn longest_free_entry_goes_first() {
        let mut table = table(4);
        let keys: Vec<_> = (0..3).map(|_| table.insert(0, ()).unwrap()).collect();
        for i in [1, 2, 0] {
            table.remove(keys[i]).unwrap();
        }
        // Entry 3 was never used, then in the order in which they were freed.
        let order: Vec<_> = (0..4)
            .map(|_| table.insert(0, ()).unwrap().index())
            .collect();
        assert_eq!(order, [3, 1, 2, 0]);
        assert_eq!(table.insert(0, ()), Err(Full::NeedStorage(())));
    }

    #[test]
    fn queue_that_ran_empty_works_again() {
        let mut table = table(2);
        for _ in 0..3 {
            let a = table.insert(0, 'a').unwrap();
            let b = table.insert(0, 'b').unwrap();
            assert_eq!(table.insert(0, 'c'), Err(Full::NeedStorage('c')));
            assert_eq!(table.remove(a), Some('a'));
            let c = table.insert(0, 'c').unwrap();
            assert_eq!(table.remove(b), Some('b'));
            assert_eq!(table.remove(c), Some('c'));
        }
    }

    #[test]
    fn entry_retires_after_its_last_generation() {
        let mut table = table(1);
        let mut seen = HashSet::new();
        for generation in 1..=MAX_GENERATION {
            assert_eq!(table.retired(), 0);
            let key = table.insert(9, ()).unwrap();
            assert_eq!(key.generation(), generation);
            assert!(seen.insert(key.raw()));
            table.remove(key).unwrap();
        }
        assert_eq!(table.retired(), 1);
        assert_eq!(table.insert(9, ()), Err(Full::NeedStorage(())));
        assert_eq!(
            table.get(Key::new(0, MAX_GENERATION, 9)),
            Err(Refusal::Stale)
        );
        assert_eq!(table.get(Key::new(0, 1, 9)), Err(Refusal::Stale));
    }

    #[test]
    fn retired_entry_is_skipped_and_the_others_go_on() {
        let mut table = table(2);
        let keep = table.insert(1, 'k').unwrap();
        for _ in 0..MAX_GENERATION {
            let key = table.insert(2, 'x').unwrap();
            table.remove(key).unwrap();
        }
        assert_eq!(table.retired(), 1);
        assert_eq!(table.remove(keep), Some('k'));
        let key = table.insert(1, 'l').unwrap();
        assert_eq!(key.index(), keep.index());
        assert_eq!(table.insert(1, 'm'), Err(Full::NeedStorage('m')));
    }

    #[test]
    fn growth_keeps_values_keys_and_the_queue() {
        let mut table = table(4);
        let keys: Vec<_> = (0..4).map(|i| table.insert(i, i).unwrap()).collect();
        table.extend(storage(2)).unwrap();
        table.remove(keys[2]).unwrap();
        table.remove(keys[1]).unwrap();
        assert_eq!(table.get(keys[0]), Ok(&0));
        assert_eq!(table.get(keys[3]), Ok(&3));
        assert_eq!(table.get(keys[1]), Err(Refusal::Stale));
        let order: Vec<_> = (0..4)
            .map(|_| table.insert(0, 0).unwrap().index())
            .collect();
        assert_eq!(order, [4, 5, 2, 1]);
        assert_eq!(table.get(keys[1]), Err(Refusal::Stale));
        assert_eq!(table.len(), 6);
        assert_eq!(table.iter().count(), 6);
    }

    #[test]
    fn storage_that_is_not_needed_comes_back() {
        let mut table = table(1);
        assert_eq!(table.extend(storage(3)).unwrap_err().len(), 3);
        let key = table.insert(0, 'a').unwrap();
        table.extend(storage(2)).unwrap();
        assert_eq!(table.capacity(), 3);
        assert_eq!(table.extend(storage(5)).unwrap_err().len(), 5);
        assert_eq!(table.get(key), Ok(&'a'));
    }

    #[test]
    fn table_of_the_most_parts_takes_no_more() {
        let mut table: Table<u64> = table(0);
        for i in 0..MAX_PARTS as u64 {
            assert_eq!(table.room(), Room::Grow(64));
            table.extend(storage(1)).unwrap();
            let key = table.insert(i, i).unwrap();
            assert_eq!((key.index(), table.get(key)), (i as u32, Ok(&i)));
        }
        assert_eq!(table.room(), Room::Exhausted);
        assert_eq!(table.insert(0, 7), Err(Full::Exhausted(7)));
        assert!(table.extend(storage(1)).is_err());
    }

    #[test]
    fn generations_go_round_from_a_random_one() {
        let at = |first: u64, random: u64| (first - 1) << RANDOM_BITS | random;
        for first in [1, 2, 0x8000, 65_534, 65_535] {
            let mut table = table(1);
            let mut seen = HashSet::new();
            let mut keys = Vec::new();
            for use_ in 0..u64::from(MAX_GENERATION) {
                assert_eq!(table.retired(), 0);
                // Only the first says where an entry begins.
                let key = table.insert(at(first + use_ % 7, 9), ()).unwrap();
                let expected = (first - 1 + use_) % u64::from(MAX_GENERATION) + 1;
                assert_eq!(u64::from(key.generation()), expected);
                assert!(seen.insert(key.raw()));
                if use_ % 5_000 == 0 {
                    keys.push(key);
                    let next = key.generation() % MAX_GENERATION + 1;
                    assert_eq!(table.get(Key::new(0, next, 9)), Err(Refusal::Unknown));
                }
                table.remove(key).unwrap();
                assert!(keys
                    .iter()
                    .all(|&key| table.get(key) == Err(Refusal::Stale)));
            }
            assert_eq!(table.retired(), 1);
            assert_eq!(table.insert(9, ()), Err(Full::NeedStorage(())));
            assert!(keys
                .iter()
                .all(|&key| table.get(key) == Err(Refusal::Stale)));
        }
    }

    #[test]
    fn largest_first_generation_is_one_that_there_is() {
        for high in [u64::MAX, 0xffff << RANDOM_BITS, 0xfffe << RANDOM_BITS] {
            let mut table = table(1);
            let key = table.insert(high, 'a').unwrap();
            assert!((1..=MAX_GENERATION).contains(&key.generation()));
            assert_eq!(table.get(key), Ok(&'a'));
        }
    }

    #[test]
    fn room_says_what_insert_will_say() {
        let mut table: Table<u64> = table(0);
        assert_eq!(table.room(), Room::Grow(64));
        assert_eq!(table.insert(0, 7), Err(Full::NeedStorage(7)));
        for (len, more) in [(64, 64), (64, 128), (128, 256)] {
            table.extend(storage(len)).unwrap();
            for i in 0..len as u64 {
                assert_eq!(table.room(), Room::Ready);
                table.insert(i, i).unwrap();
            }
            assert_eq!(table.room(), Room::Grow(more));
        }
        let key = table.iter().next().unwrap().0;
        table.remove(key).unwrap();
        assert_eq!(table.room(), Room::Ready);
    }

    #[test]
    fn largest_table_is_exhausted_not_grown() {
        let mut table: Table<u64> = table(MAX_ENTRIES - 1);
        for i in 0..MAX_ENTRIES as u64 - 1 {
            table.insert(i, i).unwrap();
        }
        assert_eq!(table.room(), Room::Grow(1));
        // One more than can be named: the last one stays unused.
        table.extend(storage(2)).unwrap();
        assert_eq!(table.capacity(), MAX_ENTRIES);
        let last = table.insert(1, 1).unwrap();
        assert_eq!(last.index(), (1 << INDEX_BITS) - 1);
        assert_eq!(table.room(), Room::Exhausted);
        let full = table.insert(2, 2).unwrap_err();
        assert_eq!(full, Full::Exhausted(2));
        assert_eq!(full.into_value(), 2);
        table.remove(last).unwrap();
        assert_eq!(table.insert(3, 3).unwrap(), Key::new(last.index(), 2, 3));
    }

    #[test]
    fn only_the_low_bits_of_random_are_used() {
        let mut table = table(2);
        let key = table.insert(0xffff_f000_0fff_ffff, ()).unwrap();
        assert_eq!(key, Key::new(0, 1, (1 << RANDOM_BITS) - 1));
        assert_eq!(key.raw(), 0xffff_fff0_0010_0000);
    }

    #[test]
    fn debug_hides_the_random_part() {
        let key = Key::new(3, 2, 0x0fed_cba9);
        assert_eq!(format!("{key:?}"), "Key(3.2)");
    }

    #[test]
    fn iter_shows_what_is_in_the_table() {
        let mut table = table(5);
        let keys: Vec<_> = (0..4).map(|i| table.insert(i, i).unwrap()).collect();
        table.remove(keys[1]).unwrap();
        let shown: Vec<_> = table.iter().map(|(key, &value)| (key, value)).collect();
        assert_eq!(shown, [(keys[0], 0), (keys[2], 2), (keys[3], 3)]);
    }

    #[test]
    fn borrowed_storage_will_do() {
        let mut entries = [const { Entry::vacant() }; 2];
        let mut table = KeyTable::new();
        assert!(table.extend(&mut entries[..]).is_ok());
        let key = table.insert(1, 'a').unwrap();
        assert_eq!(table.remove(key), Some('a'));
    }

    #[test]
    fn random_work_agrees_with_a_map() {
        let mut rng = testing::rng();
        let mut table: Table<u64> = table(0);
        let mut alive: HashMap<u64, u64> = HashMap::new();
        let mut order: Vec<Key> = Vec::new();
        let mut dead: Vec<Key> = Vec::new();
        for step in 0..40_000 {
            if rng.below(100) < 52 {
                if let Room::Grow(len) = table.room() {
                    table.extend(storage(len)).unwrap();
                }
                let key = table.insert(rng.next_u64(), step).unwrap();
                assert!(alive.insert(key.raw(), step).is_none());
                order.push(key);
            } else if !order.is_empty() {
                let key = order.swap_remove(rng.below(order.len() as u64) as usize);
                assert_eq!(table.remove(key), alive.remove(&key.raw()));
                dead.push(key);
            }
            assert_eq!(table.len(), alive.len());
        }
        for key in order {
            assert_eq!(table.get(key).ok(), alive.get(&key.raw()));
        }
        for key in dead {
            assert_eq!(table.get(key), Err(Refusal::Stale));
        }
    }
}
