//! Mutation testing where a mutant costs a run, not a build:
//! `cargo xtask mutants [--again] [--unit] [--jobs N] [--budget SECONDS] [--skip N] [--sample N] [PATH..]`.
//!
//! Building this workspace takes longer than most of its tests, and a tool that builds per mutant would take days. So all mutants are compiled
//! into one set of test binaries, each behind a switch that the environment sets (mutant schemata: Untch, Offutt, Harrold 1993). The sources
//! stay as they are: a copy in `mutants/tree` of the target folder is rewritten, and built in `mutants/target`. Every test runs once alone to
//! record which mutants it reaches; then every mutant meets the tests that reach it, those first that caught most for their time, until one
//! fails. Some seeds of the simulation stand among the tests, whatever the budget.
//!
//! A mutant counts as caught when a test fails twice or exceeds five times its usual time and five seconds. The score is caught / compiled:
//! those that no test reaches count as not caught, and those that mean the same as the original are not taken out. A row per mutant lies in
//! `mutants/report.tsv`; with `--again` what it says was caught is believed and only its other rows run. `--unit` leaves out the integration
//! tests and the seeds, `--budget` bounds the usual seconds of the tests that one mutant meets (60), `--sample` takes so many mutants by a
//! fixed draw, behind the first `--skip` of it: tests that were written for one sample are measured by another. Bodies of macros (`tokio::select!` above all), constants and patterns are not
//! mutated, nor is what only prints, logs or counts for people.

mod build;
mod find;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use find::Mutant;
use run::Outcome;

/// What is mutated when no path is given: all files whose path begins so.
const SUBJECTS: [&str; 9] = [
    "crates/engine/src/checkpoint",
    "crates/engine/src/collect",
    "crates/engine/src/commit",
    "crates/engine/src/layout",
    "crates/engine/src/reconcile",
    "crates/engine/src/relocate",
    "crates/engine/src/scatter",
    "crates/engine/src/settle/heal",
    "crates/policy/src/place",
];

/// What the command line asked for.
struct Wish {
    /// Only what the last report has, and of that only what was not caught.
    again: bool,
    /// Without the integration tests.
    unit: bool,
    jobs: usize,
    /// Usual seconds of the tests that one mutant meets at most.
    budget: f64,
    /// So many of the draw are left out.
    skip: usize,
    sample: Option<usize>,
    subjects: Vec<String>,
}

/// What a report remembers a mutant by.
type Name = (String, String);

/// One row of the report.
struct Row {
    mutant: Mutant,
    outcome: Outcome,
}

/// Builds, runs, writes the report, and says how it went per subject.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let mut wish = wish(arguments)?;
    if wish.subjects.is_empty() {
        wish.subjects = SUBJECTS.map(str::to_owned).to_vec();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join("mutants");
    let known = if wish.again { Some(reported(&folder.join("report.tsv"))?) } else { None };
    let built = build::build(root, &folder, &wish.subjects)?;
    crate::say(&format!("mutants: {} compiled, {} not", built.mutants.len(), built.refused));
    let tests = run::record(&built, &folder, wish.jobs, wish.unit)?;
    let (mut rows, mut waiting) = (Vec::new(), Vec::new());
    for mutant in drawn(built.mutants, wish.skip, wish.sample) {
        match known.as_ref().map(|known| known.get(&name(&mutant))) {
            Some(Some(Some(by))) => rows.push(Row { mutant, outcome: Outcome::Caught(by.clone()) }),
            Some(None) => (),
            Some(Some(None)) | None => waiting.push(mutant),
        }
    }
    // A row at a time, so that what was found is there when the run is broken off; in order once all are.
    let report = folder.join("report.tsv");
    write(&report, &rows)?;
    let news = std::fs::File::options().append(true).open(&report).map_err(|error| format!("cannot open the report: {error}"))?;
    let ran = run::all(waiting, &tests, wish.jobs, wish.budget, &|mutant, outcome| {
        drop((&news).write_all(line(mutant, outcome).as_bytes()));
    });
    rows.extend(ran.into_iter().map(|(mutant, outcome)| Row { mutant, outcome }));
    rows.sort_by_key(|row| row.mutant.id);
    write(&report, &rows)?;
    for row in rows.iter().filter(|row| !row.outcome.is_caught()) {
        let (place, change) = name(&row.mutant);
        crate::say(&format!("{}: {place}: {change}", row.outcome.word()));
    }
    for line in summary(&rows, &wish.subjects) {
        crate::say(&line);
    }
    Ok(())
}

/// A row as the report has it.
fn line(mutant: &Mutant, outcome: &Outcome) -> String {
    let (place, change) = name(mutant);
    format!("{}\t{place}\t{change}\t{}\n", outcome.word(), outcome.by())
}

fn write(report: &Path, rows: &[Row]) -> Result<(), String> {
    let text: String = rows.iter().map(|row| line(&row.mutant, &row.outcome)).collect();
    std::fs::write(report, text).map_err(|error| format!("cannot write the report: {error}"))
}

fn wish(arguments: &[String]) -> Result<Wish, String> {
    let mut wish = Wish { again: false, unit: false, jobs: 1, budget: 60.0, skip: 0, sample: None, subjects: Vec::new() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = || rest.next().and_then(|text| text.parse::<u32>().ok()).ok_or_else(|| format!("{argument} needs a number"));
        match argument.as_str() {
            "--again" => wish.again = true,
            "--unit" => wish.unit = true,
            "--jobs" => wish.jobs = number()?.max(1) as usize,
            "--budget" => wish.budget = f64::from(number()?),
            "--skip" => wish.skip = number()? as usize,
            "--sample" => wish.sample = Some(number()? as usize),
            option if option.starts_with('-') => return Err(format!("no option named {option}")),
            path => wish.subjects.push(path.to_owned()),
        }
    }
    Ok(wish)
}

/// Place and change, which stay while the lines above do.
fn name(mutant: &Mutant) -> Name {
    (format!("{}:{}:{} {}", mutant.file.display(), mutant.line, mutant.column, mutant.function), mutant.change.clone())
}

/// The mutants of an earlier report, and by what they were caught.
fn reported(report: &Path) -> Result<BTreeMap<Name, Option<String>>, String> {
    let text = std::fs::read_to_string(report).map_err(|error| format!("cannot read {}: {error}", report.display()))?;
    let row = |line: &str| match line.split('\t').collect::<Vec<_>>().as_slice() {
        [outcome, place, change, by] => {
            Some((((*place).to_owned(), (*change).to_owned()), (*outcome == "caught").then(|| (*by).to_owned())))
        }
        _ => None,
    };
    Ok(text.lines().filter_map(row).collect())
}

/// A sample that is the same for the same mutants, spread by a hash of their names (FNV-1a, mixed), behind `skip` others; all without a size.
fn drawn(mut mutants: Vec<Mutant>, skip: usize, size: Option<usize>) -> Vec<Mutant> {
    if let Some(size) = size {
        mutants.sort_by_cached_key(|mutant| {
            let (place, change) = name(mutant);
            let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            let hash = place.bytes().chain(change.bytes()).fold(0xcbf2_9ce4_8422_2325, step);
            (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        });
        mutants.drain(..skip.min(mutants.len()));
        mutants.truncate(size);
    }
    mutants
}

/// A line per subject and one for all.
fn summary(rows: &[Row], subjects: &[String]) -> Vec<String> {
    let line = |title: &str, rows: &[&Row]| {
        let count = |word: &str| rows.iter().filter(|row| row.outcome.word() == word).count();
        let (caught, all) = (count("caught"), rows.len());
        let (low, high) = interval(caught, all);
        format!(
            "{title}: {all} mutants, {caught} caught, {} survived, {} reached by no test: {:.1} % ({low:.1} to {high:.1})",
            count("survived"),
            count("unreached"),
            share(caught, all)
        )
    };
    let known: BTreeSet<&String> = subjects.iter().collect();
    let of = |subject: &str| rows.iter().filter(|row| row.mutant.file.to_string_lossy().starts_with(subject)).collect::<Vec<_>>();
    let mut lines: Vec<String> = known.iter().map(|subject| line(subject, &of(subject))).collect();
    lines.push(line("all", &rows.iter().collect::<Vec<_>>()));
    lines
}

#[expect(clippy::cast_precision_loss, reason = "counts of mutants are small")]
fn share(part: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 }
}

/// Wilson's score interval at 95 %, in percent: what a sample says about all.
#[expect(clippy::cast_precision_loss, reason = "counts of mutants are small")]
fn interval(part: usize, all: usize) -> (f64, f64) {
    let (count, found) = (all.max(1) as f64, part as f64 / all.max(1) as f64);
    let squared = 1.96_f64 * 1.96;
    let middle = (found + squared / (2.0 * count)) / (1.0 + squared / count);
    let half = 1.96 * (found * (1.0 - found) / count + squared / (4.0 * count * count)).sqrt() / (1.0 + squared / count);
    (100.0 * (middle - half).max(0.0), 100.0 * (middle + half).min(1.0))
}
