//! What remote cells cost: one EC2 host an architecture, with the machines inside it, at the list price.

use std::time::Duration;

use kmt_reporters::event::{Arch, Location};

use crate::matrix::Cell;

/// Where and when the prices were read.
pub const PRICED: &str = "on demand, Linux, us-east-1, list of 2025-08";

/// A kind of host: bare metal, since machines run inside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostKind {
    /// EC2's name of it.
    pub instance_type: &'static str,
    /// What it runs without emulation.
    pub arch: Arch,
    /// US dollars an hour; billed by the second.
    pub usd_per_hour: f64,
}

const KINDS: [HostKind; 2] = [
    HostKind { instance_type: "m5d.metal", arch: Arch::X86_64, usd_per_hour: 5.424 },
    HostKind { instance_type: "m6gd.metal", arch: Arch::Arm64, usd_per_hour: 2.8928 },
];

/// The hosts that the remote ones of these cells need; cells that find no room wait for it.
pub fn hosts<'a>(cells: impl Iterator<Item = &'a Cell> + Clone) -> Vec<HostKind> {
    let needed = |kind: &HostKind| {
        cells.clone().any(|cell| cell.id.location == Location::Remote && cell.id.arch == kind.arch)
    };
    KINDS.into_iter().filter(needed).collect()
}

/// US dollars an hour of all of them together.
pub fn usd_per_hour(hosts: &[HostKind]) -> f64 {
    hosts.iter().map(|host| host.usd_per_hour).sum()
}

/// US dollars for so long; EC2 bills a minute at least.
pub fn usd(hosts: &[HostKind], time: Duration) -> f64 {
    usd_per_hour(hosts) * time.max(Duration::from_mins(1)).as_secs_f64() / 3600.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{Catalogue, spec};

    #[test]
    fn a_host_an_architecture_is_paid_by_the_second() {
        let catalogue = Catalogue::embedded().unwrap();
        let at = |arch, location| {
            let mut cell = spec::resolve("ubuntu_22.04-x86-distro", &catalogue, arch).unwrap().cell;
            (cell.id.arch, cell.id.location) = (arch, location);
            cell
        };
        let here = [at(Arch::X86_64, Location::Local), at(Arch::Arm64, Location::Local)];
        assert_eq!(hosts(here.iter()), []);
        let both = [at(Arch::X86_64, Location::Remote), at(Arch::Arm64, Location::Remote)];
        let cells = [&here[..], &both, &both].concat();
        let hosts = hosts(cells.iter());
        assert_eq!(
            hosts.iter().map(|host| host.instance_type).collect::<Vec<_>>(),
            ["m5d.metal", "m6gd.metal"]
        );
        assert!((usd(&hosts, Duration::from_mins(30)) - 4.1584).abs() < 1e-9);
        assert!((usd(&hosts[1..], Duration::ZERO) - 2.8928 / 60.0).abs() < 1e-9);
    }
}
