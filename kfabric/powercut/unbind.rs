// SPDX-License-Identifier: GPL-2.0

//! Unbinding: what becomes of operations when the device goes.

use crate::bench::{zeroed, Act, Bench, LEN, PARTS};
use crate::{cases, ensure};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    unbinding_ends_in_enodev,
}

/// Under load the device's driver is unbound, by somebody else: from then on all is ENODEV.
fn unbinding_ends_in_enodev(bench: &mut Bench) -> Result {
    let acts = [
        Act::Write(Level::Delivered),
        Act::Write(Level::Committed),
        Act::Commit,
        Act::Read,
    ];
    let mut good = 0;
    let mut gone = 0;

    while gone < 100 * PARTS {
        if good == PARTS {
            pr_info!("# under load\n");
        }
        let (first, mut posted) = (good + gone, 0);
        for part in 0..PARTS {
            let act = acts[(first + part) % acts.len()];
            let range = bench.range(0..LEN);
            let bytes = zeroed(range.len())?;
            bench.post(act, &range, &bytes, 0)?;
            posted += 1;
        }
        while posted > 0 {
            bench.cq.wait(60_000)?;
            while let Some(done) = bench.cq.read() {
                posted -= 1;
                match done.result {
                    // What ended before may be read after what failed.
                    Ok(_) if gone < PARTS => good += 1,
                    Err(failure) if failure.error == ENODEV => gone += 1,
                    other => ensure!(false, "{:?} ended in {other:?}", done.kind),
                }
            }
        }
        while bench.probe.take(&mut bench.lines)?.is_some() {}
    }
    pr_info!("# {good} operations before, {gone} after\n");
    ensure!(
        good > 0,
        "the device was unbound before the first operation"
    );
    let mut byte = [0];
    ensure!(
        bench.window.read_at(0, &mut byte) == Err(ENODEV),
        "a read of the memory is not ENODEV"
    );
    ensure!(
        bench.window.write_at(0, &byte) == Err(ENODEV),
        "a write to the memory is not ENODEV"
    );
    ensure!(
        bench.region.load_u64(3) == Err(ENODEV),
        "a load from the region is not ENODEV"
    );
    Ok(())
}
