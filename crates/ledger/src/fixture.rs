//! Records and blocks for the tests: small, valid by default, different each time.

use diaspore_block::cell::block_root;
use diaspore_block::geometry::{Geometry, shard_len_for};
use diaspore_block::id::{
    Attempt, BlockId, BucketId, ChunkId, Counter, Hash32, IncarnationId, KeyVersion, PrincipalId, Seq, SubjectId, TenantId, Timestamp,
    VersionId,
};
use diaspore_block::key::{LedgerKey, ReferenceKey};
use diaspore_block::manifest::{BlockKind, CodeId};
use diaspore_block::record::{
    BlobDeleted, BlobPut, BlocksCondemned, BucketCreated, BucketDeleted, BulkAdded, ChunkEntry, ChunkRef, Class, CommitReleased,
    CondemnReason, Content, Encoding, Idempotency, Outcome, Placement, Private, Record, RecordFacts, SectionInfo, TenantCreated,
};
use diaspore_block::seal::PREFIX_LEN;
use rand::{CryptoRng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::{AppliedBlock, BlockFacts, Ledger, LedgerError, Medium, OpenMode};

pub(crate) const TENANT: TenantId = TenantId::from_bytes([0xaa; 16]);

pub(crate) fn key() -> LedgerKey {
    LedgerKey::from_bytes([7; 32])
}

pub(crate) fn rng(seed: u64) -> Box<dyn CryptoRng + Send> {
    Box::new(ChaCha20Rng::seed_from_u64(seed))
}

pub(crate) fn open(medium: impl Medium, seed: u64) -> Result<Ledger, LedgerError> {
    Ledger::open(medium, &key(), OpenMode::ReadWrite, rng(seed))
}

/// An id made of a number, so that tests can name it again.
pub(crate) fn id16(kind: u8, number: u64) -> [u8; 16] {
    let mut id = [kind; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    id
}

pub(crate) fn bucket(number: u64) -> BucketId {
    BucketId::from_bytes(id16(0xbb, number))
}

pub(crate) fn chunk(number: u64) -> ChunkId {
    let mut id = [0xcc; 32];
    id[24..].copy_from_slice(&number.to_be_bytes());
    ChunkId::from_bytes(id)
}

pub(crate) fn block_id(number: u64) -> BlockId {
    BlockId::from_bytes(id16(0xdd, number))
}

/// Id of the bulk block that [`bulk`] brings.
pub(crate) fn bulk_id(number: u64) -> BlockId {
    BlockId::from_bytes(id16(0xd0, number))
}

pub(crate) fn placements(acked: u8) -> Vec<Placement> {
    (0..5).map(|shard| Placement { shard, provider: format!("provider-{shard}"), acked: shard < acked }).collect()
}

pub(crate) fn section() -> SectionInfo {
    SectionInfo { tenant: TENANT, key_version: KeyVersion(1), offset: 0, plain_len: 8192, seg_log2: 13, prefix: [5; PREFIX_LEN] }
}

pub(crate) fn chunk_entry(bucket_number: u64, chunk_number: u64) -> ChunkEntry {
    ChunkEntry {
        bucket: bucket(bucket_number),
        id: chunk(chunk_number),
        section: 0,
        offset: 16,
        stored_len: 50,
        plain_len: 100,
        encoding: Encoding::ZstdFramed,
    }
}

/// The commit block with sequence `seq`, at quorum.
pub(crate) fn facts(seq: u64) -> BlockFacts {
    BlockFacts {
        id: block_id(seq),
        kind: BlockKind::Commit,
        incarnation: IncarnationId::from_bytes([1; 16]),
        counter: Counter(seq - 1),
        attempt: Attempt(0),
        geometry: Geometry::new(3, 5).unwrap(),
        code: CodeId::from_u8(1).unwrap(),
        payload_len: 8264,
        shard_len: shard_len_for(8264, 3).unwrap(),
        block_root: block_root(&[Hash32::from_bytes([3; 32]); 5]),
        shard_roots: vec![Hash32::from_bytes([3; 32]); 5],
        manifest_hash: Hash32::from_bytes([4; 32]),
        sections: vec![section()],
        placements: placements(4),
    }
}

pub(crate) fn record_at(private: impl Into<Private>, time_ms: u64) -> Record {
    let private = private.into();
    let facts = RecordFacts {
        tenant: if private.belongs_to(TENANT) { TENANT } else { TenantId::SYSTEM },
        subject: SubjectId::from_bytes([6; 16]),
        principal: PrincipalId::from_bytes([8; 16]),
        time: Timestamp(time_ms),
        class: Class::Quorum,
        outcome: Outcome::Done,
    };
    Record::new(facts, private, [9; 32], &ReferenceKey::from_bytes([10; 32]))
}

pub(crate) fn applied(seq: u64, private: Vec<Private>, chunks: Vec<ChunkEntry>) -> AppliedBlock {
    let records = private.into_iter().map(|private| record_at(private, 1_000 + seq)).collect();
    AppliedBlock { seq: Seq(seq), facts: facts(seq), records, chunks, log: None }
}

pub(crate) fn tenant_created() -> Private {
    TenantCreated { tenant: TENANT, name: "canary-tenant".to_owned() }.into()
}

pub(crate) fn bucket_created(number: u64) -> Private {
    BucketCreated { bucket: bucket(number), name: format!("canary-bucket-{number}"), key_version: KeyVersion(1) }.into()
}

pub(crate) fn bucket_deleted(number: u64) -> Private {
    BucketDeleted { bucket: bucket(number), name: format!("canary-bucket-{number}") }.into()
}

pub(crate) fn put(bucket_number: u64, key: &[u8], version: u64, chunk_number: u64) -> Private {
    BlobPut {
        bucket: bucket(bucket_number),
        key: key.to_vec(),
        version: VersionId::from_bytes(id16(0xee, version)),
        size: 100 + version % 7,
        content_type: Some("text/canary".to_owned()),
        metadata: vec![("canary-name".to_owned(), "canary-value".to_owned())],
        sha256: None,
        etag: id16(0xef, version),
        class: Class::Quorum,
        content: Content { depth: 0, refs: vec![ChunkRef { id: chunk(chunk_number), len: 100 + version % 7 }] },
        idempotency: Some(Idempotency { key_hash: [u8::try_from(version % 251).unwrap(); 32], request_hash: [1; 32] }),
    }
    .into()
}

pub(crate) fn delete(bucket_number: u64, key: &[u8], version: u64) -> Private {
    let version = VersionId::from_bytes(id16(0xee, version));
    BlobDeleted { bucket: bucket(bucket_number), key: key.to_vec(), version, idempotency: None }.into()
}

pub(crate) fn bulk(number: u64, bucket_number: u64, chunk_number: u64, acked: u8) -> Private {
    let facts = facts(1);
    BulkAdded {
        block: bulk_id(number),
        incarnation: facts.incarnation,
        counter: Counter(number),
        attempt: Attempt(0),
        geometry: facts.geometry,
        code: facts.code,
        payload_len: facts.payload_len,
        shard_len: facts.shard_len,
        block_root: facts.block_root,
        shard_roots: facts.shard_roots,
        manifest_hash: facts.manifest_hash,
        placements: placements(acked),
        sections: facts.sections,
        chunks: vec![chunk_entry(bucket_number, chunk_number)],
    }
    .into()
}

pub(crate) fn released(seq: u64, acked: u8) -> Private {
    CommitReleased { seq: Seq(seq), attempt: Attempt(0), manifest_hash: facts(seq).manifest_hash, placements: placements(acked) }.into()
}

pub(crate) fn condemn(blocks: &[BlockId]) -> Private {
    BlocksCondemned { blocks: blocks.to_vec(), reason: CondemnReason::Dead }.into()
}

/// The first two blocks of every test: a tenant with bucket 1, then one blob `canary-key`.
pub(crate) fn first_blocks() -> Vec<AppliedBlock> {
    vec![
        applied(1, vec![tenant_created(), bucket_created(1)], vec![]),
        applied(2, vec![put(1, b"canary-key", 1, 1)], vec![chunk_entry(1, 1)]),
    ]
}
