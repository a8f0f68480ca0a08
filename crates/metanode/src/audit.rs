//! `audit export` and `audit verify`.
//!
//! An export is JSON lines: one per log entry, then `{"checkpoint": NOTE}`. Verification trusts nothing but the public key: the
//! entries are hashed into the RFC 6962 tree and its root must be the one in the signed note.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use diaspore_block::id::Hash32;
use diaspore_block::key::LogPublicKey;
use diaspore_block::log::{Checkpoint, InclusionProof, LogTree, leaf_hash};
use diaspore_block::record::{Class, LeafView, Outcome as RecordOutcome, PUBLIC_LEN, RecordKind};
use futures::StreamExt;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::cli::{Audit, Global};
use crate::client::{Client, Role};
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::output::{self, Format, note};

/// One entry as exported. The readable fields repeat what `leaf` says and must agree with it.
#[derive(Debug, Deserialize)]
struct Line {
    index: u64,
    leaf: String,
    kind: String,
    outcome: String,
    class: String,
    tenant: String,
    subject: String,
    principal: String,
    time_ms: u64,
    commitment: String,
    tree_size: u64,
    tree_root: String,
    proof: Vec<String>,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    checkpoint: String,
}

/// What was verified.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the JSON that programs read")]
pub(crate) struct Verified {
    verified: bool,
    pub(crate) entries: u64,
    pub(crate) log_size: u64,
    root: String,
    origin: String,
    /// The export holds the whole log, so nothing can have been left out.
    complete: bool,
    /// The earlier checkpoint that this log extends.
    #[serde(skip_serializing_if = "Option::is_none")]
    extends: Option<u64>,
    /// Entries in which an operator gave up, or declared possibly lost, what had been acknowledged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    losses: Vec<GivenUp>,
    /// The earlier checkpoint stands for entries that were given up, so that it cannot be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomparable: Option<Incomparable>,
}

/// An entry `MayHaveLost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct GivenUp {
    /// Index of the entry.
    entry: u64,
    /// When, in milliseconds since 1970.
    time_ms: u64,
    /// Entries before the decision that it belongs to: what had been behind them and is not any more was given up.
    kept: u64,
}

/// An earlier checkpoint behind the end of what was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Incomparable {
    /// Its entries.
    size: u64,
    /// Those of them that were kept.
    kept: u64,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: &Audit) -> Outcome {
    match command {
        Audit::Export { from, out } => {
            let client = Client::connect(global, Role::Operator)?;
            match out {
                Some(path) => {
                    let mut file = File::create(path).explain(|| format!("cannot write {}", path.display()))?;
                    let entries =
                        export(&client, *from, |piece| file.write_all(piece).explain(|| format!("cannot write {}", path.display())))
                            .await?;
                    file.sync_all().explain(|| format!("cannot write {}", path.display()))?;
                    note(&format!("{entries} entries and a checkpoint in {}", path.display()));
                }
                None => {
                    export(&client, *from, output::raw).await?;
                }
            }
            Ok(())
        }
        Audit::Verify { file, key, checkpoint } => {
            let verified = verify(file, &public_key(key)?, checkpoint.as_deref())?;
            print(global.output, &verified)
        }
    }
}

fn print(format: Format, verified: &Verified) -> Outcome {
    format.print(verified, || {
        let mut more: Vec<String> =
            verified.extends.iter().map(|size| format!("\nExtends: the earlier checkpoint of {size} entries")).collect();
        more.extend(verified.losses.iter().map(|loss| {
            format!(
                "\nLoss: entry {} says that an operator gave up what may have stood behind the first {} entries (time {} ms)",
                loss.entry, loss.kept, loss.time_ms
            )
        }));
        more.extend(verified.incomparable.iter().map(|Incomparable { size, kept }| {
            format!(
                "\nNot Comparable: the earlier checkpoint of {size} entries stands for entries that were given up behind the first {kept}; \
                 one of at most {kept} entries would tell whether those are the same"
            )
        }));
        let extends = more.concat();
        format!(
            "Verified: {} of {} entries are in the signed log{}\nOrigin: {}\nRoot: {}{extends}",
            verified.entries,
            verified.log_size,
            if verified.complete { ", which is complete" } else { "" },
            verified.origin,
            verified.root
        )
    })
}

/// Streams the log as it stood when the checkpoint was signed, then the checkpoint. Returns the number of entries.
pub(crate) async fn export(client: &Client, from: u64, mut write: impl FnMut(&[u8]) -> Outcome) -> Outcome<u64> {
    let text = client.send(client.request(Method::GET, "/api/v1/audit/checkpoint")).await?;
    let checkpoint = text.text().await.map_err(|error| client.unreachable(&error))?;
    // C2SP tlog-checkpoint: origin, size, root.
    let size: u64 =
        checkpoint.lines().nth(1).and_then(|line| line.parse().ok()).ok_or_else(|| Failure::plain("the service sent no checkpoint"))?;
    let wanted =
        size.checked_sub(from).ok_or_else(|| Failure::usage(format!("the log has {size} entries; --from {from} is beyond them")))?;
    if wanted > 0 {
        let response = client.send(client.request(Method::GET, &format!("/api/v1/audit/export?from={from}&limit={wanted}"))).await?;
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            write(&piece.map_err(|error| client.unreachable(&error))?)?;
        }
    }
    let mut seal = serde_json::to_vec(&Seal { checkpoint }).explain(|| "cannot render the checkpoint".to_owned())?;
    seal.push(b'\n');
    write(&seal)?;
    Ok(wanted)
}

/// 64 hex digits, or a file that holds them.
pub(crate) fn public_key(text: &str) -> Outcome<LogPublicKey> {
    let parse = |text: &str| -> Option<LogPublicKey> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).ok()?;
        LogPublicKey::from_bytes(&bytes).ok()
    };
    if let Some(key) = parse(text) {
        return Ok(key);
    }
    let bad = || {
        Failure::usage(format!("{text:?} is no public key of a log"))
            .hint("64 hex digits, or a file holding them, such as log.pub in the home folder")
    };
    parse(&std::fs::read_to_string(text).map_err(|_| bad())?).ok_or_else(bad)
}

/// Checks an export against the key, and against an earlier checkpoint if there is one.
pub(crate) fn verify(path: &Path, key: &LogPublicKey, earlier: Option<&Path>) -> Outcome<Verified> {
    let file = File::open(path).explain(|| format!("cannot read {}", path.display()))?;
    let earlier = earlier
        .map(|path| open_note(&std::fs::read_to_string(path).explain(|| format!("cannot read {}", path.display()))?, key))
        .transpose()?;
    let (mut tree, mut root_then) = (LogTree::new(), None);
    let (mut first, mut entries, mut bases, mut proofs_failed) = (None, 0_u64, BTreeSet::new(), None);
    let mut seal: Option<Seal> = None;
    let (mut losses, mut decided): (Vec<GivenUp>, u64) = (Vec::new(), 0);
    for (at, text) in BufReader::new(file).lines().enumerate() {
        let text = text.explain(|| format!("cannot read {}", path.display()))?;
        if seal.is_some() {
            return Err(violation(format!("line {} follows the checkpoint", at + 1)));
        }
        if let Ok(found) = serde_json::from_str::<Seal>(&text) {
            seal = Some(found);
            continue;
        }
        let line: Line = serde_json::from_str(&text).map_err(|error| violation(format!("line {} is no log entry: {error}", at + 1)))?;
        let start = *first.get_or_insert(line.index);
        if line.index != start + entries {
            return Err(violation(format!("entry {} is missing: line {} is entry {}", start + entries, at + 1, line.index)));
        }
        let leaf = leaf(&line)?;
        // A decision is the first entry of its block, and what it gives up follows it there.
        if line.kind == RecordKind::name_of(RecordKind::Decision.to_u8()) {
            decided = line.index;
        } else if line.kind == RecordKind::name_of(RecordKind::MayHaveLost.to_u8()) {
            losses.push(GivenUp { entry: line.index, time_ms: line.time_ms, kept: decided });
        }
        if earlier.as_ref().is_some_and(|earlier| earlier.size == entries && start == 0) {
            root_then = Some(tree.root());
        }
        tree.append(leaf);
        if let Err(failure) = included(&line, &leaf) {
            proofs_failed.get_or_insert(failure);
        }
        bases.insert((line.tree_size, line.tree_root));
        entries += 1;
    }
    let seal = seal.ok_or_else(|| violation("the export has no checkpoint at its end: it broke off".to_owned()))?;
    let signed = open_note(&seal.checkpoint, key)?;
    let complete = first.unwrap_or(0) == 0 && entries == signed.size;
    if complete {
        if tree.root() != signed.root {
            return Err(violation("the entries do not hash to the root that was signed".to_owned()));
        }
    } else {
        let root = signed.root.to_string();
        if bases.iter().any(|(size, base)| *size != signed.size || *base != root) {
            return Err(violation("the proofs of this partial export are for another tree than the signed one".to_owned())
                .hint("the log grew while it was exported: export again, or export all of it (--from 0)"));
        }
    }
    if let Some(failure) = proofs_failed {
        return Err(failure);
    }
    let mut incomparable = None;
    let extends = match earlier {
        None => None,
        Some(earlier) => {
            if !complete {
                return Err(
                    Failure::usage("an earlier checkpoint can be compared with a whole export only").hint("metanode audit export --from 0")
                );
            }
            let then = if earlier.size == signed.size { Some(signed.root) } else { root_then };
            let same_log = earlier.origin.as_str() == signed.origin.as_str();
            let cut = losses.iter().map(|loss| loss.kept).filter(|kept| *kept < earlier.size).min();
            if same_log
                && then != Some(earlier.root)
                && let Some(kept) = cut
            {
                incomparable = Some(Incomparable { size: earlier.size, kept });
            } else if !same_log || then != Some(earlier.root) {
                return Err(violation(format!(
                    "this log does not extend the earlier checkpoint of {} entries: history was rewritten",
                    earlier.size
                )));
            }
            Some(earlier.size).filter(|_| incomparable.is_none())
        }
    };
    Ok(Verified {
        verified: true,
        entries,
        log_size: signed.size,
        root: signed.root.to_string(),
        origin: signed.origin.as_str().to_owned(),
        complete,
        extends,
        losses,
        incomparable,
    })
}

fn open_note(text: &str, key: &LogPublicKey) -> Outcome<Checkpoint> {
    Checkpoint::open(text, key)
        .map_err(|error| violation(format!("the checkpoint does not verify: {error}")).hint("is the key the log.pub of this deployment?"))
}

/// The leaf hash, once the readable fields were found to say what the signed bytes say.
fn leaf(line: &Line) -> Outcome<Hash32> {
    let broken = |what: &str| violation(format!("entry {}: {what}", line.index));
    let mut bytes = [0; PUBLIC_LEN];
    hex::decode_to_slice(&line.leaf, &mut bytes).map_err(|_| broken("the leaf is not 128 bytes in hex"))?;
    // A leaf counts by its bytes: what a newer version wrote is hashed without being understood.
    let view = LeafView::of(&bytes).map_err(|error| broken(&error.to_string()))?;
    let agrees = view.is_none_or(|view| {
        (RecordKind::from_u8(view.kind).is_none() || line.kind == RecordKind::name_of(view.kind))
            && RecordOutcome::from_u8(view.outcome).is_none_or(|outcome| line.outcome == format!("{outcome:?}"))
            && Class::from_u8(view.class).is_none_or(|class| line.class == format!("{class:?}"))
            && line.tenant == view.tenant.to_string()
            && line.subject == view.subject.to_string()
            && line.principal == view.principal.to_string()
            && line.time_ms == view.time.0
            && line.commitment == view.commitment.to_string()
    });
    if agrees { Ok(leaf_hash(&bytes)) } else { Err(broken("the readable fields say something else than the signed bytes")) }
}

fn included(line: &Line, leaf: &Hash32) -> Outcome {
    let broken = |what: String| violation(format!("entry {}: {what}", line.index));
    let hash = |text: &String| -> Outcome<Hash32> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| broken("a hash is no hex".to_owned()))?;
        Ok(Hash32::from_bytes(bytes))
    };
    let path = line.proof.iter().map(hash).collect::<Outcome<Vec<_>>>()?;
    let proof = InclusionProof { index: line.index, size: line.tree_size, path };
    proof.verify(leaf, &hash(&line.tree_root)?).map_err(|error| broken(error.to_string()))
}

fn violation(message: String) -> Failure {
    Failure::new(Exit::Integrity, message)
}
