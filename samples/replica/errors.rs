// SPDX-License-Identifier: GPL-2.0

//! Errors that come after the call that caused them: each open file is told once.
//!
//! As with the kernel's errseq_t, a file that is opened while nobody was told of an error yet is
//! told of it too.

use kernel::prelude::*;

/// The errors of a device.
#[derive(Default)]
pub(crate) struct Errors {
    /// How many there were.
    count: u64,
    /// Whether some file was told of the last one.
    seen: bool,
}

impl Errors {
    /// Adds an error; returns whether it is the first that nobody was told of.
    pub(crate) fn add(&mut self) -> bool {
        let first = self.count == 0 || self.seen;
        self.count += 1;
        self.seen = false;
        first
    }

    /// Returns how many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns how many a file was told of that is opened now.
    pub(crate) fn open(&self) -> u64 {
        self.count - u64::from(self.count > 0 && !self.seen)
    }

    /// Tells a file that was told of `told`; returns how many it knows now, if that is news.
    pub(crate) fn tell(&mut self, told: u64) -> Option<u64> {
        if told == self.count {
            return None;
        }
        self.seen = true;
        Some(self.count)
    }
}

#[kunit_tests(kfi_replica_errors)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_told_once() {
        let mut errors = Errors::default();
        let (a, b) = (errors.open(), errors.open());
        assert_eq!(errors.tell(a), None);
        assert!(errors.add());
        assert_eq!(errors.tell(a), Some(1));
        assert_eq!(errors.tell(1), None);
        assert_eq!(errors.tell(b), Some(1));
        assert_eq!(errors.tell(1), None);
    }

    #[test]
    fn several_errors_are_told_as_one() {
        let mut errors = Errors::default();
        let file = errors.open();
        assert!(errors.add());
        assert!(!errors.add());
        assert_eq!(errors.tell(file), Some(2));
        assert_eq!(errors.tell(2), None);
        assert!(errors.add());
        assert_eq!(errors.tell(2), Some(3));
    }

    #[test]
    fn file_opened_later_is_told_what_nobody_knows() {
        let mut errors = Errors::default();
        let early = errors.open();
        assert!(errors.add());
        let late = errors.open();
        assert_eq!(errors.tell(late), Some(1));
        let later = errors.open();
        assert_eq!(errors.tell(later), None);
        assert_eq!(errors.tell(early), Some(1));
    }
}
