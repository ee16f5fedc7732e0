//! kmt-run: a test-matrix runner for code that depends on the kernel.

pub mod artifact;
pub mod external;
pub mod run;
