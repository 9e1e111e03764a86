// SPDX-License-Identifier: GPL-2.0

//! Load: threads that do everything at once, for a while, with each byte and each completion
//! accounted for.
//!
//! Four stations know each other. A station has transmit slots, each with one operation in flight:
//! whoever reads its completion checks it and posts the next, chosen by the slot's own random
//! numbers. A slot writes to a stripe of its own of each station's regions, so that it knows what
//! is there. Two threads serve each station.
//!
//! What is counted: an operation's context names its slot and its use of it, so a completion that
//! comes twice, or not at all, is seen. Messages and the data of writes carry tags; the tags of
//! all that were sent are summed up, as are those that arrived.

use crate::close::closed;
use crate::crew::Crew;
use crate::ops::{error, pmem};
use crate::peer::Region;
use crate::rig::{check_buffer, pattern, register, timeout, End};
use crate::rng::{mix, Rng};
use crate::{cases, check, check_eq, module_parameters};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kfabric::prelude::*;

cases! {
    everything_at_once_is_counted_once: Caps::COMMIT
        .union(Caps::RMA)
        .union(Caps::REMOTE_CQ_DATA),
}

const STATIONS: usize = 4;
const THREADS: usize = 8;
/// Of each station.
const SENDERS: usize = 16;
const RECEIVERS: usize = 16;
/// What a sender may write to, of each region.
const STRIPE: usize = 40_000;
/// The longest message: its tag, and bytes that follow from it.
const MESSAGE: usize = 20_000;
const TAG: usize = 8;
/// Marks the data of a message, so that it is not taken for that of a write.
const MESSAGE_DATA: u64 = 1 << 63;

/// What is in flight.
struct Flight {
    kind: Kind,
    len: usize,
    tag: u64,
    /// Whether the tag will arrive somewhere.
    tells: bool,
    cancelled: bool,
    /// What the sender's stripes say afterwards.
    writes: Option<Written>,
}

/// What a sender knows of its stripe of a region.
#[derive(Clone, Copy)]
struct Written {
    station: usize,
    lasting: bool,
    offset: usize,
    len: usize,
    tag: u64,
}

struct State {
    rng: Rng,
    uses: u64,
    flight: Option<Flight>,
    written: Option<Written>,
}

#[pin_data]
struct Slot {
    #[pin]
    state: Mutex<State>,
}

/// One end, and what its senders know of all.
struct Station {
    end: KBox<End>,
    regions: [Region; 2],
    peers: KVec<Peer>,
    slots: KVec<Arc<Slot>>,
}

struct Peer {
    address: Address,
    regions: [RemoteRegion; 2],
}

/// A count, and a sum that tells which.
struct Tally {
    count: Atomic<u64>,
    sum: Atomic<u64>,
}

impl Tally {
    fn new() -> Self {
        Tally {
            count: Atomic::new(0),
            sum: Atomic::new(0),
        }
    }

    fn add(&self, tag: u64) {
        self.count.add(1, Relaxed);
        self.sum.add(mix(tag), Relaxed);
    }

    fn value(&self) -> (u64, u64) {
        (self.count.load(Relaxed), self.sum.load(Relaxed))
    }
}

struct Load {
    stations: KVec<Station>,
    stop: Atomic<bool>,
    broken: Atomic<bool>,
    /// Operations of senders in flight.
    active: Atomic<i64>,
    sent: Tally,
    arrived: Tally,
    posted: Atomic<u64>,
    completed: Atomic<u64>,
    cancelled: Atomic<u64>,
    bytes: Atomic<u64>,
}

impl Load {
    fn open(info: &Info, seed: u64) -> Result<Self> {
        let device = pmem()?;
        let mut load = Load {
            stations: KVec::new(),
            stop: Atomic::new(false),
            broken: Atomic::new(false),
            active: Atomic::new(0),
            sent: Tally::new(),
            arrived: Tally::new(),
            posted: Atomic::new(0),
            completed: Atomic::new(0),
            cancelled: Atomic::new(0),
            bytes: Atomic::new(0),
        };
        let size = STATIONS * SENDERS * STRIPE;
        for n in 0..STATIONS {
            let end = End::sized(info, SENDERS.max(RECEIVERS), None)?;
            let volatile = Memory::zeroed(size)?;
            let lasting = Memory::persistent(&device, (n * (size + 1)) as u64, size)?;
            let mut slots = KVec::with_capacity(SENDERS + RECEIVERS, GFP_KERNEL)?;
            for slot in 0..SENDERS + RECEIVERS {
                let state = State {
                    rng: Rng::new(mix(seed ^ mix((n * 1000 + slot) as u64))),
                    uses: 0,
                    flight: None,
                    written: None,
                };
                let slot = pin_init!(Slot {
                    state <- new_mutex!(state),
                });
                slots.push(Arc::pin_init(slot, GFP_KERNEL)?, GFP_KERNEL)?;
            }
            let station = Station {
                regions: [
                    register(&end.domain, volatile, Access::READ_WRITE)?,
                    register(&end.domain, lasting, Access::READ_WRITE)?,
                ],
                end,
                peers: KVec::new(),
                slots,
            };
            load.stations.push(station, GFP_KERNEL)?;
        }
        for n in 0..STATIONS {
            let mut peers = KVec::with_capacity(STATIONS, GFP_KERNEL)?;
            for peer in &load.stations {
                let [volatile, lasting] = &peer.regions;
                let peer = Peer {
                    address: load.stations[n].end.av.insert(&peer.end.ep.name())?,
                    regions: [
                        RemoteRegion::parse(&volatile.descriptor()?)?,
                        RemoteRegion::parse(&lasting.descriptor()?)?,
                    ],
                };
                peers.push(peer, GFP_KERNEL)?;
            }
            load.stations[n].peers = peers;
        }
        Ok(load)
    }

    /// Posts a receive, or the next operation of a sender.
    fn post(&self, at: usize, number: usize) -> Result {
        let station = &self.stations[at];
        let mut state = station.slots[number].state.lock();
        check!(state.flight.is_none());
        state.uses += 1;
        let context = state.uses << 16 | number as u64;
        let tag = (at * (SENDERS + RECEIVERS) + number) as u64 | state.uses << 16;
        self.posted.add(1, Relaxed);
        if number >= SENDERS {
            state.flight = Some(Flight::new(Kind::Recv, MESSAGE, tag));
            station.end.ep.recv(Memory::zeroed(MESSAGE)?, context)?;
            return Ok(());
        }
        self.active.add(1, Relaxed);
        match (state.rng.below(10), state.written) {
            (0..3, Some(written)) => self.read(station, &mut state, written, tag, context),
            (3, Some(written)) if written.lasting => {
                self.commit(station, &mut state, written, tag, context)
            }
            (0..7, _) => self.write(station, number + at * SENDERS, &mut state, tag, context),
            _ => self.send(station, &mut state, tag, context),
        }
    }

    fn write(
        &self,
        station: &Station,
        sender: usize,
        state: &mut State,
        tag: u64,
        context: u64,
    ) -> Result {
        let rng = &mut state.rng;
        let (to, lasting) = (rng.below(STATIONS), rng.below(2));
        let longest = [64, 64, 4096, STRIPE][rng.below(4)];
        let len = rng.below(longest) + 1;
        let offset = rng.below(STRIPE - len + 1);
        let tells = rng.below(4) == 0;
        let options = Options {
            level: match lasting == 1 && rng.below(2) == 0 {
                true => Level::Committed,
                false => Level::Delivered,
            },
            data: tells.then_some(tag),
            ..Options::default()
        };
        let written = Written {
            station: to,
            lasting: lasting == 1,
            offset: sender * STRIPE + offset,
            len,
            tag,
        };
        // Until it has completed, nobody knows what is there.
        state.written = None;
        state.flight = Some(Flight {
            tells,
            writes: Some(written),
            ..Flight::new(Kind::Write, len, tag)
        });
        let peer = &station.peers[to];
        let slice = peer.regions[lasting].slice(written.offset as u64, len as u64)?;
        let memory = pattern(len, tag)?;
        station
            .end
            .ep
            .write(memory, peer.address, slice, options, context)?;
        Ok(())
    }

    fn read(
        &self,
        station: &Station,
        state: &mut State,
        written: Written,
        tag: u64,
        context: u64,
    ) -> Result {
        state.flight = Some(Flight::new(Kind::Read, written.len, tag));
        let peer = &station.peers[written.station];
        let region = &peer.regions[usize::from(written.lasting)];
        let slice = region.slice(written.offset as u64, written.len as u64)?;
        let memory = Memory::zeroed(written.len)?;
        station
            .end
            .ep
            .read(memory, peer.address, slice, Options::default(), context)?;
        Ok(())
    }

    fn commit(
        &self,
        station: &Station,
        state: &mut State,
        written: Written,
        tag: u64,
        context: u64,
    ) -> Result {
        state.flight = Some(Flight::new(Kind::Commit, written.len, tag));
        let peer = &station.peers[written.station];
        let slice = peer.regions[1].slice(written.offset as u64, written.len as u64)?;
        station
            .end
            .ep
            .commit(peer.address, slice, Options::default(), context)?;
        Ok(())
    }

    fn send(&self, station: &Station, state: &mut State, tag: u64, context: u64) -> Result {
        let to = station.peers[state.rng.below(STATIONS)].address;
        let longest = [64, 4096, MESSAGE][state.rng.below(3)];
        let len = TAG + state.rng.below(longest - TAG + 1);
        let mut memory = pattern(len, tag)?;
        memory.write_at(0, &tag.to_le_bytes())?;
        let flight = Flight {
            tells: true,
            ..Flight::new(Kind::Send, len, tag)
        };
        let flight = state.flight.insert(flight);
        let id = match state.rng.below(2) {
            0 => station
                .end
                .ep
                .send(memory, to, Options::default(), context)?,
            _ => station
                .end
                .ep
                .send(memory, to, crate::ops::data(tag | MESSAGE_DATA), context)?,
        };
        // The slot's lock keeps the completion from being looked at before this is known.
        if state.rng.below(8) == 0 && station.end.ep.cancel(id).is_ok() {
            flight.cancelled = true;
            self.cancelled.add(1, Relaxed);
        }
        Ok(())
    }

    /// Checks a completion, and posts what follows it.
    fn completed(&self, at: usize, done: Completion<u64>, ending: bool) -> Result {
        let number = (done.context & 0xffff) as usize;
        let slot = self.stations[at].slots.get(number).ok_or(EINVAL)?;
        let mut state = slot.state.lock();
        check_eq!(done.context >> 16, state.uses);
        let Some(flight) = state.flight.take() else {
            pr_err!("# station {at}, slot {number}: a second completion\n");
            return Err(EINVAL);
        };
        self.completed.add(1, Relaxed);
        // A receive is also what the data of a write ends.
        let told = flight.kind == Kind::Recv && done.kind == Kind::RemoteWrite;
        check!(done.kind == flight.kind || told);
        if flight.kind == Kind::Recv {
            drop(state);
            if ending && error(&done) == Some(ECANCELED) {
                return Ok(());
            }
            self.arrival(done)?;
            return if ending {
                Ok(())
            } else {
                self.post(at, number)
            };
        }
        // A cancel may come too late, where the peer has to be asked.
        if !flight.cancelled || error(&done) != Some(ECANCELED) {
            check_eq!(done.result.map(|success| success.len), Ok(flight.len));
            self.bytes.add(flight.len as u64, Relaxed);
            if flight.tells {
                self.sent.add(flight.tag);
            }
            if flight.writes.is_some() {
                state.written = flight.writes;
            }
        }
        match (flight.kind, state.written) {
            (Kind::Read, Some(written)) => check_buffer(done.buffer, flight.len, written.tag)?,
            (Kind::Commit, _) => {
                check_eq!(
                    done.result.map(|success| success.level),
                    Ok(Level::Committed)
                );
            }
            _ => {}
        }
        drop(state);
        if !self.stop.load(Relaxed) {
            self.post(at, number)?;
        }
        // After the next was counted, so that it is 0 only when all are through.
        self.active.add(-1, Relaxed);
        Ok(())
    }

    /// Checks what a receive received.
    fn arrival(&self, done: Completion<u64>) -> Result {
        check_eq!(error(&done), None);
        let success = done.result.map_err(|failure| failure.error)?;
        if done.kind == Kind::RemoteWrite {
            self.arrived.add(success.data.ok_or(EINVAL)?);
            return Ok(());
        }
        let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
        let mut tag = [0; TAG];
        memory.read_at(0, &mut tag)?;
        let tag = u64::from_le_bytes(tag);
        check!(success.data.is_none_or(|data| data == tag | MESSAGE_DATA));
        let expected = pattern(success.len, tag)?;
        let (found, right) = (memory.as_slice(), expected.as_slice());
        check!(found.map(|bytes| &bytes[TAG..success.len]) == right.map(|bytes| &bytes[TAG..]));
        self.arrived.add(tag);
        Ok(())
    }

    /// Serves a station until all stations' senders are through.
    fn serve(&self, at: usize) -> Result {
        let mut waited = 0;
        while !self.broken.load(Relaxed) {
            if self.stop.load(Relaxed) && self.active.load(Relaxed) == 0 {
                return Ok(());
            }
            match self.stations[at].end.cq.read_wait(100) {
                Ok(done) => {
                    waited = 0;
                    self.completed(at, done, false)?;
                }
                Err(ETIMEDOUT) if waited < timeout() => waited += 100,
                Err(error) => {
                    pr_err!(
                        "# station {at}: {} operations do not complete\n",
                        self.active.load(Relaxed)
                    );
                    return Err(error);
                }
            }
        }
        Err(ECANCELED)
    }

    /// Closes everything, and looks whether the sums are right.
    fn close(&mut self) -> Result {
        // What arrived is read before any endpoint goes, which ends receives.
        for at in 0..STATIONS {
            while let Some(done) = self.stations[at].end.cq.read() {
                self.completed(at, done, true)?;
            }
        }
        for at in 0..STATIONS {
            let station = &self.stations[at];
            for (number, slot) in station.slots.iter().enumerate() {
                let waits = slot.state.lock().flight.is_some();
                check!(!waits || number >= SENDERS);
            }
        }
        check_eq!(self.arrived.value(), self.sent.value());
        let mut rest = 0;
        for station in core::mem::take(&mut self.stations) {
            let (ep, base) = station.end.split();
            closed(ep.close())?;
            while let Some(done) = base.cq.read() {
                check_eq!((done.kind, error(&done)), (Kind::Recv, Some(ECANCELED)));
                rest += 1;
            }
            for region in station.regions {
                drop(closed(region.close_wait(timeout()))?);
            }
            base.close()?;
        }
        let (posted, completed) = (self.posted.load(Relaxed), self.completed.load(Relaxed));
        pr_info!(
            "# load: {posted} operations, {} bytes, {} messages and notices, {} cancelled\n",
            self.bytes.load(Relaxed),
            self.sent.value().0,
            self.cancelled.load(Relaxed)
        );
        check_eq!(completed + rest, posted);
        Ok(())
    }
}

impl Flight {
    fn new(kind: Kind, len: usize, tag: u64) -> Self {
        Flight {
            kind,
            len,
            tag,
            tells: false,
            cancelled: false,
            writes: None,
        }
    }
}

fn everything_at_once_is_counted_once(info: &Info, seed: u64) -> Result {
    let load = Arc::new(Load::open(info, seed)?, GFP_KERNEL)?;
    for at in 0..STATIONS {
        for number in (0..SENDERS + RECEIVERS).rev() {
            load.post(at, number)?;
        }
    }
    let crew = load.clone();
    let job = move |thread: usize| {
        crew.serve(thread % STATIONS).inspect_err(|_| {
            crew.broken.store(true, Relaxed);
        })
    };
    let crew = Crew::start(THREADS, Arc::new(job, GFP_KERNEL)?)?;
    for _ in 0..module_parameters::seconds.value() * 10 {
        if load.broken.load(Relaxed) {
            break;
        }
        fsleep(Delta::from_millis(100));
    }
    load.stop.store(true, Relaxed);
    crew.join()?;
    // The crew's references are gone with it.
    match Arc::into_unique_or_drop(load) {
        Some(mut load) => load.as_mut().get_mut().close(),
        None => Err(EBUSY),
    }
}
