//! The texts beside a published file, read.

use std::collections::BTreeMap;

use kmt_reporters::event::Arch;
use serde::{Deserialize, Serialize};

/// The sha256 of `file` in the text of a `.sum`, as `sha256sum` writes it: a digest, two spaces (or one and a star), a
/// name. A text of one line is about whatever file it lies beside.
///
/// # Errors
/// What the text is instead.
pub(super) fn parse(text: &str, file: &str) -> Result<String, String> {
    let digest = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        let hex = word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit());
        hex.then(|| word.to_ascii_lowercase())
    };
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let named = |line: &&&str| {
        let name = line.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('*');
        name.rsplit('/').next() == Some(file)
    };
    let line = match lines[..] {
        [] => return Err("it is empty".to_owned()),
        [line] => line,
        _ => match lines.iter().find(named) {
            Some(line) => line,
            None => return Err(format!("none of its {} lines names `{file}`", lines.len())),
        },
    };
    digest(line).ok_or_else(|| {
        let begin: String = line.chars().take(40).collect();
        format!("it does not begin with 64 hexadecimal digits: `{}`", begin.escape_debug())
    })
}

/// What the manifest of an image says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Words by key, such as `ID`, `VERSION_ID`, `KERNEL_VERSION`, `IMAGE_VERSION`.
    #[serde(flatten)]
    pub words: BTreeMap<String, String>,
}

impl Facts {
    /// Reads lines of `KEY="value"`; others are passed over.
    pub(super) fn parse(text: &str) -> Facts {
        let plain = |key: &str| {
            !key.is_empty() && key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        };
        let word = |line: &str| {
            let (key, value) = line.trim().split_once('=')?;
            plain(key).then(|| (key.to_owned(), value.trim().trim_matches('"').to_owned()))
        };
        Facts { words: text.lines().filter_map(word).collect() }
    }

    /// The kernel it comes with.
    pub fn kernel(&self) -> Option<&str> {
        self.words.get("KERNEL_VERSION").map(String::as_str)
    }

    /// Whether it says that it is of another architecture.
    pub(super) fn contradicts(&self, arch: Arch) -> Option<&str> {
        let said = self.words.get("ARCH")?;
        let known = crate::matrix::spec::arch_named(said);
        known.is_some_and(|known| known != arch).then_some(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_found_and_what_is_none_is_told() {
        let (a, b) = ("A".repeat(64), "b".repeat(64));
        assert_eq!(parse(&format!("{a}  x.xz\n"), "other.xz").unwrap(), a.to_lowercase());
        assert_eq!(parse(&format!("{a}  x.xz\n{b} *dir/y.xz\n"), "y.xz").unwrap(), b);
        let wrong = |text: &str| parse(text, "y.xz").unwrap_err();
        assert!(wrong("").contains("empty"));
        assert!(wrong("<Error><Code>AccessDenied").contains("64 hexadecimal digits: `<Error>"));
        assert!(wrong(&format!("{a}  x\n{b}  z\n")).contains("none of its 2 lines"));
        assert!(wrong(&format!("{}  y.xz", "g".repeat(64))).contains("64"));
        assert!(wrong("ffff  y.xz").contains("64"));
    }

    #[test]
    fn a_manifest_is_read_line_by_line() {
        let facts =
            Facts::parse("NAME=\"Ubuntu\"\nARCH=x86_64\n\nstray\nKERNEL_VERSION=\"5.15.0-91-generic\"\n");
        assert_eq!(facts.kernel(), Some("5.15.0-91-generic"));
        assert_eq!((facts.words.len(), facts.contradicts(Arch::X86_64)), (3, None));
        assert_eq!(facts.contradicts(Arch::Arm64), Some("x86_64"));
        assert_eq!(Facts::parse("<html>").words.len(), 0);
    }
}
