//! From published images to a generation in use.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::super::build::{Tell, blocking};
use super::super::error::ImageError;
use super::super::manifest::{FileRecord, write_whole};
use super::super::objects::Objects;
use super::super::store::{ImageProgress, ImageStore};
use super::download::download;
use super::generation::{Entry, Generation, Generations, hold};
use super::sum::{self, Facts};
use super::{Published, change, unpack};
use crate::external::Class;

/// Files on their way at once.
const PARALLEL: usize = 4;
/// A packed image becomes about so many times as large.
const GROWTH: u64 = 4;

/// What an update did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated {
    /// Number of the generation in use.
    pub generation: u32,
    /// Images that are new or other ones.
    pub changed: Vec<String>,
    /// Images that were what is published.
    pub same: Vec<String>,
}

/// Where an update works.
struct Work<'a> {
    store: &'a ImageStore,
    downloads: PathBuf,
    tell: Tell<'a>,
}

impl ImageStore {
    /// Brings these images to what is published now: all of them, or none.
    ///
    /// # Errors
    /// One cannot be had whole; the images in use stay in use.
    pub async fn update(&self, wanted: &[Published], tell: Tell<'_>) -> Result<Updated, ImageError> {
        let generations = Generations::new(self.folder());
        let waiting = || tell(ImageProgress::Waiting { part: "images".to_owned() });
        let _lock = generations.lock(waiting).await?;
        let mut next = generations.next()?;
        let stale = self.work(tell).stale(wanted, &next).await?;
        let same = wanted.iter().filter(|w| !stale.iter().any(|(s, _)| s.name == w.name));
        let same = same.map(|wanted| wanted.name.clone()).collect();
        if stale.is_empty() {
            return Ok(Updated { generation: next.before.unwrap_or(0), changed: Vec::new(), same });
        }
        let changed = self.work(tell).fetch(&stale).await?;
        let names: Vec<String> = changed.iter().map(|(name, _)| name.clone()).collect();
        next.images.extend(changed);
        generations.write(&next)?;
        generations.switch(next.number)?;
        self.forget_kernels(&names)?;
        Ok(Updated { generation: next.number, changed: names, same })
    }

    /// The image that is in use; where none of this name is, it is fetched and added to the generation in use.
    ///
    /// # Errors
    /// It cannot be had whole.
    pub(in crate::image) async fn published(
        &self,
        wanted: &Published,
        tell: Tell<'_>,
    ) -> Result<Entry, ImageError> {
        if let Some(entry) = self.in_use(wanted, tell).await? {
            return Ok(entry);
        }
        let sum = self.work(tell).sum(wanted).await?;
        let mut fetched = self.work(tell).fetch(&[(wanted.clone(), sum)]).await?;
        let (name, entry) = fetched.remove(0);
        let generations = Generations::new(self.folder());
        let _lock = generations.lock(|| ()).await?;
        let mut generation = match generations.current()? {
            Some(current) => current,
            None => generations.next()?,
        };
        generation.images.insert(name, entry.clone());
        generations.write(&generation)?;
        generations.switch(generation.number)?;
        Ok(entry)
    }

    /// The entry of an image, if its file is right; a damaged one is told and taken as missing.
    async fn in_use(&self, wanted: &Published, tell: Tell<'_>) -> Result<Option<Entry>, ImageError> {
        let entry =
            Generations::new(self.folder()).current()?.and_then(|mut g| g.images.remove(&wanted.name));
        let Some(entry) = entry else { return Ok(None) };
        let warn = |text: String| tell(ImageProgress::Warned { part: wanted.name.clone(), text });
        let (objects, file) = (Objects::new(self.folder()), entry.file.clone());
        if let Err(error) = blocking(move || objects.check(&file)).await {
            warn(format!("{error}: it is fetched again"));
            return Ok(None);
        }
        if entry.url != wanted.url {
            warn(format!(
                "it is not the one that the catalogue names: `kmt-run images update {}` fetches that",
                wanted.name
            ));
        }
        Ok(Some(entry))
    }

    fn work<'a>(&'a self, tell: Tell<'a>) -> Work<'a> {
        Work { store: self, downloads: self.cache().join("downloads"), tell }
    }

    /// The generation in use, where there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn generation(&self) -> Result<Option<Generation>, ImageError> {
        Generations::new(self.folder()).current()
    }

    /// Has the generation before the one in use in use again; returns both.
    ///
    /// # Errors
    /// There is none before it.
    pub async fn revert(&self) -> Result<(Generation, Generation), ImageError> {
        let generations = Generations::new(self.folder());
        let _lock = generations.lock(|| ()).await?;
        let (from, to) = generations.revert()?;
        let other =
            |(name, entry): (&String, &Entry)| (to.images.get(name) != Some(entry)).then(|| name.clone());
        self.forget_kernels(&from.images.iter().filter_map(other).collect::<Vec<_>>())?;
        Ok((from, to))
    }

    /// Kernels that were made of an archive which is another one now are made again when they are needed.
    fn forget_kernels(&self, changed: &[String]) -> Result<(), ImageError> {
        for manifest in self.list()? {
            let archive = manifest.inputs["package"]["archive"].as_str().unwrap_or_default();
            let arch = manifest.inputs["arch"].as_str().unwrap_or_default();
            if !archive.is_empty() && changed.contains(&format!("kernel-packages-{arch}")) {
                let file = self.folder().join(format!(
                    "{}-{}-{}.json",
                    manifest.kind.as_str(),
                    manifest.name,
                    &manifest.key[..12]
                ));
                fs::remove_file(&file).map_err(ImageError::io("remove", &file))?;
            }
        }
        Ok(())
    }
}

impl Work<'_> {
    fn step(&self, wanted: &Published, step: &'static str) {
        (self.tell)(ImageProgress::Step { part: wanted.name.clone(), step });
    }

    /// What is published of an image, by its sum.
    async fn sum(&self, wanted: &Published) -> Result<String, ImageError> {
        let text = self.store.published_files().text(&wanted.sum).await;
        let text = text
            .map_err(|source| ImageError::Fetch { image: wanted.name.clone(), source: Box::new(source) })?;
        let file = wanted.url.rsplit('/').next().unwrap_or(&wanted.url);
        sum::parse(&text, file).map_err(|detail| ImageError::Published {
            image: wanted.name.clone(),
            detail: format!("its sum `{}` is none: {detail}", wanted.sum),
        })
    }

    /// Those that are not here as they are published, with their sums.
    async fn stale(
        &self,
        wanted: &[Published],
        generation: &Generation,
    ) -> Result<Vec<(Published, String)>, ImageError> {
        let asked = wanted.iter().map(|wanted| async move {
            let sum = self.sum(wanted).await?;
            let known = generation.images.get(&wanted.name).filter(|entry| entry.sum == sum);
            let Some(file) = known.map(|entry| entry.file.clone()) else {
                return Ok(Some((wanted.clone(), sum)));
            };
            let objects = Objects::new(self.store.folder());
            let right = blocking(move || objects.check(&file)).await.is_ok();
            Ok((!right).then(|| (wanted.clone(), sum)))
        });
        let asked: Vec<Option<_>> = stream::iter(asked).buffered(PARALLEL).try_collect().await?;
        Ok(asked.into_iter().flatten().collect())
    }

    /// Fetches and unpacks; the first that fails ends the others.
    async fn fetch(&self, stale: &[(Published, String)]) -> Result<Vec<(String, Entry)>, ImageError> {
        for folder in [self.store.folder(), &self.downloads] {
            fs::create_dir_all(folder).map_err(ImageError::io("make", folder))?;
        }
        self.room(stale).await?;
        // Two that are published as one file share it: the second finds it done.
        let mut sums = std::collections::BTreeSet::new();
        let (first, again): (Vec<_>, Vec<_>) = stale.iter().partition(|(_, sum)| sums.insert(sum));
        let mut all: Vec<(String, Entry)> =
            stream::iter(first.iter().map(|one| self.named(one))).buffered(PARALLEL).try_collect().await?;
        for one in &again {
            all.push(self.named(one).await?);
        }
        Ok(all)
    }

    async fn named(&self, (wanted, sum): &(Published, String)) -> Result<(String, Entry), ImageError> {
        Ok((wanted.name.clone(), self.one(wanted, sum).await?))
    }

    /// Whether there is room for all of them, before the first byte.
    async fn room(&self, stale: &[(Published, String)]) -> Result<(), ImageError> {
        let sizes = stale.iter().map(|(wanted, _)| async move {
            let size = self.store.published_files().size(&wanted.url).await;
            let size = size
                .map_err(|source| ImageError::Fetch { image: wanted.name.clone(), source: Box::new(source) });
            // Who does not say how large a file is may still send it.
            Ok::<u64, ImageError>(size?.unwrap_or(0))
        });
        let sizes: Vec<u64> = stream::iter(sizes).buffered(PARALLEL).try_collect().await?;
        let needed = sizes.iter().sum::<u64>() * (1 + GROWTH);
        super::super::build::room(self.store.folder(), needed)
    }

    async fn one(&self, wanted: &Published, sum: &str) -> Result<Entry, ImageError> {
        let waiting = || (self.tell)(ImageProgress::Waiting { part: wanted.name.clone() });
        // Whoever else wants this very file waits, and finds it done.
        let _claim = hold(&self.downloads.join(format!("{sum}.lock")), waiting).await?;
        let facts = self.facts(wanted).await?;
        let done = self.downloads.join(format!("{sum}.done"));
        let known = fs::read(&done).ok().and_then(|text| serde_json::from_slice::<FileRecord>(&text).ok());
        let objects = Objects::new(self.store.folder());
        let file = match known.filter(|file| objects.looks_right(file)) {
            Some(file) => file,
            None => {
                let last = std::sync::atomic::AtomicU64::new(0);
                let heard = |there: u64, total: Option<u64>| {
                    // A line for each tenth of what is large.
                    let tenth = total
                        .map_or(there >> 26, |total| if total >> 20 == 0 { 0 } else { there * 10 / total });
                    if last.fetch_max(tenth, std::sync::atomic::Ordering::Relaxed) < tenth {
                        (self.tell)(ImageProgress::Fetching {
                            part: wanted.name.clone(),
                            done: there,
                            total,
                        });
                    }
                };
                let packed =
                    download(self.store.published_files(), wanted, sum, &self.downloads, &heard).await?;
                self.step(wanted, "unpack");
                let file = self.unpacked(wanted, sum, packed.clone()).await?;
                // An update that is interrupted later does not fetch this one again.
                change("done", || write_whole(&done, &serde_json::to_vec(&file).unwrap_or_default()))?;
                fs::remove_file(&packed).map_err(ImageError::io("remove", &packed))?;
                file
            }
        };
        Ok(Entry { url: wanted.url.clone(), sum: sum.to_owned(), file, facts })
    }

    /// What its manifest says; one that is not there says nothing.
    async fn facts(&self, wanted: &Published) -> Result<Facts, ImageError> {
        let Some(url) = &wanted.manifest else { return Ok(Facts::default()) };
        let facts = match self.store.published_files().text(url).await {
            Ok(text) => Facts::parse(&text),
            Err(error) if matches!(error.class, Class::NotFound | Class::Denied) => Facts::default(),
            Err(source) => {
                return Err(ImageError::Fetch { image: wanted.name.clone(), source: Box::new(source) });
            }
        };
        match facts.contradicts(wanted.arch) {
            Some(said) => Err(ImageError::Published {
                image: wanted.name.clone(),
                detail: format!("its manifest says that it is for `{said}`"),
            }),
            None => Ok(facts),
        }
    }

    async fn unpacked(
        &self,
        wanted: &Published,
        sum: &str,
        packed: PathBuf,
    ) -> Result<FileRecord, ImageError> {
        let (images, wanted) = (self.store.folder().to_owned(), wanted.clone());
        let target = images.join("work").join(format!("published-{}", &sum[..16]));
        blocking(move || {
            let folder = target.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(ImageError::io("make", folder))?;
            let unpacked = unpack(&packed, &target).map_err(|error| refused(&wanted, &target, error));
            let taken =
                unpacked.and_then(|_| change("object", || Objects::new(&images).take(&target, "disk")));
            let _ = fs::remove_file(&target);
            taken
        })
        .await
    }
}

/// Why a file could not be unpacked: it is none, or there is no room.
fn refused(wanted: &Published, target: &Path, error: std::io::Error) -> ImageError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof | Other => ImageError::Published {
            image: wanted.name.clone(),
            detail: format!("what lies at `{}` cannot be unpacked: {error}", wanted.url),
        },
        _ => ImageError::io("unpack", target)(error),
    }
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
