// SPDX-License-Identifier: GPL-2.0

//! What the contexts of an endpoint share.

use super::live::Live;
use super::next_id;
use super::reach::Reach;
use crate::av::AddressVector;
use crate::cntr::{self, Chosen};
use crate::cq::CompletionQueue;
use crate::debugfs::{self, Dir};
use crate::domain::{Child, Class, Domain};
use crate::eq::EventQueue;
use crate::info::{Caps, Info, Limits};
use crate::op::{Origin, Poster};
use crate::provider::Port;
use crate::rdm::fence::Fence;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Release};
use kernel::sync::Arc;

/// What there is of an endpoint before the provider has opened its side.
pub(super) struct Base {
    pub(super) dir: Dir,
    pub(super) port: Arc<Port>,
    /// By transmit context; none if there are no fences.
    pub(super) fences: KVec<Arc<Fence>>,
    pub(super) reach: Reach,
    pub(super) caps: Caps,
    pub(super) limits: Limits,
    pub(super) counters: Option<cntr::Bound>,
    // Last: it holds the provider's module.
    pub(super) domain: Child,
}

/// What the contexts of an endpoint share. Dropped, it ends the endpoint: process context, sleeps.
pub struct Whole {
    pub(super) live: Arc<Live>,
    /// Which contexts of a scalable endpoint are open: those that transmit, and those that receive.
    open: [KVec<Atomic<i32>>; 2],
    pub(super) base: Base,
}

/// Which contexts are meant.
#[derive(Clone, Copy)]
pub(super) enum Contexts {
    Tx,
    Rx,
}

/// A context of a scalable endpoint, which is nobody else's until this is dropped.
pub(super) struct Taken {
    whole: Arc<Whole>,
    contexts: Contexts,
    index: u16,
}

impl Base {
    /// Checks what was given, and makes what an endpoint of `info` with so many contexts needs.
    // Not generic, and not inlined: the stack is short.
    #[inline(never)]
    pub(super) fn new(
        domain: &Domain,
        info: &Info,
        (tx_contexts, rx_contexts): (usize, usize),
        av: Option<&AddressVector>,
        eq: Option<&EventQueue>,
        counters: &Chosen<'_>,
    ) -> Result<Self> {
        let limits = Limits {
            tx_contexts,
            rx_contexts,
            ..info.limits
        };
        if [
            limits.tx_size,
            limits.rx_size,
            limits.tx_contexts,
            limits.rx_contexts,
        ]
        .contains(&0)
        {
            return Err(EINVAL);
        }
        let child = domain.child(Class::Endpoint)?;
        child.check(info)?;
        let id = next_id();
        let reach = Reach::new(&child, info, id, av, eq)?;
        let counters = cntr::Bound::new(counters, child.core())?;
        let mut fences = KVec::new();
        if info.caps.contains(Caps::FENCE) {
            for _ in 0..limits.tx_contexts {
                fences.push(Fence::new(limits.tx_size)?, GFP_KERNEL)?;
            }
        }
        Ok(Base {
            dir: debugfs::dir(domain.dir(), fmt!("endpoint-{id}"))?,
            port: Port::new(
                id,
                child.core().clone(),
                counters.as_ref().map(|bound| bound.counters().clone()),
                reach.role(),
                limits.rx_size,
                (tx_contexts, rx_contexts),
            )?,
            fences,
            reach,
            caps: info.caps,
            limits,
            counters,
            domain: child,
        })
    }

    /// Who posts by a context.
    pub(super) fn poster(&self, context: u16) -> Poster {
        Poster {
            endpoint: self.port.id(),
            context,
        }
    }

    /// Whether a queue is of this domain. `EINVAL`: it is not.
    pub(super) fn check_queue<C: Send + 'static>(&self, cq: &CompletionQueue<C>) -> Result {
        match self.domain.is_beside(cq.domain()) {
            true => Ok(()),
            false => Err(EINVAL),
        }
    }
}

impl Whole {
    /// Has the provider open its side; `attach` notes who posts, before anything can be posted.
    // Not generic: once, in the core.
    #[inline(never)]
    pub(super) fn open(
        domain: &Domain,
        info: &Info,
        base: Base,
        attach: &dyn Fn(&Whole),
    ) -> Result<Arc<Self>> {
        let closed = |contexts| {
            let mut all = KVec::with_capacity(contexts, GFP_KERNEL)?;
            for _ in 0..contexts {
                all.push(Atomic::new(0), GFP_KERNEL)?;
            }
            Ok::<_, Error>(all)
        };
        let open = [
            closed(base.limits.tx_contexts)?,
            closed(base.limits.rx_contexts)?,
        ];
        let mut fences = KVec::with_capacity(base.fences.len(), GFP_KERNEL)?;
        for fence in &base.fences {
            fences.push(fence.clone(), GFP_KERNEL)?;
        }
        let opening = domain.opening()?;
        let live = Live::open(&opening, base.port.clone(), fences, info)?;
        let whole = Arc::new(Whole { live, open, base }, GFP_KERNEL)?;
        attach(&whole);
        for fence in &whole.base.fences {
            fence.open(&whole.live);
        }
        whole.base.reach.open(&whole.live)?;
        opening.enlist(&whole.live)?;
        Ok(whole)
    }

    /// Notes who posts the operations of a context.
    pub(super) fn adopt(&self, origin: &Origin) {
        origin.set_name(&self.live.transport.name());
        origin.set_domain(self.base.domain.life());
    }

    /// Ends it: what is in flight completes with `ECANCELED`. Sleeps.
    pub(super) fn end(&self) {
        self.live.shutdown(ECANCELED);
        self.base.domain.life().delist(&self.live);
        self.base.reach.close(&self.live);
    }

    fn open_flag(&self, contexts: Contexts, index: u16) -> Option<&Atomic<i32>> {
        self.open[contexts as usize].get(usize::from(index))
    }

    /// Takes a context. `EINVAL`: there is none of that index; `EBUSY`: it is open.
    pub(super) fn take(self: &Arc<Self>, contexts: Contexts, index: usize) -> Result<(u16, Taken)> {
        let index = u16::try_from(index).map_err(|_| EINVAL)?;
        let open = self.open_flag(contexts, index).ok_or(EINVAL)?;
        open.cmpxchg(0, 1, Full).map_err(|_| EBUSY)?;
        let taken = Taken {
            whole: self.clone(),
            contexts,
            index,
        };
        Ok((index, taken))
    }

    /// Whether a context is open.
    pub(super) fn is_used(&self) -> bool {
        let mut all = self.open.iter().flat_map(|contexts| contexts.iter());
        all.any(|open| open.load(Acquire) != 0)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(open) = self.whole.open_flag(self.contexts, self.index) {
            open.store(0, Release);
        }
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.end();
    }
}
