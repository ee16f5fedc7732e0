//! Images that somebody published: fetched, verified, unpacked, and kept in generations.
//!
//! Owns what lies beside a published image (its sum, its manifest), the way of its bytes into the store, and which set
//! of images is in use. Does not own the connection (`external::store`) nor what a machine makes of an image.
//! To add a packing: a variant of `unpack::Packing`.
//!
//! A **generation** is a list of images: what was published where, and which file of the store it became. One of them is
//! in use. An update writes the next one and then changes the pointer, so that whatever goes wrong before leaves the old
//! one in use, and `revert` is that change backwards.

mod download;
mod generation;
mod sum;
mod unpack;
mod update;

use std::sync::OnceLock;

use kmt_reporters::event::Arch;

pub(super) use generation::Generations;
pub use generation::{Entry, Generation};
pub use sum::Facts;
pub use unpack::unpack;
pub use update::Updated;

use crate::matrix::catalogue::{KernelPackage, Platform, PublishedImage, Source};

/// Hears `before` and `after` of each change of what is kept of published images, and which one; at most one does.
type Listener = Box<dyn Fn(&'static str, &'static str) + Send + Sync>;
static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Has `listener` hear of each change, as `stack::hear_of_writes` does of records.
pub fn hear_of_changes(listener: Listener) {
    let _ = LISTENER.set(listener);
}

/// Makes a change that is heard of.
fn change<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let tell = |when| LISTENER.get().into_iter().for_each(|listener| listener(when, what));
    tell("before");
    let done = work();
    tell("after");
    done
}

/// A file that is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What it is called here: platform and architecture, such as `ubuntu_22.04-x86_64`.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Where its sum is.
    pub sum: String,
    /// Where its manifest is, for an image.
    pub manifest: Option<String>,
    /// Its architecture.
    pub arch: Arch,
}

impl Published {
    /// The image of a platform.
    pub fn image(name: &str, image: &PublishedImage, arch: Arch) -> Published {
        Published {
            name: format!("{name}-{arch}"),
            sum: image.checksum(),
            manifest: Some(manifest_of(&image.url)),
            url: image.url.clone(),
            arch,
        }
    }

    /// The archive that a kernel is in.
    pub fn archive(package: &KernelPackage, arch: Arch) -> Published {
        let stem = package.archive.strip_suffix(".tar").unwrap_or(&package.archive);
        Published {
            name: format!("kernel-packages-{arch}"),
            url: package.archive.clone(),
            sum: format!("{stem}.sum"),
            manifest: None,
            arch,
        }
    }

    /// The published image of a platform, where there is one.
    pub fn of(platform: &Platform, arch: Arch) -> Option<Published> {
        platform.variants.get(&arch)?.sources.iter().find_map(|source| match source {
            Source::Published(image) => Some(Published::image(&platform.id, image, arch)),
            _ => None,
        })
    }
}

/// Beside an image, without its last two endings.
fn manifest_of(url: &str) -> String {
    let (folder, file) = url.rsplit_once('/').unwrap_or(("", url));
    let stem = file.rsplitn(3, '.').last().unwrap_or(file);
    format!("{folder}/{stem}.manifest")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::catalogue::Catalogue;

    #[test]
    fn sums_and_manifests_lie_beside() {
        let catalogue = Catalogue::embedded().unwrap();
        let image = Published::of(catalogue.platform("jammy").unwrap(), Arch::X86_64).unwrap();
        assert!(image.sum.ends_with("/ubuntu-22.04-x86_64.qcow2.xz.sum"), "{}", image.sum);
        assert!(image.manifest.unwrap().ends_with("/ubuntu-22.04-x86_64.manifest"));
        let custom = catalogue.custom("5.4").unwrap().variants[&Arch::Arm64].first().cloned();
        let Some(Source::Package(package)) = custom else { panic!("{custom:?}") };
        let archive = Published::archive(&package, Arch::Arm64);
        assert!(archive.sum.ends_with("/kernel-packages-arm64.sum"), "{}", archive.sum);
        assert_eq!(archive.name, "kernel-packages-arm64");
    }
}
