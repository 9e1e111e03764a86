// SPDX-License-Identifier: GPL-2.0

//! The hub of a domain: which of its endpoints a link is for that a peer has made.
//!
//! Who makes a link says first who it is and whom it wants. Until then it is a stranger: there may be
//! so many at once, each for so long, and a stranger that says anything else is sent away and counted.
//!
//! Locks: `engines`, `strangers` and `alarm` are mutexes, taken in this order.

use super::bounds::Bounds;
use super::engine::{self, Engine};
use super::link::{self, numbered, source_of, Link, Links, Wake, SERVICE};
use super::timeouts::Timeouts;
use crate::av::Name;
use crate::info::Info;
use crate::proto::violation::Violation;
use crate::proto::wire::{self, hello, Header, Hello, Malformed, Reason};
use crate::provider::work::{self, WorkQueue};
use crate::provider::{self, Port};
use crate::stats::{Count, PeerStats};
use crate::sys::crc;
use crate::sys::reclaim;
use kernel::impl_has_hr_timer;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, ArcBorrow, Mutex};
use kernel::time::hrtimer::{
    ArcHrTimerHandle, HrTimer, HrTimerCallback, HrTimerCallbackContext, HrTimerPointer,
    HrTimerRestart, RelativeSoftMode,
};
use kernel::time::{Delta, Instant, Monotonic};
use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

/// So many links may be open whose peers are not known yet.
const STRANGERS: usize = 64;

/// A domain over links: what a provider's [`Provider::open`](crate::provider::Provider::open) gives.
pub struct Domain(Arc<Hub>);

/// What the endpoints of a domain share.
#[pin_data]
pub(super) struct Hub {
    links: Arc<dyn Links>,
    workers: Arc<WorkQueue>,
    timeouts: Timeouts,
    bounds: Bounds,
    begin: Instant<Monotonic>,
    closed: Atomic<bool>,
    #[pin]
    engines: Mutex<KVec<Arc<engine::Shared>>>,
    #[pin]
    strangers: Mutex<KVec<Stranger>>,
    /// Wakes the worker when strangers have had their time; refers to the hub until it is let go of.
    #[pin]
    alarm: Mutex<Option<ArcHrTimerHandle<Hub>>>,
    #[pin]
    timer: HrTimer<Hub>,
    #[pin]
    work: Work<Hub>,
}

/// A link whose peer is not known yet.
struct Stranger {
    link: Arc<dyn Link>,
    since: u64,
    bytes: [u8; wire::SIZE + hello::MAX],
    have: usize,
}

/// What comes of a stranger.
enum Said {
    /// Nothing yet.
    Nothing,
    /// The link has ended.
    Gone,
    Hello(Hello),
    /// It is to be sent away.
    Nonsense(Violation),
}

impl_has_work! {
    impl HasWork<Self> for Hub { self.work }
}

impl WorkItem for Hub {
    type Pointer = Arc<Hub>;

    fn run(this: Arc<Hub>) {
        let more = reclaim::without_io(|| {
            // Those who have had their time make room.
            this.hear();
            let more = this.take_links();
            this.hear();
            more
        });
        if more {
            this.queue();
        }
        this.arm();
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Hub {
        mode: RelativeSoftMode<Monotonic>, field: self.timer
    }
}

impl HrTimerCallback for Hub {
    type Pointer<'a> = Arc<Self>;

    fn run(this: ArcBorrow<'_, Self>, _: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        Arc::from(this).queue();
        HrTimerRestart::NoRestart
    }
}

/// Wakes the hub's worker.
struct Waker(Arc<Hub>);

impl Wake for Waker {
    fn wake(&self) {
        self.0.queue();
    }
}

impl Domain {
    /// A domain over `links`, whose work is done by `workers`. Sleeps. `ENOMEM`.
    pub fn new(links: Arc<dyn Links>, workers: Arc<WorkQueue>) -> Result<Arc<Self>> {
        let (timeouts, bounds) = (Timeouts::configured()?, Bounds::configured()?);
        Self::with(links, workers, timeouts, bounds)
    }

    /// As [`Domain::new`], with other timeouts and bounds.
    pub(super) fn with(
        links: Arc<dyn Links>,
        workers: Arc<WorkQueue>,
        timeouts: Timeouts,
        bounds: Bounds,
    ) -> Result<Arc<Self>> {
        let hub = Arc::pin_init(
            pin_init!(Hub {
                links,
                workers,
                timeouts,
                bounds,
                begin: Instant::now(),
                closed: Atomic::new(false),
                engines <- new_mutex!(KVec::new(), "kfi_engines"),
                strangers <- new_mutex!(KVec::new(), "kfi_strangers"),
                alarm <- new_mutex!(None, "kfi_alarm"),
                timer <- HrTimer::new(),
                work <- new_work!("kfi_hub"),
            }),
            GFP_KERNEL,
        )?;
        let waker = Arc::new(Waker(hub.clone()), GFP_KERNEL)?;
        let domain = Arc::new(Domain(hub), GFP_KERNEL)?;
        domain.0.links.attach(waker);
        domain.0.queue();
        Ok(domain)
    }
}

impl provider::Domain for Domain {
    type Endpoint = Engine;

    fn endpoint(&self, port: Arc<Port>, info: &Info) -> Result<Arc<Engine>> {
        Engine::new(&self.0, port, info)
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let hub = &self.0;
        hub.closed.store(true, Relaxed);
        hub.links.close();
        let strangers = core::mem::take(&mut *hub.strangers.lock());
        for stranger in strangers {
            stranger.link.close(false);
        }
        work::flush(&hub.work);
        let alarm = hub.alarm.lock().take();
        // Its callback may have queued the work once more.
        drop(alarm);
        work::flush(&hub.work);
        // What the last run took meanwhile.
        let strangers = core::mem::take(&mut *hub.strangers.lock());
        for stranger in strangers {
            stranger.link.close(false);
        }
    }
}

impl Hub {
    /// Where work is queued.
    pub(super) fn workers(&self) -> &WorkQueue {
        &self.workers
    }

    /// Nanoseconds since the domain was opened.
    pub(super) fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos().max(0) as u64
    }

    /// How long it waits for what.
    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// How much its endpoints keep of their peers.
    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Whether frames are to carry checksums.
    pub(super) fn has_sums(&self) -> bool {
        self.links.has_sums()
    }

    /// Begins to make a link.
    pub(super) fn dial(&self, address: &[u8]) -> Result<Arc<dyn Link>> {
        self.links.dial(address)
    }

    /// The name of an endpoint of `info`: one that none had, or, if its source is a service, the name
    /// of that.
    pub(super) fn new_name(&self, port: &Port, info: &Info) -> Result<Name> {
        let source = info.source.as_ref().and_then(source_of);
        let number = match source {
            Some((_, true)) if port.serves() => SERVICE,
            _ => link::random_number(),
        };
        numbered(self.links.address(), number)
    }

    /// Lets peers reach an endpoint. Sleeps. `EADDRINUSE`: another has its name; `ENOMEM`.
    pub(super) fn enter(&self, engine: Arc<engine::Shared>) -> Result {
        let mut engines = self.engines.lock();
        if engines
            .iter()
            .any(|other| other.own_name() == engine.own_name())
        {
            return Err(EADDRINUSE);
        }
        engines.push(engine, GFP_KERNEL)?;
        Ok(())
    }

    /// No peer reaches the endpoint any more. Sleeps.
    pub(super) fn leave(&self, engine: &Arc<engine::Shared>) {
        self.engines
            .lock()
            .retain(|other| !Arc::ptr_eq(other, engine));
    }

    fn queue(self: &Arc<Self>) {
        if !self.closed.load(Relaxed) {
            self.workers.enqueue(self.clone());
        }
    }

    /// Takes the links that peers have made, so many at a time; whether there may be more.
    fn take_links(self: &Arc<Self>) -> bool {
        for _ in 0..STRANGERS {
            match self.links.accept() {
                Ok(link) => self.invite(link),
                // None, or the domain is closed.
                Err(EAGAIN | EINVAL) => return false,
                // One that broke, or there is no memory for it.
                Err(_) => {}
            }
        }
        true
    }

    /// Hears a stranger out, if there is room. One that is sent away may come again.
    fn invite(self: &Arc<Self>, link: Arc<dyn Link>) {
        let engines = self.engines.lock();
        let mut strangers = self.strangers.lock();
        if strangers.len() >= STRANGERS {
            self.make_room(&engines, &mut strangers);
        }
        let waker = Arc::new(Waker(self.clone()), GFP_KERNEL);
        let room = strangers.reserve(1, GFP_KERNEL);
        let (Ok(waker), Ok(()), true) = (waker, room, strangers.len() < STRANGERS) else {
            drop(strangers);
            count(&engines, |stats| &stats.strangers);
            // Without a word: that would be the end for who has come to stay.
            return link.close(false);
        };
        link.attach(waker);
        let stranger = Stranger {
            link,
            since: self.now(),
            bytes: [0; wire::SIZE + hello::MAX],
            have: 0,
        };
        // There is room.
        let _ = strangers.push_within_capacity(stranger);
    }

    /// Sends away who has been silent for longest, if that is long for somebody who has come to stay: so those
    /// who say nothing do not keep out the others.
    fn make_room(&self, engines: &[Arc<engine::Shared>], strangers: &mut KVec<Stranger>) {
        let (mut oldest, now) = (None, self.now());
        for (at, stranger) in strangers.iter().enumerate() {
            let is_slow = now - stranger.since >= self.timeouts.hurry;
            if is_slow && oldest.is_none_or(|(_, since)| stranger.since < since) {
                oldest = Some((at, stranger.since));
            }
        }
        if let Some(Ok(stranger)) = oldest.map(|(at, _)| strangers.remove(at)) {
            count(engines, |stats| &stats.hurried);
            stranger.link.close(false);
        }
    }

    /// Hears what the strangers say.
    fn hear(&self) {
        let engines = self.engines.lock();
        let mut strangers = self.strangers.lock();
        strangers.retain(|stranger| match stranger.hear() {
            Said::Nothing if !self.is_late(stranger) => true,
            Said::Nothing => {
                self.blame(&engines, Violation::Unexpected);
                stranger.link.close(false);
                false
            }
            Said::Nonsense(violation) => {
                self.blame(&engines, violation);
                stranger.link.close(false);
                false
            }
            Said::Gone => {
                stranger.link.close(false);
                false
            }
            Said::Hello(hello) => {
                self.introduce(&engines, stranger.link.clone(), hello);
                false
            }
        });
    }

    /// Counts what a stranger has done that it may not, where the endpoints count what peers do.
    fn blame(&self, engines: &[Arc<engine::Shared>], violation: Violation) {
        if let Some(engine) = engines.first() {
            engine.count(violation);
        }
    }

    /// Has the next stranger whose time is over sent away then.
    fn arm(self: &Arc<Self>) {
        let oldest = self.strangers.lock().iter().map(|one| one.since).min();
        let mut alarm = self.alarm.lock();
        let before = alarm.take();
        // Waits for the timer's callback, which takes no lock.
        drop(before);
        if let (Some(since), false) = (oldest, self.closed.load(Relaxed)) {
            let left = (since + self.timeouts.stranger).saturating_sub(self.now());
            let after = Delta::from_nanos(i64::try_from(left).unwrap_or(i64::MAX));
            *alarm = Some(self.clone().start(after));
        }
    }

    /// Whether a stranger has had its time.
    fn is_late(&self, stranger: &Stranger) -> bool {
        self.now() - stranger.since >= self.timeouts.stranger
    }

    /// Brings a link to the endpoint that it is for.
    fn introduce(&self, engines: &[Arc<engine::Shared>], link: Arc<dyn Link>, hello: Hello) {
        let names = (
            Name::new(hello.to.as_bytes()),
            Name::new(hello.from.as_bytes()),
        );
        let engine = engines.iter().find(|engine| match &names {
            (Ok(wanted), Ok(who)) => engine.takes(wanted, who),
            _ => false,
        });
        match engine {
            Some(engine) => engine.greet(link, hello),
            None => {
                count(engines, |stats| &stats.nobodys);
                super::peer::part(&*link, Reason::NoEndpoint);
                link.close(true);
            }
        }
    }
}

/// Counts what becomes of a stranger, where the endpoints count what becomes of peers.
fn count(engines: &[Arc<engine::Shared>], what: impl FnOnce(&PeerStats) -> &Count) {
    if let Some(engine) = engines.first() {
        what(engine.peer_stats()).add(1);
    }
}

impl Stranger {
    /// Reads what is there.
    fn hear(&mut self) -> Said {
        loop {
            let end = match self.have {
                0..wire::SIZE => wire::SIZE,
                _ => match self.announced() {
                    Ok(end) => end,
                    Err(malformed) => return Said::Nonsense(malformed.into()),
                },
            };
            if self.have == end {
                return match self.hello(end) {
                    Ok(hello) => Said::Hello(hello),
                    Err(malformed) => Said::Nonsense(malformed.into()),
                };
            }
            let Some(room) = self.bytes.get_mut(self.have..end) else {
                return Said::Nonsense(Malformed::Long.into());
            };
            match self.link.receive_bytes(room) {
                Ok(len @ 1..) => self.have += len,
                Err(EAGAIN) => return Said::Nothing,
                // As of a peer that has dialled at the same time, and has taken the other link.
                Ok(0) | Err(_) => return Said::Gone,
            }
        }
    }

    fn header(&self) -> Result<Header, Malformed> {
        let header = self.bytes.get(..wire::SIZE).ok_or(Malformed::Short)?;
        let header = Header::parse(header, hello::MAX as u32, true)?;
        match header.kind {
            wire::Kind::Hello => Ok(header),
            _ => Err(Malformed::Kind),
        }
    }

    /// How many bytes the header and the hello have.
    fn announced(&self) -> Result<usize, Malformed> {
        Ok(wire::SIZE + self.header()?.len as usize)
    }

    fn hello(&self, end: usize) -> Result<Hello, Malformed> {
        let payload = self.bytes.get(wire::SIZE..end).ok_or(Malformed::Short)?;
        if crc::of(payload) != self.header()?.payload_crc {
            return Err(Malformed::Checksum);
        }
        Hello::parse(payload)
    }
}
