//! Published files of a scripted world, with the faults that servers have.

use std::io::Read as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Head, Piece, Rest, Store, Take};
use crate::external::scripted::Stage;
use crate::external::{Class, Error, Result};

/// Bytes that come at once.
const PIECE: usize = 64;

/// A file that is published: its sum and its manifest lie beside it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Published {
    /// The end of its address, such as `ubuntu-22.04-x86_64.qcow2.xz`.
    pub name: String,
    /// What is in it, before it is packed (where the name ends in `.xz` or `.zst`): the first to the first command that
    /// asks for its sum, the second to the second; the last stays.
    pub content: Vec<String>,
    /// What its server does wrong.
    #[serde(default)]
    pub fault: Wrong,
    /// Text of its manifest; none where it is empty.
    #[serde(default)]
    pub manifest: String,
}

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// Nothing.
    #[default]
    Nothing,
    /// It does not have the file.
    Missing,
    /// It does not give it.
    Forbidden,
    /// It answers with a web page.
    Page,
    /// The file is not what its sum says.
    WrongSum,
    /// The sum is no sum.
    NoSum,
    /// The file lost its end, and the server does not know.
    Truncated,
    /// The connection breaks in the middle of the file, each second time.
    Breaks,
    /// The same, and the server has no ranges.
    BreaksWithoutRanges,
    /// The disk of this machine is full before the end.
    DiskFull,
}

/// The server.
#[derive(Debug, Default)]
pub struct FakeStore {
    files: Vec<Published>,
    stage: Option<Arc<Stage>>,
    /// Which content this process sees, by file.
    seen: Mutex<std::collections::BTreeMap<String, usize>>,
    /// Contents that were chosen without a stage, and transfers that may break.
    chosen: AtomicU32,
    transfers: AtomicU32,
    calls: Mutex<Vec<String>>,
}

impl FakeStore {
    /// A server with these files, on a stage where there is one.
    pub fn new(files: Vec<Published>, stage: Option<Arc<Stage>>) -> FakeStore {
        FakeStore { files, stage, ..FakeStore::default() }
    }

    /// What was asked, in order.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn called(&self, call: &'static str, url: &str) {
        let name = url.rsplit('/').next().unwrap_or(url);
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{call} {name}"));
        self.step("before", call, name);
    }

    fn step(&self, when: &str, call: &str, name: &str) {
        if let Some(stage) = &self.stage {
            stage.step(when, call, name);
        }
    }

    fn file(&self, url: &str) -> Result<&Published> {
        let name = url.rsplit('/').next().unwrap_or(url);
        let found = self.files.iter().find(|file| file.name == name);
        let refuse =
            |class, what| Err(Error::new("the image store", "fetch", url, class, what).hint("mend it"));
        match found {
            None => refuse(Class::NotFound, "it answered 404 Not Found"),
            Some(file) => match file.fault {
                Wrong::Missing => refuse(Class::NotFound, "it answered 404 Not Found"),
                Wrong::Forbidden => refuse(Class::Denied, "it answered 403 Forbidden"),
                Wrong::Page => refuse(Class::Unintelligible, "it answered with a web page"),
                _ => Ok(file),
            },
        }
    }

    /// The bytes as they are published now.
    fn bytes(&self, file: &Published) -> Vec<u8> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let at = *seen.entry(file.name.clone()).or_insert_with(|| {
            let count = self
                .stage
                .as_ref()
                .map_or_else(|| self.chosen.fetch_add(1, Ordering::Relaxed), |stage| stage.count(&file.name));
            (count as usize).min(file.content.len().saturating_sub(1))
        });
        let content = file.content.get(at).map(String::as_bytes).unwrap_or_default();
        packed(&file.name, content)
    }
}

/// A text as a file of that name is packed.
fn packed(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // In memory nothing fails.
    let _ = match name.rsplit('.').next() {
        Some("xz") => liblzma::read::XzEncoder::new(content, 6).read_to_end(&mut bytes).map(drop),
        Some("zst") => zstd::encode_all(content, 3).map(|packed| bytes = packed),
        _ => {
            bytes = content.to_vec();
            Ok(())
        }
    };
    bytes
}

#[async_trait]
impl Store for FakeStore {
    async fn text(&self, url: &str) -> Result<String> {
        self.called("text", url);
        tokio::task::yield_now().await;
        if let Some(stem) = url.strip_suffix(".manifest") {
            let stem = stem.rsplit('/').next().unwrap_or(stem);
            let file =
                self.files.iter().find(|file| file.name.starts_with(stem) && !file.manifest.is_empty());
            return file.map(|file| file.manifest.clone()).ok_or_else(|| {
                Error::new("the image store", "fetch", url, Class::NotFound, "it answered 404 Not Found")
            });
        }
        let of = url.strip_suffix(".sum").unwrap_or(url);
        let beside = format!("{of}.tar");
        let file = self.file(of).or_else(|error| self.file(&beside).map_err(|_| error))?;
        Ok(match file.fault {
            Wrong::NoSum => "no such thing\n".to_owned(),
            Wrong::WrongSum => format!("{}  {}\n", "0".repeat(64), file.name),
            _ => format!("{}  {}\n", hex::encode(Sha256::digest(self.bytes(file))), file.name),
        })
    }

    async fn size(&self, url: &str) -> Result<Option<u64>> {
        self.called("size", url);
        let file = self.file(url)?;
        Ok(Some(self.bytes(file).len() as u64))
    }

    async fn fetch(&self, url: &str, rest: &Rest, take: Take<'_>) -> Result<()> {
        self.called(if rest.from == 0 { "fetch" } else { "fetch the rest of" }, url);
        let file = self.file(url)?;
        let mut bytes = self.bytes(file);
        let mark = hex::encode(Sha256::digest(&bytes));
        if file.fault == Wrong::Truncated {
            bytes.truncate(bytes.len() / 2);
        }
        let known = rest.validator.as_ref() == Some(&mark) && file.fault != Wrong::BreaksWithoutRanges;
        let from = if known { rest.from.min(bytes.len() as u64) } else { 0 };
        let head = Head { from, total: Some(bytes.len() as u64), validator: Some(mark) };
        let broken = |why: &std::io::Error| Error::io("this machine", "keep", url, why);
        take(Piece::Head(&head)).map_err(|why| broken(&why))?;
        let breaks = matches!(file.fault, Wrong::Breaks | Wrong::BreaksWithoutRanges)
            && self.transfers.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let pieces = bytes[from as usize..].chunks(PIECE);
        let middle = pieces.len() / 2;
        for (number, piece) in pieces.enumerate() {
            tokio::task::yield_now().await;
            if breaks && number >= middle {
                return Err(Error::new(
                    "the image store",
                    "fetch",
                    url,
                    Class::Unreachable,
                    "the connection broke",
                ));
            }
            if file.fault == Wrong::DiskFull && number >= middle {
                return Err(broken(&std::io::ErrorKind::StorageFull.into()));
            }
            take(Piece::Bytes(piece)).map_err(|why| broken(&why))?;
            self.step("after", "piece", &file.name);
        }
        Ok(())
    }
}
