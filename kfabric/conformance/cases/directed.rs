// SPDX-License-Identifier: GPL-2.0

//! Directed receives: those that take one peer's messages.

use crate::close::closed;
use crate::ops::{check_refused, data, error};
use crate::peer::Peer;
use crate::rig::{check_buffer, ended, pattern, timeout, with_sizes, End, Rig};
use crate::{cases, check, check_eq};
use kernel::prelude::*;
use kfabric::prelude::*;

cases! {
    directed_receive_takes_its_peers_messages: DIRECTED,
    directed_receive_leaves_what_others_sent: DIRECTED,
    message_takes_the_first_receive_that_is_for_its_sender: DIRECTED,
    directed_tagged_receive_takes_its_peers_tag: DIRECTED.union(Caps::TAGGED),
    receive_of_unspecified_source_takes_everybodys: DIRECTED.union(Caps::TAGGED),
    directed_receive_of_nobody_is_refused: DIRECTED,
    directed_receive_takes_its_own_endpoints_messages: DIRECTED,
    data_of_a_write_takes_a_receive_for_its_writer: DIRECTED.union(Caps::REMOTE_CQ_DATA),
    directed_receive_can_be_cancelled: DIRECTED,
    directed_receive_ends_with_its_endpoint_alone: DIRECTED,
    endpoint_without_directed_receives_refuses_them: DIRECTED,
}

const DIRECTED: Caps = Caps::MSG.union(Caps::DIRECTED_RECV);

/// A rig with another sender: A and C send to B.
// In boxes, which are moved where ends would fill the stack.
struct Three {
    rig: Rig,
    c: KBox<End>,
    /// B, as C knows it.
    c_to_b: Address,
    /// A and C, as B knows them.
    a: Address,
    from_c: Address,
}

impl Three {
    #[inline(never)]
    fn new(info: &Info) -> Result<Self> {
        let rig = Rig::new(info)?;
        let c = End::new(info, None)?;
        Ok(Three {
            c_to_b: c.av.insert(&rig.b.name())?,
            a: rig.to_a,
            from_c: rig.b.insert(&c.ep.name())?,
            rig,
            c,
        })
    }

    fn b(&self) -> &Peer {
        &self.rig.b
    }

    /// A or C, and B as it knows it.
    fn sender(&self, is_c: bool) -> (&End, Address) {
        match is_c {
            true => (&self.c, self.c_to_b),
            false => (&self.rig.a, self.rig.to_b),
        }
    }

    /// Has A or C send a pattern.
    fn send(&self, by_c: bool, len: usize, seed: u64, context: u64) -> Result {
        let (end, to) = self.sender(by_c);
        let (memory, options) = (pattern(len, seed)?, Options::default());
        end.ep.send(memory, to, options, context)?;
        Ok(())
    }

    /// Fails unless B has next received a message into that receive.
    #[track_caller]
    fn received(&self, context: u64, len: usize, seed: u64) -> Result {
        let done = self.b().next()?;
        check_eq!(ended(&done), (Kind::Recv, context, Ok(len)));
        check_buffer(done.buffer, len, seed)
    }

    /// Fails unless A or C has next sent that message.
    #[track_caller]
    fn sent(&self, by_c: bool, context: u64) -> Result {
        let done = self.sender(by_c).0.next()?;
        check_eq!(
            (done.kind, done.context, error(&done)),
            (Kind::Send, context, None)
        );
        Ok(())
    }

    fn close(self) -> Result {
        check!(self.c.cq.read().is_none());
        self.rig.quiet()?;
        self.c.close()?;
        self.rig.close()
    }
}

fn directed_receive_takes_its_peers_messages(info: &Info, seed: u64) -> Result {
    let three = Three::new(info)?;
    for len in [0, 100, 20_000] {
        for (context, from) in (0..).zip([three.a, three.from_c, three.a, three.from_c]) {
            three.b().recv_from(Memory::zeroed(len)?, from, context)?;
        }
        for (by_c, context) in [(true, 1), (true, 3), (false, 0), (false, 2)] {
            three.send(by_c, len, seed + context, 9)?;
            three.received(context, len, seed + context)?;
            three.sent(by_c, 9)?;
        }
    }
    three.close()
}

fn directed_receive_leaves_what_others_sent(info: &Info, seed: u64) -> Result {
    let three = Three::new(info)?;
    for len in [100, 20_000] {
        // They are here when A's is received, or come afterwards: it gets none of them.
        for n in 0..4 {
            three.send(true, len, seed + n, n)?;
        }
        three.b().recv_from(Memory::zeroed(len)?, three.a, 8)?;
        three.send(false, len, seed + 9, 9)?;
        three.received(8, len, seed + 9)?;
        three.sent(false, 9)?;
        for _ in 0..4 {
            let recv = three.b().recv_from(Memory::zeroed(len)?, three.from_c, 7);
            recv?;
            let done = three.b().next()?;
            check_eq!(ended(&done), (Kind::Recv, 7, Ok(len)));
            let sent = three.c.next()?;
            check_eq!(error(&sent), None);
            check_buffer(done.buffer, len, seed + sent.context)?;
        }
    }
    three.close()
}

fn message_takes_the_first_receive_that_is_for_its_sender(info: &Info, seed: u64) -> Result {
    let three = Three::new(info)?;
    let any = Address::UNSPECIFIED;
    let sources = [three.from_c, any, three.a, three.a, any, three.from_c];
    for (context, from) in (0..).zip(sources) {
        three.b().recv_from(Memory::zeroed(10)?, from, context)?;
    }
    for (by_c, context) in [
        (false, 1),
        (false, 2),
        (true, 0),
        (true, 4),
        (false, 3),
        (true, 5),
    ] {
        three.send(by_c, 10, seed + context, 9)?;
        three.received(context, 10, seed + context)?;
        three.sent(by_c, 9)?;
    }
    three.close()
}

fn directed_tagged_receive_takes_its_peers_tag(info: &Info, seed: u64) -> Result {
    let three = Three::new(info)?;
    let any = Address::UNSPECIFIED;
    // Who, the tag and the ignored bits; who sends which tag into it.
    let receives = [
        (three.from_c, 5, 0, true, 5),
        (three.a, 5, 0, false, 5),
        (three.a, 6, 1, false, 7),
        (any, 7, 0, true, 7),
        (three.from_c, 0, u64::MAX, true, 99),
        (any, 0, u64::MAX, false, 99),
    ];
    for (context, (from, tag, ignore, ..)) in (0..).zip(receives) {
        let memory = Memory::zeroed(10)?;
        three.b().trecv_from(memory, from, tag, ignore, context)?;
    }
    for (context, (.., by_c, tag)) in (0..).zip(receives) {
        let (end, to) = three.sender(by_c);
        let memory = pattern(10, seed + context)?;
        end.ep.tsend(memory, to, tag, Options::default(), 9)?;
        let done = three.b().next()?;
        check_eq!(
            (ended(&done), done.tag),
            ((Kind::Recv, context, Ok(10)), Some(tag))
        );
        check_buffer(done.buffer, 10, seed + context)?;
        three.sent(by_c, 9)?;
    }
    // What waits is found by its sender, too.
    for (context, by_c) in [(0, true), (1, false)] {
        let (end, to) = three.sender(by_c);
        let memory = pattern(10, seed + context)?;
        end.ep.tsend(memory, to, 3, Options::default(), 9)?;
    }
    for (context, from, ignore) in [(1, three.a, 0), (0, three.from_c, 3)] {
        let memory = Memory::zeroed(10)?;
        three.b().trecv_from(memory, from, 3, ignore, context)?;
        three.received(context, 10, seed + context)?;
        three.sent(context == 0, 9)?;
    }
    three.close()
}

fn receive_of_unspecified_source_takes_everybodys(info: &Info, seed: u64) -> Result {
    let three = Three::new(info)?;
    let any = Address::UNSPECIFIED;
    for by_c in [true, false] {
        three.b().recv_from(Memory::zeroed(10)?, any, 1)?;
        three.send(by_c, 10, seed, 2)?;
        three.received(1, 10, seed)?;
        three.sent(by_c, 2)?;
    }
    // To nobody goes nothing.
    let posted = three
        .rig
        .a
        .ep
        .send(pattern(10, seed)?, any, Options::default(), 3);
    check_buffer(check_refused(posted, EHOSTUNREACH, 3)?, 10, seed)?;
    three.close()
}

fn directed_receive_of_nobody_is_refused(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    rig.b.remove(rig.to_a)?;
    for from in [rig.to_a, Address::from_raw(u64::MAX - 1), Address::PEER] {
        let posted = rig.b.recv_from(pattern(10, seed)?, from, 1);
        check_buffer(check_refused(posted, EHOSTUNREACH, 1)?, 10, seed)?;
    }
    // Who has the address at the post is meant, whatever becomes of the address.
    let from = rig.b.insert(&rig.a.ep.name())?;
    rig.b.recv_from(Memory::zeroed(10)?, from, 2)?;
    rig.b.remove(from)?;
    rig.a
        .ep
        .send(pattern(10, seed)?, rig.to_b, Options::default(), 3)?;
    rig.passed(2, 3, Ok(10))?;
    rig.quiet()?;
    rig.close()
}

fn directed_receive_takes_its_own_endpoints_messages(info: &Info, seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let own = rig.b.insert(&rig.b.name())?;
    for (len, first) in [(10, true), (10, false), (50_000, true), (50_000, false)] {
        if first {
            rig.b.recv_from(Memory::zeroed(len)?, own, 1)?;
        }
        rig.a
            .ep
            .send(pattern(len, seed)?, rig.to_b, Options::default(), 3)?;
        rig.b
            .send(pattern(len, seed + 1)?, own, Options::default(), 2)?;
        if !first {
            rig.b.recv_from(Memory::zeroed(len)?, own, 1)?;
        }
        for done in rig.b.gather(2)? {
            check_eq!(done.result.map(|success| success.len), Ok(len));
            check_buffer(done.buffer, len, seed + 1)?;
        }
        rig.b.recv(Memory::zeroed(len)?, 4)?;
        rig.passed(4, 3, Ok(len))?;
    }
    rig.quiet()?;
    rig.close()
}

fn data_of_a_write_takes_a_receive_for_its_writer(info: &Info, seed: u64) -> Result {
    let three = Three::new(info)?;
    let (region, remote) = three.rig.region(64, Access::WRITE)?;
    let slice = remote.slice(0, 64)?;
    three.b().recv_from(Buffer::empty(), three.from_c, 1)?;
    three.b().recv_from(Buffer::empty(), three.a, 2)?;
    let a = &three.rig.a;
    a.ep.write(pattern(64, seed)?, three.rig.to_b, slice, data(7), 3)?;
    let told = three.b().next()?;
    check_eq!(ended(&told), (Kind::RemoteWrite, 2, Ok(64)));
    check_eq!(error(&a.next()?), None);
    three.send(true, 0, seed, 4)?;
    check_eq!(ended(&three.b().next()?), (Kind::Recv, 1, Ok(0)));
    three.sent(true, 4)?;
    drop(closed(region.close_wait(timeout()))?);
    three.close()
}

fn directed_receive_can_be_cancelled(info: &Info, seed: u64) -> Result {
    let three = Three::new(info)?;
    let mut ids = KVec::new();
    for (context, from) in (0..).zip([three.a, three.from_c, three.a]) {
        let id = three.b().recv_from(Memory::zeroed(10)?, from, context)?;
        ids.push(id, GFP_KERNEL)?;
    }
    three.b().cancel(ids[0])?;
    check_eq!(ended(&three.b().next()?), (Kind::Recv, 0, Err(ECANCELED)));
    check_eq!(three.b().cancel(ids[0]).err(), Some(ENOENT));
    for (by_c, context) in [(false, 2), (true, 1)] {
        three.send(by_c, 10, seed, 9)?;
        three.received(context, 10, seed)?;
        three.sent(by_c, 9)?;
    }
    three.close()
}

fn directed_receive_ends_with_its_endpoint_alone(info: &Info, seed: u64) -> Result {
    let three = Three::new(info)?;
    let b = three.b();
    b.recv_from(Memory::zeroed(10)?, three.from_c, 1)?;
    b.recv_from(Memory::zeroed(10)?, three.a, 2)?;
    three.send(true, 10, seed, 9)?;
    three.received(1, 10, seed)?;
    three.sent(true, 9)?;
    b.recv_from(Memory::zeroed(10)?, three.from_c, 3)?;
    let Three { rig, c, .. } = three;
    // That its peer goes does not end it: it can be cancelled, or waits for ever.
    c.close()?;
    check_eq!(rig.b.wait(20).err(), Some(ETIMEDOUT));
    let memory = pattern(10, seed)?;
    rig.a.ep.send(memory, rig.to_b, Options::default(), 4)?;
    rig.passed(2, 4, Ok(10))?;
    ends(rig.b)
}

/// Fails unless the one receive of an endpoint that closes ends with it.
#[inline(never)]
fn ends(peer: Peer) -> Result {
    let left = peer.close_endpoint()?;
    let done = left.poll()?.ok_or(ENOENT)?;
    check_eq!(ended(&done), (Kind::Recv, 3, Err(ECANCELED)));
    check!(left.poll()?.is_none());
    left.close()
}

fn endpoint_without_directed_receives_refuses_them(info: &Info, _seed: u64) -> Result {
    let rig = Rig::new(info)?;
    let cq = CompletionQueue::<u64>::new(&rig.b.here()?.domain, 4, None)?;
    let narrow = Info {
        caps: Caps::MSG,
        ..with_sizes(info, 2, 2)
    };
    let ep = rig.b.here()?.endpoint(&narrow, &cq)?;
    let posted = ep.recv_from(Buffer::empty(), rig.to_a, 1);
    check_eq!(check_refused(posted, EOPNOTSUPP, 1)?.len(), 0);
    // That is none.
    ep.recv_from(Buffer::empty(), Address::UNSPECIFIED, 2)?;
    closed(ep.close())?;
    check_eq!(
        ended(&cq.read().ok_or(ENOENT)?),
        (Kind::Recv, 2, Err(ECANCELED))
    );
    closed(cq.close())?;
    rig.close()
}
