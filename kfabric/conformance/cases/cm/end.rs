// SPDX-License-Identifier: GPL-2.0

//! How connections end.

use super::host::{send, Connected, Host};
use crate::close::closed;
use crate::ops::{check_refused, error};
use crate::rig::{check_buffer, pattern, DEPTH};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::prelude::*;

cases! { EndpointType::Msg;
    shutdown_ends_what_is_in_flight_on_both_sides: Caps::MSG,
    shutdown_of_both_at_once_ends_each_once: Caps::MSG,
    close_is_a_shutdown_for_the_peer: Caps::MSG => Order::SAS,
}

/// Fails unless those operations, and no others, have completed, each once, with `ENOTCONN`.
///
/// That is what operations end with that were posted before either end was shut down, whichever
/// end they waited at: at their own they end with why it ended; at the peer, they end with what a
/// connection is lost by; and a peer's shutdown is one for this end as well.
fn ended_with_it(host: &Host, posted: u64, seed: u64) -> Result {
    let mut times = [0; 2 * DEPTH];
    for _ in 0..posted {
        let done = host.next()?;
        *times.get_mut(done.context as usize).ok_or(EINVAL)? += 1;
        check_eq!(error(&done), Some(ENOTCONN));
        check_buffer(done.buffer, 100, seed)?;
    }
    check!(times[..posted as usize].iter().all(|times| *times == 1));
    check!(host.cq.read().is_none());
    Ok(())
}

// Each by itself: the stack is small.
fn shutdown_ends_what_is_in_flight_on_both_sides(info: &Info, seed: u64) -> Result {
    ends_messages_of_the_other(info, seed)?;
    ends_receives_of_its_own(info, seed)?;
    ends_messages_and_receives(info, seed)
}

/// What the side that does not end it has posted, and receives of it.
#[inline(never)]
fn ends_messages_of_the_other(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    // B's messages wait for receives of A, and its receives for messages.
    for n in 0..8 {
        send(&pair.at_b, pattern(100, seed)?, n)?;
    }
    pair.at_a.shutdown()?;
    pair.a.shut_down(&pair.at_a)?;
    pair.b.shut_down(&pair.at_b)?;
    ended_with_it(&pair.a, 0, seed)?;
    ended_with_it(&pair.b, 8, seed)?;
    for ep in [&pair.at_a, &pair.at_b] {
        check_refused(send(ep, pattern(9, seed)?, 1), ENOTCONN, 1)?;
        check_refused(ep.recv(Buffer::empty(), 1), ENOTCONN, 1)?;
    }
    pair.a.quiet()?;
    pair.b.quiet()?;
    pair.close()
}

/// Receives of the side that ends it.
#[inline(never)]
fn ends_receives_of_its_own(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    for n in 0..8 {
        pair.at_b.recv(pattern(100, seed)?, n)?;
    }
    pair.at_b.shutdown()?;
    // They are in the queue when it returns, and so is the event.
    check!(matches!(pair.b.eq.read(), Some(Event::Shutdown { .. })));
    ended_with_it(&pair.b, 8, seed)?;
    pair.a.shut_down(&pair.at_a)?;
    pair.close()
}

/// Messages and receives of that side, of which the other has none.
#[inline(never)]
fn ends_messages_and_receives(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    for n in 0..8 {
        send(&pair.at_a, pattern(100, seed)?, n)?;
        pair.at_a.recv(pattern(100, seed)?, 8 + n)?;
    }
    pair.at_a.shutdown()?;
    pair.a.shut_down(&pair.at_a)?;
    ended_with_it(&pair.a, 16, seed)?;
    pair.b.shut_down(&pair.at_b)?;
    // The messages are not there any more.
    check_refused(pair.at_b.recv(Buffer::empty(), 1), ENOTCONN, 1)?;
    pair.b.quiet()?;
    pair.close()
}

fn shutdown_of_both_at_once_ends_each_once(info: &Info, seed: u64) -> Result {
    for _ in 0..4 {
        let pair = Connected::new(info)?;
        for n in 0..8 {
            send(&pair.at_a, pattern(100, seed)?, n)?;
            send(&pair.at_b, pattern(100, seed)?, n)?;
        }
        let Connected { a, b, at_a, at_b } = pair;
        let (at_a, at_b) = (Arc::new(at_a, GFP_KERNEL)?, Arc::new(at_b, GFP_KERNEL)?);
        let both = [at_a.clone(), at_b.clone()];
        let job = move |thread: usize| match both[thread].shutdown() {
            // The peer was faster.
            Err(ENOTCONN) => Ok(()),
            result => result,
        };
        crate::crew::Crew::start(2, Arc::new(job, GFP_KERNEL)?)?.join()?;
        a.shut_down(&at_a)?;
        b.shut_down(&at_b)?;
        ended_with_it(&a, 8, seed)?;
        ended_with_it(&b, 8, seed)?;
        a.quiet()?;
        b.quiet()?;
        drop((at_a, at_b));
        a.close()?;
        b.close()?;
    }
    Ok(())
}

fn close_is_a_shutdown_for_the_peer(info: &Info, seed: u64) -> Result {
    let pair = Connected::new(info)?;
    for n in 0..8 {
        pair.at_b.recv(pattern(100, seed)?, n)?;
        send(&pair.at_b, pattern(100, seed)?, 8 + n)?;
    }
    let Connected { a, b, at_a, at_b } = pair;
    at_a.recv(pattern(100, seed)?, 7)?;
    // It has met the first message.
    drop(a.next()?);
    closed(at_a.close())?;
    b.shut_down(&at_b)?;
    let mut times = [0; 16];
    for _ in 0..16 {
        let done = b.next()?;
        times[done.context as usize] += 1;
        // For the peer it is a shutdown: only the closed endpoint's own are canceled.
        let expected = (done.context != 8).then_some(ENOTCONN);
        check_eq!(error(&done), expected);
    }
    check!(times.iter().all(|times| *times == 1));
    // Of its own end a closed endpoint says nothing.
    a.quiet()?;
    b.quiet()?;
    closed(at_b.close())?;
    a.close()?;
    b.close()
}
