//! The console tap: follows the serial console's file, knows how far a boot got and whether the kernel died.
//!
//! Bounded: keeps the last lines only; a line without an end is cut.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use kmt_reporters::event::{BootPhase, Event, EventSink};

/// Lines that are kept.
const KEEP: usize = 400;
/// Lines of an excerpt.
const EXCERPT: usize = 25;
/// Longest line that is kept, bytes.
const LINE: usize = 4096;

/// Copies the console of a machine into a folder of its own, which is made. What a machine of that name before it, which
/// died in the same run, has left there stays before it.
pub fn keep(console: &Path, folder: &Path, machine: &str, sink: &dyn EventSink) {
    if console.exists() {
        let made = std::fs::create_dir_all(folder);
        let copied = made.and_then(|()| copy(console, &folder.join("console.log")));
        warn_unwritten(copied, machine, sink);
    }
}

fn copy(console: &Path, into: &Path) -> std::io::Result<()> {
    let mut from = File::open(console)?;
    let mut kept = File::options().create(true).read(true).append(true).open(into)?;
    if !begins_with(&mut from, &mut kept)? {
        from.rewind()?;
    }
    std::io::copy(&mut from, &mut kept).map(drop)
}

/// Whether a file begins with all of another; then it is left where that one ends.
fn begins_with(whole: &mut File, beginning: &mut File) -> std::io::Result<bool> {
    let (mut wanted, mut seen) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let read = beginning.read(&mut wanted)?;
        if read == 0 {
            return Ok(true);
        }
        match whole.read_exact(&mut seen[..read]) {
            Ok(()) if seen[..read] == wanted[..read] => {}
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error),
            _ => return Ok(false),
        }
    }
}

/// Says that something a machine left is not kept, where that is so.
pub fn warn_unwritten(written: std::io::Result<()>, machine: &str, sink: &dyn EventSink) {
    if let Err(error) = written {
        let message = format!("its logs are not in the run directory: {error}");
        sink.emit(Event::Warning { subject: machine.to_owned(), message });
    }
}

/// Follows one console file from a position.
#[derive(Debug)]
pub struct ConsoleTap {
    path: PathBuf,
    file: Option<File>,
    position: u64,
    partial: Vec<u8>,
    kept: VecDeque<String>,
    panic: Option<String>,
}

impl ConsoleTap {
    /// From the beginning of the file, which need not exist yet.
    pub fn open(path: &Path) -> ConsoleTap {
        ConsoleTap {
            path: path.to_path_buf(),
            file: None,
            position: 0,
            partial: Vec::new(),
            kept: VecDeque::new(),
            panic: None,
        }
    }

    /// From what is the end now: only what comes later counts.
    pub fn from_end(path: &Path) -> ConsoleTap {
        let mut tap = ConsoleTap::open(path);
        tap.position = std::fs::metadata(path).map_or(0, |m| m.len());
        tap
    }

    /// The lines that came since the last call.
    pub fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = vec![0u8; 65536];
        loop {
            let count = self.read(&mut buffer);
            if count == 0 {
                break;
            }
            for byte in &buffer[..count] {
                if *byte == b'\n' || self.partial.len() >= LINE {
                    lines.push(self.line());
                }
                if *byte != b'\n' {
                    self.partial.push(*byte);
                }
            }
        }
        for line in &lines {
            if self.panic.is_none() && is_panic(line) {
                self.panic = Some(strip_time(line).to_owned());
            }
            if self.kept.len() == KEEP {
                self.kept.pop_front();
            }
            self.kept.push_back(line.clone());
        }
        lines
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
            if let Some(file) = &mut self.file
                && file.seek(SeekFrom::Start(self.position)).is_err()
            {
                self.file = None;
            }
        }
        self.file.as_mut().and_then(|file| file.read(buffer).ok()).unwrap_or(0)
    }

    fn line(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.partial).trim_end_matches('\r').to_owned();
        self.partial.clear();
        text
    }

    /// The first line that says the kernel panicked, without its time stamp.
    pub fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    /// The lines that tell most: around a panic where there was one, else the last ones, with what has come
    /// of an unfinished line.
    pub fn excerpt(&self) -> Vec<String> {
        let mut all: Vec<String> = self.kept.iter().cloned().collect();
        if !self.partial.is_empty() {
            all.push(String::from_utf8_lossy(&self.partial).into_owned());
        }
        let from = match all.iter().position(|line| is_panic(line)) {
            Some(at) => at.saturating_sub(3),
            None => all.len().saturating_sub(EXCERPT),
        };
        all.into_iter().skip(from).take(EXCERPT).collect()
    }
}

fn strip_time(line: &str) -> &str {
    match line.split_once("] ") {
        Some((stamp, rest)) if stamp.starts_with('[') => rest,
        _ => line,
    }
}

fn is_panic(line: &str) -> bool {
    line.contains("Kernel panic - not syncing") || line.contains("end Kernel panic")
}

/// The phase a console line proves, if it proves one.
pub fn phase_of(line: &str) -> Option<BootPhase> {
    let text = strip_time(line);
    if text.starts_with("SeaBIOS") || text.starts_with("UEFI firmware") || text.starts_with("BdsDxe:") {
        Some(BootPhase::Firmware)
    } else if text.starts_with("Linux version ") || text.starts_with("Booting Linux on ") {
        Some(BootPhase::Kernel)
    } else if text.starts_with("kmt-init: network ") {
        Some(BootPhase::Network)
    } else if text.strip_prefix("systemd[1]: Started ").is_some_and(is_ssh_server) {
        Some(BootPhase::Sshd)
    } else if text.starts_with("kmt-init: ") || text.starts_with("systemd[1]: ") {
        Some(BootPhase::Init)
    } else {
        None
    }
}

/// Whether systemd's name of a unit, with or without its description, is that of an SSH server.
fn is_ssh_server(unit: &str) -> bool {
    const SERVERS: [&str; 5] = [
        "ssh.service",
        "sshd.service",
        "SSH for kmt-run",
        "OpenSSH server daemon",
        "OpenBSD Secure Shell server",
    ];
    SERVERS.iter().any(|name| unit.starts_with(name))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_machine_that_takes_anothers_place_does_not_take_its_console() {
        let folder = tempfile::tempdir().unwrap();
        let (console, kept) = (folder.path().join("console.log"), folder.path().join("kept"));
        for (text, whole) in
            [("first", "first"), ("first, dead\n", "first, dead\n"), ("second", "first, dead\nsecond")]
        {
            std::fs::write(&console, text).unwrap();
            copy(&console, &kept).unwrap();
            assert_eq!(std::fs::read_to_string(&kept).unwrap(), whole);
        }
    }

    #[test]
    fn phases_are_read_from_lines() {
        assert_eq!(phase_of("[    0.000000] Linux version 6.1.0-50-amd64"), Some(BootPhase::Kernel));
        assert_eq!(phase_of("kmt-init: network eth0 10.0.2.15/24"), Some(BootPhase::Network));
        assert_eq!(phase_of("[    1.2] systemd[1]: Hello"), Some(BootPhase::Init));
        for server in ["ssh.service - SSH for kmt-run.", "OpenSSH server daemon.", "SSH for kmt-run."] {
            assert_eq!(phase_of(&format!("[    3.4] systemd[1]: Started {server}")), Some(BootPhase::Sshd));
        }
        assert_eq!(phase_of("systemd[1]: Started sshd-keygen.service."), Some(BootPhase::Init));
        assert_eq!(phase_of("[    1.2] my Linux version is old"), None);
    }

    #[test]
    fn a_tap_follows_and_sees_a_panic_even_in_pieces() {
        let path = std::env::temp_dir().join(format!("kmt-console-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        let mut tap = ConsoleTap::open(&path);
        file.write_all(b"[    1.0] one\r\n[    2.0] Kernel pan").unwrap();
        assert_eq!(tap.lines(), ["[    1.0] one"]);
        assert_eq!(tap.panic(), None);
        file.write_all(b"ic - not syncing: sysrq triggered crash\n").unwrap();
        tap.lines();
        assert_eq!(tap.panic(), Some("Kernel panic - not syncing: sysrq triggered crash"));
        assert_eq!(tap.excerpt().len(), 2);
        let mut late = ConsoleTap::from_end(&path);
        file.write_all(b"late\n").unwrap();
        assert_eq!(late.lines(), ["late"]);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let path = std::env::temp_dir().join(format!("kmt-console-long-{}", std::process::id()));
        std::fs::write(&path, vec![b'x'; 3 * LINE + 10]).unwrap();
        let mut tap = ConsoleTap::open(&path);
        assert_eq!(tap.lines().len(), 3);
        std::fs::remove_file(path).unwrap();
    }
}
