//! A root filesystem from a suite's packages.

use std::path::PathBuf;

use super::build::{Made, Site};
use super::error::ImageError;
use super::{ext4, overlay, recipe};
use crate::external::debian::Ext4;

/// Bootstraps, lays our files over, makes the file system.
pub(super) async fn make(site: &Site<'_>) -> Result<Made, ImageError> {
    let tree = site.work.join("tree");
    site.step("install packages");
    let installed = site
        .tools
        .bootstrap(site.suite(), &recipe::PACKAGES, &site.work, &tree, &|line| site.said(line))
        .await;
    installed.map_err(site.failed("install packages"))?;
    site.step("configure");
    overlay::apply(&tree)?;
    let packages = overlay::packages(&tree)?;
    site.step("make the file system");
    let image = site.work.join("rootfs.ext4");
    filesystem(site, &tree, &image, "kmt-root", recipe::ROOTFS_BYTES).await?;
    Ok(Made { files: vec![("rootfs", image)], packages, kernel_release: None })
}

/// Makes an ext4 of `tree` whose bytes depend on nothing but the tree.
pub(super) async fn filesystem(
    site: &Site<'_>,
    tree: &std::path::Path,
    image: &PathBuf,
    label: &str,
    size: u64,
) -> Result<(), ImageError> {
    let uuid = site.part.uuid();
    let inodes = (size / 32768).max(4096);
    let wish = Ext4 { tree, image, label, uuid: &uuid, size, inodes, epoch: recipe::EPOCH };
    site.tools.ext4(&wish).await.map_err(site.failed("make the file system"))?;
    site.tools.remove(tree).await.map_err(site.failed("remove the tree"))?;
    let file = image.clone();
    site.blocking(move || {
        let opened = std::fs::File::options().read(true).write(true).open(&file);
        let settled = opened.and_then(|mut file| ext4::settle(&mut file, recipe::EPOCH as u32));
        settled.map_err(ImageError::io("settle the times of", &file))
    })
    .await
}
