//! A kernel from its package: `vmlinuz`, a small initrd of our own, the modules as a file system.

use std::fs;
use std::path::{Path, PathBuf};

use super::build::{Made, Site};
use super::cpio::{Archive, Entry};
use super::error::ImageError;
use super::modules::{ModuleIndex, name};
use super::request::KernelFrom;
use super::{given, recipe, rootfs, vmlinux};
use crate::external::debian::Compression;

/// Modules without which no disk and no network comes up, unless they are built in.
const NEEDED: [&str; 3] = ["virtio_blk", "virtio_net", "ext4"];

/// Unpacks the kernel's package and busybox, and makes the three files of them.
pub(super) async fn make(site: &Site<'_>) -> Result<Made, ImageError> {
    let (kernel, busybox) = (site.work.join("tree"), site.work.join("busybox"));
    let mut packages = match &site.part.kernel {
        Some(from @ (KernelFrom::Given(_) | KernelFrom::Package { .. })) => {
            site.step("unpack the kernel");
            given::unpack(site, from, &kernel).await?
        }
        _ => {
            site.step("download the kernel");
            let wanted = site.part.source.kernel.get(&site.part.arch).cloned().unwrap_or_default();
            let unpacked = site.tools.unpack(site.suite(), &wanted, &kernel).await;
            unpacked.map_err(site.failed("download the kernel"))?
        }
    };
    let unpacked = site.tools.unpack(site.suite(), recipe::BUSYBOX, &busybox).await;
    packages.extend(unpacked.map_err(site.failed("download busybox"))?);

    let release = release(site, &kernel)?;
    site.step("index the modules");
    site.tools.depmod(&kernel, &release).await.map_err(site.failed("index the modules"))?;
    let modules = kernel.join("lib/modules").join(&release);
    site.step("make the initrd");
    let bytes = initrd(site, &modules, &busybox).await?;
    let initrd = site.work.join("initrd");
    fs::write(&initrd, bytes).map_err(ImageError::io("write", &initrd))?;
    let vmlinuz = bootable(site, &kernel, &release).await?;
    site.step("make the file system");
    let image = site.work.join("modules.ext4");
    let size = weight(&modules).map_err(ImageError::io("measure", &modules))?;
    let size = (size + size / 8 + (24 << 20)).next_multiple_of(4 << 20);
    rootfs::filesystem(site, &modules, &image, "kmt-modules", size).await?;
    let files = vec![("vmlinuz", vmlinuz), ("initrd", initrd), ("modules", image)];
    Ok(Made { files, packages, kernel_release: Some(release) })
}

/// The one folder of `lib/modules`; where the package has `usr/lib` alone, `lib` is made to lead there.
pub(super) fn release(site: &Site<'_>, kernel: &Path) -> Result<String, ImageError> {
    let strange =
        |detail: &str| ImageError::Content { part: site.part.name.clone(), detail: detail.to_owned() };
    let lib = kernel.join("lib");
    if !lib.exists() && kernel.join("usr/lib/modules").is_dir() {
        std::os::unix::fs::symlink("usr/lib", &lib).map_err(ImageError::io("link", &lib))?;
    }
    let folder = lib.join("modules");
    let listed = fs::read_dir(&folder).into_iter().flatten();
    let mut names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    match (names.next(), names.next()) {
        (Some(release), None) => Ok(release),
        _ => Err(strange("the kernel's package has not one folder in `lib/modules`")),
    }
}

/// The kernel as QEMU boots it soonest: unpacked where it can be entered directly, else as it came.
async fn bootable(site: &Site<'_>, tree: &Path, release: &str) -> Result<PathBuf, ImageError> {
    let (packed, target) = (site.work.join("payload"), site.work.join("vmlinuz"));
    let places = [format!("boot/vmlinuz-{release}"), format!("lib/modules/{release}/vmlinuz")];
    let found = places.iter().map(|place| tree.join(place)).find(|file| file.is_file());
    let file = found.ok_or_else(|| ImageError::Content {
        part: site.part.name.clone(),
        detail: format!("the kernel's package has none of `{}`", places.join("`, `")),
    })?;
    let mut kernel = fs::read(&file).map_err(ImageError::io("read", &file))?;
    // It would weigh on the modules' file system.
    fs::remove_file(&file).map_err(ImageError::io("remove", &file))?;
    if let Some((how, payload, size)) = vmlinux::payload(&kernel) {
        fs::write(&packed, payload).map_err(ImageError::io("write", &packed))?;
        let unpacked = site.tools.decompress(how, &packed).await.map_err(site.failed("unpack the kernel"))?;
        if unpacked.len() == size && vmlinux::boots_directly(&unpacked) {
            kernel = unpacked;
        }
    }
    fs::write(&target, kernel).map_err(ImageError::io("write", &target))?;
    Ok(target)
}

async fn initrd(site: &Site<'_>, modules: &Path, busybox: &Path) -> Result<Vec<u8>, ImageError> {
    let read = |file: PathBuf| fs::read(&file).map_err(ImageError::io("read", &file));
    let text =
        |name: &str| read(modules.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let index = ModuleIndex::parse(&text("modules.dep")?, &text("modules.builtin")?);
    let (order, absent) = index.order(&recipe::INITRD_MODULES);
    if let Some(module) = absent.iter().find(|module| NEEDED.contains(&module.as_str())) {
        let detail = format!("the kernel has no `{module}`");
        return Err(ImageError::Content { part: site.part.name.clone(), detail });
    }
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "run", "root", "tmp", "modules"] {
        archive.add(folder, Entry::Folder);
    }
    archive.add("dev/console", Entry::Device(5, 1));
    archive.add("dev/null", Entry::Device(1, 3));
    let program =
        ["usr/bin/busybox", "bin/busybox"].map(|path| busybox.join(path)).into_iter().find(|p| p.is_file());
    archive.add(
        "bin/busybox",
        Entry::File(0o755, read(program.unwrap_or_else(|| busybox.join("bin/busybox")))?),
    );
    archive.add("bin/sh", Entry::Link("busybox".into()));
    archive.add("init", Entry::File(0o755, recipe::INIT.into()));
    archive.add("bin/dhcp", Entry::File(0o755, recipe::DHCP.into()));
    let mut names = String::new();
    for path in &order {
        let (file, module) = (modules.join(path), format!("{}.ko", name(path)));
        let bytes = match path.rsplit('.').next() {
            Some("xz") => site.tools.decompress(Compression::Xz, &file).await,
            Some("zst") => site.tools.decompress(Compression::Zstd, &file).await,
            _ => Ok(read(file)?),
        };
        let bytes = bytes.map_err(site.failed("unpack modules"))?;
        archive.add(&format!("modules/{module}"), Entry::File(0o644, bytes));
        names.push_str(&module);
        names.push('\n');
    }
    archive.add("modules/order", Entry::File(0o644, names.into_bytes()));
    Ok(archive.bytes())
}

/// The bytes a tree takes in blocks of 4 KiB.
fn weight(folder: &Path) -> std::io::Result<u64> {
    let mut sum = 4096;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        sum += if found.is_dir() { weight(&entry.path())? } else { found.len().next_multiple_of(4096) };
    }
    Ok(sum)
}
