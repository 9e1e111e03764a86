// SPDX-License-Identifier: GPL-2.0

//! Atomics: what is done to a word at once.
//!
//! Only what the words are and what becomes of one; that nobody comes between is up to whoever
//! holds the memory. Source: fi_atomic(3).

/// What the words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Datatype {
    /// FI_INT8.
    I8 = 0,
    /// FI_UINT8.
    U8 = 1,
    /// FI_INT16.
    I16 = 2,
    /// FI_UINT16.
    U16 = 3,
    /// FI_INT32.
    I32 = 4,
    /// FI_UINT32.
    U32 = 5,
    /// FI_INT64.
    I64 = 6,
    /// FI_UINT64.
    U64 = 7,
}

impl Datatype {
    /// All of them.
    pub const ALL: [Datatype; 8] = [
        Datatype::I8,
        Datatype::U8,
        Datatype::I16,
        Datatype::U16,
        Datatype::I32,
        Datatype::U32,
        Datatype::I64,
        Datatype::U64,
    ];

    /// The size of a word in bytes: 1, 2, 4 or 8. It is also what a word is aligned to.
    pub const fn size(self) -> usize {
        1 << (self as u8 >> 1)
    }

    /// Whether words are compared with a sign.
    pub const fn is_signed(self) -> bool {
        self as u8 & 1 == 0
    }

    /// The bits of a word.
    const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.size())
    }

    /// The order of two words.
    fn less(self, a: u64, b: u64) -> bool {
        if self.is_signed() {
            // The sign is moved to the top, where the comparison sees it.
            let top = 64 - 8 * self.size();
            ((a << top) as i64) < ((b << top) as i64)
        } else {
            a & self.mask() < b & self.mask()
        }
    }
}

/// What is done to each word with its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AtomicOp {
    /// The operand replaces it. FI_ATOMIC_WRITE.
    Write = 0,
    /// Their sum, modulo the word's size. FI_SUM.
    Sum = 1,
    /// The smaller. FI_MIN.
    Min = 2,
    /// The greater. FI_MAX.
    Max = 3,
    /// The bits of both. FI_BAND.
    And = 4,
    /// The bits of either. FI_BOR.
    Or = 5,
    /// The bits of one alone. FI_BXOR.
    Xor = 6,
}

impl AtomicOp {
    /// All of them.
    pub const ALL: [AtomicOp; 7] = [
        AtomicOp::Write,
        AtomicOp::Sum,
        AtomicOp::Min,
        AtomicOp::Max,
        AtomicOp::And,
        AtomicOp::Or,
        AtomicOp::Xor,
    ];

    /// What a word becomes; both and the result have the bits of the word only.
    pub fn apply(self, datatype: Datatype, word: u64, operand: u64) -> u64 {
        let result = match self {
            AtomicOp::Write => operand,
            AtomicOp::Sum => word.wrapping_add(operand),
            AtomicOp::Min if datatype.less(operand, word) => operand,
            AtomicOp::Max if datatype.less(word, operand) => operand,
            AtomicOp::Min | AtomicOp::Max => word,
            AtomicOp::And => word & operand,
            AtomicOp::Or => word | operand,
            AtomicOp::Xor => word ^ operand,
        };
        result & datatype.mask()
    }
}

/// What an operation on a vector of words does to each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Changes it.
    Update(AtomicOp),
    /// Changes it, and returns what it was.
    Fetch(AtomicOp),
    /// Replaces it by the operand if it equals the comparand, and returns what it was. FI_CSWAP.
    Compare,
}

impl Action {
    /// How many words of the local buffer belong to each word of the target: the operand, for
    /// [`Action::Compare`] the comparand, and if anything is returned, room for it. In this order,
    /// and each a vector.
    pub const fn vectors(self) -> usize {
        match self {
            Action::Update(_) => 1,
            Action::Fetch(_) => 2,
            Action::Compare => 3,
        }
    }

    /// Whether it returns what the words were.
    pub const fn fetches(self) -> bool {
        !matches!(self, Action::Update(_))
    }

    /// What a word becomes; [`Action::Update`] and [`Action::Fetch`] don't look at the comparand.
    pub fn apply(self, datatype: Datatype, word: u64, operand: u64, comparand: u64) -> u64 {
        match self {
            Action::Update(op) | Action::Fetch(op) => op.apply(datatype, word, operand),
            Action::Compare if (word ^ comparand) & datatype.mask() == 0 => {
                operand & datatype.mask()
            }
            Action::Compare => word & datatype.mask(),
        }
    }

    /// How many words a local buffer of `len` bytes is for; `None` if it is for no whole number of
    /// them, or for none.
    pub const fn words(self, datatype: Datatype, len: usize) -> Option<usize> {
        let each = self.vectors() * datatype.size();
        if len == 0 || len % each != 0 {
            return None;
        }
        Some(len / each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_size_and_sign() {
        let table = [
            (Datatype::I8, 1, true),
            (Datatype::U8, 1, false),
            (Datatype::I16, 2, true),
            (Datatype::U16, 2, false),
            (Datatype::I32, 4, true),
            (Datatype::U32, 4, false),
            (Datatype::I64, 8, true),
            (Datatype::U64, 8, false),
        ];
        assert_eq!(table.map(|row| row.0), Datatype::ALL);
        for (datatype, size, signed) in table {
            assert_eq!((datatype.size(), datatype.is_signed()), (size, signed));
        }
    }

    /// Every operation on bytes, against arithmetic in the language's own types.
    #[test]
    fn bytes_become_what_arithmetic_says() {
        for word in 0..=u8::MAX {
            for operand in 0..=u8::MAX {
                let (w, o) = (u64::from(word), u64::from(operand));
                let (sw, so) = (word as i8, operand as i8);
                for (op, unsigned, signed) in [
                    (AtomicOp::Write, operand, operand),
                    (
                        AtomicOp::Sum,
                        word.wrapping_add(operand),
                        word.wrapping_add(operand),
                    ),
                    (AtomicOp::Min, word.min(operand), sw.min(so) as u8),
                    (AtomicOp::Max, word.max(operand), sw.max(so) as u8),
                    (AtomicOp::And, word & operand, word & operand),
                    (AtomicOp::Or, word | operand, word | operand),
                    (AtomicOp::Xor, word ^ operand, word ^ operand),
                ] {
                    let at = (op, word, operand);
                    assert_eq!(op.apply(Datatype::U8, w, o), u64::from(unsigned), "{at:?}");
                    assert_eq!(op.apply(Datatype::I8, w, o), u64::from(signed), "{at:?}");
                }
            }
        }
    }

    #[test]
    fn wider_words_keep_their_bounds() {
        for datatype in Datatype::ALL {
            let bits = 8 * datatype.size() as u32;
            let all = u64::MAX >> (64 - bits);
            let top = 1u64 << (bits - 1);
            // The largest word and one more: nothing is carried out of it.
            assert_eq!(AtomicOp::Sum.apply(datatype, all, 1), 0, "{datatype:?}");
            // All bits are -1, or the greatest.
            let (low, high) = if datatype.is_signed() {
                (all, 0)
            } else {
                (0, all)
            };
            assert_eq!(AtomicOp::Min.apply(datatype, all, 0), low, "{datatype:?}");
            assert_eq!(AtomicOp::Max.apply(datatype, all, 0), high, "{datatype:?}");
            // The top bit alone is the least with a sign.
            let least = if datatype.is_signed() { top } else { top - 1 };
            assert_eq!(
                AtomicOp::Min.apply(datatype, top, top - 1),
                least,
                "{datatype:?}"
            );
        }
    }

    #[test]
    fn compare_replaces_what_is_equal_and_nothing_else() {
        for datatype in Datatype::ALL {
            let all = u64::MAX >> (64 - 8 * datatype.size());
            let swap = |word, new, old| Action::Compare.apply(datatype, word, new, old);
            assert_eq!(swap(5, 9, 5), 9, "{datatype:?}");
            assert_eq!(swap(5, 9, 4), 5, "{datatype:?}");
            assert_eq!(swap(all, 0, all), 0, "{datatype:?}");
            // What is beyond the word does not count.
            assert_eq!(swap(all, 0, u64::MAX), 0, "{datatype:?}");
        }
    }

    #[test]
    fn buffer_is_for_whole_words_of_each_vector() {
        let fetch = Action::Fetch(AtomicOp::Sum);
        let update = Action::Update(AtomicOp::Sum);
        for (action, datatype, len, words) in [
            (update, Datatype::U64, 8, Some(1)),
            (update, Datatype::U64, 0, None),
            (update, Datatype::U64, 12, None),
            (update, Datatype::U8, 3, Some(3)),
            (fetch, Datatype::U64, 8, None),
            (fetch, Datatype::U64, 16, Some(1)),
            (fetch, Datatype::U16, 16, Some(4)),
            (Action::Compare, Datatype::U32, 12, Some(1)),
            (Action::Compare, Datatype::U32, 8, None),
            (Action::Compare, Datatype::U8, 3, Some(1)),
        ] {
            assert_eq!(
                action.words(datatype, len),
                words,
                "{action:?} {datatype:?} {len}"
            );
        }
    }
}
