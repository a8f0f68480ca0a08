//! Where secrets come from: files, descriptors, credentials. Never an argument value, which every process can read.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::failure::{Exit, Explain, Failure, Outcome};

/// Longest secret file read, in bytes: 64 hex digits and a line end fit many times.
const MAX_SECRET: u64 = 4096;

/// The key of `--insecure`: printed here, so everybody has it.
pub(crate) const PUBLISHED_KEY: &[u8; 32] = b"diaspore-insecure-published-key!";

/// A place that holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// A file with no rights for group and others.
    File(PathBuf),
    /// An inherited descriptor: `fd:3`.
    Descriptor(u32),
    /// A systemd credential: `cred:master.key`, below `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

impl FromStr for SecretSource {
    type Err = Failure;

    fn from_str(text: &str) -> Outcome<Self> {
        let looks_like_a_key = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if looks_like_a_key {
            return Err(Failure::usage("the master key itself was given; only the place that holds it may be")
                .hint("this key is now in your shell history and process list: consider it spent")
                .hint("write it to a file with mode 0600 and give the file, fd:N or cred:NAME"));
        }
        if let Some(number) = text.strip_prefix("fd:") {
            let number = number
                .parse()
                .map_err(|_| Failure::usage(format!("fd:{number} is no descriptor number")).hint("for example fd:3 3<key"))?;
            return Ok(Self::Descriptor(number));
        }
        if let Some(name) = text.strip_prefix("cred:") {
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err(Failure::usage(format!("cred:{name} is no credential name"))
                    .hint("for example cred:master.key with LoadCredential=master.key:..."));
            }
            return Ok(Self::Credential(name.to_owned()));
        }
        Ok(Self::File(PathBuf::from(text)))
    }
}

impl SecretSource {
    /// Reads the secret as it lies there.
    pub(crate) fn read(&self) -> Outcome<Zeroizing<Vec<u8>>> {
        match self {
            Self::File(path) => read_private(path),
            Self::Descriptor(number) => read_all(&PathBuf::from(format!("/dev/fd/{number}")))
                .map_err(|failure| failure.hint(format!("descriptor {number} must be open when metanode starts, as in `{number}<file`"))),
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    Failure::usage(format!("cred:{name} was asked for but CREDENTIALS_DIRECTORY is not set"))
                        .hint("systemd sets it for services with LoadCredential= or SetCredentialEncrypted=")
                })?;
                read_all(&Path::new(&folder).join(name))
            }
        }
    }

    /// Reads 32 bytes, raw or as 64 hex digits.
    pub(crate) fn read_key(&self) -> Outcome<Zeroizing<[u8; 32]>> {
        let bytes = self.read().map_err(|failure| {
            let lost = "restore the copy of the master key; it cannot be made again, and nothing can be opened without it";
            if failure.hints.is_empty() { failure.hint(lost) } else { failure }
        })?;
        parse_key(&bytes).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("the master key has {} bytes; 32 raw bytes or 64 hex digits were expected", bytes.len()))
                .hint("head -c 32 /dev/urandom > master.key && chmod 600 master.key makes one")
        })
    }
}

fn parse_key(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        return Some(Zeroizing::new(raw));
    }
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let mut key = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(text, key.as_mut_slice()).ok()?;
    Some(key)
}

/// Reads a file that only its owner may read.
pub(crate) fn read_private(path: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    let mode = fs::metadata(path).explain(|| format!("cannot read {}", path.display()))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::new(Exit::Refused, format!("{} is open to others (mode {:04o})", path.display(), mode & 0o7777))
            .hint(format!("chmod 600 {}", path.display())));
    }
    read_all(path)
}

fn read_all(path: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).explain(|| format!("cannot read {}", path.display()))?;
    file.take(MAX_SECRET).read_to_end(&mut bytes).explain(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// A new empty file with mode 0600; one that is there is emptied.
pub(crate) fn new_private(path: &Path) -> Outcome<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::plain(format!("cannot replace {}: {error}", path.display())));
        }
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path).explain(|| format!("cannot write {}", path.display()))
}

/// Writes a new file with mode 0600, durable before it returns. Fails when the file exists.
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> Outcome {
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        sync_folder_of(path)
    };
    write().explain(|| format!("cannot write {}", path.display()))
}

/// Replaces a file with mode 0600, whole or not at all.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> Outcome {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::plain(format!("cannot replace {}: {error}", fresh.display())));
        }
        _ => {}
    }
    create_private(&fresh, bytes)?;
    rename(&fresh, path)
}

/// Puts a file in the place of another one, durable before it returns.
pub(crate) fn rename(from: &Path, to: &Path) -> Outcome {
    fs::rename(from, to).and_then(|()| sync_folder_of(to)).explain(|| format!("cannot replace {}", to.display()))
}

/// Makes a file that somebody else wrote outlive a loss of power.
pub(crate) fn make_durable(path: &Path) -> Outcome {
    let sync = || File::open(path)?.sync_all().and_then(|()| sync_folder_of(path));
    sync().explain(|| format!("cannot make {} durable", path.display()))
}

fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_raw_or_hex() {
        assert_eq!(*parse_key(&[7; 32]).unwrap(), [7; 32]);
        assert_eq!(*parse_key(format!("{}\n", "0a".repeat(32)).as_bytes()).unwrap(), [10; 32]);
        for bad in [&b""[..], &[7; 31], &[7; 33], b"zz".repeat(32).as_slice(), "0a".repeat(31).as_bytes()] {
            assert!(parse_key(bad).is_none());
        }
    }

    #[test]
    fn a_key_on_the_command_line_is_refused_with_a_warning() {
        let failure = SecretSource::from_str(&"ab".repeat(32)).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.hints.iter().any(|hint| hint.contains("spent")), "{failure}");
    }

    #[test]
    fn a_file_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create_private(&path, &[1; 32]).unwrap();
        assert_eq!(*SecretSource::File(path.clone()).read_key().unwrap(), [1; 32]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = SecretSource::File(path).read_key().unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.to_string().contains("hint: chmod 600"), "{failure}");
    }

    #[test]
    fn sources_parse() {
        assert_eq!(SecretSource::from_str("fd:3").unwrap(), SecretSource::Descriptor(3));
        assert_eq!(SecretSource::from_str("cred:master.key").unwrap(), SecretSource::Credential("master.key".to_owned()));
        assert_eq!(SecretSource::from_str("a/b").unwrap(), SecretSource::File("a/b".into()));
        for bad in ["fd:x", "fd:-1", "cred:", "cred:../x", "cred:a/b"] {
            assert_eq!(SecretSource::from_str(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn replacing_keeps_the_old_file_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.token");
        create_private(&path, b"one").unwrap();
        assert!(create_private(&path, b"two").is_err());
        replace_private(&path, b"two").unwrap();
        assert_eq!(read_private(&path).unwrap().as_slice(), b"two");
    }
}
