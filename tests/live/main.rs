//! Tests on real machines. Each is a story in named steps, with a `KMT_HOME` of its own below the caller's,
//! whose images it borrows; at its end nothing of it may be left.
//!
//! Run them by `cargo xtask test live`. Told to be elsewhere (`CARGO_BIN_EXE_kmt-run`, `CARGO_MANIFEST_DIR`,
//! `KMT_HOME` in the environment) they believe that, so that the gate can run a copy as another user.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "steps and times are for whoever reads the test's output")]
#![expect(clippy::disallowed_methods, reason = "a test looks at kmt-run from outside, as its users do")]

#[cfg_attr(not(feature = "soak"), expect(dead_code, reason = "stories of soak use all of it"))]
mod harness;

mod demo;
mod faults;
mod foreign;
mod full;
mod hosts;
mod isolation;
mod lost;
mod page;
mod reach;
mod refused;
mod rented;
mod signals;
#[cfg(feature = "soak")]
mod soak;
mod stack;
mod warm;
