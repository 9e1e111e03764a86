// SPDX-License-Identifier: GPL-2.0

//! What a region tells its peers, as bytes.
//!
//! A peer needs it to name the region, to check range and rights before it posts, and to know what
//! a commit means there. It says nothing about where the region's memory is.
//!
//! Version 1: 32 bytes, numbers in little endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | rights: bit 0 remote read, bit 1 remote write, bit 2 remote atomics; others 0 |
//! | 2 | 1 | flags: bit 0 persistent; others 0 |
//! | 3 | 1 | flush method: 0 none, 1 responder; 2 is kept for native |
//! | 4 | 1 | commit unit, log2 of bytes; 0 if not persistent |
//! | 5 | 1 | tear unit, log2 of bytes; 0 if not persistent |
//! | 6 | 1 | line, log2 of bytes; 0 if not persistent |
//! | 7 | 1 | 0 |
//! | 8 | 8 | key, never 0 |
//! | 16 | 8 | length of the region in bytes |
//! | 24 | 8 | base, 0: offsets start at 0 |
//!
//! A receiver refuses every value that this table does not name, so each has one encoding and none
//! can gain a meaning unnoticed; a new meaning is a new version. The first byte tells the version
//! in all of them, their length may differ. There is no checksum: the link has one.

use super::access::Access;
use super::key::Key;

/// Bytes of a descriptor.
pub const SIZE: usize = 32;
/// The version that is sent and understood.
pub const VERSION: u8 = 1;

const PERSISTENT: u8 = 1 << 0;
const FLUSH_NONE: u8 = 0;
const FLUSH_RESPONDER: u8 = 1;
/// No unit is larger than 64 KiB.
const MAX_LOG2: u8 = 16;

/// Why bytes are no descriptor, or why there can't be one of that content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Fewer bytes than the version has.
    Short,
    /// More bytes than the version has.
    Long,
    /// A version that is not understood.
    Version(u8),
    /// A bit or a byte that must be 0 is not.
    Reserved,
    /// A flush method that is not understood.
    Flush(u8),
    /// Persistent, but nobody can make it durable.
    PersistentWithoutFlush,
    /// Volatile, but with a flush method: a commit would promise too much.
    FlushWithoutPersistent,
    /// A unit that is no power of two, too large, or given for a volatile region; or lines that
    /// are torn into pieces larger than themselves.
    Unit,
    /// No right for peers: they have no use for it.
    NoRights,
    /// The key is [`Key::NONE`].
    NoKey,
}

/// How bytes of a persistent region become durable.
///
/// A native method, where the peer's device flushes on its own, will be a new variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// The software of the host that owns the region writes back and fences, then answers.
    Responder,
}

/// What a peer may rely on after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    flush: Flush,
    commit_log2: u8,
    tear_log2: u8,
    line_log2: u8,
}

impl Persistence {
    /// Bytes can be committed one by one, 8 are never torn, lines have 64: memory of today.
    pub const fn byte_granular(flush: Flush) -> Persistence {
        Persistence {
            flush,
            commit_log2: 0,
            tear_log2: 3,
            line_log2: 6,
        }
    }

    /// Sizes in bytes: `commit`, `tear` and `line` as the functions of these names tell.
    ///
    /// # Errors
    ///
    /// [`Malformed::Unit`]: one is no power of two or above 64 KiB, or `tear` is above `line`.
    pub fn new(flush: Flush, commit: u32, tear: u32, line: u32) -> Result<Self, Malformed> {
        let log2 = |bytes: u32| {
            if bytes.is_power_of_two() {
                // At most 31.
                Ok(bytes.trailing_zeros() as u8)
            } else {
                Err(Malformed::Unit)
            }
        };
        Self::from_log2(flush, log2(commit)?, log2(tear)?, log2(line)?)
    }

    fn from_log2(flush: Flush, commit: u8, tear: u8, line: u8) -> Result<Self, Malformed> {
        if commit > MAX_LOG2 || tear > MAX_LOG2 || line > MAX_LOG2 || tear > line {
            return Err(Malformed::Unit);
        }
        Ok(Persistence {
            flush,
            commit_log2: commit,
            tear_log2: tear,
            line_log2: line,
        })
    }

    /// Who makes a range durable.
    pub const fn flush(self) -> Flush {
        self.flush
    }

    /// A commit covers multiples of this many bytes; 1: exactly the bytes that were asked for.
    pub const fn commit(self) -> u32 {
        1 << self.commit_log2
    }

    /// A power cut leaves this many aligned bytes old or new, never mixed, if they were stored at
    /// once.
    pub const fn tear(self) -> u32 {
        1 << self.tear_log2
    }

    /// What is written back at a time, in bytes: bytes near a committed range may become durable
    /// with it.
    pub const fn line(self) -> u32 {
        1 << self.line_log2
    }
}

/// A region as its peers know it.
///
/// Whatever exists as a value can be emitted, and what was emitted can be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    key: Key,
    len: u64,
    access: Access,
    persistence: Option<Persistence>,
}

impl Descriptor {
    /// Describes a region of `len` bytes; volatile if `persistence` is `None`.
    ///
    /// # Errors
    ///
    /// - [`Malformed::NoKey`]: `key` is [`Key::NONE`].
    /// - [`Malformed::NoRights`]: `access` is empty.
    pub fn new(
        key: Key,
        len: u64,
        access: Access,
        persistence: Option<Persistence>,
    ) -> Result<Descriptor, Malformed> {
        if access.is_none() {
            return Err(Malformed::NoRights);
        }
        if key == Key::NONE {
            return Err(Malformed::NoKey);
        }
        Ok(Descriptor {
            key,
            len,
            access,
            persistence,
        })
    }

    /// The key that names the region.
    pub const fn key(&self) -> Key {
        self.key
    }

    /// Length of the region in bytes; offsets start at 0.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the region has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What peers may do.
    pub const fn access(&self) -> Access {
        self.access
    }

    /// What survives a power cut; `None`: nothing, and a commit is refused.
    pub const fn persistence(&self) -> Option<Persistence> {
        self.persistence
    }

    /// Reads what a peer sent: all of `bytes`, nothing but a descriptor.
    ///
    /// # Errors
    ///
    /// [`Malformed`] names the first rule that the bytes break: the version, then the length, then
    /// what must be 0, then what contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Descriptor, Malformed> {
        match bytes.first() {
            None => return Err(Malformed::Short),
            Some(&VERSION) => {}
            Some(&version) => return Err(Malformed::Version(version)),
        }
        let bytes: &[u8; SIZE] = match bytes.len() {
            ..SIZE => return Err(Malformed::Short),
            _ => bytes.try_into().map_err(|_| Malformed::Long)?,
        };
        let [_, rights, flags, flush, commit, tear, line, zero, ..] = *bytes;

        let access = Access::from_bits(rights).ok_or(Malformed::Reserved)?;
        if flags & !PERSISTENT != 0 || zero != 0 || le64(bytes, 24) != 0 {
            return Err(Malformed::Reserved);
        }
        let persistence = match (flags & PERSISTENT != 0, flush) {
            (false, FLUSH_NONE) if commit | tear | line != 0 => return Err(Malformed::Unit),
            (false, FLUSH_NONE) => None,
            (true, FLUSH_NONE) => return Err(Malformed::PersistentWithoutFlush),
            (true, FLUSH_RESPONDER) => Some(Persistence::from_log2(
                Flush::Responder,
                commit,
                tear,
                line,
            )?),
            (false, FLUSH_RESPONDER) => return Err(Malformed::FlushWithoutPersistent),
            (_, other) => return Err(Malformed::Flush(other)),
        };
        let key = Key::from_raw(le64(bytes, 8));
        Descriptor::new(key, le64(bytes, 16), access, persistence)
    }

    /// The bytes to send.
    pub fn emit(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[0] = VERSION;
        bytes[1] = self.access.bits();
        if let Some(persistence) = self.persistence {
            bytes[2] = PERSISTENT;
            bytes[3] = match persistence.flush {
                Flush::Responder => FLUSH_RESPONDER,
            };
            bytes[4] = persistence.commit_log2;
            bytes[5] = persistence.tear_log2;
            bytes[6] = persistence.line_log2;
        }
        bytes[8..16].copy_from_slice(&self.key.raw().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }
}

/// The number in the 8 bytes from `at` on.
fn le64(bytes: &[u8; SIZE], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    const KEY: Key = Key::from_raw(0x8877_6655_4433_2211);

    fn persistent() -> Descriptor {
        let persistence = Persistence::byte_granular(Flush::Responder);
        Descriptor::new(KEY, 0x0123_4567, Access::READ_WRITE, Some(persistence)).unwrap()
    }

    fn volatile() -> Descriptor {
        Descriptor::new(KEY, 1 << 40, Access::READ, None).unwrap()
    }

    #[test]
    fn bytes_on_the_wire_never_change() {
        #[rustfmt::skip]
        let expected = [
            1, 3, 1, 1, 0, 3, 6, 0,
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
            0x67, 0x45, 0x23, 0x01, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(persistent().emit(), expected);
        #[rustfmt::skip]
        let expected = [
            1, 1, 0, 0, 0, 0, 0, 0,
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
            0, 0, 0, 0, 0, 1, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(volatile().emit(), expected);
    }

    #[test]
    fn emitted_bytes_parse_to_the_same() {
        for persistence in [
            None,
            Some(Persistence::byte_granular(Flush::Responder)),
            Some(Persistence::new(Flush::Responder, 512, 1, 128).unwrap()),
            Some(Persistence::new(Flush::Responder, 65536, 65536, 65536).unwrap()),
        ] {
            for access in [Access::READ, Access::WRITE, Access::ATOMIC, Access::ALL] {
                for len in [0, 1, 4096, u64::MAX] {
                    let described = Descriptor::new(KEY, len, access, persistence).unwrap();
                    assert_eq!(Descriptor::parse(&described.emit()), Ok(described));
                    assert_eq!(described.len(), len);
                    assert_eq!(described.is_empty(), len == 0);
                    assert_eq!(described.access(), access);
                    assert_eq!(described.persistence(), persistence);
                    assert_eq!(described.key(), KEY);
                }
            }
        }
    }

    #[test]
    fn each_broken_rule_has_its_own_error() {
        use Malformed::*;
        let table: &[(&str, Descriptor, usize, u8, Malformed)] = &[
            ("version 0", persistent(), 0, 0, Version(0)),
            ("version 2", persistent(), 0, 2, Version(2)),
            ("version 255", persistent(), 0, 255, Version(255)),
            ("no rights", persistent(), 1, 0, NoRights),
            ("fourth right", persistent(), 1, 15, Reserved),
            ("top right", persistent(), 1, 0x81, Reserved),
            ("second flag", persistent(), 2, 3, Reserved),
            ("top flag", persistent(), 2, 0x81, Reserved),
            ("no flush", persistent(), 3, 0, PersistentWithoutFlush),
            ("native flush", persistent(), 3, 2, Flush(2)),
            ("flush 255", persistent(), 3, 255, Flush(255)),
            (
                "flush of volatile",
                volatile(),
                3,
                1,
                FlushWithoutPersistent,
            ),
            ("native flush of volatile", volatile(), 3, 2, Flush(2)),
            (
                "persistent without flush",
                volatile(),
                2,
                1,
                PersistentWithoutFlush,
            ),
            ("commit unit above 64 KiB", persistent(), 4, 17, Unit),
            ("tear above line", persistent(), 5, 7, Unit),
            ("line below tear", persistent(), 6, 2, Unit),
            ("line above 64 KiB", persistent(), 6, 17, Unit),
            ("commit unit of volatile", volatile(), 4, 1, Unit),
            ("tear of volatile", volatile(), 5, 1, Unit),
            ("line of volatile", volatile(), 6, 1, Unit),
            ("byte 7", persistent(), 7, 1, Reserved),
            ("lowest byte of base", persistent(), 24, 1, Reserved),
            ("highest byte of base", persistent(), 31, 0x80, Reserved),
        ];
        for &(what, descriptor, at, value, error) in table {
            let mut bytes = descriptor.emit();
            bytes[at] = value;
            assert_eq!(Descriptor::parse(&bytes), Err(error), "{what}");
        }
    }

    #[test]
    fn both_sides_of_each_unit_limit() {
        let unit = |at: usize, value: u8| {
            let mut bytes = persistent().emit();
            bytes[at] = value;
            Descriptor::parse(&bytes).is_ok()
        };
        assert!(unit(4, 16) && !unit(4, 17));
        assert!(unit(5, 6) && !unit(5, 7));
        assert!(unit(6, 3) && !unit(6, 2));
        assert!(unit(6, 16) && !unit(6, 17));
        assert!(!unit(4, 255) && !unit(5, 255) && !unit(6, 255));
    }

    #[test]
    fn key_of_none_is_refused() {
        let mut bytes = volatile().emit();
        bytes[8..16].fill(0);
        assert_eq!(Descriptor::parse(&bytes), Err(Malformed::NoKey));
        bytes[15] = 1;
        assert!(Descriptor::parse(&bytes).is_ok());
    }

    #[test]
    fn every_other_length_is_refused() {
        let mut long = persistent().emit().to_vec();
        for len in 0..SIZE {
            assert_eq!(
                Descriptor::parse(&long[..len]),
                Err(Malformed::Short),
                "{len}"
            );
        }
        assert!(Descriptor::parse(&long).is_ok());
        for _ in 0..40 {
            long.push(0);
            assert_eq!(Descriptor::parse(&long), Err(Malformed::Long));
        }
    }

    #[test]
    fn unknown_version_is_told_before_its_length() {
        assert_eq!(Descriptor::parse(&[2]), Err(Malformed::Version(2)));
        assert_eq!(Descriptor::parse(&[2; 64]), Err(Malformed::Version(2)));
    }

    #[test]
    fn bad_content_cannot_be_described() {
        let new = |key, access| Descriptor::new(key, 1, access, None).map(|_| ());
        assert_eq!(new(Key::NONE, Access::READ), Err(Malformed::NoKey));
        assert_eq!(new(KEY, Access::NONE), Err(Malformed::NoRights));
        let table = [
            ((1, 8, 64), true),
            ((1, 64, 64), true),
            ((1, 128, 64), false),
            ((0, 8, 64), false),
            ((1, 0, 64), false),
            ((1, 8, 0), false),
            ((3, 8, 64), false),
            ((1, 12, 64), false),
            ((1, 8, 96), false),
            ((65536, 8, 64), true),
            ((131072, 8, 64), false),
            ((1 << 31, 8, 64), false),
        ];
        for ((commit, tear, line), expected) in table {
            let persistence = Persistence::new(Flush::Responder, commit, tear, line);
            assert_eq!(persistence.is_ok(), expected, "{commit} {tear} {line}");
        }
    }

    #[test]
    fn units_come_back_in_bytes() {
        let persistence = Persistence::new(Flush::Responder, 256, 16, 128).unwrap();
        assert_eq!(persistence.commit(), 256);
        assert_eq!(persistence.tear(), 16);
        assert_eq!(persistence.line(), 128);
        assert_eq!(persistence.flush(), Flush::Responder);
        let byte = Persistence::byte_granular(Flush::Responder);
        assert_eq!((byte.commit(), byte.tear(), byte.line()), (1, 8, 64));
    }

    #[test]
    fn whatever_parses_emits_the_same_bytes() {
        let mut rng = testing::rng();
        let mut parsed = 0;
        for _ in 0..200_000 {
            let start = if rng.one_in(2) {
                persistent()
            } else {
                volatile()
            };
            let mut bytes = start.emit();
            for _ in 0..rng.below(4) {
                bytes[rng.below(SIZE as u64) as usize] = rng.next_u64() as u8 >> rng.below(8);
            }
            if let Ok(descriptor) = Descriptor::parse(&bytes) {
                assert_eq!(descriptor.emit(), bytes);
                parsed += 1;
            }
        }
        assert!(parsed > 1000, "only {parsed} inputs were good ones");
    }

    #[test]
    fn noise_of_any_length_never_panics() {
        let mut rng = testing::rng();
        let mut noise = [0; 80];
        for _ in 0..100_000 {
            rng.fill(&mut noise);
            noise[0] = VERSION;
            let _ = Descriptor::parse(&noise[..rng.below(81) as usize]);
        }
    }
}
