use std::io;

/// Why the ledger refused; one variant per action of the caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Another process holds the ledger.
    #[error("the ledger is in use by another process: stop it, or point this one at its own data folder")]
    Locked,
    /// The ledger was written under another ledger key.
    #[error("the ledger does not open with this key: use the master key it was created with, or recover into an empty folder")]
    WrongKey,
    /// The ledger was written by a newer version of this program.
    #[error("the ledger has schema {found}, this program knows up to {supported}: run the newer version that wrote it")]
    NewerSchema {
        /// Schema version found on the medium.
        found: u32,
        /// Newest schema version this build reads.
        supported: u32,
    },
    /// The ledger is of an older schema, and this is not what migrates it.
    #[error("the ledger has schema {found}, and awaits its migration to {present}: the next start does that, after a copy")]
    OlderSchema {
        /// Schema version found on the medium.
        found: u32,
        /// Schema version that this build writes.
        present: u32,
    },
    /// Stored bytes do not authenticate or contradict each other.
    #[error("the ledger is damaged ({what}): restore the folder, or move it away and run recover")]
    Corrupt {
        /// What is damaged, without any content.
        what: String,
    },
    /// A block was handed to `apply` that is not the next one.
    #[error("commit block {found} does not follow the applied ones: the next one is {expected}")]
    OutOfOrder {
        /// The only sequence number that could be applied.
        expected: u64,
        /// The one that was given.
        found: u64,
    },
    /// A record contradicts the state it is applied to; nothing was changed.
    #[error(
        "record {index} of commit block {seq} cannot be applied ({what}): the log and this ledger do not belong together, run recover into an empty folder"
    )]
    Refused {
        /// Commit-block sequence.
        seq: u64,
        /// Index of the record in its block.
        index: usize,
        /// The violated rule, without any content.
        what: &'static str,
    },
    /// There are files where a backup is to be restored; none was touched.
    #[error("the place to restore into is not empty: move what is there away")]
    Occupied,
    /// A backup cannot be restored; nothing was changed.
    #[error("the backup cannot be restored ({what}): use another copy of it, an empty data folder and the deployment's own master key")]
    Backup {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The disk is full; what was written before stays readable.
    #[error("the disk holding the ledger is full: free some space; reads go on meanwhile")]
    Full,
    /// The ledger was opened read-only.
    #[error("the ledger is open read-only: open it for writing")]
    ReadOnly,
    /// A sync failed: what the disk holds is unknown, nothing is retried (the process must end and reconcile).
    #[error("the disk refused to make the ledger durable: end the process, check the disk, start again to reconcile")]
    SyncFailed,
    /// An argument is out of its limits.
    #[error("{what} is outside the limits: correct the call")]
    Invalid {
        /// The limit that was exceeded.
        what: &'static str,
    },
    /// Any other failure of the medium.
    #[error("the ledger's medium failed: {0}")]
    Io(#[source] io::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, LedgerError>;

impl From<io::Error> for LedgerError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::Full,
            _ => Self::Io(error),
        }
    }
}

impl From<diaspore_block::BlockError> for LedgerError {
    fn from(error: diaspore_block::BlockError) -> Self {
        match error {
            diaspore_block::BlockError::Invalid { what } => Self::Invalid { what },
            other => Self::corrupt(other.to_string()),
        }
    }
}

impl LedgerError {
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}
