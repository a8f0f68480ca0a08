use proptest::prelude::*;

use super::*;
use crate::block::encode;
use crate::geometry::{Geometry, max_payload};
use crate::id::{Attempt, Counter, IncarnationId, PrincipalId, SubjectId, Timestamp, VersionId};
use crate::key::TenantKeys;
use crate::manifest::BlockKind;
use crate::record::{BlobPut, ChunkRef, Class, Content, Outcome, Private, RecordFacts, ServiceStarted};
use crate::test_world::{World, bytes};

fn record(world: &mut World, tenant: TenantId, private: Private) -> Record {
    let facts = RecordFacts {
        tenant,
        subject: SubjectId::from_bytes([2; 16]),
        principal: PrincipalId::NIL,
        time: Timestamp(1_790_000_000_000),
        class: Class::Quorum,
        outcome: Outcome::Done,
    };
    let mut blind = [0; 32];
    rand::Rng::fill_bytes(&mut world.rng, &mut blind);
    Record::new(facts, private, blind, world.keys.reference_key(tenant).unwrap())
}

fn put(key: &[u8], chunk: ChunkId) -> Private {
    BlobPut {
        bucket: BucketId::from_bytes([4; 16]),
        key: key.to_vec(),
        version: VersionId::from_bytes([5; 16]),
        size: 9,
        content_type: Some("text/plain".into()),
        metadata: vec![("a".into(), "b".into())],
        sha256: None,
        etag: [6; 16],
        class: Class::Quorum,
        content: Content { depth: 0, refs: vec![ChunkRef { id: chunk, len: 9 }] },
        idempotency: None,
    }
    .into()
}

/// Two tenants and the service, mixed.
fn body(world: &mut World, blobs: usize, len: usize) -> CommitBody {
    let second = TenantId::from_bytes([1; 16]);
    world.keys.tenants.insert(second, TenantKeys::draw(&mut world.rng));
    let mut body = CommitBody::new();
    for i in 0..blobs {
        let tenant = if i % 2 == 0 { world.tenant } else { second };
        let id = ChunkId::from_bytes([u8::try_from(i % 256).unwrap(); 32]);
        let put = record(world, tenant, put(format!("key {i}").as_bytes(), id));
        body.push_record(put, KeyVersion(1)).unwrap();
        let stored = bytes(i as u64, len);
        body.push_chunk(tenant, KeyVersion(1), BucketId::from_bytes([4; 16]), id, (length(len), Encoding::Raw), &stored).unwrap();
        let started = ServiceStarted { incarnation: IncarnationId::NIL, version: "1".into() };
        let system = record(world, TenantId::SYSTEM, started.into());
        body.push_record(system, KeyVersion(0)).unwrap();
    }
    body
}

fn sealed(world: &mut World, body: &CommitBody) -> (Manifest, Vec<u8>) {
    let at = world.position(BlockKind::Commit);
    let (payload, first) = body.seal(&at, &world.keys, max_payload(3), &mut world.rng).unwrap();
    assert_eq!(payload.bytes.len() as u64, body.sealed_len());
    let coded = encode(payload.bytes.clone(), Geometry::new(3, 5).unwrap(), [1; 32]).unwrap();
    let block = coded.sign(at, first, World::log(BlockKind::Commit), &world.keys.identity);
    (block.manifest().clone(), payload.bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_body_comes_back_whole(blobs in 0usize..20, len in 0usize..20_000, seed in any::<u64>()) {
        let mut world = World::new(seed);
        let body = body(&mut world, blobs, len);
        let (manifest, payload) = sealed(&mut world, &body);
        let opened = CommitBody::open(&manifest, &payload, &world.keys).unwrap();
        prop_assert_eq!(&opened.body, &body);
        prop_assert_eq!(opened.chunks.len(), blobs);
        // Every chunk is where its entry says, through a ranged read of its section alone.
        for ((tenant, place), (_, _, stored)) in opened.chunks.iter().zip(body.chunks()) {
            let section = &opened.sections[usize::from(place.section)];
            prop_assert_eq!(section.tenant, *tenant);
            let (range, span) = section_span(section, place.offset..place.offset + place.stored_len).unwrap();
            let opener = open_section(&manifest.position, place.section, section, &world.keys).unwrap();
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            prop_assert_eq!(opener.open_span(&span, &payload[range]).unwrap(), stored);
        }
        prop_assert!(CommitBody::open(&manifest, &payload[1..], &world.keys).is_err());
    }

    #[test]
    fn any_flipped_byte_is_refused(at in any::<usize>(), bit in 0u8..8) {
        let mut world = World::new(1);
        let body = body(&mut world, 4, 700);
        let (manifest, mut payload) = sealed(&mut world, &body);
        let at = at % payload.len();
        payload[at] ^= 1 << bit;
        prop_assert!(CommitBody::open(&manifest, &payload, &world.keys).is_err());
    }
}

#[test]
fn another_attempt_has_other_bytes_and_the_same_leaves() {
    let mut world = World::new(2);
    let body = body(&mut world, 3, 50);
    let first = world.position(BlockKind::Commit);
    let second = BlockPosition { attempt: Attempt(2), counter: Counter(9), ..first };
    let seal = |at: &BlockPosition, world: &mut World| body.seal(at, &world.keys, 1 << 20, &mut world.rng).unwrap().0.bytes;
    assert_ne!(seal(&first, &mut world), seal(&second, &mut world));
    let (manifest, payload) = sealed(&mut world, &body);
    let opened = CommitBody::open(&manifest, &payload, &world.keys).unwrap();
    assert_eq!(opened.body.leaves().collect::<Vec<_>>(), body.leaves().collect::<Vec<_>>());
    let moved = Manifest { position: BlockPosition { attempt: Attempt(3), ..manifest.position }, ..manifest };
    assert!(CommitBody::open(&moved, &payload, &world.keys).is_err());
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_sealing() {
    let mut world = World::new(3);
    let body = body(&mut world, 3, 5000);
    let at = world.position(BlockKind::Commit);
    assert!(matches!(body.seal(&at, &world.keys, 9000, &mut world.rng), Err(BlockError::Full { .. })));
}

#[test]
fn of_a_shredded_tenant_the_leaves_remain() {
    let mut world = World::new(4);
    let body = body(&mut world, 4, 50);
    let (manifest, payload) = sealed(&mut world, &body);
    let gone = TenantId::from_bytes([1; 16]);
    world.keys.tenants.remove(&gone);
    let refused = CommitBody::open(&manifest, &payload, &world.keys).unwrap_err();
    assert_eq!(refused, BlockError::KeyMissing { tenant: gone, version: KeyVersion(1) });
    let opened = CommitBody::open_partly(&manifest, &payload, &world.keys).unwrap();
    assert_eq!(opened.shredded, [(gone, KeyVersion(1))]);
    assert_eq!(opened.records.iter().map(|record| record.public().leaf()).collect::<Vec<_>>(), body.leaves().collect::<Vec<_>>());
    for (record, written) in opened.records.iter().zip(body.records()) {
        match record {
            OpenedRecord::Whole(record) => assert_eq!(record, written),
            OpenedRecord::Shredded(public) => assert_eq!((written.tenant(), public), (gone, written.public())),
        }
    }
    assert_eq!(opened.chunks.len(), 2);
}

/// Seals a body whose tenant section is `plain`, below a section 0 with one public part.
fn forged(world: &mut World, public: &PublicPart, plain: &[u8]) -> Result<OpenedCommit> {
    let at = world.position(BlockKind::Commit);
    let mut builder = PayloadBuilder::new(max_payload(3), 0);
    builder.begin(TenantId::SYSTEM, KeyVersion(0), COMMIT_SEGMENT_LOG2).unwrap();
    let mut first = vec![0; 2 + SectionInfo::MIN_LEN];
    vec![*public].put(&mut first);
    0u32.put(&mut first);
    builder.push(&first).unwrap();
    builder.begin(world.tenant, KeyVersion(1), COMMIT_SEGMENT_LOG2).unwrap();
    builder.push(plain).unwrap();
    let mut table = vec![COMMIT_VERSION, 1];
    builder.seal_section(1, &at, &world.keys, &mut world.rng).unwrap().put(&mut table);
    builder.overwrite(0, 0, &table).unwrap();
    builder.seal_section(0, &at, &world.keys, &mut world.rng).unwrap();
    let coded = encode(builder.into_bytes(), Geometry::new(3, 5).unwrap(), [1; 32]).unwrap();
    let block = coded.sign(at, length(first.len()), World::log(BlockKind::Commit), &world.keys.identity);
    CommitBody::open(block.manifest(), &block.payload(), &world.keys)
}

#[test]
fn a_section_is_its_records_and_its_chunks_and_nothing_else() {
    let mut world = World::new(5);
    let tenant = world.tenant;
    let id = ChunkId::from_bytes([3; 32]);
    let put = record(&mut world, tenant, put(b"key", id));
    let public = *put.public();
    let mut privates = Vec::new();
    1u32.put(&mut privates);
    0u32.put(&mut privates);
    put.blind().put(&mut privates);
    length(put.encode_private().len()).put(&mut privates);
    privates.extend(put.encode_private());
    let section = |entries: &[(u32, u32, u32)], tail: usize| {
        let mut plain = privates.clone();
        let base = length(plain.len() + 4 + entries.len() * ChunkEntry::MIN_LEN);
        let entry = |(offset, stored_len, plain_len): &(u32, u32, u32)| {
            let (bucket, encoding) = (BucketId::from_bytes([4; 16]), Encoding::Raw);
            ChunkEntry { bucket, id, section: 1, offset: base + offset, stored_len: *stored_len, plain_len: *plain_len, encoding }
        };
        entries.iter().map(entry).collect::<Vec<_>>().put(&mut plain);
        plain.resize(plain.len() + tail, 7);
        plain
    };
    let mut opens = |plain: Vec<u8>| forged(&mut world, &public, &plain).is_ok();
    assert!(opens(section(&[(0, 4, 4), (4, 5, 5)], 9)));
    assert!(!opens(section(&[(0, 4, 4), (4, 5, 5)], 10)), "bytes that no entry names");
    assert!(!opens(section(&[(0, 4, 4), (5, 4, 4)], 9)), "a gap");
    assert!(!opens(section(&[(4, 5, 5), (0, 4, 4)], 9)), "another order");
    assert!(!opens(section(&[(0, 4, 4), (0, 4, 4)], 4)), "one place twice");
    assert!(!opens(section(&[(0, 4, 5)], 4)), "raw bytes of another length");
    assert!(!opens(vec![0; 8]), "an empty section, and a record without its private part");
    let stranger = Record::new(
        RecordFacts {
            tenant,
            subject: put.subject(),
            principal: put.principal(),
            time: public.time,
            class: public.class,
            outcome: public.outcome,
        },
        put.private().clone(),
        *put.blind(),
        &world.keys.reference,
    );
    let refused = forged(&mut world, stranger.public(), &section(&[], 0)).unwrap_err();
    assert_eq!(refused, BlockError::Contradiction { what: "references of a record" });
}
