//! Checkpoints as C2SP tlog-checkpoint in a C2SP signed-note.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::error::{BlockError, Result};
use crate::id::Hash32;
use crate::key::{LogIdentity, LogPublicKey};

const WHAT: &str = "checkpoint";
const ED25519: u8 = 1;
const MAX_NOTE: usize = 16 << 10;

/// Name of a note's key and origin of the log: printable, without spaces and plus signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(String);

impl KeyName {
    /// Checked name.
    pub fn new(name: &str) -> Result<Self> {
        let fits = !name.is_empty() && name.len() <= 255 && name.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '+');
        if fits { Ok(Self(name.to_owned())) } else { Err(BlockError::Invalid { what: "log origin" }) }
    }

    /// The origin of a deployment's log: `diaspore/<deployment>`.
    pub fn of(deployment: crate::id::DeploymentId) -> Self {
        Self(format!("diaspore/{deployment}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// C2SP key id: the first four bytes of SHA-256(name ‖ 0x0a ‖ 0x01 ‖ public key).
fn key_id(name: &KeyName, public: &LogPublicKey) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name.0.as_bytes()).chain_update([b'\n', ED25519]).chain_update(public.as_bytes()).finalize();
    let mut id = [0; 4];
    id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    id
}

/// The verifier key (vkey) of a log: `name+hex(key id)+base64(0x01 ‖ public key)`.
pub fn verifier_key(name: &KeyName, public: &LogPublicKey) -> String {
    let id = u32::from_be_bytes(key_id(name, public));
    let key = BASE64.encode([[ED25519].as_slice(), public.as_bytes()].concat());
    format!("{name}+{id:08x}+{key}")
}

/// A statement about the whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: KeyName,
    /// Leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash32,
}

impl Checkpoint {
    fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root.as_bytes()))
    }

    /// The signed note: three lines, an empty one, and the log's signature line.
    pub fn sign(&self, identity: &LogIdentity) -> String {
        let body = self.body();
        let signature = identity.sign_note(&body);
        let id = key_id(&self.origin, &identity.public());
        format!("{body}\n\u{2014} {} {}\n", self.origin, BASE64.encode([id.as_slice(), &signature].concat()))
    }

    /// Opens a signed note; signatures by others (witnesses) may stand beside the log's own.
    pub fn open(note: &str, public: &LogPublicKey) -> Result<Self> {
        let malformed = BlockError::Malformed { what: WHAT };
        if note.len() > MAX_NOTE {
            return Err(malformed);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(malformed.clone())?;
        let body = format!("{text}\n");
        let mut lines = text.split('\n');
        let mut line = || lines.next().ok_or(malformed.clone());
        let origin = KeyName::new(line()?).map_err(|_| malformed.clone())?;
        let size: u64 = line()?.parse().map_err(|_| malformed.clone())?;
        let root = BASE64.decode(line()?).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(malformed.clone())?;
        let checkpoint = Self { origin, size, root: Hash32::from_bytes(root) };
        // One statement, one text: extension lines and unusual numbers are refused.
        if checkpoint.body() != body || !signatures.ends_with('\n') {
            return Err(malformed);
        }
        let id = key_id(&checkpoint.origin, public);
        let ours = signatures.lines().filter_map(|line| {
            let (name, blob) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let blob = BASE64.decode(blob).ok()?;
            let (key, signature) = blob.split_first_chunk::<4>()?;
            (name == checkpoint.origin.0 && *key == id).then(|| signature.try_into().ok())?
        });
        let mut refusal = BlockError::NotAuthentic { what: WHAT };
        for signature in ours {
            match public.verify_bare(body.as_bytes(), &signature, WHAT) {
                Ok(()) => return Ok(checkpoint),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}
