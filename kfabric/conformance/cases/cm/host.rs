// SPDX-License-Identifier: GPL-2.0

//! What the endpoints of one side stand on, and two of them, connected.

use crate::close::closed;
use crate::rig::{ended, join, timeout, with_sizes, DEPTH};
use crate::{check, check_eq};
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::prelude::*;

/// What the endpoints of one side stand on.
// In the order in which they must be closed.
pub(crate) struct Host {
    pub(crate) eq: EventQueue,
    pub(crate) cq: CompletionQueue<u64>,
    pub(crate) domain: Domain,
    pub(crate) fabric: Fabric,
    pub(crate) info: Info,
}

impl Host {
    /// With room for the events and the operations of a few endpoints.
    pub(crate) fn new(info: &Info) -> Result<KBox<Self>> {
        Self::sized(info, 16, None)
    }

    #[inline(never)]
    pub(crate) fn sized(
        info: &Info,
        events: usize,
        callback: Option<Arc<dyn EventCallback>>,
    ) -> Result<KBox<Self>> {
        let info = with_sizes(info, DEPTH, DEPTH);
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let host = Host {
            eq: EventQueue::new(&domain, events, callback)?,
            cq: CompletionQueue::new(&domain, 8 * DEPTH, None)?,
            domain,
            fabric,
            info,
        };
        Ok(KBox::new(host, GFP_KERNEL)?)
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint<u64>> {
        let builder = Endpoint::builder(&self.domain, &self.info);
        builder.cq(&self.cq).eq(&self.eq).enable()
    }

    pub(crate) fn listen(&self, backlog: usize) -> Result<PassiveEndpoint> {
        PassiveEndpoint::listen(&self.domain, &self.info, &self.eq, backlog)
    }

    /// The next event.
    pub(crate) fn event(&self) -> Result<Event> {
        self.eq.read_wait(timeout())
    }

    /// The request that is the next event.
    #[track_caller]
    pub(crate) fn request(&self) -> Result<ConnectionRequest> {
        match self.event()? {
            Event::ConnectionRequest(request) => Ok(request),
            _ => failed("a request"),
        }
    }

    /// Fails unless the next event is that `ep` is connected; gives what the peer sent.
    #[track_caller]
    pub(crate) fn connected(&self, ep: &Endpoint<u64>) -> Result<PrivateData> {
        match self.event()? {
            Event::Connected { endpoint, data } if endpoint == ep.id() => Ok(data),
            _ => failed("connected"),
        }
    }

    /// Fails unless the next event is that `ep` could not be connected; gives why.
    #[track_caller]
    pub(crate) fn refused(&self, ep: &Endpoint<u64>) -> Result<(Error, PrivateData)> {
        match self.event()? {
            Event::Refused {
                endpoint,
                error,
                data,
            } if endpoint == ep.id() => Ok((error, data)),
            _ => failed("refused"),
        }
    }

    /// Fails unless the next event is that the connection of `ep` has ended.
    #[track_caller]
    pub(crate) fn shut_down(&self, ep: &Endpoint<u64>) -> Result {
        match self.event()? {
            Event::Shutdown { endpoint } if endpoint == ep.id() => Ok(()),
            _ => failed("shut down"),
        }
    }

    /// Fails unless no event is left.
    #[track_caller]
    pub(crate) fn quiet(&self) -> Result {
        check!(self.eq.read().is_none());
        check!(self.cq.read().is_none());
        Ok(())
    }

    /// Fails unless the next completions, in any order, are of messages of `len` bytes that were sent
    /// with these contexts, below 64.
    #[track_caller]
    pub(crate) fn sent(&self, contexts: &[u64], len: usize) -> Result {
        let bit = |context: u64| 1_u64 << context;
        let mut seen = 0;
        for _ in contexts {
            let (kind, context, how) = ended(&self.next()?);
            check_eq!((kind, how), (Kind::Send, Ok(len)));
            check_eq!(seen & bit(context), 0);
            seen |= bit(context);
        }
        check_eq!(seen, contexts.iter().fold(0, |all, it| all | bit(*it)));
        Ok(())
    }

    pub(crate) fn next(&self) -> Result<Completion<u64>> {
        self.cq.read_wait(timeout())
    }

    /// Closes all of it, in order; fails if anything refuses.
    #[inline(never)]
    pub(crate) fn close(self: KBox<Self>) -> Result {
        let host = KBox::into_inner(self);
        closed(host.cq.close())?;
        closed(host.eq.close())?;
        closed(host.domain.close())?;
        closed(host.fabric.close())
    }
}

/// Says where another event was expected.
#[track_caller]
pub(crate) fn failed<T>(expected: &str) -> Result<T> {
    let at = core::panic::Location::caller();
    pr_err!(
        "# {}:{}: the event is not: {expected}\n",
        at.file(),
        at.line()
    );
    Err(EINVAL)
}

/// Two hosts, and an endpoint of each, connected to the other's.
pub(crate) struct Connected {
    pub(crate) a: KBox<Host>,
    pub(crate) b: KBox<Host>,
    pub(crate) at_a: Endpoint<u64>,
    pub(crate) at_b: Endpoint<u64>,
}

impl Connected {
    #[inline(never)]
    pub(crate) fn new(info: &Info) -> Result<Self> {
        let (a, b) = (Host::new(info)?, Host::new(info)?);
        let listener = b.listen(1)?;
        let (at_a, at_b) = connect(&a, &b, &listener)?;
        Ok(Connected { a, b, at_a, at_b })
    }

    #[inline(never)]
    pub(crate) fn close(self) -> Result {
        closed(self.at_a.close())?;
        closed(self.at_b.close())?;
        self.a.close()?;
        self.b.close()
    }
}

/// Connects a new endpoint of `a` to a new one of `b`.
#[inline(never)]
pub(crate) fn connect(
    a: &Host,
    b: &Host,
    listener: &PassiveEndpoint,
) -> Result<(Endpoint<u64>, Endpoint<u64>)> {
    let (at_a, at_b) = (a.endpoint()?, b.endpoint()?);
    join((&a.eq, &at_a), (&b.eq, &at_b), listener)?;
    Ok((at_a, at_b))
}

pub(crate) fn begin(ep: &Endpoint<u64>, listener: &PassiveEndpoint) -> Result {
    ep.connect(&listener.name(), PrivateData::NONE, timeout())
}

pub(crate) fn send(ep: &Endpoint<u64>, memory: Memory, context: u64) -> Result<OpId, Refused<u64>> {
    ep.send(memory, Address::PEER, Options::default(), context)
}
