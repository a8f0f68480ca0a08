//! A disk whose process can die at any of its syncs.

use std::io;
use std::sync::Arc;

use diaspore_ledger::{LedgerError, Medium, MediumFile, MediumLock, MemoryMedium, OpenMode};
use diaspore_testkit::Tripwire;

/// A [`MemoryMedium`] that counts its syncs. Once the process is dead nothing becomes durable any more; what a crash leaves was kept
/// by the tripwire's last word.
#[derive(Debug)]
pub(super) struct DyingDisk {
    pub(super) disk: MemoryMedium,
    pub(super) tripwire: Tripwire,
}

#[derive(Debug)]
struct DyingFile {
    file: Arc<dyn MediumFile>,
    tripwire: Tripwire,
}

impl Medium for DyingDisk {
    fn lock(&self, mode: OpenMode) -> Result<MediumLock, LedgerError> {
        self.disk.lock(mode)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn MediumFile>>> {
        let file = self.disk.open(name, create)?;
        Ok(file.map(|file| Arc::new(DyingFile { file, tripwire: self.tripwire.clone() }) as Arc<dyn MediumFile>))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_names(&self) -> io::Result<()> {
        if self.tripwire.step() { self.disk.sync_names() } else { Ok(()) }
    }
}

impl MediumFile for DyingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.tripwire.step() { self.file.sync() } else { Ok(()) }
    }
}
