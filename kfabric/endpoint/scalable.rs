// SPDX-License-Identifier: GPL-2.0

//! Scalable endpoints: several contexts under one name.
//!
//! See Documentation/scalable.rst. Source: Scalable Endpoints in fi_endpoint(3).

use super::side::{Own, Rx, Side, Tx};
use super::whole::{Base, Contexts, Whole};
use super::{Endpoint, MIN_MULTI_RECV};
use crate::av::{AddressVector, Name};
use crate::cntr::{self, Chosen, Counter, Counts};
use crate::cq::CompletionQueue;
use crate::domain::Domain;
use crate::info::{EndpointType, Info, Limits, MAX_CONTEXTS};
use core::marker::PhantomData;
use kernel::prelude::*;
use kernel::sync::Arc;

/// A transmit context of a scalable endpoint: where sends, reads, writes, atomics and commits are posted.
///
/// Source: fi_tx_context(3).
pub type TxContext<C> = Endpoint<C, Tx<C>>;

/// A receive context of a scalable endpoint: where receives are posted.
///
/// Source: fi_rx_context(3).
pub type RxContext<C> = Endpoint<C, Rx<C>>;

/// An endpoint with several contexts.
///
/// Peers reach it by its name, and each of its receive contexts by
/// [`Address::rx_context`](crate::av::Address::rx_context). Dropped while contexts are open, it stays until the
/// last of them goes; process context, sleeps. Source: fi_scalable_ep(3).
pub struct ScalableEndpoint(Arc<Whole>);

/// What a scalable endpoint is made from.
#[must_use = "nothing is opened before `open`"]
pub struct ScalableBuilder<'a> {
    domain: &'a Domain,
    info: &'a Info,
    av: Option<&'a AddressVector>,
    counters: Chosen<'a>,
    kinds: Counts,
}

/// What a context of a scalable endpoint is made from.
#[must_use = "nothing is opened before `enable`"]
pub struct ContextBuilder<'a, C: Send + 'static, S> {
    whole: &'a Arc<Whole>,
    index: usize,
    cq: Option<&'a CompletionQueue<C>>,
    counters: Chosen<'a>,
    kinds: Counts,
    min_multi_recv: usize,
    _side: PhantomData<S>,
}

/// What can be counted of what peers do.
const REMOTE: Counts = Counts::REMOTE_READ.union(Counts::REMOTE_WRITE);

/// What can be counted of a transmit context.
const TX: Counts = Counts::SEND
    .union(Counts::READ)
    .union(Counts::WRITE)
    .union(Counts::COMMIT);

impl<'a> ScalableBuilder<'a> {
    /// The addresses of the peers, for all contexts. Source: fi_scalable_ep_bind(3).
    pub fn av(mut self, av: &'a AddressVector) -> Self {
        self.av = Some(av);
        self
    }

    /// The counter for what peers do: of these kinds, [`Counts::REMOTE_READ`] and [`Counts::REMOTE_WRITE`].
    pub fn counter(mut self, counts: Counts, cntr: &'a Counter) -> Self {
        choose(&mut self.counters, &mut self.kinds, counts, cntr);
        self
    }

    /// Opens the endpoint, with as many contexts as the info's limits say. Peers reach it from now on: what is
    /// for a receive context that is not open yet waits.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// As [`Builder::enable`](super::Builder::enable), and
    /// - `EINVAL`: the info is of connected endpoints; it has no contexts, or more than [`MAX_CONTEXTS`]; a counter
    ///   is for what is not of peers.
    ///
    /// Source: fi_scalable_ep(3), fi_enable(3).
    pub fn open(self) -> Result<ScalableEndpoint> {
        let limits = &self.info.limits;
        if self.info.endpoint_type != EndpointType::Rdm
            || limits.tx_contexts.max(limits.rx_contexts) > MAX_CONTEXTS
            || !REMOTE.contains(self.kinds)
        {
            return Err(EINVAL);
        }
        let contexts = (limits.tx_contexts, limits.rx_contexts);
        let base = Base::new(
            self.domain,
            self.info,
            contexts,
            self.av,
            None,
            &self.counters,
        )?;
        let whole = Whole::open(self.domain, self.info, base, &|_| ())?;
        Ok(ScalableEndpoint(whole))
    }
}

/// Notes a counter for some kinds.
fn choose<'a>(chosen: &mut Chosen<'a>, all: &mut Counts, counts: Counts, cntr: &'a Counter) {
    *all |= counts;
    for kind in counts.kinds() {
        chosen[kind] = Some(cntr);
    }
}

impl ScalableEndpoint {
    /// Begins a scalable endpoint of `info` in `domain`.
    pub fn builder<'a>(domain: &'a Domain, info: &'a Info) -> ScalableBuilder<'a> {
        ScalableBuilder {
            domain,
            info,
            av: None,
            counters: Chosen::default(),
            kinds: Counts::NONE,
        }
    }

    /// The name by which peers reach it. Source: fi_getname(3).
    pub fn name(&self) -> Name {
        self.0.live.transport.name()
    }

    /// The limits that it was opened with: how many contexts it has, among others.
    pub fn limits(&self) -> Limits {
        self.0.base.limits
    }

    /// Begins a transmit context.
    pub fn tx_context<C: Send + 'static>(&self, index: usize) -> ContextBuilder<'_, C, Tx<C>> {
        ContextBuilder::new(&self.0, index)
    }

    /// Begins a receive context.
    pub fn rx_context<C: Send + 'static>(&self, index: usize) -> ContextBuilder<'_, C, Rx<C>> {
        ContextBuilder::new(&self.0, index)
    }

    /// Closes the endpoint. Sleeps; process context.
    ///
    /// # Errors
    /// - `EBUSY`, and the endpoint again: a context is open.
    ///
    /// Source: fi_close(3).
    pub fn close(self) -> Result<(), (Error, Self)> {
        match self.0.is_used() {
            true => Err((EBUSY, self)),
            false => {
                self.0.end();
                Ok(())
            }
        }
    }
}

impl<'a, C: Send + 'static, S> ContextBuilder<'a, C, S> {
    fn new(whole: &'a Arc<Whole>, index: usize) -> Self {
        ContextBuilder {
            whole,
            index,
            cq: None,
            counters: Chosen::default(),
            kinds: Counts::NONE,
            min_multi_recv: MIN_MULTI_RECV,
            _side: PhantomData,
        }
    }

    /// The queue for its completions.
    pub fn cq(mut self, cq: &'a CompletionQueue<C>) -> Self {
        self.cq = Some(cq);
        self
    }

    /// The counter for operations of these kinds; for each, the last that was chosen. See
    /// [`Builder::counter`](super::Builder::counter).
    pub fn counter(mut self, counts: Counts, cntr: &'a Counter) -> Self {
        choose(&mut self.counters, &mut self.kinds, counts, cntr);
        self
    }

    /// Takes the context, and what was given. `possible`: what it may count.
    fn begin(
        &self,
        contexts: Contexts,
        possible: Counts,
    ) -> Result<(u16, &'a CompletionQueue<C>, Own)> {
        let cq = self.cq.ok_or(EINVAL)?;
        if !possible.contains(self.kinds) {
            return Err(EINVAL);
        }
        self.whole.live.refusal().map_or(Ok(()), Err)?;
        let (index, taken) = self.whole.take(contexts, self.index)?;
        let own = Own {
            counters: cntr::Bound::new(&self.counters, self.whole.base.domain.core())?,
            taken: Some(taken),
        };
        Ok((index, cq, own))
    }
}

impl<C: Send + 'static> ContextBuilder<'_, C, Tx<C>> {
    /// Opens the context and reserves its slots: `tx_size` of the endpoint's limits.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// - `EINVAL`: there is no context of that index; the queue is missing, or of another domain; a counter is of
    ///   another domain, or for what this context does not do.
    /// - `EBUSY`: it is open.
    /// - `ENOSPC`: the completion queue is too small for the slots bound to it.
    /// - `ENODEV`: the domain has ended.
    /// - `ENOMEM`.
    ///
    /// Source: fi_tx_context(3), fi_enable(3).
    pub fn enable(self) -> Result<TxContext<C>> {
        let (index, cq, own) = self.begin(Contexts::Tx, TX)?;
        let tx = Tx::new(&self.whole.base, index, cq, own)?;
        tx.attach(self.whole);
        Ok(Endpoint::of(tx, self.whole))
    }
}

impl<C: Send + 'static> ContextBuilder<'_, C, Rx<C>> {
    /// How much space a receive of several messages must have left to take another, in bytes. See
    /// [`Builder::min_multi_recv`](super::Builder::min_multi_recv).
    pub fn min_multi_recv(mut self, bytes: usize) -> Self {
        self.min_multi_recv = bytes;
        self
    }

    /// Opens the context and reserves its slots: `rx_size` of the endpoint's limits.
    ///
    /// Context and errors: as of a transmit context. Source: fi_rx_context(3), fi_enable(3).
    pub fn enable(self) -> Result<RxContext<C>> {
        let (index, cq, own) = self.begin(Contexts::Rx, Counts::RECV)?;
        let rx = Rx::new(&self.whole.base, index, cq, self.min_multi_recv, own)?;
        rx.attach(self.whole);
        rx.matching.open();
        // It may have ended since, and been opened by this: whoever ends it refuses first.
        if let Some(error) = self.whole.live.refusal() {
            rx.matching.close(error, self.whole.live.port.lost());
            return Err(error);
        }
        Ok(Endpoint::of(rx, self.whole))
    }
}

#[kunit_tests(kfabric_endpoint_scalable)]
mod tests {
    use super::*;
    use crate::op::testing::{request, Bench as Slots};
    use crate::op::{Buffer, Failure, Kind, Request};
    use crate::provider::testing::{Desk, Opened};
    use kernel::sync::atomic::Relaxed;

    /// An endpoint with 2 transmit and 3 receive contexts, and a queue for all of their slots.
    // In the order in which they go.
    struct Rig {
        endpoint: ScalableEndpoint,
        av: AddressVector,
        cq: CompletionQueue<u64>,
        opened: Opened,
    }

    impl Rig {
        fn new() -> Result<Self> {
            let (opened, info) = (Opened::new()?, Desk::info()?.with_contexts(2, 3));
            let cq = CompletionQueue::new(&opened.domain, 5 * 4, None)?;
            let av = AddressVector::new(&opened.domain)?;
            let builder = ScalableEndpoint::builder(&opened.domain, &info);
            Ok(Rig {
                endpoint: builder.av(&av).open()?,
                av,
                cq,
                opened,
            })
        }

        fn tx(&self, index: usize) -> Result<TxContext<u64>> {
            self.endpoint.tx_context(index).cq(&self.cq).enable()
        }

        fn rx(&self, index: usize) -> Result<RxContext<u64>> {
            self.endpoint.rx_context(index).cq(&self.cq).enable()
        }
    }

    fn shutdowns(opened: &Opened) -> i32 {
        opened.desk.shutdowns.load(Relaxed)
    }

    #[test]
    fn endpoint_that_cannot_be_is_not_opened() -> Result {
        let rig = Rig::new()?;
        let (domain, info) = (&rig.opened.domain, Desk::info()?);
        let cntr = Counter::new(domain, None)?;
        let open = |info: &Info, counts| {
            let builder = ScalableEndpoint::builder(domain, info).av(&rig.av);
            builder.counter(counts, &cntr).open()
        };
        let connected = Info {
            endpoint_type: EndpointType::Msg,
            ..info
        };
        assert_eq!(open(&connected, Counts::NONE).err(), Some(EINVAL));
        // 4 of each can be had.
        for (tx, rx, good) in [
            (4, 4, true),
            (1, 1, true),
            (0, 1, false),
            (1, 0, false),
            (5, 1, false),
            (1, 5, false),
            (MAX_CONTEXTS + 1, 1, false),
        ] {
            let opened = open(&info.with_contexts(tx, rx), Counts::NONE);
            assert_eq!(opened.err(), (!good).then_some(EINVAL));
        }
        // What its contexts do is theirs to count.
        for (counts, good) in [
            (REMOTE, true),
            (TX, false),
            (Counts::RECV, false),
            (REMOTE | Counts::SEND, false),
        ] {
            assert_eq!(open(&info, counts).err(), (!good).then_some(EINVAL));
        }
        assert_eq!(
            ScalableEndpoint::builder(domain, &info).open().err(),
            Some(EINVAL)
        );
        assert!(cntr.close().is_ok());
        Ok(())
    }

    #[test]
    fn context_that_cannot_be_is_free_for_the_next() -> Result {
        let rig = Rig::new()?;
        let another = rig.opened.fabric.domain(&Desk::info()?)?;
        let domain = &rig.opened.domain;
        let (small, anothers) = (
            CompletionQueue::<u64>::new(domain, 3, None)?,
            CompletionQueue::<u64>::new(&another, 20, None)?,
        );
        let (cntr, anothers_cntr) = (Counter::new(domain, None)?, Counter::new(&another, None)?);
        for (cq, expected) in [
            (None, EINVAL),
            (Some(&anothers), EINVAL),
            (Some(&small), ENOSPC),
        ] {
            let (mut tx, mut rx) = (rig.endpoint.tx_context(1), rig.endpoint.rx_context(2));
            if let Some(cq) = cq {
                (tx, rx) = (tx.cq(cq), rx.cq(cq));
            }
            let errors = (tx.enable().err(), rx.enable().err());
            assert_eq!(errors, (Some(expected), Some(expected)));
        }
        for (sent, received, cntr, good) in [
            (Counts::RECV, Counts::SEND, &cntr, false),
            (REMOTE, REMOTE, &cntr, false),
            (TX, Counts::RECV, &anothers_cntr, false),
            (TX, Counts::RECV, &cntr, true),
        ] {
            let tx = rig.endpoint.tx_context(1).cq(&rig.cq);
            let rx = rig.endpoint.rx_context(2).cq(&rig.cq);
            let errors = (
                tx.counter(sent, cntr).enable().err(),
                rx.counter(received, cntr).enable().err(),
            );
            let expected = (!good).then_some(EINVAL);
            assert_eq!(errors, (expected, expected));
        }
        assert_eq!(
            (rig.tx(2).err(), rig.rx(3).err()),
            (Some(EINVAL), Some(EINVAL))
        );
        assert!(!rig.endpoint.0.is_used());
        let (tx, rx) = (rig.tx(1)?, rig.rx(2)?);
        assert_eq!(
            (rig.tx(1).err(), rig.rx(2).err()),
            (Some(EBUSY), Some(EBUSY))
        );
        drop((tx, rx));
        assert!(rig.tx(1).is_ok() && rig.rx(2).is_ok());
        Ok(())
    }

    #[test]
    fn endpoint_is_closed_after_its_contexts() -> Result {
        let rig = Rig::new()?;
        let (tx, rx) = (rig.tx(0)?, rig.rx(0)?);
        let Rig {
            endpoint, opened, ..
        } = &rig;
        let name = endpoint.name();
        assert!(tx.name() == name && rx.name() == name);
        let limits = endpoint.limits();
        assert_eq!((limits.tx_contexts, limits.rx_contexts), (2, 3));
        assert_eq!(shutdowns(opened), 0);
        let Rig {
            endpoint,
            opened,
            av: _av,
            cq: _cq,
        } = rig;
        let Err((EBUSY, endpoint)) = endpoint.close() else {
            return Err(EINVAL);
        };
        drop(tx);
        let Err((EBUSY, endpoint)) = endpoint.close() else {
            return Err(EINVAL);
        };
        assert!(rx.close().is_ok());
        assert_eq!(shutdowns(&opened), 0);
        assert!(endpoint.close().is_ok());
        assert_eq!(shutdowns(&opened), 1);
        Ok(())
    }

    #[test]
    fn dropped_endpoint_stays_for_its_contexts() -> Result {
        let rig = Rig::new()?;
        let (tx, rx) = (rig.tx(0)?, rig.rx(0)?);
        let Rig {
            endpoint,
            opened,
            av,
            cq,
        } = rig;
        drop(endpoint);
        assert_eq!(shutdowns(&opened), 0);
        let to = av.insert(&tx.name())?;
        tx.send(Buffer::empty(), to, Default::default(), 1)?;
        assert_eq!(opened.desk.take().len(), 1);
        assert!(cq.read().is_some());
        drop(tx);
        assert_eq!(shutdowns(&opened), 0);
        drop(rx);
        assert_eq!(shutdowns(&opened), 1);
        Ok(())
    }

    #[test]
    fn nothing_is_opened_in_an_endpoint_that_has_ended() -> Result {
        let rig = Rig::new()?;
        rig.opened.domain.unplug()?;
        assert_eq!(
            (rig.tx(0).err(), rig.rx(0).err()),
            (Some(ENODEV), Some(ENODEV))
        );
        assert!(!rig.endpoint.0.is_used());
        Ok(())
    }

    #[test]
    fn messages_wait_for_a_context_that_was_never_open_and_not_for_a_closed_one() -> Result {
        let (rig, peer) = (Rig::new()?, Slots::<u64>::new(1, None)?);
        let port = &rig.endpoint.0.live.port;
        let offer = |peer_context| {
            let request = Request {
                peer_context,
                ..request(Kind::Send)
            };
            Ok::<_, Error>(port.offer(peer.post_request(request, 0)?.1))
        };
        let ended = || peer.read().map(|done| done.result);
        let lost = Err(Failure::not_executed(EHOSTUNREACH));
        assert!(offer(1)?.is_none() && ended().is_none());
        let rx = rig.rx(1)?;
        rx.recv(Buffer::empty(), 5)?;
        assert!(ended().is_some_and(|status| status.is_ok()));
        assert_eq!(rig.cq.read().map(|done| done.context), Some(5));
        assert!(rx.close().is_ok());
        assert!(offer(1)?.is_none());
        assert_eq!(ended(), Some(lost));
        // Opened again it takes them, as any other does.
        let rx = rig.rx(1)?;
        assert!(offer(1)?.is_none() && ended().is_none());
        rx.recv(Buffer::empty(), 6)?;
        assert!(ended().is_some_and(|status| status.is_ok()));
        assert_eq!(rig.cq.read().map(|done| done.context), Some(6));
        // There is no fourth.
        assert!(offer(3)?.is_none());
        let stray = Err(Failure::not_executed(EINVAL));
        assert_eq!(ended(), Some(stray));
        Ok(())
    }
}
