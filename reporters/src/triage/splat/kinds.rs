//! The kinds of splat: how each begins, and how its title is made.

use serde::Serialize;

use super::stack;
use super::{plain, prefix};
use crate::triage::normal;

/// What kind a splat is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The kernel gave up.
    Panic,
    /// A bad access or another trap in the kernel.
    Oops,
    /// `BUG()` and complaints that begin so.
    Bug,
    /// `WARN()`.
    Warning,
    /// A processor did not schedule for long.
    SoftLockup,
    /// A processor did not take interrupts for long.
    HardLockup,
    /// A grace period does not end.
    RcuStall,
    /// A task sleeps uninterruptibly for long.
    HungTask,
    /// The address sanitizer.
    Kasan,
    /// The race sanitizer.
    Kcsan,
    /// The sanitizer of uninitialized memory.
    Kmsan,
    /// The sampling memory checker.
    Kfence,
    /// The sanitizer of undefined behaviour.
    Ubsan,
    /// The lock validator.
    Lockdep,
    /// The kernel killed a program for want of memory.
    OomKill,
    /// A program of a control group was killed for want of memory.
    CgroupOomKill,
}

/// Beginnings of messages; the first that fits counts. Wordings of kernels 3.10 to today, x86_64 and arm64.
const STARTS: &[(Kind, &[&str])] = &[
    (Kind::Kasan, &["BUG: KASAN: ", "BUG: KASan: "]),
    (Kind::Kcsan, &["BUG: KCSAN: "]),
    (Kind::Kmsan, &["BUG: KMSAN: "]),
    (Kind::Kfence, &["BUG: KFENCE: "]),
    (Kind::Ubsan, &["UBSAN: "]),
    (
        Kind::SoftLockup,
        &[
            "BUG: soft lockup - CPU#",
            "watchdog: BUG: soft lockup - CPU#",
            "NMI watchdog: BUG: soft lockup - CPU#",
        ],
    ),
    (
        Kind::HardLockup,
        &[
            "NMI watchdog: Watchdog detected hard LOCKUP on cpu",
            "watchdog: Watchdog detected hard LOCKUP on cpu",
            "Watchdog detected hard LOCKUP on cpu",
            "watchdog: CPU",
            "Uhhuh. NMI received for unknown reason",
        ],
    ),
    (
        Kind::Lockdep,
        &[
            "WARNING: possible ",
            "WARNING: inconsistent lock state",
            "WARNING: suspicious RCU usage",
            "WARNING: bad unlock balance detected",
            "WARNING: held lock freed",
            "WARNING: lock held when returning to user space",
            "WARNING: Nested lock was not taken",
            "WARNING: HARDIRQ-",
            "WARNING: SOFTIRQ-",
            "[ INFO: possible ",
            "[ INFO: inconsistent lock state",
            "[ INFO: suspicious RCU usage",
            "[ INFO: HARDIRQ-",
            "[ INFO: SOFTIRQ-",
            "[ BUG: bad unlock balance detected",
            "[ BUG: held lock freed",
            "INFO: possible circular locking",
            "INFO: possible recursive locking",
            "INFO: possible irq lock inversion",
            "INFO: suspicious RCU usage",
            "[ BUG: Invalid wait context ]",
        ],
    ),
    (
        Kind::Oops,
        &[
            "BUG: unable to handle ",
            "BUG: kernel NULL pointer dereference",
            "Unable to handle kernel ",
            "Unable to handle ",
            "general protection fault: ",
            "general protection fault, ",
            "general protection fault maybe ",
            "Oops: ",
            "Internal error: ",
            "invalid opcode: 0",
            "divide error: 0",
            "stack segment: 0",
            "int3: 0",
            "double fault: 0",
            "segment not present: 0",
            "invalid TSS: 0",
            "alignment check: 0",
            "traps: PANIC: double fault",
            "PANIC: double fault",
            "Bad mode in ",
            "Insufficient stack space to handle exception",
            "kernel tried to execute NX-protected page",
            "BUG: stack guard page was hit",
            "BUG: TASK stack guard page was hit",
            "BUG: IRQ stack guard page was hit",
        ],
    ),
    (Kind::Bug, &["kernel BUG at ", "BUG: ", "[ BUG: "]),
    (Kind::Warning, &["WARNING: "]),
    (Kind::RcuStall, &["INFO: rcu_", "rcu: INFO: rcu_"]),
    (Kind::HungTask, &["INFO: task "]),
    (Kind::CgroupOomKill, &["Memory cgroup out of memory: Kill"]),
    (Kind::OomKill, &["Out of memory: Kill", "Out of memory (oom_kill_allocating_task): Kill"]),
    (Kind::Panic, &["Kernel panic - not syncing"]),
];

/// Words with which any splat begins; each also fits lines that are none, which [`kind`] tells apart.
pub(crate) fn starts() -> impl Iterator<Item = &'static str> {
    STARTS.iter().flat_map(|(_, words)| words.iter().copied())
}

/// The kind of splat that a line begins and where its message stands; a stamp may stand behind something unfinished.
pub(super) fn kind(line: &[u8]) -> Option<(Kind, usize)> {
    let first = prefix::strip(line).at;
    let later = memchr::memchr_iter(b'[', line).filter(|open| *open > first).filter_map(|open| {
        let at = prefix::strip(&line[open..]).at;
        (at > 0).then_some(open + at)
    });
    std::iter::once(first).chain(later).take(8).find_map(|at| Some((of_message(&line[at..])?, at)))
}

fn of_message(message: &[u8]) -> Option<Kind> {
    let (kind, _) =
        STARTS.iter().find(|(_, words)| words.iter().any(|word| message.starts_with(word.as_bytes())))?;
    let has = |word: &str| memchr::memmem::find(message, word.as_bytes()).is_some();
    let fits = match kind {
        Kind::Warning => is_warning(message),
        Kind::RcuStall => has("stall"),
        Kind::HungTask => has("blocked") && has("for more than"),
        Kind::HardLockup => has("LOCKUP") || has("unknown reason"),
        Kind::Oops if message.starts_with(b"Unable to handle ") => {
            has("at virtual address") || has("kernel ")
        }
        Kind::Oops if message.starts_with(b"Internal error: ") => has("[#"),
        Kind::Lockdep if message.starts_with(b"WARNING: possible ") => has("detected"),
        _ => true,
    };
    fits.then_some(*kind)
}

/// `WARN()` names a place in the source; `WARNING: ` is also the word of others.
fn is_warning(message: &[u8]) -> bool {
    let has = |word: &[u8]| memchr::memmem::find(message, word).is_some();
    let place = [".c:", ".h:", ".S:", ".rs:"].iter().any(|ending| has(ending.as_bytes()));
    has(b" at ") && (place || has(b"+0x"))
}

impl Kind {
    /// The kebab-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Panic => "panic",
            Kind::Oops => "oops",
            Kind::Bug => "bug",
            Kind::Warning => "warning",
            Kind::SoftLockup => "soft-lockup",
            Kind::HardLockup => "hard-lockup",
            Kind::RcuStall => "rcu-stall",
            Kind::HungTask => "hung-task",
            Kind::Kasan => "kasan",
            Kind::Kcsan => "kcsan",
            Kind::Kmsan => "kmsan",
            Kind::Kfence => "kfence",
            Kind::Ubsan => "ubsan",
            Kind::Lockdep => "lockdep",
            Kind::OomKill => "oom-kill",
            Kind::CgroupOomKill => "cgroup-oom-kill",
        }
    }

    /// Whether one line is all there is.
    pub(super) fn is_one_line(self) -> bool {
        matches!(self, Kind::OomKill | Kind::CgroupOomKill)
    }

    /// Whether a beginning of `next` belongs to a splat of this kind that goes on: the trap behind its reason, the
    /// panic that a splat leads to.
    pub(super) fn goes_on_as(self, next: Kind) -> bool {
        match next {
            Kind::Panic => self != Kind::Panic && !self.is_one_line(),
            Kind::Oops => matches!(self, Kind::Oops | Kind::Bug | Kind::HardLockup),
            Kind::RcuStall => self == Kind::RcuStall,
            Kind::Kasan => self == Kind::Oops,
            _ => false,
        }
    }

    /// The function that the first line itself names.
    pub(super) fn function(self, first: &str) -> Option<String> {
        let named = match self {
            Kind::Kasan | Kind::Kmsan | Kind::Kfence => stack::symbol(first)?,
            Kind::Kcsan => return race(first),
            _ => return None,
        };
        (!stack::is_machinery(named)).then(|| named.to_owned())
    }

    /// The title: what was said, without what differs from boot to boot, and the function.
    pub(super) fn title(self, first: &str, function: Option<&str>) -> String {
        let what = self.what(first);
        match (self, function) {
            (Kind::Panic | Kind::OomKill | Kind::CgroupOomKill, _) => what,
            (_, Some(function)) => format!("{what} in {function}"),
            (Kind::Bug | Kind::Warning | Kind::Ubsan, None) => match source_file(first) {
                Some(file) => format!("{what} in {file}"),
                None => what,
            },
            (Kind::HungTask, None) => match first.split(' ').nth(2).and_then(|task| task.split(':').next()) {
                Some(task) => format!("{what} in task {task}"),
                None => what,
            },
            _ => what,
        }
    }

    fn what(self, first: &str) -> String {
        let after = |start: &str| first.split_once(start).map_or(first, |(_, rest)| rest);
        match self {
            Kind::Panic => format!("kernel panic: {}", plain(after("not syncing: "))),
            Kind::Oops => trap(first),
            Kind::Bug if first.starts_with("kernel BUG at ") => "kernel BUG".to_owned(),
            Kind::Bug => {
                let rest = after("BUG: ");
                let ends = [" at ", " on ", " in ", ": ", " - ", " ["];
                let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
                format!("BUG: {}", plain(&rest[..end]))
            }
            Kind::Warning => "WARNING".to_owned(),
            Kind::SoftLockup => "soft lockup".to_owned(),
            Kind::HardLockup => "hard lockup".to_owned(),
            Kind::RcuStall => "RCU stall".to_owned(),
            Kind::HungTask => "task hung".to_owned(),
            Kind::Kasan | Kind::Kmsan | Kind::Kfence | Kind::Kcsan => {
                let rest = first.trim_start_matches("BUG: ");
                let rest = rest.replacen("KASan: ", "KASAN: ", 1);
                let end =
                    [" in ", " on "].iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
                plain(&rest[..end])
            }
            Kind::Ubsan => {
                let end = first.find(" in ").unwrap_or(first.len());
                plain(&first[..end])
            }
            Kind::Lockdep => {
                let rest = first.trim_matches(|c| matches!(c, '[' | ']' | ' '));
                let rest = ["WARNING: ", "INFO: ", "BUG: "]
                    .iter()
                    .fold(rest, |rest, start| rest.trim_start_matches(start));
                plain(rest.trim_end_matches([' ', '!', '.', ']']))
            }
            Kind::OomKill | Kind::CgroupOomKill => {
                let name = first.split_once('(').and_then(|(_, rest)| rest.split(')').next());
                let name = name.map(|name| if name.starts_with("oom_kill_") { after("): ") } else { name });
                let name =
                    name.map(|name| name.split('(').nth(1).unwrap_or(name).split(')').next().unwrap_or(name));
                let group = if self == Kind::OomKill { "" } else { " of a control group" };
                format!("out of memory{group}: killed {}", normal::normalise(name.unwrap_or("a program")))
            }
        }
    }
}

/// What a trap is, in one wording for all kernels and both architectures.
fn trap(first: &str) -> String {
    let has = |word: &str| first.contains(word);
    if has("NULL pointer dereference") {
        "kernel NULL pointer dereference".to_owned()
    } else if has("paging request") || has("page fault for address") {
        "unable to handle kernel page fault".to_owned()
    } else if has("general protection fault") {
        "general protection fault".to_owned()
    } else if has("stack guard page") || has("kernel stack overflow") || has("Insufficient stack space") {
        "kernel stack overflow".to_owned()
    } else if has("double fault") {
        "double fault".to_owned()
    } else {
        let rest = first.trim_start_matches("Oops: ").trim_start_matches("Internal error: ");
        let end = [" [#", ": 0", " at virtual address", ", "].iter().filter_map(|end| rest.find(end)).min();
        plain(&rest[..end.unwrap_or(rest.len())])
    }
}

/// The two functions of a race, in one order.
fn race(first: &str) -> Option<String> {
    let (_, pair) = first.split_once(" in ")?;
    let mut names: Vec<&str> = pair.trim().split(" / ").map(normal::function).collect();
    names.sort_unstable();
    names.dedup();
    Some(names.join(" / "))
}

/// The file of `file:line`, without its line.
fn source_file(first: &str) -> Option<&str> {
    first.split([' ', '(', ')']).find_map(|word| {
        let (file, line) = word.split_once(':')?;
        let source = [".c", ".h", ".S", ".rs"].iter().any(|ending| file.ends_with(ending));
        (source && line.starts_with(|c: char| c.is_ascii_digit())).then_some(file)
    })
}
