//! One pass over a line for the words of all rules.

use std::sync::OnceLock;

use memchr::memmem::Finder;

use super::rule::{At, From, Milestone, Rule};
use super::sieve::{Found, Sieve};
use super::{FAMILIES, seen};
use crate::triage::prefix;
use crate::triage::splat;

/// What words in a line mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// The rule of this index fits, by words that begin here.
    Rule(usize, usize),
    /// Random numbers are to be had.
    RandomReady,
    /// The boot got this far.
    Reached(Milestone),
    /// A kernel begins; everything before belongs to another boot.
    KernelBegins,
    /// A complaint of the kernel begins.
    Splat,
}

/// Words, and what they mean.
#[derive(Debug)]
pub(super) struct Matcher {
    sieve: Sieve,
    /// For each word of the sieve: what it means, and where it must stand.
    signs: Vec<(Sign, At)>,
    rules: Vec<&'static Rule>,
    /// For each rule what else it asks of a line.
    asks: Vec<Asks>,
}

/// The words beside a rule's own, made ready to be looked for.
#[derive(Debug)]
struct Asks {
    with: Vec<Finder<'static>>,
    without: Vec<Finder<'static>>,
}

/// The matcher of all rules, made once.
pub(super) fn matcher() -> &'static Matcher {
    static MATCHER: OnceLock<Matcher> = OnceLock::new();
    MATCHER.get_or_init(Matcher::new)
}

impl Matcher {
    fn new() -> Matcher {
        let rules: Vec<&Rule> = FAMILIES.iter().flat_map(|family| family.iter()).collect();
        let mut words: Vec<&'static str> = Vec::new();
        let mut signs = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            for word in rule.words {
                words.push(word);
                signs.push((Sign::Rule(index, 0), rule.at));
            }
        }
        for (sign, at, some) in seen::SIGNS {
            for word in *some {
                words.push(word);
                signs.push((*sign, *at));
            }
        }
        for word in splat::starts() {
            words.push(word);
            signs.push((Sign::Splat, At::Start));
        }
        let finders = |words: &'static [&'static str]| words.iter().map(Finder::new).collect();
        let asks = rules.iter().map(|rule| Asks { with: finders(rule.with), without: finders(rule.without) });
        let asks = asks.collect();
        let sieve = Sieve::new(&words);
        Matcher { sieve, signs, rules, asks }
    }

    pub(super) fn rules(&self) -> &[&'static Rule] {
        &self.rules
    }

    /// Gives every sign in a line of the console to `each`, a sign more than once where its words repeat.
    pub(super) fn line(&self, line: &[u8], mut each: impl FnMut(Sign)) {
        self.search(line, From::Console, &mut each);
    }

    /// Every rule that the words of libvirt, QEMU or SSH fit, line by line.
    pub(super) fn words(&self, text: &str, from: From, mut each: impl FnMut(usize, &str)) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.search(line.as_bytes(), from, &mut |sign| {
                if let Sign::Rule(index, _) = sign {
                    each(index, line);
                }
            });
        }
    }

    fn search(&self, line: &[u8], from: From, each: &mut impl FnMut(Sign)) {
        let mut message = None;
        for Found { start, end, word } in self.sieve.find(line) {
            let message = *message.get_or_insert_with(|| prefix::strip(line).at);
            let (sign, at) = self.signs[word];
            // The kernel repeats its command line, which may hold any words.
            if is_command_line(&line[message..]) || !stands(line, start, end, message, at) {
                continue;
            }
            match sign {
                Sign::Rule(index, _) if self.rules[index].from != from || !self.asks[index].fit(line) => {}
                Sign::Rule(index, _) => each(Sign::Rule(index, start)),
                _ if from == From::Console => each(sign),
                _ => {}
            }
        }
    }
}

impl Asks {
    /// What beside its words a rule asks of a line.
    fn fit(&self, line: &[u8]) -> bool {
        let has = |word: &Finder<'_>| word.find(line).is_some();
        (self.with.is_empty() || self.with.iter().any(has)) && !self.without.iter().any(has)
    }
}

fn is_command_line(message: &[u8]) -> bool {
    [b"Command line: ".as_slice(), b"Kernel command line: ", b"Unknown kernel command line", b"audit: "]
        .iter()
        .any(|start| message.starts_with(start))
}

/// Whether words at `start..end` stand where they must.
fn stands(line: &[u8], start: usize, end: usize, message: usize, at: At) -> bool {
    match at {
        At::Anywhere => true,
        At::End => line[end..].iter().all(|byte| *byte == b' '),
        At::Start if start == message => true,
        // `vm7 login: [   12.3] Kernel panic`: a stamp in the middle of a line.
        At::Start => memchr::memrchr(b'[', &line[..start])
            .is_some_and(|open| open > 0 && prefix::strip(&line[open..]).at == start - open && start > open),
    }
}
