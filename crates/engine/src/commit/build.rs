//! From records to a signed block: the one place that makes commit and decision blocks.

use std::sync::Arc;

use bytes::Bytes;
use diaspore_block::block;
use diaspore_block::commit::CommitBody;
use diaspore_block::geometry::{Geometry, max_payload};
use diaspore_block::id::{Attempt, BlockId, Counter, KeyVersion, Seq, TenantId};
use diaspore_block::log::LogTree;
use diaspore_block::manifest::{BlockKind, BlockPosition, LogState};
use diaspore_block::record::{ChunkEntry, Placement, Record, RecordFacts, SectionInfo};
use diaspore_ledger::{AppliedBlock, BlockFacts, IssuedBlock, JournalEntry, LogHead, Snapshot};

use super::release::Notes;
use super::{NewRecord, SmallChunk};
use crate::api::{Error, ErrorKind};
use crate::coded::Coded;
use crate::namespace::local;
use crate::shared::{Ground, Shared, Writer};

/// Where the next commit block stands. Only ever moved by issuing.
#[derive(Debug, Clone)]
pub(crate) struct Tip {
    pub(crate) seq: Seq,
    pub(crate) counter: Counter,
    pub(crate) log: LogTree,
}

impl Tip {
    /// Behind what the ledger has applied, at `counter` of the present incarnation.
    pub(crate) fn behind(view: &Snapshot, counter: Counter) -> Result<Self, Error> {
        let size = view.log_size().map_err(local)?;
        let mut peaks = Vec::new();
        for level in (0..64u8).rev().filter(|level| (size >> level) & 1 == 1) {
            let index = size.checked_shr(u32::from(level) + 1).unwrap_or(0) << 1;
            peaks.push(view.log_node(level, index).map_err(local)?);
        }
        let log = LogTree::from_peaks(size, peaks)
            .map_err(|error| Error::caused(ErrorKind::LocalStore, "the ledger's Merkle log is damaged", error))?;
        Ok(Self { seq: view.applied_seq().map_err(local)?.next(), counter, log })
    }
}

/// What a block is to carry.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: BlockKind,
    pub(crate) body: CommitBody,
    pub(crate) geometry: Geometry,
    pub(crate) acked_through: Seq,
    pub(crate) settled_through: Seq,
}

impl Draft {
    /// Waiting records and chunks as the next commit block.
    pub(crate) fn of(
        shared: &Shared,
        geometry: Geometry,
        records: Vec<NewRecord>,
        chunks: Vec<SmallChunk>,
        notes: &Notes,
    ) -> Result<Self, Error> {
        Ok(Self {
            kind: BlockKind::Commit,
            body: body_of(shared, records, chunks)?,
            geometry,
            acked_through: notes.released(),
            settled_through: shared.settlement.settled_through(),
        })
    }
}

/// Records get their time and blind here.
pub(crate) fn body_of(ground: &Ground, records: Vec<NewRecord>, chunks: Vec<SmallChunk>) -> Result<CommitBody, Error> {
    let time = ground.clock.now();
    let mut body = CommitBody::new();
    let add = || {
        for record in records {
            let facts = RecordFacts {
                tenant: record.tenant,
                subject: record.subject,
                principal: record.principal,
                time,
                class: record.class,
                outcome: record.outcome,
            };
            let mut blind = [0; 32];
            ground.entropy.draw(&mut blind);
            let references = ground.keys.reference_key(record.tenant)?;
            body.push_record(Record::new(facts, record.private, blind, references), current(ground, record.tenant)?)?;
        }
        for chunk in chunks {
            let version = current(ground, chunk.tenant)?;
            body.push_chunk(chunk.tenant, version, chunk.bucket, chunk.id, (chunk.plain_len, chunk.encoding), &chunk.stored)?;
        }
        Ok(())
    };
    add().map_err(refused)?;
    Ok(body)
}

fn current(ground: &Ground, tenant: TenantId) -> diaspore_block::Result<KeyVersion> {
    if tenant == TenantId::SYSTEM { Ok(KeyVersion(0)) } else { ground.keys.tenant(tenant).map(|keys| keys.current) }
}

fn refused(error: diaspore_block::BlockError) -> Error {
    Error::caused(ErrorKind::NotAccepted, "not accepted: the records do not fit a commit block", error)
}

/// A signed commit block with everything that follows from it.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) seq: Seq,
    coded: Arc<Coded>,
    records: Vec<Record>,
    chunks: Vec<ChunkEntry>,
    log: LogHead,
}

/// Seals, codes and signs at the tip, and moves the tip behind it. On an error the tip must be thrown away. A writer never codes a
/// position twice: another layout takes another incarnation.
pub(crate) fn build(ground: &Ground, writer: Writer, tip: &mut Tip, draft: Draft) -> Result<Built, Error> {
    build_attempt(ground, writer, tip, draft, Attempt(0))
}

/// The same under any attempt, as the format allows and every reader expects.
pub(crate) fn build_attempt(ground: &Ground, writer: Writer, tip: &mut Tip, draft: Draft, attempt: Attempt) -> Result<Built, Error> {
    let Draft { kind, body, geometry, acked_through, settled_through } = draft;
    let position = BlockPosition {
        deployment: ground.deployment(),
        block: BlockId::draw(&mut ground.rng()),
        kind,
        incarnation: writer.incarnation,
        counter: tip.counter,
        attempt,
    };
    let (sealed, first_len) = body.seal(&position, &ground.keys, max_payload(geometry.k()), &mut ground.rng()).map_err(refused)?;
    for leaf in body.leaves() {
        tip.log.append(leaf);
    }
    let head = LogHead { size: tip.log.size(), root: tip.log.root() };
    let log = LogState {
        epoch: writer.epoch,
        seq: tip.seq,
        log_size: head.size,
        log_root: head.root,
        acked_through,
        // Settlement goes on between the two readings and may have overtaken the first; a manifest that says so would not open.
        settled_through: settled_through.min(acked_through),
        k_floor: geometry.k(),
    };
    let mut blind = [0; 32];
    ground.entropy.draw(&mut blind);
    let chunks = chunk_places(&body, &sealed.sections);
    let signed = block::encode(sealed.bytes, geometry, blind).map_err(refused)?.sign(position, first_len, log, &ground.keys.identity);
    let seq = tip.seq;
    tip.seq = tip.seq.next();
    tip.counter = tip.counter.next();
    Ok(Built { seq, coded: Arc::new(Coded::new(signed, sealed.sections)), records: body.records().to_vec(), chunks, log: head })
}

/// Chunks lie at the end of their section, in order.
fn chunk_places(body: &CommitBody, sections: &[SectionInfo]) -> Vec<ChunkEntry> {
    let mut places = Vec::new();
    for (index, section) in (0u8..).zip(sections).skip(1) {
        let own = || body.chunks().filter(|(tenant, _, _)| *tenant == section.tenant).map(|(_, entry, _)| entry);
        let bytes: u32 = own().map(|entry| entry.stored_len).sum();
        let base = section.plain_len.saturating_sub(bytes);
        places.extend(own().map(|entry| ChunkEntry { section: index, offset: entry.offset + base, ..entry.clone() }));
    }
    places
}

impl Built {
    pub(crate) fn coded(&self) -> Arc<Coded> {
        Arc::clone(&self.coded)
    }

    pub(crate) fn facts(&self) -> Arc<BlockFacts> {
        self.coded.facts()
    }

    /// Bytes its shards take in memory.
    pub(crate) fn coded_len(&self) -> usize {
        let facts = self.coded.facts();
        usize::try_from(facts.shard_len).unwrap_or(usize::MAX).saturating_mul(usize::from(facts.geometry.n()))
    }

    pub(crate) fn record_count(&self) -> u64 {
        self.records.len() as u64
    }

    /// The block as the journal keeps it until it is settled.
    pub(crate) fn journal_entry(&self) -> JournalEntry {
        let facts = self.coded.facts();
        JournalEntry::Block(IssuedBlock {
            seq: self.seq,
            incarnation: facts.incarnation,
            counter: facts.counter,
            attempt: facts.attempt,
            block: facts.id,
            manifest: Bytes::copy_from_slice(&self.coded.signed().manifest().encode()),
            payload: Bytes::from(self.coded.signed().payload()),
        })
    }

    /// What the ledger applies once the block is released.
    pub(crate) fn into_applied(self, placements: Vec<Placement>) -> AppliedBlock {
        let mut facts = BlockFacts::clone(&self.coded.facts());
        facts.placements = placements;
        AppliedBlock { seq: self.seq, facts, records: self.records, chunks: self.chunks, log: Some(self.log) }
    }
}

#[cfg(test)]
mod tests {
    use diaspore_block::id::{BucketId, ChunkId, Hash32, IncarnationId};
    use diaspore_block::record::{Encoding, ServiceStopped};

    use super::*;
    use crate::blob::tests::fixture::Fixture;

    #[test]
    fn the_edge_of_a_log_is_found_again() {
        // The positions of the peaks in Tip::behind, against the tree itself.
        let mut tree = LogTree::new();
        let mut nodes = std::collections::BTreeMap::new();
        for size in 1..200u64 {
            for (level, index, hash) in tree.append(Hash32::from_bytes([u8::try_from(size % 251).unwrap(); 32])) {
                nodes.insert((level, index), hash);
            }
            let peaks: Vec<Hash32> = (0..64u8)
                .rev()
                .filter(|level| (size >> level) & 1 == 1)
                .map(|level| nodes[&(level, size.checked_shr(u32::from(level) + 1).unwrap_or(0) << 1)])
                .collect();
            assert_eq!(peaks, tree.peaks());
        }
    }

    fn stopped() -> NewRecord {
        NewRecord::system(ServiceStopped { incarnation: IncarnationId::from_bytes([1; 16]), reason: "a test".to_owned() })
    }

    fn chunk(tenant: TenantId, number: u8) -> SmallChunk {
        let stored = Bytes::from(vec![number; 100 * usize::from(number)]);
        let plain_len = u32::try_from(stored.len()).unwrap();
        let (bucket, id) = (BucketId::from_bytes([2; 16]), ChunkId::from_bytes([number; 32]));
        SmallChunk { tenant, bucket, id, encoding: Encoding::Raw, plain_len, stored }
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_takes_the_position_at_the_tip_and_the_tip_moves_behind_it() {
        let fx = Fixture::start(5).await;
        fx.put(b"any", b"something").await.unwrap();
        fx.settle().await;
        let shared = fx.engine.shared();
        let view = shared.ledger.snapshot().unwrap();
        let mut tip = Tip::behind(&view, Counter(7)).unwrap();
        let (seq, size) = (tip.seq, tip.log.size());
        assert_eq!((seq, size), (view.applied_seq().unwrap().next(), view.log_size().unwrap()));
        assert_eq!(tip.log.root(), view.log_root(size).unwrap());
        let acked = Seq(seq.0 - 2);
        assert!(shared.settlement.settled_through() > acked);
        let geometry = Geometry::new(3, 5).unwrap();
        let draft = Draft::of(&shared, geometry, vec![stopped(), stopped()], Vec::new(), &Notes::starting_at(acked)).unwrap();
        assert_eq!((draft.acked_through, draft.settled_through), (acked, shared.settlement.settled_through()));
        let built = build(&shared, shared.writer, &mut tip, draft).unwrap();
        assert_eq!((tip.seq, tip.counter, tip.log.size()), (seq.next(), Counter(8), size + 2));
        assert_eq!((built.seq, built.record_count()), (seq, 2));
        let log = built.coded.signed().manifest().log;
        assert_eq!((log.seq, log.log_size, log.log_root), (seq, size + 2, tip.log.root()));
        assert_eq!((log.acked_through, log.settled_through, log.k_floor), (acked, acked, 3), "what is settled was acknowledged");
        let facts = built.facts();
        assert_eq!((facts.counter, facts.attempt, facts.kind), (Counter(7), Attempt(0), BlockKind::Commit));
        let bodies: usize = (0..5).map(|shard| built.coded.signed().body(shard).unwrap().len()).sum();
        assert_eq!(built.coded_len(), bodies);
        let JournalEntry::Block(issued) = built.journal_entry() else { panic!() };
        assert_eq!((issued.seq, issued.block, issued.counter), (seq, facts.id, facts.counter));
        let place = Placement { shard: 1, provider: "p1".to_owned(), acked: true };
        let applied = built.into_applied(vec![place.clone()]);
        assert_eq!((applied.seq, applied.records.len(), applied.facts.placements), (seq, 2, vec![place]));
        assert_eq!(applied.log, Some(LogHead { size: size + 2, root: tip.log.root() }));
    }

    /// Behind the records of their tenant, each tenant's in its own section.
    #[tokio::test(start_paused = true)]
    async fn a_chunk_is_found_at_the_place_that_its_block_gives_it() {
        let fx = Fixture::start(5).await;
        let shared = fx.engine.shared();
        let own = fx.caller().tenant;
        let other = shared.keys.tenants.keys().copied().find(|tenant| *tenant != own).unwrap();
        let chunks = vec![chunk(own, 1), chunk(other, 2), chunk(own, 3)];
        let mut tip = Tip::behind(&shared.ledger.snapshot().unwrap(), Counter(7)).unwrap();
        let geometry = Geometry::new(3, 5).unwrap();
        let draft = Draft::of(&shared, geometry, vec![stopped()], chunks, &Notes::starting_at(Seq(0))).unwrap();
        let built = build(&shared, shared.writer, &mut tip, draft).unwrap();
        let (payload, manifest) = (built.coded.signed().payload(), built.coded.signed().manifest().clone());
        let applied = built.into_applied(Vec::new());
        assert_eq!(applied.chunks.len(), 3);
        for entry in &applied.chunks {
            let section = &applied.facts.sections[usize::from(entry.section)];
            let plain = diaspore_block::commit::open_whole(&manifest.position, entry.section, section, &payload, &shared.keys).unwrap();
            let from = usize::try_from(entry.offset).unwrap();
            let number = entry.id.as_bytes()[0];
            assert_eq!(plain[from..from + usize::try_from(entry.stored_len).unwrap()], vec![number; 100 * usize::from(number)]);
            assert_eq!(section.tenant, if number == 2 { other } else { own });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fits_no_block_is_refused_before_the_tip_moves() {
        let fx = Fixture::start(5).await;
        let shared = fx.engine.shared();
        let unknown = TenantId::from_bytes([7; 16]);
        let error = body_of(&shared, vec![stopped()], vec![chunk(unknown, 1)]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotAccepted);
        let body = body_of(&shared, vec![stopped(), stopped()], Vec::new()).unwrap();
        assert_eq!(body.records().len(), 2);
        let leaves: std::collections::BTreeSet<Hash32> = body.leaves().collect();
        assert_eq!(leaves.len(), 2, "equal records have leaves of their own");
    }
}
