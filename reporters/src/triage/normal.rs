//! One text for one thing: numbers that differ from boot to boot are taken out.

/// `0x…` and long hexadecimal numbers become `ADDR`, other numbers `N`; function offsets `+0x1/0x2` go; spaces are
/// folded. Numbers inside names stay (`vda1`, `ext4_lookup`).
pub fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let inside_name = out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let (taken, put) = match first {
            '+' if rest.starts_with("+0x") => (offset(rest), ""),
            '0'..='9' | 'a'..='f' | 'A'..='F' if !inside_name => number(rest),
            c if c.is_whitespace() => (c.len_utf8(), if out.ends_with(' ') { "" } else { " " }),
            c => (c.len_utf8(), &rest[..c.len_utf8()]),
        };
        out.push_str(put);
        rest = &rest[taken..];
    }
    out
}

/// Length of `+0x1a/0x2b`.
fn offset(text: &str) -> usize {
    let hex = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
    let first = 3 + hex(&text[3..]);
    match text[first..].strip_prefix("/0x") {
        Some(rest) => first + 3 + hex(rest),
        None => first,
    }
}

/// Length of the word that begins with a hexadecimal digit, and what stands for it.
fn number(text: &str) -> (usize, &str) {
    if is_shape(text, b"hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh") {
        return (36, "UUID");
    }
    if is_shape(text, b"hh:hh:hh:hh:hh:hh") {
        return (17, "MAC");
    }
    let word = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let token = &text[..word];
    let digits = token.strip_prefix("0x").unwrap_or(token);
    let hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if token.starts_with("0x") && hex
        || hex && digits.len() >= 8 && digits.bytes().any(|b| b.is_ascii_digit())
    {
        (word, "ADDR")
    } else if token.bytes().all(|byte| byte.is_ascii_digit()) {
        (word, "N")
    } else if token.starts_with(|c: char| c.is_ascii_digit()) {
        // `22s!`, `500ms`: the figure goes, the unit stays.
        (token.bytes().take_while(u8::is_ascii_digit).count(), "N")
    } else {
        (word, token)
    }
}

/// Whether a text begins with hexadecimal digits where the shape has `h`, and otherwise with what the shape has.
fn is_shape(text: &str, shape: &[u8]) -> bool {
    let fits =
        |(byte, shape): (&u8, &u8)| if *shape == b'h' { byte.is_ascii_hexdigit() } else { byte == shape };
    text.len() >= shape.len() && text.as_bytes().iter().zip(shape).all(fits)
}

/// The name of a function without what compilers add (`.isra.0`, `.cold`) and without its offset.
pub(crate) fn function(symbol: &str) -> &str {
    let name = symbol.split("+0x").next().unwrap_or(symbol);
    const ADDED: [&str; 6] = [".isra.", ".constprop.", ".part.", ".cold", ".llvm.", ".lto_priv."];
    ADDED.iter().fold(name, |name, added| name.split(added).next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_one_thing() {
        for (text, wanted) in [
            (
                "unable to handle page fault for address: ffffc90000a1b000",
                "unable to handle page fault for address: ADDR",
            ),
            (
                "soft lockup - CPU#3 stuck for 22s! [swapper/3:1]",
                "soft lockup - CPU#N stuck for Ns! [swapper/N:N]",
            ),
            ("ext4_lookup+0x1a/0x2b [ext4]", "ext4_lookup [ext4]"),
            (
                "VFS: Unable to mount root fs on unknown-block(254,1)",
                "VFS: Unable to mount root fs on unknown-block(N,N)",
            ),
            ("EXT4-fs error (device vda1)   x", "EXT4-fs error (device vda1) x"),
            ("exitcode=0x00000100", "exitcode=ADDR"),
            ("dead face decade", "dead face decade"),
            ("UUID=0a1b2c3d-1f2e-4b1c-8abc-0123456789ab is", "UUID=UUID is"),
            ("other host (52:54:00:ab:cd:ef)", "other host (MAC)"),
            ("naïve 日本 12", "naïve 日本 N"),
        ] {
            assert_eq!(normalise(text), wanted);
            assert_eq!(normalise(wanted), wanted);
        }
        assert_eq!(function("foo.isra.0.cold+0x1/0x2"), "foo");
    }
}
