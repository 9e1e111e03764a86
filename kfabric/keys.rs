// SPDX-License-Identifier: GPL-2.0

//! A domain's remote keys, and the regions behind them.
//!
//! Which keys are given out is said by the pure table of `proto/key.rs`, under a lock. The regions
//! stand beside it, each in the place of its key's index, and know their keys: so a look-up takes no
//! lock, unless it fails.
//!
//! Locks: the table's is a leaf lock, interrupts disabled. See Documentation/keys.rst.

use crate::mr::Region;
use crate::proto::key::{Entry, Full, Key, KeyTable, Refusal, Room};
use crate::sys::chunks::Chunks;
use crate::sys::lease::{Lease, Offer};
use crate::sys::random;
use kernel::prelude::*;
use kernel::sync::rcu::{self, Guard};
use kernel::sync::{new_spinlock_irq, SpinLockIrq};

/// The keys of a domain.
#[pin_data]
pub(crate) struct Keys {
    #[pin]
    table: SpinLockIrq<KeyTable<KVVec<Entry<()>>>>,
    regions: Chunks<Offer<Region>>,
}

impl Keys {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Keys {
            table <- new_spinlock_irq!(KeyTable::new(), "kfi_keys"),
            regions: Chunks::new(),
        })
    }

    /// A key for a region. May sleep. `ENOMEM`; `ENOSPC`: no more keys.
    ///
    /// It is refused until the region is offered: [`Keys::open`].
    pub(crate) fn reserve(&self) -> Result<Key> {
        loop {
            let room = self.table.lock().room();
            if let Room::Grow(len) = room {
                let mut part = KVVec::with_capacity(len, GFP_KERNEL)?;
                while part.len() < len {
                    part.push(Entry::vacant(), GFP_KERNEL)?;
                }
                // If another was faster, it goes without the lock.
                let unused = self.table.lock().extend(part);
                drop(unused);
            }
            let random = random::u64();
            let inserted = self.table.lock().insert(random, ());
            match inserted {
                Ok(key) => {
                    let reached = self.regions.reach(key.index());
                    return reached.inspect_err(|_| self.remove(key)).map(|()| key);
                }
                Err(Full::NeedStorage(())) => {}
                Err(Full::Exhausted(())) => return Err(ENOSPC),
            }
        }
    }

    /// Has peers find the region, under the key that was reserved for it. Any context but hardirq.
    pub(crate) fn open(&self, region: Lease<Region>) {
        if let Some(place) = self.regions.get(region.key().index()) {
            place.open(region);
        }
    }

    /// The region behind a key that a peer used. Any context but hardirq.
    #[inline]
    pub(crate) fn lookup(&self, key: Key) -> Result<Lease<Region>, Refusal> {
        self.lookup_in(key, &rcu::read_lock())
    }

    /// As [`Keys::lookup`], in a read section.
    #[inline]
    pub(crate) fn lookup_in(&self, key: Key, section: &Guard) -> Result<Lease<Region>, Refusal> {
        let place = self.regions.get(key.index());
        match place.and_then(|place| place.lease(section)) {
            // The whole key at once: no part is right on its own.
            Some(region) if region.key() == key => Ok(region),
            _ => Err(self.refusal(key)),
        }
    }

    /// Why a key leads to no region.
    #[cold]
    fn refusal(&self, key: Key) -> Refusal {
        match self.table.lock().get(key) {
            Err(refusal) => refusal,
            // Nobody has been told yet.
            Ok(()) => Refusal::Unknown,
        }
    }

    /// Takes a key out of use for good. Any context but hardirq.
    pub(crate) fn remove(&self, key: Key) {
        let mut table = self.table.lock();
        let region = match table.remove(key) {
            Some(()) => self.regions.get(key.index()).and_then(Offer::withdraw),
            None => None,
        };
        drop(table);
        drop(region); // without the lock: it may be the last use
    }
}

#[kunit_tests(kfabric_keys)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::mr::Access;
    use crate::sys::lease::Owner;

    /// A region of so many bytes that peers find.
    fn region(keys: &Keys, len: usize) -> Result<(Key, Owner<Region>)> {
        let key = keys.reserve()?;
        let region = Region::new(Memory::zeroed(len)?, Access::READ, key, 1);
        let owner = Owner::new(region).map_err(|_| ENOMEM)?;
        keys.open(owner.lease());
        Ok((key, owner))
    }

    fn keys() -> Result<Pin<KBox<Keys>>> {
        KBox::pin_init(Keys::new(), GFP_KERNEL)
    }

    #[test]
    fn key_leads_to_its_region_until_it_is_removed() -> Result {
        let keys = keys()?;
        let (key, owner) = region(&keys, 5)?;
        assert_eq!(keys.lookup(key).map(|region| region.memory().len()), Ok(5));
        keys.remove(key);
        assert_eq!(keys.lookup(key).map(|_| ()), Err(Refusal::Stale));
        // The table's use is over, so the owner has the region back.
        assert!(owner.reclaim().is_ok());
        keys.remove(key);
        Ok(())
    }

    #[test]
    fn table_grows_and_each_key_stays() -> Result {
        let keys = keys()?;
        let mut known = KVec::new();
        for len in 1..200 {
            known.push(region(&keys, len)?, GFP_KERNEL)?;
        }
        for (len, (key, _)) in known.iter().enumerate() {
            assert_eq!(
                keys.lookup(*key).map(|region| region.memory().len()),
                Ok(len + 1)
            );
        }
        for (key, owner) in known {
            assert!(owner.reclaim().is_err());
            keys.remove(key);
        }
        Ok(())
    }

    #[test]
    fn key_of_another_table_is_refused() -> Result {
        let (here, there) = (keys()?, keys()?);
        let (key, _owner) = region(&here, 1)?;
        assert_eq!(there.lookup(key).map(|_| ()), Err(Refusal::Unknown));
        let (other, _owner) = region(&there, 1)?;
        assert!(there.lookup(key).is_err() && here.lookup(other).is_err());
        here.remove(key);
        assert!(there.lookup(other).is_ok());
        there.remove(other);
        Ok(())
    }

    #[test]
    fn key_is_refused_before_its_region_is_offered() -> Result {
        let keys = keys()?;
        let key = keys.reserve()?;
        assert_eq!(keys.lookup(key).map(|_| ()), Err(Refusal::Unknown));
        keys.remove(key);
        assert_eq!(keys.lookup(key).map(|_| ()), Err(Refusal::Stale));
        Ok(())
    }

    #[test]
    fn key_that_is_removed_again_leaves_its_successor_alone() -> Result {
        let keys = keys()?;
        let (first, owner) = region(&keys, 1)?;
        keys.remove(first);
        drop(owner);
        // Until it is the turn of the same place.
        let mut known = KVec::new();
        let (second, owner) = loop {
            let (key, owner) = region(&keys, 2)?;
            if key.index() == first.index() {
                break (key, owner);
            }
            known.push((key, owner), GFP_KERNEL)?;
        };
        keys.remove(first);
        assert_eq!(keys.lookup(first).map(|_| ()), Err(Refusal::Stale));
        assert!(keys.lookup(second).is_ok());
        keys.remove(second);
        assert!(owner.reclaim().is_ok());
        Ok(())
    }
}
