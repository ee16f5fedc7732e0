//! A filter narrowed to some top-level tests: what a binary is told when a part of its tests is to run.

use super::{Filter, split};

impl Filter {
    /// The argument of `-test.run` that selects what this filter selects below these top-level tests, and nothing else.
    /// Each alternative keeps its own elements for subtests; expressions are never glued together.
    pub fn only<'n>(&self, names: impl IntoIterator<Item = &'n str> + Clone) -> String {
        let elements = split(&self.text);
        if elements.iter().all(|element| element.depth == 0) {
            return exactly(names.into_iter().filter(|name| self.selects_top_level(name)));
        }
        let mut alternatives = Vec::new();
        for (index, first) in self.first.iter().enumerate() {
            let mut matched = names.clone().into_iter().filter(|name| first.regex.is_match(name)).peekable();
            if matched.peek().is_none() {
                continue;
            }
            let mut text = exactly(matched);
            let below = elements.iter().filter(|element| element.alternative == index && element.depth > 0);
            for element in below {
                text.push('/');
                text.push_str(element.text);
            }
            alternatives.push(text);
        }
        alternatives.join("|")
    }
}

/// Names of top-level tests are identifiers of Go: nothing in them needs escaping.
fn exactly<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    format!("^({})$", names.join("|"))
}

#[cfg(test)]
mod tests {
    use super::Filter;

    #[test]
    fn subtests_stay_chosen_and_nothing_is_glued() {
        for (text, narrowed) in [
            ("", "^(TestA|TestB)$"),
            ("Test", "^(TestA|TestB)$"),
            ("TestB|TestC", "^(TestB)$"),
            ("TestB/sub/x", "^(TestB)$/sub/x"),
            ("TestA/x|TestB/y|TestC/z", "^(TestA)$/x|^(TestB)$/y"),
            ("A|TestB/y", "^(TestA)$|^(TestB)$/y"),
            ("(A|B)/[/|]", "^(TestA|TestB)$/[/|]"),
        ] {
            assert_eq!(Filter::parse(text).unwrap().only(["TestA", "TestB"]), narrowed, "{text}");
        }
    }
}
