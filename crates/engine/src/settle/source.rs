//! What missing shards are made from: k verified ones, or the block as the journal holds it until it is settled.

use bytes::Bytes;
use diaspore_block::BlockError;
use diaspore_block::block::SignedBlock;
use diaspore_block::decode::reconstruct;
use diaspore_block::manifest::Manifest;
use diaspore_block::name::ObjectName;
use diaspore_block::shard::{ShardHeader, VerifiedCells};
use diaspore_ledger::{IssuedBlock, JournalEntry};
use diaspore_policy::ProviderId;

use super::Open;
use crate::coded::Coded;
use crate::scrub::{self, Seen};
use crate::shards::{Depth, Look, look_known};
use crate::shared::Shared;
use crate::world::cpu;

/// What shards are made from.
pub(super) enum Source {
    /// k of them, verified, and the signed header that goes with them.
    Shards(Box<(ShardHeader, Vec<VerifiedCells>)>),
    /// The block as it was issued.
    Held(Box<Coded>),
}

impl Source {
    /// Any k verified shards. Whoever turns out not to have its shard is registered too.
    pub(super) async fn read(shared: &Shared, homes: &[(u8, ProviderId)], open: &Open) -> Result<Self, String> {
        let facts = &open.facts;
        let mut header = None;
        let mut cells: Vec<VerifiedCells> = Vec::new();
        for (shard, provider) in homes {
            if cells.len() >= usize::from(facts.geometry.k()) {
                break;
            }
            let seen = match look_known(shared, facts, provider, Depth::Whole).await {
                Look::Seen(seen) if seen.header.manifest().hash() == facts.manifest_hash => {
                    if let Some(found) = seen.cells.filter(|found| cells.iter().all(|other| other.shard() != found.shard())) {
                        header = Some(seen.header);
                        cells.push(found);
                    }
                    Seen::Good
                }
                Look::Seen(_) | Look::Wrong => Seen::Wrong,
                Look::Absent => Seen::Missing,
                Look::Silent => Seen::Silent,
            };
            scrub::note(shared, facts, &[(*shard, provider.clone(), seen)], true);
            if matches!(seen, Seen::Missing | Seen::Wrong) {
                shared.settlement.lost(facts.id, *shard, provider, seen);
            }
        }
        match header {
            Some(header) if cells.len() >= usize::from(facts.geometry.k()) => Ok(Self::Shards(Box::new((header, cells)))),
            _ => Err(format!("{} of {} shards could be read", cells.len(), facts.geometry.k())),
        }
    }

    /// An unsettled block of the log: until all its shards are durable the disk counts as a copy. The journal is read through for it, and not
    /// again when it has it no more.
    pub(super) fn held(shared: &Shared, open: &Open) -> Option<Self> {
        let facts = &open.facts;
        if !facts.kind.has_records() || open.repair || open.is_unheld() {
            return None;
        }
        let mut found = None;
        let scanned = cpu(|| {
            shared.ledger.scan_hold(&mut |entry| match entry {
                JournalEntry::Block(issued) if issued.block == facts.id && issued.attempt == facts.attempt => found = Some(issued),
                _ => {}
            })
        });
        let coded = found.as_ref().and_then(|issued| coded_again(shared, issued));
        let coded = coded.filter(|coded| coded.facts().manifest_hash == facts.manifest_hash);
        if scanned.is_ok() && coded.is_none() {
            shared.settlement.unheld(facts.id);
        }
        coded.map(|coded| Self::Held(Box::new(coded)))
    }

    /// The object of a shard at a provider.
    pub(super) fn object(&self, shared: &Shared, shard: u8, provider: &ProviderId, name: &ObjectName) -> Result<Vec<Bytes>, BlockError> {
        match self {
            Self::Held(coded) => coded.object(shared, shard, provider).map(|(_, pieces)| pieces),
            Self::Shards(read) => {
                let (header, cells) = &**read;
                let manifest = header.manifest();
                let body = reconstruct(manifest, cells, shard, 0..manifest.shard_len)?;
                let object = header.object_for(shard, body, provider.as_str(), name, &shared.keys.header, &mut shared.rng())?;
                Ok(object.to_vec())
            }
        }
    }
}

fn coded_again(shared: &Shared, issued: &IssuedBlock) -> Option<Coded> {
    let manifest = Manifest::decode(issued.manifest.first_chunk()?).ok()?;
    let signed = cpu(|| SignedBlock::from_issued(&manifest, issued.payload.to_vec(), &shared.keys.identity)).ok()?;
    Some(Coded::new(signed, Vec::new()))
}
