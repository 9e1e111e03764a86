// SPDX-License-Identifier: GPL-2.0

//! A machine under bytes that nobody can answer for: parser, session, credits and tables.
//!
//! The bytes are a script: what a hostile peer sends, and what this side's engine does meanwhile.
//! Most of a header is taken as it is; number and acknowledgement may be set right, or all would
//! end at the first frame. Whatever the script is, nothing panics, what is sent can be read, and
//! each operation ends once. Scripts are random, or the files of `corpus/`, which `compose` made:
//! `KFABRIC_CORPUS=write` makes them anew.

use super::flow::{Amount, Credit, Grant};
use super::order::Order;
use super::peer::command::{Command, Op, Target, What};
use super::peer::incoming::{Incoming, Token};
use super::peer::outgoing::Outgoing;
use super::peer::{Action, Event, Executed, Parts, Payload, Peer, Settings, Storage};
use super::rng::Rng;
use super::session::acks::Policy;
use super::session::ring::Sent;
use super::session::{self, Accept, LinkId, State};
use super::testing;
use super::violation::Violation;
use super::wire::hello::{Hello, Limits, Name, MAX};
use super::wire::{Errno, Failure, Header, Kind, Level, Outcome, SIZE};
use std::collections::BTreeMap;

const MS: u64 = 1_000_000;

struct Heap;

impl Storage for Heap {
    type Of<T> = Vec<T>;
}

const LIMITS: Limits = Limits {
    frame: 1024,
    eager: 512,
    message: 1 << 16,
    ops: 16,
    contexts: 2,
};

fn name(byte: u8) -> Name {
    Name::new(&[byte]).unwrap()
}

fn machine() -> Peer<Heap> {
    let settings = Settings {
        session: session::Settings {
            name: name(2),
            peer: name(1),
            limits: LIMITS,
            caps: 0,
            ping: 20 * MS,
            dead: 60 * MS,
            dial: 10 * MS,
            resume: 200 * MS,
            backoff: (MS, 8 * MS),
            acks: Policy {
                frames: 4,
                bytes: 4096,
                delay: MS,
            },
        },
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
    Peer::new(settings, 77, parts).unwrap()
}

/// Bytes of a step of a script: what is done, a header, and what goes with it. So a change of one
/// step leaves the others what they are.
const STEP: usize = 68;

/// Reads a step; 0 beyond its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
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

/// What a script has reached.
#[derive(Default)]
struct Reached {
    actions: BTreeMap<String, u32>,
    violations: BTreeMap<&'static str, u32>,
}

struct Run<'a> {
    peer: Peer<Heap>,
    script: Script<'a>,
    reached: &'a mut Reached,
    now: u64,
    link: Option<LinkId>,
    incarnation: u64,
    dials: u32,
    /// What this side has executed, and has sent, as a peer would know.
    executed: u32,
    sent: u32,
    tokens: Vec<Token>,
    ops: Vec<Op>,
}

/// Runs a script.
fn run(script: &[u8], reached: &mut Reached) {
    let mut run = Run {
        peer: machine(),
        script: Script(&[]),
        reached,
        now: 0,
        link: None,
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
    run.peer.close(run.now, super::wire::Reason::Closed);
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
        // It is at the other end of one script: what it has executed is anybody's guess.
        let hello = Hello {
            versions: (1, 1),
            caps: 0,
            incarnation: self.incarnation,
            expects: 0,
            last: 0,
            generation: self.generation(),
            limits: LIMITS,
            from: name(1),
            to: name(2),
        };
        match self.peer.accept(self.now, &hello) {
            Ok(Accept::Take(link, met)) => {
                self.link = Some(link);
                if met.fresh {
                    (self.executed, self.sent) = (0, 0);
                }
                let mut out = [0; MAX];
                let (_, len) = self.peer.poll_hello(&mut out).unwrap();
                Hello::parse(&out[..len]).unwrap();
            }
            Ok(Accept::Refuse(_)) => (),
            Err(violation) => self.note(violation),
        }
        self.events();
        // Credit is granted.
        self.transmit();
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
                Event::Dial(link) => self.peer.link_lost(self.now, link),
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
            }
            _ => {
                if let Some(link) = self.link.take() {
                    self.peer.link_lost(self.now, link);
                }
                let fresh = self.script.byte() % 4 == 0;
                self.dial(fresh);
            }
        }
        self.events();
        if self.peer.link().is_none() {
            self.dial(false);
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
        bytes[0] = 1;
        let bare = [Kind::Hello as u8, Kind::Bye as u8].contains(&bytes[1]);
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
        let text = format!("{action:?}");
        let kind = text.split([' ', '{', '(']).next().unwrap_or_default();
        *self.reached.actions.entry(kind.to_string()).or_default() += 1;
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
                action: super::atomic::Action::Compare,
                datatype: super::atomic::Datatype::U64,
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

/// A script that reaches far: mostly headers that are nearly right.
fn compose(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut script = Vec::new();
    for _ in 0..24 {
        let step = rng.below(16) as u8;
        script.push(step);
        if step > 8 {
            let mut rest = [0; STEP - 1];
            rng.fill(&mut rest[..8]);
            script.extend(rest);
            continue;
        }
        let mut header = Header::new(Kind::ALL[rng.below(22) as usize]);
        let words = [0, 8, 16, 64, 512, 513, 1024, 4096, u64::MAX];
        let word = |rng: &mut Rng| words[rng.below(9) as usize];
        header.op = rng.below(18) as u32 | ((rng.below(3) as u32) << 16);
        header.flags = super::wire::Flags::from_bits(rng.below(64) as u16).unwrap();
        (header.key, header.offset) = (word(&mut rng), word(&mut rng));
        header.len = word(&mut rng) as u32;
        header.total = if rng.one_in(3) {
            word(&mut rng)
        } else {
            header.len.into()
        };
        header.context = rng.below(3) as u16;
        header.code = [0, 0, 13, 0x117, 0x207, 3][rng.below(6) as usize];
        header.data = [0, 0, 0x101, 0x102, 9][rng.below(5) as usize];
        let repairs = [repair, |_: &mut Header| ()];
        repairs[usize::from(rng.one_in(6))](&mut header);
        (header.seq, header.ack) = (rng.below(6) as u32, rng.below(6) as u32);
        script.extend(header.emit(false));
        // Mostly with the right number and acknowledgement.
        script.push([0, 0, 0, 0, 0, 1, 2, 12][rng.below(8) as usize]);
        script.push(rng.next_u64() as u8);
        script.push(0);
    }
    script
}

/// Takes out what the kind does not have, as far as that is easily said.
fn repair(h: &mut Header) {
    use super::wire::Flags;
    let keep = |h: &mut Header, flags: Flags| {
        let bits = h.flags.bits() & flags.bits();
        h.flags = Flags::from_bits(bits).unwrap();
    };
    let Header {
        key,
        offset,
        total,
        data,
        code,
        context,
        len,
        op,
        flags,
        ..
    } = *h;
    *h = Header {
        flags,
        op,
        ..Header::new(h.kind)
    };
    if !h.kind.is_about_an_op() {
        h.op = 0;
    }
    let len = len.min(512);
    let both = Flags::FIRST | Flags::LAST;
    match h.kind {
        Kind::Send | Kind::Rts => {
            keep(h, Flags::ACK_NOW);
            h.context = context;
            (h.len, h.total) = match h.kind {
                Kind::Send => (len, len.into()),
                _ => (0, total.max(1)),
            };
        }
        Kind::Data | Kind::ReadData => {
            h.flags = Flags::LAST.when(offset.saturating_add(len.into()) >= total);
            (h.len, h.offset) = (len, offset & 0xffff);
            h.total = h.offset + u64::from(len) * (1 + u64::from(h.flags == Flags::NONE));
        }
        Kind::Write => {
            keep(h, Flags::TAGGED | Flags::COMMIT);
            h.flags |= both;
            (h.key, h.len, h.offset, h.total) = (key, len, offset & 0xffff, len.into());
            if total > 600 && len > 0 {
                h.flags = Flags::FIRST.when(flags.contains(Flags::FIRST));
                h.total = 4 * u64::from(len);
            }
        }
        Kind::Commit | Kind::Read => {
            h.flags = Flags::NONE;
            (h.key, h.offset, h.total) = (key, offset & 0xffff, total & 0xffff);
        }
        Kind::Atomic => {
            keep(h, Flags::COMMIT);
            (h.key, h.offset, h.total, h.len) = (key, 8, 8, 8);
            h.code = if code == 0x117 { code } else { 0x017 };
        }
        Kind::Announce => (h.flags, h.key, h.len) = (Flags::NONE, key, len.clamp(1, 256)),
        Kind::Withdraw => (h.flags, h.key) = (Flags::NONE, key),
        Kind::Done => {
            h.flags = Flags::NONE;
            (h.code, h.data) = if code == 0 { (0, 0x101) } else { (13, 0) };
            h.total = total;
        }
        Kind::AtomicData => (h.flags, h.len, h.total) = (Flags::NONE, 8, 8),
        Kind::Grant => {
            h.flags = Flags::NONE;
            (h.context, h.total, h.data) = (context, total & 0xffff, data);
        }
        Kind::Bye => (h.flags, h.code) = (Flags::NONE, 2),
        _ => h.flags = Flags::NONE,
    }
}

/// How many files the corpus has, each of less than 2 KiB.
const FILES: u64 = 96;

fn corpus() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

#[test]
fn corpus_breaks_nothing_and_reaches_far() {
    let mut reached = Reached::default();
    let mut files = 0;
    if std::env::var("KFABRIC_CORPUS").is_ok_and(|what| what == "write") {
        std::fs::create_dir_all(corpus()).unwrap();
        for seed in 0..FILES {
            std::fs::write(corpus().join(format!("{seed:03}")), compose(seed)).unwrap();
        }
    }
    for file in std::fs::read_dir(corpus()).expect("the corpus") {
        let script = std::fs::read(file.unwrap().path()).unwrap();
        run(&script, &mut reached);
        files += 1;
    }
    assert!(files >= FILES, "{files} files");
    println!("{:?} {:?}", reached.actions, reached.violations);
    for action in [
        "Nothing", "Discard", "Message", "Offer", "Write", "Commit", "Read", "Atomic", "Announce",
        "Withdraw",
    ] {
        assert!(reached.actions.contains_key(action), "{action}");
    }
    for violation in [
        Violation::Gap,
        Violation::Acknowledged,
        Violation::Index,
        Violation::Piece,
        Violation::Reply,
        Violation::Credit,
        Violation::Context,
    ] {
        let name = violation.name();
        assert!(reached.violations.contains_key(name), "{name}");
    }
}

#[test]
fn random_scripts_break_nothing() {
    let mut rng = testing::rng();
    let mut reached = Reached::default();
    for _ in 0..4_000 {
        let mut script = compose(rng.next_u64());
        for _ in 0..rng.below(8) {
            let at = rng.below(script.len() as u64) as usize;
            script[at] = rng.next_u64() as u8;
        }
        run(&script, &mut reached);
    }
    println!("{:?} {:?}", reached.actions, reached.violations);
}

#[test]
fn bytes_without_any_sense_break_nothing() {
    let mut rng = testing::rng();
    let mut reached = Reached::default();
    for _ in 0..2_000 {
        let mut script = vec![0; rng.below(600) as usize];
        rng.fill(&mut script);
        run(&script, &mut reached);
    }
}
