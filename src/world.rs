//! The composition root: the only file that names an adapter.

use std::sync::Arc;

use crate::external::builder::Builder;
use crate::external::builder::go::Go;
use crate::external::builder::prebuilt::Prebuilt;
use crate::external::debian::{DebianHost, DebianTools};
use crate::external::hypervisor::Hypervisor;
use crate::external::hypervisor::libvirt::Libvirt;
use crate::external::transport::Transport;
use crate::external::transport::ssh::Ssh;
use crate::settings::{BuilderKind, Settings};

/// The doors, open.
pub struct World {
    /// Runs machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Reaches them.
    pub transport: Arc<dyn Transport>,
    /// Debian's tools.
    pub debian: Arc<dyn DebianTools>,
    /// Go.
    pub go: Arc<dyn Builder>,
    /// Folders of finished binaries.
    pub prebuilt: Arc<dyn Builder>,
}

impl World {
    /// The real one.
    pub fn real(settings: &Settings) -> World {
        World {
            hypervisor: Arc::new(Libvirt::new(settings.libvirt_uri.value.clone(), settings.home.cache())),
            transport: Arc::new(Ssh),
            debian: Arc::new(DebianHost::new(
                settings.home.cache(),
                std::env::var("KMT_DEBIAN_MIRROR").ok().filter(|mirror| !mirror.is_empty()),
            )),
            go: Arc::new(Go::default()),
            prebuilt: Arc::new(Prebuilt),
        }
    }

    /// The builder of that kind.
    pub fn builder(&self, kind: BuilderKind) -> Arc<dyn Builder> {
        match kind {
            BuilderKind::Go => self.go.clone(),
            BuilderKind::Prebuilt => self.prebuilt.clone(),
        }
    }
}
