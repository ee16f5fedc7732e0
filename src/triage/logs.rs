//! What the log of a job says: messages that are known, in the order in which they decide.

use std::sync::LazyLock;

use kmt_reporters::explain::Reason;
use kmt_reporters::strip_ansi;
use regex::Regex;

/// A message that is known.
#[derive(Debug)]
pub struct Message {
    /// A word for it; in setup jobs the metric's.
    pub id: &'static str,
    /// What kind of failure it shows.
    pub reason: Reason,
    /// What it means.
    pub says: &'static str,
    /// What to do.
    pub advice: &'static str,
    words: Regex,
}

/// A message that was found.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The message.
    pub message: &'static Message,
    /// The line that has it, and the one after an introduction.
    pub evidence: Vec<String>,
}

const RETRY: &str = "retry the setup job, then the jobs that stand on it";

type Row = (&'static str, &'static str, Reason, &'static str, &'static str);

/// Errors of setup jobs. The order matters: a capacity error within an `operation error` is one of capacity.
const SETUP: &[Row] = &[
    (
        "failed-to-dial-libvirt",
        "failed to dial libvirt",
        Reason::Infra,
        "libvirt on the host did not answer while machines were set up",
        RETRY,
    ),
    (
        "insufficient-capacity",
        "InsufficientInstanceCapacity",
        Reason::Infra,
        "EC2 has no such instance left in this zone",
        "retry the setup job later, or in another availability zone",
    ),
    (
        "aria2c-exit-no-status",
        r"aria2c[\s\S]{0,4000}?exited without (?:exit )?status or (?:exit )?signal",
        Reason::Infra,
        "the download of an image was cut off with its connection",
        RETRY,
    ),
    (
        "ec2-timeout-state-change",
        r"(?:timed out|timeout while) waiting for state (?:to become )?'?running",
        Reason::Infra,
        "an EC2 instance did not come up in time",
        RETRY,
    ),
    ("io-timeout", "i/o timeout", Reason::Infra, "the connection to a host timed out", RETRY),
    (
        "ssh-connection-refused",
        r"dial tcp [^\s]*:22:? (?:connect: )?connection refused|ssh: rejected: connect failed",
        Reason::Infra,
        "a host or machine refused SSH for as long as it was tried",
        RETRY,
    ),
    (
        "ec2-instance-create-timeout",
        "creating EC2 Instance: operation error",
        Reason::Infra,
        "EC2 did not make an instance",
        RETRY,
    ),
    (
        "apt-dd-agent-repo-failure",
        r"(?i)apt(?:-get)?[^\n]*update failed after adding the Datadog repository",
        Reason::Infra,
        "the package lists could not be updated after a repository was added",
        "look whether the repository is up; a retry does not help while it is not",
    ),
];

/// Messages of any job.
const ANY: &[Row] = &[
    (
        "go-test-timeout",
        r"panic: test timed out after",
        Reason::Timeout,
        "a package took longer than its time-out; results of it are missing",
        "the test that ran last is the one that hangs: run it alone",
    ),
    (
        "job-timeout",
        r"ERROR: Job failed: execution took longer than",
        Reason::Timeout,
        "the job took longer than it may",
        "see which package ran last",
    ),
    (
        "host-gone",
        r"instance_not_found|(?i)could not find (?:the )?(?:kmt |metal )?instance",
        Reason::Infra,
        "the host that the setup job made is gone",
        "a test job cannot be retried without its host: retry the setup job first",
    ),
    (
        "disk-full",
        "No space left on device",
        Reason::Infra,
        "a disk is full",
        "see which machine or runner, and what fills it",
    ),
    (
        "out-of-memory",
        r"(?i)out of memory|oom-kill|exit code 137",
        Reason::Infra,
        "something was killed for want of memory",
        "see which process grew",
    ),
    (
        "ssh-unreachable",
        r"(?:connect to host|ssh:|kex_exchange_identification|dial tcp)[^\n]*(?:[Cc]onnection (?:refused|timed out|reset|closed)|No route to host|i/o timeout)|Connection closed by remote host",
        Reason::Infra,
        "the machine could not be reached by SSH",
        "see whether it came up at all, and whether it died while tests ran",
    ),
    (
        "build",
        r"(?m)^(?:.*\.go:\d+:\d+: .+|.*\[build failed\]|.*undefined reference to.*|make(?:\[\d+\])?: \*\*\* .*|ninja: build stopped.*)$",
        Reason::Build,
        "something does not compile",
        "",
    ),
    (
        "artifacts-too-large",
        r"too large archive|Uploading artifacts[^\n]*(?:413|too large)",
        Reason::Infra,
        "the artifacts were too large to be kept",
        "",
    ),
    (
        "runner",
        r"ERROR: Job failed \(system failure\)|ERROR: Preparation failed",
        Reason::Infra,
        "the runner failed",
        "retry the job",
    ),
];

static SETUP_MESSAGES: LazyLock<Vec<Message>> = LazyLock::new(|| compiled(SETUP));
static ANY_MESSAGES: LazyLock<Vec<Message>> = LazyLock::new(|| compiled(ANY));

fn compiled(rows: &'static [Row]) -> Vec<Message> {
    let message = |(id, words, reason, says, advice): &Row| {
        let words = Regex::new(words).ok()?;
        Some(Message { id, reason: reason.clone(), says, advice, words })
    };
    rows.iter().filter_map(message).collect()
}

/// The message that explains a setup job.
pub fn of_setup(log: &str) -> Option<Hit> {
    find(&SETUP_MESSAGES, log).or_else(|| find(&ANY_MESSAGES, log))
}

/// The message that explains any other job.
pub fn of_job(log: &str) -> Option<Hit> {
    find(&ANY_MESSAGES, log)
}

fn find(messages: &'static [Message], log: &str) -> Option<Hit> {
    messages.iter().find_map(|message| {
        let found = message.words.find(log)?;
        let from = log[..found.start()].rfind('\n').map_or(0, |at| at + 1);
        let to = log[found.end()..].find('\n').map_or(log.len(), |at| found.end() + at);
        let lines = log[from..to].lines().map(cut);
        Some(Hit { message, evidence: lines.filter(|line| !line.is_empty()).take(3).collect() })
    })
}

/// The last lines that say something: not the runner's own words about cleaning up.
pub fn last_lines(log: &str, count: usize) -> Vec<String> {
    let own = [
        "Cleaning up",
        "Uploading artifacts",
        "section_",
        "ERROR: Job failed",
        "Saving cache",
        "Running after",
    ];
    let says = |line: &&str| !line.is_empty() && !own.iter().any(|word| line.starts_with(word));
    let lines: Vec<&str> = log.lines().map(str::trim).filter(says).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| cut(line)).collect()
}

/// The code with which the script of a job ended, as the runner tells it.
pub fn exit_code(log: &str) -> Option<u8> {
    let (_, rest) = log.rsplit_once("ERROR: Job failed: exit code ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A log without colours, section marks and the stamps of newer runners.
pub fn clean(log: &str) -> String {
    static NOISE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?m)^(?:\d{4}-\d\d-\d\dT[\d:.]+Z \d\d[OE]\+? ?)|section_(?:start|end):\d+:[^\r\n]*\r?")
            .ok()
    });
    // Marks end with a carriage return, which goes with the colours.
    let plain = match NOISE.as_ref() {
        Some(noise) => noise.replace_all(log, ""),
        None => log.into(),
    };
    strip_ansi(&plain).replace('\r', "")
}

fn cut(line: &str) -> String {
    line.trim().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_compiled_and_the_order_decides() {
        assert_eq!((SETUP_MESSAGES.len(), ANY_MESSAGES.len()), (SETUP.len(), ANY.len()));
        let id = |log: &str| of_setup(log).map(|hit| hit.message.id);
        for (log, wanted) in [
            ("error: failed to dial libvirt: x", "failed-to-dial-libvirt"),
            (
                "creating EC2 Instance: operation error EC2: RunInstances, api error InsufficientInstanceCapacity: We",
                "insufficient-capacity",
            ),
            ("creating EC2 Instance: operation error EC2: RunInstances", "ec2-instance-create-timeout"),
            (
                "running aria2c -x 16\nwait: remote command exited without exit status or exit signal",
                "aria2c-exit-no-status",
            ),
            (
                "timeout while waiting for state to become 'running' (last state: 'pending')",
                "ec2-timeout-state-change",
            ),
            ("read tcp 10.0.0.1:1: i/o timeout", "io-timeout"),
            (
                "after 60 failed attempts: dial tcp 10.1.2.3:22: connect: connection refused",
                "ssh-connection-refused",
            ),
            ("after 5 failed attempts: ssh: rejected: connect failed (No route)", "ssh-connection-refused"),
            ("apt sources update failed after adding the Datadog repository", "apt-dd-agent-repo-failure"),
            ("write /x: No space left on device", "disk-full"),
        ] {
            assert_eq!(id(log), Some(wanted), "{log}");
        }
        assert_eq!(id("all went well"), None);
    }

    #[test]
    fn other_jobs_have_their_own_messages() {
        let hit = of_job("a\npanic: test timed out after 10m0s\nrunning tests:").unwrap();
        assert_eq!(
            (hit.message.reason.clone(), hit.evidence),
            (Reason::Timeout, vec!["panic: test timed out after 10m0s".to_owned()])
        );
        let hit = of_job("pkg/a/b.go:3:7: undefined: x").unwrap();
        assert_eq!(hit.message.reason, Reason::Build);
        assert!(of_job("    b_test.go:3: undefined").is_none());
    }

    #[test]
    fn the_runners_words_are_noise() {
        let log = "section_start:1700000000:step\r\x1b[0K\x1b[32mdo it\x1b[0m\n2026-01-01T00:00:00.123456Z 01O last words\nCleaning up\nERROR: Job failed: exit code 1\n";
        assert_eq!(last_lines(&clean(log), 2), ["do it", "last words"]);
        assert_eq!((exit_code(log), exit_code("x\nERROR: Job failed: exit code 42\n")), (Some(1), Some(42)));
    }
}
