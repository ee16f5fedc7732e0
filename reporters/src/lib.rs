//! What is told: the fact stream of a run, and all that can be concluded from it.
//!
//! ```text
//! Event -> Envelope (events.jsonl) -> model::Run -> terminal | junit | json
//! ```
//!
//! This crate depends on nothing of ours.

pub mod event;
pub mod model;
