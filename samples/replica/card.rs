// SPDX-License-Identifier: GPL-2.0

//! A card: what one has to know of memory that is open to peers, as a line of text.
//!
//! The name of an endpoint and the descriptor of a region, in hexadecimal digits. The
//! administrator brings it from one host to the other.

use kernel::{fmt, prelude::*};
use kfabric::prelude::*;

/// The longest part in bytes, of which the name is the longer one.
const PART: usize = 64;

/// What one has to know of a peer's memory.
#[derive(Clone, Copy)]
pub(crate) struct Card {
    pub(crate) name: Name,
    descriptor: [u8; 32],
}

impl Card {
    pub(crate) fn new(name: Name, descriptor: [u8; 32]) -> Self {
        Self { name, descriptor }
    }

    /// Reads a line. `EINVAL`: it is none of this form.
    pub(crate) fn parse(line: &[u8]) -> Result<Self> {
        let mut parts = line
            .split(u8::is_ascii_whitespace)
            .filter(|part| !part.is_empty());
        let (mut name, mut descriptor) = ([0; PART], [0; PART]);
        let name_len = unhex(parts.next().ok_or(EINVAL)?, &mut name)?;
        let len = unhex(parts.next().ok_or(EINVAL)?, &mut descriptor)?;
        let card = Self {
            name: Name::new(name.get(..name_len).ok_or(EINVAL)?)?,
            descriptor: descriptor
                .get(..len)
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(EINVAL)?,
        };
        card.region()?;
        match parts.next() {
            None => Ok(card),
            Some(_) => Err(EINVAL),
        }
    }

    /// The memory. `EINVAL`: it is none.
    pub(crate) fn region(&self) -> Result<RemoteRegion> {
        RemoteRegion::parse(&self.descriptor).map_err(|_| EINVAL)
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        hex(f, self.name.as_bytes())?;
        f.write_str(" ")?;
        hex(f, &self.descriptor)
    }
}

/// Puts the bytes that the digits are of into `bytes`, and says how many.
fn unhex(digits: &[u8], bytes: &mut [u8; PART]) -> Result<usize> {
    let pairs = digits.chunks_exact(2);
    let (len, rest) = (pairs.len(), pairs.remainder());
    let places = bytes.get_mut(..len).ok_or(EINVAL)?;
    for (place, pair) in places.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(EINVAL);
        *place = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    match rest {
        [] => Ok(len),
        _ => Err(EINVAL),
    }
}

#[kunit_tests(kfi_replica_card)]
mod tests {
    use super::*;
    use kernel::str::CString;

    /// That of 4 MiB of persistent memory.
    const CARD: &[u8] = b"04ff 01030101000306000200100050987bac00004000000000000000000000000000";

    #[test]
    fn card_is_written_as_it_was_read() -> Result {
        let card = Card::parse(CARD)?;
        assert_eq!(card.name.as_bytes(), [4, 0xff]);
        assert_eq!(card.region()?.len(), 4 << 20);
        let text = CString::try_from_fmt(fmt!("{card}"))?;
        assert_eq!(text.to_bytes(), CARD);
        Ok(())
    }

    #[test]
    fn what_is_no_card_is_refused() {
        let refused = |line: &[u8]| assert_eq!(Card::parse(line).err(), Some(EINVAL));
        refused(b"");
        refused(b"04ff");
        refused(b"04f 0103");
        refused(b"04fx 0103");
        refused(&CARD[..CARD.len() - 2]);
        let (_name, descriptor) = CARD.split_at(5);
        refused(descriptor);
        // A part that is too long for anything.
        refused(&[b'0'; 2 * PART + 2]);
    }
}
