//! Chores of the workspace that a plain Rust installation can run: `cargo xtask tidy`.

mod tidy;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let chore = std::env::args().nth(1);
    match chore.as_deref() {
        Some("tidy") => report(&tidy::run(root())),
        other => {
            say(&format!("error: no chore named {:?}\nhint: cargo xtask tidy", other.unwrap_or("")));
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
