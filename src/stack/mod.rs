//! The machines that should exist and those that do.
//!
//! Owns a stack's folder: its record of machines, its keys, its locks. `stack.json` is the journal: a
//! machine is written there before anything of it is made, and struck out after the last of it is gone, so
//! that any later command can finish what a killed one began. Everything a machine consists of follows
//! from its record: the domain by name and metadata, the files by folder. Does not boot (`machine`).

pub mod alias;
mod hold;
pub mod holder;
mod keys;
mod lan;
pub mod name;
mod output;
pub mod reconcile;
pub mod record;
mod remove;
pub mod rental;
mod spec;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::Digest as _;
use uuid::Uuid;

use crate::error::{Failure, Kind, Result};
use crate::settings::Home;
pub use hold::{Hold, Patience};
pub use keys::Keys;
pub(crate) use keys::quoted;
pub use record::{MachineRecord, Progress, StackRecord};
pub use remove::{Destroyed, destroy, lease_all, remove_machine, sweep, take_apart};
pub use rental::{Rental, Rented};
pub use spec::{Change, MachineSpec, StackSpec};

/// Name of the file that says what a stack is.
const FILE: &str = "stack.json";

/// Hears `before` and `after` of each writing of a record; at most one does.
type Listener = Box<dyn Fn(&'static str) + Send + Sync>;
static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Has `listener` hear of each writing of a record, just before it and just after: a world in which processes are
/// killed at every step kills them there too. The first one that is named stays.
pub fn hear_of_writes(listener: Listener) {
    let _ = LISTENER.set(listener);
}

/// A stack on disk.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Its folder.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// Its identity, kept in every domain's metadata.
    pub uuid: Uuid,
}

/// The right to use one machine; given back when dropped, also by a crash.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

impl Stack {
    /// Folder of the stack called `name` of the repository at `repository`.
    pub fn folder_of(home: &Home, name: &str, repository: &Path) -> PathBuf {
        let digest = sha2::Sha256::digest(repository.as_os_str().as_encoded_bytes());
        home.stacks().join(format!("{name}-{}", hex::encode(&digest[..4])))
    }

    /// Opens the stack, or makes it with fresh keys.
    ///
    /// # Errors
    /// A name that cannot be one, a folder that cannot be written, a record of another schema.
    pub fn open_or_create(home: &Home, name: &str, repository: &Path) -> Result<Stack> {
        check_name(name)?;
        let folder = Stack::folder_of(home, name, repository);
        create_private(&folder)?;
        let _lock = lock(&folder)?;
        if !folder.join(FILE).exists() {
            let record = StackRecord::new(name, repository);
            write(&folder, &record)?;
        }
        let record = read(&folder)?;
        if record.destroyed {
            // Somebody wants it again.
            write(&folder, &StackRecord { destroyed: false, ..record })?;
        }
        Stack::open(&folder)
    }

    /// Whether there is a stack in `folder`: one that another process is just making is none yet.
    pub fn is_at(folder: &Path) -> bool {
        folder.join(FILE).is_file()
    }

    /// Opens the stack in `folder`.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn open(folder: &Path) -> Result<Stack> {
        let record = read(folder)?;
        Ok(Stack { folder: folder.to_path_buf(), name: record.name, uuid: record.uuid })
    }

    /// Every stack of this home, by folder name.
    ///
    /// # Errors
    /// The folder cannot be listed. A stack whose record is damaged is left out.
    pub fn all(home: &Home) -> Result<Vec<Stack>> {
        let folder = home.stacks();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::file("list", &folder, &error)),
        };
        let mut folders: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        folders.sort();
        Ok(folders.iter().filter_map(|folder| Stack::open(folder).ok()).collect())
    }

    /// What is written of it now.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn record(&self) -> Result<StackRecord> {
        read(&self.folder)
    }

    /// Changes the record under the stack's lock, atomically.
    ///
    /// # Errors
    /// The record cannot be read or written; then nothing changed.
    pub fn change<T>(&self, change: impl FnOnce(&mut StackRecord) -> T) -> Result<T> {
        let _lock = lock(&self.folder)?;
        let mut record = read(&self.folder)?;
        let result = change(&mut record);
        write(&self.folder, &record)?;
        keys::write_config(&self.folder, &record)?;
        output::write(&self.folder, &record)?;
        Ok(result)
    }

    /// The machine's own folder.
    pub fn machine_folder(&self, machine: &str) -> PathBuf {
        self.folder.join("machines").join(machine)
    }

    /// Takes the machine for this process; `None` while another process has it.
    ///
    /// # Errors
    /// The lease file cannot be made.
    pub fn lease(&self, machine: &str) -> Result<Option<Lease>> {
        let folder = self.folder.join("leases");
        create_private(&folder)?;
        let path = folder.join(machine);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| Failure::file("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lease { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Failure::file("lock", &path, &error)),
        }
    }

    /// Writes a machine down and takes it for this process in one step, so that nobody sweeps it between.
    ///
    /// # Errors
    /// As [`Stack::change`] and [`Stack::lease`].
    pub fn add_leased(
        &self,
        add: impl FnOnce(&mut StackRecord) -> MachineRecord,
    ) -> Result<(MachineRecord, Lease)> {
        let _lock = lock(&self.folder)?;
        let mut record = read(&self.folder)?;
        let machine = add(&mut record);
        let lease = self.lease(&machine.id)?.ok_or_else(|| {
            Failure::new(Kind::Internal, format!("machine `{}` is new and in use already", machine.id))
        })?;
        write(&self.folder, &record)?;
        Ok((machine, lease))
    }

    /// OpenSSH client configuration of the stack's machines.
    pub fn ssh_config(&self) -> PathBuf {
        self.folder.join(keys::CONFIG)
    }

    /// The section of one of its machines in an OpenSSH configuration, for `hosts`; `None` while its host key is not
    /// made.
    ///
    /// # Errors
    /// The stack's folder cannot be named there.
    pub fn ssh_section(&self, machine: &MachineRecord, hosts: &[String]) -> Result<Option<String>> {
        keys::check_nameable(&self.folder)?;
        let whole = machine.host_key.is_some();
        Ok(whole.then(|| keys::section(&self.folder, machine, &hosts.join(" "))))
    }

    /// The sections of the hosts that its machines are behind, by name.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn host_sections(&self) -> Result<Vec<(String, String)>> {
        let section =
            |host: &crate::external::remote::RemoteHost| crate::hosts::config::section(&self.folder, host);
        Ok(self.record()?.hosts.into_iter().map(|(name, host)| (name, section(&host))).collect())
    }

    /// The private key that logs in to its machines, once one is made.
    pub fn login_key(&self) -> PathBuf {
        keys::login_key(&self.folder)
    }

    /// Folder of all its control sockets: short, as socket paths must be, and gone with the next boot.
    pub fn sockets(&self) -> PathBuf {
        let user = rustix::process::geteuid().as_raw();
        PathBuf::from(format!("/tmp/kmt-{user}-{}", &self.uuid.simple().to_string()[..8]))
    }

    /// Folder of the control sockets of one machine.
    pub fn machine_sockets(&self, machine: &str) -> PathBuf {
        self.sockets().join(hex::encode(&sha2::Sha256::digest(machine)[..4]))
    }

    /// File of a disk in memory of a machine, by the disk's number.
    pub fn memory_disk(&self, machine: &str, number: usize) -> PathBuf {
        PathBuf::from(format!("/dev/shm/{}.{number}", self.domain_name(machine)))
    }

    /// Name of a machine's domain.
    pub fn domain_name(&self, machine: &str) -> String {
        format!("kmt-{}-{machine}", &self.uuid.simple().to_string()[..8])
    }
}

/// A stack name becomes part of paths, domain names and socket paths.
fn check_name(name: &str) -> Result<()> {
    let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '@');
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > 80 {
        "it is longer than 80 characters"
    } else if name.starts_with(['.', '-']) {
        "it starts with `.` or `-`"
    } else if !name.chars().all(sane) {
        "only letters, digits and `-_.+@` are allowed"
    } else {
        return Ok(());
    };
    Err(Failure::usage(format!("`{}` cannot be the name of a stack: {why}", name.escape_debug()))
        .hint("--stack NAME"))
}

/// A folder only this user enters; QEMU's own user may pass through to files it was given.
pub(crate) fn create_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(|error| Failure::file("create", folder, &error))
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Failure::file("open", &path, &error))?;
    file.lock().map_err(|error| Failure::file("lock", &path, &error))?;
    Ok(file)
}

fn read(folder: &Path) -> Result<StackRecord> {
    let path = folder.join(FILE);
    let text = std::fs::read(&path).map_err(|error| Failure::file("read", &path, &error))?;
    let record: StackRecord = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(Kind::Internal, format!("`{}` is damaged", path.display()))
            .caused_by(error)
            .hint("`kmt-run stack gc` removes what no stack owns; then delete the folder")
    })?;
    if record.schema != record::SCHEMA {
        return Err(Failure::usage(format!("`{}` has schema {}", path.display(), record.schema))
            .hint("it was written by another version of kmt-run; destroy the stack with that one"));
    }
    Ok(record)
}

fn write(folder: &Path, record: &StackRecord) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(record)
        .map_err(|error| Failure::new(Kind::Internal, "cannot write a stack's record").caused_by(error))?;
    let tell = |when| LISTENER.get().into_iter().for_each(|listener| listener(when));
    tell("before");
    write_atomically(&folder.join(FILE), &bytes)?;
    tell("after");
    Ok(())
}

/// Writes beside and renames: a reader sees the old or the new, a crash leaves one of them.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension(format!("new{}", std::process::id()));
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        Failure::file("write", path, &error)
    })
}

#[cfg(test)]
mod tests {
    use kmt_reporters::event::{Arch, CellId};

    use super::*;

    #[test]
    fn two_checkouts_do_not_share_a_stack_and_names_are_checked() {
        let home = Home::at(Path::new("/h"));
        let one = Stack::folder_of(&home, "main", Path::new("/a"));
        assert_ne!(one, Stack::folder_of(&home, "main", Path::new("/b")));
        for bad in ["", "../x", "a/b", "-x", ".x", "a b", "a\n", &"x".repeat(81)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name("feature-x_1.2-ddvm").is_ok());
    }

    #[test]
    fn records_survive_and_ids_are_unique() {
        let folder = std::env::temp_dir().join(format!("kmt-stack-test-{}", std::process::id()));
        let home = Home::at(&folder);
        let stack = Stack::open_or_create(&home, "main", Path::new("/repo")).unwrap();
        let cell = CellId::local("debian_12", "6.1", Arch::X86_64);
        let add = || stack.change(|record| record.add(&cell, 2, 1024, 2200).id).unwrap();
        assert_eq!(add(), "debian_12-6.1-x86_64");
        assert_eq!(add(), "debian_12-6.1-x86_64.2");
        let again = Stack::open_or_create(&home, "main", Path::new("/repo")).unwrap();
        assert_eq!(again.uuid, stack.uuid);
        assert_eq!(again.record().unwrap().machines.len(), 2);
        let lease = stack.lease("debian_12-6.1-x86_64").unwrap();
        assert!(lease.is_some());
        assert!(stack.lease("debian_12-6.1-x86_64").unwrap().is_none(), "a lease is exclusive");
        drop(lease);
        assert!(stack.lease("debian_12-6.1-x86_64").unwrap().is_some());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
