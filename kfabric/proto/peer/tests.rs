// SPDX-License-Identifier: GPL-2.0

use super::super::atomic::{Action as Does, AtomicOp, Datatype};
use super::super::session::acks::Policy;
use super::super::wire::hello::{Name, CAP_CRC, MAX, VERSIONS};
use super::super::wire::{Flags, Header, Kind, Level};
use super::command::Target;
use super::*;

mod parting;
mod rest;
mod slow;
mod tagged;

const MS: u64 = 1_000_000;
const FRAME: u32 = 512;
const EAGER: u32 = 256;

/// Vectors.
pub(super) struct Heap;

impl Storage for Heap {
    type Of<T> = Vec<T>;
}

fn machine(name: &[u8], peer: &[u8], incarnation: u64, order: Order) -> Peer<Heap> {
    let limits = Limits {
        frame: FRAME,
        eager: EAGER,
        message: 1 << 20,
        ops: 16,
        contexts: 2,
    };
    let settings = Settings {
        session: session::Settings {
            name: Name::new(name).unwrap(),
            peer: Name::new(peer).unwrap(),
            limits,
            caps: CAP_CRC,
            ping: 100 * MS,
            dead: 300 * MS,
            dial: 50 * MS,
            resume: 1000 * MS,
            backoff: (10 * MS, 80 * MS),
            acks: Policy {
                frames: 8,
                bytes: 1 << 16,
                delay: MS,
                answer: MS,
            },
        },
        window: Amount::new(8, 1024),
        order,
    };
    let parts = Parts {
        ops: vec![Outgoing::vacant(); 16],
        incoming: vec![Incoming::vacant(); 16],
        sent: vec![Sent::vacant(); 64],
        grants: vec![Grant::default(); 2],
        credits: vec![Credit::default(); 2],
    };
    Peer::new(settings, Past::new(incarnation), parts).unwrap()
}

/// Two machines and the link between them.
struct Pair {
    peers: [Peer<Heap>; 2],
    links: [Option<LinkId>; 2],
    now: u64,
    events: [Vec<Event>; 2],
    /// What was asked of each side.
    actions: [Vec<Action>; 2],
    /// What each side answers next; else that it is done.
    answers: [Vec<Executed>; 2],
    /// What each side has sent.
    sent: [Vec<Header>; 2],
}

impl Pair {
    fn new(order: Order) -> Pair {
        let mut pair = Pair {
            peers: [
                machine(b"a", b"b", 100, order),
                machine(b"b", b"a", 200, order),
            ],
            links: [None; 2],
            now: 0,
            events: Default::default(),
            actions: Default::default(),
            answers: Default::default(),
            sent: Default::default(),
        };
        pair.peers[0].session.want(0);
        pair.connect();
        pair.run();
        pair.forget();
        pair
    }

    fn forget(&mut self) {
        self.events = Default::default();
        self.actions = Default::default();
        self.sent = Default::default();
    }

    /// Side 0 dials.
    fn connect(&mut self) {
        while self.peers[0].state() != State::Dialing {
            self.now += 10 * MS;
            self.peers[0].handle_timeout(self.now);
        }
        let link = self.peers[0].link().unwrap();
        self.peers[0].link_up(link);
        let mut out = [0; MAX];
        let (_, len) = self.peers[0].poll_hello(&mut out).unwrap();
        let hello = Hello::parse(&out[..len]).unwrap();
        let Ok(Accept::Take(at_b, _)) = self.peers[1].accept(self.now, &hello) else {
            panic!("not taken");
        };
        let (_, len) = self.peers[1].poll_hello(&mut out).unwrap();
        let hello = Hello::parse(&out[..len]).unwrap();
        self.peers[0].greeted(self.now, link, &hello).unwrap();
        self.links = [Some(link), Some(at_b)];
        self.drain();
    }

    fn lose(&mut self) {
        for side in 0..2 {
            let link = self.links[side].take().unwrap();
            self.peers[side].link_lost(self.now, link);
        }
    }

    fn drain(&mut self) {
        for side in 0..2 {
            while let Some(event) = self.peers[side].poll_event() {
                self.events[side].push(event);
            }
        }
    }

    /// One frame of `side`, checked as bytes.
    fn frame(&mut self, side: usize) -> Option<Header> {
        let transmit = self.peers[side].poll_transmit(self.now)?;
        let bytes = transmit.header.emit(transmit.crc);
        let crc = self.peers[1 - side].has_crc();
        let header = Header::parse(&bytes, FRAME, crc).unwrap();
        assert_eq!(header.len > 0, transmit.payload != Payload::None);
        self.sent[side].push(header);
        Some(header)
    }

    /// Brings a frame to `side`.
    fn deliver(&mut self, side: usize, header: &Header) -> Result<(), Violation> {
        let link = self.peers[side].link().unwrap_or(self.links[side].unwrap());
        loop {
            let action = self.peers[side].handle_frame(self.now, link, header)?;
            self.drain();
            match action {
                Action::Events => continue,
                Action::Nothing => (),
                action => {
                    let answers = &mut self.answers[side];
                    let discards = action == Action::Discard;
                    let answer = if answers.is_empty() || discards {
                        Executed::Done(Level::Committed)
                    } else {
                        answers.remove(0)
                    };
                    self.actions[side].push(action);
                    self.peers[side].executed(self.now, answer)?;
                }
            }
            self.drain();
            return Ok(());
        }
    }

    /// Until nobody has anything to say.
    fn run(&mut self) {
        loop {
            let mut quiet = true;
            for side in 0..2 {
                while let Some(header) = self.frame(side) {
                    self.deliver(1 - side, &header).unwrap();
                    quiet = false;
                }
            }
            self.drain();
            if quiet {
                return;
            }
        }
    }

    /// Until what is delayed was said, too.
    fn settle(&mut self) {
        self.run();
        self.now += 2 * MS;
        self.run();
    }

    fn submit(&mut self, side: usize, command: Command) -> Op {
        self.peers[side].submit(self.now, command).unwrap()
    }

    /// How the operations of `side` ended.
    fn ended(&mut self, side: usize) -> Vec<(Op, Verdict)> {
        let events = std::mem::take(&mut self.events[side]);
        let ended = events.into_iter().filter_map(|event| match event {
            Event::Ended { op, verdict, .. } => Some((op, verdict)),
            _ => None,
        });
        ended.collect()
    }

    fn kinds(&self, side: usize) -> Vec<Kind> {
        self.sent[side].iter().map(|header| header.kind).collect()
    }

    fn token(&self, side: usize, nth: usize) -> Token {
        match self.actions[side][nth] {
            Action::Message { token, .. }
            | Action::Offer { token, .. }
            | Action::Write { token, .. }
            | Action::Read { token, .. }
            | Action::Commit { token, .. }
            | Action::Atomic { token, .. } => token,
            action => panic!("{action:?}"),
        }
    }
}

fn write(len: u64) -> Command {
    Command {
        what: What::Write {
            target: Target::Key(7),
            offset: 1000,
            commit: false,
        },
        ..Command::send(len)
    }
}

fn read(len: u64) -> Command {
    Command {
        what: What::Read {
            target: Target::Key(7),
            offset: 5000,
        },
        ..Command::send(len)
    }
}

fn fetch() -> Command {
    Command {
        what: What::Atomic {
            key: 7,
            offset: 8,
            action: Does::Fetch(AtomicOp::Sum),
            datatype: Datatype::U64,
            commit: false,
        },
        ..Command::send(8)
    }
}

const GOOD: Verdict = Ok(Level::Delivered);

fn failed(errno: Errno) -> Failure {
    Failure::new(errno, Outcome::NotExecuted)
}

#[test]
fn small_message_and_write_cost_no_reply() {
    let mut pair = Pair::new(Order::NONE);
    let sent = pair.submit(0, Command::send(100));
    let wrote = pair.submit(0, write(100));
    pair.run();
    assert_eq!(pair.kinds(0), [Kind::Send, Kind::Write]);
    assert_eq!(pair.kinds(1), [Kind::Ack]);
    assert_eq!(pair.ended(0), [(sent, GOOD), (wrote, GOOD)]);
    pair.settle();
    assert!(pair.peers.iter().all(Peer::is_quiet));
}

#[test]
fn answers_carry_acknowledgements_once_they_are_expected() {
    let mut pair = Pair::new(Order::NONE);
    let mut frames = Vec::new();
    for _ in 0..8 {
        pair.forget();
        let mut ops = Vec::new();
        for side in 0..2 {
            ops.push(pair.submit(side, Command::send(10)));
            pair.run();
        }
        // Credit is given back all the same.
        let sent = pair.sent.iter().flatten();
        frames.push(sent.filter(|header| header.kind != Kind::Grant).count());
        // The first was acknowledged by its answer; that is, by the next message.
        assert_eq!(pair.ended(0), [(ops[0], GOOD)]);
    }
    assert_eq!(frames, [4, 2, 4, 2, 2, 2, 2, 2]);
    // Now no answer comes.
    pair.forget();
    let op = pair.submit(0, Command::send(10));
    pair.run();
    assert_eq!(pair.kinds(1), []);
    pair.settle();
    assert_eq!(pair.kinds(1), [Kind::Ack]);
    assert_eq!(pair.ended(0), [(op, GOOD)]);
    let op = pair.submit(0, Command::send(10));
    pair.run();
    // At once, if by a grant.
    assert_eq!(pair.kinds(1).len(), 2);
    assert_eq!(pair.ended(0), [(op, GOOD)]);
}

#[test]
fn refusal_comes_before_the_acknowledgement() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Failed(failed(Errno::EACCES)));
    let refused = pair.submit(0, write(100));
    let good = pair.submit(0, write(100));
    pair.run();
    assert_eq!(pair.kinds(1)[0], Kind::Done);
    let ended = pair.ended(0);
    assert_eq!(ended, [(refused, Err(failed(Errno::EACCES))), (good, GOOD)]);
}

#[test]
fn reply_does_not_acknowledge_what_the_next_one_is_about() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1] = vec![Executed::Waits, Executed::Failed(failed(Errno::EACCES))];
    let parked = pair.submit(0, Command::send(10));
    let refused = pair.submit(0, write(10));
    let good = pair.submit(0, write(10));
    let frames: Vec<_> = std::iter::from_fn(|| pair.frame(0)).collect();
    for frame in &frames {
        pair.deliver(1, frame).unwrap();
    }
    pair.run();
    assert_eq!(pair.kinds(1), [Kind::Parked, Kind::Done]);
    let acks: Vec<_> = pair.sent[1].iter().map(|h| h.ack).collect();
    assert_eq!(acks, [frames[0].seq, frames[2].seq]);
    let ended = pair.ended(0);
    assert_eq!(ended, [(refused, Err(failed(Errno::EACCES))), (good, GOOD)]);
    assert!(pair.peers[1].reply(pair.token(1, 0), GOOD));
    pair.run();
    assert_eq!(pair.ended(0), [(parked, GOOD)]);
}

#[test]
fn message_that_fails_midway_is_not_acknowledged_before_that_is_said() {
    let mut pair = Pair::new(Order::NONE);
    let op = pair.submit(0, Command::send(1000));
    let other = pair.submit(0, write(10));
    let rts = pair.frame(0).unwrap();
    pair.deliver(1, &rts).unwrap();
    let cts = pair.frame(1).unwrap();
    pair.deliver(0, &cts).unwrap();
    // The receive ends before the pieces come; and something else is refused after them.
    let failure = Failure::new(Errno::ECANCELED, Outcome::Unknown);
    pair.peers[1].reply(pair.token(1, 0), Err(failure));
    let refusal = Failure::new(Errno::EACCES, Outcome::NotExecuted);
    pair.answers[1].push(Executed::Failed(refusal));
    let frames: Vec<_> = std::iter::from_fn(|| pair.frame(0)).collect();
    for frame in &frames {
        pair.deliver(1, frame).unwrap();
    }
    pair.run();
    let mut ended = pair.ended(0);
    ended.sort_by_key(|(op, _)| op.0);
    assert_eq!(ended, [(op, Err(failure)), (other, Err(refusal))]);
}

#[test]
fn refusal_survives_a_lost_link() {
    let mut pair = Pair::new(Order::NONE);
    // b has frames of its own on the way when it refuses a's.
    pair.submit(1, write(10));
    let early = pair.frame(1).unwrap();
    pair.answers[1].push(Executed::Failed(failed(Errno::EACCES)));
    let refused = pair.submit(0, write(100));
    let frame = pair.frame(0).unwrap();
    pair.deliver(1, &frame).unwrap();
    assert_eq!(pair.frame(1).unwrap().kind, Kind::Done);
    pair.lose();
    pair.connect();
    // What is sent again does not acknowledge what the refusal is about.
    let again = pair.frame(1).unwrap();
    assert_eq!((again.seq, again.ack), (early.seq, early.ack));
    pair.deliver(0, &again).unwrap();
    assert_eq!(pair.ended(0), []);
    pair.run();
    assert_eq!(pair.ended(0), [(refused, Err(failed(Errno::EACCES)))]);
}

#[test]
fn pieces_after_a_refusal_are_dropped() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Failed(failed(Errno::ERANGE)));
    let op = pair.submit(0, write(3 * u64::from(FRAME)));
    let frames: Vec<_> = std::iter::from_fn(|| pair.frame(0)).collect();
    assert_eq!(frames.len(), 3);
    for frame in &frames {
        pair.deliver(1, frame).unwrap();
    }
    assert!(matches!(
        pair.actions[1][0],
        Action::Write {
            first: true,
            last: false,
            ..
        }
    ));
    assert_eq!(pair.actions[1][1..], [Action::Discard, Action::Discard]);
    pair.run();
    assert_eq!(pair.ended(0), [(op, Err(failed(Errno::ERANGE)))]);
    pair.settle();
    assert!(pair.peers[1].is_quiet());
}

#[test]
fn write_tells_its_whole_range_first_and_last() {
    let mut pair = Pair::new(Order::NONE);
    let len = 2 * u64::from(FRAME) + 1;
    pair.submit(0, write(len));
    pair.run();
    let wholes = pair.actions[1].iter().map(|action| match action {
        Action::Write { whole, piece, .. } => (whole.map(|r| (r.offset, r.len)), piece.len),
        other => panic!("{other:?}"),
    });
    let whole = Some((1000, len));
    assert_eq!(
        wholes.collect::<Vec<_>>(),
        [(whole, 512), (None, 512), (whole, 1)]
    );
}

#[test]
fn parked_message_ends_when_a_receive_takes_it() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Waits);
    let op = pair.submit(0, Command::send(100));
    pair.run();
    assert_eq!(pair.kinds(1), [Kind::Parked]);
    assert_eq!(pair.ended(0), []);
    let token = pair.token(1, 0);
    assert!(pair.peers[1].reply(token, GOOD));
    assert!(!pair.peers[1].reply(token, GOOD));
    pair.run();
    assert_eq!(pair.ended(0), [(op, GOOD)]);
    pair.settle();
    assert!(pair.peers.iter().all(Peer::is_quiet));
}

#[test]
fn receive_that_is_quick_saves_the_parking() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Waits);
    let op = pair.submit(0, Command::send(100));
    let frame = pair.frame(0).unwrap();
    pair.deliver(1, &frame).unwrap();
    assert!(pair.peers[1].reply(pair.token(1, 0), GOOD));
    pair.run();
    assert_eq!(pair.kinds(1), [Kind::Done]);
    assert_eq!(pair.ended(0), [(op, GOOD)]);
}

#[test]
fn long_message_comes_when_it_is_asked_for() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Waits);
    let op = pair.submit(0, Command::send(u64::from(EAGER) + 400));
    pair.run();
    assert_eq!(pair.kinds(0), [Kind::Rts]);
    assert!(pair.peers[1].reply(pair.token(1, 0), GOOD));
    pair.run();
    assert_eq!(pair.kinds(0)[1..], [Kind::Data, Kind::Data]);
    let last = *pair.actions[1].last().unwrap();
    assert!(matches!(
        last,
        Action::Piece {
            offset: 512,
            len: 144,
            last: true,
            ..
        }
    ));
    assert_eq!(pair.ended(0), [(op, GOOD)]);
    pair.settle();
    assert!(pair.peers.iter().all(Peer::is_quiet));
}

#[test]
fn eager_limit_has_two_sides() {
    let mut pair = Pair::new(Order::NONE);
    pair.submit(0, Command::send(EAGER.into()));
    pair.submit(0, Command::send(u64::from(EAGER) + 1));
    pair.run();
    assert_eq!(pair.kinds(0)[..2], [Kind::Send, Kind::Rts]);
    let long = pair.submit(0, Command::send(1 << 20));
    let too_long = pair.submit(0, Command::send((1 << 20) + 1));
    pair.forget();
    pair.run();
    let ended = pair.ended(0);
    assert!(ended.contains(&(long, GOOD)));
    assert!(ended.contains(&(too_long, Err(failed(Errno::EMSGSIZE)))));
}

#[test]
fn sender_without_credit_waits_and_others_pass() {
    let mut pair = Pair::new(Order::NONE);
    // Eight messages, as none of them meets a receive.
    pair.answers[1] = vec![Executed::Waits; 8];
    let ops: Vec<_> = (0..10).map(|_| pair.submit(0, Command::send(10))).collect();
    let other = pair.submit(
        0,
        Command {
            context: 1,
            ..Command::send(10)
        },
    );
    let wrote = pair.submit(0, write(10));
    pair.settle();
    let sends = pair
        .kinds(0)
        .iter()
        .filter(|&&kind| kind == Kind::Send)
        .count();
    assert_eq!(sends, 9);
    assert_eq!(pair.ended(0), [(other, GOOD), (wrote, GOOD)]);
    for nth in 0..8 {
        pair.peers[1].reply(pair.token(1, nth), GOOD);
    }
    pair.run();
    let ended: Vec<_> = pair.ended(0).into_iter().map(|(op, _)| op).collect();
    assert_eq!(ended, ops);
}

#[test]
fn overdrawn_credit_ends_the_peer() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1] = vec![Executed::Waits; 8];
    for _ in 0..8 {
        pair.submit(0, Command::send(10));
    }
    for _ in 0..8 {
        let frame = pair.frame(0).unwrap();
        assert_eq!(pair.deliver(1, &frame), Ok(()));
    }
    // One more than it has credit for.
    let last = *pair.sent[0].last().unwrap();
    let (seq, op) = (last.seq + 1, last.op + 1);
    let beyond = Header { seq, op, ..last };
    assert_eq!(pair.deliver(1, &beyond), Err(Violation::Credit));
    assert_eq!(pair.peers[1].state(), State::Closed(End::Violated));
    pair.drain();
    let released = |event: &&Event| matches!(event, Event::Released(_));
    assert_eq!(pair.events[1].iter().filter(released).count(), 8);
    // The peer is told, and what it posted ends.
    let bye = pair.frame(1).unwrap();
    assert_eq!((bye.kind, bye.code), (Kind::Bye, Reason::Protocol as u16));
    pair.deliver(0, &bye).unwrap();
    let unknown = Err(Failure::new(Errno::ENOTCONN, Outcome::Unknown));
    assert!(pair.ended(0).iter().all(|&(_, verdict)| verdict == unknown));
}

#[test]
fn cancel_withdraws_what_no_receive_has_met() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1] = vec![Executed::Waits, Executed::Failed(failed(Errno::ECANCELED))];
    let parked = pair.submit(0, Command::send(10));
    pair.run();
    assert_eq!(pair.peers[0].cancel(parked), Cancelled::Asked);
    assert_eq!(pair.peers[0].cancel(parked), Cancelled::Asked);
    pair.run();
    assert_eq!(pair.kinds(0), [Kind::Send, Kind::Cancel]);
    let cancelled = Err(failed(Errno::ECANCELED));
    assert_eq!(pair.ended(0), [(parked, cancelled)]);
    assert_eq!(pair.peers[0].cancel(parked), Cancelled::No);
    // One that was not sent ends at once; one that is written is under way.
    let queued = pair.submit(0, Command::send(10));
    assert_eq!(pair.peers[0].cancel(queued), Cancelled::Ended);
    pair.drain();
    assert_eq!(pair.ended(0), [(queued, cancelled)]);
    let written = pair.submit(0, write(10));
    pair.frame(0).unwrap();
    assert_eq!(pair.peers[0].cancel(written), Cancelled::No);
}

#[test]
fn cancel_that_is_too_late_changes_nothing() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1] = vec![Executed::Waits, Executed::Waits];
    let op = pair.submit(0, Command::send(10));
    pair.run();
    pair.peers[0].cancel(op);
    let cancel = pair.frame(0).unwrap();
    // The receive is posted while the cancel is under way.
    pair.peers[1].reply(pair.token(1, 0), GOOD);
    pair.deliver(1, &cancel).unwrap();
    pair.run();
    assert_eq!(pair.ended(0), [(op, GOOD)]);
}

#[test]
fn read_comes_in_pieces_and_its_source_is_kept_until_then() {
    let mut pair = Pair::new(Order::NONE);
    let op = pair.submit(0, read(2 * u64::from(FRAME) + 1));
    let frame = pair.frame(0).unwrap();
    pair.deliver(1, &frame).unwrap();
    let pieces: Vec<_> = std::iter::from_fn(|| pair.frame(1)).collect();
    assert_eq!(pieces.len(), 3);
    pair.drain();
    assert!(pair.events[1].is_empty());
    for piece in &pieces {
        pair.deliver(0, piece).unwrap();
    }
    assert_eq!(pair.ended(0), [(op, GOOD)]);
    // The acknowledgement comes with the next operation, of the same number.
    pair.submit(0, read(0));
    pair.run();
    assert!(pair.events[1].contains(&Event::Released(pair.token(1, 0))));
    assert_eq!(pair.ended(0).len(), 1);
}

#[test]
fn read_whose_source_fails_ends_with_that() {
    for given_out in 0..=3 {
        let mut pair = Pair::new(Order::NONE);
        let op = pair.submit(0, read(3 * u64::from(FRAME)));
        let frame = pair.frame(0).unwrap();
        pair.deliver(1, &frame).unwrap();
        for _ in 0..given_out {
            pair.frame(1).unwrap();
        }
        let failure = Failure::new(Errno::ENODEV, Outcome::Unknown);
        assert!(pair.peers[1].reply(pair.token(1, 0), Err(failure)));
        // As the engine must, if something was given out and not sent.
        pair.lose();
        pair.connect();
        pair.forget();
        pair.run();
        assert!(!pair.kinds(1).contains(&Kind::ReadData), "{given_out}");
        assert_eq!(pair.ended(0), [(op, Err(failure))], "{given_out}");
        assert!(pair.peers[0].outstanding() == (0, 0));
    }
}

#[test]
fn atomic_fetches_and_is_executed_once() {
    let mut pair = Pair::new(Order::NONE);
    let op = pair.submit(0, fetch());
    let frame = pair.frame(0).unwrap();
    pair.deliver(1, &frame).unwrap();
    let data = pair.frame(1).unwrap();
    assert_eq!((data.kind, data.len), (Kind::AtomicData, 8));
    // Neither the answer nor the acknowledgement arrives.
    pair.lose();
    pair.connect();
    pair.run();
    assert_eq!(pair.actions[1].len(), 1);
    assert_eq!(pair.ended(0), [(op, GOOD)]);
    // And a duplicate is none.
    pair.deliver(1, &frame).unwrap();
    assert_eq!(pair.actions[1].last(), Some(&Action::Discard));
}

#[test]
fn update_of_words_costs_no_reply() {
    let mut pair = Pair::new(Order::NONE);
    let mut command = fetch();
    if let What::Atomic { action, .. } = &mut command.what {
        *action = Does::Update(AtomicOp::Sum);
    }
    let op = pair.submit(0, command);
    pair.run();
    assert_eq!(pair.kinds(1), [Kind::Ack]);
    assert_eq!(pair.ended(0), [(op, GOOD)]);
}

#[test]
fn commit_is_answered_when_it_is_durable() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1] = vec![Executed::Waits, Executed::Waits];
    let mut command = write(10);
    if let What::Write { commit, .. } = &mut command.what {
        *commit = true;
    }
    let wrote = pair.submit(0, command);
    let range = Command {
        what: What::Commit { key: 7, offset: 0 },
        ..Command::send(1 << 40)
    };
    let committed = pair.submit(0, range);
    pair.run();
    assert_eq!(pair.ended(0), []);
    assert_eq!(pair.kinds(1), [Kind::Ack]);
    let durable = Ok(Level::Committed);
    pair.peers[1].reply(pair.token(1, 1), durable);
    pair.run();
    assert_eq!(pair.ended(0), [(committed, durable)]);
    let failure = Failure {
        errno: Errno::EIO,
        outcome: Outcome::Executed,
        level: Some(Level::Delivered),
    };
    pair.peers[1].reply(pair.token(1, 0), Err(failure));
    pair.run();
    assert_eq!(pair.ended(0), [(wrote, Err(failure))]);
}

#[test]
fn frame_that_was_cut_off_comes_again_whole() {
    let mut pair = Pair::new(Order::NONE);
    let op = pair.submit(0, write(100));
    let frame = pair.frame(0).unwrap();
    let link = pair.links[1].unwrap();
    let action = pair.peers[1].handle_frame(pair.now, link, &frame).unwrap();
    assert!(matches!(action, Action::Write { .. }) && pair.peers[1].is_pending());
    pair.lose();
    assert!(!pair.peers[1].is_pending());
    assert_eq!(
        pair.peers[1].executed(0, Executed::Done(Level::Delivered)),
        Ok(false)
    );
    pair.connect();
    pair.run();
    assert_eq!(pair.actions[1].len(), 1);
    assert_eq!(pair.ended(0), [(op, GOOD)]);
}

#[test]
fn restarted_peer_ends_what_was_in_flight_and_tells_what_was_sent() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Waits);
    let parked = pair.submit(0, Command::send(10));
    pair.run();
    let sent = pair.submit(0, write(10));
    pair.frame(0).unwrap();
    let queued = pair.submit(0, write(10));
    pair.lose();
    pair.peers[1] = machine(b"b", b"a", 999, Order::NONE);
    pair.connect();
    let reset = |outcome| Err(Failure::new(Errno::ECONNRESET, outcome));
    assert_eq!(
        pair.ended(0),
        [
            (parked, reset(Outcome::Unknown)),
            (sent, reset(Outcome::Unknown)),
            (queued, reset(Outcome::NotExecuted))
        ]
    );
    pair.submit(0, write(10));
    pair.run();
    assert_eq!(pair.ended(0).len(), 1);
}

#[test]
fn operations_wait_for_the_first_link_and_then_give_up() {
    let mut a = machine(b"a", b"b", 1, Order::NONE);
    let ops: Vec<_> = (0..16).map(|_| a.submit(5, write(1)).unwrap()).collect();
    assert_eq!(a.submit(5, write(1)), Err(Refused::Full));
    let mut now = 5;
    while !matches!(a.state(), State::Closed(_)) {
        now = a.deadline().expect("a deadline");
        a.handle_timeout(now);
        while !matches!(a.state(), State::Closed(_)) && a.poll_event().is_some() {}
    }
    assert_eq!(now, 5 + 1000 * MS);
    let events: Vec<_> = std::iter::from_fn(|| a.poll_event()).collect();
    let never = Err(Failure::new(Errno::EHOSTUNREACH, Outcome::NotExecuted));
    for op in ops {
        let ended = Event::Ended {
            op,
            command: write(1),
            verdict: never,
        };
        assert!(events.contains(&ended));
    }
    assert!(events.contains(&Event::Over(End::Timeout { never: true })));
    assert_eq!(a.submit(now, write(1)), Err(Refused::Closed));
    a.reopen(now);
    assert!(a.submit(now, write(1)).is_ok());
}

#[test]
fn order_is_kept_where_it_was_asked_for() {
    // A read, then a write that must not overtake it; and one that may.
    for (order, overtakes) in [(Order::WAR, false), (Order::NONE, true)] {
        let mut pair = Pair::new(order);
        pair.submit(0, read(2000));
        pair.submit(0, write(10));
        pair.frame(0).unwrap();
        assert_eq!(pair.frame(0).is_some(), overtakes, "{order:?}");
    }
    // Pieces of two writes don't mix.
    let mut pair = Pair::new(Order::WAW);
    let first = pair.submit(0, write(2000));
    pair.submit(0, write(2000));
    pair.run();
    let begins = pair.sent[0].iter().take(4).all(|h| h.op == first.0);
    assert!(begins);
}

#[test]
fn sides_that_send_all_they_can_do_not_wait_for_each_other() {
    let mut pair = Pair::new(Order::NONE);
    for side in 0..2 {
        pair.answers[side] = vec![Executed::Failed(failed(Errno::EACCES)); 16];
        for _ in 0..16 {
            pair.submit(side, write(4 * u64::from(FRAME)));
        }
    }
    // Each sends what it can before either looks.
    loop {
        let from_a: Vec<_> = std::iter::from_fn(|| pair.frame(0)).collect();
        let from_b: Vec<_> = std::iter::from_fn(|| pair.frame(1)).collect();
        if from_a.is_empty() && from_b.is_empty() {
            break;
        }
        from_a
            .iter()
            .for_each(|frame| pair.deliver(1, frame).unwrap());
        from_b
            .iter()
            .for_each(|frame| pair.deliver(0, frame).unwrap());
    }
    for side in 0..2 {
        assert_eq!(pair.ended(side).len(), 16);
    }
}

/// What a peer may not do, and what it is called.
#[test]
fn frames_that_may_not_be_now_end_the_session() {
    let mut base = Header::new(Kind::Write);
    (base.seq, base.op, base.key) = (1, 0, 7);
    (base.len, base.total) = (8, 8);
    base.flags = Flags::FIRST | Flags::LAST;
    let of = |kind, flags| {
        let mut h = Header {
            kind,
            flags,
            ..base
        };
        if kind != Kind::Send && kind != Kind::Write {
            h.len = 0;
        }
        h
    };
    let table: Vec<(Header, Violation)> = vec![
        (Header { seq: 2, ..base }, Violation::Gap),
        (Header { ack: 1, ..base }, Violation::Acknowledged),
        (Header { op: 16, ..base }, Violation::Index),
        (of(Kind::Write, Flags::LAST), Violation::Piece),
        (of(Kind::Data, Flags::NONE), Violation::Piece),
        (
            Header {
                context: 2,
                ..of(Kind::Send, Flags::NONE)
            },
            Violation::Context,
        ),
        (
            Header {
                len: 257,
                total: 257,
                ..of(Kind::Send, Flags::NONE)
            },
            Violation::Long,
        ),
        (
            Header {
                total: (1 << 20) + 1,
                ..of(Kind::Rts, Flags::NONE)
            },
            Violation::Long,
        ),
        (of(Kind::Parked, Flags::NONE), Violation::Reply),
        (of(Kind::Cts, Flags::NONE), Violation::Reply),
        (of(Kind::Done, Flags::NONE), Violation::Reply),
        (of(Kind::ReadData, Flags::NONE), Violation::Reply),
        (of(Kind::AtomicData, Flags::NONE), Violation::Reply),
        (of(Kind::Hello, Flags::NONE), Violation::Unexpected),
        (
            Header {
                seq: 0,
                context: 2,
                ..Header::new(Kind::Grant)
            },
            Violation::Context,
        ),
        (
            Header {
                seq: 5,
                ..Header::new(Kind::Ping)
            },
            Violation::Gap,
        ),
        (
            Header {
                seq: 5,
                ..Header::new(Kind::Ack)
            },
            Violation::Gap,
        ),
        (
            Header {
                data: 1,
                ..Header::new(Kind::Grant)
            },
            Violation::Grant,
        ),
    ];
    for (header, violation) in table {
        let mut pair = Pair::new(Order::NONE);
        assert_eq!(pair.deliver(1, &header), Err(violation), "{header:?}");
        let state = pair.peers[1].state();
        if violation.is_of_link() {
            assert_eq!(state, State::Lost);
        } else {
            assert_eq!(state, State::Closed(End::Violated));
        }
    }
}

#[test]
fn index_in_use_is_not_free_for_another() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1].push(Executed::Waits);
    pair.submit(0, Command::send(10));
    let mut frame = pair.frame(0).unwrap();
    pair.deliver(1, &frame).unwrap();
    frame.seq += 1;
    assert_eq!(pair.deliver(1, &frame), Err(Violation::Busy));
}

#[test]
fn close_ends_both_sides() {
    let mut pair = Pair::new(Order::NONE);
    let op = pair.submit(1, read(10));
    let at_a = pair.submit(0, write(10));
    pair.peers[0].close(pair.now, Reason::Closed);
    let bye = pair.frame(0).unwrap();
    assert_eq!(bye.kind, Kind::Bye);
    pair.deliver(1, &bye).unwrap();
    pair.drain();
    let not = |errno| Err(Failure::new(errno, Outcome::NotExecuted));
    assert_eq!(pair.ended(0), [(at_a, not(Errno::ECANCELED))]);
    assert_eq!(pair.ended(1), [(op, not(Errno::ENOTCONN))]);
    assert_eq!(
        pair.peers[1].state(),
        State::Closed(End::Bye(Reason::Closed))
    );
    assert_eq!(pair.peers[0].deadline(), None);
}

#[test]
fn storage_that_does_not_fit_the_limits_is_refused() {
    let fits = |incoming: usize, sent: usize, grants: usize| {
        let settings = Settings {
            session: *machine(b"a", b"b", 1, Order::NONE).session.settings(),
            window: Amount::new(1, 1),
            order: Order::NONE,
        };
        let parts = Parts {
            ops: Vec::new(),
            incoming: vec![Incoming::vacant(); incoming],
            sent: vec![Sent::vacant(); sent],
            grants: vec![Grant::default(); grants],
            credits: Vec::new(),
        };
        Peer::<Heap>::new(settings, Past::new(1), parts).is_some()
    };
    assert!(fits(16, 34, 2));
    assert!(!fits(15, 34, 2) && !fits(16, 33, 2) && !fits(16, 34, 1) && !fits(16, 34, 3));
}

fn with_data(len: u64) -> Command {
    Command {
        data: Some(1),
        ..write(len)
    }
}

#[test]
fn write_that_fails_midway_takes_one_credit_on_both_sides_or_none() {
    let len = 3 * u64::from(FRAME);
    // How many of its three pieces are sent before the refusal comes.
    for sent in 1..=3 {
        let mut pair = Pair::new(Order::NONE);
        for _ in 0..20 {
            pair.answers[1].push(Executed::Failed(failed(Errno::EACCES)));
            let op = pair.submit(0, with_data(len));
            let frames: Vec<_> = (0..sent).map(|_| pair.frame(0).unwrap()).collect();
            for frame in &frames {
                pair.deliver(1, frame).unwrap();
            }
            let done = pair.frame(1).unwrap();
            assert_eq!(done.kind, Kind::Done);
            pair.deliver(0, &done).unwrap();
            pair.settle();
            assert_eq!(pair.ended(0), [(op, Err(failed(Errno::EACCES)))], "{sent}");
            let (received, used) = (pair.peers[1].credit().0, pair.peers[0].credit().1);
            assert_eq!(received, used, "{sent}");
        }
        let op = pair.submit(0, Command::send(1));
        pair.settle();
        assert_eq!(pair.ended(0), [(op, GOOD)], "{sent}");
    }
}

#[test]
fn dropped_piece_takes_no_more_than_its_credit() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1] = vec![Executed::Waits; 8];
    for _ in 0..8 {
        pair.submit(0, Command::send(10));
    }
    pair.run();
    pair.answers[1].push(Executed::Failed(failed(Errno::EACCES)));
    let mut first = Header::new(Kind::Write);
    (first.seq, first.op, first.len, first.total) = (9, 0xf, 10, 20);
    first.flags = Flags::FIRST;
    pair.deliver(1, &first).unwrap();
    let mut last = first;
    (last.seq, last.offset) = (10, 10);
    last.flags = Flags::LAST | Flags::DATA;
    assert_eq!(pair.deliver(1, &last), Err(Violation::Credit));
}

#[test]
fn failure_while_the_last_piece_comes_is_told() {
    let long = u64::from(EAGER) + 10;
    for (command, pieces) in [
        (with_data(600), 1),
        (write(600), 1),
        (Command::send(long), 1),
    ] {
        let mut pair = Pair::new(Order::NONE);
        let op = pair.submit(0, command);
        for _ in 0..pieces {
            let frame = pair.frame(0).unwrap();
            pair.deliver(1, &frame).unwrap();
        }
        if let Some(cts) = pair.frame(1) {
            pair.deliver(0, &cts).unwrap();
        }
        let last = pair.frame(0).unwrap();
        assert!(last.flags.contains(Flags::LAST));
        let (now, link) = (pair.now, pair.links[1].unwrap());
        pair.peers[1].handle_frame(now, link, &last).unwrap();
        let failure = Failure::new(Errno::EIO, Outcome::Unknown);
        assert!(pair.peers[1].reply(pair.token(1, 0), Err(failure)));
        let done = Executed::Done(Level::Delivered);
        assert_eq!(pair.peers[1].executed(now, done), Ok(true));
        pair.settle();
        assert_eq!(pair.ended(0), [(op, Err(failure))]);
        assert_eq!(pair.peers[1].credit().0, pair.peers[0].credit().1);
        assert!(pair.peers.iter().all(Peer::is_quiet));
    }
}

#[test]
fn piece_that_does_not_acknowledge_what_asked_for_it_ends_the_peer() {
    for acknowledges in [false, true] {
        let mut pair = Pair::new(Order::NONE);
        let mut rts = Header::new(Kind::Rts);
        (rts.seq, rts.op, rts.total) = (1, 0x1_0000, 300);
        pair.deliver(1, &rts).unwrap();
        let cts = pair.frame(1).unwrap();
        assert_eq!(cts.kind, Kind::Cts);
        let mut data = Header::new(Kind::Data);
        (data.seq, data.op, data.total, data.len) = (2, rts.op, 300, 300);
        data.flags = Flags::LAST;
        if acknowledges {
            data.ack = cts.seq;
        }
        let expected = if acknowledges {
            Ok(())
        } else {
            Err(Violation::Piece)
        };
        assert_eq!(pair.deliver(1, &data), expected);
    }
}

#[test]
fn message_whose_last_piece_waits_is_not_asked_for_again() {
    for verdict in [GOOD, Err(failed(Errno::EIO))] {
        let mut pair = Pair::new(Order::NONE);
        pair.answers[1] = vec![Executed::Done(Level::Delivered), Executed::Waits];
        let op = pair.submit(0, Command::send(u64::from(EAGER) + 10));
        pair.settle();
        assert!(pair.peers[1].reply(pair.token(1, 0), verdict));
        pair.settle();
        assert_eq!(
            pair.kinds(1)
                .iter()
                .filter(|&&kind| kind == Kind::Cts)
                .count(),
            1
        );
        assert_eq!(pair.ended(0), [(op, verdict)]);
        assert!(pair.peers.iter().all(Peer::is_quiet));
    }
}

#[test]
fn frame_on_its_way_does_not_swallow_the_goodbye() {
    let mut pair = Pair::new(Order::NONE);
    let op = pair.submit(0, write(10));
    let late = pair.frame(0).unwrap();
    let (now, link) = (pair.now, pair.links[1].unwrap());
    pair.peers[1].close(now, Reason::Idle);
    let found = pair.peers[1].handle_frame(now, link, &late);
    assert_eq!(found, Ok(Action::Discard));
    pair.peers[1].fail(now, Violation::Piece);
    pair.peers[1].fail(now, Violation::Gap);
    let closed = State::Closed(End::Closed(Reason::Idle));
    assert_eq!(pair.peers[1].state(), closed);
    let bye = pair.frame(1).unwrap();
    assert_eq!((bye.kind, bye.code), (Kind::Bye, Reason::Idle as u16));
    pair.deliver(0, &bye).unwrap();
    let not = Err(Failure::new(Errno::ENOTCONN, Outcome::NotExecuted));
    assert_eq!(pair.ended(0), [(op, not)]);
}

#[test]
fn goodbye_that_no_link_takes_is_given_up() {
    let mut pair = Pair::new(Order::NONE);
    let (now, link) = (pair.now, pair.links[1].unwrap());
    pair.peers[1].close(now, Reason::Closed);
    pair.drain();
    assert_eq!(pair.peers[1].deadline(), Some(now + 50 * MS));
    pair.peers[1].handle_timeout(now + 50 * MS - 1);
    assert_eq!(pair.peers[1].link(), Some(link));
    pair.peers[1].handle_timeout(now + 50 * MS);
    assert_eq!(pair.peers[1].poll_event(), Some(Event::CloseLink(link)));
    assert_eq!(
        (pair.peers[1].deadline(), pair.peers[1].link()),
        (None, None)
    );
}

/// One that dials, and what it says.
fn greeting() -> (Peer<Heap>, LinkId, Hello, Op) {
    let mut a = machine(b"a", b"b", 100, Order::NONE);
    let op = a.submit(0, Command::send(1)).unwrap();
    a.handle_timeout(0);
    let link = a.link().unwrap();
    a.link_up(link);
    let mut out = [0; MAX];
    let (_, len) = a.poll_hello(&mut out).unwrap();
    let hello = Hello::parse(&out[..len]).unwrap();
    (a, link, hello, op)
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let (mut a, link, _, op) = greeting();
    let mut bye = Header::new(Kind::Bye);
    bye.code = Reason::Version as u16;
    assert_eq!(a.handle_frame(1, link, &bye), Ok(Action::Nothing));
    assert_eq!(a.state(), State::Closed(End::Bye(Reason::Version)));
    let events: Vec<_> = std::iter::from_fn(|| a.poll_event()).collect();
    let ended = |event: &Event| matches!(event, Event::Ended { op: o, .. } if *o == op);
    assert!(events.iter().any(ended));
    assert!(events.contains(&Event::Over(End::Bye(Reason::Version))));
    // Nothing else may come then.
    let (mut a, link, ..) = greeting();
    let ack = Header::new(Kind::Ack);
    assert_eq!(a.handle_frame(1, link, &ack), Err(Violation::Unexpected));
}

#[test]
fn goodbye_comes_after_the_hello_that_is_due() {
    let (_, _, hello, _) = greeting();
    let mut b = machine(b"b", b"a", 200, Order::NONE);
    b.accept(0, &hello).unwrap();
    b.close(0, Reason::Busy);
    assert!(b.poll_transmit(0).is_none());
    let mut out = [0; MAX];
    let (_, len) = b.poll_hello(&mut out).unwrap();
    let answer = Hello::parse(&out[..len]).unwrap();
    assert_eq!((answer.incarnation, answer.expects), (200, 100));
    assert_eq!(b.poll_transmit(0).unwrap().header.kind, Kind::Bye);
}

#[test]
fn limit_of_a_peer_does_not_outlive_its_session() {
    let mut a = machine(b"a", b"b", 100, Order::NONE);
    a.ops = Ops::new(vec![Outgoing::vacant(); 64]);
    a.ops.limit(64);
    a.close(0, Reason::Closed);
    a.reopen(0);
    let posted = (0..64)
        .take_while(|_| a.submit(0, write(10)).is_ok())
        .count();
    assert_eq!(posted, usize::from(MIN_OPS));
}

/// A machine with room for 64 operations of either side.
fn wide(name: &[u8], peer: &[u8], order: Order) -> Peer<Heap> {
    let mut session = *machine(name, peer, 5, order).session.settings();
    session.limits.ops = 64;
    let settings = Settings {
        session,
        window: Amount::new(8, 1024),
        order,
    };
    let parts = Parts {
        ops: vec![Outgoing::vacant(); 64],
        incoming: vec![Incoming::vacant(); 64],
        sent: vec![Sent::vacant(); 256],
        grants: vec![Grant::default(); 2],
        credits: vec![Credit::default(); 2],
    };
    Peer::new(settings, Past::new(7 + u64::from(name[0])), parts).unwrap()
}

#[test]
fn context_that_nobody_consumes_holds_up_nothing_else() {
    let mut pair = Pair::new(Order::NONE);
    pair.peers = [wide(b"a", b"b", Order::NONE), wide(b"b", b"a", Order::NONE)];
    pair.peers[0].session.want(pair.now);
    pair.connect();
    pair.settle();
    pair.forget();
    pair.answers[1] = vec![Executed::Waits; 8];
    let ops: Vec<_> = (0..50).map(|_| pair.submit(0, Command::send(1))).collect();
    let mut others = vec![pair.submit(0, write(10)), pair.submit(0, read(10))];
    let elsewhere = Command {
        context: 1,
        ..Command::send(1)
    };
    others.extend((0..12).map(|_| pair.submit(0, elsewhere)));
    pair.settle();
    let mut ended: Vec<_> = pair.ended(0).into_iter().map(|(op, _)| op).collect();
    ended.sort_by_key(|op| op.0);
    assert_eq!(ended, others);
    // One of those that wait is withdrawn; the others go in their order when there is credit.
    assert_eq!(pair.peers[0].cancel(ops[8]), Cancelled::Ended);
    assert_eq!(pair.peers[0].cancel(ops[20]), Cancelled::Ended);
    pair.drain();
    pair.ended(0);
    for nth in 0..8 {
        pair.peers[1].reply(pair.token(1, nth), GOOD);
    }
    pair.settle();
    let ended: Vec<_> = pair.ended(0).into_iter().map(|(op, _)| op).collect();
    let left = ops.iter().enumerate();
    let left = left.filter(|(nth, _)| ![8, 20].contains(nth));
    assert_eq!(ended, left.map(|(_, &op)| op).collect::<Vec<_>>());
    assert!(pair.peers.iter().all(Peer::is_quiet));
}

#[test]
fn session_that_ends_takes_what_waits_for_credit_along() {
    let mut pair = Pair::new(Order::NONE);
    pair.answers[1] = vec![Executed::Waits; 8];
    let ops: Vec<_> = (0..12).map(|_| pair.submit(0, Command::send(1))).collect();
    pair.run();
    let now = pair.now;
    pair.peers[0].close(now, Reason::Closed);
    pair.drain();
    let ended = pair.ended(0);
    assert_eq!(ended.len(), ops.len());
    let unsent = Err(failed(Errno::ECANCELED));
    assert_eq!(
        ended
            .iter()
            .filter(|(_, verdict)| *verdict == unsent)
            .count(),
        4
    );
    assert_eq!(pair.peers[0].outstanding().0, 0);
}

#[test]
fn peer_that_can_not_go_on_with_its_session_ends_it() {
    let unfit: [(fn(&mut Hello), Violation); 2] = [
        (|h| h.last = 77, Violation::Resumed),
        (|h| h.limits.ops = 17, Violation::Limits),
    ];
    for (change, violation) in unfit {
        for dials in [false, true] {
            let mut pair = Pair::new(Order::NONE);
            let op = pair.submit(0, write(10));
            while pair.frame(0).is_some() {}
            pair.lose();
            let mut hello = Hello {
                versions: VERSIONS,
                caps: CAP_CRC,
                incarnation: 200,
                expects: 100,
                last: 0,
                generation: 9,
                limits: *pair.peers[1].own_limits(),
                from: Name::new(b"b").unwrap(),
                to: Name::new(b"a").unwrap(),
            };
            change(&mut hello);
            let found = if dials {
                pair.now += 10 * MS;
                pair.peers[0].handle_timeout(pair.now);
                let link = pair.peers[0].link().unwrap();
                pair.peers[0].link_up(link);
                let mut out = [0; MAX];
                pair.peers[0].poll_hello(&mut out).unwrap();
                pair.peers[0].greeted(pair.now, link, &hello)
            } else {
                pair.peers[0].accept(pair.now, &hello).map(|_| ())
            };
            assert_eq!(found, Err(violation));
            assert_eq!(pair.peers[0].state(), State::Closed(End::Violated));
            pair.drain();
            let unknown = Err(Failure::new(Errno::EPROTO, Outcome::Unknown));
            assert_eq!(pair.ended(0), [(op, unknown)]);
        }
    }
}

#[test]
fn only_what_meets_a_receive_is_parked() {
    for (command, fits) in [
        (with_data(10), true),
        (Command::send(10), true),
        (write(10), false),
    ] {
        let mut pair = Pair::new(Order::NONE);
        let op = pair.submit(0, command);
        pair.frame(0).unwrap();
        let mut parked = Header::new(Kind::Parked);
        (parked.seq, parked.op) = (1, op.0);
        let expected = if fits { Ok(()) } else { Err(Violation::Reply) };
        assert_eq!(pair.deliver(0, &parked), expected);
    }
}
