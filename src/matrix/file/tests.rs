use proptest::prelude::*;

use super::*;

fn cells(text: &str) -> Result<Vec<String>, Complaint> {
    let cells = MatrixFile::parse("m.toml", text)?.expand(&Catalogue::embedded().unwrap(), Arch::X86_64)?;
    Ok(cells.into_iter().map(|resolved| resolved.cell.id.to_string()).collect())
}

fn load(files: &[(&str, &str)]) -> Result<MatrixFile, Complaint> {
    MatrixFile::load(Path::new(files[0].0), &|path| {
        let found = files.iter().find(|(name, _)| path == Path::new(name));
        found
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| Complaint::new(format!("cannot read `{}`", path.display())).hint("is it there?"))
    })
}

#[test]
fn cells_come_in_order_and_carry_a_size_that_is_not_default() {
    let text = "vms = [\"debian_13-local-distro\", \"custom-6.12-local\"]\nmemory = 2048\n";
    assert_eq!(cells(text).unwrap(), ["debian_13/6.12/x86_64#2x2048", "custom/6.12/x86_64#2x2048"]);
    let sizes = "vms = [\"bookworm-local-distro\"]\nvcpu = [2, 4]\nmemory = [1024, 8192]\n";
    let id = "debian_12/6.1/x86_64";
    let expected = [id.to_owned(), format!("{id}#2x8192"), format!("{id}#4x1024"), format!("{id}#4x8192")];
    assert_eq!(cells(sizes).unwrap(), expected);
    assert_eq!(cells("").unwrap(), [""; 0]);
}

#[test]
fn axes_are_combined_and_compared() {
    let text = "[axes]\ndistro = [\"ubuntu\", \"bookworm\"]\nkernel = [\">=5.4, <5.16\", \"6.1\"]\n\
                arch = [\"x86_64\", \"arm64\"]\nwhere = \"auto\"\n";
    let expected = [
        "ubuntu_20.04/5.4.0-167-generic/x86_64",
        "ubuntu_22.04/5.15.0-91-generic/x86_64",
        "debian_12/6.1/x86_64",
        "ubuntu_20.04/5.4.0-167-generic/arm64@remote",
        "ubuntu_22.04/5.15.0-91-generic/arm64@remote",
        "debian_12/6.1/arm64@remote",
    ];
    assert_eq!(cells(text).unwrap(), expected);
    let customs = cells("[axes]\nkernel = [\"<=4.5\", \"6.12\"]\nwhere = \"remote\"\n").unwrap();
    assert_eq!(
        customs,
        ["custom/4.4/x86_64@remote", "custom/4.5/x86_64@remote", "custom/6.12/x86_64@remote"]
    );
    let mut here =
        MatrixFile::parse("m.toml", "[axes]\ndistro = [\"trixie\"]\nwhere = \"remote\"\n").unwrap();
    here.place = Some(Where::Local);
    let here = here.expand(&Catalogue::embedded().unwrap(), Arch::X86_64).unwrap();
    assert_eq!(here[0].cell.id.to_string(), "debian_13/6.12/x86_64");
    let both = cells("[axes]\ndistro = [\"custom\", \"debian_13\"]\nkernel = [\"6.12\"]\n").unwrap();
    assert_eq!(both, ["debian_13/6.12/x86_64", "custom/6.12/x86_64"]);
    let foreign = MatrixFile::parse("m.toml", "[axes]\ndistro = [\"trixie\"]\narch = [\"arm64\"]\n").unwrap();
    let foreign = foreign.expand(&Catalogue::embedded().unwrap(), Arch::X86_64).unwrap();
    assert_eq!(foreign[0].notices, ["`debian_13/6.12/arm64` is emulated on this machine"]);
}

#[test]
fn cells_are_included_and_excluded() {
    let text = "[axes]\ndistro = [\"debian\"]\n\
                [[include]]\nvm = \"custom-6.12-local\"\nmemory = 4096\n\
                [[exclude]]\nkernel = \"<5\"\nreason = \"no BTF\"\n\
                [[exclude]]\nvm = \"sid-local-distro\"\nreason = \"changes daily\"\n";
    let expected = [
        "debian_11/5.10/x86_64",
        "debian_12/6.1/x86_64",
        "debian_13/6.12/x86_64",
        "custom/6.12/x86_64#2x4096",
    ];
    assert_eq!(cells(text).unwrap(), expected);
    let none = format!("{text}[[exclude]]\ndistro = \"fedora\"\nreason = \"none there\"\n");
    assert!(cells(&none).unwrap_err().message.contains("line 12, column 1: this excludes nothing"));
}

#[test]
fn files_build_on_others_and_the_later_wins() {
    let matrix = load(&[
        ("a/top.toml", "extends = [\"../base.toml\"]\nvms = [\"trixie-local-distro\"]\nmemory = 512\nenv.B = \"2\"\n"),
        ("base.toml", "root = \"here\"\nvms = [\"bookworm-local-distro\"]\nmemory = 4096\nenv = { A = \"1\", B = \"1\" }\ntimeouts.\"./...\" = \"5m\"\n"),
    ])
    .unwrap();
    let cells = matrix.expand(&Catalogue::embedded().unwrap(), Arch::X86_64).unwrap();
    let ids: Vec<String> = cells.iter().map(|resolved| resolved.cell.id.to_string()).collect();
    assert_eq!(ids, ["debian_12/6.1/x86_64#2x512", "debian_13/6.12/x86_64#2x512"]);
    assert_eq!(matrix.root.as_deref(), Some(Path::new("here")));
    assert_eq!((matrix.env["A"].as_str(), matrix.env["B"].as_str()), ("1", "2"));
    assert_eq!(matrix.timeouts["./..."], Duration::from_secs(300));
}

#[test]
fn files_that_cannot_be_built_on_are_told_where_they_are_named() {
    let cycle = load(&[("a.toml", "extends = [\"b.toml\"]\n"), ("b.toml", "\nextends = [\"./a.toml\"]\n")]);
    let cycle = cycle.unwrap_err();
    assert!(cycle.message.starts_with("`b.toml` line 2, column 12: these files extend"), "{cycle:?}");
    assert_eq!(cycle.hints, ["a.toml -> b.toml -> a.toml"]);
    let missing = load(&[("a.toml", "extends = [\"c.toml\"]\n")]).unwrap_err();
    assert!(missing.message.contains("`a.toml` line 1, column 12: cannot read `c.toml`"), "{missing:?}");
    assert_eq!(missing.hints[0], "is it there?");
    let faulty = load(&[("a.toml", "extends = [\"b.toml\"]\n"), ("b.toml", "vmz = 1\n")]).unwrap_err();
    assert!(faulty.message.contains("`b.toml` is not a valid matrix"), "{faulty:?}");
}

#[test]
fn what_is_no_matrix_is_refused_in_a_few_lines() {
    let garbage = MatrixFile::parse("m.toml", &"x = [\u{1}".repeat(2 << 20)).unwrap_err();
    assert!(garbage.message.contains("10 MiB") || garbage.message.contains("12 MiB"), "{}", garbage.message);
    let long = MatrixFile::parse("m.toml", &"[".repeat(500_000)).unwrap_err();
    assert!(long.message.len() < 2000, "{} bytes", long.message.len());
    let key = MatrixFile::parse("m.toml", "vmz = []\n").unwrap_err();
    assert_eq!(key.hints, ["did you mean `vms`?"]);
}

const WHOLE: &str = "extends = []\nvms = [\"bookworm-local-distro\"]\nvcpu = [2, 4]\nmemory = 512\n\
    timeouts.\"./...\" = \"5m\"\n[axes]\ndistro = [\"ubuntu\"]\nkernel = [\">=5.4, <6\"]\n\
    [[include]]\nvm = \"custom-6.12-local\"\n[[exclude]]\nkernel = \"<5.5\"\nreason = \"old\"\n";

proptest! {
    #[test]
    fn no_input_panics(text in ".{0,200}", at in 0..400usize, with in "[\\[\\]\"=<>.,0-9a-zü]{0,4}") {
        let _ = cells(&text);
        let mut changed = WHOLE.to_owned();
        changed.insert_str(at.min(WHOLE.len()), &with);
        let _ = cells(&changed);
    }
}

#[test]
fn the_text_that_is_changed_at_random_is_itself_right() {
    assert_eq!(cells(WHOLE).unwrap().len(), 6);
}
