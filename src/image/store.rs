//! The image store: what is there, what can be built, and the way from a request to files that are right.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kmt_reporters::event::Arch;

use super::build::{self, Tell, blocking};
use super::error::ImageError;
use super::manifest::{FileRecord, Manifest};
use super::objects::Objects;
use super::published::{Entry, Published};
use super::request::{ImageRequest, Part};
use crate::external::debian::DebianTools;
use crate::external::store::Store;

/// Images on this machine, and how to get more.
#[derive(Clone)]
pub struct ImageStore {
    images: PathBuf,
    cache: PathBuf,
    tools: Arc<dyn DebianTools>,
    published: Arc<dyn Store>,
}

/// Whether an image can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It lies in the store.
    Present,
    /// It can be built here.
    Buildable,
    /// It is published, and fetched when it is needed.
    Fetchable,
    /// It cannot be had: why, and what helps.
    Unavailable {
        /// Why.
        why: String,
        /// The command that helps, where one does.
        hint: Option<String>,
    },
}

/// Which files are hashed when images are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// Those that are not as they were when they were hashed last, by size and times.
    Changed,
    /// All of them, whatever is remembered.
    All,
}

/// What getting an image tells. `part` names the artefact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageProgress {
    /// Another process builds it; this one waits.
    Waiting {
        /// The artefact.
        part: String,
    },
    /// A build began.
    Started {
        /// The artefact.
        part: String,
    },
    /// A build reached a step.
    Step {
        /// The artefact.
        part: String,
        /// The step.
        step: &'static str,
    },
    /// A tool said something while it worked.
    Said {
        /// The artefact.
        part: String,
        /// The line.
        line: String,
    },
    /// A published file is on its way.
    Fetching {
        /// The image.
        part: String,
        /// Bytes that are there.
        done: u64,
        /// Bytes of all of it, where the server says so.
        total: Option<u64>,
    },
    /// Something the user should know, and the work goes on.
    Warned {
        /// The artefact.
        part: String,
        /// What.
        text: String,
    },
    /// A build ended well.
    Finished {
        /// The artefact.
        part: String,
    },
}

impl ImageProgress {
    /// What it says, in one line.
    pub fn line(&self) -> String {
        match self {
            ImageProgress::Waiting { part } => format!("{part}: another process builds it"),
            ImageProgress::Started { part } => format!("{part}: building"),
            ImageProgress::Step { part, step } => format!("{part}: {step}"),
            ImageProgress::Said { part, line } => format!("{part}: {line}"),
            ImageProgress::Fetching { part, done, total } => match total {
                Some(total) => format!("{part}: fetched {} of {} MiB", done >> 20, total >> 20),
                None => format!("{part}: fetched {} MiB", done >> 20),
            },
            ImageProgress::Warned { part, text } => format!("{part}: {text}"),
            ImageProgress::Finished { part } => format!("{part}: built"),
        }
    }
}

/// An image on this machine, verified: the files a machine boots from. They are read-only and stay so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// Its name, such as `debian_12/x86_64`.
    pub name: String,
    /// Its architecture.
    pub arch: Arch,
    /// The first disk: a root filesystem as a raw ext4 without a partition table, or the disk of a whole machine.
    pub rootfs: PathBuf,
    /// SHA-256 of the root filesystem.
    pub rootfs_digest: String,
    /// What QEMU boots; none where the disk boots by itself.
    pub direct: Option<DirectBoot>,
    /// `/lib/modules/<release>` as a raw ext4; the second disk, read-only.
    pub modules: Option<PathBuf>,
    /// What `uname -r` says.
    pub kernel_release: String,
    /// Words of the kernel's command line.
    pub cmdline: Vec<String>,
}

/// A kernel that is booted without the help of its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectBoot {
    /// The kernel, as QEMU boots it.
    pub kernel: PathBuf,
    /// The initrd; a machine's identity (`identity_cpio`) is appended to a copy of it.
    pub initrd: PathBuf,
}

impl ImageStore {
    /// A store in `images`; downloads lie in `cache`; what is published comes from `published`.
    pub fn new(
        images: impl Into<PathBuf>,
        cache: impl Into<PathBuf>,
        tools: Arc<dyn DebianTools>,
        published: Arc<dyn Store>,
    ) -> ImageStore {
        ImageStore { images: images.into(), cache: cache.into(), tools, published }
    }

    /// Whether an image is there or can be built. Looks at names and sizes; `ensure` looks at content.
    pub fn available(&self, request: &ImageRequest) -> Availability {
        if let Some(published) = request.published() {
            return if self.has(published) { Availability::Present } else { Availability::Fetchable };
        }
        let parts = match request.parts() {
            Ok(parts) => parts,
            Err(why) => return Availability::Unavailable { why, hint: None },
        };
        let objects = Objects::new(&self.images);
        let whole = |part: &Part| {
            let manifest = Manifest::of(&self.images, part).ok().flatten();
            manifest.is_some_and(|manifest| manifest.files.values().all(|file| objects.looks_right(file)))
        };
        if parts.iter().all(whole) {
            return Availability::Present;
        }
        match self.tools.ready(request.arch()) {
            Ok(()) if request.archive().is_some_and(|archive| !self.has(archive)) => Availability::Fetchable,
            Ok(()) => Availability::Buildable,
            Err(error) => Availability::Unavailable { why: error.to_string(), hint: error.hint },
        }
    }

    /// Whether a published file is in use here. Looks at its size alone.
    fn has(&self, published: &Published) -> bool {
        let generation = self.generation().ok().flatten();
        let entry = generation.as_ref().and_then(|generation| generation.images.get(&published.name));
        entry.is_some_and(|entry| Objects::new(&self.images).looks_right(&entry.file))
    }

    /// The image, verified; built or fetched first where it is missing or damaged.
    pub async fn ensure(&self, request: &ImageRequest, progress: Tell<'_>) -> Result<LocalImage, ImageError> {
        self.get(request, Wish::Have, progress).await
    }

    /// The image, built again from today's packages.
    pub async fn rebuild(
        &self,
        request: &ImageRequest,
        progress: Tell<'_>,
    ) -> Result<LocalImage, ImageError> {
        self.get(request, Wish::Again, progress).await
    }

    async fn get(
        &self,
        request: &ImageRequest,
        wish: Wish,
        tell: Tell<'_>,
    ) -> Result<LocalImage, ImageError> {
        if let Some(published) = request.published() {
            if wish == Wish::Again {
                self.update(std::slice::from_ref(published), tell).await?;
            }
            let entry = self.published(published, tell).await?;
            return Ok(self.disk(request, &entry));
        }
        let unavailable = |why| ImageError::Unavailable { image: request.to_string(), why, hint: None };
        let [rootfs, mut kernel] = request.parts().map_err(unavailable)?;
        for folder in [&self.images, &self.cache] {
            fs::create_dir_all(folder).map_err(ImageError::io("make", folder))?;
        }
        if let Some(archive) = request.archive()
            && (wish == Wish::Again || self.sound(&kernel, &|_| ()).await.is_none())
        {
            let entry = self.published(archive, tell).await?;
            kernel.archive = Some(Objects::new(&self.images).path(&entry.file));
        }
        let both = tokio::try_join!(
            self.artefact(request, &rootfs, wish, tell),
            self.artefact(request, &kernel, wish, tell)
        );
        if both.is_err() {
            // The other of the two was stopped halfway.
            build::settle(&self.images, &*self.tools, &[&rootfs, &kernel]).await;
        }
        let (rootfs, kernel) = both?;
        self.image(request, &rootfs, &kernel)
    }

    async fn artefact(
        &self,
        request: &ImageRequest,
        part: &Part,
        wish: Wish,
        tell: Tell<'_>,
    ) -> Result<Manifest, ImageError> {
        if let (Wish::Have, Some(manifest)) = (wish, self.sound(part, tell).await) {
            return Ok(manifest);
        }
        self.tools.ready(request.arch()).map_err(|error| ImageError::Unavailable {
            image: request.to_string(),
            why: error.to_string(),
            hint: error.hint,
        })?;
        let claim = build::claim(&self.images, part, tell).await?;
        // Somebody else may have built it while this one waited.
        if let (Wish::Have, Some(manifest)) = (wish, self.sound(part, &|_| ()).await) {
            return Ok(manifest);
        }
        build::sweep(&self.images, &*self.tools).await?;
        build::build(&self.images, &*self.tools, part, claim, tell).await
    }

    /// The manifest of an artefact whose files are all right; a damaged one is told and taken as missing.
    async fn sound(&self, part: &Part, tell: Tell<'_>) -> Option<Manifest> {
        let (images, wanted) = (self.images.clone(), part.clone());
        let checked = blocking(move || {
            let Some(manifest) = Manifest::of(&images, &wanted)? else {
                return Ok(None);
            };
            let objects = Objects::new(&images);
            manifest.files.values().try_for_each(|file| objects.check(file))?;
            Ok(Some(manifest))
        });
        checked.await.unwrap_or_else(|error| {
            tell(ImageProgress::Warned { part: part.slug(), text: format!("{error}: it is built again") });
            None
        })
    }

    /// A published disk as an image.
    fn disk(&self, request: &ImageRequest, entry: &Entry) -> LocalImage {
        LocalImage {
            name: request.to_string(),
            arch: request.arch(),
            rootfs: Objects::new(&self.images).path(&entry.file),
            rootfs_digest: entry.file.sha256.clone(),
            direct: None,
            modules: None,
            kernel_release: entry.facts.kernel().unwrap_or_default().to_owned(),
            cmdline: Vec::new(),
        }
    }

    fn image(
        &self,
        request: &ImageRequest,
        rootfs: &Manifest,
        kernel: &Manifest,
    ) -> Result<LocalImage, ImageError> {
        let objects = Objects::new(&self.images);
        let file = |manifest: &Manifest, role: &str| -> Result<FileRecord, ImageError> {
            manifest.files.get(role).cloned().ok_or_else(|| ImageError::Corrupt {
                file: self.images.join(&manifest.name),
                detail: format!("its record has no `{role}`"),
            })
        };
        let root = file(rootfs, "rootfs")?;
        Ok(LocalImage {
            name: request.to_string(),
            arch: request.arch(),
            rootfs: objects.path(&root),
            rootfs_digest: root.sha256,
            direct: Some(DirectBoot {
                kernel: objects.path(&file(kernel, "vmlinuz")?),
                initrd: objects.path(&file(kernel, "initrd")?),
            }),
            modules: kernel.files.get("modules").map(|record| objects.path(record)),
            kernel_release: kernel.kernel_release.clone().unwrap_or_default(),
            cmdline: cmdline(request.arch()),
        })
    }

    /// The manifests in the store, by name; those that cannot be read are left out.
    pub fn list(&self) -> Result<Vec<Manifest>, ImageError> {
        let Ok(listed) = fs::read_dir(&self.images) else {
            return Ok(Vec::new());
        };
        let files = listed.flatten().map(|entry| entry.path());
        let mut all: Vec<Manifest> = files
            .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
            .filter_map(|file| Manifest::read(&file).ok().flatten())
            .collect();
        all.sort_by(|a, b| (&a.name, a.kind.as_str(), &a.key).cmp(&(&b.name, b.kind.as_str(), &b.key)));
        Ok(all)
    }

    /// Looks whether every file of an artefact is what was built.
    pub async fn verify(&self, manifest: &Manifest, hashing: Hashing) -> Result<(), ImageError> {
        let (images, files) = (self.images.clone(), manifest.files.clone());
        blocking(move || {
            let objects = Objects::new(&images);
            files.values().try_for_each(|file| match hashing {
                Hashing::Changed => objects.check(file),
                Hashing::All => objects.check_content(file),
            })
        })
        .await
    }

    /// Removes what interrupted builds left.
    pub async fn sweep(&self) -> Result<(), ImageError> {
        build::sweep(&self.images, &*self.tools).await
    }

    /// Where downloads lie.
    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Where published files come from.
    pub fn published_files(&self) -> &dyn Store {
        &*self.published
    }

    /// Where the images lie.
    pub fn folder(&self) -> &Path {
        &self.images
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Have,
    Again,
}

/// The command line every image boots with. Kernel messages stay on the console: the cause of a failed boot is
/// read from them.
fn cmdline(arch: Arch) -> Vec<String> {
    let console = match arch {
        Arch::X86_64 => "console=ttyS0",
        Arch::Arm64 => "console=ttyAMA0",
    };
    // A dumb terminal gets no escape sequences, and is not asked for its size.
    let words = [
        console,
        "root=/dev/vda",
        "rw",
        "net.ifnames=0",
        "panic=-1",
        "TERM=dumb",
        "systemd.show_status=false",
    ];
    words.map(str::to_owned).to_vec()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
