// SPDX-License-Identifier: GPL-2.0

//! CRC32C: the polynomial of Castagnoli, reflected, begun and ended with ones.
//!
//! By a table, for headers, hellos and tests; payloads are summed by whoever has an instruction for
//! it. Source: RFC 3720, 12.1 and appendix B.4.

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The checksum of the parts, one after another.
pub fn of(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for part in parts {
        for &byte in *part {
            let index = (crc as u8 ^ byte) as usize;
            crc = (crc >> 8) ^ TABLE[index];
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn sums_are_the_published_ones() {
        // RFC 3720, appendix B.4, and the check value of the catalogue.
        assert_eq!(of(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(of(&[&[0xff; 32]]), 0x62a8_ab43);
        let up: Vec<u8> = (0..32).collect();
        assert_eq!(of(&[&up]), 0x46dd_794e);
        assert_eq!(of(&[b"123456789"]), 0xe306_9283);
        assert_eq!(of(&[]), 0);
    }

    #[test]
    fn parts_are_summed_as_a_whole() {
        let whole = of(&[b"123456789"]);
        for at in 0..=9 {
            let (a, b) = b"123456789".split_at(at);
            assert_eq!(of(&[a, b]), whole);
        }
    }
}
