// SPDX-License-Identifier: GPL-2.0

//! Links: TCP connections to peers, and the socket at which peers make theirs.
//!
//! A link comes from the address at which its domain listens, and from another port.

use crate::address::{Address, Bytes};
use crate::door::{Net, Socket};
use core::net::SocketAddr;
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::info::Namespace;
use kfabric::provider::link::{Hold, IovIterDest, IovIterSource, Link, Links, Wake, MAX_ADDRESS};

const _: () = assert!(Address::MAX <= MAX_ADDRESS);

/// The links of a domain. Its network namespace stays as long as it does.
pub(crate) struct Tcp {
    listener: Socket,
    local: Address,
    bytes: Bytes,
    net: Net,
    has_sums: bool,
}

impl Tcp {
    /// Listens at an address of this host; port 0: any. `has_sums`: frames are to carry checksums. Process context,
    /// may sleep.
    ///
    /// # Errors
    /// - `EADDRINUSE`: another listens there.
    /// - `EADDRNOTAVAIL`: it is no address of this host.
    /// - `EAFNOSUPPORT`: there is no IPv6.
    /// - `EINVAL`: peers can't reach it, as 0.0.0.0.
    /// - `ENONET`: the namespace is gone.
    /// - `ENOMEM`; others that a bind gives.
    pub(crate) fn open(namespace: Namespace, at: SocketAddr, has_sums: bool) -> Result<Self> {
        let net = Net::find(namespace)?;
        let (listener, at) = Socket::listen(&net, at)?;
        let local = Address::new(at)?;
        Ok(Tcp {
            listener,
            local,
            bytes: local.emit(),
            net,
            has_sums,
        })
    }

    /// Where it listens.
    pub(crate) fn local(&self) -> &Address {
        &self.local
    }
}

impl Links for Tcp {
    fn address(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    fn has_sums(&self) -> bool {
        self.has_sums
    }

    /// Begins to make a link to that address.
    ///
    /// # Errors
    /// As [`Links::dial`], and what else a connect gives at once. `ENETUNREACH` also between IPv4 and
    /// IPv6.
    fn dial(&self, address: &[u8]) -> Result<Arc<dyn Link>> {
        let to = Address::parse(address)?;
        if !self.local.is_like(&to.addr()) {
            return Err(ENETUNREACH);
        }
        let socket = Socket::dial(&self.net, self.local.source(), to.addr())?;
        Ok(Stream::new(socket)?)
    }

    fn accept(&self) -> Result<Arc<dyn Link>> {
        Ok(Stream::new(self.listener.accept()?)?)
    }

    fn attach(&self, waker: Arc<dyn Wake>) {
        self.listener.attach(waker);
    }

    /// Takes no links any more: those that nobody has accepted are aborted.
    fn close(&self) {
        self.listener.close(false);
    }
}

/// A link: a TCP connection.
pub(crate) struct Stream(Socket);

impl Stream {
    fn new(socket: Socket) -> Result<Arc<Self>> {
        Ok(Arc::new(Stream(socket), GFP_KERNEL)?)
    }
}

impl Link for Stream {
    fn attach(&self, waker: Arc<dyn Wake>) {
        self.0.attach(waker);
    }

    fn is_up(&self) -> Result<bool> {
        self.0.is_up()
    }

    fn send(&self, from: &mut IovIterSource<'_>, more: bool) -> Result<usize> {
        self.0.send(from, more)
    }

    fn splice(
        &self,
        from: &mut IovIterSource<'_>,
        more: bool,
        hold: Hold,
    ) -> Result<Option<usize>> {
        self.0.splice(from, more, hold)
    }

    fn receive(&self, into: &mut IovIterDest<'_>) -> Result<usize> {
        self.0.receive(into)
    }

    fn close(&self, gently: bool) {
        self.0.close(gently);
    }
}

#[kunit_tests(kfi_tcp_links)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use kernel::sync::atomic::{Atomic, Relaxed};
    use kernel::time::delay::{fsleep, udelay};
    use kernel::time::{Delta, Instant, Monotonic};
    use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};
    use kfabric::provider::work::WorkQueue;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    /// How long a test waits for what is to happen soon: a host may be busy.
    const LIMIT_MS: i64 = 60_000;

    /// What is sent at once; no divisor of anything.
    const PIECE: usize = 4093;

    /// Counts how often it is woken.
    struct Bell(Atomic<usize>);

    impl Bell {
        fn new() -> Result<Arc<Self>> {
            Ok(Arc::new(Bell(Atomic::new(0)), GFP_KERNEL)?)
        }

        fn rings(&self) -> usize {
            self.0.load(Relaxed)
        }

        /// Waits until it has been woken more often than `before`.
        fn wait(&self, before: usize) -> Result {
            until(|| Ok((self.rings() > before).then_some(())))
        }
    }

    impl Wake for Bell {
        fn wake(&self) {
            self.0.add(1, Relaxed);
        }
    }

    /// Looks until there is something. `ETIME`: there was nothing for long.
    fn until<T>(mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let begin = Instant::<Monotonic>::now();
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if begin.elapsed().as_millis() > LIMIT_MS {
                return Err(ETIME);
            }
            fsleep(Delta::from_millis(1));
        }
    }

    /// `None` for `EAGAIN`.
    fn unless_again<T>(result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(EAGAIN) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Whether nobody else has a reference to it.
    fn is_alone<T: ?Sized>(arc: Arc<T>) -> bool {
        Arc::into_unique_or_drop(arc).is_some()
    }

    fn listen(ip: IpAddr) -> Result<Tcp> {
        Tcp::open(Namespace::initial(), SocketAddr::new(ip, 0), false)
    }

    /// Two domains, and a link from one to the other.
    struct Pair {
        alice: Arc<dyn Link>,
        bob: Arc<dyn Link>,
        _links: [Tcp; 2],
    }

    fn pair(ip: IpAddr) -> Result<Pair> {
        let links = [listen(ip)?, listen(ip)?];
        let alice = links[0].dial(links[1].address())?;
        let bob = until(|| unless_again(links[1].accept()))?;
        until(|| Ok(alice.is_up()?.then_some(())))?;
        Ok(Pair {
            alice,
            bob,
            _links: links,
        })
    }

    /// The byte at `at` of what is sent.
    fn byte(at: usize) -> u8 {
        (at ^ (at >> 8) ^ (at >> 16)) as u8
    }

    /// Sends bytes from `at` up to `end`, as many as go at once. Where it got.
    fn send(link: &dyn Link, mut at: usize, end: usize) -> Result<usize> {
        let mut piece = KVec::from_elem(0, PIECE, GFP_KERNEL)?;
        while at < end {
            let len = PIECE.min(end - at);
            for (offset, to) in piece[..len].iter_mut().enumerate() {
                *to = byte(at + offset);
            }
            match unless_again(link.send_bytes(&piece[..len], at + len < end))? {
                Some(sent) => at += sent,
                None => break,
            }
        }
        Ok(at)
    }

    /// Receives from `at` on what is there, and compares it. Where it got, and whether it was the end.
    fn receive(link: &dyn Link, mut at: usize) -> Result<(usize, bool)> {
        let mut piece = KVec::from_elem(0, PIECE + 1, GFP_KERNEL)?;
        while let Some(len) = unless_again(link.receive_bytes(&mut piece))? {
            if len == 0 {
                return Ok((at, true));
            }
            for (offset, found) in piece[..len].iter().enumerate() {
                if *found != byte(at + offset) {
                    return Err(EBADMSG);
                }
            }
            at += len;
        }
        Ok((at, false))
    }

    /// The most that [`fill`] sends.
    const MOST: usize = 64 << 20;

    /// Sends until no more is taken. How many bytes went. `ETIME`: it takes all.
    fn fill(link: &dyn Link) -> Result<usize> {
        let sent = send(link, 0, MOST)?;
        if sent < MOST {
            Ok(sent)
        } else {
            Err(ETIME)
        }
    }

    /// Fills the way, then carries 1 MiB more over it, waiting for room by the bell of the sender alone.
    fn carry(from: &dyn Link, to: &dyn Link, bell: &Bell) -> Result<usize> {
        let mut rings = bell.rings();
        let mut sent = fill(from)?;
        let (mut received, end) = (0, sent + (1 << 20));
        loop {
            received = until(|| {
                let (at, ended) = receive(to, received)?;
                received = at;
                match ended {
                    true => Err(EPIPE),
                    false => Ok((at == sent).then_some(at)),
                }
            })?;
            if received == end {
                return Ok(end);
            }
            bell.wait(rings)?;
            rings = bell.rings();
            sent = send(from, sent, end)?;
        }
    }

    /// Why it is broken, once it is.
    fn broken(link: &dyn Link) -> Result<Error> {
        until(|| Ok(link.is_up().err()))
    }

    /// Gives what should not happen some time to do so.
    fn pause() {
        fsleep(Delta::from_millis(50));
    }

    #[test]
    fn dialled_link_comes_up_on_both_sides_and_wakes() -> Result {
        for ip in [V4, V6] {
            let (here, there) = (listen(ip)?, listen(ip)?);
            let (door_bell, bell) = (Bell::new()?, Bell::new()?);
            there.attach(door_bell.clone());
            assert_eq!(there.accept().err(), Some(EAGAIN));
            let alice = here.dial(there.address())?;
            alice.attach(bell.clone());
            door_bell.wait(0)?;
            let bob = until(|| unless_again(there.accept()))?;
            until(|| Ok(alice.is_up()?.then_some(())))?;
            assert_eq!(bob.is_up(), Ok(true));
            assert_eq!(there.accept().err(), Some(EAGAIN));
            assert_eq!(alice.receive_bytes(&mut [0]), Err(EAGAIN));
            assert_eq!(bob.receive_bytes(&mut [0]), Err(EAGAIN));
        }
        Ok(())
    }

    #[test]
    fn bytes_go_both_ways_in_order_and_room_wakes() -> Result {
        for ip in [V4, V6] {
            let pair = pair(ip)?;
            let bells = [Bell::new()?, Bell::new()?];
            pair.alice.attach(bells[0].clone());
            pair.bob.attach(bells[1].clone());
            let there = carry(&*pair.alice, &*pair.bob, &bells[0])?;
            let back = carry(&*pair.bob, &*pair.alice, &bells[1])?;
            pr_info!("{there} bytes went there, and {back} back\n");
        }
        Ok(())
    }

    #[test]
    fn bytes_that_come_wake() -> Result {
        let pair = pair(V4)?;
        let bell = Bell::new()?;
        pair.bob.attach(bell.clone());
        for at in 0..3 {
            let rings = bell.rings();
            assert_eq!(send(&*pair.alice, at, at + 1), Ok(at + 1));
            bell.wait(rings)?;
            assert_eq!(receive(&*pair.bob, at), Ok((at + 1, false)));
        }
        Ok(())
    }

    #[test]
    fn end_is_seen_after_all_bytes() -> Result {
        let Pair { alice, bob, _links } = pair(V4)?;
        let bell = Bell::new()?;
        bob.attach(bell.clone());
        let sent = send(&*alice, 0, 100_000)?;
        alice.close(true);
        alice.close(true);
        drop(alice);
        bell.wait(0)?;
        let mut received = 0;
        until(|| {
            let (at, ended) = receive(&*bob, received)?;
            received = at;
            Ok(ended.then_some(()))
        })?;
        assert_eq!(received, sent);
        assert_eq!(bob.receive_bytes(&mut [0]), Ok(0));
        bob.close(true);
        Ok(())
    }

    #[test]
    fn gentle_close_loses_nothing_though_bytes_come_that_nobody_reads() -> Result {
        let Pair { alice, bob, _links } = pair(V4)?;
        let bell = Bell::new()?;
        alice.attach(bell.clone());
        send(&*bob, 0, PIECE)?;
        bell.wait(0)?;
        // More than the peer has room for, so that some of it is still here.
        let sent = fill(&*alice)?;
        alice.close(true);
        drop(alice);
        send(&*bob, PIECE, 2 * PIECE)?;
        pause();
        let mut received = 0;
        until(|| {
            received = receive(&*bob, received)?.0;
            Ok((received == sent).then_some(()))
        })?;
        // It was let go of with bytes unread: that may be answered by a reset.
        let end = until(|| {
            unless_again(bob.receive_bytes(&mut [0])).or_else(|error| match error {
                ECONNRESET | EPIPE => Ok(Some(0)),
                other => Err(other),
            })
        })?;
        assert_eq!(end, 0);
        Ok(())
    }

    #[test]
    fn abort_breaks_the_peers_side_for_good() -> Result {
        for closed in [true, false] {
            let Pair { alice, bob, _links } = pair(V4)?;
            let bell = Bell::new()?;
            bob.attach(bell.clone());
            if closed {
                alice.close(false);
                alice.close(false);
                alice.close(true);
                assert_eq!(alice.is_up(), Err(ECONNABORTED));
                assert!(alice.send_bytes(&[0], false).is_err());
                assert!(alice.receive_bytes(&mut [0]).is_err());
            }
            drop(alice);
            bell.wait(0)?;
            assert_eq!(broken(&*bob), Ok(ECONNRESET));
            for _ in 0..2 {
                assert_eq!(bob.receive_bytes(&mut [0]), Err(ECONNRESET));
                assert_eq!(bob.send_bytes(&[0], false), Err(ECONNRESET));
                assert_eq!(bob.is_up(), Err(ECONNRESET));
            }
        }
        Ok(())
    }

    #[test]
    fn dial_to_where_nobody_listens_is_refused() -> Result {
        for ip in [V4, V6] {
            let (here, there) = (listen(ip)?, listen(ip)?);
            let address = there.local().emit();
            drop(there);
            let link = here.dial(address.as_slice())?;
            let bell = Bell::new()?;
            link.attach(bell.clone());
            assert_eq!(broken(&*link), Ok(ECONNREFUSED));
            assert_eq!(link.is_up(), Err(ECONNREFUSED));
            drop(link);
            assert!(is_alone(bell));
        }
        Ok(())
    }

    #[test]
    fn nobody_is_woken_after_a_close() -> Result {
        for gently in [false, true] {
            let Pair { alice, bob, _links } = pair(V4)?;
            let bell = Bell::new()?;
            alice.attach(bell.clone());
            send(&*bob, 0, PIECE)?;
            bell.wait(0)?;
            alice.close(gently);
            let rings = bell.rings();
            // It has gone already if it was aborted.
            let sent = send(&*bob, PIECE, 2 * PIECE);
            assert!(sent.is_ok() || !gently);
            bob.close(false);
            pause();
            assert_eq!(bell.rings(), rings);
            assert!(is_alone(bell));
            // Who comes too late is let go of at once.
            let late = Bell::new()?;
            alice.attach(late.clone());
            assert!(is_alone(late));
        }
        Ok(())
    }

    #[test]
    fn second_waker_is_woken_instead_of_the_first() -> Result {
        let pair = pair(V4)?;
        let (first, second) = (Bell::new()?, Bell::new()?);
        pair.bob.attach(first.clone());
        send(&*pair.alice, 0, 1)?;
        first.wait(0)?;
        pair.bob.attach(second.clone());
        let rings = first.rings();
        send(&*pair.alice, 1, 2)?;
        second.wait(0)?;
        assert_eq!(first.rings(), rings);
        assert!(is_alone(first));
        drop(pair);
        assert!(is_alone(second));
        Ok(())
    }

    /// Takes its time to be woken.
    struct Slow {
        /// How many wake it just now.
        inside: Atomic<i32>,
    }

    impl Wake for Slow {
        fn wake(&self) {
            self.inside.add(1, Relaxed);
            udelay(Delta::from_micros(500));
            self.inside.add(-1, Relaxed);
        }
    }

    /// Sends a byte now and then, until it is told to stop.
    #[pin_data]
    struct Sender {
        link: Arc<dyn Link>,
        stop: Atomic<i32>,
        #[pin]
        work: Work<Sender>,
    }

    impl_has_work! {
        impl HasWork<Self> for Sender { self.work }
    }

    impl WorkItem for Sender {
        type Pointer = Arc<Sender>;

        fn run(this: Arc<Sender>) {
            while this.stop.load(Relaxed) == 0 {
                // In the end there is no peer any more.
                let _ = this.link.send_bytes(&[0], false);
                fsleep(Delta::from_micros(100));
            }
        }
    }

    /// Stops it, however a test ends.
    struct Stop(Arc<Sender>);

    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.stop.store(1, Relaxed);
        }
    }

    #[test]
    fn who_is_let_go_of_is_not_being_woken() -> Result {
        const ROUNDS: usize = 50;

        let Pair { alice, bob, _links } = pair(V4)?;
        // Waits for the sender, and so is dropped after it was stopped.
        let queue = WorkQueue::unlisted(c"kfi_tcp_kunit")?;
        let sender = Arc::pin_init(
            pin_init!(Sender {
                link: alice,
                stop: Atomic::new(0),
                work <- new_work!("kfi_tcp_kunit"),
            }),
            GFP_KERNEL,
        )?;
        queue.enqueue(sender.clone());
        let _stop = Stop(sender);
        let mut caught = 0;
        for round in 1..=ROUNDS {
            let inside = Atomic::new(0);
            let slow = Arc::new(Slow { inside }, GFP_KERNEL)?;
            bob.attach(slow.clone());
            unless_again(bob.receive_bytes(&mut [0; 64]))?;
            // On another CPU it is seen at its work, which sleeping would miss.
            let mut looks = 0..5000;
            while slow.inside.load(Relaxed) == 0 && looks.next().is_some() {
                udelay(Delta::from_micros(10));
            }
            caught += slow.inside.load(Relaxed).min(1);
            if round < ROUNDS {
                bob.attach(Bell::new()?);
            } else {
                bob.close(false);
            }
            assert_eq!(slow.inside.load(Relaxed), 0);
            assert!(is_alone(slow));
        }
        pr_info!("{caught} of {ROUNDS} were let go of while woken\n");
        Ok(())
    }

    #[test]
    fn closed_listener_breaks_what_nobody_has_accepted() -> Result {
        let (here, there) = (listen(V4)?, listen(V4)?);
        let bell = Bell::new()?;
        there.attach(bell.clone());
        let link = here.dial(there.address())?;
        bell.wait(0)?;
        until(|| Ok(link.is_up()?.then_some(())))?;
        there.close();
        let rings = bell.rings();
        assert_eq!(broken(&*link), Ok(ECONNRESET));
        assert_eq!(there.accept().err(), Some(EINVAL));
        let late = here.dial(there.address())?;
        assert_eq!(broken(&*late), Ok(ECONNREFUSED));
        assert_eq!(bell.rings(), rings);
        assert!(is_alone(bell));
        Ok(())
    }

    #[test]
    fn what_is_no_address_here_is_refused() -> Result {
        let (v4, v6) = (listen(V4)?, listen(V6)?);
        assert_eq!(v4.dial(&[]).err(), Some(EINVAL));
        assert_eq!(v4.dial(&[0; Address::MAX]).err(), Some(EINVAL));
        assert_eq!(v4.dial(v6.address()).err(), Some(ENETUNREACH));
        assert_eq!(v6.dial(v4.address()).err(), Some(ENETUNREACH));
        let taken = Tcp::open(Namespace::initial(), v4.local().addr(), false);
        assert_eq!(taken.err(), Some(EADDRINUSE));
        let foreign = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(listen(foreign).err(), Some(EADDRNOTAVAIL));
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        assert_eq!(listen(any).err(), Some(EINVAL));
        Ok(())
    }
}
