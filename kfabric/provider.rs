// SPDX-License-Identifier: GPL-2.0

//! The seam: what a provider implements, and what the core gives it.
//!
//! A provider is a module of its own that registers a [`Provider`] ([`registry::Registration`]).
//! Its [`Domain`]s make [`Endpoint`]s, which execute [`Operation`]s. What an endpoint type
//! implements is what its infos advertise: [`caps`]. See Documentation/provider-guide.rst.
//!
//! A provider that has links and nothing more implements those of [`link`], and gives out a
//! [`LinkDomain`], whose endpoints are the core's [`Engine`].

use crate::av::Name;
use crate::cm::Role;
use crate::cntr::Counters;
use crate::cq::Hands;
use crate::domain;
use crate::info::{Caps, Info, Namespace};
use crate::op::{Chain, Kind, Op, OpId, Operation};
use crate::rdm::matching::Matching;
use crate::sys::around;
use crate::trace;
use faults::Faults;
use kernel::error::VTABLE_DEFAULT_ERROR;
use kernel::prelude::*;
use kernel::sync::rcu::Guard;
use kernel::sync::Arc;

mod erase;
pub mod faults;
pub mod registry;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing;
pub mod text;

pub(crate) use erase::{AnyDomain, AnyEndpoint, AnyProvider};

pub use crate::cm::Message;
pub use crate::domain::Plug;
pub use crate::rdm::matching::Match;
// The engine, for providers that have links and nothing more.
pub use crate::rdm::{link, Domain as LinkDomain, Engine};
// What the kernel crate lacks for providers.
pub use crate::sys::chunks::Chunks;
pub use crate::sys::{random, rcu, work};

/// A post that an endpoint hands back, untouched.
pub struct Rejected {
    /// The operation.
    pub op: Operation,
    /// `EAGAIN` if the consumer should try again later.
    pub error: Error,
}

/// What becomes of a cancel.
pub enum Cancelled {
    /// The operation, which has not begun.
    Back(Operation),
    /// The peer is asked, if it has it: it completes with `ECANCELED`, or as it would have.
    Asked,
    /// It has begun, or is not here.
    No,
}

impl From<Option<Operation>> for Cancelled {
    fn from(op: Option<Operation>) -> Self {
        op.map_or(Cancelled::No, Cancelled::Back)
    }
}

/// A provider: the code for one kind of fabric.
#[vtable]
pub trait Provider: Send + Sync + Sized + 'static {
    /// Its name, at most [`Label::MAX`](crate::info::Label::MAX) bytes.
    const NAME: &'static str;

    /// What it makes of an info.
    type Domain: Domain;

    /// Offers what can be had at this moment in a network namespace, one info for each domain.
    ///
    /// What is offered beyond it, and so by [`Info::net`] of another, is passed over: a local fabric need
    /// not look at `net`. Process context; the registry's lock may be held: must not call the registry.
    fn offers(&self, net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result;

    /// Whether endpoints of `info` can have a peer of that name, as far as the name tells.
    ///
    /// It need not exist. `info.source` is theirs. Context as for [`Provider::offers`].
    fn reaches(&self, info: &Info, peer: &Name) -> bool;

    /// The name of a place, from text. With it, [`Caps::SERVICE`] is advertised.
    ///
    /// Without a node it is where the provider's endpoints are; without a service it is none at which
    /// an endpoint could be reached. What is there, and whether it can be had, is not looked at.
    /// Context as for [`Provider::offers`].
    ///
    /// # Errors
    /// - `EINVAL`: it is not understood.
    /// - `ENXIO`: it says something that is not there, as an interface.
    /// - `ENOMEM`.
    fn resolve(&self, info: &Info, node: Option<&str>, service: Option<&str>) -> Result<Name> {
        let _ = (info, node, service);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The place that endpoints of `info` get if they are to be at `source`, which may be anything.
    ///
    /// It is `source` but where that leaves something open. Without it, no source can be had but that
    /// of the offer. Context as for [`Provider::offers`].
    ///
    /// # Errors
    /// `EADDRNOTAVAIL`: it can't be had. `ENOMEM`.
    fn source(&self, info: &Info, source: &Name) -> Result<Name> {
        let _ = (info, source);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Opens the domain that `info` names, at `info.source`: that of the offer, or what
    /// [`Provider::source`] gave. Process context, may sleep.
    ///
    /// If its device vanishes, `plug` ends it alone, from the moment on that this is called. The last
    /// reference of what it gives is dropped in process context, when nothing of the domain is open any
    /// more or when it has ended: if the provider has no other, by the core.
    fn open(&self, info: &Info, plug: Plug) -> Result<Arc<Self::Domain>>;

    /// The faults that domains begin with which are opened later; `None`: it injects none.
    fn faults(&self) -> Option<Arc<Faults>> {
        None
    }
}

/// A provider's domain: one device, in most cases.
pub trait Domain: Send + Sync + 'static {
    /// Its endpoints.
    type Endpoint: Endpoint;

    /// Makes an endpoint, ready for operations, with as many contexts as the port has
    /// ([`Port::tx_contexts`], [`Port::rx_contexts`]). What it does for one of them should take no lock that it
    /// takes for another. Process context, may sleep; the domain does not end
    /// meanwhile, and no other endpoint of it is made.
    fn endpoint(&self, port: Arc<Port>, info: &Info) -> Result<Arc<Self::Endpoint>>;

    /// The faults that it injects; `None`: none.
    fn faults(&self) -> Option<Arc<Faults>> {
        None
    }
}

/// A provider's endpoint: it executes operations.
///
/// Each operation that it takes ends in exactly one [`Operation::complete`]: before
/// [`Endpoint::shutdown`] returns, or, where a peer is just executing it, soon afterwards. The
/// methods for operations may be called in process and softirq context, at the same time on several
/// CPUs, and never sleep or allocate. Those that take one are called in the RCU read section that they
/// are given.
#[vtable]
pub trait Endpoint: Send + Sync + 'static {
    /// Whether a device stores in this host's memory what arrives, on its own. Else the CPUs do, by
    /// [`Port::access`] and [`Match::execute`], which heed the hints of regions, know every kind of
    /// memory, and do all atomics.
    const STORED_BY_DEVICE: bool = false;

    /// The name by which peers reach it.
    fn name(&self) -> Name;

    /// Sends a message to `op.peer()`: it is offered to the peer's port ([`Port::offer`]), with its
    /// [`tag`](Op::tag) if it has one.
    fn send(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        let _ = (op, section);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes to `op.remote()`; with `op.data()` it is offered to the peer's port afterwards.
    fn write(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        let _ = (op, section);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads from `op.remote()`.
    fn read(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        let _ = (op, section);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes `op.remote()` durable.
    fn commit(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        let _ = (op, section);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Executes a message that met a receive of this endpoint's port.
    ///
    /// By default at once, in the context of the post. What is long, or for later ([`Match::is_for_later`]), is better
    /// left to a worker, since that context may be a softirq.
    fn matched(&self, pair: Match) {
        pair.execute();
    }

    /// Does `op.atomic()` to the words of `op.remote()`.
    fn atomic(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        let _ = (op, section);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Gives back an operation that has not begun, or sees to it that it ends. Which of the endpoint's transmit
    /// contexts has posted it, [`OpId::context`] tells.
    fn cancel(&self, id: OpId) -> Cancelled {
        let _ = id;
        Cancelled::No
    }

    /// Brings a connection message to the port of the endpoint that is named `to`: to
    /// [`Port::hear`]. With it, endpoints of type [`EndpointType::Msg`] are offered.
    ///
    /// Never sleeps; any context but hardirq, in an RCU read section.
    ///
    /// # Errors
    /// - `EHOSTUNREACH`: nobody has that name.
    /// - `EAGAIN`: there is no room for it now.
    /// - What [`Port::hear`] gives, if it is known at once.
    ///
    /// [`EndpointType::Msg`]: crate::info::EndpointType::Msg
    fn tell(&self, to: &Name, message: &Message) -> Result {
        let _ = (to, message);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Ends what one transmit context ([`Op::own_context`]) has posted, which posts no more, as far as it has not
    /// met its peer: it completes with `ECANCELED`. The rest completes as it would have, soon. What the context
    /// posts once this has returned is not meant: it may be open again.
    ///
    /// Process context, may sleep. Where it is missing, everything completes as it would have.
    fn quit(&self, context: usize) {
        let _ = context;
    }

    /// Ends the endpoint: completes all that it holds with `error`, and takes nothing more.
    ///
    /// Process context, may sleep, once. No post is under way when it is called. Afterwards peers
    /// can't reach the endpoint, and nothing of it runs any more: what they post to it completes with
    /// [`Port::lost`]. `ENODEV`: its domain has ended, and others may go on.
    fn shutdown(&self, error: Error);
}

/// What infos of a provider whose endpoints are `E` advertise.
pub fn caps<E: Endpoint>() -> Caps {
    let mut caps = Caps::NONE;
    if E::HAS_SEND {
        // What a receive takes is the core's, see rdm/matching.rs.
        caps |= Caps::MSG | Caps::TAGGED | Caps::DIRECTED_RECV | Caps::MULTI_RECV;
        caps |= Caps::NAMED_RX_CTX;
    }
    if E::HAS_READ {
        caps |= Caps::READ;
    }
    if E::HAS_WRITE {
        caps |= Caps::WRITE;
    }
    if E::HAS_SEND && E::HAS_WRITE {
        caps |= Caps::REMOTE_CQ_DATA;
    }
    if E::HAS_SEND || E::HAS_WRITE || E::HAS_READ {
        // By the core, see rdm/fence.rs.
        caps |= Caps::FENCE;
    }
    if E::HAS_ATOMIC && !E::STORED_BY_DEVICE {
        // All atomics on a region are done by one agent, and this host's owners use its CPUs.
        caps |= Caps::ATOMIC;
    }
    if E::HAS_WRITE && E::HAS_COMMIT {
        caps |= Caps::COMMIT;
    }
    if !E::STORED_BY_DEVICE {
        caps |= Caps::HMEM;
        if around::is_possible() {
            caps |= Caps::UNCACHED;
        }
    }
    caps
}

/// The core's side of an endpoint, for its provider.
pub struct Port {
    id: u64,
    // What peers' operations act upon.
    domain: Arc<domain::Core>,
    counters: Option<Arc<Counters>>,
    role: Role,
    tx_contexts: usize,
    /// By receive context.
    matchings: KVec<Arc<Matching>>,
    hands: Arc<Hands>,
}

impl Port {
    /// Of an endpoint with so many transmit and receive contexts, that posts so many receives at most by each of
    /// the latter. Sleeps. `ENOMEM`.
    pub(crate) fn new(
        id: u64,
        domain: Arc<domain::Core>,
        counters: Option<Arc<Counters>>,
        role: Role,
        receives: usize,
        (tx_contexts, rx_contexts): (usize, usize),
    ) -> Result<Arc<Self>> {
        let mut matchings = KVec::with_capacity(rx_contexts, GFP_KERNEL)?;
        for _ in 0..rx_contexts {
            let matching = Arc::pin_init(Matching::new(receives)?, GFP_KERNEL)?;
            matchings.push(matching, GFP_KERNEL)?;
        }
        let port = Port {
            id,
            domain,
            counters,
            role,
            tx_contexts,
            matchings,
            hands: Hands::new(tx_contexts + rx_contexts)?,
        };
        Ok(Arc::new(port, GFP_KERNEL)?)
    }

    /// The endpoint's number: that of [`Op::endpoint`] in its operations.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn domain(&self) -> &domain::Core {
        &self.domain
    }

    /// Who counts what peers do here.
    #[inline]
    pub(crate) fn counters(&self) -> Option<&Counters> {
        self.counters.as_deref()
    }

    /// Who may take turns of the endpoint's workers.
    #[inline]
    pub(crate) fn hands(&self) -> &Arc<Hands> {
        &self.hands
    }

    pub(crate) fn role(&self) -> &Role {
        &self.role
    }

    /// Whether its endpoint is at the service that its info has for a source: who is connected has
    /// asked for none, but its listener has.
    pub fn serves(&self) -> bool {
        !matches!(self.role, Role::Connection(_))
    }

    /// What a peer's operation completes with that finds this endpoint, or one like it, closed:
    /// `ENOTCONN` if it was connected, else `EHOSTUNREACH`. If the operation's own domain has ended,
    /// [`Operation::complete`] makes `ENODEV` of it.
    ///
    /// For operations of this endpoint that find nobody, too: its peers are like it.
    pub fn lost(&self) -> Error {
        match &self.role {
            Role::Connection(_) => ENOTCONN,
            _ => EHOSTUNREACH,
        }
    }

    /// Whether a peer's operation may act here. `EHOSTUNREACH`: it is not of who is connected.
    #[inline]
    pub(crate) fn check_sender(&self, op: &Op) -> Result {
        if self.role.admits(op) {
            return Ok(());
        }
        self.domain.target_stats().strangers.add(1);
        trace::refuse(self.id, op, EHOSTUNREACH);
        Err(EHOSTUNREACH)
    }

    /// How many transmit contexts its endpoint has.
    pub fn tx_contexts(&self) -> usize {
        self.tx_contexts
    }

    /// How many receive contexts it has.
    pub fn rx_contexts(&self) -> usize {
        self.matchings.len()
    }

    /// The receives of a context, and what waits for them.
    #[inline]
    pub(crate) fn matching(&self, context: usize) -> Option<&Arc<Matching>> {
        self.matchings.get(context)
    }

    /// Those of all contexts.
    pub(crate) fn matchings(&self) -> impl Iterator<Item = &Arc<Matching>> {
        self.matchings.iter()
    }

    /// Whether there is the receive context that a peer's operation is for. `EINVAL`: there is not; that is
    /// counted.
    #[inline]
    pub(crate) fn check_context(&self, op: &Op) -> Result<&Arc<Matching>> {
        match self.matching(op.peer_context()) {
            Some(matching) => Ok(matching),
            None => Err(self.stray(op)),
        }
    }

    #[cold]
    #[inline(never)]
    fn stray(&self, op: &Op) -> Error {
        op.count_stray();
        trace::refuse(self.id, op, EINVAL);
        EINVAL
    }

    /// Offers a peer's message, or the notice of its write, to the posted receives of the context that it is for.
    ///
    /// Gives the pair if one was posted; else it waits here, and [`Endpoint::matched`] gets the
    /// pair later. Never sleeps; any context but hardirq.
    pub fn offer(&self, arrival: Operation) -> Option<Match> {
        let admitted = self.check_sender(&arrival);
        match admitted.and_then(|()| self.check_context(&arrival)) {
            Ok(matching) => matching.offer(arrival),
            Err(error) => {
                arrival.give_up(error);
                None
            }
        }
    }

    /// Takes the first such arrival out again that waits here for a receive.
    ///
    /// For senders that cancel. Never sleeps; steps: the arrivals that wait before it.
    pub fn recall(&self, mut which: impl FnMut(&Op) -> bool) -> Option<Operation> {
        self.matchings()
            .find_map(|matching| matching.recall(&mut which))
    }

    /// Takes arrivals out again that wait here for a receive.
    ///
    /// For senders that close. Never sleeps; steps: the arrivals that wait.
    pub fn withdraw(&self, mut which: impl FnMut(&Op) -> bool) -> Chain {
        let mut all = Chain::new();
        for matching in self.matchings() {
            let mut some = matching.withdraw(&mut which);
            while let Some(op) = some.pop() {
                all.push(op);
            }
        }
        all
    }
}

impl Op {
    /// Whether the peer is to be told in its completion queue, once the bytes are there.
    #[inline]
    pub fn notifies(&self) -> bool {
        matches!(self.kind(), Kind::Write | Kind::Commit) && self.data().is_some()
    }
}

#[kunit_tests(kfabric_provider)]
mod tests {
    use super::testing::Keeper;
    use super::*;

    #[test]
    fn capabilities_are_what_is_implemented() {
        // It sends, and nothing else; fences are the core's.
        assert_eq!(
            caps::<Keeper>(),
            Caps::MSG
                | Caps::TAGGED
                | Caps::DIRECTED_RECV
                | Caps::MULTI_RECV
                | Caps::NAMED_RX_CTX
                | Caps::FENCE
        );
    }

    /// A device that implements everything, and stores by itself.
    struct Device;

    #[vtable]
    impl Endpoint for Device {
        const STORED_BY_DEVICE: bool = true;

        fn name(&self) -> Name {
            Name::NONE
        }

        fn write(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
            drop(op);
            Ok(())
        }

        fn atomic(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
            drop(op);
            Ok(())
        }

        fn shutdown(&self, _error: Error) {}
    }

    #[test]
    fn device_that_stores_advertises_nothing_that_cpus_do() {
        assert_eq!(caps::<Device>(), Caps::WRITE | Caps::FENCE);
    }
}
