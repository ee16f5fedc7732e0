//! Who uses a machine now. Looks and never touches: taking a lease to see whether it is free would make it look
//! taken to everybody else.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::Stack;

/// A process that has leased a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// The run directory it writes, if it writes one.
    pub run: Option<PathBuf>,
}

impl Stack {
    /// The process that has leased the machine, `None` where nobody has, or the system does not tell.
    pub fn holder(&self, machine: &str) -> Option<Holder> {
        let lease = fs::metadata(self.folder.join("leases").join(machine)).ok()?;
        let pid = flock_holder(&fs::read_to_string("/proc/locks").ok()?, lease.ino())?;
        Some(Holder { pid, run: run_of(pid) })
    }
}

/// The process that holds a lock on the file with that inode number, in the words of `/proc/locks`.
fn flock_holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Whoever waits for a lock stands below it with an arrow.
        let [_, "FLOCK", _, _, pid, file, ..] = words[..] else { return None };
        let number: u64 = file.rsplit(':').next()?.parse().ok()?;
        (number == inode).then(|| pid.parse().ok())?
    })
}

/// The run directory whose log the process has open.
fn run_of(pid: u32) -> Option<PathBuf> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let files = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut logs = files.filter(|file| file.file_name().is_some_and(|name| name == "events.jsonl"));
    logs.next()?.parent().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Home;

    #[test]
    fn a_lock_is_found_by_its_file_and_those_who_wait_do_not_count() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:00:78 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 13 fe:00:77 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 14 fe:00:77 0 EOF\n";
        assert_eq!(flock_holder(locks, 77), Some(14));
        assert_eq!(flock_holder(locks, 7), None);
    }

    #[test]
    fn this_process_is_seen_while_it_holds_a_machine() {
        let temp = tempfile::tempdir().unwrap();
        let stack = Stack::open_or_create(&Home::at(temp.path()), "s", temp.path()).unwrap();
        assert_eq!(stack.holder("m"), None);
        let lease = stack.lease("m").unwrap().unwrap();
        assert_eq!(stack.holder("m").map(|holder| holder.pid), Some(std::process::id()));
        drop(lease);
        assert_eq!(stack.holder("m"), None);
    }
}
