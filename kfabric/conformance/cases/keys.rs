// SPDX-License-Identifier: GPL-2.0

//! Keys, and what the target checks of an access whatever the initiator believed.

use crate::close::closed;
use crate::crew::Crew;
use crate::forge::{key, Forgery};
use crate::ops::{
    check_buffer_filled, check_filled, check_not_executed, data, error, fill, level, CONTEXT,
};
use crate::rig::{check_buffer, check_region, pattern, register, timeout, tries, until, Rig};
use crate::rng::Rng;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};
use kfabric::prelude::*;

cases! {
    closed_key_is_refused [connected]: Caps::RMA,
    dropped_key_is_refused [connected]: Caps::WRITE,
    old_key_is_refused_when_its_place_is_used_again [connected]: Caps::RMA,
    guessed_key_is_refused [connected]: Caps::RMA,
    length_that_the_region_lacks_is_refused_by_the_target [connected]: Caps::RMA,
    right_that_the_region_lacks_is_refused_by_the_target [connected]: Caps::RMA,
    key_of_another_domain_is_refused: Caps::RMA,
    refused_write_tells_the_peer_nothing [connected]: Caps::REMOTE_CQ_DATA,
    refusal_leaves_the_endpoint_as_it_was [connected]: Caps::RMA,
    no_key_is_given_out_twice [connected]: Caps::RMA,
    many_regions_have_a_key_each [connected]: Caps::RMA,
    nothing_is_written_after_a_close [connected]: Caps::WRITE,
}

fn closed_key_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [1, 64, 40_000] {
        let (region, remote) = rig.region(len, Access::READ_WRITE)?;
        let slice = remote.slice(0, len as u64)?;
        // The very memory is registered again.
        region.here()?;
        let memory = closed(region.close_wait(timeout()))?;
        let again = rig.b.register(memory, Access::READ_WRITE)?;
        let done = rig.write(pattern(len, seed)?, slice, Options::default())?;
        check_buffer(check_not_executed(done, EKEYREJECTED)?, len, seed)?;
        let done = rig.read(Memory::zeroed(len)?, slice)?;
        check_buffer_filled(check_not_executed(done, EKEYREJECTED)?, 0)?;
        check_filled(&again, 0)?;
        drop(again);
    }
    rig.close()
}

fn dropped_key_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::WRITE)?;
    drop(region);
    let done = rig.write(pattern(64, seed)?, remote.slice(0, 64)?, Options::default())?;
    check_buffer(check_not_executed(done, EKEYREJECTED)?, 64, seed)?;
    rig.close()
}

fn old_key_is_refused_when_its_place_is_used_again(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (first, remote) = rig.region(64, Access::READ_WRITE)?;
    let slice = remote.slice(0, 64)?;
    // The very memory is registered again.
    first.here()?;
    let mut memory = closed(first.close())?;
    // More often than a table has places at first, so that each is used again.
    for _ in 0..300 {
        let region = rig.b.register(memory, Access::READ_WRITE)?;
        let done = rig.write(pattern(64, seed)?, slice, Options::default())?;
        check_not_executed(done, EKEYREJECTED)?;
        check_filled(&region, 0)?;
        memory = closed(region.close_wait(timeout()))?;
    }
    check!(memory
        .as_slice()
        .is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)));
    rig.close()
}

fn guessed_key_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::READ_WRITE)?;
    let right = key(&region)?;
    let mut rng = Rng::new(seed);
    for n in 0..164 {
        let guess = match n {
            0..64 => right ^ (1 << n),
            64 => !right,
            65 => u64::MAX,
            _ => rng.next() | 1,
        };
        check!(guess != right && guess != 0);
        let slice = Forgery::of(&region)?.key(guess).remote()?.slice(0, 64)?;
        let done = rig.write(pattern(64, seed)?, slice, Options::default())?;
        check_not_executed(done, EKEYREJECTED)?;
        let done = rig.read(Memory::zeroed(64)?, slice)?;
        check_not_executed(done, EKEYREJECTED)?;
    }
    check_filled(&region, 0)?;
    // Guessing has not cost the region its own key.
    rig.written(pattern(64, seed)?, remote.slice(0, 64)?, Options::default())?;
    check_region(&region, 0, 64, seed)?;
    drop(region);
    rig.close()
}

fn length_that_the_region_lacks_is_refused_by_the_target(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for size in [1u64, 100, 4096] {
        let (region, _) = rig.region(size as usize, Access::READ_WRITE)?;
        let remote = Forgery::of(&region)?.len(u64::MAX).remote()?;
        for (offset, len) in [
            (0, size + 1),
            (size, 1),
            (size - 1, 2),
            (size + 1, 0),
            (0, 40_000),
            (u64::MAX - 1, 1),
            (u64::MAX, 0),
            (u64::MAX - 64, 64),
        ] {
            let (slice, len) = (remote.slice(offset, len)?, len as usize);
            let done = rig.write(pattern(len, seed)?, slice, Options::default())?;
            check_buffer(check_not_executed(done, ERANGE)?, len, seed)?;
            let done = rig.read(Memory::zeroed(len)?, slice)?;
            check_buffer_filled(check_not_executed(done, ERANGE)?, 0)?;
        }
        check_filled(&region, 0)?;
        // The whole of it is still within.
        rig.written(
            pattern(size as usize, seed)?,
            remote.slice(0, size)?,
            Options::default(),
        )?;
        drop(region);
    }
    rig.close()
}

fn right_that_the_region_lacks_is_refused_by_the_target(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    for len in [0, 1, 40_000] {
        let (region, _) = rig.region(40_000, Access::READ)?;
        let slice = Forgery::of(&region)?
            .access(Access::READ_WRITE)
            .remote()?
            .slice(0, len as u64)?;
        let done = rig.write(pattern(len, seed)?, slice, Options::default())?;
        check_buffer(check_not_executed(done, EACCES)?, len, seed)?;
        check_filled(&region, 0)?;

        let region = rig.b.register(pattern(40_000, seed)?, Access::WRITE)?;
        let slice = Forgery::of(&region)?
            .access(Access::READ_WRITE)
            .remote()?
            .slice(0, len as u64)?;
        let done = rig.read(Memory::zeroed(len)?, slice)?;
        check_buffer_filled(check_not_executed(done, EACCES)?, 0)?;
        drop(region);
    }
    rig.close()
}

fn key_of_another_domain_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (at_b, remote_b) = rig.region(64, Access::READ_WRITE)?;
    let at_a = register(&rig.a.domain, Memory::zeroed(64)?, Access::READ_WRITE)?;
    let remote_a = RemoteRegion::parse(&at_a.descriptor()?)?;
    check!(key(&at_a)? != key(&at_b)?);
    // A's key, sent to B.
    let done = rig.write(
        pattern(64, seed)?,
        remote_a.slice(0, 64)?,
        Options::default(),
    )?;
    check_not_executed(done, EKEYREJECTED)?;
    // B's key, sent to A itself.
    let myself = rig.a.av.insert(&rig.a.ep.name())?;
    let slice = remote_b.slice(0, 64)?;
    rig.a.ep.write(
        pattern(64, seed)?,
        myself,
        slice,
        Options::default(),
        CONTEXT,
    )?;
    check_not_executed(rig.a.next()?, EKEYREJECTED)?;
    check_filled(&at_a, 0)?;
    check_filled(&at_b, 0)?;
    drop((at_a, at_b));
    rig.close()
}

fn refused_write_tells_the_peer_nothing(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(64, Access::WRITE)?;
    let slice = remote.slice(0, 64)?;
    drop(region);
    let receive = rig.b.recv(Memory::zeroed(8)?, 1)?;
    let done = rig.write(pattern(64, seed)?, slice, data(99))?;
    check_not_executed(done, EKEYREJECTED)?;
    check!(rig.b.poll()?.is_none());
    // The receive is still there.
    rig.b.cancel(receive)?;
    check_eq!(error(&rig.b.next()?), Some(ECANCELED));
    rig.close()
}

fn refusal_leaves_the_endpoint_as_it_was(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(1000, Access::READ_WRITE)?;
    let good = remote.slice(0, 1000)?;
    let guess = Forgery::of(&region)?
        .key(key(&region)? ^ (1 << 63))
        .remote()?;
    let long = Forgery::of(&region)?.len(2000).remote()?;
    // Good and bad ones in flight together: each gets its own answer.
    for round in 0..5 {
        for n in 0..30u64 {
            let slice = match n % 3 {
                0 => good,
                1 => guess.slice(0, 1000)?,
                _ => long.slice(1000, 1000)?,
            };
            let memory = pattern(1000, seed + round)?;
            rig.a
                .ep
                .write(memory, rig.to_b, slice, level(Level::Delivered), n)?;
        }
        for _ in 0..30 {
            let done = rig.a.next()?;
            let expected = [None, Some(EKEYREJECTED), Some(ERANGE)][done.context as usize % 3];
            check_eq!(error(&done), expected);
        }
        check_region(&region, 0, 1000, seed + round)?;
    }
    drop(region);
    rig.close()
}

fn no_key_is_given_out_twice(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let (live, _) = rig.region(8, Access::READ)?;
    let mut seen = RBTree::new();
    seen.try_create_and_insert(key(&live)?, (), GFP_KERNEL)?;
    let mut memory = Memory::zeroed(8)?;
    for _ in 0..tries(1000) {
        let region = rig.b.register(memory, Access::READ)?;
        let key = key(&region)?;
        check!(key != 0);
        check!(seen.try_create_and_insert(key, (), GFP_KERNEL)?.is_none());
        memory = closed(region.close_wait(timeout()))?;
    }
    drop(live);
    rig.close()
}

fn many_regions_have_a_key_each(info: &Info, seed: u64) -> Result {
    const REGIONS: usize = 300;
    let rig = Rig::new(info)?;
    let mut regions = KVec::new();
    for n in 0..REGIONS {
        let (region, remote) = rig.region(16, Access::READ_WRITE)?;
        regions.push((region, remote), GFP_KERNEL)?;
        // The table has grown meanwhile, and the first is still known.
        if n % 50 == 49 {
            let slice = regions[0].1.slice(0, 16)?;
            rig.written(Memory::zeroed(16)?, slice, Options::default())?;
        }
    }
    for (n, (_, remote)) in regions.iter().enumerate() {
        let memory = pattern(16, seed + n as u64)?;
        rig.written(memory, remote.slice(0, 16)?, Options::default())?;
    }
    for (n, (region, _)) in regions.iter().enumerate() {
        check_region(region, 0, 16, seed + n as u64)?;
    }
    drop(regions);
    rig.close()
}

/// A peer that writes without end while regions are closed under it.
#[pin_data]
struct Storm {
    rig: Rig,
    #[pin]
    aim: Mutex<Option<RemoteSlice>>,
    stop: Atomic<bool>,
    written: Atomic<u64>,
    refused: Atomic<u64>,
}

impl Storm {
    fn blow(&self) -> Result {
        let mut memory = pattern(64, 1)?;
        while !self.stop.load(Relaxed) {
            let Some(slice) = *self.aim.lock() else {
                continue;
            };
            let done = self.rig.write(memory, slice, Options::default())?;
            match error(&done) {
                None => self.written.add(1, Relaxed),
                Some(EKEYREJECTED) => self.refused.add(1, Relaxed),
                other => {
                    check_eq!(other, None);
                }
            }
            memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
        }
        Ok(())
    }

    /// Closes regions under the writes; what was given back must stay as it is.
    fn close_regions(&self) -> Result {
        for _ in 0..tries(200) {
            let (mut region, remote) = self.rig.region(64, Access::WRITE)?;
            // The very memory is registered again.
            region.here()?;
            *self.aim.lock() = Some(remote.slice(0, 64)?);
            let before = self.written.load(Relaxed);
            until(|| self.written.load(Relaxed) != before)?;
            let memory = loop {
                match region.close() {
                    Ok(memory) => break memory,
                    Err((error, again)) => {
                        check_eq!(error, EBUSY);
                        region = again;
                    }
                }
            };
            let again = self.rig.b.register(memory, Access::WRITE)?;
            fill(&again, 0)?;
            let refused = self.refused.load(Relaxed);
            until(|| self.refused.load(Relaxed) >= refused + 2)?;
            check_filled(&again, 0)?;
            drop(again);
        }
        Ok(())
    }
}

fn nothing_is_written_after_a_close(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let storm = Arc::pin_init(
        pin_init!(Storm {
            rig,
            aim <- new_mutex!(None),
            stop: Atomic::new(false),
            written: Atomic::new(0),
            refused: Atomic::new(0),
        }),
        GFP_KERNEL,
    )?;
    let writer = storm.clone();
    let crew = Crew::start(1, Arc::new(move |_| writer.blow(), GFP_KERNEL)?)?;
    let closed = storm.close_regions();
    storm.stop.store(true, Relaxed);
    crew.join()?;
    closed
}
