//! Generations: which published images are in use, and which were before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::error::ImageError;
use super::super::manifest::{FileRecord, write_whole};
use super::change;
use super::sum::Facts;

/// Version of the form of a generation.
const SCHEMA: u32 = 1;
/// How often somebody else's lock is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A set of published images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    schema: u32,
    /// Its number, from 1.
    pub number: u32,
    /// The one that was in use before it.
    pub before: Option<u32>,
    /// When it was made.
    pub made: chrono::DateTime<chrono::Utc>,
    /// Images by name, such as `ubuntu_22.04-x86_64`.
    pub images: BTreeMap<String, Entry>,
}

/// A published image on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where it came from.
    pub url: String,
    /// SHA-256 of what was fetched.
    pub sum: String,
    /// What it became, unpacked.
    pub file: FileRecord,
    /// What its manifest says.
    pub facts: Facts,
}

/// The folder of generations.
#[derive(Debug, Clone)]
pub(in crate::image) struct Generations {
    folder: PathBuf,
}

impl Generations {
    pub(in crate::image) fn new(images: &Path) -> Generations {
        Generations { folder: images.join("generations") }
    }

    fn file(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number}.json"))
    }

    fn pointer(&self) -> PathBuf {
        self.folder.join("current")
    }

    /// The one in use; `None` where nothing was ever fetched.
    pub(in crate::image) fn current(&self) -> Result<Option<Generation>, ImageError> {
        let pointer = self.pointer();
        let text = match fs::read_to_string(&pointer) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ImageError::io("read", &pointer)(error)),
        };
        let number = text.trim().parse().map_err(|_| ImageError::Corrupt {
            file: pointer,
            detail: "it is no number of a generation".to_owned(),
        })?;
        self.read(number).map(Some)
    }

    fn read(&self, number: u32) -> Result<Generation, ImageError> {
        let file = self.file(number);
        let text = fs::read(&file).map_err(ImageError::io("read", &file))?;
        let damaged = |detail: String| ImageError::Corrupt { file: file.clone(), detail };
        let found: Generation = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        match found.schema {
            SCHEMA => Ok(found),
            other => Err(damaged(format!("it has schema {other}, this program knows {SCHEMA}"))),
        }
    }

    /// Numbers of those there are, oldest first.
    pub(in crate::image) fn numbers(&self) -> Vec<u32> {
        let listed = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let number = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".json")?.parse().ok();
        let all: BTreeSet<u32> = listed.filter_map(|entry| number(entry.file_name())).collect();
        all.into_iter().collect()
    }

    /// The one to come, with the images of the one in use.
    pub(in crate::image) fn next(&self) -> Result<Generation, ImageError> {
        let current = self.current()?;
        let number = self.numbers().last().map_or(1, |last| last + 1);
        let before = current.as_ref().map(|current| current.number);
        let images = current.map(|current| current.images).unwrap_or_default();
        Ok(Generation { schema: SCHEMA, number, before, made: chrono::Utc::now(), images })
    }

    /// Writes one down: whole or not at all. It is not in use by that.
    pub(in crate::image) fn write(&self, generation: &Generation) -> Result<(), ImageError> {
        fs::create_dir_all(&self.folder).map_err(ImageError::io("make", &self.folder))?;
        let mut text = serde_json::to_vec_pretty(generation).unwrap_or_default();
        text.push(b'\n');
        change("generation", || write_whole(&self.file(generation.number), &text))
    }

    /// Has it in use: one rename.
    pub(in crate::image) fn switch(&self, number: u32) -> Result<(), ImageError> {
        change("pointer", || write_whole(&self.pointer(), format!("{number}\n").as_bytes()))
    }

    /// The generation before the one in use is in use again.
    pub(in crate::image) fn revert(&self) -> Result<(Generation, Generation), ImageError> {
        let none = |why: &str| ImageError::Unavailable {
            image: "the generation before".to_owned(),
            why: why.to_owned(),
            hint: Some("kmt-run images ls".to_owned()),
        };
        let current = self.current()?.ok_or_else(|| none("no published image was ever fetched"))?;
        let before = current.before.ok_or_else(|| none("the one in use is the first"))?;
        if !self.file(before).exists() {
            return Err(none("`images gc` removed it"));
        }
        let before = self.read(before)?;
        self.switch(before.number)?;
        Ok((current, before))
    }

    /// Files of all but the one in use and the one before it.
    pub(in crate::image) fn old(&self) -> Result<Vec<PathBuf>, ImageError> {
        let Some(current) = self.current()? else { return Ok(Vec::new()) };
        let keep = [Some(current.number), current.before];
        let old = self.numbers().into_iter().filter(|number| !keep.contains(&Some(*number)));
        Ok(old.map(|number| self.file(number)).collect())
    }

    /// The one in use and the one before it.
    pub(in crate::image) fn kept(&self) -> Result<Vec<Generation>, ImageError> {
        let Some(current) = self.current()? else { return Ok(Vec::new()) };
        let before = current.before.and_then(|number| self.read(number).ok());
        Ok(std::iter::once(current).chain(before).collect())
    }

    /// Waits until nobody else changes generations; ends with whoever holds it, however that ends.
    pub(in crate::image) async fn lock(&self, waiting: impl FnOnce()) -> Result<File, ImageError> {
        fs::create_dir_all(&self.folder).map_err(ImageError::io("make", &self.folder))?;
        hold(&self.folder.join("lock"), waiting).await
    }
}

/// Waits for the lock at `path`; says so once. It ends with the file that is returned, or with this process.
pub(super) async fn hold(path: &Path, waiting: impl FnOnce()) -> Result<File, ImageError> {
    let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = options.map_err(ImageError::io("open", path))?;
    let mut waiting = Some(waiting);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                if let Some(say) = waiting.take() {
                    say();
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(fs::TryLockError::Error(error)) => return Err(ImageError::io("lock", path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::objects::tests::Folder;
    use super::*;

    #[test]
    fn revert_is_a_switch_and_the_first_has_none_before() {
        let folder = Folder::new();
        let generations = Generations::new(&folder.0);
        assert_eq!(generations.current().unwrap(), None);
        assert!(generations.revert().is_err());
        for number in 1..=3u32 {
            let next = generations.next().unwrap();
            assert_eq!((next.number, next.before), (number, (number > 1).then(|| number - 1)));
            generations.write(&next).unwrap();
            assert_eq!(generations.current().unwrap().map_or(0, |g| g.number), number - 1, "not in use yet");
            generations.switch(number).unwrap();
        }
        assert_eq!(generations.revert().unwrap().1.number, 2);
        assert_eq!(generations.next().unwrap().number, 4, "no number comes twice");
        assert_eq!(generations.old().unwrap(), [generations.file(3)]);
        assert_eq!(generations.kept().unwrap().len(), 2);
        assert_eq!(generations.revert().unwrap().1.number, 1);
        assert!(generations.revert().unwrap_err().to_string().contains("is the first"));
    }

    #[test]
    fn a_damaged_pointer_is_told() {
        let folder = Folder::new();
        let generations = Generations::new(&folder.0);
        generations.write(&generations.next().unwrap()).unwrap();
        fs::write(generations.pointer(), "one").unwrap();
        assert!(generations.current().unwrap_err().to_string().contains("no number"));
    }
}
