//! Selection: which cells, packages and tests are wanted, as flags and as filter expressions.
//!
//! An expression such as `kernel(>=5.8) & !distro(amazon) & package(./pkg/network/...)` is decided from outside in:
//! first for a cell, then for a package in it, then for its tests. What is false whatever comes later leaves the
//! cell or the package out; what is left over is about tests alone.

mod matcher;
mod parse;
mod tests_of;

use kmt_reporters::event::{Arch, CellId, Location};

use super::spec::Recipe;
use super::version::{Version, VersionReq};
use super::{Catalogue, Cell, Complaint};
use matcher::Matcher;
pub use matcher::PackagePattern;
pub use parse::known_distro;
pub use tests_of::{TestChoice, TooMixed};

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Expression {
    root: Node,
}

#[derive(Debug, Clone)]
enum Node {
    Always(Truth),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Is(Predicate),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    True,
    False,
}

#[derive(Debug, Clone)]
enum Predicate {
    Distro(Matcher),
    Platform(Matcher),
    Kernel(VersionReq),
    Arch(Arch),
    Recipe(Recipe),
    Location(Location),
    Set(Matcher),
    Cell(Matcher),
    Package(PackagePattern),
    Test(Matcher),
}

/// Flags that choose cells. Values of one flag are alternatives; flags must all hold.
#[derive(Debug, Clone, Default)]
pub struct Flags<'a> {
    /// `--distro`: ids, aliases.
    pub distros: &'a [String],
    /// `--kernel`: a comparison.
    pub kernel: Option<&'a str>,
    /// `--arch`.
    pub arches: &'a [Arch],
    /// `--cell`: ids, or globs.
    pub cells: &'a [String],
    /// `-E`: any of them.
    pub expressions: &'a [String],
}

impl From<bool> for Truth {
    fn from(value: bool) -> Truth {
        if value { Truth::True } else { Truth::False }
    }
}

impl Expression {
    /// Everything.
    pub fn all() -> Expression {
        Expression { root: Node::Always(Truth::True) }
    }

    /// Reads a filter expression.
    ///
    /// # Errors
    /// What is wrong, with a caret under it and the nearest known name.
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Expression, Complaint> {
        parse::parse(text, catalogue).map(|root| Expression { root })
    }

    /// What flags ask for, all together.
    ///
    /// # Errors
    /// A name that nothing has, a comparison or an expression that is none.
    pub fn of_flags(flags: &Flags<'_>, catalogue: &Catalogue) -> Result<Expression, Complaint> {
        let mut root = Node::Always(Truth::True);
        let distro = |name: &String| parse::distro(name, catalogue).map(|m| Node::Is(Predicate::Distro(m)));
        let cell = |id: &String| Ok(Node::Is(Predicate::Cell(Matcher::glob(id)?)));
        let expression = |text: &String| parse::parse(text, catalogue);
        for part in [
            either(flags.distros.iter().map(distro))?,
            either(flags.kernel.iter().map(|text| {
                text.parse::<VersionReq>().map(|req| Node::Is(Predicate::Kernel(req))).map_err(|error| {
                    Complaint::new(format!("{error} (in `--kernel {text}`)"))
                        .hint("`--kernel '>=5.8'`, or `--kernel '>=5.4, <6.2'`")
                })
            }))?,
            either(flags.arches.iter().map(|arch| Ok(Node::Is(Predicate::Arch(*arch)))))?,
            either(flags.cells.iter().map(cell))?,
            either(flags.expressions.iter().map(expression))?,
        ]
        .into_iter()
        .flatten()
        {
            root = Node::And(Box::new(root), Box::new(part)).simple();
        }
        Ok(Expression { root })
    }

    /// Whether it speaks of packages or tests, which no cell decides.
    pub fn is_about_tests(&self) -> bool {
        self.root.any(&|predicate| matches!(predicate, Predicate::Package(_) | Predicate::Test(_)))
    }

    /// What is left to decide in a cell; `None` where nothing of it is wanted.
    pub fn in_cell(&self, cell: &Cell) -> Option<Expression> {
        self.given(&|predicate| predicate.of_cell(cell))
    }

    /// What is left to decide in a package (its path, such as `pkg/ebpf`); `None` where nothing of it is wanted.
    pub fn in_package(&self, package: &str) -> Option<Expression> {
        self.given(&|predicate| match predicate {
            Predicate::Package(pattern) => Some(pattern.matches(package)),
            _ => None,
        })
    }

    fn given(&self, known: &dyn Fn(&Predicate) -> Option<bool>) -> Option<Expression> {
        match self.root.given(known) {
            Node::Always(Truth::False) => None,
            root => Some(Expression { root }),
        }
    }

    /// What is left, which must be about tests alone, as patterns of Go.
    ///
    /// # Errors
    /// It cannot be said in one `-test.run` and one `-test.skip`.
    pub fn tests(&self) -> Result<TestChoice, TooMixed> {
        TestChoice::of(&self.root)
    }
}

/// Alternatives; nothing where there are none.
fn either(parts: impl Iterator<Item = Result<Node, Complaint>>) -> Result<Option<Node>, Complaint> {
    let mut all: Option<Node> = None;
    for part in parts {
        let part = part?;
        all = Some(match all {
            Some(before) => Node::Or(Box::new(before), Box::new(part)),
            None => part,
        });
    }
    Ok(all)
}

impl Node {
    /// Whether such a predicate is in it.
    fn any(&self, is: &dyn Fn(&Predicate) -> bool) -> bool {
        match self {
            Node::Is(predicate) => is(predicate),
            Node::Always(_) => false,
            Node::Not(inner) => inner.any(is),
            Node::And(a, b) | Node::Or(a, b) => a.any(is) || b.any(is),
        }
    }

    /// With what is known put in, and what follows from it.
    fn given(&self, known: &dyn Fn(&Predicate) -> Option<bool>) -> Node {
        let node = match self {
            Node::Is(predicate) => match known(predicate) {
                Some(value) => Node::Always(value.into()),
                None => self.clone(),
            },
            Node::Always(_) => self.clone(),
            Node::Not(inner) => Node::Not(Box::new(inner.given(known))),
            Node::And(a, b) => Node::And(Box::new(a.given(known)), Box::new(b.given(known))),
            Node::Or(a, b) => Node::Or(Box::new(a.given(known)), Box::new(b.given(known))),
        };
        node.simple()
    }

    /// Without constants below its root.
    fn simple(self) -> Node {
        use Truth::{False, True};
        match self {
            Node::Not(inner) => match *inner {
                Node::Always(True) => Node::Always(False),
                Node::Always(False) => Node::Always(True),
                other => Node::Not(Box::new(other)),
            },
            Node::And(a, b) => match (*a, *b) {
                (Node::Always(False), _) | (_, Node::Always(False)) => Node::Always(False),
                (Node::Always(True), other) | (other, Node::Always(True)) => other,
                (a, b) => Node::And(Box::new(a), Box::new(b)),
            },
            Node::Or(a, b) => match (*a, *b) {
                (Node::Always(True), _) | (_, Node::Always(True)) => Node::Always(True),
                (Node::Always(False), other) | (other, Node::Always(False)) => other,
                (a, b) => Node::Or(Box::new(a), Box::new(b)),
            },
            other => other,
        }
    }
}

impl Predicate {
    /// Whether it holds in a cell; `None` where the cell does not tell.
    fn of_cell(&self, cell: &Cell) -> Option<bool> {
        let id: &CellId = &cell.id;
        Some(match self {
            Predicate::Distro(matcher) => matcher.matches(&cell.distro),
            Predicate::Platform(matcher) => matcher.matches(&id.platform),
            Predicate::Kernel(req) => Version::of(&id.kernel).is_some_and(|version| req.matches(&version)),
            Predicate::Arch(arch) => id.arch == *arch,
            Predicate::Recipe(recipe) => Recipe::of(id) == *recipe,
            Predicate::Location(location) => id.location == *location,
            Predicate::Set(matcher) => matcher.matches(id.set.as_deref().unwrap_or_default()),
            Predicate::Cell(matcher) => matcher.matches(&id.to_string()),
            Predicate::Package(_) | Predicate::Test(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests;
