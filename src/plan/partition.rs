//! One part of a run out of several that are the same but for their number: for jobs of a CI pipeline.

use std::fmt;
use std::str::FromStr;

use kmt_reporters::event::CellId;

/// Which tests belong to this part. Every test belongs to exactly one, and to the same one whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    way: Way,
    part: u64,
    of: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In turn, in the order of a package's list: even, and moved by a test that comes or goes.
    Slice,
    /// By name: a test stays in its part whatever others come or go.
    Hash,
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Partition, String> {
        let bad = || format!("`{text}` is no part: `slice:2/5` or `hash:2/5`, from 1");
        let (way, numbers) = text.split_once(':').ok_or_else(bad)?;
        let way = match way {
            "slice" | "count" => Way::Slice,
            "hash" => Way::Hash,
            _ => return Err(bad()),
        };
        let (part, of) = numbers.split_once('/').ok_or_else(bad)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
        let (part, of) = (number(part)?, number(of)?);
        if part == 0 || part > of { Err(bad()) } else { Ok(Partition { way, part, of }) }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.way == Way::Slice { "slice" } else { "hash" };
        write!(f, "{way}:{}/{}", self.part, self.of)
    }
}

impl Partition {
    /// The tests of a package in a cell that belong to this part; `tests` in the order of the binary's list.
    pub fn of(&self, cell: &CellId, package: &str, tests: Vec<String>) -> Vec<String> {
        // Small packages do not all begin in the first part.
        let begin = hash(&[&cell.to_string(), package]);
        let numbered = (0_u64..).zip(tests);
        let ours = numbered.filter(|(index, test)| match self.way {
            Way::Slice => begin.wrapping_add(*index) % self.of == self.part - 1,
            Way::Hash => hash(&[&cell.to_string(), package, test]) % self.of == self.part - 1,
        });
        ours.map(|(_, test)| test).collect()
    }
}

/// The same for the same words on every machine: FNV-1a, its bits stirred.
pub(super) fn hash(words: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in words.iter().flat_map(|word| word.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kmt_reporters::event::Arch;

    use super::*;

    #[test]
    fn every_test_is_in_exactly_one_part() {
        let cell = CellId::local("debian_12", "6.1", Arch::X86_64);
        let tests: Vec<String> = (0..101).map(|number| format!("Test{number}")).collect();
        for way in ["slice", "hash"] {
            let parts = (1..=5).map(|part| format!("{way}:{part}/5").parse::<Partition>().unwrap());
            let parts: Vec<Vec<String>> = parts.map(|part| part.of(&cell, "pkg", tests.clone())).collect();
            let all: BTreeSet<&String> = parts.iter().flatten().collect();
            assert_eq!((all.len(), parts.iter().map(Vec::len).sum::<usize>()), (101, 101), "{way}");
            assert!(parts.iter().all(|part| part.len() > 8), "{way}: {parts:?}");
        }
    }

    #[test]
    fn a_hashed_test_stays_where_it_is() {
        let cell = CellId::local("debian_12", "6.1", Arch::X86_64);
        let part: Partition = "hash:1/3".parse().unwrap();
        let of = |tests: &[&str]| part.of(&cell, "pkg", tests.iter().map(|t| (*t).to_owned()).collect());
        let few: Vec<String> = of(&["TestA", "TestB", "TestC"]);
        let more = of(&["TestNew", "TestA", "TestB", "TestC"]);
        assert!(few.iter().all(|test| more.contains(test)));
        assert_eq!(part.to_string(), "hash:1/3");
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for bad in ["", "2/5", "slice:0/5", "slice:6/5", "slice:a/5", "other:1/2", "hash:1"] {
            assert!(bad.parse::<Partition>().is_err(), "{bad}");
        }
    }
}
