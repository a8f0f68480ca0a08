use proptest::prelude::*;

use super::*;
use crate::codec::{decode, encode};
use crate::id::{Attempt, BlockId, BucketId, ChunkId, Counter, Epoch, IncarnationId, KeyVersion, Seq, VersionId};
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
            size: u64::MAX,
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
            payload_len: 2000,
            shard_len: 1000,
            block_root: hash,
            shard_roots: vec![hash; 3],
            manifest_hash: hash,
            placements: vec![placement.clone()],
            sections: vec![section],
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
    ]
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
        let encoded = private.encode();
        assert_eq!(Private::decode(&encoded).unwrap(), private);
        for cut in 0..encoded.len() {
            assert!(Private::decode(&encoded[..cut]).is_err(), "{:?} cut at {cut}", private.kind());
        }
        assert!(Private::decode(&[encoded.as_slice(), &[0]].concat()).is_err());
        let newer = [&[2], &encoded[1..]].concat();
        assert!(matches!(Private::decode(&newer), Err(BlockError::Unsupported { version: 2, .. })));
    }
}

#[test]
fn a_record_refuses_another_private_part() {
    let all = samples();
    let (first, second) = (all[0].clone(), all[1].clone());
    let record = Record::new(facts(), first.clone(), [1; 32]);
    let public = *record.public();
    assert_eq!(Record::from_parts(public, [1; 32], &first.encode()).unwrap(), record);
    assert!(Record::from_parts(public, [2; 32], &first.encode()).is_err());
    assert!(Record::from_parts(public, [1; 32], &second.encode()).is_err());
    let renamed = PublicPart { kind: RecordKind::AuditDropped, ..public };
    assert!(Record::from_parts(renamed, [1; 32], &first.encode()).is_err());
    assert_eq!(decode::<Record>(&encode(&record), "record").unwrap(), record);
}

#[test]
fn numbers_outside_the_limits_are_refused() {
    let Some(Private::BulkAdded(bulk)) = samples().into_iter().find(|p| p.kind() == RecordKind::BulkAdded) else { panic!() };
    let refused = |change: &dyn Fn(&mut BulkAdded)| {
        let mut changed = bulk.clone();
        change(&mut changed);
        Private::decode(&Private::from(changed).encode()).is_err()
    };
    assert!(refused(&|b| b.sections[0].seg_log2 = 63));
    assert!(refused(&|b| b.sections[0].plain_len = 2000));
    assert!(refused(&|b| b.chunks[0].offset = u32::MAX));
    assert!(refused(&|b| b.chunks[0].section = 1));
    assert!(refused(&|b| b.chunks[0].plain_len = u32::MAX));
    assert!(refused(&|b| b.shard_roots.truncate(2)));
    assert!(!refused(&|b| b.payload_len = 2001));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0u8..30) {
        let _private = Private::decode(&bytes);
        let _typed = Private::decode(&[&[1, kind], bytes.as_slice()].concat());
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
