//! Bulk blocks of one upload on their way to their class and into the log.
//!
//! Every block that leaves is recorded as `BulkAdded`, whatever becomes of the upload: a collector can then find it, and the
//! next upload of the same bytes finds its chunks. Long uploads record in batches, so that memory does not follow their size.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diaspore_block::id::{BlockId, Seq};
use diaspore_block::record::{BulkAdded, Private};
use diaspore_block::record::{Class as RecordClass, Outcome};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::pack::Packer;
use crate::api::{Caller, Class, Error, ErrorKind};
use crate::commit::{CommitRequest, NewRecord};
use crate::scatter::BulkHandle;
use crate::shared::Shared;
use crate::world::cpu;

/// Longest wait for the records of blocks, which nobody but the upload's own task waits for.
const RECORD_DEADLINE: Duration = Duration::from_mins(2);
/// Blocks recorded together while an upload goes on.
const BATCH_BLOCKS: usize = 16;

/// What left with an upload: records still to be committed, and where the others are.
#[derive(Debug)]
pub(crate) struct Shipment {
    shared: Arc<Shared>,
    caller: Caller,
    added: Vec<BulkAdded>,
    /// Sequences that recorded earlier blocks of this upload.
    recorded: Vec<Seq>,
}

impl Shipment {
    /// Takes the records over into a commit: the records, the blocks they bring, and the sequences that brought the others.
    pub(crate) fn into_records(mut self) -> (Vec<NewRecord>, Vec<BlockId>, Vec<Seq>) {
        let added = std::mem::take(&mut self.added);
        let blocks = added.iter().map(|added| added.block).collect();
        let records = added.into_iter().map(|added| record(&self.caller, added)).collect();
        (records, blocks, std::mem::take(&mut self.recorded))
    }
}

impl Drop for Shipment {
    /// An upload that came to nothing still records what it left behind.
    fn drop(&mut self) {
        if self.added.is_empty() {
            return;
        }
        let added = std::mem::take(&mut self.added);
        let (shared, caller) = (Arc::clone(&self.shared), self.caller.clone());
        self.shared.spawn(async move {
            if let Err(error) = commit(&shared, &caller, added).await {
                tracing::warn!(%error, "blocks of a failed upload are not recorded; their names stay findable by probing");
            }
        });
    }
}

/// The sending end of an upload.
#[derive(Debug)]
pub(crate) struct Shipping {
    queue: mpsc::UnboundedSender<Box<Packer>>,
    result: oneshot::Receiver<Result<Shipment, Error>>,
    failed: Arc<AtomicBool>,
}

impl Shipping {
    /// Starts the task that watches over the blocks of one upload.
    pub(crate) fn start(shared: &Arc<Shared>, caller: &Caller) -> Self {
        let (queue, blocks) = mpsc::unbounded_channel();
        let (done, result) = oneshot::channel();
        let failed = Arc::new(AtomicBool::new(false));
        let watch = watch(Arc::clone(shared), caller.clone(), blocks, Arc::clone(&failed));
        shared.spawn(async move {
            // When the upload is gone, dropping the shipment records its blocks.
            drop(done.send(watch.await));
        });
        Self { queue, result, failed }
    }

    /// Hands over a full block. Unbounded by design: the byte budget bounds the blocks in flight.
    pub(crate) fn send(&self, block: Box<Packer>) -> Result<(), Error> {
        let failed = self.failed.load(Ordering::Relaxed);
        if failed || self.queue.send(block).is_err() {
            return Err(Error::new(ErrorKind::NotAccepted, "earlier parts of the upload could not be stored; nothing was accepted"));
        }
        Ok(())
    }

    /// Waits until every block has its class.
    pub(crate) async fn finish(self) -> Result<Shipment, Error> {
        drop(self.queue);
        self.result.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::NotAccepted, "the service is stopping; nothing was accepted")))
    }
}

/// Seals, codes and scatters the blocks as they come, beside the upload that fills the next one, and waits for their class.
async fn watch(
    shared: Arc<Shared>,
    caller: Caller,
    mut blocks: mpsc::UnboundedReceiver<Box<Packer>>,
    failed: Arc<AtomicBool>,
) -> Result<Shipment, Error> {
    let mut shipment = Shipment { shared: Arc::clone(&shared), caller: caller.clone(), added: Vec::new(), recorded: Vec::new() };
    let mut on_their_way = FuturesUnordered::new();
    let mut first_error = None;
    let mut open = true;
    while open || !on_their_way.is_empty() {
        let outcome = tokio::select! {
            biased;
            outcome = on_their_way.next(), if !on_their_way.is_empty() => outcome,
            block = blocks.recv(), if open => {
                match block.map(|block| cpu(|| block.seal(&shared))) {
                    Some(Ok(handle)) => {
                        on_their_way.push(quorum(handle));
                        None
                    }
                    Some(Err(error)) => Some(Err(error)),
                    None => {
                        open = false;
                        None
                    }
                }
            }
        };
        let mut problem = None;
        match outcome {
            Some(Ok(added)) => {
                shipment.added.push(added);
                if shipment.added.len() >= BATCH_BLOCKS {
                    match commit(&shared, &caller, std::mem::take(&mut shipment.added)).await {
                        Ok(seq) => shipment.recorded.push(seq),
                        Err(error) => problem = Some(error),
                    }
                }
            }
            Some(Err(error)) => problem = Some(error),
            None => (),
        }
        if let Some(error) = problem {
            failed.store(true, Ordering::Relaxed);
            first_error.get_or_insert(error);
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(shipment),
    }
}

async fn quorum(mut handle: BulkHandle) -> Result<BulkAdded, Error> {
    handle.quorum().await
}

async fn commit(shared: &Arc<Shared>, caller: &Caller, added: Vec<BulkAdded>) -> Result<Seq, Error> {
    let bulk = added.iter().map(|added| added.block).collect();
    let records = added.into_iter().map(|added| record(caller, added)).collect();
    let request = CommitRequest { records, chunks: Vec::new(), class: Class::Quorum, bulk, hold: Box::new(()) };
    match shared.committer.submit(request, Instant::now() + RECORD_DEADLINE).await {
        Ok(committed) => Ok(committed.seq),
        // Whatever becomes of these records, the blob itself was never handed in.
        Err(error) if error.kind == ErrorKind::OutcomeUnknown => {
            Err(Error::caused(ErrorKind::NotAccepted, "earlier parts of the upload could not be recorded; nothing was accepted", error))
        }
        Err(error) => Err(error),
    }
}

/// The record of a bulk block at its class.
pub(crate) fn record(caller: &Caller, added: BulkAdded) -> NewRecord {
    NewRecord {
        tenant: caller.tenant,
        principal: caller.principal,
        subject: added.block.into(),
        class: RecordClass::Quorum,
        outcome: Outcome::Done,
        private: Private::BulkAdded(added),
    }
}
