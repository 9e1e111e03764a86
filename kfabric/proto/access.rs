// SPDX-License-Identifier: GPL-2.0

//! What a peer may do to a region.
//!
//! Rights of peers only: the owner of a region may always use it locally.

use core::ops::{BitOr, BitOrAssign};

/// A set of rights; empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access(u8);

impl Access {
    /// No right at all: the region is local.
    pub const NONE: Access = Access(0);
    /// Peers may read.
    ///
    /// Source: FI_REMOTE_READ of fi_mr(3).
    pub const READ: Access = Access(1 << 0);
    /// Peers may write.
    ///
    /// Source: FI_REMOTE_WRITE of fi_mr(3).
    pub const WRITE: Access = Access(1 << 1);
    /// Peers may read and write.
    pub const READ_WRITE: Access = Access(Self::READ.0 | Self::WRITE.0);

    /// Peers may do atomics, which also tells them what the words were.
    ///
    /// A right of its own, since a device must grant it by itself (IB_ACCESS_REMOTE_ATOMIC);
    /// FI_REMOTE_READ and FI_REMOTE_WRITE stand for it in fi_mr(3).
    pub const ATOMIC: Access = Access(1 << 2);
    /// Peers may read, write and do atomics.
    pub const ALL: Access = Access(Self::READ_WRITE.0 | Self::ATOMIC.0);

    /// The rights as they stand in a [descriptor](super::descriptor).
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The rights that `bits` names; `None` if a bit has no meaning.
    pub const fn from_bits(bits: u8) -> Option<Access> {
        if bits & !Self::ALL.0 == 0 {
            Some(Access(bits))
        } else {
            None
        }
    }

    /// Whether each right of `needed` is in the set.
    pub const fn contains(self, needed: Access) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// Whether there is no right in the set.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Access {
    type Output = Access;

    fn bitor(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }
}

impl BitOrAssign for Access {
    fn bitor_assign(&mut self, other: Access) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_asks_for_every_right() {
        let table = [
            (Access::NONE, Access::READ, false),
            (Access::READ, Access::READ, true),
            (Access::READ, Access::WRITE, false),
            (Access::WRITE, Access::READ, false),
            (Access::WRITE, Access::WRITE, true),
            (Access::READ, Access::READ_WRITE, false),
            (Access::WRITE, Access::READ_WRITE, false),
            (Access::READ_WRITE, Access::READ_WRITE, true),
            (Access::READ_WRITE, Access::WRITE, true),
            (Access::NONE, Access::NONE, true),
            (Access::READ_WRITE, Access::ATOMIC, false),
            (Access::ATOMIC, Access::WRITE, false),
            (Access::ALL, Access::ATOMIC, true),
            (Access::ALL, Access::READ_WRITE, true),
        ];
        for (held, needed, expected) in table {
            assert_eq!(held.contains(needed), expected, "{held:?} {needed:?}");
        }
    }

    #[test]
    fn bits_without_meaning_are_refused() {
        for bits in 0..=u8::MAX {
            let access = Access::from_bits(bits);
            assert_eq!(access.is_some(), bits <= 7, "{bits:#x}");
            assert!(access.is_none_or(|access| access.bits() == bits));
        }
    }

    #[test]
    fn bits_on_the_wire_never_change() {
        assert_eq!(Access::READ.bits(), 1);
        assert_eq!(Access::WRITE.bits(), 2);
        assert_eq!(Access::ATOMIC.bits(), 4);
    }

    #[test]
    fn union_holds_both() {
        assert_eq!(Access::READ | Access::WRITE, Access::READ_WRITE);
        let mut access = Access::NONE;
        assert!(access.is_none());
        access |= Access::WRITE;
        assert_eq!(access, Access::WRITE);
        assert!(!access.is_none());
    }
}
