// SPDX-License-Identifier: GPL-2.0

//! A session under hellos that nobody can answer for, and links that come and go.
//!
//! Nothing panics, no link is named twice, what is said can be read, and time that has come asks for
//! nothing more.

use super::super::session::past::Past;
use super::super::session::{Accept, End, LinkId, Session, State};
use super::super::wire::hello::{Hello, Limits, CAP_CRC, MAX, VERSIONS};
use super::super::wire::Reason;
use super::script::{name, settings, Script, LIMITS, MS};

/// Bytes of a step.
pub(super) const STEP: usize = 8;

struct Run<'a> {
    session: Session,
    script: Script<'a>,
    now: u64,
    /// Links that were named.
    links: Vec<LinkId>,
    /// The one that this side wants.
    dialling: Option<LinkId>,
    /// What its last hello said.
    incarnation: u64,
    generation: u32,
}

/// Runs a script. Its first byte says which name is the smaller.
pub(super) fn run(script: &[u8]) {
    let (&first, rest) = script.split_first().unwrap_or((&0, &[]));
    let (own, peer) = if first & 1 == 0 { (1, 2) } else { (2, 1) };
    let mut run = Run {
        session: Session::new(settings(name(own), name(peer), CAP_CRC), Past::new(77)),
        script: Script(&[]),
        now: 0,
        links: Vec::new(),
        dialling: None,
        incarnation: 77,
        generation: 0,
    };
    for step in rest.chunks(STEP) {
        run.script = Script(step);
        run.step(name(own), name(peer));
        run.settle();
    }
}

impl Run<'_> {
    fn step(&mut self, own: super::Name, peer: super::Name) {
        let link = self.session.link();
        match self.script.byte() % 12 {
            0 => self.session.want(self.now),
            1 => {
                if let Some(id) = self.dialling.take() {
                    self.session.link_up(id);
                }
            }
            2 => {
                let at = usize::from(self.script.byte());
                if let Some(&id) = self.links.get(at % self.links.len().max(1)) {
                    let lost = self.session.link_lost(self.now, id);
                    assert_eq!(lost, link == Some(id));
                }
            }
            3..=5 => {
                let hello = self.hello(peer, own);
                if let Ok(Accept::Take(id, met)) = self.session.accept(self.now, &hello) {
                    assert!(self.session.is_open() && self.session.owes_hello());
                    assert_eq!(self.session.link(), Some(id));
                    assert!(!met.ended || met.fresh);
                    self.name(id);
                }
            }
            6 | 7 => {
                let hello = self.hello(peer, own);
                if let Some(id) = link {
                    let greeting = self.session.is_greeting();
                    let greeted = self.session.greeted(self.now, id, &hello);
                    assert!(greeted.is_err() || (greeting && self.session.is_open()));
                }
            }
            8 | 9 => {
                self.now += u64::from(self.script.byte()) * MS / 2;
                let waits = (self.script.byte() % 2 == 0).then_some(self.now / 2);
                if let Some(end) = self.session.handle_timeout(self.now, waits) {
                    self.session.end(self.now, end);
                }
                let next = self.session.deadline(waits);
                assert!(
                    next.is_none_or(|at| at > self.now),
                    "it asks again: {next:?}"
                );
            }
            10 => {
                if self.session.is_open() && !self.session.owes_hello() {
                    self.session.hear(self.now);
                    let len = self.script.byte().into();
                    let before = self.session.executed();
                    assert_eq!(self.session.is_next(before.wrapping_add(1)), Ok(true));
                    assert_eq!(self.session.is_next(before), Ok(false));
                    self.session.execute(self.now, len, len % 2 == 1);
                    assert_eq!(self.session.has(self.session.executed()), Ok(()));
                }
            }
            _ => match self.script.byte() % 4 {
                0 => self.session.reopen(self.now),
                1 => self.session.abandon(self.now),
                2 => self.session.end(self.now, End::Closed(Reason::Closed)),
                _ => self.session.end(self.now, End::Violated),
            },
        }
    }

    fn name(&mut self, id: LinkId) {
        assert!(!self.links.contains(&id), "{id:?} is named twice");
        self.links.push(id);
    }

    /// Near what could be: the numbers are those that matter, or next to them.
    fn hello(&mut self, from: super::Name, to: super::Name) -> Hello {
        let near = |byte: u8| u64::from(byte % 4).wrapping_sub(1);
        let incarnation = 1000u64.wrapping_add(self.script.byte().into());
        let expects = match self.script.byte() {
            byte @ 0..64 => u64::from(byte % 2),
            byte => self.incarnation.wrapping_add(near(byte)),
        };
        let last = u32::from(self.script.byte());
        let generation = match self.script.byte() {
            byte @ 0..32 => u32::from(byte) << 27,
            byte => self.generation.wrapping_add(near(byte) as u32),
        };
        let what = self.script.byte();
        Hello {
            versions: (VERSIONS.0 + u16::from(what & 0xc0 == 0xc0), VERSIONS.1 + 1),
            caps: u32::from(what & 1),
            incarnation,
            expects,
            last: if expects == 0 { 0 } else { last },
            generation,
            limits: Limits {
                ops: LIMITS.ops + u16::from(what & 0x0e == 0x0e),
                ..LIMITS
            },
            from,
            to,
        }
    }

    /// Takes all that there is.
    fn settle(&mut self) {
        if let Some(hello) = self.session.take_hello() {
            let mut out = [0; MAX];
            let len = hello.emit(&mut out);
            assert_eq!(Hello::parse(&out[..len]), Ok(hello));
            (self.incarnation, self.generation) = (hello.incarnation, hello.generation);
        }
        assert!(!self.session.owes_hello());
        self.session.take_ping();
        self.session.take_pong();
        self.session.take_bye(self.now);
        if let Some(id) = self.session.take_dial() {
            assert_eq!(self.session.link(), Some(id));
            self.dialling = Some(id);
            self.name(id);
        }
        while let Some(id) = self.session.take_abandoned() {
            assert_ne!(self.session.link(), Some(id), "the link in use is closed");
        }
        if let State::Closed(_) = self.session.state() {
            assert!(!self.session.is_open());
        }
    }
}
