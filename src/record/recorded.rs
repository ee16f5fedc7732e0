//! A run that was recorded: found by its id, a part of it, its folder, or a file it was exported to.

use std::fs::File;
use std::io::BufReader;
use std::path::{Component, Path, PathBuf};

use kmt_reporters::event::{Envelope, LogError, LogReader};
use kmt_reporters::model::Run;
use tempfile::TempDir;

use crate::error::{Failure, Result};
use crate::settings::Home;

/// Most files and bytes an exported run may unpack to: it comes from elsewhere.
const MOST_FILES: usize = 100_000;
const MOST_BYTES: u64 = 8 << 30;

/// Runs that an error names.
const NAMED: usize = 5;

/// A run on disk.
#[derive(Debug)]
pub struct Recorded {
    folder: PathBuf,
    /// Where it was unpacked; gone with it.
    _unpacked: Option<TempDir>,
}

impl Recorded {
    /// The run of that name; without a name the latest.
    ///
    /// # Errors
    /// There is no such run, or several.
    pub fn find(home: &Home, name: Option<&str>) -> Result<Recorded> {
        let folder = match name {
            None | Some("latest") => latest(&home.runs())?,
            Some(name) => {
                let path = Path::new(name);
                if path.is_file() && name.ends_with(".zst") {
                    return unpack(path);
                }
                if path.join("events.jsonl").is_file() {
                    path.canonicalize().map_err(|error| Failure::file("open", path, &error))?
                } else if path.file_name().is_some_and(|file| file == "events.jsonl") && path.is_file() {
                    let path = path.canonicalize().map_err(|error| Failure::file("open", path, &error))?;
                    path.parent().unwrap_or(&path).to_path_buf()
                } else {
                    named(&home.runs(), name)?
                }
            }
        };
        Ok(Recorded { folder, _unpacked: None })
    }

    /// The run that was recorded before this one.
    ///
    /// # Errors
    /// There is none.
    pub fn before(&self, home: &Home) -> Result<Recorded> {
        let own = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match ids(&home.runs()).into_iter().rfind(|id| *id < own) {
            Some(id) => Ok(Recorded { folder: home.runs().join(id), _unpacked: None }),
            None => Err(Failure::usage(format!("no run was recorded before `{own}`"))),
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its facts, in order, read one by one.
    ///
    /// # Errors
    /// The log cannot be read; also later.
    pub fn facts(&self) -> Result<impl Iterator<Item = Result<Envelope>> + use<>> {
        let path = self.folder.join("events.jsonl");
        let file = File::open(&path).map_err(|error| Failure::file("read", &path, &error))?;
        let facts = LogReader::new(BufReader::new(file));
        Ok(facts.map(move |fact| fact.map_err(|error| unreadable(&path, &error))))
    }

    /// What its facts come to.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn run(&self) -> Result<Run> {
        let mut run = Run::new();
        for fact in self.facts()? {
            run.fold(&fact?);
        }
        Ok(run)
    }
}

fn unreadable(path: &Path, error: &LogError) -> Failure {
    let failure = Failure::usage(format!("`{}` is not an event log of this version", path.display()));
    let failure = failure.caused_by(error);
    match std::error::Error::source(error) {
        Some(why) => failure.caused_by(why),
        None => failure,
    }
}

/// Ids of all runs, the newest last.
fn ids(runs: &Path) -> Vec<String> {
    let listed = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let mut ids: Vec<String> = listed
        .filter(|entry| entry.file_name() != "latest" && entry.path().join("events.jsonl").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    ids.sort();
    ids
}

fn latest(runs: &Path) -> Result<PathBuf> {
    if let Ok(folder) = runs.join("latest").canonicalize()
        && folder.join("events.jsonl").is_file()
    {
        return Ok(folder);
    }
    match ids(runs).pop() {
        Some(id) => Ok(runs.join(id)),
        None => Err(Failure::usage(format!("no run is recorded in `{}`", runs.display()))
            .hint("`kmt-run run` records one; or name a folder, or a file of `report --export`")),
    }
}

/// The one run whose id is `name`, begins with it, or ends with it.
fn named(runs: &Path, name: &str) -> Result<PathBuf> {
    let ids = ids(runs);
    let exact = ids.iter().filter(|id| *id == name).count();
    let meant = |id: &&String| match exact {
        0 => id.starts_with(name) || id.ends_with(name),
        _ => *id == name,
    };
    let meant: Vec<&String> = ids.iter().filter(meant).collect();
    if let [id] = meant[..]
        && !name.is_empty()
    {
        return Ok(runs.join(id));
    }
    let (failure, known) = match meant.is_empty() {
        true => (Failure::usage(format!("no run `{}`", name.escape_debug())), ids.iter().collect()),
        false => (Failure::usage(format!("`{name}` may be any of {} runs", meant.len())), meant),
    };
    let newest: Vec<&str> = known.iter().rev().take(NAMED).map(|id| id.as_str()).collect();
    Err(match newest.is_empty() {
        true => failure.hint(format!("no run is recorded in `{}`", runs.display())),
        false => failure.hint(format!("the newest: {}", newest.join(", "))),
    })
}

/// Unpacks what `report --export` wrote. The file may come from anybody: nothing leaves the folder.
fn unpack(file: &Path) -> Result<Recorded> {
    let bad = |why: String| {
        Failure::usage(format!("`{}` is not an exported run", file.display()))
            .caused_by(why)
            .hint("`kmt-run report RUN --export FILE.tar.zst` writes one")
    };
    let read = |error: std::io::Error| bad(error.to_string());
    let folder = tempfile::Builder::new().prefix("kmt-run-").tempdir().map_err(read)?;
    let input = File::open(file).map_err(|error| Failure::file("read", file, &error))?;
    let mut archive = tar::Archive::new(zstd::Decoder::new(input).map_err(read)?);
    let (mut files, mut bytes) = (0, 0_u64);
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        let path = entry.path().map_err(read)?.into_owned();
        files += 1;
        bytes = bytes.saturating_add(entry.size());
        if files > MOST_FILES || bytes > MOST_BYTES {
            return Err(bad(format!("it has more than {MOST_FILES} files or {} GiB", MOST_BYTES >> 30)));
        }
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(bad(format!(
                "the path `{}` leaves its folder",
                path.display().to_string().escape_debug()
            )));
        }
        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_dir() {
            return Err(bad(format!("`{}` is no ordinary file", path.display().to_string().escape_debug())));
        }
        entry.unpack_in(folder.path()).map_err(read)?;
    }
    let inner = std::fs::read_dir(folder.path()).map_err(read)?.flatten().map(|entry| entry.path());
    let run = inner.into_iter().find(|path| path.join("events.jsonl").is_file());
    let Some(run) = run else { return Err(bad("it holds no event log".to_owned())) };
    Ok(Recorded { folder: run, _unpacked: Some(folder) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(ids: &[&str]) -> (TempDir, Home) {
        let temp = tempfile::tempdir().unwrap();
        for id in ids {
            std::fs::create_dir_all(temp.path().join("runs").join(id)).unwrap();
            std::fs::write(temp.path().join("runs").join(id).join("events.jsonl"), "").unwrap();
        }
        let home = Home::at(temp.path());
        (temp, home)
    }

    #[test]
    fn a_run_is_found_by_any_part_that_means_one() {
        let (temp, home) =
            home(&["20261122T100000Z-aaaaaa", "20261122T110000Z-aabbbb", "20261123T100000Z-cccccc"]);
        let found = |name: Option<&str>| Recorded::find(&home, name).map(|run| run.folder().to_path_buf());
        let at = |id: &str| temp.path().join("runs").join(id);
        assert_eq!(found(None).unwrap(), at("20261123T100000Z-cccccc"));
        assert_eq!(found(Some("20261123")).unwrap(), at("20261123T100000Z-cccccc"));
        assert_eq!(found(Some("aabbbb")).unwrap(), at("20261122T110000Z-aabbbb"));
        let folder = at("20261122T100000Z-aaaaaa");
        assert_eq!(found(folder.to_str()).unwrap(), folder.canonicalize().unwrap());
        assert_eq!(found(Some("20261122")).unwrap_err().message, "`20261122` may be any of 2 runs");
        assert_eq!(found(Some("nope")).unwrap_err().message, "no run `nope`");
        assert!(found(Some("")).is_err());
        let latest = Recorded::find(&home, None).unwrap();
        assert_eq!(latest.before(&home).unwrap().folder(), at("20261122T110000Z-aabbbb"));
        let first = Recorded::find(&home, Some("aaaaaa")).unwrap();
        assert!(first.before(&home).is_err());
    }

    #[test]
    fn no_run_is_a_clear_error() {
        let (_temp, home) = home(&[]);
        assert!(Recorded::find(&home, None).unwrap_err().message.starts_with("no run is recorded in"));
    }

    fn archive(build: impl FnOnce(&mut tar::Builder<zstd::Encoder<'_, Vec<u8>>>)) -> tempfile::TempPath {
        let mut builder = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
        build(&mut builder);
        let bytes = builder.into_inner().unwrap().finish().unwrap();
        let file = tempfile::Builder::new().suffix(".tar.zst").tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file.into_temp_path()
    }

    fn header(size: u64, kind: tar::EntryType) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_entry_type(kind);
        header
    }

    #[test]
    fn what_comes_from_elsewhere_stays_in_its_folder() {
        let home = Home::at(Path::new("/nonexistent"));
        let link = archive(|builder| {
            let mut header = header(0, tar::EntryType::Symlink);
            builder.append_link(&mut header, "run/output", "/etc").unwrap();
        });
        let outside = archive(|builder| {
            let mut header = header(1, tar::EntryType::Regular);
            header.as_gnu_mut().unwrap().name[..9].copy_from_slice(b"../escape");
            header.set_cksum();
            builder.append(&header, &b"x"[..]).unwrap();
        });
        let empty = archive(|_| {});
        for (file, why) in
            [(&link, "no ordinary file"), (&outside, "leaves its folder"), (&empty, "no event log")]
        {
            let failure = Recorded::find(&home, file.to_str()).unwrap_err();
            assert!(failure.message.ends_with("is not an exported run"), "{failure:?}");
            assert!(failure.causes[0].contains(why), "{failure:?}");
        }
    }

    #[test]
    fn a_cut_file_is_no_exported_run() {
        let whole = archive(|builder| {
            let mut header = header(200_000, tar::EntryType::Regular);
            let noise: Vec<u8> =
                (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            builder.append_data(&mut header, "run/events.jsonl", &noise[..]).unwrap();
        });
        let bytes = std::fs::read(&whole).unwrap();
        std::fs::write(&whole, &bytes[..bytes.len() / 2]).unwrap();
        assert!(Recorded::find(&Home::at(Path::new("/nonexistent")), whole.to_str()).is_err());
    }
}
