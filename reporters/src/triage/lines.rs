//! Raw bytes of a serial console to clean lines, however the bytes are cut.

use memchr::{memchr, memchr2};

/// Longest line that is kept whole, bytes; a longer one is given in pieces.
pub(crate) const LONGEST: usize = 4096;

/// One clean line: no escape sequences, no control characters, no line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The bytes, not always UTF-8.
    pub bytes: &'a [u8],
    /// Its number in the console, from 1, as an editor counts.
    pub number: u64,
    /// Offset of its first byte in the console.
    pub offset: u64,
}

impl Line<'_> {
    /// As text, what is no UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes).into_owned()
    }
}

/// Cuts a console into lines. A carriage return and a jump of the cursor end a line too, since a progress display
/// or a firmware's screen writes many texts on one. Memory is bounded by `LONGEST`.
#[derive(Debug, Clone, Default)]
pub struct LineReader {
    /// Raw bytes of the unfinished line.
    rest: Vec<u8>,
    clean: Vec<u8>,
    /// Offset of the first byte of `rest`.
    offset: u64,
    /// Line feeds so far.
    feeds: u64,
}

impl LineReader {
    /// Takes some bytes and gives every line that they complete to `each`.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        if !self.rest.is_empty() {
            let room = LONGEST - self.rest.len();
            let end = memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            let taken = end.min(room);
            self.rest.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.rest.ends_with(b"\n") || self.rest.len() == LONGEST {
                let rest = std::mem::take(&mut self.rest);
                self.whole(&rest, &mut each);
                self.rest = rest;
                self.rest.clear();
            } else {
                return;
            }
        }
        while !bytes.is_empty() {
            let window = &bytes[..bytes.len().min(LONGEST)];
            let end = match memchr(b'\n', window) {
                Some(at) => at + 1,
                None if window.len() == LONGEST => LONGEST,
                None => break,
            };
            self.whole(&bytes[..end], &mut each);
            bytes = &bytes[end..];
        }
        self.rest.extend_from_slice(bytes);
    }

    /// What has come of an unfinished line: a prompt has no end.
    pub fn unfinished(&self, mut each: impl FnMut(Line<'_>)) {
        if !self.rest.is_empty() {
            self.clone().whole(&self.rest, &mut each);
        }
    }

    /// Bytes taken so far.
    pub fn position(&self) -> u64 {
        self.offset + self.rest.len() as u64
    }

    /// A raw line with its end, or a piece of one that is too long.
    fn whole(&mut self, raw: &[u8], each: &mut impl FnMut(Line<'_>)) {
        let (number, offset) = (self.feeds + 1, self.offset);
        self.offset += raw.len() as u64;
        let mut text = raw;
        if let [before @ .., b'\n'] = text {
            self.feeds += 1;
            text = before;
        }
        while let [before @ .., b'\r'] = text {
            text = before;
        }
        if text.iter().fold(true, |plain, byte| plain & (*byte >= b' ')) {
            if !text.is_empty() {
                each(Line { bytes: text, number, offset });
            }
            return;
        }
        self.clean.clear();
        let mut start = 0;
        // Column of the first byte of `clean`, as far as cursor positions tell.
        let mut column = 1;
        let mut at = 0;
        while at < text.len() {
            let (next, step) = match text[at] {
                0x1b => escape(text, at),
                b'\r' => (at + 1, Step::To(1)),
                b'\t' => {
                    self.clean.push(b' ');
                    (at + 1, Step::On)
                }
                byte if byte < b' ' => (at + 1, Step::On),
                _ => {
                    let run = text[at..].iter().position(|byte| *byte < b' ').unwrap_or(text.len() - at);
                    self.clean.extend_from_slice(&text[at..at + run]);
                    (at + run, Step::On)
                }
            };
            at = next;
            if let Step::To(there) = step {
                // A firmware's screen says where the cursor is even where it stands already.
                if there > 1 && (column + self.clean.len()).abs_diff(there) <= 1 {
                    continue;
                }
                if !self.clean.is_empty() {
                    each(Line { bytes: &self.clean, number, offset: offset + start as u64 });
                    self.clean.clear();
                }
                (start, column) = (at, there);
            }
        }
        if !self.clean.is_empty() {
            each(Line { bytes: &self.clean, number, offset: offset + start as u64 });
        }
    }
}

/// What a control sequence does to the cursor.
enum Step {
    /// It stays in its line.
    On,
    /// It goes to this column, most often of another line.
    To(usize),
}

/// Where the escape sequence at `at` ends, and what it does to the cursor.
fn escape(text: &[u8], at: usize) -> (usize, Step) {
    match text.get(at + 1) {
        Some(b'[') => {
            let body = &text[at + 2..];
            // A sequence that is never closed is broken noise: only its introducer goes.
            match body.iter().position(|byte| !(0x20..0x40).contains(byte)) {
                Some(end) if (0x40..0x7f).contains(&body[end]) => {
                    let step = match body[end] {
                        b'H' | b'f' => Step::To(second(&body[..end])),
                        b'J' | b'd' => Step::To(1),
                        _ => Step::On,
                    };
                    (at + 3 + end, step)
                }
                _ => (at + 2, Step::On),
            }
        }
        Some(b']') => match memchr2(0x07, 0x1b, &text[at + 2..]) {
            Some(end) if text[at + 2 + end] == 0x07 => (at + 3 + end, Step::On),
            Some(end) => (at + 2 + end, Step::On),
            None => (at + 2, Step::On),
        },
        Some(b'(' | b')') => ((at + 3).min(text.len()), Step::On),
        Some(b'c') => (at + 2, Step::To(1)),
        Some(0x37 | 0x38 | b'=' | b'>' | b'M' | b'\\') => (at + 2, Step::On),
        _ => (at + 1, Step::On),
    }
}

/// The second number of `12;09`, 1 where there is none.
fn second(numbers: &[u8]) -> usize {
    let figures = numbers.split(|byte| *byte == b';').nth(1);
    figures.and_then(|figures| std::str::from_utf8(figures).ok()?.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(console: &[u8], cut: usize) -> Vec<(String, u64, u64)> {
        let mut reader = LineReader::default();
        let mut lines = Vec::new();
        for piece in console.chunks(cut) {
            reader.push(piece, |line| lines.push((line.text(), line.number, line.offset)));
        }
        reader.unfinished(|line| lines.push((line.text(), line.number, line.offset)));
        assert_eq!(reader.position(), console.len() as u64);
        lines
    }

    #[test]
    fn lines_are_clean_however_the_bytes_are_cut() {
        let console = b"\x1bc\x1b[?7l\x1b[2JSeaBIOS (version 1.16)\r\n\r\r\n[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mssh.service\x1b[0m\r\n\
              one\rtwo\n\x1b[3;1Hgrub> \x1b[4;1Hx\0y\n(initramfs) ";
        for cut in 1..console.len() {
            let texts: Vec<_> = read(console, cut);
            assert_eq!(
                texts,
                [
                    ("SeaBIOS (version 1.16)".to_owned(), 1, 11),
                    ("[  OK  ] Started ssh.service".to_owned(), 3, 38),
                    ("one".to_owned(), 4, 92),
                    ("two".to_owned(), 4, 96),
                    ("grub> ".to_owned(), 5, 106),
                    ("xy".to_owned(), 5, 118),
                    ("(initramfs) ".to_owned(), 6, 122),
                ],
                "{cut}"
            );
        }
    }

    #[test]
    fn a_cursor_that_is_set_where_it_stands_cuts_no_word() {
        let bios =
            b"\x1b[0merror: no\x1b[12;09H\x1b[12;10H such partition.\r\ngrub\x1b[13;04H\x1b[13;05H rescue> ";
        let texts: Vec<_> = read(bios, 7).into_iter().map(|(text, ..)| text).collect();
        assert_eq!(texts, ["error: no such partition.", "grub rescue> "]);
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory() {
        let mut reader = LineReader::default();
        let (mut pieces, mut bytes) = (0, 0);
        for _ in 0..1000 {
            reader.push(&[b'x'; 1000], |line| {
                pieces += 1;
                bytes += line.bytes.len();
            });
        }
        assert_eq!((pieces, bytes), (244, 244 * LONGEST));
        assert!(reader.rest.capacity() <= 2 * LONGEST);
    }

    #[test]
    fn noise_is_no_trouble() {
        let noise: Vec<u8> = (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        for cut in [1, 7, 4096, 20_000] {
            assert_eq!(read(&noise, cut), read(&noise, 20_000));
        }
        assert_eq!(read(b"\x1b[31", 9), [("31".to_owned(), 1, 0)]);
        assert_eq!(read(b"\x1b]0;title\x07ok", 9), [("ok".to_owned(), 1, 0)]);
    }
}
