// SPDX-License-Identifier: GPL-2.0

//! An endpoint that is counted.

use crate::check_eq;
use crate::close::closed;
use crate::ops::error;
use crate::rig::{timeout, with_sizes, End, Rig, DEPTH};
use kernel::prelude::*;
use kfabric::prelude::*;

pub(super) const SILENT: Options = Options {
    level: Level::Delivered,
    data: None,
    fence: false,
    silent: true,
    more: false,
};

/// Value and errors.
pub(super) fn both(cntr: &Counter) -> (u64, u64) {
    (cntr.value(), cntr.errors())
}

/// An endpoint that is counted, with a queue of its own, beside that of an end.
// In the order in which they must be closed.
pub(super) struct Side {
    pub(super) ep: Endpoint<u64>,
    pub(super) cq: CompletionQueue<u64>,
}

impl Side {
    pub(super) fn new(end: &End, info: &Info, counters: &[(Counts, &Counter)]) -> Result<Self> {
        let info = with_sizes(info, DEPTH, DEPTH);
        let cq = CompletionQueue::new(&end.domain, 2 * DEPTH, None)?;
        let mut builder = Endpoint::builder(&end.domain, &info).cq(&cq).av(&end.av);
        for (counts, cntr) in counters {
            builder = builder.counter(*counts, cntr);
        }
        Ok(Side {
            ep: builder.enable()?,
            cq,
        })
    }

    /// Fails unless that is what completes next.
    #[track_caller]
    pub(super) fn ends(&self, kind: Kind, expected: Option<Error>) -> Result {
        let done = self.cq.read_wait(timeout())?;
        check_eq!((done.kind, error(&done)), (kind, expected));
        Ok(())
    }

    /// Sends so many bytes to the pair's B, which receives at most 10.
    pub(super) fn send(&self, rig: &Rig, len: usize) -> Result {
        let expected = (len > 10).then_some(EMSGSIZE);
        rig.b.recv(Memory::zeroed(10)?, 1)?;
        self.ep
            .send(Memory::zeroed(len)?, rig.to_b, Options::default(), 1)?;
        self.ends(Kind::Send, expected)?;
        check_eq!(error(&rig.b.next()?), expected);
        Ok(())
    }

    /// Receives so many bytes of the pair's B, 10 at most.
    pub(super) fn recv(&self, rig: &Rig, len: usize) -> Result {
        let expected = (len > 10).then_some(EMSGSIZE);
        let to = rig.b.insert(&self.ep.name())?;
        self.ep.recv(Memory::zeroed(10)?, 1)?;
        rig.b
            .send(Memory::zeroed(len)?, to, Options::default(), 1)?;
        self.ends(Kind::Recv, expected)?;
        check_eq!(error(&rig.b.next()?), expected);
        rig.b.remove(to)
    }

    /// Writes zeros.
    pub(super) fn write(&self, rig: &Rig, slice: RemoteSlice, options: Options) -> Result {
        let zeros = Memory::zeroed(slice.len() as usize)?;
        self.ep.write(zeros, rig.to_b, slice, options, 1)?;
        self.ends(Kind::Write, None)
    }

    pub(super) fn close(self) -> Result {
        closed(self.ep.close())?;
        closed(self.cq.close())
    }
}
