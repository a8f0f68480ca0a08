//! `start --read-only`: what it serves is the state of its disk, however old, and it says so.

use diaspore_engine::Engine;
use diaspore_engine::world::{Clock, SystemClock};

use crate::failure::{Exit, Failure, Outcome};
use crate::operate::duration;
use crate::output::{grouped, note};
use crate::service::engine_failure;

/// Says which state is served. Fails where the disk has none.
pub(crate) fn announce(engine: &Engine) -> Outcome {
    if !engine.is_readable() {
        let why = engine.why_read_only().unwrap_or_default();
        return Err(Failure::new(Exit::Refused, format!("there is nothing here to be read: {why}"))
            .hint("metanode storage distributed start, without --read-only, goes on with it")
            .hint("metanode storage distributed recover"));
    }
    let (seq, written) = engine.ends_at().map_err(engine_failure)?;
    let age = written.map_or_else(
        || "empty".to_owned(),
        |written| format!("its newest entry is {} old", duration(SystemClock.now().0.saturating_sub(written.0))),
    );
    note(&format!("read-only: the state at sequence {}, {age}; what was stored since is not in it", grouped(seq.get())));
    Ok(())
}
