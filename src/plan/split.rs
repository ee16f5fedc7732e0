//! Tests of packages in parts of about equal work, for several machines of one cell.

use std::time::Duration;

use super::partition::hash;

/// Parts that each machine gets, about: more balance better, fewer start fewer binaries.
const PARTS: u32 = 4;
/// How much smaller the parts are that come last.
const SMALLER: u32 = 4;
/// No part is made smaller than this: a binary must start for each.
const LEAST: Duration = Duration::from_secs(1);
/// What a test takes that nobody has timed, where nobody has timed any.
const GUESS: Duration = Duration::from_secs(1);

/// Tests of one package that run in one execution, and how long they take, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The package.
    pub package: String,
    /// Its tests.
    pub tests: Vec<String>,
    /// How long they took before, those nobody has timed guessed.
    pub expected: Duration,
}

/// Splits packages, each with its tests, for so many machines: the longest part first. `known` says how long a test of a
/// package took; one that nobody has timed takes what the middle one of the others takes.
pub fn split(
    packages: Vec<(String, Vec<String>)>,
    known: impl Fn(&str, &str) -> Option<Duration>,
    machines: u32,
) -> Vec<Part> {
    let timed =
        packages.iter().flat_map(|(package, tests)| tests.iter().filter_map(|test| known(package, test)));
    let mut timed: Vec<Duration> = timed.collect();
    timed.sort_unstable();
    let guess = timed.get(timed.len() / 2).copied().unwrap_or(GUESS);
    let weighed = packages.into_iter().map(|(package, tests)| {
        let weigh = |test: String| (known(&package, &test).unwrap_or(guess), test);
        let mut tests: Vec<(Duration, String)> = tests.into_iter().map(weigh).collect();
        // Equal ones by hash: neighbours in a list are often alike, also in what nobody knows of them.
        tests.sort_by_cached_key(|(took, test)| (std::cmp::Reverse(*took), hash(&[&package, test])));
        (package, tests)
    });
    let weighed: Vec<(String, Vec<(Duration, String)>)> = weighed.collect();
    let total: Duration = weighed.iter().flat_map(|(_, tests)| tests.iter().map(|(took, _)| *took)).sum();
    let target = (total / (machines.max(1) * PARTS)).max(LEAST);
    let mut parts: Vec<Part> =
        weighed.into_iter().flat_map(|(package, tests)| parts_of(&package, tests, target)).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.expected));
    parts
}

/// As many parts as the target wants, each test where relatively least is so far. The last third of the work is in
/// smaller parts: they come last and fill what the large ones leave.
fn parts_of(package: &str, tests: Vec<(Duration, String)>, target: Duration) -> Vec<Part> {
    let total: Duration = tests.iter().map(|(took, _)| *took).sum();
    let small = (target / SMALLER).max(LEAST).min(target);
    let count = |work: Duration, size: Duration| (work.as_secs_f64() / size.as_secs_f64()).ceil() as usize;
    let (large_ones, small_ones) = match total > target && small < target {
        true => (count(total * 2 / 3, target), count(total / 3, small)),
        false => (count(total, target).max(1), 0),
    };
    let sizes = std::iter::repeat_n(target, large_ones).chain(std::iter::repeat_n(small, small_ones));
    let empty = || Part { package: package.to_owned(), tests: Vec::new(), expected: Duration::ZERO };
    let mut parts: Vec<(Duration, Part)> = sizes.take(tests.len()).map(|size| (size, empty())).collect();
    for (took, test) in tests {
        let filled =
            |(size, part): &(Duration, Part)| (part.expected + took).as_secs_f64() / size.as_secs_f64();
        let least = parts.iter_mut().min_by(|one, other| {
            filled(one).total_cmp(&filled(other)).then(one.1.tests.len().cmp(&other.1.tests.len()))
        });
        if let Some((_, part)) = least {
            part.expected += took;
            part.tests.push(test);
        }
    }
    parts.into_iter().map(|(_, part)| part).filter(|part| !part.tests.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("Test{number}")).collect()
    }

    #[test]
    fn parts_hold_every_test_once_and_are_even() {
        let known = |_: &str, test: &str| {
            let number: u64 = test.trim_start_matches("Test").parse().unwrap();
            Some(Duration::from_millis(100 + 37 * (number % 91)))
        };
        let parts = split(vec![("a".to_owned(), names(400)), ("b".to_owned(), names(3))], known, 4);
        let mut tests: Vec<_> = parts.iter().flat_map(|p| p.tests.iter().map(|t| (&p.package, t))).collect();
        tests.sort_unstable();
        tests.dedup();
        assert_eq!(tests.len(), 403);
        assert!((20..=40).contains(&parts.len()), "{}", parts.len());
        assert!(parts.is_sorted_by_key(|part| std::cmp::Reverse(part.expected)));
    }

    #[test]
    fn what_is_short_is_not_split_and_what_is_empty_is_nothing() {
        let parts = split(
            vec![("a".to_owned(), names(5)), ("none".to_owned(), Vec::new())],
            |_, _| Some(Duration::from_millis(10)),
            4,
        );
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].tests.len(), 5);
    }

    /// How long so many machines take, each taking the next part when it is free, over what it could not be less than.
    fn over_the_bound(parts: &[Part], took: impl Fn(&str) -> Duration, machines: usize) -> f64 {
        let works: Vec<Duration> =
            parts.iter().map(|part| part.tests.iter().map(|test| took(test)).sum()).collect();
        let mut busy = vec![Duration::ZERO; machines];
        for work in &works {
            *busy.iter_mut().min().unwrap() += *work;
        }
        let longest = parts.iter().flat_map(|part| &part.tests).map(|test| took(test)).max().unwrap();
        let bound = (works.iter().sum::<Duration>() / machines as u32).max(longest);
        busy.into_iter().max().unwrap().as_secs_f64() / bound.as_secs_f64()
    }

    #[test]
    fn uneven_tests_end_together() {
        // From 0 to 10 s, most of them short.
        let took = |test: &str| {
            let number: u64 = test.trim_start_matches("Test").parse().unwrap();
            let drawn =
                number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Duration::from_millis(1 + ((drawn >> 33) % 100).pow(3) / 100)
        };
        let packages = || vec![("a".to_owned(), names(400)), ("b".to_owned(), names(100))];
        let known = split(packages(), |_, test| Some(took(test)), 8);
        let unknown = split(packages(), |_, _| None, 8);
        let (with, without) = (over_the_bound(&known, took, 8), over_the_bound(&unknown, took, 8));
        assert!(with <= 1.10 && without <= 1.30, "{with:.3} with history, {without:.3} without");
    }

    #[test]
    fn one_long_test_is_a_part_of_its_own_and_comes_first() {
        let known = |_: &str, test: &str| Some(Duration::from_secs(if test == "Test7" { 100 } else { 1 }));
        let parts = split(vec![("a".to_owned(), names(20))], known, 2);
        assert_eq!(parts[0].tests, ["Test7"]);
    }
}
