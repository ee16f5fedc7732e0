//! The short form of a machine: `<recipe>-<arch>-<version>` in any order, such as `debian_12-local-distro`.
//!
//! Each part is classified by what it is; nothing is matched by likeness. A recipe or architecture that is
//! missing gets the default and a notice; one that is named is never crossed.

use kmt_reporters::event::{Arch, CellId, Location};

use super::catalogue::Catalogue;
use super::{Cell, Complaint};
use crate::error::nearest;

/// A distribution's image, or a kernel on somebody's userland.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// A distribution with its own kernel.
    Distro,
    /// A kernel of that version.
    Custom,
}

/// What was typed, classified.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    recipe: Option<Recipe>,
    arch: Option<(Arch, Location)>,
    version: String,
}

/// A cell, and what was assumed to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The cell.
    pub cell: Cell,
    /// Sentences to print: what was missing and is taken to be.
    pub notices: Vec<String>,
}

/// Resolves one machine. `host` is what `local` means.
///
/// # Errors
/// What is unknown, missing or there twice, with the nearest thing that exists.
pub fn resolve(text: &str, catalogue: &Catalogue, host: Arch) -> Result<Resolved, Complaint> {
    let parts = classify(text, host)?;
    let mut notices = Vec::new();
    if parts.recipe.is_none() && parts.arch.is_none() {
        let known = known_names(catalogue);
        let near = nearest(&parts.version, known.iter().map(String::as_str)).unwrap_or(&parts.version);
        return Err(Complaint::new(format!("`{text}` says neither recipe nor architecture"))
            .hint(format!("did you mean `{near}-local-distro`?")));
    }
    let recipe = parts.recipe.unwrap_or_else(|| {
        notices.push(format!("`{text}`: recipe taken to be `distro`"));
        Recipe::Distro
    });
    let (arch, location) = parts.arch.unwrap_or_else(|| {
        notices.push(format!("`{text}`: architecture taken to be `local` ({host})"));
        (host, Location::Local)
    });
    let cell = match recipe {
        Recipe::Distro => distro(text, &parts.version, arch, location, catalogue)?,
        Recipe::Custom => custom(text, &parts.version, arch, location, catalogue)?,
    };
    Ok(Resolved { cell, notices })
}

fn classify(text: &str, host: Arch) -> Result<Parts, Complaint> {
    let mut parts = Parts { recipe: None, arch: None, version: String::new() };
    let twice = |what: &str| Complaint::new(format!("`{text}` names two {what}"));
    let lower = text.trim().to_ascii_lowercase();
    // The one architecture with a dash in its other spelling.
    for word in lower.replace("x86-64", "x86_64").split('-') {
        let recipe = match word {
            "distro" => Some(Recipe::Distro),
            "custom" => Some(Recipe::Custom),
            _ => None,
        };
        let arch = match word {
            "local" => Some((host, Location::Local)),
            "x86_64" | "x86" | "x64" | "amd64" => Some((Arch::X86_64, Location::Remote)),
            "arm64" | "aarch64" | "arm" => Some((Arch::Arm64, Location::Remote)),
            _ => None,
        };
        match (recipe, arch) {
            (Some(recipe), _) if parts.recipe.replace(recipe).is_some() => return Err(twice("recipes")),
            (None, Some(arch)) if parts.arch.replace(arch).is_some() => return Err(twice("architectures")),
            (None, None) => {
                if !parts.version.is_empty() {
                    parts.version.push('-');
                }
                parts.version.push_str(word);
            }
            _ => {}
        }
    }
    if parts.version.is_empty() {
        return Err(Complaint::new(format!("`{text}` names no distribution or kernel"))
            .hint("a machine is `<recipe>-<arch>-<version>`, such as `debian_12-local-distro`"));
    }
    Ok(parts)
}

fn known_names(catalogue: &Catalogue) -> Vec<String> {
    catalogue.platforms().iter().flat_map(|p| p.aliases.iter().chain([&p.id]).cloned()).collect()
}

/// Names compare without separators: `debian_12`, `debian-12` and `debian12` are one.
fn bare(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect::<String>().to_ascii_lowercase()
}

fn distro(
    text: &str,
    version: &str,
    arch: Arch,
    location: Location,
    catalogue: &Catalogue,
) -> Result<Cell, Complaint> {
    let wanted = bare(version);
    let found = catalogue
        .platforms()
        .iter()
        .find(|p| p.aliases.iter().chain([&p.id]).any(|name| bare(name) == wanted));
    let Some(platform) = found else {
        let known = known_names(catalogue);
        let complaint = Complaint::new(format!("no distribution `{version}` (in `{text}`)"));
        return Err(match nearest(version, known.iter().map(String::as_str)) {
            Some(near) => complaint.hint(format!("did you mean `{}`?", text.replace(version, near))),
            None => {
                let ids: Vec<&str> = catalogue.platforms().iter().map(|p| p.id.as_str()).collect();
                complaint.hint(format!("known: {}", ids.join(", ")))
            }
        });
    };
    if !platform.arches.contains(&arch) {
        return Err(Complaint::new(format!("`{}` does not exist for {arch} (in `{text}`)", platform.id)));
    }
    let id = CellId { location, ..CellId::local(&platform.id, &platform.kernel, arch) };
    Ok(Cell::on(platform, id))
}

fn custom(
    text: &str,
    version: &str,
    arch: Arch,
    location: Location,
    catalogue: &Catalogue,
) -> Result<Cell, Complaint> {
    let versions: Vec<&str> = catalogue.customs().iter().map(|k| k.version.as_str()).collect();
    let Some(kernel) = catalogue.custom(version) else {
        return Err(Complaint::new(format!("no custom kernel `{version}` (in `{text}`)"))
            .hint(format!("known: {}", versions.join(", "))));
    };
    if !kernel.arches.contains(&arch) {
        return Err(Complaint::new(format!(
            "custom kernel `{version}` does not exist for {arch} (in `{text}`)"
        )));
    }
    let Some(userland) = catalogue.platform(&kernel.userland) else {
        return Err(Complaint::new(format!(
            "custom kernel `{version}` names an unknown userland `{}`",
            kernel.userland
        )));
    };
    Ok(Cell::on(userland, CellId { location, ..CellId::local("custom", &kernel.version, arch) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> String {
        resolve(text, &Catalogue::embedded().unwrap(), Arch::X86_64).unwrap().cell.id.to_string()
    }

    fn refused(text: &str) -> Complaint {
        resolve(text, &Catalogue::embedded().unwrap(), Arch::X86_64).unwrap_err()
    }

    #[test]
    fn parts_come_in_any_order_and_spelling() {
        for text in ["debian_12-local-distro", "distro-local-bookworm", "local-Debian12-distro"] {
            assert_eq!(id(text), "debian_12/6.1/x86_64", "{text}");
        }
        assert_eq!(id("custom-6.12-local"), "custom/6.12/x86_64");
        assert_eq!(id("debian_13-amd64-distro"), "debian_13/6.12/x86_64@remote");
    }

    #[test]
    fn what_is_missing_is_said_and_what_is_unknown_refused() {
        let resolved = resolve("debian_12-local", &Catalogue::embedded().unwrap(), Arch::X86_64).unwrap();
        assert_eq!(resolved.notices.len(), 1);
        assert!(refused("debian_21-local-distro").hints[0].contains("debian_11-local-distro"));
        assert!(refused("custom-4.5-local").message.contains("4.5"));
        assert!(refused("debian_12").hints[0].contains("debian_12-local-distro"));
        assert!(refused("distro-custom-local-6.12").message.contains("two recipes"));
        assert!(refused("local-distro").message.contains("names no"));
        assert!(refused("").message.contains("names no"));
    }
}
