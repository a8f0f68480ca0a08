//! The home folder: what lies where.
//!
//! ```text
//! metanode.toml      configuration, without secrets
//! master.key         32 bytes as hex, 0600 (unless the key lives elsewhere)
//! credentials.toml   provider credentials, 0600
//! operator.token     API key of the operator commands, 0600, written at the first start
//! client.token       API key of the blob commands in the tenant `default`, 0600, likewise
//! log.pub            public key of the audit log, for auditors
//! data/              keyring and ledger: sealed, rebuildable with `recover`; history.json: counts of the last two days
//! ```

use std::path::{Path, PathBuf};

use diaspore_ledger::create_folder;

use crate::failure::{Explain, Failure, Outcome};

/// Paths below one home folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    root: PathBuf,
    config: PathBuf,
}

impl Home {
    /// The folder asked for, else `$STATE_DIRECTORY` (systemd), `$XDG_DATA_HOME/diaspore` or `~/.local/share/diaspore`.
    pub(crate) fn find(asked: Option<&Path>, config: Option<&Path>) -> Outcome<Self> {
        let by_convention = || {
            let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            set("STATE_DIRECTORY")
                .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("diaspore")))
                .or_else(|| set("HOME").map(|home| home.join(".local/share/diaspore")))
        };
        let root = asked.map(Path::to_path_buf).or_else(by_convention).ok_or_else(|| {
            Failure::usage("no home folder: none of --home, DIASPORE_HOME, XDG_DATA_HOME and HOME is set").hint("give --home DIR")
        })?;
        let config = config.map_or_else(|| root.join("metanode.toml"), Path::to_path_buf);
        Ok(Self { root, config })
    }

    /// Makes the folder and `data/`, both 0700.
    pub(crate) fn create(&self) -> Outcome {
        create_folder(self.data()).explain(|| format!("cannot make {}", self.data().display()))
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Configuration.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Master key made by `init`.
    pub(crate) fn master_key(&self) -> PathBuf {
        self.root.join("master.key")
    }

    /// Provider credentials.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.root.join("credentials.toml")
    }

    /// API key of the operator.
    pub(crate) fn operator_token(&self) -> PathBuf {
        self.root.join("operator.token")
    }

    /// API key for blobs in the tenant `default`.
    pub(crate) fn client_token(&self) -> PathBuf {
        self.root.join("client.token")
    }

    /// Public key of the log.
    pub(crate) fn log_public_key(&self) -> PathBuf {
        self.root.join("log.pub")
    }

    /// The service's own data.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Sealed keyring.
    pub(crate) fn keyring(&self) -> PathBuf {
        self.data().join("keyring")
    }

    /// A free name for a keyring that has to give way to another one.
    pub(crate) fn keyring_beside(&self) -> PathBuf {
        let name = |number: u64| self.data().join(format!("keyring.beside-{number}"));
        (1..1000).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(1000))
    }

    /// The keyring under the master key that is to follow, while the key is being replaced.
    pub(crate) fn next_keyring(&self) -> PathBuf {
        self.data().join("keyring.next")
    }

    /// Where copies of the keyring may lie under replaced master keys, sealed.
    pub(crate) fn replaced_keys(&self) -> PathBuf {
        self.data().join("keyring.replaced")
    }

    /// Counts of the last days.
    pub(crate) fn history(&self) -> PathBuf {
        self.data().join("history.json")
    }

    /// Where a backup becomes a ledger, before it gets that name.
    pub(crate) fn restoring(&self) -> PathBuf {
        self.data().join("ledger.restoring")
    }

    /// Journal and ledger view.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.data().join("ledger")
    }
}
