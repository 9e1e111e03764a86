// SPDX-License-Identifier: GPL-2.0

//! The callback, and the value that it is called at.

use super::side::{both, Side, SILENT};
use crate::close::closed;
use crate::ops::error;
use crate::rig::{count, timeout, until, Counted, End, Inside, Rig};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

cases! {
    threshold_fires_once_and_is_armed_again: Caps::MSG,
    callback_of_a_counter_posts_the_next: Caps::RMA,
    callback_of_a_counter_is_never_called_inside_a_post: Caps::MSG,
    callback_of_a_counter_does_not_come_after_the_close: Caps::MSG,
}

/// How long a case waits for what must not happen.
const QUIET: Delta = Delta::from_millis(30);

fn threshold_fires_once_and_is_armed_again(info: &Info, _seed: u64) -> Result {
    let (fired, soft) = (count()?, count()?);
    let (calls, in_soft) = (fired.clone(), soft.clone());
    let callback = move |cntr: &Reading<'_>| {
        in_soft.add(i32::from(in_softirq()), Relaxed);
        calls.add(if cntr.value() >= 3 { 1 } else { 1000 }, Relaxed);
    };
    let fires = |times| -> Result {
        until(|| fired.load(Acquire) >= times)?;
        fsleep(QUIET);
        check_eq!(fired.load(Acquire), times);
        Ok(())
    };
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let side = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    // Not armed yet.
    side.send(&rig, 1)?;
    fires(0)?;
    cntr.notify_at(3)?;
    side.send(&rig, 1)?;
    // A failure is no success.
    side.send(&rig, 11)?;
    fires(0)?;
    side.send(&rig, 1)?;
    fires(1)?;
    side.send(&rig, 1)?;
    fires(1)?;
    // At once, if it is reached.
    cntr.notify_at(4)?;
    fires(2)?;
    side.send(&rig, 1)?;
    fires(2)?;
    cntr.notify_at(7)?;
    side.send(&rig, 1)?;
    fires(2)?;
    // What a consumer adds counts as well.
    cntr.add(100);
    fires(3)?;
    check_eq!(soft.load(Acquire), 3);
    side.close()?;
    closed(cntr.close())?;
    rig.close()
}

/// What the callback posts on.
struct Target {
    ep: Endpoint<u64>,
    to: Address,
    slice: RemoteSlice,
}

fn callback_of_a_counter_posts_the_next(info: &Info, _seed: u64) -> Result {
    const ROUNDS: u64 = 100;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(100, Access::WRITE)?;
    let target = Arc::pin_init(new_spinlock_irq!(None::<Target>), GFP_KERNEL)?;
    let (posts, failed) = (target.clone(), count()?);
    let failures = failed.clone();
    // Each count has the next operation posted; the queue stays empty.
    let callback = move |cntr: &Reading<'_>| {
        let (value, target) = (cntr.value(), posts.lock());
        let Some(target) = target.as_ref().filter(|_| value < ROUNDS) else {
            return;
        };
        let armed = cntr.notify_at(value + 1);
        let posted = target
            .ep
            .write(Buffer::empty(), target.to, target.slice, SILENT, 1);
        if armed.is_err() || posted.is_err() {
            failures.add(1, Relaxed);
        }
    };
    let cntr = Counter::new(&rig.a.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let Side { ep, cq } = Side::new(&rig.a, info, &[(Counts::WRITE, &cntr)])?;
    let (to, slice) = (rig.to_b, remote.slice(0, 0)?);
    *target.lock() = Some(Target { ep, to, slice });
    cntr.notify_at(0)?;
    cntr.wait(ROUNDS, timeout())?;
    check_eq!((both(&cntr), failed.load(Acquire)), ((ROUNDS, 0), 0));
    check!(cq.read().is_none());
    let target = target.lock().take();
    closed(target.ok_or(EINVAL)?.ep.close())?;
    closed(cq.close())?;
    closed(cntr.close())?;
    drop(closed(region.close_wait(timeout()))?);
    rig.close()
}

fn callback_of_a_counter_is_never_called_inside_a_post(info: &Info, _seed: u64) -> Result {
    let (fired, inside) = (count()?, Inside::new()?);
    let (calls, watched) = (fired.clone(), inside.clone());
    let callback = move |_: &Reading<'_>| {
        watched.call();
        calls.add(1, Relaxed);
    };
    let end = End::new(info, None)?;
    let cntr = Counter::new(&end.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let side = Side::new(&end, info, &[(Counts::SEND, &cntr)])?;
    let own = end.av.insert(&side.ep.name())?;
    let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
    for round in 1..=10 {
        let before = fired.load(Acquire);
        let options = Options::default();
        // No softirq runs on this CPU while interrupts are disabled: what fires here does so
        // inside.
        let locked = lock.lock();
        let posted = inside.watch(|| {
            cntr.notify_at(round).is_ok()
                && side.ep.recv(Buffer::empty(), 1).is_ok()
                && side.ep.send(Buffer::empty(), own, options, 2).is_ok()
        });
        drop(locked);
        check!(posted);
        check_eq!((round, inside.calls()), (round, 0));
        until(|| fired.load(Acquire) > before)?;
        for _ in 0..2 {
            check_eq!(error(&side.cq.read_wait(timeout())?), None);
        }
    }
    side.close()?;
    closed(cntr.close())?;
    end.close()
}

fn callback_of_a_counter_does_not_come_after_the_close(info: &Info, _seed: u64) -> Result {
    for _ in 0..20 {
        // `held` is dropped with the callback.
        let (fired, held) = (count()?, count()?);
        let (calls, token) = (fired.clone(), Counted::new(&held));
        let callback = move |_: &Reading<'_>| {
            let _ = &token;
            calls.add(1, Relaxed);
        };
        let end = End::new(info, None)?;
        let cntr = Counter::new(&end.domain, Some(Arc::new(callback, GFP_KERNEL)?))?;
        let side = Side::new(&end, info, &[(Counts::SEND, &cntr)])?;
        let own = end.av.insert(&side.ep.name())?;
        cntr.notify_at(1)?;
        side.ep.recv(Buffer::empty(), 1)?;
        // It fires the callback, if that comes in time.
        side.ep.send(Buffer::empty(), own, Options::default(), 1)?;
        side.close()?;
        closed(cntr.close())?;
        let before = fired.load(Acquire);
        check_eq!(held.load(Acquire), 0);
        fsleep(Delta::from_millis(2));
        check_eq!(fired.load(Acquire), before);
        end.close()?;
    }
    Ok(())
}
