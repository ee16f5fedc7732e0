//! What people call a machine: its hosts in an OpenSSH configuration, and what may be typed for it.
//!
//! Pure. A host is `kmt-<stack>-<local|x86_64|arm64>-<platform or kernel>`; where two machines would share it,
//! their size tells them apart, and where that is equal too, the machine's id. `kmt-<stack>-<recipe>-<…>` is a
//! second name where only one machine would have it. Two repositories may each have a stack of one name: the
//! stack's identity is then part of its word.

use std::collections::BTreeMap;

use kmt_reporters::event::{Arch, CellId, Location};

use super::{MachineRecord, Stack, StackRecord};
use crate::error::{Failure, Result, nearest};
use crate::matrix::spec::{self, Recipe};
use crate::matrix::{Catalogue, Cell};

/// A machine and the hosts it is known as, the first one always there.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its stack.
    pub stack: Stack,
    /// The stack in its hosts.
    pub word: String,
    /// Its record.
    pub machine: MachineRecord,
    /// Hosts, each of this machine only.
    pub hosts: Vec<String>,
}

impl Named {
    /// What it is told to people as: the cell, or the id where the cell has several machines.
    pub fn label(&self) -> String {
        let cell = self.machine.cell.to_string();
        if self.machine.id == self.machine.cell.slug() { cell } else { self.machine.id.clone() }
    }
}

/// Names the machines of all `stacks`: names depend on what else there is, so leave none out.
pub fn name_all(stacks: &[(Stack, StackRecord)]) -> Vec<Named> {
    let words = stack_words(stacks);
    let machines: Vec<(&Stack, &str, &MachineRecord)> = stacks
        .iter()
        .zip(&words)
        .flat_map(|((stack, record), word)| {
            record.machines.values().map(move |machine| (stack, word.as_str(), machine))
        })
        .collect();
    let plain = |word: &str, machine: &MachineRecord| {
        format!("kmt-{word}-{}-{}", place(&machine.cell), tag(&machine.cell))
    };
    let sized = |word: &str, machine: &MachineRecord| {
        format!("{}-mem{}-cpu{}", plain(word, machine), machine.memory_mib, machine.vcpu)
    };
    let by_recipe = |word: &str, machine: &MachineRecord| {
        format!("kmt-{word}-{}-{}", Recipe::of(&machine.cell).as_str(), tag(&machine.cell))
    };
    let count = |name: &dyn Fn(&str, &MachineRecord) -> String| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (_, word, machine) in &machines {
            *counts.entry(name(word, machine)).or_default() += 1;
        }
        counts
    };
    let (plain_counts, sized_counts, recipe_counts) = (count(&plain), count(&sized), count(&by_recipe));
    let named = |(stack, word, machine): &(&Stack, &str, &MachineRecord)| {
        let first = [plain(word, machine), sized(word, machine)];
        let alone = |name: &&String| {
            plain_counts.get(*name).or(sized_counts.get(*name)).is_none_or(|count| *count == 1)
        };
        let first = first.iter().find(alone).cloned();
        let first =
            first.unwrap_or_else(|| format!("kmt-{word}-{}-{}", place(&machine.cell), sane(&machine.id)));
        let second = by_recipe(word, machine);
        let second = (recipe_counts.get(&second) == Some(&1)).then_some(second);
        Named {
            stack: (*stack).clone(),
            word: (*word).to_owned(),
            machine: (*machine).clone(),
            hosts: std::iter::once(first).chain(second).collect(),
        }
    };
    machines.iter().map(named).collect()
}

/// How each stack is written in a host: its name, with a part of its identity where the name is not unique.
fn stack_words(stacks: &[(Stack, StackRecord)]) -> Vec<String> {
    let plain: Vec<String> = stacks.iter().map(|(stack, _)| sane(&stack.name)).collect();
    let alone = |word: &String| plain.iter().filter(|other| *other == word).count() == 1;
    let full = |(word, (stack, _)): (&String, &(Stack, StackRecord))| {
        if alone(word) { word.clone() } else { format!("{word}-{}", &stack.uuid.simple().to_string()[..8]) }
    };
    plain.iter().zip(stacks).map(full).collect()
}

/// A word that means itself in a host: `ssh` reads what stands before `@` as a user.
fn sane(word: &str) -> String {
    word.replace('@', "-")
}

/// Where the machine is: `local`, or the architecture of a remote host.
pub fn place(cell: &CellId) -> &'static str {
    match cell.location {
        Location::Local => "local",
        Location::Remote => cell.arch.as_str(),
    }
}

/// What it is: the platform's id, or the version of a custom kernel.
pub fn tag(cell: &CellId) -> &str {
    match Recipe::of(cell) {
        Recipe::Distro => &cell.platform,
        Recipe::Custom => &cell.kernel,
    }
}

/// The machines that `wanted` means: by id, cell, host, short form, or the beginning of one of these. The first of
/// these ways that finds any counts.
pub fn matching<'m>(machines: &'m [Named], wanted: &str, catalogue: &Catalogue) -> Vec<&'m Named> {
    let cell = spec::resolve(wanted, catalogue, Arch::host()).ok().map(|resolved| resolved.cell);
    let same_place = |machine: &MachineRecord, cell: &Cell| {
        let (own, meant) = (&machine.cell, &cell.id);
        (&own.platform, &own.kernel, own.arch, own.location)
            == (&meant.platform, &meant.kernel, meant.arch, meant.location)
    };
    let ways: [&dyn Fn(&Named) -> bool; 4] = [
        &|named| named.machine.id == wanted || named.hosts.iter().any(|host| host == wanted),
        &|named| named.machine.cell.to_string() == wanted || tag(&named.machine.cell) == wanted,
        &|named| cell.as_ref().is_some_and(|cell| same_place(&named.machine, cell)),
        &|named| !wanted.is_empty() && said(named).any(|name| name.starts_with(wanted)),
    ];
    let found = |way: &&dyn Fn(&Named) -> bool| machines.iter().filter(|named| way(named)).collect();
    ways.iter().map(found).find(|found: &Vec<_>| !found.is_empty()).unwrap_or_default()
}

/// The one machine that `wanted` means.
///
/// # Errors
/// None does, with the nearest name; several do, with their ids.
pub fn one<'m>(machines: &'m [Named], wanted: &str, catalogue: &Catalogue) -> Result<&'m Named> {
    match matching(machines, wanted, catalogue)[..] {
        [machine] => Ok(machine),
        [] => Err(none(machines, wanted)),
        ref several => {
            let ids: Vec<&str> = several.iter().map(|named| named.machine.id.as_str()).collect();
            Err(Failure::usage(format!("`{}` may be several machines", wanted.escape_debug()))
                .hint(format!("one of `{}`", ids.join("`, `"))))
        }
    }
}

/// Why no machine is meant.
pub fn none(machines: &[Named], wanted: &str) -> Failure {
    let failure = Failure::usage(format!("no machine `{}`", wanted.escape_debug()));
    let names: Vec<String> = machines.iter().flat_map(said).collect();
    match nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None if machines.is_empty() => {
            failure.hint("the stack has no machines: `kmt-run run --vms debian_12-local-distro` boots one")
        }
        None => failure.hint("kmt-run stack status"),
    }
}

/// Everything a machine may be called.
fn said(named: &Named) -> impl Iterator<Item = String> {
    let machine = &named.machine;
    let short = spec::spelling(&machine.cell, Arch::host());
    let own = [machine.cell.to_string(), machine.id.clone(), tag(&machine.cell).to_owned()];
    own.into_iter().chain(short).chain(named.hosts.clone())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn stack(name: &str, cells: &[(&str, u32, u32)]) -> (Stack, StackRecord) {
        let mut record = StackRecord::new(name, Path::new("/r"));
        for (cell, vcpu, memory) in cells {
            record.add(&cell.parse().unwrap(), *vcpu, *memory, 22);
        }
        let folder = PathBuf::from("/h/stacks").join(name);
        (Stack { folder, name: name.to_owned(), uuid: record.uuid }, record)
    }

    fn hosts(stacks: &[(Stack, StackRecord)]) -> Vec<Vec<String>> {
        name_all(stacks).into_iter().map(|named| named.hosts).collect()
    }

    #[test]
    fn a_host_is_stack_place_and_platform_with_the_old_name_beside() {
        let stacks = [stack("demo", &[("custom/6.12/x86_64", 2, 1024), ("debian_12/6.1/x86_64", 2, 1024)])];
        let wanted = [
            ["kmt-demo-local-6.12", "kmt-demo-custom-6.12"],
            ["kmt-demo-local-debian_12", "kmt-demo-distro-debian_12"],
        ];
        assert_eq!(hosts(&stacks), wanted);
        let remote = [stack("demo", &[("debian_12/6.1/arm64@remote", 2, 1024)])];
        assert_eq!(hosts(&remote), [["kmt-demo-arm64-debian_12", "kmt-demo-distro-debian_12"]]);
    }

    #[test]
    fn equal_names_are_told_apart_by_size_and_then_by_id() {
        let cells = [
            ("debian_12/6.1/x86_64", 2, 1024),
            ("debian_12/6.1/x86_64#4x2048", 4, 2048),
            ("debian_12/6.1/arm64", 2, 1024),
        ];
        let wanted = [
            ["kmt-s-local-debian_12-6.1-arm64"],
            ["kmt-s-local-debian_12-6.1-x86_64"],
            ["kmt-s-local-debian_12-mem2048-cpu4"],
        ];
        assert_eq!(hosts(&[stack("s", &cells)]), wanted);
    }

    #[test]
    fn no_host_is_given_twice_even_by_stacks_of_one_name() {
        let cell = [("debian_12/6.1/x86_64", 2, 1024)];
        let stacks = [stack("main", &cell), stack("main", &cell), stack("a@b", &cell), stack("a-b", &cell)];
        let all: Vec<String> = hosts(&stacks).concat();
        let unique: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(unique.len(), 8, "{all:?}");
        assert!(all.iter().all(|host| !host.contains('@')), "{all:?}");
    }

    #[test]
    fn machines_are_meant_by_id_cell_short_form_host_and_beginning() {
        let catalogue = Catalogue::embedded().unwrap();
        let cells = [
            ("custom/6.12/x86_64", 2, 1024),
            ("debian_12/6.1/x86_64", 2, 1024),
            ("debian_13/6.12/x86_64", 2, 1024),
        ];
        let machines = name_all(&[stack("demo", &cells)]);
        let mean = |text: &str| one(&machines, text, &catalogue).map(|named| named.machine.id.clone());
        for text in [
            "debian_12-6.1-x86_64",
            "debian_12/6.1/x86_64",
            "debian_12",
            "debian_12/",
            "kmt-demo-local-debian_12",
            "kmt-demo-distro-debian_12",
        ] {
            assert_eq!(mean(text).as_deref(), Ok("debian_12-6.1-x86_64"), "{text}");
        }
        if Arch::host() == Arch::X86_64 {
            assert_eq!(mean("bookworm-local-distro").as_deref(), Ok("debian_12-6.1-x86_64"));
        }
        assert_eq!(mean("cus").as_deref(), Ok("custom-6.12-x86_64"));
        let several = mean("deb").unwrap_err().one_line();
        assert!(several.contains("debian_12-6.1-x86_64`, `debian_13-6.12-x86_64"), "{several}");
        let near = mean("debian_21").unwrap_err().one_line();
        assert!(near.contains("did you mean `debian_1"), "{near}");
        assert!(mean("").is_err());
    }
}
