//! Objects as files.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::{MAX_KEY_LEN, Meta, View, is_bucket_name};

const INCOMING: &str = ".incoming";
const SNAPSHOT: &str = ".snapshot";
/// Longest file name of the common file systems.
const MAX_NAME_LEN: usize = 255;

/// Whether a key can be a file below a bucket's folder: plain segments between single slashes, none of them `.`, `..`,
/// empty or longer than a file name, and no NUL.
pub(in crate::s3) fn is_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= MAX_KEY_LEN
        && !key.contains(['\0', '\\'])
        && key.split('/').all(|segment| !matches!(segment, "" | "." | "..") && segment.len() <= MAX_NAME_LEN)
        && Path::new(key).components().all(|component| matches!(component, Component::Normal(_)))
}

/// A file in `.incoming`, removed when dropped unpublished.
#[derive(Debug)]
pub(in crate::s3) struct IncomingFile {
    /// `None` once closed.
    file: Option<File>,
    path: PathBuf,
}

impl IncomingFile {
    fn open_file(&mut self) -> io::Result<&mut File> {
        self.file.as_mut().ok_or_else(|| io::Error::other("the upload is closed already"))
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.open_file()?.write_all(piece)
    }

    pub(super) fn append(&mut self, part: &Self) -> io::Result<()> {
        self.append_file(File::open(&part.path)?)
    }

    pub(super) fn append_file(&mut self, mut from: File) -> io::Result<()> {
        io::copy(&mut from, self.open_file()?).map(drop)
    }

    /// Gives the descriptor back: a multipart upload may have thousands of parts waiting.
    pub(super) fn close(&mut self) {
        self.file = None;
    }
}

impl Drop for IncomingFile {
    fn drop(&mut self) {
        // Published files are no longer there; what else fails leaves a file that the next start clears away.
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "emulator left an incoming file");
        }
    }
}

/// The folder of all buckets.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    uploads: AtomicU64,
}

impl Folder {
    /// Opens or makes the folder; uploads that an earlier process left unfinished are cleared away.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let incoming = root.join(INCOMING);
        fs::create_dir_all(&incoming)?;
        for entry in fs::read_dir(&incoming)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self { root: root.to_owned(), uploads: AtomicU64::new(0) })
    }

    fn base(&self, view: View) -> PathBuf {
        match view {
            View::Now => self.root.clone(),
            View::Snapshot => self.root.join(SNAPSHOT),
        }
    }

    fn path(&self, view: View, bucket: &str, key: &str) -> io::Result<PathBuf> {
        if !is_bucket_name(bucket) || !is_key(key) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(self.base(view).join(bucket).join(key))
    }

    pub(super) fn create_bucket(&self, bucket: &str) -> io::Result<bool> {
        match fs::create_dir(self.root.join(bucket)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn has_bucket(&self, bucket: &str) -> bool {
        is_bucket_name(bucket) && self.root.join(bucket).is_dir()
    }

    pub(super) fn buckets(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && is_bucket_name(&name)
                && entry.file_type()?.is_dir()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn receive(&self) -> io::Result<IncomingFile> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(INCOMING).join(format!("{number:x}"));
        let file = File::create(&path)?;
        Ok(IncomingFile { file: Some(file), path })
    }

    pub(super) fn publish(&self, bucket: &str, key: &str, file: &IncomingFile) -> io::Result<Meta> {
        let path = self.path(View::Now, bucket, key)?;
        if let Err(error) = fs::rename(&file.path, &path) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::rename(&file.path, &path)?;
        }
        fs::metadata(&path).map(|found| meta(&found))
    }

    /// Removes the file and the folders this leaves empty.
    pub(super) fn remove(&self, bucket: &str, key: &str) -> io::Result<()> {
        let path = self.path(View::Now, bucket, key)?;
        fs::remove_file(&path)?;
        let stop = self.root.join(bucket);
        let folders = path.ancestors().skip(1);
        for folder in folders.take_while(|folder| *folder != stop) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn meta(&self, view: View, bucket: &str, key: &str) -> io::Result<Option<Meta>> {
        absent_is_none(fs::metadata(self.path(view, bucket, key)?))
            .map(|found| found.filter(fs::Metadata::is_file).map(|found| meta(&found)))
    }

    pub(super) fn find(&self, view: View, bucket: &str, key: &str) -> io::Result<Option<(Meta, File)>> {
        let Some(file) = absent_is_none(File::open(self.path(view, bucket, key)?))? else {
            return Ok(None);
        };
        let found = file.metadata()?;
        Ok(found.is_file().then(|| (meta(&found), file)))
    }

    /// Everything below the deepest folder that the prefix names, filtered.
    pub(super) fn list(&self, view: View, bucket: &str, prefix: &str) -> io::Result<Vec<(String, Meta)>> {
        let start = prefix.rfind('/').map_or("", |slash| prefix.get(..slash).unwrap_or(""));
        if !start.is_empty() && !is_key(start) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let bucket = self.base(view).join(bucket);
        let mut waiting = vec![start.to_owned()];
        while let Some(folder) = waiting.pop() {
            let Some(entries) = absent_is_none(fs::read_dir(bucket.join(&folder)))? else {
                continue;
            };
            for entry in entries {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let key = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if !key.starts_with(prefix) && !prefix.starts_with(&key) {
                    continue;
                }
                // Gone since the folder was read: a delete that overtook the listing.
                let Some(state) = absent_is_none(entry.metadata())? else {
                    continue;
                };
                if state.is_dir() {
                    waiting.push(key);
                } else if key.starts_with(prefix) {
                    found.push((key, meta(&state)));
                }
            }
        }
        Ok(found)
    }

    pub(super) fn take_snapshot(&self) -> io::Result<()> {
        remove_tree(&self.root.join(SNAPSHOT))?;
        for bucket in self.buckets()? {
            let source = self.root.join(&bucket);
            link_tree(&source, &self.root.join(SNAPSHOT).join(&bucket))?;
        }
        Ok(())
    }

    pub(super) fn roll_back(&self) -> io::Result<()> {
        for bucket in self.buckets()? {
            let place = self.root.join(&bucket);
            remove_tree(&place)?;
            let old = self.root.join(SNAPSHOT).join(&bucket);
            if old.is_dir() {
                link_tree(&old, &place)?;
            } else {
                fs::create_dir(&place)?;
            }
        }
        Ok(())
    }

    pub(super) fn lose_everything(&self) -> io::Result<()> {
        for bucket in self.buckets()? {
            let place = self.root.join(&bucket);
            remove_tree(&place)?;
            fs::create_dir(&place)?;
        }
        Ok(())
    }
}

/// The tag is made of what identifies one state of one file; the dash keeps clients from taking it for an MD5.
fn meta(found: &fs::Metadata) -> Meta {
    Meta {
        len: found.len(),
        modified: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        tag: format!("\"{:x}{:08x}{:x}{:x}-1\"", found.mtime(), found.mtime_nsec(), found.ino(), found.len()),
    }
}

/// `NotADirectory` counts as absent: a key below an object's own key.
fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    absent_is_none(fs::remove_dir_all(path)).map(drop)
}

/// Rebuilds the folders of `from` at `to`, with hard links for the files.
fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), target)?;
        }
    }
    Ok(())
}
