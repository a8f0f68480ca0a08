//! Keys: 32 bytes each, never cloned, printed or serialised, wiped when dropped.
//!
//! One purpose, one key: nothing is sealed under a key whose name does not say so. Only the keyring is sealed under the
//! master key, so replacing the master key touches no block.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroize;

use crate::error::{BlockError, Result};
use crate::id::{BucketId, ChunkId, Reference};

mod keyring;
pub use keyring::{Keyring, KeyringPlace, TenantKeys};

macro_rules! secret_key {
    ($($(#[$meta:meta])* $name:ident,)*) => {$(
        $(#[$meta])*
        #[derive(zeroize::ZeroizeOnDrop)]
        #[expect(missing_debug_implementations, reason = "a key is never printed")]
        pub struct $name([u8; 32]);

        impl $name {
            /// A fresh key.
            pub fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut key = Self([0; 32]);
                rng.fill_bytes(&mut key.0);
                key
            }
            /// The key with these bytes; the caller wipes its own copy.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// The bare bytes: for sealing and for the keyring, nothing else.
            pub const fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        crate::codec::array_field!($name, 32, expose);
    )*};
}

secret_key! {
    /// Opens the keyring and nothing else.
    MasterKey,
    /// Seals shard headers and leaf lists.
    HeaderKey,
    /// Makes object names.
    NameKey,
    /// Seals claims and heads.
    HeadKey,
    /// Seals the service's own section of commit blocks: public parts and system records.
    LogKey,
    /// Seals the local journal and ledger.
    LedgerKey,
    /// Makes verifiers of API keys.
    ApiKey,
    /// Seals provider credentials at rest.
    CredentialKey,
    /// Seals one tenant's sections.
    TenantKey,
    /// Makes a tenant's bucket keys for chunk ids.
    DedupKey,
    /// Makes the references that public parts of one tenant's records show.
    ReferenceKey,
}

impl ApiKey {
    /// The verifier of an API key's secret: keyed BLAKE3, so that a stolen ledger does not give secrets away.
    pub fn verifier(&self, secret: &[u8]) -> [u8; 32] {
        keyed(&self.0, &[secret])
    }
}

impl ReferenceKey {
    /// What stands for an id in public parts: the first 16 bytes of keyed BLAKE3. Equal ids of one tenant have equal references,
    /// so that an auditor can follow a thing he cannot name. The nil id, which is nobody, stands for itself.
    pub fn of(&self, id: &[u8; 16]) -> Reference {
        if *id == [0; 16] {
            return Reference::NIL;
        }
        let hash = keyed(&self.0, &[b"diaspore/v1/reference\0", id]);
        let mut short = [0; 16];
        short.iter_mut().zip(&hash).for_each(|(to, from)| *to = *from);
        Reference::from_bytes(short)
    }
}

impl MasterKey {
    /// The key that names keyring objects; recovery knows nothing but the master key.
    pub fn keyring_name_key(&self) -> NameKey {
        NameKey(derive(&self.0, b"diaspore/v1/keyring-names"))
    }
}

impl DedupKey {
    /// The chunk hasher of one bucket: equal chunks of different buckets have unrelated ids.
    pub fn bucket(&self, bucket: &BucketId) -> ChunkHasher {
        // Two keys of 16 and 36 input bytes: neither can be the other's.
        let bucket = bucket.as_bytes();
        ChunkHasher { chunk: keyed(&self.0, &[bucket]), purpose: keyed(&self.0, &[b"diaspore/v1/purpose\0", bucket]) }
    }
}

/// Makes chunk ids of one bucket, and under a second key whatever else is hashed in it.
#[derive(zeroize::ZeroizeOnDrop)]
#[expect(missing_debug_implementations, reason = "a key is never printed")]
pub struct ChunkHasher {
    chunk: [u8; 32],
    purpose: [u8; 32],
}

impl ChunkHasher {
    /// Keyed BLAKE3 of the plain bytes of a chunk.
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        ChunkId::from_bytes(keyed(&self.chunk, &[plain]))
    }

    /// Keyed BLAKE3 of any bytes for another purpose in the same bucket: `"chunker"`, `"body"`, `"request"` (docs/format.md,
    /// section 3). Its key is not that of chunk ids: under one key, a chunk crafted to begin like a purpose would have had an id
    /// equal to that purpose's hash.
    pub fn keyed(&self, purpose: &str, bytes: &[u8]) -> [u8; 32] {
        keyed(&self.purpose, &[&u64::to_be_bytes(purpose.len() as u64), purpose.as_bytes(), bytes])
    }
}

/// Keyed BLAKE3 over the parts, joined. The state holds the key, so it is wiped.
fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    let hash = *hasher.finalize().as_bytes();
    hasher.zeroize();
    hash
}

/// HKDF-Expand-SHA-256 (RFC 5869) of a uniformly random key under a label.
pub(crate) fn derive(key: &[u8; 32], label: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    expand(key, &[label], &mut out);
    out
}

/// HKDF-Expand-SHA-256 into `out`, at most 255 * 32 bytes.
pub(crate) fn expand(key: &[u8; 32], info: &[&[u8]], out: &mut [u8]) {
    // Neither call can fail: the key is as long as the hash, and no caller asks for more than 76 bytes. If one ever
    // did, `out` would stay zero and every commitment check would refuse it.
    if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(key) {
        let done = hkdf.expand_multi_info(info, out);
        debug_assert!(done.is_ok(), "HKDF output too long");
    }
}

/// The deployment's Ed25519 signing key: signs manifests, claims, heads and checkpoints.
#[expect(missing_debug_implementations, reason = "a key is never printed")]
pub struct LogIdentity(SigningKey);

impl LogIdentity {
    /// A fresh identity.
    pub fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let identity = Self::from_bytes(&seed);
        seed.zeroize();
        identity
    }

    /// The identity with this seed (RFC 8032 private key).
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed: for the keyring, nothing else.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    pub fn public(&self) -> LogPublicKey {
        LogPublicKey(self.0.verifying_key())
    }

    /// Ed25519 over `domain ‖ 0x00 ‖ message`. The zero byte keeps every domain apart from signed notes, which are text.
    pub fn sign(&self, domain: &str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&separated(domain, message)).to_bytes()
    }

    /// Ed25519 over the bare text of a signed note.
    pub(crate) fn sign_note(&self, text: &str) -> [u8; 64] {
        self.0.sign(text.as_bytes()).to_bytes()
    }
}

/// The public half of a [`LogIdentity`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogPublicKey(VerifyingKey);

impl LogPublicKey {
    /// From its 32 bytes (RFC 8032); refuses points that are not on the curve and weak keys.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        match VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            _ => Err(BlockError::Malformed { what: "log public key" }),
        }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Checks a signature made by [`LogIdentity::sign`], strictly (no malleable or small-order signature passes).
    pub fn verify(&self, domain: &str, message: &[u8], signature: &[u8; 64], what: &'static str) -> Result<()> {
        self.verify_bare(&separated(domain, message), signature, what)
    }

    pub(crate) fn verify_bare(&self, bytes: &[u8], signature: &[u8; 64], what: &'static str) -> Result<()> {
        self.0.verify_strict(bytes, &Signature::from_bytes(signature)).map_err(|_| BlockError::NotAuthentic { what })
    }
}

fn separated(domain: &str, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(domain.len() + 1 + message.len());
    bytes.extend_from_slice(domain.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(message);
    bytes
}
