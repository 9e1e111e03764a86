// SPDX-License-Identifier: GPL-2.0

//! The campaign: random operations of all kinds, so many of them as the module parameter `campaign`
//! says, while the administrator has a provider inject faults.
//!
//! Six stations, three in each of two domains, each with an order of its own and some with fences:
//! four of datagrams, and two that are connected to each other. A station has lanes, and a lane
//! owns a stripe of each station's regions. It posts bursts of operations to one stripe, without
//! waiting in between, and when all have ended it looks whether what was read, and what is there
//! now, is what some permitted order of those that went well leaves behind. So it is with the
//! atomics of a burst, which go to one word, and with what they fetch. Each completion names its
//! burst, so one too many or too few is seen. Tags of messages, and the data of writes, are summed
//! up where they are sent and where they arrive.
//!
//! Two tasks do this side by side, each with stations of its own.
//!
//! When the provider, or a domain, ends amid a burst, what was posted of it ends, too, and the other
//! task posts no more. What failed and may have done something is in doubt, and may be seen or not;
//! all else is held to what it was told to be. What is silent, and of which no failure is told, went
//! well.

mod counts;
mod judge;
mod lane;
mod station;
mod word;

use self::counts::Counts;
use self::lane::{Lane, Planned, State};
use self::station::{endpoint_type, manner, open, Side, Station, LASTING, VOLATILE, WORDS};
use self::word::Form;
use crate::close::closed;
use crate::crew::Crew;
use crate::ops::{error, pmem};
use crate::rig::{count, join, register, timeout};
use crate::rng::{mix, Rng};
use crate::runner::asked_for;
use crate::source::{made_of, SOURCES};
use crate::{cases, check, check_eq, module_parameters};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc};
use kernel::time::delay::fsleep;
use kernel::time::{Delta, Instant, Monotonic};
use kfabric::prelude::*;

cases! {
    campaign_is_counted_and_compared: ALL,
    campaign_until_the_provider_ends: ALL,
}

const ALL: Caps = Caps::MSG
    .union(Caps::TAGGED)
    .union(Caps::RMA)
    .union(Caps::REMOTE_CQ_DATA)
    .union(Caps::ATOMIC);

/// Tasks that have stations of their own.
const TASKS: usize = 2;
/// Of a task: first those of datagrams, then two that are connected to each other.
const STATIONS: usize = DATAGRAMS + 2;
const DATAGRAMS: usize = 4;
/// Of each station.
const LANES: usize = 8;
/// Of all stations.
const ALL_LANES: usize = STATIONS * LANES;
/// The most operations of a burst.
const BURST: usize = 4;
/// The shortest and the longest range; and a longest that most keep to.
const SHORTEST: usize = 8;
const LONGEST: usize = 20_000;
const MOSTLY: usize = 256;
/// Of each station; the first half for messages without a tag, and the data of writes.
const RECEIVES: usize = 16;
/// Marks the context of a receive.
const RECEIVE: u64 = 1 << 63;
/// How many rounds go without a pause.
const ROUNDS: u64 = 1000;

struct Campaign {
    inject_size: usize,
    stations: KVec<Station>,
    sides: KVec<Side>,
    remotes: KVec<KVec<RemoteRegion>>,
    lanes: KVec<Lane>,
    /// What is in each lane's stripes.
    known: KVec<KVVec<u8>>,
    /// What is in each lane's words.
    words: KVec<u64>,
    /// Bytes of each operation of a burst, and those that were found.
    scratch: KVec<KVVec<u8>>,
    /// Sums over tags that were sent, less those that arrived.
    balance: u64,
    counts: Counts,
    /// Whether the provider may end, and whether it has.
    ends: bool,
    gone: bool,
    /// Not 0 once it has for any task.
    over: Arc<Atomic<i32>>,
}

/// The bytes of a tag, from the tag itself on.
fn fill(bytes: &mut [u8], tag: u64) {
    let mut word = tag;
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
        word = mix(word.wrapping_add(1));
    }
}

impl Campaign {
    fn open(
        info: &Info,
        task: usize,
        seed: u64,
        ends: bool,
        over: Arc<Atomic<i32>>,
    ) -> Result<Self> {
        let mut campaign = Campaign {
            inject_size: info.limits.inject_size,
            stations: KVec::new(),
            sides: KVec::new(),
            remotes: KVec::new(),
            lanes: KVec::new(),
            known: KVec::new(),
            words: KVec::from_elem(0, STATIONS * ALL_LANES, GFP_KERNEL)?,
            scratch: KVec::new(),
            balance: 0,
            counts: Counts::default(),
            ends,
            gone: false,
            over,
        };
        let device = pmem().ok();
        for _ in 0..2 {
            campaign.sides.push(Side::new(info)?, GFP_KERNEL)?;
        }
        for n in 0..STATIONS {
            let side = &campaign.sides[n % 2];
            let ep = open(info, side, n)?;
            let (mut regions, mut remotes) = (KVec::new(), KVec::new());
            let size = ALL_LANES * LONGEST;
            // Each station's is of another source.
            let volatile = (
                made_of(SOURCES[n % SOURCES.len()], size)?,
                Access::READ_WRITE,
            );
            let words = (Memory::zeroed(ALL_LANES * 8)?, Access::ALL);
            let lasting = device.as_ref().map(|device| {
                let place = (task * STATIONS + n) * size;
                let memory = Memory::persistent(device, place as u64, size);
                memory.map(|memory| (memory, Access::READ_WRITE))
            });
            let pieces = [Some(volatile), Some(words), lasting.transpose()?];
            for (memory, access) in pieces.into_iter().flatten() {
                let region = register(&side.domain, memory, access)?;
                remotes.push(RemoteRegion::parse(&region.descriptor()?)?, GFP_KERNEL)?;
                regions.push(region, GFP_KERNEL)?;
            }
            for region in &regions {
                let mut bytes = KVVec::zeroed(region.len(), GFP_KERNEL)?;
                region.read_at(0, &mut bytes)?;
                campaign.known.push(bytes, GFP_KERNEL)?;
            }
            campaign.remotes.push(remotes, GFP_KERNEL)?;
            let peers = KVec::new();
            let station = Station {
                ep: Some(ep),
                regions,
                peers,
                receives: [false; RECEIVES],
            };
            campaign.stations.push(station, GFP_KERNEL)?;
        }
        for n in 0..STATIONS {
            for peer in 0..STATIONS {
                let address = match endpoint_type(n) {
                    EndpointType::Msg => Address::PEER,
                    _ => {
                        let name = campaign.stations[peer].ep()?.name();
                        campaign.sides[n % 2].av.insert(&name)?
                    }
                };
                campaign.stations[n].peers.push(address, GFP_KERNEL)?;
            }
        }
        campaign.connect(info)?;
        for n in 0..ALL_LANES {
            let lane = Lane {
                rng: Rng::new(mix(seed ^ mix(n as u64))),
                serial: 0,
                planned: KVec::with_capacity(BURST, GFP_KERNEL)?,
                to: 0,
                lasting: false,
                len: 0,
            };
            campaign.lanes.push(lane, GFP_KERNEL)?;
        }
        for _ in 0..=BURST {
            let bytes = KVVec::zeroed(LONGEST, GFP_KERNEL)?;
            campaign.scratch.push(bytes, GFP_KERNEL)?;
        }
        Ok(campaign)
    }

    /// Connects the last two stations.
    #[inline(never)]
    fn connect(&self, info: &Info) -> Result {
        let (asks, hears) = (DATAGRAMS, DATAGRAMS + 1);
        let side = &self.sides[hears % 2];
        let info = asked_for(info, EndpointType::Msg, Caps::NONE, Order::NONE).ok_or(ENODATA)?;
        let listener = PassiveEndpoint::listen(&side.domain, &info, &side.eq, 1)?;
        let (asking, hearing) = (self.stations[asks].ep()?, self.stations[hears].ep()?);
        join(
            (&self.sides[asks % 2].eq, asking),
            (&side.eq, hearing),
            &listener,
        )?;
        closed(listener.close())
    }

    /// Whether that is how posts and operations of a station fail once the provider, or the domain of a
    /// peer, has ended.
    fn is_end(&self, station: usize, error: Error) -> bool {
        let lost = match endpoint_type(station) {
            EndpointType::Msg => ENOTCONN,
            _ => EHOSTUNREACH,
        };
        self.ends && (error == ENODEV || error == lost)
    }

    /// Posts a receive of a station.
    fn receive(&mut self, station: usize, number: usize) -> Result {
        let at = (station * RECEIVES + number) * LONGEST;
        let slice = self.sides[station % 2].receive.slice(at, LONGEST)?;
        let context = RECEIVE | (station * RECEIVES + number) as u64;
        let ep = self.stations[station].ep()?;
        let posted = match number < RECEIVES / 2 {
            true => ep.recv(slice, context),
            false => ep.trecv(slice, 0, u64::MAX, context),
        };
        match posted {
            Ok(_) => {
                self.counts.posted += 1;
                self.stations[station].receives[number] = true;
            }
            Err(refused) if self.is_end(station, refused.error) => self.gone = true,
            Err(refused) => return Err(refused.error),
        }
        Ok(())
    }

    /// Chooses the next burst of a lane.
    fn plan(&mut self, number: usize) -> Result {
        let (_, fences) = manner(number / LANES);
        let has_lasting = self.remotes[0].len() > LASTING;
        let lane = &mut self.lanes[number];
        let rng = &mut lane.rng;
        lane.serial = lane.serial.wrapping_add(1);
        lane.to = match endpoint_type(number / LANES) {
            // The one of the two that it is not.
            EndpointType::Msg => DATAGRAMS + STATIONS - 1 - number / LANES,
            _ => rng.below(DATAGRAMS),
        };
        lane.lasting = has_lasting && rng.below(3) == 0;
        let longest = if rng.below(32) == 0 { LONGEST } else { MOSTLY };
        lane.len = SHORTEST + rng.below(longest - SHORTEST + 1);
        let count = 1 + rng.below(BURST);
        let word = self.words[lane.to * ALL_LANES + number];
        let (mut silent, mut added) = (false, 0);
        for n in 0..count {
            let kind = match rng.below(12) {
                0..5 => Kind::Write,
                5..8 => Kind::Read,
                8 if lane.lasting => Kind::Commit,
                8..10 => Kind::Atomic,
                _ => Kind::Send,
            };
            let tag = rng.next();
            let commits =
                kind == Kind::Commit || (kind == Kind::Write && lane.lasting && rng.below(4) == 0);
            let data = matches!(kind, Kind::Write | Kind::Commit) && rng.below(8) == 0;
            let quiet = fences && n + 1 < count && rng.below(4) == 0;
            silent |= quiet;
            let options = Options {
                level: match commits {
                    true => Level::Committed,
                    false => Level::Delivered,
                },
                data: data.then_some(tag),
                fence: fences && (rng.below(8) == 0 || (silent && n + 1 == count)),
                silent: quiet,
                more: n + 1 < count && rng.below(2) == 0,
            };
            // What is there may be swapped, or what is there once the one before it has added; or neither.
            let form = match rng.below(4) {
                0 => Form::Add,
                1 => Form::FetchAdd,
                2 => Form::Swap { if_is: word },
                _ => Form::Swap {
                    if_is: word.wrapping_add(added),
                },
            };
            if kind == Kind::Atomic {
                added = tag;
            }
            let injects = matches!(kind, Kind::Write | Kind::Send) && lane.len <= self.inject_size;
            let planned = Planned {
                kind,
                options,
                tag,
                injected: injects && rng.below(2) == 0,
                tagged: kind == Kind::Send && rng.below(2) == 0,
                form,
                state: State::Fresh,
            };
            lane.planned.push(planned, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Posts what can be posted of a lane's burst, in order.
    fn post(&mut self, number: usize) -> Result {
        let (from, side) = (number / LANES, &self.sides[number / LANES % 2]);
        let lane = &mut self.lanes[number];
        let station = &self.stations[from];
        let (ep, to) = (station.ep()?, station.peers[lane.to]);
        let (lasting, serial, len) = (lane.lasting, lane.serial, lane.len);
        let region = if lasting { LASTING } else { VOLATILE };
        let remotes = &self.remotes[lane.to];
        let range = remotes[region].slice((number * LONGEST) as u64, len as u64)?;
        for (n, op) in lane.planned.iter_mut().enumerate() {
            if op.state != State::Fresh {
                continue;
            }
            let at = (number * BURST + n) * LONGEST;
            let context = (number as u64) << 40 | u64::from(serial) << 8 | n as u64;
            let bytes = &mut self.scratch[0][..len];
            fill(bytes, op.tag);
            // It may complete before the post returns, but is looked at later.
            let posted = match op.kind {
                Kind::Write | Kind::Send if op.injected => match (op.kind, op.tagged) {
                    (Kind::Write, _) => ep.inject_write(bytes, to, range, op.options, context),
                    (_, true) => ep.tinject(bytes, to, op.tag, op.options, context),
                    (_, false) => ep.inject(bytes, to, op.options, context),
                },
                Kind::Write | Kind::Send => {
                    side.local.write_at(at, bytes)?;
                    let slice = side.local.slice(at, len)?;
                    match (op.kind, op.tagged) {
                        (Kind::Write, _) => ep.write(slice, to, range, op.options, context),
                        (_, true) => ep.tsend(slice, to, op.tag, op.options, context),
                        (_, false) => ep.send(slice, to, op.options, context),
                    }
                }
                Kind::Read => {
                    let slice = side.local.slice(at, len)?;
                    ep.read(slice, to, range, op.options, context)
                }
                Kind::Commit => ep.commit(to, range, op.options, context),
                _ => {
                    side.local.write_at(at, &op.tag.to_le_bytes())?;
                    if let Form::Swap { if_is } = op.form {
                        side.local.write_at(at + 8, &if_is.to_le_bytes())?;
                    }
                    let action = op.form.action();
                    let slice = side.local.slice(at, action.action.vectors() * 8)?;
                    let word = remotes[WORDS].slice(number as u64 * 8, 8)?;
                    ep.atomic(slice, to, word, action, op.options, context)
                }
            };
            match posted {
                Ok(_) => {
                    op.state = State::Posted;
                    self.counts.posted += 1;
                }
                Err(refused) if refused.error == EAGAIN => {
                    self.counts.refused += 1;
                    return Ok(());
                }
                Err(refused) => {
                    let error = refused.error;
                    drop(refused);
                    self.gone = self.is_end(from, error);
                    return if self.gone { Ok(()) } else { Err(error) };
                }
            }
        }
        Ok(())
    }

    /// Notes a completion.
    fn completed(&mut self, done: Completion<u64>) -> Result {
        self.counts.completed += 1;
        if done.context & RECEIVE != 0 {
            return self.arrived(done);
        }
        let number = (done.context >> 40) as usize;
        let station = self.stations.get(number / LANES).ok_or(EINVAL)?;
        // What still waits then ends with its endpoint.
        let closed = self.gone && station.ep.is_none() && error(&done) == Some(ECANCELED);
        let ending = error(&done).is_some_and(|error| self.is_end(number / LANES, error)) || closed;
        let lane = self.lanes.get_mut(number).ok_or(EINVAL)?;
        check_eq!(done.context >> 8 & 0xffff_ffff, u64::from(lane.serial));
        let at = (done.context & 0xff) as usize;
        let op = lane.planned.get_mut(at).ok_or(EINVAL)?;
        check!(op.state == State::Posted && op.kind == done.kind);
        match done.result {
            Ok(success) => {
                op.state = State::Ended(true);
                check!(!op.options.silent && success.level >= op.options.level);
                let len = if op.kind == Kind::Atomic { 8 } else { lane.len };
                check_eq!(success.len, len);
            }
            Err(failure) => {
                self.counts.failed += 1;
                let errno = -failure.error.to_errno();
                self.counts.note_errors((errno, errno));
                let nothing = failure.outcome == Outcome::NotExecuted;
                check!(ending || nothing);
                op.state = match nothing {
                    true => State::Ended(false),
                    false => State::Doubtful,
                };
                self.gone |= ending;
            }
        }
        if !self.gone && self.lanes[number].has_ended() {
            self.judge(number)?;
        }
        Ok(())
    }

    /// Checks what a receive received, and posts it again.
    fn arrived(&mut self, done: Completion<u64>) -> Result {
        let at = (done.context & !RECEIVE) as usize;
        let station = at / RECEIVES;
        // Each receive ends once.
        let posted = self.stations.get_mut(station).ok_or(EINVAL)?;
        check!(core::mem::take(&mut posted.receives[at % RECEIVES]));
        // Of two that are connected one is closed first.
        if posted.ep.is_none() && matches!(error(&done), Some(ECANCELED | ENOTCONN)) {
            return Ok(());
        }
        if error(&done).is_some_and(|error| self.is_end(station, error)) {
            self.gone = true;
            return Ok(());
        }
        let success = done.result.map_err(|failure| failure.error)?;
        let tag = match done.kind {
            Kind::RemoteWrite => success.data.ok_or(EINVAL)?,
            _ => {
                let [expected, .., found] = &mut self.scratch[..] else {
                    return Err(EINVAL);
                };
                let (expected, found) = (&mut expected[..success.len], &mut found[..success.len]);
                let receive = &self.sides[station % 2].receive;
                receive.read_at(at * LONGEST, found)?;
                let mut tag = [0; 8];
                tag.copy_from_slice(found.get(..8).ok_or(EINVAL)?);
                let tag = u64::from_le_bytes(tag);
                fill(expected, tag);
                check!(expected == found);
                // Which half of the receives it met.
                check_eq!(done.tag, (at % RECEIVES >= RECEIVES / 2).then_some(tag));
                tag
            }
        };
        self.counts.arrived += 1;
        self.balance = self.balance.wrapping_sub(mix(tag));
        drop(done);
        // While messages wait for it they do not end, also once the provider, or a domain, has.
        if self.stations[station].ep.is_none() {
            return Ok(());
        }
        self.receive(station, at % RECEIVES)
    }

    /// Posts and reads until `total` operations were posted and have ended, or the provider has.
    fn run(&mut self, total: u64) -> Result {
        for station in 0..STATIONS {
            for number in 0..RECEIVES {
                self.receive(station, number)?;
            }
        }
        let (mut idle, mut round, mut waits) = (0, 0_u64, false);
        loop {
            for number in 0..ALL_LANES {
                let rests = self.lanes[number].planned.is_empty();
                if rests && !self.gone && !self.has_enough(total) {
                    self.plan(number)?;
                }
                if !self.gone && !self.lanes[number].planned.is_empty() {
                    self.post(number)?;
                }
            }
            let before = self.counts.completed;
            for side in 0..2 {
                while let Some(done) = self.sides[side].cq.read() {
                    self.completed(done)?;
                }
            }
            if self.gone {
                // Before it returns: the other task would go on for ever.
                self.over.store(1, Relaxed);
            }
            if self.is_through(total) {
                return Ok(());
            }
            round += 1;
            if round % ROUNDS == 0 {
                fsleep(Delta::from_millis(1));
            }
            if self.counts.completed > before {
                idle = 0;
                continue;
            }
            waits = !waits;
            let _ = self.sides[usize::from(waits)].cq.wait(1);
            idle += 1;
            if idle > timeout() {
                pr_err!("# operations do not complete\n");
                return Err(ETIMEDOUT);
            }
        }
    }

    /// Whether all that was to be posted was, so far as bursts that have begun go.
    fn has_enough(&self, total: u64) -> bool {
        self.counts.posted >= total || self.over.load(Relaxed) != 0
    }

    /// Whether all that was to be posted has ended and arrived, or the provider has ended.
    ///
    /// What arrives is told through the queue of the other side, which may have been read before.
    fn is_through(&self, total: u64) -> bool {
        let waits = |op: &Planned| op.state == State::Posted && !op.options.silent;
        self.lanes.iter().all(|lane| match self.gone {
            true => !lane.planned.iter().any(waits),
            false => {
                let arrived = self.counts.arrived == self.counts.sent;
                self.has_enough(total) && lane.planned.is_empty() && arrived
            }
        })
    }

    /// Closes everything, and looks whether the sums are right.
    fn close(mut self) -> Result<Counts> {
        for station in &mut self.stations {
            let ep = station.ep.take();
            ep.map_or(Ok(()), |ep| closed(ep.close()))?;
        }
        // Receives; and what had not been told of when the provider ended.
        for side in 0..2 {
            while let Some(done) = self.sides[side].cq.read() {
                check!(done.kind == Kind::Recv || self.gone);
                self.completed(done)?;
            }
        }
        let posted = |station: &Station| station.receives.contains(&true);
        check!(!self.stations.iter().any(posted));
        for number in 0..ALL_LANES {
            if self.gone && !self.lanes[number].planned.is_empty() {
                self.judge_rest(number)?;
            }
        }
        for station in core::mem::take(&mut self.stations) {
            for region in station.regions {
                drop(closed(region.close_wait(timeout()))?);
            }
        }
        for side in core::mem::take(&mut self.sides) {
            side.close()?;
        }
        let counts = self.counts;
        check_eq!(counts.completed + counts.silent, counts.posted);
        // What was sent has arrived, and what is in doubt has or has not.
        check!(counts.arrived >= counts.sent);
        check!(counts.arrived <= counts.sent + counts.doubtful);
        if counts.doubtful == 0 {
            check_eq!(self.balance, 0);
        }
        Ok(counts)
    }
}

/// One task, to its end; whether the provider ended before.
#[inline(never)]
fn task(
    info: &Info,
    number: usize,
    seed: u64,
    total: u64,
    ends: bool,
    over: &Arc<Atomic<i32>>,
) -> Result<(Counts, bool)> {
    let mut campaign = Campaign::open(info, number, seed, ends, over.clone())?;
    campaign.run(total)?;
    let gone = campaign.gone;
    Ok((campaign.close()?, gone))
}

/// Runs a campaign of so many operations, or until the provider ends; whether it has, for any of its tasks.
fn campaign(info: &Info, seed: u64, ends: bool) -> Result<bool> {
    let begin = Instant::<Monotonic>::now();
    let total = module_parameters::campaign.value().div_ceil(TASKS as u64);
    let all = Arc::pin_init(new_mutex!((Counts::default(), false)), GFP_KERNEL)?;
    let (info, sum, over) = (*info, all.clone(), count()?);
    let job = move |number: usize| {
        let seed = mix(seed ^ number as u64);
        // If it fails, the other task ends as well.
        let (counts, gone) = task(&info, number, seed, total, ends, &over)
            .inspect_err(|_| over.store(1, Relaxed))?;
        let mut sum = sum.lock();
        sum.0.add(&counts);
        sum.1 |= gone;
        Ok(())
    };
    Crew::start(TASKS, Arc::new(job, GFP_KERNEL)?)?.join()?;
    let all = all.lock();
    all.0.tell(begin);
    Ok(all.1)
}

fn campaign_is_counted_and_compared(info: &Info, seed: u64) -> Result {
    campaign(info, seed, false).map(|_| ())
}

fn campaign_until_the_provider_ends(info: &Info, seed: u64) -> Result {
    check!(campaign(info, seed, true)?);
    Ok(())
}
