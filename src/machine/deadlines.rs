//! How long things may take, from power on to the last word. Each world carries its own.

use std::time::Duration;

use kmt_reporters::event::BootPhase;

/// How long a machine may stay in each phase before it counts as not booting, and how long a guest may take
/// to do what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the kernel speaks.
    pub kernel: Duration,
    /// From the kernel to the first process.
    pub init: Duration,
    /// From the first process to an address.
    pub network: Duration,
    /// From an address to the SSH server.
    pub sshd: Duration,
    /// From the SSH server to the first command.
    pub ready: Duration,
    /// How long a guest's address is waited for before it is tried without one.
    pub address: Duration,
    /// How long a binary may take to die of SIGQUIT, telling where it hung.
    pub grace: Duration,
    /// How long a guest may take to carry out a signal.
    pub signal: Duration,
    /// How often the hypervisor is asked whether a machine at work still lives.
    pub pulse: Duration,
    /// How long late output and late console lines of a machine that was lost are waited for.
    pub late: Duration,
    /// How long a guest may take to give its kernel log at the end.
    pub last_words: Duration,
    /// How long a guest that goes on from a template may take to become who it is told to be.
    pub warm: Duration,
    /// How long a guest that is to be a template may take until it waits.
    pub template: Duration,
}

impl Default for Deadlines {
    /// Generous: an emulated processor on a busy host is five to ten times slower than a real one.
    fn default() -> Deadlines {
        Deadlines {
            kernel: Duration::from_secs(60),
            init: Duration::from_secs(120),
            network: Duration::from_secs(90),
            sshd: Duration::from_secs(120),
            ready: Duration::from_secs(60),
            address: Duration::from_secs(20),
            grace: Duration::from_secs(5),
            signal: Duration::from_secs(10),
            pulse: Duration::from_millis(500),
            late: Duration::from_secs(3),
            last_words: Duration::from_secs(5),
            warm: Duration::from_secs(30),
            template: Duration::from_secs(240),
        }
    }
}

impl Deadlines {
    /// How long a boot may take of which nothing is heard.
    pub(super) fn whole(&self) -> Duration {
        self.kernel + self.init + self.network + self.sshd
    }

    /// How long the phase after `phase` may take to come.
    pub(super) fn after(&self, phase: BootPhase) -> Duration {
        match phase {
            BootPhase::Defined | BootPhase::Powered | BootPhase::Firmware => self.kernel,
            BootPhase::Kernel => self.init,
            BootPhase::Init => self.network,
            BootPhase::Network => self.sshd,
            BootPhase::Sshd | BootPhase::Ready => self.ready,
        }
    }
}
