//! The audit log for outsiders: public parts with inclusion proofs, and the signed statement over all of them.

use diaspore_block::log::{Checkpoint, KeyName};
use diaspore_block::record::RecordKind;

use super::Event;
use crate::api::{Caller, Error, ErrorKind};
use crate::namespace::{local, view};
use crate::shared::Shared;

/// Lines per call at most.
const MAX_LINES: usize = 1000;

/// One leaf of the log. References instead of ids: it can be shown to an outsider.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AuditLine {
    /// Index of the leaf, from 0.
    pub index: u64,
    /// The 128 bytes of the public part, hex: what the leaf hash is over (RFC 6962: SHA-256 of 0x00 and these).
    pub leaf: String,
    /// Kind of the record.
    pub kind: String,
    /// `Done`, `Denied` or `Failed`.
    pub outcome: String,
    /// What the write waited for.
    pub class: String,
    /// Reference to the tenant; nil for the service itself.
    pub tenant: String,
    /// Reference to what it is about.
    pub subject: String,
    /// Reference to who asked.
    pub principal: String,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// SHA-256 over blind and private part, hex.
    pub commitment: String,
    /// Leaves of the tree the proof is for.
    pub tree_size: u64,
    /// Root of that tree, hex.
    pub tree_root: String,
    /// RFC 6962 audit path, hex, leaf to root.
    pub proof: Vec<String>,
}

/// Up to `limit` leaves from `from` on. The export itself is noted in the log.
pub(crate) fn export(shared: &Shared, caller: &Caller, from: u64, limit: usize) -> Result<Vec<AuditLine>, Error> {
    let view = view(shared)?;
    let size = view.log_size().map_err(local)?;
    let root = view.log_root(size).map_err(local)?.to_string();
    let mut lines = Vec::new();
    for (index, public) in (from..size).zip(view.leaves(from, limit.min(MAX_LINES)).map_err(local)?) {
        let proof = view.inclusion_proof(index, size).map_err(local)?;
        let leaf = public.encode().iter().fold(String::new(), |mut text, byte| {
            use std::fmt::Write;
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").ok();
            text
        });
        lines.push(AuditLine {
            index,
            leaf,
            kind: RecordKind::name_of(public.kind.to_u8()),
            outcome: format!("{:?}", public.outcome),
            class: format!("{:?}", public.class),
            tenant: public.tenant.to_string(),
            subject: public.subject.to_string(),
            principal: public.principal.to_string(),
            time_ms: public.time.0,
            commitment: public.commitment.to_string(),
            tree_size: size,
            tree_root: root.clone(),
            proof: proof.path.iter().map(ToString::to_string).collect(),
        });
    }
    if !lines.is_empty() {
        let to = from.saturating_add(lines.len() as u64);
        shared.audit.note(Event::Exported { principal: caller.principal, from, to });
    }
    Ok(lines)
}

/// The signed note. Everything the ledger has applied was released at quorum with the fence held, so this may leave.
pub(crate) fn checkpoint(shared: &Shared) -> Result<String, Error> {
    if !matches!(shared.stage.get(), crate::shared::Stage::Active) {
        return Err(Error::new(ErrorKind::ReadOnly, "no checkpoint leaves a process that does not hold the fence"));
    }
    let view = view(shared)?;
    let size = view.log_size().map_err(local)?;
    let root = view.log_root(size).map_err(local)?;
    let checkpoint = Checkpoint { origin: KeyName::of(shared.deployment()), size, root };
    Ok(checkpoint.sign(&shared.keys.identity))
}
