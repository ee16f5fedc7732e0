//! The bytes of a published file: gone on with where they broke off, and right or not there.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::error::ImageError;
use super::super::manifest::{sync_folder, write_whole};
use super::{Published, change};
use crate::external::store::{Piece, Rest, Store};
use crate::external::{self, Class};

/// How often a file is asked for without a new byte of it.
const TRIES: u32 = 4;
/// Pause before the second try; the next is twice as long.
const PAUSE: Duration = Duration::from_millis(300);

/// Hears how many bytes are there, of how many.
pub(super) type Heard<'a> = &'a (dyn Fn(u64, Option<u64>) + Send + Sync);

/// What lies beside a part of a file: of which one it is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Mark {
    validator: Option<String>,
}

/// A file on its way.
struct Partial {
    path: PathBuf,
    file: File,
    digest: Sha256,
    length: u64,
    mark: Mark,
    /// Whether bytes of an earlier process are in it.
    continued: bool,
}

impl Partial {
    /// Opens what is there, or nothing.
    fn open(path: PathBuf) -> Result<Partial, ImageError> {
        let mark = fs::read(beside(&path)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = options.map_err(ImageError::io("open", &path))?;
        let mut partial = Partial {
            path,
            file,
            digest: Sha256::new(),
            length: 0,
            mark: mark.unwrap_or_default(),
            continued: false,
        };
        match partial.mark.validator {
            None => partial.reset()?,
            Some(_) => partial.hash_what_is_there()?,
        }
        partial.continued = partial.length > 0;
        Ok(partial)
    }

    fn hash_what_is_there(&mut self) -> Result<(), ImageError> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    self.digest.update(&buffer[..read]);
                    self.length += read as u64;
                }
                Err(error) => return Err(ImageError::io("read", &self.path)(error)),
            }
        }
    }

    /// From the beginning again.
    fn reset(&mut self) -> Result<(), ImageError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(ImageError::io("empty", &self.path))?;
        (self.digest, self.length, self.mark, self.continued) = (Sha256::new(), 0, Mark::default(), false);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn remove(self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(beside(&self.path));
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// Fetches a file whose sha256 is `sum` into `folder`; what an earlier process fetched of it is gone on with.
pub(super) async fn download(
    store: &dyn Store,
    wanted: &Published,
    sum: &str,
    folder: &Path,
    heard: Heard<'_>,
) -> Result<PathBuf, ImageError> {
    let target = folder.join(sum);
    if target.exists() {
        return Ok(target);
    }
    fs::create_dir_all(folder).map_err(ImageError::io("make", folder))?;
    let mut partial = Partial::open(folder.join(format!("{sum}.part")))?;
    loop {
        transfer(store, wanted, &mut partial, heard).await?;
        let got = hex::encode(partial.digest.clone().finalize());
        if got == sum {
            break;
        }
        if !partial.continued {
            let (url, wanted, bytes) = (wanted.url.clone(), sum.to_owned(), partial.length);
            partial.remove();
            return Err(ImageError::Checksum { url, wanted, got, bytes });
        }
        // What an earlier process left may be to blame.
        partial.reset()?;
    }
    partial.file.sync_all().map_err(ImageError::io("sync", &partial.path))?;
    change("download", || fs::rename(&partial.path, &target))
        .map_err(ImageError::io("rename", &partial.path))?;
    let _ = fs::remove_file(beside(&partial.path));
    sync_folder(&target)?;
    Ok(target)
}

/// Fetches to the end, again where the connection breaks.
async fn transfer(
    store: &dyn Store,
    wanted: &Published,
    partial: &mut Partial,
    heard: Heard<'_>,
) -> Result<(), ImageError> {
    let mut tries = 0;
    loop {
        let before = partial.length;
        let Err(error) = attempt(store, wanted, partial, heard).await? else { return Ok(()) };
        tries = if partial.length > before { 1 } else { tries + 1 };
        if !matches!(error.class, Class::Unreachable | Class::Busy) || tries >= TRIES {
            return Err(ImageError::Fetch { image: wanted.name.clone(), source: Box::new(error) });
        }
        tokio::time::sleep(PAUSE * (1 << tries.min(4))).await;
    }
}

/// One request; the inner error is the server's, the outer one this machine's.
async fn attempt(
    store: &dyn Store,
    wanted: &Published,
    partial: &mut Partial,
    heard: Heard<'_>,
) -> Result<Result<(), external::Error>, ImageError> {
    let rest = Rest { from: partial.length, validator: partial.mark.validator.clone() };
    let (mut total, mut broken) = (None, None);
    let mut take = |piece: Piece<'_>| {
        let taken = match piece {
            Piece::Head(head) => {
                total = head.total;
                begin(partial, head)
            }
            Piece::Bytes(bytes) => partial.take(bytes).map_err(ImageError::io("write", &partial.path)),
        };
        heard(partial.length, total);
        taken.map_err(|error| {
            broken = Some(error);
            std::io::Error::other("this machine cannot keep it")
        })
    };
    let fetched = store.fetch(&wanted.url, &rest, &mut take).await;
    match (broken, fetched) {
        (Some(error), _) => Err(error),
        // Whoever sends ends too early, or the disk under us is full.
        (None, Err(error)) if error.system == "this machine" => {
            Err(ImageError::Fetch { image: wanted.name.clone(), source: Box::new(error) })
        }
        (None, fetched) => Ok(fetched),
    }
}

/// The head of an answer: what is there already counts only where it is gone on with.
fn begin(partial: &mut Partial, head: &crate::external::store::Head) -> Result<(), ImageError> {
    if head.from != partial.length {
        partial.reset()?;
    }
    if partial.length == 0 {
        partial.mark.validator.clone_from(&head.validator);
        let text = serde_json::to_vec(&partial.mark).unwrap_or_default();
        write_whole(&beside(&partial.path), &text)?;
    }
    Ok(())
}
