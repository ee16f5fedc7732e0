//! The gate's group `user`: root runs the live tests once more as an ordinary user that it makes and removes.
//!
//! The user gets copies of the repository and of the two programs under its home, since root's own may lie
//! where nobody else can read; the images are linked, not built again. A live test therefore asks the
//! *environment* where things are (`CARGO_MANIFEST_DIR`, `CARGO_BIN_EXE_kmt-run`, as cargo and nextest set
//! them for a running test) before it believes what was compiled in. Nothing else of root's environment is
//! passed on.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::groups::{Clock, Stories, WHOLE, live_tests, target};
use crate::process::{check, command, output, processes, signal, succeeds, words};
use crate::{host, setup, tasks};

/// The user's name.
const NAME: &str = "kmt-test";
/// How we know it as ours: a user of that name with another comment is never touched.
const COMMENT: &str = "made by cargo xtask test of kmt-run";

/// Stories that only root's turn tells so far.
const ROOT_ONLY: [&str; 6] = ["full::", "hosts::", "page::", "reach::", "rented::", "stack::"];

/// Makes the user, runs the live tests as it, and removes it with all its processes, however that went.
pub(crate) fn as_ordinary_user(clock: &Clock) -> Result<(), String> {
    if !host::is_root() {
        return clock.check(&mut live_tests(Stories::Gate));
    }
    let _one_at_a_time = setup::lock("/run/kmt-run-user.lock");
    let test = build(clock)?;
    let user = User::make()?;
    user.furnish(&test).map_err(|error| format!("cannot furnish {}: {error}", user.home.display()))?;
    clock.check(&mut user.call())
}

/// Builds kmt-run and the live tests; the path of the test program.
fn build(clock: &Clock) -> Result<PathBuf, String> {
    let line = || {
        let mut child = words(&["cargo", "test", "--test", "live", "--no-run"]);
        child.args(WHOLE);
        child
    };
    clock.check(&mut line())?;
    let messages = output(line().args(["--quiet", "--message-format", "json"])).unwrap_or_default();
    test_program(&messages).ok_or_else(|| "cargo does not say where the test `live` lies".to_owned())
}

/// The program of the test target `live` in cargo's messages, one JSON object a line.
fn test_program(messages: &str) -> Option<PathBuf> {
    let wanted = messages.lines().find(|line| {
        line.contains(r#""reason":"compiler-artifact""#)
            && line.contains(r#""kind":["test"]"#)
            && line.contains(r#""name":"live""#)
    })?;
    let (_, rest) = wanted.split_once(r#""executable":""#)?;
    Some(PathBuf::from(rest.split('"').next()?))
}

/// The ordinary user; goes, with all it runs and owns, when this goes.
struct User {
    id: u32,
    group: u32,
    home: PathBuf,
}

impl User {
    fn make() -> Result<Self, String> {
        if let Some(left_over) = Self::find()? {
            println!("removing user {NAME}, left over from a run that was killed");
            drop(left_over);
        }
        let mut add = words(&["useradd", "--create-home", "--shell", "/bin/sh", "--comment", COMMENT]);
        if host::group_id("kvm").is_some() {
            add.args(["--groups", "kvm"]);
        }
        check(add.arg(NAME))?;
        let user = Self::find()?.ok_or_else(|| format!("user {NAME} was made and is not there"))?;
        setup::give_subids(NAME)?;
        Ok(user)
    }

    /// The user, if there is one; an error when somebody else made a user of that name.
    fn find() -> Result<Option<Self>, String> {
        let row = output(&mut words(&["getent", "passwd", NAME])).unwrap_or_default();
        Ok(parse_passwd(&row)?.map(|(id, group, home)| Self { id, group, home }))
    }

    fn repository(&self) -> PathBuf {
        self.home.join("repository")
    }

    fn kmt_home(&self) -> PathBuf {
        self.home.join("kmt")
    }

    fn program(&self, name: &str) -> PathBuf {
        self.home.join("bin").join(name)
    }

    /// Copies what the tests need under the user's home, and links the images.
    fn furnish(&self, test: &Path) -> io::Result<()> {
        for folder in [self.home.join("bin"), self.kmt_home()] {
            fs::create_dir_all(&folder)?;
            self.own(&folder)?;
        }
        self.copy(&target().join("debug/kmt-run"), &self.program("kmt-run"))?;
        self.copy(test, &self.program("live"))?;
        self.bring(&tasks::repository(), &self.repository(), Bring::Copy)?;
        let images = host::kmt_home().join("images");
        if images.is_dir() {
            self.bring(&images, &self.kmt_home().join("images"), Bring::Link)?;
        }
        Ok(())
    }

    /// Brings a folder, but not git's own nor one that says it is a cache (cargo's `target` does).
    fn bring(&self, from: &Path, to: &Path, how: Bring) -> io::Result<()> {
        fs::create_dir_all(to)?;
        self.own(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (source, copy, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
            if kind.is_symlink() {
                symlink(fs::read_link(&source)?, &copy)?;
            } else if kind.is_dir() && entry.file_name() != ".git" && !source.join("CACHEDIR.TAG").exists() {
                self.bring(&source, &copy, how)?;
            } else if kind.is_file() && entry.file_name() != ".git" {
                let may_read = entry.metadata()?.mode() & 0o004 != 0;
                // A link shares its owner with root's file, so it is only read: all that an image is for.
                if how == Bring::Copy || !may_read || fs::hard_link(&source, &copy).is_err() {
                    self.copy(&source, &copy)?;
                }
            }
        }
        Ok(())
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::copy(from, to)?;
        self.own(to)
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.id), Some(self.group))
    }

    /// The call of the tests: in the copy of the repository, with nothing of root's environment.
    fn call(&self) -> Command {
        let mut child = words(&["/usr/sbin/runuser", "-u", NAME, "--"]);
        child.arg(self.program("live")).arg("--test-threads=1").stdin(Stdio::null());
        child.args(ROOT_ONLY.iter().chain(&["soak::"]).flat_map(|room| ["--skip", *room]));
        child.current_dir(self.repository()).env_clear();
        child.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8").env("RUST_BACKTRACE", "1");
        child.env("HOME", &self.home).env("USER", NAME).env("LOGNAME", NAME);
        child.env("KMT_HOME", self.kmt_home()).env("CARGO_MANIFEST_DIR", self.repository());
        for name in ["CARGO_BIN_EXE_kmt-run", "NEXTEST_BIN_EXE_kmt-run"] {
            child.env(name, self.program("kmt-run"));
        }
        child
    }

    /// The user's processes, and those under its subordinate ids.
    fn processes(&self) -> Vec<u32> {
        let ids = host::subid_range("/etc/subuid", NAME).unwrap_or(0..0);
        let is_its = |uid: u32| uid == self.id || ids.contains(&u64::from(uid));
        processes().filter(|pid| owner(*pid).is_some_and(is_its)).collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for name in ["TERM", "TERM", "KILL", "KILL", "KILL"] {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            signal(name, &left);
            thread::sleep(Duration::from_millis(400));
        }
        // userdel leaves what is not the user's own: files under its subordinate ids, our links to images.
        if self.home.ends_with(NAME) {
            succeeds(command("rm").args(["-rf", "--one-file-system", "--"]).arg(&self.home));
        }
        if let Err(error) = check(words(&["userdel", NAME]).stdout(Stdio::null())) {
            eprintln!("warning: user {NAME} is left over: {error}");
        }
    }
}

/// How a tree is brought to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bring {
    /// The user's own files.
    Copy,
    /// Root's files by another name, where they may be read and lie on the same file system.
    Link,
}

/// The real user id of a process that is not a zombie.
fn owner(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    if status.contains("\nState:\tZ") {
        return None;
    }
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

/// Reads a row of `/etc/passwd`: user, group and home of our user, nothing, or an error for somebody else's.
fn parse_passwd(row: &str) -> Result<Option<(u32, u32, PathBuf)>, String> {
    if row.trim().is_empty() {
        return Ok(None);
    }
    let fields: Vec<&str> = row.trim().split(':').collect();
    if fields.get(4).map(|comment| comment.trim_end_matches(',')) != Some(COMMENT) {
        return Err(format!("user {NAME} exists and is not ours: its comment is not `{COMMENT}`"));
    }
    let number =
        |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok()).filter(|id| *id != 0);
    match (number(2), number(3), fields.get(5)) {
        (Some(id), Some(group), Some(home)) => Ok(Some((id, group, PathBuf::from(home)))),
        _ => Err(format!("cannot read `{}`", row.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_where_the_test_lies() {
        let lib =
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"live"},"executable":null}"#;
        let other = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"build"},"executable":"/t/build-1"}"#;
        let live = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"live"},"executable":"/t/live-2","fresh":true}"#;
        assert_eq!(test_program(&[lib, other, live].join("\n")), Some(PathBuf::from("/t/live-2")));
        assert_eq!(test_program(&[lib, other].join("\n")), None);
    }

    #[test]
    fn only_a_user_with_our_comment_is_ours() {
        assert_eq!(parse_passwd(""), Ok(None));
        let ours = format!("{NAME}:x:1001:1002:{COMMENT},,,:/home/{NAME}:/bin/sh\n");
        assert_eq!(parse_passwd(&ours), Ok(Some((1001, 1002, PathBuf::from("/home/kmt-test")))));
        assert!(parse_passwd("kmt-test:x:1001:1001:Kim M. Tester:/home/kmt-test:/bin/sh").is_err());
        assert!(parse_passwd(&format!("{NAME}:x:0:0:{COMMENT}:/root:/bin/sh")).is_err());
    }
}
