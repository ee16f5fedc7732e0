//! What is wrong with this machine, and what mends it.
//!
//! Owns the checks ([`checks`], pure: facts in, verdicts out), the facts they need ([`look`]) and what nobody owns
//! any more ([`leftover`]). Does not print. To add a check: a function in `checks`, its line in
//! [`checks::examine`], and a fact in [`Facts`] where it needs one that is not there.

pub mod checks;
pub mod leftover;
pub mod look;

use std::path::PathBuf;

use crate::error::Failure;
use crate::external::host::HostState;
use crate::external::hypervisor::HostFacts;
use leftover::Leftover;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// As it should be.
    Fine,
    /// Works without; worth knowing.
    Note,
    /// Something does not work.
    Wrong,
}

impl Grade {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Grade::Fine => "fine",
            Grade::Note => "note",
            Grade::Wrong => "wrong",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Name of the check.
    pub check: &'static str,
    /// How it came out.
    pub grade: Grade,
    /// What was seen, in one line.
    pub says: String,
    /// The command that mends it. Whatever is wrong has one.
    pub mend: Option<String>,
    /// How `--fix` mends it.
    pub remedy: Option<Remedy>,
}

/// What `--fix` can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Start virtlogd and libvirtd.
    StartDaemons,
    /// Open `/dev/kvm` to its group.
    OpenKvm,
    /// Take a leftover away.
    Remove(Leftover),
    /// Close a private key to others.
    CloseKey(PathBuf),
}

/// A host of the user's own, and what it shows.
#[derive(Debug, Clone)]
pub struct OwnHost {
    /// Its name.
    pub name: String,
    /// Where it is, for people.
    pub place: String,
    /// Folder on it where images and machines lie.
    pub folder: PathBuf,
    /// What it is, and the room on its disk in MiB where it says; or why it cannot be used.
    pub seen: Result<(HostFacts, Option<u64>), Failure>,
}

/// Everything the checks look at.
#[derive(Debug)]
pub struct Facts {
    /// The machine.
    pub host: HostState,
    /// libvirt connection.
    pub uri: String,
    /// Where state lives.
    pub home: PathBuf,
    /// Networks the host reaches or its hypervisor may have; `None` where that does not answer.
    pub networks: Option<Vec<String>>,
    /// What the hypervisor says of itself, or why it says nothing.
    pub hypervisor: Result<HostFacts, Failure>,
    /// Images: name, and what is wrong with it.
    pub images: Vec<(String, Option<String>)>,
    /// Private keys of stacks, with their modes; no mode where one is gone.
    pub keys: Vec<(PathBuf, Option<u32>)>,
    /// The user's key, where one is chosen, and whether it is there.
    pub user_key: Option<(String, bool)>,
    /// The user's own hosts.
    pub own_hosts: Vec<OwnHost>,
    /// Whether a host could be rented: which ones where, or why not; `None` where nobody wants to.
    pub rentable: Option<Result<String, Failure>>,
    /// What nobody owns.
    pub leftovers: Vec<Leftover>,
}
