//! kmt-run: a test-matrix runner for code that depends on the kernel.

pub mod external;
pub mod image;
pub mod matrix;
