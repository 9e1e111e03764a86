// SPDX-License-Identifier: GPL-2.0

//! Waiting for a value.

use super::side::{both, Side};
use crate::close::closed;
use crate::crew::Crew;
use crate::rig::{lasts, timeout, End, Rig};
use crate::soft::spawn;
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

cases! {
    wait_for_a_count_ends_at_its_time: Caps::NONE,
    wait_for_a_count_ends_with_an_operation: Caps::RMA,
    wait_for_a_count_ends_with_an_error: Caps::MSG,
}

/// What a wait for 1 ends with, while somebody does something soon afterwards.
fn wait_while(
    cntr: &Counter,
    mut job: impl FnMut() -> Result<Arc<dyn Fn() -> Result + Send + Sync>>,
) -> Result<Result> {
    for millis in [50, 500, 5000] {
        let act = job()?;
        let late = move |_: usize| {
            fsleep(Delta::from_millis(millis));
            act()
        };
        let errors = cntr.errors();
        let crew = Crew::start(1, Arc::new(late, GFP_KERNEL)?)?;
        // Else the error was there before the wait began.
        let before = cntr.errors() == errors;
        let waited = cntr.wait(1, 2 * millis as u32 + 1000);
        crew.join()?;
        if before && waited != Err(ETIMEDOUT) {
            return Ok(waited);
        }
    }
    Err(ETIMEDOUT)
}

fn wait_for_a_count_ends_at_its_time(info: &Info, _seed: u64) -> Result {
    const MILLIS: u32 = 200;
    let end = End::new(info, None)?;
    let cntr = Counter::new(&end.domain, None)?;
    cntr.add(9);
    cntr.add_errors(1);
    check_eq!(cntr.wait(10, 0), Err(ETIMEDOUT));
    lasts(MILLIS, || cntr.wait(10, MILLIS))?;
    closed(cntr.close())?;
    end.close()
}

fn wait_for_a_count_ends_with_an_operation(info: &Info, _seed: u64) -> Result {
    const ROUNDS: u64 = 20;
    let rig = Rig::new(info)?;
    let (region, remote) = rig.region(50_000, Access::WRITE)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::WRITE, &cntr)])?;
    let side = Arc::new(side, GFP_KERNEL)?;
    for round in 0..ROUNDS {
        let len = if round % 2 == 0 { 50_000 } else { 50 };
        let (writer, to) = (side.clone(), rig.to_b);
        let (zeros, slice) = (Memory::zeroed(len)?, remote.slice(0, len as u64)?);
        let job = spawn(move || {
            writer.ep.write(zeros, to, slice, Options::default(), 1)?;
            Ok(())
        })?;
        cntr.wait(round + 1, timeout())?;
        // A wait takes nothing.
        cntr.wait(round + 1, 0)?;
        check_eq!(both(&cntr), (round + 1, 0));
        job.wait()?;
        side.ends(Kind::Write, None)?;
    }
    drop(side);
    drop(closed(region.close_wait(timeout()))?);
    closed(cntr.close())?;
    rig.close()
}

fn wait_for_a_count_ends_with_an_error(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cntr = Counter::new(&rig.a.domain, None)?;
    let side = Side::new(&rig.a, info, &[(Counts::SEND, &cntr)])?;
    let side = Arc::new(side, GFP_KERNEL)?;
    let too_long = || -> Result<Arc<dyn Fn() -> Result + Send + Sync>> {
        rig.b.recv(Memory::zeroed(10)?, 1)?;
        let (sender, to) = (side.clone(), rig.to_b);
        let send = move || {
            sender
                .ep
                .send(Memory::zeroed(11)?, to, Options::default(), 1)?;
            Ok(())
        };
        Ok(Arc::new(send, GFP_KERNEL)?)
    };
    check_eq!(wait_while(&cntr, too_long)?, Err(EIO));
    check_eq!(cntr.value(), 0);
    // It has been told; the next one waits.
    check!(cntr.errors() > 0);
    check_eq!(cntr.wait(1, 10), Err(ETIMEDOUT));
    // The value comes first.
    cntr.add(1);
    cntr.wait(1, 0)?;
    let side = Arc::into_unique_or_drop(side).ok_or(EBUSY)?;
    drop(side);
    closed(cntr.close())?;
    rig.close()
}
