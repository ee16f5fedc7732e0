//! Builds what a request asks for, or takes it from the cache.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kmt_reporters::event::{Event, EventSink};
use tokio::sync::Semaphore;

use super::cache::{self, Cache, Entry, Workshop};
use super::{ArtifactSet, BuildFailure, Log, last, layout, steps};
use crate::external::builder::{BuildRequest, Builder, Lines, Unit};
use crate::external::{Class, Error};

const SYSTEM: &str = "the build cache";

/// Runs the commands of `request`, then builds `units`, which `builder` listed for it, as many at once as there are
/// cores. What was built before from the same content comes out of `cache_dir`; what the tools say goes to `log`. The
/// last event is `BuildFinished` or `BuildFailed`.
pub async fn build(
    request: &BuildRequest,
    units: &[Unit],
    builder: &dyn Builder,
    cache_dir: &Path,
    sink: &dyn EventSink,
    log: &Log,
) -> Result<ArtifactSet, BuildFailure> {
    let began = Instant::now();
    sink.emit(Event::BuildStarted { arch: request.arch });
    match all(request, units, builder, cache_dir, log).await {
        Ok((set, compiled, cached)) => {
            let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            sink.emit(Event::BuildFinished { arch: request.arch, compiled, cached, duration_ms });
            Ok(set)
        }
        Err(failure) => {
            for (subject, error) in &failure.failures {
                let mut message =
                    if error.detail.is_empty() { error.to_string() } else { error.detail.clone() };
                log.line(&format!("{subject}:\n{message}"));
                if let Some(hint) = &error.hint {
                    message.push_str(&format!("\nhint: {hint}"));
                }
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
    log: &Log,
) -> Result<(ArtifactSet, u32, u32), BuildFailure> {
    let lines = |line: &str| log.line(line);
    let commands = steps::carry_out(request, builder, cache_dir, &lines).await;
    let (mut compiled, mut cached) = commands.map_err(|failure| BuildFailure { failures: vec![failure] })?;
    let units = Arc::new(units.to_vec());
    let listed = Arc::clone(&units);
    let keys = blocking("hash the sources", move || cache::keys(&listed)).await?;
    let cache = Cache::new(cache_dir);
    cache.sweep();
    let works = Works { request, builder, cache: &cache };
    let benches = works.together(&units, &keys, &lines).await?;
    let places = Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from));
    let building =
        units.iter().zip(&keys).zip(benches).map(|((unit, key), bench)| works.one(unit, key, bench, &places));
    let results = futures_util::future::join_all(building).await;
    let (mut entries, mut failures) = (Vec::new(), Vec::new());
    for (unit, result) in units.iter().zip(results) {
        match result {
            Ok((entry, made)) => {
                compiled += u32::from(made);
                cached += u32::from(!made);
                entries.push(entry);
            }
            Err(error) => failures.push((unit.name.clone(), error)),
        }
    }
    if !failures.is_empty() {
        return Err(BuildFailure { failures });
    }
    let (request, cache_dir) = (request.clone(), cache_dir.to_owned());
    let set = blocking("read the files to ship", move || {
        let set = layout::lay_out(&request, &units, &entries)?;
        last::keep(&request, &set, &cache_dir)?;
        Ok(set)
    });
    let set = set.await?;
    Ok((set, compiled, cached))
}

/// Who builds what from where.
struct Works<'a> {
    request: &'a BuildRequest,
    builder: &'a dyn Builder,
    cache: &'a Cache,
}

impl Works<'_> {
    /// A workshop for each unit that is not in the cache, with what could be compiled in one go.
    async fn together(
        &self,
        units: &[Unit],
        keys: &[String],
        lines: Lines<'_>,
    ) -> Result<Vec<Option<Workshop>>, BuildFailure> {
        let mut benches = Vec::with_capacity(units.len());
        let mut wanted = Vec::new();
        for (unit, key) in units.iter().zip(keys) {
            let there = unit.made.is_some() || self.cache.get(key).is_some();
            let bench = if there { None } else { Some(self.cache.workshop()) };
            let bench = bench.transpose().map_err(|error| {
                BuildFailure::one(&unit.name, Error::io(SYSTEM, "make room in", &unit.name, &error))
            })?;
            if let Some(bench) = &bench {
                wanted.push((unit.clone(), bench.target()));
            }
            benches.push(bench);
        }
        if wanted.len() > 1 {
            self.builder.compile_together(self.request, &wanted, lines).await;
        }
        Ok(benches)
    }

    /// One unit, and whether it had to be compiled.
    async fn one(
        &self,
        unit: &Unit,
        key: &str,
        bench: Option<Workshop>,
        places: &Semaphore,
    ) -> Result<(Entry, bool), Error> {
        let _place = places.acquire().await;
        let failed = |error: std::io::Error| Error::io(SYSTEM, "keep", &unit.name, &error);
        if let Some(file) = unit.made.clone() {
            let arch = self.request.arch;
            if super::elf::is_elf(&file) && super::elf::architecture(&file) != Some(arch) {
                let words = format!("`{}` is not a binary for {arch}", file.display());
                return Err(Error::new(SYSTEM, "take", &unit.name, Class::Rejected, words));
            }
            let entry = tokio::task::spawn_blocking(move || -> std::io::Result<Entry> {
                let ((digest, size), framing) = (cache::digest(&file)?, super::elf::framing(&file)?);
                Ok(Entry { file, digest, size, framing })
            });
            return entry.await.map_err(std::io::Error::other).flatten().map(|e| (e, false)).map_err(failed);
        }
        let workshop = match (bench, self.cache.get(key)) {
            (None, Some(entry)) => return Ok((entry, false)),
            (Some(bench), _) => bench,
            // It was there a moment ago.
            (None, None) => self.cache.workshop().map_err(failed)?,
        };
        if !workshop.target().is_file() {
            self.builder.compile(self.request, unit, &workshop.target()).await?;
        }
        let (cache, key) = (self.cache.clone(), key.to_owned());
        let entry = tokio::task::spawn_blocking(move || cache.put(&key, workshop));
        entry.await.map_err(std::io::Error::other).flatten().map(|entry| (entry, true)).map_err(failed)
    }
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
