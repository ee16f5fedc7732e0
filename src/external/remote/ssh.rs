//! Hosts that are opened by OpenSSH.

use std::sync::Arc;

use async_trait::async_trait;

use super::libvirt::{RemoteLibvirt, check};
use super::shell::Shell;
use super::{Checked, Gate, RemoteHost, Way};
use crate::external::Result;
use crate::external::hypervisor::Hypervisor;

/// The real gate.
#[derive(Debug, Default)]
pub struct SshGate;

#[async_trait]
impl Gate for SshGate {
    fn open(&self, host: &RemoteHost, way: &Way) -> Arc<dyn Hypervisor> {
        Arc::new(RemoteLibvirt::new(host, way))
    }

    async fn close(&self, way: &Way) {
        Shell::new(way).close().await;
    }

    async fn check(&self, host: &RemoteHost, way: &Way) -> Result<Checked> {
        check(host, way).await
    }
}
