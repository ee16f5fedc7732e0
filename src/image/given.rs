//! Kernels that do not come from a suite: a package by path, a tree it was built in, an archive of both kinds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kmt_reporters::event::Arch;

use super::build::Site;
use super::error::ImageError;
use super::request::KernelFrom;
use crate::external::debian::Package;
use crate::matrix::catalogue::{Form, GivenKernel};

/// Files by which a tree shows that it was built again.
const SHOWS: [&str; 3] = ["include/config/kernel.release", "modules.order", "modules.builtin"];

/// What tells this kernel from what it was before: sizes and times of its files.
///
/// # Errors
/// There is no such file, or no built tree.
pub(super) fn stamp(given: &GivenKernel, arch: Arch) -> Result<serde_json::Value, String> {
    let of = |path: PathBuf| {
        let found =
            fs::metadata(&path).map_err(|error| format!("no kernel at `{}`: {error}", path.display()))?;
        let time = found.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Ok::<_, String>((found.len(), time.map(|time| time.as_nanos().to_string())))
    };
    let path = &given.path;
    let stamps = match given.form {
        Form::Deb | Form::Archive => vec![of(path.clone())?],
        Form::Tree => {
            let shows = SHOWS.iter().filter_map(|name| of(path.join(name)).ok());
            std::iter::once(of(built(path, arch)?)?).chain(shows).collect()
        }
    };
    Ok(serde_json::json!({ "path": path, "stamps": stamps }))
}

/// The kernel that a tree was built into.
fn built(tree: &Path, arch: Arch) -> Result<PathBuf, String> {
    let places: &[&str] = match arch {
        Arch::X86_64 => &["arch/x86/boot/bzImage"],
        Arch::Arm64 => &["arch/arm64/boot/Image"],
    };
    let found = places.iter().map(|place| tree.join(place)).find(|file| file.is_file());
    found.ok_or_else(|| {
        format!("`{}` is no built kernel tree: it has no `{}`", tree.display(), places.join("`, `"))
    })
}

/// Unpacks the kernel of a part at `tree`, as its package would be.
pub(super) async fn unpack(
    site: &Site<'_>,
    from: &KernelFrom,
    tree: &Path,
) -> Result<Vec<Package>, ImageError> {
    fs::create_dir_all(tree).map_err(ImageError::io("make", tree))?;
    match from {
        KernelFrom::Given(GivenKernel { path, form: Form::Deb }) => {
            deb(site, path, tree).await.map(|one| vec![one])
        }
        KernelFrom::Given(GivenKernel { path, form: Form::Archive }) => archive(site, path, tree).await,
        KernelFrom::Given(GivenKernel { path, form: Form::Tree }) => {
            let (path, to, arch, name) =
                (path.clone(), tree.to_owned(), site.part.arch, site.part.name.clone());
            site.blocking(move || install(&path, &to, arch, &name)).await.map(|one| vec![one])
        }
        KernelFrom::Package { member, .. } => {
            let outer = site.part.archive.clone().unwrap_or_default();
            let (inner, member) = (site.work.join("member.tar.gz"), member.clone());
            let (name, to) = (site.part.name.clone(), inner.clone());
            site.blocking(move || extract_member(&outer, &member, &to, &name)).await?;
            let packages = archive(site, &inner, tree).await;
            let _ = fs::remove_file(&inner);
            packages
        }
        KernelFrom::Suite(_) => Ok(Vec::new()),
    }
}

async fn deb(site: &Site<'_>, file: &Path, tree: &Path) -> Result<Package, ImageError> {
    let unpacked = site.tools.unpack_file(file, site.part.arch, tree).await;
    unpacked.map_err(site.failed("unpack the kernel's package"))
}

fn strange(name: &str, detail: String) -> ImageError {
    ImageError::Content { part: name.to_owned(), detail }
}

/// Takes one file out of an archive.
fn extract_member(outer: &Path, member: &str, to: &Path, name: &str) -> Result<(), ImageError> {
    let file = File::open(outer).map_err(ImageError::io("open", outer))?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries().map_err(ImageError::io("read", outer))? {
        let mut entry = entry.map_err(ImageError::io("read", outer))?;
        let is_it = entry.path().is_ok_and(|path| path.file_name().is_some_and(|file| file == member));
        if is_it {
            return entry.unpack(to).map(drop).map_err(ImageError::io("unpack", to));
        }
    }
    Err(strange(name, format!("the published archive has no `{member}`")))
}

/// An archive of a `bzImage` and packages.
async fn archive(site: &Site<'_>, file: &Path, tree: &Path) -> Result<Vec<Package>, ImageError> {
    let folder = site.work.join("package");
    let (from, to) = (file.to_owned(), folder.clone());
    let files = site.blocking(move || unpack_archive(&from, &to)).await?;
    let named = |file: &Path| file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let image = |file: &&PathBuf| {
        let name = named(file);
        name.starts_with("linux-image-") && name.ends_with(".deb") && !name.contains("-dbg")
    };
    let mut packages = Vec::new();
    for file in files.iter().filter(image) {
        packages.push(deb(site, file, tree).await?);
    }
    if packages.is_empty() {
        return Err(strange(&site.part.name, "the archive has no `linux-image-….deb`".to_owned()));
    }
    // Its own image is what was tested; the package brings the modules.
    if let (Some(kernel), Ok(release)) =
        (files.iter().find(|file| named(file) == "bzImage"), super::kernel::release(site, tree))
    {
        let boot = tree.join("boot");
        let target = boot.join(format!("vmlinuz-{release}"));
        fs::create_dir_all(&boot).map_err(ImageError::io("make", &boot))?;
        fs::copy(kernel, &target).map_err(ImageError::io("copy", kernel))?;
    }
    fs::remove_dir_all(&folder).map_err(ImageError::io("remove", &folder))?;
    Ok(packages)
}

/// Unpacks a `.tar.gz` into a folder; its files, at whatever depth.
fn unpack_archive(from: &Path, to: &Path) -> Result<Vec<PathBuf>, ImageError> {
    fs::create_dir_all(to).map_err(ImageError::io("make", to))?;
    let file = File::open(from).map_err(ImageError::io("open", from))?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    archive.unpack(to).map_err(ImageError::io("unpack", from))?;
    let (mut files, mut folders) = (Vec::new(), vec![to.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(ImageError::io("list", &folder))?.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Puts what a tree was built into where its package would have it: what `make modules_install` does, without make.
fn install(from: &Path, tree: &Path, arch: Arch, name: &str) -> Result<Package, ImageError> {
    let text = |file: &str| fs::read_to_string(from.join(file)).unwrap_or_default();
    let release = text("include/config/kernel.release").trim().to_owned();
    if release.is_empty() || release.contains('/') {
        return Err(strange(name, format!("`{}` has no `include/config/kernel.release`", from.display())));
    }
    let copy = |file: &Path, to: &Path| {
        let folder = to.parent().unwrap_or(tree);
        let made = fs::create_dir_all(folder).and_then(|()| fs::copy(file, to));
        made.map(drop).map_err(ImageError::io("copy", file))
    };
    let kernel = built(from, arch).map_err(|detail| strange(name, detail))?;
    copy(&kernel, &tree.join(format!("boot/vmlinuz-{release}")))?;
    let modules = tree.join("lib/modules").join(&release);
    fs::create_dir_all(&modules).map_err(ImageError::io("make", &modules))?;
    for index in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        if from.join(index).is_file() {
            copy(&from.join(index), &modules.join(index))?;
        }
    }
    for line in text("modules.order").lines() {
        // Older kernels list `kernel/fs/x.ko`, newer ones `fs/x.o`.
        let path = line.trim().trim_start_matches("kernel/");
        let path = path.strip_suffix(".o").map_or_else(|| path.to_owned(), |stem| format!("{stem}.ko"));
        let plain = Path::new(&path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if plain && !path.is_empty() {
            copy(&from.join(&path), &modules.join("kernel").join(&path))?;
        }
    }
    Ok(Package { name: format!("tree {}", from.display()), version: release })
}

#[cfg(test)]
mod tests {
    use super::super::objects::tests::Folder;
    use super::*;

    fn put(folder: &Path, file: &str, text: &str) {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_tree_is_installed_as_its_package_would_be() {
        let folder = Folder::new();
        let (from, to) = (folder.0.join("linux"), folder.0.join("tree"));
        put(&from, "arch/x86/boot/bzImage", "kernel");
        let given = GivenKernel { path: from.clone(), form: Form::Tree };
        assert!(install(&from, &to, Arch::X86_64, "k").unwrap_err().to_string().contains("kernel.release"));
        put(&from, "include/config/kernel.release", "6.19.0-mine\n");
        put(&from, "modules.order", "kernel/fs/ext4/ext4.ko\nnet/x.o\n../../etc/passwd\n");
        put(&from, "modules.builtin", "kernel/drivers/block/virtio_blk.ko\n");
        put(&from, "fs/ext4/ext4.ko", "module");
        put(&from, "net/x.ko", "module");
        let before = stamp(&given, Arch::X86_64).unwrap();
        let package = install(&from, &to, Arch::X86_64, "k").unwrap();
        assert_eq!(package.version, "6.19.0-mine");
        let modules = to.join("lib/modules/6.19.0-mine");
        for file in ["kernel/fs/ext4/ext4.ko", "kernel/net/x.ko", "modules.builtin"] {
            assert!(modules.join(file).is_file(), "{file}");
        }
        assert!(to.join("boot/vmlinuz-6.19.0-mine").is_file() && !folder.0.join("etc").exists());
        put(&from, "modules.order", "kernel/fs/ext4/ext4.ko\n");
        assert_ne!(stamp(&given, Arch::X86_64).unwrap(), before, "built again, it is another one");
        let why = stamp(&given, Arch::Arm64).unwrap_err();
        assert!(why.contains("no built kernel tree"), "{why}");
    }

    #[test]
    fn a_member_is_taken_out_of_an_archive_of_many() {
        let folder = Folder::new();
        let (outer, to) = (folder.0.join("all.tar"), folder.0.join("one"));
        let mut builder = tar::Builder::new(File::create(&outer).unwrap());
        for (name, text) in
            [("./kernel-v5.4.x86_64.pkg.tar.gz", "four"), ("./kernel-v5.5.x86_64.pkg.tar.gz", "five")]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap();
        extract_member(&outer, "kernel-v5.5.x86_64.pkg.tar.gz", &to, "k").unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "five");
        let none = extract_member(&outer, "kernel-v5.6.x86_64.pkg.tar.gz", &to, "k").unwrap_err();
        assert!(none.to_string().contains("has no `kernel-v5.6"), "{none}");
    }
}
