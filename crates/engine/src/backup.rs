//! A sealed copy of this service's own data, taken while it serves.

use std::sync::Arc;

use bytes::Bytes;
use diaspore_block::id::Seq;
use diaspore_block::record::BackupExported;
use diaspore_ledger::Exporter;

use crate::api::Error;
use crate::commit::{CommitRequest, NewRecord};
use crate::namespace::local;
use crate::shared::Shared;
use crate::world::cpu;

/// A backup on its way out.
#[derive(Debug)]
pub struct Backup {
    shared: Arc<Shared>,
    exporter: Exporter,
    seq: Seq,
    bytes: u64,
}

impl Backup {
    /// Fixes the state that is copied: what is applied now.
    pub(crate) fn begin(shared: Arc<Shared>) -> Result<Self, Error> {
        let exporter = cpu(|| shared.ledger.exporter()).map_err(local)?;
        let seq = exporter.applied().unwrap_or_default();
        Ok(Self { shared, exporter, seq, bytes: 0 })
    }

    /// The next piece; none behind the end. Once it is whole the log says so, unless nothing can be written now.
    ///
    /// # Errors
    /// `LocalStore` when the journal does not read: what was given so far is no backup, and is refused by a restore.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(piece) = cpu(|| self.exporter.piece()).map_err(local)? {
            self.bytes += piece.len() as u64;
            return Ok(Some(piece.into()));
        }
        let record = NewRecord::system(BackupExported { seq: self.seq, bytes: self.bytes });
        if let Err(error) = self.shared.committer.submit(CommitRequest::single(record, ()), self.shared.answer_by()).await {
            tracing::warn!(%error, "a backup was made that the log does not speak of");
        }
        Ok(None)
    }
}
