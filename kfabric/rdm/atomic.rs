// SPDX-License-Identifier: GPL-2.0

//! A peer's atomics on a region, by this host's CPUs.
//!
//! All atomics on a region are done here, also those of its owner ([`MemoryRegion::atomic`]), so
//! that none is lost to another. A region whose atomics a device does will have them all done
//! there.
//!
//! [`MemoryRegion::atomic`]: crate::mr::MemoryRegion::atomic

use crate::memory::Exposed;
use crate::op::{Action, AtomicAction, Op};
use kernel::prelude::*;

/// Does the atomics of `op` to the words from `offset` of `target`, one after another.
///
/// Never sleeps; any context but hardirq. `EINVAL`: not an atomic.
pub(super) fn execute(target: &Exposed, offset: usize, op: &Op) -> Result {
    let (atomic, local) = op.atomic().zip(op.buffer().memory()).ok_or(EINVAL)?;
    let AtomicAction { action, datatype } = atomic;
    let (size, vector, at) = (datatype.size(), op.len(), op.buffer().offset());
    // Whoever posted it has checked that the vectors fit the buffer; the memory checks again.
    let fetched = at + (action.vectors() - 1) * vector;
    for word in (0..vector).step_by(size) {
        let operand = local.number_at(at + word, size)?;
        let comparand = match action {
            Action::Compare => local.number_at(at + vector + word, size)?,
            Action::Update(_) | Action::Fetch(_) => 0,
        };
        let was = target.update(offset + word, datatype, |word| {
            atomic.apply(word, operand, comparand)
        })?;
        if action.fetches() {
            local.set_number_at(fetched + word, size, was)?;
        }
    }
    Ok(())
}
