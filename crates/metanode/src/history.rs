//! `data/history.json`: what the service counted in the last two days, so that "the last 24 hours" outlive a restart.
//!
//! Counts only, nothing secret and nothing that is needed: a file that cannot be read or written costs a warning.

use std::time::Duration;

use diaspore_engine::{Engine, History};

use crate::home::Home;
use crate::secret;

/// What a crash loses at most.
const EVERY: Duration = Duration::from_mins(1);

/// What an earlier run left.
pub(crate) fn load(home: &Home) -> History {
    let path = home.history();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return History::default(),
        Err(error) => {
            tracing::warn!(%error, "the counts of the last days cannot be read; they start anew");
            return History::default();
        }
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "the counts of the last days are damaged; they start anew");
        History::default()
    })
}

/// Leaves it for the next run.
pub(crate) fn save(home: &Home, engine: &Engine) {
    let saved = serde_json::to_vec(&engine.history()).map_err(|error| error.to_string());
    let saved = saved.and_then(|bytes| secret::replace_private(&home.history(), &bytes).map_err(|failure| failure.message));
    if let Err(why) = saved {
        tracing::warn!(why, "the counts of the last days were not kept");
    }
}

/// Saves again and again, for as long as it is polled.
pub(crate) async fn keep(home: &Home, engine: &Engine) {
    loop {
        tokio::time::sleep(EVERY).await;
        save(home, engine);
    }
}
