// SPDX-License-Identifier: GPL-2.0

//! The conversation with a peer: the protocol's machine, the link in use, and what is under way.

use super::super::engine;
use super::super::link::Link;
use super::guest::{Guest, Proxies};
use super::post::{meets_a_receive, Posted};
use super::receive::Reception;
use super::send::Transmission;
use super::share::Share;
use super::{Peer, Usage, Waker, FARTHEST, LATE};
use crate::av::Name;
use crate::cm::Message;
use crate::info::MAX_CONTEXTS;
use crate::op::Chain;
use crate::proto::flow::{Amount, Credit, Grant};
use crate::proto::peer::incoming::Incoming;
use crate::proto::peer::outgoing::Outgoing;
use crate::proto::peer::{self, Event, Parts, Settings, Storage};
use crate::proto::session::acks::Policy;
use crate::proto::session::past::Past;
use crate::proto::session::ring::Sent;
use crate::proto::session::{self, Accept, End, LinkId};
use crate::proto::wire::hello::{self, Limits, CAP_CRC};
use crate::proto::wire::{Hello, Reason};
use crate::provider::Match;
use crate::sys::work;
use kernel::prelude::*;
use kernel::sync::atomic::{Full, Relaxed};
use kernel::sync::{rcu, Arc};
use kernel::time::hrtimer::{ArcHrTimerHandle, HrTimerPointer};
use kernel::time::Delta;

/// How long an acknowledgement waits for a frame to go with.
const ACK_DELAY_NS: u64 = 1_000_000;

/// How long it waits for an answer that has come each time: a quarter of what TCP waits (TCP_DELACK_MIN).
const ANSWER_NS: u64 = 10_000_000;

/// What an endpoint tells its peers that it takes, if it has one receive context.
pub(in crate::rdm) const LIMITS: Limits = Limits {
    frame: 96 << 10,
    eager: 8 << 10,
    message: 1 << 30,
    ops: 128,
    contexts: 2,
};

/// The context of connection messages. The first: whoever has credit for what follows one has credit
/// for it, too.
pub(super) const LETTERS: u16 = 0;

/// The first of the consumer's receive contexts.
pub(super) const MESSAGES: u16 = 1;

/// Operations of this side that the machine knows of; the others wait before it.
pub(super) const OPS: usize = 128;

/// Frames that may wait to be acknowledged, beside those that the machine's rule asks for.
const FRAMES: usize = 128;

/// What a peer may send to a context that meets no receive.
const WINDOW: Amount = Amount::new(128, 256 << 10);

/// Frames that are received, or filled in to be sent, before the worker lets others run.
const BUDGET: usize = 64;

/// The machine's storage.
pub(super) struct Heap;

impl Storage for Heap {
    type Of<T> = KVVec<T>;
}

pub(super) type Machine = peer::Peer<Heap>;

/// The link that the machine uses.
pub(super) struct Current {
    pub(super) id: LinkId,
    pub(super) link: Arc<dyn Link>,
    /// Whether it is made.
    pub(super) up: bool,
    _open: engine::Open,
}

/// The conversation with a peer.
pub(super) struct Talk {
    // By itself: to be made, it is moved, and the stack is small.
    pub(super) machine: KBox<Machine>,
    pub(super) link: Option<Current>,
    /// Operations that wait for the machine to have room.
    pub(super) queued: Chain,
    /// Those of them that may have to wait for a receive of the peer, if no order holds the others
    /// back; and which of those in `posted` may.
    pub(super) messages: Share,
    /// Whether the next for the machine is one of `messages`, if both have one.
    pub(super) turn: bool,
    pub(super) posted: KVVec<Option<Posted>>,
    pub(super) guests: KVVec<Option<Guest>>,
    pub(super) proxies: Proxies,
    pub(super) reception: Reception,
    pub(super) transmission: Transmission,
    /// Room for connection messages out of the inbox.
    letters: KVec<Message>,
    /// Whether some were left in the inbox.
    letters_wait: bool,
    timer: Option<ArcHrTimerHandle<Peer>>,
    /// When the session was used last, and how far it was then.
    used: (u64, (u32, u32)),
    /// The session is over; another may begin once the goodbye was said, or something is posted.
    over: bool,
    /// What its end is called, once that has begun.
    pub(super) closing: Option<Error>,
    /// Whether this is the turn of a thread that waits for completions.
    by_hand: bool,
}

/// A machine for a peer that nothing has been said to since what is remembered. Sleeps. `ENOMEM`.
#[inline(never)]
pub(super) fn machine(engine: &engine::Shared, name: &Name, past: Past) -> Result<KBox<Machine>> {
    let wire = |name: &Name| hello::Name::new(name.as_bytes()).ok_or(EINVAL);
    let timeouts = engine.timeouts();
    let own = u16::try_from(engine.port().rx_contexts())?;
    let limits = Limits {
        contexts: MESSAGES + own,
        ..LIMITS
    };
    let settings = Settings {
        session: session::Settings {
            name: wire(engine.name_for(name))?,
            peer: wire(name)?,
            limits,
            caps: match engine.has_sums() {
                true => CAP_CRC,
                false => 0,
            },
            ping: timeouts.ping,
            dead: timeouts.dead,
            dial: timeouts.dial,
            resume: timeouts.resume,
            backoff: timeouts.backoff,
            acks: Policy {
                frames: 16,
                bytes: 128 << 10,
                delay: ACK_DELAY_NS,
                answer: ANSWER_NS,
            },
        },
        window: WINDOW,
        order: engine.order(),
    };
    let guests = usize::from(LIMITS.ops);
    let parts = Parts {
        ops: filled(OPS, Outgoing::vacant)?,
        incoming: filled(guests, Incoming::vacant)?,
        sent: filled(2 * guests + FRAMES, Sent::vacant)?,
        grants: filled(limits.contexts.into(), Grant::default)?,
        credits: filled(usize::from(MESSAGES) + MAX_CONTEXTS, Credit::default)?,
    };
    let room = KBox::new_uninit(GFP_KERNEL)?;
    match Machine::new(settings, past, parts) {
        Some(machine) => Ok(room.write(machine)),
        None => Err(EINVAL),
    }
}

/// A vector with `len` values that `make` makes.
fn filled<T>(len: usize, mut make: impl FnMut() -> T) -> Result<KVVec<T>> {
    let mut all = KVVec::with_capacity(len, GFP_KERNEL)?;
    for _ in 0..len {
        all.push(make(), GFP_KERNEL)?;
    }
    Ok(all)
}

impl Talk {
    #[inline(never)]
    pub(super) fn new(
        engine: &engine::Shared,
        name: &Name,
        number: u64,
        machine: KBox<Machine>,
    ) -> Result<Self> {
        let guests = usize::from(LIMITS.ops);
        Ok(Talk {
            machine,
            link: None,
            queued: Chain::new(),
            messages: Share::new()?,
            turn: false,
            posted: filled(OPS, || None)?,
            guests: filled(guests, || None)?,
            proxies: Proxies::new(name, number, engine.lane(), guests)?,
            reception: Reception::new()?,
            transmission: Transmission::new()?,
            letters: KVec::with_capacity(super::LETTERS, GFP_KERNEL)?,
            letters_wait: false,
            timer: None,
            used: (0, (0, 0)),
            over: false,
            closing: None,
            by_hand: false,
        })
    }

    /// As [`Talk::turn`], for a thread that waits for completions; `None`: the worker is to come.
    ///
    /// Such a thread makes no link. The socket would be of its control group, which would be charged for it, and filter
    /// what goes over it, for all who use the endpoint.
    pub(super) fn turn_by_hand(&mut self, peer: &Arc<Peer>) -> Option<bool> {
        self.link.as_ref()?;
        self.by_hand = true;
        let more = self.turn(peer);
        self.by_hand = false;
        (!self.machine.wants_link()).then_some(more)
    }

    /// Does what there is to do; whether the worker is to come again at once. Sleeps.
    pub(super) fn turn(&mut self, peer: &Arc<Peer>) -> bool {
        if self.closing.is_some() {
            return false;
        }
        let now = peer.engine.now();
        let rests = self.take_inbox(peer, now);
        self.take_ended();
        self.look_up(now);
        self.events(peer, now);
        let more = self.receive(peer, now, BUDGET);
        // After what has come: a worker that was held up must not take the peer for dead.
        self.machine.handle_timeout(now);
        // Before anything is submitted: what has ended makes room, and a session may be over.
        self.events(peer, now);
        self.submit(peer, now);
        self.events(peer, now);
        if rests && !self.has_queued() {
            // Not if it is used after all.
            self.machine.rest(now);
        }
        let goes_on = self.transmit(peer, now, BUDGET);
        self.events(peer, now);
        self.arm(peer, now);
        self.note_usage(peer, now);
        // What waits finds room, or begins another session, and nothing else would wake it.
        let waits = (self.over && self.has_queued())
            || (self.letters_wait && !self.machine.rests())
            || (self.machine.has_room() && self.next_is_message().is_some());
        more || goes_on || waits
    }

    /// Tells those who look for idle peers whether this is one.
    fn note_usage(&mut self, peer: &Arc<Peer>, now: u64) {
        let how_far = self.machine.how_far();
        let is_quiet = self.machine.is_quiet() && !self.has_queued();
        if how_far != self.used.1 || !is_quiet {
            self.used = (now, how_far);
        }
        let idle = self.is_idle().then(|| *self.machine.past());
        let usage = match self.machine.state() {
            _ if self.machine.rests() => Usage::Rests,
            // It is forgotten soon, and who wants to come meanwhile is not told that there is no room.
            _ if idle.is_some() => Usage::Rests,
            session::State::Closed(_) if !self.has_queued() => Usage::Rests,
            session::State::Open if is_quiet => Usage::Idle(self.used.0),
            _ => Usage::Busy,
        };
        peer.usage.store(usage.as_word(), Relaxed);
        // Where it is not, the inbox says so since it was taken from.
        if idle.is_some() {
            peer.inbox.lock().idle = idle;
            peer.engine.tidy_soon(true);
        }
    }

    /// Takes what others have left; whether the session is to end if nobody uses it.
    fn take_inbox(&mut self, peer: &Arc<Peer>, now: u64) -> bool {
        if self.machine.link().is_none() {
            // What is there may begin another session.
            self.begin_anew(peer, now);
        }
        let mut inbox = peer.inbox.lock();
        let (mut posts, mut pairs) = (inbox.posts.take(), inbox.pairs.take());
        let link = inbox.link.take();
        let cancels = core::mem::take(&mut inbox.cancels);
        let quits = core::mem::take(&mut inbox.quits);
        let rests = core::mem::take(&mut inbox.rests);
        inbox.idle = None;
        inbox.together = 0;
        let aside = inbox.aside.take();
        if let Some(queue) = &aside {
            // With the inbox locked: what is posted next is set aside anew. It would be a turn for nothing.
            queue.call_off(peer);
        }
        if core::mem::take(&mut inbox.late) {
            work::call_off_delayed::<_, LATE>(peer);
        }
        // They wait there for the answer, as what was posted does.
        let has_letters = !inbox.letters.is_empty() && !self.machine.rests();
        if has_letters {
            core::mem::swap(&mut inbox.letters, &mut self.letters);
        }
        self.letters_wait = !inbox.letters.is_empty();
        drop(inbox);
        drop(aside);
        if let Some((link, hello)) = link {
            self.greeted(peer, now, link, &hello);
        }
        // Before what was posted after them.
        if has_letters {
            self.write_letters(peer, now);
        }
        if quits {
            // Before what is taken in: all that was posted earlier had been, or has ended.
            self.quit(peer, ECANCELED);
        }
        while let Some(op) = posts.pop() {
            match meets_a_receive(&op) && peer.engine.order().is_none() {
                true => self.messages.push(op),
                false => self.queued.push(op),
            }
        }
        if cancels {
            self.cancel(peer);
        }
        while let Some((arrival, receive)) = pairs.pop().zip(pairs.pop()) {
            self.met(peer, Match::from_parts(arrival, receive));
        }
        rests
    }

    /// Hands the connection messages to the machine that were taken out of the inbox.
    #[cold]
    fn write_letters(&mut self, peer: &Arc<Peer>, now: u64) {
        let mut letters = core::mem::take(&mut self.letters);
        for message in &letters {
            self.write_letter(peer, now, *message);
        }
        letters.clear();
        self.letters = letters;
    }

    /// A peer has made a link and said who it is.
    fn greeted(&mut self, peer: &Arc<Peer>, now: u64, link: Arc<dyn Link>, hello: &Hello) {
        match self.machine.accept(now, hello) {
            Ok(Accept::Take(id, _)) => {
                // The one before it is closed by this.
                self.events(peer, now);
                if self.machine.link() != Some(id) {
                    return link.close(false);
                }
                if self.attach(peer, &link).is_err() {
                    self.machine.link_lost(now, id);
                    return link.close(false);
                }
                self.link = Some(Current {
                    id,
                    link,
                    up: true,
                    _open: engine::Open::new(&peer.engine),
                });
                self.reception.reset();
                self.transmission.reset();
            }
            Ok(Accept::Refuse(reason)) => {
                if let Some(reason) = reason {
                    super::send::part(&*link, reason);
                }
                link.close(true);
            }
            Err(violation) => {
                peer.engine.count(violation);
                link.close(false);
            }
        }
    }

    /// Has the link wake the peer's worker.
    fn attach(&self, peer: &Arc<Peer>, link: &Arc<dyn Link>) -> Result {
        link.attach(Arc::new(Waker(peer.clone()), GFP_KERNEL)?);
        Ok(())
    }

    /// Looks whether the link that was asked for is made.
    fn look_up(&mut self, now: u64) {
        let Some(current) = &mut self.link else {
            return;
        };
        if current.up {
            return;
        }
        match current.link.is_up() {
            Ok(true) => {
                current.up = true;
                self.machine.link_up(current.id);
            }
            Ok(false) => {}
            Err(error) => {
                self.lose(now);
                self.missed(now, error);
            }
        }
    }

    /// The link is broken.
    pub(super) fn lose(&mut self, now: u64) {
        if let Some(current) = self.link.take() {
            current.link.close(false);
            self.machine.link_lost(now, current.id);
        }
        self.reception.reset();
        self.transmission.reset();
    }

    /// Does what the machine says.
    pub(super) fn events(&mut self, peer: &Arc<Peer>, now: u64) {
        let next = |talk: &mut Self| match talk.by_hand {
            true => talk.machine.poll_event_but_dial(),
            false => talk.machine.poll_event(),
        };
        while let Some(event) = next(self) {
            match event {
                Event::Dial(id) if self.closing.is_some() => self.machine.link_lost(now, id),
                Event::Dial(id) => self.dial(peer, now, id),
                Event::CloseLink(id) => self.close_link(peer, id),
                Event::Opened { .. } => {
                    self.used.0 = now;
                    peer.engine.peer_stats().links.add(1);
                }
                Event::Ended {
                    op,
                    command,
                    verdict,
                } => self.ended(peer, op, &command, verdict),
                Event::Released(token) => self.released(peer, token),
                Event::Over(end) => {
                    self.over = true;
                    if let End::Timeout { .. } = end {
                        // What waited behind the others has waited as long.
                        let error = peer.engine.port().lost();
                        peer.engine.end_all(&mut self.queued, error);
                        peer.engine
                            .end_all(&mut self.messages.extract(|_| true), error);
                    }
                    // Who has nothing to say is not gone.
                    if end == End::Idle {
                        peer.engine.peer_stats().idle.add(1);
                    } else {
                        let section = rcu::read_lock();
                        peer.engine.port().peer_is_gone(peer.number);
                        drop(section);
                    }
                }
            }
        }
    }

    fn dial(&mut self, peer: &Arc<Peer>, now: u64, id: LinkId) {
        let dialled = peer.engine.dial(&peer.name).and_then(|link| {
            self.attach(peer, &link)
                .map(|()| link.clone())
                .inspect_err(|_| link.close(false))
        });
        match dialled {
            Ok(link) => {
                self.reception.reset();
                self.transmission.reset();
                self.link = Some(Current {
                    id,
                    link,
                    up: false,
                    _open: engine::Open::new(&peer.engine),
                });
                // It may have been made before the waker was there.
                self.look_up(now);
            }
            Err(error) => {
                self.machine.link_lost(now, id);
                self.missed(now, error);
            }
        }
    }

    /// A link could not be made. A peer that was never there is not waited for, if it is known that
    /// nobody listens there, or that no way leads there.
    fn missed(&mut self, now: u64, error: Error) {
        if matches!(
            error,
            ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | EINVAL | EAFNOSUPPORT
        ) {
            self.machine.refused(now);
        }
    }

    /// Closes a link that the machine has given up, after what was to be sent over it.
    fn close_link(&mut self, peer: &Peer, id: LinkId) {
        if self.link.as_ref().is_none_or(|current| current.id != id) {
            return;
        }
        if let Some(current) = self.link.take() {
            let flushed = current.up && self.flush_last(peer, &*current.link);
            current.link.close(flushed);
        }
        self.reception.reset();
        self.transmission.reset();
    }

    /// After the end of a session, has another begin with what is submitted.
    pub(super) fn begin_anew(&mut self, peer: &Arc<Peer>, now: u64) {
        if core::mem::take(&mut self.over) {
            self.machine.reopen(now);
            self.events(peer, now);
        }
    }

    /// Whether there is no session and no link, and nothing under way, of either side.
    fn is_idle(&self) -> bool {
        use session::State;
        matches!(self.machine.state(), State::Idle | State::Closed(_))
            && self.machine.link().is_none()
            && self.link.is_none()
            && !self.has_queued()
            && self.posted.iter().all(Option::is_none)
            && self.guests.iter().all(Option::is_none)
    }

    /// Has the timer fire when the machine has something to do.
    fn arm(&mut self, peer: &Arc<Peer>, now: u64) {
        peer.turned.store(now, Relaxed);
        let Some(deadline) = self.machine.deadline() else {
            return;
        };
        // Before it is looked when that fires which is armed: see there.
        peer.deadline.xchg(deadline, Full);
        // One that fires earlier goes on until then.
        if self.timer.is_some() && (now + 1..=deadline).contains(&peer.armed.load(Relaxed)) {
            return;
        }
        self.timer = None;
        // A turn may take long.
        let now = peer.engine.now();
        let after = deadline.saturating_sub(now).clamp(1, FARTHEST);
        peer.armed.store(now.saturating_add(after), Relaxed);
        let timer = peer.clone().start(Delta::from_nanos(after as i64));
        self.timer = Some(timer);
    }

    /// Begins the end, with `error`: what has not begun ends, and what waits for a receive of the peer
    /// is to be withdrawn, so that it is known what became of it.
    ///
    /// Connection messages that wait still go.
    pub(super) fn begin_close(&mut self, peer: &Arc<Peer>, letters: KVec<Message>, error: Error) {
        self.closing = Some(error);
        self.quit(peer, error);
        let now = peer.engine.now();
        for message in letters {
            self.write_letter(peer, now, message);
        }
    }

    /// Goes on until it is known what became of everything that was posted, and the peer is told what
    /// became of its own; whether that is so, or never will be.
    pub(super) fn settle(&mut self, peer: &Arc<Peer>) -> bool {
        let now = peer.engine.now();
        self.machine.handle_timeout(now);
        self.take_ended();
        self.events(peer, now);
        self.receive(peer, now, BUDGET);
        self.events(peer, now);
        self.transmit(peer, now, BUDGET);
        self.events(peer, now);
        let is_told = self.transmission.is_empty() && self.machine.is_settled();
        is_told || self.machine.state() != session::State::Open
    }

    /// Ends it: says goodbye, and all that is still under way ends. Gives the timer, to be let go of.
    pub(super) fn close(
        &mut self,
        peer: &Arc<Peer>,
        error: Error,
    ) -> Option<ArcHrTimerHandle<Peer>> {
        let now = peer.engine.now();
        self.machine.close(
            now,
            match error {
                ENODEV => Reason::DeviceGone,
                _ => Reason::Closed,
            },
        );
        // The goodbye, before the link goes.
        self.transmit(peer, now, BUDGET);
        self.events(peer, now);
        self.lose(now);
        for place in self.guests.iter_mut() {
            if let Some(guest) = place.take() {
                guest.state.end(&peer.engine, error);
            }
        }
        self.timer.take()
    }
}
