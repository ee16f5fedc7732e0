//! A file that is written while the next of it arrives: pieces as the network gave them, many in one go.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::path::Path;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

/// As many bytes are written in one go, about.
const BATCH: usize = 512 << 10;

/// Writes a file from its beginning.
pub(super) struct Writer {
    /// The file, while it is not being written.
    file: Option<File>,
    writing: Option<JoinHandle<io::Result<File>>>,
    held: Vec<Bytes>,
    size: usize,
}

impl Writer {
    /// Makes the file, or empties it.
    pub(super) async fn create(path: &Path) -> io::Result<Writer> {
        let path = path.to_owned();
        let file = spawn_blocking(move || File::create(path)).await??;
        Ok(Writer { file: Some(file), writing: None, held: Vec::new(), size: 0 })
    }

    /// Takes a piece. What an earlier one met is said here or at the end.
    pub(super) async fn write(&mut self, piece: Bytes) -> io::Result<()> {
        self.size += piece.len();
        self.held.push(piece);
        if self.size < BATCH { Ok(()) } else { self.send().await }
    }

    /// Waits until all is in the file.
    pub(super) async fn end(mut self) -> io::Result<()> {
        self.send().await?;
        self.idle().await.map(drop)
    }

    /// The file, when what was given last is in it.
    async fn idle(&mut self) -> io::Result<File> {
        match (self.file.take(), self.writing.take()) {
            (Some(file), _) => Ok(file),
            (None, Some(writing)) => writing.await?,
            (None, None) => Err(io::Error::other("an earlier write failed")),
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        let mut file = self.idle().await?;
        let pieces = std::mem::take(&mut self.held);
        self.size = 0;
        self.writing = Some(spawn_blocking(move || {
            let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut left = slices.as_mut_slice();
            while left.iter().any(|slice| !slice.is_empty()) {
                match file.write_vectored(left) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => IoSlice::advance_slices(&mut left, written),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(file)
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_come_in_order_whatever_their_size() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        let mut writer = Writer::create(&path).await.unwrap();
        let mut whole = Vec::new();
        for number in 0..3000_usize {
            let piece = vec![u8::try_from(number % 251).unwrap(); number % 1000];
            whole.extend_from_slice(&piece);
            writer.write(piece.into()).await.unwrap();
        }
        writer.end().await.unwrap();
        assert!(whole.len() > 2 * BATCH);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }

    #[tokio::test]
    async fn a_full_disk_is_said_at_the_end_if_not_before() {
        let mut writer = Writer::create(Path::new("/dev/full")).await.unwrap();
        writer.write(vec![1; 10].into()).await.unwrap();
        assert_eq!(writer.end().await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
