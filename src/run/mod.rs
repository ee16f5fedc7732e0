//! Running: what a guest does with a test binary, from its first byte of output to its last.
//!
//! Owns the reading of Go's test output ([`gotest`]) and the meaning of `--run` ([`filter`]). Does not
//! own how bytes travel (`external/transport`), what a binary is (`artifact`) or what is concluded
//! (`reporters`). To add another test framework: a parser beside `gotest` that yields the same items.

pub mod filter;
pub mod gotest;
