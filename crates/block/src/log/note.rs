//! Checkpoints as C2SP tlog-checkpoint in a C2SP signed-note.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::error::{BlockError, Result};
use crate::id::Hash32;
use crate::key::{LogIdentity, LogPublicKey};
use crate::log::empty_root;

const WHAT: &str = "checkpoint";
const ED25519: u8 = 1;
const MAX_NOTE: usize = 64 << 10;
/// As in Go's `note.Open`.
const MAX_SIGNATURES: usize = 100;

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

/// A report as a signed note under the log's key: the first line says what it is, `body` is lines that end in a newline, none empty.
///
/// No checkpoint has such a first line, so neither passes for the other.
pub fn sign_report(name: &KeyName, identity: &LogIdentity, kind: &str, body: &str) -> String {
    debug_assert!(kind != name.as_str() && !kind.contains('\n') && !body.contains("\n\n"), "a report is no checkpoint");
    let text = format!("{kind}\n{body}");
    let signature = identity.sign_note(&text);
    let id = key_id(name, &identity.public());
    format!("{text}\n\u{2014} {name} {}\n", BASE64.encode([id.as_slice(), &signature].concat()))
}

/// The text of a report of this kind that [`sign_report`] signed, without its first line.
pub fn open_report<'n>(note: &'n str, name: &KeyName, public: &LogPublicKey, kind: &str) -> Result<&'n str> {
    let malformed = BlockError::Malformed { what: "report" };
    if has_control(note) {
        return Err(malformed);
    }
    let (text, line) = note.rsplit_once("\n\n").ok_or(malformed.clone())?;
    let (signer, key, signature) = line.strip_suffix('\n').and_then(signature_line).ok_or(malformed.clone())?;
    let signature = signature.try_into().map_err(|_| malformed.clone())?;
    if signer != name.as_str() || key != key_id(name, public) {
        return Err(BlockError::NotAuthentic { what: "report" });
    }
    let signed = note.get(..=text.len()).ok_or(malformed.clone())?;
    public.verify_bare(signed.as_bytes(), &signature, "report")?;
    signed.strip_prefix(kind).and_then(|rest| rest.strip_prefix('\n')).ok_or(malformed)
}

/// First line of a signed drill report: docs/format.md, section 10.
pub const DRILL_REPORT: &str = "diaspore-drill/v1";

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

    /// Opens a signed note, as strictly as Go's `note.Open`: every signature line must be one, whoever's it is, and the first line of
    /// the log's own key decides. Signatures by others (witnesses) may stand beside it.
    pub fn open(note: &str, public: &LogPublicKey) -> Result<Self> {
        let malformed = BlockError::Malformed { what: WHAT };
        if note.len() > MAX_NOTE || has_control(note) {
            return Err(malformed);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(malformed.clone())?;
        let body = format!("{text}\n");
        let checkpoint = Self::parse(text).filter(|checkpoint| checkpoint.body() == body).ok_or(malformed.clone())?;
        let lines = signatures.strip_suffix('\n').ok_or(malformed.clone())?;
        let id = key_id(&checkpoint.origin, public);
        let mut verdict = None;
        for (count, line) in lines.split('\n').enumerate() {
            let (name, key, signature) = signature_line(line).filter(|_| count < MAX_SIGNATURES).ok_or(malformed.clone())?;
            if verdict.is_none() && name == checkpoint.origin.0 && key == id {
                let signature = signature.try_into().map_err(|_| BlockError::NotAuthentic { what: WHAT })?;
                verdict = Some(public.verify_bare(body.as_bytes(), &signature, WHAT));
            }
        }
        verdict.unwrap_or(Err(BlockError::NotAuthentic { what: WHAT })).map(|()| checkpoint)
    }

    /// One statement has one text, which the caller compares: extension lines and unusual numbers are refused.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let origin = KeyName::new(lines.next()?).ok()?;
        let size = lines.next()?.parse().ok()?;
        let root = Hash32::from_bytes(BASE64.decode(lines.next()?).ok()?.try_into().ok()?);
        (size > 0 || root == empty_root()).then_some(Self { origin, size, root })
    }
}

/// Newlines are the only control characters of a note: no carriage return, no zero byte.
fn has_control(note: &str) -> bool {
    note.chars().any(|c| c < ' ' && c != '\n')
}

/// Who a report says it was signed by: the name in its signature line, of which nothing is believed before [`open_report`] checked it.
pub fn claimed_signer(note: &str) -> Option<KeyName> {
    let (_, line) = note.rsplit_once("\n\n")?;
    KeyName::new(line.strip_suffix('\n').and_then(signature_line)?.0).ok()
}

/// Name, key id and signature of one line `— name base64(key id ‖ signature)`.
fn signature_line(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, blob) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    KeyName::new(name).ok()?;
    let blob = BASE64.decode(blob).ok()?;
    let (key, signature) = blob.split_first_chunk::<4>()?;
    (!signature.is_empty()).then(|| (name, *key, signature.to_vec()))
}
