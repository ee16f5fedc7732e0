//! Identities that appear in every event: cells, machines, architectures.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instruction set a guest runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit x86 (`uname -m`: `x86_64`, Debian: `amd64`, Go: `amd64`).
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM (`uname -m`: `aarch64`, Debian: `arm64`, Go: `arm64`).
    #[serde(rename = "arm64")]
    Arm64,
}

impl Arch {
    /// Every architecture there is.
    pub const ALL: [Arch; 2] = [Arch::X86_64, Arch::Arm64];

    /// The text of cell ids: `x86_64` or `arm64`.
    pub fn as_str(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Arm64 => "arm64",
        }
    }

    /// Debian's and Go's name: `amd64` or `arm64`.
    pub fn deb(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    /// The architecture this program was built for.
    pub fn host() -> Arch {
        if cfg!(target_arch = "aarch64") { Arch::Arm64 } else { Arch::X86_64 }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Arch {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text {
            "x86_64" => Ok(Arch::X86_64),
            "arm64" => Ok(Arch::Arm64),
            _ => Err(IdError::new(text, "an architecture: x86_64 or arm64")),
        }
    }
}

/// Where a cell's machine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// A virtual machine on this box.
    #[default]
    Local,
    /// A virtual machine on a remote host.
    Remote,
}

/// The coordinate of a cell: `platform/kernel/arch`, and only the suffixes that are not default:
/// `@remote`, `+set`, `#<vcpu>x<memory in MiB>`. The same text in CLI, JUnit, paths and logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellId {
    /// Catalogue id of the platform, such as `debian_12`; `custom` for a custom kernel.
    pub platform: String,
    /// The catalogue's kernel version, such as `6.1`.
    pub kernel: String,
    /// Architecture of the guest.
    pub arch: Arch,
    /// This box, or a remote host.
    pub location: Location,
    /// Test set, where the matrix names one.
    pub set: Option<String>,
    /// vCPUs and memory in MiB, where they differ from the default.
    pub size: Option<(u32, u32)>,
}

impl CellId {
    /// A local cell of default size without a test set.
    pub fn local(platform: impl Into<String>, kernel: impl Into<String>, arch: Arch) -> CellId {
        CellId {
            platform: platform.into(),
            kernel: kernel.into(),
            arch,
            location: Location::Local,
            set: None,
            size: None,
        }
    }

    /// The id as one path component: `/` and other separators become `-`, unique as long as the id is.
    pub fn slug(&self) -> String {
        self.to_string()
            .chars()
            .map(
                |c| {
                    if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+') {
                        c
                    } else {
                        '-'
                    }
                },
            )
            .collect()
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}/{}/{}", self.platform, self.kernel, self.arch);
        if self.location == Location::Remote {
            text.push_str("@remote");
        }
        if let Some(set) = &self.set {
            text.push('+');
            text.push_str(set);
        }
        if let Some((vcpu, memory)) = self.size {
            text.push_str(&format!("#{vcpu}x{memory}"));
        }
        f.pad(&text)
    }
}

impl FromStr for CellId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::new(text, "a cell id: platform/kernel/arch[@remote][+set][#<vcpu>x<MiB>]");
        let (rest, size) = match text.split_once('#') {
            Some((rest, size)) => {
                let (vcpu, memory) = size.split_once('x').ok_or_else(bad)?;
                (rest, Some((vcpu.parse().map_err(|_| bad())?, memory.parse().map_err(|_| bad())?)))
            }
            None => (text, None),
        };
        let mut parts = rest.splitn(3, '/');
        let (Some(platform), Some(kernel), Some(tail)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        let (tail, set) = match tail.split_once('+') {
            Some((tail, set)) if !set.is_empty() => (tail, Some(set.to_owned())),
            Some(_) => return Err(bad()),
            None => (tail, None),
        };
        let (arch, location) = match tail.split_once('@') {
            Some((arch, "remote")) => (arch, Location::Remote),
            Some(_) => return Err(bad()),
            None => (tail, Location::Local),
        };
        if platform.is_empty() || kernel.is_empty() {
            return Err(bad());
        }
        Ok(CellId {
            platform: platform.to_owned(),
            kernel: kernel.to_owned(),
            arch: arch.parse().map_err(|_| bad())?,
            location,
            set,
            size,
        })
    }
}

impl Serialize for CellId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CellId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct IdError {
    text: String,
    expected: &'static str,
}

impl IdError {
    fn new(text: &str, expected: &'static str) -> IdError {
        IdError { text: text.to_owned(), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_ids_print_as_they_parse() {
        for text in [
            "debian_12/6.1/x86_64",
            "custom/6.12/arm64@remote+cws_host#4x8192",
            "ubuntu_22.04/5.15.0-91-generic/x86_64",
        ] {
            assert_eq!(text.parse::<CellId>().unwrap().to_string(), text);
        }
        for text in ["", "a/b", "a/b/mips", "a//x86_64", "a/b/x86_64@moon", "a/b/x86_64#4", "a/b/x86_64+"] {
            assert!(text.parse::<CellId>().is_err(), "{text}");
        }
    }

    #[test]
    fn slugs_are_one_path_component() {
        assert_eq!(CellId::local("debian_12", "6.1", Arch::X86_64).slug(), "debian_12-6.1-x86_64");
    }
}
