// SPDX-License-Identifier: GPL-2.0

//! The lanes of an endpoint, and the receive contexts that messages over links are for.

use kernel::prelude::*;

#[kunit_tests(kfabric_rdm_lanes)]
mod lanes {
    use super::super::super::super::link::{in_lane, lane_of, service_at};
    use super::super::super::super::testing::{
        brings, check, name, pattern, Bench, Script, Side, A, PATIENCE_MS, SMALL, SOON, STILL,
    };
    use crate::av::{Address, Name};
    use crate::cq::CompletionQueue;
    use crate::endpoint::{RxContext, ScalableEndpoint, TxContext};
    use crate::info::Info;
    use crate::memory::Memory;
    use crate::op::{Buffer, Kind, Options};
    use crate::proto::wire::{Errno, Flags, Header, Kind as Frame};
    use kernel::prelude::*;

    /// A scalable endpoint beside another.
    // In the order in which they go.
    struct Many {
        tx: KVec<TxContext<u64>>,
        rx: KVec<RxContext<u64>>,
        endpoint: ScalableEndpoint,
        cq: CompletionQueue<u64>,
    }

    impl Many {
        fn new(info: &Info, side: &Side) -> Result<Self> {
            let info = info.with_contexts(2, 2);
            let cq = CompletionQueue::new(&side.domain, 4 * 256, None)?;
            let endpoint = ScalableEndpoint::builder(&side.domain, &info);
            let endpoint = endpoint.av(&side.av).open()?;
            let (mut tx, mut rx) = (KVec::new(), KVec::new());
            for index in 0..2 {
                tx.push(endpoint.tx_context(index).cq(&cq).enable()?, GFP_KERNEL)?;
                rx.push(endpoint.rx_context(index).cq(&cq).enable()?, GFP_KERNEL)?;
            }
            Ok(Many {
                tx,
                rx,
                endpoint,
                cq,
            })
        }

        /// Has a small message go by a transmit context, to another side's endpoint.
        #[track_caller]
        fn reaches(&self, tx: usize, other: &Side, to: Address) -> Result {
            other.ep.recv(Memory::zeroed(SMALL)?, 900)?;
            self.tx[tx].send(pattern(SMALL, 901)?, to, Options::NONE, 901)?;
            check(brings(other.went_well(Kind::Recv, 900)?, 901))?;
            check(self.cq.read_wait(PATIENCE_MS)?.result.is_ok())
        }
    }

    #[test]
    fn each_lane_has_a_session_of_its_own() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, to_b, _) = bench.pair()?;
        let many = Many::new(&bench.info, &a)?;
        let dials = bench.net.dials();
        for tx in [0, 1, 1, 0] {
            many.reaches(tx, &b, to_b)?;
        }
        check(bench.net.dials() == dials + 2)?;
        // Over the session of the first lanes, in the other direction too.
        let to_many = b.av.insert(&many.endpoint.name())?;
        for index in [1, 0] {
            many.rx[index].recv(Memory::zeroed(SMALL)?, 1)?;
            b.send(to_many.rx_context(index)?, 2)?;
            check(brings(many.cq.read_wait(PATIENCE_MS)?.buffer, 2))?;
            b.went_well(Kind::Send, 2)?;
        }
        check(bench.net.dials() == dials + 2)?;
        drop((many, a, b));
        bench.close()
    }

    /// Whatever its worker was doing when it closed, and however soon it opens again.
    #[test]
    fn end_of_a_context_is_none_of_what_it_posts_when_it_opens_again() -> Result {
        let bench = Bench::new(STILL)?;
        let (a, b, to_b, _) = bench.pair()?;
        let mut many = Many::new(&bench.info, &a)?;
        let to_many = b.av.insert(&many.endpoint.name())?;
        many.reaches(0, &b, to_b)?;
        b.ep.recv(Memory::zeroed(SMALL)?, 1)?;
        let shut = bench.net.shut(A);
        // Its worker acknowledges a message, or tries to.
        many.rx[0].recv(Memory::zeroed(SMALL)?, 2)?;
        b.send(to_many, 3)?;
        // Not waited for at the queue: who does would do the worker's work, and not come back.
        shut.await_worker()?;
        let received = many.cq.read().ok_or(ENOENT)?;
        check(brings(received.buffer, 3))?;
        check(many.tx.remove(0)?.close().is_ok())?;
        let again = many.endpoint.tx_context(0).cq(&many.cq).enable()?;
        again.send(pattern(SMALL, 4)?, to_b, Options::NONE, 5)?;
        drop(shut);
        let done = many.cq.read_wait(PATIENCE_MS)?;
        check(done.context == 5 && done.result.is_ok())?;
        check(b.gather(2)?.iter().all(|(.., status)| status.is_ok()))?;
        drop((again, many, a, b));
        bench.close()
    }

    #[test]
    fn lane_is_in_the_name_and_the_endpoint_too() -> Result {
        for whole in [name(b'a', 7)?, service_at(b"address")?] {
            check(in_lane(&whole, 0)? == whole)?;
            for lane in [1, 63, 255] {
                let own = in_lane(&whole, lane)?;
                check(own != whole && lane_of(&own) == Some((lane, whole)))?;
            }
            check(in_lane(&whole, 256).is_err())?;
            check(lane_of(&whole) == Some((0, whole)))?;
        }
        // Nobody's lane.
        check(lane_of(&name(b'a', 1 << 56)?).is_none())?;
        check(lane_of(&Name::new(b"a")?).is_none())
    }

    #[test]
    fn what_waits_is_of_the_context_that_is_named() -> Result {
        let bench = Bench::new(SOON)?;
        let (a, b, ..) = bench.pair()?;
        let many = Many::new(&bench.info, &a)?;
        let to_many = b.av.insert(&many.endpoint.name())?;
        b.send(to_many.rx_context(1)?, 1)?;
        b.send(to_many, 2)?;
        many.rx[0].recv(Memory::zeroed(SMALL)?, 3)?;
        check(brings(many.cq.read_wait(PATIENCE_MS)?.buffer, 2))?;
        many.rx[1].recv(Memory::zeroed(SMALL)?, 4)?;
        check(brings(many.cq.read_wait(PATIENCE_MS)?.buffer, 1))?;
        for (_, _, status) in &b.gather(2)? {
            check(status.is_ok())?;
        }
        // One that it does not have harms nobody.
        b.send(to_many.rx_context(2)?, 3)?;
        b.failed(Kind::Send, 3, EINVAL)?;
        check(a.violations() == 0)?;
        b.send(to_many.rx_context(1)?, 4)?;
        many.rx[1].recv(Memory::zeroed(SMALL)?, 5)?;
        check(brings(many.cq.read_wait(PATIENCE_MS)?.buffer, 4))?;
        b.went_well(Kind::Send, 4)?;
        drop((many, a, b));
        bench.close()
    }

    /// The data of a write are not for the context of connection messages, whoever says so.
    #[test]
    fn data_for_no_context_of_the_consumer_are_refused() -> Result {
        let bench = Bench::new(SOON)?;
        let a = bench.side()?;
        let (region, remote) = a.region(64)?;
        let script = Script::dial(&bench.net, name(b'x', 1)?, &a.ep.name())?;
        script.meet(&a.ep.name())?;
        a.ep.recv(Buffer::empty(), 1)?;
        let mut header = Header::new(Frame::Write);
        (header.seq, header.op) = (1, 0);
        header.key = remote.slice(0, 8)?.key().raw();
        (header.total, header.data, header.context) = (8, 5, 0);
        header.flags = Flags::FIRST | Flags::LAST | Flags::DATA | Flags::ACK_NOW;
        script.say(&header, &[0xa5; 8])?;
        let (done, _) = script.await_kind(Frame::Done)?;
        check(done.op == 0 && done.code == Errno::EINVAL as u16)?;
        check(a.cq.read().is_none())?;
        drop((script, region, a));
        bench.close()
    }
}
