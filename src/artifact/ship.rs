//! Sends a guest the files it lacks, and puts the whole tree in place at once.
//!
//! A guest keeps blobs by their sha256 and permissions; a tree is hard links to blobs below a folder of its own, and the
//! layout root a symbolic link to that folder. One command asks what is missing; if something is, a second
//! takes one tar stream (compressed where a network lies between and the guest can undo that), verifies it and swaps
//! the link. A stream that breaks, or a disk that is full, leaves the former
//! tree as it was.
//!
//! Guests on a host elsewhere get the stream from there, where it is brought once (`through`).

mod sparse;
mod through;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio_util::io::SyncIoBridge;

use super::{ArtifactSet, ShipFile};
use crate::external::process::Output;
use crate::external::transport::Connection;
use crate::external::{Class, Error, Result};

pub use through::{Through, ship_through};

const ASK: &str = include_str!("ship/ask.sh");
const TAKE: &str = include_str!("ship/take.sh");
/// The system in errors of the guest itself.
pub const SYSTEM: &str = "the guest";
/// Modification time of blobs; the stamp is one second younger.
const BLOB_TIME: u64 = 1;

/// Where a guest keeps what it was sent. All three are on one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Folder of blobs.
    pub blobs: String,
    /// Folder of trees.
    pub trees: String,
    /// The layout root: a symbolic link to the tree of now.
    pub root: String,
    /// How a guest that is known to have nothing of ours takes a stream: it is not asked what it lacks, which saves
    /// an emulated guest some tenths of a second. That it has something after all costs bytes only.
    pub untouched: Option<Coding>,
    /// What lies between it and us.
    pub link: Link,
}

/// What lies between a guest and us, which says whether it is worth to compress what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// This machine: its guests take bytes more quickly than they decompress them.
    Near,
    /// A network.
    Far,
}

impl Link {
    /// That to a machine on a remote host, or on this one.
    pub fn to(host: Option<&str>) -> Link {
        if host.is_some() { Link::Far } else { Link::Near }
    }
}

impl Store {
    /// Below `base`, such as `/var/lib/kmt`, with the layout root at `root`.
    pub fn below(base: &str, root: &str) -> Store {
        Store {
            blobs: format!("{base}/store"),
            trees: format!("{base}/trees"),
            root: root.to_owned(),
            untouched: None,
            link: Link::Near,
        }
    }
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShipReport {
    /// Bytes of the stream, as compressed; 0 where the guest had everything.
    pub bytes: u64,
    /// Blobs in it.
    pub files: u32,
    /// What went to the guest's host for it, where it came by that one.
    pub uploaded: Option<Uploaded>,
}

/// What went over the link to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uploaded {
    /// Bytes; 0 where the host had it.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Makes the guest's layout root hold exactly `set`.
pub async fn ship(set: &ArtifactSet, connection: &dyn Connection, store: &Store) -> Result<ShipReport> {
    match parcel(set, connection, store).await? {
        Some((parcel, name)) => send_tree(parcel, connection, store, &name).await,
        None => Ok(ShipReport::default()),
    }
}

/// What the guest lacks, and the name of its tree to be; nothing where it has that.
async fn parcel(
    set: &ArtifactSet,
    connection: &dyn Connection,
    store: &Store,
) -> Result<Option<(Parcel, String)>> {
    let tree = tree_digest(set);
    let blobs: BTreeMap<String, &ShipFile> = set.files.iter().map(|file| (blob_name(file), file)).collect();
    let (send, coding) = match store.untouched {
        Some(coding) => (blobs.values().map(|file| (*file).clone()).collect(), coding),
        None => match ask(&blobs, connection, store, &tree).await? {
            Some((needed, coding)) => {
                let needed = blobs.iter().filter(|(name, _)| needed.contains(name.as_str()));
                (needed.map(|(_, file)| (*file).clone()).collect(), coding)
            }
            None => return Ok(None),
        },
    };
    let coding = if store.link == Link::Near { Coding::Plain } else { coding };
    let name = format!("{tree}-{}", uuid::Uuid::new_v4().simple());
    Ok(Some((Parcel { set: set.clone(), send, coding }, name)))
}

/// What the guest says that it lacks, and how it takes it; `None` where it has the tree.
async fn ask(
    blobs: &BTreeMap<String, &ShipFile>,
    connection: &dyn Connection,
    store: &Store,
    tree: &str,
) -> Result<Option<(BTreeSet<String>, Coding)>> {
    const OPERATION: &str = "say what it lacks";
    let mut question = blobs.keys().map(String::as_str).collect::<Vec<_>>().join("\n");
    question.push('\n');
    let argv = ["sh", "-c", ASK, "kmt-ask", &store.blobs, &store.trees, &store.root, tree];
    let answer = connection.run(&argv, question.into_bytes()).await?;
    if !answer.ok() {
        return Err(refusal(OPERATION, store, &answer));
    }
    missing(&answer.text()).map_err(|line| {
        Error::new(SYSTEM, OPERATION, &store.root, Class::Unintelligible, format!("it said `{line}`"))
    })
}

/// What one stream carries.
struct Parcel {
    set: ArtifactSet,
    /// One file of each blob that the guest lacks.
    send: Vec<ShipFile>,
    coding: Coding,
}

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Plain,
    /// Compressed.
    Gzip,
}

async fn send_tree(
    parcel: Parcel,
    connection: &dyn Connection,
    store: &Store,
    name: &str,
) -> Result<ShipReport> {
    let (files, unpack) = (parcel.files(), parcel.coding.unpack());
    let (mut writer, reader) = tokio::io::duplex(256 * 1024);
    let packing = tokio::task::spawn_blocking(move || (parcel.write(SyncIoBridge::new(&mut writer)), writer));
    let packing = async move {
        let (packed, mut writer) = packing.await.map_err(io::Error::other)?;
        writer.shutdown().await?;
        packed
    };
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let mut counted = tokio_util::io::InspectReader::new(reader, move |bytes: &[u8]| {
        count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    });
    let argv = take(store, name, unpack);
    let feeding = async {
        let output = connection.feed(&argv, &mut counted).await;
        // The packer stops when nobody reads.
        drop(counted);
        output
    };
    let (output, packed) = tokio::join!(feeding, packing);
    if let Err(error) = packed
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(Error::io("this machine", "pack", &store.root, &error));
    }
    published(&output?, store)?;
    Ok(ShipReport { bytes: sent.load(Ordering::Relaxed), files, uploaded: None })
}

/// The command that takes a stream.
fn take<'a>(store: &'a Store, tree: &'a str, unpack: &'a str) -> [&'a str; 9] {
    ["sh", "-c", TAKE, "kmt-take", &store.blobs, &store.trees, &store.root, tree, unpack]
}

/// Whether the tree is in place.
fn published(output: &Output, store: &Store) -> Result<()> {
    match output.ok() && output.text().trim_end() == "published" {
        true => Ok(()),
        false => Err(refusal("take the files", store, output)),
    }
}

/// The blobs that the guest lacks, and what it can unpack; `None` where it has the tree. An error is the line
/// nobody understands.
fn missing(answer: &str) -> std::result::Result<Option<(BTreeSet<String>, Coding)>, String> {
    let (mut needed, mut coding) = (BTreeSet::new(), Coding::Plain);
    for line in answer.lines() {
        match line.split_once(' ') {
            None if line == "have" => return Ok(None),
            None if line == "gzip" => coding = Coding::Gzip,
            None if line == "end" => return Ok(Some((needed, coding))),
            Some(("need", digest)) => drop(needed.insert(digest.to_owned())),
            _ => return Err(line.to_owned()),
        }
    }
    Err("nothing more".to_owned())
}

fn refusal(operation: &'static str, store: &Store, output: &Output) -> Error {
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let full = words.contains("No space left") || words.contains("Disk quota");
    let (class, detail) = match output.status {
        _ if full => (Class::Busy, format!("its disk is full\n{words}")),
        None | Some(255 | 15) => (Class::Unreachable, format!("the connection broke\n{words}")),
        Some(10) => (Class::Unreachable, format!("the stream could not be unpacked\n{words}")),
        Some(11) => (Class::Unintelligible, format!("what arrived is not what was sent\n{words}")),
        Some(code) => (Class::Rejected, format!("status {code}\n{words}")),
    };
    let error = Error::new(SYSTEM, operation, &store.root, class, detail);
    if full { error.hint("give the machine a larger disk, or ship fewer packages") } else { error }
}

/// What the guest calls a file's content: links share their permissions, so those are part of it.
fn blob_name(file: &ShipFile) -> String {
    match file.mode {
        0o755 => file.digest.clone(),
        mode => format!("{}-{mode:o}", file.digest),
    }
}

/// The identity of a tree: every path with its content.
fn tree_digest(set: &ArtifactSet) -> String {
    let mut hash = Sha256::new();
    for file in &set.files {
        hash.update(format!("f {} {:o} {}\n", file.digest, file.mode, file.dest));
    }
    for link in &set.links {
        hash.update(format!("l {}\n{}\n", link.dest, link.target));
    }
    for package in &set.packages {
        hash.update(format!("d {}\n", package.workdir));
    }
    hex::encode(hash.finalize())
}

fn header(kind: tar::EntryType, size: u64, mode: u32, time: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header
}

impl Coding {
    /// What undoes it.
    fn unpack(self) -> &'static str {
        match self {
            Coding::Plain => "cat",
            Coding::Gzip => "gzip -d",
        }
    }
}

impl Parcel {
    /// How many blobs it carries.
    fn files(&self) -> u32 {
        u32::try_from(self.send.len()).unwrap_or(u32::MAX)
    }

    /// The same for the same bytes.
    fn name(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("1 {} {:?}\n", tree_digest(&self.set), self.coding));
        self.send.iter().for_each(|file| hash.update(format!("{}\n", blob_name(file))));
        hex::encode(hash.finalize())
    }

    fn write(&self, out: impl Write) -> io::Result<()> {
        let out = io::BufWriter::with_capacity(128 * 1024, out);
        match self.coding {
            Coding::Plain => self.pack(out)?.flush(),
            Coding::Gzip => self.pack(GzEncoder::new(out, flate2::Compression::fast()))?.finish()?.flush(),
        }
    }

    /// Blobs first, then the tree: hard links to them and to those that the guest has, which lie behind a link
    /// `store` that the guest makes for the moment.
    fn pack<W: Write>(&self, out: W) -> io::Result<W> {
        let mut tar = tar::Builder::new(out);
        let sums: String =
            self.send.iter().map(|file| format!("{}  {}\n", file.digest, blob_name(file))).collect();
        small(&mut tar, "sums", sums.as_bytes(), BLOB_TIME)?;
        small(&mut tar, "stamp", b"", BLOB_TIME + 1)?;
        let (mut holey, mut list) = (BTreeSet::new(), String::new());
        for file in &self.send {
            if blob(&mut tar, file)? == Sent::InParts {
                list.push_str(&format!("{} {}\n", blob_name(file), file.size));
                holey.insert(blob_name(file));
            }
        }
        small(&mut tar, "sparse", list.as_bytes(), BLOB_TIME)?;
        let new: BTreeSet<String> = self.send.iter().map(blob_name).collect();
        let mut later = String::new();
        for package in &self.set.packages {
            let mut header = header(tar::EntryType::Directory, 0, 0o755, BLOB_TIME);
            tar.append_data(&mut header, format!("tree/{}/", package.workdir), io::empty())?;
        }
        for file in &self.set.files {
            let name = blob_name(file);
            if holey.contains(&name) {
                later.push_str(&format!("{name} {}\n", file.dest));
                continue;
            }
            let place = if new.contains(&name) { "blobs" } else { "store" };
            let mut header = header(tar::EntryType::Link, 0, file.mode, BLOB_TIME);
            tar.append_link(&mut header, format!("tree/{}", file.dest), format!("{place}/{name}"))?;
        }
        for link in &self.set.links {
            let mut header = header(tar::EntryType::Symlink, 0, 0o777, BLOB_TIME);
            tar.append_link(&mut header, format!("tree/{}", link.dest), &link.target)?;
        }
        small(&mut tar, "later", later.as_bytes(), BLOB_TIME)?;
        small(&mut tar, "complete", b"", BLOB_TIME)?;
        tar.into_inner()
    }
}

fn small<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8], time: u64) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, bytes.len() as u64, 0o644, time);
    tar.append_data(&mut header, name, bytes)
}

/// So many bytes of a file; that it has fewer is an error.
struct Whole<'a> {
    file: &'a mut File,
    left: u64,
}

impl io::Read for Whole<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let read = self.file.read(&mut buf[..most])?;
        self.left -= read as u64;
        if read == 0 && most > 0 {
            return Err(io::Error::other("it changed since it was read"));
        }
        Ok(read)
    }
}

/// How a blob went into the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    InParts,
}

fn blob<W: Write>(tar: &mut tar::Builder<W>, file: &ShipFile) -> io::Result<Sent> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot send `{}`: {error}", file.source.display()))
    };
    let mut content = File::open(&file.source).map_err(named)?;
    if content.metadata().map_err(named)?.len() != file.size {
        return Err(named(io::Error::other("it changed since it was read")));
    }
    let name = blob_name(file);
    if let Some(parts) = sparse::parts(&content, file.size).map_err(named)? {
        for (offset, length) in parts {
            let mut header = header(tar::EntryType::Regular, length, 0o600, BLOB_TIME);
            content.seek(io::SeekFrom::Start(offset)).map_err(named)?;
            let part = Whole { file: &mut content, left: length };
            tar.append_data(&mut header, format!("parts/{name}/{}", offset / sparse::BLOCK), part)
                .map_err(named)?;
        }
        return Ok(Sent::InParts);
    }
    content.rewind().map_err(named)?;
    let mut header = header(tar::EntryType::Regular, file.size, file.mode, BLOB_TIME);
    tar.append_data(&mut header, format!("blobs/{name}"), Whole { file: &mut content, left: file.size })
        .map_err(named)?;
    Ok(Sent::Whole)
}
