// SPDX-License-Identifier: GPL-2.0

//! A far end: an endpoint here, for one on another host whose steps a script has done, too.
//!
//! What each has to know of the other is its card: a line of the endpoint's name and the descriptors
//! of its regions, in hexadecimal digits. Scripts bring it from one host to the other.
//!
//! | `far ...` | does, and answers |
//! |---|---|
//! | `open [PROVIDER]` | opens an endpoint and regions, and receives from now on; the card |
//! | `meet CARD` | from now on the peer is the one with that card; forgets what `found` tells |
//! | `send COUNT LEN` | sends messages, many at once |
//! | `write REGION COUNT LEN SEED` | writes, many at once; to `lasting`, at level committed |
//! | `read REGION COUNT LEN SEED` | reads the last that were written so, and compares |
//! | `add COUNT` | adds 1 to a word of the peer, by atomics, many at once |
//! | `found` | tells what the peer has done here |
//! | `crowd COUNT` | opens so many more endpoints, which receive nothing; the name of the first |
//! | `use` | each of those sends a message |
//! | `disperse` | closes those |
//! | `pester NAME COUNT LEN` | posts messages to somebody, and does not wait for them |
//! | `give_up` | cancels those |
//! | `pestered` | waits until they have ended |
//! | `close` | closes all of it |
//!
//! `REGION` is `volatile` or `lasting`. Those that post answer with how many operations went `ok`,
//! how many failed and had no effect (`none`), or perhaps one (`unknown`), and the errno of the last
//! that failed. They stop at the first that fails, and fail only if an operation does not end.

use crate::check;
use crate::crew::{Crew, Job};
use crate::ops::{data, level, pmem};
use crate::peer::Region;
use crate::rig::{check_buffer, pattern, register, timeout, with_sizes};
use crate::source::{patterned, spoilt, Source};
use kernel::fmt;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};
use kfabric::prelude::*;

mod crowd;

use crowd::Crowd;

/// How many operations are in flight at most, in each direction.
const DEPTH: usize = 64;
/// The longest message, and what is read or written at once.
const MOST: usize = 64 << 10;
/// Bytes of a region.
const SIZE: usize = 4 << 20;
/// So many messages are told apart.
const MESSAGES: usize = 1 << 20;
/// How long one wait for a message lasts, in milliseconds; it is repeated.
const WAIT: u32 = 50;
const WORD: usize = size_of::<u64>();
/// The context of messages to somebody else.
const PESTERS: u64 = u64::MAX;
const ADD: AtomicAction = AtomicAction::update(AtomicOp::Sum, Datatype::U64);

/// What a script has of one host.
pub(super) struct Far {
    near: Arc<Near>,
    receiver: Crew<Receiver>,
    peer: Option<Peer>,
    /// The number of the next message.
    next: u64,
    crowd: Option<Crowd>,
    /// Messages to somebody else.
    pestering: KVec<OpId>,
    info: Info,
}

/// The end that is here.
// In the order in which they must be closed.
#[pin_data]
struct Near {
    ep: Endpoint<u64>,
    volatile: Region,
    lasting: Option<Region>,
    word: Region,
    av: AddressVector,
    tx: CompletionQueue<u64>,
    rx: CompletionQueue<u64>,
    domain: Domain,
    fabric: Fabric,
    stop: Atomic<bool>,
    #[pin]
    found: Mutex<Found>,
    /// How messages to somebody else have ended.
    #[pin]
    pestered: Mutex<Ends>,
}

/// What has come.
struct Found {
    messages: u64,
    /// Messages that had come before.
    twice: u64,
    /// Messages that are not what was sent.
    wrong: u64,
    /// Receives that failed.
    failed: u64,
    seen: KVVec<bool>,
}

/// The end that is elsewhere.
#[derive(Clone, Copy)]
struct Peer {
    at: Address,
    volatile: RemoteRegion,
    lasting: Option<RemoteRegion>,
    word: RemoteRegion,
}

/// How operations have ended.
#[derive(Default)]
struct Ends {
    ok: u64,
    none: u64,
    unknown: u64,
    errno: i32,
}

/// A thread that takes messages and compares them.
struct Receiver(Arc<Near>);

impl Job for Receiver {
    fn run(&self, _thread: usize) -> Result {
        let near = &self.0;
        while !near.stop.load(Relaxed) {
            match near.rx.read_wait(WAIT) {
                Ok(done) => near.received(done)?,
                Err(ETIMEDOUT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Far {
    /// Does a step, and gives its answer.
    #[inline(never)]
    pub(super) fn step<'a>(
        far: &mut Option<KBox<Far>>,
        mut words: impl Iterator<Item = &'a str>,
    ) -> Result<CString> {
        let step = words.next().ok_or(EINVAL)?;
        match (step, far.as_mut()) {
            ("open", None) => {
                let new = Far::new(&super::info(words.next())?)?;
                let card = new.near.card()?;
                *far = Some(new);
                Ok(card)
            }
            ("meet", Some(far)) => far.meet(words).and_then(|()| nothing()),
            ("send", Some(far)) => far.send(number(&mut words)?, number(&mut words)? as usize),
            ("write", Some(far)) => far.write(&Range::parse(words)?),
            ("read", Some(far)) => far.read(&Range::parse(words)?),
            ("add", Some(far)) => far.add(number(&mut words)?),
            ("found", Some(far)) => far.near.tell(),
            ("crowd", Some(far)) if far.crowd.is_none() => far.crowd(number(&mut words)? as usize),
            ("use", Some(far)) => far.use_crowd(),
            ("disperse", Some(far)) => {
                let crowd = far.crowd.take().ok_or(EINVAL)?;
                crowd.close().and_then(|()| nothing())
            }
            ("pester", Some(far)) => {
                let to = name(words.next().ok_or(EINVAL)?)?;
                far.pester(&to, number(&mut words)?, number(&mut words)? as usize)
            }
            ("give_up", Some(far)) => far.give_up(),
            ("pestered", Some(far)) => far.pestered(),
            ("close", Some(_)) => far
                .take()
                .map_or(Ok(()), Far::close)
                .and_then(|()| nothing()),
            _ => Err(EINVAL),
        }
    }

    #[inline(never)]
    fn new(info: &Info) -> Result<KBox<Self>> {
        let near = Near::new(info)?;
        for _ in 0..DEPTH {
            near.ep.recv(Memory::zeroed(MOST)?, 0)?;
        }
        let receiver = Arc::new(Receiver(near.clone()), GFP_KERNEL)?;
        let far = Far {
            receiver: Crew::start(1, receiver)?,
            near,
            peer: None,
            next: 0,
            crowd: None,
            pestering: KVec::new(),
            info: *info,
        };
        Ok(KBox::new(far, GFP_KERNEL)?)
    }

    fn meet<'a>(&mut self, mut words: impl Iterator<Item = &'a str>) -> Result {
        let name = name(words.next().ok_or(EINVAL)?)?;
        let mut region = || -> Result<Option<RemoteRegion>> {
            match words.next().ok_or(EINVAL)? {
                "-" => Ok(None),
                word => {
                    let (descriptor, len) = bytes(word)?;
                    RemoteRegion::parse(descriptor.get(..len).ok_or(EINVAL)?).map(Some)
                }
            }
        };
        let (volatile, word, lasting) = (region()?, region()?, region()?);
        self.peer = Some(Peer {
            at: self.near.av.insert(&name)?,
            volatile: volatile.ok_or(EINVAL)?,
            word: word.ok_or(EINVAL)?,
            lasting,
        });
        self.next = 0;
        self.near.forget()
    }

    fn send(&mut self, count: u64, len: usize) -> Result<CString> {
        let at = self.peer.ok_or(ENOTCONN)?.at;
        let (first, ep) = (self.next, &self.near.ep);
        self.next += count;
        let ends = self.near.post(count, |n| {
            let number = first + n;
            ep.send(prepared(len, number)?, at, data(number), n)
                .map(drop)
                .map_err(|refused| refused.error)
        })?;
        ends.tell()
    }

    fn write(&self, range: &Range) -> Result<CString> {
        let (peer, ep) = (self.peer.ok_or(ENOTCONN)?, &self.near.ep);
        let (region, options) = match range.lasting {
            true => (peer.lasting.ok_or(ENXIO)?, level(Level::Committed)),
            false => (peer.volatile, Options::default()),
        };
        let mut all = Ends::default();
        let mut done = 0;
        // Of those that are in flight at once, no two have the same place.
        while done < range.count && all.is_well() {
            let count = (range.count - done).min(range.places()).min(DEPTH as u64);
            let ends = self.near.post(count, |n| {
                let slice = region.slice(range.offset(done + n), range.len as u64)?;
                let bytes = prepared(range.len, range.seed + done + n)?;
                ep.write(bytes, peer.at, slice, options, n)
                    .map(drop)
                    .map_err(|refused| refused.error)
            })?;
            all.add(&ends);
            done += count;
        }
        all.tell()
    }

    fn read(&self, range: &Range) -> Result<CString> {
        let (peer, near) = (self.peer.ok_or(ENOTCONN)?, &self.near);
        let region = match range.lasting {
            true => peer.lasting.ok_or(ENXIO)?,
            false => peer.volatile,
        };
        let mut ends = Ends::default();
        for n in range.count.saturating_sub(range.places())..range.count {
            let slice = region.slice(range.offset(n), range.len as u64)?;
            let options = Options::default();
            near.ep
                .read(Memory::zeroed(range.len)?, peer.at, slice, options, n)?;
            let done = near.tx.read_wait(timeout())?;
            ends.count(&done);
            if !ends.is_well() {
                break;
            }
            check_buffer(done.buffer, range.len, range.seed + n)?;
        }
        ends.tell()
    }

    fn add(&self, count: u64) -> Result<CString> {
        let (peer, ep) = (self.peer.ok_or(ENOTCONN)?, &self.near.ep);
        let slice = peer.word.slice(0, WORD as u64)?;
        let ends = self.near.post(count, |n| {
            let mut one = Memory::zeroed(WORD)?;
            let bytes = one.as_mut_slice().ok_or(EINVAL)?;
            bytes.copy_from_slice(&1u64.to_ne_bytes());
            ep.atomic(one, peer.at, slice, ADD, Options::default(), n)
                .map(drop)
                .map_err(|refused| refused.error)
        })?;
        ends.tell()
    }

    #[inline(never)]
    fn crowd(&mut self, count: usize) -> Result<CString> {
        let crowd = Crowd::new(&self.near, &self.info, count)?;
        let name = crowd.name()?;
        self.crowd = Some(crowd);
        Ok(name)
    }

    #[inline(never)]
    fn use_crowd(&mut self) -> Result<CString> {
        let peer = self.peer.ok_or(ENOTCONN)?;
        let ends = self.crowd.as_ref().ok_or(EINVAL)?.send(&peer, self.next)?;
        self.next += ends.all();
        ends.tell()
    }

    /// Leaves at least half of what may be in flight to others.
    fn pester(&mut self, to: &Name, count: u64, len: usize) -> Result<CString> {
        if !self.pestering.is_empty() || count > DEPTH as u64 / 2 {
            return Err(EINVAL);
        }
        let (at, ep) = (self.near.av.insert(to)?, &self.near.ep);
        *self.near.pestered.lock() = Ends::default();
        for n in 0..count {
            let id = ep.send(pattern(len, n)?, at, data(n), PESTERS);
            let id = id.map_err(|refused| refused.error)?;
            self.pestering.push(id, GFP_KERNEL)?;
        }
        nothing()
    }

    fn give_up(&mut self) -> Result<CString> {
        for id in &self.pestering {
            // One that has ended is none any more.
            match self.near.ep.cancel(*id) {
                Ok(()) | Err(ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        self.pestered()
    }

    fn pestered(&mut self) -> Result<CString> {
        let count = self.pestering.len() as u64;
        while self.near.pestered.lock().all() < count {
            let done = self.near.tx.read_wait(timeout())?;
            self.near.pestered.lock().count(&done);
        }
        self.pestering.clear();
        let ends = self.near.pestered.lock();
        ends.tell()
    }

    #[inline(never)]
    fn close(far: KBox<Self>) -> Result {
        let far = KBox::into_inner(far);
        if let Some(crowd) = far.crowd {
            crowd.close()?;
        }
        far.near.stop.store(true, Relaxed);
        // Its reference goes with the thread; the last one closes everything, in order.
        far.receiver.join()?;
        check!(Arc::into_unique_or_drop(far.near).is_some());
        Ok(())
    }
}

impl Near {
    fn new(info: &Info) -> Result<Arc<Self>> {
        let info = with_sizes(info, DEPTH, DEPTH);
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let tx = CompletionQueue::new(&domain, DEPTH, None)?;
        let rx = CompletionQueue::new(&domain, DEPTH, None)?;
        let av = AddressVector::new(&domain)?;
        let volatile = register(&domain, Memory::zeroed(SIZE)?, Access::READ_WRITE)?;
        let word = register(&domain, Memory::zeroed(WORD)?, Access::ALL)?;
        // A guest may have none.
        let lasting = match pmem() {
            Ok(device) => {
                let memory = Memory::persistent(&device, 1 << 20, SIZE)?;
                Some(register(&domain, memory, Access::READ_WRITE)?)
            }
            Err(_) => None,
        };
        let builder = Endpoint::builder(&domain, &info);
        let ep = builder.tx_cq(&tx).rx_cq(&rx).av(&av).enable()?;
        let found = Found {
            messages: 0,
            twice: 0,
            wrong: 0,
            failed: 0,
            seen: KVVec::from_elem(false, MESSAGES, GFP_KERNEL)?,
        };
        Arc::pin_init(
            pin_init!(Near {
                ep,
                volatile,
                lasting,
                word,
                av,
                tx,
                rx,
                domain,
                fabric,
                stop: Atomic::new(false),
                found <- new_mutex!(found),
                pestered <- new_mutex!(Ends::default()),
            }),
            GFP_KERNEL,
        )
    }

    /// What a peer has to know.
    fn card(&self) -> Result<CString> {
        let name = self.ep.name();
        let (volatile, word) = (self.volatile.descriptor()?, self.word.descriptor()?);
        let lasting = self.lasting.as_ref().map(|region| region.descriptor());
        let lasting = lasting.transpose()?;
        let lasting = lasting.as_ref().map_or(&[][..], |bytes| bytes);
        CString::try_from_fmt(fmt!(
            "{} {} {} {}\n",
            Hex(name.as_bytes()),
            Hex(&volatile),
            Hex(&word),
            Hex(lasting)
        ))
    }

    fn forget(&self) -> Result {
        self.word.write_at(0, &[0; WORD])?;
        let mut found = self.found.lock();
        found.seen.fill(false);
        (found.messages, found.twice, found.wrong, found.failed) = (0, 0, 0, 0);
        Ok(())
    }

    fn tell(&self) -> Result<CString> {
        let mut word = [0; WORD];
        self.word.read_at(0, &mut word)?;
        let found = self.found.lock();
        CString::try_from_fmt(fmt!(
            "messages {} twice {} wrong {} failed {} added {}\n",
            found.messages,
            found.twice,
            found.wrong,
            found.failed,
            u64::from_ne_bytes(word)
        ))
    }

    /// Notes what a receive has brought, and receives again.
    fn received(&self, done: Completion<u64>) -> Result {
        let mut found = self.found.lock();
        match done.result {
            Ok(success) => {
                let number = success.data.unwrap_or(u64::MAX);
                let place = usize::try_from(number)?;
                match found.seen.get_mut(place) {
                    Some(seen) => {
                        let before = core::mem::replace(seen, true);
                        found.messages += u64::from(!before);
                        found.twice += u64::from(before);
                    }
                    None => found.wrong += 1,
                }
                if check_buffer(done.buffer, success.len, number).is_err() {
                    found.wrong += 1;
                }
            }
            Err(_) => found.failed += 1,
        }
        drop(found);
        match self.ep.recv(Memory::zeroed(MOST)?, 0) {
            Ok(_) => Ok(()),
            Err(refused) => Err(refused.error),
        }
    }

    /// Posts so many operations, many at once, and waits until they have ended.
    fn post(&self, count: u64, post: impl Fn(u64) -> Result) -> Result<Ends> {
        let mut ends = Ends::default();
        let mut posted = 0;
        while posted < count && ends.is_well() {
            match post(posted) {
                Ok(()) => posted += 1,
                Err(EAGAIN) => self.count_next(&mut ends)?,
                Err(error) => return Err(error),
            }
        }
        while ends.all() < posted {
            self.count_next(&mut ends)?;
        }
        Ok(ends)
    }

    /// Counts the next that has ended, and changes its bytes: nobody reads them any more.
    fn count_next(&self, ends: &mut Ends) -> Result {
        let done = self.tx.read_wait(timeout())?;
        match done.context {
            PESTERS => self.pestered.lock().count(&done),
            _ => ends.count(&done),
        }
        drop(spoilt(done.buffer)?);
        Ok(())
    }
}

impl Ends {
    fn all(&self) -> u64 {
        self.ok + self.none + self.unknown
    }

    fn is_well(&self) -> bool {
        self.all() == self.ok
    }

    fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.none += other.none;
        self.unknown += other.unknown;
        self.errno = other.errno;
    }

    fn count(&mut self, done: &Completion<u64>) {
        match done.result {
            Ok(_) => self.ok += 1,
            Err(failure) => {
                match failure.outcome {
                    Outcome::NotExecuted => self.none += 1,
                    _ => self.unknown += 1,
                }
                self.errno = -failure.error.to_errno();
            }
        }
    }

    fn tell(&self) -> Result<CString> {
        CString::try_from_fmt(fmt!(
            "ok {} none {} unknown {} errno {}\n",
            self.ok,
            self.none,
            self.unknown,
            self.errno
        ))
    }
}

/// Bytes to be sent; every other time in pages, which a provider may hand to the network.
fn prepared(len: usize, seed: u64) -> Result<Memory> {
    let source = match seed % 2 == 0 || len == 0 {
        true => Source::One,
        false => Source::Table,
    };
    patterned(source, len, seed)
}

/// What is read or written: pieces, one after another, around and around in a region.
struct Range {
    lasting: bool,
    count: u64,
    len: usize,
    seed: u64,
}

impl Range {
    fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Self> {
        let lasting = match words.next() {
            Some("lasting") => true,
            Some("volatile") => false,
            _ => return Err(EINVAL),
        };
        let range = Range {
            lasting,
            count: number(&mut words)?,
            len: number(&mut words)? as usize,
            seed: number(&mut words)?,
        };
        match range.len {
            1..=MOST => Ok(range),
            _ => Err(EINVAL),
        }
    }

    /// How many pieces there is room for.
    fn places(&self) -> u64 {
        (SIZE / self.len) as u64
    }

    fn offset(&self, n: u64) -> u64 {
        n % self.places() * self.len as u64
    }
}

fn number<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<u64> {
    let word = words.next().ok_or(EINVAL)?;
    word.parse().map_err(|_| EINVAL)
}

fn nothing() -> Result<CString> {
    Ok(CString::try_from(c"")?)
}

/// Bytes as a card has them.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name in a word.
fn name(word: &str) -> Result<Name> {
    let (name, len) = bytes(word)?;
    Name::new(name.get(..len).ok_or(EINVAL)?)
}

/// The bytes of a word of a card, and how many there are.
fn bytes(word: &str) -> Result<([u8; 64], usize)> {
    let mut bytes = [0; 64];
    let len = word.len() / 2;
    for (to, digits) in bytes.iter_mut().zip(word.as_bytes().chunks(2)) {
        let digits = core::str::from_utf8(digits).map_err(|_| EINVAL)?;
        *to = u8::from_str_radix(digits, 16).map_err(|_| EINVAL)?;
    }
    match len <= bytes.len() && word.len() % 2 == 0 {
        true => Ok((bytes, len)),
        false => Err(EINVAL),
    }
}
