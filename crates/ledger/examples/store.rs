//! Writes a small ledger in which every table has rows: `cargo run -p diaspore-ledger --example store -- FOLDER`.
//!
//! Run before a change of the schema, it makes the old store that the migration is tested with (`tests/fixtures/stores`). Key, records and
//! randomness are fixed. The ledger is closed once in between, so that both streams of the journal have two segments.
#![expect(clippy::print_stdout, reason = "prints what it wrote")]

use std::error::Error;

use bytes::Bytes;
use diaspore_block::cell::block_root;
use diaspore_block::geometry::{Geometry, shard_len_for};
use diaspore_block::id::{
    Attempt, BlockId, BucketId, ChunkId, Counter, Epoch, Hash32, IncarnationId, KeyVersion, PrincipalId, Seq, SubjectId, TenantId,
    Timestamp, VersionId,
};
use diaspore_block::key::{LedgerKey, ReferenceKey};
use diaspore_block::log::LogTree;
use diaspore_block::manifest::{BlockKind, CodeId};
use diaspore_block::record::{
    ApiKeyCreated, ApiKeyRevoked, BlobDeleted, BlobPut, BucketCreated, BucketDeleted, BulkAdded, ChunkEntry, ChunkRef, Class,
    CommitReleased, Content, Decision, Encoding, Idempotency, KeyringChanged, Outcome, Placement, Private, ProviderConfigured, Record,
    RecordFacts, SectionInfo, ServiceStarted, TenantCreated,
};
use diaspore_block::seal::PREFIX_LEN;
use diaspore_ledger::{
    AppliedBlock, BlockFacts, FileMedium, IncarnationNote, IssuedBlock, JournalEntry, KeyringCopy, Ledger, LogHead, OpenMode, ReleasedNote,
    SCHEMA,
};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

type Done<T> = Result<T, Box<dyn Error>>;

const KEY: [u8; 32] = [0x51; 32];
const TENANTS: [TenantId; 2] = [TenantId::from_bytes([0xa1; 16]), TenantId::from_bytes([0xa2; 16])];
const INCARNATIONS: [IncarnationId; 2] = [IncarnationId::from_bytes([0x11; 16]), IncarnationId::from_bytes([0x12; 16])];
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const PAYLOAD_LEN: u16 = 8264;

/// An id that says which number it has.
fn id16(kind: u8, number: u64) -> [u8; 16] {
    let mut id = [kind; 16];
    id.iter_mut().skip(8).zip(number.to_be_bytes()).for_each(|(slot, byte)| *slot = byte);
    id
}

fn bucket(number: u64) -> BucketId {
    BucketId::from_bytes(id16(0xb0, number))
}

fn version(number: u64) -> VersionId {
    VersionId::from_bytes(id16(0xe0, number))
}

fn bulk_id(number: u64) -> BlockId {
    BlockId::from_bytes(id16(0xd0, number))
}

fn chunk(number: u64) -> ChunkId {
    ChunkId::from_bytes(*Hash32::from_bytes([u8::try_from(number % 251).unwrap_or_default(); 32]).as_bytes())
}

fn chunk_entry(in_bucket: u64, number: u64) -> ChunkEntry {
    ChunkEntry {
        bucket: bucket(in_bucket),
        id: chunk(number),
        section: 0,
        offset: 16 * u32::try_from(number).unwrap_or_default(),
        stored_len: 50,
        plain_len: 100,
        encoding: Encoding::ZstdFramed,
    }
}

fn placements(acked: u8) -> Vec<Placement> {
    (0..5).map(|shard| Placement { shard, provider: format!("provider-{shard}"), acked: shard < acked }).collect()
}

fn tenant_created(index: usize) -> Private {
    let tenant = TENANTS.get(index).copied().unwrap_or(TenantId::SYSTEM);
    TenantCreated { tenant, name: format!("tenant-{index}") }.into()
}

fn bucket_created(number: u64) -> Private {
    BucketCreated { bucket: bucket(number), name: format!("bucket-{number}"), key_version: KeyVersion(1) }.into()
}

fn put(in_bucket: u64, key: &str, number: u64, chunks: &[u64]) -> Private {
    let refs: Vec<_> = chunks.iter().map(|number| ChunkRef { id: chunk(*number), len: 100 }).collect();
    BlobPut {
        bucket: bucket(in_bucket),
        key: key.as_bytes().to_vec(),
        version: version(number),
        size: 100 * refs.len() as u64,
        content_type: number.is_multiple_of(2).then(|| "text/plain".to_owned()),
        metadata: vec![("number".to_owned(), number.to_string())],
        sha256: number.is_multiple_of(3).then_some([0x5a; 32]),
        etag: id16(0xef, number),
        class: Class::Quorum,
        content: Content { depth: 0, refs },
        idempotency: number.is_multiple_of(4).then(|| Idempotency {
            key_hash: *Hash32::from_bytes([u8::try_from(number).unwrap_or(0xff); 32]).as_bytes(),
            request_hash: [1; 32],
        }),
    }
    .into()
}

fn delete(in_bucket: u64, key: &str, number: u64) -> Private {
    let idempotency = Some(Idempotency { key_hash: [0xde; 32], request_hash: [2; 32] });
    BlobDeleted { bucket: bucket(in_bucket), key: key.as_bytes().to_vec(), version: version(number), idempotency }.into()
}

fn api_key(number: u64, tenant: TenantId) -> Private {
    ApiKeyCreated {
        id: PrincipalId::from_bytes(id16(0x90, number)),
        tenant,
        name: format!("key-{number}"),
        verifier: [0x77; 32],
        scopes: vec!["read".to_owned(), "write".to_owned()],
        expires: Some(Timestamp(900 * DAY_MS)),
    }
    .into()
}

/// A ledger under construction, and the log it states.
struct Store {
    ledger: Ledger,
    tree: LogTree,
    next: Seq,
    incarnation: IncarnationId,
    time_ms: u64,
}

impl Store {
    fn open(folder: &str, seed: u64, tree: LogTree, incarnation: IncarnationId) -> Done<Self> {
        let rng = Box::new(ChaCha20Rng::seed_from_u64(seed));
        let ledger = Ledger::open(FileMedium::new(folder), &LedgerKey::from_bytes(KEY), OpenMode::ReadWrite, rng)?;
        let next = ledger.report().applied.next();
        Ok(Self { ledger, tree, next, incarnation, time_ms: 100 * DAY_MS + 1000 * next.get() })
    }

    fn facts(&self, tenant: TenantId, kind: BlockKind, id: BlockId, number: u64, acked: u8) -> Done<BlockFacts> {
        Ok(BlockFacts {
            id,
            kind,
            incarnation: self.incarnation,
            counter: Counter(number),
            attempt: Attempt(0),
            geometry: Geometry::new(3, 5)?,
            code: CodeId::from_u8(1).ok_or("no such code")?,
            payload_len: PAYLOAD_LEN.into(),
            shard_len: shard_len_for(PAYLOAD_LEN.into(), 3)?,
            block_root: block_root(&[Hash32::from_bytes([3; 32]); 5]),
            shard_roots: vec![Hash32::from_bytes([3; 32]); 5],
            manifest_hash: Hash32::from_bytes([u8::try_from(number % 251)?; 32]),
            sections: vec![SectionInfo {
                tenant,
                key_version: KeyVersion(1),
                offset: 0,
                plain_len: 8192,
                seg_log2: 13,
                prefix: [5; PREFIX_LEN],
            }],
            placements: placements(acked),
        })
    }

    fn bulk(&self, tenant: TenantId, number: u64, acked: u8, chunks: Vec<ChunkEntry>) -> Done<Private> {
        let facts = self.facts(tenant, BlockKind::Bulk, bulk_id(number), number, acked)?;
        Ok(BulkAdded {
            block: facts.id,
            incarnation: facts.incarnation,
            counter: facts.counter,
            attempt: facts.attempt,
            geometry: facts.geometry,
            code: facts.code,
            payload_len: facts.payload_len,
            shard_len: facts.shard_len,
            block_root: facts.block_root,
            shard_roots: facts.shard_roots,
            manifest_hash: facts.manifest_hash,
            placements: facts.placements,
            sections: facts.sections,
            chunks,
        }
        .into())
    }

    fn commit_id(seq: Seq) -> BlockId {
        BlockId::from_bytes(id16(0xc0, seq.get()))
    }

    /// Issues, releases and applies the next commit block as an engine does.
    fn commit(&mut self, tenant: TenantId, kind: BlockKind, records: Vec<Private>, chunks: Vec<ChunkEntry>) -> Done<Seq> {
        let seq = self.next;
        self.time_ms += 1000;
        let records: Vec<_> = records
            .into_iter()
            .map(|private| {
                let facts = RecordFacts {
                    tenant: if private.belongs_to(tenant) { tenant } else { TenantId::SYSTEM },
                    subject: SubjectId::from_bytes([6; 16]),
                    principal: PrincipalId::from_bytes([8; 16]),
                    time: Timestamp(self.time_ms),
                    class: Class::Quorum,
                    outcome: Outcome::Done,
                };
                Record::new(facts, private, [9; 32], &ReferenceKey::from_bytes([10; 32]))
            })
            .collect();
        for record in &records {
            self.tree.append(record.public().leaf());
        }
        let log = Some(LogHead { size: self.tree.size(), root: self.tree.root() });
        let facts = self.facts(tenant, kind, Self::commit_id(seq), seq.get(), 4)?;
        self.ledger.append(JournalEntry::Block(IssuedBlock {
            seq,
            incarnation: self.incarnation,
            counter: facts.counter,
            attempt: facts.attempt,
            block: facts.id,
            manifest: Bytes::from_static(b"a manifest"),
            payload: Bytes::from(vec![u8::try_from(seq.get() % 251)?; 200]),
        }))?;
        self.ledger.append(JournalEntry::Released(ReleasedNote {
            seq,
            incarnation: self.incarnation,
            attempt: facts.attempt,
            placements: placements(4),
        }))?;
        self.ledger.sync()?;
        self.ledger.apply(&AppliedBlock { seq, facts, records, chunks, log })?;
        self.next = seq.next();
        Ok(seq)
    }

    fn settle(&self, seq: Seq) -> Done<()> {
        Ok(self.ledger.update_placement(Self::commit_id(seq), placements(5))?)
    }

    fn claim(&self, epoch: u64) -> Done<()> {
        let note = IncarnationNote { incarnation: self.incarnation, epoch: Epoch(epoch), started: Timestamp(self.time_ms), k_floor: 3 };
        self.ledger.append(JournalEntry::Chain(note))?;
        Ok(self.ledger.append(JournalEntry::Keyring(KeyringCopy { version: epoch, sealed: vec![0x42; 64] }))?)
    }
}

fn decision(predecessor: Option<(IncarnationId, Epoch)>, last_valid: Seq, tree: &LogTree) -> Private {
    Decision {
        predecessor,
        last_valid,
        log_size: tree.size(),
        log_root: tree.root(),
        carried: Vec::new(),
        passed_over: Vec::new(),
        lost_declared: Vec::new(),
        may_have_lost: Vec::new(),
    }
    .into()
}

/// The first life: two tenants, blobs small and large, some overwritten, some deleted.
fn first_life(store: &mut Store) -> Done<()> {
    let [one, two] = TENANTS;
    store.claim(1)?;
    let started = ServiceStarted { incarnation: store.incarnation, version: "0.1.0".to_owned() };
    let first = decision(None, Seq(0), &store.tree);
    let decided = store.commit(TenantId::SYSTEM, BlockKind::Decision, vec![first, started.into()], vec![])?;
    store.settle(decided)?;
    let configured = ProviderConfigured {
        provider: "provider-0".to_owned(),
        domain: "domain-0".to_owned(),
        domain_declared: true,
        what: "added".to_owned(),
    };
    let names = store.commit(
        one,
        BlockKind::Commit,
        vec![tenant_created(0), bucket_created(1), bucket_created(2), api_key(1, one), configured.into()],
        vec![],
    )?;
    store.settle(names)?;
    store.commit(two, BlockKind::Commit, vec![tenant_created(1), bucket_created(3), api_key(2, two)], vec![])?;
    let bulk = store.bulk(one, 1, 4, vec![chunk_entry(1, 20), chunk_entry(1, 21)])?;
    let settled_bulk = store.bulk(one, 2, 5, vec![chunk_entry(1, 22)])?;
    let large = put(1, "large", 1, &[20, 21, 22, 20]);
    store.commit(one, BlockKind::Commit, vec![bulk, settled_bulk, large], vec![])?;
    for number in 2..26 {
        let records = vec![put(1, &format!("photos/{}/{number:04}", number % 3), number, &[number])];
        let seq = store.commit(one, BlockKind::Commit, records, vec![chunk_entry(1, number)])?;
        if number.is_multiple_of(2) {
            store.settle(seq)?;
        }
    }
    store.commit(two, BlockKind::Commit, vec![put(3, "other", 30, &[30])], vec![chunk_entry(3, 30)])?;
    store.commit(one, BlockKind::Commit, vec![put(1, "photos/0/0003", 31, &[3]), delete(1, "photos/1/0004", 4)], vec![])?;
    store.ledger.flush_view()?;
    Ok(())
}

/// The second: decided over the first, which had issued more than was valid; a day later what was to be forgotten is.
fn second_life(store: &mut Store) -> Done<()> {
    let [one, two] = TENANTS;
    let [before, _] = INCARNATIONS;
    store.claim(2)?;
    let last_valid = Seq(store.next.get() - 1);
    store.ledger.append(JournalEntry::Dropped { incarnation: before, from: Counter(last_valid.get() + 1) })?;
    let second = decision(Some((before, Epoch(1))), last_valid, &store.tree);
    store.commit(TenantId::SYSTEM, BlockKind::Decision, vec![second], vec![])?;
    let released = CommitReleased {
        seq: last_valid,
        attempt: Attempt(0),
        manifest_hash: Hash32::from_bytes([u8::try_from(last_valid.get() % 251)?; 32]),
        placements: placements(5),
    };
    let changed = KeyringChanged { version: 2, reason: "a new generation".to_owned() };
    store.commit(TenantId::SYSTEM, BlockKind::Commit, vec![released.into(), changed.into()], vec![])?;
    store.time_ms += 2 * DAY_MS;
    let revoked = ApiKeyRevoked { id: PrincipalId::from_bytes(id16(0x90, 1)) };
    let gone = BucketDeleted { bucket: bucket(2), name: "bucket-2".to_owned() };
    store.commit(one, BlockKind::Commit, vec![revoked.into(), gone.into(), put(1, "remembered", 40, &[40])], vec![chunk_entry(1, 40)])?;
    let again = store.bulk(two, 3, 5, vec![chunk_entry(3, 30), chunk_entry(3, 50)])?;
    store.commit(two, BlockKind::Commit, vec![again, put(3, "other/large", 44, &[30, 50])], vec![])?;
    // What the log holds that was never applied: issued, released, and on its way when the process ended.
    let seq = store.next;
    let facts = store.facts(one, BlockKind::Commit, Store::commit_id(seq), seq.get(), 3)?;
    store.ledger.append(JournalEntry::Block(IssuedBlock {
        seq,
        incarnation: store.incarnation,
        counter: facts.counter,
        attempt: facts.attempt,
        block: facts.id,
        manifest: Bytes::from_static(b"a manifest"),
        payload: Bytes::from_static(b"issued and not released"),
    }))?;
    store.ledger.sync()?;
    store.ledger.flush_view()?;
    Ok(())
}

fn main() -> Done<()> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    let [first, second] = INCARNATIONS;
    let mut store = Store::open(&folder, 1, LogTree::new(), first)?;
    first_life(&mut store)?;
    let tree = store.tree.clone();
    drop(store);
    let mut store = Store::open(&folder, 2, tree, second)?;
    second_life(&mut store)?;
    store.ledger.check()?;
    let state = store.ledger.snapshot()?;
    println!("schema {SCHEMA}, applied {}, log {} leaves", state.applied_seq()?.get(), state.log_size()?);
    println!("log root {:?}", state.log_root(state.log_size()?)?);
    println!("{:#?}", state.totals()?);
    Ok(())
}
