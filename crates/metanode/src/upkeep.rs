//! `fsck`, `backup` and `compact`: the service's own data, looked over, copied, made smaller.
//!
//! A backup file is the sealed keyring, as the disk keeps it, in front of the ledger's own sealed copy:
//!
//! ```text
//! "DSPSTORE" ‖ keyring length u32 ‖ sealed keyring ‖ copy of the ledger (crates/ledger/src/backup.rs)
//! ```

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_engine::IntegrityReport;
use diaspore_engine::world::Draw;
use diaspore_ledger::{FileMedium, Ledger, LedgerError};
use futures::StreamExt;
use reqwest::Method;
use serde::Serialize;

use crate::cli::Global;
use crate::cli::storage::{Backup, Compact, Fsck};
use crate::client::{Client, Role};
use crate::config::Config;
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::home::Home;
use crate::output::{bytes, grouped, note, table};
use crate::service::{entropy, ledger_failure};
use crate::{copies, init, secret};

const MAGIC: &[u8; 8] = b"DSPSTORE";
/// A sealed keyring is far smaller.
const MAX_KEYRING: u32 = 1 << 24;

/// The home folder and what opens its data.
fn keys(global: &Global, master_key: Option<&str>) -> Outcome<(Home, MasterKey)> {
    let home = Home::find(global.home.as_deref(), global.config.as_deref())?;
    let config = Config::load(home.config())?;
    let master = init::master_key(&home, &config, master_key)?;
    Ok((home, master))
}

/// `fsck`: offline over the data folder, or by the service that has it open.
pub(crate) async fn fsck(global: &Global, flags: &Fsck) -> Outcome {
    let report = match if global.url.is_some() { None } else { offline(global, flags)? } {
        Some(report) => report,
        None if flags.repair => {
            return Err(Failure::new(Exit::Unavailable, "the service has its data open: a repair needs it stopped")
                .hint("a running service that finds its view damaged makes it anew at its next start: metanode storage distributed fsck, then restart it"));
        }
        None => Client::connect(global, Role::Operator)?.patient()?.get("/api/v1/fsck").await?,
    };
    global.output.print(&report, || text(&report))?;
    verdict(&report)
}

/// None when somebody has the data open.
fn offline(global: &Global, flags: &Fsck) -> Outcome<Option<IntegrityReport>> {
    let (home, master) = keys(global, flags.master_key.as_deref())?;
    let keyring = init::open_keyring(&home, &master)?;
    exists(&home)?;
    let look = || Ledger::examine(FileMedium::new(home.ledger()), &keyring.ledger);
    let report = match look() {
        Err(LedgerError::Locked) => return Ok(None),
        other => other.map_err(|error| ledger_failure(&error))?,
    };
    if !flags.repair || (report.view_is_sound() && !report.awaits_migration) {
        return Ok(Some(report));
    }
    if !report.journal_is_sound() {
        global.output.print(&report, || text(&report))?;
        return Err(Failure::new(Exit::Integrity, "nothing was repaired: the journal is damaged, and the view is made from it")
            .hint("metanode storage distributed backup restore FILE, or recover, each into an empty data folder; keep this one"));
    }
    let failed = |error: LedgerError| ledger_failure(&error);
    if report.awaits_migration {
        global.output.print(&report, || text(&report))?;
        return Err(failed(LedgerError::OlderSchema { found: report.schema, present: diaspore_ledger::SCHEMA })
            .hint("nothing was repaired, and nothing has to be: its view is made anew then"));
    }
    Ledger::discard_view(&FileMedium::new(home.ledger()), &keyring.ledger).map_err(failed)?;
    let salts = Box::new(Draw(entropy()?));
    let mode = diaspore_ledger::OpenMode::ReadWrite;
    let ledger = Ledger::open(FileMedium::new(home.ledger()), &keyring.ledger, mode, salts).map_err(failed)?;
    ledger.flush_view().map_err(failed)?;
    drop(ledger);
    note("the view was damaged and has been made anew from the journal");
    look().map(Some).map_err(failed)
}

/// A folder in which nothing was ever kept is not a damaged one.
pub(crate) fn exists(home: &Home) -> Outcome {
    if home.ledger().exists() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("there is no ledger at {}", home.ledger().display()))
        .hint("a new deployment: the first metanode storage distributed start makes it")
        .hint("a lost disk: metanode storage distributed recover, or backup restore FILE"))
}

fn verdict(report: &IntegrityReport) -> Outcome {
    if report.is_sound() {
        return Ok(());
    }
    Err(if report.journal_is_sound() {
        Failure::new(Exit::Integrity, "the view of the ledger is damaged; the journal, from which it is made, is whole")
            .hint("stop the service and run metanode storage distributed fsck --repair: nothing is lost")
    } else {
        Failure::new(Exit::Integrity, "the journal of the ledger is damaged")
            .hint("keep this data folder; into an empty one: metanode storage distributed backup restore FILE, or recover")
    })
}

fn text(report: &IntegrityReport) -> String {
    let mut lines = vec![
        format!("Integrity: {}", if report.is_sound() { "sound" } else { "damaged" }),
        format!("Schema: {}, applied sequence {}", report.schema, grouped(report.applied)),
    ];
    if report.awaits_migration {
        lines.push("View: not looked at: the store awaits its migration to a newer schema, by the next start".to_owned());
    }
    if report.interrupted {
        lines.push("Installation: interrupted; the next start or recover goes on with it".to_owned());
    }
    for change in &report.migrations {
        let said = change.recorded_in.map_or_else(|| "not yet in the log".to_owned(), |seq| format!("in the log at sequence {seq}"));
        lines.push(format!("Migrated: from schema {} to {}, {said}", change.from, change.to));
    }
    for stream in &report.streams {
        lines.push(format!(
            "Journal {}: {} segments, {}, {} entries valid, {} segments corrupted{}",
            stream.name,
            grouped(stream.segments),
            bytes(stream.bytes),
            grouped(stream.valid),
            grouped(stream.corrupted),
            if stream.torn_bytes > 0 { format!(", {} torn at the end", bytes(stream.torn_bytes)) } else { String::new() }
        ));
    }
    lines.push(format!(
        "Log: {} leaves, root {}, {} of {} signed heads agree",
        grouped(report.log_size),
        report.log_root,
        grouped(report.heads_checked - report.heads_wrong),
        grouped(report.heads_checked)
    ));
    if let Some(why) = &report.view_unusable {
        lines.push(format!("View: not read: {why}"));
    }
    let counted = report.tables.iter().map(|one| [one.name.clone(), grouped(one.total), grouped(one.valid), grouped(one.corrupted)]);
    lines.push(table(["table", "total", "valid", "corrupted"], counted));
    if !report.rules.is_empty() {
        lines.push(table(
            ["rule", "checked", "broken"],
            report.rules.iter().map(|one| [one.rule.clone(), grouped(one.checked), grouped(one.broken)]),
        ));
    }
    lines.join("\n")
}

/// What a backup holds, for programs.
#[derive(Debug, Serialize)]
struct Copied {
    file: PathBuf,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<u64>,
}

/// `backup export` and `backup restore`.
pub(crate) async fn backup(global: &Global, command: &Backup) -> Outcome {
    match command {
        Backup::Export { file } => export(global, file).await,
        Backup::Restore { file, master_key } => restore(global, file, master_key.as_deref()),
    }
}

async fn export(global: &Global, path: &Path) -> Outcome {
    let home = Home::find(global.home.as_deref(), global.config.as_deref())?;
    let keyring = fs::read(home.keyring()).map_err(|error| {
        Failure::usage(format!("the sealed keyring at {} cannot be read: {error}", home.keyring().display()))
            .hint("run this where the service's home folder is: the keyring goes into the file, the rest comes from the service")
    })?;
    let client = Client::connect(global, Role::Operator)?;
    let response = client.send(client.request(Method::GET, "/api/v1/backup")).await?;
    let failed = || format!("cannot write {}", path.display());
    let partial = path.with_added_extension("partial");
    let mut file = secret::new_private(&partial)?;
    let mut written = (MAGIC.len() + 4 + keyring.len()) as u64;
    let len = u32::try_from(keyring.len()).unwrap_or(u32::MAX).to_be_bytes();
    file.write_all(&[MAGIC, len.as_slice(), &keyring].concat()).explain(failed)?;
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| client.unreachable(&error))?;
        file.write_all(&piece).explain(failed)?;
        written += piece.len() as u64;
    }
    file.sync_all().explain(failed)?;
    secret::rename(&partial, path)?;
    let copied = Copied { file: path.to_owned(), bytes: written, applied: None };
    global.output.print(&copied, || format!("Backup: {} in {}", bytes(written), path.display()))
}

fn restore(global: &Global, path: &Path, master_key: Option<&str>) -> Outcome {
    let (home, master) = keys(global, master_key)?;
    if home.ledger().exists() {
        return Err(Failure::usage(format!("{} exists: a backup is restored into an empty data folder", home.ledger().display()))
            .hint("move it away, and keep it until the restored service runs"));
    }
    let cannot = || format!("cannot read {}", path.display());
    let size = fs::metadata(path).explain(cannot)?.len();
    let mut file = BufReader::new(File::open(path).explain(cannot)?);
    let sealed = front(&mut file, path)?;
    let keyring = Keyring::open(&master, &KeyringPlace::OwnDisk, &sealed).map_err(|error| {
        Failure::new(Exit::Refused, format!("the master key does not open the keyring in {}: {error}", path.display()))
            .hint("this is another deployment's backup or master key, or the file is damaged: try another copy")
    })?;
    home.create()?;
    let place = home.restoring();
    let salts = Box::new(Draw(entropy()?));
    let head = Ledger::restore(FileMedium::new(&place), &keyring.ledger, salts, &mut file).map_err(|error| not_restored(&place, &error))?;
    copies::adopt(&home, &master, keyring)?;
    // Whole, in one step, and not over a ledger that somebody made here meanwhile.
    secret::rename(&place, &home.ledger())?;
    let copied = Copied { file: path.to_owned(), bytes: size, applied: Some(head.applied.get()) };
    global.output.print(&copied, || {
        format!(
            "Restored: the state at sequence {}, log of {} entries\nNext: metanode storage distributed start catches up with the providers; the old machine must stay off",
            head.applied, grouped(head.log_size)
        )
    })
}

/// Why a backup was not restored. What it had filled it has cleared already; what others have in that folder stays.
fn not_restored(place: &Path, error: &LedgerError) -> Failure {
    let failure = ledger_failure(error);
    match error {
        LedgerError::Locked => failure.hint("another restore is at work there: let it end"),
        LedgerError::Occupied => failure
            .hint(format!("an earlier restore was killed before it ended: what it left in {} is in no use, remove it", place.display())),
        _ => {
            // Neither does anything if there is more in it than the file that is locked.
            if fs::read_dir(place).is_ok_and(|files| files.count() <= 1) {
                drop(fs::remove_file(place.join("lock")));
                drop(fs::remove_dir(place));
            }
            failure.hint("nothing was restored; the providers hold everything that was settled: metanode storage distributed recover")
        }
    }
}

/// The keyring in front of a backup.
fn front(file: &mut impl Read, path: &Path) -> Outcome<Vec<u8>> {
    let damaged = |_| {
        Failure::new(Exit::Integrity, format!("{} is no backup, or its front is damaged", path.display())).hint("use another copy of it")
    };
    let (mut magic, mut len) = ([0; 8], [0; 4]);
    file.read_exact(&mut magic).map_err(damaged)?;
    file.read_exact(&mut len).map_err(damaged)?;
    let len = u32::from_be_bytes(len);
    if &magic != MAGIC || len > MAX_KEYRING {
        return Err(damaged(std::io::ErrorKind::InvalidData.into()));
    }
    let mut sealed = Vec::new();
    let read = file.by_ref().take(len.into()).read_to_end(&mut sealed).map_err(damaged)?;
    if u32::try_from(read) == Ok(len) { Ok(sealed) } else { Err(damaged(std::io::ErrorKind::UnexpectedEof.into())) }
}

/// What compacting came to.
#[derive(Debug, Serialize)]
struct Compacted {
    bytes_before: u64,
    bytes_after: u64,
}

/// `compact`.
pub(crate) fn compact(global: &Global, flags: &Compact) -> Outcome {
    let (home, master) = keys(global, flags.master_key.as_deref())?;
    let keyring = init::open_keyring(&home, &master)?;
    exists(&home)?;
    let medium = FileMedium::new(home.ledger());
    let (bytes_before, bytes_after) = Ledger::compact(medium, &keyring.ledger, Box::new(Draw(entropy()?)), flags.drop_old_schema)
        .map_err(|error| ledger_failure(&error))?;
    let compacted = Compacted { bytes_before, bytes_after };
    global.output.print(&compacted, || format!("Ledger: {} before, {} after", bytes(bytes_before), bytes(bytes_after)))
}
