//! `drill --verify`: what a signed drill report proves, checked without asking anybody.
//!
//! A report is a note (C2SP signed-note) whose first line is `diaspore-drill/v1`; docs/format.md, section 10.

use std::collections::BTreeSet;
use std::path::Path;

use diaspore_block::key::LogPublicKey;
use diaspore_block::log::{DRILL_REPORT, claimed_signer, open_report};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::audit::public_key;
use crate::cli::Global;
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::output::{grouped, table};

/// One set of providers and what became of it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Set {
    providers: Vec<String>,
    outcome: String,
}

/// A report that holds together.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    time_ms: u64,
    needed: u64,
    sets_tried: u64,
    sets_total: u64,
    blocks: u64,
    failures: u64,
    sets: Vec<Set>,
}

/// A report whose signature was checked.
#[derive(Debug, Serialize)]
struct Verified {
    origin: String,
    /// SHA-256 of the whole note, hex: what the log's record of the drill names.
    sha256: String,
    #[serde(flatten)]
    report: Report,
}

/// Runs the command.
pub(crate) fn verify(global: &Global, file: &Path, key: &str) -> Outcome {
    let note = std::fs::read_to_string(file).explain(|| format!("cannot read {}", file.display()))?;
    let verified = open(&note, &public_key(key)?)?;
    global.output.print(&verified, || text(&verified))?;
    let Report { blocks, failures, .. } = verified.report;
    if failures == 0 && blocks > 0 {
        return Ok(());
    }
    let why = if failures > 0 {
        "the report is genuine: not every set of providers rebuilt its block"
    } else {
        "the report is genuine: nothing was rebuilt"
    };
    Err(Failure::new(Exit::Integrity, why))
}

fn violation(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Integrity, format!("the report does not verify: {what}"))
}

fn open(note: &str, key: &LogPublicKey) -> Outcome<Verified> {
    let signer = claimed_signer(note).ok_or_else(|| violation("it is no signed note"))?;
    let body = open_report(note, &signer, key, DRILL_REPORT)
        .map_err(|error| violation(error).hint("is the key the log.pub of this deployment, and the file as it was written?"))?;
    let report = parse(body).ok_or_else(|| violation("its lines are not those of a drill, or contradict each other"))?;
    Ok(Verified { origin: signer.to_string(), sha256: hex::encode(Sha256::digest(note.as_bytes())), report })
}

/// The lines of a report, if its sums are those of its sets.
fn parse(body: &str) -> Option<Report> {
    fn field<'l>(lines: &mut std::str::Lines<'l>, name: &str) -> Option<&'l str> {
        lines.next()?.strip_prefix(name)?.strip_prefix(' ')
    }
    let mut lines = body.lines();
    let (time_ms, needed) = (field(&mut lines, "time")?.parse().ok()?, field(&mut lines, "needed")?.parse().ok()?);
    let (tried, total) = field(&mut lines, "sets")?.split_once(" of ")?;
    let (sets_tried, sets_total) = (tried.parse().ok()?, total.parse().ok()?);
    let (blocks, failures) = (field(&mut lines, "blocks")?.parse().ok()?, field(&mut lines, "failures")?.parse().ok()?);
    let mut sets = Vec::new();
    for line in lines {
        let (providers, outcome) = line.split_once(": ")?;
        sets.push(Set { providers: providers.split(' ').map(str::to_owned).collect(), outcome: outcome.to_owned() });
    }
    let report = Report { time_ms, needed, sets_tried, sets_total, blocks, failures, sets };
    holds_together(&report).then_some(report)
}

fn holds_together(report: &Report) -> bool {
    let count = |wanted: fn(&str) -> bool| report.sets.iter().filter(|set| wanted(&set.outcome)).count() as u64;
    let rebuilt = count(|outcome| outcome == "rebuilt");
    let tried = count(|outcome| outcome != "no block");
    let members: BTreeSet<BTreeSet<&String>> = report.sets.iter().map(|set| set.providers.iter().collect()).collect();
    report.blocks == rebuilt
        && report.failures == tried - rebuilt
        && report.sets_tried == tried
        && report.sets.len() as u64 <= report.sets_total
        && members.len() == report.sets.len()
        && members.iter().all(|set| set.len() as u64 == report.needed)
}

fn text(verified: &Verified) -> String {
    let Verified { origin, sha256, report } = verified;
    let rows = report.sets.iter().map(|set| [set.providers.join(" "), set.outcome.clone()]);
    format!(
        "Verified: signed by the log of {origin}\nTime: {} (milliseconds since 1970)\nProven: {} of {} sets of {} providers each rebuilt a block by themselves, every shard of it as it was signed\nFailures: {}\nSHA-256: {sha256}\n{}",
        report.time_ms,
        grouped(report.blocks),
        grouped(report.sets_total),
        report.needed,
        grouped(report.failures),
        table(["providers", "outcome"], rows)
    )
}

#[cfg(test)]
mod tests {
    use diaspore_block::key::LogIdentity;
    use diaspore_block::log::{KeyName, sign_report};

    use super::*;

    const BODY: &str =
        "time 1700000000000\nneeded 2\nsets 2 of 3\nblocks 1\nfailures 1\na b: rebuilt\na c: c gave no answer\nb c: no block\n";

    fn identity(seed: u8) -> LogIdentity {
        LogIdentity::from_bytes(&[seed; 32])
    }

    fn signed(body: &str) -> String {
        sign_report(&KeyName::new("diaspore/x").unwrap(), &identity(1), DRILL_REPORT, body)
    }

    #[test]
    fn a_report_says_what_it_proves_until_anything_in_it_is_changed() {
        let (note, key) = (signed(BODY), identity(1).public());
        let verified = open(&note, &key).unwrap();
        assert_eq!((verified.origin.as_str(), verified.report.blocks, verified.report.failures), ("diaspore/x", 1, 1));
        assert!(text(&verified).contains("1 of 3 sets of 2 providers"), "{}", text(&verified));
        assert_eq!(open(&note, &identity(2).public()).unwrap_err().exit, Exit::Integrity);
        for (at, byte) in note.bytes().enumerate() {
            let mut other = note.clone().into_bytes();
            other[at] = if byte == b'1' { b'2' } else { b'1' };
            let opened = String::from_utf8(other).is_ok_and(|other| open(&other, &key).is_ok());
            assert!(!opened, "byte {at}");
        }
        for cut in note.char_indices().map(|(at, _)| at) {
            assert!(open(&note[..cut], &key).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_signed_must_hold_together() {
        let key = identity(1).public();
        for (from, to) in [
            ("blocks 1", "blocks 2"),
            ("failures 1", "failures 0"),
            ("sets 2", "sets 3"),
            ("of 3", "of 2"),
            ("needed 2", "needed 3"),
            ("a c:", "a b:"),
            ("a c:", "a a:"),
            ("time ", "tim "),
        ] {
            assert!(open(&signed(&BODY.replace(from, to)), &key).is_err(), "{from} -> {to}");
        }
        let checkpoint = sign_report(&KeyName::new("diaspore/x").unwrap(), &identity(1), "diaspore-drill/v2", BODY);
        assert!(open(&checkpoint, &key).is_err(), "another kind of report");
    }
}
