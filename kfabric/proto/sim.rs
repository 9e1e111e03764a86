// SPDX-License-Identifier: GPL-2.0

//! A world of pairs of peers, under a clock of its own, with links that do their worst.
//!
//! All follows from a seed: a failure prints it, and `KFABRIC_SEED` repeats it. Hosts are models
//! (`node`), and a ledger judges: each operation ends once, what ends well was executed once, what
//! is said not to be executed never is, every byte is compared, and the remote CQ data, the context and
//! the level, orders are kept, what is held stays
//! within the windows, and the world comes to its end in time.
//!
//! | file | noun |
//! |---|---|
//! | `ledger` | what was posted, and what became of it |
//! | `node` | one side of a pair |
//! | `tests` | the worlds |

#[cfg(test)]
mod ledger;
#[cfg(test)]
mod node;
#[cfg(test)]
mod tests;

use super::flow::Amount;
use super::order::Order;
use super::peer::{Action, Event, Payload};
use super::rng::Rng;
use super::session::past::Past;
use super::session::{Accept, End, LinkId, State};
use super::violation::Violation;
use super::wire::hello::{Hello, MAX};
use super::wire::{crc, Header, Kind, Malformed, Reason, SIZE};
use ledger::Ledger;
use node::Node;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// How many frames are on the way over a link.
const IN_FLIGHT: usize = 24;
/// How many parts a slow payload has, and the time between them.
const PARTS: u32 = 5;
const PART: u64 = 30 * MS;

/// What kind of world.
#[derive(Clone, Debug)]
struct Scenario {
    name: &'static str,
    pairs: usize,
    /// Operations of each side.
    quota: u64,
    /// Outstanding at a time.
    depth: usize,
    frame: u32,
    eager: u32,
    ops: u16,
    /// Room for frames beside replies.
    ring: usize,
    window: Amount,
    order: Order,
    crc: bool,
    /// What sequences follow.
    start: u32,
    resume: u64,
    latency: u64,
    /// Of a million frames, how many are lost alone, twice there, swapped with the next, changed,
    /// or cut off with their link.
    gap: u64,
    twice: u64,
    swap: u64,
    corrupt: u64,
    cut: u64,
    /// Payloads of more bytes than this come in parts, over a time in which a link dies of silence.
    slow: usize,
    /// How often a link is lost, in nanoseconds on average; 0: never.
    disconnect: u64,
    /// One in how many losses is told to one side only.
    half_open: u64,
    /// How often a side restarts.
    restart: u64,
    /// How often a side says goodbye, and begins again.
    close: u64,
    /// At most how long a side that has something to post waits until it does.
    pause: u64,
    /// How often a side asks for the end of a session that nobody uses, or forgets one that is over; 0: never.
    rest: u64,
    /// A world that is not over by then is stuck.
    limit: u64,
    /// One in how many posts cancels something.
    cancel: u64,
    /// Both sides begin to dial.
    both_dial: bool,
}

impl Scenario {
    const CALM: Scenario = Scenario {
        name: "calm",
        pairs: 4,
        quota: 1000,
        depth: 16,
        frame: 1024,
        eager: 512,
        ops: 32,
        ring: 24,
        window: Amount::new(8, 4096),
        order: Order::NONE,
        crc: true,
        start: 0,
        resume: 500 * MS,
        latency: 20 * US,
        gap: 0,
        twice: 0,
        swap: 0,
        corrupt: 0,
        cut: 0,
        slow: usize::MAX,
        disconnect: 0,
        half_open: 0,
        restart: 0,
        close: 0,
        pause: 100 * US,
        rest: 0,
        limit: 20_000 * MS,
        cancel: 20,
        both_dial: true,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    /// A frame arrives at one end of a link: 0 is who dialled.
    Frame {
        link: usize,
        end: usize,
    },
    /// A part of a payload arrives.
    Part {
        link: usize,
        end: usize,
    },
    /// A link is made.
    Up {
        link: usize,
    },
    /// An end of a link learns that it is gone.
    Down {
        link: usize,
        end: usize,
    },
    Timer {
        node: usize,
    },
    Work {
        node: usize,
    },
    Consume {
        node: usize,
    },
    Cut {
        pair: usize,
    },
    Restart {
        node: usize,
    },
    Close {
        node: usize,
    },
    Rest {
        node: usize,
    },
}

struct Frame {
    header: [u8; SIZE],
    payload: Vec<u8>,
    sequenced: bool,
    fragile: bool,
}

/// A link: both ends, and what is on the way to each.
struct Link {
    nodes: [usize; 2],
    ids: [Option<LinkId>; 2],
    open: [bool; 2],
    /// Frames in one direction are lost from now on.
    mute: bool,
    queues: [VecDeque<Frame>; 2],
    last: [u64; 2],
    /// Of each end, the frame whose payload is coming.
    coming: [Option<Coming>; 2],
}

/// A frame whose header was read, and whose payload comes in parts.
struct Coming {
    id: LinkId,
    header: Header,
    action: Action,
    payload: Vec<u8>,
    parts: u32,
}

struct World {
    scenario: Scenario,
    rng: Rng,
    now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, Happens)>>,
    count: u64,
    nodes: Vec<Node>,
    links: Vec<Link>,
    ledger: Ledger,
    frames: u64,
    lost: u64,
    violations: u64,
    rested: u64,
    forgotten: u64,
}

/// What a world saw.
#[derive(Debug, Default)]
struct Seen {
    ops: u64,
    frames: u64,
    lost: u64,
    violations: u64,
    /// Sessions that ended since nobody used them, as each side saw it.
    rested: u64,
    /// Of which nothing was left but what is to be remembered.
    forgotten: u64,
    time: u64,
}

impl World {
    fn new(scenario: &Scenario, seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let nodes = (0..2 * scenario.pairs)
            .map(|at| Node::new(at, scenario, Past::new(rng.next_u64()), scenario.quota))
            .collect();
        let mut world = World {
            scenario: scenario.clone(),
            rng,
            now: 0,
            heap: BinaryHeap::new(),
            count: 0,
            nodes,
            links: Vec::new(),
            ledger: Ledger::default(),
            frames: 0,
            lost: 0,
            violations: 0,
            rested: 0,
            forgotten: 0,
        };
        world.ledger.disruptive = scenario.restart > 0 || scenario.close > 0;
        for node in 0..2 * scenario.pairs {
            let at = world.rng.below(MS);
            if scenario.both_dial || node % 2 == 0 {
                world.at(at, Happens::Work { node });
            } else {
                world.at(at + 10 * MS, Happens::Work { node });
            }
            world.at(at, Happens::Consume { node });
            if scenario.restart > 0 {
                let at = world.rng.below(2 * scenario.restart);
                world.at(at, Happens::Restart { node });
            }
            if scenario.close > 0 {
                let at = world.rng.below(2 * scenario.close);
                world.at(at, Happens::Close { node });
            }
            if scenario.rest > 0 {
                let at = world.rng.below(2 * scenario.rest);
                world.at(at, Happens::Rest { node });
            }
        }
        if scenario.disconnect > 0 {
            for pair in 0..scenario.pairs {
                let at = world.rng.below(2 * scenario.disconnect);
                world.at(at, Happens::Cut { pair });
            }
        }
        world
    }

    fn at(&mut self, time: u64, happens: Happens) {
        self.count += 1;
        self.heap.push(Reverse((time, self.count, happens)));
    }

    fn soon(&mut self) -> u64 {
        self.now + 1 + self.rng.below(2 * self.scenario.latency)
    }

    fn run(mut self) -> Seen {
        let mut left = self.nodes.len();
        let every = 16 * left as u64;
        while left > 0 {
            let Some(Reverse((time, _, happens))) = self.heap.pop() else {
                panic!("nothing happens any more");
            };
            self.now = time;
            assert!(time < self.scenario.limit, "stuck: {:?}", self.stuck());
            self.happen(happens);
            left = if self.count % every == 0 || self.heap.is_empty() {
                self.nodes.iter().filter(|node| !node.is_done()).count()
            } else {
                left
            };
        }
        self.ledger.close();
        self.balance();
        Seen {
            ops: self.ledger.entries.len() as u64,
            frames: self.frames,
            lost: self.lost,
            violations: self.violations,
            rested: self.rested,
            forgotten: self.forgotten,
            time: self.now,
        }
    }

    /// What a side has used of its credit, the other has received, if nothing is on the way.
    fn balance(&self) {
        for pair in self.nodes.chunks(2) {
            let link = |node: &Node| {
                let link = node
                    .peer
                    .link()
                    .filter(|_| node.peer.state() == State::Open);
                node.links.iter().find(|l| Some(l.0) == link).map(|l| l.1)
            };
            let quiet = pair.iter().all(|node| node.peer.is_quiet());
            if !quiet || link(&pair[0]).is_none() || link(&pair[0]) != link(&pair[1]) {
                continue;
            }
            let credits = [pair[0].peer.credit(), pair[1].peer.credit()];
            for side in 0..2 {
                let (received, used) = (&credits[side].0, &credits[1 - side].1);
                assert_eq!(received, used, "credit of {} leaks", pair[1 - side].at);
            }
        }
    }

    fn stuck(&self) -> Vec<(usize, State, u64, (u32, u32))> {
        let stuck = self.nodes.iter().filter(|node| !node.is_done());
        stuck
            .map(|n| (n.at, n.peer.state(), n.quota, n.peer.outstanding()))
            .take(4)
            .collect()
    }

    fn happen(&mut self, happens: Happens) {
        match happens {
            Happens::Frame { link, end } => self.arrive(link, end),
            Happens::Part { link, end } => self.part(link, end),
            Happens::Up { link } => {
                let (node, id) = (self.links[link].nodes[0], self.links[link].ids[0]);
                if self.links[link].open[0] {
                    self.nodes[node].peer.link_up(id.unwrap());
                    self.settle(node);
                }
            }
            Happens::Down { link, end } => self.down(link, end),
            Happens::Timer { node } => {
                if self.nodes[node].timer <= self.now {
                    self.nodes[node].timer = u64::MAX;
                    self.nodes[node].peer.handle_timeout(self.now);
                    self.settle(node);
                }
            }
            Happens::Work { node } => {
                let (rng, ledger) = (&mut self.rng, &mut self.ledger);
                self.nodes[node].work(self.now, rng, ledger, &self.scenario);
                if let State::Closed(_) = self.nodes[node].peer.state() {
                    self.nodes[node].peer.reopen(self.now);
                }
                self.settle(node);
                if !self.nodes[node].is_done() {
                    let at = self.now + 1 + self.rng.below(self.scenario.pause);
                    self.at(at, Happens::Work { node });
                }
            }
            Happens::Consume { node } => {
                let lose = self.nodes[node].consume(&mut self.rng, &mut self.ledger);
                if let (true, Some(id)) = (lose, self.nodes[node].peer.link()) {
                    if let Some(&(_, link)) = self.nodes[node].links.iter().find(|l| l.0 == id) {
                        let end = usize::from(self.links[link].nodes[0] != node);
                        self.down(link, end);
                        self.at(self.now + US, Happens::Down { link, end: 1 - end });
                    }
                }
                self.settle(node);
                if !self.nodes[node].is_done() || !self.nodes[node ^ 1].is_done() {
                    let at = self.now + 1 + self.rng.below(200 * US);
                    self.at(at, Happens::Consume { node });
                }
            }
            Happens::Cut { pair } => {
                self.cut(pair);
                let at = self.now + 1 + self.rng.below(2 * self.scenario.disconnect);
                self.at(at, Happens::Cut { pair });
            }
            Happens::Restart { node } => {
                self.restart(node);
                let at = self.now + 1 + self.rng.below(2 * self.scenario.restart);
                self.at(at, Happens::Restart { node });
            }
            Happens::Close { node } => {
                self.nodes[node].peer.close(self.now, Reason::Closed);
                self.settle(node);
                let at = self.now + 1 + self.rng.below(2 * self.scenario.close);
                self.at(at, Happens::Close { node });
            }
            Happens::Rest { node } => {
                let one = &mut self.nodes[node];
                let is_over = matches!(one.peer.state(), State::Closed(_));
                if is_over && one.peer.link().is_none() && one.peer.is_quiet() {
                    one.forget(&self.scenario);
                    self.forgotten += 1;
                } else {
                    one.peer.rest(self.now);
                }
                self.settle(node);
                let at = self.now + 1 + self.rng.below(2 * self.scenario.rest);
                self.at(at, Happens::Rest { node });
            }
        }
    }

    /// The process of a node ends, and another begins.
    fn restart(&mut self, node: usize) {
        let links = std::mem::take(&mut self.nodes[node].links);
        for (_, link) in links {
            let end = usize::from(self.links[link].nodes[0] != node);
            self.links[link].open[end] = false;
            self.lost += 1;
            // A host that has gone says nothing; one whose process has ended closes its links.
            if self.rng.one_in(2) {
                let at = self.soon();
                self.at(at, Happens::Down { link, end: 1 - end });
            }
        }
        self.nodes[node].die(&mut self.ledger);
        let quota = self.nodes[node].quota;
        let past = Past::new(self.rng.next_u64());
        self.nodes[node] = Node::new(node, &self.scenario, past, quota);
    }

    /// The links of a pair are lost.
    fn cut(&mut self, pair: usize) {
        let links: Vec<usize> = self.nodes[2 * pair].links.iter().map(|l| l.1).collect();
        for link in links {
            self.lost += 1;
            if self.rng.one_in(self.scenario.half_open) {
                // One side is told, or none; silence does the rest.
                self.links[link].mute = true;
                if self.rng.one_in(2) {
                    let end = self.rng.below(2) as usize;
                    self.down(link, end);
                }
                continue;
            }
            // What is on the way may arrive before its end learns of it.
            for end in 0..2 {
                let at = self.soon();
                self.links[link].mute = true;
                self.at(at, Happens::Down { link, end });
            }
        }
    }

    /// An end of a link learns that it is gone.
    fn down(&mut self, link: usize, end: usize) {
        if !std::mem::replace(&mut self.links[link].open[end], false) {
            return;
        }
        self.links[link].queues[end].clear();
        self.links[link].coming[end] = None;
        let node = self.links[link].nodes[end];
        self.nodes[node].links.retain(|l| l.1 != link);
        if let Some(id) = self.links[link].ids[end] {
            self.nodes[node].peer.link_lost(self.now, id);
            self.settle(node);
        }
    }

    /// An end closes a link; what it sent arrives before the other end learns of it.
    fn close(&mut self, link: usize, end: usize) {
        if std::mem::replace(&mut self.links[link].open[end], false) {
            self.links[link].queues[end].clear();
            self.links[link].coming[end] = None;
            let node = self.links[link].nodes[end];
            self.nodes[node].links.retain(|l| l.1 != link);
            if !self.links[link].mute {
                let at = self.links[link].last[1 - end].max(self.now) + 1;
                self.at(at, Happens::Down { link, end: 1 - end });
            }
        }
    }

    /// Takes the events of a node, and sends what it has to send.
    fn settle(&mut self, node: usize) {
        self.drain(node);
        let mut out = [0; MAX];
        if let Some((header, len)) = self.nodes[node].peer.poll_hello(&mut out) {
            let frame = Frame {
                header: header.emit(true),
                payload: out[..len].to_vec(),
                sequenced: false,
                fragile: false,
            };
            self.send(node, frame);
        }
        while self.takes(node) {
            let now = self.now;
            let link = self.nodes[node].peer.link();
            let Some(transmit) = self.nodes[node].peer.poll_transmit(now) else {
                break;
            };
            let mut header = transmit.header;
            let one = &self.nodes[node];
            let payload = match transmit.payload {
                Payload::None => Vec::new(),
                Payload::Local { op, offset } => one.local(op, offset, header.len),
                Payload::Source { token, offset } => one.source(token, offset, header.len),
                Payload::Fetched { token } => one.fetched(token, &mut self.ledger),
            };
            let crc = transmit.crc;
            if crc {
                header.payload_crc = crc::of(&[&payload]);
                if header.len == 0 {
                    header.payload_crc = 0;
                }
            }
            let frame = Frame {
                header: header.emit(crc),
                payload,
                sequenced: header.kind.is_sequenced(),
                fragile: true,
            };
            // A goodbye goes over the link that was there before.
            if header.kind == Kind::Bye {
                self.send_over(node, link, frame);
            } else {
                self.send(node, frame);
            }
            self.drain(node);
        }
        self.drain(node);
        if let Some(deadline) = self.nodes[node].peer.deadline() {
            let deadline = deadline.max(self.now + 1);
            if deadline < self.nodes[node].timer {
                self.nodes[node].timer = deadline;
                self.at(deadline, Happens::Timer { node });
            }
        }
    }

    fn drain(&mut self, node: usize) {
        while let Some(event) = self.nodes[node].peer.poll_event() {
            match event {
                Event::Dial(id) => {
                    let link = self.links.len();
                    self.links.push(Link {
                        nodes: [node, node ^ 1],
                        ids: [Some(id), None],
                        open: [true; 2],
                        mute: false,
                        queues: Default::default(),
                        last: [0; 2],
                        coming: Default::default(),
                    });
                    self.nodes[node].links.push((id, link));
                    let at = self.soon() + self.rng.below(2 * self.scenario.latency);
                    self.at(at, Happens::Up { link });
                }
                Event::CloseLink(id) => {
                    let link = self.nodes[node].links.iter().find(|l| l.0 == id);
                    if let Some(&(_, link)) = link {
                        let end = usize::from(self.links[link].nodes[0] != node);
                        self.close(link, end);
                    }
                }
                Event::Opened { fresh } => self.nodes[node].opened(fresh),
                Event::Ended { op, verdict, .. } => {
                    self.nodes[node].ended(op, verdict, &mut self.ledger);
                }
                Event::Released(token) => self.nodes[node].released(token),
                Event::Over(end) => self.rested += u64::from(end == End::Idle),
            }
        }
    }

    /// The link that a node uses, and which end it is.
    fn link_of(&self, node: usize, id: Option<LinkId>) -> Option<(usize, usize)> {
        let &(_, link) = self.nodes[node].links.iter().find(|l| Some(l.0) == id)?;
        Some((link, usize::from(self.links[link].nodes[0] != node)))
    }

    /// Whether the link of a node takes a frame.
    fn takes(&self, node: usize) -> bool {
        let Some((link, end)) = self.link_of(node, self.nodes[node].peer.link()) else {
            return false;
        };
        self.links[link].queues[1 - end].len() < IN_FLIGHT
    }

    fn send(&mut self, node: usize, frame: Frame) {
        self.send_over(node, self.nodes[node].peer.link(), frame);
    }

    fn send_over(&mut self, node: usize, id: Option<LinkId>, frame: Frame) {
        let Some((link, end)) = self.link_of(node, id) else {
            return;
        };
        self.frames += 1;
        if self.links[link].mute || !self.links[link].open[1 - end] {
            return;
        }
        let mut copies = 1;
        let s = &self.scenario;
        let million = 1_000_000;
        if frame.fragile {
            if frame.sequenced && self.rng.below(million) < s.gap {
                copies = 0;
            } else if frame.sequenced && self.rng.below(million) < s.twice {
                copies = 2;
            }
        }
        let mut frame = frame;
        if frame.fragile && self.rng.below(million) < s.corrupt {
            let bits = 8 * (SIZE + frame.payload.len()) as u64;
            let bit = self.rng.below(bits) as usize;
            match bit.checked_sub(8 * SIZE) {
                Some(bit) => frame.payload[bit / 8] ^= 1 << (bit % 8),
                None => frame.header[bit / 8] ^= 1 << (bit % 8),
            }
        }
        let swap = frame.sequenced && self.rng.below(million) < s.swap;
        for _ in 0..copies {
            let time = self.links[link].last[1 - end].max(self.soon());
            self.links[link].last[1 - end] = time;
            let queue = &mut self.links[link].queues[1 - end];
            queue.push_back(Frame {
                payload: frame.payload.clone(),
                ..frame
            });
            let len = queue.len();
            if swap && len > 1 && queue[len - 2].sequenced {
                queue.swap(len - 1, len - 2);
            }
            self.at(time, Happens::Frame { link, end: 1 - end });
        }
    }

    /// A frame arrives.
    fn arrive(&mut self, link: usize, end: usize) {
        if self.links[link].coming[end].is_some() {
            // Behind what is coming.
            return self.at(self.now + MS, Happens::Frame { link, end });
        }
        let Some(frame) = self.links[link].queues[end].pop_front() else {
            return;
        };
        if !self.links[link].open[end] {
            return;
        }
        let node = self.links[link].nodes[end];
        self.receive(link, end, node, &frame);
        self.settle(node);
        // There is room for another.
        let sender = self.links[link].nodes[1 - end];
        if self.links[link].open[1 - end] {
            self.settle(sender);
        }
    }

    fn receive(&mut self, link: usize, end: usize, node: usize, frame: &Frame) {
        let now = self.now;
        let peer = &mut self.nodes[node].peer;
        let id = self.links[link].ids[end];
        let header = Header::parse(&frame.header, peer.own_limits().frame, peer.has_crc());
        let header = match (header, id) {
            (Ok(header), _) => header,
            (Err(malformed), Some(id)) => {
                if peer.link() == Some(id) {
                    peer.fail(now, malformed.into());
                    self.violate(malformed.into());
                }
                return;
            }
            (Err(_), None) => return self.close(link, end),
        };
        let hello = (header.kind == Kind::Hello).then(|| Hello::parse(&frame.payload));
        match (hello, id) {
            (Some(Ok(hello)), None) => match peer.accept(now, &hello) {
                Ok(Accept::Take(id, _)) => {
                    self.links[link].ids[end] = Some(id);
                    self.nodes[node].links.push((id, link));
                }
                Ok(Accept::Refuse(_)) => self.close(link, end),
                Err(violation) => {
                    self.violate(violation);
                    self.close(link, end);
                }
            },
            (Some(Ok(hello)), Some(id)) => {
                // A link that was given up says what it wants.
                if peer.link() == Some(id) {
                    if let Err(violation) = peer.greeted(now, id, &hello) {
                        self.violate(violation);
                    }
                }
            }
            (None, Some(id)) => self.frame(node, link, end, id, &header, frame),
            _ => self.close(link, end),
        }
    }

    fn frame(
        &mut self,
        node: usize,
        link: usize,
        end: usize,
        id: LinkId,
        header: &Header,
        frame: &Frame,
    ) {
        let now = self.now;
        // Without checksums, a changed length leaves nothing to go by.
        if header.len as usize != frame.payload.len() {
            self.nodes[node].peer.fail(now, Malformed::Len.into());
            return self.violate(Malformed::Len.into());
        }
        let action = loop {
            match self.nodes[node].peer.handle_frame(now, id, header) {
                Ok(Action::Events) => self.drain(node),
                Ok(action) => break action,
                Err(violation) => return self.violate(violation),
            }
        };
        self.drain(node);
        if action == Action::Nothing {
            return;
        }
        if self.rng.below(1_000_000) < self.scenario.cut {
            self.lost += 1;
            self.down(link, end);
            self.at(now + US, Happens::Down { link, end: 1 - end });
            return;
        }
        let coming = Coming {
            id,
            header: *header,
            action,
            payload: frame.payload.clone(),
            parts: PARTS,
        };
        if frame.payload.len() > self.scenario.slow {
            self.links[link].coming[end] = Some(coming);
            return self.at(now + PART, Happens::Part { link, end });
        }
        self.payload(node, &coming);
    }

    /// A part of a payload arrives, and at last all of it is there.
    fn part(&mut self, link: usize, end: usize) {
        if !self.links[link].open[end] {
            self.links[link].coming[end] = None;
            return;
        }
        let Some(mut coming) = self.links[link].coming[end].take() else {
            return;
        };
        let node = self.links[link].nodes[end];
        self.nodes[node].peer.heard(self.now, coming.id);
        coming.parts -= 1;
        if coming.parts == 0 {
            self.payload(node, &coming);
        } else {
            self.links[link].coming[end] = Some(coming);
            self.at(self.now + PART, Happens::Part { link, end });
        }
        self.settle(node);
    }

    /// All of a frame is there.
    fn payload(&mut self, node: usize, frame: &Coming) {
        let (now, header) = (self.now, &frame.header);
        let crc = self.nodes[node].peer.has_crc();
        if crc && header.len > 0 && crc::of(&[&frame.payload]) != header.payload_crc {
            self.nodes[node].peer.fail(now, Malformed::Checksum.into());
            return self.violate(Malformed::Checksum.into());
        }
        if !self.nodes[node].peer.is_pending() {
            return;
        }
        let one = &mut self.nodes[node];
        let executed = one.act(
            &frame.action,
            &frame.payload,
            &mut self.ledger,
            &mut self.rng,
        );
        if let Err(violation) = self.nodes[node].peer.executed(now, executed) {
            self.violate(violation);
        }
        self.drain(node);
    }

    /// Somebody broke a rule: a link may, a peer does not.
    fn violate(&mut self, violation: Violation) {
        self.violations += 1;
        assert!(violation.is_of_link(), "{violation:?} of an honest peer");
    }
}
