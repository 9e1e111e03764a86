// SPDX-License-Identifier: GPL-2.0

//! Many endpoints of one domain, each a peer of its own to the one on the other host. They receive nothing.

use super::{nothing, Ends, Hex, Near, Peer, DEPTH};
use crate::ops::data;
use crate::rig::{pattern, timeout, with_sizes};
use kernel::prelude::*;
use kernel::str::CString;
use kfabric::prelude::*;

/// Bytes of a message.
const LEN: usize = 100;

/// The endpoints.
// In the order in which they must be closed.
pub(super) struct Crowd {
    all: KVVec<Endpoint<u64>>,
    cq: CompletionQueue<u64>,
}

impl Crowd {
    pub(super) fn new(near: &Near, info: &Info, count: usize) -> Result<Self> {
        let info = with_sizes(info, 1, 1);
        let cq = CompletionQueue::new(&near.domain, 2 * count, None)?;
        let mut all = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            let builder = Endpoint::builder(&near.domain, &info);
            all.push(builder.cq(&cq).av(&near.av).enable()?, GFP_KERNEL)?;
        }
        Ok(Crowd { all, cq })
    }

    /// Each sends a message to the peer, one after another, but many at once; the first has number `first`.
    pub(super) fn send(&self, peer: &Peer, first: u64) -> Result<Ends> {
        let mut ends = Ends::default();
        for (n, ep) in (0..).zip(&self.all) {
            if n >= DEPTH as u64 {
                ends.count(&self.cq.read_wait(timeout())?);
            }
            let number = first + n;
            let message = pattern(LEN, number)?;
            ep.send(message, peer.at, data(number), n)
                .map_err(|refused| refused.error)?;
        }
        while ends.all() < self.all.len() as u64 {
            ends.count(&self.cq.read_wait(timeout())?);
        }
        Ok(ends)
    }

    /// The name of the first.
    pub(super) fn name(&self) -> Result<CString> {
        match self.all.first() {
            Some(ep) => CString::try_from_fmt(fmt!("{}\n", Hex(ep.name().as_bytes()))),
            None => nothing(),
        }
    }

    #[inline(never)]
    pub(super) fn close(self) -> Result {
        for ep in self.all {
            ep.close().map_err(|(error, _)| error)?;
        }
        drop(self.cq);
        Ok(())
    }
}
