//! Where the bytes of output come from, and how much of them a report takes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use crate::event::OutputRef;
use crate::mask::Masks;
use crate::text::{bytes, strip_ansi};

/// Whoever has the bytes that events only name.
pub trait OutputSource {
    /// The bytes. An error is shown in place of them and fails no report.
    fn read(&self, output: &OutputRef) -> io::Result<Vec<u8>>;

    /// Bytes of a whole file, relative to the run directory.
    ///
    /// # Errors
    /// There is no such file, or its size is not known.
    fn size(&self, file: &str) -> io::Result<u64> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("the size of {file} is not known")))
    }
}

/// A run directory.
#[derive(Debug, Clone)]
pub struct RunDirectory(pub PathBuf);

impl OutputSource for RunDirectory {
    fn read(&self, output: &OutputRef) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path(&output.file)?)?;
        file.seek(SeekFrom::Start(output.offset))?;
        let mut content = Vec::new();
        file.take(output.length).read_to_end(&mut content)?;
        Ok(content)
    }

    fn size(&self, file: &str) -> io::Result<u64> {
        Ok(self.path(file)?.metadata()?.len())
    }
}

impl RunDirectory {
    fn path(&self, file: &str) -> io::Result<PathBuf> {
        let path = Path::new(file);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "its path leaves the run directory"));
        }
        Ok(self.0.join(path))
    }
}

/// No output at all, for reports that need none.
#[derive(Debug, Clone, Copy)]
pub struct NoOutput;

impl OutputSource for NoOutput {
    fn read(&self, _: &OutputRef) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::NotFound, "no run directory is at hand"))
    }
}

/// Head and tail of an output of at most about `cap` bytes together: text without colours, secrets masked, and a
/// line that says how much is left out and where the whole lies. Never fails: a file that is gone is said.
pub(crate) fn head_and_tail(
    source: &dyn OutputSource,
    output: &OutputRef,
    cap: u64,
    masks: &Masks,
) -> String {
    let read = |part: &OutputRef| match source.read(part) {
        Ok(content) => Ok(content),
        Err(error) => Err(format!("[the output in {} cannot be read: {error}]", output.file)),
    };
    let whole = || read(output).map(|content| clean(&content, masks));
    if output.length <= cap {
        return whole().unwrap_or_else(|said| said);
    }
    // A little more than is shown, so that a secret on the border is still whole when it is masked.
    let margin = masks.longest() as u64;
    let half = cap / 2;
    let part = |offset, length| OutputRef { file: output.file.clone(), offset, length };
    if half + margin >= output.length {
        let text = whole().unwrap_or_else(|said| said);
        let (head, tail) = (front(&text, half as usize), back(&text, half as usize));
        return joined(head, tail, output, text.len() as u64 - (head.len() + tail.len()) as u64);
    }
    let head = match read(&part(output.offset, half + margin)) {
        Ok(content) => clean(&content, masks),
        Err(said) => return said,
    };
    let start = output.offset.saturating_add(output.length - half - margin);
    let tail = match read(&part(start, half + margin)) {
        Ok(content) => clean(&content, masks),
        Err(said) => return said,
    };
    joined(front(&head, half as usize), back(&tail, half as usize), output, output.length - 2 * half)
}

fn joined(head: &str, tail: &str, output: &OutputRef, left_out: u64) -> String {
    let whole = format!(
        "{}, bytes {} to {}",
        output.file,
        output.offset,
        output.offset.saturating_add(output.length)
    );
    let newline = if head.ends_with('\n') { "" } else { "\n" };
    format!("{head}{newline}[... {} left out; the whole is in {whole} ...]\n{tail}", bytes(left_out))
}

fn clean(content: &[u8], masks: &Masks) -> String {
    let text = String::from_utf8_lossy(content);
    masks.mask(&strip_ansi(&text)).into_owned()
}

/// At most `cap` bytes from the front, and no half line where a whole one fits.
fn front(text: &str, cap: usize) -> &str {
    let cut = &text[..text.floor_char_boundary(cap)];
    if cut.len() == text.len() {
        return cut;
    }
    cut.rfind('\n').map_or(cut, |end| &cut[..=end])
}

/// At most `cap` bytes from the back, and no half line where a whole one fits.
fn back(text: &str, cap: usize) -> &str {
    let cut = &text[text.ceil_char_boundary(text.len().saturating_sub(cap))..];
    if cut.len() == text.len() {
        return cut;
    }
    match cut.find('\n') {
        Some(end) if end + 1 < cut.len() => &cut[end + 1..],
        _ => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(content: &[u8]) -> (tempfile::TempDir, RunDirectory) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("out"), content).unwrap();
        let source = RunDirectory(folder.path().to_owned());
        (folder, source)
    }

    fn output(offset: u64, length: u64) -> OutputRef {
        OutputRef { file: "out".to_owned(), offset, length }
    }

    #[test]
    fn small_output_is_whole_and_clean() {
        let (_folder, source) = directory(b"skipped\x1b[31mred\x1b[0m \xff secret1");
        let text = head_and_tail(&source, &output(7, 100), 200, &Masks::new(["secret1"]));
        assert_eq!(text, "red \u{fffd} [masked]");
    }

    #[test]
    fn large_output_is_head_and_tail() {
        let lines: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        let (_folder, source) = directory(lines.as_bytes());
        let text = head_and_tail(&source, &output(0, lines.len() as u64), 1000, &Masks::default());
        assert!(text.len() < 1200, "{}", text.len());
        assert!(text.starts_with("line 0\n") && text.ends_with("line 9999\n"));
        assert!(text.contains("KiB left out; the whole is in out, bytes 0 to 98890"), "{text}");
        let one_line = "x".repeat(1 << 20);
        let (_folder, source) = directory(one_line.as_bytes());
        let text = head_and_tail(&source, &output(0, 1 << 20), 1000, &Masks::default());
        assert!(text.len() < 1200 && text.len() > 900);
    }

    #[test]
    fn a_secret_on_the_border_stays_hidden() {
        for at in 0..190 {
            let content = format!("topsecret{}topsecret{}topsecret", "a".repeat(at), "b".repeat(190 - at));
            let (_folder, source) = directory(content.as_bytes());
            let text =
                head_and_tail(&source, &output(0, content.len() as u64), 40, &Masks::new(["topsecret"]));
            for part in ["topse", "secret"] {
                assert!(!text.contains(part), "{at}: {text}");
            }
        }
    }

    #[test]
    fn no_path_leaves_the_directory() {
        let (_folder, source) = directory(b"");
        for file in ["../out", "/etc/passwd", "a/../../b", "gone"] {
            let output = OutputRef { file: file.to_owned(), offset: 0, length: 10 };
            let text = head_and_tail(&source, &output, 100, &Masks::default());
            assert!(text.starts_with(&format!("[the output in {file} cannot be read: ")), "{text}");
        }
    }
}
