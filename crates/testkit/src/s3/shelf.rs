//! Where objects stand: files below a folder, or memory.
//!
//! A folder holds `<bucket>/<key>` for every object, and two folders of its own that no bucket name can collide with:
//! `.incoming` for uploads under way and `.snapshot` for the last snapshot, a tree of hard links. Objects appear by
//! rename, so a reader or a lister of the folder sees whole objects only.

mod folder;
mod memory;

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::body::Source;
use crate::recent::Recent;
use folder::Folder;
use memory::Memory;

pub(super) use folder::is_key;

/// Longest key, as in S3.
pub(super) const MAX_KEY_LEN: usize = 1024;

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) len: u64,
    pub(super) modified: SystemTime,
    /// Quoted.
    pub(super) tag: String,
}

/// A condition on the state before a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    None,
    /// Nothing may be there.
    Absent,
    /// This tag must be there.
    Tag(String),
}

impl Condition {
    fn holds(&self, before: Option<&Meta>) -> bool {
        match self {
            Self::None => true,
            Self::Absent => before.is_none(),
            Self::Tag(tag) => before.is_some_and(|meta| tag == "*" || meta.tag == *tag),
        }
    }
}

/// Why a write did not take place.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShelfError {
    #[error("no such bucket")]
    NoBucket,
    #[error("the condition does not hold")]
    Condition,
    #[error("the condition names an object that is not there")]
    ConditionAbsent,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Which state is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Now,
    Snapshot,
}

/// An object being received: nobody sees it before it is published, and it vanishes when dropped.
#[derive(Debug)]
pub(super) enum Incoming {
    File(folder::IncomingFile),
    Memory(Vec<Bytes>),
}

impl Incoming {
    /// Appends a piece.
    pub(super) fn push(&mut self, piece: Bytes) -> io::Result<()> {
        match self {
            Self::File(file) => file.push(&piece),
            Self::Memory(pieces) => {
                pieces.push(piece);
                Ok(())
            }
        }
    }

    /// Appends an object that stands already.
    pub(super) fn copy(&mut self, from: Found) -> io::Result<()> {
        match (self, from) {
            (Self::File(whole), Found::File(_, file)) => whole.append_file(file),
            (Self::Memory(whole), Found::Memory(_, pieces)) => {
                whole.extend(pieces.iter().cloned());
                Ok(())
            }
            _ => Err(io::Error::other("a copy from another backing")),
        }
    }

    /// Nothing will be pushed any more; it waits to be appended.
    pub(super) fn close(&mut self) {
        if let Self::File(file) = self {
            file.close();
        }
    }

    /// Appends another incoming object.
    pub(super) fn append(&mut self, part: &Self) -> io::Result<()> {
        match (self, part) {
            (Self::File(whole), Self::File(part)) => whole.append(part),
            (Self::Memory(whole), Self::Memory(part)) => {
                whole.extend(part.iter().cloned());
                Ok(())
            }
            _ => Err(io::Error::other("parts of another backing")),
        }
    }
}

#[derive(Debug)]
enum Backing {
    Folder(Folder),
    Memory(Memory),
}

/// All buckets of one endpoint.
#[derive(Debug)]
pub(super) struct Shelf {
    backing: Backing,
    /// Held over every change, which makes conditions atomic. Keys are `bucket/key`.
    recent: Mutex<Recent<Meta>>,
}

/// 3 to 63 of a-z, 0-9, `-` and `.`, first and last a letter or digit, no two dots in a row.
pub(super) fn is_bucket_name(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
        && edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
        && !name.contains("..")
}

impl Shelf {
    pub(super) fn folder(root: &Path) -> io::Result<Self> {
        Ok(Self::over(Backing::Folder(Folder::open(root)?)))
    }

    pub(super) fn memory() -> Self {
        Self::over(Backing::Memory(Memory::default()))
    }

    fn over(backing: Backing) -> Self {
        Self { backing, recent: Mutex::new(Recent::default()) }
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Meta>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a bucket; answers whether it was new.
    pub(super) fn create_bucket(&self, bucket: &str) -> io::Result<bool> {
        let _changes = self.lock();
        match &self.backing {
            Backing::Folder(folder) => folder.create_bucket(bucket),
            Backing::Memory(memory) => Ok(memory.create_bucket(bucket)),
        }
    }

    pub(super) fn has_bucket(&self, bucket: &str) -> bool {
        match &self.backing {
            Backing::Folder(folder) => folder.has_bucket(bucket),
            Backing::Memory(memory) => memory.has_bucket(bucket),
        }
    }

    /// Starts an upload.
    pub(super) fn receive(&self) -> io::Result<Incoming> {
        match &self.backing {
            Backing::Folder(folder) => folder.receive().map(Incoming::File),
            Backing::Memory(_) => Ok(Incoming::Memory(Vec::new())),
        }
    }

    /// Makes an upload the object at `key`, if the condition holds at that moment. `now` dates it in memory; a file
    /// has its own date.
    pub(super) fn publish(
        &self,
        bucket: &str,
        key: &str,
        incoming: Incoming,
        condition: &Condition,
        now: SystemTime,
    ) -> Result<Meta, ShelfError> {
        let mut recent = self.lock();
        if !self.has_bucket(bucket) {
            return Err(ShelfError::NoBucket);
        }
        let before = self.meta(View::Now, bucket, key)?;
        if !condition.holds(before.as_ref()) {
            let absent = before.is_none() && *condition != Condition::Absent;
            return Err(if absent { ShelfError::ConditionAbsent } else { ShelfError::Condition });
        }
        let meta = match (&self.backing, incoming) {
            (Backing::Folder(folder), Incoming::File(file)) => folder.publish(bucket, key, &file)?,
            (Backing::Memory(memory), Incoming::Memory(pieces)) => memory.publish(bucket, key, pieces, now),
            _ => return Err(io::Error::other("an upload of another backing").into()),
        };
        recent.note(&joined(bucket, key), before);
        Ok(meta)
    }

    /// Removes an object; nothing happens if there is none.
    pub(super) fn remove(&self, bucket: &str, key: &str) -> Result<(), ShelfError> {
        let mut recent = self.lock();
        if !self.has_bucket(bucket) {
            return Err(ShelfError::NoBucket);
        }
        let Some(before) = self.meta(View::Now, bucket, key)? else {
            return Ok(());
        };
        match &self.backing {
            Backing::Folder(folder) => folder.remove(bucket, key)?,
            Backing::Memory(memory) => memory.remove(bucket, key),
        }
        recent.note(&joined(bucket, key), Some(before));
        Ok(())
    }

    pub(super) fn meta(&self, view: View, bucket: &str, key: &str) -> io::Result<Option<Meta>> {
        match &self.backing {
            Backing::Folder(folder) => folder.meta(view, bucket, key),
            Backing::Memory(memory) => Ok(memory.find(view, bucket, key).map(|found| found.0)),
        }
    }

    /// An object, opened: what a later PUT or DELETE does to its key does not touch it.
    pub(super) fn find(&self, view: View, bucket: &str, key: &str) -> io::Result<Option<Found>> {
        Ok(match &self.backing {
            Backing::Folder(folder) => folder.find(view, bucket, key)?.map(|(meta, file)| Found::File(meta, file)),
            Backing::Memory(memory) => memory.find(view, bucket, key).map(|(meta, pieces)| Found::Memory(meta, pieces)),
        })
    }

    /// Key of another object of the bucket that changed lately and is still there.
    pub(super) fn other(&self, bucket: &str, key: &str, draw: u64) -> Option<String> {
        let recent = self.lock();
        let name = recent.other(&joined(bucket, key), draw)?;
        name.strip_prefix(bucket)?.strip_prefix('/').map(str::to_owned)
    }

    /// Keys that start with `prefix` and what is known of them, in byte order, as of `stale` changes ago.
    pub(super) fn list(&self, view: View, bucket: &str, prefix: &str, stale: u32) -> io::Result<Vec<(String, Meta)>> {
        let mut found = match &self.backing {
            Backing::Folder(folder) => folder.list(view, bucket, prefix)?,
            Backing::Memory(memory) => memory.list(view, bucket, prefix),
        };
        if stale > 0 {
            for change in self.lock().last(stale) {
                let key = change.key.strip_prefix(bucket).and_then(|key| key.strip_prefix('/'));
                let Some(key) = key.filter(|key| key.starts_with(prefix)) else {
                    continue;
                };
                found.retain(|(shown, _)| shown != key);
                if let Some(before) = &change.before {
                    found.push((key.to_owned(), before.clone()));
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    pub(super) fn take_snapshot(&self) -> io::Result<()> {
        let _changes = self.lock();
        match &self.backing {
            Backing::Folder(folder) => folder.take_snapshot(),
            Backing::Memory(memory) => {
                memory.take_snapshot();
                Ok(())
            }
        }
    }

    pub(super) fn roll_back(&self) -> io::Result<()> {
        let mut recent = self.lock();
        recent.clear();
        match &self.backing {
            Backing::Folder(folder) => folder.roll_back(),
            Backing::Memory(memory) => {
                memory.roll_back();
                Ok(())
            }
        }
    }

    pub(super) fn lose_everything(&self) -> io::Result<()> {
        let mut recent = self.lock();
        recent.clear();
        match &self.backing {
            Backing::Folder(folder) => folder.lose_everything(),
            Backing::Memory(memory) => {
                memory.lose_everything();
                Ok(())
            }
        }
    }

    /// Number and bytes of all objects.
    pub(super) fn stored(&self) -> io::Result<(u64, u64)> {
        let buckets = match &self.backing {
            Backing::Folder(folder) => folder.buckets()?,
            Backing::Memory(memory) => memory.buckets(),
        };
        let mut total = (0, 0);
        for bucket in buckets {
            for (_, meta) in self.list(View::Now, &bucket, "", 0)? {
                total.0 += 1;
                total.1 += meta.len;
            }
        }
        Ok(total)
    }
}

fn joined(bucket: &str, key: &str) -> String {
    format!("{bucket}/{key}")
}

/// An opened object.
#[derive(Debug)]
pub(super) enum Found {
    File(Meta, std::fs::File),
    Memory(Meta, std::sync::Arc<[Bytes]>),
}

impl Found {
    pub(super) const fn meta(&self) -> &Meta {
        match self {
            Self::File(meta, _) | Self::Memory(meta, _) => meta,
        }
    }

    /// The `len` bytes from `start` on.
    pub(super) fn source(self, start: u64, len: u64) -> io::Result<Source> {
        match self {
            Self::File(_, mut file) => {
                if start > 0 {
                    io::Seek::seek(&mut file, io::SeekFrom::Start(start))?;
                }
                Ok(Source::File(file))
            }
            Self::Memory(_, pieces) => Ok(Source::Memory(memory::cut(&pieces, start, len))),
        }
    }
}
