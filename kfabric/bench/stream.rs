// SPDX-License-Identifier: GPL-2.0

//! A stream: operations of one kind, as many at once as there are buffers.

use crate::near::{Near, TIMEOUT};
use crate::pattern;
use crate::word::{Tally, Word, DESCRIPTOR};
use kernel::prelude::*;
use kfabric::prelude::*;

/// Which operations a stream is of.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum What {
    /// Writes, each to a place of its own of a region there.
    Writes,
    /// Messages.
    Messages,
}

/// The buffers of a stream.
pub(crate) struct Stream<'a> {
    near: &'a Near,
    what: What,
    len: usize,
    buffers: KVec<Buffer>,
    /// Of writes.
    places: KVec<RemoteSlice>,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(near: &'a Near, what: What, len: usize, depth: usize) -> Result<Self> {
        let mut stream = Stream {
            near,
            what,
            len,
            buffers: KVec::with_capacity(depth, GFP_KERNEL)?,
            places: KVec::with_capacity(depth, GFP_KERNEL)?,
        };
        for number in 0..depth {
            let mut memory = Memory::zeroed(len)?;
            let bytes = memory.as_mut_slice().ok_or(EINVAL)?;
            pattern::fill(bytes, number, near.seed);
            stream.buffers.push(memory.into(), GFP_KERNEL)?;
        }
        match what {
            What::Writes => {
                let size = ((len * depth) as u64).to_le_bytes();
                let descriptor: [u8; DESCRIPTOR] = near.learn(Word::Room, &size)?;
                let region = RemoteRegion::parse(&descriptor)?;
                for number in 0..depth {
                    let place = region.slice((number * len) as u64, len as u64)?;
                    stream.places.push(place, GFP_KERNEL)?;
                }
            }
            What::Messages => {
                let seed = near.seed.to_le_bytes();
                near.learn::<{ Tally::SIZE }>(Word::Tally, &seed)?;
            }
        }
        Ok(stream)
    }

    /// Posts one. Others follow, or a wait.
    #[inline(always)]
    fn post(&mut self, number: usize) -> Result {
        let (ep, to) = (&self.near.end.ep, self.near.far);
        let more = Options {
            more: true,
            ..Options::NONE
        };
        let buffer = core::mem::take(self.buffers.get_mut(number).ok_or(EINVAL)?);
        match self.what {
            What::Writes => {
                let place = *self.places.get(number).ok_or(EINVAL)?;
                ep.write(buffer, to, place, more, number)?
            }
            What::Messages => {
                let options = Options {
                    data: Some(Word::Load as u64),
                    ..more
                };
                ep.send(buffer, to, options, number)?
            }
        };
        Ok(())
    }

    /// Posts so many, as many at once as there are buffers, and waits until all have ended.
    #[inline]
    pub(crate) fn run(&mut self, count: u64) -> Result {
        let mut posted = 0;
        for number in 0..self.buffers.len() {
            if posted < count {
                self.post(number)?;
                posted += 1;
            }
        }
        for _ in 0..count {
            let done = self.near.end.next(TIMEOUT)?;
            let number = done.context;
            *self.buffers.get_mut(number).ok_or(EINVAL)? = done.buffer;
            done.result.map_err(|failure| failure.error)?;
            if posted < count {
                self.post(number)?;
                posted += 1;
            }
        }
        Ok(())
    }

    /// Whether the far end has what was sent: of writes one buffer, of messages how many bytes of how many.
    pub(crate) fn check(self, sent: u64) -> Result {
        let (near, number) = (self.near, self.buffers.len() - 1);
        match self.what {
            What::Writes => {
                let place = *self.places.last().ok_or(EINVAL)?;
                let memory = Memory::zeroed(self.len)?;
                let ep = &near.end.ep;
                ep.read(memory, near.far, place, Options::default(), number)?;
                let done = near.end.next(TIMEOUT)?;
                done.result.map_err(|failure| failure.error)?;
                let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
                match pattern::is_of(memory.as_slice().ok_or(EINVAL)?, number, near.seed) {
                    true => Ok(()),
                    false => Err(EBADMSG),
                }
            }
            What::Messages => {
                let seed = near.seed.to_le_bytes();
                let tally = Tally::parse(&near.learn::<{ Tally::SIZE }>(Word::Tally, &seed)?)?;
                let wanted = Tally {
                    messages: sent,
                    bytes: sent * self.len as u64,
                    wrong: 0,
                };
                match tally == wanted {
                    true => Ok(()),
                    false => Err(EBADMSG),
                }
            }
        }
    }
}
