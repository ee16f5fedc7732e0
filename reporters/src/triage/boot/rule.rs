//! Rules as data.

use serde::Serialize;

use crate::event::BootPhase;

/// A reason for which a machine fails.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Kebab-case name; part of signatures, JUnit types and folder names, so it never changes.
    pub id: &'static str,
    /// The phase in which it strikes.
    pub phase: BootPhase,
    /// What happened, a lowercase fragment.
    pub says: &'static str,
    /// What to do.
    pub advice: &'static str,
}

/// Where in a line the words must stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Anywhere.
    Anywhere,
    /// At the start of a message: behind its stamp, which may itself stand behind something unfinished.
    Start,
    /// At the end of the line, spaces aside: a prompt.
    End,
}

/// Where the words must be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// On the console.
    Console,
    /// By libvirt or QEMU.
    Hypervisor,
    /// By SSH on our side.
    Contact,
}

/// How far a boot got, finer than [`BootPhase`]; each is shown by words on the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Milestone {
    /// Firmware or a boot loader speaks.
    Firmware,
    /// The kernel speaks.
    Kernel,
    /// A first program runs, in an initramfs or not.
    Userland,
    /// The real root file system is in use.
    Root,
    /// There is an address.
    Network,
    /// The SSH server listens.
    Sshd,
    /// A login prompt, or the init system says that it is done.
    Up,
    /// Never: what is void until then stands for ever.
    Never,
}

/// Words that point at a cause.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) cause: &'static Cause,
    /// One of them must be in the line.
    pub(super) words: &'static [&'static str],
    /// One of them too, unless empty.
    pub(super) with: &'static [&'static str],
    /// None of them.
    pub(super) without: &'static [&'static str],
    pub(super) at: At,
    pub(super) from: From,
    /// The candidate of the highest rank wins.
    pub(super) rank: u16,
    /// Void once the console shows this, or more, later.
    pub(super) until: Milestone,
    /// Whether only that milestone counts, and none that comes later: a login prompt says nothing of the network.
    pub(super) exactly: bool,
    /// How often it must have been seen.
    pub(super) times: u64,
    /// Whether it also counts against a machine that came up.
    pub(super) always: bool,
    /// Whether it only explains another end of the boot: many see it and boot all the same.
    pub(super) explains: bool,
}

/// A rule for the console; its rank is for the family to say.
pub(super) const fn rule(cause: &'static Cause, rank: u16, words: &'static [&'static str]) -> Rule {
    Rule {
        cause,
        words,
        with: &[],
        without: &[],
        at: At::Anywhere,
        from: From::Console,
        rank,
        until: Milestone::Never,
        exactly: false,
        times: 1,
        always: false,
        explains: false,
    }
}

impl Rule {
    pub(super) const fn start(mut self) -> Rule {
        self.at = At::Start;
        self
    }

    pub(super) const fn end(mut self) -> Rule {
        self.at = At::End;
        self
    }

    pub(super) const fn from(mut self, from: From) -> Rule {
        self.from = from;
        self
    }

    pub(super) const fn with(mut self, words: &'static [&'static str]) -> Rule {
        self.with = words;
        self
    }

    pub(super) const fn without(mut self, words: &'static [&'static str]) -> Rule {
        self.without = words;
        self
    }

    pub(super) const fn until(mut self, milestone: Milestone) -> Rule {
        self.until = milestone;
        self
    }

    pub(super) const fn until_exactly(mut self, milestone: Milestone) -> Rule {
        self.until = milestone;
        self.exactly = true;
        self
    }

    pub(super) const fn times(mut self, times: u64) -> Rule {
        self.times = times;
        self
    }

    pub(super) const fn explains(mut self) -> Rule {
        self.explains = true;
        self
    }

    pub(super) const fn always(mut self) -> Rule {
        self.always = true;
        self
    }
}
