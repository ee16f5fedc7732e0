//! Children: run one, capture one, run one within a limit.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a child past its limit may tidy up.
const GRACE: Duration = Duration::from_secs(15);

/// Starts the description of a child.
#[expect(clippy::disallowed_methods, reason = "the xtask's only place that makes a child")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A child of these words: program first.
pub(crate) fn words(line: &[&str]) -> Command {
    let (program, arguments) = line.split_first().unwrap_or((&"false", &[]));
    let mut child = command(program);
    child.args(arguments);
    child
}

/// Runs a child on our terminal; an error when it cannot be started or does not end with 0.
pub(crate) fn check(child: &mut Command) -> Result<(), String> {
    let status = child.status().map_err(|error| format!("cannot start {}: {error}", line(child)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", line(child))) }
}

/// Runs a child silently: whether it ended with 0.
pub(crate) fn succeeds(child: &mut Command) -> bool {
    let status = child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// What a child printed; nothing when it cannot be started or prints something else than text.
pub(crate) fn output(child: &mut Command) -> Option<String> {
    let output = child.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()
}

/// The words of a child, as one reads them in a message.
pub(crate) fn line(child: &Command) -> String {
    let mut words = vec![child.get_program().to_string_lossy().into_owned()];
    words.extend(child.get_args().map(|word| word.to_string_lossy().into_owned()));
    format!("`{}`", words.join(" "))
}

/// Whether a program of this name lies on `PATH` or in a place for administrators.
pub(crate) fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(admin).any(|folder| folder.join(name).is_file())
}

/// Runs a child on our terminal for at most `limit`; then ends it with everything it started.
///
/// The child stays in our process group, so that Ctrl-C reaches it and it may read from the terminal.
pub(crate) fn within(child: &mut Command, limit: Duration) -> Result<(), String> {
    let text = line(child);
    let mut running = child.spawn().map_err(|error| format!("cannot start {text}: {error}"))?;
    match wait_until(&mut running, Instant::now() + limit) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(format!("{text} ended with {status}")),
        Ok(None) => {
            end_tree(&mut running, GRACE);
            Err(format!("{text} ran past its limit of {} s and was ended", limit.as_secs()))
        }
        Err(error) => Err(format!("cannot wait for {text}: {error}")),
    }
}

fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Asks a child to end, waits, and then kills it and whatever it left of its descendants.
fn end_tree(child: &mut Child, grace: Duration) {
    let before = descendants(child.id());
    signal("TERM", &[child.id()]);
    let ended = wait_until(child, Instant::now() + grace);
    let mut left: Vec<u32> =
        before.iter().filter(|(pid, start)| started(**pid) == Some(**start)).map(|(pid, _)| *pid).collect();
    if matches!(ended, Ok(None)) {
        left.extend(descendants(child.id()).keys());
        left.push(child.id());
    }
    signal("KILL", &left);
    let _ = child.wait();
}

/// Sends a signal to processes by id. Those that are gone are no error.
pub(crate) fn signal(name: &str, pids: &[u32]) {
    if !pids.is_empty() {
        succeeds(command("kill").arg(format!("-{name}")).args(pids.iter().map(u32::to_string)));
    }
}

/// Every process below `root`, with its start time, so that a reused id is not taken for the same process.
fn descendants(root: u32) -> BTreeMap<u32, u64> {
    let all: Vec<(u32, u32, u64)> =
        processes().filter_map(|pid| stat(pid).map(|(up, start)| (pid, up, start))).collect();
    let mut found = BTreeMap::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for (pid, _, start) in all.iter().filter(|(_, up, _)| *up == parent) {
            if found.insert(*pid, *start).is_none() {
                open.push(*pid);
            }
        }
    }
    found
}

/// The ids of all processes.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok())
}

fn stat(pid: u32) -> Option<(u32, u64)> {
    parse_stat(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

fn started(pid: u32) -> Option<u64> {
    stat(pid).map(|(_, start)| start)
}

/// Parent and start time of `/proc/PID/stat`. The name in brackets may hold blanks and brackets itself.
fn parse_stat(text: &str) -> Option<(u32, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse_stat() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1000 10";
        assert_eq!(parse_stat(text), Some((7, 98765)));
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn a_child_past_its_limit_is_ended_with_its_children() {
        // The shell and its children ignore TERM.
        let mut running =
            words(&["sh", "-c", "trap '' TERM; sleep 47 & sleep 48"]).spawn().expect("sh starts");
        thread::sleep(Duration::from_millis(300));
        let below = descendants(running.id());
        assert_eq!(below.len(), 2, "{below:?}");
        end_tree(&mut running, Duration::from_millis(100));
        thread::sleep(Duration::from_millis(200));
        let alive = |(pid, start): &(&u32, &u64)| started(**pid) == Some(**start) && !is_zombie(**pid);
        assert_eq!(below.iter().filter(alive).count(), 0, "{below:?}");
    }

    fn is_zombie(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| text.contains(") Z "))
    }

    #[test]
    fn limits_and_failures_are_told_apart() {
        assert_eq!(within(&mut words(&["true"]), Duration::from_secs(5)), Ok(()));
        let failed = within(&mut words(&["false"]), Duration::from_secs(5)).expect_err("false fails");
        assert!(failed.contains("exit status: 1"), "{failed}");
        let late = within(&mut words(&["sleep", "30"]), Duration::from_millis(50)).expect_err("too long");
        assert!(late.contains("limit"), "{late}");
    }
}
