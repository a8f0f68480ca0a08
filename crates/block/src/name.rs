//! Object names: what a provider sees. Pseudo-random, write-once, unlinkable, and found by probing upward.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{BlockError, Result};
use crate::id::{Attempt, Counter, Epoch, IncarnationId};
use crate::key::{MasterKey, NameKey};
use crate::limits::MAX_NAME;
use crate::manifest::BlockKind;

/// Path of an object at one provider: `"ab/<38 hex>"` for shards, `"<16 hex>/<40 hex>"` below a listable prefix.
///
/// Where something lies is private: `Debug` hides it and there is no `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// The path text, for the provider request.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A path as a provider listed it; refuses what this format never makes.
    pub fn parse(path: &str) -> Result<Self> {
        let (folder, rest) = path.split_once('/').ok_or(BlockError::Malformed { what: "object name" })?;
        let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let lengths = matches!((folder.len(), rest.len()), (2, 38) | (16, 40));
        if path.len() <= MAX_NAME && lengths && hex(folder) && hex(rest) {
            Ok(Self(path.into()))
        } else {
            Err(BlockError::Malformed { what: "object name" })
        }
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectName(..)")
    }
}

/// Where one shard of one attempt is to lie: everything its name and its header's seal depend on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShardAddress<'a> {
    /// The operator's name of the provider account.
    pub provider: &'a str,
    /// Commit and bulk blocks count apart.
    pub kind: BlockKind,
    /// Whose counter.
    pub incarnation: IncarnationId,
    /// Index of the block in its incarnation and kind.
    pub counter: Counter,
    /// Which coding.
    pub attempt: Attempt,
}

impl fmt::Debug for ShardAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardAddress")
            .field("kind", &self.kind)
            .field("counter", &self.counter)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Makes the names of one deployment: HMAC-SHA-256 under the name key, cut to 20 bytes.
#[expect(missing_debug_implementations, reason = "holds a keyed MAC state")]
pub struct Names(Hmac<Sha256>);

impl Names {
    /// Names under this key.
    pub fn new(key: &NameKey) -> Self {
        Self(keyed(key))
    }

    /// Name of a shard. Decision blocks share the counters, and so the names, of commit blocks: a probe finds both.
    pub fn shard(&self, address: &ShardAddress<'_>) -> ObjectName {
        let hash = hex(&self.shard_tag(address));
        let (folder, rest) = hash.split_at(2);
        ObjectName(format!("{folder}/{rest}").into())
    }

    /// First 8 of the 20 bytes of a shard's name, big-endian: to search many places for one that was listed.
    pub fn shard_short(&self, address: &ShardAddress<'_>) -> u64 {
        self.shard_tag(address).iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
    }

    fn shard_tag(&self, address: &ShardAddress<'_>) -> [u8; 20] {
        let kind = match address.kind {
            BlockKind::Commit | BlockKind::Decision => b"commit".as_slice(),
            BlockKind::Bulk | BlockKind::Compacted => b"bulk",
        };
        let mut position = [0; 25];
        let parts = address.incarnation.as_bytes().iter().copied().chain(address.counter.0.to_be_bytes()).chain([address.attempt.0]);
        position.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        self.tag(kind, address.provider, &position)
    }

    /// Name of a commit or decision block's shard.
    pub fn commit(&self, provider: &str, incarnation: IncarnationId, counter: Counter, attempt: Attempt) -> ObjectName {
        self.shard(&ShardAddress { provider, kind: BlockKind::Commit, incarnation, counter, attempt })
    }

    /// Name of a bulk block's shard.
    pub fn bulk(&self, provider: &str, incarnation: IncarnationId, counter: Counter, attempt: Attempt) -> ObjectName {
        self.shard(&ShardAddress { provider, kind: BlockKind::Bulk, incarnation, counter, attempt })
    }

    /// Prefix (with its slash) under which a provider's claims are listed.
    pub fn claim_prefix(&self, provider: &str) -> String {
        self.prefix(b"claim-prefix", provider)
    }

    /// Name of one incarnation's claim.
    pub fn claim(&self, provider: &str, incarnation: IncarnationId, epoch: Epoch) -> ObjectName {
        let position = [incarnation.as_bytes().as_slice(), &epoch.0.to_be_bytes()].concat();
        self.below(&self.claim_prefix(provider), b"claim", provider, &position)
    }

    /// Prefix (with its slash) under which a provider's heads are listed.
    pub fn head_prefix(&self, provider: &str) -> String {
        self.prefix(b"head-prefix", provider)
    }

    /// Name of a head.
    pub fn head(&self, provider: &str, incarnation: IncarnationId, counter: Counter) -> ObjectName {
        let position = [incarnation.as_bytes().as_slice(), &counter.0.to_be_bytes()].concat();
        self.below(&self.head_prefix(provider), b"head", provider, &position)
    }

    fn prefix(&self, label: &[u8], provider: &str) -> String {
        let tag = hex(&self.tag(label, provider, &[]));
        let (prefix, _) = tag.split_at(16);
        format!("{prefix}/")
    }

    fn below(&self, prefix: &str, label: &[u8], provider: &str, position: &[u8]) -> ObjectName {
        ObjectName(format!("{prefix}{}", hex(&self.tag(label, provider, position))).into())
    }

    fn tag(&self, label: &[u8], provider: &str, position: &[u8]) -> [u8; 20] {
        let mut mac = self.0.clone();
        mac.update(b"diaspore/v1/name\0");
        for part in [label, provider.as_bytes(), position] {
            mac.update(&crate::codec::length(part.len()).to_be_bytes());
            mac.update(part);
        }
        let full = mac.finalize().into_bytes();
        let mut tag = [0; 20];
        tag.iter_mut().zip(full).for_each(|(to, from)| *to = from);
        tag
    }
}

/// Names of keyring objects; derived from the master key, since recovery knows nothing else.
#[expect(missing_debug_implementations, reason = "holds a keyed MAC state")]
pub struct KeyringNames(Names);

impl KeyringNames {
    /// Names under this master key.
    pub fn new(master: &MasterKey) -> Self {
        Self::from_key(&master.keyring_name_key())
    }

    /// The same from the key that a master key names its keyrings with, which opens none of them.
    pub fn from_key(key: &NameKey) -> Self {
        Self(Names::new(key))
    }

    /// Prefix (with its slash) under which a provider's keyrings are listed.
    pub fn prefix(&self, provider: &str) -> String {
        self.0.prefix(b"keyring-prefix", provider)
    }

    /// Name of one version of the keyring.
    pub fn keyring(&self, provider: &str, version: u64) -> ObjectName {
        self.0.below(&self.prefix(provider), b"keyring", provider, &version.to_be_bytes())
    }
}

fn keyed(key: &NameKey) -> Hmac<Sha256> {
    // HMAC pads a short key with zeros to the block of the hash; padding it here leaves no error to handle.
    let mut block = zeroize::Zeroizing::new([0; 64]);
    block.iter_mut().zip(key.expose()).for_each(|(to, from)| *to = *from);
    Hmac::new((&*block).into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        text
    })
}
