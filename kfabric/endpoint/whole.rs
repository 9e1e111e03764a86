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

#[kunit_tests(kfabric_endpoint_whole)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::info::EndpointType;
    use crate::provider::testing::{Bench, Desk};
    use kernel::sync::atomic::Relaxed;

    fn base(bench: &Bench, info: &Info, contexts: (usize, usize)) -> Result<Base> {
        let (av, counters) = (Some(&bench.av), Chosen::default());
        Base::new(&bench.opened.domain, info, contexts, av, None, &counters)
    }

    fn whole(bench: &Bench, contexts: (usize, usize)) -> Result<Arc<Whole>> {
        let info = Desk::info()?;
        let base = base(bench, &info, contexts)?;
        Whole::open(&bench.opened.domain, &info, base, &|_| ())
    }

    fn shutdowns(bench: &Bench) -> i32 {
        bench.opened.desk.shutdowns.load(Relaxed)
    }

    #[test]
    fn endpoint_without_a_slot_or_a_context_is_none() -> Result {
        let bench = Bench::new()?;
        let info = Desk::info()?;
        for contexts in [(0, 1), (1, 0), (0, 0)] {
            assert_eq!(base(&bench, &info, contexts).err(), Some(EINVAL));
        }
        for (tx_size, rx_size, good) in [(0, 1, false), (1, 0, false), (1, 1, true)] {
            let mut info = info;
            (info.limits.tx_size, info.limits.rx_size) = (tx_size, rx_size);
            let made = base(&bench, &info, (1, 1));
            assert_eq!(made.err(), (!good).then_some(EINVAL));
        }
        // The provider was asked for none.
        assert_eq!(shutdowns(&bench), 0);
        Ok(())
    }

    #[test]
    fn each_context_has_its_own_of_what_it_needs() -> Result {
        let bench = Bench::new()?;
        let mut info = Desk::info()?;
        for (cap, fences) in [(Caps::NONE, 0), (Caps::FENCE, 3)] {
            info.caps |= cap;
            let base = base(&bench, &info, (3, 2))?;
            assert_eq!(base.fences.len(), fences);
            assert_eq!((base.port.tx_contexts(), base.port.rx_contexts()), (3, 2));
            assert_eq!((base.limits.tx_contexts, base.limits.rx_contexts), (3, 2));
            let poster = base.poster(2);
            assert_eq!((poster.endpoint, poster.context), (base.port.id(), 2));
        }
        Ok(())
    }

    #[test]
    fn queue_is_of_the_domain() -> Result {
        let bench = Bench::new()?;
        let another = bench.opened.fabric.domain(&Desk::info()?)?;
        let base = base(&bench, &Desk::info()?, (1, 1))?;
        assert_eq!(base.check_queue(&bench.cq), Ok(()));
        let cq = CompletionQueue::<u64>::new(&another, 8, None)?;
        assert_eq!(base.check_queue(&cq), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn context_is_of_one_at_a_time() -> Result {
        let bench = Bench::new()?;
        let whole = whole(&bench, (2, 3))?;
        let take = |contexts, index| whole.take(contexts, index).map(|(_, taken)| taken);
        for (contexts, count) in [(Contexts::Tx, 2), (Contexts::Rx, 3)] {
            for index in [count, usize::from(u16::MAX) + 1, usize::MAX] {
                assert_eq!(take(contexts, index).err(), Some(EINVAL));
            }
            assert!(!whole.is_used());
            let mut all = KVec::new();
            for index in 0..count {
                assert_eq!(whole.take(contexts, index)?.0, index as u16);
                all.push(take(contexts, index)?, GFP_KERNEL)?;
                for again in 0..=index {
                    assert_eq!(take(contexts, again).err(), Some(EBUSY));
                }
            }
            assert!(whole.is_used());
            // The last that is let go of makes the difference.
            while let Some(taken) = all.pop() {
                assert!(whole.is_used());
                drop(taken);
                assert!(take(contexts, all.len()).is_ok());
            }
            assert!(!whole.is_used());
        }
        Ok(())
    }

    #[test]
    fn endpoint_ends_once_and_by_its_last_use() -> Result {
        let bench = Bench::new()?;
        let ended = whole(&bench, (1, 1))?;
        for _ in 0..2 {
            ended.end();
            assert_eq!(shutdowns(&bench), 1);
            assert_eq!(ended.live.refusal(), Some(ECANCELED));
        }
        drop(ended);
        assert_eq!(shutdowns(&bench), 1);
        // Whoever has a context has the endpoint.
        let left = whole(&bench, (1, 1))?;
        let (_, taken) = left.take(Contexts::Tx, 0)?;
        drop(left);
        assert_eq!(shutdowns(&bench), 1);
        drop(taken);
        assert_eq!(shutdowns(&bench), 2);
        // Of all of them the domain still knows the bench's own.
        bench.opened.domain.unplug()?;
        assert_eq!(shutdowns(&bench), 3);
        Ok(())
    }

    #[test]
    fn endpoint_that_fails_when_it_is_made_already_is_ended() -> Result {
        let bench = Bench::new()?;
        let info = Info {
            endpoint_type: EndpointType::Msg,
            ..Desk::info()?
        };
        let domain = &bench.opened.domain;
        let cq = CompletionQueue::<u64>::new(domain, 8, None)?;
        let eq = EventQueue::new(domain, 8, None)?;
        // The provider brings no connection messages.
        let made = Endpoint::builder(domain, &info).cq(&cq).eq(&eq).enable();
        assert_eq!(made.err(), Some(EOPNOTSUPP));
        assert_eq!(shutdowns(&bench), 1);
        assert!(cq.close().is_ok() && eq.close().is_ok());
        Ok(())
    }
}
