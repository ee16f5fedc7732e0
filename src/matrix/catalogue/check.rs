//! What must hold of all rows together: names are unique, and whatever apt or a command line reads is a plain word.

use std::collections::{BTreeMap, BTreeSet};

use super::{Catalogue, CustomKernel, DebianSource, Source};

/// Refuses rows that contradict each other.
///
/// # Errors
/// What contradicts what.
pub(super) fn check(catalogue: &Catalogue) -> Result<(), String> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for distro in &catalogue.distros {
        for name in std::iter::once(&distro.id).chain(&distro.aliases) {
            check_word("distribution", name)?;
            if let Some(other) = seen.insert(name, &distro.id) {
                return Err(format!("`{name}` names both `{other}` and `{}`", distro.id));
            }
        }
    }
    for row in &catalogue.platforms {
        check_word("platform id", &row.id)?;
        for name in row.names() {
            if let Some(other) = seen.insert(name, &row.id) {
                return Err(format!("`{name}` names both `{other}` and `{}`", row.id));
            }
        }
        if catalogue.distro(&row.distro).is_none() {
            return Err(format!("`{}` is of distribution `{}`, which no row describes", row.id, row.distro));
        }
        if row.id.strip_prefix(&row.distro).is_none_or(|rest| !rest.starts_with('_')) {
            return Err(format!("platform id `{}` does not begin with `{}_`", row.id, row.distro));
        }
        if row.variants.is_empty() {
            return Err(format!("`{}` has no architecture", row.id));
        }
        for variant in row.variants.values() {
            check_word("kernel version", &variant.kernel)?;
            variant.sources.iter().try_for_each(|source| check_source(&row.id, source))?;
        }
    }
    let mut versions = BTreeSet::new();
    for row in &catalogue.customs {
        check_word("kernel version", &row.version)?;
        if !versions.insert(&row.version) {
            return Err(format!("`custom {}` is listed twice", row.version));
        }
        check_custom(catalogue, row)?;
    }
    Ok(())
}

fn check_custom(catalogue: &Catalogue, row: &CustomKernel) -> Result<(), String> {
    let name = format!("custom {}", row.version);
    let Some(userland) = catalogue.platforms.iter().find(|platform| platform.id == row.userland) else {
        return Err(format!("`{name}` has userland `{}`, which is no platform id", row.userland));
    };
    if row.variants.is_empty() {
        return Err(format!("`{name}` has no architecture"));
    }
    if let Some(arch) = row.arches().find(|arch| !userland.variants.contains_key(arch)) {
        return Err(format!("`{name}` lists {arch}, which its userland `{}` lacks", row.userland));
    }
    row.variants.values().flatten().try_for_each(|source| check_source(&name, source))
}

pub(super) fn check_word(what: &str, word: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.chars().all(fine) {
        Ok(())
    } else {
        Err(format!("{what} `{word}` is not made of letters, digits, `_`, `.` and `-`"))
    }
}

fn check_source(name: &str, source: &Source) -> Result<(), String> {
    match source {
        Source::Debian(debian) => check_debian(name, debian),
        Source::Given(_) => Ok(()),
        Source::Published(_) | Source::Package(_) => {
            let url = source.url().unwrap_or_default();
            check_url("URL", url, &["http://", "https://"])
        }
    }
}

fn check_url(what: &str, url: &str, schemes: &[&str]) -> Result<(), String> {
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    if rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_graphic() && c != '[' && c != ']')) {
        return Ok(());
    }
    Err(format!("{what} `{url}` does not begin with {}", schemes.join(" or ")))
}

/// Everything here ends on a line of apt's sources or as an argument: nothing but plain words passes.
pub(super) fn check_debian(name: &str, debian: &DebianSource) -> Result<(), String> {
    if debian.archives.is_empty() {
        return Err(format!("`{name}` has no archive"));
    }
    let plain = |word: &String| {
        !word.is_empty()
            && !word.starts_with(['-', '.'])
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+*".contains(c))
    };
    check_url("mirror", &debian.mirror, &["http://", "https://", "file:///"])?;
    let words = debian.archives.iter().flat_map(|a| [&a.path, &a.suite].into_iter().chain(&a.components));
    match words.chain([&debian.suite]).chain(debian.kernel.values()).find(|word| !plain(word)) {
        Some(word) => Err(format!("`{name}` has `{word}` where a plain word is expected")),
        None => Ok(()),
    }
}
