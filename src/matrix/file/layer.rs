//! One matrix file as it is written, with the places of its words.

use std::collections::BTreeMap;
use std::ops::Range;

use kmt_reporters::event::Arch;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::super::{Complaint, place, spec};
use super::sets::WrittenSet;
use crate::error::unknown_key;
use crate::external::hypervisor::GuestNetwork;
use crate::settings::file::parse_duration;

/// Largest file, bytes.
const LARGEST: usize = 1 << 20;

/// Where it is written what a matrix may say.
const SCHEMA: &str = "`matrices/matrix.schema.json`";

/// Longest line of a message, characters.
const LONGEST_LINE: usize = 300;

/// A file and its text.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    /// Its name, as it is shown.
    pub(super) name: String,
    text: String,
    pub(super) file: Written,
}

/// A matrix of kmt-run: which machines there are, and what is tested in them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "Matrix")]
pub(super) struct Written {
    /// Files that this one builds on, relative to it.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) extends: Vec<Spanned<String>>,
    /// Repository under test, relative to the file.
    pub(super) root: Option<String>,
    /// Component of its `kmt.toml`.
    pub(super) component: Option<String>,
    /// Machines in the short form.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) vms: Vec<Spanned<String>>,
    /// Every combination of these is a cell.
    #[schemars(with = "Option<Axes>")]
    pub(super) axes: Option<Spanned<Axes>>,
    /// Kernels of one's own: rows beside the catalogue's.
    #[serde(default)]
    #[schemars(with = "Vec<OwnKernel>")]
    pub(super) custom_kernel: Vec<Spanned<OwnKernel>>,
    /// Cells that come besides.
    #[serde(default)]
    #[schemars(with = "Vec<Include>")]
    pub(super) include: Vec<Spanned<Include>>,
    /// Cells that do not.
    #[serde(default)]
    #[schemars(with = "Vec<Exclude>")]
    pub(super) exclude: Vec<Spanned<Exclude>>,
    /// Virtual processors of each machine; a list makes a cell of each.
    #[schemars(with = "Option<Sizes>")]
    pub(super) vcpu: Option<Spanned<Sizes>>,
    /// Memory of each machine, MiB; a list makes a cell of each.
    #[schemars(with = "Option<Sizes>")]
    pub(super) memory: Option<Spanned<Sizes>>,
    /// What the guests' network reaches.
    pub(super) network: Option<GuestNetwork>,
    /// Packages, instead of the component's.
    pub(super) packages: Option<Vec<String>>,
    /// Environment of the tests, over the component's.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Longest time of packages by pattern; the longest pattern that matches wins.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub(super) timeouts: BTreeMap<String, Spanned<String>>,
    /// Parts of the suite by name: every cell comes once with each.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, WrittenSet>")]
    pub(super) test_sets: BTreeMap<String, Spanned<WrittenSet>>,
}

/// A kernel of one's own, on the userland of a platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct OwnKernel {
    /// By which cells name it: `custom/6.19.1/x86_64`, and machines: `custom-6.19.1-local`.
    pub(super) version: String,
    /// A `.deb`, an archive (`.pkg.tar.gz`) or a built tree (with a `/` in it), relative to the file; or the name of a
    /// package of the userland's suite, such as `linux-image-6.12.*-cloud-amd64`.
    pub(super) from: String,
    /// The platform whose root filesystem it boots; `debian_12` without it.
    pub(super) userland: Option<String>,
    /// Its architecture; this machine's without it.
    pub(super) arch: Option<String>,
}

/// What is combined.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Axes {
    /// Distributions, platforms, `custom`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) distro: Vec<Spanned<String>>,
    /// Comparisons; one of them must hold.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) kernel: Vec<Spanned<String>>,
    /// Architectures; this machine's where there is none.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) arch: Vec<Spanned<String>>,
    /// Where the machines are.
    #[serde(default, rename = "where")]
    pub(super) place: Where,
}

/// Where the machines of axes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Where {
    /// On this box; what is of another architecture is emulated.
    #[default]
    Local,
    /// On remote hosts.
    Remote,
    /// On this box where it has the architecture.
    Auto,
}

/// A cell that comes besides.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Include {
    /// The machine in the short form.
    #[schemars(with = "String")]
    pub(super) vm: Spanned<String>,
    /// Its processors.
    #[schemars(with = "Option<u32>")]
    pub(super) vcpu: Option<Spanned<u32>>,
    /// Its memory, MiB.
    #[schemars(with = "Option<u32>")]
    pub(super) memory: Option<Spanned<u32>>,
}

/// Cells that do not come: those for which all that is said holds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Exclude {
    /// A machine in the short form.
    #[schemars(with = "Option<String>")]
    pub(super) vm: Option<Spanned<String>>,
    /// Distributions or platforms, or `custom`.
    #[schemars(with = "Option<Names>")]
    pub(super) distro: Option<Spanned<Names>>,
    /// A comparison.
    #[schemars(with = "Option<String>")]
    pub(super) kernel: Option<Spanned<String>>,
    /// An architecture.
    #[schemars(with = "Option<String>")]
    pub(super) arch: Option<Spanned<String>>,
    /// A test set.
    #[schemars(with = "Option<String>")]
    pub(super) set: Option<Spanned<String>>,
    /// Why.
    #[schemars(with = "String")]
    pub(super) reason: Option<Spanned<String>>,
}

/// One name, or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a name, or a list of names")]
pub(super) enum Names {
    One(String),
    Several(Vec<String>),
}

impl Names {
    pub(super) fn all(&self) -> &[String] {
        match self {
            Names::One(name) => std::slice::from_ref(name),
            Names::Several(names) => names,
        }
    }
}

/// One size, or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, or a list of numbers")]
pub(super) enum Sizes {
    One(u32),
    Several(Vec<u32>),
}

impl Sizes {
    pub(super) fn all(&self) -> &[u32] {
        match self {
            Sizes::One(size) => std::slice::from_ref(size),
            Sizes::Several(sizes) => sizes,
        }
    }
}

/// The text with every line cut where nobody reads on.
fn shortened(text: &str) -> String {
    let cut = |line: &str| line.chars().take(LONGEST_LINE).collect::<String>();
    text.lines().map(cut).collect::<Vec<_>>().join("\n")
}

impl Layer {
    /// Reads a file called `name`.
    pub(super) fn read(name: &str, text: &str) -> Result<Layer, Complaint> {
        if text.len() > LARGEST {
            let what = format!("`{name}` is no matrix: it has {} MiB, and 1 is the most", text.len() >> 20);
            return Err(Complaint::new(what).hint("a matrix is a small TOML file: see `matrices/demo.toml`"));
        }
        let file = toml::from_str(text).map_err(|error| {
            let words = error.to_string();
            let complaint =
                Complaint::new(format!("`{name}` is not a valid matrix\n{}", shortened(words.trim_end())));
            match unknown_key(error.message()) {
                Some(near) => complaint.hint(format!("did you mean `{near}`?")),
                None => complaint.hint(format!("the keys and their types: {SCHEMA}")),
            }
        })?;
        Ok(Layer { name: name.to_owned(), text: text.to_owned(), file })
    }

    /// A complaint about a place in it.
    pub(super) fn complain(&self, at: Range<usize>, what: &str) -> Complaint {
        place::complain(&self.name, &self.text, at, what)
    }

    /// The same about what somebody else complains of; his marks are left out, ours are there.
    pub(super) fn pass_on<T>(&self, word: &Spanned<T>, other: Complaint) -> Complaint {
        let what = other.message.lines().next().unwrap_or_default();
        other.hints.into_iter().fold(self.complain(word.span(), what), Complaint::hint)
    }

    pub(super) fn arch(&self, word: &Spanned<String>) -> Result<Arch, Complaint> {
        spec::arch_named(word.get_ref()).ok_or_else(|| {
            self.complain(word.span(), &format!("no architecture `{}`", word.get_ref()))
                .hint("x86_64, arm64 or local")
        })
    }

    /// Timeouts by pattern.
    pub(super) fn timeouts(&self) -> Result<BTreeMap<String, std::time::Duration>, Complaint> {
        let one = |(pattern, word): (&String, &Spanned<String>)| {
            let time = parse_duration(word.get_ref()).map_err(|what| {
                self.complain(word.span(), &what).hint("`timeouts.\"./pkg/...\" = \"5m\"`")
            })?;
            Ok((pattern.clone(), time))
        };
        self.file.timeouts.iter().map(one).collect()
    }
}
