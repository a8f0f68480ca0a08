//! How a command fails: an exit code, a sentence, and hints that say what to do.

use std::fmt;
use std::process::ExitCode;

use diaspore_engine::Loss;

/// Exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did not work.
    Failure = 1,
    /// The command line or configuration is wrong.
    Usage = 2,
    /// The service or enough providers cannot be reached now; the same command may work later.
    Unavailable = 3,
    /// Bytes or proofs are not what they claim to be.
    Integrity = 4,
    /// The service refuses a state that a person has to look at (fork, living foreign writer, data missing).
    Refused = 78,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hints: Vec<String>,
    /// What a refused recovery would lose.
    pub(crate) loss: Option<Box<Loss>>,
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of this class with its sentence.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hints: Vec::new(), loss: None }
    }

    /// Exit 1.
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, message)
    }

    /// Exit 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same with one more line on what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Exit code for the shell.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.hints.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

/// Attaches the sentence a bare error lacks.
pub(crate) trait Explain<T> {
    /// Turns an error into exit 1 with `what` before its text.
    fn explain(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Explain<T> for Result<T, E> {
    fn explain(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::plain(format!("{}: {error}", what())))
    }
}
