//! The door to this machine itself: what it has and allows, and the few things that can be mended on it.
//!
//! Owns what is seen ([`HostState`]). Does not judge it (`doctor`). To ask for more: a field here, its line in
//! [`real`]; a scripted world says its own under `[host]` in `world.toml`.

pub mod fake;
pub mod real;

pub(super) use real::networks;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::Deserialize;

use crate::external;

/// What a machine has and allows. The default is one on which everything is as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct HostState {
    /// Name of this user.
    pub user: String,
    /// Whether that is root.
    pub root: bool,
    /// Groups of this user.
    pub groups: Vec<String>,
    /// Programs that were asked for and are not in `PATH`.
    pub missing: Vec<String>,
    /// What `go version` says, where there is a Go.
    pub go: Option<String>,
    /// `/dev/kvm`.
    pub kvm: Kvm,
    /// Daemons that should listen and do not.
    pub deaf: Vec<String>,
    /// Free space where state lives, MiB.
    pub free_mib: Option<u64>,
    /// Networks this machine has a route to, such as `10.0.2.0/24`.
    pub routes: Vec<String>,
    /// Where credentials of a cloud are: names of variables and files, never what they hold.
    pub cloud: Vec<String>,
    /// Name of the variable that holds a GitLab token.
    pub gitlab: Option<String>,
}

/// The door to the processor's virtualization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kvm {
    /// There is none.
    Absent,
    /// It is there, and this user may not open it.
    Closed,
    /// This user may open it.
    Open,
}

impl Default for HostState {
    fn default() -> HostState {
        HostState {
            user: "tester".to_owned(),
            root: false,
            groups: vec!["tester".to_owned(), "kvm".to_owned()],
            missing: Vec::new(),
            go: Some("go version go1.23.4 linux/amd64".to_owned()),
            kvm: Kvm::Open,
            deaf: Vec::new(),
            free_mib: Some(100 * 1024),
            routes: vec!["192.168.7.0/24".to_owned()],
            cloud: vec!["AWS_PROFILE".to_owned()],
            gitlab: Some("GITLAB_TOKEN".to_owned()),
        }
    }
}

/// This machine.
#[async_trait]
pub trait Host: Send + Sync {
    /// Looks: `programs` are looked for in `PATH`, space where `home` is or will be.
    async fn look(&self, home: &Path, programs: &[&str]) -> HostState;

    /// The folder in which folders of control sockets lie.
    fn sockets(&self) -> PathBuf;

    /// Starts the daemons that root's libvirt needs.
    async fn start_daemons(&self) -> external::Result<()>;

    /// Opens `/dev/kvm` to group `kvm`.
    async fn open_kvm(&self) -> external::Result<()>;
}
