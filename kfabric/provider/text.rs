// SPDX-License-Identifier: GPL-2.0

//! Services in words, for providers whose services are numbers, as ports are.

use kernel::prelude::*;

/// The number that `service` says: 0 to 65535, without sign or leading zeros. `EINVAL`: none.
pub fn service(service: &str) -> Result<u16> {
    let number = number(service).ok_or(EINVAL)?;
    u16::try_from(number).map_err(|_| EINVAL)
}

/// A number in decimal, in its only form.
pub fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let has_zeros = text.len() > 1 && text.starts_with('0');
    // What is empty, or too great, `parse` refuses.
    text.parse().ok().filter(|_| is_plain && !has_zeros)
}

#[kunit_tests(kfabric_provider_text)]
mod tests {
    use super::*;

    #[test]
    fn service_is_a_number_in_its_only_form() {
        for (text, expected) in [("0", 0), ("1", 1), ("4791", 4791), ("65535", 65535)] {
            assert_eq!(service(text), Ok(expected));
        }
        for text in [
            "",
            " ",
            "65536",
            "99999",
            "4294967295",
            "4294967296",
            "4294972087",
            "18446744073709551617",
            "-1",
            "+1",
            "00",
            "01",
            "0x1",
            "1 ",
            " 1",
            "1\n",
            "1\0",
            "\x001",
            "http",
            "1.0",
            "1,0",
            "\u{661}",
            "\u{ff11}",
        ] {
            assert_eq!(service(text), Err(EINVAL));
        }
    }
}
