//! Whole folders, several files at once.

use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use walkdir::WalkDir;

use super::Moved;
use super::address::{Address, file_of, key_of};
use super::transfer::{self, Attributes};
use super::wire::Entry;
use crate::client::Client;
use crate::failure::{Explain, Failure, Outcome};
use crate::output::note;

/// A file and the key it goes to.
#[derive(Debug, Clone)]
pub(crate) struct PutFile {
    pub(crate) path: PathBuf,
    pub(crate) key: Vec<u8>,
    pub(crate) size: u64,
}

/// The regular files below a folder, in a stable order.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    pub(crate) files: Vec<PutFile>,
}

impl Folder {
    /// Walks a folder. Symbolic links and special files are left out, which is said.
    pub(crate) fn scan(root: &Path, prefix: &[u8]) -> Outcome<Self> {
        let (mut files, mut left_out) = (Vec::new(), 0_usize);
        for entry in WalkDir::new(root).sort_by_file_name() {
            let entry = entry.explain(|| format!("cannot walk {}", root.display()))?;
            if entry.file_type().is_dir() {
                continue;
            }
            if !entry.file_type().is_file() {
                left_out += 1;
                continue;
            }
            let size = entry.metadata().explain(|| format!("cannot read {}", entry.path().display()))?.len();
            let relative = entry.path().strip_prefix(root).explain(|| format!("cannot name {}", entry.path().display()))?;
            files.push(PutFile { key: key_of(prefix, relative), path: entry.into_path(), size });
        }
        if left_out > 0 {
            note(&format!("note: {left_out} links or special files were left out"));
        }
        if files.is_empty() {
            return Err(Failure::plain(format!("{} holds no regular file", root.display())));
        }
        Ok(Self { files })
    }

    /// Sum of the lengths.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Uploads files into the address's bucket. The first failure ends it; what was acknowledged stays.
pub(super) async fn put(
    client: &Client,
    to: &Address,
    files: Vec<PutFile>,
    attributes: &Attributes,
    parallel: usize,
    bar: &ProgressBar,
) -> Outcome<Moved> {
    let uploads = futures::stream::iter(files).map(|file| async move {
        let stored = transfer::upload(client, &to.with_key(file.key), &file.path, attributes, bar).await?;
        Ok::<_, Failure>(stored.entry.size)
    });
    sum(uploads.buffer_unordered(parallel)).await
}

/// Downloads entries below `from` into a folder.
pub(super) async fn get(
    client: &Client,
    from: &Address,
    entries: &[Entry],
    folder: &Path,
    force: bool,
    parallel: usize,
    bar: &ProgressBar,
) -> Outcome<Moved> {
    // Names are relative to the last slash of the prefix, as in a file system.
    let cut = from.key.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let downloads = futures::stream::iter(entries).map(|entry| async move {
        let key = entry.key_bytes()?;
        let relative = key.get(cut..).unwrap_or_default();
        let file = file_of(folder, relative).ok_or_else(|| {
            Failure::plain(format!("the key {:?} cannot be a file below {}", entry.key, folder.display()))
                .hint("get it alone, with a file name of your choice")
        })?;
        transfer::download(client, &from.with_key(key), &file, force, None, bar).await
    });
    sum(downloads.buffer_unordered(parallel)).await
}

async fn sum(lengths: impl futures::Stream<Item = Outcome<u64>>) -> Outcome<Moved> {
    let zero = Moved { blobs: 0, bytes: 0 };
    lengths.try_fold(zero, |moved, length| async move { Ok(Moved { blobs: moved.blobs + 1, bytes: moved.bytes + length }) }).await
}
