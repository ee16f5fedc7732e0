//! Signals: the first one cancels in order, the second one leaves at once.

use std::sync::Arc;

use kmt_reporters::event::{Event, EventSink};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whoever may cancel the run.
#[derive(Clone)]
pub(super) struct Cancel {
    asked: Arc<watch::Sender<bool>>,
    sink: Arc<dyn EventSink>,
}

impl Cancel {
    /// Cancels in order; asked again, leaves at once.
    pub(super) fn request(&self, by: &str) {
        if self.asked.send_replace(true) {
            leave(by);
        }
        self.sink.emit(Event::CancelRequested { by: by.to_owned() });
    }
}

/// Listens for SIGINT, SIGTERM and SIGHUP. The receiver turns true at the first one.
pub(super) fn listen(sink: Arc<dyn EventSink>) -> (Cancel, watch::Receiver<bool>) {
    let (asked, cancelled) = watch::channel(false);
    let cancel = Cancel { asked: Arc::new(asked), sink };
    let kinds = [
        ("SIGINT", SignalKind::interrupt()),
        ("SIGTERM", SignalKind::terminate()),
        ("SIGHUP", SignalKind::hangup()),
    ];
    for (name, kind) in kinds {
        let cancel = cancel.clone();
        tokio::spawn(async move {
            // A process that may not listen dies by the signal, as if it had not asked.
            let Ok(mut signals) = signal(kind) else { return };
            while signals.recv().await.is_some() {
                cancel.request(name);
            }
        });
    }
    (cancel, cancelled)
}

#[expect(clippy::exit, reason = "the second signal asks for just this")]
fn leave(name: &str) {
    super::keys::give_back();
    super::say(&format!(
        "asked a second time ({name}): leaving at once; machines that were being made may be left"
    ));
    super::say("hint: the next kmt-run command removes them, or `kmt-run stack gc`");
    std::process::exit(130);
}
