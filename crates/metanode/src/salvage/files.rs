//! Files of a rescue: never over anything that is not its own, complete or not there, and found again by the next run.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use diaspore_engine::SalvageBlob;
use diaspore_engine::api::{BlobStream, Error, ErrorKind};
use futures::StreamExt;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::blob::file_of;
use crate::failure::{Exit, Explain, Failure, Outcome};

/// Longest name of a file or folder that every common file system takes, in bytes.
const MAX_NAME: usize = 255;

/// When a blob's file came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Written,
    Before,
}

/// What stands at a blob's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The blob, whole.
    Ours,
    /// Something else.
    Foreign,
    Nothing,
}

/// A key as text where it is text, else in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    key_hex: Option<String>,
}

impl Key {
    pub(super) fn of(key: &[u8]) -> Self {
        match std::str::from_utf8(key) {
            Ok(text) => Self { key: Some(text.to_owned()), key_hex: None },
            Err(_) => Self { key: None, key_hex: Some(hex::encode(key)) },
        }
    }
}

/// A line of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    /// Path below the folder; percent-encoded where it is no text.
    path: String,
    tenant: String,
    bucket: String,
    #[serde(flatten)]
    key: Key,
    version: String,
    size: u64,
    sha256: String,
    content_type: Option<String>,
    metadata: Vec<(String, String)>,
    modified_ms: u64,
}

/// The folder of one rescue.
#[derive(Debug)]
pub(super) struct Target {
    root: PathBuf,
    /// Version, length and digest of what the manifest names, by path.
    known: Mutex<HashMap<String, (String, u64, String)>>,
    manifest: Mutex<File>,
}

/// Where a blob goes, below the folder. `is_blob` tells whether the same bucket has a blob under a key: what is a file cannot be a folder.
pub(super) fn path_of(blob: &SalvageBlob, mut is_blob: impl FnMut(&[u8]) -> Outcome<bool>) -> Outcome<PathBuf> {
    let bucket = Path::new("blobs").join(component(&blob.tenant)).join(component(&blob.bucket));
    let fits = |path: &PathBuf| path.components().all(|part| part.as_os_str().len() <= MAX_NAME);
    let mut below_a_blob = false;
    for (at, _) in blob.key.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        below_a_blob = below_a_blob || is_blob(blob.key.get(..at).unwrap_or_default())?;
    }
    if let Some(path) = file_of(&bucket, &blob.key).filter(fits).filter(|_| !below_a_blob) {
        return Ok(path);
    }
    let name = Sha256::new().chain_update(bucket.as_os_str().as_bytes()).chain_update([0]).chain_update(&blob.key).finalize();
    Ok(Path::new("other").join(hex::encode(name)))
}

/// A name as one component of a path.
fn component(name: &str) -> String {
    let plain = !name.contains(['/', '\0', '%']) && !name.is_empty() && !name.starts_with('.') && name.len() <= MAX_NAME;
    if plain { name.to_owned() } else { percent_encode(name.as_bytes(), NON_ALPHANUMERIC).to_string() }
}

fn text_of(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let plain = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('%'));
    plain.map_or_else(|| percent_encode(bytes, NON_ALPHANUMERIC).to_string(), ToOwned::to_owned)
}

impl Target {
    /// Takes a folder: an empty or new one, or one of an earlier run.
    pub(super) fn open(root: &Path) -> Outcome<Self> {
        let own = root.join(".salvage");
        let is_empty = fs::read_dir(root).map_or(Ok(true), |mut entries| entries.next().transpose().map(|entry| entry.is_none()));
        if !own.is_dir() && !is_empty.explain(|| format!("cannot read {}", root.display()))? {
            return Err(Failure::usage(format!("{} holds something and is no folder of an earlier --salvage", root.display()))
                .hint("give a new or empty folder; nothing in it was touched"));
        }
        let ledger = own.join("ledger");
        if ledger.exists() {
            fs::remove_dir_all(&ledger).explain(|| format!("cannot remove {}", ledger.display()))?;
        }
        fs::create_dir_all(&ledger).explain(|| format!("cannot make {}", ledger.display()))?;
        let manifest = root.join("manifest.jsonl");
        let known = read_manifest(&manifest)?;
        let file = File::options().create(true).append(true).mode(0o600).open(&manifest);
        let file = file.explain(|| format!("cannot write {}", manifest.display()))?;
        Ok(Self { root: root.to_path_buf(), known: Mutex::new(known), manifest: Mutex::new(file) })
    }

    /// A folder for the ledger that is thrown away afterwards.
    pub(super) fn scratch_ledger(&self) -> PathBuf {
        self.root.join(".salvage/ledger")
    }

    /// A file of this run, emptied.
    pub(super) fn fresh(&self, name: &str) -> Outcome<File> {
        crate::secret::new_private(&self.root.join(name))
    }

    /// Where a file stays until it is whole.
    fn part(&self, blob: &SalvageBlob) -> PathBuf {
        self.root.join(".salvage").join(format!("{}.part", blob.version))
    }

    /// What stands at the path of a blob. A file that an earlier run finished and did not come to list is listed now.
    pub(super) fn look(&self, path: &Path, blob: &SalvageBlob) -> Outcome<Found> {
        let full = self.root.join(path);
        let found = match fs::symlink_metadata(&full) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound || error.kind() == std::io::ErrorKind::NotADirectory => {
                return Ok(Found::Nothing);
            }
            Err(error) => return Err(error).explain(|| format!("cannot look at {}", full.display())),
        };
        if !found.is_file() || found.len() != blob.size {
            return Ok(Found::Foreign);
        }
        let listed = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&text_of(path)).cloned();
        // The same file under its other name: it was whole before it got this one.
        let finished = fs::symlink_metadata(self.part(blob)).is_ok_and(|part| (part.dev(), part.ino()) == (found.dev(), found.ino()));
        let ours = match &listed {
            Some((version, size, _)) => (version, *size) == (&blob.version.to_string(), blob.size),
            None => finished,
        };
        if !ours {
            return Ok(Found::Foreign);
        }
        let digest = digest_of(&full)?;
        match listed {
            Some((_, _, sha256)) if sha256 != digest => return Ok(Found::Foreign),
            Some(_) => {}
            None => self.list(path, blob, &digest)?,
        }
        if finished {
            remove(&self.part(blob))?;
        }
        Ok(Found::Ours)
    }

    /// Writes a blob beside, and gives it its name once it is whole. Inside, what the providers failed with.
    pub(super) async fn write(&self, path: &Path, blob: &SalvageBlob, mut stream: BlobStream) -> Outcome<Result<(), Error>> {
        let part = self.part(blob);
        let mut file = crate::secret::new_private(&part)?;
        let broken = || format!("cannot write {}", part.display());
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        while let Some(piece) = stream.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => {
                    remove(&part)?;
                    return Ok(Err(error));
                }
            };
            size += piece.len() as u64;
            tokio::task::block_in_place(|| {
                hash.update(&piece);
                file.write_all(&piece)
            })
            .explain(broken)?;
        }
        let digest: [u8; 32] = hash.finalize().into();
        if size != blob.size || blob.sha256.is_some_and(|declared| declared != digest) {
            remove(&part)?;
            return Ok(Err(Error::new(ErrorKind::IntegrityViolation, "the bytes that were rebuilt are not those that the log names")));
        }
        tokio::task::block_in_place(|| file.sync_all()).explain(broken)?;
        drop(file);
        let full = self.root.join(path);
        if let Some(folder) = full.parent() {
            fs::create_dir_all(folder).explain(|| format!("cannot make {}", folder.display()))?;
        }
        // A link refuses what is there already: nothing is ever written over.
        fs::hard_link(&part, &full).explain(|| format!("cannot write {}", full.display()))?;
        self.list(path, blob, &hex::encode(digest))?;
        remove(&part)?;
        Ok(Ok(()))
    }

    fn list(&self, path: &Path, blob: &SalvageBlob, sha256: &str) -> Outcome {
        let line = Line {
            path: text_of(path),
            tenant: blob.tenant.clone(),
            bucket: blob.bucket.clone(),
            key: Key::of(&blob.key),
            version: blob.version.to_string(),
            size: blob.size,
            sha256: sha256.to_owned(),
            content_type: blob.content_type.clone(),
            metadata: blob.metadata.clone(),
            modified_ms: blob.modified.0,
        };
        let mut text = serde_json::to_vec(&line).explain(|| "cannot render a line of the manifest".to_owned())?;
        text.push(b'\n');
        let mut manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
        manifest.write_all(&text).and_then(|()| manifest.sync_data()).explain(|| "cannot write manifest.jsonl".to_owned())?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(line.path, (line.version, line.size, line.sha256));
        Ok(())
    }

    /// Writes the report and removes the scratch ledger.
    pub(super) fn finish(&self, report: &impl Serialize) -> Outcome {
        let text = serde_json::to_vec_pretty(report).explain(|| "cannot render the report".to_owned())?;
        crate::secret::replace_private(&self.root.join("report.json"), &text)?;
        let ledger = self.scratch_ledger();
        fs::remove_dir_all(&ledger).explain(|| format!("cannot remove {}", ledger.display()))
    }
}

/// What an earlier run listed. A last line that was cut off counts as not written, and the next one must not continue it.
fn read_manifest(path: &Path) -> Outcome<HashMap<String, (String, u64, String)>> {
    let mut known = HashMap::new();
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(known),
        Err(error) => return Err(error).explain(|| format!("cannot read {}", path.display())),
    };
    let (mut reader, mut whole, mut text) = (BufReader::new(&file), 0_u64, Vec::new());
    loop {
        text.clear();
        let len = reader.read_until(b'\n', &mut text).explain(|| format!("cannot read {}", path.display()))?;
        if text.last() != Some(&b'\n') {
            break;
        }
        let line: Line = serde_json::from_slice(&text).map_err(|error| {
            Failure::new(Exit::Refused, format!("{} is not what --salvage wrote: {error}", path.display())).hint("give another folder")
        })?;
        known.insert(line.path, (line.version, line.size, line.sha256));
        whole += len as u64;
    }
    file.set_len(whole).explain(|| format!("cannot write {}", path.display()))?;
    Ok(known)
}

fn digest_of(path: &Path) -> Outcome<String> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
        loop {
            let len = file.read(&mut buffer)?;
            if len == 0 {
                return Ok(hex::encode(hash.finalize()));
            }
            hash.update(buffer.get(..len).unwrap_or_default());
        }
    };
    tokio::task::block_in_place(read).explain(|| format!("cannot read {}", path.display()))
}

fn remove(path: &Path) -> Outcome {
    fs::remove_file(path).explain(|| format!("cannot remove {}", path.display()))
}
