//! A run directory as one file that may leave this machine: `<run id>/…` in a compressed tar archive.
//!
//! Reports must come out the same elsewhere, so each byte keeps its place: what looks like a secret is overwritten by
//! as many `x`. Values that a run was given by name never reached its directory but for consoles; they go too where
//! they are still in the environment.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

use crate::error::{Failure, Result};

/// How hard to compress: consoles and logs are repetitive, the default does.
const LEVEL: i32 = 6;

/// What secrets look like wherever they stand; the named group is what goes.
static SHAPES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let shapes = [
        r"(?P<it>(glpat|glcbt|glrt|gldt|glptt)-[A-Za-z0-9_\-.]{16,})",
        r"(?P<it>gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
        r"\b(?P<it>(AKIA|ASIA)[A-Z0-9]{16})\b",
        r"(?P<it>eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})",
        r"(?s-u)-----BEGIN [A-Z ]*PRIVATE KEY-----(?P<it>.*?)-----END [A-Z ]*PRIVATE KEY-----",
        r"(?i-u)\b(authorization|private-token|job-token|dd-api-key)[ \t]*:[ \t]*(?:bearer[ \t]+|basic[ \t]+)?(?P<it>[A-Za-z0-9+/=_.\-]{8,})",
        r#"(?i-u)\b[a-z0-9_]*(?:api_?key|app_?key|secret_?access_?key|password|passwd|_token|_secret)["']?[ \t]*[=:][ \t]*["']?(?P<it>[A-Za-z0-9+/_.\-]{8,})"#,
        r"(?i-u)[a-z][a-z0-9+.-]*://[^/\s:@]{1,64}:(?P<it>[^/\s@]{1,128})@",
    ];
    shapes.into_iter().filter_map(|shape| Regex::new(shape).ok()).collect()
});

/// What an export came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Files in it.
    pub files: u64,
    /// Bytes before compression.
    pub bytes: u64,
    /// Places that were overwritten.
    pub scrubbed: u64,
}

/// Writes the run in `folder` to `file`, whole or not at all. `values` are secrets that are known.
///
/// # Errors
/// A file cannot be read, or `file` cannot be written.
pub fn export(folder: &Path, file: &Path, values: &[String]) -> Result<Exported> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: &std::io::Error| Failure::file("write", file, error);
    let temporary = tempfile::Builder::new()
        .prefix(".kmt-export-")
        .suffix(".tmp")
        .tempfile_in(parent)
        .map_err(|error| failed(&error))?;
    let encoder = zstd::Encoder::new(temporary, LEVEL).map_err(|error| failed(&error))?;
    let mut archive = tar::Builder::new(encoder);
    let mut exported = Exported::default();
    let name = folder.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    for path in files(folder)? {
        let content = std::fs::read(&path).map_err(|error| Failure::file("read", &path, &error))?;
        let (content, places) = scrubbed(&content, values);
        let inner = Path::new(&name).join(path.strip_prefix(folder).unwrap_or(&path));
        exported.files += 1;
        exported.bytes += content.len() as u64;
        exported.scrubbed += places;
        append(&mut archive, &inner, &content).map_err(|error| failed(&error))?;
    }
    let temporary = archive.into_inner().and_then(zstd::Encoder::finish).map_err(|error| failed(&error))?;
    temporary.persist(file).map_err(|error| failed(&error.error))?;
    Ok(exported)
}

fn append(archive: &mut tar::Builder<impl Write>, name: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}

/// Every file below, in the order of names; links are left out.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let listed = std::fs::read_dir(&folder).map_err(|error| Failure::file("read", &folder, &error))?;
        for entry in listed.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The content with as many bytes, and in how many places it was overwritten.
fn scrubbed<'c>(content: &'c [u8], values: &[String]) -> (Cow<'c, [u8]>, u64) {
    let mut places = 0;
    let mut content = Cow::Borrowed(content);
    for value in values.iter().map(|value| value.trim()).filter(|value| value.len() >= 4) {
        let Ok(rule) = Regex::new(&format!("(?-u)(?P<it>{})", regex::escape(value))) else { continue };
        content = overwritten(content, &rule, &mut places);
    }
    for rule in SHAPES.iter() {
        content = overwritten(content, rule, &mut places);
    }
    (content, places)
}

fn overwritten<'c>(content: Cow<'c, [u8]>, rule: &Regex, places: &mut u64) -> Cow<'c, [u8]> {
    if !rule.is_match(&content) {
        return content;
    }
    let blank = |found: &Captures<'_>| {
        let whole = found.get_match();
        let mut text = whole.as_bytes().to_vec();
        if let Some(it) = found.name("it") {
            let (from, to) = (it.start() - whole.start(), it.end() - whole.start());
            // Line ends stay, so that a log keeps its lines.
            text[from..to]
                .iter_mut()
                .filter(|byte| !matches!(byte, b'\n' | b'\r'))
                .for_each(|byte| *byte = b'x');
            *places += 1;
        }
        text
    };
    Cow::Owned(rule.replace_all(&content, blank).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::recorded::Recorded;
    use crate::settings::Home;

    #[test]
    fn every_shape_is_a_rule() {
        assert_eq!(SHAPES.len(), 8);
    }

    #[test]
    fn secrets_go_and_every_byte_keeps_its_place() {
        let cases = [
            ("clone https://oauth2:s3cr3t@gitlab/x", "clone https://oauth2:xxxxxx@gitlab/x"),
            ("DD_API_KEY=0123456789abcdef done", "DD_API_KEY=xxxxxxxxxxxxxxxx done"),
            (r#"{"password": "hunter2hunter2"}"#, r#"{"password": "xxxxxxxxxxxxxx"}"#),
            ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer xxxxxxxxxxxx"),
            ("id AKIAIOSFODNN7EXAMPLE!", "id xxxxxxxxxxxxxxxxxxxx!"),
            ("told topsecret twice topsecret", "told xxxxxxxxx twice xxxxxxxxx"),
            (
                "TestTokenBucket password_test.go:12 got: fail",
                "TestTokenBucket password_test.go:12 got: fail",
            ),
        ];
        for (text, wanted) in cases {
            let (got, _) = scrubbed(text.as_bytes(), &["topsecret".to_owned()]);
            assert_eq!(String::from_utf8_lossy(&got), wanted);
        }
        let key = b"\xff-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n-----END OPENSSH PRIVATE KEY-----\xfe";
        let (got, places) = scrubbed(key, &[]);
        assert_eq!((got.len(), places), (key.len(), 1));
        assert!(!got.windows(8).any(|window| window == b"b3BlbnNz"));
    }

    #[test]
    fn an_exported_run_is_read_elsewhere() {
        let temp = tempfile::tempdir().unwrap();
        let run = temp.path().join("20261122T100000Z-aaaaaa");
        std::fs::create_dir_all(run.join("output/cell")).unwrap();
        std::fs::write(run.join("events.jsonl"), "").unwrap();
        std::fs::write(run.join("output/cell/a.raw"), "TOKEN topsecret\n").unwrap();
        std::os::unix::fs::symlink("/etc", run.join("link")).unwrap();
        let file = temp.path().join("run.tar.zst");
        let exported = export(&run, &file, &["topsecret".to_owned()]).unwrap();
        assert_eq!(exported, Exported { files: 2, bytes: 16, scrubbed: 1 });
        let home = Home::at(Path::new("/nonexistent"));
        let read = Recorded::find(&home, file.to_str()).unwrap();
        assert_eq!(read.folder().file_name(), run.file_name());
        assert_eq!(std::fs::read(read.folder().join("output/cell/a.raw")).unwrap(), b"TOKEN xxxxxxxxx\n");
        assert!(read.facts().unwrap().next().is_none());
        let folder = read.folder().to_path_buf();
        drop(read);
        assert!(!folder.exists());
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2, "no temporary file is left");
    }
}
