// SPDX-License-Identifier: GPL-2.0

//! Scalable endpoints: contexts, their names, and what they do not share.

use crate::close::closed;
use crate::rig::{check_buffer, ended, pattern, timeout, with_sizes};
use crate::{check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

pub(crate) mod apart;
pub(crate) mod life;
pub(crate) mod named;

const NAMED: Caps = Caps::MSG.union(Caps::NAMED_RX_CTX);

/// Contexts of each kind.
const COUNT: usize = 3;

/// How many operations a context has in flight at most.
const DEPTH: usize = 256;

/// A scalable endpoint in a domain of its own, with all contexts open, each with a queue of its own.
// In the order in which they must be closed.
struct Many {
    tx: KVec<TxContext<u64>>,
    rx: KVec<RxContext<u64>>,
    endpoint: ScalableEndpoint,
    av: AddressVector,
    tx_cq: KVec<CompletionQueue<u64>>,
    rx_cq: KVec<CompletionQueue<u64>>,
    domain: Domain,
    fabric: Fabric,
}

/// An info of so many contexts.
fn with_contexts(info: &Info, tx_contexts: usize, rx_contexts: usize) -> Info {
    let limits = Limits {
        tx_contexts,
        rx_contexts,
        ..with_sizes(info, DEPTH, DEPTH).limits
    };
    Info { limits, ..*info }
}

impl Many {
    #[inline(never)]
    fn new(info: &Info) -> Result<KBox<Self>> {
        Self::with(&with_contexts(info, COUNT, COUNT))
    }

    #[inline(never)]
    fn with(info: &Info) -> Result<KBox<Self>> {
        let fabric = Fabric::open(info)?;
        let domain = fabric.domain(info)?;
        let av = AddressVector::new(&domain)?;
        let endpoint = ScalableEndpoint::builder(&domain, info).av(&av).open()?;
        let mut many = Many {
            tx: KVec::new(),
            rx: KVec::new(),
            endpoint,
            av,
            tx_cq: KVec::new(),
            rx_cq: KVec::new(),
            domain,
            fabric,
        };
        for index in 0..info.limits.tx_contexts {
            let cq = CompletionQueue::new(&many.domain, info.limits.tx_size, None)?;
            let tx = many.endpoint.tx_context(index).cq(&cq).enable()?;
            many.tx.push(tx, GFP_KERNEL)?;
            many.tx_cq.push(cq, GFP_KERNEL)?;
        }
        for index in 0..info.limits.rx_contexts {
            let cq = CompletionQueue::new(&many.domain, info.limits.rx_size, None)?;
            let rx = many.endpoint.rx_context(index).cq(&cq);
            many.rx.push(rx.min_multi_recv(100).enable()?, GFP_KERNEL)?;
            many.rx_cq.push(cq, GFP_KERNEL)?;
        }
        Ok(KBox::new(many, GFP_KERNEL)?)
    }

    /// Posts a receive of `len` bytes.
    fn recv(&self, index: usize, len: usize, context: u64) -> Result<OpId> {
        Ok(self.rx[index].recv(Memory::zeroed(len)?, context)?)
    }

    /// Sends a pattern whose seed is the context.
    fn send(&self, index: usize, to: Address, len: usize, context: u64) -> Result<OpId> {
        let (memory, options) = (pattern(len, context)?, Options::default());
        Ok(self.tx[index].send(memory, to, options, context)?)
    }

    /// Fails unless a message with the pattern of `seed` is what that context has received next.
    #[track_caller]
    fn received(&self, index: usize, context: u64, len: usize, seed: u64) -> Result {
        let done = self.rx_cq[index].read_wait(timeout())?;
        check_eq!(ended(&done), (Kind::Recv, context, Ok(len)));
        check_buffer(done.buffer, len, seed)
    }

    /// Fails unless that is what completes next at a transmit context.
    #[track_caller]
    fn sent(&self, index: usize, context: u64, how: Result<usize>) -> Result {
        let done = self.tx_cq[index].read_wait(timeout())?;
        check_eq!(ended(&done), (Kind::Send, context, how));
        Ok(())
    }

    /// All queues.
    fn queues(&self) -> impl Iterator<Item = &CompletionQueue<u64>> {
        Iterator::chain(self.tx_cq.iter(), self.rx_cq.iter())
    }

    /// Fails unless nothing is left in any queue.
    #[track_caller]
    fn quiet(&self) -> Result {
        for cq in self.queues() {
            check!(cq.read().is_none());
        }
        Ok(())
    }

    #[inline(never)]
    fn close(self: KBox<Self>) -> Result {
        self.quiet()?;
        let Many {
            tx,
            rx,
            endpoint,
            av,
            tx_cq,
            rx_cq,
            domain,
            fabric,
        } = KBox::into_inner(self);
        for tx in tx {
            closed(tx.close())?;
        }
        for rx in rx {
            closed(rx.close())?;
        }
        closed(endpoint.close())?;
        closed(av.close())?;
        for cq in tx_cq {
            closed(cq.close())?;
        }
        for cq in rx_cq {
            closed(cq.close())?;
        }
        closed(domain.close())?;
        closed(fabric.close())
    }
}

/// Two of them, and the second as the first knows it.
struct Pair {
    a: KBox<Many>,
    b: KBox<Many>,
    to_b: Address,
}

impl Pair {
    fn new(info: &Info) -> Result<Self> {
        let (a, b) = (Many::new(info)?, Many::new(info)?);
        let to_b = a.av.insert(&b.endpoint.name())?;
        Ok(Pair { a, b, to_b })
    }

    /// A receive context of B.
    fn to(&self, index: usize) -> Result<Address> {
        self.to_b.rx_context(index)
    }

    /// Passes a message by those contexts.
    #[track_caller]
    fn passes(&self, tx: usize, rx: usize, len: usize, n: u64) -> Result {
        self.b.recv(rx, len, n)?;
        self.a.send(tx, self.to(rx)?, len, n)?;
        self.b.received(rx, n, len, n)?;
        self.a.sent(tx, n, Ok(len))
    }

    fn close(self) -> Result {
        self.a.quiet()?;
        self.b.quiet()?;
        self.a.close()?;
        self.b.close()
    }
}
