// SPDX-License-Identifier: GPL-2.0

//! Acknowledgements that are owed, and when they are said even if there is nothing else to say.

/// How long acknowledgements may wait for a frame to go with.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// At most this many frames.
    pub frames: u32,
    /// At most this many bytes of payload.
    pub bytes: u64,
    /// At most so long, in nanoseconds.
    pub delay: u64,
}

/// What is owed.
#[derive(Debug)]
pub struct Acks {
    policy: Policy,
    frames: u32,
    bytes: u64,
    by: Option<u64>,
    now: bool,
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
        }
    }

    /// One more frame.
    pub fn owe(&mut self, now: u64, len: u32) {
        self.frames = self.frames.saturating_add(1);
        self.bytes = self.bytes.saturating_add(len.into());
        self.by.get_or_insert(now.saturating_add(self.policy.delay));
        self.now |= self.frames >= self.policy.frames || self.bytes >= self.policy.bytes;
    }

    /// The peer waits for it.
    pub fn hurry(&mut self) {
        self.now = true;
    }

    /// A frame said all.
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
}
