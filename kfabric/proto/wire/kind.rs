// SPDX-License-Identifier: GPL-2.0

//! What a frame is: its kind, its flags, and the reason of a goodbye.

use core::ops::{BitOr, BitOrAssign};

/// The kind of a frame. Documentation/wire.rst has their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first frame of a link.
    Hello = 1,
    /// Only acknowledges.
    Ack = 2,
    /// Asks whether anybody is there.
    Ping = 3,
    /// Somebody is.
    Pong = 4,
    /// Credit of a receive context.
    Grant = 5,
    /// The session is over.
    Bye = 6,
    /// Asks for the end of a session that nobody uses.
    Idle = 7,
    /// A message.
    Send = 16,
    /// A message is announced.
    Rts = 17,
    /// A piece of a message that was announced and asked for.
    Data = 18,
    /// A piece of a write.
    Write = 19,
    /// A range is to be made durable.
    Commit = 20,
    /// A range is to be read.
    Read = 21,
    /// Words are to be changed at once.
    Atomic = 22,
    /// A message that waits is withdrawn.
    Cancel = 23,
    /// What a device calls a key.
    Announce = 24,
    /// What was announced is void.
    Withdraw = 25,
    /// It waits for a receive.
    Parked = 32,
    /// The announced message may come.
    Cts = 33,
    /// The end of an operation.
    Done = 34,
    /// A piece of what was read.
    ReadData = 35,
    /// What the words were.
    AtomicData = 36,
    /// Nothing.
    Nop = 37,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 23] = [
        Kind::Hello,
        Kind::Ack,
        Kind::Ping,
        Kind::Pong,
        Kind::Grant,
        Kind::Bye,
        Kind::Idle,
        Kind::Send,
        Kind::Rts,
        Kind::Data,
        Kind::Write,
        Kind::Commit,
        Kind::Read,
        Kind::Atomic,
        Kind::Cancel,
        Kind::Announce,
        Kind::Withdraw,
        Kind::Parked,
        Kind::Cts,
        Kind::Done,
        Kind::ReadData,
        Kind::AtomicData,
        Kind::Nop,
    ];

    /// The kind of that number.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|&kind| kind as u8 == byte)
    }

    /// Whether such a frame is the first of its operation.
    pub const fn begins(self, flags: Flags) -> bool {
        match self {
            Kind::Send | Kind::Rts | Kind::Commit | Kind::Read | Kind::Atomic => true,
            Kind::Announce | Kind::Withdraw => true,
            Kind::Write => flags.contains(Flags::FIRST),
            _ => false,
        }
    }

    /// Whether frames of it are counted, kept and acknowledged.
    pub const fn is_sequenced(self) -> bool {
        self as u8 >= Kind::Send as u8
    }

    /// Whether it is about the operation of its receiver, not of its sender.
    ///
    /// The receiver of a reply looks at its kind before its `ack`.
    pub const fn is_reply(self) -> bool {
        self as u8 >= Kind::Parked as u8
    }

    /// Whether it names an operation.
    pub const fn is_about_an_op(self) -> bool {
        self.is_sequenced() && !matches!(self, Kind::Nop)
    }
}

/// A set of flags; empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// The first piece.
    pub const FIRST: Flags = Flags(1 << 0);
    /// The last piece.
    pub const LAST: Flags = Flags(1 << 1);
    /// `key` is a tag.
    pub const TAGGED: Flags = Flags(1 << 2);
    /// `data` is remote CQ data.
    pub const DATA: Flags = Flags(1 << 3);
    /// Level committed.
    pub const COMMIT: Flags = Flags(1 << 4);
    /// The sender waits for an acknowledgement.
    pub const ACK_NOW: Flags = Flags(1 << 5);

    /// As bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The flags that `bits` names; `None` if a bit has no meaning.
    pub const fn from_bits(bits: u16) -> Option<Flags> {
        if bits < 1 << 6 {
            Some(Flags(bits))
        } else {
            None
        }
    }

    /// Whether each flag of `needed` is in the set.
    pub const fn contains(self, needed: Flags) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// Those of both sets, for constants; else `|`.
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The set, or nothing.
    pub const fn when(self, condition: bool) -> Flags {
        if condition {
            self
        } else {
            Flags::NONE
        }
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        self.union(other)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        *self = self.union(other);
    }
}

/// Why somebody says goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Reason {
    /// The endpoint is closed.
    Closed = 1,
    /// Nothing was said for long.
    Idle = 2,
    /// The peer broke a rule.
    Protocol = 3,
    /// There is no version that both understand.
    Version = 4,
    /// Nobody has the name that was wanted.
    NoEndpoint = 5,
    /// There is no room for another peer.
    Busy = 6,
    /// The device is gone.
    DeviceGone = 7,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 7] = [
        Reason::Closed,
        Reason::Idle,
        Reason::Protocol,
        Reason::Version,
        Reason::NoEndpoint,
        Reason::Busy,
        Reason::DeviceGone,
    ];

    /// The reason of that number.
    pub fn from_code(code: u16) -> Option<Reason> {
        Reason::ALL
            .into_iter()
            .find(|&reason| reason as u16 == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_meaning_are_no_kinds() {
        let known = (0..=u8::MAX).filter_map(Kind::from_byte).count();
        assert_eq!(known, Kind::ALL.len());
        for kind in Kind::ALL {
            assert_eq!(Kind::from_byte(kind as u8), Some(kind));
        }
        for byte in [0, 8, 15, 26, 31, 38, 255] {
            assert_eq!(Kind::from_byte(byte), None, "{byte}");
        }
    }

    #[test]
    fn kinds_are_in_three_groups() {
        let count = |which: fn(Kind) -> bool| Kind::ALL.into_iter().filter(|&k| which(k)).count();
        assert_eq!(count(|kind| !kind.is_sequenced()), 7);
        assert_eq!(count(Kind::is_reply), 6);
        assert_eq!(count(Kind::is_about_an_op), 15);
    }

    #[test]
    fn flags_without_meaning_are_refused() {
        for bits in 0..=u16::MAX {
            assert_eq!(Flags::from_bits(bits).is_some(), bits <= 63, "{bits:#x}");
        }
    }

    #[test]
    fn reasons_have_their_numbers() {
        for code in 0..=100 {
            let reason = Reason::from_code(code);
            assert_eq!(reason.is_some(), (1..=7).contains(&code), "{code}");
            assert!(reason.is_none_or(|reason| reason as u16 == code));
        }
    }
}
