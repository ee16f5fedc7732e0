use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn catalogue() -> &'static Catalogue {
    static CATALOGUE: std::sync::OnceLock<Catalogue> = std::sync::OnceLock::new();
    CATALOGUE.get_or_init(|| Catalogue::embedded().unwrap())
}

fn id(text: &str) -> Result<String, Complaint> {
    resolve(text, catalogue(), Arch::X86_64).map(|resolved| resolved.cell.id.to_string())
}

fn refused(text: &str) -> Complaint {
    id(text).unwrap_err()
}

/// What users of the former tool type, and what must come of it.
const GOLDEN: [(&str, &str); 49] = [
    // As the former tool's manual says them.
    ("focal-local-distro", "ubuntu_20.04/5.4.0-167-generic/x86_64"),
    ("x86-jammy-distro", "ubuntu_22.04/5.15.0-91-generic/x86_64@remote"),
    ("x86-focal-distro", "ubuntu_20.04/5.4.0-167-generic/x86_64@remote"),
    ("arm64-amazon4.14-distro", "amazon_4.14/4.14.314-237.533.amzn2/arm64@remote"),
    ("arm64-amazon5.10-distro", "amazon_5.10/5.10.226-214.879.amzn2/arm64@remote"),
    ("local-amazon5.4-distro", "amazon_5.4/5.4.284-196.380.amzn2/x86_64"),
    ("amazon4.14-local-distro", "amazon_4.14/4.14.314-237.533.amzn2/x86_64"),
    ("distro-local-amazon5.10", "amazon_5.10/5.10.226-214.879.amzn2/x86_64"),
    ("distro-bionic-x86", "ubuntu_18.04/4.18.0-25-generic/x86_64@remote"),
    ("distro-jammy-x86", "ubuntu_22.04/5.15.0-91-generic/x86_64@remote"),
    ("distro-arm64-ubuntu22", "ubuntu_22.04/5.15.0-91-generic/arm64@remote"),
    ("arm64-distro-amazon5.4", "amazon_5.4/5.4.284-196.380.amzn2/arm64@remote"),
    ("custom-5.4-local", "custom/5.4/x86_64"),
    ("custom-4.14-local", "custom/4.14/x86_64"),
    ("custom-5.7-arm64", "custom/5.7/arm64@remote"),
    ("custom-arm-5.4", "custom/5.4/arm64@remote"),
    // And what people make of it.
    ("jammy-local-distro", "ubuntu_22.04/5.15.0-91-generic/x86_64"),
    ("distro-local-jammy", "ubuntu_22.04/5.15.0-91-generic/x86_64"),
    ("ubuntu_22-local-distro", "ubuntu_22.04/5.15.0-91-generic/x86_64"),
    ("local-ubuntu22-distro", "ubuntu_22.04/5.15.0-91-generic/x86_64"),
    ("ubuntu_2204-local-distro", "ubuntu_22.04/5.15.0-91-generic/x86_64"),
    ("ubuntu_24.04-arm64-distro", "ubuntu_24.04/6.8.0-31-generic/arm64@remote"),
    ("x86-ubuntu20-distro", "ubuntu_20.04/5.4.0-167-generic/x86_64@remote"),
    ("arm64-ubuntu18-distro", "ubuntu_18.04/4.18.0-25-generic/arm64@remote"),
    ("amazon4.14-x86-distro", "amazon_4.14/4.14.314-237.533.amzn2/x86_64@remote"),
    ("distro-x86_64-amazon4.14", "amazon_4.14/4.14.314-237.533.amzn2/x86_64@remote"),
    ("4.14amazon-distro-x86", "amazon_4.14/4.14.314-237.533.amzn2/x86_64@remote"),
    ("amzn_4.14-amd64-distro", "amazon_4.14/4.14.314-237.533.amzn2/x86_64@remote"),
    ("al2023-x86-distro", "amazon_2023/6.1.77-99.164.amzn2023/x86_64@remote"),
    ("amzn2023-arm64-distro", "amazon_2023/6.1.77-99.164.amzn2023/arm64@remote"),
    ("distro-x64-bullseye", "debian_11/5.10/x86_64@remote"),
    ("x64-debian11-distro", "debian_11/5.10/x86_64@remote"),
    ("debian10-local-distro", "debian_10/4.19.0-27/x86_64"),
    ("centos7-x86-distro", "centos_7.9/3.10.0-1160.80.1.el7/x86_64@remote"),
    ("centos7-arm64-distro", "centos_7.9/4.18.0-348.20.1.el7/arm64@remote"),
    ("custom-5.4-aarch64", "custom/5.4/arm64@remote"),
    ("5.4-arm64-custom", "custom/5.4/arm64@remote"),
    ("custom-4.5-local", "custom/4.5/x86_64"),
    ("custom-6.1-x86_64", "custom/6.1/x86_64@remote"),
    ("custom-6.12-local", "custom/6.12/x86_64"),
    ("opensuse_15.5-x86-64-distro", "opensuse_15.5/5.14.21-150500.55.80.2/x86_64@remote"),
    ("distro-opensuse-leap-15.5-x64", "opensuse_15.5/5.14.21-150500.55.80.2/x86_64@remote"),
    ("sid-local-distro", "debian_sid/7/x86_64"),
    ("DEBIAN_12-Local-Distro", "debian_12/6.1/x86_64"),
    ("debian-12-local-distro", "debian_12/6.1/x86_64"),
    ("distro-x86_64-focal", "ubuntu_20.04/5.4.0-167-generic/x86_64@remote"),
    ("fedora38-local", "fedora_38/6.2.9-300.fc38/x86_64"),
    ("bionic-distro", "ubuntu_18.04/4.18.0-25-generic/x86_64"),
    ("oracle8-arm64-distro", "oracle_8.9/5.15.0-200.131.27.el8uek/arm64@remote"),
];

#[test]
fn what_people_type_is_what_they_get() {
    for (text, expected) in GOLDEN {
        assert_eq!(id(text).as_deref(), Ok(expected), "{text}");
    }
}

/// What cannot be meant, and the first thing that is offered instead.
const REFUSED: [(&str, &str, &str); 22] = [
    // Two of the former tool's manual: a kernel that it never had, and a misspelt word.
    ("local-amazon5.15-distro", "no distribution `amazon5.15`", "amazon_5.10-local-distro"),
    ("x86-amazon5.4-disto", "", "amazon_5.4-x86_64-distro"),
    ("distro-local-amazon5.15", "no distribution `amazon5.15`", "amazon_5.10-local-distro"),
    ("foca-local-distro", "no distribution `foca`", "ubuntu_20.04-local-distro"),
    ("debian-local-distro", "several", "debian_12-local-distro"),
    ("custom-4.5-arm64", "does not exist for arm64", "custom-4.15-arm64"),
    ("ubuntu_24-arm64-distro", "several", "ubuntu_24.04-arm64-distro"),
    ("custom-4.99-local", "no custom kernel", "custom-4."),
    ("rhel8-x86-distro", "no distribution `rhel8`", "centos_8-x86_64-distro"),
    ("windows11-x86-distro", "no distribution `windows11`", "debian_11-x86_64-distro"),
    ("focal", "neither recipe nor architecture", "ubuntu_20.04-local-distro"),
    ("oracle_7.9-arm64-distro", "only for x86_64", "oracle_8.9-arm64-distro"),
    ("debian_9-arm64-distro", "only for x86_64", "debian_10-arm64-distro"),
    ("suse_15.5-x86-distro", "no distribution `suse_15.5`", "suse_12.5-x86_64-distro"),
    ("xenial-arm64-distro", "only for x86_64", "ubuntu_"),
    ("amazon_2-x86-distro", "several", "amazon_4.14-x86_64-distro"),
    ("al2-local-distro", "several", "amazon_4.14-local-distro"),
    ("debian_21-local-distro", "no distribution `debian_21`", "debian_"),
    ("jamy-local-distro", "no distribution `jamy`", "ubuntu_22.04-local-distro"),
    ("22.04-local-distro", "names no distribution", "ubuntu_22.04-local-distro"),
    ("5.4-local", "names no distribution", ""),
    ("custom-ubuntu22-local", "no custom kernel", ""),
];

#[test]
fn what_cannot_be_meant_is_refused_with_what_exists() {
    for (text, message, offered) in REFUSED {
        let complaint = refused(text);
        assert!(complaint.message.contains(message), "{text}: {complaint:?}");
        let hints = complaint.hints.join("\n");
        assert!(hints.contains(offered), "{text}: {hints}");
        for word in hints.split('`').filter(|word| word.contains("-distro") || word.contains("custom-")) {
            assert!(word.starts_with('<') || id(word).is_ok(), "{text}: `{word}` is offered and refused");
        }
    }
    assert!(refused("suse_15.5-x86-distro").hints[0].contains("opensuse_15.5-x86_64-distro"));
    assert!(refused("nothing-local-distro").hints.iter().all(|hint| !hint.contains("did you mean")));
}

#[test]
fn the_wrong_word_is_marked() {
    let complaint = refused("local-debian_21-distro");
    assert!(complaint.message.ends_with("\n  local-debian_21-distro\n        ^^^^^^^^^"), "{complaint:?}");
}

#[test]
fn what_is_missing_is_said_and_nothing_is_there_twice() {
    let resolved = resolve("debian_12-local", catalogue(), Arch::X86_64).unwrap();
    assert_eq!(resolved.notices, ["`debian_12-local`: recipe taken to be `distro`"]);
    assert_eq!(resolve("debian_12-distro", catalogue(), Arch::X86_64).unwrap().notices.len(), 1);
    assert!(refused("distro-custom-local-6.12").message.contains("two recipes"));
    assert!(refused("debian_12-local-arm64").message.contains("two architectures"));
    assert!(refused("local-distro").message.contains("names no"));
    assert!(refused("").message.contains("names no"));
}

#[test]
fn every_cell_of_the_catalogue_is_spelled_as_it_is_read() {
    let mut seen = BTreeSet::new();
    for host in Arch::ALL {
        for arch in Arch::ALL {
            for location in [Location::Local, Location::Remote] {
                let platforms = catalogue()
                    .platforms()
                    .iter()
                    .filter_map(|row| row.kernel(arch).map(|kernel| CellId::local(&row.id, kernel, arch)));
                let customs = catalogue().customs().iter().filter(|row| row.variants.contains_key(&arch));
                let customs = customs.map(|row| CellId::local("custom", &row.version, arch));
                for cell in platforms.chain(customs).map(|cell| CellId { location, ..cell }) {
                    let Some(text) = spelling(&cell, host) else {
                        assert!(location == Location::Local && arch != host);
                        continue;
                    };
                    let read = resolve(&text, catalogue(), host).unwrap();
                    assert_eq!((&read.cell.id, read.notices.len()), (&cell, 0), "{text}");
                    seen.insert(text);
                }
            }
        }
    }
    assert!(seen.len() > 200, "only {} spellings", seen.len());
}

fn word() -> impl Strategy<Value = String> {
    let names: Vec<String> = catalogue()
        .platforms()
        .iter()
        .flat_map(|row| row.names().map(str::to_owned).collect::<Vec<_>>())
        .chain(catalogue().customs().iter().map(|row| row.version.clone()))
        .collect();
    prop_oneof![
        Just("distro".to_owned()),
        Just("custom".to_owned()),
        prop::sample::select(vec!["local", "x86", "x86-64", "amd64", "arm64", "aarch64"])
            .prop_map(str::to_owned),
        prop::sample::select(names),
        "[a-z]{0,6}_?[0-9]{0,3}\\.?[0-9]{0,2}",
    ]
}

proptest! {
    #[test]
    fn no_input_panics(text in ".{0,60}") {
        let _ = id(&text);
    }

    #[test]
    fn order_never_matters(words in prop::collection::vec(word(), 1..4)) {
        let mut turned = words.clone();
        turned.reverse();
        let ends = |word: &String| word.ends_with("x86") || word.starts_with("64") || word.is_empty();
        // `64` behind `x86` is the one pair of words that is one word.
        prop_assume!(!words.iter().any(ends));
        // Two words that are neither recipe nor architecture are one name, whose order is its own.
        let named = words.iter().filter(|word| {
            recipe_named(word).is_none() && arch_named(word).is_none()
        });
        prop_assume!(named.count() <= 1);
        prop_assert_eq!(id(&words.join("-")).ok(), id(&turned.join("-")).ok());
    }

    #[test]
    fn recipe_and_architecture_are_never_crossed(words in prop::collection::vec(word(), 1..4)) {
        if let Ok(resolved) = resolve(&words.join("-"), catalogue(), Arch::X86_64) {
            let cell = resolved.cell.id;
            for word in &words {
                if let Some(recipe) = recipe_named(word) {
                    prop_assert_eq!(recipe, Recipe::of(&cell));
                }
                if let Some(named) = arch_named(word) {
                    prop_assert_eq!(named, (cell.arch, cell.location));
                }
            }
        }
    }
}

fn recipe_named(word: &str) -> Option<Recipe> {
    [Recipe::Distro, Recipe::Custom].into_iter().find(|recipe| recipe.as_str() == word)
}

fn arch_named(word: &str) -> Option<(Arch, Location)> {
    match word {
        "local" => Some((Arch::X86_64, Location::Local)),
        "x86" | "x86-64" | "amd64" => Some((Arch::X86_64, Location::Remote)),
        "arm64" | "aarch64" => Some((Arch::Arm64, Location::Remote)),
        _ => None,
    }
}
