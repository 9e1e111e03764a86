// SPDX-License-Identifier: GPL-2.0

//! A post: its way from the consumer to the provider or to the port.

use super::direction::Direction;
use super::live::Live;
use super::reach::Reach;
use super::Endpoint;
use crate::av::{Address, Name};
use crate::op::{Buffer, OpId, Operation, Options, Refused, Request, INJECT_SIZE};
use crate::provider::Rejected;
use crate::sys::slot::Slot;
use crate::trace;
use kernel::prelude::*;
use kernel::sync::rcu;

/// A post that has begun.
pub(super) struct Posting<C: Send + 'static> {
    slot: Slot<C>,
    /// Until the provider has taken it or handed it back.
    section: rcu::Guard,
}

impl<C: Send + 'static> Endpoint<C> {
    /// Begins a post: the closed and the full endpoint refuse it.
    #[inline(always)]
    pub(super) fn begin(&self, direction: &Direction<C>) -> Result<Posting<C>> {
        let section = rcu::read_lock();
        if let Some(error) = self.live.refusal() {
            return Err(error);
        }
        Ok(Posting {
            slot: direction.pool.take().ok_or(EAGAIN)?,
            section,
        })
    }

    /// Posts a request to the provider, or a receive to the port.
    // Inlined, so that the request is written into its slot and nowhere else.
    #[inline(always)]
    pub(super) fn post(
        &self,
        posting: Posting<C>,
        request: Request,
        context: C,
        execute: impl FnOnce(&Live, Operation) -> Result<(), Rejected>,
    ) -> Result<OpId, Refused<C>> {
        let Posting { mut slot, section } = posting;
        let id = slot.op().fill(request);
        let op = slot.arm(context);
        trace::post(&op);
        let taken = execute(&self.live, op);
        drop(section);
        match taken {
            Ok(()) => Ok(id),
            Err(Rejected { op, error }) => Self::give_back(op, error, id),
        }
    }

    /// The most bytes that a post takes a copy of.
    pub(super) fn inject_size(&self) -> usize {
        self.limits.inject_size.min(INJECT_SIZE)
    }

    /// Posts a request for as many bytes as `bytes`, which its slot takes a copy of; or refuses it.
    pub(super) fn post_injected(
        &self,
        request: Result<Request>,
        bytes: &[u8],
        context: C,
    ) -> Result<OpId, Refused<C>> {
        let begun = request.and_then(|request| Ok((request, self.begin(&self.tx)?)));
        let (request, posting) = match begun {
            Ok(begun) => begun,
            Err(error) => return Self::refuse(&self.tx, error, Buffer::empty(), context),
        };
        let posted = self.post(posting, request, context, |live, mut op| {
            op.op().inject(bytes);
            live.submit(op)
        });
        posted.map_err(|refused| Refused {
            buffer: refused.buffer.returned(),
            ..refused
        })
    }

    /// Turns an operation that the provider handed back into a refusal.
    #[cold]
    fn give_back(mut op: Operation, error: Error, id: OpId) -> Result<OpId, Refused<C>> {
        if op.id() != id {
            // Not what was posted: the provider's error. What was posted is still with it, and this
            // one ends here.
            pr_err!("a provider handed back another operation than was posted\n");
            drop(op);
            return Ok(id);
        }
        op.refused();
        match op.claim::<C>() {
            Ok((mut slot, context)) => {
                let (_, buffer, _) = slot.op().finish();
                Err(Refused {
                    error,
                    buffer,
                    context,
                })
            }
            // An operation's number names its endpoint, whose contexts are of type `C`.
            Err(_) => Ok(id),
        }
    }

    /// Refuses what has no slot.
    #[cold]
    pub(super) fn refuse(
        direction: &Direction<C>,
        error: Error,
        buffer: Buffer,
        context: C,
    ) -> Result<OpId, Refused<C>> {
        direction.origin.stats.refused(1);
        Err(Refused {
            error,
            buffer,
            context,
        })
    }

    /// The peer behind an address, if an operation with these options may go to it.
    ///
    /// # Errors
    /// - `EHOSTUNREACH`: there is none.
    /// - `ENOTCONN`: the endpoint is to be connected first.
    /// - `EOPNOTSUPP`: a fence, and the endpoint was not enabled for them.
    /// - `EINVAL`: silent, with owned memory.
    #[inline(always)]
    pub(super) fn peer(
        &self,
        address: Address,
        options: &Options,
        buffer: &Buffer,
    ) -> Result<Name> {
        if options.fence && !self.fences {
            return Err(EOPNOTSUPP);
        }
        if options.silent && buffer.is_owned() {
            return Err(EINVAL);
        }
        match &self.reach {
            Reach::Peers(peers) => peers.name(address).ok_or(EHOSTUNREACH),
            Reach::Peer { connection, .. } => match address {
                Address::PEER => match connection.peer() {
                    Some(peer) => Ok(peer),
                    None => Err(self.live.refusal().unwrap_or(ENOTCONN)),
                },
                _ => Err(EHOSTUNREACH),
            },
        }
    }
}

#[kunit_tests(kfabric_endpoint_post)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::op::{Level, Success};
    use crate::provider::testing::Bench;
    use kernel::sync::atomic::Relaxed;

    #[test]
    fn post_that_the_provider_hands_back_is_as_it_was() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        bench.opened.desk.reject.store(EAGAIN.to_errno(), Relaxed);
        // More often than there are slots.
        for context in 0..10 {
            let Err(refused) = bench
                .ep
                .send(Memory::zeroed(5)?, to, Options::default(), context)
            else {
                return Err(EINVAL);
            };
            assert_eq!((refused.error, refused.context), (EAGAIN, context));
            assert!(refused
                .buffer
                .into_memory()
                .is_ok_and(|memory| memory.len() == 5));
        }
        assert_eq!(bench.ep.in_flight(), 0);
        assert!(bench.ended().is_none());
        Ok(())
    }

    #[test]
    fn full_endpoint_counts_each_direction() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        for context in 0..4 {
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), context)?;
            bench.ep.recv(Buffer::empty(), context)?;
        }
        assert_eq!(
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), 4)
                .err()
                .map(Error::from),
            Some(EAGAIN)
        );
        assert_eq!(
            bench.ep.recv(Buffer::empty(), 4).err().map(Error::from),
            Some(EAGAIN)
        );
        assert_eq!(bench.ep.in_flight(), 8);
        let op = bench.opened.desk.take().pop().ok_or(EINVAL)?;
        op.complete(Ok(Success {
            len: 0,
            data: None,
            level: Level::Delivered,
        }));
        // Completed, but not read: the slot is still taken.
        assert_eq!(
            bench
                .ep
                .send(Buffer::empty(), to, Options::default(), 4)
                .err()
                .map(Error::from),
            Some(EAGAIN)
        );
        assert!(bench.ended().is_some());
        bench.ep.send(Buffer::empty(), to, Options::default(), 4)?;
        Ok(())
    }
}
