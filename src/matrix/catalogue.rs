//! The catalogue: what a platform id means, and where its image comes from.
//!
//! Data only, from `matrices/catalog/*.toml`, embedded in the program. Adding a distribution is adding rows.

use std::collections::BTreeMap;
use std::fmt;

use kmt_reporters::event::Arch;
use serde::{Deserialize, Serialize};

/// The catalogue files this program carries: name and text.
const EMBEDDED: [(&str, &str); 1] =
    [("matrices/catalog/debian.toml", include_str!("../../matrices/catalog/debian.toml"))];

/// Every platform and custom kernel that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    platforms: Vec<Platform>,
    customs: Vec<CustomKernel>,
}

/// A distribution with the kernel it comes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The id of cells, such as `debian_12`.
    pub id: String,
    /// Other names it answers to, such as `bookworm`.
    pub aliases: Vec<String>,
    /// The distribution, such as `debian`.
    pub distro: String,
    /// Its version, such as `12`.
    pub version: String,
    /// The kernel's version as the catalogue knows it, such as `6.1`.
    pub kernel: String,
    /// Architectures it exists for.
    pub arches: Vec<Arch>,
    /// Where the image comes from.
    pub source: Source,
}

/// A kernel that boots on the userland of a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomKernel {
    /// Its version, such as `6.12`.
    pub version: String,
    /// Id of the platform whose root filesystem it boots.
    pub userland: String,
    /// Architectures it exists for.
    pub arches: Vec<Arch>,
    /// Where the kernel comes from.
    pub source: Source,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Built on this machine from Debian's packages.
    Debian(DebianSource),
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
        let mut catalogue = Catalogue { platforms: Vec::new(), customs: Vec::new() };
        for (name, text) in files {
            let refuse = |message: String| CatalogueError { file: (*name).to_owned(), message };
            let file: File =
                toml::from_str(text).map_err(|error| refuse(error.to_string().trim_end().to_owned()))?;
            catalogue.platforms.extend(file.platform.into_iter().map(|row| row.with(&file.mirror)));
            catalogue.customs.extend(file.custom_kernel.into_iter().map(|row| row.with(&file.mirror)));
            catalogue.check().map_err(refuse)?;
        }
        Ok(catalogue)
    }

    /// Every platform, in the order of the files.
    pub fn platforms(&self) -> &[Platform] {
        &self.platforms
    }

    /// Every custom kernel, in the order of the files.
    pub fn customs(&self) -> &[CustomKernel] {
        &self.customs
    }

    /// The platform with this id or alias.
    pub fn platform(&self, name: &str) -> Option<&Platform> {
        self.platforms.iter().find(|row| row.names().any(|known| known == name))
    }

    /// The custom kernel of this version.
    pub fn custom(&self, version: &str) -> Option<&CustomKernel> {
        self.customs.iter().find(|row| row.version == version)
    }

    fn check(&self) -> Result<(), String> {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for row in &self.platforms {
            check_word("platform id", &row.id)?;
            for name in row.names() {
                if let Some(other) = seen.insert(name, &row.id) {
                    return Err(format!("`{name}` names both `{other}` and `{}`", row.id));
                }
            }
            check_source(&row.id, &row.arches, &row.source)?;
        }
        for (index, row) in self.customs.iter().enumerate() {
            check_word("kernel version", &row.version)?;
            let name = format!("custom {}", row.version);
            if self.customs[..index].iter().any(|other| other.version == row.version) {
                return Err(format!("`{name}` is listed twice"));
            }
            let Some(userland) = self.platforms.iter().find(|platform| platform.id == row.userland) else {
                return Err(format!("`{name}` has userland `{}`, which is no platform id", row.userland));
            };
            if let Some(arch) = row.arches.iter().find(|arch| !userland.arches.contains(arch)) {
                return Err(format!("`{name}` lists {arch}, which its userland `{}` lacks", row.userland));
            }
            check_source(&name, &row.arches, &row.source)?;
        }
        Ok(())
    }
}

impl Platform {
    /// Its id, then its aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

fn check_word(what: &str, word: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !word.is_empty() && word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.chars().all(fine) {
        Ok(())
    } else {
        Err(format!("{what} `{word}` is not made of letters, digits, `_`, `.` and `-`"))
    }
}

/// Everything here ends on a line of apt's sources or as an argument: nothing but plain words passes.
fn check_source(name: &str, arches: &[Arch], source: &Source) -> Result<(), String> {
    let Source::Debian(debian) = source;
    if arches.is_empty() {
        return Err(format!("`{name}` has no architecture"));
    }
    if debian.archives.is_empty() {
        return Err(format!("`{name}` has no archive"));
    }
    let plain = |word: &String| {
        !word.is_empty()
            && !word.starts_with(['-', '.'])
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+*".contains(c))
    };
    let scheme = ["http://", "https://", "file:///"].iter().find_map(|s| debian.mirror.strip_prefix(s));
    if !scheme.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_graphic() && c != '[' && c != ']')) {
        return Err(format!("mirror `{}` is not an http, https or file URL", debian.mirror));
    }
    let words = debian.archives.iter().flat_map(|a| [&a.path, &a.suite].into_iter().chain(&a.components));
    if let Some(word) = words.chain([&debian.suite]).chain(debian.kernel.values()).find(|w| !plain(w)) {
        return Err(format!("`{name}` has `{word}` where a plain word is expected"));
    }
    match arches.iter().find(|arch| !debian.kernel.contains_key(arch)) {
        Some(arch) => Err(format!("`{name}` lists {arch} and names no kernel package for it")),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    mirror: String,
    #[serde(default)]
    platform: Vec<PlatformRow>,
    #[serde(default)]
    custom_kernel: Vec<CustomRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PlatformRow {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    distro: String,
    version: String,
    kernel: String,
    arches: Vec<Arch>,
    source: SourceRow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CustomRow {
    version: String,
    userland: String,
    arches: Vec<Arch>,
    source: SourceRow,
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields, rename_all = "kebab-case")]
enum SourceRow {
    #[serde(rename_all = "kebab-case")]
    Debian {
        suite: String,
        archives: Vec<Archive>,
        #[serde(default)]
        accept_expired_release: bool,
        kernel: BTreeMap<Arch, String>,
    },
}

impl PlatformRow {
    fn with(self, mirror: &str) -> Platform {
        let PlatformRow { id, aliases, distro, version, kernel, arches, source } = self;
        Platform { id, aliases, distro, version, kernel, arches, source: source.with(mirror) }
    }
}

impl CustomRow {
    fn with(self, mirror: &str) -> CustomKernel {
        let CustomRow { version, userland, arches, source } = self;
        CustomKernel { version, userland, arches, source: source.with(mirror) }
    }
}

impl SourceRow {
    fn with(self, mirror: &str) -> Source {
        let SourceRow::Debian { suite, archives, accept_expired_release, kernel } = self;
        let mirror = mirror.trim_end_matches('/').to_owned();
        Source::Debian(DebianSource { mirror, suite, archives, accept_expired_release, kernel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = r#"
mirror = "http://deb.debian.org"
[[platform]]
id = "debian_12"
aliases = ["bookworm"]
distro = "debian"
version = "12"
kernel = "6.1"
arches = ["x86_64"]
[platform.source]
type = "debian"
suite = "bookworm"
archives = [{ path = "debian", suite = "bookworm", components = ["main"] }]
kernel = { x86_64 = "linux-image-cloud-amd64" }
"#;

    fn refused(text: &str) -> String {
        Catalogue::parse(&[("c.toml", text)]).unwrap_err().to_string()
    }

    #[test]
    fn the_embedded_catalogue_knows_its_platforms_by_id_and_alias() {
        let catalogue = Catalogue::embedded().unwrap();
        for (name, id, kernel) in [
            ("bullseye", "debian_11", "5.10"),
            ("debian_12", "debian_12", "6.1"),
            ("debian12", "debian_12", "6.1"),
            ("trixie", "debian_13", "6.12"),
            ("sid", "debian_sid", "7"),
        ] {
            let platform = catalogue.platform(name).unwrap();
            assert_eq!((platform.id.as_str(), platform.kernel.as_str()), (id, kernel));
            assert_eq!(platform.arches, [Arch::X86_64, Arch::Arm64]);
        }
        assert!(catalogue.platform("debian_14").is_none());
        assert_eq!(catalogue.custom("6.12").unwrap().userland, "debian_12");
        assert!(catalogue.custom("6.1").is_none());
    }

    #[test]
    fn only_suites_past_their_support_or_without_releases_may_be_expired() {
        let catalogue = Catalogue::embedded().unwrap();
        let expired = |name: &str| {
            let Source::Debian(debian) = &catalogue.platform(name).unwrap().source;
            debian.accept_expired_release
        };
        assert!(expired("debian_11") && expired("debian_sid"));
        assert!(!expired("debian_12") && !expired("debian_13"));
    }

    #[test]
    fn bad_rows_are_refused_where_they_stand() {
        assert!(Catalogue::parse(&[("c.toml", TINY)]).is_ok());
        let unknown = refused(&TINY.replace("distro =", "color = 1\ndistro ="));
        assert!(
            unknown.contains("c.toml") && unknown.contains("line 6") && unknown.contains("color"),
            "{unknown}"
        );
        let arch = refused(&TINY.replace("arches = [\"x86_64\"]", "arches = [\"vax\"]"));
        assert!(arch.contains("line 9") && arch.contains("vax"), "{arch}");
        assert!(refused(&TINY.replace("type = \"debian\"", "type = \"gentoo\"")).contains("gentoo"));
    }

    #[test]
    fn rows_that_contradict_each_other_are_refused() {
        let twice = refused(&format!("{TINY}{}", TINY.replace("mirror = \"http://deb.debian.org\"", "")));
        assert!(twice.contains("names both"), "{twice}");
        let arm = refused(&TINY.replace("[\"x86_64\"]", "[\"x86_64\", \"arm64\"]"));
        assert!(arm.contains("names no kernel package"), "{arm}");
        let custom = "\n[[custom-kernel]]\nversion = \"6.12\"\nuserland = \"nix\"\narches = [\"x86_64\"]\n\
             [custom-kernel.source]\ntype = \"debian\"\nsuite = \"s\"\nkernel = { x86_64 = \"k\" }\n\
             archives = [{ path = \"d\", suite = \"s\", components = [\"main\"] }]\n";
        assert!(refused(&format!("{TINY}{custom}")).contains("no platform id"));
    }

    #[test]
    fn what_apt_would_read_as_something_else_is_refused() {
        assert!(refused(&TINY.replace("suite = \"bookworm\",", "suite = \"a b\",")).contains("plain word"));
        assert!(refused(&TINY.replace("linux-image-cloud-amd64", "-oDir=x")).contains("plain word"));
        assert!(refused(&TINY.replace("http://deb.debian.org", "copy:/x")).contains("mirror"));
        assert!(refused(&TINY.replace("\"debian_12\"", "\"../x\"")).contains("platform id"));
    }
}
