// SPDX-License-Identifier: GPL-2.0

//! Acknowledgements that are owed, and when they are said even if there is nothing else to say.
//!
//! A peer that has nothing more to send asks for one at once. Where this side answers messages, that costs a
//! frame each time, shortly before the answer's, which says the same. So after a few such answers in a row the next
//! acknowledgement waits for one, longer than it else would; when none comes in that time, those after it are said
//! at once again. It is what TCP does of its own, by `inet_csk_in_pingpong_mode()` of the Linux source.

/// After so many answers in a row that came soon after an acknowledgement, the next waits for one.
const SURE: u8 = 3;

/// How long acknowledgements may wait for a frame to go with.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// At most this many frames.
    pub frames: u32,
    /// At most this many bytes of payload.
    pub bytes: u64,
    /// At most so long, in nanoseconds.
    pub delay: u64,
    /// For an answer that is sure to come, at most so long, in nanoseconds.
    pub answer: u64,
}

/// What is owed.
#[derive(Debug)]
pub struct Acks {
    policy: Policy,
    frames: u32,
    bytes: u64,
    by: Option<u64>,
    now: bool,
    /// Whether the peer waits for it.
    asked: bool,
    /// When the last was said, by a frame of its own, for which the peer had asked.
    said: Option<u64>,
    /// How many answers in a row came soon after one.
    answers: u8,
}

impl Acks {
    /// Nothing.
    pub const fn new(policy: Policy) -> Acks {
        Acks {
            policy,
            frames: 0,
            bytes: 0,
            by: None,
            now: false,
            asked: false,
            said: None,
            answers: 0,
        }
    }

    /// One more frame.
    pub fn owe(&mut self, now: u64, len: u32) {
        self.frames = self.frames.saturating_add(1);
        self.bytes = self.bytes.saturating_add(len.into());
        self.by.get_or_insert(now.saturating_add(self.policy.delay));
        self.now |= self.frames >= self.policy.frames || self.bytes >= self.policy.bytes;
    }

    /// The peer asks for it: now, or with the answer that it is sure to get.
    pub fn ask(&mut self, now: u64) {
        let first = !core::mem::replace(&mut self.asked, true);
        match self.answers < SURE {
            true => self.now = true,
            // The first who asks waits no longer for those behind it.
            false if first => self.by = Some(now.saturating_add(self.policy.answer)),
            false => {}
        }
    }

    /// It is to be said now.
    pub fn hurry(&mut self) {
        self.now = true;
    }

    /// A frame said all that has nothing else to say.
    pub fn say(&mut self, now: u64) {
        if self.asked {
            self.said = (self.answers < SURE).then_some(now);
            if self.are_due(now) && self.answers >= SURE {
                // No answer came in time.
                self.answers = 0;
            }
        }
        self.settle();
    }

    /// A frame said all that was to be sent anyway.
    pub fn ride(&mut self, now: u64) {
        if let Some(said) = self.said.take() {
            self.answers = match now.saturating_sub(said) <= self.policy.answer {
                true => SURE.min(self.answers + 1),
                false => 0,
            };
        }
        self.settle();
    }

    /// Nothing is owed any more.
    fn settle(&mut self) {
        (self.frames, self.bytes, self.by) = (0, 0, None);
        (self.now, self.asked) = (false, false);
    }

    /// Nothing is owed, and nothing known of the peer.
    pub fn clear(&mut self) {
        *self = Acks::new(self.policy);
    }

    /// Whether it is to be said now.
    pub fn are_due(&self, now: u64) -> bool {
        self.now || self.by.is_some_and(|by| by <= now)
    }

    /// When it will have to be said. Not if it has to be already: then it goes as soon as the link
    /// takes a frame, and time changes nothing.
    pub fn at(&self) -> Option<u64> {
        self.by.filter(|_| !self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks() -> Acks {
        Acks::new(Policy {
            frames: 3,
            bytes: 100,
            delay: 50,
            answer: 80,
        })
    }

    #[test]
    fn acknowledgement_waits_up_to_each_limit() {
        let mut acks = acks();
        assert!(!acks.are_due(u64::MAX) && acks.at().is_none());
        acks.owe(10, 1);
        acks.owe(20, 1);
        assert!(!acks.are_due(59) && acks.are_due(60));
        assert_eq!(acks.at(), Some(60));
        acks.owe(20, 1);
        assert!(acks.are_due(20) && acks.at().is_none());
        acks.clear();
        acks.owe(20, 99);
        assert!(!acks.are_due(20));
        acks.owe(20, 1);
        assert!(acks.are_due(20));
        acks.clear();
        acks.owe(20, 0);
        acks.hurry();
        assert!(acks.are_due(0));
        acks.clear();
        assert!(!acks.are_due(u64::MAX));
    }

    /// The peer asks at `now`; whether it is told at once.
    fn asks(acks: &mut Acks, now: u64) -> bool {
        acks.owe(now, 1);
        acks.ask(now);
        acks.are_due(now)
    }

    #[test]
    fn acknowledgement_waits_for_an_answer_that_is_sure_to_come() {
        let mut acks = acks();
        for round in 0..6 {
            let now = round * 1000;
            let at_once = asks(&mut acks, now);
            assert_eq!(at_once, round < u64::from(SURE));
            if at_once {
                acks.say(now);
            } else {
                assert_eq!(acks.at(), Some(now + 80));
            }
            acks.ride(now + 80);
            assert!(!acks.are_due(u64::MAX));
        }
    }

    #[test]
    fn wait_for_an_answer_in_vain_is_the_last() {
        let mut acks = acks();
        for _ in 0..SURE {
            assert!(asks(&mut acks, 0));
            acks.say(0);
            acks.ride(1);
        }
        assert!(!asks(&mut acks, 10) && !asks(&mut acks, 60));
        assert!(!acks.are_due(89) && acks.are_due(90));
        acks.say(90);
        assert!(asks(&mut acks, 100));
        // Nor does that answer count which comes after the wait.
        acks.settle();
        acks.ride(101);
        assert!(asks(&mut acks, 110));
    }

    #[test]
    fn late_answers_make_nothing_sure() {
        let mut acks = acks();
        for round in 0..10 {
            // Each second one comes too late.
            assert!(asks(&mut acks, 0));
            acks.say(0);
            acks.ride(80 + round % 2);
        }
        // Nor do those that nothing was asked before.
        for _ in 0..10 {
            acks.owe(0, 1);
            acks.say(50);
            acks.ride(51);
        }
        assert!(asks(&mut acks, 0));
    }

    #[test]
    fn new_link_begins_anew() {
        let mut acks = acks();
        for _ in 0..SURE {
            assert!(asks(&mut acks, 0));
            acks.say(0);
            acks.ride(1);
        }
        acks.clear();
        assert!(asks(&mut acks, 2));
    }
}
