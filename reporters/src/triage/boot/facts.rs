//! What is known of a boot beside its console.

use serde::Deserialize;

use crate::event::BootPhase;

/// How it ended, by whoever watched it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Nothing is known: only the console tells.
    #[default]
    Unknown,
    /// It came up, and still answers.
    Ready,
    /// The hypervisor did not take or start it.
    Refused,
    /// It was given up: its time was over.
    Deadline,
    /// Its QEMU is gone.
    QemuGone,
    /// It was up, runs, and does not answer any more.
    Lost,
}

/// What is known; everything may be missing.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "snake_case", deny_unknown_fields)]
pub struct Facts {
    /// How it ended.
    pub ended: Ended,
    /// The furthest phase that the watcher saw.
    pub phase: Option<BootPhase>,
    /// Words of libvirt or QEMU, as they came, many lines allowed.
    pub hypervisor: Option<String>,
    /// Exit status of QEMU, or the number of its signal, negative.
    pub qemu_exit: Option<i32>,
    /// What SSH on our side said last.
    pub contact: Option<String>,
    /// Milliseconds from power on to the end.
    pub elapsed_ms: Option<u64>,
    /// Milliseconds since the console last grew.
    pub idle_ms: Option<u64>,
    /// `kvm`, `hvf` or `tcg`.
    pub accelerator: Option<String>,
    /// Seconds by which the guest's clock is off, where that was asked.
    pub clock_offset_s: Option<i64>,
}

impl Facts {
    /// Whether its processor is emulated.
    pub(super) fn emulated(&self) -> bool {
        self.accelerator.as_deref() == Some("tcg")
    }
}
