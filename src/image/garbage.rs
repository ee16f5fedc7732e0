//! What lies in the store for nobody.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::build::blocking;
use super::error::ImageError;
use super::manifest::{FileRecord, Manifest};
use super::objects::Objects;
use super::published::Generations;
use super::store::ImageStore;

/// A file that is younger may be of somebody who has not written down yet that it is needed.
const YOUNG: Duration = Duration::from_secs(3600);

/// Files that nobody needs, with their sizes in bytes, and records of images that nobody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Files, with their sizes.
    pub files: Vec<(PathBuf, u64)>,
}

/// The file over which an overlay (qcow2) was made.
pub fn overlay_base(overlay: &Path) -> Option<PathBuf> {
    let mut file = fs::File::open(overlay).ok()?;
    let mut head = [0; 4096];
    let read = file.read(&mut head).ok()?;
    let head = head.get(..read)?;
    let offset = u64::from_be_bytes(head.get(8..16)?.try_into().ok()?);
    let size = u32::from_be_bytes(head.get(16..20)?.try_into().ok()?);
    if head.get(..4)? != b"QFI\xfb" || offset == 0 {
        return None;
    }
    let start = usize::try_from(offset).ok()?;
    let name = head.get(start..start.checked_add(usize::try_from(size).ok()?)?)?;
    Some(PathBuf::from(String::from_utf8_lossy(name).into_owned()))
}

impl ImageStore {
    /// What may go: generations but the one in use and the one before, records for which `wanted` has no word, files that
    /// then nobody names and no machine has as its disk (`disks`). Where there are machines, files of kernels stay.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn garbage(
        &self,
        wanted: &(dyn Fn(&str) -> bool + Sync),
        disks: &BTreeSet<PathBuf>,
        machines: bool,
    ) -> Result<Garbage, ImageError> {
        let generations = Generations::new(self.folder());
        let _lock = generations.lock(|| ()).await?;
        let kept = generations.kept()?;
        let mut names: BTreeSet<String> = kept
            .iter()
            .flat_map(|generation| generation.images.values())
            .map(|entry| entry.file.name.clone())
            .collect();
        let mut files = generations.old()?;
        for file in
            listed(self.folder()).into_iter().filter(|file| file.extension().is_some_and(|e| e == "json"))
        {
            let slug = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match Manifest::read(&file) {
                Ok(Some(manifest)) if wanted(slug) => {
                    names.extend(manifest.files.values().map(|file| file.name.clone()))
                }
                Ok(Some(manifest)) if machines => {
                    names.extend(manifest.files.values().map(|file| file.name.clone()))
                }
                _ => files.push(file),
            }
        }
        files.extend(listed(&self.folder().join("objects")).into_iter().filter(|file| {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = name.strip_suffix(".seen").unwrap_or(name);
            let disk = ["rootfs.ext4", "disk"].iter().any(|role| name.ends_with(role));
            let used = disks.iter().any(|used| used.file_name().is_some_and(|used| used == name));
            !names.contains(name) && !used && (disk || !machines) && !is_young(file)
        }));
        for folder in [self.folder().join("work"), self.cache().join("downloads")] {
            let there = listed(&folder)
                .into_iter()
                .filter(|file| file.extension().is_none_or(|ending| ending != "lock"));
            files.extend(there.filter(|file| !is_young(file)));
        }
        let sized = |file: PathBuf| fs::metadata(&file).map(|found| (file, found.len())).ok();
        Ok(Garbage { files: files.into_iter().filter_map(sized).collect() })
    }

    /// Removes it.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub async fn remove_garbage(&self, garbage: &Garbage) -> Result<(), ImageError> {
        let _lock = Generations::new(self.folder()).lock(|| ()).await?;
        for (file, _) in &garbage.files {
            fs::remove_file(file).map_err(ImageError::io("remove", file))?;
        }
        self.sweep().await
    }

    /// Whether a file of the store is what was recorded, hashed in any case.
    ///
    /// # Errors
    /// It is not.
    pub async fn verify_file(&self, file: &FileRecord) -> Result<(), ImageError> {
        let (objects, file) = (Objects::new(self.folder()), file.clone());
        blocking(move || objects.check_content(&file)).await
    }
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    all.sort();
    all
}

fn is_young(file: &Path) -> bool {
    let age = fs::metadata(file).and_then(|found| found.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_none_or(|age| age < YOUNG)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::objects::tests::Folder;
    use super::*;
    use crate::external::debian::FakeDebian;
    use crate::external::store::fake::FakeStore;
    use crate::image::ImageRequest;
    use crate::matrix::catalogue::Catalogue;

    #[test]
    fn the_base_of_an_overlay_is_in_its_head() {
        let folder = Folder::new();
        let overlay = folder.0.join("root.qcow2");
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[8..16].copy_from_slice(&104u64.to_be_bytes());
        head[16..20].copy_from_slice(&9u32.to_be_bytes());
        head[104..113].copy_from_slice(b"/i/a.disk");
        fs::write(&overlay, &head).unwrap();
        assert_eq!(overlay_base(&overlay), Some(PathBuf::from("/i/a.disk")));
        fs::write(&overlay, &head[..100]).unwrap();
        assert_eq!(overlay_base(&overlay), None);
        assert_eq!(overlay_base(&folder.0.join("none")), None);
    }

    #[tokio::test]
    async fn what_somebody_asks_for_or_boots_from_stays() {
        let folder = Folder::new();
        let (images, cache) = (folder.0.join("images"), folder.0.join("cache"));
        let store =
            ImageStore::new(images, cache, Arc::new(FakeDebian::new()), Arc::new(FakeStore::default()));
        let catalogue = Catalogue::embedded().unwrap();
        let request = ImageRequest::platform(
            catalogue.platform("bookworm").unwrap(),
            kmt_reporters::event::Arch::X86_64,
        );
        let image = store.ensure(&request, &|_| ()).await.unwrap();
        let mut old = fs::File::options();
        old.append(true);
        for file in listed(&store.folder().join("objects")) {
            let opened = old.open(&file).or_else(|_| fs::File::open(&file)).unwrap();
            opened.set_modified(std::time::SystemTime::now() - YOUNG * 2).unwrap();
        }
        let slugs = request.slugs();
        let all =
            store.garbage(&|slug| slugs.iter().any(|s| s == slug), &BTreeSet::new(), false).await.unwrap();
        assert_eq!(all, Garbage::default());
        // Nobody asks for it any more, and a machine has it as its disk.
        let disks = BTreeSet::from([image.rootfs.clone()]);
        let garbage = store.garbage(&|_| false, &disks, false).await.unwrap();
        assert!(garbage.files.iter().all(|(file, _)| !file.starts_with(image.rootfs.with_extension(""))));
        assert!(garbage.files.iter().any(|(file, _)| file.to_string_lossy().ends_with(".vmlinuz")));
        store.remove_garbage(&garbage).await.unwrap();
        assert!(image.rootfs.exists() && !image.direct.unwrap().kernel.exists());
    }
}
