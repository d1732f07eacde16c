//! CRC-32C (Castagnoli, as in iSCSI, RFC 3720 appendix B.4), the checksum of everything that this project adds to the
//! wire: polynomial 0x1EDC6F41, reflected, initial value and final xor of all ones.
//!
//! It finds damage, not malice.

use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C of `bytes`; tens of GB/s where the processor has carry-less multiplication.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of the bytes that `crc` is of with `bytes` behind them: for what does not lie together.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_values_hold() {
        let check = |bytes: &[u8], expected: u32| assert_eq!(crc32c(bytes), expected, "{bytes:?}");
        check(b"", 0);
        check(b"123456789", 0xE306_9283);
        // RFC 3720, appendix B.4.
        check(&[0x00; 32], 0x8A91_36AA);
        check(&[0xff; 32], 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        check(&ascending, 0x46DD_794E);
    }

    #[test]
    fn every_length_agrees_with_the_bitwise_definition() {
        let bytes: Vec<u8> = (0..700_u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
        for length in 0..bytes.len() {
            let mut crc = !0_u32;
            for byte in &bytes[..length] {
                crc ^= u32::from(*byte);
                for _ in 0..8 {
                    crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
                }
            }
            assert_eq!(crc32c(&bytes[..length]), !crc, "length {length}");
        }
    }

    #[test]
    fn pieces_have_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..700_u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
        for cut in 0..=bytes.len() {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(crc32c_append(crc32c(front), back), crc32c(&bytes), "cut at {cut}");
        }
        assert_eq!(crc32c_append(0, &bytes), crc32c(&bytes));
    }
}
