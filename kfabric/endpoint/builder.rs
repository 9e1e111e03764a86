// SPDX-License-Identifier: GPL-2.0

//! What an endpoint is made from.

use super::side::{Both, Own, Rx, Side, Tx};
use super::whole::{Base, Whole};
use super::Endpoint;
use crate::av::AddressVector;
use crate::cntr::{Chosen, Counter, Counts};
use crate::cq::CompletionQueue;
use crate::domain::Domain;
use crate::eq::EventQueue;
use crate::info::Info;
use kernel::prelude::*;

/// What an endpoint is made from.
#[must_use = "nothing is opened before `enable`"]
pub struct Builder<'a, C: Send + 'static> {
    pub(super) domain: &'a Domain,
    pub(super) info: &'a Info,
    pub(super) tx: Option<&'a CompletionQueue<C>>,
    pub(super) rx: Option<&'a CompletionQueue<C>>,
    pub(super) av: Option<&'a AddressVector>,
    pub(super) counters: Chosen<'a>,
    pub(super) eq: Option<&'a EventQueue>,
    pub(super) min_multi_recv: usize,
}

impl<'a, C: Send + 'static> Builder<'a, C> {
    /// The queue for all completions.
    pub fn cq(self, cq: &'a CompletionQueue<C>) -> Self {
        self.tx_cq(cq).rx_cq(cq)
    }

    /// The queue for completions of sends, reads, writes and commits.
    pub fn tx_cq(mut self, cq: &'a CompletionQueue<C>) -> Self {
        self.tx = Some(cq);
        self
    }

    /// The queue for completions of receives.
    pub fn rx_cq(mut self, cq: &'a CompletionQueue<C>) -> Self {
        self.rx = Some(cq);
        self
    }

    /// The addresses of the peers, for an endpoint of type [`EndpointType::Rdm`](crate::info::EndpointType::Rdm).
    pub fn av(mut self, av: &'a AddressVector) -> Self {
        self.av = Some(av);
        self
    }

    /// The counter for operations of these kinds; for each, the last that was chosen.
    ///
    /// It counts what ends, also what leaves no completion, and no later than the completion is in
    /// its queue. Source: fi_ep_bind() in fi_endpoint(3).
    pub fn counter(mut self, counts: Counts, cntr: &'a Counter) -> Self {
        for kind in counts.kinds() {
            self.counters[kind] = Some(cntr);
        }
        self
    }

    /// Where events of the connection go, for an endpoint of type [`EndpointType::Msg`](crate::info::EndpointType::Msg).
    pub fn eq(mut self, eq: &'a EventQueue) -> Self {
        self.eq = Some(eq);
        self
    }

    /// How much space a receive of several messages must have left to take another, in bytes; 0 is as 1.
    ///
    /// By default [`MIN_MULTI_RECV`](super::MIN_MULTI_RECV). Source: FI_OPT_MIN_MULTI_RECV of
    /// fi_endpoint(3).
    pub fn min_multi_recv(mut self, bytes: usize) -> Self {
        self.min_multi_recv = bytes;
        self
    }

    /// Opens the endpoint and reserves its slots: `tx_size` and `rx_size` of the info's limits. It has one transmit
    /// and one receive context, however many those allow.
    ///
    /// It does what the info has the capabilities for, and refuses all other posts.
    ///
    /// Sleeps; process context.
    ///
    /// # Errors
    /// - `EINVAL`: a queue is missing, or what the endpoint's type needs: an address vector or an
    ///   event queue, and not both; one of them, or a counter, is of another domain; a limit is 0,
    ///   or beyond what the domain offers; the info is of another domain, or its source is another.
    /// - `EADDRINUSE`: the info's source is a service, and another endpoint has its name.
    /// - `ENOSPC`: a completion queue is too small for the slots bound to it, or the event queue.
    /// - `EOPNOTSUPP`: the info has a capability that the domain does not offer.
    /// - `ENODEV`: the domain has ended.
    /// - `ENOMEM`.
    ///
    /// Source: fi_enable(3).
    pub fn enable(self) -> Result<Endpoint<C>> {
        let (Some(tx), Some(rx)) = (self.tx, self.rx) else {
            return Err(EINVAL);
        };
        // One context of each, however many there could be.
        let (contexts, counters) = ((1, 1), &self.counters);
        let base = Base::new(self.domain, self.info, contexts, self.av, self.eq, counters)?;
        let side = Both {
            tx: Tx::new(&base, 0, tx, Own::default())?,
            rx: Rx::new(&base, 0, rx, self.min_multi_recv, Own::default())?,
        };
        let whole = Whole::open(self.domain, self.info, base, &|whole| side.attach(whole))?;
        Ok(Endpoint::of(side, &whole))
    }
}

#[kunit_tests(kfabric_endpoint_builder)]
mod tests {
    use super::*;
    use crate::info::Caps;
    use crate::provider::testing::{Bench, Desk};
    use kernel::sync::atomic::Relaxed;

    #[test]
    fn endpoint_that_the_domain_does_not_offer_is_not_opened() -> Result {
        let bench = Bench::new()?;
        let mut info = Desk::info()?;
        assert_eq!(
            info.caps,
            Caps::MSG | Caps::TAGGED | Caps::DIRECTED_RECV | Caps::MULTI_RECV | Caps::NAMED_RX_CTX
        );
        let cq = CompletionQueue::<u64>::new(&bench.opened.domain, 8, None)?;
        let enable = |info: &Info| {
            let builder = Endpoint::<u64>::builder(&bench.opened.domain, info);
            builder.cq(&cq).av(&bench.av).enable()
        };
        for cap in [Caps::READ, Caps::ATOMIC, Caps::HMEM] {
            info.caps = Caps::MSG | cap;
            assert_eq!(enable(&info).err(), Some(EOPNOTSUPP));
        }
        // Nor was the provider asked for one, and nothing is left of it.
        assert_eq!(bench.opened.desk.shutdowns.load(Relaxed), 0);
        info.caps = Caps::MSG;
        assert!(enable(&info)?.close().is_ok());
        assert_eq!(bench.opened.desk.shutdowns.load(Relaxed), 1);
        assert!(cq.close().is_ok());
        Ok(())
    }

    #[test]
    fn endpoint_that_finds_no_room_leaves_nothing() -> Result {
        let bench = Bench::new()?;
        let info = Desk::info()?;
        let builder = Endpoint::<u64>::builder(&bench.opened.domain, &info);
        // Both directions of the bench's own endpoint are bound to it.
        let made = builder.cq(&bench.cq).av(&bench.av).enable();
        assert_eq!(made.err(), Some(ENOSPC));
        assert_eq!(bench.opened.desk.shutdowns.load(Relaxed), 0);
        Ok(())
    }
}
