//! What stands before a message: stamps of printk, of syslog and of the journal.

/// A line without what `printk`, `syslog` or the journal put before it, and the kernel's time where it was said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stripped<'a> {
    /// The message.
    pub(crate) text: &'a [u8],
    /// Where it begins in the line.
    pub(crate) at: usize,
    /// Seconds since the kernel began.
    pub(crate) time: Option<f64>,
}

/// Takes off `<4>`, `[    1.234567]`, `[  T123]`, `Nov 27 11:45:24 host kernel:`, `kernel:` from the front.
pub(crate) fn strip(line: &[u8]) -> Stripped<'_> {
    let mut at = 0;
    let mut time = None;
    loop {
        let rest = &line[at..];
        let step = match rest.first() {
            Some(b' ') => 1,
            Some(b'<') => level(rest),
            Some(b'[') => match stamp(rest) {
                Some((length, seconds)) => {
                    time = time.or(seconds);
                    length
                }
                None => 0,
            },
            Some(b'k') if rest.starts_with(b"kernel: ") => 8,
            Some(byte) if at == 0 && (byte.is_ascii_uppercase() || byte.is_ascii_digit()) => syslog(rest),
            _ => 0,
        };
        if step == 0 {
            return Stripped { text: rest, at, time };
        }
        at += step;
    }
}

/// `<0>` to `<191>`.
fn level(text: &[u8]) -> usize {
    let digits = text[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if (1..=3).contains(&digits) && text.get(1 + digits) == Some(&b'>') { digits + 2 } else { 0 }
}

/// Length and seconds of `[    1.234567]` or `[T123]`, `[  C0]` (the caller), as printk writes them.
fn stamp(text: &[u8]) -> Option<(usize, Option<f64>)> {
    let end = text.iter().take(24).position(|byte| *byte == b']')?;
    let inner = text[1..end].trim_ascii_start();
    let (first, rest) = inner.split_first()?;
    if matches!(first, b'T' | b'C') && !rest.is_empty() && rest.iter().all(u8::is_ascii_digit) {
        return Some((end + 1, None));
    }
    let dot = inner.iter().position(|byte| *byte == b'.')?;
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    if !digits(&inner[..dot]) || !digits(&inner[dot + 1..]) {
        return None;
    }
    let seconds = std::str::from_utf8(inner).ok().and_then(|text| text.parse().ok());
    Some((end + 1, seconds))
}

/// Length of `Nov 27 11:45:24 host kernel: ` or `2026-11-27T11:45:24.1+00:00 host kernel: `; 0 where it is no such line.
fn syslog(text: &[u8]) -> usize {
    let Some(colon) = text.iter().take(120).position(|byte| *byte == b':') else { return 0 };
    let time = colon >= 2
        && text[colon - 1].is_ascii_digit()
        && text[colon - 2].is_ascii_digit()
        && text.get(colon + 3) == Some(&b':');
    if !time {
        return 0;
    }
    let window = &text[..text.len().min(120)];
    memchr::memmem::find(window, b" kernel: ").map_or(0, |at| at + 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_a_message_goes() {
        for line in [
            "[    1.900000] VFS: x",
            "[    1.900000][    T1] VFS: x",
            "<3>[    1.900000] VFS: x",
            "[    1.900000] [  C12] VFS: x",
            "Nov 27 11:45:24 vm7 kernel: [    1.900000] VFS: x",
            "2026-11-27T11:45:24.123456+00:00 vm7 kernel: [    1.900000] VFS: x",
        ] {
            let stripped = strip(line.as_bytes());
            assert_eq!((stripped.text, stripped.time), (b"VFS: x".as_slice(), Some(1.9)), "{line}");
            assert_eq!(&line.as_bytes()[stripped.at..], b"VFS: x");
        }
        assert_eq!(strip(b"VFS: x").time, None);
        for line in ["[  OK  ] Started x", "[FAILED] Failed", "<x> y", "[1.2.3] z", "[rootfs ]# "] {
            assert_eq!(strip(line.as_bytes()).text, line.as_bytes(), "{line}");
        }
    }
}
