//! AES-256-XTS (IEEE 1619) over whole sectors: all blocks of a sector go through the cipher in one call, which lets wide vector units
//! work; the tests hold it against the `xts-mode` crate, which takes one block at a time.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// Bytes of an AES block.
const BLOCK: usize = 16;

pub(crate) struct Xts {
    data: Aes256,
    tweak: Aes256,
}

fn cipher(key: &[u8; 32]) -> Aes256 {
    Aes256::new(&Array::from(*key))
}

/// Xors every block with its tweak: the first one, then each times x in GF(2^128).
fn whiten(sector: &mut [u8], mut tweak: u128) {
    let (blocks, _) = sector.as_chunks_mut::<BLOCK>();
    for block in blocks {
        *block = (u128::from_le_bytes(*block) ^ tweak).to_le_bytes();
        let carry = if tweak >> 127 == 1 { 0x87 } else { 0 };
        tweak = (tweak << 1) ^ carry;
    }
}

impl Xts {
    pub(crate) fn new(data: &[u8; 32], tweak: &[u8; 32]) -> Self {
        Self { data: cipher(data), tweak: cipher(tweak) }
    }

    fn first_tweak(&self, index: u64) -> u128 {
        let mut block = Array::from(u128::from(index).to_le_bytes());
        self.tweak.encrypt_block(&mut block);
        u128::from_le_bytes(block.into())
    }

    /// Encrypts a sector in place; its length is a multiple of 16.
    pub(crate) fn encrypt(&self, index: u64, sector: &mut [u8]) {
        let tweak = self.first_tweak(index);
        whiten(sector, tweak);
        self.data.encrypt_blocks(Array::slice_as_chunks_mut(sector).0);
        whiten(sector, tweak);
    }

    /// Decrypts a sector in place; its length is a multiple of 16.
    pub(crate) fn decrypt(&self, index: u64, sector: &mut [u8]) {
        let tweak = self.first_tweak(index);
        whiten(sector, tweak);
        self.data.decrypt_blocks(Array::slice_as_chunks_mut(sector).0);
        whiten(sector, tweak);
    }
}

#[cfg(test)]
mod tests {
    use xts_mode::{Xts128, get_tweak_default};

    use super::{Xts, cipher};

    #[test]
    fn every_sector_agrees_with_the_reference() {
        let (left, right) = ([3; 32], [4; 32]);
        let (ours, reference) = (Xts::new(&left, &right), Xts128::new(cipher(&left), cipher(&right)));
        for index in [0, 1, 255, 1 << 40] {
            let plain: Vec<u8> = (0..4096u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
            let (mut found, mut expected) = (plain.clone(), plain.clone());
            ours.encrypt(index, &mut found);
            reference.encrypt_sector(&mut expected, get_tweak_default(u128::from(index)));
            assert_eq!(found, expected);
            ours.decrypt(index, &mut found);
            assert_eq!(found, plain);
        }
    }
}
