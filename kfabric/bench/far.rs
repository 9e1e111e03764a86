// SPDX-License-Identifier: GPL-2.0

//! The far end: the endpoint of a service that does what near ends ask for.

use crate::end::{End, DEPTH, MESSAGE};
use crate::pattern;
use crate::word::{self, Tally, Word, DESCRIPTOR};
use kernel::prelude::*;
use kfabric::prelude::*;

/// How long nobody may say anything, in milliseconds: other things are measured in between.
const IDLE: u32 = 300_000;

/// How long a region may be busy, in milliseconds.
const TIMEOUT: u32 = 60_000;

struct Far {
    near: Option<Address>,
    tally: Tally,
    /// What the loads are made from.
    seed: u64,
    // Before the end, whose domain it is of.
    region: Option<MemoryRegion>,
    end: End,
}

/// Serves until nobody has said anything for long: `ETIMEDOUT`; or until a signal comes: `ERESTARTSYS`. Sleeps.
pub(crate) fn serve(provider: &str, service: &str) -> Result {
    let mut far = Far {
        near: None,
        tally: Tally::default(),
        seed: 0,
        region: None,
        end: End::new(provider, Some(service))?,
    };
    for _ in 0..DEPTH {
        far.end.hear(Memory::zeroed(MESSAGE)?)?;
    }
    loop {
        let done = far.end.next(IDLE)?;
        // An answer that nobody took leaves one, too: the peer has gone, and another may come.
        if done.kind == Kind::Recv {
            far.heard(done)?;
        }
    }
}

impl Far {
    /// Does what a message asks for, and receives the next one.
    #[inline]
    fn heard(&mut self, done: Completion<usize>) -> Result {
        let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
        if let Ok(success) = done.result {
            let said = memory.as_slice().and_then(|said| said.get(..success.len));
            self.answer(Word::parse(success.data)?, said.ok_or(EINVAL)?)?;
        }
        self.end.hear(memory)
    }

    #[inline]
    fn answer(&mut self, word: Word, said: &[u8]) -> Result {
        match (word, self.near) {
            (Word::Ping, Some(near)) => self.end.say(near, word, said),
            (Word::Load, Some(_)) => {
                if self.tally.messages == 0 && !pattern::is_of_any(said, self.seed) {
                    self.tally.wrong += 1;
                }
                self.tally.messages += 1;
                self.tally.bytes += said.len() as u64;
                Ok(())
            }
            (Word::Tally, Some(near)) => {
                self.seed = word::number(said)?;
                let tally = core::mem::take(&mut self.tally);
                self.end.say(near, word, &tally.emit())
            }
            (Word::Room, Some(near)) => {
                let descriptor = self.room(word::number(said)?)?;
                self.end.say(near, word, &descriptor)
            }
            (Word::Meet, former) => {
                if let Some(former) = former {
                    self.end.av.remove(former)?;
                }
                let near = self.end.av.insert(&Name::new(said)?)?;
                self.near = Some(near);
                self.end.say(near, word, &[])
            }
            _ => Err(EBADMSG),
        }
    }

    /// Another region, of so many bytes.
    fn room(&mut self, size: u64) -> Result<[u8; DESCRIPTOR]> {
        if let Some(region) = self.region.take() {
            region.close_wait(TIMEOUT).map_err(|(error, _)| error)?;
        }
        let memory = Memory::zeroed(usize::try_from(size)?)?;
        let registered = self.end.domain.register(memory, Access::READ_WRITE);
        let region = registered.map_err(|(error, _memory)| error)?;
        let descriptor = region.descriptor()?;
        self.region = Some(region);
        Ok(descriptor)
    }
}
