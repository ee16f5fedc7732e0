use proptest::prelude::*;

use super::super::spec;
use super::*;

fn catalogue() -> &'static Catalogue {
    static CATALOGUE: std::sync::OnceLock<Catalogue> = std::sync::OnceLock::new();
    CATALOGUE.get_or_init(|| Catalogue::embedded().unwrap())
}

fn cell(text: &str) -> Cell {
    spec::resolve(text, catalogue(), Arch::X86_64).unwrap().cell
}

fn read(text: &str) -> Expression {
    Expression::parse(text, catalogue()).unwrap()
}

fn wrong(text: &str) -> Complaint {
    Expression::parse(text, catalogue()).unwrap_err()
}

/// Whether any test of a package in a cell is wanted.
fn wants(text: &str, machine: &str, package: &str) -> bool {
    read(text).in_cell(&cell(machine)).and_then(|left| left.in_package(package)).is_some()
}

const JAMMY: &str = "jammy-x86-distro";
const AMAZON: &str = "amazon_4.14-arm64-distro";
const CUSTOM: &str = "custom-6.12-local";

#[test]
fn predicates_choose_cells() {
    for (text, wanted) in [
        ("all()", [true, true, true]),
        ("none()", [false, false, false]),
        ("kernel(>=5.8)", [true, false, true]),
        ("kernel(>=5.4, <6.2)", [true, false, false]),
        ("distro(amzn)", [false, true, false]),
        ("distro(/^u/)", [true, false, false]),
        ("!distro(amazon)", [true, false, true]),
        ("arch(aarch64)", [false, true, false]),
        ("recipe(custom)", [false, false, true]),
        ("location(local)", [false, false, true]),
        ("platform(jammy) | platform(custom)", [true, false, true]),
        ("cell(#*@remote)", [true, true, false]),
        ("cell(custom/*)", [false, false, true]),
        ("set()", [true, true, true]),
        ("all() - distro(~bun) and not kernel(<5)", [false, false, true]),
        ("distro(ubuntu) + distro(amazon) & arch(arm64)", [true, true, false]),
        ("(distro(ubuntu) or distro(amazon)) & arch(arm64)", [false, true, false]),
        ("kernel(>=5.8) & !distro(amazon) & package(./pkg/network/...) & test(/DNS/)", [true, false, true]),
    ] {
        let seen = [JAMMY, AMAZON, CUSTOM].map(|machine| wants(text, machine, "pkg/network/tracer"));
        assert_eq!(seen, wanted, "{text}");
    }
}

#[test]
fn packages_are_go_patterns_or_matchers_and_depend_on_the_cell() {
    for (text, package, wanted) in [
        ("package(./pkg/network/...)", "pkg/network", true),
        ("package(./pkg/network/...)", "pkg/network/tracer", true),
        ("package(./pkg/network/...)", "pkg/networks", false),
        ("package(pkg/ebpf)", "pkg/ebpf", true),
        ("package(./...)", "anything", true),
        ("package(~ebpf)", "pkg/ebpf/x", true),
        ("package(/^pkg/) & !package(=pkg/a)", "pkg/a", false),
        ("distro(ubuntu) & package(pkg/a) | distro(amazon) & package(pkg/b)", "pkg/b", false),
    ] {
        assert_eq!(wants(text, JAMMY, package), wanted, "{text}");
    }
    assert!(wants("distro(ubuntu) & package(pkg/a) | distro(amazon) & package(pkg/b)", AMAZON, "pkg/b"));
}

#[test]
fn what_is_left_about_tests_is_said_in_the_words_of_go() {
    let tests = |text: &str| read(text).in_cell(&cell(JAMMY)).unwrap().in_package("pkg/a").unwrap().tests();
    let choice = |run: Option<&str>, skip: Option<&str>| {
        Ok(TestChoice { run: run.map(str::to_owned), skip: skip.map(str::to_owned) })
    };
    assert_eq!(tests("package(pkg/a)"), choice(None, None));
    assert_eq!(tests("test(DNS)"), choice(Some("DNS"), None));
    assert_eq!(tests("test(=TestA) | test(/^TestB.*/)"), choice(Some("^TestA$|^TestB.*"), None));
    assert_eq!(tests("!test(Slow) & !test(a.b)"), choice(None, Some(r"Slow|a\.b")));
    assert_eq!(tests("test(A) - (test(B) | test(C))"), choice(Some("A"), Some("B|C")));
    assert_eq!(tests("distro(amazon) & test(A) | distro(ubuntu) & test(B)"), choice(Some("B"), None));
    // In a package that is wanted whatever its tests are, nothing is left to say.
    assert_eq!(tests("test(A) | package(pkg/a)"), choice(None, None));
    assert_eq!(tests("test(A) & test(B)"), Err(TooMixed));
    assert_eq!(tests("test(A) | !test(B)"), Err(TooMixed));
}

#[test]
fn flags_are_alternatives_within_and_conditions_among_themselves() {
    let strings = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let chosen = |flags: &Flags<'_>| {
        let expression = Expression::of_flags(flags, catalogue()).unwrap();
        [JAMMY, AMAZON, CUSTOM].map(|machine| expression.in_cell(&cell(machine)).is_some())
    };
    assert_eq!(chosen(&Flags::default()), [true, true, true]);
    let distros = strings(&["ubuntu", "al"]);
    assert_eq!(chosen(&Flags { distros: &distros, ..Flags::default() }), [true, true, false]);
    let flags = Flags { distros: &distros, kernel: Some(">=5"), ..Flags::default() };
    assert_eq!(chosen(&flags), [true, false, false]);
    assert_eq!(chosen(&Flags { arches: &[Arch::Arm64], ..Flags::default() }), [false, true, false]);
    let cells = strings(&["custom/6.12/x86_64", "amazon*"]);
    assert_eq!(chosen(&Flags { cells: &cells, ..Flags::default() }), [false, true, true]);
    let expressions = strings(&["recipe(custom)", "distro(ubuntu)"]);
    assert_eq!(chosen(&Flags { expressions: &expressions, ..Flags::default() }), [true, false, true]);
    let refused = Expression::of_flags(&Flags { kernel: Some("new"), ..Flags::default() }, catalogue());
    assert!(refused.unwrap_err().message.contains("--kernel new"));
}

#[test]
fn what_is_wrong_is_marked_and_the_nearest_name_offered() {
    for (text, marked, hint) in [
        ("kernle(>=5)", "kernle(>=5)\n  ^^^^^^", "`kernel(…)`"),
        ("all() & distro(ubunto)", "distro(ubunto)\n                 ^^^^^^", "`ubuntu`"),
        ("platform(jamy)", "jamy)\n           ^^^^", "`jammy`"),
        ("kernel(new)", "new)\n         ^^^", "kernel(>=5.8)"),
        ("(all()", "(all()\n        ^", "such as"),
        ("all() all()", "all() all()\n        ^", "such as"),
        ("test(/a(/)", "test(/a(/)\n       ^^^^", "such as"),
        ("test(A/b)", "test(A/b)\n       ^^^", "--run"),
        ("all() &", "all() &\n         ^", "such as"),
        ("", "\n  \n  ^", "such as"),
        ("(all() ü)", "(all() ü)\n         ^", "such as"),
        ("arch(vax)", "vax)\n       ^^^", "x86_64 or arm64"),
    ] {
        let complaint = wrong(text);
        assert!(complaint.message.ends_with(marked), "{text}: {}", complaint.message);
        assert!(complaint.hints[0].contains(hint), "{text}: {:?}", complaint.hints);
    }
    assert!(wrong(&"(".repeat(1_000)).message.contains("more than 128 levels"));
    let long = vec!["none()"; 2000].join("|");
    assert!(!wants(&long, JAMMY, "pkg/a"));
    assert!(wrong(&vec!["none()"; 20_000].join("|")).message.contains("longer than"));
    assert!(wrong(&"!".repeat(1_000)).message.contains("more than 128 levels"));
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("all()".to_owned()),
        Just("distro(ubuntu)".to_owned()),
        Just("kernel(>=5.8)".to_owned()),
        Just("package(pkg/a)".to_owned()),
        Just("test(A)".to_owned()),
    ];
    leaf.prop_recursive(5, 32, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("!{a}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} & {b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a} | {b})")),
        ]
    })
}

proptest! {
    #[test]
    fn no_input_panics(text in ".{0,80}") {
        let _ = Expression::parse(&text, catalogue());
    }

    /// Putting in what is known, in whatever order, says the same as putting in all at once.
    #[test]
    fn partial_knowledge_never_contradicts_the_whole(text in expression(), package in any::<bool>(), test in any::<bool>()) {
        let expression = read(&text);
        let machine = cell(JAMMY);
        let whole = expression.given(&|predicate| match predicate {
            Predicate::Package(_) => Some(package),
            Predicate::Test(_) => Some(test),
            other => other.of_cell(&machine),
        });
        let name = if package { "pkg/a" } else { "pkg/b" };
        let left = expression.in_cell(&machine).and_then(|left| left.in_package(name));
        let left = left.and_then(|left| left.given(&|predicate| match predicate {
            Predicate::Test(_) => Some(test),
            _ => None,
        }));
        prop_assert_eq!(whole.is_some(), left.is_some());
    }
}
