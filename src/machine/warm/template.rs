//! A template on disk: its folder, what is written down of it, when it is garbage.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::{Key, Templates, Wish};
use crate::error::{Failure, Result};
use crate::external::hypervisor::{HostFacts, Hypervisor};
use crate::settings::Home;
use crate::stack::MachineRecord;

/// Raised when what a template is made with changes and no file of it does.
const VERSION: u32 = 1;
/// How long a guest that does not become a template is not tried again.
const SPARED: Duration = Duration::from_secs(24 * 3600);
/// What is written down of a template.
const WRITTEN: &str = "template.json";
/// What its machines say of themselves.
const FACTS: &str = "facts";

/// What a machine on this host would be a copy of.
pub fn key(record: &MachineRecord, host: &HostFacts) -> Key {
    let vcpu = host.most_vcpu.map_or(record.vcpu, |most| record.vcpu.min(most));
    let how = host.acceleration_of(record.cell.arch);
    let text = format!(
        "{VERSION}\n{}\n{vcpu}\n{} {}\n{}\n{}\n{}",
        record.made_of,
        how.accelerator.as_str(),
        how.cpu,
        host.software,
        crate::machine::identity::unit_that_waits(),
        include_str!("guest/wait.sh"),
    );
    Key(hex::encode(&sha2::Sha256::digest(text.as_bytes())[..8]))
}

/// What is written down of a template: what it depends on that may go.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    schema: u32,
    /// The cell whose machine it is like.
    cell: String,
    /// Files that it is over or was booted from.
    files: Vec<PathBuf>,
    /// Who wrote the memory.
    software: String,
    /// Why it is none, where its guest did not become one.
    unfit: Option<String>,
}

/// A template that can be started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name: its key.
    pub name: String,
    folder: PathBuf,
}

impl Template {
    /// The memory of its guest.
    pub fn memory(&self) -> PathBuf {
        self.folder.join("memory")
    }

    /// The disk as its guest left it, an overlay over the image.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.qcow2")
    }

    /// What a machine that went on from it said of itself.
    pub(super) fn facts(&self) -> Option<String> {
        fs::read_to_string(self.folder.join(FACTS)).ok()
    }

    /// Keeps what a machine that went on from it says of itself. Where that fails the next one is asked too.
    pub(super) fn learn(&self, facts: &str) {
        let _ = crate::stack::write_atomically(&self.folder.join(FACTS), facts.as_bytes());
    }

    /// What its guest said until then.
    pub fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }
}

impl Templates {
    /// Where the template of `key` is once all of it is there.
    fn whole(&self, key: &Key) -> PathBuf {
        self.folder.join(key.as_str())
    }

    /// Where it is made.
    pub(super) fn unfinished(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.making", key.as_str()))
    }

    /// The template of `key`.
    ///
    /// # Errors
    /// Why there is none, and whether that is nothing out of the ordinary.
    pub(super) fn find(&self, key: &Key) -> std::result::Result<Template, (String, bool)> {
        let folder = self.whole(key);
        let Ok(text) = fs::read(folder.join(WRITTEN)) else {
            return Err(("there is no template yet".to_owned(), true));
        };
        let written: Written = serde_json::from_slice(&text).map_err(|error| {
            let _ = fs::remove_dir_all(&folder);
            (format!("its template cannot be read: {error}"), false)
        })?;
        match written.unfit {
            Some(why) => Err((format!("its image makes no template: {why}"), true)),
            None => Ok(Template { name: key.as_str().to_owned(), folder }),
        }
    }

    /// Whether a template for `key` should be made: there is none, and it was not tried in vain lately.
    pub(super) fn wanted(&self, key: &Key) -> bool {
        let written = fs::metadata(self.whole(key).join(WRITTEN)).and_then(|found| found.modified());
        match (self.find(key), written) {
            (Ok(_), _) => false,
            (Err(_), Err(_)) => true,
            (Err(_), Ok(when)) => SystemTime::now().duration_since(when).is_ok_and(|age| age > SPARED),
        }
    }

    /// Removes a template that failed a machine; those that go on from it keep what they have.
    pub(super) fn discard(&self, template: &Template) {
        let _ = fs::remove_dir_all(&template.folder);
    }

    /// The right to make the template of `key`, as long as the file is open; `None` where another process has it.
    pub(super) fn lock(&self, key: &Key) -> Result<Option<fs::File>> {
        crate::stack::create_private(&self.folder)?;
        lock(&self.folder.join(format!("{}.lock", key.as_str())))
    }

    /// Gives what was made its name: from now on it is found. With a reason it is known to be none.
    pub(super) fn publish(&self, key: &Key, wish: &Wish, software: &str, unfit: Option<&str>) -> Result<()> {
        let folder = self.unfinished(key);
        crate::stack::create_private(&folder)?;
        let image = &wish.image;
        let boot = image.direct.iter().flat_map(|boot| [&boot.kernel, &boot.initrd]);
        let files = std::iter::once(&image.rootfs).chain(boot).chain(&image.modules);
        let written = Written {
            schema: 1,
            cell: wish.record.cell.to_string(),
            files: files.cloned().collect(),
            software: software.to_owned(),
            unfit: unfit.map(str::to_owned),
        };
        for leftover in ["initrd", "identity.in", "identity.out"] {
            let _ = fs::remove_file(folder.join(leftover));
        }
        let text = serde_json::to_vec_pretty(&written).unwrap_or_default();
        let file = folder.join(WRITTEN);
        fs::write(&file, text).map_err(|error| Failure::file("write", &file, &error))?;
        let whole = self.whole(key);
        let _ = fs::remove_dir_all(&whole);
        fs::rename(&folder, &whole).map_err(|error| Failure::file("rename", &folder, &error))
    }
}

fn lock(path: &Path) -> Result<Option<fs::File>> {
    let opened = fs::File::options().create(true).truncate(false).write(true).open(path);
    let file = opened.map_err(|error| Failure::file("open", path, &error))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(Failure::file("lock", path, &error.into())),
    }
}

/// Name of the domain in which the template of `key` is made.
pub(super) fn domain_of(key: &str) -> String {
    format!("kmt-template-{key}")
}

/// Removes what was left half-made, unless a process is at it, and templates that no machine on `host` can ask for.
///
/// # Returns
/// Their keys.
///
/// # Errors
/// The hypervisor refused.
pub async fn sweep(
    home: &Home,
    host: Option<&HostFacts>,
    hypervisor: &dyn Hypervisor,
) -> Result<Vec<String>> {
    let folder = home.templates();
    let mut removed = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (key, unfinished) = match name.strip_suffix(".making") {
            Some(key) => (key, true),
            None => (name.as_str(), false),
        };
        if name.ends_with(".lock") {
            continue;
        }
        let Some(_lock) = lock(&folder.join(format!("{key}.lock")))? else { continue };
        if !unfinished && host.is_none_or(|host| is_of_use(&entry.path(), host)) {
            continue;
        }
        if unfinished {
            hypervisor.remove(&domain_of(key)).await?;
        }
        fs::remove_dir_all(entry.path()).map_err(|error| Failure::file("remove", &entry.path(), &error))?;
        let _ = fs::remove_file(folder.join(format!("{key}.lock")));
        removed.push(key.to_owned());
    }
    removed.sort();
    Ok(removed)
}

/// Whether a machine could still ask for the template in `folder`.
fn is_of_use(folder: &Path, host: &HostFacts) -> bool {
    let Ok(text) = fs::read(folder.join(WRITTEN)) else { return false };
    serde_json::from_slice::<Written>(&text).is_ok_and(|written| {
        written.software == host.software && written.files.iter().all(|file| file.is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external::hypervisor::{Acceleration, Accelerator};

    fn host(software: &str) -> HostFacts {
        HostFacts {
            arch: kmt_reporters::event::Arch::X86_64,
            acceleration: Acceleration { accelerator: Accelerator::Tcg, cpu: "max".to_owned(), notice: None },
            cores: 2,
            memory_mib: 4096,
            qemu_user: None,
            most_vcpu: Some(1),
            notices: Vec::new(),
            software: software.to_owned(),
        }
    }

    fn written(home: &Home, key: &str, software: &str, files: &[&Path], unfit: Option<&str>) {
        let folder = home.templates().join(key);
        fs::create_dir_all(&folder).unwrap();
        let written = Written {
            schema: 1,
            cell: "debian_12/6.1/x86_64".to_owned(),
            files: files.iter().map(|file| file.to_path_buf()).collect(),
            software: software.to_owned(),
            unfit: unfit.map(str::to_owned),
        };
        fs::write(folder.join(WRITTEN), serde_json::to_vec(&written).unwrap()).unwrap();
    }

    #[test]
    fn a_template_is_found_once_and_what_is_none_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let templates = Templates::of(&home, crate::settings::Warmth::Auto);
        let (good, bad, none) = (Key("a".into()), Key("b".into()), Key("c".into()));
        written(&home, "a", "QEMU 1", &[], None);
        written(&home, "b", "QEMU 1", &[], Some("no port"));
        assert!(templates.find(&good).is_ok() && !templates.wanted(&good));
        let (why, ordinary) = templates.find(&bad).unwrap_err();
        assert!(why.contains("no port") && ordinary && !templates.wanted(&bad));
        assert!(templates.find(&none).is_err() && templates.wanted(&none));
        fs::write(home.templates().join("a").join(WRITTEN), b"{").unwrap();
        let (_, ordinary) = templates.find(&good).unwrap_err();
        assert!(!ordinary && templates.wanted(&good), "what cannot be read is made again");
    }

    #[test]
    fn one_process_makes_a_template() {
        let folder = tempfile::tempdir().unwrap();
        let templates = Templates::of(&Home::at(folder.path()), crate::settings::Warmth::Auto);
        let key = Key("a".into());
        let held = templates.lock(&key).unwrap();
        assert!(held.is_some() && templates.lock(&key).unwrap().is_none());
        drop(held);
        assert!(templates.lock(&key).unwrap().is_some());
    }

    #[test]
    fn what_no_machine_can_ask_for_is_of_no_use() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let image = folder.path().join("rootfs");
        fs::write(&image, b"").unwrap();
        written(&home, "a", "QEMU 1", &[&image], None);
        let template = home.templates().join("a");
        assert!(is_of_use(&template, &host("QEMU 1")));
        assert!(!is_of_use(&template, &host("QEMU 2")), "another QEMU");
        fs::remove_file(&image).unwrap();
        assert!(!is_of_use(&template, &host("QEMU 1")), "its image is gone");
    }
}
