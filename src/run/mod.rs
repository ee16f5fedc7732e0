//! Running: from a plan to facts, through guests.
//!
//! Owns the dispatcher ([`conduct`]: one lane a cell), the lane of one guest ([`lane`]),
//! the scripts that prepare it ([`prepare`]) and run there ([`script`]), the reading of Go's test output ([`gotest`])
//! and of others ([`formats`]), the words a binary is called with ([`words`]) and the meaning of `--run`
//! ([`filter`]). Does not own how bytes travel (`external/transport`), what a binary is (`artifact`)
//! or what is concluded (`reporters`). To add another test framework: a reader in `formats` that yields
//! the same items.

pub mod brake;
pub mod conduct;
pub mod container;
pub mod filter;
pub mod formats;
pub mod gotest;
pub mod groups;
pub mod kmsg;
pub mod lane;
pub mod prepare;
pub mod script;
pub mod task;
pub mod timeline;
pub mod tracker;
pub mod words;
pub mod work;
