// SPDX-License-Identifier: GPL-2.0

//! The fabric objects of the writing side: an endpoint, and the peer's memory that it writes to.

use super::{
    card::Card,
    config::Settings,
    replica::{Token, BUFFERS, BUFFER_SIZE, COMMITS},
    slots::Ticket,
    target::Target,
};
use kernel::prelude::*;
use kfabric::prelude::*;

/// What a replica needs of its provider.
fn needed() -> Caps {
    Caps::RMA | Caps::COMMIT
}
/// How long one wait for completions lasts at most, in milliseconds; it is repeated.
const WAIT: u32 = 100;

/// An endpoint and its peer.
pub(crate) struct Link {
    // In the order in which they are closed.
    endpoint: Endpoint<Token>,
    cq: CompletionQueue<Token>,
    av: AddressVector,
    domain: Domain,
    fabric: Fabric,
    /// Where the peer is here.
    target: Option<Target>,
    peer: Address,
    remote: RemoteRegion,
}

/// An operation that has ended.
pub(crate) struct Done {
    pub(crate) token: Token,
    /// A transfer's buffer.
    pub(crate) buffer: Option<Memory>,
    pub(crate) result: Result,
}

/// A transfer that was not posted.
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// None only if the fabric has lost it.
    pub(crate) ticket: Option<Ticket>,
    /// As above.
    pub(crate) buffer: Option<Memory>,
}

impl Refusal {
    fn new(error: Error, ticket: Ticket, buffer: Option<Memory>) -> Self {
        Self {
            error,
            ticket: Some(ticket),
            buffer,
        }
    }
}

impl From<Refused<Token>> for Refusal {
    fn from(refused: Refused<Token>) -> Self {
        Self {
            error: refused.error,
            ticket: match refused.context {
                Token::Transfer(ticket) => Some(ticket),
                Token::Commit(_) => None,
            },
            buffer: refused.buffer.into_memory().ok(),
        }
    }
}

/// Closes something, and says so if that could not be.
///
/// It is dropped then, which for an endpoint waits, without a bound and reporting so, until the
/// provider has given back every operation: none refers to this module when it is gone.
#[inline(never)]
pub(crate) fn closed<T>(label: &CStr, what: &str, close: impl FnOnce() -> Result<(), (Error, T)>) {
    if let Err((error, _)) = close() {
        pr_err!("{label}: {what} does not close: {error:?}\n");
    }
}

/// `info` with room for `operations` at once.
pub(crate) fn limited(info: &Info, operations: usize) -> Info {
    let mut info = *info;
    info.limits.tx_size = operations;
    info.limits.rx_size = 1;
    info
}

/// Finds the provider of that name, loading its module if need be.
///
/// # Errors
/// - `ENODEV`: there is none.
/// - `EOPNOTSUPP`: it can't do what a replica needs.
#[inline(never)]
pub(crate) fn find(label: &CStr, provider: &CStr) -> Result<Info> {
    let name = provider.to_str().map_err(|_| EINVAL)?;
    let named = Hints {
        provider: Some(name),
        ..Hints::default()
    };
    if first(&named)?.is_none() {
        load_provider(name)?;
    }
    if first(&named)?.is_none() {
        pr_err!("{label}: provider {name}: there is no such provider\n");
        return Err(ENODEV);
    }
    let hints = Hints {
        caps: needed(),
        max_msg_size: BUFFER_SIZE,
        tx_size: BUFFERS + COMMITS,
        rx_size: 1,
        ..named
    };
    first(&hints)?.ok_or_else(|| {
        pr_err!(
            "{label}: provider {name}: a replica needs {}, and it has not all of them\n",
            needed()
        );
        EOPNOTSUPP
    })
}

/// The first of what can be had, if anything.
fn first(hints: &Hints<'_>) -> Result<Option<Info>> {
    match getinfo(hints) {
        Ok(found) => Ok(found.first().copied()),
        Err(ENODATA) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Link {
    /// Opens an endpoint to the peer, and the peer, if it is here.
    ///
    /// # Errors
    /// - `ENOSPC`: the peer's memory is smaller than the replica.
    /// - `EOPNOTSUPP`: it is not persistent.
    /// - Those of [`find`], of [`Target::open`], and of the fabric's objects.
    #[inline(never)]
    pub(crate) fn open(label: &CStr, settings: &Settings) -> Result<KBox<Self>> {
        let info = find(label, &settings.provider)?;
        let target = match settings.peer {
            Some(_) => None,
            None => Some(Target::open(label, settings, &info)?),
        };
        let card = match (&target, settings.peer) {
            (Some(target), _) => target.card()?,
            (None, card) => card.ok_or(EINVAL)?,
        };
        Self::to(label, settings, &info, &card, target)
    }

    /// Opens an endpoint to the peer of a card.
    #[inline(never)]
    fn to(
        label: &CStr,
        settings: &Settings,
        info: &Info,
        card: &Card,
        target: Option<Target>,
    ) -> Result<KBox<Self>> {
        let remote = card.region()?;
        if settings.size > remote.len() {
            let (size, len) = (settings.size, remote.len());
            pr_err!("{label}: size {size}: the peer has {len} bytes\n");
            return Err(ENOSPC);
        }
        if remote.persistence().is_none() {
            pr_err!("{label}: the peer's memory is not persistent\n");
            return Err(EOPNOTSUPP);
        }

        // From here on as if the peer were far away, which it may be.
        let info = limited(info, BUFFERS + COMMITS);
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let av = AddressVector::new(&domain)?;
        let peer = av.insert(&card.name)?;
        let cq = CompletionQueue::new(&domain, BUFFERS + COMMITS + 1, None)?;
        let endpoint = Endpoint::builder(&domain, &info).cq(&cq).av(&av).enable()?;
        let link = Self {
            endpoint,
            cq,
            av,
            domain,
            fabric,
            target,
            peer,
            remote,
        };
        Ok(KBox::new(link, GFP_KERNEL)?)
    }

    fn slice(&self, extent: Extent) -> Result<RemoteSlice> {
        self.remote.slice(extent.start, extent.end - extent.start)
    }

    /// Prepares a transfer of as many bytes as `extent` has.
    fn prepare(
        &self,
        buffer: Memory,
        extent: Extent,
    ) -> Result<(Buffer, RemoteSlice), (Error, Option<Memory>)> {
        let remote = match self.slice(extent) {
            Ok(remote) => remote,
            Err(error) => return Err((error, Some(buffer))),
        };
        // It fits, since the region's slice was made of a length that fits the memory.
        match Buffer::from(buffer).range(0, remote.len() as usize) {
            Ok(local) => Ok((local, remote)),
            Err(local) => Err((EINVAL, local.into_memory().ok())),
        }
    }

    /// Posts a write of the first bytes of `buffer`. Never sleeps.
    pub(crate) fn write(
        &self,
        buffer: Memory,
        extent: Extent,
        ticket: Ticket,
    ) -> Result<(), Refusal> {
        let (local, remote) = match self.prepare(buffer, extent) {
            Ok(prepared) => prepared,
            Err((error, buffer)) => return Err(Refusal::new(error, ticket, buffer)),
        };
        // A sync waits for the completion and then commits, so the bytes must be visible by then.
        let options = Options {
            level: Level::Delivered,
            ..Options::default()
        };
        self.endpoint
            .write(local, self.peer, remote, options, Token::Transfer(ticket))?;
        Ok(())
    }

    /// Posts a read into the first bytes of `buffer`. Never sleeps.
    pub(crate) fn read(
        &self,
        buffer: Memory,
        extent: Extent,
        ticket: Ticket,
    ) -> Result<(), Refusal> {
        let (local, remote) = match self.prepare(buffer, extent) {
            Ok(prepared) => prepared,
            Err((error, buffer)) => return Err(Refusal::new(error, ticket, buffer)),
        };
        self.endpoint.read(
            local,
            self.peer,
            remote,
            Options::default(),
            Token::Transfer(ticket),
        )?;
        Ok(())
    }

    /// Posts a commit. Never sleeps.
    pub(crate) fn commit(&self, extent: Extent, token: Token) -> Result {
        let remote = self.slice(extent)?;
        self.endpoint
            .commit(self.peer, remote, Options::default(), token)
            .map_err(|refused| refused.error)?;
        Ok(())
    }

    /// Takes what has ended, if anything has. Never sleeps.
    pub(crate) fn reap(&self) -> Option<Done> {
        let completion = self.cq.read()?;
        Some(Done {
            token: completion.context,
            buffer: completion.buffer.into_memory().ok(),
            result: completion.result.map(drop).map_err(|failure| failure.error),
        })
    }

    /// Waits until something has ended, for a while.
    ///
    /// # Errors
    /// - `ERESTARTSYS`: a signal came.
    pub(crate) fn wait(&self) -> Result {
        match self.cq.wait(WAIT) {
            Err(ETIMEDOUT) => Ok(()),
            other => other,
        }
    }

    /// Closes all of it; what is in flight ends first, one way or the other.
    #[inline(never)]
    pub(crate) fn close(link: KBox<Self>, label: &CStr) {
        let link = KBox::into_inner(link);
        closed(label, "the endpoint", || link.endpoint.close());
        while link.cq.read().is_some() {}
        closed(label, "the completion queue", || link.cq.close());
        closed(label, "the address vector", || link.av.close());
        closed(label, "the domain", || link.domain.close());
        closed(label, "the fabric", || link.fabric.close());
        if let Some(target) = link.target {
            target.close(label);
        }
    }
}
