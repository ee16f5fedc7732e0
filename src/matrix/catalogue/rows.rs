//! The rows of `matrices/catalog/*.toml` as they are written.

use std::collections::BTreeMap;

use kmt_reporters::event::Arch;
use serde::Deserialize;

use super::{
    Archive, CustomKernel, DebianSource, Distro, KernelPackage, Platform, PublishedImage, Source, Variant,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    /// Where Debian's archives are.
    #[serde(default)]
    mirror: String,
    /// Where published images are, each in a folder named by its version.
    #[serde(default)]
    image_base: String,
    /// Version of the images that do not name one.
    #[serde(default)]
    image_version: String,
    /// Where published kernel packages are.
    #[serde(default)]
    package_base: String,
    #[serde(default)]
    distro: Vec<Distro>,
    #[serde(default)]
    platform: Vec<PlatformRow>,
    #[serde(default)]
    custom_kernel: Vec<CustomRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PlatformRow {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    distro: String,
    version: String,
    kernel: KernelRow,
    /// Of a row that has neither source nor image.
    #[serde(default)]
    arches: Vec<Arch>,
    source: Option<DebianRow>,
    #[serde(default)]
    image: BTreeMap<Arch, String>,
    image_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum KernelRow {
    Same(String),
    ByArch(BTreeMap<Arch, String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CustomRow {
    versions: Vec<String>,
    userland: String,
    source: Option<DebianRow>,
    #[serde(default)]
    package: Vec<Arch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DebianRow {
    suite: String,
    archives: Vec<Archive>,
    #[serde(default)]
    accept_expired_release: bool,
    kernel: BTreeMap<Arch, String>,
}

/// What a file adds to the catalogue.
pub(super) struct Read {
    pub(super) distros: Vec<Distro>,
    pub(super) platforms: Vec<Platform>,
    pub(super) customs: Vec<CustomKernel>,
}

impl File {
    pub(super) fn read(mut self) -> Result<Read, String> {
        let (distros, platforms, customs) = (
            std::mem::take(&mut self.distro),
            std::mem::take(&mut self.platform),
            std::mem::take(&mut self.custom_kernel),
        );
        let platforms = platforms.into_iter().map(|row| self.platform(row)).collect::<Result<_, _>>()?;
        let customs = customs.into_iter().flat_map(|row| self.customs(row)).collect();
        Ok(Read { distros, platforms, customs })
    }

    fn debian(&self, row: DebianRow) -> DebianSource {
        let DebianRow { suite, archives, accept_expired_release, kernel } = row;
        let mirror = self.mirror.trim_end_matches('/').to_owned();
        DebianSource { mirror, suite, archives, accept_expired_release, kernel }
    }

    fn platform(&self, row: PlatformRow) -> Result<Platform, String> {
        let debian = row.source.map(|source| self.debian(source));
        let version = row.image_version.as_ref().unwrap_or(&self.image_version);
        let arches: std::collections::BTreeSet<Arch> = row
            .arches
            .iter()
            .chain(row.image.keys())
            .chain(debian.iter().flat_map(|source| source.kernel.keys()))
            .copied()
            .collect();
        let mut variants = BTreeMap::new();
        for arch in arches {
            let kernel = match &row.kernel {
                KernelRow::Same(kernel) => Some(kernel),
                KernelRow::ByArch(kernels) => kernels.get(&arch),
            };
            let kernel = kernel.ok_or_else(|| format!("`{}` names no kernel for {arch}", row.id))?.clone();
            let built = debian.iter().filter(|source| source.kernel.contains_key(&arch)).cloned();
            let published = row.image.get(&arch).map(|file| {
                let url = format!("{}/{version}/{file}", self.image_base);
                Source::Published(PublishedImage { url, version: version.clone() })
            });
            let sources = built.map(Source::Debian).chain(published).collect();
            variants.insert(arch, Variant { kernel, sources });
        }
        Ok(Platform { id: row.id, aliases: row.aliases, distro: row.distro, version: row.version, variants })
    }

    fn customs(&self, row: CustomRow) -> Vec<CustomKernel> {
        let CustomRow { versions, userland, source, package } = row;
        let debian = source.map(|source| self.debian(source));
        let one = |version: String| {
            let mut variants: BTreeMap<Arch, Vec<Source>> = BTreeMap::new();
            for (source, arch) in
                debian.iter().flat_map(|source| source.kernel.keys().map(move |arch| (source, arch)))
            {
                variants.entry(*arch).or_default().push(Source::Debian(source.clone()));
            }
            for arch in &package {
                let package = KernelPackage {
                    archive: format!("{}/kernel-packages-{arch}.tar", self.package_base),
                    member: format!("kernel-v{version}.{arch}.pkg.tar.gz"),
                };
                variants.entry(*arch).or_default().push(Source::Package(package));
            }
            CustomKernel { version, userland: userland.clone(), variants }
        };
        versions.into_iter().map(one).collect()
    }
}
