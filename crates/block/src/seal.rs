//! SEAL, the one construction for everything that is sealed.
//!
//! `key(32) ‖ base nonce(12) ‖ commitment(32) = HKDF-Expand-SHA-256(K, domain ‖ type ‖ salt(24) ‖ context)`. Segment i is
//! AES-256-GCM under `key` with nonce `base xor i` and no associated data. The context has a fixed width and holds the
//! plaintext's length and everything the bytes mean, so a change of any of it gives another key and another commitment.
//! The sealed form is `salt ‖ commitment ‖ segments`, each segment its ciphertext followed by its tag.
//!
//! A fresh salt per sealing means a fresh key per sealing: no (key, nonce) pair ever repeats, also not on two copies of
//! one disk. [`Salt`] is move-only for that reason.

use std::ops::Range;

use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::codec::tags;
use crate::error::{BlockError, Result};
use crate::id::DeploymentId;
use crate::limits::{BULK_SEGMENT_LOG2, SEGMENT_LOG2_RANGE};

pub mod cipher;
use cipher::{DefaultCipher, SegmentCipher};

#[cfg(test)]
mod tests;

/// Bytes of a salt.
pub const SALT_LEN: usize = 24;
/// Bytes of a commitment.
pub const COMMITMENT_LEN: usize = 32;
/// Bytes in front of the first segment: salt and commitment.
pub const PREFIX_LEN: usize = SALT_LEN + COMMITMENT_LEN;
/// Bytes of a segment's tag.
pub const TAG_LEN: usize = 16;
/// Widest meaning a context holds.
pub const MEANING_LEN: usize = 128;

const DOMAIN: &[u8; 16] = b"diaspore/v1/seal";

tags! {
    /// What is sealed; part of every key derivation, so that one type never opens as another.
    pub enum SealType {
        /// A section of a block.
        Section = 1,
        /// The header of a shard.
        ShardHeader = 2,
        /// The leaf list behind a shard.
        LeafList = 3,
        /// A claim.
        Claim = 4,
        /// A head.
        Head = 5,
        /// A keyring.
        Keyring = 6,
        /// An entry of the local journal.
        Journal = 16,
        /// The header of a local file.
        LocalHeader = 17,
        /// A value in the local ledger.
        LedgerValue = 18,
        /// Provider credentials at rest.
        Credential = 19,
        /// The list of master keys that were replaced.
        ReplacedKeys = 20,
    }
}

/// The random part of one sealing. It can be used once: sealing consumes it.
#[derive(Debug)]
pub struct Salt([u8; SALT_LEN]);

impl Salt {
    /// A fresh salt; `rng` must be the operating system's generator, or a seeded one in simulation.
    pub fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = [0; SALT_LEN];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
}

/// What sealed bytes mean. Sealing and opening must agree on every field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    seal_type: SealType,
    deployment: DeploymentId,
    segment_log2: u8,
    meaning: [u8; MEANING_LEN],
    used: usize,
}

impl Context {
    /// A context without further meaning and segments of 64 KiB.
    pub fn new(seal_type: SealType, deployment: DeploymentId) -> Self {
        Self { seal_type, deployment, segment_log2: BULK_SEGMENT_LOG2, meaning: [0; MEANING_LEN], used: 0 }
    }

    /// With segments of `1 << log2` bytes (512 to 65536); values outside are moved to the nearest.
    #[must_use]
    pub fn segments(mut self, log2: u8) -> Self {
        self.segment_log2 = log2.clamp(*SEGMENT_LOG2_RANGE.start(), *SEGMENT_LOG2_RANGE.end());
        self
    }

    /// With further fixed-width fields of its meaning. What exceeds 128 bytes in sum is folded into the last 32 by
    /// SHA-256, so that nothing is ever left out.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        if let Some(place) = self.meaning.get_mut(self.used..self.used + bytes.len()) {
            place.copy_from_slice(bytes);
            self.used += bytes.len();
        } else {
            let folded = Sha256::new().chain_update(self.meaning).chain_update(bytes).finalize();
            self.meaning.iter_mut().rev().zip(folded).for_each(|(to, from)| *to = from);
            self.used = MEANING_LEN;
        }
        self
    }

    /// With a variable-width field: its SHA-256.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.field(&Sha256::digest(text.as_bytes()))
    }

    /// log2 of the segment length.
    pub fn segment_log2(&self) -> u8 {
        self.segment_log2
    }

    fn derive(&self, key: &[u8; 32], salt: &[u8], plain_len: u64) -> Result<Derived> {
        let engine = BlockError::Engine { what: "key derivation" };
        let mut okm = Zeroizing::new([0; 32 + 12 + COMMITMENT_LEN]);
        Hkdf::<Sha256>::from_prk(key)
            .map_err(|_| engine.clone())?
            .expand_multi_info(
                &[
                    DOMAIN,
                    &[self.seal_type.to_u8()],
                    salt,
                    self.deployment.as_bytes(),
                    &plain_len.to_be_bytes(),
                    &[self.segment_log2],
                    &self.meaning,
                ],
                okm.as_mut_slice(),
            )
            .map_err(|_| engine.clone())?;
        let (key, rest) = okm.split_first_chunk::<32>().ok_or(engine.clone())?;
        let (nonce, rest) = rest.split_first_chunk::<12>().ok_or(engine.clone())?;
        let commitment = rest.first_chunk::<COMMITMENT_LEN>().ok_or(engine)?;
        Ok(Derived { key: Zeroizing::new(*key), nonce: *nonce, commitment: *commitment })
    }
}

struct Derived {
    key: Zeroizing<[u8; 32]>,
    nonce: [u8; 12],
    commitment: [u8; COMMITMENT_LEN],
}

/// Nonce of segment `index`: the base with the big-endian index xored into its last four bytes.
fn segment_nonce(base: &[u8; 12], index: u32) -> [u8; 12] {
    let mut nonce = *base;
    nonce.iter_mut().rev().zip(index.to_le_bytes()).for_each(|(to, from)| *to ^= from);
    nonce
}

/// Segments of a plaintext. An empty one has none: its commitment alone speaks for it.
pub const fn segment_count(plain_len: u64, segment_log2: u8) -> u64 {
    plain_len.div_ceil(1 << segment_log2)
}

/// Length of the sealed form of `plain_len` bytes.
pub const fn sealed_len(plain_len: u64, segment_log2: u8) -> u64 {
    plain_len + PREFIX_LEN as u64 + segment_count(plain_len, segment_log2) * TAG_LEN as u64
}

/// Length of the plaintext whose sealed form has `sealed` bytes, if there is one.
pub const fn plain_len(sealed: u64, segment_log2: u8) -> Option<u64> {
    let Some(body) = sealed.checked_sub(PREFIX_LEN as u64) else { return None };
    let stride = (1 << segment_log2) + TAG_LEN as u64;
    let plain = match body.div_ceil(stride).checked_mul(TAG_LEN as u64) {
        Some(tags) if tags <= body => body - tags,
        _ => return None,
    };
    if sealed_len(plain, segment_log2) == sealed { Some(plain) } else { None }
}

/// Which sealed bytes hold a plaintext range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Bytes of the sealed form, counted from its first byte (its salt).
    pub sealed: Range<u64>,
    /// Index of the first segment in it.
    pub first_segment: u32,
    /// The plaintext range.
    pub plain: Range<u64>,
}

/// The whole segments that hold `plain` out of a plaintext of `plain_len` bytes.
pub fn span(plain: Range<u64>, plain_len: u64, segment_log2: u8) -> Result<Span> {
    let invalid = BlockError::Invalid { what: "plaintext range" };
    if plain.start > plain.end || plain.end > plain_len || !SEGMENT_LOG2_RANGE.contains(&segment_log2) {
        return Err(invalid);
    }
    let first = plain.start >> segment_log2;
    let after = if plain.is_empty() { first } else { segment_count(plain.end, segment_log2) };
    let stride = (1u64 << segment_log2) + TAG_LEN as u64;
    let place = |segment: u64| (PREFIX_LEN as u64 + segment * stride).min(sealed_len(plain_len, segment_log2));
    let first_segment = u32::try_from(first).map_err(|_| invalid)?;
    Ok(Span { sealed: place(first)..place(after), first_segment, plain })
}

/// Seals in place: `buffer` is the whole sealed form with the plaintext already at its place, that is, after
/// [`PREFIX_LEN`] free bytes and with [`TAG_LEN`] free bytes behind every segment. Consumes the salt.
pub fn seal_in_place(key: &[u8; 32], salt: Salt, context: &Context, buffer: &mut [u8]) -> Result<()> {
    seal_in_place_with::<DefaultCipher>(key, salt, context, buffer)
}

/// [`seal_in_place`] with a named engine.
#[expect(clippy::needless_pass_by_value, reason = "a salt is used up by sealing")]
pub fn seal_in_place_with<C: SegmentCipher>(key: &[u8; 32], salt: Salt, context: &Context, buffer: &mut [u8]) -> Result<()> {
    let plain = plain_len(buffer.len() as u64, context.segment_log2).ok_or(BlockError::Invalid { what: "length of a buffer to seal" })?;
    let derived = context.derive(key, &salt.0, plain)?;
    let cipher = C::new(&derived.key)?;
    let (prefix, body) = buffer.split_first_chunk_mut::<PREFIX_LEN>().ok_or(BlockError::Invalid { what: "length of a buffer to seal" })?;
    let (to_salt, to_commitment) = prefix.split_at_mut(SALT_LEN);
    to_salt.copy_from_slice(&salt.0);
    to_commitment.copy_from_slice(&derived.commitment);
    for (index, segment) in (0u32..).zip(body.chunks_mut((1 << context.segment_log2) + TAG_LEN)) {
        let (text, tag) = segment.split_last_chunk_mut::<TAG_LEN>().ok_or(BlockError::Invalid { what: "length of a buffer to seal" })?;
        *tag = cipher.seal(&segment_nonce(&derived.nonce, index), text)?;
    }
    Ok(())
}

/// The sealed form of `plain`, in a new buffer.
pub fn seal_object(key: &[u8; 32], salt: Salt, context: &Context, plain: &[u8]) -> Result<Vec<u8>> {
    let mut sealed = spread(plain, context.segment_log2);
    seal_in_place(key, salt, context, &mut sealed)?;
    Ok(sealed)
}

/// `plain` laid out for sealing in place.
pub(crate) fn spread(plain: &[u8], segment_log2: u8) -> Vec<u8> {
    let len = usize::try_from(sealed_len(plain.len() as u64, segment_log2)).unwrap_or(usize::MAX);
    let mut buffer = Vec::with_capacity(len);
    buffer.resize(PREFIX_LEN, 0);
    for segment in plain.chunks(1 << segment_log2) {
        buffer.extend_from_slice(segment);
        buffer.extend_from_slice(&[0; TAG_LEN]);
    }
    buffer
}

/// Opens a whole sealed form of at most `max_plain` bytes of plaintext; `what` names it in errors.
pub fn open_object(key: &[u8; 32], context: &Context, sealed: &[u8], max_plain: usize, what: &'static str) -> Result<Vec<u8>> {
    let plain = plain_len(sealed.len() as u64, context.segment_log2).ok_or(BlockError::Malformed { what })?;
    if plain > max_plain as u64 {
        return Err(BlockError::Malformed { what });
    }
    let (prefix, body) = sealed.split_first_chunk::<PREFIX_LEN>().ok_or(BlockError::Malformed { what })?;
    Opener::new(key, context, plain, prefix, what)?.open_span(&span(0..plain, plain, context.segment_log2)?, body)
}

/// Opens segments of one sealed form, in any order. Exists only for a matching commitment.
#[expect(missing_debug_implementations, reason = "holds a key")]
pub struct Opener<C: SegmentCipher = DefaultCipher> {
    cipher: C,
    nonce: [u8; 12],
    plain_len: u64,
    segment_log2: u8,
    what: &'static str,
}

impl Opener {
    /// Derives the key for a sealed form with this prefix (salt and commitment) and compares the commitment first.
    pub fn new(key: &[u8; 32], context: &Context, plain_len: u64, prefix: &[u8; PREFIX_LEN], what: &'static str) -> Result<Self> {
        Self::new_with(key, context, plain_len, prefix, what)
    }
}

impl<C: SegmentCipher> Opener<C> {
    /// [`Opener::new`] with a named engine.
    pub fn new_with(key: &[u8; 32], context: &Context, plain_len: u64, prefix: &[u8; PREFIX_LEN], what: &'static str) -> Result<Self> {
        let (salt, commitment) = prefix.split_at(SALT_LEN);
        let derived = context.derive(key, salt, plain_len)?;
        if !bool::from(derived.commitment.as_slice().ct_eq(commitment)) {
            return Err(BlockError::NotAuthentic { what });
        }
        let cipher = C::new(&derived.key)?;
        Ok(Self { cipher, nonce: derived.nonce, plain_len, segment_log2: context.segment_log2, what })
    }

    /// Plain length of segment `index`, which must exist.
    fn segment_len(&self, index: u32) -> Result<usize> {
        let start = u64::from(index) << self.segment_log2;
        let left = self.plain_len.checked_sub(start).filter(|left| *left > 0);
        let len = left.ok_or(BlockError::Invalid { what: "segment index" })?.min(1 << self.segment_log2);
        usize::try_from(len).map_err(|_| BlockError::Invalid { what: "segment index" })
    }

    /// Opens segment `index` out of its sealed bytes (ciphertext and tag), appending its plaintext to `out`.
    pub fn open_segment(&self, index: u32, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let len = self.segment_len(index)?;
        let (text, tag) =
            sealed.split_last_chunk::<TAG_LEN>().filter(|(text, _)| text.len() == len).ok_or(BlockError::Malformed { what: self.what })?;
        let nonce = segment_nonce(&self.nonce, index);
        let start = out.len();
        out.resize(start + len, 0);
        let place = out.get_mut(start..).ok_or(BlockError::Engine { what: "segment buffer" })?;
        let opened = self.cipher.open(&nonce, text, tag, place);
        if opened.is_err() {
            out.truncate(start);
        }
        opened.map_err(|_| BlockError::NotAuthentic { what: self.what })
    }

    /// Opens segment `index` where its sealed bytes stand, and gives its plain length: they are followed by the useless tag.
    /// After an error nothing of `sealed` may be used, not even as the sealed bytes.
    pub fn open_segment_in_place(&self, index: u32, sealed: &mut [u8]) -> Result<usize> {
        let len = self.segment_len(index)?;
        if sealed.len() != len + TAG_LEN {
            return Err(BlockError::Malformed { what: self.what });
        }
        let nonce = segment_nonce(&self.nonce, index);
        self.cipher.open_in_place(&nonce, sealed).map_err(|_| BlockError::NotAuthentic { what: self.what })?;
        Ok(len)
    }

    /// Opens the bytes `span.sealed` of the sealed form and gives the plaintext `span.plain`, nothing else.
    pub fn open_span(&self, span: &Span, sealed: &[u8]) -> Result<Vec<u8>> {
        if sealed.len() as u64 != span.sealed.end.saturating_sub(span.sealed.start) {
            return Err(BlockError::Malformed { what: self.what });
        }
        let mut plain = Vec::with_capacity(sealed.len());
        for (i, segment) in (0u32..).zip(sealed.chunks((1 << self.segment_log2) + TAG_LEN)) {
            let index = span.first_segment.checked_add(i).ok_or(BlockError::Invalid { what: "span" })?;
            self.open_segment(index, segment, &mut plain)?;
        }
        let invalid = || BlockError::Invalid { what: "span" };
        let base = u64::from(span.first_segment) << self.segment_log2;
        let skip = span.plain.start.checked_sub(base).and_then(|n| usize::try_from(n).ok()).ok_or_else(invalid)?;
        let len = usize::try_from(span.plain.end.saturating_sub(span.plain.start)).map_err(|_| invalid())?;
        if skip.checked_add(len).is_none_or(|end| end > plain.len()) {
            return Err(invalid());
        }
        plain.truncate(skip + len);
        plain.drain(..skip);
        Ok(plain)
    }
}
