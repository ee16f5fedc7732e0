//! kmt-run: a test-matrix runner for code that depends on the kernel.

pub mod error;
pub mod external;
pub mod settings;
pub mod stack;
