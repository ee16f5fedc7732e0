//! What `--run` means: Go's `-test.run`, read the way Go reads it, before anything boots.
//!
//! A filter is alternatives separated by `|`, each a list of elements separated by `/`; neither separates
//! inside brackets or groups. Element *n* of an alternative is a regular expression for part *n* of a
//! test's name. Here the elements are checked and the first ones matched against top-level names; the text
//! itself goes to the binary as it was typed.

mod only;

use std::collections::BTreeMap;

use kmt_reporters::event::CellId;
use std::fmt;

use regex::Regex;
use regex_syntax::hir::translate::TranslatorBuilder;

/// What one compiled element may take.
const MOST_MEMORY: usize = 256 << 20;
/// Go's limit of a repeat count.
const MOST_REPEATS: u32 = 1000;

/// A filter that is well formed.
#[derive(Debug, Clone)]
pub struct Filter {
    text: String,
    first: Vec<First>,
}

#[derive(Debug, Clone)]
struct First {
    source: String,
    regex: Regex,
}

/// A filter that Go would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// The whole filter, as typed.
    pub text: String,
    /// Byte offset of the trouble in it.
    pub at: usize,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.text.get(..self.at).unwrap_or(&self.text).chars().count();
        writeln!(f, "`{}` is not a test filter: {}", self.text, self.reason)?;
        writeln!(f, "  {}", self.text)?;
        write!(f, "  {}^", " ".repeat(column))
    }
}

impl std::error::Error for FilterError {}

/// An element and where it stands in the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Element<'a> {
    text: &'a str,
    at: usize,
    alternative: usize,
    depth: usize,
}

impl Filter {
    /// Reads a filter. An empty one selects everything.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let mut first = Vec::new();
        for element in split(text) {
            let (source, shift) = rewritten(element.text);
            let regex = compile(&source).map_err(|(at, reason)| FilterError {
                text: text.to_owned(),
                at: element.at + original_offset(&shift, at).min(element.text.len()),
                reason,
            })?;
            if element.depth == 0 {
                first.push(First { source, regex });
            }
        }
        Ok(Filter { text: text.to_owned(), first })
    }

    /// The text as typed: the argument of `-test.run`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first element of each alternative, as Go would compile it.
    pub fn first_elements(&self) -> Vec<&str> {
        self.first.iter().map(|first| first.source.as_str()).collect()
    }

    /// Whether some test below this top-level name can be selected.
    pub fn selects_top_level(&self, name: &str) -> bool {
        self.text.is_empty() || self.first.iter().any(|first| first.regex.is_match(name))
    }

    /// Whether, taken as `-test.skip`, it drops this top-level test with all below it.
    pub fn drops_top_level(&self, name: &str) -> bool {
        !self.text.is_empty() && !self.text.contains('/') && self.selects_top_level(name)
    }

    /// The argument of `-test.list`. Expressions are never glued together: with several alternatives all
    /// names are listed, and [`Filter::selects_top_level`] chooses.
    pub fn list_pattern(&self) -> &str {
        match self.first.as_slice() {
            [only] if !self.text.is_empty() => &only.source,
            _ => ".*",
        }
    }
}

/// Go's `splitRegexp`: elements at `/`, alternatives at `|`, neither inside `[]` or `()`.
fn split(text: &str) -> Vec<Element<'_>> {
    let bytes = text.as_bytes();
    let (mut brackets, mut groups) = (0i32, 0i32);
    let (mut start, mut at, mut alternative, mut depth) = (0, 0, 0, 0);
    let mut elements = Vec::new();
    while at < bytes.len() {
        match bytes[at] {
            b'[' => brackets += 1,
            b']' => brackets = (brackets - 1).max(0),
            b'(' if brackets == 0 => groups += 1,
            b')' if brackets == 0 => groups -= 1,
            b'\\' => at += 1,
            b'/' | b'|' if brackets == 0 && groups == 0 => {
                elements.push(Element { text: &text[start..at], at: start, alternative, depth });
                start = at + 1;
                if bytes[at] == b'/' {
                    depth += 1;
                } else {
                    (alternative, depth) = (alternative + 1, 0);
                }
            }
            _ => {}
        }
        at += 1;
    }
    elements.push(Element { text: &text[start..], at: start, alternative, depth });
    elements
}

/// Go writes white space in filters as `_`, as it does in names. Also the byte each byte came from.
fn rewritten(element: &str) -> (String, Vec<usize>) {
    let mut source = String::with_capacity(element.len());
    let mut origins = Vec::with_capacity(element.len());
    for (at, c) in element.char_indices() {
        if is_go_space(c) {
            source.push('_');
        } else if c.is_control() {
            source.push_str(&escaped(c));
        } else {
            source.push(c);
        }
        origins.resize(source.len(), at);
    }
    (source, origins)
}

fn escaped(c: char) -> String {
    match c {
        '\u{7}' => "\\a".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        c if u32::from(c) < 0x80 => format!("\\x{:02x}", u32::from(c)),
        c => format!("\\u{:04x}", u32::from(c)),
    }
}

fn is_go_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}' | '\u{1680}')
        || matches!(
            c,
            '\u{2000}'..='\u{200a}' | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
        )
}

fn original_offset(origins: &[usize], at: usize) -> usize {
    origins.get(at).copied().unwrap_or(usize::MAX)
}

/// Compiles an element by Go's rules; an error says where in `source`.
fn compile(source: &str) -> Result<Regex, (usize, String)> {
    let (ours, origins) = from_go(source)?;
    let place = |at: usize| origins.get(at).copied().unwrap_or(source.len());
    let ast = regex_syntax::ast::parse::ParserBuilder::new()
        .octal(false)
        .build()
        .parse(&ours)
        .map_err(|error| (place(error.span().start.offset), error.kind().to_string()))?;
    TranslatorBuilder::new()
        .build()
        .translate(&ours, &ast)
        .map_err(|error| (place(error.span().start.offset), error.kind().to_string()))?;
    let compiled = regex::RegexBuilder::new(&ours).size_limit(MOST_MEMORY).build();
    compiled.map_err(|_| (0, "the expression is too large".to_owned()))
}

/// Where Go's syntax and ours part: `\Q..\E`, octal escapes, ASCII classes, group names,
/// braces and class operators that Go takes literally, flags and repetitions that it refuses.
fn from_go(source: &str) -> Result<(String, Vec<usize>), (usize, String)> {
    let mut reader =
        GoReader { source, at: 0, ours: String::new(), origins: Vec::new(), repeated: Repeated::Not };
    while reader.at < source.len() {
        reader.step(Place::Outside)?;
    }
    Ok((reader.ours, reader.origins))
}

/// What stands before the reader, as far as repetitions care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeated {
    Not,
    Once,
    Lazily,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Class,
}

struct GoReader<'a> {
    source: &'a str,
    at: usize,
    ours: String,
    origins: Vec<usize>,
    repeated: Repeated,
}

impl GoReader<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn write(&mut self, text: &str, length: usize) {
        self.ours.push_str(text);
        self.origins.resize(self.ours.len(), self.at);
        self.at += length;
    }

    fn step(&mut self, place: Place) -> Result<(), (usize, String)> {
        let Some(c) = self.rest().chars().next() else {
            return Ok(());
        };
        if place == Place::Outside {
            let repetition = repetition(self.rest());
            if c == '{' && repetition.is_none() {
                // Literal for Go where it is no repetition; ours wants it escaped.
                self.write("\\{", 1);
                self.repeated = Repeated::Not;
                return Ok(());
            }
            if let Some(length) = repetition {
                return self.repeat(c, length);
            }
            self.repeated = Repeated::Not;
        }
        match (c, place) {
            ('\\', _) => self.escape(place)?,
            ('[', Place::Outside) => self.class()?,
            ('(', Place::Outside) => self.group()?,
            ('}', Place::Outside) => self.write("\\}", 1),
            // Set operations are ours alone.
            ('[' | '&' | '~', Place::Class) => self.write(&format!("\\{c}"), 1),
            _ => {
                let text = c.to_string();
                self.write(&text, text.len());
            }
        }
        Ok(())
    }

    fn repeat(&mut self, c: char, length: usize) -> Result<(), (usize, String)> {
        let text = self.rest()[..length].to_owned();
        self.repeated = match self.repeated {
            Repeated::Not => Repeated::Once,
            Repeated::Once if c == '?' => Repeated::Lazily,
            _ => return Err((self.at, format!("`{text}` repeats a repetition"))),
        };
        let counts = text.trim_matches(['{', '}']).split(',').filter(|count| !count.is_empty());
        if c == '{' && counts.into_iter().any(|count| count.parse::<u32>().is_ok_and(|n| n > MOST_REPEATS)) {
            return Err((self.at, format!("Go repeats at most {MOST_REPEATS} times")));
        }
        self.write(&text, length);
        Ok(())
    }

    /// Names of groups mean nothing here and differ between the two syntaxes: they are dropped.
    fn group(&mut self) -> Result<(), (usize, String)> {
        let Some(inside) = self.rest().strip_prefix("(?") else {
            self.write("(", 1);
            return Ok(());
        };
        if let Some(named) = inside.strip_prefix("P<").or_else(|| inside.strip_prefix('<')) {
            let end = named.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(0);
            if end > 0 && named[end..].starts_with('>') {
                let length = self.rest().len() - named.len() + end + 1;
                self.write("(?:", length);
                return Ok(());
            }
        }
        let flags = inside.find(|c: char| !matches!(c, 'i' | 'm' | 's' | 'U' | '-')).unwrap_or(inside.len());
        if !matches!(inside[flags..].chars().next(), Some(':' | ')')) {
            return Err((self.at, "Go does not know this kind of group".to_owned()));
        }
        let text = self.rest()[..flags + 3].to_owned();
        self.write(&text, text.len());
        Ok(())
    }

    fn escape(&mut self, place: Place) -> Result<(), (usize, String)> {
        let rest = self.rest().to_owned();
        let Some(c) = rest[1..].chars().next() else {
            return Err((self.at, "a `\\` at its end escapes nothing".to_owned()));
        };
        let refuse = |at| Err((at, format!("Go does not know the escape `\\{c}`")));
        match c {
            'Q' if place == Place::Outside => {
                let quoted = rest[2..].split("\\E").next().unwrap_or_default();
                let whole = 2 + quoted.len() + if rest[2 + quoted.len()..].is_empty() { 0 } else { 2 };
                self.write(&regex_syntax::escape(quoted), whole);
            }
            'E' if place == Place::Outside => self.write("", 2),
            'x' | 'p' | 'P' => {
                let braced = rest[2..].starts_with('{').then(|| rest.find('}')).flatten();
                let length = braced.map_or(2, |end| end + 1);
                self.write(&rest[..length], length);
            }
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                let ascii = ascii_class(c);
                self.write(ascii, 2);
            }
            'b' if place == Place::Outside => self.write("(?-u:\\b)", 2),
            'B' if place == Place::Outside => self.write("\\B", 2),
            'A' | 'z' if place == Place::Outside => self.write(&rest[..2], 2),
            'a' | 'f' | 't' | 'n' | 'r' | 'v' => self.write(&rest[..2], 2),
            '0'..='7' => return self.octal(&rest),
            c if c.is_ascii_alphanumeric() => return refuse(self.at),
            c if c.is_ascii() => {
                let text = regex_syntax::escape(&c.to_string());
                let text = if place == Place::Class || text.len() == 2 { format!("\\{c}") } else { text };
                let text = if is_escapable(c) { text } else { c.to_string() };
                self.write(&text, 2);
            }
            _ => return refuse(self.at),
        }
        Ok(())
    }

    /// Go: `\0` to `\077`; other digits only in two or three octal ones.
    fn octal(&mut self, rest: &str) -> Result<(), (usize, String)> {
        let digits: String = rest[1..].chars().take(3).take_while(|c| matches!(c, '0'..='7')).collect();
        if !digits.starts_with('0') && digits.len() < 2 {
            return Err((self.at, format!("Go has no backreferences such as `\\{digits}`")));
        }
        let value = u32::from_str_radix(&digits, 8).unwrap_or_default();
        self.write(&format!("\\x{{{value:x}}}"), 1 + digits.len());
        Ok(())
    }

    fn class(&mut self) -> Result<(), (usize, String)> {
        self.write("[", 1);
        if self.rest().starts_with('^') {
            self.write("^", 1);
        }
        if self.rest().starts_with(']') {
            self.write("\\]", 1);
        }
        while !self.rest().is_empty() {
            if self.rest().starts_with(']') {
                self.write("]", 1);
                return Ok(());
            }
            let named = self.rest().strip_prefix("[:").and_then(|rest| rest.find(":]"));
            match named {
                Some(end) => {
                    let text = self.rest()[..end + 4].to_owned();
                    self.write(&text, text.len());
                }
                None => self.step(Place::Class)?,
            }
        }
        Ok(())
    }
}

fn ascii_class(c: char) -> &'static str {
    match c {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => "[\\t\\n\\f\\r ]",
        'S' => "[^\\t\\n\\f\\r ]",
        'w' => "[0-9A-Za-z_]",
        _ => "[^0-9A-Za-z_]",
    }
}

fn is_escapable(c: char) -> bool {
    regex_syntax::is_escapeable_character(c)
}

/// The length of the repetition that `text` begins with: `*`, `+`, `?`, `{n}`, `{n,}` or `{n,m}`.
fn repetition(text: &str) -> Option<usize> {
    if text.starts_with(['*', '+', '?']) {
        return Some(1);
    }
    let inside = text.strip_prefix('{')?.split_once('}')?.0;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_one = match inside.split_once(',') {
        Some((low, high)) => number(low) && (high.is_empty() || number(high)),
        None => number(inside),
    };
    is_one.then_some(inside.len() + 2)
}

/// Tests of a package.
#[derive(Debug, Clone)]
pub struct Filters {
    /// Those that run.
    pub run: Filter,
    /// Those of them that do not.
    pub skip: Option<Filter>,
}

/// Tests of every package, and of those in which others are wanted.
#[derive(Debug, Clone)]
pub struct TestFilters {
    /// Where nothing else is said.
    pub usual: Filters,
    /// By cell and package.
    pub special: BTreeMap<(CellId, String), Filters>,
}

impl TestFilters {
    /// The tests of a package in a cell.
    pub fn of(&self, cell: &CellId, package: &str) -> &Filters {
        if self.special.is_empty() {
            return &self.usual;
        }
        self.special.get(&(cell.clone(), package.to_owned())).unwrap_or(&self.usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(usize, usize, &str)> {
        split(text).into_iter().map(|e| (e.alternative, e.depth, e.text)).collect()
    }

    #[test]
    fn filters_split_where_go_splits_them() {
        assert_eq!(parts(""), [(0, 0, "")]);
        assert_eq!(parts("A/x|B/y"), [(0, 0, "A"), (0, 1, "x"), (1, 0, "B"), (1, 1, "y")]);
        assert_eq!(parts("A[/|]/[(]x"), [(0, 0, "A[/|]"), (0, 1, "[(]x")]);
        assert_eq!(parts("(A|B)/(x/y)"), [(0, 0, "(A|B)"), (0, 1, "(x/y)")]);
        assert_eq!(parts(r"A\/b/\[c"), [(0, 0, r"A\/b"), (0, 1, r"\[c")]);
        assert_eq!(parts("]/a|"), [(0, 0, "]"), (0, 1, "a"), (1, 0, "")]);
    }

    #[test]
    fn each_alternative_selects_by_its_first_element() {
        let filter = Filter::parse("TestA/x|^TestB$/y").unwrap();
        assert!(filter.selects_top_level("TestA1"));
        assert!(filter.selects_top_level("TestB"));
        assert!(!filter.selects_top_level("TestB2"));
        assert_eq!(filter.first_elements(), ["TestA", "^TestB$"]);
        assert_eq!(filter.list_pattern(), ".*");
        assert_eq!(Filter::parse("TestA/x").unwrap().list_pattern(), "TestA");
        assert_eq!(Filter::parse("").unwrap().list_pattern(), ".*");
        assert!(Filter::parse("").unwrap().selects_top_level("Anything"));
    }

    #[test]
    fn what_go_accepts_is_accepted() {
        for text in [
            r"\QTest(\E",
            r"\Qa",
            r"Test\z",
            r"\pN\p{Greek}",
            r"\PN",
            "a{,5}",
            "a{",
            "}",
            "{",
            "a{2,3}",
            "[[]",
            "[a&&b]",
            "[]a]",
            "[^]a]",
            "[[:alpha:]_]",
            r"\x41\x{1F600}",
            r"\141",
            r"\0",
            r"\-\_\!\ \<\>",
            "(?i)test",
            "(?P<n>a)",
            "(?<n>a)",
            "a??b*?c+?",
            r"[\d\-z]",
            "TestÜ",
            "Test name",
            "^$",
            "(?U)a+",
            r"\bfoo\B",
            "a|b|",
            "x{1000}",
            r"[\Q]",
        ] {
            if text == r"[\Q]" {
                assert!(Filter::parse(text).is_err());
                continue;
            }
            assert!(Filter::parse(text).is_ok(), "{text}: {}", Filter::parse(text).unwrap_err());
        }
    }

    #[test]
    fn what_go_refuses_is_refused_at_its_place() {
        for (text, at) in [
            ("TestA/(x", 6),
            ("TestA/x)", 7),
            ("TestA|B[", 7),
            ("*", 0),
            (r"A\", 1),
            (r"A\1", 1),
            (r"A\k", 1),
            ("A/a**/b", 4),
            ("[b-a]", 1),
            (r"\pX", 0),
            ("(?=a)", 0),
            ("ü/(", 3),
            ("x{1001}", 1),
            ("(?x)a", 0),
            ("(?R)", 0),
            (r"[\b]", 1),
            (r"\u0041", 0),
            (r"\C", 0),
            ("a*??", 3),
            ("a{2,1}", 1),
            ("(a", 0),
        ] {
            let error = Filter::parse(text).expect_err(text);
            assert_eq!(error.at, at, "{error}");
        }
        let shown = Filter::parse("TestÜ/(x").unwrap_err().to_string();
        assert_eq!(shown.lines().nth(2), Some("        ^"), "{shown}");
    }

    #[test]
    fn literals_and_spaces_mean_what_go_means() {
        assert!(Filter::parse(r"\Qa.b\E").unwrap().selects_top_level("a.b"));
        assert!(!Filter::parse(r"\Qa.b\E").unwrap().selects_top_level("axb"));
        assert!(Filter::parse("a b").unwrap().selects_top_level("a_b"));
        assert!(!Filter::parse(r"^\w$").unwrap().selects_top_level("ü"));
    }
}
