// SPDX-License-Identifier: GPL-2.0

//! The buffers and their places, without any I/O: whose is each at the moment?
//!
//! Only who owns a place changes it, and owning one is having a value that can't be copied, made
//! up, or used twice:
//!
//! - [`Taken`]: a call has the place and its buffer.
//! - [`Ticket`]: the operation has it; it travels with the operation and returns with its
//!   completion.
//! - [`Reading`]: what a read will bring is the holder's; beside the read's ticket.

use kernel::prelude::*;
use kfabric::prelude::Extent;

/// An operation under way.
#[derive(Clone, Copy)]
pub(crate) struct Busy {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) extent: Extent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Read,
    Commit,
}

/// A place and its buffer, in a call's hands.
#[must_use = "the buffer is lost unless it is put back or posted"]
pub(crate) struct Taken<B> {
    place: usize,
    pub(crate) buffer: B,
}

/// A place whose buffer an operation has.
#[must_use = "the place is lost unless its operation ends"]
#[derive(Debug)]
pub(crate) struct Ticket(usize);

/// The right to what a read brings.
#[must_use = "the place is lost unless the read is fetched or abandoned"]
pub(crate) struct Reading(usize);

enum Slot<B> {
    /// The buffer is free.
    Free(B),
    /// A call has the buffer, for good if it has lost it.
    Taken,
    /// An operation has it.
    Busy(Busy),
    /// A read has it whose caller has gone.
    Abandoned,
    /// It holds what a read brought, unless that failed, for its caller.
    Read(Option<B>, Result),
}

/// A fixed number of buffers.
pub(crate) struct Slots<B>(KVec<Slot<B>>);

impl<B> Slots<B> {
    /// Creates a pool of the buffers that `make` returns.
    pub(crate) fn new(count: usize, mut make: impl FnMut() -> Result<B>) -> Result<Self> {
        let mut slots = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            slots.push(Slot::Free(make()?), GFP_KERNEL)?;
        }
        Ok(Self(slots))
    }

    /// The transfers under way that somebody may have to wait for.
    pub(crate) fn busy(&self) -> impl Iterator<Item = &Busy> {
        self.0.iter().filter_map(|slot| match slot {
            Slot::Busy(busy) => Some(busy),
            _ => None,
        })
    }

    fn replace(&mut self, place: usize, slot: Slot<B>) -> Slot<B> {
        core::mem::replace(&mut self.0[place], slot)
    }

    /// The buffer is free again, unless it was lost.
    fn free(&mut self, place: usize, buffer: Option<B>) {
        self.0[place] = buffer.map_or(Slot::Taken, Slot::Free);
    }

    /// Takes a free buffer.
    pub(crate) fn take(&mut self) -> Option<Taken<B>> {
        let free = |slot: &Slot<B>| matches!(slot, Slot::Free(_));
        let place = self.0.iter().position(free)?;
        match self.replace(place, Slot::Taken) {
            Slot::Free(buffer) => Some(Taken { place, buffer }),
            _ => None,
        }
    }

    /// Gives a buffer back.
    pub(crate) fn put(&mut self, taken: Taken<B>) {
        self.free(taken.place, Some(taken.buffer));
    }

    /// Hands a buffer to an operation that is about to be posted; for a read, says to whom it
    /// will belong afterwards.
    pub(crate) fn begin(&mut self, taken: Taken<B>, busy: Busy) -> (Ticket, B, Option<Reading>) {
        let Taken { place, buffer } = taken;
        self.0[place] = Slot::Busy(busy);
        let reading = (busy.kind == Kind::Read).then_some(Reading(place));
        (Ticket(place), buffer, reading)
    }

    /// Takes a buffer back whose operation was not posted; none if it was lost. With it goes the
    /// right to what was not read.
    pub(crate) fn refuse(
        &mut self,
        ticket: Ticket,
        _unread: Option<Reading>,
        buffer: Option<B>,
    ) -> Option<Taken<B>> {
        let Ticket(place) = ticket;
        self.0[place] = Slot::Taken;
        Some(Taken {
            place,
            buffer: buffer?,
        })
    }

    /// Takes back what an operation had; returns what it was, unless its caller has gone.
    pub(crate) fn end(
        &mut self,
        ticket: Ticket,
        buffer: Option<B>,
        result: Result,
    ) -> Option<Busy> {
        let Ticket(place) = ticket;
        match self.replace(place, Slot::Taken) {
            Slot::Busy(busy) => {
                match busy.kind {
                    Kind::Read => self.0[place] = Slot::Read(buffer, result),
                    _ => self.free(place, buffer),
                }
                Some(busy)
            }
            _ => {
                self.free(place, buffer);
                None
            }
        }
    }

    /// Takes what a read brought, or why it failed, in which case the buffer is free; gives the
    /// right to it back if it has not ended.
    pub(crate) fn fetch(&mut self, reading: Reading) -> Result<Result<Taken<B>>, Reading> {
        let Reading(place) = reading;
        match self.replace(place, Slot::Taken) {
            Slot::Read(Some(buffer), Ok(())) => Ok(Ok(Taken { place, buffer })),
            Slot::Read(buffer, result) => {
                self.free(place, buffer);
                Ok(Err(result.err().unwrap_or(EIO)))
            }
            other => {
                self.0[place] = other;
                Err(Reading(place))
            }
        }
    }

    /// Lets go of a read that nobody waits for any more.
    pub(crate) fn abandon(&mut self, reading: Reading) {
        match self.fetch(reading) {
            Ok(Ok(taken)) => self.put(taken),
            Ok(Err(_)) => {}
            Err(Reading(place)) => self.0[place] = Slot::Abandoned,
        }
    }
}

#[kunit_tests(kfi_replica_slots)]
mod tests {
    use super::*;

    const COUNT: usize = 2;

    fn busy(kind: Kind) -> Busy {
        let extent = Extent { start: 0, end: 1 };
        Busy {
            kind,
            number: 0,
            extent,
        }
    }

    /// A pool of the buffers 0 and 1.
    fn pool() -> Result<Slots<usize>> {
        let mut next = 0..COUNT;
        Slots::new(COUNT, || next.next().ok_or(EINVAL))
    }

    /// Takes a buffer and hands it to an operation.
    fn begun(slots: &mut Slots<usize>, kind: Kind) -> Result<(Ticket, usize, Option<Reading>)> {
        let taken = slots.take().ok_or(ENOSPC)?;
        Ok(slots.begin(taken, busy(kind)))
    }

    /// Whether every buffer is free and in its place.
    fn all_free(slots: &Slots<usize>) -> bool {
        let place_of = |slot: &Slot<usize>| match slot {
            Slot::Free(buffer) => Some(*buffer),
            _ => None,
        };
        slots.0.iter().map(place_of).eq((0..COUNT).map(Some))
    }

    #[test]
    fn failed_read_has_no_claim_on_the_next_user_of_its_place() -> Result {
        for kind in [Kind::Write, Kind::Read] {
            let mut slots = pool()?;
            let (ticket, buffer, reading) = begun(&mut slots, Kind::Read)?;
            assert!(slots.end(ticket, Some(buffer), Err(EIO)).is_some());
            // It ends here, so that nothing is left to abandon.
            let fetched = slots.fetch(reading.ok_or(EINVAL)?);
            assert!(matches!(fetched, Ok(Err(EIO))));

            let (ticket, buffer, reading) = begun(&mut slots, kind)?;
            assert_eq!(buffer, 0);
            let ended = slots.end(ticket, Some(buffer), Ok(()));
            assert!(ended.is_some_and(|busy| busy.kind == kind));
            if let Some(reading) = reading {
                slots.abandon(reading);
            }
            assert!(all_free(&slots));
        }
        Ok(())
    }

    #[test]
    fn abandoned_read_frees_its_place_when_it_ends() -> Result {
        for (ended_before, result) in [
            (false, Ok(())),
            (true, Ok(())),
            (false, Err(EIO)),
            (true, Err(EIO)),
        ] {
            let mut slots = pool()?;
            let (ticket, buffer, reading) = begun(&mut slots, Kind::Read)?;
            let reading = reading.ok_or(EINVAL)?;
            if ended_before {
                assert!(slots.end(ticket, Some(buffer), result).is_some());
                slots.abandon(reading);
            } else {
                slots.abandon(reading);
                // The buffer is the read's until then.
                assert_eq!(slots.take().map(|taken| taken.place), Some(1));
                slots.free(1, Some(1));
                assert!(slots.end(ticket, Some(buffer), result).is_none());
            }
            assert!(all_free(&slots));
        }
        Ok(())
    }

    #[test]
    fn read_under_way_is_not_fetched() -> Result {
        let mut slots = pool()?;
        let (ticket, buffer, reading) = begun(&mut slots, Kind::Read)?;
        let Err(reading) = slots.fetch(reading.ok_or(EINVAL)?) else {
            return Err(EINVAL);
        };
        assert!(slots.end(ticket, Some(buffer), Ok(())).is_some());
        let Ok(Ok(taken)) = slots.fetch(reading) else {
            return Err(EINVAL);
        };
        assert_eq!((taken.place, taken.buffer), (0, 0));
        slots.put(taken);
        assert!(all_free(&slots));
        Ok(())
    }

    #[test]
    fn refused_operation_is_not_under_way() -> Result {
        for kind in [Kind::Write, Kind::Read] {
            let mut slots = pool()?;
            let (ticket, buffer, reading) = begun(&mut slots, kind)?;
            assert_eq!(slots.busy().count(), 1);
            let taken = slots.refuse(ticket, reading, Some(buffer)).ok_or(EINVAL)?;
            assert_eq!(slots.busy().count(), 0);
            slots.put(taken);
            assert!(all_free(&slots));
        }
        Ok(())
    }

    #[test]
    fn lost_buffer_is_never_given_out() -> Result {
        let mut slots = pool()?;
        let (ticket, _, reading) = begun(&mut slots, Kind::Read)?;
        assert!(slots.end(ticket, None, Ok(())).is_some());
        assert!(matches!(slots.fetch(reading.ok_or(EINVAL)?), Ok(Err(EIO))));
        let (ticket, _, _) = begun(&mut slots, Kind::Write)?;
        assert!(slots.end(ticket, None, Ok(())).is_some());
        assert!(slots.take().is_none());
        assert_eq!(slots.busy().count(), 0);
        Ok(())
    }
}
