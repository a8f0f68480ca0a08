//! File names, lengths and words.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Most lines of a Rust file; past it there is a seam (docs: the shape of the code).
const MAX_LINES: usize = 800;

/// File stems that say nothing about what lives there.
const EMPTY_NAMES: [&str; 7] = ["mod", "utils", "util", "common", "helpers", "types", "misc"];

/// Words that say the work is not done, a check is off, or a machine is meant. Written in halves so that this file passes.
const WORDS: [(&str, &str); 8] = [
    (concat!("TO", "DO"), "finish it, or write a decision record"),
    (concat!("FIX", "ME"), "fix it"),
    (concat!("to", "do!("), "write it"),
    (concat!("unimplemented", "!("), "write it"),
    (concat!("#[ig", "nore"), "a test that does not run is no test"),
    (concat!("#[al", "low("), "use #[expect(.., reason = \"..\")]"),
    (concat!("thread::", "sleep"), "wait for a condition or on the runtime's clock"),
    (concat!("/ro", "ot/"), "no path of one machine"),
];

/// Kinds of file whose text is read.
const TEXT: [&str; 12] = ["rs", "toml", "md", "sh", "py", "yaml", "yml", "service", "txt", "html", "css", "js"];

/// Everything wrong with the files that git tracks or would track.
pub(super) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut findings = Vec::new();
    for path in files(root)? {
        findings.extend(name_findings(&path));
        if !path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| TEXT.contains(&ending)) {
            continue;
        }
        // The lint configuration bans some of the words by naming them.
        if path == Path::new("clippy.toml") {
            continue;
        }
        let text = super::read(&root.join(&path))?;
        findings.extend(text_findings(&path, &text));
    }
    Ok(findings)
}

/// Tracked files and new ones that are not ignored, relative to the root.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cannot run git ls-files: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let listed = String::from_utf8(output.stdout).map_err(|_| "a tracked file has a name that is not UTF-8".to_owned())?;
    Ok(listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).filter(|path| root.join(path).is_file()).collect())
}

fn name_findings(path: &Path) -> Option<String> {
    let rust = path.extension().is_some_and(|ending| ending == "rs");
    let stem = path.file_stem()?.to_str()?;
    (rust && EMPTY_NAMES.contains(&stem)).then(|| format!("{}: the name does not say what lives there", path.display()))
}

fn text_findings(path: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let rust = path.extension().is_some_and(|ending| ending == "rs");
    let lines = text.lines().count();
    if rust && lines > MAX_LINES {
        findings.push(format!("{}: {lines} lines, more than {MAX_LINES}: find the seam", path.display()));
    }
    for (at, line) in text.lines().enumerate() {
        for (word, remedy) in WORDS {
            if line.contains(word) {
                findings.push(format!("{}:{}: {word}: {remedy}", path.display(), at + 1));
            }
        }
    }
    let manifest = path.file_name().is_some_and(|name| name == "Cargo.toml");
    if manifest && path.components().count() > 1 && !text.contains("[lints]\nworkspace = true") {
        findings.push(format!("{}: does not take the workspace's lints", path.display()));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_nothing_are_found() {
        assert!(name_findings(Path::new("crates/a/src/utils.rs")).is_some());
        assert!(name_findings(Path::new("crates/a/src/b/mod.rs")).is_some());
        assert!(name_findings(Path::new("crates/a/src/journal.rs")).is_none());
        assert!(name_findings(Path::new("docs/common.md")).is_none());
    }

    #[test]
    fn long_files_and_open_ends_are_found() {
        let path = Path::new("crates/a/src/b.rs");
        assert!(text_findings(path, &"x\n".repeat(MAX_LINES)).is_empty());
        assert_eq!(text_findings(path, &"x\n".repeat(MAX_LINES + 1)).len(), 1);
        for (word, _) in WORDS {
            assert_eq!(text_findings(path, &format!("// {word}\n")).len(), 1, "{word}");
        }
    }

    #[test]
    fn a_manifest_without_the_lints_is_found() {
        let path = Path::new("crates/a/Cargo.toml");
        assert!(text_findings(path, "[package]\n\n[lints]\nworkspace = true\n").is_empty());
        assert_eq!(text_findings(path, "[package]\n").len(), 1);
    }
}
