//! What a console has shown so far, in constant memory.

use std::collections::VecDeque;

use super::matcher::{Matcher, Sign, matcher};
use super::rule::{At, Milestone};
use crate::event::BootPhase;
use crate::triage::lines::Line;
use crate::triage::prefix;
use crate::triage::splat::{Scanner, Splat};
use crate::triage::{Evidence, Place};

/// Words that show how far a boot got.
pub(super) const SIGNS: &[(Sign, At, &[&str])] = &[
    (Sign::KernelBegins, At::Start, &["Linux version "]),
    (Sign::RandomReady, At::Start, &["random: crng init done", "crng init done"]),
    (
        Sign::Reached(Milestone::Firmware),
        At::Anywhere,
        &[
            "SeaBIOS (version",
            "UEFI firmware (version",
            "BdsDxe: ",
            "Booting from ",
            "GRUB loading",
            "Welcome to GRUB!",
            "GNU GRUB",
            "EFI stub: ",
            "SYSLINUX ",
            "ISOLINUX ",
            "iPXE ",
            "UEFI Interactive Shell",
        ],
    ),
    (Sign::Reached(Milestone::Kernel), At::Start, &["Linux version ", "Booting Linux on physical CPU"]),
    (
        Sign::Reached(Milestone::Userland),
        At::Start,
        &[
            "Freeing unused kernel memory",
            "Freeing unused kernel image",
            "Run /",
            "systemd[1]: systemd ",
            "kmt-init: ",
            "Loading, please wait...",
            "Begin: ",
            "dracut: ",
            "INIT: version",
        ],
    ),
    (
        Sign::Reached(Milestone::Root),
        At::Anywhere,
        &[
            "Reached target Local File Systems",
            "Reached target local-fs.target",
            "Reached target Basic System",
            "Reached target basic.target",
            "Received SIGTERM from PID 1 (systemd)",
            "Switching root",
            "kmt-init: switch ",
            "INIT: Entering runlevel",
            "Running /scripts/init-bottom",
        ],
    ),
    (
        Sign::Reached(Milestone::Network),
        At::Anywhere,
        &[
            "kmt-init: network eth",
            "bound to ",
            ": DHCPv4 address ",
            "DHCPACK ",
            "Lease of ",
            " lease of ",
            "IP-Config: Complete",
            "IP-Config: Got DHCP answer",
            "leased ",
            "dhcp4 (",
        ],
    ),
    (
        Sign::Reached(Milestone::Sshd),
        At::Anywhere,
        &[
            "Started OpenBSD Secure Shell server",
            "Started OpenSSH server daemon",
            "Started OpenSSH Daemon",
            "Started SSH for kmt-run",
            "Started ssh.service",
            "Started sshd.service",
            "Listening on OpenBSD Secure Shell server socket",
            "Listening on ssh.socket",
            "Listening on sshd.socket",
            "Listening on OpenSSH Server Socket",
            "Server listening on ",
            "Starting sshd: [  OK  ]",
        ],
    ),
    (
        Sign::Reached(Milestone::Up),
        At::Anywhere,
        &[
            " login: ",
            "Reached target Multi-User System",
            "Reached target multi-user.target",
            "Reached target Graphical Interface",
            "Reached target graphical.target",
            "Startup finished in ",
            "Cloud-init v. ",
        ],
    ),
    (Sign::Reached(Milestone::Up), At::End, &[" login:"]),
];

/// Milestones before `Never`.
const MILESTONES: usize = Milestone::Never as usize;
/// Lines that are kept of the end.
const TAIL: usize = 25;
/// Longest text that is kept of a line, bytes.
const CUT: usize = 400;
/// Lines that are kept for a rule beside the last one.
const FIRST: usize = 3;
/// Splats that are kept.
const SPLATS: usize = 8;
/// Lines of a splat whose places are kept.
const PLACES: usize = 9;

/// A line that is kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    /// Place among the lines, from 1.
    pub(super) seq: u64,
    /// Where in the text the rule's words begin.
    pub(super) from: usize,
    pub(super) evidence: Evidence,
}

/// Lines that a rule fits.
#[derive(Debug, Clone, Default)]
pub(super) struct Hit {
    pub(super) count: u64,
    pub(super) first: Vec<Kept>,
    pub(super) last: Option<Kept>,
}

/// A complaint of the kernel and the place of its first line.
#[derive(Debug, Clone)]
pub(super) struct Complaint {
    pub(super) seq: u64,
    /// Of its first lines.
    pub(super) places: Vec<Place>,
    pub(super) splat: Splat,
}

/// One life of a kernel, or the time before the first.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    /// By index of the rule.
    pub(super) hits: Vec<(usize, Hit)>,
    /// Last line that showed each milestone, 0 for none.
    pub(super) reached: [u64; MILESTONES],
    pub(super) complaints: Vec<Complaint>,
    /// Last line that said that random numbers are to be had, 0 for none.
    pub(super) random: u64,
    scanner: Scanner,
    scanned: Option<(u64, Vec<Place>)>,
}

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    seq: u64,
    pub(super) now: Life,
    /// The life before the present one.
    pub(super) before: Option<Box<Life>>,
    /// The line with which the last kernel began.
    pub(super) kernel: Option<Evidence>,
    /// Kernels that began.
    pub(super) boots: u64,
    /// Lives in which SELinux relabelled the file system.
    pub(super) relabels: u64,
    pub(super) relabelled: bool,
    tail: VecDeque<(u64, u64, Vec<u8>)>,
    /// Whether the last line only counts the seconds of a job.
    waits: bool,
}

impl Seen {
    /// Takes the next line.
    pub(super) fn line(&mut self, line: Line<'_>) {
        self.seq += 1;
        let matcher = matcher();
        let mut splat_begins = false;
        matcher.line(line.bytes, |sign| self.sign(matcher, sign, line, &mut splat_begins));
        self.now.scan(line, self.seq, splat_begins);
        self.remember(line);
    }

    fn sign(&mut self, matcher: &Matcher, sign: Sign, line: Line<'_>, splat_begins: &mut bool) {
        match sign {
            Sign::Rule(index, from) => {
                if matcher.rules()[index].cause.id == super::init::RELABEL_LOOP.id && !self.relabelled {
                    self.relabelled = true;
                    self.relabels += 1;
                }
                let kept = Kept { seq: self.seq, from, evidence: evidence(line) };
                self.now.hit(index, kept);
            }
            Sign::Reached(Milestone::Up) if !says_up(line.bytes) => {}
            Sign::Reached(milestone) => self.now.reached[milestone as usize] = self.seq,
            Sign::KernelBegins => {
                self.boots += 1;
                self.kernel = Some(evidence(line));
                if self.boots > 1 {
                    self.now.finish();
                    self.before = Some(Box::new(std::mem::take(&mut self.now)));
                    self.relabelled = false;
                }
            }
            Sign::Splat => *splat_begins = true,
            Sign::RandomReady => self.now.random = self.seq,
        }
    }

    fn remember(&mut self, line: Line<'_>) {
        let waits = waiting(line.bytes).is_some();
        let mut bytes = match self.tail.len() {
            // One line of a display that counts seconds is enough.
            1.. if waits && self.waits => self.tail.pop_back().unwrap_or_default().2,
            TAIL => self.tail.pop_front().unwrap_or_default().2,
            _ => Vec::new(),
        };
        self.waits = waits;
        bytes.clear();
        bytes.extend_from_slice(&line.bytes[..line.bytes.len().min(CUT)]);
        self.tail.push_back((line.number, line.offset, bytes));
    }

    /// The last lines.
    pub(super) fn tail(&self) -> impl DoubleEndedIterator<Item = Evidence> + '_ {
        self.tail.iter().map(|(number, offset, bytes)| Evidence {
            place: Place::Console { line: *number, offset: *offset },
            text: cut(bytes),
        })
    }

    /// The kernel's clock in the last line that has one, seconds.
    pub(super) fn clock(&self) -> Option<f64> {
        self.tail.iter().rev().find_map(|(_, _, bytes)| prefix::strip(bytes).time)
    }

    /// Seconds that systemd has waited for a job, where its last line says so.
    pub(super) fn waited(&self) -> Option<u64> {
        self.tail.back().and_then(|(_, _, bytes)| waiting(bytes))
    }

    /// Whether nothing at all was said.
    pub(super) fn is_silent(&self) -> bool {
        self.seq == 0
    }

    /// The furthest milestone of the present life.
    pub(super) fn milestone(&self) -> Option<Milestone> {
        self.now.milestone()
    }

    /// The phase that the present life shows.
    pub(super) fn phase(&self) -> Option<BootPhase> {
        Some(match self.milestone()? {
            Milestone::Firmware => BootPhase::Firmware,
            Milestone::Kernel => BootPhase::Kernel,
            Milestone::Userland | Milestone::Root => BootPhase::Init,
            Milestone::Network => BootPhase::Network,
            // A prompt on the console is no greeting of an SSH server.
            Milestone::Up if self.now.reached[Milestone::Sshd as usize] == 0 => BootPhase::Init,
            Milestone::Sshd | Milestone::Up | Milestone::Never => BootPhase::Sshd,
        })
    }

    /// The complaints of every life that is known.
    pub(super) fn splats(&self) -> Vec<Splat> {
        let before = self.before.iter().flat_map(|life| life.all());
        before.chain(self.now.all()).map(|complaint| complaint.splat).collect()
    }
}

impl Life {
    fn hit(&mut self, index: usize, kept: Kept) {
        let at = match self.hits.iter().position(|(known, _)| *known == index) {
            Some(at) => at,
            None => {
                self.hits.push((index, Hit::default()));
                self.hits.len() - 1
            }
        };
        let hit = &mut self.hits[at].1;
        let again = hit.last.as_ref().or(hit.first.last()).is_some_and(|last| last.seq == kept.seq);
        if again {
            return;
        }
        hit.count += 1;
        if hit.first.len() < FIRST {
            hit.first.push(kept);
        } else {
            hit.last = Some(kept);
        }
    }

    fn scan(&mut self, line: Line<'_>, seq: u64, begins: bool) {
        if !begins && !self.scanner.is_open() {
            return;
        }
        let place = Place::Console { line: line.number, offset: line.offset };
        let ended = self.scanner.known(line.bytes, begins);
        if self.scanner.began() {
            if let Some(splat) = ended {
                self.complain(splat);
            }
            self.scanned = Some((seq, vec![place]));
            if !self.scanner.is_open() {
                self.scanned = None;
            }
            return;
        }
        if let Some((_, places)) = &mut self.scanned
            && places.len() < PLACES
        {
            places.push(place);
        }
        if let Some(splat) = ended {
            self.complain(splat);
        }
    }

    fn complain(&mut self, splat: Splat) {
        let Some((seq, places)) = self.scanned.take() else { return };
        if self.complaints.len() < SPLATS {
            self.complaints.push(Complaint { seq, places, splat });
        }
    }

    fn finish(&mut self) {
        if let Some(splat) = self.scanner.finish() {
            self.complain(splat);
        }
    }

    /// Every complaint, an unfinished one too.
    pub(super) fn all(&self) -> Vec<Complaint> {
        let mut life = self.clone();
        life.finish();
        life.complaints
    }

    pub(super) fn milestone(&self) -> Option<Milestone> {
        const ORDER: [Milestone; MILESTONES] = [
            Milestone::Firmware,
            Milestone::Kernel,
            Milestone::Userland,
            Milestone::Root,
            Milestone::Network,
            Milestone::Sshd,
            Milestone::Up,
        ];
        ORDER.into_iter().rev().find(|milestone| self.reached[*milestone as usize] > 0)
    }

    /// The last line that showed this milestone or a further one.
    pub(super) fn last(&self, milestone: Milestone) -> u64 {
        self.reached[milestone as usize..].iter().copied().max().unwrap_or(0)
    }
}

/// ` login:` is a prompt only behind one word: a host's name.
fn says_up(line: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(line, b" login:") else {
        return memchr::memmem::find(line, b"Cloud-init v. ").is_none()
            || memchr::memmem::find(line, b" finished at ").is_some();
    };
    let host = line[..at].trim_ascii_start();
    !host.is_empty() && host != b"Last" && !host.iter().any(|byte| matches!(byte, b' ' | b'"' | b':'))
}

/// Seconds that a line of systemd's display has counted: `A start job is running for X (1min 3s / no limit)`, or in newer
/// ones `Job x.service/start running (13s / 1min 31s)`.
fn waiting(line: &[u8]) -> Option<u64> {
    // Asked of every line: the end of the line decides nearly all of them.
    let line = line.trim_ascii_end();
    if !line.ends_with(b"limit)") && !line.ends_with(b"s)") && !line.ends_with(b"min)") {
        return None;
    }
    let has = |words: &[u8]| memchr::memmem::find(line, words).is_some();
    let open = memchr::memrchr(b'(', line)?;
    if !has(b" job is running for ") && !has(b"/start running (") && !has(b"/stop running (") {
        return None;
    }
    let counted = line[open + 1..].split(|byte| *byte == b'/').next()?;
    let mut seconds = 0;
    for word in std::str::from_utf8(counted).ok()?.split_whitespace() {
        let figures = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &word[figures.len()..] {
            "h" => 3600,
            "min" => 60,
            "s" => 1,
            _ => 0,
        };
        seconds += figures.parse::<u64>().ok()?.checked_mul(unit)?;
    }
    Some(seconds)
}

pub(super) fn evidence(line: Line<'_>) -> Evidence {
    Evidence { place: Place::Console { line: line.number, offset: line.offset }, text: cut(line.bytes) }
}

fn cut(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(CUT)]).trim_end().to_owned()
}
