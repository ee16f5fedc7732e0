//! THE table of Debian packages, and what of it a machine lacks.

use std::collections::BTreeMap;
use std::str::FromStr;

/// For what a package is needed. Each contains the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Compiling kmt-run.
    Build,
    /// Running it: images, machines, Go suites.
    Run,
    /// Its own tests.
    Test,
    /// The long ones.
    Soak,
}

impl FromStr for Need {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "build" => Ok(Self::Build),
            "run" => Ok(Self::Run),
            "test" => Ok(Self::Test),
            "soak" => Ok(Self::Soak),
            _ => Err(format!("`{word}` is none of `build`, `run`, `test`, `soak`")),
        }
    }
}

impl Need {
    /// The word of the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Run => "run",
            Self::Test => "test",
            Self::Soak => "soak",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    /// Debian's name.
    pub(crate) name: &'static str,
    /// The first thing that needs it.
    pub(crate) need: Need,
    /// A command that, being there, shows the package is not needed: one may have Go from elsewhere.
    served_by: Option<&'static str>,
    /// Why.
    pub(crate) why: &'static str,
}

const fn package(need: Need, name: &'static str, why: &'static str) -> Package {
    Package { name, need, served_by: None, why }
}

const fn tool(need: Need, name: &'static str, served_by: &'static str, why: &'static str) -> Package {
    Package { name, need, served_by: Some(served_by), why }
}

/// Every package kmt-run wants from Debian.
#[rustfmt::skip]
pub(crate) const TABLE: &[Package] = &[
    tool(Need::Build, "gcc", "cc", "links Rust programs"),
    tool(Need::Build, "pkg-config", "pkg-config", "finds libvirt when the crate `virt` is built"),
    package(Need::Build, "libvirt-dev", "headers and library the crate `virt` links to"),
    package(Need::Run, "libvirt-daemon", "libvirtd and virtlogd"),
    package(Need::Run, "libvirt-daemon-driver-qemu", "libvirtd's QEMU driver"),
    package(Need::Run, "libvirt-daemon-system", "root's libvirtd: its configuration, user libvirt-qemu, group libvirt"),
    package(Need::Run, "libvirt-clients", "virsh: to look at machines by hand, and to check libvirtd"),
    package(Need::Run, "qemu-system-x86", "the machines"),
    package(Need::Run, "qemu-utils", "qemu-img: overlays"),
    package(Need::Run, "seabios", "the machines' firmware"),
    package(Need::Run, "mmdebstrap", "root filesystems from Debian's packages, without being root"),
    tool(Need::Run, "uidmap", "newuidmap", "user namespaces for mmdebstrap"),
    tool(Need::Run, "e2fsprogs", "mke2fs", "a file system from a directory"),
    tool(Need::Run, "kmod", "depmod", "depmod for kernels put into an image"),
    tool(Need::Run, "cpio", "cpio", "initramfs archives"),
    tool(Need::Run, "xz-utils", "xz", "unpacks packages, images, modules"),
    tool(Need::Run, "zstd", "zstd", "unpacks packages, kernels, modules"),
    tool(Need::Run, "acl", "setfacl", "lets QEMU's user read what lies under a closed directory"),
    tool(Need::Run, "openssh-client", "ssh", "reaches the machines; makes their keys"),
    tool(Need::Run, "golang-go", "go", "builds the suites"),
    tool(Need::Test, "iproute2", "ip", "network namespaces of tests"),
    tool(Need::Test, "dnsmasq-base", "dnsmasq", "addresses of machines in a network of their stack's own"),
    tool(Need::Test, "iptables", "iptables", "lets them out of it"),
    tool(Need::Test, "gdb", "gdb", "a live test debugs a kernel"),
    tool(Need::Test, "tmux", "tmux", "a live test looks at `stack tmux`"),
    tool(Need::Test, "libxml2-utils", "xmllint", "scenarios judge their JUnit by its schema"),
    tool(Need::Test, "chromium", "chromium", "a live test opens the page of a run in it"),
    tool(Need::Test, "chromium-driver", "chromedriver", "drives that browser"),
    package(Need::Test, "python3-junitparser", "scenarios and live tests read their JUnit with it too"),
    package(Need::Test, "python3-venv", "linters of GitLab's YAML come from PyPI into one"),
    tool(Need::Test, "openssl", "openssl", "a test makes a certificate authority of its own"),
    tool(Need::Test, "rsync", "rsync", "a peer of a benchmark"),
    package(Need::Test, "libcap-ng-dev", "virtiofsd, which a peer of a benchmark needs, links to it"),
    package(Need::Test, "libseccomp-dev", "as to this"),
    tool(Need::Test, "clang", "clang", "compiles eBPF objects of a test's tree"),
    package(Need::Test, "libbpf-dev", "headers for those objects; a suite in C of a live test loads one by it"),
    package(Need::Test, "libelf-dev", "which libbpf needs when it is linked statically"),
    package(Need::Test, "zlib1g-dev", "which libbpf needs when it is linked statically"),
    package(Need::Test, "gcc-aarch64-linux-gnu", "compiles C of Go packages for arm64"),
    package(Need::Test, "libc6-dev-arm64-cross", "which needs these headers"),
    package(Need::Test, "openssh-server", "hosts of one's own are namespaces with an sshd"),
    package(Need::Test, "golang-github-cilium-ebpf-dev", "a live test runs this foreign suite"),
    package(Need::Test, "golang-github-frankban-quicktest-dev", "which that suite's tests import"),
    package(Need::Test, "golang-github-google-go-cmp-dev", "which that suite's tests import"),
    package(Need::Soak, "qemu-system-arm", "machines of arm64 (on arm64 itself those of a run)"),
    package(Need::Soak, "qemu-efi-aarch64", "their firmware"),
    package(Need::Soak, "qemu-user-static", "programs of arm64 while its image is made"),
    package(Need::Soak, "arch-test", "by which mmdebstrap finds out whether they run"),
];

/// What of [`TABLE`] is missing for `need`. `installed` maps a package to its version; `has_command` looks
/// into `PATH`.
pub(crate) fn missing(
    need: Need,
    installed: &BTreeMap<String, String>,
    has_command: impl Fn(&str) -> bool,
) -> Vec<Package> {
    let serves = |row: &Package| row.served_by.is_some_and(&has_command);
    TABLE
        .iter()
        .filter(|row| row.need <= need && !installed.contains_key(row.name) && !serves(row))
        .copied()
        .collect()
}

/// The `-f` that [`parse_dpkg`] reads.
pub(crate) const DPKG_FORMAT: &str = "${Package} ${db:Status-Status} ${Version}\\n";

/// Reads the output of `dpkg-query -W -f` [`DPKG_FORMAT`]: what is really installed, not merely known or half
/// removed.
pub(crate) fn parse_dpkg(text: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, status, version) = (words.next()?, words.next()?, words.next()?);
        (status == "installed").then(|| (name.to_owned(), version.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_counts() {
        let text = "gcc installed 4:12.2.0-3\nseabios not-installed \nkmod config-files 30-1\nacl half-installed 2\n";
        let installed = parse_dpkg(text);
        assert_eq!(installed.into_iter().collect::<Vec<_>>(), [("gcc".to_owned(), "4:12.2.0-3".to_owned())]);
    }

    #[test]
    fn a_bare_machine_lacks_the_whole_table_and_a_full_one_nothing() {
        let all: BTreeMap<_, _> = TABLE.iter().map(|row| (row.name.to_owned(), "1".to_owned())).collect();
        assert_eq!(missing(Need::Soak, &BTreeMap::new(), |_| false).len(), TABLE.len());
        assert!(missing(Need::Test, &all, |_| false).is_empty());
    }

    #[test]
    fn each_need_contains_the_ones_before() {
        let names =
            |need| missing(need, &BTreeMap::new(), |_| false).iter().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(Need::Build), ["gcc", "pkg-config", "libvirt-dev"]);
        assert!(names(Need::Run).starts_with(&names(Need::Build)));
        assert!(names(Need::Test).contains(&"golang-github-cilium-ebpf-dev"));
        assert!(!names(Need::Run).contains(&"golang-github-cilium-ebpf-dev"));
    }

    #[test]
    fn go_from_elsewhere_is_good_enough() {
        let names: Vec<_> =
            missing(Need::Run, &BTreeMap::new(), |word| word == "go").iter().map(|p| p.name).collect();
        assert!(!names.contains(&"golang-go"));
        assert!(names.contains(&"qemu-system-x86"));
    }

    #[test]
    fn every_row_is_unique_and_says_why() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(!row.why.is_empty(), "{}", row.name);
            assert!(TABLE[..index].iter().all(|other| other.name != row.name), "{}", row.name);
        }
    }
}
