//! Blobs: what they consist of, and what became of them.

use crate::codec::{Field, Reader, fields};
use crate::error::{BlockError, Result};
use crate::id::{BucketId, ChunkId, VersionId};
use crate::limits::{MAX_DEPTH, MAX_INLINE_REFS, MAX_LIST_REFS};
use crate::record::Class;

fields! {
    /// A chunk of a blob, or of its content list.
    pub struct ChunkRef {
        /// Its id.
        pub id: ChunkId,
        /// Plain bytes of the blob below it: a data chunk's length, or the sum over a list's references.
        pub len: u64,
    }
}
fields! {
    /// What a blob consists of.
    ///
    /// Depth 0: the data chunks in order. Depth d > 0: chunks whose plain bytes, joined, are an encoded list of
    /// [`ChunkRef`] of depth d - 1.
    pub struct Content {
        /// Levels of lists above the data.
        pub depth: u8,
        /// At most 512 references.
        pub refs: Vec<ChunkRef>,
    }
}

impl Content {
    /// The plain bytes of a list chunk: the references, joined; at most 4096 of them.
    pub fn encode_list(refs: &[ChunkRef]) -> Vec<u8> {
        let mut out = Vec::with_capacity(refs.len() * ChunkRef::MIN_LEN);
        for one in refs {
            one.put(&mut out);
        }
        out
    }

    /// The references in the plain bytes of one list chunk.
    pub fn decode_list(bytes: &[u8]) -> Result<Vec<ChunkRef>> {
        let mut reader = Reader::new(bytes, "content list");
        if bytes.is_empty() || bytes.len() > MAX_LIST_REFS * ChunkRef::MIN_LEN {
            return Err(reader.malformed());
        }
        let mut refs = Vec::with_capacity(bytes.len() / ChunkRef::MIN_LEN);
        while reader.remaining() > 0 {
            refs.push(reader.value()?);
        }
        Ok(refs)
    }
}

fields! {
    /// An idempotency key and the request it was first used with.
    pub struct Idempotency {
        /// Keyed hash of principal and key.
        pub key_hash: [u8; 32],
        /// Keyed hash of the request.
        pub request_hash: [u8; 32],
    }
}
fields! {
    /// A blob has a new version.
    pub struct BlobPut {
        /// Where.
        pub bucket: BucketId,
        /// Its name, byte-exact.
        pub key: Vec<u8>,
        /// The new version.
        pub version: VersionId,
        /// Plain length in bytes.
        pub size: u64,
        /// As the client gave it.
        pub content_type: Option<String>,
        /// As the client gave it, in order.
        pub metadata: Vec<(String, String)>,
        /// SHA-256 of the plain blob, where it was declared or wanted; shown only to those who may read it.
        pub sha256: Option<[u8; 32]>,
        /// Random per version.
        pub etag: [u8; 16],
        /// What the write waited for.
        pub class: Class,
        /// Its chunks.
        pub content: Content,
        /// Set when the client sent an idempotency key.
        pub idempotency: Option<Idempotency>,
    }
}
fields! {
    /// A blob is gone.
    pub struct BlobDeleted {
        /// Where.
        pub bucket: BucketId,
        /// Its name.
        pub key: Vec<u8>,
        /// The version that was current.
        pub version: VersionId,
        /// Set when the client sent an idempotency key.
        pub idempotency: Option<Idempotency>,
    }
}
fields! {
    /// A blob was read.
    pub struct BlobRead {
        /// Where.
        pub bucket: BucketId,
        /// Its name.
        pub key: Vec<u8>,
        /// Which version.
        pub version: VersionId,
        /// Reads this record stands for.
        pub count: u64,
        /// Bytes they gave.
        pub bytes: u64,
    }
}

impl Content {
    /// Sum over the references; `None` if it is no number, or if the list itself is outside the limits.
    fn plain_len(&self) -> Option<u64> {
        let shaped = self.refs.len() <= MAX_INLINE_REFS && self.depth <= MAX_DEPTH && (self.depth == 0 || !self.refs.is_empty());
        self.refs.iter().try_fold(0u64, |sum, one| sum.checked_add(one.len)).filter(|_| shaped)
    }
}

impl BlobPut {
    /// The one place where a blob's size is held against its content: readers refuse the record, writers do not send it.
    pub(super) fn check(&self) -> Result<()> {
        match self.content.plain_len() {
            Some(len) if len == self.size => Ok(()),
            Some(_) => Err(BlockError::Contradiction { what: "size of a blob" }),
            None => Err(BlockError::Malformed { what: "content of a blob" }),
        }
    }
}
