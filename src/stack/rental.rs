//! Hosts that are rented for a stack: written down before they are ordered, struck out once they are seen to be gone.

use chrono::{DateTime, Utc};
use kmt_reporters::event::Arch;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::Owner;
use super::{Lease, Stack};
use crate::error::Result;

/// A rented host, from before its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rental {
    /// Identity of the order: its tokens follow from it.
    pub order: Uuid,
    /// What it runs without emulation.
    pub arch: Arch,
    /// Region.
    pub region: String,
    /// Who wanted it: of a run it ends with the run, of the configuration with the stack.
    pub owner: Owner,
    /// When it was ordered.
    pub ordered: DateTime<Utc>,
    /// What the cloud calls it, once it has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Rented>,
}

/// What the cloud said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rented {
    /// Its id.
    pub id: String,
    /// Its type.
    pub instance_type: String,
    /// Where it is.
    pub zone: String,
    /// US dollars an hour, where known.
    pub usd_per_hour: Option<f64>,
}

impl Stack {
    /// The right to use and end a rental; `None` while another process has it.
    ///
    /// # Errors
    /// The lease file cannot be made.
    pub fn lease_rental(&self, name: &str) -> Result<Option<Lease>> {
        self.lease(&format!("rental-{name}"))
    }
}
