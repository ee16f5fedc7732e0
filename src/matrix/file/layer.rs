//! One matrix file as it is written, with the places of its words.

use std::collections::BTreeMap;
use std::ops::Range;

use kmt_reporters::event::Arch;
use serde::Deserialize;
use toml::Spanned;

use super::super::{Complaint, spec};
use crate::error::unknown_key;
use crate::external::hypervisor::GuestNetwork;
use crate::settings::file::parse_duration;

/// Largest file, bytes.
const LARGEST: usize = 1 << 20;

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

/// The keys of a matrix file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Written {
    /// Files that this one builds on, relative to it.
    #[serde(default)]
    pub(super) extends: Vec<Spanned<String>>,
    /// Repository under test, relative to the file.
    pub(super) root: Option<String>,
    /// Component of its `kmt.toml`.
    pub(super) component: Option<String>,
    /// Machines in the short form.
    #[serde(default)]
    pub(super) vms: Vec<Spanned<String>>,
    /// Every combination of these is a cell.
    pub(super) axes: Option<Spanned<Axes>>,
    /// Cells that come besides.
    #[serde(default)]
    pub(super) include: Vec<Spanned<Include>>,
    /// Cells that do not.
    #[serde(default)]
    pub(super) exclude: Vec<Spanned<Exclude>>,
    /// Virtual processors of each machine; a list makes a cell of each.
    pub(super) vcpu: Option<Spanned<Sizes>>,
    /// Memory of each machine, MiB; a list makes a cell of each.
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
    pub(super) timeouts: BTreeMap<String, Spanned<String>>,
}

/// What is combined.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Axes {
    /// Distributions, platforms, `custom`.
    #[serde(default)]
    pub(super) distro: Vec<Spanned<String>>,
    /// Comparisons; one of them must hold.
    #[serde(default)]
    pub(super) kernel: Vec<Spanned<String>>,
    /// Architectures; this machine's where there is none.
    #[serde(default)]
    pub(super) arch: Vec<Spanned<String>>,
    /// Where the machines are.
    #[serde(default, rename = "where")]
    pub(super) place: Where,
}

/// Where the machines of axes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Where {
    /// On this box; what is of another architecture is emulated.
    #[default]
    Local,
    /// On remote hosts.
    Remote,
    /// On this box where it has the architecture.
    Auto,
}

/// A cell that comes besides.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Include {
    /// The machine in the short form.
    pub(super) vm: Spanned<String>,
    /// Its processors.
    pub(super) vcpu: Option<Spanned<u32>>,
    /// Its memory, MiB.
    pub(super) memory: Option<Spanned<u32>>,
}

/// Cells that do not come: those for which all that is said holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Exclude {
    /// A machine in the short form.
    pub(super) vm: Option<Spanned<String>>,
    /// A distribution or platform, or `custom`.
    pub(super) distro: Option<Spanned<String>>,
    /// A comparison.
    pub(super) kernel: Option<Spanned<String>>,
    /// An architecture.
    pub(super) arch: Option<Spanned<String>>,
    /// Why.
    pub(super) reason: Option<Spanned<String>>,
}

/// One size, or several.
#[derive(Debug, Clone, Deserialize)]
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
                None => complaint,
            }
        })?;
        Ok(Layer { name: name.to_owned(), text: text.to_owned(), file })
    }

    /// A complaint about a place in it.
    pub(super) fn complain(&self, at: Range<usize>, what: &str) -> Complaint {
        let before = &self.text[..at.start.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = self.text[start..before.len()].chars().count();
        let whole = self.text[start..].lines().next().unwrap_or_default();
        let end = at.end.min(start + whole.len()).max(before.len());
        let marks = "^".repeat(self.text[before.len()..end].chars().count().max(1));
        let margin = " ".repeat(line.to_string().len());
        Complaint::new(format!(
            "`{}` line {line}, column {}: {what}\n{margin} |\n{line} | {}\n{margin} | {}{marks}",
            self.name,
            column + 1,
            kmt_reporters::escape(whole),
            " ".repeat(column),
        ))
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
            let time = parse_duration(word.get_ref()).map_err(|what| self.complain(word.span(), &what))?;
            Ok((pattern.clone(), time))
        };
        self.file.timeouts.iter().map(one).collect()
    }
}
