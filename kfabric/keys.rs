// SPDX-License-Identifier: GPL-2.0

//! A domain's remote keys: the pure table of `proto/key.rs` under a lock.
//!
//! Locks: the table's is a leaf lock, interrupts disabled. See Documentation/keys.rst.

use crate::mr::Region;
use crate::proto::key::{Entry, Full, Key, KeyTable, Refusal, Room};
use crate::sys::lease::Lease;
use crate::sys::random;
use core::ops::{Deref, DerefMut};
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, SpinLockIrq};

/// The table's storage.
struct Storage(KVVec<Entry<Lease<Region>>>);

impl Deref for Storage {
    type Target = [Entry<Lease<Region>>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Storage {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// The keys of a domain.
#[pin_data]
pub(crate) struct Keys {
    #[pin]
    table: SpinLockIrq<KeyTable<Storage>>,
}

impl Keys {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Keys {
            table <- new_spinlock_irq!(KeyTable::new(Storage(KVVec::new())), "kfi_keys"),
        })
    }

    /// Gives `region` a key. May sleep. `ENOMEM`; `ENOSPC`: no more keys.
    pub(crate) fn insert(&self, mut region: Lease<Region>) -> Result<Key> {
        loop {
            let room = self.table.lock().room();
            if let Room::Grow(len) = room {
                let mut larger = KVVec::with_capacity(len, GFP_KERNEL)?;
                while larger.len() < len {
                    larger.push(Entry::vacant(), GFP_KERNEL)?;
                }
                // The old storage, or the new if another was faster, goes without the lock.
                let unused = self.table.lock().replace_storage(Storage(larger));
                drop(unused);
            }
            let random = random::u32();
            let inserted = self.table.lock().insert(random, region);
            match inserted {
                Ok(key) => return Ok(key),
                Err(Full::NeedStorage(back)) => region = back,
                Err(Full::Exhausted(_)) => return Err(ENOSPC),
            }
        }
    }

    /// The region behind a key that a peer used. Any context but hardirq.
    #[inline]
    pub(crate) fn lookup(&self, key: Key) -> Result<Lease<Region>, Refusal> {
        self.table.lock().get(key).cloned()
    }

    /// Takes a key out of use for good. Any context but hardirq.
    pub(crate) fn remove(&self, key: Key) {
        let region = self.table.lock().remove(key);
        drop(region); // without the lock: it may be the last use
    }
}

#[kunit_tests(kfabric_keys)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::mr::Access;
    use crate::sys::lease::Owner;

    fn region(len: usize) -> Result<Owner<Region>> {
        Owner::new(Region::new(Memory::zeroed(len)?, Access::READ)).map_err(|_| ENOMEM)
    }

    fn keys() -> Result<Pin<KBox<Keys>>> {
        KBox::pin_init(Keys::new(), GFP_KERNEL)
    }

    #[test]
    fn key_leads_to_its_region_until_it_is_removed() -> Result {
        let (keys, owner) = (keys()?, region(5)?);
        let key = keys.insert(owner.lease())?;
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
            let owner = region(len)?;
            known.push((keys.insert(owner.lease())?, owner), GFP_KERNEL)?;
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
        let (here, there, owner) = (keys()?, keys()?, region(1)?);
        let key = here.insert(owner.lease())?;
        assert_eq!(there.lookup(key).map(|_| ()), Err(Refusal::Unknown));
        let other = there.insert(owner.lease())?;
        assert!(there.lookup(key).is_err() && here.lookup(other).is_err());
        here.remove(key);
        assert!(there.lookup(other).is_ok());
        there.remove(other);
        Ok(())
    }
}
