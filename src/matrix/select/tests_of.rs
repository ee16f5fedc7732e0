//! What an expression says about tests, in the words of `go test`.

use super::{Node, Predicate, Truth};

/// Patterns over top-level tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestChoice {
    /// `-test.run`, where it is needed.
    pub run: Option<String>,
    /// `-test.skip`, where it is needed.
    pub skip: Option<String>,
}

/// An expression that one `-test.run` and one `-test.skip` cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMixed;

impl TestChoice {
    /// Reads `(test(a) | test(b)) & !test(c) & !test(d)`: at most one group that is wanted, any that are not.
    pub(super) fn of(root: &Node) -> Result<TestChoice, TooMixed> {
        let (mut run, mut skip) = (Vec::new(), Vec::new());
        clauses(root, &mut run, &mut skip)?;
        if run.len() > 1 {
            return Err(TooMixed);
        }
        let joined = |words: &[String]| (!words.is_empty()).then(|| words.join("|"));
        Ok(TestChoice { run: run.pop(), skip: joined(&skip) })
    }
}

fn clauses(node: &Node, run: &mut Vec<String>, skip: &mut Vec<String>) -> Result<(), TooMixed> {
    match node {
        Node::Always(Truth::True) => Ok(()),
        Node::And(a, b) => clauses(a, run, skip).and_then(|()| clauses(b, run, skip)),
        Node::Not(inner) => {
            skip.extend(alternatives(inner)?);
            Ok(())
        }
        Node::Or(..) | Node::Is(_) => {
            run.push(alternatives(node)?.join("|"));
            Ok(())
        }
        Node::Always(Truth::False) => Err(TooMixed),
    }
}

fn alternatives(node: &Node) -> Result<Vec<String>, TooMixed> {
    match node {
        Node::Is(Predicate::Test(matcher)) => Ok(vec![matcher.for_go()]),
        Node::Or(a, b) => {
            let mut all = alternatives(a)?;
            all.extend(alternatives(b)?);
            Ok(all)
        }
        _ => Err(TooMixed),
    }
}
