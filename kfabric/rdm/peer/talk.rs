// SPDX-License-Identifier: GPL-2.0

//! The conversation with a peer: the protocol's machine, the link in use, and what is under way.

use super::super::engine;
use super::super::link::Link;
use super::super::verdict;
use super::guest::{let_go, tokened, Guest, Held, Proxies, State};
use super::receive::Reception;
use super::send::Transmission;
use super::share::{Places, Share};
use super::{Peer, Usage, Waker};
use crate::av::Name;
use crate::cm::Message;
use crate::info::MAX_CONTEXTS;
use crate::op::{Chain, Failure, Kind, Level, Op, Operation, Success};
use crate::proto::flow::{Amount, Credit, Grant};
use crate::proto::peer::command::{self, Command, Target, What as Does};
use crate::proto::peer::incoming::{Incoming, Token};
use crate::proto::peer::outgoing::Outgoing;
use crate::proto::peer::{self, Cancelled, Event, Parts, Refused, Settings, Storage};
use crate::proto::session::acks::Policy;
use crate::proto::session::past::Past;
use crate::proto::session::ring::Sent;
use crate::proto::session::{self, Accept, End, LinkId};
use crate::proto::wire::hello::{self, Limits, CAP_CRC, MIN_OPS};
use crate::proto::wire::verdict::Verdict;
use crate::proto::wire::{self, Errno, Hello, Reason};
use crate::provider::Match;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::{rcu, Arc};
use kernel::time::hrtimer::{ArcHrTimerHandle, HrTimerPointer};
use kernel::time::Delta;

/// How long an acknowledgement waits for a frame to go with.
const ACK_DELAY_NS: u64 = 1_000_000;

/// What an endpoint tells its peers that it takes, if it has one receive context.
pub(super) const LIMITS: Limits = Limits {
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
const OPS: usize = 128;

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

/// What was posted, and the machine knows of.
struct Posted {
    number: command::Op,
    what: What,
}

/// What was posted.
enum What {
    Operation(Operation),
    Letter(KBox<Message>),
}

/// The conversation with a peer.
pub(super) struct Talk {
    pub(super) machine: Machine,
    pub(super) link: Option<Current>,
    /// Operations that wait for the machine to have room.
    queued: Chain,
    /// Those of them that may have to wait for a receive of the peer, if no order holds the others
    /// back; and which of those in `posted` may.
    messages: Share,
    /// Whether the next for the machine is one of `messages`, if both have one.
    turn: bool,
    posted: KVVec<Option<Posted>>,
    guests: KVVec<Option<Guest>>,
    pub(super) proxies: Proxies,
    pub(super) reception: Reception,
    pub(super) transmission: Transmission,
    timer: Option<(u64, ArcHrTimerHandle<Peer>)>,
    /// When the session was used last, and how far it was then.
    used: (u64, (u32, u32)),
    /// The session is over; another may begin once the goodbye was said, or something is posted.
    over: bool,
    /// What its end is called, once that has begun.
    closing: Option<Error>,
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
    pub(super) fn new(
        engine: &engine::Shared,
        name: &Name,
        number: u64,
        past: Past,
    ) -> Result<Self> {
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
        Ok(Talk {
            machine: Machine::new(settings, past, parts).ok_or(EINVAL)?,
            link: None,
            queued: Chain::new(),
            messages: Share::new()?,
            turn: false,
            posted: filled(OPS, || None)?,
            guests: filled(guests, || None)?,
            proxies: Proxies::new(name, number, engine.lane(), guests)?,
            reception: Reception::new()?,
            transmission: Transmission::new()?,
            timer: None,
            used: (0, (0, 0)),
            over: false,
            closing: None,
        })
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
        let has_letters = self.note_usage(peer, now);
        // What waits finds room, or begins another session, and nothing else would wake it.
        let waits = (self.over && self.has_queued())
            || (has_letters && !self.machine.rests())
            || (self.machine.has_room() && self.next_is_message().is_some());
        more || goes_on || waits
    }

    /// Tells those who look for idle peers whether this is one; whether there are connection messages for it.
    fn note_usage(&mut self, peer: &Arc<Peer>, now: u64) -> bool {
        let how_far = self.machine.how_far();
        let is_quiet = self.machine.is_quiet() && !self.has_queued();
        if how_far != self.used.1 || !is_quiet {
            self.used = (now, how_far);
        }
        let usage = match self.machine.state() {
            _ if self.machine.rests() => Usage::Rests,
            session::State::Open if is_quiet => Usage::Idle(self.used.0),
            _ => Usage::Busy,
        };
        peer.usage.store(usage.as_word(), Relaxed);
        let idle = self.is_idle().then(|| *self.machine.past());
        let mut inbox = peer.inbox.lock();
        inbox.idle = idle;
        let has_letters = !inbox.letters.is_empty();
        drop(inbox);
        if idle.is_some() {
            peer.engine.tidy_soon(true);
        }
        has_letters
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
        let mut letters = [const { None::<Message> }; super::LETTERS];
        // They wait there for the answer, as what was posted does.
        if !self.machine.rests() {
            for (to, letter) in letters.iter_mut().zip(inbox.letters.iter()) {
                *to = Some(*letter);
            }
            inbox.letters.clear();
        }
        drop(inbox);
        if let Some((link, hello)) = link {
            self.greeted(peer, now, link, &hello);
        }
        // Before what was posted after them.
        for message in letters.into_iter().flatten() {
            self.write_letter(peer, now, message);
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
        if quits {
            self.quit(peer, ECANCELED);
        }
        while let Some((arrival, receive)) = pairs.pop().zip(pairs.pop()) {
            self.met(peer, Match::from_parts(arrival, receive));
        }
        rests
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
        while let Some(event) = self.machine.poll_event() {
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

    /// Hands operations to the machine, as long as it takes them.
    fn submit(&mut self, peer: &Arc<Peer>, now: u64) {
        if self.machine.link().is_none() || self.has_queued() {
            self.begin_anew(peer, now);
        }
        while self.machine.has_room() {
            let Some(op) = self.next_post() else { break };
            if let Err(error) = probe(&op) {
                let status = Err(Failure::not_executed(error));
                peer.engine.outstanding().end(op, status);
                continue;
            }
            match self.machine.submit(now, command(&op)) {
                Ok(number) => {
                    if meets_a_receive(&op) {
                        self.messages.placed(&op);
                    }
                    self.put_posted(number, What::Operation(op));
                }
                Err(Refused::Closed) => {
                    let lost = peer.engine.port().lost();
                    let status = Err(Failure::not_executed(lost));
                    peer.engine.outstanding().end(op, status);
                }
                // Not full: there was room. It is none of those that the core lets pass.
                Err(Refused::Full | Refused::Unsound) => {
                    let status = Err(Failure::not_executed(EINVAL));
                    peer.engine.outstanding().end(op, status);
                }
            }
        }
        // It may have a link to make at once.
        self.machine.handle_timeout(now);
    }

    /// After the end of a session, has another begin with what is submitted.
    fn begin_anew(&mut self, peer: &Arc<Peer>, now: u64) {
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

    /// Whether operations wait for the machine to have room.
    fn has_queued(&self) -> bool {
        !(self.queued.is_empty() && self.messages.is_empty())
    }

    /// The places that messages may have: they leave some for what waits for no receive of the peer.
    fn places(&self) -> Places {
        let limits = self.machine.limits();
        let all = limits.map_or(MIN_OPS, |limits| limits.ops);
        let all = usize::from(all).min(OPS);
        let contexts = limits.map_or(1, |limits| limits.contexts.saturating_sub(MESSAGES));
        Places {
            all: all - all / 4,
            contexts: usize::from(contexts).min(MAX_CONTEXTS),
        }
    }

    /// Whether the next operation for the machine is a message; `None`: it may have none.
    fn next_is_message(&self) -> Option<bool> {
        let may = self.messages.has_next(self.places());
        match (may, !self.queued.is_empty()) {
            (true, true) => Some(self.turn),
            (true, false) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// The next operation for the machine.
    fn next_post(&mut self) -> Option<Operation> {
        let is_message = self.next_is_message()?;
        self.turn = !is_message;
        match is_message {
            true => self.messages.pop(self.places()),
            false => self.queued.pop(),
        }
    }

    /// An operation of this side has ended.
    fn ended(
        &mut self,
        peer: &Arc<Peer>,
        number: command::Op,
        command: &Command,
        verdict: Verdict,
    ) {
        let place = self.posted.get_mut(number.index());
        let op = match place.and_then(Option::take).map(|posted| posted.what) {
            Some(What::Operation(op)) => op,
            Some(What::Letter(message)) => return letter_ended(peer, &message, verdict),
            None => return,
        };
        let meets = meets_a_receive(&op);
        if meets {
            self.messages.left(&op);
        }
        if (meets || op.is_tagged_rma()) && self.is_astray(command, verdict) {
            op.count_stray();
        }
        let mut status = verdict::heard(verdict, command.len as usize);
        if let Err(failure) = &mut status {
            failure.error = match (failure.error, self.closing) {
                (ECANCELED, Some(error)) => error,
                // The peer, or its endpoint, is not there any more.
                (ENOTCONN, _) => peer.engine.port().lost(),
                (error, _) => error,
            };
        }
        peer.engine.outstanding().end(op, status);
    }

    /// Whether an operation has failed since the peer does not have the receive context that it is for.
    fn is_astray(&self, command: &Command, verdict: Verdict) -> bool {
        let contexts = self.machine.limits().map(|limits| limits.contexts);
        let known = contexts.is_none_or(|contexts| command.context < contexts);
        !known && verdict.is_err_and(|failure| failure.errno == Errno::EINVAL)
    }

    /// The operation of this side that has this number.
    pub(super) fn posted(&self, number: command::Op) -> Option<&Operation> {
        let posted = self.posted.get(number.index())?.as_ref()?;
        match &posted.what {
            What::Operation(op) if posted.number == number => Some(op),
            _ => None,
        }
    }

    /// The connection message of this side that has this number.
    pub(super) fn letter(&self, number: command::Op) -> Option<&Message> {
        let posted = self.posted.get(number.index())?.as_ref()?;
        match &posted.what {
            What::Letter(message) if posted.number == number => Some(message),
            _ => None,
        }
    }

    fn put_posted(&mut self, number: command::Op, what: What) {
        if let Some(place) = self.posted.get_mut(number.index()) {
            *place = Some(Posted { number, what });
        }
    }

    /// Hands a connection message to the machine.
    fn write_letter(&mut self, peer: &Arc<Peer>, now: u64, message: Message) {
        let command = Command {
            context: LETTERS,
            ..Command::send(message.emit().1 as u64)
        };
        let kept = KBox::new(message, GFP_KERNEL);
        let submitted = match &kept {
            Ok(_) if self.machine.has_room() => self.machine.submit(now, command).ok(),
            _ => None,
        };
        match (submitted, kept) {
            (Some(number), Ok(message)) => self.put_posted(number, What::Letter(message)),
            (_, Err(_)) => unheard(peer, &message, ENOMEM),
            (None, Ok(_)) => unheard(peer, &message, ENOBUFS),
        }
    }

    /// Cancels what the consumer wants to be cancelled.
    fn cancel(&mut self, peer: &Arc<Peer>) {
        let outstanding = peer.engine.outstanding();
        let unwanted = |op: &Op| outstanding.is_unwanted(op.id());
        peer.engine
            .end_all(&mut self.queued.extract(unwanted), ECANCELED);
        peer.engine
            .end_all(&mut self.messages.extract(unwanted), ECANCELED);
        for posted in self.posted.iter().flatten() {
            let What::Operation(op) = &posted.what else {
                continue;
            };
            if unwanted(op) {
                // What can't be withdrawn any more ends as it would have.
                let (Cancelled::Ended | Cancelled::Asked | Cancelled::No) =
                    self.machine.cancel(posted.number);
            }
        }
    }

    /// Takes what was ended by others than the worker.
    fn take_ended(&mut self) {
        while let Some((token, status)) = self.proxies.ended() {
            // Its place is gone if the peer has withdrawn it meanwhile.
            drop(self.take_guest(token));
            self.machine.reply(token, verdict::told(&status));
        }
    }

    /// Notes an operation of the peer.
    pub(super) fn put_guest(&mut self, token: Token, state: State) {
        if let Some(place) = self.guests.get_mut(token.index()) {
            *place = Some(Guest { token, state });
        }
    }

    /// The operation of the peer that has this token, to go on with it.
    pub(super) fn take_guest(&mut self, token: Token) -> Option<Guest> {
        let place = self.guests.get_mut(token.index())?;
        match place {
            Some(guest) if guest.token == token => place.take(),
            _ => None,
        }
    }

    /// The operation of the peer that has this token.
    pub(super) fn guest(&self, token: Token) -> Option<&State> {
        let guest = self.guests.get(token.index())?.as_ref()?;
        (guest.token == token).then_some(&guest.state)
    }

    /// What waited has met a receive.
    fn met(&mut self, peer: &Arc<Peer>, pair: Match) {
        if !pair.brings_bytes() {
            // The notice of a write, or a message that is too long: both sides end, see `take_ended`.
            return pair.execute();
        }
        let (proxy, receive) = pair.into_parts();
        let Some((proxy, token)) = tokened(proxy) else {
            return receive.complete(Err(Failure::unknown(EPROTO)));
        };
        let held = match self.take_guest(token).map(|guest| guest.state) {
            Some(State::Waiting { held, .. }) => held,
            // The peer has gone meanwhile: the receive is for another.
            _ => {
                let_go(proxy);
                return peer.engine.put_back(receive);
            }
        };
        let status = match held {
            Held::Here(bytes) => deliver(&proxy, receive, &bytes),
            Held::Lost(error) => {
                receive.complete(Err(Failure::unknown(error)));
                Err(Failure::not_executed(error))
            }
            Held::Afar => {
                self.put_guest(token, State::Receiving { proxy, receive });
                if !self.machine.reply(token, Ok(wire::Level::Delivered)) {
                    self.end_guest(peer, token);
                }
                return;
            }
        };
        let_go(proxy);
        self.machine.reply(token, verdict::told(&status));
    }

    /// The machine needs an operation of the peer no more: the peer has what it has read, or the session is over.
    fn released(&mut self, peer: &Arc<Peer>, token: Token) {
        let is_over = matches!(self.machine.state(), session::State::Closed(_));
        match self.take_guest(token).map(|guest| guest.state) {
            Some(State::Lending { proxy, receive }) if !is_over => {
                // The peer knows: it has all bytes.
                let _ = self.end_tagged(peer, proxy, receive, Ok(()));
            }
            Some(state) => self.end_state(peer, state),
            None => {}
        }
    }

    /// Ends a tagged write or read of the peer, and the receive that it has consumed; how it went, for the peer.
    pub(super) fn end_tagged(
        &self,
        peer: &Peer,
        proxy: Operation,
        receive: Operation,
        moved: Result,
    ) -> crate::op::Status {
        let (here, there) = peer.engine.port().end_tagged(&proxy, moved);
        receive.complete(here);
        let_go(proxy);
        there
    }

    /// Lets go of an operation of the peer.
    pub(super) fn end_guest(&mut self, peer: &Arc<Peer>, token: Token) {
        if let Some(guest) = self.take_guest(token) {
            self.end_state(peer, guest.state);
        }
    }

    fn end_state(&self, peer: &Peer, state: State) {
        let lost = || peer.engine.port().lost();
        state.end(&peer.engine, self.closing.unwrap_or_else(lost));
    }

    /// Has the timer fire when the machine has something to do.
    fn arm(&mut self, peer: &Arc<Peer>, now: u64) {
        let Some(deadline) = self.machine.deadline() else {
            return;
        };
        // One that fires too early does no harm.
        if self
            .timer
            .as_ref()
            .is_some_and(|(at, _)| (now..=deadline).contains(at) && *at > now)
        {
            return;
        }
        self.timer = None;
        let after = deadline.saturating_sub(now).clamp(1, i64::MAX as u64);
        let handle = peer.clone().start(Delta::from_nanos(after as i64));
        self.timer = Some((deadline.max(now + 1), handle));
    }

    /// Ends what has not begun, with `error`, and has what waits for a receive of the peer withdrawn.
    fn quit(&mut self, peer: &Arc<Peer>, error: Error) {
        peer.engine.end_all(&mut self.queued, error);
        peer.engine
            .end_all(&mut self.messages.extract(|_| true), error);
        for posted in self.posted.iter().flatten() {
            if let What::Operation(_) = posted.what {
                let (Cancelled::Ended | Cancelled::Asked | Cancelled::No) =
                    self.machine.cancel(posted.number);
            }
        }
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
    ) -> Option<(u64, ArcHrTimerHandle<Peer>)> {
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

/// A connection message has reached the peer, or has not.
fn letter_ended(peer: &Arc<Peer>, message: &Message, verdict: Verdict) {
    if let Err(failure) = verdict {
        let error = match verdict::error(failure.errno) {
            ENOTCONN | ECONNRESET | EPROTO => EHOSTUNREACH,
            error => error,
        };
        unheard(peer, message, error);
    }
}

fn unheard(peer: &Arc<Peer>, message: &Message, error: Error) {
    let section = rcu::read_lock();
    peer.engine.port().unheard(message, error);
    drop(section);
}

/// Whether an operation may have to wait for a receive of the peer.
fn meets_a_receive(op: &Op) -> bool {
    op.kind() == Kind::Send || op.notifies()
}

/// Whether the bytes that an operation brings can be had: a device may have gone.
fn probe(op: &Op) -> Result {
    let brings = matches!(op.kind(), Kind::Send | Kind::Write | Kind::Atomic);
    let may_go = op
        .buffer()
        .memory()
        .is_some_and(|memory| memory.is_device() || memory.is_persistent());
    match brings && may_go && !op.buffer().is_empty() {
        true => op.read_local(0, &mut [0]),
        false => Ok(()),
    }
}

/// What the machine is told of a post.
fn command(op: &Op) -> Command {
    let (key, offset) = op
        .remote()
        .map_or((0, 0), |remote| (remote.key().raw(), remote.offset()));
    let commit = op.level() == Level::Committed;
    let target = match (op.remote(), op.tag()) {
        (None, Some(tag)) => Target::Tag(tag),
        _ => Target::Key(key),
    };
    let what = match (op.kind(), op.atomic()) {
        (Kind::Write, _) => Does::Write {
            target,
            offset,
            commit,
        },
        (Kind::Read, _) => Does::Read { target, offset },
        (Kind::Commit, _) => Does::Commit { key, offset },
        (Kind::Atomic, Some(atomic)) => Does::Atomic {
            key,
            offset,
            action: atomic.action,
            datatype: atomic.datatype,
            commit,
        },
        _ => Does::Send { tag: op.tag() },
    };
    Command {
        what,
        len: op.len() as u64,
        data: op.data(),
        // Those of an address have fewer bits.
        context: MESSAGES.saturating_add(op.peer_context() as u16),
    }
}

/// Puts all bytes of a message into its receive, and completes that; how it went, for the sender.
pub(super) fn deliver(arrival: &Op, receive: Operation, bytes: &[u8]) -> crate::op::Status {
    finish(arrival, receive, |receive| receive.write_local(0, bytes))
}

/// Completes the receive of a message whose bytes `place` puts there, or has put there.
pub(super) fn finish(
    arrival: &Op,
    receive: Operation,
    place: impl FnOnce(&Op) -> Result,
) -> crate::op::Status {
    let (len, level) = (arrival.len(), Level::Delivered);
    let status = |data| match place_status(len, &receive) {
        Some(failure) => Err(failure),
        None => Ok(Success { len, data, level }),
    };
    let (here, there) = (status(arrival.data()), status(None));
    if here.is_err() {
        receive.complete(here);
        return there;
    }
    match place(&receive) {
        Ok(()) => {
            receive.complete(here);
            there
        }
        Err(error) => {
            receive.complete(Err(Failure::unknown(error)));
            Err(Failure::unknown(error))
        }
    }
}

/// Why a message of `len` bytes can't go into a receive.
fn place_status(len: usize, receive: &Op) -> Option<Failure> {
    (len > receive.len()).then_some(Failure::not_executed(EMSGSIZE))
}
