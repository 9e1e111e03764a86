// SPDX-License-Identifier: GPL-2.0

//! A link: two endpoints of one domain that are connected to each other.

use super::{variant, LENGTHS, LONG};
use crate::check_eq;
use crate::close::closed;
use crate::ops::error;
use crate::peer::Region;
use crate::rig::{register, timeout, with_sizes};
use kernel::prelude::*;
use kfabric::prelude::*;

/// How many operations an endpoint has in flight at most, in each direction.
const DEPTH: usize = 4;

// In the order in which they must be closed.
pub(super) struct Link {
    a: Endpoint<u64>,
    b: Endpoint<u64>,
    listener: PassiveEndpoint,
    /// What is sent, and then where it is received.
    local: Region,
    eq: EventQueue,
    cq: CompletionQueue<u64>,
    domain: Domain,
    fabric: Fabric,
}

impl Link {
    /// Connects two endpoints; `None` where the provider offers no connections.
    // In a frame of its own, which is gone when others stand on the stack.
    #[inline(never)]
    pub(super) fn new(info: &Info) -> Result<Option<KBox<Self>>> {
        let Some(info) = variant(info, EndpointType::Msg, Caps::MSG)? else {
            return Ok(None);
        };
        let info = with_sizes(&info, DEPTH, DEPTH);
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let cq = CompletionQueue::new(&domain, 4 * DEPTH, None)?;
        let eq = EventQueue::new(&domain, 2 * EventQueue::PER_ENDPOINT + 1, None)?;
        let local = register(&domain, Memory::zeroed(2 * LONG)?, Access::NONE)?;
        let listener = PassiveEndpoint::listen(&domain, &info, &eq, 1)?;
        let endpoint = || {
            let builder = Endpoint::builder(&domain, &info);
            builder.cq(&cq).eq(&eq).enable()
        };
        let (a, b) = (endpoint()?, endpoint()?);
        a.connect(&listener.name(), PrivateData::NONE, timeout())?;
        let Event::ConnectionRequest(request) = eq.read_wait(timeout())? else {
            return Err(EINVAL);
        };
        closed(b.accept(request, PrivateData::NONE))?;
        for _ in 0..2 {
            let Event::Connected { .. } = eq.read_wait(timeout())? else {
                return Err(EINVAL);
            };
        }
        let link = Link {
            a,
            b,
            listener,
            local,
            eq,
            cq,
            domain,
            fabric,
        };
        Ok(Some(KBox::new(link, GFP_KERNEL)?))
    }

    /// Sends messages of all lengths, each way.
    pub(super) fn run(&self) -> Result {
        let options = Options::default();
        for len in LENGTHS {
            for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
                to.recv(self.local.slice(LONG, len)?, 1)?;
                from.send(self.local.slice(0, len)?, Address::PEER, options, 2)?;
                for _ in 0..2 {
                    check_eq!(error(&self.cq.read_wait(timeout())?), None);
                }
                from.inject(&[7; 8], Address::PEER, options, 3)?;
                to.recv(self.local.slice(LONG, 8)?, 4)?;
                for _ in 0..2 {
                    check_eq!(error(&self.cq.read_wait(timeout())?), None);
                }
            }
        }
        Ok(())
    }

    /// Ends the connection and closes all of it, in order; fails if anything refuses.
    #[inline(never)]
    pub(super) fn close(link: KBox<Self>) -> Result {
        let link = KBox::into_inner(link);
        link.a.shutdown()?;
        for _ in 0..2 {
            let Event::Shutdown { .. } = link.eq.read_wait(timeout())? else {
                return Err(EINVAL);
            };
        }
        closed(link.a.close())?;
        closed(link.b.close())?;
        drop(link.listener);
        drop(closed(link.local.close())?);
        closed(link.eq.close())?;
        closed(link.cq.close())?;
        closed(link.domain.close())?;
        closed(link.fabric.close())
    }
}
