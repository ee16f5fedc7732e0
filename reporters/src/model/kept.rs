//! The tests of a package as they are kept: what passed plainly costs [`Entry`] and its name, 28 bytes and as many as the
//! name has; everything else is kept whole, some hundred bytes an attempt.
//!
//! Plainly passed is: one attempt, with an end, result pass, no message, no complaint of the kernel. Tests move there in
//! batches, and back when more is heard of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter::from_fn;

use super::facts::{Attempt, TestEnded};
use crate::event::{OutputRef, TestResult};

/// Tests that are kept whole before the plain ones of them move, at least.
const BATCH: usize = 1024;

/// Files that plain tests of one package may have their output in: one an execution.
const FILES: usize = 256;

/// What stands for no file, no execution, and for a test that moved back.
const NONE: u16 = u16::MAX;

/// Tests that said anything, by full name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tests {
    odd: BTreeMap<String, Vec<Attempt>>,
    plain: Plain,
    /// Tests kept whole when the plain ones of them last moved.
    left: usize,
}

/// A test that passed plainly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed<'p> {
    /// Full name.
    pub(crate) name: &'p str,
    /// Milliseconds.
    pub(crate) duration_ms: u64,
    entry: Entry,
    file: Option<&'p str>,
}

impl Passed<'_> {
    /// Its own output.
    pub(crate) fn output(&self) -> Option<OutputRef> {
        let (offset, length) = (self.entry.offset.into(), self.entry.length.into());
        self.file.map(|file| OutputRef { file: file.to_owned(), offset, length })
    }

    fn attempt(&self) -> Attempt {
        Attempt {
            number: self.entry.number.into(),
            shard: (self.entry.shard != NONE).then(|| self.entry.shard.into()),
            started_ms: self.entry.started_ms.into(),
            ended: Some(TestEnded {
                result: TestResult::Pass,
                duration_ms: self.duration_ms,
                output: self.output(),
                message: None,
            }),
            splats: Vec::new(),
        }
    }
}

impl Tests {
    /// Every test and its attempts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Cow<'_, [Attempt]>)> {
        let mut odd = self.odd.iter().peekable();
        let mut plain = self.plain.iter().peekable();
        from_fn(move || match (odd.peek(), plain.peek()) {
            (Some((name, _)), Some(passed)) if name.as_str() < passed.name => whole(odd.next()?),
            (_, Some(_)) => plain.next().map(|passed| (passed.name, Cow::Owned(vec![passed.attempt()]))),
            (_, None) => whole(odd.next()?),
        })
    }

    /// The attempts at one test.
    pub fn get(&self, name: &str) -> Option<Cow<'_, [Attempt]>> {
        match self.odd.get(name) {
            Some(attempts) => Some(Cow::Borrowed(attempts.as_slice())),
            None => self.plain.get(name).map(|passed| Cow::Owned(vec![passed.attempt()])),
        }
    }

    /// Whether it said anything.
    pub fn contains(&self, name: &str) -> bool {
        self.odd.contains_key(name) || self.plain.get(name).is_some()
    }

    /// Whether none said anything.
    pub fn is_empty(&self) -> bool {
        self.odd.is_empty() && self.plain.is_empty()
    }

    /// Those that did not pass plainly, and some that did.
    pub fn odd(&self) -> &BTreeMap<String, Vec<Attempt>> {
        &self.odd
    }

    /// The longest that any of them took, milliseconds.
    pub fn longest_ms(&self) -> u64 {
        let odd = self.odd.values().flatten().filter_map(|attempt| attempt.ended.as_ref());
        let odd = odd.map(|ended| ended.duration_ms).max();
        odd.max(self.plain.entries.iter().map(|entry| entry.duration_ms.into()).max()).unwrap_or(0)
    }

    /// The attempts at a test, of which nothing need be known yet.
    pub(super) fn entry(&mut self, name: String) -> &mut Vec<Attempt> {
        match self.plain.take(&name) {
            Some(attempt) => self.odd.entry(name).or_insert_with(|| vec![attempt]),
            None => self.odd.entry(name).or_default(),
        }
    }

    /// The plain ones that are not among the odd, by name.
    pub(crate) fn plain(&self) -> impl Iterator<Item = Passed<'_>> {
        self.plain.iter()
    }

    /// How many of them there are.
    pub(crate) fn plain_count(&self) -> usize {
        self.plain.entries.len() - self.plain.gone
    }

    /// One of them.
    pub(crate) fn passed(&self, name: &str) -> Option<Passed<'_>> {
        self.plain.get(name)
    }

    /// How many of them are below a test.
    pub(crate) fn plain_below(&self, name: &str) -> usize {
        self.plain.below(&format!("{name}/"))
    }

    /// Moves what passed plainly, once that is worth it.
    pub(super) fn settle(&mut self) {
        if self.odd.len() >= 2 * self.left + BATCH.max(self.plain.entries.len() / 16) {
            self.press();
        }
    }

    /// Moves what passed plainly.
    pub(super) fn press(&mut self) {
        let odd = std::mem::take(&mut self.odd);
        let (pressed, odd): (Vec<_>, Vec<_>) =
            odd.into_iter().partition(|(name, attempts)| self.plain.takes(name, attempts));
        self.odd = odd.into_iter().collect();
        self.left = self.odd.len();
        if !pressed.is_empty() {
            self.plain = self.plain.with(pressed);
        }
    }
}

fn whole<'t>((name, attempts): (&'t String, &'t Vec<Attempt>)) -> Option<(&'t str, Cow<'t, [Attempt]>)> {
    Some((name.as_str(), Cow::Borrowed(attempts.as_slice())))
}

/// What is kept of a test that passed plainly, beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    name_at: u32,
    started_ms: u32,
    duration_ms: u32,
    offset: u32,
    length: u32,
    name_length: u16,
    /// Index of the file of its output.
    file: u16,
    number: u16,
    shard: u16,
}

/// Tests that passed plainly, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Plain {
    names: String,
    entries: Vec<Entry>,
    files: Vec<String>,
    /// Entries that stand for nothing any more.
    gone: usize,
}

impl Plain {
    fn name(&self, entry: &Entry) -> &str {
        let from = entry.name_at as usize;
        &self.names[from..from + usize::from(entry.name_length)]
    }

    fn passed(&self, entry: &Entry) -> Passed<'_> {
        Passed {
            name: self.name(entry),
            duration_ms: entry.duration_ms.into(),
            entry: *entry,
            file: self.files.get(usize::from(entry.file)).map(String::as_str),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Passed<'_>> {
        self.entries.iter().filter(|entry| entry.number != NONE).map(|entry| self.passed(entry))
    }

    fn is_empty(&self) -> bool {
        self.entries.len() == self.gone
    }

    fn place(&self, name: &str) -> Option<usize> {
        let at = self.entries.binary_search_by(|entry| self.name(entry).cmp(name)).ok()?;
        (self.entries[at].number != NONE).then_some(at)
    }

    fn get(&self, name: &str) -> Option<Passed<'_>> {
        self.place(name).map(|at| self.passed(&self.entries[at]))
    }

    /// Takes one out.
    fn take(&mut self, name: &str) -> Option<Attempt> {
        let at = self.place(name)?;
        let attempt = self.passed(&self.entries[at]).attempt();
        self.entries[at].number = NONE;
        self.gone += 1;
        Some(attempt)
    }

    /// How many names begin so.
    fn below(&self, prefix: &str) -> usize {
        let from = self.entries.partition_point(|entry| self.name(entry) < prefix);
        let below = &self.entries[from..];
        let count = below.partition_point(|entry| self.name(entry).starts_with(prefix));
        below[..count].iter().filter(|entry| entry.number != NONE).count()
    }

    /// Whether a test is a plain one whose figures fit an entry; then its file has a place.
    fn takes(&mut self, name: &str, attempts: &[Attempt]) -> bool {
        let [Attempt { number, shard, started_ms, ended: Some(ended), splats }] = attempts else {
            return false;
        };
        let small = |figure: u64| u32::try_from(figure).is_ok();
        let fits = name.len() < usize::from(NONE)
            && *number < NONE.into()
            && shard.is_none_or(|shard| shard < NONE.into())
            && small(*started_ms)
            && small(ended.duration_ms)
            && ended.output.as_ref().is_none_or(|output| small(output.offset) && small(output.length));
        let plain = ended.result == TestResult::Pass && ended.message.is_none() && splats.is_empty();
        let Some(output) = ended.output.as_ref().filter(|_| plain && fits) else {
            return plain && fits;
        };
        if self.file(&output.file).is_none() && self.files.len() < FILES {
            self.files.push(output.file.clone());
        }
        self.file(&output.file).is_some()
    }

    fn file(&self, name: &str) -> Option<u16> {
        let at = self.files.iter().rposition(|file| file == name)?;
        u16::try_from(at).ok()
    }

    /// All of it and these, which it said it takes, by name.
    fn with(&mut self, pressed: Vec<(String, Vec<Attempt>)>) -> Plain {
        let bytes: usize = pressed.iter().map(|(name, _)| name.len()).sum();
        let mut all = Plain {
            names: String::with_capacity(self.names.len() + bytes),
            entries: Vec::with_capacity(self.entries.len() - self.gone + pressed.len()),
            files: std::mem::take(&mut self.files),
            gone: 0,
        };
        let mut old = self.entries.iter().filter(|entry| entry.number != NONE).peekable();
        for (name, attempts) in &pressed {
            while let Some(entry) = old.next_if(|entry| self.name(entry) < name.as_str()) {
                all.push(self.name(entry), *entry);
            }
            if let Some(entry) = attempts.first().and_then(|attempt| all.entry(attempt)) {
                all.push(name, entry);
            }
        }
        old.for_each(|entry| all.push(self.name(entry), *entry));
        all
    }

    fn push(&mut self, name: &str, entry: Entry) {
        let name_at = self.names.len() as u32;
        self.names.push_str(name);
        self.entries.push(Entry { name_at, name_length: name.len() as u16, ..entry });
    }

    fn entry(&self, attempt: &Attempt) -> Option<Entry> {
        let ended = attempt.ended.as_ref()?;
        let (file, offset, length) = match &ended.output {
            Some(output) => (self.file(&output.file)?, output.offset, output.length),
            None => (NONE, 0, 0),
        };
        Some(Entry {
            name_at: 0,
            started_ms: u32::try_from(attempt.started_ms).ok()?,
            duration_ms: u32::try_from(ended.duration_ms).ok()?,
            offset: u32::try_from(offset).ok()?,
            length: u32::try_from(length).ok()?,
            name_length: 0,
            file,
            number: u16::try_from(attempt.number).ok()?,
            shard: attempt.shard.map_or(Some(NONE), |shard| u16::try_from(shard).ok())?,
        })
    }
}

impl Tests {
    /// Keeps all of it whole again.
    #[cfg(test)]
    pub(super) fn unpress(&mut self) {
        let names: Vec<String> = self.plain.iter().map(|passed| passed.name.to_owned()).collect();
        names.into_iter().for_each(|name| _ = self.entry(name));
    }

    /// Bytes on the heap of what passed plainly.
    #[cfg(test)]
    pub(super) fn plain_bytes(&self) -> usize {
        let files: usize = self.plain.files.iter().map(String::capacity).sum();
        self.plain.names.capacity() + self.plain.entries.capacity() * size_of::<Entry>() + files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a passed test may cost beside its name.
    const COST: usize = 32;

    fn passed(number: u32) -> Vec<Attempt> {
        let output =
            Some(OutputRef { file: "output/x.tests".into(), offset: 80 * u64::from(number), length: 80 });
        let ended = TestEnded { result: TestResult::Pass, duration_ms: 7, output, message: None };
        vec![Attempt { number: 1, shard: Some(0), started_ms: 12, ended: Some(ended), splats: Vec::new() }]
    }

    fn name(number: u32) -> String {
        format!("TestNumber{}/case_{number}", number % 97)
    }

    fn filled(count: u32) -> Tests {
        let mut tests = Tests::default();
        for number in 0..count {
            tests.entry(name(number)).extend(passed(number));
            tests.settle();
        }
        tests
    }

    #[test]
    fn a_passed_test_costs_its_name_and_some_bytes() {
        let mut tests = filled(50_000);
        assert!(tests.odd.len() < 5_000, "{} wait", tests.odd.len());
        tests.press();
        let names: usize = (0..50_000).map(|number| name(number).len()).sum();
        assert_eq!((tests.odd.len(), tests.plain_count()), (0, 50_000));
        let each = (tests.plain_bytes() - names) / 50_000;
        assert!(each <= COST, "{each} bytes");
    }

    #[test]
    fn what_was_kept_is_what_is_told_in_order() {
        let mut tests = filled(3_000);
        tests.press();
        assert_eq!(tests.get(&name(5)).unwrap().as_ref(), passed(5));
        let told: Vec<String> = tests.iter().map(|(name, _)| name.to_owned()).collect();
        let mut wanted: Vec<String> = (0..3_000).map(name).collect();
        wanted.sort();
        assert_eq!(told, wanted);
        assert_eq!(tests.plain_below("TestNumber5"), (0..3_000).filter(|n| n % 97 == 5).count());
    }

    #[test]
    fn more_of_a_test_brings_it_back() {
        let mut tests = filled(100);
        tests.press();
        tests.entry(name(3)).extend(passed(300));
        assert_eq!((tests.odd.len(), tests.plain_count(), tests.iter().count()), (1, 99, 100));
        assert_eq!(tests.get(&name(3)).unwrap().len(), 2);
        tests.press();
        assert_eq!((tests.odd.len(), tests.plain_count()), (1, 99));
        assert!(tests.contains(&name(3)) && !tests.contains("TestNumber3"));
    }

    #[test]
    fn what_does_not_fit_or_is_not_plain_stays_whole() {
        let mut tests = Tests::default();
        let mut odd = [passed(1), passed(2), passed(3), passed(4)];
        odd[0][0].splats.push(0);
        odd[1][0].number = u32::MAX;
        odd[2][0].started_ms = u64::MAX;
        odd[3][0].ended.as_mut().unwrap().message = Some("m".into());
        for (number, attempts) in odd.iter().enumerate() {
            tests.entry(number.to_string()).extend(attempts.iter().cloned());
        }
        tests.press();
        assert_eq!((tests.odd.len(), tests.plain_count()), (4, 0));
    }
}
