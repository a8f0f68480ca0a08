//! Bytes of a blob on their way out, held against the keyed hash that names each of its chunks.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use diaspore_block::id::{BucketId, ChunkId, TenantId};
use diaspore_block::key::ChunkHasher;
use diaspore_block::record::Content;
use futures::{StreamExt, stream};

use crate::api::{BlobStream, Error, ErrorKind};
use crate::read;
use crate::read::walk::{Step, Walker};
use crate::shared::Shared;
use crate::world::cpu;

/// One chunk while its bytes arrive.
struct Open {
    id: ChunkId,
    left: usize,
    plain: Vec<u8>,
}

struct Checker {
    shared: Arc<Shared>,
    bucket: BucketId,
    hasher: ChunkHasher,
    walker: Walker,
    chunk: Option<Open>,
}

/// The same bytes, given on only as far as whole chunks were right.
pub(super) fn checked(
    shared: &Arc<Shared>,
    (tenant, bucket): (TenantId, BucketId),
    (content, size): (&Content, u64),
    bytes: BlobStream,
) -> Result<BlobStream, Error> {
    let keys = shared.keys.tenant(tenant);
    let keys = keys.map_err(|error| Error::caused(ErrorKind::IntegrityViolation, "the tenant has no keys in this keyring", error))?;
    let hasher = keys.dedup.bucket(&bucket);
    let checker = Checker { shared: Arc::clone(shared), bucket, hasher, walker: Walker::new(content, 0..size), chunk: None };
    let chunks = stream::try_unfold((checker, bytes, Bytes::new()), |(mut checker, mut bytes, mut rest)| async move {
        loop {
            if rest.is_empty() {
                match bytes.next().await {
                    Some(piece) => rest = piece?,
                    None => return checker.end().await.map(|()| None),
                }
            }
            if let Some(chunk) = checker.take(&mut rest).await? {
                return Ok(Some((chunk, (checker, bytes, rest))));
            }
        }
    });
    Ok(Box::pin(chunks))
}

impl Checker {
    /// Takes bytes for the present chunk; gives it once it is whole and right.
    async fn take(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, Error> {
        if self.chunk.is_none() {
            self.chunk = self.next().await?;
        }
        let Some(open) = &mut self.chunk else { return Err(wrong()) };
        let taken = open.left.min(bytes.len());
        open.plain.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        bytes.advance(taken);
        open.left -= taken;
        if open.left > 0 {
            return Ok(None);
        }
        let Some(Open { id, plain, .. }) = self.chunk.take() else { return Err(wrong()) };
        if cpu(|| self.hasher.chunk_id(&plain)) != id {
            return Err(wrong());
        }
        Ok(Some(Bytes::from(plain)))
    }

    /// The chunk that comes next; none behind the last.
    async fn next(&mut self) -> Result<Option<Open>, Error> {
        loop {
            match self.walker.step() {
                Step::End => return Ok(None),
                Step::Chunk(piece) => {
                    let left = usize::try_from(piece.len).map_err(|_| wrong())?;
                    return Ok(Some(Open { id: piece.id, left, plain: Vec::with_capacity(left.min(1 << 20)) }));
                }
                Step::List(list) => {
                    let refs = read::load_list(&self.shared, self.bucket, list.id).await?;
                    self.walker.enter(&list, refs)?;
                }
            }
        }
    }

    /// The stream has ended: so must the walk have.
    async fn end(&mut self) -> Result<(), Error> {
        if self.chunk.is_none() && self.next().await?.is_none() { Ok(()) } else { Err(wrong()) }
    }
}

fn wrong() -> Error {
    Error::new(ErrorKind::IntegrityViolation, "the bytes that were rebuilt are not those that the log names")
}
