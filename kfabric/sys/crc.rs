// SPDX-License-Identifier: GPL-2.0

//! CRC32C of many bytes, by the kernel, which knows the instructions that this CPU has for it.

use super::bindings;
use kernel::prelude::*;

/// The checksum of the bytes, as [`proto::wire::crc`](crate::proto::wire::crc) has it. Any context.
pub(crate) fn of(bytes: &[u8]) -> u32 {
    // SAFETY: So many bytes are there to be read.
    unsafe { bindings::kfi_crc32c(bytes.as_ptr().cast(), bytes.len()) }
}

#[kunit_tests(kfabric_crc)]
mod tests {
    use crate::proto::wire::crc;

    #[test]
    fn sums_are_those_of_the_protocol() {
        let mut bytes = [0; 300];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = (at * 7 + at / 50) as u8;
        }
        for from in 0..9 {
            for len in [0, 1, 7, 8, 9, 63, 64, 65, 290] {
                let part = &bytes[from..from + len];
                assert_eq!(super::of(part), crc::of(&[part]));
            }
        }
    }
}
