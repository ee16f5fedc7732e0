//! Patterns of files below the root of a repository: `*`, `?`, `[…]` within a name, `**` across folders.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const OPTIONS: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// What matches one pattern below `root`: files, folders and links, sorted.
///
/// # Errors
/// The pattern is none, or leads out of the root.
pub(crate) fn matching(root: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let outside = Path::new(pattern).is_absolute() || pattern.split('/').any(|part| part == "..");
    if outside {
        return Err(format!("`{pattern}` is not below `{}`", root.display()));
    }
    let whole = format!("{}/{pattern}", glob::Pattern::escape(&root.display().to_string()));
    let found =
        glob::glob_with(&whole, OPTIONS).map_err(|error| format!("`{pattern}` is no pattern: {error}"))?;
    let found: BTreeSet<PathBuf> = found.filter_map(Result::ok).collect();
    Ok(found.into_iter().collect())
}

/// The files that match any of the patterns, folders with all that is in them. What cannot be read is left out.
pub(crate) fn files(root: &Path, patterns: &[String]) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut open: Vec<PathBuf> =
        patterns.iter().flat_map(|pattern| matching(root, pattern).unwrap_or_default()).collect();
    while let Some(path) = open.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            open.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else {
            files.insert(path);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_folders_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a/x.o", "a/b/y.o", "a/b/z.c", "[odd]/w.o"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let files = files(folder.path(), &[pattern.to_owned()]);
            files.iter().map(|file| file.strip_prefix(folder.path()).unwrap().display().to_string()).collect()
        };
        assert_eq!(found("a/*.o"), ["a/x.o"]);
        assert_eq!(found("a/**/*.o"), ["a/b/y.o", "a/x.o"]);
        assert_eq!(found("a/b"), ["a/b/y.o", "a/b/z.c"]);
        assert_eq!(found("[[]odd]/*"), ["[odd]/w.o"]);
        assert!(matching(folder.path(), "../x").is_err() && matching(folder.path(), "/etc").is_err());
    }
}
