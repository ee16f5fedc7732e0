//! A short form taken apart: which words are recipe and architecture, and what the others name.

use std::ops::Range;

use kmt_reporters::event::{Arch, Location};

use super::super::Complaint;
use super::Recipe;

/// What was typed, classified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// As typed.
    text: String,
    pub(super) recipe: Option<Recipe>,
    pub(super) arch: Option<(Arch, Location)>,
    /// Whatever is neither, lower case, and where it stands (bytes of the text).
    rest: Vec<(String, Range<usize>)>,
}

/// A name taken apart: `ubuntu_22.04` and `22.04ubuntu` are `ubuntu` and `22.04`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// Its letters, without separators.
    pub(super) letters: String,
    /// Its number.
    pub(super) version: Option<String>,
}

impl Words {
    /// Takes a short form apart.
    pub(super) fn of(text: &str, host: Arch) -> Result<Words, Complaint> {
        let mut words = Words { text: text.to_owned(), recipe: None, arch: None, rest: Vec::new() };
        for (word, at) in split(text) {
            let recipe = recipe(&word);
            let arch = arch(&word, host);
            let twice = |what: &str| {
                let complaint = Complaint::new(format!(
                    "`{text}` names two {what}{}",
                    caret(text, std::slice::from_ref(&at))
                ));
                Err(complaint.hint("a machine is `<recipe>-<arch>-<version>`, each once"))
            };
            match (recipe, arch) {
                (Some(recipe), _) if words.recipe.replace(recipe).is_some() => return twice("recipes"),
                (None, Some(arch)) if words.arch.replace(arch).is_some() => return twice("architectures"),
                (None, None) => words.rest.push((word, at)),
                _ => {}
            }
        }
        if words.joined().is_empty() {
            return Err(Complaint::new(format!("`{text}` names no distribution or kernel"))
                .hint("a machine is `<recipe>-<arch>-<version>`, such as `debian_12-local-distro`"));
        }
        Ok(words)
    }

    /// What is neither recipe nor architecture, as typed.
    pub(super) fn rest(&self) -> String {
        let parts: Vec<&str> = self.rest.iter().map(|(word, _)| word.as_str()).collect();
        parts.join("-")
    }

    /// The same without separators.
    pub(super) fn joined(&self) -> String {
        bare(&self.rest())
    }

    /// The same, letters and number apart. Several numbers are one: `ubuntu-22-04` is 22.04.
    pub(super) fn name(&self) -> Name {
        let (mut letters, mut numbers) = (String::new(), Vec::new());
        for (word, _) in &self.rest {
            for piece in word.split('_') {
                for part in runs(piece) {
                    let number = part.starts_with(|c: char| c.is_ascii_digit());
                    let part = part.trim_matches('.');
                    if number { numbers.push(part) } else { letters.push_str(part) }
                }
            }
        }
        let version = (!numbers.is_empty()).then(|| numbers.join("."));
        Name { letters, version }
    }

    /// A name in the short form, for the architecture that was typed.
    pub(super) fn spelled(&self, name: &str, recipe: Recipe) -> String {
        let arch = match self.arch {
            Some((arch, Location::Remote)) => arch.as_str(),
            _ => "local",
        };
        match recipe {
            Recipe::Distro => format!("{name}-{arch}-distro"),
            Recipe::Custom => format!("custom-{name}-{arch}"),
        }
    }

    /// A complaint about the name, with a caret under it and what exists instead.
    pub(super) fn complain(&self, what: &str, instead: Vec<String>) -> Complaint {
        let places: Vec<Range<usize>> = self.rest.iter().map(|(_, at)| at.clone()).collect();
        let complaint = Complaint::new(format!("{what}{}", caret(&self.text, &places)));
        let complaint = match &instead[..] {
            [] => complaint,
            [one] => complaint.hint(format!("did you mean `{one}`?")),
            several => {
                let names: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
                complaint.hint(format!("did you mean one of {}?", names.join(", ")))
            }
        };
        complaint.hint("`kmt-run ls` lists what there is")
    }
}

/// The text on a line of its own, marks under the places on the next.
fn caret(text: &str, places: &[Range<usize>]) -> String {
    let marks: String = text
        .char_indices()
        .map(|(at, _)| if places.iter().any(|place| place.contains(&at)) { '^' } else { ' ' })
        .collect();
    format!("\n  {}\n  {}", kmt_reporters::escape(text), marks.trim_end())
}

/// Words between dashes, lower case, with their places. `x86-64`, the one architecture with a dash, is one word.
fn split(text: &str) -> Vec<(String, Range<usize>)> {
    let mut words: Vec<(String, Range<usize>)> = Vec::new();
    let mut start = 0;
    for part in text.split('-') {
        let from = start + part.len() - part.trim_start().len();
        start += part.len() + 1;
        let word = part.trim().to_ascii_lowercase();
        let at = from..from + part.trim().len();
        match words.last_mut() {
            Some((last, place)) if last == "x86" && word == "64" => {
                last.push_str("_64");
                place.end = at.end;
            }
            _ => words.push((word, at)),
        }
    }
    words
}

fn recipe(word: &str) -> Option<Recipe> {
    match word {
        "distro" => Some(Recipe::Distro),
        "custom" => Some(Recipe::Custom),
        _ => None,
    }
}

pub(super) fn arch(word: &str, host: Arch) -> Option<(Arch, Location)> {
    match word {
        "local" => Some((host, Location::Local)),
        "x86_64" | "x86" | "x64" | "amd64" => Some((Arch::X86_64, Location::Remote)),
        "arm64" | "aarch64" | "arm" => Some((Arch::Arm64, Location::Remote)),
        _ => None,
    }
}

/// Runs of digits and dots, and of everything else.
fn runs(word: &str) -> Vec<&str> {
    let mut runs = Vec::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let numeric = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c| numeric(c) != digits).unwrap_or(rest.len());
        // A dot that begins a run of letters belongs to nobody.
        let end = end.max(first.len_utf8());
        runs.push(&rest[..end]);
        rest = &rest[end..];
    }
    runs
}

/// A name without separators: `debian_12`, `debian-12` and `Debian12` are one.
pub(super) fn bare(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric() || *c == '.').collect::<String>().to_lowercase()
}

/// A name without separators and dots.
pub(super) fn undotted(name: &str) -> String {
    bare(name).replace('.', "")
}
