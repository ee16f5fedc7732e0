//! The catalogue: what a platform id means, and where its image comes from.
//!
//! Data only, from `matrices/catalog/*.toml`, embedded in the program. Adding a distribution is adding rows.

mod check;
mod given;
mod rows;

use std::collections::BTreeMap;
use std::fmt;

use kmt_reporters::event::Arch;
use serde::{Deserialize, Serialize};

pub use given::{Form, GivenKernel};

macro_rules! embedded {
    ($name:literal) => {
        (
            concat!("matrices/catalog/", $name, ".toml"),
            include_str!(concat!("../../../matrices/catalog/", $name, ".toml")),
        )
    };
}

/// The catalogue files this program carries: name and text.
const EMBEDDED: [(&str, &str); 9] = [
    embedded!("ubuntu"),
    embedded!("debian"),
    embedded!("amazon"),
    embedded!("centos"),
    embedded!("fedora"),
    embedded!("oracle"),
    embedded!("rocky"),
    embedded!("suse"),
    embedded!("custom"),
];

/// Every platform and custom kernel that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalogue {
    distros: Vec<Distro>,
    platforms: Vec<Platform>,
    customs: Vec<CustomKernel>,
}

/// A family of platforms.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distro {
    /// As in platform ids, such as `amazon`.
    pub id: String,
    /// Its own name, such as `Amazon Linux`.
    pub name: String,
    /// Other names that people type, such as `amzn`.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// A distribution with the kernel it comes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The id of cells: distribution, `_`, and the version people know it by, such as `ubuntu_22.04`.
    pub id: String,
    /// Other names it answers to, such as `jammy`.
    pub aliases: Vec<String>,
    /// The distribution, such as `ubuntu`.
    pub distro: String,
    /// The version it says it is (`VERSION_ID`), such as `22.04`.
    pub version: String,
    /// The architectures it exists for.
    pub variants: BTreeMap<Arch, Variant>,
}

/// A platform on one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The kernel's version as the catalogue knows it, such as `5.15.0-91-generic`.
    pub kernel: String,
    /// Where its image comes from, the preferred one first; none where nobody knows.
    pub sources: Vec<Source>,
}

/// A kernel that boots on the userland of a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomKernel {
    /// Its version, such as `6.12`.
    pub version: String,
    /// Id of the platform whose root filesystem it boots.
    pub userland: String,
    /// Where it comes from on each architecture, the preferred one first.
    pub variants: BTreeMap<Arch, Vec<Source>>,
}

/// Where an image or a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Built on this machine from Debian's packages.
    Debian(DebianSource),
    /// Fetched as it was published.
    Published(PublishedImage),
    /// A published kernel package.
    Package(KernelPackage),
    /// A kernel that somebody has on this machine.
    Given(GivenKernel),
}

/// A published root filesystem with its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedImage {
    /// Of the compressed image. Its sha256 lies at [`PublishedImage::checksum`].
    pub url: String,
    /// The set of images it belongs to.
    pub version: String,
}

/// A kernel with its modules in an archive of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPackage {
    /// URL of the archive. Its sha256 lies beside it, with `.sum` for `.tar`.
    pub archive: String,
    /// The member: itself an archive, of a `bzImage` and packages.
    pub member: String,
}

/// A Debian suite as apt reads it, and its kernel packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DebianSource {
    /// Where the archives are, such as `http://deb.debian.org`.
    pub mirror: String,
    /// The suite, such as `bookworm`.
    pub suite: String,
    /// What apt reads.
    pub archives: Vec<Archive>,
    /// Whether a Release file past its date is taken (with a warning).
    pub accept_expired_release: bool,
    /// The kernel's package for each architecture: a metapackage, or a name with `*` for the newest match.
    pub kernel: BTreeMap<Arch, String>,
}

/// One line of apt's sources: a folder below the mirror, a suite, its components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Folder below the mirror, such as `debian-security`.
    pub path: String,
    /// The suite, such as `bookworm-security`.
    pub suite: String,
    /// Components, such as `main`.
    pub components: Vec<String>,
}

/// Why a catalogue file was refused: which file, and what is wrong where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueError {
    /// The file.
    pub file: String,
    /// What is wrong, with line and column where they are known.
    pub message: String,
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalogue `{}`: {}", self.file, self.message)
    }
}

impl std::error::Error for CatalogueError {}

impl Catalogue {
    /// The catalogue this program carries.
    pub fn embedded() -> Result<Catalogue, CatalogueError> {
        Catalogue::parse(&EMBEDDED)
    }

    /// Reads catalogue files, given as (name, text).
    pub fn parse(files: &[(&str, &str)]) -> Result<Catalogue, CatalogueError> {
        let mut catalogue = Catalogue::default();
        for (name, text) in files {
            let refuse = |message: String| CatalogueError { file: (*name).to_owned(), message };
            let file: rows::File =
                toml::from_str(text).map_err(|error| refuse(error.to_string().trim_end().to_owned()))?;
            let read = file.read().map_err(refuse)?;
            catalogue.distros.extend(read.distros);
            catalogue.platforms.extend(read.platforms);
            catalogue.customs.extend(read.customs);
            check::check(&catalogue).map_err(refuse)?;
        }
        Ok(catalogue)
    }

    /// Every distribution, in the order of the files.
    pub fn distros(&self) -> &[Distro] {
        &self.distros
    }

    /// Every platform, in the order of the files.
    pub fn platforms(&self) -> &[Platform] {
        &self.platforms
    }

    /// Every custom kernel, in the order of the files.
    pub fn customs(&self) -> &[CustomKernel] {
        &self.customs
    }

    /// The distribution with this id or alias.
    pub fn distro(&self, name: &str) -> Option<&Distro> {
        self.distros.iter().find(|distro| distro.id == name || distro.aliases.iter().any(|a| a == name))
    }

    /// The platform with this id or alias; dots and underscores of an id may be left out.
    pub fn platform(&self, name: &str) -> Option<&Platform> {
        let exact = self.platforms.iter().find(|row| row.names().any(|known| known == name));
        exact.or_else(|| self.platforms.iter().find(|row| row.short_ids().any(|known| known == name)))
    }

    /// The custom kernel of this version.
    pub fn custom(&self, version: &str) -> Option<&CustomKernel> {
        self.customs.iter().find(|row| row.version == version)
    }
}

impl Platform {
    /// Its id, then its aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    /// Its id without dots, without the underscore, without both.
    fn short_ids(&self) -> impl Iterator<Item = String> {
        [self.id.replace('.', ""), self.id.replacen('_', "", 1), self.id.replace(['.', '_'], "")].into_iter()
    }

    /// The version in its id, such as `22.04` or `2023`.
    pub fn short_version(&self) -> &str {
        self.id.split_once('_').map_or("", |(_, version)| version)
    }

    /// Architectures it exists for.
    pub fn arches(&self) -> impl Iterator<Item = Arch> + '_ {
        self.variants.keys().copied()
    }

    /// Its kernel on an architecture.
    pub fn kernel(&self, arch: Arch) -> Option<&str> {
        self.variants.get(&arch).map(|variant| variant.kernel.as_str())
    }
}

impl CustomKernel {
    /// Architectures it exists for.
    pub fn arches(&self) -> impl Iterator<Item = Arch> + '_ {
        self.variants.keys().copied()
    }
}

impl PublishedImage {
    /// Where the sha256 of the compressed image lies, as `sha256sum` writes it.
    pub fn checksum(&self) -> String {
        format!("{}.sum", self.url)
    }
}

impl Source {
    /// What Debian's packages make it of, where they do.
    pub fn debian(&self) -> Option<&DebianSource> {
        match self {
            Source::Debian(source) => Some(source),
            Source::Published(_) | Source::Package(_) | Source::Given(_) => None,
        }
    }

    /// Where it would be fetched.
    pub fn url(&self) -> Option<&str> {
        match self {
            Source::Debian(_) | Source::Given(_) => None,
            Source::Published(image) => Some(&image.url),
            Source::Package(package) => Some(&package.archive),
        }
    }
}

#[cfg(test)]
mod tests;
