// SPDX-License-Identifier: GPL-2.0

//! One measurement, by the kernel's monotonic clock.
//!
//! In an emulated machine whose time is the number of its instructions, the same clock counts
//! instructions.

use crate::copies::copy;
use crate::load::Load;
use crate::rig::Rig;
use kernel::prelude::*;
use kernel::time::{Delta, Instant, Monotonic};
use kfabric::prelude::*;

/// How many operations a batch has whose parts are measured one by one.
pub(crate) const BATCH: usize = 64;

/// What operations took, and as many copies.
pub(crate) struct Times {
    pub(crate) operations: Delta,
    pub(crate) copies: Delta,
}

impl Times {
    /// Measures `times` rounds of `depth` operations of `len` bytes each. Sleeps.
    pub(crate) fn new(
        rig: &Rig,
        kind: Kind,
        len: usize,
        depth: usize,
        times: usize,
    ) -> Result<Self> {
        let mut load = Load::new(rig, kind, len, depth)?;
        load.round()?;
        let begin = now();
        for _ in 0..times {
            load.round()?;
        }
        let operations = begin.elapsed();
        let mut copies = load.into_copies()?;
        copies.round();
        let begin = now();
        for _ in 0..times {
            copies.round();
        }
        Ok(Times {
            operations,
            copies: begin.elapsed(),
        })
    }
}

/// The parts of an operation: each the median, over many batches, of the sum over a batch, in
/// nanoseconds. All but `clock` include one reading of the clock for each operation.
pub(crate) struct Parts {
    /// A reading of the clock.
    pub(crate) clock: i64,
    /// The post; of a message, those of receive and send.
    pub(crate) post: i64,
    /// The read of its completion, or of both.
    pub(crate) completion: i64,
    /// The copy of the same bytes.
    pub(crate) copy: i64,
}

impl Parts {
    /// Measures `batches` batches, one operation in flight. Sleeps.
    ///
    /// # Errors
    /// - `EAGAIN`: the operation is not complete when its post returns, so it has no parts.
    pub(crate) fn new(rig: &Rig, kind: Kind, len: usize, batches: usize) -> Result<Self> {
        let room = || KVec::with_capacity(batches, GFP_KERNEL);
        let (mut clock, mut post, mut completion, mut copies) =
            (room()?, room()?, room()?, room()?);
        let mut load = Load::new(rig, kind, len, 1)?;
        for _ in 0..batches {
            clock.push(sum(|| between(|| ())), GFP_KERNEL)?;
            let (mut posts, mut reads) = (0, 0);
            for _ in 0..BATCH {
                let (post, read) = operation(rig, &mut load)?;
                posts += post;
                reads += read;
            }
            post.push(posts, GFP_KERNEL)?;
            completion.push(reads, GFP_KERNEL)?;
        }
        let mut pairs = load.into_copies()?;
        let (to, from) = pairs.pairs().next().ok_or(EINVAL)?;
        for _ in 0..batches {
            copies.push(sum(|| between(|| copy(to, from))), GFP_KERNEL)?;
        }
        Ok(Parts {
            clock: median(&clock),
            post: median(&post),
            completion: median(&completion),
            copy: median(&copies),
        })
    }
}

/// One operation: what its post and its completion took.
fn operation(rig: &Rig, load: &mut Load<'_>) -> Result<(i64, i64)> {
    let (near, mut far) = load.take(0);
    let begin = now();
    let posted = load.post(0, near, &mut far);
    let between = now();
    let first = rig.cq.read();
    let second = match load.completions() {
        2 => rig.cq.read(),
        _ => None,
    };
    let end = now();
    posted?;
    load.put(first.ok_or(EAGAIN)?)?;
    if let Some(second) = second {
        load.put(second)?;
    }
    Ok(((between - begin).as_nanos(), (end - between).as_nanos()))
}

#[inline(always)]
fn now() -> Instant<Monotonic> {
    Instant::now()
}

/// What `f` took, in nanoseconds.
#[inline(always)]
fn between(f: impl FnOnce()) -> i64 {
    let begin = now();
    f();
    begin.elapsed().as_nanos()
}

/// The sum over a batch.
#[inline(always)]
fn sum(mut f: impl FnMut() -> i64) -> i64 {
    (0..BATCH).map(|_| f()).sum()
}

/// The upper of the two in the middle. Steps: the square of how many there are.
fn median(values: &[i64]) -> i64 {
    let middle = values.len() / 2;
    let is = |value: i64| {
        let below = values.iter().filter(|other| **other < value).count();
        let equal = values.iter().filter(|other| **other == value).count();
        (below..below + equal).contains(&middle)
    };
    values.iter().copied().find(|value| is(*value)).unwrap_or(0)
}
