//! Why a machine failed, decided by code from what it wrote: causes of failed boots and complaints of kernels.
//!
//! Owns the rules ([`boot`], one file a family; [`splat`] for oopses, warnings and their kind) and what they conclude:
//! a [`Finding`] with its evidence and its place in the console. Owns no console and no clock: whoever has them feeds
//! bytes and [`boot::Facts`]. An honest *unknown* is an answer.
//!
//! To add a cause: a `Cause` and its `Rule`s in the family of the phase in which the boot ends, the console of a
//! machine that was broken that way in `tests/consoles/<cause>/`, and an excerpt of another distribution in its tests.

pub mod boot;
pub mod splat;

mod explain;
mod lines;
mod normal;
mod prefix;

use serde::Serialize;

use crate::event::BootPhase;

pub(crate) use explain::boot_cause;
pub use explain::{Explained, explain, explain_cell};
pub use lines::{Line, LineReader};
pub use normal::normalise;

/// What failed, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Kebab-case id of the cause, such as `no-root-device`; one of [`boot::causes`].
    pub cause: &'static str,
    /// The phase of boot that the cause belongs to; `ready` for what happens to a machine that is up.
    pub phase: BootPhase,
    /// One line: the cause, and the words that show it.
    pub says: String,
    /// The lines that show it, in the order of the console.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub advice: &'static str,
    /// Equal for two machines that failed for one reason: the cause and what is particular, numbers taken out.
    pub signature: String,
}

/// A line that shows something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Where it was said.
    pub place: Place,
    /// The line, clean, cut to a few hundred bytes.
    pub text: String,
}

/// Where a line was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In the words of libvirt or QEMU.
    Hypervisor,
    /// On the console.
    Console {
        /// Number of the line, from 1.
        line: u64,
        /// Offset of its first byte.
        offset: u64,
    },
    /// In the words of SSH on our side.
    Contact,
}
