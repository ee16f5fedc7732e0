//! A world that follows a script, where every door is a fake: no virtual machine, no toolchain, no root.
//!
//! Owns the script ([`Script`], a scenario's `world.toml`), the stage ([`Stage`]: the folder in which
//! domains and guests outlive a process, as libvirt's do) and the text of the test binaries that the
//! builder writes. The fakes lie beside the adapters they stand for. Does not decide what must come out:
//! `tests/scenarios` does. To add a fault: a variant of [`Fault`], and the door that plays it.

mod rented;
mod script;
mod stage;

pub use rented::{CloudScript, RentalFault, RentedHost};
pub use script::{Fault, HostFault, MachineScript, PackageScript, Refusal, RemoteScript, Script};
pub use stage::{Domain, KILL_AT, Power, Stage};
pub(super) use stage::{end_processes, freeze_processes, signal_self};

use std::path::Path;

use crate::external::builder::{Unit, UnitKind};

/// The part of a test binary that every package shares.
const BINARY: &str = include_str!("testbinary.sh");

impl PackageScript {
    /// The text of its test binary.
    pub fn binary(&self) -> String {
        let mut text = format!("#!/bin/sh\n{}\n", self.init);
        for (name, body) in &self.tests {
            text.push_str(&format!("run_{name}() {{\n  {body}\n}}\n"));
        }
        let names: Vec<&str> = self.tests.keys().map(String::as_str).collect();
        text.push_str(&format!("names='{}'\n{BINARY}", names.join(" ")));
        text
    }

    /// The unit of its tests in the repository at `root`.
    pub fn unit(&self, root: &Path) -> Unit {
        Unit {
            kind: UnitKind::Test,
            name: self.name.clone(),
            import_path: format!("example.org/{}", self.name),
            dir: root.join(&self.name),
            inputs: Vec::new(),
            facts: vec![self.binary()],
            made: None,
        }
    }
}
