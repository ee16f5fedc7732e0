//! The short form of a machine: `<recipe>-<arch>-<version>` in any order, such as `debian_12-local-distro`.
//!
//! Each part is classified by what it is; nothing is matched by likeness. A recipe or architecture that is
//! missing gets the default and a notice; one that is named is never crossed. Versions compare as versions,
//! and the beginning of one is enough where it is the beginning of one only.

mod suggest;
mod words;

use kmt_reporters::event::{Arch, CellId, Location};

use super::catalogue::{Catalogue, CustomKernel, Platform};
use super::version::Version;
use super::{Cell, Complaint};
use words::{Name, Words};

/// A distribution's image, or a kernel on somebody's userland.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// A distribution with its own kernel.
    Distro,
    /// A kernel of that version.
    Custom,
}

impl Recipe {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Recipe::Distro => "distro",
            Recipe::Custom => "custom",
        }
    }

    /// The recipe of a cell.
    pub fn of(cell: &CellId) -> Recipe {
        if cell.platform == "custom" { Recipe::Custom } else { Recipe::Distro }
    }
}

/// A cell, and what was assumed to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The cell.
    pub cell: Cell,
    /// Sentences to print: what was missing and is taken to be.
    pub notices: Vec<String>,
}

/// The machine of a cell in the short form, set and size left out. `None` where the short form has no words for
/// it: a machine on this box (whose architecture is `host`) of another architecture.
pub fn spelling(cell: &CellId, host: Arch) -> Option<String> {
    let arch = match cell.location {
        Location::Remote => cell.arch.as_str(),
        Location::Local if cell.arch == host => "local",
        Location::Local => return None,
    };
    Some(match Recipe::of(cell) {
        Recipe::Distro => format!("{}-{arch}-distro", cell.platform),
        Recipe::Custom => format!("custom-{}-{arch}", cell.kernel),
    })
}

/// The architecture of that name, in any spelling of the short form; `local` is this program's.
pub fn arch_named(word: &str) -> Option<Arch> {
    words::arch(&word.to_ascii_lowercase().replace("x86-64", "x86_64"), Arch::host()).map(|(arch, _)| arch)
}

/// Resolves one machine. `host` is what `local` means.
///
/// # Errors
/// What is unknown, ambiguous, missing or there twice, with what exists instead.
pub fn resolve(text: &str, catalogue: &Catalogue, host: Arch) -> Result<Resolved, Complaint> {
    let words = Words::of(text, host)?;
    if words.recipe.is_none() && words.arch.is_none() {
        let mut complaint = Complaint::new(format!("`{text}` says neither recipe nor architecture"));
        let near = suggest::spellings(&words, catalogue);
        if let Some(near) = near.first() {
            complaint = complaint.hint(format!("did you mean `{near}`?"));
        }
        return Err(complaint.hint("a machine is `<recipe>-<arch>-<version>`; `kmt-run ls` lists them"));
    }
    let mut notices = Vec::new();
    let recipe = words.recipe.unwrap_or_else(|| {
        notices.push(format!("`{text}`: recipe taken to be `distro`"));
        Recipe::Distro
    });
    let (arch, location) = words.arch.unwrap_or_else(|| {
        notices.push(format!("`{text}`: architecture taken to be `local` ({host})"));
        (host, Location::Local)
    });
    let cell = match recipe {
        Recipe::Distro => {
            let platform = platform(&words, catalogue)?;
            let kernel = platform.kernel(arch).ok_or_else(|| {
                absent(&words, &format!("`{}`", platform.id), arch, platform.arches(), catalogue)
            })?;
            let id = CellId { location, ..CellId::local(&platform.id, kernel, arch) };
            Cell::on(platform, id)
        }
        Recipe::Custom => {
            let kernel = custom(&words, catalogue)?;
            let name = format!("custom kernel `{}`", kernel.version);
            let userland = catalogue
                .platform(&kernel.userland)
                .filter(|userland| {
                    kernel.variants.contains_key(&arch) && userland.variants.contains_key(&arch)
                })
                .ok_or_else(|| absent(&words, &name, arch, kernel.arches(), catalogue))?;
            Cell::on(userland, CellId { location, ..CellId::local("custom", &kernel.version, arch) })
        }
    };
    Ok(Resolved { cell, notices })
}

/// The platform that a name means.
fn platform<'c>(words: &Words, catalogue: &'c Catalogue) -> Result<&'c Platform, Complaint> {
    let joined = words.joined();
    let named: Vec<&Platform> = catalogue
        .platforms()
        .iter()
        .filter(|row| row.names().any(|name| words::bare(name) == joined || words::undotted(name) == joined))
        .collect();
    if let [platform] = named[..] {
        return Ok(platform);
    }
    let Name { letters, version } = words.name();
    if letters.is_empty() {
        let what = format!("`{}` names no distribution", words.rest());
        return Err(words.complain(&what, suggest::spellings(words, catalogue)));
    }
    let Some(distro) = distribution(&letters, catalogue) else {
        let what = format!("no distribution `{}`", words.rest());
        return Err(words.complain(&what, suggest::spellings(words, catalogue)));
    };
    let rows: Vec<&Platform> = catalogue.platforms().iter().filter(|row| row.distro == distro).collect();
    let meant = match version {
        Some(version) => of_version(&version, &rows),
        None => rows,
    };
    match meant[..] {
        [platform] => Ok(platform),
        [] => {
            let what = format!("no distribution `{}`", words.rest());
            Err(words.complain(&what, suggest::spellings(words, catalogue)))
        }
        _ => {
            let names = meant.iter().map(|row| words.spelled(&row.id, Recipe::Distro)).collect();
            Err(words.complain(&format!("`{}` may be several distributions", words.rest()), names))
        }
    }
}

/// The distribution of that name. The beginning of a name is no name: `foca` is a misspelt word.
fn distribution<'c>(letters: &str, catalogue: &'c Catalogue) -> Option<&'c str> {
    let named = |name: &String| words::bare(name) == letters;
    let found =
        catalogue.distros().iter().find(|distro| named(&distro.id) || distro.aliases.iter().any(named));
    found.map(|distro| distro.id.as_str())
}

/// The rows whose version is this one; else those whose version begins so; first by their ids, then by what the
/// distribution says of itself.
fn of_version<'c>(wanted: &str, rows: &[&'c Platform]) -> Vec<&'c Platform> {
    let numbers = Version::of(wanted);
    let whole = |own: &str| own == wanted || own.replace('.', "") == wanted;
    let begins = |own: &str| match (Version::of(own), &numbers) {
        (Some(own), Some(wanted)) => own.numbers().starts_with(wanted.numbers()),
        _ => false,
    };
    let by = |fits: &dyn Fn(&Platform) -> bool| -> Vec<&'c Platform> {
        rows.iter().filter(|row| fits(row)).copied().collect()
    };
    let ways: [&dyn Fn(&Platform) -> bool; 4] = [
        &|row| whole(row.short_version()),
        &|row| begins(row.short_version()),
        &|row| whole(&row.version),
        &|row| begins(&row.version),
    ];
    ways.iter().map(|way| by(*way)).find(|found| !found.is_empty()).unwrap_or_default()
}

/// The custom kernel of that version.
fn custom<'c>(words: &Words, catalogue: &'c Catalogue) -> Result<&'c CustomKernel, Complaint> {
    let Name { letters, version } = words.name();
    let number = version.as_deref().filter(|_| letters.is_empty()).and_then(Version::of);
    let found = number.and_then(|wanted| {
        catalogue.customs().iter().find(|row| Version::of(&row.version).is_some_and(|own| own == wanted))
    });
    found.ok_or_else(|| {
        let what = format!("no custom kernel `{}`", words.rest());
        words.complain(&what, suggest::spellings(words, catalogue))
    })
}

fn absent(
    words: &Words,
    name: &str,
    arch: Arch,
    arches: impl Iterator<Item = Arch>,
    catalogue: &Catalogue,
) -> Complaint {
    let there: Vec<&str> = arches.map(Arch::as_str).collect();
    let what = format!("{name} does not exist for {arch}, only for {}", there.join(" and "));
    words.complain(&what, suggest::spellings(words, catalogue))
}

#[cfg(test)]
mod tests;
