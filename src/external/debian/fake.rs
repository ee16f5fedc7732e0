//! Debian's tools in a scripted world: small files, the same way, and refusals where a caller is careless.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use kmt_reporters::event::Arch;

use super::{Compression, DebianTools, Ext4, Freshness, Lines, Package, Suite, shown};
use crate::external::{Class, Error, Result};

/// What goes wrong at a step (`ready`, `refresh`, `bootstrap`, `unpack`, `depmod`, `decompress`, `ext4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The step is refused, with this class.
    Refused(Class),
    /// The step never ends: whoever waits is to be interrupted.
    Hangs,
}

/// Tools that make small files. Stricter than the real ones: unpacking or bootstrapping from a suite that was not
/// refreshed, into a tree that exists, or a file system of a tree that does not, is refused.
#[derive(Debug, Default)]
pub struct FakeDebian {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    trouble: Option<(&'static str, Trouble)>,
    expired: bool,
    refreshed: Vec<String>,
    calls: Vec<String>,
}

impl FakeDebian {
    /// Tools without trouble.
    pub fn new() -> FakeDebian {
        FakeDebian::default()
    }

    /// From now on `step` has this trouble.
    pub fn trouble(&self, step: &'static str, trouble: Trouble) {
        self.lock().trouble = Some((step, trouble));
    }

    /// From now on all goes well.
    pub fn mend(&self) {
        self.lock().trouble = None;
    }

    /// From now on archives are past their dates.
    pub fn expire(&self) {
        self.lock().expired = true;
    }

    /// What was called, in order: step and subject.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn step(&self, step: &'static str, subject: &str) -> Result<()> {
        let trouble = {
            let mut inner = self.lock();
            inner.calls.push(format!("{step} {subject}"));
            inner.trouble.filter(|(at, _)| *at == step).map(|(_, trouble)| trouble)
        };
        tokio::task::yield_now().await;
        match trouble {
            Some(Trouble::Refused(class)) => {
                Err(Error::new("debian", step, subject, class, "the script says so").hint("`mend`"))
            }
            Some(Trouble::Hangs) => std::future::pending().await,
            None => Ok(()),
        }
    }

    fn known(&self, suite: Suite<'_>) -> Result<()> {
        if self.lock().refreshed.contains(&name(suite)) {
            Ok(())
        } else {
            Err(careless("read lists of", &name(suite), "the suite was not refreshed"))
        }
    }
}

fn name(suite: Suite<'_>) -> String {
    format!("{}-{}", suite.source.suite, suite.arch)
}

fn careless(operation: &'static str, subject: &str, detail: &str) -> Error {
    Error::new("debian", operation, subject, Class::Rejected, detail)
}

fn write(tree: &Path, path: &str, text: &str) -> Result<()> {
    let file = tree.join(path);
    let folder = file.parent().unwrap_or(tree);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&file, text));
    written.map_err(|error| Error::io("debian", "write", shown(&file), &error))
}

fn write_kernel(tree: &Path, name: &str) -> Result<()> {
    let modules = "lib/modules/6.1.0-fake";
    write(tree, "boot/vmlinuz-6.1.0-fake", &format!("kernel {name}"))?;
    write(tree, &format!("{modules}/modules.builtin"), "kernel/fs/ext4/ext4.ko\n")?;
    write(tree, &format!("{modules}/kernel/virtio_blk.ko"), "blk")?;
    write(tree, &format!("{modules}/kernel/virtio_net.ko"), "net")
}

fn absent(tree: &Path) -> Result<()> {
    if tree.exists() { Err(careless("make", &shown(tree), "it exists")) } else { Ok(()) }
}

#[async_trait]
impl DebianTools for FakeDebian {
    fn ready(&self, arch: Arch) -> Result<()> {
        match self.lock().trouble {
            Some(("ready", _)) => Err(Error::new("this machine", "run", "mmdebstrap", Class::NotFound, arch)
                .hint("`sudo apt-get install mmdebstrap`")),
            _ => Ok(()),
        }
    }

    async fn refresh(&self, suite: Suite<'_>) -> Result<Freshness> {
        self.step("refresh", &name(suite)).await?;
        let mut inner = self.lock();
        if inner.expired && !suite.source.accept_expired_release {
            return Err(careless("refresh", &name(suite), "Release file is expired"));
        }
        inner.refreshed.push(name(suite));
        Ok(if inner.expired { Freshness::Expired } else { Freshness::Current })
    }

    async fn bootstrap(
        &self,
        suite: Suite<'_>,
        packages: &[&str],
        work: &Path,
        tree: &Path,
        lines: Lines<'_>,
    ) -> Result<()> {
        self.known(suite)?;
        absent(tree)?;
        write(work, "rootfs.tar", "half a tar")?;
        lines("I: unpacking");
        self.step("bootstrap", &name(suite)).await?;
        let status = packages.iter().map(|name| format!("Package: {name}\nStatus: ok\nVersion: 1.0-1\n\n"));
        write(tree, "var/lib/dpkg/status", &status.collect::<String>())?;
        write(tree, "etc/ssh/ssh_host_rsa_key", "a key nobody may share")?;
        fs::remove_file(work.join("rootfs.tar")).map_err(|error| Error::io("debian", "remove", "tar", &error))
    }

    async fn unpack(&self, suite: Suite<'_>, wanted: &str, tree: &Path) -> Result<Vec<Package>> {
        self.known(suite)?;
        absent(tree)?;
        self.step("unpack", wanted).await?;
        if wanted.starts_with("linux-image-") {
            write_kernel(tree, wanted)?;
        } else {
            write(tree, "bin/busybox", "#!")?;
        }
        Ok(vec![Package { name: wanted.replace('*', "9"), version: "1.0-1".into() }])
    }

    async fn unpack_file(&self, file: &Path, _: Arch, tree: &Path) -> Result<Package> {
        self.step("unpack", &shown(file)).await?;
        let name =
            fs::read_to_string(file).map_err(|error| Error::io("debian", "read", shown(file), &error))?;
        write_kernel(tree, &name)?;
        Ok(Package { name: name.trim().to_owned(), version: "1.0-1".into() })
    }

    async fn depmod(&self, tree: &Path, release: &str) -> Result<()> {
        self.step("depmod", release).await?;
        let dep = "kernel/virtio_blk.ko:\nkernel/virtio_net.ko:\n";
        write(tree, &format!("lib/modules/{release}/modules.dep"), dep)
    }

    async fn decompress(&self, _: Compression, file: &Path) -> Result<Vec<u8>> {
        self.step("decompress", &shown(file)).await?;
        fs::read(file).map_err(|error| Error::io("debian", "decompress", shown(file), &error))
    }

    async fn ext4(&self, wish: &Ext4<'_>) -> Result<()> {
        if !wish.tree.is_dir() {
            return Err(careless("make a file system of", &shown(wish.tree), "it is no folder"));
        }
        absent(wish.image)?;
        self.step("ext4", wish.label).await?;
        // A superblock that says: one group, sixteen inodes of 256 bytes, all free.
        let mut bytes = vec![0; 32 << 10];
        for (at, value) in [(0x00, 16u32), (0x18, 2), (0x28, 16), (0x38, 0xef53), (0x58, 256), (0x60, 0x42)] {
            bytes[1024 + at..1024 + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        bytes[4096 + 8..4096 + 12].copy_from_slice(&4u32.to_le_bytes());
        bytes[24 << 10..(24 << 10) + wish.uuid.len()].copy_from_slice(wish.uuid.as_bytes());
        fs::write(wish.image, bytes).map_err(|error| Error::io("debian", "write", shown(wish.image), &error))
    }

    async fn remove(&self, tree: &Path) -> Result<()> {
        let removed = if tree.is_dir() { fs::remove_dir_all(tree) } else { Ok(()) };
        removed.map_err(|error| Error::io("debian", "remove", shown(tree), &error))
    }
}
