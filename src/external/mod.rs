//! The doors: everything outside this program is reached through a trait in one of these rooms.
//!
//! Owns the traits, their real adapters and their fakes. Decides nothing. To add a door: a folder with
//! the trait in `mod.rs`, the real adapter and `fake.rs` beside it; `world.rs` alone names the adapter.

pub mod builder;
pub mod ci;
pub mod cloud;
pub mod debian;
pub mod host;
pub mod hypervisor;
pub mod process;
pub mod remote;
pub mod scripted;
pub mod store;
pub mod transport;

use std::fmt;

/// What every door returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of refusal it was. Only `Unreachable` and `Busy` may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It is not there.
    NotFound,
    /// Not allowed.
    Denied,
    /// Cannot be reached (now).
    Unreachable,
    /// In use, or full (now).
    Busy,
    /// Understood and refused.
    Rejected,
    /// It answered something nobody understands.
    Unintelligible,
}

/// A failure outside: which system, doing what, to what, of which class.
#[derive(Debug)]
pub struct Error {
    /// The system, such as `libvirt` or `mmdebstrap`.
    pub system: &'static str,
    /// What was asked, such as `start`.
    pub operation: &'static str,
    /// Of what, such as a domain name.
    pub subject: String,
    /// What kind of refusal.
    pub class: Class,
    /// The system's own words, if any.
    pub detail: String,
    /// A command or action that helps, where one is known here.
    pub hint: Option<String>,
}

impl Error {
    /// A failure of `system` doing `operation` on `subject`.
    pub fn new(
        system: &'static str,
        operation: &'static str,
        subject: impl Into<String>,
        class: Class,
        detail: impl fmt::Display,
    ) -> Error {
        Error {
            system,
            operation,
            subject: subject.into(),
            class,
            detail: detail.to_string().trim().to_owned(),
            hint: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// An I/O error on `subject`, classed by its kind.
    pub fn io(
        system: &'static str,
        operation: &'static str,
        subject: impl Into<String>,
        source: &std::io::Error,
    ) -> Error {
        use std::io::ErrorKind;
        let class = match source.kind() {
            ErrorKind::NotFound => Class::NotFound,
            ErrorKind::PermissionDenied => Class::Denied,
            ErrorKind::StorageFull | ErrorKind::ResourceBusy => Class::Busy,
            _ => Class::Unreachable,
        };
        Error::new(system, operation, subject, class, source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} could not {} `{}`", self.system, self.operation, self.subject)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
