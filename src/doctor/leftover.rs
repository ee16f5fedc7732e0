//! What nobody owns any more: found by comparing records with what exists, taken away one by one.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::external::hypervisor::OwnedDomain;
use crate::external::hypervisor::network::OwnedNetwork;
use crate::hosts::Hosts;
use crate::settings::Home;
use crate::stack::{Progress, Stack, StackRecord};

/// Something that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A domain of a stack of this home that the stack does not know.
    Domain {
        /// Its name.
        domain: String,
    },
    /// A domain with our mark whose stack is not in this home. Another home may own it.
    Foreign {
        /// Its name.
        domain: String,
    },
    /// A network that its stack does not know.
    Network {
        /// Its name.
        network: String,
    },
    /// A network of a stack that is not here: of another home, perhaps of another user.
    ForeignNetwork {
        /// Its name.
        network: String,
    },
    /// A machine that a process that is gone left half-made or spoiled.
    HalfMade {
        /// Name of its stack.
        stack: String,
        /// Its id.
        machine: String,
    },
    /// Files of a machine that its stack does not know.
    Files {
        /// Their folder.
        folder: PathBuf,
    },
    /// A folder of control sockets whose stack is gone.
    Sockets {
        /// The folder.
        folder: PathBuf,
    },
    /// A stack whose record cannot be read.
    Damaged {
        /// Its folder.
        folder: PathBuf,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leftover::Domain { domain } => write!(f, "domain {domain}, which its stack does not know"),
            Leftover::Foreign { domain } => write!(f, "domain {domain}, whose stack is not here"),
            Leftover::Network { network } => write!(f, "network {network}, which its stack does not know"),
            Leftover::ForeignNetwork { network } => write!(f, "network {network}, whose stack is not here"),
            Leftover::HalfMade { stack, machine } => {
                write!(f, "machine {machine} of stack {stack}, left unusable by a process that is gone")
            }
            Leftover::Files { folder } => {
                write!(f, "files of a machine that no stack knows: {}", folder.display())
            }
            Leftover::Sockets { folder } => write!(f, "control sockets of no stack: {}", folder.display()),
            Leftover::Damaged { folder } => write!(f, "a stack that cannot be read: {}", folder.display()),
        }
    }
}

/// Everything that nobody owns. Without an answer of the hypervisor `domains` is `None`: then nothing is said about
/// domains and sockets.
///
/// # Errors
/// The stacks cannot be listed.
pub fn find(home: &Home, domains: Option<&[OwnedDomain]>, sockets: &Path) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    let mut stacks: Vec<(Stack, StackRecord)> = Vec::new();
    for folder in folders(&home.stacks()) {
        match Stack::open(&folder).and_then(|stack| stack.record().map(|record| (stack, record))) {
            Ok(stack) => stacks.push(stack),
            // A folder without a record is one that is just being made, or removed.
            Err(_) if Stack::is_at(&folder) => found.push(Leftover::Damaged { folder }),
            Err(_) => {}
        }
    }
    for (stack, record) in &stacks {
        for machine in record.machines.values() {
            if machine.progress != Progress::Ready && stack.holder(&machine.id).is_none() {
                found.push(Leftover::HalfMade { stack: stack.name.clone(), machine: machine.id.clone() });
            }
        }
        let known = |folder: &PathBuf| {
            folder.file_name().is_some_and(|id| record.machines.contains_key(&*id.to_string_lossy()))
        };
        let below = folders(&stack.folder.join("machines"));
        found.extend(below.into_iter().filter(|f| !known(f)).map(|folder| Leftover::Files { folder }));
    }
    // A record that cannot be read may be of any stack: nothing is certain then.
    let certain = !found.iter().any(|leftover| matches!(leftover, Leftover::Damaged { .. }));
    if let Some(domains) = domains {
        found.extend(domains.iter().filter_map(|domain| of_domain(domain, &stacks)));
        if certain {
            found.extend(of_sockets(sockets, domains, &stacks));
        }
    }
    Ok(found)
}

fn of_domain(domain: &OwnedDomain, stacks: &[(Stack, StackRecord)]) -> Option<Leftover> {
    let name = domain.name.clone();
    match stacks.iter().find(|(stack, _)| stack.uuid == domain.stack) {
        Some((_, record)) if record.machines.contains_key(&domain.machine) => None,
        Some(_) => Some(Leftover::Domain { domain: name }),
        None => Some(Leftover::Foreign { domain: name }),
    }
}

/// Networks of ours that no stack knows.
///
/// # Errors
/// The stacks cannot be read.
pub fn of_networks(home: &Home, networks: &[OwnedNetwork]) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    let stacks = Stack::all(home)?;
    for OwnedNetwork { name, stack } in networks {
        let network = name.clone();
        match stacks.iter().find(|known| known.uuid == *stack) {
            Some(known) if known.record()?.subnet.is_some() => {}
            Some(_) => found.push(Leftover::Network { network }),
            None => found.push(Leftover::ForeignNetwork { network }),
        }
    }
    Ok(found)
}

/// Folders of control sockets of this user, `kmt-<user>-<stack>`, whose stack has neither record nor domain.
fn of_sockets(folder: &Path, domains: &[OwnedDomain], stacks: &[(Stack, StackRecord)]) -> Vec<Leftover> {
    let short = |uuid: &uuid::Uuid| uuid.simple().to_string()[..8].to_owned();
    let known: BTreeSet<String> = stacks.iter().map(|(stack, _)| short(&stack.uuid)).collect();
    let alive: BTreeSet<String> = domains.iter().map(|domain| short(&domain.stack)).collect();
    let prefix = format!("kmt-{}-", rustix::process::geteuid().as_raw());
    let gone = |folder: &PathBuf| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let stack = name.strip_prefix(&prefix).filter(|rest| rest.len() == 8).map(str::to_owned);
        stack.is_some_and(|stack| !known.contains(&stack) && !alive.contains(&stack))
    };
    folders(folder).into_iter().filter(gone).map(|folder| Leftover::Sockets { folder }).collect()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> =
        listed.filter(|path| path.symlink_metadata().is_ok_and(|seen| seen.is_dir())).collect();
    folders.sort();
    folders
}

/// Takes it away. What may belong to somebody else stays.
///
/// # Errors
/// The hypervisor or the file system refused.
pub async fn remove(leftover: &Leftover, home: &Home, hosts: &Hosts) -> Result<()> {
    match leftover {
        Leftover::Domain { domain } => Ok(hosts.here().remove(domain).await?),
        Leftover::Network { network } => Ok(hosts.here().remove_network(network).await?),
        Leftover::HalfMade { .. } => crate::stack::sweep(home, hosts).await.map(drop),
        Leftover::Files { folder } | Leftover::Sockets { folder } => match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::file("remove", folder, &error))
            }
            _ => Ok(()),
        },
        Leftover::Foreign { .. } | Leftover::ForeignNetwork { .. } | Leftover::Damaged { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external::hypervisor::DomainState;

    fn domain(name: &str, stack: uuid::Uuid, machine: &str) -> OwnedDomain {
        OwnedDomain { name: name.to_owned(), stack, machine: machine.to_owned(), state: DomainState::Running }
    }

    #[test]
    fn a_network_is_owned_by_a_stack_that_has_written_it_down() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(&temp.path().join("home"));
        let stack = Stack::open_or_create(&home, "main", temp.path()).unwrap();
        let network = |stack| OwnedNetwork { name: "n".to_owned(), stack };
        let find = |stack| of_networks(&home, &[network(stack)]).unwrap();
        assert_eq!(find(stack.uuid), [Leftover::Network { network: "n".to_owned() }]);
        assert_eq!(find(uuid::Uuid::nil()), [Leftover::ForeignNetwork { network: "n".to_owned() }]);
        stack.change(|record| record.subnet = "192.168.100.0/24".parse().ok()).unwrap();
        assert_eq!(find(stack.uuid), []);
    }

    #[test]
    fn what_a_record_knows_is_owned_and_all_else_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(&temp.path().join("home"));
        let stack = Stack::open_or_create(&home, "main", temp.path()).unwrap();
        let id = stack
            .change(|record| record.add(&"debian_12/6.1/x86_64".parse().unwrap(), 1, 512, 22).id)
            .unwrap();
        let ready = |progress| {
            stack.change(|record| record.machines.get_mut(&id).unwrap().progress = progress).unwrap();
        };
        ready(Progress::Ready);
        std::fs::create_dir_all(stack.machine_folder(&id)).unwrap();
        let sockets = temp.path().join("tmp");
        let user = rustix::process::geteuid().as_raw();
        let own = stack.sockets();
        let own = sockets.join(own.file_name().unwrap());
        let gone = sockets.join(format!("kmt-{user}-0123abcd"));
        let living = uuid::Uuid::new_v4();
        let other_home = sockets.join(format!("kmt-{user}-{}", &living.simple().to_string()[..8]));
        for folder in [&own, &other_home] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let domains = [domain("a", stack.uuid, &id), domain("c", living, "x")];
        let find = |domains: &[OwnedDomain]| find(&home, Some(domains), &sockets).unwrap();
        assert_eq!(find(&domains), [Leftover::Foreign { domain: "c".to_owned() }]);

        std::fs::create_dir_all(&gone).unwrap();
        std::fs::create_dir_all(stack.machine_folder("forgotten")).unwrap();
        ready(Progress::Making);
        let wanted = [
            Leftover::HalfMade { stack: "main".to_owned(), machine: id.clone() },
            Leftover::Files { folder: stack.machine_folder("forgotten") },
            Leftover::Domain { domain: "b".to_owned() },
            Leftover::Sockets { folder: gone.clone() },
        ];
        assert_eq!(
            find(&[domain("b", stack.uuid, "forgotten"), domains[0].clone(), domain("d", living, "x")])[..3],
            wanted[..3]
        );
        assert!(find(&domains).contains(&wanted[3]));
        let lease = stack.lease(&id).unwrap().unwrap();
        assert!(!find(&domains).contains(&wanted[0]), "somebody is making it");
        drop(lease);

        std::fs::write(stack.folder.join("stack.json"), "{").unwrap();
        let damaged = find(&[]);
        assert_eq!(damaged, [Leftover::Damaged { folder: stack.folder.clone() }]);
    }
}
