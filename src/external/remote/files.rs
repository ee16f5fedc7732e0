//! Files of guests on a host: images by name of their content, brought there once; a folder a machine; its console,
//! followed into a file here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio_util::io::SyncIoBridge;

use super::shell::Shell;
use crate::external::{Class, Error, Result};

/// Makes the folder of a machine, empty. `$1` folder of hosts, `$2` folder of the machine.
const BEGIN: &str = r#"umask 022; mkdir -p "$1" && chmod 711 "$1" && rm -rf "$2" && mkdir -p "$2""#;
/// Takes away a machine's files: its folder and its disks in memory, which begin with `$2`.
const END: &str = r#"rm -rf "$1" && rm -f "$2".[0-9]*"#;
/// Says whether a file of that size is there.
const HAVE: &str = r#"[ "$(stat -c %s "$1" 2>/dev/null)" = "$2" ] && echo have || echo none"#;
/// Takes a packed file: `$1` its place, `$2` its digest, `$3` its permissions. It appears whole or not at all.
const TAKE: &str = r#"
umask 022; mkdir -p "$(dirname "$1")" || exit
umask 077; t=$1.new$$; trap 'rm -f "$t"' EXIT
gzip -dc | dd of="$t" bs=64k iflag=fullblock conv=sparse status=none || exit
[ "$(sha256sum <"$t" | cut -c1-64)" = "$2" ] || { echo "what arrived is not what was sent" >&2; exit 9; }
chmod "$3" "$t" && mv -f "$t" "$1""#;
/// Follows a file from a byte on.
const FOLLOW: &str = r#"exec tail -c +"$2" -F "$1" 2>/dev/null"#;
/// How often a transfer is tried.
const TRIES: u32 = 3;
/// Until a console that broke off is followed again.
const PAUSE: Duration = Duration::from_millis(500);

/// The files of one host.
#[derive(Debug)]
pub(super) struct Files {
    shell: Arc<Shell>,
    folder: PathBuf,
    /// Folders of machines here, and the names of their domains.
    machines: Mutex<BTreeMap<PathBuf, String>>,
    /// Images that are known to be there; held while one is brought.
    brought: tokio::sync::Mutex<BTreeMap<PathBuf, String>>,
    consoles: Mutex<BTreeMap<String, JoinHandle<()>>>,
}

impl Files {
    pub(super) fn new(shell: Arc<Shell>, folder: &Path) -> Files {
        Files {
            shell,
            folder: folder.to_path_buf(),
            machines: Mutex::default(),
            brought: tokio::sync::Mutex::default(),
            consoles: Mutex::default(),
        }
    }

    /// The folder of a machine over there.
    pub(super) fn of_machine(&self, name: &str) -> PathBuf {
        self.folder.join("machines").join(name)
    }

    /// The machine of that domain has its files in `here`.
    pub(super) async fn begin(&self, name: &str, here: &Path) -> Result<()> {
        self.unfollow(name);
        let there = self.of_machine(name).display().to_string();
        let all = self.folder.display().to_string();
        self.shell.must("make the folder of a machine on", BEGIN, &[&all, &there], Vec::new()).await?;
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.insert(here.to_path_buf(), name.to_owned());
        Ok(())
    }

    /// Takes away all files of a machine.
    pub(super) async fn end(&self, name: &str) -> Result<()> {
        self.unfollow(name);
        let (folder, disks) = (self.of_machine(name).display().to_string(), format!("/dev/shm/{name}"));
        self.shell
            .must("take away the files of a machine on", END, &[&folder, &disks], Vec::new())
            .await
            .map(drop)
    }

    /// Where a file of a machine lies over there; `None` for one that machines share.
    pub(super) fn own(&self, file: &Path) -> Option<PathBuf> {
        if file.starts_with("/dev/shm") {
            return Some(file.to_path_buf());
        }
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let name = machines.get(file.parent()?)?;
        Some(self.of_machine(name).join(file.file_name()?))
    }

    /// Brings a file that machines share, once: where it lies over there.
    pub(super) async fn shared(&self, file: &Path) -> Result<String> {
        let mut brought = self.brought.lock().await;
        if let Some(there) = brought.get(file) {
            return Ok(there.clone());
        }
        let digest = digest_of(file).await?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if name.starts_with(&digest) { name } else { format!("{digest}.{name}") };
        let there = self.folder.join("images").join(name).display().to_string();
        let size = std::fs::metadata(file).map_err(|error| unreadable(file, &error))?.len().to_string();
        let asked = self.shell.must("look at files of", HAVE, &[&there, &size], Vec::new()).await?;
        if asked.text().trim() != "have" {
            self.send(file, &there, &digest, "0444").await?;
        }
        brought.insert(file.to_path_buf(), there.clone());
        Ok(there)
    }

    /// Brings a file of one machine.
    pub(super) async fn give(&self, file: &Path, mode: &str) -> Result<PathBuf> {
        let there = self.own(file).ok_or_else(|| {
            Error::new("the host", "take", file.display().to_string(), Class::Rejected, "it is of no machine")
        })?;
        let digest = hashed(file).await?;
        self.send(file, &there.display().to_string(), &digest, mode).await?;
        Ok(there)
    }

    async fn send(&self, file: &Path, there: &str, digest: &str, mode: &str) -> Result<()> {
        send(&self.shell, file, there, digest, mode, Compression::fast()).await.map(drop)
    }

    /// Has the console of a machine come into `here`, from where that file ends.
    pub(super) fn follow(&self, name: &str, here: &Path) {
        let mut consoles = self.consoles.lock().unwrap_or_else(PoisonError::into_inner);
        if consoles.get(name).is_some_and(|task| !task.is_finished()) {
            return;
        }
        let there = self.of_machine(name).join("console.log").display().to_string();
        let task = tokio::spawn(follow(self.shell.clone(), there, here.to_path_buf()));
        consoles.insert(name.to_owned(), task);
    }

    fn unfollow(&self, name: &str) {
        let task = self.consoles.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let mut consoles = self.consoles.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *consoles).into_values().for_each(|task| task.abort());
    }
}

/// Brings a file to `there`, which appears whole or not at all.
///
/// # Returns
/// The bytes that went over the link, as compressed.
pub(super) async fn send(
    shell: &Shell,
    file: &Path,
    there: &str,
    digest: &str,
    mode: &str,
    packing: Compression,
) -> Result<u64> {
    let mut tries = 1;
    loop {
        match send_once(shell, file, &[there, digest, mode], packing).await {
            Err(error) if error.class == Class::Unreachable && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn send_once(shell: &Shell, file: &Path, args: &[&str], packing: Compression) -> Result<u64> {
    let (mut writer, reader) = tokio::io::duplex(256 * 1024);
    let source = file.to_path_buf();
    let packer = tokio::task::spawn_blocking(move || {
        let packed = (|| {
            let out = io::BufWriter::with_capacity(128 * 1024, SyncIoBridge::new(&mut writer));
            let mut out = GzEncoder::new(out, packing);
            io::copy(&mut std::fs::File::open(&source)?, &mut out)?;
            io::Write::flush(&mut out.finish()?)
        })();
        (packed, writer)
    });
    let packer = async move {
        let (packed, mut writer) = packer.await.map_err(io::Error::other)?;
        writer.shutdown().await?;
        packed
    };
    let sent = AtomicU64::new(0);
    let mut counted = tokio_util::io::InspectReader::new(reader, |bytes: &[u8]| {
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    });
    let feeding = async {
        let fed = shell.feed("take a file on", TAKE, args, &mut counted).await;
        // The packer stops when nobody reads.
        drop(counted);
        fed
    };
    let (fed, packed) = tokio::join!(feeding, packer);
    fed?;
    packed.map_err(|error| unreadable(file, &error))?;
    Ok(sent.load(Ordering::Relaxed))
}

/// Copies what comes; a connection that breaks is made again, and goes on at the byte it broke at.
async fn follow(shell: Arc<Shell>, there: String, here: PathBuf) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = std::fs::metadata(&here).map_or(0, |meta| meta.len());
        let from = (length + 1).to_string();
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(&here);
        if let (Ok(mut stream), Ok(mut file)) = (shell.stream(FOLLOW, &[&there, &from]), opened) {
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                // Where this disk is full the rest is asked for again.
                if io::Write::write_all(&mut file, &buffer[..count]).is_err() {
                    break;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The digest of a file: what its name says where it is named by its content.
async fn digest_of(file: &Path) -> Result<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    match name.get(..64) {
        Some(digest) if digest.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(digest.to_owned()),
        _ => hashed(file).await,
    }
}

pub(super) async fn hashed(file: &Path) -> Result<String> {
    let source = file.to_path_buf();
    let hashing = tokio::task::spawn_blocking(move || {
        let mut hash = Sha256::new();
        io::copy(&mut std::fs::File::open(source)?, &mut HashWriter(&mut hash))?;
        Ok::<_, io::Error>(hex::encode(hash.finalize()))
    });
    let hashed = hashing.await.map_err(io::Error::other).and_then(|hashed| hashed);
    hashed.map_err(|error| unreadable(file, &error))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn unreadable(file: &Path, error: &io::Error) -> Error {
    Error::io("this machine", "read", file.display().to_string(), error)
}
