// SPDX-License-Identifier: GPL-2.0

//! Cuts: no image of what a power cut leaves lacks a committed byte.

use crate::bench::{check, in_window, zeroed, Act, Bench, Context, LEN, PART, PARTS, WINDOW};
use crate::{cases, ensure};
use core::ops::Range as Span;
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    cut_between_operations_loses_no_committed_byte,
    cut_amid_operations_loses_no_committed_byte,
    uncommitted_bytes_can_be_lost,
    model_without_write_backs_loses_committed_bytes,
}

/// An operation in flight, and the bytes of its range once it has ended.
struct Flight {
    act: Act,
    range: Span<usize>,
    bytes: KVVec<u8>,
}

/// Random operations, each alone; the power is cut after each.
fn cut_between_operations_loses_no_committed_byte(bench: &mut Bench) -> Result {
    bench.reset(0)?;
    for _ in 0..bench.cuts {
        let (act, range) = (bench.random_act(), bench.range(0..LEN));
        bench.act(act, range)?;
        bench.cut()?;
    }
    ensure!(
        bench.ledger.exact() > 0,
        "at the end no byte was committed, so that nothing was checked"
    );
    pr_info!("# {} cuts between operations\n", bench.cuts);
    Ok(())
}

/// Random operations, many at once, in parts that share lines; cuts come at any moment.
fn cut_amid_operations_loses_no_committed_byte(bench: &mut Bench) -> Result {
    let goal = bench.cuts / 2;
    let mut flying: [Option<Flight>; PARTS] = [const { None }; PARTS];
    let mut cuts = 0;
    let mut in_flight = 0;

    bench.reset(0)?;
    while cuts < goal || in_flight > 0 {
        for (part, slot) in flying.iter_mut().enumerate() {
            if slot.is_some() || cuts >= goal {
                continue;
            }
            let act = bench.random_act();
            let range = bench.range(part * PART..(part + 1) * PART);
            let place = in_window(&range);
            let mut bytes = zeroed(range.len())?;
            match act {
                Act::Write(_) => {
                    bench.rng.fill(&mut bytes);
                    bench
                        .ledger
                        .written(place.start as u64, &bytes)
                        .map_err(|_| EINVAL)?;
                }
                _ => bytes.copy_from_slice(&bench.shadow[place]),
            }
            bench.post(act, &range, &bytes, part as Context)?;
            *slot = Some(Flight { act, range, bytes });
            in_flight += 1;
        }

        let mut done = Some(bench.finish()?);
        while let Some(completion) = done {
            let slot = flying.get_mut(completion.context as usize).ok_or(EINVAL)?;
            let Flight { act, range, bytes } = slot.take().ok_or(EINVAL)?;
            in_flight -= 1;
            let at = in_window(&range).start as u64;
            match act {
                Act::Write(Level::Committed) | Act::Commit => {
                    bench.ledger.committed(at, &bytes).map_err(|_| EINVAL)?
                }
                Act::Write(_) => {}
                Act::Read => {
                    let memory = completion.buffer.into_memory().map_err(|_| EINVAL)?;
                    ensure!(
                        memory.as_slice() == Some(&bytes),
                        "a read of {range:?} is not what was written"
                    );
                }
            }
            if let Act::Write(_) = act {
                bench.shadow[in_window(&range)].copy_from_slice(&bytes);
            }
            done = if bench.rng.one_in(2) {
                bench.cq.read()
            } else {
                None
            };
            if let Some(failure) = done.as_ref().and_then(|done| done.result.err()) {
                ensure!(false, "an operation failed: {failure:?}");
            }
        }
        bench.drain()?;
        bench.cut()?;
        cuts += 1;
    }
    pr_info!("# {cuts} cuts amid operations\n");
    Ok(())
}

/// The model has teeth: what was not committed is lost in some cuts, and not in others.
fn uncommitted_bytes_can_be_lost(bench: &mut Bench) -> Result {
    for level in [Level::Transmit, Level::Delivered] {
        let (mut lost, mut kept) = (0, 0);

        bench.reset(0)?;
        bench.act(Act::Write(level), 100..200)?;
        // A commit elsewhere does not help, one of the last byte saves that line only.
        bench.act(Act::Commit, 1000..1100)?;
        bench.act(Act::Commit, 199..200)?;
        bench.window.read_at(0, &mut bench.current)?;
        for _ in 0..200 {
            bench
                .model
                .cut(&mut bench.rng, &bench.current, &mut bench.image)
                .map_err(|_| EINVAL)?;
            check("an image", &bench.ledger, &bench.image)?;
            let place = in_window(&(100..150));
            if bench.image[place.clone()] == bench.shadow[place] {
                kept += 1;
            } else {
                lost += 1;
            }
        }
        ensure!(lost > 0, "a write at {level:?} survived each of 200 cuts");
        ensure!(kept > 0, "a write at {level:?} survived none of 200 cuts");
    }
    Ok(())
}

/// The ledger has teeth: without what the kernel wrote back, cuts lose committed bytes.
fn model_without_write_backs_loses_committed_bytes(bench: &mut Bench) -> Result {
    bench.reset(0)?;
    bench.act(Act::Write(Level::Committed), 100..200)?;
    let before = zeroed(WINDOW)?;
    bench.model.restart(&before).map_err(|_| EINVAL)?;
    ensure!(
        bench.ledger.check(bench.model.durable()).is_err(),
        "the loss of a committed write was not noticed"
    );
    Ok(())
}
