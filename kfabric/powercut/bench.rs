// SPDX-License-Identifier: GPL-2.0

//! The bench: two endpoints, a region of the second, and all that watches what is done to it.

use crate::ensure;
use crate::sys::{Event, Probe};
use core::mem::take;
use core::ops::Range as Span;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::delay::{fsleep, udelay};
use kernel::time::Delta;
use kfabric::prelude::*;
use kfabric::proto::coverage::Coverage;
use kfabric::proto::ledger::{Ledger, Lost};
use kfabric::proto::powercut::{self, PowerCut};
use kfabric::proto::range::Range;
use kfabric::proto::rng::Rng;

/// Where the window is on the device, in bytes.
pub(crate) const AT: u64 = 1 << 20;
/// Bytes of the window that the model knows: whole lines.
pub(crate) const WINDOW: usize = 16 << 10;
/// Where the region begins and ends in the window: within lines.
pub(crate) const REGION: Span<usize> = 13..WINDOW - 21;
pub(crate) const LEN: usize = REGION.end - REGION.start;
/// Operations in flight, each in a part of the region of its own. Parts share lines.
pub(crate) const PARTS: usize = 16;
pub(crate) const PART: usize = LEN / PARTS;
/// How long the primitives are held up where early completions are looked for, in microseconds.
pub(crate) const DELAY: u32 = 50;
/// How often a completion is looked for: eagerly at first, then for 20 s at least.
const EAGER: usize = 2000;
const PATIENCE: usize = EAGER + 200_000;

/// The numbers of the parts.
pub(crate) type Context = u32;

/// Two endpoints, a region of the second, and all that watches it.
pub(crate) struct Bench {
    pub(crate) probe: Probe,
    pub(crate) rng: Rng,
    /// The address of the window.
    pub(crate) base: u64,
    /// What the kernel wrote back since it was cleared.
    pub(crate) coverage: Coverage<KVVec<Range>>,
    pub(crate) model: PowerCut<KVVec<u8>>,
    pub(crate) ledger: Ledger<KVVec<u8>>,
    /// What is in the window, as the operations that ended tell.
    pub(crate) shadow: KVVec<u8>,
    /// Room for a snapshot of the window, for lines, and for an image.
    pub(crate) current: KVVec<u8>,
    pub(crate) lines: KVVec<u8>,
    pub(crate) image: KVVec<u8>,
    pub(crate) cuts: u32,
    /// How often something of the window was written back, and stored around the cache, since the
    /// last operation was begun.
    pub(crate) write_backs: usize,
    pub(crate) arounds: usize,

    pmem: Arc<Pmem>,
    /// The window once more, to take snapshots of.
    pub(crate) window: Memory,
    pub(crate) initiator: Endpoint<Context>,
    pub(crate) target: Endpoint<Context>,
    pub(crate) peer: Address,
    pub(crate) remote: RemoteRegion,
    pub(crate) region: MemoryRegion,
    /// From the start of the device to the end of the window, more than is written back at once.
    pub(crate) long: MemoryRegion,
    pub(crate) cq: CompletionQueue<Context>,
    pub(crate) target_cq: CompletionQueue<Context>,
    _av: AddressVector,
    pub(crate) domain: Domain,
    _fabric: Fabric,
}

/// What an operation does to a range of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Write(Level),
    Commit,
    Read,
}

pub(crate) fn zeroed(len: usize) -> Result<KVVec<u8>> {
    Ok(KVVec::zeroed(len, GFP_KERNEL)?)
}

pub(crate) fn copy_of(bytes: &[u8]) -> Result<KVVec<u8>> {
    let mut copy = KVVec::new();
    copy.extend_from_slice(bytes, GFP_KERNEL)?;
    Ok(copy)
}

pub(crate) fn model(durable: &[u8]) -> Result<PowerCut<KVVec<u8>>> {
    PowerCut::new(
        copy_of(durable)?,
        zeroed(WINDOW)?,
        zeroed(powercut::lines(WINDOW))?,
    )
    .map_err(|_| EINVAL)
}

pub(crate) fn ledger(durable: &[u8]) -> Result<Ledger<KVVec<u8>>> {
    let mut ledger =
        Ledger::new(zeroed(WINDOW)?, zeroed(WINDOW)?, zeroed(WINDOW)?).map_err(|_| EINVAL)?;
    ledger.committed(0, durable).map_err(|_| EINVAL)?;
    Ok(ledger)
}

/// What the region is registered for.
pub(crate) fn attributes(uncached: bool) -> RegionAttributes {
    RegionAttributes {
        access: Access::READ_WRITE,
        uncached,
        ..RegionAttributes::default()
    }
}

/// The bytes of the window that are `range` of the region.
pub(crate) fn in_window(range: &Span<usize>) -> Span<usize> {
    REGION.start + range.start..REGION.start + range.end
}

impl Bench {
    /// In a box, since it takes much of a stack.
    #[inline(never)]
    pub(crate) fn new(info: &Info, rng: Rng, cuts: u32, uncached: bool) -> Result<KBox<Bench>> {
        let pmem = Pmem::open(c"/dev/pmem0")?;
        let fabric = Fabric::open(info)?;
        let domain = fabric.domain(info)?;
        let size = info.limits.tx_size + info.limits.rx_size;
        let cq = CompletionQueue::new(&domain, size, None)?;
        let target_cq = CompletionQueue::new(&domain, size, None)?;
        let av = AddressVector::new(&domain)?;
        let initiator = Endpoint::builder(&domain, info).cq(&cq).av(&av).enable()?;
        let target = Endpoint::builder(&domain, info)
            .cq(&target_cq)
            .av(&av)
            .enable()?;
        let peer = av.insert(&target.name())?;

        let window = Memory::persistent(&pmem, AT, WINDOW)?;
        let region = Memory::persistent(&pmem, AT + REGION.start as u64, LEN)?;
        let region = domain
            .register(region, attributes(uncached))
            .map_err(|(error, _)| error)?;
        let remote = RemoteRegion::parse(&region.descriptor()?)?;

        let long = Memory::persistent(&pmem, 0, AT as usize + WINDOW)?;
        let long = domain
            .register(long, Access::READ_WRITE)
            .map_err(|(error, _)| error)?;

        let mut ranges = KVVec::new();
        ranges.resize(4096, Range::default(), GFP_KERNEL)?;
        let bench = Bench {
            probe: Probe::start()?,
            rng,
            base: 0,
            coverage: Coverage::new(ranges),
            model: model(&zeroed(WINDOW)?)?,
            ledger: ledger(&zeroed(WINDOW)?)?,
            shadow: zeroed(WINDOW)?,
            current: zeroed(WINDOW)?,
            lines: zeroed(WINDOW)?,
            image: zeroed(WINDOW)?,
            cuts,
            write_backs: 0,
            arounds: 0,
            pmem,
            window,
            initiator,
            target,
            peer,
            remote,
            region,
            long,
            cq,
            target_cq,
            _av: av,
            domain,
            _fabric: fabric,
        };
        let mut bench = KBox::new(bench, GFP_KERNEL)?;
        bench.find()?;
        Ok(bench)
    }

    /// The device.
    pub(crate) fn pmem(&self) -> &Arc<Pmem> {
        &self.pmem
    }

    /// Finds the window's address: there the kernel writes back what was just written.
    pub(crate) fn find(&mut self) -> Result {
        let mut pattern = [0; 64];
        self.rng.fill(&mut pattern);
        let range = 0..pattern.len();

        self.post(Act::Write(Level::Committed), &range, &pattern, 0)?;
        let _ = self.finish()?;
        let mut bytes = take(&mut self.lines);
        while let Some(event) = self.probe.take(&mut bytes)? {
            let (addr, at) = match event {
                Event::WriteBack { addr, .. } => (addr, (addr % powercut::LINE as u64) as usize),
                Event::Around { addr, .. } => (addr, 0),
                Event::Flush => continue,
            };
            if bytes.get(at..at + pattern.len()) == Some(&pattern) {
                self.base = addr - REGION.start as u64;
            }
        }
        self.lines = bytes;
        ensure!(
            self.base != 0,
            "the range of a commit was neither written back nor stored around the cache"
        );
        ensure!(
            self.base % 4096 == AT % 4096,
            "written back at {:#x}, where no window can begin",
            self.base
        );
        Ok(())
    }

    /// Starts a case: the window as it is, all durable, and nothing seen.
    pub(crate) fn reset(&mut self, delay: u32) -> Result {
        let (at, len) = (self.base, WINDOW as u64);

        self.drain()?;
        self.probe.watch(at, len, delay);
        self.window.read_at(0, &mut self.current)?;
        self.shadow.copy_from_slice(&self.current);
        self.model.restart(&self.current).map_err(|_| EINVAL)?;
        self.ledger
            .committed(0, &self.current)
            .map_err(|_| EINVAL)?;
        Ok(())
    }

    /// Posts an operation on a range of the region.
    pub(crate) fn post(
        &mut self,
        act: Act,
        range: &Span<usize>,
        bytes: &[u8],
        context: Context,
    ) -> Result {
        let remote = self.remote.slice(range.start as u64, range.len() as u64)?;
        let (from, to) = (&self.initiator, self.peer);
        let posted = match act {
            Act::Write(level) => {
                let options = Options {
                    level,
                    ..Options::default()
                };
                from.write(
                    Memory::from_vec(copy_of(bytes)?),
                    to,
                    remote,
                    options,
                    context,
                )
            }
            Act::Commit => from.commit(to, remote, Options::default(), context),
            Act::Read => from.read(
                Memory::zeroed(range.len())?,
                to,
                remote,
                Options::default(),
                context,
            ),
        };
        posted.map(drop).map_err(|refused| refused.error)
    }

    /// Waits for a completion, as eagerly as a consumer can, and returns it if it is a good one.
    pub(crate) fn finish(&mut self) -> Result<Completion<Context>> {
        finish(&self.cq)
    }

    /// Hands what the kernel did to the coverage and the model.
    ///
    /// Returns whether `range` of the region is covered, and was flushed afterwards.
    pub(crate) fn observe(&mut self, range: &Span<usize>) -> Result<bool> {
        let wanted = Range::new(
            self.base + (REGION.start + range.start) as u64,
            range.len() as u64,
        );
        let mut flushed = range.is_empty();

        while let Some(event) = self.probe.take(&mut self.lines)? {
            match event {
                Event::WriteBack {
                    addr,
                    len,
                    captured,
                } => {
                    self.write_backs += 1;
                    self.coverage
                        .insert(Range::new(addr, len))
                        .map_err(|_| EOVERFLOW)?;
                    let first = addr - addr % powercut::LINE as u64;
                    let at = first.saturating_sub(self.base);
                    self.model
                        .write_back_lines(at, &self.lines[..captured])
                        .map_err(|_| EINVAL)?;
                }
                Event::Around { addr, len } => {
                    self.arounds += 1;
                    self.coverage
                        .insert(Range::new(addr, len as u64))
                        .map_err(|_| EOVERFLOW)?;
                    self.model
                        .store_around(addr.saturating_sub(self.base), &self.lines[..len])
                        .map_err(|_| EINVAL)?;
                }
                Event::Flush => {
                    self.model.fence();
                    flushed |= self.coverage.covers(wanted);
                }
            }
        }
        Ok(flushed)
    }

    /// Forgets what the kernel did so far, but for the model.
    pub(crate) fn drain(&mut self) -> Result {
        self.observe(&(0..0))?;
        self.coverage.clear();
        (self.write_backs, self.arounds) = (0, 0);
        Ok(())
    }

    /// Does one operation, alone, and demands that what it commits is covered and flushed.
    pub(crate) fn act_covered(&mut self, act: Act, range: Span<usize>) -> Result {
        ensure!(
            self.act(act, range.clone())?,
            "{act:?} of {range:?} completed before its bytes were durable"
        );
        Ok(())
    }

    /// Does one operation, alone, and enters what it promised in the ledger.
    ///
    /// Returns whether its range was covered and flushed when it completed.
    pub(crate) fn act(&mut self, act: Act, range: Span<usize>) -> Result<bool> {
        let mut bytes = zeroed(range.len())?;
        self.rng.fill(&mut bytes);
        let place = in_window(&range);

        self.drain()?;
        if let Act::Write(_) = act {
            self.ledger
                .written(place.start as u64, &bytes)
                .map_err(|_| EINVAL)?;
        }
        self.post(act, &range, &bytes, 0)?;
        let done = self.finish()?;
        let durable = self.observe(&range)?;

        if let Act::Write(_) = act {
            self.shadow[place.clone()].copy_from_slice(&bytes);
        }
        match act {
            Act::Write(Level::Committed) | Act::Commit => {
                self.ledger
                    .committed(place.start as u64, &self.shadow[place])
                    .map_err(|_| EINVAL)?;
            }
            Act::Write(_) => {}
            Act::Read => {
                let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
                ensure!(
                    memory.as_slice() == Some(&self.shadow[place]),
                    "a read of {range:?} is not what was written"
                );
            }
        }
        Ok(durable)
    }

    /// A random range of `within`: of any alignment, mostly short, at times of no byte.
    pub(crate) fn range(&mut self, within: Span<usize>) -> Span<usize> {
        let most = match self.rng.below(8) {
            0 => within.len(),
            1..3 => 1024,
            _ => 160,
        };
        let len = self.rng.below(most.min(within.len()) as u64 + 1) as usize;
        let start = within.start + self.rng.below((within.len() - len) as u64 + 1) as usize;
        start..start + len
    }

    pub(crate) fn random_act(&mut self) -> Act {
        match self.rng.below(8) {
            0 => Act::Read,
            1 => Act::Write(Level::Transmit),
            2..5 => Act::Write(Level::Delivered),
            5 => Act::Write(Level::Committed),
            _ => Act::Commit,
        }
    }

    /// Cuts the power in the model, and looks for committed bytes that the image lacks.
    pub(crate) fn cut(&mut self) -> Result {
        self.window.read_at(0, &mut self.current)?;
        self.model
            .cut(&mut self.rng, &self.current, &mut self.image)
            .map_err(|_| EINVAL)?;
        check("an image", &self.ledger, &self.image)?;
        check("the worst image", &self.ledger, self.model.durable())?;
        if self.rng.one_in(4) {
            self.model
                .evict(&mut self.rng, &self.current)
                .map_err(|_| EINVAL)?;
        }
        Ok(())
    }
}

/// Waits for a completion of a queue, and returns it if it is a good one.
pub(crate) fn finish(cq: &CompletionQueue<Context>) -> Result<Completion<Context>> {
    for waited in 0..PATIENCE {
        if let Some(done) = cq.read() {
            if let Err(failure) = done.result {
                pr_err!("# {:?} failed: {failure:?}\n", done.kind);
                return Err(failure.error);
            }
            return Ok(done);
        }
        // Eagerly first, so that a completion that comes too early is seen at once.
        if waited < EAGER {
            udelay(Delta::from_micros(1));
        } else {
            fsleep(Delta::from_micros(100));
        }
    }
    pr_err!("# no completion\n");
    Err(ETIMEDOUT)
}

/// Fails unless an image has all that was committed.
pub(crate) fn check(what: &str, ledger: &Ledger<KVVec<u8>>, image: &[u8]) -> Result {
    if let Err(Lost {
        offset,
        expected,
        found,
    }) = ledger.check(image)
    {
        ensure!(
            false,
            "{what} has {found:?} at {offset} where {expected} was committed"
        );
    }
    Ok(())
}
