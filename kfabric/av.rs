// SPDX-License-Identifier: GPL-2.0

//! Address vectors, and the names that they map.
//!
//! A [`Name`] is what an endpoint calls itself, in its provider's format; an [`Address`] is the
//! short number under which an address vector knows it, and what operations take.
//!
//! A look-up takes no lock: entries never move, and each has the stamp of its use, which an address
//! names (`sys/stamp.rs`).
//!
//! Locks: that of the free numbers is a leaf lock, interrupts disabled. Source: fi_av(3).

use crate::debugfs::{self, Shown};
use crate::domain::{Child, Class, Domain};
use crate::sys::chunks::Chunks;
use crate::sys::stamp::Stamped;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};
use kernel::transmute::AsBytes;

mod bound;

pub(crate) use bound::Peers;

/// An endpoint's name, in its provider's format.
// In words, so that it is copied by words: its length, which is one byte, and its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name([u64; Name::WORDS]);

impl Name {
    /// The longest name, in bytes: an IPv6 address with port and scope, and an incarnation.
    pub const MAX: usize = Self::WORDS * size_of::<u64>() - 1;

    const WORDS: usize = 5;

    /// No name.
    pub const NONE: Name = Name([0; Name::WORDS]);

    /// The name that consists of `bytes`. `EINVAL`: empty, or longer than [`Name::MAX`].
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut name = Name::NONE;
        if bytes.is_empty() {
            return Err(EINVAL);
        }
        let all = AsBytes::as_bytes_mut(&mut name.0);
        all.get_mut(1..1 + bytes.len())
            .ok_or(EINVAL)?
            .copy_from_slice(bytes);
        all[0] = bytes.len() as u8;
        Ok(name)
    }

    /// A number that differs from name to name in most cases.
    pub(crate) fn hash(&self) -> u64 {
        self.0.iter().fold(0, |hash, word| {
            (hash ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        })
    }

    /// Its bytes, to be sent to peers.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        let all = AsBytes::as_bytes(&self.0);
        &all[1..=usize::from(all[0]).min(Name::MAX)]
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
/// Its upper 8 bits are zero, but for the address of one receive context of the peer, see
/// [`Address::rx_context`]. The number of a removed entry stays invalid when the entry is used again, until it has
/// been used 2^24 times. Source: fi_addr_t.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(u64);

impl Address {
    /// The peer of a connected endpoint; at an endpoint of another type, nobody.
    // Above the bits that an address vector gives out.
    pub const PEER: Address = Address(1 << 56);

    /// Anybody, for receives; for all else nobody. Source: FI_ADDR_UNSPEC.
    pub const UNSPECIFIED: Address = Address(u64::MAX);

    const INDEX_BITS: u32 = 32;
    const GENERATION_MASK: u32 = (1 << 24) - 1;

    /// Where the number of a receive context begins: above the bit of [`Address::PEER`].
    const CONTEXT_SHIFT: u32 = 64 - Self::CONTEXT_BITS;

    /// How many bits name a receive context. Source: rx_ctx_bits of fi_av(3).
    pub const CONTEXT_BITS: u32 = 7;

    /// The address of the receive context of this index, of the peer that has this address.
    ///
    /// Whether the peer has such a context shows when something is posted to it. That of the peer itself names
    /// the first. Any context.
    ///
    /// # Errors
    /// `EINVAL`: the index has more than [`Address::CONTEXT_BITS`] bits; this is no address of an address
    /// vector's.
    ///
    /// Source: fi_rx_addr() in fi_av(3).
    pub const fn rx_context(self, index: usize) -> Result<Self> {
        let peer = self.0 & ((1 << Self::CONTEXT_SHIFT) - 1);
        if index >> Self::CONTEXT_BITS != 0 || peer >= Self::PEER.0 {
            return Err(EINVAL);
        }
        Ok(Address((index as u64) << Self::CONTEXT_SHIFT | peer))
    }

    /// Which receive context of the peer is meant.
    #[inline]
    pub(crate) fn context(self) -> u16 {
        (self.0 >> Self::CONTEXT_SHIFT) as u16
    }

    fn new(index: u32, generation: u32) -> Self {
        let generation = u64::from(generation & Self::GENERATION_MASK);
        Address(generation << Self::INDEX_BITS | u64::from(index))
    }

    #[inline]
    fn index(self) -> u32 {
        self.0 as u32
    }

    /// With the bit of [`Address::PEER`], which no entry has.
    #[inline]
    fn generation(self) -> u32 {
        (self.0 >> Self::INDEX_BITS) as u32 & (Self::GENERATION_MASK << 1 | 1)
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

/// An entry: a name under the stamp of its use.
///
/// The stamp is [`Entry::used`], or that of a vacant one: the next in the list of those, and the
/// generation that comes next.
struct Entry(Stamped<{ Name::WORDS }>);

/// Bytes of an entry: what an address vector keeps of a peer.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) const ENTRY: usize = size_of::<Entry>();

impl Default for Entry {
    fn default() -> Self {
        Entry(Stamped::new(Self::vacant(Self::NIL, 0)))
    }
}

impl Entry {
    /// The end of the list of vacant entries; the index of none.
    const NIL: u32 = (1 << 31) - 1;

    /// The stamp of an entry in use.
    #[inline]
    const fn used(generation: u32) -> u64 {
        1 << 63 | generation as u64
    }

    /// The stamp of a vacant entry.
    const fn vacant(next: u32, generation: u32) -> u64 {
        (next as u64) << 32 | (generation & Address::GENERATION_MASK) as u64
    }
}

/// Which numbers are free.
struct Numbers {
    /// The first entry that was vacated; [`Entry::NIL`] if there is none.
    vacant: u32,
    /// The first that was never used.
    fresh: u32,
    used: u32,
    bound: usize,
}

static NEXT_ID: Atomic<u64> = Atomic::new(1);

/// The table behind an [`AddressVector`], shared with the endpoints bound to it.
#[pin_data]
pub(crate) struct Table {
    entries: Chunks<Entry>,
    #[pin]
    numbers: SpinLockIrq<Numbers>,
}

impl Table {
    fn new() -> impl PinInit<Self> {
        let numbers = Numbers {
            vacant: Entry::NIL,
            fresh: 0,
            used: 0,
            bound: 0,
        };
        pin_init!(Table {
            entries: Chunks::new(),
            numbers <- new_spinlock_irq!(numbers, "kfi_av"),
        })
    }

    /// The name behind `address`. Never waits; any context.
    #[inline]
    pub(crate) fn name(&self, address: Address) -> Option<Name> {
        let entry = self.entries.get(address.index())?;
        let words = entry.0.read(Entry::used(address.generation()))?;
        Some(Name(words))
    }

    /// Puts `name` where there is room; else gives the entry that the table has to reach.
    fn place(&self, name: &Name) -> Result<Address, u32> {
        let mut numbers = self.numbers.lock();
        let index = match numbers.vacant {
            Entry::NIL => numbers.fresh,
            vacant => vacant,
        };
        let entry = match self.entries.get(index) {
            Some(entry) if index != Entry::NIL => entry,
            _ => return Err(index),
        };
        let stamp = entry.0.stamp();
        let address = Address::new(index, stamp as u32);
        if !entry
            .0
            .write(stamp, Entry::used(address.generation()), name.0)
        {
            return Err(index); // who has the lock is alone, so this does not happen
        }
        match numbers.vacant {
            Entry::NIL => numbers.fresh += 1,
            _ => numbers.vacant = (stamp >> 32) as u32,
        }
        numbers.used += 1;
        Ok(address)
    }

    /// Forgets a number. `ENOENT`: it names nothing.
    fn forget(&self, address: Address) -> Result {
        let mut numbers = self.numbers.lock();
        let entry = self.entries.get(address.index()).ok_or(ENOENT)?;
        let next = Entry::vacant(numbers.vacant, address.generation().wrapping_add(1));
        if !entry.0.restamp(Entry::used(address.generation()), next) {
            return Err(ENOENT);
        }
        numbers.vacant = address.index();
        numbers.used -= 1;
        Ok(())
    }

    /// Writes what it counts.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.numbers.lock();
        let (used, bound) = (u64::from(numbers.used), numbers.bound as u64);
        drop(numbers);
        debugfs::rows(f, &[("addresses", used), ("bound", bound)])
    }

    pub(crate) fn bind(&self) {
        self.numbers.lock().bound += 1;
    }

    pub(crate) fn unbind(&self) {
        self.numbers.lock().bound -= 1;
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
    /// - `ENODEV`: the domain has ended.
    /// - `ENOMEM`.
    pub fn new(domain: &Domain) -> Result<Self> {
        let child = domain.child(Class::AddressVector)?;
        let table = Arc::pin_init(Table::new(), GFP_KERNEL)?;
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
    /// - `ENOSPC`: nearly 2^31 entries are in use; `ENOMEM` comes before.
    /// - `ENOMEM`.
    ///
    /// Source: fi_av_insert(3).
    pub fn insert(&self, name: &Name) -> Result<Address> {
        loop {
            match self.table.place(name) {
                Ok(address) => return Ok(address),
                Err(Entry::NIL) => return Err(ENOSPC),
                Err(index) => self.table.entries.reach(index)?,
            }
        }
    }

    /// Gives who is at `service` of `node` a number: text that the provider makes a name of, as
    /// `192.0.2.1` and `4791` where it has IP; its page tells. Else as [`AddressVector::insert`]. The
    /// peer need not exist yet, and nothing is looked up at other hosts. Sleeps; process context.
    ///
    /// # Errors
    /// - `EOPNOTSUPP`: the provider has no nodes: the domain lacks [`Caps::SERVICE`].
    /// - `EINVAL`: the provider does not understand it, or no endpoint of the domain can have a peer
    ///   there.
    /// - `ENXIO`: it says something that this host has not, as an interface.
    /// - `ENODEV`: the domain has ended.
    /// - `ENOSPC`, `ENOMEM`: as [`AddressVector::insert`].
    ///
    /// Source: fi_av_insertsvc() in fi_av(3).
    ///
    /// [`Caps::SERVICE`]: crate::info::Caps::SERVICE
    pub fn insert_service(&self, node: &str, service: &str) -> Result<Address> {
        self.insert(&self.domain.resolve(node, service)?)
    }

    /// Forgets an address. Operations under way to it go on. Any context but hardirq.
    ///
    /// # Errors
    /// - `ENOENT`: it is not in the table.
    pub fn remove(&self, address: Address) -> Result {
        self.table.forget(address)
    }

    /// The name behind an address. Never waits; any context.
    pub fn lookup(&self, address: Address) -> Option<Name> {
        self.table.name(address)
    }

    /// Closes the address vector.
    ///
    /// # Errors
    /// - `EBUSY`, and the vector again: endpoints are bound to it.
    pub fn close(self) -> Result<(), (Error, Self)> {
        if self.table.numbers.lock().bound > 0 {
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

    fn table() -> Result<Arc<Table>> {
        let table = Arc::pin_init(Table::new(), GFP_KERNEL)?;
        table.entries.reach(0)?;
        Ok(table)
    }

    fn place(table: &Table, name: &Name) -> Result<Address> {
        table.place(name).map_err(|_| EINVAL)
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
        assert!(Name::new(&[1])? != Name::new(&[1, 0])?);
        let name = Name::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9])?;
        assert_eq!(name.as_bytes(), &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        Ok(())
    }

    #[test]
    fn number_of_a_removed_entry_names_nothing() -> Result {
        let table = table()?;
        let (one, two) = (Name::new(&[1])?, Name::new(&[2])?);
        let (first, second) = (place(&table, &one)?, place(&table, &two)?);
        assert!(table.name(first) == Some(one) && table.name(second) == Some(two));
        table.forget(first)?;
        assert!(table.name(first).is_none());
        assert_eq!(table.forget(first), Err(ENOENT));
        let again = place(&table, &two)?;
        assert!(again != first && again.index() == first.index());
        assert!(table.name(first).is_none() && table.name(again) == Some(two));
        assert_eq!(table.forget(first), Err(ENOENT));
        table.forget(again)?;
        table.forget(second)?;
        assert_eq!(table.forget(Address::from_raw(u64::MAX)), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn vacant_entries_are_used_before_fresh_ones() -> Result {
        let table = table()?;
        let name = Name::new(&[1])?;
        let mut known = KVec::new();
        let room = loop {
            match table.place(&name) {
                Ok(address) => known.push(address, GFP_KERNEL)?,
                Err(index) => break index as usize,
            }
        };
        assert_eq!(known.len(), room);
        for address in known.iter().step_by(2) {
            table.forget(*address)?;
        }
        let mut seen = KVec::from_elem(0, room, GFP_KERNEL)?;
        for address in known.iter().skip(1).step_by(2) {
            seen[address.index() as usize] += 1;
        }
        for _ in 0..room / 2 {
            seen[place(&table, &name)?.index() as usize] += 1;
        }
        assert!(seen.iter().all(|times| *times == 1));
        // All are in use.
        assert_eq!(table.place(&name), Err(room as u32));
        assert_eq!(table.numbers.lock().used as usize, room);
        Ok(())
    }

    #[test]
    fn address_of_a_receive_context_is_that_of_its_peer_too() -> Result {
        let table = table()?;
        let name = Name::new(&[1])?;
        let peer = place(&table, &name)?;
        assert_eq!((peer.context(), peer.rx_context(0)), (0, Ok(peer)));
        for index in [1, 127] {
            let address = peer.rx_context(index)?;
            assert!(address != peer && usize::from(address.context()) == index);
            assert!(table.name(address) == Some(name));
            assert_eq!(address.rx_context(0), Ok(peer));
        }
        assert_eq!(peer.rx_context(128), Err(EINVAL));
        for none in [Address::PEER, Address::UNSPECIFIED] {
            assert_eq!(none.rx_context(1), Err(EINVAL));
            assert!(table.name(none).is_none());
        }
        let third = peer.rx_context(3)?;
        table.forget(third)?;
        assert!(table.name(third).is_none() && table.name(peer).is_none());
        Ok(())
    }

    #[test]
    fn generation_stays_below_the_upper_bits() -> Result {
        let table = table()?;
        let name = Name::new(&[1])?;
        let entry = &table.entries.get(0).ok_or(EINVAL)?.0;
        for generation in [Address::GENERATION_MASK - 1, Address::GENERATION_MASK] {
            assert!(entry.restamp(entry.stamp(), Entry::vacant(Entry::NIL, generation)));
            let before = place(&table, &name)?;
            assert_eq!(before.generation(), generation);
            table.forget(before)?;
            let after = place(&table, &name)?;
            assert!(after != before && after.raw() >> 56 == 0);
            assert!(table.name(after) == Some(name) && table.name(before).is_none());
            assert!(table
                .name(Address::from_raw(after.raw() | 1 << 56))
                .is_none());
            assert!(table.name(Address::PEER).is_none());
            table.forget(after)?;
        }
        Ok(())
    }
}
