// SPDX-License-Identifier: GPL-2.0

//! Bytes of a link that came with those that were asked for.
//!
//! To ask a link costs as much as a short frame itself: a call of the network stack, with its lock. So where the last
//! frame was short, what follows it is taken in the same call, and given out piece by piece. Where it was long, nothing
//! is: a payload that lands where it belongs would be copied once more.
//!
//! A link that had less than it was asked for is asked once more: it may be at its end, which it says only then.

use super::super::link::{IovIterDest, Link};
use super::landing::SHORTEST;
use core::ops::Range;
use kernel::prelude::*;

/// How many bytes are asked for at once: some dozens of short messages.
const LEN: usize = 4096;

/// What has come.
#[derive(Default)]
pub(super) struct Ahead {
    /// Room for it; none while it is taken out of its place.
    bytes: KVVec<u8>,
    /// What nobody has taken yet.
    left: Range<usize>,
    /// Whether the last frame was long.
    long: bool,
}

impl Ahead {
    /// Nothing. Sleeps. `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Ahead {
            bytes: KVVec::zeroed(LEN, GFP_KERNEL)?,
            ..Ahead::default()
        })
    }

    /// Forgets all of it, with its link.
    pub(super) fn clear(&mut self) {
        (self.left, self.long) = (0..0, false);
    }

    /// The payload that comes has so many bytes.
    pub(super) fn expect(&mut self, len: u32) {
        self.long = len >= SHORTEST;
    }

    /// Puts the next bytes to the beginning of `room`, as [`Link::receive_bytes`] does.
    pub(super) fn receive_bytes(&mut self, link: &dyn Link, room: &mut [u8]) -> Result<usize> {
        if self.left.is_empty() {
            if self.long || room.len() >= self.bytes.len() {
                return link.receive_bytes(room);
            }
            self.left = 0..link.receive_bytes(&mut self.bytes)?;
        }
        let left = self.bytes.get(self.left.clone()).unwrap_or(&[]);
        let len = left.len().min(room.len());
        room[..len].copy_from_slice(&left[..len]);
        self.left.start += len;
        Ok(len)
    }

    /// Puts the next bytes to the beginning of `into`, as [`Link::receive`] does.
    pub(super) fn receive(&mut self, link: &dyn Link, into: &mut IovIterDest<'_>) -> Result<usize> {
        if self.left.is_empty() {
            return link.receive(into);
        }
        let left = self.bytes.get(self.left.clone()).unwrap_or(&[]);
        match into.copy_to_iter(left) {
            0 => Err(EFAULT),
            len => {
                self.left.start += len;
                Ok(len)
            }
        }
    }
}

#[kunit_tests(kfabric_rdm_peer_ahead)]
mod tests {
    use super::super::super::link::{IovIterSource, Wake};
    use super::*;
    use crate::sys::iter;
    use kernel::sync::atomic::{Atomic, Relaxed};
    use kernel::sync::Arc;

    /// A link that has some bytes, of which it gives as many as are asked for, and counts how often it is asked.
    struct Spring {
        left: Atomic<usize>,
        asked: Atomic<usize>,
    }

    impl Spring {
        fn new(len: usize) -> Self {
            Spring {
                left: Atomic::new(len),
                asked: Atomic::new(0),
            }
        }

        fn asked(&self) -> usize {
            self.asked.load(Relaxed)
        }
    }

    impl Link for Spring {
        fn attach(&self, _waker: Arc<dyn Wake>) {}

        fn is_up(&self) -> Result<bool> {
            Ok(true)
        }

        fn send(&self, _from: &mut IovIterSource<'_>, _more: bool) -> Result<usize> {
            Err(EAGAIN)
        }

        fn receive(&self, into: &mut IovIterDest<'_>) -> Result<usize> {
            self.asked.add(1, Relaxed);
            let left = self.left.load(Relaxed);
            let mut len = 0;
            // Each is what is left after it.
            while len < left && into.copy_to_iter(&[(left - len - 1) as u8]) == 1 {
                len += 1;
            }
            self.left.store(left - len, Relaxed);
            match len {
                0 => Err(EAGAIN),
                len => Ok(len),
            }
        }

        fn close(&self, _gently: bool) {}
    }

    /// The next bytes, so many at most, and what they should be.
    fn next(ahead: &mut Ahead, spring: &Spring, len: usize, left: usize) -> Result<usize> {
        let mut room = KVec::from_elem(0, len, GFP_KERNEL)?;
        let len = ahead.receive_bytes(spring, &mut room)?;
        for (n, byte) in room[..len].iter().enumerate() {
            assert_eq!(*byte, (left - n - 1) as u8);
        }
        Ok(len)
    }

    #[test]
    fn short_frames_come_in_one_call() -> Result {
        let (mut ahead, spring) = (Ahead::new()?, Spring::new(300));
        let mut left = 300;
        for len in [64, 36, 64, 100, 36] {
            ahead.expect(len as u32);
            assert_eq!(next(&mut ahead, &spring, len, left), Ok(len));
            left -= len;
        }
        assert_eq!(left, 0);
        assert_eq!(spring.asked(), 1);
        assert_eq!(next(&mut ahead, &spring, 64, 0), Err(EAGAIN));
        assert_eq!(spring.asked(), 2);
        Ok(())
    }

    #[test]
    fn nothing_is_taken_ahead_of_a_long_payload() -> Result {
        let (mut ahead, spring) = (Ahead::new()?, Spring::new(20_000));
        ahead.expect(SHORTEST);
        for left in [20_000, 19_936] {
            assert_eq!(next(&mut ahead, &spring, 64, left), Ok(64));
        }
        assert_eq!((spring.asked(), spring.left.load(Relaxed)), (2, 19_872));
        // Nor where the room is as large.
        ahead.expect(SHORTEST - 1);
        assert_eq!(next(&mut ahead, &spring, LEN, 19_872), Ok(LEN));
        assert!(ahead.left.is_empty());
        Ok(())
    }

    #[test]
    fn payload_that_lands_elsewhere_begins_with_what_is_here() -> Result {
        let (mut ahead, spring) = (Ahead::new()?, Spring::new(10_000));
        assert_eq!(next(&mut ahead, &spring, 64, 10_000), Ok(64));
        ahead.expect(9000);
        let mut room = KVVec::from_elem(0, 9000, GFP_KERNEL)?;
        let mut have = 0;
        for expected in [LEN - 64, 9000 - (LEN - 64)] {
            let len = iter::dest(&mut room[have..], |into| ahead.receive(&spring, into))?;
            assert_eq!(len, expected);
            have += len;
        }
        for (n, byte) in room.iter().enumerate() {
            assert_eq!(*byte, (10_000 - 64 - n - 1) as u8);
        }
        assert_eq!(spring.asked(), 2);
        Ok(())
    }

    #[test]
    fn what_is_forgotten_is_not_given_out() -> Result {
        let (mut ahead, spring) = (Ahead::new()?, Spring::new(100));
        assert_eq!(next(&mut ahead, &spring, 64, 100), Ok(64));
        ahead.clear();
        assert_eq!(next(&mut ahead, &spring, 64, 0), Err(EAGAIN));
        assert_eq!(spring.asked(), 2);
        Ok(())
    }
}
