//! What exists, nearest to what was asked for. Everything said here can be typed and works.

use kmt_reporters::event::Arch;

use super::super::catalogue::Catalogue;
use super::super::version::Version;
use super::Recipe;
use super::words::{Name, Words, bare};
use crate::error::distance;

/// Most that are said.
const MOST: usize = 4;
/// Farthest that may be meant; lower is nearer.
const FARTHEST: u64 = 60;

/// Machines in the short form, nearest first; none where nothing is near.
pub(super) fn spellings(words: &Words, catalogue: &Catalogue) -> Vec<String> {
    let arch = words.arch.map_or(Arch::host(), |(arch, _)| arch);
    let mut name = words.name();
    let joined = words.joined();
    // A code name is its distribution and version.
    let coded = catalogue.platforms().iter().find(|row| row.names().any(|known| bare(known) == joined));
    if let Some(row) = coded {
        name = Name { letters: row.distro.clone(), version: Some(row.short_version().to_owned()) };
    }
    let mut ranked: Vec<(u64, String)> = Vec::new();
    if words.recipe != Some(Recipe::Custom) {
        for row in catalogue.platforms().iter().filter(|row| row.variants.contains_key(&arch)) {
            let likeness = row.names().map(|known| unlike(&bare(known), &joined)).min();
            let family = catalogue.distro(&name.letters).is_some_and(|distro| distro.id == row.distro);
            let versions = versions_apart(&name, row.short_version());
            let far = match (family, versions) {
                (true, Some(apart)) => apart.min(50),
                (true, None) => 40,
                (false, Some(0)) if !name.letters.is_empty() => 30,
                (false, Some(0)) => 10,
                _ => u64::MAX,
            };
            ranked.push((far.min(likeness.unwrap_or(u64::MAX)), words.spelled(&row.id, Recipe::Distro)));
        }
    }
    if words.recipe != Some(Recipe::Distro) && name.letters.is_empty() {
        for row in catalogue.customs().iter().filter(|row| row.variants.contains_key(&arch)) {
            let far = versions_apart(&name, &row.version).unwrap_or(u64::MAX);
            ranked.push((far, words.spelled(&row.version, Recipe::Custom)));
        }
    }
    ranked.retain(|(far, _)| *far <= FARTHEST);
    // Stable: what is equally near stays in the order of the catalogue.
    ranked.sort_by_key(|(far, _)| *far);
    ranked.into_iter().map(|(_, spelling)| spelling).take(MOST).collect()
}

/// How many letters differ, in parts of 100 of the longer; `u64::MAX` from a third on.
fn unlike(known: &str, wanted: &str) -> u64 {
    let longer = known.chars().count().max(wanted.chars().count()).max(1);
    let differ = distance(wanted, known);
    if differ * 3 > longer { u64::MAX } else { (differ * 100 / longer) as u64 }
}

/// How far apart two versions are: 0 where one is the beginning of the other, more for an earlier number.
fn versions_apart(name: &Name, own: &str) -> Option<u64> {
    let (wanted, own) = (Version::of(name.version.as_deref()?)?, Version::of(own)?);
    let (wanted, own) = (wanted.numbers(), own.numbers());
    let differs = wanted.iter().zip(own).position(|(a, b)| a != b);
    Some(match differs {
        None => 0,
        Some(0) => 20u64.saturating_add(wanted[0].abs_diff(own[0])),
        Some(at) => 1 + wanted[at].abs_diff(own[at]).min(18),
    })
}
