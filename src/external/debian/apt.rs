//! apt's words: which package a pattern means, in pure functions.

use std::cmp::Ordering;

/// A paragraph of apt's package lists, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paragraph {
    pub(super) name: String,
    pub(super) version: String,
    depends: String,
}

impl Paragraph {
    /// The kernel a metapackage stands for.
    pub(super) fn kernel_behind(&self) -> Option<&str> {
        self.needs("linux-image-").next()
    }

    /// The packages that hold a kernel's files where its own is empty (from Linux 6.18 on). `linux-base-…` is none of them:
    /// it holds configuration and symbols, and leaves the archive before the others do.
    pub(super) fn kernel_parts(&self) -> impl Iterator<Item = &str> {
        ["linux-binary-", "linux-modules-"].into_iter().flat_map(|start| self.needs(start))
    }

    fn needs(&self, start: &'static str) -> impl Iterator<Item = &str> {
        let words = self.depends.split([',', '|']).filter_map(|word| word.split_whitespace().next());
        words.filter(move |word| word.starts_with(start))
    }
}

/// Reads what `apt-cache show` printed.
pub(super) fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut all = Vec::new();
    for block in text.split("\n\n") {
        let field = |key: &str| {
            let value = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            value.map(str::to_owned)
        };
        if let (Some(name), Some(version)) = (field("Package"), field("Version")) {
            all.push(Paragraph { name, version, depends: field("Depends").unwrap_or_default() });
        }
    }
    all
}

/// Whether `name` is what `pattern` means; `*` stands for anything.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| matches(rest, &tail[at..]))
        }),
    }
}

/// The newest of them by Debian's order of versions; by name where versions are the same.
pub(super) fn newest(all: Vec<Paragraph>) -> Option<Paragraph> {
    all.into_iter().max_by(|a, b| compare(&a.version, &b.version).then_with(|| compare(&a.name, &b.name)))
}

/// Debian's order of versions: epoch, upstream, revision.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let split = |version: &str| {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse::<u64>().unwrap_or(0), upstream.to_owned(), revision.to_owned())
    };
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| part(&a.1, &b.1)).then_with(|| part(&a.2, &b.2))
}

fn part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (text_a, text_b) = (take(&mut a, |c| !c.is_ascii_digit()), take(&mut b, |c| !c.is_ascii_digit()));
        match text(text_a, text_b) {
            Ordering::Equal => {}
            order => return order,
        }
        let (digits_a, digits_b) =
            (take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()));
        let number = |digits: &str| digits.parse::<u128>().unwrap_or(0);
        match number(digits_a).cmp(&number(digits_b)) {
            Ordering::Equal if a.is_empty() && b.is_empty() => return Ordering::Equal,
            Ordering::Equal => {}
            order => return order,
        }
    }
}

/// Letters before other signs, `~` before the end.
fn text(a: &str, b: &str) -> Ordering {
    let rank = |c: Option<char>| match c {
        Some('~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
        Some(c) => i64::from(u32::from(c)) + 256,
    };
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (x, y) if rank(x) == rank(y) => {}
            (x, y) => return rank(x).cmp(&rank(y)),
        }
    }
}

fn take<'a>(rest: &mut &'a str, wanted: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
    let (head, tail) = rest.split_at(end);
    *rest = tail;
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_debian_compares_them() {
        for (lesser, greater) in [
            ("6.12.99+deb12-1", "6.12.100+deb12-1"),
            ("6.1.176-1", "6.1.192-2"),
            ("1.0~rc1-1", "1.0-1"),
            ("9.9-1", "1:0.1-1"),
            ("1.0-1", "1.0-1+deb12u1"),
            ("1.0", "1.0a"),
        ] {
            assert_eq!(compare(lesser, greater), Ordering::Less, "{lesser} {greater}");
            assert_eq!(compare(greater, lesser), Ordering::Greater, "{greater} {lesser}");
            assert_eq!(compare(lesser, lesser), Ordering::Equal);
        }
    }

    #[test]
    fn a_pattern_takes_the_newest_and_never_a_flavour_it_does_not_name() {
        let text = "Package: linux-image-6.12.9+deb12-cloud-amd64\nVersion: 6.12.9-1~bpo12+1\n\n\
                    Package: linux-image-6.12.101+deb12-cloud-amd64\nVersion: 6.12.101-1~bpo12+1\nDepends: kmod\n";
        let pattern = "linux-image-6.12.*+deb12-cloud-amd64";
        assert!(matches(pattern, "linux-image-6.12.9+deb12-cloud-amd64"));
        assert!(!matches(pattern, "linux-image-6.12.9+deb12-cloud-amd64-unsigned"));
        assert!(!matches(pattern, "linux-image-6.12.9+deb12-amd64"));
        let found = newest(paragraphs(text)).unwrap();
        assert_eq!(found.name, "linux-image-6.12.101+deb12-cloud-amd64");
        assert_eq!(found.kernel_behind(), None);
    }

    #[test]
    fn a_kernel_in_several_packages_names_them() {
        let text = "Package: linux-image-7.2.13+deb14-cloud-amd64\nVersion: 7.2.13-1\nDepends: dracut | x, \
                    linux-base (>= 4), linux-base-7.2.13 (= 7), linux-binary-7.2.13 (= 7), linux-modules-7.2.13 (= 7)\n";
        let found = newest(paragraphs(text)).unwrap();
        assert_eq!(found.kernel_behind(), None);
        let parts: Vec<&str> = found.kernel_parts().collect();
        assert_eq!(parts, ["linux-binary-7.2.13", "linux-modules-7.2.13"]);
    }

    #[test]
    fn a_metapackage_is_followed_to_its_kernel() {
        let text = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
                    Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        let found = newest(paragraphs(text)).unwrap();
        assert_eq!(found.kernel_behind(), Some("linux-image-6.1.0-56-cloud-amd64"));
    }
}
