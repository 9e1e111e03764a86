// SPDX-License-Identifier: GPL-2.0

//! The machine under a script: what a hostile peer sends, and what this side's engine does meanwhile.
//!
//! Most of a header is taken as it is; number and acknowledgement may be set right, or all would
//! end at the first frame. Whatever the script is, nothing panics, what is sent can be read, each
//! operation ends once, and time that has come asks for nothing more.

use super::super::atomic::{Action as Does, Datatype};
use super::super::flow::{Amount, Credit, Grant};
use super::super::order::Order;
use super::super::peer::command::{Command, Op, Target, What};
use super::super::peer::incoming::{Incoming, Token};
use super::super::peer::outgoing::Outgoing;
use super::super::peer::{Action, Event, Executed, Parts, Payload, Peer, Settings, Storage};
use super::super::session::acks::Policy;
use super::super::session::past::Past;
use super::super::session::ring::Sent;
use super::super::session::{self, Accept, LinkId, State};
use super::super::violation::Violation;
use super::super::wire::hello::{Hello, Limits, Name, MAX, VERSIONS};
use super::super::wire::{Errno, Failure, Header, Kind, Level, Outcome, Reason, SIZE, VERSION};
use std::collections::BTreeMap;

pub(super) const MS: u64 = 1_000_000;

struct Heap;

impl Storage for Heap {
    type Of<T> = Vec<T>;
}

pub(super) const LIMITS: Limits = Limits {
    frame: 1024,
    eager: 512,
    message: 1 << 16,
    ops: 16,
    contexts: 2,
};

pub(super) fn name(byte: u8) -> Name {
    Name::new(&[byte]).unwrap()
}

/// As an engine would set it, but soon tired.
pub(super) const fn settings(name: Name, peer: Name, caps: u32) -> session::Settings {
    session::Settings {
        name,
        peer,
        limits: LIMITS,
        caps,
        ping: 20 * MS,
        dead: 60 * MS,
        dial: 10 * MS,
        resume: 200 * MS,
        backoff: (MS, 8 * MS),
        acks: Policy {
            frames: 4,
            bytes: 4096,
            delay: MS,
            answer: 3 * MS,
        },
    }
}

fn machine() -> Peer<Heap> {
    let settings = Settings {
        session: settings(name(2), name(1), 0),
        window: Amount::new(4, 2048),
        order: Order::NONE,
    };
    let parts = Parts {
        ops: vec![Outgoing::vacant(); 16],
        incoming: vec![Incoming::vacant(); 16],
        sent: vec![Sent::vacant(); 40],
        grants: vec![Grant::default(); 2],
        credits: vec![Credit::default(); 2],
    };
    Peer::new(settings, Past::new(77), parts).unwrap()
}

/// Bytes of a step of a script: what is done, a header, and what goes with it. So a change of one
/// step leaves the others what they are.
pub(super) const STEP: usize = 68;

/// Reads a step; 0 beyond its end.
pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl Script<'_> {
    pub(super) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }

    fn header(&mut self) -> [u8; SIZE] {
        std::array::from_fn(|_| self.byte())
    }
}

/// What scripts have reached.
#[derive(Default)]
pub(super) struct Reached {
    pub(super) actions: BTreeMap<&'static str, u32>,
    pub(super) violations: BTreeMap<&'static str, u32>,
}

struct Run<'a> {
    peer: Peer<Heap>,
    script: Script<'a>,
    reached: &'a mut Reached,
    now: u64,
    link: Option<LinkId>,
    /// A link that this side wants.
    dialling: Option<LinkId>,
    /// Of this side, as its hello said.
    ours: u64,
    incarnation: u64,
    dials: u32,
    /// What this side has executed, and has sent, as a peer would know.
    executed: u32,
    sent: u32,
    tokens: Vec<Token>,
    ops: Vec<Op>,
}

/// Runs a script.
pub(super) fn run(script: &[u8], reached: &mut Reached) {
    let mut run = Run {
        peer: machine(),
        script: Script(&[]),
        reached,
        now: 0,
        link: None,
        dialling: None,
        ours: 0,
        incarnation: 5,
        dials: 0,
        executed: 0,
        sent: 0,
        tokens: Vec::new(),
        ops: Vec::new(),
    };
    run.dial(false);
    for step in script.chunks(STEP) {
        run.script = Script(step);
        run.step();
    }
    run.peer.close(run.now, Reason::Closed);
    run.events();
    assert!(run.ops.is_empty(), "{:?} never ended", run.ops);
    assert_eq!(run.peer.outstanding(), (0, 0));
}

impl Run<'_> {
    /// The peer dials, as another if `fresh`.
    fn dial(&mut self, fresh: bool) {
        self.incarnation += u64::from(fresh);
        if let State::Closed(_) = self.peer.state() {
            self.incarnation += 1;
            self.peer.reopen(self.now);
        }
        let hello = self.hello();
        match self.peer.accept(self.now, &hello) {
            Ok(Accept::Take(link, _)) => {
                self.link = Some(link);
                self.heard();
            }
            Ok(Accept::Refuse(_)) => (),
            Err(violation) => self.note(violation),
        }
        self.events();
        // Credit is granted.
        self.transmit();
    }

    /// What the peer says. It is at the other end of one script: what it has executed is anybody's
    /// guess.
    fn hello(&mut self) -> Hello {
        let knows = self.script.byte() % 4 != 0;
        let last = self.sent.wrapping_sub(u32::from(self.script.byte() % 4));
        Hello {
            versions: VERSIONS,
            caps: 0,
            incarnation: self.incarnation,
            expects: if knows { self.ours } else { 0 },
            last: if knows && self.ours != 0 { last } else { 0 },
            generation: self.generation(),
            limits: LIMITS,
            from: name(1),
            to: name(2),
        }
    }

    /// What this side says, which tells where to go on.
    fn heard(&mut self) {
        let mut out = [0; MAX];
        let (_, len) = self.peer.poll_hello(&mut out).expect("a hello");
        let hello = Hello::parse(&out[..len]).expect("a sound one");
        let fresh = hello.expects != self.incarnation || hello.incarnation != self.ours;
        self.ours = hello.incarnation;
        self.executed = hello.last;
        if fresh {
            self.sent = 0;
        }
        self.dials = self.dials.max(hello.generation);
    }

    /// What becomes of a link that this side wants.
    fn answer(&mut self) {
        let Some(link) = self.dialling.take() else {
            return;
        };
        match self.script.byte() % 4 {
            0 => self.peer.link_lost(self.now, link),
            1 => self.peer.refused(self.now),
            _ => {
                self.peer.link_up(link);
                if self.peer.link() != Some(link) {
                    return;
                }
                self.heard();
                self.link = Some(link);
                let hello = self.hello();
                if let Err(violation) = self.peer.greeted(self.now, link, &hello) {
                    self.note(violation);
                }
            }
        }
    }

    /// Mostly one more than before; some dials are late.
    fn generation(&mut self) -> u32 {
        let late = self.script.byte() % 16 == 15;
        self.dials += u32::from(!late);
        self.dials
    }

    fn note(&mut self, violation: Violation) {
        *self.reached.violations.entry(violation.name()).or_default() += 1;
    }

    fn events(&mut self) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                Event::Ended { op, .. } => {
                    let at = self.ops.iter().position(|&other| other == op);
                    self.ops.remove(at.expect("one that was posted, once"));
                }
                Event::Released(token) => self.tokens.retain(|&other| other != token),
                Event::Opened { .. } | Event::Over(_) => (),
                Event::Dial(link) => self.dialling = Some(link),
                Event::CloseLink(_) => (),
            }
        }
    }

    fn step(&mut self) {
        match self.script.byte() % 16 {
            0..=8 => self.frame(),
            9 => self.submit(),
            10 => {
                let at = usize::from(self.script.byte());
                if let Some(&op) = self.ops.get(at % self.ops.len().max(1)) {
                    self.peer.cancel(op);
                }
            }
            11 | 12 => self.transmit(),
            13 => {
                let at = usize::from(self.script.byte());
                let how = self.how();
                if let Some(&token) = self.tokens.get(at % self.tokens.len().max(1)) {
                    let verdict = match how {
                        Executed::Failed(failure) => Err(failure),
                        _ => Ok(Level::Committed),
                    };
                    self.peer.reply(token, verdict);
                }
            }
            14 => {
                self.now += u64::from(self.script.byte()) * MS / 4;
                self.peer.handle_timeout(self.now);
                let next = self.peer.deadline();
                assert!(
                    next.is_none_or(|at| at > self.now),
                    "it asks again: {next:?}"
                );
            }
            _ => self.disrupt(),
        }
        self.events();
        // Mostly there is a link for the next step.
        if self.peer.link().is_none() && self.script.byte() % 4 != 3 {
            self.dial(false);
        }
    }

    fn disrupt(&mut self) {
        match self.script.byte() % 8 {
            0 => self.peer.close(self.now, Reason::Idle),
            1 => self.peer.fail_source(self.now),
            2 | 3 => self.answer(),
            4 => drop(self.peer.rest(self.now)),
            what => {
                if let Some(link) = self.link.take() {
                    self.peer.link_lost(self.now, link);
                }
                if what < 7 {
                    let fresh = self.script.byte() % 4 == 0;
                    self.dial(fresh);
                }
            }
        }
    }

    fn how(&mut self) -> Executed {
        match self.script.byte() % 4 {
            0 => Executed::Waits,
            1 => Executed::Failed(Failure::new(Errno::EACCES, Outcome::NotExecuted)),
            _ => Executed::Done(Level::Committed),
        }
    }

    fn frame(&mut self) {
        let mut bytes = self.script.header();
        let right = self.script.byte();
        bytes[0] = VERSION;
        let bare = bytes[1] == Kind::Hello as u8;
        if bare && right & 1 == 0 {
            bytes[8..16].fill(0);
        } else if right & 1 == 0 {
            // The next, or the last if it is not sequenced.
            let sequenced = Kind::from_byte(bytes[1]).is_none_or(Kind::is_sequenced);
            let seq = self.executed.wrapping_add(u32::from(sequenced));
            bytes[8..12].copy_from_slice(&seq.to_le_bytes());
        }
        if !bare && right & 2 == 0 {
            bytes[12..16].copy_from_slice(&self.sent.to_le_bytes());
        }
        let header = match Header::parse(&bytes, LIMITS.frame, false) {
            Ok(header) => header,
            Err(malformed) => {
                self.note(malformed.into());
                if right & 12 == 0 {
                    self.peer.fail(self.now, malformed.into());
                }
                return;
            }
        };
        let Some(link) = self.link else { return };
        let action = loop {
            match self.peer.handle_frame(self.now, link, &header) {
                Ok(Action::Events) => self.events(),
                Ok(action) => break action,
                Err(violation) => return self.note(violation),
            }
        };
        *self.reached.actions.entry(called(&action)).or_default() += 1;
        if let Action::Message { token, .. }
        | Action::Offer { token, .. }
        | Action::Write { token, .. }
        | Action::Read { token, .. }
        | Action::Atomic { token, .. }
        | Action::Commit { token, .. } = action
        {
            self.tokens.push(token);
        }
        let next = header.kind.is_sequenced() && header.seq == self.executed.wrapping_add(1);
        if right & 0xf0 == 0xf0 && header.len > 0 {
            // Its payload never comes.
            self.peer.link_lost(self.now, link);
            return;
        }
        if self.peer.is_pending() {
            let how = self.how();
            if let Err(violation) = self.peer.executed(self.now, how) {
                self.note(violation);
                return;
            }
        }
        if next {
            self.executed = self.executed.wrapping_add(1);
        }
    }

    fn submit(&mut self) {
        let len = u64::from(self.script.byte()) * 8;
        let (key, offset) = (self.script.byte().into(), 8);
        let commit = self.script.byte() % 2 == 0;
        let what = match self.script.byte() % 7 {
            0 => What::Send { tag: Some(key) },
            1 => What::Write {
                target: Target::Key(key),
                offset,
                commit,
            },
            2 => What::Commit { key, offset },
            3 => What::Read {
                target: Target::Tag(key),
                offset,
            },
            4 => What::Atomic {
                key,
                offset,
                action: Does::Compare,
                datatype: Datatype::U64,
                commit,
            },
            5 => What::Announce { key },
            _ => What::Withdraw { key },
        };
        let command = Command {
            what,
            len,
            data: (self.script.byte() % 4 == 0).then_some(9),
            context: u16::from(self.script.byte() % 3),
        };
        if let Ok(op) = self.peer.submit(self.now, command) {
            self.ops.push(op);
        }
    }

    fn transmit(&mut self) {
        for _ in 0..1 + self.script.byte() % 8 {
            let Some(transmit) = self.peer.poll_transmit(self.now) else {
                return;
            };
            let header = transmit.header;
            if let Payload::Source { token, .. } | Payload::Fetched { token } = transmit.payload {
                assert!(self.tokens.contains(&token), "{token:?} was released");
            }
            assert_eq!(
                Header::parse(&header.emit(false), LIMITS.frame, false),
                Ok(header)
            );
            if header.kind.is_sequenced() {
                self.sent = self.sent.max(header.seq);
            }
            self.events();
        }
    }
}

fn called(action: &Action) -> &'static str {
    match action {
        Action::Nothing => "Nothing",
        Action::Events => "Events",
        Action::Discard => "Discard",
        Action::Message { .. } => "Message",
        Action::Offer { .. } => "Offer",
        Action::Piece { .. } => "Piece",
        Action::Write { .. } => "Write",
        Action::Commit { .. } => "Commit",
        Action::Read { .. } => "Read",
        Action::Atomic { .. } => "Atomic",
        Action::Withdrawn { .. } => "Withdrawn",
        Action::Announce { .. } => "Announce",
        Action::Withdraw { .. } => "Withdraw",
        Action::ReadData { .. } => "ReadData",
        Action::AtomicData { .. } => "AtomicData",
    }
}
