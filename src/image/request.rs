//! What is asked for, and the keys of the artefacts that answer it.

use kmt_reporters::event::Arch;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::recipe;
use crate::matrix::catalogue::{CustomKernel, DebianSource, Platform, Source};

/// An image somebody wants: a userland, a kernel, an architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    name: String,
    userland: String,
    kernel_version: String,
    arch: Arch,
    origin: Origin,
}

/// Where it could come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// Built here.
    Debian { rootfs: Box<DebianSource>, kernel: Box<DebianSource> },
    /// Published somewhere.
    Published(String),
    /// The catalogue knows the name, and no place.
    Nowhere,
    /// The catalogue does not have it for this architecture.
    OtherArch,
}

impl ImageRequest {
    /// A platform with its own kernel.
    pub fn platform(platform: &Platform, arch: Arch) -> ImageRequest {
        let origin = platform.variants.get(&arch).map_or(Origin::OtherArch, |variant| {
            let built = variant.sources.iter().find_map(Source::debian);
            built.map_or_else(
                || fetched(&variant.sources),
                |source| {
                    let source = Box::new(source.clone());
                    Origin::Debian { rootfs: source.clone(), kernel: source }
                },
            )
        });
        ImageRequest {
            name: platform.id.clone(),
            userland: platform.id.clone(),
            kernel_version: platform.kernel(arch).unwrap_or_default().to_owned(),
            arch,
            origin,
        }
    }

    /// A custom kernel on the userland of `platform`.
    pub fn custom(kernel: &CustomKernel, platform: &Platform, arch: Arch) -> ImageRequest {
        let variants = (platform.variants.get(&arch), kernel.variants.get(&arch));
        let origin = if let (Some(userland), Some(sources)) = variants {
            let rootfs = userland.sources.iter().find_map(Source::debian);
            match (rootfs, sources.iter().find_map(Source::debian)) {
                (Some(rootfs), Some(kernel)) => {
                    Origin::Debian { rootfs: Box::new(rootfs.clone()), kernel: Box::new(kernel.clone()) }
                }
                (_, None) => fetched(sources),
                (None, _) => fetched(&userland.sources),
            }
        } else {
            Origin::OtherArch
        };
        ImageRequest {
            name: format!("custom-{}", kernel.version),
            userland: platform.id.clone(),
            kernel_version: kernel.version.clone(),
            arch,
            origin,
        }
    }

    /// Its architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Its name without the architecture, such as `debian_12` or `custom-6.12`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is published, for one that is fetched and not built.
    pub fn published(&self) -> Option<&str> {
        match &self.origin {
            Origin::Published(url) => Some(url),
            Origin::Debian { .. } | Origin::Nowhere | Origin::OtherArch => None,
        }
    }

    /// What is to be built for it.
    ///
    /// # Errors
    /// Why it cannot be built here.
    pub(super) fn parts(&self) -> Result<[Part; 2], String> {
        match &self.origin {
            Origin::Debian { rootfs, kernel } => Ok([
                Part::rootfs(&self.userland, rootfs, self.arch),
                Part::kernel(&self.name, &self.kernel_version, kernel, self.arch),
            ]),
            Origin::Published(url) => {
                Err(format!("it is published at {url}, and this version does not fetch images yet"))
            }
            Origin::Nowhere => Err("the catalogue knows no place to get it from".to_owned()),
            Origin::OtherArch => Err(format!("the catalogue does not have it for {}", self.arch)),
        }
    }
}

fn fetched(sources: &[Source]) -> Origin {
    let url = sources.iter().find_map(Source::url);
    url.map_or(Origin::Nowhere, |url| Origin::Published(url.to_owned()))
}

impl std::fmt::Display for ImageRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name, self.arch)
    }
}

/// Which of the two artefacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A root filesystem.
    Rootfs,
    /// A kernel with its initrd and modules.
    Kernel,
}

impl Kind {
    /// As in file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Rootfs => "rootfs",
            Kind::Kernel => "kernel",
        }
    }
}

/// One artefact to be: what it is called, what it is made from, the digest of that.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) arch: Arch,
    pub(super) source: DebianSource,
    pub(super) inputs: serde_json::Value,
    pub(super) key: String,
}

impl Part {
    fn rootfs(name: &str, source: &DebianSource, arch: Arch) -> Part {
        let overlay = digest(format!(
            "{:?}{:?}{:?}{:?}{:?}{:?}",
            recipe::FILES,
            recipe::REMOVED,
            recipe::MASKED,
            recipe::GENERATORS,
            recipe::LINKS,
            recipe::NO_PENALTIES
        ));
        let inputs = serde_json::json!({
            "recipe": recipe::VERSION, "kind": "rootfs", "arch": arch, "suite": source.suite,
            "archives": source.archives, "packages": recipe::PACKAGES, "overlay": overlay,
            "epoch": recipe::EPOCH, "bytes": recipe::ROOTFS_BYTES,
        });
        Part::new(Kind::Rootfs, format!("{name}-{arch}"), source, arch, inputs)
    }

    fn kernel(name: &str, version: &str, source: &DebianSource, arch: Arch) -> Part {
        let inputs = serde_json::json!({
            "recipe": recipe::VERSION, "kind": "kernel", "arch": arch, "suite": source.suite,
            "archives": source.archives, "version": version, "package": source.kernel.get(&arch),
            "busybox": recipe::BUSYBOX, "modules": recipe::INITRD_MODULES, "epoch": recipe::EPOCH,
            "init": digest([recipe::INIT, recipe::DHCP].concat()),
        });
        Part::new(Kind::Kernel, format!("{name}-{arch}"), source, arch, inputs)
    }

    fn new(kind: Kind, name: String, source: &DebianSource, arch: Arch, inputs: serde_json::Value) -> Part {
        let key = digest(inputs.to_string());
        Part { kind, name, arch, source: source.clone(), inputs, key }
    }

    /// The name of its manifest, lock and work folder.
    pub(super) fn slug(&self) -> String {
        format!("{}-{}-{}", self.kind.as_str(), self.name, &self.key[..12])
    }

    /// A UUID that is this artefact's, and the same in every build.
    pub(super) fn uuid(&self) -> String {
        let k = &self.key;
        format!("{}-{}-4{}-8{}-{}", &k[..8], &k[8..12], &k[13..16], &k[17..20], &k[20..32])
    }
}

fn digest(text: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(text.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::catalogue::Catalogue;

    #[test]
    fn a_custom_kernel_shares_the_root_filesystem_of_its_userland() {
        let catalogue = Catalogue::embedded().unwrap();
        let platform = catalogue.platform("bookworm").unwrap();
        let plain = ImageRequest::platform(platform, Arch::X86_64);
        let custom = ImageRequest::custom(catalogue.custom("6.12").unwrap(), platform, Arch::X86_64);
        assert_eq!(custom.to_string(), "custom-6.12/x86_64");
        let (a, b) = (plain.parts().unwrap(), custom.parts().unwrap());
        assert_eq!(a[0].key, b[0].key);
        assert_ne!(a[1].key, b[1].key);
        assert_ne!(ImageRequest::platform(platform, Arch::Arm64).parts().unwrap()[0].key, a[0].key);
    }

    #[test]
    fn what_cannot_be_built_here_says_why() {
        let catalogue = Catalogue::embedded().unwrap();
        let why = |name: &str, arch| {
            ImageRequest::platform(catalogue.platform(name).unwrap(), arch).parts().unwrap_err()
        };
        assert!(why("jammy", Arch::X86_64).contains("ubuntu-22.04-x86_64.qcow2.xz"));
        assert!(why("stretch", Arch::Arm64).contains("not have it for arm64"));
        assert!(why("resolute", Arch::X86_64).contains("no place"));
        let place = |name: &str, arch| {
            let request = ImageRequest::platform(catalogue.platform(name).unwrap(), arch);
            request.published().map(str::to_owned)
        };
        assert!(place("jammy", Arch::X86_64).unwrap().ends_with("ubuntu-22.04-x86_64.qcow2.xz"));
        assert_eq!([place("resolute", Arch::X86_64), place("stretch", Arch::Arm64)], [None, None]);
        assert_eq!(place("bookworm", Arch::X86_64), None);
        let (old, buster) = (catalogue.custom("4.14").unwrap(), catalogue.platform("debian_10").unwrap());
        let old = ImageRequest::custom(old, buster, Arch::X86_64).parts().unwrap_err();
        assert!(old.contains("kernel-packages-x86_64.tar"), "{old}");
    }

    #[test]
    fn a_uuid_looks_like_one() {
        let catalogue = Catalogue::embedded().unwrap();
        let request = ImageRequest::platform(catalogue.platform("trixie").unwrap(), Arch::X86_64);
        assert!(uuid::Uuid::parse_str(&request.parts().unwrap()[0].uuid()).is_ok());
    }
}
