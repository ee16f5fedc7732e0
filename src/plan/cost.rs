//! What remote cells cost: one rented host an architecture, with the machines inside it, at the list price.

use std::time::Duration;

use kmt_reporters::event::{Arch, Location};

use crate::cloud::kinds::{Kind, alternatives};
use crate::matrix::Cell;
use crate::settings::ec2::Ec2;

/// A host that is asked for first; others of its architecture stand in where none is free.
pub type HostKind = Kind;

/// The hosts that the remote ones of these cells need, where the user has none of `own`'s architectures.
pub fn hosts<'a>(
    cells: impl Iterator<Item = &'a Cell> + Clone,
    ec2: Option<&Ec2>,
    own: &[Arch],
) -> Vec<HostKind> {
    let mut hosts = Vec::new();
    for arch in Arch::ALL.into_iter().filter(|arch| !own.contains(arch)) {
        let is = |cell: &Cell| cell.id.location == Location::Remote && cell.id.arch == arch;
        if cells.clone().any(is) {
            // What cannot be a host was refused when the file was read.
            hosts.extend(alternatives(ec2, arch).unwrap_or_default().into_iter().next());
        }
    }
    hosts
}

/// US dollars an hour of all of them together; `None` where the price of one is not known.
pub fn usd_per_hour(hosts: &[HostKind]) -> Option<f64> {
    hosts.iter().map(|host| host.usd_per_hour).sum()
}

/// US dollars for so long; EC2 bills a minute at least.
pub fn usd(hosts: &[HostKind], time: Duration) -> Option<f64> {
    usd_per_hour(hosts).map(|price| usd_of(price, time))
}

/// US dollars for so long at that price an hour.
pub fn usd_of(usd_per_hour: f64, time: Duration) -> f64 {
    usd_per_hour * time.max(Duration::from_mins(1)).as_secs_f64() / 3600.0
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
        assert_eq!(hosts(here.iter(), None, &[]), []);
        let both = [at(Arch::X86_64, Location::Remote), at(Arch::Arm64, Location::Remote)];
        let cells = [&here[..], &both, &both].concat();
        let needed = hosts(cells.iter(), None, &[]);
        let names = needed.iter().map(|host| host.instance_type.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["m5d.metal", "m6gd.metal"]);
        assert!((usd(&needed, Duration::from_mins(30)).unwrap() - 4.1584).abs() < 1e-9);
        assert!((usd(&needed[1..], Duration::ZERO).unwrap() - 2.8928 / 60.0).abs() < 1e-9);
        assert_eq!(hosts(cells.iter(), None, &[Arch::X86_64]).len(), 1, "one of one's own costs nothing");
        let ec2: Ec2 = toml::from_str("[types]\nx86_64 = ['c8i.4xlarge']").unwrap();
        let unknown = hosts(cells.iter(), Some(&ec2), &[Arch::Arm64]);
        assert_eq!((unknown.len(), usd(&unknown, Duration::ZERO)), (1, None));
    }
}
