//! Files and folders between this machine and a guest: one tar stream over one connection, with the meaning of
//! `cp -r`. What a guest sends is not trusted: nothing of it lands outside the place that was named.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::io::AsyncWriteExt as _;
use tokio_util::io::SyncIoBridge;

pub use crate::external::process::shell_quoted;
use crate::external::process::{Child, Output};
use crate::external::{Class, Error, Result};

/// Takes the stream in a guest: `$1` where to, `$2` whether it must be a folder, then the names that come. Everything
/// lands beside first, so that a stream that breaks changes nothing.
const TAKE: &str = r#"set -eu
to=$1; folder=$2; shift 2
case $to in */) folder=1;; esac
if [ "$folder" = 1 ]; then mkdir -p -- "$to"; fi
if [ -d "$to" ]; then near=$to; else near=$(dirname -- "$to"); mkdir -p -- "$near"; fi
work=$near/.kmt-cp.$$
mkdir -m 700 -- "$work"
trap 'rm -rf -- "$work"' EXIT
tar -C "$work" -xof -
if [ ! -e "$work/.kmt-whole" ]; then echo "the stream broke" >&2; exit 1; fi
for name in "$@"; do
  if [ -d "$to" ]; then place=$to/$name; else place=$to; fi
  if [ -d "$place" ] && [ ! -L "$place" ]; then cp -a -- "$work/$name/." "$place/"
  else mv -fT -- "$work/$name" "$place"; fi
done"#;

/// Gives what `$1` names: a folder as its content, anything else as one entry.
const GIVE: &str = r#"set -eu
if [ -d "$1" ]; then cd -- "$1"; exec tar -cf - .; fi
if [ ! -e "$1" ] && [ ! -L "$1" ]; then echo "no such file or folder" >&2; exit 1; fi
cd -- "$(dirname -- "$1")"; exec tar -cf - -- "$(basename -- "$1")""#;

/// What a copy came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files, links among them, folders not.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is sent: files and folders with the names they get.
#[derive(Debug, Clone)]
pub struct Load(Vec<(PathBuf, String)>);

impl Load {
    /// These files and folders; a name that is a link stands for what it leads to.
    ///
    /// # Errors
    /// One is not there, or two have one name.
    pub fn of(paths: &[PathBuf]) -> io::Result<Load> {
        let mut load: Vec<(PathBuf, String)> = Vec::new();
        for path in paths {
            let said =
                |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display()));
            let real = path.canonicalize().map_err(said)?;
            let name = path.file_name().or(real.file_name()).map(|name| name.to_string_lossy().into_owned());
            let name = name.ok_or_else(|| said(io::Error::other("it has no name of its own")))?;
            if load.iter().any(|(_, other)| *other == name) {
                return Err(said(io::Error::other("another one has its name")));
            }
            load.push((real, name));
        }
        Ok(Load(load))
    }

    /// The line that takes it at `to` in a guest.
    pub fn line(&self, to: &str) -> String {
        let to = if to.is_empty() { "." } else { to };
        let folder = if self.0.len() > 1 { "1" } else { "0" };
        let names = self.0.iter().map(|(_, name)| name.as_str());
        let words = ["sh", "-c", TAKE, "kmt-cp", to, folder].into_iter().chain(names);
        words.map(shell_quoted).collect::<Vec<_>>().join(" ")
    }

    fn pack(&self, out: impl io::Write) -> io::Result<Copied> {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(128 * 1024, out));
        tar.follow_symlinks(false);
        let mut copied = Copied::default();
        let mut left = self.0.clone();
        while let Some((path, name)) = left.pop() {
            let seen = fs::symlink_metadata(&path)?;
            tar.append_path_with_name(&path, &name)?;
            if seen.is_dir() {
                for entry in fs::read_dir(&path)? {
                    let entry = entry?;
                    let below = format!("{name}/{}", entry.file_name().to_string_lossy());
                    left.push((entry.path(), below));
                }
            } else {
                copied.files += 1;
                copied.bytes += if seen.is_file() { seen.len() } else { 0 };
            }
        }
        // `tar` takes a stream that ends between two entries for a whole one.
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        tar.append_data(&mut header, ".kmt-whole", io::empty())?;
        io::Write::flush(&mut tar.into_inner()?)?;
        Ok(copied)
    }
}

/// Sends a load to a program that runs its line.
///
/// # Errors
/// A file cannot be read, or the guest refused: in its own words.
pub async fn put(program: Child, load: Load, guest: &str) -> Result<Copied> {
    let (mut writer, mut reader) = tokio::io::duplex(256 * 1024);
    let packing = tokio::task::spawn_blocking(move || (load.pack(SyncIoBridge::new(&mut writer)), writer));
    let packing = async move {
        let (packed, mut writer) = packing.await.map_err(io::Error::other)?;
        writer.shutdown().await?;
        packed
    };
    let feeding = async {
        let output = program.fed(&mut reader).await;
        // The packer stops when nobody reads.
        drop(reader);
        output
    };
    let (output, packed) = tokio::join!(feeding, packing);
    if let Err(error) = &packed
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(Error::io("this machine", "read for", guest, error));
    }
    took("write to", guest, &output?)?;
    packed.map_err(|error| Error::io("this machine", "send to", guest, &error))
}

/// The line that gives `from` in a guest.
pub fn give_line(from: &str) -> String {
    let from = if from.is_empty() { "." } else { from };
    ["sh", "-c", GIVE, "kmt-cp", from].map(shell_quoted).join(" ")
}

/// Receives what a program gives that runs [`give_line`]: at `to`, or in it where it is a folder.
///
/// # Errors
/// The guest refused, in its own words, or something cannot be written here.
pub async fn get(program: Child, from: &str, to: &Path, guest: &str) -> Result<Copied> {
    let failed = |error: &io::Error| Error::io("this machine", "write", to.display().to_string(), error);
    let place = place(from, to);
    let beside = Beside::make(&place).map_err(|error| failed(&error))?;
    let work = beside.0.clone();
    let (mut writer, mut reader) = tokio::io::duplex(256 * 1024);
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Archive::new(SyncIoBridge::new(&mut reader));
        let unpacked = archive.unpack(&work);
        // What follows the end of an archive is padding; whoever sends it must get rid of it.
        io::copy(&mut archive.into_inner(), &mut io::sink()).and(unpacked)
    });
    let receiving = async {
        let output = program.received(&mut writer).await;
        drop(writer);
        output
    };
    let (output, unpacked) = tokio::join!(receiving, unpacking);
    took("read from", guest, &output?)?;
    unpacked.map_err(io::Error::other).flatten().map_err(|error| failed(&error))?;
    let copied = count(&beside.0).map_err(|error| failed(&error))?;
    settle(&beside.0, &place, from).map_err(|error| failed(&error))?;
    Ok(copied)
}

/// Where it lands: `to`, or below it where it is a folder, as `cp` has it.
fn place(from: &str, to: &Path) -> PathBuf {
    match Path::new(from).file_name() {
        Some(name) if to.is_dir() => to.join(name),
        _ => to.to_path_buf(),
    }
}

/// A folder beside a place, gone when dropped.
struct Beside(PathBuf);

impl Beside {
    fn make(place: &Path) -> io::Result<Beside> {
        let near = place.parent().filter(|near| !near.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(near)?;
        let folder = near.join(format!(".kmt-cp.{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&folder)?;
        Ok(Beside(folder))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn count(folder: &Path) -> io::Result<Copied> {
    let mut copied = Copied::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let seen = entry.path().symlink_metadata()?;
        if seen.is_dir() {
            let below = count(&entry.path())?;
            copied.files += below.files;
            copied.bytes += below.bytes;
        } else {
            copied.files += 1;
            copied.bytes += if seen.is_file() { seen.len() } else { 0 };
        }
    }
    Ok(copied)
}

/// Moves what came to its place. A file came as the one entry of its name, a folder as its content.
fn settle(work: &Path, place: &Path, from: &str) -> io::Result<()> {
    let entries: Vec<PathBuf> =
        fs::read_dir(work)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let single = match &entries[..] {
        [only] if !only.symlink_metadata()?.is_dir() && only.file_name() == Path::new(from).file_name() => {
            Some(only)
        }
        _ => None,
    };
    match single {
        Some(file) if !place.is_dir() => fs::rename(file, place),
        Some(_) => Err(io::Error::new(io::ErrorKind::IsADirectory, "a folder is in its place")),
        None => merge(work, place),
    }
}

/// Moves the content of a folder into another, which is made if it is not there.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    match to.symlink_metadata() {
        Ok(seen) if seen.is_dir() => {}
        Ok(seen) if seen.is_symlink() && to.is_dir() => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::NotADirectory, "a file is in the folder's place")),
        Err(_) => fs::create_dir_all(to)?,
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let is_folder = |path: &Path| path.symlink_metadata().is_ok_and(|seen| seen.is_dir());
        if is_folder(&entry.path()) && is_folder(&target) {
            merge(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    Ok(())
}

fn took(operation: &'static str, guest: &str, output: &Output) -> Result<()> {
    if output.ok() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let (class, status) = match output.status {
        None | Some(255) => (Class::Unreachable, "the connection broke".to_owned()),
        Some(code) => (Class::Rejected, format!("status {code}")),
    };
    let detail = if words.is_empty() { status } else { kmt_reporters::text::escape_line(&words) };
    Err(Error::new("the machine", operation, guest, class, detail))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn there(load: &[PathBuf], root: &Path, to: &str) -> Result<Copied> {
        let load = Load::of(load).unwrap();
        let line = load.line(to);
        put(Child::new("sh").args(["-c", &line]).folder(root), load, "guest").await
    }

    async fn back(root: &Path, from: &str, to: &Path) -> Result<Copied> {
        get(Child::new("sh").args(["-c", &give_line(from)]).folder(root), from, to, "guest").await
    }

    fn tree(root: &Path) -> PathBuf {
        let tree = root.join("tree of 'names'");
        fs::create_dir_all(tree.join("below")).unwrap();
        fs::write(tree.join("below/$file"), vec![7u8; 300_000]).unwrap();
        fs::write(tree.join("-x"), "dash").unwrap();
        symlink("below", tree.join("link")).unwrap();
        tree
    }

    #[tokio::test]
    async fn what_goes_there_and_back_is_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let (here, guest) = (temp.path().join("here"), temp.path().join("guest"));
        fs::create_dir_all(&guest).unwrap();
        let tree = tree(&here);
        let copied = there(std::slice::from_ref(&tree), &guest, "new/place").await.unwrap();
        assert_eq!(copied, Copied { files: 3, bytes: 300_004 });
        assert_eq!(fs::read(guest.join("new/place/below/$file")).unwrap().len(), 300_000);
        // Into a folder that is there; again, over itself.
        for _ in 0..2 {
            there(std::slice::from_ref(&tree), &guest, "new").await.unwrap();
        }
        assert_eq!(fs::read(guest.join("new/tree of 'names'/-x")).unwrap(), b"dash");
        let copied = back(&guest, "new/tree of 'names'", &here.join("again")).await.unwrap();
        assert_eq!(copied, Copied { files: 3, bytes: 300_004 });
        assert_eq!(fs::read_link(here.join("again/link")).unwrap(), Path::new("below"));
        back(&guest, "new/place/-x", &here).await.unwrap();
        assert_eq!(fs::read(here.join("-x")).unwrap(), b"dash");
        for folder in [&here, &guest, &guest.join("new")] {
            let left = fs::read_dir(folder).unwrap().flatten();
            assert!(!left.into_iter().any(|e| e.file_name().to_string_lossy().starts_with(".kmt-cp")));
        }
    }

    #[tokio::test]
    async fn several_need_a_folder_and_what_is_missing_is_said() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (temp.path().join("one"), temp.path().join("two"));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        let guest = temp.path().join("guest");
        fs::create_dir(&guest).unwrap();
        there(&[one.clone(), two], &guest, "both").await.unwrap();
        assert_eq!(fs::read_dir(guest.join("both")).unwrap().count(), 2);
        let error = back(&guest, "nothing", &one).await.unwrap_err();
        assert!(error.to_string().contains("no such file"), "{error}");
        assert_eq!(fs::read(&one).unwrap(), b"1", "a copy that failed changed it");
        assert!(Load::of(&[temp.path().join("nothing")]).is_err());
    }

    #[tokio::test]
    async fn a_guest_cannot_write_beside_the_place() {
        let temp = tempfile::tempdir().unwrap();
        let evil = temp.path().join("evil.tar");
        let mut tar = tar::Builder::new(fs::File::create(&evil).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "out", temp.path().join("victim")).unwrap();
        for name in ["out/written", "x/../../climbed"] {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(4);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, &b"evil"[..]).unwrap();
        }
        tar.into_inner().unwrap();
        fs::create_dir(temp.path().join("victim")).unwrap();
        let place = temp.path().join("inside/place");
        let _ = get(Child::new("cat").arg(&evil), "place", &place, "guest").await;
        assert_eq!(fs::read_dir(temp.path().join("victim")).unwrap().count(), 0);
        assert!(!temp.path().join("climbed").exists() && !temp.path().join("inside/climbed").exists());
    }
}
