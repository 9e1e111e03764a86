// SPDX-License-Identifier: GPL-2.0

//! What both sides tell first: who they are, what they take, and where to resume.

use super::{u16_at, u32_at, u64_at, Malformed};

/// Bytes before the names.
pub const FIXED: usize = 96;
/// The longest name.
pub const MAX_NAME: usize = 64;
/// The most bytes of a hello.
pub const MAX: usize = FIXED + 2 * MAX_NAME;
/// What it begins with.
pub const MAGIC: [u8; 8] = *b"kfabric\0";
/// Frame limits are in these bounds.
pub const FRAME_LIMITS: (u32, u32) = (512, 1 << 24);
/// The fewest operations that a side allows its peer: what may be posted before the hello.
pub const MIN_OPS: u16 = 16;
/// The versions that are understood: one.
pub const VERSIONS: (u16, u16) = (super::VERSION as u16, super::VERSION as u16);
/// The capability of checksums.
pub const CAP_CRC: u32 = 1 << 0;

/// A name: bytes that mean something to the provider.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    len: u8,
    bytes: [u8; MAX_NAME],
}

impl Name {
    /// The name of these bytes; `None` if there are none, or too many.
    pub fn new(bytes: &[u8]) -> Option<Name> {
        if bytes.is_empty() {
            return None;
        }
        let mut name = Name {
            len: u8::try_from(bytes.len()).ok()?,
            bytes: [0; MAX_NAME],
        };
        name.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(name)
    }

    /// The bytes. Names are compared by them.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:02x?}", self.as_bytes())
    }
}

/// What a side takes from its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest payload of a frame, in bytes.
    pub frame: u32,
    /// Longest eager message, in bytes; at most the frame limit.
    pub eager: u32,
    /// Longest message, in bytes.
    pub message: u64,
    /// Operations that the peer may have outstanding; at least [`MIN_OPS`].
    pub ops: u16,
    /// Receive contexts; not 0.
    pub contexts: u16,
}

/// A hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest version that is understood.
    pub versions: (u16, u16),
    /// Capabilities; those without meaning are kept.
    pub caps: u32,
    /// The sender's incarnation; not 0.
    pub incarnation: u64,
    /// The incarnation of the receiver that the sender has a session with, or 0.
    pub expects: u64,
    /// The number of the last frame of that session that it has executed.
    pub last: u32,
    /// Which link of the two this is.
    pub generation: u32,
    /// What the sender takes.
    pub limits: Limits,
    /// The sender's name.
    pub from: Name,
    /// Whom it wants.
    pub to: Name,
}

impl Hello {
    /// Reads the payload of a hello.
    pub fn parse(bytes: &[u8]) -> Result<Hello, Malformed> {
        if bytes.len() < FIXED {
            return Err(Malformed::Short);
        }
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(Malformed::Magic);
        }
        let versions = (u16_at(bytes, 8), u16_at(bytes, 10));
        if versions.0 == 0 || versions.0 > versions.1 {
            return Err(Malformed::Version);
        }
        let (from, to) = (usize::from(bytes[62]), usize::from(bytes[63]));
        match bytes.len().checked_sub(FIXED + from + to) {
            None => return Err(Malformed::Short),
            Some(0) => (),
            Some(_) => return Err(Malformed::Long),
        }
        let name = |at: usize, len: usize| {
            let bytes = bytes.get(at..at + len).ok_or(Malformed::Short)?;
            Name::new(bytes).ok_or(Malformed::Name)
        };
        let hello = Hello {
            versions,
            caps: u32_at(bytes, 12),
            incarnation: u64_at(bytes, 16),
            expects: u64_at(bytes, 24),
            last: u32_at(bytes, 32),
            generation: u32_at(bytes, 36),
            limits: Limits {
                frame: u32_at(bytes, 40),
                eager: u32_at(bytes, 44),
                message: u64_at(bytes, 48),
                ops: u16::try_from(u32_at(bytes, 56)).map_err(|_| Malformed::Limit)?,
                contexts: u16_at(bytes, 60),
            },
            from: name(FIXED, from)?,
            to: name(FIXED + from, to)?,
        };
        if bytes[64..FIXED].iter().any(|&byte| byte != 0) {
            return Err(Malformed::Reserved);
        }
        if hello.incarnation == 0 || (hello.expects == 0 && hello.last != 0) {
            return Err(Malformed::Incarnation);
        }
        if !hello.limits.are_sound() {
            return Err(Malformed::Limit);
        }
        Ok(hello)
    }

    /// Writes the payload, and says how many bytes it has.
    pub fn emit(&self, out: &mut [u8; MAX]) -> usize {
        let (from, to) = (self.from.as_bytes(), self.to.as_bytes());
        *out = [0; MAX];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.versions.0.to_le_bytes());
        out[10..12].copy_from_slice(&self.versions.1.to_le_bytes());
        out[12..16].copy_from_slice(&self.caps.to_le_bytes());
        out[16..24].copy_from_slice(&self.incarnation.to_le_bytes());
        out[24..32].copy_from_slice(&self.expects.to_le_bytes());
        out[32..36].copy_from_slice(&self.last.to_le_bytes());
        out[36..40].copy_from_slice(&self.generation.to_le_bytes());
        out[40..44].copy_from_slice(&self.limits.frame.to_le_bytes());
        out[44..48].copy_from_slice(&self.limits.eager.to_le_bytes());
        out[48..56].copy_from_slice(&self.limits.message.to_le_bytes());
        out[56..60].copy_from_slice(&u32::from(self.limits.ops).to_le_bytes());
        out[60..62].copy_from_slice(&self.limits.contexts.to_le_bytes());
        // Names have at most 64 bytes.
        out[62] = from.len() as u8;
        out[63] = to.len() as u8;
        let names = out[FIXED..].iter_mut();
        for (place, byte) in names.zip(from.iter().chain(to)) {
            *place = *byte;
        }
        FIXED + from.len() + to.len()
    }
}

impl Limits {
    /// Whether they are in their bounds.
    pub const fn are_sound(&self) -> bool {
        self.frame >= FRAME_LIMITS.0
            && self.frame <= FRAME_LIMITS.1
            && self.eager <= self.frame
            && self.ops >= MIN_OPS
            && self.contexts > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: VERSIONS,
            caps: CAP_CRC,
            incarnation: 0x1122_3344_5566_7788,
            expects: 9,
            last: 77,
            generation: 3,
            limits: Limits {
                frame: 4096,
                eager: 1024,
                message: 1 << 30,
                ops: 64,
                contexts: 2,
            },
            from: Name::new(b"a").unwrap(),
            to: Name::new(&[7; MAX_NAME]).unwrap(),
        }
    }

    fn bytes(hello: &Hello) -> Vec<u8> {
        let mut out = [0xff; MAX];
        let len = hello.emit(&mut out);
        out[..len].to_vec()
    }

    #[test]
    fn hello_is_read_as_it_was_written() {
        let bytes = bytes(&hello());
        assert_eq!(bytes.len(), 96 + 1 + 64);
        assert_eq!(Hello::parse(&bytes), Ok(hello()));
        assert_eq!(
            bytes[16..24],
            [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
        );
        assert_eq!(bytes[56..64], [64, 0, 0, 0, 2, 0, 1, 64]);
    }

    #[test]
    fn every_length_but_the_right_one_is_refused() {
        let right = bytes(&hello());
        for len in 0..right.len() {
            assert_eq!(Hello::parse(&right[..len]), Err(Malformed::Short), "{len}");
        }
        let mut long = right.clone();
        long.push(0);
        assert_eq!(Hello::parse(&long), Err(Malformed::Long));
    }

    #[test]
    fn limits_are_refused_on_the_far_side_of_their_bounds() {
        type Change = fn(&mut Hello);
        let table: [(Change, Result<(), Malformed>); 19] = [
            (|h| h.limits.frame = 512, Err(Malformed::Limit)), // eager is above it
            (|h| (h.limits.frame, h.limits.eager) = (512, 512), Ok(())),
            (
                |h| (h.limits.frame, h.limits.eager) = (511, 0),
                Err(Malformed::Limit),
            ),
            (|h| h.limits.frame = 1 << 24, Ok(())),
            (|h| h.limits.frame = (1 << 24) + 1, Err(Malformed::Limit)),
            (|h| h.limits.eager = 4096, Ok(())),
            (|h| h.limits.eager = 4097, Err(Malformed::Limit)),
            (|h| h.limits.eager = 0, Ok(())),
            (|h| h.limits.ops = 15, Err(Malformed::Limit)),
            (|h| h.limits.ops = 16, Ok(())),
            (|h| h.limits.ops = u16::MAX, Ok(())),
            (|h| h.limits.contexts = 0, Err(Malformed::Limit)),
            (|h| h.incarnation = 0, Err(Malformed::Incarnation)),
            (|h| h.expects = 0, Err(Malformed::Incarnation)), // last is not 0
            (|h| (h.expects, h.last) = (0, 0), Ok(())),
            (|h| h.versions = (0, 1), Err(Malformed::Version)),
            (|h| h.versions = (2, 1), Err(Malformed::Version)),
            (|h| h.versions = (2, 3), Ok(())), // understood; spoken is another matter
            (|h| h.caps = u32::MAX, Ok(())),
        ];
        for (at, (change, expected)) in table.into_iter().enumerate() {
            let mut hello = hello();
            change(&mut hello);
            assert_eq!(Hello::parse(&bytes(&hello)).map(drop), expected, "row {at}");
        }
    }

    #[test]
    fn bytes_that_mean_nothing_are_refused() {
        for at in 0..8 {
            let mut bytes = bytes(&hello());
            bytes[at] ^= 1;
            assert_eq!(Hello::parse(&bytes), Err(Malformed::Magic), "byte {at}");
        }
        for at in 64..96 {
            let mut bytes = bytes(&hello());
            bytes[at] = 1;
            assert_eq!(Hello::parse(&bytes), Err(Malformed::Reserved), "byte {at}");
        }
        // More than 65,535 operations.
        let mut many = bytes(&hello());
        many[58] = 1;
        assert_eq!(Hello::parse(&many), Err(Malformed::Limit));
        // A name without bytes, and one that is too long.
        let mut none = bytes(&hello());
        none[62] = 0;
        none.pop();
        assert_eq!(Hello::parse(&none), Err(Malformed::Name));
        let mut long = bytes(&hello());
        long[63] = 65;
        long.push(7);
        assert_eq!(Hello::parse(&long), Err(Malformed::Name));
        assert!(Name::new(&[1; MAX_NAME + 1]).is_none() && Name::new(&[1; 300]).is_none());
    }
}
