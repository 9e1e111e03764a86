// SPDX-License-Identifier: GPL-2.0

//! Frames that were sent and are not acknowledged: what is needed to make them again.
//!
//! Requests and replies share the room, but some of it is kept for replies: a side must always be
//! able to reply, or both would wait for each other.

use super::super::violation::Violation;
use core::ops::DerefMut;

/// A frame that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent<F> {
    frame: Option<F>,
    /// What it acknowledged, which it does again when it is sent again.
    ack: u32,
    reply: bool,
}

impl<F> Sent<F> {
    /// A place without a frame.
    pub const fn vacant() -> Self {
        Sent {
            frame: None,
            ack: 0,
            reply: false,
        }
    }
}

/// The ring.
///
/// # Invariants
///
/// The frames `base` to `base + len - 1` are in it, the oldest at `head`. `acked` is `base - 1` or
/// later: those up to it are acknowledged, and wait for [`Ring::pop`]. `cursor` is what is to be
/// sent next: one of them to be sent again, or the next new one.
#[derive(Debug)]
pub struct Ring<S> {
    slots: S,
    head: u32,
    len: u32,
    replies: u32,
    reserve: u32,
    base: u32,
    acked: u32,
    cursor: u32,
}

impl<F: Copy, S: DerefMut<Target = [Sent<F>]>> Ring<S> {
    /// An empty ring, whose first frame follows number `start`. `reserve`: how many replies there
    /// is always room for.
    pub fn new(slots: S, reserve: u32, start: u32) -> Self {
        let mut ring = Ring {
            slots,
            head: 0,
            len: 0,
            replies: 0,
            reserve,
            base: 0,
            acked: 0,
            cursor: 0,
        };
        ring.clear(start);
        ring
    }

    /// Forgets everything. The next frame follows number `start`.
    pub fn clear(&mut self, start: u32) {
        (self.head, self.len, self.replies) = (0, 0, 0);
        self.acked = start;
        self.base = start.wrapping_add(1);
        self.cursor = self.base;
    }

    /// The number of the last frame.
    pub fn last(&self) -> u32 {
        self.base.wrapping_add(self.len).wrapping_sub(1)
    }

    /// Whether everything was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many frames are in it.
    pub fn len(&self) -> u32 {
        self.len
    }

    fn capacity(&self) -> u32 {
        // Numbers are compared by their distance, which must be well below 2^31.
        self.slots.len().min(1 << 24) as u32
    }

    /// Whether there is room for a frame that is no reply.
    pub fn has_room(&self) -> bool {
        let kept = self.reserve.saturating_sub(self.replies);
        self.len.saturating_add(kept) < self.capacity()
    }

    fn slot(&mut self, nth: u32) -> Option<&mut Sent<F>> {
        let capacity = u64::from(self.capacity().max(1));
        let at = (u64::from(self.head) + u64::from(nth)) % capacity;
        self.slots.get_mut(at as usize)
    }

    /// Appends a frame, and gives it its number. `None`: there is no room.
    pub fn push(&mut self, frame: F, ack: u32, reply: bool) -> Option<u32> {
        if self.len >= self.capacity() || !(reply || self.has_room()) {
            return None;
        }
        *self.slot(self.len)? = Sent {
            frame: Some(frame),
            ack,
            reply,
        };
        // Nothing new is sent while something old is to be sent again, so it goes now.
        let seq = self.base.wrapping_add(self.len);
        if self.cursor == seq {
            self.cursor = seq.wrapping_add(1);
        }
        self.len += 1;
        self.replies += u32::from(reply);
        Some(seq)
    }

    /// The next frame that is to be sent again: its number, what it acknowledges, and itself.
    pub fn again(&mut self) -> Option<(u32, u32, F)> {
        let nth = self.cursor.wrapping_sub(self.base);
        if nth >= self.len {
            return None;
        }
        let sent = *self.slot(nth)?;
        let seq = self.cursor;
        self.cursor = seq.wrapping_add(1);
        Some((seq, sent.ack, sent.frame?))
    }

    /// The frame of that number, if it is not acknowledged.
    pub fn find(&mut self, seq: u32) -> Option<F> {
        let nth = seq.wrapping_sub(self.base);
        if nth >= self.len {
            return None;
        }
        self.slot(nth)?.frame
    }

    /// Whether something is to be sent again.
    pub fn has_again(&self) -> bool {
        self.cursor.wrapping_sub(self.base) < self.len
    }

    /// The peer has acknowledged all up to `ack`; whether that is news.
    ///
    /// # Errors
    ///
    /// [`Violation::Acknowledged`]: that one was not sent.
    pub fn acknowledge(&mut self, ack: u32) -> Result<bool, Violation> {
        let news = ack.wrapping_sub(self.acked);
        let outstanding = self.last().wrapping_sub(self.acked);
        if news > outstanding {
            // What was acknowledged before may be said again, by a frame that is sent again.
            return if news >= 1 << 31 {
                Ok(false)
            } else {
                Err(Violation::Acknowledged)
            };
        }
        self.acked = ack;
        Ok(news > 0)
    }

    /// Takes out the oldest, if it is acknowledged.
    pub fn pop(&mut self) -> Option<F> {
        let done = self.acked.wrapping_sub(self.base) < self.len;
        if !done {
            return None;
        }
        let (frame, reply) = {
            let slot = self.slot(0)?;
            (slot.frame.take(), slot.reply)
        };
        if self.cursor == self.base {
            self.cursor = self.base.wrapping_add(1);
        }
        self.base = self.base.wrapping_add(1);
        self.head = (self.head + 1) % self.capacity().max(1);
        self.len -= 1;
        self.replies -= u32::from(reply);
        frame
    }

    /// On a new link: the peer has executed all up to `last`; the others are sent again.
    ///
    /// Nothing is acknowledged by that: replies about those up to `last` may still have to come.
    ///
    /// # Errors
    ///
    /// [`Violation::Resumed`]: it has executed less than it acknowledged, or more than was sent.
    pub fn resume(&mut self, last: u32) -> Result<(), Violation> {
        let before = self.base.wrapping_sub(1);
        let executed = last.wrapping_sub(before);
        let acked = self.acked.wrapping_sub(before);
        if executed > self.len || executed < acked {
            return Err(Violation::Resumed);
        }
        self.cursor = last.wrapping_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR_WRAP: u32 = u32::MAX - 2;

    fn ring(len: usize, reserve: u32, start: u32) -> Ring<Vec<Sent<u32>>> {
        Ring::new(vec![Sent::vacant(); len], reserve, start)
    }

    #[test]
    fn frames_count_from_one_and_wrap_around() {
        let mut fresh = ring(4, 0, 0);
        assert_eq!(fresh.push(10, 0, false), Some(1));
        let mut old = ring(4, 0, NEAR_WRAP);
        let seqs: Vec<_> = (0..4).map(|n| old.push(n, 0, false).unwrap()).collect();
        assert_eq!(seqs, [u32::MAX - 1, u32::MAX, 0, 1]);
        assert_eq!(old.acknowledge(0), Ok(true));
        assert_eq!(
            (old.pop(), old.pop(), old.pop()),
            (Some(0), Some(1), Some(2))
        );
        assert_eq!(old.pop(), None);
        assert_eq!(old.acknowledge(2), Err(Violation::Acknowledged));
        assert_eq!(old.acknowledge(1), Ok(true));
        assert_eq!(old.pop(), Some(3));
        assert!(old.is_empty());
    }

    #[test]
    fn requests_leave_room_for_replies() {
        let mut ring = ring(5, 3, 0);
        assert!(ring.push(0, 0, false).is_some() && ring.push(1, 0, false).is_some());
        assert!(!ring.has_room());
        assert_eq!(ring.push(2, 0, false), None);
        for n in 0..3 {
            assert!(ring.push(n, 0, true).is_some());
            assert!(!ring.has_room());
        }
        assert_eq!(ring.push(9, 0, true), None);
        // A reply that is gone leaves its room to replies.
        assert_eq!(ring.acknowledge(3), Ok(true));
        while ring.pop().is_some() {}
        assert!(ring.push(2, 0, false).is_some() && ring.push(2, 0, false).is_some());
        assert!(!ring.has_room());
        assert!(ring.push(9, 0, true).is_some());
    }

    #[test]
    fn acknowledgement_of_what_was_not_sent_is_seen() {
        for start in [0, NEAR_WRAP] {
            let mut ring = ring(8, 0, start);
            for n in 0..3 {
                ring.push(n, 0, false);
            }
            let at = |n: u32| start.wrapping_add(n);
            assert_eq!(ring.acknowledge(at(4)), Err(Violation::Acknowledged));
            assert_eq!(ring.acknowledge(at(2)), Ok(true));
            assert_eq!(ring.acknowledge(at(2)), Ok(false));
            assert_eq!(ring.acknowledge(at(1)), Ok(false));
            assert_eq!(ring.acknowledge(at(3)), Ok(true));
        }
    }

    #[test]
    fn resumed_link_begins_after_what_was_executed() {
        for start in [0, NEAR_WRAP] {
            for executed in 0..=4 {
                let mut ring = ring(8, 0, start);
                for n in 0..4 {
                    ring.push(n, n + 100, false);
                }
                assert!(!ring.has_again());
                let at = |n: u32| start.wrapping_add(n);
                assert_eq!(ring.resume(at(executed)), Ok(()));
                for n in executed..4 {
                    assert!(ring.has_again());
                    assert_eq!(ring.again(), Some((at(n + 1), n + 100, n)));
                }
                assert_eq!(ring.again(), None);
                // What was executed is not acknowledged by that.
                assert_eq!(ring.pop(), None);
                assert_eq!(ring.len(), 4);
                assert_eq!(ring.push(4, 0, false), Some(at(5)));
                assert!(!ring.has_again());
            }
        }
    }

    #[test]
    fn resume_before_what_was_acknowledged_or_after_what_was_sent_is_refused() {
        for start in [0, NEAR_WRAP] {
            let mut ring = ring(8, 0, start);
            for n in 0..4 {
                ring.push(n, 0, false);
            }
            let at = |n: u32| start.wrapping_add(n);
            assert_eq!(ring.acknowledge(at(2)), Ok(true));
            assert_eq!(ring.resume(at(1)), Err(Violation::Resumed));
            assert_eq!(ring.resume(at(5)), Err(Violation::Resumed));
            while ring.pop().is_some() {}
            assert_eq!(ring.resume(at(1)), Err(Violation::Resumed));
            assert_eq!(ring.resume(at(2)), Ok(()));
            assert_eq!(ring.resume(at(4)), Ok(()));
        }
    }

    #[test]
    fn acknowledged_frame_is_not_sent_again() {
        let mut ring = ring(8, 0, 0);
        for n in 0..4 {
            ring.push(n, 0, false);
        }
        assert_eq!(ring.resume(0), Ok(()));
        assert_eq!(ring.acknowledge(2), Ok(true));
        while ring.pop().is_some() {}
        assert_eq!(ring.again().map(|(seq, ..)| seq), Some(3));
    }

    #[test]
    fn ring_without_storage_has_no_room() {
        let mut ring = ring(0, 0, 0);
        assert!(!ring.has_room());
        assert_eq!(ring.push(1, 0, true), None);
        assert_eq!((ring.pop(), ring.again()), (None, None));
    }
}
