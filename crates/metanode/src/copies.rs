//! A copy of the keyring on every account, looked after at every start, which is when the master key is at hand.

use diaspore_engine::{Engine, KeyringCopy};

use crate::output::note;
use crate::service::Parts;

/// Puts the keyring on every account that has none, and says what was found. Nothing that fails here keeps the service from serving.
pub(crate) async fn spread(parts: &Parts, engine: &Engine) {
    let copies = match engine.spread_keyring(&parts.master).await {
        Ok(copies) => copies,
        Err(error) => {
            tracing::warn!(%error, "it was not looked at which accounts hold the keyring; the next start does");
            return;
        }
    };
    for (provider, copy) in copies {
        match copy {
            KeyringCopy::Held => {}
            KeyringCopy::Planted => note(&format!("the keyring was copied to {provider}, which had none")),
            KeyringCopy::Spoiled => note(&format!(
                "warning: the keyring's copy at {provider} does not open: it was altered there. Recovery goes by the other copies; \
                 an account that alters what it stores should be left (storage providers evacuate {provider})"
            )),
            KeyringCopy::Unknown(why) => {
                note(&format!("warning: whether {provider} holds the keyring is not known, the next start looks again: {why}"));
            }
        }
    }
}
