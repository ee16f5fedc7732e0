//! Building one artefact: alone, in a folder of its own, into the store only when whole.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::ImageError;
use super::manifest::{Manifest, SCHEMA};
use super::objects::Objects;
use super::request::{Kind, Part};
use super::store::ImageProgress;
use super::{kernel, rootfs};
use crate::external;
use crate::external::debian::{DebianTools, Freshness, Package, Suite};

/// Takes what a build tells.
pub(super) type Tell<'a> = &'a (dyn Fn(ImageProgress) + Send + Sync);

/// How long to wait between two looks at a lock that somebody else holds.
const LOOK: Duration = Duration::from_millis(200);

/// Bytes that must be free to build a root filesystem, and a kernel.
const ROOM: (u64, u64) = (1 << 30, 600 << 20);

/// Where a build happens, and with what.
pub(super) struct Site<'a> {
    pub(super) part: &'a Part,
    pub(super) work: PathBuf,
    pub(super) tools: &'a dyn DebianTools,
    tell: Tell<'a>,
    claim: Claim,
}

/// What a build made: files by role, the packages they came from.
pub(super) struct Made {
    pub(super) files: Vec<(&'static str, PathBuf)>,
    pub(super) packages: Vec<Package>,
    pub(super) kernel_release: Option<String>,
}

impl Site<'_> {
    pub(super) fn suite(&self) -> Suite<'_> {
        Suite { source: &self.part.source, arch: self.part.arch }
    }

    pub(super) fn step(&self, step: &'static str) {
        (self.tell)(ImageProgress::Step { part: self.part.slug(), step });
    }

    pub(super) fn said(&self, line: &str) {
        (self.tell)(ImageProgress::Said { part: self.part.slug(), line: line.to_owned() });
    }

    pub(super) fn failed(&self, step: &'static str) -> impl FnOnce(external::Error) -> ImageError + use<> {
        let part = self.part.name.clone();
        move |source| ImageError::Build { part, step, source: Box::new(source) }
    }

    /// Runs what blocks; it keeps the claim until it ends, even where the build was given up.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let claim = self.claim.clone();
        blocking(move || {
            let done = work();
            drop(claim);
            done
        })
        .await
    }

    async fn make(&self) -> Result<Made, ImageError> {
        self.step("read package lists");
        let fresh = self.tools.refresh(self.suite()).await.map_err(self.failed("read package lists"))?;
        if fresh == Freshness::Expired {
            let text = format!(
                "the archive of `{}` is past its date; its entry accepts that",
                self.part.source.suite
            );
            (self.tell)(ImageProgress::Warned { part: self.part.slug(), text });
        }
        match self.part.kind {
            Kind::Rootfs => rootfs::make(self).await,
            Kind::Kernel => kernel::make(self).await,
        }
    }
}

/// Runs what blocks beside the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The right to build one artefact: an advisory lock that ends with its last holder, however that ends.
#[derive(Clone)]
pub(super) struct Claim {
    _file: Arc<File>,
}

/// Waits until nobody else builds `part`; says so once.
pub(super) async fn claim(images: &Path, part: &Part, tell: Tell<'_>) -> Result<Claim, ImageError> {
    let mut told = false;
    loop {
        if let Some(claim) = try_claim(images, &part.slug())? {
            return Ok(claim);
        }
        if !told {
            tell(ImageProgress::Waiting { part: part.slug() });
            told = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn try_claim(images: &Path, slug: &str) -> Result<Option<Claim>, ImageError> {
    let file = images.join("work").join(format!("{slug}.lock"));
    fs::create_dir_all(images.join("work")).map_err(ImageError::io("make", &images.join("work")))?;
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&file);
    let opened = options.map_err(ImageError::io("open", &file))?;
    match opened.try_lock() {
        Ok(()) => Ok(Some(Claim { _file: Arc::new(opened) })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(ImageError::io("lock", &file)(error)),
    }
}

/// Removes work folders that no living builder holds: what an interrupted build left.
pub(super) async fn sweep(images: &Path, tools: &dyn DebianTools) -> Result<(), ImageError> {
    let Ok(listed) = fs::read_dir(images.join("work")) else {
        return Ok(());
    };
    for entry in listed.flatten().filter(|entry| entry.path().is_dir()) {
        let Ok(slug) = entry.file_name().into_string() else {
            continue;
        };
        if let Some(claim) = try_claim(images, &slug)? {
            remove(tools, &entry.path()).await?;
            drop(claim);
        }
    }
    Ok(())
}

/// Clears away what stopped builds of `parts` left, once their last blocking step let go; does not wait long. What
/// remains then, the next build removes.
pub(super) async fn settle(images: &Path, tools: &dyn DebianTools, parts: &[&Part]) {
    for _ in 0..10 {
        let swept = sweep(images, tools).await;
        if swept.is_err() || !parts.iter().any(|part| images.join("work").join(part.slug()).exists()) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes a work folder. Tools that outlived their killed builder may still be writing there for a moment.
async fn remove(tools: &dyn DebianTools, tree: &Path) -> Result<(), ImageError> {
    let mut tries = 0;
    loop {
        match tools.remove(tree).await {
            Ok(()) => return Ok(()),
            Err(_) if tries < 10 => tries += 1,
            Err(source) => {
                let (part, source) = (tree.display().to_string(), Box::new(source));
                return Err(ImageError::Build { part, step: "clean up", source });
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Builds `part`, whose claim is handed over, into the store.
pub(super) async fn build(
    images: &Path,
    tools: &dyn DebianTools,
    part: &Part,
    claim: Claim,
    tell: Tell<'_>,
) -> Result<Manifest, ImageError> {
    tell(ImageProgress::Started { part: part.slug() });
    room(images, if part.kind == Kind::Rootfs { ROOM.0 } else { ROOM.1 })?;
    let work = images.join("work").join(part.slug());
    remove(tools, &work).await?;
    fs::create_dir_all(&work).map_err(ImageError::io("make", &work))?;
    let site = Site { part, work, tools, tell, claim };
    let made = match site.make().await {
        Ok(made) => store(images, &site, made).await,
        Err(error) => Err(error),
    };
    // A build that failed says why, not that its leftovers could not be removed: the next one sweeps them.
    let cleaned = remove(tools, &site.work).await;
    let manifest = made?;
    cleaned?;
    tell(ImageProgress::Finished { part: part.slug() });
    Ok(manifest)
}

async fn store(images: &Path, site: &Site<'_>, made: Made) -> Result<Manifest, ImageError> {
    site.step("store");
    let (images, part) = (images.to_owned(), site.part.clone());
    site.blocking(move || {
        let objects = Objects::new(&images);
        let mut manifest = Manifest {
            schema: SCHEMA,
            kind: part.kind,
            name: part.name.clone(),
            key: part.key.clone(),
            inputs: part.inputs.clone(),
            packages: made.packages,
            kernel_release: made.kernel_release,
            files: std::collections::BTreeMap::new(),
        };
        for (role, file) in made.files {
            let ending = if file.extension().is_some() { format!("{role}.ext4") } else { role.to_owned() };
            manifest.files.insert(role.to_owned(), objects.take(&file, &ending)?);
        }
        manifest.write(&images, &part)?;
        Ok(manifest)
    })
    .await
}

/// Whether there is room for so many bytes.
pub(super) fn room(images: &Path, needed: u64) -> Result<(), ImageError> {
    let found =
        rustix::fs::statvfs(images).map_err(|error| ImageError::io("measure", images)(error.into()))?;
    let free = found.f_bavail * found.f_frsize;
    if free < needed { Err(ImageError::DiskFull { folder: images.to_owned(), needed, free }) } else { Ok(()) }
}
