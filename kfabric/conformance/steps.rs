// SPDX-License-Identifier: GPL-2.0

//! Steps: parts of a consumer's life that a script has done, one at a time, in its own context.
//!
//! Written to `/dev/kfi_conformance`: a step, and a provider's name if it is not to be the first
//! there is. The write fails as the step does; read, the file tells the errno of the last step. An
//! open file keeps the module, which one of `kernel::debugfs` would not. What follows in it is the
//! answer of the last step that has one. So whatever a script can
//! arrange for a task, above all allocations that fail or are counted, it can arrange for a step.
//!
//! | step | does |
//! |---|---|
//! | `nothing` | nothing |
//! | `allocate` | one allocation |
//! | `swallow` | the same, and says nothing if it fails, as nobody should |
//! | `getinfo` | lists what can be had |
//! | `open` | opens a fabric, a domain, a queue, a vector, an endpoint; closes them |
//! | `tally` | opens counters, and an endpoint with fences that they count for; closes |
//! | `link` | opens an event queue and a listener; connects two endpoints; closes |
//! | `cycle` | opens a pair, does one operation of each kind, closes |
//! | `fail` | has one operation fail, and a target refuse another |
//! | `hold`, `release` | opens a pair, with all that `posts` needs, and keeps it; closes it |
//! | `register` | registers memory of each kind in what is held, until its key table grows; closes |
//! | `pieces` | makes memory in pieces, of each kind |
//! | `pmem` | opens the persistent memory, registers some in what is held; closes |
//! | `posts` | posts operations of each kind on what is held and reads their completions |
//! | `case NAME` | runs that case of the suite, and prints KTAP in the log |
//! | `far ...` | talks with another host, see `steps/far.rs` |
//! | `serve PROVIDER SERVICE` | has rigs of another host have their peers here, until it is through |
//! | `between PROVIDER NODE SERVICE` | runs the cases with the peers of their rigs there, and prints KTAP in the log; the module is of no other use then |
//!
//! `posts` does it in this context, in softirqs and in the provider's workers; over a connection;
//! silent, fenced, atomic and counted.
//!
//! | file | noun |
//! |---|---|
//! | `far` | an endpoint for one on another host |
//! | `link` | two endpoints that are connected |
//! | `sources` | regions of memory from each source |
//! | `tally` | an endpoint with counters and fences |

use crate::bar::Bound;
use crate::close::closed;
use crate::ops::{data, error, level, pmem};
use crate::peer::Region;
use crate::rig::{byte, check_buffer, pattern, register, timeout, until, Base, End, Rig};
use crate::wishes::domain_of;
use crate::{cases, check, check_eq, module_parameters, peer, runner};
use kernel::fmt;
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::str::{CString, Formatter};
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, new_spinlock_irq, Arc, Mutex, SpinLockIrq};
use kfabric::prelude::*;

mod far;
mod link;
mod sources;
mod tally;

use far::Far;
use link::Link;
use sources::Sources;
use tally::Tally;

/// So many regions are held, and so many are registered then: more than the first part of a key
/// table has room for.
const CROWD: usize = 52;
const REGIONS: usize = 16;
/// More than the first address vector has room for.
const ADDRESSES: usize = 20;
/// How often `posts` does everything.
const ROUNDS: usize = 100;
/// Long enough for a provider to leave it to a worker.
const LONG: usize = 40_000;
/// Lengths that are copied in a post, and by a worker.
const LENGTHS: [usize; 3] = [0, 100, LONG];

/// The file, as long as it exists.
pub(crate) struct Steps {
    _file: CharDeviceRegistration<Device>,
}

/// `/dev/kfi_conformance`.
struct Device(Arc<State>);

#[pin_data]
struct State {
    errno: Atomic<i32>,
    #[pin]
    held: Mutex<Option<KBox<Held>>>,
    #[pin]
    far: Mutex<Option<KBox<Far>>>,
    #[pin]
    answer: Mutex<Option<CString>>,
}

/// The longest step: one with a card.
const LONGEST: usize = 512;

impl Steps {
    pub(crate) fn new() -> Result<Self> {
        let state = pin_init!(State {
            errno: Atomic::new(0),
            held <- new_mutex!(None),
            far <- new_mutex!(None),
            answer <- new_mutex!(None),
        });
        let device = Device(Arc::pin_init(state, GFP_KERNEL)?);
        Ok(Steps {
            _file: CharDeviceRegistration::new(fmt!("kfi_conformance"), device)?,
        })
    }
}

#[vtable]
impl CharDevice for Device {
    type File = ();

    fn open(&self) -> Result {
        Ok(())
    }

    fn size(&self) -> u64 {
        0
    }

    fn read(&self, _file: &(), pos: u64, to: &mut IovIterDest<'_>) -> Result<usize> {
        let mut line = [0; 16];
        let mut out = Formatter::new(&mut line);
        let errno = -self.0.errno.load(Relaxed);
        fmt::Write::write_fmt(&mut out, fmt!("{errno}\n")).map_err(|_| EOVERFLOW)?;
        let (len, pos) = (out.bytes_written(), usize::try_from(pos)?);
        let errno = line.get(pos..len).unwrap_or(&[]);
        let answer = self.0.answer.lock();
        let answer = answer.as_ref().map_or(&[][..], |answer| answer.to_bytes());
        let answer = answer.get(pos.saturating_sub(len)..).unwrap_or(&[]);
        Ok(to.copy_to_iter(errno) + to.copy_to_iter(answer))
    }

    fn write(&self, _file: &(), _pos: u64, from: &mut IovIterSource<'_>) -> Result<usize> {
        let mut bytes = [0; LONGEST];
        let len = from.copy_from_iter(&mut bytes);
        self.0.ask(bytes.get(..len).ok_or(EINVAL)?)?;
        Ok(len)
    }

    fn fsync(&self, _file: &(), _extent: Extent, _datasync: bool) -> Result {
        Ok(())
    }
}

impl State {
    fn ask(&self, text: &[u8]) -> Result {
        let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
        let mut words = text.split_ascii_whitespace();
        let step = words.next().ok_or(EINVAL)?;
        let done = match step {
            "far" => self.far(words),
            "serve" => {
                let mut word = || words.next().ok_or(EINVAL);
                peer::serve(word()?, word()?)
            }
            "between" => {
                let mut word = || words.next().ok_or(EINVAL);
                between(word()?, word()?, word()?)
            }
            _ => self.step(step, words.next()),
        };
        let errno = done.err().map_or(0, Error::to_errno);
        self.errno.store(errno, Relaxed);
        done
    }

    fn far<'a>(&self, words: impl Iterator<Item = &'a str>) -> Result {
        let answer = Far::step(&mut self.far.lock(), words)?;
        *self.answer.lock() = Some(answer);
        Ok(())
    }

    fn step(&self, step: &str, word: Option<&str>) -> Result {
        let mut guard = self.held.lock();
        let held = &mut *guard;
        match (step, held.as_mut()) {
            ("nothing", _) => Ok(()),
            ("allocate", _) => {
                KBox::new(0u64, GFP_KERNEL)?;
                Ok(())
            }
            ("swallow", _) => {
                let _ = KBox::new(0u64, GFP_KERNEL);
                Ok(())
            }
            ("getinfo", _) => info(word).map(|_| ()),
            ("open", _) => open(&info(word)?),
            ("tally", _) => Tally::new(&info(word)?)?.map_or(Ok(()), Tally::close),
            ("link", _) => Link::new(&info(word)?)?.map_or(Ok(()), Link::close),
            ("cycle", _) => cycle(&info(word)?),
            ("fail", _) => fail(&info(word)?),
            ("pieces", _) => pieces(),
            ("case", _) => {
                let name = word.ok_or(EINVAL)?;
                runner::run_named(cases::ALL, module_parameters::seed.value(), name)
            }
            ("hold", None) => {
                *held = Some(Held::new(&info(word)?)?);
                Ok(())
            }
            ("release", Some(_)) => held.take().map_or(Ok(()), Held::close),
            ("register", Some(held)) => held.register(),
            ("pmem", Some(held)) => held.pmem(),
            ("posts", Some(held)) => held.posts(),
            _ => Err(EINVAL),
        }
    }
}

fn between(provider: &str, node: &str, service: &str) -> Result {
    peer::settle(provider, node, service)?;
    let ran = runner::run(cases::BETWEEN, module_parameters::seed.value());
    ran.and(peer::finish())
}

// The steps, and what they make, have frames of their own, so that those of several do not stand
// on the stack together.

/// What the provider of that name offers first.
fn info(provider: Option<&str>) -> Result<Info> {
    let hints = Hints {
        provider,
        ..Hints::default()
    };
    getinfo(&hints)?.first().copied().ok_or(ENODATA)
}

/// The same domain's info, of another type and with more; `None` if that is not to be had.
fn variant(info: &Info, endpoint_type: EndpointType, caps: Caps) -> Result<Option<Info>> {
    let hints = Hints {
        caps,
        endpoint_type: Some(endpoint_type),
        ..domain_of(info)
    };
    match getinfo(&hints) {
        Ok(infos) => Ok(infos.first().copied()),
        Err(ENODATA) => Ok(None),
        Err(error) => Err(error),
    }
}

#[inline(never)]
fn open(info: &Info) -> Result {
    let callback = |_: &Reader<'_, u64>| {};
    let end = End::sized(info, 8, Some(Arc::new(callback, GFP_KERNEL)?))?;
    let opened = (0..ADDRESSES).try_for_each(|_| end.av.insert(&end.ep.name()).map(|_| ()));
    end.close()?;
    opened
}

/// Makes memory in pieces, of each kind; what it is not made of comes back.
#[inline(never)]
fn pieces() -> Result {
    let mut vecs = KVec::new();
    for len in [7, 100] {
        vecs.push(KVVec::zeroed(len, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    if let Err((error, vecs)) = Memory::from_vecs(vecs) {
        check_eq!((vecs.len(), vecs[0].len(), vecs[1].len()), (2, 7, 100));
        return Err(error);
    }
    let (mut parts, mut folios) = (KVec::new(), KVVec::new());
    for offset in [0, 7] {
        let (folio, len) = (Folio::zeroed(0)?, 100);
        parts.push(BioVec { folio, offset, len }, GFP_KERNEL)?;
        folios.push(Folio::zeroed(0)?, GFP_KERNEL)?;
    }
    if let Err((error, parts)) = Memory::from_bio_vecs(parts) {
        check_eq!((parts.len(), parts[1].offset), (2, 7));
        return Err(error);
    }
    let list = match ScatterList::new(folios, 7, PAGE_SIZE, PAGE_SIZE as u32) {
        Ok(list) => list,
        Err((error, folios)) => {
            check_eq!(folios.len(), 2);
            return Err(error);
        }
    };
    if let Err((error, list)) = Memory::from_scatterlist(list) {
        check_eq!((list.entries(), list.into_folios().len()), (2, 2));
        return Err(error);
    }
    Ok(())
}

#[inline(never)]
fn cycle(info: &Info) -> Result {
    let rig = Rig::new(info)?;
    for len in [100, LONG] {
        rig.b.recv(Memory::zeroed(len)?, 1)?;
        rig.a
            .ep
            .send(pattern(len, 1)?, rig.to_b, Options::default(), 2)?;
        check_buffer(rig.b.next()?.buffer, len, 1)?;
        check_eq!(error(&rig.a.next()?), None);
    }
    if info.caps.contains(Caps::RMA) {
        let (region, remote) = rig.region(LONG, Access::READ_WRITE)?;
        for len in [100, LONG] {
            let slice = remote.slice(0, len as u64)?;
            rig.written(pattern(len, 2)?, slice, Options::default())?;
            check_buffer(rig.read(Memory::zeroed(len)?, slice)?.buffer, len, 2)?;
        }
        drop(closed(region.close_wait(timeout()))?);
    }
    // Left in flight: it ends with the endpoint.
    rig.b.recv(Buffer::empty(), 3)?;
    rig.close()
}

/// A message that is too long for its receive, and a write to a region that is closed.
#[inline(never)]
fn fail(info: &Info) -> Result {
    let rig = Rig::new(info)?;
    rig.b.recv(Memory::zeroed(10)?, 1)?;
    rig.a
        .ep
        .send(pattern(11, 1)?, rig.to_b, Options::default(), 2)?;
    check_eq!(error(&rig.b.next()?), Some(EMSGSIZE));
    check_eq!(error(&rig.a.next()?), Some(EMSGSIZE));
    let (region, remote) = rig.region(LONG, Access::READ_WRITE)?;
    drop(closed(region.close_wait(timeout()))?);
    let done = rig.write(pattern(8, 1)?, remote.slice(0, 8)?, Options::default())?;
    check_eq!(error(&done), Some(EKEYREJECTED));
    rig.close()
}

/// A pair, and all that `posts` needs, so that it need not allocate.
struct Held {
    rig: Rig,
    /// Where there is RMA.
    echo: Option<Echo>,
    /// Where there are fences and atomics.
    tally: Option<KBox<Tally>>,
    /// Where there are connections.
    link: Option<KBox<Link>>,
    /// Where there is RMA.
    sources: Option<Sources>,
    /// Where there is a device with memory.
    device: Option<Bound>,
    /// Whether regions may be stored to around the cache.
    uncached: bool,
    volatile: (Region, RemoteRegion),
    lasting: Option<(Region, RemoteRegion)>,
    /// Others, so that few more need a larger key table.
    crowd: KVec<Region>,
    /// In pieces.
    local: Region,
    /// The same, of the other end's domain.
    others: Region,
    out: Buffer,
    into: Buffer,
}

impl Held {
    #[inline(never)]
    fn new(info: &Info) -> Result<KBox<Self>> {
        let rig = Rig::new(info)?;
        let lasting = match info.caps.contains(Caps::COMMIT) {
            // A guest may have none.
            true => pmem()
                .ok()
                .map(|device| rig.persistent(&device, 1 << 20, LONG)),
            false => None,
        };
        let mut crowd = KVec::with_capacity(CROWD, GFP_KERNEL)?;
        for _ in 0..CROWD {
            crowd.push(rig.region(8, Access::READ)?.0, GFP_KERNEL)?;
        }
        let device = match info.caps.contains(Caps::HMEM) {
            // A machine may have none.
            true => Bound::new().ok(),
            false => None,
        };
        let held = Held {
            crowd,
            sources: match info.caps.contains(Caps::RMA) {
                true => Some(Sources::new(info, &rig, device.as_ref(), LONG)?),
                false => None,
            },
            echo: match info.caps.contains(Caps::RMA) {
                true => Some(Echo::new(info)?),
                false => None,
            },
            tally: Tally::new(info)?,
            link: Link::new(info)?,
            device,
            uncached: info.caps.contains(Caps::UNCACHED),
            volatile: rig.region(LONG, Access::READ_WRITE)?,
            lasting: lasting.transpose()?,
            local: register(&rig.a.domain, in_pieces()?, Access::NONE)?,
            others: rig.b.register(in_pieces()?, Access::NONE)?,
            out: pattern(LONG, 3)?.into(),
            into: Memory::zeroed(LONG)?.into(),
            rig,
        };
        Ok(KBox::new(held, GFP_KERNEL)?)
    }

    #[inline(never)]
    fn close(held: KBox<Self>) -> Result {
        let held = KBox::into_inner(held);
        for region in [Some(held.volatile), held.lasting].into_iter().flatten() {
            drop(closed(region.0.close())?);
        }
        for region in held.crowd {
            drop(closed(region.close_wait(timeout()))?);
        }
        drop(closed(held.local.close())?);
        drop(closed(held.others.close())?);
        held.sources.map_or(Ok(()), Sources::close)?;
        held.echo.map_or(Ok(()), Echo::close)?;
        held.tally.map_or(Ok(()), Tally::close)?;
        held.link.map_or(Ok(()), Link::close)?;
        held.rig.close()
    }

    #[inline(never)]
    fn register(&mut self) -> Result {
        let mut regions = KVec::with_capacity(REGIONS, GFP_KERNEL)?;
        let mut failed = Ok(());
        for n in 0..REGIONS {
            let memory = pattern(100, n as u64)?;
            match self
                .rig
                .b
                .here()?
                .domain
                .register(memory, Access::READ_WRITE)
            {
                Ok(region) => regions.push(region, GFP_KERNEL)?,
                Err((error, memory)) => {
                    // It comes back as it was.
                    check_pattern(&memory, n)?;
                    failed = Err(error);
                    break;
                }
            }
        }
        for (n, region) in regions.into_iter().enumerate() {
            check_pattern(&closed(region.close_wait(timeout()))?, n)?;
        }
        failed?;
        if let Some(device) = &self.device {
            let memory = Memory::device(device.memory(), 0, 100)?;
            match self
                .rig
                .b
                .here()?
                .domain
                .register(memory, Access::READ_WRITE)
            {
                Ok(region) => check!(closed(region.close_wait(timeout()))?.is_device()),
                Err((error, memory)) => {
                    check!(memory.is_device());
                    return Err(error);
                }
            }
        }
        match self.uncached {
            true => self.register_uncached(),
            false => Ok(()),
        }
    }

    fn register_uncached(&self) -> Result {
        let attributes = RegionAttributes {
            access: Access::READ_WRITE,
            uncached: true,
            ..RegionAttributes::default()
        };
        match self
            .rig
            .b
            .here()?
            .domain
            .register(pattern(100, 1)?, attributes)
        {
            Ok(region) => check_pattern(&closed(region.close_wait(timeout()))?, 1),
            Err((error, memory)) => {
                check_pattern(&memory, 1)?;
                Err(error)
            }
        }
    }

    #[inline(never)]
    fn pmem(&mut self) -> Result {
        // What is held has the device open.
        if let Some((region, _)) = self.lasting.take() {
            drop(closed(region.close_wait(timeout()))?);
        }
        let device = pmem()?;
        let memory = Memory::persistent(&device, 12_345, LONG)?;
        match self
            .rig
            .b
            .here()?
            .domain
            .register(memory, Access::READ_WRITE)
        {
            Ok(region) => {
                region.commit(0, LONG)?;
                drop(closed(region.close_wait(timeout()))?);
                Ok(())
            }
            Err((error, memory)) => {
                check_eq!((memory.len(), memory.is_persistent()), (LONG, true));
                Err(error)
            }
        }
    }

    /// One of the two buffers, of which `len` bytes are used.
    fn part(buffer: &mut Buffer, len: usize) -> Result<Buffer> {
        core::mem::take(buffer).range(0, len).map_err(|_| EINVAL)
    }

    #[inline(never)]
    fn posts(&mut self) -> Result {
        for n in 0..ROUNDS {
            for len in LENGTHS {
                self.messages(n as u64, len)?;
                if self.echo.is_some() {
                    let volatile = self.volatile.1.slice(0, len as u64)?;
                    self.rma(volatile, len, Level::Delivered)?;
                }
                if let Some((_, lasting)) = &self.lasting {
                    let lasting = lasting.slice(0, len as u64)?;
                    self.rma(lasting, len, Level::Committed)?;
                    check_eq!(error(&self.rig.commit(lasting)?), None);
                }
            }
        }
        for _ in 0..ROUNDS / 4 {
            for len in LENGTHS {
                let run = |sources: &Sources| sources.run(&self.rig, len);
                self.sources.as_ref().map_or(Ok(()), run)?;
            }
            self.tally.as_ref().map_or(Ok(()), |tally| tally.run())?;
            self.link.as_ref().map_or(Ok(()), |link| link.run())?;
        }
        self.echo.as_ref().map_or(Ok(()), Echo::run)
    }

    fn messages(&mut self, n: u64, len: usize) -> Result {
        let rig = &self.rig;
        // The receive before the message, and after it.
        for late in [false, true] {
            let (into, out) = (
                Self::part(&mut self.into, len)?,
                Self::part(&mut self.out, len)?,
            );
            if late {
                rig.a.ep.send(out, rig.to_b, crate::ops::data(n), n)?;
                rig.b.recv(into, n)?;
            } else {
                rig.b.recv(into, n)?;
                rig.a.ep.send(out, rig.to_b, Options::default(), n)?;
            }
            let (received, sent) = (rig.b.next()?, rig.a.next()?);
            check_eq!((error(&received), error(&sent)), (None, None));
            self.into = received.buffer;
            self.out = sent.buffer;
        }
        // A refusal, a cancel, and a message from a region.
        let nobody = Address::from_raw(u64::MAX);
        check!(rig
            .a
            .ep
            .send(Buffer::empty(), nobody, Options::default(), n)
            .is_err());
        let id = rig.b.recv(self.others.slice(0, len)?, n)?;
        rig.b.cancel(id)?;
        check_eq!(error(&rig.b.next()?), Some(ECANCELED));
        rig.b.recv(Self::part(&mut self.into, len)?, n)?;
        rig.a
            .ep
            .send(self.local.slice(0, len)?, rig.to_b, Options::default(), n)?;
        self.into = rig.b.next()?.buffer;
        check_eq!(error(&rig.a.next()?), None);
        // And one that its slot holds.
        rig.b.recv(self.others.slice(48, 8)?, n)?;
        rig.a
            .ep
            .inject(&n.to_ne_bytes(), rig.to_b, Options::default(), n)?;
        check_eq!(error(&rig.b.next()?), None);
        check_eq!(error(&rig.a.next()?), None);
        check!(rig.a.cq.read().is_none() && rig.b.poll()?.is_none());
        Ok(())
    }

    fn rma(&mut self, slice: RemoteSlice, len: usize, wanted: Level) -> Result {
        let rig = &self.rig;
        let done = rig.write(Self::part(&mut self.out, len)?, slice, level(wanted))?;
        check_eq!(error(&done), None);
        self.out = done.buffer;
        rig.b.recv(Buffer::empty(), 1)?;
        let options = Options {
            level: wanted,
            ..data(7)
        };
        rig.written(self.local.slice(0, len)?, slice, options)?;
        check_eq!(
            rig.b.next()?.result.map(|success| success.data),
            Ok(Some(7))
        );
        let done = rig.read(Self::part(&mut self.into, len)?, slice)?;
        check_eq!(error(&done), None);
        self.into = done.buffer;
        Ok(())
    }
}

/// As many bytes as [`LONG`], in pieces.
fn in_pieces() -> Result<Memory> {
    let mut vecs = KVec::new();
    for len in [50, 1, LONG - 51] {
        vecs.push(KVVec::zeroed(len, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    closed(Memory::from_vecs(vecs))
}

fn check_pattern(memory: &Memory, seed: usize) -> Result {
    let bytes = memory.as_slice().ok_or(EINVAL)?;
    for (at, found) in bytes.iter().enumerate() {
        check!(*found == byte(at, seed as u64));
    }
    Ok(())
}

/// An endpoint whose callback posts the next write to itself: all but the first in softirqs.
struct Echo {
    turn: Arc<Turn>,
    region: Region,
    base: Base,
}

#[pin_data]
struct Turn {
    left: Atomic<i64>,
    #[pin]
    to: SpinLockIrq<Option<Target>>,
}

struct Target {
    ep: Endpoint<u64>,
    myself: Address,
    slice: RemoteSlice,
    /// While nothing is in flight.
    buffer: Option<Buffer>,
}

impl Turn {
    /// Takes a buffer that came back, and posts it again unless that was the last.
    fn next(&self, buffer: Buffer) {
        let mut guard = self.to.lock();
        let to = &mut *guard;
        let Some(target) = to.as_mut() else { return };
        if self.left.fetch_add(-1, Relaxed) <= 0 {
            target.buffer = Some(buffer);
            return;
        }
        let options = Options::default();
        let posted = target
            .ep
            .write(buffer, target.myself, target.slice, options, 1);
        if let Err(refused) = posted {
            pr_err!("# a post from the callback: {:?}\n", refused.error);
            target.buffer = Some(refused.buffer);
        }
    }
}

impl Echo {
    fn new(info: &Info) -> Result<Self> {
        let turn = Arc::pin_init(
            pin_init!(Turn {
                left: Atomic::new(0),
                to <- new_spinlock_irq!(None),
            }),
            GFP_KERNEL,
        )?;
        let next = turn.clone();
        let callback = move |cq: &Reader<'_, u64>| {
            while let Some(done) = cq.read() {
                next.next(done.buffer);
            }
        };
        let (ep, base) = End::new(info, Some(Arc::new(callback, GFP_KERNEL)?))?.split();
        let region = register(&base.domain, Memory::zeroed(100)?, Access::WRITE)?;
        let target = Target {
            myself: base.av.insert(&ep.name())?,
            slice: RemoteRegion::parse(&region.descriptor()?)?.slice(0, 100)?,
            buffer: Some(pattern(100, 5)?.into()),
            ep,
        };
        *turn.to.lock() = Some(target);
        Ok(Echo { turn, region, base })
    }

    fn run(&self) -> Result {
        let mut guard = self.turn.to.lock();
        let to = &mut *guard;
        let buffer = to.as_mut().and_then(|target| target.buffer.take());
        drop(guard);
        self.turn.left.store(ROUNDS as i64, Relaxed);
        self.turn.next(buffer.ok_or(EBUSY)?);
        until(|| self.idle())?;
        // All were posted.
        check!(self.turn.left.load(Relaxed) < 0);
        Ok(())
    }

    fn idle(&self) -> bool {
        let to = self.turn.to.lock();
        to.as_ref().is_some_and(|target| target.buffer.is_some())
    }

    fn close(self) -> Result {
        let target = self.turn.to.lock().take();
        if let Some(target) = target {
            closed(target.ep.close())?;
        }
        drop(closed(self.region.close_wait(timeout()))?);
        self.base.close()
    }
}
