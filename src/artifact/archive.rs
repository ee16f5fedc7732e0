//! Archives of finished test binaries, unpacked once: `<cache>/archives/<sha256>/`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::cache;
use crate::error::{Failure, Kind, Result};

/// The folder that `path` is, or that the tar archive `path` holds.
///
/// # Errors
/// It is neither, or cannot be unpacked.
pub fn folder_of(path: &Path, cache: &Path) -> Result<PathBuf> {
    if !path.is_file() {
        return Ok(path.to_owned());
    }
    let failed = |error: io::Error| {
        Failure::new(Kind::Build, format!("cannot unpack `{}`", path.display()))
            .caused_by(error)
            .hint("an archive of test binaries is a tar file, as it is or compressed by gzip")
    };
    let (digest, _) = cache::digest(path).map_err(failed)?;
    let folder = cache.join("archives").join(digest);
    if folder.is_dir() {
        return Ok(folder);
    }
    let new = folder.with_extension(format!("new-{}", uuid::Uuid::new_v4().simple()));
    let unpacked = unpack(path, &new).and_then(|()| match fs::rename(&new, &folder) {
        // Another run was faster.
        Err(_) if folder.is_dir() => fs::remove_dir_all(&new),
        renamed => renamed,
    });
    if unpacked.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    unpacked.map_err(failed)?;
    Ok(folder)
}

/// Unpacks below `folder`; names that lead out of it are left out, as tar does.
fn unpack(path: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut start = [0; 2];
    let short = File::open(path)?.read(&mut start)? < 2;
    let file = io::BufReader::new(File::open(path)?);
    let gzip = !short && start == [0x1f, 0x8b];
    let stream: Box<dyn Read> =
        if gzip { Box::new(flate2::read::GzDecoder::new(file)) } else { Box::new(file) };
    let mut archive = tar::Archive::new(stream);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(false);
    archive.unpack(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_unpacked_once_and_rubbish_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (archive, cache) = (temp.path().join("tests.tar.gz"), temp.path().join("cache"));
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
            File::create(&archive).unwrap(),
            flate2::Compression::fast(),
        ));
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o755);
        tar.append_data(&mut header, "a/testsuite", &b"hi"[..]).unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        let folder = folder_of(&archive, &cache).unwrap();
        assert_eq!(fs::read_to_string(folder.join("a/testsuite")).unwrap(), "hi");
        assert_eq!(folder_of(&archive, &cache).unwrap(), folder);
        assert_eq!(folder_of(temp.path(), &cache).unwrap(), temp.path());
        fs::write(&archive, "rubbish that is no archive at all".repeat(40)).unwrap();
        assert!(folder_of(&archive, &cache).is_err());
        assert_eq!(fs::read_dir(cache.join("archives")).unwrap().count(), 1);
    }
}
