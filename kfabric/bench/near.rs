// SPDX-License-Identifier: GPL-2.0

//! The near end: it posts, and looks at the clock.

use crate::end::{End, DEPTH, MESSAGE};
use crate::pattern;
use crate::stream::{Stream, What};
use crate::word::{Word, ANSWER};
use kernel::prelude::*;
use kernel::time::{Delta, Instant, Monotonic};
use kfabric::prelude::*;

/// How long a completion or an answer may take, in milliseconds.
pub(crate) const TIMEOUT: u32 = 60_000;

/// So many exchanges come before those that are measured.
const WARM: u64 = 16;

/// The most bytes of the buffers of one measurement, on either side.
const MOST: usize = 128 << 20;

const WORD: usize = size_of::<u64>();

/// The end that asks.
pub(crate) struct Near {
    pub(crate) end: End,
    pub(crate) far: Address,
    /// What the bytes of the measurement are made from.
    pub(crate) seed: u64,
}

/// The bytes that were said, and how many.
type Answer = ([u8; ANSWER], usize);

impl Near {
    /// Opens an endpoint, and reaches the far end that serves there. Sleeps.
    pub(crate) fn meet(provider: &str, node: &str, service: &str) -> Result<Self> {
        let end = End::new(provider, None)?;
        let far = end.av.insert_service(node, service)?;
        end.hear(Memory::zeroed(MESSAGE)?)?;
        let near = Near { end, far, seed: 0 };
        near.ask(Word::Meet, near.end.ep.name().as_bytes())?;
        Ok(near)
    }

    /// Measures a stream: `count` operations of `len` bytes, from and to `depth` buffers, as many at once. Sleeps.
    ///
    /// All buffers go once before. Then from the first post to the last completion, at level delivered.
    ///
    /// # Errors
    /// - `EINVAL`: it can't be done.
    /// - `EBADMSG`: something else has come than was sent.
    /// - Others: an operation failed.
    pub(crate) fn stream(
        &mut self,
        what: What,
        len: usize,
        depth: usize,
        count: u64,
    ) -> Result<Delta> {
        let longest = match what {
            What::Writes => MOST,
            What::Messages => MESSAGE,
        };
        let size = len.checked_mul(depth).ok_or(EINVAL)?;
        let possible = size > 0 && size <= MOST && depth <= DEPTH;
        if !possible || len > longest || len % WORD != 0 || count == 0 {
            return Err(EINVAL);
        }
        self.seed += 1;
        let mut stream = Stream::new(self, what, len, depth)?;
        stream.run(depth as u64)?;
        let begin = Instant::<Monotonic>::now();
        stream.run(count)?;
        let took = begin.elapsed();
        stream.check(depth as u64 + count)?;
        Ok(took)
    }

    /// Measures a ping-pong: `len` bytes go there and come back, `count` times. Sleeps. Errors as of a stream.
    pub(crate) fn pingpong(&mut self, len: usize, count: u64) -> Result<Delta> {
        let mut bytes = [0; ANSWER];
        let bytes = bytes.get_mut(..len).ok_or(EINVAL)?;
        if count == 0 {
            return Err(EINVAL);
        }
        self.seed += 1;
        pattern::fill(bytes, 0, self.seed);
        for _ in 0..WARM {
            self.ask(Word::Ping, bytes)?;
        }
        let begin = Instant::<Monotonic>::now();
        for _ in 1..count {
            self.ask(Word::Ping, bytes)?;
        }
        let (answer, answered) = self.ask(Word::Ping, bytes)?;
        let took = begin.elapsed();
        match answer.get(..answered) == Some(bytes) {
            true => Ok(took),
            false => Err(EBADMSG),
        }
    }

    /// Says a word and waits for what is said to it.
    #[inline]
    fn ask(&self, word: Word, bytes: &[u8]) -> Result<Answer> {
        self.end.say(self.far, word, bytes)?;
        let done = self.end.next(TIMEOUT)?;
        let success = done.result.map_err(|failure| failure.error)?;
        // A message that went leaves no completion.
        if success.data != Some(word as u64) {
            return Err(EBADMSG);
        }
        let memory = done.buffer.into_memory().map_err(|_| EINVAL)?;
        let mut answer = [0; ANSWER];
        let len = success.len.min(answer.len());
        let said = memory.as_slice().and_then(|said| said.get(..len));
        answer
            .get_mut(..len)
            .ok_or(EINVAL)?
            .copy_from_slice(said.ok_or(EINVAL)?);
        self.end.hear(memory)?;
        Ok((answer, success.len))
    }

    /// The answer to a word, which is of that many bytes.
    pub(crate) fn learn<const LEN: usize>(&self, word: Word, bytes: &[u8]) -> Result<[u8; LEN]> {
        let (answer, len) = self.ask(word, bytes)?;
        let said = answer.get(..len).ok_or(EBADMSG)?;
        said.try_into().map_err(|_| EBADMSG)
    }
}
