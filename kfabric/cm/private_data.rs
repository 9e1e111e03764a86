// SPDX-License-Identifier: GPL-2.0

//! Bytes of the consumer that go with a connection message.

use kernel::prelude::*;

/// Bytes of the consumer that go with a connection message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PrivateData {
    len: u8,
    bytes: [u8; PrivateData::MAX],
}

impl PrivateData {
    /// The most bytes.
    pub const MAX: usize = 64;

    /// No bytes.
    pub const NONE: PrivateData = PrivateData {
        len: 0,
        bytes: [0; PrivateData::MAX],
    };

    /// These bytes. `EINVAL`: more than [`PrivateData::MAX`].
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut data = PrivateData::NONE;
        data.bytes
            .get_mut(..bytes.len())
            .ok_or(EINVAL)?
            .copy_from_slice(bytes);
        data.len = bytes.len() as u8;
        Ok(data)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(PrivateData::MAX)]
    }
}

#[kunit_tests(kfabric_cm_private_data)]
mod tests {
    use super::*;

    #[test]
    fn private_data_keeps_its_bytes() -> Result {
        assert!(PrivateData::NONE.as_bytes().is_empty());
        assert_eq!(PrivateData::new(b"abc")?.as_bytes(), b"abc");
        let bytes = [1; PrivateData::MAX + 1];
        assert!(PrivateData::new(&bytes[1..])?.as_bytes() == &bytes[1..]);
        assert_eq!(PrivateData::new(&bytes).err(), Some(EINVAL));
        Ok(())
    }
}
