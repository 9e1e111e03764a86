// SPDX-License-Identifier: GPL-2.0

//! The header of a frame, as bytes. See Documentation/wire.rst.
//!
//! A peer's bytes are never trusted: whatever the page does not name is refused, and each kind of
//! mistake has its own [`Malformed`], so that it can be counted.
//!
//! | file | noun |
//! |---|---|
//! | [`check`](Header::parse) | what a kind's fields may be |
//! | [`crc`] | CRC32C |
//! | [`hello`] | what both sides tell first |
//! | [`kind`] | what a frame is |
//! | [`verdict`] | how an operation ended at the target |

mod check;
pub mod crc;
pub mod hello;
pub mod kind;
pub mod verdict;

pub use check::atomic_code;
pub(super) use check::{code_of, operands};
pub use hello::Hello;
pub use kind::{Flags, Kind, Reason};
pub use verdict::{Errno, Failure, Level, Outcome};

/// Bytes of a header.
pub const SIZE: usize = 64;
/// The version that is sent and understood. 2: a goodbye says what was done.
pub const VERSION: u8 = 3;
/// The longest payload of [`Kind::Announce`].
pub const MAX_ANNOUNCEMENT: u32 = 256;

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Fewer bytes than a header, or than the payload says that it has.
    Short,
    /// More bytes than the payload says that it has.
    Long,
    /// A version that is not understood.
    Version,
    /// No such kind.
    Kind,
    /// A flag without meaning, or that the kind does not have, or that does not fit the others.
    Flags,
    /// A field that must be 0 is not.
    Reserved,
    /// The payload is longer than what was told, or the kind has none, or needs one.
    Len,
    /// Offset, length and total do not fit each other, or do not fit 64 bits.
    Range,
    /// No such errno, level, outcome or reason, or they do not fit each other.
    Verdict,
    /// No such atomic, or its operands have another length.
    Atomic,
    /// A checksum is wrong. This is the link's fault, not the peer's.
    Checksum,
    /// A hello without the eight bytes it begins with.
    Magic,
    /// A hello with an incarnation of 0, or a session that can't be.
    Incarnation,
    /// A hello with a limit out of bounds.
    Limit,
    /// A hello with a name of no length or too long.
    Name,
}

impl Malformed {
    /// All of them, each at the place of its number.
    pub const ALL: [Malformed; 15] = [
        Malformed::Short,
        Malformed::Long,
        Malformed::Version,
        Malformed::Kind,
        Malformed::Flags,
        Malformed::Reserved,
        Malformed::Len,
        Malformed::Range,
        Malformed::Verdict,
        Malformed::Atomic,
        Malformed::Checksum,
        Malformed::Magic,
        Malformed::Incarnation,
        Malformed::Limit,
        Malformed::Name,
    ];

    /// The name it is counted under.
    pub const fn name(self) -> &'static str {
        match self {
            Malformed::Short => "short",
            Malformed::Long => "long",
            Malformed::Version => "version",
            Malformed::Kind => "kind",
            Malformed::Flags => "flags",
            Malformed::Reserved => "reserved",
            Malformed::Len => "len",
            Malformed::Range => "range",
            Malformed::Verdict => "verdict",
            Malformed::Atomic => "atomic",
            Malformed::Checksum => "checksum",
            Malformed::Magic => "magic",
            Malformed::Incarnation => "incarnation",
            Malformed::Limit => "limit",
            Malformed::Name => "name",
        }
    }
}

/// A header. The fields are those of Documentation/wire.rst; what a kind does not have is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Flags.
    pub flags: Flags,
    /// Bytes of payload.
    pub len: u32,
    /// The frame's number, if its kind is sequenced; else that of the last one that was.
    pub seq: u32,
    /// The number of the last frame that its sender has executed.
    pub ack: u32,
    /// The initiator's number of the operation.
    pub op: u32,
    /// The receive context.
    pub context: u16,
    /// An errno, a reason, or what an atomic does.
    pub code: u16,
    /// A remote key or a tag.
    pub key: u64,
    /// Where the payload belongs.
    pub offset: u64,
    /// Bytes of the whole operation.
    pub total: u64,
    /// Remote CQ data, and others: see the kinds.
    pub data: u64,
    /// CRC32C of the payload, if checksums are used.
    pub payload_crc: u32,
}

impl Header {
    /// A header with all fields 0.
    pub const fn new(kind: Kind) -> Header {
        Header {
            kind,
            flags: Flags::NONE,
            len: 0,
            seq: 0,
            ack: 0,
            op: 0,
            context: 0,
            code: 0,
            key: 0,
            offset: 0,
            total: 0,
            data: 0,
            payload_crc: 0,
        }
    }

    /// Reads a header whose payload may have `limit` bytes, and checks all that can be without
    /// knowing the session.
    ///
    /// `crc`: whether the session uses checksums; a hello always has them. The payload's is to be
    /// compared with `payload_crc` by the caller, once it is there.
    pub fn parse(bytes: &[u8], limit: u32, crc: bool) -> Result<Header, Malformed> {
        let bytes: &[u8; SIZE] = match bytes.len() {
            SIZE => bytes.try_into().map_err(|_| Malformed::Short)?,
            0..SIZE => return Err(Malformed::Short),
            _ => return Err(Malformed::Long),
        };
        // Before anything is believed. A hello is one by its first bytes, whatever they are worth.
        let crc = crc || bytes[1] == Kind::Hello as u8;
        if crc && crc::of(&[&bytes[..SIZE - 4], &[0; 4]]) != u32_at(bytes, 60) {
            return Err(Malformed::Checksum);
        }
        if !crc && u64_at(bytes, 56) != 0 {
            return Err(Malformed::Reserved);
        }
        if bytes[0] != VERSION {
            return Err(Malformed::Version);
        }
        let header = Header {
            kind: Kind::from_byte(bytes[1]).ok_or(Malformed::Kind)?,
            flags: Flags::from_bits(u16_at(bytes, 2)).ok_or(Malformed::Flags)?,
            len: u32_at(bytes, 4),
            seq: u32_at(bytes, 8),
            ack: u32_at(bytes, 12),
            op: u32_at(bytes, 16),
            context: u16_at(bytes, 20),
            code: u16_at(bytes, 22),
            key: u64_at(bytes, 24),
            offset: u64_at(bytes, 32),
            total: u64_at(bytes, 40),
            data: u64_at(bytes, 48),
            payload_crc: u32_at(bytes, 56),
        };
        if header.len > limit {
            return Err(Malformed::Len);
        }
        check::check(&header)?;
        Ok(header)
    }

    /// The bytes; `crc`: with checksums, where `payload_crc` is filled in already.
    pub fn emit(&self, crc: bool) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[0] = VERSION;
        bytes[1] = self.kind as u8;
        bytes[2..4].copy_from_slice(&self.flags.bits().to_le_bytes());
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.seq.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.ack.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.op.to_le_bytes());
        bytes[20..22].copy_from_slice(&self.context.to_le_bytes());
        bytes[22..24].copy_from_slice(&self.code.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.key.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.total.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.data.to_le_bytes());
        if crc || self.kind == Kind::Hello {
            bytes[56..60].copy_from_slice(&self.payload_crc.to_le_bytes());
            let crc = crc::of(&[&bytes]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }
}

/// The number at `at`, or 0 beyond the end, which no caller asks for.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// As [`u16_at`].
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// As [`u16_at`].
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::testing;
    use super::*;

    const LIMIT: u32 = 4096;

    fn parsed(header: &Header) -> Result<Header, Malformed> {
        let plain = Header::parse(&header.emit(false), LIMIT, false);
        let summed = Header::parse(&header.emit(true), LIMIT, true);
        assert_eq!(plain, summed);
        plain
    }

    /// A good header of each kind.
    pub(in super::super) fn good(kind: Kind) -> Header {
        let mut h = Header::new(kind);
        if kind != Kind::Hello {
            (h.seq, h.ack) = (7, 3);
        }
        if kind.is_about_an_op() {
            h.op = 0x0002_0001;
        }
        match kind {
            Kind::Hello => h.len = 98,
            Kind::Ack
            | Kind::Ping
            | Kind::Pong
            | Kind::Idle
            | Kind::Cancel
            | Kind::Parked
            | Kind::Cts
            | Kind::Nop => (),
            Kind::Grant => (h.context, h.total, h.data) = (2, 1 << 40, 9),
            Kind::Bye => (h.code, h.data) = (Reason::Closed as u16, 4),
            Kind::Send => (h.context, h.len, h.total) = (1, 64, 64),
            Kind::Rts => (h.context, h.total) = (1, 64),
            Kind::Data => (h.len, h.offset, h.total) = (8, 8, 32),
            Kind::Write => {
                h.flags = Flags::FIRST;
                (h.key, h.len, h.offset, h.total) = (5, 8, 100, 32);
            }
            Kind::Commit | Kind::Read => (h.key, h.offset, h.total) = (5, 100, 1 << 33),
            Kind::Atomic => {
                // A fetch of the sum of 64 bits without sign.
                (h.key, h.len, h.offset, h.total, h.code) = (5, 16, 8, 16, 0x117);
            }
            Kind::Announce => (h.key, h.len) = (5, 40),
            Kind::Withdraw => h.key = 5,
            Kind::Done => (h.total, h.data) = (10, 0x101),
            Kind::ReadData => (h.len, h.offset, h.total) = (8, 8, 32),
            Kind::AtomicData => (h.len, h.total) = (8, 8),
        }
        h
    }

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        for kind in Kind::ALL {
            let header = good(kind);
            assert_eq!(parsed(&header), Ok(header), "{kind:?}");
        }
    }

    #[test]
    fn bytes_on_the_wire_never_change() {
        let mut header = good(Kind::Write);
        header.data = 0;
        let bytes = header.emit(false);
        let mut expected = [0; SIZE];
        expected[..4].copy_from_slice(&[3, 19, 1, 0]);
        expected[4] = 8;
        expected[8] = 7;
        expected[12] = 3;
        expected[16..20].copy_from_slice(&[1, 0, 2, 0]);
        expected[24] = 5;
        expected[32] = 100;
        expected[40] = 32;
        assert_eq!(bytes, expected);
    }

    #[test]
    fn length_of_a_header_is_exact() {
        let bytes = good(Kind::Ack).emit(false);
        assert_eq!(
            Header::parse(&bytes[..63], LIMIT, false),
            Err(Malformed::Short)
        );
        assert_eq!(Header::parse(&[], LIMIT, false), Err(Malformed::Short));
        let mut long = bytes.to_vec();
        long.push(0);
        assert_eq!(Header::parse(&long, LIMIT, false), Err(Malformed::Long));
    }

    #[test]
    fn payload_is_at_most_what_was_told() {
        let mut header = good(Kind::Send);
        (header.len, header.total) = (LIMIT, LIMIT.into());
        assert!(parsed(&header).is_ok());
        (header.len, header.total) = (LIMIT + 1, (LIMIT + 1).into());
        assert_eq!(parsed(&header), Err(Malformed::Len));
    }

    #[test]
    fn each_changed_bit_is_seen_by_the_checksum() {
        for kind in [Kind::Write, Kind::Ack] {
            let bytes = good(kind).emit(true);
            for bit in 0..8 * SIZE {
                let mut wrong = bytes;
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(
                    Header::parse(&wrong, LIMIT, true),
                    Err(Malformed::Checksum),
                    "{kind:?} bit {bit}"
                );
            }
        }
        // A hello has it even where the session has not.
        let mut hello = good(Kind::Hello).emit(false);
        assert!(Header::parse(&hello, LIMIT, false).is_ok());
        hello[20] ^= 1;
        assert_eq!(
            Header::parse(&hello, LIMIT, false),
            Err(Malformed::Checksum)
        );
    }

    #[test]
    fn checksum_where_none_was_agreed_is_refused() {
        let bytes = good(Kind::Ack).emit(true);
        assert_eq!(
            Header::parse(&bytes, LIMIT, false),
            Err(Malformed::Reserved)
        );
    }

    #[test]
    fn random_bytes_are_refused_or_read_as_they_are() {
        let mut rng = testing::rng();
        let mut good_ones = 0;
        for round in 0..200_000 {
            let mut bytes = good(Kind::ALL[round % Kind::ALL.len()]).emit(false);
            for _ in 0..rng.below(4) {
                bytes[rng.below(64) as usize] = rng.next_u64() as u8;
            }
            if let Ok(header) = Header::parse(&bytes, LIMIT, false) {
                assert_eq!(header.emit(false), bytes);
                good_ones += 1;
            }
        }
        assert!(good_ones > 1000, "{good_ones}");
    }
}
