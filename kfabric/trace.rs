// SPDX-License-Identifier: GPL-2.0

//! Tracepoints: `/sys/kernel/tracing/events/kfabric`.
//!
//! | event | where |
//! |---|---|
//! | `kfi_post` | an operation is handed to its provider |
//! | `kfi_complete` | it went well |
//! | `kfi_error` | it failed, or its target refused it |
//! | `kfi_commit` | its target made bytes durable |
//!
//! One that is off costs a branch that is patched out. Keys are never shown.

use crate::mr::RemoteSlice;
use crate::op::Op;
use crate::sys::trace as door;
use kernel::prelude::*;

fn name(op: &Op) -> door::Op {
    let id = op.id();
    door::Op {
        endpoint: op.endpoint(),
        index: id.index,
        use_: id.use_count,
        kind: op.kind() as u32,
    }
}

/// An operation is about to be executed.
#[inline]
pub(crate) fn post(op: &Op) {
    if door::post_enabled() {
        on_post(op);
    }
}

#[cold]
#[inline(never)]
fn on_post(op: &Op) {
    door::post(&name(op), op.len() as u64, op.level() as u32);
}

/// An operation ends.
#[inline]
pub(crate) fn complete(op: &Op) {
    if door::complete_enabled() || door::error_enabled() {
        on_complete(op);
    }
}

#[cold]
#[inline(never)]
fn on_complete(op: &Op) {
    match op.status() {
        Ok(success) if door::complete_enabled() => {
            door::complete(&name(op), success.len as u64, success.level as u32);
        }
        Err(failure) if door::error_enabled() => door::error(
            &name(op),
            op.len() as u64,
            0,
            failure.error.to_errno(),
            failure.provider,
        ),
        _ => {}
    }
}

/// The endpoint `target` refuses a peer's operation.
#[cold]
pub(crate) fn refuse(target: u64, op: &Op, error: Error) {
    if door::error_enabled() {
        door::error(&name(op), op.len() as u64, target, error.to_errno(), 0);
    }
}

/// The endpoint `target` made a range durable.
#[inline]
pub(crate) fn commit(target: u64, op: &Op, remote: &RemoteSlice) {
    if door::commit_enabled() {
        door::commit(&name(op), op.len() as u64, target, remote.offset());
    }
}

#[kunit_tests(kfabric_trace)]
mod tests {
    use super::*;
    use crate::op::testing::Bench;
    use crate::op::{Buffer, Kind};

    #[test]
    fn event_names_the_use_of_the_slot() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let mut uses = [0; 2];
        for (use_, kind) in uses.iter_mut().zip([Kind::Read, Kind::Send]) {
            let (id, op) = bench.post(kind, Buffer::empty(), 0)?;
            let named = name(&op);
            assert_eq!(
                (named.endpoint, named.index, named.kind),
                (7, 0, kind as u32)
            );
            assert_eq!(named.use_, id.use_count);
            *use_ = named.use_;
            drop(op);
            drop(bench.read());
        }
        assert_ne!(uses[0], uses[1]);
        Ok(())
    }
}
