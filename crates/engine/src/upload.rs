//! From a body to chunks that are stored: cut, name, deduplicate, compress, pack, seal, scatter.
//!
//! Stages overlap: while one block is coded and sent, the next one fills. Memory is bounded whatever the blob's size: a window
//! of the body, one open block, and the blocks in flight, whose bytes are permits of a shared budget. A blob of at most
//! [`SMALL_BYTES`] fills no block of its own: its chunks ride in the commit block.

pub(crate) mod content;
mod memory;
mod pack;
mod ship;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use diaspore_block::id::{BucketId, ChunkId, Seq};
use diaspore_block::key::ChunkHasher;
use diaspore_block::record::{ChunkRef, Content, Encoding};
use diaspore_block::{BlockError, compress};
use futures::StreamExt;
use sha2::{Digest, Sha256};

use crate::api::{BodyError, BodyStream, Caller, Class, Error, ErrorKind, PutOptions};
use crate::chunker::Chunker;
use crate::collect::Pins;
use crate::commit::SmallChunk;
use crate::namespace::{local, view};
use crate::scrub;
use crate::shared::Shared;
use crate::world::cpu;
use content::{ContentBuilder, FullList, Rest};
use ship::Shipping;

pub(crate) use memory::{BlockMemory, Buffers};
pub(crate) use pack::Packer;
pub(crate) use ship::{Shipment, record as bulk_record};

/// Blobs up to this size ride in commit blocks.
pub(crate) const SMALL_BYTES: u64 = 1 << 20;
// Chunks are first cut when the window is full: by then a blob of more than one commit block's share is known to be one.
const _: () = assert!(crate::chunker::WINDOW_BYTES as u64 > SMALL_BYTES);
/// Chunk ids of one upload remembered for deduplication against itself; beyond it only the ledger is asked.
const REMEMBERED_CHUNKS: usize = 1 << 16;
/// Bytes of a body that may be held without a place among the buffered uploads.
const UNCOUNTED_BYTES: u64 = 256 * 1024;
/// Work on fewer bytes stays on the worker thread: handing it over would cost more.
const INLINE_BYTES: usize = 64 * 1024;

/// What an upload is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Store the chunks.
    Store(Class),
    /// Only learn which body it is: a retry of a request that has its outcome.
    Compare,
}

/// An upload whose bytes have all arrived and lie at their class, or ride in the commit to come.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) size: u64,
    pub(crate) sha256: Option<[u8; 32]>,
    /// Identity of the body within its bucket: a keyed hash over its chunk ids.
    pub(crate) body_hash: [u8; 32],
    pub(crate) content: Content,
    /// Chunks for the commit block.
    pub(crate) small: Vec<SmallChunk>,
    /// Blocks of its own.
    pub(crate) shipment: Option<Shipment>,
    /// Sequences whose blocks it shares chunks with and that are not settled.
    pub(crate) unsettled: Vec<Seq>,
    /// k, n and whether that is less than the policy wants, when there are blocks of its own.
    pub(crate) geometry: Option<(u8, u8, bool)>,
    /// The blocks it relies on, to be held until its outcome is applied.
    pub(crate) pins: Pins,
}

/// One upload in progress: the window of the body, and the desk where chunks are dealt with.
pub(crate) struct Upload {
    chunker: Chunker,
    desk: Desk,
    sha256: Option<Sha256>,
    size: u64,
}

/// Everything that happens to a chunk once it is cut.
struct Desk {
    shared: Arc<Shared>,
    caller: Caller,
    bucket: BucketId,
    purpose: Purpose,
    hasher: ChunkHasher,
    body_hash: [u8; 32],
    content: ContentBuilder,
    seen: HashSet<ChunkId>,
    probe: compress::Probe,
    /// Chunks that found no room; at most a data chunk and the lists it completed.
    parked: VecDeque<Ready>,
    sink: Sink,
    shipping: Option<Shipping>,
    unsettled: BTreeSet<Seq>,
    geometry: Option<(u8, u8, bool)>,
    pins: Pins,
}

/// Where stored chunks go.
enum Sink {
    /// The blob is not known to exceed [`SMALL_BYTES`], or does not.
    Small(Vec<SmallChunk>),
    /// Into bulk blocks; the packer is present while one is open.
    Bulk(Option<Box<Packer>>),
}

/// A chunk that has to be stored.
struct Ready {
    id: ChunkId,
    plain_len: u32,
    encoding: Encoding,
    stored: Bytes,
}

/// Why work on the window stopped.
#[derive(Debug, PartialEq, Eq)]
enum Pause {
    /// More bytes of the body are needed.
    Starved,
    /// A new block is needed.
    Block,
}

impl Upload {
    /// An upload into `bucket` of the caller's tenant.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        caller: &Caller,
        bucket: BucketId,
        purpose: Purpose,
        options: &PutOptions,
    ) -> Result<Self, Error> {
        let keys = shared.keys.tenant(caller.tenant).map_err(sealing)?;
        let hasher = keys.dedup.bucket(&bucket);
        let chunker = Chunker::new(&hasher.keyed("chunker", &[crate::chunker::CHUNKER_ID]));
        let digest = options.sha256.is_some() || options.want_sha256;
        let desk = Desk {
            shared: Arc::clone(shared),
            caller: caller.clone(),
            bucket,
            purpose,
            hasher,
            body_hash: [0; 32],
            content: ContentBuilder::default(),
            seen: HashSet::new(),
            probe: compress::Probe::default(),
            parked: VecDeque::new(),
            sink: Sink::Small(Vec::new()),
            shipping: None,
            unsettled: BTreeSet::new(),
            geometry: None,
            pins: shared.keep.pins(),
        };
        Ok(Self { chunker, desk, sha256: digest.then(Sha256::new), size: 0 })
    }

    /// Takes the whole body in. When it fails, nothing becomes visible; blocks that left already are recorded.
    ///
    /// # Errors
    /// `Aborted`, `TooLarge`, `DigestMismatch` for the body; `TooFewDomains`, `NotAccepted` for the storing.
    pub(crate) async fn receive(mut self, mut body: BodyStream, options: &PutOptions) -> Result<Received, Error> {
        let mut window = None;
        while let Some(piece) = body.next().await {
            let mut piece = piece.map_err(|error| refused(&error))?;
            self.size += piece.len() as u64;
            if options.length.is_some_and(|length| self.size > length) {
                return Err(Error::new(ErrorKind::DigestMismatch, "the body is longer than its declared length; nothing was stored"));
            }
            if let Some(sha256) = &mut self.sha256 {
                on_cpu(piece.len(), || sha256.update(&piece));
            }
            if window.is_none() && self.size > UNCOUNTED_BYTES {
                let closed = |_| Error::new(ErrorKind::NotAccepted, "the service is shutting down; nothing was accepted");
                window = Some(Arc::clone(&self.desk.shared.data.windows).acquire_owned().await.map_err(closed)?);
            }
            while !piece.is_empty() {
                let taken = self.chunker.push(&piece);
                piece.advance(taken);
                if self.chunker.is_full() {
                    self.drain().await?;
                }
            }
        }
        if options.length.is_some_and(|length| self.size < length) {
            return Err(Error::new(ErrorKind::DigestMismatch, "the body is shorter than its declared length; nothing was stored"));
        }
        let sha256 = self.sha256.take().map(|sha256| <[u8; 32]>::from(sha256.finalize()));
        if options.sha256.is_some() && options.sha256 != sha256 {
            return Err(Error::new(ErrorKind::DigestMismatch, "the body does not have the declared digest; nothing was stored"));
        }
        self.chunker.end();
        self.drain().await?;
        drop((self.chunker, window));
        self.desk.finish(self.size, sha256).await
    }

    /// Works off the window as far as chunks can be cut.
    async fn drain(&mut self) -> Result<(), Error> {
        if self.size > SMALL_BYTES && matches!(self.desk.sink, Sink::Small(_)) {
            self.desk.sink = Sink::Bulk(None);
        }
        loop {
            let Self { chunker, desk, .. } = self;
            let pause = on_cpu(chunker.held(), || {
                loop {
                    if !desk.unpark()? {
                        return Ok(Pause::Block);
                    }
                    match chunker.cut() {
                        Some(chunk) => desk.take(chunk)?,
                        None => return Ok::<_, Error>(Pause::Starved),
                    }
                }
            })?;
            match pause {
                Pause::Starved => return Ok(()),
                Pause::Block => self.desk.turn_block().await?,
            }
        }
    }
}

impl Desk {
    /// Takes a data chunk of the body.
    fn take(&mut self, chunk: &[u8]) -> Result<(), Error> {
        let id = self.hasher.chunk_id(chunk);
        let mut chain = [0; 72];
        for (to, from) in chain.iter_mut().zip(self.body_hash.iter().chain(id.as_bytes()).chain(&(chunk.len() as u64).to_be_bytes())) {
            *to = *from;
        }
        self.body_hash = self.hasher.keyed("body", &chain);
        if self.purpose == Purpose::Compare {
            return Ok(());
        }
        self.keep(id, chunk)?;
        self.content.push(0, ChunkRef { id, len: chunk.len() as u64 })?;
        while let Some(list) = self.content.take_full() {
            self.keep_list(&list)?;
        }
        Ok(())
    }

    fn keep_list(&mut self, list: &FullList) -> Result<(), Error> {
        let encoded = Content::encode_list(&list.refs);
        let id = self.hasher.chunk_id(&encoded);
        self.keep(id, &encoded)?;
        self.content.push(list.level, ChunkRef { id, len: list.span() })
    }

    /// Stores a chunk unless it is stored already; parks it when it finds no room.
    fn keep(&mut self, id: ChunkId, plain: &[u8]) -> Result<(), Error> {
        if self.is_known(id)? {
            return Ok(());
        }
        let plain_len = u32::try_from(plain.len()).map_err(|_| Error::new(ErrorKind::Internal, "a chunk is longer than a chunk can be"))?;
        let compressed =
            if self.shared.config.profile.compression { compress::compress(plain, &mut self.probe).map_err(sealing)? } else { None };
        let (encoding, stored) = match &compressed {
            Some(stored) => (Encoding::ZstdFramed, stored.as_slice()),
            None => (Encoding::Raw, plain),
        };
        let room = self.parked.is_empty()
            && match &mut self.sink {
                Sink::Small(_) => false,
                Sink::Bulk(packer) => match packer {
                    Some(packer) => packer.put(self.bucket, id, encoding, plain_len, stored)?,
                    None => false,
                },
            };
        if !room {
            let stored = compressed.map_or_else(|| Bytes::copy_from_slice(plain), Bytes::from);
            self.parked.push_back(Ready { id, plain_len, encoding, stored });
        }
        if self.seen.len() < REMEMBERED_CHUNKS {
            self.seen.insert(id);
        }
        Ok(())
    }

    /// Whether the chunk needs no storing: this upload stored it, or the ledger knows it in a block that can be read.
    fn is_known(&mut self, id: ChunkId) -> Result<bool, Error> {
        if !self.shared.config.profile.dedup {
            return Ok(false);
        }
        if self.seen.contains(&id) {
            return Ok(true);
        }
        let Some(place) = view(&self.shared)?.chunk(self.bucket, &id).map_err(local)? else { return Ok(false) };
        // Pinned first, then looked up in the newest state: a collection that came in between has taken it out.
        if !self.pins.rely_on(place.block) {
            return Ok(false);
        }
        let view = view(&self.shared)?;
        let still = view.chunk(self.bucket, &id).map_err(local)?.is_some_and(|now| now.block == place.block);
        let Some(block) = view.block(place.block).map_err(local)?.filter(|_| still) else { return Ok(false) };
        if scrub::is_known_lost(&view, &block)? {
            return Ok(false);
        }
        let full = self.purpose == Purpose::Store(Class::Full);
        if block.settled {
            // It was whole once; what scrubs and readers found since counts as well.
            return pack::is_sound(&self.shared, &view, &block, full);
        }
        if !pack::is_reachable(&self.shared, &block) {
            return Ok(false);
        }
        if full {
            self.unsettled.insert(block.seq);
        }
        Ok(true)
    }

    /// Stores what is parked. False when a new block is needed first.
    fn unpark(&mut self) -> Result<bool, Error> {
        while let Some(ready) = self.parked.pop_front() {
            match &mut self.sink {
                Sink::Small(chunks) => chunks.push(SmallChunk {
                    tenant: self.caller.tenant,
                    bucket: self.bucket,
                    id: ready.id,
                    encoding: ready.encoding,
                    plain_len: ready.plain_len,
                    stored: ready.stored,
                }),
                Sink::Bulk(packer) => {
                    let stored = match packer {
                        Some(packer) => packer.put(self.bucket, ready.id, ready.encoding, ready.plain_len, &ready.stored)?,
                        None => false,
                    };
                    if !stored {
                        self.parked.push_front(ready);
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Sends the open block off and opens the next.
    async fn turn_block(&mut self) -> Result<(), Error> {
        self.send_block()?;
        let packer = Packer::open(&self.shared, self.caller.tenant).await?;
        self.geometry = Some(packer.geometry());
        self.pins.own(packer.block());
        self.sink = Sink::Bulk(Some(Box::new(packer)));
        Ok(())
    }

    fn send_block(&mut self) -> Result<(), Error> {
        let Sink::Bulk(packer) = &mut self.sink else { return Ok(()) };
        let Some(packer) = packer.take() else { return Ok(()) };
        if packer.is_empty() {
            return Ok(());
        }
        self.shipping.get_or_insert_with(|| Shipping::start(&self.shared, &self.caller)).send(packer)
    }

    /// Closes the content, sends the last block and waits until all have their class.
    async fn finish(mut self, size: u64, sha256: Option<[u8; 32]>) -> Result<Received, Error> {
        let content = loop {
            match self.content.finish() {
                Rest::Done(content) => break content,
                Rest::Store(list) => on_cpu(list.refs.len() * size_of::<ChunkRef>(), || self.keep_list(&list))?,
            }
            while !self.unpark()? {
                self.turn_block().await?;
            }
        };
        self.send_block()?;
        let shipment = match self.shipping.take() {
            Some(shipping) => Some(shipping.finish().await?),
            None => None,
        };
        let small = match std::mem::replace(&mut self.sink, Sink::Bulk(None)) {
            Sink::Small(chunks) => chunks,
            Sink::Bulk(_) => Vec::new(),
        };
        Ok(Received {
            size,
            sha256,
            body_hash: self.body_hash,
            content,
            small,
            shipment,
            unsettled: self.unsettled.into_iter().collect(),
            geometry: self.geometry,
            pins: self.pins,
        })
    }
}

/// Runs `work` over so many bytes, off the worker thread when there are many.
fn on_cpu<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    if bytes > INLINE_BYTES { cpu(work) } else { work() }
}

fn refused(error: &BodyError) -> Error {
    match error {
        BodyError::Aborted(_) => Error::new(ErrorKind::Aborted, "the upload broke off; nothing was stored"),
        BodyError::TooLong { .. } => Error::new(ErrorKind::TooLarge, error.to_string()),
    }
}

fn sealing(error: BlockError) -> Error {
    Error::caused(ErrorKind::Internal, "the data could not be sealed; nothing was stored", error)
}
