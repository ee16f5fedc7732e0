//! Signals: the first one cancels in order, the second one leaves at once.

use std::sync::Arc;

use kmt_reporters::event::{Event, EventSink};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Listens for SIGINT, SIGTERM and SIGHUP. The receiver turns true at the first one.
pub(super) fn listen(sink: Arc<dyn EventSink>) -> watch::Receiver<bool> {
    let (cancel, cancelled) = watch::channel(false);
    let kinds = [
        ("SIGINT", SignalKind::interrupt()),
        ("SIGTERM", SignalKind::terminate()),
        ("SIGHUP", SignalKind::hangup()),
    ];
    let cancel = Arc::new(cancel);
    for (name, kind) in kinds {
        let (cancel, sink) = (cancel.clone(), sink.clone());
        tokio::spawn(async move {
            // A process that may not listen dies by the signal, as if it had not asked.
            let Ok(mut signals) = signal(kind) else { return };
            while signals.recv().await.is_some() {
                if cancel.send_replace(true) {
                    leave(name);
                }
                sink.emit(Event::CancelRequested { by: name.to_owned() });
            }
        });
    }
    cancelled
}

#[expect(clippy::exit, reason = "the second signal asks for just this")]
fn leave(name: &str) {
    super::say(&format!(
        "second signal ({name}): leaving at once; machines that were being made may be left"
    ));
    super::say("hint: the next kmt-run command removes them, or `kmt-run stack gc`");
    std::process::exit(130);
}
