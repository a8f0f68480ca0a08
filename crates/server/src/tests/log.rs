//! What the process logs, for whoever wants to read it.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;

thread_local! {
    /// What this thread logged since it began to listen.
    static HEARD: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

struct Ear;

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        HEARD.with_borrow_mut(|heard| heard.as_mut().map(|heard| heard.extend_from_slice(bytes)));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the process its one subscriber, before anything logs. A thread's own would not do: a place in the code that is first reached on
/// a thread without one is switched off for all threads.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let listening = dynamic_filter_fn(|_, _| HEARD.with_borrow(Option::is_some));
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Ear).with_filter(listening);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    });
}

/// From here on everything that this thread logs is kept, at every level.
pub(super) fn listen() {
    HEARD.set(Some(Vec::new()));
}

/// What was kept.
pub(super) fn heard() -> String {
    String::from_utf8(HEARD.take().unwrap()).unwrap()
}
