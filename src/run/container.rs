//! Tests in a container of the guest: one container a guest, started once, in which every binary of a cell is executed.
//!
//! It sees what the former tool's container saw: devices, the guest's `/proc`, `/etc` and `/sys` below `/host`, its users, its BPF
//! file system and kernel's debugging files, and the component where it lies in the guest. It is privileged: what is
//! tested is the kernel.

use std::collections::BTreeMap;

use kmt_reporters::event::CellId;

use super::prepare::Step;
use crate::settings::component::{BPF_FOLDER, Component, Engine, Layout, TestContainer};

/// Its name in the guest. One that was made otherwise is replaced.
pub const NAME: &str = "kmt-tests";

/// Parts words in one line.
const SEPARATOR: &str = "\x1f";

/// What a container is started with, besides volumes and the component's own arguments.
const OPTIONS: &[&str] = &[
    "--privileged",
    "--cap-add=ALL",
    "--env=HOST_PROC=/host/proc",
    "--env=HOST_ETC=/host/etc",
    "--env=HOST_SYS=/host/sys",
];

/// What it sees of the guest, and where. What a guest does not have is left out.
const VOLUMES: &[(&str, &str)] = &[
    ("/dev", "/dev"),
    ("/proc", "/host/proc"),
    ("/etc", "/host/etc"),
    ("/sys", "/host/sys"),
    ("/etc/os-release", "/host/etc/os-release"),
    ("/usr/lib/os-release", "/host/usr/lib/os-release"),
    ("/etc/passwd", "/etc/passwd"),
    ("/etc/group", "/etc/group"),
    ("/lib/modules", "/lib/modules"),
    ("/sys/kernel/debug", "/sys/kernel/debug"),
    ("/sys/fs/bpf", "/sys/fs/bpf"),
    ("/opt/datadog-agent/embedded", "/opt/datadog-agent/embedded"),
    ("/opt/kmt-ramfs", "/opt/kmt-ramfs"),
];

/// The containers that tests of cells run in.
#[derive(Debug, Clone, Default)]
pub struct Containers {
    /// Who runs them.
    pub engine: Engine,
    /// What has the one of a cell up.
    pub steps: BTreeMap<CellId, Step>,
}

impl Containers {
    /// Who runs the container of a cell; nobody where its tests run in the guest itself.
    pub fn engine_of(&self, cell: &CellId) -> Option<Engine> {
        self.steps.contains_key(cell).then_some(self.engine)
    }
}

/// The step of the preparation that has a container of `image` up.
///
/// # Errors
/// A value no guest can be given: it has a line end.
pub fn step(component: &Component, image: &str) -> Result<Step, String> {
    let TestContainer { engine, args } = &component.test_container;
    let mut words: Vec<String> = OPTIONS.iter().map(|option| (*option).to_owned()).collect();
    words.extend(args.iter().cloned());
    let mut volumes: Vec<String> = VOLUMES.iter().map(|(from, to)| format!("{from}:{to}")).collect();
    if component.layout == Layout::Agent {
        volumes.push(format!("{{root}}/{BPF_FOLDER}:/opt/bpf"));
    }
    let (words, volumes) = (words.join(SEPARATOR), volumes.join(SEPARATOR));
    Step::new(format!("container {image}"), "container", [image, engine.program(), &volumes, &words])
        .checked()
}
