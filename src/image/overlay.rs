//! What is laid over a bootstrapped tree: our files, masked units, links; keys and leftovers taken away.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::error::ImageError;
use super::recipe;
use crate::external::debian::Package;

/// Makes a bootstrapped tree a guest's.
pub(super) fn apply(tree: &Path) -> Result<(), ImageError> {
    for path in recipe::REMOVED {
        clear(&tree.join(path))?;
    }
    for (path, mode, text) in recipe::FILES {
        put(&tree.join(path), mode, text)?;
    }
    if tree.join("usr/lib/openssh/sshd-session").exists() {
        let text = format!("{}{}", include_str!("guest/sshd_config"), recipe::NO_PENALTIES);
        put(&tree.join("etc/ssh/sshd_config"), 0o644, &text)?;
    }
    for unit in recipe::MASKED {
        link(&tree.join("etc/systemd/system").join(unit), "/dev/null")?;
    }
    for generator in recipe::GENERATORS {
        link(&tree.join("etc/systemd/system-generators").join(generator), "/dev/null")?;
    }
    for (path, target) in recipe::LINKS {
        link(&tree.join(path), target)?;
    }
    Ok(())
}

/// The packages a tree says it has.
pub(super) fn packages(tree: &Path) -> Result<Vec<Package>, ImageError> {
    let file = tree.join("var/lib/dpkg/status");
    let text = fs::read_to_string(&file).map_err(ImageError::io("read", &file))?;
    let field = |block: &str, key: &str| {
        let value = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        value.map(str::to_owned)
    };
    let package =
        |block: &str| Some(Package { name: field(block, "Package")?, version: field(block, "Version")? });
    let mut all: Vec<Package> = text.split("\n\n").filter_map(package).collect();
    all.sort();
    Ok(all)
}

fn put(path: &Path, mode: u32, text: &str) -> Result<(), ImageError> {
    clear(path)?;
    fs::write(path, text).map_err(ImageError::io("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(ImageError::io("protect", path))
}

fn link(path: &Path, target: &str) -> Result<(), ImageError> {
    clear(path)?;
    symlink(target, path).map_err(ImageError::io("link", path))
}

/// Makes way for a file: its folder is there, nothing else stands (a link is removed, never followed).
fn clear(path: &Path) -> Result<(), ImageError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
        make_folder(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ImageError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn make_folder(folder: &Path) -> Result<(), ImageError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    fs::create_dir(folder).map_err(ImageError::io("make", folder))?;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder, mode).map_err(ImageError::io("protect", folder))
}
