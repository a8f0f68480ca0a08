//! What decided the ledger's engine (docs/decisions/0002-ledger-engine.md): `cargo bench --bench ledger -- [records] [folder]`.
//!
//! Writes `records` puts of one small chunk each, 256 per commit block, every block journalled and synced before it is applied, then
//! reads, lists, opens a copy taken while the writer runs (what kill -9 leaves), looks it over as `fsck` does, and, up to two million
//! records, rebuilds a deleted view. Memory is that of the process (`VmRSS`, `VmHWM`), one chunk table of test data included.
#![expect(clippy::print_stdout, reason = "prints its figures")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use diaspore_block::geometry::Geometry;
use diaspore_block::id::{
    Attempt, BlockId, BucketId, ChunkId, Counter, Hash32, IncarnationId, KeyVersion, PrincipalId, Seq, SubjectId, TenantId, Timestamp,
    VersionId,
};
use diaspore_block::key::LedgerKey;
use diaspore_block::manifest::{BlockKind, CodeId};
use diaspore_block::record::{
    BlobPut, BucketCreated, ChunkEntry, ChunkRef, Class, Content, Encoding, Outcome, Placement, Private, Record, RecordFacts, TenantCreated,
};
use diaspore_ledger::{AppliedBlock, BlockFacts, FileMedium, IssuedBlock, JournalEntry, Ledger, ListQuery, OpenMode};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rustix::time::{ClockId, Timespec, clock_gettime};

const BATCH: u64 = 256;
const TENANT: TenantId = TenantId::from_bytes([1; 16]);
const BUCKET: BucketId = BucketId::from_bytes([2; 16]);

type Measured<T> = Result<T, Box<dyn Error>>;

/// Wall and processor time: on a busy machine the second is the figure that is ours.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn since(clock: ClockId, start: Timespec) -> Duration {
    let elapsed = clock_gettime(clock) - start;
    elapsed.try_into().unwrap_or_default()
}

fn timed<T>(run: impl FnOnce() -> Measured<T>) -> Measured<(T, Cost)> {
    let (wall, cpu) = (clock_gettime(ClockId::Monotonic), clock_gettime(ClockId::ProcessCPUTime));
    let value = run()?;
    Ok((value, Cost { wall: since(ClockId::Monotonic, wall), cpu: since(ClockId::ProcessCPUTime, cpu) }))
}

fn key_of(index: u64) -> Vec<u8> {
    // A bijection scatters insertions over the key space.
    format!("photos/{:016x}.jpg", index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

fn chunk_of(index: u64) -> ChunkId {
    let mut bytes = [0; 32];
    ChaCha20Rng::seed_from_u64(index).fill_bytes(&mut bytes);
    ChunkId::from_bytes(bytes)
}

fn record(private: impl Into<Private>) -> Record {
    let facts = RecordFacts {
        tenant: TENANT,
        subject: SubjectId::from_bytes([3; 16]),
        principal: PrincipalId::from_bytes([4; 16]),
        time: Timestamp(1),
        class: Class::Quorum,
        outcome: Outcome::Done,
    };
    Record::new(facts, private.into(), [5; 32], &diaspore_block::key::ReferenceKey::from_bytes([6; 32]))
}

fn put(index: u64) -> Record {
    record(BlobPut {
        bucket: BUCKET,
        key: key_of(index),
        version: VersionId::from_bytes([6; 16]),
        size: 4096,
        content_type: Some("image/jpeg".to_owned()),
        metadata: Vec::new(),
        sha256: None,
        etag: [7; 16],
        class: Class::Quorum,
        content: Content { depth: 0, refs: vec![ChunkRef { id: chunk_of(index), len: 4096 }] },
        idempotency: None,
    })
}

fn block(seq: u64, records: Vec<Record>, chunks: Vec<ChunkEntry>) -> Measured<AppliedBlock> {
    let mut id = [8; 16];
    id[8..].copy_from_slice(&seq.to_be_bytes());
    let facts = BlockFacts {
        id: BlockId::from_bytes(id),
        kind: BlockKind::Commit,
        incarnation: IncarnationId::from_bytes([9; 16]),
        counter: Counter(seq),
        attempt: Attempt(0),
        geometry: Geometry::new(3, 5)?,
        code: CodeId::ReedSolomonVandermonde,
        payload_len: 1 << 20,
        shard_len: 400_000,
        block_root: Hash32::ZERO,
        shard_roots: vec![Hash32::ZERO; 5],
        manifest_hash: Hash32::ZERO,
        sections: vec![diaspore_block::record::SectionInfo {
            tenant: TENANT,
            key_version: KeyVersion(1),
            offset: 0,
            plain_len: 1 << 20,
            seg_log2: 13,
            prefix: [0; 56],
        }],
        placements: (0..5).map(|shard| Placement { shard, provider: format!("cloud-{shard}"), acked: true }).collect(),
    };
    Ok(AppliedBlock { seq: Seq(seq), facts, records, chunks, log: None })
}

fn batch(seq: u64) -> Measured<AppliedBlock> {
    let range = (seq - 2) * BATCH..(seq - 1) * BATCH;
    let chunks = range.clone().map(|index| ChunkEntry {
        bucket: BUCKET,
        id: chunk_of(index),
        section: 0,
        offset: 0,
        stored_len: 4096,
        plain_len: 4096,
        encoding: Encoding::Raw,
    });
    block(seq, range.clone().map(put).collect(), chunks.collect())
}

fn open(folder: &Path) -> Measured<Ledger> {
    let rng = Box::new(ChaCha20Rng::seed_from_u64(1));
    Ok(Ledger::open(FileMedium::new(folder), &LedgerKey::from_bytes([1; 32]), OpenMode::ReadWrite, rng)?)
}

/// The folder as it is now. Closed segments of the journal are never written again: a link does.
fn copy(from: &Path, to: &Path) -> Measured<u64> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (target, len) = (to.join(entry.file_name()), entry.metadata()?.len());
        let closed = entry.file_name().to_string_lossy().contains("-0") && len > 16 << 20;
        if closed {
            fs::hard_link(entry.path(), target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
        bytes += len;
    }
    Ok(bytes)
}

/// Resident memory of this process, now and at its highest, as the system prints it.
fn memory() -> Measured<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let lines = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    Ok(lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", "))
}

impl Cost {
    fn rates(self, count: u64) -> String {
        let rate = |took: Duration| u128::from(count) * 1_000_000_000 / took.as_nanos().max(1);
        format!("{}/s by the wall clock, {}/s by processor time", rate(self.wall), rate(self.cpu))
    }

    fn each(self, count: u32) -> String {
        format!("{:?} ({:?} of processor time)", self.wall / count, self.cpu / count)
    }
}

fn main() -> Measured<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let records: u64 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let base = arguments.next().map_or_else(|| std::env::temp_dir().join("diaspore-ledger-bench"), PathBuf::from);
    if base.exists() {
        return Err(format!("{} exists: name a new folder", base.display()).into());
    }
    let (live, crashed) = (base.join("live"), base.join("crashed"));
    let blocks = records.div_ceil(BATCH);
    let records = blocks * BATCH;
    let ledger = open(&live)?;
    let first = vec![
        record(TenantCreated { tenant: TENANT, name: "t".to_owned() }),
        record(BucketCreated { bucket: BUCKET, name: "b".to_owned(), key_version: KeyVersion(1) }),
    ];
    ledger.apply(&block(1, first, Vec::new())?)?;

    let mut took = Cost::default();
    for seq in 2..2 + blocks {
        let next = batch(seq)?;
        // 300 bytes of private part per record stand for the sealed payload.
        let payload = Bytes::from(vec![0; usize::try_from(BATCH)? * 300]);
        let issued = IssuedBlock {
            seq: next.seq,
            incarnation: next.facts.incarnation,
            counter: next.facts.counter,
            attempt: next.facts.attempt,
            block: next.facts.id,
            manifest: Bytes::from_static(&[0; 320]),
            payload,
        };
        let ((), one) = timed(|| {
            ledger.append(JournalEntry::Block(issued))?;
            ledger.sync()?;
            Ok(ledger.apply(&next)?)
        })?;
        took.wall += one.wall;
        took.cpu += one.cpu;
    }
    println!("records {records}, {BATCH} per block, with journal sync, view and Merkle log: {}", took.rates(records));
    println!("memory after writing: {}", memory()?);

    let hot: Vec<Vec<u8>> = (0..10_000.min(records)).map(|index| key_of(index * 7 % records)).collect();
    let gets = 300_000;
    let (found, took) = timed(|| {
        let mut found = 0u64;
        for index in 0..gets {
            let key = hot.get(index % hot.len()).ok_or("no keys")?;
            found += u64::from(ledger.snapshot()?.blob(BUCKET, key)?.is_some());
        }
        Ok(found)
    })?;
    println!("hot gets of 10k keys: {} ({found} found)", took.rates(gets as u64));

    let cold: u64 = 20_000;
    let (found, took) = timed(|| {
        let mut found = 0u64;
        for index in 0..cold {
            let key = key_of(index.wrapping_mul(0x2545_f491_4f6c_dd1d) % records);
            found += u64::from(ledger.snapshot()?.blob(BUCKET, &key)?.is_some());
        }
        Ok(found)
    })?;
    println!("gets of keys anywhere: {} ({found} found)", took.rates(cold));

    let (items, took) = timed(|| {
        let mut items = 0;
        for index in 0..1000 {
            let after = key_of(index * 13 % records);
            let query = ListQuery { prefix: b"photos/", delimiter: b"", start_after: Some(&after), limit: 100 };
            items += ledger.snapshot()?.list(BUCKET, &query)?.items.len();
        }
        Ok(items)
    })?;
    println!("ordered list of 100: {} ({items} items in 1000 lists)", took.each(1000));

    let bytes = copy(&live, &crashed)?;
    let (opened, took) = timed(|| open(&crashed))?;
    println!("open after a crash ({bytes} bytes on disk): {}, {:?}", took.each(1), opened.report());
    println!("memory with both open: {}", memory()?);
    let (root, took) = timed(|| Ok(opened.snapshot()?.inclusion_proof(records / 2, records)?))?;
    println!("inclusion proof: {}, {} hashes", took.each(1), root.path.len());
    drop(ledger);
    let (report, took) = timed(|| Ok(opened.integrity()?))?;
    println!("fsck: {}, sound: {}, {}", took.each(1), report.is_sound(), memory()?);
    drop(opened);
    if records <= 2_000_000 {
        fs::remove_file(crashed.join("view"))?;
        let (opened, took) = timed(|| open(&crashed))?;
        println!("rebuild of a deleted view: {}, {:?}", took.each(1), opened.report());
    }
    fs::remove_dir_all(base)?;
    Ok(())
}
