//! Builds what a request asks for, or takes it from the cache.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kmt_reporters::event::{Event, EventSink};
use tokio::sync::Semaphore;

use super::cache::{self, Cache, Entry};
use super::{ArtifactSet, BuildFailure, layout};
use crate::external::builder::{BuildRequest, Builder, Unit};
use crate::external::{Class, Error};

const SYSTEM: &str = "the build cache";

/// Builds `units`, which `builder` listed for `request`, as many at once as there are cores. What was built before
/// from the same content comes out of `cache_dir`. The last event is `BuildFinished` or `BuildFailed`.
pub async fn build(
    request: &BuildRequest,
    units: &[Unit],
    builder: &dyn Builder,
    cache_dir: &Path,
    sink: &dyn EventSink,
) -> Result<ArtifactSet, BuildFailure> {
    let began = Instant::now();
    sink.emit(Event::BuildStarted { arch: request.arch });
    match all(request, units, builder, cache_dir).await {
        Ok((set, compiled, cached)) => {
            let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            sink.emit(Event::BuildFinished { arch: request.arch, compiled, cached, duration_ms });
            Ok(set)
        }
        Err(failure) => {
            for (subject, error) in &failure.failures {
                let message = if error.detail.is_empty() { error.to_string() } else { error.detail.clone() };
                sink.emit(Event::BuildFailed { arch: request.arch, subject: subject.clone(), message });
            }
            Err(failure)
        }
    }
}

/// How many of `units` would come out of the cache, and the bytes of those.
///
/// # Errors
/// A source cannot be read.
pub fn cached(units: &[Unit], cache_dir: &Path) -> std::io::Result<(usize, u64)> {
    let cache = Cache::new(cache_dir);
    let entries: Vec<Entry> = cache::keys(units)?.iter().filter_map(|key| cache.get(key)).collect();
    Ok((entries.len(), entries.iter().map(|entry| entry.size).sum()))
}

async fn all(
    request: &BuildRequest,
    units: &[Unit],
    builder: &dyn Builder,
    cache_dir: &Path,
) -> Result<(ArtifactSet, u32, u32), BuildFailure> {
    let units = Arc::new(units.to_vec());
    let listed = Arc::clone(&units);
    let keys = blocking("hash the sources", move || cache::keys(&listed)).await?;
    let cache = Cache::new(cache_dir);
    cache.sweep();
    let places = Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from));
    let building =
        units.iter().zip(&keys).map(|(unit, key)| one(request, builder, &cache, unit, key, &places));
    let results = futures_util::future::join_all(building).await;
    let (mut entries, mut compiled, mut failures) = (Vec::new(), 0, Vec::new());
    for (unit, result) in units.iter().zip(results) {
        match result {
            Ok((entry, made)) => {
                compiled += u32::from(made);
                entries.push(entry);
            }
            Err(error) => failures.push((unit.name.clone(), error)),
        }
    }
    if !failures.is_empty() {
        return Err(BuildFailure { failures });
    }
    let cached = u32::try_from(entries.len()).unwrap_or(u32::MAX) - compiled;
    let request = request.clone();
    let set = blocking("read the files to ship", move || layout::lay_out(&request, &units, &entries)).await?;
    Ok((set, compiled, cached))
}

/// One unit, and whether it had to be compiled.
async fn one(
    request: &BuildRequest,
    builder: &dyn Builder,
    cache: &Cache,
    unit: &Unit,
    key: &str,
    places: &Semaphore,
) -> Result<(Entry, bool), Error> {
    let _place = places.acquire().await;
    let failed = |error: std::io::Error| Error::io(SYSTEM, "keep", &unit.name, &error);
    if let Some(file) = unit.made.clone() {
        let entry = tokio::task::spawn_blocking(move || -> std::io::Result<Entry> {
            let ((digest, size), framing) = (cache::digest(&file)?, super::elf::framing(&file)?);
            Ok(Entry { file, digest, size, framing })
        });
        return entry.await.map_err(std::io::Error::other).flatten().map(|e| (e, false)).map_err(failed);
    }
    if let Some(entry) = cache.get(key) {
        return Ok((entry, false));
    }
    let workshop = cache.workshop().map_err(failed)?;
    builder.compile(request, unit, &workshop.target()).await?;
    let (cache, key) = (cache.clone(), key.to_owned());
    let entry = tokio::task::spawn_blocking(move || cache.put(&key, workshop));
    entry.await.map_err(std::io::Error::other).flatten().map(|entry| (entry, true)).map_err(failed)
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, BuildFailure> {
    let done = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other).flatten();
    done.map_err(|error| {
        let class = Error::io(SYSTEM, what, "", &error).class;
        let class = if class == Class::Unreachable { Class::Rejected } else { class };
        BuildFailure::one("list", Error::new(SYSTEM, what, "the source tree", class, error))
    })
}
