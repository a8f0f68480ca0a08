//! Tests alone, one process each: first to see what they reach, then with one mutant on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::build::Built;
use super::find::Mutant;

/// Modules of the integration binary that are asked. The others are about commands, wires and outages, and reach nothing more.
const INTEGRATION: [&str; 15] = [
    "atlas",
    "buckets",
    "checkpoints",
    "claims",
    "histories",
    "joined",
    "leaving",
    "recovery",
    "rescue",
    "rotation",
    "sim",
    "steps",
    "traces",
    "trouble",
    "upkeep",
];
/// Memory of one test, in KiB: a mutant may allocate without end.
const MEMORY_KIB: u32 = 8 << 20;

/// Seeds of the simulation that stand beside the tests, in the place of the hundreds that [`SEEDS`] runs.
const CAMPAIGN: [&str; 3] = ["0", "50", "8"];
/// The test whose seeds the campaign runs.
const SEEDS: &str = "sim::seeds_hold";

/// One test, and what is known of it.
pub(crate) struct Test {
    binary: PathBuf,
    folder: PathBuf,
    /// What it starts when it wants the process.
    service: PathBuf,
    name: String,
    arguments: Vec<String>,
    /// Whatever the budget: it comes by places that the tests do not.
    always: bool,
    /// It takes so long with no mutant on.
    seconds: f64,
    reaches: BTreeSet<u32>,
    /// Mutants it was the first to catch.
    caught: AtomicU32,
}

impl Test {
    fn new(service: &Path, (binary, folder): &(PathBuf, PathBuf), name: &str, arguments: &[&str]) -> Self {
        Self {
            binary: binary.clone(),
            folder: folder.clone(),
            service: service.to_owned(),
            name: name.to_owned(),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            always: false,
            seconds: 0.0,
            reaches: BTreeSet::new(),
            caught: AtomicU32::new(0),
        }
    }
}

/// How a mutant fared.
pub(crate) enum Outcome {
    /// By a test that failed twice or took too long.
    Caught(String),
    /// No test that reaches it failed; so many were asked of so many.
    Survived(usize, usize),
    /// No test comes by.
    Unreached,
}

impl Outcome {
    pub(crate) fn is_caught(&self) -> bool {
        matches!(self, Self::Caught(_))
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Caught(_) => "caught",
            Self::Survived(..) => "survived",
            Self::Unreached => "unreached",
        }
    }

    pub(crate) fn by(&self) -> String {
        match self {
            Self::Caught(test) => test.clone(),
            Self::Survived(asked, reaching) => format!("{asked} of {reaching} tests"),
            Self::Unreached => String::new(),
        }
    }
}

/// Runs every test once with no mutant on. One that fails then is left out, and named.
pub(crate) fn record(built: &Built, folder: &Path, jobs: usize, unit: bool) -> Result<Vec<Test>, String> {
    let mut tests = Vec::new();
    if !unit {
        tests.push(Test { always: true, ..Test::new(&built.service, &built.campaign, "seeds of the simulation", &CAMPAIGN) });
    }
    for program in &built.binaries {
        let (binary, home) = program;
        let integration = binary.file_name().is_some_and(|name| name.to_string_lossy().starts_with("it-"));
        let listed = Command::new(binary).args(["--list", "--format", "terse"]).current_dir(home).output();
        let listed = listed.map_err(|error| format!("cannot run {}: {error}", binary.display()))?;
        for name in String::from_utf8_lossy(&listed.stdout).lines().filter_map(|line| line.strip_suffix(": test")) {
            let asked = !integration || !unit && name != SEEDS && INTEGRATION.iter().any(|module| name.split("::").next() == Some(module));
            if asked {
                tests.push(Test::new(&built.service, program, name, &[name, "--exact", "--quiet", "--test-threads=1"]));
            }
        }
    }
    let (waiting, usable) = (Mutex::new(tests), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for job in 0..jobs {
            let (waiting, usable, file) = (&waiting, &usable, folder.join(format!("reached-{job}")));
            scope.spawn(move || {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(mut test) = next else { return };
                    drop(std::fs::remove_file(&file));
                    let (end, seconds) = run(&test, "record", &file, 1800.0);
                    if !matches!(end, End::Passed) {
                        crate::say(&format!("mutants: {} fails without a mutant and is left out", test.name));
                        continue;
                    }
                    test.seconds = seconds;
                    test.reaches =
                        std::fs::read_to_string(&file).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect();
                    if !test.reaches.is_empty() {
                        usable.lock().unwrap_or_else(PoisonError::into_inner).push(test);
                    }
                }
            });
        }
    });
    let usable = usable.into_inner().unwrap_or_else(PoisonError::into_inner);
    crate::say(&format!("mutants: {} tests reach one, {:.0} s in all", usable.len(), usable.iter().map(|test| test.seconds).sum::<f64>()));
    Ok(usable)
}

/// Switches every mutant on in turn, `jobs` at a time.
pub(crate) fn all(
    mutants: Vec<Mutant>,
    tests: &[Test],
    jobs: usize,
    budget: f64,
    tell: &(dyn Fn(&Mutant, &Outcome) + Sync),
) -> Vec<(Mutant, Outcome)> {
    let count = mutants.len();
    let (waiting, done) = (Mutex::new(mutants), Mutex::new(Vec::with_capacity(count)));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(mutant) = next else { return };
                    let outcome = one(&mutant, tests, budget);
                    tell(&mutant, &outcome);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((mutant, outcome));
                    if done.len() % 50 == 0 {
                        let caught = done.iter().filter(|(_, outcome): &&(Mutant, Outcome)| outcome.is_caught()).count();
                        crate::say(&format!("mutants: {} of {count}, {caught} caught", done.len()));
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Asks the tests that reach the mutant, the likeliest for its time first, until one fails.
fn one(mutant: &Mutant, tests: &[Test], budget: f64) -> Outcome {
    let mut order: Vec<(f64, &Test)> = tests
        .iter()
        .filter(|test| test.reaches.contains(&mutant.id))
        .map(|test| (f64::from(test.caught.load(Ordering::Relaxed) + 1) / test.seconds.max(0.01), test))
        .collect();
    if order.is_empty() {
        return Outcome::Unreached;
    }
    order.sort_by(|one, other| other.0.total_cmp(&one.0));
    let (reaching, mut asked, mut spent) = (order.len(), 0, 0.0);
    for (_, test) in order {
        if !test.always && asked > 0 && spent + test.seconds > budget {
            continue;
        }
        (asked, spent) = (asked + 1, spent + if test.always { 0.0 } else { test.seconds });
        let fails = || run(test, &mutant.id.to_string(), Path::new("/dev/null"), test.seconds * 5.0 + 5.0).0;
        let how = match fails() {
            End::Passed => continue,
            End::Late => " (takes too long)",
            // On a busy machine a test may fail once for no reason of the mutant's.
            End::Failed if matches!(fails(), End::Passed) => continue,
            End::Failed => "",
        };
        test.caught.fetch_add(1, Ordering::Relaxed);
        return Outcome::Caught(format!("{}{how}", test.name));
    }
    Outcome::Survived(asked, reaching)
}

enum End {
    Passed,
    Failed,
    Late,
}

/// One test in a process of its own, and its seconds.
#[expect(clippy::disallowed_methods, reason = "a chore measures real time; nothing here is simulated")]
fn run(test: &Test, mutant: &str, reached: &Path, limit: f64) -> (End, f64) {
    let started = std::time::Instant::now();
    let status = Command::new("sh")
        .args(["-c", &format!("ulimit -v {MEMORY_KIB}; exec timeout -s KILL {limit:.0} \"$0\" \"$@\"")])
        .arg(&test.binary)
        .args(&test.arguments)
        .current_dir(&test.folder)
        .env("METANODE_BIN", &test.service)
        .env("MUTANT", mutant)
        .env("MUTANTS_REACHED", reached)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let end = match status {
        Ok(status) if status.success() => End::Passed,
        // `timeout` kills itself with the test.
        Ok(status) if status.code() == Some(137) || status.code().is_none() && started.elapsed().as_secs_f64() >= limit - 1.0 => End::Late,
        _ => End::Failed,
    };
    (end, started.elapsed().as_secs_f64())
}
