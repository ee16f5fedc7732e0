//! The real tools of a Debian machine. As an ordinary user everything that must own files as root happens in a
//! user namespace (`mmdebstrap --mode=unshare`, `unshare --map-root-user --map-auto`).

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use kmt_reporters::event::Arch;

use super::apt::{self, Paragraph};
use super::{
    Compression, DebianTools, Ext4, Freshness, KEYRING, Lines, Package, Suite, program, shown, source_lines,
};
use crate::external::process::Child;
use crate::external::{Class, Error, Result};

/// What every clock in a bootstrapped tree says at most: builds of one day and the next are the same bytes.
const EPOCH: &str = "1700000000";

/// Programs, and the package that brings each.
const PROGRAMS: [(&str, &str); 11] = [
    ("mmdebstrap", "mmdebstrap"),
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("dpkg-deb", "dpkg"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("lz4", "lz4"),
    ("unshare", "util-linux"),
];

/// What only an ordinary user needs.
const USER_PROGRAMS: [(&str, &str); 2] = [("newuidmap", "uidmap"), ("newgidmap", "uidmap")];

/// Debian's tools on this machine.
#[derive(Debug, Clone)]
pub struct DebianHost {
    cache: PathBuf,
    mirror: Option<String>,
    who: Who,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Root,
    User,
}

impl DebianHost {
    /// Tools that keep package lists and downloads below `cache`, and read from `mirror` instead of the
    /// catalogue's where one is given (`KMT_DEBIAN_MIRROR`).
    pub fn new(cache: impl Into<PathBuf>, mirror: Option<String>) -> DebianHost {
        let who = if rustix::process::geteuid().is_root() { Who::Root } else { Who::User };
        DebianHost { cache: cache.into(), mirror, who }
    }

    fn tool(&self, name: &str) -> Child {
        Child::new(program(name).unwrap_or_else(|| name.into()))
    }

    /// The tool as root of the tree it works on.
    fn rooted(&self, name: &str) -> Child {
        match self.who {
            Who::Root => self.tool(name),
            Who::User => self
                .tool("unshare")
                .args(["--user", "--map-root-user", "--map-auto", "--"])
                .arg(program(name).unwrap_or_else(|| name.into())),
        }
    }

    fn sources(&self, suite: Suite<'_>) -> Vec<String> {
        source_lines(suite.source, self.mirror.as_deref())
    }

    /// The folder of apt's lists for this suite, made, configured and locked (apt itself refuses to wait for
    /// another): apt of the host is left alone.
    async fn apt(&self, suite: Suite<'_>) -> Result<AptFolder> {
        let sources = self.sources(suite).join("\n") + "\n";
        let name = format!("{}-{}-{}", suite.source.suite, suite.arch, &digest(&sources)[..12]);
        let home = self.cache.join("apt").join(name);
        let make = |folder: &str| {
            let path = home.join(folder);
            fs::create_dir_all(&path)
                .map_err(|error| Error::io("apt", "make its folder", shown(&path), &error))
        };
        for folder in ["etc/parts", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"] {
            make(folder)?;
        }
        let put = |name: &str, text: &str| {
            let path = home.join(name);
            fs::write(&path, text).map_err(|error| Error::io("apt", "write", shown(&path), &error))
        };
        let lock = locked(&home.join("lock")).await?;
        put("etc/sources.list", &sources)?;
        put("status", "")?;
        put("apt.conf", &configuration(&home, suite.arch))?;
        Ok(AptFolder { config: home.join("apt.conf"), archives: home.join("cache/archives"), _lock: lock })
    }

    async fn show(&self, apt: &AptFolder, names: &[&str]) -> Result<Vec<Paragraph>> {
        let child = apt.run(self.tool("apt-cache")).args(["show", "--no-all-versions", "--"]).args(names);
        Ok(apt::paragraphs(&child.success().await?.text()))
    }

    async fn resolve(&self, apt: &AptFolder, wanted: &str) -> Result<Paragraph> {
        let head = wanted.split('*').next().unwrap_or(wanted);
        let listed = apt.run(self.tool("apt-cache")).args(["pkgnames", "--", head]).success().await?.text();
        let mut names: Vec<&str> = listed.lines().filter(|name| apt::matches(wanted, name)).collect();
        names.sort_unstable();
        let missing = || {
            Error::new("apt", "find", wanted, Class::NotFound, "no package of the suite has this name")
                .hint("see the `kernel` entry in `matrices/catalog/`")
        };
        if names.is_empty() {
            return Err(missing());
        }
        let found = apt::newest(self.show(apt, &names).await?).ok_or_else(missing)?;
        match found.kernel_behind().map(str::to_owned) {
            Some(kernel) => apt::newest(self.show(apt, &[&kernel]).await?).ok_or_else(missing),
            None => Ok(found),
        }
    }

    /// Where mmdebstrap may unpack: the work folder, unless the namespace's users cannot reach it.
    fn temporary(&self, work: &Path) -> Option<PathBuf> {
        (self.who == Who::Root || reachable(work)).then(|| work.to_owned())
    }

    async fn mmdebstrap(
        &self,
        suite: Suite<'_>,
        packages: &[&str],
        work: &Path,
        lines: Lines<'_>,
    ) -> Result<()> {
        let mode = if self.who == Who::Root { "root" } else { "unshare" };
        let mut child = self
            .tool("mmdebstrap")
            .env("SOURCE_DATE_EPOCH", EPOCH)
            .arg(format!("--mode={mode}"))
            .args(["--variant=apt", "--format=tar"])
            .arg(format!("--architectures={}", suite.arch.deb()))
            .arg(format!("--keyring={KEYRING}"))
            .arg(format!("--include={}", packages.join(",")));
        for option in
            ["Acquire::Languages \"none\"", "APT::Install-Recommends \"false\"", "Acquire::Retries \"3\""]
        {
            child = child.arg(format!("--aptopt={option}"));
        }
        if suite.source.accept_expired_release {
            child = child.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
        }
        for option in ["path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*"] {
            child = child.arg(format!("--dpkgopt={option}"));
        }
        child = child.args(["--dpkgopt=path-exclude=/usr/share/doc/*"]);
        child = child.args(["--dpkgopt=path-include=/usr/share/doc/*/copyright"]);
        if let Some(folder) = self.temporary(work) {
            child = child.env("TMPDIR", folder);
        }
        child = child.arg(&suite.source.suite).arg(work.join("rootfs.tar")).args(self.sources(suite));
        child.watched(lines).await.map(drop).map_err(|error| self.explain("mmdebstrap", error))
    }

    /// Adds what helps to the tool's own words.
    fn explain(&self, system: &'static str, mut error: Error) -> Error {
        const NETWORK: [&str; 6] = [
            "Temporary failure resolving",
            "Could not resolve",
            "Could not connect",
            "Connection failed",
            "Network is unreachable",
            "Connection timed out",
        ];
        error.system = system;
        let says = |words: &[&str]| words.iter().any(|word| error.detail.contains(word));
        let (class, hint) = if says(&["No space left on device"]) {
            (Class::Busy, "make room on the disk, or set KMT_HOME to one that has")
        } else if says(&NETWORK) {
            (
                Class::Unreachable,
                "check the network, or set KMT_DEBIAN_MIRROR to a mirror that can be reached",
            )
        } else if says(&["is expired", "is not valid yet"]) {
            (
                Class::Rejected,
                "check this machine's clock, or take a mirror that is up to date (KMT_DEBIAN_MIRROR)",
            )
        } else if says(&["NO_PUBKEY", "not signed"]) {
            (Class::Denied, "the keys may be too old: `apt-get install debian-archive-keyring`")
        } else if says(&["subuid", "subgid", "newuidmap", "uid range"]) {
            (Class::Denied, SUBUID)
        } else {
            return error;
        };
        error.class = class;
        error.hint(hint)
    }
}

/// The same features from every version of mke2fs. No checksums of metadata: `image` settles the clocks afterwards.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,\
large_file,huge_file,dir_nlink,extra_isize";

const SUBUID: &str =
    "give this user a range: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`";

struct AptFolder {
    config: PathBuf,
    archives: PathBuf,
    _lock: File,
}

/// Waits until nobody else holds the lock.
async fn locked(path: &Path) -> Result<File> {
    let failed = |error: &std::io::Error| Error::io("apt", "lock", shown(path), error);
    let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = options.map_err(|error| failed(&error))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
}

impl AptFolder {
    fn run(&self, child: Child) -> Child {
        child.env("APT_CONFIG", &self.config).folder(&self.archives)
    }
}

/// apt of a folder of its own: its state, its keys by `signed-by`, nothing of the host's.
fn configuration(home: &Path, arch: Arch) -> String {
    let (home, arch) = (shown(home), arch.deb());
    format!(
        "Dir \"/\";\nDir::Etc \"{home}/etc\";\nDir::Etc::Parts \"{home}/etc/parts\";\n\
         Dir::Etc::sourcelist \"{home}/etc/sources.list\";\nDir::Etc::sourceparts \"{home}/etc/parts\";\n\
         Dir::Etc::preferencesparts \"{home}/etc/preferences.d\";\n\
         Dir::State \"{home}/state\";\nDir::State::status \"{home}/status\";\nDir::Cache \"{home}/cache\";\n\
         APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\n\
         APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
    )
}

fn digest(text: &str) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(text.as_bytes()))
}

/// Whether other users can reach a folder: each one above it can be passed.
fn reachable(folder: &Path) -> bool {
    folder.ancestors().all(|above| {
        above.as_os_str().is_empty()
            || fs::metadata(above).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    })
}

fn missing(name: &str, package: &str) -> Error {
    Error::new("this machine", "run", name, Class::NotFound, "it is not installed")
        .hint(format!("`sudo apt-get install {package}`"))
}

/// Whether `/etc/subuid` and `/etc/subgid` give this user a range.
fn ranges() -> Result<()> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mine = |line: &str| {
            line.split(':').next().is_some_and(|who| who == uid || name.as_deref().is_some_and(|n| n == who))
        };
        if !text.lines().any(mine) {
            let error = Error::new(
                "this machine",
                "map users by",
                file,
                Class::Denied,
                "it has no line for this user",
            );
            return Err(error.hint(SUBUID));
        }
    }
    Ok(())
}

#[async_trait]
impl DebianTools for DebianHost {
    fn ready(&self, arch: Arch) -> Result<()> {
        for (name, package) in PROGRAMS {
            program(name).ok_or_else(|| missing(name, package))?;
        }
        if !Path::new(KEYRING).is_file() {
            return Err(missing(KEYRING, "debian-archive-keyring"));
        }
        if self.who == Who::User {
            for (name, package) in USER_PROGRAMS {
                program(name).ok_or_else(|| missing(name, package))?;
            }
            ranges()?;
        }
        let format = match arch {
            Arch::X86_64 => "qemu-x86_64",
            Arch::Arm64 => "qemu-aarch64",
        };
        if arch == Arch::host() {
            return Ok(());
        }
        // mmdebstrap asks it whether programs of the architecture run.
        program("arch-test").ok_or_else(|| missing("arch-test", "arch-test"))?;
        if !Path::new("/proc/sys/fs/binfmt_misc").join(format).exists() {
            let error = Error::new(
                "this machine",
                "run programs of",
                arch.to_string(),
                Class::NotFound,
                "no emulation",
            );
            return Err(error.hint("`sudo apt-get install qemu-user-static binfmt-support`"));
        }
        Ok(())
    }

    async fn refresh(&self, suite: Suite<'_>) -> Result<Freshness> {
        let apt = self.apt(suite).await?;
        let update = |lenient: bool| {
            let child = apt.run(self.tool("apt-get")).args(["-qq", "--error-on=any", "update"]);
            if lenient { child.args(["-o", "Acquire::Check-Valid-Until=false"]) } else { child }
        };
        match update(false).success().await {
            Ok(_) => Ok(Freshness::Current),
            Err(error) if suite.source.accept_expired_release && error.detail.contains("is expired") => {
                let again = update(true).success().await;
                again.map(|_| Freshness::Expired).map_err(|error| self.explain("apt", error))
            }
            Err(error) => Err(self.explain("apt", error)),
        }
    }

    async fn bootstrap(
        &self,
        suite: Suite<'_>,
        packages: &[&str],
        work: &Path,
        tree: &Path,
        lines: Lines<'_>,
    ) -> Result<()> {
        self.mmdebstrap(suite, packages, work, lines).await?;
        let tar = work.join("rootfs.tar");
        fs::create_dir(tree).map_err(|error| Error::io("this machine", "make", shown(tree), &error))?;
        let child =
            self.rooted("tar").args(["--extract", "--numeric-owner", "--same-permissions", "--xattrs"]);
        let child = child.arg("--xattrs-include=*").args(["--exclude=./dev/*", "--file"]).arg(&tar);
        child.arg("--directory").arg(tree).success().await.map_err(|error| self.explain("tar", error))?;
        fs::remove_file(&tar).map_err(|error| Error::io("this machine", "remove", shown(&tar), &error))
    }

    async fn unpack(&self, suite: Suite<'_>, wanted: &str, tree: &Path) -> Result<Vec<Package>> {
        let apt = self.apt(suite).await?;
        let found = self.resolve(&apt, wanted).await?;
        let parts: Vec<&str> = found.kernel_parts().collect();
        let mut all = if parts.is_empty() { Vec::new() } else { self.show(&apt, &parts).await? };
        if let Some(lacking) = parts.iter().find(|part| all.iter().all(|package| package.name != **part)) {
            let why = format!("the suite has `{}` and no longer `{lacking}`, which it needs", found.name);
            return Err(Error::new("apt", "find", *lacking, Class::NotFound, why));
        }
        all.insert(0, found);
        let folder = tree.with_extension("debs");
        fs::create_dir_all(&folder)
            .map_err(|error| Error::io("this machine", "make", shown(&folder), &error))?;
        let wishes = all.iter().map(|package| format!("{}={}", package.name, package.version));
        let child =
            apt.run(self.tool("apt-get")).folder(&folder).args(["-qq", "download", "--"]).args(wishes);
        child.success().await.map_err(|error| self.explain("apt", error))?;
        let listed = fs::read_dir(&folder)
            .map_err(|error| Error::io("this machine", "list", shown(&folder), &error))?;
        for file in listed.filter_map(|entry| Some(entry.ok()?.path())) {
            let child = self.tool("dpkg-deb").arg("--extract").arg(&file).arg(tree);
            child.success().await.map_err(|error| self.explain("dpkg-deb", error))?;
        }
        fs::remove_dir_all(&folder)
            .map_err(|error| Error::io("this machine", "remove", shown(&folder), &error))?;
        Ok(all.into_iter().map(|package| Package { name: package.name, version: package.version }).collect())
    }

    async fn unpack_file(&self, file: &Path, arch: Arch, tree: &Path) -> Result<Package> {
        let fields =
            self.tool("dpkg-deb").args(["--show", "--showformat", "${Package} ${Version} ${Architecture}"]);
        let shown_fields =
            fields.arg(file).success().await.map_err(|error| self.explain("dpkg-deb", error))?.text();
        let mut words = shown_fields.split_whitespace().map(str::to_owned);
        let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let of = words.next().unwrap_or_default();
        if of != arch.deb() && of != "all" {
            let why = format!("it is for {of}, and {} is wanted", arch.deb());
            return Err(Error::new("dpkg-deb", "unpack", shown(file), Class::Rejected, why));
        }
        let child = self.tool("dpkg-deb").arg("--extract").arg(file).arg(tree);
        child.success().await.map_err(|error| self.explain("dpkg-deb", error))?;
        Ok(Package { name, version })
    }

    async fn depmod(&self, tree: &Path, release: &str) -> Result<()> {
        let child = self.tool("depmod").arg("--basedir").arg(tree).arg(release);
        child.success().await.map(drop).map_err(|error| self.explain("depmod", error))
    }

    async fn decompress(&self, how: Compression, file: &Path) -> Result<Vec<u8>> {
        let name = match how {
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
            Compression::Lz4 => "lz4",
        };
        let output = self.tool(name).args(["-d", "-q", "-c", "--"]).arg(file).success().await;
        output.map(|output| output.stdout).map_err(|error| self.explain(name, error))
    }

    async fn ext4(&self, wish: &Ext4<'_>) -> Result<()> {
        let extended =
            format!("hash_seed={},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", wish.uuid);
        let child = self
            .rooted("mke2fs")
            .env("E2FSPROGS_FAKE_TIME", wish.epoch.to_string())
            .env("SOURCE_DATE_EPOCH", wish.epoch.to_string())
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-J", "size=8"])
            .args(["-O", FEATURES])
            .args(["-L", wish.label, "-U", wish.uuid, "-E", &extended])
            .args(["-N", &wish.inodes.to_string(), "-d"])
            .arg(wish.tree)
            .arg(wish.image)
            .arg((wish.size / 4096).to_string());
        child.success().await.map(drop).map_err(|error| self.explain("mke2fs", error))
    }

    async fn remove(&self, tree: &Path) -> Result<()> {
        if tree.symlink_metadata().is_err() {
            return Ok(());
        }
        let child = self.rooted("rm").args(["--recursive", "--force", "--one-file-system", "--"]).arg(tree);
        child.success().await.map(drop).map_err(|error| self.explain("rm", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_words_become_a_class_and_a_hint() {
        let host = DebianHost::new("/nowhere", None);
        let failed = |words: &str| {
            host.explain("apt", Error::new("this machine", "run", "apt-get", Class::Rejected, words))
        };
        let down = failed("Err:1 http://deb.debian.org Temporary failure resolving 'deb.debian.org'");
        assert_eq!((down.system, down.class), ("apt", Class::Unreachable));
        assert!(down.hint.unwrap().contains("KMT_DEBIAN_MIRROR"));
        assert_eq!(failed("tar: write: No space left on device").class, Class::Busy);
        assert!(failed("E: invalid /etc/subuid").hint.unwrap().contains("usermod"));
        assert_eq!(failed("something else").hint, None);
    }

    #[test]
    fn another_mirror_takes_the_place_of_the_catalogues() {
        let catalogue = crate::matrix::catalogue::Catalogue::embedded().unwrap();
        let variant = &catalogue.platform("bookworm").unwrap().variants[&kmt_reporters::event::Arch::X86_64];
        let source = variant.sources[0].debian().unwrap();
        let lines = source_lines(source, Some("http://127.0.0.1:1/"));
        assert!(lines[0].ends_with("] http://127.0.0.1:1/debian bookworm main"), "{}", lines[0]);
        assert!(lines[1].ends_with("] http://127.0.0.1:1/debian-security bookworm-security main"));
        assert!(source_lines(source, None)[0].contains(" http://deb.debian.org/debian "));
    }
}
