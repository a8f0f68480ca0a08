//! What no lint of the compiler sees: the layer graph, file lengths, names, words that say the work is not done.
//!
//! The layer rules are those of `deny.toml`, read from there, so that `cargo deny` and this check cannot disagree.

mod layers;
mod sources;

pub(crate) use sources::files;

use std::path::Path;

/// All findings, in a stable order; an error means that the check itself could not run.
pub(crate) fn run(root: &Path) -> Result<Vec<String>, String> {
    let mut findings = layers::check(root)?;
    findings.extend(sources::check(root)?);
    findings.sort();
    Ok(findings)
}

/// A file of the workspace as text.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
