//! Images that several machines wait for: each is looked for, and made, once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kmt_reporters::event::{Event, EventSink};
use tokio::sync::OnceCell;

use super::{ImageProgress, ImageRequest, ImageStore, LocalImage};
use crate::error::{Failure, Result};

/// Images of one command.
pub struct SharedImages<'a> {
    store: &'a ImageStore,
    made: BTreeMap<String, OnceCell<LocalImage>>,
}

impl<'a> SharedImages<'a> {
    /// These images of `store`; several machines may want the same one.
    pub fn new<'r>(
        store: &'a ImageStore,
        requests: impl IntoIterator<Item = &'r ImageRequest>,
    ) -> SharedImages<'a> {
        let made = requests.into_iter().map(|request| (request.to_string(), OnceCell::new())).collect();
        SharedImages { store, made }
    }

    /// The verified image; the first one who asks makes it where it is missing, and the others wait.
    ///
    /// # Errors
    /// It cannot be had; whoever asks next tries again.
    pub async fn get(&self, request: &ImageRequest, sink: &dyn EventSink) -> Result<LocalImage> {
        let name = request.to_string();
        let made = self.made.get(&name).ok_or_else(|| Failure::usage(format!("no image `{name}`")))?;
        let begun = Instant::now();
        let image = made.get_or_try_init(|| async {
            let cached = AtomicBool::new(true);
            let progress = |progress: ImageProgress| {
                cached.store(false, Ordering::Relaxed);
                sink.emit(fact(&name, &progress));
            };
            let image = self.store.ensure(request, &progress).await?;
            sink.emit(Event::ImageReady {
                image: name.clone(),
                digest: image.rootfs_digest.clone(),
                cached: cached.into_inner(),
                duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            });
            Ok::<_, Failure>(image)
        });
        image.await.cloned()
    }
}

/// What getting an image tells, as a fact.
fn fact(name: &str, progress: &ImageProgress) -> Event {
    match progress {
        ImageProgress::Fetching { done, total, .. } => {
            Event::Progress { subject: format!("image {name}"), done: *done, total: *total }
        }
        ImageProgress::Warned { .. } => Event::Warning { subject: name.to_owned(), message: progress.line() },
        _ => Event::Progress { subject: format!("image {}", progress.line()), done: 0, total: None },
    }
}
