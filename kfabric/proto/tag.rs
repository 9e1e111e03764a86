// SPDX-License-Identifier: GPL-2.0

//! Which tags a receive takes.

/// The tags that a receive takes: those that are its own in all bits but the ignored ones.
///
/// Source: fi_tagged(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    tag: u64,
    ignore: u64,
}

impl Tags {
    /// All that are `tag` in the bits that are not set in `ignore`.
    pub const fn new(tag: u64, ignore: u64) -> Tags {
        Tags { tag, ignore }
    }

    /// That one.
    pub const fn one(tag: u64) -> Tags {
        Tags::new(tag, 0)
    }

    /// Whether a message with this tag is one that it takes.
    pub const fn contains(self, sent: u64) -> bool {
        (self.tag ^ sent) & !self.ignore == 0
    }

    /// The tag that it was made from.
    pub const fn tag(self) -> u64 {
        self.tag
    }

    /// Whether it is no more than one tag.
    pub const fn is_one(self) -> bool {
        self.ignore == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn ignored_bits_are_not_compared() {
        let max = u64::MAX;
        let table = [
            (0, 0, 0, true),
            (0, 0, 1, false),
            (0, 0, 1 << 63, false),
            (max, 0, max, true),
            (max, 0, max - 1, false),
            (5, max, 0, true),
            (5, max, max, true),
            (0xab00, 0xff, 0xab00, true),
            (0xab00, 0xff, 0xabff, true),
            (0xab00, 0xff, 0xac00, false),
            // What is ignored may be set in the receive's own.
            (0xab12, 0xff, 0xab34, true),
            (1 << 63, !(1 << 63), max, true),
            (1 << 63, !(1 << 63), max >> 1, false),
        ];
        for (tag, ignore, sent, expected) in table {
            let tags = Tags::new(tag, ignore);
            assert_eq!(
                tags.contains(sent),
                expected,
                "{tag:#x} {ignore:#x} {sent:#x}"
            );
            assert_eq!((tags.tag(), tags.is_one()), (tag, ignore == 0));
        }
    }

    #[test]
    fn tags_are_those_of_the_manual() {
        let mut rng = testing::rng();
        let mut taken = 0;
        for _ in 0..100_000 {
            // Few bits that differ, so that many are taken.
            let (tag, sent) = (rng.below(8), rng.below(8));
            let ignore = rng.next_u64() & !rng.below(8);
            let expected = (tag & !ignore) == (sent & !ignore);
            assert_eq!(Tags::new(tag, ignore).contains(sent), expected);
            taken += u32::from(expected);
        }
        assert!((10_000..90_000).contains(&taken), "{taken}");
        assert!(Tags::one(7).contains(7) && Tags::one(7).is_one());
    }
}
