// SPDX-License-Identifier: GPL-2.0

//! A region of an end of a rig.

use super::line::{Line, Verb};
use super::words::{copy, MOST};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::{Delta, Instant, Monotonic};
use kfabric::prelude::*;

/// A region that is registered here, or on the other host.
pub(crate) enum Region {
    Here(MemoryRegion),
    There(Afar),
}

/// One that is registered on the other host, with this number there.
pub(crate) struct Afar {
    line: Arc<Line>,
    number: usize,
    len: usize,
    is_persistent: bool,
    is_uncached: bool,
    /// It is closed, and there is nothing to close any more.
    is_closed: bool,
}

/// What the other host says of a region: its number, its length, whether it is persistent, and uncached.
pub(super) type Traits = (usize, usize, bool, bool);

/// How many bytes of a region are fetched at once.
const STEP: usize = 64 << 10;
const _: () = assert!(STEP <= MOST / 2);

impl Region {
    pub(super) fn there(line: Arc<Line>, traits: Traits) -> Self {
        let (number, len, is_persistent, is_uncached) = traits;
        Region::There(Afar {
            line,
            number,
            len,
            is_persistent,
            is_uncached,
            is_closed: false,
        })
    }

    /// The region, for what can't be asked from afar. `EXDEV`: it is not here.
    pub(crate) fn here(&self) -> Result<&MemoryRegion> {
        match self {
            Region::Here(region) => Ok(region),
            Region::There(_) => Err(EXDEV),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Region::Here(region) => region.len(),
            Region::There(afar) => afar.len,
        }
    }

    pub(crate) fn is_persistent(&self) -> bool {
        match self {
            Region::Here(region) => region.is_persistent(),
            Region::There(afar) => afar.is_persistent,
        }
    }

    pub(crate) fn is_uncached(&self) -> bool {
        match self {
            Region::Here(region) => region.is_uncached(),
            Region::There(afar) => afar.is_uncached,
        }
    }

    pub(crate) fn descriptor(&self) -> Result<[u8; 32]> {
        match self {
            Region::Here(region) => region.descriptor(),
            Region::There(afar) => {
                let bytes: KVVec<u8> = afar.line.ask(Verb::Descriptor, afar.number)?;
                bytes.as_slice().try_into().map_err(|_| EBADMSG)
            }
        }
    }

    /// A slice of it, for operations of its owner. `EXDEV`: that is on the other host.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Result<LocalSlice> {
        match self {
            Region::Here(region) => region.slice(offset, len),
            Region::There(_) => Err(EXDEV),
        }
    }

    pub(crate) fn read_at(&self, offset: usize, to: &mut [u8]) -> Result {
        let afar = match self {
            Region::Here(region) => return region.read_at(offset, to),
            Region::There(afar) => afar,
        };
        // Of none, too: whether it is in the region is known there.
        let mut at = 0;
        loop {
            let end = to.len().min(at + STEP);
            let words = (afar.number, offset.wrapping_add(at), end - at);
            let bytes: KVVec<u8> = afar.line.ask(Verb::ReadAt, words)?;
            let part = to.get_mut(at..end).filter(|part| part.len() == bytes.len());
            part.ok_or(EBADMSG)?.copy_from_slice(&bytes);
            if end == to.len() {
                return Ok(());
            }
            at = end;
        }
    }

    pub(crate) fn write_at(&self, offset: usize, from: &[u8]) -> Result {
        let afar = match self {
            Region::Here(region) => return region.write_at(offset, from),
            Region::There(afar) => afar,
        };
        let bytes = copy(from)?;
        afar.line.ask(Verb::WriteAt, (afar.number, offset, bytes))
    }

    /// Whether `is` holds of each byte of a range; it is told where in the range.
    pub(crate) fn holds(
        &self,
        offset: usize,
        len: usize,
        is: impl Fn(usize, u8) -> bool,
    ) -> Result<bool> {
        let mut found = KVVec::zeroed(len.min(STEP), GFP_KERNEL)?;
        for at in (0..len).step_by(STEP) {
            let found = &mut found[..STEP.min(len - at)];
            self.read_at(offset + at, found)?;
            if !found.iter().zip(at..).all(|(byte, at)| is(at, *byte)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sets all of its bytes to `value`.
    pub(crate) fn fill(&self, value: u8) -> Result {
        let bytes = KVVec::from_elem(value, self.len().min(STEP), GFP_KERNEL)?;
        for at in (0..self.len()).step_by(STEP) {
            self.write_at(at, &bytes[..STEP.min(self.len() - at)])?;
        }
        Ok(())
    }

    pub(crate) fn load_u64(&self, offset: usize) -> Result<u64> {
        match self {
            Region::Here(region) => region.load_u64(offset),
            Region::There(afar) => afar.line.ask(Verb::Load, (afar.number, offset)),
        }
    }

    pub(crate) fn store_u64(&self, offset: usize, value: u64) -> Result {
        match self {
            Region::Here(region) => region.store_u64(offset, value),
            Region::There(afar) => afar.line.ask(Verb::Store, (afar.number, offset, value)),
        }
    }

    pub(crate) fn atomic(
        &self,
        offset: usize,
        action: AtomicAction,
        operand: u64,
        comparand: u64,
    ) -> Result<u64> {
        match self {
            Region::Here(region) => region.atomic(offset, action, operand, comparand),
            Region::There(afar) => {
                let words = (afar.number, offset, action, operand, comparand);
                afar.line.ask(Verb::Atomic, words)
            }
        }
    }

    pub(crate) fn commit(&self, offset: usize, len: usize) -> Result {
        match self {
            Region::Here(region) => region.commit(offset, len),
            Region::There(afar) => afar.line.ask(Verb::Commit, (afar.number, offset, len)),
        }
    }

    /// Closes it. Of one that was on the other host, the memory has the bytes, and is volatile.
    pub(crate) fn close(self) -> Result<Memory, (Error, Self)> {
        match self {
            Region::Here(region) => match region.close() {
                Ok(memory) => Ok(memory),
                Err((error, region)) => Err((error, Region::Here(region))),
            },
            Region::There(mut afar) => match afar.close() {
                Ok(memory) => Ok(memory),
                Err(error) => Err((error, Region::There(afar))),
            },
        }
    }

    /// Closes it when nothing uses it any more, within `timeout` milliseconds.
    pub(crate) fn close_wait(self, timeout: u32) -> Result<Memory, (Error, Self)> {
        let begin = Instant::<Monotonic>::now();
        let mut open = self;
        loop {
            open = match open {
                Region::Here(region) => {
                    let closed = region.close_wait(timeout);
                    return closed.map_err(|(error, region)| (error, Region::Here(region)));
                }
                afar => match afar.close() {
                    Err((EBUSY, afar)) if begin.elapsed().as_millis() < timeout.into() => afar,
                    closed => return closed,
                },
            };
            fsleep(Delta::from_millis(1));
        }
    }
}

impl Afar {
    fn close(&mut self) -> Result<Memory> {
        let (memory, len): (usize, usize) = self.line.ask(Verb::CloseRegion, self.number)?;
        self.is_closed = true;
        if len != self.len {
            return Err(EBADMSG);
        }
        let mut bytes = KVVec::with_capacity(len, GFP_KERNEL)?;
        while bytes.len() < len {
            let step = STEP.min(len - bytes.len());
            let words = (memory, bytes.len(), step);
            let part: KVVec<u8> = self.line.ask(Verb::ReadMemory, words)?;
            if part.len() != step {
                return Err(EBADMSG);
            }
            bytes.extend_from_slice(&part, GFP_KERNEL)?;
        }
        self.line.ask::<()>(Verb::DropMemory, memory)?;
        Ok(Memory::from_vec(bytes))
    }
}

impl Drop for Afar {
    fn drop(&mut self) {
        if !self.is_closed {
            // Of a line that is broken all stays there until the servant ends.
            let _ = self.line.ask::<()>(Verb::DropRegion, self.number);
        }
    }
}
