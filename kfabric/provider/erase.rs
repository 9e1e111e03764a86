// SPDX-License-Identifier: GPL-2.0

//! Providers without their types: what the objects hold.

use super::faults::Faults;
use super::{Cancelled, Domain, Endpoint, Match, Plug, Port, Provider, Rejected};
use crate::av::Name;
use crate::cm::Message;
use crate::info::{Caps, Info, Namespace};
use crate::op::{Kind, OpId, Operation};
use kernel::prelude::*;
use kernel::sync::rcu::Guard;
use kernel::sync::Arc;

/// Any [`Provider`].
pub(crate) trait AnyProvider: Send + Sync {
    fn offers(&self, net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result;
    fn caps(&self) -> Caps;
    fn connects(&self) -> bool;
    fn reaches(&self, info: &Info, peer: &Name) -> bool;
    fn resolve(&self, info: &Info, node: Option<&str>, service: Option<&str>) -> Result<Name>;
    fn source(&self, info: &Info, source: &Name) -> Result<Name>;
    fn open(&self, info: &Info, plug: Plug) -> Result<Arc<dyn AnyDomain>>;
    fn faults(&self) -> Option<Arc<Faults>>;
}

impl<P: Provider> AnyProvider for P {
    fn offers(&self, net: Namespace, offer: &mut dyn FnMut(&Info) -> Result) -> Result {
        Provider::offers(self, net, offer)
    }

    fn caps(&self) -> Caps {
        let caps = super::caps::<<P::Domain as Domain>::Endpoint>();
        match P::HAS_RESOLVE {
            true => caps | Caps::SERVICE,
            false => caps,
        }
    }

    fn connects(&self) -> bool {
        <P::Domain as Domain>::Endpoint::HAS_TELL
    }

    fn reaches(&self, info: &Info, peer: &Name) -> bool {
        Provider::reaches(self, info, peer)
    }

    fn resolve(&self, info: &Info, node: Option<&str>, service: Option<&str>) -> Result<Name> {
        match P::HAS_RESOLVE {
            true => Provider::resolve(self, info, node, service),
            false => Err(EOPNOTSUPP),
        }
    }

    fn source(&self, info: &Info, source: &Name) -> Result<Name> {
        match P::HAS_SOURCE {
            true => Provider::source(self, info, source),
            false if info.source == Some(*source) => Ok(*source),
            false => Err(EADDRNOTAVAIL),
        }
    }

    fn open(&self, info: &Info, plug: Plug) -> Result<Arc<dyn AnyDomain>> {
        Ok(Provider::open(self, info, plug)?)
    }

    fn faults(&self) -> Option<Arc<Faults>> {
        Provider::faults(self)
    }
}

/// Any [`Domain`].
pub(crate) trait AnyDomain: Send + Sync {
    fn endpoint(&self, port: Arc<Port>, info: &Info) -> Result<Arc<dyn AnyEndpoint>>;
    fn faults(&self) -> Option<Arc<Faults>>;
}

impl<D: Domain> AnyDomain for D {
    fn endpoint(&self, port: Arc<Port>, info: &Info) -> Result<Arc<dyn AnyEndpoint>> {
        Ok(Domain::endpoint(self, port, info)?)
    }

    fn faults(&self) -> Option<Arc<Faults>> {
        Domain::faults(self)
    }
}

/// Any [`Endpoint`].
pub(crate) trait AnyEndpoint: Send + Sync {
    fn name(&self) -> Name;
    fn post(&self, op: Operation, section: &Guard) -> Result<(), Rejected>;
    fn matched(&self, pair: Match);
    fn cancel(&self, id: OpId) -> Cancelled;
    fn connects(&self) -> bool;
    fn tell(&self, to: &Name, message: &Message) -> Result;
    fn quit(&self, context: usize);
    fn shutdown(&self, error: Error);
}

impl<E: Endpoint> AnyEndpoint for E {
    fn name(&self) -> Name {
        Endpoint::name(self)
    }

    #[inline]
    fn post(&self, op: Operation, section: &Guard) -> Result<(), Rejected> {
        // The endpoint does not post what the provider does not advertise.
        match op.kind() {
            Kind::Send if E::HAS_SEND => self.send(op, section),
            Kind::Write if E::HAS_WRITE => self.write(op, section),
            Kind::Read if E::HAS_READ => self.read(op, section),
            Kind::Commit if E::HAS_COMMIT => Endpoint::commit(self, op, section),
            Kind::Atomic if E::HAS_ATOMIC => Endpoint::atomic(self, op, section),
            _ => Err(Rejected {
                op,
                error: EOPNOTSUPP,
            }),
        }
    }

    fn matched(&self, pair: Match) {
        Endpoint::matched(self, pair)
    }

    fn cancel(&self, id: OpId) -> Cancelled {
        Endpoint::cancel(self, id)
    }

    fn connects(&self) -> bool {
        E::HAS_TELL
    }

    fn tell(&self, to: &Name, message: &Message) -> Result {
        match E::HAS_TELL {
            true => Endpoint::tell(self, to, message),
            false => Err(EOPNOTSUPP),
        }
    }

    fn quit(&self, context: usize) {
        Endpoint::quit(self, context)
    }

    fn shutdown(&self, error: Error) {
        Endpoint::shutdown(self, error)
    }
}

#[kunit_tests(kfabric_provider_erase)]
mod tests {
    use super::*;
    use crate::op::testing::Bench;
    use crate::op::Buffer;
    use crate::provider::testing::{Desk, Keeper};
    use kernel::sync::atomic::{Atomic, Relaxed};
    use kernel::sync::rcu;

    /// Takes each operation, and notes which method it came by.
    struct Notes(Atomic<i32>);

    impl Notes {
        fn note(&self, method: i32, op: Operation) -> Result<(), Rejected> {
            self.0.store(method, Relaxed);
            drop(op);
            Ok(())
        }
    }

    #[vtable]
    impl Endpoint for Notes {
        fn name(&self) -> Name {
            Name::NONE
        }

        fn send(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
            self.note(1, op)
        }

        fn write(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
            self.note(2, op)
        }

        fn read(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
            self.note(3, op)
        }

        fn commit(&self, op: Operation, _section: &Guard) -> Result<(), Rejected> {
            self.note(4, op)
        }

        fn shutdown(&self, _error: Error) {}
    }

    #[test]
    fn each_kind_of_operation_comes_by_its_method() -> Result {
        let notes = Notes(Atomic::new(0));
        let bench = Bench::<u64>::new(1, None)?;
        for (method, kind) in (1..).zip([Kind::Send, Kind::Write, Kind::Read, Kind::Commit]) {
            let (_, op) = bench.post(kind, Buffer::empty(), 0)?;
            assert!(AnyEndpoint::post(&notes, op, &rcu::read_lock()).is_ok());
            assert_eq!(notes.0.load(Relaxed), method);
            drop(bench.read());
        }
        Ok(())
    }

    #[test]
    fn provider_without_places_has_its_own_source_only() -> Result {
        let keeper = Keeper(Desk::new()?);
        let (own, other) = (Name::new(b"own")?, Name::new(b"other")?);
        let mut info = Desk::info()?;
        assert_eq!(
            AnyProvider::source(&keeper, &info, &own),
            Err(EADDRNOTAVAIL)
        );
        info.source = Some(own);
        assert_eq!(AnyProvider::source(&keeper, &info, &own), Ok(own));
        assert_eq!(
            AnyProvider::source(&keeper, &info, &other),
            Err(EADDRNOTAVAIL)
        );
        let resolved = AnyProvider::resolve(&keeper, &info, Some("own"), Some("1"));
        assert_eq!(resolved, Err(EOPNOTSUPP));
        assert!(!AnyProvider::caps(&keeper).contains(Caps::SERVICE));
        Ok(())
    }

    #[test]
    fn what_is_not_implemented_is_handed_back() -> Result {
        let keeper = Keeper(Desk::new()?);
        let bench = Bench::<u64>::new(1, None)?;
        for kind in [Kind::Write, Kind::Read, Kind::Commit, Kind::Recv] {
            let (id, op) = bench.post(kind, Buffer::empty(), 0)?;
            let Err(Rejected { op, error }) = AnyEndpoint::post(&keeper, op, &rcu::read_lock())
            else {
                return Err(EINVAL);
            };
            assert_eq!((op.id(), error), (id, EOPNOTSUPP));
            drop(op);
            drop(bench.read());
        }
        Ok(())
    }
}
