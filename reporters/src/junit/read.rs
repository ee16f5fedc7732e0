//! Any JUnit file, as it is: also one that nobody here wrote. Time and memory are linear in its size.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event as Xml};

/// Bytes of text in a case that are kept.
pub const EXCERPT: usize = 8 << 10;

/// A file that is no XML, or no JUnit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct NoJunit {
    /// Line, from 1.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// Bytes of it.
    pub bytes: u64,
    /// Suites in the order in which they begin.
    pub suites: Vec<Suite>,
    /// Cases in order.
    pub cases: Vec<Case>,
    /// Lines with characters that XML 1.0 does not have, raw or by number.
    pub invalid_characters: Vec<u64>,
    /// Lines with entities that nothing defines.
    pub undefined_entities: Vec<u64>,
}

/// A `<testsuite>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Suite {
    /// Line, from 1.
    pub line: u64,
    /// Its attributes.
    pub attributes: Vec<(String, String)>,
    /// Its properties: name and value.
    pub properties: Vec<(String, String)>,
    /// Bytes of its own `system-out` and `system-err`.
    pub stdio: u64,
    /// Cases directly in it.
    pub cases: u64,
    /// How many of those are failures or errors.
    pub bad: u64,
}

/// A `<testcase>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Case {
    /// Line, from 1.
    pub line: u64,
    /// Index into [`Document::suites`]; `None` outside any.
    pub suite: Option<usize>,
    /// Its attributes.
    pub attributes: Vec<(String, String)>,
    /// Its properties: name and value.
    pub properties: Vec<(String, String)>,
    /// Its other children.
    pub children: Vec<Child>,
}

/// An element in a case: `failure`, `error`, `skipped`, `system-out`, `flakyFailure` …
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Child {
    /// Name of the element.
    pub name: String,
    /// Its `message`.
    pub message: String,
    /// Bytes of text in it that are not blank.
    pub text: u64,
    /// The first [`EXCERPT`] bytes of the text.
    pub excerpt: String,
    /// Whether the text names an attachment.
    pub attachment: bool,
}

impl Suite {
    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        of(&self.attributes, name)
    }
}

impl Case {
    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        of(&self.attributes, name)
    }

    /// Whether it has such a child.
    pub fn has(&self, name: &str) -> bool {
        self.children.iter().any(|child| child.name == name)
    }

    /// Whether it is a failure or an error.
    pub fn is_bad(&self) -> bool {
        self.has("failure") || self.has("error")
    }
}

impl Child {
    fn keep(&mut self, text: &str) {
        let room = EXCERPT.saturating_sub(self.excerpt.len());
        let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.excerpt.push_str(&text[..end]);
    }
}

fn of<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Whether XML 1.0 has the character.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Reads a file.
///
/// # Errors
/// It is not UTF-8, not well-formed, or its root is neither `testsuites` nor `testsuite`.
pub fn read(bytes: &[u8]) -> Result<Document, NoJunit> {
    let text = std::str::from_utf8(bytes).map_err(|error| NoJunit {
        line: 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64,
        message: "it is not UTF-8".to_owned(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut walk = Walk { text, ..Walk::default() };
    walk.document.bytes = bytes.len() as u64;
    let mut reader = Reader::from_str(text);
    loop {
        let from = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
        let event = reader.read_event().map_err(|error| {
            walk.advance(usize::try_from(reader.error_position()).unwrap_or(from));
            walk.wrong(&format!("not well-formed: {error}"))
        })?;
        let to = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
        walk.advance(from);
        if matches!(event, Xml::Eof) {
            break;
        }
        walk.characters(from, to);
        walk.event(&event)?;
    }
    walk.end()
}

/// Where one is in the file.
#[derive(Debug, Default)]
struct Walk<'t> {
    text: &'t str,
    document: Document,
    /// Byte up to which lines are counted, and their number.
    counted: usize,
    lines: u64,
    /// Open elements by name.
    open: Vec<String>,
    suites: Vec<usize>,
    case: Option<(usize, Case)>,
    child: Option<(usize, Child)>,
    rooted: bool,
}

impl Walk<'_> {
    fn advance(&mut self, to: usize) {
        let to = to.min(self.text.len());
        if to > self.counted {
            let passed = &self.text.as_bytes()[self.counted..to];
            self.lines += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.counted = to;
        }
    }

    fn line(&self) -> u64 {
        self.lines + 1
    }

    fn wrong(&self, message: &str) -> NoJunit {
        NoJunit { line: self.line(), message: message.to_owned() }
    }

    /// Notes raw characters that XML does not have.
    fn characters(&mut self, from: usize, to: usize) {
        let piece = self.text.get(from..to).unwrap_or_default();
        if piece.chars().any(|c| !is_xml(c)) {
            self.document.invalid_characters.push(self.line());
        }
    }

    fn event(&mut self, event: &Xml<'_>) -> Result<(), NoJunit> {
        match event {
            Xml::Start(tag) => self.start(tag, false),
            Xml::Empty(tag) => self.start(tag, true),
            Xml::End(_) => {
                self.close();
                Ok(())
            }
            Xml::Text(text) => self.content(&String::from_utf8_lossy(text)),
            Xml::CData(text) => self.content(&String::from_utf8_lossy(text)),
            Xml::GeneralRef(reference) => self.reference(&String::from_utf8_lossy(reference)),
            _ => Ok(()),
        }
    }

    fn start(&mut self, tag: &BytesStart<'_>, empty: bool) -> Result<(), NoJunit> {
        let name = String::from_utf8_lossy(tag.local_name().as_ref()).into_owned();
        if self.open.is_empty() {
            if self.rooted {
                return Err(self.wrong("not well-formed: a second root element"));
            }
            if !matches!(name.as_str(), "testsuites" | "testsuite") {
                return Err(self.wrong(&format!("the root is `{name}`, not `testsuites` or `testsuite`")));
            }
            self.rooted = true;
        }
        let attributes = self.attributes(tag)?;
        self.open.push(name.clone());
        let depth = self.open.len();
        let attribute = |key: &str| of(&attributes, key).unwrap_or_default().to_owned();
        match name.as_str() {
            "testsuite" if self.case.is_none() => {
                self.suites.push(self.document.suites.len());
                self.document.suites.push(Suite { line: self.line(), attributes, ..Suite::default() });
            }
            "testcase" if self.case.is_none() => {
                let suite = self.suites.last().copied();
                self.case = Some((depth, Case { line: self.line(), suite, attributes, ..Case::default() }));
            }
            "property" => {
                let property = (attribute("name"), attribute("value"));
                match (&mut self.case, self.suites.last()) {
                    (Some((_, case)), _) => case.properties.push(property),
                    (None, Some(suite)) => self.document.suites[*suite].properties.push(property),
                    (None, None) => {}
                }
            }
            "properties" => {}
            _ if self.child.is_none() && (self.case.is_some() || !self.suites.is_empty()) => {
                let message = attribute("message");
                self.child = Some((depth, Child { name, message, ..Child::default() }));
            }
            _ => {}
        }
        if empty {
            self.close();
        }
        Ok(())
    }

    fn close(&mut self) {
        let depth = self.open.len();
        let name = self.open.pop().unwrap_or_default();
        if let Some((_, child)) = self.child.take_if(|(at, _)| *at == depth) {
            match (&mut self.case, self.suites.last()) {
                (Some((_, case)), _) => case.children.push(child),
                (None, Some(suite)) if child.name.starts_with("system-") => {
                    self.document.suites[*suite].stdio += child.text;
                }
                _ => {}
            }
        }
        if let Some((_, case)) = self.case.take_if(|(at, _)| *at == depth) {
            if let Some(suite) = case.suite {
                self.document.suites[suite].cases += 1;
                self.document.suites[suite].bad += u64::from(case.is_bad());
            }
            self.document.cases.push(case);
        }
        if name == "testsuite" && self.case.is_none() {
            self.suites.pop();
        }
    }

    fn attributes(&mut self, tag: &BytesStart<'_>) -> Result<Vec<(String, String)>, NoJunit> {
        let mut found = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| self.wrong(&format!("not well-formed: {error}")))?;
            let key = String::from_utf8_lossy(attribute.key.local_name().as_ref()).into_owned();
            let raw = String::from_utf8_lossy(&attribute.value).into_owned();
            let value = match quick_xml::escape::unescape(&raw) {
                Ok(value) => value,
                Err(_) => {
                    self.document.undefined_entities.push(self.line());
                    Cow::Borrowed(raw.as_str())
                }
            };
            // Raw ones are noted already; these are written by number.
            if value.chars().any(|c| !is_xml(c)) && raw.chars().all(is_xml) {
                self.document.invalid_characters.push(self.line());
            }
            found.push((key, value.into_owned()));
        }
        Ok(found)
    }

    fn content(&mut self, text: &str) -> Result<(), NoJunit> {
        if self.open.is_empty() && !text.trim().is_empty() {
            return Err(self.wrong("not well-formed: text outside the root element"));
        }
        if let Some((_, child)) = &mut self.child {
            child.text += text.trim().len() as u64;
            child.keep(text);
            child.attachment |= text.contains("[[ATTACHMENT|");
        }
        Ok(())
    }

    fn reference(&mut self, name: &str) -> Result<(), NoJunit> {
        if self.open.is_empty() {
            return Err(self.wrong("not well-formed: text outside the root element"));
        }
        match quick_xml::escape::unescape(&format!("&{name};")) {
            Ok(value) if value.chars().all(is_xml) => {
                if let Some((_, child)) = &mut self.child {
                    child.keep(&value);
                }
            }
            Ok(_) => self.document.invalid_characters.push(self.line()),
            Err(_) => self.document.undefined_entities.push(self.line()),
        }
        if let Some((_, child)) = &mut self.child {
            child.text += 1;
        }
        Ok(())
    }

    fn end(mut self) -> Result<Document, NoJunit> {
        self.advance(self.text.len());
        match (self.rooted, self.open.last()) {
            (false, _) => Err(self.wrong("there is no element at all")),
            (true, Some(open)) => Err(self.wrong(&format!("not well-formed: it ends within `{open}`"))),
            (true, None) => Ok(self.document),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_file_is_read_as_it_is() {
        let text = r#"<?xml version="1.0"?>
<testsuites tests="2">
  <testsuite name="pkg/a" tests="2" time="0.1">
    <properties><property name="go.version" value="go1.25"></property></properties>
    <testcase classname="pkg/a" name="TestA" time="0.1"></testcase>
    <testcase classname="pkg/a" name="TestB &lt;x&gt;" time="0.0">
      <failure message="Failed" type="">a_test.go:1 &amp; more<b>deep</b></failure>
      <system-out>[[ATTACHMENT|a.png]]</system-out>
    </testcase>
    <system-err>noise</system-err>
  </testsuite>
</testsuites>
"#;
        let document = read(text.as_bytes()).unwrap();
        assert_eq!((document.suites.len(), document.cases.len()), (1, 2));
        let suite = &document.suites[0];
        assert_eq!((suite.line, suite.attribute("name"), suite.cases, suite.bad), (3, Some("pkg/a"), 2, 1));
        assert_eq!((suite.properties.len(), suite.stdio), (1, 5));
        let case = &document.cases[1];
        assert_eq!((case.line, case.attribute("name")), (6, Some("TestB <x>")));
        let names: Vec<_> = case.children.iter().map(|child| child.name.as_str()).collect();
        assert_eq!(names, ["failure", "system-out"]);
        assert!(case.children[0].text > 10 && case.children[1].attachment);
        assert_eq!(case.children[0].excerpt, "a_test.go:1 & moredeep");
    }

    #[test]
    fn what_is_no_junit_is_said_with_its_line() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "line 1: there is no element at all"),
            (b"{}", "line 1: not well-formed: text outside the root element"),
            (b"<html></html>", "line 1: the root is `html`, not `testsuites` or `testsuite`"),
            (b"<testsuite>\n<testcase>", "line 2: not well-formed: it ends within `testcase`"),
            (b"<testsuite/>\n<testsuite/>", "line 2: not well-formed: a second root element"),
            (b"<testsuite>\n\xff</testsuite>", "line 2: it is not UTF-8"),
            (b"<testsuite>\n</testcase></testsuite>", "line 2: not well-formed"),
            (b"<testsuite a='1' a='2'/>", "line 1: not well-formed"),
            (b"<testsuites/>]]>garbage", "line 1: not well-formed"),
        ];
        for (bytes, message) in cases {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn characters_that_xml_does_not_have_are_noted() {
        let text = "<testsuite name='a&#x1b;b'>\n<testcase name='\u{1}'/><testcase><failure>&#0;&nosuch;</failure></testcase></testsuite>";
        let document = read(text.as_bytes()).unwrap();
        assert_eq!(document.invalid_characters, [1, 2]);
        assert_eq!(document.undefined_entities.len(), 2);
    }
}
