use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Medium, MediumFile, MediumLock, OpenMode};
use crate::error::{LedgerError, Result};

/// Files in memory that remember what a power loss would leave.
///
/// Clones share one disk, as several openings of one folder would; [`Self::snapshot`] and [`Self::crash`] make new disks.
#[derive(Debug, Clone, Default)]
pub struct MemoryMedium(Arc<Mutex<Disk>>);

#[derive(Debug, Clone, Default)]
struct Disk {
    files: BTreeMap<String, Contents>,
    /// Files as they were named at the last `sync_names`, where that differs from now.
    names_before: BTreeMap<String, Option<Contents>>,
    capacity: Option<u64>,
    copies_on_write: bool,
    syncs_fail: bool,
    syncs: u64,
    holders: Holders,
}

#[derive(Debug, Clone, Copy, Default)]
struct Holders {
    writer: bool,
    readers: u32,
}

#[derive(Debug, Clone, Default)]
struct Contents {
    bytes: Vec<u8>,
    /// What each change since the last sync replaced, oldest first.
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Written { offset: usize, new_len: usize, replaced: Vec<u8>, old_len: usize },
    Resized { old_len: usize, cut: Vec<u8> },
}

impl Contents {
    fn undo(&mut self, change: Change) {
        match change {
            Change::Written { offset, replaced, old_len, .. } => {
                for (slot, byte) in self.bytes.iter_mut().skip(offset).zip(replaced) {
                    *slot = byte;
                }
                self.bytes.resize(old_len, 0);
            }
            Change::Resized { old_len, cut } => {
                if cut.is_empty() {
                    self.bytes.resize(old_len, 0);
                } else {
                    self.bytes.extend(cut);
                }
            }
        }
    }

    /// The state at the last sync, plus the first `keep` bytes written after it.
    fn cut(mut self, mut keep: usize) -> Self {
        let after = self.bytes.clone();
        let changes = std::mem::take(&mut self.unsynced);
        for change in changes.iter().rev() {
            self.undo(change.clone());
        }
        for change in changes {
            match change {
                Change::Written { offset, new_len, .. } => {
                    let kept = new_len.min(keep);
                    keep -= kept;
                    // Bytes as they were finally written: a later write over the same place may show through, as on a real disk.
                    let end = (offset + kept).min(after.len());
                    let slice = after.get(offset..end).unwrap_or_default();
                    if self.bytes.len() < offset + slice.len() {
                        self.bytes.resize(offset + slice.len(), 0);
                    }
                    for (slot, byte) in self.bytes.iter_mut().skip(offset).zip(slice) {
                        *slot = *byte;
                    }
                }
                Change::Resized { .. } if keep > 0 => {}
                Change::Resized { .. } => break,
            }
            if keep == 0 {
                break;
            }
        }
        self
    }
}

impl Disk {
    fn used(&self) -> u64 {
        self.files.values().map(|file| file.bytes.len() as u64).sum()
    }

    fn check_room(&self, growth: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if growth > 0 && self.used() + growth > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn remember_name(&mut self, name: &str) {
        let before = self.files.get(name).cloned();
        self.names_before.entry(name.to_owned()).or_insert(before);
    }
}

impl MemoryMedium {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn from_files(files: BTreeMap<String, Contents>) -> Self {
        Self(Arc::new(Mutex::new(Disk { files, ..Disk::default() })))
    }

    /// A copy of the whole disk as it is now, unsynced bytes included: what copying a folder or rolling a disk back gives.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let disk = self.disk();
        let files = disk.files.iter().map(|(name, file)| (name.clone(), Contents { bytes: file.bytes.clone(), unsynced: Vec::new() }));
        Self::from_files(files.collect())
    }

    /// The disk after a power loss that kept nothing unsynced.
    #[must_use]
    pub fn crash(&self) -> Self {
        self.crash_torn(0)
    }

    /// The disk after a power loss that kept, in every file, the first `keep` bytes written since its last sync.
    #[must_use]
    pub fn crash_torn(&self, keep: usize) -> Self {
        let disk = self.disk();
        let mut files = disk.files.clone();
        if keep == 0 {
            for (name, before) in &disk.names_before {
                match before {
                    // A file synced by itself but not by name is lost with its name.
                    None => drop(files.remove(name)),
                    Some(before) => drop(files.insert(name.clone(), before.clone())),
                }
            }
        }
        let files = files.into_iter().map(|(name, file)| (name, file.cut(keep)));
        Self::from_files(files.collect())
    }

    /// Limits the sum of all file lengths in bytes; growth beyond it fails like a full disk. `None` lifts the limit.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.disk().capacity = capacity_bytes;
    }

    /// Makes every later write need room for all it writes, also where it replaces bytes, as a file system that copies on write does.
    pub fn copy_on_write(&self, copies: bool) {
        self.disk().copies_on_write = copies;
    }

    /// Sum of all file lengths in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.disk().used()
    }

    /// Makes every later sync fail (or succeed again).
    pub fn fail_syncs(&self, fail: bool) {
        self.disk().syncs_fail = fail;
    }

    /// How many syncs of files succeeded so far.
    pub fn sync_count(&self) -> u64 {
        self.disk().syncs
    }

    /// Names and lengths in bytes of all files.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.disk().files.iter().map(|(name, file)| (name.clone(), file.bytes.len() as u64)).collect()
    }

    /// All bytes of a file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        self.disk().files.get(name).map(|file| file.bytes.clone())
    }

    /// Replaces a file behind the ledger's back, as synced bytes: damage, truncation, roll-back of one file.
    pub fn replace(&self, name: &str, bytes: Vec<u8>) {
        self.disk().files.insert(name.to_owned(), Contents { bytes, unsynced: Vec::new() });
    }
}

struct Held {
    disk: MemoryMedium,
    mode: OpenMode,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut disk = self.disk.disk();
        match self.mode {
            OpenMode::ReadWrite => disk.holders.writer = false,
            OpenMode::ReadOnly => disk.holders.readers -= 1,
        }
    }
}

impl Medium for MemoryMedium {
    fn lock(&self, mode: OpenMode) -> Result<MediumLock> {
        let mut disk = self.disk();
        match mode {
            _ if disk.holders.writer => return Err(LedgerError::Locked),
            OpenMode::ReadWrite if disk.holders.readers > 0 => return Err(LedgerError::Locked),
            OpenMode::ReadWrite => disk.holders.writer = true,
            OpenMode::ReadOnly => disk.holders.readers += 1,
        }
        drop(disk);
        Ok(MediumLock::new(Held { disk: self.clone(), mode }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().files.keys().cloned().collect())
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn MediumFile>>> {
        let mut disk = self.disk();
        if !disk.files.contains_key(name) {
            if !create {
                return Ok(None);
            }
            disk.remember_name(name);
            disk.files.insert(name.to_owned(), Contents::default());
        }
        Ok(Some(Arc::new(MemoryFile { medium: self.clone(), name: name.to_owned() })))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.files.contains_key(name) {
            disk.remember_name(name);
            disk.files.remove(name);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.remember_name(from);
        disk.remember_name(to);
        let file = disk.files.remove(from).ok_or_else(missing)?;
        disk.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.syncs_fail {
            return Err(io::Error::other("injected sync failure"));
        }
        disk.names_before.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryFile {
    medium: MemoryMedium,
    name: String,
}

impl MemoryFile {
    fn with<T>(&self, run: impl FnOnce(&mut Disk, &str) -> io::Result<T>) -> io::Result<T> {
        run(&mut self.medium.disk(), &self.name)
    }
}

fn offset_of(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl MediumFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|disk, name| Ok(disk.files.get(name).ok_or_else(missing)?.bytes.len() as u64))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset_of(offset)?;
        self.with(|disk, name| {
            let bytes = &disk.files.get(name).ok_or_else(missing)?.bytes;
            let slice = bytes.get(start..).and_then(|rest| rest.get(..out.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(slice);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = offset_of(offset)?;
        self.with(|disk, name| {
            let old_len = disk.files.get(name).ok_or_else(missing)?.bytes.len();
            let end = start + data.len();
            let grown = if disk.copies_on_write { data.len() } else { end.saturating_sub(old_len) };
            disk.check_room(grown as u64)?;
            let file = disk.files.get_mut(name).ok_or_else(missing)?;
            let replaced = file.bytes.get(start.min(old_len)..end.min(old_len)).unwrap_or_default().to_vec();
            file.unsynced.push(Change::Written { offset: start, new_len: data.len(), replaced, old_len });
            if end > old_len {
                file.bytes.resize(end, 0);
            }
            for (slot, byte) in file.bytes.iter_mut().skip(start).zip(data) {
                *slot = *byte;
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = offset_of(len)?;
        self.with(|disk, name| {
            let old_len = disk.files.get(name).ok_or_else(missing)?.bytes.len();
            disk.check_room(len.saturating_sub(old_len) as u64)?;
            let file = disk.files.get_mut(name).ok_or_else(missing)?;
            let cut = file.bytes.get(len.min(old_len)..).unwrap_or_default().to_vec();
            file.unsynced.push(Change::Resized { old_len, cut });
            file.bytes.resize(len, 0);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|disk, name| {
            if disk.syncs_fail {
                return Err(io::Error::other("injected sync failure"));
            }
            disk.syncs += 1;
            disk.files.get_mut(name).ok_or_else(missing)?.unsynced.clear();
            Ok(())
        })
    }
}
