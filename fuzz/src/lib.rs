//! Every decoder of bytes that a provider, a client's export or a stranger's note may hold, as plain functions over any input.
//!
//! `cargo +nightly fuzz run TARGET` feeds them from `fuzz_targets`; `crates/block/tests/hostile.rs` feeds them mutated golden vectors on
//! the stable toolchain, so that every test run covers them. A function must return for every input: what it takes, it must also write
//! again as the same bytes, where its format has one encoding per value.
//!
//! Most of what is sealed would be refused at its commitment. So those functions seal their input themselves, under keys that the
//! golden vectors publish, and test what stands behind the seal: the bytes of a writer who has every key, or of a broken one.

#![expect(clippy::expect_used, clippy::panic, reason = "finding what does not hold is what this is for")]

mod golden;

use diaspore_block::BlockError;
use diaspore_block::claim::{Claim, Head};
use diaspore_block::codec::{Field, decode, encode};
use diaspore_block::commit::{CommitBody, open_whole};
use diaspore_block::compacted::{CompactedRoot, each_row};
use diaspore_block::compress::{decompress, decompress_range};
use diaspore_block::id::{Attempt, BlockId, Counter, IncarnationId, KeyVersion, TenantId};
use diaspore_block::key::{Keyring, KeyringPlace};
use diaspore_block::limits::{CLAIM_VERSION, COMMIT_SEGMENT_LOG2, HEAD_LEN, HEADER_LEN, MAX_CHUNK, MAX_CLAIM, MAX_SHARD_OBJECT};
use diaspore_block::log::Checkpoint;
use diaspore_block::log::tile::open_bundle;
use diaspore_block::manifest::{BlockKind, BlockPosition, Manifest};
use diaspore_block::name::ShardAddress;
use diaspore_block::record::{BulkAdded, ChunkEntry, Content, LeafView, PrivatePart, PublicPart, Record, SectionInfo};
use diaspore_block::seal::{Context, Opener, PREFIX_LEN, SealType, sealed_len, span};
use diaspore_block::section::section_context;
use diaspore_block::shard::{KnownShard, LeafList, ShardHeader, VerifiedCells, header_context, leaf_list_len};

use golden::seal;
pub use golden::{Golden, golden};

/// One decoder.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, that of its file in `fuzz_targets`.
    pub name: &'static str,
    /// Feeds it.
    pub run: fn(&[u8]),
    /// Good inputs to mutate.
    pub seeds: fn(&Golden) -> Vec<Vec<u8>>,
    /// How many inputs a bounded run gives it, in relation to the others: the dear ones get fewer.
    pub share: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "manifest", run: manifest, seeds: |golden| golden.manifests.iter().map(|m| m.encode().to_vec()).collect(), share: 20 },
    Target {
        name: "public_part",
        run: public_part,
        seeds: |golden| golden.records.iter().map(|r| encode(r.public())).collect(),
        share: 20,
    },
    Target {
        name: "private_part",
        run: private_part,
        seeds: |golden| golden.records.iter().map(Record::encode_private).collect(),
        share: 20,
    },
    Target { name: "record", run: record, seeds: |golden| golden.records.iter().map(encode).collect(), share: 10 },
    Target { name: "lists", run: lists, seeds: |golden| golden.lists.clone(), share: 10 },
    Target { name: "claim", run: claim, seeds: |golden| vec![encode(&golden.claim)], share: 10 },
    Target { name: "head", run: head, seeds: |golden| vec![encode(&golden.head)], share: 10 },
    Target { name: "parked", run: parked, seeds: |golden| vec![golden.sealed_claim.clone(), golden.sealed_head.clone()], share: 1 },
    Target { name: "keyring", run: keyring, seeds: |golden| vec![encode(&golden.keys)], share: 10 },
    Target { name: "shard_header", run: shard_header, seeds: |golden| golden.headers.clone(), share: 2 },
    Target { name: "shard_object", run: shard_object, seeds: |golden| golden.shards.clone(), share: 2 },
    Target { name: "leaf_list", run: leaf_list, seeds: |golden| golden.shards.clone(), share: 2 },
    Target { name: "section", run: section, seeds: |golden| golden.sections.clone(), share: 5 },
    Target { name: "commit_body", run: commit_body, seeds: |golden| golden.bodies.clone(), share: 5 },
    Target { name: "compressed_chunk", run: compressed_chunk, seeds: |golden| vec![golden.compressed.clone()], share: 3 },
    Target { name: "compacted", run: compacted, seeds: |golden| golden.compacted.clone(), share: 10 },
    Target { name: "note", run: note, seeds: |golden| vec![golden.note.clone()], share: 10 },
    Target {
        name: "bundle",
        run: bundle,
        seeds: |golden| vec![golden.records.iter().flat_map(|r| encode(r.public())).collect()],
        share: 5,
    },
];

/// Feeds the target of this name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(data);
}

/// Lengths of inputs and of what is made of them fit easily.
fn short(len: usize) -> u32 {
    u32::try_from(len).expect("an input of less than 4 GiB")
}

/// Whatever decodes is written again as it was.
fn canonical<T: Field>(data: &[u8]) -> Option<T> {
    let value = decode::<T>(data, "fuzzed").ok()?;
    assert!(encode(&value) == data, "one value, one encoding");
    Some(value)
}

fn manifest(data: &[u8]) {
    let Some(bytes) = data.first_chunk() else { return };
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert!(&manifest.encode() == bytes, "one value, one encoding");
    }
}

fn public_part(data: &[u8]) {
    canonical::<PublicPart>(data);
    if let Some(bytes) = data.first_chunk()
        && PublicPart::decode(bytes).is_ok()
    {
        assert!(LeafView::of(bytes).is_ok_and(|view| view.is_some()), "a verifier takes what a reader takes");
    }
}

fn private_part(data: &[u8]) {
    if let Ok(part) = PrivatePart::decode(data) {
        assert!(part.encode() == data, "one value, one encoding");
        assert_eq!(part.private.encoded_len(), data.len());
    }
}

fn record(data: &[u8]) {
    canonical::<Record>(data);
}

fn lists(data: &[u8]) {
    if let Ok(refs) = Content::decode_list(data) {
        assert!(Content::encode_list(&refs) == data, "one value, one encoding");
    }
    canonical::<BulkAdded>(data);
    canonical::<Vec<ChunkEntry>>(data);
    canonical::<Vec<SectionInfo>>(data);
    canonical::<Vec<PublicPart>>(data);
}

fn claim(data: &[u8]) {
    canonical::<Claim>(data);
}

fn head(data: &[u8]) {
    canonical::<Head>(data);
}

/// A claim's and a head's whole way: the input as sealed bytes, and as a body that the deployment itself signed and sealed.
fn parked(data: &[u8]) {
    let golden = golden();
    let (keys, public) = (&golden.keys, golden.keys.identity.public());
    let incarnation = IncarnationId::NIL;
    let claim_name = golden.names.claim("alpha", incarnation, golden.claim.epoch);
    let head_name = golden.names.head("alpha", incarnation, Counter(0));
    let (at_claim, at_head) = (("alpha", &claim_name), ("alpha", &head_name));
    let signed = |domain: &str, len: usize| {
        let mut plain = vec![CLAIM_VERSION];
        let body = data.get(..data.len().min(len / 2)).unwrap_or_default();
        short(body.len()).put(&mut plain);
        plain.extend_from_slice(body);
        plain.extend_from_slice(&keys.identity.sign(domain, body));
        plain.resize(len, 0);
        plain
    };
    let context = |seal_type, name: &str| Context::new(seal_type, keys.deployment).text("alpha").text(name);
    let sealed = seal(keys.head.expose(), &context(SealType::Claim, claim_name.as_str()), &signed("diaspore/v1/claim", MAX_CLAIM));
    for bytes in [data, &sealed] {
        drop(Claim::open(&keys.head, &public, keys.deployment, at_claim, bytes));
    }
    let sealed = seal(keys.head.expose(), &context(SealType::Head, head_name.as_str()), &signed("diaspore/v1/head", HEAD_LEN));
    for bytes in [data, &sealed] {
        drop(Head::open(&keys.head, &public, keys.deployment, at_head, bytes));
    }
}

/// A root, and the rows of a part.
fn compacted(data: &[u8]) {
    if let Ok(root) = CompactedRoot::from_bytes(data) {
        assert!(root.to_bytes().is_ok_and(|bytes| bytes == data), "one value, one encoding");
        for (at, part) in root.parts.iter().enumerate() {
            drop(part.unpack(data.to_vec(), root.end_of(at)));
        }
    }
    let mut again = Vec::new();
    let rows = each_row::<BlockError>(data, |row| {
        row.put(&mut again);
        Ok(())
    });
    assert!(rows.is_err() || again == data, "one value, one encoding");
}

fn keyring(data: &[u8]) {
    canonical::<Keyring>(data);
    let golden = golden();
    let context = Context::new(SealType::Keyring, diaspore_block::id::DeploymentId::NIL).text("").text("own disk").field(&[0; 8]);
    let sealed = seal(golden.master.expose(), &context, data);
    for bytes in [data, &sealed] {
        drop(Keyring::open(&golden.master, &KeyringPlace::OwnDisk, bytes));
    }
}

fn address() -> ShardAddress<'static> {
    ShardAddress { provider: "alpha", kind: BlockKind::Commit, incarnation: IncarnationId::NIL, counter: Counter(1), attempt: Attempt(0) }
}

fn shard_header(data: &[u8]) {
    let golden = golden();
    let (keys, address) = (&golden.keys, address());
    let name = golden.names.shard(&address);
    let mut plain = data.to_vec();
    plain.resize(HEADER_LEN - PREFIX_LEN - 16, 0);
    let sealed = seal(keys.header.expose(), &header_context(keys.deployment, &address, &name), &plain);
    for bytes in [data, &sealed] {
        if let Ok(header) = ShardHeader::open(&keys.header, &keys.identity.public(), keys.deployment, &address, &name, bytes) {
            drop(header.object_len());
        }
    }
}

fn shard_object(data: &[u8]) {
    let golden = golden();
    let (keys, object) = (&golden.keys, data.to_vec().into());
    for address in &golden.addresses {
        let name = golden.names.shard(address);
        drop(VerifiedCells::open_object(&keys.header, &keys.identity.public(), keys.deployment, address, &name, &object));
    }
}

/// The first four bytes are the shard's length, the rest the list: as sealed bytes, and sealed here.
fn leaf_list(data: &[u8]) {
    let golden = golden();
    let Some((len, rest)) = data.split_first_chunk::<4>() else { return };
    let (keys, address) = (&golden.keys, address());
    let name = golden.names.shard(&address);
    let shard_len = u32::from_be_bytes(*len) % (short(MAX_SHARD_OBJECT) * 2);
    let known = KnownShard {
        deployment: keys.deployment,
        block_root: diaspore_block::id::Hash32::ZERO,
        shard: 0,
        shard_len,
        root: diaspore_block::id::Hash32::ZERO,
    };
    drop(LeafList::open_known(&keys.header, &known, &address, &name, rest));
    let Ok(len) = leaf_list_len(shard_len) else { return };
    let context = Context::new(SealType::LeafList, keys.deployment)
        .text(address.provider)
        .text(name.as_str())
        .field(address.incarnation.as_bytes())
        .field(&address.counter.0.to_be_bytes())
        .field(&[address.attempt.0, address.kind.name_class()]);
    let mut plain = rest.to_vec();
    plain.resize(len.saturating_sub(PREFIX_LEN + 16), 0);
    let sealed = seal(keys.header.expose(), &context, &plain);
    drop(LeafList::open_known(&keys.header, &known, &address, &name, &sealed));
}

/// A section entry, and a payload behind it.
fn section(data: &[u8]) {
    let golden = golden();
    let at = BlockPosition { block: BlockId::NIL, ..golden.position };
    let Some((entry, payload)) = data.split_at_checked(SectionInfo::MIN_LEN) else { return };
    let Some(section) = canonical::<SectionInfo>(entry) else { return };
    assert!(section.sealed_len() >= u64::from(section.plain_len));
    drop(open_whole(&at, 0, &section, payload, &golden.keys));
    // The same with a prefix that opens, so that the segments are looked at.
    let context = section_context(&at, 0, TenantId::SYSTEM, KeyVersion(0), section.seg_log2);
    let len = u64::from(section.plain_len);
    let range = u64::from(section.offset) % (len + 2)..len;
    let sealed = seal(golden.keys.log.expose(), &context, payload);
    let Some(prefix) = sealed.first_chunk() else { return };
    let whole = payload.len() as u64;
    let opener: Opener = Opener::new(golden.keys.log.expose(), &context, whole, prefix, "fuzzed").expect("it was sealed here");
    assert_eq!(sealed.len() as u64, sealed_len(whole, context.segment_log2()));
    for (range, plain_len) in [(range, len), (0..whole, whole)] {
        let Ok(span) = span(range, plain_len, context.segment_log2()) else { continue };
        let opened = opener.open_span(&span, sealed.get(PREFIX_LEN..).unwrap_or_default());
        assert!(
            plain_len != whole
                || span.sealed.end != sealed.len() as u64
                || span.sealed.start != 0
                || opened.is_ok_and(|plain| plain == payload)
        );
        drop(opener.open_span(&span, payload));
    }
}

/// Section 0 and up to two tenants' sections: a flag, then each as `u16` length and plaintext. Unless the flag's lowest bit is set, the table
/// in section 0 is made to fit what was sealed.
fn commit_body(data: &[u8]) {
    let golden = golden();
    let Some((flag, mut rest)) = data.split_first() else { return };
    let mut plains = Vec::new();
    while plains.len() < 3
        && let Some((len, behind)) = rest.split_first_chunk::<2>()
    {
        let (plain, behind) = behind.split_at(behind.len().min(usize::from(u16::from_be_bytes(*len))));
        plains.push(plain);
        rest = behind;
    }
    let Some((first, others)) = plains.split_first() else { return };
    let (at, keys) = (&golden.position, &golden.keys);
    let first_sealed_len = usize::try_from(sealed_len(first.len() as u64, COMMIT_SEGMENT_LOG2)).expect("short");
    let mut tail = Vec::new();
    let mut table = vec![diaspore_block::limits::COMMIT_VERSION, u8::try_from(others.len()).expect("at most two")];
    for (index, (plain, tenant)) in (1u8..).zip(others.iter().zip(keys.tenants.keys())) {
        let context = section_context(at, index, *tenant, KeyVersion(1), COMMIT_SEGMENT_LOG2);
        let key = keys.section_key(*tenant, KeyVersion(1)).expect("the golden tenants have keys");
        let sealed = seal(key, &context, plain);
        let entry = SectionInfo {
            tenant: *tenant,
            key_version: KeyVersion(1),
            offset: short(first_sealed_len + tail.len()),
            plain_len: short(plain.len()),
            seg_log2: COMMIT_SEGMENT_LOG2,
            prefix: *sealed.first_chunk().expect("a seal begins with its prefix"),
        };
        entry.put(&mut table);
        tail.extend(sealed);
    }
    let mut first = first.to_vec();
    if flag & 1 == 0 {
        first.iter_mut().zip(&table).for_each(|(to, from)| *to = *from);
    }
    let context = section_context(at, 0, TenantId::SYSTEM, KeyVersion(0), COMMIT_SEGMENT_LOG2);
    let mut payload = seal(keys.log.expose(), &context, &first);
    payload.extend(tail);
    let base = golden.manifests.iter().find(|manifest| manifest.position == *at).expect("a golden commit block");
    let mut manifest = base.clone();
    manifest.payload_len = short(payload.len());
    manifest.first_section_len = short(first.len());
    if let Ok(opened) = CommitBody::open_partly(&manifest, &payload, keys) {
        let whole = opened.clone().whole().expect("the keyring has every key");
        assert_eq!(whole.body.sealed_len(), payload.len() as u64, "one body, one length");
        assert_eq!(whole.body.leaves().count(), opened.records.len());
        assert_eq!(whole.body.chunks().count(), opened.chunks.len());
    }
}

/// Three bytes of plain length, then the stored bytes.
fn compressed_chunk(data: &[u8]) {
    let Some(([a, b, c], stored)) = data.split_first_chunk::<3>() else { return };
    let len = u32::from_be_bytes([0, *a, *b, *c]) as usize % (MAX_CHUNK + 2);
    let whole = decompress(stored, len);
    if let Ok(plain) = &whole {
        assert_eq!(plain.len(), len);
    }
    let middle = len / 3..len - len / 3;
    if let (Ok(part), Ok(plain)) = (decompress_range(stored, len, middle.clone()), &whole) {
        assert!(plain.get(middle) == Some(part.as_slice()), "a range is a part of the whole");
    }
}

fn note(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let golden = golden();
    if let Ok(checkpoint) = Checkpoint::open(&text, &golden.keys.identity.public()) {
        // Ours is the only signature that counts, so only what we signed may come out.
        assert_eq!(checkpoint, golden.checkpoint);
    }
}

fn bundle(data: &[u8]) {
    if let Ok(publics) = open_bundle(data) {
        assert_eq!(diaspore_block::log::tile::bundle(publics.iter().map(PublicPart::encode).collect::<Vec<_>>().iter()), data);
    }
}
