use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::{Medium, MediumFile, MediumLock, OpenMode};
use crate::error::{LedgerError, Result};

const LOCK_NAME: &str = "lock";

/// A folder of files, readable by its owner only.
#[derive(Debug)]
pub struct FileMedium {
    folder: PathBuf,
}

impl FileMedium {
    /// Uses `folder`; it is created when the ledger is opened for writing.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self { folder: folder.as_ref().to_owned() }
    }
}

impl Medium for FileMedium {
    fn lock(&self, mode: OpenMode) -> Result<MediumLock> {
        let path = self.folder.join(LOCK_NAME);
        let (file, operation) = match mode {
            OpenMode::ReadWrite => {
                create_folder(&self.folder)?;
                let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
                (file, FlockOperation::NonBlockingLockExclusive)
            }
            OpenMode::ReadOnly => match File::open(path) {
                Ok(file) => (file, FlockOperation::NonBlockingLockShared),
                // No lock file: nobody ever wrote here, and read-only creates nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(MediumLock::new(())),
                Err(error) => return Err(error.into()),
            },
        };
        match flock(&file, operation) {
            Ok(()) => Ok(MediumLock::new(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::Locked),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK_NAME
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn MediumFile>>> {
        let path = self.folder.join(name);
        let opened = if create {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
        } else {
            // A read-only folder or file system must do for reading.
            match OpenOptions::new().read(true).write(true).open(&path) {
                Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                    File::open(&path)
                }
                other => other,
            }
        };
        match opened {
            Ok(file) => Ok(Some(Arc::new(DiskFile(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// Makes a folder and those above it that are missing, for their owner only. Their names outlive a loss of power: what is synced inside a
/// folder is lost with a name that was not.
pub fn create_folder(folder: impl AsRef<Path>) -> io::Result<()> {
    let folder = folder.as_ref();
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

#[derive(Debug)]
struct DiskFile(File);

impl MediumFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn folders_are_made_for_their_owner_only_and_made_once() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("home/data/ledger");
        for _ in 0..2 {
            create_folder(&folder).unwrap();
        }
        for made in ["home", "home/data", "home/data/ledger"] {
            let mode = fs::metadata(place.path().join(made)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{made}");
        }
        fs::write(place.path().join("file"), "").unwrap();
        assert!(create_folder(place.path().join("file")).is_err());
    }
}
