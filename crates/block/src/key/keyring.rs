//! The keyring: every random key of a deployment, sealed as one object under the master key.

use std::collections::BTreeMap;
use std::fmt;

use rand::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    ApiKey, CredentialKey, DedupKey, HeadKey, HeaderKey, LedgerKey, LogIdentity, LogKey, MasterKey, NameKey, ReferenceKey, TenantKey,
};
use crate::codec::{Field, Reader};
use crate::error::{BlockError, Result};
use crate::id::{DeploymentId, KeyVersion, TenantId};
use crate::limits::{KEYRING_GRAIN, KEYRING_VERSION, MAX_KEYRING};
use crate::name::ObjectName;
use crate::seal::{Context, Salt, SealType, open_object, seal_object};

/// Every random key of a deployment.
pub struct Keyring {
    /// Which deployment; learned from the keyring in recovery.
    pub deployment: DeploymentId,
    /// Generation of this keyring, from 1. Each change makes the next; objects are write-once.
    pub version: u64,
    /// Shard headers and leaf lists.
    pub header: HeaderKey,
    /// Object names.
    pub name: NameKey,
    /// Claims and heads.
    pub head: HeadKey,
    /// The service's own section.
    pub log: LogKey,
    /// References in public parts of the service's own records.
    pub reference: ReferenceKey,
    /// Journal and ledger.
    pub ledger: LedgerKey,
    /// API key verifiers.
    pub api: ApiKey,
    /// Provider credentials at rest.
    pub credential: CredentialKey,
    /// Signs manifests and checkpoints.
    pub identity: LogIdentity,
    /// Keys of every tenant that is not shredded.
    pub tenants: BTreeMap<TenantId, TenantKeys>,
}

/// Keys of one tenant.
pub struct TenantKeys {
    /// Section keys, all generations still needed.
    pub versions: BTreeMap<KeyVersion, TenantKey>,
    /// The generation new sections use.
    pub current: KeyVersion,
    /// From which bucket keys are derived.
    pub dedup: DedupKey,
    /// References in public parts of the tenant's records.
    pub reference: ReferenceKey,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("version", &self.version).finish_non_exhaustive()
    }
}

impl fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantKeys").field("current", &self.current).finish_non_exhaustive()
    }
}

impl TenantKeys {
    /// Fresh keys, generation 1.
    pub fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let current = KeyVersion(1);
        Self {
            versions: BTreeMap::from([(current, TenantKey::draw(rng))]),
            current,
            dedup: DedupKey::draw(rng),
            reference: ReferenceKey::draw(rng),
        }
    }
}

impl Keyring {
    /// Fresh keys for a new deployment, without tenants.
    pub fn create(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self {
            deployment: DeploymentId::draw(rng),
            version: 1,
            header: HeaderKey::draw(rng),
            name: NameKey::draw(rng),
            head: HeadKey::draw(rng),
            log: LogKey::draw(rng),
            reference: ReferenceKey::draw(rng),
            ledger: LedgerKey::draw(rng),
            api: ApiKey::draw(rng),
            credential: CredentialKey::draw(rng),
            identity: LogIdentity::draw(rng),
            tenants: BTreeMap::new(),
        }
    }

    /// The next generation of this keyring with one tenant more; fails if the tenant already has keys.
    ///
    /// The old keyring is consumed: two keyrings of one generation must not come to differ.
    pub fn with_tenant(mut self, tenant: TenantId, keys: TenantKeys) -> Result<Self> {
        if tenant == TenantId::SYSTEM || self.tenants.contains_key(&tenant) {
            return Err(BlockError::Invalid { what: "tenant id for new keys" });
        }
        self.tenants.insert(tenant, keys);
        self.version = self.version.saturating_add(1);
        Ok(self)
    }

    /// A separate copy for a holder of its own, such as a rebuilt keyring in memory while the old one is still in use.
    ///
    /// Deliberate, unlike a `Clone` that an innocent `derive` would call.
    pub fn duplicate(&self) -> Result<Self> {
        Self::take(&mut Reader::new(&self.plain(), "keyring"))
    }

    /// Keys of a tenant.
    pub fn tenant(&self, tenant: TenantId) -> Result<&TenantKeys> {
        self.tenants.get(&tenant).ok_or(BlockError::KeyMissing { tenant, version: KeyVersion(0) })
    }

    /// The key of a section: the log key for the service itself, the tenant's key of that generation otherwise.
    pub fn section_key(&self, tenant: TenantId, version: KeyVersion) -> Result<&[u8; 32]> {
        if tenant == TenantId::SYSTEM {
            return Ok(self.log.expose());
        }
        self.tenants
            .get(&tenant)
            .and_then(|keys| keys.versions.get(&version))
            .map(TenantKey::expose)
            .ok_or(BlockError::KeyMissing { tenant, version })
    }

    /// The key that makes references in public parts of records in this tenant's section.
    pub fn reference_key(&self, tenant: TenantId) -> Result<&ReferenceKey> {
        if tenant == TenantId::SYSTEM { Ok(&self.reference) } else { self.tenant(tenant).map(|keys| &keys.reference) }
    }

    /// Seals the keyring under the master key for one place. Every copy has a salt of its own, or providers could tell by equal
    /// bytes which of their customers are one.
    pub fn seal(&self, master: &MasterKey, place: &KeyringPlace<'_>, salt: Salt) -> Result<Vec<u8>> {
        if place.version().is_some_and(|version| version != self.version) {
            return Err(BlockError::Invalid { what: "keyring version" });
        }
        let mut plain = self.plain();
        let padded = plain.len().next_multiple_of(KEYRING_GRAIN);
        plain.resize(padded, 0);
        if plain.len() > MAX_KEYRING {
            return Err(BlockError::Invalid { what: "keyring size" });
        }
        seal_object(master.expose(), salt, &place.context(), &plain)
    }

    /// Opens the keyring that was sealed for this place.
    pub fn open(master: &MasterKey, place: &KeyringPlace<'_>, sealed: &[u8]) -> Result<Self> {
        let plain = Zeroizing::new(open_object(master.expose(), &place.context(), sealed, MAX_KEYRING, "keyring")?);
        let mut reader = Reader::new(&plain, "keyring");
        let keyring = Self::take(&mut reader)?;
        if reader.remaining() >= KEYRING_GRAIN || place.version().is_some_and(|version| version != keyring.version) {
            return Err(reader.malformed());
        }
        reader.zeros_to_end()?;
        Ok(keyring)
    }

    /// Whether both hold the same keys, compared without an early end.
    pub fn is_same(&self, other: &Self) -> bool {
        self.plain().as_slice().ct_eq(other.plain().as_slice()).into()
    }

    /// The encoding, in a buffer that never moves: growing one would leave copies of keys behind.
    fn plain(&self) -> Zeroizing<Vec<u8>> {
        let tenants: usize = self.tenants.values().map(|keys| TENANT_LEN + keys.versions.len() * VERSION_LEN).sum();
        let mut plain = Zeroizing::new(Vec::with_capacity((Self::MIN_LEN + tenants).next_multiple_of(KEYRING_GRAIN)));
        self.put(&mut plain);
        debug_assert!(plain.len() <= Self::MIN_LEN + tenants, "the capacity was foreseen");
        plain
    }
}

/// Where one copy of the keyring lies: what its seal is bound to, besides the master key.
#[derive(Debug, Clone, Copy)]
pub enum KeyringPlace<'a> {
    /// On the service's own disk, where the newest version is kept alone.
    OwnDisk,
    /// At a provider.
    Provider {
        /// The operator's name of the account.
        provider: &'a str,
        /// Its object there.
        name: &'a ObjectName,
        /// The version that the name stands for.
        version: u64,
    },
}

impl KeyringPlace<'_> {
    const fn version(&self) -> Option<u64> {
        match self {
            Self::OwnDisk => None,
            Self::Provider { version, .. } => Some(*version),
        }
    }

    /// Recovery does not know the deployment before it opens the keyring, so the context cannot name it.
    fn context(&self) -> Context {
        let context = Context::new(SealType::Keyring, DeploymentId::NIL);
        match self {
            Self::OwnDisk => context.text("").text("own disk").field(&[0; 8]),
            Self::Provider { provider, name, version } => context.text(provider).text(name.as_str()).field(&version.to_be_bytes()),
        }
    }
}

/// Bytes of a tenant's entry without its versions.
const TENANT_LEN: usize = 16 + 4 + 32 + 32 + 4;
/// Bytes of one version of a tenant's key.
const VERSION_LEN: usize = 4 + 32;

impl Field for Keyring {
    const MIN_LEN: usize = 1 + 16 + 8 + 9 * 32 + 4;

    fn put(&self, out: &mut Vec<u8>) {
        out.push(KEYRING_VERSION);
        self.deployment.put(out);
        self.version.put(out);
        self.header.put(out);
        self.name.put(out);
        self.head.put(out);
        self.log.put(out);
        self.reference.put(out);
        self.ledger.put(out);
        self.api.put(out);
        self.credential.put(out);
        self.identity.expose().put(out);
        crate::codec::length(self.tenants.len()).put(out);
        for (tenant, keys) in &self.tenants {
            tenant.put(out);
            keys.current.put(out);
            keys.dedup.put(out);
            keys.reference.put(out);
            crate::codec::length(keys.versions.len()).put(out);
            for (version, key) in &keys.versions {
                version.put(out);
                key.put(out);
            }
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        let version = reader.value::<u8>()?;
        if version != KEYRING_VERSION {
            return Err(if version > KEYRING_VERSION { BlockError::Unsupported { what: "keyring", version } } else { reader.malformed() });
        }
        let mut keyring = Self {
            deployment: reader.value()?,
            version: reader.value()?,
            header: reader.value()?,
            name: reader.value()?,
            head: reader.value()?,
            log: reader.value()?,
            reference: reader.value()?,
            ledger: reader.value()?,
            api: reader.value()?,
            credential: reader.value()?,
            identity: LogIdentity::from_bytes(&Zeroizing::new(reader.array()?)),
            tenants: BTreeMap::new(),
        };
        for _ in 0..reader.value::<u32>()? {
            let tenant: TenantId = reader.value()?;
            let current = reader.value()?;
            let dedup = reader.value()?;
            let reference = reader.value()?;
            let mut versions = BTreeMap::new();
            for _ in 0..reader.value::<u32>()? {
                let version: KeyVersion = reader.value()?;
                // Ascending order makes the encoding unique.
                if versions.last_key_value().is_some_and(|(last, _)| *last >= version) {
                    return Err(reader.malformed());
                }
                versions.insert(version, reader.value()?);
            }
            let ascending = keyring.tenants.last_key_value().is_none_or(|(last, _)| *last < tenant);
            if !ascending || tenant == TenantId::SYSTEM || !versions.contains_key(&current) {
                return Err(reader.malformed());
            }
            keyring.tenants.insert(tenant, TenantKeys { versions, current, dedup, reference });
        }
        Ok(keyring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::KeyringNames;
    use crate::test_world::{World, rng};

    #[test]
    fn a_keyring_comes_back_under_its_master_key_only() {
        let mut world = World::new(1);
        let master = MasterKey::draw(&mut world.rng);
        let names = KeyringNames::new(&master);
        let (name, next) = (names.keyring("alpha", 2), names.keyring("alpha", 3));
        let place = KeyringPlace::Provider { provider: "alpha", name: &name, version: 2 };
        let sealed = world.keys.seal(&master, &place, Salt::draw(&mut world.rng)).unwrap();
        let opened = Keyring::open(&master, &place, &sealed).unwrap();
        assert!(opened.is_same(&world.keys));
        assert!(!opened.is_same(&World::new(2).keys));
        assert_eq!(opened.deployment, world.keys.deployment);
        assert_eq!(opened.version, 2);
        assert_eq!(crate::codec::encode(&opened), crate::codec::encode(&world.keys));
        assert_eq!(crate::codec::encode(&world.keys.duplicate().unwrap()), crate::codec::encode(&world.keys));
        let wrong = Keyring::open(&MasterKey::draw(&mut rng(9)), &place, &sealed).unwrap_err();
        assert_eq!(wrong, BlockError::NotAuthentic { what: "keyring" });
        // A copy moved to another provider, another name or another version does not open.
        let moved = [
            KeyringPlace::OwnDisk,
            KeyringPlace::Provider { provider: "beta", name: &name, version: 2 },
            KeyringPlace::Provider { provider: "alpha", name: &next, version: 2 },
            KeyringPlace::Provider { provider: "alpha", name: &name, version: 3 },
        ];
        for place in moved {
            assert_eq!(Keyring::open(&master, &place, &sealed).unwrap_err(), BlockError::NotAuthentic { what: "keyring" });
        }
        let later = KeyringPlace::Provider { provider: "alpha", name: &next, version: 3 };
        assert!(world.keys.seal(&master, &later, Salt::draw(&mut world.rng)).is_err());
        let local = world.keys.seal(&master, &KeyringPlace::OwnDisk, Salt::draw(&mut world.rng)).unwrap();
        assert!(Keyring::open(&master, &KeyringPlace::OwnDisk, &local).unwrap().is_same(&world.keys));
        let mut newer = vec![0; KEYRING_GRAIN];
        newer[0] = 2;
        let newer = seal_object(master.expose(), Salt::draw(&mut world.rng), &place.context(), &newer).unwrap();
        assert!(matches!(Keyring::open(&master, &place, &newer), Err(BlockError::Unsupported { version: 2, .. })));
        for at in [0, 30, 60, sealed.len() - 1] {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(Keyring::open(&master, &place, &flipped).is_err());
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let world = World::new(2);
        let text = format!("{:?} {:?}", world.keys, world.keys.tenants);
        assert!(text.len() < 200, "{text}");
    }

    #[test]
    fn bucket_keys_are_unrelated() {
        use crate::id::BucketId;
        let world = World::new(3);
        let keys = world.keys.tenant(world.tenant).unwrap();
        let (a, b) = (keys.dedup.bucket(&BucketId::from_bytes([1; 16])), keys.dedup.bucket(&BucketId::from_bytes([2; 16])));
        assert_ne!(a.chunk_id(b"same"), b.chunk_id(b"same"));
        assert_eq!(a.chunk_id(b"same"), a.chunk_id(b"same"));
        // A chunk that spells out what is hashed for a purpose does not get that hash as its id.
        let crafted = [7u64.to_be_bytes().as_slice(), b"request", b"bytes"].concat();
        assert_ne!(a.chunk_id(&crafted).as_bytes(), &a.keyed("request", b"bytes"));
        assert_ne!(a.chunk_id(&[&[0xff], crafted.as_slice()].concat()).as_bytes(), &a.keyed("request", b"bytes"));
        assert_ne!(a.keyed("request", b"bytes"), b.keyed("request", b"bytes"));
    }
}
