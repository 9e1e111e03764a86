// SPDX-License-Identifier: GPL-2.0

//! What two ends say to each other: a word as remote CQ data, and bytes.

use kernel::prelude::*;

/// The bytes of a descriptor of a region.
pub(crate) const DESCRIPTOR: usize = 32;

/// The most bytes of an answer.
pub(crate) const ANSWER: usize = 64;

/// What the near end says. The far end answers with the same word.
#[derive(Clone, Copy, PartialEq)]
#[repr(u64)]
pub(crate) enum Word {
    /// The name of the near end. The answer has no bytes.
    Meet = 1,
    /// How long a region is wanted; its descriptor.
    Room,
    /// Bytes; the same.
    Ping,
    /// Bytes; no answer.
    Load,
    /// What the next loads are made from; a [`Tally`] of those before.
    Tally,
}

impl Word {
    const ALL: [Word; 5] = [Word::Meet, Word::Room, Word::Ping, Word::Load, Word::Tally];

    #[inline]
    pub(crate) fn parse(data: Option<u64>) -> Result<Self> {
        let is = |word: &Word| Some(*word as u64) == data;
        Self::ALL.into_iter().find(is).ok_or(EBADMSG)
    }
}

/// Loads that have come.
#[derive(Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// So many of those that were compared, which the first is, were not what was sent.
    pub(crate) wrong: u64,
}

impl Tally {
    pub(crate) const SIZE: usize = 3 * size_of::<u64>();

    pub(crate) fn emit(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let numbers = [self.messages, self.bytes, self.wrong];
        for (to, number) in bytes.chunks_exact_mut(size_of::<u64>()).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; Self::SIZE]) -> Result<Self> {
        let mut numbers = bytes.chunks_exact(size_of::<u64>()).map(number);
        let mut next = || numbers.next().unwrap_or(Err(EBADMSG));
        Ok(Tally {
            messages: next()?,
            bytes: next()?,
            wrong: next()?,
        })
    }
}

/// 8 bytes as a number.
pub(crate) fn number(bytes: &[u8]) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| EBADMSG)?))
}
