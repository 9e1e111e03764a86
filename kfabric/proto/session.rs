// SPDX-License-Identifier: GPL-2.0

//! A session with a peer, over one link after another: who talks to whom, what was executed, and
//! whether anybody is there. See Documentation/wire.rst.
//!
//! It does not know what frames are about. It decides which link is used, and whether another one
//! goes on with the session or begins a new one. Times are nanoseconds of any clock that does not
//! go back.
//!
//! | file | noun |
//! |---|---|
//! | [`acks`] | acknowledgements that are owed |
//! | [`past`] | what is remembered of a session that is over |
//! | [`ring`] | frames that are not acknowledged |

pub mod acks;
pub mod past;
pub mod ring;

use super::violation::Violation;
use super::wire::hello::{Hello, Limits, Name, CAP_CRC, VERSIONS};
use super::wire::Reason;
use acks::Acks;
use past::Past;

/// What the engine decides once.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This side.
    pub name: Name,
    /// The other.
    pub peer: Name,
    /// What this side takes.
    pub limits: Limits,
    /// Capabilities: [`CAP_CRC`].
    pub caps: u32,
    /// After how long without a word a peer is asked whether it is there.
    pub ping: u64,
    /// After how long without a word a link is dead.
    pub dead: u64,
    /// How long a link may take to be made and to be greeted.
    pub dial: u64,
    /// How long a session without a link is remembered, and operations wait for the first one.
    pub resume: u64,
    /// How long to wait before the next link is made: first, and at most.
    pub backoff: (u64, u64),
    /// When an acknowledgement is owed.
    pub acks: acks::Policy,
}

/// Names a link of a session. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId(u32);

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer said goodbye.
    Bye(Reason),
    /// This side did.
    Closed(Reason),
    /// The peer has forgotten the session.
    Restarted,
    /// The peer was not reached in time; never, if `never`.
    Timeout {
        /// No link was ever open.
        never: bool,
    },
    /// The peer broke a rule.
    Violated,
    /// Neither side had anything outstanding.
    Idle,
}

/// What a session is in. Documentation/wire.rst has the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No session, no link.
    Idle,
    /// A link is being made.
    Dialing,
    /// HELLO was sent, and no answer is there.
    Greeting,
    /// Frames flow.
    Open,
    /// No link, but a session.
    Lost,
    /// Over.
    Closed(End),
}

/// What becomes of a link that a peer made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// It is the link now; the one before it, if any, is closed.
    Take(LinkId, Met),
    /// It is to be closed, without a word or with BYE and a reason.
    Refuse(Option<Reason>),
}

/// What a hello has made of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// The session is a new one; `ended`: another has ended by that.
    pub fresh: bool,
    /// There was another session.
    pub ended: bool,
    /// The number of the last frame that the peer has executed.
    pub last: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    None {
        redial: Option<u64>,
    },
    Dialing {
        id: LinkId,
        until: u64,
    },
    Greeting {
        id: LinkId,
        until: u64,
    },
    Open {
        id: LinkId,
        dialled: bool,
    },
    /// Only BYE is left to be said, if the link takes it in time.
    Parting {
        id: LinkId,
        until: u64,
    },
}

/// What is known of the other side while there is a session.
#[derive(Clone, Copy, Debug)]
struct Other {
    incarnation: u64,
    limits: Limits,
    caps: u32,
}

/// The session.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    other: Option<Other>,
    past: Past,
    link: Link,
    ids: u32,
    closed: Option<End>,
    give_up: Option<u64>,
    backoff: u64,
    /// What the sequences follow: 0, but in tests.
    start: u32,
    executed: u32,
    acks: Acks,
    /// When the last frame came.
    heard: u64,
    /// When anything did: a frame, or a part of its payload.
    alive: u64,
    pinged: u64,
    hello_due: bool,
    /// Whether frames have checksums that come while BYE is said.
    parting_crc: bool,
    /// The hello that comes before BYE.
    last_hello: Option<Hello>,
    ping_due: bool,
    pong_due: bool,
    dial_due: Option<LinkId>,
    /// A hello gives up the link before its own, and may have to give up its own.
    abandoned: [Option<LinkId>; 2],
}

impl Session {
    /// An idle one, after what was before.
    pub fn new(settings: Settings, past: Past) -> Session {
        Session {
            settings,
            other: None,
            past,
            link: Link::None { redial: None },
            ids: 0,
            closed: None,
            give_up: None,
            backoff: settings.backoff.0,
            start: 0,
            executed: 0,
            acks: Acks::new(settings.acks),
            heard: 0,
            alive: 0,
            pinged: 0,
            hello_due: false,
            parting_crc: false,
            last_hello: None,
            ping_due: false,
            pong_due: false,
            dial_due: None,
            abandoned: [None; 2],
        }
    }

    /// Has sequences begin after `start`, so that tests see them wrap around.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, start: u32) {
        (self.start, self.executed) = (start, start);
    }

    /// What is to be remembered, if it is over.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// What the engine decided.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where sequences begin.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// What it is in.
    pub fn state(&self) -> State {
        match (self.closed, self.link) {
            (Some(end), _) => State::Closed(end),
            (None, Link::Dialing { .. }) => State::Dialing,
            (None, Link::Greeting { .. }) => State::Greeting,
            (None, Link::Open { .. }) => State::Open,
            (None, _) if self.other.is_some() => State::Lost,
            (None, _) => State::Idle,
        }
    }

    /// Whether frames flow.
    pub fn is_open(&self) -> bool {
        matches!(self.link, Link::Open { .. })
    }

    /// Whether the answer to a hello is awaited.
    pub fn is_greeting(&self) -> bool {
        matches!(self.link, Link::Greeting { .. })
    }

    /// Whether nothing but BYE is to be said, and nothing that comes is of use.
    pub fn is_parting(&self) -> bool {
        matches!(self.link, Link::Parting { .. })
    }

    /// The link in use. Any other of this peer is to be closed.
    pub fn link(&self) -> Option<LinkId> {
        match self.link {
            Link::None { .. } => None,
            Link::Dialing { id, .. }
            | Link::Greeting { id, .. }
            | Link::Open { id, .. }
            | Link::Parting { id, .. } => Some(id),
        }
    }

    /// What the peer takes, once that is known; no longer frames, and eager messages, than this side
    /// takes itself: nothing that the peer says makes it need more room.
    pub fn limits(&self) -> Option<Limits> {
        let own = &self.settings.limits;
        self.other.map(|other| Limits {
            frame: other.limits.frame.min(own.frame),
            eager: other.limits.eager.min(own.eager),
            ..other.limits
        })
    }

    /// Whether frames have checksums. What comes in place of the answer to a hello has none; what comes
    /// while BYE is said is of the session that has ended.
    pub fn has_crc(&self) -> bool {
        match self.link {
            Link::Greeting { .. } => return false,
            Link::Parting { .. } => return self.parting_crc,
            _ => (),
        }
        let caps = self.other.map_or(0, |other| other.caps);
        self.settings.caps & caps & CAP_CRC != 0
    }

    /// The number of the last frame that was executed.
    pub fn executed(&self) -> u32 {
        self.executed
    }

    /// Acknowledgements.
    pub fn acks(&mut self) -> &mut Acks {
        &mut self.acks
    }

    fn new_id(&mut self) -> LinkId {
        self.ids = self.ids.wrapping_add(1);
        LinkId(self.ids)
    }

    /// There is work: a link is wanted if there is none.
    pub fn want(&mut self, now: u64) {
        if let (None, Link::None { redial: None }) = (self.closed, self.link) {
            self.link = Link::None { redial: Some(now) };
            self.give_up
                .get_or_insert(now.saturating_add(self.settings.resume));
        }
    }

    /// The link that was asked for is made: greet.
    pub fn link_up(&mut self, id: LinkId) {
        if let Link::Dialing { id: dialing, until } = self.link {
            if dialing == id {
                self.link = Link::Greeting { id, until };
                self.hello_due = true;
            }
        }
    }

    /// A link is gone; whether it was the one in use.
    pub fn link_lost(&mut self, now: u64, id: LinkId) -> bool {
        if self.link() != Some(id) {
            return false;
        }
        (self.hello_due, self.ping_due, self.pong_due) = (false, false, false);
        (self.dial_due, self.last_hello) = (None, None);
        if let Some(_ended) = self.closed {
            self.link = Link::None { redial: None };
            return true;
        }
        let redial = now.saturating_add(self.backoff);
        self.link = Link::None {
            redial: Some(redial),
        };
        self.backoff = self.backoff.saturating_mul(2).min(self.settings.backoff.1);
        self.give_up
            .get_or_insert(now.saturating_add(self.settings.resume));
        true
    }

    /// This side gives the link in use up.
    pub fn abandon(&mut self, now: u64) {
        if let Some(id) = self.link() {
            self.link_lost(now, id);
            let free = usize::from(self.abandoned[0].is_some());
            self.abandoned[free] = Some(id);
        }
    }

    /// A peer has made a link and said `hello`, which is for this session by its names.
    ///
    /// # Errors
    ///
    /// What is wrong with the hello. The link is to be closed.
    pub fn accept(&mut self, now: u64, hello: &Hello) -> Result<Accept, Violation> {
        if !speaks(hello) {
            return Ok(Accept::Refuse(Some(Reason::Version)));
        }
        if let Some(End::Closed(reason)) = self.closed {
            return Ok(Accept::Refuse(Some(reason)));
        }
        if self.closed == Some(End::Violated) || self.past.is_stale(hello) {
            return Ok(Accept::Refuse(None));
        }
        match self.link {
            // The link of the side with the smaller name stays.
            Link::Dialing { .. } | Link::Greeting { .. }
                if self.settings.name.as_bytes() <= self.settings.peer.as_bytes() =>
            {
                return Ok(Accept::Refuse(None));
            }
            // A dial that comes late: the peer has made another since, or has taken ours.
            _ if self.past.is_late(hello) => {
                return Ok(Accept::Refuse(None));
            }
            _ => (),
        }
        self.abandon(now);
        let met = self.meet(now, hello)?;
        let id = self.new_id();
        self.past.accept(hello.generation);
        self.hello_due = true;
        self.link = Link::Open { id, dialled: false };
        Ok(Accept::Take(id, met))
    }

    /// The peer's answer on a link that was made here.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn greeted(&mut self, now: u64, id: LinkId, hello: &Hello) -> Result<Met, Violation> {
        match self.link {
            Link::Greeting { id: greeting, .. } if greeting == id && !self.hello_due => (),
            _ => return Err(Violation::Unexpected),
        }
        if !speaks(hello)
            || hello.from != self.settings.peer
            || hello.to != self.settings.name
            || self.past.is_stale(hello)
            || !self.past.is_answer(hello)
        {
            return Err(Violation::Unexpected);
        }
        let met = self.meet(now, hello)?;
        self.past.answered(hello.generation);
        self.link = Link::Open { id, dialled: true };
        Ok(met)
    }

    /// What a hello makes of the session.
    fn meet(&mut self, now: u64, hello: &Hello) -> Result<Met, Violation> {
        let other = Other {
            incarnation: hello.incarnation,
            limits: hello.limits,
            caps: hello.caps,
        };
        let before = self.other;
        let fresh = before.is_none_or(|before| before.incarnation != other.incarnation);
        if let (false, Some(before)) = (fresh, before) {
            if before.limits != other.limits || before.caps != other.caps {
                return Err(Violation::Limits);
            }
        }
        if fresh {
            self.executed = self.start;
        }
        self.past.meet(other.incarnation);
        self.other = Some(other);
        self.closed = None;
        self.hear(now);
        self.pinged = now;
        self.acks.clear();
        // What was executed on the link before may not have been acknowledged.
        if self.executed != self.start {
            self.acks.hurry();
        }
        Ok(Met {
            fresh,
            ended: fresh && before.is_some(),
            // A peer that does not name this incarnation never got a frame of it: what this side
            // sent is executed from the beginning.
            last: if hello.expects == self.past.incarnation() {
                hello.last
            } else {
                self.start
            },
        })
    }

    /// Whether a sequenced frame is the next (`true`) or a duplicate.
    ///
    /// # Errors
    ///
    /// [`Violation::Gap`]: frames are missing.
    pub fn is_next(&self, seq: u32) -> Result<bool, Violation> {
        match seq.wrapping_sub(self.executed) {
            1 => Ok(true),
            ahead if ahead == 0 || ahead >= 1 << 31 => Ok(false),
            _ => Err(Violation::Gap),
        }
    }

    /// A frame came over the link in use.
    pub fn hear(&mut self, now: u64) {
        (self.heard, self.alive) = (now, now);
    }

    /// A part of a frame did. The link is not dead then, but the peer is asked as if nothing had
    /// come: it hears nothing itself as long as nothing is said to it.
    pub fn sense(&mut self, now: u64) {
        self.alive = now;
    }

    /// The session gets on: a frame was executed, or acknowledged, or none waits for that. A link
    /// that only opens does not count, or one that always breaks then would be made for ever.
    pub fn progress(&mut self) {
        self.give_up = None;
        self.backoff = self.settings.backoff.0;
    }

    /// The next frame is executed.
    pub fn execute(&mut self, now: u64, len: u32, hurry: bool) {
        self.progress();
        self.executed = self.executed.wrapping_add(1);
        self.acks.owe(now, len);
        if hurry {
            self.acks.ask(now);
        }
    }

    /// A frame that is not sequenced says what the last one was that is.
    ///
    /// # Errors
    ///
    /// [`Violation::Gap`]: that one did not arrive.
    pub fn has(&self, last: u32) -> Result<(), Violation> {
        match last.wrapping_sub(self.executed) {
            ahead if ahead == 0 || ahead >= 1 << 31 => Ok(()),
            _ => Err(Violation::Gap),
        }
    }

    /// PING came.
    pub fn pinged(&mut self) {
        self.pong_due = true;
    }

    /// The session is over. It is followed by another under the next incarnation, if any.
    pub fn end(&mut self, now: u64, end: End) {
        let bye = match end {
            End::Closed(_) | End::Violated | End::Idle => self.is_open(),
            _ => false,
        };
        match self.link {
            Link::Open { id, .. } if bye => {
                self.parting_crc = self.has_crc();
                let until = now.saturating_add(self.settings.dial);
                self.link = Link::Parting { id, until };
                // Nothing comes before it on a link, and what it says is of this session.
                self.last_hello = self.take_hello();
            }
            Link::Parting { .. } => (),
            _ => self.abandon(now),
        }
        if let Link::None { redial } = &mut self.link {
            *redial = None;
        }
        self.closed = Some(end);
        self.forget();
    }

    /// Has no session any more.
    fn forget(&mut self) {
        self.past.leave();
        self.other = None;
        self.give_up = None;
        self.executed = self.start;
        self.acks.clear();
        (self.hello_due, self.ping_due, self.pong_due) = (false, false, false);
        self.backoff = self.settings.backoff.0;
    }

    /// What was closed may begin again.
    pub fn reopen(&mut self, now: u64) {
        if let Link::Parting { .. } = self.link {
            self.abandon(now);
        }
        if self.closed.take().is_some() {
            self.link = Link::None { redial: None };
        }
    }

    /// Does what time asks for; why the session is to be ended, if it is.
    ///
    /// `waits`: since when frames wait for an acknowledgement.
    pub fn handle_timeout(&mut self, now: u64, waits: Option<u64>) -> Option<End> {
        match self.link {
            Link::Dialing { until, .. }
            | Link::Greeting { until, .. }
            | Link::Parting { until, .. }
                if until <= now =>
            {
                self.abandon(now);
            }
            Link::Open { .. } if now >= self.alive.saturating_add(self.settings.dead) => {
                self.abandon(now);
            }
            Link::Open { .. } if self.ping_at(waits) <= now => {
                self.ping_due = true;
                self.pinged = now;
            }
            _ => (),
        }
        if self.acks.are_due(now) {
            self.acks.hurry();
        }
        if self.give_up.is_some_and(|at| at <= now) && !self.is_open() {
            return Some(End::Timeout {
                never: self.other.is_none(),
            });
        }
        if let Link::None { redial: Some(at) } = self.link {
            if at <= now {
                let id = self.new_id();
                let until = now.saturating_add(self.settings.dial);
                self.link = Link::Dialing { id, until };
                self.dial_due = Some(id);
            }
        }
        None
    }

    fn ping_at(&self, waits: Option<u64>) -> u64 {
        let since = waits.map_or(self.heard, |waits| waits.min(self.heard));
        since.max(self.pinged).saturating_add(self.settings.ping)
    }

    /// When [`Session::handle_timeout`] has something to do.
    pub fn deadline(&self, waits: Option<u64>) -> Option<u64> {
        let link = match self.link {
            Link::None { redial } => redial,
            Link::Dialing { until, .. } | Link::Greeting { until, .. } => Some(until),
            Link::Open { .. } => {
                let dead = self.alive.saturating_add(self.settings.dead);
                let talk = dead.min(self.ping_at(waits));
                Some(self.acks.at().map_or(talk, |at| talk.min(at)))
            }
            Link::Parting { until, .. } => Some(until),
        };
        match (link, self.give_up.filter(|_| !self.is_open())) {
            (Some(link), Some(give_up)) => Some(link.min(give_up)),
            (link, give_up) => link.or(give_up),
        }
    }

    /// The hello that is to be sent now, if any.
    pub fn take_hello(&mut self) -> Option<Hello> {
        if let Some(hello) = self.last_hello.take() {
            return Some(hello);
        }
        if !core::mem::take(&mut self.hello_due) {
            return None;
        }
        // Who dials says one more than it knows or has said; an answer says what was settled.
        let generation = match self.link {
            Link::Greeting { .. } => self.past.dial(),
            _ => self.past.generation(),
        };
        let expects = self.other.map_or(0, |other| other.incarnation);
        Some(Hello {
            versions: VERSIONS,
            caps: self.settings.caps,
            incarnation: self.past.incarnation(),
            expects,
            last: if expects == 0 { 0 } else { self.executed },
            generation,
            limits: self.settings.limits,
            from: self.settings.name,
            to: self.settings.peer,
        })
    }

    /// Whether a hello comes before anything else.
    pub fn owes_hello(&self) -> bool {
        self.hello_due || self.last_hello.is_some()
    }

    /// Whether PONG is to be sent now.
    pub fn take_pong(&mut self) -> bool {
        core::mem::take(&mut self.pong_due)
    }

    /// Whether PING is to be sent now.
    pub fn take_ping(&mut self) -> bool {
        core::mem::take(&mut self.ping_due)
    }

    /// The reason of the BYE that is to be sent now. The link is not used after that.
    pub fn take_bye(&mut self, now: u64) -> Option<Reason> {
        if !self.is_parting() || self.owes_hello() {
            return None;
        }
        self.abandon(now);
        match self.closed {
            Some(End::Closed(reason)) => Some(reason),
            Some(End::Idle) => Some(Reason::Idle),
            _ => Some(Reason::Protocol),
        }
    }

    /// Whether [`Session::take_dial`] gives one.
    pub fn wants_link(&self) -> bool {
        self.dial_due.is_some()
    }

    /// A link that is to be made now.
    pub fn take_dial(&mut self) -> Option<LinkId> {
        self.dial_due.take()
    }

    /// A link that is to be closed now, after what was to be sent over it.
    pub fn take_abandoned(&mut self) -> Option<LinkId> {
        let [first, second] = &mut self.abandoned;
        first.take().or_else(|| second.take())
    }
}

/// Whether both understand a version; there is one.
fn speaks(hello: &Hello) -> bool {
    hello.versions.0 <= VERSIONS.1 && hello.versions.1 >= VERSIONS.0
}

#[cfg(test)]
mod tests;
