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
