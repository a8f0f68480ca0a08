//! Authentic bytes this build cannot judge: written by a newer version, or met while a cipher of this build fails.
//!
//! Only bytes that are provably wrong may count as absent (PROTOCOL rule 8). An object that opens under its seal and says that it
//! is newer is the work of this deployment's own writer; to call it absent would let an old build overrule a newer one's log.

use std::sync::{Mutex, PoisonError};

use diaspore_block::BlockError;

use crate::api::{Error, ErrorKind};

/// The first such object, if any was met. Sticky: nothing that is concluded afterwards counts.
#[derive(Debug, Default)]
pub(crate) struct Unjudged(Mutex<Option<(&'static str, BlockError)>>);

impl Unjudged {
    /// Whether `error` says that the bytes are wrong. What says anything else is kept, and refuses the start.
    pub(crate) fn are_wrong(&self, what: &'static str, error: BlockError) -> bool {
        if error.is_integrity() {
            return true;
        }
        tracing::error!(what, %error, "met at a provider, cannot be judged by this build");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((what, error));
        false
    }

    /// Refuses if anything was kept.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((what, error)) => Err(refusal(what, error.clone())),
        }
    }
}

/// The refusal for one object that could not be judged.
pub(crate) fn refusal(what: &str, error: BlockError) -> Error {
    let message = match &error {
        BlockError::Unsupported { version, .. } => {
            format!(
                "a newer version of this software wrote {what} of this deployment (format version {version}): start that version, or a later one"
            )
        }
        _ => format!("{what} could not be judged: this build or machine is not fit for service; start another one"),
    };
    Error::caused(ErrorKind::RefusedState, message, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_that_are_wrong_may_count_as_absent() {
        let kept = Unjudged::default();
        for wrong in [BlockError::Malformed { what: "x" }, BlockError::NotAuthentic { what: "x" }, BlockError::Contradiction { what: "x" }]
        {
            assert!(kept.are_wrong("a shard", wrong));
        }
        kept.check().unwrap();
        assert!(!kept.are_wrong("a shard", BlockError::Unsupported { what: "manifest", version: 2 }));
        assert!(!kept.are_wrong("a shard", BlockError::Engine { what: "cipher" }));
        let refused = kept.check().unwrap_err();
        assert_eq!(refused.kind, ErrorKind::RefusedState);
        assert!(refused.message.contains("newer version") && refused.message.contains("version 2"), "{refused}");
    }
}
