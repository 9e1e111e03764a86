// SPDX-License-Identifier: GPL-2.0

//! The sides of an endpoint: a transmit context, a receive context, or one of each.
//!
//! An [`Endpoint`](super::Endpoint) is posted to by its sides, and closed by them. The traits are sealed.

use super::direction::Direction;
use super::whole::{Base, Taken, Whole};
use crate::cntr::{self, Counters};
use crate::cq::CompletionQueue;
use crate::debugfs::{self, Shown};
use crate::info::Caps;
use crate::op::{OpId, Operation, Shares};
use crate::provider::Cancelled;
use crate::rdm::fence::Fence;
use crate::rdm::matching::Matching;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

/// What an endpoint is made of.
pub trait Side: Send + Sync {
    /// How many operations are in flight: of those that transmit, and of receives.
    fn in_flight(&self) -> (u64, u64);

    /// Ends what can be ended of it at once. Sleeps.
    fn stop(&self, whole: &Whole);

    /// Takes an operation out again.
    fn recall(&self, whole: &Whole, id: OpId) -> Cancelled;

    /// Notes who posts by it, before anything is posted.
    fn attach(&self, whole: &Whole);
}

/// A side that operations for peers are posted to.
pub trait Transmits<C: Send + 'static>: Side {
    /// The transmit context.
    fn tx(&self) -> &Tx<C>;
}

/// A side that receives are posted to.
pub trait Receives<C: Send + 'static>: Side {
    /// The receive context.
    fn rx(&self) -> &Rx<C>;
}

/// A transmit context.
pub struct Tx<C: Send + 'static> {
    _file: debugfs::File,
    pub(super) direction: Direction<C>,
    pub(super) fence: Option<Arc<Fence>>,
    index: u16,
    _own: Option<KBox<Own>>,
}

/// A receive context.
pub struct Rx<C: Send + 'static> {
    _file: debugfs::File,
    pub(super) direction: Direction<C>,
    pub(super) matching: Arc<Matching>,
    pub(super) min_multi_recv: usize,
    index: u16,
    _own: Option<KBox<Own>>,
}

/// One of each: an endpoint that is not scalable.
pub struct Both<C: Send + 'static> {
    pub(super) tx: Tx<C>,
    pub(super) rx: Rx<C>,
}

/// What a context of a scalable endpoint has, and that of another endpoint shares.
#[derive(Default)]
pub(super) struct Own {
    pub(super) counters: Option<cntr::Bound>,
    pub(super) taken: Option<Taken>,
}

impl Own {
    /// For as long as the context is open.
    fn kept(self) -> Result<Option<KBox<Self>>> {
        match self.taken {
            Some(_) => Ok(Some(KBox::new(self, GFP_KERNEL)?)),
            None => Ok(None),
        }
    }

    /// Who counts, and what the context is called.
    fn parts(
        &self,
        base: &Base,
        kind: &'static str,
        index: u16,
    ) -> Result<(Option<Arc<Counters>>, CString)> {
        let bound = match self.taken {
            Some(_) => &self.counters,
            None => &base.counters,
        };
        let name = match self.taken {
            Some(_) => CString::try_from_fmt(fmt!("{kind}-{index}"))?,
            None => CString::try_from_fmt(fmt!("{kind}"))?,
        };
        Ok((bound.as_ref().map(|bound| bound.counters().clone()), name))
    }
}

impl<C: Send + 'static> Tx<C> {
    /// Reserves its slots. Sleeps. `EINVAL`: the queue is of another domain; `ENOSPC`: it is too small. `ENOMEM`.
    pub(super) fn new(base: &Base, index: u16, cq: &CompletionQueue<C>, own: Own) -> Result<Self> {
        base.check_queue(cq)?;
        let (counters, name) = own.parts(base, "tx", index)?;
        let fence = base.fences.get(usize::from(index)).cloned();
        let slots = base.limits.tx_size;
        let direction = Direction::new(
            base.poster(index),
            (cq, base.port.hands()),
            counters,
            fence.clone(),
            None,
            slots,
        )?;
        let shown = Shown::Direction(direction.origin.clone());
        Ok(Tx {
            _file: debugfs::File::new(&name, &base.dir, shown)?,
            direction,
            fence,
            index,
            _own: own.kept()?,
        })
    }
}

impl<C: Send + 'static> Rx<C> {
    /// As [`Tx::new`].
    #[inline(never)]
    pub(super) fn new(
        base: &Base,
        index: u16,
        cq: &CompletionQueue<C>,
        min_multi_recv: usize,
        own: Own,
    ) -> Result<Self> {
        base.check_queue(cq)?;
        let (counters, name) = own.parts(base, "rx", index)?;
        let slots = base.limits.rx_size;
        let shares = match base.caps.contains(Caps::MULTI_RECV) {
            true => Some(Shares::new(slots)?),
            false => None,
        };
        let direction = Direction::new(
            base.poster(index),
            (cq, base.port.hands()),
            counters,
            None,
            shares,
            slots,
        )?;
        let shown = Shown::Direction(direction.origin.clone());
        Ok(Rx {
            _file: debugfs::File::new(&name, &base.dir, shown)?,
            direction,
            matching: base.port.matching(index.into()).ok_or(EINVAL)?.clone(),
            min_multi_recv,
            index,
            _own: own.kept()?,
        })
    }
}

/// Whether an operation was posted by that context.
fn is_of(id: OpId, receive: bool, index: u16) -> bool {
    id.receive == receive && id.poster.context == index
}

impl<C: Send + 'static> Side for Tx<C> {
    fn in_flight(&self) -> (u64, u64) {
        (self.direction.origin.in_flight(), 0)
    }

    fn stop(&self, whole: &Whole) {
        if let Some(fence) = &self.fence {
            fence.quit(ECANCELED);
        }
        whole.live.transport.quit(self.index.into());
    }

    fn recall(&self, whole: &Whole, id: OpId) -> Cancelled {
        if !is_of(id, false, self.index) {
            return Cancelled::No;
        }
        match self.fence.as_ref().and_then(|fence| fence.cancel(id)) {
            Some(op) => Cancelled::Back(op),
            None => whole.live.transport.cancel(id),
        }
    }

    fn attach(&self, whole: &Whole) {
        whole.adopt(&self.direction.origin);
    }
}

impl<C: Send + 'static> Side for Rx<C> {
    fn in_flight(&self) -> (u64, u64) {
        (0, self.direction.origin.in_flight())
    }

    fn stop(&self, whole: &Whole) {
        self.matching.close(ECANCELED, whole.live.port.lost());
    }

    fn recall(&self, _whole: &Whole, id: OpId) -> Cancelled {
        let op: Option<Operation> = match is_of(id, true, self.index) {
            true => self.matching.cancel(id),
            false => None,
        };
        op.into()
    }

    fn attach(&self, whole: &Whole) {
        whole.adopt(&self.direction.origin);
    }
}

impl<C: Send + 'static> Side for Both<C> {
    fn in_flight(&self) -> (u64, u64) {
        (self.tx.in_flight().0, self.rx.in_flight().1)
    }

    fn stop(&self, whole: &Whole) {
        whole.end();
    }

    fn recall(&self, whole: &Whole, id: OpId) -> Cancelled {
        match id.receive {
            true => self.rx.recall(whole, id),
            false => self.tx.recall(whole, id),
        }
    }

    fn attach(&self, whole: &Whole) {
        self.tx.attach(whole);
        self.rx.attach(whole);
    }
}

impl<C: Send + 'static> Transmits<C> for Tx<C> {
    #[inline(always)]
    fn tx(&self) -> &Tx<C> {
        self
    }
}

impl<C: Send + 'static> Transmits<C> for Both<C> {
    #[inline(always)]
    fn tx(&self) -> &Tx<C> {
        &self.tx
    }
}

impl<C: Send + 'static> Receives<C> for Rx<C> {
    #[inline(always)]
    fn rx(&self) -> &Rx<C> {
        self
    }
}

impl<C: Send + 'static> Receives<C> for Both<C> {
    #[inline(always)]
    fn rx(&self) -> &Rx<C> {
        &self.rx
    }
}

#[kunit_tests(kfabric_endpoint_side)]
mod tests {
    use super::super::whole::Contexts;
    use super::*;
    use crate::av::AddressVector;
    use crate::endpoint::{RxContext, ScalableEndpoint, TxContext};
    use crate::info::Info;
    use crate::op::{testing::done, Buffer, Failure, Kind, Options, Poster};
    use crate::provider::testing::{Bench, Desk, Opened};

    const FENCED: Options = Options {
        fence: true,
        ..Options::NONE
    };

    /// An endpoint with fences and two contexts of each kind.
    // In the order in which they go.
    struct Rig {
        tx: [TxContext<u64>; 2],
        rx: [RxContext<u64>; 2],
        endpoint: ScalableEndpoint,
        av: AddressVector,
        cq: CompletionQueue<u64>,
        opened: Opened,
    }

    impl Rig {
        fn new() -> Result<Self> {
            let (opened, info) = (Opened::new()?, Desk::info()?.with_contexts(2, 2));
            let info = Info {
                caps: info.caps | Caps::FENCE,
                ..info
            };
            let cq = CompletionQueue::new(&opened.domain, 4 * 4, None)?;
            let av = AddressVector::new(&opened.domain)?;
            let endpoint = ScalableEndpoint::builder(&opened.domain, &info);
            let endpoint = endpoint.av(&av).open()?;
            let tx = |index| endpoint.tx_context(index).cq(&cq).enable();
            let rx = |index| endpoint.rx_context(index).cq(&cq).enable();
            Ok(Rig {
                tx: [tx(0)?, tx(1)?],
                rx: [rx(0)?, rx(1)?],
                endpoint,
                av,
                cq,
                opened,
            })
        }

        /// Has each transmit context send something, and then something that waits behind a fence.
        fn send_all(&self) -> Result<[OpId; 2]> {
            let to = self.av.insert(&self.endpoint.name())?;
            let send = |tx: usize| {
                let context = tx as u64;
                self.tx[tx].send(Buffer::empty(), to, Options::NONE, context)?;
                Ok::<_, Error>(self.tx[tx].send(Buffer::empty(), to, FENCED, 10 + context)?)
            };
            Ok([send(0)?, send(1)?])
        }

        /// Completes what the provider has, until it gets nothing more.
        fn complete_all(&self) {
            loop {
                let mut kept = self.opened.desk.take();
                if kept.is_empty() {
                    return;
                }
                while let Some(op) = kept.pop() {
                    op.complete(done(0));
                }
            }
        }

        fn ended(&self) -> Option<(u64, Option<Error>)> {
            let done = self.cq.read()?;
            Some((done.context, done.result.err().map(|failure| failure.error)))
        }
    }

    #[test]
    fn operation_is_of_the_context_that_posted_it() {
        let id = |receive, context| OpId {
            poster: Poster {
                endpoint: 7,
                context,
            },
            receive,
            index: 0,
            use_count: 0,
        };
        for (receive, context, tx, rx) in [
            (false, 1, true, false),
            (true, 1, false, true),
            (false, 0, false, false),
            (true, 2, false, false),
        ] {
            let id = id(receive, context);
            assert_eq!((is_of(id, false, 1), is_of(id, true, 1)), (tx, rx));
        }
    }

    #[test]
    fn context_cancels_and_counts_what_it_has_posted() -> Result {
        let rig = Rig::new()?;
        let sent = rig.send_all()?;
        let received = rig.rx[1].recv(Buffer::empty(), 20)?;
        let counts = |side: &dyn Side| side.in_flight();
        assert_eq!(counts(&rig.tx[0].side), (2, 0));
        assert_eq!(counts(&rig.rx[0].side), (0, 0));
        assert_eq!(counts(&rig.rx[1].side), (0, 1));
        for id in [sent[0], received] {
            assert_eq!(rig.tx[1].cancel(id), Err(ENOENT));
            assert_eq!(rig.rx[0].cancel(id), Err(ENOENT));
        }
        assert!(rig.ended().is_none());
        rig.tx[0].cancel(sent[0])?;
        assert_eq!(rig.ended(), Some((10, Some(ECANCELED))));
        rig.rx[1].cancel(received)?;
        assert_eq!(rig.ended(), Some((20, Some(ECANCELED))));
        assert_eq!(rig.tx[0].cancel(sent[0]), Err(ENOENT));
        assert_eq!(counts(&rig.tx[0].side), (1, 0));
        rig.complete_all();
        Ok(())
    }

    #[test]
    fn context_that_closes_ends_its_own_and_no_others() -> Result {
        let rig = Rig::new()?;
        rig.send_all()?;
        for (context, rx) in (20..).zip(&rig.rx) {
            rx.recv(Buffer::empty(), context)?;
        }
        rig.tx[0].side.stop(&rig.tx[0].whole);
        assert_eq!(rig.ended(), Some((10, Some(ECANCELED))));
        rig.rx[1].side.stop(&rig.rx[1].whole);
        assert_eq!(rig.ended(), Some((21, Some(ECANCELED))));
        assert!(rig.ended().is_none());
        // What had met the provider goes on, and the other's fence is none of theirs.
        let mut kept = rig.opened.desk.take();
        assert_eq!(kept.len(), 2);
        while let Some(op) = kept.pop() {
            op.complete(done(0));
        }
        assert_eq!(rig.ended(), Some((0, None)));
        assert_eq!(rig.ended(), Some((1, None)));
        rig.complete_all();
        assert_eq!(rig.ended(), Some((11, None)));
        assert!(rig.ended().is_none());
        assert_eq!(rig.rx[0].side.in_flight(), (0, 1));
        Ok(())
    }

    #[test]
    fn endpoint_of_one_context_of_each_kind_is_both() -> Result {
        let bench = Bench::new()?;
        let to = bench.peer()?;
        let sent = bench.ep.send(Buffer::empty(), to, Options::NONE, 1)?;
        let received = bench.ep.recv(Buffer::empty(), 2)?;
        assert_eq!(bench.ep.side.in_flight(), (1, 1));
        // The provider can't take it out again.
        assert_eq!(bench.ep.cancel(sent), Err(ENOENT));
        bench.ep.cancel(received)?;
        let ended = Err(Failure::not_executed(ECANCELED));
        assert_eq!(bench.ended(), Some((Kind::Recv, 2, ended)));
        bench.ep.side.stop(&bench.ep.whole);
        assert_eq!(bench.ended(), Some((Kind::Send, 1, ended)));
        assert_eq!(bench.ep.side.in_flight(), (0, 0));
        Ok(())
    }

    #[test]
    fn context_is_called_by_its_index_where_there_may_be_several() -> Result {
        let rig = Rig::new()?;
        let base = &rig.tx[0].whole.base;
        let alone = Own::default();
        assert!(*alone.parts(base, "tx", 0)?.1 == *c"tx");
        assert!(alone.kept()?.is_none());
        // One has to be free.
        let Rig { tx: [_, tx], .. } = rig;
        let whole = tx.whole.clone();
        drop(tx);
        let (index, taken) = whole.take(Contexts::Tx, 1)?;
        let own = Own {
            counters: None,
            taken: Some(taken),
        };
        assert!(*own.parts(&whole.base, "tx", index)?.1 == *c"tx-1");
        let kept = own.kept()?;
        assert!(kept.is_some());
        assert_eq!(whole.take(Contexts::Tx, 1).err(), Some(EBUSY));
        drop(kept);
        assert!(whole.take(Contexts::Tx, 1).is_ok());
        Ok(())
    }
}
