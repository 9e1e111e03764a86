// SPDX-License-Identifier: GPL-2.0

//! One side of a pair: a machine, and a model of the host around it. The host posts operations, has
//! receives that come late, memory that refuses, and takes its time to make things durable.

use super::super::atomic::{Action as Does, AtomicOp, Datatype};
use super::super::flow::{Amount, Credit, Grant};
use super::super::order::Order;
use super::super::peer::command::{Command, Op, Target, What};
use super::super::peer::incoming::{Incoming, Token};
use super::super::peer::outgoing::Outgoing;
use super::super::peer::{Action, Cancelled, Executed, Parts, Peer, Settings, Storage};
use super::super::rng::Rng;
use super::super::session::acks::Policy;
use super::super::session::past::Past;
use super::super::session::ring::Sent;
use super::super::session::{self, LinkId, State};
use super::super::wire::hello::{Limits, Name, CAP_CRC};
use super::super::wire::verdict::Verdict;
use super::super::wire::{Errno, Failure, Level, Outcome};
use super::ledger::{self, Entry, Ledger, Sort};
use super::{Scenario, MS, US};
use std::collections::VecDeque;

/// Vectors.
pub(super) struct Heap;

impl Storage for Heap {
    type Of<T> = Vec<T>;
}

/// A message or remote CQ data that met no receive.
struct Held {
    token: Token,
    serial: u64,
    bytes: u64,
    /// Its bytes are here, or come when they are asked for, or went elsewhere.
    sort: Sort,
    offered: bool,
}

pub(super) struct Node {
    pub(super) at: usize,
    pub(super) peer: Peer<Heap>,
    pub(super) links: Vec<(LinkId, usize)>,
    pub(super) timer: u64,
    /// Operations that are still to be posted.
    pub(super) quota: u64,
    posted: Vec<Option<(Op, u64)>>,
    /// By index of the peer's operation: its serial, and what it was.
    targets: Vec<Option<(Token, u64)>>,
    /// By context.
    held: Vec<VecDeque<Held>>,
    receives: Vec<u64>,
    offered: Vec<u64>,
    later: VecDeque<(Token, u64)>,
    counter: u64,
    window: Amount,
    order: Order,
    last_effect: u64,
    /// What goes on never fails: each time costs a link, and a slow payload would find none.
    steady: bool,
}

impl Node {
    /// A machine without a session, after what was before.
    fn machine(at: usize, scenario: &Scenario, past: Past) -> Peer<Heap> {
        let name = |at: usize| Name::new(&(at as u32).to_be_bytes()).unwrap();
        let limits = Limits {
            frame: scenario.frame,
            eager: scenario.eager,
            message: 1 << 20,
            ops: scenario.ops,
            contexts: 2,
        };
        let settings = Settings {
            session: session::Settings {
                name: name(at),
                peer: name(at ^ 1),
                limits,
                caps: if scenario.crc { CAP_CRC } else { 0 },
                ping: 20 * MS,
                dead: 60 * MS,
                dial: 10 * MS,
                resume: scenario.resume,
                backoff: (MS, 8 * MS),
                acks: Policy {
                    frames: 8,
                    bytes: 1 << 14,
                    delay: 100 * US,
                    answer: 300 * US,
                },
            },
            window: scenario.window,
            order: scenario.order,
        };
        let ops = usize::from(scenario.ops);
        let parts = Parts {
            ops: vec![Outgoing::vacant(); ops],
            incoming: vec![Incoming::vacant(); ops],
            sent: vec![Sent::vacant(); 2 * ops + scenario.ring],
            grants: vec![Grant::default(); 2],
            credits: vec![Credit::default(); 2],
        };
        let mut peer = Peer::new(settings, past, parts).unwrap();
        peer.start_at(scenario.start);
        peer
    }

    pub(super) fn new(at: usize, scenario: &Scenario, past: Past, quota: u64) -> Node {
        let ops = usize::from(scenario.ops);
        Node {
            at,
            peer: Self::machine(at, scenario, past),
            links: Vec::new(),
            timer: u64::MAX,
            quota,
            posted: vec![None; ops],
            targets: vec![None; ops],
            held: (0..2).map(|_| VecDeque::new()).collect(),
            receives: vec![0; 2],
            offered: vec![0; 2],
            later: VecDeque::new(),
            counter: 0,
            window: scenario.window,
            order: scenario.order,
            last_effect: 0,
            steady: scenario.slow < usize::MAX,
        }
    }

    /// Whether it has nothing more to do.
    pub(super) fn is_done(&self) -> bool {
        self.quota == 0 && self.posted.iter().all(Option::is_none)
    }

    /// Keeps of a session that is over what is to be remembered, and nothing else.
    pub(super) fn forget(&mut self, scenario: &Scenario) {
        let past = *self.peer.past();
        self.peer = Self::machine(self.at, scenario, past);
    }

    /// The process ends: nobody is told about what it posted.
    pub(super) fn die(&mut self, ledger: &mut Ledger) {
        for (_, serial) in self.posted.iter_mut().filter_map(Option::take) {
            ledger.bury(serial);
        }
    }

    /// Posts some operations, and cancels some.
    pub(super) fn work(&mut self, now: u64, rng: &mut Rng, ledger: &mut Ledger, s: &Scenario) {
        let (depth, cancel) = (s.depth, s.cancel);
        if let State::Closed(_) = self.peer.state() {
            return;
        }
        let mut outstanding = self.posted.iter().flatten().count();
        for _ in 0..1 + rng.below(8) {
            if self.quota == 0 || outstanding >= depth {
                break;
            }
            let (mut command, entry) = self.invent(rng);
            let serial = ledger.post(entry);
            name(&mut command, serial);
            match self.peer.submit(now, command) {
                Ok(op) => {
                    let place = &mut self.posted[op.index()];
                    assert!(place.is_none(), "an index that is in use");
                    *place = Some((op, serial));
                    self.quota -= 1;
                    outstanding += 1;
                }
                Err(_) => {
                    // Nothing came of it, so nobody is told.
                    ledger.entries.pop();
                    break;
                }
            }
        }
        // Not once all is posted: what is stuck must not be freed by that.
        if self.quota > 0 && rng.one_in(cancel) {
            let at = rng.below(self.posted.len() as u64) as usize;
            if let Some((op, serial)) = self.posted[at] {
                if self.peer.cancel(op) != Cancelled::No {
                    ledger.at(serial).cancelled = true;
                }
            }
        }
    }

    fn invent(&mut self, rng: &mut Rng) -> (Command, Entry) {
        let len = match rng.below(10) {
            0 => rng.below(4000),
            1 => rng.below(1200),
            2 => 0,
            _ => rng.below(200),
        };
        let target = Target::Key(0);
        let offset = rng.below(1 << 40) & !7;
        let (sort, what, len) = match rng.below(16) {
            0..5 => (Sort::Message, What::Send { tag: None }, len),
            5..9 => {
                let commit = rng.one_in(4);
                let what = What::Write {
                    target,
                    offset,
                    commit,
                };
                (Sort::Write, what, len)
            }
            9 => (
                Sort::Commit,
                What::Commit { key: 0, offset },
                rng.below(1 << 40),
            ),
            10..13 => (Sort::Read, What::Read { target, offset }, len),
            13 => (
                Sort::Announce,
                What::Announce { key: 0 },
                1 + rng.below(256),
            ),
            _ => {
                let action = match rng.below(3) {
                    0 => Does::Update(AtomicOp::Sum),
                    1 => Does::Fetch(AtomicOp::Sum),
                    _ => Does::Compare,
                };
                let what = What::Atomic {
                    key: 0,
                    offset,
                    action,
                    datatype: Datatype::U64,
                    commit: rng.one_in(4),
                };
                (Sort::Atomic, what, 8)
            }
        };
        let may_have_data = matches!(sort, Sort::Message | Sort::Write | Sort::Commit);
        let command = Command {
            what,
            len,
            data: (may_have_data && rng.one_in(3)).then(|| rng.next_u64()),
            context: rng.below(2) as u16,
        };
        let durable = match what {
            What::Write { commit, .. } | What::Atomic { commit, .. } => commit,
            What::Commit { .. } => true,
            _ => false,
        };
        let entry = Entry {
            sort,
            len,
            data: command.data,
            context: command.context,
            level: if durable {
                Level::Committed
            } else {
                Level::Delivered
            },
            refused: rng.one_in(16),
            fails: false,
            cancelled: false,
            executed: 0,
            moved: 0,
            found: 0,
            ended: 0,
            verdict: None,
        };
        (command, entry)
    }

    /// One of its operations has ended.
    pub(super) fn ended(&mut self, op: Op, verdict: Verdict, ledger: &mut Ledger) {
        let (number, serial) = self.posted[op.index()].take().expect("one that was posted");
        assert_eq!(number, op);
        ledger.end(serial, verdict);
    }

    /// Nothing of an operation of the peer is needed.
    pub(super) fn released(&mut self, token: Token) {
        self.targets[token.index()] = None;
        self.held
            .iter_mut()
            .for_each(|held| held.retain(|one| one.token != token));
        self.later.retain(|&(other, _)| other != token);
    }

    /// The bytes of the buffer that a frame is sent from.
    pub(super) fn local(&self, op: Op, offset: u64, len: u32) -> Vec<u8> {
        let place = self.posted[op.index()].filter(|&(number, _)| number == op);
        let (_, serial) = place.expect("the buffer was given back");
        ledger::bytes(serial, offset, len)
    }

    /// The bytes that are read from here.
    pub(super) fn source(&self, token: Token, offset: u64, len: u32) -> Vec<u8> {
        let place = self.targets[token.index()].filter(|&(other, _)| other == token);
        let (_, serial) = place.expect("the source was given back");
        ledger::bytes(serial, offset, len)
    }

    /// What an atomic found here.
    pub(super) fn fetched(&self, token: Token, ledger: &mut Ledger) -> Vec<u8> {
        let place = self.targets[token.index()].filter(|&(other, _)| other == token);
        let (_, serial) = place.expect("what was fetched was given back");
        ledger.at(serial).found.to_le_bytes().to_vec()
    }

    fn serial_of(&self, token: Token) -> u64 {
        let place = self.targets[token.index()].filter(|&(other, _)| other == token);
        place.expect("an operation that goes on").1
    }

    /// Whether a receive is there now; `serial` is offered.
    fn meets(&mut self, context: u16, serial: u64) -> bool {
        let context = usize::from(context);
        let meets = self.held[context].is_empty() && self.receives[context] > 0;
        if meets {
            self.receives[context] -= 1;
        }
        // Messages to a context keep their order.
        assert!(serial >= self.offered[context], "{serial} was overtaken");
        self.offered[context] = serial;
        meets
    }

    fn hold(&mut self, context: u16, held: Held) {
        let window = self.window;
        let queue = &mut self.held[usize::from(context)];
        queue.push_back(held);
        let messages = queue.len();
        let bytes: u64 = queue.iter().map(|one| one.bytes).sum();
        assert!(
            messages <= window.messages as usize,
            "{messages} messages are held"
        );
        assert!(bytes <= window.bytes, "{bytes} bytes are held");
    }

    /// An effect of the peer's operation, for those that have to be in order.
    fn effect(&mut self, serial: u64) {
        if self.order.contains(Order::STRICT) {
            assert!(
                serial >= self.last_effect,
                "{serial} after {}",
                self.last_effect
            );
            self.last_effect = serial;
        }
    }

    /// Another process is at the other end.
    pub(super) fn opened(&mut self, fresh: bool) {
        if fresh {
            self.offered = vec![0; 2];
            self.last_effect = 0;
        }
    }

    /// Does what a frame asks for.
    pub(super) fn act(
        &mut self,
        action: &Action,
        payload: &[u8],
        ledger: &mut Ledger,
        rng: &mut Rng,
    ) -> Executed {
        let done = Executed::Done(Level::Delivered);
        let refuse = |errno| Executed::Failed(Failure::new(errno, Outcome::NotExecuted));
        let occupy = |targets: &mut Vec<Option<(Token, u64)>>, token: Token, serial: u64| {
            targets[token.index()] = Some((token, serial));
        };
        match *action {
            Action::Nothing | Action::Events | Action::Discard => done,
            Action::Message {
                token,
                context,
                tag,
                data,
                len,
            } => {
                let serial = tag.unwrap();
                ledger.compare(serial, context, data);
                assert_eq!(u64::from(len), ledger.at(serial).len);
                self.effect(serial);
                if ledger.at(serial).refused {
                    return refuse(Errno::EMSGSIZE);
                }
                ledger.place(serial, 0, payload);
                if self.meets(context, serial) {
                    ledger.execute(serial);
                    return done;
                }
                occupy(&mut self.targets, token, serial);
                let held = Held {
                    token,
                    serial,
                    bytes: len.into(),
                    sort: Sort::Message,
                    offered: false,
                };
                self.hold(context, held);
                Executed::Waits
            }
            Action::Offer {
                token,
                context,
                tag,
                data,
                len,
            } => {
                let serial = tag.unwrap();
                ledger.compare(serial, context, data);
                assert_eq!(len, ledger.at(serial).len);
                self.effect(serial);
                if ledger.at(serial).refused {
                    return refuse(Errno::EMSGSIZE);
                }
                occupy(&mut self.targets, token, serial);
                if self.meets(context, serial) {
                    return done;
                }
                let held = Held {
                    token,
                    serial,
                    bytes: 0,
                    sort: Sort::Message,
                    offered: true,
                };
                self.hold(context, held);
                Executed::Waits
            }
            Action::Piece {
                token,
                offset,
                last,
                ..
            } => {
                let serial = self.serial_of(token);
                ledger.place(serial, offset, payload);
                if last {
                    ledger.execute(serial);
                    self.targets[token.index()] = None;
                }
                done
            }
            Action::Write {
                token,
                target: Target::Key(serial),
                piece,
                whole,
                first,
                last,
                commit,
                data,
                ..
            } => {
                if first {
                    self.effect(serial);
                    if ledger.at(serial).refused {
                        return refuse(Errno::EACCES);
                    }
                    occupy(&mut self.targets, token, serial);
                    assert_eq!(whole.unwrap().len, ledger.at(serial).len);
                }
                assert!(!ledger.at(serial).refused, "a piece after a refusal");
                let base = ledger.at(serial).moved;
                if !first && rng.one_in(64) {
                    ledger.at(serial).fails = true;
                    return Executed::Failed(Failure::new(Errno::EIO, Outcome::Unknown));
                }
                if let Some(whole) = whole {
                    ledger.place(serial, piece.offset - whole.offset, payload);
                } else {
                    ledger.place(serial, base, payload);
                }
                ledger.compare_level(serial, commit);
                if !last {
                    assert_eq!(data, None, "{serial} is not whole");
                    return done;
                }
                ledger.execute(serial);
                self.finish(token, serial, data, commit && rng.one_in(2), ledger)
            }
            Action::Commit {
                token,
                key,
                range,
                data,
            } => {
                self.effect(key);
                assert_eq!(range.len, ledger.at(key).len);
                if ledger.at(key).refused {
                    return refuse(Errno::EACCES);
                }
                ledger.execute(key);
                occupy(&mut self.targets, token, key);
                self.finish(token, key, data, rng.one_in(2), ledger)
            }
            Action::Read {
                token,
                target: Target::Key(serial),
                range,
                ..
            } => {
                self.effect(serial);
                if ledger.at(serial).refused {
                    return refuse(Errno::EACCES);
                }
                assert_eq!(range.len, ledger.at(serial).len);
                ledger.execute(serial);
                occupy(&mut self.targets, token, serial);
                if rng.one_in(8) {
                    self.later.push_back((token, serial));
                    return Executed::Waits;
                }
                done
            }
            Action::Atomic {
                token,
                key,
                action,
                commit,
                ..
            } => {
                self.effect(key);
                if ledger.at(key).refused {
                    return refuse(Errno::EACCES);
                }
                ledger.place(key, 0, &payload[..8]);
                ledger.compare_level(key, commit);
                ledger.execute(key);
                ledger.at(key).found = self.counter;
                self.counter += 1;
                if action.fetches() {
                    occupy(&mut self.targets, token, key);
                }
                if commit && rng.one_in(2) {
                    occupy(&mut self.targets, token, key);
                    self.later.push_back((token, key));
                    return Executed::Waits;
                }
                Executed::Done(ledger.at(key).level)
            }
            Action::Withdrawn { token } => {
                for held in &mut self.held {
                    let Some(at) = held.iter().position(|one| one.token == token) else {
                        continue;
                    };
                    let one = held.remove(at).unwrap();
                    assert!(ledger.at(one.serial).cancelled, "nobody asked for that");
                    let failure = match one.sort {
                        Sort::Message => Failure::new(Errno::ECANCELED, Outcome::NotExecuted),
                        _ => Failure {
                            errno: Errno::ECANCELED,
                            outcome: Outcome::Executed,
                            level: Some(Level::Delivered),
                        },
                    };
                    return Executed::Failed(failure);
                }
                done
            }
            Action::Announce { key, .. } => {
                if ledger.at(key).refused {
                    return refuse(Errno::EACCES);
                }
                ledger.place(key, 0, payload);
                ledger.execute(key);
                done
            }
            Action::ReadData { op, offset, .. } => {
                let (_, serial) = self.posted[op.index()].unwrap();
                ledger.place(serial, offset, payload);
                done
            }
            Action::AtomicData { op, .. } => {
                let (_, serial) = self.posted[op.index()].unwrap();
                let found = ledger.at(serial).found;
                assert_eq!(payload, found.to_le_bytes(), "what {serial} found");
                done
            }
            ref other => panic!("{other:?}"),
        }
    }

    /// A write or commit is placed: is it durable, and do its data meet a receive?
    fn finish(
        &mut self,
        token: Token,
        serial: u64,
        data: Option<(u16, u64)>,
        slow: bool,
        ledger: &mut Ledger,
    ) -> Executed {
        let entry = ledger.at(serial);
        let (sort, level) = (entry.sort, entry.level);
        assert_eq!(data.is_some(), entry.data.is_some(), "{serial}");
        match data {
            Some((context, data)) => {
                ledger.compare(serial, context, Some(data));
                let context = usize::from(context);
                if self.held[context].is_empty() && self.receives[context] > 0 {
                    self.receives[context] -= 1;
                    return Executed::Done(level);
                }
                let held = Held {
                    token,
                    serial,
                    bytes: 0,
                    sort,
                    offered: false,
                };
                self.hold(context as u16, held);
                Executed::Waits
            }
            None if slow => {
                self.later.push_back((token, serial));
                Executed::Waits
            }
            None => Executed::Done(level),
        }
    }

    /// Posts receives, and ends what takes time. Whether the link is to be lost for it.
    pub(super) fn consume(&mut self, rng: &mut Rng, ledger: &mut Ledger) -> bool {
        for context in 0..2 {
            for _ in 0..rng.below(6) {
                let Some(held) = self.held[context].pop_front() else {
                    self.receives[context] = (self.receives[context] + 1).min(4);
                    continue;
                };
                if held.sort == Sort::Message && !held.offered {
                    ledger.execute(held.serial);
                }
                let level = ledger.at(held.serial).level;
                assert!(self.peer.reply(held.token, Ok(level)));
            }
        }
        for _ in 0..rng.below(6) {
            let Some((token, serial)) = self.later.pop_front() else {
                break;
            };
            let level = ledger.at(serial).level;
            assert!(self.peer.reply(token, Ok(level)));
        }
        // Sometimes what goes on fails: a read's source, a message's receive, a write's region.
        let (at, steady) = (rng.below(self.targets.len() as u64) as usize, self.steady);
        let Some((token, serial)) = self.targets[at].filter(|_| !steady && rng.one_in(50)) else {
            return false;
        };
        if self.held.iter().flatten().any(|held| held.token == token)
            || self.later.iter().any(|&(other, _)| other == token)
        {
            return false;
        }
        let sort = ledger.at(serial).sort;
        let failure = Failure::new(Errno::ENODEV, Outcome::Unknown);
        if !matches!(sort, Sort::Read | Sort::Message | Sort::Write) {
            return false;
        }
        if self.peer.reply(token, Err(failure)) {
            ledger.at(serial).fails = true;
        }
        sort == Sort::Read
    }
}

/// Has frames tell the serial number: as a tag or as a key, which mean nothing to the machine.
fn name(command: &mut Command, serial: u64) {
    match &mut command.what {
        What::Send { tag } => *tag = Some(serial),
        What::Write { target, .. } | What::Read { target, .. } => *target = Target::Key(serial),
        What::Commit { key, .. }
        | What::Atomic { key, .. }
        | What::Announce { key }
        | What::Withdraw { key } => *key = serial,
    }
}
