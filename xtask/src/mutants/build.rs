//! The rewritten copy of the workspace, and its test binaries.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::find::{Found, Mutant, Switched, find};

/// Packages whose tests are asked.
const PACKAGES: [&str; 4] = ["diaspore-policy", "diaspore-ledger", "diaspore-engine", "diaspore-tests"];
/// Checks after which the compiler must have refused all that it refuses; each one drops what the one before complained of.
const ROUNDS: usize = 25;

/// The module that every mutated crate gets: which mutant is on, and when asked, which ones were reached.
const SWITCH: &str = r#"
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static REACHED: [AtomicBool; 1 << 15] = [const { AtomicBool::new(false) }; 1 << 15];

pub(crate) fn on(id: u32) -> bool {
    static CHOSEN: OnceLock<u32> = OnceLock::new();
    let chosen = *CHOSEN.get_or_init(|| match std::env::var("MUTANT").as_deref() {
        Ok("record") => u32::MAX,
        Ok(id) => id.parse().unwrap_or(0),
        Err(_) => 0,
    });
    if chosen == u32::MAX && !REACHED[id as usize].swap(true, Ordering::Relaxed) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(std::env::var("MUTANTS_REACHED").unwrap()).unwrap();
        file.write_all(format!("{id}\n").as_bytes()).unwrap();
    }
    chosen == id
}
"#;

/// What came out of the compiler.
pub(crate) struct Built {
    pub(crate) mutants: Vec<Mutant>,
    /// Mutants that do not compile.
    pub(crate) refused: usize,
    /// Test binaries, each with the folder it expects to run in.
    pub(crate) binaries: Vec<(PathBuf, PathBuf)>,
    /// The program that runs seeds of the simulation, and its folder.
    pub(crate) campaign: (PathBuf, PathBuf),
    /// The service and command that integration tests start.
    pub(crate) service: PathBuf,
}

/// One line of cargo's output, as far as it is read.
#[derive(Deserialize)]
struct Line {
    reason: String,
    message: Option<Message>,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    level: String,
    #[serde(default, rename = "message")]
    text: String,
    #[serde(default)]
    spans: Vec<Place>,
    #[serde(default)]
    children: Vec<Self>,
}

#[derive(Deserialize)]
struct Place {
    file_name: PathBuf,
    byte_start: usize,
    byte_end: usize,
    is_primary: bool,
}

/// Copies, rewrites, builds, and drops what does not compile until the rest does.
pub(crate) fn build(root: &Path, folder: &Path, subjects: &[String]) -> Result<Built, String> {
    // Not the target folder of the workspace itself: cargo takes the copy's packages for the same ones.
    let (tree, target) = (&folder.join("tree"), &folder.join("target"));
    let mut files: BTreeMap<PathBuf, Found> = BTreeMap::new();
    let mut crates = BTreeSet::new();
    let mut last = 0;
    let paths = crate::tidy::files(root)?;
    let is_face = |path: &Path| path.file_name().is_some_and(|name| name == "lib.rs");
    for path in paths.iter().filter(|path| !is_face(path)) {
        let text = std::fs::read(root.join(path)).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let name = path.to_string_lossy();
        let tests = name.ends_with("tests.rs") || name.contains("/tests/");
        if name.ends_with(".rs") && !tests && subjects.iter().any(|subject| name.starts_with(subject.as_str())) {
            let found = find(path, String::from_utf8_lossy(&text).into_owned(), last)?;
            last = found.mutants.last().map_or(last, |mutant| mutant.id);
            crates.insert(path.components().take(3).collect::<PathBuf>());
            files.insert(path.clone(), found);
        } else {
            put(&tree.join(path), &text)?;
        }
    }
    // The faces of the crates last: it is known by now which ones are mutated.
    for path in paths.iter().filter(|path| is_face(path)) {
        let mut text = crate::tidy::read(&root.join(path))?;
        if let Some(folder) = path.parent().filter(|folder| crates.contains(*folder)) {
            text.push_str("\nmod mutant;\n");
            put(&tree.join(folder).join("mutant.rs"), SWITCH.as_bytes())?;
        }
        put(&tree.join(path), text.as_bytes())?;
    }
    let all: Vec<Mutant> = files.values().flat_map(|found| found.mutants.clone()).collect();
    let mut refused = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut switched = BTreeMap::new();
        for (path, found) in &files {
            let text = found.switched(|id| !refused.contains(&id));
            put(&tree.join(path), text.text.as_bytes())?;
            switched.insert(path.clone(), text);
        }
        crate::say(&format!("mutants: check {round}, {} of {} left", all.len() - refused.len(), all.len()));
        let (done, lines) = cargo(tree, target, &["check"])?;
        if done {
            return link(tree, target, all, &refused);
        }
        let before = refused.len();
        for message in lines.iter().filter_map(|line| line.message.as_ref()).filter(|message| message.level == "error") {
            refused.extend(blamed(message, &switched));
        }
        if refused.len() == before {
            let texts = lines.iter().filter_map(|line| line.message.as_ref()).filter(|message| message.level == "error");
            return Err(format!(
                "the copy does not compile, and no mutant explains it: {:?}",
                texts.map(|message| &message.text).collect::<Vec<_>>()
            ));
        }
    }
    Err(format!("the copy does not compile after {ROUNDS} rounds"))
}

/// Mutants that an error points at: by its main places, else by any that it mentions, else the deletions between those.
fn blamed(message: &Message, switched: &BTreeMap<PathBuf, Switched>) -> BTreeSet<u32> {
    let at = |place: &Place| -> Vec<u32> {
        let range: Range<usize> = place.byte_start..place.byte_end;
        switched.get(&place.file_name).map_or_else(Vec::new, |file| file.to_blame(&range))
    };
    let main: BTreeSet<u32> = message.spans.iter().filter(|place| place.is_primary).flat_map(at).collect();
    if !main.is_empty() {
        return main;
    }
    let mentioned = || message.spans.iter().chain(message.children.iter().flat_map(|child| &child.spans));
    let any: BTreeSet<u32> = mentioned().flat_map(at).collect();
    if !any.is_empty() {
        return any;
    }
    let deleted = |(path, file): (&PathBuf, &Switched)| -> Vec<u32> {
        let places = || mentioned().filter(|place| place.file_name == *path);
        let start = places().map(|place| place.byte_start).min().unwrap_or(0);
        file.deleted_within(&(start..places().map(|place| place.byte_end).max().unwrap_or(0)))
    };
    switched.iter().flat_map(deleted).collect()
}

/// Builds the tests and the simulation's program of a copy that compiles.
fn link(tree: &Path, target: &Path, all: Vec<Mutant>, refused: &BTreeSet<u32>) -> Result<Built, String> {
    let built = |command: &[&str]| match cargo(tree, target, command)? {
        (true, lines) => Ok(lines.into_iter().filter_map(|line| Some((line.executable?, line.manifest_path?.parent()?.to_owned())))),
        (false, _) => Err(format!("the copy compiles, and cargo {command:?} fails; run it in {}", tree.display())),
    };
    crate::say("mutants: building the tests");
    let binaries = built(&["test", "--no-run", "--lib", "--test", "it"])?.collect();
    let campaign = built(&["build", "--example", "campaign"])?.next().ok_or("cargo names no program of the simulation")?;
    let service = built(&["build", "--package", "metanode", "--bin", "metanode"])?.next().ok_or("cargo names no metanode")?.0;
    let (dropped, mutants) = all.into_iter().partition::<Vec<_>, _>(|mutant| refused.contains(&mutant.id));
    Ok(Built { mutants, refused: dropped.len(), binaries, campaign, service })
}

/// One run of cargo: did it succeed, and what it said of the compiler's work.
fn cargo(tree: &Path, target: &Path, command: &[&str]) -> Result<(bool, Vec<Line>), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut run = Command::new(cargo);
    run.args(command).args(["--locked", "--quiet", "--message-format=json"]);
    for package in PACKAGES {
        run.args(["--package", package]);
    }
    let output = run
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target)
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()).filter(|line| line.reason.starts_with("compiler"));
    Ok((output.status.success(), lines.collect()))
}

/// Writes a file unless it is there: what did not change is not compiled again.
fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if std::fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
