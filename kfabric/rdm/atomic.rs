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
    let (size, vector, at) = (atomic.datatype.size(), op.len(), op.buffer().offset());
    // Whoever posted it has checked that the vectors fit the buffer; the memory checks again.
    let fetched = at + (atomic.action.vectors() - 1) * vector;
    let operand = |byte| local.number_at(at + byte, size);
    change(target, (offset, vector), atomic, operand, |byte, was| {
        local.set_number_at(fetched + byte, size, was)
    })
}

/// Does `atomic` to the words of a range of `target`, with the operands of a peer, and the comparands
/// after them; what the words were goes to `fetched`, if it is fetched.
///
/// Never sleeps; any context but hardirq. `EINVAL`: there are not as many operands as words, or out
/// of the bounds of `target`.
pub(super) fn execute_for_peer(
    target: &Exposed,
    range: (usize, usize),
    atomic: AtomicAction,
    operands: &[u8],
    fetched: &mut [u8],
) -> Result {
    let size = atomic.datatype.size();
    let operand = |byte: usize| {
        let mut word = [0; 8];
        let bytes = operands.get(byte..byte + size).ok_or(EINVAL)?;
        word[..size].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(word))
    };
    change(target, range, atomic, operand, |byte, was| {
        let room = fetched.get_mut(byte..byte + size).ok_or(EINVAL)?;
        room.copy_from_slice(&was.to_le_bytes()[..size]);
        Ok(())
    })
}

/// Changes the words of a range: `operand` gives those from a byte on, and behind them the comparands;
/// `fetched` takes what a word was.
fn change(
    target: &Exposed,
    (offset, vector): (usize, usize),
    atomic: AtomicAction,
    operand: impl Fn(usize) -> Result<u64>,
    mut fetched: impl FnMut(usize, u64) -> Result,
) -> Result {
    let AtomicAction { action, datatype } = atomic;
    for byte in (0..vector).step_by(datatype.size()) {
        let own = operand(byte)?;
        let comparand = match action {
            Action::Compare => operand(vector + byte)?,
            Action::Update(_) | Action::Fetch(_) => 0,
        };
        let was = target.update(offset + byte, datatype, |word| {
            atomic.apply(word, own, comparand)
        })?;
        if action.fetches() {
            fetched(byte, was)?;
        }
    }
    Ok(())
}

#[kunit_tests(kfabric_rdm_atomic)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::mr::{Access, RemoteRegion};
    use crate::op::testing::{request, Bench};
    use crate::op::{AtomicOp, Buffer, Datatype, Kind, Operation, Request};
    use crate::proto::descriptor::Descriptor;
    use crate::proto::key::Key;

    fn vec(bytes: &[u8]) -> Result<KVVec<u8>> {
        let mut all = KVVec::with_capacity(bytes.len(), GFP_KERNEL)?;
        all.extend_from_slice(bytes, GFP_KERNEL)?;
        Ok(all)
    }

    fn memory(bytes: &[u8]) -> Result<Exposed> {
        Ok(Memory::from_vec(vec(bytes)?).expose())
    }

    /// An atomic whose local side is what follows 0xee in `local`.
    fn operation(
        bench: &Bench<u64>,
        atomic: Option<AtomicAction>,
        local: &[u8],
    ) -> Result<Operation> {
        let skip = local.iter().take_while(|byte| **byte == 0xee).count();
        let buffer = Buffer::from(Memory::from_vec(vec(local)?));
        // The peer's side is one vector of them.
        let vectors = atomic.map_or(1, |atomic| atomic.action.vectors());
        let len = local.len() - skip;
        let told = Descriptor::new(Key::from_raw(1), 100, Access::ATOMIC, None);
        let remote = RemoteRegion::parse(&told.map_err(|_| EINVAL)?.emit())?;
        let request = Request {
            atomic,
            remote: Some(remote.slice(0, (len / vectors) as u64)?),
            buffer: buffer.range(skip, len).map_err(|_| EINVAL)?,
            ..request(Kind::Atomic)
        };
        Ok(bench.post_request(request, 0)?.1)
    }

    /// What the local side holds when the operation has ended.
    fn local(bench: &Bench<u64>, op: Operation) -> Result<KVVec<u8>> {
        drop(op);
        let done = bench.read().ok_or(EINVAL)?;
        let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
        memory.into_vec().map_err(|_| EINVAL)
    }

    #[test]
    fn each_word_is_changed_by_its_own_operand_and_no_other_is() -> Result {
        let bench = Bench::new(1, None)?;
        let target = memory(&[9, 1, 2, 3, 4, 9])?;
        let sum = AtomicAction::update(AtomicOp::Sum, Datatype::U8);
        let op = operation(&bench, Some(sum), &[0xee, 10, 20, 30, 40])?;
        execute(&target, 1, &op)?;
        // Nothing is fetched.
        assert_eq!(&*local(&bench, op)?, &[0xee, 10, 20, 30, 40]);
        let mut found = [0; 6];
        target.read_at(0, &mut found)?;
        assert_eq!(found, [9, 11, 22, 33, 44, 9]);
        Ok(())
    }

    #[test]
    fn fetched_words_go_behind_the_operands() -> Result {
        let bench = Bench::new(1, None)?;
        let target = memory(&[9, 9, 1, 0, 2, 0, 9, 9])?;
        let max = AtomicAction::fetch(AtomicOp::Max, Datatype::U16);
        // Of odd alignment: two operands, and room for two words.
        let op = operation(&bench, Some(max), &[0xee, 0, 0, 5, 0, 7, 7, 7, 7])?;
        execute(&target, 2, &op)?;
        assert_eq!(&*local(&bench, op)?, &[0xee, 0, 0, 5, 0, 1, 0, 2, 0]);
        let mut found = [0; 8];
        target.read_at(0, &mut found)?;
        assert_eq!(found, [9, 9, 1, 0, 5, 0, 9, 9]);
        Ok(())
    }

    #[test]
    fn comparands_stand_between_the_operands_and_what_is_fetched() -> Result {
        let bench = Bench::new(1, None)?;
        let target = memory(&[1, 2, 3])?;
        let compare = AtomicAction::compare(Datatype::U8);
        // The second word is not what it is compared with.
        let op = operation(&bench, Some(compare), &[10, 20, 30, 1, 9, 3, 0, 0, 0])?;
        execute(&target, 0, &op)?;
        assert_eq!(&*local(&bench, op)?, &[10, 20, 30, 1, 9, 3, 1, 2, 3]);
        let mut found = [0; 3];
        target.read_at(0, &mut found)?;
        assert_eq!(found, [10, 2, 30]);
        Ok(())
    }

    #[test]
    fn what_is_no_atomic_or_lies_beyond_the_end_is_refused() -> Result {
        let bench = Bench::new(1, None)?;
        let target = memory(&[0; 8])?;
        let op = operation(&bench, None, &[1; 8])?;
        assert_eq!(execute(&target, 0, &op), Err(EINVAL));
        drop(local(&bench, op)?);
        let write = AtomicAction::update(AtomicOp::Write, Datatype::U32);
        for (offset, whole) in [(0, true), (4, false), (8, false), (2, false)] {
            let op = operation(&bench, Some(write), &[1; 8])?;
            let done = execute(&target, offset, &op);
            assert_eq!(done, if whole { Ok(()) } else { Err(EINVAL) });
            drop(local(&bench, op)?);
        }
        Ok(())
    }
}
