//! `storage distributed recover --salvage DIR`: copies out what can still be rebuilt. Asks providers, writes to none of them, claims nothing.
//!
//! ```text
//! DIR/blobs/TENANT/BUCKET/KEY    the bytes; slashes of a key are folders, so that `blob put DIR/blobs/T/B B/ --recursive` puts them back
//! DIR/other/SHA-256-OF-NAME      blobs whose key cannot be a file's name
//! DIR/manifest.jsonl             a line per file: names, version, length, SHA-256, content type, metadata
//! DIR/missing.jsonl              a line per blob that could not be rebuilt, and why
//! DIR/report.json                what is printed at the end
//! DIR/.salvage/                  the scratch ledger, and files on their way
//! ```

mod files;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::key::Keyring;
use diaspore_engine::api::ErrorKind;
use diaspore_engine::world::{Draw, SystemClock, SystemEntropy};
use diaspore_engine::{Engine, EngineConfig, Mode, Salvage, SalvageBlob, SalvageCursor, Salvaged, Shortfall};
use diaspore_ledger::{FileMedium, Ledger, OpenMode};
use serde::Serialize;

use crate::cli::Global;
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::output::{bytes, grouped, note};
use crate::service::{Parts, connect, engine_failure, entropy, ledger_failure};
use crate::{init, service};
use files::{Kept, Target};

/// How often progress is said.
const EVERY: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    /// Blobs that the log still names.
    blobs: u64,
    /// Their bytes.
    bytes: u64,
    /// Written now.
    written: u64,
    /// Found complete from an earlier run.
    kept: u64,
    /// Bytes of both.
    saved_bytes: u64,
    /// Named and not rebuilt.
    missing: u64,
    /// Their bytes.
    missing_bytes: u64,
    #[serde(flatten)]
    log: Salvaged,
}

/// A line of `missing.jsonl`.
#[derive(Debug, Serialize)]
struct Missing<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    bucket: &'a str,
    #[serde(flatten)]
    key: files::Key,
    version: String,
    size: u64,
    why: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<Shortfall>,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, parts: &Parts, folder: &Path) -> Outcome {
    let target = Target::open(folder)?;
    let keyring = keyring(parts).await?;
    let salvage = Box::pin(begin(parts, keyring, &target)).await?;
    let (blobs, size) = salvage.totals().map_err(engine_failure)?;
    for domain in &salvage.salvaged().silent {
        note(&format!("warning: {domain} does not answer: what only it holds is not part of this"));
    }
    note(&format!("{} blobs of {} are named by what can be read of the log", grouped(blobs), bytes(size)));
    let mut report =
        Report { blobs, bytes: size, written: 0, kept: 0, saved_bytes: 0, missing: 0, missing_bytes: 0, log: salvage.salvaged().clone() };
    let mut missing = target.fresh("missing.jsonl")?;
    let mut said = tokio::time::Instant::now();
    let mut next = Some(SalvageCursor::default());
    while let Some(from) = next {
        let (page, behind) = salvage.page(from).map_err(engine_failure)?;
        for blob in &page {
            match Box::pin(save(&salvage, &target, blob)).await? {
                Ok(kept) => {
                    report.saved_bytes += blob.size;
                    match kept {
                        Kept::Written => report.written += 1,
                        Kept::Before => report.kept += 1,
                    }
                }
                Err((why, blocks)) => {
                    report.missing += 1;
                    report.missing_bytes += blob.size;
                    let line = Missing {
                        tenant: Some(&blob.tenant),
                        bucket: &blob.bucket,
                        key: files::Key::of(&blob.key),
                        version: blob.version.to_string(),
                        size: blob.size,
                        why,
                        blocks,
                    };
                    put_line(&mut missing, &line)?;
                }
            }
            if said.elapsed() > EVERY {
                said = tokio::time::Instant::now();
                note(&format!("{} of {} blobs", grouped(report.written + report.kept + report.missing), grouped(blobs)));
            }
        }
        next = behind;
    }
    for blob in &report.log.unmapped {
        let why = "the record of where its chunks lie is in a part of the log that cannot be read".to_owned();
        let key = files::Key::of(&blob.key);
        let line =
            Missing { tenant: None, bucket: &blob.bucket, key, version: blob.version.clone(), size: blob.size, why, blocks: Vec::new() };
        put_line(&mut missing, &line)?;
        report.missing += 1;
        report.missing_bytes += blob.size;
    }
    missing.sync_all().explain(|| "cannot write missing.jsonl".to_owned())?;
    target.finish(&report)?;
    global.output.print(&report, || report.text(folder))?;
    report.verdict()
}

/// The keyring: the providers', or the copy in the data folder if no provider shows one.
async fn keyring(parts: &Parts) -> Outcome<Keyring> {
    let fleet = connect(&parts.specs, &parts.credentials)?;
    let found = Engine::find_keyring(&parts.master, &fleet).await;
    match found {
        Ok(Some(keyring)) => Ok(keyring),
        Ok(None) => init::open_keyring(&parts.home, &parts.master)
            .map_err(|_| nothing("no provider holds a keyring for this master key, and neither does the data folder".to_owned())),
        Err(error) if error.kind == ErrorKind::DataUnavailable => {
            init::open_keyring(&parts.home, &parts.master).map_err(|_| nothing(engine_failure(error).message))
        }
        Err(error) => Err(engine_failure(error)),
    }
}

fn nothing(message: String) -> Failure {
    Failure::new(Exit::Refused, message).hint("nothing can be opened without the keyring: one provider that holds it must answer")
}

async fn begin(parts: &Parts, keyring: Keyring, target: &Target) -> Outcome<Salvage> {
    let fleet = connect(&parts.specs, &parts.credentials)?;
    let medium = FileMedium::new(target.scratch_ledger());
    let ledger = Ledger::open(medium, &keyring.ledger, OpenMode::ReadWrite, Box::new(Draw(entropy()?)));
    let ledger = ledger.map_err(|error| ledger_failure(&error))?;
    let mut config = EngineConfig::new(parts.profile.clone());
    config.mode = Mode::ReadOnly;
    config.probe_deadline = parts.probe_deadline;
    let own = SystemEntropy::new().explain(|| "the operating system gives no randomness".to_owned())?;
    let begun = Salvage::begin(config, Arc::new(keyring), fleet, ledger, Arc::new(SystemClock), Arc::new(own));
    Box::pin(begun).await.map_err(service::engine_failure)
}

/// One blob into its file. Inside, why it could not be: that ends nothing.
async fn save(salvage: &Salvage, target: &Target, blob: &SalvageBlob) -> Outcome<Result<Kept, (String, Vec<Shortfall>)>> {
    let is_folder = |key: &[u8]| salvage.has_sibling(blob, key).map_err(engine_failure);
    let path = files::path_of(blob, is_folder)?;
    match target.look(&path, blob)? {
        files::Found::Ours => return Ok(Ok(Kept::Before)),
        files::Found::Foreign => return Ok(Err((format!("{} is there already and is not what this wrote", path.display()), Vec::new()))),
        files::Found::Nothing => {}
    }
    let error = match salvage.open(blob).await {
        Ok(stream) => match target.write(&path, blob, stream).await? {
            Ok(()) => return Ok(Ok(Kept::Written)),
            Err(error) => error,
        },
        Err(error) => error,
    };
    let blocks = salvage.shortfalls(blob).await.map_err(engine_failure)?;
    let why = if blocks.is_empty() { error.message } else { "too few shards of its blocks are left".to_owned() };
    Ok(Err((why, blocks)))
}

fn put_line(file: &mut std::fs::File, line: &impl Serialize) -> Outcome {
    let mut text = serde_json::to_vec(line).explain(|| "cannot render a line".to_owned())?;
    text.push(b'\n');
    file.write_all(&text).explain(|| "cannot write missing.jsonl".to_owned())
}

impl Report {
    fn text(&self, folder: &Path) -> String {
        let log = &self.log;
        let mut lines = vec![
            format!(
                "Saved: {} of {} blobs, {}, in {} ({} now, {} before)",
                grouped(self.written + self.kept),
                grouped(self.blobs + log.unmapped.len() as u64),
                bytes(self.saved_bytes),
                folder.display(),
                grouped(self.written),
                grouped(self.kept)
            ),
            format!("Missing: {} blobs, {}: missing.jsonl says why", grouped(self.missing), bytes(self.missing_bytes)),
            format!(
                "Log: {} positions, compacted up to {}, {} blocks read behind it, of {} incarnations",
                grouped(log.last),
                grouped(log.compacted_through),
                grouped(log.blocks),
                grouped(log.incarnations)
            ),
        ];
        if !log.holes.is_empty() {
            let holes: Vec<String> =
                log.holes.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}..{to}") }).collect();
            lines.push(format!("Unknown: positions {} of the log; whatever was written there has no name any more", holes.join(", ")));
        }
        if log.nameless_buckets > 0 {
            lines.push(format!("Buckets Without A Name: {}, kept under their ids", grouped(log.nameless_buckets)));
        }
        if log.unnamed_blocks > 0 {
            lines.push(format!(
                "Blocks Without A Name: {} with {} of shards, {} of them whole enough to rebuild; what they hold is written nowhere that can be read",
                grouped(log.unnamed_blocks),
                bytes(log.unnamed_bytes),
                grouped(log.unnamed_rebuildable)
            ));
        }
        if log.unexplained_objects > 0 {
            lines.push(format!("Other Objects Of This Shape: {}", grouped(log.unexplained_objects)));
        }
        lines.join("\n")
    }

    fn verdict(&self) -> Outcome {
        if self.missing == 0 && self.log.is_whole() {
            return Ok(());
        }
        if self.written + self.kept == 0 {
            return Err(Failure::new(Exit::Refused, "nothing can be rebuilt from what answers")
                .hint("bring providers back and run it again: what is saved then is added"));
        }
        Err(Failure::new(Exit::Integrity, "not everything could be saved: it is listed above and in missing.jsonl")
            .hint("bring providers back and run it again into the same folder: what is complete is kept, the rest is added"))
    }
}
