//! What is seen by looking across: where a test fails and where not ([`boundaries`]), failures that have one cause
//! ([`groups()`]), and two runs beside each other ([`diff()`]).
//!
//! Owns conclusions that need more than one cell or more than one run, as plain values; owns no verdict of a single test
//! (`model`) and no wording of a report. To add a conclusion: a file here, its lines in each report that tells it.

mod boundary;
mod diff;
mod groups;

pub use boundary::{Boundary, boundaries};
pub use diff::{CellDiff, Change, Diff, Presence, diff};
pub use groups::{Group, groups};
