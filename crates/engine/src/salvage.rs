//! Rescue without a writer: what can still be read is read, nothing is claimed, nothing is written to any provider.
//!
//! The newest compacted log that can be had and every commit block that can be read, in the order of the log, go into a scratch ledger.
//! Where the log has a hole, what lies behind it is taken up all the same, record by record, as far as it makes sense without what is
//! missing: a blob whose bucket was created inside the hole is found under the bucket's id, one whose chunks were is reported. That is good
//! enough for copying blobs out, and for nothing else: the scratch ledger is thrown away.

mod check;
mod replay;
mod unnamed;

use std::sync::Arc;

use diaspore_block::id::{BlockId, BucketId, TenantId, Timestamp, VersionId};
use diaspore_block::key::Keyring;
use diaspore_block::record::Content;
use diaspore_ledger::{BlobEntry, Ledger, ListItem, ListQuery};
use diaspore_provider::Fleet;

use crate::api::{BlobStream, Error};
use crate::checkpoint::heads;
use crate::claim::ClaimBook;
use crate::config::EngineConfig;
use crate::losses;
use crate::namespace::{local, view};
use crate::read;
use crate::read::walk::{Step, Walker};
use crate::reconcile;
use crate::reconcile::base;
use crate::reconcile::position::Evidence;
use crate::reconcile::remains::{Hints, Remains};
use crate::shared::{Ground, Shared};
use crate::world::{Clock, Entropy};

/// Blobs per page.
const PAGE: usize = 256;

/// What the log still says, and what is known to be missing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Salvaged {
    /// Failure domains that gave no listing of claims, or did not say what they hold where a hole is: that is not part of this.
    pub silent: Vec<String>,
    /// Incarnations that left anything.
    pub incarnations: u64,
    /// Last sequence covered by the compacted log that was read; 0 for none.
    pub compacted_through: u64,
    /// Commit blocks read behind it.
    pub blocks: u64,
    /// Positions of the log that nothing readable stands at, as ranges, both ends included.
    pub holes: Vec<(u64, u64)>,
    /// Last position that anything tells of.
    pub last: u64,
    /// Blobs whose record can be read and whose chunks are nowhere in what can be read of the log.
    pub unmapped: Vec<Unmapped>,
    /// Buckets whose creation lies in a hole: found under their id.
    pub nameless_buckets: u64,
    /// Bulk blocks that the providers show and no readable record names.
    pub unnamed_blocks: u64,
    /// Those of them of which enough shards are listed.
    pub unnamed_rebuildable: u64,
    /// Bytes of their shards.
    pub unnamed_bytes: u64,
    /// Other objects of this deployment's shape that nothing readable explains.
    pub unexplained_objects: u64,
}

impl Salvaged {
    /// Whether nothing tells of anything that the log does not say.
    pub fn is_whole(&self) -> bool {
        self.holes.is_empty() && self.unmapped.is_empty() && self.silent.is_empty()
    }
}

/// A blob that was acknowledged and of whose data only the record is left.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unmapped {
    /// Id of its bucket, uuid text.
    pub bucket: String,
    /// Its key.
    pub key: Vec<u8>,
    /// Id of the version, uuid text.
    pub version: String,
    /// Plain length in bytes.
    pub size: u64,
}

/// A blob as the log describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvageBlob {
    /// Name of its tenant.
    pub tenant: String,
    /// Name of its bucket.
    pub bucket: String,
    /// Key bytes, exactly as given.
    pub key: Vec<u8>,
    /// Version id.
    pub version: VersionId,
    /// Plain length in bytes.
    pub size: u64,
    /// SHA-256 of the plain bytes, when the log has it.
    pub sha256: Option<[u8; 32]>,
    /// Media type.
    pub content_type: Option<String>,
    /// User metadata.
    pub metadata: Vec<(String, String)>,
    /// When the version was accepted.
    pub modified: Timestamp,
    ids: (TenantId, BucketId),
    content: Content,
}

/// Where a walk over all blobs stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SalvageCursor {
    tenant: Option<TenantId>,
    bucket: Option<String>,
    key: Option<Vec<u8>>,
}

/// A block that keeps a blob from being rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Shortfall {
    /// Id of the block, uuid text; none when no readable record says where a chunk lies.
    pub block: Option<String>,
    /// Shards that providers showed.
    pub shards: u8,
    /// Shards that rebuild it: k.
    pub needed: u8,
}

/// The rescue. Holds no claim; whatever it does, the providers cannot tell it from a reader.
#[derive(Debug)]
pub struct Salvage {
    shared: Arc<Shared>,
    salvaged: Salvaged,
}

impl Salvage {
    /// Reads what can be read of the log into `ledger`, which must be empty and is of no use afterwards.
    ///
    /// # Errors
    /// `LocalStore` for the scratch ledger; `RefusedState` when a newer version of this software wrote what is found.
    pub async fn begin(
        config: EngineConfig,
        keys: Arc<Keyring>,
        fleet: Fleet,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let ground = Ground::new(config, keys, fleet, ledger, clock, entropy);
        let book = ClaimBook::default();
        let answered = book.survey(&ground, None).await.answered;
        let hints = Hints::gather(&ground).await;
        let announced = heads::find(&ground).await;
        let evidence = Evidence::nothing();
        let remains = Remains::find(&ground, &book, &evidence, &hints, (None, announced.covers())).await?;
        ground.unjudged.check()?;
        let newest = base::install_newest(&ground, &announced, |root| remains.admits(root.incarnation, root.covers)).await?;
        let mut salvaged = Salvaged {
            silent: ground.fleet.domains().difference(&answered).map(ToString::to_string).collect(),
            incarnations: remains.writers.len() as u64,
            compacted_through: ground.ledger.snapshot().and_then(|view| view.applied_seq()).map_err(local)?.0,
            ..Salvaged::default()
        };
        replay::replay(&ground, &evidence, &remains, newest.marks, &mut salvaged).await?;
        ground.unjudged.check()?;
        unnamed::count(&ground, &book, &hints, &mut salvaged).await?;
        Ok(Self { shared: reconcile::reader(ground, "it only rescues"), salvaged })
    }

    /// What the log still says.
    pub fn salvaged(&self) -> &Salvaged {
        &self.salvaged
    }

    /// Blobs and their bytes, as far as the log names them.
    ///
    /// # Errors
    /// `LocalStore` for the scratch ledger.
    pub fn totals(&self) -> Result<(u64, u64), Error> {
        let totals = view(&self.shared)?.totals().map_err(local)?;
        Ok((totals.blobs, totals.logical_bytes))
    }

    /// Some blobs from `from` on, in order of tenant, bucket and key; and where the next page begins, none behind the last.
    ///
    /// # Errors
    /// `LocalStore` for the scratch ledger.
    pub fn page(&self, from: SalvageCursor) -> Result<(Vec<SalvageBlob>, Option<SalvageCursor>), Error> {
        let view = view(&self.shared)?;
        let SalvageCursor { mut tenant, mut bucket, key } = from;
        let mut key = key;
        loop {
            let current = match (tenant, bucket.is_some()) {
                (Some(id), true) => view.tenant(id).map_err(local)?,
                _ => view.tenants(tenant, 1).map_err(local)?.into_iter().next(),
            };
            let Some(owner) = current else { return Ok((Vec::new(), None)) };
            let row = match (&bucket, &key) {
                (Some(name), Some(_)) => view.bucket(owner.id, name).map_err(local)?,
                (after, _) => view.buckets(owner.id, "", after.as_deref(), 1).map_err(local)?.into_iter().next(),
            };
            let Some(row) = row else {
                (tenant, bucket, key) = (Some(owner.id), None, None);
                continue;
            };
            let query = ListQuery { prefix: b"", delimiter: b"", start_after: key.as_deref(), limit: PAGE };
            let listed = view.list(row.id, &query).map_err(local)?;
            let blobs: Vec<SalvageBlob> = listed
                .items
                .into_iter()
                .filter_map(|item| match item {
                    ListItem::Blob { key, entry } => Some(blob((&owner.name, owner.id), (&row.name, row.id), key, *entry)),
                    ListItem::Prefix(_) => None,
                })
                .collect();
            (tenant, key) = (Some(owner.id), listed.next);
            bucket = Some(row.name);
            if !blobs.is_empty() {
                return Ok((blobs, Some(SalvageCursor { tenant, bucket, key })));
            }
        }
    }

    /// Whether the same bucket has a blob under this key.
    ///
    /// # Errors
    /// `LocalStore` for the scratch ledger.
    pub fn has_sibling(&self, blob: &SalvageBlob, key: &[u8]) -> Result<bool, Error> {
        Ok(view(&self.shared)?.blob(blob.ids.1, key).map_err(local)?.is_some())
    }

    /// Its bytes in order, every chunk held against its keyed hash. An error says that the rest cannot be rebuilt.
    ///
    /// # Errors
    /// `DataUnavailable` when too few providers answer, `IntegrityViolation` when what they hold cannot be right.
    pub async fn open(&self, blob: &SalvageBlob) -> Result<BlobStream, Error> {
        let lease = self.shared.keep.lease(view(&self.shared)?.applied_seq().map_err(local)?);
        let bytes = Box::pin(read::open(&self.shared, blob.ids.1, &blob.content, 0..blob.size, lease)).await?;
        check::checked(&self.shared, blob.ids, (&blob.content, blob.size), bytes)
    }

    /// What keeps a blob from being rebuilt: every block of it that shows fewer than k shards. Empty if all of them show enough, so that
    /// what they show must be wrong.
    ///
    /// # Errors
    /// `LocalStore` for the scratch ledger.
    pub async fn shortfalls(&self, blob: &SalvageBlob) -> Result<Vec<Shortfall>, Error> {
        let view = view(&self.shared)?;
        let (mut asked, mut found) = (std::collections::BTreeSet::<Option<BlockId>>::new(), Vec::new());
        let mut walker = Walker::new(&blob.content, 0..blob.size);
        loop {
            let (id, list) = match walker.step() {
                Step::End => return Ok(found),
                Step::Chunk(piece) => (piece.id, None),
                Step::List(list) => (list.id, Some(list)),
            };
            let place = view.chunk(blob.ids.1, &id).map_err(local)?;
            let entry = place.map(|place| view.block(place.block).map_err(local)).transpose()?.flatten();
            if asked.insert(entry.as_ref().map(|entry| entry.facts.id)) {
                match entry {
                    None => found.push(Shortfall { block: None, shards: 0, needed: 0 }),
                    Some(entry) => {
                        let (entry, shown, _) = losses::count(&self.shared, entry).await;
                        let shards = u8::try_from(shown.len()).unwrap_or(u8::MAX);
                        let needed = entry.facts.geometry.k();
                        if shards < needed {
                            found.push(Shortfall { block: Some(entry.facts.id.to_string()), shards, needed });
                        }
                    }
                }
            }
            if let Some(list) = list {
                let Ok(refs) = read::load_list(&self.shared, blob.ids.1, list.id).await else { return Ok(found) };
                walker.enter(&list, refs)?;
            }
        }
    }
}

fn blob(tenant: (&str, TenantId), bucket: (&str, BucketId), key: Vec<u8>, entry: BlobEntry) -> SalvageBlob {
    SalvageBlob {
        tenant: tenant.0.to_owned(),
        bucket: bucket.0.to_owned(),
        key,
        version: entry.version,
        size: entry.size,
        sha256: entry.sha256,
        content_type: entry.content_type,
        metadata: entry.metadata,
        modified: entry.modified,
        ids: (tenant.1, bucket.1),
        content: entry.content,
    }
}

#[cfg(test)]
mod tests;
