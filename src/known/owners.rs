//! `CODEOWNERS`: patterns of paths, as git ignores them, and whose they are; the last pattern that matches decides.
//!
//! GitLab's sections (`[Name] @default`) are read as well: within one a pattern without owners has the section's.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Whose paths are whose.
#[derive(Debug, Default)]
pub struct Owners {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    pattern: Gitignore,
    /// Whether it means files of a folder and not what lies deeper: `/docs/*`.
    flat: bool,
    owners: Vec<String>,
}

impl Owners {
    /// Reads the file.
    pub(super) fn read(text: &str) -> Result<Owners, String> {
        let (mut rules, mut usual) = (Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(owners) = section(line) {
                usual = owners;
                continue;
            }
            let (pattern, owners) = split(line);
            let owners = if owners.is_empty() { usual.clone() } else { owners };
            let compiled = compile(&pattern).map_err(|why| format!("line {}: {why}", number + 1))?;
            rules.push(Rule { pattern: compiled, flat: pattern.ends_with("/*"), owners });
        }
        Ok(Owners { rules })
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Who owns a path, relative to the root.
    pub(super) fn of(&self, path: &Path) -> &[String] {
        let owns = |rule: &&Rule| {
            let file = rule.pattern.matched(path, false).is_ignore();
            let above =
                || path.ancestors().skip(1).any(|folder| rule.pattern.matched(folder, true).is_ignore());
            file || rule.pattern.matched(path, true).is_ignore() || !rule.flat && above()
        };
        self.rules.iter().rev().find(owns).map_or(&[], |rule| &rule.owners)
    }
}

/// The owners that a line gives to its section, if it begins one: `[Name]`, `^[Name][2] @owner`.
fn section(line: &str) -> Option<Vec<String>> {
    let rest = line.strip_prefix('^').unwrap_or(line).strip_prefix('[')?;
    let (_, rest) = rest.split_once(']')?;
    // A class of characters begins a pattern, too: a section's name ends its word.
    let rest = match rest.strip_prefix('[') {
        Some(count) => count.split_once(']')?.1,
        None => rest,
    };
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| owners(rest))
}

fn owners(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// Pattern and owners of a line; a space of a path is written `\ `.
fn split(line: &str) -> (String, Vec<String>) {
    let bytes = line.as_bytes();
    let end =
        (0..bytes.len()).find(|at| bytes[*at].is_ascii_whitespace() && (*at == 0 || bytes[at - 1] != b'\\'));
    let (pattern, rest) = line.split_at(end.unwrap_or(line.len()));
    (pattern.to_owned(), owners(rest))
}

fn compile(pattern: &str) -> Result<Gitignore, String> {
    let wrong = |error: ignore::Error| format!("`{pattern}` is no pattern: {error}");
    let mut builder = GitignoreBuilder::new("");
    // Here an exclamation mark is one.
    let text = if pattern.starts_with('!') { format!("\\{pattern}") } else { pattern.to_owned() };
    builder.add_line(None, &text).map_err(wrong)?;
    builder.build().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, path: &str) -> String {
        Owners::read(text).unwrap().of(Path::new(path)).join(" ")
    }

    #[test]
    fn the_last_that_matches_decides() {
        let text = "# all\n*   @all\n/pkg/ @core # deep\n/pkg/network/ @net @usm\n*.md @docs\n/pkg/free/\n/docs/* @flat\napps/ @apps\n";
        for (path, owners) in [
            ("README.md", "@docs"),
            ("Makefile", "@all"),
            ("pkg/ebpf", "@core"),
            ("pkg/ebpf/map_test.go", "@core"),
            ("pkg/network", "@net @usm"),
            ("pkg/network/usm/a_test.go", "@net @usm"),
            ("pkg/free/x.go", ""),
            ("docs/x.go", "@flat"),
            ("docs/deep/x.go", "@all"),
            ("cmd/apps/x.go", "@apps"),
        ] {
            assert_eq!(of(text, path), owners, "{path}");
        }
    }

    #[test]
    fn sections_give_owners_to_patterns_without() {
        let text = "/a/ @a\n\n[Network][2] @net\n/pkg/network/\n/pkg/network/usm/ @usm\n^[Free]\n/pkg/free/\n/with\\ space/ @s\n";
        for (path, owners) in [
            ("a/x", "@a"),
            ("pkg/network/x.go", "@net"),
            ("pkg/network/usm/x.go", "@usm"),
            ("pkg/free/x", ""),
            ("with space/x", "@s"),
            ("other", ""),
        ] {
            assert_eq!(of(text, path), owners, "{path}");
        }
    }
}
