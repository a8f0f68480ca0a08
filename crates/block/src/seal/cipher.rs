//! The two engines behind SEAL. Both are AES-256-GCM and give the same bytes (docs/decisions/0001).

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};

use crate::error::{BlockError, Result};
use crate::seal::TAG_LEN;

/// A segment's tag does not fit; the caller knows what it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongTag;

/// AES-256-GCM over one segment, without associated data.
pub trait SegmentCipher: Sized {
    /// Expands the key.
    fn new(key: &[u8; 32]) -> Result<Self>;
    /// Encrypts in place and gives the tag.
    fn seal(&self, nonce: &[u8; 12], text: &mut [u8]) -> Result<[u8; TAG_LEN]>;
    /// Decrypts `text` into `out` of the same length; nothing of `out` may be used after an error.
    fn open(&self, nonce: &[u8; 12], text: &[u8], tag: &[u8; TAG_LEN], out: &mut [u8]) -> std::result::Result<(), WrongTag>;
    /// Decrypts a segment, ciphertext and tag, where it is; what stands there after an error is of no use.
    fn open_in_place(&self, nonce: &[u8; 12], segment: &mut [u8]) -> std::result::Result<(), WrongTag>;
}

/// The engine this build uses.
#[cfg(feature = "fast")]
pub type DefaultCipher = FastCipher;
/// The engine this build uses.
#[cfg(not(feature = "fast"))]
pub type DefaultCipher = ReferenceCipher;

/// The `aes-gcm` crate: the reference.
#[expect(missing_debug_implementations, reason = "holds a key")]
pub struct ReferenceCipher(Aes256Gcm);

impl SegmentCipher for ReferenceCipher {
    fn new(key: &[u8; 32]) -> Result<Self> {
        Ok(Self(Aes256Gcm::new(key.into())))
    }

    fn seal(&self, nonce: &[u8; 12], text: &mut [u8]) -> Result<[u8; TAG_LEN]> {
        let tag = self.0.encrypt_inout_detached(nonce.into(), &[], InOutBuf::from(text));
        tag.map(Into::into).map_err(|_| BlockError::Engine { what: "AES-256-GCM" })
    }

    fn open(&self, nonce: &[u8; 12], text: &[u8], tag: &[u8; TAG_LEN], out: &mut [u8]) -> std::result::Result<(), WrongTag> {
        let buffer = InOutBuf::new(text, out).map_err(|_| WrongTag)?;
        self.0.decrypt_inout_detached(nonce.into(), &[], buffer, tag.into()).map_err(|_| WrongTag)
    }

    fn open_in_place(&self, nonce: &[u8; 12], segment: &mut [u8]) -> std::result::Result<(), WrongTag> {
        let (text, tag) = segment.split_last_chunk_mut::<TAG_LEN>().ok_or(WrongTag)?;
        self.0.decrypt_inout_detached(nonce.into(), &[], InOutBuf::from(text), (&*tag).into()).map_err(|_| WrongTag)
    }
}

/// AWS-LC through `aws-lc-rs`.
#[cfg(feature = "fast")]
#[expect(missing_debug_implementations, reason = "holds a key")]
pub struct FastCipher(aws_lc_rs::aead::LessSafeKey);

#[cfg(feature = "fast")]
impl SegmentCipher for FastCipher {
    fn new(key: &[u8; 32]) -> Result<Self> {
        aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_256_GCM, key)
            .map(|key| Self(aws_lc_rs::aead::LessSafeKey::new(key)))
            .map_err(|_| BlockError::Engine { what: "AES-256-GCM" })
    }

    fn seal(&self, nonce: &[u8; 12], text: &mut [u8]) -> Result<[u8; TAG_LEN]> {
        let engine = BlockError::Engine { what: "AES-256-GCM" };
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, aws_lc_rs::aead::Aad::empty(), text).map_err(|_| engine.clone())?;
        tag.as_ref().try_into().map_err(|_| engine)
    }

    fn open(&self, nonce: &[u8; 12], text: &[u8], tag: &[u8; TAG_LEN], out: &mut [u8]) -> std::result::Result<(), WrongTag> {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
        self.0.open_separate_gather(nonce, aws_lc_rs::aead::Aad::empty(), text, tag, out).map_err(|_| WrongTag)
    }

    fn open_in_place(&self, nonce: &[u8; 12], segment: &mut [u8]) -> std::result::Result<(), WrongTag> {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
        self.0.open_in_place(nonce, aws_lc_rs::aead::Aad::empty(), segment).map(|_| ()).map_err(|_| WrongTag)
    }
}
