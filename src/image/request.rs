//! What is asked for, and the keys of the artefacts that answer it.

use kmt_reporters::event::Arch;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::published::Published;
use super::recipe;
use crate::matrix::catalogue::{CustomKernel, DebianSource, GivenKernel, KernelPackage, Platform, Source};

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
    /// Its root filesystem is built here, and its kernel made or taken.
    Parts { rootfs: Box<DebianSource>, kernel: Box<KernelFrom> },
    /// Published as the disk of a whole machine.
    Disk(Box<Published>),
    /// Why it is not to be had.
    Nowhere(String),
    /// The catalogue does not have it for this architecture.
    OtherArch,
}

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KernelFrom {
    /// A package of a suite.
    Suite(DebianSource),
    /// A package, a tree or an archive that somebody has.
    Given(GivenKernel),
    /// An archive within a published one.
    Package { archive: Published, member: String },
}

impl ImageRequest {
    /// A platform with its own kernel.
    pub fn platform(platform: &Platform, arch: Arch) -> ImageRequest {
        let origin = platform.variants.get(&arch).map_or(Origin::OtherArch, |variant| {
            let built = variant.sources.iter().find_map(Source::debian);
            match (built, Published::of(platform, arch)) {
                (Some(source), _) => Origin::Parts {
                    rootfs: Box::new(source.clone()),
                    kernel: Box::new(KernelFrom::Suite(source.clone())),
                },
                (None, Some(disk)) => Origin::Disk(Box::new(disk)),
                (None, None) => Origin::Nowhere("the catalogue knows no place to get it from".to_owned()),
            }
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
            match (rootfs, sources.iter().find_map(|source| kernel_from(source, arch))) {
                (Some(rootfs), Some(kernel)) => {
                    Origin::Parts { rootfs: Box::new(rootfs.clone()), kernel: Box::new(kernel) }
                }
                (_, None) => {
                    Origin::Nowhere("the catalogue knows no place to get this kernel from".to_owned())
                }
                (None, _) => Origin::Nowhere(format!(
                    "its userland `{}` is published as a whole disk, with its own kernel only",
                    platform.id
                )),
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

    /// What is published of it, where it is fetched as a whole and not built.
    pub fn published(&self) -> Option<&Published> {
        match &self.origin {
            Origin::Disk(disk) => Some(disk),
            Origin::Parts { .. } | Origin::Nowhere(_) | Origin::OtherArch => None,
        }
    }

    /// The published archive that its kernel is in.
    pub(super) fn archive(&self) -> Option<&Published> {
        match &self.origin {
            Origin::Parts { kernel, .. } => match &**kernel {
                KernelFrom::Package { archive, .. } => Some(archive),
                KernelFrom::Suite(_) | KernelFrom::Given(_) => None,
            },
            _ => None,
        }
    }

    /// What is fetched for it when it is needed, or again by an update.
    pub fn fetched(&self) -> Option<&Published> {
        self.published().or_else(|| self.archive())
    }

    /// The names under which its parts are recorded.
    pub fn slugs(&self) -> Vec<String> {
        self.parts().map(|parts| parts.iter().map(Part::slug).collect()).unwrap_or_default()
    }

    /// What is to be built for it.
    ///
    /// # Errors
    /// Why it cannot be built here.
    pub(super) fn parts(&self) -> Result<[Part; 2], String> {
        match &self.origin {
            Origin::Parts { rootfs, kernel } => Ok([
                Part::rootfs(&self.userland, rootfs, self.arch),
                Part::kernel(&self.name, &self.kernel_version, kernel, rootfs, self.arch)?,
            ]),
            Origin::Disk(disk) => Err(format!("it is published at {}, and not built", disk.url)),
            Origin::Nowhere(why) => Err(why.clone()),
            Origin::OtherArch => Err(format!("the catalogue does not have it for {}", self.arch)),
        }
    }
}

fn kernel_from(source: &Source, arch: Arch) -> Option<KernelFrom> {
    match source {
        Source::Debian(suite) => Some(KernelFrom::Suite(suite.clone())),
        Source::Given(given) => Some(KernelFrom::Given(given.clone())),
        Source::Package(package @ KernelPackage { member, .. }) => {
            let archive = Published::archive(package, arch);
            Some(KernelFrom::Package { archive, member: member.clone() })
        }
        Source::Published(_) => None,
    }
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
    /// Packages of a root filesystem or of a kernel; of other kernels, the suite that busybox comes from.
    pub(super) source: DebianSource,
    /// Where a kernel comes from.
    pub(super) kernel: Option<KernelFrom>,
    /// The published archive on this machine, once it is fetched.
    pub(super) archive: Option<std::path::PathBuf>,
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

    fn kernel(
        name: &str,
        version: &str,
        from: &KernelFrom,
        userland: &DebianSource,
        arch: Arch,
    ) -> Result<Part, String> {
        let source = if let KernelFrom::Suite(source) = from { source } else { userland };
        let mut inputs = serde_json::json!({
            "recipe": recipe::VERSION, "kind": "kernel", "arch": arch, "suite": source.suite,
            "archives": source.archives, "version": version, "package": source.kernel.get(&arch),
            "busybox": recipe::BUSYBOX, "modules": recipe::INITRD_MODULES, "epoch": recipe::EPOCH,
            "init": digest([recipe::INIT, recipe::DHCP].concat()),
        });
        match from {
            KernelFrom::Suite(_) => {}
            KernelFrom::Given(given) => inputs["package"] = super::given::stamp(given, arch)?,
            KernelFrom::Package { archive, member } => {
                inputs["package"] = serde_json::json!({ "archive": archive.url, "member": member });
            }
        }
        let part = Part::new(Kind::Kernel, format!("{name}-{arch}"), source, arch, inputs);
        Ok(Part { kernel: Some(from.clone()), ..part })
    }

    fn new(kind: Kind, name: String, source: &DebianSource, arch: Arch, inputs: serde_json::Value) -> Part {
        let key = digest(inputs.to_string());
        Part { kind, name, arch, source: source.clone(), kernel: None, archive: None, inputs, key }
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
            request.published().map(|published| published.url.clone())
        };
        assert!(place("jammy", Arch::X86_64).unwrap().ends_with("ubuntu-22.04-x86_64.qcow2.xz"));
        assert_eq!([place("resolute", Arch::X86_64), place("stretch", Arch::Arm64)], [None, None]);
        assert_eq!(place("bookworm", Arch::X86_64), None);
        let custom = |version: &str, userland: &str| {
            let (kernel, userland) =
                (catalogue.custom(version).unwrap(), catalogue.platform(userland).unwrap());
            ImageRequest::custom(kernel, userland, Arch::X86_64)
        };
        let old = custom("4.14", "debian_10").parts().unwrap_err();
        assert!(old.contains("`debian_10` is published as a whole disk"), "{old}");
        let packed = custom("5.4", "debian_11");
        assert!(packed.fetched().unwrap().url.ends_with("kernel-packages-x86_64.tar"));
        assert_ne!(packed.parts().unwrap()[1].key, custom("5.5", "debian_11").parts().unwrap()[1].key);
    }

    #[test]
    fn a_uuid_looks_like_one() {
        let catalogue = Catalogue::embedded().unwrap();
        let request = ImageRequest::platform(catalogue.platform("trixie").unwrap(), Arch::X86_64);
        assert!(uuid::Uuid::parse_str(&request.parts().unwrap()[0].uuid()).is_ok());
    }
}
