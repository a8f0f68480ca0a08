//! Chores of the workspace that a plain Rust installation can run: `cargo xtask tidy`, `cargo xtask mutants`.

mod mutants;
mod tidy;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let chore = std::env::args().nth(1);
    match chore.as_deref() {
        Some("tidy") => report(&tidy::run(root())),
        Some("mutants") => match mutants::run(root(), &std::env::args().skip(2).collect::<Vec<_>>()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("error: {error}"));
                ExitCode::FAILURE
            }
        },
        other => {
            say(&format!("error: no chore named {:?}\nhint: cargo xtask tidy, cargo xtask mutants", other.unwrap_or("")));
            ExitCode::from(2)
        }
    }
}

/// The workspace this program was built in.
fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

fn report(findings: &Result<Vec<String>, String>) -> ExitCode {
    match findings {
        Ok(findings) if findings.is_empty() => {
            say("tidy: nothing to complain about");
            ExitCode::SUCCESS
        }
        Ok(findings) => {
            for finding in findings {
                say(finding);
            }
            say(&format!("tidy: {} finding(s)", findings.len()));
            ExitCode::FAILURE
        }
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A closed standard error is nobody's concern.
fn say(line: &str) {
    drop(writeln!(anstream::stderr().lock(), "{line}"));
}
