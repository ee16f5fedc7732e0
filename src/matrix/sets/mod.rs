//! Test sets: named parts of a suite. A cell with a set runs only what the set says, and how it says.
//!
//! Owns what a set means: which packages, which of their tests, with which arguments and environment. Where sets are
//! written is for `file` (matrix files) and `json` (run configs of the former tool). To give a package of a set one
//! more property, add it to [`Rule`] and to both.

pub mod json;

use std::collections::BTreeMap;

use kmt_reporters::event::CellId;
use serde::Serialize;

use super::select::{PackagePattern, TestChoice};
use crate::run::filter::Filter;

/// A part of a suite.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TestSet {
    /// What is said of packages, those that say most first; every package runs where there is none.
    rules: Vec<Rule>,
    /// Arguments of every binary.
    pub args: Vec<String>,
    /// Environment of every binary.
    pub env: BTreeMap<String, String>,
    /// Image of the container that its tests run in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// What a set says of packages.
#[derive(Debug, Clone, Serialize)]
pub struct Rule {
    /// Which packages: `pkg/ebpf`, `./pkg/network/...`; `*` for all.
    pub packages: String,
    #[serde(skip)]
    pattern: PackagePattern,
    /// Only tests that one of these matches, each with the meaning of `-test.run`; all where there is none.
    pub run_only: Vec<String>,
    /// Without the tests that one of these matches, each with the meaning of `-test.skip`.
    pub skip: Vec<String>,
    /// Whether the packages do not run at all.
    pub exclude: bool,
    /// Arguments of their binaries, after those of the set.
    pub args: Vec<String>,
    /// Their environment, over that of the set.
    pub env: BTreeMap<String, String>,
}

impl Rule {
    /// All tests of the packages.
    pub fn all_of(packages: &str) -> Rule {
        Rule {
            packages: packages.to_owned(),
            pattern: PackagePattern::of_go(packages),
            run_only: Vec::new(),
            skip: Vec::new(),
            exclude: false,
            args: Vec::new(),
            env: BTreeMap::new(),
        }
    }

    /// Which tests, in the words of `go test`: alternatives stay alternatives.
    pub fn tests(&self) -> TestChoice {
        let either = |patterns: &[String]| (!patterns.is_empty()).then(|| patterns.join("|"));
        TestChoice { run: either(&self.run_only), skip: either(&self.skip) }
    }
}

/// The first pattern that Go refuses, by its number, and why: alone, or behind those before it, since Go is given all of
/// them in one and cuts that by counting brackets.
pub fn refused<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Option<(usize, String)> {
    let mut all = Vec::new();
    for (number, pattern) in patterns.into_iter().enumerate() {
        if let Err(error) = Filter::parse(pattern) {
            return Some((number, error.reason));
        }
        all.push(pattern);
        if let Err(error) = Filter::parse(&all.join("|")) {
            return Some((number, format!("behind those before it: {}", error.reason)));
        }
    }
    None
}

impl TestSet {
    /// A set of what these rules say; of every package where there is none.
    pub fn of_rules(mut rules: Vec<Rule>) -> TestSet {
        if rules.is_empty() {
            rules.push(Rule::all_of("*"));
        }
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.pattern.weight()));
        TestSet { rules, ..TestSet::default() }
    }

    /// What it says of a package; `None` where it does not run: excluded, or in no rule.
    pub fn rule_of(&self, package: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.pattern.matches(package)).filter(|rule| !rule.exclude)
    }

    /// Arguments and environment of a package of it.
    pub fn words_for(&self, rule: &Rule) -> (Vec<String>, BTreeMap<String, String>) {
        let mut env = self.env.clone();
        env.extend(rule.env.clone());
        (self.args.iter().chain(&rule.args).cloned().collect(), env)
    }
}

/// The sets that cells may have.
#[derive(Debug, Clone, Default)]
pub struct TestSets {
    named: BTreeMap<String, TestSet>,
    usual: Option<TestSet>,
}

impl TestSets {
    /// Adds a set, or replaces it.
    pub fn insert(&mut self, name: &str, set: TestSet) {
        self.named.insert(name.to_owned(), set);
    }

    /// The set of cells that have none of these.
    pub fn set_usual(&mut self, set: TestSet) {
        self.usual = Some(set);
    }

    /// The set of a cell; `None` where everything runs.
    pub fn of(&self, cell: &CellId) -> Option<&TestSet> {
        cell.set.as_ref().and_then(|name| self.named.get(name)).or(self.usual.as_ref())
    }

    /// The named sets, by name.
    pub fn named(&self) -> &BTreeMap<String, TestSet> {
        &self.named
    }
}

/// Whether a set may have this name: it is part of cell ids, paths and job names.
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=64).contains(&name.len()) && name.chars().all(fits) && !name.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(packages: &str, change: impl FnOnce(&mut Rule)) -> Rule {
        let mut rule = Rule::all_of(packages);
        change(&mut rule);
        rule
    }

    #[test]
    fn the_rule_that_says_most_decides_and_no_rule_is_no_run() {
        let set = TestSet::of_rules(vec![
            rule("*", |rule| rule.skip.push("TestSlow".to_owned())),
            rule("./pkg/network/...", |rule| rule.exclude = true),
            rule("pkg/network/usm", |rule| rule.run_only = vec!["TestA/x".to_owned(), "^TestB$".to_owned()]),
        ]);
        let said = |package: &str| set.rule_of(package).map(|rule| rule.packages.as_str());
        assert_eq!(said("pkg/ebpf"), Some("*"));
        assert_eq!(said("pkg/network/tracer"), None);
        assert_eq!(said("pkg/network/usm"), Some("pkg/network/usm"));
        let tests = set.rule_of("pkg/network/usm").unwrap().tests();
        assert_eq!((tests.run.as_deref(), tests.skip), (Some("TestA/x|^TestB$"), None));
        let only = TestSet::of_rules(vec![Rule::all_of("pkg/ebpf")]);
        assert!(only.rule_of("pkg/ebpf").is_some() && only.rule_of("pkg/ebpf/x").is_none());
        assert!(TestSet::of_rules(Vec::new()).rule_of("anything").is_some());
    }

    #[test]
    fn patterns_that_go_cannot_cut_apart_again_are_refused_though_each_is_good() {
        let why = |patterns: &[&str]| refused(patterns.iter().copied());
        assert_eq!(why(&["TestA", "^TestB$/x", "(a|b)"]), None);
        assert_eq!(why(&[]), None);
        assert_eq!(why(&["TestA", "("]), Some((1, "unclosed group".to_owned())));
        // Go counts `[[]` as one bracket that stays open.
        assert_eq!(why(&["[[]"]), None);
        let (number, reason) = why(&["[[]", "TestB", "(x]/y)"]).unwrap();
        assert_eq!(number, 2);
        assert!(reason.starts_with("behind those before it: "), "{reason}");
    }

    #[test]
    fn arguments_add_up_and_the_nearer_variable_wins() {
        let mut set = TestSet::of_rules(vec![rule("pkg/a", |rule| {
            rule.args.push("-b".to_owned());
            rule.env.insert("X".to_owned(), "2".to_owned());
        })]);
        set.args.push("-a".to_owned());
        set.env = BTreeMap::from([("X", "1"), ("Y", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let (args, env) = set.words_for(set.rule_of("pkg/a").unwrap());
        assert_eq!(args, ["-a", "-b"]);
        assert_eq!((env["X"].as_str(), env["Y"].as_str()), ("2", "1"));
    }

    #[test]
    fn names_fit_into_cell_ids() {
        for name in ["only_usm", "cws_el_ns", "a.b-c"] {
            let cell = CellId { set: Some(name.to_owned()), .."a/1/arm64".parse().unwrap() };
            assert!(is_name(name) && cell.to_string().parse() == Ok(cell), "{name}");
        }
        for name in ["", "a+b", "a#1", "a/b", "a b", "é", ".."] {
            assert!(!is_name(name), "{name}");
        }
    }
}
