// SPDX-License-Identifier: GPL-2.0

//! Address vectors, and the names that they map.
//!
//! A [`Name`] is what an endpoint calls itself, in its provider's format; an [`Address`] is the
//! short number under which an address vector knows it, and what operations take.
//!
//! Locks: the table's is a leaf lock, interrupts disabled. Source: fi_av(3).

use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};

/// An endpoint's name, in its provider's format.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    len: u8,
    bytes: [u8; Name::MAX],
}

impl Name {
    /// The longest name, in bytes: an IPv6 address with port and scope, and an incarnation.
    pub const MAX: usize = 39;

    /// No name.
    pub const NONE: Name = Name {
        len: 0,
        bytes: [0; Name::MAX],
    };

    /// The name that consists of `bytes`. `EINVAL`: empty, or longer than [`Name::MAX`].
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut name = Name::NONE;
        if bytes.is_empty() {
            return Err(EINVAL);
        }
        name.bytes
            .get_mut(..bytes.len())
            .ok_or(EINVAL)?
            .copy_from_slice(bytes);
        name.len = bytes.len() as u8;
        Ok(name)
    }

    /// A number that differs from name to name in most cases.
    pub(crate) fn hash(&self) -> u64 {
        self.bytes
            .chunks(8)
            .fold(u64::from(self.len), |hash, part| {
                let mut word = [0; 8];
                word[..part.len()].copy_from_slice(part);
                (hash ^ u64::from_le_bytes(word))
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .rotate_left(29)
            })
    }

    /// Its bytes, to be sent to peers.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(Name::MAX)]
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A peer's number in an address vector.
///
/// Its upper 8 bits are zero. The number of a removed entry stays invalid when the entry is used
/// again, until it has been used 2^24 times. Source: fi_addr_t.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(u64);

impl Address {
    /// The peer of a connected endpoint; at an endpoint of another type, nobody.
    // Above the bits that an address vector gives out.
    pub const PEER: Address = Address(1 << 56);

    const INDEX_BITS: u32 = 32;
    const GENERATION_MASK: u32 = (1 << 24) - 1;

    fn new(index: usize, generation: u32) -> Self {
        Address(u64::from(generation & Self::GENERATION_MASK) << Self::INDEX_BITS | index as u64)
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> Self::INDEX_BITS) as u32
    }

    /// As a number, for those that must store it.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// From a number; one that no address vector gave out is refused by each post.
    pub const fn from_raw(raw: u64) -> Self {
        Address(raw)
    }
}

struct Entry {
    generation: u32,
    name: Option<Name>,
}

struct Entries {
    entries: KVVec<Entry>,
    free: KVVec<u32>,
    bound: usize,
}

impl Entries {
    const fn new() -> Self {
        Entries {
            entries: KVVec::new(),
            free: KVVec::new(),
            bound: 0,
        }
    }

    /// The name behind a number.
    fn name(&self, address: Address) -> Option<Name> {
        let entry = self.entries.get(address.index())?;
        if entry.generation & Address::GENERATION_MASK != address.generation() {
            return None;
        }
        entry.name
    }

    /// Puts `name` where there is room already.
    fn place(&mut self, name: &Name) -> Option<Address> {
        if let Some(index) = self.free.pop() {
            let entry = self.entries.get_mut(index as usize)?;
            entry.generation = entry.generation.wrapping_add(1);
            entry.name = Some(*name);
            return Some(Address::new(index as usize, entry.generation));
        }
        let index = self.entries.len();
        let entry = Entry {
            generation: 0,
            name: Some(*name),
        };
        self.entries.push_within_capacity(entry).ok()?;
        Some(Address::new(index, 0))
    }

    /// Forgets a number. `ENOENT`: it names nothing.
    fn forget(&mut self, address: Address) -> Result {
        let entry = self.entries.get_mut(address.index()).ok_or(ENOENT)?;
        if entry.generation & Address::GENERATION_MASK != address.generation() {
            return Err(ENOENT);
        }
        entry.name.take().ok_or(ENOENT)?;
        // The capacity is that of `entries`.
        let _ = self.free.push_within_capacity(address.index() as u32);
        Ok(())
    }
}

static NEXT_ID: Atomic<u64> = Atomic::new(1);

/// The table behind an [`AddressVector`], shared with the endpoints bound to it.
#[pin_data]
pub(crate) struct Table {
    #[pin]
    entries: SpinLockIrq<Entries>,
}

impl Table {
    /// The name behind `address`. Any context but hardirq.
    #[inline]
    pub(crate) fn name(&self, address: Address) -> Option<Name> {
        self.entries.lock().name(address)
    }

    /// Writes what it counts.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.entries.lock();
        let (all, free) = (table.entries.len() as u64, table.free.len() as u64);
        let bound = table.bound as u64;
        drop(table);
        debugfs::rows(f, &[("addresses", all - free), ("bound", bound)])
    }

    pub(crate) fn bind(&self) {
        self.entries.lock().bound += 1;
    }

    pub(crate) fn unbind(&self) {
        self.entries.lock().bound -= 1;
    }
}

/// Maps names of peers to addresses.
pub struct AddressVector {
    _file: debugfs::File,
    table: Arc<Table>,
    domain: Child,
}

impl AddressVector {
    /// Makes an empty address vector. May sleep.
    ///
    /// # Errors
    /// - `ENODEV`: the domain's provider is gone.
    /// - `ENOMEM`.
    pub fn new(domain: &Domain) -> Result<Self> {
        let entries = Entries::new();
        let child = domain.child(Class::AddressVector)?;
        let table = Arc::pin_init(
            pin_init!(Table {
                entries <- new_spinlock_irq!(entries, "kfi_av"),
            }),
            GFP_KERNEL,
        )?;
        let id = NEXT_ID.fetch_add(1, Relaxed);
        let shown = Shown::Addresses(table.clone());
        Ok(AddressVector {
            _file: debugfs::file(domain.dir(), fmt!("av-{id}"), shown)?,
            domain: child,
            table,
        })
    }

    /// Gives `name` a number. The peer need not exist yet. May sleep.
    ///
    /// # Errors
    /// - `ENOSPC`: 2^31 entries are in use; `ENOMEM` comes before.
    /// - `ENOMEM`.
    ///
    /// Source: fi_av_insert(3).
    pub fn insert(&self, name: &Name) -> Result<Address> {
        loop {
            let capacity = {
                let mut table = self.table.entries.lock();
                if let Some(address) = table.place(name) {
                    return Ok(address);
                }
                table.entries.capacity()
            };
            let larger = capacity.max(8).checked_mul(2).ok_or(ENOSPC)?;
            if larger > u32::MAX as usize {
                return Err(ENOSPC);
            }
            let mut entries = KVVec::with_capacity(larger, GFP_KERNEL)?;
            let mut free = KVVec::with_capacity(larger, GFP_KERNEL)?;
            let mut table = self.table.entries.lock();
            if table.entries.capacity() >= larger {
                drop(table);
                continue; // another was faster; what was allocated goes
            }
            for entry in table.entries.drain_all() {
                let _ = entries.push_within_capacity(entry);
            }
            for index in table.free.drain_all() {
                let _ = free.push_within_capacity(index);
            }
            core::mem::swap(&mut table.entries, &mut entries);
            core::mem::swap(&mut table.free, &mut free);
        }
    }

    /// Forgets an address. Operations under way to it go on. Any context but hardirq.
    ///
    /// # Errors
    /// - `ENOENT`: it is not in the table.
    pub fn remove(&self, address: Address) -> Result {
        self.table.entries.lock().forget(address)
    }

    /// The name behind an address. Any context but hardirq.
    pub fn lookup(&self, address: Address) -> Option<Name> {
        self.table.name(address)
    }

    /// Closes the address vector.
    ///
    /// # Errors
    /// - `EBUSY`, and the vector again: endpoints are bound to it.
    pub fn close(self) -> Result<(), (Error, Self)> {
        if self.table.entries.lock().bound > 0 {
            return Err((EBUSY, self));
        }
        Ok(())
    }

    pub(crate) fn domain(&self) -> &Child {
        &self.domain
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }
}

#[kunit_tests(kfabric_av)]
mod tests {
    use super::*;

    fn entries(room: usize) -> Result<Entries> {
        let mut table = Entries::new();
        table.entries = KVVec::with_capacity(room, GFP_KERNEL)?;
        table.free = KVVec::with_capacity(room, GFP_KERNEL)?;
        Ok(table)
    }

    #[test]
    fn name_has_bounds() -> Result {
        let bytes = [0xab; Name::MAX + 1];
        for (len, good) in [
            (0, false),
            (1, true),
            (Name::MAX, true),
            (Name::MAX + 1, false),
        ] {
            let name = Name::new(&bytes[..len]);
            assert_eq!(
                name.as_ref().map(|name| name.as_bytes().len()).ok(),
                good.then_some(len)
            );
        }
        assert!(Name::NONE.as_bytes().is_empty());
        Ok(())
    }

    #[test]
    fn number_of_a_removed_entry_names_nothing() -> Result {
        let mut table = entries(2)?;
        let (one, two) = (Name::new(&[1])?, Name::new(&[2])?);
        let first = table.place(&one).ok_or(EINVAL)?;
        let second = table.place(&two).ok_or(EINVAL)?;
        assert!(table.place(&one).is_none());
        assert!(table.name(first) == Some(one) && table.name(second) == Some(two));
        table.forget(first)?;
        assert!(table.name(first).is_none());
        assert_eq!(table.forget(first), Err(ENOENT));
        let again = table.place(&two).ok_or(EINVAL)?;
        assert!(again != first && again.index() == first.index());
        assert!(table.name(first).is_none());
        assert_eq!(table.forget(first), Err(ENOENT));
        table.forget(again)?;
        table.forget(second)?;
        assert_eq!(table.forget(Address::from_raw(u64::MAX)), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn generation_stays_below_the_upper_bits() -> Result {
        let mut table = entries(1)?;
        let name = Name::new(&[1])?;
        table.place(&name).ok_or(EINVAL)?;
        for generation in [
            Address::GENERATION_MASK - 1,
            Address::GENERATION_MASK,
            u32::MAX,
        ] {
            table.entries[0].generation = generation;
            let before = Address::new(0, generation);
            table.forget(before)?;
            let after = table.place(&name).ok_or(EINVAL)?;
            assert!(after != before && after.raw() >> 56 == 0);
            assert!(table.name(after) == Some(name) && table.name(before).is_none());
            assert!(table
                .name(Address::from_raw(after.raw() | 1 << 56))
                .is_none());
            assert!(table.name(Address::PEER).is_none());
        }
        Ok(())
    }
}
