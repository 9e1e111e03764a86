// SPDX-License-Identifier: GPL-2.0

//! Connection messages as bytes, for providers whose peers are on other hosts.
//!
//! ====== ====== =====================================================================
//! offset bytes  what
//! ====== ====== =====================================================================
//! 0      1      version: 1
//! 1      1      1: request, 2: accept, 3: reject, 4: shutdown
//! 2      2      of a reject: the errno; else 0
//! 4      1      bytes of private data, at most 64
//! 5      3      0
//! 8      8      the cookie
//! 16            the private data
//! ====== ====== =====================================================================
//!
//! Numbers are little-endian. Who sends it is known by the session that it comes with.

use super::message::{Party, Says};
use super::{Message, PrivateData};
use crate::av::Name;
use kernel::prelude::*;

/// Bytes before the private data.
const FIXED: usize = 16;
const VERSION: u8 = 1;

/// The most bytes of a letter.
pub(crate) const MAX: usize = FIXED + PrivateData::MAX;

/// The errors that a reject may say; any other is the first.
const ERRORS: [Error; 3] = [ECONNREFUSED, ECONNABORTED, ETIMEDOUT];

impl Message {
    /// Its bytes, and how many there are.
    pub(crate) fn emit(&self) -> ([u8; MAX], usize) {
        let mut bytes = [0; MAX];
        let data = self.data.as_bytes();
        let (says, errno) = match self.says {
            Says::Request => (1, 0),
            Says::Accept => (2, 0),
            Says::Reject(error) => (3, error.to_errno().unsigned_abs() as u16),
            Says::Shutdown => (4, 0),
        };
        bytes[0] = VERSION;
        bytes[1] = says;
        bytes[2..4].copy_from_slice(&errno.to_le_bytes());
        bytes[4] = data.len() as u8;
        bytes[8..FIXED].copy_from_slice(&self.cookie.to_le_bytes());
        let len = FIXED + data.len();
        if let Some(room) = bytes.get_mut(FIXED..len) {
            room.copy_from_slice(data);
        }
        (bytes, len)
    }

    /// What `number`, which is called `name`, says. `EBADMSG`: nothing that is understood.
    pub(crate) fn parse(bytes: &[u8], name: Name, number: u64) -> Result<Self> {
        let (fixed, data) = bytes.split_first_chunk::<FIXED>().ok_or(EBADMSG)?;
        let errno = u16::from_le_bytes([fixed[2], fixed[3]]);
        let zeroes = fixed[5..8].iter().all(|byte| *byte == 0);
        if fixed[0] != VERSION || usize::from(fixed[4]) != data.len() || !zeroes {
            return Err(EBADMSG);
        }
        let says = match (fixed[1], errno) {
            (1, 0) => Says::Request,
            (2, 0) => Says::Accept,
            (3, errno) => Says::Reject(refusal(errno)),
            (4, 0) => Says::Shutdown,
            _ => return Err(EBADMSG),
        };
        let (_, cookie) = fixed.split_last_chunk::<8>().ok_or(EBADMSG)?;
        Ok(Message {
            from: Party { name, number },
            says,
            cookie: u64::from_le_bytes(*cookie),
            data: PrivateData::new(data).map_err(|_| EBADMSG)?,
        })
    }
}

/// The error of a peer's number.
fn refusal(errno: u16) -> Error {
    let is = |error: &Error| error.to_errno() == -i32::from(errno);
    ERRORS.into_iter().find(is).unwrap_or(ECONNREFUSED)
}

#[kunit_tests(kfabric_cm_letter)]
mod tests {
    use super::*;
    use crate::cm::testing::there;

    fn message(says: Says, data: &[u8]) -> Result<Message> {
        Ok(Message {
            from: Party {
                name: there(),
                number: 7,
            },
            says,
            cookie: 0x0102_0304_0506_0708,
            data: PrivateData::new(data)?,
        })
    }

    #[test]
    fn message_is_read_as_it_was_written() -> Result {
        for says in [
            Says::Request,
            Says::Accept,
            Says::Reject(ECONNREFUSED),
            Says::Reject(ETIMEDOUT),
            Says::Shutdown,
        ] {
            for data in [&[][..], &[1, 2, 3], &[5; PrivateData::MAX]] {
                let sent = message(says, data)?;
                let (bytes, len) = sent.emit();
                let read = Message::parse(&bytes[..len], there(), 7)?;
                assert!(read.says == says && read.from == sent.from && read.data == sent.data);
                assert_eq!(read.cookie, sent.cookie);
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_message_is_refused() -> Result {
        let (good, len) = message(Says::Request, &[1, 2])?.emit();
        let parse = |bytes: &[u8]| Message::parse(bytes, there(), 7).err();
        assert_eq!(parse(&good[..len]), None);
        for short in 0..len {
            assert_eq!(parse(&good[..short]), Some(EBADMSG));
        }
        assert_eq!(parse(&good[..len + 1]), Some(EBADMSG));
        for (at, byte) in [
            (0, 2),
            (1, 0),
            (1, 5),
            (2, 1),
            (3, 1),
            (4, 1),
            (5, 1),
            (7, 1),
        ] {
            let mut wrong = good;
            wrong[at] = byte;
            assert_eq!(parse(&wrong[..len]), Some(EBADMSG));
        }
        // Whatever a peer gives for its reason, it is one that a consumer knows.
        let (mut odd, len) = message(Says::Reject(ECONNREFUSED), &[])?.emit();
        odd[2..4].copy_from_slice(&u16::MAX.to_le_bytes());
        let read = Message::parse(&odd[..len], there(), 7)?;
        assert!(read.says == Says::Reject(ECONNREFUSED));
        Ok(())
    }
}
