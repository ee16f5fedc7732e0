//! The grammar of filter expressions, after nextest's filtersets.
//!
//! `not` binds tighter than `and` (`&`, and `-` for `and not`), and that tighter than `or` (`|`, `+`).

use std::ops::Range;

use kmt_reporters::event::Location;

use super::super::spec::{self, Recipe};
use super::super::{Catalogue, Complaint};
use super::matcher::{Matcher, PackagePattern};
use super::{Node, Predicate, Truth};
use crate::error::nearest;

/// Parentheses and `not`s inside one another.
const DEPTH: usize = 128;

/// Longest expression, bytes.
const LONGEST: usize = 16 * 1024;

/// The predicates, as they are offered to who misspells one.
const PREDICATES: [&str; 12] = [
    "all", "none", "distro", "platform", "kernel", "arch", "recipe", "location", "set", "cell", "package",
    "test",
];

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    catalogue: &'a Catalogue,
}

/// What is wrong, where, and what helps.
struct Wrong {
    what: String,
    at: Range<usize>,
    hint: Option<String>,
}

type Parsed<T> = Result<T, Wrong>;

pub(super) fn parse(text: &str, catalogue: &Catalogue) -> Result<Node, Complaint> {
    if text.len() > LONGEST {
        return Err(Complaint::new(format!("a filter longer than {LONGEST} bytes"))
            .hint("put the choice into a matrix file"));
    }
    let mut parser = Parser { text, at: 0, depth: 0, catalogue };
    let node = parser.or().and_then(|node| match parser.rest().chars().next() {
        None => Ok(node),
        Some(c) => Err(parser.wrong(format!("`{c}` is not expected here"), c.len_utf8())),
    });
    node.map_err(|wrong| wrong.told(text))
}

impl Wrong {
    fn told(self, text: &str) -> Complaint {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let column = text[..self.at.start].chars().count();
        let width = text[self.at].chars().count().max(1);
        let marks = format!("{}{}", " ".repeat(column), "^".repeat(width));
        let complaint = Complaint::new(format!("{} in the filter\n  {line}\n  {marks}", self.what));
        let hint = self.hint.unwrap_or_else(|| {
            "such as `kernel(>=5.8) & !distro(amazon) & package(./pkg/network/...)`".to_owned()
        });
        complaint.hint(hint)
    }
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Something wrong here, so many bytes long, and to the end of the character there.
    fn wrong(&self, what: impl Into<String>, bytes: usize) -> Wrong {
        let end = self.text.ceil_char_boundary(self.at + bytes.min(self.rest().len()));
        Wrong { what: what.into(), at: self.at..end, hint: None }
    }

    /// Takes one of the signs or words, if it is next; a word ends where it ends.
    fn take(&mut self, signs: &[&str]) -> bool {
        self.skip_space();
        let rest = self.rest();
        let found = signs.iter().find(|sign| {
            rest.strip_prefix(**sign).is_some_and(|after| {
                let word = sign.starts_with(|c: char| c.is_ascii_alphabetic());
                !word || !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            })
        });
        if let Some(sign) = found {
            self.at += sign.len();
        }
        found.is_some()
    }

    fn or(&mut self) -> Parsed<Node> {
        let mut node = self.and()?;
        while self.take(&["|", "+", "or"]) {
            node = Node::Or(Box::new(node), Box::new(self.and()?)).simple();
        }
        Ok(node)
    }

    fn and(&mut self) -> Parsed<Node> {
        let mut node = self.not()?;
        loop {
            if self.take(&["&", "and"]) {
                node = Node::And(Box::new(node), Box::new(self.not()?)).simple();
            } else if self.take(&["-"]) {
                let without = Node::Not(Box::new(self.not()?)).simple();
                node = Node::And(Box::new(node), Box::new(without)).simple();
            } else {
                return Ok(node);
            }
        }
    }

    fn not(&mut self) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.wrong(format!("more than {DEPTH} levels"), 1));
        }
        let node = if self.take(&["!", "not"]) {
            Node::Not(Box::new(self.not()?)).simple()
        } else if self.take(&["("]) {
            let inner = self.or()?;
            if !self.take(&[")"]) {
                return Err(self.wrong("a `)` is missing", 1));
            }
            inner
        } else {
            self.predicate()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn predicate(&mut self) -> Parsed<Node> {
        self.skip_space();
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = &rest[..length];
        if name.is_empty() {
            return Err(match rest.chars().next() {
                Some(c) => self.wrong(format!("`{c}` is not expected here"), c.len_utf8()),
                None => self.wrong("a predicate is missing", 0),
            });
        }
        if !PREDICATES.contains(&name) {
            let mut wrong = self.wrong(format!("no predicate `{name}`"), length);
            wrong.hint = Some(match nearest(name, PREDICATES) {
                Some(near) => format!("did you mean `{near}(…)`?"),
                None => format!("there are {}", PREDICATES.join(", ")),
            });
            return Err(wrong);
        }
        self.at += length;
        if !self.take(&["("]) {
            return Err(self.wrong(format!("`{name}` wants its value in parentheses"), 1));
        }
        self.skip_space();
        let value = self.value()?;
        let start = self.at;
        let node = self.node(name, value).map_err(|complaint| Wrong {
            what: complaint.message,
            at: start..start + value.len(),
            hint: complaint.hints.into_iter().next(),
        })?;
        self.at = start + value.len();
        if !self.take(&[")"]) {
            return Err(self.wrong("a `)` is missing", 1));
        }
        Ok(node)
    }

    /// The value up to its `)`; a regular expression ends at its second `/`.
    fn value(&self) -> Parsed<&'a str> {
        let rest = self.rest();
        if let Some(pattern) = rest.strip_prefix('/') {
            let mut escaped = false;
            for (at, c) in pattern.char_indices() {
                match c {
                    '/' if !escaped => return Ok(&rest[..at + 2]),
                    '\\' if !escaped => escaped = true,
                    _ => escaped = false,
                }
            }
            return Err(self.wrong("a regular expression ends with `/`", rest.len()));
        }
        match rest.find(')') {
            Some(end) => Ok(rest[..end].trim_end()),
            None => Err(self.wrong("a `)` is missing", rest.len())),
        }
    }

    fn node(&self, name: &str, value: &str) -> Result<Node, Complaint> {
        if value.is_empty() && !matches!(name, "all" | "none" | "set") {
            return Err(Complaint::new(format!("`{name}` wants a value")));
        }
        let predicate = match name {
            "all" | "none" if !value.is_empty() => {
                return Err(Complaint::new(format!("`{name}()` takes no value")));
            }
            "all" => return Ok(Node::Always(Truth::True)),
            "none" => return Ok(Node::Always(Truth::False)),
            "distro" => Predicate::Distro(named(value, &|name| distro(name, self.catalogue))?),
            "platform" => Predicate::Platform(named(value, &|name| platform(name, self.catalogue))?),
            "kernel" => {
                Predicate::Kernel(value.parse().map_err(|error: super::super::version::VersionError| {
                    Complaint::new(error.message).hint("`kernel(>=5.8)`, or `kernel(>=5.4, <6.2)`")
                })?)
            }
            "arch" => Predicate::Arch(spec::arch_named(value).ok_or_else(|| {
                Complaint::new(format!("no architecture `{value}`")).hint("x86_64 or arm64")
            })?),
            "recipe" => Predicate::Recipe(match value {
                "distro" => Recipe::Distro,
                "custom" => Recipe::Custom,
                _ => return Err(Complaint::new(format!("no recipe `{value}`")).hint("distro or custom")),
            }),
            "location" => Predicate::Location(match value {
                "local" => Location::Local,
                "remote" => Location::Remote,
                _ => return Err(Complaint::new(format!("no location `{value}`")).hint("local or remote")),
            }),
            "set" => Predicate::Set(plain(value)?),
            "cell" => Predicate::Cell(named(value, &Matcher::glob)?),
            "package" if value.starts_with(['=', '~', '/', '#']) => {
                Predicate::Package(PackagePattern::matching(plain(value)?))
            }
            "package" => Predicate::Package(PackagePattern::of_go(value)),
            _ => Predicate::Test(test(value)?),
        };
        Ok(Node::Is(predicate))
    }
}

/// A matcher by its sign; without one what `bare` makes of it.
fn named(value: &str, bare: &dyn Fn(&str) -> Result<Matcher, Complaint>) -> Result<Matcher, Complaint> {
    match value.split_at_checked(1) {
        Some(("=", name)) => bare(name.trim()),
        Some(("~", part)) => Ok(Matcher::Contains(part.to_owned())),
        Some(("#", glob)) => Matcher::glob(glob),
        Some(("/", rest)) => Matcher::pattern(&rest.strip_suffix('/').unwrap_or(rest).replace(r"\/", "/")),
        _ => bare(value),
    }
}

fn plain(value: &str) -> Result<Matcher, Complaint> {
    named(value, &|name| Ok(Matcher::Equal(name.to_owned())))
}

/// A test by a part of its name, as in nextest; `=Name` is the whole.
fn test(value: &str) -> Result<Matcher, Complaint> {
    let matcher = match value.strip_prefix('=') {
        Some(name) => Matcher::Equal(name.to_owned()),
        None => named(value, &|part| Ok(Matcher::Contains(part.to_owned())))?,
    };
    if matcher.for_go().contains('/') {
        let complaint =
            Complaint::new(format!("`{value}` speaks of subtests, and `test()` of top-level tests"));
        return Err(complaint.hint("`--run 'TestA/sub'` chooses subtests"));
    }
    Ok(matcher)
}

/// A distribution that exists, by id or alias.
pub(super) fn distro(name: &str, catalogue: &Catalogue) -> Result<Matcher, Complaint> {
    known_distro(name, catalogue).map(|id| Matcher::Equal(id.to_owned()))
}

/// The id of the distribution of that name or alias.
///
/// # Errors
/// There is none; the nearest, or all.
pub fn known_distro<'c>(name: &str, catalogue: &'c Catalogue) -> Result<&'c str, Complaint> {
    if let Some(distro) = catalogue.distro(&name.to_lowercase()) {
        return Ok(&distro.id);
    }
    let names: Vec<&str> = catalogue
        .distros()
        .iter()
        .flat_map(|distro| std::iter::once(&distro.id).chain(&distro.aliases))
        .map(String::as_str)
        .collect();
    let complaint = Complaint::new(format!("no distribution `{name}`"));
    Err(match nearest(name, names.iter().copied()) {
        Some(near) => complaint.hint(format!("did you mean `{near}`?")),
        None => complaint.hint(format!("there are {}", names.join(", "))),
    })
}

fn platform(name: &str, catalogue: &Catalogue) -> Result<Matcher, Complaint> {
    if name == "custom" {
        return Ok(Matcher::Equal(name.to_owned()));
    }
    if let Some(platform) = catalogue.platform(&name.to_lowercase()) {
        return Ok(Matcher::Equal(platform.id.clone()));
    }
    let complaint = Complaint::new(format!("no platform `{name}`"));
    let names = catalogue.platforms().iter().flat_map(|row| row.names());
    Err(match nearest(name, names) {
        Some(near) => complaint.hint(format!("did you mean `{near}`?")),
        None => complaint.hint("`kmt-run ls` lists them"),
    })
}
