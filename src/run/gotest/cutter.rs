//! Cuts a byte stream into lines, and lines into pieces of bounded size, at places that depend on the
//! stream alone.

use super::Framing;

/// A line longer than this is handed over in pieces.
pub(super) const LONGEST: usize = 64 * 1024;
/// What is held back of such a line, so that framing at its end is still seen whole.
const HELD: usize = 4 * 1024;

/// `^V`: a framing line begins.
pub(super) const MARK_FRAME: u8 = 0x16;
/// `^O`: the text of an error begins (Go 1.26).
const MARK_ERROR: u8 = 0x0f;
/// `^N`: the text of an error ends (Go 1.26).
const MARK_ERROR_END: u8 = 0x0e;
/// `^[`: the next mark is meant literally (Go 1.26).
const MARK_ESCAPE: u8 = 0x1b;

/// A line, or a part of one.
#[derive(Debug)]
pub(super) struct Piece {
    /// The bytes, with the newline if there is one.
    pub(super) bytes: Vec<u8>,
    /// It begins a line.
    pub(super) starts: bool,
    /// It ends a line.
    pub(super) ends: bool,
}

impl Piece {
    /// The bytes without newline and carriage return.
    pub(super) fn line(&self) -> &[u8] {
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Whether it begins with the mark of a framing line.
    pub(super) fn marked(&self) -> bool {
        self.starts && self.line().first() == Some(&MARK_FRAME)
    }
}

#[derive(Debug)]
pub(super) struct Cutter {
    framing: Framing,
    line: Vec<u8>,
    /// A part of this line was handed over.
    inside: bool,
    escaped: bool,
}

impl Cutter {
    pub(super) fn new(framing: Framing) -> Cutter {
        Cutter { framing, line: Vec::new(), inside: false, escaped: false }
    }

    /// Takes some bytes: how many, and the piece they complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Option<Piece>) {
        let window = &bytes[..bytes.len().min(LONGEST - self.line.len())];
        let mut used = window.len();
        let mut ends = false;
        for (at, &byte) in window.iter().enumerate() {
            if byte == b'\n' {
                (used, ends) = (at + 1, true);
                break;
            }
            if self.framing == Framing::Plain {
                continue;
            }
            let first = at == 0 && self.line.is_empty() && !self.inside;
            if byte == MARK_FRAME && !self.escaped && !first {
                (used, ends) = (at, true);
                break;
            }
            self.escaped = byte == MARK_ESCAPE && !self.escaped;
        }
        self.line.extend_from_slice(&window[..used]);
        if ends {
            self.escaped = false;
            let starts = !std::mem::take(&mut self.inside);
            return (used, Some(Piece { bytes: std::mem::take(&mut self.line), starts, ends }));
        }
        if self.line.len() < LONGEST {
            return (used, None);
        }
        let held = self.line.split_off(LONGEST - HELD);
        let bytes = std::mem::replace(&mut self.line, held);
        let starts = !std::mem::replace(&mut self.inside, true);
        (used, Some(Piece { bytes, starts, ends }))
    }

    /// The line that never ended.
    pub(super) fn rest(&mut self) -> Option<Piece> {
        let bytes = std::mem::take(&mut self.line);
        let starts = !std::mem::take(&mut self.inside);
        self.escaped = false;
        if bytes.is_empty() { None } else { Some(Piece { bytes, starts, ends: false }) }
    }
}

/// Takes the marks of errors and their escapes out of output. An escape that precedes no mark stays: it is
/// a colour that the test printed.
#[derive(Debug, Default)]
pub(super) struct Unmarker {
    escape: bool,
}

impl Unmarker {
    pub(super) fn strip(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            let is_mark = matches!(byte, MARK_FRAME | MARK_ERROR | MARK_ERROR_END | MARK_ESCAPE);
            if std::mem::take(&mut self.escape) {
                if !is_mark {
                    out.push(MARK_ESCAPE);
                }
                out.push(byte);
            } else if byte == MARK_ESCAPE {
                self.escape = true;
            } else if !matches!(byte, MARK_ERROR | MARK_ERROR_END) {
                out.push(byte);
            }
        }
        out
    }

    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.escape).then(|| vec![MARK_ESCAPE])
    }
}
