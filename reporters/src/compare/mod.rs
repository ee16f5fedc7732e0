//! What is seen by looking across: two runs beside each other ([`diff`]).
//!
//! Owns conclusions that need more than one cell or more than one run, as plain values; owns no verdict of a single test
//! (`model`) and no wording of a report. To add a conclusion: a file here, its lines in each report that tells it.

mod diff;

pub use diff::{CellDiff, Change, Diff, Presence, diff};
