// SPDX-License-Identifier: GPL-2.0

//! The servant: does what the suite of the other host asks for.

use super::line::Verb;
use super::region::{Region, Traits};
use super::words::{copy, Carried, Ended, Heard, Saying, Word, MOST};
use crate::close::closed;
use crate::ops::pmem;
use crate::rig::{register, timeout, Base, End, Receive};
use crate::wishes::{domain_of, service_of};
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::prelude::*;

/// How long nobody may ask for anything, in milliseconds: a case may have no end here.
const IDLE: u32 = 600_000;

/// Answers that may be on their way.
const DEPTH: usize = 16;
/// Questions that are received before they are answered.
const QUESTIONS: usize = 4;

/// The context of what is received.
const QUESTION: u64 = 1;
/// And of what is sent.
const ANSWER: u64 = 2;
/// Of the last answer, which ends it.
const FAREWELL: u64 = 3;

/// Serves under that service of a provider, until somebody says that it is over: sleeps. `ETIMEDOUT`:
/// nobody has asked for anything for long.
pub(crate) fn serve(provider: &str, service: &str) -> Result {
    let info = service_of(provider, Some(service))?;
    let mut servant = Servant {
        guests: KVec::new(),
        end: End::open(&info, DEPTH, None)?,
        info,
    };
    for _ in 0..QUESTIONS {
        servant.end.ep.recv(Memory::zeroed(MOST)?, QUESTION)?;
    }
    loop {
        let done = servant.end.cq.read_wait(IDLE)?;
        match done.context {
            QUESTION => {}
            FAREWELL => return done.result.map(drop).map_err(|failure| failure.error),
            // Who is gone wants none.
            _ => continue,
        }
        let memory = done.buffer.into_memory().map_err(|_| EBADMSG)?;
        let len = done.result.map_or(0, |success| success.len);
        let said = memory.as_slice().and_then(|bytes| bytes.get(..len));
        // Whoever said that may say it again; the others are served.
        if let Err(error) = said.ok_or(EBADMSG).and_then(|said| servant.heard(said)) {
            pr_err!("# a question was dropped: {error:?}\n");
        }
        servant.end.ep.recv(memory, QUESTION)?;
    }
}

/// What an end is to be: of which type, and what it can do.
type Wanted = (EndpointType, Caps, Order, Limits);

struct Servant {
    /// By the numbers of their sessions.
    guests: KVec<Option<KBox<Guest>>>,
    // After them, which have been closed before.
    end: KBox<End>,
    info: Info,
}

impl Servant {
    /// Does what was asked for, and answers.
    fn heard(&mut self, said: &[u8]) -> Result {
        let mut heard = Heard::new(said);
        let verb = Verb::hear(&mut heard)?;
        let (number, answer) = match verb {
            Verb::Call => {
                let to = self.end.av.insert(&Name::hear(&mut heard)?)?;
                let number = self.guests.len();
                self.guests.push(Some(Guest::new(to)?), GFP_KERNEL)?;
                (number, said_of(Ok(number))?)
            }
            _ => {
                let number = usize::hear(&mut heard)?;
                let guest = self.guests.get_mut(number).and_then(Option::as_mut);
                let guest = guest.ok_or(EBADMSG)?;
                let mut answer = Saying::new();
                let done = guest.answer(&self.info, verb, &mut heard, &mut answer);
                let answer = match done.and_then(|()| answer.into_bytes()) {
                    Ok(answer) => answer,
                    Err(error) => said_of::<()>(Err(error))?,
                };
                (number, answer)
            }
        };
        let guest = self.guests.get_mut(number).ok_or(EBADMSG)?;
        let to = guest.as_ref().ok_or(EBADMSG)?.to;
        let context = match verb {
            Verb::Finish => FAREWELL,
            _ => ANSWER,
        };
        let (answer, options) = (Memory::from_vec(answer), Options::default());
        self.end.ep.send(answer, to, options, context)?;
        if matches!(verb, Verb::Leave | Verb::Finish) {
            *guest = None;
            self.end.av.remove(to)?;
        }
        Ok(())
    }
}

/// An answer, as bytes.
fn said_of<T: Word>(answer: Result<T>) -> Result<KVVec<u8>> {
    let mut saying = Saying::new();
    answer.say(&mut saying)?;
    saying.into_bytes()
}

/// A session: an end of a rig that is here, for one on the other host.
// In the order in which they must be closed.
struct Guest {
    regions: KVec<Option<Region>>,
    memories: KVec<Option<Memory>>,
    listener: Option<PassiveEndpoint>,
    end: Option<KBox<End>>,
    /// What is left of it, once its endpoint is closed.
    left: Option<Base>,
    ops: KVec<OpId>,
    device: Option<Arc<Pmem>>,
    /// Who asks.
    to: Address,
}

/// Adds something, and gives its number.
fn keep<T>(all: &mut KVec<Option<T>>, one: T) -> Result<usize> {
    all.push(Some(one), GFP_KERNEL)?;
    Ok(all.len() - 1)
}

/// What has a number. `EBADMSG`: nothing has it.
fn find<T>(all: &mut KVec<Option<T>>, number: usize) -> Result<&mut Option<T>> {
    all.get_mut(number)
        .filter(|one| one.is_some())
        .ok_or(EBADMSG)
}

impl Guest {
    fn new(to: Address) -> Result<KBox<Self>> {
        let guest = Guest {
            regions: KVec::new(),
            memories: KVec::new(),
            listener: None,
            end: None,
            left: None,
            ops: KVec::new(),
            device: None,
            to,
        };
        Ok(KBox::new(guest, GFP_KERNEL)?)
    }

    fn end(&self) -> Result<&End> {
        self.end.as_deref().ok_or(EBADMSG)
    }

    /// Where completions are read.
    fn cq(&self) -> Result<&CompletionQueue<u64>> {
        match &self.left {
            Some(base) => Ok(&base.cq),
            None => Ok(&self.end()?.cq),
        }
    }

    fn region(&mut self, number: usize) -> Result<&Region> {
        find(&mut self.regions, number)?.as_ref().ok_or(EBADMSG)
    }

    /// Does something, and says what comes of it. Its errors are the answer.
    fn answer(
        &mut self,
        info: &Info,
        verb: Verb,
        heard: &mut Heard<'_>,
        answer: &mut Saying,
    ) -> Result {
        macro_rules! answer {
            ($type:ty, |$words:pat_param| $done:expr) => {{
                let $words = <$type>::hear(heard)?;
                Ok::<_, Error>($done).say(answer)
            }};
        }
        match verb {
            Verb::Call => Err(EBADMSG),
            Verb::Leave | Verb::Finish => answer!((), |()| ()),
            Verb::Open => answer!(Wanted, |wanted| self.open(info, wanted)?),
            Verb::Accept => answer!((), |()| self.accept()?),
            Verb::Insert => answer!(Name, |name| self.end()?.av.insert(&name)?),
            Verb::Remove => answer!(Address, |address| self.end()?.av.remove(address)?),
            Verb::Receive => answer!((_, _, _), |(buffer, how, context)| self
                .receive(buffer, how, context)?),
            Verb::Send => answer!((_, _, _, _), |(buffer, to, options, context)| {
                let buffer = Carried::into_buffer(buffer)?;
                let posted = self.end()?.ep.send(buffer, to, options, context)?;
                self.posted(posted)?
            }),
            Verb::Cancel => answer!(usize, |number| {
                let id = *self.ops.get(number).ok_or(EBADMSG)?;
                self.end()?.ep.cancel(id)?
            }),
            Verb::Poll => answer!((), |()| self.cq()?.read().map(Ended::from).transpose()?),
            Verb::Next => answer!(u32, |millis| Ended::from(self.cq()?.read_wait(millis)?)?),
            Verb::Wait => answer!(u32, |millis| self.cq()?.wait(millis)?),
            Verb::Register => answer!((_, _), |(bytes, attributes)| {
                self.register(Memory::from_vec(bytes), attributes)?
            }),
            Verb::RegisterPersistent => answer!((_, _, _), |(offset, len, attributes)| {
                let device = match self.device.take() {
                    Some(device) => device,
                    None => pmem()?,
                };
                let memory = Memory::persistent(self.device.insert(device), offset, len)?;
                self.register(memory, attributes)?
            }),
            Verb::Descriptor => answer!(usize, |number| copy(&self.region(number)?.descriptor()?)?),
            Verb::ReadAt => answer!((_, _, _), |(number, offset, len)| {
                let mut bytes = room(len)?;
                self.region(number)?.read_at(offset, &mut bytes)?;
                bytes
            }),
            Verb::WriteAt => answer!((_, _, KVVec<u8>), |(number, offset, bytes)| {
                self.region(number)?.write_at(offset, &bytes)?
            }),
            Verb::Load => answer!((_, _), |(number, offset)| self
                .region(number)?
                .load_u64(offset)?),
            Verb::Store => answer!((_, _, _), |(number, offset, value)| {
                self.region(number)?.store_u64(offset, value)?
            }),
            Verb::Atomic => answer!((_, _, _, _, _), |(
                number,
                offset,
                action,
                operand,
                comparand,
            )| {
                self.region(number)?
                    .atomic(offset, action, operand, comparand)?
            }),
            Verb::Commit => answer!((_, _, _), |(number, offset, len)| {
                self.region(number)?.commit(offset, len)?
            }),
            Verb::CloseRegion => answer!(usize, |number| self.close_region(number)?),
            Verb::DropRegion => answer!(usize, |number| drop(
                find(&mut self.regions, number)?.take()
            )),
            Verb::ReadMemory => answer!((_, _, _), |(number, offset, len)| {
                let mut bytes = room(len)?;
                let memory = find(&mut self.memories, number)?.as_ref();
                memory.ok_or(EBADMSG)?.read_at(offset, &mut bytes)?;
                bytes
            }),
            Verb::DropMemory => answer!(usize, |number| drop(
                find(&mut self.memories, number)?.take()
            )),
            Verb::CloseEndpoint => answer!((), |()| {
                let (ep, base) = self.end.take().ok_or(EBADMSG)?.split();
                self.left = Some(base);
                closed(ep.close())?
            }),
            Verb::Close => answer!((), |()| {
                self.listener = None;
                match self.left.take() {
                    Some(base) => base.close()?,
                    None => self.end.take().ok_or(EBADMSG)?.close()?,
                }
            }),
        }
    }

    /// Opens an end in the domain of an info; its name, or, if it is to be connected, that at which it listens.
    fn open(&mut self, here: &Info, (kind, caps, order, limits): Wanted) -> Result<Name> {
        let hints = Hints {
            caps,
            order,
            endpoint_type: Some(kind),
            ..domain_of(here)
        };
        let first = *getinfo(&hints)?.first().ok_or(ENODATA)?;
        if limits.rx_size != limits.tx_size || limits.tx_size > first.limits.tx_size {
            return Err(EBADMSG);
        }
        let info = Info {
            caps,
            order,
            limits,
            ..first
        };
        // Of both kinds, as many as that: the depth of a rig.
        let end = End::open(&info, limits.tx_size, None)?;
        let name = match &end.eq {
            Some(eq) => {
                let listener = PassiveEndpoint::listen(&end.domain, &info, eq, 1)?;
                self.listener.insert(listener).name()
            }
            None => end.ep.name(),
        };
        self.end = Some(end);
        Ok(name)
    }

    /// Accepts the connection that is asked for.
    fn accept(&mut self) -> Result {
        let end = self.end()?;
        let events = end.eq.as_ref().ok_or(EBADMSG)?;
        let Event::ConnectionRequest(request) = events.read_wait(timeout() / 2)? else {
            return Err(EINVAL);
        };
        closed(end.ep.accept(request, PrivateData::NONE))?;
        match events.read_wait(timeout() / 2)? {
            Event::Connected { .. } => {
                self.listener = None;
                Ok(())
            }
            _ => Err(EINVAL),
        }
    }

    fn receive(&mut self, buffer: Carried, how: Receive, context: u64) -> Result<usize> {
        let buffer = buffer.into_buffer()?;
        let posted = self.end()?.receive(buffer, how, context)?;
        self.posted(posted)
    }

    /// The number of what was posted.
    fn posted(&mut self, id: OpId) -> Result<usize> {
        self.ops.push(id, GFP_KERNEL)?;
        Ok(self.ops.len() - 1)
    }

    fn register(&mut self, memory: Memory, attributes: RegionAttributes) -> Result<Traits> {
        let region = register(&self.end()?.domain, memory, attributes)?;
        let (len, is_persistent) = (region.len(), region.is_persistent());
        let is_uncached = region.is_uncached();
        let number = keep(&mut self.regions, region)?;
        Ok((number, len, is_persistent, is_uncached))
    }

    /// Closes a region, and keeps its memory: the number of that, and its length.
    fn close_region(&mut self, number: usize) -> Result<(usize, usize)> {
        let place = find(&mut self.regions, number)?;
        match place.take().ok_or(EBADMSG)?.close() {
            Ok(memory) => {
                let len = memory.len();
                Ok((keep(&mut self.memories, memory)?, len))
            }
            Err((error, region)) => {
                *place = Some(region);
                Err(error)
            }
        }
    }
}

/// Room for so many bytes. `EXDEV`: for more than are said at once.
fn room(len: usize) -> Result<KVVec<u8>> {
    match len <= MOST / 2 {
        true => Ok(KVVec::zeroed(len, GFP_KERNEL)?),
        false => Err(EXDEV),
    }
}
