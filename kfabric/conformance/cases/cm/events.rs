// SPDX-License-Identifier: GPL-2.0

//! Events: the bound of their queue, their end, and the callback.

use super::host::{begin, Connected, Host};
use crate::close::{busy, closed};
use crate::rig::{count, lasts, timeout, until};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Relaxed};
use kernel::sync::Arc;
use kfabric::prelude::*;

cases! { EndpointType::Msg;
    event_queue_keeps_its_bound: Caps::NONE,
    closed_endpoint_causes_no_event: Caps::NONE,
    queue_dropped_before_its_listener_rejects: Caps::NONE,
    wait_for_an_event_is_bounded: Caps::NONE,
    events_call_back: Caps::NONE,
}

fn event_queue_keeps_its_bound(info: &Info, _seed: u64) -> Result {
    // Room for a listener with a backlog of 2, and one endpoint.
    let b = Host::sized(info, 2 + EventQueue::PER_ENDPOINT, None)?;
    check_eq!(b.eq.size(), 4);
    check_eq!(b.listen(5).err(), Some(ENOSPC));
    let listener = b.listen(2)?;
    let ep = b.endpoint()?;
    check_eq!(b.endpoint().err(), Some(ENOSPC));
    check_eq!(b.listen(1).err(), Some(ENOSPC));
    let b = KBox::into_inner(b);
    let eq = busy(b.eq.close())?;
    let b = KBox::new(Host { eq, ..b }, GFP_KERNEL)?;
    closed(ep.close())?;
    // Its room is there again.
    let ep = b.endpoint()?;
    closed(ep.close())?;
    closed(listener.close())?;
    b.close()
}

fn closed_endpoint_causes_no_event(info: &Info, _seed: u64) -> Result {
    let pair = Connected::new(info)?;
    let Connected { a, b, at_a, at_b } = pair;
    // An event that nobody has read goes with its endpoint.
    at_a.shutdown()?;
    until(|| b.eq.wait(0).is_ok())?;
    closed(at_a.close())?;
    closed(at_b.close())?;
    a.quiet()?;
    b.quiet()?;
    // So does a request.
    let listener = b.listen(1)?;
    let ep = a.endpoint()?;
    begin(&ep, &listener)?;
    closed(ep.close())?;
    a.quiet()?;
    closed(listener.close())?;
    b.quiet()?;
    a.close()?;
    b.close()
}

/// A consumer that drops its queue first can be told of nothing: who asks must not wait for it.
fn queue_dropped_before_its_listener_rejects(info: &Info, _seed: u64) -> Result {
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    let listener = b.listen(1)?;
    let name = listener.name();
    let waits = a.endpoint()?;
    begin(&waits, &listener)?;
    until(|| b.eq.wait(0).is_ok())?;
    let Host {
        eq,
        cq,
        domain,
        fabric,
        ..
    } = KBox::into_inner(b);
    drop(eq);
    check_eq!(a.refused(&waits)?.0, ECONNREFUSED);
    // The place in the backlog is free each time.
    for _ in 0..3 {
        let late = a.endpoint()?;
        late.connect(&name, PrivateData::NONE, timeout())?;
        check_eq!(a.refused(&late)?.0, ECONNREFUSED);
        closed(late.close())?;
    }
    closed(listener.close())?;
    closed(cq.close())?;
    closed(domain.close())?;
    closed(fabric.close())?;
    closed(waits.close())?;
    a.close()
}

fn wait_for_an_event_is_bounded(info: &Info, _seed: u64) -> Result {
    const MILLIS: u32 = 100;
    let (a, b) = (Host::new(info)?, Host::new(info)?);
    check_eq!(a.eq.wait(0).err(), Some(ETIMEDOUT));
    check_eq!(a.eq.read_wait(0).err(), Some(ETIMEDOUT));
    lasts(MILLIS, || a.eq.wait(MILLIS))?;
    lasts(MILLIS, || a.eq.read_wait(MILLIS).map(drop))?;
    // A wait takes nothing.
    let listener = b.listen(1)?;
    let ep = a.endpoint()?;
    begin(&ep, &listener)?;
    b.eq.wait(timeout())?;
    b.eq.wait(0)?;
    drop(b.request()?);
    check_eq!(b.eq.wait(0).err(), Some(ETIMEDOUT));
    // An answer that is waited for no time at all does not come.
    let (hasty, mut seen) = (a.endpoint()?, [false; 2]);
    hasty.connect(&listener.name(), PrivateData::NONE, 0)?;
    for _ in 0..seen.len() {
        let Event::Refused {
            endpoint, error, ..
        } = a.event()?
        else {
            return Err(EINVAL);
        };
        let at = usize::from(endpoint == hasty.id());
        check_eq!(error, [ECONNREFUSED, ETIMEDOUT][at]);
        check!(!core::mem::replace(&mut seen[at], true));
    }
    closed(hasty.close())?;
    closed(ep.close())?;
    closed(listener.close())?;
    a.close()?;
    b.close()
}

fn events_call_back(info: &Info, _seed: u64) -> Result {
    let calls = count()?;
    let counted = calls.clone();
    let callback = move |events: &EventReader<'_>| {
        while let Some(event) = events.read() {
            drop(event);
            counted.add(1, Relaxed);
        }
    };
    let callback = Arc::new(callback, GFP_KERNEL)?;
    let (a, b) = (Host::sized(info, 4, Some(callback))?, Host::new(info)?);
    let listener = b.listen(1)?;
    let (at_a, at_b) = (a.endpoint()?, b.endpoint()?);
    check_eq!(calls.load(Acquire), 0);
    begin(&at_a, &listener)?;
    closed(at_b.accept(b.request()?, PrivateData::NONE))?;
    until(|| calls.load(Acquire) == 1)?;
    closed(at_b.close())?;
    until(|| calls.load(Acquire) == 2)?;
    closed(at_a.close())?;
    closed(listener.close())?;
    a.close()?;
    check_eq!(calls.load(Acquire), 2);
    b.close()
}
