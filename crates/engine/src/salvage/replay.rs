//! The log into the scratch ledger, holes and all.

use std::collections::BTreeSet;

use diaspore_block::id::{BucketId, Seq, SubjectId, TenantId};
use diaspore_block::record::{BucketCreated, Class, Outcome, Private, Record, RecordFacts, TenantCreated};
use diaspore_ledger::{AppliedBlock, LedgerError, Snapshot};
use futures::StreamExt;

use super::{Salvaged, Unmapped};
use crate::api::Error;
use crate::namespace::local;
use crate::reconcile::loss::note;
use crate::reconcile::position::{Evidence, Found};
use crate::reconcile::remains::{Remains, Spot};
use crate::shared::Ground;
use crate::world::cpu;

/// Reads every position behind what the ledger holds.
pub(super) async fn replay(
    ground: &Ground,
    evidence: &Evidence,
    remains: &Remains,
    marks: Seq,
    salvaged: &mut Salvaged,
) -> Result<(), Error> {
    let from = salvaged.compacted_through + 1;
    let mut silent: BTreeSet<String> = std::mem::take(&mut salvaged.silent).into_iter().collect();
    let last = remains.last().max(marks).0;
    salvaged.last = last.max(salvaged.compacted_through);
    let mut spots = std::pin::pin!(remains.spots(ground, evidence, from..=last));
    while let Some((seq, spot)) = spots.next().await {
        let taken = match spot {
            Ok(Spot::Found(found, _)) => {
                let follows = salvaged.holes.is_empty() && follow(ground, &found)?;
                follows || take_up(ground, &found, salvaged)?
            }
            Ok(Spot::Gap(waiting)) => {
                silent.extend(waiting.iter().map(ToString::to_string));
                false
            }
            Err(error) => {
                ground.unjudged.check()?;
                tracing::warn!(seq, %error, "a position of the log is passed over");
                false
            }
        };
        if taken {
            salvaged.blocks += 1;
        } else {
            note(&mut salvaged.holes, seq);
        }
    }
    salvaged.silent = silent.into_iter().collect();
    cpu(|| ground.ledger.flush_view()).map_err(local)
}

/// Applies a block as it is. False when it does not continue the log.
fn follow(ground: &Ground, found: &Found) -> Result<bool, Error> {
    let Ok(block) = found.applied(ground) else { return Ok(false) };
    match cpu(|| ground.ledger.apply(&block)) {
        Ok(()) => Ok(true),
        Err(LedgerError::OutOfOrder { .. } | LedgerError::Refused { .. }) => Ok(false),
        Err(error) => Err(local(error)),
    }
}

/// Applies what makes sense of a block behind a hole, at the next free position of the scratch ledger.
fn take_up(ground: &Ground, found: &Found, salvaged: &mut Salvaged) -> Result<bool, Error> {
    let Ok(mut block) = found.applied(ground) else { return Ok(false) };
    block.log = None;
    block.records.retain(|record| is_content(record.private()));
    loop {
        let view = ground.ledger.snapshot().map_err(local)?;
        block.seq = view.applied_seq().map_err(local)?.next();
        salvaged.nameless_buckets += give_names(ground, &view, &mut block)?;
        let index = match cpu(|| ground.ledger.apply(&block)) {
            Ok(()) => return Ok(true),
            Err(LedgerError::Refused { index, .. }) if index < block.records.len() => index,
            Err(LedgerError::Refused { .. }) => return Ok(false),
            Err(error) => return Err(local(error)),
        };
        if let Private::BlobPut(put) = block.records.remove(index).private() {
            salvaged.unmapped.push(Unmapped {
                bucket: put.bucket.to_string(),
                key: put.key.clone(),
                version: put.version.to_string(),
                size: put.size,
            });
        }
    }
}

/// What blobs are made of. Where shards lie and what may go is of no use behind a hole: everybody is asked for everything.
fn is_content(private: &Private) -> bool {
    matches!(
        private,
        Private::TenantCreated(_)
            | Private::BucketCreated(_)
            | Private::BucketDeleted(_)
            | Private::BlobPut(_)
            | Private::BlobDeleted(_)
            | Private::BulkAdded(_)
    )
}

/// Puts records in front that create what the block names and nothing readable creates, under names made of the ids. Gives how many
/// buckets came into being by that.
fn give_names(ground: &Ground, view: &Snapshot, block: &mut AppliedBlock) -> Result<u64, Error> {
    let mut wanted: BTreeSet<(TenantId, Option<BucketId>)> = BTreeSet::new();
    let (mut tenants, mut buckets) = (BTreeSet::new(), BTreeSet::new());
    for record in &block.records {
        match record.private() {
            Private::TenantCreated(created) => drop(tenants.insert(created.tenant)),
            Private::BucketCreated(created) => {
                buckets.insert(created.bucket);
                wanted.insert((record.tenant(), None));
            }
            Private::BlobPut(put) if !buckets.contains(&put.bucket) => {
                wanted.insert((record.tenant(), None));
                wanted.insert((record.tenant(), Some(put.bucket)));
            }
            _ => (),
        }
    }
    let (mut front, mut made) = (Vec::new(), 0);
    for (tenant, bucket) in wanted {
        let private: Private = match bucket {
            None if tenants.contains(&tenant) || view.tenant(tenant).map_err(local)?.is_some() => continue,
            None => TenantCreated { tenant, name: format!("tenant-{tenant}") }.into(),
            Some(bucket) if view.bucket_by_id(bucket).map_err(local)?.is_some() => continue,
            Some(bucket) => {
                made += 1;
                let key_version = ground.keys.tenant(tenant).map(|keys| keys.current).unwrap_or_default();
                BucketCreated { bucket, name: format!("bucket-{bucket}"), key_version }.into()
            }
        };
        let Ok(references) = ground.keys.reference_key(tenant) else { continue };
        let facts = RecordFacts {
            tenant,
            subject: SubjectId::from(tenant),
            principal: diaspore_block::id::PrincipalId::NIL,
            time: ground.clock.now(),
            class: Class::Quorum,
            outcome: Outcome::Done,
        };
        let mut blind = [0; 32];
        ground.entropy.draw(&mut blind);
        front.push(Record::new(facts, private, blind, references));
    }
    block.records.splice(0..0, front);
    Ok(made)
}
