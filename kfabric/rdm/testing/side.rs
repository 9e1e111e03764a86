// SPDX-License-Identifier: GPL-2.0

//! An endpoint in a domain of its own.

use super::{brings, check, pattern, PATIENCE_MS, SMALL};
use crate::av::{Address, AddressVector};
use crate::cq::{Completion, CompletionQueue};
use crate::domain::{self, Class};
use crate::endpoint::Endpoint;
use crate::memory::Memory;
use crate::mr::{Access, MemoryRegion, RemoteRegion};
use crate::op::{Buffer, Kind, Options, Status};
use crate::stats::PeerStats;
use kernel::prelude::*;

/// An endpoint, and what it stands on.
// In the order in which they go.
pub(crate) struct Side {
    pub(crate) ep: Endpoint<u64>,
    pub(crate) av: AddressVector,
    pub(crate) cq: CompletionQueue<u64>,
    pub(crate) domain: domain::Domain,
}

/// How an operation ended: what it was, its context, and how.
pub(crate) type Ended = (Kind, u64, Status);

impl Side {
    /// The next completion.
    #[track_caller]
    pub(crate) fn next(&self) -> Result<Completion<u64>> {
        let next = self.cq.read_wait(PATIENCE_MS);
        check(next.is_ok())?;
        next
    }

    /// How the next so many operations ended, in the order of their contexts.
    #[track_caller]
    pub(crate) fn gather(&self, count: usize) -> Result<KVVec<Ended>> {
        let mut all = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            let done = self.next()?;
            let ended = (done.kind, done.context, done.result);
            // Sorted in, since objtool does not understand the sorting of core.
            let at = all.partition_point(|(_, context, _): &Ended| *context <= done.context);
            all.insert_within_capacity(at, ended).map_err(|_| ENOSPC)?;
        }
        Ok(all)
    }

    /// The next completion is that one, and went well.
    #[track_caller]
    pub(crate) fn went_well(&self, kind: Kind, context: u64) -> Result<Buffer> {
        let done = self.next()?;
        let well = done.kind == kind && done.context == context && done.result.is_ok();
        if !well {
            pr_err!("{:?} {} {:?}\n", done.kind, done.context, done.result);
        }
        check(well)?;
        Ok(done.buffer)
    }

    /// The next completion is that one, and failed with that error.
    #[track_caller]
    pub(crate) fn failed(&self, kind: Kind, context: u64, error: Error) -> Result {
        let done = self.next()?;
        let so = done.kind == kind
            && done.context == context
            && matches!(done.result, Err(failure) if failure.error == error);
        if !so {
            pr_err!("{:?} {} {:?}\n", done.kind, done.context, done.result);
        }
        check(so)
    }

    /// Sends a small message.
    pub(crate) fn send(&self, to: Address, context: u64) -> Result {
        let message = pattern(SMALL, context)?;
        self.ep.send(message, to, Options::NONE, context)?;
        Ok(())
    }

    /// Has a small message go to another side, of that address.
    #[track_caller]
    pub(crate) fn reaches(&self, other: &Side, address: Address) -> Result {
        other.ep.recv(Memory::zeroed(SMALL)?, 900)?;
        self.send(address, 901)?;
        check(brings(other.went_well(Kind::Recv, 900)?, 901))?;
        self.went_well(Kind::Send, 901)?;
        Ok(())
    }

    /// Registers memory of value 0, and says how peers see it.
    pub(crate) fn region(&self, len: usize) -> Result<(MemoryRegion, RemoteRegion)> {
        let region = self.domain.register(Memory::zeroed(len)?, Access::ALL);
        let region = region.map_err(|(error, _)| error)?;
        let remote = RemoteRegion::parse(&region.descriptor()?)?;
        Ok((region, remote))
    }

    /// What is counted of its peers.
    pub(crate) fn peers(&self) -> &PeerStats {
        self.domain.peer_stats()
    }

    /// How often peers, and strangers, have broken a rule.
    pub(crate) fn violations(&self) -> u64 {
        let domain = self.domain.child(Class::Endpoint);
        domain.map_or(0, |domain| domain.target_stats().violations.total())
    }
}
