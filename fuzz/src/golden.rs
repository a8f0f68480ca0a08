//! The golden vectors as keys to seal with and as good inputs to mutate.

use std::fmt;
use std::sync::OnceLock;

use diaspore_block::claim::{Claim, Head};
use diaspore_block::codec::encode;
use diaspore_block::commit::{CommitBody, open_whole};
use diaspore_block::compacted::{self, CompactedRoot};
use diaspore_block::decode::decode;
use diaspore_block::id::{Attempt, Counter, Epoch, IncarnationId};
use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_block::limits::{HEADER_LEN, MAX_SHARD_OBJECT};
use diaspore_block::log::Checkpoint;
use diaspore_block::manifest::{BlockKind, BlockPosition, Manifest};
use diaspore_block::name::{KeyringNames, Names, ShardAddress};
use diaspore_block::record::{Content, Private, Record};
use diaspore_block::seal::{Context, Salt, open_object, seal_object};
use diaspore_block::shard::{ShardHeader, VerifiedCells, header_context};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/vectors/", $name)).as_slice()
    };
}

const FIRST: IncarnationId = IncarnationId::from_bytes([0x1c; 16]);
const SECOND: IncarnationId = IncarnationId::from_bytes([0x1d; 16]);

/// What the vectors hold, opened.
pub struct Golden {
    pub(crate) master: MasterKey,
    pub(crate) keys: Keyring,
    pub(crate) names: Names,
    pub(crate) claim: Claim,
    pub(crate) head: Head,
    pub(crate) sealed_claim: Vec<u8>,
    pub(crate) sealed_head: Vec<u8>,
    pub(crate) manifests: Vec<Manifest>,
    /// Plaintexts of shard headers.
    pub(crate) headers: Vec<Vec<u8>>,
    pub(crate) shards: Vec<Vec<u8>>,
    /// Where those shards lie.
    pub(crate) addresses: Vec<ShardAddress<'static>>,
    pub(crate) records: Vec<Record>,
    pub(crate) lists: Vec<Vec<u8>>,
    /// Section entries with their payload behind them.
    pub(crate) sections: Vec<Vec<u8>>,
    /// Commit bodies as the target of that name takes them.
    pub(crate) bodies: Vec<Vec<u8>>,
    /// Where the last of them stands.
    pub(crate) position: BlockPosition,
    pub(crate) compressed: Vec<u8>,
    /// A root, and the rows of its first part.
    pub(crate) compacted: Vec<Vec<u8>>,
    pub(crate) note: Vec<u8>,
    pub(crate) checkpoint: Checkpoint,
}

/// The vectors, opened once.
pub fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| load().unwrap_or_else(|error| panic!("the golden vectors do not open: {error}")))
}

impl fmt::Debug for Golden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Golden").finish_non_exhaustive()
    }
}

/// Seals under a salt that is always the same: nothing here is secret.
pub(crate) fn seal(key: &[u8; 32], context: &Context, plain: &[u8]) -> Vec<u8> {
    seal_object(key, Salt::draw(&mut ChaCha8Rng::seed_from_u64(0)), context, plain).unwrap_or_default()
}

/// A block's place (whose, which, and the attempt that counted) with the files of its shards.
type Files = (BlockKind, IncarnationId, u64, u8, Vec<&'static [u8]>);

fn blocks() -> [Files; 7] {
    [
        (BlockKind::Decision, FIRST, 0, 0, vec![vector!("decision-0.shard"), vector!("decision-1.shard")]),
        (BlockKind::Commit, FIRST, 1, 0, vec![vector!("commit-0.shard"), vector!("commit-1.shard")]),
        (BlockKind::Decision, SECOND, 0, 0, vec![vector!("turn-0.shard"), vector!("turn-1.shard"), vector!("turn-2.shard")]),
        (BlockKind::Commit, SECOND, 1, 3, vec![vector!("later-0.shard"), vector!("later-1.shard")]),
        (BlockKind::Bulk, SECOND, 0, 0, vec![vector!("packed-0.shard"), vector!("packed-1.shard")]),
        (BlockKind::Compacted, FIRST, 4, 0, vec![vector!("root-0.shard"), vector!("root-1.shard")]),
        (BlockKind::Compacted, FIRST, 2, 0, vec![vector!("part-a-0.shard"), vector!("part-a-1.shard")]),
    ]
}

fn load() -> diaspore_block::Result<Golden> {
    let mut master = [0; 32];
    for (byte, digits) in master.iter_mut().zip(vector!("master.key").as_chunks::<2>().0) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or(0);
        *byte = digit(digits[0]) << 4 | digit(digits[1]);
    }
    let master = MasterKey::from_bytes(master);
    let name = KeyringNames::new(&master).keyring("alpha", 3);
    let place = KeyringPlace::Provider { provider: "alpha", name: &name, version: 3 };
    let keys = Keyring::open(&master, &place, vector!("keyring.sealed"))?;
    let names = Names::new(&keys.name);
    let public = keys.identity.public();
    let (sealed_claim, sealed_head) = (vector!("claim.sealed").to_vec(), vector!("head.sealed").to_vec());
    let name = names.claim("alpha", FIRST, Epoch(2));
    let claim = Claim::open(&keys.head, &public, keys.deployment, ("alpha", &name), &sealed_claim)?;
    let name = names.head("beta", FIRST, Counter(4));
    let head = Head::open(&keys.head, &public, keys.deployment, ("beta", &name), &sealed_head)?;

    let (mut manifests, mut headers, mut shards, mut addresses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut records, mut lists, mut sections, mut bodies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut position, mut compacted) = (None, Vec::<Vec<u8>>::new());
    for (kind, incarnation, counter, attempt, files) in blocks() {
        let mut cells = Vec::new();
        for (file, provider) in files.into_iter().zip(["alpha", "beta", "gamma"]) {
            let address = ShardAddress { provider, kind, incarnation, counter: Counter(counter), attempt: Attempt(attempt) };
            let name = names.shard(&address);
            let (_, verified) = VerifiedCells::open_object(&keys.header, &public, keys.deployment, &address, &name, &file.to_vec().into())?;
            let front = file.get(..HEADER_LEN).unwrap_or_default();
            let context = header_context(keys.deployment, &address, &name);
            headers.push(open_object(keys.header.expose(), &context, front, MAX_SHARD_OBJECT, "shard header")?);
            cells.push(verified);
            shards.push(file.to_vec());
            addresses.push(address);
        }
        let first = addresses.get(addresses.len() - cells.len()).copied();
        let Some(address) = first else { continue };
        let name = names.shard(&address);
        let front = shards.get(shards.len() - cells.len()).and_then(|shard| shard.get(..HEADER_LEN)).unwrap_or_default();
        let manifest = ShardHeader::open(&keys.header, &public, keys.deployment, &address, &name, front)?.manifest().clone();
        if kind.has_records() {
            let payload = decode(&manifest, &cells, 0..manifest.payload_len)?;
            let opened = CommitBody::open(&manifest, &payload, &keys)?;
            lists.push(encode(&opened.sections));
            lists.push(encode(&opened.chunks.iter().map(|(_, entry)| entry.clone()).collect::<Vec<_>>()));
            let mut body = vec![0];
            for (index, section) in (0u8..).zip(&opened.sections) {
                let plain = open_whole(&manifest.position, index, section, &payload, &keys)?;
                body.extend(u16::try_from(plain.len()).unwrap_or(u16::MAX).to_be_bytes());
                body.extend(&plain);
                let mut entry = encode(section);
                entry.extend_from_slice(&payload);
                sections.push(entry);
            }
            bodies.push(body);
            for record in opened.body.records() {
                match record.private() {
                    Private::BulkAdded(added) => lists.push(encode(added)),
                    Private::BlobPut(put) => lists.push(Content::encode_list(&put.content.refs)),
                    _ => (),
                }
            }
            records.extend_from_slice(opened.body.records());
            position = Some(manifest.position);
        }
        if kind == BlockKind::Compacted {
            let payload = decode(&manifest, &cells, 0..manifest.payload_len)?;
            let mut plain = compacted::open(&manifest, &payload, &keys)?;
            if let Some(root) = compacted.first() {
                let root = CompactedRoot::from_bytes(root)?;
                plain = root.parts.first().map_or(Ok(Vec::new()), |part| part.unpack(plain, root.end_of(0)))?;
            }
            compacted.push(plain);
        }
        manifests.push(manifest);
    }
    let mut compressed = vec![1, 0x82, 0xb8];
    compressed.extend_from_slice(vector!("compressed.chunk"));
    let note = vector!("checkpoint.note").to_vec();
    let checkpoint = Checkpoint::open(&String::from_utf8_lossy(&note), &public)?;
    let position = position.unwrap_or_else(|| panic!("no commit block among the golden vectors"));
    Ok(Golden {
        master,
        keys,
        names,
        claim,
        head,
        sealed_claim,
        sealed_head,
        manifests,
        headers,
        shards,
        addresses,
        records,
        lists,
        sections,
        bodies,
        position,
        compressed,
        compacted,
        note,
        checkpoint,
    })
}
