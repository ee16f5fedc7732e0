//! The machine of a scripted world: as its script says, until something was mended.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{Host, HostState, Kvm};
use crate::external::Result;
use crate::external::scripted::Stage;

/// The machine of a stage.
#[derive(Debug, Clone)]
pub struct FakeHost {
    stage: Arc<Stage>,
}

impl FakeHost {
    /// The machine of `stage`.
    pub fn new(stage: Arc<Stage>) -> FakeHost {
        FakeHost { stage }
    }
}

#[async_trait]
impl Host for FakeHost {
    async fn look(&self, _: &Path, programs: &[&str]) -> HostState {
        let mut state = self.stage.script.host.clone();
        state.missing.retain(|program| programs.contains(&program.as_str()));
        for call in self.stage.calls() {
            match call.split(' ').next() {
                Some("start-daemons") => state.deaf.clear(),
                Some("open-kvm") => state.kvm = Kvm::Open,
                _ => {}
            }
        }
        state
    }

    fn sockets(&self) -> PathBuf {
        self.stage.guest("sockets")
    }

    async fn start_daemons(&self) -> Result<()> {
        // A call that is refused is not written down: it mends nothing.
        self.stage.look("start-daemons", "the host")?;
        self.stage.act("start-daemons", "the host")
    }

    async fn open_kvm(&self) -> Result<()> {
        self.stage.look("open-kvm", "the host")?;
        self.stage.act("open-kvm", "the host")
    }
}
