//! What a build says, as it comes, in a file of the record.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

/// Takes the lines of a build.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<Mutex<File>>,
}

impl Log {
    /// Keeps nothing.
    pub fn nowhere() -> Log {
        Log::default()
    }

    /// Writes to a file, and makes its folder; where that cannot be, nothing is kept.
    pub fn at(path: &Path) -> Log {
        let folder = path.parent().map(fs::create_dir_all);
        let file = File::options().create(true).append(true).open(path);
        Log { file: file.ok().filter(|_| folder.is_none_or(|made| made.is_ok())).map(Mutex::new) }
    }

    /// Takes a line without its end, or several.
    pub(super) fn line(&self, line: &str) {
        if let Some(Ok(mut file)) = self.file.as_ref().map(|file| file.lock()) {
            // A log that cannot be written keeps no build from ending.
            let _ = writeln!(file, "{line}");
        }
    }
}
