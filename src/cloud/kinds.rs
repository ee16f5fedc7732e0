//! Types of instance that can run machines, and what they cost.

use kmt_reporters::event::Arch;

use crate::settings::ec2::Ec2;

/// Where and when the prices were read.
pub const PRICED: &str = "on demand, Linux, us-east-1, list of 2025-08";

/// How a type runs machines without emulating them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virtualization {
    /// Bare metal: nobody is below.
    Metal,
    /// Its processors nest it, when they are told to.
    Nested,
}

/// A type of host.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// EC2's name of it.
    pub instance_type: String,
    /// What it runs without emulation.
    pub arch: Arch,
    /// How.
    pub virtualization: Virtualization,
    /// Whether it has disks of its own.
    pub own_disks: bool,
    /// US dollars an hour; billed by the second. `None` where nobody said.
    pub usd_per_hour: Option<f64>,
}

/// Names and prices; best first where nothing is configured.
const X86_64: [(&str, f64); 9] = [
    ("m5d.metal", 5.424),
    ("m5.metal", 4.608),
    ("r5d.metal", 6.912),
    ("c5.metal", 4.08),
    ("c5d.metal", 4.608),
    ("i3.metal", 4.992),
    ("m8i.4xlarge", 0.84672),
    ("m8i.8xlarge", 1.69344),
    ("m8i.16xlarge", 3.38688),
];
const ARM64: [(&str, f64); 5] = [
    ("m6gd.metal", 2.8928),
    ("m6g.metal", 2.464),
    ("r6gd.metal", 3.6864),
    ("c6gd.metal", 2.4576),
    ("c6g.metal", 2.176),
];
/// How many of a table are asked for, one after the other, where nothing is configured.
const USUAL: usize = 3;

fn table(arch: Arch) -> &'static [(&'static str, f64)] {
    match arch {
        Arch::X86_64 => &X86_64,
        Arch::Arm64 => &ARM64,
    }
}

/// Types to ask for in turn: those that are configured, else the usual ones.
///
/// # Errors
/// A type that cannot run machines, or is of another architecture, in one sentence.
pub fn alternatives(ec2: Option<&Ec2>, arch: Arch) -> Result<Vec<Kind>, String> {
    let configured = ec2.and_then(|ec2| ec2.types.get(&arch.into())).filter(|types| !types.is_empty());
    match configured {
        Some(types) => types.iter().map(|name| kind(name, arch, ec2)).collect(),
        None => table(arch).iter().take(USUAL).map(|(name, _)| kind(name, arch, ec2)).collect(),
    }
}

/// The type of that name.
fn kind(name: &str, arch: Arch, ec2: Option<&Ec2>) -> Result<Kind, String> {
    let refuse =
        |why: &str| Err(format!("`{name}` in `types` of `[ec2]` cannot run machines of {arch}: {why}"));
    let (family, size) = name.split_once('.').unwrap_or((name, ""));
    if size.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)) {
        return refuse("it is no type, such as `m5d.metal`");
    }
    // `m6gd`: series, generation, then `g` for Graviton and `d` for disks of its own; `m8i-flex` says more.
    let generation = family.find(|c: char| c.is_ascii_digit()).unwrap_or(family.len());
    let attributes = family[generation..].trim_start_matches(|c: char| c.is_ascii_digit());
    let attributes = attributes.split('-').next().unwrap_or_default();
    let of = if attributes.starts_with('g') || family == "a1" { Arch::Arm64 } else { Arch::X86_64 };
    if of != arch {
        return refuse(&format!("it is of {of}"));
    }
    let nests = family[generation..].starts_with("8i") && ["c", "m", "r"].contains(&&family[..generation]);
    let virtualization = match (size.starts_with("metal"), nests) {
        (true, _) => Virtualization::Metal,
        (false, true) => Virtualization::Nested,
        (false, false) => {
            return refuse("neither bare metal nor one that nests virtualization (c8i, m8i, r8i)");
        }
    };
    let said = ec2.and_then(|ec2| ec2.prices.get(name).copied());
    let listed = || table(arch).iter().find(|(known, _)| *known == name).map(|(_, price)| *price);
    Ok(Kind {
        instance_type: name.to_owned(),
        arch,
        virtualization,
        own_disks: attributes.contains('d') || family.starts_with('i'),
        usd_per_hour: said.or_else(listed),
    })
}

/// The highest price that one of the alternatives may come to; `None` where one of them is not known.
pub fn dearest(kinds: &[Kind]) -> Option<f64> {
    let prices: Option<Vec<f64>> = kinds.iter().map(|kind| kind.usd_per_hour).collect();
    prices.map(|prices| prices.into_iter().fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(arch: &str, name: &str) -> Ec2 {
        toml::from_str(&format!("[types]\n{arch} = ['{name}']\n")).unwrap()
    }

    #[test]
    fn without_a_word_metal_is_asked_for() {
        let names = |arch| {
            let all = alternatives(None, arch).unwrap();
            assert!(all.iter().all(|kind| kind.virtualization == Virtualization::Metal && kind.arch == arch));
            all.into_iter().map(|kind| kind.instance_type).collect::<Vec<_>>()
        };
        assert_eq!(names(Arch::X86_64), ["m5d.metal", "m5.metal", "r5d.metal"]);
        assert_eq!(names(Arch::Arm64), ["m6gd.metal", "m6g.metal", "r6gd.metal"]);
    }

    #[test]
    fn every_type_of_the_tables_is_one() {
        for arch in Arch::ALL {
            for (name, price) in table(arch) {
                let kind = kind(name, arch, None).unwrap();
                assert_eq!(kind.usd_per_hour, Some(*price));
                assert_eq!(kind.own_disks, name.contains("d.") || name.starts_with('i'), "{name}");
            }
        }
    }

    #[test]
    fn a_type_says_what_it_is() {
        let one = |arch: &str, name: &str, of| alternatives(Some(&configured(arch, name)), of);
        let nested = one("x86_64", "r8i-flex.4xlarge", Arch::X86_64).unwrap();
        assert_eq!((nested[0].virtualization, nested[0].usd_per_hour), (Virtualization::Nested, None));
        assert_eq!(
            one("x86_64", "m8i.metal-48xl", Arch::X86_64).unwrap()[0].virtualization,
            Virtualization::Metal
        );
        assert!(one("arm64", "c7gd.metal", Arch::Arm64).unwrap()[0].own_disks);
        for (arch, name, of, words) in [
            ("x86_64", "t3.large", Arch::X86_64, "neither bare metal"),
            ("x86_64", "m6g.metal", Arch::X86_64, "it is of arm64"),
            ("arm64", "m5.metal", Arch::Arm64, "it is of x86_64"),
            ("x86_64", "metal", Arch::X86_64, "it is no type"),
        ] {
            let why = one(arch, name, of).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn prices_can_be_said_and_unknown_ones_are_unknown() {
        let text = "prices = { 'm5d.metal' = 1.5 }\ntypes = { x86_64 = ['m5d.metal', 'm5.metal'] }";
        let ec2: Ec2 = toml::from_str(text).unwrap();
        assert_eq!(dearest(&alternatives(Some(&ec2), Arch::X86_64).unwrap()), Some(4.608));
        let ec2 = configured("x86_64", "c8i.large");
        assert_eq!(dearest(&alternatives(Some(&ec2), Arch::X86_64).unwrap()), None);
    }
}
