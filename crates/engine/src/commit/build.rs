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
    use super::*;
    use diaspore_block::id::Hash32;

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
}
