use proptest::prelude::*;

use super::*;
use crate::codec::{decode, encode};
use crate::id::{Attempt, BlockId, BucketId, ChunkId, Counter, Epoch, IncarnationId, KeyVersion, Seq, VersionId};
use crate::limits::PRIVATE_VERSION;
use crate::manifest::CodeId;
use crate::seal::PREFIX_LEN;

fn samples() -> Vec<Private> {
    let placement = Placement { shard: 1, provider: "alpha".into(), acked: true };
    let bucket = BucketId::from_bytes([1; 16]);
    let incarnation = IncarnationId::from_bytes([2; 16]);
    let version = VersionId::from_bytes([3; 16]);
    let hash = Hash32::from_bytes([4; 32]);
    let idempotency = Some(Idempotency { key_hash: [5; 32], request_hash: [6; 32] });
    let section = SectionInfo {
        tenant: TenantId::from_bytes([7; 16]),
        key_version: KeyVersion(1),
        offset: 0,
        plain_len: 1000,
        seg_log2: 16,
        prefix: [8; PREFIX_LEN],
    };
    let chunk = ChunkEntry {
        bucket,
        id: ChunkId::from_bytes([9; 32]),
        section: 0,
        offset: 10,
        stored_len: 900,
        plain_len: 4000,
        encoding: Encoding::ZstdFramed,
    };
    vec![
        TenantCreated { tenant: TenantId::from_bytes([7; 16]), name: "tenant".into() }.into(),
        BucketCreated { bucket, name: "b\u{fc}cket".into(), key_version: KeyVersion(1) }.into(),
        BlobPut {
            bucket,
            key: vec![0, 255],
            version,
            size: 1 << 40,
            content_type: None,
            metadata: vec![(String::new(), "x".into())],
            sha256: Some([1; 32]),
            etag: [2; 16],
            class: Class::Full,
            content: Content { depth: 1, refs: vec![ChunkRef { id: chunk.id, len: 1 << 40 }] },
            idempotency: idempotency.clone(),
        }
        .into(),
        BlobDeleted { bucket, key: b"k".to_vec(), version, idempotency }.into(),
        BulkAdded {
            block: BlockId::from_bytes([1; 16]),
            incarnation,
            counter: Counter(0),
            attempt: Attempt(0),
            geometry: crate::geometry::Geometry::new(2, 3).unwrap(),
            code: CodeId::ReedSolomonVandermonde,
            payload_len: 1072,
            shard_len: crate::geometry::shard_len_for(1072, 2).unwrap(),
            block_root: crate::cell::block_root(&[hash; 3]),
            shard_roots: vec![hash; 3],
            manifest_hash: hash,
            placements: vec![placement.clone()],
            sections: vec![section.clone()],
            chunks: vec![chunk],
        }
        .into(),
        CommitReleased { seq: Seq(1), attempt: Attempt(3), manifest_hash: hash, placements: vec![placement] }.into(),
        Decision {
            predecessor: Some((incarnation, Epoch(1))),
            last_valid: Seq(5),
            log_size: 6,
            log_root: hash,
            carried: vec![(Seq(5), Counter(0))],
            passed_over: vec![incarnation],
            lost_declared: vec!["beta".into()],
            may_have_lost: vec![Seq(5)],
        }
        .into(),
        AuditDropped { count: 3 }.into(),
        ApiKeyCreated {
            id: PrincipalId::from_bytes([3; 16]),
            tenant: TenantId::from_bytes([7; 16]),
            name: "client".into(),
            verifier: [1; 32],
            scopes: vec!["read".into()],
            expires: Some(Timestamp(9)),
        }
        .into(),
        ApiKeyRevoked { id: PrincipalId::from_bytes([3; 16]) }.into(),
    ]
    .into_iter()
    .chain(upkeep(&section))
    .collect()
}

fn upkeep(section: &SectionInfo) -> Vec<Private> {
    let (block, hash) = (BlockId::from_bytes([1; 16]), Hash32::from_bytes([4; 32]));
    let incarnation = IncarnationId::from_bytes([2; 16]);
    let part = BulkAdded {
        block,
        incarnation,
        counter: Counter(0),
        attempt: Attempt(0),
        geometry: crate::geometry::Geometry::new(2, 3).unwrap(),
        code: CodeId::ReedSolomonVandermonde,
        payload_len: 1072,
        shard_len: crate::geometry::shard_len_for(1072, 2).unwrap(),
        block_root: crate::cell::block_root(&[hash; 3]),
        shard_roots: vec![hash; 3],
        manifest_hash: hash,
        placements: vec![Placement { shard: 1, provider: "alpha".into(), acked: true }],
        sections: vec![SectionInfo { tenant: TenantId::SYSTEM, key_version: KeyVersion(0), ..section.clone() }],
        chunks: Vec::new(),
    };
    let compacted = LogCompacted {
        covers: Seq(9),
        incarnation,
        counter: Counter(3),
        log_size: 20,
        log_root: hash,
        root: block,
        parts: vec![BlockId::from_bytes([2; 16])],
    };
    vec![
        BlocksCondemned { blocks: vec![block], reason: CondemnReason::Rewritten }.into(),
        BlocksErased { blocks: vec![block] }.into(),
        ShardsMoved { moves: vec![Move { block, shard: 4, provider: "beta".into() }] }.into(),
        PartsAdded { parts: vec![part] }.into(),
        compacted.into(),
        ProviderStateSet { provider: "beta".into(), mode: ProviderMode::Draining, reason: "left".into() }.into(),
        ProviderEvacuated { provider: "beta".into(), blocks: 3, shards: 3, bytes: 9000, left: 0, reachable: true }.into(),
        DrillReported { subsets: 10, subsets_total: 20, blocks: 40, failures: 0, report: hash }.into(),
        SchemaMigrated { from: 1, to: 2, what: "rebuilt".into() }.into(),
        BackupExported { seq: Seq(9), bytes: 4096 }.into(),
    ]
}

#[test]
fn upkeep_that_does_not_fit_is_refused() {
    let section = SectionInfo {
        tenant: TenantId::from_bytes([7; 16]),
        key_version: KeyVersion(1),
        offset: 0,
        plain_len: 1000,
        seg_log2: 16,
        prefix: [8; PREFIX_LEN],
    };
    let mut refused = 0;
    for private in upkeep(&section) {
        private.check().unwrap();
        let wrong: Vec<Private> = match private {
            Private::ShardsMoved(moved) => {
                let with = |change: &dyn Fn(&mut Move)| {
                    let mut moved = moved.clone();
                    change(&mut moved.moves[0]);
                    moved.into()
                };
                vec![
                    with(&|moved| moved.shard = 32),
                    with(&|moved| moved.provider.clear()),
                    with(&|moved| moved.provider = "x".repeat(256)),
                ]
            }
            // A tenant's section in a part would lie under the wrong key.
            Private::PartsAdded(added) => {
                let mut of_tenant = added.clone();
                of_tenant.parts[0].sections[0].tenant = section.tenant;
                let mut misfit = added;
                misfit.parts[0].shard_len += 1;
                vec![of_tenant.into(), misfit.into()]
            }
            Private::LogCompacted(compacted) => vec![
                LogCompacted { covers: Seq(0), ..compacted.clone() }.into(),
                LogCompacted { log_size: 0, ..compacted.clone() }.into(),
                LogCompacted { parts: vec![compacted.root], ..compacted }.into(),
            ],
            _ => Vec::new(),
        };
        for private in wrong {
            assert!(private.check().is_err(), "{private:?}");
            refused += 1;
        }
    }
    assert_eq!(refused, 8);
}

fn facts() -> RecordFacts {
    RecordFacts {
        tenant: TenantId::SYSTEM,
        subject: SubjectId::NIL,
        principal: PrincipalId::NIL,
        time: Timestamp(1),
        class: Class::Quorum,
        outcome: Outcome::Done,
    }
}

#[test]
fn every_private_part_comes_back_and_no_other_length_does() {
    for private in samples() {
        let part = PrivatePart::new(SubjectId::from_bytes([5; 16]), PrincipalId::from_bytes([6; 16]), private.clone());
        let encoded = part.encode();
        assert_eq!(encoded.len(), private.encoded_len());
        assert_eq!(PrivatePart::decode(&encoded).unwrap(), part);
        for cut in 0..encoded.len() {
            assert!(PrivatePart::decode(&encoded[..cut]).is_err(), "{:?} cut at {cut}", private.kind());
        }
        assert!(PrivatePart::decode(&[encoded.as_slice(), &[0]].concat()).is_err());
        let newer = [&[PRIVATE_VERSION + 1], &encoded[1..]].concat();
        assert!(matches!(PrivatePart::decode(&newer), Err(BlockError::Unsupported { .. })));
        let kind = [&[PRIVATE_VERSION, 99], &encoded[2..]].concat();
        assert_eq!(PrivatePart::decode(&kind), Err(BlockError::Unsupported { what: "kind of a record", version: 99 }));
    }
}

fn key(byte: u8) -> ReferenceKey {
    ReferenceKey::from_bytes([byte; 32])
}

#[test]
fn a_record_refuses_another_private_part() {
    let first = Private::from(AuditDropped { count: 3 });
    let second = Private::from(AuditDropped { count: 4 });
    let record = Record::new(facts(), first, [1; 32], &key(1));
    let public = *record.public();
    let encoded = record.encode_private();
    let open = |public, blind, private: &[u8]| Record::from_parts(TenantId::SYSTEM, public, blind, private);
    assert_eq!(open(public, [1; 32], &encoded).unwrap(), record);
    assert!(open(public, [2; 32], &encoded).is_err());
    assert!(open(public, [1; 32], &PrivatePart::new(record.subject(), record.principal(), second).encode()).is_err());
    // Another principal is another private part: who asked is committed to, although only a reference shows.
    let other = PrivatePart::new(record.subject(), PrincipalId::from_bytes([9; 16]), record.private().clone());
    assert!(open(public, [1; 32], &other.encode()).is_err());
    assert!(open(PublicPart { kind: RecordKind::AuditExported, ..public }, [1; 32], &encoded).is_err());
    assert_eq!(decode::<Record>(&encode(&record), "record").unwrap(), record);
}

#[test]
fn the_public_part_shows_no_id() {
    // Leaves carried raw ids: whoever read an export could join it with anything else that names them.
    let (tenant, subject, principal) =
        (TenantId::from_bytes([0xa1; 16]), SubjectId::from_bytes([0xa2; 16]), PrincipalId::from_bytes([0xa3; 16]));
    let facts = RecordFacts { tenant, subject, principal, ..facts() };
    let denied = || Private::from(AccessDenied { what: "read".into(), count: 1 });
    let record = Record::new(facts, denied(), [1; 32], &key(1));
    let leaf = record.public().encode();
    for id in [tenant.as_bytes(), subject.as_bytes(), principal.as_bytes()] {
        assert!(!leaf.windows(4).any(|window| window == &id[..4]));
    }
    assert!(record.has_references_of(&key(1)));
    assert!(!record.has_references_of(&key(2)), "another tenant's key makes other references");
    let again = Record::new(facts, denied(), [2; 32], &key(1));
    assert_eq!(again.public().principal, record.public().principal, "an auditor can follow whom he cannot name");
    assert_ne!(Record::new(facts, denied(), [1; 32], &key(2)).public().principal, record.public().principal);
    let nobody = RecordFacts { principal: PrincipalId::NIL, ..facts };
    assert_eq!(Record::new(nobody, denied(), [1; 32], &key(1)).public().principal, Reference::NIL);
}

#[test]
fn every_kind_lies_where_its_names_are_safe() {
    let tenant = TenantId::from_bytes([7; 16]);
    let other = TenantId::from_bytes([8; 16]);
    let mut seen = 0;
    for private in samples() {
        let places = [TenantId::SYSTEM, tenant, other].map(|place| private.belongs_to(place));
        let expected = match private.kind() {
            RecordKind::TenantCreated | RecordKind::BulkAdded | RecordKind::ApiKeyCreated => [false, true, false],
            RecordKind::BucketCreated | RecordKind::BlobPut | RecordKind::BlobDeleted => [false, true, true],
            RecordKind::ApiKeyRevoked => [true, true, true],
            _ => [true, false, false],
        };
        assert_eq!(places, expected, "{:?}", private.kind());
        for (place, allowed) in [TenantId::SYSTEM, tenant, other].into_iter().zip(expected) {
            let record = Record::new(RecordFacts { tenant: place, ..facts() }, private.clone(), [1; 32], &key(1));
            let opened = Record::from_parts(place, *record.public(), [1; 32], &record.encode_private());
            assert_eq!(opened.is_ok(), allowed, "{:?}", private.kind());
            seen += usize::from(!allowed);
        }
    }
    assert!(seen > 10);
}

#[test]
fn a_leaf_of_an_unknown_kind_is_newer_and_still_a_leaf() {
    let mut leaf = Record::new(facts(), AuditDropped { count: 3 }.into(), [1; 32], &key(1)).public().encode();
    leaf[1] = 99;
    assert_eq!(PublicPart::decode(&leaf), Err(BlockError::Unsupported { what: "kind of a record", version: 99 }));
    let view = LeafView::of(&leaf).unwrap().unwrap();
    assert_eq!(RecordKind::name_of(view.kind), "kind 99");
    assert_eq!(RecordKind::name_of(4), "BlobPut");
    leaf[127] = 1;
    assert!(LeafView::of(&leaf).is_err());
    leaf[0] = 2;
    assert_eq!(LeafView::of(&leaf).unwrap(), None);
}

#[test]
fn a_value_of_another_version_keeps_its_bytes() {
    // One constant was written at encoding: reading an old block and encoding it again would have broken its commitment.
    let record = Record::new(facts(), AuditDropped { count: 3 }.into(), [1; 32], &key(1));
    let old = PublicPart { version: 77, ..*record.public() };
    assert_eq!(old.encode()[0], 77);
    let part = PrivatePart { version: 77, ..PrivatePart::new(SubjectId::NIL, PrincipalId::NIL, record.private().clone()) };
    assert_eq!(part.encode()[0], 77);
    let manifest = crate::test_world::World::new(1).bulk(b"x", 2, 3).0.manifest().clone();
    let old = crate::manifest::Manifest { version: 77, ..manifest.clone() };
    assert_eq!(old.encode()[0], 77);
    assert_ne!(old.hash(), manifest.hash());
}

#[test]
fn numbers_outside_the_limits_are_refused() {
    let Some(Private::BulkAdded(bulk)) = samples().into_iter().find(|p| p.kind() == RecordKind::BulkAdded) else { panic!() };
    let refused = |change: &dyn Fn(&mut BulkAdded)| {
        let mut changed = bulk.clone();
        change(&mut changed);
        PrivatePart::decode(&PrivatePart::new(SubjectId::NIL, PrincipalId::NIL, changed.into()).encode()).is_err()
    };
    assert!(refused(&|b| b.sections[0].seg_log2 = 63));
    assert!(refused(&|b| b.sections[0].plain_len = 2000));
    assert!(refused(&|b| b.chunks[0].offset = u32::MAX));
    assert!(refused(&|b| b.chunks[0].section = 1));
    assert!(refused(&|b| b.chunks[0].plain_len = u32::MAX));
    assert!(refused(&|b| b.shard_roots.truncate(2)));
    assert!(refused(&|b| b.payload_len += 1));
    assert!(refused(&|b| b.shard_len += 1));
    assert!(refused(&|b| b.attempt = Attempt(4)));
    assert!(refused(&|b| b.block_root = Hash32::ZERO));
    assert!(refused(&|b| b.shard_roots[0] = Hash32::ZERO));
    assert!(refused(&|b| b.placements[0].shard = 3));
    assert!(refused(&|b| b.placements[0].provider.clear()));
    assert!(refused(&|b| b.placements.push(b.placements[0].clone())));
    assert!(refused(&|b| b.sections[0].offset = 1));
    assert!(refused(&|b| b.sections.clear()));
    assert!(refused(&|b| b.chunks[0].encoding = Encoding::Raw));
    assert!(refused(&|b| b.chunks[0].stored_len = 3));
    assert!(!refused(&|b| b.chunks[0].stored_len = 901));
}

#[test]
fn blobs_and_releases_outside_the_limits_are_refused() {
    let decode = |private: Private| PrivatePart::decode(&PrivatePart::new(SubjectId::NIL, PrincipalId::NIL, private).encode());
    let (refused, error) = (|private| decode(private).is_err(), |put: BlobPut| decode(put.into()).unwrap_err());
    let Some(Private::BlobPut(put)) = samples().into_iter().find(|p| p.kind() == RecordKind::BlobPut) else { panic!() };
    let content = |depth, refs: Vec<ChunkRef>| {
        let size = refs.iter().map(|one| one.len).sum();
        Private::from(BlobPut { size, content: Content { depth, refs }, ..put.clone() })
    };
    let one = put.content.refs.clone();
    assert!(!refused(content(3, one.clone())));
    assert!(refused(content(4, one.clone())));
    assert!(refused(content(1, Vec::new())));
    assert!(!refused(content(0, Vec::new())));
    assert!(refused(content(0, vec![one[0].clone(); 513])));
    assert!(refused(BlobPut { key: vec![0; 1025], ..put.clone() }.into()));
    // The references are the blob: no byte more, no byte less, and no sum that wraps around to the size.
    assert_eq!(error(BlobPut { size: put.size + 1, ..put.clone() }), BlockError::Contradiction { what: "size of a blob" });
    assert_eq!(error(BlobPut { size: put.size - 1, ..put.clone() }), BlockError::Contradiction { what: "size of a blob" });
    let half = ChunkRef { len: 1 << 63, ..one[0].clone() };
    let wrapped = BlobPut { size: 0, content: Content { depth: 0, refs: vec![half.clone(), half] }, ..put };
    assert_eq!(error(wrapped), BlockError::Malformed { what: "content of a blob" });
    let placement = Placement { shard: 31, provider: "alpha".into(), acked: true };
    let released = |attempt, placements| Private::from(CommitReleased { seq: Seq(1), attempt, manifest_hash: Hash32::ZERO, placements });
    assert!(!refused(released(Attempt(3), vec![placement.clone()])));
    assert!(refused(released(Attempt(4), vec![placement.clone()])));
    assert!(refused(released(Attempt(0), vec![placement.clone(); 2])));
    assert!(refused(released(Attempt(0), vec![Placement { shard: 32, ..placement }])));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0u8..30) {
        let _private = PrivatePart::decode(&bytes);
        let _typed = PrivatePart::decode(&[&[1, kind], [0; 32].as_slice(), bytes.as_slice()].concat());
        let _record = decode::<Record>(&bytes, "record");
        let _list = Content::decode_list(&bytes);
        if let Some(bytes) = bytes.first_chunk::<PUBLIC_LEN>() {
            let _public = PublicPart::decode(bytes);
        }
        if let Some(bytes) = bytes.first_chunk::<{ crate::manifest::MANIFEST_LEN }>() {
            let _manifest = crate::manifest::Manifest::decode(bytes);
        }
    }

    #[test]
    fn a_list_of_references_comes_back(ids in prop::collection::vec(any::<[u8; 32]>(), 1..50), len in any::<u64>()) {
        let refs: Vec<ChunkRef> = ids.into_iter().map(|id| ChunkRef { id: ChunkId::from_bytes(id), len }).collect();
        let bytes = Content::encode_list(&refs);
        prop_assert_eq!(Content::decode_list(&bytes).unwrap(), refs);
        prop_assert!(Content::decode_list(&bytes[1..]).is_err());
    }
}
